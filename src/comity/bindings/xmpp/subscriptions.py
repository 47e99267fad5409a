"""Between presence subscriptions and the subscribe operation, with the proof in a child of ours (SEC-34). Pure.

Place on the path: steps 4 and 8, as ``mapping.py`` and ``egress.py`` for messages. XMPP has neither a SubscriptID nor a duration: a
subscription is of two people and lasts until it ends. The child says what the watcher signed; a stanza without it means the same
as ever, and programs that do not know it ignore it.
"""

from __future__ import annotations

from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import unwrap_octets, wrap_octets
from comity.bindings.xmpp.mapping import Refusal
from comity.cpim.address import from_jid, to_jid
from comity.cpim.entity import split_entity
from comity.cpim.operations import SubscribeOperation
from comity.errors import AddressError, MalformedMessage, RemoteProtocolError
from comity.xml import Element

OPERATION: Final = "urn:comity:operation:0"
ELEMENT: Final = f"{{{OPERATION}}}operation"
ASKING: Final = frozenset({"subscribe", "unsubscribe"})
"""Presence types by which a watcher asks."""
FOREVER: Final = 2**32 - 1
"""Duration of a subscription that ends when it is ended: the longest there is (RFC 3261 section 20.19)."""
MOST_ID: Final = 256


def stanza_to_subscription(stanza: Element, *, trans_id: str) -> SubscribeOperation | Refusal:
    """Read a checked, stamped presence stanza of type subscribe or unsubscribe; ``to`` is there."""
    try:
        watcher, target = from_jid(stanza.get("from"))[0], from_jid(stanza.get("to"))[0]
    except AddressError as error:
        return Refusal("jid-malformed", error.reason)
    watcher, target = watcher.with_scheme("pres"), target.with_scheme("pres")
    native = FOREVER if stanza.get("type") == "subscribe" else 0
    children = [child for child in stanza.elements() if child.namespace == OPERATION]
    if not children:
        return SubscribeOperation(watcher, target, _pair(watcher.key, target.key), trans_id, native)
    try:
        if len(children) > 1 or children[0].name != ELEMENT:
            raise RemoteProtocolError("a stanza carries one operation element")
        (child,) = children
        subscript_id, duration = child.get("id"), _duration(child.get("duration"))
        if not 0 < len(subscript_id.encode()) <= MOST_ID:
            raise RemoteProtocolError("an operation has an id of at most 256 octets")
        if bool(duration) != bool(native):
            raise RemoteProtocolError("the duration does not fit the type of the stanza")
        proof = split_entity(unwrap_octets(child))
    except (RemoteProtocolError, MalformedMessage) as error:
        return Refusal("bad-request", error.reason)
    return SubscribeOperation(watcher, target, subscript_id, trans_id, duration, proof=proof)


def _pair(watcher: str, target: str) -> str:
    return f"{watcher} {target}"


def _duration(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > FOREVER:
        raise RemoteProtocolError("the duration of an operation is a number of seconds")
    return int(text)


def subscription_to_stanza(operation: SubscribeOperation) -> Element:
    """Make the presence stanza, without ``from``; a proof goes with it, and with it what it is about."""
    kind = "subscribe" if operation.duration else "unsubscribe"
    stanza = Element(wire.PRESENCE, {"type": kind, "to": to_jid(operation.target)})
    if operation.proof is None:
        return stanza
    about = {"id": operation.subscript_id, "duration": str(operation.duration)}
    return stanza.append(Element(ELEMENT, about, wrap_octets(operation.proof.entity).children))

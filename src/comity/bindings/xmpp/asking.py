"""Asking to see somebody, and answering: the four subscription stanzas, both ways (RFC 6121 section 3).

Place on the path: steps 4 and 5 upwards, 8 downwards. What a client says goes to the presence service, which knows the states
of appendix A and tells the other side, whatever protocol that speaks. What comes down is written from and to bare JIDs and by
us, so that nobody's resource leaks and nobody's stanza is taken for an approval it is not (XMPP-12, N-07).

A request that waits for an answer is shown to each device that becomes available, whole, until it is answered (XMPP-11).
"""

from __future__ import annotations

from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.blocking import Blocklists
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import PROTOCOL, is_server_only, shown
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.subscriptions import ASKING, FOREVER, OPERATION, stanza_to_subscription
from comity.bindings.xmpp.wire import PRESENCE, Element
from comity.cpim.address import from_jid, to_jid
from comity.cpim.operations import Response
from comity.errors import AddressError, RemoteProtocolError
from comity.service.presence.interfaces import ContactItem, Decision, Terms
from comity.xml import XmlLimits, parse_document, serialize

#: Presence types by which somebody answers.
ANSWERING: Final = frozenset({"subscribed", "unsubscribed"})
#: Octets of a request that are kept until it is answered (RFC 6121 section 3.1.3 warns of whole stanzas); a longer one is kept
#: without its extensions.
MOST_KEPT: Final = 8 * 1024
#: Characters of what somebody writes with a request.
MOST_TEXT: Final = 1024
_STATUS: Final = "{jabber:client}status"


class Asking:
    """Requests to see somebody, and their answers."""

    def __init__(self, ground: Ground, blocklists: Blocklists) -> None:
        self._ground = ground
        self._blocklists = blocklists

    # --- upwards ---------------------------------------------------------------------------------------------------

    async def said(self, connection: Connection, stanza: Element) -> None:
        """Take a stanza of one of the four types; ``to`` is there."""
        if not Jid.parse(stanza.get("to")).local:
            self._ground.answer(connection, self._to_domain(stanza))
        elif stanza.get("type") in ASKING:
            self._ground.answer(connection, await self._ask(connection, stanza))
        else:
            self._ground.answer(connection, await self._answer(connection, stanza))

    def _to_domain(self, stanza: Element) -> Element | None:
        if Jid.parse(stanza.get("to")).domain in self._ground.domains:
            return None  # the server has no presence; N-14
        return wire.error_reply(stanza, "remote-server-not-found") if stanza.get("type") in ASKING else None

    async def _ask(self, connection: Connection, stanza: Element) -> Element | None:
        presence = self._ground.presence
        assert presence is not None
        made = stanza_to_subscription(stanza, trans_id=stanza.get("id"))
        if isinstance(made, Refusal):
            return wire.error_reply(stanza, made.condition, made.text)
        origin = self._ground.origin(connection)
        if not made.duration:
            refused = await presence.withdraw(made, origin)
        else:
            blocked = self._blocklists.refusal(connection, stanza, made.target.with_scheme("im"))
            if blocked is not None:
                return blocked
            status = stanza.find(_STATUS)
            text = status.text[:MOST_TEXT] if status is not None else ""
            native = request_octets(stanza)
            terms = Terms("xmpp", most=FOREVER, text=text, native_protocol=PROTOCOL if native else "", native=native)
            refused = await presence.ask(made, origin, terms)
        return None if refused is None else self._error(stanza, refused)

    async def _answer(self, connection: Connection, stanza: Element) -> Element | None:
        presence = self._ground.presence
        assert presence is not None
        assert connection.account is not None
        try:
            watcher = from_jid(stanza.get("to"))[0].folded()
        except AddressError as error:
            return wire.error_reply(stanza, "jid-malformed", error.reason)
        decision = Decision.ALLOWED if stanza.get("type") == "subscribed" else Decision.REFUSED
        made = await presence.answer(connection.account, watcher, decision, self._ground.origin(connection))
        return self._error(stanza, made) if isinstance(made, Response) else None

    def _error(self, stanza: Element, refused: Response) -> Element | None:
        domain = Jid.parse(stanza.get("to")).domain
        return response_to_error(stanza, refused, is_local=domain in self._ground.domains)

    # --- downwards -------------------------------------------------------------------------------------------------

    def asked(self, item: ContactItem) -> None:
        """Show a new request to the account's available devices."""
        for connection in self._ground.devices.available(item.account):
            if connection.waiting_requests is not None:
                connection.waiting_requests.add(item.contact.key)
            self._send(connection, request_stanza(item))

    async def came(self, connection: Connection) -> None:
        """Show a device that became available what waits for an answer, each request once."""
        presence = self._ground.presence
        assert presence is not None
        assert connection.account is not None
        connection.waiting_requests = set()
        try:
            requests = await presence.contacts.requests(connection.account)
        finally:
            connection = connection.current
            shown_since, connection.waiting_requests = connection.waiting_requests or set(), None
        if connection.presence is None:
            return
        for item in requests:
            if item.contact.key not in shown_since:
                self._send(connection, request_stanza(item))

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """Show the answer to the account's interested devices, before the list they are pushed (RFC 6121 section 3.1.6)."""
        self._tell_interested(item, "subscribed" if is_granted else "unsubscribed")

    def withdrew(self, item: ContactItem) -> None:
        """Somebody who saw the account no longer wants to (RFC 6121 section 3.3.3)."""
        self._tell_interested(item, "unsubscribe")

    def _tell_interested(self, item: ContactItem, kind: str) -> None:
        for connection in self._ground.devices.of(item.account):
            if connection.wants_roster:
                self._send(connection, Element(PRESENCE, {**_between(item), "type": kind}))

    def _send(self, connection: Connection, stanza: Element) -> None:
        self._ground.reply(connection, stanza)
        connection.link.flush()


def request_octets(stanza: Element) -> bytes:
    """A request's children as they came, without what only servers may say and without its proof, which is not for people."""
    kept = [c for c in stanza.elements() if not is_server_only(c) and c.namespace != OPERATION]
    octets = b"".join(serialize(child, wire.CLIENT) for child in kept)
    return octets if len(octets) <= MOST_KEPT else b""


def request_stanza(item: ContactItem) -> Element:
    """The request of ``item.contact`` as the account's devices get it."""
    assert item.ask is not None
    stanza = Element(PRESENCE, {**_between(item), "type": "subscribe"})
    if item.ask.native_protocol == PROTOCOL:
        stanza.children = request_children(item.ask.native)
    if not stanza.children and item.ask.text:
        stanza.append(Element(_STATUS, {}, [shown(item.ask.text)]))
    return stanza


def request_children(octets: bytes) -> list[Element | str]:
    """What ``request_octets`` wrote."""
    document = b"<presence xmlns='jabber:client'>" + octets + b"</presence>"
    try:
        return parse_document(document, XmlLimits(octets=2 * MOST_KEPT)).children
    except RemoteProtocolError:
        return []


def _between(item: ContactItem) -> dict[str, str]:
    return {"from": to_jid(item.contact), "to": to_jid(item.account)}

"""Message Carbons (XEP-0280): a user's other devices see what one of them sent, and what only some of them got.

Place on the path: beside steps 7 and 8, told of every message the service took, whatever protocol it came by: what a
user sends from a SIP phone is seen on the XMPP devices too. A copy carries the same object as the message, octet for
octet, and goes to the same account only. It is a courtesy, not a promise: it is not stored, and a device that is not
there, or too slow, misses it.
"""

from __future__ import annotations

from typing import Final, Literal

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import DELAY, HISTORY, PROTOCOL, STANZA_ID
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.queries import CARBONS
from comity.bindings.xmpp.wire import MESSAGE, Element
from comity.cpim.address import to_jid
from comity.cpim.operations import MessageOperation, Requirement, Response
from comity.service.interfaces import Origin

FORWARD: Final = "urn:xmpp:forward:0"
#: Unacknowledged stanzas of a device above which it gets no copies: room is for messages.
MOST_WAITING = 200


class Carbons:
    """Copies for the devices that asked for them."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._enabled: dict[str, set[Connection]] = {}
        """By the account's key."""

    def answer(self, connection: Connection, stanza: Element) -> Element | None:
        """Answer an iq of the own account if it switches copies on or off, else None."""
        payload = next(stanza.elements(), None)
        if payload is None or payload.namespace != CARBONS or stanza.get("type") != "set":
            return None
        if payload.local not in ("enable", "disable"):
            return wire.error_reply(stanza, "bad-request")
        connection.has_carbons = payload.local == "enable"
        self.place(connection)
        return wire.iq_result(stanza)

    def place(self, connection: Connection) -> None:
        """Keep in mind whether this connection wants copies; a resumed stream still does (XEP-0198 section 5)."""
        assert connection.account is not None
        key = connection.account.folded().key
        if connection.has_carbons:
            self._enabled.setdefault(key, set()).add(connection)
        else:
            self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """The device is gone, or wants no more."""
        if connection.account is None:
            return
        key = connection.account.folded().key
        devices = self._enabled.get(key, set())
        devices.discard(connection)
        if not devices:
            self._enabled.pop(key, None)

    def taken(self, operation: MessageOperation, origin: Origin, id: str) -> None:
        """The service took a message: copy it to whom it concerns."""
        if not self._enabled or not _is_eligible(operation):
            return
        senders = self._enabled.get(operation.source.key, ())
        recipients = self._enabled.get(operation.destination.key, ())
        if not senders and not recipients:
            return
        context = operation.context
        sender = context.source_resource if origin.binding == PROTOCOL else ""
        reached = self._ground.service.reached(operation)
        served = {contact.resource for contact in reached if contact.binding == PROTOCOL}
        if not reached:
            recipients = ()  # it waits for the first device that comes, which may be one of these: it gets it, not a copy
        is_own = operation.source.key == operation.destination.key
        for device in list(senders):
            assert device.jid is not None
            if device.jid.resource != sender and not (is_own and device.jid.resource in served):
                self._copy(device, "sent", operation, id)
        for device in list(recipients):
            assert device.jid is not None
            if device.jid.resource not in served and not is_own:
                self._copy(device, "received", operation, id)

    def _copy(
        self, device: Connection, name: Literal["sent", "received"], operation: MessageOperation, id: str
    ) -> None:
        assert device.jid is not None
        if device.sm is not None and len(device.sm.outgoing) >= MOST_WAITING:
            return
        if Requirement.TLS in operation.requirements and not device.session.is_tls:
            return  # no copy either goes where the message may not (T11)
        service = self._ground.service
        made = mapping.operation_to_stanza(
            operation,
            delivery_id=id,
            domain=service.node,
            accepted=service.clock.when(),
            is_delayed=False,
            features=device.features,
        )
        if isinstance(made, Response):
            return  # it could not show it anyway
        inner = made.stanza
        if name == "sent":  # what the recipient's server adds is not part of what was sent
            ours = (STANZA_ID, DELAY, HISTORY)
            inner.children = [c for c in inner.children if isinstance(c, str) or c.namespace not in ours]
        forwarded = Element(f"{{{FORWARD}}}forwarded", {}, [inner])
        attributes = {"from": to_jid(operation.source if name == "sent" else operation.destination)}
        attributes["to"] = str(device.jid)
        if inner.get("type"):
            attributes["type"] = inner.get("type")
        copy = Element(MESSAGE, attributes, [Element(f"{{{CARBONS}}}{name}", {}, [forwarded])])
        if operation.context.transient:
            self._ground.pass_on(device, copy, f"{name} {inner.get('from')} {inner.get('to')}")
        else:
            self._ground.reply(device, copy)
        device.link.flush()


def _is_eligible(operation: MessageOperation) -> bool:
    """XEP-0280 section 6: what belongs to a conversation, unless the sender asked for no copies."""
    context = operation.context
    return not context.no_copies and context.kind != "headline" and context.report is None

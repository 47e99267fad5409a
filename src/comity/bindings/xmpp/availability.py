"""Who is available: presence of a user's own devices, as the user says it and as a lost connection says it.

Place on the path: steps 4 and 5 of a publication, and beside step 6: an available device is a contact address. What a device says
is published for whoever may watch, whatever protocol that speaks; the user's own devices see each other here, at once and whole.

A device whose stream may be resumed stays available until the time for that is over, as with other servers (XEP-0198 section
5): a train in a tunnel is not an absence. Messages for it wait in the store meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from functools import partial
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.asking import ANSWERING, Asking
from comity.bindings.xmpp.capabilities import Capabilities
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.directed import Directed
from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.personal import Personal
from comity.bindings.xmpp.presence import check_presence, parting_words, priority_of, stanza_to_statement
from comity.bindings.xmpp.subscriptions import ASKING
from comity.bindings.xmpp.watching import Watching
from comity.bindings.xmpp.wire import Element
from comity.cpim.operations import Response
from comity.errors import LocalProtocolError
from comity.service.interfaces import Contact

log = logging.getLogger(__name__)

_BROADCAST: Final = frozenset({"", "unavailable"})


class Availability:
    """Presence stanzas of clients, each handed to the part that knows what to do."""

    def __init__(
        self, ground: Ground, asking: Asking, watching: Watching, directed: Directed, personal: Personal
    ) -> None:
        self._ground = ground
        self._asking = asking
        self._watching = watching
        self._directed = directed
        self._personal = personal
        self.capabilities = Capabilities(ground, self.register)

    def presence(self, connection: Connection, stanza: Element) -> Coroutine[None, None, None] | None:
        """Take a presence stanza; what is given is still to be done."""
        fault, kind = check_presence(stanza), stanza.get("type")
        if fault is not None:
            self._refuse(connection, stanza, fault)
        elif kind == "error":
            return None
        elif not stanza.get("to"):
            self._broadcast_wanted(connection.current, stanza)
        elif self._ground.presence is None:
            self._switched_off(connection, stanza)
        elif kind in ASKING or kind in ANSWERING:
            return self._asking.said(connection, stanza)
        elif kind == "probe":
            return self._watching.probe(connection, stanza)
        else:
            return self._directed.said(connection, stanza)
        return None

    def _refuse(self, connection: Connection, stanza: Element, fault: Refusal) -> None:
        reply = wire.error_reply(stanza, fault.condition, fault.text, sender=None if stanza.get("to") else "")
        self._ground.answer(connection, reply)

    def _switched_off(self, connection: Connection, stanza: Element) -> None:
        """SEED-45: without presence nobody sees anybody; who asks is told so, what is merely said goes nowhere."""
        if stanza.get("type") in ASKING or stanza.get("type") in ANSWERING:
            reply = wire.error_reply(stanza, "service-unavailable", "presence is switched off here")
            self._ground.answer(connection, reply)

    # --- broadcast ---------------------------------------------------------------------------------------------------

    def _broadcast_wanted(self, connection: Connection, stanza: Element) -> None:
        kind = stanza.get("type")
        if kind not in _BROADCAST:
            fault = Refusal("bad-request", "this presence stanza needs a to")
            self._refuse(connection, stanza, fault)
        elif kind == "unavailable":
            self.go_offline(connection, stanza)
            connection.caps_asked = None
        else:
            self._available(connection, stanza)

    def _available(self, connection: Connection, stanza: Element) -> None:
        refusal = self._publish(connection, stanza)
        if refusal is not None:
            self._ground.answer(connection, refusal)
            return
        is_first = connection.presence is None
        connection.priority, connection.presence = priority_of(stanza), stanza
        self.capabilities.learn(connection, stanza)
        if connection.caps_asked is None or connection.is_registered:
            self.register(connection)
        self.broadcast(connection, stanza)
        if not is_first:
            return
        for other in self._ground.devices.resources(connection.jid):
            if other is not connection and other.presence is not None:
                self._ground.reply(connection, _addressed(other.presence, connection))
        connection.link.flush()
        if self._ground.presence is not None:
            self._watching.came(connection)
            self._ground.run(self._asking.came(connection))

    def _publish(self, connection: Connection, stanza: Element) -> Element | None:
        """Tell whoever watches; the error if it cannot be told, and then nothing changed."""
        presence = self._ground.presence
        if presence is None:
            return None
        assert connection.account is not None
        assert connection.jid is not None
        resource = connection.jid.resource
        made = stanza_to_statement(stanza, resource, self._ground.service.clock.when())
        if isinstance(made, Refusal):
            return wire.error_reply(stanza, made.condition, made.text, sender="")
        clock = self._ground.service.clock
        wait = connection.rates.presence.wait(clock.now())
        if connection.publish_timer is not None or wait > 0:
            connection.unpublished = made
            if connection.publish_timer is None:
                connection.publish_timer = clock.call_later(wait, partial(self._publish_last, connection))
            return None
        connection.rates.presence.take(clock.now())
        answer = presence.publish(connection.account, made, self._ground.origin(connection), key=resource)
        return response_to_error(stanza, answer, is_local=False) if isinstance(answer, Response) else None

    def _publish_last(self, connection: Connection) -> None:
        """The device said too much too fast: tell the last of it (L-08)."""
        connection, presence = connection.current, self._ground.presence
        made, connection.unpublished, connection.publish_timer = connection.unpublished, None, None
        if made is None or presence is None or connection.presence is None:
            return
        assert connection.account is not None
        assert connection.jid is not None
        connection.rates.presence.take(self._ground.service.clock.now())
        origin = self._ground.origin(connection)
        answer = presence.publish(connection.account, made, origin, key=connection.jid.resource)
        if isinstance(answer, Response):
            log.info("what %s says cannot be told: %s", connection.account, answer.text, extra={"is_peers": True})

    # --- gone --------------------------------------------------------------------------------------------------------

    def park(self, connection: Connection) -> None:
        """The connection is lost and may be resumed: no messages are written to it, and nobody is told yet."""
        self._unregister(connection)
        self.remember(connection)

    def remember(self, connection: Connection) -> None:
        """Keep in mind what the device has seen of others: what changes from here on is told when its stream goes on."""
        if connection.presence is not None and self._ground.presence is not None:
            self._watching.parked(connection)

    def may_go_on(self, connection: Connection, slot: str, octets: bytes) -> bool:
        """False for what waited on a stream while whom it is of took back that it may be seen."""
        return self._ground.presence is None or self._watching.may_go_on(connection, slot, octets)

    def resumed(self, connection: Connection) -> None:
        """A stream goes on: an available device is there again, at once unless its answer is still to come."""
        if connection.presence is None:
            return
        if connection.caps_asked is None or connection.is_registered:
            self.register(connection)
        else:
            self.capabilities.wait(connection)
        if self._ground.presence is not None:
            self._watching.resumed(connection)

    def go_offline(self, connection: Connection, stanza: Element | None = None) -> None:
        """The device is available no more: it takes no messages, and all who were told of it hear it (XMPP-14)."""
        self._unregister(connection)
        if self._ground.presence is not None:
            self._directed.ended(connection)
        if connection.presence is None:
            return
        if stanza is None:
            stanza = Element(wire.PRESENCE, {"type": "unavailable", "from": str(connection.jid)})
        self.broadcast(connection, stanza)
        connection.presence, connection.events = None, frozenset()
        if self._ground.presence is None:
            return
        assert connection.account is not None
        assert connection.jid is not None
        resource, origin = connection.jid.resource, self._ground.origin(connection)
        try:
            words = parting_words(stanza, resource)
        except LocalProtocolError:  # a name that XML allows and our writer does not
            words = {}
        self._ground.presence.unpublish(connection.account, origin, key=resource, natives=words)
        self._watching.left(connection.account)

    # --- own devices -------------------------------------------------------------------------------------------------

    def broadcast(self, connection: Connection, stanza: Element) -> None:
        """Tell the user's available devices, the one it is about included (RFC 6121 section 4.2.2)."""
        for other in self._ground.devices.resources(connection.jid):
            if other.presence is None:
                continue
            if other.is_live and not other.session.is_ended:
                self._ground.pass_on(other, _addressed(stanza, other), f"presence {stanza.get('from')}")
                other.link.flush()
            else:
                self._ground.reply(other, _addressed(stanza, other))  # kept for when its stream is resumed

    # --- contact address ---------------------------------------------------------------------------------------------

    def register(self, connection: Connection) -> None:
        """Make an available device a contact address, or renew what is known of it."""
        self._ground.run(self._register(connection))
        self._personal.came(connection)

    async def _register(self, connection: Connection) -> None:
        if connection.presence is None or not connection.is_live or connection.session.is_ended:
            return
        assert connection.account is not None
        assert connection.jid is not None
        connection.is_registered = True
        self._ground.devices.by_contact[connection.account.folded().key, connection.jid.resource] = connection
        contact = Contact(
            connection.jid.resource,
            connection.account,
            PROTOCOL,
            resource=connection.jid.resource,
            priority=connection.priority,
            window=self._ground.config.in_flight,
            is_protected=connection.session.is_tls,
            data=b" ".join(f.encode() for f in sorted((connection.features or frozenset()) & {E2E, OCTETS})),
        )
        await self._ground.service.registrar.register(contact, None)

    def _unregister(self, connection: Connection) -> None:
        if not connection.is_registered:
            return
        connection.is_registered = False
        assert connection.account is not None
        assert connection.jid is not None
        key = (connection.account.folded().key, connection.jid.resource)
        if self._ground.devices.by_contact.get(key) is connection:
            del self._ground.devices.by_contact[key]
        gone = self._ground.service.registrar.unregister(connection.account, PROTOCOL, connection.jid.resource)
        self._ground.run(gone)


def _addressed(stanza: Element, connection: Connection) -> Element:
    return Element(stanza.name, {**stanza.attributes, "to": str(connection.jid)}, stanza.children)

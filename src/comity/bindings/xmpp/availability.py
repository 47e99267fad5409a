"""Who is available: presence of a user's own devices, and their place among the contact addresses.

Place on the path: beside step 6. Presence goes no further than the user's own devices: subscriptions come later and
stay unanswered until then, but for those that are refused (SEC-34).
"""

from __future__ import annotations

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.capabilities import Capabilities
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.subscriptions import ASKING, stanza_to_subscription
from comity.bindings.xmpp.wire import Element
from comity.service.interfaces import Contact, Origin


class Availability:
    """Presence as far as delivery needs it."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.capabilities = Capabilities(ground, self.register)

    def presence(self, connection: Connection, stanza: Element) -> None:
        """Take a presence stanza."""
        kind = stanza.get("type")
        if kind in ASKING and "@" in stanza.get("to"):
            self._ground.run(self._subscribe(connection, stanza))
            return
        if kind not in ("", "unavailable") or stanza.get("to"):
            return  # subscriptions and directed presence: not yet (docs/bindings/xmpp.md)
        if kind == "unavailable":
            self.go_offline(connection, stanza)
            connection.presence = connection.caps_asked = None
            return
        priority = stanza.find("{jabber:client}priority")
        text = priority.text.strip() if priority is not None else "0"
        if not text.lstrip("+-").isdigit() or len(text) > 4 or not -128 <= int(text) <= 127:
            self._ground.reply(
                connection, wire.error_reply(stanza, "bad-request", "priority is -128 to 127", sender="")
            )
            return
        is_first = connection.presence is None
        connection.priority, connection.presence = int(text), stanza
        self.capabilities.learn(connection, stanza)
        if connection.caps_asked is None or connection.is_registered:
            self.register(connection)
        self.broadcast(connection, stanza)
        if is_first:
            for other in self._ground.devices.resources(connection.jid):
                if other is not connection and other.presence is not None:
                    self._ground.reply(connection, _addressed(other.presence, connection))

    async def _subscribe(self, connection: Connection, stanza: Element) -> None:
        """Refuse what is not the watcher's or not proved; the rest is not done yet and stays unanswered. No state."""
        assert connection.account is not None
        made = stanza_to_subscription(stanza, trans_id=stanza.get("id"))
        if isinstance(made, Refusal):
            error = wire.error_reply(stanza, made.condition, made.text)
        else:
            origin = Origin(connection.account, PROTOCOL, connection.host, connection.session.is_tls)
            refusal = await self._ground.service.admit_subscription(made, origin)
            error = None if refusal is None else response_to_error(stanza, refusal, is_local=True)
        if error is not None and connection.is_live and not connection.session.is_ended:
            self._ground.reply(connection, error)
            connection.link.flush()

    def resumed(self, connection: Connection) -> None:
        """A stream goes on: an available device is there again, at once unless its answer is still to come."""
        if connection.presence is None:
            return
        if connection.caps_asked is None or connection.is_registered:
            self.register(connection)
        else:
            self.capabilities.wait(connection)
        self.broadcast(connection, connection.presence)

    def register(self, connection: Connection) -> None:
        """Make an available device a contact address, or renew what is known of it."""
        self._ground.run(self._register(connection))

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

    def go_offline(self, connection: Connection, stanza: Element | None = None) -> None:
        """The device takes no more messages; its user's other devices are told."""
        if connection.is_registered:
            connection.is_registered = False
            assert connection.account is not None
            assert connection.jid is not None
            key = (connection.account.folded().key, connection.jid.resource)
            if self._ground.devices.by_contact.get(key) is connection:
                del self._ground.devices.by_contact[key]
            gone = self._ground.service.registrar.unregister(connection.account, PROTOCOL, connection.jid.resource)
            self._ground.run(gone)
        if connection.presence is not None:
            if stanza is None:
                stanza = Element(wire.PRESENCE, {"type": "unavailable", "from": str(connection.jid)})
            self.broadcast(connection, stanza)

    def broadcast(self, connection: Connection, stanza: Element) -> None:
        """Tell the user's available devices."""
        for other in self._ground.devices.resources(connection.jid):
            if other.presence is not None and other.is_live:
                self._ground.pass_on(other, _addressed(stanza, other), f"presence {stanza.get('from')}")
                other.link.flush()


def _addressed(stanza: Element, connection: Connection) -> Element:
    return Element(stanza.name, {**stanza.attributes, "to": str(connection.jid)}, stanza.children)

"""Presence for one person, outside any subscription (RFC 6121 section 4.6), and its end with the device that sent it.

Place on the path: steps 4 and 5, and 8. It passes the service only to be refused there if the other blocks its sender; it is
neither kept nor composed with anything. A secured presence document goes this way too, whole (RFC 3923 section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.blocking import Blocklists
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.notices import notify_to_stanzas
from comity.bindings.xmpp.presence import stanza_to_notify
from comity.bindings.xmpp.presence_outward import EDGE
from comity.bindings.xmpp.watching import subscript_id
from comity.bindings.xmpp.wire import PRESENCE, Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import NotifyOperation
from comity.cpim.watchers import SubscriptionState
from comity.errors import AddressError
from comity.service.interfaces import Origin

#: How many one device may have sent presence to and not taken it back: room for chat rooms, and a bound (reliability.md 6.2).
MOST: Final = 256


class Directed:
    """Directed presence, both ways."""

    def __init__(self, ground: Ground, blocklists: Blocklists) -> None:
        self._ground = ground
        self._blocklists = blocklists

    async def said(self, connection: Connection, stanza: Element) -> None:
        """Take a presence stanza of no type, or of type unavailable, that has a ``to``."""
        self._ground.answer(connection, await self._send(connection, stanza))

    async def _send(self, connection: Connection, stanza: Element) -> Element | None:
        presence, to = self._ground.presence, Jid.parse(stanza.get("to"))
        assert presence is not None
        is_available = not stanza.get("type")
        if not to.local:
            # N-14 for our own domain; of others none can be reached.
            is_ours = to.domain in self._ground.domains or not is_available
            return None if is_ours else wire.error_reply(stanza, "remote-server-not-found")
        made = stanza_to_notify(stanza, self._ground.service.clock.when(), trans_id=self._ground.random(12).hex())
        if isinstance(made, Refusal):
            return wire.error_reply(stanza, made.condition, made.text)
        blocked = self._blocklists.refusal(connection, stanza, made.watcher.with_scheme("im"))
        if blocked is not None:
            return blocked
        if is_available and len(connection.directed) >= MOST and to not in connection.directed:
            return wire.error_reply(stanza, "resource-constraint", f"at most {MOST} are told of a device directly")
        refused = await presence.direct(made, self._ground.origin(connection))
        if refused is not None:
            is_local = to.domain in self._ground.domains
            return response_to_error(stanza, refused, is_local=is_local) if is_available else None
        if is_available:
            connection.current.directed[to] = None
        else:
            connection.current.directed.pop(to, None)
        return None

    def ended(self, connection: Connection) -> None:
        """The device is available no more: those it told directly hear it, unless they hear it anyway (section 4.6.3)."""
        told, connection.directed = list(connection.directed), {}
        if told and self._ground.presence is not None:
            self._ground.run(self._end(str(connection.jid), told, self._ground.origin(connection)))

    async def _end(self, sender: str, told: list[Jid], origin: Origin) -> None:
        presence = self._ground.presence
        assert presence is not None
        for to in told:
            try:
                watcher = from_jid(str(to))[0].folded()
            except AddressError:
                continue
            if not self._hears_anyway(watcher, origin.principal):
                await presence.direct(self._gone(sender, to), origin)

    def _hears_anyway(self, watcher: Address, account: Address) -> bool:
        assert self._ground.presence is not None
        find, id = self._ground.presence.find, subscript_id(watcher, account)
        watching = find(PROTOCOL, id) or find(EDGE, id)
        return watching is not None and watching.state is SubscriptionState.ACTIVE

    def _gone(self, sender: str, to: Jid) -> NotifyOperation:
        stanza = Element(PRESENCE, {"type": "unavailable", "from": sender, "to": str(to)})
        made = stanza_to_notify(stanza, self._ground.service.clock.when(), trans_id=self._ground.random(12).hex())
        assert not isinstance(made, Refusal), made
        return made

    def blocked(self, account: Address, others: Sequence[Address]) -> None:
        """Whom the account blocks now hears the end of what it was told, and learns no more (XEP-0191 section 3.3)."""
        keys = {other.key for other in others}
        for connection in self._ground.devices.of(account) if keys else ():
            for to in list(connection.directed):
                watcher = from_jid(str(to))[0].folded()
                if watcher.key in keys or f"im:@{watcher.domain}" in keys:
                    del connection.directed[to]
                    if not self._hears_anyway(watcher, account):
                        self.arrived(self._gone(str(connection.jid), to))

    def arrived(self, operation: NotifyOperation) -> None:
        """See ``Edge.directed``: to one device, or to all that are available."""
        resource = operation.context.resource
        try:
            account = operation.watcher.with_scheme("im").folded()
        except AddressError:
            return  # nobody here can have that name
        devices = self._ground.devices
        if resource:
            connections = [one for one in devices.of(account) if one.jid is not None and one.jid.resource == resource]
        else:
            connections = devices.available(account)
        if not connections:
            return
        notices = notify_to_stanzas(operation, self._ground.service.clock.when())
        for connection in connections:
            to = str(connection.jid) if resource else to_jid(account)
            for notice in notices:
                self._ground.reply(connection, notice.element(to))
            connection.link.flush()

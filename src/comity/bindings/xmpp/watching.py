"""What an account sees of its contacts: while it is available it watches each one that lets it (RFC 6121 section 4).

Place on the path: steps 4 and 5 of a subscribe, 8 of a notify. One subscription for each account and contact, whatever number of
devices the account has: started when its first device becomes available, which is what the probes of section 4.3 are for where
servers are two, and ended with its last. Not durable: after a restart the devices come again.

A device that comes later is shown what the account was last told. A stream that waits to be resumed is written nothing; when it
goes on it is told the difference to what it had seen (``Connection.shown``).
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.notices import Notice, content_to_stanzas, current_stanzas, to_octets
from comity.bindings.xmpp.subscriptions import FOREVER
from comity.bindings.xmpp.wire import PRESENCE, Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import Response, SubscribeOperation
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import ContactItem, Content, Granted, PresenceService, Subscription, Terms

log = logging.getLogger(__name__)

#: Seconds until contacts are looked up anew when the store failed.
RETRY = 30.0
#: Seconds that a contact waits to be shown because a device does not acknowledge what it was shown before; and until that is
#: looked at anew.
PATIENCE = 5.0
PAUSE = 1.0
#: Contacts of one account looked at in one turn of the loop.
TURN = 32
#: Octets not yet written above which a device waits for the rest of its contacts: as much as the network takes for slow.
CROWD = 256 * 1024
#: Seconds after which a probe is refused: longer than any look-up, since what had to be looked up would tell who exists.
REFUSAL_TIME = 0.02
_NOTHING: frozenset[str] = frozenset()
#: A stanza's start tag, as our writer makes it.
_TAG = re.compile(rb"<\w+(?: [\w:]+='[^']*')*")


@dataclass(slots=True, eq=False)
class Watch:
    """An available account, and whom it watches."""

    account: Address
    origin: Origin
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    """By the contact's key."""
    starting: set[str] = field(default_factory=set)
    """Keys of contacts whose subscription is being made."""


@dataclass(frozen=True, slots=True)
class _Probe:
    """Who asked once, and where the answer goes."""

    connection: Connection
    target: Jid
    id: str
    at: float
    """Monotonic."""


class Watching:
    """Subscriptions of available accounts, and probes."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._watches: dict[str, Watch] = {}
        """By the account's key."""
        self._probes: dict[str, _Probe] = {}
        """By the id of the fetch that will answer it."""
        self._pauses: set[asyncio.Future[None]] = set()
        """Work that waits for some device to acknowledge something."""

    @property
    def _presence(self) -> PresenceService:
        presence = self._ground.presence
        assert presence is not None
        return presence

    # --- devices come and go ---------------------------------------------------------------------------------------

    def came(self, connection: Connection) -> None:
        """A device became available: show it its account's contacts."""
        assert connection.account is not None
        watch = self._watches.get(connection.account.key)
        if watch is None:
            watch = Watch(connection.account, self._ground.origin(connection))
            self._watches[connection.account.key] = watch
            self._ground.run(self._watch_all(watch))
            return
        self._ground.run(self._show_all(connection, watch, {}))

    def left(self, account: Address) -> None:
        """A device of the account is available no more; with the last one all watching ends."""
        if self._ground.devices.available(account):
            return
        watch = self._watches.pop(account.key, None)
        for subscription in watch.subscriptions.values() if watch is not None else ():
            self._presence.lost(subscription)

    def parked(self, connection: Connection) -> None:
        """The device's stream carries nothing more and waits to be resumed: remember what it has seen."""
        if connection.shown is not None:
            return
        watch = self._watch_of(connection)
        subscriptions = watch.subscriptions if watch is not None else {}
        connection.shown = {key: one.told for key, one in subscriptions.items() if one.told is not None}

    def resumed(self, connection: Connection) -> None:
        """The stream goes on: tell it what it missed."""
        seen, connection.shown = connection.shown or {}, None
        watch = self._watch_of(connection)
        subscriptions = watch.subscriptions if watch is not None else {}
        for key, content in seen.items():
            if key not in subscriptions or subscriptions[key].told is None:
                self._write_gone(connection, self._senders(content))
        connection.link.flush()
        if watch is not None:
            self._ground.run(self._show_all(connection, watch, seen))

    def may_go_on(self, connection: Connection, slot: str, octets: bytes) -> bool:
        """False for what was not written yet and must not be any more: its contact lets itself be seen no longer (G9).

        That it is gone is always said: whoever was shown it has to hear the end.
        """
        assert connection.account is not None
        sender = slot.split(" ", 2)[1]
        try:
            contact = from_jid(sender)[0].folded()
        except AddressError:
            return True
        tag = _TAG.match(octets)
        if contact.key == connection.account.key or tag is None or b" type='unavailable'" in tag[0]:
            return True
        account = connection.account
        return any(one.watcher.key == account.key for one in self._presence.seen_by(contact, account))

    def _watch_of(self, connection: Connection) -> Watch | None:
        assert connection.account is not None
        return self._watches.get(connection.account.key)

    async def _show_all(self, connection: Connection, watch: Watch, seen: dict[str, Content]) -> None:
        """Show a device what its account was last told of each contact, as far as it has not seen that."""
        for number, (key, subscription) in enumerate(list(watch.subscriptions.items()), 1):
            await self._room([connection])
            await _pause(number)
            if connection.presence is None or connection.shown is not None:
                return
            content, when = subscription.told, self._ground.service.clock.when()
            if content is not None and watch.subscriptions.get(key) is subscription and content is not seen.get(key):
                takes = connection.features or _NOTHING
                self._write(connection, content_to_stanzas(content, seen.get(key), when, takes=takes))
                connection.link.flush()

    async def _room(self, connections: Iterable[Connection]) -> None:
        """Wait while a device has yet to acknowledge much: a long list must not fill the queue of what may wait for it."""
        clock = self._ground.service.clock
        deadline = clock.now() + PATIENCE
        while clock.now() < deadline and any(_is_crowded(connection) for connection in connections):
            pause: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._pauses.add(pause)
            timer = clock.call_later(PAUSE, self.acknowledged)
            await pause
            timer.cancel()

    def acknowledged(self) -> None:
        """Some device acknowledged something: who waits for that looks again."""
        pauses, self._pauses = self._pauses, set()
        for pause in pauses:
            if not pause.done():
                pause.set_result(None)

    # --- subscriptions ---------------------------------------------------------------------------------------------

    async def _watch_all(self, watch: Watch) -> None:
        """Watch all contacts that let themselves be seen and are not watched yet; tried anew while the store fails."""
        try:
            roster = await self._presence.contacts.roster(watch.account)
            for number, item in enumerate([item for item in roster.items if item.sees], 1):
                await self._room(self._ground.devices.available(watch.account))
                if self._watches.get(watch.account.key) is not watch:
                    return  # all its devices went, and perhaps one came again: that is watched for anew
                await self._start(watch, item.contact)
                await _pause(number)
        except StoreError as error:
            log.error("the contacts of an account cannot be watched yet: %s", error)
            self._ground.service.clock.call_later(RETRY, lambda: self._ground.run(self._watch_all(watch)))

    async def _start(self, watch: Watch, contact: Address) -> None:
        presence, key = self._presence, contact.key
        if self._watches.get(watch.account.key) is not watch or key in watch.subscriptions or key in watch.starting:
            return
        watch.starting.add(key)
        try:
            id = subscript_id(watch.account, contact)
            answer = await self._subscribe(watch.account, contact, id, watch.origin)
            is_seen = (await presence.contacts.item(watch.account, contact)).sees
        finally:
            watch.starting.discard(key)
        if isinstance(answer, Response):
            log.info("%s cannot be watched: %s", contact, answer.text, extra={"is_peers": True})
        elif self._watches.get(watch.account.key) is not watch or not is_seen:
            presence.lost(answer.subscription)  # it ended while it was made
        else:
            watch.subscriptions[key] = answer.subscription
            presence.begin(answer.subscription)

    async def _subscribe(
        self, watcher: Address, target: Address, id: str, origin: Origin, duration: int = FOREVER
    ) -> Granted | Response:
        trans_id = self._ground.random(12).hex()
        pair = watcher.with_scheme("pres"), target.with_scheme("pres")
        operation = SubscribeOperation(*pair, id, trans_id, duration)
        return await self._presence.subscribe(operation, origin, Terms(PROTOCOL, most=FOREVER, is_standing=True))

    def contact_changed(self, item: ContactItem) -> None:
        """Watch a contact that lets itself be seen now, and no longer one that does not."""
        watch = self._watches.get(item.account.key)
        if watch is None:
            return
        if item.sees:
            if item.contact.key not in watch.subscriptions:
                self._ground.run(self._start(watch, item.contact))
        else:
            self._stop(watch, item.contact.key)

    def _stop(self, watch: Watch, key: str) -> None:
        subscription = watch.subscriptions.pop(key, None)
        if subscription is not None:
            self._hide(subscription)
            self._presence.lost(subscription)

    # --- downwards -------------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``: the same for all, but for whom it is addressed to."""
        when = self._ground.service.clock.when()
        plain = content_to_stanzas(content, told, when)
        devices = self._ground.devices
        for subscription in subscriptions:
            if self._probes and subscription.id in self._probes:
                self._answer(self._probes.pop(subscription.id), current_stanzas(content, when))
                continue
            for connection in devices.of(subscription.watcher):
                if connection.presence is None or connection.shown is not None:
                    continue
                notices = plain
                if content.whole is not None and connection.features:
                    notices = content_to_stanzas(content, told, when, takes=connection.features)
                if notices:
                    self._write(connection, notices)
                    connection.link.flush()

    def pending(self, subscription: Subscription) -> None:
        """It has to wait again: what was shown of the contact is true no more (ACL-10)."""
        self._hide(subscription)

    def ended(self, subscription: Subscription) -> None:
        """The contact lets itself be seen no more, or a probe found out that it does not."""
        probe = self._probes.pop(subscription.id, None)
        if probe is not None:
            self._refuse(probe)
            return
        watch = self._watches.get(subscription.watcher.key)
        if watch is not None and watch.subscriptions.get(subscription.target.key) is subscription:
            del watch.subscriptions[subscription.target.key]
        self._hide(subscription)

    def _hide(self, subscription: Subscription) -> None:
        """Say of everything that was shown that it is there no more (RFC 6121 section 3.2.2)."""
        if subscription.told is None:
            return
        senders = self._senders(subscription.told)
        for connection in self._ground.devices.available(subscription.watcher):
            if connection.shown is None:
                self._write_gone(connection, senders)
                connection.link.flush()

    def _senders(self, content: Content) -> list[str]:
        """Who of a contact was shown as available."""
        shown = current_stanzas(content, self._ground.service.clock.when())
        return [notice.sender for notice in shown if notice.is_available]

    def _write_gone(self, connection: Connection, senders: Iterable[str]) -> None:
        assert connection.account is not None
        for sender in senders:
            attributes = {"type": "unavailable", "from": sender, "to": to_jid(connection.account)}
            self._ground.pass_on(connection, Element(PRESENCE, attributes), f"presence {sender}")

    def _write(self, connection: Connection, notices: Iterable[Notice]) -> None:
        assert connection.account is not None
        to = to_octets(to_jid(connection.account))
        for notice in notices:
            self._ground.tell(connection, notice, to)

    # --- probes ----------------------------------------------------------------------------------------------------

    async def probe(self, connection: Connection, stanza: Element) -> None:
        """Answer a probe of our own client as its contact's server would (RFC 6121 section 4.3.2; XMPP-13, N-01)."""
        assert connection.account is not None
        try:
            contact, _ = from_jid(stanza.get("to"))
            contact = contact.folded()
        except AddressError:
            return  # a domain has no presence
        target = Jid.parse(stanza.get("to"))
        if target.domain not in self._ground.domains:
            return  # section 4.3: a probe is never the cause of an error
        probe = _Probe(connection, target, stanza.get("id"), self._ground.service.clock.now())
        if contact.key == connection.account.key:
            self._answer_own(probe)
        elif self._was_told_directly(probe):
            pass
        else:
            await self._fetch(probe, contact)
        connection.current.link.flush()

    async def _fetch(self, probe: _Probe, contact: Address) -> None:
        account = probe.connection.account
        assert account is not None
        if not await self._presence.is_allowed(contact, account):
            self._refuse(probe)
            return
        id = "probe-" + self._ground.random(12).hex()
        answer = await self._subscribe(account, contact, id, self._ground.origin(probe.connection), 0)
        if isinstance(answer, Response):
            self._refuse(probe)
            return
        self._probes[id] = probe
        self._presence.begin(answer.subscription)
        self._probes.pop(id, None)

    def _answer(self, probe: _Probe, notices: Sequence[Notice]) -> None:
        connection = probe.connection.current
        if probe.target.resource:
            # Section 4.3.2: a probe of one resource learns no more than whether that is there.
            is_there = any(notice.is_available and notice.sender == str(probe.target) for notice in notices)
            self._mere(probe, str(probe.target), is_available=is_there)
        elif probe.id and not any(notice.is_available for notice in notices):
            assert connection.account is not None
            for notice in notices:  # section 4.3.2.1: of who is away, the probe's own id comes back
                stanza = notice.element(to_jid(connection.account))
                stanza.attributes["id"] = probe.id
                self._ground.reply(connection, stanza)
        else:
            self._write(connection, notices)
        connection.link.flush()

    def _answer_own(self, probe: _Probe) -> None:
        """Everybody sees their own devices."""
        connection = probe.connection
        wanted = probe.target.resource
        for other in self._ground.devices.resources(connection.jid):
            assert other.jid is not None
            if other.presence is not None and wanted in ("", other.jid.resource):
                attributes = {**other.presence.attributes, "to": str(connection.jid)}
                self._ground.reply(connection, Element(PRESENCE, attributes, other.presence.children))

    def _was_told_directly(self, probe: _Probe) -> bool:
        """Section 4.6.6: who was sent presence directly may learn of that device, and no more than that."""
        wanted, own = probe.target, probe.connection.jid
        other = self._ground.devices.find(wanted) if wanted.resource and own is not None else None
        if other is None or own is None or not {own, own.bare} & other.directed.keys():
            return False
        self._mere(probe, str(wanted), is_available=True)
        return True

    def _mere(self, probe: _Probe, sender: str, *, is_available: bool) -> None:
        attributes = {"from": sender, "to": str(probe.connection.jid)}
        if not is_available:
            attributes |= {"type": "unavailable", "id": probe.id}
        self._ground.reply(probe.connection.current, Element(PRESENCE, attributes))

    def _refuse(self, probe: _Probe) -> None:
        """The same, and at the same time, for who does not exist and who does not let itself be seen (N-01, N-12)."""
        attributes = {"type": "unsubscribed", "from": str(probe.target.bare), "to": str(probe.connection.jid)}
        if probe.id:
            attributes["id"] = probe.id  # section 4.3.2.1
        clock, stanza = self._ground.service.clock, Element(PRESENCE, attributes)
        clock.call_later(
            max(0.0, probe.at + REFUSAL_TIME - clock.now()), lambda: self._ground.answer(probe.connection, stanza)
        )


def _is_crowded(connection: Connection) -> bool:
    """True if a quarter of what may wait for the device's acknowledgement does, or if it reads slowly."""
    is_behind = connection.sm is not None and connection.sm.outgoing.is_busy
    return connection.is_live and (is_behind or connection.link.unsent > CROWD)


async def _pause(number: int) -> None:
    """Now and then others have their turn, and what is written may leave."""
    if number % TURN == 0:
        await asyncio.sleep(0)


def subscript_id(watcher: Address, target: Address) -> str:
    """The id of the subscription of two accounts."""
    return f"xmpp:{watcher.key} {target.key}"

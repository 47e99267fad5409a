"""The edge "apex" of the presence service: what watchers are told, as publish, notify and terminate (RFC 3343 sections 4.4 to 4.6).

Place on the path: step 8 of a notify. One subscription for each in-progress subscribe and watch operation; the service keeps it,
durably, with its operation (``Kept``), and nothing of it is kept here but what is on its way. Of each operation one data element
at most waits for its ``ok``; what happens meanwhile is said in one when that came, so a slow application costs nothing and misses no
state. An application that is not attached is told nothing, and when it attaches as the originator, how things are then.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from comity.bindings.apex.elements import Notify, Option, Part, Publish, ServiceElement, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import Relay
from comity.bindings.apex.presence import Entry, Shown, show, show_nothing
from comity.cpim.address import Address, from_sip_uri
from comity.cpim.compose import timestamp
from comity.cpim.operations import EndReason, MimeObject, NotifyOperation
from comity.cpim.watchers import SubscriptionState, WatcherInfo, WatcherTable
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Clock
from comity.service.presence.interfaces import ContactItem, Content, PresenceService, Subscription

log = logging.getLogger(__name__)

EDGE: Final = "apex"
SERVICE: Final = "presence"
#: External option of the data that carries a subscribe: send what the presentity itself signed or sealed, too; of the data that
#: carries it: to which operation it belongs (X39, a Comity extension).
SECURED: Final = "urn:comity:secured-presence:0"
LONGEST: Final = 2**31 - 1
"""Seconds; of what has no end of its own."""
POLLED: Final = 3600
"""Seconds for which a poll's answer may hold at most: no device's word is kept longer without being said again (N-22)."""
_DENIED: Final = 537
_ACTIVE, _PENDING = SubscriptionState.ACTIVE, SubscriptionState.PENDING


@dataclass(frozen=True, slots=True)
class Kept:
    """The operation of a subscription (``Subscription.data``)."""

    trans_id: int
    duration: int
    """Seconds, as asked for; 0: a poll."""
    originator: Endpoint
    publisher: Endpoint
    """The subject as the originator named it."""

    def encode(self) -> bytes:
        """To be kept; identities hold no control characters."""
        return f"{self.trans_id}\n{self.duration}\n{self.originator}\n{self.publisher}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read what ``encode`` wrote."""
        trans_id, duration, originator, publisher = data.decode().split("\n")
        return cls(int(trans_id), int(duration), Endpoint.parse(originator), Endpoint.parse(publisher))


@dataclass(slots=True)
class _Way:
    """What is on its way to one watcher."""

    future: asyncio.Future[bool]
    waiting: list[ServiceElement | Part] = field(default_factory=list)
    """The last state, to be said when the one before was taken."""


@dataclass(slots=True)
class _Watch:
    """A watch operation: who it was told watches, and who does."""

    table: WatcherTable = field(default_factory=WatcherTable)
    told: dict[Endpoint, int] = field(default_factory=dict)
    """By subscriber, what was told of: the transaction of an APEX subscriber, 0 of others."""
    marks: dict[Endpoint, int] = field(default_factory=dict)
    """The same of everybody who watches now."""
    due: dict[Endpoint, Notify] = field(default_factory=dict)
    future: asyncio.Future[bool] | None = None


class PresenceEdge:
    """See ``Edge``.

    Args:
        relay: takes what is said.
        presence: says what.
        clock: the service's notion of the current date and time.
    """

    def __init__(self, relay: Relay, presence: PresenceService, clock: Clock) -> None:
        self._relay = relay
        self._presence = presence
        self._clock = clock
        self._ways: dict[str, _Way] = {}
        """By the id of the subscription; those only that have something on its way."""
        self._watches: dict[str, _Watch] = {}
        """By the id of a subscription of package presence.winfo."""
        self._looks: dict[str, datetime | None] = {}
        """By the id of a fetch of our own: the lastUpdate found."""
        self._reminders: dict[str, Entry] = {}
        """By the id of a subscription that begins; see ``remind``."""
        self._work: set[asyncio.Future[None]] = set()

    # --- what an operation is --------------------------------------------------------------------------------------

    def operations(self, originator: Endpoint) -> list[tuple[Subscription, Kept]]:
        """Operations of this originator that are in progress."""
        lives = self._presence.subscriptions_of(EDGE, originator.to_address())
        return [
            (one, kept)
            for one in lives
            if one.state in (_ACTIVE, _PENDING) and (kept := Kept.decode(one.data)).originator == originator
        ]

    def forget(self, subscription: Subscription) -> None:
        """It is over and its watcher knows: nothing is said any more."""
        self._take_back(subscription)
        self._watches.pop(subscription.id, None)

    def begin_watch(self, subscription: Subscription) -> None:
        """A watch operation begins, or another one in its place: it is told of everybody."""
        self._watches[subscription.id] = _Watch()

    def remind(self, id: str, entry: Entry | None) -> None:
        """What the account itself is told first by this subscription holds its own entry, which is over (RFC 3343 section 2.2:
        it reads that before it writes); None: it was told."""
        if entry is None:
            self._reminders.pop(id, None)
        else:
            self._reminders[id] = entry

    def look(self, id: str) -> None:
        """What the subscription with this id is told is for us (see ``seen``)."""
        self._looks[id] = None

    def seen(self, id: str) -> datetime | None:
        """The lastUpdate of the entry that was looked at; None if there was nothing to see."""
        return self._looks.pop(id, None)

    # --- the edge --------------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        for subscription in subscriptions:
            if subscription.id in self._looks:
                self._looks[subscription.id] = self._shown(content).last_update
            elif content.document is None:
                self._inform(subscription, WatcherInfo.parse(content.object.octets))
            else:
                self._tell(subscription, content)

    def pending(self, subscription: Subscription) -> None:
        """It waits for the presentity: nothing more is to be seen than of somebody who is nowhere (T1)."""
        self._take_back(subscription)
        self._tell(subscription, None)

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``; a poll that brings nothing is answered like one of somebody who is nowhere.

        Who is refused from now on is told 537 (the DTD of RFC 3340 section 9.1 has a code), so that it does not ask again at once."""
        if subscription.id in self._looks:
            return
        kept = Kept.decode(subscription.data)
        is_watch = subscription.package == "presence.winfo"
        self.forget(subscription)
        if kept.duration:
            code = _DENIED if reason is EndReason.REJECTED else 250
            self._say(kept, Terminate(kept.trans_id, code))
        elif not is_watch:
            self._tell(subscription, None)

    def asked(self, item: ContactItem) -> None:
        """APEX asks no person; who watches the watchers is told of one more of them, and the owner answers by an access entry, the
        command line, XMPP or XCAP."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """The watcher hears it in its subscriptions."""

    def withdrew(self, item: ContactItem) -> None:
        """As ``asked``."""

    def contact_changed(self, item: ContactItem) -> None:
        """APEX has no contact lists."""

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """APEX has no such list; what follows from it for watchers is told to them."""

    def directed(self, operation: NotifyOperation) -> None:
        """APEX publishes to nobody who did not subscribe (RFC 3343 section 4.4)."""

    def attached(self, endpoint: Endpoint) -> None:
        """An application attached: it hears how things are, whatever an earlier one of that name had heard."""
        if endpoint.is_service:
            return
        for subscription, kept in self.operations(endpoint):
            if subscription.package == "presence.winfo":
                watch = self._watches.get(subscription.id)
                if watch is not None:
                    watch.told = dict.fromkeys(watch.told, -1)  # nobody's: all are told anew, and who is gone as that
                    self.watchers_changed(subscription, kept)
            elif subscription.state is _PENDING:
                self._tell(subscription, None)
            elif subscription.told is not None:
                self._tell(subscription, subscription.told)

    # --- publish ---------------------------------------------------------------------------------------------------

    def _tell(self, subscription: Subscription, content: Content | None) -> None:
        """Say how things are; None: nothing can be seen."""
        kept = Kept.decode(subscription.data)
        way = self._ways.get(subscription.id)
        if not self._is_there(kept.originator):
            if way is not None:
                way.waiting = []
            return
        elements = self._written(subscription, kept, content)
        if way is None:
            self._send(subscription.id, kept, elements, self._options(kept))
        else:
            way.waiting = elements

    def _send(self, id: str, kept: Kept, elements: Sequence[ServiceElement | Part], options: Sequence[Option]) -> None:
        for element in elements:
            future = self._relay.say(
                SERVICE,
                kept.publisher.domain,
                kept.originator,
                element,
                options if isinstance(element, Part) else (),
            )
        way = self._ways[id] = _Way(future)
        future.add_done_callback(partial(self._said, id, kept, way))

    def _said(self, id: str, kept: Kept, way: _Way, future: asyncio.Future[bool]) -> None:
        if self._ways.get(id) is not way:
            return
        del self._ways[id]
        if way.waiting and self._is_there(kept.originator):
            self._send(id, kept, way.waiting, self._options(kept))

    def _written(self, subscription: Subscription, kept: Kept, content: Content | None) -> list[ServiceElement | Part]:
        now = self._clock.when()
        account = subscription.target
        shown = show_nothing(account, now) if content is None else self._shown(content)
        entry = self._reminders.get(subscription.id)
        if entry is not None:
            shown = shown.with_past(entry)
        lasts = POLLED if not kept.duration or subscription.expires is None else subscription.expires - now.timestamp()
        until = datetime.fromtimestamp(now.timestamp() + max(lasts, 1.0), UTC)
        presence = shown.presence(kept.publisher, until)
        elements: list[ServiceElement | Part] = [Publish(kept.publisher, kept.trans_id, timestamp(now), presence)]
        if content is not None and content.whole is not None and subscription.takes_secured:
            elements.append(_part(content.whole))
        return elements

    def _shown(self, content: Content) -> Shown:
        """What all who see this content are shown: read once."""
        shown = content.cache.get(EDGE)
        if shown is None:
            assert content.document is not None, "watcher information is no presence"
            account = content.target.with_scheme("im")
            shown = content.cache[EDGE] = show(content.document, account, self._clock.when())
        assert isinstance(shown, Shown)
        return shown

    def _options(self, kept: Kept) -> Sequence[Option]:
        return (Option(external=SECURED, trans_id=kept.trans_id),)

    def _take_back(self, subscription: Subscription) -> None:
        """What is not written yet is not said any more (G9)."""
        way = self._ways.pop(subscription.id, None)
        if way is not None:
            way.future.cancel()
        watch = self._watches.get(subscription.id)
        if watch is not None and watch.future is not None:
            watch.due = {}
            watch.future.cancel()

    def _say(self, kept: Kept, element: ServiceElement) -> asyncio.Future[bool]:
        return self._relay.say(SERVICE, kept.publisher.domain, kept.originator, element)

    def _is_there(self, originator: Endpoint) -> bool:
        """Applications of other domains are their relays' to know."""
        return self._relay.is_attached(originator) or not self._relay.service.accounts.serves(originator.domain)

    # --- notify ----------------------------------------------------------------------------------------------------

    def _inform(self, subscription: Subscription, info: WatcherInfo) -> None:
        watch = self._watches.setdefault(subscription.id, _Watch())
        watch.table.apply(info)
        if subscription.watcher.key == subscription.target.key:
            self.watchers_changed(subscription, Kept.decode(subscription.data))
        else:  # somebody else may know as long as the access entry says so (RFC 3343 section 4.3)
            work = asyncio.ensure_future(self._inform_if_permitted(subscription))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

    async def _inform_if_permitted(self, subscription: Subscription) -> None:
        kept = Kept.decode(subscription.data)
        subaddress = kept.originator.subaddress
        try:
            may = await self._presence.rights.may(
                subscription.target, subscription.watcher, "presence:watch", actor_resource=subaddress
            )
        except StoreError as error:
            log.error("who may watch the watchers of an account cannot be looked up: %s", error)
            return
        if subscription.id not in self._watches:
            return
        if may:
            self.watchers_changed(subscription, kept)
            return
        self._presence.lost(subscription)
        self.forget(subscription)
        self._say(kept, Terminate(kept.trans_id, _DENIED))

    def renewed(self, target: Address) -> None:
        """Somebody's subscribe replaced his earlier one, which is news for APEX alone: tell who watches the watchers."""
        for subscription in self._presence.watchers(target):
            if subscription.id in self._watches:
                self.watchers_changed(subscription, Kept.decode(subscription.data))

    def watchers_changed(self, subscription: Subscription, kept: Kept) -> None:
        """Tell a watch operation what it was not told yet, one after the other."""
        watch = self._watches[subscription.id]
        now = self._subscribers(subscription.target, watch.table)
        watch.due = {
            one: Notify(one, kept.trans_id, "subscribe", duration)
            for one, (mark, duration) in now.items()
            if watch.told.get(one) != mark
        }
        watch.due |= {one: Notify(one, kept.trans_id, "terminate") for one in watch.told if one not in now}
        watch.marks = {one: mark for one, (mark, _) in now.items()}
        self._notify_next(subscription.id, kept, watch)

    def _notify_next(self, id: str, kept: Kept, watch: _Watch) -> None:
        if watch.future is not None or not self._is_there(kept.originator):
            return
        if not watch.due:
            if not kept.duration:  # a poll: all is said
                self._watches.pop(id, None)
            return
        one = next(iter(watch.due))
        notify = watch.due.pop(one)
        if notify.action == "terminate":
            watch.told.pop(one, None)
        else:
            watch.told[one] = watch.marks[one]
        watch.future = self._say(kept, notify)
        watch.future.add_done_callback(partial(self._notified, id, kept, watch))

    def _notified(self, id: str, kept: Kept, watch: _Watch, future: asyncio.Future[bool]) -> None:
        watch.future = None
        if self._watches.get(id) is watch:
            self._notify_next(id, kept, watch)

    def _subscribers(self, target: Address, table: WatcherTable) -> dict[Endpoint, tuple[int, int]]:
        """Who watches or waits to, with what tells one subscribe of his from the next, and its duration."""
        found: dict[Endpoint, tuple[int, int]] = {}
        watchers: set[str] = set()
        now = self._clock.when().timestamp()
        for one in self._presence.watchers(target):
            if one.package != "presence" or one.state not in (_ACTIVE, _PENDING):
                continue
            watchers.add(one.watcher.key)
            if one.edge == EDGE:
                kept = Kept.decode(one.data)
                found[kept.originator] = kept.trans_id, kept.duration
            elif (endpoint := _endpoint(one.watcher)) is not None:
                left = LONGEST if one.expires is None else max(0, round(one.expires - now))
                known = found.get(endpoint, (0, 0))
                found[endpoint] = known[0], max(known[1], left)
        for entry in (entry for rows in table.lists.values() for entry in rows.values()):
            asking = _asking(entry.uri) if entry.state is _PENDING else None
            endpoint = None if asking is None or asking.key in watchers else _endpoint(asking)
            if endpoint is not None:
                found.setdefault(endpoint, (0, LONGEST))
        return found


def _endpoint(watcher: Address) -> Endpoint | None:
    """A watcher as APEX writes it; None for a name that it cannot write."""
    try:
        return Endpoint.of(watcher)
    except AddressError:
        return None


def _asking(uri: str) -> Address | None:
    try:
        return from_sip_uri(uri)[0]
    except AddressError:
        return None


def _part(whole: MimeObject) -> Part:
    return Part(whole.header_block, whole.octets, f"{whole.fingerprint[:32]}@{SERVICE}")

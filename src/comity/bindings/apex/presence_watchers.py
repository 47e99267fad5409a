"""Watch operations: who watches, as one notify after the other (RFC 3343 sections 4.3 and 4.6).

Place on the path: step 8 of a notify of package "presence.winfo", for ``presence_edge.py``. The service says that something changed;
who watches now is compared with who the operation was told of, so that each watcher is told once however many subscriptions he has,
and one notify at a time waits for its ``ok``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from comity.bindings.apex.elements import Notify, ServiceElement, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.presence_operations import DENIED, EDGE, MOST_TRIES, Kept, pause_after
from comity.cpim.address import Address, from_sip_uri
from comity.cpim.watchers import SubscriptionState, WatcherInfo, WatcherTable
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Clock
from comity.service.presence.interfaces import PresenceService, Subscription

log = logging.getLogger(__name__)

LONGEST: Final = 2**31 - 1
"""Seconds; of what has no end of its own."""
_ACTIVE, _PENDING = SubscriptionState.ACTIVE, SubscriptionState.PENDING

Say = Callable[[Kept, ServiceElement], "asyncio.Future[bool]"]
"""Sends an element to who asked for the operation."""


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
    tries: int = 0
    """How often in a row a notify was refused, or could not be written."""


class Watchers:
    """The watch operations.

    Args:
        say: sends to the originator.
        is_there: whether an originator can be told anything.
        presence: says who watches.
        clock: for what is left of a subscription.
    """

    def __init__(self, say: Say, is_there: Callable[[Endpoint], bool], presence: PresenceService, clock: Clock) -> None:
        self._say = say
        self._is_there = is_there
        self._presence = presence
        self._clock = clock
        self._watches: dict[str, _Watch] = {}
        """By the id of the subscription."""
        self._work: set[asyncio.Future[None]] = set()

    def begin(self, subscription: Subscription) -> None:
        """A watch operation begins, or another one in its place: it is told of everybody."""
        self._watches[subscription.id] = _Watch()

    def forget(self, subscription: Subscription) -> None:
        """It is over: what is not written yet is not said any more (G9)."""
        watch = self._watches.pop(subscription.id, None)
        if watch is not None and watch.future is not None:
            watch.future.cancel()

    def attached(self, subscription: Subscription) -> None:
        """Its originator is back: all are told anew, and who is gone as that."""
        watch = self._watches.get(subscription.id)
        if watch is not None:
            watch.told = dict.fromkeys(watch.told, -1)  # no transaction of anybody's
            self._look(subscription)

    def inform(self, subscription: Subscription, info: WatcherInfo) -> None:
        """The service tells a watch operation what is new; a poll is told all there is."""
        watch = self._watches.setdefault(subscription.id, _Watch())
        watch.table.apply(info)
        self._look(subscription)

    def renewed(self, target: Address) -> None:
        """Somebody's subscribe replaced his earlier one, which is news for APEX alone: tell who watches the watchers."""
        for subscription in self._presence.watchers(target):
            if subscription.id in self._watches:
                self._look(subscription)

    def _look(self, subscription: Subscription) -> None:
        if subscription.watcher.key == subscription.target.key:
            self._changed(subscription, Kept.decode(subscription.data))
        else:  # somebody else may know as long as the access entry says so (RFC 3343 section 4.3)
            work = asyncio.ensure_future(self._look_if_permitted(subscription))
            self._work.add(work)
            work.add_done_callback(self._work.discard)

    async def _look_if_permitted(self, subscription: Subscription) -> None:
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
            self._changed(subscription, kept)
            return
        self._presence.lost(subscription)
        self.forget(subscription)
        self._say(kept, Terminate(kept.trans_id, DENIED))

    def _changed(self, subscription: Subscription, kept: Kept) -> None:
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
        self._notify_next(subscription, kept, watch)

    def _notify_next(self, subscription: Subscription, kept: Kept, watch: _Watch) -> None:
        if watch.future is not None:
            return
        if not watch.due or not self._is_there(kept.originator):
            if not kept.duration:  # a poll: all is said, or nobody listens any more
                self._watches.pop(subscription.id, None)
            return
        one = next(iter(watch.due))
        notify = watch.due.pop(one)
        if notify.action == "terminate":
            watch.told.pop(one, None)
        else:
            watch.told[one] = watch.marks[one]
        watch.future = self._say(kept, notify)
        watch.future.add_done_callback(partial(self._notified, subscription, kept, watch, one))

    def _notified(
        self, subscription: Subscription, kept: Kept, watch: _Watch, one: Endpoint, future: asyncio.Future[bool]
    ) -> None:
        watch.future = None
        if self._watches.get(subscription.id) is not watch:
            return
        if future.result():
            watch.tries = 0
        elif kept.duration and self._is_there(kept.originator) and watch.tries < MOST_TRIES:
            watch.told[one] = -1  # not told of, whatever is to be told
            self._clock.call_later(pause_after(watch.tries), partial(self._try_again, subscription, watch))
            watch.tries += 1
            return
        self._notify_next(subscription, kept, watch)

    def _try_again(self, subscription: Subscription, watch: _Watch) -> None:
        if self._watches.get(subscription.id) is watch:
            self._look(subscription)

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

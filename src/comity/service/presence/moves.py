"""What becomes of live subscriptions without their watchers: decisions, ends, expiry (RFC 3857 section 4.7, ACL-10).

Place on the path: between ``access.py`` and ``notifier.py``. A decision is durable before it comes here, and here it acts at once:
nothing is awaited between "reconsider" and the last notification of who was blocked (G9). What ends in the store is not waited
for: if that is lost with the process, the row ends by its time, or by the decision that ended it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Final

from comity.cpim.access_entries import WATCH
from comity.cpim.address import Address
from comity.cpim.operations import EndReason
from comity.cpim.presence_rules import Permissions, SubHandling
from comity.cpim.watchers import TRANSITIONS, SubscriptionEvent, SubscriptionState
from comity.errors import StoreError
from comity.failpoints import failpoint
from comity.service.interfaces import Clock, Op, Result, Store
from comity.service.presence.access import Access
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.informing import Informing
from comity.service.presence.notifier import Notifier
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Presentity, Sight
from comity.service.presence.subscriptions import Live, Subscriptions

log = logging.getLogger(__name__)

WAITING: Final = 24 * 3600.0
"""Seconds for which a request is remembered whose watcher went before it was answered (RFC 3857 section 4.7.1)."""
AGAIN: Final = 5.0
"""Seconds after which a look-up that failed is tried again."""
_STATE, _EVENT = SubscriptionState, SubscriptionEvent
_EVENTS: Final[dict[EndReason, SubscriptionEvent]] = {
    reason: _EVENT(reason.value) for reason in EndReason if reason is not EndReason.INVARIANT
}


class Moves:
    """Moves subscriptions from state to state.

    Args:
        store: forgets those that ended.
        clock: time.
        access: what watchers may see.
        presentities: whom they watch.
        notifier: says so.
        informing: tells those who are watched.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        access: Access,
        presentities: Presentities,
        notifier: Notifier,
        informing: Informing,
    ) -> None:
        self._store = store
        self._clock = clock
        self._access = access
        self._presentities = presentities
        self._notifier = notifier
        self._informing = informing
        informing.hold = self.hold
        self.subscriptions = Subscriptions(store, clock, self._expired)
        self._waiting: Deadlines[Live] = Deadlines(clock, self._give_up, lambda live, _: live.state is _STATE.WAITING)
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_seen: Callable[[Sight], None] = lambda sight: None
        """Called when what an account of ours sees of somebody of another domain was judged."""

    def stop(self) -> None:
        """Move nothing any more."""
        self.subscriptions.stop()
        self._waiting.stop()
        for task in self._tasks:
            task.cancel()

    # --- decisions -------------------------------------------------------------------------------------------------

    def grant(self, target: Address, watcher: Address, *, is_new: bool = False) -> Permissions:
        """What the watcher may see as things stand. Raises LookupError."""
        presentity, now = self._presentities.find(target, watcher), self._clock.when()
        if isinstance(presentity, Sight) or (presentity is None and not self._presentities.is_ours(target)):
            return self._access.seen(watcher, target)
        if presentity is None:
            return self._access.grant(target, watcher, now, is_new=is_new)
        presentity.look_at_sphere(now)
        return self._access.grant(target, watcher, now, presentity.sphere, is_new=is_new)

    def may_inform(self, target: Address, watcher: Address) -> bool:
        """Whether the watcher may know who watches: what became of his own wish if he may see the account (RFC 3857 section 4.6), of
        everybody's if it permits that (``presence:watch``, RFC 3343 section 4.3). Raises LookupError."""
        if self._access.permits(target, watcher, WATCH):
            return True
        return self.grant(target, watcher).sub_handling >= SubHandling.POLITE_BLOCK

    def reconsider(self, account: Address, watcher: Address | None = None) -> None:
        """What ``watcher`` (None: anybody) may see of the account was changed durably: act on it (ACL-10).

        Called after the commit and before the answer, with the account loaded.
        """
        presentity = self._presentities.find(account, watcher)
        if presentity is None:
            return
        self._reconsider(presentity, watcher)

    def _reconsider(self, presentity: Presentity, watcher: Address | None = None) -> None:
        lives = [live for live in presentity.subscriptions if watcher is None or live.watcher.key == watcher.key]
        try:
            if watcher is None:
                presentity.grants.clear()
                presentity.contents.clear()  # of permissions that nobody may have any more
            told = [live for live in lives if self._decide(presentity, live)]
            self.look_at_rules(presentity)
        except LookupError:  # its rules left the memory: nobody is told before they are back
            self.hold(presentity)
            return
        if isinstance(presentity, Sight):
            self.on_seen(presentity)
        self._notifier.tell(presentity, told, is_urgent=True)
        self._informing.changed(presentity)
        self._presentities.settle(presentity)

    def _decide(self, presentity: Presentity, live: Live) -> bool:
        """Move one subscription to what is decided now; True if it may see something new."""
        if not live.is_known:
            return False
        granted = self.grant(live.target, live.watcher)
        if live.package == "presence.winfo":
            if not self.may_inform(live.target, live.watcher):  # as one who asks for it now is refused (ACL-26)
                self.end(live, EndReason.REJECTED)
            return False
        if live.state is _STATE.WAITING:
            if granted.sub_handling is not SubHandling.CONFIRM:
                self._leave(live, _EVENT.REJECTED if granted.sub_handling is SubHandling.BLOCK else _EVENT.APPROVED)
            return False
        if granted.sub_handling is SubHandling.BLOCK:
            failpoint("presence.revoke")
            self.end(live, EndReason.REJECTED)
            return False
        live.granted = presentity.shared(granted)
        state = state_of(granted)
        if state is live.state:
            return state is _STATE.ACTIVE
        live.state = state
        live.event = event_of(state)
        if live.is_durable:
            self.commit_later(self.subscriptions.row_of(live))
        if state is _STATE.PENDING:
            if live.is_begun:
                self._notifier.pending(live)  # an edge may have to take back what it told
            live.told = None
            return False
        return True

    def look_at_rules(self, presentity: Presentity) -> None:
        """See when the rules say something else by themselves."""
        if not isinstance(presentity, Sight):
            presentity.rules_change = self._access.next_change(presentity.address, self._clock.when())

    def hold(self, presentity: Presentity) -> None:
        """Tell nobody before it was looked up what they may see."""
        presentity.is_held = True
        if not presentity.is_loading:
            presentity.is_loading = True
            self._run(self._look_up(presentity))

    async def _look_up(self, presentity: Presentity) -> None:
        try:
            await self._access.load(presentity.judged)
        except StoreError as error:
            log.error("what watchers of an account may see cannot be looked up: %s", error)
            presentity.is_loading = False
            self._clock.call_later(AGAIN, lambda: self.hold(presentity) if presentity.is_held else None)
            return
        presentity.is_loading = presentity.is_held = presentity.is_restored = False
        self._reconsider(presentity)
        self._informing.resume(presentity)

    # --- ends ------------------------------------------------------------------------------------------------------

    def end(self, live: Live, reason: EndReason, *, is_told: bool = True) -> None:
        """End it now."""
        if live.state is _STATE.WAITING:
            self._leave(live, _EVENTS[reason])
            return
        if not self.subscriptions.remove(live):
            return
        live.event = _EVENTS[reason]
        live.state = TRANSITIONS.get((live.state, live.event), _STATE.TERMINATED)
        if live.is_durable:
            self.commit_later(self.subscriptions.end_of(live))
        if live.state is _STATE.WAITING and live.is_known:
            self._waiting.push(self._clock.now() + WAITING, live)
        else:
            self.drop(live)
        self._inform(live)
        if is_told and live.is_begun:
            self._notifier.ended(live, reason)

    def drop(self, live: Live) -> None:
        """Take it from its presentity."""
        presentity = self._presentities.of(live)
        if presentity is not None:
            del presentity.subscriptions[live]
            self._presentities.settle(presentity)

    def forget_waiting(self, target: Address, watcher: Address) -> None:
        """Who asks again, or wants no answer, no longer waits for one to what he asked before."""
        presentity = self._presentities.find(target, watcher)
        waiting = [one for one in presentity.subscriptions if one.state is _STATE.WAITING] if presentity else []
        for live in waiting:
            if live.watcher.key == watcher.key:
                self._leave(live, _EVENT.GIVEUP)

    def _leave(self, live: Live, event: SubscriptionEvent) -> None:
        """Out of waiting."""
        live.state, live.event = _STATE.TERMINATED, event
        self.drop(live)
        self._inform(live)

    def _inform(self, live: Live) -> None:
        presentity = self._presentities.find(live.target, live.watcher)
        if presentity is not None and presentity.feeds and live.is_begun:
            self._informing.changed(presentity, live if live.state is _STATE.TERMINATED else None)

    def _give_up(self, lives: list[Live]) -> None:
        for live in lives:
            if live.state is _STATE.WAITING:
                self._leave(live, _EVENT.GIVEUP)

    def _expired(self, live: Live) -> None:
        self.end(live, EndReason.TIMEOUT)

    # --- underneath ------------------------------------------------------------------------------------------------

    def commit_later(self, op: Op) -> None:
        """Commit without waiting."""
        self._store.commit([op]).add_done_callback(_committed)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the presence service failed", exc_info=error)


def state_of(granted: Permissions) -> SubscriptionState:
    """The state of a subscription whose watcher may see that much."""
    return _STATE.ACTIVE if granted.sub_handling >= SubHandling.POLITE_BLOCK else _STATE.PENDING


def event_of(state: SubscriptionState) -> SubscriptionEvent:
    """What brings a subscription into that state at its begin."""
    return _EVENT.SUBSCRIBE if state is _STATE.PENDING else _EVENT.APPROVED


def _committed(done: asyncio.Future[list[Result]]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("a subscription could not be stored: %s", error)

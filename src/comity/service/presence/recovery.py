"""After a start: the durable subscriptions come back, and their watchers hear how things are (reliability.md section 5.7).

Place on the path: before any listener opens. Nobody is anywhere until they speak again, so what a watcher hears first may be
"closed"; devices get a moment to come back before that, but whoever waits hears within ``GRACE + SPREAD`` seconds (N-17). What
each may see is looked up anew, so a subscription whose end was lost with the process is ended by the decision itself (G9).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final

from comity.cpim.address import Address
from comity.service.interfaces import Accounts, Clock, Store, Timer
from comity.service.presence.moves import Moves
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Presentity

log = logging.getLogger(__name__)

GRACE: Final = 5.0
"""Seconds for devices to come back."""
SPREAD: Final = 30.0
"""Seconds over which the presentities are looked up, so that the start is no burst."""
STEP: Final = 0.05
"""Seconds between two groups of them."""


class Recovery:
    """Brings subscriptions back.

    Args:
        store: whose time counts.
        accounts: who still exists.
        clock: time.
        presentities: whom they watch.
        moves: where they live.
    """

    def __init__(
        self, store: Store, accounts: Accounts, clock: Clock, presentities: Presentities, moves: Moves
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._presentities = presentities
        self._moves = moves
        self._left: deque[Presentity] = deque()
        self._there: dict[str, bool] = {}
        self._group = 1
        self._timer: Timer | None = None

    async def load(self) -> None:
        """Register what is stored; nobody is told yet."""
        found: dict[Presentity, None] = {}
        now = self._store.time()
        for live in await self._moves.subscriptions.load():
            is_over = live.expires is not None and live.expires <= now
            if is_over or not (await self._is_there(live.target) and await self._is_there(live.watcher)):
                self._moves.commit_later(self._moves.subscriptions.end_of(live))
                continue
            live.is_begun = True
            presentity = self._presentities.need(live.target, live.watcher)
            presentity.is_held = presentity.is_restored = True
            presentity.subscriptions[live] = None
            self._moves.subscriptions.add(live)
            found[presentity] = None
        self._there.clear()
        if found:
            log.info("%d subscriptions to %d accounts came back", len(self._moves.subscriptions), len(found))
            self._left.extend(found)
            self._group = max(1, round(len(found) * STEP / SPREAD))
            self._timer = self._clock.call_later(GRACE, self._next)

    async def _is_there(self, address: Address) -> bool:
        """Whether it is an account still: each is asked about once, however many subscriptions it has. People of other domains are
        their domains' to end."""
        if not self._accounts.serves(address.domain):
            return True
        if address.key not in self._there:
            self._there[address.key] = await self._accounts.exists(address)
        return self._there[address.key]

    def stop(self) -> None:
        """Bring nothing back any more."""
        self._left.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _next(self) -> None:
        self._timer = None
        for _ in range(min(self._group, len(self._left))):
            presentity = self._left.popleft()
            if presentity.is_restored:  # else something happened there, and they were told
                self._moves.hold(presentity)
        if self._left:
            self._timer = self._clock.call_later(STEP, self._next)

"""One timer for many things that fall due: a heap, so that ten thousand subscriptions cost no ten thousand timers.

Place on the path: beside it; expiries, rate limits and leases wait here. Nothing is ever searched for in the heap: what does not
matter any more is passed over when it falls due, and swept out when there is as much of it as of the rest, so that who begins and
ends things all day fills no memory.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

from comity.service.interfaces import Clock, Timer

T = TypeVar("T")
_SWEEP = 1024
"""As many are kept without looking."""


class Deadlines(Generic[T]):
    """Things by the time they fall due.

    Args:
        clock: its monotonic time counts.
        due: called with all that fell due, in order.
        matters: whether a thing is still to fall due at the time it was pushed for.
    """

    def __init__(self, clock: Clock, due: Callable[[list[T]], None], matters: Callable[[T, float], bool]) -> None:
        self._clock = clock
        self._due = due
        self._matters = matters
        self._most = _SWEEP
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._at = 0.0

    def push(self, at: float, thing: T) -> None:
        """Let ``thing`` fall due at ``at`` (monotonic seconds)."""
        if len(self._heap) >= self._most:
            self._heap = [entry for entry in self._heap if self._matters(entry[2], entry[0])]
            heapq.heapify(self._heap)
            self._most = max(_SWEEP, 2 * len(self._heap))
        heapq.heappush(self._heap, (at, next(self._order), thing))
        if self._timer is None or at < self._at:
            self._arm()

    def stop(self) -> None:
        """Let nothing fall due any more."""
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def __len__(self) -> int:
        return len(self._heap)

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap:
            self._at = self._heap[0][0]
            self._timer = self._clock.call_later(max(0.0, self._at - self._clock.now()), self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock.now()
        things: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, thing = heapq.heappop(self._heap)
            if self._matters(thing, at):
                things.append(thing)
        try:
            if things:
                self._due(things)
        finally:
            self._arm()

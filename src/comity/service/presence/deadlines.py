"""One timer for many things that fall due: a heap, so that ten thousand subscriptions cost no ten thousand timers.

Place on the path: beside it; expiries, rate limits and leases wait here. What was pushed stays until it falls due: who
takes it then looks whether it still matters, so nothing is ever searched for in the heap.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from typing import Generic, TypeVar

from comity.service.interfaces import Clock, Timer

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Things by the time they fall due.

    Args:
        clock: its monotonic time counts.
        due: called with all that fell due, in order.
    """

    def __init__(self, clock: Clock, due: Callable[[list[T]], None]) -> None:
        self._clock = clock
        self._due = due
        self._heap: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._timer: Timer | None = None
        self._at = 0.0

    def push(self, at: float, thing: T) -> None:
        """Let ``thing`` fall due at ``at`` (monotonic seconds)."""
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
            things.append(heapq.heappop(self._heap)[2])
        try:
            if things:
                self._due(things)
        finally:
            self._arm()

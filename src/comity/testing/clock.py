"""A clock that is moved by hand, so that tests never sleep.

Place on the path: beside it; stands in for ``LoopClock`` of ``net/driver.py`` wherever a ``Clock`` is taken.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeTimer:
    """One callback waiting for its time."""

    __slots__ = ("callback", "is_cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.is_cancelled = False

    def cancel(self) -> None:
        """Never call back; harmless when it already has."""
        self.is_cancelled = True


class FakeClock:
    """A ``Clock`` whose time passes only in ``advance``.

    Args:
        start: monotonic seconds to begin with.
        when: the aware UTC time that belongs to ``start``.
    """

    def __init__(self, start: float = 1000.0, when: datetime = START) -> None:
        self._start = start
        self._when = when
        self._now = start
        self._order = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> float:
        """Monotonic seconds."""
        return self._now

    def when(self) -> datetime:
        """Aware UTC datetime, moving together with ``now``."""
        return self._when + timedelta(seconds=self._now - self._start)

    def call_later(self, delay: float, callback: Callable[[], None]) -> FakeTimer:
        """Call ``callback`` from the ``advance`` that reaches ``delay`` seconds from now."""
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._now + max(delay, 0.0), next(self._order), timer))
        return timer

    @property
    def pending(self) -> int:
        """How many callbacks are waiting."""
        return sum(not timer.is_cancelled for _, _, timer in self._timers)

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass, calling what falls due in order, each at its own time; also what they start."""
        end = self._now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            if not timer.is_cancelled:
                self._now = max(self._now, due)
                timer.callback()
        self._now = end

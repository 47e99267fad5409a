"""The store's clock: wall time that a jump cannot turn into a mass expiry (reliability.md F-27).

Leases, dedup windows and lifetimes end by this clock. Each reading compares the wall clock with the monotonic
one. If the wall clock ran ahead by more than 15 minutes since the last reading, the old course is kept (last
believed time plus monotonic seconds) and ``is_doubted`` is True until two readings at least 60 s apart agree
on the new one. Going back is believed at once: it can only make things last longer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

JUMP = 15 * 60.0
"""Seconds of disagreement that are taken for a jump (F-27)."""
CONFIRM = 60.0
"""Seconds between the two readings that confirm one."""
AGREEMENT = 5.0
"""Seconds by which confirming readings may differ (a clock being slewed)."""
RETENTION = 72 * 3600.0
"""Seconds a terminal record stays for ``find``, and a mark nobody writes for ``get_mark``."""


class StoreClock:
    """Readable from any thread.

    Args:
        wall: seconds since the epoch.
        monotonic: seconds that never jump.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._offset = wall() - monotonic()
        self._doubt: tuple[float, float] | None = None  # (offset seen, monotonic then) while a jump is unconfirmed

    def time(self) -> float:
        """Seconds since the epoch, on the old course while a forward jump is unconfirmed."""
        with self._lock:
            now = self._monotonic()
            self._look(self._wall() - now, now)
            return self._offset + now

    @property
    def is_doubted(self) -> bool:
        """True while a forward jump is unconfirmed: nothing may expire."""
        self.time()
        return self._doubt is not None

    def _look(self, offset: float, now: float) -> None:
        if offset - self._offset <= JUMP:
            self._offset = offset
            self._doubt = None
        elif self._doubt is None or abs(offset - self._doubt[0]) > AGREEMENT:
            self._doubt = (offset, now)
        elif now - self._doubt[1] >= CONFIRM:
            self._offset = offset
            self._doubt = None

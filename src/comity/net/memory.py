"""Give memory of closed connections back to the system (reliability.md G7: "none after close").

Place on the path: after it. The C library keeps what is freed in the middle of its heap for later use, so that
after a wave of connections the process stays as large as it ever was. glibc's ``malloc_trim`` hands such pages
back; it takes some milliseconds, so it is called after many closed links and then in a quiet moment.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

from comity.service.interfaces import Clock, Timer

LINKS = 500
"""Closed links that are worth a trim: some 5 MiB."""
QUIET_SECONDS = 2.0


def _find_trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; None where the C library has none (musl, macOS)."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError):
        return None
    return trim


class HeapTrimmer:
    """Counts links that are gone, and trims the heap some time after every ``LINKS`` of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._trim = _find_trim()
        self._gone = 0
        self._timer: Timer | None = None

    def link_gone(self) -> None:
        """One more link left its memory behind."""
        self._gone += 1
        if self._gone >= LINKS and self._timer is None and self._trim is not None:
            self._timer = self._clock.call_later(QUIET_SECONDS, self._run)

    def close(self) -> None:
        """Forget it; the process is about to end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _run(self) -> None:
        self._timer = None
        self._gone = 0
        if self._trim is not None:
            self._trim(0)

"""How full the disk is: a warning at 80 %, nothing new from 90 % or below 256 MiB (reliability.md section 6.2, F-04).

Asked by the writer before each group, answered from a look that is at most a second old. What is refused early leaves room for
what must go on: ends of messages, their reports, registrations. If another program takes that room too, the file
``store.reserve`` is given up for it, and made anew before any message is accepted again.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds between two looks."""
RESERVE = "store.reserve"
RESERVED = 4 * 1024 * 1024
"""Octets of the reserve; it is made where four times that is free."""
EASE = 2
"""Per cent below the mark at which a warning is taken back, so that it is not said again and again."""


@dataclass(frozen=True, slots=True)
class Watermarks:
    """``[limits] disk_warn``, ``disk_refuse`` and ``disk_free``."""

    warn: int = 80
    """Per cent in use."""
    refuse: int = 90
    """Per cent in use."""
    free: int = 256 * 1024 * 1024
    """Octets."""


class DiskWatch:
    """Looks at the disk of one directory.

    Args:
        directory: the data directory.
        marks: None: no look is ever taken.
    """

    def __init__(
        self, directory: Path, marks: Watermarks | None, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._marks = marks
        self._monotonic = monotonic
        self._looked = float("-inf")
        self._is_low = False
        self._is_warned = False
        self._reserve = directory / RESERVE
        self._is_spent = False

    def release(self) -> bool:
        """Give up the reserve because the disk is full to the last octet; False if it is gone already."""
        try:
            self._reserve.unlink()
        except OSError:  # most of all FileNotFoundError: there is none to give
            return False
        log.error("store: the disk of %s is full: %s was given up to deliver what is stored", self._directory, RESERVE)
        self._is_low = self._is_spent = True
        return True

    def is_low(self) -> bool:
        """True while nothing new may be accepted."""
        # While it is low every group looks, so that room that was made is used at once; while little is left too, for
        # a second's messages can be more than that.
        is_near = self._is_low or self._is_warned
        if self._marks is not None and (is_near or self._monotonic() - self._looked >= LOOK):
            self._looked = self._monotonic()
            self._look(self._marks)
        return self._is_low

    def _has_reserve(self, free: int) -> bool:
        """False while the reserve was given up; on a disk that is too small for one it is not missed."""
        if self._reserve.exists():
            return True
        if free < 4 * RESERVED:
            return not self._is_spent
        try:
            handle = os.open(self._reserve, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, RESERVED)
            finally:
                os.close(handle)
        except OSError as error:
            log.error("store: %s could not be made: %s", self._reserve, error)
            return not self._is_spent
        self._is_spent = False
        return True

    def _look(self, marks: Watermarks) -> None:
        try:
            disk = os.statvfs(self._directory)
        except OSError as error:
            log.error("store: free space of %s is unknown: %s", self._directory, error)
            self._is_low = False  # the transaction itself will show what is wrong
            return
        free = disk.f_bavail * disk.f_frsize
        in_use = disk.f_blocks - disk.f_bfree
        # As df counts: what is kept for root is neither used nor free.
        per_cent = 100 * in_use / max(1, in_use + disk.f_bavail)
        was_low = self._is_low
        self._is_low = per_cent >= marks.refuse or free < marks.free or not self._has_reserve(free)
        told = f"{per_cent:.0f} % of the disk of {self._directory} are in use, {free // 1048576} MiB are free"
        if self._is_low and not was_low:
            log.error("store: %s: nothing new is accepted, what is stored is delivered", told)
        elif was_low and not self._is_low:
            log.warning("store: %s: messages are accepted again", told)
        if per_cent >= marks.warn and not self._is_warned:
            self._is_warned = True
            log.warning("store: %s; from %d %% on nothing new is accepted", told, marks.refuse)
        elif per_cent < marks.warn - EASE:
            self._is_warned = False

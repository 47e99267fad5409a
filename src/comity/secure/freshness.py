"""Time and replay of signed objects (RFC 3923 section 6.9, SEC-22 to SEC-25).

Place on the path: the last checks of ``verifying.verify``, after signature, identity and trust; and the clock that gives
what we sign its DateTime. Pure but for ``ReplayCache`` and ``SigningClock``, which hold their memory and never read a
clock: ``now`` comes in. The rule: nothing enters the cache before its signature is good, so no stranger can fill it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from comity.secure.verdict import VerdictKind

WINDOW = timedelta(minutes=5)
"""RFC 3923 section 6.9: "within five minutes of the current time"."""
CLOCK_DIFFERS = timedelta(minutes=15)
"""Up to here a time ahead is put down to the sender's clock, in words (reliability.md R-06)."""
DECREASING_WINDOW = timedelta(minutes=10)
"""RFC 3923 section 6.9: "greater than any timestamp received in the last 10 minutes"."""
QUEUE_LIFETIME = timedelta(hours=72)
"""Longest stay in a store-and-forward queue (reliability.md section 6.2)."""
REPLAY_WINDOW = QUEUE_LIFETIME + WINDOW
REPLAY_ENTRIES = 100_000
"""About 20 MB. Past it the oldest go first; direct objects that old are stale anyway."""


@dataclass(frozen=True, slots=True)
class Timeliness:
    """What the DateTime of a signed object says."""

    verdict: VerdictKind | None
    """None: in time."""
    mark: str
    """RFC 3923's words, "delayed", or ""."""
    text: str


def check_timestamp(stamp: datetime | None, now: datetime, *, arrived: datetime | None = None) -> Timeliness:
    """Judge a DateTime.

    Args:
        stamp: the signed DateTime, None if there is none.
        now: aware UTC.
        arrived: when the object entered a known, authenticated queue (SEC-24): it is judged by that moment.
    """
    if stamp is None:
        return Timeliness(
            VerdictKind.NO_FRESHNESS, "", "it is signed without a DateTime, so a replay could not be told"
        )
    at = now if arrived is None or arrived > now else arrived
    late, early = at - stamp, stamp - at
    if late > WINDOW:
        return Timeliness(VerdictKind.STALE, "old timestamp", f"it was made {_span(late)} before it arrived")
    if early > WINDOW:
        cause = ": the sender's clock differs from ours" if early <= CLOCK_DIFFERS else ""
        return Timeliness(VerdictKind.FUTURE, "future timestamp", f"its time lies {_span(early)} ahead{cause}")
    if now - at > WINDOW:
        return Timeliness(None, "delayed", f"it waited {_span(now - at)} in a queue")
    return Timeliness(None, "", "")


def _span(delta: timedelta) -> str:
    minutes = int(delta.total_seconds() // 60)
    if minutes < 120:
        return f"{minutes} minutes"
    return f"{minutes // 60} hours" if minutes < 2880 else f"{minutes // 1440} days"


def is_decreasing(stamp: datetime | None, latest: tuple[datetime, datetime] | None, now: datetime) -> bool:
    """True if ``stamp`` is not greater than the greatest of the last ten minutes; ``latest``: that one, and when it came."""
    return stamp is not None and latest is not None and now - latest[1] <= DECREASING_WINDOW and stamp <= latest[0]


class ReplayMemory(Protocol):
    """What ``verify`` asks about what was accepted before: ``ReplayCache``, or ``replay.StoredReplayCache`` on disk."""

    def check(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> VerdictKind | None:
        """Say REPLAYED for an object seen before, STALE for a DateTime that does not increase, else None."""

    def accept(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> bool:
        """Remember an accepted object; False if somebody else has accepted it since ``check``."""


class ReplayCache:
    """Remembers accepted objects by signer and message ID (or hash) for the window, in bounded memory.

    Threads may share one: of two that ask about the same object, ``accept`` says yes to one.

    Args:
        window: how long an object is remembered.
        limit: most objects remembered.
    """

    def __init__(self, window: timedelta = REPLAY_WINDOW, limit: int = REPLAY_ENTRIES) -> None:
        self._window = window
        self._limit = limit
        self._lock = threading.Lock()
        self._seen: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        self._latest: OrderedDict[str, tuple[datetime, datetime]] = OrderedDict()
        """Signer → (greatest DateTime, when it was accepted)."""

    def __len__(self) -> int:
        return len(self._seen)

    def check(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> VerdictKind | None:
        """Say REPLAYED for an object seen before, STALE for a DateTime that does not increase, else None.

        Nothing is remembered: call ``accept`` once the object is accepted."""
        with self._lock:
            self._forget(now)
            if (signer, identifier) in self._seen:
                return VerdictKind.REPLAYED
            latest = self._latest.get(signer)
        return VerdictKind.STALE if is_decreasing(stamp, latest, now) else None

    def accept(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> bool:
        """Remember an accepted object; False if somebody else has accepted it since ``check``."""
        with self._lock:
            return self._accept(signer, identifier, stamp, now)

    def _accept(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> bool:
        if (signer, identifier) in self._seen:
            return False
        self._seen[(signer, identifier)] = now
        if stamp is not None:
            latest = self._latest.pop(signer, None)
            greatest = stamp if latest is None or now - latest[1] > DECREASING_WINDOW else max(stamp, latest[0])
            self._latest[signer] = (greatest, now)
        while len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        while len(self._latest) > self._limit:
            self._latest.popitem(last=False)
        return True

    def _forget(self, now: datetime) -> None:
        """Drop what is older than the window; a clock set back drops nothing (reliability.md F-27)."""
        while self._seen:
            key, when = next(iter(self._seen.items()))
            if now - when <= self._window:
                return
            del self._seen[key]


class SigningClock:
    """Gives the DateTime of what one signer signs: UTC, strictly increasing (SEC-23).

    Steps are milliseconds, the finest that ``CpimMessage.build`` writes.

    Args:
        after: the last time given before, by another process; None: none that counts.
    """

    def __init__(self, after: datetime | None = None) -> None:
        self._last = after or datetime.min.replace(tzinfo=UTC)

    def next(self, when: datetime) -> datetime:
        """``when`` to the millisecond, moved on as far as it takes to lie after the last one given."""
        when = when.astimezone(UTC)
        when = when.replace(microsecond=when.microsecond // 1000 * 1000)
        if when <= self._last:
            when = self._last + timedelta(milliseconds=1)
        self._last = when
        return when

"""How fast one peer server is asked: a queue of its own, a few requests at a time, one only while it does not answer. Pure.

Place on the path: beside step 9, for ``abroad.py``. Each domain has a lane, so a server that is gone delays nobody's but its own people
(reliability.md 2.13); ten thousand that are due at once are asked one after the other.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

WINDOW: Final = 32
"""Requests that may wait for their answers at once."""
FIRST_PAUSE, LAST_PAUSE = 5.0, 300.0
"""Seconds between two tries of a server that does not answer, doubled with each."""

T = TypeVar("T")


class Lane(Generic[T]):
    """Who waits to be asked about at one peer server."""

    def __init__(self) -> None:
        self._due: dict[T, None] = {}
        self._in_flight = 0
        self._failures = 0
        self._not_before = 0.0

    @property
    def is_down(self) -> bool:
        """True from the first request without any answer to the next answer."""
        return self._failures > 0

    @property
    def is_idle(self) -> bool:
        """True if nothing waits and nothing is under way."""
        return not self._due and not self._in_flight

    def want(self, item: T) -> None:
        """Put it at the end, unless it waits already."""
        self._due.setdefault(item)

    def forget(self, item: T) -> None:
        """It is not to be asked any more."""
        self._due.pop(item, None)

    def take(self, now: float) -> T | None:
        """Whose turn it is; None if nobody's now (see ``next_timer``)."""
        if not self._due or not self._may_send(now):
            return None
        item = next(iter(self._due))
        del self._due[item]
        return item

    def sent(self) -> None:
        """A request left."""
        self._in_flight += 1

    def answered(self) -> bool:
        """A request got its answer, whatever it was; True if that is the first after silence."""
        self._in_flight -= 1
        was_down, self._failures = self.is_down, 0
        return was_down

    def back(self) -> None:
        """The server is there again, as somebody else found out."""
        self._failures, self._not_before = 0, 0.0

    def failed(self, now: float) -> None:
        """A request got none. What was on its way together fails together: that counts once."""
        self._in_flight -= 1
        if now >= self._not_before:
            self._failures += 1
            self._not_before = now + min(FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16), LAST_PAUSE)

    def next_timer(self) -> float | None:
        """When to ``take`` again, if not at the next answer."""
        return self._not_before if self._due and self.is_down and not self._in_flight else None

    def _may_send(self, now: float) -> bool:
        if self.is_down:
            return self._in_flight == 0 and now >= self._not_before
        return self._in_flight < WINDOW

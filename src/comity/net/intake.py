"""How much new work a turn of the loop takes in, so that work begun is always finished before more is begun.

Place on the path: before step 1, between the kernel's buffers and the sessions. Without it a turn would take all that
every peer sent: with 64 senders who never wait, seconds of work, behind which answers, commits and everybody else stand.

Back-pressure is by not reading, and what is measured is time, never a number of messages (LG-12):

* a stream is read in small slices; once a turn spent ``TURN`` seconds on them, further ones stand in line, first come,
  first served, and their connections are not read until then: TCP tells the sender to wait;
* nothing is read while the service is ``BEHIND`` (its oldest message waits that long for its commit);
* a datagram cannot wait without being sent again after 0.5 s (RFC 3261's T1). Once the socket had not been read to its
  end for ``PATIENCE`` seconds, requests have stood in it as long, and the session may refuse them unread, until it
  is empty again. One in ``REFUSALS`` + 1 is taken all the same: if even refusing took all the time, nothing would ever
  get through.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from comity.service.interfaces import Clock, Timer

SLICE = 4096
"""Octets read from a stream at a time: some twenty chat messages."""
TURN = 0.01
BEHIND = 0.4
LOOK = 0.01
"""Seconds between two looks whether the service is still behind."""
PATIENCE = 0.25
REFUSALS = 6


class Reader(Protocol):
    """A stream link with octets in hand that waits for its turn."""

    def take_turn(self) -> None:
        """Work through them, and read on."""


class Intake:
    """The line in which readers of streams stand.

    Args:
        clock: monotonic time.
        lag: seconds for which the service's oldest message has been waiting for its commit.
    """

    def __init__(self, clock: Clock, lag: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._lag = lag
        self._loop = asyncio.get_running_loop()
        self._line: deque[Reader] = deque()
        self._ends: float | None = None
        """When this turn's time for streams is over; None before the first asked."""
        self._look: Timer | None = None

    @property
    def is_behind(self) -> bool:
        """True while the service has more than it can commit in time."""
        return self._lag() > BEHIND

    def admits(self, reader: Reader) -> bool:
        """True if ``reader`` may go on at once; else it stands in line, and ``take_turn`` will be called."""
        if not self._line and self._has_time():
            return True
        self._line.append(reader)
        return False

    def close(self) -> None:
        """Look no more; what stands in line stays unread."""
        if self._look is not None:
            self._look.cancel()
        self._line.clear()

    def _has_time(self) -> bool:
        if self.is_behind:
            if self._look is None:
                self._look = self._clock.call_later(LOOK, self._turn)
            return False
        now = self._clock.now()
        if self._ends is None:
            # The loop calls this at the beginning of its next turn, before it looks at its sockets.
            self._ends = now + TURN
            self._loop.call_soon(self._turn)
        return now < self._ends

    def _turn(self) -> None:
        """A turn begins: those in line go first."""
        self._ends = self._look = None
        while self._line and self._has_time():
            self._line.popleft().take_turn()


class Patience:
    """How long the datagrams of one socket have been waiting, told from how long it was not read to its end."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._since: float | None = None
        self._refusals = 0

    def emptied(self) -> None:
        """The socket was read to its end."""
        self._since = None

    def left(self, now: float) -> None:
        """The reading ended at ``now`` with datagrams left."""
        if self._since is None:
            self._since = now

    def is_over(self, now: float) -> bool:
        """True if the next datagram came too late and may be refused."""
        if self._intake.is_behind:
            return True
        is_late = self._since is not None and now - self._since > PATIENCE
        self._refusals = self._refusals + 1 if is_late and self._refusals < REFUSALS else 0
        return self._refusals > 0

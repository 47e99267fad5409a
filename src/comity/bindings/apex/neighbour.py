"""One session with another relay, whoever called: what was proved, what it bound as, and the data sent by it.

Place on the path: steps 1 to 3 and 9 to 10 of the relay-relay mode, for ``mesh.py`` and ``relaying.py``. Promise kept here: data
goes out in the order of the calls, no more than the window of it unanswered, and everybody who waits for an answer is told, also
when the session is lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Protocol

from comity.bindings.apex.elements import Data, Error, Ok
from comity.bindings.base import Link
from comity.errors import LocalProtocolError

NOT_PROTECTED = Error(538, "the next relay cannot be reached under TLS")
"""Our own answer to what needs TLS and would go without."""
Answer = Ok | Error | None
"""None: the session was lost, or the answer did not come in time."""


class Sender(Protocol):
    """What is needed of a session to send data by it; ``session.ApexSession`` has it."""

    def send(self, channel: int, element: Data) -> Hashable:
        """Queue data; the handle comes back with its answer."""


@dataclass(slots=True, eq=False)
class Sending:
    """One data for another relay."""

    data: Data
    answer: asyncio.Future[Answer]
    needs_tls: bool = False
    """It goes under TLS or not at all (T11)."""

    @classmethod
    def of(cls, data: Data, *, needs_tls: bool = False) -> Sending:
        """With a new future."""
        return cls(data, asyncio.get_running_loop().create_future(), needs_tls)

    def settle(self, answer: Answer) -> None:
        """Tell who waits, unless it gave up."""
        if not self.answer.done():
            self.answer.set_result(answer)


@dataclass(slots=True, eq=False)
class Neighbour:
    """Another relay, on one session with it.

    Attributes:
        channel: the one we send data by.
        domains: what it proved to speak for (``Peers.proved``).
        bound: what it bound as, by channel and transID.
        used: monotonic seconds of the last data either way.
    """

    link: Link
    session: Sender
    channel: int
    window: int
    domains: frozenset[str] = frozenset()
    bound: dict[tuple[int, int], str] = field(default_factory=dict)
    used: float = 0.0
    is_lost: bool = False
    """Its session is over."""
    _waiting: deque[Sending] = field(default_factory=deque)
    _unanswered: dict[Hashable, tuple[Sending, float]] = field(default_factory=dict)

    @property
    def is_protected(self) -> bool:
        """True if the session is under TLS."""
        return self.link.peer.tls is not None

    @property
    def host(self) -> str:
        """The other end's IP address."""
        return self.link.peer.remote[0]

    @property
    def is_busy(self) -> bool:
        """True while somebody waits for an answer."""
        return bool(self._waiting or self._unanswered)

    @property
    def backlog(self) -> int:
        """Data not yet sent for want of window."""
        return len(self._waiting)

    @property
    def answers(self) -> list[asyncio.Future[Answer]]:
        """What is not answered yet."""
        return [sending.answer for sending, _ in self._unanswered.values()] + [one.answer for one in self._waiting]

    @property
    def waiting_since(self) -> float | None:
        """When the oldest unanswered data was sent."""
        return next((sent for _, sent in self._unanswered.values()), None)

    def send(self, sending: Sending, now: float) -> None:
        """Send when the window allows."""
        if self.is_lost:
            sending.settle(None)
            return
        self._waiting.append(sending)
        self._pump(now)

    def answered(self, handle: Hashable, answer: Ok | Error, now: float) -> bool:
        """Take the answer to a data; False if it is none of these."""
        found = self._unanswered.pop(handle, None)
        if found is None:
            return False
        found[0].settle(answer)
        self._pump(now)
        return True

    def lost(self) -> None:
        """The session is gone: nobody will answer."""
        self.is_lost = True
        unanswered, self._unanswered = self._unanswered, {}
        waiting, self._waiting = self._waiting, deque()
        for sending, _ in unanswered.values():
            sending.settle(None)
        for sending in waiting:
            sending.settle(None)

    def _pump(self, now: float) -> None:
        is_written = False
        while self._waiting and len(self._unanswered) < self.window:
            sending = self._waiting.popleft()
            if sending.answer.cancelled():
                continue
            if sending.needs_tls and not self.is_protected:
                sending.settle(NOT_PROTECTED)
                continue
            try:
                handle = self.session.send(self.channel, sending.data)
            except LocalProtocolError as error:
                sending.settle(Error(504, f"APEX cannot carry it: {error}"))
                continue
            self._unanswered[handle] = sending, now
            self.used, is_written = now, True
        if is_written:
            self.link.flush()

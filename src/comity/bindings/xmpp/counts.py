"""The durable side of a stream's ``h``: it stands in the store with the messages it covers.

Place on the path: beside step 7. Each message of a resumable stream carries a mark "everything up to here is handled",
committed in the message's own record (reliability.md section 5.2). Marks form a chain: one is set only if the mark
of the message before it was, so that a message the store refused is never covered by one taken after it. What
makes no record (presence, queries, refused messages) is covered when the client asks, by a mark alone.

After a restart the mark is what ``<failed h='…'/>`` tells the client of a stream that cannot go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from comity.service.interfaces import Done, Mark, Result

log = logging.getLogger(__name__)

Commit = Callable[[Mark], "asyncio.Future[list[Result]]"]


@dataclass(frozen=True, slots=True)
class Step:
    """One message's part in the chain."""

    stream: StreamCount
    count: int
    expected: int
    """What the store must hold for its mark to be set."""
    marks: tuple[Mark, ...]
    """To be committed with the message."""

    def ended(self, *, is_taken: bool) -> bool:
        """The store's word, ``is_taken``: its record was written. True if the count is kept up to here."""
        self.stream._ended(self, is_taken)
        return self.count <= self.stream.kept


class StreamCount:
    """How far one stream is counted.

    Args:
        id: the stream's SM-ID.
        owner: key of its account.
        commit: sets a mark; the store carries marks and records out in the order of the calls.
    """

    def __init__(self, id: str, owner: str, commit: Commit) -> None:
        self._name = mark_name(id)
        self._owner = owner
        self._commit = commit
        self.kept = 0
        """What the store holds, as far as it is known here."""
        self._tail = 0
        """What it will hold when all that was submitted is committed."""
        self._under_way = 0
        self._is_broken = False
        """True after a message that was not taken: no mark goes with a record while others may share that fate."""
        self._wanted: list[tuple[int, Callable[[], None]]] = []
        self._is_saying = True
        """True while a mark without a message is under way: one at a time, so that a conflict has one meaning."""
        commit(self._mark(0)).add_done_callback(self._begun)

    def _begun(self, done: asyncio.Future[list[Result]]) -> None:
        self._is_saying = False
        if done.cancelled() or done.exception() is not None:
            self.kept, self._is_broken = -1, True  # what is under way builds on a mark that is not there
        self._go()

    def _mark(self, count: int, after: int | None = None) -> Mark:
        expected = None if after is None else pack(after, self._owner)
        return Mark(self._name, pack(count, self._owner), expected)

    # --- with a message ------------------------------------------------------------------------------------------

    def step(self, count: int) -> Step:
        """A message is about to be submitted that is stanza number ``count``; call its ``ended`` with the answer."""
        is_alone, self._under_way = not self._under_way, self._under_way + 1
        if self._is_broken and not is_alone:
            return Step(self, count, -1, ())
        # Alone after a break: all that came before has its end, so the chain begins anew here.
        mark = self._mark(count, None if self._is_broken else self._tail)
        expected = self.kept if self._is_broken else self._tail
        self._is_broken, self._tail = False, count
        return Step(self, count, expected, (mark,))

    def _ended(self, step: Step, is_taken: bool) -> None:
        self._under_way -= 1
        if is_taken and step.expected == self.kept:
            self.kept = step.count
        else:
            self._is_broken = True
        self._go()

    # --- alone ---------------------------------------------------------------------------------------------------

    def say(self, count: int, said: Callable[[], None]) -> None:
        """Make ``count`` durable, then call ``said``; if that fails nothing is called, and the client asks again."""
        self._wanted.append((count, said))
        self._go()

    def _go(self) -> None:
        if not self._wanted or self._is_saying:
            return
        waiting, self._wanted = self._wanted, []
        for count, said in waiting:
            if count <= self.kept:
                said()
            else:
                self._wanted.append((count, said))
        if not self._wanted or (self._is_broken and self._under_way):
            return  # what is under way may be refused too: its end comes first
        waiting, self._wanted = self._wanted, []
        count = max(number for number, _ in waiting)
        mark = self._mark(count, None if self._is_broken else self.kept)
        if not self._under_way:
            self._tail, self._is_broken = count, False
        self._is_saying = True
        self._commit(mark).add_done_callback(partial(self._said, count, waiting))

    def _said(
        self, count: int, waiting: list[tuple[int, Callable[[], None]]], done: asyncio.Future[list[Result]]
    ) -> None:
        self._is_saying = False
        if done.cancelled() or done.exception() is not None:
            log.warning("a stream's count could not be kept: %s", None if done.cancelled() else done.exception())
            self._is_broken = True
        elif isinstance(done.result()[0], Done):
            self.kept = max(self.kept, count)
            self._wanted += waiting
        elif self._is_broken:
            self._wanted += waiting
        else:  # a message under way, later than ``count``, has moved the mark further already
            for _, said in waiting:
                said()
        self._go()


def mark_name(id: str) -> str:
    """The mark's name in the store."""
    return f"xmpp/{id}"


def pack(count: int, owner: str) -> bytes:
    """A mark's value."""
    return f"{count} {owner}".encode()


def unpack(value: bytes) -> tuple[int, str]:
    """Count and owner's key of a mark's value."""
    count, _, owner = value.decode().partition(" ")
    return int(count), owner

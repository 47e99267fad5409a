"""The durable side of ``h``: nothing is said, and nothing covered, that the store does not hold (reliability.md 5.2)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.xmpp import sm
from comity.bindings.xmpp.counts import Step, StreamCount, mark_name, unpack
from comity.errors import RemoteProtocolError, StoreError
from comity.service.interfaces import Add, Done, Mark, Op, Record, Result
from comity.store.memory import MemoryStore


@dataclass
class SlowStore:
    """A store that carries out what it was told when the test says so, and gives its word later still."""

    real: MemoryStore = field(default_factory=MemoryStore)
    told: deque[tuple[Op, bool, asyncio.Future[list[Result]]]] = field(default_factory=deque)
    done: deque[tuple[asyncio.Future[list[Result]], list[Result] | None]] = field(default_factory=deque)

    def commit(self, op: Op, *, fails: bool = False) -> asyncio.Future[list[Result]]:
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self.told.append((op, fails, future))
        return future

    def carry_out(self) -> None:
        op, fails, future = self.told.popleft()
        self.done.append((future, None if fails else self.real.commit([op]).result()))

    def answer(self) -> None:
        future, results = self.done.popleft()
        if results is None:
            future.set_exception(StoreError("the disk is away"))
        else:
            future.set_result(results)


class Stream:
    """One client's stanzas, their place in the store and what the client was told."""

    def __init__(self) -> None:
        self.store = SlowStore()
        self.count = StreamCount("s", "im:a@b", self.store.commit)
        self.incoming = sm.IncomingCounter()
        self.incoming.is_kept_apart = True
        self.refused_untold: set[int] = set()
        self.messages: set[int] = set()
        self.said = 0

    def message(self, fate: str) -> None:
        index = self.incoming.receive()
        self.messages.add(index)
        self.refused_untold.add(index)
        step = self.count.step(index)
        record = Record(f"{index}", "inbox/x", b"", b"", "00", 1e12)
        add = Add(record, quota=(0, 0) if fate == "full" else None, marks=step.marks)
        self.store.commit(add, fails=fate == "lost").add_done_callback(partial(self.ended, index, step))

    def ended(self, index: int, step: Step, done: asyncio.Future[list[Result]]) -> None:
        self.refused_untold.discard(index)
        is_taken = done.exception() is None and isinstance(done.result()[0], Done)
        if step.ended(is_taken=is_taken):
            self.incoming.keep(index)
        self.incoming.finish(index)

    def other(self) -> None:
        self.incoming.finish(self.incoming.receive())

    def ask(self) -> None:
        index = self.incoming.handled
        if self.incoming.sayable < index:
            self.count.say(index, partial(self.incoming.keep, index))

    async def check(self) -> None:
        """Whatever happens next, even death: this is what the next life finds."""
        self.said = max(self.said, self.incoming.h)
        kept = await self.store.real.get_mark(mark_name("s"))
        durable = unpack(kept)[0] if kept is not None else 0
        assert self.said <= durable, "the client was told more than the store holds"
        held = {int(item.record.id) for item in await self.store.real.read("inbox/x", 1000)}
        covered = {index for index in self.messages if index <= durable}
        assert covered <= held | (self.messages - self.refused_untold), "a message was counted and is nowhere"


ACTIONS = st.sampled_from(
    ["taken", "taken", "taken", "full", "lost", "other", "ask", "carry", "carry", "answer", "answer"]
)


@settings(max_examples=400)
@given(st.lists(ACTIONS, max_size=60))
def test_no_count_covers_what_the_store_does_not_hold(actions: list[str]) -> None:
    """At every point at which the process may die (F-K3, F-K4)."""

    async def story() -> None:
        stream = Stream()
        for action in actions:
            match action:
                case "other":
                    stream.other()
                case "ask":
                    stream.ask()
                case "carry" if stream.store.told:
                    stream.store.carry_out()
                case "answer" if stream.store.done:
                    stream.store.answer()
                    await asyncio.sleep(0)
                case "taken" | "full" | "lost":
                    stream.message(action)
                case _:
                    pass
            await stream.check()
        for _ in range(3):  # quiet at last: the client asks until it is told everything
            while stream.store.told or stream.store.done:
                if stream.store.told:
                    stream.store.carry_out()
                await stream.check()
                stream.store.answer()
                await asyncio.sleep(0)
                await stream.check()
            stream.ask()
        assert stream.incoming.h == stream.incoming.received, "the last word covers everything"

    asyncio.run(story())


def test_messages_alone_need_no_further_commit() -> None:
    """The count of the hot path stands in the messages' own records."""

    async def story() -> None:
        stream = Stream()
        for _ in range(100):
            stream.message("taken")
        while stream.store.told:
            stream.store.carry_out()
            stream.store.answer()
            await asyncio.sleep(0)
        stream.ask()
        assert not stream.store.told
        assert stream.incoming.h == 100

    asyncio.run(story())


def test_a_stream_whose_first_mark_failed_says_nothing_unkept() -> None:
    async def story() -> None:
        stream = Stream()
        mark, _, future = stream.store.told.popleft()
        assert isinstance(mark, Mark)
        stream.store.told.append((mark, True, future))
        for _ in range(3):
            stream.message("taken")
        stream.other()
        for _ in range(3):
            stream.ask()
            while stream.store.told:
                stream.store.carry_out()
                stream.store.answer()
                await asyncio.sleep(0)
                await stream.check()
        assert stream.incoming.h == 4

    asyncio.run(story())


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), max_size=60))
def test_counts_go_round_at_their_end(steps: list[tuple[int, int]]) -> None:
    """XEP-0198 section 4: h is modulo 2^32; here modulo 32, so that it goes round often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sm, "MODULUS", 32)
        queue, counter = sm.OutgoingQueue(20), sm.IncomingCounter()
        counter.start()
        sent: list[int] = []
        confirmed: list[object] = []
        for more, lag in steps:
            for _ in range(more):
                if not queue.is_full:
                    sent.append(len(sent))
                    queue.add(b"", sent[-1])
                    counter.finish(counter.receive())
            taken = max(len(sent) - lag, len(confirmed))
            confirmed += queue.confirm(taken % 32)
            assert confirmed == sent[:taken]
            assert [key for _, key in queue.unconfirmed()] == sent[taken:]
            assert counter.h == len(sent) % 32
            with pytest.raises(RemoteProtocolError):
                queue.confirm((len(sent) + 1) % 32)

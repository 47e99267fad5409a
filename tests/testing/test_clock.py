"""The fake clock, and the real one beside it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from comity.net.driver import LoopClock
from comity.service.interfaces import Clock
from comity.testing.clock import START, FakeClock


def test_callbacks_run_in_order_each_at_its_own_time() -> None:
    clock = FakeClock(start=5.0)
    seen: list[tuple[str, float]] = []
    clock.call_later(2, lambda: seen.append(("b", clock.now())))
    clock.call_later(1, lambda: seen.append(("a", clock.now())))
    clock.call_later(2, lambda: seen.append(("c", clock.now())))
    clock.call_later(1, lambda: seen.append(("never", clock.now()))).cancel()

    def chain() -> None:
        clock.call_later(1, lambda: seen.append(("chained", clock.now())))

    clock.call_later(0.5, chain)
    assert clock.pending == 4
    clock.advance(1.9)
    assert seen == [("a", 6.0), ("chained", 6.5)]
    clock.advance(0.1)
    assert seen[2:] == [("b", 7.0), ("c", 7.0)]
    assert (clock.now(), clock.pending) == (7.0, 0)


def test_when_moves_with_now() -> None:
    clock = FakeClock()
    clock.advance(90)
    assert clock.when() == START + timedelta(seconds=90)


def test_loop_clock_is_the_loops_time_and_aware_utc() -> None:
    async def main() -> None:
        clock: Clock = LoopClock()
        loop = asyncio.get_running_loop()
        before = loop.time()
        done = asyncio.Event()
        clock.call_later(0.001, done.set)
        await asyncio.wait_for(done.wait(), 5)
        assert before < clock.now() <= loop.time()
        assert abs(clock.when() - datetime.now(UTC)) < timedelta(seconds=5)

    asyncio.run(main())

"""One timer for many things: ``comity.service.presence.deadlines``."""

from __future__ import annotations

from comity.service.presence.deadlines import Deadlines
from comity.testing.clock import FakeClock


def test_what_matters_falls_due_in_order_and_the_rest_never() -> None:
    clock, due, over = FakeClock(), list[int](), {3, 4}
    deadlines: Deadlines[int] = Deadlines(clock, due.extend, lambda thing, _: thing not in over)
    for thing in (5, 3, 1, 4, 2):
        deadlines.push(clock.now() + thing, thing)
    clock.advance(10)
    assert due == [1, 2, 5]


def test_who_begins_and_ends_things_all_day_fills_no_memory() -> None:
    """S-22: what is over is swept out long before its time; nothing that matters is lost by it."""
    clock, due, alive = FakeClock(), list[int](), set[int]()
    deadlines: Deadlines[int] = Deadlines(clock, due.extend, lambda thing, _: thing in alive)
    for thing in range(50_000):
        alive.add(thing)
        deadlines.push(clock.now() + 86_400 - thing, thing)
        if thing % 100:
            alive.discard(thing)
        assert len(deadlines) <= 2048
    clock.advance(86_401)
    assert due == list(range(49_900, -1, -100))

"""How fast one peer server is asked (``lanes.py``; G-22, reliability.md 2.13)."""

from __future__ import annotations

from comity.bindings.sip.lanes import FIRST_PAUSE, LAST_PAUSE, WINDOW, Lane


def full(count: int) -> Lane[int]:
    lane: Lane[int] = Lane()
    for number in range(count):
        lane.want(number)
    return lane


def take(lane: Lane[int], now: float = 0.0) -> list[int]:
    """All who are asked now."""
    taken = []
    while (item := lane.take(now)) is not None:
        lane.sent()
        taken.append(item)
    return taken


def test_a_few_at_a_time_in_order() -> None:
    lane = full(WINDOW + 2)
    assert take(lane) == list(range(WINDOW))
    lane.answered()
    assert take(lane) == [WINDOW]


def test_who_waits_already_waits_once() -> None:
    lane = full(1)
    lane.want(0)
    assert take(lane) == [0]
    lane.answered()
    assert lane.is_idle


def test_what_fails_together_counts_once_and_then_one_is_asked_at_a_time() -> None:
    lane = full(WINDOW + 3)
    taken = take(lane)
    for _ in taken:
        lane.failed(10.0)
    assert lane.is_down
    assert lane.next_timer() == 10.0 + FIRST_PAUSE
    assert take(lane, 10.0 + FIRST_PAUSE - 0.1) == []
    assert take(lane, 10.0 + FIRST_PAUSE) == [WINDOW]
    assert lane.next_timer() is None, "its answer comes first"


def test_pauses_grow_to_five_minutes_and_end_with_any_answer() -> None:
    lane, now = full(1000), 0.0
    for _ in range(20):
        assert len(take(lane, now)) in (1, WINDOW)
        lane.failed(now)
        while lane.next_timer() is None:
            lane.failed(now)
        pause = (lane.next_timer() or 0.0) - now
        now += pause
    assert pause == LAST_PAUSE
    assert take(lane, now)
    assert lane.answered() is True
    assert len(take(lane, now)) == WINDOW
    assert lane.answered() is False


def test_who_is_forgotten_is_not_asked() -> None:
    lane = full(3)
    lane.forget(1)
    lane.forget(7)
    assert take(lane) == [0, 2]

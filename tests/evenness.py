"""What two kinds of question cost the one who asks, so that time tells nothing (N-02, N-12)."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

ROUNDS = 5
"""A difference that the server makes is there in every round; one that the machine's other work makes is not."""


def assert_same_time(
    ask: Callable[[bool], object], between: Callable[[], object], turns: int, ratio: float, seconds: float = 1.0
) -> None:
    """A round of ``turns`` has medians for ``ask(True)`` and ``ask(False)`` that differ by less than both bounds.

    Both are asked in turn, each first every other time, so that both see the same machine; ``between`` them, untimed, what an
    answer leaves behind is taken.
    """
    seen = []
    for _ in range(ROUNDS):
        one, other = _medians(ask, between, turns)
        if abs(one - other) < min(ratio * max(one, other), seconds):
            return
        seen.append((one, other))
    raise AssertionError(f"time tells: {seen}")


def _medians(ask: Callable[[bool], object], between: Callable[[], object], turns: int) -> tuple[float, float]:
    spent: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(turns):
        for which in (True, False) if turn % 2 else (False, True):
            began = time.perf_counter()
            ask(which)
            spent[which].append(time.perf_counter() - began)
            between()
    return statistics.median(spent[True]), statistics.median(spent[False])

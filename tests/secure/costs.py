"""CPU time compared, so that it holds on a busy machine and still finds a step that only one case takes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping

ROUNDS = 12


def times_dearer(cases: Mapping[str, Callable[[], object]], *, limit: float, runs: int = 50) -> tuple[float, str]:
    """How many times the cheapest case the dearest costs, and what each costs, for the message of an assertion.

    Each is measured in turn and counts with its least CPU time: what else the machine does can only add to it. Measuring goes on
    until the ratio is below ``limit``, at most ``ROUNDS`` times ``runs``: noise goes away, a difference in the work stays.
    """
    least = dict.fromkeys(cases, float("inf"))
    ratio = float("inf")
    gc.collect()
    for _ in range(ROUNDS):
        for _ in range(runs):
            for name, case in cases.items():
                started = time.process_time()
                case()
                least[name] = min(least[name], time.process_time() - started)
        ratio = max(least.values()) / min(least.values())
        if ratio < limit:
            break
    return ratio, ", ".join(f"{name} {seconds * 1e6:.0f} us" for name, seconds in least.items())

"""A slice of ``make prove``: all nine pairs at once, kills at failpoints and at random, pauses, resets, an orderly stop."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.proof import checker
from tests.proof.nemesis import AT_RANDOM, Life, make_plan
from tests.proof.points import POINTS
from tests.proof.prove import share
from tests.proof.run import run
from tests.proof.workload import Size

FIRED, KILLED = 8, 8


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9_under_load(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """G1 to G3, G8 in small: I1 to I14 over SIP, XMPP and APEX both ways, SIP over TCP and UDP; F-K1 to F-K9, F-K13."""
    seed = int(os.environ.get("COMITY_SEED", random.randrange(2**32)))
    print(f"COMITY_SEED={seed}")
    plan = [*make_plan(seed, FIRED, KILLED), Life(seconds=1.0, ending="stop")]
    found = run(tmp_path_factory.mktemp("slice") / "run", template, seed, plan, Size(), progress=print)
    print(checker.as_text(found.verdict))
    assert found.is_kept, found.directory
    assert found.fired + found.killed == FIRED + KILLED
    assert found.fired >= FIRED / 2, found.missed
    assert found.verdict.acked >= 500
    assert found.verdict.refused > 0, "nobody tried to write as somebody else"


def test_a_plan_is_a_function_of_its_seed_and_names_every_kill() -> None:
    plan = make_plan(1, 30, 40)
    assert plan == make_plan(1, 30, 40) != make_plan(2, 30, 40)
    assert sum(bool(life.failpoint) for life in plan) == 30
    assert sum(not life.failpoint and life.ending == "kill" for life in plan) == 40
    assert AT_RANDOM.keys() <= POINTS.keys()


def test_the_shares_of_the_rounds_are_the_whole() -> None:
    assert [share(10, 3, n) for n in range(3)] == [3, 3, 4]

"""The proof notices a server that breaks the promise: sabotaged builds, each caught by its own invariant, every time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.proof import checker
from tests.proof.nemesis import Life
from tests.proof.run import run
from tests.proof.workload import PAIRS, Size

ACKED = Life(seconds=30, after_acked=40)
#: build: (what it must be caught by, the plan that shows it, the run)
BUILDS: dict[str, tuple[str, list[Life], Size]] = {
    # Whatever was acknowledged in the half second before the kill is lost.
    "ack_before_commit": ("I1", [ACKED], Size(conversations=4, pairs=(("xmpp", "xmpp"),), always_there=True)),
    # The message that was committed and not answered is sent again: a SIP program knows of no count.
    "dedup_off": (
        "I6",
        [Life("service.after-commit:20", seconds=30)],
        Size(conversations=4, pairs=PAIRS[:2], always_there=True),
    ),
    # Who comes last has a lane full of messages, and a SIP phone takes one after the other.
    "lease_off": ("I5", [ACKED], Size(conversations=2, pairs=(("xmpp", "sip"),), recipients="last")),
    # Nobody but the impostors sends anything.
    "sender_check_off": ("I10", [Life(seconds=20, after_acked=3)], Size(conversations=0, impostors_every=0.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
def test_a_sabotaged_build_is_caught(build: str, template: Path, tmp_path: Path) -> None:
    invariant, plan, size = BUILDS[build]
    program = f"tests.proof.sabotage.{build}"
    found = run(tmp_path / "run", template, 1, plan, size, program=program, quiet_seconds=1, drain_seconds=5)
    assert invariant in {violation.invariant for violation in found.verdict.violations}, checker.as_text(found.verdict)


@pytest.mark.slow
@pytest.mark.parametrize("build", ["ack_before_commit", "lease_off"])
def test_the_real_build_passes_the_same_run(build: str, template: Path, tmp_path: Path) -> None:
    _, plan, size = BUILDS[build]
    found = run(tmp_path / "run", template, 1, plan, size, quiet_seconds=1)
    assert found.is_kept, checker.as_text(found.verdict)
    assert found.verdict.acked > 20

"""A slice of the proof for presence: G9 under kills, and a build that forgets a revocation is caught (N-17, I9, T20)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.proof import checker
from tests.proof.history import read
from tests.proof.ledger import Ledger
from tests.proof.presence import run


@pytest.mark.slow
def test_nothing_is_told_after_it_was_ended_and_nobody_is_open_after_a_crash(tmp_path: Path) -> None:
    """G9, I9: two presentities, four watchers, SIP over UDP and XMPP; kills between."""
    seed = int(os.environ.get("COMITY_SEED", random.randrange(2**32)))
    print(f"COMITY_SEED={seed}")
    found = run(tmp_path, seed, rounds=120, kills=2)
    assert not found.violations, checker.as_text(found)
    ledger = Ledger(read(tmp_path / "history.jsonl"))
    counts = {op: sum(event.op == op for _, event in ledger.presence) for op in ("say", "notice", "revoke", "leave")}
    assert all(counts.values()), counts
    assert counts["notice"] > counts["say"]
    assert found.kills == 3


@pytest.mark.slow
def test_a_build_that_forgets_a_revocation_is_caught(tmp_path: Path) -> None:
    """The sabotage of I9: written down, and told all the same."""
    found = run(tmp_path, 1, rounds=40, kills=1, program="tests.proof.sabotage.revocation_forgotten")
    assert "I9" in {violation.invariant for violation in found.violations}, checker.as_text(found)

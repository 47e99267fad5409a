"""Failpoints: off unless named, counted, and deadly (reliability.md section 3.2)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comity import failpoints
from comity.errors import ConfigError

SOURCE = Path(__file__).parent.parent / "src"
PROGRAM = "from comity.failpoints import failpoint\nfor n in range(5):\n    failpoint('a.b'); print(n, flush=True)\n"


def run(setting: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "COMITY_FAILPOINT": setting}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, check=False, capture_output=True, text=True
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize(
    ("setting", "code", "lines"),
    [("", 0, 5), ("a", 0, 5), ("a.b:6", 0, 5), ("a.b", -signal.SIGKILL, 0), ("a.b:1", -9, 0), ("a.b:4", -9, 3)],
)
def test_the_nth_passage_of_the_named_place_kills(setting: str, code: int, lines: int) -> None:
    returncode, output = run(setting)
    assert (returncode, output.count("\n")) == (code, lines)


@pytest.mark.parametrize("setting", ["a.b:", "a.b:0", "a.b:x", "a.b:-1"])
def test_a_setting_without_a_proper_count_is_refused_at_start(setting: str) -> None:
    with pytest.raises(ConfigError, match="COMITY_FAILPOINT"):
        failpoints._armed(setting)
    assert run(setting)[0] == 1

"""Every example runs and prints what its documentation says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_sign_and_verify_prints_one_good_and_one_bad_verdict() -> None:
    command = [sys.executable, str(ROOT / "examples" / "sign_and_verify.py")]
    environment = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30, env=environment)
    first, second = done.stdout.splitlines()
    assert first.startswith("as sent: valid")
    assert second.startswith("damaged: bad-signature")


def test_beep_echo_shows_the_frames_of_a_session() -> None:
    command = [sys.executable, str(ROOT / "examples" / "beep_echo.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
        env={"PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"},
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith("C: 'RPY 0 0 . 0 ")
    assert sum(line.startswith("S: 'RPY 1 ") for line in lines) == 3
    assert lines[-1] == "S closes the connection"

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

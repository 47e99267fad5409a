"""The table of S/MIME peers is true today: every cell is tried with the real programs (SEC-8 to SEC-10; issue 4)."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.secure import matrix

pytestmark = pytest.mark.peer


def test_the_page_is_what_the_programs_do() -> None:
    """Also that each cell without "yes" has its reason, and each reason a cell."""
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as name:  # a socket path must be short
        found = matrix.render(matrix.results(Path(name)))
    assert matrix.PAGE.read_text(encoding="utf-8") == found, "run: PYTHONPATH=src python -m tests.secure.matrix"


def test_what_must_work_works() -> None:
    """Whatever the page says: these cells may never be anything but "yes"."""
    lines = matrix.PAGE.read_text(encoding="utf-8").splitlines()
    table = {line.split(" | ")[0].removeprefix("| "): line for line in lines if line.startswith("| ")}
    both = ("ECDSA P-256, SHA-256", "ECDH P-256, X9.63 with SHA-256", "AES-128-GCM", "AES-256-GCM", "RSA OAEP, SHA-256")
    for name in both:
        assert table[name].split(" | ")[1:3] == ["yes", "yes"], name
    for name in ("RSA PKCS #1 1.5, SHA-256", "RSA PKCS #1 1.5", "AES-128-CBC", "AES-256-CBC"):
        assert table[name].rstrip(" |").split(" | ")[1:] == ["yes"] * 4, name

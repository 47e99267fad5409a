"""Disks that fill: a tmpfs of a given size."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(where: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a tmpfs of that size; without the right to mount, the test is skipped with that reason."""
    where.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m,mode=700", "tmpfs", str(where)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs: the full disk is only checked by max_page_count and RLIMIT_FSIZE")
    try:
        yield where
    finally:
        subprocess.run(["umount", str(where)], check=True)


def fill(ballast: Path, *, leave: int = 0) -> None:
    """Write a file until that many octets of its disk are free."""
    with ballast.open("ab", buffering=0) as file:
        while True:
            disk = os.statvfs(ballast.parent)
            room = disk.f_bavail * disk.f_frsize - leave
            if room <= 0:
                return
            file.write(bytes(min(room, 1 << 20)))

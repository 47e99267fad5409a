"""What must be true of a store after any crash: asked of the real files, by tests."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from comity.service.interfaces import Add, Repeat
from comity.store import SqliteStore
from tests.store.child import LANES, make

ROOT = Path(__file__).parent.parent.parent


def start(directory: Path, first: int, count: int, *options: str, failpoint: str = "") -> subprocess.Popen[str]:
    """Start the child that commits; its output is text lines."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "COMITY_FAILPOINT": failpoint}
    command = [sys.executable, "-m", "tests.store.child", str(directory), str(first), str(count), *options]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, cwd=ROOT)


def said(output: str, word: str) -> list[int]:
    return [int(number) for number in re.findall(rf"^{word} (\d+)\b.*$", output, re.M)]


def check(directory: Path, acked: set[int], ended: set[int]) -> set[int]:
    """Assert that nothing acknowledged is lost, order is kept and no row is half there; give all record numbers."""
    numbers = asyncio.run(_check_contract(directory, acked, ended))
    check_rows(directory / "comity.db")
    return numbers


async def _check_contract(directory: Path, acked: set[int], ended: set[int]) -> set[int]:
    store = await SqliteStore.open(directory, min_free=0)
    pending: set[int] = set()
    try:
        for lane in range(LANES):
            items = await store.read(f"inbox/{lane}", 1_000_000)
            order = [int(item.record.id.removeprefix("id-")) for item in items]
            assert order == sorted(order), "out of order"
            assert [item.record for item in items] == [make(number) for number in order]
            for item in items:
                assert hashlib.sha256(item.record.entity).hexdigest() == item.record.fingerprint
            pending.update(order)
        lost = []
        for number in acked:
            (result,) = await store.commit([Add(make(number))])
            if not isinstance(result, Repeat):
                lost.append(number)
        assert not lost, f"acknowledged and lost: {sorted(lost)}"
        back = sorted(pending & ended)
        assert not back, f"terminal and pending again: {back}"
        return pending | ended
    finally:
        await store.close()


def check_rows(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        keys = {}
        for number, dedup, ended, entity, outcome, gone in connection.execute(
            "SELECT number, dedup, ended, entity, outcome, gone FROM records"
        ):
            keys.update(dict.fromkeys(json.loads(dedup), number))
            terminal = (ended is not None, entity is None, outcome is not None, gone is not None)
            assert len(set(terminal)) == 1, f"half a row: {number}"
        assert dict(connection.execute("SELECT key, number FROM dedup")) == keys

"""Opens directories found after a power loss with the real store and says what is wrong with them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from comity.bindings.xmpp.counts import unpack
from comity.service.envelope import operation_of_item, unpack_outcome
from comity.store import SqliteStore
from tests.store import audit
from tests.store.replay import lay_out

TABLES = ("records", "dedup", "marks", "kv_account", "kv_scram", "kv_ha1", "kv_contact", "kv_setting")
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@dataclass(frozen=True, slots=True)
class State:
    """What a machine may find, and what had been said when it lost power."""

    name: str
    files: dict[str, bytes]
    acked: frozenset[int]
    taken: frozenset[int]
    streams: tuple[tuple[int, ...], ...] = ()
    """Numbers in the order they went onto each XMPP stream so far, the oldest stream first."""
    is_lied_about: bool = False
    """The disk confirmed syncs it did not make."""


class Silent(Exception):
    """The store opened: how many acknowledged messages are missing, how many of them with later ones still there."""


def examine(state: State, numbers: dict[str, int]) -> str:
    """Open the state and check it; "" or what is wrong.

    Args:
        numbers: message numbers by fingerprint; those of one connection share their ten thousands and rise in the order sent.
    """
    scratch = Path(tempfile.mkdtemp(prefix="comity-replay-", dir=SCRATCH))
    try:
        directory = scratch / "data"
        lay_out(directory, state.files)
        asyncio.run(_examine(directory, scratch / "killed", state, numbers))
    except Exception as error:  # whatever it is, it belongs to this state and is told with its name
        return f"{state.name}: {type(error).__name__}: {error}"
    finally:
        shutil.rmtree(scratch)
    return ""


async def _examine(directory: Path, killed: Path, state: State, numbers: dict[str, int]) -> None:
    store = await SqliteStore.open(directory, min_free=0)
    try:
        found = await _rows(store, numbers, state)
        shutil.copytree(directory, killed)  # as kill -9 right after recovery would leave it
    finally:
        await store.close()
    lost = state.acked - found
    if state.is_lied_about:
        holes = [
            number for number in lost if any(other > number for other in found if other // 10_000 == number // 10_000)
        ]
        raise Silent(len(lost), len(holes))
    assert not lost, f"{len(lost)} acknowledged and lost: {sorted(lost)[:5]}"
    _check_counts(directory, state, found)
    once = dump(directory)
    audit.check_rows(directory / "comity.db")
    for again in (directory, killed):
        await (await SqliteStore.open(again, min_free=0)).close()
        assert dump(again) == once, "recovery twice differs from recovery once (I14)"


async def _rows(store: SqliteStore, numbers: dict[str, int], state: State) -> set[int]:
    """Numbers of all messages the store knows; asserts octets, order and how each one ended."""
    found: set[int] = set()
    last: dict[int, int] = {}
    for lane in await store.lanes("inbox/"):
        for item in await store.read(lane.lane, 1_000_000):
            operation, _ = operation_of_item(item)  # recomputes the digest
            digest = hashlib.sha256(operation.object.octets).hexdigest()
            assert digest == item.record.fingerprint, f"row {item.seq}: other octets"
            assert digest in numbers, f"row {item.seq}: octets nobody sent"
            number = numbers[digest]
            sender = number // 10_000
            assert number > last.get(sender, -1), f"out of order: {number} after {last[sender]}"
            last[sender] = number
            found.add(number)
    for digest, number in numbers.items():
        for row in await store.find(digest) if number not in found else ():
            if row.outcome is not None:
                assert unpack_outcome(row.outcome).outcome == "delivered", f"{number} ended otherwise"
                assert number in state.taken, f"{number} is terminal, but no device took it"
                found.add(number)
    return found


def _check_counts(directory: Path, state: State, found: set[int]) -> None:
    """The durable count of each stream covers just the messages that are there (reliability.md section 5.2)."""
    with closing(sqlite3.connect(directory / "comity.db")) as connection:
        marks = connection.execute("SELECT value FROM marks WHERE name LIKE 'xmpp/%' ORDER BY at").fetchall()
    for (value,), numbers in zip(marks, state.streams, strict=False):
        count, _ = unpack(value)
        there = [number in found for number in numbers]
        assert all(there[:count]), f"h={count} covers a message that is not there"
        assert not any(there[count:]), f"h={count} is behind what is there: the client would send it again"


def dump(directory: Path) -> dict[str, list[tuple[object, ...]]]:
    """Everything the store keeps for others, in order."""
    with closing(sqlite3.connect(directory / "comity.db")) as connection:
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in TABLES}

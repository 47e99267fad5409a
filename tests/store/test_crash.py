"""kill -9 and power loss (reliability.md section 3.2 F-K3, F-K4, F-K12 to 14; F-01, F-05): real files, real processes."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comity.store import SqliteStore
from tests.store import audit
from tests.store.audit import ROOT, said

needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None and "CI" not in os.environ, reason="strace is missing: power loss is NOT checked"
)


def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_nothing_acknowledged_is_lost_in_21_random_kills(tmp_path: Path) -> None:
    """G1, F-K3, F-K4: acked is there, in order, whole; twice the same recovery."""
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    acked: set[int] = set()
    ended: set[int] = set()
    for round_ in range(21):
        child = audit.start(data(tmp_path), round_ * 100_000, 100_000, *dice.choice([(), ("busy-log",)]))
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        time.sleep(dice.random() * 0.06)
        child.send_signal(signal.SIGKILL)
        output, _ = child.communicate()
        assert child.returncode == -signal.SIGKILL
        assert "refused" not in output
        acked.update(said(output, "acked"))
        ended.update(said(output, "ended"))
    assert len(acked) > 21
    audit.check(data(tmp_path), acked, ended)
    audit.check(data(tmp_path), acked, ended)


@pytest.mark.parametrize(
    ("name", "is_kept"),
    [
        ("store.before-insert", False),
        ("store.before-commit", False),
        ("store.after-commit", True),
    ],
)
def test_a_kill_around_the_commit_leaves_all_or_nothing(tmp_path: Path, name: str, is_kept: bool) -> None:
    """F-K3: before COMMIT nothing is there. F-K4: after it the record is there, the resend a Repeat."""
    output = run_to_death(tmp_path, f"{name}:5", 1, 100, "single")
    acked = set(said(output, "acked"))
    # Groups of a single caller: Add 1, Add 2, Add 3, Ack 3, Add 4.
    assert acked == {1, 2, 3}
    there = audit.check(data(tmp_path), acked, set(said(output, "ended")))
    assert (4 in there) == is_kept
    if is_kept:
        audit.check(data(tmp_path), acked | {4}, set())


def test_a_kill_before_an_ack_is_committed_leaves_the_record_pending(tmp_path: Path) -> None:
    output = run_to_death(tmp_path, "store.ack.before-commit", 1, 100, "single")
    assert said(output, "acked") == [1, 2, 3]
    assert 3 in audit.check(data(tmp_path), {1, 2, 3}, set())


def test_a_kill_in_a_checkpoint_loses_nothing(tmp_path: Path) -> None:
    """F-K12; the first checkpoint passed is the start's own, hence the count."""
    output = run_to_death(tmp_path, "store.checkpoint:4", 0, 1000, "busy-log")
    acked = set(said(output, "acked"))
    assert acked
    audit.check(data(tmp_path), acked, set(said(output, "ended")))


def test_three_kills_in_recovery_change_nothing(tmp_path: Path) -> None:
    """F-K13, I14."""
    output = run_to_death(tmp_path, "store.before-commit:20", 0, 1000)
    acked = set(said(output, "acked"))
    for _ in range(3):
        assert run_to_death(tmp_path, "store.checkpoint", 5000, 1) == ""
    audit.check(data(tmp_path), acked, set(said(output, "ended")))


def test_a_kill_in_the_first_migration_leaves_no_half_made_store(tmp_path: Path) -> None:
    """F-K14."""
    assert run_to_death(tmp_path, "store.migration", 0, 1) == ""
    assert not (data(tmp_path) / "comity.db").exists()
    audit.check(data(tmp_path), set(), set())


def test_a_kill_in_a_later_migration_leaves_the_old_schema_with_its_records(tmp_path: Path) -> None:
    """F-K14: old or new, never between."""
    child = audit.start(data(tmp_path), 0, 30)
    child.communicate()
    program = (
        "import sys, asyncio; from pathlib import Path; from comity.store import SqliteStore, schema\n"
        "known = schema.migrations() + [(99, 'CREATE TABLE more (x);\\nDROP TABLE dedup;\\n')]\n"
        "schema.migrations = lambda: known\n"
        "asyncio.run(SqliteStore.open(Path(sys.argv[1])))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COMITY_FAILPOINT": "store.migration"}
    ended = subprocess.run([sys.executable, "-c", program, str(data(tmp_path))], env=environment, check=False)
    assert ended.returncode == -signal.SIGKILL
    audit.check(data(tmp_path), set(range(30)), set())


def run_to_death(tmp_path: Path, failpoint: str, first: int, count: int, *options: str) -> str:
    child = audit.start(data(tmp_path), first, count, *options, failpoint=failpoint)
    output, _ = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGKILL, output
    return output


# --- power loss ---

FILE = r"(?P<fd>\d+)<(?P<path>[^>]*)>"
CALL = re.compile(
    rf"^(?:\[pid\s+\d+\] |\d+ +)?(?P<name>\w+)\({FILE}(?:, (?:\"(?P<data>(?:\\x[0-9a-f]{{2}})*)\"(?:, (?P<rest>.*))?|(?P<number>\d+)))?\)\s+= \d+"
)


def test_full_synchronous_is_set_and_proved(tmp_path: Path) -> None:
    """Finding 2 of reliability.md section 0: NORMAL loses acknowledged rows."""

    async def main() -> None:
        store = await SqliteStore.open(data(tmp_path))
        assert store._writer is not None
        connection = store._writer._connection
        assert connection is not None
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        await store.close()

    asyncio.run(main())


def trace(tmp_path: Path, count: int, *options: str) -> tuple[bytes, list[re.Match[str]]]:
    """Record every write and sync of a child that adds ``count`` records to an existing store.

    Returns the main file as it was before, and the calls in order."""
    asyncio.run(make_empty(data(tmp_path)))
    before = (data(tmp_path) / "comity.db").read_bytes()
    log = tmp_path / "strace"
    calls = "pwrite64,write,fdatasync,fsync,ftruncate"
    command = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-o", str(log), "-e", f"trace={calls}"]
    command += [sys.executable, "-m", "tests.store.child", str(data(tmp_path)), "1", str(count), "single", *options]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=60)
    found = [CALL.match(line) for line in log.read_text().splitlines()]
    return before, [call for call in found if call]


async def make_empty(directory: Path) -> None:
    await (await SqliteStore.open(directory)).close()


def replay(tmp_path: Path, before: bytes, calls: list[re.Match[str]]) -> tuple[int, list[str]]:
    """Rebuild "only what was synced" at every acknowledgement and ask for all records acknowledged by then."""
    durable: dict[str, bytearray] = {"comity.db": bytearray(before)}
    waiting: dict[str, list[tuple[int, bytes]]] = {}
    acked: set[int] = set()
    ended: set[int] = set()
    failures: list[str] = []
    states = 0
    for call in calls:
        name = Path(
            bytes.fromhex(call["path"].replace("\\x", "")).decode() if "\\x" in call["path"] else call["path"]
        ).name
        octets = bytes.fromhex((call["data"] or "").replace("\\x", ""))
        if call["name"] == "pwrite64" and name.startswith("comity.db"):
            waiting.setdefault(name, []).append((int(call["rest"].split(", ")[1]), octets))
        elif call["name"] in ("fdatasync", "fsync") and name.startswith("comity.db"):
            content = durable.setdefault(name, bytearray())
            for offset, part in waiting.pop(name, []):
                content.extend(bytes(max(0, offset - len(content))))
                content[offset : offset + len(part)] = part
        elif call["name"] == "ftruncate" and name.startswith("comity.db"):
            del durable.setdefault(name, bytearray())[int(call["number"] or 0) :]
        elif call["name"] == "write" and call["fd"] == "1":
            text = octets.decode()
            acked.update(said(text, "acked"))
            ended.update(said(text, "ended"))
            states += 1
            try:
                open_state(tmp_path / f"state{states}", durable, acked, ended)
            except Exception as error:
                failures.append(f"after {text.strip()}: {error}")
    return states, failures


def open_state(directory: Path, durable: dict[str, bytearray], acked: set[int], ended: set[int]) -> None:
    directory.mkdir(mode=0o700)
    for name, content in durable.items():
        if not name.endswith("-shm"):
            (directory / name).write_bytes(content)
    audit.check(directory, acked, ended)


@needs_strace
def test_power_loss_at_every_acknowledgement_loses_nothing(tmp_path: Path) -> None:
    """F-01, G5: at each "yes", what fsync has confirmed by then is enough; so every "yes" comes after its sync."""
    before, calls = trace(tmp_path, 40)
    states, failures = replay(tmp_path, before, calls)
    assert states >= 40 + 13
    assert failures == []


@needs_strace
def test_the_power_loss_check_catches_a_sabotaged_store(tmp_path: Path) -> None:
    """reliability.md section 5.9: the same run with synchronous=NORMAL has to fail."""
    before, calls = trace(tmp_path, 15, "normal")
    _, failures = replay(tmp_path, before, calls)
    assert len(failures) >= 15


@needs_strace
@pytest.mark.parametrize("when", [6, 9])
def test_after_one_failed_sync_that_group_is_refused_and_the_store_verified(tmp_path: Path, when: int) -> None:
    """F-05: EIO from fdatasync once: no "yes" for that group, and the process goes on without a restart."""
    asyncio.run(make_empty(data(tmp_path)))
    command = ["strace", "-f", "-o", os.devnull, "-e", "trace=fdatasync"]
    command += ["-e", f"inject=fdatasync:error=EIO:when={when}", sys.executable, "-m", "tests.store.child"]
    command += [str(data(tmp_path)), "1", "40", "single", "retry"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    ended = subprocess.run(command, env=environment, cwd=ROOT, check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert said(ended.stdout, "refused"), ended.stdout
    assert "disk I/O error" in ended.stdout
    assert sorted(set(said(ended.stdout, "acked"))) == list(range(1, 41))
    audit.check(data(tmp_path), set(said(ended.stdout, "acked")), set(said(ended.stdout, "ended")))

"""Power loss at any moment of a real run: nothing acknowledged is lost (F-01, G5, I14; reliability.md section 5.9).

A real ``comity serve`` is recorded by strace while messages come in over SIP and XMPP and go out to a device; in the middle it is
killed and started again. From the recording every directory is rebuilt that the machine may find if power is lost at that
moment: at each "yes" what fsync had confirmed and no octet more, and between them any of what ``replay.py`` says.
"""

from __future__ import annotations

import asyncio
import copy
import hashlib
import multiprocessing
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from comity.store import SqliteStore
from tests.paths.kit import ServerProcess
from tests.store import recording
from tests.store.recording import Event, needs_strace
from tests.store.replay import Disk, lay_out
from tests.store.states import SCRATCH, State, examine
from tests.store.traffic import LIMITS, Reading, Traffic

STATES = int(os.environ.get("COMITY_REPLAY_STATES", "300"))
"""Different crash states between two acknowledgements, beside the one at each acknowledgement; `make prove` asks for 2,000."""
MESSAGES = min(100, max(24, STATES // 20))
"""Each way in each of the two runs."""
WORKERS = min(4, os.cpu_count() or 1)

pytestmark = needs_strace


class Recorded:
    """Two recorded runs of a server on one directory, the first ended by kill -9."""

    def __init__(self, directory: Path, sabotage: str, seed: int) -> None:
        self.server = server = ServerProcess(directory, LIMITS)
        data = server.directory / "data"
        self.disk = Disk(data)
        self.runs: list[tuple[list[Event], list[int]]] = []
        self.traffic = Traffic(random.Random(seed))
        program = "tests.store.sabotaged" if sabotage else "comity"
        for run in range(2):
            log = directory / f"strace{run}"
            server.tracer = ["env", f"COMITY_SABOTAGE={sabotage}", *recording.tracing(log)]
            with server:
                server.start(program=program)
                asyncio.run(self.traffic.run(server, run * MESSAGES, MESSAGES))
                assert run == 0 or server.stop() == 0
            # The first run ends by kill -9.
            recording.wait_for(log)
            self.runs.append((recording.read(log), list(self.traffic.stanzas)))
        self.numbers = {thing.fingerprint: number for number, thing in self.traffic.objects.items()}

    def states(self, count: int, dice: random.Random) -> Iterator[State]:
        """The state at each acknowledgement, and ``count`` different ones between them."""
        steps = sum(len(events) for events, _ in self.runs)
        acked: set[int] = set()
        taken: set[int] = set()
        seen: set[bytes] = set()
        made = step = 0
        for events, stanzas in self.runs:
            reading = Reading(stanzas)
            reading.acked, reading.taken = acked, taken
            for event in events:
                step += 1
                is_change = self.disk.feed(event)
                is_yes = reading.feed(event)
                wanted = 1 if is_yes else 0
                # Catch up with an even share of the states, at steps after which the disk may differ.
                wanted += max(0, count * step // steps - made) if is_change else 0
                for turn in range(wanted):
                    is_at_ack = is_yes and turn == 0
                    files = self.disk.after_power_loss(None if is_at_ack else dice)
                    mark = _digest(files, acked)
                    if is_at_ack or mark not in seen:
                        seen.add(mark)
                        made += not is_at_ack
                        name = f"step {step} {'at a yes' if is_at_ack else 'between'}"
                        streams = tuple(tuple(numbers) for _, numbers in self.runs)
                        yield State(name, files, frozenset(acked), frozenset(taken), streams)


def _digest(files: dict[str, bytes], acked: set[int]) -> bytes:
    digest = hashlib.sha256(len(acked).to_bytes(4, "big"))
    for name in sorted(files):
        digest.update(name.encode() + hashlib.sha256(files[name]).digest())
    return digest.digest()


def judge(recorded: Recorded, count: int, seed: int) -> tuple[int, int, list[str]]:
    """Examine the states; how many stood at a "yes", how many between, and what was wrong."""
    at_yes = between = 0
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(WORKERS, context) as pool:
        states: list[State] = []
        for state in recorded.states(count, random.Random(seed)):
            at_yes += state.name.endswith("yes")
            between += state.name.endswith("between")
            states.append(state)
            if len(states) == 200:
                failures += filter(None, pool.map(partial(examine, numbers=recorded.numbers), states, chunksize=10))
                states = []
        failures += filter(None, pool.map(partial(examine, numbers=recorded.numbers), states, chunksize=10))
    return at_yes, between, failures


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", ["", "busy-log"], ids=["as-it-is", "many-checkpoints"])
def test_no_acknowledged_message_is_lost_in_any_crash_state(tmp_path: Path, sabotage: str) -> None:
    """F-01, F-K12, F-K13, G5: every state opens, is whole, has what was acknowledged, in order; recovered twice alike; ``h`` agrees."""
    seed = random.randrange(2**32)
    print("seed", seed)
    recorded = Recorded(tmp_path, sabotage, seed)
    at_yes, between, failures = judge(recorded, STATES // 2 + STATES // 100 + 10, seed)
    print(f"{at_yes} states at a yes, {between} between, {len(recorded.numbers)} messages")
    assert failures == []
    assert between >= STATES // 2
    assert at_yes >= MESSAGES  # one <a/> may acknowledge several
    assert len(recorded.numbers) == 4 * MESSAGES
    with closing(sqlite3.connect(recorded.server.directory / "data" / "comity.db")) as connection:
        marks = [row[0] for row in connection.execute("SELECT value FROM marks WHERE name LIKE 'xmpp/%'")]
    assert marks == [f"{MESSAGES} im:bob@a.test".encode()] * 2, "both streams' counts were under test"


@pytest.mark.slow
def test_the_replay_catches_a_server_that_says_yes_too_early(tmp_path: Path) -> None:
    """reliability.md section 5.9: the sabotaged build with synchronous=NORMAL loses acknowledged messages."""
    recorded = Recorded(tmp_path, "normal,busy-log", 1)
    at_yes, _, failures = judge(recorded, 0, 1)
    lost = [failure for failure in failures if "acknowledged and lost" in failure]
    print(f"{len(lost)} of {at_yes} states at a yes lose messages")
    assert len(lost) > at_yes // 2


@pytest.mark.slow
def test_a_disk_that_lies_is_found_out_or_loses_only_the_newest(tmp_path: Path) -> None:
    """F-02: syncs that were confirmed and not made, of everything or of one file, from some moment on.

    What the store does not refuse at the start misses, if anything, the newest messages. A hole (a later message is
    there, an earlier one is not) needs pages that fit together by chance; none was seen in 600 states.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    recorded = Recorded(tmp_path, "busy-log", seed)
    base = copy.deepcopy(recorded.disk)
    outcomes: dict[str, Counter[str]] = {}
    for name, about in LIES.items():
        for _ in range(STATES // 10):
            recorded.disk = copy.deepcopy(base)
            state = lied(recorded, dice, about)
            kind = fate(examine(state, recorded.numbers))
            outcomes.setdefault(name, Counter())[kind] += 1
    print(outcomes)
    assert all(counts["refused at the start"] for counts in outcomes.values()), "loud"
    assert set(outcomes["the witness"]) <= {"refused at the start", "nothing is missing"}
    assert sum(counts["holes"] for counts in outcomes.values()) <= STATES // 50


def fate(told: str) -> str:
    """What became of a lied-about state: found out, when, or what it lost in silence."""
    if "StoreDamaged" in told:
        return "refused at the start"
    if "StoreError" in told:  # operation_of_item: the digest, or an envelope that cannot be read
        return "found at delivery"
    silent = re.search(r"Silent: \((\d+), (\d+)\)", told)
    assert silent is not None, told
    if not int(silent[1]):
        return "nothing is missing"
    return "holes" if int(silent[2]) else "the newest are missing"


LIES = {
    "everything": frozenset({"comity.db", "comity.db-wal", "store.epoch.new"}),
    "the log": frozenset({"comity.db-wal"}),
    "the main file": frozenset({"comity.db"}),
    "the witness": frozenset({"store.epoch.new"}),
}


def lied(recorded: Recorded, dice: random.Random, about: frozenset[str]) -> State:
    """Power is lost some time after the disk began to lie about these files."""
    events = [(event, run) for run, (events, _) in enumerate(recorded.runs) for event in events]
    begins = dice.randrange(len(events))
    ends = dice.randrange(begins, len(events))
    readings = [Reading(stanzas) for _, stanzas in recorded.runs]
    readings[1].acked, readings[1].taken = readings[0].acked, readings[0].taken
    for place, (event, run) in enumerate(events[: ends + 1]):
        if place == begins:
            recorded.disk.lies_about = about
        recorded.disk.feed(event)
        readings[run].feed(event)
    files = recorded.disk.after_power_loss(dice.choice((None, dice)))
    return State(f"step {ends}", files, frozenset(readings[0].acked), frozenset(readings[0].taken), (), True)


def test_power_loss_while_the_first_account_is_made_leaves_a_store_or_none(tmp_path: Path) -> None:
    """F-01, F-K14: in every state the next start goes on; the account is there once the command said so."""
    home, log = tmp_path / "home", tmp_path / "strace"
    scratch = Path(tempfile.mkdtemp(prefix="states-", dir=SCRATCH or tmp_path))
    comity = [sys.executable, "-m", "comity"]
    subprocess.run([*comity, "init", str(home), "--domain", "a.test"], check=True, capture_output=True)
    disk = Disk(home / "data")
    add = [*recording.tracing(log), *comity, "account", "add", "alice@a.test", "--password-stdin"]
    add += ["-c", str(home / "comity.toml")]
    done = subprocess.run(add, input="correct horse", text=True, capture_output=True, check=True)
    recording.wait_for(log)
    said = done.stdout.encode()
    assert said
    dice = random.Random(7)
    is_added, opened = False, 0
    for event in recording.read(log):
        is_added = is_added or (event.kind == "write" and event.data in said and event.path.name.startswith("pipe:"))
        if disk.feed(event) or is_added:
            for turn in range(3):
                directory = scratch / f"state{opened}"
                lay_out(directory, disk.after_power_loss(dice if turn else None))
                assert asyncio.run(has_account(directory)) or not is_added
                shutil.rmtree(directory)
                opened += 1
    scratch.rmdir()
    assert is_added
    assert opened >= 100


async def has_account(directory: Path) -> bool:
    """Open the store as a server would; whether Alice has an account."""
    store = await SqliteStore.open(directory, min_free=0)
    try:
        return await store.get("account", "im:alice@a.test") is not None
    finally:
        await store.close()

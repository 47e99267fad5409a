"""Measure what an idle connection costs a running server: ``python -m tests.load.measure 2000 [STAGE[-tls] ...]``.

The server is ``comity serve``, its clients are another process (``tests.load.idle``). Fixed costs are paid by 50
connections beforehand; then COUNT are opened, looked at while idle, closed, and all of it once more, because what one
connection costs for ever shows only in the second round.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from comity.admin.commands import Commands, PlainRecords
from comity.admin.engine import open_store
from comity.admin.requests import AddAccount
from comity.config import load
from tests.load.idle import PASSWORD, account
from tests.paths.kit import ServerProcess

WARM_UP = 50
QUIET_SECONDS = 3.0
SETTLE_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Idle:
    """What one measurement found; octets are resident ones of the server process."""

    each: float
    """Octets a connection, the first time."""
    again: float
    """The same in the second round, counted from the state after the first."""
    left: float
    """Octets a connection still held after the second round's end, counted from the state after the first."""
    cpu: float
    """Share of one core the server used while all were idle."""


def add_accounts(server: ServerProcess, names: Sequence[str]) -> None:
    """Make accounts in the stopped server's store, their keys derived side by side."""

    async def add() -> None:
        config = load(server.config)
        store = await open_store(config)
        commands = Commands(store, config.server.domains, PlainRecords(config.server.domains[0]))
        try:
            await asyncio.gather(*(commands.run(AddAccount(f"{name}@a.test", PASSWORD)) for name in names))
        finally:
            await store.close()

    asyncio.run(add())


def resident(server: ServerProcess) -> int:
    """Resident octets of the server."""
    assert server.process is not None
    return int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(server: ServerProcess) -> float:
    """Seconds the server has computed, all threads."""
    assert server.process is not None
    tasks = Path(f"/proc/{server.process.pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9


@contextmanager
def idle_clients(server: ServerProcess, count: int, stage: str, first: int) -> Iterator[None]:
    """``count`` connections of another process, numbered from ``first``, as long as the context lasts."""
    name, _, tls = stage.partition("-")
    ca = str(server.directory / "data" / "tls" / "ca.pem") if tls else ""
    port = server.port("xmpp", "tls" if tls else "tcp")[1]
    command = [sys.executable, "-m", "tests.load.idle", str(port), str(count), name, str(first), ca]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        process.communicate(b"")


def settled(server: ServerProcess) -> int:
    """Resident octets once they have not changed for some seconds, or after some time what they are then."""
    last, since = resident(server), time.monotonic()
    deadline = since + SETTLE_SECONDS
    while time.monotonic() < min(since + QUIET_SECONDS, deadline):
        time.sleep(0.1)
        if (octets := resident(server)) != last:
            last, since = octets, time.monotonic()
    return last


def prepare(directory: Path, count: int) -> ServerProcess:
    """A server, not started, with accounts enough for ``count`` devices."""
    # A stranger's 30 s would end while the last of many is still being opened; the caps stay as they are.
    server = ServerProcess(directory, 'pre_auth_time = "1 h"\nsm_resume = 1')
    text = server.config.read_text("utf-8")
    server.config.write_text(text.replace("[limits]", '[policy]\nplaintext_from = ["127.0.0.0/8"]\n[limits]'), "utf-8")
    add_accounts(server, sorted({account(number) for number in range(WARM_UP + count)}))
    return server


def measure(server: ServerProcess, stage: str, count: int, idle_seconds: float = 5.0) -> Idle:
    """Start it, run both rounds of ``stage`` ("open", "open-tls", "bound" or "bound-tls"), stop it."""
    server.start()
    rounds = []
    with idle_clients(server, WARM_UP, stage, 0):
        before, used = resident(server), 0.0
        for seconds in (0.0, idle_seconds):
            with idle_clients(server, count, stage, WARM_UP):
                open_size, started = resident(server), cpu_seconds(server)
                time.sleep(seconds)
                used = (cpu_seconds(server) - started) / idle_seconds
            closed_size = settled(server)
            rounds.append(((open_size - before) / count, (closed_size - before) / count))
            before = closed_size
    assert server.stop() == 0
    return Idle(rounds[0][0], rounds[1][0], rounds[1][1], used)


def main(count: int, stages: Sequence[str]) -> None:
    """Print a table."""
    with tempfile.TemporaryDirectory() as directory:
        server = prepare(Path(directory), count)
        for stage in stages:
            found = measure(server, stage, count)
            sys.stdout.write(
                f"{stage:10} {count} idle: {found.each / 1000:.1f} kB each, again {found.again / 1000:.1f} kB, "
                f"left {found.left / 1000:.2f} kB, CPU {found.cpu * 100:.2f} %\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:] or ["open", "open-tls", "bound", "bound-tls"])

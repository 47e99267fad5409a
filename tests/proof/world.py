"""The server of a run: made once for many users, copied for each run, started, killed, stopped, looked at."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from comity.admin import control
from comity.admin.commands import Commands, PlainRecords
from comity.admin.requests import AddAccount, ListQueues
from comity.errors import ComityError
from comity.store import SqliteStore
from tests.paths.kit import PASSWORD, ServerProcess
from tests.proof.things import DOMAIN

LIMITS = """user_messages = 100000
user_octets = 100000000
udp_requests = 100000
user_message_burst = 100000
stored_messages = 5000
connections_per_address = 1000
"""
BOUNDS = {"rss": 400_000_000, "fds": 400, "waiting": 5000}
"""Octets of memory, descriptors, messages in one lane: what I13 holds every sample against."""


def make_template(directory: Path, users: Sequence[str]) -> Path:
    """A server's directory with its authority and an account for each user, to be copied."""
    made = ProofServer.__new__(ProofServer)
    made.directory = directory / "template"
    made.run("init", str(made.directory), "--domain", DOMAIN)
    asyncio.run(_add_accounts(made.directory / "data", users))
    return made.directory


async def _add_accounts(data: Path, users: Sequence[str]) -> None:
    store = await SqliteStore.open(data, min_free=0)
    try:
        commands = Commands(store, (DOMAIN,), PlainRecords(DOMAIN))
        await asyncio.gather(*(commands.add_account(AddAccount(f"{user}@{DOMAIN}", PASSWORD)) for user in users))
    finally:
        await store.close()


class ProofServer(ServerProcess):
    """A server of its own directory, copied from a template."""

    def __init__(self, directory: Path, template: Path, limits: str = LIMITS) -> None:
        self._template = template
        super().__init__(directory, limits)

    def make(self) -> None:
        """Copy the template."""
        shutil.copytree(self._template, self.directory)

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.directory / "data"

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        return self.process is not None and self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.process is not None:
            self.process.send_signal(number)

    async def died(self, seconds: float) -> bool:
        """Wait for its end; True if SIGKILL was it. False: it lives on, or ended otherwise."""
        assert self.process is not None
        deadline = asyncio.get_running_loop().time() + seconds
        # A child's death is no event of the loop everywhere.
        while self.is_alive and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
        if self.is_alive:
            return False
        return self.reap() == -signal.SIGKILL

    def age(self) -> int:
        """While it is down: make every terminal record as old as retention ends; how many there are."""
        with closing(sqlite3.connect(self.data / "comity.db")) as database, database:
            return database.execute("UPDATE records SET gone = 1 WHERE ended IS NOT NULL").rowcount

    async def sample(self) -> dict[str, int]:
        """Memory, descriptors, and the longest lane; empty if it cannot answer now."""
        if self.process is None or not self.is_alive:
            return {}
        proc = Path(f"/proc/{self.process.pid}")
        try:
            pages = int((proc / "statm").read_text().split()[1])
            fds = len(os.listdir(proc / "fd"))
        except OSError:
            return {}
        found = {"rss": pages * os.sysconf("SC_PAGE_SIZE"), "fds": fds}
        try:
            async with asyncio.timeout(2):
                answer = await control.call(self.data / "control.sock", ListQueues())
                lanes = msgspec.json.decode(answer.result, type=list[dict[str, object]])
            found["waiting"] = max((int(str(lane["pending"])) for lane in lanes), default=0)
        except (ComityError, TimeoutError):
            pass  # it is starting, paused or dying: the next sample will say
        return found

"""A running server that bad input is thrown at, and everything reliability.md section 2 asks for after each row.

``Target`` is one real ``comity serve``; a canary conversation runs beside the attack all the time, SIP to XMPP and back.
Each attacker calls from an address of its own (127.x.y.z), so that a ban or a rate met by one row is not met by the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from comity.client import Client, ClientError, text_object
from comity.cpim.address import Address
from comity.store.files import DATABASE
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via

CANARY_SIP, CANARY_XMPP = Address.parse("im:canary-s@a.test"), Address.parse("im:canary-x@a.test")
CANARY_SECONDS = 0.15
"""From one canary message to the next, each way: below the rate every user has."""
CANARY_P99 = float(os.environ.get("COMITY_CANARY_P99", "0.25"))
"""Seconds (G4). A machine that is busy with other work may need more; CI uses the figure of the text."""
PATIENCE = 20.0
"""Longest wait for anything that has to happen."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]")
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Sample:
    """One canary message."""

    sent: float
    """Monotonic seconds."""
    latency: float
    via: Via


class Canary:
    """Two users who keep talking while others misbehave, in a thread of their own."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)
        self._stop = asyncio.Event()
        self._arrived = threading.Condition()
        self.samples: list[Sample] = []
        self.trouble: list[str] = []
        """Lost connections and refusals: the legitimate user was harmed."""
        self._sent: dict[str, tuple[float, Via]] = {}

    def start(self) -> None:
        """Sign both in and begin."""
        self._thread.start()
        self.wait_for_round(time.monotonic())

    def stop(self) -> None:
        """Sign both out."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the canary does not come home"
        self._loop.close()

    def wait_for_round(self, since: float) -> None:
        """Wait until a message sent after ``since`` has arrived each way."""
        with self._arrived:
            there = self._arrived.wait_for(
                lambda: self.trouble or {s.via for s in self.samples if s.sent >= since} == {"sip", "xmpp"}, PATIENCE
            )
        assert not self.trouble, self.trouble
        assert there, "the canary is silent"

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._talk())
        except (ClientError, OSError, AssertionError) as error:
            self._complain(repr(error))

    def _complain(self, what: str) -> None:
        with self._arrived:
            self.trouble.append(what)
            self._arrived.notify_all()

    async def _talk(self) -> None:
        sip = self._server.client("sip", CANARY_SIP)
        xmpp = self._server.client("xmpp", CANARY_XMPP)
        async with sip, xmpp:
            work = [
                asyncio.ensure_future(self._send("sip", sip, CANARY_SIP, CANARY_XMPP)),
                asyncio.ensure_future(self._send("xmpp", xmpp, CANARY_XMPP, CANARY_SIP)),
                asyncio.ensure_future(self._receive(sip)),
                asyncio.ensure_future(self._receive(xmpp)),
            ]
            stop = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([*work, stop], return_when=asyncio.FIRST_COMPLETED)
            for task in (*work, stop):
                task.cancel()
            for result in await asyncio.gather(*work, return_exceptions=True):
                if isinstance(result, Exception):
                    self._complain(repr(result))

    async def _send(self, via: Via, client: Client, me: Address, you: Address) -> None:
        for k in itertools.count():
            text = f"{via} canary {k}"
            self._sent[text] = (time.monotonic(), via)
            response = await client.send(text_object(me, you, text), you)
            if response.status.name == "FAILURE":
                self._complain(f"{text} was refused: {response}")
            await asyncio.sleep(CANARY_SECONDS)  # the pace of two people talking

    async def _receive(self, client: Client) -> None:
        async for received in client.messages():
            sent = self._sent.pop(received.text or "", None)
            if sent is None:
                self._complain(f"the canary heard {received.text!r}")
                continue
            with self._arrived:
                self.samples.append(Sample(sent[0], time.monotonic() - sent[0], sent[1]))
                self._arrived.notify_all()


@dataclass(repr=False)
class Inbox:
    """A victim's device: signed in, taking all that comes."""

    server: ServerProcess
    via: Via
    address: Address
    texts: list[str | None] = field(default_factory=list)
    senders: list[str] = field(default_factory=list)
    octets: list[bytes] = field(default_factory=list)
    """The octets of each object as delivered."""

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._changed = threading.Condition()
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._trouble: list[str] = []
        self._thread = threading.Thread(target=self._run, name=f"inbox {self.address.uri}", daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE), self._trouble

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._listen())
        except (ClientError, OSError) as error:
            self._trouble.append(repr(error))

    async def _listen(self) -> None:
        async with self.server.client(self.via, self.address) as client:
            self._ready.set()
            taking = asyncio.ensure_future(self._take(client))
            stop = asyncio.ensure_future(self._stop.wait())
            await asyncio.wait([taking, stop], return_when=asyncio.FIRST_COMPLETED)
            taking.cancel()
            stop.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taking

    async def _take(self, client: Client) -> None:
        async for received in client.messages():
            with self._changed:
                self.texts.append(received.text)
                self.senders.append(received.from_.uri)
                self.octets.append(received.object.octets)
                self._changed.notify_all()

    def expect(self, text: str) -> None:
        """Wait until ``text`` has arrived."""
        with self._changed:
            there = self._changed.wait_for(lambda: text in self.texts or self._trouble, PATIENCE)
        assert not self._trouble, self._trouble
        assert there, (text, self.texts[-5:])

    def expect_octets(self, octets: bytes, times: int = 1) -> None:
        """Wait until an object of exactly these octets has arrived ``times`` times."""
        with self._changed:
            there = self._changed.wait_for(lambda: self.octets.count(octets) >= times or self._trouble, PATIENCE)
        assert not self._trouble, self._trouble
        assert there, (octets[:500], self.octets[-1:])

    def count(self, octets: bytes) -> int:
        """How often an object of these octets has arrived."""
        with self._changed:
            return self.octets.count(octets)

    def close(self) -> None:
        """Sign out."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What may not change by bad input."""

    at: float
    log: int
    """Octets of the log."""
    descriptors: int
    records: int
    """Rows of the store that are not the canary's."""


class Target:
    """One running server, its canary, and the checks after each row."""

    def __init__(
        self,
        directory: Path,
        limits: str = "",
        people: tuple[str, ...] = (),
        domains: tuple[str, ...] = ("a.test",),
        before: Callable[[Path], None] = lambda data: None,
    ) -> None:
        """``before`` is called with the data directory before the server starts."""
        self.server = ServerProcess(directory, limits, domains)
        for name in ("canary-s", "canary-x", *people):
            address = name if "@" in name else f"{name}@a.test"
            self.server.run("account", "add", address, "--password-stdin", "-c", str(self.server.config), text=PASSWORD)
        before(directory / "home" / "data")
        self.server.start()
        assert self.server.process is not None
        self.pid = self.server.process.pid
        self.canary = Canary(self.server)
        self.canary.start()
        self._addresses = itertools.count(1)

    def close(self) -> None:
        """Stop everything; the server's own end must be an orderly one."""
        self.canary.stop()
        assert self.server.stop() == 0

    def address(self) -> str:
        """A loopback address nobody else calls from; every one in a /24 of its own."""
        number = next(self._addresses)
        return f"127.{1 + number // 250 % 250}.{1 + number % 250}.{2 + number // 62500}"

    def inbox(self, via: Via = "xmpp", address: Address = BOB) -> Inbox:
        """Sign a victim in."""
        return Inbox(self.server, via, address)

    @contextlib.contextmanager
    def row(self, name: str, *, log_lines: int = 1, stores: bool = False) -> Iterator[None]:
        """Around one row of the catalogue: all that has to hold afterwards (reliability.md section 2, "Checked").

        Args:
            name: the row's ID, for the message of a failure.
            log_lines: how many lines it may leave in the log.
            stores: True for rows answered A: the message goes into the store.
        """
        before = self.snapshot()
        yield
        self.check_after(name, before, log_lines=log_lines, stores=stores)

    def check_after(self, name: str, before: Snapshot, *, log_lines: int = 1, stores: bool = False) -> None:
        """See ``row``."""
        assert self.server.process is not None
        assert self.server.process.poll() is None, f"{name}: the server is gone: {self.log()[-2000:]}"
        self.canary.wait_for_round(time.monotonic())
        self._wait_until(lambda: self.descriptors() <= before.descriptors, f"{name}: descriptors stay open")
        assert not self.children(), f"{name}: a child process was started"
        # The minute's count of what earlier rows caused is not this row's (L-12).
        lines = [line for line in self.log()[before.log :].splitlines() if " more times" not in line]
        assert len(lines) <= log_lines, f"{name}: {len(lines)} lines in the log: {lines[:5]}"
        for line in lines:
            assert not _CONTROL.search(line), f"{name}: control characters in the log: {line!r}"
            assert PASSWORD not in line, f"{name}: the password is in the log"
        if not stores:
            assert self.records() == before.records, f"{name}: the store has changed"

    def check_canary(self) -> None:
        """At the end of a module: nobody else was harmed (G4)."""
        assert not self.canary.trouble, self.canary.trouble
        latencies = sorted(sample.latency for sample in self.canary.samples)
        # Of fewer than 100 the slowest one alone is no percentile.
        p99 = latencies[max(0, min(int(len(latencies) * 0.99), len(latencies) - 2))]
        assert p99 <= CANARY_P99, f"canary p99 {p99 * 1000:.0f} ms of {len(latencies)} messages"

    def snapshot(self) -> Snapshot:
        """The state before a row."""
        return Snapshot(time.monotonic(), len(self.log()), self.descriptors(), self.records())

    def log(self) -> str:
        """All the server has logged."""
        return (self.server.directory / "log").read_text("utf-8", errors="surrogateescape")

    def descriptors(self) -> int:
        """Open files, sockets and pipes of the server."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def children(self) -> str:
        """Child processes of the server."""
        return "".join(path.read_text() for path in Path(f"/proc/{self.pid}/task").glob("*/children"))

    def rss(self) -> int:
        """Resident octets of the server."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * _PAGE

    def cpu(self) -> float:
        """Seconds the server has computed, all threads."""
        tasks = Path(f"/proc/{self.pid}/task").glob("*/schedstat")
        return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9

    def records(self) -> int:
        """Rows of the store but the canary's: read only, beside the running server."""
        path = self.server.directory / "data" / DATABASE
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            query = "SELECT count(*) FROM records WHERE lane NOT LIKE '%canary%'"
            return int(database.execute(query).fetchone()[0])

    def _wait_until(self, holds: Callable[[], bool], complaint: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline, complaint
            self.canary.wait_for_round(time.monotonic())


__all__ = ["ALICE", "BOB", "PASSWORD", "Canary", "Inbox", "Sample", "Snapshot", "Target"]

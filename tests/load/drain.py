"""Measure how an outage ends: ``python -m tests.load.drain [MESSAGES [VIA]]``.

Three real ``comity serve``, under TLS with each other. b.test is down; users of a.test write MESSAGES (100,000) objects to 200 people there,
over real connections, each acknowledged. Meanwhile c.test lives: how long a message there takes is measured before anything waits
for b.test, and while everything does. Then b.test comes back, and the time until a.test's queue is empty counts. Order and
completeness are read from b.test's own store, recipient by recipient.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from comity.client import Client, text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.load.measure import cpu_seconds
from tests.paths.kit import ServerProcess, Via
from tests.paths.neighbours import Servers, Way

RECIPIENTS = 200
SENDERS = 8
WINDOW = 64
ALICE, CAROL = Address.im("alice", "a.test"), Address.im("carol", "c.test")
LIMITS = "stored_messages = 100000\npeer_messages = 100000"
PROBES = 200
SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What was measured."""

    messages: int
    queued_in: float
    """Seconds in which they were accepted."""
    drained_in: float
    """Seconds from the moment b.test was ready to the last end at a.test."""
    before: Sequence[float]
    """Milliseconds of messages to the living server while nothing waits for the dead one."""
    meanwhile: Sequence[float]
    cost: tuple[float, float]
    """CPU milliseconds a message at a.test and at b.test."""

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.drained_in

    def __str__(self) -> str:
        before, meanwhile = (
            f"{statistics.median(v):.1f} ms (95 %: {sorted(v)[len(v) * 95 // 100]:.1f})"
            for v in (self.before, self.meanwhile)
        )
        return (
            f"{self.messages} messages to {RECIPIENTS} people, accepted at {self.messages / self.queued_in:.0f}/s, drained in order in "
            f"{self.drained_in:.1f} s: {self.rate:.0f}/s (CPU a message: {self.cost[0]:.2f} ms to send, {self.cost[1]:.2f} ms to take); to the living server {before} before, {meanwhile} beside the dead one's queue"
        )


def people(count: int) -> list[Address]:
    """Who is written to."""
    return [Address.im(f"u{number}", "b.test") for number in range(count)]


async def _probe(sender: Client, carol: Client, count: int) -> list[float]:
    """How long messages to c.test take, from the call to the word that Carol has it."""
    heard = asyncio.ensure_future(_take(carol, count))
    found = []
    for number in range(count):
        began = time.perf_counter()
        answer = await sender.send(text_object(ALICE, CAROL, f"probe {number}"), CAROL)
        assert answer.status is Status.SUCCESS, answer
        found.append((time.perf_counter() - began) * 1000)
    await heard
    return found


async def _take(client: Client, count: int) -> None:
    messages = aiter(client.messages())
    for _ in range(count + 1):  # asking for the next one takes the one before
        asking = asyncio.ensure_future(anext(messages))
        done, _pending = await asyncio.wait((asking,), timeout=5.0)
        if not done:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            return


async def _fill(senders: Sequence[Client], messages: int) -> None:
    """Queue them: each recipient's by one connection, so that their order is that of the numbers."""
    to = people(RECIPIENTS)
    room = [asyncio.Semaphore(WINDOW) for _ in senders]

    async def one(number: int) -> None:
        index = number % RECIPIENTS % len(senders)
        recipient = to[number % RECIPIENTS]
        answer = await senders[index].send(text_object(ALICE, recipient, f"number {number}"), recipient)
        room[index].release()
        assert answer.status is not Status.FAILURE, answer

    tasks: set[asyncio.Task[None]] = set()
    for number in range(messages):
        await room[number % RECIPIENTS % len(senders)].acquire()
        task = asyncio.ensure_future(one(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def _rows(server: ServerProcess, query: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(f"file:{server.directory / 'data' / 'comity.db'}?mode=ro", uri=True) as connection:
        found: list[tuple[object, ...]] = connection.execute(query).fetchall()
    connection.close()
    return found


def waiting(server: ServerProcess) -> int:
    """Messages for b.test that have no end."""
    [(count,)] = _rows(server, "SELECT count(*) FROM records WHERE ended IS NULL AND lane LIKE 'hop/%'")
    assert isinstance(count, int)
    return count


def check(server: ServerProcess, messages: int) -> None:
    """Everything is there, once, in the order of sending, for each recipient."""
    found: dict[str, list[int]] = defaultdict(list)
    for lane, entity in _rows(server, "SELECT lane, entity FROM records WHERE lane LIKE 'inbox/%' ORDER BY number"):
        assert isinstance(lane, str)
        assert isinstance(entity, bytes)
        number = re.search(rb"number (\d+)", entity)
        assert number is not None
        found[lane].append(int(number[1]))
    assert sum(map(len, found.values())) == messages, f"{sum(map(len, found.values()))} of {messages}"
    assert all(numbers == sorted(set(numbers)) for numbers in found.values()), "out of order, or twice"


async def _story(servers: Servers, messages: int) -> Drained:
    a, b, c = (servers[domain] for domain in ("a.test", "b.test", "c.test"))
    async with AsyncExitStack() as stack:
        senders = [await stack.enter_async_context(a.client("xmpp", ALICE, receive=False)) for _ in range(SENDERS)]
        prober = await stack.enter_async_context(a.client("sip", ALICE, "tls", receive=False))
        carol = await stack.enter_async_context(c.client("xmpp", CAROL))
        before = await _probe(prober, carol, PROBES)
        b.kill()
        began = time.monotonic()
        await _fill(senders, messages)
        queued_in = time.monotonic() - began
        meanwhile = await _probe(prober, carol, PROBES)
    b.start()
    began, spent = time.monotonic(), (cpu_seconds(a), cpu_seconds(b))
    a.run("queue", "retry", "-c", str(a.config))
    while left := waiting(a):
        assert time.monotonic() - began < SECONDS, f"{left} wait still"
        await asyncio.sleep(0.25)
    drained_in = time.monotonic() - began
    sent, taken = ((cpu_seconds(one) - before_) * 1000 / messages for one, before_ in zip((a, b), spent, strict=True))
    return Drained(messages, queued_in, drained_in, before, meanwhile, (sent, taken))


def measure(directory: Path, messages: int, via: Via = "sip") -> Drained:
    """The whole of it."""
    home = {"a.test": (ALICE,), "b.test": (), "c.test": (CAROL,)}
    ways = [Way("a.test", "b.test", "b.test", via), Way("a.test", "c.test", "c.test", "sip")]
    ways += [Way(at, "a.test", "a.test", "sip") for at in ("b.test", "c.test")]
    servers = Servers(directory, home, ways, LIMITS)
    _accounts(servers["b.test"], people(RECIPIENTS))
    with servers:
        found = asyncio.run(_story(servers, messages))
        check(servers["b.test"], messages)
    return found


def _accounts(server: ServerProcess, addresses: Sequence[Address]) -> None:
    """Make many at once: the command takes a second for each."""
    from comity.service.credentials import address_key
    from comity.service.interfaces import Put
    from comity.store.sqlite import SqliteStore

    async def make() -> None:
        store = await SqliteStore.open(server.directory / "data", min_free=0)
        await store.commit(
            [Put("account", address_key(address), b'{"created":"2026-01-01T00:00:00Z"}') for address in addresses]
        )
        await store.close()

    asyncio.run(make())


def main(messages: int, via: Via) -> None:
    """Print the figures."""
    with tempfile.TemporaryDirectory() as directory:
        sys.stdout.write(f"{via}: {measure(Path(directory), messages, via)}\n")


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    vias: dict[str, Via] = {"sip": "sip", "xmpp": "xmpp", "apex": "apex"}
    main(count, vias[sys.argv[2] if len(sys.argv) > 2 else "sip"])

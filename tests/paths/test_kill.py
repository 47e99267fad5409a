"""kill -9 of the server at random under load: nothing acknowledged is lost, order is kept (I1, I2, I5, I6, I7; F-K1…F-K9).

Alice is on SIP, Bob on XMPP; both send as fast as they are answered and receive at once. Whoever loses the connection
signs in again and repeats what was not acknowledged, as a real program does. The history below is all that is checked:
what was acknowledged, what arrived, in which order; never the server's database.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field

import pytest

from comity.client import Client, ClientError, text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Response, Status
from tests.paths.conftest import FAST
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

SECONDS = float(os.environ.get("COMITY_KILL_SECONDS", "60"))
DRAIN_SECONDS = 120
WINDOW = {"sip": 1, "xmpp": 32}
#: A "not now" of a server that is going down or up: the same message is tried again.
NOT_NOW = {Reason.OVERLOAD, Reason.INTERNAL, Reason.TIMEOUT, Reason.AWAY}


@dataclass
class Lane:
    """What one person sent to the other, and what arrived of it."""

    sent: list[MimeObject] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    arrived: list[str] = field(default_factory=list)
    """Fingerprints in the order they were taken, repeats included."""
    refused: list[Response] = field(default_factory=list)


@dataclass
class Person:
    """One user who keeps coming back."""

    server: ServerProcess
    via: Via
    address: Address
    peer: Address
    out: Lane
    into: Lane
    stop_sending: asyncio.Event
    done: asyncio.Event
    sessions: int = 0

    async def live(self) -> None:
        """Sign in, send and receive; again whenever the connection is lost."""
        while not self.done.is_set():
            try:
                async with self.server.client(self.via, self.address) as client:
                    self.sessions += 1
                    await self._session(client)
            except ClientError:
                await pause(0.05)

    async def _session(self, client: Client) -> None:
        tasks = {asyncio.ensure_future(work) for work in (self._receive(client), self._send(client), self.done.wait())}
        finished, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not self.done.is_set() and not any(task.exception() for task in finished):
            finished, others = await asyncio.wait(others, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, ClientError):
                raise result

    async def _receive(self, client: Client) -> None:
        async for received in client.messages():
            assert received.from_ == self.peer, "visible sender differs from the authenticated one (I10)"
            if received.report is None:
                self.into.arrived.append(received.object.fingerprint)

    async def _send(self, client: Client) -> None:
        waiting = [k for k in range(len(self.out.sent)) if k not in self.out.acknowledged]
        under_way: list[tuple[int, asyncio.Future[Response]]] = []
        while waiting or under_way or not self.stop_sending.is_set():
            while len(under_way) < WINDOW[self.via] and (waiting or not self.stop_sending.is_set()):
                k = waiting.pop(0) if waiting else self._make()
                under_way.append((k, client.send(self.out.sent[k], self.peer, key=f"{self.via}-{k:06}-{'k' * 8}")))
            if under_way:
                k, future = under_way.pop(0)
                response = await future
                if response.status is not Status.FAILURE:
                    self.out.acknowledged.add(k)
                elif response.reason in NOT_NOW:
                    raise ClientError("not now")
                else:
                    self.out.refused.append(response)

    def _make(self) -> int:
        k = len(self.out.sent)
        self.out.sent.append(text_object(self.address, self.peer, f"{self.via} {k} " + os.urandom(24).hex()))
        return k


async def pause(seconds: float) -> None:
    """The nemesis and a client that waits before it calls again need real time."""
    with_nothing = asyncio.Event()
    try:
        await asyncio.wait_for(with_nothing.wait(), seconds)
    except TimeoutError:
        return


async def kills(server: ServerProcess, plan: random.Random) -> int:
    """SIGKILL every half a second to five, restart at once; how often."""
    loop = asyncio.get_running_loop()
    deadline, count = loop.time() + SECONDS, 0
    while loop.time() < deadline:
        await pause(plan.uniform(0.5, 5.0))
        await asyncio.to_thread(server.kill)
        count += 1
        await asyncio.to_thread(server.start)
    return count


def check(lane: Lane) -> dict[str, int]:
    """The invariants, on the history alone."""
    numbers = {thing.fingerprint: k for k, thing in enumerate(lane.sent)}
    assert not lane.refused, lane.refused[:3]
    unexpected = [fingerprint for fingerprint in lane.arrived if fingerprint not in numbers]
    assert not unexpected, "octets that nobody sent arrived (I2, I7)"
    order = [numbers[fingerprint] for fingerprint in lane.arrived]
    lost = sorted(lane.acknowledged - set(order))
    assert not lost, f"{len(lost)} acknowledged messages lost, first {lost[:5]} (I1)"
    first = list(dict.fromkeys(order))
    assert first == sorted(first), "a later message arrived before an earlier one (I5)"
    return {"sent": len(lane.sent), "acknowledged": len(lane.acknowledged), "repeats": len(order) - len(first)}


async def waiting(server: ServerProcess) -> int:
    """Messages the server still holds."""
    return await asyncio.to_thread(server.waiting)


async def story(server: ServerProcess, seed: int) -> tuple[int, list[Lane]]:
    """Sixty seconds of load and kills, then quiet until everything has arrived."""
    there, back = Lane(), Lane()
    stop_sending, done = asyncio.Event(), asyncio.Event()
    alice = Person(server, "sip", ALICE, BOB, there, back, stop_sending, done)
    bob = Person(server, "xmpp", BOB, ALICE, back, there, stop_sending, done)
    living = [asyncio.ensure_future(person.live()) for person in (alice, bob)]
    count = await kills(server, random.Random(seed))
    stop_sending.set()
    async with asyncio.timeout(DRAIN_SECONDS):
        while any(len(lane.acknowledged) < len(lane.sent) for lane in (there, back)) or await waiting(server):
            assert not any(task.done() for task in living), [task.exception() for task in living if task.done()]
            await pause(0.2)
    done.set()
    await asyncio.gather(*living)
    return count, [there, back]


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_by_kill_9_under_load(tmp_path_factory: pytest.TempPathFactory) -> None:
    seed = int(os.environ.get("COMITY_SEED", random.randrange(2**32)))
    print(f"COMITY_SEED={seed}")
    server = ServerProcess(tmp_path_factory.mktemp("kill"), FAST)
    server.start()
    try:
        count, lanes = asyncio.run(story(server, seed))
    finally:
        server.kill()
    figures = [check(lane) for lane in lanes]
    print(f"{count} kills; SIP->XMPP {figures[0]}; XMPP->SIP {figures[1]}")
    assert count >= SECONDS / 8
    assert all(figure["acknowledged"] >= 20 for figure in figures)

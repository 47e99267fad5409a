"""G-30 with real processes: a server is killed while messages wait for another, and starts again with other routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from comity.client import Received, text_object
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Status
from comity.testing.dns import DnsServer
from tests.paths.kit import ServerProcess, free_ports, take

ALICE = Address.parse("im:alice@a.test")
BOB, CAROL = Address.parse("im:bob@b.test"), Address.parse("im:carol@b.test")
COUNT = 12
"""Messages of each conversation that wait, and again as many sent after the restart."""


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


class Pair:
    """Two servers; the routes of alice's may be written anew."""

    def __init__(self, a: ServerProcess, b: ServerProcess, trust: Path) -> None:
        self.a = a
        self.b = b
        self._texts = {}
        for server in (a, b):
            text = server.config.read_text("utf-8") + f'[tls]\ntrust = "{trust}"\n'
            self._texts[server] = text
            server.config.write_text(text, encoding="utf-8")
        self.dead = free_ports(1)[0]

    def route(self, sections: str) -> None:
        self.a.config.write_text(self._texts[self.a] + sections, encoding="utf-8")

    def to_b(self, via: str) -> str:
        """The route that leads there."""
        port = self.b.port("server" if via == "xmpp" else "apex" if via == "apex" else "sip", "tls")[1]
        return f'[[route]]\ndomain = "b.test"\nvia = "{via}"\nnext_hop = "tls://127.0.0.1:{port}"\n'

    async def wait_for_nobody(self) -> None:
        """Alice writes to two people by a route that leads to a dead port; then her server is killed."""
        self.route(f'[[route]]\ndomain = "b.test"\nvia = "sip"\nnext_hop = "tls://127.0.0.1:{self.dead}"\n')
        await asyncio.to_thread(self.a.start)
        await self.send(range(COUNT))
        await asyncio.to_thread(self.a.kill)

    async def send(self, numbers: range) -> None:
        async with self.a.client("xmpp", ALICE, receive=False) as alice:
            for number in numbers:
                for person in (BOB, CAROL):
                    response = await alice.send(text_object(ALICE, person, f"{number}"), person)
                    assert response.status is Status.INDETERMINANT


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    limits = "user_messages = 1000\nuser_message_burst = 1000\nuser_octets = 100000000"
    with (
        ServerProcess(folder / "a", limits, people=(ALICE,)) as a,
        ServerProcess(folder / "b", limits, ("b.test",), (BOB, CAROL)) as b,
    ):
        trust = folder / "trust.pem"
        trust.write_bytes(a.authority.read_bytes() + b.authority.read_bytes())
        made = Pair(a, b, trust)
        b.start()
        yield made


@asynccontextmanager
async def way(pair: Pair, kind: str) -> AsyncIterator[str]:
    """The section that is written for the second life."""
    if kind != "dns":
        yield pair.to_b(kind)
        return
    port = pair.b.port("apex", "tcp")[1]
    async with DnsServer(f"_apex-mesh._tcp.b.test. 60 IN SRV 0 0 {port} h.test.\nh.test. 60 IN A 127.0.0.1") as names:
        yield (
            f'[federation]\ndns = true\nnetworks = ["127.0.0.0/8"]\nnameservers = ["127.0.0.1:{names.address[1]}"]\n'
        )


def number_of(received: Received) -> int:
    return int(received.object.octets.rpartition(b"\n")[2])


@pytest.mark.parametrize("kind", ["xmpp", "dns"])
def test_what_waited_arrives_by_the_new_way_in_order_and_before_what_came_after(pair: Pair, kind: str) -> None:
    """Every conversation in the order of acceptance, nothing twice, nothing left, whatever the lane was called."""

    async def story() -> None:
        await pair.wait_for_nobody()
        async with way(pair, kind) as sections:
            pair.route(sections)
            await asyncio.to_thread(pair.a.start)
            async with pair.b.client("xmpp", BOB) as bob, pair.b.client("sip", CAROL) as carol:
                await pair.send(range(COUNT, 2 * COUNT))
                for person in (bob, carol):
                    got = await take(person, 2 * COUNT)
                    assert [number_of(received) for received in got] == list(range(2 * COUNT))
                    assert {received.history[0].out_protocol for received in got} == {"apex" if kind == "dns" else kind}
            assert await asyncio.to_thread(pair.a.waiting) == 0
            await asyncio.to_thread(pair.a.stop)

    run(story())


def test_senders_are_told_where_no_way_is_left(pair: Pair) -> None:
    """At the start, not when the lifetime of their messages ends."""

    async def story() -> None:
        await pair.wait_for_nobody()
        pair.route("")
        await asyncio.to_thread(pair.a.start)
        async with pair.a.client("xmpp", ALICE) as alice:
            reports = [received.report for received in await take(alice, 2 * COUNT)]
        assert {report.reason for report in reports if report} == {Reason.NO_ROUTE}
        assert await asyncio.to_thread(pair.a.waiting) == 0
        await asyncio.to_thread(pair.a.stop)

    run(story())

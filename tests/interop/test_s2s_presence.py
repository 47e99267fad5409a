"""Presence between Comity and stock XMPP servers, with approval, both ways (RFC 6121 sections 3 and 4; GW-13 to GW-15, N-07)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from comity.client import Client, Standing
from comity.client.presence import Seen
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.cpim.presence_state import Availability
from tests.interop.authority import Authority
from tests.interop.test_s2s_peers import JULIET, Pair, federated
from tests.interop.xmpp_servers import EjabberdServer, Names, ProsodyServer, StockServer
from tests.paths.kit import ALICE, ServerProcess, Via
from tests.paths.test_presence_abroad import asked, parted, run, until, watching

VIAS: list[Via] = ["sip", "xmpp"]
OWNERS: list[Via] = ["sip", "xmpp", "apex"]


@pytest.fixture(scope="module", params=[ProsodyServer, EjabberdServer], ids=["prosody", "ejabberd"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("presence")
    kind: type[StockServer] = request.param
    with ExitStack() as stack:
        names = stack.enter_context(Names())
        authority = Authority(folder / "authority")
        server = stack.enter_context(ServerProcess(folder, "presence_interval = 0.1"))
        federated(server, names, authority)
        stock = kind(
            folder / "stock", "peer.test", names, authority, trust=(server.authority,), accounts=("juliet", "romeo")
        )
        stack.enter_context(stock)
        server.start()
        yield Pair(server, stock)


@dataclass(frozen=True, slots=True)
class Two:
    """Ours, somebody of the stock server, and where each of them signs in."""

    comity: ServerProcess
    stock: StockServer
    alice: Address
    juliet: Address

    def ours(self, via: Via = "xmpp", *, receive: bool = True) -> Client:
        return self.comity.client(via, self.alice, receive=receive)

    def theirs(self) -> Client:
        return self.stock.client(self.juliet.local)

    async def part(self) -> None:
        """Nothing is between the two, whatever was before: each story begins there."""
        async with self.ours(receive=False) as alice, self.theirs() as juliet:
            for one, other in ((alice, self.juliet), (juliet, self.alice)):
                await one.refuse(other)
                await one.remove_contact(other)
            for one, other in ((alice, self.juliet), (juliet, self.alice)):
                await parted(one, other)

    async def ours_see_theirs(self, via: Via) -> None:
        """A user of a stock server is asked, says yes, is seen in each state, and takes it back."""
        await self.part()
        async with self.ours(via) as alice, self.theirs() as juliet:
            await juliet.publish(Availability.AWAY, "in Verona")
            async with watching(alice, self.juliet) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                await asked(juliet, self.alice)
                assert (await juliet.allow(self.alice)).status is Status.SUCCESS
                assert (await until(changes, Availability.AWAY)).note == "in Verona"
                await juliet.publish(Availability.DND, "asleep")
                assert (await until(changes, Availability.DND)).note == "asleep"
                await juliet.unpublish()
                await until(changes, Availability.OFFLINE)
                await juliet.publish(Availability.AVAILABLE)
                await until(changes, Availability.AVAILABLE)
                assert (await juliet.refuse(self.alice)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)

    async def theirs_see_ours(self, via: Via) -> None:
        """The other way round, whatever our user publishes by; a probe of theirs is answered at their next sign-in."""
        await self.part()
        async with self.ours(via) as alice:
            await alice.publish(Availability.AWAY, "at work")
            async with self.theirs() as juliet, watching(juliet, self.alice) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                async with self.ours(receive=False) as desk:
                    await asked(desk, self.juliet)
                    assert (await desk.allow(self.juliet)).status is Status.SUCCESS
                assert (await until(changes, Availability.AWAY)).note == "at work"
            await alice.publish(Availability.DND, "meanwhile")
            async with self.theirs() as juliet, watching(juliet, self.alice) as changes:
                assert (await until(changes, Availability.DND)).note == "meanwhile"
                await alice.unpublish()
                await until(changes, Availability.OFFLINE)
                async with self.ours(receive=False) as desk:
                    assert (await desk.refuse(self.juliet)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)


@pytest.fixture
def two(pair: Pair) -> Two:
    return Two(pair.comity, pair.stock, ALICE, JULIET)


@pytest.mark.parametrize("via", VIAS)
def test_ours_ask_theirs_and_see_them(two: Two, via: Via) -> None:
    run(two.ours_see_theirs(via))


@pytest.mark.parametrize("via", OWNERS)
def test_theirs_ask_ours_and_see_them(two: Two, via: Via) -> None:
    run(two.theirs_see_ours(via))


def test_who_is_refused_stays_blind_and_who_lets_go_is_forgotten(pair: Pair, two: Two) -> None:
    """``unsubscribed`` while it waits, ``unsubscribe`` by them: both lists agree afterwards."""

    async def story() -> None:
        await two.part()
        async with pair.comity.client("xmpp", ALICE) as alice, pair.stock.client("juliet") as juliet:
            await alice.publish(Availability.AVAILABLE)
            async with watching(juliet, ALICE) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                await asked(alice, JULIET)
                assert (await alice.refuse(JULIET)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)
            await alice.allow(JULIET)
            async with watching(juliet, ALICE) as changes:
                await until(changes, Availability.AVAILABLE)
            await juliet.remove_contact(ALICE)
            await parted(alice, JULIET)

    run(story())


def test_either_server_is_killed_and_everybody_is_seen_again(pair: Pair, two: Two) -> None:
    """Relations outlive kill -9 of ours and of theirs; nobody who is gone stays present."""

    async def story() -> None:
        await two.part()
        async with pair.stock.client("juliet") as juliet, pair.comity.client("xmpp", ALICE, receive=False) as desk:
            await juliet.allow(ALICE)
            await juliet.publish(Availability.AWAY, "before")
            async with watching(desk, JULIET) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                await until_allowed(juliet, changes)
        async with pair.comity.client("sip", ALICE) as alice, watching(alice, JULIET) as changes:
            async with pair.stock.client("juliet") as juliet:
                await juliet.publish(Availability.DND, "first")
                await until(changes, Availability.DND)
                pair.comity.kill()
                await asyncio.to_thread(pair.comity.start)
                await until(changes, Availability.DND)
                pair.stock.stop(is_crash=True)
            await asyncio.to_thread(pair.stock.start)
            await until(changes, Availability.OFFLINE)
            async with pair.stock.client("juliet") as juliet:
                await juliet.publish(Availability.AVAILABLE)
                await until(changes, Availability.AVAILABLE)

    run(story())


async def until_allowed(juliet: Client, changes: AsyncIterator[Seen]) -> None:
    """Servers without pre-approval put the request to their user all the same."""
    seeing = asyncio.ensure_future(until(changes, Availability.AWAY))
    while not seeing.done():
        if any(one.address == ALICE for one in await juliet.requests()):
            await juliet.allow(ALICE)
        await asyncio.sleep(0)
    await seeing

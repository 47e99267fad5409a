"""Presence between Comity and stock XMPP servers, with approval, both ways (RFC 6121 sections 3 and 4; GW-13 to GW-15, N-07)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client import Client, Standing
from comity.client.presence import Seen
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


async def strangers(pair: Pair) -> None:
    """Nothing is between the two, whatever was before: each story begins there."""
    async with pair.comity.client("xmpp", ALICE, receive=False) as alice, pair.stock.client("juliet") as juliet:
        for one, other in ((alice, JULIET), (juliet, ALICE)):
            await one.refuse(other)
            await one.remove_contact(other)
        for one, other in ((alice, JULIET), (juliet, ALICE)):
            await parted(one, other)


@pytest.mark.parametrize("via", VIAS)
def test_ours_ask_theirs_and_see_them(pair: Pair, via: Via) -> None:
    """A user of a stock server is asked, says yes, is seen in each state, and takes it back."""

    async def story() -> None:
        await strangers(pair)
        async with pair.comity.client(via, ALICE) as alice, pair.stock.client("juliet") as juliet:
            await juliet.publish(Availability.AWAY, "in Verona")
            async with watching(alice, JULIET) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                await asked(juliet, ALICE)
                assert (await juliet.allow(ALICE)).status is Status.SUCCESS
                assert (await until(changes, Availability.AWAY)).note == "in Verona"
                await juliet.publish(Availability.DND, "asleep")
                assert (await until(changes, Availability.DND)).note == "asleep"
                await juliet.unpublish()
                await until(changes, Availability.OFFLINE)
                await juliet.publish(Availability.AVAILABLE)
                await until(changes, Availability.AVAILABLE)
                assert (await juliet.refuse(ALICE)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)

    run(story())


@pytest.mark.parametrize("via", OWNERS)
def test_theirs_ask_ours_and_see_them(pair: Pair, via: Via) -> None:
    """The other way round, whatever our user publishes by; a probe of theirs is answered at their next sign-in."""

    async def story() -> None:
        await strangers(pair)
        async with pair.comity.client(via, ALICE) as alice:
            await alice.publish(Availability.AWAY, "at work")
            async with pair.stock.client("juliet") as juliet, watching(juliet, ALICE) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                async with pair.comity.client("xmpp", ALICE, receive=False) as desk:
                    await asked(desk, JULIET)
                    assert (await desk.allow(JULIET)).status is Status.SUCCESS
                assert (await until(changes, Availability.AWAY)).note == "at work"
            await alice.publish(Availability.DND, "meanwhile")
            async with pair.stock.client("juliet") as juliet, watching(juliet, ALICE) as changes:
                assert (await until(changes, Availability.DND)).note == "meanwhile"
                await alice.unpublish()
                await until(changes, Availability.OFFLINE)
                async with pair.comity.client("xmpp", ALICE, receive=False) as desk:
                    assert (await desk.refuse(JULIET)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)

    run(story())


def test_who_is_refused_stays_blind_and_who_lets_go_is_forgotten(pair: Pair) -> None:
    """``unsubscribed`` while it waits, ``unsubscribe`` by them: both lists agree afterwards."""

    async def story() -> None:
        await strangers(pair)
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


def test_either_server_is_killed_and_everybody_is_seen_again(pair: Pair) -> None:
    """Relations outlive kill -9 of ours and of theirs; nobody who is gone stays present."""

    async def story() -> None:
        await strangers(pair)
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

"""Two real servers and presence between them: asked, waited for, granted, seen, refused, let go, blocked, killed (GW-13 to GW-16, SEC-31)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterator
from typing import Any

import pytest

from comity.client import Client, Contact, Standing
from comity.client.presence import Seen
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.cpim.presence_state import Availability
from tests.paths.kit import ServerProcess, Via
from tests.paths.neighbours import ALICE, BOB, Neighbours

PATIENCE = 40.0
WATCHERS: list[Via] = ["sip", "xmpp"]
OWNERS: list[Via] = ["sip", "xmpp", "apex"]
PAIRS = [(watchers, owners) for watchers in WATCHERS for owners in OWNERS]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 3 * PATIENCE))


def neighbours(directory: Any) -> Neighbours:
    return Neighbours(directory, "xmpp", "tcp", limits="presence_interval = 0.1")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with neighbours(tmp_path_factory.mktemp("servers")) as servers:
        yield servers


@contextlib.asynccontextmanager
async def watching(client: Client, whom: Address) -> AsyncIterator[AsyncIterator[Seen]]:
    async with contextlib.aclosing(client.watch(whom)) as changes:
        yield changes


async def until(changes: AsyncIterator[Seen], *wanted: Availability | Standing) -> Seen:
    """What comes next of one of these."""
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.standing in wanted or (seen.standing is Standing.ACTIVE and seen.availability in wanted):
                return seen
    raise AssertionError(f"it ended without {wanted}")


async def asked(client: Client, whom: Address) -> Contact:
    """The request of that person, when it has come."""
    async with asyncio.timeout(PATIENCE):
        while True:
            for request in await client.requests():
                if request.address == whom:
                    return request


async def contact(client: Client, whom: Address) -> Contact | None:
    return next((one for one in await client.contacts() if one.address == whom), None)


def forget(server: ServerProcess, account: Address, other: Address) -> None:
    """As if the two had never met, on this side."""

    async def story() -> None:
        async with server.client("xmpp", account, receive=False) as client:
            await client.unblock(other)
            await client.refuse(other)
            await client.remove_contact(other)

    run(story())


@pytest.mark.parametrize(("watchers", "owners"), PAIRS)
def test_asked_waited_granted_seen_and_taken_back(both: Neighbours, watchers: Via, owners: Via) -> None:
    """The whole of it, for every pair of protocols: nothing is seen before the yes (GW-14), each state after it, none after the no."""

    async def story() -> None:
        async with both.a.client(watchers, ALICE) as alice, both.b.client(owners, BOB) as bob:
            await bob.publish(Availability.AWAY, "in a meeting")
            async with watching(alice, BOB) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                async with both.b.client("xmpp", BOB, receive=False) as desk:
                    await asked(desk, ALICE)
                    assert (await desk.allow(ALICE)).status is Status.SUCCESS
                assert (await until(changes, Availability.AWAY)).note == "in a meeting"
                await bob.publish(Availability.DND, "busy")
                assert (await until(changes, Availability.DND)).note == "busy"
                await bob.unpublish()
                await until(changes, Availability.OFFLINE)
                await bob.publish(Availability.AVAILABLE)
                await until(changes, Availability.AVAILABLE)
                async with both.b.client("xmpp", BOB, receive=False) as desk:
                    assert (await desk.refuse(ALICE)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)

    run(story())
    forget(both.a, ALICE, BOB)
    forget(both.b, BOB, ALICE)

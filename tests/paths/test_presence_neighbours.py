"""Presence between two servers of ours that speak SIP with each other under TLS: whoever watches whom, by whatever protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from comity.client import Client, Seen
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.cpim.presence_state import Availability
from tests.loop import in_loop
from tests.paths.kit import Via
from tests.paths.neighbours import ALICE, BOB, Neighbours

PATIENCE = 60.0
AWAY, DND = Availability.AWAY, Availability.DND


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with Neighbours(tmp_path_factory.mktemp("neighbours")) as both:
        yield both


@contextlib.asynccontextmanager
async def watching(client: Client, whom: Address) -> AsyncIterator[AsyncIterator[Seen]]:
    async with contextlib.aclosing(client.watch(whom)) as changes:
        yield changes


async def until(changes: AsyncIterator[Seen], availability: Availability, note: str = "") -> Seen:
    """What is seen next of that state and note."""
    seen = None
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.availability is availability and seen.note == note:
                return seen
    raise AssertionError(f"it ended without {availability}: {seen}")


@pytest.mark.parametrize(("watcher", "presentity"), [("xmpp", "apex"), ("sip", "xmpp")])
@in_loop
async def test_a_person_is_seen_from_the_other_server(neighbours: Neighbours, watcher: Via, presentity: Via) -> None:
    """GW-3, GW-14: what was allowed holds for every protocol she looks by, and every one that he speaks by is seen."""
    async with neighbours.b.client("xmpp", BOB, receive=False) as program:
        assert (await program.allow(ALICE)).status is Status.SUCCESS
    async with (
        neighbours.a.client(watcher, ALICE, receive=False) as alice,
        neighbours.b.client(presentity, BOB, receive=False) as bob,
        watching(alice, BOB) as changes,
    ):
        note = f"by {presentity}"
        assert (await bob.publish(AWAY, note)).status is Status.SUCCESS
        await until(changes, AWAY, note)
        assert (await bob.publish(DND, note)).status is Status.SUCCESS
        await until(changes, DND, note)


@in_loop
async def test_it_is_seen_again_after_the_other_server_was_killed(neighbours: Neighbours) -> None:
    """kill -9: what is durable is who may see whom and who watches; how people are is said again by their programs."""
    async with neighbours.a.client("xmpp", ALICE) as alice, neighbours.b.client("xmpp", BOB) as bob:
        assert (await bob.allow(ALICE)).status is Status.SUCCESS
        await bob.publish(AWAY, "before")
        async with watching(alice, BOB) as changes:
            await until(changes, AWAY, "before")
            neighbours.b.kill()
            neighbours.b.start()
            assert (await bob.publish(DND, "after")).status is Status.SUCCESS
            await until(changes, DND, "after")

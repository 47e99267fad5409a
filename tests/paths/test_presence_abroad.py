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

PATIENCE = 60.0
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
            await asyncio.sleep(0)  # what comes in meanwhile is the request


async def contact(client: Client, whom: Address) -> Contact | None:
    return next((one for one in await client.contacts() if one.address == whom), None)


async def parted(client: Client, whom: Address) -> None:
    """Wait until the contact list says that neither sees the other."""
    async with asyncio.timeout(PATIENCE):
        while True:
            left = await contact(client, whom)
            if left is None or not (left.sees or left.asks or left.is_seen):
                return
            await asyncio.sleep(0)  # what comes in meanwhile changes the list


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


@pytest.mark.parametrize("watchers", WATCHERS)
def test_a_refusal_and_a_block_end_it_and_say_nothing_more(both: Neighbours, watchers: Via) -> None:
    """ACL-12, XEP-0191: refused while it waits, then granted before it is asked (RFC 6121 section 3.4), then blocked with the domain."""

    async def story() -> None:
        async with both.a.client(watchers, ALICE) as alice, both.b.client("xmpp", BOB) as bob:
            await bob.publish(Availability.AWAY, "here")
            async with watching(alice, BOB) as changes:
                assert (await anext(changes)).standing is Standing.PENDING
                await asked(bob, ALICE)
                assert (await bob.refuse(ALICE)).status is Status.SUCCESS
                await until(changes, Standing.REFUSED, Standing.ENDED)
            assert (await bob.allow(ALICE)).status is Status.SUCCESS
            async with watching(alice, BOB) as changes:
                await until(changes, Availability.AWAY)
                assert (await bob.block(ALICE)).status is Status.SUCCESS
                await until(changes, Availability.OFFLINE)
                await bob.publish(Availability.DND)
                assert (await bob.unblock(ALICE)).status is Status.SUCCESS
                await until(changes, Availability.DND)

    run(story())
    forget(both.a, ALICE, BOB)
    forget(both.b, BOB, ALICE)


def test_who_takes_a_contact_out_of_the_list_is_let_go_at_the_other_side(both: Neighbours) -> None:
    """RFC 6121 section 2.5.2: the far list says so too, and what was shown is gone."""

    async def story() -> None:
        async with both.a.client("xmpp", ALICE) as alice, both.b.client("xmpp", BOB) as bob:
            await alice.publish(Availability.AVAILABLE)
            await bob.publish(Availability.AWAY)
            async with watching(alice, BOB) as of_bob, watching(bob, ALICE) as of_alice:
                assert [(await anext(one)).standing for one in (of_bob, of_alice)] == [Standing.PENDING] * 2
                await asked(bob, ALICE)
                await bob.allow(ALICE)
                await asked(alice, BOB)
                await alice.allow(BOB)
                await until(of_bob, Availability.AWAY)
                await until(of_alice, Availability.AVAILABLE)
                both_ways = await contact(alice, BOB)
                assert both_ways is not None
                assert (both_ways.sees, both_ways.is_seen) == (True, True)
                assert (await alice.remove_contact(BOB)).status is Status.SUCCESS
                await until(of_alice, Availability.OFFLINE, Standing.REFUSED, Standing.ENDED)
            await parted(bob, ALICE)

    run(story())
    forget(both.a, ALICE, BOB)
    forget(both.b, BOB, ALICE)


def test_a_watcher_who_comes_back_is_shown_how_things_are_and_one_who_leaves_is_missed(both: Neighbours) -> None:
    """RFC 6121 sections 4.2.1, 4.3, 4.5: probes at the start, unavailable at the end."""

    async def story() -> None:
        async with both.b.client("xmpp", BOB) as bob:
            await bob.allow(ALICE)
            async with both.a.client("xmpp", ALICE) as alice, watching(alice, BOB) as changes:
                await bob.publish(Availability.AWAY, "first")
                await until(changes, Availability.AWAY)
            await bob.publish(Availability.DND, "meanwhile")
            async with both.a.client("xmpp", ALICE) as alice, watching(alice, BOB) as changes:
                assert (await until(changes, Availability.DND)).note == "meanwhile"
                await bob.close()
                await until(changes, Availability.OFFLINE)

    run(story())
    forget(both.a, ALICE, BOB)
    forget(both.b, BOB, ALICE)


def test_relations_outlive_kill_9_of_either_server(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ "Approvals survive restarts": asked while the other is down, granted while the asker's is, seen after both were killed; who does
    not come back is seen closed (N-17)."""

    async def story(servers: Neighbours) -> None:
        servers.b.kill()
        async with servers.a.client("xmpp", ALICE, receive=False) as alice:
            assert (await alice.ask(BOB, "may I?")).status is Status.SUCCESS
        servers.a.kill()
        await asyncio.to_thread(servers.a.start)
        await asyncio.to_thread(servers.b.start)
        async with servers.b.client("xmpp", BOB, receive=False) as bob:
            assert (await asked(bob, ALICE)).text == "may I?"
            servers.a.kill()
            assert (await bob.allow(ALICE)).status is Status.SUCCESS
        servers.b.kill()
        await asyncio.to_thread(servers.b.start)
        await asyncio.to_thread(servers.a.start)
        async with servers.b.client("xmpp", BOB, patience=0) as bob:
            await bob.publish(Availability.AWAY, "back")
            async with servers.a.client("sip", ALICE) as alice, watching(alice, BOB) as changes:
                await until(changes, Availability.AWAY)
                servers.b.kill()
                await asyncio.to_thread(servers.b.start)
                await until(changes, Availability.OFFLINE)
                servers.a.kill()
                await asyncio.to_thread(servers.a.start)
                async with servers.b.client("xmpp", BOB) as again:
                    await again.publish(Availability.DND, "again")
                    await until(changes, Availability.DND)

    with neighbours(tmp_path_factory.mktemp("killed")) as servers:
        run(story(servers))

"""Our clients at presence servers of others: Kamailio (RFC 3856, 3903) and Prosody (RFC 6121)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from functools import wraps
from pathlib import Path
from typing import Literal, ParamSpec

import pytest

from comity.client import Client, ClientError, Contact, NotPossible, Seen, Standing, connect
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Status
from comity.cpim.presence import BasicStatus, PresenceDocument
from comity.cpim.presence_state import Availability
from tests.interop.presence_servers import DOMAIN, PASSWORD, Kamailio, Prosody

P = ParamSpec("P")
PATIENCE = 30.0


def person(name: str) -> Address:
    return Address.parse(f"im:{name}@{DOMAIN}")


ALICE, BOB = person("alice"), person("bob")


def story(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * PATIENCE))

    return wrapper


@contextlib.asynccontextmanager
async def watching(client: Client, whom: Address, *, is_once: bool = False) -> AsyncIterator[AsyncIterator[Seen]]:
    async with contextlib.aclosing(client.watch(whom, is_once=is_once)) as changes:
        yield changes


async def until(changes: AsyncIterator[Seen], availability: Availability) -> Seen:
    """What is seen next of that state; a server may tell a state twice on the way to it."""
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.availability is availability:
                return seen
    raise AssertionError(f"it ended without {availability}")


# --- SIP: Kamailio ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kamailio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kamailio]:
    """Everybody may see everybody."""
    server = Kamailio(tmp_path_factory.mktemp("kamailio"))
    server.start()
    yield server
    server.stop()


Wire = Literal["udp", "tcp"]


def by_sip(server: Kamailio, who: Address, wire: Wire = "tcp") -> Client:
    return connect("sip", who, PASSWORD, server=("127.0.0.1", server.port), transport=wire, receive=False)


@pytest.mark.parametrize("wire", ["udp", "tcp"])
@story
async def test_by_sip_changes_are_seen_and_the_publication_ends_with_the_client(kamailio: Kamailio, wire: Wire) -> None:
    """SIP-20, SIP-30, GW-14: the first NOTIFY is empty, which means closed."""
    async with by_sip(kamailio, ALICE, wire) as alice, watching(alice, BOB) as changes:
        first = await anext(changes)
        assert (first.standing, first.availability, first.object) == (Standing.ACTIVE, Availability.OFFLINE, None)
        async with by_sip(kamailio, BOB, wire) as bob:
            for state, note in ((Availability.AVAILABLE, ""), (Availability.AWAY, "Mittag"), (Availability.DND, "…")):
                assert (await bob.publish(state, note)).status is Status.SUCCESS
                seen = await until(changes, state)
                assert (seen.who, seen.note) == (BOB.with_scheme("pres"), note)
                assert seen.object is not None
                assert PresenceDocument.of(seen.object).is_about(BOB)
        await until(changes, Availability.OFFLINE)


@story
async def test_by_sip_what_is_published_with_a_lease_stays_behind(kamailio: Kamailio) -> None:
    who = person("carol")
    async with by_sip(kamailio, who) as carol:
        assert (await carol.publish(Availability.AWAY, "left behind", lease=120)).status is Status.SUCCESS
    async with by_sip(kamailio, ALICE) as alice, watching(alice, who) as changes:
        assert (await until(changes, Availability.AWAY)).note == "left behind"


@story
async def test_by_sip_two_devices_are_two_tuples(kamailio: Kamailio) -> None:
    """Kamailio joins what they publish, with or without the person of the first, as its order has it; ours reads both."""
    who = person("dora")
    async with by_sip(kamailio, who) as phone, by_sip(kamailio, who) as laptop, by_sip(kamailio, ALICE) as alice:
        await phone.publish(Availability.DND)
        await laptop.publish(Availability.AVAILABLE)
        async with watching(alice, who) as changes, asyncio.timeout(PATIENCE):
            seen = await anext(changes)
            assert seen.document is not None
            assert [one.basic_status for one in seen.document.tuples] == [BasicStatus.OPEN, BasicStatus.OPEN]
            await phone.unpublish()
            assert (await until(changes, Availability.AVAILABLE)).document is not None


@story
async def test_by_sip_a_fetch_ends_with_its_answer(kamailio: Kamailio) -> None:
    """OPS-26."""
    who = person("emil")
    async with by_sip(kamailio, who) as emil, by_sip(kamailio, ALICE) as alice:
        await emil.publish(Availability.DND, "busy")
        async with watching(alice, who, is_once=True) as changes, asyncio.timeout(PATIENCE):
            assert [seen.availability async for seen in changes] == [Availability.DND]


@story
async def test_by_sip_a_wrong_password_is_refused(kamailio: Kamailio) -> None:
    client = connect("sip", ALICE, "wrong", server=("127.0.0.1", kamailio.port), transport="tcp", receive=False)
    async with client, watching(client, BOB) as changes, asyncio.timeout(PATIENCE):
        seen = [seen async for seen in changes]
        assert [one.standing for one in seen] == [Standing.ENDED]
        assert seen[0].reason[:3] in ("401", "407")
        refused = await client.publish(Availability.AWAY)
        assert refused.reason is Reason.DENIED


@story
async def test_by_sip_423_is_answered_with_what_the_server_takes(tmp_path: Path) -> None:
    """Kamailio takes nothing under two hours here: SUBSCRIBE and PUBLISH are sent again with its Min-Expires (SIP-18, GW-13)."""
    server = Kamailio(tmp_path, least=7200)
    server.start()
    try:
        async with by_sip(server, ALICE) as alice, by_sip(server, BOB) as bob, watching(alice, BOB) as changes:
            await until(changes, Availability.OFFLINE)
            assert (await bob.publish(Availability.AWAY)).status is Status.SUCCESS
            await until(changes, Availability.AWAY)
    finally:
        server.stop()


@story
async def test_by_sip_the_contact_list_is_not_to_be_had(kamailio: Kamailio) -> None:
    async with by_sip(kamailio, ALICE) as alice:
        for asked in (alice.contacts(), alice.allow(BOB), alice.block(BOB), alice.put_contact(BOB), alice.ask(BOB)):
            with pytest.raises(NotPossible, match=r"XMPP|watch"):
                await asked


# --- XMPP: Prosody ------------------------------------------------------------------------------------------------


@pytest.fixture
def prosody(tmp_path: Path) -> Iterator[Prosody]:
    """With the accounts alice and bob; a new one for each test, because contact lists stay."""
    server = Prosody(tmp_path, "alice", "bob")
    server.start()
    yield server
    server.stop()


def by_xmpp(server: Prosody, who: Address, *, receive: bool = True) -> Client:
    address = ("127.0.0.1", server.port)
    return connect("xmpp", who, PASSWORD, server=address, allow_plaintext=True, receive=receive)


async def requests(client: Client) -> Sequence[Contact]:
    """Who asks, once somebody does; each look is an exchange with the server."""
    async with asyncio.timeout(PATIENCE):
        while True:
            if found := await client.requests():
                return found


async def present_state(server: Prosody) -> Availability:
    """What alice sees of bob when she looks once."""
    async with by_xmpp(server, ALICE, receive=False) as alice, watching(alice, BOB, is_once=True) as changes:
        async with asyncio.timeout(PATIENCE):
            (seen,) = [seen async for seen in changes]
    return seen.availability


@story
async def test_by_xmpp_asked_allowed_seen_refused(prosody: Prosody) -> None:
    async with by_xmpp(prosody, ALICE) as alice, by_xmpp(prosody, BOB) as bob, watching(alice, BOB) as changes:
        assert (await anext(changes)).standing is Standing.PENDING
        assert [one.address for one in await requests(bob)] == [ALICE]
        await bob.publish(Availability.AWAY, "Mittag")
        assert (await bob.allow(ALICE)).status is Status.SUCCESS
        assert (await until(changes, Availability.AWAY)).note == "Mittag"
        await bob.publish(Availability.DND)
        await until(changes, Availability.DND)
        (item,) = await alice.contacts()
        assert (item.address, item.sees, item.is_seen) == (BOB, True, False)
        (item,) = await bob.contacts()
        assert (item.address, item.sees, item.is_seen) == (ALICE, False, True)
        assert await bob.requests() == []
        await bob.refuse(ALICE)
        async with asyncio.timeout(PATIENCE):
            last = [seen async for seen in changes][-1]
        assert last.standing is Standing.REFUSED


@story
async def test_by_xmpp_a_watcher_that_comes_later_sees_the_present_state(prosody: Prosody) -> None:
    """Allowed before she asked (RFC 6121 section 3.4), so nobody has to answer."""
    async with by_xmpp(prosody, BOB) as bob:
        await bob.allow(ALICE)
        async with by_xmpp(prosody, ALICE) as alice, watching(alice, BOB) as changes:
            assert (await anext(changes)).standing is Standing.PENDING
            await until(changes, Availability.AVAILABLE)
        assert await present_state(prosody) is Availability.AVAILABLE
    assert await present_state(prosody) is Availability.OFFLINE


@story
async def test_by_xmpp_names_groups_blocking_and_removal(prosody: Prosody) -> None:
    async with by_xmpp(prosody, ALICE, receive=False) as alice:
        assert await alice.contacts() == []
        assert (await alice.put_contact(BOB, "Bob", ["Friends"])).status is Status.SUCCESS
        (item,) = await alice.contacts()
        assert (item.name, item.groups) == ("Bob", ("Friends",))
        assert (await alice.block(BOB)).status is Status.SUCCESS
        assert await alice.blocked() == [BOB]
        assert (await alice.unblock(BOB)).status is Status.SUCCESS
        assert await alice.blocked() == []
        assert (await alice.remove_contact(BOB)).status is Status.SUCCESS
        assert await alice.contacts() == []
        assert (await alice.remove_contact(BOB)).reason is not None


@story
async def test_by_xmpp_a_restart_of_the_server_is_survived(prosody: Prosody) -> None:
    """The stream cannot be resumed: everything is told again, and what is over is seen to be over."""
    async with by_xmpp(prosody, BOB) as bob, by_xmpp(prosody, ALICE) as alice, watching(alice, BOB) as changes:
        await anext(changes)
        await requests(bob)
        await bob.allow(ALICE)
        await until(changes, Availability.AVAILABLE)
        await bob.publish(Availability.AWAY, "before")
        await until(changes, Availability.AWAY)
        prosody.stop(is_crash=True)
        prosody.start()
        await bob.publish(Availability.DND, "after")
        assert (await until(changes, Availability.DND)).note == "after"


@story
async def test_by_xmpp_there_is_no_lease(prosody: Prosody) -> None:
    async with by_xmpp(prosody, ALICE) as alice:
        with pytest.raises(NotPossible, match="ends with the connection"):
            await alice.publish(Availability.AWAY, lease=60)


@story
async def test_by_xmpp_a_server_that_is_gone_ends_the_watch(prosody: Prosody) -> None:
    async with (
        connect("xmpp", ALICE, PASSWORD, server=("127.0.0.1", prosody.port), allow_plaintext=True, patience=0) as alice,
        watching(alice, BOB) as changes,
    ):
        await anext(changes)
        prosody.stop(is_crash=True)
        with pytest.raises(ClientError):
            async with asyncio.timeout(PATIENCE):
                await anext(changes)

"""The services behind the whole relay: applications that sign in, attach and ask them (APEX-12, APEX-21, APEX-23, APEX-25)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from comity.bindings.apex.elements import (
    AccessEntry,
    Allow,
    Data,
    Deny,
    Error,
    Get,
    Inline,
    Ok,
    Originator,
    Part,
    Query,
    Recipient,
    Reply,
    ServiceElement,
    Set,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.service_wire import read_service, write_service
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response
from comity.cpim.presence_rules import SubHandling
from comity.service.interfaces import Accepted, Origin
from tests.bindings.apex.world import Application, World

ALICE, BOB = Endpoint.parse("alice@a.test"), Endpoint.parse("bob@a.test")
ACCESS = Endpoint.service("access", "a.test")


def in_world(*, presence: bool) -> Callable[[Callable[[World], Awaitable[None]]], Callable[[], None]]:
    """A test in a world of its own."""

    def decorate(work: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
        def test() -> None:
            async def main() -> None:
                await work(await World(presence=presence).start())

            asyncio.run(main())

        test.__name__, test.__doc__ = work.__name__, work.__doc__
        return test

    return decorate


async def ask(application: Application, originator: Endpoint, element: ServiceElement) -> list[ServiceElement]:
    """Data for the access service; what it said on that, as the application got it."""
    before = len(application.data)
    data = Data(Originator(originator), (Recipient(ACCESS),), Inline(write_service(element)))
    assert await application.say(min(application.session.channels), data) == Ok()
    return heard(application, before)


def heard(application: Application, before: int = 0) -> list[ServiceElement]:
    found = []
    for data in application.data[before:]:
        assert isinstance(data.content, Inline)
        assert data.originator.identity == ACCESS
        found.append(read_service(data.content))
    return found


@in_world(presence=True)
async def test_an_application_sets_an_entry_and_its_owner_is_told(world: World) -> None:
    """APEX-23: get, set, query; each answered by data from ``apex=access``."""
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    assert await ask(bob, BOB, Get(ALICE, "*@*", 1)) == [Reply(537, 1, "The owner does not permit that.", "en")]
    (got,) = await ask(alice, ALICE, Get(ALICE, "*@*", 2))
    assert got == Set(2, AccessEntry(ALICE, "*@*", ("core:data",)))
    done, told = await ask(alice, ALICE, Set(3, AccessEntry(ALICE, "bob@a.test", ("core:data", "access:all"))))
    assert done == Reply(250, 3)
    assert isinstance(told, Set)
    assert (told.trans_id, told.access.actions) == (3, ("core:data", "access:all"))
    assert await ask(bob, BOB, Query(ALICE, BOB, ("core:data",), 4)) == [Allow(4)]
    assert await ask(bob, BOB, Query(ALICE, BOB, ("presence:subscribe",), 5)) == [Deny(5)]
    before = len(alice.data)
    assert await ask(bob, BOB, Set(6, AccessEntry(ALICE, "carol@a.test", ("all:none",)))) == [Reply(250, 6)]
    (told,) = heard(alice, before)
    assert isinstance(told, Set)
    assert (told.trans_id, told.access.actor, told.access.actions) == (6, "carol@a.test", ("all:none",))


@in_world(presence=True)
async def test_no_token_nothing_is_delivered(world: World) -> None:
    """APEX-12, APEX-25: data between endpoints, and what comes by another protocol."""
    alice, bob = await world.online("alice@a.test"), await world.online("bob@a.test")
    part = Part(b"Content-Type: text/plain\r\n", b"hello", "1@a.test")
    data = Data(Originator(BOB), (Recipient(ALICE),), part)
    assert await bob.say(min(bob.session.channels), data) == Ok()
    await world.settle()
    assert [content.octets for content in alice.contents] == [b"hello"]
    assert (await ask(alice, ALICE, Set(1, AccessEntry(ALICE, "bob@a.test", ("access:get",)))))[0] == Reply(250, 1)
    before = len(alice.data)
    again = Data(Originator(BOB), (Recipient(ALICE),), Part(part.header_block, b"again", "2@a.test"))
    refused = await bob.say(min(bob.session.channels), again)
    assert isinstance(refused, Error)
    assert refused.code == 550
    by_sip = await world.submit(world.operation("sip-1"))
    assert isinstance(by_sip, Response)
    assert by_sip.reason is Reason.NO_SUCH_USER
    assert isinstance(await world.submit(world.operation("sip-2", source="im:carol@a.test")), Accepted)
    assert len(alice.data) == before + 1


@in_world(presence=True)
async def test_an_entry_binds_watchers_of_every_protocol(world: World) -> None:
    """APEX-25."""
    alice = await world.online("alice@a.test")
    access = world.presence.keeping.access
    account, bob = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")
    await access.load(account)
    assert access.grant(account, bob, world.clock.when()).sub_handling is SubHandling.CONFIRM
    for actions, handling in (("presence:subscribe", SubHandling.ALLOW), ("all:none", SubHandling.BLOCK)):
        (got,) = await ask(alice, ALICE, Get(ALICE, "bob@a.test", 1))
        last = got.access.last_update if isinstance(got, Set) else ""
        assert (await ask(alice, ALICE, Set(2, AccessEntry(ALICE, "bob@a.test", (actions,), last))))[0] == Reply(250, 2)
        assert access.grant(account, bob, world.clock.when()).sub_handling is handling


@in_world(presence=False)
async def test_without_presence_it_says_so(world: World) -> None:
    """SEED-45."""
    alice = await world.online("alice@a.test")
    (said,) = await ask(alice, ALICE, Get(ALICE, "*@*", 1))
    assert isinstance(said, Reply)
    assert said.code == 421


@in_world(presence=True)
async def test_entries_outlive_the_process(world: World) -> None:
    """APEX-21."""
    alice = await world.online("alice@a.test")
    done, told = await ask(alice, ALICE, Set(1, AccessEntry(ALICE, "*@b.test", ("all:none",))))
    assert done == Reply(250, 1)
    assert isinstance(told, Set)
    again = await World(former=world, presence=True).start()
    alice = await again.online("alice@a.test")
    assert await ask(alice, ALICE, Get(ALICE, "*@b.test", 2)) == [Set(2, told.access)]


@in_world(presence=True)
async def test_a_foreign_service_writes_to_whom_permits_it(world: World) -> None:
    """APEX-12, RFC 3340 section 4.4.4.1 step 5.3: by default all may (``apex=*@*``), until the owner says otherwise."""
    alice = await world.online("alice@a.test")
    theirs = Endpoint.service("presence", "b.test")
    origin = Origin(Address.im("-", "b.test"), "apex", "192.0.2.7", True, domains=frozenset({"b.test"}))
    said = Data(Originator(theirs), (Recipient(ALICE),), Inline(write_service(Terminate(7))))
    assert world.binding._data.take(said, origin) == Ok()
    await world.settle()
    assert [data.originator.identity for data in alice.data] == [theirs]
    assert (await ask(alice, ALICE, Set(1, AccessEntry(ALICE, "apex=*@b.test", ("all:none",)))))[0] == Reply(250, 1)
    before = len(alice.data)
    refused = world.binding._data.take(said, origin)
    assert isinstance(refused, Error)
    assert refused.code == 550
    await world.settle()
    assert len(alice.data) == before

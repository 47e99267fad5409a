"""Streams that live longer than their connections, and than the server (XEP-0198; reliability.md section 5.2)."""

from __future__ import annotations

import asyncio

import pytest

from comity.bindings.xmpp import events, sm
from comity.bindings.xmpp.counts import mark_name, unpack
from comity.bindings.xmpp.ground import MOST_UNREAD
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.sm import SmState
from comity.cpim.operations import MessageOperation
from comity.service.interfaces import Origin
from comity.service.policy import Limits
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, run

SM = "urn:xmpp:sm:3"


def acknowledged(client: Client) -> list[object]:
    return [key for e in client.events if isinstance(e, events.StanzasAcknowledged) for key in e.keys]


async def kept(world: World, client: Client) -> int:
    mark = await world.store.get_mark(mark_name(client.session.sm_state.id))
    assert mark is not None
    return unpack(mark)[0]


def presence() -> Element:
    return Element("{jabber:client}presence")


def hold_submissions(world: World) -> asyncio.Event:
    """From now on messages are submitted only when the event is set."""
    gate, real = asyncio.Event(), world.pipeline.submit

    def slow(operation: MessageOperation, origin: Origin) -> asyncio.Future[object]:
        async def later() -> object:
            await gate.wait()
            return await real(operation, origin)

        return asyncio.ensure_future(later())

    world.pipeline.submit = slow  # type: ignore[method-assign,assignment]  # the store is slow today
    return gate


def test_what_is_said_is_in_the_store() -> None:
    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "1")
        assert (acknowledged(alice), await kept(world, alice)) == (["1"], 1)
        for key in ("p1", "p2"):
            await alice.send(presence(), key=key)
        assert await kept(world, alice) == 1
        await alice.say("bob@a.test", "2")
        assert await kept(world, alice) == 4, "what needs no record is covered by the next message"
        await alice.say("nobody@a.test", "refused")
        assert (acknowledged(alice), await kept(world, alice)) == (["1", "p1", "p2", "2", "refused"], 5)
        assert [e.get("id") for e in alice.errors()] == ["refused"]

    run(story())


def test_the_next_life_tells_the_owner_how_much_was_taken() -> None:
    """``<failed h='N'/>``: what was counted is not sent again, what was not is sent again once."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "one")
        alice.link.is_cut = True  # the server takes "two", its word is lost, and then it dies
        await alice.say("bob@a.test", "two")
        alice.link.is_paused = True
        await alice.say("bob@a.test", "three")
        alice.session.data_to_send(world.clock.now())
        assert acknowledged(alice) == ["one"]

        second = await World(former=world).start()
        stolen = SmState(alice.session.sm_state.id, Jid("carol", "a.test", "x"))
        for _ in range(2):
            stolen.outgoing.add(b"", None)
        thief = await second.connect("carol@a.test/x", resume=stolen)
        assert thief.of(events.ResourceBound)
        assert not acknowledged(thief), "X-70: not even a number for somebody else"
        again = await second.connect("alice@a.test/phone", resume=alice.session.sm_state)
        assert again.of(events.ResourceBound)
        assert sorted(map(str, acknowledged(again))) == ["three", "two"]
        assert second.pipeline.counts == {"accepted": 1, "repeated": 0, "refused": 0, "reported": 0}
        bob = await second.online("bob@a.test/pad")
        assert bob.texts() == ["one", "two", "three"]

    run(story())


def test_a_stream_whose_time_is_over_is_told_its_count() -> None:
    """X-69."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        await alice.say("bob@a.test", "one")
        alice.link.is_cut = True
        await alice.say("bob@a.test", "two")
        await alice.lose()
        world.clock.advance(301.0)
        again = await world.connect("alice@a.test/phone", resume=alice.session.sm_state)
        assert acknowledged(again) == ["two"]
        assert world.pipeline.counts["repeated"] == 0

    run(story())


def test_resumption_waits_for_what_was_handed_in() -> None:
    """F-K19's quiet sister: the client sends nothing again that is on its way into the store."""

    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        alice = await world.connect("alice@a.test/phone")
        gate = hold_submissions(world)
        body = Element("{jabber:client}body", {}, ["no id, so nothing would recognise a repeat"])
        await alice.send(Element("{jabber:client}message", {"to": "bob@a.test"}, [body]), key="x")
        await alice.lose()
        again = await world.connect("alice@a.test/phone", resume=alice.session.sm_state)
        assert not again.of(events.Resumed)
        gate.set()
        await world.settle()
        assert again.of(events.Resumed)
        assert acknowledged(again) == ["x"]
        assert len(bob.texts()) == 1

    run(story())


def test_only_one_of_two_resumptions_at_once_wins() -> None:
    """X-73."""

    async def story() -> None:
        world = await World().start()
        alice = await world.online("alice@a.test/phone")
        gate = hold_submissions(world)
        await alice.say("bob@a.test", "x")
        await alice.lose()
        first = await world.connect("alice@a.test/phone", resume=alice.session.sm_state)
        second = await world.connect("alice@a.test/phone", resume=alice.session.sm_state)
        gate.set()
        await world.settle()
        assert [len(c.of(events.Resumed)) for c in (first, second)] == [0, 1]
        assert first.link.is_closed
        carol = await world.connect("carol@a.test/x")
        world.pipeline.submit = type(world.pipeline).submit.__get__(world.pipeline)  # type: ignore[method-assign]  # as ever
        await carol.say("alice@a.test", "hello")
        assert second.texts() == ["hello"]

    run(story())


def test_a_message_for_a_stream_between_two_connections_arrives() -> None:
    """F-K19 without a kill: nothing is dropped while the old connection hands over to the new one."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.connect("alice@a.test/phone"), await world.online("bob@a.test/pad")
        body = Element("{jabber:client}body", {}, ["late"])
        gate, real = asyncio.Event(), world.store.commit
        bob.link.is_cut = True  # dead, but TCP has not noticed
        await alice.say("bob@a.test", "cut off")
        gate = hold_submissions(world)
        bob.session.send_stanza(Element("{jabber:client}message", {"to": "carol@a.test", "id": "m"}, [body]), "m")
        await world.settle()
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert not again.of(events.Resumed)
        world.pipeline.submit = type(world.pipeline).submit.__get__(world.pipeline)  # type: ignore[method-assign]  # as ever
        await alice.say("bob@a.test", "between")
        gate.set()
        await world.settle()
        assert again.of(events.Resumed)
        assert again.texts() == ["cut off", "between"]
        assert acknowledged(again) == [None, "m"], "its presence, then the message"
        assert real == world.store.commit
        assert not await world.store.lanes("inbox/im:bob")

    run(story())


def test_an_error_for_a_stream_without_connection_waits_for_it() -> None:
    """A refusal is never lost: ``h`` will count the message."""

    async def story() -> None:
        world = await World().start()
        alice = await world.connect("alice@a.test/phone")
        gate = hold_submissions(world)
        await alice.say("nobody@a.test", "x")
        await alice.lose()
        gate.set()
        await world.settle()
        again = await world.connect("alice@a.test/phone", resume=alice.session.sm_state)
        assert acknowledged(again) == ["x"]
        assert [e.get("id") for e in again.errors()] == ["x"]

    run(story())


def test_a_resumed_stream_lives_on() -> None:
    async def story() -> None:
        world = await World().start()
        bob = await world.online("bob@a.test/pad")
        await bob.lose()
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert again.of(events.Resumed)
        for _ in range(10):
            world.clock.advance(59.0)
            again.link.timer(world.clock.now())
            await world.settle()
        assert not again.of(events.StreamEnded)

    run(story())


def test_a_device_that_does_not_keep_up_loses_its_stream_and_no_message() -> None:
    """The limit of unacknowledged stanzas (reliability.md section 6.2, 500; here 40)."""

    async def story() -> None:
        world = await World(sm_queue=40).start()
        alice, bob = await world.connect("alice@a.test/phone"), await world.online("bob@a.test/pad")
        bob.acknowledges = False
        for n in range(40):
            await alice.say("bob@a.test", str(n))
        assert not bob.of(events.StreamEnded), "no more than 32 messages are under way to one device"
        for _ in range(5):
            await (await world.online("bob@a.test/hidden", priority=-1)).lose()
        assert not bob.of(events.StreamEnded), "of what says nothing later only the last waits"
        for n in range(10):
            query = Element("{http://jabber.org/protocol/disco#info}query")
            await alice.send(
                Element("{jabber:client}iq", {"type": "get", "id": f"i{n}", "to": "bob@a.test/pad"}, [query])
            )
        assert [e.condition for e in bob.events if isinstance(e, events.StreamEnded)] == ["resource-constraint"]
        other = await world.online("bob@a.test/other")
        assert other.texts() == [str(n) for n in range(40)]

    run(story())


def test_a_full_inbox_breaks_the_chain_and_nothing_refused_is_covered() -> None:
    async def story() -> None:
        world = await World(limits=Limits(inbox_records=2)).start()
        alice = await world.connect("alice@a.test/phone")
        for n in range(4):
            body = Element("{jabber:client}body", {}, [str(n)])
            to = "carol@a.test" if n == 3 else "bob@a.test"
            alice.session.send_stanza(Element("{jabber:client}message", {"to": to, "id": str(n)}, [body]), n)
        await world.settle()
        assert [e.get("id") for e in alice.errors()] == ["2"]
        assert (acknowledged(alice), await kept(world, alice)) == ([0, 1, 2, 3], 4)

    run(story())


@pytest.mark.parametrize("h", [0, 1])
def test_messages_for_a_dead_device_are_back_in_the_store_within_two_minutes(h: int) -> None:
    """F-25: a half-open connection is noticed, and what it did not acknowledge goes to whoever comes next."""

    async def story() -> None:
        world = await World().start()
        alice, bob = await world.connect("alice@a.test/phone"), await world.online("bob@a.test/pad", sm=bool(h))
        bob.link.is_cut = True
        await alice.say("bob@a.test", "x")
        for _ in range(12):
            world.clock.advance(10.0)
            bob.link.timer(world.clock.now())
            await world.settle()
        assert bob.link.is_closed
        again = await world.online("bob@a.test/new")
        assert again.texts() == ["x"]

    run(story())


FLOOD = "<presence to='bob@a.test/pad'><status>" + 1000 * "x" + "</status></presence>"


async def people(**options: bool) -> tuple[World, Client, Client]:
    """Alice, who says much to bob's pad, and the pad."""
    world = await World(presence=True).start()
    return world, await world.connect("alice@a.test/phone"), await world.online("bob@a.test/pad", **options)


def test_what_waits_for_a_lost_client_is_bounded_in_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    """reliability.md section 6.2: whoever fills it makes the stream one that cannot go on, not a server without memory."""
    monkeypatch.setattr(sm, "MAX_OCTETS", 20_000)

    async def story() -> None:
        world, alice, bob = await people()
        await bob.lose()
        (parked,) = world.binding._ground.devices.by_stream.keys() - {alice.session.sm_state.id}
        state = world.binding._ground.devices.by_stream[parked].sm
        assert state is not None
        for _ in range(40):
            await alice.tell(FLOOD)
        kept = sum(len(octets) for octets, _ in state.outgoing.unconfirmed())
        assert 15_000 < kept < 22_000
        again = await world.connect("bob@a.test/pad", resume=bob.session.sm_state)
        assert not again.of(events.Resumed), "what came after that is not there"

    run(story())


def test_a_client_that_confirms_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sm, "MAX_OCTETS", 20_000)

    async def story() -> None:
        _, alice, bob = await people()
        for _ in range(40):
            await alice.tell(FLOOD)
        assert not bob.of(events.StreamEnded)
        assert len([e for e in bob.presences() if e.get("from") == "alice@a.test/phone"]) == 40

    run(story())


@pytest.mark.parametrize("has_sm", [True, False], ids=["with stream management", "without"])
def test_a_client_that_reads_nothing_is_written_no_more(has_sm: bool) -> None:
    """L-04: presence of others piles up only so far; what waited is dropped with the connection."""

    async def story() -> None:
        _, alice, bob = await people(sm=has_sm)
        bob.take()
        bob.link.unsent = MOST_UNREAD - 1
        await alice.tell(FLOOD)
        assert len(bob.take()) == 1, "what can still be taken is written"
        bob.link.unsent = MOST_UNREAD
        await alice.tell(FLOOD)
        assert bob.take() == []
        assert [e.condition for e in bob.events if isinstance(e, events.StreamEnded)] == ["resource-constraint"]
        assert bob.link.is_closed

    run(story())

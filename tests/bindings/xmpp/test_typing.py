"""Typing between an XMPP program and a phone: RFC 3994's timers, by a clock moved by hand (IMDN-14, IMDN-15)."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address
from comity.cpim.composing import COMPOSING_TYPE, Composing, composing_in
from comity.cpim.native import wrap
from comity.cpim.operations import Context, MessageOperation
from comity.service.interfaces import Contact
from comity.service.routes import Route, StaticRoutes
from comity.testing.service import Device, DeviceBinding, takes
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, run

STATES = "http://jabber.org/protocol/chatstates"
ALICE, BOB, CAROL = (Address.parse(f"im:{name}@a.test") for name in ("alice", "bob", "carol"))


class Talk(World):
    """Alice by XMPP, Bob and Carol by phones; Alice and Bob have written to each other."""

    async def begin(self) -> Client:
        phones = DeviceBinding()
        await self.start()
        self.pipeline.delivery.deliverers["sip"] = phones
        self.phones: dict[Address, Device] = {}
        for who in (BOB, CAROL):
            contact = Contact("phone", who, "sip")
            self.phones[who] = phones.devices[who.key, "phone"] = Device(contact, takes)
            await self.pipeline.registrar.register(contact, None)
        alice = await self.online("alice@a.test/x")
        await alice.say("bob@a.test", "hello", type="chat")
        return alice

    def shown(self, who: Address = BOB) -> list[bool]:
        """What the phone was told of typing: True for active."""
        found = [composing_in(delivery.operation.object) for delivery in self.phones[who].deliveries]
        return [status.is_active for status in found if status is not None]

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 10)):
            self.clock.advance(10.0)
            await self.settle()

    async def type(self, *, is_active: bool, refresh: int = 120, who: Address = BOB) -> None:
        """Somebody's phone says so."""
        status = Composing(is_active, refresh).document()
        thing = wrap(who, ALICE, status, COMPOSING_TYPE, when=self.clock.when(), message_id="m" * 12)
        await self.submit(MessageOperation(who, ALICE, "t", thing, context=Context(transient=True), is_wrapped=True))


def state(name: str, to: str = "bob@a.test") -> Element:
    child = Element(f"{{{STATES}}}{name}")
    return Element("{jabber:client}message", {"to": to, "type": "chat"}, [child])


def states(client: Client) -> list[str]:
    """Chat states a client was shown since the last call, each alone in a stanza of type chat."""
    found = []
    for stanza in client.take():
        names = [child.local for child in stanza.elements() if child.namespace == STATES]
        assert not names or stanza.get("type") == "chat"
        found += names
    return found


@pytest.mark.parametrize(
    ("said", "shown"), [("composing", [True]), ("active", [False]), ("inactive", [False]), ("paused", [False])]
)
def test_each_chat_state_has_its_status(said: str, shown: list[bool]) -> None:
    """IMDN-15."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state(said))
        assert world.shown() == shown
        (delivery,) = world.phones[BOB].deliveries[1:]
        assert delivery.operation.context.transient
        assert world.pipeline.counts["accepted"] == 1  # the text alone is stored

    run(story())


def test_gone_is_no_status() -> None:
    """IMDN-15: page mode has no end of a conversation to tell."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state("gone"))
        assert world.shown() == []

    run(story())


def test_a_status_is_said_again_before_it_runs_out() -> None:
    """IMDN-14: XEP-0085 says it once; a phone forgets it after 120 s."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state("composing"))
        await world.pass_time(190)
        assert world.shown() == [True] * 4
        await alice.send(state("paused"))
        await world.pass_time(600)
        assert world.shown() == [True] * 4 + [False]

    run(story())


@pytest.mark.parametrize("what", ["text", "gone", "loss"])
def test_it_is_not_said_again_after(what: str) -> None:
    """RFC 3994 section 3.2: content ends it; so does leaving, of which the phone hears nothing and forgets by itself."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state("composing"))
        if what == "text":
            await alice.say("bob@a.test", "typed", type="chat")
        elif what == "gone":
            await alice.send(state("gone"))
        else:
            await alice.lose()
        await world.pass_time(900)
        assert world.shown() == [True]

    run(story())


def test_nobody_types_for_ever() -> None:
    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state("composing"))
        await world.pass_time(3600)
        assert len(world.shown()) == 10

    run(story())


def test_no_typing_before_a_conversation() -> None:
    """IMDN-14: in page mode only between people who have written to each other, whoever began."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await alice.send(state("composing", "carol@a.test"))
        assert world.shown(CAROL) == []
        thing = wrap(CAROL, ALICE, b"hi", "text/plain", when=world.clock.when(), message_id="n" * 12)
        await world.submit(MessageOperation(CAROL, ALICE, "t", thing, is_wrapped=True))
        await alice.send(state("composing", "carol@a.test"))
        assert world.shown(CAROL) == [True]

    run(story())


def test_a_phones_status_is_shown_and_runs_out() -> None:
    """IMDN-14, IMDN-15: after the phone's own time, 120 s unless it says another; unless it says so again."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await world.type(is_active=True)
        assert states(alice) == ["composing"]
        await world.pass_time(110)
        await world.type(is_active=True, refresh=60)
        assert states(alice) == ["composing"]
        await world.pass_time(50)
        assert states(alice) == []
        await world.pass_time(10)
        assert states(alice) == ["active"]
        await world.pass_time(600)
        assert states(alice) == []
        await world.type(is_active=True)
        await world.type(is_active=False)
        await world.pass_time(600)
        assert states(alice) == ["composing", "active"]

    run(story())


def test_a_text_ends_what_was_shown() -> None:
    """RFC 3994 section 3.3."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        await world.type(is_active=True)
        thing = wrap(BOB, ALICE, b"typed", "text/plain", when=world.clock.when(), message_id="n" * 12)
        await world.submit(MessageOperation(BOB, ALICE, "t", thing, is_wrapped=True))
        await world.pass_time(600)
        assert states(alice) == ["composing"]

    run(story())


@pytest.mark.parametrize(("via", "before", "again"), [("xmpp", True, 0), ("sip", False, 3)])
def test_to_another_server_by_its_protocol(via: str, before: bool, again: int) -> None:
    """As it is to an XMPP server; to others only in a conversation, and again in time."""

    async def story() -> None:
        world = Talk()
        alice = await world.begin()
        world.pipeline.routes = StaticRoutes((Route("b.test", via, "tcp://127.0.0.1:9"),))
        taken: list[bool] = []
        world.pipeline.follow(lambda operation, origin, id: taken.append(operation.context.transient))
        await alice.send(state("composing", "juliet@b.test"))
        assert taken == ([True] if before else [])
        await alice.say("juliet@b.test", "hello", type="chat")
        taken.clear()
        await alice.send(state("composing", "juliet@b.test"))
        await world.pass_time(190)
        assert taken == [True] * (1 + again)

    run(story())


def test_between_xmpp_programs_nothing_is_added() -> None:
    async def story() -> None:
        world = await World().start()
        alice, bob = await world.online("alice@a.test/x"), await world.online("bob@a.test/y")
        await alice.send(state("composing"))
        for _ in range(60):
            world.clock.advance(10.0)
            await world.settle()
        assert states(bob) == ["composing"]

    run(story())

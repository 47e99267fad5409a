"""Presence of a user's own devices: bindings/xmpp/availability.py (RFC 6121 sections 4.2, 4.4, 4.5 and 4.7; XMPP-14, XMPP-15)."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address
from comity.cpim.presence_state import Availability as State
from comity.cpim.presence_state import PresenceState, state_document
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Published, Statement
from comity.xml import Element
from tests.bindings.xmpp.world import World, befriend, condition, login, read, run

USERS = ("im:juliet@example.com", "im:romeo@example.net", "im:nurse@example.com")
JULIET = Address.parse("im:juliet@example.com")


async def start() -> World:
    return await World(presence=True, users=USERS).start()


class TestOwnDevices:
    """An entity is implicitly subscribed to its own presence (section 4.2.2)."""

    @pytest.mark.parametrize("presence", [True, False])
    def test_they_see_each_other_come_change_and_go(self, presence: bool) -> None:
        """With presence switched off too: it is nobody else's (SEED-45)."""

        async def story() -> None:
            world = await World(presence=presence, users=USERS).start()
            balcony = await login(world, "juliet@example.com/balcony")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence/>")
            assert balcony.heard() == ["available juliet@example.com/chamber"]
            assert chamber.heard() == ["available juliet@example.com/chamber", "available juliet@example.com/balcony"]
            await balcony.tell("<presence><show>away</show></presence>")
            for client in (balcony, chamber):
                assert client.heard() == ["available juliet@example.com/balcony away"]
            await balcony.tell("<presence type='unavailable'><status>going on vacation</status></presence>")
            assert chamber.heard() == ["unavailable juliet@example.com/balcony going on vacation"]
            await balcony.tell("<presence/>")
            assert chamber.heard() == ["available juliet@example.com/balcony"], "a new presence session (section 4.5.2)"

        run(story())

    def test_unavailable_that_was_never_available_says_nothing(self) -> None:
        async def story() -> None:
            world = await start()
            balcony = await login(world, "juliet@example.com/balcony")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence type='unavailable'/>")
            assert balcony.heard() == []

        run(story())

    def test_a_resource_that_signs_in_elsewhere_is_gone_and_there_again(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            again = await world.connect("juliet@example.com/x")
            await again.tell("<presence><show>chat</show></presence>")
            assert romeo.heard() == ["unavailable juliet@example.com/x", "available juliet@example.com/x chat"]

        run(story())

    def test_the_end_of_the_server_is_the_end_of_all_presence(self) -> None:
        async def story() -> None:
            world = await start()
            await login(world, "juliet@example.com/x")
            await world.binding.drain()
            assert not world.presence._presentities.need(JULIET, JULIET).publications

        run(story())


class TestSyntax:
    """Section 4.7, XMPP-15: refused, and nothing changed."""

    @pytest.mark.parametrize(
        "stanza",
        [
            "<presence type='available'/>",
            "<presence type='away' to='romeo@example.net'/>",
            "<presence><show>busy</show></presence>",
            "<presence><show>away</show><show>dnd</show></presence>",
            "<presence><show>away<x xmlns='urn:x'/></show></presence>",
            "<presence><priority>128</priority></presence>",
            "<presence><priority>-129</priority></presence>",
            "<presence><priority>1.5</priority></presence>",
            "<presence><priority/></presence>",
            "<presence><priority>1</priority><priority>2</priority></presence>",
            "<presence><status>a</status><status>b</status></presence>",
            "<presence xml:lang='en'><status>a</status><status xml:lang='en'>b</status></presence>",
            "<presence type='subscribe'/>",
            "<presence type='subscribed'/>",
            "<presence type='probe'/>",
            "<presence to='romeo@example.net'><show>busy</show></presence>",
        ],
    )
    def test_a_violation_is_a_bad_request(self, stanza: str) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await juliet.tell(stanza.replace("<presence", "<presence id='x'", 1))
            (error,) = juliet.take()
            assert (condition(error), error.get("id")) == ("bad-request", "x")
            assert romeo.heard() == []

        run(story())

    @pytest.mark.parametrize(
        "stanza",
        [
            "<presence><priority>-128</priority></presence>",
            "<presence><priority>127</priority></presence>",
            "<presence><priority>+5</priority></presence>",
            "<presence xml:lang='en'><show>dnd</show><status>Wooing Juliet</status>"
            "<status xml:lang='cs'>Dvořím se Julii</status><priority>1</priority></presence>",
            "<presence><c xmlns='urn:x' node='y'/></presence>",
        ],
    )
    def test_what_is_allowed_goes_out_as_it_came(self, stanza: str) -> None:
        """Also the examples of sections 4.7.2.3 and 4.7.3."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            await juliet.tell(stanza)
            (echo,) = juliet.take()
            assert echo.get("type") == ""

        run(story())

    def test_an_error_of_a_client_ends_with_us(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await juliet.tell(
                "<presence type='error' to='romeo@example.net/o'><error type='cancel'>"
                "<gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></presence>"
            )
            assert (romeo.heard(), juliet.heard()) == ([], [])

        run(story())

    def test_presence_too_long_is_refused_and_the_last_one_stands(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await juliet.tell("<presence><show>away</show></presence>")
            romeo.take(), juliet.take()
            await juliet.tell(f"<presence><status>{'x' * 100_000}</status></presence>")
            assert [condition(e) for e in juliet.take()] == ["policy-violation"]
            await romeo.tell("<presence to='juliet@example.com' type='probe'/>")
            assert romeo.heard() == ["available juliet@example.com/x away"]

        run(story())


class TestPriority:
    """Section 4.7.2.3 with section 8.5.2.1.1."""

    def test_a_negative_one_is_seen_and_takes_no_messages(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await juliet.tell("<presence><priority>-1</priority></presence>")
            (seen,) = romeo.take()
            (priority,) = seen.find_all("{jabber:client}priority")
            assert priority.text == "-1"
            await romeo.say("juliet@example.com", "hello")
            assert juliet.texts() == []
            await juliet.tell("<presence><priority>0</priority></presence>")
            assert juliet.texts() == ["hello"]

        run(story())


class TestOrder:
    """XMPP-4: what a client says is done in the order in which it said it, though some of it waits for the store."""

    def test_who_is_refused_does_not_see_what_is_said_afterwards(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await juliet.tell(
                "<presence to='romeo@example.net' type='unsubscribed'/>",
                "<presence><show>chat</show><status>alone at last</status></presence>",
            )
            assert "alone at last" not in " ".join(romeo.heard())

        run(story())

    def test_a_stanza_counts_as_handled_when_what_it_asked_is_durable(self) -> None:
        """Section 5.2 of reliability.md for approvals: ``h`` is a yes."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await romeo.tell("<presence to='juliet@example.com' type='subscribe'/>")
            (connection,) = world.binding._ground.devices.of(JULIET)
            assert connection.sm is not None
            before, held = connection.sm.incoming.handled, []
            real = world.store.commit
            world.store.commit = lambda ops: held.append(ops) or real(ops)  # type: ignore[method-assign, func-returns-value]  # looked at only
            juliet.session.send_stanza(_approval())
            juliet.exchange()
            assert not held
            assert connection.sm.incoming.handled == before
            await world.settle()
            assert held
            assert connection.sm.incoming.handled == before + 1

        run(story())

    def test_who_asks_too_much_at_once_is_read_from_more_slowly(self) -> None:
        """Reliability.md section 6.2: nothing is refused for it, and no more than so many wait."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            (connection,) = world.binding._ground.devices.of(JULIET)
            for n in range(300):
                juliet.session.send_stanza(_approval(f"u{n}@example.com"))
            juliet.exchange()
            assert connection.is_paused
            for _ in range(60):
                world.clock.advance(1.0)
                await world.settle()
            assert not connection.is_paused
            assert len(await world.presence.decisions(JULIET)) == 300

        run(story())


def _approval(to: str = "romeo@example.net") -> Element:
    return read(f"<presence to='{to}' type='subscribed'/>")


class TestOtherProtocols:
    """One account, one presence."""

    def test_a_device_and_a_telephone_are_two_publications(self) -> None:
        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            document = state_document(JULIET, "desk", PresenceState(State.AVAILABLE), world.clock.when())
            origin = Origin(JULIET, "sip", "h", True)
            assert isinstance(world.presence.publish(JULIET, Statement(document), origin, key="x"), Published)
            assert len(world.presence._presentities.need(JULIET, JULIET).publications) == 2
            await juliet.tell("<presence type='unavailable'/>")
            assert len(world.presence._presentities.need(JULIET, JULIET).publications) == 1

        run(story())


def test_messages_work_with_presence_switched_off() -> None:
    """SEED-45: priorities, resources and stored messages too."""

    async def story() -> None:
        world = await World(users=USERS).start()
        romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
        await romeo.say("juliet@example.com", "wherefore")
        assert juliet.texts() == ["wherefore"]
        await juliet.tell("<presence type='unavailable'/>")
        await romeo.say("juliet@example.com", "art thou")
        assert juliet.texts() == ["wherefore"]
        await juliet.tell("<presence/>")
        assert juliet.texts() == ["wherefore", "art thou"]
        romeo.take()
        for kind in ("probe", "unavailable"):
            await romeo.tell(f"<presence to='juliet@example.com' type='{kind}'/>")
        await romeo.tell("<presence to='juliet@example.com'/>")
        assert (romeo.heard(), [w for w in juliet.heard() if "romeo" in w and "presence" in w]) == ([], [])

    run(story())


class TestFlapping:
    """L-08: who changes its presence a hundred times a second is told of once a second, the last state."""

    def test_a_flood_of_changes_is_one_a_second(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            for n in range(100):
                await juliet.tell(f"<presence><status>{n}</status></presence>")
                world.clock.advance(0.01)
            first = len(romeo.take())
            assert first <= 12
            for _ in range(3):
                world.clock.advance(1.0)
                await world.settle()
            assert romeo.heard()[-1] == "available juliet@example.com/x 99"
            world.clock.advance(20.0)
            await juliet.tell("<presence/>")
            assert romeo.heard() == ["available juliet@example.com/x"], "at once again"

        run(story())

    def test_coming_and_going_is_too(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            for _ in range(100):
                await juliet.tell("<presence type='unavailable'/>", "<presence/>")
                world.clock.advance(0.01)
            assert len(romeo.take()) <= 24
            world.clock.advance(2.0)
            await world.settle()
            await romeo.tell("<presence to='juliet@example.com' type='probe'/>")
            assert romeo.heard()[-1] == "available juliet@example.com/x"
            await juliet.tell("<presence/>", "<presence type='unavailable'/>")
            world.clock.advance(5.0)
            await world.settle()
            assert romeo.heard()[-1] == "unavailable juliet@example.com/x"

        run(story())

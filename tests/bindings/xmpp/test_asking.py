"""Asking to see somebody and answering, on clients: bindings/xmpp/asking.py (RFC 6121 section 3; XMPP-11, XMPP-12, N-07)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp import events
from comity.bindings.xmpp.asking import MOST_KEPT
from comity.cpim.address import Address
from comity.cpim.operations import SubscribeOperation
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Decision, Default, Terms
from tests.bindings.xmpp.world import World, condition, login, run

USERS = ("im:romeo@example.net", "im:juliet@example.com", "im:nurse@example.com")
ROMEO, JULIET = Address.parse("im:romeo@example.net"), Address.parse("im:juliet@example.com")
GET = "<iq id='r' type='get'><query xmlns='jabber:iq:roster'/></iq>"
SUBSCRIBE = "<presence id='xk3h1v69' to='juliet@example.com' type='subscribe'/>"


async def start() -> World:
    return await World(presence=True, users=USERS).start()


class TestRequest:
    """Section 3.1."""

    def test_the_whole_way_to_a_mutual_subscription(self) -> None:
        """The examples of sections 3.1.1 to 3.1.6, with two devices on each side."""

        async def story() -> None:
            world = await start()
            foo, bar = await login(world, "romeo@example.net/foo"), await login(world, "romeo@example.net/bar")
            balcony = await login(world, "juliet@example.com/balcony")
            chamber = await login(world, "juliet@example.com/chamber")
            for client in (foo, balcony):
                client.take()
            await foo.tell(SUBSCRIBE)
            for client in (foo, bar):
                assert client.heard() == ["push: juliet@example.com none ask=subscribe"]
            for client in (balcony, chamber):
                assert client.heard() == ["subscribe romeo@example.net"]
            await balcony.tell("<presence id='h4v1c4kj' to='romeo@example.net' type='subscribed'/>")
            for client in (balcony, chamber):
                assert client.heard() == ["push: romeo@example.net from"]
            for client in (foo, bar):
                heard = client.heard()
                assert heard[:2] == ["subscribed juliet@example.com", "push: juliet@example.com to"]
                assert sorted(heard[2:]) == [
                    "available juliet@example.com/balcony",
                    "available juliet@example.com/chamber",
                ]
            await chamber.tell("<presence to='romeo@example.net' type='subscribe'/>")
            assert foo.heard() == ["subscribe juliet@example.com"]
            await foo.tell("<presence to='juliet@example.com' type='subscribed'/>")
            assert foo.heard() == ["push: juliet@example.com both"]
            heard = balcony.heard()
            assert heard[1:3] == ["subscribed romeo@example.net", "push: romeo@example.net both"]
            assert sorted(heard[3:]) == ["available romeo@example.net/bar", "available romeo@example.net/foo"]

        run(story())

    def test_a_full_jid_is_taken_as_the_bare_one_and_so_is_the_senders(self) -> None:
        """Sections 3.1.2 and 3.1.3, and the note at the head of section 3; XMPP-12."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await romeo.tell("<presence to='juliet@example.com/elsewhere' type='subscribe'/>")
            (request,) = juliet.take()
            assert (request.get("from"), request.get("to")) == ("romeo@example.net", "juliet@example.com")

        run(story())

    def test_it_waits_whole_for_a_device_and_comes_until_it_is_answered(self) -> None:
        """XMPP-11: three requests while nobody is there, one is shown, at each login."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            said = "<status>It is the east</status><nick xmlns='http://jabber.org/protocol/nick'>Romeo</nick>"
            for _ in range(3):
                await romeo.tell(f"<presence to='juliet@example.com' type='subscribe'>{said}</presence>")
            for resource in ("balcony", "chamber"):
                juliet = await world.connect(f"juliet@example.com/{resource}")
                await juliet.tell(GET, "<presence/>")
                requests = [s for s in juliet.take() if s.get("type") == "subscribe"]
                assert [(r.get("from"), r.get("to")) for r in requests] == [("romeo@example.net", "juliet@example.com")]
                assert [child.name for child in requests[0].elements()] == [
                    "{jabber:client}status",
                    "{http://jabber.org/protocol/nick}nick",
                ]
                await juliet.tell("<presence><show>away</show></presence>")
                assert "subscribe romeo@example.net It is the east" not in juliet.heard(), "once in a session"
            await juliet.tell("<presence to='romeo@example.net' type='unsubscribed'/>")
            later = await world.connect("juliet@example.com/tomb")
            await later.tell("<presence/>")
            assert not [s for s in later.take() if s.get("type") == "subscribe"]

        run(story())

    def test_it_waits_over_a_restart(self) -> None:
        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            await romeo.tell(SUBSCRIBE)
            again = await World(former=world, presence=True, users=USERS).start()
            juliet = await again.connect("juliet@example.com/balcony")
            await juliet.tell("<presence/>")
            assert "subscribe romeo@example.net" in juliet.heard()

        run(story())

    def test_a_request_too_long_to_be_kept_keeps_its_words(self) -> None:
        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            long = f"<status>Hello</status><x xmlns='urn:x'>{'x' * MOST_KEPT}</x>"
            await romeo.tell(f"<presence to='juliet@example.com' type='subscribe'>{long}</presence>")
            juliet = await world.connect("juliet@example.com/balcony")
            await juliet.tell("<presence/>")
            (request,) = [s for s in juliet.take() if s.get("type") == "subscribe"]
            assert [child.local for child in request.elements()] == ["status"]

        run(story())

    def test_what_only_servers_say_is_taken_out(self) -> None:
        """X-60 to X-64 for requests."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            forged = "<delay xmlns='urn:xmpp:delay' stamp='2002-09-10T23:41:07Z'/><status>now</status>"
            await romeo.tell(f"<presence to='juliet@example.com' type='subscribe'>{forged}</presence>")
            (request,) = juliet.take()
            assert [child.local for child in request.elements()] == ["status"]

        run(story())

    def test_one_who_is_asked_from_elsewhere_sees_the_words(self) -> None:
        """A SIP phone has no stanza: what its user wrote is the status."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            await elsewhere_asks(world, "Hello from a telephone")
            assert juliet.heard() == ["subscribe romeo@example.net Hello from a telephone"]

        run(story())

    def test_who_does_not_exist_never_answers(self) -> None:
        """Section 8.5.1, XMPP-8: no error tells who exists."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            await romeo.tell("<presence to='nobody@example.com' type='subscribe'/>")
            unknown = romeo.heard()
            await romeo.tell("<presence to='nurse@example.com' type='subscribe'/>")
            known = romeo.heard()
            assert [word.replace("nobody", "nurse") for word in unknown] == known
            assert known == ["push: nurse@example.com none ask=subscribe"]

        run(story())

    @pytest.mark.parametrize(
        ("to", "expected"),
        [("juliet@else.test", "remote-server-not-found"), ("else.test", "remote-server-not-found")],
    )
    def test_what_cannot_be_routed_is_an_error(self, to: str, expected: str) -> None:
        """The example of section 3.1.2."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            await romeo.tell(f"<presence id='xk3h1v69' to='{to}' type='subscribe'/>")
            (error,) = romeo.take()
            assert (condition(error), error.get("id"), error.get("from")) == (expected, "xk3h1v69", to)

        run(story())

    def test_the_servers_own_domain_is_watched_by_nobody(self) -> None:
        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            for kind in ("subscribe", "unsubscribe", "subscribed", "unsubscribed"):
                await romeo.tell(f"<presence to='example.com' type='{kind}'/>")
            assert romeo.heard() == []

        run(story())

    def test_nobody_asks_themselves(self) -> None:
        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            await romeo.tell("<presence to='romeo@example.net' type='subscribe'/>")
            assert [condition(e) for e in romeo.take()] == ["bad-request"]

        run(story())

    def test_the_51st_request_without_an_answer_is_refused(self) -> None:
        """ACL-27."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            for n in range(51):
                await romeo.tell(f"<presence to='u{n}@example.com' type='subscribe'/>")
            assert [condition(e) for e in romeo.errors()] == ["resource-constraint"]

        run(story())

    def test_what_the_account_decided_once_for_all_is_the_answer(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await world.presence.set_default(JULIET, Default.EVERYONE, Origin(JULIET, "xmpp", "h", True))
            await romeo.tell(SUBSCRIBE)
            assert romeo.heard()[-3:] == [
                "subscribed juliet@example.com",
                "push: juliet@example.com to",
                "available juliet@example.com/x",
            ]
            assert not [s for s in juliet.take() if s.get("type") == "subscribe"]

        run(story())

    def test_who_sees_already_is_told_so_again(self) -> None:
        """Section 3.1.3 rule 2, X8; the contact is not bothered."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await romeo.tell(SUBSCRIBE)
            await juliet.tell("<presence to='romeo@example.net' type='subscribed'/>")
            juliet.take()
            await romeo.tell(SUBSCRIBE)
            assert juliet.heard() == []

        run(story())


async def elsewhere_asks(world: World, text: str) -> None:
    """Romeo asks to see Juliet by another protocol."""
    operation = SubscribeOperation(ROMEO.with_scheme("pres"), JULIET.with_scheme("pres"), "sip-1", "t1", 600)
    origin = Origin(ROMEO, "sip", "192.0.2.9", True)
    assert await world.presence.ask(operation, origin, Terms("sip", text=text)) is None
    await world.settle()


class TestAnswer:
    """Sections 3.1.5, 3.1.6 and 3.2."""

    def test_unsolicited_approval_tells_nobody(self) -> None:
        """N-07: it is a pre-approval, of which the other learns nothing (section 3.4.2)."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await juliet.tell("<presence id='pg81vx64' to='romeo@example.net' type='subscribed'/>")
            assert juliet.heard() == ["push: romeo@example.net none approved"]
            assert romeo.heard() == []
            await romeo.tell(SUBSCRIBE)
            heard = romeo.heard()
            assert heard[-3:] == [
                "subscribed juliet@example.com",
                "push: juliet@example.com to",
                "available juliet@example.com/x",
            ]
            assert juliet.heard() == ["push: romeo@example.net from approved"], "and she was not asked"

        run(story())

    def test_a_pre_approval_is_taken_back(self) -> None:
        """Section 3.4.2, the last note."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await juliet.tell("<presence to='romeo@example.net' type='subscribed'/>")
            await juliet.tell("<presence to='romeo@example.net' type='unsubscribed'/>")
            assert juliet.heard()[-1] == "push: romeo@example.net none"
            await romeo.tell(SUBSCRIBE)
            assert juliet.heard() == ["subscribe romeo@example.net"]

        run(story())

    def test_a_cancelled_subscription_ends_with_unavailable_then_unsubscribed(self) -> None:
        """Section 3.2.2, XMPP-12: from each of the contact's devices, before the word."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/foo")
            balcony = await login(world, "juliet@example.com/balcony")
            await login(world, "juliet@example.com/chamber")
            await romeo.tell(SUBSCRIBE)
            await balcony.tell("<presence to='romeo@example.net' type='subscribed'/>")
            romeo.take(), balcony.take()
            await balcony.tell("<presence id='ij5b1v7g' to='romeo@example.net' type='unsubscribed'/>")
            heard = romeo.heard()
            assert sorted(heard[:2]) == [
                "unavailable juliet@example.com/balcony",
                "unavailable juliet@example.com/chamber",
            ]
            assert heard[2:] == ["unsubscribed juliet@example.com", "push: juliet@example.com none"]
            assert balcony.heard() == ["push: romeo@example.net none"]
            await balcony.tell("<presence><show>dnd</show></presence>")
            assert romeo.heard() == [], "G9: nothing after the word"

        run(story())

    def test_a_denied_request_is_told(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            await romeo.tell(SUBSCRIBE)
            await juliet.tell("<presence to='romeo@example.net' type='unsubscribed'/>")
            assert romeo.heard()[1:] == ["unsubscribed juliet@example.com", "push: juliet@example.com none"]

        run(story())

    def test_an_answer_from_elsewhere_is_shown_like_any_other(self) -> None:
        """The command line, or a client of another protocol."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            await romeo.tell(SUBSCRIBE)
            juliet.take(), romeo.take()
            await world.presence.answer(JULIET, ROMEO, Decision.ALLOWED, Origin(JULIET, "admin", "", True))
            await world.settle()
            assert juliet.heard() == ["push: romeo@example.net from"]
            assert romeo.heard() == [
                "subscribed juliet@example.com",
                "push: juliet@example.com to",
                "available juliet@example.com/x",
            ]

        run(story())

    def test_only_interested_resources_hear_the_answer(self) -> None:
        """Section 3.1.6: one that never asked for the list is not told; but it sees the contact."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await world.online("romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            romeo.take()
            await romeo.tell(SUBSCRIBE)
            await juliet.tell("<presence to='romeo@example.net' type='subscribed'/>")
            assert romeo.heard() == ["available juliet@example.com/x"]

        run(story())


class TestUnsubscribe:
    """Section 3.3."""

    def test_it_is_told_to_the_contact_and_ends_what_was_seen(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            await romeo.tell(SUBSCRIBE)
            await juliet.tell("<presence to='romeo@example.net' type='subscribed'/>")
            romeo.take(), juliet.take()
            await romeo.tell("<presence id='ul4bs71n' to='juliet@example.com' type='unsubscribe'/>")
            assert juliet.heard() == ["unsubscribe romeo@example.net", "push: romeo@example.net none"]
            assert sorted(romeo.heard()) == ["push: juliet@example.com none", "unavailable juliet@example.com/x"]
            await juliet.tell("<presence><show>away</show></presence>")
            assert romeo.heard() == []

        run(story())

    def test_a_request_that_is_taken_back_is_not_shown_again(self) -> None:
        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/foo")
            await romeo.tell(SUBSCRIBE, "<presence to='juliet@example.com' type='unsubscribe'/>")
            juliet = await world.connect("juliet@example.com/x")
            await juliet.tell("<presence/>")
            assert juliet.heard() == ["available juliet@example.com/x"]

        run(story())

    def test_from_a_stranger_it_is_ignored(self) -> None:
        """XMPP-12."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            await romeo.tell("<presence to='juliet@example.com' type='unsubscribe'/>")
            assert (romeo.heard(), juliet.heard()) == ([], [])

        run(story())


class TestForged:
    """SEC-31 to SEC-33 on a client's stream."""

    @pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "subscribed", "unsubscribed"])
    @pytest.mark.parametrize("sender", ["juliet@example.com", "juliet@example.com/x", "nurse@example.com/other"])
    def test_a_stanza_in_somebody_elses_name_ends_the_stream(self, kind: str, sender: str) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            nurse = await login(world, "nurse@example.com/attic")
            await nurse.tell(f"<presence from='{sender}' to='romeo@example.net' type='{kind}'/>")
            assert [e.condition for e in nurse.events if isinstance(e, events.StreamEnded)] == ["invalid-from"]
            assert (romeo.heard(), juliet.heard()) == ([], [])
            for account in (ROMEO, JULIET):
                assert not await world.presence.decisions(account)

        run(story())

    def test_nobody_ends_what_is_between_two_others(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
            nurse = await login(world, "nurse@example.com/attic")
            await romeo.tell(SUBSCRIBE)
            await juliet.tell("<presence to='romeo@example.net' type='subscribed'/>")
            romeo.take()
            for kind in ("unsubscribe", "unsubscribed", "subscribed"):
                for to in ("romeo@example.net", "juliet@example.com"):
                    await nurse.tell(f"<presence to='{to}' type='{kind}'/>")
            assert romeo.heard() == []
            await juliet.tell("<presence><show>away</show></presence>")
            assert romeo.heard() == ["available juliet@example.com/x away"]

        run(story())


def test_without_presence_requests_are_refused() -> None:
    """SEED-45."""

    async def story() -> None:
        world = await World(users=USERS).start()
        romeo, juliet = await login(world, "romeo@example.net/foo"), await login(world, "juliet@example.com/x")
        for kind in ("subscribe", "unsubscribe", "subscribed", "unsubscribed"):
            await romeo.tell(f"<presence to='juliet@example.com' type='{kind}'/>")
        assert [condition(e) for e in romeo.take()] == ["service-unavailable"] * 4
        assert juliet.heard() == []

    run(story())

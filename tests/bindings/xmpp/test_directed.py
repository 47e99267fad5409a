"""Presence for one person: bindings/xmpp/directed.py (RFC 6121 section 4.6; XMPP-14, XMPP-18, N-14)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp.directed import MOST
from comity.bindings.xmpp.e2e import wrap_octets
from comity.bindings.xmpp.watching import REFUSAL_TIME
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.service.interfaces import Origin
from comity.xml import Element
from tests.bindings.xmpp.world import World, befriend, condition, login, run

USERS = ("im:juliet@example.com", "im:romeo@example.net", "im:nurse@example.com")
ROMEO, JULIET = Address.parse("im:romeo@example.net"), Address.parse("im:juliet@example.com")


async def start() -> World:
    return await World(presence=True, users=USERS).start()


class TestToOne:
    """Sections 4.6.3 and 4.6.4."""

    def test_a_stranger_is_told_once_and_hears_the_end(self) -> None:
        """Case 2: no later broadcast, but the unavailable."""

        async def story() -> None:
            world = await start()
            juliet, romeo = await login(world, "juliet@example.com/balcony"), await login(world, "romeo@example.net/o")
            phone = await login(world, "romeo@example.net/phone")
            romeo.take()
            await juliet.tell(
                "<presence to='romeo@example.net'><show>chat</show><status>hi</status><x xmlns='urn:x'/></presence>"
            )
            for client in (romeo, phone):
                (seen,) = client.take()
                assert (seen.get("from"), seen.get("to")) == ("juliet@example.com/balcony", "romeo@example.net")
                assert [e.local for e in seen.elements()] == ["show", "status", "x"]
            await juliet.tell("<presence><show>away</show></presence>")
            assert romeo.heard() == []
            await juliet.tell("<presence type='unavailable'/>")
            for client in (romeo, phone):
                assert client.heard() == ["unavailable juliet@example.com/balcony"]

        run(story())

    def test_a_full_jid_is_one_device(self) -> None:
        async def story() -> None:
            world = await start()
            juliet, romeo = await login(world, "juliet@example.com/balcony"), await login(world, "romeo@example.net/o")
            phone = await world.connect("romeo@example.net/phone")
            await juliet.tell("<presence to='romeo@example.net/phone'/>")
            (seen,) = phone.take()
            assert seen.get("to") == "romeo@example.net/phone"
            await juliet.tell("<presence to='romeo@example.net/nowhere'/>")
            assert romeo.heard() == []
            await juliet.tell(
                "<presence to='romeo@example.net/phone' type='unavailable'><status>bye</status></presence>"
            )
            assert phone.heard() == ["unavailable juliet@example.com/balcony bye"]
            await juliet.tell("<presence type='unavailable'/>")
            assert phone.heard() == [], "it was told already"

        run(story())

    def test_a_device_that_is_not_available_may_tell_too(self) -> None:
        """Case 3; and a lost connection is the end of it (XMPP-14)."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/o")
            juliet = await world.connect("juliet@example.com/balcony", sm=False)
            await juliet.tell("<presence to='romeo@example.net'/>")
            assert romeo.heard() == ["available juliet@example.com/balcony"]
            await juliet.lose()
            assert romeo.heard() == ["unavailable juliet@example.com/balcony"]

        run(story())

    def test_a_stream_that_may_be_resumed_ends_nothing_yet(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await juliet.tell("<presence to='romeo@example.net'/>")
            romeo.take()
            await juliet.lose()
            assert romeo.heard() == []
            again = await world.connect("juliet@example.com/x", resume=juliet.session.sm_state)
            await again.tell("<presence type='unavailable'/>")
            assert romeo.heard() == ["unavailable juliet@example.com/x"]

        run(story())

    def test_a_contact_hears_the_end_once(self) -> None:
        """Case 1: who sees the broadcast is not told twice."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await juliet.tell("<presence to='romeo@example.net'><show>chat</show></presence>")
            assert romeo.heard() == ["available juliet@example.com/x chat"]
            await juliet.tell("<presence type='unavailable'/>")
            assert romeo.heard() == ["unavailable juliet@example.com/x"]

        run(story())

    def test_it_may_be_asked_about_as_far_as_it_was_told(self) -> None:
        """Section 4.6.6."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await login(world, "juliet@example.com/other")
            await juliet.tell("<presence to='romeo@example.net'><show>dnd</show></presence>")
            romeo.take()
            await romeo.tell("<presence to='juliet@example.com/x' type='probe'/>")
            assert romeo.heard() == ["available juliet@example.com/x"]
            await romeo.tell("<presence to='juliet@example.com/other' type='probe'/>")
            world.clock.advance(REFUSAL_TIME)
            await world.settle()
            assert romeo.heard() == ["unsubscribed juliet@example.com"]

        run(story())

    @pytest.mark.parametrize("to", ["example.com", "example.net", "nobody@example.com", "nobody@example.com/x"])
    def test_to_nobody_it_says_nothing(self, to: str) -> None:
        """N-14, section 8.5.1."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            await juliet.tell(f"<presence to='{to}'/>", f"<presence to='{to}' type='unavailable'/>")
            assert juliet.heard() == []

        run(story())

    @pytest.mark.parametrize("to", ["room@conference.test/nick", "conference.test"])
    def test_to_a_domain_that_is_not_reached_it_is_an_error(self, to: str) -> None:
        """A client that joins a room elsewhere is told; that it leaves again is not worth an answer."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            await juliet.tell(f"<presence id='j' to='{to}'/>", f"<presence to='{to}' type='unavailable'/>")
            assert [(condition(e), e.get("id")) for e in juliet.take()] == [("remote-server-not-found", "j")]
            await juliet.tell("<presence type='unavailable'/>")
            assert not juliet.errors()[1:]

        run(story())

    def test_how_many_are_told_is_bounded(self) -> None:
        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            for n in range(MOST):
                await juliet.tell(f"<presence to='romeo@example.net/{n}'/>")
            assert juliet.heard() == []
            await juliet.tell("<presence to='romeo@example.net/more'/>", "<presence to='romeo@example.net/1'/>")
            assert [condition(e) for e in juliet.take()] == ["resource-constraint"]

        run(story())


class TestBlocked:
    def test_who_blocks_the_sender_is_told_nothing_and_the_sender_neither(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await world.keeping.contacts.block(ROMEO, [JULIET], Origin(ROMEO, "xmpp", "h", True))
            await juliet.tell("<presence to='romeo@example.net'/>", "<presence to='romeo@example.net/o'/>")
            assert (romeo.heard(), juliet.heard()) == ([], [])

        run(story())

    def test_who_is_blocked_hears_the_end_at_once_and_nothing_after_that(self) -> None:
        """XEP-0191 section 3.3: neither by a probe, nor by the end of the device, nor by an end that it says itself."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            nurse = await login(world, "nurse@example.com/n")
            await juliet.tell("<presence to='romeo@example.net'/>", "<presence to='nurse@example.com/n'/>")
            assert romeo.heard() == nurse.heard() == ["available juliet@example.com/x"]
            await world.keeping.contacts.block(JULIET, [ROMEO], Origin(JULIET, "xmpp", "h", True))
            await world.settle()
            assert (romeo.heard(), nurse.heard()) == (["unavailable juliet@example.com/x"], [])
            await romeo.tell("<presence to='juliet@example.com/x' type='probe'/>")
            world.clock.advance(REFUSAL_TIME)
            await world.settle()
            assert "available juliet@example.com/x" not in romeo.heard()
            await juliet.tell("<presence to='romeo@example.net' type='unavailable'/>")
            assert [condition(e) for e in juliet.take()] == ["not-acceptable"]
            await juliet.tell("<presence type='unavailable'/>")
            assert (romeo.heard(), nurse.heard()) == ([], ["unavailable juliet@example.com/x"])

        run(story())

    def test_nobody_tells_whom_they_block(self) -> None:
        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            await world.keeping.contacts.block(JULIET, [ROMEO], Origin(JULIET, "xmpp", "h", True))
            await juliet.tell("<presence to='romeo@example.net'/>")
            assert [condition(e) for e in juliet.take()] == ["not-acceptable"]

        run(story())


def test_a_sealed_document_goes_whole() -> None:
    """XMPP-18, RFC 3923 section 4.1: octet for octet, whatever is in it."""

    async def story() -> None:
        world = await start()
        romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
        sealed = MimeObject.of("application/pkcs7-mime; smime-type=authEnveloped-data", bytes(range(256)))
        child = wrap_octets(sealed.entity)
        await juliet.send(Element("{jabber:client}presence", {"to": "romeo@example.net"}, [child]))
        (seen,) = romeo.take()
        (arrived,) = [e for e in seen.elements() if e.name == child.name]
        assert arrived == child

    run(story())

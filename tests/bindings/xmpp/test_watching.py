"""What an account sees of its contacts: bindings/xmpp/watching.py (RFC 6121 section 4; XMPP-13, N-01)."""

from __future__ import annotations

import asyncio

import pytest

from comity.bindings.xmpp.watching import REFUSAL_TIME, RETRY, TURN, subscript_id
from comity.cpim.address import Address
from comity.cpim.operations import Response, SubscribeOperation
from comity.cpim.presence_state import Availability, PresenceState, state_document
from comity.errors import StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Decision, Default, Granted, Statement, Terms
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, befriend, condition, login, run

USERS = ("im:juliet@example.com", "im:romeo@example.net", "im:mercutio@example.com", "im:benvolio@example.net")
ROMEO, JULIET, MERCUTIO = (Address.parse(uri) for uri in USERS[1::-1] + USERS[2:3])


async def start(**more: object) -> World:
    return await World(presence=True, users=USERS, **more).start()  # type: ignore[arg-type]  # options of the binding


async def friends(world: World) -> tuple[Client, Client]:
    """Romeo in the orchard and Juliet on the balcony, who see each other."""
    romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/balcony")
    await befriend(romeo, juliet)
    return romeo, juliet


def watchers(world: World, account: Address) -> list[str]:
    return [one.id for one in world.presence.watchers(account)]


class TestComingAndGoing:
    """Sections 4.2 to 4.5 between two people."""

    def test_the_current_state_is_shown_to_who_comes(self) -> None:
        """Section 4.3: what a probe brings, from every device, whole."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await juliet.tell("<presence><show>dnd</show><status>busy!</status><x xmlns='urn:x'>y</x></presence>")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence><show>away</show><priority>-1</priority></presence>")
            await romeo.tell("<presence type='unavailable'/>")
            romeo.take()
            await romeo.tell("<presence/>")
            seen = {s.get("from"): s for s in romeo.take() if s.get("from").startswith("juliet")}
            assert set(seen) == {"juliet@example.com/balcony", "juliet@example.com/chamber"}
            balcony = seen["juliet@example.com/balcony"]
            assert [(e.local, e.text) for e in balcony.elements()] == [
                ("show", "dnd"),
                ("status", "busy!"),
                ("x", "y"),
            ]
            assert balcony.get("to") == "romeo@example.net"
            (priority,) = seen["juliet@example.com/chamber"].find_all("{jabber:client}priority")
            assert priority.text == "-1"

        run(story())

    def test_every_change_is_told_to_all_available_devices(self) -> None:
        """Sections 4.4.2 and 4.4.3; a device that is connected and not available is told nothing."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            phone = await login(world, "romeo@example.net/phone")
            mute = await world.connect("romeo@example.net/mute")
            for client in (romeo, mute):
                client.take()
            await juliet.tell("<presence><show>away</show></presence>")
            for client in (romeo, phone):
                assert client.heard() == ["available juliet@example.com/balcony away"]
            assert mute.heard() == []
            await juliet.tell("<presence><show>away</show></presence>")
            assert romeo.heard() == [], "nothing changed"
            await juliet.tell("<presence type='unavailable'><status>going on vacation</status></presence>")
            assert romeo.heard() == ["unavailable juliet@example.com/balcony going on vacation"]

        run(story())

    def test_a_later_device_is_shown_what_the_account_knows(self) -> None:
        async def story() -> None:
            world = await start()
            _, juliet = await friends(world)
            await juliet.tell("<presence><show>xa</show></presence>")
            phone = await world.connect("romeo@example.net/phone")
            await phone.tell("<presence/>")
            assert "available juliet@example.com/balcony xa" in phone.heard()
            assert watchers(world, JULIET) == [subscript_id(ROMEO, JULIET)], "one subscription for the account"

        run(story())

    def test_with_the_last_device_watching_ends(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, _ = await friends(world)
            phone = await login(world, "romeo@example.net/phone")
            await romeo.tell("<presence type='unavailable'/>")
            assert watchers(world, JULIET)
            await phone.tell("<presence type='unavailable'/>")
            assert not watchers(world, JULIET)
            await phone.tell("<presence/>")
            assert watchers(world, JULIET)
            assert phone.heard()[-1] == "available juliet@example.com/balcony"

        run(story())

    def test_who_comes_and_goes_at_once_leaves_nothing_behind(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, _ = await friends(world)
            await romeo.tell("<presence type='unavailable'/>")
            for _ in range(5):
                await romeo.tell("<presence/>", "<presence type='unavailable'/>")
            assert not watchers(world, JULIET)
            assert ROMEO.key not in world.binding._watching._watches

        run(story())

    def test_a_device_of_another_protocol_is_seen_as_a_resource(self) -> None:
        """One presence, whatever protocol: Juliet's telephone."""

        async def story() -> None:
            world = await start()
            romeo, _ = await friends(world)
            when = world.clock.when()
            document = state_document(JULIET, "desk", PresenceState(Availability.CHAT), when)
            world.presence.publish(JULIET, Statement(document), Origin(JULIET, "sip", "h", True), key="sip")
            await world.settle()
            (heard,) = romeo.heard()
            assert heard.startswith("available juliet@example.com/")
            assert heard.endswith(" chat")

        run(story())

    def test_one_device_that_is_away_does_not_make_the_others_so(self) -> None:
        """T9: the person a document of XMPP holds is of its own tuple."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await juliet.tell("<presence><show>dnd</show></presence>")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence/>")
            assert romeo.heard() == ["available juliet@example.com/balcony dnd", "available juliet@example.com/chamber"]

        run(story())

    def test_after_a_restart_who_is_there_sees_who_comes(self) -> None:
        """N-17's quiet sister: nothing of the live state is kept, all of it comes back by itself."""

        async def story() -> None:
            world = await start()
            await friends(world)
            again = await World(former=world, presence=True, users=USERS).start()
            romeo = await login(again, "romeo@example.net/orchard")
            juliet = await again.connect("juliet@example.com/balcony")
            await juliet.tell("<presence/>")
            assert romeo.heard() == ["available juliet@example.com/balcony"]
            assert "available romeo@example.net/orchard" in juliet.heard()

        run(story())

    def test_contacts_are_watched_as_soon_as_the_store_is_there_again(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, _ = await friends(world)
            await romeo.tell("<presence type='unavailable'/>")
            romeo.take()
            real = world.keeping.contacts.roster

            async def broken(account: Address) -> object:
                raise StoreError("the disk is gone")

            world.keeping.contacts.roster = broken  # type: ignore[method-assign, assignment]  # a store as in F-DISK
            await romeo.tell("<presence/>")
            assert romeo.heard() == ["available romeo@example.net/orchard"]
            world.keeping.contacts.roster = real  # type: ignore[method-assign]  # as ever
            world.clock.advance(RETRY)
            await world.settle()
            assert romeo.heard() == ["available juliet@example.com/balcony"]

        run(story())


class TestLoss:
    """Section 4.5.2, XMPP-14."""

    def test_a_connection_that_breaks_makes_unavailable_at_once(self) -> None:
        """Without stream management there is nothing to come back to: the stanza is ours, from the full JID."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            plain = await world.connect("juliet@example.com/plain", sm=False)
            await plain.tell("<presence/>")
            romeo.take(), juliet.take()
            await plain.lose()
            assert romeo.heard() == ["unavailable juliet@example.com/plain"]
            assert juliet.heard() == ["unavailable juliet@example.com/plain"]

        run(story())

    def test_a_stream_that_may_be_resumed_is_there_until_its_time_is_over(self) -> None:
        """As Prosody and ejabberd do: a train in a tunnel is not an absence."""

        async def story() -> None:
            world = await start(sm_resume=300.0)
            romeo, juliet = await friends(world)
            await juliet.lose()
            world.clock.advance(299.0)
            await world.settle()
            assert romeo.heard() == []
            world.clock.advance(1.0)
            await world.settle()
            assert romeo.heard() == ["unavailable juliet@example.com/balcony"]

        run(story())

    def test_a_resumed_stream_was_never_away(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await juliet.lose()
            again = await world.connect("juliet@example.com/balcony", resume=juliet.session.sm_state)
            world.clock.advance(301.0)
            await world.settle()
            assert romeo.heard() == []
            await again.tell("<presence><show>away</show></presence>")
            assert romeo.heard() == ["available juliet@example.com/balcony away"]

        run(story())

    def test_a_resumed_stream_is_told_what_it_missed_and_no_more(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            mercutio = await login(world, "mercutio@example.com/tomb")
            await befriend(romeo, mercutio)
            benvolio = await login(world, "benvolio@example.net/street")
            await befriend(romeo, benvolio)
            await romeo.lose()
            for show in ("away", "dnd", "xa"):
                await juliet.tell(f"<presence><show>{show}</show></presence>")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence/>")
            await mercutio.tell("<presence type='unavailable'/>")
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            assert sorted(again.heard()) == [
                "available juliet@example.com/balcony xa",
                "available juliet@example.com/chamber",
                "unavailable mercutio@example.com/tomb",
            ]
            await juliet.tell("<presence/>")
            assert again.heard() == ["available juliet@example.com/balcony"]

        run(story())

    def test_nothing_is_missed_between_the_end_of_the_octets_and_that_of_the_connection(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            phone = await login(world, "romeo@example.net/phone")
            romeo.take()
            assert romeo.link.session is not None
            romeo.link.session.receive_eof(world.clock.now())
            romeo.link.pump()
            document = state_document(JULIET, "ID-desk", PresenceState(Availability.DND), world.clock.when())
            origin = Origin(JULIET, "xmpp", "h", True)
            world.presence.publish(JULIET, Statement(document, keeps_ids=True), origin, key="desk")
            await phone.tell("<presence><show>away</show></presence>")
            assert romeo.link.is_closed
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            assert sorted(again.heard()) == [
                "available juliet@example.com/desk dnd",
                "available romeo@example.net/phone away",
            ]
            await juliet.tell("<presence><show>xa</show></presence>")
            assert again.heard() == ["available juliet@example.com/balcony xa"]

        run(story())

    def test_who_lets_itself_be_seen_no_more_is_gone_for_a_resumed_stream_too(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await romeo.lose()
            await juliet.tell("<presence to='romeo@example.net' type='unsubscribed'/>")
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            assert sorted(again.heard()) == [
                "push: juliet@example.com from",
                "unavailable juliet@example.com/balcony",
                "unsubscribed juliet@example.com",
            ]

        run(story())

    def test_a_live_stream_that_is_taken_over_misses_nothing(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            romeo.link.is_cut = True  # dead, but TCP has not noticed
            await juliet.tell("<presence><show>away</show></presence>")
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            assert again.heard() == ["available juliet@example.com/balcony away"]

        run(story())

    @pytest.mark.parametrize("act", ["block", "polite", "refuse", "nothing"])
    def test_what_waited_for_a_lost_stream_is_not_told_after_a_no(self, act: str) -> None:
        """G9: the state that was held back is never shown; that the contact is gone is."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            romeo.session._write(Element("{urn:xmpp:csi:0}inactive"))
            await world.settle()
            await juliet.tell("<presence><show>away</show></presence>")
            await romeo.lose()
            origin = Origin(JULIET, "xmpp", "h", True)
            if act == "block":
                await world.keeping.contacts.block(JULIET, [ROMEO], origin)
            elif act != "nothing":
                decision = Decision.POLITE if act == "polite" else Decision.REFUSED
                await world.presence.answer(JULIET, ROMEO, decision, origin)
            await world.settle()
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            heard = [words for words in again.heard() if "balcony" in words]
            if act == "nothing":
                assert heard == ["available juliet@example.com/balcony away"]
            else:
                assert heard == ["unavailable juliet@example.com/balcony"]

        run(story())

    def test_who_went_while_nobody_looked_is_gone_when_the_stream_goes_on(self) -> None:
        """An end that was held back is told, whatever was decided after it: nobody stays open."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            romeo.session._write(Element("{urn:xmpp:csi:0}inactive"))
            await world.settle()
            await juliet.tell("<presence type='unavailable'/>")
            await romeo.lose()
            await world.presence.answer(JULIET, ROMEO, Decision.POLITE, Origin(JULIET, "xmpp", "h", True))
            await world.settle()
            again = await world.connect("romeo@example.net/orchard", resume=romeo.session.sm_state)
            assert again.heard() == ["unavailable juliet@example.com/balcony"]

        run(story())

    def test_who_looks_away_is_told_the_last_state_when_it_looks(self) -> None:
        """XEP-0352."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            romeo.session._write(Element("{urn:xmpp:csi:0}inactive"))
            await world.settle()
            for show in ("away", "dnd", "xa"):
                await juliet.tell(f"<presence><show>{show}</show></presence>")
            assert romeo.heard() == []
            romeo.session._write(Element("{urn:xmpp:csi:0}active"))
            await world.settle()
            assert romeo.heard() == ["available juliet@example.com/balcony xa"]

        run(story())


class TestDecisions:
    """What the contact decides is seen at once (ACL-10, G9)."""

    def test_polite_blocking_looks_like_going_offline(self) -> None:
        """ACL-11."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            origin = Origin(JULIET, "xmpp", "h", True)
            await world.presence.answer(JULIET, ROMEO, Decision.POLITE, origin)
            await world.settle()
            assert romeo.heard() == ["unavailable juliet@example.com/balcony"]
            await juliet.tell("<presence><show>away</show></presence>")
            await juliet.tell("<presence type='unavailable'/>")
            await juliet.tell("<presence/>")
            assert romeo.heard() == []

        run(story())

    def test_a_request_granted_from_elsewhere_is_seen_at_once(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/orchard"), await login(world, "juliet@example.com/x")
            await romeo.tell("<presence to='juliet@example.com' type='subscribe'/>")
            romeo.take(), juliet.take()
            await world.presence.set_default(JULIET, Default.EVERYONE, Origin(JULIET, "admin", "", True))
            await world.presence.answer(JULIET, ROMEO, Decision.ALLOWED, Origin(JULIET, "admin", "", True))
            await world.settle()
            assert romeo.heard()[-1] == "available juliet@example.com/x"

        run(story())

    def test_a_contact_list_of_hundreds_is_watched_whole(self) -> None:
        """More than the subscriptions one may make by hand; each contact is seen once, none forgotten."""

        async def story() -> None:
            many = [f"im:u{n}@example.com" for n in range(520)]
            world = await World(presence=True, users=(*USERS, *many)).start()
            romeo = await world.connect("romeo@example.net/orchard")
            for n, uri in enumerate(many):
                contact = Address.parse(uri)
                origin = Origin(contact, "xmpp", "h", True)
                await world.presence.answer(contact, ROMEO, Decision.ALLOWED, origin)
                document = state_document(contact, "ID-x", PresenceState(Availability.AVAILABLE), world.clock.when())
                world.presence.publish(contact, Statement(document, keeps_ids=True), origin, key="x")
                await romeo.tell(f"<presence to='{uri[3:]}' type='subscribe'/>")
                if n % 100 == 0:
                    world.clock.advance(60.0)  # below the rate of stanzas
            world.clock.advance(60.0)
            await world.settle()
            romeo.take()
            await romeo.tell("<presence/>")
            seen: list[str] = []
            while len(seen) < len(many) and (heard := await _more(world, romeo)):
                seen += [s.get("from") for s in heard if s.local == "presence" and s.get("from").endswith("/x")]
            assert sorted(seen) == sorted(f"{uri[3:]}/x" for uri in many)

        run(story())

    def test_a_long_contact_list_holds_up_nobody(self) -> None:
        """Between a few contacts and the next few others have their turn; who is gone meanwhile is no longer watched for."""

        async def story() -> None:
            many = [f"im:u{n}@example.com" for n in range(200)]
            world = await World(presence=True, users=(*USERS, *many)).start()
            romeo = await world.connect("romeo@example.net/orchard")
            for uri in many:
                origin = Origin(Address.parse(uri), "xmpp", "h", True)
                await world.presence.answer(Address.parse(uri), ROMEO, Decision.ALLOWED, origin)
                await romeo.tell(f"<presence to='{uri[3:]}' type='subscribe'/>")
                world.clock.advance(1.0)  # below the rate of stanzas
            subscribe, asked, left = world.presence.subscribe, [0], [0]

            async def counted(operation: SubscribeOperation, origin: Origin, terms: Terms) -> Granted | Response:
                asked[0] += 1
                if asked[0] == 50:
                    asyncio.get_running_loop().call_soon(leave)
                return await subscribe(operation, origin, terms)

            def leave() -> None:
                (connection,) = world.binding._ground.devices.of(ROMEO)
                world.binding._availability.go_offline(connection)
                left[0] = asked[0]

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(world.presence, "subscribe", counted)
                await romeo.tell("<presence/>")
                await world.settle()
            assert left[0] - 50 <= TURN
            assert asked[0] - left[0] <= 1
            assert all(not watchers(world, Address.parse(uri)) for uri in many)

        run(story())


async def _more(world: World, client: Client) -> list[Element]:
    for _ in range(100):
        await world.settle()
        if heard := client.take():
            return heard
    return []


class TestProbes:
    """Section 4.3.2 from our own clients, whom no server stands in for."""

    @pytest.mark.parametrize("name", ["nobody", "mercutio"])
    def test_a_stranger_and_nobody_are_answered_alike(self, name: str) -> None:
        """N-01, XMPP-8."""

        async def story() -> None:
            world = await start()
            romeo, mercutio = (
                await login(world, "romeo@example.net/orchard"),
                await login(world, "mercutio@example.com/x"),
            )
            await romeo.tell(f"<presence to='{name}@example.com' type='probe' id='xv291f38'/>")
            assert romeo.heard() == []
            world.clock.advance(REFUSAL_TIME)
            await world.settle()
            (answer,) = romeo.take()
            assert answer.attributes == {
                "type": "unsubscribed",
                "from": f"{name}@example.com",
                "to": "romeo@example.net/orchard",
                "id": "xv291f38",
            }
            assert mercutio.heard() == []

        run(story())

    def test_a_friend_is_answered_for_each_device(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await juliet.tell("<presence><show>away</show></presence>")
            chamber = await world.connect("juliet@example.com/chamber")
            await chamber.tell("<presence/>")
            phone = await login(world, "romeo@example.net/phone")
            romeo.take()
            await romeo.tell("<presence to='juliet@example.com' type='probe' id='ign291v5'/>")
            assert sorted(romeo.heard()) == [
                "available juliet@example.com/balcony away",
                "available juliet@example.com/chamber",
            ]
            assert phone.heard() == [], "the answer is for who asked"
            await juliet.tell("<presence type='unavailable'/>")
            await chamber.tell("<presence type='unavailable'/>")
            romeo.take()
            await romeo.tell("<presence to='juliet@example.com' type='probe' id='probe2'/>")
            (answer,) = romeo.take()
            assert (answer.get("type"), answer.get("from")) == ("unavailable", "juliet@example.com")
            assert (answer.get("to"), answer.get("id")) == ("romeo@example.net", "probe2")

        run(story())

    def test_of_one_device_no_more_is_told_than_whether_it_is_there(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await friends(world)
            await juliet.tell("<presence><show>away</show><status>tea</status></presence>")
            romeo.take()
            await romeo.tell("<presence to='juliet@example.com/balcony' type='probe'/>")
            await romeo.tell("<presence to='juliet@example.com/other' type='probe'/>")
            assert romeo.heard() == ["available juliet@example.com/balcony", "unavailable juliet@example.com/other"]

        run(story())

    def test_everybody_sees_their_own_devices(self) -> None:
        async def story() -> None:
            world = await start()
            one, _ = await login(world, "romeo@example.net/one"), await login(world, "romeo@example.net/two")
            one.take()
            await one.tell("<presence to='romeo@example.net' type='probe'/>")
            assert sorted(one.heard()) == ["available romeo@example.net/one", "available romeo@example.net/two"]

        run(story())

    @pytest.mark.parametrize("to", ["else.test", "juliet@else.test", "example.com", "example.com/x"])
    def test_a_probe_is_never_the_cause_of_an_error(self, to: str) -> None:
        """Section 4.3."""

        async def story() -> None:
            world = await start()
            romeo = await login(world, "romeo@example.net/orchard")
            await romeo.tell(f"<presence to='{to}' type='probe'/>")
            assert romeo.heard() == []

        run(story())


def test_many_who_come_at_once_are_all_told() -> None:
    """Each of the devices is told of each contact, in whatever order what has to be looked up comes back."""

    async def story() -> None:
        world = await start()
        romeo, juliet = await friends(world)
        await romeo.tell("<presence type='unavailable'/>")
        one, two = await world.connect("romeo@example.net/1"), await world.connect("romeo@example.net/2")
        for client in (one, two):
            client.session.send_stanza(Element("{jabber:client}presence"))
        await asyncio.sleep(0)
        await juliet.tell("<presence><show>chat</show></presence>")
        for client in (one, two):
            last = [word for word in client.heard() if "juliet" in word][-1]
            assert last == "available juliet@example.com/balcony chat"

    run(story())


class TestQueries:
    """An iq to a device is answered by that device: whoever may not see it finds nobody (RFC 6121 section 8.5.3.1)."""

    QUERY = "<iq type='get' id='q' to='juliet@example.com/{}'><query xmlns='jabber:iq:version'/></iq>"

    async def _shape(self, asker: Client, resource: str) -> list[Element]:
        """What the asker gets, without what it said itself."""
        await asker.tell(self.QUERY.format(resource))
        answers = asker.take()
        for answer in answers:
            assert answer.attributes.pop("from") == f"juliet@example.com/{resource}"
        return answers

    @pytest.mark.parametrize("decision", [None, Decision.REFUSED, Decision.POLITE])
    def test_who_may_not_see_a_device_finds_nobody(self, decision: Decision | None) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            if decision is not None:
                await world.presence.answer(JULIET, ROMEO, decision, Origin(JULIET, "xmpp", "h", True))
                await world.settle()
            juliet.take()
            romeo.take()
            there, nowhere = await self._shape(romeo, "x"), await self._shape(romeo, "none")
            assert there == nowhere
            assert [condition(e) for e in there] == ["service-unavailable"]
            assert juliet.heard() == []

        run(story())

    def test_who_may_see_it_or_was_told_directly_asks_it(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await juliet.tell("<presence to='romeo@example.net/o'/>")
            await romeo.tell(self.QUERY.format("x"))
            assert [e.name for e in juliet.take()] == ["{jabber:client}iq"]
            await juliet.tell("<iq type='result' id='q' to='romeo@example.net/o'/>")
            assert romeo.take()[-1].get("type") == "result"
            await juliet.tell("<presence to='romeo@example.net/o' type='unavailable'/>")
            await romeo.tell(self.QUERY.format("x"))
            assert juliet.take() == []
            await befriend(romeo, juliet)
            juliet.take()
            await romeo.tell(self.QUERY.format("x"))
            assert [e.name for e in juliet.take()] == ["{jabber:client}iq"]

        run(story())

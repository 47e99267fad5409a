"""The contact list over XMPP: bindings/xmpp/roster.py (RFC 6121 section 2, whose examples these are)."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.mapping import Refusal
from comity.bindings.xmpp.roster import MAX_GROUPS, MAX_NAME, RosterSet, item_element, read_set, subscription_of
from comity.bindings.xmpp.session import XmppServerSession
from comity.bindings.xmpp.wire import CONDITION_TYPES
from comity.cpim.address import Address
from comity.errors import StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import ContactItem, Decision
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, befriend, condition, login, read, run

USERS = ("im:juliet@example.com", "im:nurse@example.com", "im:romeo@example.net", "im:mercutio@example.com")
GET = "<iq id='{id}' type='get'><query xmlns='jabber:iq:roster'{ver}/></iq>"
SET = "<iq id='{id}' type='set'><query xmlns='jabber:iq:roster'>{items}</query></iq>"
JULIET, NURSE = Address.parse("im:juliet@example.com"), Address.parse("im:nurse@example.com")


async def interested(world: World, jid: str) -> Client:
    """A device that asked for the list."""
    client = await world.connect(jid)
    await client.tell(GET.format(id="hu2bac18", ver=""))
    client.take()
    return client


async def put(client: Client, items: str, id: str = "rs1") -> Element:
    """A roster set; its answer. What else came stays to be taken."""
    before = len(client.stanzas)
    await client.tell(SET.format(id=id, items=items))
    return next(s for s in client.stanzas[before:] if s.get("id") == id)


def verses(client: Client) -> list[str]:
    """The versions of all lists and pushes so far."""
    queries = [s.find("{jabber:iq:roster}query") for s in client.stanzas]
    return [query.get("ver") for query in queries if query is not None]


class TestGet:
    """Sections 2.1.3, 2.1.4 and 2.2."""

    def test_an_empty_list_is_an_empty_query_with_a_version(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await world.connect("juliet@example.com/chamber")
            await juliet.tell(GET.format(id="bv1bs71f", ver=""))
            (result,) = juliet.take()
            assert (result.get("type"), result.get("id"), result.get("to")) == (
                "result",
                "bv1bs71f",
                "juliet@example.com/chamber",
            )
            query = result.find("{jabber:iq:roster}query")
            assert query is not None
            assert (query.children, query.get("ver")) == ([], "0")

        run(story())

    def test_it_holds_what_was_put_also_after_a_restart(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            await put(juliet, "<item jid='romeo@example.net' name='Romeo'><group>Friends</group></item>")
            await put(juliet, "<item jid='nurse@example.com'/>")
            await juliet.lose()
            again = await World(former=world, presence=True, users=USERS).start()
            juliet = await again.connect("juliet@example.com/balcony")
            await juliet.tell(GET.format(id="hu2bac18", ver=""))
            expected = "roster: nurse@example.com none, romeo@example.net none name=Romeo [Friends]"
            assert juliet.heard() == [expected]

        run(story())

    def test_a_get_that_holds_an_item_is_none(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await world.connect("juliet@example.com/balcony")
            payload = read("<query xmlns='jabber:iq:roster'><item jid='nurse@example.com'/></query>")
            assert condition(await juliet.ask(payload)) == "bad-request"

        run(story())

    def test_a_change_while_it_is_read_is_pushed_after_it(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await world.connect("juliet@example.com/balcony")
            gate, real = asyncio.Event(), world.keeping.contacts.roster

            async def slow(account: Address) -> object:
                found = await real(account)
                await gate.wait()
                return found

            world.keeping.contacts.roster = slow  # type: ignore[method-assign, assignment]  # the real one, later
            await juliet.tell(GET.format(id="r", ver=""))
            origin = Origin(JULIET, "sip", "192.0.2.9", True)
            await world.keeping.contacts.put(JULIET, NURSE, "Nurse", (), origin)
            await world.settle()
            assert juliet.heard() == []
            gate.set()
            await world.settle()
            assert juliet.heard() == ["roster:", "push: nurse@example.com none name=Nurse"]

        run(story())

    def test_a_store_that_fails_is_an_error_that_may_pass(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await world.connect("juliet@example.com/balcony")

            async def broken(account: Address) -> object:
                raise StoreError("the disk is gone")

            world.keeping.contacts.roster = broken  # type: ignore[method-assign, assignment]  # a store as in F-DISK
            answer = await juliet.ask(Element("{jabber:iq:roster}query"))
            assert condition(answer) == "internal-server-error"
            (error,) = answer.find_all("{jabber:client}error")
            assert error.get("type") == "wait"

        run(story())


class TestSet:
    """Sections 2.3 to 2.5."""

    def test_a_new_item_is_pushed_to_all_interested_resources_and_to_no_other(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            balcony = await interested(world, "juliet@example.com/balcony")
            chamber = await interested(world, "juliet@example.com/chamber")
            garden = await world.online("juliet@example.com/garden")
            garden.take()
            answer = await put(balcony, "<item jid='nurse@example.com' name='Nurse'><group>Servants</group></item>")
            assert (answer.get("type"), answer.children) == ("result", [])
            push = "push: nurse@example.com none name=Nurse [Servants]"
            assert (balcony.heard(), chamber.heard(), garden.heard()) == ([push, "iq result"], [push], [])

        run(story())

    def test_an_item_is_replaced_whole(self) -> None:
        """The five updates of section 2.4.1."""

        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            item = "<item jid='romeo@example.net'{}>{}</item>"
            updates = [
                (" name='Romeo'", "<group>Friends</group>", "name=Romeo [Friends]"),
                (" name='Romeo'", "<group>Friends</group><group>Lovers</group>", "name=Romeo [Friends] [Lovers]"),
                (" name='Romeo'", "<group>Lovers</group>", "name=Romeo [Lovers]"),
                ("", "", ""),
                (" name='MyRomeo'", "", "name=MyRomeo"),
                (" name=''", "", ""),
            ]
            for name, groups, expected in updates:
                assert (await put(juliet, item.format(name, groups))).get("type") == "result"
                assert juliet.heard()[0] == f"push: romeo@example.net none {expected}".strip()
            versions = [int(ver) for ver in verses(juliet)]
            assert versions == sorted(set(versions)), "each push has a later version (section 2.6.3)"

        run(story())

    def test_what_only_the_server_says_is_ignored(self) -> None:
        """Sections 2.1.2.1, 2.1.2.2 and 2.1.2.5: approved, ask and subscription are not the client's to set."""

        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            await put(juliet, "<item jid='romeo@example.net' subscription='both' ask='subscribe' approved='true'/>")
            assert juliet.heard()[0] == "push: romeo@example.net none"

        run(story())

    @pytest.mark.parametrize(
        ("items", "expected"),
        [
            ("", "bad-request"),
            ("<item jid='nurse@example.com'/><item jid='mother@example.com'/>", "bad-request"),
            ("<item/>", "bad-request"),
            ("<item xmlns='urn:other' jid='nurse@example.com'/>", "bad-request"),
            ("<item jid='@@'/>", "jid-malformed"),
            (f"<item jid='nurse@example.com' name='{'x' * (MAX_NAME + 1)}'/>", "not-acceptable"),
            ("<item jid='nurse@example.com'><group>Servants</group><group>Servants</group></item>", "bad-request"),
            ("<item jid='nurse@example.com'><group></group></item>", "not-acceptable"),
            (f"<item jid='nurse@example.com'><group>{'x' * (MAX_NAME + 1)}</group></item>", "not-acceptable"),
            (
                "<item jid='nurse@example.com'>"
                + "".join(f"<group>{n}</group>" for n in range(MAX_GROUPS + 1))
                + "</item>",
                "not-acceptable",
            ),
            ("<item jid='juliet@example.com'/>", "not-allowed"),
            ("<item jid='juliet@example.com' subscription='remove'/>", "not-allowed"),
            ("<item jid='nurse@example.com/chamber'/>", "not-acceptable"),
            ("<item jid='example.com'/>", "not-acceptable"),
            ("<item jid='nobody@example.com' subscription='remove'/>", "item-not-found"),
        ],
    )
    def test_what_section_2_3_3_refuses_changes_nothing(self, items: str, expected: str) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            await put(juliet, "<item jid='nurse@example.com' name='Nurse'/>")
            juliet.take()
            assert condition(await put(juliet, items)) == expected
            assert not [s for s in juliet.take() if s.get("type") == "set"]
            assert (await world.keeping.contacts.item(JULIET, NURSE)).name == "Nurse"

        run(story())

    def test_nobody_changes_the_list_of_somebody_else(self) -> None:
        """Section 2.3.3, "Roster set initiated by unauthorized entity"; the same whether there is such a user or not (T17)."""

        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            romeo = await interested(world, "romeo@example.net/orchard")
            payload = "<query xmlns='jabber:iq:roster'><item jid='nurse@example.com'/></query>"
            for to in ("romeo@example.net", "nobody@example.net"):
                assert condition(await juliet.ask(read(payload), to, "set", id=to)) == "forbidden"
            for to in ("romeo@example.net/orchard", "example.net", "romeo@else.test"):
                assert condition(await juliet.ask(read(payload), to, "set", id=to)) in (
                    "service-unavailable",
                    "not-allowed",
                )
            assert romeo.heard() == []
            assert (await world.keeping.contacts.roster(Address.parse("im:romeo@example.net"))).items == ()

        run(story())

    def test_more_than_the_list_holds_is_refused(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            world.keeping.pairs.limits = type(world.keeping.pairs.limits)(contacts=1)
            juliet = await interested(world, "juliet@example.com/balcony")
            assert (await put(juliet, "<item jid='romeo@example.net'/>")).get("type") == "result"
            assert condition(await put(juliet, "<item jid='nurse@example.com'/>")) == "resource-constraint"

        run(story())

    def test_requests_are_done_in_the_order_in_which_they_were_sent(self) -> None:
        """XMPP-4: although each waits for the store."""

        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            item = "<item jid='romeo@example.net' name='{}'/>"
            texts = [SET.format(id=str(n), items=item.format(n)) for n in range(20)]
            await juliet.tell(*texts, SET.format(id="x", items="<item jid='romeo@example.net' subscription='remove'/>"))
            answers = [s.get("id") for s in juliet.stanzas if s.get("type") == "result" and not s.children]
            assert answers == [*map(str, range(20)), "x"]
            assert juliet.heard()[-2:] == ["push: romeo@example.net remove", "iq result"]

        run(story())


class TestRemove:
    """Section 2.5."""

    def test_removal_ends_what_was_between_the_two_in_both_directions(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet, nurse = await login(world, "juliet@example.com/balcony"), await login(world, "nurse@example.com/k")
            await befriend(juliet, nurse)
            await put(juliet, "<item jid='nurse@example.com' subscription='remove'/>", "hm4hs97y")
            heard = juliet.heard()
            assert [word for word in heard if not word.startswith("push")] == [
                "unavailable nurse@example.com/k",
                "iq result",
            ]
            assert [word for word in heard if word.startswith("push")][-1] == "push: nurse@example.com remove"
            heard = nurse.heard()
            assert sorted(word for word in heard if not word.startswith("push")) == [
                "unavailable juliet@example.com/balcony",
                "unsubscribe juliet@example.com",
                "unsubscribed juliet@example.com",
            ]
            assert heard[-1] == "push: juliet@example.com none"

        run(story())

    def test_an_item_that_is_not_there_is_not_found(self) -> None:
        """The example of section 2.5.3, its error type too."""

        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            answer = await put(juliet, "<item jid='romeo@example.net' subscription='remove'/>", "uj4b1ca8")
            assert condition(answer) == "item-not-found"
            (error,) = answer.find_all("{jabber:client}error")
            assert error.get("type") == "modify"

        run(story())


class TestVersions:
    """Section 2.6."""

    def test_both_features_are_announced(self) -> None:
        """Sections 2.6.1 and 3.4."""

        async def story() -> None:
            for presence in (True, False):
                world = await World(presence=presence, users=USERS).start()
                names = {f.name for f in offered(world)}
                both = {"{urn:xmpp:features:rosterver}ver", "{urn:xmpp:features:pre-approval}sub"}
                assert both & names == (both if presence else set())

        run(story())

    def test_what_changed_meanwhile_is_pushed_and_nothing_else(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            for name in ("romeo@example.net", "nurse@example.com", "mercutio@example.com"):
                await put(juliet, f"<item jid='{name}'/>")
            cached = verses(juliet)[-1]
            await put(juliet, "<item jid='romeo@example.net' subscription='remove'/>")
            await put(juliet, "<item jid='nurse@example.com' name='Nurse'/>")
            await put(juliet, "<item jid='nurse@example.com' name='Angelica'/>")
            again = await world.connect("juliet@example.com/chamber")
            await again.tell(GET.format(id="r1h3vzp7", ver=f" ver='{cached}'"))
            assert again.heard() == [
                "iq result",
                "push: romeo@example.net remove",
                "push: nurse@example.com none name=Angelica",
            ]
            await again.tell(GET.format(id="r2", ver=f" ver='{verses(again)[-1]}'"))
            assert again.heard() == ["iq result"], "nothing changed since the last push"

        run(story())

    @pytest.mark.parametrize("ver", ["", "ver14", "99999999999999999999", "-1", "98765432109876543"])
    def test_a_version_that_is_not_known_gets_the_whole_list(self, ver: str) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            await put(juliet, "<item jid='romeo@example.net'/>")
            juliet.take()
            await juliet.tell(GET.format(id="r", ver=f" ver='{ver}'"))
            assert juliet.heard() == ["roster: romeo@example.net none"]

        run(story())


def offered(world: World) -> list[Element]:
    """The stream features of a client that has signed in."""
    session = world.binding.new_session(world.link(), "client")
    assert isinstance(session, XmppServerSession)
    session._account = object()  # type: ignore[assignment]  # any: features depend on whether there is one
    return list(session._features().elements())


class TestPush:
    """Section 2.1.6."""

    @pytest.mark.parametrize("kind", ["result", "error"])
    def test_whatever_a_client_answers_is_taken(self, kind: str) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            juliet = await interested(world, "juliet@example.com/balcony")
            await put(juliet, "<item jid='romeo@example.net'/>")
            push = next(s for s in juliet.take() if s.get("type") == "set")
            assert push.get("from") in ("", "juliet@example.com")
            await juliet.tell(f"<iq type='{kind}' id='{push.get('id')}'/>")
            assert juliet.heard() == []

        run(story())

    def test_a_resumed_stream_gets_what_it_missed(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS).start()
            balcony = await interested(world, "juliet@example.com/balcony")
            chamber = await interested(world, "juliet@example.com/chamber")
            await chamber.lose()
            await put(balcony, "<item jid='romeo@example.net'/>")
            again = await world.connect("juliet@example.com/chamber", resume=chamber.session.sm_state)
            await put(balcony, "<item jid='romeo@example.net' name='Romeo'/>")
            assert again.heard() == ["push: romeo@example.net none", "push: romeo@example.net none name=Romeo"]

        run(story())

    def test_a_stream_for_which_too_much_waits_is_not_resumed(self) -> None:
        """A push that could not be kept must not be missed: the client signs in anew and asks for the list."""

        async def story() -> None:
            world = await World(presence=True, users=USERS, sm_queue=40).start()
            chamber = await interested(world, "juliet@example.com/chamber")
            await chamber.lose()
            origin = Origin(JULIET, "sip", "192.0.2.9", True)
            for n in range(42):
                await world.keeping.contacts.put(JULIET, NURSE, str(n), (), origin)
            again = await world.connect("juliet@example.com/chamber", resume=chamber.session.sm_state)
            await again.tell(GET.format(id="r", ver=""))
            assert "roster: nurse@example.com none name=41" in again.heard()

        run(story())


@pytest.mark.parametrize(
    ("sees", "decision", "expected"),
    [
        (False, Decision.NONE, "none"),
        (False, Decision.REFUSED, "none"),
        (False, Decision.POLITE, "none"),
        (True, Decision.POLITE, "to"),
        (True, Decision.NONE, "to"),
        (False, Decision.ALLOWED, "from"),
        (True, Decision.ALLOWED, "both"),
    ],
)
def test_the_states_of_section_2_1_2_5(sees: bool, decision: Decision, expected: str) -> None:
    item = ContactItem(JULIET, NURSE, is_listed=True, sees=sees, decision=decision)
    assert subscription_of(item) == expected


def test_an_item_says_what_is_pending_and_what_is_approved_beforehand() -> None:
    """Sections 2.1.2.1 and 2.1.2.2."""
    item = ContactItem(JULIET, NURSE, is_listed=True, asks=True, is_preapproved=True)
    attributes = item_element(item).attributes
    assert attributes == {"jid": "nurse@example.com", "subscription": "none", "ask": "subscribe", "approved": "true"}


def test_without_presence_the_list_is_empty_and_stays_so() -> None:
    """SEED-45: a client goes on, messages work (``test_availability.py``)."""

    async def story() -> None:
        world = await World(users=USERS).start()
        juliet = await interested(world, "juliet@example.com/balcony")
        assert condition(await put(juliet, "<item jid='romeo@example.net'/>")) == "not-allowed"
        await juliet.tell(GET.format(id="r", ver=""))
        assert juliet.heard()[-1] == "roster:"

    run(story())


_TEXT = st.one_of(
    st.text(max_size=20), st.sampled_from(["nurse@example.com", "a@b/c", "example.com", "remove", "x" * 1100])
)


@given(
    items=st.lists(
        st.tuples(
            st.sampled_from(["{jabber:iq:roster}item", "{jabber:iq:roster}group", "{urn:x}item"]),
            st.dictionaries(st.sampled_from(["jid", "name", "subscription", "ask", "approved"]), _TEXT),
            st.lists(_TEXT, max_size=3),
        ),
        max_size=3,
    )
)
def test_any_roster_set_is_read_or_refused(items: list[tuple[str, dict[str, str], list[str]]]) -> None:
    """It never raises, and what is read keeps the limits."""
    query = Element("{jabber:iq:roster}query")
    for name, attributes, groups in items:
        query.append(Element(name, attributes, [Element("{jabber:iq:roster}group", {}, [text]) for text in groups]))
    made = read_set(query, JULIET)
    if isinstance(made, Refusal):
        assert made.condition in CONDITION_TYPES
        return
    assert isinstance(made, RosterSet)
    assert made.contact.local
    assert made.contact.key != JULIET.key
    assert all(0 < len(group.encode()) <= MAX_NAME for group in made.groups)
    assert len(made.name.encode()) <= MAX_NAME

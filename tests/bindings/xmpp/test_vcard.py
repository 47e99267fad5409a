"""Cards and private settings: bindings/xmpp/vcard.py (XEP-0054, XEP-0049, whose examples these are)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp.pubsub import kept_element
from comity.cpim.address import Address
from comity.service.interfaces import Origin
from comity.xml import Element, serialize
from tests.bindings.xmpp.test_personal import USERS, ask, does, start
from tests.bindings.xmpp.world import World, condition, read, run

JULIET, ROMEO = Address.parse(USERS[0]), Address.parse(USERS[1])
CARD = "<vCard xmlns='vcard-temp'><FN>Juliet Capulet</FN><N><FAMILY>Capulet</FAMILY></N><PHOTO><BINVAL>eA==</BINVAL></PHOTO></vCard>"
ASK = "<vCard xmlns='vcard-temp'/>"
MARKS = "<storage xmlns='storage:bookmarks'><conference jid='a@b' name='Ü'><nick>Jule</nick></conference></storage>"


def private(inner: str) -> str:
    return f"<query xmlns='jabber:iq:private'>{inner}</query>"


def payload(answer: Element) -> Element:
    assert answer.get("type") == "result", answer
    return next(answer.elements())


class TestCards:
    def test_a_card_is_kept_as_it_came_and_outlives_a_restart(self) -> None:
        async def story() -> None:
            world = await start()
            juliet = await world.connect("juliet@example.com/desk")
            assert condition(await ask(juliet, "get", ASK)) == "item-not-found"
            await does(juliet, CARD)
            again = await World(presence=True, users=USERS, former=world).start()
            juliet = await again.connect("juliet@example.com/phone")
            for to in ("", "juliet@example.com"):
                assert payload(await ask(juliet, "get", ASK, to)) == read(CARD)

        run(story())

    def test_everybody_here_may_read_it_and_nobody_else_change_it(self) -> None:
        """As with other servers; section 3.3."""

        async def story() -> None:
            world = await start()
            juliet, romeo = await world.connect("juliet@example.com/desk"), await world.connect("romeo@example.com/x")
            await does(juliet, CARD)
            answer = await ask(romeo, "get", ASK, "juliet@example.com")
            assert payload(answer) == read(CARD)
            assert answer.get("from") == "juliet@example.com"
            assert condition(await ask(romeo, "set", CARD, "juliet@example.com")) == "forbidden"

        run(story())

    def test_no_card_no_user_and_blocked_look_alike(self) -> None:
        """XMPP-8, XEP-0191 section 3.3."""

        async def story() -> None:
            world = await start()
            juliet, romeo = await world.connect("juliet@example.com/desk"), await world.connect("romeo@example.com/x")
            answers = [await ask(romeo, "get", ASK, f"{user}@example.com") for user in ("paris", "nobody")]
            await does(juliet, CARD)
            await world.presence.contacts.block(JULIET, [ROMEO], Origin(JULIET, "xmpp", "192.0.2.1", True))
            answers.append(await ask(romeo, "get", ASK, "juliet@example.com"))
            assert [condition(answer) for answer in answers] == ["service-unavailable"] * 3
            assert len({str(list(answer.elements())) for answer in answers}) == 1

        run(story())

    def test_too_large_a_card_is_refused_and_the_last_one_stands(self) -> None:
        async def story() -> None:
            world = await World(presence=True, users=USERS, stanza=1024 * 1024, user_octets=1_000_000_000).start()
            juliet = await world.connect("juliet@example.com/desk")
            await does(juliet, CARD)
            big = read(CARD)
            big.append("e" * 600_000)
            assert condition(await juliet.ask(big, kind="set", id="big")) == "policy-violation"
            assert payload(await ask(juliet, "get", ASK)) == read(CARD)

        run(story())

    def test_what_grows_by_being_written_can_still_be_read(self) -> None:
        """A quotation mark is one octet when it comes and six when it is kept."""
        card = Element("{vcard-temp}vCard", {"x": "'" * 50_000}, ["\r" * 50_000])
        octets = serialize(card)
        assert len(octets) > 256 * 1024
        assert kept_element(octets) == card


class TestPrivateStorage:
    def test_what_is_stored_comes_back(self) -> None:
        """Section 2."""

        async def story() -> None:
            world = await start()
            juliet = await world.connect("juliet@example.com/desk")
            empty = "<storage xmlns='storage:bookmarks'/>"
            assert payload(await ask(juliet, "get", private(empty))) == read(private(empty))
            await does(juliet, private(MARKS))
            await does(juliet, private("<exodus xmlns='exodus:prefs'><a/></exodus>"))
            assert payload(await ask(juliet, "get", private(empty))) == read(private(MARKS))

        run(story())

    @pytest.mark.parametrize("to", ["juliet@example.com", "nobody@example.com"])
    def test_nobody_else_reads_or_writes_it(self, to: str) -> None:
        """Section 4, example 7."""

        async def story() -> None:
            world = await start()
            juliet, romeo = await world.connect("juliet@example.com/desk"), await world.connect("romeo@example.com/x")
            await does(juliet, private(MARKS))
            for kind in ("get", "set"):
                assert (
                    condition(await ask(romeo, kind, private("<storage xmlns='storage:bookmarks'/>"), to))
                    == "forbidden"
                )

        run(story())

    @pytest.mark.parametrize(
        ("kind", "inner", "expected"),
        [
            ("set", "", "not-acceptable"),
            ("get", "", "not-acceptable"),
            ("set", "<query xmlns='jabber:iq:auth'/>", "not-acceptable"),
            ("set", "<vCard xmlns='vcard-temp'/>", "not-acceptable"),
            ("get", "<a xmlns='urn:a'/><b xmlns='urn:b'/>", "bad-request"),
        ],
    )
    def test_what_is_not_a_clients_own_is_refused(self, kind: str, inner: str, expected: str) -> None:
        async def story() -> None:
            world = await start()
            juliet = await world.connect("juliet@example.com/desk")
            assert condition(await ask(juliet, kind, private(inner))) == expected

        run(story())

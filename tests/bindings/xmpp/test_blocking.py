"""The blocking command: bindings/xmpp/blocking.py (XEP-0191)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp import queries
from comity.xml import Element
from tests.bindings.xmpp.world import Client, World, befriend, condition, login, read, run

USERS = ("im:juliet@example.com", "im:romeo@example.net", "im:nurse@example.com")
LIST = "<iq type='get' id='l'><blocklist xmlns='urn:xmpp:blocking'/></iq>"


async def start() -> World:
    return await World(presence=True, users=USERS).start()


async def change(client: Client, name: str, *others: str) -> Element:
    """Block or unblock; the answer. What else came stays to be taken."""
    before = len(client.stanzas)
    items = "".join(f"<item jid='{other}'/>" for other in others)
    await client.tell(f"<iq type='set' id='b'><{name} xmlns='urn:xmpp:blocking'>{items}</{name}></iq>")
    return next(s for s in client.stanzas[before:] if s.get("id") == "b")


class TestList:
    def test_it_is_kept_and_shown(self) -> None:
        """Sections 3.2 to 3.5: a domain too, and over a restart."""

        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            assert (await change(juliet, "block", "romeo@example.net", "else.test")).get("type") == "result"
            again = await World(former=world, presence=True, users=USERS).start()
            juliet = await again.connect("juliet@example.com/x")
            await juliet.tell(LIST)
            assert juliet.heard() == ["iq result blocklist else.test romeo@example.net"]
            assert (await change(juliet, "unblock")).get("type") == "result"
            juliet.take()
            await juliet.tell(LIST)
            assert juliet.heard() == ["iq result blocklist"]

        run(story())

    def test_changes_are_pushed_to_those_who_asked_for_it(self) -> None:
        async def story() -> None:
            world = await start()
            one, two = await login(world, "juliet@example.com/1"), await login(world, "juliet@example.com/2")
            other = await login(world, "juliet@example.com/3")
            for client in (one, two):
                await client.tell(LIST)
                client.take()
            await change(one, "block", "romeo@example.net", "nurse@example.com")
            await change(one, "unblock", "nurse@example.com")
            await change(one, "unblock")
            assert two.heard() == [
                "iq set block romeo@example.net nurse@example.com",
                "iq set unblock nurse@example.com",
                "iq set unblock",
            ]
            assert not [word for word in other.heard() if word.startswith("iq")]

        run(story())

    @pytest.mark.parametrize(
        ("name", "others", "expected"),
        [
            ("block", (), "bad-request"),
            ("block", ("@@",), "jid-malformed"),
            ("block", ("romeo@example.net/orchard",), "not-acceptable"),
            ("block", ("juliet@example.com",), "not-allowed"),
            ("unblock", ("romeo@example.net/orchard",), "not-acceptable"),
        ],
    )
    def test_what_cannot_be_blocked_is_refused_whole(self, name: str, others: tuple[str, ...], expected: str) -> None:
        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            named = ("nurse@example.com", *others) if others else others
            assert condition(await change(juliet, name, *named)) == expected
            juliet.take()
            await juliet.tell(LIST)
            assert juliet.heard() == ["iq result blocklist"]

        run(story())

    @pytest.mark.parametrize(("name", "kind"), [("blocklist", "set"), ("block", "get"), ("other", "set")])
    def test_what_is_no_command_is_not_understood(self, name: str, kind: str) -> None:
        async def story() -> None:
            world = await start()
            juliet = await login(world, "juliet@example.com/x")
            answer = await juliet.ask(Element(f"{{urn:xmpp:blocking}}{name}"), kind=kind)
            assert condition(answer) == "service-unavailable"

        run(story())

    @pytest.mark.parametrize("presence", [True, False])
    def test_it_is_announced_where_it_is(self, presence: bool) -> None:
        async def story() -> None:
            world = await World(presence=presence, users=USERS).start()
            juliet = await login(world, "juliet@example.com/x")
            answer = await juliet.ask(Element(f"{{{queries.DISCO_INFO}}}query"), "example.com")
            query = answer.find(f"{{{queries.DISCO_INFO}}}query")
            assert query is not None
            assert (queries.BLOCKING in queries.features_of(query)) is presence
            expected = "result" if presence else "error"
            await juliet.tell(LIST)
            assert juliet.stanzas[-1].get("type") == expected

        run(story())


class TestEffect:
    """Section 3.3: what the blocked one sees is someone who went offline."""

    def test_both_lose_sight_of_each_other_and_find_each_other_again(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await befriend(romeo, juliet)
            await change(juliet, "block", "romeo@example.net")
            assert romeo.heard() == ["unavailable juliet@example.com/x"]
            assert "unavailable romeo@example.net/o" in juliet.heard()
            await juliet.tell("<presence><show>away</show></presence>")
            await romeo.tell("<presence><show>dnd</show></presence>")
            await romeo.tell("<presence to='juliet@example.com' type='probe'/>")
            assert romeo.heard() == ["available romeo@example.net/o dnd", "unavailable juliet@example.com"]
            assert not [word for word in juliet.heard() if "romeo" in word]
            await change(juliet, "unblock", "romeo@example.net")
            assert romeo.heard() == ["available juliet@example.com/x away"]
            assert "available romeo@example.net/o dnd" in juliet.heard()

        run(story())

    def test_a_blocked_request_is_never_shown_nor_answered(self) -> None:
        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await change(juliet, "block", "romeo@example.net")
            juliet.take()
            await romeo.tell("<presence to='juliet@example.com' type='subscribe'/>")
            assert romeo.heard() == ["push: juliet@example.com none ask=subscribe"]
            assert juliet.heard() == []

        run(story())

    def test_nothing_goes_to_whom_one_blocks(self) -> None:
        """Section 3.2: not-acceptable, with the reason."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await change(juliet, "block", "romeo@example.net")
            juliet.take()
            await juliet.tell(
                "<presence to='romeo@example.net'/>",
                "<presence to='romeo@example.net' type='subscribe'/>",
                "<iq type='get' id='p' to='romeo@example.net/o'><ping xmlns='urn:xmpp:ping'/></iq>",
            )
            errors = juliet.take()
            assert [condition(e) for e in errors] == ["not-acceptable"] * 3
            for error in errors:
                (inner,) = error.find_all("{jabber:client}error")
                assert inner.find("{urn:xmpp:blocking:errors}blocked") is not None
                assert inner.get("type") == "cancel"
            assert romeo.heard() == []

        run(story())

    def test_a_query_of_one_who_is_blocked_finds_nobody(self) -> None:
        """As for a device that is not there."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            query = read("<query xmlns='jabber:iq:version'/>")
            nowhere = await romeo.ask(query, "juliet@example.com/none", id="1")
            await change(juliet, "block", "example.net")
            juliet.take()
            blocked = await romeo.ask(query, "juliet@example.com/x", id="2")
            assert condition(nowhere) == condition(blocked) == "service-unavailable"
            assert juliet.heard() == []

        run(story())

    def test_messages_are_refused_both_ways(self) -> None:
        """Section 3.2 and 3.3: hers with the reason, his as for somebody who takes none (X-57)."""

        async def story() -> None:
            world = await start()
            romeo, juliet = await login(world, "romeo@example.net/o"), await login(world, "juliet@example.com/x")
            await change(juliet, "block", "romeo@example.net")
            await juliet.say("romeo@example.net", "to him")
            await romeo.say("juliet@example.com", "to her")
            assert [condition(e) for e in juliet.errors()] == ["not-acceptable"]
            assert [condition(e) for e in romeo.errors()] == ["service-unavailable"]
            assert romeo.texts() == juliet.texts() == []
            await change(juliet, "unblock")
            await romeo.say("juliet@example.com", "again")
            assert juliet.texts() == ["again"]

        run(story())

"""The access service: bindings/apex/access_service.py (RFC 3341; APEX-12, APEX-21, APEX-23, APEX-24, APEX-25)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from comity.bindings.apex.access_service import AccessService
from comity.bindings.apex.elements import Allow, Deny, Inline, Option, Part, Reply, ServiceElement, Set, Subscribe
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import WellKnown
from comity.bindings.apex.service_wire import read_service, write_service
from comity.cpim.address import Address
from comity.cpim.message_rules import MESSAGE_RULES
from comity.cpim.operations import Reason, Response
from comity.errors import StoreError
from comity.service.interfaces import Accepted, Origin
from comity.service.presence.interfaces import Decision, Default, Granted, StoredDocument
from comity.service.presence.keeping import KeepingLimits
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.bindings.apex.relay import QuietRelay, Said

FRED, WILMA, BARNEY = (f"im:{name}@example.com" for name in ("fred", "wilma", "barney"))
SERVICE = "apex=access@example.com"


class World:
    """Fred, Wilma and Barney of example.com, whose relay has the access service."""

    def __init__(self, default: Default = Default.ASK) -> None:
        self.bench = PresenceBench(accounts=[FRED, WILMA, BARNEY], keeping=KeepingLimits(default))

    async def start(self) -> World:
        await self.bench.start()
        self._wire()
        return self

    def _wire(self) -> None:
        self.bench.pipeline.inbox = self.bench.presence.keeping.inbox
        self.relay = QuietRelay(self.bench.pipeline)
        self.service = AccessService()
        self.service.start(self.relay)

    async def restart(self) -> None:
        await self.bench.crash()
        self._wire()

    async def send(self, originator: str, xml: str, *domains: str) -> list[Said]:
        """Data for the service, as XML; what it said on that. ``domains``: it comes from a relay that speaks for these."""
        who = Endpoint.parse(originator)
        element = read_service(Inline(xml.encode()))
        assert self.service.knows(element)
        origin = Origin(Address.im(who.address, who.domain), "apex", "127.0.0.1", True, domains=frozenset(domains))
        await self.service.handle(who, "example.com", element, origin)
        said = self.relay.take()
        assert {one.source for one in said} == {SERVICE}
        return said

    async def ask(self, originator: str, xml: str, *domains: str) -> ServiceElement:
        """The same with one answer, which goes to the originator."""
        (said,) = await self.send(originator, xml, *domains)
        assert said.to == originator
        return _element(said)

    async def query(self, actions: str, actor: str, owner: str = "fred@example.com") -> bool:
        """What the owner itself is told."""
        answer = await self.ask(owner, f"<query owner='{owner}' transID='7' actor='{actor}' actions='{actions}'/>")
        assert answer in (Allow(7), Deny(7))
        return answer == Allow(7)

    async def set(self, actor: str, actions: str | None, owner: str = "fred@example.com", by: str = "") -> str:
        """Get, then set; it has to be taken. The new moment."""
        by = by or owner
        got = await self.ask(by, f"<get owner='{owner}' actor='{actor}' transID='8'/>")
        last = got.access.last_update if isinstance(got, Set) else ""
        named = "" if actions is None else f" actions='{actions}'"
        moment = f" lastUpdate='{last}'" if last else ""
        xml = f"<set transID='9'><access owner='{owner}' actor='{actor}'{named}{moment}/></set>"
        reply, told = await self.send(by, xml)
        assert (reply.to, reply.element) == (by, Reply(250, 9))
        assert told.to == owner
        element = _element(told)
        assert isinstance(element, Set)
        return element.access.last_update


def _element(said: Said) -> ServiceElement:
    """As it would be read on the other side."""
    assert not isinstance(said.element, Part)
    return read_service(Inline(write_service(said.element)))


def story(work: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    """A test in a world of its own."""

    def test() -> None:
        async def main() -> None:
            await work(await World().start())

        asyncio.run(main())

    test.__name__, test.__doc__ = work.__name__, work.__doc__
    return test


def is_reply(element: ServiceElement, code: int, trans_id: int) -> bool:
    return isinstance(element, Reply) and (element.code, element.trans_id) == (code, trans_id)


def test_it_is_a_service_of_the_relay() -> None:
    service: WellKnown = AccessService()
    assert service.name == "access"
    assert not service.knows(Reply(250, 1))
    assert not service.knows(Allow(1))
    assert not service.knows(Subscribe(Endpoint.parse("fred@example.com"), 60, 1))
    assert not service.understands(Option(internal="statusRequest"))


class TestExamplesOfSection2:
    @staticmethod
    @story
    async def test_query(world: World) -> None:
        """RFC 3341 section 2.1: allow, and deny."""
        query = "<query owner='fred@example.com' transID='1' actor='barney@example.com' actions='core:data presence:subscribe'/>"
        assert await world.ask("fred@example.com", query) == Deny(1)
        await world.set("barney@example.com", "core:data presence:subscribe presence:watch")
        assert await world.ask("fred@example.com", query) == Allow(1)

    @staticmethod
    @story
    async def test_get(world: World) -> None:
        """RFC 3341 section 2.2."""
        moment = await world.set("*@example.com", "core:data presence:subscribe")
        got = await world.ask("fred@example.com", "<get transID='2' owner='fred@example.com' actor='*@example.com'/>")
        assert isinstance(got, Set)
        assert (got.trans_id, str(got.access.owner), got.access.actor) == (2, "fred@example.com", "*@example.com")
        assert got.access.actions == ("core:data", "presence:subscribe")
        assert got.access.last_update == moment
        assert datetime.fromisoformat(moment).tzinfo is not None

    @staticmethod
    @story
    async def test_wilma_sets_and_deletes_and_fred_is_told(world: World) -> None:
        """RFC 3341 section 2.3: 250 to her, the entry to him; without actions he knows that it is gone."""
        await world.set("wilma@example.com", "access:all")
        first = await world.set("*@example.com", "core:data presence:subscribe", by="wilma@example.com")
        head = "<access owner='fred@example.com' actor='*@example.com'"
        second = f"<set transID='1'>{head} actions='core:data' lastUpdate='{first}'/></set>"
        reply, told = await world.send("wilma@example.com", second)
        assert (reply.to, reply.element) == ("wilma@example.com", Reply(250, 1))
        element = _element(told)
        assert isinstance(element, Set)
        assert (told.to, element.trans_id, element.access.actions) == ("fred@example.com", 1, ("core:data",))
        later = element.access.last_update
        assert later > first
        reply, told = await world.send("wilma@example.com", f"<set transID='2'>{head} lastUpdate='{later}'/></set>")
        assert (reply.to, reply.element) == ("wilma@example.com", Reply(250, 2))
        element = _element(told)
        assert isinstance(element, Set)
        assert (told.to, element.trans_id, element.access.actions) == ("fred@example.com", 2, None)
        assert str(element.access.owner) == "fred@example.com"
        assert element.access.actor == "*@example.com"
        got = await world.ask("fred@example.com", "<get transID='3' owner='fred@example.com' actor='*@example.com'/>")
        assert is_reply(got, 551, 3)

    @staticmethod
    @story
    async def test_deleting_barney_leaves_him_what_everybody_has(world: World) -> None:
        """RFC 3341 section 2.3, APEX-23: that is what ``all:none`` is for."""
        await world.set("barney@example.com", "core:data presence:subscribe presence:watch")
        await world.set("*@example.com", "core:data")
        assert await world.query("core:data presence:subscribe presence:watch", "barney@example.com")
        await world.set("barney@example.com", None)
        assert await world.query("core:data", "barney@example.com")
        await world.set("barney@example.com", "all:none")
        assert not await world.query("core:data", "barney@example.com")
        assert await world.query("core:data", "wilma@example.com")

    @staticmethod
    @story
    async def test_the_entries_of_section_31(world: World) -> None:
        """APEX-24: fred, wilma, mr.slate, barney's whiteboard, anyone here, anyone elsewhere."""
        await world.set("wilma@example.com", "all:all")
        await world.set("mr.slate@example.com", "core:data")
        await world.set("barney/appl=wb@example.com", "core:data", owner="fred/appl=wb@example.com")
        await world.set("*@example.com", "core:data presence:subscribe presence:watch")
        await world.set("*@*", "core:data")
        everything = "core:data presence:all access:all all:all"
        for actor in ("fred", "wilma", "apex=report", "apex=presence"):
            assert await world.query(everything, f"{actor}@example.com")
        assert await world.query("core:data", "mr.slate@example.com")
        assert not await world.query("presence:subscribe", "mr.slate@example.com")
        assert await world.query("core:data", "barney/appl=wb@example.com", owner="fred/appl=wb@example.com")
        assert not await world.query("presence:watch", "barney/appl=wb@example.com", owner="fred/appl=wb@example.com")
        assert await world.query("core:data presence:subscribe presence:watch", "barney@example.com")
        assert not await world.query("presence:publish", "barney@example.com")
        for actor in ("anyone@b.example", "apex=presence@b.example"):
            assert await world.query("core:data", actor)
            assert not await world.query("presence:subscribe", actor)


class TestOrderOfTheChecks:
    REQUESTS = (
        "<query owner='{}' transID='4' actor='wilma@example.com' actions='core:data'/>",
        "<get owner='{}' transID='4' actor='wilma@example.com'/>",
        "<set transID='4'><access owner='{}' actor='wilma@example.com' actions='core:data'/></set>",
    )

    @pytest.mark.parametrize("request_", REQUESTS)
    @pytest.mark.parametrize(
        ("owner", "code"),
        [
            ("fred@elsewhere.example", 553),
            ("pebbles@example.com", 550),
            ("apex=presence@example.com", 550),
            ("fred@example.com", 537),
            ("fred/appl=wb@example.com", 537),
        ],
    )
    def test_barney_is_refused(self, request_: str, owner: str, code: int) -> None:
        """APEX-23: outside, unknown, not permitted."""

        async def main() -> None:
            world = await World().start()
            assert is_reply(await world.ask("barney@example.com", request_.format(owner)), code, 4)
            assert await world.bench.store.scan("document") == []

        asyncio.run(main())

    @pytest.mark.parametrize("request_", REQUESTS)
    def test_who_is_elsewhere_does_not_learn_who_is_here(self, request_: str) -> None:
        """T17, N-02: who has no account permits what one does who said nothing."""

        async def main() -> None:
            world = await World().start()
            answers = [
                await world.ask("mallory@b.example", request_.format(owner), "b.example")
                for owner in ("fred@example.com", "pebbles@example.com", "apex=presence@example.com")
            ]
            assert answers[0] == answers[1] == answers[2]
            assert is_reply(answers[0], 537, 4)
            await world.set("mallory@b.example", "access:all")
            said = await world.send("mallory@b.example", request_.format("fred@example.com"), "b.example")
            assert not is_reply(_element(said[0]), 537, 4)

        asyncio.run(main())

    @staticmethod
    @story
    async def test_each_operation_has_its_own_token(world: World) -> None:
        """APEX-23: access:query, access:get, access:set."""
        for number, token in enumerate(("access:query", "access:get", "access:set")):
            await world.set("barney@example.com", token)
            for other, request in enumerate(TestOrderOfTheChecks.REQUESTS):
                said = await world.send("barney@example.com", request.format("fred@example.com"))
                is_refused = is_reply(_element(said[0]), 537, 4)
                assert is_refused is (other != number)

    @staticmethod
    @story
    async def test_a_stale_moment_is_555(world: World) -> None:
        """APEX-23: no entry but a moment, an entry but none or another one."""
        head = "<set transID='5'><access owner='fred@example.com' actor='barney@example.com'"
        old = " lastUpdate='2000-05-14T13:02:00-08:00'"
        assert is_reply(await world.ask("fred@example.com", f"{head} actions='core:data'{old}/></set>"), 555, 5)
        await world.set("barney@example.com", "core:data")
        for given in ("", old):
            assert is_reply(await world.ask("fred@example.com", f"{head} actions='all:all'{given}/></set>"), 555, 5)
            assert is_reply(await world.ask("fred@example.com", f"{head}{given}/></set>"), 555, 5)
        assert await world.query("core:data", "barney@example.com")
        assert not await world.query("presence:publish", "barney@example.com")

    @staticmethod
    @story
    async def test_what_is_no_entry(world: World) -> None:
        get = "<get owner='fred@example.com' transID='6' actor='f*@example.com'/>"
        assert is_reply(await world.ask("fred@example.com", get), 501, 6)
        bad = "<set transID='6'><access owner='fred@example.com' actor='{}' actions='{}'/></set>"
        for actor, actions in (("f*@example.com", "core:data"), ("barney@example.com", "data")):
            assert is_reply(await world.ask("fred@example.com", bad.format(actor, actions)), 501, 6)
        many = " ".join(f"a:b{number}" for number in range(33))
        query = f"<query owner='fred@example.com' transID='6' actor='barney@example.com' actions='{many}'/>"
        assert is_reply(await world.ask("fred@example.com", query), 501, 6)
        refused = await world.ask("fred@example.com", bad.format("fred@example.com", "core:data"))
        assert is_reply(refused, 537, 6)

    @staticmethod
    @story
    async def test_what_cannot_be_looked_up_is_said_so(world: World) -> None:
        async def broken(*_: object, **__: object) -> bool:
            raise StoreError("the disk is gone")

        world.bench.presence.rights.may = broken  # type: ignore[method-assign]  # a store that fails
        answer = await world.ask("fred@example.com", TestOrderOfTheChecks.REQUESTS[0].format("fred@example.com"))
        assert is_reply(answer, 451, 4)

    @staticmethod
    @story
    async def test_without_presence_there_is_nothing_to_ask(world: World) -> None:
        """SEED-45: with ``[policy] presence = false`` nobody keeps rules, so nobody has entries."""
        world.bench.pipeline.presence = None
        for request in TestOrderOfTheChecks.REQUESTS:
            assert is_reply(await world.ask("fred@example.com", request.format("fred@example.com")), 421, 4)


class TestDefaultEntries:
    @staticmethod
    @story
    async def test_they_can_be_got_and_overridden(world: World) -> None:
        """RFC 3341 section 3: they have no moment, since nobody set them; the first set needs none."""
        got = await world.ask("fred@example.com", "<get transID='2' owner='fred@example.com' actor='*@*'/>")
        assert isinstance(got, Set)
        assert (got.access.actions, got.access.last_update) == (("core:data",), "")
        assert await world.query("core:data", "anyone@b.example")
        await world.set("*@*", "all:none")
        assert not await world.query("core:data", "anyone@b.example")
        assert await world.query("core:data", "apex=presence@b.example")
        await world.set("apex=*@*", "all:none")
        assert not await world.query("core:data", "apex=presence@b.example")
        assert await world.query("all:all", "apex=presence@example.com")

    @staticmethod
    @story
    async def test_escapes_are_of_actors_and_not_of_queries(world: World) -> None:
        r"""APEX-24, RFC 3341 section 3: ``a\\b\*c`` in get and set is ``a\b*c`` in query."""
        await world.set(r"a\\b\*c@example.com", "all:none")
        assert not await world.query("core:data", r"a\b*c@example.com")
        assert await world.query("core:data", r"a\bc@example.com")


class TestOneStore:
    @staticmethod
    @story
    async def test_a_rule_set_by_xcap_blocks_an_apex_sender(world: World) -> None:
        """APEX-25: no token, and no message of any protocol."""
        assert await world.query("core:data", "barney@example.com")
        rules = (
            '<ruleset xmlns="urn:ietf:params:xml:ns:common-policy"><rule id="m"><conditions><identity>'
            f'<one id="{BARNEY}"/></identity></conditions><actions>'
            f'<msg-handling xmlns="{MESSAGE_RULES}">block</msg-handling></actions></rule></ruleset>'
        )
        assert isinstance(await world.bench.rules(FRED, rules), StoredDocument)
        assert not await world.query("core:data", "barney@example.com")
        assert await world.query("core:data", "wilma@example.com")
        for binding in ("apex", "sip", "xmpp"):
            assert await _refused(world, BARNEY, FRED, binding)
            assert not await _refused(world, WILMA, FRED, binding)

    @staticmethod
    @story
    async def test_an_entry_set_by_apex_blocks_a_sip_sender_and_an_xmpp_watcher(world: World) -> None:
        """APEX-12, APEX-25: and the one who watches already is told that it is over before the setter hears 250."""
        await world.bench.answer(FRED, BARNEY)
        await world.bench.watch(BARNEY, FRED, edge="xmpp")
        world.bench.xmpp.take()
        await world.set("barney@example.com", "all:none")
        assert [(one.word, one.watcher) for one in world.bench.xmpp.take()] == [("ended", "barney")]
        for binding in ("apex", "sip", "xmpp"):
            assert await _refused(world, BARNEY, FRED, binding)
        for edge in ("apex", "sip", "xmpp"):
            refused = await world.bench.ask(BARNEY, FRED, edge=edge)
            assert isinstance(refused, Response)
            assert refused.reason is Reason.DENIED

    @staticmethod
    @story
    async def test_an_entry_set_by_apex_lets_a_sip_watcher_in(world: World) -> None:
        """APEX-25: one who waited for an answer has it."""
        waiting = await world.bench.watch(BARNEY, FRED)
        assert [one.word for one in world.bench.sip.take()] == ["pending"]
        await world.set("*@example.com", "core:data presence:subscribe")
        await settle()
        assert [(one.word, one.subscription) for one in world.bench.sip.take()] == [("notify", waiting)]

    @staticmethod
    @story
    async def test_decisions_blocks_and_rules_show_in_a_query(world: World) -> None:
        """APEX-25: ``comity account refuse``, an XMPP block, a presence rule, the default."""
        actor = "barney@example.com"
        assert not await world.query("presence:subscribe", actor)
        await world.bench.presence.set_default(Address.parse(FRED), Default.EVERYONE, world.bench.origin(FRED))
        assert await world.query("presence:subscribe", actor)
        await world.bench.answer(FRED, BARNEY, Decision.REFUSED)
        assert not await world.query("presence:subscribe", actor)
        await world.bench.answer(FRED, BARNEY, Decision.ALLOWED)
        assert await world.query("presence:subscribe core:data", actor)
        contacts, origin = world.bench.presence.contacts, world.bench.origin(FRED)
        await contacts.block(Address.parse(FRED), [Address.parse(BARNEY)], origin)
        assert not await world.query("presence:subscribe", actor)
        assert not await world.query("core:data", actor)
        await contacts.unblock(Address.parse(FRED), None, origin)
        assert await world.query("presence:subscribe core:data", actor)

    @staticmethod
    @story
    async def test_a_restart_keeps_entries(world: World) -> None:
        """APEX-21: what was answered 250 is durable, moment and all."""
        moment = await world.set("barney@example.com", "all:none")
        await world.set("*@example.com", "core:data", owner="fred/appl=wb@example.com")
        await world.restart()
        assert not await world.query("core:data", "barney@example.com")
        assert await _refused(world, BARNEY, FRED, "sip")
        assert isinstance(await world.bench.ask(BARNEY, FRED, edge="xmpp"), Response)
        got = await world.ask(
            "fred@example.com", "<get transID='2' owner='fred@example.com' actor='barney@example.com'/>"
        )
        assert isinstance(got, Set)
        assert (got.access.actions, got.access.last_update) == (("all:none",), moment)
        await world.set("barney@example.com", None)
        assert not await _refused(world, BARNEY, FRED, "sip")

    @staticmethod
    @story
    async def test_whom_an_entry_permits_watches_and_publishes(world: World) -> None:
        """APEX-25, APEX-18, APEX-19: by the tokens the presence service asks for."""
        rights = world.bench.presence.rights
        fred, barney = Address.parse(FRED), Address.parse(BARNEY)
        assert not await rights.may(fred, barney, "presence:watch")
        assert not rights.may_publish(fred, barney)
        await world.set("barney@example.com", "presence:watch presence:publish")
        assert await rights.may(fred, barney, "presence:watch")
        assert rights.may_publish(fred, barney)
        assert isinstance(await world.bench.ask(BARNEY, FRED, package="presence.winfo"), Granted)


async def _refused(world: World, sender: str, recipient: str, binding: str) -> bool:
    operation = world.bench.operation(f"hello by {binding}", sender, recipient)
    answer = await world.bench.pipeline.submit(operation, world.bench.origin(sender, binding))
    await settle()
    if isinstance(answer, Accepted):
        return False
    assert answer.reason is Reason.NO_SUCH_USER
    return True

"""Rules an account put, as its watchers meet them: from the document to what an edge is asked to tell (ACL-1 to ACL-24)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, Reason, Response
from comity.cpim.presence import PresenceDocument
from comity.cpim.presence_rules import filter_document
from comity.service.presence.interfaces import Decision, Default, Granted, Published, Statement, StoredDocument
from comity.service.presence.keeping import KeepingLimits
from comity.testing.clock import START
from comity.testing.presence import PresenceBench, Told
from comity.testing.service import settle
from tests.cpim.test_presence_rules import FULL, names
from tests.loop import in_loop

ALICE, BOB, CAROL, DAVE = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test", "im:dave@xn--bcher-kva.test"
DOCUMENT = PresenceDocument.parse(FULL.raw.replace(b"pres:bob@example.com", b"pres:bob@a.test"))
SHOW = (
    "<provide-services><all-services/></provide-services><provide-persons><all-persons/></provide-persons>"
    "<provide-devices><all-devices/></provide-devices>"
)


def rules(*each: str) -> str:
    texts = [f'<cp:rule id="r{number}">{rule}</cp:rule>' for number, rule in enumerate(each)]
    return (
        '<cp:ruleset xmlns:cp="urn:ietf:params:xml:ns:common-policy" xmlns="urn:ietf:params:xml:ns:pres-rules">'
        f"{''.join(texts)}</cp:ruleset>"
    )


def rule(conditions: str, handling: str = "allow", shown: str = SHOW) -> str:
    return (
        f"<cp:conditions>{conditions}</cp:conditions><cp:actions><sub-handling>{handling}</sub-handling></cp:actions>"
        f"<cp:transformations>{shown}</cp:transformations>"
    )


def who(identity: str) -> str:
    return f"<cp:identity>{identity}</cp:identity>"


def one(uri: str) -> str:
    return f'<cp:one id="{uri}"/>'


ANYBODY = who("<cp:many/>")


async def stage(default: Default = Default.DENY) -> PresenceBench:
    """Bob's account, with a document in which everything a permission is about stands once."""
    accounts = [ALICE, BOB, CAROL, DAVE]
    bench = await PresenceBench(keeping=KeepingLimits(default), accounts=accounts).start()
    statement = Statement(DOCUMENT, keeps_ids=True)
    answer = bench.presence.publish(Address.parse(BOB), statement, bench.origin(BOB), key="phone")
    assert isinstance(answer, Published), answer
    return bench


async def put(bench: PresenceBench, *each: str) -> None:
    answer = await bench.rules(BOB, rules(*each))
    assert isinstance(answer, StoredDocument), answer


async def meets(bench: PresenceBench, watcher: str) -> str:
    """What becomes of a subscribe: block, pending, or active."""
    answer = await bench.ask(watcher, BOB, 600)
    if isinstance(answer, Response):
        assert answer.reason is Reason.DENIED
        return "block"
    return answer.subscription.state.value


def seen(told: list[Told]) -> PresenceDocument:
    """The last document told."""
    contents = [one.content for one in told if one.word == "notify" and one.content is not None]
    document = contents[-1].document
    assert document is not None
    return document


def words(told: list[Told]) -> list[str]:
    return [one.word for one in told]


class TestConditions:
    """RFC 4745 section 7."""

    @in_loop
    async def test_what_no_rule_grants_is_refused_in_whatever_order_they_stand(self) -> None:
        """ACL-1."""
        for each in ([], [rule(who(one(CAROL)))]):
            bench = await stage()
            await put(bench, *each)
            assert await meets(bench, ALICE) == "block"
        both = [rule(who(one(CAROL)), "confirm"), rule(who(one(CAROL)))]
        for order in (both, both[::-1]):
            bench = await stage()
            await put(bench, *order)
            assert await meets(bench, CAROL) == "active"

    @in_loop
    async def test_all_conditions_of_a_rule_have_to_hold(self) -> None:
        """ACL-2: identity, sphere and validity; the sphere of the document is work."""
        now = f"<cp:from>{START.isoformat()}</cp:from><cp:until>{(START + timedelta(days=1)).isoformat()}</cp:until>"
        conditions = [
            (who(one(ALICE)), who(one(CAROL))),
            ('<cp:sphere value="work"/>', '<cp:sphere value="home"/>'),
            (f"<cp:validity>{now}</cp:validity>", f"<cp:validity>{now.replace('2026', '2027')}</cp:validity>"),
        ]
        for wrong in range(-1, 3):
            bench = await stage()
            await put(bench, rule("".join(pair[number == wrong] for number, pair in enumerate(conditions))))
            assert await meets(bench, ALICE) == ("active" if wrong == -1 else "block")

    @pytest.mark.parametrize(
        ("identity", "alice", "dave"),
        [
            (one(ALICE) + one(DAVE), "active", "active"),  # ACL-3: or
            ('<x:tribe xmlns:x="urn:x"/>' + one(DAVE), "block", "active"),  # ACL-3: what is unknown is false
            (one("sip:alice@a.test"), "active", "block"),  # ACL-19: one account, whatever it signs in by
            (one("tel:+15551234567"), "block", "block"),
            ("<cp:many/>", "active", "active"),
            ('<cp:many domain="a.test"/>', "active", "block"),
            (f'<cp:many><cp:except id="{ALICE}"/></cp:many>', "block", "active"),
            ('<cp:many><cp:except domain="a.test"/></cp:many>', "block", "active"),
            ('<cp:many domain="b\u00fccher.test"/>', "block", "active"),  # ACL-5
            ('<cp:many domain="b%C3%BCcher.test"/>', "block", "active"),
            ('<cp:many domain="not a domain"/>', "block", "block"),
        ],
    )
    @in_loop
    async def test_identities_choose_watchers(self, identity: str, alice: str, dave: str) -> None:
        """ACL-3, ACL-4, ACL-5, ACL-19."""
        bench = await stage()
        await put(bench, rule(who(identity)))
        assert (await meets(bench, ALICE), await meets(bench, DAVE)) == (alice, dave)

    @in_loop
    async def test_a_rule_without_identity_is_for_everybody(self) -> None:
        """ACL-3: authenticated or not; whoever comes this far is."""
        bench = await stage()
        await put(bench, rule(""))
        assert await meets(bench, ALICE) == "active"

    @in_loop
    async def test_the_sphere_is_the_one_the_devices_say(self) -> None:
        """ACL-6: any token, whatever its case; a device that says another one leaves none."""
        bench = await stage()
        await put(bench, rule('<cp:sphere value="home WORK"/>'))
        await bench.watch(ALICE, BOB)
        assert words(bench.sip.take()) == ["notify"]
        pair = Address.parse(BOB), Address.parse(ALICE)
        assert await bench.presence.rights.may(*pair, "presence:subscribe")
        raw = DOCUMENT.raw.replace(b"<r:work/>", b"<r:home/>")
        other = Statement(PresenceDocument.parse(raw.replace(b"'p'", b"'p2'")), keeps_ids=True)
        bench.presence.publish(Address.parse(BOB), other, bench.origin(BOB), key="laptop")
        await settle()
        assert words(bench.sip.take()) == ["ended"]
        assert not await bench.presence.rights.may(*pair, "presence:subscribe")

    @in_loop
    async def test_a_validity_begins_and_ends_by_itself(self) -> None:
        """ACL-7: from its first instant up to but without its last; nobody has to do anything."""
        bench = await stage(Default.ASK)
        begin, end = START + timedelta(seconds=100), START + timedelta(seconds=200)
        span = f"<cp:from>{begin.isoformat()}</cp:from><cp:until>{end.isoformat()}</cp:until>"
        await put(bench, rule(f"<cp:validity>{span}</cp:validity>"))
        await bench.watch(ALICE, BOB)
        assert words(bench.sip.take()) == ["pending"]
        await bench.advance(99)
        assert words(bench.sip.take()) == []
        await bench.advance(1)
        assert words(bench.sip.take()) == ["notify"]
        await bench.advance(99)
        assert words(bench.sip.take()) == []
        await bench.advance(1)
        assert words(bench.sip.take()) == ["pending"]


class TestHandling:
    """RFC 5025 section 3.2.1."""

    @in_loop
    async def test_the_greatest_of_all_rules_counts(self) -> None:
        """ACL-8, ACL-9: each permission for itself; who may be refused by one is let in by another."""
        bench = await stage()
        moods = "<provide-mood>true</provide-mood>"
        activities = "<provide-mood>false</provide-mood><provide-activities>true</provide-activities>"
        await put(
            bench,
            rule(who('<cp:many domain="a.test"/>'), "allow", SHOW + moods),
            rule(who(one(ALICE)), "block", activities),
        )
        await bench.watch(ALICE, BOB)
        assert {"mood", "activities"} <= names(seen(bench.sip.take()))

    @in_loop
    async def test_a_change_moves_whoever_watches_at_once(self) -> None:
        """ACL-10: each handling to each other one."""
        ends = {"block": "ended", "confirm": "pending", "polite-block": "notify", "allow": "notify"}
        for first in ("confirm", "polite-block", "allow"):
            for then, word in ends.items():
                bench = await stage()
                await put(bench, rule(ANYBODY, first))
                subscription = await bench.watch(ALICE, BOB)
                bench.sip.take()
                await put(bench, rule(ANYBODY, then))
                told = bench.sip.take()
                if first == then:
                    assert words(told) == []
                    continue
                assert words(told) == [word]
                if then == "block":
                    assert told[0].reason is EndReason.REJECTED
                    await bench.advance(600)
                    bench.publish(BOB, "dnd", key="second")
                    assert bench.sip.take() == []
                    assert bench.presence.find("sip", subscription.id) is None

    @in_loop
    async def test_politely_blocked_is_like_offline_to_the_last_octet(self) -> None:
        """ACL-11, N-01: what both are told differs in nothing but whose presence it is."""
        bench = await stage()
        await put(bench, rule(who(one(ALICE)), "polite-block"))
        await bench.answer(CAROL, ALICE)
        for target in (BOB, CAROL):
            await bench.watch(ALICE, target)
        blocked, offline = bench.sip.take()
        assert blocked.content is not None
        assert offline.content is not None
        assert blocked.content.object.header_block == offline.content.object.header_block
        assert blocked.content.object.octets.replace(b"bob", b"carol") == offline.content.object.octets
        assert (dict(blocked.content.natives), blocked.content.whole) == ({}, None)
        bench.publish(BOB, "dnd", key="second")
        await bench.advance(60)
        assert bench.sip.take() == []

    @in_loop
    async def test_a_refusal_is_told_and_one_that_waits_is_put_to_the_owner(self) -> None:
        """ACL-12; "confirm" asks, and the answer counts from then on."""
        bench = await stage()
        await put(bench, rule(who(one(ALICE)), "confirm"))
        refused = await bench.ask(CAROL, BOB)
        assert isinstance(refused, Response)
        assert refused.reason is Reason.DENIED
        await bench.watch(ALICE, BOB)
        assert words(bench.sip.take()) == ["pending"]
        assert [item.contact.local for item in await bench.presence.contacts.requests(Address.parse(BOB))] == ["alice"]
        await bench.answer(BOB, ALICE)
        assert seen(bench.sip.take()).tuples


#: Permission, what it lets through, of the names in DOCUMENT.
GRANTS = [
    ("", set()),
    *(
        (f"<provide-{name}>true</provide-{name}>", {name})
        for name in (
            *("activities", "class", "mood", "place-is", "place-type", "privacy", "relationship", "sphere"),
            *("status-icon", "time-offset", "deviceID"),
        )
    ),
    ("<provide-user-input>bare</provide-user-input>", {"user-input"}),
    ('<provide-unknown-attribute ns="urn:x" name="foo">true</provide-unknown-attribute>', {"foo"}),
    (
        "<provide-all-attributes/>",
        {
            *("activities", "class", "mood", "place-is", "place-type", "privacy", "relationship", "sphere", "show"),
            *("status-icon", "time-offset", "deviceID", "user-input", "foo", "bar", "geopriv"),
        },
    ),
]


class TestTransformations:
    """RFC 5025 section 3.3."""

    @pytest.mark.parametrize(
        ("members", "tuples", "persons", "devices"),
        [
            ("<provide-services><class>biz</class></provide-services>", 1, 0, 0),
            ("<provide-services><service-uri>SIP:bob@EXAMPLE.com</service-uri></provide-services>", 1, 0, 0),
            ("<provide-services><service-uri-scheme>mailto</service-uri-scheme></provide-services>", 1, 0, 0),
            ("<provide-services><occurrence-id>mail</occurrence-id></provide-services>", 1, 0, 0),
            ("<provide-services><occurrence-id>MAIL</occurrence-id></provide-services>", 0, 0, 0),
            ("<provide-devices><deviceID>urn:uuid:ab</deviceID></provide-devices>", 0, 0, 1),
            ("<provide-persons><class>home</class></provide-persons>", 0, 1, 0),
            (SHOW, 2, 1, 1),
        ],
    )
    @in_loop
    async def test_occurrences_are_chosen(self, members: str, tuples: int, persons: int, devices: int) -> None:
        """ACL-13: by class, id, URI and scheme, as the watcher gets it."""
        bench = await stage()
        await put(bench, rule(ANYBODY, "allow", members))
        await bench.watch(ALICE, BOB)
        document = seen(bench.sip.take())
        assert (len(document.tuples), len(document.persons), len(document.devices)) == (tuples, persons, devices)

    @pytest.mark.parametrize(("permission", "shown"), GRANTS, ids=lambda value: str(value)[:40])
    @in_loop
    async def test_each_attribute_needs_its_grant(self, permission: str, shown: set[str]) -> None:
        """ACL-14, ACL-15, ACL-16, ACL-18: every permission of the schema is taken, and lets through what it names."""
        bench = await stage()
        await put(bench, rule(ANYBODY, "allow", SHOW + permission))
        await bench.watch(ALICE, BOB)
        document = seen(bench.sip.take())
        assert names(document) == {"service-class"} | shown
        assert document.tuples[0].basic_status is not None
        assert (b"61.0" in document.raw) is ("geopriv" in shown)  # N-23

    @in_loop
    async def test_notes_are_granted_for_themselves(self) -> None:
        """ACL-16."""
        for permission, is_there in (("", False), ("<provide-note>true</provide-note>", True)):
            bench = await stage()
            await put(bench, rule(ANYBODY, "allow", SHOW + permission))
            await bench.watch(ALICE, BOB)
            raw = seen(bench.sip.take()).raw
            assert {text in raw for text in (b"tuple note", b"person note", b"device note")} == {is_there}
            assert b"inner note" not in raw

    @in_loop
    async def test_what_was_filtered_filtered_again_is_the_same(self) -> None:
        """ACL-17: on what a watcher really gets."""
        bench = await stage()
        await put(bench, rule(ANYBODY, "allow", SHOW + "<provide-mood>true</provide-mood>"))
        await bench.watch(ALICE, BOB)
        document = seen(bench.sip.take())
        await bench.presence.keeping.access.load(Address.parse(BOB))
        granted = bench.presence.keeping.access.grant(Address.parse(BOB), Address.parse(ALICE), bench.clock.when())
        assert filter_document(document, granted).raw == document.raw

    @in_loop
    async def test_each_watcher_gets_what_is_his(self) -> None:
        """ACL-24, PRES-23, N-15: two of one domain, told by one edge of one change."""
        bench = await stage()
        await put(
            bench,
            rule(who(one(ALICE)), "allow", SHOW),
            rule(who(one(CAROL)), "allow", SHOW + "<provide-mood>true</provide-mood>"),
        )
        for watcher in (ALICE, CAROL):
            await bench.watch(watcher, BOB)
        told = {one.watcher: seen([one]) for one in bench.sip.take()}
        assert "mood" in names(told["carol"])
        assert "mood" not in names(told["alice"])
        await put(bench, rule(who(one(CAROL))))
        assert {one.watcher: one.word for one in bench.sip.take()} == {"alice": "ended", "carol": "notify"}


class TestOwner:
    @in_loop
    async def test_nobody_else_publishes_for_an_account(self) -> None:
        """ACL-22."""
        bench = await stage()
        statement = Statement(DOCUMENT, keeps_ids=True)
        refusal = bench.presence.publish(Address.parse(BOB), statement, bench.origin(ALICE), key="phone")
        assert isinstance(refusal, Response)
        assert refusal.reason is Reason.DENIED

    @in_loop
    async def test_decisions_hold_while_the_owner_is_away(self) -> None:
        """ACL-23: nobody of the account is there, and its rules and answers are applied."""
        bench = await PresenceBench(keeping=KeepingLimits(Default.ASK)).start()
        await put(bench, rule(who(one(ALICE))))
        await bench.answer(BOB, CAROL, Decision.REFUSED)
        assert await meets(bench, ALICE) == "active"
        assert words(bench.sip.take()) == ["notify"]

    @in_loop
    async def test_the_owner_cancels_any_subscription(self) -> None:
        """ACL-24: one that a rule, the default or an answer gave; nothing is told after it."""
        for default in (Default.ASK, Default.EVERYONE):
            bench = await stage(default)
            if default is Default.ASK:
                await put(bench, rule(ANYBODY))
            answer = await bench.ask(ALICE, BOB)
            assert isinstance(answer, Granted)
            bench.sip.take()
            await bench.answer(BOB, ALICE, Decision.REFUSED)
            assert words(bench.sip.take()) == ["ended"]
            bench.publish(BOB, "dnd", key="second")
            await bench.advance(60)
            assert bench.sip.take() == []

    @in_loop
    async def test_whom_one_blocks_sees_somebody_offline(self) -> None:
        """XEP-0191: both ways, at once, and back."""
        bench = await stage(Default.EVERYONE)
        await bench.watch(ALICE, BOB)
        assert bench.sip.take()[-1].state == "away"
        bob, alice = Address.parse(BOB), Address.parse(ALICE)
        await bench.presence.contacts.block(bob, [alice], bench.origin(BOB))
        await bench.advance(5)
        assert seen(bench.sip.take()).tuples[0].basic_status is not None
        bench.publish(BOB, "dnd", key="second")
        await bench.advance(60)
        assert bench.sip.take() == []
        await bench.presence.contacts.unblock(bob, None, bench.origin(BOB))
        await bench.advance(5)
        assert len(seen(bench.sip.take()).tuples) > 1

"""Telling watchers: intervals, equal contents, polite blocks, rules and their times (OPS-25, SIP-27, ACL-10, ACL-11)."""

from __future__ import annotations

from comity.cpim.address import Address
from comity.cpim.presence import PresenceDocument
from comity.cpim.presence_state import Availability, PresenceState, state_document
from comity.cpim.rpid import UserInput
from comity.cpim.watchers import SubscriptionState
from comity.service.presence.interfaces import Decision, Default, Published, Statement, Subscription
from comity.service.presence.keeping import KeepingLimits
from comity.testing.presence import PresenceBench
from tests.loop import in_loop

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"


def told(bench: PresenceBench) -> list[tuple[str, str]]:
    """(watcher, state) of each SIP notification since the last look, another word instead of the state if it is none."""
    return [(one.watcher, one.state if one.word == "notify" else one.word) for one in bench.sip.take()]


async def open_bench(*watchers: str) -> PresenceBench:
    """Everybody sees everybody, and these watch bob by SIP."""
    bench = await PresenceBench(keeping=KeepingLimits(Default.EVERYONE)).start()
    for watcher in watchers:
        await bench.watch(watcher, BOB)
    bench.sip.take()
    return bench


def rules(handling: str, more: str = "", conditions: str = "") -> str:
    """A rule about alice."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ruleset xmlns="urn:ietf:params:xml:ns:common-policy" '
        'xmlns:pr="urn:ietf:params:xml:ns:pres-rules"><rule id="a"><conditions><identity>'
        f'<one id="{ALICE}"/></identity>{conditions}</conditions><actions><pr:sub-handling>{handling}</pr:sub-handling>'
        f"</actions><transformations>{more}</transformations></rule></ruleset>"
    )


SERVICES = "<pr:provide-services><pr:all-services/></pr:provide-services>"
NOTES = "<pr:provide-persons><pr:all-persons/></pr:provide-persons><pr:provide-note>true</pr:provide-note>"


class TestIntervals:
    @in_loop
    async def test_the_first_change_is_told_at_once_and_the_last_is_never_lost(self) -> None:
        """OPS-25, SIP-27: at most one in five seconds, and that says how things are then."""
        bench = await open_bench(ALICE)
        await bench.advance(10)
        for word in ("available", "away", "dnd", "xa"):
            bench.publish(BOB, word)
            await bench.advance(1)
        assert told(bench) == [("alice", "available")]
        await bench.advance(1)
        assert told(bench) == [("alice", "xa")]
        await bench.advance(60)
        assert told(bench) == []

    @in_loop
    async def test_what_changes_back_is_not_told(self) -> None:
        """Unchanged content is not told again, times apart."""
        bench = await open_bench(ALICE)
        await bench.advance(10)
        bench.publish(BOB)
        bench.publish(BOB, "away")
        bench.publish(BOB)
        await bench.advance(10)
        bench.publish(BOB)
        assert told(bench) == [("alice", "available")]

    @in_loop
    async def test_nobody_is_told_before_the_answer_was_written(self) -> None:
        """OPS-21: response before notify."""
        bench = await open_bench()
        subscription = await bench.watch(ALICE, BOB, begins=False)
        bench.publish(BOB)
        await bench.advance(10)
        assert told(bench) == []
        bench.presence.begin(subscription)
        assert told(bench) == [("alice", "available")]

    @in_loop
    async def test_a_waiting_notification_is_not_sent_after_the_end(self) -> None:
        """G9, N-09: also not from a timer that was running."""
        bench = await open_bench(ALICE, CAROL)
        bench.publish(BOB)
        (alice, _) = bench.presence.watchers(Address.parse(BOB))
        await bench.watch(ALICE, BOB, 0, id=alice.id)
        await bench.answer(BOB, CAROL, Decision.REFUSED)
        bench.sip.take()
        await bench.advance(60)
        assert told(bench) == []

    @in_loop
    async def test_equal_watchers_are_told_together_and_from_one_content(self) -> None:
        """One composition, one filter per permission, one call per edge."""
        bench = await open_bench(ALICE, CAROL)
        await bench.advance(10)
        bench.publish(BOB)
        first, second = bench.sip.take()
        assert first.content is second.content

    @in_loop
    async def test_nothing_is_made_when_nobody_watches(self) -> None:
        bench = await open_bench()
        bench.publish(BOB)
        presentity = bench.presence._presentities.find(Address.parse(BOB))
        assert presentity is not None
        assert (presentity.composed, presentity.contents) == (None, {})


class TestPolite:
    @in_loop
    async def test_a_polite_block_looks_like_somebody_who_is_offline(self) -> None:
        """ACL-11: same shape of document, whatever happens; carol is really offline, bob is not."""
        bench = await open_bench()
        bench.publish(BOB)
        await bench.answer(BOB, ALICE, Decision.POLITE)
        await bench.watch(ALICE, BOB)
        await bench.watch(ALICE, CAROL)
        blocked, offline = bench.sip.take()
        assert blocked.content is not None
        assert offline.content is not None
        assert blocked.subscription.state is offline.subscription.state is SubscriptionState.ACTIVE
        assert blocked.content.object.octets == offline.content.object.octets.replace(b"carol", b"bob")
        assert (blocked.content.natives, blocked.content.whole) == ({}, None)
        for word in ("away", "dnd", "available"):
            await bench.advance(10)
            bench.publish(BOB, word)
        bench.unpublish(BOB)
        await bench.advance(10)
        assert told(bench) == []

    @in_loop
    async def test_who_is_blocked_politely_and_let_in_again_sees_newer_documents(self) -> None:
        """PRES-12: a watcher must not take what it is told for outdated."""
        bench = await open_bench()
        bench.publish(BOB)
        await bench.watch(ALICE, BOB)
        for decision in (Decision.POLITE, Decision.ALLOWED, Decision.POLITE):
            await bench.answer(BOB, ALICE, decision)
        found = bench.sip.take()
        assert [one.state for one in found] == ["available", "offline", "available", "offline"]
        times = [one.content.document.date_time for one in found if one.content and one.content.document]
        assert times == sorted(set(times), key=str)

    @in_loop
    async def test_a_block_is_as_if_the_other_had_left(self) -> None:
        """XEP-0191 over a SIP subscription: offline, no error, silence."""
        bench = await open_bench()
        bench.publish(BOB)
        await bench.watch(ALICE, BOB)
        bob, alice = Address.parse(BOB), Address.parse(ALICE)
        assert await bench.presence.contacts.block(bob, [alice], bench.origin(BOB)) is None
        await bench.advance(10)
        bench.publish(BOB, "dnd")
        assert told(bench) == [("alice", "available"), ("alice", "offline")]
        assert await bench.presence.contacts.unblock(bob, None, bench.origin(BOB)) is None
        await bench.advance(0)
        assert told(bench) == [("alice", "dnd")]


class TestRules:
    async def watching(self) -> tuple[PresenceBench, Subscription]:
        """Alice watches bob, who is there with a note."""
        bench = await open_bench()
        bench.publish(BOB, "available", "at my desk")
        subscription = await bench.watch(ALICE, BOB)
        bench.sip.take()
        return bench, subscription

    @in_loop
    async def test_each_handling_acts_at_once(self) -> None:
        """ACL-10: to confirm pending without a document, to polite-block and allow active with one, to block the end."""
        bench, subscription = await self.watching()
        await bench.rules(BOB, rules("confirm"))
        assert told(bench) == [("alice", "pending")]
        assert subscription.state is SubscriptionState.PENDING
        await bench.rules(BOB, rules("polite-block"))
        assert told(bench) == [("alice", "offline")]
        await bench.rules(BOB, rules("allow", SERVICES))
        assert told(bench) == [("alice", "available")]
        deny = await bench.presence.set_default(Address.parse(BOB), Default.DENY, bench.origin(BOB))
        assert deny is None
        assert told(bench) == []
        await bench.rules(BOB, rules("block"))
        assert told(bench) == [("alice", "ended")]

    @in_loop
    async def test_different_watchers_see_different_content(self) -> None:
        """ACL-24, N-15, PRES-23: each only his own document."""
        bench = await open_bench()
        await bench.rules(BOB, rules("allow", SERVICES))
        await bench.watch(ALICE, BOB)
        await bench.watch(CAROL, BOB)
        await bench.advance(10)
        bench.sip.take()
        bench.publish(BOB, "available", "secret")
        seen = {one.watcher: one.content.object.octets for one in bench.sip.take() if one.content is not None}
        assert b"secret" not in seen["alice"]
        assert b"secret" in seen["carol"]
        await bench.advance(10)
        bench.publish(BOB, "available", "another")
        assert told(bench) == [("carol", "available")]

    @in_loop
    async def test_who_is_idle_can_keep_for_itself_since_when(self) -> None:
        """PRES-20, ACL-15: a rule withholds last-input while idle is published."""
        bench = await open_bench()
        bench.presence.publish(Address.parse(BOB), Statement(idle(bench)), bench.origin(BOB), key="phone")
        await bench.watch(CAROL, BOB)
        await bench.rules(BOB, rules("allow", SERVICES + "<pr:provide-user-input>thresholds</pr:provide-user-input>"))
        await bench.watch(ALICE, BOB)
        seen = {one.watcher: one.content.object.octets for one in bench.sip.take() if one.content is not None}
        assert b"last-input" in seen["carol"]
        assert b"last-input" not in seen["alice"]
        assert b">idle<" in seen["alice"]

    @in_loop
    async def test_a_bad_rules_document_leaves_the_last_good_one(self) -> None:
        bench, subscription = await self.watching()
        await bench.rules(BOB, rules("polite-block"))
        bench.sip.take()
        await bench.rules(BOB, "<ruleset")
        assert told(bench) == []
        assert subscription.state is SubscriptionState.ACTIVE
        bench.publish(BOB, "dnd")
        await bench.advance(10)
        assert told(bench) == []

    @in_loop
    async def test_a_rule_ends_by_its_time(self) -> None:
        """ACL-7: nobody does anything, and what alice may see ends."""
        bench = await open_bench()
        bench.publish(BOB)
        until = "<validity><from>2025-01-01T00:00:00Z</from><until>2026-01-01T00:01:00Z</until></validity>"
        await bench.rules(BOB, rules("allow", SERVICES, until))
        assert await bench.presence.set_default(Address.parse(BOB), Default.DENY, bench.origin(BOB)) is None
        await bench.watch(ALICE, BOB)
        assert told(bench) == [("alice", "available")]
        await bench.advance(59)
        assert told(bench) == []
        await bench.advance(2)
        assert told(bench) == [("alice", "ended")]

    @in_loop
    async def test_a_sphere_is_looked_at_before_anybody_is_told(self) -> None:
        """ACL-6: the document that says "home" is not told to who may see the presentity at work alone."""
        bench = await open_bench()
        await bench.rules(BOB, rules("allow", SERVICES, '<sphere value="work"/>'))
        assert await bench.presence.set_default(Address.parse(BOB), Default.ASK, bench.origin(BOB)) is None
        say_sphere(bench, "work")
        subscription = await bench.watch(ALICE, BOB)
        assert told(bench) == [("alice", "available")]
        await bench.advance(10)
        say_sphere(bench, "home")
        assert told(bench) == []
        await bench.advance(0)
        assert told(bench) == [("alice", "pending")]
        assert subscription.state is SubscriptionState.PENDING


def idle(bench: PresenceBench) -> PresenceDocument:
    """Bob's document: nobody has used his device for a while."""
    user_input = UserInput(True, last_input=bench.clock.when())
    state = PresenceState(Availability.AVAILABLE, user_input=user_input)
    document = state_document(Address.parse(BOB), "a", state, bench.clock.when())
    assert document is not None
    return document


def say_sphere(bench: PresenceBench, sphere: str) -> None:
    """Bob's document with a sphere in it."""
    person = (
        '<dm:person xmlns:dm="urn:ietf:params:xml:ns:pidf:data-model" xmlns:r="urn:ietf:params:xml:ns:pidf:rpid" id="p">'
        f"<r:sphere><r:{sphere}/></r:sphere></dm:person></presence>"
    )
    raw = bench.document(BOB).raw.replace(b"</presence>", person.encode())
    statement = Statement(PresenceDocument.parse(raw))
    answer = bench.presence.publish(Address.parse(BOB), statement, bench.origin(BOB), key="phone")
    assert isinstance(answer, Published), answer

"""The watcher's side: what is asked, by whom, how long, how many (RFC 3859 section 3.4, OPS-17 to OPS-34)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Reason, Response, SubscribeOperation
from comity.cpim.watchers import SubscriptionState
from comity.service.interfaces import Op, Result
from comity.service.presence.interfaces import Decision, Default, Granted, Terms
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.watching import PresenceLimits
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.loop import in_loop

ALICE, BOB, CAROL, NOBODY = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test", "im:nobody@a.test"
EVERYONE = KeepingLimits(Default.EVERYONE)


def told(bench: PresenceBench) -> list[tuple[str, str]]:
    """(id, state or other word) of each thing told by SIP since the last look."""
    return [(one.subscription.id, one.state if one.word == "notify" else one.word) for one in bench.sip.take()]


def refused(answer: Granted | Response) -> Reason | None:
    """Why."""
    assert isinstance(answer, Response), answer
    return answer.reason


class TestDurations:
    @in_loop
    async def test_the_duration_is_never_longer_than_asked_or_allowed_and_counts_from_then(self) -> None:
        """OPS-22, OPS-23."""
        bench = await PresenceBench(keeping=EVERYONE).start()
        long = await bench.ask(ALICE, BOB, 9999, id="long")
        short = await bench.ask(ALICE, BOB, 90, id="short")
        assert isinstance(long, Granted)
        assert isinstance(short, Granted)
        assert (long.duration, short.duration) == (3600, 90)
        bench.sip.take()
        await bench.advance(90)
        assert told(bench) == [("short", "ended")]
        await bench.advance(10)
        bench.publish(BOB)
        assert told(bench) == [("long", "available")]

    @in_loop
    async def test_a_refresh_starts_the_time_anew_and_is_told_at_once(self) -> None:
        """OPS-20, OPS-21: the same SubscriptID is a refresh."""
        bench = await PresenceBench(keeping=EVERYONE).start()
        first = await bench.watch(ALICE, BOB, 60, id="s")
        await bench.advance(50)
        again = await bench.ask(ALICE, BOB, 60, id="s")
        assert isinstance(again, Granted)
        assert (again.subscription, again.is_refresh) == (first, True)
        assert told(bench) == [("s", "offline"), ("s", "offline")]
        await bench.advance(50)
        assert told(bench) == []
        await bench.advance(10)
        assert told(bench) == [("s", "ended")]

    @in_loop
    async def test_a_shorter_refresh_ends_sooner(self) -> None:
        bench = await PresenceBench(keeping=EVERYONE).start()
        await bench.watch(ALICE, BOB, 600, id="s")
        await bench.watch(ALICE, BOB, 60, id="s")
        bench.sip.take()
        await bench.advance(60)
        assert told(bench) == [("s", "ended")]

    @in_loop
    async def test_another_device_has_a_subscription_of_its_own(self) -> None:
        """OPS-20."""
        bench = await PresenceBench(keeping=EVERYONE).start()
        await bench.watch(ALICE, BOB, id="phone")
        await bench.watch(ALICE, BOB, id="desk")
        await bench.watch(ALICE, BOB, 0, id="phone")
        bench.sip.take()
        await bench.advance(10)
        bench.publish(BOB)
        assert told(bench) == [("desk", "available")]


class TestWhose:
    @in_loop
    async def test_nobody_subscribes_or_ends_for_another(self) -> None:
        """SEC-31 to SEC-33, N-08: carol knows the id and changes nothing."""
        bench = await PresenceBench(keeping=EVERYONE).start()
        subscription = await bench.watch(ALICE, BOB, id="s")
        bench.sip.take()
        for duration in (0, 600):
            assert refused(await bench.ask(CAROL, BOB, duration, id="s")) is Reason.NO_SUCH_USER
        operation = SubscribeOperation(
            Address.parse("pres:alice@a.test"), Address.parse("pres:bob@a.test"), "forged", "t", 600
        )
        forged = await bench.presence.subscribe(operation, bench.origin(CAROL), Terms("sip"))
        assert refused(forged) is Reason.DENIED
        assert bench.presence.find("sip", "s") is subscription
        assert bench.presence.find("sip", "forged") is None
        assert told(bench) == []

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"target": Address.parse("im:bob@a.test")}, Reason.SYNTAX),
            ({"target": Address.parse("pres:bob@b.test")}, Reason.NO_ROUTE),
            ({"duration": -1}, Reason.SYNTAX),
        ],
    )
    @in_loop
    async def test_what_cannot_be_watched_is_refused(self, change: dict[str, object], reason: Reason) -> None:
        """OPS-18, OPS-19."""
        bench = await PresenceBench().start()
        operation = SubscribeOperation(
            Address.parse("pres:alice@a.test"), Address.parse("pres:bob@a.test"), "s", "t", 600
        )
        changed = replace(operation, **change)  # type: ignore[arg-type]  # fields of the operation
        assert refused(await bench.presence.subscribe(changed, bench.origin(ALICE), Terms("sip"))) is reason

    @in_loop
    async def test_who_does_not_exist_looks_like_who_does_not_answer(self) -> None:
        """N-02: the same answer, pending, and nothing that stays."""
        bench = await PresenceBench().start()
        answers = [await bench.ask(ALICE, whom, id=f"{number}") for number, whom in enumerate((BOB, NOBODY))]
        assert [isinstance(one, Granted) and one.duration for one in answers] == [600, 600]
        assert told(bench) == [("0", "pending"), ("1", "pending")]
        await bench.advance(600)
        assert told(bench) == [("0", "ended"), ("1", "ended")]
        assert [key for key, _ in await bench.store.scan("subscription")] in ([], ["nobody"])
        assert bench.presence.watchers(Address.parse(NOBODY)) == ()

    @in_loop
    async def test_who_does_not_exist_is_offline_where_everybody_may_see_everybody(self) -> None:
        """N-02 with the default "everyone"."""
        bench = await PresenceBench(keeping=EVERYONE).start()
        await bench.watch(ALICE, NOBODY, id="s")
        await bench.watch(ALICE, BOB, id="t")
        first, second = bench.sip.take()
        assert first.content is not None
        assert second.content is not None
        assert first.content.object.octets == second.content.object.octets.replace(b"bob", b"nobody")


class TestLimits:
    @in_loop
    async def test_each_limit_and_one_more(self) -> None:
        """Section 6.2 of reliability.md; ACL-27."""
        limits = PresenceLimits(subscriptions=3, watchers=2, requests=1)
        bench = await PresenceBench(limits=limits).start()
        await bench.answer(BOB, ALICE)
        for number in range(2):
            await bench.watch(ALICE, BOB, id=f"a{number}")
        assert refused(await bench.ask(ALICE, BOB)) is Reason.QUOTA  # watchers of bob
        await bench.watch(ALICE, CAROL)
        assert refused(await bench.ask(ALICE, CAROL)) is Reason.QUOTA  # subscriptions of alice
        await bench.watch(BOB, CAROL)
        assert refused(await bench.ask(BOB, ALICE)) is Reason.QUOTA  # requests of bob
        assert isinstance(await bench.ask(ALICE, BOB, 0), Granted)  # a fetch keeps nothing


class BadStore(MemoryStore):
    """Fails, or is slow, where it is told to."""

    gate: asyncio.Event | None = None

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        """Commit now, and say so when the gate is open."""
        done = super().commit(ops)
        return done if self.gate is None else asyncio.ensure_future(self._late(done, self.gate))

    async def _late(self, done: asyncio.Future[list[Result]], gate: asyncio.Event) -> list[Result]:
        await gate.wait()
        return await done


@in_loop
async def test_a_block_that_comes_while_a_subscription_is_made_durable_wins() -> None:
    """G9: what was revoked before yes was said is never told anything."""
    clock = FakeClock()
    store = BadStore(StoreClock(lambda: clock.when().timestamp(), clock.now))
    bench = await PresenceBench(store, clock=clock).start()
    await bench.answer(BOB, ALICE)
    store.gate = asyncio.Event()
    asking = asyncio.ensure_future(bench.ask(ALICE, BOB, id="s"))
    await settle()
    gate, store.gate = store.gate, None
    await bench.answer(BOB, ALICE, Decision.REFUSED)
    gate.set()
    assert refused(await asking) is Reason.DENIED
    assert told(bench) == []
    assert await store.get("subscription", "sip/s") is None


@in_loop
async def test_an_account_that_is_removed_ends_what_it_had() -> None:
    """OPS-34: noresource, in both directions; nothing durable is left."""
    bench = await PresenceBench(keeping=EVERYONE).start()
    await bench.watch(ALICE, BOB, id="of-bob")
    await bench.watch(BOB, ALICE, id="by-bob")
    await bench.watch(ALICE, CAROL, id="other")
    bench.publish(BOB)
    bench.sip.take()
    await bench.presence.remove(Address.parse(BOB))
    ended = [(one.subscription.id, one.word, one.reason) for one in bench.sip.take()]
    assert ended == [(id, "ended", EndReason.NORESOURCE) for id in ("of-bob", "by-bob")]
    rows = [key for key, _ in await bench.store.scan("subscription")]
    assert [key for key in rows if key != "nobody"] == ["sip/other"]
    await bench.watch(ALICE, BOB, 0)
    assert [state for _, state in told(bench)] == ["offline"]


@in_loop
async def test_a_watcher_that_is_lost_hears_no_word() -> None:
    """``PresenceService.lost``: gone, also from the store."""
    bench = await PresenceBench(keeping=EVERYONE).start()
    subscription = await bench.watch(ALICE, BOB)
    bench.sip.take()
    bench.presence.keep(subscription, b"changed")
    bench.presence.lost(subscription)
    bench.presence.keep(subscription, b"too late")
    await bench.advance(10)
    bench.publish(BOB)
    assert told(bench) == []
    assert subscription.state is SubscriptionState.TERMINATED
    assert await bench.store.scan("subscription") == []


@in_loop
async def test_what_an_edge_keeps_is_there_after_a_crash() -> None:
    """OPS-29: a dialog."""
    bench = await PresenceBench(keeping=EVERYONE).start()
    subscription = await bench.watch(ALICE, BOB, id="s", data=b"first")
    bench.presence.keep(subscription, b"second")
    await bench.crash()
    found = bench.presence.find("sip", "s")
    assert found is not None
    assert (found.data, found.expires, found.interval) == (b"second", subscription.expires, 5.0)


@in_loop
async def test_after_a_crash_all_hear_within_a_minute_and_not_at_once() -> None:
    """N-17, OPS-29, reliability.md section 5.7: closed until spoken again, spread over time; who speaks is told at once."""
    people = [f"im:p{number}@a.test" for number in range(200)]
    bench = await PresenceBench(keeping=EVERYONE, accounts=[ALICE, *people]).start()
    for number, one in enumerate(people):
        bench.publish(one)
        await bench.watch(ALICE, one, id=f"s{number}")
    bench.sip.take()
    await bench.crash()
    bench.publish(people[150], "away")
    await settle()
    assert told(bench) == [("s150", "away")]
    times = []
    for _ in range(60):
        await bench.advance(1)
        found = bench.sip.take()
        assert {one.state for one in found} <= {"offline"}
        times.append(len(found))
    assert sum(times) == 199
    assert max(times) <= 20


@in_loop
async def test_directed_presence_reaches_edges_unless_it_is_blocked() -> None:
    """``PresenceService.direct``."""
    bench = await PresenceBench().start()
    alice, bob = Address.parse(ALICE), Address.parse(BOB)
    operation = NotifyOperation(bob.with_scheme("pres"), alice.with_scheme("pres"), "t", None)
    forged = await bench.presence.direct(operation, bench.origin(CAROL))
    assert forged is not None
    assert forged.reason is Reason.DENIED
    assert await bench.presence.direct(operation, bench.origin(ALICE)) is None
    assert [name for name, _ in bench.xmpp.others] == ["directed"]
    assert await bench.presence.contacts.block(bob, [alice], bench.origin(BOB)) is None
    bench.xmpp.others.clear()
    assert await bench.presence.direct(operation, bench.origin(ALICE)) is None
    assert [name for name, _ in bench.xmpp.others] == []


@in_loop
async def test_a_probe_learns_what_a_watcher_would() -> None:
    """N-01: a stranger and somebody unknown are alike."""
    bench = await PresenceBench().start()
    alice, bob = Address.parse(ALICE), Address.parse(BOB)
    assert not await bench.presence.is_allowed(bob, alice)
    assert not await bench.presence.is_allowed(Address.parse(NOBODY), alice)
    await bench.answer(BOB, ALICE)
    assert await bench.presence.is_allowed(bob, alice)
    await bench.answer(BOB, ALICE, Decision.POLITE)
    assert await bench.presence.is_allowed(bob, alice)

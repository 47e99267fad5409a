"""The presence service as bindings see it: publish, subscribe, decide, end."""

from __future__ import annotations

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, Reason, Response
from comity.cpim.watchers import SubscriptionState
from comity.service.presence.interfaces import Decision, Default, Granted
from comity.service.presence.keeping import KeepingLimits
from comity.testing.presence import PresenceBench
from tests.loop import in_loop

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"


def told(bench: PresenceBench) -> list[tuple[str, str, str]]:
    """(watcher, word, state) of everything told by SIP since the last look."""
    return [(one.watcher, one.word, one.state) for one in bench.sip.take()]


@in_loop
async def test_a_watcher_waits_for_the_answer_and_then_sees_every_change() -> None:
    """OPS-21, OPS-25, OPS-31."""
    bench = await PresenceBench().start()
    bench.publish(BOB)
    subscription = await bench.watch(ALICE, BOB)
    assert told(bench) == [("alice", "pending", "")]
    assert subscription.state is SubscriptionState.PENDING
    await bench.answer(BOB, ALICE)
    assert told(bench) == [("alice", "notify", "available")]
    await bench.advance(10)
    bench.publish(BOB, "away", "lunch")
    assert told(bench) == [("alice", "notify", "away")]
    await bench.advance(10)
    bench.unpublish(BOB)
    assert told(bench) == [("alice", "notify", "offline")]


@in_loop
async def test_a_blocked_watcher_is_told_and_then_hears_nothing() -> None:
    """G9, ACL-10, ACL-12."""
    bench = await PresenceBench().start()
    await bench.answer(BOB, ALICE)
    await bench.watch(ALICE, BOB)
    bench.sip.take()
    bench.publish(BOB)  # waits for the interval
    await bench.answer(BOB, ALICE, Decision.REFUSED)
    (last,) = bench.sip.take()
    assert (last.word, last.reason) == ("ended", EndReason.REJECTED)
    await bench.advance(60)
    bench.publish(BOB, "away")
    assert told(bench) == []
    assert bench.presence.watchers(Address.parse(BOB)) == ()
    again = await bench.watch(ALICE, BOB)
    assert again.state is SubscriptionState.PENDING


@in_loop
async def test_who_may_not_ask_is_refused() -> None:
    """ACL-12, OPS-19."""
    bench = await PresenceBench(keeping=KeepingLimits(Default.DENY)).start()
    refused = await bench.ask(ALICE, BOB)
    assert isinstance(refused, Response)
    assert refused.reason is Reason.DENIED
    assert bench.presence.watchers(Address.parse(BOB)) == ()


@in_loop
async def test_a_fetch_is_told_once_and_leaves_nothing() -> None:
    """OPS-26."""
    bench = await PresenceBench().start()
    bench.publish(BOB, "dnd")
    await bench.answer(BOB, ALICE)
    answer = await bench.ask(ALICE, BOB, 0)
    assert isinstance(answer, Granted)
    assert answer.duration == 0
    assert told(bench) == [("alice", "notify", "dnd")]
    await bench.advance(10)
    bench.publish(BOB)
    assert told(bench) == []


@in_loop
async def test_an_unsubscribe_is_told_once_more_and_then_nothing() -> None:
    """OPS-27, N-09."""
    bench = await PresenceBench().start()
    bench.publish(BOB)
    await bench.answer(BOB, ALICE)
    subscription = await bench.watch(ALICE, BOB)
    bench.sip.take()
    answer = await bench.ask(ALICE, BOB, 0, id=subscription.id)
    assert isinstance(answer, Granted)
    assert answer.subscription is subscription
    assert told(bench) == [("alice", "notify", "available")]
    assert subscription.state is SubscriptionState.TERMINATED
    await bench.advance(10)
    bench.publish(BOB, "away")
    assert told(bench) == []

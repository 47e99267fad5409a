"""Presence between domains: errands.py, sights.py, quota.py (SEC-31, SEC-34, ACL-28, SEED-48, N-02, N-05 to N-07, T17 to T19)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import (
    Context,
    EndReason,
    MimeObject,
    NotifyOperation,
    Reason,
    Response,
    SubscribeOperation,
    failure,
    success,
)
from comity.cpim.watchers import SubscriptionState
from comity.service.interfaces import Origin
from comity.service.presence.errands import DARK
from comity.service.presence.interfaces import Decision, Granted, Statement, Terms
from comity.service.presence.quota import PeerLimits
from comity.service.presence.sights import AGAIN, CONFIRM, DAY
from comity.service.presence.watching import PresenceLimits
from comity.service.routes import Route
from comity.testing.presence import PresenceBench
from comity.testing.service import settle

ALICE, BOB, ROMEO = "im:alice@a.test", "im:bob@a.test", "im:romeo@b.test"
ROUTES = (Route("b.test", "xmpp"), Route("c.test", "sip"), Route("d.test", "apex"))


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


async def bench_of(limits: PresenceLimits | None = None) -> PresenceBench:
    return await PresenceBench(limits=limits, routes=ROUTES).start()


def operation(watcher: str, target: str, duration: int = 600, id: str = "s-1") -> SubscribeOperation:
    pair = Address.parse(watcher).with_scheme("pres"), Address.parse(target).with_scheme("pres")
    return SubscribeOperation(*pair, id, f"t-{id}", duration)


async def asks(bench: PresenceBench, watcher: str, target: str, origin: Origin | None = None) -> Response | None:
    """Once and for good, as XMPP asks."""
    by = origin or (bench.origin(watcher) if watcher.endswith("@a.test") else bench.peer("b.test"))
    answer = await bench.presence.ask(operation(watcher, target), by, Terms("xmpp", text="may I?"))
    await settle()
    return answer


async def answered(bench: PresenceBench, account: str, presentity: str, is_granted: bool = True) -> Response | None:
    who, whom = Address.parse(account), Address.parse(presentity)
    answer = await bench.presence.answered(who, whom, is_granted, bench.peer(whom.domain))
    await settle()
    return answer


async def seeing(bench: PresenceBench) -> None:
    """Alice asked Romeo, and may see him."""
    assert await asks(bench, ALICE, ROMEO) is None
    assert await answered(bench, ALICE, ROMEO) is None
    bench.abroad.take()


async def item_of(bench: PresenceBench, account: str, contact: str) -> tuple[bool, bool, Decision, bool]:
    item = await bench.presence.contacts.item(Address.parse(account), Address.parse(contact))
    return item.asks, item.sees, item.decision, item.ask is not None


class TestAskingAbroad:
    """Our account wants to see somebody of another domain (RFC 6121 section 3.1, RFC 8048 section 5.2)."""

    def test_a_request_is_kept_then_carried_with_what_was_written(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            assert await asks(bench, ALICE, ROMEO) is None
            assert bench.abroad.take() == [("ask", "alice", "romeo@b.test")]
            assert bench.abroad.asks[0].text == "may I?"
            assert await item_of(bench, ALICE, ROMEO) == (True, False, Decision.NONE, False)

        run(main())

    def test_a_grant_makes_whoever_waits_see_and_is_told_to_the_devices(self) -> None:
        """GW-14: nothing before it but that it waits."""

        async def main() -> None:
            bench = await bench_of()
            waiting = await bench.watch(ALICE, ROMEO)
            assert [told.word for told in bench.sip.take()] == ["pending"]
            assert bench.abroad.take() == [("ask", "alice", "romeo@b.test")]
            bench.hear(ALICE, ROMEO)  # too early: it grants nothing
            assert bench.sip.take() == []
            assert await answered(bench, ALICE, ROMEO) is None
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]
            bench.hear(ALICE, ROMEO, "away", "in Mantua")
            await bench.advance(5)
            assert waiting.state is SubscriptionState.ACTIVE
            assert [told.state for told in bench.sip.take()][-1] == "away"
            assert await item_of(bench, ALICE, ROMEO) == (False, True, Decision.NONE, False)
            assert [word for word, _ in bench.xmpp.others] == ["contact_changed", "answered", "contact_changed"]

        run(main())

    def test_a_refusal_ends_what_waits(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await bench.watch(ALICE, ROMEO)
            bench.sip.take()
            await answered(bench, ALICE, ROMEO, is_granted=False)
            assert [(told.word, told.reason) for told in bench.sip.take()] == [("ended", EndReason.REJECTED)]
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, False)

        run(main())

    def test_what_was_granted_can_be_taken_back(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO)
            bench.hear(ALICE, ROMEO)
            await answered(bench, ALICE, ROMEO, is_granted=False)
            assert bench.sip.take()[-1].reason is EndReason.REJECTED
            assert ("unwatch", "alice", "romeo@b.test") in bench.abroad.take()
            bench.hear(ALICE, ROMEO)
            assert bench.sip.take() == []

        run(main())

    def test_an_answer_nobody_asked_for_changes_nothing(self) -> None:
        """N-07."""

        async def main() -> None:
            bench = await bench_of()
            assert await answered(bench, ALICE, ROMEO) is None
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, False)
            assert bench.xmpp.others == []

        run(main())

    def test_no_server_answers_for_another_domain(self) -> None:
        """SEC-31, T19: c.test cannot grant for b.test, nor anybody for one of ours."""

        async def main() -> None:
            bench = await bench_of()
            await asks(bench, ALICE, ROMEO)
            who = Address.parse(ALICE)
            any_domain = replace(bench.peer("c.test"), domains=frozenset({"*"}))
            for presentity, origin in ((ROMEO, bench.peer("c.test")), (BOB, any_domain), (BOB, bench.peer("a.test"))):
                refused = await bench.presence.answered(who, Address.parse(presentity), True, origin)
                assert refused is not None
                assert refused.reason is Reason.DENIED
                statement = Statement(bench.document(presentity))
                refused = bench.presence.heard(who, Address.parse(presentity), statement, origin)
                assert refused is not None
                assert refused.reason is Reason.DENIED
            assert await item_of(bench, ALICE, ROMEO) == (True, False, Decision.NONE, False)

        run(main())

    def test_a_domain_without_a_route_is_refused_at_once(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            refused = await asks(bench, ALICE, "im:x@nowhere.test")
            assert refused is not None
            assert refused.reason is Reason.NO_ROUTE
            answer = await bench.ask(ALICE, "im:x@nowhere.test")
            assert isinstance(answer, Response)
            assert answer.reason is Reason.NO_ROUTE
            assert await item_of(bench, ALICE, "im:x@nowhere.test") == (False, False, Decision.NONE, False)

        run(main())

    def test_what_the_other_server_takes_not_at_all_counts_as_refused(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            bench.abroad.answer_with = failure("", Reason.NO_SUCH_USER, "nobody")
            await bench.watch(ALICE, ROMEO)
            assert [told.word for told in bench.sip.take()] == ["pending", "ended"]
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, False)
            assert await bench.store.scan("relation", "owed/") == []

        run(main())

    def test_a_domain_reached_by_what_carries_no_presence_refuses(self) -> None:
        """While the server starts its bindings may not have attached themselves yet; afterwards nobody waits for what never comes."""

        async def main() -> None:
            bench = await bench_of()
            assert await asks(bench, ALICE, "im:jane@d.test") is None
            assert await item_of(bench, ALICE, "im:jane@d.test") == (True, False, Decision.NONE, False)
            for _ in range(8):
                await bench.advance(15)
            assert await item_of(bench, ALICE, "im:jane@d.test") == (False, False, Decision.NONE, False)
            assert "answered" in [word for word, _ in bench.xmpp.others]

        run(main())

    def test_an_unreachable_domain_is_tried_until_it_takes_the_request_also_by_the_next_process(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            bench.abroad.answer_with = failure("", Reason.TIMEOUT, "down")
            await asks(bench, ALICE, ROMEO)
            assert len(bench.abroad.take()) == 1
            await bench.advance(2)
            assert len(bench.abroad.take()) == 1
            await bench.crash()
            assert len(bench.abroad.take()) >= 1
            bench.abroad.answer_with = success("")
            await bench.advance(60)
            assert bench.abroad.take() == [("ask", "alice", "romeo@b.test")]
            assert await bench.store.scan("relation", "owed/") == []
            await bench.advance(3600)
            assert bench.abroad.take() == []

        run(main())

    def test_a_request_withdrawn_meanwhile_is_not_carried(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            bench.abroad.answer_with = failure("", Reason.TIMEOUT, "down")
            await asks(bench, ALICE, ROMEO)
            bench.abroad.take()
            assert await bench.presence.withdraw(operation(ALICE, ROMEO, 0), bench.origin(ALICE)) is None
            bench.abroad.answer_with = success("")
            await bench.advance(2)
            assert bench.abroad.take() == [("withdraw", "alice", "romeo@b.test")]

        run(main())

    def test_a_dead_domain_keeps_no_other_waiting(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            bench.abroad.held = []
            for number in range(20):
                await asks(bench, ALICE, f"im:r{number}@b.test")
            await asks(bench, ALICE, "im:jane@c.test")
            assert ("ask", "alice", "jane@c.test") in bench.abroad.carried

        run(main())


class TestSeeingAbroad:
    """What another domain tells one of our accounts."""

    def test_each_device_of_the_other_is_told_of_and_goes_with_its_own_word(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            live = await bench.watch(ALICE, ROMEO, edge="xmpp")
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]
            bench.hear(ALICE, ROMEO, "away", key="desk")
            bench.hear(ALICE, ROMEO, "available", key="phone")
            assert live.told is not None
            assert live.told.document is not None
            assert len(live.told.document.tuples) == 2
            bench.hear(ALICE, ROMEO, "", key="phone")
            assert [told.state for told in bench.xmpp.take()][-1] == "away"
            bench.hear(ALICE, ROMEO, "", key="")
            assert [told.state for told in bench.xmpp.take()][-1] == "offline"

        run(main())

    def test_what_is_told_to_one_is_told_to_nobody_else(self) -> None:
        """T18, ACL-28, N-15: both of ours watch the same person, each sees what that one was told."""

        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await asks(bench, BOB, ROMEO)
            await answered(bench, BOB, ROMEO)
            for account in (ALICE, BOB):
                await bench.watch(account, ROMEO, edge="xmpp")
            bench.xmpp.take()
            bench.hear(ALICE, ROMEO, "available", "for alice")
            assert [told.watcher for told in bench.xmpp.take()] == ["alice"]
            bench.hear(BOB, ROMEO, "dnd")
            assert [(told.watcher, told.state) for told in bench.xmpp.take()] == [("bob", "dnd")]

        run(main())

    def test_what_is_told_to_who_never_asked_is_dropped(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            assert bench.hear(ALICE, ROMEO) is None
            assert bench.xmpp.take() == bench.sip.take() == []
            assert len(bench.presence._presentities) == 0

        run(main())

    def test_with_the_last_who_looks_nothing_is_kept_and_with_the_next_it_is_asked_for(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            live = await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO)
            bench.presence.lost(live)
            assert bench.abroad.take()[-1] == ("unwatch", "alice", "romeo@b.test")
            assert len(bench.presence._presentities) == 0
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]

        run(main())

    def test_what_is_old_is_asked_for_anew_and_believed_no_longer_than_a_day(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO)
            bench.abroad.take()
            await bench.advance(AGAIN)
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]
            bench.hear(ALICE, ROMEO)
            await bench.advance(CONFIRM)
            assert bench.xmpp.take()[-1].state == "available"
            bench.abroad.held = []
            await bench.advance(DAY)
            assert [told.state for told in bench.xmpp.take()] == ["offline"]

        run(main())

    def test_a_statement_with_a_lease_ends_with_it(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO, key="", lease=100)
            bench.abroad.take()
            bench.xmpp.take()
            await bench.advance(101)
            assert [told.state for told in bench.xmpp.take()] == ["offline"]
            assert bench.abroad.take() == []  # whoever gave it a lease sees to it

        run(main())

    def test_nobody_of_a_domain_out_of_reach_is_shown_as_present_for_long(self) -> None:
        """The other server died without a word: what it said stands for minutes, and comes back with it."""

        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO)
            bench.xmpp.take()
            bench.abroad.answer_with = failure("", Reason.TIMEOUT, "down")
            bench.presence.doubted("b.test")
            await bench.advance(60)
            assert bench.xmpp.take() == []
            await bench.advance(60)
            for _ in range(20):
                await bench.advance(DARK / 8)
            assert [told.state for told in bench.xmpp.take()] == ["offline"]
            bench.abroad.take()
            bench.abroad.answer_with = success("")
            bench.presence.returned("b.test")
            await settle()
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]
            bench.hear(ALICE, ROMEO)
            assert [told.state for told in bench.xmpp.take()] == ["available"]

        run(main())

    def test_what_was_doubted_and_is_not_said_again_holds_no_more(self) -> None:
        """The other server was killed and is back: of who did not come back with it, it says nothing at all."""

        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO, key="desk")
            bench.hear(ALICE, ROMEO, key="phone")
            await bench.advance(1)
            bench.presence.doubted("b.test")
            await settle()
            bench.hear(ALICE, ROMEO, "dnd", key="phone")
            bench.xmpp.take()
            await bench.advance(CONFIRM - 1)
            assert bench.xmpp.take() == []
            await bench.advance(1)
            (told,) = bench.xmpp.take()
            assert told.content is not None
            assert told.content.document is not None
            assert (told.state, len(told.content.document.tuples)) == ("dnd", 1)

        run(main())

    def test_a_durable_watcher_comes_back_with_the_next_process_and_has_it_asked_for(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, 6000)
            bench.hear(ALICE, ROMEO)
            await bench.crash()
            bench.abroad.take()
            await bench.advance(40)
            assert bench.abroad.take() == [("watch", "alice", "romeo@b.test")]
            bench.sip.take()
            bench.hear(ALICE, ROMEO, "dnd")
            await bench.advance(5)
            assert [told.state for told in bench.sip.take()] == ["dnd"]

        run(main())

    def test_whom_our_account_blocks_it_sees_no_more(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await bench.watch(ALICE, ROMEO, edge="xmpp")
            bench.hear(ALICE, ROMEO)
            bench.xmpp.take()
            alice, whole = Address.parse(ALICE), Address("im", "", "b.test")
            assert await bench.presence.contacts.block(alice, [whole], bench.origin(ALICE)) is None
            await settle()
            assert [told.state for told in bench.xmpp.take()] == ["offline"]
            bench.hear(ALICE, ROMEO, "dnd")
            assert bench.xmpp.take() == []
            await bench.presence.contacts.unblock(alice, None, bench.origin(ALICE))
            await settle()
            assert bench.abroad.take()[-1] == ("watch", "alice", "romeo@b.test")

        run(main())


class TestWatchersFromAbroad:
    """Somebody of another domain wants to see one of our accounts."""

    def test_a_request_waits_for_our_account_and_its_answer_is_carried_back(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            assert await asks(bench, ROMEO, ALICE) is None
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, True)
            assert [word for word, _ in bench.xmpp.others] == ["asked"]
            assert bench.abroad.take() == []
            await bench.answer(ALICE, ROMEO)
            assert bench.abroad.take() == [("grant", "alice", "romeo@b.test")]
            assert await asks(bench, ROMEO, ALICE) is None  # again: it is said again
            assert bench.abroad.take() == [("grant", "alice", "romeo@b.test")]

        run(main())

    @pytest.mark.parametrize("target", [ALICE, "im:nobody@a.test"])
    def test_who_does_not_exist_answers_like_who_does_not_answer(self, target: str) -> None:
        """N-02, T17."""

        async def main() -> None:
            bench = await bench_of()
            assert await asks(bench, ROMEO, target) is None
            assert bench.abroad.take() == []
            op, terms = operation(ROMEO, target, id="dialog"), Terms("sip", is_durable=True)
            granted = await bench.presence.subscribe(op, bench.peer("b.test", "sip"), terms)
            assert isinstance(granted, Granted)
            assert granted.subscription.state is SubscriptionState.PENDING

        run(main())

    @pytest.mark.parametrize("decision", [Decision.REFUSED, Decision.POLITE])
    def test_a_refusal_is_carried_and_a_polite_block_looks_like_a_grant(self, decision: Decision) -> None:
        async def main() -> None:
            bench = await bench_of()
            await asks(bench, ROMEO, ALICE)
            await bench.answer(ALICE, ROMEO, decision)
            word = "grant" if decision is Decision.POLITE else "refuse"
            assert bench.abroad.take() == [(word, "alice", "romeo@b.test")]

        run(main())

    def test_a_forged_subscribe_or_unsubscribe_is_refused(self) -> None:
        """SEC-31, SEED-48, T19, N-05, N-06: for another domain, for one of ours, and by somebody trusted to speak for all others."""

        async def main() -> None:
            bench = await bench_of()
            await asks(bench, ROMEO, ALICE)
            everybody = replace(bench.peer("c.test"), domains=frozenset({"*"}))
            for watcher, origin in (
                (ROMEO, bench.peer("c.test")),
                (BOB, bench.peer("b.test")),
                (BOB, everybody),
                (BOB, bench.peer("a.test")),
            ):
                for verb in (bench.presence.ask, bench.presence.subscribe):
                    refused = await verb(operation(watcher, ALICE), origin, Terms("xmpp"))
                    assert isinstance(refused, Response)
                    assert refused.reason is Reason.DENIED
                refused = await bench.presence.withdraw(operation(watcher, ALICE, 0), origin)
                assert refused is not None
                assert refused.reason is Reason.DENIED
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, True)
            assert await item_of(bench, ALICE, BOB) == (False, False, Decision.NONE, False)
            assert await asks(bench, "im:x@e.test", ALICE, everybody) is None

        run(main())

    def test_a_withdrawal_ends_the_grant_and_is_answered(self) -> None:
        """RFC 6121 appendix A.3.2, note 1."""

        async def main() -> None:
            bench = await bench_of()
            await asks(bench, ROMEO, ALICE)
            await bench.answer(ALICE, ROMEO)
            bench.abroad.take()
            assert await bench.presence.withdraw(operation(ROMEO, ALICE, 0), bench.peer("b.test")) is None
            await settle()
            assert bench.abroad.take() == [("refuse", "alice", "romeo@b.test")]
            assert await item_of(bench, ALICE, ROMEO) == (False, False, Decision.NONE, False)
            assert ("withdrew") in [word for word, _ in bench.xmpp.others]

        run(main())

    def test_a_subscription_of_another_domain_is_durable_and_told_what_it_may_see(self) -> None:
        """GW-15: pending, active, ended; kept over a restart."""

        async def main() -> None:
            bench = await bench_of()
            op, terms = operation(ROMEO, ALICE, 6000, "dialog"), Terms("sip", is_durable=True)
            granted = await bench.presence.subscribe(op, bench.peer("b.test", "sip"), terms)
            assert isinstance(granted, Granted)
            bench.presence.begin(granted.subscription)
            await bench.crash()
            await bench.answer(ALICE, ROMEO)
            bench.publish(ALICE, "away")
            await bench.advance(40)
            assert "pending" in [told.word for told in bench.sip.take()]
            live = bench.presence.find("sip", "dialog")
            assert live is not None
            assert live.state is SubscriptionState.ACTIVE
            await bench.answer(ALICE, ROMEO, Decision.REFUSED)
            assert bench.sip.take()[-1].reason is EndReason.REJECTED

        run(main())

    def test_one_domain_cannot_fill_what_is_kept(self) -> None:
        """T17, ACL-27: neither the requests of one account, nor the subscriptions, nor the time of the server."""

        async def main() -> None:
            limits = PresenceLimits(peers=PeerLimits(subscriptions=3, requests=2, pace=1.0, burst=12))
            bench = await bench_of(limits)
            for number in range(4):
                assert (
                    await asks(bench, f"im:r{number}@b.test", ALICE) is None
                )  # silence: a refusal would tell who exists
            assert len(await bench.presence.contacts.requests(Address.parse(ALICE))) == 2
            terms, reasons = Terms("sip", is_durable=True), []
            await bench.presence.set_default(Address.parse(BOB), None, bench.origin(BOB))
            for number in range(4):
                op = operation(f"im:r{number}@b.test", BOB, id=f"d{number}")
                answer = await bench.presence.subscribe(op, bench.peer("b.test"), terms)
                reasons.append(answer.reason if isinstance(answer, Response) else None)
            assert reasons == [None, None, Reason.QUOTA, Reason.QUOTA]
            for number in range(5):
                refused = await asks(bench, f"im:s{number}@b.test", BOB)
            assert refused is not None
            assert refused.reason is Reason.OVERLOAD
            assert await asks(bench, "im:x@c.test", BOB, bench.peer("c.test")) is None
            await bench.advance(2)
            assert await asks(bench, "im:s9@b.test", BOB) is None

        run(main())


class TestDirectedAndGone:
    def test_directed_presence_goes_to_the_other_domain_and_comes_from_it(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            document = MimeObject.of("application/pidf+xml", bench.document(ALICE).raw)
            alice, romeo = Address.parse(ALICE).with_scheme("pres"), Address.parse(ROMEO).with_scheme("pres")
            out = NotifyOperation(romeo, alice, "t1", document, context=Context(source_resource="phone"))
            assert await bench.presence.direct(out, bench.origin(ALICE)) is None
            assert bench.abroad.directed == [out]
            back = replace(out, watcher=alice, target=romeo)
            assert await bench.presence.direct(back, bench.peer("b.test")) is None
            assert bench.xmpp.others == [("directed", back)]
            for forged in (bench.peer("c.test"), bench.peer("a.test")):
                refused = await bench.presence.direct(back, forged)
                assert refused is not None
                assert refused.reason is Reason.DENIED

        run(main())

    def test_of_an_account_that_is_removed_the_other_domains_hear(self) -> None:
        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await asks(bench, ROMEO, ALICE)
            await bench.answer(ALICE, ROMEO)
            bench.abroad.take()
            await bench.presence.remove(Address.parse(ALICE))
            await settle()
            assert sorted(bench.abroad.take()) == [
                ("refuse", "alice", "romeo@b.test"),
                ("withdraw", "alice", "romeo@b.test"),
            ]

        run(main())

    def test_a_contact_taken_out_of_the_list_is_let_go_on_both_ways(self) -> None:
        """RFC 6121 section 2.5.2."""

        async def main() -> None:
            bench = await bench_of()
            await seeing(bench)
            await asks(bench, ROMEO, ALICE)
            await bench.answer(ALICE, ROMEO)
            bench.abroad.take()
            assert await bench.presence.contacts.remove(Address.parse(ALICE), Address.parse(ROMEO), bench.origin(ALICE))
            await settle()
            assert bench.abroad.take() == [("withdraw", "alice", "romeo@b.test"), ("refuse", "alice", "romeo@b.test")]

        run(main())

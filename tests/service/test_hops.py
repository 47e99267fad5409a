"""Messages to and from other domains: service/pipeline.py with hops.py, delays.py and delivery.py."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace

import pytest

from comity.admin.records import EnvelopeRecords
from comity.cpim.address import Address
from comity.cpim.imdn import is_report
from comity.cpim.message import CpimMessage
from comity.cpim.operations import (
    PASSED_ON,
    Fate,
    HistoryEntry,
    MessageOperation,
    Reason,
    Report,
    Requirement,
    Response,
    Status,
    failure,
    indeterminant,
    success,
)
from comity.errors import StoreError
from comity.service.channel import RETRY_DELAYS
from comity.service.hops import MOST_TRANSIENT
from comity.service.interfaces import Accepted, Delivery, Item, Origin
from comity.service.policy import Limits
from comity.service.routes import HOP_WINDOW, Route
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Bench, ended, refuses, settle, takes

B = Route("b.test", "sip", "tls://b.test:5061")
C = Route("c.test", "xmpp", "tcp://c.test:5269", frozenset({"b.test"}))
BOB, CAROL = "im:bob@b.test", "im:carol@c.test"


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def timed(*routes: Route, store: MemoryStore | None = None, clock: FakeClock | None = None) -> Bench:
    """A bench whose store goes by the clock that is moved by hand."""
    clock = clock or FakeClock()
    store = store or MemoryStore(StoreClock(lambda: clock.when().timestamp(), clock.now))
    return Bench(store, clock=clock, routes=routes)


async def pass_time(bench: Bench, seconds: float) -> None:
    """Let time pass in steps that are no jump of the store's clock (F-27)."""
    while seconds > 0:
        bench.clock.advance(min(seconds, 300.0))
        await settle()
        seconds -= 300.0


def reason_of(answer: Accepted | Response) -> Reason | None:
    assert isinstance(answer, Response), answer
    return answer.reason


def report_in(delivery: Delivery) -> Report:
    report = delivery.operation.context.report
    assert report is not None
    return report


class TestOut:
    def test_a_message_goes_to_the_domains_hop_and_its_word_counts(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test")
            accepted = await bench.send("hello", destination=BOB)
            [delivery] = hop.deliveries
            assert delivery.contact.is_hop
            assert (delivery.contact.resource, delivery.contact.data) == ("b.test", b"tls://b.test:5061")
            assert hop.texts == [b"hello"]
            assert ended(accepted) is Status.SUCCESS
            assert not await bench.store.lanes()

        run(story())

    def test_it_leaves_with_one_hop_less_and_one_entry_more(self) -> None:
        """T2, GW-8: the core alone subtracts, once; a device of ours is no relaying node."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop, bob = bench.hop("b.test"), await bench.device("im:bob@a.test")
            await bench.submit(replace(bench.operation("out", destination=BOB), max_forwards=1))
            await bench.submit(replace(bench.operation("here"), max_forwards=1))
            [out], [here] = hop.deliveries, bob.deliveries
            assert out.operation.max_forwards == 0
            assert [(entry.node, entry.out_protocol) for entry in out.operation.history] == [("a.test", "sip")]
            assert here.operation.max_forwards == 1

        run(story())

    def test_what_has_no_hop_left_stays(self) -> None:
        """T2: 0 is "the gateway MUST NOT forward" (RFC 3860 section 3.4.2)."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            spent = replace(bench.operation("x", destination=BOB), max_forwards=0)
            assert reason_of(await bench.submit(spent)) is Reason.HOPS
            assert not await bench.store.lanes()

        run(story())

    def test_without_a_route_there_is_none(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            assert reason_of(await bench.submit(bench.operation("x", destination=CAROL))) is Reason.NO_ROUTE
            # Who is none of ours may not learn where we lead.
            forged = bench.operation("x", source="im:eve@e.test", destination=BOB)
            assert reason_of(await bench.submit(forged)) is Reason.DENIED

        run(story())

    @pytest.mark.parametrize("binding", ["sip", "xmpp", "apex"])
    def test_a_route_of_everybody_has_a_lane_for_each_domain(self, binding: str) -> None:
        async def story() -> None:
            bench = await Bench(routes=[Route("*", binding, "tls://hub.test")]).start()
            hops = [bench.hop(domain, answer=None) for domain in ("b.test", "c.test")]
            for destination in (BOB, CAROL):
                await bench.send("x", destination=destination)
            assert [len(hop.deliveries) for hop in hops] == [1, 1]
            assert [info.lane for info in await bench.store.lanes()] == [f"hop/{binding}:{d}.test" for d in "bc"]

        run(story())

    @pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.OVERLOAD, Reason.INTERNAL])
    def test_trouble_with_the_hop_is_tried_again_in_order(self, reason: Reason) -> None:
        """One conversation keeps its order; the pause grows."""

        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=refuses(reason))
            sent = [await bench.send(f"{n}", destination=BOB) for n in range(3)]
            assert hop.texts == [b"0"]
            await pass_time(bench, RETRY_DELAYS[0])
            await pass_time(bench, RETRY_DELAYS[1])
            assert hop.texts == [b"0"] * 3
            hop.answer = takes
            await pass_time(bench, RETRY_DELAYS[2])
            assert hop.texts == [b"0"] * 4 + [b"1", b"2"]
            # Nobody was kept waiting for the second attempt.
            assert [ended(accepted) for accepted in sent] == [Status.INDETERMINANT] * 3
            assert not await bench.store.lanes()

        run(story())

    def test_a_hop_that_asks_for_time_gets_it(self) -> None:
        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=lambda d: failure(d.operation.trans_id, Reason.OVERLOAD, "", 30))
            await bench.send("x", destination=BOB)
            await pass_time(bench, 29.0)
            assert len(hop.deliveries) == 1
            await pass_time(bench, 1.0)
            assert len(hop.deliveries) == 2

        run(story())

    def test_its_word_about_one_recipient_is_final(self) -> None:
        """480 of a recipient's own server is no trouble with the server."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test", answer=refuses(Reason.AWAY))
            accepted = await bench.send("x", destination=BOB)
            assert len(hop.deliveries) == 1
            assert accepted.outcome.result().reason is Reason.AWAY
            assert not await bench.store.lanes()

        run(story())

    def test_a_dead_hop_is_tried_until_the_end_of_the_lifetime(self) -> None:
        """More often than a device would be; then its sender is told."""

        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            alice = await bench.device("im:alice@a.test")
            accepted = await bench.send("x", destination=BOB)
            accepted.outcome.cancel()
            await pass_time(bench, 71 * 3600)
            assert len(hop.deliveries) > 800
            assert not alice.deliveries
            await pass_time(bench, 2 * 3600)
            report = report_in(alice.deliveries[0])
            assert (report.reason, report.text) == (Reason.TIMEOUT, "The servers of b.test did not take it in time."), (
                "XMPP-7"
            )
            assert not await bench.store.lanes()

        run(story())

    def test_what_waited_for_a_dead_hop_ends_together(self) -> None:
        """Every accepted message is terminal within its lifetime and a minute, however many there are (reliability.md section 5.6)."""

        async def story() -> None:
            bench = await timed(B).start()
            bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            alice = await bench.device("im:alice@a.test")
            for n in range(650):
                (await bench.send(f"{n}", destination=BOB)).outcome.cancel()
            await pass_time(bench, 72 * 3600 - 120)
            assert not alice.deliveries
            await pass_time(bench, 180)
            for _ in range(100):
                await settle()
            assert len(alice.deliveries) == 650
            assert not await bench.store.lanes()

        run(story())

    def test_what_waits_for_a_dead_hop_is_not_in_memory(self) -> None:
        """With a route of everybody there may be any number of them; each is tried, and empties in order when it is back."""

        async def story() -> None:
            bench = await timed(Route("*", "sip", "tls://b.test:5061")).start()
            domains = [f"d{n}.test" for n in range(5)]
            hops = [bench.hop(domain, answer=refuses(Reason.TIMEOUT)) for domain in domains]
            for n in range(100):
                for domain in domains:
                    await bench.send(f"{n}", destination=f"im:bob@{domain}")
            for _ in range(20):
                await pass_time(bench, 1)
            inboxes = bench.pipeline.delivery._inboxes
            assert [len(inboxes[f"hop/sip:{domain}"]._items) for domain in domains] == [0] * 5
            await bench.send("100", destination="im:bob@d0.test")
            tried = len(hops[0].deliveries)
            await pass_time(bench, 1000)
            assert len(hops[0].deliveries) > tried + 1
            assert not inboxes["hop/sip:d0.test"]._items
            for hop in hops:
                hop.deliveries.clear()
                hop.answer = takes
            await pass_time(bench, 300)
            for _ in range(40):
                await settle()
            assert hops[0].texts == [b"%d" % n for n in range(101)]
            assert all(hop.texts == [b"%d" % n for n in range(100)] for hop in hops[1:])
            assert not await bench.store.lanes()

        run(story())

    def test_a_lane_that_cannot_be_read_is_read_again(self, caplog: pytest.LogCaptureFixture) -> None:
        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            await bench.send("x", destination=BOB)
            for _ in range(20):
                await pass_time(bench, 1)
            assert not bench.pipeline.delivery._inboxes["hop/sip:b.test"]._items
            read, failures = bench.store.read, 3

            async def read_badly(lane: str, limit: int) -> list[Item]:
                nonlocal failures
                if failures:
                    failures -= 1
                    raise StoreError("the disk does not answer")
                return await read(lane, limit)

            bench.store.read = read_badly  # type: ignore[method-assign]
            hop.answer = takes
            await pass_time(bench, 300)
            for _ in range(4):
                await pass_time(bench, 10)
            assert not failures
            assert not await bench.store.lanes()
            assert hop.texts[-1] == b"x"

        run(story())

    def test_a_dead_hop_slows_nobody_else(self) -> None:
        async def story() -> None:
            bench = await timed(B, C).start()
            bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            living, bob = bench.hop("c.test"), await bench.device("im:bob@a.test")
            for n in range(200):
                await bench.send(f"{n}", destination=BOB)
                await bench.send(f"{n}", destination=CAROL)
                await bench.send(f"{n}")
            assert living.texts == bob.texts == [b"%d" % n for n in range(200)]

        run(story())

    def test_conversations_go_side_by_side_and_none_overtakes_itself(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test", answer=None)
            for text, user in (("1", "bob"), ("2", "bob"), ("3", "dave"), ("4", "bob"), ("5", "dave")):
                await bench.send(text, destination=f"im:{user}@b.test")
            assert hop.texts == [b"1", b"3"]
            hop.take()
            await settle()
            assert hop.texts == [b"1", b"3", b"2"]
            for _ in range(4):
                hop.take()
                await settle()
            assert sorted(hop.texts) == [b"1", b"2", b"3", b"4", b"5"]
            assert not await bench.store.lanes()

        run(story())

    def test_a_window_of_messages_is_under_way_at_once(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test", answer=None)
            for n in range(HOP_WINDOW + 5):
                await bench.send("x", destination=f"im:u{n}@b.test")
            assert len(hop.deliveries) == HOP_WINDOW

        run(story())

    def test_what_requires_tls_goes_only_by_a_protected_hop(self) -> None:
        """T11."""

        async def story() -> None:
            bench = await Bench(routes=[B, C]).start()
            hops = [bench.hop("b.test"), bench.hop("c.test")]
            answers = []
            for destination in (BOB, CAROL):
                operation = bench.operation("x", destination=destination)
                answers.append(await bench.submit(replace(operation, requirements=frozenset({Requirement.TLS}))))
            assert [len(hop.deliveries) for hop in hops] == [1, 0]
            assert isinstance(answers[1], Accepted)
            assert answers[1].outcome.result().reason is Reason.PROTECTION

        run(story())

    def test_what_is_worth_nothing_later_does_not_wait_for_a_dead_hop(self) -> None:
        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=None)
            states = [await bench.send("…", destination=BOB, transient=True) for _ in range(MOST_TRANSIENT + 3)]
            assert sum(ended(state) is Status.FAILURE for state in states) == 2
            hop.answer = refuses(Reason.TIMEOUT)
            while hop.held:
                hop.take(failure("", Reason.TIMEOUT))
                await settle(400)
            assert all(ended(state) is Status.FAILURE for state in states)
            await bench.send("kept", destination=BOB)
            late = await bench.send("…", destination=BOB, transient=True)
            assert ended(late) is Status.FAILURE
            assert [info.pending for info in await bench.store.lanes()] == [1]

        run(story())

    def test_a_domain_has_a_bound(self) -> None:
        async def story() -> None:
            bench = await Bench(limits=Limits(hop_records=2), routes=[B]).start()
            bench.hop("b.test", answer=None)
            answers = [await bench.submit(bench.operation("x", destination=BOB)) for _ in range(3)]
            assert reason_of(answers[2]) is Reason.QUOTA

        run(story())


class TestRestart:
    def test_what_waits_for_a_hop_is_taken_up_in_order(self) -> None:
        async def story() -> None:
            before = await timed(B).start()
            before.hop("b.test", answer=refuses(Reason.TIMEOUT))
            for n in range(100):
                await before.send(f"{n}", destination=BOB)
            await before.pipeline.stop()
            assert isinstance(before.store, MemoryStore)
            after = timed(B, store=before.store, clock=before.clock)
            hop = after.hop("b.test")
            await after.start()
            await settle(400)
            assert hop.texts == [b"%d" % n for n in range(100)]
            assert not await after.store.lanes()

        run(story())

    def test_a_lane_follows_its_domains_new_route(self) -> None:
        """The lane keeps its name (G-30; ``test_former.py`` has the rest)."""

        async def story() -> None:
            before = await timed(B).start()
            before.hop("b.test", answer=refuses(Reason.TIMEOUT))
            await before.send("x", destination=BOB)
            await before.pipeline.stop()
            assert isinstance(before.store, MemoryStore)
            after = timed(replace(B, via="apex"), store=before.store, clock=before.clock)
            hop = after.hop("b.test")
            await after.start()
            await settle()
            assert hop.texts == [b"x"]

        run(story())

    def test_a_hop_nobody_writes_to_leaves_no_trace_in_memory(self) -> None:
        async def story() -> None:
            bench = await timed(Route("*", "sip", "tls://hub.test")).start()
            engine = bench.pipeline.delivery
            for n in range(50):
                bench.hop(f"d{n}.test")
                await bench.send("x", destination=f"im:bob@d{n}.test")
            busy = bench.hop("busy.test", answer=None)
            await bench.send("x", destination="im:bob@busy.test")
            await pass_time(bench, 30.0)
            assert list(engine._inboxes) == ["hop/sip:busy.test"]
            busy.take()
            await settle()
            await pass_time(bench, 30.0)
            assert not engine._inboxes

        run(story())

    def test_a_trace_says_where_it_waits(self) -> None:
        async def story() -> None:
            bench = await timed(B).start()
            bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            accepted = await bench.send("x", destination=BOB)
            [found] = await bench.store.find(accepted.id)
            [step] = EnvelopeRecords("a.test").steps(found)
            assert (step.node, step.outcome) == ("a.test", "waits in hop/sip:b.test")

        run(story())

    def test_an_operator_may_have_a_hop_tried_now(self) -> None:
        async def story() -> None:
            bench = await timed(B).start()
            hop = bench.hop("b.test", answer=refuses(Reason.TIMEOUT))
            await bench.send("x", destination=BOB)
            await pass_time(bench, 600.0)
            tries = len(hop.deliveries)
            hop.answer = takes
            bench.pipeline.delivery.wake("hop/sip:b.test")
            await settle()
            assert len(hop.deliveries) == tries + 1
            assert not await bench.store.lanes()

        run(story())


class TestIn:
    """T1, SEC-33: what a peer server may hand in."""

    def test_a_peer_speaks_for_its_domain(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            alice = await bench.device("im:alice@a.test")
            operation = bench.operation("hi", source=BOB, destination="im:alice@a.test")
            assert isinstance(await bench.pass_in(operation, "b.test"), Accepted)
            assert isinstance(await bench.pass_in(replace(operation, trans_id="2"), "*"), Accepted)
            assert alice.texts == [b"hi", b"hi"]
            assert alice.deliveries[0].asserted_by == "b.test"

        run(story())

    @pytest.mark.parametrize(("source", "domains"), [
        ("im:bob@b.test", ("c.test",)),
        ("im:bob@sub.b.test", ("b.test",)),
        ("im:carol@a.test", ("b.test",)),
        ("im:carol@a.test", ("*",)),
        ("im:carol@a.test", ("a.test",)),
    ])  # fmt: skip
    def test_a_peer_speaks_for_nobody_else_and_never_for_us(self, source: str, domains: tuple[str, ...]) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            operation = bench.operation("x", source=source, destination="im:alice@a.test")
            assert reason_of(await bench.pass_in(operation, *domains)) is Reason.DENIED
            assert not await bench.store.lanes()

        run(story())

    def test_the_object_is_from_who_the_peer_says(self) -> None:
        """C-20: the same as for our own users."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            forged = bench.operation("x", source="im:dave@b.test", destination="im:alice@a.test").object
            operation = bench.carrying(forged, BOB, "im:alice@a.test")
            assert reason_of(await bench.pass_in(operation, "b.test")) is Reason.DENIED

        run(story())

    def test_a_foreign_user_is_named_as_the_peer_names_him(self) -> None:
        """ADDR-4: whether Bob and bob are one is his domain's business."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            alice = await bench.device("im:alice@a.test")
            operation = bench.operation("x", source="im:Bob@b.test", destination="im:ALICE@a.test")
            assert isinstance(await bench.pass_in(operation, "b.test"), Accepted)
            assert alice.deliveries[0].operation.source.uri == "im:Bob@b.test"

        run(story())

    def test_nobody_signs_in_as_a_foreign_user(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            operation = bench.operation("x", source=BOB, destination="im:alice@a.test")
            assert reason_of(await bench.submit(operation)) is Reason.DENIED

        run(story())

    def test_foreign_passes_to_foreign_only_where_a_route_says_so(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B, C]).start()
            bob, carol = bench.hop("b.test"), bench.hop("c.test")
            onward = bench.operation("x", source=BOB, destination=CAROL)
            assert isinstance(await bench.pass_in(onward, "b.test"), Accepted)
            back = bench.operation("x", source=CAROL, destination=BOB)
            assert reason_of(await bench.pass_in(back, "c.test")) is Reason.DENIED
            assert (len(bob.deliveries), len(carol.deliveries)) == (0, 1)

        run(story())

    def test_what_comes_back_is_a_loop_whoever_brings_it(self) -> None:
        """GW-9: alice's own message, in the hands of a peer that may not speak for her."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test")
            await bench.send("x", destination=BOB)
            came_back = hop.deliveries[0].operation
            assert reason_of(await bench.pass_in(came_back, "b.test")) is Reason.LOOP

        run(story())

    def test_two_routes_that_point_at_each_other_stop_at_once(self) -> None:
        """GW-9, G-18: the sender is told, and there is one report."""

        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            alice = await bench.device("im:alice@a.test")

            def bounce(delivery: Delivery) -> Response:
                operation = delivery.operation
                entry = HistoryEntry("b.test", "sip", "sip", bench.clock.when())
                again = operation.forwarded(entry)
                origin = Origin(again.source, "sip", "192.0.2.1", True, domains=frozenset({"b.test"}))
                answer = bench.pipeline.submit(again, origin)
                assert answer.done()
                refusal = answer.result()
                assert isinstance(refusal, Response)
                return refusal

            bench.hop("b.test", answer=bounce)
            operation = bench.operation("x", destination=BOB)
            accepted = await bench.submit(operation)
            assert isinstance(accepted, Accepted)
            assert accepted.outcome.result().reason is Reason.LOOP
            assert not alice.deliveries
            assert not await bench.store.lanes()

        run(story())


class TestReports:
    """GW-12, OPS-13 over domains."""

    async def _failed(self, bench: Bench, **context: object) -> None:
        """A message of bob@b.test that alice's device refuses after its "yes"."""
        alice = await bench.device("im:alice@a.test", answer=None)
        operation = bench.operation("hi", source=BOB, destination="im:alice@a.test", native_id="n1", **context)
        accepted = await bench.pass_in(operation, "b.test")
        assert isinstance(accepted, Accepted)
        accepted.outcome.cancel()
        alice.take(failure("", Reason.CONTENT, "No."))
        await settle()

    def test_a_foreign_sender_is_told_by_his_domains_hop(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test")
            await self._failed(bench)
            [delivery] = hop.deliveries
            operation = delivery.operation
            assert (operation.source.uri, operation.destination.uri) == ("im:comity@a.test", BOB)
            assert is_report(operation.object)
            assert operation.max_forwards == 127  # its own hops, fresh
            assert report_in(delivery) == Report(Reason.CONTENT, "No.", Address.parse("im:alice@a.test"), "n1")
            view = CpimMessage.parse(operation.object.octets)
            assert view.from_ is not None
            assert view.from_.uri == "im:comity@a.test"
            assert not await bench.store.lanes()

        run(story())

    def test_a_report_that_fails_makes_none(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            hop = bench.hop("b.test", answer=refuses(Reason.NO_SUCH_USER))
            await self._failed(bench)
            assert len(hop.deliveries) == 1
            assert not await bench.store.lanes()

        run(story())

    def test_who_cannot_be_reached_is_not_told(self, caplog: pytest.LogCaptureFixture) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await self._failed(bench)
            assert not await bench.store.lanes()

        run(story())
        assert "no route to its domain" in caplog.text

    def test_what_passed_through_is_reported_in_our_own_name(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B, C]).start()
            hop = bench.hop("b.test")
            bench.hop("c.test", answer=None)
            accepted = await bench.pass_in(bench.operation("x", source=BOB, destination=CAROL), "b.test")
            assert isinstance(accepted, Accepted)
            accepted.outcome.cancel()
            [item] = await bench.store.read("hop/xmpp:c.test", 10)
            response = failure("", Reason.NO_SUCH_USER)
            contact = bench.pipeline.routes.hop("c.test")
            assert contact is not None
            bench.pipeline.reject(item.record.id, contact, response)
            await settle()
            assert [d.operation.source.uri for d in hop.deliveries] == ["im:comity@a.test"]

        run(story())


class TestReceipts:
    """``Context.wants_receipt``: told when it was delivered (RFC 3340 statusRequest; RFC 5438)."""

    async def _sent(self, bench: Bench, **context: object) -> Accepted:
        return await bench.send("x", wants_receipt="apex", native_id="17", source_resource="r", **context)

    def test_who_asked_is_told_on_devices_of_that_protocol(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            phone = await bench.device("im:alice@a.test", "phone")
            attached = await bench.device("im:alice@a.test", "relay", binding="apex", priority=-1)
            await bench.device("im:bob@a.test")
            await self._sent(bench)
            [delivery] = attached.deliveries
            report = report_in(delivery)
            assert (report.fate, report.native_id, report.recipient.uri) == (Fate.DELIVERED, "17", "im:bob@a.test")
            assert b"<status><delivered/></status>" in delivery.operation.object.octets
            assert not phone.deliveries
            assert not await bench.store.lanes()

        run(story())

    def test_nobody_else_asked(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            await bench.device("im:bob@a.test")
            await bench.send("x")
            assert not attached.deliveries

        run(story())

    def test_it_is_told_once_and_a_later_refusal_too(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            bob = await bench.device("im:bob@a.test")
            await bench.device("im:bob@a.test", "tablet")
            accepted = await self._sent(bench)
            for _ in range(2):
                bench.pipeline.reject(accepted.id, bob.contact, failure("", Reason.SIGNATURE))
            await settle()
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELIVERED, Fate.FAILED]

        run(story())

    def test_it_is_told_after_a_restart(self) -> None:
        """The wish is in the envelope; the report and the end are one commit."""

        async def story() -> None:
            before = await timed().start()
            await self._sent(before)
            await before.pipeline.stop()
            assert isinstance(before.store, MemoryStore)
            after = await timed(store=before.store, clock=before.clock).start()
            await after.device("im:bob@a.test")
            assert [info.lane for info in await after.store.lanes()] == ["receipt/apex/im:alice@a.test"]
            await after.pipeline.stop()
            third = await timed(store=before.store, clock=before.clock).start()
            phone = await third.device("im:alice@a.test", "phone")
            attached = await third.device("im:alice@a.test", "relay", binding="apex")
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELIVERED]
            assert not phone.deliveries
            assert not await third.store.lanes()

        run(story())

    def test_receipts_nobody_takes_hold_up_no_message_and_expire_quietly(self) -> None:
        async def story() -> None:
            bench = await timed().start()
            await bench.device("im:bob@a.test")
            for _ in range(100):
                await self._sent(bench)
            phone = await bench.device("im:alice@a.test")
            await bench.send("for her", source="im:bob@a.test", destination="im:alice@a.test")
            assert phone.texts == [b"for her"]
            await pass_time(bench, 73 * 3600)
            assert not await bench.store.lanes()
            assert phone.texts == [b"for her"]

        run(story())

    def test_who_took_the_wish_over_tells_her_itself(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B]).start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            hop = bench.hop("b.test", answer=lambda d: success(d.operation.trans_id, PASSED_ON))
            accepted = await self._sent(bench, destination=BOB)
            assert accepted.outcome.result().status is Status.INDETERMINANT
            assert not attached.deliveries
            hop.answer = takes
            await self._sent(bench, destination=BOB)
            assert [report_in(d).recipient.uri for d in attached.deliveries] == [BOB]

        run(story())

    def test_a_foreign_sender_is_told_if_his_hop_speaks_the_protocol(self) -> None:
        async def story() -> None:
            bench = await Bench(routes=[B, replace(C, via="apex")]).start()
            hops = {domain: bench.hop(domain) for domain in ("b.test", "c.test")}
            await bench.device("im:alice@a.test")
            for source, domain in ((BOB, "b.test"), (CAROL, "c.test")):
                operation = bench.operation("x", source=source, destination="im:alice@a.test", wants_receipt="apex")
                await bench.pass_in(operation, domain)
            assert not hops["b.test"].deliveries
            assert [report_in(d).fate for d in hops["c.test"].deliveries] == [Fate.DELIVERED]

        run(story())


class TestDelays:
    """``Context.report_after``: told once that it still waits."""

    def _asking(self, bench: Bench, after: float, text: str = "x") -> MessageOperation:
        return bench.operation(text, wants_receipt="apex", report_after=after)

    def test_what_still_waits_is_told_once(self) -> None:
        async def story() -> None:
            bench = await timed().start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            await bench.submit(self._asking(bench, 60.0))
            await pass_time(bench, 59.0)
            assert not attached.deliveries
            await pass_time(bench, 2.0)
            await pass_time(bench, 3600.0)
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELAYED]
            assert b"<processing-notification><status><stored/>" in attached.deliveries[0].operation.object.octets
            await bench.device("im:bob@a.test")
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELAYED, Fate.DELIVERED]
            assert not await bench.store.scan("setting", "delay/")

        run(story())

    def test_what_was_delivered_before_is_not(self) -> None:
        async def story() -> None:
            bench = await timed().start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            await bench.device("im:bob@a.test")
            await bench.submit(self._asking(bench, 60.0))
            await pass_time(bench, 120.0)
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELIVERED]
            assert not await bench.store.scan("setting", "delay/")

        run(story())

    def test_it_is_told_after_a_restart_in_the_order_of_time(self) -> None:
        async def story() -> None:
            before = await timed().start()
            for after in (90.0, 30.0, 60.0):
                await before.submit(self._asking(before, after, f"{after:g}"))
            await before.pipeline.stop()
            assert isinstance(before.store, MemoryStore)
            await pass_time(before, 40.0)
            bench = await timed(store=before.store, clock=before.clock).start()
            attached = await bench.device("im:alice@a.test", binding="apex")
            await pass_time(bench, 1.0)
            assert len(attached.deliveries) == 1
            await pass_time(bench, 60.0)
            assert [report_in(d).fate for d in attached.deliveries] == [Fate.DELAYED] * 3

        run(story())

    def test_one_timer_serves_all(self) -> None:
        async def story() -> None:
            bench = await timed().start()
            timers = bench.clock.pending
            for n in range(50):
                await bench.submit(self._asking(bench, 50.0 + n))
            assert bench.clock.pending == timers + 1

        run(story())

    def test_nobody_who_asks_for_no_receipt_is_told(self) -> None:
        async def story() -> None:
            bench = await timed().start()
            await bench.submit(bench.operation("x", report_after=5.0))
            assert not await bench.store.scan("setting", "delay/")

        run(story())


def test_an_indeterminate_end_makes_a_report_of_delay_and_never_of_failure() -> None:
    """The three answers and the three fates."""
    from comity.service.messaging import FATES

    assert FATES[indeterminant("").status] is Fate.DELAYED
    assert FATES[success("").status] is Fate.DELIVERED
    assert FATES[failure("", Reason.INTERNAL).status] is Fate.FAILED

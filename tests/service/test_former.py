"""G-30: the server starts anew with other routes while messages wait; every story is two lives over one store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from comity.cpim.operations import PASSED_ON, Reason, Response, Status, success
from comity.service.interfaces import Add, Put, Record
from comity.service.routes import Route
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Bench, Device, ended, refuses, settle
from tests.service.test_finding import Book

BOB = "im:bob@b.test"
BY_SIP = Route("b.test", "sip", "tls://b.test:5061")
BY_APEX = Route("b.test", "apex", "tcp://b.test:912")
BY_XMPP = Route("b.test", "xmpp", "tcp://b.test:5269")


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


class Lives:
    """One store, and one process after the other."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(StoreClock(lambda: self.clock.when().timestamp(), self.clock.now))
        self.bench = Bench(self.store, clock=self.clock)

    async def begin(self, *routes: Route, **options: object) -> Device | None:
        """Start with these routes; the hop to b.test if there is one, which holds what it gets."""
        await self.bench.pipeline.stop()
        self.bench = Bench(self.store, clock=self.clock, routes=routes, **options)  # type: ignore[arg-type]  # passed through
        hop = self.bench.hop("b.test", answer=None) if self.bench.pipeline.routes.hop("b.test") else None
        await self.bench.start()
        await settle()
        return hop

    async def wait_for(self, *texts: str, route: Route = BY_SIP) -> None:
        """A life in which the domain does not answer."""
        hop = await self.begin(route)
        assert hop is not None
        hop.answer = refuses(Reason.TIMEOUT)
        for text in texts:
            await self.bench.send(text, destination=BOB)

    async def lanes(self) -> list[str]:
        return [info.lane for info in await self.store.lanes()]

    async def pass_time(self, seconds: float) -> None:
        while seconds > 0:
            self.clock.advance(min(seconds, 15.0))
            await settle()
            seconds -= 15.0


@pytest.mark.parametrize("route", [BY_APEX, BY_XMPP, Route("*", "xmpp", "tls://hub.test")], ids=lambda r: r.via)
def test_what_waits_leaves_by_the_new_route_before_what_comes_after_it(route: Route) -> None:
    """Order is kept per conversation although the lane that waits was another protocol's."""

    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1", "2")
        hop = await lives.begin(route)
        assert hop is not None
        await lives.bench.send("3", destination=BOB)
        assert hop.texts == [b"1"]
        for _ in range(3):
            assert hop.deliveries[-1].contact.binding == route.via
            hop.take()
            await settle()
        assert hop.texts == [b"1", b"2", b"3"]
        assert not await lives.lanes()

    run(story())


def test_the_domain_gets_its_routes_own_lane_once_the_former_one_is_empty() -> None:
    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1")
        hop = await lives.begin(BY_XMPP)
        assert hop is not None
        hop.take()
        await lives.bench.send("2", destination=BOB)
        assert await lives.lanes() == ["hop/sip:b.test"]
        hop.take()
        await lives.pass_time(60)
        await lives.bench.send("3", destination=BOB)
        assert await lives.lanes() == ["hop/xmpp:b.test"]

    run(story())


def test_a_route_that_became_dns_and_back() -> None:
    """Three lives: named, found, named; nothing waits for ever and nothing is overtaken."""

    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1")
        hop = await lives.begin(directory=Book(b=[("apex", "")]))
        assert hop is not None
        assert [d.contact.binding for d in hop.deliveries] == ["apex"]
        await lives.bench.send("2", destination=BOB)
        hop = await lives.begin(BY_XMPP)
        assert hop is not None
        await lives.bench.send("3", destination=BOB)
        for _ in range(3):
            hop.take()
            await settle()
        assert hop.texts == [b"1", b"2", b"3"]
        assert not await lives.lanes()

    run(story())


def test_senders_to_a_domain_that_nothing_leads_to_any_more_are_told() -> None:
    """Nothing is stuck: the report comes at the start, not when the lifetime ends."""

    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1", "2")
        await lives.begin()
        alice = await lives.bench.device("im:alice@a.test")
        reports = [delivery.operation.context.report for delivery in alice.deliveries]
        assert [report.reason for report in reports if report] == [Reason.NO_ROUTE] * 2
        assert not await lives.lanes()

    run(story())


def test_what_waits_for_a_domain_that_is_ours_now_comes_to_its_inboxes() -> None:
    """In order, before what is sent to them now; who has no account here is reported."""

    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1", "2")
        await lives.bench.send("x", destination="im:nobody@b.test")
        asked = lives.bench.operation(
            "r", source=BOB, destination="im:alice@a.test", wants_receipt="sip", native_id="7"
        )
        await lives.bench.device("im:alice@a.test")
        await lives.bench.pass_in(asked, "b.test")
        await lives.begin(people=("im:alice@a.test", "im:bob@b.test"))
        assert await lives.lanes() == ["inbox/im:alice@a.test", "inbox/im:bob@b.test"]
        bob, alice = await lives.bench.device(BOB), await lives.bench.device("im:alice@a.test")
        assert bob.texts == [b"1", b"2"]
        [report] = [delivery.operation.context.report for delivery in alice.deliveries]
        assert report is not None
        assert report.reason is Reason.NO_SUCH_USER
        assert not await lives.lanes()

    run(story())


def test_a_move_into_an_inbox_that_is_cut_off_is_made_once() -> None:
    """The copy is durable and the end of the first is not: as after a kill -9 between the two."""

    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1")
        [waiting] = await lives.store.read("hop/sip:b.test", 1)
        await lives.begin(people=("im:alice@a.test", "im:bob@b.test"))
        [moved] = await lives.store.read("inbox/im:bob@b.test", 9)
        # The row as it was before its end was kept.
        again = Record(
            waiting.record.id, "hop/sip:b.test", waiting.record.entity, waiting.record.envelope,
            waiting.record.fingerprint, waiting.record.expires,
        )  # fmt: skip
        secret = await lives.store.get("setting", "dedup-secret")
        assert secret is not None
        lives.store = MemoryStore(StoreClock(lambda: lives.clock.when().timestamp(), lives.clock.now))
        await lives.store.commit([Put("setting", "dedup-secret", secret.value), Add(again), Add(moved.record)])
        await lives.begin(people=("im:alice@a.test", "im:bob@b.test"))
        assert len(await lives.store.read("inbox/im:bob@b.test", 9)) == 1
        assert await lives.lanes() == ["inbox/im:bob@b.test"]

    run(story())


def test_lanes_of_one_domain_that_an_older_version_left_go_one_after_the_other() -> None:
    async def story() -> None:
        lives = Lives()
        await lives.wait_for("1", "2")
        old = await lives.store.read("hop/sip:b.test", 9)
        await lives.pass_time(30)
        for item in old:
            record = item.record
            new = Record(
                record.id.replace("0", "f", 1), "hop/xmpp:b.test", record.entity, record.envelope,
                record.fingerprint, record.expires,
            )  # fmt: skip
            await lives.store.commit([Add(new)])
        hop = await lives.begin(BY_XMPP)
        assert hop is not None
        hop.answer = lambda delivery: success(delivery.operation.trans_id, PASSED_ON)
        late = await lives.bench.send("3", destination=BOB)
        assert hop.texts == [b"1"], "the first of the older lane, and nothing of the others"
        assert ended(late) is Status.INDETERMINANT
        hop.take()
        await lives.pass_time(90)
        assert hop.texts == [b"1", b"2", b"1", b"2", b"3"]
        assert not await lives.lanes()

    run(story())


def test_a_receipt_that_the_new_protocol_cannot_carry_ends() -> None:
    """A report that was to be told by SIP alone holds up nothing behind it."""

    async def story() -> None:
        lives = Lives()
        hop = await lives.begin(BY_SIP)
        assert hop is not None
        hop.answer = refuses(Reason.TIMEOUT)
        await lives.bench.device("im:alice@a.test")
        operation = lives.bench.operation(
            "x", source=BOB, destination="im:alice@a.test", wants_receipt="sip", native_id="7"
        )
        await lives.bench.pass_in(operation, "b.test")
        assert await lives.lanes() == ["hop/sip:b.test"]
        hop = await lives.begin(BY_XMPP)
        assert hop is not None
        assert not hop.deliveries
        answer = await lives.bench.submit(lives.bench.operation("y", destination=BOB))
        assert not isinstance(answer, Response)
        assert hop.texts == [b"y"]
        assert await lives.lanes() == ["hop/sip:b.test"]
        hop.take()
        await settle()
        assert not await lives.lanes()

    run(story())

"""Domains that no route names: service/finding.py in the pipeline, with a directory that says what the test wants."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence

import pytest

from comity.cpim.operations import MessageOperation, Reason, Response, Status, failure, unsent
from comity.errors import DeliveryError, NoRouteError
from comity.service.channel import RETRY_DELAYS
from comity.service.finding import Kind
from comity.service.interfaces import Accepted, Delivery, Origin
from comity.service.routes import Route
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Bench, ended, settle, takes

BOB = "im:bob@b.test"


class Book:
    """A ``Directory``: what it says may change while the test goes on."""

    def __init__(self, **domains: Sequence[tuple[str, str]] | DeliveryError) -> None:
        self.domains = {f"{name}.test": found for name, found in domains.items()}
        self.asked: list[tuple[str, str, str]] = []

    async def find(
        self, domain: str, kind: Kind, protocols: Sequence[str], asker: str = ""
    ) -> Sequence[tuple[str, str]]:
        """What is written of the domain, the asker's protocol first."""
        self.asked.append((domain, kind, asker))
        found = self.domains.get(domain) or NoRouteError(f"{domain} does not exist")
        if isinstance(found, DeliveryError):
            raise found
        order = [asker, *protocols]
        spoken = sorted((one for one in found if one[0] in protocols), key=lambda one: order.index(one[0]))
        if not spoken:
            raise NoRouteError(f"{domain} speaks none of these")
        return spoken


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def finding(book: Book, *routes: Route, **options: object) -> Bench:
    clock = FakeClock()
    store = MemoryStore(StoreClock(lambda: clock.when().timestamp(), clock.now))
    return Bench(store, clock=clock, routes=routes, directory=book, **options)  # type: ignore[arg-type]  # passed through


def by(**answers: Callable[[Delivery], Response]) -> Callable[[Delivery], Response]:
    """A domain whose servers answer by the protocol they are asked in."""
    return lambda delivery: answers[delivery.contact.binding](delivery)


def unreachable(delivery: Delivery) -> Response:
    return unsent(delivery.operation.trans_id, "Nobody answers.")


def silent(delivery: Delivery) -> Response:
    return failure(delivery.operation.trans_id, Reason.TIMEOUT, "It did not answer.")


def origin_of(operation: MessageOperation, *domains: str) -> Origin:
    return Origin(operation.source, "sip", "192.0.2.1", True, domains=frozenset(domains))


class TestProtocol:
    def test_the_protocol_a_message_came_by_goes_first(self) -> None:
        """ADDR-15, X25; what leaves says by which protocol."""

        async def story() -> None:
            book = Book(b=[("xmpp", ""), ("sip", "srv:_im._sip")])
            bench = await finding(book).start()
            hop = bench.hop("b.test")
            for binding in ("sip", "xmpp", "apex"):
                await bench.submit(bench.operation(binding, destination=BOB), binding=binding)
            assert [d.contact.binding for d in hop.deliveries] == ["sip", "xmpp", "xmpp"]
            assert [d.contact.data for d in hop.deliveries] == [b"srv:_im._sip", b"", b""]
            assert [d.operation.history[-1].out_protocol for d in hop.deliveries] == ["sip", "xmpp", "xmpp"]
            assert all(d.contact.is_protected and d.contact.is_hop for d in hop.deliveries)
            assert not await bench.store.lanes()

        run(story())

    def test_a_route_goes_before_dns(self) -> None:
        """ADDR-15: nothing is asked about a domain whose route names its next hop."""

        async def story() -> None:
            book = Book(b=[("xmpp", "")])
            bench = await finding(book, Route("b.test", "sip", "tls://b.test:5061")).start()
            hop = bench.hop("b.test")
            await bench.send("x", destination=BOB)
            assert [d.contact.binding for d in hop.deliveries] == ["sip"]
            assert not book.asked

        run(story())

    def test_a_route_without_a_next_hop_is_that_protocol_by_dns(self) -> None:
        async def story() -> None:
            book = Book(b=[("xmpp", ""), ("sip", "")])
            bench = await finding(book, Route("b.test", "sip")).start()
            hop = bench.hop("b.test")
            await bench.submit(bench.operation("x", destination=BOB), binding="xmpp")
            assert [d.contact.binding for d in hop.deliveries] == ["sip"]
            book.domains["b.test"] = [("xmpp", "")]
            accepted = await bench.send("y", destination=BOB)
            assert accepted.outcome.result().reason is Reason.NO_ROUTE

        run(story())

    def test_without_federation_no_domain_is_looked_up(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            answer = await bench.submit(bench.operation("x", destination=BOB))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.NO_ROUTE

        run(story())

    def test_who_is_no_message_asks_for_the_hops(self) -> None:
        """``Service.find_hops``: presence asks under its own labels."""

        async def story() -> None:
            book = Book(b=[("xmpp", ""), ("sip", "srv:_pres._sip")])
            bench = await finding(book, Route("c.test", "apex", "tcp://10.0.0.1")).start()
            hops = await bench.pipeline.find_hops("b.test", asker="sip", kind="pres")
            assert [(hop.binding, hop.data) for hop in hops] == [("sip", b"srv:_pres._sip"), ("xmpp", b"")]
            assert book.asked == [("b.test", "pres", "sip")]
            (static,) = await bench.pipeline.find_hops("c.test")
            assert (static.binding, static.data) == ("apex", b"tcp://10.0.0.1")
            with pytest.raises(NoRouteError):
                await bench.pipeline.find_hops("missing.test")
            with pytest.raises(NoRouteError):
                await bench.pipeline.find_hops("plain")

        run(story())


class TestFailures:
    def test_a_domain_that_does_not_exist_fails_its_messages_for_good(self) -> None:
        """ADDR-18: NXDOMAIN is a failure with the same TransID, told at once; nothing stays behind."""

        async def story() -> None:
            bench = await finding(Book()).start()
            hop = bench.hop("b.test")
            operation = bench.operation("x", destination=BOB)
            answer = await bench.submit(operation)
            assert isinstance(answer, Accepted)
            response = answer.outcome.result()
            assert (response.trans_id, response.reason) == (operation.trans_id, Reason.NO_ROUTE)
            assert response.text == "b.test does not exist."
            assert not hop.deliveries
            assert not await bench.store.lanes()

        run(story())

    def test_who_did_not_wait_is_told_by_a_report(self) -> None:
        async def story() -> None:
            bench = await finding(Book()).start()
            alice = await bench.device("im:alice@a.test")
            operation = bench.operation("x", destination=BOB)
            accepted = await bench.pipeline.submit(operation, origin_of(operation))
            assert isinstance(accepted, Accepted)
            accepted.outcome.cancel()
            await settle()
            report = alice.deliveries[0].operation.context.report
            assert report is not None
            assert (report.reason, report.recipient.uri) == (Reason.NO_ROUTE, BOB)

        run(story())

    def test_a_name_that_is_not_full_is_no_domain(self) -> None:
        """ADDR-7: refused before anything is stored, or asked."""

        async def story() -> None:
            book = Book()
            bench = await finding(book).start()
            answer = await bench.submit(bench.operation("x", destination="im:bob@host"))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.NO_ROUTE
            assert not book.asked

        run(story())

    def test_trouble_with_dns_makes_messages_wait_and_keeps_their_order(self) -> None:
        """U-06: temporary; the same messages leave when the domain can be looked up again."""

        async def story() -> None:
            book = Book(b=DeliveryError("no DNS server could answer"))
            bench = await finding(book).start()
            hop = bench.hop("b.test")
            sent = [await bench.send(text, destination=BOB) for text in ("1", "2", "3")]
            assert [ended(one) for one in sent] == [Status.INDETERMINANT] * 3
            assert not hop.deliveries
            book.domains["b.test"] = [("xmpp", "")]
            bench.clock.advance(RETRY_DELAYS[0])
            await settle()
            assert hop.texts == [b"1", b"2", b"3"]
            assert not await bench.store.lanes()

        run(story())

    def test_the_next_protocol_is_tried_where_nothing_was_sent(self) -> None:
        """Fail-over over protocols, within one attempt."""

        async def story() -> None:
            bench = await finding(Book(b=[("xmpp", ""), ("sip", ""), ("apex", "")])).start()
            hop = bench.hop("b.test", answer=by(xmpp=unreachable, sip=unreachable, apex=takes))
            accepted = await bench.submit(bench.operation("x", destination=BOB), binding="sip")
            assert [d.contact.binding for d in hop.deliveries] == ["sip", "xmpp", "apex"]
            assert [d.operation.max_forwards for d in hop.deliveries] == [bench.operation("").max_forwards - 1] * 3
            assert isinstance(accepted, Accepted)
            assert ended(accepted) is Status.SUCCESS

        run(story())

    def test_no_other_protocol_is_tried_where_the_message_may_have_arrived(self) -> None:
        """Two protocols would be two messages."""

        async def story() -> None:
            bench = await finding(Book(b=[("xmpp", ""), ("sip", "")])).start()
            hop = bench.hop("b.test", answer=by(xmpp=silent, sip=takes))
            await bench.submit(bench.operation("x", destination=BOB), binding="xmpp")
            assert [d.contact.binding for d in hop.deliveries] == ["xmpp"]
            bench.clock.advance(RETRY_DELAYS[0])
            await settle()
            assert [d.contact.binding for d in hop.deliveries] == ["xmpp", "xmpp"]

        run(story())

    def test_what_may_be_better_later_is_tried_again_although_one_protocol_is_refused(self) -> None:
        async def story() -> None:
            def refused(delivery: Delivery) -> Response:
                return unsent(delivery.operation.trans_id, "No permitted route.", Reason.NO_ROUTE)

            bench = await finding(Book(b=[("xmpp", ""), ("sip", "")])).start()
            hop = bench.hop("b.test", answer=by(xmpp=refused, sip=unreachable))
            accepted = await bench.send("x", destination=BOB)
            assert ended(accepted) is Status.INDETERMINANT
            hop.answer = by(xmpp=refused, sip=refused)
            bench.clock.advance(RETRY_DELAYS[0])
            await settle()
            assert [info.lane for info in await bench.store.lanes()] == ["inbox/im:alice@a.test"], "the report"

        run(story())

    def test_the_domain_moves_to_another_protocol_while_messages_wait(self) -> None:
        """G-30 by DNS: the lane is the domain's, so nothing has to be moved; ADDR-16."""

        async def story() -> None:
            book = Book(b=[("xmpp", "")])
            bench = await finding(book).start()
            hop = bench.hop("b.test", answer=by(xmpp=silent, sip=takes))
            for text in ("1", "2", "3"):
                await bench.send(text, destination=BOB)
            hop.deliveries.clear()
            book.domains["b.test"] = [("sip", "")]
            bench.clock.advance(RETRY_DELAYS[0])
            await settle()
            assert hop.texts == [b"1", b"2", b"3"]
            assert {d.contact.binding for d in hop.deliveries} == {"sip"}

        run(story())


class TestReports:
    def test_a_receipt_goes_by_the_protocol_that_asked_for_it_or_not_at_all(self) -> None:
        async def story() -> None:
            book = Book(b=[("xmpp", ""), ("sip", "")], c=[("sip", "")])
            bench = await finding(book).start()
            hops = bench.hop("b.test"), bench.hop("c.test")
            await bench.device("im:alice@a.test")
            for domain in ("b.test", "c.test"):
                source = f"im:bob@{domain}"
                operation = bench.operation(
                    domain, source=source, destination="im:alice@a.test", wants_receipt="xmpp", native_id="7"
                )
                await bench.pass_in(operation, domain, binding="xmpp")
            assert [d.contact.binding for d in hops[0].deliveries] == ["xmpp"]
            assert not hops[1].deliveries
            assert not await bench.store.lanes()

        run(story())

    def test_a_foreign_sender_hears_of_a_failure(self) -> None:
        async def story() -> None:
            bench = await finding(Book(b=[("xmpp", "")])).start()
            hop = bench.hop("b.test")
            await bench.device("im:alice@a.test", answer=lambda d: failure("", Reason.CONTENT, "no"))
            operation = bench.operation("x", source=BOB, destination="im:alice@a.test")
            accepted = await bench.pipeline.submit(operation, origin_of(operation, "b.test"))
            assert isinstance(accepted, Accepted)
            accepted.outcome.cancel()
            await settle()
            [report] = hop.deliveries
            assert report.operation.context.report is not None
            assert report.operation.context.report.reason is Reason.CONTENT

        run(story())

    def test_what_passes_through_needs_a_route(self) -> None:
        """DNS opens no relay: from one foreign domain to another nothing goes."""

        async def story() -> None:
            bench = await finding(Book(b=[("xmpp", "")], c=[("xmpp", "")])).start()
            operation = bench.operation("x", source=BOB, destination="im:carol@c.test")
            answer = await bench.pass_in(operation, "b.test")
            assert isinstance(answer, Response)
            assert answer.reason is Reason.DENIED

        run(story())

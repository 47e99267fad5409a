"""Admission, acceptance, repeats and reports: service/pipeline.py with policy.py and messaging.py."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from comity.cpim.address import Address
from comity.cpim.imdn import is_report
from comity.cpim.message import CpimMessage
from comity.cpim.operations import HistoryEntry, MimeObject, Reason, Response, Status
from comity.errors import StoreError
from comity.service.interfaces import Accepted, Add, Op, Origin, Result
from comity.service.policy import Limits
from comity.testing.service import Bench, ended, refuses, settle, takes


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def cpim(source: str = "im:alice@a.test", to: str = "im:bob@a.test", more: str = "", body: bytes = b"hi") -> MimeObject:
    octets = f"From: <{source}>\r\nTo: <{to}>\r\n{more}\r\nContent-Type: text/plain\r\n\r\n".encode() + body
    return MimeObject.of("message/cpim", octets)


async def refusal(bench: Bench, thing: MimeObject, **named: str) -> Response:
    answer = await bench.submit(bench.carrying(thing), **named)
    assert isinstance(answer, Response)
    assert answer.status is Status.FAILURE
    assert not await bench.store.lanes()
    return answer


class TestAdmission:
    """RFC 3860 section 3.4.1: syntax, resolution, access, in this order (OPS-4, OPS-5)."""

    def test_no_message_is_taken_where_messages_are_switched_off(self) -> None:
        """SEED-45: presence alone; whoever sends gets a reason of its own."""

        async def story() -> None:
            bench = await Bench(limits=Limits(has_messages=False)).start()
            assert (await refusal(bench, cpim())).reason is Reason.UNSERVED
            assert (await refusal(bench, cpim(to="im:nobody@a.test"))).reason is Reason.UNSERVED

        run(story())

    def test_a_message_from_somebody_else_is_refused(self) -> None:
        """T1, S-06, X-46: the envelope's source is the principal."""

        async def story() -> None:
            bench = await Bench().start()
            answer = await bench.submit(bench.operation("x", source="im:bob@a.test"), principal="im:alice@a.test")
            assert isinstance(answer, Response)
            assert answer.reason is Reason.DENIED

        run(story())

    def test_an_object_from_somebody_else_is_refused(self) -> None:
        """C-20: CPIM From is one of the sender fields."""

        async def story() -> None:
            bench = await Bench().start()
            assert (await refusal(bench, cpim(source="im:carol@a.test"))).reason is Reason.DENIED

        run(story())

    @pytest.mark.parametrize("uri", ["sip:alice@a.test", "xmpp:alice@a.test", "im:alice@A.TEST", "im:%61lice@a.test"])
    def test_the_same_sender_in_another_scheme_is_accepted(self, uri: str) -> None:
        """C-22, ADDR-4."""

        async def story() -> None:
            bench = await Bench().start()
            assert isinstance(await bench.submit(bench.carrying(cpim(source=uri))), Accepted)

        run(story())

    def test_an_object_for_somebody_else_is_refused(self) -> None:
        """C-23: the envelope's recipient is in To or cc."""

        async def story() -> None:
            bench = await Bench().start()
            assert (await refusal(bench, cpim(to="im:carol@a.test"))).reason is Reason.DENIED
            thing = cpim(to="im:carol@a.test", more="cc: <im:bob@a.test>\r\n")
            assert isinstance(await bench.submit(bench.carrying(thing)), Accepted)

        run(story())

    @pytest.mark.parametrize(
        ("outer", "inner", "is_refused"),
        [
            ("message/cpim", "im:carol@a.test", True),
            ("message/cpim", "im:alice@a.test", False),
            ("multipart/mixed; boundary=m", "im:carol@a.test", False),
            ("broken", "im:carol@a.test", False),
        ],
    )
    def test_a_message_signed_by_another_in_an_envelope_of_the_senders(
        self, outer: str, inner: str, is_refused: bool
    ) -> None:
        """M-06: refused for local senders. As an attachment, or where nothing can be read, it is opaque (C-31)."""
        signed = b"Content-Type: multipart/signed; boundary=s\r\n\r\n--s\r\nContent-Type: message/cpim\r\n\r\n"
        signed += (
            cpim(source=inner).octets + b"\r\n--s\r\nContent-Type: application/pkcs7-signature\r\n\r\nMII=\r\n--s--"
        )
        if outer == "broken":
            signed = signed.replace(b"--s--", b"")
        elif outer.startswith("multipart"):
            signed = b"Content-Type: " + outer.encode() + b"\r\n\r\n--m\r\n" + signed + b"\r\n--m--\r\n"
        head = cpim().octets.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
        thing = MimeObject.of("message/cpim", head + signed)

        async def story() -> None:
            bench = await Bench().start()
            answer = await bench.submit(bench.carrying(thing))
            assert isinstance(answer, Response) == is_refused
            if isinstance(answer, Response):
                assert answer.reason is Reason.DENIED

        run(story())

    @pytest.mark.parametrize(
        "octets",
        [
            b"From: <im:alice@a.test>\nTo: <im:bob@a.test>\n\nContent-Type: text/plain\n\nhi",
            b"From: <im:alice@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhi",
            b"not an object at all",
            b"",
        ],
        ids=["bare LF (C-01)", "no To (C-06)", "prose (C-32)", "nothing"],
    )
    def test_a_malformed_object_is_refused_with_the_reason(self, octets: bytes) -> None:
        """FMT-39, C-32: refused from our own users at submission."""

        async def story() -> None:
            bench = await Bench().start()
            answer = await refusal(bench, MimeObject.of("message/cpim", octets))
            assert answer.reason is Reason.SYNTAX
            assert "malformed" in answer.text

        run(story())

    @pytest.mark.parametrize(
        "block",
        [
            b"Content-Type: text/plain\r\ncontent-type: message/cpim\r\n",
            b"Content-ID: <1>\r\n",
            b"Content-Type: text/plain\r\nno colon\r\n",
            b"Content-Type: text/plain\rX: y\r\n",
            b"Content-Type: text/plain\r\nContent ID: <1>\r\n",
            b"",
        ],
    )
    def test_an_object_whose_mime_header_two_readers_would_read_differently_is_refused(self, block: bytes) -> None:
        """T5: found by fuzzing; such an object also made a SIP request that no peer reads."""

        async def story() -> None:
            bench = await Bench().start()
            answer = await refusal(bench, MimeObject(block, b"hi"))
            assert answer.reason is Reason.SYNTAX

        run(story())

    def test_size_is_bounded(self) -> None:
        """C-27: the limit is accepted, one octet more is not."""

        async def story() -> None:
            thing = cpim(body=b"x" * 100)
            size = len(thing.octets) + len(thing.header_block)
            bench = await Bench(limits=Limits(object_octets=size)).start()
            assert isinstance(await bench.submit(bench.carrying(thing)), Accepted)
            answer = await bench.submit(bench.carrying(cpim(body=b"x" * 101)))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.SIZE

        run(story())

    @pytest.mark.parametrize(("offset", "ok"), [(timedelta(minutes=14), True), (timedelta(minutes=16), False)])
    def test_a_date_far_ahead_is_refused(self, offset: timedelta, ok: bool) -> None:
        """C-28, reliability.md section 5.4."""

        async def story() -> None:
            bench = await Bench().start()
            when = (bench.clock.when() + offset).isoformat().replace("+00:00", "Z")
            answer = await bench.submit(bench.carrying(cpim(more=f"DateTime: {when}\r\n")))
            assert isinstance(answer, Accepted) is ok

        run(story())

    def test_a_foreign_domain_and_an_unknown_user_are_told_apart(self) -> None:
        """T1 rows "no route" and "no such user"; ADDR-18."""

        async def story() -> None:
            bench = await Bench().start()
            for uri, reason in (("im:x@other.test", Reason.NO_ROUTE), ("im:nobody@a.test", Reason.NO_SUCH_USER)):
                answer = await bench.submit(bench.operation("x", destination=uri))
                assert isinstance(answer, Response)
                assert answer.reason is reason

        run(story())

    def test_a_message_that_came_back_to_be_sent_on_is_a_loop(self) -> None:
        """GW-9, SEED-55."""

        async def story() -> None:
            bench = await Bench().start()
            operation = bench.operation("x", destination="im:x@other.test")
            passed = HistoryEntry("a.test", "sip", "xmpp", bench.clock.when())
            answer = await bench.submit(replace(operation, history=(passed,)))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.LOOP

        run(story())

    def test_hops_used_up_is_a_failure_and_the_last_hop_may_deliver(self) -> None:
        """OPS-12: local delivery at 0 is allowed."""

        async def story() -> None:
            bench = await Bench().start()
            assert isinstance(await bench.submit(replace(bench.operation("x"), max_forwards=0)), Accepted)
            answer = await bench.submit(replace(bench.operation("x"), max_forwards=-1))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.HOPS

        run(story())

    def test_the_first_failing_check_gives_the_reason(self) -> None:
        """OPS-4."""

        async def story() -> None:
            bench = await Bench(limits=Limits(object_octets=10)).start()
            operation = bench.operation("x" * 100, source="im:bob@a.test", destination="pres:x@other.test")
            reasons = []
            for destination in ("pres:x@other.test", "im:x@other.test", "im:bob@a.test"):
                changed = replace(operation, destination=Address.parse(destination))
                answer = await bench.submit(changed, principal="im:alice@a.test")
                assert isinstance(answer, Response)
                reasons.append(answer.reason)
            assert reasons == [Reason.SYNTAX, Reason.NO_ROUTE, Reason.DENIED]

        run(story())


class TestAcceptance:
    """reliability.md sections 5.2 and 5.3."""

    def test_yes_means_the_record_is_in_the_store(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            accepted = await bench.send("hello")
            [found] = await bench.store.find(accepted.id)
            assert found.lane == "inbox/im:bob@a.test"
            assert ended(accepted) is Status.INDETERMINANT  # OPS-6: nobody is reachable

        run(story())

    def test_one_sender_is_stored_in_order_over_all_recipients(self) -> None:
        """``Service.submit``: a recipient that has to be looked up holds up those behind it, and only its sender's."""

        async def story() -> None:
            bench = await Bench().start()
            gate = asyncio.Event()
            stored: list[str] = []
            real_exists, real_commit = bench.accounts.exists, bench.store.commit

            async def exists(address: Address) -> bool:
                await gate.wait()
                return await real_exists(address)

            def commit(ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
                stored.extend(op.record.lane for op in ops if isinstance(op, Add))
                return real_commit(ops)

            bench.accounts.known = lambda address: None if address.local == "bob" else True  # type: ignore[method-assign]  # not read yet
            bench.accounts.exists = exists  # type: ignore[method-assign]  # a slow look
            bench.store.commit = commit  # type: ignore[method-assign]  # watched
            answers = [
                bench.pipeline.submit(operation, Origin(operation.source, "xmpp", "127.0.0.1", True))
                for operation in (
                    bench.operation("1"),
                    bench.operation("2", destination="im:carol@a.test"),
                    bench.operation("3", source="im:carol@a.test", destination="im:alice@a.test"),
                )
            ]
            await settle()
            assert stored == ["inbox/im:alice@a.test"]
            gate.set()
            await asyncio.gather(*answers)
            assert stored == ["inbox/im:alice@a.test", "inbox/im:bob@a.test", "inbox/im:carol@a.test"]

        run(story())

    def test_a_look_up_that_fails_says_nothing_about_the_user(self) -> None:
        async def story() -> None:
            bench = await Bench().start()

            async def exists(address: Address) -> bool:
                raise StoreError("the disk is away")

            bench.accounts.known = lambda address: None  # type: ignore[method-assign]  # not read yet
            bench.accounts.exists = exists  # type: ignore[method-assign]  # fails
            answers = await asyncio.gather(
                bench.submit(bench.operation("1")), bench.submit(bench.operation("2", destination="im:carol@a.test"))
            )
            assert [answer.reason for answer in answers if isinstance(answer, Response)] == [Reason.OVERLOAD] * 2

        run(story())

    def test_a_repeat_is_delivered_once_and_answered_alike(self) -> None:
        """S-34, S-35, OPS-9, OPS-11."""

        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test")
            first = await bench.submit(bench.operation("x"), "call", "1", "hash")
            again = await bench.submit(bench.operation("x"), "call", "1", "hash")
            other = await bench.submit(bench.operation("y"), "call", "1", "other hash")
            assert isinstance(first, Accepted)
            assert isinstance(again, Accepted)
            assert isinstance(other, Accepted)
            assert again.id == first.id != other.id
            assert [ended(each) for each in (first, again, other)] == [Status.SUCCESS] * 3
            assert bob.texts == [b"x", b"y"]

        run(story())

    def test_the_same_object_by_another_edge_is_delivered_once(self) -> None:
        """§5.3 "CPIM level, any edge": From, Message-ID, recipient, fingerprint."""

        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test")
            thing = cpim(more="NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: 34jk324j\r\n")
            await bench.submit(bench.carrying(thing), "sip", "1")
            await bench.submit(bench.carrying(thing), "xmpp", "2", binding="xmpp")
            assert len(bob.deliveries) == 1

        run(story())

    def test_a_repeat_of_a_failed_message_fails_alike(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await bench.device("im:bob@a.test", answer=refuses(Reason.CONTENT))
            first = await bench.submit(bench.operation("x"), "1")
            again = await bench.submit(bench.operation("x"), "1")
            assert isinstance(first, Accepted)
            assert isinstance(again, Accepted)
            assert first.outcome.result().reason is again.outcome.result().reason is Reason.CONTENT

        run(story())

    def test_a_full_inbox_refuses_and_says_when_to_come_back(self) -> None:
        """L-07."""

        async def story() -> None:
            bench = await Bench(limits=Limits(inbox_records=2)).start()
            await bench.send("1")
            await bench.send("2")
            answer = await bench.submit(bench.operation("3"))
            assert isinstance(answer, Response)
            assert answer.reason is Reason.QUOTA
            assert answer.retry_after

        run(story())

    def test_a_typing_notice_is_never_stored(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            answer = await bench.submit(bench.operation("", transient=True))
            assert isinstance(answer, Accepted)
            assert answer.outcome.result().reason is Reason.AWAY
            assert not await bench.store.lanes()
            bob = await bench.device("im:bob@a.test")
            answer = await bench.submit(bench.operation("", transient=True))
            assert len(bob.deliveries) == 1

        run(story())


class TestReports:
    """Any failure reaches the sender, once, and never for a report (OPS-13, §5.6)."""

    def test_a_failure_after_yes_is_stored_for_the_sender(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            accepted = await bench.send("hello", native_id="m1", source_resource="desk")
            await bench.device("im:bob@a.test", answer=refuses(Reason.CONTENT))
            alice = await bench.device("im:alice@a.test", "desk")
            [report] = alice.deliveries
            context = report.operation.context
            assert context.report is not None
            assert (context.report.native_id, context.report.reason) == ("m1", Reason.CONTENT)
            assert context.report.recipient == Address.parse("im:bob@a.test")
            assert report.operation.source.local == "comity"
            assert is_report(report.operation.object)
            assert CpimMessage.parse(report.operation.object.octets).to[0].uri == "im:alice@a.test"
            assert ended(accepted) is Status.INDETERMINANT

        run(story())

    def test_a_failure_somebody_waits_for_makes_no_report(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await bench.device("im:bob@a.test", answer=refuses(Reason.CONTENT))
            alice = await bench.device("im:alice@a.test")
            accepted = await bench.send("hello")
            assert ended(accepted) is Status.FAILURE
            assert not alice.deliveries

        run(story())

    def test_a_binding_that_answered_already_cancels_and_gets_a_report(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", answer=None)
            alice = await bench.device("im:alice@a.test")
            accepted = await bench.send("hello")
            accepted.outcome.cancel()
            bob.take(refuses(Reason.DENIED)(bob.deliveries[0]))
            await settle()
            assert len(alice.deliveries) == 1

        run(story())

    def test_a_message_too_old_is_reported_and_gone(self) -> None:
        """§5.6 expiry."""

        async def story() -> None:
            bench = await Bench(limits=Limits(lifetime=0.0)).start()
            accepted = await bench.send("hello")
            alice = await bench.device("im:alice@a.test", answer=takes)
            bench.clock.advance(20)
            await settle()
            assert [d.operation.context.report is not None for d in alice.deliveries] == [True]
            [found] = await bench.store.find(accepted.id)
            assert found.outcome is not None
            assert b"expired" in found.outcome
            assert not await bench.store.lanes("inbox/im:bob@a.test")

        run(story())

    def test_what_an_operator_drops_is_reported_and_gone(self) -> None:
        """§5.6: also while a device has it in hand; docs/topics/promise.md."""

        async def story() -> None:
            bench = await Bench().start()
            bob, alice = (
                await bench.device("im:bob@a.test", answer=None),
                await bench.device("im:alice@a.test", answer=takes),
            )
            for is_there in (True, False):
                if not is_there:
                    await bench.pipeline.registrar.unregister(bob.contact.aor, bob.contact.binding, bob.contact.id)
                accepted = await bench.send("hello")
                await settle()
                [found] = await bench.store.find(accepted.id)
                bench.pipeline.drop(found)
                await settle()
                report = alice.deliveries.pop().operation.context.report
                assert report is not None
                assert "operator" in report.text
                [found] = await bench.store.find(accepted.id)
                assert found.outcome is not None
                assert b"dropped" in found.outcome
                assert not await bench.store.lanes("inbox/im:bob@a.test")
                assert not alice.deliveries

        run(story())

    def test_no_report_is_made_for_a_report(self) -> None:
        async def story() -> None:
            bench = await Bench().start()
            await bench.send("hello")
            await bench.device("im:alice@a.test", answer=refuses(Reason.CONTENT))
            await bench.device("im:bob@a.test", answer=refuses(Reason.CONTENT))
            assert not await bench.store.lanes()
            assert bench.pipeline.counts["reported"] == 1

        run(story())

    def test_a_device_may_refuse_what_it_took(self) -> None:
        """An XMPP error stanza after the acknowledgement."""

        async def story() -> None:
            bench = await Bench().start()
            bob = await bench.device("im:bob@a.test", binding="xmpp")
            alice = await bench.device("im:alice@a.test")
            accepted = await bench.send("hello", native_id="m1")
            response = refuses(Reason.SIGNATURE)(bob.deliveries[0])
            bench.pipeline.reject(accepted.id, bob.contact, response)
            bench.pipeline.reject(accepted.id, bob.contact, response)
            await settle()
            [report] = alice.deliveries
            assert report.operation.context.report is not None
            assert report.operation.context.report.reason is Reason.SIGNATURE

        run(story())

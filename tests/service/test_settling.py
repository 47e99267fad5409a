"""What a next hop tells of a message it took over, and what comes back in transit (service/pipeline.py, service/messaging.py)."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from itertools import count

from comity.bindings.apex.own_ids import fingerprints_of, own_trans_id
from comity.cpim.address import Address
from comity.cpim.operations import Context, Fate, MessageOperation, MimeObject, Reason, failure, indeterminant, success
from comity.service.interfaces import Accepted, Origin
from comity.service.routes import Route
from comity.testing.service import Bench, settle
from tests.loop import in_loop

B = Route("b.test", "apex", "tls://b.test:912")
C = Route("c.test", "apex", "tls://c.test:912", frozenset({"b.test"}))
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
REFUSED = failure("", Reason.CONTENT, "no such thing here")


async def passed_on(bench: Bench) -> MessageOperation:
    """A message of alice's that b.test's server took."""
    hop = bench.hop("b.test")
    accepted = await bench.send("hello", destination=BOB.uri)
    assert isinstance(accepted, Accepted)
    accepted.outcome.cancel()
    await settle()
    return hop.deliveries[0].operation


@in_loop
async def test_failure_that_the_next_hop_tells_later_is_reported_once() -> None:
    """OPS-13, GW-12: by the beginning of the fingerprint, which the store knows; a second word about it changes nothing."""
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    operation = await passed_on(bench)
    names = ["00000000", operation.object.fingerprint[:8]]
    for _ in range(2):
        assert await bench.pipeline.settle(names, ALICE, BOB, REFUSED)
        await settle()
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert (report.fate, report.reason, report.recipient) == (Fate.FAILED, Reason.CONTENT, BOB)


@in_loop
async def test_failure_for_one_of_many_recipients_of_one_object_is_told() -> None:
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    bench.hop("b.test")
    sealed = MimeObject(b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n", b"0\x80")
    recipients = [Address.im(f"u{n}", "b.test") for n in range(300)]
    for to in recipients:
        operation = MessageOperation(ALICE, to, to.key, sealed)
        assert isinstance(await bench.pipeline.submit(operation, Origin(ALICE, "xmpp", "", True)), Accepted)
    await settle()
    assert await bench.pipeline.settle([sealed.fingerprint[:8]], ALICE, recipients[150], REFUSED)
    await settle()
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert report.recipient == recipients[150]


@in_loop
async def test_only_the_sender_and_the_recipient_of_that_message_will_do() -> None:
    """SEC-33: whoever guesses the fingerprint of another's message reports about nothing."""
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    operation = await passed_on(bench)
    names = [operation.object.fingerprint[:8]]
    assert not await bench.pipeline.settle(names, Address.parse("im:carol@a.test"), BOB, REFUSED)
    assert not await bench.pipeline.settle(names, ALICE, Address.parse("im:eve@b.test"), REFUSED)
    assert not await bench.pipeline.settle(["ffffffff"], ALICE, BOB, REFUSED)
    await settle()
    assert phone.deliveries == []


@in_loop
async def test_message_delivered_here_is_no_next_hops_to_report_about() -> None:
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:bob@a.test")
    await bench.send("hello")
    names = [phone.deliveries[0].operation.object.fingerprint[:8]]
    assert not await bench.pipeline.settle(names, ALICE, Address.parse("im:bob@a.test"), REFUSED)


@in_loop
async def test_success_and_delay_are_told_to_nobody_who_did_not_ask() -> None:
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    operation = await passed_on(bench)
    for response in (success(""), indeterminant("")):
        assert await bench.pipeline.settle([operation.object.fingerprint[:8]], ALICE, BOB, response)
    await settle()
    assert phone.deliveries == []


@in_loop
async def test_message_that_comes_back_in_transit_with_fewer_hops_is_no_repeat() -> None:
    """APEX-15: swallowed as a repeat it would end here with nobody told; the peer's retry, hops and all, is one."""
    bench = await Bench(routes=[B, C]).start()
    hop = bench.hop("c.test")
    operation = bench.operation("hello", BOB.uri, "im:carol@c.test")
    origin = Origin(BOB, "apex", "192.0.2.2", True, ("1@b.test",), domains=frozenset({"b.test"}))
    repeats = []
    for hops in (100, 100, 97):
        answer = await bench.pipeline.submit(replace(operation, max_forwards=hops), origin)
        assert isinstance(answer, Accepted)
        repeats.append(answer.is_repeat)
        await settle()
    assert repeats == [False, True, False]
    assert len(hop.deliveries) == 2


@in_loop
async def test_message_for_one_of_us_is_a_repeat_with_any_number_of_hops() -> None:
    """Reliability.md section 5.3: two ways to us, one message."""
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    operation = bench.operation("hello", BOB.uri, ALICE.uri)
    origin = Origin(BOB, "apex", "192.0.2.2", True, ("1@b.test",), domains=frozenset({"b.test"}))
    for hops in (100, 97):
        assert isinstance(await bench.pipeline.submit(replace(operation, max_forwards=hops), origin), Accepted)
    await settle()
    assert len(phone.deliveries) == 1


@in_loop
async def test_of_two_messages_with_equal_31_bits_the_newest_is_told_of_and_nobody_elses() -> None:
    """Which message a statusResponse means is 31 bits of its octets, its sender and its recipient (``own_ids.py``). Two of one sender
    to one recipient that collide are looked for here on purpose: a word about one is told once, about that pair of people."""
    first, second = collision()
    bench = await Bench(routes=[B]).start()
    phone = await bench.device("im:alice@a.test")
    bench.hop("b.test")
    for number, octets in enumerate((first, second)):
        thing = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", octets)
        operation = MessageOperation(ALICE, BOB, f"{number}", thing, context=Context(native_id=f"{number}"))
        accepted = await bench.pipeline.submit(operation, Origin(ALICE, "xmpp", "", True))
        assert isinstance(accepted, Accepted)
        accepted.outcome.cancel()
    await settle()
    names = fingerprints_of(own_trans_id(hashlib.sha256(first).hexdigest()))
    assert not await bench.pipeline.settle(names, Address.parse("im:carol@a.test"), BOB, REFUSED)
    for _ in range(2):
        assert await bench.pipeline.settle(names, ALICE, BOB, REFUSED)
        await settle()
    [delivery] = phone.deliveries
    report = delivery.operation.context.report
    assert report is not None
    assert (report.recipient, report.native_id) == (BOB, "1")


def collision() -> tuple[bytes, bytes]:
    """Two objects whose transaction-identifiers are equal; a hundred thousand tries find them."""
    seen: dict[int, bytes] = {}
    for number in count():
        octets = b"0\x80%d" % number
        known = seen.setdefault(own_trans_id(hashlib.sha256(octets).hexdigest()), octets)
        if known is not octets:
            return known, octets
    raise AssertionError

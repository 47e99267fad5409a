"""What passed here lately: ``service/passes.py``, and with the pipeline (G-16 to G-18, GW-9, T25)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MessageOperation, MimeObject, Reason, Response
from comity.service.interfaces import Accepted, Origin
from comity.service.passes import ALARM, LIFE, MOST_PASSES, WINDOW, Passes
from comity.service.routes import Route
from comity.testing.service import Bench, settle
from tests.loop import in_loop

B, C, NEXT = Address.parse("im:bob@b.test"), Address.parse("im:carol@c.test"), Address.parse("im:dora@d.test")
ROUTES = [Route(f"{name}.test", "sip", f"tls://{name}.test", frozenset({"b.test"})) for name in ("b", "c", "d")]


def operation(text: str = "x", to: Address = C, *, hops: int = 70, id: str = "") -> MessageOperation:
    """An object of Bob's on its way between other domains."""
    raw = f"From: <{B}>\r\nTo: <{C}>\r\nTo: <{NEXT}>\r\nDateTime: 2026-01-01T00:00:00Z\r\n"
    raw += f"NS: imdn <urn:ietf:params:imdn>\r\nimdn.Message-ID: {id}\r\n" if id else ""
    octets = f"{raw}\r\nContent-Type: text/plain\r\n\r\n{text}".encode()
    return MessageOperation(B, to, "t", MimeObject.of("message/cpim", octets), hops)


def passes(memory: Passes, one: MessageOperation, edge: str = "", now: float = 0.0) -> bool:
    view = CpimMessage.parse(one.object.octets)
    return memory.is_loop(one, view, (edge,) if edge else (), now)


def test_what_comes_again_with_fewer_hops_has_been_around() -> None:
    """G-17: whatever it is called now, its octets are the same."""
    memory = Passes()
    assert not passes(memory, operation(), "1")
    assert passes(memory, operation(hops=67), "2")
    assert not passes(memory, operation("y", hops=67), "3")


def test_with_other_octets_its_message_id_is_left() -> None:
    """G-18: a subject that gets "Re:" each time."""
    memory = Passes()
    assert not passes(memory, operation("a", id="m1"), "1")
    assert passes(memory, operation("Re: a", hops=68, id="m1"), "2")
    assert not passes(memory, operation("Re: a", hops=68, id="m2"), "3")


def test_the_same_object_to_another_destination_is_legal() -> None:
    """GW-9: a list expands it."""
    memory = Passes()
    assert not passes(memory, operation(), "1")
    assert not passes(memory, operation(to=NEXT, hops=60), "2")


def test_a_hops_own_repeats_are_no_passes() -> None:
    memory = Passes()
    assert not any(passes(memory, operation(), "1") for _ in range(10 * MOST_PASSES))


def test_a_hop_that_counts_from_the_top_again_is_stopped_too(caplog: pytest.LogCaptureFixture) -> None:
    """G-18: said in the log at the fifth, ended at the twentieth; in an hour anybody may send the same so often."""
    memory = Passes()
    found = [passes(memory, operation(), f"{n}", n / 10) for n in range(MOST_PASSES + 1)]
    assert found == [False] * MOST_PASSES + [True]
    assert [f"came {ALARM} times" in record.message for record in caplog.records] == [True]
    slow = Passes()
    assert not any(passes(slow, operation(), f"{n}", n * WINDOW) for n in range(MOST_PASSES + 1))


def test_its_memory_is_bounded_and_fades() -> None:
    memory = Passes(100)
    for n in range(300):
        passes(memory, operation(f"{n}"), "1")
        memory.leaves(operation(f"{n}"), 0.0)
    assert len(memory) == 100
    assert not passes(memory, operation("299", hops=3), "2", LIFE)
    newest = operation("299").object.fingerprint
    assert memory.has_left(newest, 1.0)
    assert not memory.has_left(newest, LIFE)
    assert not memory.has_left(operation("0").object.fingerprint, 1.0)


@in_loop
async def test_a_loop_without_any_history_is_refused_as_one() -> None:
    bench = await Bench(routes=ROUTES).start()
    hop = bench.hop("c.test")
    origin = Origin(B, "apex", "192.0.2.2", True, ("1@b.test",), domains=frozenset({"b.test"}))
    assert isinstance(await bench.pipeline.submit(operation(), origin), Accepted)
    await settle()
    again = await bench.pipeline.submit(operation(hops=67), replace(origin, binding="sip", dedup=("other",)))
    assert isinstance(again, Response)
    assert again.reason is Reason.LOOP
    assert len(hop.deliveries) == 1
    to_another = await bench.pipeline.submit(operation(to=NEXT, hops=67), origin)
    assert isinstance(to_another, Accepted)


@in_loop
async def test_what_our_own_user_sent_and_a_peer_brings_back_is_a_loop() -> None:
    """Its history is gone; nobody is told that the sender were forged."""
    bench = await Bench(routes=ROUTES).start()
    bench.hop("b.test")
    sent = bench.carrying(bench.operation("hi", destination=B.uri).object, destination=B.uri)
    assert isinstance(await bench.pipeline.submit(sent, Origin(sent.source, "xmpp", "", True)), Accepted)
    await settle()
    peer = Origin(sent.source, "sip", "192.0.2.2", True, domains=frozenset({"*"}))
    for thing, reason in (
        (sent.object, Reason.LOOP),
        (bench.operation("forged", destination=B.uri).object, Reason.DENIED),
    ):
        answer = await bench.pipeline.submit(replace(sent, object=thing, max_forwards=60), peer)
        assert isinstance(answer, Response)
        assert answer.reason is reason

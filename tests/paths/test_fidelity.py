"""Byte fidelity: 10,000 generated objects over real sockets, every pair of bindings (SEED-10, SEED-11, G3, C-24…C-26)."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from comity.bindings.base import Transport
from comity.cpim.operations import Reason, Response, Status
from comity.testing.objects import GeneratedObject, objects
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

PER_PAIR = 2_500
#: What a refusal of a malformed object is allowed to say (rows C-01 to C-28): the reason of the row, nothing vague.
REASONS = {Reason.SYNTAX, Reason.DENIED, Reason.SIZE, Reason.TIMESTAMP, Reason.CONTENT}
AHEAD = 100


async def send_all(
    server: ServerProcess, corpus: list[GeneratedObject], source: tuple[Via, Transport], sink: tuple[Via, Transport]
) -> tuple[list[Response], list[str]]:
    """Send the corpus; give the answers and the fingerprints received, both in order."""
    async with (
        server.client(source[0], ALICE, source[1], receive=False) as alice,
        server.client(sink[0], BOB, sink[1]) as bob,
    ):
        received: list[str] = []
        arrived = asyncio.Event()

        async def collect() -> None:
            async for message in bob.messages():
                received.append(message.object.fingerprint)
                arrived.set()

        collecting = asyncio.ensure_future(collect())
        answers: list[Response] = []
        for start in range(0, len(corpus), AHEAD):
            batch = [alice.send(generated, BOB) for generated in corpus[start : start + AHEAD]]
            answers += await asyncio.gather(*batch)
        expected = sum(answer.status is not Status.FAILURE for answer in answers)
        async with asyncio.timeout(60):
            while len(received) < expected:
                arrived.clear()
                await arrived.wait()
        while await asyncio.to_thread(server.waiting):  # until the server knows that the last one was taken
            pass
        collecting.cancel()
        return answers, received


@pytest.mark.slow
@pytest.mark.parametrize("sink", [("sip", "tcp"), ("xmpp", "tcp")], ids=lambda end: f"to-{end[0]}")
@pytest.mark.parametrize("source", [("sip", "tls"), ("xmpp", "tls")], ids=lambda end: f"from-{end[0]}")
def test_every_object_arrives_equal_or_is_refused_with_the_reason(
    server: ServerProcess, source: tuple[Via, Transport], sink: tuple[Via, Transport]
) -> None:
    seed = {("sip", "sip"): 1, ("sip", "xmpp"): 2, ("xmpp", "sip"): 3, ("xmpp", "xmpp"): 4}[source[0], sink[0]]
    corpus = list(objects(seed, PER_PAIR, ALICE, BOB))
    answers, received = asyncio.run(send_all(server, corpus, source, sink))
    accepted = [g for g, answer in zip(corpus, answers, strict=True) if answer.status is not Status.FAILURE]
    refused = [(g, answer) for g, answer in zip(corpus, answers, strict=True) if answer.status is Status.FAILURE]
    assert received == [generated.fingerprint for generated in accepted], "octets or order changed"
    assert not [generated.kind for generated in accepted if not generated.is_valid]
    wrongly = Counter((g.kind, a.reason, a.text) for g, a in refused if g.is_valid and a.reason is not Reason.SIZE)
    assert not wrongly
    assert {answer.reason for _, answer in refused} <= REASONS
    assert len(accepted) > PER_PAIR // 2

"""Byte fidelity: generated objects over real sockets, every ordered pair of bindings (SEED-7, SEED-10, SEED-11, G3, C-24…C-26).

At each run 640 objects go over each of the 16 ways, 10,240 in all; with ``COMITY_ALL_PAIRS=1`` 10,000 over each.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from itertools import islice

import pytest

from comity.bindings.base import Transport
from comity.cpim.operations import Reason, Response, Status
from comity.testing.objects import GeneratedObject, objects
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

PER_PAIR = 10_000 if os.environ.get("COMITY_ALL_PAIRS") else 640
WAYS: list[tuple[Via, Transport]] = [("sip", "udp"), ("sip", "tls"), ("xmpp", "tls"), ("apex", "tls")]
#: What a refusal of a malformed object is allowed to say (rows C-01 to C-28): the reason of the row, nothing vague.
REASONS = {Reason.SYNTAX, Reason.DENIED, Reason.SIZE, Reason.TIMESTAMP, Reason.CONTENT}
AHEAD = 100
UDP_OCTETS = 700
"""Objects for a device that only speaks UDP: what makes a request above 1,300 octets goes by TCP (RFC 3261, section 18.1.1)."""


def some(seed: int, most: int | None) -> list[GeneratedObject]:
    """The corpus of one pair; ``most``: of objects of so many octets only."""
    if most is None:
        return list(objects(seed, PER_PAIR, ALICE, BOB))
    fitting = (generated for generated in objects(seed, 10 * PER_PAIR, ALICE, BOB) if len(generated.octets) <= most)
    return list(islice(fitting, PER_PAIR))


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
@pytest.mark.parametrize("sink", WAYS, ids=lambda end: f"to-{end[0]}-{end[1]}")
@pytest.mark.parametrize("source", WAYS, ids=lambda end: f"from-{end[0]}-{end[1]}")
def test_every_object_arrives_equal_or_is_refused_with_the_reason(
    server: ServerProcess, source: tuple[Via, Transport], sink: tuple[Via, Transport]
) -> None:
    corpus = some(1 + 4 * WAYS.index(source) + WAYS.index(sink), UDP_OCTETS if sink[1] == "udp" else None)
    answers, received = asyncio.run(send_all(server, corpus, source, sink))
    accepted = [g for g, answer in zip(corpus, answers, strict=True) if answer.status is not Status.FAILURE]
    refused = [(g, answer) for g, answer in zip(corpus, answers, strict=True) if answer.status is Status.FAILURE]
    assert received == [generated.fingerprint for generated in accepted], "octets or order changed"
    assert not [generated.kind for generated in accepted if not generated.is_valid]
    wrongly = Counter((g.kind, a.reason, a.text) for g, a in refused if g.is_valid and a.reason is not Reason.SIZE)
    assert not wrongly
    assert {answer.reason for _, answer in refused} <= REASONS
    assert len(accepted) > PER_PAIR // 2

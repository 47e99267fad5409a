"""Three servers in a ring that speak SIP and APEX with each other: whole chains, and a loop (SEED-54, GW-8, GW-9, GW-10, T2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.paths.kit import Via
from tests.paths.neighbours import ALICE, Servers, Way
from tests.paths.test_neighbours import VIAS, listening, run

CAROL = Address.parse("im:carol@c.test")
LOST = Address.parse("im:somebody@d.test")
ALL = ("*",)
RING = [
    # a to c by b and back the same way; SIP on one side of b, APEX on the other.
    Way("a.test", "c.test", "b.test", "sip"),
    Way("b.test", "c.test", "c.test", "apex", ("a.test",)),
    Way("c.test", "a.test", "b.test", "apex"),
    Way("b.test", "a.test", "a.test", "sip", ("c.test",)),
    # What is for d.test goes round and round.
    Way("a.test", "d.test", "b.test", "sip", ALL),
    Way("b.test", "d.test", "c.test", "apex", ALL),
    Way("c.test", "d.test", "a.test", "sip", ALL),
    Way("c.test", "b.test", "b.test", "apex"),
]


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    people = {"a.test": (ALICE,), "b.test": (), "c.test": (CAROL,)}
    with Servers(tmp_path_factory.mktemp("ring"), people, RING) as servers:
        yield servers


@pytest.mark.parametrize(("source", "sink"), [("apex", "xmpp"), ("xmpp", "apex"), ("sip", "sip")])
def test_an_object_passes_three_servers_and_each_says_so(ring: Servers, source: Via, sink: Via) -> None:
    async def story() -> None:
        thing = text_object(ALICE, CAROL, "three hops")
        alice = ring["a.test"].client(source, ALICE, receive=False)
        async with alice as one, ring["c.test"].client(sink, CAROL) as carol:
            sending = asyncio.ensure_future(one.send(thing, CAROL))
            [received] = await listening(carol, 1)
            assert (await sending).status is not Status.FAILURE
        assert received.object.octets == thing.octets
        assert [(hop.node, hop.in_protocol, hop.out_protocol) for hop in received.history] == [
            ("a.test", source, "sip"),
            ("b.test", "sip", "apex"),
            ("c.test", "apex", sink),
        ]
        links = [(hop.in_tls, hop.out_tls) for hop in received.history]
        # A phone over TCP is in the clear; everything else here is under TLS.
        assert links == [(source != "sip", True), (True, True), (True, sink != "sip")]
        assert received.asserted_by == "a.test"
        trace = json.loads(ring["c.test"].run("trace", thing.fingerprint, "--json", "-c", str(ring["c.test"].config)))
        assert [(step["node"], step["in_tls"], step["out_tls"]) for step in trace] == [
            (hop.node, *link) for hop, link in zip(received.history, links, strict=True)
        ]
        assert trace[-1]["outcome"] == "delivered (object whole)"
        assert trace[-1]["asserted_by"] == "a.test"

    run(story())


def test_and_the_answer_goes_back(ring: Servers) -> None:
    """OPS-10: the envelope's source is an address one can write to."""

    async def story() -> None:
        thing = text_object(CAROL, ALICE, "back")
        carol = ring["c.test"].client("xmpp", CAROL, receive=False)
        async with carol as one, ring["a.test"].client("sip", ALICE) as alice:
            await one.send(thing, ALICE)
            [received] = await listening(alice, 1)
        assert received.object.octets == thing.octets
        assert [hop.node for hop in received.history] == ["c.test", "b.test", "a.test"]

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_what_goes_in_circles_is_caught_and_told(ring: Servers, via: Via) -> None:
    """GW-9: at the first node it comes back to; the sender learns it once, and nothing stays anywhere."""

    async def story() -> None:
        async with ring["a.test"].client(via, ALICE) as alice:
            answer = await alice.send(text_object(ALICE, LOST, "round"), LOST)
            text = answer.text
            if answer.status is not Status.FAILURE:
                [received] = await listening(alice, 1)
                assert received.report is not None
                text = received.report.text
            # By its words: 550 is all that T7 has for a loop.
            assert text == "The message came back to a node it had passed."
        assert [ring[domain].waiting() for domain in ("a.test", "b.test", "c.test")] == [0, 0, 0]

    run(story())

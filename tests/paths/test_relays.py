"""Chains and loops of three real servers as APEX relays (issue 6; APEX-12, 15, 16; SEED-1; RFC 3340 section 4.4.4.1)."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client.compose import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.interop.apex_peer import Application, Data, hopping, option
from tests.interop.apex_peer_beep import Refused
from tests.paths.kit import Via
from tests.paths.relays import RelayServer, Tap, nodes_of, peer, route, servers

CPIM = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@c.test>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nl\xc3\xb6wes; odd \tspace \r\n--peer\r\n"
)
OBJECTS = [
    (b"Content-Type: message/cpim\r\n", CPIM),
    (b"Content-Type: image/gif\r\nX-Odd:  kept \r\n", b"GIF89a\x00\xff\r\n--not-the-end\r\n\r\n"),
    (b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\n", bytes(range(256)) * 300),
    (b"Content-Type: text/plain\r\n", b""),
]
Three = tuple[RelayServer, RelayServer, RelayServer, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Three]:
    """Servers of a.test, b.test and c.test that never ran."""
    (a, b, c), trust = servers(tmp_path_factory.mktemp("relays"), "a.test", "b.test", "c.test")
    with a, b, c:
        yield a, b, c, trust


@pytest.fixture
def chain(made: Three) -> Three:
    """a.test and c.test reach each other through b.test alone, which they trust to speak for others; TLS everywhere."""
    a, b, c, trust = made
    if a.process is None:  # else they run as this left them
        a.join(trust, route("*", b.hop()), peer("b.test", "*"))
        b.join(trust, route("a.test", a.hop(), "c.test"), route("c.test", c.hop(), "a.test"))
        c.join(trust, route("*", b.hop()), peer("b.test", "*"))
        for server in (a, b, c):
            server.start()
    return made


@pytest.fixture
def stopped(made: Three) -> Iterator[Three]:
    """The same, none of them running; whatever runs afterwards is stopped."""
    for server in made[:3]:
        if server.process is not None:
            assert server.stop() == 0
    yield made
    for server in made[:3]:
        assert server.stop() == 0


def report_of(data: Data) -> tuple[str, str, str]:
    """(who reports, about whom, code) of a statusResponse."""
    assert data.inline is not None
    [response] = data.inline
    destination = response.find("destination")
    assert response.tag == "statusResponse"
    assert destination is not None
    reply = destination.find("reply")
    assert reply is not None
    return data.originator, destination.get("identity", ""), reply.get("code", "")


def test_chain_of_three_relays_carries_objects_unchanged_and_brings_the_status_back(chain: Three) -> None:
    """Issue 6, APEX-11, APEX-12, APEX-14, SEED-1: octets and headers equal, three nodes in the history, 250 through the chain."""
    a, _, c, _ = chain
    with a.application("alice@a.test") as alice, c.application("bob@c.test") as bob:
        for number, part in enumerate(OBJECTS, 1):
            asked = option("statusRequest", number)
            alice.data("alice@a.test", "bob@c.test", part=part, options=asked, content_id=f"{number}@a.test")
            arrived = bob.receive(20)
            assert (arrived.originator, arrived.body) == ("alice@a.test", part[1])
            assert part[0] in arrived.headers
            assert arrived.element.get("content") == f"cid:{number}@a.test"
            history = arrived.option("urn:comity:history:0")
            assert history is not None
            assert [hop.get("node") for hop in history[0]] == ["a.test", "b.test", "c.test"]
            assert report_of(alice.receive(20)) == ("apex=report@c.test", "bob@c.test", "250")


def test_relays_status_and_errors_of_the_far_end_come_back(chain: Three) -> None:
    """APEX-14: 550 for nobody; APEX-12: what the recipient's application refuses."""
    a, _, c, _ = chain
    with a.application("alice@a.test") as alice, c.application("bob@c.test") as bob:
        alice.data("alice@a.test", "nobody@c.test", part=OBJECTS[1], options=option("statusRequest", 5))
        assert report_of(alice.receive(20)) == ("apex=report@c.test", "nobody@c.test", "550")
        alice.data("alice@a.test", "bob@c.test", part=OBJECTS[1], options=option("statusRequest", 6))
        bob.refuse(bob.receive(20, answer=False).request, "504", "no such thing here")
        assert report_of(alice.receive(20)) == ("apex=report@c.test", "bob@c.test", "504")


def test_relay_that_claims_a_domain_not_its_own_is_refused(chain: Three) -> None:
    """P-25, APEX-9, RFC 3340 section 4.5.2, over TLS with a certificate that the server believes."""
    a, _, c, _ = chain
    with a.as_relay(c) as relay, c.application("bob@c.test") as bob:
        for domain in ("b.test", "c.test"):
            with pytest.raises(Refused, match="537"):
                relay.bind(domain)
        relay.bind("a.test")
        with pytest.raises(Refused, match="537"):
            relay.data("alice@b.test", "bob@c.test", part=OBJECTS[1])
        relay.data("alice@a.test", "bob@c.test", part=OBJECTS[1])
        assert bob.receive(20).body == OBJECTS[1][1]


@pytest.mark.parametrize(("near", "far"), [("sip", "xmpp"), ("xmpp", "sip"), ("apex", "sip"), ("xmpp", "apex")])
def test_people_of_other_protocols_write_to_each_other_over_the_chain(chain: Three, near: Via, far: Via) -> None:
    """SEED-1, GW-8: SIP, XMPP and APEX at the ends, relays of APEX between; the object equal, and every hop in its history."""
    a, _, c, _ = chain
    alice, bob = Address.parse("im:alice@a.test"), Address.parse("im:bob@c.test")

    async def story() -> None:
        async with a.client(near, alice) as sender, c.client(far, bob) as receiver:
            sent = text_object(alice, bob, "l\u00f6wes")
            response = await sender.send(sent, bob)
            assert response.status is not Status.FAILURE
            async with asyncio.timeout(30):
                async for received in receiver.messages():
                    if received.object.octets == sent.octets:
                        break  # what the story before this one did not confirm comes first
            assert [entry.node for entry in received.history] == ["a.test", "b.test", "c.test"]
            ways = [(entry.in_protocol, entry.out_protocol) for entry in received.history]
            assert ways == [(near, "apex"), ("apex", "apex"), ("apex", far)]

    asyncio.run(story())


MESSAGES = 60


def test_relay_that_is_killed_while_messages_flow_loses_none_and_repeats_none(chain: Three) -> None:
    """Reliability.md sections 5.1, 5.3, 5.5: what a relay said ok to is durable, its retry is known by Content-ID."""
    a, b, c, _ = chain
    with a.application("bob@a.test") as bob, c.application("alice@c.test") as alice:

        def send() -> None:
            for number in range(MESSAGES):
                part = b"Content-Type: text/plain\r\n", b"%d" % number
                bob.data("bob@a.test", "alice@c.test", part=part, content_id=f"k{number}@a.test")

        sender = threading.Thread(target=send)
        sender.start()
        found: list[int] = []
        while len(found) < MESSAGES:
            found.append(int(alice.receive(60).body))
            if len(found) in (5, 25):
                b.kill()
                b.start()
        sender.join(60)
        assert found == list(range(MESSAGES)), Counter(found).most_common(3)
        assert b.waiting() == 0


def loop(made: Three, first: str, second: str, third: str, *, to_a: str) -> None:
    """Each believes that the next knows the way to lost.test; in the clear, so that the wire can be listened to."""
    a, b, c, trust = made
    near = [peer(name, "*", address="127.0.0.0/8") for name in ("near.test",)]
    a.join(trust, route("lost.test", first, "*"), *near)
    b.join(trust, route("lost.test", second, "*"), route("a.test", to_a), *near)
    c.join(trust, route("lost.test", third, "*"), route("a.test", to_a), *near)


def lost(alice: Application, options: str) -> list[tuple[str, str, str]]:
    """Send one message into the loop; what came back of it."""
    alice.data("alice@a.test", "bob@lost.test", part=OBJECTS[1], options=options)
    found = [report_of(alice.receive(30))]
    with pytest.raises(TimeoutError):
        found.append(report_of(alice.receive(1)))
    return found


def test_loop_of_three_relays_is_seen_by_its_history_and_reported(stopped: Three) -> None:
    """Issue 6: a to b to c to a, misrouted: the relay that has seen it refuses it; 550 to the originator, and no storm."""
    a, b, c, _ = stopped
    with ExitStack() as stack:
        taps = [stack.enter_context(Tap(server.port("apex", "tcp"))) for server in (b, c, a)]
        loop(stopped, taps[0].hop, taps[1].hop, taps[2].hop, to_a=a.hop("tcp"))
        for server in (a, b, c):
            server.start()
        with a.application("alice@a.test") as alice:
            [(_, about, code)] = lost(alice, option("statusRequest", 86))
        assert (about, code) == ("bob@lost.test", "550")
        assert [tap.count(b"<data ") for tap in taps] == [1, 1, 1]
        assert nodes_of(taps[2].octets.decode("utf-8", "replace")) == ["a.test", "b.test", "c.test"]


def test_loop_whose_history_nobody_understands_ends_by_its_hop_count_and_is_reported(stopped: Three) -> None:
    """Issue 6, APEX-15: b and c hand it to each other until dataHopping is used up; 550, and no storm."""
    a, b, c, _ = stopped
    with ExitStack() as stack:
        masked = [Tap(server.port("apex", "tcp"), is_masking=True) for server in (b, c, b)]
        taps = [stack.enter_context(tap) for tap in masked]
        loop(stopped, taps[0].hop, taps[1].hop, taps[2].hop, to_a=a.hop("tcp"))
        for server in (a, b, c):
            server.start()
        with a.application("alice@a.test") as alice:
            [(_, about, code)] = lost(alice, hopping(7, noMoreThan=9, reportErrors="true"))
        assert (about, code) == ("bob@lost.test", "550")
        assert [tap.count(b"<data ") for tap in taps] == [1, 4, 3]

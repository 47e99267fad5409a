"""S-28, S-31: what strangers get over UDP, where a source address proves nothing (G7, issue 3).

Loopback is no exception: what holds here holds for the Internet. Also inputs nobody listed: mutations of good messages.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.mutations import SIP_PIECES
from tests.catalogue.raw import RawSipUdp, sip_status
from tests.catalogue.sip_agent import Agent, Wire, header
from tests.catalogue.test_sip_syntax import ROWS, Row

TORTURE = Path(__file__).parent.parent / "conformance" / "rfc4475"
FAST = "udp_requests = 100000\nuser_messages = 100000\nuser_message_burst = 100000\nfailures_per_address = 100000"
TINY = [
    b"OPTIONS sip:a.test SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:x@y>;tag=1\r\nTo: <sip:a.test>\r\n"
    b"Call-ID: 1\r\nCSeq: 1 OPTIONS\r\n\r\n",
    b"REGISTER sip:a.test SIP/2.0\r\nv: SIP/2.0/UDP h;branch=z9hG4bK1;rport\r\nf: <sip:alice@a.test>;tag=1\r\n"
    b"t: <sip:alice@a.test>\r\ni: 1\r\nCSeq: 1 REGISTER\r\n\r\n",
    b"X sip:a SIP/2.0\r\nv: SIP/2.0/UDP h\r\n\r\n",
    b"X sip:a SIP/7.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1;rport\r\nf:<sip:a@b>\r\nt:<sip:a@b>\r\ni:1\r\nCSeq:1 X\r\n\r\n",
    b"\r\n\r\n",
    b"\x00" * 20,
    b"SIP/2.0 200 OK\r\n\r\n",
    b"",
]


SMALL = (
    b"OPTIONS sip:a.test SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK%d\r\nFrom: <sip:x@y>;tag=1\r\n"
    b"To: <sip:a.test>\r\nCall-ID: 1\r\nCSeq: 1 OPTIONS\r\nUser-Agent: just enough for a short answer to fit\r\n\r\n"
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server that takes any number of requests from strangers."""
    target = Target(tmp_path_factory.mktemp("sip"), FAST)
    yield target
    target.check_canary()
    target.close()


def answers_to(octets: bytes, peer: RawSipUdp, marker: RawSipUdp) -> list[bytes]:
    """Every datagram that comes to a socket that has proved nothing; ``marker`` tells when there are no more.

    Both sockets are served in the order of their datagrams, and what needs the store is answered before what comes
    later to the same account, so a marker's answer means that the row's is on its way or will never come.
    """
    peer.send(octets)
    time_to_end = time.monotonic() + 0.05
    marker.send(SMALL % time.monotonic_ns())
    marker.receive()
    heard = []
    peer.sock.settimeout(0.02)
    while True:
        try:
            heard.append(peer.receive())
        except TimeoutError:
            if time.monotonic() >= time_to_end:
                return heard


def judge(octets: bytes, heard: list[bytes]) -> None:
    assert len(heard) <= 1, heard
    assert sum(map(len, heard)) <= len(octets), (octets, heard)


@pytest.mark.parametrize("name", sorted(path.stem for path in TORTURE.glob("*.dat")))
def test_a_torture_message_never_comes_back_larger(name: str, target: Target) -> None:
    """S-28: one packet, no more octets than were sent."""
    with target.row(f"S-28 {name}"), RawSipUdp(target) as peer, RawSipUdp(target) as marker:
        octets = (TORTURE / f"{name}.dat").read_bytes()
        judge(octets, answers_to(octets, peer, marker))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_a_row_never_comes_back_larger(row: Row, target: Target) -> None:
    """S-28."""
    with target.row(f"S-28 {row.id}"), Agent(target, "udp") as agent, RawSipUdp(target) as marker:
        octets = row.make(agent)
        judge(octets, answers_to(octets, agent.datagrams, marker))


@pytest.mark.parametrize("octets", TINY)
def test_tiny_requests_never_come_back_larger(octets: bytes, target: Target) -> None:
    """S-28."""
    with target.row("S-28 tiny"), RawSipUdp(target) as peer, RawSipUdp(target) as marker:
        judge(octets, answers_to(octets, peer, marker))


def test_a_stranger_is_not_answered_twice(target: Target) -> None:
    """S-28: no 100, no retransmission of ours; a repeat of the request is one request more."""
    with target.row("S-28 repeats"), Agent(target, "udp") as agent:
        request = agent.message("x")
        for _ in range(5):
            assert sip_status(agent.ask(request)) == 401
        assert agent.rest() == []


def test_full_answers_come_once_the_address_is_proved(target: Target) -> None:
    """And only to that port of it."""
    with target.row("proof", stores=True), Agent(target, "udp") as agent:
        assert len(agent.ask(SMALL % 1)) <= len(SMALL)
        agent.register()
        assert len(agent.ask(SMALL % 2)) > len(SMALL)
        with Agent(target, "udp", address=agent.address) as neighbour:
            assert len(neighbour.ask(SMALL % 3)) <= len(SMALL)
        agent.register("Expires: 0")


SEEDS = [path.read_bytes() for path in sorted(TORTURE.glob("*.dat"))] + TINY[:3]


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A good or bad message with a few places changed."""
    octets = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(octets)))
        length = draw(st.integers(0, 12))
        octets[place : place + length] = draw(st.sampled_from(SIP_PIECES) | st.binary(max_size=8))
    return bytes(octets)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(octets=mutations())
def test_mutations_of_messages_never_come_back_larger(octets: bytes, target: Target) -> None:
    """S-28, and what nobody listed: one packet at most, the server goes on."""
    if len(octets) > 60_000:
        return
    with RawSipUdp(target, "127.250.1.1") as peer, RawSipUdp(target, "127.250.1.2") as marker:
        judge(octets, answers_to(octets, peer, marker))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(octets=mutations(), places=st.lists(st.integers(0, 4000), max_size=6))
def test_mutations_of_messages_on_a_stream_end_well(
    octets: bytes, places: list[int], target: Target, bob: Inbox
) -> None:
    """What nobody listed, in any pieces: the message before it arrives; every answer is a refusal or what OPTIONS gets."""
    with Agent(target, "tcp", address="127.250.2.1") as agent:
        cuts = sorted({0, *(place for place in places if place < len(octets)), len(octets)})
        for start, end in itertools.pairwise(cuts):
            agent.send(octets[start:end])
        agent.stream.sock.shutdown(1)
        for answer in agent.stream.until_closed().split(b"SIP/2.0 ")[1:]:
            assert answer[:3] in {
                b"200",
                b"400",
                b"401",
                b"403",
                b"404",
                b"405",
                b"413",
                b"414",
                b"416",
                b"420",
                b"423",
            } | {*(b"481", b"482", b"483", b"501", b"505", b"513")}, answer


def test_after_all_mutations_everything_is_as_before(target: Target, bob: Inbox) -> None:
    with target.row("mutations", stores=True), Agent(target, "tcp") as agent:
        assert sip_status(agent.ask(agent.sign(agent.message("still here")))) == 200
        bob.expect("still here")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with the limits every server has."""
    guarded = Target(tmp_path_factory.mktemp("guarded"), people=("carol",))
    yield guarded
    guarded.check_canary()
    guarded.close()


def test_a_flood_from_one_network_is_cut_to_its_share(guarded: Target) -> None:
    """S-31: thousands of branches a second from one /24 for two seconds: 30 answers per 2 s, and the canary holds."""
    with guarded.row("S-31"), RawSipUdp(guarded, "127.66.6.1") as one, RawSipUdp(guarded, "127.66.6.200") as other:
        for peer in (one, other):
            peer.sock.setblocking(False)
        sent = heard = 0
        began = time.monotonic()
        while time.monotonic() < began + 2.0:
            for peer in (one, other):
                with contextlib.suppress(BlockingIOError):
                    peer.send(SMALL % sent)
                    sent += 1
                with contextlib.suppress(BlockingIOError):
                    peer.receive()
                    heard += 1
        with Agent(guarded, "udp") as stranger:
            # Another network is served: at once, or told 503 while what stands in the socket's buffer is thrown away.
            while (status := sip_status(stranger.ask(stranger.message("x")))) == 503:
                guarded.canary.wait_for_round(time.monotonic())
            assert status == 401
        seconds = time.monotonic() - began
        for peer in (one, other):
            with contextlib.suppress(BlockingIOError):
                while peer.receive():
                    heard += 1
        assert sent > 2000
        assert 30 <= heard <= 30 + 15 * (seconds + 0.5)


@pytest.mark.parametrize(("wire", "user"), [("udp", "alice"), ("tcp", "carol")])
def test_a_user_is_shaped_to_its_rate(wire: Wire, user: str, guarded: Target) -> None:
    """L-05: 100 at once pass, then 10 a second; the rest is 503 with Retry-After, and none of that is delivered."""
    with guarded.row(f"L-05 {wire}", stores=True), Agent(guarded, wire, user) as agent:
        bob = guarded.inbox()
        began = time.monotonic()
        statuses = []
        for number in range(200):
            answer = agent.ask(agent.sign(agent.message(f"{number}")))
            statuses.append(sip_status(answer))
            if statuses[-1] == 503:
                assert header(answer, "Retry-After") == "1"
        passed = [str(number) for number, status in enumerate(statuses) if status == 200]
        assert set(statuses) == {200, 503}
        assert 100 <= len(passed) <= 100 + 10 * (time.monotonic() - began) + 1
        bob.expect(passed[-1])
        bob.close()
    assert bob.texts == passed

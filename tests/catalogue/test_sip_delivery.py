"""S-17, S-20, S-29 … S-38, S-44, S-47: transactions, repeats, sizes, and what reaches a device (reliability.md 2.5)."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import sip_status
from tests.catalogue.sip_agent import WIRES, Agent, Wire, header

RATES = (
    "user_messages = 100000\nuser_message_burst = 100000\nudp_requests = 100000\nuser_octets = 100000000\n"
    "failures_per_address = 100000"
)
CPIM = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\n\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    b"inside an object"
)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with rates for a catalogue sent in a minute, and two people with phones."""
    target = Target(tmp_path_factory.mktemp("sip"), RATES, ("carol", "dora"))
    yield target
    target.check_canary()
    target.close()


def test_a_datagram_body_ends_at_its_length(target: Target, bob: Inbox) -> None:
    """S-17: a text is cut, an object that is then invalid is 400, and never anything behind the length is read."""
    with target.row("S-17", stores=True), Agent(target, "udp") as agent:
        request = agent.message("cut here|not this", length="8")
        assert sip_status(agent.ask(agent.sign(request))) == 200
        bob.expect("cut here")
        request = agent.build("MESSAGE", "sip:bob@a.test", "Content-Type: message/cpim", body=CPIM, length="30")
        assert sip_status(agent.ask(agent.sign(request))) == 400


def test_pipelined_messages_cut_inside_a_character_are_both_handled(target: Target, bob: Inbox) -> None:
    """S-20: at every place around the boundary."""
    with target.row("S-20", stores=True), Agent(target, "tcp") as agent:
        for place in range(-4, 5):
            one = agent.sign(agent.message(f"žluťoučký kůň {place} €"))
            other = agent.sign(agent.message(f"úpěl ďábelské ódy {place}"))
            agent.send((one + other)[: len(one) + place])
            agent.send((one + other)[len(one) + place :])
            assert [sip_status(agent.hear()) for _ in range(2)] == [200, 200]
            bob.expect(f"žluťoučký kůň {place} €")
            bob.expect(f"úpěl ďábelské ódy {place}")


@pytest.mark.parametrize("where", ["sent-by", "received", "maddr", "maddr multicast", "maddr ours"])
def test_answers_go_to_the_source_of_the_packet_only(where: str, target: Target) -> None:
    """S-29, S-30: neither a Via host nor its parameters lead anywhere else."""
    with (
        target.row(f"S-29 {where}"),
        Agent(target, "udp") as agent,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim,
    ):
        victim.bind((target.address(), 0))
        host, port = victim.getsockname()
        vias = {
            "sent-by": f"SIP/2.0/UDP {host}:{port};branch=z9hG4bKv",
            "received": f"SIP/2.0/UDP {agent.address}:{port};branch=z9hG4bKv;received={host}",
            "maddr": f"SIP/2.0/UDP {agent.address}:{port};branch=z9hG4bKv;maddr={host}",
            "maddr multicast": f"SIP/2.0/UDP {agent.address}:{port};branch=z9hG4bKv;maddr=239.1.2.3;ttl=16",
            "maddr ours": f"SIP/2.0/UDP {agent.address}:{port};branch=z9hG4bKv;maddr=127.0.0.1",
        }
        answer = agent.ask(agent.message("x", via=f"Via: {vias[where]}"))
        assert sip_status(answer) == 401
        via = header(answer, "Via", "v")
        assert f"received={host}" not in via
        assert (f"received={agent.address}" in via) is (where == "sent-by")
        assert agent.rest() == []
        victim.setblocking(False)
        with pytest.raises(BlockingIOError):
            victim.recv(65536)


@pytest.mark.parametrize("wire", WIRES)
def test_forged_responses_change_nothing(wire: Wire, target: Target) -> None:
    """S-32, S-33: wrong branch, wrong source, wrong method; then the device's own answer counts."""
    with (
        target.row(f"S-32 {wire}", stores=True),
        Agent(target, wire, "carol") as phone,
        Agent(target, "udp") as forger,
        Agent(target, "tcp") as agent,
    ):
        phone.register()
        agent.send(agent.sign(agent.message(f"forge {wire}", to="sip:carol@a.test")))
        delivered = phone.hear()
        forger.reply(delivered, "480 Not Here")  # the right branch from elsewhere
        assert forger.rest() == []
        phone.reply(delivered.replace(b"branch=z9hG4bK", b"branch=z9hG4bKx"), "480 Not Here")
        phone.reply(delivered.replace(b"CSeq: 1 MESSAGE", b"CSeq: 1 INVITE"), "480 Not Here")
        phone.send(b"SIP/2.0 480 Not Here\r\nContent-Length: 0\r\n\r\n")
        assert phone.rest() == []
        phone.reply(delivered)
        assert sip_status(agent.hear()) == 200
        phone.register("Expires: 0")


def test_a_retransmission_is_answered_again_and_delivered_once(target: Target, bob: Inbox) -> None:
    """S-34: ten times the same datagram."""
    with target.row("S-34", stores=True), Agent(target, "udp") as agent:
        request = agent.sign(agent.message("only once"))
        answers = [agent.ask(request) for _ in range(10)]
        assert {sip_status(answer) for answer in answers} == {200}
        assert len(set(answers)) == 1
        agent.ask(agent.sign(agent.message("after only once")))
        bob.expect("after only once")
    assert bob.texts.count("only once") == 1


@pytest.mark.parametrize("wire", WIRES)
def test_a_client_that_sends_again_after_its_crash_delivers_once(wire: Wire, target: Target, bob: Inbox) -> None:
    """S-35: same Call-ID, From tag, CSeq and body; new branch, new connection."""
    name = f"retry {wire}"
    parts = {"call_id": f"Call-ID: retry-{wire}", "from_": "From: <sip:alice@a.test>;tag=same"}
    for _ in range(3):
        with target.row("S-35", stores=True), Agent(target, wire) as agent:
            assert sip_status(agent.ask(agent.sign(agent.message(name, **parts)))) in (200, 202)
    with target.row("S-36", stores=True), Agent(target, wire) as agent:
        assert sip_status(agent.ask(agent.sign(agent.message(f"{name} changed", **parts)))) == 200
    bob.expect(f"{name} changed")
    assert bob.texts.count(name) == 1


def test_another_body_under_the_same_identifiers_is_a_merge_while_the_first_runs(target: Target) -> None:
    """S-36: 482; the first is not disturbed."""
    with target.row("S-36", stores=True), Agent(target, "tcp", "dora") as phone, Agent(target, "tcp") as agent:
        phone.register()
        parts = {"call_id": "Call-ID: merged", "from_": "From: <sip:alice@a.test>;tag=m", "to": "sip:dora@a.test"}
        agent.send(agent.sign(agent.message("the first", **parts)))
        delivered = phone.hear()
        assert sip_status(agent.ask(agent.sign(agent.message("the second", **parts)))) == 482
        phone.reply(delivered)
        assert sip_status(agent.hear()) == 200
        assert phone.rest() == []
        phone.register("Expires: 0")


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("id", "lines"),
    [
        ("S-37 Contact", ["Contact: <sip:mallory@192.0.2.66>"]),
        ("S-37 Expires 0", ["Expires: 0"]),
        ("S-40 many Accept", ["Accept: text/x-" + "a" * 90] * 50),
        ("S-44 255 hops", ["Max-Forwards: 255"]),
        ("S-47 boundary of 300", ["Content-Type: multipart/mixed;boundary=" + "b" * 300]),
        ("S-47 no boundary", ["Content-Type: multipart/mixed"]),
        ("S-55 small", ["History-Info: <sip:x@y>;index=1", "Identity: aa", "Join: 1"]),
    ],
)
def test_unusual_messages_are_carried(id: str, lines: list[str], wire: Wire, target: Target, bob: Inbox) -> None:
    """S-37, S-40, S-44, S-47, S-55: class A."""
    before = len(bob.octets)
    with target.row(f"{id} {wire}", stores=True), Agent(target, wire) as agent:
        body = f"unusual {id} {wire}"
        assert sip_status(agent.ask(agent.sign(agent.message(body, *lines)))) == 200
        agent.ask(agent.sign(agent.message(f"behind {body}")))
        bob.expect(f"behind {body}")
    assert any(body.encode() in octets for octets in bob.octets[before:])


def test_a_message_inside_a_dialog_is_carried(target: Target, bob: Inbox) -> None:
    """S-37: To has a tag."""
    with target.row("S-37 dialog", stores=True), Agent(target, "tcp") as agent:
        request = agent.build(
            "MESSAGE",
            "sip:bob@a.test",
            "Content-Type: text/plain",
            body=b"in a dialog",
            to="To: <sip:bob@a.test>;tag=d",
        )
        assert sip_status(agent.ask(agent.sign(request))) == 200
        bob.expect("in a dialog")


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n\r\n--b--\r\n",
        b"--b\r\n\r\nno end",
        b"".join(b"--b%d\r\nContent-Type: multipart/mixed;boundary=b%d\r\n\r\n" % (n, n + 1) for n in range(100)),
        b"\x00\xff\r\n\r\n--b",
    ],
)
def test_multipart_bodies_are_carried_unread(body: bytes, target: Target, bob: Inbox) -> None:
    """S-47: empty parts, no end, nested a hundred deep."""
    before = len(bob.octets)
    with target.row("S-47", stores=True), Agent(target, "tcp") as agent:
        request = agent.message(body, "Content-Type: multipart/mixed;boundary=b")
        assert sip_status(agent.ask(agent.sign(request))) == 200
        agent.ask(agent.sign(agent.message(f"behind multipart {before}")))
        bob.expect(f"behind multipart {before}")
    assert any(body in octets for octets in bob.octets[before:])


@pytest.mark.parametrize("wire", WIRES)
def test_no_hop_left_is_refused(wire: Wire, target: Target) -> None:
    """S-44: Max-Forwards 0."""
    with target.row(f"S-44 {wire}"), Agent(target, wire) as agent:
        assert sip_status(agent.ask(agent.sign(agent.message("too far", "Max-Forwards: 0")))) == 483


@pytest.mark.parametrize("size", [1301, 4096, 8192, 15000])
def test_large_datagrams_are_taken_whole(size: int, target: Target, bob: Inbox) -> None:
    """S-38: up to 16 KiB; but never sent on over UDP above 1300 octets."""
    with target.row(f"S-38 {size}", stores=True), Agent(target, "udp") as agent:
        body = f"{size} " + "x" * (size - 5)
        assert sip_status(agent.ask(agent.sign(agent.message(body)))) == 200
        bob.expect(body)


@pytest.mark.parametrize("size", [16 * 1024, 40_000, 64_500])
def test_datagrams_over_16_kib_are_refused(size: int, target: Target) -> None:
    """S-38: 513."""
    with target.row(f"S-38 {size}"), Agent(target, "udp") as agent:
        assert sip_status(agent.ask(agent.sign(agent.message("x" * size)))) == 513


def test_what_is_too_large_for_udp_is_not_sent_by_it(target: Target) -> None:
    """S-38, SIP-6: carol's phone hears nothing by UDP, and the sender that it was too large."""
    with target.row("S-38 out", stores=True), Agent(target, "udp", "carol") as phone, Agent(target, "tcp") as agent:
        phone.register()
        answer = agent.ask(agent.sign(agent.message("x" * 1300, to="sip:carol@a.test")))
        assert sip_status(answer) == 413
        assert phone.rest() == []
        phone.register("Expires: 0")


@pytest.mark.parametrize("encoding", ["br", "x-unknown", "gzip, deflate"])
def test_bodies_in_other_codings_are_refused(encoding: str, target: Target) -> None:
    with target.row(f"encoding {encoding}"), Agent(target, "tcp") as agent:
        answer = agent.ask(agent.sign(agent.message("x", f"Content-Encoding: {encoding}")))
        assert sip_status(answer) == 415
        assert header(answer, "Accept-Encoding") == "gzip, deflate, identity"


def test_the_largest_body_over_tcp(target: Target, bob: Inbox) -> None:
    """48 KiB are carried, one octet more is 413 and the connection closes: the rest of it is never read."""
    with target.row("body", stores=True), Agent(target, "tcp") as agent:
        body = "y" * 48 * 1024
        assert sip_status(agent.ask(agent.sign(agent.message(body)))) == 200
        bob.expect(body)
        agent.send(agent.sign(agent.message(body + "z")))
        assert b"SIP/2.0 413 " in agent.stream.until_closed()

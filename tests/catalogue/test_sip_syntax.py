"""S-08 … S-55: SIP octets that break a rule, each over UDP and TCP to a running server (reliability.md section 2.5).

Every row goes right behind a legitimate message of the same connection, which has to arrive; over TCP also in single
octets and split at every place.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import RawSipTcp, sip_status
from tests.catalogue.sip_agent import CRLF, WIRES, Agent, Wire, header

RATES = "user_messages = 100000\nuser_message_burst = 100000\nudp_requests = 100000\nfailures_per_address = 100000"
LONG = "x" * 4096


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with rates for a catalogue sent in a minute."""
    target = Target(tmp_path_factory.mktemp("sip"), RATES)
    yield target
    target.check_canary()
    target.close()


@dataclass(frozen=True, slots=True)
class Row:
    """One input: what makes its octets, and the status codes that answer it (0: none)."""

    id: str
    make: Callable[[Agent], bytes]
    udp: int
    tcp: int
    is_closed: bool = False
    """True: over TCP the end of the message is not known, so the connection closes after the answer."""

    def status(self, wire: Wire) -> int:
        return self.udp if wire == "udp" else self.tcp


def lines(*added: str | bytes, **parts: str) -> Callable[[Agent], bytes]:
    """A MESSAGE without credentials, with these header lines more or other ones."""
    return lambda agent: agent.build("MESSAGE", "sip:bob@a.test", *added, body=b"x", **parts)


def text(old: bytes, new: bytes, *added: str) -> Callable[[Agent], bytes]:
    """The same with octets replaced."""

    def make(agent: Agent) -> bytes:
        whole = agent.build("MESSAGE", "sip:bob@a.test", "Content-Type: text/plain", *added, body=b"xyz")
        assert old in whole
        return whole.replace(old, new, 1)

    return make


def length(value: str | None) -> Callable[[Agent], bytes]:
    """The same with another Content-Length; None: without one."""
    return lambda agent: agent.build("MESSAGE", "sip:bob@a.test", "Content-Type: text/plain", body=b"xyz", length=value)


def method(name: str, **parts: str) -> Callable[[Agent], bytes]:
    return lambda agent: agent.build(name, "sip:bob@a.test", "Contact: " + agent.contact, **parts)  # type: ignore[arg-type]


def bad(id: str, make: Callable[[Agent], bytes], status: int = 400, *, is_closed: bool = False) -> Row:
    return Row(id, make, status, status, is_closed)


VIA = "SIP/2.0/UDP proxy.example.net:5060;branch=z9hG4bKpp"
ROWS = [
    bad("S-08 two From", lines("From: <sip:bob@a.test>;tag=2")),
    bad("S-08 two To", lines("To: <sip:alice@a.test>")),
    bad("S-08 From and f", lines("f: <sip:bob@a.test>;tag=2")),
    bad("S-08 two Call-ID", lines("i: another")),
    bad("S-09 space before the colon", text(b"\r\nFrom:", b"\r\nFrom :"), 401),
    bad("S-09 tab before the colon", text(b"\r\nFrom:", b"\r\nFrom\t:"), 401),
    bad("S-09 vertical tab", text(b"\r\nFrom:", b"\r\nFrom\x0b:")),
    bad("S-09 NUL", text(b"\r\nFrom:", b"\r\nFrom\x00:")),
    bad("S-11 two senders", lines(from_="From: <sip:alice@a.test>, <sip:bob@a.test>")),
    bad("S-12 second at sign", lines(from_="From: <sip:alice@a.test@b.test>;tag=1")),
    bad("S-12 host as user", lines(from_="From: <sip:b.test:5060;@a.test>;tag=1")),
    bad("S-15 folded From", text(b"From: ", b"From:\r\n  "), 401),
    bad("S-16 bare LF", text(b"\r\nTo:", b"\nTo:"), is_closed=True),
    bad("S-16 bare CR", text(b"\r\nTo:", b"\rTo:"), is_closed=True),
    Row("S-16 LF LF as the end", text(b"\r\n\r\n", b"\n\n"), 400, 400, True),
    *(
        Row(f"S-19 Content-Length {value!r}", length(value), 400, 400, True)
        for value in ("+5", "5 5", "0x5", "1" + "0" * 20, " ")
    ),
    Row("S-19 no Content-Length", length(None), 401, 400, True),
    Row("S-19 Content-Length over the body", length("9"), 400, 0),
    bad("S-39 CSeq 2**31", lines(cseq="CSeq: 2147483648 MESSAGE")),
    bad("S-39 CSeq 2**32", lines(cseq="CSeq: 4294967296 MESSAGE")),
    bad("S-39 CSeq with a long method", lines(cseq="CSeq: 0 " + "A" * 2000)),
    bad("S-40 50 long Accept lines are within the limits", lines(*["Accept: text/x-" + "a" * 90] * 50), 401),
    bad("S-40 200 Via", lines("Via: " + ",".join(["SIP/2.0/UDP a:1;branch=z"] * 70), *["Via: SIP/2.0/UDP b"] * 40)),
    bad("S-40 11 Route", lines("Route: " + ",".join(["<sip:a.test;lr>"] * 11))),
    bad("S-40 69 headers", lines(*["X-Unknown: 1"] * 60), is_closed=True),  # Content-Length stands last
    Row("S-40 1,000 headers", lines(*["X-Unknown: 1"] * 1000), 513, 513, True),
    Row("S-40 500 Route", lines(*["Route: <sip:a.test;lr>"] * 500), 513, 513, True),
    bad("S-41 long tag", lines(from_=f"From: <sip:alice@a.test>;tag={'t' * 257}")),
    bad("S-41 4 KiB tag", lines(from_=f"From: <sip:alice@a.test>;tag={LONG}")),
    bad("S-41 4 KiB Call-ID", lines(call_id=f"Call-ID: {LONG}")),
    bad("S-43 negative Expires", lines("Expires: -1")),
    bad("S-43 Expires in words", lines("Expires: soon")),
    bad("S-44 Max-Forwards 256", lines("Max-Forwards: 256")),
    bad("S-44 Max-Forwards in words", lines("Max-Forwards: many")),
    bad("S-52 100rel", lines("Require: 100rel"), 420),
    bad("S-52 unknown extension", lines("Require: nothing-we-know"), 420),
    *(bad(f"S-53 {name}", method(name), 405) for name in ("REFER", "INVITE", "UPDATE", "INFO")),
    bad("SEC-36 NOTIFY without a subscription", method("NOTIFY"), 481),
    *(bad(f"S-53 {name} is asked who it is first", method(name), 401) for name in ("SUBSCRIBE", "PUBLISH")),
    bad("S-53 unknown method", method("DANCE"), 501),
    bad("S-53 method of 65 letters", method("M" * 65)),
    bad("S-54 CANCEL", method("CANCEL"), 481),
    bad("S-54 ACK", method("ACK"), 0),
    bad("S-55 8 KiB Identity", lines("Identity: " + "A" * 4097)),
    *(bad(f"S-55 {name}", lines(f"{name}: " + "A" * 2049)) for name in ("Replaces", "Join", "History-Info")),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_row_is_answered_as_stated(row: Row, wire: Wire, target: Target, bob: Inbox) -> None:
    with target.row(f"{row.id} {wire}", stores=True), Agent(target, wire) as agent:
        agent.send(agent.sign(agent.message(f"before {row.id} {wire}")))
        agent.send(row.make(agent))
        if wire == "tcp" and row.is_closed:
            assert b"SIP/2.0 %d " % row.tcp in agent.stream.until_closed()
        elif wire == "tcp" and row.tcp == 0 and row.udp:
            assert sip_status(agent.hear()) == 200  # the rest of the message is waited for
        else:
            expected = sorted([200, *([row.status(wire)] if row.status(wire) else [])])
            assert sorted(sip_status(agent.hear()) for _ in expected) == expected
            assert agent.rest() == []
        bob.expect(f"before {row.id} {wire}")


FRAMED = [row for row in ROWS if not row.is_closed and row.udp == row.tcp]


@pytest.mark.parametrize("row", FRAMED, ids=lambda row: row.id)
def test_row_in_single_octets_is_answered_the_same(row: Row, target: Target) -> None:
    with target.row(f"{row.id} octets"), Agent(target, "tcp") as agent:
        agent.stream.send_pieces(row.make(agent))
        assert [sip_status(answer) for answer in agent.rest()] == ([row.tcp] if row.tcp else [])


@pytest.mark.parametrize("row", FRAMED, ids=lambda row: row.id)
def test_row_split_anywhere_is_answered_the_same(row: Row, target: Target) -> None:
    """At most 512 places, on one connection: what is left of one message would spoil the next."""
    with target.row(f"{row.id} split"), Agent(target, "tcp") as agent:
        data = row.make(agent)
        for place in range(1, min(len(data), 513)):
            agent.send(data[:place])
            agent.send(data[place:])
            if row.tcp:
                assert sip_status(agent.hear()) == row.tcp, place
        assert agent.rest() == []


@pytest.mark.parametrize("row", [row for row in ROWS if row.is_closed], ids=lambda row: row.id)
def test_unframed_row_in_single_octets_closes_the_same(row: Row, target: Target) -> None:
    with target.row(f"{row.id} octets"), Agent(target, "tcp") as agent:
        agent.stream.send_pieces(row.make(agent))
        assert b"SIP/2.0 %d " % row.tcp in agent.stream.until_closed()


def test_refused_methods_say_what_is_allowed(target: Target) -> None:
    """S-53: with Allow."""
    for wire in WIRES:
        with target.row(f"S-53 {wire}"), Agent(target, wire) as agent:
            for name in ("INVITE", "REFER", "DANCE"):
                allowed = header(agent.ask(method(name)(agent)), "Allow")
                assert allowed == "MESSAGE, NOTIFY, OPTIONS, PUBLISH, REGISTER, SUBSCRIBE"


@pytest.mark.parametrize(
    ("id", "contact", "added", "status"),
    [
        ("S-42 11 contacts", ", ".join(f"<sip:alice@127.0.0.1:{port}>" for port in range(4000, 4011)), [], 403),
        ("S-42 1,000 contacts", ", ".join(f"<sip:a@b:{port}>" for port in range(4000, 5000)), [], 513),
        ("S-42 star with a time", "*", ["Expires: 60"], 400),
        ("S-42 star without a time", "*", [], 400),
        ("S-43 negative", "<sip:alice@127.0.0.1>", ["Expires: -5"], 400),
        ("S-43 words", "<sip:alice@127.0.0.1>", ["Expires: never"], 400),
        ("S-43 short", "<sip:alice@127.0.0.1>", ["Expires: 59"], 423),
    ],
)
def test_registrations_that_cannot_be_made(
    id: str, contact: str, added: list[str], status: int, target: Target
) -> None:
    """S-42, S-43: and nothing is registered."""
    with target.row(id), Agent(target, "tcp") as agent:
        request = agent.build("REGISTER", "sip:a.test", f"Contact: {contact}", *added, to=f"To: <{agent.aor}>")
        if status == 513:
            agent.send(request)
            assert b"SIP/2.0 513 " in agent.stream.until_closed()
            return
        answer = agent.ask(agent.sign(request))
        assert sip_status(answer) == status
        if status == 423:
            assert header(answer, "Min-Expires") == "60"
        query = agent.build("REGISTER", "sip:a.test", to=f"To: <{agent.aor}>")
        assert header(agent.ask(agent.sign(query)), "Contact") == ""


def test_the_longest_expiry_is_an_hour(target: Target) -> None:
    """S-43: 2**32 - 1 is clamped."""
    with target.row("S-43"), Agent(target, "tcp") as agent:
        assert ";expires=3600" in header(agent.register("Expires: 4294967295"), "Contact")
        agent.register("Expires: 0")


def test_5000_keepalives_get_their_pongs(target: Target, bob: Inbox) -> None:
    """S-50: and a request behind one is read."""
    with target.row("S-50", stores=True), Agent(target, "tcp") as agent:
        agent.sign(b"MESSAGE sip:a.test SIP/2.0\r\n\r\n")  # get the challenge first
        agent.send(CRLF * 2 * 5000)
        agent.stream.until(rb"(?:\r\n){5000}")
        agent.send(CRLF * 2 + agent.sign(agent.message("behind a keepalive")))
        assert agent.stream.until(rb"\r\n") == CRLF
        assert sip_status(agent.hear()) == 200
        bob.expect("behind a keepalive")


def test_half_a_request_and_the_end_leave_nothing(target: Target) -> None:
    """S-50."""
    with target.row("S-50 half"), Agent(target, "tcp") as agent:
        agent.send(agent.sign(agent.message("only half of it"))[:-20])
        agent.stream.sock.shutdown(1)
        assert agent.stream.until_closed() == b""


def test_connections_reset_in_the_midst_of_a_request_leave_nothing(target: Target) -> None:
    """S-51, a thousand times."""
    with target.row("S-51", stores=True):
        for _ in range(50):
            address = target.address()
            for _ in range(20):
                stream = RawSipTcp(target, address)
                stream.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.send(b"OPTIONS sip:a.test SIP/2.0\r\nVia: SIP/2.0/TCP x;branch=z9hG4bK1\r\n")
                stream.close()


def test_memory_comes_back_after_a_thousand_repeats(target: Target) -> None:
    """G4: within 1 MiB for a thousand of each of these together, once the first hundred have warmed everything up."""
    chosen = [row for row in ROWS if row.udp == row.tcp and not row.is_closed][::5]

    def repeat(count: int) -> None:
        with Agent(target, "tcp") as stream, Agent(target, "udp") as datagrams:
            for agent in (stream, datagrams):
                for row in chosen:
                    data = row.make(agent)
                    for _ in range(count):
                        if row.tcp:
                            assert sip_status(agent.ask(data)) == row.tcp
                        else:
                            agent.send(data)
                assert agent.rest() == []

    repeat(100)
    before = target.rss()
    with target.row("G4"):
        repeat(1000)
    assert target.rss() - before <= 2**20

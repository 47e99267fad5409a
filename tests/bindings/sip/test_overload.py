"""overload.py: what a request gets that came when there is no time to read it (RFC 3261 section 21.5.4, S-28, LG-12)."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from comity.bindings.base import HostPort
from comity.bindings.sip.events import RequestReceived
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.overload import LEAST_RETRY, MOST_RETRY, Refused, glimpse
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.transaction import server_key
from comity.bindings.sip.wire import parse_datagram
from tests.bindings.sip.test_session import CLIENT, SERVER, events, raw_message, session

PHONE = ("127.0.0.1", 5070)


def server_of(address: HostPort = PHONE) -> SipSession:
    """A server to which ``address`` has proved itself."""
    server = session("udp", SERVER)
    server.prove(address, 0.0)
    return server


def sent(one: SipSession) -> list[SipResponse]:
    answers = [parse_datagram(data) for data, _ in one.datagrams_to_send(0.0)]
    assert all(isinstance(answer, SipResponse) for answer in answers)
    return [answer for answer in answers if isinstance(answer, SipResponse)]


def test_a_refusal_is_a_503_that_its_sender_can_match() -> None:
    server = server_of()
    via = "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx;rport, SIP/2.0/UDP 10.0.0.1;branch=z9hG4bKy"
    raw = raw_message(via=via, extra=b"v: SIP/2.0/TCP 10.0.0.2;branch=z9hG4bKz\r\n")
    assert server.refuse_datagram(raw, PHONE, 0.0)
    [answer] = sent(server)
    request = parse_datagram(raw)
    assert isinstance(request, SipRequest)
    assert answer.status_code == 503
    assert LEAST_RETRY <= int(answer.value("retry-after") or "") <= MOST_RETRY
    assert answer.vias[0] == "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx;rport=5070;received=127.0.0.1"
    assert answer.vias[1:] == request.vias[1:]
    assert (answer.value("from"), answer.call_id, str(answer.cseq)) == (
        request.value("from"),
        request.call_id,
        str(request.cseq),
    )
    assert answer.to.tag
    assert server.next_event() is None


def test_after_a_restart_nothing_is_refused_that_the_process_before_may_have_taken() -> None:
    """I3, F-K4: a retransmission is read or dropped until nobody can send one any more (64*T1)."""
    server = SipSession(SessionSettings(), "udp", SERVER, restarted=100.0)
    server.prove(PHONE, 100.0)
    raw = raw_message()
    assert server.refuse_datagram(raw, PHONE, 131.9)
    assert not sent(server)
    assert server.refuse_datagram(raw, PHONE, 132.0)
    assert [answer.status_code for answer in sent(server)] == [503]


def test_a_refused_request_stays_refused_when_there_is_time_again() -> None:
    """I3: a definite no is never followed by a delivery; its copy is on the way when the no is sent."""
    server = server_of()
    raw = raw_message()
    assert server.refuse_datagram(raw, PHONE, 0.0)
    server.receive_datagram(raw, PHONE, 0.5)
    server.receive_datagram(raw, PHONE, 31.0)
    first, second, third = sent(server)
    assert {first.status_code, second.status_code, third.status_code} == {503}
    assert first.to.tag
    assert events(server) == []
    server.receive_datagram(raw_message("z9hG4bKanother"), PHONE, 0.6)
    assert [type(event) for event in events(server)] == [RequestReceived]


def test_a_retransmission_of_what_was_taken_is_not_refused() -> None:
    server = server_of()
    raw = raw_message()
    server.receive_datagram(raw, PHONE, 0.0)
    [event] = events(server)
    assert isinstance(event, RequestReceived)
    assert not server.refuse_datagram(raw, PHONE, 0.5)
    server.respond(event.id, 200, 0.6)
    assert not server.refuse_datagram(raw, PHONE, 0.7)
    server.receive_datagram(raw, PHONE, 0.7)
    assert [answer.status_code for answer in sent(server)] == [200, 200]


@pytest.mark.parametrize("first", [b"REGISTER sip:a.test SIP/2.0", b"SIP/2.0 200 OK", b"ACK sip:a.test SIP/2.0"])
def test_work_under_way_and_registrations_are_never_refused(first: bytes) -> None:
    raw = raw_message().replace(b"MESSAGE sip:bob@b.test SIP/2.0", first)
    assert not server_of().refuse_datagram(raw, PHONE, 0.0)


def test_a_stranger_gets_no_more_octets_than_it_sent_and_no_more_answers_than_before() -> None:
    """S-28, S-31."""
    server = session("udp", SERVER)
    answers = []
    for number in range(100):
        if server.admits(CLIENT, 0.0):
            assert server.refuse_datagram(raw_message(f"z9hG4bK{number}", body=b"x" * 200), CLIENT, 0.0)
        answers += server.datagrams_to_send(0.0)
    assert len(answers) == server.settings.unproved_requests
    short = raw_message("z9hG4bKshort", body=b"").replace(b"Max-Forwards: 70\r\n", b"")
    server = session("udp", SERVER)
    assert server.refuse_datagram(short, CLIENT, 0.0)
    assert all(len(data) <= len(short) for data, _ in server.datagrams_to_send(0.0))


@pytest.mark.parametrize(
    "raw",
    [
        b"MESSAGE sip:bob@b.test SIP/2.0\r\n\r\n",
        b"MESSAGE ",
        raw_message().replace(b"From:", b"X-From:"),
        raw_message(extra=b"From: <sip:eve@a.test>;tag=2\r\n"),
        raw_message(extra=b"Subject: a\r\n folded\r\n"),
        raw_message(via="SIP/2.0/UDP"),
        raw_message("noCookie"),
        raw_message().replace(b"Call-ID: c1", b"Call-ID: c\x001"),
    ],
)
def test_what_cannot_be_cut_at_a_glance_is_dropped(raw: bytes) -> None:
    server = server_of()
    assert server.refuse_datagram(raw, PHONE, 0.0)
    assert server.datagrams_to_send(0.0) == []
    assert server.next_event() is None


def test_the_memory_of_refusals_is_bounded_and_ends() -> None:
    refused = Refused(lifetime=32.0, most=20)
    assert [refused.add((number,), 100.0) for number in range(12)] == [True] * 10 + [False] * 2
    assert refused.has((0,), 131.0)
    assert refused.has((0,), 133.0)
    assert not refused.has((0,), 200.0)


def test_a_glimpse_knows_a_request_by_the_key_of_its_transaction() -> None:
    raw = raw_message(via="SIP/2.0/UDP [2001:DB8::1]:5070 ; rport ; branch=z9hG4bKx")
    request = parse_datagram(raw)
    seen = glimpse(raw, CLIENT)
    assert isinstance(request, SipRequest)
    assert seen is not None
    assert seen.key == server_key(request, CLIENT)


@example(b'",', b"Via")  # a quoted string that does not end, in a list
@given(st.binary(max_size=200), st.sampled_from([b"Via", b"To", b"Call-ID", b"CSeq", b"From"]))
def test_whatever_stands_in_a_header_nothing_is_raised_and_an_answer_is_sip(value: bytes, name: bytes) -> None:
    server = server_of()
    lines = [line for line in raw_message().split(b"\r\n") if not line.startswith(name + b":")]
    raw = b"\r\n".join([lines[0], name + b": " + value, *lines[1:]])
    assert server.refuse_datagram(raw, PHONE, 0.0)
    for data, _ in server.datagrams_to_send(0.0):
        head, _, rest = data.partition(b"\r\n\r\n")
        assert rest == b""
        assert head.startswith(b"SIP/2.0 503 ")
        assert head.count(b"\r\n") == head.count(b"\n") == head.count(b"\r")

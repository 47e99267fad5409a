"""session.py: transactions over a fake clock, refusals, and who gets answers (reliability.md section 2.5)."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.sip.events import (
    Event,
    MalformedReceived,
    PacketDropped,
    RequestFailed,
    RequestReceived,
    RequestRefused,
    RequestTimedOut,
    ResponseReceived,
)
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.wire import parse_datagram
from comity.errors import LocalProtocolError

CLIENT = ("192.0.2.10", 5060)
SERVER = ("192.0.2.20", 5060)
HEADERS = [
    ("Max-Forwards", "70"),
    ("From", "<sip:alice@a.test>;tag=1"),
    ("To", "<sip:bob@b.test>"),
    ("Call-ID", "c1"),
    ("CSeq", "1 MESSAGE"),
]


def counting() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


def session(transport: str, near: tuple[str, int], far: tuple[str, int] | None = None) -> SipSession:
    methods = frozenset({"MESSAGE", "REGISTER", "OPTIONS"})
    return SipSession(SessionSettings(methods=methods), transport, near, far, random=counting())


def message(body: bytes = b"hello", **changes: str) -> SipRequest:
    headers = [(name, changes.get(name.replace("-", "_"), value)) for name, value in HEADERS]
    return SipRequest("MESSAGE", "sip:bob@b.test", headers, body)


def raw_message(
    branch: str = "z9hG4bKx", *, body: bytes = b"hello", via: str = "", extra: bytes = b"", call_id: str = "c1"
) -> bytes:
    via = via or f"SIP/2.0/UDP 192.0.2.10;branch={branch};rport"
    headers = [("Via", via), *message(Call_ID=call_id).headers]
    raw = SipRequest("MESSAGE", "sip:bob@b.test", headers, body).to_bytes()
    return raw.replace(b"Max-Forwards", extra + b"Max-Forwards", 1)


def events(one: SipSession) -> list[Event]:
    return list(iter(one.next_event, None))


class DatagramPair:
    """A client and a server over a network that can lose, with a clock moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.client = session("udp", CLIENT)
        self.server = session("udp", SERVER)
        self.lose = 0
        self.sent_by_client: list[float] = []
        self.sent_by_server: list[bytes] = []

    def flush(self) -> None:
        moved = True
        while moved:
            moved = False
            for data, address in self.client.datagrams_to_send(self.now):
                assert address == SERVER
                self.sent_by_client.append(self.now)
                if self.lose > 0:
                    self.lose -= 1
                    continue
                self.server.receive_datagram(data, CLIENT, self.now)
                moved = True
            for data, address in self.server.datagrams_to_send(self.now):
                assert address == CLIENT
                self.sent_by_server.append(data)
                self.client.receive_datagram(data, SERVER, self.now)
                moved = True

    def run(self, until: float) -> None:
        while True:
            self.flush()
            timers = [t for t in (self.client.next_timer(), self.server.next_timer()) if t is not None]
            if not timers or min(timers) > until:
                self.now = until
                return
            self.now = min(timers)
            self.client.handle_timer(self.now)
            self.server.handle_timer(self.now)


class TestClientTransaction:
    """RFC 3261 section 17.1.2."""

    def test_request_is_repeated_by_timer_e_until_timer_f(self) -> None:
        pair = DatagramPair()
        pair.lose = 100
        id = pair.client.send_request(message(), 0.0, SERVER)
        pair.run(100.0)
        assert pair.sent_by_client == [0, 0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5]
        assert events(pair.client) == [RequestTimedOut(id)]
        assert pair.client.next_timer() is None
        assert not pair.client._clients

    def test_provisional_answer_slows_the_repeats_down(self) -> None:
        pair = DatagramPair()
        pair.client.send_request(message(), 0.0, SERVER)
        pair.run(0.1)
        (received,) = events(pair.server)
        assert isinstance(received, RequestReceived)
        pair.server.prove(CLIENT, 0.1)
        pair.server.respond(received.id, 183, pair.now)
        pair.run(9.0)
        assert pair.sent_by_client == [0, 0.5, 4.5, 8.5]
        assert len(pair.sent_by_server) == 4
        (answer,) = {type(e) for e in events(pair.client)}
        assert answer is ResponseReceived

    def test_lost_connection_fails_what_waits(self) -> None:
        one = session("tcp", CLIENT, SERVER)
        id = one.send_request(message(), 0.0)
        one.connection_lost("reset")
        assert events(one) == [RequestFailed(id, "reset")]
        assert one.next_timer() is None
        with pytest.raises(LocalProtocolError):
            one.send_request(message(), 0.0)

    def test_over_a_stream_nothing_is_repeated(self) -> None:
        one = session("tcp", CLIENT, SERVER)
        id = one.send_request(message(), 0.0)
        assert len(one.data_to_send(0.0)) == 1
        one.handle_timer(31.0)
        assert one.data_to_send(31.0) == []
        one.handle_timer(32.0)
        assert events(one) == [RequestTimedOut(id)]

    def test_requests_over_1300_octets_do_not_go_over_udp(self) -> None:
        """SIP-6, S-38."""
        one = session("udp", CLIENT)
        with pytest.raises(LocalProtocolError):
            one.send_request(message(b"x" * 1300), 0.0, SERVER)
        assert one.datagrams_to_send(0.0) == []
        assert session("tcp", CLIENT, SERVER).send_request(message(b"x" * 1300), 0.0)

    @pytest.mark.parametrize("forge", ["source", "branch", "sent-by", "method", "two vias"])
    def test_forged_responses_change_nothing(self, forge: str) -> None:
        """S-32, S-33."""
        one = session("udp", CLIENT)
        one.send_request(message(), 0.0, SERVER)
        ((data, _),) = one.datagrams_to_send(0.0)
        request = parse_datagram(data)
        assert isinstance(request, SipRequest)
        via, cseq = request.vias[0], "1 MESSAGE"
        if forge == "branch":
            via = via.replace("branch=z9hG4bK", "branch=z9hG4bK0")
        elif forge == "sent-by":
            via = via.replace("192.0.2.10:5060", "192.0.2.11:5060")
        elif forge == "method":
            cseq = "1 OPTIONS"
        elif forge == "two vias":
            via += ", SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKy"
        headers = [("Via", via), *message(CSeq=cseq).headers]
        answer = SipResponse(200, "OK", headers).to_bytes()
        one.receive_datagram(answer, ("192.0.2.66", 5060) if forge == "source" else SERVER, 0.1)
        (dropped,) = events(one)
        assert isinstance(dropped, PacketDropped)
        assert len(one._clients) == 1
        one.receive_datagram(SipResponse(200, "OK", [("Via", request.vias[0]), *HEADERS]).to_bytes(), SERVER, 0.2)
        assert [type(e) for e in events(one)] == [ResponseReceived]


class TestServerTransaction:
    """RFC 3261 section 17.2.2."""

    def test_retransmissions_are_absorbed_and_the_final_answer_repeated_for_32_s(self) -> None:
        """S-34."""
        one = session("udp", SERVER)
        one.prove(CLIENT, 0.0)
        for _ in range(5):
            one.receive_datagram(raw_message(), CLIENT, 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        assert one.datagrams_to_send(0.0) == []
        one.respond(received.id, 200, 1.0)
        ((answer, to),) = one.datagrams_to_send(1.0)
        assert to == CLIENT
        for _ in range(5):
            one.receive_datagram(raw_message(), CLIENT, 2.0)
        assert one.datagrams_to_send(2.0) == [(answer, CLIENT)] * 5
        assert events(one) == []
        one.handle_timer(33.0)
        one.receive_datagram(raw_message(), CLIENT, 33.1)
        assert [type(e) for e in events(one)] == [RequestReceived]

    def test_second_final_answer_is_discarded(self) -> None:
        one = session("udp", SERVER)
        one.prove(CLIENT, 0.0)
        one.receive_datagram(raw_message(), CLIENT, 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        one.respond(received.id, 200, 0.0)
        one.respond(received.id, 500, 0.0)
        ((answer, _),) = one.datagrams_to_send(0.0)
        assert answer.startswith(b"SIP/2.0 200 OK\r\n")

    def test_same_identifiers_with_another_body_are_refused_while_the_first_runs(self) -> None:
        """S-35, S-36, SIP-11."""
        one = session("udp", SERVER)
        one.prove(CLIENT, 0.0)
        one.receive_datagram(raw_message("z9hG4bK1"), CLIENT, 0.0)
        one.receive_datagram(raw_message("z9hG4bK2", body=b"other"), CLIENT, 0.0)
        one.receive_datagram(raw_message("z9hG4bK3"), CLIENT, 0.0)
        first, refused, retry = events(one)
        assert isinstance(first, RequestReceived)
        assert refused == RequestRefused(482, "MESSAGE", CLIENT)
        assert isinstance(retry, RequestReceived)
        one.respond(retry.id, 200, 0.0)
        one.respond(first.id, 200, 0.0)
        one.receive_datagram(raw_message("z9hG4bK4", body=b"other"), CLIENT, 0.0)
        assert [type(e) for e in events(one)] == [RequestReceived]

    def test_transactions_are_bounded(self) -> None:
        limits = SessionSettings(most_transactions=3)
        one = SipSession(limits, "udp", SERVER, random=counting())
        one.prove(CLIENT, 0.0)
        for number in range(3):
            one.receive_datagram(raw_message(f"z9hG4bK{number}", call_id=f"c{number}"), CLIENT, 0.0)
        received = [e for e in events(one) if isinstance(e, RequestReceived)]
        assert len(received) == 3
        one.receive_datagram(raw_message("z9hG4bKa", call_id="ca"), CLIENT, 0.0)
        assert events(one) == [RequestRefused(503, "MESSAGE", CLIENT)]
        one.respond(received[0].id, 200, 0.0)
        one.receive_datagram(raw_message("z9hG4bKb", call_id="cb"), CLIENT, 0.0)
        assert [type(e) for e in events(one)] == [RequestReceived]

    def test_memory_is_given_back(self) -> None:
        """S-51."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message(), 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        one.connection_lost("reset")
        one.respond(received.id, 200, 1.0)
        assert one.data_to_send(1.0) == []
        assert one.next_timer() is None
        assert not one._servers


class TestWhereAnswersGo:
    @pytest.mark.parametrize(
        "via",
        [
            "SIP/2.0/UDP victim.example:5060;branch=z9hG4bKx",
            "SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKx;received=198.51.100.2",
            "SIP/2.0/UDP 198.51.100.1;branch=z9hG4bKx;rport=9;received=198.51.100.2",
            "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx;maddr=239.1.2.3",
            "SIP/2.0/UDP 192.0.2.10;branch=z9hG4bKx;maddr=127.0.0.1;ttl=5",
            "SIP/2.0/UDP 255.255.255.255;branch=z9hG4bKx",
        ],
    )
    def test_answers_go_to_the_packet_source_only(self, via: str) -> None:
        """S-29, S-30."""
        one = session("udp", SERVER)
        source = ("192.0.2.10", 40000)
        one.prove(source, 0.0)
        one.receive_datagram(raw_message(via=via), source, 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        one.respond(received.id, 200, 0.0)
        ((answer, to),) = one.datagrams_to_send(0.0)
        assert to == source
        response = parse_datagram(answer)
        assert isinstance(response, SipResponse)
        if "rport" in via:
            assert ";rport=40000" in response.vias[0]
        assert "received=198" not in response.vias[0]

    def test_answer_echoes_what_the_rfc_wants_and_adds_one_constant_tag(self) -> None:
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message() + raw_message("z9hG4bKy"), 0.0)
        for received in events(one):
            assert isinstance(received, RequestReceived)
            one.respond(received.id, 202, 0.0)
        first, second = (parse_datagram(octets) for octets in one.data_to_send(0.0))
        assert isinstance(first, SipResponse)
        assert isinstance(second, SipResponse)
        assert first.to.tag == second.to.tag != ""
        assert (first.from_.tag, first.call_id, str(first.cseq)) == ("1", "c1", "1 MESSAGE")
        assert first.value("contact") is None
        assert first.body == b""


class TestUnprovedSources:
    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 200), st.sampled_from([400, 401, 405, 420, 503, 200]), st.booleans())
    def test_answers_to_unproved_sources_are_never_larger(self, padding: int, status_code: int, is_long: bool) -> None:
        """S-28."""
        one = session("udp", SERVER)
        data = raw_message(body=b"x" * padding, via="SIP/2.0/UDP h;branch=z9hG4bKx")
        one.receive_datagram(data, CLIENT, 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        challenge = 'Digest realm="b.test",nonce="' + "n" * (60 if is_long else 22) + '",qop="auth",algorithm='
        headers = [("WWW-Authenticate", challenge + name) for name in ("SHA-256", "MD5")]
        one.respond(received.id, status_code, 0.0, headers=[("Server", "x" * 100), *headers])
        sent = one.datagrams_to_send(0.0)
        assert sum(len(octets) for octets, _ in sent) <= len(data)
        for _ in range(3):
            one.receive_datagram(data[:-5].replace(b"Content-Length", b"X-Length"), CLIENT, 0.1)
        for octets, _ in one.datagrams_to_send(0.1):
            assert len(octets) <= len(data)

    def test_a_registration_of_a_stock_phone_gets_both_challenges_in_its_own_size(self) -> None:
        one = session("udp", SERVER)
        data = (
            b"REGISTER sip:b.test SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.7:5060;rport;branch=z9hG4bKPj8a6f0c\r\n"
            b"Max-Forwards: 70\r\nFrom: <sip:alice@b.test>;tag=x1y2\r\nTo: <sip:alice@b.test>\r\nCall-ID: 8d7f6\r\n"
            b"CSeq: 1 REGISTER\r\nContact: <sip:alice@10.0.0.7:5060;ob>\r\nExpires: 300\r\n"
            b"User-Agent: PJSUA v2.14 Linux-6.1/x86_64/glibc-2.36\r\nAllow: PRACK, INVITE, ACK, BYE, CANCEL, UPDATE, "
            b"INFO, SUBSCRIBE, NOTIFY, REFER, MESSAGE, OPTIONS\r\n"
            b"Content-Length:  0\r\n\r\n"
        )
        one.receive_datagram(data, CLIENT, 0.0)
        (received,) = events(one)
        assert isinstance(received, RequestReceived)
        headers = [
            ("WWW-Authenticate", f'Digest realm="b.test",nonce="{"n" * 22}",qop="auth",algorithm={name}')
            for name in ("SHA-256", "MD5")
        ]
        one.respond(received.id, 401, 0.0, headers=headers)
        ((octets, _),) = one.datagrams_to_send(0.0)
        assert octets.count(b"WWW-Authenticate") == 2

    def test_a_flood_from_one_network_does_not_silence_another(self) -> None:
        """S-31."""
        one = session("udp", SERVER)
        for number in range(1000):
            source = (f"198.51.100.{number % 250}", 1024 + number)
            if one.admits(source, number / 10000):
                one.receive_datagram(raw_message(f"z9hG4bK{number}", call_id=f"c{number}"), source, number / 10000)
        assert sum(isinstance(e, RequestReceived) for e in events(one)) <= 32
        assert one.admits(CLIENT, 0.1)
        one.receive_datagram(raw_message("z9hG4bKcanary", call_id="canary"), CLIENT, 0.1)
        assert [type(e) for e in events(one)] == [RequestReceived]
        assert one.admits(("198.51.100.9", 1), 10.0)
        one.receive_datagram(raw_message("z9hG4bKlater", call_id="later"), ("198.51.100.9", 1), 10.0)
        assert [type(e) for e in events(one)] == [RequestReceived]

    def test_answers_to_our_own_requests_are_not_counted_as_a_flood(self) -> None:
        one = session("udp", CLIENT)
        for number in range(100):
            one.send_request(message(Call_ID=f"c{number}"), 0.0, SERVER)
        for data, _ in one.datagrams_to_send(0.0):
            request = parse_datagram(data)
            assert isinstance(request, SipRequest)
            assert one.admits(SERVER, 0.1)
            one.receive_datagram(SipResponse(200, "OK", [("Via", request.vias[0]), *HEADERS]).to_bytes(), SERVER, 0.1)
        assert sum(isinstance(e, ResponseReceived) for e in events(one)) == 100


class TestRefusals:
    @pytest.mark.parametrize(
        ("method", "status_code"),
        [
            ("INVITE", 405),
            ("REFER", 405),
            ("UPDATE", 405),
            ("INFO", 405),
            ("SUBSCRIBE", 405),
            ("FOO", 501),
            ("CANCEL", 481),
        ],
    )
    def test_methods_not_done_here_are_refused_without_state(self, method: str, status_code: int) -> None:
        """S-53, S-54."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message().replace(b"MESSAGE", method.encode()), 0.0)
        assert events(one) == [RequestRefused(status_code, method, CLIENT)]
        (answer,) = one.data_to_send(0.0)
        assert answer.startswith(f"SIP/2.0 {status_code} ".encode())
        assert (b"Allow: MESSAGE, OPTIONS, REGISTER" in answer) is (status_code in (405, 501))
        assert not one._servers

    def test_ack_out_of_the_blue_is_dropped(self) -> None:
        """S-54."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message().replace(b"MESSAGE", b"ACK"), 0.0)
        assert one.data_to_send(0.0) == []
        assert events(one) == []

    @pytest.mark.parametrize(
        ("extra", "status_code", "header"),
        [
            (b"Require: 100rel, foo\r\n", 420, b"Unsupported: 100rel, foo\r\n"),
            (b"Proxy-Require: bar\r\n", 420, b"Unsupported: bar\r\n"),
            (b"Route: <im:a@b.test>\r\n", 400, b""),
            (b"Route: <broken\r\n", 400, b""),
        ],
    )
    def test_headers_that_cannot_be_obeyed_are_refused(self, extra: bytes, status_code: int, header: bytes) -> None:
        """SIP-12, S-52, ADDR-29."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message(extra=extra), 0.0)
        (answer,) = one.data_to_send(0.0)
        assert answer.startswith(f"SIP/2.0 {status_code} ".encode())
        assert header in answer

    def test_unknown_request_uri_scheme_is_416(self) -> None:
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message().replace(b"MESSAGE sip:bob@b.test", b"MESSAGE tel:911"), 0.0)
        (answer,) = one.data_to_send(0.0)
        assert answer.startswith(b"SIP/2.0 416 ")

    def test_broken_framing_is_answered_and_the_stream_closed(self) -> None:
        """S-19."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message().replace(b"Content-Length: 5", b"Content-Length: +5"), 0.0)
        answer, close = one.data_to_send(0.0)
        assert answer.startswith(b"SIP/2.0 400 ")
        assert close == b""
        (event,) = events(one)
        assert isinstance(event, MalformedReceived)
        one.receive_data(raw_message(), 0.0)
        assert events(one) == []


class TestStreams:
    def test_keepalives_get_pongs_and_half_a_request_before_the_end_nothing(self) -> None:
        """S-50."""
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(b"\r\n" * 5000, 0.0)
        assert b"".join(one.data_to_send(0.0)) == b"\r\n" * 2500
        one.receive_data(raw_message()[:100], 0.0)
        one.receive_eof(1.0)
        assert one.data_to_send(1.0) == [b""]
        assert events(one) == []

    def test_a_message_that_never_ends_closes_the_stream_after_32_s(self) -> None:
        one = session("tcp", SERVER, CLIENT)
        one.receive_data(raw_message()[:-2], 5.0)
        assert one.next_timer() == 37.0
        one.receive_data(b"l", 30.0)
        assert one.next_timer() == 37.0
        one.handle_timer(37.0)
        assert one.data_to_send(37.0) == [b""]

    def test_two_sessions_talk(self) -> None:
        client, server = session("tcp", CLIENT, SERVER), session("tcp", SERVER, CLIENT)
        ids = [client.send_request(message(Call_ID=f"c{n}"), 0.0) for n in range(3)]
        for chunk in client.data_to_send(0.0):
            server.receive_data(chunk, 0.0)
        for event in events(server):
            assert isinstance(event, RequestReceived)
            assert event.request.body == b"hello"
            server.respond(event.id, 200, 0.0)
        client.receive_data(b"".join(server.data_to_send(0.0)), 0.0)
        assert [e.id for e in events(client) if isinstance(e, ResponseReceived)] == ids
        assert client.next_timer() is None

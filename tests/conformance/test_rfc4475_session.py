"""RFC 4475: what a server session answers to every torture message, over UDP and TCP (reliability.md section 2.4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comity.bindings.sip.events import RequestReceived
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.wire import parse_datagram

FOLDER = Path(__file__).parent / "rfc4475"
EXPECTED: dict[str, dict[str, object]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))
SETTINGS = SessionSettings(methods=frozenset({"MESSAGE", "REGISTER", "OPTIONS"}))
NEAR, FAR = ("192.0.2.200", 5060), ("127.0.0.1", 5090)


def outcome(session: SipSession, answers: list[bytes]) -> object:
    """The first of: method handed up, status code answered; None if neither."""
    for event in iter(session.next_event, None):
        if isinstance(event, RequestReceived):
            return event.request.method
    for octets in answers:
        response = parse_datagram(octets)
        if isinstance(response, SipResponse):
            return response.status_code
        # "insuf" has no From to give back, so the answer is not complete either.
        return int(octets[8:11])
    return None


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_over_udp(name: str) -> None:
    session = SipSession(SETTINGS, "udp", NEAR)
    session.receive_datagram((FOLDER / f"{name}.dat").read_bytes(), FAR, 0.0)
    sent = session.datagrams_to_send(0.0)
    assert all(address == FAR for _, address in sent)
    assert outcome(session, [octets for octets, _ in sent]) == EXPECTED[name]["udp"]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_over_tcp(name: str) -> None:
    session = SipSession(SETTINGS, "tcp", NEAR, FAR)
    data = (FOLDER / f"{name}.dat").read_bytes()
    session.receive_data(data + b"\r\n" if name == "baddn" else data, 0.0)
    assert outcome(session, [octets for octets in session.data_to_send(0.0) if octets]) == EXPECTED[name]["tcp"]
    session.handle_timer(32.0)
    # dblreq: the second body is one octet longer than its Content-Length says; a bare LF is left over.
    assert session.is_closed is (name in {"dblreq", "clerr", "ncl", "mcl01", "inv2543"})


def test_answers_echo_the_unusual_octets() -> None:
    session = SipSession(SETTINGS, "tcp", NEAR, FAR)
    session.receive_data((FOLDER / "intmeth.dat").read_bytes(), 0.0)
    (octets,) = session.data_to_send(0.0)
    response = parse_datagram(octets)
    assert isinstance(response, SipResponse)
    assert response.cseq.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert response.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert "%indeed" in str(response.cseq)


def test_the_second_request_of_a_stream_is_handled() -> None:
    session = SipSession(SETTINGS, "tcp", NEAR, FAR)
    session.receive_data((FOLDER / "dblreq.dat").read_bytes(), 0.0)
    assert any(octets.startswith(b"SIP/2.0 405") for octets in session.data_to_send(0.0))

"""A 200 known at a glance is one that reading would have known, and nothing else is (S-32, S-33)."""

from __future__ import annotations

import pytest

from comity.bindings.sip.events import PacketDropped, ResponseReceived
from comity.bindings.sip.glance import glance_for
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from tests.bindings.sip.kit import counting

NEAR, FAR = ("192.0.2.1", 5060), ("192.0.2.10", 5060)
BRANCH = "z9hG4bK" + "0" * 23 + "1"
OK = (
    "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch={branch};rport=5060;received=192.0.2.1\r\n"
    "From: <sip:b@a>;tag=1\r\nTo: <sip:a@a>;tag=2\r\nCall-ID: c\r\nCSeq: 7 {method}\r\nContent-Length: 0\r\n\r\n"
)


def asked(method: str = "NOTIFY") -> tuple[SipSession, str]:
    session = SipSession(SessionSettings(), "udp", NEAR, random=counting())
    if method == "NOTIFY":
        id = session.send_written(method, b"NOTIFY sip:a SIP/2.0\r\n", b"CSeq: 7 NOTIFY\r\n\r\n", 0.0, FAR)
    else:
        id = session.send_request(SipRequest(method, "sip:a@a", [("CSeq", f"7 {method}")]), 0.0, FAR)
    session.datagrams_to_send(0.0)
    return session, id


def answer(id: str, method: str = "NOTIFY") -> bytes:
    return OK.format(branch=id, method=method).encode()


def test_the_plain_one_is_known() -> None:
    session, id = asked()
    assert glance_for(b"SIP/2.0/UDP 192.0.2.1:5060")(answer(id)) == id
    session.receive_datagram(answer(id), FAR, 0.1)
    event = session.next_event()
    assert isinstance(event, ResponseReceived)
    assert (event.id, event.response.status_code) == (id, 200)
    session.receive_datagram(answer(id), FAR, 0.2)
    assert session.next_event() is None


@pytest.mark.parametrize(
    "change",
    [
        (b"200 OK", b"202 Accepted"),
        (b"Via: ", b"v: "),
        (b"CSeq: 7 NOTIFY", b"CSeq: 7  NOTIFY"),
        (b"\r\nFrom", b"\r\nContent-Type: text/plain\r\nFrom"),
    ],
)
def test_what_is_written_otherwise_is_read_and_means_the_same(change: tuple[bytes, bytes]) -> None:
    session, id = asked()
    session.receive_datagram(answer(id).replace(*change), FAR, 0.1)
    event = session.next_event()
    assert isinstance(event, ResponseReceived)
    assert event.response.status_code // 100 == 2


@pytest.mark.parametrize(
    "change",
    [
        (b"\r\nFrom", b"\r\nVia: SIP/2.0/UDP x;branch=z9hG4bK2\r\nFrom"),
        (b"\r\nFrom", b"\r\nv: SIP/2.0/UDP x;branch=z9hG4bK2\r\nFrom"),
        (b"192.0.2.1:5060;branch", b"192.0.2.2:5060;branch"),
        (b"7 NOTIFY", b"7 MESSAGE"),
        (BRANCH[-4:].encode(), b"0009"),
    ],
)
def test_what_is_nobodys_stays_nobodys(change: tuple[bytes, bytes]) -> None:
    """S-32, S-33."""
    session, id = asked()
    assert id == BRANCH or id.startswith("z9hG4bK")
    octets = answer(id)
    changed = octets.replace(*change) if change[0] in octets else octets.replace(id.encode(), b"z9hG4bK" + b"9" * 24)
    session.receive_datagram(changed, FAR, 0.1)
    assert isinstance(session.next_event(), PacketDropped)


def test_from_elsewhere_is_forged() -> None:
    """S-33."""
    session, id = asked()
    session.receive_datagram(answer(id), ("192.0.2.99", 5060), 0.1)
    assert isinstance(session.next_event(), PacketDropped)


def test_an_answer_to_another_method_is_read() -> None:
    """What it says besides 200 counts there."""
    session, id = asked("MESSAGE")
    session.receive_datagram(answer(id, "MESSAGE"), FAR, 0.1)
    event = session.next_event()
    assert isinstance(event, ResponseReceived)
    assert event.response.cseq.method == "MESSAGE"

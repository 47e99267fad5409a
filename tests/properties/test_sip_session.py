"""SIP sessions against octets nobody planned: mutations of RFC 4475's messages, in any pieces, by strangers (S-28)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.sip.events import RequestReceived
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.wire import StreamReader
from tests.catalogue.mutations import SIP_PIECES

SEEDS = [path.read_bytes() for path in sorted((Path(__file__).parent.parent / "conformance/rfc4475").glob("*.dat"))]
SETTINGS = SessionSettings(methods=frozenset({"MESSAGE", "REGISTER", "OPTIONS"}), extensions=frozenset({"outbound"}))
NEAR, FAR = ("192.0.2.200", 5060), ("192.0.2.9", 5090)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """One or two messages with a few places changed."""
    octets = bytearray(b"".join(draw(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=2))))
    for _ in range(draw(st.integers(0, 5))):
        place = draw(st.integers(0, len(octets)))
        octets[place : place + draw(st.integers(0, 12))] = draw(st.sampled_from(SIP_PIECES) | st.binary(max_size=8))
    return bytes(octets)


def new(transport: str) -> SipSession:
    return SipSession(SETTINGS, transport, NEAR, None if transport == "udp" else FAR, random=bytes)


def events_of(session: SipSession, *, status_code: int = 0) -> list[object]:
    """What happened, in a form that can be compared; requests handed up are answered if a status code is given."""
    happened: list[object] = []
    while (event := session.next_event()) is not None:
        happened.append((type(event).__name__, getattr(event, "reason", "")))
        if isinstance(event, RequestReceived):
            happened[-1] = (event.request.start_line, list(event.request.headers), event.request.body)
            if status_code:
                session.respond(event.id, status_code, 0.0, headers=[("Contact", "<sip:x@y>")] * 3)
    return happened


@settings(deadline=None, max_examples=500)
@given(mutations())
def test_a_stranger_gets_one_packet_of_no_more_octets(octets: bytes) -> None:
    """S-28, for whatever comes."""
    session = new("udp")
    session.receive_datagram(octets, FAR, 0.0)
    events_of(session, status_code=200)
    sent = session.datagrams_to_send(0.0)
    assert len(sent) <= 1
    assert all(address == FAR and len(data) <= len(octets) for data, address in sent)
    timer = session.next_timer()
    assert timer is None or timer <= 32.0


@settings(deadline=None, max_examples=500)
@given(mutations(), st.lists(st.integers(0, 4000), max_size=8))
def test_pieces_change_nothing(octets: bytes, places: list[int]) -> None:
    """The same events and refusals whole and in pieces; and what is answered is SIP."""
    whole, split = new("tcp"), new("tcp")
    whole.receive_data(octets, 0.0)
    expected = events_of(whole)
    happened: list[object] = []
    cuts = sorted({0, len(octets), *(place for place in places if place < len(octets))})
    for start, end in pairwise(cuts):
        split.receive_data(octets[start:end], 0.0)
        happened += events_of(split)
    assert happened == expected
    answers = [data for data in whole.data_to_send(0.0) if data]
    assert b"".join(answers) == b"".join(split.data_to_send(0.0))
    reader = StreamReader()
    reader.feed(b"".join(answers))
    for _ in answers:
        unit = reader.next_unit()
        if isinstance(unit, SipResponse):
            assert 200 <= unit.status_code < 600

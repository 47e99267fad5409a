"""Every example exchange of RFC 3340 to 3343 on our session, in both roles, cut at every octet offset (APEX-1, APEX-8 to APEX-23).

The frames around the printed elements are made here by hand, and what our session writes is read by the independent peer.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from comity.bindings.apex import events
from comity.bindings.apex.elements import CoreElement, Error, Ok
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.wire import read_message
from tests.bindings.apex.pair import INITIATOR, LISTENER
from tests.conformance.exchanges import BEEP_XML, Step, exchanges
from tests.interop.apex_peer import APEX, Data, read_data
from tests.interop.apex_peer_beep import Message, xml_of

PROFILE = f"<profile uri='{APEX}' />".encode()
PART = b"\r\n--b\r\nContent-Type: text/plain\r\nContent-ID: <1@example.com>\r\n\r\n...\r\n--b--\r\n"
ALL = [steps for steps in exchanges() if not steps[0].text.startswith("<start")]
STARTS = [steps for steps in exchanges() if steps[0].text.startswith("<start")]
FRAME = re.compile(rb"(MSG|RPY|ERR) (\d+) (\d+) \. (\d+) (\d+)\r\n")


def payload_of(step: Step) -> bytes:
    """As a message: the part that the text leaves out is there, and the `>` that RFC 3343 forgot."""
    if not step.is_well_formed:
        step = replace(step, text=step.text.replace("Name='Content'", "Name='Content'>"))
    if step.is_frame or "content='cid:" not in step.text:
        return step.payload
    head = b'Content-Type: multipart/related; boundary="b"; type="application/beep+xml"\r\n\r\n--b\r\n'
    return head + step.payload + PART


def frame(keyword: str, channel: int, msgno: int, seqno: int, payload: bytes) -> bytes:
    return f"{keyword} {channel} {msgno} . {seqno} {len(payload)}\r\n".encode() + payload + b"END\r\n"


def taken(session: ApexSession) -> list[object]:
    """The events that wait."""
    found: list[object] = []
    while (event := session.next_event()) is not None:
        found.append(event)
    return found


def said(session: ApexSession, channel: int) -> list[tuple[str, int, bytes]]:
    """Messages the session writes on a channel: keyword, number, payload; none of them is longer than a frame."""
    octets, found = b"".join(session.data_to_send(0.0)), []
    for header in FRAME.finditer(octets):
        payload = octets[header.end() : header.end() + int(header[5])]
        assert octets[header.end() + len(payload) :].startswith(b"END\r\n")
        if int(header[2]) == channel:
            found.append((header[1].decode(), int(header[3]), payload))
    return found


def greeted(role: str) -> tuple[ApexSession, int]:
    """A session that has greeted, and where channel 0 of its peer stands."""
    options = LISTENER if role == "listener" else INITIATOR
    session = ApexSession(role, options, lambda: None, bytes, 0.0)  # type: ignore[arg-type]  # one of the two
    greeting = BEEP_XML + (b"<greeting />" if role == "listener" else b"<greeting>" + PROFILE + b"</greeting>")
    session.receive_data(frame("RPY", 0, 0, 0, greeting), 0.0)
    taken(session)
    session.data_to_send(0.0)
    return session, len(greeting)


def opened(role: str) -> ApexSession:
    """One with an APEX channel, number 1."""
    session, at = greeted(role)
    if role == "listener":
        session.receive_data(frame("MSG", 0, 1, at, BEEP_XML + b"<start number='1'>" + PROFILE + b"</start>"), 0.0)
    else:
        assert session.open() == 1
        ((_, msgno, _),) = said(session, 0)
        session.receive_data(frame("RPY", 0, msgno, at, BEEP_XML + PROFILE), 0.0)
    taken(session)
    assert session.channels == {1}
    session.data_to_send(0.0)
    return session


def printed(step: Step) -> Ok | Error:
    """The printed answer, as the peer reads it."""
    element = xml_of(step.payload)
    return Ok() if element.tag == "ok" else Error(int(element.get("code", "0")), element.text or "")


def same(one: bytes, other: bytes) -> bool:
    """Two payloads that say the same to the independent reader."""

    def value(payload: bytes) -> object:
        got = read_data(Message("MSG", 1, 0, payload))
        if not isinstance(got, Data):
            got.attrib.pop("{http://www.w3.org/XML/1998/namespace}lang", None)  # of a text: said or not (I18N-2)
            return ET.canonicalize(ET.tostring(got), strip_text=True)
        return _without_defaults(got.element), got.body

    return value(one) == value(other)


def _without_defaults(element: ET.Element) -> str:
    """Canonical; an attribute written with its default of the DTD is as good as none."""
    for one in element.iter("option"):
        for name, default in (("targetHop", "final"), ("mustUnderstand", "false")):
            if one.get(name) == default:
                del one.attrib[name]
    return ET.canonicalize(ET.tostring(element), strip_text=True)


@pytest.mark.parametrize("steps", ALL, ids=lambda steps: steps[0].name)
def test_what_the_example_asks_is_heard_and_answered_as_printed(steps: list[Step]) -> None:
    """We are asked, as a relay, and as an application (which data and terminate are sent to as well)."""
    payload, seqno = payload_of(steps[0]), 0
    answer = printed(steps[1]) if len(steps) == 2 else Ok()
    session, heard = opened("listener"), set[CoreElement]()
    for cut in range(len(frame("MSG", 1, 0, 0, payload))):
        octets = frame("MSG", 1, cut, seqno % 2**32, payload)
        session.receive_data(octets[:cut], 0.0)
        assert not taken(session)
        session.receive_data(octets[cut:], 0.0)
        (event,) = taken(session)
        assert isinstance(event, events.ElementReceived)
        assert (event.channel, event.msgno, event.raw) == (1, cut, payload)
        heard.add(event.element)
        session.answer(1, cut, answer)
        ((keyword, msgno, written),) = said(session, 1)
        assert (keyword, msgno) == ("RPY" if isinstance(answer, Ok) else "ERR", cut)
        assert same(written, steps[1].payload if len(steps) == 2 else BEEP_XML + b"<ok />")
        seqno += len(payload)
        session.receive_data(f"SEQ 1 {_sent(written, cut)} 65536\r\n".encode(), 0.0)
    assert len(heard) == 1


@pytest.mark.parametrize("steps", ALL, ids=lambda steps: steps[0].name)
def test_we_ask_what_the_example_asks_and_understand_the_answer(steps: list[Step]) -> None:
    """We ask: the peer reads the same in what we write as in what is printed; its answer comes in two pieces of every size."""
    payload, session, seqno = payload_of(steps[0]), opened("initiator"), 0
    element = read_message(payload)
    reply = steps[1].payload if len(steps) == 2 else BEEP_XML + b"<ok />"
    answer = printed(steps[1]) if len(steps) == 2 else Ok()
    for cut in range(len(frame("RPY", 1, 0, 0, reply))):
        handle = session.send(1, element)
        ((keyword, msgno, written),) = said(session, 1)
        assert keyword == "MSG"
        assert same(written, payload)
        octets = frame("RPY" if isinstance(answer, Ok) else "ERR", 1, msgno, seqno, reply)
        session.receive_data(octets[:cut], 0.0)
        assert not taken(session)
        session.receive_data(octets[cut:], 0.0)
        (event,) = taken(session)
        assert isinstance(event, events.Answered)
        assert event.handle == handle
        assert type(event.element) is type(answer)
        if isinstance(event.element, Error) and isinstance(answer, Error):
            assert event.element.code == answer.code
            assert event.element.text.split() == answer.text.split()
        seqno += len(reply)
        session.receive_data(f"SEQ 1 {_sent(written, cut)} 65536\r\n".encode(), 0.0)


def _sent(written: bytes, times_before: int) -> int:
    return len(written) * (times_before + 1)


@pytest.mark.parametrize("steps", STARTS, ids=lambda steps: steps[0].name)
def test_what_rides_on_start_is_heard_and_answered_in_the_profile(steps: list[Step]) -> None:
    """RFC 3340, section 4.2: attach and bind as CDATA, cut at every octet."""
    payload = BEEP_XML + steps[0].text.replace("\n", "\r\n").encode()
    for cut in range(len(frame("MSG", 0, 1, 52, payload))):
        session, at = greeted("listener")
        octets = frame("MSG", 0, 1, at, payload)
        session.receive_data(octets[:cut], 0.0)
        session.receive_data(octets[cut:], 0.0)
        found = [event for event in taken(session) if isinstance(event, events.ElementReceived)]
        assert [(event.channel, event.msgno) for event in found] == [(1, events.RIDE)]
        session.answer(1, events.RIDE, Ok())
        ((keyword, msgno, written),) = said(session, 0)
        assert (keyword, msgno) == ("RPY", 1)
        profile = xml_of(written)
        assert (profile.tag, profile.get("uri"), (profile.text or "").strip()) == ("profile", APEX, "<ok />")


def test_the_misprint_of_rfc_3343_is_refused_as_printed() -> None:
    """500: it is not well formed."""
    (wrong,) = [steps[0] for steps in ALL if not steps[0].is_well_formed]
    session = opened("listener")
    session.receive_data(frame("MSG", 1, 0, 0, wrong.payload), 0.0)
    assert not taken(session)
    ((keyword, _, written),) = said(session, 1)
    assert keyword == "ERR"
    assert xml_of(written).get("code") == "500"

"""Every exchange that RFC 3080 prints, played with our session in either role, cut at every octet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import pytest

from comity.beep import BeepOptions, BeepSession, ProfileOffer, SessionEnded
from comity.beep.events import ChannelWanted, CloseWanted, MessageReceived

from .wires import XML, Raw, data_frames, element, events, read_frames, sent

ROLES = {"I": "initiator", "C": "initiator", "L": "listener", "S": "listener"}
RESET = None
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


@dataclass
class Exchange:
    name: str
    steps: list[tuple[str, Raw] | None] = field(default_factory=list)
    """Role and frame in the order printed; None: the transport is tuned here."""


def read_exchanges() -> Iterator[Exchange]:
    text = (Path(__file__).parent / "data" / "rfc3080.txt").read_text()
    for section in re.split(r"^== ", text, flags=re.M)[1:]:
        name, *lines = section.splitlines()
        exchange, role, octets = Exchange(name), "", b""
        for line in lines:
            if line.startswith("---"):
                exchange.steps.append(RESET)
            elif line:
                role = role or ROLES[line[0]]
                octets += line[3:].encode() + b"\r\n"
                if line[3:] == "END":
                    (frame,) = data_frames(octets)
                    exchange.steps.append((role, frame))
                    role, octets = "", b""
        # RFC 3080 section 2.3.1.5 lets the initiator start channel 2, which section 2.3.1.2 forbids.
        if name.startswith("2.3.1.5"):
            first = exchange.steps[0]
            assert first
            first[1].payload = first[1].payload.replace(b"'2'", b"'1'")
        yield exchange


EXCHANGES = list(read_exchanges())


def with_prelude(exchange: Exchange) -> Exchange:
    """What must have come before an example that begins in the middle, so that its sequence numbers are right."""
    first = exchange.steps[0]
    assert first
    if first[1].seqno == 0 and first[1].channel == 0:
        return exchange
    steps: list[tuple[str, Raw] | None] = []
    seqnos = {"initiator": 52, "listener": 221}
    for step in reversed(exchange.steps):
        if step and step[1].channel == 0:
            seqnos[step[0]] = step[1].seqno
    asked = XML + b"<start number='1'>\r\n   <profile uri='http://example.org/p' />\r\n</start>\r\n"
    made = XML + b"<profile uri='http://example.org/p' />\r\n"
    has_channel = first[1].msgno == 2 or first[1].channel == 1
    if first[1].channel == 1:
        seqnos = {"initiator": 52 + len(asked), "listener": 52 + len(made)}
    if has_channel:
        seqnos = {"initiator": seqnos["initiator"] - len(asked), "listener": seqnos["listener"] - len(made)}
    for role, size in seqnos.items():
        steps.append((role, Raw("RPY", 0, 0, ".", 0, (XML + b"<greeting />").ljust(size))))
    if has_channel:
        steps.append(("initiator", Raw("MSG", 0, 1, ".", seqnos["initiator"], asked)))
        steps.append(("listener", Raw("RPY", 0, 1, ".", seqnos["listener"], made)))
    return Exchange(exchange.name, steps + exchange.steps)


def meaning(payload: bytes) -> tuple[str, dict[str, str], str, list[object]]:
    """An element without what may differ: white space, and the language of a diagnostic."""
    return _meaning(element(payload))


def _meaning(found: ElementTree.Element) -> tuple[str, dict[str, str], str, list[object]]:
    attributes = {key: value for key, value in found.attrib.items() if key != LANGUAGE}
    if found.tag == "close":
        attributes.setdefault("number", "0")
    return found.tag, attributes, " ".join((found.text or "").split()), [_meaning(child) for child in found]


class Player:
    """Our session in one role, doing what the example has that role do."""

    def __init__(self, role: str, exchange: Exchange) -> None:
        self.role = role
        greetings = [
            step[1] for step in exchange.steps if step and step[0] == role and step[1].msgno == 0 == step[1].channel
        ]
        self.options = [self._options(frame) for frame in greetings]
        self.session = BeepSession("initiator" if role == "initiator" else "listener", self.options.pop(0), 0.0)
        self.wanted: list[int] = []
        self.closing: list[int] = []
        self.messages: list[tuple[int, int]] = []
        self.ended: SessionEnded | None = None
        self.log: list[str] = []

    @staticmethod
    def _options(frame: Raw) -> BeepOptions:
        found = element(frame.payload)
        if found.tag == "error":
            return BeepOptions(unavailable=(int(found.attrib["code"]), ""))
        return BeepOptions(profiles=tuple(child.attrib["uri"] for child in found))

    def hear(self, frame: Raw, offset: int) -> None:
        for chunk in (frame.octets[:offset], frame.octets[offset:]):
            self.session.receive_data(chunk, 0.0)
        self._listen()

    def _listen(self) -> None:
        for event in events(self.session):
            self.log.append(type(event).__name__)
            match event:
                case ChannelWanted(number=number):
                    self.wanted.append(number)
                case CloseWanted(channel=channel):
                    self.closing.append(channel)
                case MessageReceived(channel=channel, msgno=msgno):
                    self.messages.append((channel, msgno))
                case SessionEnded():
                    self.ended = event

    def reset(self) -> None:
        self.session.suspend()
        self.session.reset(0.0, self.options.pop(0))

    def say(self, frame: Raw) -> Raw:
        """Do what leads to ``frame``; returns what was sent."""
        self._act(frame, element(frame.payload))
        (said,) = data_frames(sent(self.session))
        self._listen()
        return said

    def _act(self, frame: Raw, found: ElementTree.Element) -> None:
        session = self.session
        if frame.msgno == 0 == frame.channel:
            return  # the session greets of itself
        match frame.channel, frame.keyword, found.tag:
            case 0, "MSG", "start":
                offers = [ProfileOffer(child.attrib["uri"], (child.text or "").strip().encode()) for child in found]
                assert session.start_channel(offers) == int(found.attrib["number"])
            case 0, "MSG", "close":
                session.close_channel(int(found.attrib.get("number", "0")), int(found.attrib["code"]))
            case 0, "RPY", "profile":
                session.accept_channel(self.wanted.pop(), found.attrib["uri"], (found.text or "").strip().encode())
            case 0, "RPY", "ok":
                session.accept_close(self.closing.pop())
            case 0, "ERR", "error" if self.wanted:
                session.refuse_channel(
                    self.wanted.pop(), int(found.attrib["code"]), " ".join((found.text or "").split())
                )
            case 0, "ERR", "error" if self.closing:
                session.refuse_close(self.closing.pop(), int(found.attrib["code"]), found.text or "")
            case 0, "ERR", "error":
                pass  # the session refuses of itself
            case channel, "MSG", _:
                session.send_message(channel, frame.payload)
            case _, "RPY", _:
                session.reply(*self.messages.pop(), frame.payload)
            case _, "ERR", _:
                session.reply_error(*self.messages.pop(), frame.payload)
            case unknown:
                pytest.fail(f"no verb for {unknown}")


def play(exchange: Exchange, role: str, offset: int) -> Player:
    player = Player(role, exchange)
    for step in exchange.steps:
        if step is RESET:
            player.reset()
            continue
        speaker, frame = step
        if speaker != role:
            player.hear(frame, offset)
            continue
        said = player.say(frame)
        assert (said.keyword, said.channel, said.msgno, said.more) == (
            frame.keyword,
            frame.channel,
            frame.msgno,
            frame.more,
        )
        assert meaning(said.payload) == meaning(frame.payload)
    return player


@pytest.mark.parametrize("role", ["initiator", "listener"])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=[exchange.name for exchange in EXCHANGES])
def test_example_exchange(exchange: Exchange, role: str) -> None:
    """APEX-1, APEX-4, APEX-7: RFC 3080's own examples, both roles, every frame of the peer cut at every octet."""
    if exchange.name == "2.3.1.2 a channel is not made" and role == "initiator":
        session = BeepSession("initiator", BeepOptions(), 0.0)
        assert session.start_channel([ProfileOffer("urn:p")]) == 1, "we never ask for an even number"
        return
    whole = with_prelude(exchange)
    longest = max(len(step[1].octets) for step in whole.steps if step)
    outcomes = {(tuple((p := play(whole, role, offset)).log), p.ended) for offset in range(longest)}
    assert len(outcomes) == 1
    ((log, ended),) = outcomes
    is_over = exchange.name in ("2.4 the session is released", "2.4 the listener is unavailable")
    assert (ended is not None) == is_over, (log, ended)


def test_examples_are_all_there() -> None:
    """The exchanges of RFC 3080; every size in them is right, or the reader would have failed."""
    assert len(EXCHANGES) == 20
    assert sum(len(exchange.steps) for exchange in EXCHANGES) == 50


def test_an_empty_last_frame() -> None:
    """RFC 3080 section 2.2.1.1: "a frame may have an empty payload"."""
    session = BeepSession("initiator", BeepOptions(), 0.0)
    octets = Raw("RPY", 0, 0, "*", 0, XML + b"<greeting />").octets + b"RPY 0 0 . 50 0\r\nEND\r\n"
    for offset in range(len(octets)):
        session = BeepSession("initiator", BeepOptions(), 0.0)
        session.receive_data(octets[:offset], 0.0)
        session.receive_data(octets[offset:], 0.0)
        assert [type(event).__name__ for event in events(session)] == ["GreetingReceived"]


def test_interleaved_answers() -> None:
    """RFC 3080 section 2.2.1.1: two answers at once on channel 1 in reply to message 0."""
    frames = [
        Raw("RPY", 0, 0, ".", 0, XML + b"<greeting />"),
        Raw("RPY", 0, 1, ".", 50, XML + b"<profile uri='urn:p'/>"),
        Raw("ANS", 1, 0, "*", 0, b"\r\n" + b"a" * 18, 0),
        Raw("ANS", 1, 0, "*", 20, b"\r\n" + b"b" * 18, 1),
        Raw("ANS", 1, 0, ".", 40, b"A" * 10, 0),
        Raw("ANS", 1, 0, ".", 50, b"", 1),
        Raw("NUL", 1, 0, ".", 50, b""),
    ]
    for offset in range(max(len(frame.octets) for frame in frames)):
        session = BeepSession("initiator", BeepOptions(), 0.0)
        session.start_channel([ProfileOffer("urn:p")])
        assert [frame.keyword for frame in data_frames(sent(session))] == ["RPY", "MSG"]
        log: list[object] = []
        for count, frame in enumerate(frames):
            session.receive_data(frame.octets[:offset], 0.0)
            session.receive_data(frame.octets[offset:], 0.0)
            found = events(session)
            if count == 1:
                session.send_message(1, b"\r\n?")
                assert [f.keyword for f in data_frames(sent(session))] == ["MSG"]
            log += found
        names = [type(event).__name__ for event in log]
        assert names == ["GreetingReceived", "ChannelStarted", "AnswerReceived", "AnswerReceived", "AnswersEnded"]
        assert [event.payload for event in log[2:4]] == [b"\r\n" + b"a" * 18 + b"A" * 10, b"\r\n" + b"b" * 18]  # type: ignore[attr-defined]


def test_a_seq_frame_is_written_as_rfc_3081_has_it() -> None:
    """RFC 3081 section 3.1.3."""
    session = BeepSession("initiator", BeepOptions(), 0.0)
    session.receive_data(Raw("RPY", 0, 0, ".", 0, (XML + b"<greeting />").ljust(3000)).octets, 0.0)
    assert (0, 3000, 4096) in list(read_frames(sent(session)))

"""What these tests share: frames written and read without our own writer and reader, and two sessions wired together."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Self
from xml.etree import ElementTree

from comity.beep import (
    BeepOptions,
    BeepSession,
    ChannelWanted,
    CloseWanted,
    Event,
    MessageReceived,
    ProfileOffer,
    SessionEnded,
)

URI = "http://example.org/echo"
XML = b"Content-Type: application/beep+xml\r\n\r\n"
GREETING = b"RPY 0 0 . 0 52\r\n" + XML + b"<greeting />\r\nEND\r\n"
HEADER = re.compile(rb"(?P<k>MSG|RPY|ERR|ANS|NUL) (\d+) (\d+) ([.*]) (\d+) (\d+)(?: (\d+))?\r\n")
SEQ = re.compile(rb"SEQ (\d+) (\d+) (\d+)\r\n")


@dataclass
class Raw:
    """A frame as the wire has it."""

    keyword: str
    channel: int
    msgno: int
    more: str
    seqno: int
    payload: bytes
    ansno: int | None = None

    @property
    def octets(self) -> bytes:
        head = f"{self.keyword} {self.channel} {self.msgno} {self.more} {self.seqno} {len(self.payload)}"
        if self.ansno is not None:
            head += f" {self.ansno}"
        return head.encode() + b"\r\n" + self.payload + b"END\r\n"


def read_frames(octets: bytes) -> Iterator[Raw | tuple[int, int, int]]:
    """Frames, and SEQ frames as tuples; anything else is an error."""
    while octets:
        if found := SEQ.match(octets):
            yield int(found[1]), int(found[2]), int(found[3])
            octets = octets[found.end() :]
            continue
        found = HEADER.match(octets)
        assert found, octets[:80]
        end = found.end() + int(found[6])
        assert octets[end : end + 5] == b"END\r\n", octets[:200]
        ansno = None if found[7] is None else int(found[7])
        numbers = (int(found[2]), int(found[3]), found[4].decode(), int(found[5]))
        yield Raw(found[1].decode(), *numbers, octets[found.end() : end], ansno)
        octets = octets[end + 5 :]


def data_frames(octets: bytes) -> list[Raw]:
    return [frame for frame in read_frames(octets) if isinstance(frame, Raw)]


def element(payload: bytes) -> ElementTree.Element:
    head, _, body = payload.partition(b"\r\n\r\n")
    assert head == b"Content-Type: application/beep+xml"
    return ElementTree.fromstring(body)


def start(number: int, *uris: str, msgno: int = 1, seqno: int = 52, content: str = "") -> bytes:
    """A start as the peer writes it, behind GREETING."""
    inside = f"><![CDATA[{content}]]></profile>" if content else " />"
    profiles = "".join(f"<profile uri='{uri}'{inside}" for uri in uris)
    return Raw("MSG", 0, msgno, ".", seqno, XML + f"<start number='{number}'>{profiles}</start>".encode()).octets


def events(session: BeepSession) -> list[Event]:
    found = []
    while (event := session.next_event()) is not None:
        found.append(event)
    return found


def each(session: BeepSession) -> Iterator[Event]:
    """Events one by one, as a program takes them: what one leads to happens before the next is taken."""
    while (event := session.next_event()) is not None:
        yield event


def sent(session: BeepSession, now: float = 0.0) -> bytes:
    return b"".join(session.data_to_send(now))


def listening(channels: int = 1, **changes: object) -> tuple[BeepSession, int]:
    """A listener with channels 1, 3 … open to a peer that is only octets; and the peer's next seqno on channel 0."""
    session = BeepSession("listener", BeepOptions(profiles=(URI,), **changes), 0.0)  # type: ignore[arg-type]  # test helper
    session.receive_data(GREETING, 0.0)
    seqno = 52
    for count in range(channels):
        asked = start(2 * count + 1, URI, msgno=count + 1, seqno=seqno)
        seqno += len(data_frames(asked)[0].payload)
        session.receive_data(asked, 0.0)
        session.accept_channel(2 * count + 1, URI)
        for answer in read_frames(sent(session)):
            if isinstance(answer, Raw):  # the peer has room for what we say on channel 0
                session.receive_data(b"SEQ 0 %d 4096\r\n" % (answer.seqno + len(answer.payload)), 0.0)
    events(session)
    return session, seqno


def msg(channel: int, msgno: int, seqno: int, payload: bytes, more: str = ".") -> bytes:
    return Raw("MSG", channel, msgno, more, seqno, payload).octets


def ended(session: BeepSession) -> SessionEnded:
    """How the session ended: without a word (C° of reliability.md section 2.11)."""
    assert session.data_to_send(0.0) == []
    last = events(session)[-1]
    assert isinstance(last, SessionEnded)
    assert last.is_error
    assert last.reason
    assert "\n" not in last.reason
    return last


@dataclass
class Pair:
    """Two sessions; each side's events are kept, and answered by ``react``."""

    initiator: BeepSession
    listener: BeepSession
    now: float = 0.0
    cut: Callable[[bytes], list[bytes]] = lambda octets: [octets]
    seen: dict[str, list[Event]] = field(default_factory=lambda: {"initiator": [], "listener": []})
    echoes: bool = True

    @classmethod
    def of(cls, **changes: object) -> Self:
        options = BeepOptions(profiles=(URI,), **changes)  # type: ignore[arg-type]  # test helper
        return cls(BeepSession("initiator", options, 0.0), BeepSession("listener", options, 0.0))

    def react(self, session: BeepSession, event: Event) -> None:
        match event:
            case ChannelWanted():
                session.accept_channel(event.number, event.profiles[0].uri)
            case MessageReceived() if self.echoes:
                session.reply(event.channel, event.msgno, event.payload)
            case CloseWanted():
                session.accept_close(event.channel)

    def step(self, source: BeepSession, target: BeepSession) -> bool:
        items = source.data_to_send(self.now)
        octets = b"".join(items)
        for chunk in self.cut(octets) if octets else []:
            target.receive_data(chunk, self.now)
        if items and items[-1] == b"":
            target.receive_eof(self.now)
        for session in (source, target):
            for event in events(session):
                self.seen[session.role].append(event)
                self.react(session, event)
        return bool(items)

    def run(self) -> None:
        """Until both have nothing more to say."""
        while self.step(self.initiator, self.listener) | self.step(self.listener, self.initiator):
            pass

    def open(self) -> int:
        number = self.initiator.start_channel([ProfileOffer(URI)])
        self.run()
        return number

    def take(self, role: str) -> list[Event]:
        found, self.seen[role] = self.seen[role], []
        return found

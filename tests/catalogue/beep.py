"""BEEP octets that break a rule, and applications that are correct up to them (reliability.md section 2.11).

The correct beginning is that of the independent peer (`tests/interop/apex_peer.py`), so that nothing of ours attacks us.
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from tests.catalogue.harness import PASSWORD, PATIENCE, Target
from tests.catalogue.raw import RawStream
from tests.interop.apex_peer import Application, data_payload
from tests.interop.apex_peer_beep import BEEP_XML

Stage = Literal["greeted", "attached"]
START = BEEP_XML + b"<start number='1'><profile uri='http://iana.org/beep/FOO' /></start>"
TERMINATE = BEEP_XML + b"<terminate transID='13' />"
_NAMES = itertools.count(1)


@dataclass(frozen=True)
class Place:
    """Where in a session the bad octets come: a channel, the next message number and sequence number on it."""

    channel: int
    msgno: int
    seqno: int
    payload: bytes
    """One that this channel takes, and refuses in words."""

    def frame(
        self,
        keyword: str = "MSG",
        more: str = ".",
        payload: bytes | None = None,
        *,
        skip: int = 0,
        msgno: int | None = None,
        tail: str = "",
        end: bytes = b"END\r\n",
    ) -> bytes:
        """A frame that fits here, but for what is asked otherwise; `skip` octets were sent before it."""
        body = self.payload if payload is None else payload
        number = self.msgno if msgno is None else msgno
        header = f"{keyword} {self.channel} {number} {more} {self.seqno + skip} {len(body)}{tail}\r\n"
        return header.encode() + body + end

    def header(self, text: str) -> bytes:
        """A header of one's own: `{c}`, `{m}`, `{s}` and `{z}` stand for channel, message, sequence number and size."""
        filled = text.format(c=self.channel, m=self.msgno, s=self.seqno, z=len(self.payload))
        return filled.encode() + self.payload + b"END\r\n"


def written(text: str) -> Callable[[Place], bytes]:
    """A whole frame whose header is written by hand."""
    return lambda place: place.header(text)


#: Every rule of RFC 3080, section 2.2.1.1 and RFC 3081, section 3.1.3, broken on its own (C°: closed without a word).
POORLY_FORMED: list[tuple[str, Callable[[Place], bytes]]] = [
    ("P-01 keyword", written("XXX {c} {m} . {s} {z}\r\n")),
    ("P-01 empty line", lambda place: b"\r\n" + place.frame()),
    ("P-02 lower case", written("msg {c} {m} . {s} {z}\r\n")),
    ("P-02 two spaces", written("MSG  {c} {m} . {s} {z}\r\n")),
    ("P-02 space at the end", written("MSG {c} {m} . {s} {z} \r\n")),
    ("P-02 leading zero", written("MSG 0{c} {m} . {s} {z}\r\n")),
    ("P-02 leading zeros of the message", written("MSG {c} 00{m} . {s} {z}\r\n")),
    ("P-02 plus sign", written("MSG {c} +{m} . {s} {z}\r\n")),
    ("P-02 no CR", written("MSG {c} {m} . {s} {z}\n")),
    ("P-02 tab", written("MSG\t{c} {m} . {s} {z}\r\n")),
    ("P-02 six numbers", written("MSG {c} {m} . {s} {z} 0\r\n")),
    ("P-02 a number missing", written("MSG {c} {m} . {s}\r\n")),
    ("P-02 other indicator", written("MSG {c} {m} + {s} {z}\r\n")),
    ("P-02 other digits", written("MSG {c} \u0661 . {s} {z}\r\n")),
    ("P-02 header without end", lambda place: b"MSG " + b"1" * 4000),
    ("P-03 channel too large", written("MSG 2147483648 {m} . {s} {z}\r\n")),
    ("P-03 channel below zero", written("MSG -1 {m} . {s} {z}\r\n")),
    ("P-03 channel not open", written("MSG 7 {m} . 0 {z}\r\n")),
    ("P-03 message too large", written("MSG {c} 2147483648 . {s} {z}\r\n")),
    ("P-05 reply to nothing", lambda place: place.frame("RPY", msgno=99)),
    ("P-05 error to nothing", lambda place: place.frame("ERR", msgno=99)),
    ("P-05 answer to nothing", lambda place: place.frame("ANS", msgno=99, tail=" 0")),
    ("P-05 no answers to nothing", lambda place: place.frame("NUL", payload=b"", msgno=99)),
    (
        "P-06 keyword changes",
        lambda place: place.frame(more="*", payload=b"x") + place.frame("RPY", payload=b"y", skip=1),
    ),
    (
        "P-07 other message inside",
        lambda place: place.frame(more="*", payload=b"x") + place.frame(payload=b"y", skip=1, msgno=place.msgno + 1),
    ),
    ("P-08 one too many", lambda place: place.frame(skip=1)),
    ("P-08 one too few", lambda place: place.frame(skip=-1 if place.seqno else 2**32 - 1)),
    ("P-08 beyond", written("MSG {c} {m} . 4294967296 {z}\r\n")),
    ("P-09 huge", written("MSG {c} {m} . {s} 2147483647\r\n")),
    ("P-09 larger than any", written("MSG {c} {m} . {s} 2147483648\r\n")),
    ("P-09 beyond the window", lambda place: place.header("MSG {c} {m} . {s} 70000\r\n")),
    ("P-10 trailer", lambda place: place.frame(end=b"ENDX\r\n")),
    ("P-10 trailer without CR", lambda place: place.frame(end=b"END\n")),
    ("P-10 no trailer", lambda place: place.frame(end=b"MSG 0 9 . 9 0\r\n")),
    ("P-10 size too small", lambda place: place.frame().replace(b" %d\r\n" % len(place.payload), b" 3\r\n", 1)),
    ("P-11 NUL goes on", lambda place: place.frame("NUL", "*", b"")),
    ("P-11 NUL with content", lambda place: place.frame("NUL", payload=b"x")),
    ("SEQ for no channel", lambda place: b"SEQ 7 0 4096\r\n"),
    ("SEQ beyond what was sent", lambda place: b"SEQ 0 4000000 4096\r\n"),
    ("SEQ too large", lambda place: b"SEQ 0 0 2147483648\r\n"),
    ("SEQ below zero", lambda place: b"SEQ 0 -1 4096\r\n"),
    ("SEQ in words", lambda place: b"SEQ 0 0 all\r\n"),
    ("SEQ without an end", lambda place: b"SEQ 0 0 4096" + b" " * 300),
    ("P-14 HTTP", lambda place: b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"),
    ("P-14 TLS", lambda place: b"\x16\x03\x01\x00\xf4\x01\x00\x00\xf0\x03\x03" + bytes(200)),
]


class Raw(RawStream):
    """The octets below an application: `RawStream` over its connection, so that the fleet's tools work on it."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.sock = application.session.sock
        self.sock.settimeout(PATIENCE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.heard = b""

    def place(self) -> Place:
        """The next free place of the channel it stands on."""
        number = self.application.channel
        channel = self.application.session.channels[number]
        return Place(number, channel.next_msgno, channel.sent, TERMINATE if number else START)

    def data_frame(self, recipient: str, text: str) -> tuple[bytes, int]:
        """A good data element in a frame, and its message number; the next place is the one behind it."""
        channel = self.application.session.channels[self.application.channel]
        at = Place(channel.number, channel.next_msgno, channel.sent, b"")
        payload = text_payload(self.application.endpoint, recipient, text)
        channel.next_msgno += 1
        channel.sent += len(payload)
        return at.frame(payload=payload), at.msgno

    def close(self) -> None:
        """Hang up."""
        self.application.session.hang_up()


def connect(target: Target) -> Application:
    """An application that has greeted, from an address of its own."""
    return Application(*target.server.port("apex", "tcp"), source=target.address())


def attach(application: Application, user: str = "alice", endpoint: str = "") -> Application:
    """Sign in and attach, by default as a subaddress nobody else has."""
    application.sign_in(f"{user}@a.test", PASSWORD)
    application.attach(endpoint or f"{user}/raw{next(_NAMES)}@a.test")
    return application


@contextmanager
def raw(target: Target, stage: Stage) -> Iterator[Raw]:
    """A connection at that stage."""
    peer = Raw(connect(target))
    try:
        if stage == "attached":
            attach(peer.application)
        yield peer
    finally:
        peer.close()


def text_part(text: str) -> tuple[bytes, bytes]:
    """A plain text as the part of a data element."""
    return b"Content-Type: text/plain; charset=utf-8\r\n", text.encode()


def text_payload(originator: str, recipient: str, text: str, options: str = "", per_recipient: str = "") -> bytes:
    """Data with a plain text."""
    return data_payload(originator, [recipient], part=text_part(text), options=options, per_recipient=per_recipient)

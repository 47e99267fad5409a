"""A BEEP peer of our own making that shares nothing with Comity: RFC 3080 and 3081 read once more, by somebody else.

Written from the RFCs alone, importing nothing of `comity` (a test reads the imports), so that a misreading shared by both
ends of our own conversation shows here. Plain blocking sockets, no thread: whoever waits for something reads frames until
it has come (`pump`), and what arrives meanwhile waits in `requests`. Strict about what it is sent: a poorly formed frame
ends the session (`Broken`), and so does an octet beyond the window it opened.
"""

from __future__ import annotations

import base64
import re
import select
import socket
import ssl
import time
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

BEEP_XML = b"Content-Type: application/beep+xml\r\n\r\n"
TLS = "http://iana.org/beep/TLS"
SASL = "http://iana.org/beep/SASL/"
FIRST_WINDOW = 4096
SPACE = 2**32
_DATA = re.compile(rb"(MSG|RPY|ERR|ANS|NUL) (\d{1,10}) (\d{1,10}) ([.*]) (\d{1,10}) (\d{1,10})(?: (\d{1,10}))?\r\n\Z")
_SEQ = re.compile(rb"SEQ (\d{1,10}) (\d{1,10}) (\d{1,10})\r\n\Z")


class Broken(Exception):
    """The session is over: the other side hung up, or broke a rule of the RFC (then the text says which)."""


class Refused(Exception):
    """A negative reply: `code` and `text` of its error element."""

    def __init__(self, code: str, text: str = "") -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


@dataclass(frozen=True)
class Message:
    """One whole message as it came: `keyword` MSG, RPY, ERR, ANS or NUL."""

    keyword: str
    channel: int
    msgno: int
    payload: bytes
    ansno: int = 0


@dataclass
class Channel:
    """What one side must remember of a channel: numbers of octets and of messages, both ways."""

    number: int
    profile: str
    sent: int = 0
    acked: int = 0
    window: int = FIRST_WINDOW
    received: int = 0
    promised: int = FIRST_WINDOW
    next_msgno: int = 0
    asked: set[int] = field(default_factory=set)
    owed: deque[int] = field(default_factory=deque)
    parts: dict[tuple[str, int, int], bytearray] = field(default_factory=dict)
    unfinished: tuple[str, int] | None = None

    @property
    def room(self) -> int:
        """The octets we may still send (RFC 3081, section 3.1)."""
        return self.window - (self.sent - self.acked) % SPACE


def xml_of(payload: bytes) -> ET.Element:
    """The element of an application/beep+xml payload; RFC 3080, section 6.4 forbids a DOCTYPE and an XML declaration."""
    head, empty, body = payload.partition(b"\r\n\r\n")
    if payload.startswith(b"\r\n"):
        head, body = b"", payload[2:]
    elif not empty:
        raise Broken(f"no empty line after the entity headers: {payload[:80]!r}")
    if b"application/beep+xml" not in head.lower():
        raise Broken(f"not application/beep+xml: {head[:80]!r}")
    if b"<!DOCTYPE" in body or body.lstrip().startswith(b"<?xml"):
        raise Broken("a DOCTYPE or an XML declaration in application/beep+xml")
    try:
        return ET.fromstring(body)
    except ET.ParseError as problem:
        raise Broken(f"XML that is not well formed: {problem}: {body[:200]!r}") from None


def refusal(element: ET.Element) -> Refused:
    """The error element as an exception."""
    return Refused(element.get("code", ""), " ".join((element.text or "").split()))


class Session:
    """One BEEP session over one TCP connection, in either role."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        listening: bool,
        profiles: tuple[str, ...] = (),
        window: int = 65536,
        timeout: float = 10.0,
        on_start: Callable[[int, list[tuple[str, str]]], tuple[str, str]] | None = None,
        tls_context: ssl.SSLContext | None = None,
    ) -> None:
        self.sock = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.listening = listening
        self.profiles = profiles
        self.own_window = window
        self.timeout = timeout
        self.on_start = on_start
        self.tls_context = tls_context
        self.opens_windows = True
        self.requests: deque[Message] = deque()
        self.closed: set[int] = set()
        self.is_over = False
        self._buffer = bytearray()
        self._wake, self._waker = socket.socketpair()
        self._begin()

    def _begin(self) -> None:
        """The state of a session that has just been established: also after a tuning reset."""
        self.channels = {0: Channel(0, "", next_msgno=1)}
        self.answers: dict[tuple[int, int], list[Message]] = {}
        self.greeting: ET.Element | None = None
        self._next_channel = 2 if self.listening else 1

    # -- what a session does -----------------------------------------------------------------------------------------

    def greet(self, wait: bool = True) -> list[str]:
        """Send our greeting and (unless told not to) wait for theirs; the profiles it announces."""
        listed = "".join(f"<profile uri={quoteattr(uri)} />" for uri in self.profiles)
        self._put("RPY", 0, 0, BEEP_XML + (f"<greeting>{listed}</greeting>" if listed else "<greeting />").encode())
        if wait:
            self.pump(lambda: self.greeting is not None)
        return self.announced()

    def announced(self) -> list[str]:
        """The profiles of the other side's greeting."""
        return [] if self.greeting is None else [one.get("uri", "") for one in self.greeting.findall("profile")]

    def start(self, offers: list[tuple[str, str]], server_name: str = "") -> tuple[int, str, str]:
        """Start a channel with the first acceptable of the offers: its number, the profile chosen and its content."""
        number, self._next_channel = self._next_channel, self._next_channel + 2
        name = f" serverName={quoteattr(server_name)}" if server_name else ""
        body = "".join(
            f"<profile uri={quoteattr(uri)}>{'<![CDATA[' + content + ']]>' if content else ''}</profile>"
            for uri, content in offers
        )
        element = self.ask(0, BEEP_XML + f"<start number='{number}'{name}>{body}</start>".encode())
        uri, content = element.get("uri", ""), element.text or ""
        if element.tag != "profile" or uri not in [offered for offered, _ in offers]:
            raise Broken(f"start answered by {ET.tostring(element)!r}")
        if element.get("encoding") == "base64":
            content = base64.b64decode(content, validate=True).decode()
        self.channels[number] = Channel(number, uri)
        return number, uri, content.strip()

    def close_channel(self, number: int = 0, code: str = "200") -> None:
        """Close a channel, or with 0 release the session and the connection; `Refused` if the other side declines."""
        self.ask(0, BEEP_XML + f"<close number='{number}' code='{code}' />".encode())
        self.channels.pop(number, None)
        if number == 0:
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection."""
        self.is_over = True
        self.sock.close()
        self._wake.close()
        self._waker.close()

    def wake(self) -> None:
        """From another thread: make a waiting `pump` look at its condition again."""
        self._waker.send(b"!")

    def start_tls(self, context: ssl.SSLContext, host: str) -> list[str]:
        """The TLS profile as the side that asks: ready, proceed, handshake, greetings again."""
        _, _, content = self.start([(TLS, "<ready />")])
        answer = ET.fromstring(content)
        if answer.tag != "proceed":
            raise refusal(answer)
        if self._buffer:
            raise Broken(f"octets behind <proceed>: {bytes(self._buffer[:40])!r}")
        self.sock = context.wrap_socket(self.sock, server_hostname=host)
        self._begin()
        return self.greet()

    # -- exchanges ---------------------------------------------------------------------------------------------------

    def send(self, channel: int, payload: bytes, frame: int = 0) -> int:
        """Send one MSG, in frames no larger than `frame` if given; its message number."""
        state = self.channels[channel]
        msgno, state.next_msgno = state.next_msgno, (state.next_msgno + 1) % 2**31
        state.asked.add(msgno)
        self._put("MSG", channel, msgno, payload, frame=frame)
        return msgno

    def reply(self, request: Message, payload: bytes, keyword: str = "RPY") -> None:
        """Answer a MSG; the answers of a channel must leave in the order of its requests (section 2.6.1)."""
        owed = self.channels[request.channel].owed
        if not owed or owed[0] != request.msgno:
            raise AssertionError(f"the peer itself answers out of order: {request.msgno}, owed {list(owed)}")
        owed.popleft()
        self._put(keyword, request.channel, request.msgno, payload)

    def answered(self, channel: int, msgno: int) -> list[Message]:
        """The whole reply to a MSG of ours: one RPY or ERR, or ANS … NUL."""
        key = (channel, msgno)
        self.pump(lambda: key in self.answers and self.answers[key][-1].keyword != "ANS")
        return self.answers.pop(key)

    def ask(self, channel: int, payload: bytes) -> ET.Element:
        """One exchange whose reply is an element: the element, or `Refused`."""
        reply = self.answered(channel, self.send(channel, payload))[-1]
        element = xml_of(reply.payload)
        if (reply.keyword == "ERR") != (element.tag == "error"):
            raise Broken(f"{reply.keyword} carries <{element.tag}>")
        if reply.keyword == "ERR":
            raise refusal(element)
        return element

    def next_request(self, timeout: float | None = None) -> Message:
        """The next MSG of the other side on a channel that is not 0."""
        self.pump(lambda: bool(self.requests), timeout)
        return self.requests.popleft()

    # -- frames out --------------------------------------------------------------------------------------------------

    def _put(
        self, keyword: str, number: int, msgno: int, payload: bytes, frame: int = 0, ansno: int | None = None
    ) -> None:
        """Send a message in as many frames as the window (and `frame`) ask for."""
        channel = self.channels[number]
        position = 0
        while True:
            rest = len(payload) - position
            if rest and channel.room <= 0:
                self.pump(lambda: channel.room > 0)
            size = max(0, min(rest, channel.room, frame or rest))
            more = "*" if position + size < len(payload) else "."
            tail = "" if ansno is None else f" {ansno}"
            header = f"{keyword} {number} {msgno} {more} {channel.sent} {size}{tail}\r\n".encode()
            self._write(header + payload[position : position + size] + b"END\r\n")
            channel.sent = (channel.sent + size) % SPACE
            position += size
            if more == ".":
                return

    def _write(self, octets: bytes) -> None:
        try:
            self.sock.settimeout(self.timeout)
            self.sock.sendall(octets)
        except (OSError, ValueError) as problem:
            raise Broken(f"cannot write: {problem}") from None

    def widen(self, number: int, window: int) -> None:
        """Promise `window` octets from here on (a SEQ frame)."""
        channel = self.channels[number]
        channel.promised = window
        self._write(f"SEQ {number} {channel.received} {window}\r\n".encode())

    # -- frames in ---------------------------------------------------------------------------------------------------

    def pump(self, done: Callable[[], bool], timeout: float | None = None) -> None:
        """Read frames until `done`; `TimeoutError` when it does not come about."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not done():
            if self._one_frame():
                continue
            self._read(deadline)

    def _read(self, deadline: float) -> None:
        if self.is_over:
            raise Broken("the session is over")
        pending = isinstance(self.sock, ssl.SSLSocket) and self.sock.pending()
        if not pending:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.sock, self._wake], [], [], max(0.0, left))
            if not ready:
                raise TimeoutError("nothing came in time")
            if self._wake in ready:
                self._wake.recv(4096)
            if self.sock not in ready:
                return
        try:
            octets = self.sock.recv(65536)
        except OSError as problem:
            raise Broken(f"cannot read: {problem}") from None
        if not octets:
            self.is_over = True
            raise Broken("the other side closed the connection")
        self._buffer += octets

    def _one_frame(self) -> bool:
        """Take one whole frame from the buffer, if there is one."""
        end = self._buffer.find(b"\n")
        if end < 0:
            return False
        line = bytes(self._buffer[: end + 1])
        if sequence := _SEQ.match(line):
            del self._buffer[: end + 1]
            self._sequence(*map(int, sequence.groups()))
            return True
        header = _DATA.match(line)
        if header is None or (header[1] == b"ANS") != (header[7] is not None):
            raise Broken(f"no frame header: {line[:80]!r}")
        size = int(header[6])
        if len(self._buffer) < end + 1 + size + 5:
            return False
        payload = bytes(self._buffer[end + 1 : end + 1 + size])
        if self._buffer[end + 1 + size : end + 6 + size] != b"END\r\n":
            raise Broken(f"no trailer after {line!r}")
        del self._buffer[: end + 6 + size]
        self._frame(header, payload)
        return True

    def _sequence(self, number: int, acked: int, window: int) -> None:
        channel = self.channels.get(number)
        if channel is None:
            if number in self.closed:
                return
            raise Broken(f"SEQ for channel {number}, which is not open")
        if (channel.sent - acked) % SPACE > (channel.sent - channel.acked) % SPACE:
            raise Broken(f"SEQ acknowledges {acked}; between {channel.acked} and {channel.sent} it must be")
        if (acked + window - channel.acked - channel.window) % SPACE >= SPACE // 2:
            raise Broken("SEQ shrinks the window")
        channel.acked, channel.window = acked, window

    def _frame(self, header: re.Match[bytes], payload: bytes) -> None:
        keyword, more, ansno = header[1].decode(), header[4] == b"*", int(header[7] or 0)
        number, msgno, seqno = int(header[2]), int(header[3]), int(header[5])
        channel = self.channels.get(number)
        if channel is None:
            raise Broken(f"a frame on channel {number}, which is not open")
        if seqno != channel.received:
            raise Broken(f"sequence number {seqno}, expected {channel.received}")
        if len(payload) > channel.promised:
            raise Broken(f"{len(payload)} octets where {channel.promised} were allowed")
        if keyword == "NUL" and (more or payload):
            raise Broken("a NUL frame with content")
        if channel.unfinished and channel.unfinished != (keyword, msgno) and keyword != "ANS":
            raise Broken(f"{keyword} {msgno} inside {channel.unfinished}")
        is_greeting = number == 0 and msgno == 0 and self.greeting is None and keyword in ("RPY", "ERR")
        if keyword != "MSG" and msgno not in channel.asked and not is_greeting:
            raise Broken(f"{keyword} {msgno} answers nothing that was asked")
        if keyword == "MSG" and msgno in channel.owed:
            raise Broken(f"MSG {msgno} again, while its reply is owed")
        channel.received = (channel.received + len(payload)) % SPACE
        channel.promised -= len(payload)
        if self.opens_windows and payload and channel.promised <= self.own_window // 2:
            self.widen(number, self.own_window)
        whole = channel.parts.setdefault((keyword, msgno, ansno), bytearray())
        whole += payload
        channel.unfinished = (keyword, msgno) if more and keyword != "ANS" else None
        if not more:
            del channel.parts[keyword, msgno, ansno]
            self._message(channel, Message(keyword, number, msgno, bytes(whole), ansno))

    def _message(self, channel: Channel, message: Message) -> None:
        if message.keyword == "MSG":
            channel.owed.append(message.msgno)
            if message.channel == 0:
                self._managed(message)
            else:
                self.requests.append(message)
            return
        if message.keyword != "ANS":
            channel.asked.discard(message.msgno)
        if message.channel == 0 and message.msgno == 0 and self.greeting is None:
            element = xml_of(message.payload)
            if message.keyword == "ERR":
                raise refusal(element)
            if element.tag != "greeting":
                raise Broken(f"greeted with <{element.tag}>")
            self.greeting = element
            return
        self.answers.setdefault((message.channel, message.msgno), []).append(message)

    # -- channel 0 as the side that is asked -------------------------------------------------------------------------

    def _managed(self, message: Message) -> None:
        element = xml_of(message.payload)
        try:
            if element.tag == "start":
                return self._wanted(message, element)
            if element.tag != "close":
                raise Refused("501", f"{element.tag} is neither start nor close")
            number = int(element.get("number", "0"))
            if number not in self.channels:
                raise Refused("550", f"channel {number} is not open")
        except Refused as refused:
            self.reply(message, error_of(refused), "ERR")
            return
        self.reply(message, BEEP_XML + b"<ok />")
        if number == 0:
            self.hang_up()
        else:
            del self.channels[number]
            self.closed.add(number)

    def _wanted(self, message: Message, element: ET.Element) -> None:
        number = int(element.get("number", "0"))
        if number in self.channels or number % 2 != (1 if self.listening else 0) or number == 0:
            raise Refused("501", "that channel number is not yours to give")
        offers = [(one.get("uri", ""), (one.text or "").strip()) for one in element.findall("profile")]
        if self.tls_context and any(uri == TLS for uri, _ in offers):
            return self._proceed(message)
        if self.on_start is None:
            raise Refused("550", "all requested profiles are unsupported")
        uri, content = self.on_start(number, offers)
        self.channels[number] = Channel(number, uri)
        wrapped = f"<![CDATA[{content}]]>" if content else ""
        self.reply(message, BEEP_XML + f"<profile uri={quoteattr(uri)}>{wrapped}</profile>".encode())

    def _proceed(self, message: Message) -> None:
        """The TLS profile as the side that is asked: nothing may stand behind the request (section 3.1.3.1)."""
        if self._buffer:
            raise Broken("octets behind <ready>")
        self.reply(message, BEEP_XML + f"<profile uri='{TLS}'><![CDATA[<proceed />]]></profile>".encode())
        assert self.tls_context is not None
        self.sock.settimeout(self.timeout)
        self.sock = self.tls_context.wrap_socket(self.sock, server_side=True)
        self.tls_context = None
        self.profiles = tuple(uri for uri in self.profiles if uri != TLS)
        self._begin()
        self.greet(wait=False)


def error_of(refused: Refused) -> bytes:
    """A negative reply's payload."""
    return BEEP_XML + f"<error code='{refused.code}'>{escape(refused.text)}</error>".encode()

"""Octets to SIP messages (RFC 3261 section 7, 18.3, 25.1), whole or from a stream.

Place on the path: step 2. A reader takes octets and gives ``SipRequest``, ``SipResponse`` (``message.py``), ``Ping``
(the double CRLF of RFC 5626 section 3.5.1) or ``Malformed``: what broke the rules, with the status code to answer as
``error.hint`` and whatever could be read for the answer. Nothing else ever comes out, whatever the octets, and the
units do not depend on how the octets were split.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from comity.bindings.sip.headers import MAX_IDENTIFIER, TOKEN, malformed
from comity.bindings.sip.message import (
    NAMES,
    SINGLE,
    Headers,
    SipMessage,
    SipRequest,
    SipResponse,
    has_stray_control,
    long_name,
)
from comity.bindings.sip.uri import MAX_URI, SipUri
from comity.errors import RemoteProtocolError

_LONG_HEADERS = frozenset({"authorization", "proxy-authorization", "identity"})
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_BARE = re.compile(rb"[^\r]\n|\r[^\n]")
_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is read (reliability.md section 6.2)."""

    head: int = 8 * 1024
    """Start line and headers, octets."""
    body: int = 48 * 1024
    datagram: int = 16 * 1024
    header: int = 2 * 1024
    """One header line."""
    long_header: int = 4 * 1024
    """Authorization, Identity."""
    count: int = 64
    """Header lines."""
    vias: int = 40
    """The list says 20; RFC 4475 section 3.1.1.7 (longreq, 34 of them) has to be read."""
    routes: int = 10
    uri: int = MAX_URI
    """The Request-URI; longer is answered 414."""
    method: int = 64
    """The list says 32; RFC 4475 section 3.1.1.2 (intmeth, 43) has to be answered 501."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Ping:
    """Two CRLFs between messages (RFC 5626 section 4.4.1)."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """Octets that break the grammar or a limit."""

    error: RemoteProtocolError
    partial: SipRequest | SipResponse | None
    """What could be read; its typed accessors may raise."""
    is_framed: bool
    """False: the end of the message is not known, a stream must close."""


Unit = SipRequest | SipResponse | Ping | Malformed


def parse_head(head: bytes, limits: Limits) -> tuple[SipRequest | SipResponse | None, RemoteProtocolError | None]:
    """Parse start line and headers (``head`` ends before the empty line), going on after the first error."""
    if head.count(b"\r\n") != head.count(b"\n") or head.count(b"\n") != head.count(b"\r"):
        match = _BARE.search(head)
        offset = len(head) if match is None else match.start() + 1
        partial, _ = parse_head(head[: max(head.rfind(b"\r\n", 0, offset), 0)], limits)
        return partial, RemoteProtocolError("a line does not end with CR LF", offset=offset, hint="400")
    text = head.decode("utf-8", "surrogateescape")
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
    lines = text.split("\r\n")
    error: RemoteProtocolError | None = None
    if len(lines) - 1 > limits.count:
        error = malformed(f"more than {limits.count} headers")
        del lines[limits.count + 1 :]
    headers: list[tuple[str, str]] = []
    index: dict[str, list[str]] = {}
    for line in lines[1:]:
        written, colon, value = line.partition(":")
        name = NAMES.get(written)
        if name is None:
            written = written.rstrip(" \t")
            if not colon or not TOKEN.fullmatch(written):
                error = error or malformed("a header line has no name or no colon")
                continue
            name = long_name(written)
        if len(value) > limits.header and len(value) > (limits.long_header if name in _LONG_HEADERS else 0):
            error = error or malformed(f"the header {name[:32]} is longer than {limits.header} octets")
            continue
        value = value.strip(" \t")
        headers.append((written, value))
        if name in index:
            index[name].append(value)
        else:
            index[name] = [value]
    if error is None and has_stray_control(text):
        error = malformed("control characters outside a quoted pair")
    message, start_error = _parse_start_line(lines[0], headers, limits)
    if message is not None:
        message._index = index
    return message, start_error or error


def _parse_start_line(
    line: str, headers: Headers, limits: Limits
) -> tuple[SipRequest | SipResponse | None, RemoteProtocolError | None]:
    if line[:4].upper() == "SIP/":
        match = _STATUS_LINE.fullmatch(line)
        if match is None:
            # Nobody answers a response; what is known of it serves to find its end on a stream.
            return SipResponse(0, "", headers), malformed("the status line breaks the grammar")
        return SipResponse(int(match[1]), match[2] or "", headers), None
    parts = line.split(" ")
    method = parts[0]
    if not TOKEN.fullmatch(method) or len(parts) < 2:
        return None, malformed("not a SIP start line")
    partial = SipRequest(method, parts[1], headers)
    if len(parts) != 3 or not _VERSION.fullmatch(parts[2]):
        return partial, malformed("the request line breaks the grammar")
    if parts[2].upper() != "SIP/2.0":
        return partial, RemoteProtocolError("the SIP version is not supported", hint="505")
    if len(method) > limits.method:
        return partial, malformed("the method is too long")
    if len(parts[1]) > limits.uri:
        return partial, RemoteProtocolError("the Request-URI is too long", hint="414")
    return partial, None


def check_message(message: SipRequest | SipResponse, limits: Limits = DEFAULT_LIMITS) -> None:
    """Raise RemoteProtocolError unless everything a transaction needs is there, once, and in good form."""
    for name in SINGLE:
        if len(message.values(name)) > 1:
            raise malformed(f"{name} stands more than once")
    message.via  # noqa: B018 - the accessor parses, and caches what it parsed
    message.from_  # noqa: B018 - as above
    message.to  # noqa: B018 - as above
    message.call_id  # noqa: B018 - as above
    if len(message.vias) > limits.vias:
        raise malformed(f"more than {limits.vias} Via values")
    if len(message.via.branch) > MAX_IDENTIFIER:
        raise malformed(f"the branch is longer than {MAX_IDENTIFIER} characters")
    if message.via.has_cookie and len(message.via.branch) == 7:
        raise malformed("the branch is empty behind its cookie")  # RFC 4475 section 3.2
    cseq = message.cseq
    if isinstance(message, SipRequest):
        if cseq.method != message.method:
            raise malformed("CSeq names another method")
        message.max_forwards  # noqa: B018 - as above
        message.expires  # noqa: B018 - as above
        uri = message.uri
        if isinstance(uri, SipUri) and uri.headers:
            raise malformed("a Request-URI may not hold headers")
        if len(message.listed("route")) > limits.routes:
            raise malformed(f"more than {limits.routes} Route values")


def _content_length(message: SipMessage, most: int) -> int | None:
    """Content-Length, None if absent; raises RemoteProtocolError (hint 400 or 413)."""
    found = message.values("content-length")
    if not found:
        return None
    if len(found) > 1:
        raise malformed("content-length stands more than once")
    value = found[0]
    if not (value.isascii() and value.isdigit()) or len(value) > 10:
        raise malformed("Content-Length is not a number")
    if int(value) > most:
        raise RemoteProtocolError("the body is too large", hint="413")
    return int(value)


def parse_datagram(data: bytes, limits: Limits = DEFAULT_LIMITS) -> Unit | None:
    """Parse one datagram (RFC 3261 section 18.3); None for an empty one or a keepalive without content."""
    start = 0
    while data.startswith(b"\r\n", start):
        start += 2
    if len(data.strip(b"\r\n\x00 ")) == 0:
        return Ping() if start >= 4 and start == len(data) else None
    end = data.find(b"\r\n\r\n", start)
    head = data[start:end] if end >= 0 else data[start : start + limits.head].removesuffix(b"\r\n")
    if (end if end >= 0 else len(data)) - start > limits.head or len(data) > limits.datagram:
        message, _ = parse_head(head[: limits.head], limits)
        return Malformed(RemoteProtocolError("the message is too large", hint="513"), message, True)
    message, error = parse_head(head, limits)
    if end < 0:
        error = error or malformed("no empty line ends the headers")
    if message is None or error is not None:
        return Malformed(error or malformed("not SIP"), message, True)
    try:
        length = _content_length(message, limits.datagram)
        body = data[end + 4 :]
        if length is not None:
            if length > len(body):
                raise malformed("the datagram ends before its Content-Length")
            body = body[:length]
        message.body = body
        check_message(message, limits)
    except RemoteProtocolError as problem:
        return Malformed(problem, message, True)
    return message


class StreamReader:
    """Cuts a byte stream into units; ``feed`` octets, then take ``next_unit`` until it gives None."""

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._scanned = 0
        self._message: SipRequest | SipResponse | None = None
        self._error: RemoteProtocolError | None = None
        self._length = 0
        self._is_half_ping = False
        self.has_failed = False
        """True once framing is lost; nothing more is read."""

    @property
    def is_partial(self) -> bool:
        """True while a message has begun and not ended."""
        return not self.has_failed and (self._message is not None or bool(self._buffer))

    def feed(self, data: bytes) -> None:
        if not self.has_failed:
            self._buffer += data

    def next_unit(self) -> Unit | None:
        """The next complete unit, or None if more octets are needed."""
        while not self.has_failed:
            if self._message is not None:
                return self._take_body(self._message)
            if self._buffer[:1] == b"\r" or self._buffer[:1] == b"\n":
                if self._buffer == b"\r":
                    return None
                if self._buffer[:2] != b"\r\n":
                    return self._fail(malformed("a line does not end with CR LF"), None)
                del self._buffer[:2]
                self._is_half_ping = not self._is_half_ping
                if not self._is_half_ping:
                    return Ping()
                continue
            if not self._buffer:
                return None
            self._is_half_ping = False
            unit = self._take_head()
            if unit is not None or self._message is None:
                return unit
        return None

    def _take_head(self) -> Malformed | None:
        buffer, limits = self._buffer, self._limits
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3), limits.head + 4)
        # One octet further than the head: a CR before its last CR LF is a bare one.
        until = end + 1 if end >= 0 else min(len(buffer), limits.head)
        bare = _BARE.search(buffer, max(0, self._scanned - 1), until)
        if bare is not None:
            partial, error = parse_head(bytes(buffer[: bare.end()]), limits)
            return self._fail(error or malformed("a line does not end with CR LF"), partial)
        if end < 0:
            if len(buffer) >= limits.head + 4:
                cut = max(buffer.rfind(b"\r\n", 0, limits.head), 0)
                partial, _ = parse_head(bytes(buffer[:cut]), limits)
                return self._fail(RemoteProtocolError("the headers are too large", hint="513"), partial)
            self._scanned = min(len(buffer), limits.head)
            return None
        message, error = parse_head(bytes(buffer[:end]), limits)
        self._scanned = 0
        if message is None:
            return self._fail(error or malformed("not SIP"), None)
        try:
            length = _content_length(message, limits.body)
            if length is None:
                raise malformed("Content-Length is missing on a stream")
        except RemoteProtocolError as problem:
            return self._fail(problem, message)
        del buffer[: end + 4]
        self._message, self._error, self._length = message, error, length
        return None

    def _take_body(self, message: SipRequest | SipResponse) -> Unit | None:
        if len(self._buffer) < self._length:
            return None
        message.body = bytes(self._buffer[: self._length])
        del self._buffer[: self._length]
        error, self._message, self._error = self._error, None, None
        try:
            if error is None:
                check_message(message, self._limits)
        except RemoteProtocolError as problem:
            error = problem
        return message if error is None else Malformed(error, message, True)

    def _fail(self, error: RemoteProtocolError, partial: SipRequest | SipResponse | None) -> Malformed:
        self.has_failed = True
        self._buffer.clear()
        self._message = None
        return Malformed(error, partial, False)

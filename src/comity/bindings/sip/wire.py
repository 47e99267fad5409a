"""Octets to SIP messages and back (RFC 3261 section 7, 18.3, 25.1).

Place on the path: step 2 (and 9). A reader takes octets and gives ``SipRequest``, ``SipResponse``, ``Ping`` (the
double CRLF of RFC 5626 section 3.5.1) or ``Malformed``: what broke the rules, with the status code to answer as
``error.hint`` and whatever could be read for the answer. Nothing else ever comes out, whatever the octets, and the
units do not depend on how the octets were split. Header values stay text as written (unfolded; octets that are not
UTF-8 survive by surrogateescape); typed values are parsed when first asked for. Bodies are never looked into.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from comity.bindings.sip.headers import (
    MAX_IDENTIFIER,
    TOKEN,
    AuthParams,
    CSeq,
    NameAddr,
    Via,
    malformed,
    parse_number,
    split_commas,
)
from comity.bindings.sip.uri import MAX_URI, SipUri, Uri, parse_uri
from comity.errors import LocalProtocolError, RemoteProtocolError

#: Compact forms (RFC 3261 section 7.3.3, 20; RFC 6665 section 8.2; RFC 4474).
COMPACT = {
    "i": "call-id",
    "m": "contact",
    "e": "content-encoding",
    "l": "content-length",
    "c": "content-type",
    "f": "from",
    "s": "subject",
    "k": "supported",
    "t": "to",
    "v": "via",
    "o": "event",
    "u": "allow-events",
    "r": "refer-to",
    "b": "referred-by",
    "y": "identity",
}
#: Headers that may stand once (RFC 3261 section 7.3.1; S-08).
SINGLE = (
    "from",
    "to",
    "call-id",
    "cseq",
    "max-forwards",
    "content-length",
    "content-type",
    "expires",
    "date",
    "subject",
    "mime-version",
    "content-transfer-encoding",
    "content-disposition",
)
_LONG_HEADERS = frozenset({"authorization", "proxy-authorization", "identity"})

_NAMES: dict[str, str] = {}
"""Lower-case long name by name as written; holds known spellings only, so that a peer cannot make it grow."""
for _long in (
    *SINGLE,
    *COMPACT.values(),
    "contact",
    "route",
    "user-agent",
    "accept",
    "allow",
    "authorization",
    "require",
):
    for _spelling in (_long, _long.title(), _long.upper()):
        _NAMES[_spelling] = _long
_NAMES |= {"Call-ID": "call-id", "CSeq": "cseq", "MIME-Version": "mime-version"}
_NAMES |= COMPACT | {key.upper(): value for key, value in COMPACT.items()}

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FOLD = re.compile(r"[ \t]*\r\n[ \t]+")
_BARE = re.compile(rb"[^\r]\n|\r[^\n]")
_VERSION = re.compile(r"SIP/[0-9]+\.[0-9]+", re.IGNORECASE)
_STATUS_LINE = re.compile(r"SIP/2\.0 ([1-6][0-9][0-9])(?: (.*))?", re.IGNORECASE)
_CALL_ID = re.compile(r"[!-~]+")

Headers = Sequence[tuple[str, str]]


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
    method: int = 64
    """The list says 32; RFC 4475 section 3.1.1.2 (intmeth, 43) has to be answered 501."""


DEFAULT_LIMITS = Limits()


class SipMessage:
    """What requests and responses share: headers in order and a body."""

    def __init__(self, headers: Headers, body: bytes = b"") -> None:
        self.headers = headers
        """(name as written, value) in order of appearance."""
        self.body = body
        self._index: dict[str, list[str]] | None = None

    @property
    def start_line(self) -> str:
        raise NotImplementedError

    def values(self, name: str) -> list[str]:
        """Values of every header ``name`` (lower case, long form), as written; commas not split."""
        index = self._index
        if index is None:
            index = self._index = {}
            for written, value in self.headers:
                index.setdefault(long_name(written), []).append(value)
        return index.get(name, [])

    def value(self, name: str) -> str | None:
        """The first header ``name`` (lower case, long form), or None."""
        found = self.values(name)
        return found[0] if found else None

    def listed(self, name: str) -> list[str]:
        """Elements of a comma-separated header over all its lines, empty ones left out."""
        return [part for value in self.values(name) for part in split_commas(value) if part]

    def _required(self, name: str) -> str:
        found = self.values(name)
        if len(found) != 1:
            raise malformed(f"{name} is missing" if not found else f"{name} stands more than once")
        return found[0]

    @cached_property
    def vias(self) -> list[str]:
        """Via values, top one first, unparsed."""
        return [part for value in self.values("via") for part in split_commas(value)]

    @cached_property
    def via(self) -> Via:
        """The top Via."""
        if not self.vias:
            raise malformed("via is missing")
        return Via.parse(self.vias[0])

    @cached_property
    def from_(self) -> NameAddr:
        return NameAddr.parse(self._required("from"), "From")

    @cached_property
    def to(self) -> NameAddr:
        return NameAddr.parse(self._required("to"), "To")

    @cached_property
    def call_id(self) -> str:
        value = self._required("call-id")
        if not _CALL_ID.fullmatch(value) or len(value) > MAX_IDENTIFIER:
            raise malformed("Call-ID breaks the grammar or is too long")
        return value

    @cached_property
    def cseq(self) -> CSeq:
        return CSeq.parse(self._required("cseq"))

    @cached_property
    def max_forwards(self) -> int | None:
        """Max-Forwards 0 … 255, None if absent."""
        value = self.value("max-forwards")
        return None if value is None else parse_number(value, "Max-Forwards", 255)

    @cached_property
    def expires(self) -> int | None:
        """Expires in seconds, up to 2**32 - 1; None if absent."""
        value = self.value("expires")
        return None if value is None else parse_number(value, "Expires", 2**32 - 1)

    @cached_property
    def content_type(self) -> str:
        return self.value("content-type") or ""

    @cached_property
    def contacts(self) -> list[NameAddr]:
        """Contact values; ``*`` is not among them (see ``is_star``)."""
        return [NameAddr.parse(part, "Contact") for part in self.listed("contact") if part != "*"]

    @property
    def is_star(self) -> bool:
        """True if a Contact is ``*`` (RFC 3261 section 10.2.2)."""
        return "*" in self.listed("contact")

    @cached_property
    def routes(self) -> list[NameAddr]:
        return [NameAddr.parse(part, "Route") for part in self.listed("route")]

    def credentials(self, name: str = "authorization") -> list[AuthParams]:
        """Digest and other credentials or challenges, one per header line."""
        return [AuthParams.parse(value) for value in self.values(name)]

    def to_bytes(self) -> bytes:
        """Serialize with a Content-Length of our own; raises LocalProtocolError for control characters."""
        lines = [self.start_line]
        lines += [f"{name}: {value}" for name, value in self.headers if long_name(name) != "content-length"]
        lines.append(f"Content-Length: {len(self.body)}\r\n\r\n")
        text = "\r\n".join(lines)
        breaks = len(lines) + 1
        if text.count("\n") != breaks or text.count("\r") != breaks or has_stray_control(text):
            raise LocalProtocolError("a SIP header may not hold control characters")
        try:
            return text.encode("utf-8", "surrogateescape") + self.body
        except UnicodeEncodeError as error:
            raise LocalProtocolError("a SIP header holds text that UTF-8 cannot carry") from error


class SipRequest(SipMessage):
    """A request, received or to be sent."""

    def __init__(self, method: str, uri: str, headers: Headers, body: bytes = b"", version: str = "SIP/2.0") -> None:
        super().__init__(headers, body)
        self.method = method
        self.uri_text = uri
        self.version = version

    @property
    def start_line(self) -> str:
        return f"{self.method} {self.uri_text} {self.version}"

    @cached_property
    def uri(self) -> Uri:
        return parse_uri(self.uri_text)

    def __repr__(self) -> str:
        return f"<SipRequest {self.method} {self.uri_text}>"


class SipResponse(SipMessage):
    """A response, received or to be sent."""

    def __init__(self, status_code: int, reason: str, headers: Headers, body: bytes = b"") -> None:
        super().__init__(headers, body)
        self.status_code = status_code
        self.reason = reason

    @property
    def start_line(self) -> str:
        return f"SIP/2.0 {self.status_code} {self.reason}"

    def __repr__(self) -> str:
        return f"<SipResponse {self.status_code} {self.reason}>"


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


def long_name(written: str) -> str:
    """Lower-case long form of a header name."""
    name = _NAMES.get(written)
    if name is None:
        name = written.lower()
        name = COMPACT.get(name, name)
    return name


def has_stray_control(text: str) -> bool:
    """True if a control character stands anywhere but behind a backslash (quoted-pair, RFC 3261 section 25.1)."""
    match = _CONTROL.search(text)
    while match is not None:
        if match.start() == 0 or text[match.start() - 1] != "\\":
            return True
        match = _CONTROL.search(text, match.end())
    return False


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
        name = _NAMES.get(written)
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
            return None, malformed("the status line breaks the grammar")
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
    if len(parts[1]) > MAX_URI:
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
        bare = _BARE.search(buffer, max(0, self._scanned - 1), end if end >= 0 else min(len(buffer), limits.head))
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

"""A SIP message as a value: start line, headers in order, body; and back to octets (RFC 3261 section 7, 20).

Place on the path: inside steps 2 and 9; ``wire.py`` makes these from octets. Header values stay text as written
(unfolded; octets that are not UTF-8 survive by surrogateescape); typed values are parsed when first asked for, and
their accessors raise RemoteProtocolError (hint 400). Bodies are never looked into.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

from comity.bindings.sip.headers import (
    MAX_IDENTIFIER,
    AuthParams,
    CSeq,
    NameAddr,
    Via,
    malformed,
    parse_number,
    split_commas,
)
from comity.bindings.sip.uri import Uri, parse_uri
from comity.errors import LocalProtocolError

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

NAMES: dict[str, str] = {}
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
        NAMES[_spelling] = _long
NAMES |= {"Call-ID": "call-id", "CSeq": "cseq", "MIME-Version": "mime-version"}
NAMES |= COMPACT | {key.upper(): value for key, value in COMPACT.items()}

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CALL_ID = re.compile(r"[!-~]+")

Headers = Sequence[tuple[str, str]]


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


def long_name(written: str) -> str:
    """Lower-case long form of a header name."""
    name = NAMES.get(written)
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

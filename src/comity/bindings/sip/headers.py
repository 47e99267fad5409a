"""Typed values of the headers Comity acts upon: small, frozen, each with parse and serialize.

Place on the path: step 2; ``wire.py`` hands out these values lazily, step 9 writes them. Header octets are never
forwarded: what goes out is written from these values (conformance.md T5). Every parser raises RemoteProtocolError
with hint 400 for what RFC 3261 section 25.1 does not allow, in time linear in the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from comity.bindings.sip.uri import Params, Uri, check_ipv6, parse_uri
from comity.errors import RemoteProtocolError

#: Tags, branches and Call-IDs (S-41).
MAX_IDENTIFIER = 256
MAGIC_COOKIE = "z9hG4bK"

_WORD = r"[A-Za-z0-9\-.!%*_+`'~]+"
_QUOTED = r'"(?:[^"\\\r\n]|\\[\x00-\x09\x0b\x0c\x0e-\x7f])*"'
TOKEN = re.compile(_WORD)
_PARAM = re.compile(rf'[ \t]*;[ \t]*({_WORD})(?:[ \t]*=[ \t]*({_QUOTED}|[^\s;,"<>=?@]+))?')
_VIA = re.compile(
    rf"({_WORD})[ \t]*/[ \t]*({_WORD})[ \t]*/[ \t]*({_WORD})[ \t]+"
    r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9.])?)(?:[ \t]*:[ \t]*([0-9]{1,5}))?"
)
_BRANCH = re.compile(rf";[ \t]*branch[ \t]*=[ \t]*({_WORD})", re.IGNORECASE)
_DISPLAY_AND_URI = re.compile(rf"({_QUOTED}|{_WORD}(?:[ \t]+{_WORD})*)?[ \t]*<([^<>\s\"]+)>")
_BARE_URI = re.compile(r"[^;<>\s\",?]+")
_CSEQ = re.compile(rf"([0-9]{{1,20}})[ \t]+({_WORD})")
_AUTH_PARAM = re.compile(rf"[ \t]*({_WORD})[ \t]*=[ \t]*({_QUOTED}|[^\s,\"]+)[ \t]*(?:,|$)")
_QVALUE = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")
_NOT_TEXT = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]+")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)


def malformed(what: str) -> RemoteProtocolError:
    """The error every header parser raises."""
    return RemoteProtocolError(what, hint="400")


def quoted(text: str) -> str:
    """Write ``text`` as a quoted-string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unquoted(text: str) -> str:
    """Text of a quoted-string; anything else as it is."""
    return _UNESCAPE.sub(r"\1", text[1:-1]) if text[:1] == '"' else text


def split_commas(text: str) -> list[str]:
    """Split a header value at the commas that stand outside quoted strings and angle brackets."""
    if "," not in text:
        return [text.strip(" \t")]
    if '"' not in text and "<" not in text:
        return [part.strip(" \t") for part in text.split(",")]
    parts, start, quote_open, angle = [], 0, False, False
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        if quote_open:
            if char == "\\":
                position += 1
            elif char == '"':
                quote_open = False
        elif char == '"':
            quote_open = True
        elif char == "<":
            angle = True
        elif char == ">":
            angle = False
        elif char == "," and not angle:
            parts.append(text[start:position].strip(" \t"))
            start = position + 1
        position += 1
    if quote_open:
        raise malformed("a quoted string is not closed")
    parts.append(text[start:].strip(" \t"))
    return parts


def parse_params(text: str, what: str) -> Params:
    """Parse ``;name=value;flag`` to the end of ``text``; a name that stands twice is refused."""
    found: list[tuple[str, str | None]] = []
    position = 0
    end = len(text.rstrip(" \t"))
    while position < end:
        match = _PARAM.match(text, position, end)
        if match is None:
            raise malformed(f"the parameters of {what} break the grammar")
        found.append((match[1].lower(), match[2]))
        position = match.end()
    if len(found) > 1 and len({name for name, _ in found}) != len(found):
        raise malformed(f"a parameter of {what} stands twice")
    return tuple(found)


def write_params(params: Params) -> str:
    """The parameters as they go on the wire."""
    return "".join(f";{name}" if value is None else f";{name}={value}" for name, value in params)


def find(params: Params, name: str) -> str | None:
    """Value of the parameter ``name`` as written ("" for a flag), None if absent."""
    for key, value in params:
        if key == name:
            return value or ""
    return None


@dataclass(frozen=True, slots=True)
class Via:
    """One Via value (RFC 3261 section 20.42)."""

    transport: str
    """Upper case: UDP, TCP, TLS, or a name we do not know."""
    host: str
    port: int | None
    params: Params = ()
    version: str = "2.0"

    @classmethod
    def parse(cls, text: str) -> Via:
        """Parse one value; raises RemoteProtocolError."""
        match = _VIA.match(text)
        if match is None:
            raise malformed("a Via header breaks the grammar")
        protocol, version, transport, host, port = match.groups()
        if protocol.upper() != "SIP":
            raise malformed("a Via header names another protocol")
        if port is not None and not 0 < int(port) < 65536:
            raise malformed("a Via port is outside 1…65535")
        if host[:1] == "[":
            check_ipv6(host[1:-1])
        params = parse_params(text[match.end() :], "Via")
        return cls(transport.upper(), host.lower(), None if port is None else int(port), params, version)

    @classmethod
    def salvage(cls, text: str) -> Via:
        """What an answer needs of a broken Via: sent-by and branch; raises RemoteProtocolError if not even that."""
        match = _VIA.match(text)
        if match is None:
            raise malformed("a Via header breaks the grammar")
        branch = _BRANCH.search(text, match.end())
        return cls.parse(match[0] + (f";branch={branch[1]}" if branch else ""))

    @property
    def branch(self) -> str:
        return find(self.params, "branch") or ""

    @property
    def has_cookie(self) -> bool:
        """True if the branch is unique by RFC 3261; without the cookie RFC 2543 matching applies."""
        return self.branch[:7].lower() == "z9hg4bk"

    @property
    def sent_by(self) -> str:
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def wants_rport(self) -> bool:
        return any(name == "rport" for name, _ in self.params)

    def received_from(self, host: str, port: int) -> Via:
        """This value with what the receiver saw (RFC 3261 section 18.2.1, RFC 3581 section 4)."""
        wants = self.wants_rport
        bare = self.host[1:-1] if self.host[:1] == "[" else self.host
        if not wants and bare == host:
            if find(self.params, "received") is None:
                return self
            return replace(self, params=tuple(p for p in self.params if p[0] != "received"))
        params: list[tuple[str, str | None]] = []
        for name, value in self.params:
            if name == "rport":
                params.append((name, str(port)))
            elif name != "received":
                params.append((name, value))
        params.append(("received", host))
        return replace(self, params=tuple(params))

    def __str__(self) -> str:
        return f"SIP/{self.version}/{self.transport} {self.sent_by}{write_params(self.params)}"


@dataclass(frozen=True, slots=True)
class NameAddr:
    """From, To, Contact, Route: an optional display name, a URI, header parameters."""

    uri: Uri
    params: Params = ()
    display: str = ""
    """Decoded text of the display name."""

    @classmethod
    def parse(cls, text: str, what: str) -> NameAddr:
        """Parse one value of the header ``what``; raises RemoteProtocolError."""
        return _parse_name_addr(text, what)

    def param(self, name: str) -> str | None:
        """A header parameter's text, quotes removed; "" for a flag; None if absent."""
        value = find(self.params, name)
        return None if value is None else unquoted(value)

    @property
    def tag(self) -> str:
        return find(self.params, "tag") or ""

    def with_tag(self, tag: str) -> NameAddr:
        return replace(self, params=(*self.params, ("tag", tag)))

    def __str__(self) -> str:
        display = f"{quoted(self.display)} " if self.display else ""
        return f"{display}<{self.uri}>{write_params(self.params)}"


@lru_cache(maxsize=2048)
def _parse_name_addr(text: str, what: str) -> NameAddr:
    match = _DISPLAY_AND_URI.match(text)
    if match is not None:
        display = unquoted((match[1] or "").strip(" \t"))
        uri = parse_uri(match[2])
        params = parse_params(text[match.end() :], what)
    else:
        bare = _BARE_URI.match(text)
        # RFC 3261 section 20: a URI with comma, question mark or semicolon must stand in angle brackets.
        if bare is None or text[bare.end() : bare.end() + 1] in ("?", ","):
            raise malformed(f"{what} breaks the grammar")
        display = ""
        uri = parse_uri(bare[0])
        params = parse_params(text[bare.end() :], what)
    value = NameAddr(uri, params, display)
    if len(value.tag) > MAX_IDENTIFIER:
        raise malformed(f"the tag of {what} is longer than {MAX_IDENTIFIER} characters")
    return value


@dataclass(frozen=True, slots=True)
class CSeq:
    """Sequence number and method (RFC 3261 section 20.16)."""

    number: int
    method: str

    @classmethod
    def parse(cls, text: str) -> CSeq:
        """Parse; the number must be under 2**31 (RFC 3261 section 8.1.1.5, S-39)."""
        match = _CSEQ.fullmatch(text)
        if match is None:
            raise malformed("CSeq breaks the grammar")
        number = int(match[1])
        if number >= 2**31:
            raise malformed("the CSeq number is 2**31 or more")
        return cls(number, match[2])

    def __str__(self) -> str:
        return f"{self.number} {self.method}"


@dataclass(frozen=True, slots=True)
class AuthParams:
    """A challenge or credentials: scheme and parameters (RFC 3261 section 20.7, 20.44)."""

    scheme: str
    """Lower case."""
    params: dict[str, str]
    """Names in lower case, values with quotes removed; empty for a scheme that has no such parameters."""

    @classmethod
    def parse(cls, text: str) -> AuthParams:
        """Parse; raises RemoteProtocolError if a Digest value breaks the grammar or names a parameter twice."""
        scheme, _, rest = text.strip(" \t").partition(" ")
        scheme = scheme.lower()
        params: dict[str, str] = {}
        if scheme != "digest":
            return cls(scheme, params)
        position = 0
        rest = rest.strip(" \t")
        while position < len(rest):
            match = _AUTH_PARAM.match(rest, position)
            if match is None or match[1].lower() in params:
                raise malformed("digest parameters break the grammar")
            params[match[1].lower()] = unquoted(match[2])
            position = match.end()
        return cls(scheme, params)

    def get(self, name: str) -> str:
        return self.params.get(name, "")


def parse_number(text: str, what: str, most: int) -> int:
    """Parse a decimal header value of at most ``most``; more, or anything but digits, is refused."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > most:
        raise malformed(f"{what} is not a number of at most {most}")
    return int(text)


def parse_q(text: str) -> float:
    """Parse a qvalue 0 … 1 (RFC 3261 section 25.1)."""
    if not _QVALUE.fullmatch(text):
        raise malformed("a q value breaks the grammar")
    return float(text)


def clean_text(text: str) -> str:
    """Header text as UTF-8 without control characters."""
    return _NOT_TEXT.sub(" ", text_octets(text).decode("utf-8", "replace")).strip()


def text_octets(text: str) -> bytes:
    """UTF-8 of the text; octets that came as surrogate escapes as they were, other surrogates as "?"."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace")

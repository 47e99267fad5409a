"""One message header of message/cpim: its grammar, escapes and namespace (RFC 3862 sections 2.2 to 3.6).

Place on the path: below ``message.py`` and ``scan.py``, which hand in one line at a time. Everything here gives views; the
line's octets stay as they are. Text means Unicode with escapes resolved unless a name says ``raw``.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from urllib.parse import quote

from comity.errors import MalformedMessage

#: The default namespace (RFC 3862 sections 4 and 7.1; section 6 misprints it).
CORE = "urn:ietf:params:cpim-headers:"
#: The namespace of message disposition notifications (RFC 5438 section 6).
IMDN = "urn:ietf:params:imdn"

# RFC 3862 section 3.6. NAMECHAR: any US-ASCII except ".", controls and separators.
_NAMECHAR = r"!#-'*+\-\^-`|~A-Za-z0-9"
_NAME = rf"[{_NAMECHAR}]+"
_TOKEN = rf"[{_NAMECHAR}.\x80-\U0010ffff]+"
_STRING = r'"(?:[^"\\]|\\.)*"'
_PARAMETER = rf";({_NAME})=({_TOKEN}|{_STRING})"

# The value takes the rest of the line; that it neither starts nor ends with a space is checked after.
_HEADER = re.compile(rf"(?:({_NAME})\.)?({_NAME}):((?:;{_NAME}=(?:{_TOKEN}|{_STRING}))*) (.*)", re.DOTALL)
_PARAMETERS = re.compile(_PARAMETER, re.DOTALL)
_HEADER_NAME = re.compile(rf"(?:({_NAME})\.)?({_NAME})")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*")
# absolute-URI of RFC 2396: a scheme, no white space, delimiters or fragment.
_URI = r"[A-Za-z][A-Za-z0-9+.\-]*:[!$-;=?-\[\]^-~]+"
_ABSOLUTE_URI = re.compile(_URI)
_ADDRESS = re.compile(rf"((?:{_TOKEN} )*|{_STRING} ?)<({_URI})>", re.DOTALL)
_NS_VALUE = re.compile(rf"(?:({_NAME}) ?)?<([^<>]*)>")
_TOKEN_ONLY = re.compile(_TOKEN)
_TOKENS_ONLY = re.compile(rf"{_TOKEN}(?: {_TOKEN})*")

_ESCAPE = re.compile(r"((?:\\u[0-9A-Fa-f]{4})+)|\\(.?)", re.DOTALL)
_UNESCAPED = {"b": "\b", "t": "\t", "n": "\n", "r": "\r"}
_MUST_ESCAPE = re.compile(r"[\\\x00-\x1f\x7f]")
_MUST_ESCAPE_IN_STRING = re.compile(r'["\\\x00-\x1f\x7f]')
_ESCAPED = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\t": "\\t", "\n": "\\n", "\r": "\\r"}

_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:([0-9]{2})(?:\.[0-9]+)?(?:[Zz]|[+-][0-9]{2}:[0-5][0-9])"
)


# RFC 3862 section 2.2: no control characters, and no line end but CR LF.
BAD_OCTET = re.compile(rb"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")
# MIME allows a tab where a header line is folded (RFC 5322 section 2.2.3).
BAD_CONTENT_OCTET = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")


class NamedAddress(NamedTuple):
    """Value of From, To or cc: who, by what name (RFC 3862 section 4.1)."""

    formal_name: str
    """Empty if the header gives none."""
    uri: str
    """As written between the angle brackets."""


class CpimHeader(NamedTuple):
    """One message header, seen (a tuple because one is made per header of every message)."""

    name: str
    namespace: str
    """URI the name belongs to; "" for a prefix that was not declared before."""
    params: tuple[tuple[str, str], ...]
    value: str
    """Escapes resolved: may hold line breaks, so never copy it into another protocol's header."""
    raw: bytes
    """The line as it stands, without its CR LF."""
    offset: int
    """Of the line's first octet in the object."""

    @property
    def language(self) -> str:
        """The ``lang`` parameter; "i-default" without one (RFC 3862 section 3.3)."""
        for name, value in self.params:
            if name == "lang" and _LANGUAGE.fullmatch(value):
                return value
        return "i-default"

    @property
    def uri(self) -> str:
        """The header's own URI: namespace and escaped name (RFC 3862 section 7.2)."""
        return self.namespace + quote(self.name, safe="!$'*+-_").replace("~", "%7E")


class Namespaces:
    """The namespace declarations in force at one place of one object (RFC 3862 section 3.4)."""

    __slots__ = ("default", "flags", "prefixes")

    def __init__(self) -> None:
        self.default = CORE
        self.prefixes: dict[str, str] = {}
        self.flags: list[str] = []

    def resolve(self, prefix: str | None) -> str:
        """URI for a header's prefix; "" and a flag if nothing declared it."""
        if prefix is None:
            return self.default
        namespace = self.prefixes.get(prefix)
        if namespace is None:
            self.flags.append("undeclared-prefix")
            return ""
        return namespace

    def declare(self, raw_value: str, offset: int) -> None:
        """Take an NS header's value; a URI that is not absolute is ignored and flagged (FMT-26)."""
        found = _NS_VALUE.fullmatch(raw_value)
        if not found:
            raise MalformedMessage("an NS header is not [prefix] <URI>", offset=offset)
        prefix, uri = found.groups()
        if not _ABSOLUTE_URI.fullmatch(uri):
            self.flags.append("ns-ignored")
        elif prefix is None:
            self.default = uri
            self.flags.append("default-namespace-changed")
        else:
            if prefix in self.prefixes:
                self.flags.append("prefix-redeclared")
            self.prefixes[prefix] = uri

    def required(self, raw_value: str) -> list[tuple[str, str]]:
        """Read a Require header here: (namespace, name) pairs; what cannot be known has the namespace "" (FMT-34)."""
        pairs = []
        for entry in raw_value.split(","):
            entry = entry.strip(" ")
            found = _HEADER_NAME.fullmatch(entry)
            if not found:
                pairs.append(("", entry))
            elif found[1] is None:
                pairs.append((self.default, found[2]))
            else:
                namespace = self.prefixes.get(found[1], "")
                pairs.append((namespace, found[2] if namespace else entry))
        return pairs


def header_text(block: bytes, offset: int, bad: re.Pattern[bytes]) -> str:
    """Decode a header block after refusing control characters and line ends other than CR LF."""
    found = bad.search(block)
    if found:
        octet = block[found.start()]
        what = "a line end other than CR LF" if octet in b"\r\n" else "a control character"
        raise MalformedMessage(f"a header holds {what}", offset=offset + found.start())
    try:
        return block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedMessage("a header is not UTF-8", offset=offset + error.start) from None


def read_header(line: str, raw: bytes, offset: int, scope: Namespaces) -> tuple[CpimHeader, str]:
    """Read one header line (without CR LF), declaring into ``scope`` if it is an NS header.

    Returns:
        The header and its value before escapes were resolved.

    Raises:
        MalformedMessage: the line is not a header of RFC 3862 section 3.6.
    """
    found = _HEADER.fullmatch(line)
    if not found:
        raise MalformedMessage(_why_not(line), offset=offset)
    prefix, name, params, raw_value = found.groups()
    if raw_value and (raw_value[0] == " " or raw_value[-1] == " "):
        raise MalformedMessage("a header value starts or ends with a space", offset=offset)
    namespace = scope.default if prefix is None else scope.resolve(prefix)
    if name == "NS" and namespace == CORE:
        scope.declare(raw_value, offset)
    value = raw_value if "\\" not in raw_value else unescape(raw_value)
    pairs = read_params(params) if params else ()
    return CpimHeader(name, namespace, pairs, value, raw, offset), raw_value


def _why_not(line: str) -> str:
    if line[:1] == " ":
        return "a header line starts with a space (RFC 3862 has no folding)"
    name, colon, rest = line.partition(":")
    if not colon:
        return "a header line has no colon"
    if not _HEADER_NAME.fullmatch(name):
        return "a header name holds a character that RFC 3862 does not allow"
    if rest[:1] not in (" ", ";"):
        return "exactly one space must follow the colon of a header"
    return "header parameters are not ;name=value followed by one space"


def read_params(raw_params: str) -> tuple[tuple[str, str], ...]:
    """Read ``;name=value`` parameters that fit the grammar already."""
    return tuple(
        (name, unescape(value[1:-1]) if value[0] == '"' else value) for name, value in _PARAMETERS.findall(raw_params)
    )


def read_address(raw_value: str, offset: int) -> NamedAddress:
    """Read the value of From, To or cc. Raises MalformedMessage."""
    found = _ADDRESS.fullmatch(raw_value)
    if not found:
        raise MalformedMessage("an address header is not [formal name] <URI>", offset=offset)
    name, uri = found.groups()
    if not name:
        return NamedAddress("", uri)
    name = name.rstrip(" ")
    return NamedAddress(unescape(name[1:-1]) if name[0] == '"' else name, uri)


def read_timestamp(text: str) -> datetime | None:
    """Read an RFC 3339 timestamp (RFC 3862 section 4.4); None if it is not one.

    A leap second (RFC 3339 section 5.7) becomes the second after it: Python has no name for it.
    """
    found = _TIMESTAMP.fullmatch(text)
    if not found:
        return None
    text = text.upper()
    try:
        if found[1] != "60":
            when = datetime.fromisoformat(text)
            when.astimezone(UTC)
            return when
        when = datetime.fromisoformat(text[:17] + "59" + text[19:]).replace(microsecond=0)
        at = when.astimezone(UTC)
        return when + timedelta(seconds=1) if (at.hour, at.minute) == (23, 59) else None
    except (ValueError, OverflowError):
        return None


def unescape(text: str) -> str:
    r"""Resolve escapes (RFC 3862 section 2.3): ``\ud83d\ude00`` is one character, a lone surrogate U+FFFD."""
    return _ESCAPE.sub(_unescape_one, text) if "\\" in text else text


def _unescape_one(found: re.Match[str]) -> str:
    units = found[1]
    if units is None:
        character: str = found[2]
        return _UNESCAPED.get(character, character)
    code = b"".join(int(unit, 16).to_bytes(2, "big") for unit in units.split("\\u")[1:])
    return _utf16(code)


def _utf16(code: bytes) -> str:
    """Decode UTF-16BE giving one U+FFFD for each lone surrogate and losing nothing else."""
    text = code.decode("utf-16-be", "surrogatepass")
    return "".join("�" if "\ud800" <= character <= "\udfff" else character for character in text)


def escape(text: str) -> str:
    """Write text as a header value: exactly what RFC 3862 section 2.3.1 demands is escaped, nothing else."""
    return _MUST_ESCAPE.sub(_escape_one, text)


def quoted(text: str) -> str:
    """Write text as a double-quoted String (RFC 3862 section 3.6)."""
    return f'"{_MUST_ESCAPE_IN_STRING.sub(_escape_one, text)}"'


def _escape_one(found: re.Match[str]) -> str:
    character = found[0]
    return _ESCAPED.get(character) or f"\\u{ord(character):04x}"


def is_token(text: str) -> bool:
    """True for a Token of RFC 3862 section 3.6."""
    return _TOKEN_ONLY.fullmatch(text) is not None


def is_tokens(text: str) -> bool:
    """True for tokens with single spaces between: a formal name that needs no quotes."""
    return _TOKENS_ONLY.fullmatch(text) is not None


def is_absolute_uri(text: str) -> bool:
    """True for an absolute URI without a fragment (RFC 2396)."""
    return _ABSOLUTE_URI.fullmatch(text) is not None


def is_header_name(text: str) -> bool:
    """True for ``[prefix.]name``."""
    return _HEADER_NAME.fullmatch(text) is not None


def is_language(text: str) -> bool:
    """True for a language tag (RFC 3066)."""
    return _LANGUAGE.fullmatch(text) is not None

"""SIP and SIPS URIs, and the generic form of every other URI a request may hold (RFC 3261 section 19.1, 25.1).

Place on the path: step 2; ``headers.py`` and ``wire.py`` build on it. Values are frozen; ``user`` and parameter
values stay as written (percent-escapes included), ``user_text`` decodes them. Parsing raises RemoteProtocolError
with a status code as ``hint``: 400 for bad syntax, never for an unknown scheme (the session answers 416 to that).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv6Address
from urllib.parse import quote, unquote_to_bytes

from comity.errors import RemoteProtocolError

#: reliability.md section 6.2 (anchor: Kamailio's sanity module).
MAX_URI = 256

_SIP_URI = re.compile(
    r"(?P<scheme>[sS][iI][pP][sS]?):"
    r"(?:(?P<user>[A-Za-z0-9\-_.!~*'()&=+$,;?/%]+)(?::(?P<password>[A-Za-z0-9\-_.!~*'()&=+$,%]*))?@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9.\-]*[A-Za-z0-9.])?)"
    r"(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<params>(?:;[^;?@\s<>\"]+)*)"
    r"(?:\?(?P<headers>[^\s<>\"@]+))?"
)
_PARAM = re.compile(r"[A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+(?:=[A-Za-z0-9\-_.!~*'()\[\]/:&+$%]+)?")
_OTHER_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[!#-;=?-\[\]_a-z~]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")

Params = tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True)
class SipUri:
    """A sip: or sips: URI as it stood."""

    host: str
    """Lower case; an IPv6 address in brackets."""
    user: str = ""
    """Percent-escaped as received."""
    port: int | None = None
    params: Params = ()
    headers: str = ""
    """What stands after "?"; never acted upon (an injection otherwise)."""
    scheme: str = "sip"
    password: str | None = None

    @property
    def user_text(self) -> str:
        """The user part decoded; octets that are not UTF-8 become U+FFFD."""
        return unquote_to_bytes(self.user).decode("utf-8", "replace") if "%" in self.user else self.user

    @property
    def bare_host(self) -> str:
        """Host without the brackets of an IPv6 address."""
        return self.host[1:-1] if self.host[:1] == "[" else self.host

    def param(self, name: str) -> str | None:
        """Value of the URI parameter called ``name`` ("" for a flag), None if absent."""
        for key, value in self.params:
            if key.lower() == name:
                return value or ""
        return None

    @property
    def aor(self) -> str:
        """``user@host`` decoded, as two addresses of record are compared."""
        return f"{self.user_text}@{self.host}"

    @property
    def without_extras(self) -> SipUri:
        """Scheme, user and host alone: an address of record (RFC 3261 section 10.3 item 5)."""
        return SipUri(self.host, self.user, scheme=self.scheme)

    def with_param(self, name: str, value: str | None) -> SipUri:
        """This URI with one parameter more."""
        return replace(self, params=(*self.params, (name, value)))

    def matches(self, other: SipUri) -> bool:
        """True if the two are equivalent by RFC 3261 section 19.1.4."""
        if (self.scheme, self.host, self.port, self.user_text, self.password) != (
            other.scheme,
            other.host,
            other.port,
            other.user_text,
            other.password,
        ):
            return False
        mine = {key.lower(): (value or "").lower() for key, value in self.params}
        theirs = {key.lower(): (value or "").lower() for key, value in other.params}
        if any(mine[key] != theirs[key] for key in mine.keys() & theirs.keys()):
            return False
        return not any(key in ("user", "ttl", "method", "maddr") for key in mine.keys() ^ theirs.keys())

    def __str__(self) -> str:
        text = f"{self.scheme}:"
        if self.user:
            text += self.user if self.password is None else f"{self.user}:{self.password}"
            text += "@"
        text += self.host
        if self.port is not None:
            text += f":{self.port}"
        for key, value in self.params:
            text += f";{key}" if value is None else f";{key}={value}"
        return f"{text}?{self.headers}" if self.headers else text


@dataclass(frozen=True, slots=True)
class OtherUri:
    """A URI of another scheme (im:, pres:, tel:, unknown ones), not looked into."""

    scheme: str
    """Lower case."""
    rest: str

    def __str__(self) -> str:
        return f"{self.scheme}:{self.rest}"


Uri = SipUri | OtherUri


@lru_cache(maxsize=4096)
def parse_uri(text: str) -> Uri:
    """Parse a URI of any scheme; raises RemoteProtocolError (hint 400) where the grammar is broken."""
    match = _SIP_URI.fullmatch(text)
    if match is None:
        scheme, colon, rest = text.partition(":")
        if scheme.lower() in ("sip", "sips") or not colon or not _OTHER_URI.fullmatch(text):
            raise RemoteProtocolError("a URI breaks the grammar", hint="400")
        return OtherUri(scheme.lower(), rest)
    if "%" in text and _BAD_ESCAPE.search(text):
        raise RemoteProtocolError("a URI holds a broken percent-escape", hint="400")
    scheme, user, password, host, port, params, headers = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        raise RemoteProtocolError("a URI's port is outside 1…65535", hint="400")
    if host[:1] == "[":
        check_ipv6(host[1:-1])
    return SipUri(
        host.lower(),
        user or "",
        None if port is None else int(port),
        _parse_params(params) if params else (),
        headers or "",
        scheme.lower(),
        password,
    )


def check_ipv6(text: str) -> None:
    """Raise RemoteProtocolError unless ``text`` is an IPv6 address."""
    try:
        IPv6Address(text)
    except ValueError as error:
        raise RemoteProtocolError("an IPv6 reference is not an address", hint="400") from error


def _parse_params(text: str) -> Params:
    found: list[tuple[str, str | None]] = []
    for part in text[1:].split(";"):
        if not _PARAM.fullmatch(part):
            raise RemoteProtocolError("a URI parameter breaks the grammar", hint="400")
        name, equals, value = part.partition("=")
        found.append((name, value if equals else None))
    if len({name.lower() for name, _ in found}) != len(found):
        raise RemoteProtocolError("a URI parameter stands twice", hint="400")
    return tuple(found)


def escape_user(text: str) -> str:
    """Percent-escape what the user part of a SIP URI may not hold (RFC 3261 section 25.1, rule user)."""
    return quote(text.encode("utf-8"), safe="-_.!~*'()&=+$,;?/")

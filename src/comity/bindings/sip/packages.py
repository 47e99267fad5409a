"""Event packages of ours: how Event, Accept, Allow-Events and SIP-If-Match are read and Subscription-State is written. Pure.

Place on the path: beside steps 4 and 8, for ``publishing.py`` and ``notifier.py``. Event types are compared octet by octet
(RFC 6665 section 8.2.1): ``Presence`` is no package of ours. What is no package of ours, or ours with a template it has not
(``presence.winfo.winfo``), is answered 489 with the list of those that are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from comity.bindings.sip.headers import TOKEN, find, malformed, parse_params, parse_q
from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipMessage, SipRequest
from comity.cpim.entity import SECURED
from comity.cpim.operations import EndReason
from comity.cpim.pidf_diff import PIDF_DIFF_TYPE
from comity.cpim.presence import PIDF_TYPE
from comity.cpim.watchers import WATCHERINFO_TYPE
from comity.errors import RemoteProtocolError

if TYPE_CHECKING:
    from comity.service.presence.interfaces import Package

PACKAGES: Final[Mapping[str, Package]] = {"presence": "presence", "presence.winfo": "presence.winfo"}
ALLOW_EVENTS: Final = ("Allow-Events", ", ".join(PACKAGES))
TYPES: Final[Mapping[Package, str]] = {"presence": PIDF_TYPE, "presence.winfo": WATCHERINFO_TYPE}
"""What a watcher of the package must take (RFC 3856 section 6.7, RFC 3857 section 4.5)."""
ACCEPT_PUBLISHED: Final = f"{PIDF_TYPE}, multipart/signed, application/pkcs7-mime"
HOUR: Final = 3600
MAX_ID: Final = 128
"""Characters of an Event id and of an entity-tag."""

_EVENT_TYPE = re.compile(r"[A-Za-z0-9\-!%*_+`'~]+(?:\.[A-Za-z0-9\-!%*_+`'~]+)*")


@dataclass(frozen=True, slots=True)
class Event:
    """An Event header (RFC 6665 section 8.4)."""

    type: str
    """Package and templates as written."""
    id: str = ""

    @classmethod
    def parse(cls, text: str) -> Event:
        """Parse; raises RemoteProtocolError (hint 400). Parameters other than id mean nothing here."""
        match = _EVENT_TYPE.match(text)
        if match is None:
            raise malformed("Event breaks the grammar")
        params = parse_params(text[match.end() :], "Event")
        id = find(params, "id")
        if id is None:
            return cls(match[0])
        if not TOKEN.fullmatch(id) or len(id) > MAX_ID:
            raise malformed("the id of Event is no token or too long")
        return cls(match[0], id)

    @property
    def package(self) -> Package | None:
        """The package if it is one of ours."""
        return PACKAGES.get(self.type)

    def __str__(self) -> str:
        return f"{self.type};id={self.id}" if self.id else self.type


def event_of(request: SipMessage) -> Event | None:
    """The one Event of a request, None without one; raises RemoteProtocolError for two, or one that cannot be read."""
    values = request.values("event")
    if len(values) > 1:
        raise malformed("Event stands more than once")
    return Event.parse(values[0]) if values else None


def bad_event() -> Refusal:
    """489 with the packages we know (RFC 6665 section 8.3.2)."""
    return Refusal(489, headers=(ALLOW_EVENTS,))


@dataclass(frozen=True, slots=True)
class Taken:
    """What a watcher said it takes."""

    secured: bool = False
    """Signed and encrypted entities: named outright, since ``*/*`` is what everybody writes."""
    partial: bool = False
    """Differences (RFC 5263): named outright, and liked no less than whole documents."""


def accepted(request: SipRequest, package: Package) -> Taken | None:
    """What the watcher takes of the package's documents; None if not even its basic type (406, SIP-25).

    Raises RemoteProtocolError for a q value that is none.
    """
    if not request.values("accept"):
        return Taken()
    wanted = TYPES[package]
    ranges = {wanted, wanted.partition("/")[0] + "/*", "*/*"}
    takes, secured, refused = False, False, False
    liked: dict[str, float] = {}
    for text in request.listed("accept"):
        media_range, _, params = text.partition(";")
        name = media_range.strip().lower()
        q = find(parse_params(f";{params}", "Accept"), "q") if params.strip() else None
        liked[name] = 1.0 if q is None else parse_q(q)
        is_wanted = liked[name] > 0.0
        if name == wanted and not is_wanted:
            refused = True
        elif is_wanted:
            takes = takes or name in ranges
            secured = secured or name in SECURED
    partial = package == "presence" and liked.get(PIDF_DIFF_TYPE, 0.0) >= max(liked.get(PIDF_TYPE, 0.0), 0.001)
    return Taken(secured, partial) if takes and not refused else None


def duration_of(request: SipRequest, least: int) -> int | Refusal:
    """Seconds asked for, an hour if the request names none; 423 only for more than nothing, less than ``least`` and less than an
    hour (SIP-18)."""
    asked = HOUR if request.expires is None else request.expires
    if 0 < asked < min(least, HOUR):
        return Refusal(423, headers=(("Min-Expires", str(least)),))
    return asked


def if_match_of(request: SipRequest) -> str:
    """The one entity-tag of SIP-If-Match, "" without the header; raises RemoteProtocolError for several (SIP-31)."""
    values = request.values("sip-if-match")
    if not values:
        return ""
    tag = values[0].strip(" \t")
    if len(values) > 1 or not TOKEN.fullmatch(tag) or len(tag) > MAX_ID:
        raise RemoteProtocolError("SIP-If-Match is not a single entity-tag", hint="400")
    return tag


def state_value(
    state: str, expires: int | None = None, reason: EndReason | None = None, retry: int | None = None
) -> str:
    """A Subscription-State value (RFC 6665 section 4.2.2): ``expires`` unless terminated, ``reason`` if so."""
    if reason is not None:
        return f"terminated;reason={reason.value}" + (f";retry-after={retry}" if retry is not None else "")
    return f"{state};expires={max(expires or 0, 0)}"

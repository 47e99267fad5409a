"""Requests and answers as HTTP has them, and HTTP's own rules: entity-tags, conditions, media types (RFC 4825 section 8.2.6).

Place on the path: beside it, under ``resources.py`` and ``handler.py``. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from comity.cpim.address import Address
from comity.service.interfaces import Origin
from comity.xcap.application import owner_of
from comity.xcap.errors import ERROR_TYPE, Conflict, Refused
from comity.xcap.uri import Target, parse_target

_TAG: Final = re.compile(r'\s*(W/)?"([^"]*)"\s*(?:,|\Z)')


@dataclass(frozen=True, slots=True)
class Request:
    """One request of an account, its sender proved."""

    method: str
    target: Target
    user: Address
    """``im:``, folded: who asks."""
    owner: Address | None
    """Whose tree it is about; None for the global tree."""
    host: str
    """IP address it came from."""
    content_type: str = ""
    if_match: str | None = None
    if_none_match: str | None = None
    body: bytes = b""

    @property
    def origin(self) -> Origin:
        """As the service wants to know it."""
        return Origin(self.user, "xcap", self.host, is_protected=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


# --- HTTP's own rules -----------------------------------------------------------------------------------------------


def etag_of(octets: bytes) -> str:
    """The entity-tag of a document."""
    return f'"{hashlib.sha256(octets).hexdigest()[:32]}"'


def has_tag(header: str, etag: str, *, is_weak: bool) -> bool:
    """True if a condition's list names ``etag`` (RFC 9110 section 13.1). Raises Refused 400."""
    if header.strip() == "*":
        return True
    position, found = 0, False
    while position < len(header):
        tag = _TAG.match(header, position)
        if tag is None:
            raise Refused(400, "If-Match and If-None-Match hold entity-tags")
        found |= (is_weak or not tag[1]) and f'"{tag[2]}"' == etag
        position = tag.end()
    return found


def check_conditions(request: Request, present: str | None) -> None:
    """Section 8.2.6: the entity-tag is that of the document, also for a part that is not there yet.

    Args:
        request: with its conditions.
        present: the document's entity-tag, None if there is none.
    """
    if request.if_match is not None and (present is None or not has_tag(request.if_match, present, is_weak=False)):
        raise Refused(412, "the document is another one")
    if (
        request.if_none_match is not None
        and present is not None
        and has_tag(request.if_none_match, present, is_weak=True)
    ):
        raise Refused(412, "there is such a document already")


def check_type(request: Request, media_type: str) -> None:
    """Section 8.2.2: 415 for another type, not-utf-8 for another encoding."""
    given, _, parameters = request.content_type.partition(";")
    if given.strip().lower() != media_type:
        raise Refused(415, f"a body of type {media_type} is expected")
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(" \t\"'").lower() not in ("utf-8", "us-ascii"):
            raise Conflict("not-utf-8", "documents are kept in UTF-8")


def refusal(refused: Refused) -> Answer:
    """The response that says no."""
    headers = {"Allow": refused.allow} if refused.allow else {}
    if refused.status == 429:
        headers["Retry-After"] = "10"
    if refused.document:
        return Answer(refused.status, {**headers, "Content-Type": ERROR_TYPE}, refused.document)
    text = f"{refused.phrase[:1].upper()}{refused.phrase[1:]}.\n".encode()
    return Answer(refused.status, {**headers, "Content-Type": "text/plain; charset=utf-8"}, text)


def user_of(text: str, realm: str) -> Address | None:
    """The account an XCAP User Identifier means, ``alice`` alone being one of ``realm``."""
    return owner_of(text if "@" in text else f"{text}@{realm}")


def target_of(raw: str) -> Target:
    """Read a request's target, as an origin server is given it or with the server's own name before it."""
    if raw.lower().startswith(("https://", "http://")):
        _, slash, path = raw.partition("//")[2].partition("/")
        raw = slash + path
    return parse_target(raw)

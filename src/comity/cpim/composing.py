"""Who is typing: status messages of RFC 3994, read and written.

Place on the path: steps 4 and 8 of protocols whose programs say so in other words (XEP-0085). A status says nothing once its
moment has passed: it is never stored, and nobody hears that one was lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.cpim.documents import read_document
from comity.cpim.entity import content_object, cpim_view, decode_transfer
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.xml import XmlLimits

COMPOSING_TYPE: Final = "application/im-iscomposing+xml"
COMPOSING_XML: Final = "urn:ietf:params:xml:ns:im-iscomposing"
COMPOSING_LIMITS: Final = XmlLimits(octets=8 * 1024, depth=12, elements=64, attributes=16, namespaces=16)
DEFAULT_REFRESH: Final = 120
"""Seconds after which an active status without another is idle (RFC 3994 section 3.3)."""
LEAST_REFRESH, MOST_REFRESH = 60, 3600
"""A shorter time is read as the least that section 3.2 allows, a longer one as an hour."""
_CHILDREN: Final = frozenset({"state", "lastactive", "contenttype", "refresh"})


@dataclass(frozen=True, slots=True)
class Composing:
    """One status."""

    is_active: bool
    """False too for states that RFC 3994 does not know (section 3.5)."""
    refresh: int = DEFAULT_REFRESH
    """Seconds for which an active one holds."""

    def document(self) -> bytes:
        """The status as XML (RFC 3994 section 3.4)."""
        refresh = f"<refresh>{self.refresh}</refresh>" if self.is_active else ""
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\r\n<isComposing xmlns="{COMPOSING_XML}">'
            f"<state>{'active' if self.is_active else 'idle'}</state>{refresh}</isComposing>\r\n"
        ).encode()


def parse_composing(octets: bytes) -> Composing:
    """Read a status. Raises MalformedMessage for what is none, or passes ``COMPOSING_LIMITS``."""
    root = read_document(octets, COMPOSING_LIMITS)
    if root.name != f"{{{COMPOSING_XML}}}isComposing":
        raise MalformedMessage("a composing status has another root")
    found: dict[str, str] = {}
    for child in root.elements():
        if child.namespace not in (COMPOSING_XML, ""):
            continue
        if child.local not in _CHILDREN or child.local in found or any(True for _ in child.elements()):
            raise MalformedMessage("a composing status holds an element that does not belong there")
        found[child.local] = child.text.strip(" \t\r\n")
    if not found.get("state"):
        raise MalformedMessage("a composing status has no state")
    return Composing(found["state"] == "active", _refresh(found.get("refresh", "")))


def _refresh(text: str) -> int:
    if not text:
        return DEFAULT_REFRESH
    if not (text.isascii() and text.isdigit()):
        raise MalformedMessage("refresh is not a number of seconds")
    return min(max(int(text[:9]), LEAST_REFRESH), MOST_REFRESH)


def composing_in(obj: MimeObject) -> Composing | None:
    """The status that an object is, bare or in message/cpim; None if it is none, or one that nobody can read."""
    try:
        view = cpim_view(obj)
        inner = obj if view is None else content_object(view)
        if inner.media_type != COMPOSING_TYPE:
            return None
        return parse_composing(decode_transfer(inner))
    except MalformedMessage:
        return None

"""The XML documents of presence: how their octets become trees (PIDF, presence rules, watcher information).

Place on the path: under ``presence.py``, ``common_policy.py`` and ``watchers.py``; the one place where they meet the door
to XML. Whatever the octets, MalformedMessage is all that comes out besides a tree.
"""

from __future__ import annotations

from typing import Final

from comity.errors import MalformedMessage, RemoteProtocolError
from comity.xml import Element, XmlLimits, parse_document

_XINCLUDE: Final = "{http://www.w3.org/2001/XInclude}"


def read_document(raw: bytes, limits: XmlLimits, charset: str = "") -> Element:
    """Read a document in UTF-8.

    Args:
        raw: its octets.
        limits: what it may cost.
        charset: parameter of its Content-Type, which beats the declaration inside (RFC 3863 section 4.1).

    Raises:
        MalformedMessage: it cannot be read, wants to include another one, or passes a limit (hint "size").
    """
    if charset.lower() not in ("", "utf-8", "us-ascii") or (charset.lower() == "us-ascii" and not raw.isascii()):
        raise MalformedMessage("the document is not in UTF-8")
    try:
        root = parse_document(raw, limits, ignore_encoding=bool(charset))
    except RemoteProtocolError as error:
        hint = "size" if error.hint == "policy-violation" else ""
        raise MalformedMessage(error.reason, offset=error.offset, hint=hint) from None
    if any(element.name.startswith(_XINCLUDE) for element in walk(root)):
        raise MalformedMessage("a document may not include others")
    return root


def walk(root: Element) -> list[Element]:
    """Every element of the tree, the root first."""
    found = [root]
    for element in found:  # it grows on the way
        found += [child for child in element.children if isinstance(child, Element)]
    return found

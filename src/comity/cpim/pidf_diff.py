"""Presence as what changed since the last time: application/pidf-diff+xml (RFC 5262, patch operations of RFC 5261).

Place on the path: step 8 of a notify, for watchers that ask for it. Written from two documents of the server's own; a child of the root is
added, replaced or removed whole, and found by its place, so that neither prefixes nor ids of anybody matter. Never smaller steps:
whole tuples, persons and devices are what changes.
"""

from __future__ import annotations

from typing import Final

from comity.cpim.documents import read_document
from comity.cpim.presence import PIDF, PresenceDocument
from comity.xml import XmlLimits, escape_attribute, serialize

PIDF_DIFF: Final = "urn:ietf:params:xml:ns:pidf-diff"
PIDF_DIFF_TYPE: Final = "application/pidf-diff+xml"
_LIMITS: Final = XmlLimits(octets=1024 * 1024)
_HEAD: Final = b'<?xml version="1.0" encoding="UTF-8"?>\r\n'

Child = tuple[tuple[str, ...], bytes]
"""What makes it the same one later, and its octets where PIDF is the default namespace."""


def children_of(document: PresenceDocument) -> list[Child]:
    """The root's child elements in order."""
    root = read_document(document.raw, _LIMITS)
    found: list[Child] = []
    for child in root.elements():
        octets = serialize(child, PIDF)
        found.append(((child.name, child.get("id")) if child.get("id") else (child.name, "", octets.hex()), octets))
    return found


def full(document: PresenceDocument, version: int) -> bytes:
    """The whole document as ``pidf-full``."""
    return _written("pidf-full", document.entity, version, [octets for _, octets in children_of(document)])


def difference(old: PresenceDocument, new: PresenceDocument) -> list[bytes] | None:
    """Operations that make ``new`` of ``old``; None if it is shorter to say all of it, or what stayed changed places."""
    if old.entity != new.entity:
        return None
    before, after = children_of(old), children_of(new)
    wanted = {key for key, _ in after}
    operations: list[bytes] = []
    for place in range(len(before), 0, -1):  # from the end: places before it stay
        if before[place - 1][0] not in wanted:
            operations.append(b"<p:remove sel='*/*[%d]'/>" % place)
            del before[place - 1]
    for place, (key, octets) in enumerate(after, 1):
        if place <= len(before) and before[place - 1][0] == key:
            if before[place - 1][1] != octets:
                operations.append(b"<p:replace sel='*/*[%d]'>%b</p:replace>" % (place, octets))
        elif any(key == known for known, _ in before):
            return None
        elif place <= len(before):
            operations.append(b"<p:add sel='*/*[%d]' pos='before'>%b</p:add>" % (place, octets))
            before.insert(place - 1, (key, octets))
        else:
            operations.append(b"<p:add sel='*'>%b</p:add>" % octets)
            before.append((key, octets))
    # Twice the same, or the same id twice: not to be told apart by this.
    is_whole = len(before) == len(after)
    return operations if is_whole and sum(map(len, operations)) < len(new.raw) else None


def diff(entity: str, version: int, operations: list[bytes]) -> bytes:
    """The operations as ``pidf-diff``."""
    return _written("pidf-diff", entity, version, operations)


def _written(name: str, entity: str, version: int, inside: list[bytes]) -> bytes:
    root = f"p:{name} xmlns='{PIDF}' xmlns:p='{PIDF_DIFF}' entity='{escape_attribute(entity)}' version='{version}'"
    return _HEAD + f"<{root}>".encode() + b"".join(inside) + f"</p:{name}>\r\n".encode()

"""A watcher of partial notifications: applies patch operations by lxml's XPath (RFC 5261), which is nobody's code here."""

from __future__ import annotations

import copy

from lxml import etree

DIFF = "{urn:ietf:params:xml:ns:pidf-diff}"
PIDF = "{urn:ietf:params:xml:ns:pidf}"


class Patched:
    """A watcher's copy, by the rules of RFC 5263 section 4.5."""

    def __init__(self) -> None:
        self.version = 0
        self.root: etree._Element | None = None

    def take(self, octets: bytes) -> bool:
        """Take a body; False if it is old, or something was missed (N-16)."""
        told = etree.fromstring(octets)
        version = int(told.get("version"))
        if version <= self.version:
            return False
        if told.tag == f"{DIFF}pidf-full":
            self.root = told
            self.version = version
            return True
        assert told.tag == f"{DIFF}pidf-diff"
        if self.root is None or version != self.version + 1:
            return False
        self.version = version
        for operation in told:
            self._apply(operation)
        return True

    def _apply(self, operation: etree._Element) -> None:
        assert self.root is not None
        (target,) = self.root.getroottree().xpath("/" + operation.get("sel"))
        children = [copy.deepcopy(child) for child in operation]
        parent = target.getparent()
        if operation.tag == f"{DIFF}remove":
            parent.remove(target)
        elif operation.tag == f"{DIFF}replace":
            (child,) = children
            parent.replace(target, child)
        elif operation.get("pos") == "before":
            for child in children:
                target.addprevious(child)
        else:
            assert operation.get("pos") is None
            target.extend(children)

    @property
    def document(self) -> bytes:
        """The copy as an ordinary document, in canonical form."""
        assert self.root is not None
        return canonical(self.root)


def canonical(root: etree._Element) -> bytes:
    """Root and children, whatever the root is called; each child by itself, so that places of declarations do not count."""
    children = [
        etree.tostring(etree.fromstring(etree.tostring(child, with_tail=False)), method="c14n") for child in root
    ]
    return str(root.get("entity")).encode() + b"\n" + b"\n".join(_plain(child) for child in children)


def _plain(octets: bytes) -> bytes:
    """Names in Clark notation, in order."""

    def walk(one: etree._Element) -> str:
        attributes = sorted(one.attrib.items())
        inside = (one.text or "") + "".join(walk(child) + (child.tail or "") for child in one)
        return f"<{one.tag} {attributes}>{inside}</>"

    return walk(etree.fromstring(octets)).encode()

"""A whole XML document with the places of its parts: for those who change a piece and keep every octet around it (XCAP).

Place on the path: beside it, as ``document.py``, whose rules and limits hold here too. Places count octets from the
document's first, a byte order mark included.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from comity.xml.document import DocumentReader
from comity.xml.element import XML_NAMESPACE, Element, XmlLimits

#: One attribute or namespace declaration of a start tag that expat took.
_ATTRIBUTE: Final = re.compile(rb"([^\s=/>\"']+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_SPACE: Final = re.compile(rb"[ \t\r\n]*")
_TAG_NAME: Final = re.compile(rb"<([^\s/>]+)")


@dataclass(frozen=True, slots=True)
class LocatedAttribute:
    """One attribute as written; declarations of namespaces are none."""

    name: str
    """Clark name."""
    value: str
    start: int
    """First octet of its name."""
    value_start: int
    """First octet behind the quotation mark."""
    value_end: int
    """The closing quotation mark."""


@dataclass(slots=True)
class LocatedElement:
    """One element and where it stands."""

    element: Element
    raw_name: bytes
    """As written, with its prefix."""
    namespaces: dict[str, str]
    """In scope, by prefix; "" is the default namespace, left out where there is none. Shared with others: do not change."""
    start: int
    """The ``<`` of its start tag."""
    content: int
    """The octet after its start tag."""
    end: int = 0
    """The octet after its end tag."""
    content_end: int = 0
    """The ``<`` of its end tag; of an empty-element tag the same as ``content``."""
    children: list[LocatedElement] = field(default_factory=list)
    attributes: tuple[LocatedAttribute, ...] = ()

    @property
    def name(self) -> str:
        """Clark name."""
        return self.element.name

    @property
    def is_empty_tag(self) -> bool:
        """True if it is written ``<name/>``."""
        return self.content == self.end


class _LocatedReader(DocumentReader):
    """Notes where tags begin and end; what is allowed is decided by its parents."""

    def __init__(self, limits: XmlLimits, data: bytes) -> None:
        self._data = data
        self._shift = 3 if data.startswith(b"\xef\xbb\xbf") else 0
        self._open: list[LocatedElement] = []
        self._declared: dict[str, str] = {}
        self.root: LocatedElement | None = None
        super().__init__(limits, ignore_encoding=False)

    def _start_namespace(self, prefix: str | None, uri: str | None) -> None:
        super()._start_namespace(prefix, uri)
        self._declared[prefix or ""] = uri or ""

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        super()._start(name, attributes)
        start = self._parser.CurrentByteIndex + self._shift
        parent = self._open[-1] if self._open else None
        namespaces = parent.namespaces if parent else {}
        if self._declared:
            namespaces = {prefix: uri for prefix, uri in (namespaces | self._declared).items() if uri}
            self._declared = {}
        raw_name = _TAG_NAME.match(self._data, start)
        assert raw_name, "expat says that a start tag begins here"
        content, located = _attributes(self._data, raw_name.end(), self._stack[-1], namespaces)
        one = LocatedElement(self._stack[-1], raw_name[1], namespaces, start, content, attributes=located)
        if parent is None:
            self.root = one
        else:
            parent.children.append(one)
        self._open.append(one)

    def _end(self, name: str) -> None:
        super()._end(name)
        one = self._open.pop()
        if self._data[one.content - 2 : one.content] == b"/>":
            one.end = one.content_end = one.content
        else:
            one.content_end = self._parser.CurrentByteIndex + self._shift
            one.end = self._data.index(b">", one.content_end) + 1


def _attributes(
    data: bytes, position: int, element: Element, namespaces: dict[str, str]
) -> tuple[int, tuple[LocatedAttribute, ...]]:
    """The octet after the start tag whose name ends at ``position``, and the attributes in between."""
    found: list[LocatedAttribute] = []
    while data[position : position + 1] not in (b">", b"/"):
        attribute = _ATTRIBUTE.match(data, position)
        if attribute is None:
            space = _SPACE.match(data, position + 1)  # in one step: a tag may hold a megabyte of it
            assert space is not None, "it may be empty"
            position = space.end()
            continue
        raw_name = attribute[1].decode()
        if raw_name != "xmlns" and not raw_name.startswith("xmlns:"):
            prefix, colon, local = raw_name.rpartition(":")
            namespace = XML_NAMESPACE if prefix == "xml" else namespaces[prefix] if colon else ""
            name = f"{{{namespace}}}{local}" if namespace else local
            group = 2 if attribute[2] is not None else 3
            span = (attribute.start(), attribute.start(group), attribute.end(group))
            found.append(LocatedAttribute(name, element.attributes[name], *span))
        position = attribute.end()
    return data.index(b">", position) + 1, tuple(found)


def locate(data: bytes, limits: XmlLimits | None = None) -> LocatedElement:
    """Read a whole document as ``parse_document`` does, with the places of its elements and attributes.

    Raises:
        RemoteProtocolError: as ``parse_document``.
    """
    reader = _LocatedReader(limits or XmlLimits(), data)
    try:
        reader.read(data)
    finally:
        reader.close()
    assert reader.root is not None
    return reader.root

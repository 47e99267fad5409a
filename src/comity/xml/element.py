"""What XML is to the rest of Comity: a tree of elements, the edges of a stream, and what one may cost.

Place on the path: what ``reader.py`` gives and ``writer.py`` takes. No octets here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

XML_NAMESPACE: Final = "http://www.w3.org/XML/1998/namespace"
XML_LANG: Final = f"{{{XML_NAMESPACE}}}lang"


class CData(str):
    """Text read from a CDATA section, or to be written as one; its meaning is that of plain text."""

    __slots__ = ()


class Element:
    """One element: a Clark name ``{namespace}local``, attributes by Clark name, children in document order."""

    __slots__ = ("attributes", "children", "name")

    def __init__(
        self, name: str, attributes: dict[str, str] | None = None, children: list[Element | str] | None = None
    ) -> None:
        self.name = name
        self.attributes: dict[str, str] = {} if attributes is None else attributes
        self.children: list[Element | str] = [] if children is None else children

    @property
    def namespace(self) -> str:
        """The namespace name, "" if the element is in none."""
        return self.name[1:].rpartition("}")[0] if self.name.startswith("{") else ""

    @property
    def local(self) -> str:
        """The name without its namespace."""
        return self.name.rpartition("}")[2]

    @property
    def text(self) -> str:
        """Character data directly inside, joined."""
        return "".join(child for child in self.children if isinstance(child, str))

    @property
    def language(self) -> str:
        """The element's own xml:lang, "" if it has none."""
        return self.attributes.get(XML_LANG, "")

    def get(self, name: str, default: str = "") -> str:
        """Value of the attribute ``name``."""
        return self.attributes.get(name, default)

    def elements(self) -> Iterator[Element]:
        """Child elements in order."""
        return iter([child for child in self.children if isinstance(child, Element)])

    def find(self, name: str) -> Element | None:
        """The first child element called ``name`` (Clark notation), or None."""
        for child in self.children:
            if isinstance(child, Element) and child.name == name:
                return child
        return None

    def find_all(self, name: str) -> list[Element]:
        """All child elements called ``name`` (Clark notation)."""
        return [child for child in self.children if isinstance(child, Element) and child.name == name]

    def append(self, child: Element | str) -> Element:
        """Add a child at the end; returns self."""
        self.children.append(child)
        return self

    def __eq__(self, other: object) -> bool:
        """Equal names, attributes and children; how text was cut or whether it was CDATA does not count."""
        if not isinstance(other, Element):
            return NotImplemented
        return (
            self.name == other.name
            and self.attributes == other.attributes
            and _joined(self.children) == _joined(other.children)
        )

    __hash__ = None  # type: ignore[assignment]  # mutable, like list

    def __repr__(self) -> str:
        return f"Element({self.name!r}, {self.attributes!r}, {self.children!r})"


def _joined(children: list[Element | str]) -> list[Element | str]:
    joined: list[Element | str] = []
    for child in children:
        if isinstance(child, str) and joined and isinstance(joined[-1], str):
            joined[-1] += str(child)
        elif child != "":
            joined.append(str(child) if isinstance(child, CData) else child)
    return joined


@dataclass(frozen=True, slots=True)
class XmlLimits:
    """What one stanza (or document) may cost (reliability.md section 6.2)."""

    octets: int = 256 * 1024
    depth: int = 64
    """Nesting, the stanza itself counting 1."""
    elements: int = 4096
    attributes: int = 64
    """Per element."""
    namespaces: int = 64
    """Declarations in scope at once."""
    name_length: int = 256
    slice: int = 4096
    """Most octets given to the parser in one call."""
    has_instructions: bool = False
    """Of a document: processing instructions are passed over, as comments are, instead of refused (RFC 3080 section 6.4)."""
    header: int = 8 * 1024
    """Octets of a stream's root: its start tag and what stands before it (X-28), at every stage."""


@dataclass(frozen=True, slots=True)
class RootOpened:
    """The start tag of the document element of a stream was read."""

    element: Element
    """Without children."""
    namespaces: dict[str, str]
    """Declared on it, by prefix; "" is the default namespace."""


@dataclass(frozen=True, slots=True)
class RootClosed:
    """The end tag of the document element was read."""


Unit = RootOpened | Element | RootClosed

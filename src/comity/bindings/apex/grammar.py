"""What the DTDs of APEX allow: elements, their attributes, and the types of their values.

Place on the path: under ``wire.py`` and ``service_wire.py``. The RFCs contradict their DTDs in places (X37); what their own
examples show is taken: ``transID`` may be missing on an option and on a ``reply`` inside ``destination``; ``Name`` belongs to
``data-content``. Everything else that the DTD does not have is not valid, namespaces included: 501.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, TypeVar

from comity.bindings.apex.endpoint import Endpoint
from comity.errors import AddressError, RemoteProtocolError
from comity.xml import XML_LANG, Element, XmlLimits, locate, parse_document
from comity.xml.located import LocatedElement

SILENTLY: Final = 0
"""The code that stands for none: the session ends without a word (P-30)."""
NOT_WELL_FORMED: Final = 500
NOT_VALID: Final = 501
NOT_IMPLEMENTED: Final = 504
AGAINST_POLICY: Final = 554

MAX_ID: Final = 2**31 - 1
_SPACE: Final = " \t\r\n"
_NUMBER = re.compile("[0-9]{1,10}")
_CODE = re.compile("[1-5][0-9][0-9]")
_NMTOKEN = re.compile(r"[\w.\-:·]+")
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:[^\s\x00-\x1f\x7f]+")

#: Octets are the session's to limit (a BEEP message); elements and depth are limited as everywhere.
_LIMITS = XmlLimits(octets=2**31, has_instructions=True)

_Tree = TypeVar("_Tree")


class WireError(RemoteProtocolError):
    """What a peer sent cannot be taken; ``code`` is the reply it gets (RFC 3340 section 10), ``SILENTLY`` for none."""

    def __init__(self, reason: str, code: int = NOT_VALID) -> None:
        super().__init__(reason, hint=str(code) if code else "")
        self.code = code


class Shape(NamedTuple):
    """What an element may have."""

    required: frozenset[str]
    allowed: frozenset[str]
    has_text: bool


def shape(required: str = "", optional: str = "", *, has_text: bool = False) -> Shape:
    """Attribute names separated by spaces; ``xml:lang`` stands for itself."""
    needed = frozenset(required.split())
    more = frozenset(XML_LANG if name == "xml:lang" else name for name in optional.split())
    return Shape(needed, needed | more, has_text)


def check(element: Element, allowed: Shape) -> None:
    """Raise WireError unless the element has the attributes of its shape, and text only where it may."""
    names = element.attributes.keys()
    if not allowed.required <= names:
        raise WireError(f"{element.local} lacks an attribute that it needs")
    if not names <= allowed.allowed:
        raise WireError(f"{element.local} has an attribute that it cannot have")
    if not allowed.has_text:
        for child in element.children:
            if isinstance(child, str) and child.strip(_SPACE):
                raise WireError(f"there is text inside {element.local}")


def leaf(element: Element) -> None:
    """Raise WireError if the element holds others."""
    for child in element.children:
        if isinstance(child, Element):
            raise WireError(f"{element.local} cannot hold an element")


def only_child(element: Element, name: str) -> Element:
    """The one element inside, of that name. Raises WireError."""
    inside = list(element.elements())
    if len(inside) != 1 or inside[0].name != name:
        raise WireError(f"{element.local} holds exactly one {name}")
    return inside[0]


# --- values ----------------------------------------------------------------------------------------------------------


def number(text: str, least: int = 0, most: int = MAX_ID) -> int:
    """A decimal number in its bounds."""
    if _NUMBER.fullmatch(text) and least <= (value := int(text)) <= most:
        return value
    raise WireError("a number is not one, or out of bounds")


def trans_id(text: str) -> int:
    """UNIQID."""
    return number(text, 1)


def code(text: str) -> int:
    """XYZ of RFC 3080."""
    if not _CODE.fullmatch(text):
        raise WireError("a reply code is not three digits")
    return int(text)


def boolean(text: str) -> bool:
    """true or false."""
    if text not in ("true", "false"):
        raise WireError("neither true nor false")
    return text == "true"


def endpoint(text: str) -> Endpoint:
    """ENDPOINT."""
    try:
        return Endpoint.parse(text)
    except AddressError as error:
        raise WireError(error.reason) from None


def nmtoken(text: str) -> str:
    """NMTOKEN."""
    if not _NMTOKEN.fullmatch(text):
        raise WireError("not a name token")
    return text


def absolute_uri(text: str) -> str:
    """An absolute URI, maybe with a fragment."""
    if not _ABSOLUTE_URI.fullmatch(text):
        raise WireError("not an absolute URI")
    return text


# --- documents -------------------------------------------------------------------------------------------------------


def document(octets: bytes) -> Element:
    """Read a whole XML document. Raises WireError."""
    return _reading(parse_document, octets)


def located(octets: bytes) -> LocatedElement:
    """The same with the places of its elements, for those that are handed on as they stand. Raises WireError."""
    return _reading(locate, octets)


def _reading(read: Callable[[bytes, XmlLimits], _Tree], octets: bytes) -> _Tree:
    if octets.startswith((b"<?xml", b"\xef\xbb\xbf<?xml")):
        raise WireError("application/beep+xml has no XML declaration (RFC 3080 section 6.4)", NOT_WELL_FORMED)
    try:
        return read(octets, _LIMITS)
    except RemoteProtocolError as error:
        if error.hint == "restricted-xml" and b"<!DOCTYPE" in octets:
            raise WireError("a document type declaration", SILENTLY) from None
        code = AGAINST_POLICY if error.hint == "policy-violation" else NOT_WELL_FORMED
        raise WireError(error.reason, code) from None

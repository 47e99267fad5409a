"""BER read within limits, DER written: the only ASN.1 that ``secure`` needs (X.690).

Place on the path: below ``cms.py``; octets of a signature go in, a tree of ``Element`` comes out. Reading takes
BER, because gpgsm and others write indefinite lengths and split octet strings; writing gives DER only.
The rule its readers must keep: every length, depth and count is bounded *before* it is used, and whatever
the octets, only ``BerError`` is raised; it may come as late as when something inside is first looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache

from comity.errors import SecurityError

MAX_DEPTH = 40
"""Nesting of a SignedData with certificates is about 14; a certificate in an attribute adds as many again."""
MAX_ELEMENTS = 4_000
"""Elements looked at in one read; some 15 ms (M-26: at most 50). A SignedData needs about 50 and 20 for each certificate."""
PIECE = 512
"""A piece of a split octet string of at least this size is not counted: reading it costs less than copying it. Streams come
in pieces of 1 to 16 KiB (openssl cms -stream, gpgsm)."""

CHUNK = 64 * 1024

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, UTF8_STRING = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0C
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31
CONSTRUCTED = 0x20


class BerError(SecurityError):
    """Octets that are not BER, or BER beyond our limits; ``offset`` counts from the start of what was read."""

    def __init__(self, reason: str, offset: int) -> None:
        self.reason = reason
        self.offset = offset
        super().__init__(f"{reason} (at octet {offset} of the ASN.1 data)")


class Element:
    """One element. What is inside is read when it is asked for: certificates and contents are passed over unread."""

    __slots__ = ("_at", "_children", "_depth", "_end", "_reader", "_stop", "is_definite", "offset", "tag")

    def __init__(
        self, reader: _Reader, tag: int, place: tuple[int, int, int, int], depth: int, *, is_definite: bool = True
    ) -> None:
        self.tag = tag
        """The identifier octet: class, constructed bit and number."""
        self.is_definite = is_definite
        self._reader = reader
        self.offset, self._at, self._stop, self._end = place
        """Where the element begins, its content begins, its content ends, and the element ends."""
        self._depth = depth
        self._children: tuple[Element, ...] | None = None if tag & CONSTRUCTED else ()

    @property
    def raw(self) -> memoryview:
        """The whole encoding as received."""
        return self._reader.data[self.offset : self._end]

    @property
    def body(self) -> memoryview:
        """The content octets, without an end-of-contents."""
        return self._reader.data[self._at : self._stop]

    @property
    def children(self) -> tuple[Element, ...]:
        """What is inside; () exactly for a primitive element or an empty one.

        Raises:
            BerError: what is inside is not BER or breaks a limit.
        """
        if self._children is None:
            found: list[Element] = []
            at = self._at
            while at < self._stop:
                child = self._reader.element(at, self._stop, self._depth + 1)
                at = child._end
                found.append(child)
            self._children = tuple(found)
        return self._children

    @property
    def is_constructed(self) -> bool:
        return bool(self.tag & CONSTRUCTED)

    def expect(self, tag: int) -> Element:
        """Return self if the identifier octet is ``tag``.

        Raises:
            BerError: it is another one.
        """
        if self.tag != tag:
            raise BerError(f"expected tag 0x{tag:02x}, found 0x{self.tag:02x}", self.offset)
        return self

    def oid(self) -> str:
        """Read as OBJECT IDENTIFIER, in dotted form."""
        self.expect(OID)
        try:
            return _dotted(bytes(self.body[:65]))
        except ValueError as error:
            raise BerError(str(error), self.offset) from None

    def integer(self) -> int:
        """Read as INTEGER of at most 64 octets."""
        self.expect(INTEGER)
        if not 1 <= len(self.body) <= 64:
            raise BerError("an integer of this length is not taken", self.offset)
        return int.from_bytes(self.body, "big", signed=True)

    def octets(self, tag: int = OCTET_STRING) -> bytes:
        """Read as OCTET STRING, joining the pieces of a constructed one; ``tag`` is its implicit tag."""
        return b"".join(self.pieces(tag))

    def pieces(self, tag: int = OCTET_STRING) -> Iterator[memoryview]:
        """The octets of an OCTET STRING piece by piece, without a copy; ``tag`` is its implicit tag."""
        if self.tag == tag:
            yield self.body
        elif self.tag == tag | CONSTRUCTED:
            for piece in self.children:
                yield from piece.pieces()
        else:
            raise BerError("expected an octet string", self.offset)

    def chunks(self, tag: int = OCTET_STRING) -> Iterator[memoryview]:
        """As ``pieces``, but none larger than ``CHUNK``, for what is done with much content a little at a time."""
        for piece in self.pieces(tag):
            for at in range(0, len(piece), CHUNK):
                yield piece[at : at + CHUNK]

    def time(self) -> datetime:
        """Read as UTCTime or GeneralizedTime in the form DER allows (RFC 5652 section 11.3)."""
        text = bytes(self.body).decode("ascii", "replace")
        try:
            if self.tag == UTC_TIME:
                year = int(text[:2])
                century = "19" if year >= 50 else "20"
                return datetime.strptime(century + text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
            self.expect(GENERALIZED_TIME)
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise BerError("a time is not in the form YYMMDDHHMMSSZ", self.offset) from error

    def der(self) -> bytes:
        """Write the element again as DER: definite lengths, joined strings, SET OF in order."""
        if not self.is_constructed:
            return tlv(self.tag, self.body)
        if self.tag == OCTET_STRING | CONSTRUCTED:
            return tlv(OCTET_STRING, self.octets())
        parts = [child.der() for child in self.children]
        return tlv(self.tag, *(sorted(parts) if self.tag == SET else parts))


@lru_cache(maxsize=256)
def _dotted(body: bytes) -> str:
    """The contents of an OBJECT IDENTIFIER in dotted form; the same few come again and again. Raises ValueError."""
    if not 1 <= len(body) <= 64 or body[-1] & 0x80:
        raise ValueError("an object identifier of this length is not taken")
    arcs: list[int] = []
    value = 0
    for octet in body:
        if value == 0 and octet == 0x80:
            raise ValueError("an object identifier is padded")
        value = value << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


class _Reader:
    """Carries the octets and the count of elements through one read."""

    __slots__ = ("data", "left")

    def __init__(self, data: memoryview, left: int) -> None:
        self.data = data
        self.left = left

    def element(self, start: int, end: int, depth: int) -> Element:
        """Read the element at ``start``, which must end before ``end``."""
        data = self.data
        self.left -= 1
        if depth > MAX_DEPTH or self.left < 0:
            raise BerError("too deep or too many elements", start)
        if end - start < 2:
            raise BerError("the data ends inside an element", start)
        tag = data[start]
        if tag & 0x1F == 0x1F:
            raise BerError("tag numbers over 30 are not used in CMS", start)
        length = data[start + 1]
        at = start + 2
        if length >= 0x80:
            if length == 0x80:
                return self._indefinite(tag, start, end, depth)
            at, length = self._long_length(start + 1, end)
        stop = at + length
        if stop > end:
            raise BerError("an element is longer than what holds it", start)
        if tag == OCTET_STRING and length >= PIECE:
            self.left += 1
        return Element(self, tag, (start, at, stop, stop), depth)

    def _long_length(self, at: int, end: int) -> tuple[int, int]:
        count = self.data[at] & 0x7F
        if count > 8 or at + 1 + count > end:
            raise BerError("a length field that cannot be read", at)
        return at + 1 + count, int.from_bytes(self.data[at + 1 : at + 1 + count], "big")

    def _indefinite(self, tag: int, start: int, end: int, depth: int) -> Element:
        """Read an element that ends where the end-of-contents octets stand: what is inside has to be read now."""
        if not tag & CONSTRUCTED:
            raise BerError("an indefinite length on a primitive element", start)
        children: list[Element] = []
        at = start + 2
        while bytes(self.data[at : at + 2]) != b"\0\0":
            child = self.element(at, end, depth + 1)
            at = child._end
            children.append(child)
        if at + 2 > end:
            raise BerError("an end-of-contents is missing", at)
        element = Element(self, tag, (start, start + 2, at, at + 2), depth, is_definite=False)
        element._children = tuple(children)
        return element


def read(data: bytes | memoryview, *, max_elements: int = MAX_ELEMENTS) -> Element:
    """Read exactly one element that fills ``data``; what is inside it is read when it is looked at.

    Raises:
        BerError: the octets are not BER, go on after the element, or break a limit.
    """
    view = memoryview(data).toreadonly()
    element = _Reader(view, max_elements).element(0, len(view), 0)
    if element._end != len(view):
        raise BerError("there are octets after the end", element._end)
    return element


class Cursor:
    """Walks the children of a SEQUENCE in order, optional ones by tag."""

    def __init__(self, parent: Element) -> None:
        self._parent = parent
        self._children = parent.children
        self._at = 0

    def next(self, tag: int | None = None) -> Element:
        """The next child, which must be there (and be ``tag`` if given)."""
        if self._at >= len(self._children):
            raise BerError("a required field is missing", self._parent.offset)
        element = self._children[self._at]
        if tag is not None:
            element.expect(tag)
        self._at += 1
        return element

    def optional(self, *tags: int) -> Element | None:
        """The next child if its tag is one of ``tags``, else None and nothing moves."""
        if self._at < len(self._children) and self._children[self._at].tag in tags:
            return self.next()
        return None

    def end(self) -> None:
        """Make sure that nothing is left."""
        if self._at < len(self._children):
            raise BerError("there is a field too many", self._children[self._at].offset)


def only(parent: Element) -> Element:
    """What is inside ``parent``, which must be one element: of two, two readers would take different ones."""
    fields = Cursor(parent)
    element = fields.next()
    fields.end()
    return element


# --- writing ---------------------------------------------------------------------------------------------------


def tlv(tag: int, *parts: bytes | memoryview) -> bytes:
    """Write one element with definite, minimal length."""
    return b"".join((_head(tag, sum(map(len, parts))), *parts))


def unjoined(tag: int, *parts: bytes | Sequence[bytes]) -> list[bytes]:
    """As ``tlv``, but in pieces: large contents are copied once, when the outermost element is joined."""
    pieces = [piece for part in parts for piece in ((part,) if isinstance(part, bytes) else part)]
    return [_head(tag, sum(map(len, pieces))), *pieces]


def _head(tag: int, size: int) -> bytes:
    """Identifier and length octets."""
    if size < 0x80:
        return bytes((tag, size))
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length


def sequence(*parts: bytes) -> bytes:
    """Write a SEQUENCE."""
    return tlv(SEQUENCE, *parts)


def set_of(parts: Iterable[bytes], tag: int = SET) -> bytes:
    """Write a SET OF in the order DER asks for; ``tag`` is its implicit tag."""
    return tlv(tag, *sorted(parts))


def integer(value: int) -> bytes:
    """Write an INTEGER."""
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octet_string(value: bytes) -> bytes:
    """Write an OCTET STRING."""
    return tlv(OCTET_STRING, value)


def oid(dotted: str) -> bytes:
    """Write an OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    body = bytearray()
    for arc in (first * 40 + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        body += bytes(reversed(septets))
    return tlv(OID, bytes(body))


def time(when: datetime) -> bytes:
    """Write a time: UTCTime through 2049, GeneralizedTime after (RFC 5652 section 11.3)."""
    when = when.astimezone(UTC)
    if 1950 <= when.year < 2050:
        return tlv(UTC_TIME, when.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(GENERALIZED_TIME, f"{when.year:04}".encode() + when.strftime("%m%d%H%M%SZ").encode())


NULL_DER = tlv(NULL)

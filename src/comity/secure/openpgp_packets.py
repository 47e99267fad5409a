"""OpenPGP framing within limits: ASCII armor and packets, nothing inside them (RFC 9580 sections 4.2 and 6, RFC 4880).

Place on the path: below ``openpgp.py`` and its siblings; octets from outside go in, exact packets come out, and only what
passed here is ever shown to pysequoia. Its own reader descends into compressed packets without a bound, takes text before
an armor, and reads on after the first signature. The rule its readers must keep: sizes and counts are bounded *before*
they are used, a packet's ``raw`` is what was received, and whatever the octets, only ``MalformedMessage`` is raised.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection
from dataclasses import dataclass, field

from comity.errors import MalformedMessage

MAX_PACKETS = 100
"""Packets in one object (reliability.md M-35)."""
MAX_PARTS = 100_000
"""Pieces of one packet of partial lengths: gpg writes 8 KiB ones, the smallest allowed is 512 octets at first."""

PKESK, SIGNATURE, SKESK, ONE_PASS, SECRET_KEY, PUBLIC_KEY, SECRET_SUBKEY = 1, 2, 3, 4, 5, 6, 7
COMPRESSED, SED, MARKER, LITERAL, TRUST, USER_ID, PUBLIC_SUBKEY, USER_ATTRIBUTE = 8, 9, 10, 11, 12, 13, 14, 17
SEIPD, MDC, PADDING = 18, 19, 21
IGNORED = frozenset({MARKER, PADDING})
"""Packets that mean nothing anywhere (RFC 9580 sections 5.8 and 5.14)."""
_MAY_BE_PARTIAL = frozenset({COMPRESSED, SED, LITERAL, SEIPD})  # RFC 9580 section 4.2.1.4: data packets only

_BEGIN = re.compile(rb"[ \t\r\n]*-----BEGIN PGP ([A-Z ]{1,32})-----[ \t]*\r?\n")
_HEADER = re.compile(rb"[A-Za-z][A-Za-z-]{0,31}:(?: [^\r\n\f\v\0]{0,256})?\r?\n")
_EMPTY_LINE = re.compile(rb"[ \t]*\r?\n")
_CHECKSUM = re.compile(rb"=[A-Za-z0-9+/]{4}[ \t]*\r?\n")
_END = re.compile(rb"-----END PGP [A-Z ]{1,32}-----[ \t\r\n]*")
_PIECE = 64 * 1024
"""Octets of base64 that are decoded at once."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet as received; views of it, because encrypted ones are large."""

    tag: int
    content: memoryview = field(repr=False)
    """What is in it; partial lengths joined."""
    encoded: memoryview = field(repr=False)

    @property
    def body(self) -> bytes:
        """A copy of its content."""
        return bytes(self.content)

    @property
    def raw(self) -> bytes:
        """A copy of header and body, octet for octet."""
        return bytes(self.encoded)


def dearmor(data: bytes, labels: Collection[bytes]) -> bytes:
    """Take the ASCII armor off; binary packets are given back as they are.

    One block fills the data: no text before it, none after it, no second one. The checksum is read over, right or wrong,
    as RFC 9580 section 6.1 wants; it protects nothing.

    Args:
        data: what arrived.
        labels: the armors that are taken, such as ``b"SIGNATURE"``.

    Raises:
        MalformedMessage: it is neither packets nor exactly one such armor.
    """
    if data[:1] >= b"\x80":  # every packet begins with this bit, no armor does
        return data
    begin = _BEGIN.match(data)
    if begin is None:
        raise MalformedMessage("the OpenPGP data is neither packets nor ASCII armor", offset=0)
    if begin[1] not in labels:
        raise MalformedMessage("the ASCII armor is of another kind than is expected here", offset=0)
    at = begin.end()
    while header := _HEADER.match(data, at):
        at = header.end()
    empty = _EMPTY_LINE.match(data, at)
    tail = data.rfind(b"\n-----END PGP " + begin[1] + b"-----")
    if empty is None or tail < empty.end() - 1 or not _END.fullmatch(data, tail + 1):
        raise MalformedMessage("the ASCII armor is not whole", offset=at)
    checksum = data.rfind(b"\n=", empty.end() - 1, tail)
    if checksum >= 0 and _CHECKSUM.fullmatch(data, checksum + 1, tail + 1):
        tail = checksum
    return _decoded(data, empty.end(), tail)


def _decoded(data: bytes, start: int, end: int) -> bytes:
    """Undo base64 piece by piece: a large object is not held several times over."""
    parts: list[bytes] = []
    rest = b""
    for at in range(start, end, _PIECE):
        coded = rest + data[at : min(at + _PIECE, end)].translate(None, b" \t\r\n")
        whole = len(coded) // 4 * 4
        rest = coded[whole:]
        try:
            if parts and len(parts[-1]) % 3:
                raise binascii.Error("something after the padding")
            parts.append(binascii.a2b_base64(coded[:whole], strict_mode=True))
        except binascii.Error:
            raise MalformedMessage("the ASCII armor is not base64", offset=at) from None
    if rest:
        raise MalformedMessage("the ASCII armor is not base64", offset=end)
    return b"".join(parts)


def read_packets(octets: bytes | memoryview, limit: int = MAX_PACKETS) -> list[Packet]:
    """Split octets into packets; nothing is opened, nothing is left over.

    Raises:
        MalformedMessage: they are not packets; the hint is "size" when there are more than ``limit``.
    """
    data = memoryview(octets)
    found: list[Packet] = []
    at = 0
    while at < len(data):
        if len(found) >= limit:
            raise MalformedMessage(f"there are more than {limit} OpenPGP packets", offset=at, hint="size")
        packet, at = _read_packet(data, at)
        found.append(packet)
    return found


def _read_packet(data: memoryview, start: int) -> tuple[Packet, int]:
    first = data[start]
    if not first & 0x80:
        raise MalformedMessage("an OpenPGP packet does not begin with its mark", offset=start)
    if first & 0x40:
        return _new_format(data, start, first & 0x3F)
    tag = first >> 2 & 0x0F
    if tag == 0:
        raise MalformedMessage("the OpenPGP packet type 0 is reserved", offset=start)
    if first & 3 == 3:  # indeterminate length: up to the end (RFC 4880 section 4.2.1)
        if tag not in _MAY_BE_PARTIAL:
            raise MalformedMessage("an OpenPGP packet of this type needs a length", offset=start)
        return Packet(tag, data[start + 1 :], data[start:]), len(data)
    size = 1 << (first & 3)
    at = start + 1 + size
    length = int.from_bytes(data[start + 1 : at], "big")
    _check_end(data, at + length, start)
    return Packet(tag, data[at : at + length], data[start : at + length]), at + length


def _new_format(data: memoryview, start: int, tag: int) -> tuple[Packet, int]:
    if tag == 0:
        raise MalformedMessage("the OpenPGP packet type 0 is reserved", offset=start)
    parts: list[memoryview] = []
    at = start + 1
    for _ in range(MAX_PARTS):
        at, length, is_partial = _length(data, at, start)
        if is_partial and (tag not in _MAY_BE_PARTIAL or (not parts and length < 512)):
            raise MalformedMessage("an OpenPGP packet has a partial length where none is allowed", offset=start)
        _check_end(data, at + length, start)
        parts.append(data[at : at + length])
        at += length
        if not is_partial:
            content = parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
            return Packet(tag, content, data[start:at]), at
    raise MalformedMessage("an OpenPGP packet has too many pieces", offset=start, hint="size")


def _length(data: memoryview, at: int, start: int) -> tuple[int, int, bool]:
    """Read a length of the new format; give where it ends, the length and whether more pieces follow."""
    _check_end(data, at + 1, start)
    first = data[at]
    if first < 192:
        return at + 1, first, False
    if first < 224:
        _check_end(data, at + 2, start)
        return at + 2, (first - 192 << 8) + data[at + 1] + 192, False
    if first < 255:
        return at + 1, 1 << (first & 0x1F), True
    _check_end(data, at + 5, start)
    return at + 5, int.from_bytes(data[at + 1 : at + 5], "big"), False


def _check_end(data: memoryview, end: int, start: int) -> None:
    if end > len(data):
        raise MalformedMessage("an OpenPGP packet is longer than the data", offset=start)


class Fields:
    """Reads the fields of a packet's body from front to back; short ones are malformed."""

    def __init__(self, body: bytes | memoryview) -> None:
        self.body = memoryview(body)
        self.at = 0

    def take(self, size: int) -> bytes:
        """The next ``size`` octets."""
        end = self.at + size
        if end > len(self.body):
            raise MalformedMessage("an OpenPGP packet ends inside a field")
        taken = bytes(self.body[self.at : end])
        self.at = end
        return taken

    def number(self, size: int) -> int:
        """The next ``size`` octets as an unsigned number."""
        return int.from_bytes(self.take(size), "big")

    def mpi(self) -> bytes:
        """A multiprecision integer, as octets without its bit count (RFC 9580 section 3.2)."""
        return self.take((self.number(2) + 7) // 8)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self.body) - self.at)


def packet(tag: int, body: bytes) -> bytes:
    """Write a packet in the new format."""
    size = len(body)
    if size < 192:
        length = bytes((size,))
    elif size < 8384:
        length = bytes((192 + (size - 192 >> 8), size - 192 & 0xFF))
    else:
        length = b"\xff" + size.to_bytes(4, "big")
    return bytes((0xC0 | tag,)) + length + body

"""Rows of ``records`` straight from the pages of a damaged database, where SQLite itself gives up.

Takes the octets of a main file and its log, gives every row of that table's shape found in any leaf page, whether the
tree above it is whole or not (sqlite.org/fileformat2.html sections 1.6, 2.1 and 4). Older copies of a page may hold
rows that were changed since: the caller decides by digest and by what else it knows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

PAGE = 4096
"""Comity's databases have SQLite's default page size."""
FRAME = 24
LOG_HEADER = 32
_TABLE_LEAF = 0x0D
COLUMNS = 14
"""Of ``records``, as migration 1 made it."""

Value = None | int | float | str | bytes
Row = tuple[Value, ...]


def pages_of(file: bytes) -> dict[int, bytes]:
    """Pages of a main file by number; a last one that is cut off is filled up with zeros."""
    return {start // PAGE + 1: file[start : start + PAGE].ljust(PAGE, b"\0") for start in range(0, len(file), PAGE)}


def pages_of_log(log: bytes) -> Iterator[tuple[int, bytes]]:
    """Pages of a log by number, oldest first, valid or not."""
    for start in range(LOG_HEADER, len(log) - FRAME - PAGE + 1, FRAME + PAGE):
        (number,) = struct.unpack(">I", log[start : start + 4])
        if number:
            yield number, log[start + FRAME : start + FRAME + PAGE]


def rows(page: bytes, others: Mapping[int, bytes]) -> Iterator[Row]:
    """Rows of ``records`` in one page, the number first; ``others`` are where they go on."""
    if page[0] != _TABLE_LEAF:
        return
    (count,) = struct.unpack(">H", page[3:5])
    for place in range(min(count, (PAGE - 8) // 2)):
        (start,) = struct.unpack(">H", page[8 + 2 * place : 10 + 2 * place])
        try:
            row = _row(page, start, others)
        except (IndexError, KeyError, struct.error, ValueError):
            continue  # not a row of ours, or one that is not whole
        if row is not None:
            yield row


def _row(page: bytes, start: int, others: Mapping[int, bytes]) -> Row | None:
    size, place = _varint(page, start)
    number, place = _varint(page, place)
    if size > len(others) * PAGE + PAGE:
        return None
    values = _values(_payload(page, place, size, others))
    return (number, *values[1:]) if len(values) == COLUMNS and values[0] is None else None


def _payload(page: bytes, place: int, size: int, others: Mapping[int, bytes]) -> bytes:
    """A cell's payload, followed through its overflow pages."""
    most, least = PAGE - 35, (PAGE - 12) * 32 // 255 - 23
    if size <= most:
        return page[place : place + size]
    local = least + (size - least) % (PAGE - 4)
    local = local if local <= most else least
    parts, left = [page[place : place + local]], size - local
    (following,) = struct.unpack(">I", page[place + local : place + local + 4])
    seen: set[int] = set()
    while left > 0:
        if following in seen:
            raise ValueError("a chain that bites its tail")
        seen.add(following)
        more = others[following]
        parts.append(more[4 : 4 + min(left, PAGE - 4)])
        left -= PAGE - 4
        (following,) = struct.unpack(">I", more[:4])
    return b"".join(parts)


def _varint(octets: bytes, place: int) -> tuple[int, int]:
    value = 0
    for count in range(9):
        octet = octets[place]
        place += 1
        if count == 8:
            return (value << 8) | octet, place
        value = (value << 7) | (octet & 0x7F)
        if octet < 0x80:
            break
    return value, place


_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}


def _values(payload: bytes) -> list[Value]:
    """The columns of one record."""
    end, place = _varint(payload, 0)
    kinds = []
    while place < end:
        kind, place = _varint(payload, place)
        kinds.append(kind)
        if len(kinds) > COLUMNS:
            return []
    values: list[Value] = []
    for kind in kinds:
        length = _INTEGERS.get(kind) or (8 if kind == 7 else (kind - 12) // 2 if kind >= 12 else 0)
        octets = payload[place : place + length]
        if len(octets) < length:
            raise ValueError("cut off")
        place += length
        values.append(_value(kind, octets))
    return values


def _value(kind: int, octets: bytes) -> Value:
    if kind in _INTEGERS:
        return int.from_bytes(octets, "big", signed=True)
    if kind == 7:
        (number,) = struct.unpack(">d", octets)
        return float(number)
    if kind in (8, 9):
        return kind - 8
    if kind < 12:
        return None
    return octets.decode("utf-8") if kind % 2 else octets

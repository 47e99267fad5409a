#!/usr/bin/env python3
"""A SIP connection: the same units come out however the octets are cut, and nothing is kept beyond the limits."""

from __future__ import annotations

from run import run

from comity.bindings.sip.wire import Malformed, StreamReader, Unit


def units(chunks: list[bytes]) -> list[Unit]:
    reader, found = StreamReader(), []
    for chunk in chunks:
        reader.feed(chunk)
        while (unit := reader.next_unit()) is not None:
            found.append(unit)
    return found


def one_input(data: bytes) -> None:
    """The first octet says how the others are cut."""
    size, octets = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    whole = units([octets])
    pieces = units([octets[start : start + size] for start in range(0, len(octets), size)])
    assert list(map(plain, pieces)) == list(map(plain, whole)), (size, pieces, whole)


def plain(unit: Unit) -> str:
    """Which of several faults of one message is named first may depend on how much of it is there."""
    return f"Malformed {unit.is_framed}" if isinstance(unit, Malformed) else repr(unit)


if __name__ == "__main__":
    run(one_input)

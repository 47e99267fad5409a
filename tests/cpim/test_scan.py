"""comity.cpim.scan: headers from a stream (CONSTR-2)."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest

from comity.cpim.header import CpimHeader
from comity.cpim.message import CpimLimits, CpimMessage
from comity.cpim.scan import ContentHeader, scan_headers
from comity.errors import MalformedMessage

RAW = (
    "From: Žluť <im:a@x.example>\r\nTo: <im:b@y.example>\r\nNS: p <urn:x>\r\np.Foo: 1\r\n\r\n"
    "Content-Type: text/plain;\r\n charset=utf-8\r\nContent-ID: <1@x>\r\n\r\nbody\r\n\r\nmore"
).encode()


def test_every_cut_gives_the_view_of_the_whole() -> None:
    message = CpimMessage.parse(RAW)
    for size in range(1, len(RAW)):
        chunks = [RAW[start : start + size] for start in range(0, len(RAW), size)]
        found = list(scan_headers(chunks))
        assert tuple(header for header in found if isinstance(header, CpimHeader)) == message.headers
        pairs = tuple((header.name, header.value) for header in found if isinstance(header, ContentHeader))
        assert pairs == message.content_headers
        assert all(RAW[header.offset :].startswith(header.name.encode()) for header in found[-2:])


def test_large_object_is_scanned_in_little_memory_and_its_body_left_unread() -> None:
    """CONSTR-2: a 64 MiB object costs less than 1 MiB."""
    taken = 0

    def chunks() -> Iterator[bytes]:
        nonlocal taken
        yield RAW
        for _ in range(1024):
            taken += 1
            yield bytes(65536)

    tracemalloc.start()
    try:
        names = [header.name for header in scan_headers(chunks())]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert names == ["From", "To", "NS", "Foo", "Content-Type", "Content-ID"]
    assert taken == 0
    assert peak < 2**20


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        RAW[:60],
        RAW[: RAW.index(b"Content-ID")],
        RAW.replace(b"\r\n", b"\n"),
        RAW.replace(b"Content-Type", b"Content-Tape"),
        RAW.replace(b"p.Foo", b"p/Foo"),
        RAW.replace(b"To: ", b"To: \xff"),
        b"From: <im:a@x>\r\n\r\n folded: x\r\n\r\n",
    ],
)
def test_malformed_headers_are_refused(raw: bytes) -> None:
    with pytest.raises(MalformedMessage):
        list(scan_headers([raw]))


@pytest.mark.parametrize(
    "raw",
    [b"X: " + b"y" * 9000, b"X: " + b"y" * 9000 + b"\r\n", b"X: y\r\n" * 65, b"\r\nX: y\r\n" + b" z\r\n" * 5000],
)
def test_memory_is_bounded_by_the_longest_header(raw: bytes) -> None:
    """CONSTR-1."""
    with pytest.raises(MalformedMessage) as error:
        list(scan_headers([raw], limits=CpimLimits()))
    assert error.value.hint == "size"

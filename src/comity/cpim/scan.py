"""Reading the headers of a message/cpim object as it arrives, without the object (CONSTR-2).

Place on the path: beside ``message.py``, for devices with little memory and for objects too large to hold: the memory
used is one chunk and the longest header, and nothing after the content's headers is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from comity.cpim.header import BAD_OCTET, CpimHeader, Namespaces, header_text, read_header
from comity.cpim.message import DEFAULT, CpimLimits, read_mime_headers
from comity.errors import MalformedMessage


class ContentHeader(NamedTuple):
    """One MIME header of the content."""

    name: str
    value: str
    """Unfolded."""
    offset: int
    """Of its first octet in the object."""


def scan_headers(chunks: Iterable[bytes], *, limits: CpimLimits = DEFAULT) -> Iterator[CpimHeader | ContentHeader]:
    """Give the message headers, then the content's MIME headers, each as soon as it has arrived.

    Args:
        chunks: the object from its first octet, cut anywhere; none is taken once the content begins.
        limits: ``header`` and ``headers`` count; the object's size does not.

    Raises:
        MalformedMessage: the headers are malformed (those of From, To and cc are not looked into) or pass a limit.
    """
    lines = _lines(chunks, limits)
    scope = Namespaces()
    for raw, offset in _section(lines, limits):
        yield read_header(header_text(raw, offset, BAD_OCTET), raw, offset, scope)[0]
    types = 0
    for raw, offset in _section(_unfolded(lines, limits), limits):
        ((name, value),) = read_mime_headers(raw + b"\r\n", offset, limits)
        types += name.lower() == "content-type"
        yield ContentHeader(name, value, offset)
    if types != 1:
        raise MalformedMessage("the content has several Content-Types" if types else "the content has no Content-Type")


Line = tuple[bytes, int]


def _section(lines: Iterator[Line], limits: CpimLimits) -> Iterator[Line]:
    """The lines up to the next empty one."""
    for count, (raw, offset) in enumerate(lines):
        if not raw:
            return
        if count >= limits.headers:
            raise MalformedMessage("there are more headers than allowed", offset=offset, hint="size")
        yield raw, offset


def _unfolded(lines: Iterator[Line], limits: CpimLimits) -> Iterator[Line]:
    """Join folded lines (MIME headers only), which takes one line of looking ahead."""
    held: Line | None = None
    for raw, offset in lines:
        if held is not None and raw[:1] in (b" ", b"\t"):
            held = (held[0] + b"\r\n" + raw, held[1])
            if len(held[0]) > limits.header:
                raise _too_long(held[1])
            continue
        if held is not None:
            yield held
        held = (raw, offset)
        if not raw:
            yield held
            return


def _lines(chunks: Iterable[bytes], limits: CpimLimits) -> Iterator[Line]:
    """Cut into lines ended by CR LF; ends by the reader's stopping or by MalformedMessage."""
    buffer = bytearray()
    offset = 0
    for chunk in chunks:
        buffer += chunk
        start = 0
        while (end := buffer.find(b"\r\n", start)) >= 0:
            if end - start > limits.header:
                raise _too_long(offset)
            yield bytes(buffer[start:end]), offset
            offset += end + 2 - start
            start = end + 2
        del buffer[:start]
        if len(buffer) > limits.header + 1:
            raise _too_long(offset)
    raise MalformedMessage("the object ends within its headers", offset=offset + len(buffer))


def _too_long(offset: int) -> MalformedMessage:
    return MalformedMessage("a header is longer than allowed", offset=offset, hint="size")

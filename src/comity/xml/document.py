"""A whole XML document in one piece: stored extensions, PIDF, presence rules, resource lists.

Place on the path: beside it, for what is not a stream; the rules are the reader's. Errors name the octet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from xml.parsers import expat

from comity.errors import RemoteProtocolError
from comity.xml.element import Element, XmlLimits
from comity.xml.reader import SLICE, StreamReader

_REFUSING: Final = (
    *("XmlDeclHandler", "StartDoctypeDeclHandler", "ProcessingInstructionHandler", "SkippedEntityHandler"),
    *("StartNamespaceDeclHandler", "StartElementHandler"),
)


class DocumentReader(StreamReader):
    """A whole document as one "stanza": its root counts as depth 1. Comments are skipped, as they say nothing."""

    def __init__(self, limits: XmlLimits, ignore_encoding: bool) -> None:
        super().__init__(limits)
        self._ignore_encoding = ignore_encoding
        self._depth = 1
        self._make_parser()
        self._parser.CommentHandler = None
        for handler in _REFUSING:
            setattr(self._parser, handler, self._placed(getattr(self._parser, handler)))
        if limits.has_instructions:
            self._parser.ProcessingInstructionHandler = None

    def read(self, data: bytes) -> Element:
        if len(data) > self.limits.octets:
            raise RemoteProtocolError("the document is too long", offset=self.limits.octets, hint="policy-violation")
        mark = len(data)
        data = data.removeprefix(b"\xef\xbb\xbf")
        mark -= len(data)
        self._check_beginning(data)
        try:
            for start in range(0, len(data), SLICE):
                self._parser.Parse(data[start : start + SLICE], False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            place = self._parser.ErrorByteIndex
            why = self._explain(error, data[max(place - 2, 0) : place + 3])
            raise RemoteProtocolError(why.reason, offset=mark + place, hint=why.hint) from None
        except RemoteProtocolError as error:
            raise RemoteProtocolError(error.reason, offset=mark + (error.offset or 0), hint=error.hint) from None
        unit = self.next_unit()
        assert isinstance(unit, Element)
        return unit

    def close(self) -> None:
        """Read no more, and let the parser go: its handlers hold it."""
        for handler in _REFUSING:
            setattr(self._parser, handler, None)
        super().close()

    def _placed(self, handler: Callable[..., None]) -> Callable[..., None]:
        """``handler`` with the octet in its errors: expat reads its slice to the end before an exception gets out."""
        parser = self._parser

        def call(*args: object) -> None:
            try:
                handler(*args)
            except RemoteProtocolError as error:
                raise RemoteProtocolError(error.reason, offset=parser.CurrentByteIndex, hint=error.hint) from None

        return call

    def _xml_declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        super()._xml_declaration(version, None if self._ignore_encoding else encoding, standalone)


def parse_document(data: bytes, limits: XmlLimits | None = None, *, ignore_encoding: bool = False) -> Element:
    """Read a whole XML document (UTF-8, no DTD, no processing instructions); comments are skipped.

    Args:
        data: the document, with or without a byte order mark and an XML declaration.
        limits: what it may cost.
        ignore_encoding: read UTF-8 whatever the declaration says, because a MIME charset says so, which beats it
            (RFC 3863 section 4.1).

    Raises:
        RemoteProtocolError: it is not well-formed, not allowed or over a limit.
    """
    reader = DocumentReader(limits or XmlLimits(), ignore_encoding)
    try:
        return reader.read(data)
    finally:
        reader.close()

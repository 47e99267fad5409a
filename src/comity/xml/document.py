"""A whole XML document in one piece: stored extensions, PIDF, resource lists.

Place on the path: beside it, for what is not a stream; the rules are the reader's.
"""

from __future__ import annotations

from xml.parsers import expat

from comity.xml.element import Element, XmlLimits
from comity.xml.reader import SLICE, StreamReader, refuse


class _DocumentReader(StreamReader):
    """A whole document as one "stanza": its root counts as depth 1. Comments are skipped, as they say nothing."""

    def __init__(self, limits: XmlLimits) -> None:
        super().__init__(limits)
        self._depth = 1
        self._make_parser()
        self._parser.CommentHandler = None
        self.document: Element | None = None

    def read(self, data: bytes) -> Element:
        if len(data) > self.limits.octets:
            raise refuse("the document is too long", "policy-violation")
        data = data.removeprefix(b"\xef\xbb\xbf")
        self._check_beginning(data)
        try:
            for start in range(0, len(data), SLICE):
                self._parser.Parse(data[start : start + SLICE], False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            place = self._parser.ErrorByteIndex
            raise self._explain(error, data[max(place - 2, 0) : place + 3]) from None
        unit = self.next_unit()
        assert isinstance(unit, Element)
        return unit


def parse_document(data: bytes, limits: XmlLimits | None = None) -> Element:
    """Read a whole XML document (UTF-8, no DTD, no processing instructions); comments are skipped.

    Raises:
        RemoteProtocolError: it is not well-formed, not allowed or over a limit.
    """
    return _DocumentReader(limits or XmlLimits()).read(data)

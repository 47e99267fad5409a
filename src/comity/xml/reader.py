"""Octets to element trees, a stream at a time: where the peer's octets meet expat.

Place on the path: under step 2. The interpreter's expat may be as old as 2.5.0, so nothing is left to it that could
cost more than it should:

* no DTD, processing instruction, comment or undefined entity (RFC 6120 section 11.1), UTF-8 only (11.6);
* caps on octets, depth, elements, attributes, namespaces and name length, octets checked before each slice;
* at most 4 KiB are fed at once. Small reads are joined: expat scans an unfinished tag from its start at every
  feed, so 1 MiB in 64-octet pieces would cost 5 s. A tag is fed early only if it can be complete, which a
  linear scan for quotation marks tells;
* expat keeps every name it ever saw; the parser is renewed between two stanzas when that table has grown;
* a parser costs 14 KiB. A stream has one only from its first octet on, and a resting one (``rest``) has none.

Whatever the octets, readers raise RemoteProtocolError only; its ``hint`` is the stream error condition.
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from typing import Final
from xml.parsers import expat

from comity.errors import RemoteProtocolError
from comity.xml.element import CData, Element, RootClosed, RootOpened, Unit, XmlLimits
from comity.xml.writer import escape_attribute

SLICE: Final = 4096
"""Most octets given to expat in one call."""
_SPACE: Final = " \t\r\n"
"""White space of XML; Python's own ``isspace`` knows more."""
JOIN: Final = 1024
"""Reads smaller than this wait for more unless a tag can be complete."""
NAMES_BEFORE_RENEWAL: Final = 1024
"""Names the parser may have seen before it is renewed at the next stanza edge."""

TEXT_BUFFER: Final = 2048
"""Octets of text that expat joins before it hands them over; its own 8 KiB would be half of an idle stream."""

_CHARACTER = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@]|%[0-9A-Fa-f]{2})"
_HOST = _CHARACTER.replace(":@", "")
_USER = _CHARACTER.replace("@", "")
_NO_COLON = _CHARACTER.replace(":@", "@")
_FULL_PATH = rf"//(?:{_USER}*@)?(?:\[[^\[\]]*\]|{_HOST}*)(?::[0-9]{{1,8}})?(?:/{_CHARACTER}*)*|/(?:{_CHARACTER}+(?:/{_CHARACTER}*)*)?"
_URI_REFERENCE = re.compile(
    rf"(?:[A-Za-z][A-Za-z0-9+\-.]*:(?:{_FULL_PATH}|{_CHARACTER}+(?:/{_CHARACTER}*)*|)"
    rf"|{_FULL_PATH}|{_NO_COLON}+(?:/{_CHARACTER}*)*|)"
    rf"(?:\?(?:{_CHARACTER}|[/?])*)?(?:#(?:{_CHARACTER}|[/?])*)?"
)
"""RFC 3986 section 4.1, as strict as libxml2."""

_NO_PARSER: Final = expat.ParserCreate()
"""Stands for the parser of a reader that has none; it is never fed."""
_EDGE = re.compile(rb">[ \t\r\n]*(?=<)")
_OPENING_NAME = re.compile(rb"<([^\s/>]+)")
_TAG_STOP = re.compile(rb"[>'\"]")
_RESTRICTED_CODES = frozenset(
    expat.errors.codes[text]
    for text in (
        expat.errors.XML_ERROR_UNDEFINED_ENTITY,
        expat.errors.XML_ERROR_MISPLACED_XML_PI,
        expat.errors.XML_ERROR_RECURSIVE_ENTITY_REF,
        expat.errors.XML_ERROR_ASYNC_ENTITY,
        expat.errors.XML_ERROR_EXTERNAL_ENTITY_HANDLING,
        expat.errors.XML_ERROR_ENTITY_DECLARED_IN_PE,
    )
)
_ENCODING_CODES = frozenset(
    expat.errors.codes[text]
    for text in (expat.errors.XML_ERROR_UNKNOWN_ENCODING, expat.errors.XML_ERROR_INCORRECT_ENCODING)
)


def refuse(reason: str, hint: str) -> RemoteProtocolError:
    """The error to raise; ``hint`` is the stream error condition."""
    return RemoteProtocolError(reason, hint=hint)


class StreamReader:
    """Read an XML stream: the root's start tag, each of its child elements whole, the root's end tag.

    ``receive_data`` never raises. ``next_unit`` gives what was read and then, once, raises the error that
    ended the stream; everything read before the error comes first.

    Args:
        limits: caps per child element (and for the root's start tag); may be replaced at any time.
    """

    def __init__(self, limits: XmlLimits) -> None:
        self.limits = limits
        self._reset()

    def _reset(self) -> None:
        """Forget everything: a new XML document follows (RFC 6120 section 4.3.3)."""
        self._units: deque[Unit] = deque()
        self._error: RemoteProtocolError | None = None
        self._is_failed = False
        self._stack: list[Element] = []
        self._depth = 0
        self._elements = 0
        self._namespaces = 0
        self._root_name = b""
        self._root_namespaces: dict[str, str] = {}
        self._pending = b""
        self._scanned = 0
        self._quote = b""
        self._is_in_tag = False
        self._unfinished = 0
        self._last_octets = b""
        self._head = b""
        self._has_begun = False
        self._is_cdata = False
        self._fed = self._edge = 0
        self._names: dict[str, str] = {}
        self._parser = _NO_PARSER

    reset = _reset

    def _make_parser(self) -> None:
        self._fed = self._edge = 0
        self._names = {}
        self._parser = parser = expat.ParserCreate("utf-8", "}", self._names)
        parser.buffer_size = TEXT_BUFFER
        parser.buffer_text = True
        # Expat 2.6 and later hold a token back until much more has come; reads are joined here already,
        # and a limit has to be seen when it is reached. Python 3.13's name for it; 3.11 before .8 has none.
        set_deferral = getattr(parser, "SetReparseDeferralEnabled", None)
        if set_deferral is not None:
            set_deferral(False)
        parser.XmlDeclHandler = self._xml_declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.CommentHandler = self._comment
        parser.ProcessingInstructionHandler = self._instruction
        parser.SkippedEntityHandler = self._skipped_entity
        self._attach()

    def _attach(self) -> None:
        parser = self._parser
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.StartNamespaceDeclHandler = self._start_namespace
        parser.EndNamespaceDeclHandler = self._end_namespace
        parser.StartCdataSectionHandler = self._start_cdata
        parser.EndCdataSectionHandler = self._end_cdata

    # --- what the caller sees -----------------------------------------------------------------------------

    @property
    def is_between(self) -> bool:
        """True if nothing is read or half read after the last unit taken: the place where STARTTLS may switch."""
        return self._depth == 1 and not (self._units or self._error or self._pending or self._unfinished)

    def rest(self) -> None:
        """Give the parser back if no octet of a stanza is waiting; the next one is read by a new parser.

        Costs some 20 µs when the stream goes on, so it is for streams that are idle, not between two stanzas."""
        if self.is_between:
            self._parser = _NO_PARSER

    def close(self) -> None:
        """Read no more. A parser and its reader hold each other, so that without this only the garbage collector
        would find them."""
        self._is_failed = True
        self._pending = b""
        self._parser = _NO_PARSER

    def next_unit(self) -> Unit | None:
        """The next thing read, or None if more octets are needed.

        Raises:
            RemoteProtocolError: once, after the last unit read before the mistake.
        """
        if self._units:
            return self._units.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return None

    def receive_data(self, data: bytes) -> None:
        """Take octets from the peer; ignored after an error."""
        if self._is_failed:
            return
        try:
            self._take(data)
        except RemoteProtocolError as error:
            self._error = error
            self._is_failed = True
            self._pending = b""
            self._stack.clear()

    # --- feeding -------------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._depth == 1 and not self._pending and not self._unfinished and not data.strip(_SPACE.encode()):
            return  # keepalive between stanzas
        data = self._pending + data if self._pending else data
        self._pending = b""
        if not self._may_feed(data):
            self._pending = data
            return
        scanned, self._scanned = self._scanned, 0
        if not self._has_begun:
            self._check_beginning(data)
        if self._parser is _NO_PARSER:
            if self._depth:
                self._renew()
            else:
                self._make_parser()
        position = 0
        while position < len(data):
            stop = position + self.limits.slice
            if len(self._names) > NAMES_BEFORE_RENEWAL and self._depth:
                edge = _EDGE.search(data, position, stop)
                stop = edge.end() if edge is not None and edge.end() < stop else stop
            self._feed(data[position:stop], max(scanned - position, 0))
            position = stop
            if len(self._names) > NAMES_BEFORE_RENEWAL and self._depth == 1 and not self._unfinished:
                self._renew()

    def _may_feed(self, data: bytes) -> bool:
        if len(data) >= JOIN:
            return True
        if not self._has_begun and len(data) < 4 and b">" not in data:
            return False
        if not self._is_in_tag:
            # A forbidden declaration is refused at its first octets, not when (if ever) it ends; so is, before the
            # root, what is no XML at all and may never hold a ">".
            return b">" in data or b"<!" in data or b"<?" in data or not self._depth
        if len(self._head) < 3 or not self._has_begun:
            return True
        could_end, self._quote = _scan_tag(data, self._scanned, self._quote)
        self._scanned = len(data)
        return could_end

    def _check_beginning(self, data: bytes) -> None:
        self._has_begun = True
        if data[:2] in (b"\xfe\xff", b"\xff\xfe") or (data[:2] in (b"<\0", b"\0<", b"\0\0")):
            raise refuse("the stream is not in UTF-8", "unsupported-encoding")
        if data[:3] == b"\xef\xbb\xbf":
            # RFC 6120 section 11.6: read as a character, and none may stand before the root.
            raise refuse("a byte order mark is not allowed", "not-well-formed")

    def _feed(self, data: bytes, scanned: int) -> None:
        """Give a slice to expat; its first ``scanned`` octets have been looked at for quotation marks."""
        self._check_length()
        context = self._last_octets + data
        offset = self._fed - len(self._last_octets)
        self._fed += len(data)
        try:
            self._parser.Parse(data, False)
        except expat.ExpatError as error:
            place = self._parser.ErrorByteIndex - offset
            raise self._explain(error, context[max(place - 2, 0) : place + 3]) from None
        self._last_octets = context[-2:]
        self._unfinished = unfinished = self._fed - max(self._parser.CurrentByteIndex, 0)
        self._note_unfinished(data, unfinished, scanned)
        if not self._depth and not self._root_name and b"<!" in context:
            # Expat waits for more of a document type than its name; we need not.
            raise refuse("comments and declarations are not allowed", "restricted-xml")
        if self._depth <= 1 and not self._is_in_tag and self._depth:
            self._edge = self._fed - unfinished
        self._check_length()

    def _check_length(self) -> None:
        limit = self.limits.octets if self._depth else min(self.limits.octets, self.limits.header)
        if self._fed - self._edge > limit:
            raise refuse("the element is too long", "policy-violation")

    def _note_unfinished(self, data: bytes, unfinished: int, scanned: int) -> None:
        """Remember what expat still holds of a tag: its first octets and whether a quotation mark is open."""
        was_in_tag = self._is_in_tag
        if unfinished <= len(data):
            tail = data[len(data) - unfinished :] if unfinished else b""
            self._is_in_tag = tail[:1] == b"<"
            self._head = tail[:3]
            self._quote = _scan_tag(tail, 0, b"")[1] if self._is_in_tag else b""
        elif was_in_tag:
            if len(self._head) < 3:
                self._head = (self._head + data)[:3]
            self._quote = _scan_tag(data, scanned, self._quote)[1]
        if not self._is_in_tag or len(self._head) < 2:
            return
        is_declaration = self._head == b"<?x"[: len(self._head)] and not self._depth
        if (self._head[:2] == b"<?" and not is_declaration) or (
            self._head[:2] == b"<!" and len(self._head) > 2 and self._head[2:3] != b"["
        ):
            raise refuse("comments, declarations and processing instructions are not allowed", "restricted-xml")

    def _explain(self, error: expat.ExpatError, near: bytes) -> RemoteProtocolError:
        if error.code in _RESTRICTED_CODES or (near[:2] == b"<!" and near[2:3].isalpha()):
            return refuse("only XML without declarations, entities and instructions is allowed", "restricted-xml")
        if error.code in _ENCODING_CODES:
            return refuse("the stream is not in UTF-8", "unsupported-encoding")
        return refuse("the XML is not well-formed", "not-well-formed")

    def _renew(self) -> None:
        """Start a fresh parser inside the same stream: the root's namespaces are declared again, nothing else."""
        self._make_parser()
        parser = self._parser
        parser.StartElementHandler = parser.EndElementHandler = parser.CharacterDataHandler = None
        parser.StartNamespaceDeclHandler = parser.EndNamespaceDeclHandler = None
        declared = "".join(
            f" xmlns{':' + prefix if prefix else ''}='{escape_attribute(uri)}'"
            for prefix, uri in self._root_namespaces.items()
        )
        header = b"<" + self._root_name + declared.encode() + b">"
        parser.Parse(header, False)
        self._fed = self._edge = len(header)
        self._attach()

    # --- expat's calls -------------------------------------------------------------------------------------

    def _xml_declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            raise refuse("the stream is not in UTF-8", "unsupported-encoding")
        if version != "1.0":
            raise refuse("only XML 1.0 is spoken here", "not-well-formed")

    def _doctype(self, *_: object) -> None:
        raise refuse("a document type declaration is not allowed", "restricted-xml")

    def _comment(self, _: str) -> None:
        raise refuse("comments are not allowed", "restricted-xml")

    def _instruction(self, *_: object) -> None:
        raise refuse("processing instructions are not allowed", "restricted-xml")

    def _skipped_entity(self, *_: object) -> None:
        raise refuse("only the five predefined entities are allowed", "restricted-xml")

    def _start_namespace(self, prefix: str | None, uri: str | None) -> None:
        self._namespaces += 1
        if self._namespaces > self.limits.namespaces:
            raise refuse("too many namespace declarations", "policy-violation")
        if max(len(prefix or ""), len(uri or "")) > self.limits.name_length:
            raise refuse("a namespace name is too long", "policy-violation")
        if uri and not _is_uri_reference(uri):
            raise refuse("a namespace name is not a URI reference", "not-well-formed")
        if not self._depth:
            self._root_namespaces[prefix or ""] = uri or ""

    def _end_namespace(self, _: str | None) -> None:
        self._namespaces -= 1

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        limits = self.limits
        if len(attributes) > limits.attributes:
            raise refuse("too many attributes", "policy-violation")
        longest = limits.name_length
        if len(name) > longest and len(name.rpartition("}")[2]) > longest:
            raise refuse("a name is too long", "policy-violation")
        if attributes:
            for key in attributes:
                if len(key) > longest and len(key.rpartition("}")[2]) > longest:
                    raise refuse("a name is too long", "policy-violation")
                if "}" in key:
                    attributes = {("{" + k if "}" in k else k): v for k, v in attributes.items()}
                    break
        element = Element("{" + name if "}" in name else name, attributes)
        depth = self._depth
        self._depth = depth + 1
        if depth == 0:
            found = _OPENING_NAME.match(self._parser.GetInputContext() or b"")
            self._root_name = found.group(1) if found else b""
            self._units.append(RootOpened(element, dict(self._root_namespaces)))
            return
        if depth == 1:
            self._elements = 0
            self._is_cdata = False
            self._edge = self._parser.CurrentByteIndex
        self._elements += 1
        if self._elements > limits.elements:
            raise refuse("too many elements in one stanza", "policy-violation")
        if depth > limits.depth:
            raise refuse("elements are nested too deeply", "policy-violation")
        if depth > 1:
            self._stack[-1].children.append(element)
        self._stack.append(element)

    def _end(self, _: str) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._units.append(RootClosed())
            return
        element = self._stack.pop()
        if self._depth == 1:
            if self._parser.CurrentByteIndex - self._edge > self.limits.octets:
                raise refuse("the element is too long", "policy-violation")
            self._edge = self._parser.CurrentByteIndex
            self._units.append(element)

    def _text(self, data: str) -> None:
        if self._depth < 2:
            if not data.strip(_SPACE):
                return
            raise refuse("text between stanzas", "bad-format")
        children = self._stack[-1].children
        kind = CData if self._is_cdata else str
        if children and type(children[-1]) is kind:
            children[-1] = kind(children[-1] + data)
        else:
            children.append(kind(data))

    def _start_cdata(self) -> None:
        self._is_cdata = True

    def _end_cdata(self) -> None:
        self._is_cdata = False


@lru_cache(maxsize=256)
def _is_uri_reference(text: str) -> bool:
    """True for what may name a namespace (Namespaces in XML 1.0 section 2.2). Expat takes anything; whoever reads with libxml2
    loses the stream over anything else, so it is not passed on."""
    return _URI_REFERENCE.fullmatch(text) is not None


def _scan_tag(data: bytes, start: int, quote: bytes) -> tuple[bool, bytes]:
    """Whether a ``>`` outside quotation marks stands in ``data[start:]``, and the mark open at its end ("" none)."""
    position = start
    could_end = False
    while True:
        if quote:
            found = data.find(quote, position)
            if found < 0:
                return could_end, quote
            position, quote = found + 1, b""
        stop = _TAG_STOP.search(data, position)
        if stop is None:
            return could_end, b""
        position = stop.end()
        if stop.group() == b">":
            could_end = True
        else:
            quote = stop.group()

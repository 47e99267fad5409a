"""Take an object apart for people: its layers, headers, offsets, and what is malformed and why.

Place on the path: beside it. RFC 3862 section 2 has three layers: the MIME headers around an object, its message
headers, and the content with MIME headers of its own. Content may be such an object again, or be signed; so the
layers form a numbered tree. Nothing is verified here and nothing is changed; ``comity verify`` says what is proved.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from comity.cpim.entity import CPIM_TYPE, content_object, decode_transfer, multipart_parts, split_entity
from comity.cpim.message import DEFAULT, CpimMessage, check_profile, read_mime_headers
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

#: A file up to this size is looked at: sixteen times the largest object that travels.
MAX_FILE = 16 * DEFAULT.message
MAX_ENTITY = 32 * 1024 * 1024
"""Octets of an entity to sign, verify, encrypt or decrypt: a file of 10 MiB, signed, encrypted and in base64."""
_PREVIEW = 200
_CONTEXT = 48
_ENTITY_TYPES = re.compile(r"message/cpim|multipart/|application/(x-)?pkcs7-|application/pidf\+xml")

FLAGS = {
    "ambiguous-sender": "there are several From headers, so nobody is the sender",
    "ambiguous-date-time": "there are several DateTime headers",
    "ns-ignored": "an NS header does not declare anything",
    "undeclared-prefix": "a namespace prefix is used before an NS header declares it",
    "prefix-redeclared": "a namespace prefix is declared twice",
    "default-namespace-changed": "the default namespace is changed, so bare names mean something else after it",
    "content-type-in-message-headers": "the empty line between message headers and content headers is missing",
}


@dataclass(frozen=True, slots=True)
class HeaderLine:
    """One header as it stands in its layer."""

    name: str
    value: str
    """Unfolded, escapes resolved."""
    offset: int | None
    """Octet of the file at which the line begins; None behind a transfer encoding."""
    namespace: str = ""
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: MIME headers, message headers, or content."""

    path: str
    """``1.2`` is inside ``1``."""
    kind: str
    """"mime" (around everything), "message", "content" (of a message), or "part" (of a multipart)."""
    offset: int | None
    """Octet of the file at which its headers begin; None if they do not stand there."""
    octets: int
    """Of its headers, without the empty line."""
    body_offset: int | None
    body_octets: int
    """What the headers are about: everything after the empty line."""
    type: str = ""
    headers: tuple[HeaderLine, ...] = ()
    text: str = ""
    """The beginning of text content."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a reader should know; ``is_malformed`` if RFC 3862 or MIME forbids it."""

    path: str
    offset: int | None
    reason: str
    context: str = ""
    """The octets from ``offset`` on, as far as they can be printed."""
    is_malformed: bool = True


@dataclass(slots=True)
class Dissection:
    """Everything found in one file."""

    form: str
    """"entity" (MIME headers first) or "object" (a bare message/cpim object)."""
    octets: int
    sha256: str
    """Of the object's octets, without the MIME headers around them: what every hop keeps equal."""
    layers: list[Layer] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def is_well_formed(self) -> bool:
        """True if nothing in it is malformed."""
        return not any(problem.is_malformed for problem in self.problems)


def as_entity(raw: bytes) -> tuple[MimeObject, int]:
    """Take a file as a MIME entity, or as a bare message/cpim object to which Content-Type is added.

    Returns:
        The object and the offset of its MIME headers in ``raw``; -1 for a bare object, which has none there.
    """
    try:
        # COMPAT: openssl cms writes files with LF. Around a CMS object, which stands in base64, that harms nothing.
        obj = split_entity(raw, allow_lf=True)
        if obj.media_type.endswith("pkcs7-mime"):
            return obj, 0
        obj = split_entity(raw)
        if _ENTITY_TYPES.match(obj.media_type):
            return obj, 0
    except MalformedMessage:
        obj = MimeObject(b"", raw)
    # A MIME header block never holds a bare From and To together with an unrelated type.
    if obj.media_type and not (obj.header("from") and obj.header("to")):
        return obj, 0
    return MimeObject.of("Message/CPIM", raw), -1


def dissect(raw: bytes) -> Dissection:
    """Take ``raw`` apart; never raises for what stands in it."""
    obj, offset = as_entity(raw)
    found = Dissection("object" if offset < 0 else "entity", len(raw), obj.fingerprint)
    _Walk(raw, found).entity(obj, offset if offset >= 0 else None, "1", "mime", start=len(raw) - len(obj.octets))
    return found


class _Walk:
    def __init__(self, raw: bytes, found: Dissection) -> None:
        self.raw = raw
        self.found = found

    def entity(self, obj: MimeObject, offset: int | None, path: str, kind: str, *, start: int | None) -> None:
        """Describe one MIME entity whose header block begins at ``offset`` and whose octets begin at ``start``."""
        depth = path.count(".")
        is_written = offset is not None or kind != "mime"
        try:
            headers = tuple(_mime_headers(obj.header_block, offset)) if is_written else ()
        except MalformedMessage as error:
            self.problem(path, _plus(offset, error.offset), error.reason)
            headers = ()
        text = _preview(obj) if obj.media_type.startswith("text/") else ""
        self.found.layers.append(
            Layer(
                path,
                kind,
                offset,
                len(obj.header_block) if is_written else 0,
                start,
                len(obj.octets),
                obj.content_type,
                headers,
                text,
            )
        )
        if depth >= DEFAULT.depth:
            self.problem(path, start, "what lies deeper is not looked at", is_malformed=False)
        elif obj.media_type == CPIM_TYPE:
            self.cpim(obj, start, path)
        elif obj.media_type.startswith("multipart/"):
            self.multipart(obj, start, path)
        elif "pkcs7" in obj.media_type or obj.media_type.startswith("application/pgp"):
            reason = "cryptographic content is not opened here: see `comity verify`"
            self.problem(path, start, reason, is_malformed=False)

    def cpim(self, obj: MimeObject, start: int | None, path: str) -> None:
        """Describe the message headers and the content of a message/cpim object."""
        try:
            raw = decode_transfer(obj)
        except MalformedMessage as error:
            self.problem(path, start, error.reason)
            return
        if raw is not obj.octets:
            start = None  # behind a transfer encoding there are no offsets of the file
        message = self.parse(raw, start, path)
        if message is None:
            return
        block_start = message.content_offset - 2 - len(message.content_header_block)
        where = _plus(start, block_start)
        lines = tuple(
            HeaderLine(h.name, h.value, _plus(start, h.offset), h.namespace, h.params) for h in message.headers
        )
        self.found.layers.append(
            Layer(path, "message", start, max(block_start - 2, 0), where, len(raw) - block_start, CPIM_TYPE, lines)
        )
        for flag in message.flags:
            self.problem(path, None, FLAGS.get(flag, flag), is_malformed=False)
        for namespace, name in message.unknown_requirements:
            reason = f"Require asks for {name} of {namespace or 'an undeclared namespace'}, unknown here"
            self.problem(path, None, reason, is_malformed=False)
        try:
            check_profile(message)
        except MalformedMessage as error:
            self.problem(
                path, _plus(start, error.offset), f"not fit to be submitted: {error.reason}", is_malformed=False
            )
        content = content_object(message)
        self.entity(content, where, f"{path}.1", "content", start=_plus(start, message.content_offset))

    def parse(self, raw: bytes, start: int | None, path: str) -> CpimMessage | None:
        """Read an object strictly, else leniently, and say what was wrong."""
        try:
            return CpimMessage.parse(raw)
        except MalformedMessage as error:
            self.problem(path, _plus(start, error.offset), error.reason)
        try:
            return CpimMessage.parse(raw, lenient=True)
        except MalformedMessage:
            return None

    def multipart(self, obj: MimeObject, start: int | None, path: str) -> None:
        """Describe each body part."""
        try:
            parts = multipart_parts(obj)
        except MalformedMessage as error:
            self.problem(path, _plus(start, error.offset), error.reason)
            return
        position = 0
        for number, part in enumerate(parts, 1):
            position = obj.octets.find(part, position)
            where = _plus(start, position)
            inner = f"{path}.{number}"
            try:
                entity = split_entity(part)
            except MalformedMessage as error:
                self.problem(inner, _plus(where, error.offset), error.reason)
                continue
            body = _plus(where, len(part) - len(entity.octets))
            self.entity(entity, where, inner, "part", start=body)
            position += len(part)

    def problem(self, path: str, offset: int | None, reason: str, *, is_malformed: bool = True) -> None:
        """Note a problem, with the octets it is about if they stand in the file."""
        context = ""
        if is_malformed and offset is not None:
            context = self.raw[offset : offset + _CONTEXT].decode("utf-8", "backslashreplace")
        self.found.problems.append(Problem(path, offset, reason, context, is_malformed))


def _mime_headers(block: bytes, offset: int | None) -> list[HeaderLine]:
    """MIME headers with the offset of each; folded lines count to the one they continue."""
    pairs = read_mime_headers(block, 0) if block else ()
    starts, position = [], 0
    for line in block.split(b"\r\n")[:-1]:
        if line[:1] not in (b" ", b"\t"):
            starts.append(position)
        position += len(line) + 2
    return [HeaderLine(*pair, _plus(offset, at)) for pair, at in zip(pairs, starts, strict=True)]


def _plus(base: int | None, offset: int | None) -> int | None:
    return None if base is None or offset is None else base + offset


def _preview(obj: MimeObject) -> str:
    try:
        return decode_transfer(obj)[: 4 * _PREVIEW].decode("utf-8", "backslashreplace")[:_PREVIEW]
    except MalformedMessage:
        return ""

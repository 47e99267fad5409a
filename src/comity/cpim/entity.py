"""MIME entities around and inside message/cpim: parts, transfer encodings, layers (RFC 2045, 2046, 1847).

Place on the path: read-only helpers for steps 4 to 8 and for ``secure``. No cryptography, and nothing is ever
re-made: a part is given as the exact octets that stand between two boundaries, because a signature covers them.
"""

from __future__ import annotations

import binascii
import re
from functools import lru_cache

from comity.cpim.header import NamedAddress
from comity.cpim.message import DEFAULT, MAX_CACHED, CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

_TYPE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+/[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# RFC 3862 section 5.2 and RFC 3923 leave a "/" unquoted in parameters; that is read too (SEC-13).
_PARAMETER = re.compile(
    r'[ \t]*;[ \t]*(?:([!#$%&\'*+\-.^_`|~0-9A-Za-z]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^\s";,\\]+))?'
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
# RFC 2046 section 5.1.1; a space may stand inside, not at the end.
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
_AFTER_BOUNDARY = re.compile(rb"(--)?[ \t]*(?:\r\n|\Z)")
_BAD_QUOTED_PRINTABLE = re.compile(rb"=(?![0-9A-Fa-f]{2}|\r\n|\n|\Z)")

SECURED = frozenset(["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"])
"""Media types of signed and encrypted entities (RFC 1847, RFC 8551): carried as they stand, whatever is inside."""
CPIM_TYPE = "message/cpim"
MAX_HEADER = 64 * 1024
"""Octets of one MIME header; it is read again wherever the entity is asked for its type."""


def split_entity(raw: bytes, *, allow_lf: bool = False) -> MimeObject:
    """Split a MIME entity at its first empty line; ``entity`` of the result is ``raw`` again.

    Args:
        raw: header lines, an empty line, octets.
        allow_lf: also take a header whose lines end in LF alone (a file made on Unix); its header block is then
            written with CR LF, the octets after it stay.

    Raises:
        MalformedMessage: no empty line ends the header, or it is longer than ``MAX_HEADER``.
    """
    obj = _split(raw, allow_lf)
    if len(obj.header_block) > MAX_HEADER:
        raise MalformedMessage(f"the MIME header is longer than {MAX_HEADER} octets", hint="size")
    return obj


def _split(raw: bytes, allow_lf: bool) -> MimeObject:
    if raw.startswith(b"\r\n"):
        return MimeObject(b"", raw[2:])
    end = raw.find(b"\r\n\r\n")
    if allow_lf:
        if raw.startswith(b"\n"):
            return MimeObject(b"", raw[1:])
        lf_end = raw.find(b"\n\n")
        if lf_end >= 0 and (end < 0 or lf_end < end):
            return MimeObject(raw[: lf_end + 1].replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"), raw[lf_end + 2 :])
    if end < 0:
        raise MalformedMessage("no empty line ends the MIME header", offset=len(raw))
    return MimeObject(raw[: end + 2], raw[end + 4 :])


@lru_cache(maxsize=512)
def _params(value: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    found = _TYPE.match(value.lstrip(" \t"))
    if not found:
        raise MalformedMessage("Content-Type is not type/subtype")
    rest = value.lstrip(" \t")[found.end() :].rstrip(" \t")
    params: dict[str, str] = {}
    position = 0
    while position < len(rest):
        one = _PARAMETER.match(rest, position)
        if not one:
            raise MalformedMessage("a parameter of Content-Type is not name=value")
        position = one.end()
        if one[1] is None:
            continue
        name, text = one[1].lower(), one[2]
        if name in params:
            raise MalformedMessage("a parameter of Content-Type is repeated")
        if text[0] == '"':
            text = _QUOTED_PAIR.sub(r"\1", text[1:-1]) if "\\" in text else text[1:-1]
        params[name] = text
    return found[0].lower(), tuple(params.items())


def content_type_params(value: str) -> tuple[str, dict[str, str]]:
    """Read a Content-Type value as media type in lower case and parameters by lower-case name.

    Raises MalformedMessage for what RFC 2045 section 5.1 does not allow and for a repeated parameter.
    """
    media_type, params = _params(value)
    return media_type, dict(params)


def multipart_parts(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> list[bytes]:
    """Give the exact octets of each body part (RFC 2046 section 5.1.1).

    The CR LF before a boundary belongs to the boundary (SEC-3). A line counts as boundary only if nothing but white
    space follows it. Raises MalformedMessage; the hint is "size" when there are more parts than allowed.
    """
    if len(obj.octets) <= MAX_CACHED and limits is DEFAULT:
        return list(_small_parts(obj.content_type, obj.octets))
    return _parts(obj.content_type, obj.octets, limits)


@lru_cache(maxsize=32)
def _small_parts(content_type: str, octets: bytes) -> tuple[bytes, ...]:
    """Admission and delivery of a message ask alike."""
    return tuple(_parts(content_type, octets, DEFAULT))


def _parts(content_type: str, octets: bytes, limits: CpimLimits) -> list[bytes]:
    media_type, params = _params(content_type)
    boundary = dict(params).get("boundary", "")
    if not media_type.startswith("multipart/") or not _BOUNDARY.fullmatch(boundary):
        raise MalformedMessage("the entity is not a multipart with a usable boundary")
    mark = b"--" + boundary.encode("ascii")
    parts: list[bytes] = []
    start = -1
    free = 0  # a CR LF belongs to one boundary only: what follows at once is content, whatever it looks like
    begin = 0 if octets.startswith(mark) else octets.find(b"\r\n" + mark)
    while begin >= 0:
        at = octets.index(mark, begin)
        tail = _AFTER_BOUNDARY.match(octets, at + len(mark))
        if tail:
            if start >= 0:
                parts.append(octets[start:begin])
            if tail[1]:
                if start < 0:
                    raise MalformedMessage("the multipart ends before it begins", offset=begin)
                return parts
            if len(parts) >= limits.parts:
                raise MalformedMessage("there are more body parts than allowed", offset=begin, hint="size")
            start = free = tail.end()
        begin = octets.find(b"\r\n" + mark, max(at, free))
    raise MalformedMessage("the closing boundary is missing", offset=len(octets))


def decode_transfer(obj: MimeObject) -> bytes:
    """The octets behind the entity's Content-Transfer-Encoding (RFC 2045 section 6). Raises MalformedMessage."""
    encoding = obj.header("content-transfer-encoding").lower()
    if encoding in ("", "7bit", "8bit", "binary"):
        return obj.octets
    if encoding == "base64":
        try:
            return binascii.a2b_base64(obj.octets.translate(None, b"\r\n \t"), strict_mode=True)
        except binascii.Error:
            raise MalformedMessage("the content is not base64") from None
    if encoding == "quoted-printable":
        # RFC 2045 section 6.7 rule 3: white space at the end of a line was added on the way.
        octets = b"\n".join(
            line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t")
            for line in obj.octets.split(b"\n")
        )
        if _BAD_QUOTED_PRINTABLE.search(octets):
            raise MalformedMessage("the content is not quoted-printable")
        return binascii.a2b_qp(octets)
    raise MalformedMessage("the Content-Transfer-Encoding is unknown")


def content_object(message: CpimMessage) -> MimeObject:
    """The content of a message/cpim object as an entity of its own."""
    return MimeObject(message.content_header_block, message.content)


def is_secured(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> bool:
    """True if the entity, or the content of a message/cpim around it, is signed or encrypted.

    An object that cannot be read, or is nested deeper than ``limits.depth``, is not known to be secured: False.
    """
    for _ in range(limits.depth):
        if obj.media_type in SECURED:
            return True
        if obj.media_type != CPIM_TYPE:
            return False
        try:
            obj = content_object(CpimMessage.parse(decode_transfer(obj), limits=limits))
        except MalformedMessage:
            return False
    return False


def cpim_view(obj: MimeObject, *, limits: CpimLimits = DEFAULT, lenient: bool = False) -> CpimMessage | None:
    """The outermost message/cpim that can be read without a key, or None.

    That is the entity itself, behind a transfer encoding (FMT-40) or as first part of multipart/signed. None for every
    other type: encrypted, signed-data, native content.

    Raises:
        MalformedMessage: the entity says that it is message/cpim or multipart/signed and is not (C-32).
    """
    for _ in range(limits.depth):
        if obj.media_type == CPIM_TYPE:
            return CpimMessage.parse(decode_transfer(obj), limits=limits, lenient=lenient)
        if obj.media_type != "multipart/signed":
            return None
        obj = signed_part(obj, limits=limits)
    return None


def signed_part(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> MimeObject:
    """The first of the two parts of a multipart/signed: what was signed (RFC 1847 section 2.1, SEC-1)."""
    parts = multipart_parts(obj, limits=limits)
    if len(parts) != 2:
        raise MalformedMessage("multipart/signed must have two parts")
    return split_entity(parts[0])


def from_chain(message: CpimMessage, *, limits: CpimLimits = DEFAULT) -> list[NamedAddress | None]:
    """The From of this object and of every message/cpim readable inside it, outermost first (FMT-42).

    None stands for a layer without one unambiguous From. Ends at ``limits.depth`` and at the first layer that cannot
    be read: what lies deeper is opaque (C-31).
    """
    chain = [message.from_]
    while len(chain) < limits.depth:
        try:
            inner = cpim_view(content_object(message), limits=limits)
        except MalformedMessage:
            break
        if inner is None:
            break
        chain.append(inner.from_)
        message = inner
    return chain

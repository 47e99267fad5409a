"""multipart/related as APEX uses it (RFC 3340 section 4.1, RFC 2387): one control document, one content, two parts.

Place on the path: under ``wire.py``. A part's octets are cut out and put back, never re-made; of its headers, Content-ID and a
Content-Transfer-Encoding that changes nothing belong to the envelope. A transformative encoding "should not be used" (section
4.1): content that has one all the same is carried as it stands, a control document that has one is answered with 504.
"""

from __future__ import annotations

import re
import secrets
from typing import Final
from urllib.parse import quote, unquote

from comity.bindings.apex.elements import Part
from comity.bindings.apex.grammar import NOT_IMPLEMENTED, WireError
from comity.cpim.entity import content_type_params, multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import LocalProtocolError, MalformedMessage

CONTROL: Final = "application/beep+xml"
"""The media type of XML in BEEP (RFC 3080 section 6.4)."""
RELATED: Final = "multipart/related"
_CONTROL_BLOCK: Final = b"Content-Type: application/beep+xml\r\n"
_HARMLESS: Final = frozenset(["7bit", "8bit", "binary"])
_HEADER_LINE = re.compile(rb"(?:[!-9;-~]+[ \t]*:|[ \t])[^\x00-\x08\x0a-\x1f\x7f]*")
_ENCODING = re.compile(rb"^content-transfer-encoding[ \t]*:", re.IGNORECASE | re.MULTILINE)
_CONTENT_ID = re.compile("<([!-;=?-~]+)>")
_PLAIN_ID = re.compile("[A-Za-z0-9.@_+=-]+")
_BOUNDARY: Final = "apex"


def new_content_id(domain: str) -> str:
    """A Content-ID, without its brackets, that nobody else uses (RFC 2392)."""
    return f"{secrets.token_hex(12)}@{domain}"


def split_payload(payload: bytes) -> tuple[bytes, Part | None]:
    """The control document of a BEEP payload and the content beside it. Raises WireError.

    A payload without Content-Type is read as XML: application/octet-stream, what RFC 3080 section 2.2 makes of it, is nothing
    that APEX could hold."""
    entity = _entity(payload)
    if not entity.header_block or entity.media_type in (CONTROL, ""):
        _check_encoding(entity)
        return entity.octets, None
    if entity.media_type != RELATED:
        raise WireError("the payload is neither application/beep+xml nor multipart/related")
    _check_encoding(entity)
    return _split_related(entity)


def _split_related(entity: MimeObject) -> tuple[bytes, Part | None]:
    try:
        params = content_type_params(entity.content_type)[1]
        parts = [_entity(part) for part in multipart_parts(entity)]
    except MalformedMessage as error:
        raise WireError(error.reason) from None
    if params.get("type", CONTROL).lower() != CONTROL:
        raise WireError("the multipart/related is not about application/beep+xml")
    ids = [_content_id(part) for part in parts]
    named = [one for one in ids if one]
    if len(set(named)) != len(named):
        raise WireError("two parts have one Content-ID")
    start = params.get("start", "").strip().removeprefix("<").removesuffix(">")
    root = (ids.index(start) if start in ids else -1) if start else 0
    if root < 0 or parts[root].media_type != CONTROL:
        raise WireError("the multipart/related does not start with application/beep+xml")
    if len(parts) > 2:
        raise WireError("there are parts that nothing refers to")
    _check_encoding(parts[root])
    return parts[root].octets, _part(parts[1 - root], ids[1 - root]) if len(parts) == 2 else None


def _entity(octets: bytes) -> MimeObject:
    try:
        return split_entity(octets)
    except MalformedMessage as error:
        raise WireError(error.reason) from None


def _content_id(entity: MimeObject) -> str:
    text = entity.header("content-id").strip()
    if not text:
        return ""
    found = _CONTENT_ID.fullmatch(text)
    if not found:
        raise WireError("a Content-ID is not <id>")
    return found[1]


def _changes_octets(entity: MimeObject) -> bool:
    encoding = entity.header("content-transfer-encoding").strip().lower()
    return bool(encoding) and encoding not in _HARMLESS


def _check_encoding(entity: MimeObject) -> None:
    if _changes_octets(entity):
        raise WireError("a control document has no Content-Transfer-Encoding that changes octets", NOT_IMPLEMENTED)


def _part(entity: MimeObject, content_id: str) -> Part:
    dropped = [b"content-id"] if _changes_octets(entity) else [b"content-id", b"content-transfer-encoding"]
    kept: list[bytes] = []
    keeps = False
    lines = entity.header_block.split(b"\r\n")[:-1]
    for line in lines:
        if not _HEADER_LINE.fullmatch(line) or (line[:1] in (b" ", b"\t") and line is lines[0]):
            raise WireError("a part has a malformed header line")
        if line[:1] not in (b" ", b"\t"):
            keeps = line.partition(b":")[0].strip().lower() not in dropped
        if keeps:
            kept.append(line + b"\r\n")
    block = b"".join(kept)
    if not entity.content_type:
        block = b"Content-Type: text/plain\r\n" + block  # what it means without (RFC 2045 section 5.2)
    return Part(block, entity.octets, content_id)


def join_payload(control: bytes, part: Part) -> bytes:
    """The payload of a control document with content beside it. Raises LocalProtocolError if that would be read otherwise."""
    if not _CONTENT_ID.fullmatch(f"<{part.content_id}>"):
        raise LocalProtocolError("the content has no usable Content-ID")
    if part.header_block[-2:] != b"\r\n" or b"\r\n\r\n" in part.header_block:
        raise LocalProtocolError("the content's header block is not one")
    boundary = _BOUNDARY
    while any(b"--" + boundary.encode() in octets for octets in (part.octets, part.header_block, control)):
        boundary = f"{_BOUNDARY}-{secrets.token_hex(12)}"
    mark = b"--" + boundary.encode()
    content_id = part.content_id.encode()
    encoding = b"" if _ENCODING.search(part.header_block) else b"Content-Transfer-Encoding: binary\r\n"
    return b"".join(
        (
            b'Content-Type: multipart/related; boundary="%b"; start="<control.%b>"; type="application/beep+xml"\r\n\r\n'
            % (boundary.encode(), content_id),
            b"%b\r\n%bContent-ID: <control.%b>\r\n\r\n" % (mark, _CONTROL_BLOCK, content_id),
            control,
            b"\r\n%b\r\n%b%bContent-ID: <%b>\r\n\r\n" % (mark, part.header_block, encoding, content_id),
            part.octets,
            b"\r\n%b--\r\n" % mark,
        )
    )


def cid_of(uri: str) -> str:
    """The Content-ID that a ``cid:`` URL names (RFC 2392), "" for every other URI: nothing is ever fetched (P-27)."""
    scheme, _, rest = uri.partition(":")
    return unquote(rest) if scheme.lower() == "cid" else ""


def cid_url(content_id: str) -> str:
    """The ``cid:`` URL of a Content-ID."""
    return "cid:" + (content_id if _PLAIN_ID.fullmatch(content_id) else quote(content_id, safe="@"))


__all__ = ["CONTROL", "cid_of", "cid_url", "join_payload", "new_content_id", "split_payload"]

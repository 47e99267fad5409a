"""Between native content and message/cpim objects: what every ``mapping.py`` shares.

Place on the path: step 4 makes an object of a native message, once (``wrap``); step 8 finds the text a plain client can
show (``plain_text``, ``readable_part``). What a native message asks to be told goes into its object (``imdn.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.compose import compose
from comity.cpim.entity import (
    CPIM_TYPE,
    content_object,
    content_type_params,
    decode_transfer,
    multipart_parts,
    signed_part,
    split_entity,
)
from comity.cpim.imdn import asking
from comity.cpim.message import DEFAULT, CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

_CPIM_BLOCK = b"Content-Type: message/cpim\r\n"


@dataclass(frozen=True, slots=True)
class PlainText:
    """The text of an unsecured object, as a plain client may show it."""

    text: str
    """Decoded without loss, line ends as they were."""
    content: bytes
    """The octets of the text."""
    language: str
    """From Content-Language; "" if not said."""
    subjects: tuple[tuple[str, str], ...]
    """(language, text) pairs; "i-default" where no language is said."""


def wrap(
    source: Address,
    destination: Address,
    content: bytes,
    content_type: str,
    *,
    when: datetime,
    message_id: str,
    subjects: Sequence[tuple[str, str]] = (),
    language: str = "",
    content_headers: Sequence[tuple[str, str]] = (),
    asks: Sequence[str] = (),
) -> MimeObject:
    """Make the message/cpim object of a native message (GW-1).

    Args:
        source: who the protocol says sent it.
        destination: whom the protocol says it is for.
        content: the native content's octets, unchanged; a secured entity too goes in as it is.
        content_type: of the content, parameters included.
        when: time of receipt, aware.
        message_id: see ``new_message_id``.
        subjects: (language, text) pairs.
        language: of the content, as a language tag; "" if not known.
        content_headers: further MIME headers the content came with, Content-Transfer-Encoding included.
        asks: what the sender wants to be told, in the words of ``imdn.WISHES``.

    Raises:
        LocalProtocolError: something cannot be expressed in message/cpim.
    """
    extra = [*content_headers, ("Content-Language", language)] if language else content_headers
    octets = compose(
        from_=source.uri,
        to=destination.uri,
        content=content,
        date_time=when,
        subject=subjects,
        message_id=message_id,
        headers=asking(asks),
        content_type=content_type,
        content_headers=extra,
        keep_encoding=True,
    )
    return MimeObject(_CPIM_BLOCK, octets)


def plain_text(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> PlainText | None:
    """The text of an unsecured object, or None if a plain client cannot have all of it (GW-2).

    The object is message/cpim with text/plain inside, or text/plain itself, in US-ASCII or UTF-8, or several of them for one to
    be chosen; everything else, secured objects above all, goes whole or not at all (I18N-5).
    """
    found = plain_texts(obj, limits=limits)
    return found[-1] if found else None


def plain_texts(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> list[PlainText]:
    """The same in every language there is: the last is for who prefers none (RFC 2046 section 5.1.4); empty if there is no text.

    A multipart/alternative of texts and pages of HTML is a text: its parts say the same thing (T5).
    """
    subjects: tuple[tuple[str, str], ...] = ()
    try:
        if obj.media_type == CPIM_TYPE:
            message = CpimMessage.parse(decode_transfer(obj), limits=limits)
            subjects = tuple(message.subjects.items())
            obj = content_object(message)
        parts = [obj]
        if obj.media_type == "multipart/alternative":
            parts = [split_entity(part) for part in multipart_parts(obj, limits=limits)]
        if any(part.media_type not in ("text/plain", "text/html") for part in parts):
            return []
        texts = [(part, _decode_text(part)) for part in parts if part.media_type == "text/plain"]
    except MalformedMessage:
        return []
    if any(decoded is None for _, decoded in texts):
        return []
    return [PlainText(*decoded, part.header("content-language"), subjects) for part, decoded in texts if decoded]


def alternatives(texts: Sequence[tuple[str, bytes]], boundary: str) -> tuple[str, bytes]:
    """Content-Type and octets of a multipart/alternative with one text in several languages (T5).

    Args:
        texts: (language, octets) of each, the one for who prefers none last.
        boundary: a token; made longer where a text holds it.
    """
    while any(boundary.encode() in octets for _, octets in texts):
        boundary += "x"
    pieces = []
    for language, octets in texts:
        head = b"Content-Type: text/plain; charset=utf-8\r\n"
        head += f"Content-Language: {language}\r\n".encode() if language else b""
        pieces.append(f"--{boundary}\r\n".encode() + head + b"\r\n" + octets + b"\r\n")
    return f'multipart/alternative; boundary="{boundary}"', b"".join(pieces) + f"--{boundary}--\r\n".encode()


def _decode_text(obj: MimeObject) -> tuple[str, bytes] | None:
    media_type, params = content_type_params(obj.content_type)
    charset = params.get("charset", "us-ascii").lower()
    if media_type != "text/plain" or charset not in ("us-ascii", "utf-8"):
        return None
    content = decode_transfer(obj)
    try:
        return content.decode("ascii" if charset == "us-ascii" else "utf-8"), content
    except UnicodeDecodeError:
        return None


def readable_part(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> str | None:
    """The text a person could read inside a clear-signed object, unproved; None if there is none without a key.

    Looks through message/cpim, multipart/signed and, for its first readable part, any other multipart.
    """
    try:
        return _readable(obj, limits.depth, limits)
    except MalformedMessage:
        return None


def _readable(obj: MimeObject, depth: int, limits: CpimLimits) -> str | None:
    if depth == 0:
        return None
    if obj.media_type == CPIM_TYPE:
        return _readable(content_object(CpimMessage.parse(decode_transfer(obj), limits=limits)), depth - 1, limits)
    if obj.media_type == "multipart/signed":
        return _readable(signed_part(obj, limits=limits), depth - 1, limits)
    if obj.media_type in ("multipart/mixed", "multipart/alternative", "multipart/related"):
        parts = (split_entity(part) for part in multipart_parts(obj, limits=limits))
        texts = (_readable(part, depth - 1, limits) for part in parts)
        return next((text for text in texts if text is not None), None)
    if obj.media_type != "text/plain":
        return None
    decoded = _decode_text(obj)
    return decoded[0] if decoded else None

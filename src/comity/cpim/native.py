"""Between native content and message/cpim objects: what every ``mapping.py`` shares.

Place on the path: step 4 makes an object of a native message, once (``wrap``); step 8 finds the text a plain client can
show (``plain_text``, ``readable_part``). Reports (RFC 5438) are made here too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from html import escape as escape_xml
from typing import Literal

from comity.cpim.address import Address
from comity.cpim.compose import compose, timestamp
from comity.cpim.entity import (
    CPIM_TYPE,
    content_object,
    content_type_params,
    decode_transfer,
    multipart_parts,
    signed_part,
    split_entity,
)
from comity.cpim.message import DEFAULT, CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

_CPIM_BLOCK = b"Content-Type: message/cpim\r\n"
_REPORT_TYPE = "message/imdn+xml"
Disposition = Literal["failed", "delivered", "stored"]
"""What a notification says became of a message (RFC 5438 section 8); stored: it waits, a processing notification."""
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


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
        content_type=content_type,
        content_headers=extra,
        keep_encoding=True,
    )
    return MimeObject(_CPIM_BLOCK, octets)


def plain_text(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> PlainText | None:
    """The text of an unsecured object, or None if a plain client cannot have all of it (GW-2).

    The object is message/cpim with text/plain inside, or text/plain itself, in US-ASCII or UTF-8; everything else, secured
    objects above all, goes whole or not at all (I18N-5).
    """
    subjects: tuple[tuple[str, str], ...] = ()
    try:
        if obj.media_type == CPIM_TYPE:
            message = CpimMessage.parse(decode_transfer(obj), limits=limits)
            subjects = tuple(message.subjects.items())
            obj = content_object(message)
        decoded = _decode_text(obj)
    except MalformedMessage:
        return None
    if decoded is None:
        return None
    return PlainText(decoded[0], decoded[1], obj.header("content-language"), subjects)


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


def is_report(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> bool:
    """True for a disposition notification (RFC 5438 section 11.1.8), about which no further report is ever made."""
    if obj.media_type != CPIM_TYPE:
        return obj.media_type == _REPORT_TYPE
    try:
        octets = decode_transfer(obj)
        if b"imdn+xml" not in octets.lower():
            return False
        return content_object(CpimMessage.parse(octets, limits=limits, lenient=True)).media_type == _REPORT_TYPE
    except MalformedMessage:
        return False


def disposition_report(
    failed: MimeObject,
    *,
    sender: Address,
    recipient: Address,
    when: datetime,
    message_id: str,
    failed_id: str = "",
    failed_when: datetime | None = None,
    reporter: Address | None = None,
    status: Disposition = "failed",
    limits: CpimLimits = DEFAULT,
) -> MimeObject:
    """Make the disposition notification about an object (RFC 5438 sections 7.2.1, 8.2 and 11).

    Args:
        failed: the object that could not be delivered, or was; nothing of its content is repeated.
        sender: its source, to whom the report goes.
        recipient: whom it was for.
        when: now, aware.
        message_id: of the report itself.
        failed_id: the failed object's identifier where it shows none (encrypted); the one inside counts first.
        failed_when: when it was sent, where it does not show that; default ``when``.
        reporter: who reports; default the recipient, as RFC 5438 has it.
        status: what became of it.
        limits: for reading ``failed``.
    """
    subject, about_id, about_when = "", failed_id, timestamp(failed_when or when)
    try:
        view = CpimMessage.parse(decode_transfer(failed), limits=limits) if failed.media_type == CPIM_TYPE else None
    except MalformedMessage:
        view = None
    if view is not None:
        about_id = view.message_id or about_id
        about_when = view.date_time_text if view.date_time else about_when
        subject = view.subject()
    document = _document(about_id, about_when, recipient.uri, subject, status)
    octets = compose(
        from_=(reporter or recipient).uri,
        to=sender.uri,
        content=document.encode("utf-8"),
        date_time=when,
        message_id=message_id,
        content_type=_REPORT_TYPE,
        content_headers=[("Content-Disposition", "notification")],
    )
    return MimeObject(_CPIM_BLOCK, octets)


def _document(about_id: str, about_when: str, recipient: str, subject: str, status: Disposition) -> str:
    kind = "processing" if status == "stored" else "delivery"
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<imdn xmlns="urn:ietf:params:xml:ns:imdn">',
        f"<message-id>{_xml_text(about_id)}</message-id>",
        f"<datetime>{_xml_text(about_when)}</datetime>",
        f"<recipient-uri>{_xml_text(recipient)}</recipient-uri>",
        f"<original-recipient-uri>{_xml_text(recipient)}</original-recipient-uri>",
        f"<subject>{_xml_text(subject)}</subject>" if subject else "",
        f"<{kind}-notification><status><{status}/></status></{kind}-notification>",
        "</imdn>",
    ]
    return "".join(line + "\r\n" for line in lines if line)


def _xml_text(text: str) -> str:
    """Escape text for an element; what XML 1.0 cannot hold at all becomes U+FFFD."""
    return escape_xml(_NOT_IN_XML.sub("�", text), quote=False)

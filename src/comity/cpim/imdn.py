"""Disposition notifications (RFC 5438): what a sender asks to be told, what she is told, and how both are written.

Place on the path: read at step 5 of every message, for what its sender wants; made by the service, which says how messages
ended, and by ``mapping.py`` of a protocol that has receipts of its own. The rules its readers must keep: a notification asks for
nothing and is never answered by another; an encrypted message shows no wish, so nobody but its recipient answers one (IMDN-11).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from comity.cpim.address import Address
from comity.cpim.compose import compose, timestamp
from comity.cpim.documents import read_document
from comity.cpim.entity import CPIM_TYPE, content_object, decode_transfer, is_secured
from comity.cpim.header import IMDN
from comity.cpim.message import DEFAULT, CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.xml import Element, XmlLimits, serialize

IMDN_TYPE: Final = "message/imdn+xml"
IMDN_XML: Final = "urn:ietf:params:xml:ns:imdn"
ASKS_HEADER: Final = "imdn.Disposition-Notification"
#: A notification holds five short texts; Linphone's have 400 octets.
IMDN_LIMITS: Final = XmlLimits(octets=16 * 1024, depth=12, elements=64, attributes=16, namespaces=16)
MOST_ID: Final = 256
"""Characters of a Message-ID in a notification; bare ones of stock phones name a Call-ID."""

POSITIVE, NEGATIVE, PROCESSING, DISPLAY = "positive-delivery", "negative-delivery", "processing", "display"
WISHES: Final = (POSITIVE, NEGATIVE, PROCESSING, DISPLAY)
"""What can be asked for (RFC 5438 section 6.2)."""

_COMMON = frozenset({"forbidden", "error"})
STATUSES: Final = {
    "delivery": frozenset({"delivered", "failed"}) | _COMMON,
    "display": frozenset({"displayed"}) | _COMMON,
    "processing": frozenset({"processed", "stored"}) | _COMMON,
}
"""Kind of notification to what it may say (RFC 5438 section 11.1.9)."""
_KIND_OF = {word: kind for kind, words in STATUSES.items() for word in words - _COMMON}

_ONE_WORD = re.compile(r"[!-~]+")
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
NAMELESS = "unknown"
"""In a report about an object without a Message-ID: the element has to be there (RFC 5438 section 11.1.2), and no reader takes an
empty one. Who sent such an object is told by the report's own context."""
_TEXTS = ("message-id", "datetime", "recipient-uri", "original-recipient-uri", "subject")


@dataclass(frozen=True, slots=True)
class Imdn:
    """What one notification says."""

    message_id: str
    """Of the message it is about."""
    when: str
    """DateTime of that message, as it stood there."""
    status: str
    """delivered, failed, displayed, processed, stored, forbidden or error."""
    kind: str = ""
    """delivery, display or processing; "" to write: what the status belongs to."""
    recipient: str = ""
    """URI of whom the message reached, or did not."""
    original_recipient: str = ""
    """URI of whom it was written to."""
    subject: str = ""

    def document(self) -> bytes:
        """The notification as XML (RFC 5438 section 11.1); what XML cannot hold becomes U+FFFD."""
        kind = self.kind or _KIND_OF[self.status]
        texts = (self.message_id, self.when, self.recipient, self.original_recipient, self.subject)
        children = [_element(name, text) for name, text in zip(_TEXTS, texts, strict=True) if text]
        status = _element("status", Element(f"{{{IMDN_XML}}}{self.status}"))
        children.append(_element(f"{kind}-notification", status))
        lines = [serialize(child, IMDN_XML) for child in children]
        opening = f'<?xml version="1.0" encoding="UTF-8"?>\r\n<imdn xmlns="{IMDN_XML}">\r\n'.encode()
        return opening + b"".join(line + b"\r\n" for line in lines) + b"</imdn>\r\n"


def _element(name: str, content: str | Element) -> Element:
    return Element(
        f"{{{IMDN_XML}}}{name}", {}, [_NOT_IN_XML.sub("�", content) if isinstance(content, str) else content]
    )


# --- reading ------------------------------------------------------------------------------------------------------------


def parse_imdn(octets: bytes) -> Imdn:
    """Read the content of a notification.

    Elements of other namespaces are passed over (section 11.1.9, ``anyIMDN``); of its own there is each text at most once, and
    exactly one notification with exactly one status.

    Raises:
        MalformedMessage: it is none (I-07), or passes ``IMDN_LIMITS``.
    """
    root = read_document(octets, IMDN_LIMITS)
    if root.name != f"{{{IMDN_XML}}}imdn":
        raise MalformedMessage("a notification's root is not imdn")
    texts: dict[str, str] = {}
    notice: tuple[str, str] | None = None
    for child in _own(root):
        kind = child.local.removesuffix("-notification")
        if child.local in _TEXTS:
            if child.local in texts or any(True for _ in child.elements()):
                raise MalformedMessage(f"{child.local} of a notification is repeated or holds elements")
            texts[child.local] = child.text.strip(" \t\r\n")
        elif child.local != kind and kind in STATUSES and notice is None:
            notice = kind, _status(child, kind)
        else:
            raise MalformedMessage("a notification holds an element that does not belong there")
    about, when = texts.get("message-id", ""), texts.get("datetime", "")
    if notice is None or not when or len(about) > MOST_ID or not _ONE_WORD.fullmatch(about):
        raise MalformedMessage("a notification needs message-id, datetime and one notification with a status")
    kind, status = notice
    recipient, original = texts.get("recipient-uri", ""), texts.get("original-recipient-uri", "")
    return Imdn(about, when, status, kind, recipient, original, texts.get("subject", ""))


def _own(element: Element) -> list[Element]:
    """Children that are not somebody's extension: of the notification's namespace, or of none."""
    return [child for child in element.elements() if child.namespace in (IMDN_XML, "")]


def _status(notification: Element, kind: str) -> str:
    found = [child for status in _own(notification) for child in _own(status)]
    if [child.name for child in _own(notification)] != [f"{{{IMDN_XML}}}status"] or len(found) != 1:
        raise MalformedMessage("a notification has not exactly one status")
    if found[0].namespace != IMDN_XML or found[0].local not in STATUSES[kind]:
        raise MalformedMessage("a notification has a status that its kind has not")
    return found[0].local


def is_report(obj: MimeObject, *, limits: CpimLimits = DEFAULT) -> bool:
    """True for a disposition notification (RFC 5438 section 11.1.8), about which no further report is ever made."""
    if obj.media_type != CPIM_TYPE:
        return obj.media_type == IMDN_TYPE
    try:
        octets = decode_transfer(obj)
        if b"imdn+xml" not in octets.lower():
            return False
        return content_object(CpimMessage.parse(octets, limits=limits, lenient=True)).media_type == IMDN_TYPE
    except MalformedMessage:
        return False


def notification_in(view: CpimMessage) -> Imdn | None:
    """The notification that a message/cpim object is; None if it is none.

    Raises:
        MalformedMessage: it says it is one, and cannot be read.
    """
    if view.content_type[: len(IMDN_TYPE)].lower() != IMDN_TYPE:
        return None  # told at one look for nearly every message
    inner = content_object(view)
    return parse_imdn(decode_transfer(inner)) if inner.media_type == IMDN_TYPE else None


def wishes_of(view: CpimMessage) -> frozenset[str]:
    """What the sender of an object asks to be told (RFC 5438 section 7.1.1.3); of ``WISHES``.

    Nothing without Message-ID and DateTime, by which a notification is correlated (sections 7.1.1.1 and 7.1.1.2); nothing in a
    notification; nothing where the content is encrypted: an answer has to be so too, which no gateway can (IMDN-11, I-08).
    """
    asked = view.core("Disposition-Notification", IMDN)
    if not asked or not view.message_id or view.date_time is None:
        return frozenset()
    content = content_object(view)
    if content.media_type == IMDN_TYPE or (is_secured(content) and content.media_type != "multipart/signed"):
        return frozenset()
    words = {word.strip(" ").lower() for header in asked for word in header.value.split(",")}
    return frozenset(words & set(WISHES))


# --- making -------------------------------------------------------------------------------------------------------------


def disposition_report(
    about: MimeObject,
    *,
    sender: Address,
    recipient: Address,
    when: datetime,
    message_id: str,
    about_id: str = "",
    about_time: str = "",
    reporter: Address | None = None,
    status: str = "failed",
    limits: CpimLimits = DEFAULT,
) -> MimeObject:
    """Make the disposition notification about an object (RFC 5438 sections 7.2.1, 8.2 and 11).

    Args:
        about: the object that could not be delivered, or was; nothing of its content is repeated.
        sender: its source, to whom the report goes.
        recipient: whom it was for.
        when: now, aware.
        message_id: of the report itself.
        about_id: the object's identifier where it shows none (encrypted); the one inside counts first.
        about_time: its DateTime as it stood, where the object is not at hand; default ``when``.
        reporter: who reports; default the recipient, as RFC 5438 has it.
        status: what became of it.
        limits: for reading ``about``.
    """
    subject, about_text = "", about_time or timestamp(when)
    try:
        view = CpimMessage.parse(decode_transfer(about), limits=limits) if about.media_type == CPIM_TYPE else None
    except MalformedMessage:
        view = None
    if view is not None:
        about_id = view.message_id or about_id
        about_text = view.date_time_text if view.date_time else about_text
        subject = view.subject()
    imdn = Imdn(about_id or NAMELESS, about_text, status, "", recipient.uri, recipient.uri, subject)
    return notification(imdn, from_=reporter or recipient, to=sender, when=when, message_id=message_id)


def notification(imdn: Imdn, *, from_: Address, to: Address, when: datetime, message_id: str) -> MimeObject:
    """The object that carries a notification (RFC 5438 section 7.2.1.1): it has a Message-ID of its own and asks for nothing."""
    octets = compose(
        from_=from_,
        to=to,
        content=imdn.document(),
        date_time=when,
        message_id=message_id,
        content_type=IMDN_TYPE,
        content_headers=[("Content-Disposition", "notification")],
    )
    return MimeObject(b"Content-Type: message/cpim\r\n", octets)


def asking(wishes: Sequence[str]) -> list[tuple[str, str]]:
    """The header by which an object with a Message-ID asks to be told; none if there is nothing to ask."""
    return [(ASKS_HEADER, ", ".join(wishes))] if wishes else []

"""In which form a device is handed a message: the whole object, its text, or what is inside as it is (GW-2). Pure.

Place on the path: inside step 8, for ``mapping.py`` and ``delivery.py``.
"""

from __future__ import annotations

from enum import Enum

from comity.bindings.sip.headers import TOKEN
from comity.cpim.entity import content_object, cpim_view, is_secured
from comity.cpim.imdn import NEGATIVE
from comity.cpim.native import plain_text, readable_part
from comity.cpim.operations import Fate, MessageOperation, MimeObject, unfold
from comity.cpim.protection import needs_whole
from comity.errors import MalformedMessage


class Form(Enum):
    """What a device is handed; the value is ``Response.form``."""

    OBJECT = "object"
    TEXT = "text"
    READABLE = "text-of-signed"
    NATIVE = "native"
    """The content inside as it is, for what every SIP client speaks (composing states)."""


#: What an XMPP program says beside texts (RFC 3923 section 10): typing states, receipts, reactions.
XMPP_XML = "application/xmpp+xml"


def choose_form(operation: MessageOperation, *, takes_cpim: bool, only_text: bool = False) -> Form | None:
    """What to offer a device first (GW-2), None if nothing of it: a secured object is never taken apart unasked.

    Args:
        operation: what to deliver.
        takes_cpim: the device said so.
        only_text: the device comes to harm by an object, or hides it, where others refuse it.
    """
    obj = operation.object
    if operation.context.sealed:
        return None
    if takes_cpim:
        return Form.OBJECT
    if needs_whole(operation.requirements):
        return None if only_text else Form.OBJECT
    if obj.media_type == XMPP_XML:
        # COMPAT PJSUA 2.15, Twinkle 1.10: one shows the markup as a text, the other "Unsupported content type.".
        return None
    if operation.context.transient:
        return Form.NATIVE
    report = operation.context.report
    if report is not None:
        # Who asked, asked in an object: she gets one. A failure is told in words to everybody else (GW-12).
        is_asked = report.fate is not Fate.FAILED or NEGATIVE in operation.context.asks.split()
        return Form.OBJECT if is_asked else Form.TEXT
    if is_secured(obj):
        return Form.READABLE if only_text else Form.OBJECT
    if plain_text(obj) is None:
        return None if only_text else Form.OBJECT
    return Form.TEXT


Body = tuple[list[tuple[str, str]], bytes, str, str]
_PLAIN = [("Content-Type", "text/plain;charset=utf-8")]


def body_of(operation: MessageOperation, form: Form) -> Body | None:
    """What to send of an operation in this form: (content headers, octets, subject, language); None if impossible."""
    obj = operation.object
    if form is Form.OBJECT:
        return object_headers(obj), obj.octets, "", ""
    if form is Form.NATIVE:
        try:
            view = cpim_view(obj)
        except MalformedMessage:
            return None
        inner = obj if view is None else content_object(view)
        return object_headers(inner), inner.octets, "", ""
    if operation.context.report is not None:
        report = operation.context.report
        if report.fate is not Fate.FAILED:
            return None
        text = f"Your message to {report.recipient.local}@{report.recipient.domain} was not delivered. {report.text}"
        return _PLAIN, text.encode("utf-8", "replace"), "", "en"
    plain = plain_text(obj)
    if plain is not None and form is Form.TEXT:
        subject = plain.subjects[0][1] if plain.subjects else ""
        return _PLAIN, plain.content, subject, plain.language or operation.context.language
    text_part = readable_part(obj)
    if text_part is None:
        return None
    # The rule of design.md section 2: the readable part, and plainly what was not proved.
    note = "[This message was signed by its sender. Your program cannot check that, so nothing here is proved.]"
    return _PLAIN, f"{text_part.rstrip()}\r\n\r\n{note}\r\n".encode("utf-8", "replace"), "", operation.context.language


def object_headers(obj: MimeObject) -> list[tuple[str, str]]:
    """The MIME headers of an entity as SIP headers."""
    headers = []
    for line in unfold(obj.header_block):
        name, colon, value = line.partition(":")
        lower = name.strip().lower()
        # MIME allows characters in a name that SIP does not (RFC 2045 section 5.1, RFC 3261 section 25.1).
        if colon and lower.startswith("content-") and lower != "content-length" and TOKEN.fullmatch(name.strip()):
            headers.append((name.strip(), value.strip()))
    return headers

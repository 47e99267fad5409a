"""Whole MIME entities inside a stanza: RFC 3923's ``e2e`` element and Comity's ``octets`` element.

Place on the path: between steps 3 and 4, and 8 and 9. An entity's octets are never changed on the way: XML turns
CR LF into LF, so ``wrap_entity`` first proves that the other side gets back what went in, and gives None if not
(XMPP-19, SEED-21). ``octets`` is base64 of the whole entity: anything fits, but only Comity reads it.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final

from comity.errors import RemoteProtocolError
from comity.xml import CData, Element, is_xml_text

E2E: Final = "urn:ietf:params:xml:ns:xmpp-e2e"
E2E_OLD_ERRORS: Final = "urn:ietf:params:xml:xmpp-e2e"
"""RFC 3923 section 7 prints this one for the error elements (X27); read, never written."""
OCTETS: Final = "urn:comity:octets:0"
E2E_ELEMENT: Final = f"{{{E2E}}}e2e"
OCTETS_ELEMENT: Final = f"{{{OCTETS}}}octets"

_MIME_HEADER = re.compile(r"[!-9;-~]+[ \t]*:")
_BASE64 = re.compile(r"(?:[ \t]*[A-Za-z0-9+/]+={0,2}[ \t]*(?:\r\n|\Z))+")
#: RFC 3923 section 3.3 shows the base64 of an encrypted object without any header (X28).
_BARE_HEADER = "Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n"


def wrap_entity(entity: bytes) -> Element | None:
    """Put a MIME entity in an ``e2e`` element, or give None if XML would change it."""
    try:
        text = entity.decode("utf-8")
    except UnicodeDecodeError:
        return None
    lines = text.replace("\r\n", "\n")
    if not text.strip() or "\r" in lines or not is_xml_text(lines) or lines.count("\n") != text.count("\r\n"):
        return None
    element = Element(E2E_ELEMENT, {}, [CData("\n" + lines + "\n")])
    try:
        return element if unwrap_entity(element) == entity else None
    except RemoteProtocolError:
        return None


def unwrap_entity(element: Element) -> bytes:
    """Take the MIME entity out of an ``e2e`` element.

    The line break after the start of the CDATA section and the one before its end are dropped, LF becomes CR LF
    again. Text outside CDATA means the same (XMPP-20); around a CDATA section it is indentation.

    Raises:
        RemoteProtocolError: the element holds elements, nothing, or what is neither an entity nor base64.
    """
    if any(True for _ in element.elements()):
        raise RemoteProtocolError("an e2e element holds text only", hint="bad-request")
    sections = [child for child in element.children if isinstance(child, CData)]
    outside = "".join(child for child in element.children if isinstance(child, str) and not isinstance(child, CData))
    if sections and not outside.strip():
        text = "".join(sections)
    else:
        text = element.text
        # Nothing a header line can start with is lost: a writer that indents may have put blanks there.
        stripped = text.lstrip(" \t\n")
        text = "\n" + stripped if _MIME_HEADER.match(stripped) else text
    text = text.removeprefix("\n").removesuffix("\n")
    if not text.strip():
        raise RemoteProtocolError("an e2e element is empty", hint="bad-request")
    restored = text.replace("\r\n", "\n").replace("\n", "\r\n")
    if not restored.startswith("\r\n") and not _MIME_HEADER.match(restored):
        if not _BASE64.fullmatch(restored):
            raise RemoteProtocolError("an e2e element holds no MIME entity", hint="bad-request")
        restored = _BARE_HEADER + restored
    return restored.encode("utf-8")


def wrap_octets(entity: bytes) -> Element:
    """Put a MIME entity in an ``octets`` element; everything fits."""
    return Element(OCTETS_ELEMENT, {}, [base64.b64encode(entity).decode("ascii")])


def unwrap_octets(element: Element) -> bytes:
    """Take the MIME entity out of an ``octets`` element. Raises RemoteProtocolError."""
    try:
        entity = base64.b64decode("".join(element.text.split()).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError, ValueError):
        raise RemoteProtocolError("an octets element holds no base64", hint="bad-request") from None
    if not entity or any(True for _ in element.elements()):
        raise RemoteProtocolError("an octets element is empty or holds elements", hint="bad-request")
    return entity

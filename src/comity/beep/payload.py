"""The MIME entity in a BEEP message: its headers and its octets (RFC 3080 section 2.2), and application/beep+xml (6.4).

Place on the path: step 2, between frames and what a profile makes of them.
"""

from __future__ import annotations

import re
from typing import Final

from comity.errors import RemoteProtocolError
from comity.xml import Element, XmlLimits, parse_document, serialize

BEEP_XML: Final = "application/beep+xml"
_HEADER: Final = b"Content-Type: application/beep+xml\r\n\r\n"
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:[ \t]*")
_FOLD = re.compile(rb"\r\n(?=[ \t])")
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^";\s]*)', re.IGNORECASE)
_LIMITS: Final = XmlLimits(octets=64 * 1024, depth=8, elements=512, attributes=16)


def split_payload(payload: bytes) -> tuple[dict[str, str], bytes]:
    """Entity headers by lower-case name, and the octets behind the empty line (a slice, unchanged).

    Raises:
        RemoteProtocolError: there is no empty line, or what stands before it are no headers.
    """
    if payload.startswith(b"\r\n"):
        return {}, payload[2:]
    block, empty, body = payload.partition(b"\r\n\r\n")
    if not empty:
        raise RemoteProtocolError("a message without an empty line behind its entity headers", hint="500")
    headers: dict[str, str] = {}
    for line in _FOLD.sub(b"", block).split(b"\r\n"):
        found = _NAME.match(line)
        if found is None:
            raise RemoteProtocolError("an entity header without a name", hint="500")
        name = found.group(1).decode("ascii").lower()
        if name in headers:
            raise RemoteProtocolError("an entity header stands there twice", hint="500")
        headers[name] = line[found.end() :].rstrip(b" \t").decode("utf-8", "replace")
    return headers, body


def read_beep_xml(payload: bytes) -> Element:
    """The element of a message of type application/beep+xml.

    Raises:
        RemoteProtocolError: with hint "500", or "restricted-xml" for what nobody sends by mistake, a DOCTYPE.
    """
    if payload.startswith(_HEADER):  # as nearly everybody writes it
        return parse_beep_xml(payload[len(_HEADER) :])
    headers, body = split_payload(payload)
    value = headers.get("content-type", "application/octet-stream")
    if value.partition(";")[0].strip().lower() != BEEP_XML:
        raise RemoteProtocolError("a message of another type than application/beep+xml", hint="500")
    charset = _CHARSET.search(value)
    if charset and charset.group(1).lower() not in ("utf-8", "us-ascii"):
        raise RemoteProtocolError("XML in another charset than UTF-8", hint="500")
    if headers.get("content-transfer-encoding", "binary").strip().lower() not in ("binary", "8bit", "7bit"):
        raise RemoteProtocolError("XML in a transfer encoding", hint="500")
    return parse_beep_xml(body)


def parse_beep_xml(body: bytes) -> Element:
    """The element of the octets themselves, as they also stand inside ``profile``.

    Raises:
        RemoteProtocolError: with hint "500" or "restricted-xml".
    """
    if body.startswith((b"<?xml", b"\xef\xbb\xbf<?xml")):
        raise RemoteProtocolError("application/beep+xml has no XML declaration (RFC 3080 section 6.4)", hint="500")
    try:
        return parse_document(body.lstrip(b" \t\r\n"), _LIMITS)
    except RemoteProtocolError as error:
        # An entity that is not declared and a processing instruction are mistakes; a document type is an attack.
        is_attack = error.hint == "restricted-xml" and b"<!DOCTYPE" in body
        hint = error.hint if is_attack else "500"
        raise RemoteProtocolError(error.reason, offset=error.offset, hint=hint) from None


def beep_xml_body(xml: bytes) -> bytes:
    """The payload whose XML is ``xml``."""
    return _HEADER + xml


def write_beep_xml(element: Element) -> bytes:
    """The whole payload: headers, empty line, XML."""
    return _HEADER + serialize(element)

"""What both sides of the SASL family of profiles share (RFC 3080 section 4.1): its names, its codes, ``blob``.

Place on the path: step 2, under ``sasl_server.py`` and ``sasl_client.py``.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Final

from comity.sasl import SaslFailure
from comity.xml import Element, serialize

SASL: Final = "http://iana.org/beep/SASL/"
EndPoint = Callable[[], bytes | None]
"""Gives tls-server-end-point data once TLS is up (b"" if TLS has none), None without TLS."""

#: SASL's conditions (as ``comity.sasl`` names them) as reply codes of RFC 3080 section 8.
CODES: Final = {
    "incorrect-encoding": 501,
    "malformed-request": 501,
    "not-authorized": 535,
    "invalid-authzid": 537,
    "aborted": 550,
}


def write_blob(data: bytes, status: str = "") -> bytes:
    """The XML of a ``blob``; it says nothing of its status if that is "continue"."""
    element = Element("blob", {"status": status} if status else {})
    if data:
        element.append(base64.b64encode(data).decode("ascii"))
    return serialize(element)


def read_blob(element: Element) -> tuple[str, bytes]:
    """Status and content. Raises SaslFailure."""
    if element.name != "blob" or any(isinstance(child, Element) for child in element.children):
        raise SaslFailure("malformed-request", "the element is not expected here")
    status = element.get("status", "continue")
    if status not in ("abort", "complete", "continue"):
        raise SaslFailure("malformed-request")
    try:
        # xml:space is "preserve", yet the RFC's own examples break the lines of a blob.
        return status, base64.b64decode("".join(element.text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise SaslFailure("incorrect-encoding") from None

"""Content-Encoding of a request's body: gzip and deflate are taken off, within bounds (RFC 3261 section 20.12, SEED-29). Pure.

Place on the path: between steps 3 and 4, after the sender proved who he is. The object is what the coding was put around: its
octets are the decoded ones, equal to those of the same body sent plain, and a signature in it covers those (a multipart/signed
is signed before a SIP stack compresses the body that holds it). Nothing is ever sent compressed from here.
"""

from __future__ import annotations

import zlib
from typing import Final

from comity.bindings.sip.message import SipRequest, long_name
from comity.errors import RemoteProtocolError

ACCEPT_ENCODING: Final = "gzip, deflate, identity"
MOST_DECODED: Final = 256 * 1024
"""Octets that a body may have once decoded; the service's own limit for objects comes after it."""
MOST_RATIO: Final = 200
"""Times its size that a body above ``FREE`` may grow: XML and text shrink to a tenth, a bomb to a thousandth (T26)."""
FREE: Final = 4096

_WRAPPERS = {"gzip": 31, "x-gzip": 31, "deflate": 15}


def coding_of(request: SipRequest) -> str:
    """The content coding in lower case, "" if there is none; several joined by a comma, which no one knows."""
    codings = [coding.strip().lower() for coding in request.listed("content-encoding")]
    return ",".join(coding for coding in codings if coding != "identity")


def is_known(coding: str) -> bool:
    """True if a body of that coding can be read."""
    return not coding or coding in _WRAPPERS


def decoded(request: SipRequest, most: int = MOST_DECODED) -> SipRequest:
    """The same request as it would stand without its coding.

    Raises:
        RemoteProtocolError: with the status code as hint: 400 it is not what it says, 413 it would be too large, 415 the coding
            is unknown, or there are several.
    """
    coding = coding_of(request)
    headers = [header for header in request.headers if long_name(header[0]) != "content-encoding"]
    if not coding:
        return request if len(headers) == len(request.headers) else _without(request, headers, request.body)
    if coding not in _WRAPPERS:
        raise RemoteProtocolError("the content coding is unknown", hint="415")
    return _without(request, headers, _inflated(request.body, _WRAPPERS[coding], most))


def _without(request: SipRequest, headers: list[tuple[str, str]], body: bytes) -> SipRequest:
    return SipRequest(request.method, request.uri_text, headers, body, request.version)


def _inflated(body: bytes, wrapper: int, most: int) -> bytes:
    if wrapper == zlib.MAX_WBITS and not _has_zlib_header(body):
        wrapper = -zlib.MAX_WBITS  # COMPAT: many send raw deflate under that name (RFC 9110 section 8.4.1.2)
    most = min(most, max(FREE, MOST_RATIO * len(body)))
    reader = zlib.decompressobj(wrapper)
    try:
        octets = reader.decompress(body, most + 1)
    except zlib.error:
        raise RemoteProtocolError("the body is not in the coding it says", hint="400") from None
    if len(octets) > most:
        raise RemoteProtocolError("the body is too large once decoded", hint="413")
    if not reader.eof or reader.unused_data:
        raise RemoteProtocolError("the coded body is cut, or something stands behind it", hint="400")
    return octets


def _has_zlib_header(body: bytes) -> bool:
    return len(body) > 1 and body[0] & 15 == 8 and (body[0] << 8 | body[1]) % 31 == 0

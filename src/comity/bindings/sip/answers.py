"""Octets of an answer: what is echoed, what is said, and how little of it where little is allowed.

Place on the path: inside step 9, for ``session.py``. Answers are written from parsed values, never from the peer's
octets; what cannot be read is left out (RFC 3261 section 8.2.6).
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence

from comity.bindings.sip.headers import Via
from comity.bindings.sip.message import SipRequest, SipResponse, has_stray_control
from comity.errors import RemoteProtocolError

HostPort = tuple[str, int]

REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    412: "Conditional Request Failed",
    413: "Request Entity Too Large",
    414: "Request-URI Too Long",
    415: "Unsupported Media Type",
    416: "Unsupported URI Scheme",
    420: "Bad Extension",
    423: "Interval Too Brief",
    439: "First Hop Lacks Outbound Support",
    480: "Temporarily Unavailable",
    481: "Call/Transaction Does Not Exist",
    482: "Merged Request",
    483: "Too Many Hops",
    489: "Bad Event",
    493: "Undecipherable",
    500: "Server Internal Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    505: "Version Not Supported",
    513: "Message Too Large",
}
#: What an answer means nothing without; the rest is left out, last first, where there is no room.
_ESSENTIAL = frozenset({"www-authenticate", "unsupported", "min-expires", "retry-after", "allow", "require"})
_SPACE = re.compile(rb"(?<=\r\n)([A-Za-z-]+): ")
_SHORT = {"Via": "v", "From": "f", "To": "t", "Call-ID": "i"}


class Answers:
    """Composes the answers of one session."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def compose(
        self,
        request: SipRequest,
        source: HostPort,
        status_code: int,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        most: int | None = None,
    ) -> bytes:
        """Octets of the answer, at most ``most`` if given; b"" if none can or may be sent."""
        try:
            common = self._common_headers(request, source)
        except RemoteProtocolError:
            return b""  # no Via that can be read: nobody could match an answer
        reason = reason or REASONS.get(status_code, "")
        octets = SipResponse(status_code, reason, [*common, *headers], body).to_bytes()
        if most is None or len(octets) <= most:
            return octets
        return next((smaller for smaller in _smaller(status_code, common, headers) if len(smaller) <= most), b"")

    def _common_headers(self, request: SipRequest, source: HostPort) -> list[tuple[str, str]]:
        """Via, From, To, Call-ID and CSeq as RFC 3261 section 8.2.6.2 wants them echoed; broken ones are left out.

        Raises RemoteProtocolError if the top Via is so broken that nobody can match an answer.
        """
        headers = [("Via", str(_top_via(request).received_from(*source)))]
        headers += [("Via", via) for via in request.vias[1:] if not has_stray_control(via)]
        from_, to, call_id, cseq = ((request.value(name) or "")[:2048] for name in ("from", "to", "call-id", "cseq"))
        if to:
            try:
                if not request.to.tag:
                    to += f";tag={self._tag(call_id, from_, cseq)}"
            except RemoteProtocolError:
                pass  # nowhere to put a tag
        echoed = [("From", from_), ("To", to), ("Call-ID", call_id), ("CSeq", cseq)]
        return headers + [(name, value) for name, value in echoed if value and not has_stray_control(value)]

    def tag(self, request: SipRequest) -> str:
        """The To tag of the answers to a request that has none."""
        return self._tag(*((request.value(name) or "")[:2048] for name in ("call-id", "from", "cseq")))

    def _tag(self, *parts: str) -> str:
        """A To tag that is the same for every retransmission without keeping state (RFC 3261 section 8.2.7)."""
        text = "\0".join(parts).encode("utf-8", "surrogateescape")
        return urlsafe_b64encode(hmac.digest(self._secret, text, "sha256")[:4]).rstrip(b"=").decode("ascii")


def _top_via(request: SipRequest) -> Via:
    """The top Via; of one whose parameters may not be echoed, what stands before them and the branch."""
    try:
        via = request.via
    except RemoteProtocolError:
        if not request.values("via"):
            raise
    else:
        if not has_stray_control(str(via)):
            return via
    return Via.salvage(request.values("via")[0])


def _smaller(
    status_code: int, common: Sequence[tuple[str, str]], headers: Sequence[tuple[str, str]]
) -> Iterator[bytes]:
    """The same answer in fewer octets, least loss first (S-28)."""
    short = [(_SHORT.get(name, name), value) for name, value in common]
    kept = list(headers)
    yield _terse(status_code, short, kept)
    while (last := next((h for h in reversed(kept) if h[0].lower() not in _ESSENTIAL), None)) is not None:
        kept.remove(last)
        yield _terse(status_code, short, kept)
    while len(kept) > 1:
        # The last challenge is the one every stock phone speaks (RFC 8760 orders by preference).
        kept = kept[1:]
        yield _terse(status_code, short, kept)
    # MD5 is what a challenge without an algorithm means (RFC 3261 section 22.4); a datagram needs no Content-Length
    # (section 18.3).
    kept = [(name, value.removesuffix(",algorithm=MD5")) for name, value in kept]
    yield _terse(status_code, short, kept).replace(b"\r\nl:0\r\n\r\n", b"\r\n\r\n")
    if status_code != 401:
        yield _terse(status_code, short, [])


def _terse(status_code: int, short: Sequence[tuple[str, str]], kept: Sequence[tuple[str, str]]) -> bytes:
    """An answer without a body, reason phrase and white space."""
    octets = SipResponse(status_code, "", [*short, *kept]).to_bytes()
    head = octets.replace(b"\r\nContent-Length: 0\r\n\r\n", b"\r\nl:0\r\n\r\n")
    return _SPACE.sub(rb"\1:", head)

"""What a request is refused for before any policy (RFC 3261 section 8.2), without state. Pure.

Place on the path: inside step 3, for ``session.py``. Each function gives (status code, headers), where code 0 means
silence, or None to go on.
"""

from __future__ import annotations

from collections.abc import Collection

from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.uri import OtherUri

#: Methods with a specification of their own: known and not done here is 405, unknown is 501 (RFC 3261 section 8.2.1).
KNOWN_METHODS = frozenset(
    {
        *("INVITE", "ACK", "BYE", "CANCEL", "REGISTER", "OPTIONS", "MESSAGE", "SUBSCRIBE", "NOTIFY", "PUBLISH"),
        *("INFO", "UPDATE", "PRACK", "REFER"),
    }
)
Refused = tuple[int, list[tuple[str, str]]]


def refuse_method(request: SipRequest, methods: Collection[str]) -> Refused | None:
    """Method inspection (section 8.2.1)."""
    if request.method in methods:
        return None
    allow = [("Allow", ", ".join(sorted(methods)))]
    if request.method == "ACK":
        return 0, []
    if request.method in ("CANCEL", "NOTIFY"):
        return 481, []  # nothing to cancel; nobody here holds a subscription (RFC 6665 section 4.1.3, SEC-36)
    return (405 if request.method in KNOWN_METHODS else 501), allow


def refuse_address(request: SipRequest, schemes: Collection[str]) -> Refused | None:
    """Scheme of the Request-URI (section 8.2.2.1) and of every Route; raises RemoteProtocolError for a broken one."""
    if request.uri.scheme not in schemes:
        return 416, []
    if request.values("route") and any(isinstance(route.uri, OtherUri) for route in request.routes):
        return 400, []  # RFC 3428 section 5: no im: URI in Route
    return None


def refuse_extension(request: SipRequest, extensions: Collection[str]) -> Refused | None:
    """Require and Proxy-Require (section 8.2.2.3)."""
    if not (request.values("require") or request.values("proxy-require")):
        return None
    wanted = [*request.listed("require"), *request.listed("proxy-require")]
    unknown = [tag for tag in wanted if tag.lower() not in extensions]
    return (420, [("Unsupported", ", ".join(unknown))]) if unknown else None

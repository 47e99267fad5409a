"""What a message requires of every hop, as SIP headers (T11, SEC-30). Pure.

Place on the path: inside steps 4 and 8, for ``mapping.py``. ``Comity-Protection: tls, signed`` says what is required;
the option tag ``comity-protection`` in Require and Proxy-Require makes a hop that does not know it answer 420 (RFC 3261
sections 20.29 and 20.32), where it would drop the header and send the message on.
"""

from __future__ import annotations

from collections.abc import Collection

from comity.bindings.sip.headers import Via
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.uri import SipUri
from comity.cpim.operations import Requirement
from comity.cpim.protection import read_requirements
from comity.errors import RemoteProtocolError

OPTION = "comity-protection"
HEADER = "Comity-Protection"


def parse_protection(request: SipRequest) -> frozenset[Requirement]:
    """What the request requires; a sips: Request-URI or To means TLS to the end (RFC 7247 section 8).

    Raises RemoteProtocolError: 403 for a requirement unknown here, which nobody could keep; 400 for the option tag
    without its header.
    """
    found: frozenset[Requirement] = frozenset()
    words = request.listed("comity-protection")
    if words:
        try:
            found = read_requirements(words)
        except ValueError as error:
            raise RemoteProtocolError("Protection Not Available", hint="403") from error
    elif request.values("require") or request.values("proxy-require"):
        tags = [*request.listed("require"), *request.listed("proxy-require")]
        if any(tag.lower() == OPTION for tag in tags):
            raise RemoteProtocolError(f"{OPTION} needs {HEADER}", hint="400")
    if any(isinstance(uri, SipUri) and uri.scheme == "sips" for uri in (request.uri, request.to.uri)):
        found |= {Requirement.TLS}
    return found


def came_under_tls(request: SipRequest, transport: str) -> bool:
    """True if the request came to us under TLS, and to every hop before us by what its Via says.

    ``transport`` is the link's own: the top Via, the last hop's word about it, counts for nothing.
    """
    return transport == "tls" and all(_is_tls(via) for via in request.vias[1:])


def _is_tls(via: str) -> bool:
    try:
        return Via.parse(via).transport in ("TLS", "WSS")
    except RemoteProtocolError:
        return False


def protection_headers(requirements: Collection[Requirement], *, is_last_hop: bool) -> list[tuple[str, str]]:
    """The requirements as headers.

    ``is_last_hop``: the request goes straight to the recipient's own device, over a link looked at here. Then nothing
    is left to demand, and a phone that knows no such option tag is not made to refuse the message (SEC-38).
    """
    if not requirements:
        return []
    said = [(HEADER, ", ".join(sorted(requirement.value for requirement in requirements)))]
    return said if is_last_hop else [("Require", OPTION), ("Proxy-Require", OPTION), *said]

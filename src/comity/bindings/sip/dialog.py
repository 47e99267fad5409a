"""A dialog (RFC 3261 section 12) as far as subscriptions need one: whom requests go to, and in which order.

Place on the path: beside steps 4 and 8, pure. The notifier makes one of a SUBSCRIBE, the subscriber one of the NOTIFY that
establishes its subscription (RFC 6665 section 4.4.1): both are the side that received the request, so both take the
route set as it stands there. Only a target refresh (SUBSCRIBE, NOTIFY) moves the remote target; the route set stays.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self

from comity.bindings.sip.headers import NameAddr, malformed
from comity.bindings.sip.message import SipMessage, SipRequest
from comity.bindings.sip.uri import MAX_URI, SipUri
from comity.errors import RemoteProtocolError

#: Proxies that asked to stay on the path, and octets of all their URIs: our own bound; a request over UDP has 1,300.
MOST_ROUTES, MOST_ROUTE_OCTETS = 8, 1024

DialogId = tuple[str, str, str]
"""Call-ID, our tag, the peer's tag."""


@dataclass(slots=True)
class Dialog:
    """One dialog as one side sees it; URIs as text, without angle brackets."""

    call_id: str
    local_uri: str
    local_tag: str
    remote_uri: str
    remote_tag: str
    target: str
    """The peer's Contact: the Request-URI of what we send."""
    routes: tuple[str, ...] = ()
    """Route values as they go out, in order."""
    local_cseq: int = 0
    """Of the last request we sent."""
    remote_cseq: int = 0
    """Of the last request we took."""

    @classmethod
    def of_request(cls, request: SipRequest, local_tag: str, local_cseq: int = 0) -> Self:
        """The dialog that a received SUBSCRIBE or NOTIFY establishes (RFC 3261 section 12.1.1).

        Args:
            request: its To may have no tag yet.
            local_tag: ours; must be that of To if it has one.
            local_cseq: of the last request we sent in it; ours start behind that.

        Raises:
            RemoteProtocolError: no or more than one Contact, one that is no SIP URI, a route that is none, no From-tag
                (hint 400).
        """
        if not request.from_.tag:
            raise malformed("From has no tag")
        return cls(
            request.call_id,
            str(request.to.uri),
            local_tag,
            str(request.from_.uri),
            request.from_.tag,
            target_of(request),
            routes_of(request),
            local_cseq,
            request.cseq.number,
        )

    @property
    def id(self) -> DialogId:
        return self.call_id, self.local_tag, self.remote_tag

    def take(self, request: SipRequest) -> int:
        """Take a request in the dialog that refreshes its target: 0, or the status code to refuse it with (500: out of order,
        RFC 3261 section 12.2.2; the same number is the same request, sent again by another way or after a restart). Raises RemoteProtocolError for a bad Contact; nothing is changed then."""
        if request.cseq.number < self.remote_cseq:
            return 500
        target = target_of(request) if request.values("contact") else self.target
        self.remote_cseq, self.target = request.cseq.number, target
        return 0

    def next_headers(self, method: str, *, max_forwards: int = 70) -> list[tuple[str, str]]:
        """The headers of the next request in the dialog that are the dialog's (RFC 3261 section 12.2.1.1), without Via and
        Contact; counts CSeq on. The Request-URI is ``request_uri``."""
        self.local_cseq += 1
        headers = [("Route", route) for route in self.routes_out]
        return [
            *headers,
            ("Max-Forwards", str(max_forwards)),
            ("From", f"<{self.local_uri}>;tag={self.local_tag}"),
            ("To", f"<{self.remote_uri}>;tag={self.remote_tag}"),
            ("Call-ID", self.call_id),
            ("CSeq", f"{self.local_cseq} {method}"),
        ]

    @property
    def has_strict_router(self) -> bool:
        """True if the first proxy is of RFC 2543: it wants its own URI as Request-URI, and the target at the end."""
        if not self.routes:
            return False
        uri = NameAddr.parse(self.routes[0], "Route").uri
        return not isinstance(uri, SipUri) or uri.param("lr") is None

    @property
    def request_uri(self) -> str:
        return str(NameAddr.parse(self.routes[0], "Route").uri) if self.has_strict_router else self.target

    @property
    def routes_out(self) -> list[str]:
        """Route values of the next request."""
        return [*self.routes[1:], f"<{self.target}>"] if self.has_strict_router else list(self.routes)

    def encode(self) -> bytes:
        """Octets to keep it by."""
        return json.dumps(asdict(self), separators=(",", ":")).encode("utf-8", "surrogateescape")

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what ``encode`` wrote."""
        fields = json.loads(data.decode("utf-8", "surrogateescape"))
        fields["routes"] = tuple(fields["routes"])
        return cls(**fields)


def dialog_id(request: SipRequest) -> DialogId:
    """Of the dialog that a received request says it belongs to; our tag is "" outside one."""
    return request.call_id, request.to.tag, request.from_.tag


def target_of(message: SipMessage) -> str:
    """The remote target a message names: exactly one Contact, a SIP URI without headers (RFC 6665 section 8.2.1)."""
    contacts = message.contacts
    if len(contacts) != 1 or message.is_star:
        raise malformed("there must be exactly one Contact")
    uri = contacts[0].uri
    if not isinstance(uri, SipUri) or uri.headers or len(str(uri)) > MAX_URI:
        raise malformed("Contact must be a SIP URI without headers")
    return str(uri)


def routes_of(message: SipMessage, *, is_reversed: bool = False) -> tuple[str, ...]:
    """The route set of Record-Route; ``is_reversed`` for a response to what we sent (RFC 3261 section 12.1.2)."""
    routes = message.listed("record-route")
    if len(routes) > MOST_ROUTES or sum(map(len, routes)) > MOST_ROUTE_OCTETS:
        raise RemoteProtocolError("too many proxies want to stay on the path", hint="513")
    parsed = [NameAddr.parse(route, "Record-Route") for route in routes]
    if any(not isinstance(route.uri, SipUri) for route in parsed):
        raise malformed("Record-Route is not a SIP URI")
    written = [str(route) for route in parsed]
    return tuple(reversed(written) if is_reversed else written)

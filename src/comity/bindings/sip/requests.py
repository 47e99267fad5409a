"""One received request and the link it came by (between steps 3 and 4 of the path)."""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.bindings.base import HostPort, Link
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.session import SipSession


@dataclass(slots=True)
class LinkState:
    """What the binding knows of one link."""

    link: Link
    session: SipSession
    transport: str
    failures: int = 0
    """Wrong passwords on this connection."""
    registered: set[tuple[str, str]] = field(default_factory=set)
    """Devices that registered on it, by address-of-record and id: only theirs may go down it. A peer's port says
    nothing: the next connection from it may be another user's."""
    domains: frozenset[str] | None = None
    """Domains that the server at the other end of this connection proved to speak for; None: not looked at yet."""
    watching: set[str] = field(default_factory=set)
    """SubscriptIDs of those that were asked for on it: likewise."""


@dataclass(frozen=True, slots=True)
class Request:
    """One received request with where it came from."""

    state: LinkState
    id: int
    request: SipRequest
    source: HostPort

    @property
    def flow(self) -> str:
        """Source flow: what nonces are bound to and requests are kept in order by."""
        return f"{self.state.transport}/{self.source[0]}:{self.source[1]}"

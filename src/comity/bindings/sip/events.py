"""What a ``SipSession`` reports: frozen, in the past tense (step 3 of the path)."""

from __future__ import annotations

from dataclasses import dataclass

from comity.bindings.sip.message import SipRequest, SipResponse

HostPort = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A request that passed every check made without policy; answer it with ``respond(id, …)``."""

    id: int
    request: SipRequest
    source: HostPort
    """Where the packet or connection came from, as the kernel says it; nothing a header claims."""
    octets: int
    """Size of the request on the wire."""


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """A response to ``send_request``; provisional ones may precede exactly one final one."""

    id: str
    response: SipResponse


@dataclass(frozen=True, slots=True)
class RequestTimedOut:
    """Timer F fired: no final response came in 64*T1 (RFC 3261 section 17.1.2.2)."""

    id: str


@dataclass(frozen=True, slots=True)
class RequestFailed:
    """The transport failed under a request that had no final response (RFC 3261 section 17.1.4)."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class MalformedReceived:
    """Octets that break the protocol came; ``status_code`` is what was answered, 0 if nothing was."""

    status_code: int
    reason: str
    source: HostPort


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """The session refused a request by itself, without state (501, 405, 416, 420, 481, 482, 503)."""

    status_code: int
    method: str
    source: HostPort


@dataclass(frozen=True, slots=True)
class PacketDropped:
    """Something was left without an answer on purpose."""

    reason: str
    source: HostPort


Event = (
    RequestReceived
    | ResponseReceived
    | RequestTimedOut
    | RequestFailed
    | MalformedReceived
    | RequestRefused
    | PacketDropped
)

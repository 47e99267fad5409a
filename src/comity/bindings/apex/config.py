"""Options of the APEX binding; durations in seconds, sizes in octets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One address to listen on."""

    transport: Literal["tcp", "tls"]
    """"tcp" (the TLS profile is offered) or "tls"."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class ApexConfig:
    """What ``ApexBinding`` is made with; the server fills it from ``[apex]``, ``[policy]`` and ``[limits]``."""

    domains: tuple[str, ...]
    """Our domains as A-labels."""
    listen: tuple[ListenAddress, ...] = ()
    has_tls: bool = True
    """False if there is no certificate: the TLS profile is not offered."""
    plaintext_from: tuple[str, ...] = ()
    """Networks besides loopback that may sign in without TLS."""
    scram_sha1: bool = True
    scram_iterations: int = 100_000
    """As new accounts get, so that one that does not exist looks the same."""
    failures_per_connection: int = 5
    pre_auth_time: float = 30.0
    """From the first octet to the end of sign-in (P-20)."""
    idle_time: float = 120.0
    """For the rest of a frame or message begun (P-20); a session may be silent between messages for ever."""
    window: int = 4 * 1024
    """First window of a channel (RFC 3081 section 3.1.4)."""
    window_max: int = 64 * 1024
    frame: int = 64 * 1024
    channels: int = 32
    message: int = 1024 * 1024
    attachments: int = 10
    """Of one account."""
    recipients: int = 100
    """Of one data element."""
    user_messages: float = 10.0
    user_message_burst: int = 100
    user_octets: int = 64 * 1024
    peer_messages: float = 500.0
    """Messages a second of one relay."""
    in_flight: int = 32
    """Deliveries to one endpoint, or to one relay, that wait for their ok."""
    mesh_port: int = 912
    """IANA's apex-mesh (RFC 3340 section 8.2)."""
    edge_port: int = 913
    """IANA's apex-edge (RFC 3340 section 8.3)."""

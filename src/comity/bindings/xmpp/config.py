"""Options of the XMPP binding; defaults are those of reliability.md section 6.2.

Place on the path: before it. The composition root fills this from ``comity.toml``. Sizes are octets, durations
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """One address to be reached at."""

    transport: Literal["tcp", "tls"]
    """"tcp" offers STARTTLS, "tls" speaks TLS from the first octet."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HostConfig:
    """An XMPP server that we attach to as a component (XEP-0114)."""

    domain: str
    """Ours there."""
    host: str
    port: int
    secret: str = field(repr=False)
    has_tls: bool = False
    serves: frozenset[str] = frozenset()
    """Domains it may speak for and carry to, A-labels; ``*``: every one but ours."""

    @property
    def url(self) -> str:
        """The next hop of the routes that it implies."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.has_tls else 'tcp'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """What the binding needs to know."""

    domains: tuple[str, ...]
    """Served domains, any form; the first names the server to clients that do not say which they want."""
    client: tuple[ListenAddress, ...] = (
        ListenAddress("tcp", "127.0.0.1", 5222),
        ListenAddress("tls", "127.0.0.1", 5223),
    )
    """Where clients connect."""
    server: tuple[ListenAddress, ...] = ()
    """Where other servers connect."""
    dialback: tuple[str, ...] = ()
    """Domains that may be proved by dialback alone (XEP-0220), whatever certificate they show; they are only as sure as DNS is."""
    component: tuple[ListenAddress, ...] = ()
    """Where external components connect."""
    accept: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The secret of each of them, by its domain."""
    hosts: tuple[HostConfig, ...] = ()
    """Servers that we attach to."""
    software_version: str = ""
    """Told to signed-in clients that ask (XEP-0092); "" tells none."""
    has_tls: bool = True
    """False: there is no certificate, STARTTLS is not offered."""
    plaintext_from: tuple[str, ...] = ()
    """Networks (CIDR) from which signing in without TLS is allowed; nothing is implied, not even loopback."""
    scram_sha1: bool = True
    """Offer SCRAM-SHA-1 too (RFC 6120 section 13.8); old clients know nothing else."""
    scram_iterations: int = 100_000
    """As new accounts get: an account that does not exist shows the same count."""
    pre_auth_stanza: int = 8 * 1024
    """Largest element before sign-in."""
    pre_auth_elements: int = 32
    """Most elements in one stanza before sign-in."""
    pre_auth_time: float = 30.0
    """From the connection to the end of sign-in."""
    pre_auth_octets: int = 64 * 1024
    """All octets before sign-in together."""
    stanza: int = 256 * 1024
    """Largest stanza; RFC 6120 section 13.12 forbids less than 10,000."""
    server_stanza: int = 512 * 1024
    """Largest stanza of another server or a component."""
    depth: int = 64
    """Nesting of elements."""
    elements: int = 4096
    """In one stanza."""
    attributes: int = 64
    """Of one element."""
    namespaces: int = 64
    """Declarations in scope."""
    name_length: int = 256
    """Of an element, attribute or namespace name, in characters."""
    slice: int = 4096
    """Octets given to the XML parser at once."""
    failures_per_connection: int = 5
    """Wrong passwords until the stream is closed."""
    sm_queue: int = 500
    """Unacknowledged stanzas kept for one stream (XEP-0198)."""
    sm_resume: float = 300.0
    """How long a broken stream may be resumed."""
    user_messages: float = 10.0
    """Messages a second of one connection, lasting; above it reading pauses."""
    user_message_burst: int = 100
    """Messages taken at once before the rate counts."""
    peer_messages: float = 500.0
    """Messages a second of another server or a component, lasting."""
    presence_changes: float = 1.0
    """Of one connection, a second, lasting; more are told later, the last one always (L-08)."""
    presence_burst: int = 10
    """At once."""
    user_stanzas: float = 50.0
    """Stanzas of any kind a second of one connection, lasting."""
    user_octets: float = 64 * 1024.0
    """Octets a second of one connection, lasting."""
    contacts: int = 10
    """Resources bound for one account at once."""
    in_flight: int = 32
    """Deliveries unacknowledged on one stream."""

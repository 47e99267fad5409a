"""Options of the SIP binding; durations in seconds, sizes in octets."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TrunkConfig:
    """What is said of one next hop besides its address; the server fills it from ``[[route]]``."""

    domain: str
    """The domain it leads to, A-labels."""
    wire: str
    """What the next hop calls that domain."""
    next_hop: str = ""
    """As in ``[[route]]``: URLs in order, apart by spaces."""
    user: str = ""
    """Name to sign in by; "": its challenges are not answered."""
    password: str = field(default="", repr=False)
    realm: str = ""
    """The one realm to sign in to; "": ``wire``."""
    register: tuple[str, ...] = ()
    """Addresses as it calls them (``1001@pbx.test``), to be registered there as ours."""
    keep_alive: float = 0.0
    """Seconds between two looks whether it is there; 0: none."""
    pres_uris: bool = False
    """Presence is asked for there by ``pres:`` URIs."""


@dataclass(frozen=True, slots=True)
class SipConfig:
    """What ``SipBinding`` is made with; the server fills it from ``[sip]``, ``[policy]`` and ``[limits]``."""

    domains: tuple[str, ...]
    """Our domains as A-labels; the first is the digest realm where a request names none of them."""
    listen: tuple[str, ...] = ()
    """``udp://``, ``tcp://`` and ``tls://HOST:PORT`` (IPv6 in brackets)."""
    plaintext_from: tuple[str, ...] = ()
    """Networks besides loopback from which UDP and TCP are taken (reliability.md section 6.1 items 1 and 4)."""
    sip_md5: bool = True
    """Offer MD5 behind SHA-256; most desk phones know nothing else."""
    t1: float = 0.5
    """Estimated round trip (RFC 3261 section 17.1.1.1)."""
    t2: float = 4.0
    """Longest pause between two retransmissions."""
    t4: float = 5.0
    """How long a network may keep a packet."""
    answer_wait: float = 2.0
    """A MESSAGE is answered 200 if its end is known within this time, else 202 (design.md section 3)."""
    nonce_lifetime: float = 300.0
    min_expires: int = 60
    """Shorter registrations are answered 423."""
    max_expires: int = 3600
    """Longer registrations are granted this."""
    max_contacts: int = 10
    """Of one address-of-record."""
    failures_per_connection: int = 5
    """Wrong passwords until a connection is closed."""
    max_forwards: int = 70
    """What a request leaves with at most (RFC 3261 section 8.1.1.6)."""
    unproved_requests: int = 30
    """UDP requests from one /24 (IPv6: /64) that proved nothing yet, within ``unproved_window``."""
    unproved_window: float = 2.0
    user_messages: float = 10.0
    """Messages a second of one user, lasting; more are answered 503."""
    user_message_burst: int = 100
    """Messages of one user at once before ``user_messages`` counts."""
    user_octets: int = 64 * 1024
    """Octets a second of one user, four seconds' worth at once."""
    peer_messages: float = 500.0
    """Messages a second of one peer server's domain, lasting; four times as many at once."""
    presence_interval: float = 5.0
    """Least seconds between two notifications of one presentity to one watcher; the last state is never lost (RFC 3856 section 6.10)."""
    user_subscriptions: float = 20.0
    """SUBSCRIBE requests a second of one user, lasting; more are answered 503."""
    user_subscription_burst: int = 1000
    """Of one user at once: a whole contact list at sign-in, each answered one challenge."""
    user_publications: float = 2.0
    """PUBLISH requests a second of one user, lasting."""
    user_publication_burst: int = 20
    datagram_octets: int = 16 * 1024
    head_octets: int = 8 * 1024
    """Start line and headers of one message."""
    body_octets: int = 48 * 1024
    header_octets: int = 2 * 1024
    """One header line."""
    long_header_octets: int = 4 * 1024
    """One Authorization, Proxy-Authorization or Identity header."""
    header_count: int = 64
    uri_octets: int = 256
    """The Request-URI."""
    method_octets: int = 64
    connect_idle: float = 120.0
    """A connection we opened to a device is closed after so long without a delivery."""
    trunks: tuple[TrunkConfig, ...] = ()
    """Next hops of which more is known than their address."""

"""What may be written in ``comity.toml``: one frozen dataclass a section, one documented field a key.

Place on the path: before it. The reader walks these fields and nothing else, so a key exists exactly if it stands
here (without the ``_`` that keeps some from being words of Python); ``metadata["kind"]`` says how its text is read. Relative paths count from the directory of the file.
Sizes are octets (``"64 KiB"`` may be written), durations seconds (``"72 h"``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, Literal

from comity.bindings.base import Listener
from comity.cpim.address import Address

Network = IPv4Network | IPv6Network

KIB = 1024
MIB = 1024 * KIB
HOUR = 3600.0

SIP_PORTS = {"udp": 5060, "tcp": 5060, "tls": 5061}
XMPP_CLIENT_PORTS = {"tcp": 5222, "tls": 5223}
XMPP_SERVER_PORTS = {"tcp": 5269, "tls": 5270}
XMPP_COMPONENT_PORTS = {"tcp": 5347, "tls": 5348}
APEX_PORTS = {"tcp": 913, "tls": 914}
WEB_PORTS = {"http": 8080, "https": 8443}
XCAP_PORTS = {"https": 8444}

# mypy types ``field`` by its default; a typed alias for each kind would repeat every type, so these return Any.


def _octets(default: int, low: int = 1) -> Any:
    return field(default=default, metadata={"kind": "octets", "low": low})


def _seconds(default: float) -> Any:
    return field(default=float(default), metadata={"kind": "seconds"})


def _count(default: int, high: int = 10_000_000, low: int = 1) -> Any:
    return field(default=default, metadata={"kind": "count", "low": low, "high": high})


def _flag(default: bool) -> Any:
    return field(default=default, metadata={"kind": "flag"})


def _choice(default: str, *choices: str) -> Any:
    return field(default=default, metadata={"kind": "choice", "choices": choices})


def _listeners(ports: Mapping[str, int], *default: Listener) -> Any:
    return field(default=default, metadata={"kind": "listeners", "ports": ports})


def _words(*choices: str, default: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"kind": "words", "choices": choices})


def _optional(kind: str) -> Any:
    return field(default="", metadata={"kind": kind, "may_be_missing": True})


def _of(kind: str, default: object) -> Any:
    return field(default=default, metadata={"kind": kind})


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """``[server]``: who this server is and where it keeps its data."""

    domains: tuple[str, ...] = _of("domains", ())
    """Domains whose accounts live here; the first names this node. The only key that must be written."""
    data: Path = field(default=Path("data"), metadata={"kind": "path", "below": "file", "name": "data"})
    """Directory of the message store, the control socket and the certificates; mode 0700, on a local disk."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """``[tls]``: what the server shows and whom it believes."""

    certificate: Path = field(
        default=Path("server.pem"), metadata={"kind": "path", "below": "data", "name": "tls/server.pem"}
    )
    """PEM file: the server's certificate, then its intermediates. It must name every served domain. Not written:
    ``tls/server.pem`` in the data directory, where ``comity init`` puts it."""
    key: Path = field(default=Path("server.key"), metadata={"kind": "path", "below": "data", "name": "tls/server.key"})
    """PEM file: the private key of the certificate, without a passphrase. Not written: ``tls/server.key`` there."""
    trust: Path | None = field(default=None, metadata={"kind": "path"})
    """PEM file of the authorities to believe other servers by, instead of the system's. Not written: who connects to us is not
    asked for a certificate."""


@dataclass(frozen=True, slots=True)
class SipConfig:
    """``[sip]``: where SIP is spoken."""

    listen: tuple[Listener, ...] = _listeners(
        SIP_PORTS,
        Listener("tls", "0.0.0.0", 5061),  # noqa: S104  TLS to everybody is what a server is for
        Listener("udp", "127.0.0.1", 5060),
        Listener("tcp", "127.0.0.1", 5060),
    )
    """``udp://``, ``tcp://`` and ``tls://`` addresses; the first two outside loopback need ``plaintext_from``."""


@dataclass(frozen=True, slots=True)
class ComponentConfig:
    """``[[xmpp.component]]``: Comity as a component of an XMPP server (XEP-0114)."""

    domain: str = _of("domain", "")
    """Name under which the XMPP server knows us: one of our domains, or one that a ``[[route]]`` leads on to."""
    host: str = _of("text", "127.0.0.1")
    """Host of the XMPP server's component port. Without ``tls`` it is this machine, or in a network of ``plaintext_from``: whoever
    can read the connection reads every message, and who can write into it speaks for all of that server's people."""
    port: int = field(default=5347, metadata={"kind": "count", "low": 1, "high": 65535})
    """Component port of the XMPP server."""
    tls: bool = _flag(False)
    """TLS from the first octet, with a certificate for ``host``; for servers that offer it."""
    secret: str = field(default="", repr=False, metadata={"kind": "secret"})
    """The shared secret; a file with a secret in it should be readable by its owner only."""
    serves: tuple[str, ...] = _of("peer-domains", ())
    """Domains whose people write to us through that server, and are written to through it; ``*`` for every domain that has no
    ``[[route]]``. Not written: the domain above ``domain``."""

    @property
    def served(self) -> tuple[str, ...]:
        """What ``serves`` says, also where it was not written."""
        return self.serves or (self.domain.partition(".")[2],)


@dataclass(frozen=True, slots=True)
class AcceptConfig:
    """``[[xmpp.accept]]``: an external component that may attach to us (XEP-0114), such as a bridge to another network."""

    domain: str = _of("domain", "")
    """Its domain; it speaks for nobody else. None of ``[server] domains``."""
    secret: str = field(default="", repr=False, metadata={"kind": "secret"})
    """What it proves itself by; whoever knows it speaks for the domain."""


@dataclass(frozen=True, slots=True)
class XmppConfig:
    """``[xmpp]``: where XMPP is spoken."""

    client: tuple[Listener, ...] = _listeners(
        XMPP_CLIENT_PORTS,
        Listener("tcp", "0.0.0.0", 5222, "client"),  # noqa: S104  STARTTLS comes before any password
        Listener("tls", "0.0.0.0", 5223, "client"),  # noqa: S104  TLS to everybody is what a server is for
    )
    """For people: ``tcp://`` (TLS by STARTTLS, before any password) and ``tls://``."""
    server: tuple[Listener, ...] = _listeners(XMPP_SERVER_PORTS)
    """For other XMPP servers; off unless written."""
    component: tuple[ComponentConfig, ...] = ()
    """XMPP servers to join as a component."""
    component_listen: tuple[Listener, ...] = _listeners(XMPP_COMPONENT_PORTS)
    """For external components of ours; off unless written. ``tcp://`` outside loopback needs ``plaintext_from``."""
    accept: tuple[AcceptConfig, ...] = ()
    """Components that may attach there."""


@dataclass(frozen=True, slots=True)
class ApexConfig:
    """``[apex]``: where APEX is spoken; off unless written."""

    listen: tuple[Listener, ...] = _listeners(APEX_PORTS)
    """``tcp://`` and ``tls://`` addresses; without a port, 913 and 914."""


@dataclass(frozen=True, slots=True)
class WebConfig:
    """``[web]``: console, metrics and health; off unless written."""

    listen: tuple[Listener, ...] = _listeners(WEB_PORTS)
    """``http://`` on loopback, ``https://`` anywhere."""


@dataclass(frozen=True, slots=True)
class XcapConfig:
    """``[xcap]``: presence rules and lists by XCAP; HTTPS only, off unless written, never the console's address."""

    listen: tuple[Listener, ...] = _listeners(XCAP_PORTS)
    """``https://`` addresses."""


@dataclass(frozen=True, slots=True)
class RouteConfig:
    """``[[route]]``: a domain that is reached by a fixed next hop instead of by DNS."""

    domain: str = _of("route-domain", "")
    """The foreign domain, or ``*`` for every domain without a route of its own."""
    via: Literal["sip", "xmpp", "apex"] = _choice("sip", "sip", "xmpp", "apex")
    """Protocol spoken with the next hop."""
    next_hop: str = field(default="", metadata={"kind": "next-hop", "may_be_missing": True})
    """``tls://HOST[:PORT]``, ``tcp://…`` or, for SIP, ``udp://…``; for SIP also a list, tried in order. Not written: found by DNS."""
    transit: tuple[str, ...] = _of("peer-domains", ())
    """Foreign domains whose messages may pass through here to this one, ``*`` for all; messages of our own people always may."""
    as_: str = _optional("domain")
    """What the next hop calls the domain, where that is another name than here: written on what goes there, understood of what
    comes from there. Not written: the same."""
    user: str = _optional("text")
    """For SIP: name by which we sign in at the next hop, when it asks (digest); it is told to nobody else."""
    password_file: Path | None = field(default=None, metadata={"kind": "path"})
    """The password of ``user``, the file's first line."""
    realm: str = _optional("text")
    """The realm in the next hop's challenges; no other is answered. Not written: what it calls the domain."""
    register: tuple[Address, ...] = _of("addresses", ())
    """For SIP: addresses, as the next hop calls them, to be registered there as ours, where it sends only to who is registered."""
    keep_alive: float = field(default=60.0, metadata={"kind": "seconds-or-off"})
    """For SIP: how often the next hop is asked whether it is there (OPTIONS), so that one that is not is known before a message
    waits for it; ``"off"``: never."""
    pres_uris: bool = _flag(False)
    """For SIP: presence is asked for there by ``pres:`` URIs (RFC 3856 section 5) and, where those are refused (416), by ``sip:``. Few
    servers know them."""


@dataclass(frozen=True, slots=True)
class FederationConfig:
    """``[federation]``: how domains are reached that have no ``[[route]]``; not at all unless ``dns`` is written."""

    dns: bool = _flag(False)
    """Find the servers of other domains by DNS (RFC 3861, RFC 3263, ``_xmpp-server._tcp``, ``_apex-mesh._tcp``), always under TLS."""
    order: tuple[str, ...] = _words("xmpp", "sip", "apex", default=("xmpp", "sip", "apex"))
    """Protocols to reach other domains by, best first; the one that a message came by goes before them."""
    targets: int = _count(8, 16)
    """Addresses tried for one domain until its messages wait. RFC 3861 asks for two at least."""
    networks: tuple[Network, ...] = _of("networks", ())
    """Private networks to which names found in DNS may lead, such as those of a test; without it strangers' records never lead
    inside, and never to a listener of ours."""
    nameservers: tuple[tuple[str, int], ...] = _of("nameservers", ())
    """DNS servers to ask, ``ADDRESS`` or ``ADDRESS:PORT``. Not written: the system's, and ``/etc/hosts`` before them."""


@dataclass(frozen=True, slots=True)
class PeerConfig:
    """``[[peer]]``: another server. One that shows a certificate of ``[tls] trust`` needs none of this to speak for the domains
    in it; nobody ever speaks for a domain of ours."""

    name: str = _of("domain", "")
    """Domain in its certificate."""
    address: tuple[Network, ...] = _of("networks", ())
    """Addresses or networks by which it is known instead of by a certificate; whoever can send from there is believed."""
    speaks_for: tuple[str, ...] = _of("peer-domains", ())
    """Domains it speaks for besides ``name``; ``*`` for every domain but ours."""
    asserted_identity: bool = _flag(False)
    """For SIP: believe P-Asserted-Identity of it, as who the sender is (RFC 3325); only of a domain it speaks for."""


@dataclass(frozen=True, slots=True)
class MapConfig:
    """``[[map]]``: a person or a domain that a server beside this one calls by another name. Names inside messages stay as they are;
    who has lost a name to somebody else is not known there at all."""

    address: Address | str = field(default="", metadata={"kind": "name"})
    """Here: ``alice@example.org``, or a domain."""
    on: str = _of("domain", "")
    """On which link: the domain of a ``[[route]]`` or of a component."""
    is_: Address | str = field(default="", metadata={"kind": "name"})
    """There: ``1001@pbx.example.org``, or a domain."""


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """``[store]``: where accepted messages are kept."""

    engine: Literal["sqlite", "nats"] = _choice("sqlite", "sqlite", "nats")
    """``sqlite`` (one node, in the data directory) or ``nats`` (a cluster)."""
    url: str = _of("text", "")
    """For ``nats``: ``tls://HOST:4222``, several separated by commas."""


@dataclass(frozen=True, slots=True)
class ProtectionConfig:
    """``[[policy.protection]]``: what a domain or an account requires of messages, and what signatures are looked at here.
    All entries that fit an address hold together; what is required travels with the message and no hop may do with less."""

    of: str = _of("protected", "")
    """A domain, an account (``alice@example.org``), or ``*`` for everybody."""
    require: tuple[str, ...] = _words("tls", "signed", "encrypted")
    """What messages to it must have: TLS on every hop, a signature, encryption. What has not is refused."""
    require_from: tuple[str, ...] = _words("tls", "signed", "encrypted")
    """The same for messages from it."""
    verify: Literal["off", "mark", "refuse"] = _choice("off", "off", "mark", "refuse")
    """``mark`` or ``refuse`` messages to it with one of ``verdicts``, by the authorities of ``[security] trust``. A mark is a
    note in the transport history; the recipient's own program gives the verdict that counts."""
    verdicts: tuple[str, ...] = _words(
        *("bad-signature", "signed-by-other", "malformed", "untrusted", "stale", "future", "no-freshness"),
        *("envelope-mismatch", "headers-unprotected", "not-addressed", "valid-weak", "not-checked"),
        default=("bad-signature", "signed-by-other", "malformed"),
    )
    """Which verdicts ``verify`` is about."""
    operations: Literal["any", "signed"] = _choice("any", "any", "signed")
    """``signed``: whoever asks to watch its presence, or no longer to, has to sign that, believed by the authorities of
    ``[security] trust``."""


@dataclass(frozen=True, slots=True)
class SecurityConfig:
    """``[security]``: end-to-end security, as far as a server has anything to do with it. It never holds a person's key."""

    trust: Path | None = field(default=None, metadata={"kind": "path"})
    """PEM file of the authorities by which ``verify`` and ``operations`` of ``[[policy.protection]]`` believe people's
    certificates; none unless written, and not those of ``[tls]``."""


@dataclass(frozen=True, slots=True)
class PolicyConfig:
    """``[policy]``: who may do what. Sender binding and the ban on third-party relaying cannot be switched off."""

    plaintext_from: tuple[Network, ...] = _of("networks", ())
    """Networks from which unencrypted SIP is taken besides loopback."""
    sip_md5: bool = _flag(True)
    """Offer SIP digest with MD5 after SHA-256; most desk phones know nothing else."""
    scram_sha1: bool = _flag(True)
    """Offer SCRAM-SHA-1 after SHA-256 and SHA-512; RFC 6120 asks for it, old clients know nothing else."""
    scram_iterations: int = _count(100_000, 10_000_000, 65_536)
    """Work a guess at a stolen key costs, for passwords set from now on; Pidgin and all that has Cyrus SASL refuse more
    than 65536."""
    dialback: tuple[str, ...] = _of("named-domains", ())
    """Domains whose XMPP servers may prove themselves by dialback (XEP-0220) instead of a certificate; that is only as sure as DNS is.
    Others must show a certificate that names them."""
    messages: bool = _flag(True)
    """Carry messages; false for presence alone."""
    presence: bool = _flag(True)
    """Carry presence, contact lists and what belongs to them; false for messages alone."""
    presence_default: Literal["ask", "deny", "contacts", "domain", "everyone"] = _choice(
        "ask", "ask", "deny", "contacts", "domain", "everyone"
    )
    """What a watcher gets about whom the person decided nothing: ``ask`` puts the question to the person, ``deny`` does not;
    ``contacts``, ``domain`` and ``everyone`` let those see it who are in the person's contact list, have an account of the
    same domain, or anybody, and ask about all others. Each person may choose differently."""
    protection: tuple[ProtectionConfig, ...] = ()
    """What domains and accounts require of messages."""


@dataclass(frozen=True, slots=True)
class Limits:
    """``[limits]``: every bound of reliability.md section 6.2; the default is right unless you measured otherwise."""

    pre_auth_stanza: int = _octets(8 * KIB)
    """Largest stanza before sign-in."""
    pre_auth_elements: int = _count(32)
    """Elements in one stanza before sign-in."""
    pre_auth_time: float = _seconds(30)
    """From the first octet to the end of sign-in."""
    pre_auth_octets: int = _octets(64 * KIB)
    """All octets before sign-in together."""

    client_stanza: int = _octets(256 * KIB)
    """Largest stanza of a signed-in XMPP client."""
    server_stanza: int = _octets(512 * KIB)
    """Largest stanza of another XMPP server."""
    xml_depth: int = _count(64, 1024)
    """Nesting of elements."""
    xml_elements: int = _count(4096)
    """In one stanza."""
    xml_attributes: int = _count(64)
    """Of one element."""
    xml_namespaces: int = _count(64)
    """In scope at once."""
    xml_name: int = _octets(256)
    """Longest element or attribute name."""
    xml_slice: int = _octets(4 * KIB, 1024)
    """Most octets handed to the parser at once."""

    sip_message_tcp: int = _octets(64 * KIB)
    """One whole message over TCP or TLS."""
    sip_message_udp: int = _octets(16 * KIB)
    """One datagram."""
    sip_headers: int = _octets(8 * KIB)
    """All headers of one message together."""
    sip_body: int = _octets(48 * KIB)
    """Body of one message."""
    sip_header: int = _octets(2 * KIB)
    """One header."""
    sip_credential_header: int = _octets(4 * KIB)
    """One Authorization, Proxy-Authorization or Identity header."""
    sip_header_count: int = _count(64)
    """Headers of one message."""
    sip_uri: int = _octets(256)
    """The Request-URI of a SIP request."""
    sip_method: int = _octets(64)
    """Length of a method name; RFC 4475 has one of 43 that must be answered 501."""

    cpim_header_block: int = _octets(16 * KIB)
    """All message headers of one object together; the same again for the headers of its content."""
    cpim_headers: int = _count(64)
    """Message headers of one object."""
    cpim_header: int = _octets(8 * KIB)
    """One header of a message/cpim object."""
    cpim_message: int = _octets(128 * KIB)
    """The whole object; as base64 it has to fit a stanza."""
    cpim_message_sip: int = _octets(48 * KIB)
    """The whole object at the SIP edge."""

    beep_window: int = _octets(4 * KIB)
    """First window of a channel (RFC 3081 section 3.1.4)."""
    beep_window_max: int = _octets(64 * KIB)
    """Largest window a channel grows to."""
    beep_frame: int = _octets(64 * KIB)
    """One frame."""
    beep_channels: int = _count(32)
    """Channels open in one session."""
    beep_message: int = _octets(1 * MIB)
    """One message, all its frames together."""

    connections_per_address: int = _count(50)
    """Connections from one IP address."""
    connections_unauthenticated: int = _count(4096)
    """Connections that have not signed in yet, in total."""
    connections: int = _count(20_000)
    """In total."""

    failures_per_connection: int = _count(5)
    """Wrong passwords until the connection is closed."""
    failures_per_address: int = _count(20)
    """Wrong passwords until the address is banned."""
    ban: float = _seconds(1 * HOUR)
    """How long a banned address is refused."""

    user_messages: int = _count(10)
    """Messages a second of one user, lasting."""
    user_message_burst: int = _count(100)
    """Messages of one user taken at once before ``user_messages`` counts."""
    user_stanzas: int = _count(50)
    """Stanzas a second of one connection, never less than five for each of ``user_messages``."""
    user_octets: int = _octets(64 * KIB)
    """Octets a second of one connection, never less than 6.4 KiB for each of ``user_messages``."""
    peer_messages: int = _count(500)
    """Messages a second of one peer domain."""
    udp_requests: int = _count(30)
    """Requests by UDP from one /24 (IPv6: /64) that proved nothing yet, within ``udp_window``."""
    udp_window: float = _seconds(2)
    """The time over which ``udp_requests`` counts."""

    sm_queue: int = _count(500)
    """Unacknowledged stanzas kept for one XMPP stream (XEP-0198)."""
    sm_resume: float = _seconds(300)
    """How long a broken stream may be resumed."""

    stored_messages: int = _count(1000)
    """Messages waiting for one user."""
    stored_octets: int = _octets(64 * MIB)
    """Octets waiting for one user."""
    message_lifetime: float = _seconds(72 * HOUR)
    """After that an undelivered message is reported to its sender."""
    dedup_window: float = _seconds(72 * HOUR)
    """How long a repeat is recognised; never shorter than ``message_lifetime``."""

    subscriptions: int = _count(500)
    """Of one user."""
    watchers: int = _count(2000)
    """Of one presentity."""
    requests: int = _count(50)
    """Of one user to see others, that wait for their answer."""
    peer_subscriptions: int = _count(50_000)
    """Of the people of one other domain, to presence of our users."""
    peer_requests: int = _count(50)
    """Of the people of one other domain to see one user, that wait for the answer."""
    peer_asks: int = _count(50)
    """Requests to see somebody, withdrawals and answers a second of one other domain."""
    publications: int = _count(20)
    """Devices that say how one presentity is."""
    user_publications: int = _count(2)
    """A second, lasting: how often a phone may say how its user is; half as often is told what an XMPP program says."""
    user_publication_burst: int = _count(20)
    """At once."""
    presence_document: int = _octets(64 * KIB)
    """Largest presence document."""
    presence_interval: float = _seconds(5)
    """Least time between two notifications of one SIP subscription; the last state is always told."""
    publication_lease: float = _seconds(3600)
    """Longest time for which a SIP device's word counts without being renewed."""
    contact_list: int = _count(2000)
    """People in one user's contact list."""
    documents: int = _count(200)
    """Kept for one user: presence rules, lists, cards, what programs store."""
    document_octets: int = _octets(2 * MIB)
    """Of all documents of one user together."""
    contacts: int = _count(10)
    """Devices signed in for one address-of-record."""

    hops_sip: int = _count(70, 255)
    """Max-Forwards a SIP message starts with (RFC 3261 section 8.1.1.6)."""
    hops: int = _count(128, 255)
    """Max-Forwards everywhere else (RFC 3860 section 3.4.2: over 100)."""
    alias_depth: int = _count(10)
    """Aliases followed from one address to the next."""
    max_breadth: int = _count(60, 255)
    """RFC 5393 section 5.3.3."""

    write_buffer: int = _octets(256 * KIB)
    """Octets waiting to be written to one connection."""
    in_flight: int = _count(32)
    """Unanswered deliveries to one destination."""

    disk_warn: int = _count(80, 100)
    """Per cent of the disk in use from which a warning is logged."""
    disk_refuse: int = _count(90, 100)
    """Per cent of the disk in use from which nothing more is accepted."""
    disk_free: int = _octets(256 * MIB)
    """Free octets below which nothing more is accepted."""


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file, checked."""

    path: Path
    """The file it came from."""
    server: ServerConfig
    """Who this server is and where it keeps its data."""
    tls: TlsConfig
    """Certificate, key, trust."""
    sip: SipConfig
    """Where SIP is spoken."""
    xmpp: XmppConfig
    """Where XMPP is spoken."""
    apex: ApexConfig
    """Where APEX is spoken."""
    web: WebConfig
    """Console, metrics, health."""
    xcap: XcapConfig
    """Presence rules and contact lists by XCAP."""
    routes: tuple[RouteConfig, ...]
    """Every ``[[route]]``, in the order of the file."""
    peers: tuple[PeerConfig, ...]
    """Every ``[[peer]]``."""
    federation: FederationConfig
    """How other domains are found."""
    maps: tuple[MapConfig, ...]
    """Every ``[[map]]``."""
    store: StoreConfig
    """Engine and place of the store."""
    policy: PolicyConfig
    """Who may do what."""
    security: SecurityConfig
    """End-to-end security, as far as it is a server's."""
    limits: Limits
    """Every bound."""
    lines: Mapping[str, int]
    """Line of each key that was written, by its name as in ``ConfigError.key``."""

    @property
    def control_socket(self) -> Path:
        """Where administrative commands reach the running server."""
        return self.server.data / "control.sock"

    def listeners(self) -> list[tuple[str, Listener]]:
        """Every listener with the name of its key (``sip.listen[0]``), in the order of the file's sections."""
        lists = {
            "sip.listen": self.sip.listen,
            "xmpp.client": self.xmpp.client,
            "xmpp.server": self.xmpp.server,
            "xmpp.component_listen": self.xmpp.component_listen,
            "apex.listen": self.apex.listen,
            "web.listen": self.web.listen,
            "xcap.listen": self.xcap.listen,
        }
        return [(f"{key}[{i}]", listener) for key, group in lists.items() for i, listener in enumerate(group)]

    def where(self, key: str) -> str:
        """``file:line`` of ``key``, or the file alone if nothing of it was written."""
        line = line_of(self.lines, key)
        return f"{self.path}:{line}" if line else str(self.path)


def line_of(lines: Mapping[str, int], key: str) -> int:
    """Line of ``key``, else of the list it is an item of, else of its section; 0 if none was written."""
    while key:
        if key in lines:
            return lines[key]
        key = key[: max(key.rfind("."), key.rfind("["), 0)]
    return 0


#: Lists of tables inside a section, by name.
LISTS: dict[str, type[Any]] = {
    "xmpp.component": ComponentConfig,
    "xmpp.accept": AcceptConfig,
    "policy.protection": ProtectionConfig,
}
#: Lists of tables of their own, by name.
TABLES: dict[str, type[Any]] = {"route": RouteConfig, "peer": PeerConfig, "map": MapConfig}
#: Sections that are one table, by name.
SECTIONS: dict[str, type[Any]] = {
    "server": ServerConfig,
    "tls": TlsConfig,
    "sip": SipConfig,
    "xmpp": XmppConfig,
    "apex": ApexConfig,
    "web": WebConfig,
    "xcap": XcapConfig,
    "federation": FederationConfig,
    "store": StoreConfig,
    "policy": PolicyConfig,
    "security": SecurityConfig,
    "limits": Limits,
}

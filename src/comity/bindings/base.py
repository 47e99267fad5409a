"""What a binding is: the contracts between ``net``, a protocol's session and the service.

Place on the path: steps 1 to 3 and 9 to 10. ``net/driver.py`` runs a ``Session`` on a ``Link``; the binding
makes the session, takes its events, submits operations upwards and delivers operations downwards.

Rules: a session never touches a socket, a clock, a thread or randomness of its own; they come as arguments.
A binding never imports another binding or ``net``; it reaches the network only through ``Network``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from comity.cpim.operations import Response
    from comity.service.interfaces import Delivery, Service

Transport = Literal["udp", "tcp", "tls"]
TlsCheck = Literal["name", "chain", "nothing"]
"""How the other side's certificate is judged. Of a server we call: by the authorities and its name; by the authorities alone, its names
are the binding's to look at; not at all. Of who calls us: as the configuration has it for everybody; asked for, and by the authorities
if shown; not asked for."""
HostPort = tuple[str, int]


class Session(Protocol):
    """A sans-IO protocol session over a byte stream.

    After any call, take all of ``next_event``, then ``data_to_send``, then re-arm the timer with ``next_timer``.
    Peer mistakes never raise: the session queues the protocol's own refusal and an event that says so.
    """

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets read from the connection at ``now`` (monotonic seconds)."""

    def receive_eof(self, now: float) -> None:
        """The peer will send no more."""

    def next_event(self) -> object | None:
        """The next event (a frozen dataclass named in the past tense), or None."""

    def data_to_send(self, now: float) -> list[bytes]:
        """Octets to write, in order, each handed out once; an empty item means: half-close after what stands before."""

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called (monotonic seconds), or None."""

    def handle_timer(self, now: float) -> None:
        """Do what was due by ``now``."""


class DatagramSession(Protocol):
    """The same for datagrams: one session serves one bound socket and all its peers."""

    def admits(self, address: HostPort, now: float) -> bool:
        """True if a datagram from ``address`` is to be read at all; asked once for each, before any other work on it."""

    def receive_datagram(self, data: bytes, address: HostPort, now: float) -> None:
        """Take one datagram from ``address``."""

    def refuse_datagram(self, data: bytes, address: HostPort, now: float) -> bool:
        """There is too much to do: say no to a datagram that asks for new work, at a small part of its cost.

        False if it must be taken all the same: an answer, or a repeat of what was taken."""

    def next_event(self) -> object | None: ...

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, HostPort]]:
        """Datagrams to send, in order."""

    def next_timer(self) -> float | None: ...

    def handle_timer(self, now: float) -> None: ...


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What TLS proved about a connection."""

    version: str
    """As Python's ssl names it: "TLSv1.2" or "TLSv1.3"."""
    cipher: str
    server_end_point: bytes
    """tls-server-end-point channel binding of *our* certificate as server, of the peer's as client (RFC 5929 section 4)."""
    peer_certificate: bytes | None = None
    """DER of the peer's certificate if it showed one that verified, else None."""
    names: tuple[str, ...] = ()
    """dNSName entries of that certificate."""
    service_names: tuple[str, ...] = ()
    """Its SRVName entries (RFC 4985), such as ``_xmpp-server.example.org``."""
    xmpp_names: tuple[str, ...] = ()
    """Its XmppAddr entries (RFC 6120 section 13.7.1.4)."""
    ends: datetime | None = None
    """When it ends (aware UTC)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a link, as the kernel says it."""

    transport: Transport
    local: HostPort
    remote: HostPort
    """("", 0) for a bound datagram socket."""
    tls: TlsInfo | None = None


class Link(Protocol):
    """One connection (or one bound datagram socket) with its session, run by ``net/driver.py``."""

    peer: Peer
    """Replaced when TLS starts."""

    @property
    def unsent(self) -> int:
        """Octets accepted by ``flush`` that the kernel has not taken yet."""

    def flush(self) -> None:
        """Hand the session's events to its binding, write what it has to send, re-arm its timer.

        Call it after every verb called on the session outside ``handle_event``; never blocks.
        Several calls in one turn of the loop cost one write."""

    def start_tls(self, check: TlsCheck = "name") -> None:
        """Become a TLS server on this connection (STARTTLS).

        What the session queued before the call goes out in the clear, what it queues afterwards waits for the
        handshake. Octets received before the call were all handed to the session, none will be again: a session
        that holds unparsed ones must refuse instead of asking for TLS (X-36). ``peer.tls`` is set before the
        session gets its first octet from under TLS. Raises LocalProtocolError if there is no certificate or
        TLS is on already."""

    def authenticated(self) -> None:
        """The peer has proved who it is: it no longer counts against the cap of unauthenticated connections."""

    def close(self) -> None:
        """Write what is queued, then close; the driver aborts 2 s later if the peer does not follow."""

    def abort(self) -> None:
        """Close at once and drop what is queued."""

    def pause_reading(self) -> None:
        """Take no more octets from the peer until ``resume_reading`` (backpressure)."""

    def resume_reading(self) -> None: ...


class ClientLink(Link, Protocol):
    """What a link made by ``Network.connect`` can do besides."""

    def start_tls_client(self, server_name: str, check: TlsCheck = "name") -> None:
        """Become a TLS client (STARTTLS) expecting a certificate for ``server_name``.

        What the session queued before the call goes out in the clear, what it queues afterwards waits for the
        handshake. A certificate that does not verify closes the link."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address a binding wants to be reached at."""

    transport: Transport
    """"tls" speaks TLS from the first octet; STARTTLS is offered on "tcp" by the session."""
    host: str
    port: int
    role: str = ""
    """The binding's own word for what is spoken here ("client", "server", "component"); "" if it has one only."""
    check: TlsCheck = "name"
    """Of who connects, when ``transport`` is "tls"."""

    @property
    def url(self) -> str:
        """As written in the configuration: ``udp://127.0.0.1:5060``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.transport}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Target:
    """One address worth trying for a next hop, best first (RFC 3263 section 4)."""

    transport: Transport
    host: str
    """IP address literal."""
    port: int
    server_name: str = ""
    """The name the certificate must hold when transport is "tls"."""
    check: TlsCheck = "name"


class Network(Protocol):
    """What ``net`` offers a binding besides its listeners."""

    async def connect(self, binding: Binding, target: Target, *, role: str = "", client: bool = True) -> Link:
        """Open a connection, a ``ClientLink``; its session comes from ``binding.new_session``, called before this returns.

        ``client``: take the client's part in TLS. Raises DeliveryError."""

    async def resolve(
        self,
        service: Literal["sip", "sips"],
        host: str,
        port: int | None,
        transport: Transport | None,
        *,
        is_trusted: bool = False,
    ) -> Sequence[Target]:
        """Targets for a SIP URI in the order of RFC 3263 section 4. Raises DeliveryError if there are none.

        ``is_trusted``: the host comes from our own configuration or is a contact whose address was proved (U-08);
        without it loopback, private, link-local and multicast addresses and our own listeners are left out (U-03)."""

    async def resolve_service(
        self, prefix: str, domain: str, port: int, transport: Transport, *, is_trusted: bool = False
    ) -> Sequence[Target]:
        """Targets by SRV records under ``prefix`` ("_apex-mesh._tcp"), else by address at ``port``. Raises DeliveryError."""

    async def hop_targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        """Targets for a hop, to be tried in this order before every new connection; remembered for their TTL.

        Args:
            protocol: "sip", "xmpp" or "apex".
            domain: the hop's domain (``Contact.resource``); what a certificate has to name unless the operator named a host.
            next_hop: ``Contact.data`` as text: a URL of the operator's, who may name any address; "" for the protocol's own
                records in DNS; ``srv:_im._sip`` for those under a label of RFC 3861.

        A target's ``server_name`` is what its certificate has to name, also where TLS comes later ("tcp" for XMPP and APEX).

        Raises:
            NoRouteError: there is no such domain, it does not offer this, or no permitted address: final.
            DeliveryError: DNS cannot say now."""

    def datagram_link(self, binding: Binding, near: HostPort | None = None) -> Link | None:
        """The bound datagram socket of ``binding`` to send from (the one bound to ``near`` if given)."""


class Binding(Protocol):
    """A protocol's glue: listeners wanted, sessions made, submit() up, deliver() down."""

    name: str
    """"sip", "xmpp", "apex"."""

    def listeners(self) -> Sequence[Listener]: ...

    def new_session(self, link: Link, role: str) -> Session | DatagramSession:
        """A session for a link just made; ``role`` is the listener's, or the one given to ``connect``."""

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of the link's session; runs in the event loop and must not block."""

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The link is gone; called once, also after ``close`` and ``abort``."""

    async def start(self, service: Service, network: Network) -> None:
        """Called once before any listener opens."""

    async def drain(self) -> None:
        """Orderly shutdown: refuse new work, tell peers, return when nothing is in flight (bounded by the caller)."""

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Hand ``delivery.operation`` to ``delivery.contact``; the future gives the hop's answer.

        The wire order is the order of the calls: the request is queued before this returns. It never raises;
        what cannot be carried is a failure response with the reason."""

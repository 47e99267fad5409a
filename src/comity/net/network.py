"""The network as bindings see it: listeners, outgoing connections, names to addresses, orderly shutdown.

Place on the path: owns every link of steps 1 and 10; ``server.py`` makes one and hands it to the bindings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from comity.bindings.base import Binding, HostPort, Link, Listener, Peer, Target, TlsCheck, Transport
from comity.errors import ConfigError, DeliveryError, NoRouteError
from comity.net.finding import Finder, Kind
from comity.net.intake import Intake
from comity.net.limits import Gate, NetLimits, Tally
from comity.net.listener import StreamListener
from comity.net.memory import HeapTrimmer
from comity.net.outbound import OutboundPolicy
from comity.net.ports import open_socket
from comity.net.resolver import Resolver
from comity.net.room import MemoryRoom
from comity.net.stream import StreamLink
from comity.net.tcp import TcpLink, tune
from comity.net.tls import ServerTls, TlsContexts, TlsFailure, TlsPipe
from comity.net.udp import DatagramLink
from comity.service.interfaces import Clock

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Bound:
    """A listener that is open."""

    listener: Listener
    address: HostPort
    """As the kernel says it; the port is the real one also where 0 was asked for."""


class _Acceptor:
    """Turns the sockets one listener accepts into links."""

    def __init__(self, network: AsyncNetwork, binding: Binding, listener: Listener) -> None:
        self._network = network
        self._binding = binding
        self._listener = listener

    def accepted(self, sock: socket.socket, address: HostPort) -> None:
        self._network.accepted(self._binding, self._listener, sock, address)


class AsyncNetwork:
    """Implements ``Network`` on asyncio.

    Args:
        clock: time for every deadline of a link.
        limits: caps, buffers and deadlines.
        tls: contexts to serve and to call with; without them no TLS listener opens.
        resolver: names to addresses; made from the system's configuration when first needed if None.
        outbound: what may be dialled; its ``own`` is set to this network's listeners.
        lag: seconds for which the service's oldest message has been waiting for its commit.
        most_targets: addresses tried for one foreign domain.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limits: NetLimits | None = None,
        tls: TlsContexts | None = None,
        resolver: Resolver | None = None,
        outbound: OutboundPolicy | None = None,
        lag: Callable[[], float] = lambda: 0.0,
        most_targets: int = 8,
    ) -> None:
        self.limits = limits or NetLimits()
        self.tally = Tally(clock, logger)
        self.gate = Gate(self.limits, clock, MemoryRoom.of_this_process(clock))
        self.intake = Intake(clock, lag)
        self._heap = HeapTrimmer(clock)
        self._clock = clock
        self._tls = tls
        self._resolver = resolver
        self._finder: Finder | None = None
        self._most_targets = most_targets
        self._outbound = outbound or OutboundPolicy()
        self._outbound.own = lambda: [bound.address for bound in self.bound]
        self._listeners: list[StreamListener] = []
        self._datagram_links: dict[int, list[DatagramLink]] = {}
        self._links: set[TcpLink] = set()
        self._making: set[asyncio.Task[None]] = set()
        self._is_closing = False
        self._empty = asyncio.Event()
        self._empty.set()
        self.bound: list[Bound] = []
        """Open listeners in the order they were opened."""

    # --- listeners ---------------------------------------------------------------------------------------

    async def open(self, binding: Binding) -> list[Bound]:
        """Open all listeners of ``binding``, or none.

        Raises:
            ConfigError: one cannot be opened; those opened before it are closed again.
        """
        wanted = binding.listeners()
        for listener in wanted:
            if listener.transport == "tls" and self.server_tls() is None:
                cure = "Set tls.certificate and tls.key, or run comity init."
                raise ConfigError(listener.url, "a TLS listener needs a certificate.", cure)
        sockets: list[tuple[Listener, socket.socket]] = []
        loop = asyncio.get_running_loop()
        try:
            for listener in wanted:
                sockets.append((listener, await loop.run_in_executor(None, open_socket, listener)))
        except BaseException:
            for _, sock in sockets:
                sock.close()
            raise
        opened = []
        for listener, sock in sockets:
            host, port = sock.getsockname()[:2]
            opened.append(Bound(listener, (host, port)))
            if listener.transport == "udp":
                link = DatagramLink(
                    binding,
                    self._clock,
                    sock,
                    role=listener.role,
                    limits=self.limits,
                    tally=self.tally,
                    intake=self.intake,
                )
                self._datagram_links.setdefault(id(binding), []).append(link)
            else:
                acceptor = _Acceptor(self, binding, listener)
                self._listeners.append(StreamListener(sock, acceptor, self._clock, self.tally))
        self.bound.extend(opened)
        return opened

    def accepted(self, binding: Binding, listener: Listener, sock: socket.socket, address: HostPort) -> None:
        """Make a link of a socket just accepted, or close it at once if a cap is reached."""
        host = address[0]
        refusal = self.gate.admit(host)
        if refusal:
            sock.close()
            self.tally.note(refusal, host)
            return
        try:
            tune(sock)
            local = sock.getsockname()[:2]
        except OSError as error:
            # The peer was gone before we looked.
            self.tally.note("Connection lost while being accepted", f"{host}: {error}")
            self._discard(sock, host)
            return
        server = self.server_tls(listener.check) if listener.transport == "tls" else None
        pipe = None if server is None else TlsPipe(server.context, end_point=server.server_end_point)
        peer = Peer("tcp", (local[0], local[1]), address)
        link = StreamLink(self, binding, self._clock, peer, listener.role, tls=pipe)
        self._add(link)
        task = asyncio.get_running_loop().create_task(self._run_accepted(link, sock))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _run_accepted(self, link: StreamLink, sock: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
        except OSError as error:
            self.tally.note("Connection lost while being accepted", f"{link.peer.remote[0]}: {error}")
            sock.close()
            self.link_gone(link)

    def _discard(self, sock: socket.socket, host: str) -> None:
        sock.close()
        self.gate.release(host, is_authenticated=False)

    def stop_listening(self) -> None:
        """Accept nothing new; connections stay, and so do datagram sockets, whose answers are still awaited."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def close(self) -> None:
        """Close listeners and links, each with its last words; ends when all are gone."""
        self._is_closing = True
        self.stop_listening()
        for link in list(self._links):
            link.close()
        for links in self._datagram_links.values():
            for datagram_link in links:
                datagram_link.close()
        self._datagram_links.clear()
        self.bound.clear()
        if self._making:
            await asyncio.wait(self._making)
            for link in list(self._links):
                link.close()
        await self._empty.wait()
        # The last turn delivers link_closed of the datagram sockets.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.intake.close()
        self.tally.close()
        self._heap.close()

    @property
    def links(self) -> int:
        """How many connections there are, both ways."""
        return len(self._links)

    # --- Network -------------------------------------------------------------------------------------------

    async def connect(self, binding: Binding, target: Target, *, role: str = "", client: bool = True) -> StreamLink:
        """Open a connection to ``target``.

        Raises:
            DeliveryError: it cannot be reached in time, or its TLS or certificate is not acceptable.
        """
        if self._is_closing:
            raise DeliveryError("this server is shutting down")
        if target.transport == "udp":
            raise DeliveryError("datagrams need no connection: use datagram_link")
        pipe = self._client_pipe(target, client) if target.transport == "tls" else None
        where = f"{target.host} port {target.port} ({target.transport})"
        sock = await self._dial(target, where)
        if self._is_closing:
            sock.close()
            raise DeliveryError("this server is shutting down")
        local = sock.getsockname()[:2]
        peer = Peer("tcp", (local[0], local[1]), (target.host, target.port))
        link = StreamLink(self, binding, self._clock, peer, role, tls=pipe, is_inbound=False)
        loop = asyncio.get_running_loop()
        link.ready = loop.create_future()
        self._add(link)
        try:
            await loop.create_connection(lambda: link, sock=sock)
            await link.ready
        except BaseException:
            link.abort()
            if not link.is_connected:
                # Nothing was made that could report its end.
                sock.close()
                self.link_gone(link)
            raise
        return link

    def _client_pipe(self, target: Target, client: bool) -> TlsPipe:
        server = self.server_tls()
        try:
            if client:
                return TlsPipe(self.client_context(target.check), server_name=target.server_name or target.host)
        except TlsFailure as error:
            raise DeliveryError(f"no TLS to {target.host}: {error}") from error
        if server is None:
            raise DeliveryError(f"no TLS to {target.host}: there is no certificate to show")
        return TlsPipe(server.context, end_point=server.server_end_point)

    async def _dial(self, target: Target, where: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in target.host else socket.AF_INET
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            raise DeliveryError(f"no connection to {where}: {os.strerror(error.errno or 0)}") from error
        try:
            tune(sock)
            async with asyncio.timeout(self.limits.connect_seconds):
                await asyncio.get_running_loop().sock_connect(sock, (target.host, target.port))
        except TimeoutError as error:
            sock.close()
            raise DeliveryError(f"no answer from {where} within {self.limits.connect_seconds:g} s") from error
        except OSError as error:
            sock.close()
            reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
            raise DeliveryError(f"no connection to {where}: {reason}") from error
        except BaseException:
            sock.close()
            raise
        return sock

    async def resolve(
        self,
        service: Literal["sip", "sips"],
        host: str,
        port: int | None,
        transport: Transport | None,
        *,
        is_trusted: bool = False,
    ) -> Sequence[Target]:
        """Targets for a SIP URI in the order of RFC 3263 section 4; see ``Network``."""
        targets = await self.resolver.sip(service, host, port, transport)
        return targets if is_trusted else self.permitted(targets)

    async def resolve_service(
        self, prefix: str, domain: str, port: int, transport: Transport, *, is_trusted: bool = False
    ) -> Sequence[Target]:
        """Targets by SRV records under ``prefix`` ("_xmpp-server._tcp"), else by address at ``port``."""
        targets = await self.resolver.service(prefix, domain, port, transport)
        return targets if is_trusted else self.permitted(targets)

    async def hop_targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        """Targets for a hop; see ``Network``."""
        return await self.finder.targets(protocol, domain, next_hop)

    async def find(
        self, domain: str, kind: Kind, protocols: Sequence[str], asker: str = ""
    ) -> Sequence[tuple[str, str]]:
        """The protocols a foreign domain is reached by; see ``service.finding.Directory``."""
        return await self.finder.find(domain, kind, protocols, asker)

    @property
    def finder(self) -> Finder:
        """Finds the servers of foreign domains."""
        if self._finder is None:
            self._finder = Finder(self.resolver, self.permitted, self._clock, self._most_targets)
        return self._finder

    def permitted(self, targets: Sequence[Target]) -> Sequence[Target]:
        """Leave out what must not be dialled. Raises NoRouteError if nothing is left (U-03)."""
        refusals = [self._outbound.refusal(target.host, target.port) for target in targets]
        kept = [target for target, refusal in zip(targets, refusals, strict=True) if not refusal]
        if not kept:
            raise NoRouteError(f"no permitted route: {'; '.join(dict.fromkeys(refusals))}")
        return kept

    @property
    def resolver(self) -> Resolver:
        """The resolver in use."""
        if self._resolver is None:
            self._resolver = Resolver(self._clock)
        return self._resolver

    def datagram_link(self, binding: Binding, near: HostPort | None = None) -> Link | None:
        """The bound datagram socket of ``binding`` to send from (the one bound to ``near`` if given)."""
        for link in self._datagram_links.get(id(binding), []):
            if near is None or link.peer.local == near:
                return link
        return None

    # --- LinkOwner -----------------------------------------------------------------------------------------

    def server_tls(self, check: TlsCheck = "name") -> ServerTls | None:
        """What to speak TLS with as a server, as it is now."""
        return None if self._tls is None else self._tls.servers.get(check)

    def client_context(self, check: TlsCheck = "name") -> ssl.SSLContext:
        """What to speak TLS with as a client, as it is now."""
        if self._tls is None:
            self._tls = TlsContexts()
        return self._tls.clients[check]

    def link_authenticated(self, link: TcpLink) -> None:
        """Stop counting an accepted link as a stranger's."""
        if link.is_inbound:
            self.gate.authenticated()

    def link_gone(self, link: TcpLink) -> None:
        """Give the place of a link back."""
        if link in self._links:
            self._links.discard(link)
            self._heap.link_gone()
            if link.is_inbound:
                self.gate.release(link.peer.remote[0], is_authenticated=link.is_authenticated)
            if not self._links:
                self._empty.set()

    def _add(self, link: TcpLink) -> None:
        self._links.add(link)
        self._empty.clear()

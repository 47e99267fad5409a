"""HTTPS listeners: sockets, TLS and connection caps around an HTTP server of aiohttp's.

Place on the path: beside it, for what speaks HTTP (XCAP). Connections pass the same ``Gate`` as all others and see the certificate
as it is now. What HTTP itself leaves open has an end here: a request must have come whole, and a connection must have done
something, within a time; whoever proved nothing is counted as a stranger.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from comity.bindings.base import HostPort, Listener
from comity.errors import ConfigError
from comity.net.listener import StreamListener
from comity.net.network import AsyncNetwork, Bound
from comity.net.ports import open_socket
from comity.net.tcp import tune
from comity.service.interfaces import Clock, Timer

logger = logging.getLogger(__name__)

REQUEST_SECONDS: Final = 30.0
"""For one request to come and to be answered, and for a connection without one."""
KEEPALIVE_SECONDS: Final = 15.0
"""Between two requests of one connection."""
LONGEST_LINE: Final = 8 * 1024 + 512
LONGEST_HEADER: Final = 9 * 1024
"""Digest credentials repeat the URI."""
LINGER_SECONDS: Final = 2.0
"""How long a body that nobody wants is read, so that the answer arrives."""
MOST_HEADERS: Final = 64

Handler = Callable[[web.BaseRequest, Callable[[], None]], Awaitable[web.StreamResponse]]
"""Answers a request; calls its second argument when the sender has proved who it is."""


class HttpsServer:
    """Listens for one handler.

    Args:
        network: its gate, its certificate, its log.
        handler: what answers.
        clock: deadlines.
    """

    def __init__(self, network: AsyncNetwork, handler: Handler, clock: Clock) -> None:
        self._network = network
        self._handler = handler
        self._clock = clock
        self._listeners: list[StreamListener] = []
        self.bound: list[Bound] = []
        """Open listeners in the order they were opened."""
        self._connections: dict[web.RequestHandler, _Connection] = {}
        self._making: set[asyncio.Task[None]] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._server = web.Server(
            self._handle,
            access_log=None,
            logger=logger,
            keepalive_timeout=KEEPALIVE_SECONDS,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_HEADER,
            max_headers=MOST_HEADERS,
            lingering_time=LINGER_SECONDS,
            auto_decompress=False,
        )

    async def open(self, wanted: Sequence[Listener]) -> None:
        """Open all listeners, or none. Raises ConfigError."""
        if wanted and self._network.server_tls() is None:
            cure = "Set tls.certificate and tls.key, or run comity init."
            raise ConfigError(wanted[0].url, "a TLS listener needs a certificate.", cure)
        sockets: list[tuple[Listener, socket.socket]] = []
        loop = asyncio.get_running_loop()
        try:
            for listener in wanted:
                sockets.append((listener, await loop.run_in_executor(None, open_socket, listener)))
        except BaseException:
            for _, sock in sockets:
                sock.close()
            raise
        for listener, sock in sockets:
            self._listeners.append(StreamListener(sock, self, self._clock, self._network.tally))
            self.bound.append(Bound(listener, self._listeners[-1].address))

    def stop_listening(self) -> None:
        """Accept nothing new."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        self.bound.clear()

    async def close(self) -> None:
        """Let requests under way end, then close; who is still at TLS has to try again."""
        self.stop_listening()
        for task in self._making:
            task.cancel()
        if self._making:
            await asyncio.wait(self._making)
        self._server.pre_shutdown()
        await self._server.shutdown(timeout=2.0)
        for connection in list(self._connections.values()):
            connection.abort()
        await self.idle()

    async def idle(self) -> None:
        """Wait until no connection is left."""
        await self._empty.wait()

    def accepted(self, sock: socket.socket, address: HostPort) -> None:
        """See ``Acceptor``."""
        host = address[0]
        tls = self._network.server_tls()
        refused = self._network.gate.admit(host) if tls else "Connection refused: there is no certificate"
        if refused or tls is None:
            sock.close()
            self._network.tally.note(refused, host)
            return
        inner = self._server()
        connection = _Connection(self, inner, host)
        self._connections[inner] = connection
        self._empty.clear()
        task = asyncio.get_running_loop().create_task(self._run(connection, sock))
        self._making.add(task)
        task.add_done_callback(self._making.discard)

    async def _run(self, connection: _Connection, sock: socket.socket) -> None:
        tls = self._network.server_tls()
        assert tls is not None, "accepted looked"
        try:
            tune(sock)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=tls.context,
                ssl_handshake_timeout=self._network.limits.handshake_seconds,
                ssl_shutdown_timeout=self._network.limits.close_seconds,
            )
        except (OSError, asyncio.CancelledError) as error:  # TLS that failed included: the other end's affair
            sock.close()
            self.gone(connection)
            if isinstance(error, asyncio.CancelledError):
                raise
            self._network.tally.note("HTTPS connection lost while being accepted", f"{connection.host}: {error}")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = self._connections.get(request.protocol)
        if connection is None:
            return web.Response(status=503)  # it is gone already
        connection.begun()
        try:
            return await self._handler(request, connection.proved)
        finally:
            connection.ended()

    def gone(self, connection: _Connection) -> None:
        """A connection ended."""
        if self._connections.pop(connection.inner, None) is not None:
            self._network.gate.release(connection.host, is_authenticated=connection.is_proved)
            if not self._connections:
                self._empty.set()

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """A deadline."""
        return self._clock.call_later(seconds, callback)

    def authenticated(self) -> None:
        """One connection is no stranger's any more."""
        self._network.gate.authenticated()


class _Connection(asyncio.Protocol):
    """One connection: aiohttp's own protocol, with deadlines and a place at the gate around it."""

    def __init__(self, server: HttpsServer, inner: web.RequestHandler, host: str) -> None:
        self._server = server
        self.inner = inner
        self.host = host
        self.is_proved = False
        self._transport: asyncio.Transport | None = None
        self._deadline: Timer | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._await()
        self.inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> None:
        self.inner.eof_received()

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self.inner.connection_lost(exc)
        self._server.gone(self)

    def begun(self) -> None:
        """A request's head is here; its body has as long again."""
        self._await()

    def ended(self) -> None:
        """A request was answered."""
        self._await()

    def proved(self) -> None:
        """Its peer has an account here."""
        if not self.is_proved:
            self.is_proved = True
            self._server.authenticated()

    def abort(self) -> None:
        """End it now."""
        self._stop()
        if self._transport is not None:
            self._transport.abort()

    def _await(self) -> None:
        self._stop()
        self._deadline = self._server.call_later(REQUEST_SECONDS, self.abort)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

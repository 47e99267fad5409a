"""Stream links: a session on a TCP connection, in the clear or under TLS, and the listeners that accept them.

Place on the path: steps 1 and 10. ``StreamLink`` is asyncio's BufferedProtocol on one side and ``Link`` on the other.

Rules: all connections read into one buffer of the process, because what was read is consumed before the loop
goes on (true of selector loops, which are the only ones on Unix). ``close`` writes all, sends the end of the
stream and then reads on, discarding, until the peer ends too: closing a socket with unread octets would make
the kernel send a reset, which can destroy our last words on their way.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from comity.bindings.base import Binding, HostPort, Peer, Session, TlsInfo
from comity.errors import DeliveryError, LocalProtocolError
from comity.failpoints import failpoint
from comity.net.driver import SessionDriver
from comity.net.limits import NetLimits, Tally
from comity.net.tls import RECORD, ServerTls, TlsFailure, TlsPipe
from comity.service.interfaces import Clock, Timer

_BUFFER = memoryview(bytearray(64 * 1024))
ACCEPTS_PER_TURN = 64
HALVED = 8 * 1024
"""Smallest write of which the failpoint writes a half: one message, not a handshake (F-K7)."""
RETRY_SECONDS = 1.0
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000))
"""Socket options by name (Linux's; others have some of them): seconds, seconds, probes, milliseconds."""
NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class LinkOwner(Protocol):
    """What a stream link asks of the network it belongs to."""

    @property
    def limits(self) -> NetLimits: ...

    @property
    def tally(self) -> Tally: ...

    def server_tls(self) -> ServerTls | None:
        """What to speak TLS with as a server, as it is now."""

    def client_context(self) -> ssl.SSLContext:
        """What to speak TLS with as a client, as it is now."""

    def link_authenticated(self, link: StreamLink) -> None: ...

    def link_gone(self, link: StreamLink) -> None: ...


def tune(sock: socket.socket) -> None:
    """Send small writes at once; notice a vanished peer within 120 s, also while octets wait for it (F-25)."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class StreamLink(SessionDriver, asyncio.BufferedProtocol):
    """A session on one TCP connection; implements ``Link`` and ``ClientLink``.

    Args:
        owner: the network that made it.
        binding: whose session this is; it is asked for one when octets can flow (after the handshake if ``tls``).
        tls: the pipe of a connection that speaks TLS from its first octet.
        is_inbound: True if the peer connected to us, so that it counts against the caps.
    """

    __slots__ = (
        "_accepted",
        "_deadline",
        "_error",
        "_has_unread",
        "_held",
        "_held_octets",
        "_is_aborted",
        "_is_authenticated",
        "_is_closing",
        "_is_gone",
        "_is_paused",
        "_is_write_paused",
        "_owner",
        "_peer_ended",
        "_session",
        "_stall",
        "_tls",
        "_transport",
        "_we_ended",
        "is_inbound",
        "ready",
    )

    def __init__(
        self,
        owner: LinkOwner,
        binding: Binding,
        clock: Clock,
        peer: Peer,
        role: str,
        *,
        tls: TlsPipe | None = None,
        is_inbound: bool = True,
    ) -> None:
        super().__init__(binding, clock, owner.tally, peer, role)
        self.is_inbound = is_inbound
        self.ready: asyncio.Future[None] | None = None
        """Resolved when the session is made, or with the DeliveryError that prevented it."""
        self._owner = owner
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
        self._tls = tls
        self._held: list[bytes] = []
        self._held_octets = 0
        self._has_unread = False
        self._accepted = 0
        self._deadline: Timer | None = None
        self._stall: Timer | None = None
        self._error: Exception | None = None
        self._is_aborted = False
        self._is_authenticated = False
        self._is_closing = False
        self._is_gone = False
        self._is_paused = False
        self._is_write_paused = False
        self._peer_ended = False
        self._we_ended = False

    # --- Link ---------------------------------------------------------------------------------------------

    @property
    def is_authenticated(self) -> bool:
        """True after ``authenticated``."""
        return self._is_authenticated

    @property
    def is_connected(self) -> bool:
        """True from ``connection_made`` until the link is gone."""
        return self._transport is not None

    @property
    def unsent(self) -> int:
        """Octets accepted that the kernel has not taken yet."""
        queued = 0 if self._transport is None else self._transport.get_write_buffer_size()
        return queued + self._held_octets

    def authenticated(self) -> None:
        """The peer has proved who it is; stop counting it as a stranger. Calling it again changes nothing."""
        if not self._is_authenticated and not self._is_gone:
            self._is_authenticated = True
            self._owner.link_authenticated(self)

    def start_tls(self) -> None:
        """Become a TLS server: what is queued now goes out in the clear, all that follows under TLS."""
        server = self._owner.server_tls()
        if server is None:
            raise LocalProtocolError("there is no certificate to start TLS with")
        self._switch(TlsPipe(server.context, end_point=server.server_end_point))

    def start_tls_client(self, server_name: str) -> None:
        """Become a TLS client expecting a certificate for ``server_name``."""
        try:
            self._switch(TlsPipe(self._owner.client_context(), server_name=server_name))
        except TlsFailure as error:
            raise LocalProtocolError(str(error)) from error

    def close(self) -> None:
        """Write what is queued, end our side, wait for the peer's end; abort after ``close_seconds``."""
        if self._is_gone or self._is_closing:
            return
        self._begin_closing()
        if self._session is None or self._we_ended:
            self._finish()
        else:
            self.flush()

    def abort(self) -> None:
        """Close at once and drop what is queued."""
        if self._transport is not None and not self._is_gone:
            self._is_aborted = self._is_closing = self._we_ended = True
            self._transport.abort()

    def pause_reading(self) -> None:
        """Take no more from the peer."""
        self._is_paused = True
        self._set_reading()

    def resume_reading(self) -> None:
        """Take from the peer again, first what was already here."""
        self._is_paused = False
        self._set_reading()
        self.flush()

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands: make the session, or begin the handshake."""
        self._transport = cast("asyncio.Transport", transport)
        high = self._owner.limits.write_buffer
        self._transport.set_write_buffer_limits(high=high, low=high // 4)
        if self._tls is None:
            self._guard(self._make_session)
        else:
            self._guard(self._begin_handshake)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The process's one read buffer; under TLS no more of it than a record, which keeps the BIO small."""
        return _BUFFER if self._tls is None else _BUFFER[:RECORD]

    def buffer_updated(self, nbytes: int) -> None:
        """Octets came."""
        if self._is_discarding:
            return
        failpoint("net.read")
        if self._tls is not None:
            self._tls.feed(_BUFFER[:nbytes])
            self._guard(self._read_tls)
        else:
            self._guard(self._receive, bytes(_BUFFER[:nbytes]))

    def eof_received(self) -> bool:
        """The peer sent its end of stream: the session may still write, so the transport stays open."""
        if self._is_discarding or self._session is None:
            self._peer_ended = True
            self._close_transport()
        elif not self._peer_ended:
            self._guard(self._peer_end)
        return True

    def pause_writing(self) -> None:
        """More than ``write_buffer`` octets wait: read no more, and see within ``stall_seconds`` that some leave."""
        self._is_write_paused = True
        self._set_reading()
        self._watch_stall()

    def resume_writing(self) -> None:
        """The peer reads again."""
        self._is_write_paused = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._set_reading()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason: tell the binding, forget everything."""
        error = self._error
        if error is None and exc is not None:
            error = DeliveryError(f"the connection with {_text(self.peer.remote)} was lost: {exc}")
            error.__cause__ = exc
        session, self._session = self._session, None
        self._is_gone = True
        self._stop()
        self._clear_deadline()
        if self._stall is not None:
            self._stall.cancel()
        self._tls = None
        self._transport = None
        self._held.clear()
        self._held_octets = 0
        self._owner.link_gone(self)
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(error or DeliveryError(f"{_text(self.peer.remote)} closed the connection"))
        if session is not None:
            self._guard(lambda now: self._binding.link_closed(self, error))

    # --- SessionDriver's side --------------------------------------------------------------------------------

    def _current(self) -> Session | None:
        return None if self._is_aborted else self._session

    def _write(self, now: float) -> bool:
        session = self._session
        assert session is not None
        items = session.data_to_send(now)
        if not items:
            return False
        ends = b"" in items
        if ends:
            items = items[: items.index(b"")]
        self._send(items[0] if len(items) == 1 else b"".join(items))
        if ends:
            self._half_close()
        return True

    def _failed(self, error: Exception) -> None:
        """Give up on this link: what was written before still goes out, nothing else does."""
        self._error = self._error or error
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(DeliveryError("internal error, see the log"))
        if self._transport is not None and not self._is_gone:
            self._begin_closing()
            self._finish()

    def _pump(self, now: float) -> None:
        super()._pump(now)
        if self._is_closing and not self._we_ended:
            self._finish()

    def _flushing(self, now: float) -> None:
        if self._has_unread:
            self._read_tls(now)

    # --- reading ---------------------------------------------------------------------------------------------

    @property
    def _is_discarding(self) -> bool:
        return self._is_closing or self._is_gone

    def _make_session(self, now: float) -> None:
        self._session = cast(Session, self._binding.new_session(self, self.role))
        if self.ready is not None and not self.ready.done():
            self.ready.set_result(None)

    def _receive(self, now: float, data: bytes) -> None:
        if self._session is not None and not self._peer_ended:
            self._session.receive_data(data, now)

    def _peer_end(self, now: float) -> None:
        if self._peer_ended or self._session is None:
            return
        self._peer_ended = True
        self._session.receive_eof(now)
        self._pump(now)
        if self._we_ended:
            self._close_transport()
        elif self._deadline is None:
            self._set_deadline(self._owner.limits.half_open_seconds, self.close)

    def _set_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if (self._is_paused or self._is_write_paused) and not self._is_closing:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # --- writing and ending ----------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Give octets of the session to the transport, under TLS if it is on, later if it is only starting."""
        if not data or self._we_ended or self._transport is None:
            return
        if self._tls is None:
            self._hand_over(data)
        elif self._tls.is_ready:
            try:
                self._hand_over(self._tls.write(data))
            except TlsFailure as error:
                self._tls_failed(error)
        else:
            self._held.append(data)
            self._held_octets += len(data)

    def _hand_over(self, data: bytes) -> None:
        if data and not self._we_ended and self._transport is not None and not self._transport.is_closing():
            self._accepted += len(data)
            if len(data) >= HALVED:
                failpoint("net.half-written", partial(self._transport.write, data[: len(data) // 2]))
            self._transport.write(data)
            failpoint("net.written")

    def _half_close(self) -> None:
        """End our side of the stream after everything written so far."""
        if self._we_ended or self._transport is None:
            return
        if self._tls is not None and self._tls.is_ready:
            self._tls.close_notify()
            self._hand_over(self._tls.outgoing())
        self._we_ended = True
        try:
            self._transport.write_eof()
        except OSError:
            # The peer has reset the connection and the loop has not noticed yet; nothing can be written anyway.
            self._transport.abort()

    def _finish(self) -> None:
        """Close for good: end our side, then discard until the peer ends its own (bounded by the deadline)."""
        self._half_close()
        if self._peer_ended:
            self._close_transport()
        else:
            self._set_reading()

    def _close_transport(self) -> None:
        self._begin_closing()
        if self._transport is not None:
            self._transport.close()

    def _begin_closing(self) -> None:
        """From now on nothing is read, and all is over after ``close_seconds`` at the latest."""
        if not self._is_closing:
            self._is_closing = True
            self._set_deadline(self._owner.limits.close_seconds, self.abort)

    def _watch_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
        taken = self._accepted - self.unsent
        self._stall = self._clock.call_later(self._owner.limits.stall_seconds, lambda: self._check_stall(taken))

    def _check_stall(self, taken: int) -> None:
        self._stall = None
        if self._accepted - self.unsent > taken:
            self._watch_stall()
            return
        seconds = self._owner.limits.stall_seconds
        self._error = DeliveryError(f"{_text(self.peer.remote)} took no octet for {seconds:g} s")
        self._owner.tally.note("Peer reads nothing, connection dropped", _text(self.peer.remote))
        self.abort()

    def _set_deadline(self, seconds: float, late: Callable[[], None]) -> None:
        self._clear_deadline()
        self._deadline = self._clock.call_later(seconds, late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    # --- TLS ----------------------------------------------------------------------------------------------------

    def _switch(self, pipe: TlsPipe) -> None:
        """Write what is queued in the clear, then speak only TLS."""
        if self._tls is not None:
            raise LocalProtocolError("TLS is already on")
        if self._session is None or self._is_closing or self._we_ended:
            raise LocalProtocolError("TLS cannot start on a connection that is closing")
        now = self._clock.now()
        self._write(now)
        self._tls = pipe
        self._begin_handshake(now)

    def _begin_handshake(self, now: float) -> None:
        self._set_deadline(self._owner.limits.handshake_seconds, self._handshake_late)
        self._read_tls(now)

    def _handshake_late(self) -> None:
        seconds = self._owner.limits.handshake_seconds
        self._error = DeliveryError(f"TLS with {_text(self.peer.remote)} was not ready after {seconds:g} s")
        self._owner.tally.note("TLS handshake not finished in time", _text(self.peer.remote))
        self.abort()

    def _read_tls(self, now: float) -> None:
        """Go on with the handshake, or decrypt what came, one record at a time, until nothing is left."""
        pipe = self._tls
        if pipe is None or self._is_discarding:
            return
        try:
            if pipe.is_ready or pipe.handshake():
                if self.peer.tls is None:
                    self._established(now, pipe.info())
                self._decrypt(now, pipe)
        except TlsFailure as error:
            self._tls_failed(error)
        else:
            self._hand_over(pipe.outgoing())
            if pipe.is_server and not pipe.is_ready:
                self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        """Let the kernel not wait 40 ms for something of ours to carry the ACK of the client's Finished.

        Without session tickets we send nothing there, and a client that has Nagle's algorithm on holds its first
        octets back until then: 500 connections one after the other took over 8 s."""
        if self._transport is not None and hasattr(socket, "TCP_QUICKACK"):
            sock = self._transport.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _established(self, now: float, info: TlsInfo) -> None:
        self._clear_deadline()
        self.peer = Peer("tls", self.peer.local, self.peer.remote, info)
        assert self._tls is not None
        self._hand_over(self._tls.outgoing())
        if self._session is None:
            self._make_session(now)
        held, self._held, self._held_octets = b"".join(self._held), [], 0
        self._send(held)
        self._pump(now)

    def _decrypt(self, now: float, pipe: TlsPipe) -> None:
        self._has_unread = False
        while not (self._is_discarding or self._peer_ended):
            if self._is_paused or self._is_write_paused:
                self._has_unread = True
                return
            data = pipe.read()
            if data is None:
                return
            if not data:
                self._peer_end(now)
                return
            self._receive(now, data)
            self._pump(now)

    def _tls_failed(self, error: TlsFailure) -> None:
        """Send TLS's alert, then close; the session has nothing more to say that could be sent."""
        kind = "TLS connection failed" if self.peer.tls is not None else "TLS handshake failed"
        self._owner.tally.note(kind, f"{_text(self.peer.remote)}: {error}")
        self._error = DeliveryError(f"TLS with {_text(self.peer.remote)} failed: {error}")
        self._error.__cause__ = error
        if self._tls is not None and self._transport is not None:
            self._hand_over(self._tls.outgoing())
            self._tls.is_ready = False
        self._begin_closing()
        self._finish()


def _text(address: HostPort) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Acceptor(Protocol):
    """Who takes accepted sockets."""

    def accepted(self, sock: socket.socket, address: HostPort) -> None: ...


class StreamListener:
    """Accepts connections of one listening socket; rests for a second when the process is out of descriptors (F-09)."""

    def __init__(self, sock: socket.socket, acceptor: Acceptor, clock: Clock, tally: Tally) -> None:
        self._sock = sock
        self._acceptor = acceptor
        self._clock = clock
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._resting: Timer | None = None
        host, port = sock.getsockname()[:2]
        self.address: HostPort = (host, port)
        self._loop.add_reader(sock.fileno(), self._accept)

    @property
    def is_resting(self) -> bool:
        """True while out of descriptors; connections wait in the kernel's backlog."""
        return self._resting is not None

    def close(self) -> None:
        """Stop listening; connections already accepted stay."""
        if self._resting is not None:
            self._resting.cancel()
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                reason = os.strerror(error.errno or 0)
                self._tally.note("No connection can be accepted for now", f"{_text(self.address)}: {reason}")
                if error.errno in NO_RESOURCES:
                    self._rest()
                return
            self._acceptor.accepted(sock, address[:2])

    def _rest(self) -> None:
        self._loop.remove_reader(self._sock.fileno())
        self._resting = self._clock.call_later(RETRY_SECONDS, self._resume)

    def _resume(self) -> None:
        self._resting = None
        self._loop.add_reader(self._sock.fileno(), self._accept)

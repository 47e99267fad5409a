"""A session on a TCP connection: reading, writing, backpressure and the end of a stream.

Place on the path: steps 1 and 10. ``TcpLink`` is asyncio's BufferedProtocol on one side and ``Link`` on the other;
``stream.py`` adds TLS to it, and what it makes is the only kind of stream link there is.

Rules: all connections read into one buffer of the process, because what was read is consumed before the loop
goes on (true of selector loops, which are the only ones on Unix). ``close`` writes all, sends the end of the
stream and then reads on, discarding, until the peer ends too: closing a socket with unread octets would make
the kernel send a reset, which can destroy our last words on their way.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast

from comity.bindings.base import Binding, HostPort, Peer, Session, TlsCheck
from comity.errors import DeliveryError
from comity.failpoints import failpoint
from comity.net.driver import SessionDriver
from comity.net.intake import SLICE, Intake
from comity.net.limits import NetLimits, Tally
from comity.net.tls import ServerTls
from comity.service.interfaces import Clock, Timer

HALVED = 8 * 1024
"""Smallest write of which the failpoint writes a half: one message, not a handshake (F-K7)."""
KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000))
"""Socket options by name (Linux's; others have some of them): seconds, seconds, probes, milliseconds."""


class _Buffer(threading.local):
    """Into which every connection of a thread reads: two clients of the library may live in two threads' loops."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(SLICE))


BUFFER = _Buffer()


class LinkOwner(Protocol):
    """What a stream link asks of the network it belongs to."""

    @property
    def limits(self) -> NetLimits: ...

    @property
    def tally(self) -> Tally: ...

    @property
    def intake(self) -> Intake: ...

    def server_tls(self, check: TlsCheck = "name") -> ServerTls | None:
        """What to speak TLS with as a server, as it is now."""

    def client_context(self, check: TlsCheck = "name") -> ssl.SSLContext:
        """What to speak TLS with as a client, as it is now."""

    def link_authenticated(self, link: TcpLink) -> None: ...

    def link_gone(self, link: TcpLink) -> None: ...


def tune(sock: socket.socket) -> None:
    """Send small writes at once; notice a vanished peer within 120 s, also while octets wait for it (F-25)."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class TcpLink(SessionDriver, asyncio.BufferedProtocol):
    """A session on one TCP connection, in the clear; implements ``Link`` all but ``start_tls``.

    Args:
        owner: the network that made it.
        binding: whose session this is; it is asked for one when octets can flow.
        is_inbound: True if the peer connected to us, so that it counts against the caps.
    """

    __slots__ = (
        "_accepted",
        "_deadline",
        "_error",
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
        "_transport",
        "_unread",
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
        is_inbound: bool = True,
    ) -> None:
        super().__init__(binding, clock, owner.tally, peer, role)
        self.is_inbound = is_inbound
        self.ready: asyncio.Future[None] | None = None
        """Resolved when the session is made, or with the DeliveryError that prevented it."""
        self._owner = owner
        self._session: Session | None = None
        self._transport: asyncio.Transport | None = None
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
        self._unread = b""
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
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def authenticated(self) -> None:
        """The peer has proved who it is; stop counting it as a stranger. Calling it again changes nothing."""
        if not self._is_authenticated and not self._is_gone:
            self._is_authenticated = True
            self._owner.link_authenticated(self)

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
        self._read_on()

    # --- asyncio's side -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands: begin."""
        self._transport = cast("asyncio.Transport", transport)
        high = self._owner.limits.write_buffer
        self._transport.set_write_buffer_limits(high=high, low=high // 4)
        self._guard(self._begin)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The thread's one read buffer."""
        return BUFFER.view

    def buffer_updated(self, nbytes: int) -> None:
        """Octets came: work through them now, or hold them and read no more until it is our turn."""
        if self._is_discarding:
            return
        failpoint("net.read")
        data = bytes(BUFFER.view[:nbytes])
        if self._owner.intake.admits(self):
            self._take(data)
        else:
            self._unread = data
            self._set_reading()

    def take_turn(self) -> None:
        """Work through what was held, and read on."""
        if self._is_paused or self._is_write_paused:
            return  # whoever lets us go on asks for another turn
        data, self._unread = self._unread, b""
        if data and not self._is_discarding:
            self._take(data)
        self._set_reading()

    def _take(self, data: bytes) -> None:
        self._guard(self._receive, data)

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
        self._read_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason: tell the binding, forget everything."""
        error = self._error
        if error is None and exc is not None:
            error = DeliveryError(f"the connection with {address_text(self.peer.remote)} was lost: {exc}")
            error.__cause__ = exc
        session, self._session = self._session, None
        self._is_gone = True
        self._stop()
        self._clear_deadline()
        if self._stall is not None:
            self._stall.cancel()
        # asyncio's transport and a callback it keeps of its own hold each other; without this both would stay, with
        # the socket's object, until the garbage collector looks at everything, which it does rarely.
        getattr(self._transport, "__dict__", {}).pop("_read_ready_cb", None)
        self._transport = None
        self._owner.link_gone(self)
        if self.ready is not None and not self.ready.done():
            self.ready.set_exception(error or DeliveryError(f"{address_text(self.peer.remote)} closed the connection"))
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

    # --- reading ---------------------------------------------------------------------------------------------

    @property
    def _is_discarding(self) -> bool:
        return self._is_closing or self._is_gone

    def _begin(self, now: float) -> None:
        self._make_session(now)

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

    def _read_on(self) -> None:
        if self._unread and self._owner.intake.admits(self):
            self._loop.call_soon(self.take_turn)
        self._set_reading()
        self.flush()

    def _set_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if (self._unread or self._is_paused or self._is_write_paused) and not self._is_closing:
            transport.pause_reading()
        else:
            transport.resume_reading()

    # --- writing and ending ----------------------------------------------------------------------------------

    def _send(self, data: bytes) -> None:
        """Write octets of the session."""
        self._hand_over(data)

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
        self._say_end()
        self._we_ended = True
        try:
            self._transport.write_eof()
        except OSError:
            # The peer has reset the connection and the loop has not noticed yet; nothing can be written anyway.
            self._transport.abort()

    def _say_end(self) -> None:
        """Write what has to stand before the end of our side."""

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
        self._error = DeliveryError(f"{address_text(self.peer.remote)} took no octet for {seconds:g} s")
        self._owner.tally.note("Peer reads nothing, connection dropped", address_text(self.peer.remote))
        self.abort()

    def _set_deadline(self, seconds: float, late: Callable[[], None]) -> None:
        self._clear_deadline()
        self._deadline = self._clock.call_later(seconds, late)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def address_text(address: HostPort) -> str:
    """``host:port`` for people."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

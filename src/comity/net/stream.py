"""TLS on a TCP connection, from its first octet or by STARTTLS: the stream links of this program.

Place on the path: steps 1 and 10, between ``tcp.py`` (the socket) and the session. What a session writes while a
handshake runs is held back; what the peer sends is decrypted one record at a time, so that a paused session is
not handed more than it asked for.
"""

from __future__ import annotations

import socket

from comity.bindings.base import Binding, Peer, TlsCheck, TlsInfo
from comity.errors import DeliveryError, LocalProtocolError
from comity.net.tcp import LinkOwner, TcpLink, address_text
from comity.net.tls import TlsFailure, TlsPipe
from comity.service.interfaces import Clock


class StreamLink(TcpLink):
    """A session on one TCP connection, in the clear or under TLS; implements ``Link`` and ``ClientLink``.

    Args:
        tls: the pipe of a connection that speaks TLS from its first octet; the session is made after the handshake.
    """

    __slots__ = ("_has_unread", "_held", "_held_octets", "_tls")

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
        super().__init__(owner, binding, clock, peer, role, is_inbound=is_inbound)
        self._tls = tls
        self._held: list[bytes] = []
        self._held_octets = 0
        self._has_unread = False

    # --- Link -----------------------------------------------------------------------------------------------

    @property
    def unsent(self) -> int:
        """Octets accepted that the kernel has not taken yet, those that wait for the handshake included."""
        return super().unsent + self._held_octets

    def start_tls(self, check: TlsCheck = "name") -> None:
        """Become a TLS server: what is queued now goes out in the clear, all that follows under TLS."""
        server = self._owner.server_tls(check)
        if server is None:
            raise LocalProtocolError("there is no certificate to start TLS with")
        self._switch(TlsPipe(server.context, end_point=server.server_end_point))

    def start_tls_client(self, server_name: str, check: TlsCheck = "name") -> None:
        """Become a TLS client expecting a certificate for ``server_name``."""
        try:
            self._switch(TlsPipe(self._owner.client_context(check), server_name=server_name))
        except TlsFailure as error:
            raise LocalProtocolError(str(error)) from error

    # --- TcpLink's side ---------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        if self._tls is None:
            super()._take(data)
        else:
            self._tls.feed(data)
            self._guard(self._read_tls)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, for whatever reason: tell the binding, forget everything."""
        self._tls = None
        self._held.clear()
        self._held_octets = 0
        super().connection_lost(exc)

    def _begin(self, now: float) -> None:
        if self._tls is None:
            self._make_session(now)
        else:
            self._begin_handshake(now)

    def _flushing(self, now: float) -> None:
        if self._has_unread:
            self._read_tls(now)

    def _send(self, data: bytes) -> None:
        """Write octets of the session, under TLS if it is on, later if it is only starting."""
        if self._tls is None:
            self._hand_over(data)
        elif not data or self._we_ended or self._transport is None:
            return
        elif self._tls.is_ready:
            try:
                self._hand_over(self._tls.write(data))
            except TlsFailure as error:
                self._tls_failed(error)
        else:
            self._held.append(data)
            self._held_octets += len(data)

    def _say_end(self) -> None:
        if self._tls is not None and self._tls.is_ready:
            self._tls.close_notify()
            self._hand_over(self._tls.outgoing())

    # --- TLS itself -----------------------------------------------------------------------------------------

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
        self._error = DeliveryError(f"TLS with {address_text(self.peer.remote)} was not ready after {seconds:g} s")
        self._owner.tally.note("TLS handshake not finished in time", address_text(self.peer.remote))
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
        self._owner.tally.note(kind, f"{address_text(self.peer.remote)}: {error}")
        self._error = DeliveryError(f"TLS with {address_text(self.peer.remote)} failed: {error}")
        self._error.__cause__ = error
        if self._tls is not None and self._transport is not None:
            self._hand_over(self._tls.outgoing())
            self._tls.is_ready = False
        self._begin_closing()
        self._finish()

"""Datagram links: one session for one bound UDP socket and all its peers.

Place on the path: steps 1 and 10. An own endpoint instead of asyncio's, because it drains the socket at each
wake: a quarter of the CPU for a busy SIP socket (design.md section 3).

Rule: one bad datagram never takes the socket from all other peers, so an internal error costs only the datagram.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from typing import cast

from comity.bindings.base import Binding, DatagramSession, HostPort, Peer
from comity.failpoints import failpoint
from comity.net.driver import SessionDriver
from comity.net.intake import TURN, Intake, Patience
from comity.net.limits import NetLimits, Tally
from comity.service.interfaces import Clock

LARGEST = 65_535
SOCKET_BUFFER = 4 * 1024 * 1024
"""Asked of the kernel, which gives what net.core.rmem_max allows: room for a burst while the loop is busy."""


class DatagramLink(SessionDriver):
    """A datagram session on one bound socket; implements ``Link``."""

    __slots__ = ("_is_paused", "_is_writing", "_limits", "_patience", "_queue", "_queued", "_session", "_sock")

    def __init__(
        self,
        binding: Binding,
        clock: Clock,
        sock: socket.socket,
        *,
        role: str,
        limits: NetLimits,
        tally: Tally,
        intake: Intake,
    ) -> None:
        host, port = sock.getsockname()[:2]
        super().__init__(binding, clock, tally, Peer("udp", (host, port), ("", 0)), role)
        self._sock = sock
        self._limits = limits
        self._patience = Patience(intake)
        self._session: DatagramSession | None = None
        self._queue: deque[tuple[bytes, HostPort]] = deque()
        self._queued = 0
        self._is_paused = False
        self._is_writing = False
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        self._session = cast(DatagramSession, binding.new_session(self, role))
        self._loop.add_reader(sock.fileno(), self._readable)
        self.flush()

    @property
    def unsent(self) -> int:
        """Octets of datagrams waiting for the kernel."""
        return self._queued

    def authenticated(self) -> None:
        """Nothing to count: a datagram socket has many peers."""

    def close(self) -> None:
        """Send what the session still has as far as the kernel takes it, then close at the end of this turn."""
        self.flush()
        self._loop.call_soon(self.abort)

    def abort(self) -> None:
        """Close the socket; ``link_closed`` follows in the loop's next turn."""
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._stop()
        self._queue.clear()
        self._queued = 0
        self._session = None
        self._loop.call_soon(self._guard, lambda now: self._binding.link_closed(self, None))

    def pause_reading(self) -> None:
        """Leave datagrams to the kernel, which drops what its buffer does not hold."""
        if not self._is_paused and self._sock.fileno() >= 0:
            self._is_paused = True
            self._loop.remove_reader(self._sock.fileno())

    def resume_reading(self) -> None:
        """Take datagrams again."""
        if self._is_paused and self._sock.fileno() >= 0:
            self._is_paused = False
            self._loop.add_reader(self._sock.fileno(), self._readable)

    def _current(self) -> DatagramSession | None:
        return self._session

    def _failed(self, error: Exception) -> None:
        """Keep the socket: only what caused the error is lost."""

    def _readable(self) -> None:
        ends = self._clock.now() + TURN
        while (now := self._clock.now()) < ends:
            try:
                data, address = self._sock.recvfrom(LARGEST)
            except (BlockingIOError, InterruptedError):
                self._patience.emptied()
                return
            except OSError as error:
                self._tally.note("A datagram could not be read", os.strerror(error.errno or 0))
                return
            failpoint("net.read")
            peer = (address[0], address[1])
            if self._session is None or not self._session.admits(peer, now):
                continue
            if not (self._patience.is_over(now) and self._refused(data, peer, now)):
                self._guard(self._receive, data, peer)
                if self._is_paused or self._session is None:
                    return
        self._patience.left(now)

    def _receive(self, now: float, data: bytes, address: HostPort) -> None:
        if self._session is not None:
            self._session.receive_datagram(data, address, now)

    def _refused(self, data: bytes, address: HostPort, now: float) -> bool:
        """Let the session refuse; its answer goes out at the end of this turn, since only the cost counts here."""
        session = self._session
        if session is None or not session.refuse_datagram(data, address, now):
            return False
        self.flush()
        return True

    def _write(self, now: float) -> bool:
        session = self._session
        assert session is not None
        datagrams = session.datagrams_to_send(now)
        for data, address in datagrams:
            if self._queue or not self._sent(data, address):
                self._enqueue(data, address)
        return bool(datagrams)

    def _sent(self, data: bytes, address: HostPort) -> bool:
        """Give one datagram to the kernel; False if it takes none now. One it can never take is dropped."""
        try:
            self._sock.sendto(data, address)
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, OverflowError) as error:
            # As if the network had lost it: the session's retransmissions and timeouts answer for that.
            self._tally.note("A datagram could not be sent", f"{address[0]}:{address[1]}: {error}")
        failpoint("net.written")
        return True

    def _enqueue(self, data: bytes, address: HostPort) -> None:
        if self._queued + len(data) > self._limits.datagram_queue:
            self._tally.note("The queue of datagrams is full, one was dropped", f"{address[0]}:{address[1]}")
            return
        self._queue.append((data, address))
        self._queued += len(data)
        if not self._is_writing:
            self._is_writing = True
            self._loop.add_writer(self._sock.fileno(), self._writable)

    def _writable(self) -> None:
        while self._queue:
            data, address = self._queue[0]
            if not self._sent(data, address):
                return
            self._queue.popleft()
            self._queued -= len(data)
        self._is_writing = False
        self._loop.remove_writer(self._sock.fileno())


def local_address(host: str, port: int) -> str:
    """The address of this machine that a packet to ``host`` would come from; nothing is sent."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))
        return str(probe.getsockname()[0])

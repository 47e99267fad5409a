"""Listening TCP sockets: accept what comes, rest while the process is out of descriptors (F-09).

Place on the path: before step 1. Whether an accepted connection may stay is decided by who takes it (``Gate``).
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import Protocol

from comity.bindings.base import HostPort
from comity.net.limits import Tally
from comity.net.tcp import address_text
from comity.service.interfaces import Clock, Timer

ACCEPTS_PER_TURN = 64
RETRY_SECONDS = 1.0
NO_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
                self._tally.note("No connection can be accepted for now", f"{address_text(self.address)}: {reason}")
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

"""How much of this machine strangers may take: connection caps, buffers, deadlines (reliability.md section 6.2).

Place on the path: before step 1. ``Gate`` decides at accept whether a connection may exist at all; ``Tally``
keeps a flood of refusals from becoming a flood of log lines (L-12).
"""

from __future__ import annotations

import ipaddress
import logging
from collections import Counter
from dataclasses import dataclass

from comity.net.room import MemoryRoom
from comity.service.interfaces import Clock, Timer

REPORT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class NetLimits:
    """Limits of the network layer; every value is a default of ``[limits]``."""

    per_address: int = 50
    """Most connections from one IPv4 address or one IPv6 /64."""
    unauthenticated: int = 4096
    """Most connections whose peer has not proved who it is, together."""
    total: int = 20_000
    """Most accepted connections, together."""
    accepts_per_second: int = 200
    """Most new connections a second from one IPv4 address or IPv6 /64 (L-03)."""
    write_buffer: int = 256 * 1024
    """Octets waiting for a slow reader above which nothing more is read from it (L-04)."""
    stall_seconds: float = 30.0
    """How long a full write buffer may stay without the peer taking a single octet."""
    handshake_seconds: float = 10.0
    """Time for a whole TLS handshake."""
    connect_seconds: float = 10.0
    """Time for an outgoing TCP connection to be made."""
    close_seconds: float = 2.0
    """Time from ``close`` to ``abort``."""
    half_open_seconds: float = 60.0
    """How long a link stays after the peer's end of stream if its session does not end it."""
    datagram_queue: int = 1024 * 1024
    """Octets of datagrams kept while the kernel takes none; more are dropped, as the network would."""


class Tally:
    """Logs the first occurrence of a kind of trouble at once and the rest as one count a minute."""

    def __init__(self, clock: Clock, logger: logging.Logger) -> None:
        self._clock = clock
        self._logger = logger
        self._counts: dict[str, int] = {}
        self._last: dict[str, str] = {}
        self._timers: dict[str, Timer] = {}

    def note(self, kind: str, detail: str) -> bool:
        """Count one occurrence; True if it was logged at once.

        ``kind`` is one of a few fixed sentences, ``detail`` may hold a peer's address."""
        if kind in self._counts:
            self._counts[kind] += 1
            self._last[kind] = detail
            return False
        self._logger.warning("%s (%s)", kind, detail)
        self._start(kind)
        return True

    def close(self) -> None:
        """Stop counting; what was counted and not yet said is said now."""
        for kind in list(self._timers):
            self._timers[kind].cancel()
            self._say(kind)
        self._timers.clear()
        self._counts.clear()

    def _start(self, kind: str) -> None:
        self._counts[kind] = 0
        self._timers[kind] = self._clock.call_later(REPORT_SECONDS, lambda: self._report(kind))

    def _report(self, kind: str) -> None:
        if self._say(kind):
            self._start(kind)
        else:
            del self._counts[kind], self._timers[kind]

    def _say(self, kind: str) -> bool:
        count = self._counts[kind]
        if count:
            self._logger.warning("%s: %d more times, last %s", kind, count, self._last.pop(kind))
        return count > 0


def address_key(host: str) -> str:
    """What one peer is counted by: its IPv4 address, or its IPv6 /64, which is what one customer gets."""
    if ":" not in host:
        return host
    packed = ipaddress.IPv6Address(host.partition("%")[0])
    if packed.ipv4_mapped is not None:
        return str(packed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(packed) >> 64 << 64, 64)))


class Gate:
    """Counts accepted connections and refuses those above a cap (L-01, L-03), or all while memory is short (F-08)."""

    def __init__(self, limits: NetLimits, clock: Clock, room: MemoryRoom | None = None) -> None:
        self._limits = limits
        self._room = room or MemoryRoom(clock)
        self._clock = clock
        self._by_address: Counter[str] = Counter()
        self._accepts: Counter[str] = Counter()
        self._window = 0.0
        self.total = 0
        self.unauthenticated = 0

    def admit(self, host: str) -> str:
        """Take a place for a connection from ``host``: "" if it may come in, else why not."""
        key = address_key(host)
        now = self._clock.now()
        if not self._window <= now < self._window + 1.0:
            self._window = now
            self._accepts.clear()
        self._accepts[key] += 1
        if self._accepts[key] > self._limits.accepts_per_second:
            return "Connection refused: too many a second from one address"
        if self._by_address[key] >= self._limits.per_address:
            return "Connection refused: too many from one address"
        if self.unauthenticated >= self._limits.unauthenticated:
            return "Connection refused: too many unauthenticated"
        if self.total >= self._limits.total:
            return "Connection refused: too many in total"
        if self._room.is_short:
            return "Connection refused: memory is short"
        self._by_address[key] += 1
        self.total += 1
        self.unauthenticated += 1
        return ""

    def authenticated(self) -> None:
        """One admitted peer has proved who it is."""
        self.unauthenticated -= 1

    def release(self, host: str, *, is_authenticated: bool) -> None:
        """Give the place of an admitted connection back."""
        key = address_key(host)
        self._by_address[key] -= 1
        if not self._by_address[key]:
            del self._by_address[key]
        self.total -= 1
        if not is_authenticated:
            self.unauthenticated -= 1

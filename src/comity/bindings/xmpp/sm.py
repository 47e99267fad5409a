"""Stream management: what was received and finished with, what was sent and not confirmed (XEP-0198).

Place on the path: step 3. ``h`` goes out in answer to ``<r/>`` and counts only the unbroken run of stanzas the
binding has finished with: a message counts when it is durable (reliability.md section 5.2), never when it is
merely read. Where the count itself is kept (``counts.py``), no ``h`` is said that the store does not hold. A
``SmState`` outlives its connection and goes on in the stream that resumes it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from comity.bindings.xmpp.jid import Jid
from comity.errors import RemoteProtocolError

#: ``h`` counts modulo this (XEP-0198 section 4).
MODULUS = 1 << 32
#: Stanzas kept until confirmed; Prosody 500, ejabberd 5000, MongooseIM 100.
MAX_QUEUE = 500
#: Octets of them: twice what a device's window of the largest messages takes. A stream that waits for its client must not cost
#: its server ``MAX_QUEUE`` stanzas of the greatest length, which anybody may send.
MAX_OCTETS = 16 * 1024 * 1024


def read_h(text: str) -> int:
    """Read an ``h`` attribute. Raises RemoteProtocolError (X-68)."""
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) >= MODULUS:
        raise RemoteProtocolError("h is not a count", hint="bad-format")
    return int(text)


class IncomingCounter:
    """Stanzas received, and up to where all of them are finished with. Indexes start at 1 and never wrap."""

    def __init__(self) -> None:
        self.received = 0
        self.handled = 0
        self.is_kept_apart = False
        """True: ``keep`` says how far ``h`` may be told; False: as far as stanzas are handled."""
        self._kept = 0
        self._ahead: set[int] = set()
        self._base = 0

    def receive(self) -> int:
        """Count one stanza; returns its index."""
        self.received += 1
        return self.received

    def finish(self, index: int) -> None:
        """The stanza ``index`` needs no more care; may come in any order."""
        if index <= self.handled:
            return
        self._ahead.add(index)
        while self.handled + 1 in self._ahead:
            self.handled += 1
            self._ahead.discard(self.handled)

    def start(self) -> None:
        """Stream management begins: only stanzas from here on count in ``h``."""
        self._base = self._kept = self.received

    def keep(self, index: int) -> None:
        """It is kept that all stanzas up to ``index`` are handled."""
        self._kept = max(self._kept, index)

    def count_of(self, index: int) -> int:
        """How many stanzas ``h`` counts at ``index``, not yet reduced by ``MODULUS``."""
        return max(index - self._base, 0)

    @property
    def sayable(self) -> int:
        """The index up to which the peer may be told."""
        return min(self.handled, self._kept) if self.is_kept_apart else self.handled

    @property
    def h(self) -> int:
        """The value to show to the peer."""
        return self.count_of(self.sayable) % MODULUS


class OutgoingQueue:
    """Stanzas written since stream management began that the peer has not confirmed."""

    def __init__(self, limit: int = MAX_QUEUE) -> None:
        self._limit = limit
        self._waiting: deque[tuple[bytes, object]] = deque()
        self._octets = 0
        self._confirmed = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """True if no further stanza may be written before some are confirmed."""
        return len(self._waiting) >= self._limit or self._octets >= MAX_OCTETS

    @property
    def is_busy(self) -> bool:
        """True if so many wait that what can come later had better."""
        return 4 * len(self._waiting) >= self._limit or 4 * self._octets >= MAX_OCTETS

    @property
    def to_spare(self) -> int:
        """How many stanzas that can wait may wait now beside those written; 0 while there is no need that any does."""
        room = self._limit - len(self._waiting)
        return room // 2 if 2 * room <= self._limit else 0

    def add(self, octets: bytes, key: object) -> None:
        """Keep a stanza just written."""
        self._waiting.append((octets, key))
        self._octets += len(octets)

    def confirm(self, h: int) -> tuple[object, ...]:
        """Take the peer's ``h``; gives the keys now confirmed, in order.

        Raises:
            RemoteProtocolError: the peer counts stanzas that were never sent (XEP-0198 section 4).
        """
        count = (h - self._confirmed) % MODULUS
        if count > len(self._waiting):
            raise RemoteProtocolError(
                f"h is {h}, but only {(self._confirmed + len(self._waiting)) % MODULUS} stanzas were sent",
                hint="undefined-condition",
            )
        self._confirmed = h
        confirmed = [self._waiting.popleft() for _ in range(count)]
        self._octets -= sum(len(octets) for octets, _ in confirmed)
        return tuple(key for _, key in confirmed)

    def unconfirmed(self) -> list[tuple[bytes, object]]:
        """Octets and keys still waiting, in order."""
        return list(self._waiting)


@dataclass(slots=True)
class SmState:
    """All that a stream needs to go on on another connection."""

    id: str
    jid: Jid
    incoming: IncomingCounter = field(default_factory=IncomingCounter)
    outgoing: OutgoingQueue = field(default_factory=OutgoingQueue)

"""How fast one client may send: messages, stanzas and octets a second (reliability.md section 6.2).

Place on the path: beside step 3. Who is over a rate is read from more slowly; nothing is refused for it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Changes of presence that are told at once, and how many a second lasting (L-08).
PRESENCE_BURST = 10.0
PRESENCE_RATE = 1.0
#: Seconds' worth of stanzas and octets that may come at once.
BURST_SECONDS = 10.0


@dataclass(slots=True)
class Bucket:
    """Tokens of one rate; may go below zero, then the wait for the next is ``debt_seconds``."""

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float, amount: float = 1.0) -> None:
        """Use tokens."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - amount
        self.at = now

    @property
    def debt_seconds(self) -> float:
        """Seconds until the bucket is out of debt, 0 if it is."""
        return -self.tokens / self.rate if self.tokens < -1e-6 else 0.0

    def wait(self, now: float) -> float:
        """Seconds until one is there to be taken."""
        self.refill(now)
        return max(0.0, (1.0 - self.tokens) / self.rate)

    def refill(self, now: float) -> None:
        """Add what time has brought. More than one stanza may have come in the read that made the debt, so it can be
        larger than the pause that was asked for first: nothing is forgiven (L-05)."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now


class Rates:
    """The rates of one connection: of messages, stanzas and octets, and of what it tells about itself.

    Args:
        messages: a second, and at once.
        stanzas: a second.
        octets: a second.
        stanza_octets: largest stanza; one of them is never a debt by itself.
        now: monotonic seconds.
    """

    def __init__(
        self, messages: tuple[float, float], stanzas: float, octets: float, *, stanza_octets: int, now: float
    ) -> None:
        self.messages = Bucket(*messages, messages[1], now)
        burst = stanzas * BURST_SECONDS
        self.stanzas = Bucket(stanzas, burst, burst, now)
        burst = max(octets * BURST_SECONDS, float(stanza_octets))
        self.octets = Bucket(octets, burst, burst, now)
        self.presence = Bucket(PRESENCE_RATE, PRESENCE_BURST, PRESENCE_BURST, now)
        """Never in debt: what is over it waits, and the last one is told."""

    @property
    def debt_seconds(self) -> float:
        """How long reading has to pause now."""
        return max(self.messages.debt_seconds, self.stanzas.debt_seconds, self.octets.debt_seconds)

    def refill(self, now: float) -> None:
        """The pause is over."""
        for bucket in (self.messages, self.stanzas, self.octets):
            bucket.refill(now)

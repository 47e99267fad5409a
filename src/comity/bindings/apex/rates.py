"""How fast one connection may send: messages and octets a second (reliability.md section 6.2).

Place on the path: beside step 3. Who is over a rate is read from more slowly; nothing is refused for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Seconds' worth of octets that may come at once.
BURST_SECONDS: Final = 10.0


@dataclass(slots=True)
class Bucket:
    """Tokens of one rate; may go below zero, then nothing is read until it is out of debt."""

    rate: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float, amount: float = 1.0) -> None:
        """Use tokens, after adding what time has brought."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate) - amount
        self.at = now

    @property
    def debt_seconds(self) -> float:
        """Seconds until it is out of debt."""
        return -self.tokens / self.rate if self.tokens < -1e-6 else 0.0


class Rates:
    """The rates of one connection.

    Args:
        messages: a second.
        burst: messages at once.
        octets: a second.
        largest: octets of the largest message; one of them is never a debt by itself.
        now: monotonic seconds.
    """

    def __init__(self, messages: float, burst: int, octets: float, largest: int, now: float) -> None:
        most = max(octets * BURST_SECONDS, float(largest))
        self._messages = Bucket(messages, float(burst), float(burst), now)
        self._octets = Bucket(octets, most, most, now)

    def take(self, messages: int, octets: int, now: float) -> None:
        """Count what came at once: data for n recipients is n messages."""
        self._messages.take(now, messages)
        self._octets.take(now, octets)

    def debt(self, now: float) -> float:
        """Seconds for which reading has to pause."""
        self._messages.take(now, 0.0)
        self._octets.take(now, 0.0)
        return max(self._messages.debt_seconds, self._octets.debt_seconds)

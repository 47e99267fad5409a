"""What one account may cost: octets of documents read and written, over time.

Place on the path: beside it, for ``resources.py`` and for list subscriptions (``services.py``). Reading 256 KiB of lists costs some
50 ms of computing; without a bound one account could keep everybody else waiting by asking for parts of a long document in a row.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from comity.cpim.address import Address
from comity.service.interfaces import Clock
from comity.xcap.errors import Refused

RATE: Final = 512 * 1024.0
"""Octets a second, lasting: a tenth of a processor."""
BURST: Final = 8 * 1024 * 1024.0
"""Octets at once: a phone that brings its whole address book entry by entry."""
PER_REQUEST: Final = 2048
"""What a request costs besides its document."""


class Budgets:
    """Counts by account; one that has all of it is forgotten.

    Args:
        clock: time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Account to (octets spent, as of when); the order is that of the latest."""

    def check(self, account: Address) -> None:
        """Raises Refused 429 for an account that has nothing left."""
        if self._now(account.key) >= BURST:
            raise Refused(429, "too much was asked for in a short time")

    def take(self, account: Address, octets: int) -> None:
        """Count a document read or written."""
        now = self._clock.now()
        self._spent[account.key] = self._now(account.key) + octets + PER_REQUEST, now
        self._spent.move_to_end(account.key)
        while self._spent and next(iter(self._spent.values()))[1] + BURST / RATE < now:
            self._spent.popitem(last=False)

    def _now(self, key: str) -> float:
        spent, when = self._spent.get(key, (0.0, 0.0))
        return max(0.0, spent - (self._clock.now() - when) * RATE)

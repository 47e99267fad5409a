"""How much of our presence service one other domain may have: a domain can make up any number of people (T17, ACL-27).

Place on the path: step 5 of what comes from other servers, before anything is looked up or kept. Counts what stands, and how fast
new things come; nothing here depends on whether somebody exists, so a refusal tells nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, failure
from comity.service.interfaces import Accounts, Clock

MOST_DOMAINS: Final = 4096
"""Domains whose pace is remembered; the one heard of longest ago is forgotten, and then has its whole burst again."""


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """``[limits]`` about one other domain."""

    subscriptions: int = 50_000
    """Of its people to ours."""
    requests: int = 50
    """Of its people that wait for one account's answer."""
    pace: float = 50.0
    """Requests, probes and withdrawals a second."""
    burst: int = 1_000


class PeerQuota:
    """Counts.

    Args:
        accounts: whose people are ours: they have limits of their own.
        clock: time.
        limits: see there.
    """

    def __init__(self, accounts: Accounts, clock: Clock, limits: PeerLimits) -> None:
        self._accounts = accounts
        self._clock = clock
        self.limits = limits
        self._paces: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By domain: what is left of its burst, and when that was so."""
        self.subscriptions_of: Callable[[str], int] = lambda domain: 0
        """How many subscriptions the people of a domain have (``Subscriptions``)."""

    def pace(self, domain: str) -> Response | None:
        """The refusal of one request more of that domain for now; None counts it."""
        if self._accounts.serves(domain):
            return None
        now = self._clock.now()
        left, since = self._paces.pop(domain, (float(self.limits.burst), now))
        left = min(float(self.limits.burst), left + (now - since) * self.limits.pace)
        self._paces[domain] = (left - 1.0 if left >= 1.0 else left, now)
        if len(self._paces) > MOST_DOMAINS:
            self._paces.popitem(last=False)
        if left >= 1.0:
            return None
        return failure("", Reason.OVERLOAD, "Too many requests come from that domain.", retry_after=10)

    def room(self, watcher: Address) -> Response | None:
        """The refusal of one subscription more of ``watcher``; None if there is room, or it is one of ours."""
        if self._accounts.serves(watcher.domain):
            return None
        if self.subscriptions_of(watcher.domain) >= self.limits.subscriptions:
            text = f"At most {self.limits.subscriptions} subscriptions of one other domain."
            return failure("", Reason.QUOTA, text, retry_after=600)
        return None

    def may_wait(self, watcher: Address, waiting: Iterable[Address]) -> bool:
        """False if so many of the watcher's domain are ``waiting`` for the same account's answer that one more is not put to it."""
        if self._accounts.serves(watcher.domain):
            return True
        others = {one.key for one in waiting if one.domain == watcher.domain and one.key != watcher.key}
        return len(others) < self.limits.requests

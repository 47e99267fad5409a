"""The presentities this node knows now, and when something about one changes by itself.

Place on the path: under everything that looks one up. One exists here as long as it says something or somebody watches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.interfaces import Accounts, Clock
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.presentity import Presentity
from comity.service.presence.subscriptions import Live


class Presentities:
    """By address.

    Args:
        accounts: whose names are folded here.
        clock: time.
    """

    def __init__(self, accounts: Accounts, clock: Clock) -> None:
        self._accounts = accounts
        self._clock = clock
        self._known: dict[str, Presentity] = {}
        self._moments: Deadlines[Presentity] = Deadlines(clock, self._fall_due, self._changes_at)
        self.on_moment: Callable[[Presentity], None] = lambda presentity: None
        """Called when a lease, a validity or a rule ended or began."""

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Presentity]:
        return iter(list(self._known.values()))

    def own(self, address: Address) -> Address:
        """The ``im:`` address as a key; our own users are named without regard to case (ADDR-4)."""
        address = address.with_scheme("im")
        if not self._accounts.serves(address.domain):
            return address
        try:
            return address.folded()
        except AddressError:  # no account can have that name: resolution says so
            return address

    def find(self, account: Address) -> Presentity | None:
        """The one with this (own) address, if there is anything to know about it."""
        return self._known.get(account.key)

    def need(self, account: Address) -> Presentity:
        """The one with this (own) address; ``settle`` it afterwards."""
        presentity = self._known.get(account.key)
        if presentity is None:
            presentity = self._known[account.key] = Presentity(account)
        return presentity

    def of(self, live: Live) -> Presentity | None:
        """Whom a subscription is about, if it is registered there."""
        presentity = self._known.get(live.target.key)
        return presentity if presentity is not None and live in presentity.subscriptions else None

    def settle(self, presentity: Presentity) -> None:
        """See to its next moment; forget what nobody needs."""
        if not presentity.subscriptions:
            presentity.unwatched()
            if not presentity.publications:
                self._known.pop(presentity.address.key, None)
                return
        moment = presentity.next_moment()
        if moment is None:
            return
        at = self._clock.now() + max(0.0, (moment - self._clock.when()).total_seconds())
        if not presentity.timer_at or at < presentity.timer_at:
            presentity.timer_at = at
            self._moments.push(at, presentity)

    def stop(self) -> None:
        """Let nothing change by itself any more."""
        self._moments.stop()

    def _changes_at(self, presentity: Presentity, at: float) -> bool:
        return presentity.timer_at == at and self._known.get(presentity.address.key) is presentity

    def _fall_due(self, presentities: list[Presentity]) -> None:
        for presentity in presentities:
            presentity.timer_at = 0.0
            if self._known.get(presentity.address.key) is presentity:
                self.on_moment(presentity)

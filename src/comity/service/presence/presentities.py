"""The presentities this node knows now, and when something about one changes by itself.

Place on the path: under everything that looks one up. One exists here as long as it says something or somebody watches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.interfaces import Accounts, Clock
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.presentity import Presentity, Sight, sight_key
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
        self.on_unseen: Callable[[Sight], None] = lambda sight: None
        """Called when nobody watches somebody of another domain any more."""

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

    def is_ours(self, address: Address) -> bool:
        """True if it is of one of our domains."""
        return self._accounts.serves(address.domain)

    def find(self, account: Address, viewer: Address | None = None) -> Presentity | None:
        """The one with this (own) address, as ``viewer`` sees it if it is of another domain; None if there is nothing to know."""
        found = self._known.get(account.key)
        if found is not None or viewer is None or self.is_ours(account):
            return found
        return self._known.get(sight_key(account, viewer))

    def need(self, account: Address, viewer: Address) -> Presentity:
        """The one with this (own) address, as ``viewer`` sees it; ``settle`` it afterwards."""
        presentity = self.find(account, viewer)
        if presentity is None:
            presentity = Presentity(account) if self.is_ours(account) else Sight(account, viewer=viewer)
            self._known[presentity.key] = presentity
        return presentity

    def of(self, live: Live) -> Presentity | None:
        """Whom a subscription is about, if it is registered there."""
        presentity = self.find(live.target, live.watcher)
        return presentity if presentity is not None and live in presentity.subscriptions else None

    def settle(self, presentity: Presentity) -> None:
        """See to its next moment; forget what nobody needs."""
        if not presentity.subscriptions:
            presentity.unwatched()
            if isinstance(presentity, Sight):
                presentity.publications.clear()
                self.on_unseen(presentity)
            if not presentity.publications:
                self._known.pop(presentity.key, None)
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
        return presentity.timer_at == at and self._known.get(presentity.key) is presentity

    def _fall_due(self, presentities: list[Presentity]) -> None:
        for presentity in presentities:
            presentity.timer_at = 0.0
            if self._known.get(presentity.key) is presentity:
                self.on_moment(presentity)

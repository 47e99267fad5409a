"""Who is to be told what, and how long: the live subscriptions of this node, the durable ones also in the store.

Place on the path: step 7 of a subscribe. Nothing is decided or told here. ``Live`` is what the service knows of a subscription
beyond what edges see of it; what of it is durable is one row (space "subscription"), whose time to live is the duration.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from comity.cpim.address import Address
from comity.cpim.presence_rules import Permissions
from comity.cpim.watchers import SubscriptionEvent, SubscriptionState
from comity.errors import AddressError
from comity.service.interfaces import Clock, Delete, Put, Store
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.interfaces import Package, Subscription

log = logging.getLogger(__name__)

NOTHING = Permissions()
NOBODY = Put("subscription", "nobody", b"", ttl=60.0)
"""Written for who watches somebody that does not exist: nothing is kept, and it takes as long as for others (N-12)."""
_SLACK = 60.0
"""Seconds a row outlives its subscription, so that the end of it is still told after a short stop."""


@dataclass(slots=True, eq=False)
class Live(Subscription):
    """A subscription with what only the service knows."""

    granted: Permissions = NOTHING
    """What its watcher may see; renewed by each decision, so that telling asks nobody."""
    is_begun: bool = False
    """The answer to the watcher was written: it may be notified."""
    is_kept: bool = True
    """False for a fetch: told once, never registered."""
    is_known: bool = True
    """False if there is no such presentity, which nobody may notice."""
    next_at: float = 0.0
    """Monotonic: not before then may it be told again."""
    is_due: bool = False
    """It waits for ``next_at`` with something to be told."""
    expiry_at: float = 0.0
    """Monotonic: its first place among the expiries; 0 for none."""
    is_restored: bool = False
    """It was kept over a restart."""


class _Row(msgspec.Struct, array_like=True):
    id: str
    edge: str
    watcher: str
    target: str
    package: Package
    state: str
    event: str
    created: float
    expires: float | None
    interval: float
    takes_secured: bool
    data: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Row)


class Subscriptions:
    """The live ones by id and by watcher; those of a presentity stand in its ``Presentity``.

    Args:
        expired: called with each one whose duration is over; it is still registered then.
    """

    def __init__(self, store: Store, clock: Clock, expired: Callable[[Live], None]) -> None:
        self._store = store
        self._clock = clock
        self._expired = expired
        self._by_id: dict[tuple[str, str], Live] = {}
        self._by_watcher: dict[str, dict[Live, None]] = {}
        self._by_domain: dict[str, int] = {}
        """How many the watchers of each domain have."""
        self._expiries: Deadlines[Live] = Deadlines(clock, self._fall_due, self._expires_at)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Live]:
        return iter(self._by_id.values())

    def find(self, edge: str, id: str) -> Live | None:
        """The live one with that id."""
        return self._by_id.get((edge, id))

    def of_watcher(self, watcher: Address) -> list[Live]:
        """All that this watcher has, on any edge."""
        return list(self._by_watcher.get(watcher.key, ()))

    def count_of(self, watcher: Address) -> int:
        """How many this watcher has."""
        return len(self._by_watcher.get(watcher.key, ()))

    def count_of_domain(self, domain: str) -> int:
        """How many the watchers of a domain have."""
        return self._by_domain.get(domain, 0)

    def add(self, live: Live) -> None:
        """Register; the caller has looked that the id is free."""
        self._by_id[live.edge, live.id] = live
        self._by_watcher.setdefault(live.watcher.key, {})[live] = None
        self._by_domain[live.watcher.domain] = self._by_domain.get(live.watcher.domain, 0) + 1
        self.schedule(live)

    def remove(self, live: Live) -> bool:
        """Forget; False if it was not registered (any more)."""
        if self._by_id.get((live.edge, live.id)) is not live:
            return False
        del self._by_id[live.edge, live.id]
        of_watcher = self._by_watcher[live.watcher.key]
        del of_watcher[live]
        if not of_watcher:
            del self._by_watcher[live.watcher.key]
        domain = live.watcher.domain
        self._by_domain[domain] -= 1
        if not self._by_domain[domain]:
            del self._by_domain[domain]
        return True

    def schedule(self, live: Live) -> None:
        """See to its expiry, after ``expires`` was set."""
        if live.expires is None:
            return
        at = self._clock.now() + live.expires - self._store.time()
        if not live.expiry_at or at < live.expiry_at:
            live.expiry_at = at
            self._expiries.push(at, live)

    def stop(self) -> None:
        """Let nothing expire any more."""
        self._expiries.stop()

    def _expires_at(self, live: Live, at: float) -> bool:
        return live.expiry_at == at and self._by_id.get((live.edge, live.id)) is live

    def _fall_due(self, lives: list[Live]) -> None:
        now = self._store.time()
        for live in lives:
            if self._by_id.get((live.edge, live.id)) is not live or live.expires is None:
                continue
            live.expiry_at = 0.0
            if live.expires > now + 0.001:
                self.schedule(live)
            else:
                self._expired(live)

    # --- what of it is durable -----------------------------------------------------------------------------------

    def row_of(self, live: Live) -> Put:
        """The operation that makes it durable as it is now."""
        row = _Row(
            live.id,
            live.edge,
            live.watcher.uri,
            live.target.uri,
            live.package,
            live.state.value,
            live.event.value,
            live.created,
            live.expires,
            live.interval,
            live.takes_secured,
            live.data,
        )
        ttl = None if live.expires is None else max(0.0, live.expires - self._store.time()) + _SLACK
        return Put("subscription", _key(live), _encoder.encode(row), ttl=ttl)

    def end_of(self, live: Live) -> Delete:
        """The operation that ends it durably."""
        return Delete("subscription", _key(live))

    async def load(self) -> list[Live]:
        """The durable ones as they were kept, not registered yet."""
        found: list[Live] = []
        for key, entry in await self._store.scan("subscription"):
            if key == NOBODY.key:
                continue
            try:
                found.append(_live(_decoder.decode(entry.value)))
            except (msgspec.MsgspecError, AddressError, ValueError) as error:
                # One bad row must not keep the server down (F-POISON): the watcher subscribes anew in its time.
                log.error("the stored subscription %s cannot be read and is left out: %s", key, error)
        return found


async def forget_stored(store: Store, account: Address) -> None:
    """Remove the durable ones of and about an account that is removed while nothing runs."""
    gone = []
    for key, entry in await store.scan("subscription"):
        try:
            row = _decoder.decode(entry.value)
        except msgspec.MsgspecError:  # nobody's: ``load`` says so
            continue
        if account.uri in (row.watcher, row.target):
            gone.append(Delete("subscription", key))
    if gone:
        await store.commit(gone)


def _key(live: Live) -> str:
    return f"{live.edge}/{live.id}"


def _live(row: _Row) -> Live:
    return Live(
        row.id,
        row.edge,
        Address.parse(row.watcher),
        Address.parse(row.target),
        row.package,
        SubscriptionState(row.state),
        SubscriptionEvent(row.event),
        row.created,
        row.expires,
        True,
        row.interval,
        row.takes_secured,
        row.data,
        is_restored=True,
    )

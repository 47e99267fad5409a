"""The watcher's side: subscribe, refresh, fetch and end (RFC 3859 section 3.4, OPS-17 to OPS-34).

Place on the path: steps 5 to 7 of a subscribe, each check in the order of the RFC: whose it is, the target, access, room. Then the
row, if it is durable, and only then "yes"; the first notification comes with ``begin``, after the binding wrote the answer.
A presentity that does not exist is one that does not answer (N-02).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, Reason, Response, SubscribeOperation, failure
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from comity.cpim.watchers import SubscriptionEvent, SubscriptionState
from comity.errors import StoreError
from comity.failpoints import failpoint
from comity.service import policy
from comity.service.interfaces import Accounts, Op, Origin, Store
from comity.service.presence.access import Access
from comity.service.presence.decisions import Decisions
from comity.service.presence.errands import Errands
from comity.service.presence.informing import Informing
from comity.service.presence.interfaces import Granted, Subscription, Terms
from comity.service.presence.moves import Moves, event_of, state_of
from comity.service.presence.notifier import Notifier
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Presentity, Sight
from comity.service.presence.publications import PublicationLimits
from comity.service.presence.quota import PeerLimits, PeerQuota
from comity.service.presence.subscriptions import NOBODY, Live

log = logging.getLogger(__name__)

Admit = Callable[[SubscribeOperation, Origin], Awaitable[Response | None]]
"""``Service.admit_subscription``."""
_ASKED = Permissions(SubHandling.CONFIRM)
_STATE = SubscriptionState


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """``[limits]`` about presence."""

    publications: PublicationLimits = field(default_factory=PublicationLimits)
    subscriptions: int = 500
    """Of one watcher."""
    watchers: int = 2000
    """Of one presentity."""
    requests: int = 50
    """Subscriptions of one watcher that wait for an answer (ACL-27)."""
    peers: PeerLimits = field(default_factory=PeerLimits)
    """Of one other domain."""


@dataclass(slots=True)
class _Wish:
    """A subscribe on its way through the checks."""

    watcher: Address
    target: Address
    operation: SubscribeOperation
    origin: Origin
    terms: Terms
    granted: Permissions = _ASKED
    is_known: bool = True
    """There is such a presentity."""
    is_asked: bool = False
    """Somebody of another domain was asked just now."""


class Watching:
    """Takes what watchers ask for.

    Args:
        store: keeps the durable ones.
        accounts: who exists.
        access: what watchers may see.
        decisions: asks presentities.
        presentities: whom they watch.
        moves: the live subscriptions.
        notifier: tells them.
        informing: tells those who are watched.
        errands: what leads to other domains.
        quota: how much of all this one other domain may have.
        limits: see there.
    """

    def __init__(
        self,
        *,
        store: Store,
        accounts: Accounts,
        access: Access,
        decisions: Decisions,
        presentities: Presentities,
        moves: Moves,
        notifier: Notifier,
        informing: Informing,
        errands: Errands,
        quota: PeerQuota,
        limits: PresenceLimits,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._access = access
        self._decisions = decisions
        self._presentities = presentities
        self._moves = moves
        self._subscriptions = moves.subscriptions
        self._notifier = notifier
        self._informing = informing
        self._errands = errands
        self._quota = quota
        self._limits = limits

    async def subscribe(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Granted | Response:
        """See ``PresenceService.subscribe``; admitted already."""
        watcher, target = self._presentities.own(operation.watcher), self._presentities.own(operation.target)
        if refusal := self._check_domains(watcher, target):
            return replace(refusal, trans_id=operation.trans_id)
        live = self._subscriptions.find(terms.edge, operation.subscript_id)
        if live is None:
            wish = _Wish(watcher, target, operation, origin, terms)
            try:
                answer = self._check_room(wish) or await self._ask_access(wish) or await self._begin_new(wish)
            except StoreError as error:
                log.error("what a watcher may see cannot be looked up: %s", error)
                answer = _not_now(operation)
            if isinstance(answer, Response) and (presentity := self._presentities.find(target, watcher)):
                presentity.asking.discard(watcher.key)
            return answer
        named = replace(operation, watcher=watcher.with_scheme("pres"))
        if refusal := policy.check_holder(named, live.watcher.with_scheme("pres")):
            return refusal
        if live.target.key != target.key or live.package != terms.package:
            return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
        return await (self._refresh(live, operation, terms) if operation.duration else self._end(live, operation))

    def _check_domains(self, watcher: Address, target: Address) -> Response | None:
        """One of the two is ours, and there is a way to the other: no presence passes through here."""
        if self._accounts.serves(target.domain):
            return None
        if not self._accounts.serves(watcher.domain):
            return failure("", Reason.NO_ROUTE, "That domain is not served here.")
        return self._errands.no_way(target.domain)

    def _check_room(self, wish: _Wish) -> Response | None:
        if wish.operation.duration == 0:
            return None
        # Standing ones are as many as the contact list holds ([limits] contact_list).
        is_full = self._subscriptions.count_of(wish.watcher) >= self._limits.subscriptions
        if is_full and not wish.terms.is_standing:
            return _full(wish, f"At most {self._limits.subscriptions} subscriptions of one user.")
        if refusal := self._quota.room(wish.watcher):
            return replace(refusal, trans_id=wish.operation.trans_id)
        presentity = self._presentities.find(wish.target, wish.watcher)
        if presentity is not None and len(presentity.subscriptions) >= self._limits.watchers:
            return _full(wish, f"At most {self._limits.watchers} watchers of one user.")
        return None

    async def _ask_access(self, wish: _Wish) -> Response | None:
        """What the watcher gets; the refusal if that is nothing."""
        operation, target = wish.operation, wish.target
        if not self._accounts.serves(target.domain):
            return await self._ask_abroad(wish)
        known = self._accounts.known(target)
        wish.is_known = await self._accounts.exists(target) if known is None else known
        await self._access.load(target)
        if wish.terms.package == "presence.winfo":
            wish.granted = EVERYTHING
            return None if self._moves.may_inform(target, wish.watcher) else _denied(operation)
        wish.granted = self._moves.grant(target, wish.watcher, is_new=not wish.terms.is_standing)
        if wish.granted.sub_handling is SubHandling.CONFIRM and operation.duration and not wish.terms.is_standing:
            if self._waiting(wish.watcher) >= self._limits.requests:
                return _full(wish, f"At most {self._limits.requests} requests of one user wait for an answer.")
            presentity = self._presentities.find(target)
            if not self._quota.may_wait(wish.watcher, _waiting_for(presentity)):
                return _full(wish, "Too many people of that domain wait for an answer.")
            if presentity is not None:
                presentity.asking.add(wish.watcher.key)
            await self._decisions.request(target, wish.watcher, wish.terms)
            await self._access.load(target)
            wish.granted = self._moves.grant(target, wish.watcher)
        if wish.granted.sub_handling is SubHandling.BLOCK:
            return _denied(operation)
        return None

    async def _ask_abroad(self, wish: _Wish) -> Response | None:
        """The same of somebody of another domain: what that domain said, which our account keeps; it is asked if it said nothing."""
        operation, target, watcher = wish.operation, wish.target, wish.watcher
        if wish.terms.package == "presence.winfo":
            return _denied(operation)
        await self._access.load(watcher)
        wish.granted = self._moves.grant(target, watcher)
        if wish.granted.sub_handling is SubHandling.BLOCK and operation.duration and not wish.terms.is_standing:
            asked = await self._decisions.ask(operation, wish.origin, wish.terms)
            if asked is not None:
                return asked
            wish.is_asked = True
            await self._access.load(watcher)
            wish.granted = self._moves.grant(target, watcher)
        if wish.granted.sub_handling is SubHandling.BLOCK:
            return _denied(operation)
        return None

    def _waiting(self, watcher: Address) -> int:
        return sum(1 for live in self._subscriptions.of_watcher(watcher) if live.state is _STATE.PENDING)

    async def _begin_new(self, wish: _Wish) -> Granted | Response:
        operation, terms, now = wish.operation, wish.terms, self._store.time()
        duration = min(operation.duration, terms.most)
        state = state_of(wish.granted)
        live = Live(
            operation.subscript_id,
            terms.edge,
            wish.watcher,
            wish.target,
            terms.package,
            state,
            event_of(state),
            now,
            now + duration,
            terms.is_durable and wish.is_known,
            terms.interval,
            terms.takes_secured,
            terms.data,
            granted=wish.granted,
            is_known=wish.is_known,
        )
        if duration == 0:
            live.is_kept = False
            return Granted(live, 0)
        if not terms.is_durable:
            live.expires = None
        if self._subscriptions.find(live.edge, live.id) is not None:
            text = "That subscription is being made."  # the same twice at once
            return failure(operation.trans_id, Reason.SUBSCRIPTION_EXISTS, text)
        self._moves.forget_waiting(wish.target, wish.watcher)
        presentity = self._presentities.need(wish.target, wish.watcher)
        if isinstance(presentity, Sight) and wish.is_asked:
            presentity.is_asked = True
        live.granted = presentity.shared(live.granted)
        presentity.subscriptions[live] = None
        self._subscriptions.add(live)
        self._moves.look_at_rules(presentity)
        self._presentities.settle(presentity)
        if not await self._is_kept(live):
            self._subscriptions.remove(live)
            self._moves.drop(live)
            return _not_now(operation)
        if live.state is _STATE.TERMINATED:  # decided otherwise meanwhile
            return _denied(operation)
        return Granted(live, duration)

    async def _refresh(self, live: Live, operation: SubscribeOperation, terms: Terms) -> Granted | Response:
        duration = min(operation.duration, terms.most)
        before = live.expires, live.data, live.takes_secured
        if live.expires is not None:
            live.expires = self._store.time() + duration
            self._subscriptions.schedule(live)
        live.data = terms.data or live.data
        live.takes_secured = terms.takes_secured
        if not await self._is_kept(live):
            live.expires, live.data, live.takes_secured = before
            self._subscriptions.schedule(live)
            return _not_now(operation)
        if self._subscriptions.find(live.edge, live.id) is not live:  # ended meanwhile
            return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
        return Granted(live, duration, is_refresh=True)

    async def _is_kept(self, live: Live) -> bool:
        """Make it durable, if it is to be; False if that is not possible."""
        if live.is_durable:
            return await self._commit(self._subscriptions.row_of(live))
        return live.is_known or live.expires is None or await self._commit(NOBODY)

    async def _end(self, live: Live, operation: SubscribeOperation) -> Granted | Response:
        """Yes is said when the row is gone; from then on it is told nothing but the last word of ``begin`` (N-09)."""
        if live.is_durable:
            live.is_durable = False  # nothing writes the row again meanwhile
            if not await self._commit(self._subscriptions.end_of(live)):
                live.is_durable = True
                return _not_now(operation)
            if self._subscriptions.find(live.edge, live.id) is not live:  # ended meanwhile, with a last word
                return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
        if live.state is not _STATE.ACTIVE:
            live.granted = _ASKED
        self._moves.end(live, EndReason.TIMEOUT, is_told=False)
        self._moves.forget_waiting(live.target, live.watcher)
        live.state, live.event, live.is_kept = _STATE.TERMINATED, SubscriptionEvent.TIMEOUT, False
        return Granted(live, 0)

    async def _commit(self, op: Op) -> bool:
        failpoint("presence.before-commit")
        try:
            await self._store.commit([op])
        except StoreError as error:
            log.error("a subscription could not be stored: %s", error)
            return False
        failpoint("presence.after-commit")
        return True

    # --- after the answer --------------------------------------------------------------------------------------------

    def begin(self, subscription: Subscription) -> None:
        """See ``PresenceService.begin``."""
        live = own(subscription)
        failpoint("presence.begin")
        presentity = self._presentities.need(live.target, live.watcher)
        if not live.is_kept:
            self._say_last(live)
        elif live.package == "presence.winfo":
            live.is_begun = True
            self._informing.begin(presentity, live)
        elif live.state is _STATE.PENDING:
            live.is_begun = True
            self._notifier.pending(live)
        elif live.state is _STATE.ACTIVE:
            live.is_begun = True
            if presentity.is_held:
                live.told = None  # whatever it knows, this is to be told
                self._moves.hold(presentity)
            else:
                self._notifier.tell_one(presentity, live)
        presentity.asking.discard(live.watcher.key)
        if isinstance(presentity, Sight):
            self._moves.on_seen(presentity)
        if live.package == "presence" and presentity.feeds:
            self._informing.changed(presentity)
        self._presentities.settle(presentity)

    def _say_last(self, live: Live) -> None:
        """The one notification of a fetch or an end (RFC 3859 section 3.4.3)."""
        live.state = _STATE.TERMINATED
        presentity = self._presentities.need(live.target, live.watcher)
        if live.package == "presence.winfo":
            self._informing.begin(presentity, live)
        elif live.granted.sub_handling < SubHandling.POLITE_BLOCK or presentity.is_held:
            self._notifier.ended(live, EndReason.TIMEOUT)
        else:
            self._notifier.tell_one(presentity, live)

    def keep(self, subscription: Subscription, data: bytes) -> None:
        """See ``PresenceService.keep``."""
        live = own(subscription)
        live.data = data
        if live.is_durable and self._subscriptions.find(live.edge, live.id) is live:
            self._moves.commit_later(self._subscriptions.row_of(live))

    async def is_allowed(
        self, target: Address, watcher: Address, least: SubHandling = SubHandling.POLITE_BLOCK
    ) -> bool:
        """See ``PresenceService.is_allowed`` and ``may_see``."""
        if not self._accounts.serves(target.domain) or not await self._accounts.exists(target):
            return False
        await self._access.load(target)
        return self._moves.grant(target, watcher).sub_handling >= least


def own(subscription: Subscription) -> Live:
    """The service's own side of a subscription."""
    assert isinstance(subscription, Live), "subscriptions are made by subscribe"
    return subscription


def _waiting_for(presentity: Presentity | None) -> list[Address]:
    if presentity is None:
        return []
    return [live.watcher for live in presentity.subscriptions if live.state in (_STATE.PENDING, _STATE.WAITING)]


def _full(wish: _Wish, text: str) -> Response:
    return failure(wish.operation.trans_id, Reason.QUOTA, text, retry_after=600)


def _denied(operation: SubscribeOperation) -> Response:
    return failure(operation.trans_id, Reason.DENIED, "This user does not want to be watched by you.")


def _not_now(operation: SubscribeOperation) -> Response:
    return failure(operation.trans_id, Reason.OVERLOAD, "The subscription cannot be kept now.", retry_after=30)

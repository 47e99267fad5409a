"""The presence service on one page: what happens to a publish, a subscribe and a decision. Read this after ``pipeline.py``.

    publish ── publications ── composed, filtered, told (notifier) ── the edges
    subscribe ── admitted ── access: block, confirm, polite-block, allow ── durable ── "yes" ── begin: told
    a decision (decisions, access) ── durable ── reconsider: each live subscription moves, then "yes"

Place on the path: steps 5 to 7 of subscribe and notify (RFC 3859 section 3.4). Every wait is before a decision, none is between
a decision and what follows from it: whatever was acknowledged holds for the very next notification (G9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Reason, Response, SubscribeOperation, failure
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling, current_sphere
from comity.cpim.watchers import TRANSITIONS, SubscriptionEvent, SubscriptionState
from comity.errors import AddressError, StoreError
from comity.service import policy
from comity.service.interfaces import Accounts, Clock, Op, Origin, Result, Store
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.interfaces import (
    ContactItem,
    Contacts,
    Decision,
    Default,
    Documents,
    Edge,
    Granted,
    Published,
    Statement,
    Subscription,
    Terms,
)
from comity.service.presence.notifier import Notifier, next_moment
from comity.service.presence.parts import Access, Decisions, Edges
from comity.service.presence.presentity import Presentity
from comity.service.presence.publications import PublicationLimits, Publications
from comity.service.presence.publications import find as find_publication
from comity.service.presence.subscriptions import Live, Subscriptions

log = logging.getLogger(__name__)

Admit = Callable[[SubscribeOperation, Origin], Awaitable[Response | None]]
"""``Service.admit_subscription``."""
_ASKED = Permissions(SubHandling.CONFIRM)
_STATE, _EVENT = SubscriptionState, SubscriptionEvent
_TO_EVENT = {
    EndReason.REJECTED: _EVENT.REJECTED,
    EndReason.TIMEOUT: _EVENT.TIMEOUT,
    EndReason.NORESOURCE: _EVENT.NORESOURCE,
    EndReason.DEACTIVATED: _EVENT.DEACTIVATED,
    EndReason.PROBATION: _EVENT.PROBATION,
    EndReason.GIVEUP: _EVENT.GIVEUP,
}


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


@dataclass(frozen=True, slots=True)
class Parts:
    """What keeps the accounts' own words."""

    access: Access
    decisions: Decisions
    contacts: Contacts
    documents: Documents
    edges: Edges


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


class AccountPresence:
    """Presence of our own accounts: see ``PresenceService`` for what bindings may ask of it.

    Args:
        store: keeps durable subscriptions.
        accounts: who exists.
        clock: time.
        admit: says whose a subscribe is.
        parts: see there.
        limits: see there.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        clock: Clock,
        admit: Admit,
        parts: Parts,
        *,
        limits: PresenceLimits | None = None,
    ) -> None:
        self.limits = limits or PresenceLimits()
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._admit = admit
        self._parts = parts
        self._presentities: dict[str, Presentity] = {}
        self._subscriptions = Subscriptions(store, clock, self._expired)
        self._publications = Publications(clock, self.limits.publications)
        self._notifier = Notifier(clock, parts.edges, self._of)
        self._moments: Deadlines[Presentity] = Deadlines(clock, self._moment)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def contacts(self) -> Contacts:
        return self._parts.contacts

    @property
    def documents(self) -> Documents:
        return self._parts.documents

    def attach(self, name: str, edge: Edge) -> None:
        """See ``PresenceService.attach``."""
        self._parts.edges.attach(name, edge)

    async def start(self) -> None:
        """Bring the durable subscriptions back; call before any listener opens."""

    def stop(self) -> None:
        """Tell nobody any more; what is durable is in the store."""
        self._notifier.stop()
        self._subscriptions.stop()
        self._moments.stop()
        for task in self._tasks:
            task.cancel()

    # --- the presentity's side -------------------------------------------------------------------------------------

    def publish(
        self,
        entity: Address,
        statement: Statement | None,
        origin: Origin,
        *,
        key: str = "",
        etag: str = "",
        lease: int | None = None,
    ) -> Published | Response:
        """See ``PresenceService.publish``."""
        account = self._own(entity)
        if refusal := self._check_presentity(account, origin):
            return refusal
        presentity = self._presentity(account)
        answer = self._publications.publish(presentity, statement, _scoped(origin, key), etag, lease)
        self._changed(presentity)
        return answer

    def unpublish(
        self,
        entity: Address,
        origin: Origin,
        *,
        key: str = "",
        etag: str = "",
        natives: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Response | None:
        """See ``PresenceService.unpublish``."""
        account = self._own(entity)
        if refusal := self._check_presentity(account, origin):
            return refusal
        presentity = self._presentity(account)
        refusal = self._publications.unpublish(presentity, _scoped(origin, key), etag, natives)
        self._changed(presentity)
        return refusal

    def has_publication(self, entity: Address, etag: str) -> bool:
        """See ``PresenceService.has_publication``."""
        presentity = self._presentities.get(self._own(entity).key)
        if presentity is None:
            return False
        self._publications.expire(presentity, self._clock.when())
        return find_publication(presentity, "", etag) is not None

    async def direct(self, operation: NotifyOperation, origin: Origin) -> Response | None:
        """See ``PresenceService.direct``."""
        sender, recipient = self._own(operation.target), self._own(operation.watcher)
        if sender.key != self._own(origin.principal).key:
            text = "Presence is told by the one it is about."
            return failure(operation.trans_id, Reason.DENIED, text)
        if not self._accounts.serves(recipient.domain):
            return failure(operation.trans_id, Reason.NO_ROUTE, "That domain is not served here.")
        await self._parts.access.load(recipient)
        if not self._parts.contacts.is_blocked(recipient, sender):
            self._parts.edges.directed(operation)
        return None

    def _check_presentity(self, account: Address, origin: Origin) -> Response | None:
        if account.key != self._own(origin.principal).key:
            return failure("", Reason.DENIED, "Only the account itself publishes for it.")
        if not self._accounts.serves(account.domain) or self._accounts.known(account) is False:
            return failure("", Reason.NO_SUCH_USER, "There is no such user here.")
        return None

    def _changed(self, presentity: Presentity) -> None:
        """Something about it may be new: tell who would see that."""
        if presentity.composed is None and presentity.subscriptions:
            self._look_at_sphere(presentity)
            self._notifier.tell(presentity)
        self._settle(presentity)

    def _look_at_sphere(self, presentity: Presentity) -> None:
        """Rules may depend on the sphere: if that changed, nobody is told before they were asked."""
        now = self._clock.when()
        documents = [one.document for one in presentity.live(now) if one.document is not None]
        sphere = current_sphere(documents, now)
        if sphere != presentity.sphere:
            presentity.sphere = sphere
            presentity.is_held = True
            self._run(self._reload(presentity))

    # --- the watcher's side ----------------------------------------------------------------------------------------

    async def subscribe(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Granted | Response:
        """See ``PresenceService.subscribe``."""
        if refusal := await self._admit(operation, origin):
            return refusal
        watcher, target = self._own(operation.watcher), self._own(operation.target)
        if not self._accounts.serves(target.domain):
            return failure(operation.trans_id, Reason.NO_ROUTE, "That domain is not served here.")
        live = self._subscriptions.find(terms.edge, operation.subscript_id)
        if live is not None:
            holder = live.watcher.with_scheme("pres")
            if refusal := policy.check_holder(replace(operation, watcher=watcher.with_scheme("pres")), holder):
                return refusal
            if live.target.key != target.key or live.package != terms.package:
                return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
            if operation.duration == 0:
                return await self._unsubscribe(live)
            return await self._refresh(live, operation, terms)
        wish = _Wish(watcher, target, operation, origin, terms)
        refusal = self._check_room(wish) or await self._ask_access(wish)
        return refusal or await self._begin_new(wish)

    def _check_room(self, wish: _Wish) -> Response | None:
        watcher, target, operation = wish.watcher, wish.target, wish.operation
        if operation.duration == 0:
            return None
        if self._subscriptions.count_of(watcher) >= self.limits.subscriptions:
            text = f"At most {self.limits.subscriptions} subscriptions of one user."
            return failure(operation.trans_id, Reason.QUOTA, text, retry_after=600)
        presentity = self._presentities.get(target.key)
        if presentity is not None and len(presentity.subscriptions) >= self.limits.watchers:
            text = f"At most {self.limits.watchers} watchers of one user."
            return failure(operation.trans_id, Reason.QUOTA, text, retry_after=600)
        return None

    async def _ask_access(self, wish: _Wish) -> Response | None:
        """What the watcher gets; the refusal if that is nothing."""
        watcher, target, operation = wish.watcher, wish.target, wish.operation
        if wish.terms.package == "presence.winfo":
            if watcher.key != target.key:
                return failure(operation.trans_id, Reason.DENIED, "Who watches an account is told to that account.")
            wish.granted = EVERYTHING
            return None
        known = self._accounts.known(target)
        wish.is_known = await self._accounts.exists(target) if known is None else known
        if not wish.is_known:
            return self._check_requests(watcher, operation)
        wish.granted = await self._look_up(watcher, target)
        if wish.granted.sub_handling is SubHandling.CONFIRM and operation.duration:
            if refusal := self._check_requests(watcher, operation):
                return refusal
            if refusal := await self._parts.decisions.ask(operation, wish.origin, wish.terms):
                return refusal
            wish.granted = await self._look_up(watcher, target)
        if wish.granted.sub_handling is SubHandling.BLOCK:
            return failure(operation.trans_id, Reason.DENIED, "This user does not want to be watched by you.")
        return None

    async def _look_up(self, watcher: Address, target: Address) -> Permissions:
        await self._parts.access.load(target)
        return self._grant(target, watcher)

    def _grant(self, target: Address, watcher: Address) -> Permissions:
        presentity = self._presentities.get(target.key)
        sphere = presentity.sphere if presentity else ""
        return self._parts.access.grant(target, watcher, self._clock.when(), sphere)

    def _check_requests(self, watcher: Address, operation: SubscribeOperation) -> Response | None:
        waiting = sum(1 for live in self._subscriptions.of_watcher(watcher) if live.state is _STATE.PENDING)
        if waiting < self.limits.requests or not operation.duration:
            return None
        text = f"At most {self.limits.requests} requests of one user wait for an answer."
        return failure(operation.trans_id, Reason.QUOTA, text, retry_after=600)

    async def _begin_new(self, wish: _Wish) -> Granted | Response:
        watcher, target, operation, terms = wish.watcher, wish.target, wish.operation, wish.terms
        granted, is_known = wish.granted, wish.is_known
        now = self._store.time()
        duration = min(operation.duration, terms.most)
        live = Live(
            operation.subscript_id,
            terms.edge,
            watcher,
            target,
            terms.package,
            _state_of(granted),
            _EVENT.SUBSCRIBE if _state_of(granted) is _STATE.PENDING else _EVENT.APPROVED,
            now,
            now + duration,
            terms.is_durable and is_known,
            terms.interval,
            terms.takes_secured,
            terms.data,
            granted=granted,
            is_known=is_known,
        )
        if operation.duration == 0:
            live.is_kept = False
            live.expires = now
            return Granted(live, 0)
        if not terms.is_durable:
            live.expires = None
        if self._subscriptions.find(live.edge, live.id) is not None:  # the same twice at once
            return failure(operation.trans_id, Reason.SUBSCRIPTION_EXISTS, "That subscription is being made.")
        presentity = self._presentity(target)
        presentity.subscriptions[live] = None
        self._subscriptions.add(live)
        self._look_at_rules(presentity)
        self._settle(presentity)
        if live.is_durable and not await self._commit(self._subscriptions.row_of(live)):
            self._forget(live)
            text = "The subscription cannot be kept now."
            return failure(operation.trans_id, Reason.OVERLOAD, text, retry_after=30)
        if live.state is _STATE.TERMINATED:  # decided otherwise meanwhile
            return failure(operation.trans_id, Reason.DENIED, "This user does not want to be watched by you.")
        return Granted(live, duration)

    async def _refresh(self, live: Live, operation: SubscribeOperation, terms: Terms) -> Granted | Response:
        duration = min(operation.duration, terms.most)
        if live.expires is not None:
            live.expires = self._store.time() + duration
            self._subscriptions.schedule(live)
        live.data = terms.data or live.data
        live.takes_secured = terms.takes_secured
        if live.is_durable and not await self._commit(self._subscriptions.row_of(live)):
            text = "The subscription cannot be kept now."
            return failure(operation.trans_id, Reason.OVERLOAD, text, retry_after=30)
        if live.state is _STATE.TERMINATED:
            return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
        return Granted(live, duration, is_refresh=True)

    async def _unsubscribe(self, live: Live) -> Granted | Response:
        self._forget(live)
        was, live.state, live.event = live.state, _STATE.TERMINATED, _EVENT.TIMEOUT
        live.is_kept = False
        if live.is_durable and not await self._commit(self._subscriptions.end_of(live)):
            log.error("the end of a subscription could not be kept")
        live.granted = live.granted if was is _STATE.ACTIVE else _ASKED
        return Granted(live, 0)

    def begin(self, subscription: Subscription) -> None:
        """See ``PresenceService.begin``."""
        live = _live(subscription)
        if not live.is_kept:
            self._say_last(live)
            return
        if live.state is _STATE.TERMINATED:
            return
        live.is_begun = True
        presentity = self._presentity(live.target)
        if live.state is _STATE.ACTIVE:
            if not presentity.is_held:
                self._notifier.tell_one(presentity, live)
        elif live.state is _STATE.PENDING:
            self._notifier.pending(live)
        self._settle(presentity)

    def _say_last(self, live: Live) -> None:
        """The one notification of a fetch or an unsubscribe (RFC 3859 section 3.4.3)."""
        live.state = _STATE.TERMINATED
        if live.granted.sub_handling < SubHandling.POLITE_BLOCK:
            self._notifier.ended(live, EndReason.TIMEOUT)
            return
        presentity = self._presentity(live.target)
        self._notifier.tell_one(presentity, live)
        self._settle(presentity)

    def keep(self, subscription: Subscription, data: bytes) -> None:
        """See ``PresenceService.keep``."""
        live = _live(subscription)
        live.data = data
        if live.is_durable and self._subscriptions.find(live.edge, live.id) is live:
            self._commit_later(self._subscriptions.row_of(live))

    def lost(self, subscription: Subscription) -> None:
        """See ``PresenceService.lost``."""
        self._end(_live(subscription), EndReason.TIMEOUT, is_told=False)

    def find(self, edge: str, id: str) -> Subscription | None:
        """See ``PresenceService.find``."""
        return self._subscriptions.find(edge, id)

    def is_allowed(self, presentity: Address, watcher: Address) -> asyncio.Future[bool]:
        """See ``PresenceService.is_allowed``."""
        return asyncio.ensure_future(self._is_allowed(self._own(presentity), self._own(watcher)))

    async def _is_allowed(self, target: Address, watcher: Address) -> bool:
        if not self._accounts.serves(target.domain) or not await self._accounts.exists(target):
            return False
        granted = await self._look_up(watcher, target)
        return granted.sub_handling >= SubHandling.POLITE_BLOCK

    def watchers(self, account: Address) -> Sequence[Subscription]:
        """See ``PresenceService.watchers``."""
        presentity = self._presentities.get(self._own(account).key)
        return tuple(presentity.subscriptions) if presentity else ()

    # --- decisions --------------------------------------------------------------------------------------------------

    async def ask(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Response | None:
        """See ``PresenceService.ask``."""
        return await self._admit(operation, origin) or await self._parts.decisions.ask(operation, origin, terms)

    async def withdraw(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """See ``PresenceService.withdraw``."""
        return await self._admit(operation, origin) or await self._parts.decisions.withdraw(operation, origin)

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response:
        """See ``PresenceService.answer``."""
        return await self._parts.decisions.answer(account, watcher, decision, origin)

    async def decisions(self, account: Address) -> Sequence[ContactItem]:
        """See ``PresenceService.decisions``."""
        return await self._parts.decisions.decisions(account)

    async def default(self, account: Address) -> Default:
        """See ``PresenceService.default``."""
        return await self._parts.decisions.default(account)

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None:
        """See ``PresenceService.set_default``."""
        return await self._parts.decisions.set_default(account, default, origin)

    def reconsider(self, account: Address, watcher: Address | None = None) -> None:
        """What ``watcher`` (None: anybody) may see of the account was changed durably: act on it (ACL-10).

        Called after the commit and before the answer, with the account loaded.
        """
        presentity = self._presentities.get(self._own(account).key)
        if presentity is None:
            return
        lives = [
            live
            for live in presentity.subscriptions
            if live.package == "presence" and (watcher is None or live.watcher.key == watcher.key)
        ]
        told = [live for live in lives if self._decide(presentity, live)]
        self._look_at_rules(presentity)
        self._notifier.tell(presentity, told, is_urgent=True)
        self._settle(presentity)

    def _decide(self, presentity: Presentity, live: Live) -> bool:
        """Move one subscription to what is decided now; True if it may see something new."""
        if not live.is_known:
            return False
        granted = self._grant(live.target, live.watcher)
        if live.state is _STATE.WAITING:
            if granted.sub_handling is not SubHandling.CONFIRM:
                self._end(live, EndReason.REJECTED, is_told=False)
            return False
        if granted.sub_handling is SubHandling.BLOCK:
            self._end(live, EndReason.REJECTED)
            return False
        live.granted = granted
        state = _state_of(granted)
        if state is live.state:
            return state is _STATE.ACTIVE
        live.state = state
        live.event = _EVENT.APPROVED if state is _STATE.ACTIVE else _EVENT.SUBSCRIBE
        if live.is_durable:
            self._commit_later(self._subscriptions.row_of(live))
        if state is _STATE.PENDING:
            live.told = None
            if live.is_begun:
                self._notifier.pending(live)
            return False
        return True

    # --- ends -------------------------------------------------------------------------------------------------------

    def forget(self, account: Address) -> None:
        """The account was removed: nobody watches it any more, and it watches nobody (OPS-34)."""
        account = self._own(account)
        presentity = self._presentities.get(account.key)
        for live in [*(presentity.subscriptions if presentity else ()), *self._subscriptions.of_watcher(account)]:
            self._end(live, EndReason.NORESOURCE)
        if presentity is not None:
            presentity.publications.clear()
            presentity.composed = None
            self._settle(presentity)

    def _expired(self, live: Live) -> None:
        self._end(live, EndReason.TIMEOUT)

    def _end(self, live: Live, reason: EndReason, *, is_told: bool = True) -> None:
        """End it now; what is durable of it ends in the store without being waited for.

        If that is lost with the process, the row ends by its time or, where a decision ended it, by that decision.
        """
        was_waiting = live.state is _STATE.WAITING
        if not self._forget(live) and not was_waiting:
            return
        event = _TO_EVENT[reason]
        live.state = TRANSITIONS.get((live.state, event), _STATE.TERMINATED)
        live.event = event
        if live.is_durable and not was_waiting:
            self._commit_later(self._subscriptions.end_of(live))
        if is_told and live.is_begun:
            self._notifier.ended(live, reason)

    def _forget(self, live: Live) -> bool:
        presentity = self._presentities.get(live.target.key)
        if presentity is not None:
            presentity.subscriptions.pop(live, None)
            self._settle(presentity)
        return self._subscriptions.remove(live)

    # --- what is underneath ---------------------------------------------------------------------------------------

    def _own(self, address: Address) -> Address:
        """The ``im:`` address as a key; our own users are named without regard to case (ADDR-4)."""
        address = address.with_scheme("im")
        if not self._accounts.serves(address.domain):
            return address
        try:
            return address.folded()
        except AddressError:  # no account can have that name: resolution says so
            return address

    def _presentity(self, account: Address) -> Presentity:
        presentity = self._presentities.get(account.key)
        if presentity is None:
            presentity = self._presentities[account.key] = Presentity(account)
        return presentity

    def _of(self, live: Live) -> Presentity | None:
        return self._presentities.get(live.target.key)

    def _settle(self, presentity: Presentity) -> None:
        """See to its next moment; forget what nobody needs."""
        if not presentity.subscriptions:
            presentity.contents.clear()
            presentity.offline = None
            presentity.parting = {}
            if not presentity.publications:
                self._presentities.pop(presentity.address.key, None)
                return
        moment = next_moment(presentity)
        if moment is None:
            return
        at = self._clock.now() + max(0.0, (moment - self._clock.when()).total_seconds())
        if not presentity.timer_at or at < presentity.timer_at:
            presentity.timer_at = at
            self._moments.push(at, presentity)

    def _moment(self, presentities: list[Presentity]) -> None:
        """A lease, a validity or a rule ended or began."""
        now = self._clock.when()
        for presentity in presentities:
            presentity.timer_at = 0.0
            if self._presentities.get(presentity.address.key) is not presentity:
                continue
            if presentity.rules_change is not None and presentity.rules_change <= now:
                presentity.rules_change = None
                self._run(self._reload(presentity))
            self._publications.expire(presentity, now)
            composed = presentity.composed
            if composed is not None and composed.next_change is not None and composed.next_change <= now:
                presentity.composed = None
            self._changed(presentity)

    def _look_at_rules(self, presentity: Presentity) -> None:
        presentity.rules_change = self._parts.access.next_change(presentity.address, self._clock.when())

    async def _reload(self, presentity: Presentity) -> None:
        """Ask the rules anew about everybody, then tell."""
        try:
            await self._parts.access.load(presentity.address)
        except StoreError as error:
            log.error("what watchers of an account may see cannot be looked up: %s", error)
            return  # held: nobody is told what nobody looked up; the next change tries again
        presentity.is_held = False
        self.reconsider(presentity.address)

    async def _commit(self, op: Op) -> bool:
        try:
            await self._store.commit([op])
        except StoreError as error:
            log.error("a subscription could not be stored: %s", error)
            return False
        return True

    def _commit_later(self, op: Op) -> None:
        self._store.commit([op]).add_done_callback(_committed)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the presence service failed", exc_info=error)


def _committed(done: asyncio.Future[list[Result]]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("a subscription could not be stored: %s", error)


def _state_of(granted: Permissions) -> SubscriptionState:
    return _STATE.ACTIVE if granted.sub_handling >= SubHandling.POLITE_BLOCK else _STATE.PENDING


def _scoped(origin: Origin, key: str) -> str:
    """Keys are an edge's own: a resource called like another edge's key is another publication."""
    return f"{origin.binding}:{key}" if key else ""


def _live(subscription: Subscription) -> Live:
    assert isinstance(subscription, Live), "subscriptions are made by subscribe"
    return subscription

"""The presence service on one page: what happens to a publish, a subscribe and a decision. Read this after ``pipeline.py``.

    publish ── publications ── composed, filtered, told (notifier) ── the edges
    subscribe ── admitted ── access: block, confirm, polite-block, allow ── durable ── "yes" ── begin: told (watching)
    a decision (decisions, access) ── durable ── reconsider: each live subscription moves (moves), then "yes"

Place on the path: steps 5 to 7 of subscribe and notify (RFC 3859 section 3.4). Every wait is before a decision, none is between
a decision and what follows from it: whatever was acknowledged holds for the very next notification (G9).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Reason, Response, Status, SubscribeOperation, failure
from comity.cpim.presence_rules import SubHandling
from comity.cpim.watchers import SubscriptionState
from comity.service import policy
from comity.service.interfaces import Accounts, Clock, Contact, Delete, Origin, Store
from comity.service.presence.errands import Errand, Errands, FindHops, Look
from comity.service.presence.informing import Informing
from comity.service.presence.interfaces import (
    Abroad,
    ContactItem,
    Contacts,
    Decision,
    Default,
    Documents,
    Edge,
    Granted,
    Published,
    Rights,
    Statement,
    Subscription,
    Terms,
)
from comity.service.presence.keeping import Keeping, KeepingLimits
from comity.service.presence.moves import Moves
from comity.service.presence.notifier import Notifier
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Presentity, Sight
from comity.service.presence.publications import Publications
from comity.service.presence.publications import find as find_publication
from comity.service.presence.quota import PeerQuota
from comity.service.presence.recovery import Recovery
from comity.service.presence.sights import Sights
from comity.service.presence.subscriptions import NOBODY
from comity.service.presence.watching import Admit, PresenceLimits, Watching, own

log = logging.getLogger(__name__)


class AccountPresence:
    """Presence of our own accounts: see ``PresenceService`` for what bindings may ask of it.

    Args:
        store: keeps durable subscriptions.
        accounts: who exists.
        clock: time.
        admit: says whose a subscribe is (``Service.admit_subscription``).
        hop: leads to other domains (``Routes.hop``).
        find: finds the ways where DNS knows them (``Service.find_hops``, of presence).
        limits: about live state.
        keeping: about what accounts keep.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        clock: Clock,
        admit: Admit,
        *,
        hop: Callable[[str], Contact | None] = lambda domain: None,
        find: FindHops | None = None,
        limits: PresenceLimits | None = None,
        keeping: KeepingLimits | None = None,
    ) -> None:
        self.limits = limits or PresenceLimits()
        self._store = store
        self._accounts = accounts
        self._clock = clock
        self._admit = admit
        self.keeping = kept = Keeping(store, accounts, clock.when, self.reconsider, limits=keeping)
        self._presentities = Presentities(accounts, clock)
        self._presentities.on_moment = self._moment
        self._publications = Publications(clock, self.limits.publications)
        self._notifier = Notifier(clock, kept.edges, self._presentities.of)
        self._informing = Informing(
            store,
            clock,
            kept.relations,
            presentities=self._presentities,
            notifier=self._notifier,
            access=kept.access,
        )
        self._moves = Moves(
            store=store,
            clock=clock,
            access=kept.access,
            presentities=self._presentities,
            notifier=self._notifier,
            informing=self._informing,
        )
        kept.rights.grant = self._moves.grant
        self.errands = Errands(store, clock, hop, find)
        self._quota = PeerQuota(accounts, clock, self.limits.peers)
        self._quota.subscriptions_of = self._moves.subscriptions.count_of_domain
        self._sights = Sights(clock, self._presentities, self.errands, self._changed, self.limits.publications)
        self._moves.on_seen = self._sights.look
        self.errands.is_wanted, self.errands.refused = self._is_wanted, self._errand_refused
        kept.pairs.push, kept.decisions.may_wait = self.errands.push, self._quota.may_wait
        kept.decisions.no_way = self.errands.no_way
        self._watching = Watching(
            store=store,
            accounts=accounts,
            access=kept.access,
            decisions=kept.decisions,
            presentities=self._presentities,
            moves=self._moves,
            notifier=self._notifier,
            informing=self._informing,
            errands=self.errands,
            quota=self._quota,
            limits=self.limits,
        )
        self._recovery = Recovery(store, accounts, clock, self._presentities, self._moves)

    @property
    def contacts(self) -> Contacts:
        """See ``PresenceService.contacts``."""
        return self.keeping.contacts

    @property
    def documents(self) -> Documents:
        """See ``PresenceService.documents``."""
        return self.keeping.documents

    @property
    def rights(self) -> Rights:
        """See ``PresenceService.rights``."""
        return self.keeping.rights

    def attach(self, name: str, edge: Edge) -> None:
        """See ``PresenceService.attach``."""
        self.keeping.edges.attach(name, edge)

    def attach_abroad(self, name: str, abroad: Abroad) -> None:
        """See ``PresenceService.attach_abroad``."""
        self.errands.attach(name, abroad)

    async def start(self) -> None:
        """Bring the durable subscriptions back; call before any listener opens."""
        await self.keeping.start()
        await self._recovery.load()

    def stop(self) -> None:
        """Tell nobody any more; what is durable is in the store."""
        self.errands.stop()
        self._sights.stop()
        self._recovery.stop()
        self._notifier.stop()
        self._informing.stop()
        self._moves.stop()
        self._presentities.stop()

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
        account = self._presentities.own(entity)
        if refusal := self._check_presentity(account, origin):
            return refusal
        presentity = self._presentities.need(account, account)
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
        account = self._presentities.own(entity)
        if refusal := self._check_presentity(account, origin):
            return refusal
        presentity = self._presentities.need(account, account)
        refusal = self._publications.unpublish(presentity, _scoped(origin, key), etag, natives)
        self._changed(presentity)
        return refusal

    def has_publication(self, entity: Address, etag: str) -> bool:
        """See ``PresenceService.has_publication``."""
        presentity = self._presentities.find(self._presentities.own(entity))
        if presentity is None:
            return False
        self._publications.expire(presentity, self._clock.when())
        return find_publication(presentity, "", etag) is not None

    async def direct(self, operation: NotifyOperation, origin: Origin) -> Response | None:
        """See ``PresenceService.direct``."""
        sender, recipient = self._presentities.own(operation.target), self._presentities.own(operation.watcher)
        if origin.domains:
            is_senders = not self._accounts.serves(sender.domain) and origin.speaks_for(sender.domain)
        else:
            is_senders = sender.key == self._presentities.own(origin.principal).key
        if not is_senders:
            return failure(operation.trans_id, Reason.DENIED, "Presence is told by the one it is about.")
        if not self._accounts.serves(recipient.domain):
            return await self._direct_abroad(operation)
        if not self.contacts.is_blocked(recipient, sender):
            self.keeping.edges.directed(operation)
        return None

    async def _direct_abroad(self, operation: NotifyOperation) -> Response | None:
        """To one person of another domain, now or not at all: it is nothing that waits."""
        domain = operation.watcher.domain
        if not self._presentities.is_ours(operation.target) or self.errands.no_way(domain) is not None:
            return failure(operation.trans_id, Reason.NO_ROUTE, "That domain is not served here.")
        given = await self.errands.carry(domain, lambda abroad, hop: abroad.direct(operation, hop))
        return replace(given, trans_id=operation.trans_id) if given.status is Status.FAILURE else None

    # --- people of other domains -------------------------------------------------------------------------------------

    async def answered(
        self, account: Address, presentity: Address, is_granted: bool, origin: Origin
    ) -> Response | None:
        """See ``PresenceService.answered``."""
        account, presentity = self._presentities.own(account), self._presentities.own(presentity)
        return self._quota.pace(presentity.domain) or await self.keeping.decisions.answered(
            account, presentity, is_granted, origin
        )

    def heard(
        self,
        account: Address,
        presentity: Address,
        statement: Statement | None,
        origin: Origin,
        *,
        key: str = "",
        lease: int | None = None,
        natives: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Response | None:
        """See ``PresenceService.heard``."""
        account, presentity = self._presentities.own(account), self._presentities.own(presentity)
        if self._presentities.is_ours(presentity) or not origin.speaks_for(presentity.domain):
            return failure("", Reason.DENIED, "That server does not speak for the domain of whom it tells.")
        return self._sights.heard(account, presentity, statement, key=key, lease=lease, natives=natives)

    def doubted(self, domain: str) -> None:
        """See ``PresenceService.doubted``."""
        self._sights.doubted(domain)

    def returned(self, domain: str) -> None:
        """See ``PresenceService.returned``."""
        self.errands.knock(domain)

    async def _is_wanted(self, errand: Errand) -> bool:
        if errand.what is Look.WATCH:
            return self._sights.is_wanted(errand)
        return await self.keeping.pairs.is_wanted(errand)

    async def _errand_refused(self, errand: Errand, response: Response) -> None:
        log.info("%s takes no %s: %s", errand.other, errand.what.value, response.text, extra={"is_peers": True})
        if errand.what is Look.WATCH:
            self._sights.refused(errand)
        else:
            await self.keeping.pairs.refused(errand)

    def _check_presentity(self, account: Address, origin: Origin) -> Response | None:
        if not self.rights.may_publish(account, origin.principal):
            return failure("", Reason.DENIED, "Only the account itself, and whom it permits to, publishes for it.")
        if not self._accounts.serves(account.domain) or self._accounts.known(account) is False:
            return failure("", Reason.NO_SUCH_USER, "There is no such user here.")
        return None

    def _changed(self, presentity: Presentity) -> None:
        """Something about it may be new: tell who would see that."""
        if isinstance(presentity, Sight):
            self._notifier.tell(presentity)
        elif presentity.composed is None and presentity.subscriptions:
            if presentity.look_at_sphere(self._clock.when()):
                presentity.is_held = True  # rules may depend on it: nobody is told before they were asked (ACL-6)
            if presentity.is_held:
                self._moves.hold(presentity)
            else:
                self._notifier.tell(presentity)
        self._presentities.settle(presentity)

    def _moment(self, presentity: Presentity) -> None:
        """A lease, a validity or a rule ended or began."""
        if isinstance(presentity, Sight):
            self._sights.moment(presentity)
            return
        now = self._clock.when()
        self._publications.expire(presentity, now)
        composed = presentity.composed
        if composed is not None and composed.next_change is not None and composed.next_change <= now:
            presentity.changed()
        if presentity.rules_change is not None and presentity.rules_change <= now:
            presentity.rules_change = None
            self._moves.hold(presentity)
        self._changed(presentity)

    # --- the watcher's side ----------------------------------------------------------------------------------------

    async def subscribe(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Granted | Response:
        """See ``PresenceService.subscribe``."""
        operation, origin = self._folded(operation, origin)
        if terms.is_standing:
            is_ours = self._presentities.is_ours(operation.watcher)
            refusal = policy.check_watcher(operation, origin, is_ours=is_ours)
        else:
            refusal = self._quota.pace(operation.watcher.domain) or await self._admit(operation, origin)
        return refusal or await self._watching.subscribe(operation, origin, terms)

    def begin(self, subscription: Subscription) -> None:
        """See ``PresenceService.begin``."""
        self._watching.begin(subscription)

    def keep(self, subscription: Subscription, data: bytes) -> None:
        """See ``PresenceService.keep``."""
        self._watching.keep(subscription, data)

    def lost(self, subscription: Subscription) -> None:
        """See ``PresenceService.lost``."""
        self._moves.end(own(subscription), EndReason.TIMEOUT, is_told=False)

    def find(self, edge: str, id: str) -> Subscription | None:
        """See ``PresenceService.find``."""
        return self._moves.subscriptions.find(edge, id)

    def subscriptions_of(self, edge: str, watcher: Address) -> Sequence[Subscription]:
        """See ``PresenceService.subscriptions_of``."""
        lives = self._moves.subscriptions.of_watcher(self._presentities.own(watcher))
        return [live for live in lives if live.edge == edge]

    def is_allowed(self, presentity: Address, watcher: Address) -> asyncio.Future[bool]:
        """See ``PresenceService.is_allowed``."""
        own_address = self._presentities.own
        return asyncio.ensure_future(self._watching.is_allowed(own_address(presentity), own_address(watcher)))

    def may_see(self, presentity: Address, watcher: Address) -> asyncio.Future[bool]:
        """See ``PresenceService.may_see``."""
        own_address = self._presentities.own
        allow = SubHandling.ALLOW
        return asyncio.ensure_future(self._watching.is_allowed(own_address(presentity), own_address(watcher), allow))

    def watchers(self, account: Address) -> Sequence[Subscription]:
        """See ``PresenceService.watchers``."""
        presentity = self._presentities.find(self._presentities.own(account))
        return tuple(presentity.subscriptions) if presentity else ()

    def seen_by(self, account: Address, viewer: Address | None = None) -> Sequence[Subscription]:
        """See ``PresenceService.seen_by``."""
        own_address = self._presentities.own
        presentity = self._presentities.find(own_address(account), None if viewer is None else own_address(viewer))
        live = presentity.subscriptions if presentity else ()
        active = SubscriptionState.ACTIVE
        return [one for one in live if one.state is active and one.granted.sub_handling is SubHandling.ALLOW]

    # --- decisions --------------------------------------------------------------------------------------------------

    async def ask(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Response | None:
        """See ``PresenceService.ask``."""
        operation, origin = self._folded(operation, origin)
        if too_fast := self._quota.pace(operation.watcher.domain):
            return replace(too_fast, trans_id=operation.trans_id)
        return await self._admit(operation, origin) or await self.keeping.decisions.ask(operation, origin, terms)

    async def withdraw(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """See ``PresenceService.withdraw``."""
        operation, origin = self._folded(operation, origin)
        if too_fast := self._quota.pace(operation.watcher.domain):
            return replace(too_fast, trans_id=operation.trans_id)
        return await self._admit(operation, origin) or await self.keeping.decisions.withdraw(operation, origin)

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response:
        """See ``PresenceService.answer``."""
        account, watcher = self._presentities.own(account), self._presentities.own(watcher)
        origin = replace(origin, principal=self._presentities.own(origin.principal))
        return await self.keeping.decisions.answer(account, watcher, decision, origin)

    def _folded(self, operation: SubscribeOperation, origin: Origin) -> tuple[SubscribeOperation, Origin]:
        """Our own users are named without regard to case (ADDR-4); schemes and foreign names are as they came."""
        own_address = self._presentities.own
        watcher = own_address(operation.watcher).with_scheme(operation.watcher.scheme)
        target = own_address(operation.target).with_scheme(operation.target.scheme)
        origin = replace(origin, principal=own_address(origin.principal))
        return replace(operation, watcher=watcher, target=target), origin

    async def decisions(self, account: Address) -> Sequence[ContactItem]:
        """See ``PresenceService.decisions``."""
        return await self.keeping.decisions.decisions(account)

    async def default(self, account: Address) -> Default:
        """See ``PresenceService.default``."""
        return await self.keeping.decisions.default(account)

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None:
        """See ``PresenceService.set_default``."""
        return await self.keeping.decisions.set_default(account, default, origin)

    def reconsider(self, account: Address, watcher: Address | None = None) -> None:
        """What ``watcher`` (None: anybody) may see of the account was changed durably (``parts.Reconsider``)."""
        other = None if watcher is None else self._presentities.own(watcher)
        self._moves.reconsider(self._presentities.own(account), other)

    async def remove(self, account: Address) -> None:
        """An account is removed: with what it kept, and what others kept about it. Raises StoreError."""
        self.forget(account)  # first, so that nobody is told of decisions that go with it
        await self.keeping.remove(account)
        self.forget(account)
        # The store carries calls out in order: with this one durable, so are the ends before it.
        await self._store.commit([Delete("subscription", NOBODY.key)])

    def forget(self, account: Address) -> None:
        """The account was removed: nobody watches it any more, and it watches nobody (OPS-34)."""
        account = self._presentities.own(account)
        presentity = self._presentities.find(account)
        for live in [
            *(presentity.subscriptions if presentity else ()),
            *self._moves.subscriptions.of_watcher(account),
        ]:
            self._moves.end(live, EndReason.NORESOURCE)
        if presentity is not None:
            presentity.publications.clear()
            presentity.changed()
            self._presentities.settle(presentity)


def _scoped(origin: Origin, key: str) -> str:
    """Keys are an edge's own: a resource called like another edge's key is another publication."""
    return f"{origin.binding}:{key}" if key else ""

"""Steps 5 to 7 on one page: what happens to a message operation between two bindings. Read this first.

    submit ── admit (policy.py) ── resolve ── one record, committed (messaging.py, store) ── "yes"
                    │                  │                      │
                 refused       no such user, no route    deliver (delivery.py), report how it ended

Nothing is promised before the record is durable; what is refused leaves no trace in the store.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from comity.cpim.address import Address
from comity.cpim.entity import is_secured
from comity.cpim.imdn import Imdn, notification_in, wishes_of
from comity.cpim.message import CpimMessage
from comity.cpim.operations import (
    Fate,
    MessageOperation,
    Reason,
    Response,
    SubscribeOperation,
    failure,
    handed_over,
    indeterminant,
    success,
)
from comity.errors import AddressError, MalformedMessage, NoRouteError, StoreError
from comity.failpoints import failpoint
from comity.service import policy
from comity.service.delays import Delays
from comity.service.delivery import DeliveryEngine
from comity.service.envelope import (
    DROPPED,
    Envelope,
    Outcome,
    operation_alone,
    operation_of_item,
    unpack,
    unpack_outcome,
)
from comity.service.former import Here, Nowhere, contact_for
from comity.service.ids import is_spine_id, new_spine_id
from comity.service.interfaces import (
    Accepted,
    Accounts,
    Add,
    Clock,
    Contact,
    Deliverer,
    Delivery,
    Done,
    Follower,
    Found,
    Full,
    Item,
    Maps,
    Mark,
    Op,
    Origin,
    Peers,
    Put,
    Record,
    Repeat,
    Result,
    Routes,
    Store,
    Timer,
)
from comity.service.maps import LinkMaps
from comity.service.messaging import (
    FATE_OF,
    about_key,
    dedup_keys,
    envelope_of,
    record_of,
    report_operation,
    report_record,
)
from comity.service.passes import Passes
from comity.service.peers import KnownPeers
from comity.service.pending import Pending, Report
from comity.service.policy import Limits
from comity.service.presence.inbox import Inbox
from comity.service.presence.interfaces import PresenceService
from comity.service.protection import Protection
from comity.service.registrar import ContactRegistrar
from comity.service.routes import StaticRoutes
from comity.service.routing import DNS, HERE, HOPS, NOWHERE, contacts_for, domain_of_hop, inbox_lane, receipt_lane

log = logging.getLogger(__name__)

EXPIRY_INTERVAL = 15.0
"""Seconds between two looks for messages whose lifetime is over."""

MOST_ALIKE = 1_000
"""Recipients of one object among whom a next hop's word finds the one it is about."""

Answer = asyncio.Future[Accepted | Response]


_DEDUP = "dedup-secret"


@dataclass(slots=True)
class Submission:
    """One operation on its way through the steps below."""

    operation: MessageOperation
    origin: Origin
    view: CpimMessage | None
    """The message/cpim that can be seen in the object, if any."""
    answer: Answer
    """What the binding waits for first: refused, or durable."""
    outcome: asyncio.Future[Response]
    """What it may wait for afterwards."""
    envelope: bytes = b""
    note: str = ""
    """What a look at its signature left to say (see ``protection.py``)."""
    hop: Contact | None = None
    """The next hop towards the recipient's domain, where that is not ours."""
    notice: Imdn | None = None
    """What it says of another message, if it is a disposition notification."""

    def say(self, value: Accepted | Response) -> None:
        """Answer, unless the caller gave up and cancelled."""
        if not self.answer.done():
            self.answer.set_result(value)


class Pipeline:
    """The service (RFC 3860's word): see ``service.interfaces.Service`` for what bindings may ask of it."""

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        clock: Clock,
        node: str,
        limits: Limits | None = None,
        *,
        protection: Protection | None = None,
        peers: Peers | None = None,
        routes: Routes | None = None,
        maps: Maps | None = None,
    ) -> None:
        self.accounts = accounts
        self.clock = clock
        self.node = node
        self.limits = limits or Limits()
        self.protection = protection or Protection()
        self.peers: Peers = peers or KnownPeers(())
        self.routes: Routes = routes or StaticRoutes()
        self.maps: Maps = maps or LinkMaps()
        self.presence: PresenceService | None = None
        """Set by ``server.py`` before ``start``."""
        self.inbox: Inbox | None = None
        """Who may send to whom; set together with ``presence``."""
        self.registrar = ContactRegistrar(store, clock)
        self.passes = Passes()
        self.delivery = DeliveryEngine(store, clock, node, self._report)
        self.delays = Delays(store, clock, self._delayed, self.delivery.ends)
        self.counts = dict.fromkeys(("accepted", "repeated", "refused", "reported"), 0)
        self._store = store
        self.is_first_life = True
        self._secret = b""
        self._followers: list[Follower] = []
        self._resolving: dict[str, list[Submission]] = {}
        """By principal: what waits for the look-up of the first one's recipient."""
        self._committing: deque[float] = deque()
        """When each record not yet durable was given to the store; it takes them in order."""
        self._timer: Timer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, deliverers: dict[str, Deliverer]) -> None:
        """Load the contacts and take up what is stored; call before any listener opens."""
        self.is_first_life = await self._store.get("setting", _DEDUP) is None
        self._secret = await self.secret(_DEDUP)
        moving = Here(self._store, self.accounts, self.limits, lambda: self._secret, self._moved)
        self.delivery.deliverers.update({**deliverers, NOWHERE: Nowhere(), HERE: moving})
        await self.registrar.load()
        await self.delays.load()
        await self.protection.load(self._store)
        self.registrar.on_present = self.delivery.present
        self.registrar.on_absent = self.delivery.absent
        failpoint("service.recovery")
        await self.delivery.load(self._taker)
        for contact in self.registrar.all_contacts():
            self.delivery.present(contact)
        self._expire_later()

    def _taker(self, lane: str) -> Contact:
        domain = domain_of_hop(lane)
        is_ours = self.accounts.serves(domain)
        return contact_for(lane, None if is_ours else self.routes.hop(domain), is_ours=is_ours)

    def _moved(self, lane: str, id: str, seq: int, delivery: Delivery, envelope: Envelope) -> None:
        self.delivery.accept(lane, id, seq, delivery.operation, envelope)

    async def stop(self) -> None:
        """Begin nothing new; what is accepted stays in the store."""
        if self._timer is not None:
            self._timer.cancel()
        self.delays.stop()
        await self.delivery.stop()

    @property
    def lag(self) -> float:
        """Seconds for which the oldest message has been waiting for its commit: what more may be taken is judged by it."""
        return self.clock.now() - self._committing[0] if self._committing else 0.0

    # --- step 5: admit -----------------------------------------------------------------------------------------

    def submit(self, operation: MessageOperation, origin: Origin) -> Answer:
        """Admit, resolve and store a message operation (see ``Service.submit``)."""
        loop = asyncio.get_running_loop()
        operation, origin = self._folded(operation, origin)
        if not self.protection.is_idle:
            operation = self.protection.required(operation)
        refusal = policy.check_served(operation, self.limits) or policy.check_addresses(operation)
        hop: Contact | None = None
        if refusal is None and not self.accounts.serves(operation.destination.domain):
            hop, refusal = self._resolve_domain(operation, origin)
        is_ours = self.accounts.serves(operation.source.domain)
        refusal = refusal or policy.check_sender(operation, origin, is_ours=is_ours)
        if refusal is None and hop is not None:
            refusal = self._check_onward(operation, is_ours=is_ours)
        refusal = refusal or policy.check_size(operation, self.limits)
        view: CpimMessage | None = None
        if refusal is None:
            view, refusal = policy.check_object(operation, self.clock.when(), self.limits, origin.wire)
        if refusal is None and operation.requirements:
            refusal = policy.check_requirements(operation, origin)
        if refusal is None and hop is not None:
            refusal = self._check_passed(operation, origin, view)
        note, notice = "", None
        if refusal is None and view is not None:
            operation, notice, refusal = self._asked(operation, view)
        if refusal is None and not self.protection.is_idle:
            note, refusal = self.protection.look(operation, self.clock.when())
        waits = loop.create_future(), loop.create_future()
        submission = Submission(operation, origin, view, *waits, note=note, hop=hop, notice=notice)
        if refusal is not None:
            self._refuse(submission, refusal)
        else:
            self._resolve(submission)
        return submission.answer

    def _asked(
        self, operation: MessageOperation, view: CpimMessage
    ) -> tuple[MessageOperation, Imdn | None, Response | None]:
        """The operation with what its object asks to be told; what that says of another message; or why it cannot be read (I-07)."""
        try:
            notice = notification_in(view)
        except MalformedMessage as error:
            text = f"The disposition notification is malformed: {error}."
            return operation, None, failure(operation.trans_id, Reason.SYNTAX, text)
        asks = " ".join(sorted(wishes_of(view)))
        if asks != operation.context.asks:
            operation = replace(operation, context=replace(operation.context, asks=asks))
        return operation, notice, None

    def _folded(self, operation: MessageOperation, origin: Origin) -> tuple[MessageOperation, Origin]:
        """Our own users are named without regard to case (ADDR-4); the object keeps what it says."""
        source, destination = self._own(operation.source), self._own(operation.destination)
        if source is not operation.source or destination is not operation.destination:
            operation = replace(operation, source=source, destination=destination)
        principal = self._own(origin.principal)
        if principal is not origin.principal:
            origin = replace(origin, principal=principal)
        return operation, origin

    def _own(self, address: Address) -> Address:
        if not self.accounts.serves(address.domain):
            return address
        try:
            return address.folded()
        except AddressError:  # no account can have that name: resolution says so
            return address

    def _resolve_domain(self, operation: MessageOperation, origin: Origin) -> tuple[Contact | None, Response | None]:
        """The way to a domain that is not ours. A message that came back is told first: whoever brings it, it is one."""
        refusal = policy.check_loop(operation, self.node)
        if refusal is None and origin.domains and self.accounts.serves(operation.source.domain):
            refusal = policy.loop(operation) if self.has_left(operation.object.fingerprint) else None
        hop = None if refusal else self.routes.hop(operation.destination.domain)
        if hop is None and refusal is None:
            text = "That domain is not served here, and there is no route to it."
            refusal = failure(operation.trans_id, Reason.NO_ROUTE, text)
        return hop, refusal

    def _check_onward(self, operation: MessageOperation, *, is_ours: bool) -> Response | None:
        """It may leave for another node: a hop is left, and what is of no user of ours may pass through here."""
        source, domain = operation.source.domain, operation.destination.domain
        if not is_ours and not self.routes.may_pass(source, domain):
            text = "This server does not pass messages between those domains."
            return failure(operation.trans_id, Reason.DENIED, text)
        return policy.check_hops(operation)

    def _check_passed(self, operation: MessageOperation, origin: Origin, view: CpimMessage | None) -> Response | None:
        """It was not here before, as far as its octets tell: its history may be lost (G-17)."""
        now = self.clock.now()
        if not origin.domains:
            self.passes.leaves(operation, now)
        elif not operation.context.transient and self.passes.is_loop(operation, view, origin.dedup, now):
            return policy.loop(operation)
        return None

    def has_left(self, fingerprint: str) -> bool:
        """See ``Service.has_left``."""
        return self.passes.has_left(fingerprint, self.clock.now())

    # --- step 6: resolve the recipient ---------------------------------------------------------------------------

    def _resolve(self, submission: Submission) -> None:
        """Ask whether the recipient exists; a principal's next ones wait for its look-up, so order is kept."""
        principal = submission.origin.principal.key
        waiting = self._resolving.get(principal)
        if waiting is not None:
            waiting.append(submission)
            return
        known = self._known(submission) if submission.notice is None else None
        if known is not None:
            self._accept(submission, known)
            return
        self._resolving[principal] = [submission]
        self._run(self._look_up(principal))

    def _known(self, submission: Submission) -> bool | None:
        """Whether the recipient exists, as far as that is known at once; of other domains their own servers know it."""
        return submission.hop is not None or self.accounts.known(submission.operation.destination)

    async def _look_up(self, principal: str) -> None:
        waiting = self._resolving[principal]
        try:
            while waiting:
                if waiting[0].notice is not None and await self._is_told(waiting[0], waiting[0].notice):
                    self._drop(waiting.pop(0))
                    continue
                destination = waiting[0].operation.destination
                known = self._known(waiting[0])
                exists = await self.accounts.exists(destination) if known is None else known
                self._accept(waiting.pop(0), exists)
        finally:
            del self._resolving[principal]
            for submission in waiting:  # the look-up failed: that says nothing about anybody's existence
                text = "The recipient cannot be looked up now."
                refusal = failure(submission.operation.trans_id, Reason.OVERLOAD, text, retry_after=30)
                self._refuse(submission, refusal)

    async def _is_told(self, submission: Submission, notice: Imdn) -> bool:
        """Tell the sender of a message what a notification of its recipient says, in her own protocol, once, if she asked (T21).

        False if it is about none whose sender is to be told by us: between programs that speak of objects it is one more object.
        """
        name, operation = notice.message_id.partition("@")[0], submission.operation
        is_ours = is_spine_id(name)  # given by us, as identifier of a stanza or a SIP request
        key = name if is_ours else about_key(self._secret, notice.message_id, operation.source)
        for found in await self._store.find(key, 1):
            try:
                about = operation_alone(unpack(found.envelope))
            except StoreError as error:  # a bad row (F-POISON): of that message nothing can be told
                log.error("%s: %s", found.id, error)
                continue
            people = about.destination.key, about.source.key
            if people != (operation.source.key, operation.destination.key) or (is_ours and found.id != name):
                continue
            fate, response = FATE_OF.get(notice.status), success("")
            if fate is Fate.FAILED:
                response = failure("", Reason.CONTENT, "The recipient's program says that it could not be delivered.")
            report = None if fate is None else self._report_of(found, response, fate)
            if report is not None:
                self.delivery.ends.tell(report)
            return True
        # Of no message of these two, or of none whose sender asked: nobody is told (I-01, I-10). COMPAT PJSUA 2.15 would show a
        # bare notification of another phone as a text, so those among phones end here too.
        return is_ours or operation.is_wrapped

    # --- step 7: one record, then "yes" --------------------------------------------------------------------------

    def _accept(self, submission: Submission, exists: bool) -> None:
        operation, origin, view = submission.operation, submission.origin, submission.view
        if not exists:
            self._refuse(submission, policy.no_such_user(operation))
            return
        asserted_by = "" if view is None or is_secured(operation.object) else origin.principal.domain
        if self.inbox is not None and not self.inbox.is_idle:
            is_welcome, refusal = self.inbox.look(operation, self.clock.when())
            if refusal is not None:
                self._refuse(submission, refusal)
                return
            if not is_welcome:
                self._drop(submission)
                return
        submission.envelope = envelope_of(operation, origin, view, asserted_by, submission.note)
        lane = (
            inbox_lane(operation.destination.key) if submission.hop is None else self.delivery.lane_of(submission.hop)
        )
        if operation.context.transient:
            self._deliver(submission, lane, operation.trans_id, 0)
            submission.say(Accepted(operation.trans_id, submission.outcome))
            self._tell(submission, operation.trans_id)
            return
        lifetime = self.limits.lifetime
        if operation.context.lifetime is not None:
            lifetime = min(lifetime, operation.context.lifetime)
        is_transit = submission.hop is not None and bool(origin.domains)
        dedup = dedup_keys(self._secret, operation, origin, view, is_transit=is_transit)
        record = record_of(operation, submission.envelope, self._store.time() + lifetime, dedup, lane)
        limits = self.limits
        quota = (limits.inbox_records, limits.inbox_octets)
        if submission.hop is not None:
            quota = (limits.hop_records, limits.hop_octets)
        ops: list[Op] = [Add(record, limits.dedup_window, quota, origin.marks)]
        if operation.context.report_after is not None:
            ops += self.delays.note(record, operation.context)
        failpoint("service.before-commit")
        self._committing.append(self.clock.now())
        done = self._store.commit(ops)
        done.add_done_callback(partial(self._committed, submission, lane, record.id))

    def _drop(self, submission: Submission) -> None:
        """Say yes to what the recipient does not want to be asked about: as with somebody who is away and never comes."""

        def dropped(done: asyncio.Future[list[Result]]) -> None:
            self._committing.popleft()
            if done.exception() is None:
                submission.outcome.set_result(indeterminant(submission.operation.trans_id))
                submission.say(Accepted(new_spine_id(), submission.outcome))
            else:
                self._refuse(submission, _not_stored(submission.operation))

        self._committing.append(self.clock.now())
        self._store.commit(submission.origin.marks).add_done_callback(dropped)

    def _deliver(self, submission: Submission, lane: str, id: str, seq: int) -> None:
        operation = submission.operation
        if submission.hop is not None:
            self.delivery.open_hop(lane, submission.hop)
        self.delivery.accept(lane, id, seq, operation, unpack(submission.envelope), waiter=submission.outcome)

    def _committed(self, submission: Submission, lane: str, id: str, done: asyncio.Future[list[Result]]) -> None:
        failpoint("service.after-commit")
        self._committing.popleft()
        operation = submission.operation
        if (error := done.exception()) is not None:
            log.error("a message could not be stored: %s", error)
            self._refuse(submission, _not_stored(operation))
            return
        match done.result()[0]:
            case Done(rev=seq):
                self.counts["accepted"] += 1
                self._deliver(submission, lane, id, seq)
                submission.say(Accepted(id, submission.outcome))
                self._tell(submission, id)
            case Repeat() as repeat:
                self.counts["repeated"] += 1
                self._join(submission, repeat)
                submission.say(Accepted(repeat.id, submission.outcome, is_repeat=True))
            case Full():
                whose = "The recipient's stored messages" if submission.hop is None else "The messages to that domain"
                text = f"{whose} are at their limit."
                self._refuse(submission, failure(operation.trans_id, Reason.QUOTA, text, retry_after=600))
            case other:
                raise StoreError(f"the store answered an Add with {other}")

    def _tell(self, submission: Submission, id: str) -> None:
        for follower in self._followers:
            follower(submission.operation, submission.origin, id)

    def _join(self, submission: Submission, repeat: Repeat) -> None:
        """A repeat is answered as the first was (S-35); while that is pending, it waits for the same end."""
        trans_id, outcome = submission.operation.trans_id, submission.outcome
        if repeat.outcome is None:
            pending = self.delivery.find(repeat.lane, repeat.id)
            if pending is not None:
                pending.waiters.append(outcome)
            else:
                outcome.set_result(indeterminant(trans_id))
            return
        try:
            ended = unpack_outcome(repeat.outcome)
        except StoreError as error:  # a bad row (F-POISON): it was accepted, how it ended is not known
            log.error("%s: %s", repeat.id, error)
            outcome.set_result(indeterminant(trans_id))
            return
        if ended.outcome == "delivered":
            outcome.set_result(handed_over(trans_id, ended.form, ended.at))
        else:
            reason = Reason(ended.reason) if ended.reason else Reason.INTERNAL
            outcome.set_result(failure(trans_id, reason, ended.text))

    def _refuse(self, submission: Submission, response: Response) -> None:
        self.counts["refused"] += 1
        submission.say(response)

    # --- after "yes": failure, expiry, later refusal ----------------------------------------------------------------

    def _report(self, pending: Pending, response: Response, fate: Fate | None = None) -> Report | None:
        """Make the report that tells the sender of a failure after "yes" (OPS-13, GW-12), or of what else she asked to be told;
        delivery.py stores it."""
        operation = pending.operation
        domain, hop = operation.source.domain, None
        if not self.accounts.serves(domain):
            hop, recipient = self.routes.hop(domain), operation.destination.domain
            domain = recipient if self.accounts.serves(recipient) else self.node
        report = report_operation(operation, pending.envelope, response, self.clock.when(), domain=domain, fate=fate)
        lane = None if report is None else self._lane_of_report(report, hop)
        if report is None or lane is None:
            return None
        self.counts["reported"] += 1
        expires = self._store.time() + self.limits.lifetime
        record, envelope = report_record(report, self._secret, pending.id, expires, lane)
        failpoint("service.report.before-commit")
        add = Add(record, self.limits.dedup_window)
        return Report(add, partial(self._reported, report, envelope, record, hop))

    def _lane_of_report(self, report: MessageOperation, hop: Contact | None) -> str | None:
        """Where a report has to stand; None if there is no way to who should get it."""
        wants, key = report.context.wants_receipt, report.destination.key
        if hop is not None:
            return self.delivery.lane_of(hop) if wants in ("", hop.binding) or hop.binding == DNS else None
        if not self.accounts.serves(report.destination.domain):
            log.warning("nobody can be told of a message of %s: there is no route to its domain", key)
            return None
        return receipt_lane(wants, key) if wants else inbox_lane(key)

    def _reported(
        self, report: MessageOperation, envelope: Envelope, record: Record, hop: Contact | None, result: Result
    ) -> None:
        failpoint("service.report.after-commit")
        if not isinstance(result, Done):
            return
        if hop is not None:
            self.delivery.open_hop(record.lane, hop)
        elif report.context.wants_receipt:
            self.delivery.open_receipts(record.lane, report.context.wants_receipt, report.destination.key)
        self.delivery.accept(record.lane, record.id, result.rev, report, envelope)

    def _delayed(self, found: Found) -> Report | None:
        """The report about a message that still waits after the time its sender gave (``Fate.DELAYED``)."""
        return self._report_of(found, indeterminant(""))

    def _report_of(self, found: Found, response: Response, fate: Fate | None = None) -> Report | None:
        """The report about a message of which only the row is at hand, perhaps without its octets."""
        envelope = unpack(found.envelope)
        pending = Pending(found.id, found.seq, found.accepted, operation_alone(envelope), envelope)
        return self._report(pending, response, fate)

    async def admit_subscription(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """See ``Service.admit_subscription``."""
        own = replace(operation, watcher=self._own(operation.watcher), target=self._own(operation.target))
        is_ours = self.accounts.serves(own.watcher.domain)
        by = replace(origin, principal=self._own(origin.principal))
        refusal = policy.check_watcher(own, by, is_ours=is_ours)
        if refusal is None and self.accounts.serves(own.target.domain):
            refusal = await self.protection.prove(operation, own.target, self.clock.when())
        return refusal

    def follow(self, follower: Follower) -> None:
        """See ``Service.follow``."""
        self._followers.append(follower)

    async def find_hops(self, domain: str, *, asker: str = "", kind: Literal["im", "pres"] = "im") -> Sequence[Contact]:
        """See ``Service.find_hops``."""
        hop, finder = self.routes.hop(domain), self.delivery.finder
        if hop is None:
            raise NoRouteError(f"there is no route to {domain}")
        if finder is None or not finder.is_wanted(hop):
            return (hop,)
        return await finder.hops(hop, asker, kind)

    def reached(self, operation: MessageOperation) -> Sequence[Contact]:
        """See ``Service.reached``."""
        return contacts_for(operation, self.registrar.contacts(operation.destination))

    def mark(self, mark: Mark) -> asyncio.Future[list[Result]]:
        """See ``Service.mark``."""
        return self._store.commit([mark])

    async def read_mark(self, name: str) -> bytes | None:
        """See ``Service.read_mark``."""
        return await self._store.get_mark(name)

    async def told(self, delivery_id: str, domains: frozenset[str], response: Response) -> bool:
        """See ``Service.told``."""
        for found in await self._store.find(delivery_id, 1):
            led_to = domain_of_hop(found.lane) if found.lane.startswith(HOPS) else ""
            if found.id != delivery_id or not ({led_to, "*"} & domains):
                return False
            report = self._report_of(found, response)
            if report is not None:
                is_durable = asyncio.get_running_loop().create_future()
                self.delivery.ends.tell(report, partial(is_durable.set_result, None))
                await is_durable
            return True
        return False

    def hop_returned(self, binding: str, domains: Collection[str]) -> None:
        """See ``Service.hop_returned``."""
        self.delivery.hop_returned(binding, domains)
        if self.presence is not None:
            for domain in domains:
                self.presence.returned(domain)

    def reject(self, delivery_id: str, contact: Contact, response: Response) -> None:
        """A device refuses what it took (see ``Service.reject``)."""
        self._run(self._reject(delivery_id, contact, response))

    async def _reject(self, delivery_id: str, contact: Contact, response: Response) -> None:
        for found in await self._store.find(delivery_id, 1):
            report = self._report_of(found, response)
            if report is not None:
                self.delivery.ends.tell(report)

    async def settle(
        self, fingerprints: Sequence[str], sender: Address, recipient: Address, response: Response
    ) -> bool:
        """See ``Service.settle``."""
        wanted = self._own(sender).key, recipient.key
        for fingerprint in fingerprints:
            for found in reversed(await self._store.find(fingerprint, MOST_ALIKE)):
                if not found.lane.startswith(HOPS):
                    continue
                envelope = unpack(found.envelope)
                operation = operation_alone(envelope)
                if (operation.source.key, operation.destination.key) != wanted:
                    continue
                report = self._report(Pending(found.id, found.seq, found.accepted, operation, envelope), response)
                if report is not None:
                    self.delivery.ends.tell(report)
                return True
        return False

    def _expire_later(self) -> None:
        self._timer = self.clock.call_later(EXPIRY_INTERVAL, self._expire)

    def _expire(self) -> None:
        self._run(self._expire_now())

    async def _expire_now(self) -> None:
        """Report and end every message whose lifetime is over (reliability.md section 5.6)."""
        last: list[str] = []
        try:
            while items := await self._store.expire():
                if (ids := [item.record.id for item in items]) == last:
                    break  # the store can keep no end now
                last = ids
                for item in items:
                    self._expired(item)
        except StoreError as error:
            log.error("looking for expired messages failed: %s", error)
        finally:
            self.delivery.sweep()
            self._expire_later()

    def _expired(self, item: Item) -> None:
        try:
            operation, envelope = operation_of_item(item)
        except Exception as error:  # whatever a bad row raises, the others expire (F-POISON)
            self.delivery.ends.park(item.record.lane, item, error)
            return
        response = failure(operation.trans_id, Reason.EXPIRED, "It could not be delivered in time.")
        if item.record.lane.startswith(
            HOPS
        ):  # a person who is away is one thing, a server that does not answer another (XMPP-7)
            text = f"The servers of {operation.destination.domain_u} did not take it in time."
            response = failure(operation.trans_id, Reason.TIMEOUT, text)
        report = self._report(Pending(item.record.id, item.seq, item.accepted, operation, envelope), response)
        outcome = Outcome("expired", self.clock.when(), reason=Reason.EXPIRED.value, text=response.text)
        self.delivery.finish(item.record.lane, item.seq, outcome, response, report)

    def drop(self, found: Found) -> None:
        """End a waiting message at the operator's word; its sender is told as of any other end."""
        response = failure("", Reason.EXPIRED, "The operator of the server ended it undelivered.")
        try:
            report = self._report_of(found, response)
        except StoreError:  # a bad row (F-POISON) can be dropped too
            report = None
        outcome = Outcome("dropped", self.clock.when(), text=DROPPED)
        self.delivery.finish(found.lane, found.seq, outcome, response, report)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the service failed", exc_info=error)

    async def secret(self, name: str) -> bytes:
        """A key of this node (see ``Service.secret``), such as that of the dedup hashes."""
        entry = await self._store.get("setting", name)
        if entry is not None:
            return entry.value
        secret = os.urandom(32)
        await self._store.commit([Put("setting", name, secret, if_rev=0)])
        return secret


def _not_stored(operation: MessageOperation) -> Response:
    return failure(operation.trans_id, Reason.OVERLOAD, "The message cannot be stored now.", retry_after=30)

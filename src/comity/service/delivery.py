"""Step 7, the way out: one inbox per lane, one channel per device, retry, order and the end of a message.

Promise kept here (reliability.md section 5.5): a device gets a recipient's messages in the order of acceptance, and
a later one is not handed over before every earlier one is terminal for that device. A message is terminal when the
first device takes it, when every device refused it, when its lifetime ends, or when an operator drops it; each end
is committed before anybody is told. What stands in memory is a window of the lane: the rest waits in the store and
is read again from the front, never "after the highest seen".

A lane is a local recipient's, or that of the next hop towards another domain, whose one "device" is always there
(``hops.py``), or holds receipts for one protocol's devices of a recipient: those must not stand before her messages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from comity.cpim.delivered import TEXT_FORMS
from comity.cpim.imdn import PROCESSING
from comity.cpim.operations import (
    PASSED_ON,
    Fate,
    MessageOperation,
    Reason,
    Response,
    Status,
    failure,
    handed_over,
    indeterminant,
)
from comity.errors import StoreError
from comity.failpoints import failpoint
from comity.service.channel import Channel
from comity.service.ends import AGAIN, Ends
from comity.service.envelope import Envelope, Outcome, operation_of_item
from comity.service.finding import HopFinder
from comity.service.former import FormerLanes
from comity.service.hops import HopChannel
from comity.service.interfaces import Clock, Contact, Deliverer, Delivery, Item, Store
from comity.service.pending import Pending, Report, Reporter
from comity.service.policy import check_link
from comity.service.routing import (
    DNS,
    HERE,
    HOPS,
    INBOXES,
    NOWHERE,
    RECEIPTS,
    contacts_for,
    domain_of_hop,
    inbox_lane,
    receipt_lane,
)

log = logging.getLogger(__name__)

WINDOW = 64
"""Messages of one lane held in memory; more wait in the store."""
LOW_WATER = 16
"""Below this many the lane is read again."""
FRESH = 2.0
"""A message handed over within this many seconds of its acceptance is not called delayed."""


class Inbox:
    """One lane and the devices its messages are for; small while idle, as ``Channel``."""

    __slots__ = (
        "_acked",
        "_ended",
        "_has_more",
        "_is_loading",
        "_items",
        "_read_to",
        "channels",
        "engine",
        "lane",
    )

    def __init__(self, engine: DeliveryEngine, lane: str) -> None:
        self.engine = engine
        self.lane = lane
        self.channels: dict[tuple[str, str], Channel] = {}
        self._items: dict[int, Pending] = {}
        self._ended: set[int] = set()
        """Rows that ended here and may still be read as pending: their Ack, or a read begun before it, is under way."""
        self._acked: set[int] = set()
        self._has_more = False
        self._is_loading = False
        self._read_to = 0
        """Last row taken from the store; rows are taken in order, so none up to it is taken again."""

    # --- in ---

    def offer(self, pending: Pending) -> bool:
        """Take a message just accepted; False if it waits in the store, because nobody can be reached or because of
        those before it: then its end is too far away for its sender to wait for."""
        if pending.seq <= self._read_to:
            # The lane was read between the commit and this call: the message is on its way already.
            self._join(pending)
            return True
        if not self.channels or self._has_more or self._is_loading or len(self._items) >= WINDOW:
            self._has_more = True
            if self.channels:
                self.load()
            return False
        self._items[pending.seq] = pending
        return self.assign(pending) and not all(channel.is_paused for channel in pending.offered)

    def _join(self, pending: Pending) -> None:
        """Let whoever waits for ``pending`` wait for its twin that was read from the store."""
        twin = self._items.get(pending.seq)
        if twin is not None:
            twin.waiters += pending.waiters
        else:
            self.engine.stored(pending)

    def find(self, seq: int) -> Pending | None:
        """A message in memory by its place."""
        return self._items.get(seq)

    def pending(self, id: str) -> Pending | None:
        """A message in memory by its spine ID."""
        return next((item for item in self._items.values() if item.id == id), None)

    def open(self, contact: Contact) -> None:
        """A device is there, and nothing waits in the store."""
        make = HopChannel if contact.is_hop else Channel
        self.channels[contact.binding, contact.id] = make(self, contact)

    def present(self, contact: Contact) -> None:
        """A device arrived or spoke again."""
        channel = self.channels.get((contact.binding, contact.id))
        if channel is None:
            self.open(contact)
            self._has_more = True
        else:
            channel.refresh(contact)
        for pending in list(self._items.values()):
            self.assign(pending)
        if self._has_more:
            self.load()

    def absent(self, contact: Contact) -> None:
        """A device left."""
        channel = self.channels.pop((contact.binding, contact.id), None)
        if channel is not None:
            channel.close()
        if not self.channels:
            self._forget()

    def wake(self) -> None:
        """Forget every pause and read the lane again."""
        self._has_more = True
        for channel in list(self.channels.values()):
            channel.refresh(channel.contact)
        self.load()

    def load(self) -> None:
        """Read the front of the lane from the store into memory, in order."""
        if not (self._is_loading or self._is_resting or self.engine.is_stopping):
            self._is_loading = True
            self.engine.run(self._load())

    async def _load(self) -> None:
        try:
            while self.channels and self._has_more and len(self._items) < WINDOW and not self._is_resting:
                self._has_more = False
                limit = len(self._items) + len(self._ended) + WINDOW
                rows = await self.engine.store.read(self.lane, limit)
                if self._is_resting:
                    self._has_more = True
                    break
                fresh = [row for row in rows if row.seq not in self._items and row.seq not in self._ended]
                room = WINDOW - len(self._items)
                if len(rows) == limit or len(fresh) > room:
                    self._has_more = True
                for row in fresh[:room]:
                    self._take(row)
        except StoreError:
            self._has_more = True
            self.engine.clock.call_later(AGAIN, self.load)
            raise
        finally:
            self._is_loading = False
            self._ended -= self._acked
            self._acked.clear()
        if not self.channels:
            self._forget()

    def _take(self, row: Item) -> None:
        self._read_to = max(self._read_to, row.seq)
        try:
            operation, envelope = operation_of_item(row)
        except Exception as error:  # whatever a bad row raises, the lane goes on (F-POISON)
            self._ended.add(row.seq)
            self.engine.ends.park(self.lane, row, error, partial(self._gone, row.seq))
            return
        pending = Pending(row.record.id, row.seq, row.accepted, operation, envelope)
        self._items[row.seq] = pending
        self.assign(pending)

    def assign(self, pending: Pending) -> bool:
        """Give a message to every device it is for and was not given to; it stays here if there is none."""
        chosen = contacts_for(pending.operation, [channel.contact for channel in self.channels.values()])
        for contact in chosen:
            channel = self.channels[contact.binding, contact.id]
            if channel not in pending.offered:
                channel.push(pending)
        return bool(chosen)

    # --- out ---

    def delivered(self, pending: Pending, channel: Channel, response: Response) -> bool:
        """A device took it: terminal with the first, further ones only get their copy.

        True while the end is not durable: ``certain`` follows."""
        pending.offered[channel] = False
        if not pending.is_done:
            if response.form in TEXT_FORMS and not response.at:
                response = replace(response, at=self.engine.node)
            outcome = self.engine.outcome_of(channel.contact, response, pending.via)
            context, is_ours = pending.operation.context, pending.envelope.is_made_here
            is_asked = context.wants_receipt or (context.asks and is_ours and channel.contact.confirms)
            receipt = self.engine.receipt(pending, response) if is_asked else None
            answer = handed_over(pending.operation.trans_id, response.form, response.at)
            self.end(pending, outcome, answer, receipt)
        return bool(pending.seq) and not pending.is_certain

    def refused(self, pending: Pending, channel: Channel, response: Response) -> None:
        """A device will never take it: failed when no other one may."""
        pending.offered[channel] = False
        pending.refusal = response
        if not pending.is_done and not any(pending.offered.values()):
            self.engine.fail(self, pending, response, pending.via or channel.contact.binding)

    def lost(self, pending: Pending, channel: Channel) -> None:
        """A device left before it answered: the message waits for the next one."""
        pending.offered.pop(channel, None)
        if pending.is_done or any(pending.offered.values()):
            return
        if not pending.seq:
            self.engine.fail(self, pending, failure(pending.operation.trans_id, Reason.AWAY), "")
        elif pending.seq in self._items:
            self.assign(pending)

    def put_back(self, pending: Pending) -> None:
        """Keep it in the store alone, from where it is read again."""
        if self._items.pop(pending.seq, None) is not None:
            self._has_more = True

    def discard(self, pending: Pending) -> None:
        """Give it to no further device; its row has ended already."""
        pending.is_done = True
        self._items.pop(pending.seq, None)
        for channel in self.channels.values():
            channel.forget(pending)

    def end(self, pending: Pending, outcome: Outcome, response: Response, report: Report | None = None) -> None:
        """Make it terminal: commit, with the report if there is one, then tell whoever waits."""
        pending.is_done = True
        self._items.pop(pending.seq, None)
        if not pending.seq:
            self.engine.answer(pending, response)
            return
        self._ended.add(pending.seq)
        failpoint("delivery.before-ack")
        then = partial(self._end_committed, pending, response)
        self.engine.ends.conclude(self.lane, pending.seq, outcome, report, then)

    def _end_committed(self, pending: Pending, response: Response) -> None:
        pending.is_certain = True
        takers, pending.takers = pending.takers, []
        for channel in takers:
            channel.certain()
        self.engine.answer(pending, response)
        self._gone(pending.seq)

    def _gone(self, seq: int) -> None:
        """Its row is terminal in the store: nothing of it is kept here, and there may be room to read on."""
        if self._is_loading:
            self._acked.add(seq)
        else:
            self._ended.discard(seq)
        if not self.channels:
            self._forget()
        elif self._has_more and len(self._items) < LOW_WATER:
            self.load()

    @property
    def _is_resting(self) -> bool:
        return any(channel.is_resting for channel in self.channels.values())

    @property
    def is_idle(self) -> bool:
        """True if nothing of the lane is in memory, and nothing is known to wait in the store."""
        is_at_rest = not (self._items or self._ended or self._is_loading or self._has_more)
        return is_at_rest and all(channel.is_idle for channel in self.channels.values())

    def _forget(self) -> None:
        """Nobody is reachable: the store holds the messages, memory need not."""
        if self._is_loading or self._ended or self.channels:
            return
        for pending in self._items.values():
            self.engine.stored(pending)
        self._items.clear()
        self.engine.forget(self)


class DeliveryEngine:
    """All lanes somebody is there for, and the clockwork they share."""

    def __init__(self, store: Store, clock: Clock, node: str, report: Reporter) -> None:
        self.store = store
        self.clock = clock
        self.node = node
        self.is_stopping = False
        self.deliverers: dict[str, Deliverer] = {}
        self.former = FormerLanes(self.take_up)
        self.finder: HopFinder | None = None
        """Finds hops that no route names; set by ``server.py`` before ``start``."""
        self.ends = Ends(store, clock, report)
        self._report = report
        self._inboxes: dict[str, Inbox] = {}
        """By lane."""
        self._receipts: set[str] = set()
        """Lanes of receipts that may hold some."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._finding: set[asyncio.Task[Response]] = set()
        """Attempts at domains that are being looked up, or tried."""

    def accept(
        self,
        lane: str,
        item_id: str,
        seq: int,
        operation: MessageOperation,
        envelope: Envelope,
        *,
        waiter: asyncio.Future[Response] | None = None,
    ) -> None:
        """Start the way out of a message just committed (``seq`` 0: transient, memory only)."""
        pending = Pending(item_id, seq, self.store.time(), operation, envelope)
        if waiter is not None:
            pending.waiters.append(waiter)
        inbox = self._inboxes.get(lane)
        if seq:
            is_under_way = inbox is not None and inbox.offer(pending)
        else:
            is_under_way = inbox is not None and inbox.assign(pending)
        if not is_under_way:
            if seq:
                self.stored(pending)
            else:
                self.answer(pending, failure(operation.trans_id, Reason.AWAY, "Nobody is reachable there now."))

    def present(self, contact: Contact) -> None:
        """The registrar's word that a contact is there."""
        self.take_up(inbox_lane(contact.aor.key), contact)
        if self._receipts and (lane := receipt_lane(contact.binding, contact.aor.key)) in self._receipts:
            self.take_up(lane, contact)

    def absent(self, contact: Contact) -> None:
        """The registrar's word that a contact is gone."""
        for lane in (inbox_lane(contact.aor.key), receipt_lane(contact.binding, contact.aor.key)):
            inbox = self._inboxes.get(lane)
            if inbox is not None:
                inbox.absent(contact)

    def take_up(self, lane: str, contact: Contact) -> None:
        """A contact is there for what waits in the lane."""
        inbox = self._inboxes.get(lane)
        if inbox is None:
            inbox = self._inboxes[lane] = Inbox(self, lane)
        inbox.present(contact)

    def open_hop(self, lane: str, hop: Contact) -> None:
        """Something is about to go into a hop's lane: it is in memory, or empty, since ``load`` took up all others."""
        if lane not in self._inboxes and not self.former.is_waiting(lane):
            inbox = self._inboxes[lane] = Inbox(self, lane)
            inbox.open(hop)

    def open_receipts(self, lane: str, binding: str, key: str) -> None:
        """A receipt went into a lane: it is for those devices of its recipient that are there now, or will be."""
        self._receipts.add(lane)
        inbox = self._inboxes.get(inbox_lane(key))
        if inbox is not None and lane not in self._inboxes:
            for channel in inbox.channels.values():
                if channel.contact.binding == binding:
                    self.take_up(lane, channel.contact)

    async def load(self, taker_of: Callable[[str], Contact]) -> None:
        """Take up the lanes that belong to no registered device; ``taker_of`` gives who takes what is in a hop's lane now."""
        self._receipts.update([info.lane for info in await self.store.lanes(RECEIPTS)])
        for info in sorted(await self.store.lanes(HOPS), key=lambda info: info.oldest):
            taker = taker_of(info.lane)
            if taker.binding == NOWHERE:
                log.warning(
                    "no route leads to %s now: %d messages end, their senders are told", info.lane, info.pending
                )
            elif taker.binding == HERE:
                log.info("the domain of %s is ours now: %d messages go to their recipients", info.lane, info.pending)
            self.former.begin(info.lane, taker)

    def lane_of(self, hop: Contact) -> str:
        """Where what goes to a hop has to stand: in its own lane, or behind what waits in a former one (G-30)."""
        return self.former.lane_of(hop)

    def sweep(self) -> None:
        """Forget the hops and the lanes of receipts in which nothing is."""
        self.former.sweep(lambda lane: lane not in self._inboxes or self._inboxes[lane].is_idle)
        for lane in [lane for lane in self._inboxes if not lane.startswith(INBOXES)]:
            if self._inboxes[lane].is_idle:
                del self._inboxes[lane]
                self._receipts.discard(lane)

    def find(self, lane: str, id: str) -> Pending | None:
        """A message in memory by its spine ID."""
        inbox = self._inboxes.get(lane)
        return None if inbox is None else inbox.pending(id)

    def wake(self, lane: str) -> None:
        """Look at the lane again and try every device now: an operator's wish, or a record another hand added."""
        inbox = self._inboxes.get(lane)
        if inbox is not None:
            inbox.wake()

    def hop_returned(self, binding: str, domains: Collection[str]) -> None:
        """A next hop can be reached again (see ``Service.hop_returned``)."""
        for lane, inbox in list(self._inboxes.items()):
            # A lane keeps the name it began with (G-30), and that of a domain found by DNS names no protocol.
            by = {channel.contact.binding for channel in inbox.channels.values() if channel.contact.is_hop}
            if by & {binding, DNS} and ("*" in domains or domain_of_hop(lane) in domains):
                self.wake(lane)

    def dropped(self, lane: str, seq: int) -> None:
        """A record was ended by another hand: what is in memory of it goes no further."""
        inbox = self._inboxes.get(lane)
        pending = None if inbox is None else inbox.find(seq)
        if inbox is not None and pending is not None:
            inbox.discard(pending)

    def finish(self, lane: str, seq: int, outcome: Outcome, response: Response, report: Report | None = None) -> None:
        """End a message from outside (expired, dropped), whether it is in memory or only in the store."""
        inbox = self._inboxes.get(lane)
        pending = None if inbox is None else inbox.find(seq)
        if inbox is not None and pending is not None:
            inbox.end(pending, outcome, response, report)
        else:
            self.ends.conclude(lane, seq, outcome, report)

    def attempt(self, channel: Channel, pending: Pending, number: int) -> asyncio.Future[Response]:
        """One attempt at one device; what raises becomes that attempt's failure."""
        try:
            finder, hop = self.finder, channel.contact
            if finder is None or not finder.is_wanted(hop):
                return self._attempt(hop, pending, number)
            operation = pending.operation
            only = operation.context.wants_receipt if operation.context.report is not None else ""
            attempt = partial(self._attempt_found, pending, number)
            asker = pending.envelope.in_protocol
            work = finder.carry(hop, operation.trans_id, asker, only, attempt)
            task = asyncio.get_running_loop().create_task(work)
            self._finding.add(task)
            task.add_done_callback(self._finding.discard)
            return task
        except Exception as error:  # a message that cannot be put in this hop's form must not stop its lane (F-POISON)
            failed: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed

    def _attempt_found(self, pending: Pending, number: int, hop: Contact) -> asyncio.Future[Response]:
        pending.via = hop.binding
        return self._attempt(hop, pending, number)

    def _attempt(self, contact: Contact, pending: Pending, number: int) -> asyncio.Future[Response]:
        envelope, report = pending.envelope, pending.operation.context.report
        if contact.is_hop and report is not None and report.fate is not Fate.FAILED:
            wanted = pending.operation.context.wants_receipt
            if wanted != contact.binding:  # the way to its domain changed while it waited (G-30)
                text = "The next server is not reached by the protocol that asked for the receipt."
                other: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
                other.set_result(failure(pending.operation.trans_id, Reason.NO_ROUTE, text))
                return other
        if pending.operation.requirements and (refusal := check_link(pending.operation, contact)) is not None:
            refused: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            refused.set_result(refusal)
            return refused
        now = self.store.time()
        delivery = Delivery(
            pending.id,
            pending.egress(self.node, contact, self.clock.when()),
            contact,
            datetime.fromtimestamp(pending.accepted, UTC),
            number,
            now - pending.accepted > FRESH,
            envelope.asserted_by,
        )
        return self.deliverers[contact.binding].deliver(delivery)

    def fail(self, inbox: Inbox, pending: Pending, response: Response, binding: str) -> None:
        """No device will take it: the sender is told natively if somebody waits, else by a report, stored first."""
        outcome = Outcome(
            "failed", self.clock.when(), binding, reason=(response.reason or Reason.INTERNAL).value, text=response.text
        )
        report = None
        if pending.seq and not any(not waiter.done() for waiter in pending.waiters):
            report = self._report(pending, response)
        inbox.end(pending, outcome, replace(response, trans_id=pending.operation.trans_id), report)

    def outcome_of(self, contact: Contact, response: Response, via: str = "") -> Outcome:
        """How a message ended that this contact took, by ``via`` where its own name does not say it."""
        is_protected = contact.is_protected if response.is_protected is None else response.is_protected
        form, at = response.form, response.at
        return Outcome("delivered", self.clock.when(), via or contact.binding, form, out_tls=is_protected, at=at)

    def receipt(self, pending: Pending, response: Response) -> Report | None:
        """What tells a sender who asked that it was delivered; who took it over with that wish tells her itself."""
        return None if response.form == PASSED_ON else self._report(pending, response)

    def answer(self, pending: Pending, response: Response) -> None:
        """Tell whoever still waits."""
        waiters, pending.waiters = pending.waiters, []
        if pending.seq and response.status is Status.FAILURE and waiters and all(w.cancelled() for w in waiters):
            # The binding gave its answer while the end was being committed: only a report can still tell the sender.
            report = self._report(pending, response)
            if report is not None:
                self.ends.tell(report)
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(response)

    def stored(self, pending: Pending) -> None:
        """Nobody is reachable: "indeterminant" now, a report later if it fails (OPS-6); who wants to know is told that it waits."""
        if PROCESSING in pending.operation.context.asks.split():
            report = self._report(pending, indeterminant(pending.operation.trans_id))
            if report is not None:
                self.ends.tell(report)
        self.answer(pending, indeterminant(pending.operation.trans_id))

    def forget(self, inbox: Inbox) -> None:
        """A lane without devices needs no memory."""
        if self._inboxes.get(inbox.lane) is inbox:
            del self._inboxes[inbox.lane]

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run a store read in the background; a failure is logged, and a lane that could not be read is tried again."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("reading a lane failed", exc_info=error)

    async def stop(self) -> None:
        """Begin no further attempt; wait for reads under way."""
        self.is_stopping = self.ends.is_stopping = True
        for task in self._finding:
            task.cancel()
        if self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

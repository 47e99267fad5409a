"""A whole presence service without protocols: edges that record, accounts in memory, a clock moved by hand.

Place on the path: around steps 5 to 7 of subscribe and notify, for tests of the service and for trials of a new binding.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Response, SubscribeOperation
from comity.cpim.presence import Note, PresenceDocument
from comity.cpim.presence_state import Availability, PresenceState, document_state, state_document, tuple_id_of
from comity.service.interfaces import Origin, Store
from comity.service.presence.interfaces import (
    ContactItem,
    Content,
    Decision,
    Granted,
    Published,
    Statement,
    StoredDocument,
    Subscription,
    Terms,
)
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.service import AccountPresence
from comity.service.presence.watching import PresenceLimits
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Bench, MemoryAccounts, settle

Word = Literal["notify", "pending", "ended"]


@dataclass(frozen=True, slots=True)
class Told:
    """One thing an edge was asked to tell."""

    at: float
    """Monotonic."""
    word: Word
    subscription: Subscription
    content: Content | None = None
    before: Content | None = None
    """What it was told before that."""
    reason: EndReason | None = None

    @property
    def watcher(self) -> str:
        """Local part of the watcher."""
        return self.subscription.watcher.local

    @property
    def state(self) -> str:
        """What the document says of the presentity as a whole, in the words of T9; "" if there is no document."""
        if self.content is None or self.content.document is None:
            return ""
        document = self.content.document
        when = document.date_time
        assert when is not None or not document.tuples
        return document_state(document, when).availability.value if when is not None else Availability.UNKNOWN.value


@dataclass
class RecordingEdge:
    """An ``Edge`` that writes down what it is asked to tell."""

    clock: FakeClock
    told: list[Told] = field(default_factory=list)
    others: list[tuple[str, object]] = field(default_factory=list)
    """(method, argument) of what is about contact lists and decisions."""

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """Write it down once for each."""
        assert all(one.told is told for one in subscriptions)
        self.told += [Told(self.clock.now(), "notify", one, content, told) for one in subscriptions]

    def pending(self, subscription: Subscription) -> None:
        """Write it down."""
        self.told.append(Told(self.clock.now(), "pending", subscription))

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """Write it down."""
        self.told.append(Told(self.clock.now(), "ended", subscription, reason=reason))

    def asked(self, item: ContactItem) -> None:
        """Write it down."""
        self.others.append(("asked", item))

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """Write it down."""
        self.others.append(("answered", (item, is_granted)))

    def withdrew(self, item: ContactItem) -> None:
        """Write it down."""
        self.others.append(("withdrew", item))

    def contact_changed(self, item: ContactItem) -> None:
        """Write it down."""
        self.others.append(("contact_changed", item))

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """Write it down."""
        self.others.append(("blocklist_changed", (account, blocked, unblocked)))

    def directed(self, operation: NotifyOperation) -> None:
        """Write it down."""
        self.others.append(("directed", operation))

    def take(self) -> list[Told]:
        """What was told since the last call."""
        told, self.told = self.told, []
        return told


class PresenceBench(Bench):
    """A pipeline and its presence service over a memory store, with alice, bob and carol at a.test."""

    def __init__(
        self,
        store: Store | None = None,
        limits: PresenceLimits | None = None,
        clock: FakeClock | None = None,
        *,
        keeping: KeepingLimits | None = None,
        accounts: Iterable[str] = (),
    ) -> None:
        clock = clock or FakeClock()
        super().__init__(store or MemoryStore(StoreClock(lambda: clock.when().timestamp(), clock.now)), clock=clock)
        if accounts:
            self.accounts = MemoryAccounts(list(accounts))
            self.pipeline.accounts = self.accounts
        self._limits, self._keeping = limits, keeping
        self.presence = self._new_presence()
        self.sip, self.xmpp = RecordingEdge(self.clock), RecordingEdge(self.clock)
        self._ids = itertools.count(1)

    def _new_presence(self) -> AccountPresence:
        admit = self.pipeline.admit_subscription
        self.pipeline.presence = presence = AccountPresence(
            self.store, self.accounts, self.clock, admit, limits=self._limits, keeping=self._keeping
        )
        return presence

    async def start(self) -> PresenceBench:
        """Start both; the edges "sip" and "xmpp" are attached."""
        await super().start()
        await self._start_presence()
        return self

    async def _start_presence(self) -> None:
        await self.presence.start()
        self.presence.attach("sip", self.sip)
        self.presence.attach("xmpp", self.xmpp)

    async def crash(self) -> None:
        """The process ends at once and another one starts over the same store; edges and clock stay."""
        self.presence.stop()
        self.presence = self._new_presence()
        await self._start_presence()
        await settle()

    def origin(self, uri: str, binding: str = "sip") -> Origin:
        """Somebody's own signed-in session."""
        return Origin(Address.parse(uri), binding, "127.0.0.1", True)

    def document(self, uri: str, word: str = "available", note: str = "", resource: str = "phone") -> PresenceDocument:
        """A device's document in the words of T9."""
        state = PresenceState(Availability(word), (Note(note, ""),) if note else ())
        document = state_document(Address.parse(uri), tuple_id_of(resource), state, self.clock.when())
        assert document is not None
        return document

    def publish(
        self, uri: str, word: str = "available", note: str = "", *, key: str = "phone", lease: int | None = None
    ) -> Published:
        """A device of ``uri`` says how it is; it has to be taken."""
        statement = Statement(self.document(uri, word, note, key), keeps_ids=True)
        answer = self.presence.publish(Address.parse(uri), statement, self.origin(uri), key=key, lease=lease)
        assert isinstance(answer, Published), answer
        return answer

    def unpublish(self, uri: str, *, key: str = "phone") -> None:
        """The device goes."""
        assert self.presence.unpublish(Address.parse(uri), self.origin(uri), key=key) is None

    async def ask(
        self,
        watcher: str,
        target: str,
        duration: int = 600,
        *,
        id: str = "",
        edge: str = "sip",
        begins: bool = True,
        **terms: Any,
    ) -> Granted | Response:
        """Subscribe, refresh, fetch or end; begun at once unless said otherwise."""
        who, whom = Address.parse(watcher), Address.parse(target)
        id = id or f"{who.local}-{whom.local}-{next(self._ids)}"
        operation = SubscribeOperation(who.with_scheme("pres"), whom.with_scheme("pres"), id, f"t-{id}", duration)
        named = {"is_durable": edge == "sip", "interval": 5.0 if edge == "sip" else 0.0, **terms}
        answer = await self.presence.subscribe(operation, self.origin(watcher, edge), Terms(edge, **named))
        if begins and isinstance(answer, Granted):
            self.presence.begin(answer.subscription)
        await settle()
        return answer

    async def watch(self, watcher: str, target: str, duration: int = 600, **named: Any) -> Subscription:
        """Subscribe; it has to be granted."""
        answer = await self.ask(watcher, target, duration, **named)
        assert isinstance(answer, Granted), answer
        return answer.subscription

    async def answer(self, account: str, watcher: str, decision: Decision = Decision.ALLOWED) -> ContactItem:
        """The account decides about a watcher; it has to be taken."""
        who, whom = Address.parse(account), Address.parse(watcher)
        item = await self.presence.answer(who, whom, decision, self.origin(account))
        assert isinstance(item, ContactItem), item
        await settle()
        return item

    async def rules(self, account: str, document: str) -> StoredDocument | Response:
        """The account puts its presence rules."""
        who = Address.parse(account)
        answer = await self.presence.documents.put(
            who, "pres-rules/index", "application/auth-policy+xml", document.encode(), self.origin(account)
        )
        await settle()
        return answer

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what it starts run."""
        self.clock.advance(seconds)
        await settle()

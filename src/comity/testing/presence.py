"""A whole presence service without protocols: edges that record, accounts in memory, a clock moved by hand.

Place on the path: around steps 5 to 7 of subscribe and notify, for tests of the service and for trials of a new binding.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Response, SubscribeOperation, success
from comity.cpim.presence import Note, PresenceDocument
from comity.cpim.presence_state import Availability, PresenceState, document_state, state_document, tuple_id_of
from comity.service.interfaces import Contact, Origin, Store
from comity.service.presence.interfaces import (
    Ask,
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
from comity.service.routes import Route
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


@dataclass
class RecordingAbroad:
    """An ``Abroad`` that writes down what it is asked to carry, and answers as the test says."""

    answer_with: Response = field(default_factory=lambda: success(""))
    """What becomes of each errand."""
    carried: list[tuple[str, str, str]] = field(default_factory=list)
    """(what, of whom, to whom)."""
    held: list[asyncio.Future[Response]] | None = None
    """Not None: errands are not answered but stand here."""
    asks: list[Ask] = field(default_factory=list)
    directed: list[NotifyOperation] = field(default_factory=list)

    def _carry(self, what: str, account: Address, other: Address) -> asyncio.Future[Response]:
        self.carried.append((what, account.local, f"{other.local}@{other.domain}"))
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        if self.held is None:
            done.set_result(self.answer_with)
        else:
            self.held.append(done)
        return done

    def ask(self, operation: SubscribeOperation, ask: Ask, hop: Contact) -> asyncio.Future[Response]:
        """Write it down."""
        assert operation.duration
        self.asks.append(ask)
        return self._carry("ask", operation.watcher, operation.target)

    def withdraw(self, operation: SubscribeOperation, hop: Contact) -> asyncio.Future[Response]:
        """Write it down."""
        assert not operation.duration
        return self._carry("withdraw", operation.watcher, operation.target)

    def answer(self, account: Address, watcher: Address, is_granted: bool, hop: Contact) -> asyncio.Future[Response]:
        """Write it down."""
        return self._carry("grant" if is_granted else "refuse", account, watcher)

    def watch(self, account: Address, target: Address, hop: Contact) -> asyncio.Future[Response]:
        """Write it down."""
        return self._carry("watch", account, target)

    def unwatch(self, account: Address, target: Address, hop: Contact) -> None:
        """Write it down."""
        self.carried.append(("unwatch", account.local, f"{target.local}@{target.domain}"))

    def direct(self, operation: NotifyOperation, hop: Contact) -> asyncio.Future[Response]:
        """Write it down."""
        self.directed.append(operation)
        return self._carry("direct", operation.target, operation.watcher)

    def take(self) -> list[tuple[str, str, str]]:
        """What was carried since the last call."""
        carried, self.carried = self.carried, []
        return carried


class PresenceBench(Bench):
    """A pipeline and its presence service over a memory store, with alice, bob and carol at a.test.

    Routes lead to other domains; ``abroad`` stands for all their servers.
    """

    def __init__(
        self,
        store: Store | None = None,
        limits: PresenceLimits | None = None,
        clock: FakeClock | None = None,
        *,
        keeping: KeepingLimits | None = None,
        accounts: Iterable[str] = (),
        routes: Sequence[Route] = (),
    ) -> None:
        clock = clock or FakeClock()
        store = store or MemoryStore(StoreClock(lambda: clock.when().timestamp(), clock.now))
        super().__init__(store, clock=clock, routes=routes)
        if accounts:
            self.accounts = MemoryAccounts(list(accounts))
            self.pipeline.accounts = self.accounts
        self._limits, self._keeping = limits, keeping
        self.abroad = RecordingAbroad()
        self.presence = self._new_presence()
        self.sip, self.xmpp = RecordingEdge(self.clock), RecordingEdge(self.clock)
        self._ids = itertools.count(1)

    def _new_presence(self) -> AccountPresence:
        admit = self.pipeline.admit_subscription
        hop = self.pipeline.routes.hop
        self.pipeline.presence = presence = AccountPresence(
            self.store, self.accounts, self.clock, admit, hop=hop, limits=self._limits, keeping=self._keeping
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
        for name in ("sip", "xmpp"):
            self.presence.attach_abroad(name, self.abroad)

    async def crash(self) -> None:
        """The process ends at once and another one starts over the same store; edges and clock stay."""
        self.presence.stop()
        self.presence = self._new_presence()
        await self._start_presence()
        await settle()

    def peer(self, domain: str, binding: str = "xmpp") -> Origin:
        """Another domain's server."""
        principal = Address("im", "", domain)
        return Origin(principal, binding, "192.0.2.1", True, domains=frozenset({domain}))

    def hear(
        self,
        account: str,
        presentity: str,
        word: str = "available",
        note: str = "",
        *,
        key: str = "desk",
        lease: int | None = None,
    ) -> Response | None:
        """Another domain tells an account how one of its people is; ``word`` "": of that device nothing more."""
        who, whom = Address.parse(account), Address.parse(presentity)
        statement = Statement(self.document(presentity, word, note, key or "all"), keeps_ids=True) if word else None
        return self.presence.heard(who, whom, statement, self.peer(whom.domain), key=key, lease=lease)

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

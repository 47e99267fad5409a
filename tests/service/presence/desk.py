"""What accounts decide and keep, without a presence service above it: edges that write down what they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Response, SubscribeOperation
from comity.service.interfaces import Origin, Store
from comity.service.presence.interfaces import (
    Ask,
    ContactItem,
    Content,
    Decision,
    Subscription,
    Terms,
)
from comity.service.presence.keeping import Keeping, KeepingLimits
from comity.service.presence.pairs import state_of
from comity.service.presence.states import State
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import MemoryAccounts

ALICE, BOB, CAROL = (Address.parse(f"im:{name}@a.test") for name in ("alice", "bob", "carol"))
DAVE = Address.parse("im:dave@b.test")
NOBODY = Address.parse("im:nobody@a.test")


def by(account: Address, *, domains: frozenset[str] = frozenset()) -> Origin:
    """A session of the account."""
    return Origin(account, "xmpp", "192.0.2.1", True, domains=domains)


def asking(watcher: Address, target: Address) -> SubscribeOperation:
    """A request of the watcher."""
    return SubscribeOperation(watcher.with_scheme("pres"), target.with_scheme("pres"), "sub-1", "t1", 3600)


@dataclass
class Told:
    """An edge that writes down what it is told of, in order."""

    said: list[tuple[str, str, str]] = field(default_factory=list)
    """(what, whose devices, about whom)."""
    items: list[ContactItem] = field(default_factory=list)

    def _say(self, what: str, item: ContactItem) -> None:
        self.said.append((what, item.account.local, item.contact.local))
        self.items.append(item)

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """Nothing subscribes here."""

    def pending(self, subscription: Subscription) -> None:
        """Nothing subscribes here."""

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """Nothing subscribes here."""

    def asked(self, item: ContactItem) -> None:
        """A request."""
        self._say("asked", item)

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """An answer."""
        self._say("granted" if is_granted else "refused", item)

    def withdrew(self, item: ContactItem) -> None:
        """A withdrawal."""
        self._say("withdrew", item)

    def contact_changed(self, item: ContactItem) -> None:
        """A push of the list."""
        self._say("changed" if item.is_listed else "removed", item)

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """A push of the blocking list."""
        gone = "all" if unblocked is None else " ".join(map(str, unblocked))
        self.said.append(("blocked", account.local, f"+{' '.join(map(str, blocked))} -{gone}"))

    def directed(self, operation: NotifyOperation) -> None:
        """Nothing is directed here."""


class Desk:
    """Alice, Bob and Carol of a.test, and Dave of b.test."""

    def __init__(self, store: Store | None = None, limits: KeepingLimits | None = None) -> None:
        self.clock = FakeClock()
        self.store = store or MemoryStore()
        self.accounts = MemoryAccounts([address.uri for address in (ALICE, BOB, CAROL, DAVE)])
        self.told = Told()
        self.judged: list[tuple[str, str]] = []
        """What ``reconsider`` was called with, "" for everybody."""
        self.keeping = Keeping(self.store, self.accounts, self.clock.when, self._reconsider, limits=limits)
        self.keeping.edges.attach("xmpp", self.told)
        self.decisions, self.contacts = self.keeping.decisions, self.keeping.contacts
        self.documents, self.access = self.keeping.documents, self.keeping.access

    async def start(self) -> Desk:
        """Take up what is stored."""
        await self.keeping.start()
        return self

    def _reconsider(self, account: Address, watcher: Address | None) -> None:
        self.judged.append((account.local, "" if watcher is None else watcher.local))

    async def ask(self, watcher: Address, target: Address, text: str = "") -> Response | None:
        """The watcher asks."""
        terms = Terms("xmpp", text=text, native_protocol="xmpp", native=b"<presence/>")
        return await self.decisions.ask(asking(watcher, target), by(watcher), terms)

    async def withdraw(self, watcher: Address, target: Address) -> Response | None:
        """The watcher no longer wants to."""
        return await self.decisions.withdraw(asking(watcher, target), by(watcher))

    async def answer(self, account: Address, watcher: Address, decision: Decision) -> ContactItem:
        """The account decides, and that has to work."""
        item = await self.decisions.answer(account, watcher, decision, by(account))
        assert isinstance(item, ContactItem), item
        return item

    async def state(self, account: Address, contact: Address) -> State:
        """Where the account's half stands."""
        return state_of(await self.contacts.item(account, contact))

    async def states(self, one: Address, other: Address) -> tuple[State, State]:
        """Where both halves stand."""
        return await self.state(one, other), await self.state(other, one)

    def heard(self) -> list[tuple[str, str, str]]:
        """What the edges were told since the last look."""
        said, self.told.said = self.told.said, []
        return said

    async def ask_of(self, account: Address, watcher: Address) -> Ask | None:
        """The request that waits."""
        return (await self.contacts.item(account, watcher)).ask

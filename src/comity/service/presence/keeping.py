"""What accounts decide and keep, put together: for ``service.py`` in the running server, for ``admin`` where none runs.

Place on the path: the composition of ``relations``, ``blocks``, ``documents``, ``entries``, ``access``, ``pairs``, ``decisions``, ``contacts``, ``inbox`` and ``rights``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from comity.cpim.address import Address
from comity.service.interfaces import Accounts, Store
from comity.service.presence.access import RULES, Access, Reconsider
from comity.service.presence.blocks import Blocks
from comity.service.presence.contacts import ContactBook
from comity.service.presence.decisions import Decisions
from comity.service.presence.documents import DocumentLimits, DocumentStore
from comity.service.presence.edges import Edges
from comity.service.presence.entries import ENTRIES, Entries
from comity.service.presence.inbox import Inbox
from comity.service.presence.interfaces import Default
from comity.service.presence.pairs import ListLimits, Pairs
from comity.service.presence.relations import SPACE, Relations, row_key
from comity.service.presence.rights import AccountRights


@dataclass(frozen=True, slots=True)
class KeepingLimits:
    """What the operator configured."""

    default: Default = Default.ASK
    """[policy] presence_default."""
    lists: ListLimits = field(default_factory=ListLimits)
    documents: DocumentLimits = field(default_factory=DocumentLimits)


class Keeping:
    """All parts, wired.

    Args:
        store: where everything is kept.
        accounts: who is one of ours.
        when: aware UTC now (``Clock.when``).
        reconsider: called after each change of what a watcher may see, durable and not yet answered.
        limits: what the operator configured.
        edges: the attached bindings.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        when: Callable[[], datetime],
        reconsider: Reconsider,
        *,
        limits: KeepingLimits | None = None,
        edges: Edges | None = None,
    ) -> None:
        limits = limits or KeepingLimits()
        self._store = store
        self.edges = edges or Edges()
        self.relations = Relations(store)
        self.blocks = Blocks(store)
        self.documents = DocumentStore(store, limits.documents)
        self.entries = Entries(store, self.documents, accounts, when)
        self.access = Access(
            self.relations,
            self.blocks,
            self.documents,
            self.entries,
            default=limits.default,
            reconsider=reconsider,
        )
        self.inbox = Inbox(self.relations, self.blocks, self.documents, self.access, self.entries)
        self.rights = AccountRights(self.access, self.inbox, self.entries, self.blocks, when)
        self.documents.changed = self._document_changed
        self.pairs = Pairs(
            self.relations,
            self.access,
            self.blocks,
            self.edges,
            accounts=accounts,
            when=when,
            reconsider=reconsider,
            limits=limits.lists,
        )
        self.decisions = Decisions(
            self.relations, self.pairs, self.access, self.blocks, accounts=accounts, reconsider=reconsider
        )
        self.contacts = ContactBook(
            self.relations, self.pairs, self.blocks, self.edges, access=self.access, reconsider=reconsider
        )

    async def start(self) -> None:
        """Take up what has to be in memory, and finish what a stop cut in two; call before anything listens. Raises StoreError."""
        await self.blocks.load()
        await self.entries.load()
        await self.inbox.load()
        await self.pairs.recover()

    async def _document_changed(self, account: Address, name: str, octets: bytes | None) -> None:
        self.access.document_changed(account, name, octets)
        if name in (RULES, ENTRIES):
            await self.pairs.settle(account)

    async def remove(self, account: Address) -> None:
        """Remove what an account kept, and what others kept about it: a later owner of its name is somebody else. Raises StoreError."""
        for key, _ in await self._store.scan("account"):
            other = Address.parse(key)
            if other.key != account.key and await self._store.get(SPACE, row_key(other, account)) is not None:
                await self.pairs.part(other, account)
        await self.entries.part(account)
        items = list((await self.relations.load(account)).items.values())
        await self.relations.clear(account)
        await self.pairs.leave(items)
        await self.blocks.change(account, (), None)
        await self.documents.clear(account)

"""Contact lists, as people edit them (``Contacts`` of interfaces.py): one per account, whatever protocol it is edited by.

Place on the path: beside it, over ``relations.py`` (where the rows are), ``pairs.py`` (what removing one ends) and ``blocks.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, failure
from comity.service.interfaces import Origin
from comity.service.presence.access import Access, Reconsider
from comity.service.presence.blocks import Blocks
from comity.service.presence.decisions import is_owner
from comity.service.presence.edges import Edges
from comity.service.presence.interfaces import ContactItem, Decision, Roster
from comity.service.presence.pairs import Pairs
from comity.service.presence.relations import Book, Relations
from comity.service.presence.states import Act

MOST_NAME = 1023
"""Octets of a name or a group."""
MOST_GROUPS = 64
MOST_TEXT = 8192
"""Octets of a name and its groups together: a full contact list is 16 MB at most, and not 130."""

_NOT_OWNER = "A contact list is its account's own."


class ContactBook:
    """See ``Contacts``; every method raises StoreError when the store fails.

    Args:
        relations: the rows.
        pairs: what moves both halves of a pair.
        blocks: the blocking lists.
        edges: the bindings, told of every change.
        access: what the account decided.
        reconsider: called when what a watcher may see may have changed.
    """

    def __init__(
        self,
        relations: Relations,
        pairs: Pairs,
        blocks: Blocks,
        edges: Edges,
        *,
        access: Access,
        reconsider: Reconsider,
    ) -> None:
        self._relations = relations
        self._pairs = pairs
        self._access = access
        self._blocks = blocks
        self._edges = edges
        self._reconsider = reconsider

    async def roster(self, account: Address) -> Roster:
        """See ``Contacts.roster``."""
        book = await self._relations.load(account)
        return Roster(book.version, tuple(book.listed()))

    async def roster_since(self, account: Address, version: int) -> Roster | None:
        """See ``Contacts.roster_since``."""
        book = await self._relations.load(account)
        if not book.floor <= version <= book.version:
            return None
        changed = [
            book.items[key]
            for key in sorted(book.items)
            if book.items[key].version > version and (book.items[key].is_listed or key in book.was_listed)
        ]
        return Roster(book.version, tuple(changed))

    async def item(self, account: Address, contact: Address) -> ContactItem:
        """See ``Contacts.item``."""
        return (await self._relations.load(account)).item(contact)

    async def requests(self, account: Address) -> Sequence[ContactItem]:
        """See ``Contacts.requests``."""
        book = await self._relations.load(account)
        waiting = [(item.ask.when, item.contact.key, item) for item in book.items.values() if item.ask is not None]
        return [item for _, _, item in sorted(waiting, key=lambda row: row[:2])]

    # --- edit ----------------------------------------------------------------------------------------------------

    async def put(
        self, account: Address, contact: Address, name: str, groups: Sequence[str], origin: Origin
    ) -> ContactItem | Response:
        """See ``Contacts.put``."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, _NOT_OWNER)
        if fault := _fault(account, contact, name, groups):
            return failure("", Reason.SYNTAX, fault)

        def change(item: ContactItem, _: Book) -> ContactItem:
            return replace(item, is_listed=True, name=name, groups=tuple(groups))

        item = await self._pairs.update(account, contact, change)
        if isinstance(item, ContactItem) and item.ask is not None:
            await self._pairs.settle(account, is_owed=False)  # its contacts may be let in by its default
            return await self.item(account, contact)
        return item

    async def remove(self, account: Address, contact: Address, origin: Origin) -> bool | Response:
        """See ``Contacts.remove``. What was decided against the contact stays decided."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, _NOT_OWNER)
        item = (await self._relations.load(account)).item(contact)
        is_granted = item.decision is Decision.ALLOWED or item.is_preapproved
        if not (item.is_listed or is_granted or item.asks or item.sees):
            return False
        acts = [*([Act.UNSUBSCRIBE] if item.asks or item.sees else []), *([Act.UNSUBSCRIBED] if is_granted else [])]
        await self._pairs.act(account, contact, *acts, finish=lambda _, after: _unlisted(after))
        return True

    # --- blocking ------------------------------------------------------------------------------------------------

    async def blocked(self, account: Address) -> Sequence[Address]:
        """See ``Contacts.blocked``: sorted by address."""
        return self._blocks.of(account)

    async def block(self, account: Address, contacts: Sequence[Address], origin: Origin) -> Response | None:
        """See ``Contacts.block``."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, "A blocking list is its account's own.")
        if any(contact.key == account.key for contact in contacts):
            return failure("", Reason.SYNTAX, "An account cannot block itself.")
        if len({*map(str, self._blocks.of(account)), *map(str, contacts)}) > self._pairs.limits.blocked:
            return failure("", Reason.QUOTA, f"A blocking list has at most {self._pairs.limits.blocked} entries.")
        await self._access.load(account)  # so that it can be judged before this is answered (G9)
        await self._blocks.change(account, contacts, ())
        await self._judge_anew(account, contacts)
        self._edges.blocklist_changed(account, contacts, ())
        return None

    async def unblock(self, account: Address, contacts: Sequence[Address] | None, origin: Origin) -> Response | None:
        """See ``Contacts.unblock``."""
        if not is_owner(account, origin):
            return failure("", Reason.DENIED, "A blocking list is its account's own.")
        concerned = self._blocks.of(account) if contacts is None else contacts
        await self._blocks.change(account, (), contacts)
        await self._judge_anew(account, concerned)
        self._edges.blocklist_changed(account, (), contacts)
        return None

    async def _judge_anew(self, account: Address, contacts: Sequence[Address]) -> None:
        """What they see of the account, and it of them, changed."""
        book = await self._relations.load(account)
        domains = {contact.domain for contact in contacts if not contact.local}
        people = {contact for contact in contacts if contact.local}
        people |= {item.contact for item in book.items.values() if item.sees and item.contact.domain in domains}
        if domains:
            self._reconsider(account, None)
        for contact in people:
            self._reconsider(account, contact)
            self._reconsider(contact, account)

    def is_blocked(self, account: Address, other: Address) -> bool:
        """See ``Contacts.is_blocked``."""
        return self._blocks.is_blocked(account, other)


def _fault(account: Address, contact: Address, name: str, groups: Sequence[str]) -> str:
    """What is wrong with an entry, "" for nothing (RFC 6121 section 2.3.3)."""
    if contact.key == account.key:
        return "An account is not in its own contact list."
    if any(len(text.encode("utf-8", "replace")) > MOST_NAME for text in (name, *groups)):
        return f"A name or a group has at most {MOST_NAME} octets."
    if sum(len(text.encode("utf-8", "replace")) for text in (name, *groups)) > MOST_TEXT:
        return f"A name and its groups have at most {MOST_TEXT} octets together."
    if not all(groups):
        return "A group has no name."
    if len(set(groups)) != len(groups):
        return "A group stands twice."
    return f"A contact is in at most {MOST_GROUPS} groups." if len(groups) > MOST_GROUPS else ""


def _unlisted(item: ContactItem) -> ContactItem:
    return replace(item, is_listed=False, name="", groups=())

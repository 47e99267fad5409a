"""The access entries of all accounts (RFC 3341): as they were set, durable, and whole in memory, because messages ask for them.

Place on the path: step 5, under ``access.py`` and ``inbox.py``, which say what an entry is worth beside decisions and rules. An
account's entries are a document of it, ``apex-access/index``; which accounts have one stands in space "relation" as
``entries/ACCOUNT``, written before the document and removed after it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from weakref import WeakValueDictionary

import msgspec

from comity.cpim.access_entries import (
    MOST_ACTIONS,
    AccessEntry,
    Actor,
    Match,
    best,
    default_entries,
    is_action,
    is_service,
    key_of,
)
from comity.cpim.address import Address
from comity.cpim.header import read_timestamp
from comity.cpim.operations import Reason, Response, failure
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Accounts, Delete, Op, Origin, Put, Store
from comity.service.presence.documents import DocumentStore
from comity.service.presence.relations import SPACE, read_key, settle_key

log = logging.getLogger(__name__)

ENTRIES: Final = "apex-access/index"
"""Name of the document."""
TYPE: Final = "application/json"
MOST: Final = 200
"""Entries of one account, all its subaddresses together: a search reads nothing of them, memory keeps all."""
MOST_OCTETS: Final = 48 * 1024
"""Of the document."""
MOST_RESOURCE: Final = 1023
_PREFIX: Final = "entries/"
_STEP: Final = timedelta(milliseconds=1)


class _Stored(msgspec.Struct):
    actor: str
    actions: tuple[str, ...]
    last_update: str
    resource: str = ""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(list[_Stored])

_Table = dict[str, dict[str, AccessEntry]]
"""Of one account: by subaddress of the owner, by key of the actor."""


class Entries:
    """Keeps them.

    Args:
        store: says which accounts have any.
        documents: where they are.
        accounts: whose users are named without regard to case.
        when: aware UTC now.
    """

    def __init__(
        self, store: Store, documents: DocumentStore, accounts: Accounts, when: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._documents = documents
        self.accounts = accounts
        self._when = when
        self._tables: dict[str, _Table] = {}
        """By account; only those with entries."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        documents.beside[ENTRIES] = _mark
        documents.readers[ENTRIES] = _read_document

    async def load(self) -> None:
        """Take up what is stored; call before anything listens. Raises StoreError: entries that cannot be read are no lack of any."""
        for key, _ in await self._store.scan(SPACE, _PREFIX):
            account = read_key(key.removeprefix(_PREFIX))
            document = await self._documents.get(account, ENTRIES)
            self.take(account, None if document is None else document.octets)

    def take(self, account: Address, octets: bytes | None) -> None:
        """The account's entries are these now, durably."""
        table: _Table = {}
        try:
            for entry in [] if octets is None else _unpacked(octets):
                table.setdefault(entry.resource, {})[self._key(entry.actor)] = entry
        except (
            AddressError
        ) as error:  # it was read when it was set: the store is damaged, or it is from another version
            raise StoreError(f"the stored access entries of {account} cannot be read: {error}") from error
        if table:
            self._tables[account.key] = table
        else:
            self._tables.pop(account.key, None)

    # --- read ----------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True if nobody has entries."""
        return not self._tables

    def match(self, owner: Address, resource: str, actor: Address, actor_resource: str = "") -> Match | None:
        """The entry that counts, None if the owner set none for such an actor (but for services there are defaults).

        Entries of the owner's subaddress come first; where none of them matches, those of the owner itself hold.
        """
        table = self._tables.get(owner.key)
        if table is None and not is_service(actor):
            return None  # at one look, for nearly every message
        table = table or {}
        if resource and (own := table.get(resource)):
            found = best(own, owner, actor, actor_resource, has_defaults=False)
            if found is not None:
                return found
        return best(table.get("", {}), owner, actor, actor_resource)

    def find(self, owner: Address, resource: str, actor: str) -> AccessEntry | None:
        """The entry of exactly this actor: one that was set, or a default. Raises AddressError."""
        key = self._key(actor)
        found = self._tables.get(owner.key, {}).get(resource, {}).get(key)
        if found is None and (default := default_entries(owner).get(key)) is not None:
            found = replace(default, resource=resource)
        return found

    def _key(self, actor: str) -> str:
        return key_of(actor, self.accounts.serves)

    # --- change --------------------------------------------------------------------------------------------------

    async def change(
        self, owner: Address, resource: str, actor: str, actions: tuple[str, ...] | None, last_update: str
    ) -> AccessEntry | Response:
        """See ``Rights.set_entry``. Raises StoreError."""
        refusal = self._check(owner, resource, actor, actions)
        if refusal is not None:
            return refusal
        lock = self._locks.setdefault(owner.key, asyncio.Lock())
        async with lock:
            return await self._change(owner, resource, actor, actions, last_update)

    async def _change(
        self, owner: Address, resource: str, actor: str, actions: tuple[str, ...] | None, last_update: str
    ) -> AccessEntry | Response:
        key = self._key(actor)
        table = {name: dict(entries) for name, entries in self._tables.get(owner.key, {}).items()}
        entries = table.setdefault(resource, {})
        before = entries.get(key)
        if not _is_meant(before, last_update):
            return failure("", Reason.NO_PUBLICATION, "The entry is not the one that was meant: get it again.")
        if actions is None:
            if before is None:
                return failure("", Reason.NO_PUBLICATION, "There is no such entry.")
            del entries[key]
            after = replace(before, actions=())
        else:
            after = AccessEntry(resource, actor, actions, self._moment(before))
            entries[key] = after
        refused = await self._keep(owner, [entry for each in table.values() for entry in each.values()])
        return refused or after

    async def part(self, gone: Address) -> None:
        """Forget what was set about one who is removed: a later owner of the name is somebody else. Raises StoreError."""

        def is_about(entry: AccessEntry) -> bool:
            return Actor.parse(entry.actor).folded().is_of(gone)

        for key in list(self._tables):
            owner = read_key(key)
            async with self._locks.setdefault(key, asyncio.Lock()):
                entries = [one for table in self._tables.get(key, {}).values() for one in table.values()]
                kept = [entry for entry in entries if not is_about(entry)]
                if len(kept) < len(entries) and (refused := await self._keep(owner, kept)) is not None:
                    # Only if the operator lowered a limit meanwhile: nobody's removal may depend on that.
                    log.error("an access entry of %s about %s cannot be removed: %s", owner, gone, refused.text)

    async def _keep(self, owner: Address, entries: Sequence[AccessEntry]) -> Response | None:
        by_owner = Origin(owner, "comity", "", True)
        if not entries:
            gone = await self._documents.delete(owner, ENTRIES, by_owner)
            return gone if isinstance(gone, Response) else None
        kept = await self._documents.put(owner, ENTRIES, TYPE, _packed(entries), by_owner)
        return kept if isinstance(kept, Response) else None

    def _check(self, owner: Address, resource: str, actor: str, actions: tuple[str, ...] | None) -> Response | None:
        try:
            parsed = Actor.parse(actor)
        except AddressError as error:
            return failure("", Reason.SYNTAX, f"That is no actor: {error}.")
        if len(resource.encode("utf-8", "surrogatepass")) > MOST_RESOURCE:
            return failure("", Reason.SYNTAX, "The owner's subaddress is too long.")
        if actions is None:
            return None
        if not 0 < len(actions) <= MOST_ACTIONS or not all(is_action(action) for action in actions):
            return failure("", Reason.SYNTAX, f"Actions are 1 to {MOST_ACTIONS} of the form service:operation.")
        if parsed.folded().is_of(owner) and "all:all" not in actions:
            return failure("", Reason.DENIED, "An account cannot take anything away from itself.")
        return None

    def _moment(self, before: AccessEntry | None) -> str:
        """Now, and later than that of the entry it replaces (section 4.4 step 9.2)."""
        now = self._when()
        if before is not None and (last := read_timestamp(before.last_update)) is not None:
            now = max(now, last + _STEP)
        return now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _is_meant(before: AccessEntry | None, last_update: str) -> bool:
    """The moment, not its spelling, says whether an entry is the one that was got (section 4.4 step 7)."""
    if before is None or not last_update:
        return before is None and not last_update
    meant = read_timestamp(last_update)
    return meant is not None and meant == read_timestamp(before.last_update)


def _packed(entries: Iterable[AccessEntry]) -> bytes:
    return _encode([_Stored(one.actor, one.actions, one.last_update, one.resource) for one in entries])


def _unpacked(octets: bytes) -> list[AccessEntry]:
    try:
        return [AccessEntry(one.resource, one.actor, one.actions, one.last_update) for one in _decoder.decode(octets)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:  # whatever stands there
        raise StoreError(f"stored access entries cannot be read: {error}") from error


def _read_document(octets: bytes) -> Response | None:
    """A document is read before it is taken, and the one before it stands if it cannot be."""
    if len(octets) > MOST_OCTETS:
        return failure("", Reason.QUOTA, f"The access entries of an account have at most {MOST_OCTETS} octets.")
    try:
        entries = _unpacked(octets)
        for entry in entries:
            Actor.parse(entry.actor)
    except (StoreError, AddressError) as error:
        return failure("", Reason.SYNTAX, f"The access entries cannot be used: {error}.")
    if len(entries) > MOST:
        return failure("", Reason.QUOTA, f"An account has at most {MOST} access entries.")
    return None


def _mark(account: Address, octets: bytes | None) -> tuple[Sequence[Op], Sequence[Op]]:
    """What is committed before and after the document: who waits for an answer may have one now (``Pairs.settle``)."""
    key, settle = _PREFIX + account.key, Put(SPACE, settle_key(account), b"")
    return ([settle, Put(SPACE, key, b"")], ()) if octets is not None else ([settle], [Delete(SPACE, key)])

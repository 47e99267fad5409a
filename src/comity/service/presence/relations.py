"""What accounts keep about others, one durable row per other, and in memory while it is used.

Place on the path: under ``contacts.py``, ``pairs.py`` and ``access.py``. Space "relation" of the store: ``ACCOUNT/CONTACT`` is one
``ContactItem``, ``ACCOUNT/`` what the account keeps about itself. A change is one row, so it is made or not made; it is
durable before it is seen by anybody, and changes of one account come one after the other.

The version of an account's list is the greatest version of its rows. It rises with every change that the list shows, and begins
at the store's time, so that no later owner of an address uses a version again. A row that was in the list stays as a tombstone,
so that a device which was away learns of its removal; of those the oldest go, and ``floor`` says since when all is known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Delete, Op, Put, Store
from comity.service.presence.interfaces import Ask, ContactItem, Decision, Default

SPACE: Final = "relation"
SETTLE: Final = "settle/"
"""What its key begins with for an account whose waiting requests have to be looked at again, see ``settle_key``."""
MOST_ITEMS = 300_000
"""Rows kept in memory, some 100 MB at most: 500 contacts of 600 accounts that are there now."""
_BOOK = 2
"""What an account counts beside its rows: who asks about names at random fills no more than that."""
MOST_TOMBSTONES = 256
"""Removed entries remembered for each account, for devices that come back."""


class _StoredAsk(msgspec.Struct, array_like=True):
    when: float
    text: str
    native_protocol: str
    native: bytes
    proof: bytes = b""
    subscript_id: str = ""
    duration: int = 0


class _Stored(msgspec.Struct, array_like=True):
    version: int
    is_listed: bool
    was_listed: bool
    name: str
    groups: tuple[str, ...]
    asks: bool
    sees: bool
    decision: str
    is_preapproved: bool
    ask: _StoredAsk | None


class _StoredHead(msgspec.Struct, array_like=True):
    default: str | None = None
    floor: int = 0


_encode = msgspec.msgpack.Encoder().encode
_item_decoder = msgspec.msgpack.Decoder(_Stored)
_head_decoder = msgspec.msgpack.Decoder(_StoredHead)
_ask_decoder = msgspec.msgpack.Decoder(_StoredAsk)


@dataclass(slots=True)
class Book:
    """Everything one account keeps, as it stands in the store."""

    account: Address
    items: dict[str, ContactItem] = field(default_factory=dict)
    """By the contact's key, tombstones too."""
    was_listed: set[str] = field(default_factory=set)
    """Keys of what stood in the list and does no longer."""
    version: int = 0
    floor: int = 0
    """What changed before this version is not all known any more."""
    default: Default | None = None
    """None: as the operator configured."""
    uses: int = 0
    """Changes under way; it stays in memory meanwhile."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def item(self, contact: Address) -> ContactItem:
        """What is kept about ``contact``; an empty item if nothing is."""
        return self.items.get(contact.key) or ContactItem(self.account, contact)

    def listed(self) -> list[ContactItem]:
        """The contact list, sorted by address."""
        return [self.items[key] for key in sorted(self.items) if self.items[key].is_listed]


#: Makes the new item of the old one, or says why not; called while nobody else changes the account.
Change = Callable[[ContactItem, Book], ContactItem | Response]


class Relations:
    """The rows of all accounts.

    Args:
        store: where they are.
        most_items: rows kept in memory; the account used longest ago leaves first.
        most_tombstones: removed entries remembered for each account.
    """

    def __init__(self, store: Store, *, most_items: int = MOST_ITEMS, most_tombstones: int = MOST_TOMBSTONES) -> None:
        self.store = store
        self._most_items = most_items
        self._most_tombstones = most_tombstones
        self._books: OrderedDict[str, Book] = OrderedDict()
        self._items = 0
        self._loading: dict[str, asyncio.Future[Book]] = {}

    # --- read ----------------------------------------------------------------------------------------------------

    async def load(self, account: Address) -> Book:
        """The account's book. Raises StoreError."""
        book = self.loaded(account)
        if book is not None:
            return book
        loading = self._loading.get(account.key)
        if loading is None:
            loading = asyncio.ensure_future(self._read(account))
            self._loading[account.key] = loading
            loading.add_done_callback(lambda _: self._loading.pop(account.key, None))
        # Shielded: one caller that gives up must not take it from the others.
        return await asyncio.shield(loading)

    def loaded(self, account: Address) -> Book | None:
        """The account's book if it is in memory."""
        book = self._books.get(account.key)
        if book is not None:
            self._books.move_to_end(account.key)
        return book

    async def _read(self, account: Address) -> Book:
        book, prefix = Book(account), account.key + "/"
        for key, entry in await self.store.scan(SPACE, prefix):
            name = key.removeprefix(prefix)
            try:
                if name:
                    _take_row(book, read_key(name), _item_decoder.decode(entry.value))
                else:
                    head = _head_decoder.decode(entry.value)
                    book.default = None if head.default is None else Default(head.default)
                    book.floor = head.floor
            except (msgspec.MsgspecError, AddressError, ValueError) as error:
                # A decision that cannot be read must not count as none.
                raise StoreError(f"the stored relation {key} cannot be read: {error}") from error
        book.version = max(book.version, book.floor)
        self._books[account.key] = book
        self._items += len(book.items) + _BOOK
        self._forget_oldest(account.key)
        return book

    def _forget_oldest(self, except_key: str) -> None:
        for key, book in list(self._books.items()):
            if self._items <= self._most_items:
                return
            if key != except_key and not book.uses:
                del self._books[key]
                self._items -= len(book.items) + _BOOK

    # --- change --------------------------------------------------------------------------------------------------

    async def change(
        self, account: Address, contact: Address, change: Change, *, first: Iterable[Op] = (), then: Iterable[Op] = ()
    ) -> tuple[ContactItem, ContactItem] | Response:
        """Change what ``account`` keeps about ``contact``; durable when this returns. Raises StoreError.

        Args:
            account: whose row it is.
            contact: about whom.
            change: makes the new item; its version is set here.
            first: committed before the row, also if that does not change; looked at after ``change``.
            then: committed after it.

        Returns:
            The item before and after, or the refusal of ``change`` with nothing committed.
        """
        async with self._hold(account) as book:
            before = book.item(contact)
            after = change(before, book)
            if isinstance(after, Response):
                return after
            ops = [*first]
            if after != before:
                is_shown = shown(before) != shown(after)
                version = max(book.version + 1, int(self.store.time())) if is_shown else before.version
                after = replace(after, version=version)
                ops.append(self._op(book, before, after))
            ops += then
            if ops:
                await self.store.commit(ops)
            if after != before:
                self._take(book, after)
                await self._prune(book)
            return before, after

    async def set_default(self, account: Address, default: Default | None, *, first: Iterable[Op] = ()) -> None:
        """Keep the account's default, committed after ``first``; durable when this returns."""
        async with self._hold(account) as book:
            await self.store.commit([*first, _head(book, default, book.floor)])
            book.default = default

    async def clear(self, account: Address) -> None:
        """Remove all that the account keeps."""
        async with self._hold(account) as book:
            keys = [key for key, _ in await self.store.scan(SPACE, account.key + "/")]
            if keys:
                await self.store.commit([Delete(SPACE, key) for key in keys])
            self._items -= len(book.items) + _BOOK
            self._books.pop(account.key, None)
            book.items.clear()
            book.was_listed.clear()
            book.version, book.floor, book.default = 0, 0, None

    @contextlib.asynccontextmanager
    async def _hold(self, account: Address) -> AsyncIterator[Book]:
        while True:
            book = await self.load(account)
            book.uses += 1
            try:
                async with book.lock:
                    if self._books.get(account.key) is book:  # else it was cleared while this waited
                        yield book
                        return
            finally:
                book.uses -= 1

    def _op(self, book: Book, before: ContactItem, after: ContactItem) -> Op:
        key = row_key(after.account, after.contact)
        was_listed = before.is_listed or after.contact.key in book.was_listed
        if is_empty(after) and not was_listed:
            return Delete(SPACE, key)
        stored = _Stored(
            after.version,
            after.is_listed,
            was_listed and not after.is_listed,
            after.name,
            after.groups,
            after.asks,
            after.sees,
            after.decision.value,
            after.is_preapproved,
            stored_ask(after.ask),
        )
        return Put(SPACE, key, _encode(stored))

    def _take(self, book: Book, after: ContactItem) -> None:
        key = after.contact.key
        before = book.items.pop(key, None)
        was_listed = (before is not None and before.is_listed) or key in book.was_listed
        if is_empty(after) and not was_listed:
            self._items -= before is not None
        else:
            self._items += before is None
            book.items[key] = after
        if was_listed and not after.is_listed:
            book.was_listed.add(key)
        else:
            book.was_listed.discard(key)
        book.version = max(book.version, after.version)

    async def _prune(self, book: Book) -> None:
        """Forget the oldest tombstones, a quarter of them at a time."""
        dead = [item for key in book.was_listed if is_empty(item := book.items[key])]
        if len(dead) <= self._most_tombstones:
            return
        dead.sort(key=lambda item: item.version)
        gone = dead[: len(dead) - self._most_tombstones * 3 // 4]
        floor = max(book.floor, gone[-1].version)
        # The floor first: a stop in between must not leave a removal that nobody is told of.
        ops: list[Op] = [_head(book, book.default, floor)]
        await self.store.commit([*ops, *(Delete(SPACE, row_key(item.account, item.contact)) for item in gone)])
        book.floor = floor
        for item in gone:
            del book.items[item.contact.key]
            book.was_listed.discard(item.contact.key)
        self._items -= len(gone)


def is_empty(item: ContactItem) -> bool:
    """True if nothing is kept by it."""
    is_set = item.is_listed or item.asks or item.sees or item.is_preapproved or item.ask is not None
    return not is_set and item.decision is Decision.NONE


def shown(item: ContactItem) -> tuple[object, ...]:
    """What of an item its own devices see in the contact list."""
    if not item.is_listed:
        return ()
    is_from = item.decision is Decision.ALLOWED
    return (item.name, item.groups, item.asks, item.sees, is_from, item.is_preapproved)


def row_key(account: Address, contact: Address) -> str:
    """Key of an item in the store; a slash within an address is percent-encoded."""
    return f"{account.key}/{contact.key}"


def read_key(key: str) -> Address:
    """Read an address as ``Address.key`` wrote it, also one of a whole domain. Raises AddressError."""
    if key.startswith("im:@"):
        return Address("im", "", Address.parse("im:a" + key[3:]).domain)
    return Address.parse(key)


def settle_key(account: Address) -> str:
    """What says that ``Pairs.settle`` is still to be done for an account."""
    return SETTLE + account.key


def stored_ask(ask: Ask | None) -> _StoredAsk | None:
    """A request as a row holds it."""
    if ask is None:
        return None
    signed = ask.proof, ask.subscript_id, ask.duration
    return _StoredAsk(ask.when, ask.text, ask.native_protocol, ask.native, *signed)


def pack_ask(ask: Ask) -> bytes:
    """A request by itself."""
    return _encode(stored_ask(ask))


def unpack_ask(octets: bytes) -> Ask:
    """Read what ``pack_ask`` wrote. Raises StoreError."""
    try:
        return _ask(_ask_decoder.decode(octets))
    except msgspec.MsgspecError as error:
        raise StoreError(f"a stored request cannot be read: {error}") from error


def _ask(kept: _StoredAsk) -> Ask:
    signed = kept.proof, kept.subscript_id, kept.duration
    return Ask(kept.when, kept.text, kept.native_protocol, kept.native, *signed)


def _head(book: Book, default: Default | None, floor: int) -> Put:
    head = _StoredHead(None if default is None else default.value, floor)
    return Put(SPACE, book.account.key + "/", _encode(head))


def _take_row(book: Book, contact: Address, row: _Stored) -> None:
    ask = None if row.ask is None else _ask(row.ask)
    book.items[contact.key] = ContactItem(
        book.account,
        contact,
        row.is_listed,
        row.name,
        row.groups,
        row.asks,
        row.sees,
        Decision(row.decision),
        row.is_preapproved,
        ask,
        row.version,
    )
    if row.was_listed:
        book.was_listed.add(contact.key)
    book.version = max(book.version, row.version)

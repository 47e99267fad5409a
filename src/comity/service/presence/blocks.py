"""Who blocks whom (XEP-0191): durable, and whole in memory, because it is asked for every message and every notification.

Place on the path: step 5, under ``access.py`` and ``inbox.py``. Space "relation" of the store: ``blocked/ACCOUNT`` is one
account's whole list. A blocked address with an empty local part is a whole domain.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import msgspec

from comity.cpim.address import Address
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Delete, Put, Store
from comity.service.presence.relations import SPACE, read_key

log = logging.getLogger(__name__)

_PREFIX = "blocked/"
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(list[str])


class Blocks:
    """The blocking lists of all accounts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lists: dict[str, frozenset[str]] = {}
        """By the account's key; only those that block somebody."""
        self._lock = asyncio.Lock()

    async def load(self) -> None:
        """Take up what is stored; call before anything listens. Raises StoreError: a list that cannot be read is no empty one."""
        for key, entry in await self._store.scan(SPACE, _PREFIX):
            try:
                self._lists[key.removeprefix(_PREFIX)] = frozenset(_decoder.decode(entry.value))
            except msgspec.MsgspecError as error:
                raise StoreError(f"the stored blocking list {key} cannot be read: {error}") from error

    @property
    def is_idle(self) -> bool:
        """True if nobody blocks anybody."""
        return not self._lists

    def is_blocked(self, account: Address, other: Address) -> bool:
        """True if ``account`` blocks ``other`` or its whole domain."""
        kept = self._lists.get(account.key)
        return kept is not None and (other.key in kept or f"im:@{other.domain}" in kept)

    def of(self, account: Address) -> Sequence[Address]:
        """Whom ``account`` blocks, sorted."""
        addresses = []
        for key in sorted(self._lists.get(account.key, ())):
            try:
                addresses.append(read_key(key))
            except AddressError as error:  # a bad entry must not hide the others (F-POISON)
                log.error("an entry of the blocking list of %s cannot be read: %s", account, error)
        return addresses

    def count(self, account: Address) -> int:
        """How many ``account`` blocks."""
        return len(self._lists.get(account.key, ()))

    async def change(self, account: Address, add: Sequence[Address], remove: Sequence[Address] | None) -> None:
        """Block and unblock (None: all of them); durable when this returns. Raises StoreError."""
        async with self._lock:
            kept = self._lists.get(account.key, frozenset())
            left = frozenset() if remove is None else kept - {address.key for address in remove}
            keys = left | {address.key for address in add}
            if keys == kept:
                return
            key = _PREFIX + account.key
            await self._store.commit([Put(SPACE, key, _encode(sorted(keys))) if keys else Delete(SPACE, key)])
            if keys:
                self._lists[account.key] = keys
            else:
                self._lists.pop(account.key, None)

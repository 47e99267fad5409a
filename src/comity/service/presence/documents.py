"""Documents that accounts keep here, octet for octet (``Documents`` of interfaces.py).

Place on the path: beside it. Space "document" of the store: ``ACCOUNT/NAME``. The entity-tag is the row's revision, which the
store never uses twice, so a condition on it holds in the same act as the write. A document that means something to the
server is read before it is taken (``Reader``): what cannot be read is refused, and the one before it stands.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from comity.cpim.address import Address
from comity.cpim.operations import Reason, Response, failure
from comity.errors import StoreError
from comity.service.interfaces import Conflict, Delete, Done, Entry, Op, Origin, Put, Result, Store
from comity.service.presence.interfaces import StoredDocument

MOST_NAME = 1024
"""Octets of a name."""
MOST_REMEMBERED = 10_000
"""Accounts whose usage is remembered."""
LISTED: Final = frozenset({"apex-presence/index"})
"""Names of which it is known who has such a document (space "setting", ``holders/NAME/ACCOUNT``)."""

Reader = Callable[[bytes], Response | None]
"""Says why a document of its name cannot be taken; its Response has no trans_id."""
Beside = Callable[[Address, bytes | None], tuple[Sequence[Op], Sequence[Op]]]
"""(account, octets or None): what is committed together with a document of its name, before and after it."""
Changed = Callable[[Address, str, bytes | None], Awaitable[None]]
"""(account, name, octets or None): called when the change is durable, done before it is answered."""


@dataclass(frozen=True, slots=True)
class DocumentLimits:
    """Of each account ([limits] documents, document_octets)."""

    documents: int = 200
    octets: int = 2 * 1024 * 1024
    """Of all its documents together."""
    largest: int = 512 * 1024
    """Of one."""


class _Stored(msgspec.Struct, array_like=True):
    content_type: str
    octets: bytes


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Stored)


class DocumentStore:
    """See ``Documents``.

    Args:
        store: where they are.
        limits: of each account.
        readers: by name, what looks at a document before it is taken.
        changed: called for every change.
    """

    def __init__(
        self,
        store: Store,
        limits: DocumentLimits | None = None,
        readers: dict[str, Reader] | None = None,
        changed: Changed | None = None,
    ) -> None:
        self._store = store
        self._limits = limits or DocumentLimits()
        self.readers = readers if readers is not None else {}
        self.beside: dict[str, Beside] = {}
        self.changed: Changed = changed or _nothing
        self._usage: OrderedDict[str, dict[str, int]] = OrderedDict()
        """By account: octets of each document."""

    async def get(self, account: Address, name: str) -> StoredDocument | None:
        """See ``Documents.get``. Raises StoreError."""
        entry = await self._store.get("document", _key(account, name))
        return None if entry is None else _document(name, entry)

    async def names(self, account: Address, prefix: str = "") -> Sequence[str]:
        """See ``Documents.names``: sorted."""
        return sorted(name for name in await self._sizes(account) if name.startswith(prefix))

    async def put(
        self,
        account: Address,
        name: str,
        content_type: str,
        octets: bytes,
        origin: Origin,
        *,
        if_etag: str | None = None,
    ) -> StoredDocument | Response:
        """See ``Documents.put``."""
        sizes = await self._sizes(account)
        refusal = _check_owner(account, origin) or self._check(name, content_type, octets, sizes)
        if refusal is None and (reader := self.readers.get(name)) is not None:
            refusal = reader(octets)
        if refusal is not None:
            return refusal
        value = _encode(_Stored(content_type, octets))
        put = Put("document", _key(account, name), value, if_rev=_revision(if_etag))
        result = await self._commit(account, name, octets, put)
        if isinstance(result, Conflict):
            return _conflict(result)
        if not isinstance(result, Done):
            raise StoreError(f"the store answered a Put with {result}")
        sizes[name] = len(octets)
        await self.changed(account, name, octets)
        return StoredDocument(name, content_type, octets, str(result.rev))

    async def delete(
        self, account: Address, name: str, origin: Origin, *, if_etag: str | None = None
    ) -> bool | Response:
        """See ``Documents.delete``: False if there is none."""
        refusal = _check_owner(account, origin)
        if refusal is not None:
            return refusal
        sizes = await self._sizes(account)
        if name not in sizes:
            return _conflict(Conflict(0)) if if_etag else False
        result = await self._commit(account, name, None, Delete("document", _key(account, name), _revision(if_etag)))
        if isinstance(result, Conflict):
            return _conflict(result)
        sizes.pop(name, None)
        await self.changed(account, name, None)
        return True

    async def holders(self, name: str) -> Sequence[Address]:
        """See ``Documents.holders``. Raises StoreError."""
        prefix = _holder(name, "")
        return [Address.parse(key.removeprefix(prefix)) for key, _ in await self._store.scan("setting", prefix)]

    async def clear(self, account: Address) -> None:
        """Remove all of an account that is removed."""
        for name in [*await self._sizes(account)]:
            await self._commit(account, name, None, Delete("document", _key(account, name)))
            await self.changed(account, name, None)
        self._usage.pop(account.key, None)

    async def _commit(self, account: Address, name: str, octets: bytes | None, op: Op) -> Result:
        beside = self.beside.get(name)
        before, after = ((), ()) if beside is None else beside(account, octets)
        if name in LISTED:  # first: who is listed and has none is harmless, the other way round it is forgotten
            key = _holder(name, account.key)
            listing: Op = Delete("setting", key) if octets is None else Put("setting", key, b"")
            before, after = ((*before, listing), after) if octets is not None else (before, (*after, listing))
        results = await self._store.commit([*before, op, *after])
        return results[len(before)]

    def _check(self, name: str, content_type: str, octets: bytes, sizes: dict[str, int]) -> Response | None:
        limits = self._limits
        if not name or len(name.encode("utf-8", "replace")) > MOST_NAME or not name.isprintable():
            return failure("", Reason.SYNTAX, f"A document's name has 1 to {MOST_NAME} printable octets.")
        if not content_type.isprintable() or len(content_type) > MOST_NAME:
            return failure("", Reason.SYNTAX, "The document's type is no media type.")
        if len(octets) > limits.largest:
            return failure("", Reason.SIZE, f"A document has at most {limits.largest} octets.")
        if name not in sizes and len(sizes) >= limits.documents:
            return failure("", Reason.QUOTA, f"An account keeps at most {limits.documents} documents.")
        if sum(sizes.values()) - sizes.get(name, 0) + len(octets) > limits.octets:
            return failure("", Reason.QUOTA, f"The documents of an account have at most {limits.octets} octets.")
        return None

    async def _sizes(self, account: Address) -> dict[str, int]:
        if account.key not in self._usage:
            prefix = account.key + "/"
            rows = await self._store.scan("document", prefix)
            sizes = {key.removeprefix(prefix): len(_document(key, entry).octets) for key, entry in rows}
            self._usage.setdefault(account.key, sizes)  # another caller may have been quicker
            if len(self._usage) > MOST_REMEMBERED:
                self._usage.popitem(last=False)
        self._usage.move_to_end(account.key)
        return self._usage[account.key]


def _holder(name: str, account: str) -> str:
    return f"holders/{name}/{account}"


async def _nothing(account: Address, name: str, octets: bytes | None) -> None:
    """Nobody wants to know."""


def _key(account: Address, name: str) -> str:
    return f"{account.key}/{name}"


def _document(name: str, entry: Entry) -> StoredDocument:
    try:
        kept = _decoder.decode(entry.value)
    except msgspec.MsgspecError as error:
        raise StoreError(f"the stored document {name} cannot be read: {error}") from error
    return StoredDocument(name, kept.content_type, kept.octets, str(entry.rev))


def _revision(etag: str | None) -> int | None:
    """The revision an entity-tag stands for; -1, which none has, for one that was never given out."""
    if etag is None:
        return None
    if not etag:
        return 0
    return int(etag) if etag.isascii() and etag.isdigit() and len(etag) < 19 and etag != "0" else -1


def _conflict(conflict: Conflict) -> Response:
    text = "There is such a document already." if conflict.rev else "There is no such document."
    return failure("", Reason.NO_PUBLICATION, f"The document is not the one that was meant. {text}")


def _check_owner(account: Address, origin: Origin) -> Response | None:
    if origin.domains or origin.principal.with_scheme("im").key != account.key:
        return failure("", Reason.DENIED, "Only the account itself keeps documents here.")
    return None

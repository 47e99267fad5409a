"""Step 6's memory: which contact addresses a principal can be reached at now.

Durable contacts (SIP registrations) are written to the store before they count and come back after a restart;
the others live as long as their connection. A lease that ends removes its contact without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from comity.cpim.address import Address
from comity.errors import AddressError
from comity.service.interfaces import Clock, Conflict, Contact, Delete, Put, Store, Timer

log = logging.getLogger(__name__)


class _Stored(msgspec.Struct, array_like=True):
    id: str
    aor: str
    binding: str
    resource: str
    priority: int
    window: int
    expires: float | None
    data: bytes
    is_protected: bool = False


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Stored)

SWEEP_INTERVAL = 5.0
"""Seconds; a contact outlives its lease by no more than this."""

Listener = Callable[[Contact], None]


class ContactRegistrar:
    """Contacts by address-of-record; tells its listeners of every arrival, refresh and departure."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._by_aor: dict[str, dict[tuple[str, str], Contact]] = {}
        self._timer: Timer | None = None
        self.on_present: Listener = lambda contact: None
        """Called when a contact is added or refreshed."""
        self.on_absent: Listener = lambda contact: None
        """Called when a contact is removed or its lease ended."""

    async def load(self) -> None:
        """Bring back the durable contacts whose lease has not ended."""
        for key, entry in await self._store.scan("contact"):
            try:
                kept = _decoder.decode(entry.value)
                address = Address.parse(kept.aor)
            except (msgspec.MsgspecError, AddressError) as error:
                # One bad row must not keep the server down (F-POISON): the device registers anew within its lease.
                log.error("the stored contact %s cannot be read and is left out: %s", key, error)
                continue
            if kept.expires is None or kept.expires > self._store.time():
                self._keep(
                    Contact(
                        kept.id,
                        address,
                        kept.binding,
                        kept.resource,
                        kept.priority,
                        kept.window,
                        kept.expires,
                        True,
                        kept.data,
                        kept.is_protected,
                    )
                )
        self._arm()

    async def register(self, contact: Contact, lease: float | None) -> None:
        """Add or refresh a contact (see ``Registrar.register``)."""
        expires = None if lease is None else self._store.time() + lease
        contact = replace(contact, aor=contact.aor.folded(), expires=expires)
        if contact.is_durable:
            value = _encoder.encode(
                _Stored(
                    contact.id,
                    contact.aor.uri,
                    contact.binding,
                    contact.resource,
                    contact.priority,
                    contact.window,
                    expires,
                    contact.data,
                    contact.is_protected,
                )
            )
            await self._store.commit([Put("contact", _key(contact), value, ttl=lease)])
        self._keep(contact)
        self._arm()
        self.on_present(contact)

    async def unregister(self, aor: Address, binding: str, contact_id: str) -> None:
        """Remove a contact; a contact that is not there is no error."""
        contact = self._by_aor.get(aor.folded().key, {}).get((binding, contact_id))
        if contact is None:
            return
        if contact.is_durable:
            results = await self._store.commit([Delete("contact", _key(contact))])
            assert not isinstance(results[0], Conflict)
        self._drop(contact)

    def contacts(self, aor: Address) -> Sequence[Contact]:
        """Live contacts, best priority first."""
        kept = self._by_aor.get(aor.folded().key)
        if not kept:
            return ()
        return sorted(kept.values(), key=lambda contact: -contact.priority)

    def all_contacts(self) -> list[Contact]:
        """Every live contact, for the start."""
        return [contact for kept in self._by_aor.values() for contact in kept.values()]

    def count(self, binding: str = "") -> int:
        """How many contacts are live (of one binding, if named)."""
        return sum(1 for kept in self._by_aor.values() for name, _ in kept if not binding or name == binding)

    def _keep(self, contact: Contact) -> None:
        self._by_aor.setdefault(contact.aor.key, {})[contact.binding, contact.id] = contact

    def _drop(self, contact: Contact) -> None:
        kept = self._by_aor.get(contact.aor.key, {})
        present = kept.get((contact.binding, contact.id))
        if present is None:
            return
        del kept[contact.binding, contact.id]
        if not kept:
            del self._by_aor[contact.aor.key]
        self.on_absent(present)

    def _arm(self) -> None:
        """Sweep every few seconds while there is a contact with a lease."""
        if self._timer is None and any(c.expires is not None for kept in self._by_aor.values() for c in kept.values()):
            self._timer = self._clock.call_later(SWEEP_INTERVAL, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = self._store.time()
        ended = [
            c for kept in self._by_aor.values() for c in kept.values() if c.expires is not None and c.expires <= now
        ]
        for contact in ended:
            self._drop(contact)
        self._arm()


def _key(contact: Contact) -> str:
    return f"{contact.aor.key}/{contact.binding}/{contact.id}"

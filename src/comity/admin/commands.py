"""One typed function per administrative act, over the ``Store`` contract.

Place on the path: beside it. Whoever asks, the running server by its control socket or the command line by itself, ends in
``Commands.run`` with one of ``requests.py``. No act shows or returns a password, a key or the body of a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

import msgspec

from comity.admin.presence import ACTS, Act, PresenceDesk, iso, read_address
from comity.admin.requests import (
    Account,
    AccountPolicy,
    AddAccount,
    CommandRefused,
    DropMessage,
    Dropped,
    Lane,
    ListAccounts,
    ListQueues,
    RemoveAccount,
    Removed,
    Request,
    Retried,
    RetryQueue,
    SetPassword,
    SetPolicy,
    ShowQueue,
    Step,
    Trace,
    Waiting,
)
from comity.cpim.address import Address
from comity.cpim.operations import Requirement
from comity.cpim.protection import read_requirements
from comity.service.credentials import (
    ITERATIONS,
    BadRecord,
    address_key,
    derive_ha1,
    derive_scram,
    encode_ha1,
    encode_scram,
)
from comity.service.interfaces import Ack, Conflict, Delete, Found, Item, Op, Put, Store, Wake
from comity.service.protection import NO_RULE, SPACE_PREFIX, Look, Operations, Rule, pack_rule, unpack_rule
from comity.service.routing import RECEIPTS, inbox_lane

#: Names that would be taken for the server's own voice, or for nobody (RFC 3323 section 4.1.1.3).
RESERVED = frozenset({"comity", "anonymous", "contacts"})
RESERVED_START = "apex="
"""So begin the names of APEX services (RFC 3340 section 2.2)."""
#: What no XMPP localpart may hold (RFC 7622 section 3.3.1); the colon would also break a digest's HA1.
_FORBIDDEN_IN_LOCAL = frozenset(" \"&'/:<>@")
_PAGE = 500


class Records(Protocol):
    """Reads and writes what the service keeps beside a message; the store treats it as opaque."""

    def steps(self, found: Found) -> Sequence[Step]:
        """The path of one record, in order of time."""

    def dropped(self, when: datetime) -> bytes:
        """The outcome of a message that an operator ended."""


class PlainRecords:
    """``Records`` by the store's contract alone: one step, its outcome as far as it can be read as JSON."""

    def __init__(self, node: str) -> None:
        self._node = node

    def steps(self, found: Found) -> Sequence[Step]:
        """One step: when it was accepted, the lane it stands in, and how it ended."""
        outcome = "pending" if found.outcome is None else _outcome_text(found.outcome)
        return [Step(self._node, "", found.lane, iso(found.accepted), found.fingerprint, outcome)]

    def dropped(self, when: datetime) -> bytes:
        """A failure in words."""
        return msgspec.json.encode(
            {"status": "failure", "reason": "expired", "text": f"Dropped by the operator on {when:%Y-%m-%d %H:%M} UTC."}
        )


def _rule(request: SetPolicy) -> Rule:
    looks: dict[str, Look] = {"off": "off", "mark": "mark", "refuse": "refuse"}
    if request.verify not in looks:
        raise CommandRefused(f"{request.verify!r} is not known. There is: off, mark, refuse.", 2)
    kinds: dict[str, Operations] = {"any": "any", "signed": "signed"}
    if request.operations not in kinds:
        raise CommandRefused(f"{request.operations!r} is not known. There is: any, signed.", 2)
    try:
        require, require_from = read_requirements(request.require), read_requirements(request.require_from)
        return Rule(require, require_from, looks[request.verify], operations=kinds[request.operations])
    except ValueError as error:
        raise CommandRefused("What can be required is tls, signed and encrypted.", 2) from error


def _words(requirements: Iterable[Requirement]) -> list[str]:
    return sorted(requirement.value for requirement in requirements)


def _outcome_text(outcome: bytes) -> str:
    try:
        value = msgspec.json.decode(outcome)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return "ended"
    if isinstance(value, dict):
        return ": ".join(str(value[name]) for name in ("status", "reason", "text") if value.get(name)) or "ended"
    return str(value)


# --- the acts -----------------------------------------------------------------------------------------------------


class Commands:
    """The administrative acts on one store.

    Args:
        store: where accounts and queues are.
        domains: served domains, as in the configuration.
        records: what the service can say about a record.
        changed: called after an account was changed or removed, so that nothing old is used any more.
        woken: called for each lane to be tried now; the store's ``Wake`` tells other nodes.
        dropped: called with lane and number of a message that was ended, so that it is not delivered from memory.
        drop: ends a message and tells its sender; without it, no server runs and nobody is told.
        protected: called with an account's key and its new protection rule.
        presence: who may see whom, and what accounts keep.
        can_verify: the configuration names authorities to check signatures by.
        iterations: of SCRAM, for passwords set from now on.
    """

    def __init__(
        self,
        store: Store,
        domains: Sequence[str],
        records: Records,
        *,
        changed: Callable[[Address], None] | None = None,
        woken: Callable[[str], None] | None = None,
        dropped: Callable[[str, int], None] | None = None,
        drop: Callable[[Found], None] | None = None,
        protected: Callable[[str, Rule], None] | None = None,
        presence: PresenceDesk | None = None,
        can_verify: bool = False,
        iterations: int = ITERATIONS,
    ) -> None:
        self._store = store
        self._domains = tuple(domains)
        self._records = records
        self._changed = changed or (lambda address: None)
        self._woken = woken or (lambda lane: None)
        self._dropped = dropped or (lambda lane, seq: None)
        self._drop = drop
        self._protected = protected or (lambda key, rule: None)
        self._presence = presence
        self._can_verify = can_verify
        self._iterations = iterations
        self._lock = asyncio.Lock()
        """Acts that look first and write then come one after the other."""
        self._acts: dict[type[Request], Callable[[Any], Awaitable[object]]] = {
            AddAccount: self.add_account,
            SetPassword: self.set_password,
            RemoveAccount: self.remove_account,
            ListAccounts: self.list_accounts,
            SetPolicy: self.set_policy,
            Trace: self.trace,
            ListQueues: self.list_queues,
            ShowQueue: self.show_queue,
            RetryQueue: self.retry_queue,
            DropMessage: self.drop_message,
            **{kind: partial(self._about_presence, act) for kind, act in ACTS.items()},
        }

    async def run(self, request: Request) -> object:
        """Carry out one request and return its result.

        Raises:
            CommandRefused: the act was not carried out; the text says why and what to do.
            ComityError: the password may not be used (PasswordError), or the store failed (StoreError).
        """
        return await self._acts[type(request)](request)

    async def add_account(self, request: AddAccount) -> Account:
        """Make an account."""
        address = self._own_address(request.address)
        if address.local in RESERVED or address.local.startswith(RESERVED_START):
            raise CommandRefused(f"{address.local} is reserved for the server itself. Choose another name.", 2)
        ops = await asyncio.to_thread(_password_ops, address, request.password, self._iterations)
        async with self._lock:
            if await self._store.get("account", address_key(address)):
                raise CommandRefused(
                    f"{_shown(address)} exists already. "
                    f"Change its password with: comity account password {_shown(address)}"
                )
            created = iso(self._store.time())
            value = msgspec.json.encode(_Facts(created))
            # The account comes last: a stop in between leaves keys that nobody can use, not an account without.
            await self._store.commit([*ops, Put("account", address_key(address), value)])
        self._changed(address)
        return Account(_shown(address), created)

    async def set_password(self, request: SetPassword) -> Account:
        """Change the password of all protocols, or of SIP alone."""
        address = self._own_address(request.address)
        only = "ha1" if request.sip_only else ""
        ops = await asyncio.to_thread(_password_ops, address, request.password, self._iterations, only)
        async with self._lock:
            created = await self._created(address)
            value = msgspec.json.encode(_Facts(created, request.sip_only))
            await self._store.commit([*ops, Put("account", address_key(address), value)])
        self._changed(address)
        return Account(_shown(address), created, request.sip_only)

    async def remove_account(self, request: RemoveAccount) -> Removed:
        """Remove an account and everything that a later owner of the name must not get."""
        address = self._own_address(request.address)
        key = address_key(address)
        async with self._lock:
            await self._created(address)
            # Before the account: what a stop leaves of it can then still be removed. And after it, since it could still act.
            await self._forget_presence(address)
            contacts = [name for name, _ in await self._store.scan("contact", key + "/")]
            ops: list[Op] = [Delete("account", key), Delete("scram", key), Delete("ha1", key)]
            ops += [Delete("contact", name) for name in (key, *contacts)]
            has_rule = await self._store.get("setting", SPACE_PREFIX + key) is not None
            ops += [Delete("setting", SPACE_PREFIX + key)] if has_rule else []
            await self._store.commit(ops)
            if has_rule:
                self._protected(key, NO_RULE)
            self._changed(address)
            await self._forget_presence(address)
            dropped = await self._drop_lane(inbox_lane(key))
            for info in await self._store.lanes(RECEIPTS):
                if info.lane.endswith(f"/{key}"):
                    dropped += await self._drop_lane(info.lane)
        return Removed(_shown(address), dropped)

    async def list_accounts(self, request: ListAccounts) -> list[Account]:
        """List accounts, sorted by address."""
        wanted = request.of.removeprefix("im:").lower()
        accounts = []
        for key, entry in await self._store.scan("account"):
            address = key.removeprefix("im:")
            if wanted in ("", address.lower(), address.rpartition("@")[2].lower()):
                facts = _facts(entry.value)
                accounts.append(Account(address, facts.created, facts.own_sip_password))
        return accounts

    async def set_policy(self, request: SetPolicy) -> AccountPolicy:
        """Keep what an account asks for, durable before it counts, or show it."""
        address = self._own_address(request.address)
        key = address_key(address)
        name = SPACE_PREFIX + key
        async with self._lock:
            await self._created(address)
            if request.is_set:
                rule = _rule(request)
                if (rule.verify != "off" or rule.operations == "signed") and not self._can_verify:
                    text = "This server has no authorities to check signatures by. Name them in [security] trust first."
                    raise CommandRefused(text)
                op = Delete("setting", name) if rule == NO_RULE else Put("setting", name, pack_rule(rule))
                await self._store.commit([op])
                self._protected(key, rule)
            else:
                kept = await self._store.get("setting", name)
                rule = NO_RULE if kept is None else unpack_rule(kept.value, key)
        require, require_from = _words(rule.require), _words(rule.require_from)
        return AccountPolicy(_shown(address), require, require_from, rule.verify, rule.operations)

    async def trace(self, request: Trace) -> list[Step]:
        """Show the path of every record that ``name`` stands for."""
        found = await self._store.find(request.name)
        if not found:
            raise CommandRefused(
                f"No message is known by {request.name!r}. Give a spine ID, eight or more digits of a SHA-256, "
                "or the Call-ID or XMPP id; terminal messages are forgotten after their retention time."
            )
        return [step for record in found for step in self._records.steps(record)]

    async def list_queues(self, request: ListQueues) -> list[Lane]:
        """List lanes that hold waiting messages."""
        return [Lane(i.lane, i.pending, i.octets, iso(i.oldest)) for i in await self._store.lanes()]

    async def show_queue(self, request: ShowQueue) -> list[Waiting]:
        """Show what waits in one lane, in order."""
        if not 1 <= request.limit <= 10_000:
            raise CommandRefused("The number of messages to show is from 1 to 10000.", 2)
        items = await self._store.read(await self._lane(request.lane), request.limit)
        return [_waiting(item) for item in items]

    async def retry_queue(self, request: RetryQueue) -> Retried:
        """Wake one lane, or all."""
        if request.lane:
            lanes = [await self._lane(request.lane)]
        else:
            lanes = [info.lane for info in await self._store.lanes()]
        if lanes:
            await self._store.commit([Wake(lane) for lane in lanes])
        for lane in lanes:
            self._woken(lane)
        return Retried(lanes)

    async def drop_message(self, request: DropMessage) -> Dropped:
        """End one waiting message undelivered."""
        found = [record for record in await self._store.find(request.id) if record.outcome is None]
        if not found:
            raise CommandRefused(f"No waiting message has the ID {request.id!r}. See: comity queue show LANE")
        if len(found) > 1:
            raise CommandRefused(f"{len(found)} waiting messages fit {request.id!r}. Give the whole spine ID.", 2)
        record = found[0]
        if self._drop is not None:
            self._drop(record)
            await self._store.commit([Wake(record.lane)])  # durable when that is: calls are carried out in order
            return Dropped(record.id, record.lane)
        results = await self._store.commit([Ack(record.lane, record.seq, self._outcome())])
        if isinstance(results[0], Conflict):
            raise CommandRefused(f"{record.id} was delivered or ended in the meantime.")
        self._dropped(record.lane, record.seq)
        return Dropped(record.id, record.lane)

    async def _about_presence(self, act: Act, request: Any) -> object:
        """An act of ``presence.py``."""
        address = self._own_address(request.address)
        await self._created(address)
        if self._presence is None:
            raise CommandRefused("This server keeps no presence.")
        return await act(self._presence, address, request)

    async def _forget_presence(self, address: Address) -> None:
        if self._presence is not None:
            await self._presence.remove(address)

    # --- helpers --------------------------------------------------------------------------------------------------

    def _own_address(self, text: str) -> Address:
        address = read_address(text, f"alice@{self._domains[0]}")
        if not set(address.local).isdisjoint(_FORBIDDEN_IN_LOCAL) or not address.local.isprintable():
            raise CommandRefused(
                f"{text!r} holds a character that no account name may have: a space or \" & ' / : < > @", 2
            )
        if address.domain not in {Address.parse(f"im:a@{domain}").domain for domain in self._domains}:
            served = ", ".join(self._domains)
            raise CommandRefused(
                f"{address.domain} is not served here; this server has {served}. "
                "Add it to domains below [server], or correct the address.",
                2,
            )
        return address

    async def _created(self, address: Address) -> str:
        entry = await self._store.get("account", address_key(address))
        if entry is None:
            raise CommandRefused(f"There is no account {_shown(address)}. See: comity account list")
        return _facts(entry.value).created

    async def _lane(self, name: str) -> str:
        """The lane called ``name``; a bare address stands for its inbox."""
        lanes = [info.lane for info in await self._store.lanes()]
        inbox = f"inbox/im:{name.removeprefix('im:')}"
        for lane in (name, inbox):
            if lane in lanes:
                return lane
        raise CommandRefused(f"Nothing waits in {name!r}. See: comity queue list")

    async def _drop_lane(self, lane: str) -> int:
        dropped = 0
        while items := await self._store.read(lane, _PAGE):
            await self._store.commit([Ack(lane, item.seq, self._outcome()) for item in items])
            for item in items:
                self._dropped(lane, item.seq)
            dropped += len(items)
        return dropped

    def _outcome(self) -> bytes:
        return self._records.dropped(datetime.fromtimestamp(self._store.time(), UTC))


def _password_ops(address: Address, password: str, iterations: int, only: str = "") -> list[Op]:
    """Puts of the keys of a password; some 0.1 s of CPU, so it runs in a worker."""
    key = address_key(address)
    ops: list[Op] = [Put("ha1", key, encode_ha1(derive_ha1(address, password)))]
    if only != "ha1":
        ops.append(Put("scram", key, encode_scram(derive_scram(password, iterations))))
    return ops


class _Facts(msgspec.Struct, frozen=True):
    """Value of space "account"."""

    created: str = ""
    own_sip_password: bool = False


def _facts(value: bytes) -> _Facts:
    try:
        return msgspec.json.decode(value, type=_Facts)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRecord("an account's record cannot be read; remove the account and add it anew") from error


def _waiting(item: Item) -> Waiting:
    record = item.record
    return Waiting(record.id, iso(item.accepted), iso(record.expires), len(record.entity), record.fingerprint)


def _shown(address: Address) -> str:
    return address_key(address).removeprefix("im:")

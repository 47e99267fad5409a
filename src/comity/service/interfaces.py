"""What the service needs from outside, and what it offers to the bindings.

Place on the path: the seams of steps 5 to 7. ``store/`` implements ``Store``, each ``bindings/X/binding.py``
implements ``Deliverer`` and calls ``Service``, ``net/driver.py`` implements ``Clock``.

Store contract in one paragraph: one accept is **one record** (octets, envelope, dedup keys, place in its lane,
marks), appended atomically; queues, the dedup index and marks are projections that can be rebuilt from records.
Atomicity over several keys is promised only within one ``Add``. What ``commit`` resolved is durable. Readers
re-read unacknowledged rows, never "after the highest seen". Lease time is the store's clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Literal, Protocol

from comity.cpim.address import Address
from comity.cpim.names import Names
from comity.cpim.operations import MessageOperation, Response, SubscribeOperation
from comity.cpim.protection import Finding

if TYPE_CHECKING:
    from comity.service.presence.interfaces import PresenceService

# --- store -----------------------------------------------------------------------------------------------

Space = Literal["account", "scram", "ha1", "contact", "setting", "relation", "subscription", "document"]
"""Key-value spaces; password equivalents (HA1) and SCRAM keys live in separate ones (design.md section 4)."""

SPACES: tuple[Space, ...] = ("account", "scram", "ha1", "contact", "setting", "relation", "subscription", "document")


@dataclass(frozen=True, slots=True)
class Record:
    """One accepted message for one recipient."""

    id: str
    """Spine ID: UUIDv7 as text, unique."""
    lane: str
    """The queue it stands in: ``inbox/im:bob@b.test`` or ``hop/sip:trunk.example``."""
    entity: bytes
    """The object as a whole MIME entity (header block, empty line, octets), byte for byte."""
    envelope: bytes
    """Everything beside the object, encoded by the service; opaque to the store."""
    fingerprint: str
    """SHA-256 of the object's octets, hex."""
    expires: float
    """End of lifetime in store time (seconds since the epoch)."""
    dedup: tuple[str, ...] = ()
    """Keys of which each may be used once within its window."""


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value. ``if_rev``: None always, 0 only if the key is absent, n only if its revision is n."""

    space: Space
    key: str
    value: bytes
    ttl: float | None = None
    """Seconds until the key is gone by itself; None: stays."""
    if_rev: int | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    space: Space
    key: str
    if_rev: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """Set a named value, such as an XMPP stream's ``h``: ``get_mark`` reads it back."""

    name: str
    value: bytes
    after: bytes | None = None
    """Only if the value is this now: a chain of marks stops where a record of it was not taken. None: always."""


@dataclass(frozen=True, slots=True)
class Add:
    """Append one record to the end of its lane, with its dedup keys and marks, or none of it."""

    record: Record
    dedup_ttl: float = 72 * 3600.0
    quota: tuple[int, int] | None = None
    """(most pending records, most pending octets of entity) of the lane; above either: ``Full``."""
    marks: tuple[Mark, ...] = ()
    """Set with the record, each on its own condition; one that does not hold keeps nothing else back."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The record is terminal: it leaves its lane, its octets are dropped, ``outcome`` is kept for ``find``."""

    lane: str
    seq: int
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Wake:
    """Tell every ``watch`` of ``lane`` to look again; changes nothing."""

    lane: str


Op = Put | Delete | Add | Ack | Mark | Wake


@dataclass(frozen=True, slots=True)
class Done:
    """Carried out. ``rev``: the key's new revision, or the record's ``seq`` in its lane."""

    rev: int


@dataclass(frozen=True, slots=True)
class Conflict:
    """``if_rev`` did not hold (``rev`` is the present revision, 0 if absent), ``after`` did not hold, or the row to
    Ack is not pending."""

    rev: int


@dataclass(frozen=True, slots=True)
class Repeat:
    """A dedup key of the record was used within its window: nothing was written."""

    id: str
    """Spine ID of the record that holds the key."""
    lane: str
    outcome: bytes | None
    """None while that record is pending."""


@dataclass(frozen=True, slots=True)
class Full:
    """The lane's quota is reached: nothing was written."""


Result = Done | Conflict | Repeat | Full


@dataclass(frozen=True, slots=True)
class Entry:
    """One key's value and revision; revisions rise by one with each write and are never reused for the key."""

    value: bytes
    rev: int


@dataclass(frozen=True, slots=True)
class Item:
    """A pending record in its lane."""

    seq: int
    """Rises with every Add to the lane; never reused, also not after a restart."""
    accepted: float
    """Store time of the commit."""
    record: Record


@dataclass(frozen=True, slots=True)
class Found:
    """A record as ``find`` shows it: pending (outcome None) or terminal (kept until its trace retention ends)."""

    id: str
    lane: str
    seq: int
    accepted: float
    fingerprint: str
    envelope: bytes
    size: int
    outcome: bytes | None
    ended: float | None


@dataclass(frozen=True, slots=True)
class LaneInfo:
    lane: str
    pending: int
    octets: int
    oldest: float
    """Store time at which the first pending record was accepted."""


class Store(Protocol):
    """A durable store; every method may be called from the event loop's thread only."""

    def time(self) -> float:
        """The store's clock, seconds since the epoch."""

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        """Carry the operations out in order; resolves when all of them are durable, with one result each.

        A Conflict, Repeat or Full of one operation does not undo the others. Raises StoreError (through the
        future) when nothing of the call can be promised. Calls are carried out in the order they were made."""

    async def get(self, space: Space, key: str) -> Entry | None: ...

    async def scan(self, space: Space, prefix: str = "") -> list[tuple[str, Entry]]:
        """Keys of ``space`` that begin with ``prefix``, sorted."""

    async def read(self, lane: str, limit: int) -> list[Item]:
        """The first ``limit`` pending records of the lane, in order."""

    async def lanes(self, prefix: str = "") -> list[LaneInfo]:
        """Lanes that hold pending records, sorted by name."""

    async def find(self, name: str, limit: int = 100) -> list[Found]:
        """Records whose spine ID is ``name``, whose fingerprint begins with it (8 hex digits or more), or that
        hold it among their dedup keys; oldest first."""

    async def get_mark(self, name: str) -> bytes | None: ...

    async def expire(self, limit: int = 100) -> list[Item]:
        """Pending records past their lifetime, oldest first (the caller reports and Acks each); also removes
        keys, dedup entries and terminal records whose time is over."""

    def watch(self, prefix: str) -> AsyncIterator[str]:
        """Names of lanes under ``prefix`` that got a record or a Wake, also from other nodes."""

    async def close(self) -> None:
        """Finish what was committed and close; later calls raise StoreError."""


# --- time --------------------------------------------------------------------------------------------------


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    """Time as an argument: ``testing`` has one that is moved by hand."""

    def now(self) -> float:
        """Monotonic seconds."""

    def when(self) -> datetime:
        """Aware UTC datetime."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer: ...


# --- accounts and contact addresses --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScramKeys:
    """What the server keeps for one SCRAM hash (RFC 5802 section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What can prove an account's password; never the password."""

    address: Address
    scram: Mapping[str, ScramKeys] = field(default_factory=dict)
    """By hash name: "sha-1", "sha-256", "sha-512"."""
    ha1: Mapping[str, str] = field(default_factory=dict)
    """By digest algorithm: "MD5", "SHA-256"; lower-case hex of H(user:realm:password), realm = domain. Other spellings
    of the user name have values of their own: "MD5 Alice"."""


class Accounts(Protocol):
    """The server's own accounts."""

    async def credentials(self, address: Address) -> Credentials | None:
        """Credentials of a local account, None if there is none (the caller then does the same work with a dummy)."""

    def serves(self, domain: str) -> bool:
        """True if ``domain`` (any case, U- or A-label) is one of ours."""

    async def exists(self, address: Address) -> bool: ...

    def known(self, address: Address) -> bool | None:
        """Whether the account exists, as far as that is known without asking the store; None: ask ``exists``."""

    def guard(self) -> Guard:
        """The counter of failed sign-ins."""


class Guard(Protocol):
    """Counts failed sign-ins per remote address: 20 failures, then refused for an hour (reliability.md section 6.2)."""

    def is_banned(self, host: str) -> bool: ...

    def failed(self, host: str, address: Address | None) -> None: ...

    def succeeded(self, host: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Contact:
    """One contact address: where a principal's device can be reached now."""

    id: str
    """Unique for its aor and binding (SIP: instance or contact URI; XMPP: the resource)."""
    aor: Address
    binding: str
    resource: str = ""
    """XMPP resource or SIP gr: matched against ``Context.resource``."""
    priority: int = 0
    """-128 … 127; a negative one gets only what asks for its resource (RFC 6121 section 8.5)."""
    window: int = 1
    """Deliveries in flight at once; more than 1 only where the hop acknowledges in order."""
    expires: float | None = None
    """Store time at which the lease ends; None: lives as long as its connection."""
    is_durable: bool = False
    """True: kept in the store over a restart (SIP); False: ends with the process (XMPP)."""
    data: bytes = b""
    """What the binding needs to reach it, in the binding's own encoding."""
    is_protected: bool = False
    """True if the link it is reached by is under TLS; only such a one gets what must stay under TLS."""
    is_hop: bool = False
    """True for the next hop to another domain's users (``Routes``): it is always there, and takes what is for any of them."""
    confirms: bool = False
    """True where taking a message is the protocol's own word that it was delivered (APEX: statusResponse 250 says no more);
    elsewhere only a receipt of the device is (IMDN-9)."""


class Registrar(Protocol):
    """Address to live contact addresses."""

    async def register(self, contact: Contact, lease: float | None) -> None:
        """Add or refresh a contact; resolved when durable if ``contact.is_durable``. Pending messages follow."""

    async def unregister(self, aor: Address, binding: str, contact_id: str) -> None: ...

    def contacts(self, aor: Address) -> Sequence[Contact]:
        """Live contacts of ``aor``, best priority first."""


# --- a look at signatures ----------------------------------------------------------------------------------------


class Inspector(Protocol):
    """Looks at the signature of a message that passes, where a rule asks for it; ``secure`` has one."""

    def inspect(self, operation: MessageOperation, when: datetime) -> Finding:
        """Say what the object proves by the operator's anchors; bounded work, never raises for bad octets."""

    def inspect_operation(self, operation: SubscribeOperation, when: datetime) -> Finding:
        """Say whether the operation's proof holds, and remember it if so: it counts once. May be called in any thread."""


# --- other domains ---------------------------------------------------------------------------------------------


class Peers(Protocol):
    """Other servers, as they proved themselves; implemented by ``service/peers.py`` from ``[[peer]]`` and ``[tls] trust``."""

    def proved(self, host: str, names: Sequence[str]) -> frozenset[str]:
        """Domains that a connection speaks for, none of them ours; empty if it is no server known here.

        Args:
            host: the IP address at the other end; counts where a ``[[peer]]`` is known by its address.
            names: dNSName entries of the certificate it showed, verified by ``net``; their wildcards count for nothing.

        ``"*"`` among them: an intermediary trusted to speak for every domain but ours (RFC 3340 section 4.5.2)."""

    def asserts(self, host: str, names: Sequence[str]) -> bool:
        """Whether it is believed that a request's sender is whom P-Asserted-Identity names (RFC 3325); of a domain it speaks
        for all the same. The arguments are those of ``proved``."""


class Routes(Protocol):
    """Where messages to other domains go; implemented by ``service/routes.py`` from ``[[route]]``."""

    def hop(self, domain: str) -> Contact | None:
        """The next hop towards a domain that is not ours (A-labels): ``is_hop``, ``binding`` speaks with it, ``resource`` is the domain,
        ``data`` the ``[[route]] next_hop`` as UTF-8, "" to find it by DNS. None: that domain cannot be reached from here.

        A domain without a route, found by DNS, has the binding "dns", which is none: ``Service.find_hops`` says which it is."""

    def may_pass(self, source: str, domain: str) -> bool:
        """Whether a message from one foreign domain may pass through here to another (``[[route]] transit``)."""


class Maps(Protocol):
    """What people are called on a link where that differs from what they are called here; implemented by ``service/maps.py`` from
    ``[[route]] as`` and ``[[map]]``."""

    def towards(self, via: str, domain: str) -> Names:
        """The names on the link by which ``domain`` (ours for it, A-labels) is reached."""

    def of(self, via: str, domains: frozenset[str]) -> Names:
        """The names on a link whose other end proved to speak for ``domains`` (``Peers.proved``)."""


# --- the service as bindings see it ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Who hands an operation in, as the binding authenticated it."""

    principal: Address
    """The one sender this session may use; policy compares every sender field with it (C-20, S-06, X-46)."""
    binding: str
    host: str
    """The peer's IP address, for limits and logs; never shown to the recipient (SEC-37)."""
    is_protected: bool
    """True if the link the operation came by is under TLS."""
    dedup: tuple[str, ...] = ()
    """The edge's dedup key fields (reliability.md section 5.3), in order; the service hashes them with the
    principal, recipient and fingerprint. Empty: only the CPIM-level key applies."""
    marks: tuple[Mark, ...] = ()
    """Values to commit with the message, such as the stream's ``h``."""
    domains: frozenset[str] = frozenset()
    """Domains that a peer server proved to speak for (``Peers.proved``), as the core calls them (``Names.proved``); empty for a
    person's own session."""
    wire: tuple[Address, ...] = ()
    """What sender and recipient are called on the link, where that is not what the operation calls them; an object may name
    them by either (GW-4)."""

    def speaks_for(self, domain: str) -> bool:
        """True for a peer server's own domain; ask only about domains that are not ours."""
        return domain in self.domains or "*" in self.domains


@dataclass(frozen=True, slots=True)
class Accepted:
    """The operation is durable: "yes" may be said."""

    id: str
    """Spine ID."""
    outcome: asyncio.Future[Response]
    """The final response, when it is known; it stays pending while the message is stored."""
    is_repeat: bool = False
    """True if this was accepted before and nothing was written now, the ``marks`` neither."""


Follower = Callable[[MessageOperation, Origin, str], None]
"""Takes an operation, its origin and its spine ID."""


class Service(Protocol):
    """The service (RFC 3859 and 3860's word) as a binding calls it."""

    @property
    def accounts(self) -> Accounts: ...

    @property
    def registrar(self) -> Registrar: ...

    @property
    def peers(self) -> Peers: ...

    @property
    def routes(self) -> Routes: ...

    @property
    def maps(self) -> Maps: ...

    @property
    def clock(self) -> Clock: ...

    @property
    def presence(self) -> PresenceService | None:
        """Who is there and who may know it; None if the operator switched presence off (SEED-45)."""

    @property
    def node(self) -> str:
        """This node's name in history entries."""

    @property
    def is_first_life(self) -> bool:
        """True if no process before this one can have said yes to anything."""

    async def secret(self, name: str) -> bytes:
        """32 random octets that stay the same over restarts, made when first asked for."""

    def submit(self, operation: MessageOperation, origin: Origin) -> asyncio.Future[Accepted | Response]:
        """Admit, route and store a message operation.

        Resolves with ``Accepted`` once durable, or with a failure ``Response`` and nothing stored. Operations of
        one caller are stored in the order of the calls. A repeat of an accepted operation resolves like the first."""

    async def admit_subscription(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """The refusal of a subscribe or unsubscribe; None: nothing is against it, whoever may carry it out.

        Refused is what is not the watcher's own (SEC-31 to SEC-33), and what comes with a proof that does not hold, or without
        one where the presentity's rule demands it (SEC-34). Whether there is a presentity is not looked at (T17)."""

    def has_left(self, fingerprint: str) -> bool:
        """True if an object of these octets left for another domain lately, sent by a user of ours: in a peer's hands it came back."""

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` with every operation from now on that is accepted anew, after "yes" is durable."""

    def reached(self, operation: MessageOperation) -> Sequence[Contact]:
        """The contacts an operation goes to as things stand."""

    async def find_hops(self, domain: str, *, asker: str = "", kind: Literal["im", "pres"] = "im") -> Sequence[Contact]:
        """The next hops to a domain that is not ours, to be tried in this order: its route's, or those that DNS says.

        Args:
            domain: A-labels.
            asker: the protocol that what is to be sent came by; it goes first where the domain speaks it.
            kind: messages or presence.

        Raises NoRouteError if nothing leads there, DeliveryError if DNS cannot say now."""

    def mark(self, mark: Mark) -> asyncio.Future[list[Result]]:
        """Set a mark without a message; carried out in the order of the calls to this and ``submit``."""

    async def read_mark(self, name: str) -> bytes | None:
        """A mark's value, None if there is none."""

    async def told(self, delivery_id: str, domains: frozenset[str], response: Response) -> bool:
        """A next hop that took a message over says how it ended (success, or a failure): its sender is told as if it had happened
        here. True once that is durable; False if there is no such message, or its way did not lead to one of ``domains``."""

    def hop_returned(self, binding: str, domains: Collection[str]) -> None:
        """A next hop can be reached again: what waits for it is tried now instead of after its pause.

        Args:
            binding: who speaks with it.
            domains: those it leads to, A-labels; ``*``: all that this binding has something for."""

    def reject(self, delivery_id: str, contact: Contact, response: Response) -> None:
        """A device that took a delivery refuses it afterwards (an XMPP error stanza): report it to the sender."""

    async def settle(
        self, fingerprints: Sequence[str], sender: Address, recipient: Address, response: Response
    ) -> bool:
        """A next hop tells what became of a message it took over for another domain: report it to the sender, once.

        Args:
            fingerprints: ways the fingerprint of its object may begin, 8 hex digits or more.

        Returns:
            False if no such message of ``sender`` to ``recipient`` was ever handed over."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to hand a message to one contact address."""

    id: str
    """Spine ID; with the contact it makes the constant identifiers of the egress (reliability.md section 5.3)."""
    operation: MessageOperation
    contact: Contact
    accepted: datetime
    """Aware UTC: when the message was accepted here."""
    attempt: int
    """1 for the first."""
    is_delayed: bool = False
    """True if it was stored because nobody was reachable; the recipient is told (XEP-0203, SIP Date)."""
    asserted_by: str = ""
    """Domain that vouches for From when the object was made here from a native message; "" if it came as an object."""


class Deliverer(Protocol):
    """The way down: a binding as the service sees it."""

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Hand ``delivery.operation`` to ``delivery.contact`` (see ``bindings.base.Binding.deliver``)."""

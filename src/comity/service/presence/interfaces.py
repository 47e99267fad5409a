"""The seams of presence: what bindings ask of the presence service, and what it asks of them.

Place on the path: steps 5 to 7 of subscribe and notify (RFC 3859 section 3.4). A watcher's binding makes a
``SubscribeOperation`` and hands it to ``PresenceService``; a presentity's binding hands in publications and answers;
each binding is an ``Edge`` and is told what to write to whom. The service knows no protocol, an edge no other edge.

Three kinds of state, each with its own life (reliability.md section 5.7):

* **relations** (``ContactItem``): the contact list and what both sides decided. Durable before they are answered.
* **subscriptions** (``Subscription``): who is to be told now, and how long. Those of SIP are durable, with their dialog, and those
  of APEX; those of XMPP live as long as the watcher is available.
* **publications**: what devices said. Not durable: after a crash everybody is closed until they speak again. What was said once
  and for a time of its own (RFC 4827, RFC 3343) is published again by who keeps it, from a document of the account.

All addresses here are ``im:`` addresses of accounts in folded form, unless said otherwise; operations carry ``pres:``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, Protocol

from comity.cpim.access_entries import AccessEntry
from comity.cpim.address import Address
from comity.cpim.operations import EndReason, MimeObject, NotifyOperation, Response, SubscribeOperation
from comity.cpim.presence import PresenceDocument
from comity.cpim.watchers import SubscriptionEvent, SubscriptionState
from comity.service.interfaces import Contact, Origin

Package = Literal["presence", "presence.winfo"]
"""What a subscription is about: the presentity itself, or who watches it (RFC 3857)."""

# --- relations: the contact list and who may see whom ----------------------------------------------------------


class Decision(Enum):
    """What an account decided about one watcher; outranks its rules where it refuses, see ``access.py``."""

    NONE = "none"
    """Nothing: its rules and its default decide."""
    ALLOWED = "allowed"
    REFUSED = "refused"
    """Told so. Asking again is a new request where the default is to ask, else it stays refused."""
    POLITE = "polite"
    """Polite block: looks active and sees someone who is offline (ACL-11)."""


class Default(Enum):
    """What a watcher gets about whom neither a decision nor a rule says anything (``[policy] presence_default``)."""

    ASK = "ask"
    """The account is asked; pending until then."""
    DENY = "deny"
    CONTACTS = "contacts"
    """Who stands in the account's contact list may see it; all others as ``ASK``."""
    DOMAIN = "domain"
    """Accounts of the same domain may see it; all others as ``ASK``."""
    EVERYONE = "everyone"


@dataclass(frozen=True, slots=True)
class Ask:
    """A watcher's request that waits for the account's answer, kept whole (RFC 6121 section 3.1.3)."""

    when: float
    """Store time of the first."""
    text: str = ""
    """What the watcher wrote with it."""
    native_protocol: str = ""
    native: bytes = b""
    """The stanza as it came, serialised by that binding, to be handed to devices of the same protocol."""
    proof: bytes = b""
    """The operation signed by the watcher (``SubscribeOperation.proof``), as an entity, on its way to another domain (SEC-34)."""
    subscript_id: str = ""
    """What is signed; "" without a proof."""
    duration: int = 0


@dataclass(frozen=True, slots=True)
class ContactItem:
    """What one account keeps about one other: its entry in the contact list, and what both sides decided.

    In RFC 6121's words: ``sees`` is "to", ``decision is ALLOWED`` is "from", ``asks`` is "pending out", ``ask`` is "pending in".
    """

    account: Address
    contact: Address
    is_listed: bool = False
    """In the contact list people see; else only decisions are kept here."""
    name: str = ""
    groups: tuple[str, ...] = ()
    asks: bool = False
    """The account asked to see the contact, and there is no answer yet."""
    sees: bool = False
    """The contact granted it."""
    decision: Decision = Decision.NONE
    """Whether the contact may see the account."""
    is_preapproved: bool = False
    """Granted before it was asked for (RFC 6121 section 3.4)."""
    ask: Ask | None = None
    """The contact's request to see the account."""
    version: int = 0
    """Version of the contact list in which what it shows of this item last changed; 0: never."""


@dataclass(frozen=True, slots=True)
class Roster:
    """An account's contact list at one version."""

    version: int
    items: tuple[ContactItem, ...]
    """Only those listed, sorted by address; for ``roster_since`` those changed, with ``is_listed`` False for those removed."""


class Contacts(Protocol):
    """Contact lists and decisions; every change is durable before it is answered. Implemented by ``contacts.py``.

    ``origin`` names who does it; who is not the account gets a failure (DENIED). Every change is told to all edges
    (``Edge.contact_changed``) after it is durable and before the answer."""

    async def roster(self, account: Address) -> Roster: ...

    async def roster_since(self, account: Address, version: int) -> Roster | None:
        """What changed since ``version``; None if that is not known any more (then ask for all of it)."""

    async def item(self, account: Address, contact: Address) -> ContactItem:
        """What is kept; an empty item if nothing is."""

    async def put(
        self, account: Address, contact: Address, name: str, groups: Sequence[str], origin: Origin
    ) -> ContactItem | Response:
        """Add to the contact list, or change name and groups. Failures: QUOTA, SYNTAX (the account itself, an empty group)."""

    async def remove(self, account: Address, contact: Address, origin: Origin) -> bool | Response:
        """Take out of the list and end what was between the two in both directions (RFC 6121 section 2.5); False if not there."""

    async def requests(self, account: Address) -> Sequence[ContactItem]:
        """Requests that wait for the account's answer, oldest first."""

    # -- blocking (XEP-0191): nothing at all comes from or goes to those -------------------------------------

    async def blocked(self, account: Address) -> Sequence[Address]: ...

    async def block(self, account: Address, contacts: Sequence[Address], origin: Origin) -> Response | None:
        """Block more; a contact with an empty local part is a whole domain. None when done."""

    async def unblock(self, account: Address, contacts: Sequence[Address] | None, origin: Origin) -> Response | None:
        """Unblock; None for all of them."""

    def is_blocked(self, account: Address, other: Address) -> bool:
        """At once and from memory: asked for every message."""


# --- documents accounts keep here --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as it was put, octet for octet."""

    name: str
    content_type: str
    octets: bytes
    etag: str
    """Changes with every put; never used before for this name."""


class Documents(Protocol):
    """Documents by account and name, private to the account; implemented by ``documents.py``.

    Names: ``pres-rules/index`` (RFC 5025; parsed before it is taken, acts at once), ``resource-lists/index``,
    ``rls-services/index``, ``apex-access/index`` (entries of RFC 3341; acts at once), ``vcard-temp``, ``vcard4``, ``private/{namespace}element``, ``pep/NODE``."""

    async def get(self, account: Address, name: str) -> StoredDocument | None: ...

    async def names(self, account: Address, prefix: str = "") -> Sequence[str]: ...

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
        """Store. ``if_etag``: None always, "" only if absent, else only if it is the present one (failure NO_PUBLICATION).
        Failures: SYNTAX (a rules document that cannot be read; the former one stays), SIZE, QUOTA, DENIED."""

    async def delete(
        self, account: Address, name: str, origin: Origin, *, if_etag: str | None = None
    ) -> bool | Response: ...

    async def holders(self, name: str) -> Sequence[Address]:
        """The accounts that keep a document of this name; known for those names only that mean something at a start
        (``documents.LISTED``)."""


# --- who may do what, in the tokens of APEX (RFC 3341) ---------------------------------------------------------------


class Rights(Protocol):
    """What accounts permit, all that they said by any protocol taken together; implemented by ``rights.py``.

    ``owner`` and ``actor`` are bare addresses in any scheme; the local part of an actor may be ``apex=NAME``, a service's. A
    ``resource`` is an APEX subaddress. Whoever asks for an actor authenticated it."""

    async def may(
        self, owner: Address, actor: Address, *actions: str, resource: str = "", actor_resource: str = ""
    ) -> bool:
        """Whether the actor is permitted all of these as things stand: ``core:data``, ``presence:subscribe`` (not while the owner
        has to be asked), ``presence:watch``, ``presence:publish``, ``access:query`` ... The owner itself is permitted everything.
        An owner who does not exist permits what one does who never decided anything (N-02). Raises StoreError."""

    def may_send(self, owner: Address, actor: Address, *, resource: str = "", actor_resource: str = "") -> bool:
        """``may`` for ``core:data`` alone, at once: for what is no message operation and so asks nobody else."""

    def may_publish(self, owner: Address, actor: Address) -> bool:
        """``may`` for ``presence:publish`` alone, at once: nothing has to be looked up for that."""

    async def entry(self, owner: Address, resource: str, actor: str) -> AccessEntry | None:
        """The entry of exactly this actor, as written: one that was set, or a default one (``last_update`` ""). What rules, decisions
        and blocks come to is no entry: ``may`` tells it. Raises AddressError for what is no actor, and StoreError."""

    async def set_entry(
        self, owner: Address, resource: str, actor: str, actions: tuple[str, ...] | None, last_update: str
    ) -> AccessEntry | Response:
        """Create, replace or (None) delete an entry of an account that exists; durable, and in effect for every protocol, when this
        returns. That the owner wants it was checked (``access:set``). ``last_update`` is that of the entry as it was got, ""
        if there is none. Returns the entry as it stands now (a deleted one without actions). Failures: NO_PUBLICATION (there is
        another entry than was meant), SYNTAX, QUOTA, DENIED (an account cannot take anything away from itself)."""


# --- what watchers are told ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Content:
    """What all watchers with the same permissions are told of a presentity at one moment: made once, shared, immutable."""

    target: Address
    """``pres:`` address."""
    document: PresenceDocument | None
    """Composed and filtered; None only for watcher information."""
    object: MimeObject
    """That document (or the watcher information) as an entity, the server's word."""
    whole: MimeObject | None = None
    """The secured entity the presentity itself made, where it is all there is and this watcher may see all of it: for those
    who take it (``Subscription.takes_secured``) it goes instead, untouched (SEED-46)."""
    natives: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    """By tuple id, (protocol, serialised children): what only devices of that protocol understand, for the tuples of this document
    and for those that just went. Only where the watcher may see everything."""
    cache: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Room for the edges' encodings of it, by keys of their own: what is the same for a thousand watchers is made once."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One watcher's subscription by one edge: a SIP dialog, or an XMPP account that is available."""

    id: str
    """SubscriptID: globally unique over time (OPS-30)."""
    edge: str
    """Name of the edge that is told."""
    watcher: Address
    """``im:`` address, authenticated."""
    target: Address
    package: Package = "presence"
    state: SubscriptionState = SubscriptionState.PENDING
    event: SubscriptionEvent = SubscriptionEvent.SUBSCRIBE
    """What brought it into that state."""
    created: float = 0.0
    """Store time."""
    expires: float | None = None
    """Store time; None: as long as its edge says so."""
    is_durable: bool = False
    interval: float = 0.0
    """Least seconds between two notifications (SIP: 5, RFC 3856 section 6.10); the last state is never lost."""
    takes_secured: bool = False
    """The watcher said that it takes signed and encrypted documents."""
    data: bytes = b""
    """The edge's own, kept with it: a SIP dialog. Change it by ``PresenceService.keep``."""
    told: Content | None = None
    """What it was last told; the edge makes differences against it. Set by the service after ``Edge.notify`` returned."""


# --- the way down: what the service asks of a binding -----------------------------------------------------------------


class Edge(Protocol):
    """A binding as the presence service sees it. Nothing here blocks or raises; what cannot be told is the edge's to end
    (``PresenceService.lost``)."""

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """Tell each of these active subscriptions ``content``; all of them were last told ``told``."""

    def pending(self, subscription: Subscription) -> None:
        """Say that it waits for the presentity (SIP: NOTIFY pending without a document)."""

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """Say that it is over: nothing is told after this (G9)."""

    def asked(self, item: ContactItem) -> None:
        """``item.contact`` asks to see ``item.account`` (``item.ask``): put it to the account's devices, if there are any here."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """``item.contact`` answered what ``item.account`` asked, or took back what it had granted (``is_granted`` False)."""

    def withdrew(self, item: ContactItem) -> None:
        """``item.contact`` no longer wants to see ``item.account``."""

    def contact_changed(self, item: ContactItem) -> None:
        """An item changed: push it to the account's devices that asked for the list (is_listed False: it was removed)."""

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """For the account's devices that asked for it; ``unblocked`` None: all of them."""

    def directed(self, operation: NotifyOperation) -> None:
        """Presence an account sends to one person (``Context.resource``: one device), outside any subscription."""


# --- the way out: people of other domains -----------------------------------------------------------------------------


class Abroad(Protocol):
    """A binding as the presence service sees it where the other one is of another domain: it carries there what our account
    wants and decided, and says what came from there by ``answered``, ``heard`` and the watcher's verbs of ``PresenceService``.

    ``hop`` is ``Routes.hop`` of the other one's domain. Each future gives what became of that one errand: success once the other
    domain's server took it; a temporary failure (``Response.is_temporary``): the service tries it again; any other failure is
    final. Nothing raises. Errands of one pair of people come one after the other."""

    def ask(self, operation: SubscribeOperation, ask: Ask, hop: Contact) -> asyncio.Future[Response]:
        """Our account (``watcher``) asks to see ``target``: the answer is ``PresenceService.answered``, now or in a year. Comes again
        while there is no answer (a device comes, a restart): do nothing where that is under way. XMPP: ``subscribe``; SIP: SUBSCRIBE,
        whose dialog is kept as long as the account asks or watches."""

    def withdraw(self, operation: SubscribeOperation, hop: Contact) -> asyncio.Future[Response]:
        """Our account no longer wants to see ``target`` (duration 0). XMPP: ``unsubscribe``; SIP: SUBSCRIBE with Expires 0."""

    def answer(self, account: Address, watcher: Address, is_granted: bool, hop: Contact) -> asyncio.Future[Response]:
        """Our account lets ``watcher`` of that domain see it, or refuses that or takes it back. XMPP: ``subscribed`` or
        ``unsubscribed``; SIP: nothing, since its subscriptions are told by ``Edge`` (``notify``, ``ended``)."""

    def watch(self, account: Address, target: Address, hop: Contact) -> asyncio.Future[Response]:
        """Somebody of our account, which may see ``target``, looks now: say by ``heard`` how things are, and what changes until
        ``unwatch``. Comes again when what was heard last is doubted. XMPP: a probe; SIP: SUBSCRIBE, or a refresh of it."""

    def unwatch(self, account: Address, target: Address, hop: Contact) -> None:
        """Nobody of our account looks any more; it still may see ``target``. XMPP: nothing; SIP: the dialog may end."""

    def direct(self, operation: NotifyOperation, hop: Contact) -> asyncio.Future[Response]:
        """Presence our account (``target``) sends to one person there, outside any subscription; CONTENT where there is no such thing."""


# --- the way up: what bindings ask of the service -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """How an edge wants a subscription to be kept."""

    edge: str
    package: Package = "presence"
    is_durable: bool = False
    interval: float = 0.0
    takes_secured: bool = False
    data: bytes = b""
    most: int = 3600
    """Longest duration granted; an edge refuses what is too short itself (SIP 423)."""
    text: str = ""
    """What the watcher wrote to the presentity (``Ask.text``)."""
    native_protocol: str = ""
    native: bytes = b""
    """See ``Ask``."""
    is_standing: bool = False
    """It follows from the watcher's own contact list (``ContactItem.sees``), where it was asked for, proved and granted before: the
    presentity is not asked, and no proof is wanted. Without a grant it waits for one."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The subscription stands, durably. Say yes natively, then call ``PresenceService.begin``: response before notify (OPS-21)."""

    subscription: Subscription
    """For a fetch or an end: one that is told once more and is then forgotten (``state`` TERMINATED)."""
    duration: int
    """Seconds granted; 0 for a fetch and an end."""
    is_refresh: bool = False


@dataclass(frozen=True, slots=True)
class Published:
    """A publication stands."""

    etag: str
    """New with each answer, never used before for this presentity (SIP-32)."""
    lease: int
    """Seconds granted."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a device publishes."""

    document: PresenceDocument | None
    """None only if ``secured`` is encrypted for others: then the server cannot see it (sealed)."""
    secured: MimeObject | None = None
    """The entity signed (or sealed) by the presentity that holds it."""
    keeps_ids: bool = False
    """See ``cpim.composition.Publication``."""
    natives: Mapping[str, tuple[str, bytes]] = field(default_factory=dict)
    """See ``Content.natives``."""


class PresenceService(Protocol):
    """Presence of our own accounts; implemented by ``service.py``."""

    @property
    def contacts(self) -> Contacts: ...

    @property
    def documents(self) -> Documents: ...

    @property
    def rights(self) -> Rights: ...

    def attach(self, name: str, edge: Edge) -> None:
        """Called once by each binding at its start. Durable subscriptions of this edge are handed to ``Edge.notify`` within
        60 s after a start (reliability.md section 5.7), their ``data`` as it was kept."""

    def attach_abroad(self, name: str, abroad: Abroad) -> None:
        """Called once by each binding that reaches other domains, at its start; ``name`` is ``Contact.binding`` of the hops."""

    # -- people of other domains ----------------------------------------------------------------------------------
    #
    # A watcher there asks by ``ask`` (once and for good) or ``subscribe`` (for a duration), with an ``Origin`` whose ``domains`` hold
    # its domain, and goes by ``withdraw``, ``subscribe`` with duration 0, or ``lost``. Whom our accounts watch there:

    async def answered(
        self, account: Address, presentity: Address, is_granted: bool, origin: Origin
    ) -> Response | None:
        """``presentity`` of another domain answered what our ``account`` asked, or takes back what it granted. Durable, and told to the
        account's devices, when this returns None; ignored if it was not asked (N-07). Failures: DENIED (``origin`` does not speak
        for that domain), NO_ROUTE (the account's domain is not ours)."""

    def heard(
        self,
        account: Address,
        presentity: Address,
        statement: Statement | None,
        origin: Origin,
        *,
        key: str = "",
        lease: int | None = None,
        natives: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Response | None:
        """Take what ``presentity`` of another domain tells ``account`` of itself; told to whoever of that account watches it.

        Args:
            account: whom it was told to, and nobody else (T18).
            presentity: authenticated by ``origin``, which speaks for its domain (else DENIED).
            statement: None: what was said under ``key`` holds no more; without a key: nothing is known of it any more.
            origin: the other domain's server.
            key: names one of its devices (an XMPP resource) where each speaks for itself; "" where a statement is all of it.
            lease: seconds it may be believed (the rest of a SIP subscription); at most a day, which is the default.
            natives: parting words, see ``unpublish``.

        What nobody of the account watches, or may not, is dropped; None then too.
        """

    def doubted(self, domain: str) -> None:
        """The way to that domain broke: what was heard from there may be old. It is asked about anew (``Abroad.watch``), and holds no
        more where there is no answer in time."""

    def returned(self, domain: str) -> None:
        """That domain's server was just heard of: what waits for it is carried now (``Service.hop_returned`` calls this)."""

    # -- the presentity's side ------------------------------------------------------------------------------------

    def publish(
        self,
        entity: Address,
        statement: Statement | None,
        origin: Origin,
        *,
        key: str = "",
        etag: str = "",
        lease: int | None = None,
    ) -> Published | Response:
        """Take what a device says; told to the watchers before this returns, or as their intervals allow.

        Args:
            entity: the presentity, an account of ours.
            statement: None: as before, only the lease is renewed (needs ``etag``).
            origin: who publishes: the account itself, or whom it permits ``presence:publish`` (ACL-22, else DENIED).
            key: names the publication (an XMPP resource); replaces the one of that key.
            etag: changes or renews the publication whose last answer had it; failure NO_PUBLICATION if there is none.
            lease: seconds asked for; at most 3600 are granted (N-22); None: until ``unpublish``.

        With neither key nor etag it is a new publication. Failures: DENIED (also a document about somebody else, N-19),
        NO_SUCH_USER, NO_PUBLICATION, SIZE, QUOTA.
        """

    def unpublish(
        self,
        entity: Address,
        origin: Origin,
        *,
        key: str = "",
        etag: str = "",
        natives: Mapping[str, tuple[str, bytes]] | None = None,
    ) -> Response | None:
        """Take a publication away; ``natives``: parting words (the ``unavailable`` stanza's children) by the ids of its tuples."""

    def has_publication(self, entity: Address, etag: str) -> bool:
        """Whether the last answer to a publication of the account had this entity-tag (RFC 3903 section 6 step 3)."""

    async def direct(self, operation: NotifyOperation, origin: Origin) -> Response | None:
        """Presence sent to one person by the account itself (directed presence, sealed documents): told to the edges if that
        person does not block it. None when done."""

    # -- the watcher's side ---------------------------------------------------------------------------------------

    async def subscribe(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Granted | Response:
        """Subscribe, refresh, fetch or end (RFC 3859 section 3.4.1 to 3.4.3), for an edge that will be notified.

        New id and duration > 0: a subscription, pending if the presentity has to be asked (it then is), active if granted.
        Known id (of the same watcher: else NO_SUCH_USER, SEC-32): a refresh, or the end if the duration is 0.
        New id and duration 0: a fetch. A second one of the same edge, watcher and target with another id is allowed: another
        device. Unknown presentities look like those that do not answer (N-02). Failures: DENIED (blocked and not
        politely, ACL-12), SYNTAX, QUOTA, PROTECTION … and NO_ROUTE for domains that are not ours.
        """

    def begin(self, subscription: Subscription) -> None:
        """The yes was written: notify it at once, and from now on as things change."""

    def keep(self, subscription: Subscription, data: bytes) -> None:
        """Change the edge's own data of a subscription (durably if that is durable, without waiting)."""

    def lost(self, subscription: Subscription) -> None:
        """The edge cannot reach the watcher any more: the subscription is gone, without a word to it."""

    def find(self, edge: str, id: str) -> Subscription | None: ...

    def subscriptions_of(self, edge: str, watcher: Address) -> Sequence[Subscription]:
        """What a watcher has at this edge, whatever the package and the state; those kept over a restart as well."""

    def is_allowed(self, presentity: Address, watcher: Address) -> asyncio.Future[bool]:
        """Whether the watcher may see the presentity as things stand (a probe, SIP-less)."""

    def may_see(self, presentity: Address, watcher: Address) -> asyncio.Future[bool]:
        """The same, but False too for whom the presentity blocks politely: for what it keeps here to show its contacts."""

    # -- both sides' decisions, in the words of RFC 6121 ---------------------------------------------------------------

    async def ask(self, operation: SubscribeOperation, origin: Origin, terms: Terms) -> Response | None:
        """The watcher asks once and for good, with no subscription of its own yet (XMPP ``subscribe``): kept with both, put to
        the presentity's devices, answered at once if that is decided already. None when it is durable."""

    async def withdraw(self, operation: SubscribeOperation, origin: Origin) -> Response | None:
        """The watcher no longer wants to see the target (XMPP ``unsubscribe``)."""

    async def answer(
        self, account: Address, watcher: Address, decision: Decision, origin: Origin
    ) -> ContactItem | Response:
        """The account decides about a watcher (XMPP ``subscribed`` and ``unsubscribed``, the command line, the API): durable, then
        effective for the very next notification. ALLOWED without a request is a pre-approval (RFC 6121 section 3.4)."""

    async def decisions(self, account: Address) -> Sequence[ContactItem]:
        """Everybody about whom the account decided or is asked."""

    async def default(self, account: Address) -> Default: ...

    async def set_default(self, account: Address, default: Default | None, origin: Origin) -> Response | None:
        """None: as the operator configured."""

    def watchers(self, account: Address) -> Sequence[Subscription]:
        """Who watches the account now, whatever the state (RFC 3857)."""

    def seen_by(self, account: Address, viewer: Address | None = None) -> Sequence[Subscription]:
        """The active ones among them whose watchers may really see it: nobody who is blocked politely. Of somebody of another domain
        only those of ``viewer``."""

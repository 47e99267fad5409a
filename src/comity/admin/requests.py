"""What an operator can ask for, and what the answers hold.

Place on the path: beside it. A request is a tagged struct, so that ``control`` can carry it to the running server and the
command line can carry it out itself when none runs; results are plain dataclasses. ``commands.py`` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from comity.errors import ComityError

# --- requests -----------------------------------------------------------------------------------------------------


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One act asked for."""


class AddAccount(Request, frozen=True, tag="account.add"):
    """Make an account; its password serves every protocol."""

    address: str
    password: str


class SetPassword(Request, frozen=True, tag="account.password"):
    """Change a password: the one of all protocols, or SIP's alone."""

    address: str
    password: str
    sip_only: bool = False


class RemoveAccount(Request, frozen=True, tag="account.remove"):
    """Remove an account, its keys, its contact addresses and what waits for it."""

    address: str


class ListAccounts(Request, frozen=True, tag="account.list"):
    """List the accounts, all or those of one address or domain."""

    of: str = ""


class SetPolicy(Request, frozen=True, tag="account.policy"):
    """Say what messages to and from an account, and operations about it, must have; everything empty and ``is_set`` takes it away again."""

    address: str
    is_set: bool = False
    """False: change nothing, show what is."""
    require: list[str] = []
    require_from: list[str] = []
    verify: str = "off"
    operations: str = "any"


class ShowWatchers(Request, frozen=True, tag="account.watchers"):
    """Show who watches an account, who asked to, and about whom it decided."""

    address: str


class Decide(Request, frozen=True, tag="account.decide"):
    """Decide whether somebody may see an account."""

    address: str
    watcher: str
    decision: str
    """allowed, refused, polite; none: forget what was decided."""


class SetPresence(Request, frozen=True, tag="account.presence"):
    """Say what a watcher gets about whom the account decided nothing."""

    address: str
    default: str = ""
    """ask, deny, contacts, domain, everyone; server: as the configuration says; "": change nothing, show what is."""


class ListContacts(Request, frozen=True, tag="account.contacts"):
    """Show the contact list of an account."""

    address: str


class Trace(Request, frozen=True, tag="trace"):
    """Show the path of a message, by spine ID, the beginning of its SHA-256, or a native identifier."""

    name: str


class ListQueues(Request, frozen=True, tag="queue.list"):
    """List what waits, by lane."""


class ShowQueue(Request, frozen=True, tag="queue.show"):
    """Show the messages waiting in one lane."""

    lane: str
    limit: int = 100


class RetryQueue(Request, frozen=True, tag="queue.retry"):
    """Try a lane now; "" for all."""

    lane: str = ""


class DropMessage(Request, frozen=True, tag="queue.drop"):
    """End a waiting message undelivered."""

    id: str


AnyRequest = (
    AddAccount
    | SetPassword
    | RemoveAccount
    | ListAccounts
    | SetPolicy
    | ShowWatchers
    | Decide
    | SetPresence
    | ListContacts
    | Trace
    | ListQueues
    | ShowQueue
    | RetryQueue
    | DropMessage
)


# --- refusals ----------------------------------------------------------------------------------------------------


class CommandRefused(ComityError):
    """An act that was understood and not carried out; ``exit_code`` 1 for "no", 2 for wrong use."""

    def __init__(self, text: str, exit_code: int = 1) -> None:
        self.exit_code = exit_code
        super().__init__(text)


# --- results ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Account:
    """An account as ``account list`` shows it."""

    address: str
    created: str
    """ISO 8601, UTC."""
    own_sip_password: bool = False


@dataclass(frozen=True, slots=True)
class AccountPolicy:
    """What an account itself asks for; the configuration may ask for more."""

    address: str
    require: list[str]
    require_from: list[str]
    verify: str
    operations: str


@dataclass(frozen=True, slots=True)
class Watching:
    """A live subscription."""

    watcher: str
    via: str
    """The protocol it came by."""
    state: str
    """pending, active or waiting (RFC 3857)."""
    since: str
    expires: str | None


@dataclass(frozen=True, slots=True)
class Decided:
    """What an account decided about somebody, or is asked."""

    watcher: str
    decision: str
    """none, allowed, refused or polite."""
    approved: bool
    """Allowed before it was asked for."""
    asked: str | None
    """Since when a request waits for the answer."""
    text: str
    """What came with the request."""


@dataclass(frozen=True, slots=True)
class WatcherReport:
    address: str
    default: str
    """What anybody else gets."""
    watching: list[Watching]
    decided: list[Decided]


@dataclass(frozen=True, slots=True)
class PresenceDefault:
    address: str
    default: str


@dataclass(frozen=True, slots=True)
class Contact:
    """An entry of a contact list."""

    contact: str
    name: str
    groups: list[str]
    subscription: str
    """none, to (the account sees the contact), from (the other way round) or both."""
    asks: bool
    """The account asked to see the contact and waits."""


@dataclass(frozen=True, slots=True)
class Removed:
    address: str
    dropped: int
    """Messages that waited for it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a message's path; ``trace --json`` prints these fields by design.md's names."""

    node: str
    in_: str
    out: str
    time: str
    sha256: str
    outcome: str
    in_tls: bool | None = None
    """Whether the link in was under TLS; None: the node did not say."""
    out_tls: bool | None = None
    form: str = ""
    """What was handed over: object, text, text-of-signed; "" for other outcomes."""
    note: str = ""
    asserted_by: str = ""
    """On our own step: who vouches for the sender where no signature does."""


@dataclass(frozen=True, slots=True)
class Lane:
    lane: str
    pending: int
    octets: int
    oldest: str


@dataclass(frozen=True, slots=True)
class Waiting:
    id: str
    accepted: str
    expires: str
    octets: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Retried:
    lanes: list[str]


@dataclass(frozen=True, slots=True)
class Dropped:
    id: str
    lane: str

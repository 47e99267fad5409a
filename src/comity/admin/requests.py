"""What an operator can ask for, and what the answers hold.

Place on the path: beside it. A request is a tagged struct, so that ``control`` can carry it to the running server and the
command line can carry it out itself when none runs; results are plain dataclasses. ``commands.py`` carries them out.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

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
    | Trace
    | ListQueues
    | ShowQueue
    | RetryQueue
    | DropMessage
)


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

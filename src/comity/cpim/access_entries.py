r"""Access entries of APEX (RFC 3341 section 3): who may do what towards an owner, and which entry counts for an actor.

Place on the path: step 5, under ``service/presence/entries.py``. An actor is somebody (``fred@example.com``), a subaddress of his
(``fred/appl=wb@example.com``), all of them (``fred/*``), all services (``apex=*``) or everybody else (``*``), of one domain, of one
and what is below it (``*.example.com``) or of any (``*``). ``\*`` and ``\\`` are those characters themselves.

All actors that can match an address are few and can be written down best first, so an entry is found by looking those up:
the time for one look does not grow with the number of entries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from comity.cpim.address import Address
from comity.errors import AddressError

CORE_DATA: Final = "core:data"
SUBSCRIBE: Final = "presence:subscribe"
WATCH: Final = "presence:watch"
PUBLISH: Final = "presence:publish"
QUERY: Final = "access:query"
GET: Final = "access:get"
SET: Final = "access:set"
TOKENS: Final = (CORE_DATA, SUBSCRIBE, WATCH, PUBLISH, QUERY, GET, SET)
"""Every action that means something here."""

MOST_ACTIONS: Final = 32
"""Of one entry or one question; those that mean something are fewer."""
MAX_ACTOR: Final = 2048
"""Octets of a written actor that are read: an endpoint identity, each character escaped."""
_SERVICE: Final = "apex="
#: RFC 3340 section 2.2: no control character, no "/", no "@"; here "*" and "\" only escaped.
_LITERAL = re.compile(r"(?:[^/@*\\\x00-\x1f\x7f-\x9f\ud800-\udfff]|\\[*\\])+")
_ACTION = re.compile(r"[A-Za-z0-9._-]+:[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Actor:
    """Whom an entry is about; made by ``parse``. Parts as written in canonical form, with their escapes."""

    name: str
    """A name, ``apex=*`` or ``*``."""
    resource: str
    """A subaddress, ``*`` for any, "" for none."""
    domain: str
    """A-labels, ``*.`` and A-labels, or ``*``."""

    @classmethod
    def parse(cls, text: str) -> Actor:
        """Read an actor as it is written in ``get`` and ``set``. Raises AddressError."""
        if len(text.encode("utf-8", "surrogatepass")) > MAX_ACTOR:
            raise AddressError(text[:64], "the actor is too long")
        local, at, domain = text.rpartition("@")
        name, slash, resource = local.partition("/")
        is_wild = name in ("*", f"{_SERVICE}*")
        if not at or not (is_wild or _LITERAL.fullmatch(name)):
            raise AddressError(text, "expected an endpoint, or * or apex=* in place of its name")
        if slash and (is_wild or not (resource == "*" or _LITERAL.fullmatch(resource))):
            raise AddressError(text, "expected a subaddress, or * in place of it")
        return cls(name, resource, _domain(domain))

    @property
    def key(self) -> str:
        """The canonical written form, which entries are found by."""
        return f"{self.name}/{self.resource}@{self.domain}" if self.resource else f"{self.name}@{self.domain}"

    @property
    def is_one(self) -> bool:
        """True if it names one person or service (under whatever subaddress)."""
        return self.name not in ("*", f"{_SERVICE}*") and not self.domain.startswith("*")

    def folded(self) -> Actor:
        """As a domain sees it whose users are named without regard to case (ADDR-4)."""
        if not self.is_one:
            return self
        try:
            return replace(self, name=_escaped(Address.im(_unescaped(self.name), self.domain).folded().local))
        except AddressError:  # no account can have that name: nobody is found by it
            return self

    def is_of(self, account: Address) -> bool:
        """True if it is that account, or a subaddress of it."""
        return self.is_one and self.domain == account.domain and _unescaped(self.name) == account.local


@dataclass(frozen=True, slots=True)
class AccessEntry:
    """One entry, as it was set."""

    resource: str
    """Subaddress of the owner; "" for the owner itself."""
    actor: str
    """As written."""
    actions: tuple[str, ...]
    last_update: str = ""
    """RFC 3339; "" for a default entry, which nobody set."""


@dataclass(frozen=True, slots=True)
class Match:
    """The entry that counts for an actor."""

    actions: tuple[str, ...]
    is_one: bool
    """It names this one, so it counts like a decision about a single person; else like a default."""

    def permits(self, action: str) -> bool:
        """True if the action is among the permitted ones."""
        return permits(self.actions, action)


def permits(actions: Iterable[str], action: str) -> bool:
    """Whether an action is among the permitted ones, by ``all`` for any service or operation; ``none`` asks for nothing."""
    service, _, operation = action.partition(":")
    if operation == "none":
        return True
    granted = (one.partition(":") for one in actions)
    return any(s in (service, "all") and o in (operation, "all") for s, _, o in granted)


def is_service(actor: Address) -> bool:
    """True for ``apex=NAME``: a service, and nobody."""
    return actor.local.startswith(_SERVICE)


def is_action(text: str) -> bool:
    """True for a service/operation pair."""
    return _ACTION.fullmatch(text) is not None


def candidates(actor: Address, resource: str = "") -> Iterator[str]:
    """The keys of all actors that match an address, best first (section 3.1): by the domain, then by the local part.

    A person's subaddress is the same person (the account that signed in): what names the person without one counts for it too,
    behind what names the subaddress and before ``*``. The RFC has it only under ``*``; then who was denied something by name
    would only have to attach as a subaddress.
    """
    is_one_of_services = is_service(actor)
    names = []
    if _is_token(actor.local):
        name = _escaped(actor.local)
        if resource:
            names += [f"{name}/{_escaped(resource)}"] if _is_token(resource) else []
            names += [f"{name}/*"]
        if not (resource and is_one_of_services):
            names.append(name)
    names.append(f"{_SERVICE}*" if is_one_of_services else "*")
    for domain in _domains(actor.domain):
        for name in names:
            yield f"{name}@{domain}"


def best(
    entries: Mapping[str, AccessEntry], owner: Address, actor: Address, resource: str = "", *, has_defaults: bool = True
) -> Match | None:
    """The entry of one owner that counts for an actor: one that was set, or a default about services (section 3).

    Args:
        entries: by the key of their actor.
        owner: for the default about the services of its domain.
        actor: who wants to do something, authenticated.
        resource: its subaddress.
        has_defaults: False: only what was set counts.
    """
    defaults = default_entries(owner) if has_defaults and is_service(actor) else {}
    for key in candidates(actor, resource):
        entry = entries.get(key) or defaults.get(key)
        if entry is not None:
            return Match(entry.actions, Actor.parse(key).is_one)
    return None


def default_entries(owner: Address) -> dict[str, AccessEntry]:
    """The default entries that are the same for every owner, by key; that for ``*@*`` is the account's own (section 3)."""
    actors = {
        f"{_escaped(owner.local)}@{owner.domain}": ("all:all",),
        f"{_SERVICE}*@{owner.domain}": ("all:all",),
        f"{_SERVICE}*@*": (CORE_DATA,),
    }
    return {actor: AccessEntry("", actor, actions) for actor, actions in actors.items()}


def key_of(actor: str, serves: Callable[[str], bool]) -> str:
    """The key of a written actor; our own users are named without regard to case. Raises AddressError."""
    parsed = Actor.parse(actor)
    return (parsed.folded() if serves(parsed.domain) else parsed).key


def _domains(domain: str) -> Iterator[str]:
    yield domain
    if domain[0] != "[" and not domain[-1].isdigit():  # an address literal is below no domain
        rest = domain
        while rest:
            yield f"*.{rest}"
            rest = rest.partition(".")[2]
    yield "*"


def _domain(domain: str) -> str:
    if domain == "*":
        return domain
    if domain.startswith("*."):
        parent = Address.im("-", domain[2:]).domain
        if parent[0] == "[" or parent[-1].isdigit():
            raise AddressError(domain, "nothing is below an address literal")
        return f"*.{parent}"
    # APEX writes an IPv4 literal in brackets too (RFC 2821 section 4.1.3).
    is_ipv4 = domain.startswith("[") and ":" not in domain
    return Address.im("-", domain.removeprefix("[").removesuffix("]") if is_ipv4 else domain).domain


def _is_token(text: str) -> bool:
    """Whether APEX can write it; else it would read as another's name."""
    return "/" not in text and "@" not in text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("*", "\\*")


def _unescaped(text: str) -> str:
    return re.sub(r"\\([*\\])", r"\1", text)

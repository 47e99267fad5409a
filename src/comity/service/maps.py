"""Which link calls whom what: ``[[route]] as`` and ``[[map]]``, gathered by link.

Place on the path: made once by ``server.py``; the bindings ask at the edge (steps 4 and 8). A link is that of a route: its protocol
and the domain it leads to. A server that hands in is looked up by what it proved to speak for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from comity.cpim.address import Address
from comity.cpim.names import PLAIN, Names
from comity.errors import AddressError

_Key = TypeVar("_Key")
ANY = "*"


@dataclass(frozen=True, slots=True)
class Rule:
    """One name on one link: of a person, or of a domain."""

    via: str
    """Binding that speaks on the link."""
    on: str
    """Domain that the link leads to, as the core calls it; A-labels."""
    core: Address | str
    """Who is called otherwise there."""
    wire: Address | str
    """What they are called there."""


class LinkMaps:
    """Implements ``Maps``.

    Raises:
        AddressError: on one link two would have one name.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self._rules: dict[tuple[str, str], list[Rule]] = {}
        for rule in rules:
            self._rules.setdefault((rule.via, rule.on), []).append(rule)
        self._names = {link: _names(found) for link, found in self._rules.items()}
        self._of = lru_cache(maxsize=1024)(self._found)

    def towards(self, via: str, domain: str) -> Names:
        """See ``Maps.towards``."""
        return self._names.get((via, domain), PLAIN)

    def of(self, via: str, domains: frozenset[str]) -> Names:
        """See ``Maps.of``."""
        return self._of(via, domains) if self._names else PLAIN

    def _found(self, via: str, domains: frozenset[str]) -> Names:
        links = [link for link in self._names if link[0] == via and self._leads_to(link, domains)]
        if len(links) < 2:
            return self._names[links[0]] if links else PLAIN
        try:
            return _names([rule for link in links for rule in self._rules[link]])
        except AddressError:
            # One server at the end of two links that contradict each other: what it says means nobody twice.
            return self._names[links[0]]

    def _leads_to(self, link: tuple[str, str], domains: frozenset[str]) -> bool:
        return ANY in domains or not domains.isdisjoint((link[1], self._names[link].domain_to_wire(link[1])))


def _names(rules: Sequence[Rule]) -> Names:
    domains: dict[str, str] = {}
    addresses: dict[Address, Address] = {}
    for rule in rules:
        if isinstance(rule.core, Address) and isinstance(rule.wire, Address):
            _put(addresses, rule.core, rule.wire)
        elif isinstance(rule.core, str) and isinstance(rule.wire, str):
            _put(domains, rule.core, rule.wire)
        else:
            raise AddressError(str(rule.wire), "a person is called by an address, a domain by a domain")
    return Names(domains, addresses)


def _put(pairs: dict[_Key, _Key], core: _Key, wire: _Key) -> None:
    if pairs.setdefault(core, wire) != wire:
        raise AddressError(str(core), "has two names on one link")

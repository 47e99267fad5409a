"""What people are called on one link, where that differs from what they are called here. Pure.

Place on the path: the edge of steps 4 and 8. A server that was there before us may know a domain or a person by another name
(``[[route]] as``, ``[[map]]``). The names of an envelope are turned as they come in and go out, so that steps 5 to 7 know one name
for everybody; the names inside an object never are (GW-4). Both directions together are a bijection: whom two names could mean,
and who has lost the name to somebody else, is nobody on that link (G-13).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeVar

from comity.cpim.address import Address
from comity.cpim.operations import MessageOperation
from comity.errors import AddressError

_T = TypeVar("_T")


class Names:
    """The names of one link.

    Args:
        domains: of the core's domains that are called otherwise on the link, what they are called there; A-labels.
        addresses: the same for single people, who go before their domain.

    Raises:
        AddressError: two would have one name.
    """

    __slots__ = ("_addresses", "_addresses_in", "_domains", "_domains_in", "is_plain")

    def __init__(
        self, domains: Mapping[str, str] | None = None, addresses: Mapping[Address, Address] | None = None
    ) -> None:
        self._domains = dict(domains or {})
        self._domains_in = _inverse(self._domains)
        self._addresses = {core.with_scheme("im"): wire.with_scheme("im") for core, wire in (addresses or {}).items()}
        self._addresses_in = _inverse(self._addresses)
        self.is_plain = not (self._domains or self._addresses)
        """True where everybody is called the same."""

    def to_wire(self, address: Address) -> Address | None:
        """What somebody is called on the link; None: has no name there."""
        if self.is_plain:
            return address
        return _turned(address, self._addresses, self._addresses_in, self._domains, self._domains_in)

    def to_core(self, address: Address) -> Address | None:
        """Whom a name on the link means; None: nobody."""
        if self.is_plain:
            return address
        return _turned(address, self._addresses_in, self._addresses, self._domains_in, self._domains)

    def domain_to_wire(self, domain: str) -> str | None:
        """What a domain is called on the link; None: has no name there."""
        return _domain(domain, self._domains, self._domains_in)

    def domain_to_core(self, domain: str) -> str | None:
        """Which domain a name on the link means; None: none."""
        return _domain(domain, self._domains_in, self._domains)

    def proved(self, domains: Iterable[str]) -> frozenset[str]:
        """The core's domains for which a server speaks that proved ``domains``: those in its certificate are the link's names."""
        return frozenset(self._domains_in.get(domain, domain) for domain in domains)

    def operation_to_wire(self, operation: MessageOperation) -> MessageOperation | None:
        """The operation with the envelope's names as the link has them; None if sender or recipient has none there."""
        return operation if self.is_plain else _with(operation, self.to_wire)

    def operation_to_core(self, operation: MessageOperation) -> MessageOperation | None:
        """The operation with the envelope's names as the core has them; None if sender or recipient is nobody.

        A native message is to be wrapped with the core's names: turn its addresses before (``to_core``)."""
        return operation if self.is_plain else _with(operation, self.to_core)


def _inverse(pairs: Mapping[_T, _T]) -> dict[_T, _T]:
    turned = {value: key for key, value in pairs.items()}
    if len(turned) != len(pairs):
        twice = next(value for key, value in pairs.items() if turned[value] != key)
        raise AddressError(str(twice), "two would have this name on one link")
    return turned


def _domain(domain: str, forth: Mapping[str, str], back: Mapping[str, str]) -> str | None:
    """The other name of a domain; None for one whose name belongs to another."""
    return forth.get(domain, None if domain in back else domain)


def _turned(
    address: Address,
    forth: Mapping[Address, Address],
    back: Mapping[Address, Address],
    domains: Mapping[str, str],
    domains_back: Mapping[str, str],
) -> Address | None:
    person = address.with_scheme("im")
    named = forth.get(person)
    if named is None:
        domain = _domain(address.domain, domains, domains_back)
        if domain is None:
            return None
        named = person if domain == address.domain else Address("im", person.local, domain)
        if named in back:
            return None  # somebody else has that name
    return named.with_scheme(address.scheme)


def _with(operation: MessageOperation, turn: Callable[[Address], Address | None]) -> MessageOperation | None:
    source, destination = turn(operation.source), turn(operation.destination)
    if source is None or destination is None:
        return None
    report = operation.context.report
    if report is not None and (recipient := turn(report.recipient)) is not None:
        operation = replace(operation, context=replace(operation.context, report=replace(report, recipient=recipient)))
    return replace(operation, source=source, destination=destination)


PLAIN = Names()
"""Everybody is called the same."""

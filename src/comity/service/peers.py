"""Step 5 for other servers: for which domains a connection may speak (``[[peer]]``, T1, SEC-33).

A certificate's dNSName entries prove the domains they name and no others. What a ``[[peer]]`` adds: a server known by its address,
and an intermediary that may speak for others. Nobody ever speaks for one of our own domains.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from comity.cpim.address import Address
from comity.errors import AddressError

ANY = "*"
NOBODYS = frozenset({"localhost"})
"""In the certificate of every server that is tried at home (RFC 6761 section 6.3)."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One ``[[peer]]``."""

    name: str
    """Domain in its certificate."""
    address: tuple[IPv4Network | IPv6Network, ...] = ()
    """Where it is known by its address instead of by a certificate."""
    speaks_for: frozenset[str] = frozenset()
    """Domains it speaks for besides its name; ``*``: all but ours."""
    asserts: bool = False
    """P-Asserted-Identity of it is believed."""


class KnownPeers:
    """Implements ``Peers``.

    Args:
        own: our domains, A-labels.
        peers: what the operator wrote.
    """

    def __init__(self, own: Sequence[str], peers: Sequence[Peer] = ()) -> None:
        self._own = frozenset(own)
        self._peers = tuple(peers)

    def proved(self, host: str, names: Sequence[str]) -> frozenset[str]:
        """See ``Peers.proved``."""
        domains = {domain for name in names if (domain := _domain(name))}
        found = set(domains)
        for peer in self._peers:
            if peer.name in domains or _is_within(host, peer):
                found |= {peer.name, *peer.speaks_for}
        return frozenset(found - self._own - NOBODYS)

    def asserts(self, host: str, names: Sequence[str]) -> bool:
        """See ``Peers.asserts``."""
        believed = [peer for peer in self._peers if peer.asserts]
        if not believed:
            return False
        domains = {_domain(name) for name in names}
        return any(peer.name in domains or _is_within(host, peer) for peer in believed)


def _domain(name: str) -> str:
    """A dNSName as A-labels, "" for what names no single domain."""
    try:
        return Address.im("-", name).domain
    except AddressError:
        return ""


def _is_within(host: str, peer: Peer) -> bool:
    if not peer.address:
        return False
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    if address.version == 6 and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in peer.address)

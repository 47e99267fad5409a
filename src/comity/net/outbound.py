"""Where a stranger's name may lead us: the outbound deny list (reliability.md section 6.1 item 8, U-03, U-04).

Place on the path: between the resolver and step 10. The check is made on the addresses themselves, after DNS, and
the address checked is the address dialled.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from comity.bindings.base import HostPort

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

SHARED = ipaddress.IPv4Network("100.64.0.0/10")
"""Carriers' inside addresses (RFC 6598), which Python counts neither as private nor as global."""

LAST_32_BITS = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
"""NAT64 (RFC 6052) and IPv4-compatible (RFC 4291 section 2.5.5.1) addresses."""


@dataclass(slots=True)
class OutboundPolicy:
    """Says which addresses found by DNS or given by a stranger may be dialled."""

    exempt: tuple[IpNetwork, ...] = ()
    """Networks of ours that may be reached all the same."""
    own: Callable[[], Iterable[HostPort]] = field(default=tuple)
    """Addresses our listeners are bound to."""

    def refusal(self, host: str, port: int) -> str:
        """Say why ``host`` (an IP literal) must not be dialled: "" if it may be."""
        address = ipaddress.ip_address(host)
        if isinstance(address, ipaddress.IPv6Address):
            inner = _inner(address)
            if inner is not None:
                return self.refusal(str(inner), port)
        if self._is_own(address, port):
            return f"{host} port {port} is our own listener"
        if any(address in network for network in self.exempt):
            return ""
        if address.is_unspecified or address.is_loopback:
            return f"{host} is this machine"
        if address.is_link_local:
            return f"{host} is a link-local address"
        if address.is_multicast:
            return f"{host} is a multicast address"
        if address in SHARED or not address.is_global:
            return f"{host} is a private or reserved address"
        return ""

    def _is_own(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> bool:
        for own_host, own_port in self.own():
            if own_port == port:
                own = ipaddress.ip_address(own_host)
                if own == address or (own.is_unspecified and _is_local(address)):
                    return True
        return False


def _inner(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 host an IPv6 address leads to: mapped, 6to4, NAT64 and the old IPv4-compatible spelling."""
    inner = address.ipv4_mapped or address.sixtofour
    if inner is None and int(address) > 1 and any(address in network for network in LAST_32_BITS):
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return inner


def _is_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """True if the address is one of this machine's: the kernel lets us bind to those only."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True

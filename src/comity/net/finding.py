"""The servers of a foreign domain: which protocols it speaks, and the addresses to try for one of them (RFC 3861, RFC 7247).

Place on the path: before step 10, between a hop of the service and the connection a binding makes. Two questions, both answered
from DNS records that ``resolver.py`` remembers for their TTL: ``find`` says by which protocols a domain can be reached, best first;
``targets`` gives the addresses for one protocol, checked against the deny list (U-03), each with the name its certificate has to hold.

What the records say, in this order: the labels of RFC 3861 (``_im._sip``), the protocol's own (RFC 3263, ``_xmpps-server._tcp`` and
``_xmpp-server._tcp``, ``_apex-mesh._tcp``), and only for a domain without any of them its addresses, for every protocol. SIP that is
found by DNS goes by TLS only: who names a server in the clear there could be anybody.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal
from urllib.parse import urlsplit

import dns.name
import dns.rdtypes.IN.SRV

from comity.bindings.base import Target, Transport
from comity.errors import DeliveryError, NoRouteError
from comity.net.resolver import Resolver, noting_ends
from comity.service.interfaces import Clock

Kind = Literal["im", "pres"]
Protocol = Literal["sip", "xmpp", "apex"]
MOST_FOUND = 4096
"""Domains whose protocols are remembered."""
LABEL = "srv:"
"""How a next hop begins that is found under a label of RFC 3861; the label follows (``srv:_im._xmpp``)."""


@dataclass(frozen=True, slots=True)
class Records:
    """Under which names a protocol's servers for other servers stand."""

    services: tuple[tuple[str, Transport], ...]
    """SRV prefixes, each with what is spoken there from the first octet."""
    labelled: Transport
    """What is spoken at a server found under a label of RFC 3861."""
    ports: dict[str, int]
    """Where its servers listen if nothing says where, by transport; the first is meant if nothing says which."""


RECORDS: dict[str, Records] = {
    "sip": Records((("_sips._tcp", "tls"),), "tls", {"tls": 5061, "tcp": 5060, "udp": 5060}),
    "xmpp": Records((("_xmpps-server._tcp", "tls"), ("_xmpp-server._tcp", "tcp")), "tcp", {"tcp": 5269, "tls": 5270}),
    "apex": Records((("_apex-mesh._tcp", "tcp"),), "tcp", {"tcp": 912, "tls": 912}),
}

Service = tuple[Transport, dns.rdtypes.IN.SRV.SRV]


class Finder:
    """Answers both questions.

    Args:
        resolver: asks DNS.
        permitted: leaves out targets that must not be dialled; raises NoRouteError if none is left.
        clock: time for what is remembered.
        most: targets tried for one domain (RFC 3861 section 6).
    """

    def __init__(
        self,
        resolver: Resolver,
        permitted: Callable[[Sequence[Target]], Sequence[Target]],
        clock: Clock,
        most: int = 8,
    ) -> None:
        self._resolver = resolver
        self._permitted = permitted
        self._clock = clock
        self._most = most
        self._found: dict[tuple[object, ...], tuple[Sequence[tuple[str, str]], float]] = {}
        """What was found, and until when the shortest of its records holds."""

    # --- which protocols ---------------------------------------------------------------------------------------

    async def find(
        self, domain: str, kind: Kind, protocols: Sequence[str], asker: str = ""
    ) -> Sequence[tuple[str, str]]:
        """The protocols a domain is reached by, best first, each with its next hop for ``targets``.

        Args:
            domain: A-labels.
            kind: what it is about: messages or presence.
            protocols: those we speak, in the order the operator wants.
            asker: the protocol the question came by: it goes first where the domain speaks it (ADDR-15).

        Raises:
            NoRouteError: there is no such domain, or it says that it offers none of this.
            DeliveryError: DNS cannot say now.
        """
        key = domain, kind, tuple(protocols), asker
        known = self._found.get(key)
        if known is not None and self._clock.now() < known[1]:
            return known[0]
        with noting_ends() as ends:
            found = await self._reachable(domain, await self._spoken(domain, kind, protocols, asker))
        self._found.pop(key, None)
        if ends:
            while len(self._found) >= MOST_FOUND:
                self._found.pop(next(iter(self._found)))
            self._found[key] = found, min(ends)
        return found

    async def _reachable(self, domain: str, found: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
        """Leave out what leads to no address that may be dialled; what cannot be looked up now stays."""
        answers = await asyncio.gather(*(self.targets(*_asked(domain, one)) for one in found), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, DeliveryError):
                raise answer
        kept = [one for one, answer in zip(found, answers, strict=True) if not isinstance(answer, NoRouteError)]
        if not kept:
            raise next(answer for answer in answers if isinstance(answer, NoRouteError))
        return kept

    async def _spoken(self, domain: str, kind: Kind, protocols: Sequence[str], asker: str) -> Sequence[tuple[str, str]]:
        """The protocols that a domain says it speaks."""
        order = sorted(protocols, key=lambda protocol: protocol != asker)
        if _is_literal(domain):
            return [(protocol, "") for protocol in order]
        require_full_name(domain)
        # One question first: a domain whose name servers are silent must not keep a socket for each of the others.
        other = await self._alias(domain)
        looks = await asyncio.gather(*(self._look(domain, kind, protocol) for protocol in order))
        if other and not any(look.next_hops for look in looks):
            looks = await asyncio.gather(*(self._look(other, kind, protocol) for protocol in order))
        found = [
            (protocol != asker, bool(not hop), place, protocol, hop)
            for place, (protocol, look) in enumerate(zip(order, looks, strict=True))
            for hop in look.next_hops
        ]
        if found:
            return [(protocol, hop) for *_, protocol, hop in sorted(found)]
        open_to_us = [protocol for protocol, look in zip(order, looks, strict=True) if not look.is_refused]
        if not open_to_us:
            raise NoRouteError(f"{domain} says that it does not offer this service")
        trouble = next((look.trouble for look in looks if look.trouble is not None), None)
        if trouble is not None:
            raise trouble
        if not await self._resolver.addresses(domain):
            raise NoRouteError(f"{domain} does not exist, or has no server for messages")
        return [(protocol, "") for protocol in open_to_us]

    async def _look(self, domain: str, kind: Kind, protocol: str) -> _Look:
        """What a domain says about one protocol: under its label, else by the protocol's own records."""
        labelled, own, naptr = await asyncio.gather(
            self._resolver.services(f"_{kind}._{protocol}", domain),
            self._own(protocol, domain),
            self._resolver.has_sips(domain) if protocol == "sip" else _no(),
            return_exceptions=True,
        )
        trouble: DeliveryError | None = None
        for answer in (labelled, own, naptr):
            if isinstance(answer, DeliveryError):
                trouble = answer
            elif isinstance(answer, BaseException):
                raise answer
        if isinstance(labelled, list) and labelled:
            if _says_no(labelled):
                return _Look((), is_refused=True)
            return _Look((f"{LABEL}_{kind}._{protocol}",))
        if isinstance(own, list) and _says_no([record for _, record in own]):
            return _Look((), is_refused=True)
        if (isinstance(own, list) and own) or naptr is True:
            return _Look(("",))
        return _Look((), trouble=trouble)

    async def _own(self, protocol: str, domain: str) -> list[Service]:
        """The protocol's own SRV records, all of its prefixes together (XEP-0368)."""
        services = RECORDS[protocol].services
        answers = await asyncio.gather(*(self._resolver.services(prefix, domain) for prefix, _ in services))
        return [
            (transport, record)
            for (_, transport), records in zip(services, answers, strict=True)
            if not _says_no(records)
            for record in records
        ] or [
            (transport, record) for (_, transport), records in zip(services, answers, strict=True) for record in records
        ]

    async def _alias(self, domain: str) -> str:
        """The name that ``domain`` is an alias of; "" if it is none (RFC 3861 section 4)."""
        other = await self._resolver.canonical(domain)
        return "" if other == domain else other

    # --- which addresses ---------------------------------------------------------------------------------------

    async def targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        """Addresses to try in this order, at most as many as are allowed (see ``Network.hop_targets``)."""
        if "://" in next_hop:
            answers = [await self._written(protocol, domain, url) for url in next_hop.split()]
            return [target for found in answers for target in found][: self._most]
        label = next_hop.removeprefix(LABEL) if next_hop else ""
        literal = _is_literal(domain)
        if literal:
            transport, port = self._implied(protocol)
            return self._permitted([Target(transport, literal, port, literal)])
        require_full_name(domain)
        found = await self._at(protocol, domain, label, domain)
        if not found and (other := await self._alias(domain)):
            found = await self._at(protocol, other, label, domain)
        if not found:
            transport, port = self._implied(protocol)
            addresses = await self._resolver.addresses(domain)
            if not addresses:
                raise NoRouteError(f"{domain} does not exist, or has no server for messages")
            found = [Target(transport, address, port, domain) for address in addresses]
        return self._permitted(found)[: self._most]

    async def _at(self, protocol: str, name: str, label: str, domain: str) -> Sequence[Target]:
        """By the records at ``name``, which is ``domain`` or what that is an alias of; empty if there are none."""
        if label:
            transport = RECORDS[protocol].labelled
            services = [(transport, record) for record in await self._resolver.services(label, name)]
        elif protocol == "sip" and await self._resolver.has_sips(name):
            found = await self._resolver.sip("sips", name, None, None)
            return [replace(target, server_name=domain) for target in found]
        else:
            services = await self._own(protocol, name)
        return await self._resolver.targets_of(services, domain, domain) if services else ()

    async def _written(self, protocol: str, domain: str, url: str) -> Sequence[Target]:
        """By what the operator wrote, who may name any address (U-08)."""
        parts = urlsplit(url)
        host, ports = parts.hostname or "", RECORDS[protocol].ports
        if parts.scheme not in ports or not host:
            raise NoRouteError(f"{url} is no address for {protocol}")
        transport: Transport = "tls" if parts.scheme == "tls" else "udp" if parts.scheme == "udp" else "tcp"
        port = parts.port or ports[transport]
        if literal := _is_literal(host):
            return [Target(transport, literal, port, domain)]
        # RFC 6120 section 13.7.2.1: an XMPP server proves the domain; a certificate of SIP or APEX, the host that was chosen.
        server_name = domain if protocol == "xmpp" else host
        addresses = await self._resolver.addresses(host)
        if not addresses:
            raise NoRouteError(f"{host} has no address in DNS")
        return [Target(transport, address, port, server_name) for address in addresses]

    @staticmethod
    def _implied(protocol: str) -> tuple[Transport, int]:
        transport: Transport = "tls" if protocol == "sip" else "tcp"
        return transport, RECORDS[protocol].ports[transport]


@dataclass(frozen=True, slots=True)
class _Look:
    """What a domain says about one protocol."""

    next_hops: tuple[str, ...]
    is_refused: bool = False
    """It says that it does not offer it (an SRV record with the target ".")."""
    trouble: DeliveryError | None = None


def require_full_name(domain: str) -> None:
    """Only fully-qualified names are looked up (ADDR-7). Raises NoRouteError."""
    if "." not in domain.rstrip("."):
        raise NoRouteError(f"{domain} is not a fully-qualified domain name")


def _says_no(records: Sequence[dns.rdtypes.IN.SRV.SRV]) -> bool:
    return bool(records) and all(record.target == dns.name.root for record in records)


def _is_literal(host: str) -> str:
    """The address that a domain or a host is instead of a name, "" if it is a name."""
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]")))
    except ValueError:
        return ""


def _asked(domain: str, found: tuple[str, str]) -> tuple[str, str, str]:
    return found[0], domain, found[1]


async def _no() -> bool:
    return False

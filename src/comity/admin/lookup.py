"""What DNS says of a domain, held against what it should say, and whether somebody answers there.

Place on the path: beside it, for ``comity dns --check``; asks as the server does (``net/resolver.py``, ``net/finding.py``).
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comity.admin.published import Published
from comity.bindings.base import Target, Transport
from comity.config import Config
from comity.errors import ComityError, DeliveryError
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.probe import probe
from comity.net.resolver import Resolver
from comity.net.tls import make_client_context

State = Literal["present", "missing", "different", "unknown", "reached", "unreachable"]
GOOD = ("present", "reached")
_TRANSPORTS: dict[str, Transport] = {"tls": "tls", "tcp": "tcp", "udp": "udp"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found about one record or one server."""

    about: str
    """The record, or the address."""
    state: State
    detail: str = ""
    """What DNS or the server says instead."""
    cure: str = ""
    is_needed: bool = True
    """False: without it others find the server all the same."""

    @property
    def is_good(self) -> bool:
        return self.state in GOOD


class Lookup:
    """Questions about domains; use it inside a running loop.

    Args:
        config: whose DNS servers, authorities and order of protocols count.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        federation = config.federation
        clock = LoopClock()
        servers = federation.nameservers
        self._resolver = Resolver(clock, servers, hosts=None) if servers else Resolver(clock)
        self._network = AsyncNetwork(
            clock,
            resolver=self._resolver,
            outbound=OutboundPolicy(federation.networks),
            most_targets=federation.targets,
        )
        self._context = make_client_context(config.tls.trust)

    async def check(self, domain: str, wanted: Sequence[Published]) -> list[Finding]:
        """Hold the records of one of our domains against DNS, and call each server that they name."""
        compared = await asyncio.gather(*(self._compare(record) for record in wanted))
        called = await asyncio.gather(*(self._call(domain, record) for record in wanted if record.kind == "SRV"))
        unique = {finding.about: finding for findings in called for finding in findings}
        return [*compared, *unique.values()]

    async def _compare(self, record: Published) -> Finding:
        try:
            said = await self._resolver.texts(record.name, record.kind)
        except DeliveryError as error:
            cure = "Ask again later, or name a DNS server below [federation]: nameservers."
            return Finding(record.text, "unknown", str(error), cure, record.is_needed)
        if record.data.lower() in (text.lower() for text in said):
            return Finding(record.text, "present", is_needed=record.is_needed)
        if not said:
            return Finding(record.text, "missing", "", "Add it to the zone.", record.is_needed)
        if record.kind == "SRV" and any(_leads_to_the_same(text, record.data) for text in said):
            return Finding(
                record.text, "present", f"with another priority or weight: {said[0]}", is_needed=record.is_needed
            )
        cure = "Replace it in the zone; a change is seen when the old record's TTL is over."
        return Finding(record.text, "different", f"DNS says {'; '.join(said)}", cure, record.is_needed)

    async def _call(self, domain: str, record: Published) -> list[Finding]:
        """Call who stands behind a record, under TLS where that begins with the first octet."""
        if record.transport == "udp":
            return []
        found: list[Finding] = []
        try:
            services = await self._resolver.services(record.name.removesuffix(f".{domain}"), domain)
            targets = (
                await self._resolver.targets_of(
                    [(_TRANSPORTS[record.transport], service) for service in services], domain, domain
                )
                if services
                else []
            )
        except DeliveryError as error:
            cure = "Give the name in the SRV record an A or AAAA record."
            return [Finding(record.name, "unreachable", str(error), cure, record.is_needed)]
        for target in targets:
            found.append(await self._reach(target, record.is_needed))
        return found

    async def _reach(self, target: Target, is_needed: bool = True) -> Finding:
        about = _url(target)
        note = ""
        if not ipaddress.ip_address(target.host).is_global:
            note = f"{target.host} is not an address of the open Internet"
        try:
            await probe(target, self._context)
        except DeliveryError as error:
            cure = "Is the server running, and does its firewall let this port in?"
            if "certificate" in str(error):
                cure = f"Get a certificate that names {target.server_name}; [tls] trust says whom to believe."
            return Finding(about, "unreachable", str(error), cure, is_needed)
        return Finding(about, "reached", note, is_needed=is_needed)

    async def reach(self, domain: str) -> list[Finding]:
        """How a foreign domain would be reached from here: each protocol, and whether its servers answer."""
        found: list[Finding] = []
        try:
            hops = await self._network.find(domain, "im", self._config.federation.order)
        except DeliveryError as error:
            return [Finding(domain, "unreachable", str(error), "Look at its spelling; ask whoever runs it.")]
        for place, (protocol, next_hop) in enumerate(hops):
            by = f"{protocol}" + (f" by {next_hop.removeprefix('srv:')}" if next_hop else "")
            try:
                targets = await self._network.hop_targets(protocol, domain, next_hop)
            except ComityError as error:
                found.append(Finding(f"{domain} by {by}", "unreachable", str(error), is_needed=not place))
                continue
            for target in targets:
                finding = await self._reach(target, is_needed=not place)
                found.append(Finding(f"{by}: {finding.about}", finding.state, finding.detail, finding.cure, not place))
        return found


def _leads_to_the_same(one: str, other: str) -> bool:
    """True if two SRV records differ by priority and weight at most."""
    return one.lower().split()[2:] == other.lower().split()[2:]


def _url(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{target.transport}://{host}:{target.port}"

"""Where the relay of a domain is: route, SRV record, address literal (RFC 3340 section 3.1; ADDR-17)."""

from __future__ import annotations

import ipaddress

import pytest

from comity.bindings.apex.targets import Way
from comity.bindings.base import Target
from comity.errors import DeliveryError
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.resolver import Resolver
from comity.testing.clock import FakeClock
from comity.testing.dns import DnsServer
from tests.net.kit import run_async

ZONE = """
_apex-mesh._tcp.b.test. 300 IN SRV 10 0 1912 second.b.test.
_apex-mesh._tcp.b.test. 300 IN SRV 5 0 2912 first.b.test.
first.b.test. 300 IN A 198.51.100.1
second.b.test. 300 IN A 198.51.100.2
plain.test. 300 IN A 198.51.100.3
inside.test. 300 IN A 127.0.0.1
_apex-mesh._tcp.none.test. 300 IN SRV 0 0 0 .
"""
ALLOWED = ("198.51.100.0/24", "10.0.0.1/32")


def network(dns: DnsServer) -> AsyncNetwork:
    """A network that asks ``dns``; the documentation's addresses stand for public ones."""
    policy = OutboundPolicy(tuple(ipaddress.ip_network(text) for text in ALLOWED))
    return AsyncNetwork(FakeClock(), resolver=Resolver(FakeClock(), [dns.address], hosts=None), outbound=policy)


async def found(domain: str, next_hop: str = "") -> list[Target]:
    async with DnsServer(ZONE) as dns:
        return list(await Way.of(domain, next_hop).targets(network(dns), 912))


@run_async
async def test_srv_records_say_where_the_relays_are_in_the_order_of_their_priority() -> None:
    """ADDR-17: ``_apex-mesh._tcp``; the first one that answers is used, the others are for when it does not."""
    assert await found("b.test") == [
        Target("tcp", "198.51.100.1", 2912, "b.test"),
        Target("tcp", "198.51.100.2", 1912, "b.test"),
    ]


@run_async
async def test_domain_without_srv_is_called_at_its_address_and_the_port_of_apex_mesh() -> None:
    assert await found("plain.test") == [Target("tcp", "198.51.100.3", 912, "plain.test")]


@pytest.mark.parametrize("domain", ["10.0.0.1", "[10.0.0.1]"])
@run_async
async def test_domain_literal_is_called_directly(domain: str) -> None:
    """ADDR-17; RFC 3340 section 3.1: the address of the literal, the port that IANA gave apex-mesh, no DNS."""
    async with DnsServer(ZONE) as dns:
        assert list(await Way.of(domain).targets(network(dns), 912)) == [Target("tcp", "10.0.0.1", 912, "10.0.0.1")]
        assert dns.asked == []


@pytest.mark.parametrize("domain", ["inside.test", "[127.0.0.1]", "[::1]"])
@run_async
async def test_names_of_strangers_do_not_lead_inside(domain: str) -> None:
    """U-03: what the operator did not write himself may not name this machine or its network."""
    with pytest.raises(DeliveryError, match="this machine"):
        await found(domain)


@run_async
async def test_domain_that_has_no_relay_by_its_own_word_is_not_called() -> None:
    with pytest.raises(DeliveryError, match="does not offer"):
        await found("none.test")


@run_async
async def test_route_of_the_operator_may_lead_anywhere_and_names_the_certificate() -> None:
    assert await found("b.test", "tls://127.0.0.1:5000") == [Target("tls", "127.0.0.1", 5000, "127.0.0.1")]
    assert await found("b.test", "tcp://inside.test:5000") == [Target("tcp", "127.0.0.1", 5000, "inside.test")]
    assert await found("c.test", "tcp://b.test") == [
        Target("tcp", "198.51.100.1", 2912),
        Target("tcp", "198.51.100.2", 1912),
    ]


def test_domains_of_one_next_hop_share_a_way_and_others_have_one_each() -> None:
    assert Way.of("b.test", "tls://relay.test") == Way.of("c.test", "tls://relay.test")
    assert Way.of("b.test") != Way.of("c.test")
    assert Way.of("b.test").server_name == "b.test"
    assert Way.of("b.test", "tls://relay.test").server_name == "relay.test"


@pytest.mark.parametrize("next_hop", ["udp://b.test", "tls://", "tls://b.test:port", "nonsense"])
def test_next_hop_that_no_apex_relay_can_have_is_refused(next_hop: str) -> None:
    with pytest.raises(DeliveryError):
        Way.of("b.test", next_hop)

"""Finding the servers of foreign domains (ADDR-5 to ADDR-17) against a DNS server on real sockets, odd answers included."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import dns.rcode
import pytest

from comity.bindings.base import HostPort, Listener, Target
from comity.cpim.address import Address
from comity.errors import DeliveryError, NoRouteError
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.resolver import Resolver
from comity.testing.clock import FakeClock
from comity.testing.dns import DnsServer
from tests.net.kit import EchoBinding, run_async

ORDER = ("xmpp", "sip", "apex")
PUBLIC = ("198.51.100.0/24", "2001:db8::/32")
"""The documentation's addresses stand for public ones."""

ZONE = """
_im._xmpp.labels.test.   300 IN SRV 0 0 7269 gw.labels.test.
_im._sip.labels.test.    300 IN SRV 0 0 7061 gw.labels.test.
_pres._sip.labels.test.  300 IN SRV 0 0 7062 gw.labels.test.
_xmpp-server._tcp.labels.test. 300 IN SRV 0 0 5269 native.labels.test.
gw.labels.test.          300 IN A 198.51.100.1
native.labels.test.      300 IN A 198.51.100.2
_xmpp-server._tcp.xmpp.test.  300 IN SRV 10 0 5269 first.xmpp.test.
_xmpps-server._tcp.xmpp.test. 300 IN SRV 5 0 443 first.xmpp.test.
_xmpps-server._tcp.xmpp.test. 300 IN SRV 20 0 5270 second.xmpp.test.
first.xmpp.test.         300 IN A 198.51.100.11
second.xmpp.test.        300 IN A 198.51.100.12
second.xmpp.test.        300 IN AAAA 2001:db8::12
xmpp.test.               300 IN A 198.51.100.99
sip.test.                300 IN NAPTR 10 0 "s" "SIPS+D2T" "" _secure._tcp.sip.test.
sip.test.                300 IN NAPTR 5 0 "s" "SIP+D2U" "" _sip._udp.sip.test.
_secure._tcp.sip.test.   300 IN SRV 0 0 5071 first.xmpp.test.
_sip._udp.sip.test.      300 IN SRV 0 0 5060 first.xmpp.test.
_apex-mesh._tcp.apex.test. 300 IN SRV 0 0 912 first.xmpp.test.
six.test.                300 IN AAAA 2001:db8::6
alias.test.              300 IN CNAME xmpp.test.
dead.test.               300 IN A 198.51.100.9
_xmpp-server._tcp.dead.test. 300 IN SRV 0 0 5269 missing.dead.test.
_xmpp-server._tcp.no.test. 300 IN SRV 0 0 0 .
_sips._tcp.no.test.      300 IN SRV 0 0 0 .
_im._apex.no.test.       300 IN SRV 0 0 0 .
no.test.                 300 IN A 198.51.100.9
_xmpps-server._tcp.half.test. 300 IN SRV 0 0 0 .
_xmpp-server._tcp.half.test.  300 IN SRV 0 0 5269 first.xmpp.test.
_xmpp-server._tcp.inside.test. 300 IN SRV 0 0 5269 localhost.
_sips._tcp.inside.test.  300 IN SRV 0 0 5061 ten.inside.test.
ten.inside.test.         300 IN A 10.0.0.1
localhost.               300 IN A 127.0.0.1
_xmpp-server._tcp.mixed.test. 300 IN SRV 0 0 5269 ten.inside.test.
_xmpp-server._tcp.mixed.test. 300 IN SRV 1 0 5269 first.xmpp.test.
_xmpp-server._tcp.xn--bcher-kva.test. 300 IN SRV 0 0 5269 first.xmpp.test.
empty.test.              300 IN TXT "nothing here"
"""


class World:
    """A network that asks a DNS server of the test."""

    def __init__(self, server: DnsServer, most: int = 8, own: Sequence[HostPort] = ()) -> None:
        self.clock = FakeClock()
        self.dns = server
        resolver = Resolver(self.clock, [server.address], hosts=None)
        policy = OutboundPolicy(tuple(ipaddress.ip_network(text) for text in PUBLIC))
        self.network = AsyncNetwork(self.clock, resolver=resolver, outbound=policy, most_targets=most)

    async def find(self, domain: str, asker: str = "", kind: str = "im", order: Sequence[str] = ORDER) -> list[str]:
        found = await self.network.find(domain, kind, order, asker)  # type: ignore[arg-type]  # written as plain text
        return [f"{protocol} {next_hop}".strip() for protocol, next_hop in found]

    async def targets(self, protocol: str, domain: str, next_hop: str = "") -> list[str]:
        return brief(await self.network.hop_targets(protocol, domain, next_hop))


def brief(targets: Sequence[Target]) -> list[str]:
    return [f"{target.transport} {target.host} {target.port}" for target in targets]


@asynccontextmanager
async def world(zone: str = ZONE, most: int = 8) -> AsyncIterator[World]:
    async with DnsServer(zone) as server:
        yield World(server, most)


class TestProtocols:
    """Which protocols a domain speaks."""

    @run_async
    async def test_labels_of_rfc_3861_name_the_protocol_and_its_host(self) -> None:
        """ADDR-6, ADDR-14: one query a protocol, each label with an underscore; im: and pres: apart."""
        async with world() as w:
            assert await w.find("labels.test", order=("sip", "apex")) == ["sip srv:_im._sip"]
            assert await w.targets("sip", "labels.test", "srv:_im._sip") == ["tls 198.51.100.1 7061"]
            assert await w.find("labels.test", kind="pres", order=("sip", "apex")) == ["sip srv:_pres._sip"]
            assert await w.targets("sip", "labels.test", "srv:_pres._sip") == ["tls 198.51.100.1 7062"]
            assert await w.targets("xmpp", "labels.test", "srv:_im._xmpp") == ["tcp 198.51.100.1 7269"]
            asked = Counter(question for question in w.dns.asked if question.startswith("_im._"))
            assert asked == {f"_im._{name}.labels.test SRV": 1 for name in ("sip", "xmpp", "apex")}

    @run_async
    async def test_the_operators_order_decides_and_the_askers_protocol_goes_before_it(self) -> None:
        """ADDR-12, ADDR-15, X25."""
        async with world() as w:
            assert (await w.find("labels.test", order=("sip", "xmpp")))[0] == "sip srv:_im._sip"
            assert (await w.find("labels.test", order=("xmpp", "sip")))[0] == "xmpp srv:_im._xmpp"
            assert (await w.find("labels.test", "sip", order=("xmpp", "sip")))[0] == "sip srv:_im._sip"
            assert (await w.find("six.test", "apex")) == ["apex", "xmpp", "sip"]

    @run_async
    async def test_the_protocols_own_records_count_where_there_is_no_label(self) -> None:
        """ADDR-15: a domain with _xmpp-server only that is asked for from SIP is reached by XMPP; ADDR-17."""
        async with world() as w:
            assert await w.find("xmpp.test", "sip") == ["xmpp"]
            assert await w.find("sip.test", "xmpp") == ["sip"]
            assert await w.find("apex.test", "xmpp") == ["apex"]

    @run_async
    async def test_a_domain_with_nothing_but_an_address_has_a_server_of_any_protocol_there(self) -> None:
        """ADDR-9: an implicit SRV record, for AAAA alone too."""
        async with world() as w:
            assert await w.find("six.test") == ["xmpp", "sip", "apex"]
            assert await w.targets("xmpp", "six.test") == ["tcp 2001:db8::6 5269"]
            assert await w.targets("sip", "six.test") == ["tls 2001:db8::6 5061"]
            assert await w.targets("apex", "six.test") == ["tcp 2001:db8::6 912"]

    @run_async
    async def test_an_alias_is_looked_up_as_what_it_stands_for_and_proves_its_own_name(self) -> None:
        """ADDR-8: CNAME restarts the look-up; the certificate has to name the domain that was asked for."""
        async with world() as w:
            assert await w.find("alias.test") == ["xmpp"]
            targets = await w.network.hop_targets("xmpp", "alias.test", "")
            assert brief(targets)[0] == "tls 198.51.100.11 443"
            assert {target.server_name for target in targets} == {"alias.test"}

    @run_async
    async def test_only_full_names_are_looked_up(self) -> None:
        """ADDR-7: no search list, no question at all."""
        async with world() as w:
            for name in ("host", "host.", "localhost"):
                with pytest.raises(NoRouteError, match="fully-qualified"):
                    await w.find(name)
                with pytest.raises(NoRouteError, match="fully-qualified"):
                    await w.targets("xmpp", name)
            assert w.dns.asked == []

    @run_async
    async def test_a_domain_that_does_not_exist_or_offers_nothing_is_told_apart_from_trouble(self) -> None:
        """ADDR-18: the first two are final."""
        async with world() as w:
            for name in ("missing.test", "empty.test"):
                with pytest.raises(NoRouteError, match="does not exist"):
                    await w.find(name)
            with pytest.raises(NoRouteError, match="does not offer"):
                await w.find("no.test")
            w.dns.rcode = dns.rcode.SERVFAIL
            with pytest.raises(DeliveryError) as trouble:
                await w.find("other.test")
            assert not isinstance(trouble.value, NoRouteError)

    @run_async
    async def test_the_protocol_of_a_domain_is_remembered_for_the_ttl_and_no_longer(self) -> None:
        """ADDR-16: then a changed record is a new route; the shortest TTL of all that was used counts."""
        async with world("_xmpp-server._tcp.b.test. 30 IN SRV 0 0 1 h.test.\nh.test. 300 IN A 198.51.100.1") as w:
            assert await w.find("b.test") == ["xmpp"]
            asked = len(w.dns.asked)
            w.dns.load("_sips._tcp.b.test. 300 IN SRV 0 0 1 h.test.\nh.test. 300 IN A 198.51.100.1")
            w.clock.advance(29)
            assert await w.find("b.test") == ["xmpp"]
            assert len(w.dns.asked) == asked
            w.clock.advance(61)
            assert await w.find("b.test") == ["sip"]

    @run_async
    async def test_any_number_of_domains_is_found_without_agreement(self) -> None:
        """ADDR-5."""
        lines = [f"_xmpp-server._tcp.d{n}.test. 300 IN SRV 0 0 {5000 + n} h.test." for n in range(50)]
        async with world("\n".join([*lines, "h.test. 300 IN A 198.51.100.1"])) as w:
            for n in range(50):
                assert await w.targets("xmpp", f"d{n}.test") == [f"tcp 198.51.100.1 {5000 + n}"]


class TestTargets:
    """Which addresses are tried for one protocol."""

    @run_async
    async def test_direct_tls_and_starttls_are_mixed_by_priority(self) -> None:
        """ADDR-17, RFC 6120 section 3.2.1, XEP-0368; ADDR-8: the domain's own address is not used beside SRV records."""
        async with world() as w:
            assert await w.targets("xmpp", "xmpp.test") == [
                "tls 198.51.100.11 443",
                "tcp 198.51.100.11 5269",
                "tls 198.51.100.12 5270",
                "tls 2001:db8::12 5270",
            ]

    @run_async
    async def test_one_of_the_two_that_is_not_offered_leaves_the_other(self) -> None:
        async with world() as w:
            assert await w.targets("xmpp", "half.test") == ["tcp 198.51.100.11 5269"]
            with pytest.raises(NoRouteError, match="does not offer"):
                await w.targets("xmpp", "no.test")

    @run_async
    async def test_weights_share_the_load_over_both_kinds(self) -> None:
        """ADDR-11: 90 to 10 is about 9 to 1 over 1000 picks."""
        zone = (
            "_xmpps-server._tcp.w.test. 300 IN SRV 0 90 1 a.test.\n_xmpp-server._tcp.w.test. 300 IN SRV 0 10 2 a.test.\n"
            "a.test. 300 IN A 198.51.100.1"
        )
        async with world(zone) as w:
            first = Counter([(await w.targets("xmpp", "w.test"))[0].partition(" ")[0] for _ in range(1000)])
            assert 850 <= first["tls"] <= 940, first

    @run_async
    async def test_sip_found_by_dns_goes_by_tls_only(self) -> None:
        """Never from TLS to the clear: NAPTR and SRV records for UDP are not looked at, whatever their order."""
        async with world() as w:
            targets = await w.network.hop_targets("sip", "sip.test", "")
            assert brief(targets) == ["tls 198.51.100.11 5071"]
            assert targets[0].server_name == "sip.test"

    @run_async
    async def test_servers_without_an_address_are_no_reason_to_call_the_domain_itself(self) -> None:
        """ADDR-8: SRV targets down, A of the domain up: failure."""
        async with world() as w:
            with pytest.raises(NoRouteError, match="no address"):
                await w.targets("xmpp", "dead.test")

    @run_async
    async def test_no_more_targets_than_allowed_are_tried(self) -> None:
        """ADDR-10: a configured cap."""
        async with world(most=2) as w:
            assert await w.targets("xmpp", "xmpp.test") == ["tls 198.51.100.11 443", "tcp 198.51.100.11 5269"]

    @run_async
    async def test_literals_are_called_directly_if_they_may_be(self) -> None:
        """ADDR-17: an APEX domain literal."""
        async with world() as w:
            assert await w.targets("apex", "[198.51.100.77]") == ["tcp 198.51.100.77 912"]
            with pytest.raises(NoRouteError, match="no permitted route"):
                await w.targets("apex", "[10.0.0.1]")
            assert w.dns.asked == []

    @run_async
    async def test_what_the_operator_wrote_may_lead_anywhere(self) -> None:
        """U-08: and its certificate names the host, for XMPP the domain (RFC 6120 section 13.7.2.1)."""
        async with world() as w:
            url = "tls://ten.inside.test:5555"
            (sip,) = await w.network.hop_targets("sip", "b.test", url)
            (xmpp,) = await w.network.hop_targets("xmpp", "b.test", url)
            assert (sip.host, sip.server_name, xmpp.server_name) == ("10.0.0.1", "ten.inside.test", "b.test")
            both = await w.targets("sip", "b.test", "tls://10.0.0.1 tls://[::1]:7")
            assert both == ["tls 10.0.0.1 5061", "tls ::1 7"]


class TestTrouble:
    """Records that lead where nobody may go, and that never end."""

    @run_async
    async def test_records_that_lead_inside_are_no_route(self) -> None:
        """U-03: localhost and 10.0.0.1."""
        async with world() as w:
            for asker in ("xmpp", "sip"):
                with pytest.raises(NoRouteError, match="no permitted route"):
                    await w.find("inside.test", asker)
            assert await w.targets("xmpp", "mixed.test") == ["tcp 198.51.100.11 5269"]

    @run_async
    async def test_a_domain_that_leads_to_our_own_listener_is_no_route(self) -> None:
        """U-03: no loop through ourselves, even where the network is exempt."""
        async with DnsServer("") as server:
            w = World(server)
            w.network._outbound.exempt = (ipaddress.ip_network("127.0.0.0/8"),)
            (bound,) = await w.network.open(EchoBinding(Listener("tcp", "127.0.0.1", 0)))
            port = bound.address[1]
            server.load(f"_xmpp-server._tcp.us.test. 60 IN SRV 0 0 {port} h.test.\nh.test. 60 IN A 127.0.0.1")
            with pytest.raises(NoRouteError, match="our own listener"):
                await w.find("us.test")
            await w.network.close()

    @run_async
    async def test_the_address_that_was_checked_is_the_one_that_is_dialled(self) -> None:
        """U-04: targets hold addresses, and no name is looked up again when one is dialled."""
        async with DnsServer("") as server:
            here, there = World(server), World(server)
            here.network._outbound.exempt = (ipaddress.ip_network("127.0.0.0/8"),)
            (bound,) = await there.network.open(EchoBinding(Listener("tcp", "127.0.0.1", 0)))
            srv = f"_xmpp-server._tcp.b.test. 1 IN SRV 0 0 {bound.address[1]} h.test.\n"
            server.load(srv + "h.test. 1 IN A 127.0.0.1")
            (target,) = await here.network.hop_targets("xmpp", "b.test", "")
            server.load(srv + "h.test. 1 IN A 127.0.0.2")
            here.clock.advance(10)
            asked = len(server.asked)
            link = await here.network.connect(EchoBinding(Listener("tcp", "127.0.0.1", 0)), target)
            assert link.peer.remote == bound.address
            assert len(server.asked) == asked
            await here.network.close()
            await there.network.close()

    @run_async
    async def test_chains_and_floods_of_records_end(self) -> None:
        """U-05: 50 aliases, 1000 records, an alias of itself: limits, and trouble rather than a final word."""
        chain = "".join(f"c{n}.test. 300 IN CNAME c{n + 1}.test.\n" for n in range(12))
        chain += "c12.test. 300 IN A 198.51.100.1\n"
        many = "".join(f"_xmpp-server._tcp.many.test. 300 IN SRV {n} 0 {n + 1} h{n}.test.\n" for n in range(1000))
        many += "".join(f"h{n}.test. 300 IN A 198.51.100.{n + 1}\n" for n in range(20))
        async with world(chain + many + "loop.test. 300 IN CNAME loop.test.") as w:
            for name in ("c0.test", "loop.test"):
                with pytest.raises(DeliveryError) as trouble:
                    await w.find(name)
                assert not isinstance(trouble.value, NoRouteError)
            assert len(await w.targets("xmpp", "many.test")) == 8
            assert len([question for question in w.dns.asked if question.startswith("h")]) <= 2 * 16

    @run_async
    async def test_a_domain_that_dns_does_not_answer_for_costs_one_question(self) -> None:
        """U-06, and nobody can use up the sockets with domains of silent name servers."""
        async with world() as w:
            w.dns.rcode = dns.rcode.SERVFAIL
            with pytest.raises(DeliveryError):
                await w.find("silent.test", "sip")
            assert set(w.dns.asked) == {"silent.test A"}

    @run_async
    async def test_while_dns_is_down_what_was_found_is_used_without_asking_each_time(self) -> None:
        """F-26: for an hour past its TTL; and ADDR-16 again as soon as DNS answers."""
        async with world() as w:
            assert await w.find("xmpp.test") == ["xmpp"]
            w.clock.advance(301)
            w.dns.rcode = dns.rcode.SERVFAIL
            assert await w.find("xmpp.test") == ["xmpp"]
            asked = len(w.dns.asked)
            for _ in range(5):
                assert await w.find("xmpp.test") == ["xmpp"]
            assert len(w.dns.asked) == asked
            w.dns.rcode = dns.rcode.NOERROR
            w.dns.load("_sips._tcp.xmpp.test. 300 IN SRV 0 0 1 h.test.\nh.test. 300 IN A 198.51.100.1")
            w.clock.advance(31)
            assert await w.find("xmpp.test") == ["sip"]
            w.dns.rcode = dns.rcode.SERVFAIL
            w.clock.advance(301 + 3601)
            with pytest.raises(DeliveryError):
                await w.find("xmpp.test")

    @run_async
    async def test_names_are_compared_as_a_labels(self) -> None:
        """U-07: an IDNA name is asked for in its A-labels, and names with odd octets are none."""
        async with world() as w:
            domain = Address.parse("im:a@bücher.test").domain
            assert await w.find(domain) == ["xmpp"]
            (target,) = await w.network.hop_targets("xmpp", domain, "")
            assert target.server_name == "xn--bcher-kva.test"
            for odd in ("a..test", "a" * 64 + ".test", "bücher.test"):
                with pytest.raises(NoRouteError):
                    await w.find(odd)

    @run_async
    async def test_an_answer_that_is_not_ours_or_cut_is_not_used(self) -> None:
        """U-06: a wrong ID is passed over, a truncated answer is fetched whole by TCP."""
        async with world() as w:
            w.dns.forges = w.dns.truncates = True
            assert await w.find("xmpp.test") == ["xmpp"]

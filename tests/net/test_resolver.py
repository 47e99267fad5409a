"""RFC 3263 section 4 against a DNS server on real sockets; order, fail-over, cache, trouble (U-03, U-05, U-06, F-26)."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import dns.rcode
import dns.rdata
import dns.rdtypes.IN.SRV
import pytest

from comity.bindings.base import HostPort, Listener, Target
from comity.errors import DeliveryError
from comity.net import resolver as module
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.resolver import Resolver
from comity.testing.clock import FakeClock
from comity.testing.dns import DnsServer
from tests.net.kit import EchoBinding, run_async

ZONE = """
full.test.           300 IN NAPTR 50 50 "s" "SIPS+D2T" "" _sips._tcp.full.test.
full.test.           300 IN NAPTR 90 50 "s" "SIP+D2T" "" _sip._tcp.full.test.
full.test.           300 IN NAPTR 100 50 "s" "SIP+D2U" "" _sip._udp.full.test.
_sips._tcp.full.test. 300 IN SRV 10 1 5071 tls1.full.test.
_sips._tcp.full.test. 300 IN SRV 20 1 5072 tls2.full.test.
_sip._tcp.full.test. 300 IN SRV 10 1 5070 tcp.full.test.
_sip._udp.full.test. 300 IN SRV 10 1 5070 udp.full.test.
tls1.full.test.      300 IN A 198.51.100.1
tls2.full.test.      300 IN A 198.51.100.2
tls2.full.test.      300 IN AAAA 2001:db8::2
tcp.full.test.       300 IN A 198.51.100.3
udp.full.test.       300 IN A 198.51.100.4
full.test.           300 IN A 198.51.100.9
odd.test.            300 IN NAPTR 10 10 "s" "SIP+D2S" "" _sip._sctp.odd.test.
odd.test.            300 IN NAPTR 10 20 "s" "SIPS+D2U" "" _sips._udp.odd.test.
odd.test.            300 IN NAPTR 10 30 "u" "E2U+sip" "!^.*$!sip:x@odd.test!" .
odd.test.            300 IN NAPTR 20 20 "S" "sip+d2u" "" _sip._udp.elsewhere.test.
odd.test.            300 IN NAPTR 20 10 "s" "SIP+D2T" "" _sip._tcp.elsewhere.test.
_sip._udp.elsewhere.test. 300 IN SRV 0 0 5080 udp.full.test.
_sip._tcp.elsewhere.test. 300 IN SRV 0 0 5081 tcp.full.test.
srv.test.            300 IN A 198.51.100.9
_sip._tcp.srv.test.  300 IN SRV 0 0 5090 tcp.full.test.
_sip._udp.srv.test.  300 IN SRV 0 0 5091 udp.full.test.
plain.test.          300 IN A 198.51.100.7
plain.test.          300 IN AAAA 2001:db8::7
_sip._udp.none.test. 300 IN SRV 0 0 0 .
_sip._tcp.half.test. 300 IN SRV 0 0 5060 missing.half.test.
_sip._tcp.half.test. 300 IN SRV 1 0 5060 tcp.full.test.
_xmpp-server._tcp.chat.test. 300 IN SRV 5 0 5269 plain.test.
loop.test.           300 IN CNAME loop.test.
inside.test.         300 IN A 10.0.0.1
inside.test.         300 IN A 198.51.100.5
"""


@asynccontextmanager
async def asking(zone: str = ZONE, clock: FakeClock | None = None) -> AsyncIterator[tuple[Resolver, DnsServer]]:
    async with DnsServer(zone) as server:
        yield Resolver(clock or FakeClock(), [server.address], hosts=None), server


def brief(targets: list[Target]) -> list[str]:
    return [f"{target.transport} {target.host} {target.port}" for target in targets]


class TestSection41And42:
    """RFC 3263 sections 4.1 and 4.2."""

    @pytest.mark.parametrize(
        ("service", "host", "port", "transport", "expected"),
        [
            ("sip", "192.0.2.1", None, None, "udp 192.0.2.1 5060"),
            ("sips", "192.0.2.1", None, None, "tls 192.0.2.1 5061"),
            ("sip", "[2001:db8::1]", None, None, "udp 2001:db8::1 5060"),
            ("sip", "192.0.2.1", 5099, "tcp", "tcp 192.0.2.1 5099"),
            ("sips", "192.0.2.1", 5099, "tcp", "tls 192.0.2.1 5099"),
            ("sip", "192.0.2.1", None, "tls", "tls 192.0.2.1 5061"),
        ],
    )
    @run_async
    async def test_numeric_target_needs_no_dns(
        self, service: str, host: str, port: int | None, transport: str | None, expected: str
    ) -> None:
        async with asking() as (resolver, server):
            targets = await resolver.sip(service, host, port, transport)  # type: ignore[arg-type]  # parametrized literals
            assert brief(targets) == [expected]
            assert server.asked == []

    @run_async
    async def test_explicit_port_means_address_records_only(self) -> None:
        async with asking() as (resolver, server):
            assert brief(await resolver.sip("sip", "full.test", 5060, None)) == ["udp 198.51.100.9 5060"]
            assert brief(await resolver.sip("sips", "full.test", 5061, None)) == ["tls 198.51.100.9 5061"]
            assert sorted(server.asked) == ["full.test A", "full.test AAAA"]

    @run_async
    async def test_given_transport_means_srv_of_that_transport(self) -> None:
        async with asking() as (resolver, server):
            assert brief(await resolver.sip("sip", "full.test", None, "udp")) == ["udp 198.51.100.4 5070"]
            assert brief(await resolver.sip("sip", "full.test", None, "tls")) == [
                "tls 198.51.100.1 5071",
                "tls 198.51.100.2 5072",
                "tls 2001:db8::2 5072",
            ]
            assert brief(await resolver.sip("sip", "plain.test", None, "tcp")) == [
                "tcp 198.51.100.7 5060",
                "tcp 2001:db8::7 5060",
            ]
            assert "full.test NAPTR" not in server.asked

    @run_async
    async def test_naptr_of_the_lowest_order_decides_the_transport(self) -> None:
        async with asking() as (resolver, _):
            targets = await resolver.sip("sip", "full.test", None, None)
            assert [target.transport for target in targets] == ["tls"] * 3
            assert {target.server_name for target in targets} == {"full.test"}, "the name asked for, not the one found"

    @run_async
    async def test_naptr_that_does_not_apply_is_discarded_and_preference_orders_the_rest(self) -> None:
        async with asking() as (resolver, _):
            assert brief(await resolver.sip("sip", "odd.test", None, None)) == [
                "tcp 198.51.100.3 5081",
                "udp 198.51.100.4 5080",
            ]

    @run_async
    async def test_sips_never_uses_anything_but_tls(self) -> None:
        async with asking() as (resolver, _):
            assert {target.transport for target in await resolver.sip("sips", "full.test", None, None)} == {"tls"}
            with pytest.raises(DeliveryError):
                await resolver.sip("sips", "odd.test", None, None)
            with pytest.raises(DeliveryError, match="SIPS does not go over UDP"):
                await resolver.sip("sips", "full.test", None, "udp")

    @run_async
    async def test_without_naptr_srv_of_every_transport_is_asked_and_the_safest_offered_wins(self) -> None:
        async with asking() as (resolver, server):
            assert brief(await resolver.sip("sip", "srv.test", None, None)) == ["tcp 198.51.100.3 5090"]
            assert {f"{prefix}.srv.test SRV" for prefix in ("_sips._tcp", "_sip._tcp", "_sip._udp")} <= set(
                server.asked
            )

    @run_async
    async def test_without_srv_the_default_is_udp_5060_or_tls_5061(self) -> None:
        async with asking() as (resolver, _):
            assert brief(await resolver.sip("sip", "plain.test", None, None)) == [
                "udp 198.51.100.7 5060",
                "udp 2001:db8::7 5060",
            ]
            assert brief(await resolver.sip("sips", "plain.test", None, None)) == [
                "tls 198.51.100.7 5061",
                "tls 2001:db8::7 5061",
            ]

    @run_async
    async def test_other_services_are_found_by_srv_too(self) -> None:
        async with asking() as (resolver, _):
            found = await resolver.service("_xmpp-server._tcp", "chat.test", 5269, "tcp")
            assert brief(found)[0] == "tcp 198.51.100.7 5269"
            assert brief(await resolver.service("_xmpp-server._tcp", "plain.test", 5269, "tcp"))[0].endswith("5269")


class TestSrvOrder:
    """RFC 2782, "Usage rules"; RFC 3263 section 4.3."""

    @staticmethod
    def records(*rows: tuple[int, int, int]) -> list[dns.rdtypes.IN.SRV.SRV]:
        made = []
        for priority, weight, port in rows:
            record = dns.rdata.from_text("IN", "SRV", f"{priority} {weight} {port} a.test.")
            assert isinstance(record, dns.rdtypes.IN.SRV.SRV)
            made.append(record)
        return made

    def test_lower_priority_always_comes_first(self) -> None:
        records = self.records((20, 100, 3), (10, 0, 1), (10, 5, 2), (30, 9, 4))
        for seed in range(50):
            resolver = Resolver(FakeClock(), [], uniform=random.Random(seed).random, hosts=None)
            ports = [record.port for record in resolver.order(records)]
            assert (set(ports[:2]), ports[2:]) == ({1, 2}, [3, 4])

    def test_weights_share_the_load(self) -> None:
        resolver = Resolver(FakeClock(), [], uniform=random.Random(1).random, hosts=None)
        records = self.records((0, 75, 1), (0, 25, 2), (0, 0, 3))
        first = Counter(resolver.order(records)[0].port for _ in range(4000))
        assert 0.70 < first[1] / 4000 < 0.79
        assert 0.20 < first[2] / 4000 < 0.29
        assert 0 < first[3] / 4000 < 0.03, "a weight of 0 has a very small chance, not none"

    @run_async
    async def test_server_without_address_is_left_out(self) -> None:
        async with asking() as (resolver, _):
            assert brief(await resolver.sip("sip", "half.test", None, "tcp")) == ["tcp 198.51.100.3 5060"]


class TestTrouble:
    @run_async
    async def test_unknown_names_are_said_in_a_sentence(self) -> None:
        async with asking() as (resolver, _):
            with pytest.raises(DeliveryError, match=r"nobody\.test has no address in DNS"):
                await resolver.sip("sip", "nobody.test", None, None)
            with pytest.raises(DeliveryError, match="does not offer this service"):
                await resolver.sip("sip", "none.test", None, "udp")
            for name in ("x" * 64 + ".test", "müller.test", "a..test"):
                with pytest.raises(DeliveryError, match="is not a host name"):
                    await resolver.sip("sip", name, None, None)

    @run_async
    async def test_alias_loop_ends(self) -> None:
        """U-05."""
        async with asking() as (resolver, _):
            with pytest.raises(DeliveryError):
                await resolver.sip("sip", "loop.test", 5060, None)

    @run_async
    async def test_thousand_records_are_read_by_tcp_and_cut(self) -> None:
        """U-05."""
        zone = ZONE + "\n".join(f"_sip._tcp.many.test. 9 IN SRV 0 0 {port} tcp.full.test." for port in range(1, 1001))
        async with asking(zone) as (resolver, _):
            assert len(await resolver.sip("sip", "many.test", None, "tcp")) == 16

    @run_async
    async def test_truncated_and_forged_answers_do_no_harm(self) -> None:
        """U-06."""
        async with asking() as (resolver, server):
            server.truncates = True
            assert brief(await resolver.sip("sip", "full.test", 5060, None)) == ["udp 198.51.100.9 5060"]
            server.truncates = False
            server.forges = True
            assert brief(await resolver.sip("sip", "plain.test", 5060, None))[0] == "udp 198.51.100.7 5060"

    @run_async
    async def test_silence_ends_in_a_temporary_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """U-06."""
        monkeypatch.setattr(module, "QUERY_SECONDS", 0.05)
        async with asking() as (resolver, server):
            server.is_silent = True
            with pytest.raises(DeliveryError, match="did not answer"):
                await resolver.sip("sip", "full.test", None, "udp")
            assert len(server.asked) == 0


class TestCache:
    @run_async
    async def test_answers_live_as_long_as_their_ttl(self) -> None:
        clock = FakeClock()
        async with asking("a.test. 30 IN A 198.51.100.1", clock) as (resolver, server):
            for _ in range(3):
                await resolver.sip("sip", "a.test", 5060, None)
            assert len(server.asked) == 2
            server.load("a.test. 30 IN A 198.51.100.2")
            clock.advance(29)
            assert brief(await resolver.sip("sip", "a.test", 5060, None)) == ["udp 198.51.100.1 5060"]
            clock.advance(2)
            assert brief(await resolver.sip("sip", "a.test", 5060, None)) == ["udp 198.51.100.2 5060"]

    @run_async
    async def test_that_there_is_nothing_is_remembered_for_a_minute(self) -> None:
        clock = FakeClock()
        async with asking("", clock) as (resolver, server):
            for _ in range(2):
                with pytest.raises(DeliveryError):
                    await resolver.sip("sip", "a.test", 5060, None)
            assert len(server.asked) == 2
            server.load("a.test. 30 IN A 198.51.100.2")
            clock.advance(61)
            assert brief(await resolver.sip("sip", "a.test", 5060, None)) == ["udp 198.51.100.2 5060"]

    @run_async
    async def test_last_good_answer_serves_an_hour_while_dns_is_down(self) -> None:
        """F-26."""
        clock = FakeClock()
        async with asking("a.test. 30 IN A 198.51.100.1\na.test. 30 IN AAAA 2001:db8::1", clock) as (resolver, server):
            await resolver.sip("sip", "a.test", 5060, None)
            server.rcode = dns.rcode.SERVFAIL
            clock.advance(3600)
            assert brief(await resolver.sip("sip", "a.test", 5060, None))[0] == "udp 198.51.100.1 5060"
            clock.advance(31)
            with pytest.raises(DeliveryError, match="no DNS server could answer"):
                await resolver.sip("sip", "a.test", 5060, None)

    @run_async
    async def test_questions_at_the_same_time_are_asked_once(self) -> None:
        async with asking() as (resolver, server):
            await asyncio.gather(*(resolver.sip("sip", "plain.test", 5060, None) for _ in range(20)))
            assert len(server.asked) == 2

    @run_async
    async def test_hosts_file_comes_before_dns(self, tmp_path: Path) -> None:
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost\n# a comment\n192.0.2.8  Inside.Test alias # more\nbroken line\n\n")
        resolver = Resolver(FakeClock(), [], hosts=hosts)
        assert brief(await resolver.sip("sip", "inside.test", 5060, None)) == ["udp 192.0.2.8 5060"]


class TestOutbound:
    """U-03, U-04: what DNS or a stranger names is checked by address; what we configured is not."""

    @pytest.mark.parametrize(
        "host",
        [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "2002:7f00:1::",
            "64:ff9b::7f00:1",
            "::127.0.0.1",
        ],
    )
    def test_inside_addresses_are_refused(self, host: str) -> None:
        assert OutboundPolicy().refusal(host, 5060)

    @pytest.mark.parametrize("host", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"])
    def test_public_addresses_are_permitted(self, host: str) -> None:
        assert OutboundPolicy().refusal(host, 5060) == ""

    def test_exempt_networks_are_permitted_but_not_our_own_listeners(self) -> None:
        own: list[HostPort] = [("0.0.0.0", 5060), ("10.0.0.9", 5080)]
        exempt = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("127.0.0.0/8"))
        policy = OutboundPolicy(exempt, lambda: own)
        assert policy.refusal("10.0.0.1", 5060) == ""
        assert policy.refusal("127.0.0.1", 5061) == ""
        assert "own listener" in policy.refusal("127.0.0.1", 5060)
        assert "own listener" in policy.refusal("10.0.0.9", 5080)

    @run_async
    async def test_network_leaves_out_what_is_not_permitted_unless_trusted(self) -> None:
        zone = ZONE.replace("198.51.100.5", "93.184.215.14")
        async with asking(zone) as (resolver, _):
            network = AsyncNetwork(FakeClock(), resolver=resolver)
            binding = EchoBinding(Listener("tcp", "127.0.0.1", 0))
            [bound] = await network.open(binding)
            assert brief(list(await network.resolve("sip", "inside.test", 5060, None))) == ["udp 93.184.215.14 5060"]
            trusted = await network.resolve("sip", "inside.test", 5060, None, is_trusted=True)
            assert {target.host for target in trusted} == {"10.0.0.1", "93.184.215.14"}
            with pytest.raises(DeliveryError, match=r"no permitted route: .* is our own listener"):
                await network.resolve("sip", *bound.address, "tcp")
            with pytest.raises(DeliveryError, match=r"no permitted route: 192\.168\.1\.1 is a private"):
                await network.resolve("sip", "192.168.1.1", None, None)
            await network.close()

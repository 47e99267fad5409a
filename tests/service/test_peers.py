"""For which domains another server may speak: service/peers.py (T1, SEC-33)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from comity.service.interfaces import Origin
from comity.service.peers import KnownPeers, Peer
from comity.testing.service import Bench

PEERS = KnownPeers(
    ["a.test", "xn--bcher-kva.test"],
    [
        Peer("known.test", (ip_network("10.0.0.2/32"), ip_network("fd00::/64"))),
        Peer("hub.test", (), frozenset({"b.test", "c.test"})),
        Peer("broker.test", (ip_network("10.9.0.0/16"),), frozenset({"*", "a.test"})),
    ],
)


@pytest.mark.parametrize(
    ("host", "names", "domains"),
    [
        ("192.0.2.1", (), ()),
        ("192.0.2.1", ("b.test",), ("b.test",)),
        ("192.0.2.1", ("B.Test", "im.b.test"), ("b.test", "im.b.test")),
        ("192.0.2.1", ("bücher.example",), ("xn--bcher-kva.example",)),
        # What the certificate of a peer of ours says of us, nobody may use.
        ("192.0.2.1", ("a.test", "b.test"), ("b.test",)),
        ("192.0.2.1", ("A.TEST", "bücher.test"), ()),
        ("192.0.2.1", ("*.b.test",), ()),
        ("127.0.0.1", ("b.test", "localhost"), ("b.test",)),
        ("192.0.2.1", ("", "b test", "b..test", "@"), ()),
        ("192.0.2.1", ("hub.test",), ("b.test", "c.test", "hub.test")),
        ("10.0.0.2", (), ("known.test",)),
        ("10.0.0.3", (), ()),
        ("fd00::7", (), ("known.test",)),
        ("fd00::7%eth0", (), ("known.test",)),
        ("10.9.8.7", (), ("*", "broker.test")),
        ("not an address", (), ()),
    ],
)
def test_a_peer_speaks_for_what_it_proved(host: str, names: tuple[str, ...], domains: tuple[str, ...]) -> None:
    assert PEERS.proved(host, names) == frozenset(domains)


def test_a_mapped_address_is_the_address_it_maps() -> None:
    """A socket of both families shows IPv4 peers so."""
    assert PEERS.proved("::ffff:10.0.0.2", ()) == frozenset({"known.test"})


def test_who_speaks_for_all_speaks_for_any_domain_by_its_name() -> None:
    who = Bench().operation("").source
    everybody = Origin(who, "sip", "", True, domains=frozenset({"*"}))
    one = Origin(who, "sip", "", True, domains=frozenset({"b.test"}))
    assert everybody.speaks_for("any.test")
    assert one.speaks_for("b.test")
    assert not one.speaks_for("any.test")
    assert not Origin(who, "sip", "", True).speaks_for("")

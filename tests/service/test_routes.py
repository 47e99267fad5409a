"""Which next hop a domain has, and who may pass through: service/routes.py."""

from __future__ import annotations

import pytest

from comity.service.routes import HOP_WINDOW, MOST_KEPT, Route, StaticRoutes

ROUTES = StaticRoutes(
    [
        Route("b.test", "sip", "tls://b.test:5061"),
        Route("c.test", "xmpp", "tcp://c.test", frozenset({"b.test"})),
        Route("c.test", "sip", "udp://second.test"),
        Route("*", "apex", "", frozenset({"*"})),
    ]
)


def test_a_domain_has_its_own_route_else_that_of_everybody() -> None:
    found = [ROUTES.hop(domain) for domain in ("b.test", "c.test", "d.test")]
    assert [(hop.binding, hop.resource, hop.data) for hop in found if hop] == [
        ("sip", "b.test", b"tls://b.test:5061"),
        ("xmpp", "c.test", b"tcp://c.test"),
        ("apex", "d.test", b""),
    ]
    assert all(hop.is_hop and hop.window == HOP_WINDOW and hop.expires is None for hop in found if hop)
    assert ROUTES.hop("b.test") is ROUTES.hop("b.test")


def test_without_a_route_a_domain_cannot_be_reached() -> None:
    routes = StaticRoutes([Route("b.test", "sip", "tls://b.test")])
    assert routes.hop("sub.b.test") is None
    assert not routes.may_pass("a.test", "sub.b.test")


@pytest.mark.parametrize(
    ("next_hop", "is_protected"), [("tls://h", True), ("", True), ("tcp://h", False), ("udp://h", False)]
)
def test_what_must_stay_under_tls_goes_by_a_route_that_says_so(next_hop: str, is_protected: bool) -> None:
    """T11; a server found by DNS is spoken with under TLS."""
    hop = StaticRoutes([Route("b.test", "apex", next_hop)]).hop("b.test")
    assert hop is not None
    assert hop.is_protected is is_protected


def test_transit_is_by_name() -> None:
    assert not ROUTES.may_pass("x.test", "b.test")
    assert ROUTES.may_pass("b.test", "c.test")
    assert not ROUTES.may_pass("x.test", "c.test")
    assert ROUTES.may_pass("x.test", "y.test")


def test_a_route_of_everybody_does_not_fill_the_memory() -> None:
    routes = StaticRoutes([Route("*", "sip", "tls://hub.test")])
    for n in range(2 * MOST_KEPT):
        hop = routes.hop(f"d{n}.test")
        assert hop is not None
        assert hop.resource == f"d{n}.test"
    assert len(routes._hops) <= MOST_KEPT

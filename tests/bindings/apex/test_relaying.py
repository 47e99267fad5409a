"""Relay-relay mode: calling, bind, data between domains, transit, loops (RFC 3340 sections 2.1, 3.1, 4.4.2, 4.4.4.1, 4.5.2; RFC 3342)."""

from __future__ import annotations

from comity.bindings.apex.elements import Ok, Part
from tests.bindings.apex.internet import Internet, Node, route, status_request
from tests.loop import in_loop

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"


async def pair() -> tuple[Internet, Node, Node]:
    """a.test and b.test, who find each other by DNS and believe certificates."""
    internet = Internet()
    internet.records = {"a.test": [A], "b.test": [B]}
    a = await Node(internet, "a.test", A, [route("b.test")]).start()
    b = await Node(internet, "b.test", B, [route("a.test")]).start()
    return internet, a, b


@in_loop
async def test_data_reaches_an_application_of_another_domain_and_its_status_comes_back() -> None:
    """APEX-12: a session to the recipient's relay, made when it is needed; APEX-14: 250 through both relays."""
    internet, a, b = await pair()
    alice, bob = await a.online("alice@a.test"), await b.online("bob@b.test")
    content = Part(b"Content-Type: image/gif\r\n", b"GIF89a\x00\xff\r\n--x", "2@a.test")
    assert await alice.send("alice@a.test", "bob@b.test", content=content, options=[status_request(86)]) == Ok()
    assert bob.contents == [content]
    assert alice.reports == [(86, "bob@b.test", 250)]
    assert internet.calls == [("a.test", B, 912)], "the answer came back by the same session"

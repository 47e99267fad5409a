"""Whatever a NOTIFY of a peer server holds: a clear answer, no exception, and nothing that a good one would not say (SEC-36, T18)."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bindings.sip.far_kit import FarServer, romeo
from tests.bindings.sip.test_abroad import Alice, Joined, watch

HEADERS = ("From", "To", "Call-ID", "CSeq", "Contact", "Event", "Subscription-State", "Content-Type", "Route")
VALUES = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.sampled_from(
        [
            "active;expires=99999999999999",
            "terminated;reason=",
            "active;expires=-1",
            "<sip:romeo@b.test>",
            "<sip:romeo@b.test>;tag=",
            "presence;id=",
            "application/pidf+xml;charset=utf-7",
            "0 NOTIFY",
            "4294967296 NOTIFY",
            "multipart/signed",
        ]
    ),
)
BODIES = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda whole, cut: whole[:cut], st.just(romeo("open")), st.integers(0, 250)),
    st.builds(lambda who: romeo("open", entity=who), st.sampled_from(["pres:tybalt@b.test", "x", "pres:alice@a.test"])),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HEADERS), VALUES), max_size=3), BODIES)
def test_a_notify_is_answered_and_harms_nobody(changes: list[tuple[str, str]], body: bytes) -> None:
    async def story() -> None:
        world = await Joined().start()
        alice, far = Alice(world, "alice"), FarServer(world)
        await watch(alice)
        [asked] = far.taken()
        alice.heard()
        request = far.written(asked, "pending;expires=3600", body, *changes)
        head = [f"NOTIFY {request.uri_text} SIP/2.0", *(f"{name}: {value}" for name, value in request.headers)]
        via = f"Via: SIP/2.0/TCP {far.address[0]}:5060;branch=z9hG4bKproperty"
        octets = "\r\n".join([head[0], via, *head[1:], f"Content-Length: {len(body)}", "", ""]).encode() + body
        link = world.dialled_links[far.address]
        link.session.receive_data(octets, world.clock.now())
        link.flush()
        await world.settle()
        assert not [word for word in alice.heard() if "open" in word]
        assert world.binding.abroad.count <= 1
        await world.advance(1.0)

    asyncio.run(asyncio.wait_for(story(), 20))

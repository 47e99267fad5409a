"""Relays whose sessions break, and that are killed, at any moment: every message arrives once, in order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.apex.elements import Data, Originator, Part, Recipient
from comity.bindings.apex.endpoint import Endpoint
from comity.testing.service import settle
from tests.bindings.apex.internet import Internet, Node, by_certificate, route
from tests.bindings.apex.world import Application

A, B, C = "192.0.2.1", "192.0.2.2", "192.0.2.3"
PEOPLE = ("alice@a.test", "carol@c.test")

#: Who sends how many at once, after how many steps what breaks, and how many seconds pass then.
TROUBLE = st.tuples(
    st.integers(0, 1),
    st.integers(1, 4),
    st.integers(0, 12),
    st.sampled_from(["nothing", "first link", "last link", "every link", "kill"]),
    st.integers(0, 6),
)


class Chain:
    """a, b and c, of whom b passes on and may be killed; what was sent and has arrived."""

    people = PEOPLE

    def __init__(self) -> None:
        self.internet = Internet()
        self.sent: tuple[list[str], list[str]] = ([], [])
        self.ends: list[Application] = []
        self.middle: Node

    async def start(self) -> Chain:
        known = [by_certificate("b.test", "*")]
        by_b = [route("*", f"tls://{B}")]
        a = await Node(self.internet, "a.test", A, by_b, known, names=["a.test", A]).start()
        passing = [route("a.test", f"tls://{A}", "c.test"), route("c.test", f"tls://{C}", "a.test")]
        self.middle = await Node(self.internet, "b.test", B, passing, names=["b.test", B]).start()
        c = await Node(self.internet, "c.test", C, by_b, known, names=["c.test", C]).start()
        self.ends = [await node.online(name) for node, name in zip((a, c), self.people, strict=True)]
        return self

    def send(self, sender: int) -> None:
        """Hand one message in, and wait for nothing."""
        name = f"{len(self.sent[sender])}@{sender}"
        self.sent[sender].append(name)
        data = Data(
            Originator(Endpoint.parse(self.people[sender])),
            (Recipient(Endpoint.parse(self.people[1 - sender])),),
            Part(b"Content-Type: text/plain\r\n", name.encode(), name),
        )
        session = self.ends[sender].session
        session.send(min(session.channels), data)

    async def step(self) -> None:
        """Let octets go one way further."""
        await settle(3)
        for end in self.ends:
            end.exchange()
        for link in list(self.internet.links):
            self.internet._carry(link)

    async def break_(self, what: str) -> None:
        if what == "kill":
            self.middle.kill()
            self.middle = await self.middle.restart()
            return
        links = [link for link in self.internet.links if not link.is_closed]
        chosen = {"nothing": [], "first link": links[:1], "last link": links[-1:], "every link": links}[what]
        for link in chosen:
            link.lose()

    def arrived(self, at: int) -> list[str]:
        return [part.content_id for part in self.ends[at].contents if isinstance(part, Part)]


class Pair(Chain):
    """a and b, who find each other by DNS and go by the TLS profile; both may call at once, and only links break."""

    people = ("alice@a.test", "bob@b.test")

    async def start(self) -> Pair:
        self.internet.records = {"a.test": [A], "b.test": [B]}
        a = await Node(self.internet, "a.test", A, [route("b.test")]).start()
        b = await Node(self.internet, "b.test", B, [route("a.test")]).start()
        self.ends = [await node.online(name) for node, name in zip((a, b), self.people, strict=True)]
        return self

    async def break_(self, what: str) -> None:
        await super().break_("every link" if what == "kill" else what)


@pytest.mark.parametrize("kind", [Chain, Pair])
@settings(max_examples=30, deadline=None)
@given(troubles=st.lists(TROUBLE, min_size=1, max_size=6))
def test_every_message_arrives_once_and_in_order_whatever_breaks(
    kind: type[Chain], troubles: list[tuple[int, int, int, str, int]]
) -> None:
    """Issue 6, reliability.md sections 5.1, 5.3, 5.5: ok means durable; a retry is known by Content-ID and fingerprint."""

    async def story() -> None:
        chain = await kind().start()
        for sender, count, steps, what, seconds in troubles:
            for _ in range(count):
                chain.send(sender)
            for _ in range(steps):
                await chain.step()
            await chain.break_(what)
            await chain.internet.settle()
            await chain.internet.pass_time(seconds)
        await chain.internet.pass_time(330)
        assert chain.arrived(1) == chain.sent[0]
        assert chain.arrived(0) == chain.sent[1]

    asyncio.run(story())

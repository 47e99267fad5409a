"""Gateways misrouted on purpose: rings over three protocols, two that send to each other, hops of somebody else's between them
(issue 7, part 6; G-16 to G-19, GW-9, SEED-53, SEED-55, T25). What is on the wire is counted by taps, or by each node's own trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client import Client, Received, text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Status
from tests.paths.kit import Via
from tests.paths.neighbours import ALICE, Servers, Way
from tests.paths.relays import Tap
from tests.paths.test_neighbours import run

LOST = Address.parse("im:somebody@d.test")
ANY = ("*",)
LOOPED = "The message came back to a node it had passed."
NEAR = '[[peer]]\nname = "near.test"\naddress = ["127.0.0.0/8"]\nspeaks_for = ["*"]\n'
VIAS: list[Via] = ["sip", "xmpp", "apex"]


class Ring(Servers):
    """Servers that each believe the next to know the way to d.test; SIP and APEX between them in the clear, to be listened to."""

    def __init__(self, directory: Path, ways: Sequence[Way], change: dict[str, Callable[[bytes], bytes]]) -> None:
        people = {domain: (ALICE,) if domain == "a.test" else () for domain in sorted({way.at for way in ways})}
        back = [Way(way.at, "a.test", "a.test", "sip", ANY) for way in ways if way.at != "a.test"]
        super().__init__(directory, people, [*ways, *back])
        self.taps: dict[str, Tap] = {}
        self._change = change
        self._ways = ways

    def __enter__(self) -> Ring:
        with ExitStack() as stack:
            for way in self._ways:
                server = self[way.at]
                text = server.config.read_text("utf-8") + (
                    "" if "near.test" in server.config.read_text("utf-8") else NEAR
                )
                if way.transport == "tcp" and way.via != "xmpp":
                    port = self[way.by].port(way.via, "tcp")
                    tap = stack.enter_context(Tap(port, change=self._change.get(way.at)))
                    text = text.replace(f"tcp://localhost:{port[1]}", tap.hop)
                    self.taps[way.at] = tap
                server.config.write_text(text, encoding="utf-8")
            super().__enter__()
            self._taps = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(None, None, None)
        self._taps.close()

    def sent(self, domain: str, fingerprint: str) -> int:
        """How many messages a node put on its link towards d.test."""
        if domain in self.taps:
            tap = self.taps[domain]
            return tap.count(b"MESSAGE sip:somebody@d.test ") + tap.count(b"<data ")
        trace = self[domain].run("trace", fingerprint, "--json", "-c", str(self[domain].config))
        return sum(step["node"] == domain for step in json.loads(trace))


async def lost(alice: Client, thing: MimeObject) -> list[str]:
    """Send into the ring; everything the sender is told, until nothing more can come."""
    answer = await alice.send(thing, LOST)
    told = [answer.text] if answer.status is Status.FAILURE else []
    messages = alice.messages()
    waiting = asyncio.ensure_future(anext(messages))
    while True:
        done, _ = await asyncio.wait((waiting,), timeout=10.0 if not told else 1.5)
        if not done:
            break
        received: Received = waiting.result()
        assert received.report is not None
        told.append(received.report.text)
        waiting = asyncio.ensure_future(anext(messages))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return told


def idle(ring: Ring, *domains: str) -> bool:
    """Nothing waits anywhere."""
    return not any(ring[domain].waiting() for domain in domains)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    """SIP, then APEX, then XMPP."""
    ways = [
        Way("a.test", "d.test", "b.test", "sip", ANY, "tcp"),
        Way("b.test", "d.test", "c.test", "apex", ANY, "tcp"),
        Way("c.test", "d.test", "a.test", "xmpp", ANY, "tcp"),
    ]
    with Ring(tmp_path_factory.mktemp("three"), ways, {}) as ring:
        yield ring


@pytest.mark.parametrize("via", VIAS)
def test_a_ring_over_three_protocols_stops_with_one_report_and_no_storm(three: Ring, via: Via) -> None:
    """GW-9, SEED-53, SEED-55: once around; XMPP has no hop count of its own, the history finds it all the same."""

    async def story() -> None:
        thing = text_object(ALICE, LOST, f"round {via}")
        before = {
            domain: tap.count(b"MESSAGE sip:somebody") + tap.count(b"<data ") for domain, tap in three.taps.items()
        }
        async with three["a.test"].client(via, ALICE) as alice:
            assert await lost(alice, thing) == [LOOPED]
        counts = [
            three.sent(domain, thing.fingerprint) - before.get(domain, 0) for domain in ("a.test", "b.test", "c.test")
        ]
        assert counts == [1, 1, 1]
        assert idle(three, "a.test", "b.test", "c.test")

    run(story())

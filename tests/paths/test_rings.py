"""Gateways misrouted on purpose: rings over three protocols, two that send to each other, hops of somebody else's between them
(issue 7, part 6; G-16 to G-19, GW-9, SEED-53, SEED-55, T25). What is on the wire is counted by taps, or by each node's own trace."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client import Client, Received, text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Status
from tests.paths.kit import PASSWORD, Via
from tests.paths.neighbours import ALICE, Servers, Way
from tests.paths.relays import Tap
from tests.paths.test_neighbours import run

LOST = Address.parse("im:somebody@d.test")
ANY = ("*",)
LOOPED = re.compile("(?i)the (message|data) came back to a (node|relay) it had passed.?")
NEAR = '[[peer]]\nname = "near.test"\naddress = ["127.0.0.0/8"]\nspeaks_for = ["*"]\n'
VIAS: list[Via] = ["sip", "xmpp", "apex"]


class Ring(Servers):
    """Servers that each believe the next to know the way to d.test; SIP and APEX between them in the clear, to be listened to."""

    def __init__(
        self,
        directory: Path,
        ways: Sequence[Way],
        change: Mapping[str, Callable[[bytes], bytes]],
        back: Sequence[str] = ("b.test",),
    ) -> None:
        """``back``: who has a route of its own to a.test."""
        people = {domain: (ALICE,) if domain == "a.test" else () for domain in sorted({way.at for way in ways})}
        returns = [Way(at, "a.test", "a.test", "sip", ANY) for at in back]
        super().__init__(directory, people, [*ways, *returns])
        self.taps: dict[str, Tap] = {}
        self._change = change
        self._ways = ways

    def add(self, domain: str, text: str, behind: str = "") -> None:
        """Add to a server's configuration, at its end or behind these words."""
        config = self[domain].config
        before, found, after = (
            config.read_text("utf-8").partition(behind) if behind else (config.read_text("utf-8"), "", "")
        )
        config.write_text(before + found + text + after, encoding="utf-8")

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


async def lost(alice: Client, thing: MimeObject, patience: float = 10.0) -> list[str]:
    """Send into the ring; everything the sender is told, until nothing more can come."""
    answer = await alice.send(thing, LOST)
    told = [answer.text] if answer.status is Status.FAILURE else []
    messages = alice.messages()
    waiting = asyncio.ensure_future(anext(messages))
    while True:
        done, _ = await asyncio.wait((waiting,), timeout=patience if not told else 1.5)
        if not done:
            break
        received: Received = waiting.result()
        assert received.report is not None
        told.append(received.report.text)
        waiting = asyncio.ensure_future(anext(messages))
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    return told


def looped(told: list[str]) -> bool:
    """Told once, and why."""
    return len(told) == 1 and LOOPED.fullmatch(told[0]) is not None


def idle(ring: Ring, *domains: str) -> bool:
    """Nothing waits anywhere."""
    return not any(ring[domain].waiting() for domain in domains)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ring]:
    """XMPP, then SIP, then APEX: c.test is attached to a.test as the component d.test, and believes that b.test knows it."""
    ways = [
        Way("c.test", "d.test", "b.test", "sip", ANY, "tcp"),
        Way("b.test", "d.test", "a.test", "apex", ANY, "tcp"),
        Way("a.test", "c.test", "c.test", "sip"),
    ]
    ring = Ring(tmp_path_factory.mktemp("three"), ways, {})
    _, port = ring["a.test"].port("component", "tcp")
    ring.add("a.test", f'[[xmpp.accept]]\ndomain = "d.test"\nsecret = "{PASSWORD}"\n')
    attached = f'domain = "d.test"\nport = {port}\nsecret = "{PASSWORD}"\nserves = ["a.test"]\n'
    ring.add("c.test", f"[[xmpp.component]]\n{attached}")
    with ring:
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
            assert looped(await lost(alice, thing))
        counts = [
            three.sent(domain, thing.fingerprint) - before.get(domain, 0) for domain in ("a.test", "b.test", "c.test")
        ]
        assert counts == [1, 1, 1]
        assert idle(three, "a.test", "b.test", "c.test")

    run(story())


# --- two gateways, each believing the other to know the way ---------------------------------------------------------------


def circle(first: Via, second: Via, *, inside: bool) -> list[Way]:
    """a.test and b.test send what is for d.test to each other; or b.test and c.test, behind a.test, which has no part in it."""
    if not inside:
        return [
            Way("a.test", "d.test", "b.test", first, ANY, "tcp"),
            Way("b.test", "d.test", "a.test", second, ANY, "tcp"),
        ]
    return [
        Way("a.test", "d.test", "b.test", first, ANY, "tcp"),
        Way("b.test", "d.test", "c.test", second, ANY, "tcp"),
        Way("c.test", "d.test", "b.test", first, ANY, "tcp"),
    ]


@pytest.mark.parametrize(("first", "second"), [("sip", "apex")])
def test_two_gateways_that_send_to_each_other_stop_at_the_second_pass(tmp_path: Path, first: Via, second: Via) -> None:
    """G-16: at most four messages in all, one report."""

    async def story(ring: Ring) -> None:
        thing = text_object(ALICE, LOST, "to and fro")
        async with ring["a.test"].client("xmpp", ALICE) as alice:
            assert looped(await lost(alice, thing))
        assert [ring.sent(domain, "") for domain in ("a.test", "b.test")] == [1, 1]
        assert idle(ring, "a.test", "b.test")

    with Ring(tmp_path, circle(first, second, inside=False), {}) as ring:
        run(story(ring))


class Meddler:
    """A hop of somebody else's, as octets on a link: names the message anew and drops the history; perhaps changes the object."""

    def __init__(self, *, changes_octets: bool = False) -> None:
        self._changes_octets = changes_octets
        self._passes = 0

    def __call__(self, data: bytes) -> bytes:
        if b"MESSAGE sip:somebody" not in data:
            return data
        self._passes += 1
        data = data.replace(b"Comity-History", b"Nobody-History")
        data = re.sub(rb"(Call-ID: ...)...", rb"\g<1>%03d" % (self._passes % 1000), data)
        if self._changes_octets:
            data = re.sub(rb"Re: \d\d\d", b"Re: %03d" % (self._passes % 1000), data)
        return data


def raw_object(text: str) -> MimeObject:
    """An object without a Message-ID: nothing in it stays if its text changes."""
    head = f"From: <{ALICE}>\r\nTo: <{LOST}>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
    return MimeObject.of("message/cpim", f"{head}Content-Type: text/plain\r\n\r\n{text}".encode())


def test_behind_a_hop_that_renames_messages_a_loop_is_seen_by_the_octets(tmp_path: Path) -> None:
    """G-17: no history, no identifier stays; b.test sees the same object come with fewer hops left."""

    async def story(ring: Ring) -> None:
        async with ring["a.test"].client("sip", ALICE) as alice:
            assert looped(await lost(alice, raw_object("the same")))
        assert [ring.sent(domain, "") for domain in ("a.test", "b.test", "c.test")] == [1, 1, 1]
        assert idle(ring, "a.test", "b.test", "c.test")

    meddlers = dict.fromkeys(("a.test", "b.test", "c.test"), Meddler())
    with Ring(tmp_path, circle("sip", "sip", inside=True), meddlers, ("b.test", "c.test")) as ring:
        run(story(ring))


def test_what_is_changed_at_each_pass_ends_by_its_hop_count(tmp_path: Path) -> None:
    """G-18: nothing at all stays but the count, which ends it at 70 (SIP's); one report, and then silence."""

    async def story(ring: Ring) -> None:
        async with ring["a.test"].client("xmpp", ALICE) as alice:
            assert await lost(alice, raw_object("Re: 000"), 45.0) == ["The answer was 483 Too Many Hops."]
        counts = [ring.sent(domain, "") for domain in ("a.test", "b.test", "c.test")]
        assert counts[0] == 1
        assert 68 <= sum(counts) <= 71
        assert idle(ring, "a.test", "b.test", "c.test")

    meddlers = dict.fromkeys(("a.test", "b.test", "c.test"), Meddler(changes_octets=True))
    with Ring(tmp_path, circle("sip", "sip", inside=True), meddlers, ("b.test", "c.test")) as ring:
        run(story(ring))

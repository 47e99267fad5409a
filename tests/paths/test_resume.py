"""XMPP streams over kill -9: real server, real sockets (F-K1 to F-K5, F-K19; reliability.md section 5.2).

The messages carry no id at all, so nothing but the durable ``h`` can keep them from being lost or doubled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from comity.bindings.xmpp import events
from comity.client import text_object
from comity.xml import Element
from tests.paths.conftest import FAST
from tests.paths.kit import ALICE, BOB, ServerProcess
from tests.paths.xmpp_wire import Wire, run

STANZA_ID = "{urn:xmpp:sid:0}stanza-id"
COUNT = 40

Start = Callable[[str], None]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that is not started."""
    server = ServerProcess(tmp_path, FAST)
    yield server
    server.kill()


@pytest.fixture
def start(house: ServerProcess) -> Start:
    """Start it, or start it anew, to die at a failpoint or, with "", to live."""

    def begin(failpoint: str) -> None:
        house.kill()
        house.start(failpoint)

    return begin


@pytest.mark.parametrize("at_once", [10, 1])
@pytest.mark.parametrize(
    "failpoint", ["service.before-commit", "store.before-commit", "store.after-commit", "service.after-commit"]
)
def test_what_was_counted_is_not_sent_again_and_the_rest_once(
    house: ServerProcess, start: Start, failpoint: str, at_once: int
) -> None:
    """F-K2 to F-K5: wherever the server dies, the client's next stream ends with every message there exactly once."""
    # Messages sent at once share a commit; the first ones are the server's and the stream's own.
    start(f"{failpoint}:{5 if at_once > 1 and failpoint.startswith('store') else 17}")
    texts = [f"message {n}" for n in range(COUNT)]

    async def story() -> None:
        alice = await Wire(house, "alice@a.test/phone").open()
        for n, text in enumerate(texts, 1):
            alice.say("bob@a.test", text)
            if n % at_once == 0:
                await alice.until(lambda n=n: len(alice.acknowledged) == n or alice.is_lost)  # type: ignore[misc]  # bound now
        await alice.until(lambda: alice.is_lost or len(alice.acknowledged) == COUNT)
        assert alice.is_lost, "the server was to die here"
        state = await alice.cut()
        await asyncio.to_thread(start, "")
        again = await Wire(house, "alice@a.test/phone", state).open()
        assert not again.of(events.Resumed)
        await again.until(lambda: len(alice.acknowledged) + len(again.acknowledged) >= COUNT)
        assert [*alice.acknowledged, *again.acknowledged] == texts, (
            "each is acknowledged once, by one life or the other"
        )
        bob = await Wire(house, "bob@a.test/pad").open()
        bob.send(Element("{jabber:client}presence"))
        await bob.until(lambda: len(bob.texts) >= COUNT)
        again.say("bob@a.test", "the last one")
        await bob.until(lambda: "the last one" in bob.texts)
        assert bob.texts == [*texts, "the last one"]

    run(story())


def test_kill_while_a_stream_is_handed_over_drops_nothing(house: ServerProcess, start: Start) -> None:
    """F-K19: what the old connection did not acknowledge comes to the new one, with the same identifiers."""
    start("xmpp.resume:1")

    async def story() -> None:
        alice, bob = await Wire(house, "alice@a.test/phone").open(), await Wire(house, "bob@a.test/pad").open()
        bob.send(Element("{jabber:client}presence"))
        await bob.until(lambda: bool(bob.stanzas))
        bob.takes = False
        for n in range(5):
            alice.say("bob@a.test", str(n))
        await bob.until(lambda: len(bob.texts) == 5)
        before = [(m.find(STANZA_ID) or m).get("id") for m in bob.stanzas if m.local == "message"]
        state = await bob.cut()
        doomed = await Wire(house, "bob@a.test/pad", state).open()
        assert doomed.is_lost, "the server was to die here"
        await asyncio.to_thread(start, "")
        again = await Wire(house, "bob@a.test/pad", state).open()
        assert not again.of(events.Resumed)
        again.send(Element("{jabber:client}presence"))
        await again.until(lambda: len(again.texts) >= 5)
        assert again.texts == ["0", "1", "2", "3", "4"]
        assert [(m.find(STANZA_ID) or m).get("id") for m in again.stanzas if m.local == "message"] == before

    run(story())


def test_a_broken_connection_is_resumed_over_real_sockets(house: ServerProcess, start: Start) -> None:
    """XEP-0198 section 5, both directions at once, twenty times."""
    start("")

    async def story() -> None:
        alice, bob = await Wire(house, "alice@a.test/phone").open(), await Wire(house, "bob@a.test/pad").open()
        bob.send(Element("{jabber:client}presence"))
        await bob.until(lambda: bool(bob.stanzas))
        got: list[str] = []
        for n in range(20):
            for k in range(5):
                alice.say("bob@a.test", f"{n}.{k}")
            state = await alice.cut()
            alice = await Wire(house, "alice@a.test/phone", state).open()
            assert alice.of(events.Resumed)
            if n % 2:
                state = await bob.cut()
                got += bob.texts
                bob = await Wire(house, "bob@a.test/pad", state).open()
                assert bob.of(events.Resumed)
        await bob.until(lambda: len(got) + len(bob.texts) >= 100)
        assert [*got, *bob.texts] == [f"{n}.{k}" for n in range(20) for k in range(5)]

    run(story())


def test_our_client_lives_through_kills_of_the_server(house: ServerProcess, start: Start) -> None:
    """``comity.client`` comes back, goes on and tells its program nothing of it."""
    start("")

    async def story() -> None:
        things = [text_object(ALICE, BOB, f"message {n}") for n in range(300)]
        async with house.client("xmpp", ALICE) as alice:
            futures = []
            for n, thing in enumerate(things):
                futures.append(alice.send(thing, BOB))
                if n % 100 == 50:
                    await futures[n - 10]
                    await asyncio.to_thread(start, "")
            answers = await asyncio.gather(*futures)
            assert {answer.reason for answer in answers} == {None}
        arrived: list[str] = []
        async with house.client("xmpp", BOB) as bob:
            async for received in bob.messages():
                arrived.append(received.object.fingerprint)
                if len(arrived) == len(things):
                    break
        assert arrived == [thing.fingerprint for thing in things]

    run(story())

"""The exchanges of RFC 3343 section 2 as they are printed, and presence between every ordered pair of the three protocols."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.bindings.apex.elements import Inline, Notify, Publish, ServiceElement, Subscribe, Terminate, Tuple
from comity.bindings.apex.service_wire import read_service
from comity.testing.clock import FakeClock
from comity.testing.presence import PresenceBench
from tests.bindings.apex.presence_world import Application, World, in_world
from tests.loop import in_loop

#: 2000-05-14T13:30:00-08:00, when the examples happen.
THEN = datetime(2000, 5, 14, 21, 30, tzinfo=UTC)


def examples() -> list[ServiceElement]:
    """What is inside the data of RFC 3343, in order."""
    text = (Path(__file__).parent / "rfc_examples.txt").read_text()
    blocks = text.partition("=== RFC 3343")[2]
    inside = re.findall(r"<data-content Name='Content'>?(.*?)</data-content>", blocks, re.DOTALL)
    return [read_service(Inline(one.strip().encode())) for one in inside]


@in_loop
async def test_the_exchanges_of_the_rfc_go_as_they_are_printed() -> None:
    """RFC 3343 sections 2.1 to 2.3: each answer is the printed one, times and the granted rest of a duration apart."""
    accounts = ["im:fred@example.com", "im:wilma@example.com"]
    bench = PresenceBench(clock=FakeClock(when=THEN), accounts=accounts)
    world = await World(bench, "example.com").start()
    await bench.answer("im:fred@example.com", "im:wilma@example.com")
    fred, wilma = await world.attach("fred@example.com"), await world.attach("wilma@example.com")
    printed = examples()
    publish, published, subscribe, told, terminate, terminated, end = printed[:7]
    watch, watching, notify, stop, stopped, stop_end = printed[7:13]
    assert await fred.send(publish) == [published]
    (heard,) = await wilma.send(subscribe)
    assert isinstance(heard, Publish)
    assert isinstance(told, Publish)
    assert (heard.publisher, heard.trans_id) == (told.publisher, told.trans_id)
    # The RFC leaves out the second tuple of what it published, and says that it was not changed since 13:02.
    assert set(told.presence.tuples) < set(heard.presence.tuples)
    assert heard.presence.last_update.startswith("2000-05-14T21:30:00.")
    assert heard.presence == replace(
        told.presence, last_update=heard.presence.last_update, tuples=heard.presence.tuples
    )
    assert isinstance(notify, Notify)
    assert await fred.send(watch) == [watching, replace(notify, duration=86400)]
    assert await wilma.send(terminate) == [terminated]
    assert fred.take() == [Notify(wilma.endpoint, 2, "terminate")]
    assert await fred.send(stop) == [stopped]
    await wilma.send(subscribe)
    await fred.send(watch)
    await bench.advance(86400)
    assert end in wilma.take()
    assert stop_end in fred.take()
    bench.presence.stop()


WORDS = ("available", "chat", "away", "xa", "dnd", "offline")
APEX = "apex"


async def say(world: World, protocol: str, app: Application, word: str) -> None:
    """Alice says how she is."""
    if protocol != APEX:
        if word == "offline":
            world.bench.unpublish("im:alice@a.test", key=protocol)
        else:
            world.bench.publish("im:alice@a.test", word, "Brb", key=protocol)
        return
    (read,) = await app.send(Subscribe(app.endpoint, 0, 99))
    assert isinstance(read, Publish)
    until = world.after(-1 if word == "offline" else 9999)
    info = "urn:comity:tuple:0?=note=Brb" + ("" if word in ("available", "offline") else f"&show={word}")
    tuple_ = Tuple("apex:alice@a.test", until, info)
    await app.send(world.entry("alice@a.test", read.presence.last_update, tuple_))


def seen(world: World, protocol: str, bob: Application) -> list[str]:
    """What Bob was told since the last look, in the words of T9."""
    if protocol != APEX:
        return [one.state for one in (world.bench.sip if protocol == "sip" else world.bench.xmpp).take()]
    words = []
    for publish in bob.take():
        assert isinstance(publish, Publish), publish
        (one,) = publish.presence.tuples
        shown = re.search(r"show=(\w+)", one.tuple_info)
        is_open = one.available_until > world.bench.clock.when()
        words.append((shown[1] if shown else "available") if is_open else "offline")
    return words


@pytest.mark.parametrize(("source", "watcher"), [*itertools.product(("sip", "xmpp", APEX), repeat=2)])
@in_world
async def test_every_state_of_t9_passes_between_every_pair(world: World, source: str, watcher: str) -> None:
    """T9, T6: and what is over is over for everybody (G9)."""
    await world.bench.answer("im:alice@a.test", "im:bob@a.test")
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob@a.test")
    if watcher == APEX:
        await bob.send(Subscribe(alice.endpoint, 86400, 1))
    else:
        await world.bench.watch("im:bob@a.test", "im:alice@a.test", 86400, edge=watcher, interval=0.0)
        seen(world, watcher, bob)
    for word in (*WORDS, "away"):
        await say(world, source, alice, word)
        await world.bench.advance(1)
        assert seen(world, watcher, bob) == [word]
    if watcher == APEX:
        await bob.send(Terminate(1))
        await say(world, source, alice, "dnd")
        assert seen(world, watcher, bob) == []


@in_world
async def test_what_an_account_says_by_three_protocols_stands_side_by_side(world: World) -> None:
    """RFC 4479 section 3.5; each device goes by itself."""
    await world.bench.answer("im:alice@a.test", "im:bob@a.test")
    alice, bob = await world.attach("alice@a.test"), await world.attach("bob@a.test")
    world.bench.publish("im:alice@a.test", "away", key="sip")
    world.bench.publish("im:alice@a.test", "dnd", key="xmpp")
    await say(world, APEX, alice, "chat")
    (told,) = await bob.send(Subscribe(alice.endpoint, 86400, 1))
    assert isinstance(told, Publish)
    infos = {one.tuple_info for one in told.presence.tuples}
    assert infos == {
        "urn:comity:tuple:0:ID-sip?=show=away",
        "urn:comity:tuple:0:ID-xmpp?=show=dnd",
        "urn:comity:tuple:0?=note=Brb&show=chat",
    }
    world.bench.unpublish("im:alice@a.test", key="sip")
    world.bench.unpublish("im:alice@a.test", key="xmpp")
    await world.bench.advance(1)
    *_, told = bob.take()
    assert isinstance(told, Publish)
    assert [one.tuple_info for one in told.presence.tuples] == ["urn:comity:tuple:0?=note=Brb&show=chat"]

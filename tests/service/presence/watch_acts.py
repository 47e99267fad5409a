"""A story of subscriptions, told in a process of its own that may be killed: ``python -m tests.service.presence.watch_acts DIR``.

Each line of output is something a watcher or a presentity was told: an answer, or a notification.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from comity.service.presence.interfaces import Decision, Granted
from comity.store import SqliteStore
from comity.store.clock import StoreClock
from comity.testing.clock import FakeClock
from comity.testing.presence import PresenceBench

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"


async def opened(directory: Path) -> tuple[PresenceBench, SqliteStore]:
    """A bench over the store of that directory, in fake time."""
    clock = FakeClock()
    store = await SqliteStore.open(directory, clock=StoreClock(lambda: clock.when().timestamp(), clock.now), min_free=0)
    return await PresenceBench(store, clock=clock).start(), store


def say(*words: str) -> None:
    """One line, out before anything else happens."""
    print(*words, flush=True)


def say_told(bench: PresenceBench) -> None:
    """Everything edges were asked to tell."""
    for one in bench.sip.take():
        say("told", one.subscription.id, one.word, one.state)


async def tell(directory: Path) -> None:
    """The story."""
    bench, store = await opened(directory)

    async def subscribe(who: str, id: str, duration: int) -> None:
        answer = await bench.ask(who, BOB, duration, id=id, begins=False)
        assert isinstance(answer, Granted), answer
        say("yes" if duration else "ended", id)
        bench.presence.begin(answer.subscription)
        say_told(bench)

    bench.publish(BOB)
    await bench.answer(BOB, ALICE)
    await bench.answer(BOB, CAROL)
    await subscribe(ALICE, "a", 600)
    await subscribe(CAROL, "c", 600)
    await subscribe(ALICE, "b", 600)
    await subscribe(ALICE, "a", 1200)
    await subscribe(ALICE, "a", 0)
    await bench.answer(BOB, CAROL, Decision.REFUSED)
    say("ended", "c")
    say_told(bench)
    await bench.advance(10)
    bench.publish(BOB, "away")
    say_told(bench)
    bench.presence.stop()
    await store.close()


if __name__ == "__main__":
    asyncio.run(tell(Path(sys.argv[1])))

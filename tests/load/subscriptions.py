"""What live subscriptions cost inside the service: octets each, CPU of a change, and 500 x 500 across 200 domains (OPS-36).

A whole presence service over a memory store with edges that do nothing, so that what is measured is the service alone;
``python -m tests.load.subscriptions`` prints the figures, tests/load/test_subscriptions.py holds them. What a binding adds
(a dialog, a socket) is measured by the load rig with real ones (S4).
"""

from __future__ import annotations

import asyncio
import gc
import json
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from comity.cpim.address import Address
from comity.cpim.operations import EndReason, SubscribeOperation
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Content, Default, Granted, Statement, Subscription, Terms
from comity.service.presence.keeping import KeepingLimits
from comity.service.presence.watching import PresenceLimits
from comity.testing.presence import PresenceBench, RecordingEdge

DIALOG = b"d" * 400
"""As long as a SIP dialog that is kept (``bindings/sip/dialog.py``)."""


class CountingEdge(RecordingEdge):
    """Counts what it is asked to tell."""

    count = 0

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """Count."""
        self.count += len(subscriptions)

    def pending(self, subscription: Subscription) -> None:
        """Count."""
        self.count += 1

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """Count."""
        self.count += 1


@dataclass(frozen=True)
class Figures:
    """What came out."""

    subscriptions: int
    octets_each: int
    """Of memory, for a live one with its dialog, its row in a memory store not counted."""
    subscribe_us: float
    """CPU of one subscribe, the first notification included."""
    watchers: int
    microseconds_each: float
    """CPU of a change inside the service, for each watcher told."""
    told: int


async def bench_with(accounts: Sequence[str]) -> tuple[PresenceBench, CountingEdge]:
    """A service in which everybody sees everybody."""
    limits = PresenceLimits(subscriptions=100_000, watchers=100_000)
    bench = PresenceBench(limits=limits, keeping=KeepingLimits(Default.EVERYONE), accounts=accounts)
    await bench.start()
    edge = CountingEdge(bench.clock)
    bench.presence.attach("load", edge)
    return bench, edge


async def watch(bench: PresenceBench, watcher: Address, target: Address, number: int, interval: float = 0.0) -> None:
    """One live subscription."""
    operation = SubscribeOperation(watcher.with_scheme("pres"), target.with_scheme("pres"), f"s{number}", "t", 3600)
    terms = Terms("load", interval=interval, data=DIALOG + str(number).encode())
    answer = await bench.presence.subscribe(operation, Origin(watcher, "load", "127.0.0.1", True), terms)
    assert isinstance(answer, Granted), answer
    bench.presence.begin(answer.subscription)


def publish(bench: PresenceBench, who: Address, word: str) -> None:
    """A device of ``who`` says how it is."""
    bench.clock.advance(6.0)
    statement = Statement(bench.document(who.uri, word))
    bench.presence.publish(who, statement, Origin(who, "load", "127.0.0.1", True), key="phone")


async def measure(subscriptions: int = 10_000, watchers: int = 1_000, changes: int = 20) -> Figures:
    """Make so many subscriptions, then change what ``watchers`` of them see so often."""
    people = [Address.parse(f"im:p{number}@a.test") for number in range(subscriptions // watchers + watchers)]
    bench, edge = await bench_with([one.uri for one in people])
    presentities, rest = people[: subscriptions // watchers], people[subscriptions // watchers :]
    for one in people:
        await bench.presence.keeping.access.load(one)
    for one in presentities:
        publish(bench, one, "available")
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    number = 0
    for target in presentities:
        for watcher in rest:
            number += 1
            await watch(bench, watcher, target, number)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    begun = time.process_time()
    for more in range(watchers):
        await watch(bench, rest[more], presentities[-1], number + more + 1)
    subscribed = time.process_time() - begun
    edge.count = 0
    begun = time.process_time()
    for change in range(changes):
        publish(bench, presentities[0], ("away", "available")[change % 2])
    spent = time.process_time() - begun
    each = spent / changes / watchers * 1e6
    return Figures(number, (after - before) // number, subscribed / watchers * 1e6, watchers, each, edge.count)


async def across(contacts: int = 500, domains: int = 200) -> int:
    """So many accounts, each watching all others, across so many domains; how many are told when each changes once."""
    people = [Address.parse(f"im:p{number}@d{number % domains}.test") for number in range(contacts)]
    bench, edge = await bench_with([one.uri for one in people])
    number = 0
    for target in people:
        for watcher in people:
            number += 1
            await watch(bench, watcher, target, number)
    edge.count = 0
    for one in people:
        publish(bench, one, "away")
    return edge.count


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(measure())), indent=2))
    begun = time.process_time()
    told = asyncio.run(across())
    print(json.dumps({"contacts": "500 x 500", "domains": 200, "told": told, "cpu_s": time.process_time() - begun}))

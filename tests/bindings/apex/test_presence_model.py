"""Whatever happens in whatever order: a watcher's last publish is the truth, and what is over stays over (G9, APEX-17, 20, 21)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.apex.elements import Publish, Reply, Subscribe, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.presence_operations import EDGE, Kept
from comity.cpim.address import Address
from comity.service.presence.interfaces import Decision
from comity.testing.service import settle
from tests.bindings.apex.presence_world import Application, World
from tests.loop import in_loop

ALICE, BOB = "im:alice@a.test", "im:bob@a.test"
WORDS = ("available", "chat", "away", "xa", "dnd", "offline")
ENDPOINTS = ("bob@a.test", "bob/desk@a.test")
ACTS = ("subscribe", "poll", "terminate", "come", "go", "slow", "slow")
STEPS = st.sampled_from(
    [
        *(("say", word) for word in WORDS * 2),
        *(("decide", one.value) for one in (Decision.ALLOWED, Decision.POLITE, Decision.REFUSED)),
        *((act, who) for act in ACTS for who in (ENDPOINTS[0], *ENDPOINTS)),
        ("wait", ""),
        ("restart", ""),
    ]
)


@dataclass
class Story:
    """What is true, and what each application was told."""

    world: World
    applications: dict[str, Application]
    word: str = "offline"
    decision: Decision = Decision.NONE
    told: dict[int, str] = field(default_factory=dict)
    """By transaction, the last state."""
    over: set[int] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)
    """By endpoint, its last subscribe."""
    number: int = 0

    async def step(self, what: str, which: str) -> None:
        """One thing happens."""
        bench = self.world.bench
        if what == "say":
            if which != "offline":
                bench.publish(ALICE, which)
            elif self.word != "offline":
                bench.unpublish(ALICE)
            self.word = which
        elif what == "decide":
            self.decision = Decision(which)
            await bench.answer(ALICE, BOB, self.decision)
        elif what == "wait":
            await bench.advance(50)
        elif what == "restart":
            self.word = "offline"
            for one in self.applications.values():
                one.unanswered = []
            await self.world.restart()
        else:
            await self.act(what, self.applications[which], which)
        await settle()
        for one in self.applications.values():
            self.hear(one)

    async def act(self, what: str, application: Application, name: str) -> None:
        """An application does something."""
        is_there = application.endpoint in self.world.relay.applications
        if what == "come":
            application.is_slow = False
            await application.attach()
        elif not is_there:
            return
        elif what == "go":
            application.detach()
            await application.settle(is_ok=False)
        elif what == "slow":
            application.is_slow = True
        elif what == "terminate":
            await application.send(Terminate(self.asked.get(name, 1)), is_taken=False)
        else:
            self.number += 1
            former = self.asked.get(name)
            self.hear(application)
            alice = Endpoint.parse("alice@a.test")
            await application.send(Subscribe(alice, 90_000 if what == "subscribe" else 0, self.number), is_taken=False)
            if former is not None and not any(isinstance(one, Reply) for _, one in application.heard):
                self.over.add(former)
            self.asked[name] = self.number

    def hear(self, application: Application) -> None:
        """What was told since the last look; nothing of what is over."""
        for one in application.take():
            assert isinstance(one, Publish | Terminate | Reply), one
            if isinstance(one, Reply) and one.code == 550:
                continue
            assert one.trans_id not in self.over, f"{one} after the end"
            if isinstance(one, Publish):
                (only,) = one.presence.tuples
                shown = re.search(r"show=(\w+)", only.tuple_info)
                is_open = only.available_until > self.world.bench.clock.when()
                self.told[one.trans_id] = (shown[1] if shown else "available") if is_open else "offline"
            else:
                self.over.add(one.trans_id)

    async def check(self) -> None:
        """When all is quiet, everybody who is there and watches knows the truth."""
        await self.world.bench.advance(50)
        for one in self.applications.values():
            while one.unanswered:
                await one.settle(is_ok=True)
            self.hear(one)
        truth = self.word if self.decision is Decision.ALLOWED else "offline"
        for subscription in self.world.bench.presence.subscriptions_of(EDGE, Address.parse(BOB)):
            kept = Kept.decode(subscription.data)
            assert kept.trans_id not in self.over
            if kept.originator in self.world.relay.applications:
                assert self.told[kept.trans_id] == truth


@settings(max_examples=100, deadline=None)
@given(st.lists(STEPS, min_size=15, max_size=40))
@in_loop
async def test_the_last_publish_is_the_truth_and_what_is_over_stays_over(steps: list[tuple[str, str]]) -> None:
    """G9, APEX-17, APEX-20, APEX-21: with slow applications, revocations and restarts in between."""
    world = await World().start()
    story = Story(world, {name: Application(world, name) for name in ENDPOINTS})
    begin = [("come", ENDPOINTS[0]), ("decide", "allowed"), ("subscribe", ENDPOINTS[0]), ("say", "away")]
    for what, which in (*begin, *steps):
        await story.step(what, which)
    await story.check()
    world.bench.presence.stop()

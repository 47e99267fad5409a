"""The presence service against a model of it: any sequence of publish, subscribe, decide, block, time and crash.

What is held (OPS-21 to OPS-27, OPS-29, ACL-10, ACL-11, SIP-27, G9): a watcher whose subscription is active hears the last state,
none more often than its interval allows, none after it was blocked or had ended, and none before it was allowed; who is
politely blocked hears of somebody who is offline; what was durable is there after a crash, and what was revoked is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.cpim.watchers import SubscriptionState
from comity.service.presence.interfaces import Decision
from comity.testing.presence import PresenceBench, Told
from comity.testing.service import settle

PEOPLE = ("alice", "bob", "carol")
PERSON = st.sampled_from(PEOPLE)
PAIR = st.tuples(PERSON, PERSON).filter(lambda pair: pair[0] != pair[1])
WORDS = ("chat", "available", "away", "xa", "dnd")
INTERVAL = {"sip": 5.0, "xmpp": 0.0}


def uri(name: str) -> str:
    return f"im:{name}@a.test"


@dataclass(eq=False)
class Sub:
    """One subscription as the model knows it."""

    id: str
    watcher: str
    target: str
    edge: str
    expires: float
    heard: str = ""
    heard_at: float = float("-inf")
    is_told_freely: bool = True
    """The next notification is a subscription's first, or follows a decision: no interval holds it back."""


class Presence(RuleBasedStateMachine):
    """The bench and the model side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.bench = PresenceBench()
        self.runner.run(self.bench.start())
        self.said: dict[str, dict[str, tuple[str, float]]] = {name: {} for name in PEOPLE}
        self.decided: dict[tuple[str, str], Decision] = {}
        """By (account, watcher)."""
        self.blocked: set[tuple[str, str]] = set()
        self.subs: dict[str, Sub] = {}
        self.ids = 0
        self.restarted = float("-inf")

    @property
    def now(self) -> float:
        return self.bench.clock.now()

    # --- the model ---------------------------------------------------------------------------------------------------

    def state_of(self, name: str) -> str:
        words = [word for word, until in self.said[name].values() if until > self.now]
        return min(words, key=WORDS.index, default="offline")

    def sees(self, sub: Sub) -> str:
        """What the watcher should see: a word of T9, "" while it waits."""
        if {(sub.target, sub.watcher), (sub.watcher, sub.target)} & self.blocked:
            return "offline"
        match self.decided.get((sub.target, sub.watcher), Decision.NONE):
            case Decision.ALLOWED:
                return self.state_of(sub.target)
            case Decision.POLITE:
                return "offline"
        return ""

    def is_refused(self, account: str, watcher: str) -> bool:
        is_blocked = {(account, watcher), (watcher, account)} & self.blocked
        return self.decided.get((account, watcher)) is Decision.REFUSED and not is_blocked

    def take(self) -> None:
        """Everything that was told fits the model, each at its time."""
        for one in (*self.bench.sip.take(), *self.bench.xmpp.take()):
            sub = self.subs.get(one.subscription.id)
            assert sub is not None, f"told after its end: {one}"
            if one.word == "notify":
                self.check_notify(sub, one)
            elif one.word == "pending":
                sub.heard, sub.is_told_freely = "", True
            else:
                del self.subs[sub.id]

    def check_notify(self, sub: Sub, one: Told) -> None:
        assert self.sees(sub), f"told to who may not see: {one}"
        assert sub.is_told_freely or one.at >= sub.heard_at + INTERVAL[sub.edge], f"told too soon: {one}"
        sub.heard, sub.heard_at, sub.is_told_freely = one.state, one.at, False

    async def do(self, act: Callable[[], object]) -> None:
        act()
        await settle()

    # --- what happens -------------------------------------------------------------------------------------------------

    @rule(name=PERSON, word=st.sampled_from(WORDS), key=st.sampled_from("ab"), lease=st.sampled_from([None, 30, 9999]))
    def publish(self, name: str, word: str, key: str, lease: int | None) -> None:
        self.runner.run(self.do(lambda: self.bench.publish(uri(name), word, key=key, lease=lease)))
        self.said[name][key] = word, self.now + (min(lease, 3600) if lease else float("inf"))
        self.take()

    @rule(name=PERSON, key=st.sampled_from("ab"))
    def unpublish(self, name: str, key: str) -> None:
        if self.said[name].get(key, ("", 0.0))[1] > self.now:
            self.runner.run(self.do(lambda: self.bench.unpublish(uri(name), key=key)))
            del self.said[name][key]
            self.take()

    @rule(pair=PAIR, edge=st.sampled_from(["sip", "xmpp"]), duration=st.sampled_from([60, 600]))
    def subscribe(self, pair: tuple[str, str], edge: str, duration: int) -> None:
        self.ids += 1
        watcher, target = pair
        expires = self.now + duration if edge == "sip" else float("inf")
        sub = self.subs[str(self.ids)] = Sub(str(self.ids), watcher, target, edge, expires)
        if self.is_refused(target, watcher):
            self.decided[target, watcher] = Decision.NONE  # who was refused may ask again where the default is to ask
        self.runner.run(self.bench.watch(uri(watcher), uri(target), duration, id=sub.id, edge=edge))
        self.take()

    @rule(which=st.integers(0, 20), duration=st.sampled_from([60, 600]))
    def refresh(self, which: int, duration: int) -> None:
        if self.subs:
            sub = list(self.subs.values())[which % len(self.subs)]
            sub.is_told_freely = True
            if sub.edge == "sip":
                sub.expires = self.now + duration
            self.runner.run(self.bench.watch(uri(sub.watcher), uri(sub.target), duration, id=sub.id, edge=sub.edge))
            self.take()

    @rule(which=st.integers(0, 20))
    def end(self, which: int) -> None:
        if self.subs:
            sub = list(self.subs.values())[which % len(self.subs)]
            self.runner.run(self.bench.watch(uri(sub.watcher), uri(sub.target), 0, id=sub.id, edge=sub.edge))
            last = (*self.bench.sip.take(), *self.bench.xmpp.take())
            assert [one.subscription.id for one in last] == [sub.id]
            del self.subs[sub.id]

    @rule(pair=PAIR, decision=st.sampled_from([Decision.ALLOWED, Decision.REFUSED, Decision.POLITE]))
    def decide(self, pair: tuple[str, str], decision: Decision) -> None:
        self.decided[pair] = decision
        self.changed(pair)
        self.runner.run(self.bench.answer(uri(pair[0]), uri(pair[1]), decision))
        self.take()

    @rule(pair=PAIR, is_on=st.booleans())
    def block(self, pair: tuple[str, str], is_on: bool) -> None:
        (self.blocked.add if is_on else self.blocked.discard)(pair)
        self.changed(pair)
        self.changed((pair[1], pair[0]))
        self.runner.run(self.set_block(pair, is_on))
        self.take()

    async def set_block(self, pair: tuple[str, str], is_on: bool) -> None:
        account, other = Address.parse(uri(pair[0])), Address.parse(uri(pair[1]))
        contacts = self.bench.presence.contacts
        change = contacts.block if is_on else contacts.unblock
        answer = await change(account, [other], self.bench.origin(account.uri))
        assert not isinstance(answer, Response), answer
        await self.bench.advance(0)

    def changed(self, pair: tuple[str, str]) -> None:
        for sub in self.subs.values():
            if (sub.target, sub.watcher) == pair:
                sub.is_told_freely = True

    @rule(seconds=st.sampled_from([0.5, 2.0, 4.9, 5.0, 31.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.runner.run(self.bench.advance(seconds))
        self.take()

    @rule()
    def crash(self) -> None:
        self.said = {name: {} for name in PEOPLE}
        self.subs = {id: sub for id, sub in self.subs.items() if sub.edge == "sip"}
        for sub in self.subs.values():
            sub.is_told_freely = True
        self.runner.run(self.bench.crash())
        self.restarted = self.now
        self.take()

    # --- what holds then ----------------------------------------------------------------------------------------------

    @invariant()
    def everybody_knows_what_they_may(self) -> None:
        for name in PEOPLE:
            known = {
                one.id: one.state
                for one in self.bench.presence.watchers(Address.parse(uri(name)))
                if one.state is not SubscriptionState.WAITING
            }
            assert set(known) == {sub.id for sub in self.subs.values() if sub.target == name}
        for sub in self.subs.values():
            assert sub.expires > self.now
            is_settled = self.now >= max(sub.heard_at + INTERVAL[sub.edge], self.restarted + 60)
            if is_settled or not self.sees(sub):
                assert sub.heard == self.sees(sub) or self.now < self.restarted + 60, sub

    def teardown(self) -> None:
        self.bench.presence.stop()
        self.runner.run(self.bench.pipeline.stop())
        self.runner.close()


TestPresence = Presence.TestCase
TestPresence.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)

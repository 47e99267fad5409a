"""Whatever happens to a presentity and to the phone that watches it, the phone ends up with what is true (SIP-27, G9, ACL-10)."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comity.bindings.base import Transport
from comity.bindings.sip.message import SipRequest
from comity.cpim.presence_rules import EVERYTHING, Permissions, SubHandling
from tests.bindings.sip.presence_kit import ALICE, BOB, PresenceWorld, Watcher, basic_of, pidf, state_of

GRANTS = {
    "allow": EVERYTHING,
    "polite": Permissions(SubHandling.POLITE_BLOCK),
    "confirm": Permissions(SubHandling.CONFIRM),
}
Step = tuple[str, object]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.sampled_from(["open", "closed"])),
        st.tuples(st.just("grant"), st.sampled_from(sorted(GRANTS))),
        st.tuples(st.just("answers"), st.lists(st.sampled_from([0, 200, 202, 302, 500, 503]), max_size=4)),
        st.tuples(st.just("advance"), st.sampled_from([0.1, 0.6, 3.0, 7.0])),
        st.tuples(st.just("refresh"), st.just(600)),
    ),
    max_size=12,
)


@dataclass
class Truth:
    """What the watcher should see."""

    word: str = "closed"
    granted: str = "allow"

    @property
    def heard(self) -> tuple[str, str]:
        if self.granted == "confirm":
            return "pending", ""
        return "active", self.word if self.granted == "allow" else "closed"


async def play(steps: list[Step], transport: Transport) -> None:
    world, truth = PresenceWorld(user_publication_burst=1000), Truth()
    await world.start()
    await world.grant(BOB, ALICE)
    bob, alice = Watcher(world, "bob", "tcp"), Watcher(world, "alice", transport)
    first, etag, passed = await alice.subscribe(), "", 0.0
    seen: list[SipRequest] = []
    for kind, value in steps:
        if kind == "publish":
            truth.word = str(value)
            etag = (await bob.publish(pidf(truth.word, entity="pres:bob@a.test"), etag=etag)).value("sip-etag") or ""
        elif kind == "grant":
            truth.granted = str(value)
            before = len(alice.received)
            await world.grant(BOB, ALICE, GRANTS[truth.granted])
            if truth.granted == "confirm":
                # From here on no document is told, whatever was on its way.
                assert not any(one.body for one in alice.received[before:])
        elif kind == "answers":
            assert isinstance(value, list)
            # Over a connection nothing is sent again: who is silent there hears nothing more until Timer F.
            alice.answers = [code or (0 if transport == "udp" else 200) for code in value]
        elif kind == "advance":
            assert isinstance(value, float)
            passed += value
            # Within Timer F: a phone that is silent for longer is none (SIP-22), which has tests of its own.
            await world.advance(value if passed < 10.0 else 0.1)
        else:
            assert (await alice.again(first, 600)).status_code == 200
        seen += alice.notified()
        alice.received = []
    alice.answers = []
    await world.advance(20)
    seen += alice.notified()
    numbers = [one.cseq.number for one in seen]
    assert numbers == sorted(numbers)
    last = seen[-1]
    assert (state_of(last), basic_of(last.body)) == truth.heard
    await world.grant(BOB, ALICE, Permissions(SubHandling.BLOCK))
    assert alice.heard() == [("rejected", "")]
    await bob.publish(pidf("open", "after", entity="pres:bob@a.test"), etag=etag)
    await world.advance(40)
    assert alice.heard() == []
    assert not world.binding._notifier._watches
    assert not world.binding._notifier._pending


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, st.sampled_from(["udp", "tcp"]))
def test_the_last_state_is_never_lost_and_nothing_follows_a_block(steps: list[Step], transport: Transport) -> None:
    asyncio.run(play(steps, transport))

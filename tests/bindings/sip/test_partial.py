"""Partial notifications: ``comity.bindings.sip.partial`` in the notifier; RFC 5263."""

from __future__ import annotations

from comity.bindings.sip.message import SipRequest
from comity.cpim.presence_rules import Permissions, SubHandling
from tests.bindings.sip.kit import story
from tests.bindings.sip.presence_kit import ALICE, BOB, PresenceWorld, Watcher, pidf
from tests.patching import Patched

DIFF = "application/pidf-diff+xml"
BOTH = ("Accept", f"application/pidf+xml;q=0.3, {DIFF};q=1")
MORE = "".join(f"<tuple id='x{number}'><status><basic>open</basic></status></tuple>" for number in range(8))


def kind(request: SipRequest) -> str:
    """Root of a partial document, "" for an ordinary one."""
    if request.content_type.partition(";")[0] != DIFF:
        return ""
    return "full" if b"<p:pidf-full" in request.body else "diff"


def taken(watcher: Patched, requests: list[SipRequest]) -> list[str]:
    """What each of them was, all of them taken."""
    for request in requests:
        assert watcher.take(request.body)
    return [kind(request) for request in requests]


async def world_of(transport: str = "tcp") -> tuple[PresenceWorld, Watcher, Watcher]:
    world = await PresenceWorld().start()
    await world.grant(BOB, ALICE)
    bob, alice = Watcher(world, "bob"), Watcher(world, "alice", "tcp" if transport == "tcp" else "udp")
    await bob.publish(pidf("open", more=MORE))
    return world, alice, bob


@story
async def test_after_the_first_only_what_changed_is_told() -> None:
    """RFC 5263 section 4.4; SIP-14's kin."""
    world, alice, bob = await world_of()
    answer = await alice.subscribe("bob", 600, BOTH)
    copy = Patched()
    assert taken(copy, alice.notified()) == ["full"]
    assert copy.version == 1
    for word in ("closed", "open"):
        await world.advance(10)
        await bob.publish(pidf(word, id="a"))
        assert taken(copy, alice.notified()) == ["diff"]
    await alice.again(answer, 600, BOTH)
    assert taken(copy, alice.notified()) == ["full"]
    assert copy.version == 4
    assert b"open" in copy.document


@story
async def test_who_does_not_ask_or_likes_it_less_gets_whole_documents() -> None:
    world, alice, bob = await world_of()
    for number, accept in enumerate(
        ("", "*/*", f"application/pidf+xml, {DIFF};q=0.5", f"application/pidf+xml, {DIFF};q=0")
    ):
        await alice.subscribe("bob", 600, ("Accept", accept), call_id=f"c{number}")
        assert [kind(one) for one in alice.notified()] == [""]
    await world.advance(10)
    await bob.publish(pidf("closed"))
    assert {kind(one) for one in alice.notified()} == {""}


@story
async def test_what_was_not_answered_is_not_built_upon() -> None:
    """N-16: no version is missed, and none is used twice."""
    world, alice, bob = await world_of("udp")
    await alice.subscribe("bob", 600, BOTH)
    copy = Patched()
    assert taken(copy, alice.notified()) == ["full"]
    alice.hold = []
    await world.advance(10)
    await bob.publish(pidf("closed", id="a"))
    lost = alice.notified()
    assert {kind(one) for one in lost} == {"diff"}
    await world.advance(10)
    await bob.publish(pidf("closed", "later", id="a"))
    await world.advance(10)
    alice.hold = None
    await world.advance(40)
    later = [one for one in alice.notified() if one.cseq.number > lost[-1].cseq.number]
    assert later
    assert kind(later[0]) == "full"
    assert copy.take(later[0].body)
    assert b"later" in copy.document


@story
async def test_after_a_block_and_its_end_all_is_told_anew() -> None:
    """G9: nothing is built on what was taken away."""
    world, alice, bob = await world_of()
    await alice.subscribe("bob", 600, BOTH)
    copy = Patched()
    taken(copy, alice.notified())
    await world.grant(BOB, ALICE, Permissions(SubHandling.POLITE_BLOCK))
    away = alice.notified()
    assert taken(copy, away)
    assert b"x1" not in copy.document
    await world.advance(10)
    await bob.publish(pidf("closed", "secret", id="a"))
    assert not any(b"secret" in one.body for one in alice.notified())


@story
async def test_versions_go_up_over_a_restart() -> None:
    """RFC 5263 section 4.4: "only reset when the given subscription is terminated"."""
    world, alice, bob = await world_of("udp")
    await alice.subscribe("bob", 600, BOTH)
    copy = Patched()
    taken(copy, alice.notified())
    await world.crash()
    await world.advance(60)
    await bob.publish(pidf("closed", id="a"))
    await world.advance(10)
    told = alice.notified()
    assert told
    assert kind(told[0]) == "full"
    assert all(copy.take(one.body) for one in told)
    assert b"closed" in copy.document

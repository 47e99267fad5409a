"""Watcher information as the presence service tells it (RFC 3857, PRES-24 to PRES-26, ACL-25, ACL-26)."""

from __future__ import annotations

from comity.cpim.operations import EndReason, Reason, Response
from comity.cpim.watchers import WatcherInfo
from comity.service.presence.interfaces import Decision
from comity.testing.presence import PresenceBench
from tests.loop import in_loop

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"
WINFO = "presence.winfo"


def informed(bench: PresenceBench) -> list[tuple[int, bool, list[tuple[str, str, str]]]]:
    """(version, whole, [(watcher, state, event)]) of each document told since the last look."""
    found = []
    for one in bench.sip.take():
        if one.subscription.package == WINFO:
            assert one.content is not None
            info = WatcherInfo.parse(one.content.object.octets)
            rows = [
                (entry.uri.partition(":")[2].partition("@")[0], entry.state.value, entry.event.value)
                for row in info.lists
                for entry in row.watchers
            ]
            found.append((info.version, info.is_full, rows))
    return found


@in_loop
async def test_an_account_learns_who_asks_and_what_becomes_of_it() -> None:
    """ACL-25, PRES-24: the whole state first, then what changed, versions in a row."""
    bench = await PresenceBench().start()
    await bench.watch(BOB, BOB, package=WINFO)
    assert informed(bench) == [(0, True, [])]
    await bench.advance(10)
    await bench.watch(ALICE, BOB, id="one")
    assert informed(bench) == [(1, False, [("alice", "pending", "subscribe")])]
    await bench.advance(10)
    await bench.answer(BOB, ALICE)
    assert informed(bench) == [(2, False, [("alice", "active", "approved")])]
    await bench.advance(10)
    await bench.answer(BOB, ALICE, Decision.REFUSED)
    assert informed(bench) == [(3, False, [("alice", "terminated", "rejected")])]


@in_loop
async def test_changes_are_told_together_when_the_interval_allows() -> None:
    """SIP-27 for watcher information: the last state of everybody, once."""
    bench = await PresenceBench().start()
    await bench.watch(BOB, BOB, package=WINFO)
    await bench.watch(ALICE, BOB)
    await bench.watch(CAROL, BOB)
    await bench.answer(BOB, CAROL)
    assert [version for version, _, _ in informed(bench)] == [0]
    await bench.advance(5)
    assert informed(bench) == [(1, False, [("alice", "pending", "subscribe"), ("carol", "active", "approved")])]


@in_loop
async def test_a_request_that_was_not_answered_in_time_waits() -> None:
    """PRES-26: waiting is kept after a pending one expires, and ends with the answer."""
    bench = await PresenceBench().start()
    await bench.watch(BOB, BOB, 6000, package=WINFO, most=6000)
    await bench.watch(ALICE, BOB, 60)
    await bench.advance(59)
    bench.sip.take()
    await bench.advance(10)
    assert informed(bench) == [(2, False, [("alice", "waiting", "timeout")])]
    await bench.answer(BOB, ALICE)
    await bench.advance(10)
    assert informed(bench) == [(3, False, [("alice", "terminated", "approved")])]


@in_loop
async def test_who_is_not_the_account_learns_nothing_of_its_other_watchers() -> None:
    """ACL-26, N-11, RFC 3857 section 4.6: a stranger nothing at all, a watcher what concerns himself, also a blocked one."""
    for decision in (Decision.ALLOWED, Decision.POLITE):
        bench = await PresenceBench().start()
        for target in (BOB, "im:nobody@a.test"):
            refused = await bench.ask(ALICE, target, package=WINFO)
            assert isinstance(refused, Response)
            assert refused.reason is Reason.DENIED
        await bench.answer(BOB, CAROL)
        await bench.answer(BOB, ALICE, decision)
        await bench.watch(CAROL, BOB)
        await bench.watch(ALICE, BOB)
        await bench.watch(ALICE, BOB, package=WINFO)
        assert informed(bench) == [(0, True, [("alice", "active", "approved")])]
        await bench.answer(BOB, CAROL, Decision.REFUSED)
        await bench.advance(10)
        assert informed(bench) == []
        await bench.answer(BOB, ALICE, Decision.REFUSED)
        last = {one.subscription.package: (one.word, one.reason) for one in bench.sip.take()}
        assert last == dict.fromkeys(("presence", WINFO), ("ended", EndReason.REJECTED))
        await bench.advance(60)
        assert bench.sip.take() == []  # G9


@in_loop
async def test_watcher_information_goes_on_after_a_crash() -> None:
    """OPS-29, RFC 3858 section 4: the whole state, under a version that is greater than all before."""
    bench = await PresenceBench().start()
    await bench.watch(BOB, BOB, package=WINFO)
    await bench.watch(ALICE, BOB)
    await bench.advance(10)
    (*_, (last, _, _)) = informed(bench)
    await bench.crash()
    await bench.advance(60)
    (first, *more) = informed(bench)
    assert (first[0] > last, first[1:]) == (True, (True, [("alice", "pending", "subscribe")]))
    assert more == []


@in_loop
async def test_a_refresh_and_a_fetch_get_the_whole_state() -> None:
    """RFC 3858 section 3.2."""
    bench = await PresenceBench().start()
    subscription = await bench.watch(BOB, BOB, package=WINFO)
    await bench.watch(ALICE, BOB)
    await bench.advance(10)
    bench.sip.take()
    await bench.watch(BOB, BOB, id=subscription.id, package=WINFO)
    assert informed(bench) == [(2, True, [("alice", "pending", "subscribe")])]
    await bench.watch(BOB, BOB, 0, package=WINFO)
    assert informed(bench) == [(0, True, [("alice", "pending", "subscribe")])]

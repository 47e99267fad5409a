"""What comes back after a start, and what does not (reliability.md section 5.7)."""

from __future__ import annotations

import pytest

from comity.cpim.address import Address
from comity.service.interfaces import Put
from comity.service.presence.interfaces import Default
from comity.service.presence.keeping import KeepingLimits
from comity.testing.presence import PresenceBench
from comity.testing.service import MemoryAccounts
from tests.loop import in_loop

ALICE, BOB, CAROL = "im:alice@a.test", "im:bob@a.test", "im:carol@a.test"


async def crashed(bench: PresenceBench) -> list[str]:
    """Ids of the durable subscriptions that are there after a crash, and told within a minute."""
    bench.sip.take()
    await bench.crash()
    await bench.advance(60)
    return sorted({one.subscription.id for one in bench.sip.take() if one.word == "notify"})


async def open_bench() -> PresenceBench:
    """Everybody sees everybody."""
    return await PresenceBench(keeping=KeepingLimits(Default.EVERYONE)).start()


@in_loop
async def test_what_is_not_durable_or_over_does_not_come_back() -> None:
    """An XMPP watcher is there again when its device is; a time that ended meanwhile is over."""
    bench = await open_bench()
    await bench.watch(ALICE, BOB, edge="xmpp", id="x")
    await bench.watch(ALICE, BOB, 60, id="short")
    await bench.watch(ALICE, BOB, 600, id="long")
    bench.presence.stop()
    await bench.advance(61)
    assert await crashed(bench) == ["long"]
    assert [key for key, _ in await bench.store.scan("subscription")] == ["sip/long"]
    assert bench.xmpp.take()[1:] == []


@in_loop
async def test_accounts_that_were_removed_meanwhile_neither_watch_nor_are_watched() -> None:
    """OPS-34 with a restart."""
    bench = await open_bench()
    await bench.watch(ALICE, BOB, id="of-bob")
    await bench.watch(BOB, CAROL, id="by-bob")
    await bench.watch(ALICE, CAROL, id="other")
    bench.accounts = MemoryAccounts([ALICE, CAROL])
    assert await crashed(bench) == ["other"]
    assert [key for key, _ in await bench.store.scan("subscription")] == ["sip/other"]


@in_loop
async def test_a_row_that_cannot_be_read_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """F-POISON: it keeps nothing else down."""
    bench = await open_bench()
    await bench.watch(ALICE, BOB, id="good")
    await bench.store.commit([Put("subscription", "sip/bad", b"\x00"), Put("subscription", "sip/odd", b"\x93\x01")])
    assert await crashed(bench) == ["good"]
    assert "cannot be read" in caplog.text


@in_loop
async def test_whoever_subscribes_anew_or_refreshes_does_not_wait() -> None:
    """OPS-21 after a start: told with the answer, and the others with it."""
    bench = await open_bench()
    await bench.watch(ALICE, BOB, id="first")
    await bench.watch(CAROL, BOB, id="second")
    bench.sip.take()
    await bench.crash()
    assert bench.sip.take() == []
    await bench.watch(ALICE, BOB, id="first")
    assert sorted(one.subscription.id for one in bench.sip.take()) == ["first", "second"]
    await bench.advance(60)
    assert bench.sip.take() == []
    assert bench.presence.find("sip", "second") in bench.presence.watchers(Address.parse(BOB))

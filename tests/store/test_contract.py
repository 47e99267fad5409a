"""What every store engine has to do (design.md section 3): one suite, each engine a parameter.

A further engine joins by a row in ``ENGINES``: a way to open a store in a directory with a given clock, and whether
what it acknowledged outlives it. Sequence numbers and revisions are compared by order only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from comity.errors import StoreError
from comity.service.interfaces import (
    SPACES,
    Ack,
    Add,
    Conflict,
    Delete,
    Done,
    Entry,
    Full,
    Mark,
    Op,
    Put,
    Record,
    Repeat,
    Result,
    Store,
    Wake,
)
from comity.store import MemoryStore, SqliteStore, StoreClock

HOUR = 3600.0
DAY = 24 * HOUR


class Hands:
    """A wall clock and a monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.wall = 1_800_000_000.0
        self.monotonic = 1000.0

    def pass_time(self, seconds: float) -> None:
        self.wall += seconds
        self.monotonic += seconds

    def clock(self) -> StoreClock:
        return StoreClock(lambda: self.wall, lambda: self.monotonic)


@dataclass(frozen=True)
class Engine:
    name: str
    open: Callable[[Path, StoreClock], Awaitable[Store]]
    is_durable: bool


async def open_memory(_: Path, clock: StoreClock) -> Store:
    return MemoryStore(clock)


async def open_sqlite(directory: Path, clock: StoreClock) -> Store:
    return await SqliteStore.open(directory, clock=clock)


ENGINES = [Engine("memory", open_memory, False), Engine("sqlite", open_sqlite, True)]
Check = Callable[[Store, Hands], Coroutine[Any, Any, None]]


@pytest.fixture(params=ENGINES, ids=lambda engine: engine.name)
def engine(request: pytest.FixtureRequest) -> Engine:
    found: Engine = request.param
    return found


@pytest.fixture
def run(engine: Engine, tmp_path: Path) -> Callable[[Check], None]:
    def run_check(check: Check) -> None:
        async def main() -> None:
            hands = Hands()
            async with opened(engine, tmp_path / "data", hands) as store:
                await check(store, hands)

        asyncio.run(main())

    return run_check


@asynccontextmanager
async def opened(engine: Engine, directory: Path, hands: Hands) -> AsyncIterator[Store]:
    store = await engine.open(directory, hands.clock())
    try:
        yield store
    finally:
        await store.close()


def record(name: str, lane: str = "inbox/im:bob@b.test", *, size: int = 20, dedup: tuple[str, ...] = ()) -> Record:
    body = (name.encode() * size)[:size]
    return Record(
        id=f"id-{name}",
        lane=lane,
        entity=b"Content-Type: message/cpim\r\n\r\n" + bytes(range(256)) + body,
        envelope=b"\x00envelope\xff" + name.encode(),
        fingerprint=hashlib.sha256(body).hexdigest(),
        expires=1_800_000_000.0 + 3 * DAY,
        dedup=dedup,
    )


async def one(store: Store, op: Op) -> Result:
    (result,) = await store.commit([op])
    return result


async def added(store: Store, item: Record, **options: Any) -> int:
    result = await one(store, Add(item, **options))
    assert isinstance(result, Done), result
    return result.rev


class TestRecords:
    """Add, read, Ack."""

    def test_records_are_read_back_octet_by_octet_in_the_order_of_the_calls(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            records = [record(f"{n}", dedup=(f"k{n}", f"ü{n}\n")) for n in range(200)]
            results = await asyncio.gather(*(store.commit([Add(r)]) for r in records))
            seqs = [r.rev for (r,) in results if isinstance(r, Done)]
            assert len(seqs) == 200
            assert seqs == sorted(set(seqs))
            items = await store.read(records[0].lane, 1000)
            assert [item.record for item in items] == records
            assert [item.seq for item in items] == seqs
            assert {item.accepted for item in items} == {hands.wall}
            assert [item.record for item in await store.read(records[0].lane, 3)] == records[:3]
            assert await store.read("inbox/", 10) == []

        run(check)

    def test_an_acked_record_leaves_its_lane_and_a_second_ack_conflicts(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            lane = record("a").lane
            first, second = await added(store, record("a")), await added(store, record("b"))
            assert await store.commit([Ack("other", first, b"x"), Ack(lane, 999_999, b"x")]) == [Conflict(0)] * 2
            assert await one(store, Ack(lane, first, b"")) == Done(first)
            assert await one(store, Ack(lane, first, b"again")) == Conflict(0)
            assert [item.seq for item in await store.read(lane, 10)] == [second]
            (found,) = await store.find("id-a")
            assert (found.outcome, found.ended, found.seq) == (b"", hands.wall, first)
            assert (found.size, found.envelope) == (len(record("a").entity), record("a").envelope)

        run(check)

    def test_two_acks_of_one_record_in_one_commit_succeed_once(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            seq = await added(store, record("a"))
            lane = record("a").lane
            assert await store.commit([Ack(lane, seq, b"1"), Ack(lane, seq, b"2")]) == [Done(seq), Conflict(0)]
            assert (await store.find("id-a"))[0].outcome == b"1"

        run(check)

    def test_seq_is_never_reused_even_when_the_lane_was_emptied_and_swept(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            seq = await added(store, record("a"))
            await one(store, Ack(record("a").lane, seq, b"done"))
            hands.pass_time(4 * DAY)
            store.time()
            hands.pass_time(61)
            await store.expire()
            assert await store.find("id-a") == []
            assert await added(store, record("b")) > seq

        run(check)

    def test_failing_operations_do_not_undo_the_others(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            results = await store.commit(
                [
                    Add(record("a", dedup=("k",))),
                    Add(record("b", dedup=("k",))),
                    Put("setting", "s", b"1", if_rev=5),
                    Ack("nowhere", 1, b""),
                    Add(record("c"), quota=(1, 10**9)),
                    Add(record("d", "other"), quota=(1, 10**9)),
                    Put("setting", "t", b"2"),
                ]
            )
            kinds = [type(result) for result in results]
            assert kinds == [Done, Repeat, Conflict, Conflict, Full, Done, Done]
            assert [item.record.id for item in await store.read(record("a").lane, 9)] == ["id-a"]
            assert [item.record.id for item in await store.read("other", 9)] == ["id-d"]
            assert await store.get("setting", "s") is None

        run(check)

    def test_a_call_with_an_impossible_name_is_refused_and_its_neighbours_are_not(
        self, run: Callable[[Check], None]
    ) -> None:
        async def check(store: Store, _: Hands) -> None:
            futures = [
                store.commit([Add(record("a"))]),
                store.commit([Add(replace(record("b"), lane="half \ud800"))]),
                store.commit([Add(replace(record("c"), id="with\0nul"))]),
                store.commit([Add(replace(record("d"), expires=float("nan")))]),
                store.commit([Put("contact", "ok", b"")]),
            ]
            done = await asyncio.gather(*futures, return_exceptions=True)
            assert [isinstance(result, StoreError) for result in done] == [False, True, True, True, False]

        run(check)


class TestDedup:
    """reliability.md section 5.3: same key within its window: nothing written, the first one's answer."""

    def test_a_repeat_names_the_first_record_and_its_outcome(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            seq = await added(store, record("a", dedup=("k1", "k2")))
            again = record("b", "elsewhere", dedup=("k0", "k2"))
            assert await one(store, Add(again)) == Repeat("id-a", record("a").lane, None)
            await one(store, Ack(record("a").lane, seq, b"delivered"))
            assert await one(store, Add(again)) == Repeat("id-a", record("a").lane, b"delivered")
            assert await store.read("elsewhere", 1) == []
            await added(store, record("c", dedup=("k0",)))  # the refused one left no key behind

        run(check)

    def test_the_same_spine_id_is_a_repeat(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            await added(store, record("a"))
            assert await store.commit([Add(record("a")), Add(record("b")), Add(record("b"))]) == [
                Repeat("id-a", record("a").lane, None),
                Done((await store.read(record("a").lane, 2))[1].seq),
                Repeat("id-b", record("b").lane, None),
            ]

        run(check)

    def test_a_repeat_within_one_commit_sees_the_ack_before_it(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            seq = await added(store, record("a", dedup=("k",)))
            lane = record("a").lane
            ops: list[Op] = [Add(record("b", dedup=("k",))), Ack(lane, seq, b"ok"), Add(record("c", dedup=("k",)))]
            first, _ack, third = await store.commit(ops)
            assert (first, third) == (Repeat("id-a", lane, None), Repeat("id-a", lane, b"ok"))

        run(check)

    def test_a_key_is_free_again_after_its_window_and_not_before(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            await added(store, record("a", dedup=("k",)), dedup_ttl=600.0)
            hands.pass_time(599)
            assert isinstance(await one(store, Add(record("b", dedup=("k",)))), Repeat)
            hands.pass_time(1)
            await added(store, record("b", dedup=("k",)))
            assert [found.id for found in await store.find("k")] == ["id-b"]

        run(check)

    def test_a_window_longer_than_the_retention_keeps_the_outcome(self, run: Callable[[Check], None]) -> None:
        """Signed messages: 30 days (reliability.md section 5.3)."""

        async def check(store: Store, hands: Hands) -> None:
            seq = await added(store, record("a", dedup=("k",)), dedup_ttl=30 * DAY)
            await one(store, Ack(record("a").lane, seq, b"delivered"))
            for _ in range(29 * 24 * 6):
                hands.pass_time(600)
                store.time()
            await store.expire()
            assert await one(store, Add(record("b", dedup=("k",)))) == Repeat("id-a", record("a").lane, b"delivered")

        run(check)


class TestQuota:
    """reliability.md section 6.2: 1,000 or 64 MiB a user."""

    def test_the_lane_is_full_by_records_or_by_octets_and_ack_makes_room(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            size = len(record("a").entity)
            first = await added(store, record("a"), quota=(2, 10**6))
            await added(store, record("b"), quota=(2, 10**6))
            assert await one(store, Add(record("c"), quota=(2, 10**6))) == Full()
            assert await one(store, Add(record("c"), quota=(9, 3 * size - 1))) == Full()
            await added(store, record("x", "inbox/other"), quota=(1, size))
            done, seq = await store.commit(
                [Ack(record("a").lane, first, b""), Add(record("c", size=20), quota=(2, 2 * size))]
            )
            assert isinstance(done, Done)
            assert isinstance(seq, Done)
            assert await one(store, Add(record("d"), quota=(2, 10**6))) == Full()

        run(check)

    def test_a_repeat_into_a_full_lane_is_still_a_repeat(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            await added(store, record("a", dedup=("k",)), quota=(1, 10**6))
            assert isinstance(await one(store, Add(record("b", dedup=("k",)), quota=(1, 10**6))), Repeat)

        run(check)


class TestValues:
    """Put, Delete, get, scan."""

    def test_revisions_rise_and_guard_a_write(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            first = await one(store, Put("account", "bob", b"1", if_rev=0))
            assert isinstance(first, Done)
            assert first.rev > 0
            assert await one(store, Put("account", "bob", b"x", if_rev=0)) == Conflict(first.rev)
            second = await one(store, Put("account", "bob", b"2", if_rev=first.rev))
            assert isinstance(second, Done)
            assert second.rev > first.rev
            assert await one(store, Put("account", "bob", b"x", if_rev=first.rev)) == Conflict(second.rev)
            assert await store.get("account", "bob") == Entry(b"2", second.rev)
            assert await one(store, Delete("account", "bob", if_rev=first.rev)) == Conflict(second.rev)
            gone = await one(store, Delete("account", "bob", if_rev=second.rev))
            assert isinstance(gone, Done)
            assert await store.get("account", "bob") is None
            assert await one(store, Put("account", "bob", b"x", if_rev=second.rev)) == Conflict(0)
            third = await one(store, Put("account", "bob", b"3", if_rev=0))
            assert isinstance(third, Done)
            assert third.rev > second.rev

        run(check)

    def test_deleting_what_is_not_there_changes_nothing(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            assert await store.commit([Delete("ha1", "x"), Delete("ha1", "x", if_rev=1)]) == [Done(0), Conflict(0)]

        run(check)

    def test_spaces_do_not_see_each_other(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            await store.commit([Put(space, "k", space.encode()) for space in SPACES])
            for space in SPACES:
                entry = await store.get(space, "k")
                assert entry is not None
                assert entry.value == space.encode()

        run(check)

    def test_scan_gives_the_prefix_sorted(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            keys = ["a/2", "a/1", "a/é", "a/_", "a/%", "b/1", "a", "A/1"]
            await store.commit([Put("contact", key, key.encode()) for key in keys])
            found = [key for key, _ in await store.scan("contact", "a/")]
            assert found == sorted(["a/2", "a/1", "a/é", "a/_", "a/%"])
            assert len(await store.scan("contact")) == len(keys)

        run(check)

    def test_a_key_with_a_ttl_is_gone_by_itself_and_its_revisions_are_not_reused(
        self, run: Callable[[Check], None]
    ) -> None:
        async def check(store: Store, hands: Hands) -> None:
            first = await one(store, Put("contact", "k", b"1", ttl=60))
            hands.pass_time(59)
            assert await store.get("contact", "k") is not None
            refreshed = await one(store, Put("contact", "k", b"2", ttl=60))
            hands.pass_time(60)
            assert await store.get("contact", "k") is None
            assert await store.scan("contact") == []
            await store.expire()
            again = await one(store, Put("contact", "k", b"3", if_rev=0))
            assert isinstance(first, Done)
            assert isinstance(refreshed, Done)
            assert isinstance(again, Done)
            assert first.rev < refreshed.rev < again.rev

        run(check)

    def test_puts_of_one_key_in_one_commit_are_carried_out_in_order(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            ops: list[Op] = [Put("setting", "k", b"1"), Delete("setting", "k"), Put("setting", "k", b"2", if_rev=0)]
            revs = [result.rev for result in await store.commit(ops) if isinstance(result, Done)]
            assert revs == sorted(set(revs))
            assert len(revs) == 3
            assert await store.get("setting", "k") == Entry(b"2", revs[2])

        run(check)


class TestMarks:
    """An XMPP stream's ``h`` stands in the same record (reliability.md section 5.2)."""

    def test_a_mark_is_set_with_its_record_and_not_with_a_refused_one(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            assert await store.get_mark("h/1") is None
            await added(store, record("a", dedup=("k",)), marks=(Mark("h/1", b"1"), Mark("h/2", b"\x00")))
            await one(store, Add(record("b", dedup=("k",)), marks=(Mark("h/1", b"2"),)))
            await one(store, Add(record("c"), quota=(1, 1), marks=(Mark("h/1", b"3"),)))
            assert (await store.get_mark("h/1"), await store.get_mark("h/2")) == (b"1", b"\x00")
            await store.commit(
                [Add(record("d"), marks=(Mark("h/1", b"4"),)), Add(record("e"), marks=(Mark("h/1", b"5"),))]
            )
            assert await store.get_mark("h/1") == b"5"
            assert await one(store, Mark("h/1", b"6")) == Done(0)
            assert await store.get_mark("h/1") == b"6"

        run(check)

    def test_a_chain_of_marks_stops_at_the_record_that_was_not_taken(self, run: Callable[[Check], None]) -> None:
        """What was refused is never covered by what was taken after it, in one commit or in several."""

        async def check(store: Store, _: Hands) -> None:
            def step(name: str, before: bytes, value: bytes, **options: Any) -> Add:
                return Add(record(name), marks=(Mark("h", value, before),), **options)

            await one(store, Mark("h", b"0"))
            await store.commit([step("a", b"0", b"1"), step("b", b"1", b"2"), step("c", b"2", b"3", quota=(1, 1))])
            assert await store.get_mark("h") == b"2"
            results = await store.commit([step("d", b"3", b"4"), Mark("h", b"9", b"3"), Mark("new", b"1", b"0")])
            assert [type(result) for result in results] == [Done, Conflict, Conflict], "the record itself is taken"
            assert (await store.get_mark("h"), await store.get_mark("new")) == (b"2", None)
            await one(store, Mark("h", b"4", b"2"))
            await one(store, step("e", b"4", b"5"))
            assert await store.get_mark("h") == b"5"

        run(check)


class TestLanesAndFind:
    """What the queue and trace commands show."""

    def test_lanes_count_what_pends(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            first = await added(store, record("a", "inbox/x", size=5))
            oldest = hands.wall
            hands.pass_time(10)
            await added(store, record("b", "inbox/x", size=7))
            await added(store, record("c", "hop/y"))
            both = await store.lanes()
            assert [(info.lane, info.pending) for info in both] == [("hop/y", 1), ("inbox/x", 2)]
            (inbox,) = await store.lanes("inbox/")
            assert inbox.octets == len(record("a", size=5).entity) + len(record("b", size=7).entity)
            assert inbox.oldest == oldest
            await one(store, Ack("inbox/x", first, b""))
            (inbox,) = await store.lanes("inbox/")
            assert (inbox.pending, inbox.oldest) == (1, oldest + 10)
            await one(store, Ack("hop/y", (await store.read("hop/y", 1))[0].seq, b""))
            assert await store.lanes("hop/") == []

        run(check)

    def test_find_by_id_fingerprint_prefix_and_dedup_key(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            same = [replace(record(name), fingerprint="ABCDEF0123".lower() + name * 54) for name in "12"]
            for item in same:
                await added(store, item)
            await added(store, record("z", dedup=("the key",)))
            assert [found.id for found in await store.find("abcdef01")] == ["id-1", "id-2"]
            assert [found.id for found in await store.find("ABCDEF0123" + "2" * 54)] == ["id-2"]
            assert [found.id for found in await store.find("abcdef01", limit=1)] == ["id-1"]
            assert await store.find("abcdef0") == []
            assert [found.id for found in await store.find("the key")] == ["id-z"]
            assert [found.id for found in await store.find("id-z")] == ["id-z"]
            assert await store.find("%") == []

        run(check)


class TestTime:
    """reliability.md sections 5.6, F-27."""

    def test_expire_reports_late_records_until_they_are_acked(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            base = hands.wall
            late = [replace(record(name), expires=base + order) for name, order in (("a", 30), ("b", 10), ("c", 20))]
            for item in late:
                await added(store, item)
            await added(store, record("d"))
            assert await store.expire() == []
            hands.pass_time(30)
            assert [item.record for item in await store.expire()] == [late[1], late[2], late[0]]
            assert [item.record for item in await store.expire(2)] == [late[1], late[2]]
            for over in await store.expire():
                await one(store, Ack(over.record.lane, over.seq, b"expired"))
            assert await store.expire() == []

        run(check)

    def test_a_terminal_record_is_found_for_72_hours(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, hands: Hands) -> None:
            seq = await added(store, record("a", dedup=("k",)))
            await one(store, Ack(record("a").lane, seq, b"done"))
            for _ in range(72 * 6 - 1):
                hands.pass_time(600)
                store.time()
            await store.expire()
            assert [found.outcome for found in await store.find("id-a")] == [b"done"]
            hands.pass_time(600)
            assert await store.find("id-a") == []
            await store.expire()
            assert await store.find("k") == []
            await added(store, record("a", dedup=("k",)))

        run(check)

    @pytest.mark.parametrize("jump", [HOUR, 400 * DAY])
    def test_a_forward_jump_expires_nothing_until_it_is_confirmed(
        self, run: Callable[[Check], None], jump: float
    ) -> None:
        async def check(store: Store, hands: Hands) -> None:
            await added(store, replace(record("a", dedup=("k",)), expires=hands.wall + 1800), dedup_ttl=1800)
            await one(store, Put("contact", "lease", b"", ttl=1800))
            hands.wall += jump
            assert await store.expire() == []
            assert await store.get("contact", "lease") is not None
            assert isinstance(await one(store, Add(record("b", dedup=("k",)))), Repeat)
            hands.pass_time(59)
            assert await store.expire() == []
            hands.pass_time(1)
            assert [item.record.id for item in await store.expire()] == ["id-a"]
            assert await store.get("contact", "lease") is None

        run(check)

    @pytest.mark.parametrize("jump", [-HOUR, -DAY, -1_799_999_000.0])
    def test_a_backward_jump_keeps_order_and_takes_nothing(self, run: Callable[[Check], None], jump: float) -> None:
        async def check(store: Store, hands: Hands) -> None:
            await added(store, record("a", dedup=("k",)))
            hands.wall += jump
            await added(store, record("b"))
            assert [item.record.id for item in await store.read(record("a").lane, 9)] == ["id-a", "id-b"]
            assert isinstance(await one(store, Add(record("c", dedup=("k",)))), Repeat)
            assert await store.expire() == []

        run(check)


class TestWatch:
    """Names of lanes that changed; coalesced, so a slow reader costs one entry per lane."""

    def test_a_watch_hears_of_records_and_wakes_under_its_prefix(self, run: Callable[[Check], None]) -> None:
        async def check(store: Store, _: Hands) -> None:
            watch = aiter(store.watch("inbox/"))
            await added(store, record("a", "hop/y"))
            await one(store, Wake("inbox/w"))
            for n in range(50):
                await added(store, record(f"{n}", "inbox/x"))
            assert [await anext(watch), await anext(watch)] == ["inbox/w", "inbox/x"]
            waiting = asyncio.ensure_future(anext(watch))
            await one(store, Wake("inbox/v"))
            assert await asyncio.wait_for(waiting, 5) == "inbox/v"

        run(check)

    def test_a_repeat_or_full_wakes_nobody_and_close_ends_the_watch(self, engine: Engine, tmp_path: Path) -> None:
        async def main() -> None:
            async with opened(engine, tmp_path / "data", Hands()) as store:
                await added(store, record("a", dedup=("k",)))
                watch = aiter(store.watch(""))
                await one(store, Add(record("b", dedup=("k",))))
                await one(store, Add(record("c"), quota=(1, 1)))
            assert [name async for name in watch] == []

        asyncio.run(main())


class TestEnd:
    """close, and what is there afterwards."""

    def test_commits_before_close_are_kept_and_calls_after_it_are_refused(self, engine: Engine, tmp_path: Path) -> None:
        async def main() -> None:
            hands = Hands()
            store = await engine.open(tmp_path / "data", hands.clock())
            futures = [store.commit([Add(record(f"{n}"))]) for n in range(100)]
            await store.close()
            assert {type(result) for (result,) in await asyncio.gather(*futures)} == {Done}
            with pytest.raises(StoreError):
                await store.commit([Wake("x")])
            with pytest.raises(StoreError):
                await store.get("setting", "x")
            with pytest.raises(StoreError):
                await store.find("x")

        asyncio.run(main())

    def test_everything_is_there_after_a_restart(self, engine: Engine, tmp_path: Path) -> None:
        if not engine.is_durable:
            pytest.skip("the memory store forgets by design")

        async def main() -> None:
            hands = Hands()
            async with opened(engine, tmp_path / "data", hands) as store:
                seq = await added(store, record("a", dedup=("k",)), marks=(Mark("h", b"7"),))
                last = await added(store, record("b"))
                await one(store, Ack(record("a").lane, seq, b"done"))
                rev = await one(store, Put("account", "bob", b"v"))
                gone = await one(store, Put("account", "eve", b"v"))
                gone = await one(store, Delete("account", "eve"))
            async with opened(engine, tmp_path / "data", hands) as store:
                assert [item.record for item in await store.read(record("b").lane, 9)] == [record("b")]
                assert await one(store, Add(record("c", dedup=("k",)))) == Repeat("id-a", record("a").lane, b"done")
                assert await store.get_mark("h") == b"7"
                assert isinstance(rev, Done)
                assert await store.get("account", "bob") == Entry(b"v", rev.rev)
                assert isinstance(gone, Done)
                again = await one(store, Put("account", "eve", b"w"))
                assert isinstance(again, Done)
                assert again.rev > gone.rev
                assert await added(store, record("d"), quota=(2, 10**6)) > last
                assert await one(store, Add(record("e"), quota=(2, 10**6))) == Full()

        asyncio.run(main())

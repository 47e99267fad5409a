"""Memory against SQLite: any sequence of operations gives the same answers (the contract, stateful).

Also against a restart of the SQLite store at any point, which must change nothing.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from comity.service.interfaces import Ack, Add, Delete, Mark, Op, Put, Record, Space, Wake
from comity.store import MemoryStore, SqliteStore
from tests.store.test_contract import Hands

LANES = st.sampled_from(["inbox/a", "inbox/b", "hop/ü"])
KEYS = st.sampled_from(["k1", "k2", "k\n3", "ключ"])
SPACE: st.SearchStrategy[Space] = st.sampled_from(["contact", "account"])
REVS = st.none() | st.integers(0, 6)
TTL = st.none() | st.sampled_from([0.0, 60.0, 3600.0])

RECORDS = st.builds(
    Record,
    id=st.integers(0, 40).map("id-{}".format),
    lane=LANES,
    entity=st.binary(max_size=30),
    envelope=st.binary(max_size=5),
    fingerprint=st.sampled_from(["ab" * 32, "ab" * 5 + "cd" * 27, "00" * 32]),
    expires=st.sampled_from([600.0, 7200.0, 3e5]).map(lambda later: 1_800_000_000.0 + later),
    dedup=st.lists(KEYS, max_size=2, unique=True).map(tuple),
)
MARKS = st.builds(Mark, KEYS, st.sampled_from([b"0", b"1"]), st.sampled_from([None, b"0", b"1"]))
OPS: st.SearchStrategy[Op] = st.one_of(
    MARKS,
    st.builds(
        Add,
        RECORDS,
        dedup_ttl=st.sampled_from([60.0, 72 * 3600.0, 30 * 86400.0]),
        quota=st.none() | st.tuples(st.integers(0, 4), st.integers(0, 60)),
        marks=st.lists(MARKS, max_size=2).map(tuple),
    ),
    st.builds(Ack, LANES, st.integers(0, 30), st.binary(max_size=3)),
    st.builds(Put, SPACE, KEYS, st.binary(max_size=3), TTL, REVS),
    st.builds(Delete, SPACE, KEYS, REVS),
    st.builds(Wake, LANES),
)


class Same(RuleBasedStateMachine):
    """One clock, two stores, the same calls."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.hands = Hands()
        self.memory = self.runner.run(self.made())
        self.sqlite = self.runner.run(self.opened())

    async def made(self) -> MemoryStore:
        return MemoryStore(self.hands.clock())

    async def opened(self) -> SqliteStore:
        return await SqliteStore.open(self.directory / "data", clock=self.hands.clock(), min_free=0)

    def both(self, name: str, *args: Any) -> None:
        async def ask() -> tuple[Any, Any]:
            return await getattr(self.memory, name)(*args), await getattr(self.sqlite, name)(*args)

        first, second = self.runner.run(ask())
        assert first == second

    @rule(calls=st.lists(st.lists(OPS, max_size=6), min_size=1, max_size=5))
    def commit(self, calls: list[list[Op]]) -> None:
        """Several calls at once: in SQLite they make one group or several, which must not show."""

        async def ask() -> tuple[Any, Any]:
            return (
                await asyncio.gather(*(self.memory.commit(ops) for ops in calls)),
                await asyncio.gather(*(self.sqlite.commit(ops) for ops in calls)),
            )

        first, second = self.runner.run(ask())
        assert first == second

    @rule(seconds=st.sampled_from([1.0, 60.0, 3600.0, 86400.0]))
    def pass_time(self, seconds: float) -> None:
        self.hands.pass_time(seconds)

    @rule(seconds=st.sampled_from([-3600.0, 3600.0, 4e7]))
    def jump(self, seconds: float) -> None:
        """F-27; both stores look at the clock before, so that both see the same jump."""
        self.memory.time()
        self.sqlite.time()
        self.hands.wall += seconds

    @rule(limit=st.sampled_from([1, 100]))
    def expire(self, limit: int) -> None:
        self.both("expire", limit)

    @rule()
    def restart(self) -> None:
        # A new process believes the clock it finds; let the old one do so too, or the two would differ by design.
        for _ in range(2):
            self.memory.time()
            self.hands.pass_time(61)
        self.memory.time()
        self.runner.run(self.sqlite.close())
        self.sqlite = self.runner.run(self.opened())

    @invariant()
    def all_reads_agree(self) -> None:
        for lane in ("inbox/a", "inbox/b", "hop/ü"):
            self.both("read", lane, 100)
        self.both("lanes")
        self.both("lanes", "inbox/")
        for key in ("k1", "k2", "k\n3", "ключ"):
            self.both("get", "contact", key)
            self.both("get_mark", key)
            self.both("find", key)
        self.both("scan", "account", "k")
        for name in ("id-1", "abababab", "ABABABABAB", "00000000", "ababab"):
            self.both("find", name)
        assert self.memory.time() == self.sqlite.time()

    def teardown(self) -> None:
        self.runner.run(self.sqlite.close())
        self.runner.close()
        shutil.rmtree(self.directory)


Same.TestCase.settings = settings(
    max_examples=25, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSame = Same.TestCase

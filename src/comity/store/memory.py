"""The store contract in dictionaries: for tests and trials. Nothing survives the process.

Takes and gives what ``service/interfaces.py`` says, exactly like ``sqlite.py`` (one contract suite and a
stateful comparison hold them together); "durable" means here "done".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from comity.errors import StoreError
from comity.service.interfaces import (
    SPACES,
    Ack,
    Add,
    Conflict,
    Delete,
    Done,
    Entry,
    Found,
    Full,
    Item,
    LaneInfo,
    Mark,
    Op,
    Put,
    Record,
    Repeat,
    Result,
    Space,
    Wake,
)
from comity.store.clock import RETENTION, StoreClock
from comity.store.names import check, is_fingerprint
from comity.store.watch import Watchers


@dataclass(slots=True)
class _Row:
    """One record, pending (``ended`` is None) or terminal (its entity is dropped)."""

    seq: int
    accepted: float
    record: Record
    size: int
    keep: float
    outcome: bytes | None = None
    ended: float | None = None
    gone: float | None = None

    def found(self) -> Found:
        record = self.record
        return Found(
            id=record.id,
            lane=record.lane,
            seq=self.seq,
            accepted=self.accepted,
            fingerprint=record.fingerprint,
            envelope=record.envelope,
            size=self.size,
            outcome=self.outcome,
            ended=self.ended,
        )


@dataclass(slots=True)
class _Value:
    value: bytes
    rev: int
    until: float | None


class MemoryStore:
    """A store that forgets everything when the process ends.

    Args:
        clock: source of store time; tests move it by hand.
    """

    def __init__(self, clock: StoreClock | None = None) -> None:
        self._clock = clock or StoreClock()
        self._rows: dict[int, _Row] = {}
        self._next = 1
        self._ids: dict[str, _Row] = {}
        self._lanes: dict[str, dict[int, _Row]] = {}
        self._dedup: dict[str, tuple[_Row, float]] = {}
        self._marks: dict[str, tuple[bytes, float]] = {}
        self._values: dict[Space, dict[str, _Value]] = {space: {} for space in SPACES}
        self._floors: dict[Space, int] = dict.fromkeys(SPACES, 0)
        self._watchers = Watchers()
        self._is_closed = False

    def time(self) -> float:
        return self._clock.time()

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        future: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        try:
            self._check_open()
            check(ops)
        except StoreError as error:
            future.set_exception(error)
            return future
        now = self.time()
        woken: dict[str, None] = {}
        future.set_result([self._carry_out(op, now, woken) for op in ops])
        self._watchers.tell(woken)
        return future

    def _carry_out(self, op: Op, now: float, woken: dict[str, None]) -> Result:
        match op:
            case Add():
                result = self._add(op, now)
                if isinstance(result, Done):
                    woken[op.record.lane] = None
                return result
            case Ack():
                return self._ack(op, now)
            case Mark():
                return self._mark(op, now)
            case Put():
                return self._put(op, now)
            case Delete():
                return self._delete(op, now)
            case Wake():
                woken[op.lane] = None
                return Done(0)

    def _add(self, op: Add, now: float) -> Result:
        record = op.record
        holder = self._ids.get(record.id)
        for key in record.dedup:
            row, until = self._dedup.get(key, (None, 0.0))
            if holder is None and row is not None and until > now:
                holder = row
        if holder is not None:
            return Repeat(holder.record.id, holder.record.lane, holder.outcome)
        lane = self._lanes.get(record.lane, {})
        size = len(record.entity)
        if op.quota is not None:
            octets = sum(row.size for row in lane.values())
            if len(lane) + 1 > op.quota[0] or octets + size > op.quota[1]:
                return Full()
        until = now + op.dedup_ttl
        row = _Row(self._next, now, record, size, until if record.dedup else now)
        self._next += 1
        self._rows[row.seq] = self._ids[record.id] = row
        self._lanes.setdefault(record.lane, {})[row.seq] = row
        for key in record.dedup:
            self._dedup[key] = (row, until)
        for mark in op.marks:
            self._mark(mark, now)
        return Done(row.seq)

    def _mark(self, op: Mark, now: float) -> Result:
        if op.after is not None and self._marks.get(op.name, (None, 0.0))[0] != op.after:
            return Conflict(0)
        self._marks[op.name] = (op.value, now)
        return Done(0)

    def _ack(self, op: Ack, now: float) -> Result:
        lane = self._lanes.get(op.lane, {})
        row = lane.pop(op.seq, None)
        if row is None:
            return Conflict(0)
        if not lane:
            del self._lanes[op.lane]
        row.record = replace(row.record, entity=b"")
        row.outcome = op.outcome
        row.ended = now
        row.gone = max(row.keep, now + RETENTION)
        return Done(op.seq)

    def _live(self, space: Space, key: str, now: float) -> _Value | None:
        """The key's value unless its time is over."""
        entry = self._values[space].get(key)
        return None if entry is None or (entry.until is not None and entry.until <= now) else entry

    def _settle(self, space: Space, key: str, now: float) -> _Value | None:
        """Like ``_live``, for a write: the revisions of a value whose time is over are not used again."""
        entry = self._values[space].get(key)
        if entry is not None and self._live(space, key, now) is None:
            self._floors[space] = max(self._floors[space], entry.rev)
            return None
        return entry

    def _put(self, op: Put, now: float) -> Result:
        entry = self._settle(op.space, op.key, now)
        rev = entry.rev if entry else 0
        if op.if_rev is not None and op.if_rev != rev:
            return Conflict(rev)
        rev = (rev or self._floors[op.space]) + 1
        until = None if op.ttl is None else now + op.ttl
        self._values[op.space][op.key] = _Value(op.value, rev, until)
        return Done(rev)

    def _delete(self, op: Delete, now: float) -> Result:
        entry = self._settle(op.space, op.key, now)
        rev = entry.rev if entry else 0
        if op.if_rev is not None and op.if_rev != rev:
            return Conflict(rev)
        if entry is None:
            return Done(0)
        del self._values[op.space][op.key]
        self._floors[op.space] = max(self._floors[op.space], rev + 1)
        return Done(rev + 1)

    async def get(self, space: Space, key: str) -> Entry | None:
        self._check_open()
        entry = self._live(space, key, self.time())
        return Entry(entry.value, entry.rev) if entry else None

    async def scan(self, space: Space, prefix: str = "") -> list[tuple[str, Entry]]:
        self._check_open()
        now = self.time()
        live = ((key, self._live(space, key, now)) for key in sorted(self._values[space]) if key.startswith(prefix))
        return [(key, Entry(entry.value, entry.rev)) for key, entry in live if entry]

    async def read(self, lane: str, limit: int) -> list[Item]:
        self._check_open()
        rows = list(self._lanes.get(lane, {}).values())[:limit]
        return [Item(row.seq, row.accepted, row.record) for row in rows]

    async def lanes(self, prefix: str = "") -> list[LaneInfo]:
        self._check_open()
        return [
            LaneInfo(lane, len(rows), sum(row.size for row in rows.values()), next(iter(rows.values())).accepted)
            for lane, rows in sorted(self._lanes.items())
            if lane.startswith(prefix)
        ]

    async def find(self, name: str, limit: int = 100) -> list[Found]:
        self._check_open()
        now = self.time()
        holder = self._dedup.get(name, (None, 0.0))[0]
        prefix = name.lower() if is_fingerprint(name) else None
        hits = (
            row
            for row in self._rows.values()
            if row is holder
            or row.record.id == name
            or (prefix is not None and row.record.fingerprint.startswith(prefix))
        )
        return [row.found() for row in hits if row.gone is None or row.gone > now][:limit]

    async def get_mark(self, name: str) -> bytes | None:
        self._check_open()
        mark = self._marks.get(name)
        return mark[0] if mark else None

    async def expire(self, limit: int = 100) -> list[Item]:
        self._check_open()
        if self._clock.is_doubted:
            return []
        now = self.time()
        for space in SPACES:
            for key in list(self._values[space]):
                if self._settle(space, key, now) is None:
                    del self._values[space][key]
        for row in [row for row in self._rows.values() if row.gone is not None and row.gone <= now]:
            self._forget(row)
        self._marks = {name: mark for name, mark in self._marks.items() if mark[1] + RETENTION > now}
        late = [row for rows in self._lanes.values() for row in rows.values() if row.record.expires <= now]
        late.sort(key=lambda row: (row.record.expires, row.seq))
        return [Item(row.seq, row.accepted, row.record) for row in late[:limit]]

    def _forget(self, row: _Row) -> None:
        del self._rows[row.seq]
        del self._ids[row.record.id]
        for key in row.record.dedup:
            if self._dedup.get(key, (None, 0.0))[0] is row:
                del self._dedup[key]

    def watch(self, prefix: str) -> AsyncIterator[str]:
        return self._watchers.add(prefix)

    async def close(self) -> None:
        self._is_closed = True
        self._watchers.close()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("The store is closed.")

"""One group of commits as one SQLite transaction: read what it touches, decide in order, write in bulk.

Takes the operations of many ``commit`` calls, gives one result per operation and the lanes to wake. Runs in
the writer's thread, inside a transaction ``writer.py`` begins and commits.

Every step of an SQLite statement lets go of the interpreter lock and must win it back from a busy event loop
(up to 5 ms each time), so the number of steps counts more than the work in them. Hence a group costs a handful of
statements, not a handful per record: names to look up go in as one JSON list, answers come back as one JSON
list, and rows are written by statements of 64, 8 or 1 rows. Decisions are made in Python over what was read and what
earlier operations of the group decided.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import msgspec

from comity.failpoints import failpoint
from comity.service.interfaces import (
    Ack,
    Add,
    Conflict,
    Delete,
    Done,
    Full,
    Mark,
    Op,
    Put,
    Record,
    Repeat,
    Result,
    Space,
    Wake,
)
from comity.store.clock import RETENTION

Value = str | bytes | int | float | None
_Row = tuple[str, bytes, int, float | None]
"""key, value, revision, until"""

_CHUNKS = (64, 32, 16, 8, 4, 2, 1)
_MOST_LANES = 10_000
_COLUMNS = "number, id, lane, accepted, expires, keep, size, fingerprint, dedup, envelope, entity"
_KNOWN = "r.number, r.id, r.lane, r.size, r.keep, r.outcome"
_ACK = (
    ") UPDATE records SET entity = NULL, outcome = v.outcome, ended = v.ended, gone = v.gone"
    " FROM v WHERE records.number = v.number"
)
_json = msgspec.json.Encoder()


@dataclass(slots=True)
class State:
    """What the writer remembers between groups; thrown away whenever a transaction did not commit."""

    next: int
    """The next record's number."""
    floors: dict[str, int]
    """Highest revision of any deleted key, by space."""
    usage: dict[str, tuple[int, int]] = field(default_factory=dict)
    """(pending records, their octets) of lanes with a quota that were used lately."""
    marks: dict[str, bytes | None] = field(default_factory=dict)
    """Marks that were used lately; None: there is none of that name."""


@dataclass(slots=True)
class _Known:
    """A record of the table or of this group, as far as decisions need it."""

    number: int
    id: str
    lane: str
    size: int
    keep: float
    outcome: bytes | None


def _list(values: Iterable[str | int]) -> str:
    return _json.encode(list(values)).decode()


@lru_cache
def _statement(head: str, tail: str, width: int, size: int) -> str:
    row = "(" + ",".join("?" * width) + ")"
    return f"{head} VALUES {','.join([row] * size)} {tail}"


def _bulk(cursor: sqlite3.Cursor, head: str, rows: Sequence[tuple[Value, ...]], tail: str = "") -> None:
    """Run ``head VALUES (…), … tail`` over all rows in as few statements as the fixed sizes allow."""
    start = 0
    for size in _CHUNKS:
        while len(rows) - start >= size:
            chunk = rows[start : start + size]
            cursor.execute(_statement(head, tail, len(chunk[0]), size), list(chain.from_iterable(chunk)))
            start += size


class Group:
    """The operations of one transaction.

    Args:
        cursor: inside a transaction.
        state: the writer's memory; changed by ``run``, to be thrown away if the transaction fails.
        now: store time of the commit.
    """

    def __init__(self, cursor: sqlite3.Cursor, state: State, now: float) -> None:
        self._cursor = cursor
        self._state = state
        self._now = now
        self._known: dict[int, _Known] = {}
        self._ids: dict[str, int] = {}
        self._keys: dict[str, tuple[int, float]] = {}
        self._records: list[tuple[Value, ...]] = []
        self._dedup: dict[str, tuple[Value, ...]] = {}
        self._marks: dict[str, tuple[Value, ...]] = {}
        self._acks: list[tuple[Value, ...]] = []
        self._values: dict[Space, dict[str, _Row | None]] = {}
        self._raised: set[str] = set()
        self.woken: dict[str, None] = {}
        """Lanes that got a record or a Wake, in order."""

    def run(self, ops: Sequence[Op]) -> list[Result]:
        """Carry out ``ops`` in order; one result each."""
        adds = [op for op in ops if isinstance(op, Add)]
        if adds:
            self._read_ids([add.record.id for add in adds])
            self._read_keys([key for add in adds for key in add.record.dedup])
            self._read_usage({add.record.lane for add in adds if add.quota is not None})
        self._read_pending([op.seq for op in ops if isinstance(op, Ack)])
        marks = [mark for add in adds for mark in add.marks] + [op for op in ops if isinstance(op, Mark)]
        if marks:
            self._read_marks({mark.name for mark in marks if mark.after is not None})
        results = [self._decide(op) for op in ops]
        failpoint("store.before-insert")
        self._write()
        return results

    # --- read ---

    def _learn(self, known: _Known) -> None:
        self._known.setdefault(known.number, known)
        self._ids[known.id] = known.number

    def _read_ids(self, ids: Sequence[str]) -> None:
        sql = f"SELECT {_KNOWN} FROM records r WHERE r.id IN (SELECT value FROM json_each(?))"  # noqa: S608 - constants
        for row in self._cursor.execute(sql, (_list(ids),)):
            self._learn(_Known(*row))

    def _read_keys(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        sql = (
            f"SELECT d.key, d.until, {_KNOWN} FROM dedup d JOIN records r USING (number)"  # noqa: S608 - constants
            " WHERE d.key IN (SELECT value FROM json_each(?))"
        )
        for key, until, *row in self._cursor.execute(sql, (_list(keys),)):
            self._keys[key] = (row[0], until)
            self._learn(_Known(*row))

    def _read_usage(self, lanes: set[str]) -> None:
        """Count what pends in lanes with a quota, unless it is remembered."""
        usage = self._state.usage
        if len(usage) > _MOST_LANES:
            usage.clear()
        missing = lanes - usage.keys()
        if not missing:
            return
        usage.update(dict.fromkeys(missing, (0, 0)))
        sql = (
            "SELECT lane, count(*), sum(size) FROM records"
            " WHERE lane IN (SELECT value FROM json_each(?)) AND ended IS NULL GROUP BY lane"
        )
        for lane, pending, octets in self._cursor.execute(sql, (_list(missing),)):
            usage[lane] = (pending, octets)

    def _read_pending(self, numbers: Sequence[int]) -> None:
        if not numbers:
            return
        sql = (
            "SELECT json_group_array(json_array(r.number, r.id, r.lane, r.size, r.keep)) FROM records r"
            " WHERE r.number IN (SELECT value FROM json_each(?)) AND r.ended IS NULL"
        )
        (text,) = self._cursor.execute(sql, (_list(numbers),)).fetchone()
        for row in msgspec.json.decode(text, type=list[tuple[int, str, str, int, float]]):
            self._learn(_Known(*row, None))

    def _read_marks(self, names: set[str]) -> None:
        """Look up the marks that have a condition, unless they are remembered."""
        marks = self._state.marks
        if len(marks) > _MOST_LANES:
            marks.clear()
        missing = names - marks.keys()
        if missing:
            marks.update(dict.fromkeys(missing))
            sql = "SELECT name, value FROM marks WHERE name IN (SELECT value FROM json_each(?))"
            marks.update(self._cursor.execute(sql, (_list(missing),)))

    # --- decide ---

    def _decide(self, op: Op) -> Result:
        match op:
            case Add():
                return self._add(op)
            case Ack():
                return self._ack(op)
            case Mark():
                return self._mark(op)
            case Put() | Delete():
                return self._change(op)
            case Wake():
                self.woken[op.lane] = None
                return Done(0)

    def _add(self, op: Add) -> Result:
        record = op.record
        holder = self._holder(record)
        if holder is not None:
            return Repeat(holder.id, holder.lane, holder.outcome)
        size = len(record.entity)
        if op.quota is not None:
            pending, octets = self._state.usage[record.lane]
            if pending + 1 > op.quota[0] or octets + size > op.quota[1]:
                return Full()
        return Done(self._append(op, size))

    def _holder(self, record: Record) -> _Known | None:
        """The record that has the id, or the first of the keys within its window."""
        number = self._ids.get(record.id)
        if number is not None:
            return self._known[number]
        for key in record.dedup:
            number, until = self._keys.get(key, (0, 0.0))
            if until > self._now:
                return self._known[number]
        return None

    def _append(self, op: Add, size: int) -> int:
        record, now = op.record, self._now
        number = self._state.next
        self._state.next += 1
        until = now + op.dedup_ttl
        keep = until if record.dedup else now
        dedup = _json.encode(record.dedup).decode() if record.dedup else "[]"
        self._learn(_Known(number, record.id, record.lane, size, keep, None))
        self._records.append(
            (
                *(number, record.id, record.lane, now, record.expires, keep, size),
                *(record.fingerprint, dedup, record.envelope, record.entity),
            )
        )
        for key in record.dedup:
            self._keys[key] = (number, until)
            self._dedup[key] = (key, number, until)
        for mark in op.marks:
            self._mark(mark)
        self._count(record.lane, 1, size)
        self.woken[record.lane] = None
        return number

    def _mark(self, op: Mark) -> Result:
        if op.after is not None and self._state.marks[op.name] != op.after:
            return Conflict(0)
        self._state.marks[op.name] = op.value
        self._marks[op.name] = (op.name, op.value, self._now)
        return Done(0)

    def _ack(self, op: Ack) -> Result:
        known = self._known.get(op.seq)
        if known is None or known.lane != op.lane or known.outcome is not None:
            return Conflict(0)
        known.outcome = op.outcome
        self._acks.append((op.seq, op.outcome, self._now, max(known.keep, self._now + RETENTION)))
        self._count(op.lane, -1, -known.size)
        return Done(op.seq)

    def _count(self, lane: str, records: int, octets: int) -> None:
        usage = self._state.usage.get(lane)
        if usage is not None:
            self._state.usage[lane] = (usage[0] + records, usage[1] + octets)

    def _change(self, op: Put | Delete) -> Result:
        """Put or delete a key: rare beside records, so each reads for itself."""
        value, rev = self._present(op.space, op.key)
        if op.if_rev is not None and op.if_rev != rev:
            return Conflict(rev)
        changes = self._values.setdefault(op.space, {})
        if isinstance(op, Put):
            rev = (rev or self._state.floors.get(op.space, 0)) + 1
            changes[op.key] = (op.key, op.value, rev, None if op.ttl is None else self._now + op.ttl)
            return Done(rev)
        if value is None:
            return Done(0)
        changes[op.key] = None
        self._raise_floor(op.space, rev + 1)
        return Done(rev + 1)

    def _present(self, space: Space, key: str) -> tuple[bytes | None, int]:
        """The key's value and revision; (None, 0) if it is absent or its time is over."""
        changes = self._values.get(space, {})
        if key in changes:
            row = changes[key]
            found = None if row is None else row[1:]
        else:
            sql = f"SELECT value, rev, until FROM kv_{space} WHERE key = ?"  # noqa: S608 - a Space, checked
            found = self._cursor.execute(sql, (key,)).fetchone()
        if found is None:
            return None, 0
        value, rev, until = found
        if until is not None and until <= self._now:
            self._raise_floor(space, rev)
            return None, 0
        return value, rev

    def _raise_floor(self, space: Space, rev: int) -> None:
        self._state.floors[space] = max(self._state.floors.get(space, 0), rev)
        self._raised.add(space)

    # --- write ---

    def _write(self) -> None:
        cursor = self._cursor
        _bulk(cursor, f"INSERT INTO records ({_COLUMNS})", self._records)
        _bulk(cursor, "INSERT OR REPLACE INTO dedup (key, number, until)", list(self._dedup.values()))
        _bulk(cursor, "INSERT OR REPLACE INTO marks (name, value, at)", list(self._marks.values()))
        _bulk(cursor, "WITH v (number, outcome, ended, gone) AS (", self._acks, _ACK)
        for space, changes in self._values.items():
            rows = [row for row in changes.values() if row is not None]
            _bulk(cursor, f"INSERT OR REPLACE INTO kv_{space} (key, value, rev, until)", rows)
            deleted = [(key,) for key, row in changes.items() if row is None]
            cursor.executemany(f"DELETE FROM kv_{space} WHERE key = ?", deleted)  # noqa: S608 - a Space, checked
        save_floors(cursor, self._state, self._raised)


def save_floors(cursor: sqlite3.Cursor, state: State, spaces: Iterable[str]) -> None:
    """Write the revision floors of ``spaces`` into ``meta``."""
    rows = [(f"floor.{space}", state.floors[space]) for space in spaces]
    cursor.executemany("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", rows)

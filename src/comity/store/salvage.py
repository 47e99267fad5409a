"""What can be saved of a damaged store, put into a new one; the damaged one stays as it is (reliability.md F-07).

Every row is taken that SQLite can still read, from the front of each table and from its back, and every message found in a
page it cannot reach any more. A message counts only if its octets match their SHA-256; one that any copy calls
ended stays ended. The new store has the same numbers, order, dedup keys and accounts, and knows the old one's epoch.
"""

from __future__ import annotations

import contextlib
import math
import shutil
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from comity.errors import StoreDamaged, StoreError
from comity.service.interfaces import SPACES, Add, Record
from comity.store import checks, files, pages, schema
from comity.store.names import check
from comity.store.pages import Row, Value

_HEADER = b"SQLite format 3\0"
_RECORDS = "number, id, lane, accepted, expires, keep, size, ended, gone, outcome, fingerprint, dedup, envelope, entity"
Kinds = tuple[tuple[type, ...], ...]
_TIME = (float, int)
_NONE = type(None)
_RECORD: Kinds = (
    *((int,), (str,), (str,), _TIME, _TIME, _TIME, (int,), (*_TIME, _NONE), (*_TIME, _NONE), (bytes, _NONE)),
    *((str,), (str,), (bytes,), (bytes, _NONE)),
)
_VALUE: Kinds = ((str,), (bytes,), (int,), (*_TIME, _NONE))
_MARK: Kinds = ((str,), (bytes,), _TIME)
_META: Kinds = ((str,), (int, str))
_MOST = 1 << 53
"""No number in use is larger; a spoilt one may be."""


def _fits(row: Row, kinds: Kinds) -> bool:
    """True if every column is of a kind the table may hold."""
    return all(
        isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))
        for value, kind in zip(row, kinds, strict=True)
    )


@dataclass(slots=True)
class Salvage:
    """What became of a store."""

    finding: str
    """Why it could not be opened; "" if it could."""
    waiting: int = 0
    """Messages saved that wait to be delivered."""
    ended: int = 0
    """Records of messages that had ended."""
    damaged: list[str] = field(default_factory=list)
    """Messages found whose octets do not match: spine ID and lane."""
    values: dict[str, int] = field(default_factory=dict)
    """Accounts, keys, contacts and settings saved, by space."""
    marks: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be read."""

    @property
    def is_complete(self) -> bool:
        """True if nothing that was found is missing from the new store."""
        return not self.damaged and not self.notes


def salvage(source: Path, target: Path, is_whole: Callable[[Record], bool]) -> Salvage:
    """Make a store in ``target`` of what the one in ``source`` still holds.

    Args:
        source: the data directory; no server may have it open. Nothing in it is changed but the lock.
        target: a directory that does not exist or is empty.
        is_whole: says whether a record's octets are the ones that were accepted.

    Raises:
        StoreError: ``target`` is not empty, ``source`` is in use, or is not a store of ours.
    """
    if target.exists() and any(target.iterdir()):
        raise StoreError(f"{target} is not empty. Name a directory that does not exist yet.")
    if not (source / files.DATABASE).exists() and not (source / (files.DATABASE + "-wal")).exists():
        raise StoreError(f"There is neither {files.DATABASE} nor its log in {source}: nothing can be saved.")
    lock = files.ProcessLock(source)
    work = target / "work"
    try:
        files.prepare(target)
        finding, is_about_time = _finding(source)
        found = Salvage(finding, notes=[finding] if is_about_time else [])
        work.mkdir(mode=0o700)
        saved = _Saved(found, is_whole)
        saved.read(source, work)
        _write(target, saved, files.witness_or_zero(source))
        return found
    finally:
        shutil.rmtree(work, ignore_errors=True)
        lock.release()


def _finding(source: Path) -> tuple[str, bool]:
    """The words of the check that fails, "" if none does; and whether it means that the newest messages are missing."""
    path = source / files.DATABASE
    is_older = False
    try:
        if files.check_present(source):
            meta = checks.inspect(path)
            schema.check_version(path, meta, schema.migrations())
            is_older = True
            files.check_epoch(source, int(meta.get("epoch", 0)))
    except StoreDamaged as error:
        return error.finding, is_older or error.path.endswith("-wal")
    return "", False


class _Saved:
    """Everything read so far."""

    def __init__(self, found: Salvage, is_whole: Callable[[Record], bool]) -> None:
        self.found = found
        self.records: dict[int, Row] = {}
        self.values: dict[str, list[Row]] = {}
        self.marks: list[Row] = []
        self.meta: dict[Value, Value] = {}
        self._is_whole = is_whole
        self._bad: dict[str, str] = {}

    def read(self, source: Path, work: Path) -> None:
        """Read a copy of the files, so that not even SQLite's own recovery touches them."""
        copy = work / files.DATABASE
        for end in ("", "-wal"):
            path = source / (files.DATABASE + end)
            if path.exists():
                shutil.copyfile(path, work / path.name)
        copy.touch()
        octets = copy.read_bytes()
        (application,) = struct.unpack(">I", octets[68:72].ljust(4, b"\0"))
        if octets.startswith(_HEADER) and application not in (0, checks.APPLICATION):
            raise StoreError(f"{source / files.DATABASE} is the database of another program: nothing of it is ours.")
        log = work / (copy.name + "-wal")
        log_octets = log.read_bytes() if log.exists() else b""
        if not any(octets):
            # SQLite would throw the log of an empty database away.
            newest = dict(pages.pages_of_log(log_octets))
            octets = b"".join(newest.get(number, bytes(pages.PAGE)) for number in range(1, max(newest, default=0) + 1))
            copy.write_bytes(octets)
            log.unlink(missing_ok=True)
            self.found.notes.append("the main file is empty: only what was in the log is here")
        _repair_first_page(copy, work)
        self._read_tables(copy)
        if self.meta.get("clean") == 0 and not log_octets:
            self.found.notes.append("the log is gone: what was accepted after the last checkpoint is not here")
        self._read_pages(octets, log_octets)
        self.found.damaged = sorted(f"{id} in {lane}" for id, lane in self._bad.items())

    def _read_tables(self, copy: Path) -> None:
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.text_factory = lambda octets: octets.decode("utf-8", "replace")
            for row in self._table(connection, "records", _RECORDS, _RECORD):
                self._take(row)
            for space in SPACES:
                self.values[space] = self._table(connection, f"kv_{space}", "key, value, rev, until", _VALUE)
                self.found.values[space] = len(self.values[space])
            self.marks = self._table(connection, "marks", "name, value, at", _MARK)
            self.found.marks = len(self.marks)
            self.meta = {row[0]: row[1] for row in self._table(connection, "meta", "key, value", _META)}

    def _table(self, connection: sqlite3.Connection, name: str, columns: str, kinds: Kinds) -> list[Row]:
        """All rows of a table up to the damage from the front, and up to it from the back."""
        found: dict[Value, Row] = {}
        key = columns.partition(",")[0]
        for order in ("ASC", "DESC"):
            try:
                for row in connection.execute(f"SELECT {columns} FROM {name} ORDER BY {key} {order}"):  # noqa: S608 - constants
                    found[row[0]] = row
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
                if order == "ASC":
                    self.found.notes.append(f"{name}: {error}")
            else:
                break
        sound = [row for row in found.values() if _fits(row, kinds)]
        if len(sound) < len(found):
            self.found.notes.append(f"{name}: {len(found) - len(sound)} rows are spoilt")
        return sound

    def _read_pages(self, octets: bytes, log: bytes) -> None:
        """Messages in pages that the tables did not show: in the main file, then in the log, oldest first."""
        known = set(self.records)
        main = pages.pages_of(octets)
        newest = {**main, **dict(pages.pages_of_log(log))}
        for page in main.values():
            self._take_page(page, (main, newest), known)
        for _, page in pages.pages_of_log(log):
            self._take_page(page, (newest, main), known)

    def _take_page(self, page: bytes, others: tuple[dict[int, bytes], ...], known: set[int]) -> None:
        for each in others:
            for row in pages.rows(page, each):
                if row[0] not in known and _fits(row, _RECORD):
                    self._take(row)

    def _take(self, row: Row) -> None:
        """Keep a row if it is whole, and no copy seen before says that its message had ended."""
        number, id_, lane, ended, entity = row[0], str(row[1]), str(row[2]), row[7], row[13]
        if not isinstance(number, int) or not 0 < number < _MOST:
            return
        former = self.records.get(number)
        if ended is not None:
            self.records[number] = row
            self._bad.pop(id_, None)
        elif former is None and isinstance(entity, bytes) and isinstance(row[12], bytes):
            record = Record(id_, lane, entity, row[12], str(row[10]), 0.0)
            if self._is_whole(record) and _has_names(record):
                self.records[number] = row
                self._bad.pop(id_, None)
            else:
                self._bad[id_] = lane


def _has_names(record: Record) -> bool:
    try:
        check([Add(record)])
    except StoreError:
        return False
    return True


def _repair_first_page(copy: Path, work: Path) -> None:
    """If the first page cannot be read, put that of an empty store in its place: the schema is always the same."""
    try:
        with contextlib.closing(sqlite3.connect(copy)) as connection:
            if connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
                return
    except (sqlite3.DatabaseError, UnicodeDecodeError):  # the latter when SQLite names what is spoilt
        pass  # that is why
    empty = work / "empty"
    empty.mkdir()
    schema.create(empty, schema.migrations())
    page = bytearray((empty / files.DATABASE).read_bytes()[: pages.PAGE])
    octets = copy.read_bytes()
    count = max(1, -(-len(octets) // pages.PAGE))
    page[28:40] = struct.pack(">3I", count, 0, 0)  # pages in all; no list of free ones
    page[92:96] = page[24:28]  # so that the number of pages is believed
    copy.write_bytes(bytes(page) + octets[pages.PAGE :].ljust((count - 1) * pages.PAGE, b"\0"))
    log = work / (copy.name + "-wal")
    log.unlink(missing_ok=True)  # its pages are read one by one


def _write(target: Path, saved: _Saved, epoch: int) -> None:
    """Make the new store, all of it or nothing."""
    schema.create(target, schema.migrations())
    connection = schema.connect(target / files.DATABASE)
    try:
        connection.execute("BEGIN IMMEDIATE")
        for number in sorted(saved.records):
            row = saved.records[number]
            marks = ",".join("?" * len(row))
            # OR IGNORE: a spoilt copy may have the id of another row.
            connection.execute(f"INSERT OR IGNORE INTO records ({_RECORDS}) VALUES ({marks})", row)  # noqa: S608 - constants
            for key in _keys(row[11]):
                connection.execute("INSERT OR REPLACE INTO dedup VALUES (?, ?, ?)", (key, number, row[5]))
        for space, rows in saved.values.items():
            connection.executemany(f"INSERT INTO kv_{space} VALUES (?, ?, ?, ?)", rows)  # noqa: S608 - a Space
        connection.executemany("INSERT INTO marks VALUES (?, ?, ?)", saved.marks)
        following = max([0, *saved.records]) + 1
        numbers = {str(k): v for k, v in saved.meta.items() if str(k).startswith("floor.") and isinstance(v, int)}
        for key, low in (("next", following), ("epoch", epoch)):
            former = saved.meta.get(key)
            numbers[key] = max(low, former) if isinstance(former, int) else low
        connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", numbers.items())
        sql = "SELECT count(*) FILTER (WHERE ended IS NULL), count(ended) FROM records"
        saved.found.waiting, saved.found.ended = connection.execute(sql).fetchone()
        connection.execute("COMMIT")
    finally:
        connection.close()
    files.sync_directory(target)


def _keys(dedup: Value) -> tuple[str, ...]:
    try:
        return msgspec.json.decode(str(dedup), type=tuple[str, ...])
    except msgspec.MsgspecError:
        return ()

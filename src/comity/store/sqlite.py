"""The embedded store, Comity's default: SQLite in one directory, durable at every "yes".

Takes and gives what ``service/interfaces.py`` says. Writing is ``writer.py``'s; this module opens, reads and closes. Short
look-ups (``get``, ``get_mark``, ``read``) run on the event loop's own reading connection: they touch pages that were just
written, and a thread would cost more than they do. Those that may walk a table run in one other thread.
A reader never waits for the writer (WAL).
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from comity.errors import StoreError
from comity.service.interfaces import SPACES, Entry, Found, Item, LaneInfo, Op, Result, Space
from comity.store import files, schema
from comity.store.clock import StoreClock
from comity.store.expiry import ITEM, item, sweep
from comity.store.names import check, is_fingerprint
from comity.store.space import DiskWatch, Watermarks
from comity.store.watch import Watchers
from comity.store.writer import Writer

T = TypeVar("T")

DEFAULT = Watermarks()
_AFTER = "\U0010ffff"
_FOUND = "id, lane, number, accepted, fingerprint, envelope, size, outcome, ended"


class SqliteStore:
    """A durable store in one directory, used by one process; make it with ``open``."""

    def __init__(self, path: Path, lock: files.ProcessLock, clock: StoreClock) -> None:
        self._path = path
        self._lock = lock
        self._clock = clock
        self._watchers = Watchers()
        self._writer: Writer | None = None  # set by open
        self._reader: sqlite3.Connection | None = None  # used by the event loop's thread, opened at first use
        self._walker: sqlite3.Connection | None = None  # used by the pool's one thread, opened at first use
        self._pool = ThreadPoolExecutor(1, "comity-store-read")
        self._is_closed = False

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        clock: StoreClock | None = None,
        min_free: int = DEFAULT.free,
        disk_warn: int = DEFAULT.warn,
        disk_refuse: int = DEFAULT.refuse,
    ) -> SqliteStore:
        """Open the store of ``directory``, made if there never was one; may take long after an unclean stop.

        Args:
            directory: private and local; made with mode 0700 if absent.
            clock: store time; tests move it by hand.
            min_free: octets of free disk below which no message is accepted; 0: no look is taken at the disk.
            disk_warn: per cent of it in use from which a warning is logged.
            disk_refuse: per cent of it in use from which no message is accepted.

        Raises:
            StoreDamaged: the files fail a check; nothing was changed.
            StoreError: the directory is unfit, another process has it, or the schema is newer than this program.
        """

        def start() -> tuple[files.ProcessLock, sqlite3.Connection]:
            files.prepare(directory)
            lock = files.ProcessLock(directory)
            try:
                return lock, schema.start(directory, schema.migrations())
            except BaseException:
                lock.release()
                raise

        lock, connection = await asyncio.to_thread(start)
        store = cls(directory / files.DATABASE, lock, clock or StoreClock())
        watch = DiskWatch(directory, Watermarks(disk_warn, disk_refuse, min_free) if min_free else None)
        store._writer = Writer(connection, store._path, store._clock, store._watchers.tell, watch)
        return store

    def time(self) -> float:
        return self._clock.time()

    def commit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        assert self._writer is not None
        try:
            check(ops)
        except StoreError as error:
            failed: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed
        return self._writer.submit(ops)

    # --- short reads, on the event loop's connection ---

    def _look(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()
        try:
            if self._reader is None:
                self._reader = schema.connect_reader(self._path)
            return work(self._reader)
        except sqlite3.Error as error:
            if self._reader is not None:
                with contextlib.suppress(sqlite3.Error):  # it is given up; the next read opens another
                    self._reader.close()
                self._reader = None
            raise StoreError(f"{self._path} could not be read: {error}.") from error

    async def get(self, space: Space, key: str) -> Entry | None:
        _check_space(space)
        sql = f"SELECT value, rev FROM kv_{space} WHERE key = ? AND (until IS NULL OR until > ?)"  # noqa: S608 - a Space
        now = self.time()
        row = self._look(lambda reader: reader.execute(sql, (key, now)).fetchone())
        return Entry(*row) if row else None

    async def get_mark(self, name: str) -> bytes | None:
        row = self._look(lambda reader: reader.execute("SELECT value FROM marks WHERE name = ?", (name,)).fetchone())
        return bytes(row[0]) if row else None

    async def read(self, lane: str, limit: int) -> list[Item]:
        sql = f"SELECT {ITEM} FROM records WHERE lane = ? AND ended IS NULL ORDER BY number LIMIT ?"  # noqa: S608
        rows = self._look(lambda reader: reader.execute(sql, (lane, limit)).fetchall())
        return [item(row) for row in rows]

    # --- longer reads, in a thread ---

    async def _walk(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()

        def walk() -> T:
            try:
                if self._walker is None:
                    self._walker = schema.connect_reader(self._path)
                return work(self._walker)
            except sqlite3.Error as error:
                self._close_walker()
                raise StoreError(f"{self._path} could not be read: {error}.") from error

        return await asyncio.get_running_loop().run_in_executor(self._pool, walk)

    def _close_walker(self) -> None:
        if self._walker is not None:
            with contextlib.suppress(sqlite3.Error):  # it is given up; the next read opens another
                self._walker.close()
            self._walker = None

    async def scan(self, space: Space, prefix: str = "") -> list[tuple[str, Entry]]:
        _check_space(space)
        sql = (
            f"SELECT key, value, rev FROM kv_{space} WHERE key >= ? AND key < ?"  # noqa: S608 - a Space, checked
            " AND (until IS NULL OR until > ?) ORDER BY key"
        )
        values = (prefix, prefix + _AFTER, self.time())
        rows = await self._walk(lambda reader: reader.execute(sql, values).fetchall())
        return [(key, Entry(value, rev)) for key, value, rev in rows]

    async def lanes(self, prefix: str = "") -> list[LaneInfo]:
        sql = (
            "SELECT g.lane, g.pending, g.octets, r.accepted FROM"
            " (SELECT lane, count(*) AS pending, sum(size) AS octets, min(number) AS first FROM records"
            " WHERE lane >= ? AND lane < ? AND ended IS NULL GROUP BY lane) g"
            " JOIN records r ON r.number = g.first ORDER BY g.lane"
        )
        rows = await self._walk(lambda reader: reader.execute(sql, (prefix, prefix + _AFTER)).fetchall())
        return [LaneInfo(*row) for row in rows]

    async def find(self, name: str, limit: int = 100) -> list[Found]:
        names = "SELECT number FROM records WHERE id = :name UNION SELECT number FROM dedup WHERE key = :name"
        if is_fingerprint(name):
            names += (
                " UNION SELECT number FROM records INDEXED BY records_fingerprint"
                " WHERE fingerprint >= :prefix AND fingerprint < :after"
            )
        sql = (
            f"SELECT {_FOUND} FROM records WHERE number IN ({names})"  # noqa: S608 - constants
            " AND (gone IS NULL OR gone > :now) ORDER BY number LIMIT :limit"
        )
        prefix = name.lower()
        values = {"name": name, "prefix": prefix, "after": prefix + "g", "now": self.time(), "limit": limit}
        rows = await self._walk(lambda reader: reader.execute(sql, values).fetchall())
        return [Found(*row) for row in rows]

    async def expire(self, limit: int = 100) -> list[Item]:
        self._check_open()
        if self._clock.is_doubted:
            return []
        assert self._writer is not None
        now = self.time()
        items: list[Item] = await self._writer.run(lambda connection, state: sweep(connection, state, now, limit))
        return items

    def watch(self, prefix: str) -> AsyncIterator[str]:
        return self._watchers.add(prefix)

    async def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        if self._reader is not None:
            self._reader.close()
        await asyncio.get_running_loop().run_in_executor(self._pool, self._close_walker)
        self._pool.shutdown()
        assert self._writer is not None
        await self._writer.close()
        self._watchers.close()
        self._lock.release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreError("The store is closed.")


def _check_space(space: Space) -> None:
    if space not in SPACES:
        raise StoreError(f"There is no space {space!r}.")

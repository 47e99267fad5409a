"""The one thread that writes: takes commits, gathers them in groups, makes each group durable with one sync.

Takes operations from the event loop's thread (``submit``), gives results back to it by one
``call_soon_threadsafe`` per group. While one group is being committed the next one gathers, so a lone commit waits for
nobody; after a group of many the next one gathers for some milliseconds more, so a busy store syncs seldom.

Every way a group can fail ends in StoreError for each of its calls, never in silence:

* disk nearly full (``space.py``): calls that bring a message in are refused, so that there is room for the rest;
* disk full: calls that only shrink the store (Ack, Delete, Wake) are tried again alone, with the room of the reserve
  if need be; the others are refused, and the next group simply tries again;
* locked by another program for 5 s: refused, with everything that queued up meanwhile;
* I/O error or damage: nothing is promised by that connection again; it is closed, reopened and verified first;
* anything else is one call's fault: the calls are carried out one by one, and only that call is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from comity.errors import StoreError
from comity.failpoints import failpoint
from comity.service.interfaces import Ack, Add, Delete, Mark, Op, Put, Result, Wake
from comity.store import faults, schema
from comity.store.clock import StoreClock
from comity.store.group import Group, State
from comity.store.space import DiskWatch

_log = logging.getLogger(__name__)

GROUP_OPS = 1024
"""Most operations in one group: bounds how long the first of them waits."""
GROUP_OCTETS = 16 * 1024 * 1024
"""Most octets in one group: bounds the log between two checkpoints."""
REST_PER_OP = 0.0005
MOST_REST = 0.009
"""Seconds the next group gathers after one of many operations. Each group costs some 40 changes of the interpreter lock
between this thread and the event loop, however few operations are in it."""
CHECKPOINT_CHANGES = 5_000
"""Changed rows after which the log is brought into the main file (about two pages each: 40 MiB)."""
REOPEN_AFTER = 1.0
"""Seconds between two attempts to reopen a database that failed."""


@dataclass(slots=True)
class _Call:
    """One ``commit``."""

    ops: Sequence[Op]
    future: asyncio.Future[list[Result]]


@dataclass(slots=True)
class _Job:
    """Other work on the writer's connection, in a transaction of its own."""

    work: Callable[[sqlite3.Connection, State], Any]
    future: asyncio.Future[Any]


_Outcome = tuple["asyncio.Future[Any]", Any]
"""A future with its result, or with the StoreError to raise."""


class Writer:
    """Owns the writing connection; everything but ``submit``, ``run`` and ``close`` happens in its thread.

    Args:
        connection: from ``schema.start``.
        path: the database, to reopen it.
        clock: store time.
        on_woken: called in the event loop with the lanes of a durable group.
        disk: says when nothing new may be accepted, so that what must go on still finds room.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        clock: StoreClock,
        on_woken: Callable[[dict[str, None]], None],
        disk: DiskWatch,
    ) -> None:
        self._connection: sqlite3.Connection | None = connection
        self._path = path
        self._clock = clock
        self._on_woken = on_woken
        self._disk = disk
        self._loop = asyncio.get_running_loop()
        self._state = load_state(connection)
        self._ready = threading.Condition()
        self._queue: deque[_Call | _Job] = deque()
        self._is_closing = False
        self._is_closed = False
        self._last_try = 0.0  # monotonic time of the last attempt to reopen
        self._checkpointed = 0  # the connection's total_changes at the last checkpoint
        self._thread = threading.Thread(target=self._run, name="comity-store", daemon=True)
        self._thread.start()

    # --- the event loop's side ---

    def submit(self, ops: Sequence[Op]) -> asyncio.Future[list[Result]]:
        """Queue one commit."""
        future: asyncio.Future[list[Result]] = self._loop.create_future()
        self._enqueue(_Call(ops, future))
        return future

    def run(self, work: Callable[[sqlite3.Connection, State], Any]) -> asyncio.Future[Any]:
        """Queue other work; it gets a transaction of its own, after everything queued before."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._enqueue(_Job(work, future))
        return future

    def _enqueue(self, item: _Call | _Job) -> None:
        with self._ready:
            if self._is_closing:
                item.future.set_exception(StoreError("The store is closed."))
                return
            self._queue.append(item)
            if len(self._queue) == 1:
                self._ready.notify()

    async def close(self) -> None:
        """Carry out what is queued, mark the database as closed in order, and end the thread."""
        with self._ready:
            self._is_closing = True
            self._ready.notify()
        await asyncio.to_thread(self._thread.join)

    # --- the writer's thread ---

    def _run(self) -> None:
        try:
            self._work()
        except (
            Exception
        ) as error:  # nothing is expected here; a thread that ended unheard would leave everybody waiting
            _log.critical("the store's thread has failed, nothing is accepted until a restart", exc_info=error)
            with self._ready:
                self._is_closing = True
                left = list(self._queue)
                self._queue.clear()
            self._finish([(item.future, StoreError("The store has failed.")) for item in left], {})

    def _work(self) -> None:
        while True:
            items = self._take()
            if not items:
                break
            if isinstance(items[0], _Job):
                self._finish([self._do(items[0])], {})
            else:
                self._commit([item for item in items if isinstance(item, _Call)])
            self._checkpoint_if_due()
            if len(items) > 1:
                self._rest(min(REST_PER_OP * len(items), MOST_REST))
        self._end()

    def _rest(self, seconds: float) -> None:
        """Let the next group gather, unless the store is to close."""
        with self._ready:
            self._ready.wait_for(lambda: self._is_closing, seconds)

    def _take(self) -> list[_Call | _Job]:
        """Wait for work; the next job alone, or the next calls up to a group's size. Empty: closed."""
        with self._ready:
            while not self._queue and not self._is_closing:
                self._ready.wait()
            taken: list[_Call | _Job] = []
            count = octets = 0
            while self._queue and count < GROUP_OPS and octets < GROUP_OCTETS:
                item = self._queue[0]
                if isinstance(item, _Job):
                    return taken or [self._queue.popleft()]
                taken.append(self._queue.popleft())
                count += len(item.ops) + 1
                octets += sum(len(op.record.entity) for op in item.ops if isinstance(op, Add))
            return taken

    def _finish(self, outcomes: list[_Outcome], woken: dict[str, None]) -> None:
        """Hand a group's outcomes to the event loop, in one call."""
        with contextlib.suppress(RuntimeError):  # the loop was closed without waiting for us: nobody listens
            self._loop.call_soon_threadsafe(self._resolve, outcomes, woken)

    def _resolve(self, outcomes: list[_Outcome], woken: dict[str, None]) -> None:
        for future, outcome in outcomes:
            if future.done():
                continue
            if isinstance(outcome, StoreError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)
        if woken:
            self._on_woken(woken)

    def _commit(self, calls: list[_Call]) -> None:
        """Carry out one group, and say what became of each call."""
        refusal = self._refusal()
        if refusal is not None:
            self._refuse(calls, refusal)
            return
        if self._disk.is_low():
            refusal = StoreError(f"The disk of {self._path.parent} is nearly full: nothing new is accepted.")
            self._refuse([call for call in calls if _is_new(call)], refusal)
            calls = [call for call in calls if not _is_new(call)]
        if not calls:
            return
        try:
            results, woken = self._transact(calls)
        except Exception as error:  # each kind is answered in _failed; none may end the thread
            self._failed(calls, error)
            return
        self._finish([(call.future, result) for call, result in zip(calls, results, strict=True)], woken)

    def _transact(self, calls: list[_Call]) -> tuple[list[list[Result]], dict[str, None]]:
        """Make one transaction of all calls; durable when this returns."""
        ops = [op for call in calls for op in call.ops]
        results, woken = self._in_transaction(
            lambda connection, state: _run_group(connection, state, ops, self._clock.time()),
            has_acks=any(isinstance(op, Ack) for op in ops),
        )
        shares, start = [], 0
        for call in calls:
            shares.append(results[start : start + len(call.ops)])
            start += len(call.ops)
        return shares, woken

    def _in_transaction(self, work: Callable[[sqlite3.Connection, State], Any], *, has_acks: bool = False) -> Any:
        connection = self._connection
        assert connection is not None
        connection.execute("BEGIN IMMEDIATE")
        result = work(connection, self._state)
        failpoint("store.before-commit")
        if has_acks:
            failpoint("store.ack.before-commit")
        connection.execute("COMMIT")
        failpoint("store.after-commit")
        return result

    def _do(self, job: _Job) -> _Outcome:
        refusal = self._refusal()
        if refusal is not None:
            return job.future, refusal
        try:
            return job.future, self._in_transaction(job.work)
        except Exception as error:  # becomes this job's StoreError
            return job.future, self._recover(error)

    # --- failure ---

    def _refuse(self, calls: Sequence[_Call | _Job], error: StoreError) -> None:
        if calls:
            self._finish([(call.future, error) for call in calls], {})

    def _failed(self, calls: list[_Call], error: Exception) -> None:
        """Answer the calls of a group that was not committed."""
        refusal = self._recover(error)
        code = faults.code_of(error)
        if code in faults.BROKEN:
            self._refuse(calls, refusal)
        elif code in faults.BUSY:
            with self._ready:
                waiting = list(self._queue)
                self._queue.clear()
            self._refuse([*calls, *waiting], refusal)
        elif code in faults.FULL:
            shrinking = [call for call in calls if _shrinks(call)]
            self._refuse([call for call in calls if not _shrinks(call)], refusal)
            if shrinking and (self._disk.release() or len(shrinking) < len(calls)):
                self._checkpoint()  # a log that begins anew needs no room for what it already has
                self._commit(shrinking)
            else:
                self._refuse(shrinking, refusal)
        elif len(calls) == 1:
            self._refuse(calls, refusal)
        else:
            for call in calls:
                self._commit([call])

    def _recover(self, error: Exception) -> StoreError:
        """Leave the failed transaction behind; give back what to tell its callers."""
        code = faults.code_of(error)
        _log.error("store: a transaction or checkpoint failed: %s", error)
        told = faults.told(error)
        connection = self._connection
        if connection is None:
            return told
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if code not in faults.BROKEN:
                self._state = load_state(connection)
        except sqlite3.Error:
            code = sqlite3.SQLITE_IOERR
        if code in faults.BROKEN:
            self._distrust()
        return told

    def _distrust(self) -> None:
        """Close the connection; ``_refusal`` opens a new one, once verified."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it failed already; its end changes nothing
                connection.close()

    def _refusal(self) -> StoreError | None:
        """None if the store may promise; otherwise tries, once a second, to get there again."""
        if self._connection is not None:
            return None
        if time.monotonic() - self._last_try >= REOPEN_AFTER:
            self._last_try = time.monotonic()
            try:
                self._reopen()
            except (sqlite3.Error, OSError, StoreError) as error:
                _log.error("store: still not usable: %s", error)
                return StoreError(f"{self._path} failed and could not be verified since: {error}")
            _log.warning("store: reopened and verified after a failure")
            return None
        return StoreError(f"{self._path} failed and is not verified yet.")

    def _reopen(self) -> None:
        if not self._path.exists():
            raise StoreError("the file is gone")
        connection = schema.connect(self._path)
        try:
            schema.verify(connection, self._path)
            self._state = load_state(connection)
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                connection.close()
            raise
        self._checkpointed = 0
        self._connection = connection

    # --- housekeeping ---

    def _checkpoint_if_due(self) -> None:
        """Bring the log into the main file when it grew; its callers have their answers already."""
        connection = self._connection
        if connection is None or connection.total_changes - self._checkpointed < CHECKPOINT_CHANGES:
            return
        self._checkpointed = connection.total_changes
        self._checkpoint()

    def _checkpoint(self) -> None:
        connection = self._connection
        if connection is None:
            return
        failpoint("store.checkpoint")
        try:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._recover(error)

    def _end(self) -> None:
        """Mark a clean stop; closing the last connection brings the log into the main file."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("UPDATE meta SET value = 1 WHERE key = 'clean'")
            failpoint("store.checkpoint")
            connection.close()
        except sqlite3.Error as error:
            _log.error("store: not closed in order, it will be checked at the next start: %s", error)
            self._distrust()


def load_state(connection: sqlite3.Connection) -> State:
    """Read what the writer has to remember."""
    (number,) = connection.execute(
        "SELECT max(value, ifnull((SELECT max(number) FROM records), 0) + 1) FROM meta WHERE key = 'next'"
    ).fetchone()
    floors = connection.execute("SELECT substr(key, 7), value FROM meta WHERE key LIKE 'floor.%'").fetchall()
    return State(number, dict(floors))


def _run_group(
    connection: sqlite3.Connection, state: State, ops: Sequence[Op], now: float
) -> tuple[list[Result], dict[str, None]]:
    group = Group(connection.cursor(), state, now)
    return group.run(ops), group.woken


def _is_new(call: _Call) -> bool:
    """True if the call brings a message in; our own reports have no quota."""
    return any(isinstance(op, Add) and op.quota is not None for op in call.ops)


def _shrinks(call: _Call) -> bool:
    """True if the call asks for no lasting room."""
    return all(isinstance(op, Ack | Delete | Mark | Wake) and not isinstance(op, Add | Put) for op in call.ops)

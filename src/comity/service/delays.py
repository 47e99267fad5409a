"""Messages that still wait after the time their sender gave: told once that they are on their way (``Fate.DELAYED``).

Place on the path: beside step 7. Only senders who ask for it cost anything: one row of the store for each such message, beside
its record, so that the wish outlives a restart, and one entry of a heap with a single timer. When the time has come, the
message's own row says whether it still waits.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Sequence

from comity.cpim.operations import Context
from comity.errors import StoreError
from comity.service.ends import Ends
from comity.service.interfaces import Clock, Delete, Found, Op, Put, Record, Store, Timer
from comity.service.pending import Report

log = logging.getLogger(__name__)

PREFIX = "delay/"
"""Where the wishes stand among the settings of the store."""
MOST = 100_000
"""Wishes remembered; of more than these nobody is told, which loses no message."""
MOST_AT_ONCE = 100
"""Looked at in one go."""
RETRY = 15.0
"""Seconds until the store is asked again that could not answer."""


class Delays:
    """Who wants to know that a message is still on its way, and when.

    Args:
        store: where the wishes are.
        clock: for the one timer.
        report: makes the report about a message that still waits; None if nobody is to be told.
        ends: stores it.
    """

    def __init__(self, store: Store, clock: Clock, report: Callable[[Found], Report | None], ends: Ends) -> None:
        self._store = store
        self._clock = clock
        self._report = report
        self._ends = ends
        self._due: list[tuple[float, str]] = []
        """Store time and spine ID, a heap."""
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False

    async def load(self) -> None:
        """Take up the wishes of the process before this one."""
        for key, entry in await self._store.scan("setting", PREFIX):
            try:
                self._due.append((float(entry.value), key.removeprefix(PREFIX)))
            except ValueError:
                log.error("the stored %s cannot be read and is left out", key)
        heapq.heapify(self._due)
        self._arm()

    def note(self, record: Record, context: Context) -> Sequence[Op]:
        """Remember the wish about a message that is about to be stored; what to commit with it."""
        after, left = context.report_after, record.expires - self._store.time()
        if not context.wants_receipt or after is None or not 0.0 < after < left or len(self._due) >= MOST:
            return ()
        due = self._store.time() + after
        heapq.heappush(self._due, (due, record.id))
        if self._due[0][1] == record.id:
            self._arm()
        return [Put("setting", PREFIX + record.id, repr(due).encode(), ttl=left)]

    def stop(self) -> None:
        """Tell nobody any more."""
        self._is_stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        """Wake when the first one is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due and self._task is None and not self._is_stopped:
            self._wake_in(max(0.0, self._due[0][0] - self._store.time()))

    def _wake_in(self, seconds: float) -> None:
        self._timer = self._clock.call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._task = asyncio.get_running_loop().create_task(self._look())
        self._task.add_done_callback(self._looked)

    async def _look(self) -> None:
        now = self._store.time()
        for _ in range(MOST_AT_ONCE):
            if not self._due or self._due[0][0] > now:
                return
            due, id = heapq.heappop(self._due)
            try:
                found = await self._store.find(id, 1)
                if found and found[0].outcome is None:
                    self._tell(found[0])
                await self._store.commit([Delete("setting", PREFIX + id)])
            except StoreError:
                heapq.heappush(self._due, (due, id))  # a second report of the same is recognised by its key
                raise

    def _tell(self, found: Found) -> None:
        try:
            report = self._report(found)
        except StoreError as error:  # a bad row (F-POISON)
            log.error("nobody can be told that %s is delayed: %s", found.id, error)
            return
        if report is not None:
            self._ends.tell(report)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or self._is_stopped:
            return
        error = task.exception()
        if error is None:
            self._arm()
            return
        log.error("a look at delayed messages failed", exc_info=None if isinstance(error, StoreError) else error)
        self._wake_in(RETRY)

"""How a message ends: its row terminal, and the report of a failure stored, both or none of them.

Place on the path: step 7, behind ``delivery.py`` and the expiry of ``pipeline.py``. Nobody is told of an end that is
not committed. What the store cannot keep now (disk full, F-04; an I/O error, F-05) is tried until it can, by this
process or by the next: the row is pending until then, so a sender whose message failed is always told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from comity.cpim.operations import Reason, failure
from comity.failpoints import failpoint
from comity.service.envelope import Outcome, operation_alone, pack_outcome, unpack
from comity.service.interfaces import Ack, Clock, Item, Op, Result, Store
from comity.service.pending import Pending, Report, Reporter

log = logging.getLogger(__name__)

AGAIN = 5.0
"""Seconds until the store is asked again that could not keep an end, or read a lane."""


def _nothing() -> None:
    """Nobody waits for this end."""


class Ends:
    """Commits ends, each until it is durable.

    Args:
        store: where the rows are.
        clock: for the next try.
        report: makes the report for a sender.
    """

    def __init__(self, store: Store, clock: Clock, report: Reporter) -> None:
        self.is_stopping = False
        self._store = store
        self._clock = clock
        self._report = report

    def conclude(
        self, lane: str, seq: int, outcome: Outcome, report: Report | None = None, then: Callable[[], None] = _nothing
    ) -> None:
        """Make a row terminal and store the report of its failure in one commit; then call ``then``."""
        self._keep([Ack(lane, seq, pack_outcome(outcome))], report, then)

    def tell(self, report: Report, then: Callable[[], None] = _nothing) -> None:
        """Store a report about a message whose row has ended already, or has not; then call ``then``."""
        self._keep([], report, then)

    def park(self, lane: str, row: Item, error: Exception, then: Callable[[], None] = _nothing) -> None:
        """A row that cannot be read: out of the way at once, so that the lane goes on; its sender is told (F-POISON)."""
        log.error("stored message %s in %s cannot be read and is parked: %s", row.record.id, lane, error)
        outcome = Outcome("parked", self._clock.when(), reason=Reason.INTERNAL.value, text=str(error))
        self.conclude(lane, row.seq, outcome, self._report_of_unreadable(row), then)

    def _report_of_unreadable(self, row: Item) -> Report | None:
        """The report to its sender, if the envelope still says who that is."""
        try:
            envelope = unpack(row.record.envelope)
            operation = operation_alone(envelope)
        except Exception as error:  # a bad row may raise anything; the log has its name
            log.error("nobody can be told of %s: %s", row.record.id, error)
            return None
        response = failure(operation.trans_id, Reason.INTERNAL, "It was damaged while it was stored.")
        return self._report(Pending(row.record.id, row.seq, row.accepted, operation, envelope), response)

    def _keep(self, ops: Sequence[Op], report: Report | None, then: Callable[[], None]) -> None:
        done = self._store.commit(ops if report is None else [report.add, *ops])
        done.add_done_callback(partial(self._kept, ops, report, then))

    def _kept(
        self,
        ops: Sequence[Op],
        report: Report | None,
        then: Callable[[], None],
        done: asyncio.Future[list[Result]],
    ) -> None:
        if (error := done.exception()) is not None:
            log.error("the end of a message could not be committed, it is tried again: %s", error)
            if not self.is_stopping:
                self._clock.call_later(AGAIN, partial(self._keep, ops, report, then))
            return
        failpoint("delivery.after-ack")
        if report is not None:
            report.stored(done.result()[0])
        then()

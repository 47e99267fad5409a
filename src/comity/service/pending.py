"""One message on its way to one recipient, and the report of its failure, as ``delivery.py`` and ``ends.py`` share them.

Place on the path: step 7. A ``Pending`` stands for a row of the store that is in memory now, or for a transient
message that has none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from comity.cpim.operations import HistoryEntry, MessageOperation, Response, extended
from comity.service.envelope import Envelope
from comity.service.interfaces import Add, Contact, Result
from comity.service.routing import HERE

if TYPE_CHECKING:
    from comity.service.channel import Channel


class Pending:
    """One message on its way to one recipient."""

    __slots__ = (
        "_egress",
        "accepted",
        "envelope",
        "id",
        "is_certain",
        "is_done",
        "offered",
        "operation",
        "refusal",
        "seq",
        "takers",
        "via",
        "waiters",
    )

    def __init__(self, id: str, seq: int, accepted: float, operation: MessageOperation, envelope: Envelope) -> None:
        self.id = id
        self.seq = seq
        """Place in the lane; 0 for a transient message, which is not stored."""
        self.accepted = accepted
        self.operation = operation
        self.envelope = envelope
        self.offered: dict[Channel, bool] = {}
        """Channels it was given to; True while one may still take it."""
        self.waiters: list[asyncio.Future[Response]] = []
        """Who answers the sender natively; a cancelled one has given its answer already."""
        self.takers: list[Channel] = []
        """Devices that took it while its end is not durable."""
        self.is_done = False
        self.is_certain = False
        """Its end is durable."""
        self.refusal: Response | None = None
        self.via = ""
        """The protocol it went by last, where the hop's own name does not say it."""
        self._egress: dict[tuple[str, bool], MessageOperation] = {}

    def egress(self, node: str, contact: Contact, when: datetime) -> MessageOperation:
        """The operation as it leaves for ``contact``: our history entry appended, the object as it is (GW-8); one hop less if
        it leaves for another node (T2)."""
        if contact.binding == HERE:
            return self.operation
        key = contact.binding, contact.is_protected
        operation = self._egress.get(key)
        if operation is None:
            envelope = self.envelope
            links = envelope.is_protected, contact.is_protected
            entry = HistoryEntry(node, envelope.in_protocol, contact.binding, when, envelope.note, *links)
            if contact.is_hop:
                operation = self.operation.forwarded(entry)
            else:
                operation = replace(self.operation, history=extended(self.operation.history, entry))
            self._egress[key] = operation
        return operation


@dataclass(frozen=True, slots=True)
class Report:
    """A report to a sender that is still to be stored."""

    add: Add
    stored: Callable[[Result], None]
    """Called with the result of ``add`` once it is durable."""


Reporter = Callable[[Pending, Response], Report | None]
"""Makes the report for a message's sender of how it ended (indeterminant: it has not); None where there may be none."""

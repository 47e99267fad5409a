"""The next hop towards another domain on the way out: everybody there, by one channel.

Place on the path: step 7, where ``channel.py`` has a device. Three things differ. A hop's word about one recipient ("nobody is there")
is final, since the recipient's own server said it; trouble with the hop itself is tried until the message's lifetime ends.
Messages of one conversation go one after the other, so that none overtakes one that has to be tried again; different
conversations go side by side. What is worth nothing later does not wait for a hop that cannot be reached. The others wait for it in
the store: a route of everybody leads to any number of domains that nobody answers for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from comity.cpim.operations import Reason, Response, failure
from comity.service.channel import MOST_ATTEMPTS, RETRY_DELAYS, Channel
from comity.service.interfaces import Contact
from comity.service.pending import Pending

if TYPE_CHECKING:
    from comity.service.delivery import Inbox

HOP_TROUBLE = frozenset({Reason.TIMEOUT, Reason.OVERLOAD})
"""Says nothing of a message: the hop cannot be reached, or has too much to do."""
PATIENCE = 4
"""Attempts that fail one after the other until what waits is kept in the store alone."""
MOST_TRANSIENT = 64
"""Messages nobody stores that may wait for their turn."""


class HopChannel(Channel):
    """The next hop's queue."""

    __slots__ = ("_conversations", "_is_resting")

    def __init__(self, inbox: Inbox, contact: Contact) -> None:
        super().__init__(inbox, contact)
        self._conversations: set[tuple[str, str]] = set()
        """Whose message is in flight."""
        self._is_resting = False

    def push(self, pending: Pending) -> None:
        """Queue a message for this hop, or refuse it if it is stored nowhere and would have to wait."""
        if not pending.seq and (self._pause is not None or len(self._queue) >= MOST_TRANSIENT):
            text = "The next server cannot be reached now."
            self.inbox.refused(pending, self, failure(pending.operation.trans_id, Reason.AWAY, text))
            return
        super().push(pending)

    def _next(self) -> Pending | None:
        for index, pending in enumerate(self._queue):
            if (conversation := _conversation(pending)) not in self._conversations:
                self._conversations.add(conversation)
                return self._queue.pop(index)
        return None

    def _ended(self, pending: Pending) -> None:
        self._conversations.discard(_conversation(pending))

    def _back_off(self, pending: Pending, response: Response) -> None:
        super()._back_off(pending, response)
        for waiting in self._queue:
            self.inbox.engine.stored(waiting)  # nobody shall wait for the next attempt
        if response.reason in HOP_TROUBLE and self._failures >= PATIENCE and not self._in_flight:
            self._rest()

    def _rest(self) -> None:
        """Keep nothing in memory until the next attempt."""
        self._is_resting = True
        waiting, self._queue = self._queue, [pending for pending in self._queue if not pending.seq]
        for pending in waiting:
            self._attempts.pop(pending, None)
            self._raised.pop(pending, None)
            self.inbox.put_back(pending)

    @property
    def is_resting(self) -> bool:
        """True while what waits for it is better left in the store."""
        return self._is_resting

    def refresh(self, contact: Contact) -> None:
        """Somebody wants it tried now; whoever says so has the lane read."""
        self._is_resting = False
        super().refresh(contact)

    def _resume(self) -> None:
        super()._resume()
        if self._is_resting:
            self._is_resting = False
            self.inbox.load()

    def _delay(self, response: Response) -> float:
        asked = min(response.retry_after or 0, RETRY_DELAYS[-1])
        return max(super()._delay(response), asked)

    def _may_try_again(self, response: Response, attempt: int) -> bool:
        if response.reason is Reason.AWAY:
            return False
        return response.is_temporary and (attempt <= MOST_ATTEMPTS or response.reason in HOP_TROUBLE)


def _conversation(pending: Pending) -> tuple[str, str]:
    operation = pending.operation
    return operation.source.key, operation.destination.key

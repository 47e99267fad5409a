"""One device of one recipient on the way out: a queue, a window of deliveries in flight, and retry.

Place on the path: step 7, between an inbox (``delivery.py``) and the binding that reaches the device. Promise kept
here: one device gets its messages in order, a later one is not handed over before it may be, and one that fails or
raises holds up nothing behind it for ever (F-11, F-POISON).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from comity.cpim.operations import Reason, Response, Status, failure
from comity.failpoints import failpoint
from comity.service.interfaces import Contact, Timer
from comity.service.pending import Pending

if TYPE_CHECKING:
    from comity.service.delivery import Inbox

log = logging.getLogger(__name__)

MOST_UNCERTAIN = 32
"""Messages handed to one device whose end is not durable yet: a kill repeats no more than these (gate G2)."""
MOST_OCTETS = 160 * 1024
"""Octets of objects in flight to one device, if there is more than one: as base64 in a stanza they still fit the write
buffer of a connection, so what a client does not read waits in the store and not in memory (L-04)."""
RETRY_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 300.0)
"""Seconds between attempts at one device (fault F-11)."""
MOST_ATTEMPTS = 64
"""Attempts at one device until a message is given up for it."""
POISON_TRIES = 3
"""Attempts that may raise here before a message is given up for that device (F-POISON)."""


class Channel:
    """One device of one recipient: a queue, the deliveries in flight, and the pause after a failed attempt.

    There is one for every registered device, most of them idle for hours: it has to be small.
    """

    __slots__ = (
        "_attempts",
        "_failures",
        "_in_flight",
        "_octets",
        "_pause",
        "_queue",
        "_raised",
        "_uncertain",
        "contact",
        "inbox",
        "is_closed",
    )

    def __init__(self, inbox: Inbox, contact: Contact) -> None:
        self.inbox = inbox
        self.contact = contact
        self.is_closed = False
        self._queue: list[Pending] = []  # at most WINDOW; an empty deque takes 760 octets
        self._in_flight: dict[Pending, int] = {}
        self._octets = 0
        """Octets of the objects in flight."""
        self._uncertain = 0
        """Messages it took whose end is not durable yet."""
        self._attempts: dict[Pending, int] = {}
        self._raised: dict[Pending, int] = {}
        self._failures = 0
        self._pause: Timer | None = None

    def push(self, pending: Pending) -> None:
        """Queue a message for this device."""
        pending.offered[self] = True
        self._queue.append(pending)
        self.pump()

    def pump(self) -> None:
        """Hand over what the window allows."""
        engine = self.inbox.engine
        while self._queue and self._pause is None and self._has_room:
            if self.is_closed or engine.is_stopping:
                return
            pending = self._next()
            if pending is None:
                return
            attempt = self._attempts.get(pending, 0) + 1
            self._in_flight[pending] = attempt
            self._octets += len(pending.operation.object.octets)
            failpoint("delivery.lease-taken")
            engine.attempt(self, pending, attempt).add_done_callback(partial(self._answered, pending))

    def _next(self) -> Pending | None:
        """Take what is to go now out of the queue, which is not empty."""
        return self._queue.pop(0)

    def _ended(self, pending: Pending) -> None:
        """An attempt is over."""

    @property
    def is_paused(self) -> bool:
        """True while it waits after a failed attempt."""
        return self._pause is not None

    @property
    def is_resting(self) -> bool:
        """True if nothing shall be read from the store for it (``HopChannel``)."""
        return False

    @property
    def is_idle(self) -> bool:
        """True if nothing of this device is in memory."""
        return not (self._queue or self._in_flight or self._uncertain)

    @property
    def _has_room(self) -> bool:
        in_flight = len(self._in_flight)
        if in_flight >= self.contact.window or in_flight + self._uncertain >= MOST_UNCERTAIN:
            return False
        return not in_flight or self._octets + len(self._queue[0].operation.object.octets) <= MOST_OCTETS

    def certain(self) -> None:
        """The end of a message it took is durable."""
        self._uncertain -= 1
        self.pump()

    def refresh(self, contact: Contact) -> None:
        """The device spoke again: what waited for it is tried now."""
        self.contact = contact
        self._failures = 0
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self.pump()

    def forget(self, pending: Pending) -> None:
        """Take it out of the queue, unless it is in flight already."""
        if pending in self._queue:
            self._queue.remove(pending)

    def close(self) -> None:
        """The device is gone; its queue is given back. Deliveries in flight still end by their own answer."""
        self.is_closed = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        waiting, self._queue = self._queue, []
        for pending in waiting:
            self.inbox.lost(pending, self)

    def _answered(self, pending: Pending, future: asyncio.Future[Response]) -> None:
        attempt = self._in_flight.pop(pending)
        self._octets -= len(pending.operation.object.octets)
        self._ended(pending)
        if future.cancelled():
            response = failure(pending.operation.trans_id, Reason.TIMEOUT, "The attempt was given up.")
        elif (error := future.exception()) is not None:
            log.error("delivery of %s by %s failed", pending.id, self.contact.binding, exc_info=error)
            self._raised[pending] = self._raised.get(pending, 0) + 1
            response = failure(pending.operation.trans_id, Reason.INTERNAL, "The attempt failed here.")
        else:
            response = future.result()
        is_poison = self._raised.get(pending, 0) >= POISON_TRIES
        if response.status is Status.SUCCESS:
            self._failures = 0
            self._attempts.pop(pending, None)
            self._raised.pop(pending, None)
            if self.inbox.delivered(pending, self, response):
                self._uncertain += 1
                pending.takers.append(self)
        elif self.is_closed:
            self.inbox.lost(pending, self)
        elif pending.seq and not is_poison and self._may_try_again(response, attempt):
            self._attempts[pending] = attempt
            self._back_off(pending, response)
        else:
            self._attempts.pop(pending, None)
            self._raised.pop(pending, None)
            self.inbox.refused(pending, self, response)
        self.pump()

    def _may_try_again(self, response: Response, attempt: int) -> bool:
        return response.is_temporary and attempt <= MOST_ATTEMPTS

    def _back_off(self, pending: Pending, response: Response) -> None:
        """Put the message back in its place and wait; what another device took meanwhile is let go."""
        queue = sorted({pending, *self._queue}, key=lambda item: item.seq)
        self._queue = [item for item in queue if not item.is_done]
        for item in queue:
            if item.is_done:
                self.inbox.lost(item, self)
        if self._pause is None and self._queue:
            delay = self._delay(response)
            self._failures += 1
            self._pause = self.inbox.engine.clock.call_later(delay, self._resume)

    def _delay(self, response: Response) -> float:
        """Seconds until the next attempt."""
        return RETRY_DELAYS[min(self._failures, len(RETRY_DELAYS) - 1)]

    def _resume(self) -> None:
        self._pause = None
        self.pump()

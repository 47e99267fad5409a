"""The way up: data becomes operations, and the sender is answered when they are durable (RFC 3340 section 4.4.4.1).

Place on the path: steps 3 to 5. ``ok`` means: accepted for every recipient that can be accepted (reliability.md section 5.1), so it
comes after the store and not before it, as step 3 of the RFC would have it for a relay that keeps nothing (P-34). What cannot be
taken now is refused as a whole, and a repeat finds what was taken of it. What can never be taken is told by a statusResponse
to who asked for one, else by the ``error`` if nothing of the data was taken.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from comity.bindings.apex.attachments import Attachments
from comity.bindings.apex.elements import Data, Destination, Error, Ok, Reply, StatusResponse
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Connection, Ground, answered
from comity.bindings.apex.mapping import Incoming, data_to_operations
from comity.bindings.apex.reasons import refusal_code
from comity.cpim.message import new_message_id
from comity.cpim.operations import Reason, Response, failure
from comity.service.interfaces import Accepted, Origin

log = logging.getLogger(__name__)

#: Data of one connection that is not answered; above it reading pauses.
MAX_SUBMITTING: Final = 128

Take = Callable[[Data, Origin], Ok | Error]
"""Takes data whose recipients are services; see ``service_data.py``."""
Report = Callable[[Endpoint, Endpoint, StatusResponse], None]
"""Says a statusResponse to an originator, about a recipient."""


class Submissions:
    """What applications and relays hand in."""

    def __init__(self, ground: Ground, attachments: Attachments, to_services: Take, report: Report) -> None:
        self._ground = ground
        self._attachments = attachments
        self._to_services = to_services
        self._report = report
        self.pending: set[asyncio.Future[Ok | Error]] = set()
        """Data not yet answered."""

    # --- an application's data ------------------------------------------------------------------------------------------

    def data(self, connection: Connection, data: Data) -> asyncio.Future[Ok | Error]:
        """Take what an application sent: step 1 of RFC 3340 section 4.4.4.1, then ``submit``."""
        if not connection.attachments:
            return answered(Error(530, "attach first"))
        if connection.find(data.originator.identity) is None:
            return answered(Error(537, "you are not attached as that originator"))
        if len(data.recipients) > self._ground.config.recipients:
            return answered(Error(554, f"data has at most {self._ground.config.recipients} recipients here"))
        return self.submit(data, self._ground.origin(connection))

    def submit(self, data: Data, origin: Origin, *, is_relay: bool = False) -> asyncio.Future[Ok | Error]:
        """Take data whose originator may be that: hand it in, and answer when every part of it is decided.

        Args:
            origin: who hands it in; a relay's with the domains it proved.
            is_relay: a relay does: what it says about the way counts.
        """
        services = tuple(one for one in data.recipients if one.identity.is_service)
        if not services:
            return self._to_people(data, origin, None, is_relay)
        taken = self._to_services(replace(data, recipients=services), origin)
        people = tuple(one for one in data.recipients if not one.identity.is_service)
        if not people:
            return answered(taken)
        return self._to_people(replace(data, recipients=people), origin, taken, is_relay)

    def _to_people(
        self, data: Data, origin: Origin, taken: Ok | Error | None, is_relay: bool
    ) -> asyncio.Future[Ok | Error]:
        service = self._ground.service
        read = data_to_operations(
            data,
            when=service.clock.when(),
            new_id=self._new_id,
            new_message_id=self._new_message_id,
            serves=self._ground.is_ours,
            is_relay=is_relay,
        )
        if isinstance(read, Error):
            return answered(read)
        future: asyncio.Future[Ok | Error] = asyncio.get_running_loop().create_future()
        submission = _Submission(data, read, future, isinstance(taken, Ok), is_relay)
        waiting = []
        for index, incoming in enumerate(read):
            if isinstance(incoming.operation, Error):
                submission.refused[index] = incoming.operation
                continue
            done = service.submit(incoming.operation, replace(origin, dedup=incoming.dedup))
            waiting.append((index, done))
        submission.left = len(waiting)
        if not waiting:
            self._conclude(submission)
            return future
        self.pending.add(future)
        future.add_done_callback(self.pending.discard)
        for index, done in waiting:
            done.add_done_callback(partial(self._submitted, submission, index))
        return future

    def _submitted(self, submission: _Submission, index: int, done: asyncio.Future[Accepted | Response]) -> None:
        if done.cancelled() or done.exception() is not None:
            log.error("data could not be submitted: %r", None if done.cancelled() else done.exception())
            answer: Accepted | Response = failure("", Reason.INTERNAL, "The data could not be taken.")
        else:
            answer = done.result()
        if isinstance(answer, Accepted):
            submission.is_taken = True
            # Its end is told by a report of the service, which is stored before the message is forgotten.
            answer.outcome.cancel()
        else:
            error = Error(refusal_code(answer), answer.text)
            submission.refused[index] = error
            submission.reasons[index] = answer.reason
            submission.not_now = submission.not_now or (error if answer.is_temporary else None)
        submission.left -= 1
        if not submission.left:
            self._conclude(submission)

    def _conclude(self, submission: _Submission) -> None:
        """Everything is decided: answer, and tell of the recipients that were refused."""
        if submission.future.done():
            return
        if submission.not_now is not None:
            submission.future.set_result(submission.not_now)
            return
        replies = {
            index: submission.incoming[index].wanted.refusals(error.code, submission.reasons.get(index))
            for index, error in submission.refused.items()
        }
        if submission.refused and not submission.is_taken and not any(replies.values()):
            error = next(iter(submission.refused.values()))
            if submission.is_relay and error.code // 100 == 4:
                # To a relay this would say "try again", and what it has for others would wait behind one full inbox.
                error = Error(554, error.text)
            submission.future.set_result(error)
            return
        submission.future.set_result(Ok())
        for index, codes in replies.items():
            for trans_id, code in codes.items():
                self._tell(submission, index, trans_id, code)

    def _tell(self, submission: _Submission, index: int, trans_id: int, code: int) -> None:
        recipient = submission.incoming[index].recipient
        destination = Destination(recipient, Reply(code, text=submission.refused[index].text))
        self._report(submission.data.originator.identity, recipient, StatusResponse(trans_id, (destination,)))

    def _new_id(self) -> str:
        return self._ground.random(12).hex()

    def _new_message_id(self) -> str:
        return new_message_id(self._ground.random(15))

    # --- backpressure ---------------------------------------------------------------------------------------------------

    def throttle(self, connection: Connection) -> None:
        """Above its rate, or with much that is not answered, a connection is not read from; nothing is refused for it."""
        wait = connection.rates.debt(self._ground.service.clock.now())
        if wait > 0 and connection.throttle_timer is None:
            release = partial(self._release, connection)
            connection.throttle_timer = self._ground.service.clock.call_later(wait, release)
        is_over = connection.throttle_timer is not None or len(connection.submitting) >= MAX_SUBMITTING
        if is_over == connection.is_paused or not connection.is_live:
            return
        connection.is_paused = is_over
        if is_over:
            connection.link.pause_reading()
        else:
            connection.link.resume_reading()

    def _release(self, connection: Connection) -> None:
        connection.throttle_timer = None
        self.throttle(connection)


class _Submission:
    """One data on its way up, for all its recipients."""

    __slots__ = ("data", "future", "incoming", "is_relay", "is_taken", "left", "not_now", "reasons", "refused")

    def __init__(
        self,
        data: Data,
        incoming: Sequence[Incoming],
        future: asyncio.Future[Ok | Error],
        is_taken: bool,
        is_relay: bool,
    ) -> None:
        self.data = data
        self.incoming = incoming
        self.future = future
        self.is_taken = is_taken
        """Something of it was accepted."""
        self.is_relay = is_relay
        self.left = 0
        self.refused: dict[int, Error] = {}
        """By place of the recipient."""
        self.reasons: dict[int, Reason | None] = {}
        self.not_now: Error | None = None
        """The refusal that another attempt may cure."""

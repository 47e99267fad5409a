"""The way down: a delivery becomes ``data`` to an application, and ends with the application's word (RFC 3340 section 4.4.4.1, 5.3).

Place on the path: steps 7 to 9. A delivery succeeds when the application answered ``ok``, and fails by T7. The report operations
of the service become what RFC 3340 section 6.2 has for them: a statusResponse from ``apex=report``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from comity.bindings.apex.attachments import Attachments
from comity.bindings.apex.elements import Data, Error, Inline, Ok, Originator, Recipient
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Attachment, Connection, Ground, answered
from comity.bindings.apex.mapping import operation_to_data
from comity.bindings.apex.reasons import error_to_response
from comity.bindings.apex.report import NAME as REPORT
from comity.bindings.apex.report import responses
from comity.bindings.apex.service_wire import write_service
from comity.cpim.operations import Fate, MessageOperation, Reason, Requirement, Response, failure, success
from comity.errors import LocalProtocolError
from comity.service.interfaces import Delivery

MOST_UNANSWERED = 512
"""Data of services that one application has not answered; beside it stands its window of messages."""
MOST_UNREAD = 256 * 1024
"""Octets that wait for an application which reads nothing (reliability.md section 6.2)."""
_AWAY = "The application is not attached."
_LEFT = "The application went away before it confirmed the message."


def report_data(operation: MessageOperation, to: Endpoint, new_trans_id: Callable[[], int]) -> list[Data]:
    """What a report of the service is for an endpoint that asked for it, here or behind another relay; else nothing."""
    if operation.context.report is None:
        return []
    originator = Originator(Endpoint.service(REPORT, operation.source.domain))
    return [
        Data(originator, (Recipient(to),), Inline(write_service(said.element)), said.options)
        for said in responses(operation.context.report, new_trans_id)
    ]


def is_unasked(operation: MessageOperation) -> bool:
    """A report, not of a failure, of which its receiver asked to be told nothing: reportAfter is not asking for delivery."""
    report = operation.context.report
    return report is not None and report.fate is not Fate.FAILED


@dataclass(slots=True)
class _Flight:
    """Data on its way to an application."""

    attachment: Attachment
    end: Callable[[Ok | Error | None], None]


class EndpointDelivery:
    """Deliveries to attached applications."""

    def __init__(self, ground: Ground, attachments: Attachments) -> None:
        self._ground = ground
        self._attachments = attachments
        self._flights: dict[tuple[Connection, int], _Flight] = {}
        """By connection and the session's handle."""
        attachments.on_detached = self._detached

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """See ``Binding.deliver``."""
        operation = delivery.operation
        attachment = self._attachments.of(delivery.contact)
        if attachment is None or not attachment.connection.is_live:
            return answered(failure(operation.trans_id, Reason.AWAY, _AWAY))
        if Requirement.TLS in operation.requirements and not attachment.connection.is_tls:
            # The service asked the contact; this is the link itself, the last look before the octets leave.
            text = "The recipient's application cannot be reached under TLS."
            return answered(failure(operation.trans_id, Reason.PROTECTION, text))
        made = self._made(delivery, attachment.endpoint)
        if isinstance(made, Response):
            return answered(made)
        outcome = _Outcome(operation.trans_id, len(made))
        try:
            for data in made:
                self._send(attachment, data, outcome.add)
        except LocalProtocolError:
            text = "The message holds something that APEX cannot carry."
            outcome.settle(failure(operation.trans_id, Reason.CONTENT, text))
        attachment.connection.link.flush()
        return outcome.future

    def _made(self, delivery: Delivery, endpoint: Endpoint) -> list[Data] | Response:
        operation, new_id = delivery.operation, self._ground.new_trans_id
        said = report_data(operation, endpoint, new_id)
        if said or is_unasked(operation):
            return said or success(operation.trans_id)
        made = operation_to_data(
            operation,
            recipient=endpoint,
            delivery_id=delivery.id,
            domain=self._ground.service.node,
            age=(self._ground.service.clock.when() - delivery.accepted).total_seconds(),
            new_trans_id=new_id,
        )
        return made if isinstance(made, Response) else [made]

    def send(self, endpoint: Endpoint, data: Data) -> asyncio.Future[Ok | Error | None] | None:
        """Send data of a service to the application attached as exactly this endpoint; None if there is none that keeps up. Its
        answer is None if it leaves before it answers."""
        attachment = self._attachments.find(endpoint)
        if attachment is None or not self._keeps_up(attachment):
            return None
        future: asyncio.Future[Ok | Error | None] = asyncio.get_running_loop().create_future()
        try:
            self._send(attachment, data, partial(_settle, future))
        except LocalProtocolError as error:
            return answered(Error(504, str(error)))
        attachment.connection.link.flush()
        return future

    def _keeps_up(self, attachment: Attachment) -> bool:
        """False if so much waits for it that nothing more is added: services may speak as often as others do something."""
        connection = attachment.connection
        if not connection.is_live or connection.in_flight >= MOST_UNANSWERED:
            return False
        return connection.session.waiting(attachment.channel) + connection.link.unsent < MOST_UNREAD

    def _send(self, attachment: Attachment, data: Data, end: Callable[[Ok | Error | None], None]) -> None:
        connection = attachment.connection
        handle = connection.session.send(attachment.channel, data)
        self._flights[connection, handle] = _Flight(attachment, end)
        connection.in_flight += 1

    # --- the application's word -----------------------------------------------------------------------------------------

    def answered(self, connection: Connection, handle: int, element: Ok | Error) -> None:
        """The answer to something we sent; of a terminate nobody waits for it."""
        flight = self._flights.pop((connection, handle), None)
        if flight is not None:
            connection.in_flight -= 1
            flight.end(element)

    def _detached(self, attachment: Attachment) -> None:
        """Nobody is attached there any more: what was not confirmed goes back to the service."""
        left = [key for key, flight in self._flights.items() if flight.attachment is attachment]
        attachment.connection.in_flight -= len(left)
        for key in left:
            self._flights.pop(key).end(None)


class _Outcome:
    """The one answer to a delivery that is one data or, for a report, several."""

    def __init__(self, trans_id: str, count: int) -> None:
        self.future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._trans_id = trans_id
        self._left = count

    def add(self, element: Ok | Error | None) -> None:
        """One of them ended; the first failure is the answer."""
        self._left -= 1
        if element is None:
            self.settle(failure(self._trans_id, Reason.AWAY, _LEFT))
        elif isinstance(element, Error):
            self.settle(error_to_response(self._trans_id, element.code, element.text))
        elif not self._left:
            self.settle(success(self._trans_id, "object"))

    def settle(self, response: Response) -> None:
        """Answer the service, unless that was done or it gave up."""
        if not self.future.done():
            self.future.set_result(response)


def _settle(future: asyncio.Future[Ok | Error | None], element: Ok | Error | None) -> None:
    if not future.done():
        future.set_result(element)

"""What becomes of messages that were sent by APEX: the report service's words about them.

Place on the path: behind the far end of it, under ``apex.py``. Who sends waits for a moment; a failure that comes later comes
as a message.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from comity.bindings.apex.elements import StatusResponse
from comity.bindings.apex.reasons import error_to_response
from comity.client.apex_inbox import MOST_REMEMBERED
from comity.client.base import Mailbox, Received
from comity.cpim.address import Address
from comity.cpim.delivered import read_words
from comity.cpim.operations import MimeObject, Reason, Report, Response, success


@dataclass(slots=True, eq=False)
class Sent:
    """A message that was accepted, or is about to be: reports about it may come."""

    key: str
    to: Address
    report: asyncio.Future[Response] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    is_waited_for: bool = True


class Reports:
    """Messages of ours about which reports may come.

    Args:
        mailbox: where late ones wait.
        own: our address.
    """

    def __init__(self, mailbox: Mailbox, own: Address) -> None:
        self._mailbox = mailbox
        self._own = own
        self._sent: dict[int, Sent] = {}
        """By transID of the statusRequest."""

    def expect(self, trans_id: int, sent: Sent) -> None:
        """A message leaves."""
        self._sent[trans_id] = sent
        if len(self._sent) > MOST_REMEMBERED:
            del self._sent[next(iter(self._sent))]

    def forget(self, trans_id: int) -> None:
        """It was refused at once."""
        self._sent.pop(trans_id, None)

    def take(self, response: StatusResponse) -> None:
        """Take what the report service said."""
        sent = self._sent.get(response.trans_id)
        for destination in response.destinations:
            reply = destination.reply
            if sent is None or 300 <= reply.code < 400:  # not known any more, or still trying
                continue
            self._sent.pop(response.trans_id, None)
            is_success = reply.code < 300
            if is_success:
                outcome = success(sent.key, *read_words(reply.text))
            else:
                outcome = error_to_response(sent.key, reply.code, reply.text)
            if sent.is_waited_for:
                if not sent.report.done():
                    sent.report.set_result(outcome)
            elif not is_success:
                self._failed_late(sent, outcome)

    def _failed_late(self, sent: Sent, outcome: Response) -> None:
        """Tell as a message what ``send`` could not wait for."""
        own = self._own
        report = Report(outcome.reason or Reason.INTERNAL, outcome.text, sent.to, sent.key)
        empty = MimeObject.of("application/octet-stream", b"")
        self._mailbox.put(Received(empty, sent.to, own, own.domain, report=report), lambda: None)

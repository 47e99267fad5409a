"""Messages that arrived by APEX and wait to be taken by the caller.

Place on the path: the far end of it, under ``apex.py``. A message is answered when the caller takes or refuses it, on the connection by
which the server sent it last: a server that lost a connection sends again what it has no answer to, and a message that comes
again is known by its Content-ID and its octets, taken or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Final

from comity.bindings.apex import mapping
from comity.bindings.apex.elements import Data, Error, Ok, Part
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.reasons import CODES
from comity.bindings.apex.session import ApexSession
from comity.bindings.base import Link
from comity.client.base import Mailbox, Received, asserter
from comity.cpim.address import Address
from comity.cpim.message import new_message_id
from comity.cpim.operations import Reason

MOST_REMEMBERED: Final = 10_000
"""Messages taken whose ``ok`` may be lost with the connection, and messages of ours whose late reports are told apart."""
DELAYED: Final = timedelta(seconds=10)

_Known = tuple[str, str, bytes]
"""By what a message is known again: originator, Content-ID, SHA-256 of its octets."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where the answer to a message belongs."""

    session: ApexSession
    link: Link
    channel: int
    msgno: int


class Inbox:
    """What arrived for one endpoint.

    Args:
        mailbox: where it waits.
        endpoint: what we are attached as.
        own: our address.
    """

    def __init__(self, mailbox: Mailbox, endpoint: Endpoint, own: Address) -> None:
        self._mailbox = mailbox
        self._endpoint = endpoint
        self._own = own
        self.untaken: dict[_Known, Place] = {}
        self._taken: dict[_Known, None] = {}
        """Which the server may not know, whose connection can be lost behind any word."""

    def put(self, data: Data, untaken: Place) -> Error | None:
        """A message came: put it where it waits to be taken, or say why it is refused."""
        label = data.content.content_id if isinstance(data.content, Part) else os.urandom(9).hex()
        known = (str(data.originator.identity), label, sha256(data.content.octets).digest())
        if known in self._taken:
            untaken.session.answer(untaken.channel, untaken.msgno, Ok())
            return None
        if known in self.untaken:  # sent again, since the connection was lost meanwhile
            self.untaken[known] = untaken
            return None
        received = self._read(data, label, partial(self._refuse, known))
        if isinstance(received, Error):
            return received
        self.untaken[known] = untaken
        self._mailbox.put(received, partial(self._answer, known, Ok()))
        return None

    def _read(self, data: Data, label: str, refuser: Callable[[Reason, str], None]) -> Received | Error:
        # Relays have processed the options; an application may note them (RFC 3340 section 4.4.4.2).
        noted = replace(data, options=tuple(replace(option, must_understand=False) for option in data.options))
        made = mapping.data_to_operations(
            noted,
            when=datetime.now(UTC),
            new_id=lambda: label,
            new_message_id=lambda: new_message_id(os.urandom(15)),
            serves=lambda domain: True,
            is_relay=True,
        )
        if isinstance(made, Error):
            return made
        operation = next((one.operation for one in made if one.recipient == self._endpoint), None)
        if operation is None:
            return Error(550, "nobody is attached here as that endpoint")
        if isinstance(operation, Error):
            return operation
        history, own = operation.history, self._own
        arrived = history[-1].when if history else None
        return Received(
            operation.object,
            operation.source,
            own,
            asserter(operation.source, own, history),
            arrived is not None and datetime.now(UTC) - arrived > DELAYED,
            arrived,
            history,
            requirements=operation.requirements,
            id=label,
            refuser=refuser,
        )

    def _refuse(self, known: _Known, reason: Reason, text: str) -> None:
        """Answer data with the code of its reason (T1, T8); the ``ok`` that would follow is then none."""
        self._answer(known, Error(CODES[reason], text))

    def _answer(self, known: _Known, answer: Ok | Error) -> None:
        untaken = self.untaken.pop(known, None)
        if untaken is None:
            return  # refused before
        if isinstance(answer, Ok):
            self._taken[known] = None
            if len(self._taken) > MOST_REMEMBERED:
                del self._taken[next(iter(self._taken))]
        if not untaken.session.is_ended:
            untaken.session.answer(untaken.channel, untaken.msgno, answer)
            untaken.link.flush()

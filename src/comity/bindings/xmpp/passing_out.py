"""The way down to another server: a delivery becomes a stanza, and ends when that server has it.

Place on the path: steps 7 to 9 for hops (``delivery.py`` has the devices). What the other server took is passed on: it tells the
sender of what goes wrong later, by an error stanza, which is looked up here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

from comity.bindings.xmpp import mapping
from comity.bindings.xmpp.devices import bare
from comity.bindings.xmpp.e2e import E2E
from comity.bindings.xmpp.extensions import PROTECTION
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.wire import Element
from comity.cpim.entity import is_secured
from comity.cpim.operations import (
    PASSED_ON,
    MessageOperation,
    Reason,
    Requirement,
    Response,
    failure,
    success,
)
from comity.service.interfaces import Delivery

#: Deliveries remembered so that a later error stanza finds its message, whatever server it comes from.
MOST_REMEMBERED: Final = 8192
NATIVE: Final[frozenset[str]] = frozenset({E2E})
Send = Callable[[Element, "MessageFlight"], bool]
Features = Callable[[], Awaitable[frozenset[str] | None]]


@dataclass(slots=True)
class MessageFlight:
    """One attempt to hand a message to another server."""

    delivery: Delivery
    future: asyncio.Future[Response]

    def taken(self) -> None:
        """See ``Flight.taken``."""
        if not self.future.done():
            self.future.set_result(success(self.delivery.operation.trans_id, PASSED_ON))

    def lost(self, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
        """See ``Flight.lost``."""
        if not self.future.done():
            response = failure(self.delivery.operation.trans_id, reason, text)
            self.future.set_result(replace(response, is_unsent=is_unsent))


@dataclass(slots=True)
class PlainFlight:
    """A stanza other than a message whose end somebody waits for."""

    future: asyncio.Future[Response]

    def taken(self) -> None:
        """See ``Flight.taken``."""
        if not self.future.done():
            self.future.set_result(success(""))

    def lost(self, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
        """See ``Flight.lost``."""
        if not self.future.done():
            self.future.set_result(replace(failure("", reason, text), is_unsent=is_unsent))


class Departures:
    """Messages to other servers.

    Args:
        ground: what the parts of the binding stand on.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._remembered: OrderedDict[tuple[str, str, str], tuple[str, bool]] = OrderedDict()
        """Delivery's id and whether its object is secured, by sender, recipient (both bare) and id of the stanza."""

    def deliver(self, delivery: Delivery, send: Send, features: Features) -> asyncio.Future[Response]:
        """Hand a message to ``send``, which says whether there is a way; the future is the other server's word.

        ``features`` says what the other server can do; it is asked only where that makes a difference."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        flight = MessageFlight(delivery, future)
        made = self._made(delivery, frozenset())
        if _is_whole(made, delivery.operation):
            self._go(made, flight, send)
        else:
            self._ground.run(self._learn(flight, send, features))
        return future

    async def _learn(self, flight: MessageFlight, send: Send, features: Features) -> None:
        """Ask the other server what it can do, and send what it can take."""
        learned = await features()
        if learned is None:
            flight.lost(Reason.TIMEOUT, "The next server cannot be reached now.", is_unsent=True)
        else:
            self._go(self._made(flight.delivery, learned), flight, send)

    def _go(self, made: mapping.Outgoing | Response, flight: MessageFlight, send: Send) -> None:
        if isinstance(made, Response):
            if not flight.future.done():
                flight.future.set_result(made)
            return
        if not flight.delivery.operation.context.transient:
            self._remember(made.stanza, flight.delivery)
        if not send(made.stanza, flight):
            flight.lost(Reason.NO_ROUTE, "There is no way to that domain by XMPP.")

    def _made(self, delivery: Delivery, learned: frozenset[str]) -> mapping.Outgoing | Response:
        """``learned``: what the other server said it can do, as far as anybody asked."""
        operation = delivery.operation
        if operation.requirements - {Requirement.TLS} and PROTECTION not in learned:
            text = "The next server does not say that it keeps the protection this message requires."
            return failure(operation.trans_id, Reason.PROTECTION, text)
        made = mapping.operation_to_stanza(
            operation,
            delivery_id=delivery.id,
            domain=self._ground.service.node,
            accepted=delivery.accepted,
            is_delayed=delivery.is_delayed,
            # An object crosses whole, with its text beside it for programs that know no objects; what was made here of a native
            # message a moment ago crosses as that message (GW-3).
            features=None if operation.is_wrapped and not operation.requirements else NATIVE | learned,
        )
        if isinstance(made, mapping.Outgoing) and operation.context.report is None:
            made.stanza.append(mapping.hops_element(operation.max_forwards))
        return made

    def _remember(self, stanza: Element, delivery: Delivery) -> None:
        key = bare(stanza.get("from")), bare(stanza.get("to")), stanza.get("id")
        self._remembered[key] = delivery.id, is_secured(delivery.operation.object)
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)

    def refused(self, error: Element) -> tuple[str, Response] | None:
        """What an error stanza of another server is about and says: the delivery's id; None for what was not sent from here."""
        found = self._remembered.pop((bare(error.get("to")), bare(error.get("from")), error.get("id")), None)
        if found is not None:
            id, is_secret = found
        elif _is_spine_id(error.get("id")):
            # After a restart: a message that did not come by XMPP has its delivery's id. ``told`` knows whether it is one.
            id, is_secret = error.get("id"), False
        else:
            return None
        return id, mapping.error_to_response(error, id, is_secured_object=is_secret)


def _is_whole(made: mapping.Outgoing | Response, operation: MessageOperation) -> bool:
    """True if nothing that the other server can do would carry it better."""
    if operation.context.transient or operation.context.report is not None:
        return True
    if isinstance(made, Response):
        return made.reason not in (Reason.CONTENT, Reason.PROTECTION)
    return operation.is_wrapped or made.form == "object"


def _is_spine_id(id: str) -> bool:
    return len(id) == 36 and id.count("-") == 4 and id.replace("-", "").isalnum()

"""The way up: a client's messages become operations, and what the service says about them goes back.

Place on the path: steps 3 to 5. A stanza is counted in ``h`` only when its message is durable (reliability.md section
5.2). Who sends faster than the rate is read from more slowly; nothing is refused for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from functools import partial

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.wire import Element
from comity.cpim.entity import is_secured
from comity.cpim.message import new_message_id
from comity.cpim.operations import Reason, Response, Status, failure
from comity.service.interfaces import Accepted, Origin
from comity.xml import serialize

log = logging.getLogger(__name__)

#: Submissions of one client not yet durable; above it reading pauses.
MAX_SUBMITTING = 128


class Submissions:
    """What clients hand in."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.pending: set[asyncio.Future[Accepted | Response]] = set()
        """Submissions not yet answered."""

    def message(self, connection: Connection, stanza: Element, index: int) -> None:
        """Submit a checked message stanza."""
        clock = self._ground.service.clock
        connection.bucket.take(clock.now())
        made = mapping.stanza_to_operation(
            stanza,
            when=clock.when(),
            trans_id=self._ground.random(12).hex(),
            message_id=new_message_id(self._ground.random(15)),
        )
        if isinstance(made, mapping.Refusal):
            self._ground.reply(connection, wire.error_reply(stanza, made.condition, made.text))
            connection.session.stanza_handled(index)
            return
        assert connection.account is not None
        origin = Origin(connection.account, PROTOCOL, connection.host, connection.session.is_tls, dedup_fields(stanza))
        connection.submitting += 1
        done = self._ground.service.submit(made, origin)
        self.pending.add(done)
        is_silent = made.context.transient
        done.add_done_callback(partial(self._submitted, connection, stanza, index, is_silent))
        self._throttle(connection)

    def _submitted(
        self,
        connection: Connection,
        stanza: Element,
        index: int,
        is_silent: bool,
        done: asyncio.Future[Accepted | Response],
    ) -> None:
        """Count the stanza as handled; ``is_silent``: a typing state, of which no failure is ever told."""
        self.pending.discard(done)
        connection = connection.current
        connection.submitting -= 1
        if done.cancelled() or done.exception() is not None:
            log.error("a message could not be submitted: %r", None if done.cancelled() else done.exception())
            answer: Accepted | Response = failure("", Reason.INTERNAL, "The message could not be taken.")
        else:
            answer = done.result()
        if isinstance(answer, Response):
            if not is_silent:
                self._answer_failure(connection, stanza, answer)
        elif not is_silent:
            connection.outcomes.add(answer.outcome)
            answer.outcome.add_done_callback(partial(self._ended, connection, stanza))
            if not connection.is_live:
                answer.outcome.cancel()
        connection.session.stanza_handled(index)
        connection.link.flush()
        self._throttle(connection)

    def _ended(self, connection: Connection, stanza: Element, outcome: asyncio.Future[Response]) -> None:
        """The end of an accepted message is known: a failure is told at once, natively."""
        connection.outcomes.discard(outcome)
        connection = connection.current
        if not outcome.cancelled() and outcome.result().status is Status.FAILURE:
            self._answer_failure(connection, stanza, outcome.result())
            connection.link.flush()

    def _answer_failure(self, connection: Connection, stanza: Element, response: Response) -> None:
        to = stanza.get("to") or stanza.get("from")
        is_local = self._ground.service.accounts.serves(to.partition("/")[0].rpartition("@")[2])
        self._ground.reply(connection, mapping.response_to_error(stanza, response, is_local=is_local))

    def refusal(self, connection: Connection, stanza: Element) -> None:
        """A device refuses what it took (T3, T8)."""
        delivery = connection.delivered.pop(stanza.get("id"), None)
        if delivery is not None:
            operation = delivery.operation
            response = mapping.error_to_response(
                stanza, operation.trans_id, is_secured_object=is_secured(operation.object)
            )
            self._ground.service.reject(delivery.id, delivery.contact, response)

    def _throttle(self, connection: Connection) -> None:
        """Above the rate of messages reading pauses; nothing is refused for it (reliability.md section 6.2)."""
        wait = connection.bucket.debt_seconds
        if wait > 0 and connection.throttle_timer is None:
            release = partial(self._release, connection)
            connection.throttle_timer = self._ground.service.clock.call_later(wait, release)
        is_over = connection.throttle_timer is not None or connection.submitting >= MAX_SUBMITTING
        if is_over == connection.is_paused or not connection.is_live:
            return
        connection.is_paused = is_over
        if is_over:
            connection.link.pause_reading()
        else:
            connection.link.resume_reading()

    def _release(self, connection: Connection) -> None:
        connection.throttle_timer = None
        connection.bucket.refill(self._ground.service.clock.now())
        self._throttle(connection)


def dedup_fields(stanza: Element) -> tuple[str, ...]:
    """The edge's key (reliability.md section 5.3): the client's own identifier and what the stanza holds.

    The content is hashed as it came: an object made of it holds the time of receipt, so no two are equal.
    """
    origin_id = stanza.find(f"{{{mapping.STANZA_ID}}}origin-id")
    id = (origin_id.get("id") if origin_id is not None else "") or stanza.get("id")
    if not id:
        return ()
    digest = hashlib.sha256()
    for child in stanza.elements():
        if child.namespace != mapping.DELAY:  # XEP-0198 lets a client stamp what it sends again
            digest.update(serialize(child, wire.CLIENT))
    return ("xmpp", id, digest.hexdigest())

"""The way up: a client's messages become operations, and what the service says about them goes back.

Place on the path: steps 3 to 5. A stanza is counted in ``h`` only when its message is durable (reliability.md section
5.2). Who sends faster than the rate is read from more slowly; nothing is refused for it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, replace
from functools import partial

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.blocking import Blocklists
from comity.bindings.xmpp.counts import Step
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.egress import form_told
from comity.bindings.xmpp.extensions import PROTOCOL, WANTS_FORM
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import to_jid
from comity.cpim.entity import is_secured
from comity.cpim.message import new_message_id
from comity.cpim.operations import MessageOperation, Reason, Response, Status, failure
from comity.service.interfaces import Accepted, Origin
from comity.xml import serialize

log = logging.getLogger(__name__)

#: Submissions and other requests of one client not yet durable; above it reading pauses.
MAX_SUBMITTING = 128


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message stanza on its way up."""

    connection: Connection
    stanza: Element
    index: int
    is_silent: bool
    """True for a typing state: no failure of it is ever told."""
    step: Step | None
    """Its part in the count of a resumable stream."""

    @property
    def wants_form(self) -> bool:
        """Its sender asked to be told in which form it is delivered."""
        return self.stanza.find(WANTS_FORM) is not None


class Submissions:
    """What clients hand in."""

    def __init__(self, ground: Ground, blocklists: Blocklists) -> None:
        self._ground = ground
        self._blocklists = blocklists
        self.pending: set[asyncio.Future[Accepted | Response]] = set()
        """Submissions not yet answered."""
        ground.eased = self._throttle

    def arrived(self, connection: Connection) -> None:
        """Any stanza has come: count it and its octets."""
        now, octets = self._ground.service.clock.now(), connection.session.octets_read
        connection.rates.stanzas.take(now)
        connection.rates.octets.take(now, octets - connection.octets_seen)
        connection.octets_seen = octets
        if connection.rates.debt_seconds > 0:
            self._throttle(connection)

    def message(self, connection: Connection, stanza: Element, index: int) -> None:
        """Submit a checked message stanza."""
        clock = self._ground.service.clock
        connection.rates.messages.take(clock.now())
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
        blocked = self._blocklists.refusal(connection, stanza, made.destination)
        if blocked is not None:
            self._ground.reply(connection, blocked)
            connection.session.stanza_handled(index)
            return
        if self._is_nowhere(made):
            if made.context.kind == "normal":
                self._ground.reply(
                    connection, wire.error_reply(stanza, "service-unavailable", "there is no such device")
                )
            connection.session.stanza_handled(index)
            return
        assert connection.account is not None
        is_silent = made.context.transient
        if is_silent and not self._ground.typing.is_welcome(made):
            connection.session.stanza_handled(index)
            return
        step = None if is_silent else connection.step(index)
        is_tls, marks = connection.session.is_tls, () if step is None else step.marks
        origin = Origin(connection.account, PROTOCOL, connection.host, is_tls, dedup_fields(stanza), marks)
        done = self._ground.service.submit(made, origin)
        self._ground.typing.said(str(connection.jid), made, partial(self._again, connection))
        connection.submitting.add(done)
        self.pending.add(done)
        done.add_done_callback(partial(self._submitted, _Sent(connection, stanza, index, is_silent, step)))
        self._throttle(connection)

    def _again(self, connection: Connection, operation: MessageOperation) -> None:
        """Say for a device that its user still types; nobody waits for what becomes of that."""
        connection = connection.current
        if not connection.is_live or connection.account is None:
            return
        operation = replace(operation, trans_id=self._ground.random(12).hex())
        origin = Origin(connection.account, PROTOCOL, connection.host, connection.session.is_tls)
        done = self._ground.service.submit(operation, origin)
        self.pending.add(done)
        done.add_done_callback(self.pending.discard)

    def _is_nowhere(self, operation: MessageOperation) -> bool:
        """RFC 6121 section 8.5.3.2.1: only a chat message for a device that is not there goes to the others."""
        resource, destination = operation.context.resource, operation.destination
        if not resource or operation.context.kind == "chat":
            return False
        service = self._ground.service
        if not service.accounts.serves(destination.domain):
            return False
        if any(contact.resource == resource for contact in service.registrar.contacts(destination)):
            return False
        jid = Jid.parse(f"{to_jid(destination)}/{resource}")
        return self._ground.devices.find(jid) is None  # a stream that may be resumed is somewhere

    def _submitted(self, sent: _Sent, done: asyncio.Future[Accepted | Response]) -> None:
        """Count the stanza as handled and tell what has to be told."""
        self.pending.discard(done)
        connection, stanza = sent.connection.current, sent.stanza
        connection.submitting.discard(done)
        if done.cancelled() or done.exception() is not None:
            log.error("a message could not be submitted: %r", None if done.cancelled() else done.exception())
            answer: Accepted | Response = failure("", Reason.INTERNAL, "The message could not be taken.")
        else:
            answer = done.result()
        is_taken = isinstance(answer, Accepted) and not answer.is_repeat
        if sent.step is not None and sent.step.ended(is_taken=is_taken) and connection.sm is not None:
            connection.sm.incoming.keep(sent.index)
        if isinstance(answer, Response):
            if not sent.is_silent:
                self._answer_failure(connection, stanza, answer)
        elif not sent.is_silent:
            connection.outcomes.add(answer.outcome)
            answer.outcome.add_done_callback(partial(self._ended, connection, stanza, sent.wants_form))
            if not connection.is_live:
                answer.outcome.cancel()
        connection.handled(sent.index)
        connection.link.flush()
        self._throttle(connection)

    def _ended(
        self, connection: Connection, stanza: Element, wants_form: bool, outcome: asyncio.Future[Response]
    ) -> None:
        """The end of an accepted message is known: a failure is told at once, natively; the form to who asked."""
        connection.outcomes.discard(outcome)
        connection = connection.current
        if outcome.cancelled():
            return
        if outcome.result().status is Status.FAILURE:
            self._answer_failure(connection, stanza, outcome.result())
            connection.link.flush()
        elif wants_form and outcome.result().form and connection.jid is not None:
            told = form_told(str(connection.jid), stanza.get("to"), stanza.get("id"), outcome.result())
            self._ground.reply(connection, told)
            connection.link.flush()

    def _answer_failure(self, connection: Connection, stanza: Element, response: Response) -> None:
        to = stanza.get("to") or stanza.get("from")
        is_local = self._ground.service.accounts.serves(to.partition("/")[0].rpartition("@")[2])
        self._ground.reply(connection, mapping.response_to_error(stanza, response, is_local=is_local))

    def refusal(self, connection: Connection, stanza: Element) -> None:
        """A device refuses what it was handed (T3, T8): its answer if it has given none yet, else a report.

        What a later attempt might cure ends no flight: the device would be handed the same again.
        """
        delivery = connection.recall(stanza)
        if delivery is None:
            return
        operation = delivery.operation
        response = mapping.error_to_response(stanza, operation.trans_id, is_secured_object=is_secured(operation.object))
        if response.reason is Reason.CONTENT and connection.features is None:
            connection.refuses_objects = True  # what it does not know once it will not know the next time
        if response.is_temporary or not connection.refuse_flight(delivery.id, response):
            self._ground.service.reject(delivery.id, delivery.contact, response)

    def _throttle(self, connection: Connection) -> None:
        """Above the rate of messages reading pauses; nothing is refused for it (reliability.md section 6.2)."""
        wait = connection.rates.debt_seconds
        if wait > 0 and connection.throttle_timer is None:
            release = partial(self._release, connection)
            connection.throttle_timer = self._ground.service.clock.call_later(wait, release)
        waiting = len(connection.submitting) + len(connection.lane)
        is_over = connection.throttle_timer is not None or waiting >= MAX_SUBMITTING
        if is_over == connection.is_paused or not connection.is_live:
            return
        connection.is_paused = is_over
        if is_over:
            connection.link.pause_reading()
        else:
            connection.link.resume_reading()

    def _release(self, connection: Connection) -> None:
        connection.throttle_timer = None
        connection.rates.refill(self._ground.service.clock.now())
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

"""The way up from another server: every stanza is checked, then means what it means from a client.

Place on the path: steps 3 to 5 for other servers (``submission.py`` has the clients). Rules its readers must keep: no stanza of a
domain that the other side did not prove (D-08), none for a domain that is not ours unless a route lets it pass (D-09), no error for
an error (XMPP-6), and a stanza is counted only when its message is durable.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from comity.bindings.xmpp import mapping, wire
from comity.bindings.xmpp.extensions import DELAY, PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.passing_out import Departures
from comity.bindings.xmpp.submission import dedup_fields
from comity.bindings.xmpp.ways import Way, a_domain
from comity.bindings.xmpp.wire import IQ, MESSAGE, Element
from comity.cpim.address import Address, from_jid
from comity.cpim.message import new_message_id
from comity.cpim.operations import Reason, Response, failure
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Accepted, Origin

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

log = logging.getLogger(__name__)

#: Stanzas of one stream handed up and not yet handled; above it reading pauses.
MOST_PENDING: Final = 128


@dataclass(frozen=True, slots=True)
class _Sent:
    """A message on its way up."""

    way: Way
    stanza: Element
    index: int
    is_silent: bool
    """True for a typing state: no failure of it is ever told."""


class Arrivals:
    """What other servers hand in.

    Args:
        ground: what the parts of the binding stand on.
        neighbours: sends the answers.
        departures: knows what an error stanza is about.
    """

    def __init__(self, ground: Ground, neighbours: Neighbours, departures: Departures) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self._departures = departures
        self.pending: set[asyncio.Future[Accepted | Response]] = set()
        """Submissions not yet answered."""

    def received(self, way: Way, stanza: Element, index: int) -> None:
        """Take a stanza that came by ``way``."""
        way.pending += 1
        if not self._is_addressed(way, stanza):
            return
        done = partial(self._done, way, index)
        if stanza.name == MESSAGE and stanza.get("type") != "error":
            self._message(way, stanza, index)
        elif stanza.name == MESSAGE:
            self._ground.run(self._refused(way, stanza, done))
        elif stanza.name == IQ:
            self._neighbours.inquiries.received(way, stanza, done)
        elif self._ground.presence is None:
            done()
        else:
            self._neighbours.on_presence(stanza, self._origin(way, stanza), done)
        self._throttle(way)

    def _done(self, way: Way, index: int) -> None:
        way.pending -= 1
        way.handled(index)
        self._throttle(way)

    # --- who and whom --------------------------------------------------------------------------------------------------

    def _is_addressed(self, way: Way, stanza: Element) -> bool:
        """Check and prepare ``from`` and ``to`` (RFC 6120 sections 8.1.1.2, 8.1.2.2); what is wrong ends the stream."""
        try:
            sender, to = Jid.parse(stanza.get("from")), Jid.parse(stanza.get("to"))
            source, destination = a_domain(stanza.get("from")), a_domain(stanza.get("to"))
        except AddressError:
            way.end("improper-addressing", "a stanza between servers has a from and a to")
            return False
        accounts, routes = self._ground.service.accounts, self._ground.service.routes
        if accounts.serves(source) or not way.speaks_for(source):
            way.end("invalid-from", "this stream does not speak for that domain")  # D-08
            return False
        may_pass = stanza.name == MESSAGE and routes.may_pass(source, destination)
        if not accounts.serves(destination) and not may_pass:
            way.end("host-unknown", "this domain is not served here")  # D-09
            return False
        stanza.attributes["from"], stanza.attributes["to"] = str(sender), str(to)
        return True

    def _origin(self, way: Way, stanza: Element) -> Origin:
        jid = Jid.parse(stanza.get("from"))
        principal = from_jid(str(jid))[0] if jid.local else Address("im", "", a_domain(str(jid)))
        is_protected = way.session.is_tls
        return Origin(principal, PROTOCOL, way.host, is_protected, dedup_fields(stanza), (), frozenset(way.proved))

    # --- messages ------------------------------------------------------------------------------------------------------

    def _message(self, way: Way, stanza: Element, index: int) -> None:
        clock = self._ground.service.clock
        way.messages.take(clock.now())
        made = mapping.stanza_to_operation(
            stanza,
            when=_said_when(stanza, way, clock.when()),
            trans_id=self._ground.random(12).hex(),
            message_id=new_message_id(self._ground.random(15)),
        )
        if isinstance(made, mapping.Refusal):
            self._reply(wire.error_reply(stanza, made.condition, made.text))
            self._done(way, index)
            return
        operation = replace(made, history=mapping.read_history(stanza), max_forwards=mapping.read_hops(stanza))
        done = self._ground.service.submit(operation, self._origin(way, stanza))
        self.pending.add(done)
        done.add_done_callback(partial(self._submitted, _Sent(way, stanza, index, made.context.transient)))

    def _submitted(self, sent: _Sent, done: asyncio.Future[Accepted | Response]) -> None:
        self.pending.discard(done)
        if done.cancelled() or done.exception() is not None:
            log.error("a message could not be submitted: %r", None if done.cancelled() else done.exception())
            answer: Accepted | Response = failure("", Reason.INTERNAL, "The message could not be taken.")
        else:
            answer = done.result()
        if isinstance(answer, Accepted):
            answer.outcome.cancel()  # what goes wrong later is told by a report, which is stored
        elif not sent.is_silent:
            domain = a_domain(sent.stanza.get("to"))
            is_local = self._ground.service.accounts.serves(domain)
            self._reply(mapping.response_to_error(sent.stanza, answer, is_local=is_local))
        self._done(sent.way, sent.index)

    async def _refused(self, way: Way, error: Element, done: Callable[[], None]) -> None:
        """An error about a message that we sent: its sender is told, once that is durable it counts. Never answered."""
        found = self._departures.refused(error)
        try:
            if found is not None:
                await self._ground.service.told(found[0], frozenset(way.proved), found[1])
        except StoreError as failed:
            log.error("a peer's error could not be taken: %s", failed)
        done()

    def _reply(self, stanza: Element | None) -> None:
        if stanza is not None:
            self._neighbours.send(stanza)

    # --- not too fast ----------------------------------------------------------------------------------------------------

    def _throttle(self, way: Way) -> None:
        """Above the rate of messages, or while much is not yet durable, reading pauses; nothing is refused for it."""
        clock = self._ground.service.clock
        wait = way.messages.debt_seconds
        if wait > 0 and way.timer is None:
            way.timer = clock.call_later(wait, partial(self._release, way))
        is_over = way.timer is not None or way.pending >= MOST_PENDING
        if is_over == way.is_paused or way.session.is_ended:
            return
        way.is_paused = is_over
        if is_over:
            way.link.pause_reading()
        else:
            way.link.resume_reading()

    def _release(self, way: Way) -> None:
        way.timer = None
        way.messages.refill(self._ground.service.clock.now())
        self._throttle(way)


def _said_when(stanza: Element, way: Way, now: datetime) -> datetime:
    """When a message was sent: now, or earlier if its own server says that it kept it (XEP-0203)."""
    for delay in stanza.find_all(f"{{{DELAY}}}delay"):
        try:
            stamp = datetime.fromisoformat(delay.get("stamp"))
            is_proved = way.speaks_for(a_domain(delay.get("from")))
        except (ValueError, AddressError):
            continue
        if is_proved and stamp.tzinfo is not None and stamp < now:
            return stamp.astimezone(UTC)
    return now

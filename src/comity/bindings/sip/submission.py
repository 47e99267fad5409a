"""An authenticated MESSAGE on its way up, of a user of ours or from a peer server, and its answer on the way back.

Place on the path: steps 4 and 5, for ``binding.py``: sender binding (S-06), no relaying (S-46), ``mapping.py``, then
``service.submit``. The answer is 200 once a device has it, 202 if that takes longer than ``answer_wait``.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING

from comity.bindings.base import Link
from comity.bindings.sip.mapping import (
    Refusal,
    envelope_of,
    is_sender,
    request_to_operation,
    response_to_status,
)
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.protection import came_under_tls
from comity.bindings.sip.rates import UserRates
from comity.bindings.sip.reports import REPORTER, WANTS, parse_report, peers_id
from comity.bindings.sip.requests import Request
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address
from comity.cpim.message import new_message_id
from comity.cpim.names import PLAIN, Names
from comity.cpim.operations import Fate, MessageOperation, Report, Response
from comity.service.interfaces import Accepted, Origin, Timer

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

NOBODY: frozenset[str] = frozenset()
SLOW_SECONDS, MOST_SLOW = 30.0, 10_000
PEER_OCTETS = 8 * 1024 * 1024
"""Octets a second of one peer server's domain."""


@dataclass(slots=True)
class Answering:
    """A MESSAGE accepted and not yet answered."""

    received: Request
    outcome: asyncio.Future[Response]
    timer: Timer | None = field(default=None)
    slow: str = ""
    """The recipient of a peer's message, to be remembered if it takes long."""


class Submission:
    """MESSAGE requests from principal to answer."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        config = binding.config
        self._rates = UserRates(config.user_messages, config.user_message_burst, config.user_octets)
        self._peer_rates = UserRates(config.peer_messages, round(4 * config.peer_messages), PEER_OCTETS)
        self._answering: set[tuple[Link, int]] = set()
        """What waits for its answer; each session counts its own requests."""
        self._slow: OrderedDict[str, float] = OrderedDict()
        """Recipients who let a peer's message wait, and until when no other of a peer waits for them: a server sends the
        messages of one conversation one after the other, and has others to send."""

    @property
    def is_busy(self) -> bool:
        """True while an accepted MESSAGE has no answer yet."""
        return bool(self._answering)

    def take(self, received: Request, principal: Address) -> None:
        """Take a MESSAGE of a user of ours."""
        if not is_sender(str(received.request.from_.uri), principal):
            self._binding.respond(received, 403)
            return
        wait = self._rates.take(principal.key, len(received.request.body), self._binding.service.clock.now())
        self._take(received, principal, NOBODY, wait)

    def take_from_peer(self, received: Request, domains: frozenset[str]) -> None:
        """Take a MESSAGE that a server handed in which speaks for ``domains``; the service looks whether its sender is of those."""
        domain = received.request.from_.uri.host if isinstance(received.request.from_.uri, SipUri) else ""
        wait = self._peer_rates.take(domain.lower(), len(received.request.body), self._binding.service.clock.now())
        if wait <= 0.0 and self._binding.trunk.take_report(received, domains, self.take_unknown_report):
            return
        self._take(received, None, domains, wait)

    def take_unknown_report(self, received: Request, domains: frozenset[str]) -> bool:
        """Take a peer's report about a message that another server handed to it, which we gave to that one: routes back may be
        shorter than routes there. False if that peer has no say about its recipient."""
        is_theirs = partial(self._is_theirs, domains)
        if _believed(parse_report(received.request), is_theirs, self._binding.trunk.names(domains)) is None:
            return False
        self._take(received, None, domains, 0.0)
        return True

    def _take(self, received: Request, principal: Address | None, domains: frozenset[str], wait: float) -> None:
        request, service = received.request, self._binding.service
        if not self.is_for_us(received):
            self._binding.respond(received, 403, reason="No Relaying")
            return
        if wait > 0.0:
            headers = [("Retry-After", str(ceil(wait)))]
            self._binding.respond(received, 503, reason="Too Many Messages", headers=headers)
            return
        when = service.clock.when()
        edge = self._binding.trunk.edge(received, domains) if domains else None
        message_id = new_message_id(self._binding.random(12))
        result = request_to_operation(request, when=when, message_id=message_id, edge=edge)
        if isinstance(result, Refusal):
            self._binding.respond(received, result.status_code, reason=result.text, headers=result.headers)
            return
        wire: tuple[Address, ...] = ()
        if edge is not None:
            result = from_peer(result, request, partial(self._is_theirs, domains), edge.names)
            if not edge.names.is_plain:
                called = envelope_of(request, edge)
                wire = called[0], called[2]
        else:
            # A person's own program has no nodes behind it: what it says of a way is not believed (as X-60).
            result = replace(result, history=())
        fingerprint = hashlib.sha256(request.content_type.encode("utf-8", "surrogateescape") + b"\0" + request.body)
        origin = Origin(
            principal or result.source,
            self._binding.name,
            received.source[0],
            came_under_tls(request, received.state.transport),
            ("sip", request.call_id, request.from_.tag, str(request.cseq.number), fingerprint.hexdigest()),
            domains=domains,
            wire=wire,
        )
        self._answering.add((received.state.link, received.id))
        slow = result.destination.key if domains else ""
        began = service.clock.now()
        service.submit(result, origin).add_done_callback(partial(self._submitted, received, began, slow))

    def _is_theirs(self, domains: frozenset[str], domain: str) -> bool:
        return not self._binding.service.accounts.serves(domain) and not domains.isdisjoint((domain, "*"))

    def is_for_us(self, received: Request) -> bool:
        """True unless a Route leads elsewhere (S-46); a client may name us as its outbound proxy in its own way."""
        if not received.request.values("route"):
            return True
        for route in received.request.routes:
            uri = route.uri
            assert isinstance(uri, SipUri), "the session refused others"
            if not self._binding.is_here(uri, received.state) and not self._binding.service.accounts.serves(uri.host):
                return False
        return True

    def _submitted(self, received: Request, began: float, slow: str, done: asyncio.Future[Accepted | Response]) -> None:
        if done.cancelled() or done.exception() is not None:
            log.error("a MESSAGE could not be submitted", exc_info=None if done.cancelled() else done.exception())
            self._answer(received, 500)
            return
        result = done.result()
        if isinstance(result, Response):
            self._answer_with(received, result)
            return
        if result.outcome.done():
            self._ended(Answering(received, result.outcome), result.outcome)
            return
        answering = Answering(received, result.outcome, slow=slow)
        now = self._binding.service.clock.now()
        if slow and self._slow.get(slow, now) > now:
            self._waited(answering)
            return
        left = max(0.0, began + self._binding.config.answer_wait - now)
        answering.timer = self._binding.service.clock.call_later(left, partial(self._waited, answering))
        result.outcome.add_done_callback(partial(self._ended, answering))

    def _waited(self, answering: Answering) -> None:
        """The end is not known in time: 202, and the outcome is given up so that a report follows a failure."""
        answering.timer = None
        if answering.slow:
            self._slow[answering.slow] = self._binding.service.clock.now() + SLOW_SECONDS
            self._slow.move_to_end(answering.slow)
            if len(self._slow) > MOST_SLOW:
                self._slow.popitem(last=False)
        self._answer(answering.received, 202)
        answering.outcome.cancel()

    def _ended(self, answering: Answering, outcome: asyncio.Future[Response]) -> None:
        if answering.timer is not None:
            answering.timer.cancel()
        if outcome.cancelled() or outcome.exception() is not None:
            self._answer(answering.received, 202)
        else:
            self._answer_with(answering.received, outcome.result())

    def _answer_with(self, received: Request, response: Response) -> None:
        status_code, reason, headers = response_to_status(response)
        self._answer(received, status_code, reason=reason, headers=headers)

    def _answer(
        self, received: Request, status_code: int, *, reason: str = "", headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Answer outside ``handle_event``; a second answer is dropped by the session."""
        key = (received.state.link, received.id)
        if key not in self._answering:
            return
        self._answering.discard(key)
        self._binding.respond(received, status_code, reason=reason, headers=headers)
        if self._binding.state_of(received.state.link) is not None:
            received.state.link.flush()


def from_peer(
    operation: MessageOperation, request: SipRequest, is_theirs: Callable[[str], bool], names: Names = PLAIN
) -> MessageOperation:
    """What a peer server says besides the message: what is worth nothing later, that its sender wants a receipt, that it is a
    report; and the message's name there.

    Args:
        is_theirs: whether that server speaks for a domain.
        names: what people are called on its link.
    """
    is_transient = operation.context.transient or request.expires == 0
    context = replace(operation.context, native_id=peers_id(request), transient=is_transient)
    if "receipt" in request.listed(WANTS.lower()):
        context = replace(context, wants_receipt="sip")
    if operation.source.local == REPORTER:
        context = replace(context, report=_believed(parse_report(request), is_theirs, names))
    return replace(operation, context=context)


def _believed(report: Report | None, is_theirs: Callable[[str], bool], names: Names) -> Report | None:
    """A peer's report that names no message which it took over from us (``Trunk.take_report`` has those).

    Programs show a failure as the recipient's own word, so a peer may say it of people it speaks for alone, and choose no
    identifier of our user's messages. What is no failure waits for devices that asked, and would stand before her messages.
    """
    recipient = None if report is None else names.to_core(report.recipient)
    if report is None or recipient is None or report.fate is not Fate.FAILED or not is_theirs(recipient.domain):
        return None
    return replace(report, recipient=recipient, native_id="")

"""Other SIP servers: what they may hand in, and the way out to them.

Place on the path: before step 4 and steps 8 to 9, for ``binding.py``. A peer server is one whose TLS certificate or whose address
proves domains that are not ours (``service.peers``); a MESSAGE from a user of those needs no digest, one in any other name is
refused as it is from everybody (T1, SEC-33). Out, a hop's message goes to the ``[[route]] next_hop``: the object whole first, its
text to a server that does not take it; over one connection that stands, with identifiers that stay the same over every attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from comity.bindings.base import HostPort, Link, Target, Transport
from comity.bindings.sip.events import RequestFailed, RequestTimedOut, ResponseReceived
from comity.bindings.sip.forms import Form
from comity.bindings.sip.mapping import NOT_UNDERSTOOD, TYPE_REFUSED, operation_to_request, status_to_response
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.reports import WANTS, parse_about, parse_report
from comity.bindings.sip.requests import LinkState, Request
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import to_sip_uri
from comity.cpim.delivered import sealed_words
from comity.cpim.entity import is_secured
from comity.cpim.learned import Learned
from comity.cpim.operations import PASSED_ON, Fate, Reason, Requirement, Response, failure, success
from comity.cpim.protection import needs_whole
from comity.errors import DeliveryError, LocalProtocolError, StoreError
from comity.service.interfaces import Delivery

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

NOT_WHOLE = "The next server cannot take the message with the protection it requires."
PORTS = {"tls": 5061, "tcp": 5060, "udp": 5060}
NOBODY: frozenset[str] = frozenset()
MOST_TELLING = 256
"""Reports of peers being stored at once; while the disk is full none of them ends."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One delivery to a next hop under way."""

    delivery: Delivery
    future: asyncio.Future[Response]
    transport: Transport
    form: Form = Form.OBJECT
    is_second: bool = False
    """True once the text was offered instead of the object."""

    def settle(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, reason: Reason, text: str) -> None:
        self.settle(failure(self.delivery.operation.trans_id, reason, text))


class Trunk:
    """Peer servers by SIP, both ways."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._pending: dict[tuple[Link, str], Attempt] = {}
        """By link and client transaction."""
        self._waiting = 0
        """Deliveries that wait for a look-up or a connection."""
        self._telling = 0
        """Reports of peers that wait until they are durable."""
        self.learned = Learned()
        """What was refused, by hop and recipient: another recipient there may have a better program."""
        self._proved = lru_cache(maxsize=4096)(self._prove_address)

    @property
    def is_busy(self) -> bool:
        """True while a delivery has no end yet."""
        return bool(self._pending or self._waiting)

    # --- in ----------------------------------------------------------------------------------------------

    def domains(self, received: Request) -> frozenset[str]:
        """Domains that who sent a request proved to speak for; empty for everybody who is no peer server."""
        state = received.state
        if state.transport == "udp":
            return self._proved(received.source[0])
        if state.domains is None:
            tls = state.link.peer.tls
            names = () if tls is None else tls.names
            state.domains = self._binding.service.peers.proved(received.source[0], names)
        return state.domains

    def _prove_address(self, host: str) -> frozenset[str]:
        return self._binding.service.peers.proved(host, ())

    def takes(self, received: Request) -> frozenset[str]:
        """The domains for which a peer server hands in this MESSAGE; empty: it is to prove its sender as everybody does.

        What is in the name of a user of ours is a peer's only if it comes back from there: then it is told that it loops.
        """
        domains = self.domains(received)
        if not domains:
            return NOBODY
        uri, service = received.request.from_.uri, self._binding.service
        if not isinstance(uri, SipUri):
            return NOBODY
        if service.accounts.serves(uri.host):
            came_back = any(value.startswith(f"{service.node};") for value in received.request.values("comity-history"))
            return domains if came_back else NOBODY
        if uri.host.lower() not in domains and "*" not in domains:
            return NOBODY
        state = received.state
        state.session.prove(received.source, service.clock.now())
        if state.transport != "udp":
            state.link.authenticated()
        return domains

    def take_report(self, received: Request, domains: frozenset[str]) -> bool:
        """Take a peer's word about a message that it took over from us; False if the request is none."""
        about, report = parse_about(received.request), parse_report(received.request)
        if not about or report is None:
            return False
        if report.fate is Fate.FAILED:
            response = failure("", report.reason, report.text)
        elif report.fate is Fate.DELIVERED:
            response = success("", report.form, report.at)
        else:
            return False
        if self._telling >= MOST_TELLING:
            self._binding.respond(received, 503, headers=[("Retry-After", "5")])
            return True
        self._telling += 1
        self._binding.run(self._tell(received, domains, about, response))
        return True

    async def _tell(self, received: Request, domains: frozenset[str], about: str, response: Response) -> None:
        try:
            is_told = await self._binding.service.told(about, domains, response)
            self._binding.respond(received, 200 if is_told else 481)
        except StoreError as error:
            log.error("a peer's report could not be taken: %s", error)
            self._binding.respond(received, 503, headers=[("Retry-After", "30")])
        finally:
            self._telling -= 1
        received.state.link.flush()

    # --- out ---------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Hand a message to the next hop (see ``Binding.deliver``)."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        transport, host, port = next_hop(delivery.contact.data.decode())
        attempt = Attempt(delivery, future, transport)
        if not self._binding.is_started:
            attempt.fail(Reason.TIMEOUT, "The server is starting.")
            return future
        if delivery.operation.context.transient:
            attempt.form = Form.NATIVE  # what only this protocol's way of saying so keeps from being stored there
        if (refusal := self._refusal(attempt)) is not None:
            attempt.settle(refusal)
            return future
        target = literal_target(transport, host, port, delivery.contact.resource)
        if target is not None:
            self._go(attempt, target)
        else:
            self._waiting += 1
            self._binding.run(self._look_up(attempt, host, port))
        return future

    def _refusal(self, attempt: Attempt) -> Response | None:
        """What is known before anything is sent; an object that this recipient's side refused before becomes its text here."""
        operation, now = attempt.delivery.operation, self._binding.service.clock.now()
        if operation.context.sealed:
            return failure(operation.trans_id, Reason.CONTENT, sealed_words(operation.context.sealed))
        key = attempt.delivery.contact.id, operation.destination.key
        if attempt.form is not Form.OBJECT or not self.learned.refuses(key, operation.object.media_type, now):
            return None
        if needs_whole(operation.requirements):
            return failure(operation.trans_id, Reason.PROTECTION, NOT_WHOLE)
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(operation.object) else Form.TEXT
        return None

    async def _look_up(self, attempt: Attempt, host: str, port: int) -> None:
        """Find the address of a next hop named by the operator, who may name any (U-08)."""
        try:
            targets = await self._binding.network.resolve("sip", host, port, attempt.transport, is_trusted=True)
            self._go(attempt, targets[0])
        except DeliveryError as error:
            log.info("no address of a next hop: %s", error)
            attempt.fail(Reason.TIMEOUT, "The next server cannot be found now.")
        except Exception:  # whatever it was, the message must not wait for ever
            log.exception("a message could not be sent to a next hop")
            attempt.fail(Reason.INTERNAL, "The message could not be sent to the next server.")
        finally:
            self._waiting -= 1

    def _go(self, attempt: Attempt, target: Target) -> None:
        request = self._request(attempt)
        if request is None:
            attempt.fail(Reason.CONTENT, "The next server cannot take this kind of message.")
            return
        if target.transport == "udp":
            link = self._binding.network.datagram_link(self._binding)
            state = None if link is None else self._binding.state_of(link)
            if state is None:
                attempt.fail(Reason.TIMEOUT, "There is no UDP socket to send from.")
                return
            if not state.session.is_too_large(request):
                self._send(attempt, request, target, (target.host, target.port), state)
                return
            target = replace(target, transport="tcp")  # RFC 3428 section 8: never over UDP
        self._waiting += 1
        self._binding.connections.reach(target, partial(self._reached, attempt, request, target))

    def _request(self, attempt: Attempt) -> SipRequest | None:
        delivery, config = attempt.delivery, self._binding.config
        operation = delivery.operation
        request = operation_to_request(
            operation,
            attempt.form,
            target=to_sip_uri(operation.destination),
            tag=delivery.id,
            call_id=f"{delivery.id}@{config.domains[0]}",
            accepted=delivery.accepted,
            max_forwards=config.max_forwards,
            receipt_id=delivery.id,
        )
        if request is None:
            return None
        headers = [*request.headers, *_wishes(delivery)]
        return SipRequest(request.method, request.uri_text, headers, request.body)

    def _reached(self, attempt: Attempt, request: SipRequest, target: Target, state: LinkState | None) -> None:
        self._waiting -= 1
        self._send(attempt, request, target, None, state)

    def _send(
        self, attempt: Attempt, request: SipRequest, target: Target, address: HostPort | None, state: LinkState | None
    ) -> None:
        if state is None:
            attempt.fail(Reason.TIMEOUT, "The next server cannot be reached.")
            return
        if Requirement.TLS in attempt.delivery.operation.requirements and state.transport != "tls":
            attempt.fail(Reason.PROTECTION, "The next server cannot be reached under TLS.")
            return
        try:
            id = state.session.send_request(request, self._binding.service.clock.now(), address)
        except LocalProtocolError as error:
            log.warning("a MESSAGE could not be sent to %s: %s", target.host, error)
            reason = Reason.TIMEOUT if state.session.is_closed else Reason.CONTENT
            attempt.fail(reason, "The message could not be sent to the next server.")
            return
        self._pending[state.link, id] = attempt
        state.link.flush()

    # --- answers -----------------------------------------------------------------------------------------

    def take_event(self, link: Link, event: object) -> bool:
        """Take an event about a request of ours; False if it is not about one to a next hop."""
        if not isinstance(event, ResponseReceived | RequestTimedOut | RequestFailed):
            return False
        key = link, event.id
        if key not in self._pending:
            return False
        if isinstance(event, ResponseReceived):
            if event.response.status_code >= 200:
                self._answered(link, self._pending.pop(key), event)
            return True
        attempt = self._pending.pop(key)
        if isinstance(event, RequestTimedOut):
            attempt.fail(Reason.TIMEOUT, "The next server did not answer.")
            if link.peer.transport != "udp":
                link.abort()  # half open, or as good as: the next attempt opens another
        else:
            attempt.fail(Reason.TIMEOUT, "The connection to the next server was lost.")
        return True

    def _answered(self, link: Link, attempt: Attempt, event: ResponseReceived) -> None:
        self._binding.connections.rest(link)
        operation, code = attempt.delivery.operation, event.response.status_code
        if code in TYPE_REFUSED and attempt.form is Form.OBJECT:
            key, accepts = (attempt.delivery.contact.id, operation.destination.key), event.response.listed("accept")
            self.learned.refused(key, operation.object.media_type, self._binding.service.clock.now(), accepts)
        if code in NOT_UNDERSTOOD and self._try_text(attempt):
            return
        if code in NOT_UNDERSTOOD and operation.requirements:
            attempt.fail(Reason.PROTECTION, NOT_WHOLE)
        elif code == 202:
            # "Accepted": what becomes of it only that server can say (RFC 3428 section 7).
            attempt.settle(success(operation.trans_id, PASSED_ON))
        elif code == 408:
            attempt.fail(Reason.AWAY, "The recipient's device did not answer.")  # its server did: no trouble with that
        else:
            attempt.settle(status_to_response(operation.trans_id, event.response, attempt.form, is_server=True))

    def _try_text(self, attempt: Attempt) -> bool:
        """Send the text of an object that the next server did not take; False if that cannot be."""
        operation = attempt.delivery.operation
        if attempt.is_second or attempt.form is not Form.OBJECT or needs_whole(operation.requirements):
            return False
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(operation.object) else Form.TEXT
        if self._request(attempt) is None:
            return False
        transport, host, port = next_hop(attempt.delivery.contact.data.decode())
        target = literal_target(transport, host, port, attempt.delivery.contact.resource)
        if target is not None:
            self._go(attempt, target)
        else:
            self._waiting += 1
            self._binding.run(self._look_up(attempt, host, port))
        return True


def _wishes(delivery: Delivery) -> Sequence[tuple[str, str]]:
    """What a server of ours reads and others need not know of."""
    context = delivery.operation.context
    headers: list[tuple[str, str]] = []
    if context.wants_receipt and context.report is None:
        headers.append((WANTS, "receipt"))
    if context.transient and context.lifetime is None:
        headers.append(("Expires", "0"))
    return headers


@lru_cache(maxsize=256)
def next_hop(url: str) -> tuple[Transport, str, int]:
    """Transport, host and port of a ``[[route]] next_hop``, which the configuration checked."""
    parts = urlsplit(url)
    transports: dict[str, Transport] = {"udp": "udp", "tcp": "tcp", "tls": "tls"}
    return transports[parts.scheme], parts.hostname or "", parts.port or PORTS[parts.scheme]


@lru_cache(maxsize=4096)
def literal_target(transport: Transport, host: str, port: int, domain: str) -> Target | None:
    """Where a next hop given as an address is; None if its name has to be looked up. Its certificate must name the domain
    then (RFC 5922 section 7.1); else the name the operator wrote."""
    try:
        ip_address(host)
    except ValueError:
        return None
    return Target(transport, host, port, domain if transport == "tls" else "")

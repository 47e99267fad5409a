"""Other SIP servers: what they may hand in, and the way out to them.

Place on the path: before step 4 and steps 8 to 9, for ``binding.py``. A peer server is one whose TLS certificate or whose address
proves domains that are not ours (``service.peers``); a MESSAGE from a user of those needs no digest, one in any other name is
refused as it is from everybody (T1, SEC-33). Out, a hop's message goes to the next hop by ``exchange.py``: the object whole first,
its text to a server that does not take it; with identifiers that stay the same over every attempt. Where people are called otherwise
on a link, names are turned here (``cpim/names.py``).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from comity.bindings.sip.exchange import Ended
from comity.bindings.sip.forms import Form
from comity.bindings.sip.headers import NameAddr
from comity.bindings.sip.mapping import (
    NOT_UNDERSTOOD,
    TYPE_REFUSED,
    Edge,
    address_of,
    operation_to_request,
    status_to_response,
)
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.reports import WANTS, parse_about, parse_report
from comity.bindings.sip.requests import Request
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.delivered import sealed_words
from comity.cpim.entity import is_secured
from comity.cpim.learned import Learned
from comity.cpim.names import Names
from comity.cpim.operations import (
    PASSED_ON,
    Fate,
    MessageOperation,
    Reason,
    Requirement,
    Response,
    failure,
    success,
    unsent,
)
from comity.cpim.protection import needs_whole
from comity.errors import AddressError, ComityError, StoreError
from comity.service.interfaces import Delivery

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

NOT_WHOLE = "The next server cannot take the message with the protection it requires."
NOBODY: frozenset[str] = frozenset()
MOST_TELLING = 256
"""Reports of peers being stored at once; while the disk is full none of them ends."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One delivery to a next hop under way."""

    delivery: Delivery
    operation: MessageOperation
    """As the link calls people."""
    future: asyncio.Future[Response]
    form: Form = Form.OBJECT
    is_second: bool = False
    """True once the text was offered instead of the object."""

    def settle(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, reason: Reason, text: str) -> None:
        self.settle(failure(self.operation.trans_id, reason, text))


Otherwise = Callable[[Request, frozenset[str]], bool]


class Trunk:
    """Peer servers by SIP, both ways."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._telling = 0
        """Reports of peers that wait until they are durable."""
        self.learned = Learned()
        """What was refused, by hop and recipient."""
        self._proved = lru_cache(maxsize=4096)(self._prove)

    # --- in ----------------------------------------------------------------------------------------------

    def domains(self, received: Request) -> frozenset[str]:
        """Domains that who sent a request proved to speak for, as the core calls them; empty for everybody who is no peer server."""
        state = received.state
        if state.transport == "udp":
            return self._proved(received.source[0], ())
        if state.domains is None:
            state.domains = self._proved(received.source[0], _certified(received))
        return state.domains

    def _prove(self, host: str, names: tuple[str, ...]) -> frozenset[str]:
        service = self._binding.service
        proved = service.peers.proved(host, names)
        return service.maps.of("sip", proved).proved(proved)

    def names(self, domains: frozenset[str]) -> Names:
        """What people are called on a link whose other end proved to speak for ``domains``."""
        return self._binding.service.maps.of("sip", domains)

    def edge(self, received: Request, domains: frozenset[str]) -> Edge:
        """How to read the envelope of a peer server's request."""
        return Edge(self.names(domains), self._asserted(received), self._registered(received, domains))

    def _asserted(self, received: Request) -> str:
        """Who the sender is by a server that is believed to know (RFC 3325 section 9.1), "" where From says it (S-55)."""
        values = received.request.values("p-asserted-identity")
        if not values or not self._binding.service.peers.asserts(received.source[0], _certified(received)):
            return ""
        try:
            found = [
                NameAddr.parse(part, "P-Asserted-Identity").uri
                for part in received.request.listed("p-asserted-identity")
            ]
        except ComityError:
            return ""
        return next((str(uri) for uri in found if isinstance(uri, SipUri)), "")

    def _registered(self, received: Request, domains: frozenset[str]) -> Address | None:
        """Whom a Request-URI means that is a Contact of ours, registered at that server."""
        uri = received.request.uri
        if not isinstance(uri, SipUri) or not self._binding.is_here(uri, received.state):
            return None
        return self._binding.keeper.registered(domains, uri.user_text)

    def _sender(self, received: Request, domains: frozenset[str]) -> Address | None:
        """In whose name a peer server asks, as the core calls them; None: in nobody's that has a name on its link."""
        try:
            text = self._asserted(received) or str(received.request.from_.uri)
            return self.names(domains).to_core(address_of(text)[0].with_scheme("im"))
        except ComityError:
            return None

    def takes(self, received: Request) -> frozenset[str]:
        """The domains for which a peer server hands in this MESSAGE; empty: it is to prove its sender as everybody does.

        What is in the name of a user of ours is a peer's only if it comes back from there: then it is told that it loops.
        """
        domains = self.domains(received)
        if not domains or received.request.from_.uri.scheme not in ("sip", "sips"):
            return NOBODY
        sender = self._sender(received, domains)
        if sender is None:
            return NOBODY
        service = self._binding.service
        if service.accounts.serves(sender.domain):
            return domains if self._has_been_here(received) else NOBODY
        if domains.isdisjoint((sender.domain, "*")):
            return NOBODY
        self.believe(received)
        return domains

    def _has_been_here(self, received: Request) -> bool:
        """A message of a user of ours that went around: by its history, or by its octets where a hop dropped that (G-17)."""
        service = self._binding.service
        if any(value.startswith(f"{service.node};") for value in received.request.values("comity-history")):
            return True
        return service.has_left(hashlib.sha256(received.request.body).hexdigest())

    def sender(self, received: Request) -> Address | None:
        """The user of a peer server's in whose name that server asks; None: who asks is to prove itself as everybody does."""
        domains = self.domains(received)
        sender = self._sender(received, domains) if domains else None
        if sender is None or self._binding.service.accounts.serves(sender.domain):
            return None
        if domains.isdisjoint((sender.domain, "*")):
            return None
        self.believe(received)
        return sender

    def target(self, received: Request) -> Address | None:
        """Whom the Request-URI of a peer server's request means, where that is not what it says."""
        edge = self.edge(received, self.domains(received))
        if edge.names.is_plain and edge.destination is None:
            return None
        try:
            return edge.names.to_core(edge.destination or address_of(received.request.uri_text)[0].with_scheme("im"))
        except AddressError:
            return None

    def believe(self, received: Request) -> None:
        """Who sent it is no stranger."""
        state = received.state
        state.session.prove(received.source, self._binding.service.clock.now())
        if state.transport != "udp":
            state.link.authenticated()

    def take_report(self, received: Request, domains: frozenset[str], otherwise: Otherwise) -> bool:
        """Take a peer's word about a message that it took over from us; False if the request is none.

        ``otherwise`` is asked to take what names no message of ours, and says whether it did."""
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
        self._binding.run(self._tell(received, domains, about, response, otherwise))
        return True

    async def _tell(
        self, received: Request, domains: frozenset[str], about: str, response: Response, otherwise: Otherwise
    ) -> None:
        try:
            is_told = await self._binding.service.told(about, domains, response)
            if not is_told and otherwise(received, domains):
                return  # it names a message of a server between: its sender hears it all the same
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
        attempt = Attempt(delivery, delivery.operation, future)
        if not self._binding.is_started:
            attempt.fail(Reason.TIMEOUT, "The server is starting.")
            return future
        names = self._binding.service.maps.towards("sip", delivery.contact.resource)
        operation = names.operation_to_wire(delivery.operation)
        if operation is None:
            attempt.fail(Reason.NO_SUCH_USER, "The sender or the recipient has no name at the next server.")
            return future
        attempt.operation = operation
        if operation.context.transient:
            attempt.form = Form.NATIVE  # what only this protocol's way of saying so keeps from being stored there
        if (refusal := self._refusal(attempt)) is not None:
            attempt.settle(refusal)
        else:
            self._send(attempt)
        return future

    def _refusal(self, attempt: Attempt) -> Response | None:
        """What is known before anything is sent; an object that this recipient's side refused before becomes its text here."""
        operation, now = attempt.operation, self._binding.service.clock.now()
        if operation.context.sealed:
            return failure(operation.trans_id, Reason.CONTENT, sealed_words(operation.context.sealed))
        if attempt.form is not Form.OBJECT or not self.learned.refuses(_key(attempt), operation.object.media_type, now):
            return None
        if needs_whole(operation.requirements):
            return failure(operation.trans_id, Reason.PROTECTION, NOT_WHOLE)
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(operation.object) else Form.TEXT
        return None

    def _send(self, attempt: Attempt) -> None:
        request = self._request(attempt)
        if request is None:
            attempt.fail(Reason.CONTENT, "The next server cannot take this kind of message.")
            return
        contact = attempt.delivery.contact
        self._binding.exchanges.send(
            *(contact.resource, contact.data.decode(), request, partial(self._ended, attempt)),
            needs_tls=Requirement.TLS in attempt.operation.requirements,
        )

    def _request(self, attempt: Attempt) -> SipRequest | None:
        delivery, config, operation = attempt.delivery, self._binding.config, attempt.operation
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

    def _ended(self, attempt: Attempt, ended: Ended) -> None:
        operation, response = attempt.operation, ended.response
        if response is None:
            self._unanswered(attempt, ended)
            return
        code = response.status_code
        if code in TYPE_REFUSED and attempt.form is Form.OBJECT:
            now, accepts = self._binding.service.clock.now(), response.listed("accept")
            self.learned.refused(_key(attempt), operation.object.media_type, now, accepts)
        if code in NOT_UNDERSTOOD and self._try_text(attempt):
            return
        is_protected = ended.state is not None and ended.state.transport == "tls"
        if code in NOT_UNDERSTOOD and operation.requirements:
            attempt.fail(Reason.PROTECTION, NOT_WHOLE)
        elif code == 202:
            # "Accepted": what becomes of it only that server can say (RFC 3428 section 7).
            attempt.settle(replace(success(operation.trans_id, PASSED_ON), is_protected=is_protected))
        elif code == 408:
            attempt.fail(Reason.AWAY, "The recipient's device did not answer.")  # its server did: no trouble with that
        else:
            said = status_to_response(operation.trans_id, response, attempt.form, is_server=True)
            attempt.settle(replace(said, is_protected=is_protected))

    def _unanswered(self, attempt: Attempt, ended: Ended) -> None:
        is_bare = Requirement.TLS in attempt.operation.requirements
        if ended.is_unfit:
            attempt.fail(Reason.PROTECTION if is_bare else Reason.CONTENT, ended.text)
        elif ended.is_unsent:
            reason = Reason.NO_ROUTE if ended.is_no_route else Reason.TIMEOUT
            attempt.settle(unsent(attempt.operation.trans_id, ended.text, reason))
        else:
            attempt.fail(Reason.TIMEOUT, ended.text)

    def _try_text(self, attempt: Attempt) -> bool:
        """Send the text of an object that the next server did not take; False if that cannot be."""
        operation = attempt.operation
        if attempt.is_second or attempt.form is not Form.OBJECT or needs_whole(operation.requirements):
            return False
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(operation.object) else Form.TEXT
        if self._request(attempt) is None:
            return False
        self._send(attempt)
        return True


def _key(attempt: Attempt) -> tuple[str, str]:
    """Of whom it is remembered what was refused: another recipient behind the same hop may have a better program."""
    return attempt.delivery.contact.id, attempt.delivery.operation.destination.key


def _certified(received: Request) -> tuple[str, ...]:
    """dNSName entries of the certificate that the other end of a request's link showed."""
    tls = None if received.state.transport != "tls" else received.state.link.peer.tls
    return () if tls is None else tls.names


def _wishes(delivery: Delivery) -> Sequence[tuple[str, str]]:
    """What a server of ours reads and others need not know of."""
    context = delivery.operation.context
    headers: list[tuple[str, str]] = []
    if context.wants_receipt and context.report is None:
        headers.append((WANTS, "receipt"))
    if context.transient and context.lifetime is None:
        headers.append(("Expires", "0"))
    return headers

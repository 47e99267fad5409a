"""Data from and to well-known endpoints: ``apex=presence@DOMAIN`` and the like, here and elsewhere (RFC 3340 section 6).

Place on the path: steps 3 and 9, beside ``submission.py`` and ``delivery.py``, which have the data between people. It is passed on
at once or not at all (section 1.1: "best-effort"), kept nowhere, and every queue has an end. Four ways lead through here: to our
services, each originator's requests one after the other; from our services (``say``); to another domain's services and from
them; and reports about messages we handed to another relay for senders who do not speak APEX, which the service tells on.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from comity.bindings.apex.elements import (
    Content,
    Data,
    DataHopping,
    Destination,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    Reply,
    ServiceElement,
    StatusResponse,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.interfaces import Relay, WellKnown
from comity.bindings.apex.mesh import Mesh
from comity.bindings.apex.neighbour import Answer, Sending
from comity.bindings.apex.options import (
    DATA_HOPPING,
    HISTORY,
    Asked,
    history_option,
    not_understood,
    read_options,
    status_of,
    understands,
)
from comity.bindings.apex.own_ids import fingerprints_of
from comity.bindings.apex.reasons import error_to_response
from comity.bindings.apex.report import NAME as REPORT
from comity.bindings.apex.service_wire import read_service, write_service
from comity.bindings.apex.wire import write_option_content
from comity.cpim.address import Address
from comity.cpim.delivered import read_words
from comity.cpim.operations import INITIAL_MAX_FORWARDS, HistoryEntry, Response, indeterminant, success
from comity.errors import AddressError, RemoteProtocolError
from comity.service.interfaces import Contact, Origin

log = logging.getLogger(__name__)

PROTOCOL = "apex"
MOST_OF_ONE = 64
"""Requests of one originator that wait for their turn."""
MOST_REQUESTS = 4096
"""Requests of everybody that wait."""
MOST_BEFORE = 256
"""Data that may wait for one relay before service data to it is dropped."""
BUSY = Error(450, "There is too much to do; try again later.")

WriteHere = Callable[[Endpoint, Data], "asyncio.Future[Answer] | None"]
"""Sends data to the application attached as exactly that endpoint; None if nobody is."""


@dataclass(frozen=True, slots=True)
class _Request:
    """One element for one of our services."""

    originator: Endpoint
    domain: str
    element: ServiceElement | Part
    origin: Origin
    options: tuple[Option, ...]


class ServiceData:
    """The way of service data through this relay.

    Args:
        relay: what our services are given.
        services: ours, by name.
        mesh: sessions with other relays.
        write_here: hands data to an application.
        new_trans_id: makes an unpredictable transID.
    """

    def __init__(
        self,
        relay: Relay,
        services: Mapping[str, WellKnown],
        mesh: Mesh,
        write_here: WriteHere,
        new_trans_id: Callable[[], int],
    ) -> None:
        self._relay = relay
        self._services = services
        self._mesh = mesh
        self._write_here = write_here
        self._new_trans_id = new_trans_id
        self._queues: dict[tuple[str, Endpoint], deque[_Request]] = {}
        """What is to be handled after the request under way, by service and originator."""
        self._requests = 0
        self._tasks: set[asyncio.Task[None]] = set()

    # --- in --------------------------------------------------------------------------------------------------------

    def take(self, data: Data, origin: Origin) -> Ok | Error:
        """Take data whose originator or one of whose recipients is a well-known endpoint.

        Whether ``origin`` may speak for the originator was checked. ``ok`` if it went on to one recipient at least."""
        asked = read_options(data.options)
        if isinstance(asked, Error):
            return asked
        refused = not_understood(data.options, "data", is_final=False)
        refused = refused or not_understood(data.originator.options, "originator", is_final=False)
        if refused is not None:
            return refused
        errors = [self._take_one(data, recipient, asked, origin) for recipient in data.recipients]
        return Ok() if None in errors else next(error for error in errors if error is not None)

    def _take_one(self, data: Data, recipient: Recipient, asked: Asked, origin: Origin) -> Error | None:
        identity = recipient.identity
        is_ours = self._relay.service.accounts.serves(identity.domain)
        if (refused := not_understood(recipient.options, "recipient", is_final=is_ours)) is not None:
            return refused
        if not is_ours:
            return self._pass_on(data, recipient, asked, origin)
        if identity.is_service:
            return self._to_service(data, recipient, origin)
        if not data.originator.identity.is_service:
            return Error(501, "A data for a service and for people at once is not taken.")
        return self._to_endpoint(data, recipient, origin)

    # --- to our services -------------------------------------------------------------------------------------------

    def _to_service(self, data: Data, recipient: Recipient, origin: Origin) -> Error | None:
        service = self._services.get(recipient.identity.service_name)
        if service is None or recipient.identity.subaddress:
            return Error(550, "There is no such service here.")
        element = _content(data.content, service)
        if isinstance(element, Error):
            return element
        options = (*data.options, *recipient.options)
        for option in options:
            if option.must_understand and not (understands(option, "data") or service.understands(option)):
                return Error(504, f"The option {option.name[:128]} is not understood here.")
        try:
            status = status_of(options)
        except RemoteProtocolError as error:
            return Error(501, error.reason)
        originator, domain = data.originator.identity, recipient.identity.domain
        request = _Request(originator, domain, element, origin, tuple(o for o in options if o.target_hop != "this"))
        if not self._queue(service, request):
            return BUSY
        if status and not isinstance(element, StatusResponse):
            self._report(domain, originator, status, recipient.identity, 250)
        return None

    def _queue(self, service: WellKnown, request: _Request) -> bool:
        """Hand it to the service after what the same originator asked before; False if there is too much."""
        key = service.name, request.originator
        queue = self._queues.get(key)
        if self._requests >= MOST_REQUESTS or (queue is not None and len(queue) >= MOST_OF_ONE):
            return False
        self._requests += 1
        if queue is not None:
            queue.append(request)
        else:
            self._queues[key] = deque([request])
            self._run(self._handle(service, key))
        return True

    async def _handle(self, service: WellKnown, key: tuple[str, Endpoint]) -> None:
        queue = self._queues[key]
        try:
            while queue:
                request = queue.popleft()
                self._requests -= 1
                await service.handle(
                    request.originator, request.domain, request.element, request.origin, request.options
                )
        finally:
            self._requests -= len(queue)
            del self._queues[key]

    # --- to applications here ----------------------------------------------------------------------------------------

    def _to_endpoint(self, data: Data, recipient: Recipient, origin: Origin) -> Error | None:
        """From a service to an application; a report may be about a message that came by another protocol."""
        if not self._may_send(data.originator.identity, recipient.identity):
            return Error(550, "There is no such user here.")
        if data.originator.identity.service_name == REPORT:
            return self._take_report(data, recipient, origin)
        self._write(data, recipient)
        return None

    def _take_report(self, data: Data, recipient: Recipient, origin: Origin) -> Error | None:
        try:
            element = read_service(data.content)
        except WireError as error:
            return Error(error.code or 500, error.reason)
        if not isinstance(element, StatusResponse):
            self._write(data, recipient)
        elif len(self._tasks) >= MOST_REQUESTS:
            return BUSY
        else:
            self._run(self._settle(element, data, recipient, origin))
        return None

    def _may_send(self, originator: Endpoint, recipient: Endpoint) -> bool:
        """Step 5.3 of RFC 3340 section 4.4.4.1: the recipient's access entries let that service write to it."""
        presence = self._relay.service.presence
        if presence is None or self._relay.service.accounts.serves(originator.domain):
            return True
        owner, actor = (Address("im", one.address, one.domain) for one in (recipient, originator))
        names = {"resource": recipient.subaddress, "actor_resource": originator.subaddress}
        return presence.rights.may_send(owner, actor, **names)

    async def _settle(self, element: StatusResponse, data: Data, recipient: Recipient, origin: Origin) -> None:
        """Tell a sender of another protocol, if one of these asked nothing himself and we asked for him; else pass it on."""
        is_settled = False
        for destination in element.destinations:
            try:
                sender, about = recipient.identity.to_address(), destination.identity.to_address()
            except AddressError:
                continue
            if not self._may_report(data.originator.identity.domain, about.domain, origin):
                continue
            response = _response(destination.reply)
            prefixes = fingerprints_of(element.trans_id)
            is_settled |= await self._relay.service.settle(prefixes, sender, about, response)
        if not is_settled:
            self._write(data, recipient)

    def _may_report(self, reporter: str, domain: str, origin: Origin) -> bool:
        """Whoever else got the same object knows its fingerprint too: what became of a message is told by its recipient's
        domain, by who may speak for that, or by the relay that we hand messages for it to."""
        if reporter == domain or (domain and origin.speaks_for(domain)):
            return True
        ours, theirs = self._relay.service.routes.hop(domain), self._relay.service.routes.hop(reporter)
        return ours is not None and theirs is not None and ours.data == theirs.data != b""

    def _write(self, data: Data, recipient: Recipient) -> None:
        # Nobody there: dropped, which is what RFC 3340 section 4.4.4.1 and RFC 3342 section 3 say of data.
        self._write_here(recipient.identity, _for_one(data, recipient, data.options))

    # --- to other domains --------------------------------------------------------------------------------------------

    def _pass_on(self, data: Data, recipient: Recipient, asked: Asked, origin: Origin) -> Error | None:
        service, source, domain = self._relay.service, data.originator.identity.domain, recipient.identity.domain
        if origin.domains and data.originator.identity.service_name == REPORT and self._hop(domain) is None:
            # About what passed through here from another protocol: its sender's server is told in that one.
            return self._take_report(data, recipient, origin)
        if origin.domains and not service.routes.may_pass(source, domain):
            return Error(553, "That domain is not served here.")
        hop = self._hop(domain)
        if hop is None:
            return Error(553, "That domain cannot be reached from here.")
        left = (asked.hopping.no_more_than or INITIAL_MAX_FORWARDS + 1) - 1
        if left <= 0 or any(entry.node == service.node for entry in asked.history):
            if not asked.hopping.report_errors:
                return Error(550, "The data made too many hops.")
            self._report(service.node, data.originator.identity, asked.hopping_id, recipient.identity, 550)
            return None
        options = self._onward(data.options, asked, left)
        if not self._go(hop, Sending.of(_for_one(data, recipient, options))):
            return BUSY
        return None

    def _onward(self, options: Sequence[Option], asked: Asked, left: int) -> tuple[Option, ...]:
        """The options for the next relay: one hop less, our node in the history, so that a loop ends (GW-8, T2)."""
        kept = [o for o in options if o.internal != DATA_HOPPING and o.external != HISTORY]
        hopping = next((o for o in options if o.internal == DATA_HOPPING), None)
        if hopping is None:
            hopping = Option(DATA_HOPPING, "", "all", must_understand=True, trans_id=self._new_trans_id())
        content = write_option_content(DataHopping(left, asked.hopping.report_errors))
        service = self._relay.service
        entry = HistoryEntry(service.node, PROTOCOL, PROTOCOL, service.clock.when())  # its links are not looked at
        history = history_option((*asked.history, entry), self._new_trans_id())
        return (*kept, replace(hopping, content=content), history)

    def _hop(self, domain: str) -> Contact | None:
        hop = self._relay.service.routes.hop(domain)
        return hop if hop is not None and hop.binding in (PROTOCOL, "dns") else None  # "dns": its relay's records say

    def _go(self, hop: Contact, sending: Sending) -> bool:
        next_hop = hop.data.decode("utf-8")
        if self._mesh.backlog(hop.resource, next_hop) >= MOST_BEFORE:
            return False
        self._mesh.send(sending, hop.resource, next_hop)
        return True

    # --- out: what our services say ----------------------------------------------------------------------------------

    def say(
        self, name: str, domain: str, to: Endpoint, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> asyncio.Future[bool]:
        """See ``Relay.say``."""
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        content: Content = element if isinstance(element, Part) else Inline(write_service(element))
        originator = Originator(Endpoint.service(name, domain))
        answer: asyncio.Future[Answer] | None = None
        if self._relay.service.accounts.serves(to.domain):
            answer = self._write_here(to, Data(originator, (Recipient(to),), content, tuple(options)))
        else:
            hop = self._hop(to.domain)
            onward = self._onward(options, Asked(), INITIAL_MAX_FORWARDS)
            sending = Sending.of(Data(originator, (Recipient(to),), content, onward))
            if hop is not None and self._go(hop, sending):
                answer = sending.answer
        if answer is None:
            told.set_result(False)
        else:
            answer.add_done_callback(partial(_tell, told))
            told.add_done_callback(partial(_take_back, answer))
        return told

    def _report(self, domain: str, to: Endpoint, trans_id: int, about: Endpoint, code: int) -> None:
        self.say(REPORT, domain, to, StatusResponse(trans_id, (Destination(about, Reply(code)),)))

    # --- tasks -------------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Return when what was taken is done."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request to a service failed", exc_info=error)


def _content(content: Content, service: WellKnown) -> ServiceElement | Part | Error:
    """What a service is told: an element of its own, or content that it takes as it is."""
    if isinstance(content, Part) and service.knows(content):
        return content
    try:
        element = read_service(content)
    except WireError as error:
        return Error(error.code or 500, error.reason)
    return element if service.knows(element) else Error(504, "This service does not know that element.")


def _for_one(data: Data, recipient: Recipient, options: Sequence[Option]) -> Data:
    """The data for one recipient, without what was for this relay alone; the content is the same object."""
    return Data(
        replace(data.originator, options=_kept(data.originator.options)),
        (replace(recipient, options=_kept(recipient.options)),),
        data.content,
        _kept(options),
    )


def _kept(options: Sequence[Option]) -> tuple[Option, ...]:
    return tuple(option for option in options if option.target_hop != "this")


def _response(reply: Reply) -> Response:
    """What a status reply means (T6)."""
    if reply.code // 100 == 2:
        return success("", *read_words(reply.text))
    return indeterminant("") if reply.code // 100 == 3 else error_to_response("", reply.code, reply.text)


def _tell(told: asyncio.Future[bool], answer: asyncio.Future[Answer]) -> None:
    if not told.done():
        told.set_result(not answer.cancelled() and isinstance(answer.result(), Ok))


def _take_back(answer: asyncio.Future[Answer], told: asyncio.Future[bool]) -> None:
    if told.cancelled():
        answer.cancel()

"""Other relays: what they may bind as and speak for, and the messages that go on to them (RFC 3340 sections 4.4.2, 4.4.4.1, 4.5.2).

Place on the path: step 3 and 5 for what another relay says of itself, step 9 for a message whose next hop is an APEX relay
(``Contact.is_hop``). A relay is believed by its certificate or its address (``Peers.proved``), never by what it says; nobody binds
as one of our domains. Promise kept here: "passed-on" is said at the relay's ``ok`` and not before; a session lost, or a relay that
cannot take anything now, is trouble with the hop, and the message is tried again.

A sender who does not speak APEX asked for nothing, so a statusRequest of ours goes along in his name: its transID are the first
31 bits of the object's fingerprint, by which the store finds the message when the statusResponse comes (``settle``), also after
this process was killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

from comity.bindings.apex.delivery import is_unasked, report_data
from comity.bindings.apex.elements import (
    Bind,
    Data,
    Destination,
    Error,
    Ok,
    Option,
    Reply,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Connection, Ground, answered
from comity.bindings.apex.mapping import PROTOCOL, operation_to_data
from comity.bindings.apex.mesh import Mesh
from comity.bindings.apex.neighbour import Answer, Neighbour, Sending
from comity.bindings.apex.options import DATA_TIMING, STATUS_REQUEST, not_understood, read_options
from comity.bindings.apex.own_ids import own_trans_id
from comity.bindings.apex.rates import Rates
from comity.bindings.apex.reasons import error_to_response
from comity.bindings.apex.report import NAME as REPORT
from comity.bindings.apex.service_data import ServiceData
from comity.bindings.apex.submission import Submissions
from comity.bindings.base import Link
from comity.cpim.operations import PASSED_ON, MessageOperation, Reason, Requirement, Response, failure, success
from comity.errors import AddressError, LocalProtocolError
from comity.service.interfaces import Delivery, Origin

log = logging.getLogger(__name__)

ANY = "*"
BURST_SECONDS = 4.0
"""Seconds' worth of messages that a relay may send at once."""
PEER_OCTETS = 8 * 1024 * 1024
"""A second, of one relay."""
MOST_BOUND = 64
"""Domains one session may bind as."""


class Relaying:
    """The relay-relay mode.

    Args:
        ground: what all parts of the binding stand on.
        mesh: sessions with other relays.
        submissions: takes data between people.
        services: takes data from or to a service, and speaks for the report service.
    """

    def __init__(self, ground: Ground, mesh: Mesh, submissions: Submissions, services: ServiceData) -> None:
        self._ground = ground
        self._mesh = mesh
        self._submissions = submissions
        self._to_services = services.take
        self._say = services.say
        self._neighbours: dict[Link, Neighbour] = {}
        """Sessions with relays, by either side's call."""

    # --- what a relay says of itself ---------------------------------------------------------------------------------

    def proved(self, link: Link) -> frozenset[str]:
        """The domains that whoever is at the other end speaks for."""
        tls = link.peer.tls
        return self._ground.service.peers.proved(link.peer.remote[0], () if tls is None else tls.names)

    def bind(self, connection: Connection, channel: int, element: Bind) -> Ok | Error:
        """Do what the steps of RFC 3340 section 4.4.2 say, in their order."""
        key = channel, element.trans_id
        neighbour = self._neighbours.get(connection.link)
        if key in connection.attachments or (neighbour is not None and key in neighbour.bound):
            return Error(555, "that transaction-identifier is in use")
        if self._ground.is_ours(element.relay):
            return Error(537, "access denied")
        domains = self.proved(connection.link)
        if not domains:
            return Error(534, "no relay is known here by that certificate or address")
        if not (element.relay in domains or ANY in domains):
            return Error(537, "access denied")
        if (refused := not_understood(element.options, "bind")) is not None:
            return refused
        if neighbour is None:
            neighbour = Neighbour(connection.link, connection.session, channel, self._ground.config.in_flight, domains)
            self._met(connection, neighbour)
            connection.link.authenticated()
            connection.session.admit()
        if len(neighbour.bound) >= MOST_BOUND:
            return Error(554, "too many bindings in one session")
        self._mesh.bind(neighbour, key, element.relay)
        return Ok()

    def _met(self, connection: Connection, neighbour: Neighbour) -> None:
        config, now = self._ground.config, self._ground.service.clock.now()
        self._neighbours[neighbour.link] = neighbour
        connection.domains = neighbour.domains
        burst = round(BURST_SECONDS * config.peer_messages)
        connection.rates = Rates(config.peer_messages, burst, PEER_OCTETS, config.message, now)

    def called(self, neighbour: Neighbour) -> None:
        """A session of ours with another relay became usable."""
        self._met(self._ground.connections[neighbour.link], neighbour)

    def terminate(self, connection: Connection, channel: int, element: Terminate) -> Ok | None:
        """End a binding, or all of this session with transID 0; None: it is no binding that is meant."""
        neighbour = self._neighbours.get(connection.link)
        if neighbour is None:
            return None
        meant = [key for key in neighbour.bound if not element.trans_id or key == (channel, element.trans_id)]
        for key in meant:
            self._mesh.unbind(neighbour, key)
        return Ok() if meant else None

    def channel_closed(self, connection: Connection, channel: int) -> None:
        """A channel is gone, and with it what was bound on it, and who waits for an answer by it."""
        neighbour = self._neighbours.get(connection.link)
        if neighbour is None:
            return
        for key in [key for key in neighbour.bound if key[0] == channel]:
            self._mesh.unbind(neighbour, key)
        if neighbour.channel == channel:
            self.lost(connection.link)

    def lost(self, link: Link) -> None:
        """The session is gone."""
        neighbour = self._neighbours.pop(link, None)
        if neighbour is not None:
            self._mesh.lost(neighbour)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """A link is gone, whoever opened it."""
        self._mesh.link_closed(link, error)
        self.lost(link)

    # --- what a relay sends ------------------------------------------------------------------------------------------

    def is_relay(self, link: Link) -> bool:
        """True for a session whose other end serves at least one domain by it."""
        return link in self._neighbours

    def data(self, connection: Connection, data: Data) -> asyncio.Future[Ok | Error]:
        """Take what a relay sent; step 1 of RFC 3340 section 4.4.4.1 is here (section 4.5.2)."""
        neighbour = self._neighbours[connection.link]
        neighbour.used = self._ground.service.clock.now()
        originator, domain = data.originator.identity, data.originator.identity.domain
        if self._ground.is_ours(domain) and self._has_been_here(data):
            return answered(Error(550, "the data came back to a relay it had passed"))
        if self._ground.is_ours(domain) or not (domain in neighbour.domains or ANY in neighbour.domains):
            return answered(Error(537, "this relay may not speak for that domain"))
        if len(data.recipients) > self._ground.config.recipients:
            return answered(Error(554, f"data has at most {self._ground.config.recipients} recipients here"))
        sender = Endpoint("-", "", domain) if originator.is_service else originator
        origin = Origin(
            sender.to_address(), PROTOCOL, neighbour.host, neighbour.is_protected, domains=neighbour.domains
        )
        if originator.is_service:
            return answered(self._to_services(data, origin))
        return self._submissions.submit(data, origin, is_relay=True)

    def _has_been_here(self, data: Data) -> bool:
        asked = read_options(data.options)
        service = self._ground.service
        if not isinstance(asked, Error) and any(entry.node == service.node for entry in asked.history):
            return True
        return service.has_left(sha256(data.content.octets).hexdigest())  # a hop dropped the history (G-17)

    def answered(self, link: Link, handle: int, answer: Ok | Error) -> bool:
        """Take the answer to a data we sent to a relay; False if it is none of these."""
        neighbour = self._neighbours.get(link)
        if neighbour is None or not neighbour.answered(handle, answer, self._ground.service.clock.now()):
            return False
        if isinstance(answer, Error) and answer.code == 530:
            log.info("the relay at %s has forgotten what we are bound as", neighbour.host)
            link.abort()
        return True

    # --- messages for another domain ---------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Hand a message to the relay of its recipient's domain (see ``Binding.deliver``)."""
        operation, hop = delivery.operation, delivery.contact
        if not self._ground.is_started:
            return answered(failure(operation.trans_id, Reason.TIMEOUT, "The server is starting."))
        try:
            made = self._onward(delivery)
        except (AddressError, LocalProtocolError) as error:
            made = failure(operation.trans_id, Reason.CONTENT, f"APEX cannot carry it: {error}")
        if isinstance(made, Response):
            return answered(made)
        onward = _Onward(operation, made, self._trace)
        for data in made:
            sending = Sending.of(data, needs_tls=Requirement.TLS in operation.requirements)
            sending.answer.add_done_callback(onward.answered)
            self._mesh.send(sending, hop.resource, hop.data.decode("utf-8"))
        return onward.future

    def _onward(self, delivery: Delivery) -> list[Data] | Response:
        """The data for the next relay; several only for a report, whose sender asked for more than one."""
        operation, ground = delivery.operation, self._ground
        recipient = Endpoint.of(operation.destination, operation.context.resource)
        said = report_data(operation, recipient, ground.new_trans_id)
        if said or is_unasked(operation):
            return said or success(operation.trans_id)
        age = max(0.0, (ground.service.clock.when() - delivery.accepted).total_seconds())
        data = operation_to_data(
            operation,
            recipient=recipient,
            delivery_id=delivery.id,
            domain=ground.service.node,
            age=age,
            new_trans_id=ground.new_trans_id,
            is_final=False,
        )
        if isinstance(data, Response):
            return data
        if not _asks_for_sender(operation):
            return [data]
        asking = Option(STATUS_REQUEST, trans_id=own_trans_id(operation.object.fingerprint))
        return [replace(data, options=(*data.options, asking))]

    def _trace(self, data: Data) -> None:
        """A statusRequest for every relay is answered by every relay (RFC 3340 section 5.1, its last paragraph)."""
        recipient = data.recipients[0]
        for option in (*recipient.options, *data.options):
            if option.internal == STATUS_REQUEST and option.target_hop == "all" and option.trans_id:
                element = StatusResponse(option.trans_id, (Destination(recipient.identity, Reply(250)),))
                self._say(REPORT, self._ground.service.node, data.originator.identity, element)


def _asks_for_sender(operation: MessageOperation) -> bool:
    """Whether we ask in the sender's name: not for one who could have asked, and never about a report (P-31)."""
    context = operation.context
    return context.native_protocol != PROTOCOL and context.report is None and not context.transient


class _Onward:
    """One message on its way to the next relay."""

    def __init__(self, operation: MessageOperation, made: list[Data], trace: Callable[[Data], None]) -> None:
        self.future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._operation = operation
        self._made = made
        self._trace = trace
        self._left = len(made)

    def answered(self, done: asyncio.Future[Answer]) -> None:
        """The relay's word about one data."""
        self._left -= 1
        answer = None if done.cancelled() else done.result()
        trans_id = self._operation.trans_id
        if not isinstance(answer, Ok):
            self._settle(_failure(trans_id, answer))
        elif not self._left:
            self._settle(success(trans_id, PASSED_ON if self._is_asked_for else "object"))
            for data in self._made:
                self._trace(data)

    @property
    def _is_asked_for(self) -> bool:
        """The next relay was asked to report; else what the sender asked of this one is ours to tell."""
        data = self._made[0]
        names = {option.internal for option in (*data.options, *data.recipients[0].options)}
        return not names.isdisjoint((STATUS_REQUEST, DATA_TIMING))

    def _settle(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)


def _failure(trans_id: str, answer: Error | None) -> Response:
    if answer is None or answer.code == 530:
        return failure(trans_id, Reason.TIMEOUT, "The next relay cannot be reached.")
    if answer.code == 451:
        # "Local error in processing" may be this message's doing: it is given up one day, and does not stop its lane (F-POISON).
        return failure(trans_id, Reason.INTERNAL, "The next relay failed over it.")
    if answer.code // 100 == 4:
        # An ``error`` is about the data, not about who it is for: the relay itself cannot take it now (section 5.2).
        return failure(trans_id, Reason.OVERLOAD, "The next relay cannot take it now.")
    if answer.code == 538:
        text = "The message requires TLS on every hop and the next relay cannot be reached under TLS."
        return failure(trans_id, Reason.PROTECTION, text)
    return error_to_response(trans_id, answer.code, answer.text)

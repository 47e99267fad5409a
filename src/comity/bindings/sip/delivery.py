"""The way down: one MESSAGE transaction per delivery, over the flow the device registered by.

Place on the path: steps 7 to 9, for ``binding.py``. A device is reached only where it proved to be: at the source of
its REGISTER over UDP, on its connection over TCP and TLS, and by a new connection only if its Contact names the very
address it registered from. Its Contact host is never looked up, a redirect never followed (reliability.md 6.1 item 8).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from base64 import b32encode
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

from comity.bindings.base import HostPort, Link, Network, Transport
from comity.bindings.sip.connections import target_for
from comity.bindings.sip.events import RequestFailed, RequestTimedOut, ResponseReceived
from comity.bindings.sip.forms import Form, choose_form
from comity.bindings.sip.mapping import NOT_UNDERSTOOD, TYPE_REFUSED, operation_to_request, status_to_response
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.registration import Device
from comity.bindings.sip.requests import LinkState
from comity.cpim.delivered import sealed_words
from comity.cpim.entity import is_secured
from comity.cpim.learned import Learned
from comity.cpim.operations import Reason, Requirement, Response, failure
from comity.cpim.protection import needs_whole
from comity.errors import LocalProtocolError
from comity.service.interfaces import Delivery, Service

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

MOST_DEAF = 4096
CANNOT_SHOW = "The recipient's device cannot show this kind of message."
NOT_WHOLE = "The recipient's device cannot take the message with the protection it requires."


@dataclass(slots=True, eq=False)
class Attempt:
    """One delivery under way."""

    delivery: Delivery
    device: Device
    future: asyncio.Future[Response]
    form: Form
    is_second: bool = False
    """True once the device was offered the text instead of the object."""

    def settle(self, response: Response) -> None:
        if not self.future.done():
            self.future.set_result(response)

    def fail(self, reason: Reason, text: str) -> None:
        self.settle(failure(self.delivery.operation.trans_id, reason, text))


class DeviceDelivery:
    """Deliveries to registered devices."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._config = binding.config
        self._service: Service | None = None
        self._network: Network | None = None
        self.pending: dict[tuple[Link, str], Attempt] = {}
        """By link and client transaction."""
        self._deaf: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Devices that refused a typing state: no other is offered to them (RFC 3994 section 4)."""
        self._dialling = 0
        """Deliveries that wait for a connection."""
        self.learned = Learned()
        """What devices refused."""

    @property
    def is_busy(self) -> bool:
        """True while a delivery has no end yet."""
        return bool(self.pending or self._dialling)

    def start(self, service: Service, network: Network) -> None:
        """Called once, before any delivery."""
        self._service, self._network = service, network

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """See ``Binding.deliver``."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        device = decode_device(delivery.contact.data)
        form = choose_form(delivery.operation, takes_cpim=device.takes_cpim, only_text=device.only_text)
        attempt = Attempt(delivery, device, future, form or Form.NATIVE)
        if form is Form.OBJECT and self._is_known_to_refuse(delivery):
            form = self._as_text(attempt)
        if delivery.operation.context.transient and _name(delivery) in self._deaf:
            self._cannot_show(attempt)
        elif self._network is None:
            attempt.fail(Reason.AWAY, "The server is starting.")
        elif form is None:
            self._cannot_show(attempt)
        else:
            self._try(attempt)
        return future

    def _key(self, delivery: Delivery) -> tuple[str, str, bytes]:
        """A phone that registers with other words, or from elsewhere, may have another program."""
        return delivery.contact.aor.key, delivery.contact.id, delivery.contact.data

    def _is_known_to_refuse(self, delivery: Delivery) -> bool:
        now = self._binding.service.clock.now()
        return self.learned.refuses(self._key(delivery), delivery.operation.object.media_type, now)

    def _as_text(self, attempt: Attempt) -> Form | None:
        """The form in place of an object that this device refused before; None if there is none."""
        operation = attempt.delivery.operation
        if needs_whole(operation.requirements):
            return None
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(operation.object) else Form.TEXT
        return None if self._request(attempt) is None else attempt.form

    # --- out ---------------------------------------------------------------------------------------------

    def _try(self, attempt: Attempt) -> None:
        request = self._request(attempt)
        if request is None:
            self._cannot_show(attempt)
            return
        device = attempt.device
        if device.most_octets and len(request.to_bytes()) > device.most_octets:
            self._unreachable(attempt, Reason.SIZE, "The message is too long for the recipient's device.")
            return
        if device.transport == "udp":
            link = None if self._network is None else self._network.datagram_link(self._binding, device.local)
            state = None if link is None else self._binding.state_of(link)
            if state is None:
                attempt.fail(Reason.AWAY, "The socket the device registered at is not open any more.")
            elif state.session.is_too_large(request):
                # RFC 3428 section 8: never over UDP, whatever the device would take.
                self._dial(attempt, request, "tcp", Reason.SIZE)
            else:
                self._send(attempt, state, request, device.remote)
            return
        state = self._binding.find_flow(attempt.delivery.contact.aor, device)
        if state is not None:
            self._send(attempt, state, request, None)
        else:
            self._dial(attempt, request, "tls" if device.transport == "tls" else "tcp", Reason.AWAY)

    def _request(self, attempt: Attempt) -> SipRequest | None:
        delivery = attempt.delivery
        tag, call_id = identifiers(delivery.id, delivery.contact.id, attempt.form)
        request = operation_to_request(
            delivery.operation,
            attempt.form,
            target=attempt.device.uri,
            tag=tag,
            call_id=f"{call_id}@{delivery.operation.source.domain}",
            accepted=delivery.accepted,
            max_forwards=self._config.max_forwards,
            is_last_hop=attempt.device.is_direct,
            receipt_id=delivery.id,
        )
        if request is None or not attempt.device.path:
            return request
        headers = [*(("Route", proxy) for proxy in attempt.device.path), *request.headers]
        return SipRequest(request.method, request.uri_text, headers, request.body)

    def _cannot_show(self, attempt: Attempt) -> None:
        is_required = needs_whole(attempt.delivery.operation.requirements)
        sealed = attempt.delivery.operation.context.sealed
        cannot = sealed_words(sealed) if sealed else CANNOT_SHOW
        attempt.fail(Reason.PROTECTION, NOT_WHOLE) if is_required else attempt.fail(Reason.CONTENT, cannot)

    def _send(self, attempt: Attempt, state: LinkState, request: SipRequest, address: HostPort | None) -> None:
        assert self._service is not None
        if Requirement.TLS in attempt.delivery.operation.requirements and state.transport != "tls":
            # The service asked the contact; this is the link itself, the last look before the octets leave.
            attempt.fail(Reason.PROTECTION, "The recipient's device cannot be reached under TLS.")
            return
        try:
            id = state.session.send_request(request, self._service.clock.now(), address)
        except LocalProtocolError as error:
            log.warning("a MESSAGE could not be sent: %s", error)
            attempt.fail(Reason.AWAY if state.session.is_closed else Reason.CONTENT, "The message could not be sent.")
            return
        self.pending[state.link, id] = attempt
        state.link.flush()

    # --- connections of ours -----------------------------------------------------------------------------

    def _dial(self, attempt: Attempt, request: SipRequest, transport: Transport, otherwise: Reason) -> None:
        """Reach the device by a connection we open; ``otherwise`` is the failure if that is not possible."""
        device = attempt.device
        target = target_for(device.sip_uri, device.remote, transport)
        if target is None:
            self._unreachable(attempt, otherwise, "The device's connection is gone and its address is not its own.")
            return
        self._dialling += 1
        self._binding.connections.reach(target, partial(self._reached, attempt, request, otherwise))

    def _reached(self, attempt: Attempt, request: SipRequest, otherwise: Reason, state: LinkState | None) -> None:
        self._dialling -= 1
        if state is None:
            self._unreachable(attempt, otherwise, "The device cannot be reached by a connection.")
        else:
            self._send(attempt, state, request, None)

    def _unreachable(self, attempt: Attempt, reason: Reason, text: str) -> None:
        # An object too large for UDP may have a text that is not; only a phone that knows no objects is content with it.
        if reason is Reason.SIZE and not attempt.device.takes_cpim and self._try_text(attempt):
            return
        attempt.fail(reason, text)

    # --- answers -----------------------------------------------------------------------------------------

    def take(self, link: Link, event: object) -> None:
        """Take an event about a request of ours."""
        if isinstance(event, ResponseReceived):
            if event.response.status_code >= 200:
                self._answered(link, event)
        elif isinstance(event, RequestTimedOut):
            attempt = self.pending.pop((link, event.id), None)
            if attempt is not None:
                attempt.fail(Reason.TIMEOUT, "The recipient's device did not answer.")
            if link.peer.transport != "udp":
                # Half open, or as good as: a phone that notices its connection gone opens another (RFC 5626 section 5.3).
                link.abort()
        elif isinstance(event, RequestFailed):
            attempt = self.pending.pop((link, event.id), None)
            if attempt is not None:
                attempt.fail(Reason.TIMEOUT, "The connection to the recipient's device was lost.")

    def _answered(self, link: Link, event: ResponseReceived) -> None:
        attempt = self.pending.pop((link, event.id), None)
        if attempt is None:
            return
        self._binding.connections.rest(link)
        if attempt.delivery.operation.context.transient and event.response.status_code in NOT_UNDERSTOOD:
            self._deaf[_name(attempt.delivery)] = None
            if len(self._deaf) > MOST_DEAF:
                self._deaf.popitem(last=False)
        if event.response.status_code in TYPE_REFUSED and attempt.form is Form.OBJECT:
            accepts = event.response.listed("accept")
            obj, now = attempt.delivery.operation.object, self._binding.service.clock.now()
            self.learned.refused(self._key(attempt.delivery), obj.media_type, now, accepts)
        if event.response.status_code in NOT_UNDERSTOOD and self._try_text(attempt):
            return
        operation, code = attempt.delivery.operation, event.response.status_code
        if code in NOT_UNDERSTOOD and needs_whole(operation.requirements):
            attempt.fail(Reason.PROTECTION, NOT_WHOLE)
        elif code == 420 and operation.requirements:
            attempt.fail(
                Reason.PROTECTION, "A hop before the recipient's device does not know what the message requires."
            )
        else:
            attempt.settle(status_to_response(operation.trans_id, event.response, attempt.form))

    def _try_text(self, attempt: Attempt) -> bool:
        """Send the text of an object that the device did not take; False if that was done or cannot be."""
        if attempt.form is not Form.OBJECT or attempt.is_second:
            return False
        if needs_whole(attempt.delivery.operation.requirements):
            return False
        attempt.is_second = True
        attempt.form = Form.READABLE if is_secured(attempt.delivery.operation.object) else Form.TEXT
        if self._request(attempt) is None:
            return False
        self._try(attempt)
        return True


def _name(delivery: Delivery) -> tuple[str, str]:
    return delivery.contact.aor.key, delivery.contact.id


@lru_cache(maxsize=4096)
def decode_device(data: bytes) -> Device:
    """The device kept in a contact."""
    return Device.decode(data)


def identifiers(delivery_id: str, contact_id: str, form: Form) -> tuple[str, str]:
    """(From-tag, Call-ID) that stay the same over every attempt of a delivery to a device (reliability.md 5.3)."""
    digest = hashlib.sha256("\0".join((delivery_id, contact_id, form.value)).encode("utf-8", "surrogateescape"))
    text = b32encode(digest.digest()).decode("ascii").lower()
    return text[:12], text[12:36]

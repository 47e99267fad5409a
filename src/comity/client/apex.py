"""An APEX client: attaches as an endpoint, sends data with a statusRequest, receives data (RFC 3340, endpoint-relay mode).

Place on the path: the far ends of it; runs ``bindings.apex.session`` as a binding of its own network. Who receives attaches as the
account's own endpoint, who only sends or says how they are as a subaddress of it, which takes nothing away from others. Data is
answered ``ok`` when the caller asks for the next message. A lost connection is made anew; data that was not answered goes again
with the same Content-ID, by which the server knows it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from comity.bindings.apex import events
from comity.bindings.apex.elements import (
    Attach,
    Data,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    ServiceElement,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.multipart import CONTROL
from comity.bindings.apex.options import ATTACH_OVERRIDE, STATUS_REQUEST, protection_option
from comity.bindings.apex.presence_operations import SERVICE as PRESENCE
from comity.bindings.apex.reasons import error_to_response
from comity.bindings.apex.report import NAME as REPORT
from comity.bindings.apex.service_wire import read_service, write_service
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.signing_in import SessionOptions
from comity.bindings.apex.wire import write_message
from comity.bindings.base import Link, Target
from comity.client.apex_inbox import Inbox, Place
from comity.client.apex_presence import ApexPresence
from comity.client.apex_reports import Reports, Sent
from comity.client.base import ClientError, Mailbox, Options, Received, SignedIn, check_requirements
from comity.client.presence import HasPresence
from comity.cpim.address import Address
from comity.cpim.operations import (
    MimeObject,
    Reason,
    Requirement,
    Response,
    failure,
    indeterminant,
)
from comity.errors import AddressError, DeliveryError, LocalProtocolError
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.stream import StreamLink
from comity.net.tls import TlsContexts

EDGE_PORT: Final = 913
"""IANA's apex-edge (RFC 3340 section 8.3)."""
REPORT_SECONDS: Final = 2.0
"""How long ``send`` waits for the report behind an ``ok``; without one the message was accepted, and its end is not known."""
MOST_UNANSWERED: Final = 256
GOODBYE_SECONDS: Final = 1.0
UNAVAILABLE: Final = 421
STOPPING_SECONDS: Final = 5.0
"""How long a server that says 421 may take to stop."""
PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds between attempts to come back; the last one repeats."""
_MOST_ID: Final = 2**31 - 1
_FINAL_CODES: Final = frozenset({530, 534, 535, 537, 538, 550, 553, 554, 556})
"""After these coming back makes no sense."""


@dataclass(slots=True, eq=False)
class _Sending:
    """Data of ours that is not answered yet."""

    payload: bytes
    answer: asyncio.Future[Ok | Error]
    refusal: Error | None = None
    """It was refused by a server that stops: it goes again if the connection then ends, and is refused if not."""


class ApexClient(HasPresence, SignedIn):
    """One account attached by APEX; make it with ``comity.client.connect``."""

    name = "apex"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = LoopClock()
        self._network = AsyncNetwork(self._clock, tls=TlsContexts(trust=options.ca_file))
        self._mailbox = Mailbox()
        self._link: StreamLink | None = None
        self._session: ApexSession | None = None
        self._attached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done while data may flow; a new one when the connection is lost and may come back."""
        subaddress = "" if options.receive else f"comity-{os.urandom(4).hex()}"
        try:
            self._endpoint = Endpoint.of(options.address, subaddress)
        except AddressError as error:
            raise ClientError(f"{options.address} has no name in APEX: {error.reason}") from error
        self._channel = 0
        self._handles: dict[int, _Sending] = {}
        self._unanswered: dict[_Sending, None] = {}
        """In the order of the calls."""
        self._reports = Reports(self._mailbox, options.address)
        self._inbox = Inbox(self._mailbox, self._endpoint, options.address)
        self._room = asyncio.Semaphore(MOST_UNANSWERED)
        self._turn = asyncio.Lock()
        self._presence: ApexPresence = ApexPresence(self)
        self._returning: asyncio.Task[None] | None = None
        self._may_return = False
        self._is_private = False
        """True once the connection was under TLS: what waits on it never goes on without (T11)."""
        self._gone = asyncio.Event()
        """Set when the connection being made is lost again."""
        self._error = ""
        self._is_closing = False

    # --- life ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, sign in and attach. Raises ClientError."""
        try:
            await self._connect()
        except DeliveryError as error:
            raise ClientError(str(error)) from error
        await self._attached
        self._may_return = self._options.patience > 0

    async def _connect(self) -> None:
        options = self._options
        is_direct = options.transport == "tls"
        if options.server is not None:
            targets = await self._network.resolve("sip", *options.server, "tcp", is_trusted=True)
        else:
            domain = options.address.domain
            targets = await self._network.resolve_service("_apex-edge._tcp", domain, EDGE_PORT, "tcp", is_trusted=True)
        server_name = options.address.domain if is_direct else ""
        for left, target in zip(range(len(targets) - 1, -1, -1), targets, strict=True):  # RFC 2782: in order
            where = Target("tls" if is_direct else "tcp", target.host, target.port, server_name)
            try:
                await self._network.connect(self, where, role="client")
                return
            except DeliveryError:
                if not left:
                    raise

    async def _return(self) -> None:
        """Try until attached again or patience ends; ``link_closed`` calls again if it breaks once more."""
        loop = asyncio.get_running_loop()
        deadline, attempt = loop.time() + self._options.patience, 0
        while not self._attached.done():
            try:
                await self._connect()
                gone = asyncio.ensure_future(self._gone.wait())
                await asyncio.wait((self._attached, gone), return_when=asyncio.FIRST_COMPLETED)
                gone.cancel()
            except DeliveryError as error:
                self._error = str(error)
            if self._attached.done() or not self._may_return:
                break
            pause = PAUSES[min(attempt, len(PAUSES) - 1)]
            if loop.time() + pause > deadline:
                self._may_return = False
                break
            attempt += 1
            await asyncio.sleep(pause)
        if not self._attached.done():
            self._lost(None)

    async def close(self) -> None:
        """Say goodbye and close."""
        if not self._is_closing:
            self._may_return = False
            if self._returning is not None:
                self._returning.cancel()
                await asyncio.wait((self._returning,))
            if self._attached.done():
                await self._presence.close()
            self._is_closing = True
            self._mailbox.end(None)
            self._presence.lost(None)
            if self._session is not None and self._link is not None and not self._session.is_ended:
                if (
                    not self._inbox.untaken
                ):  # else what was not taken would keep the session open (RFC 3080 section 2.3.1.3)
                    self._session.release()
                    self._link.flush()
                    await asyncio.wait((asyncio.ensure_future(self._gone.wait()),), timeout=GOODBYE_SECONDS)
                self._link.close()
        await self._network.close()

    # --- what presence needs ----------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Who signed in."""
        return self._options.address

    @property
    def endpoint(self) -> Endpoint:
        """What we are attached as."""
        return self._endpoint

    async def until_attached(self) -> None:
        """Wait until data may flow. Raises ClientError if it never will."""
        while not self._attached.done():
            await asyncio.shield(self._attached)
        self._attached.result()

    def new_trans_id(self) -> int:
        """One that nobody can predict (RFC 3340 section 6.1.1)."""
        return int.from_bytes(os.urandom(4), "big") % _MOST_ID + 1

    async def tell(
        self, service: str, domain: str, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> Ok | Error:
        """Send data to a service of a domain; what our server said to that. Raises ClientError."""
        content = element if isinstance(element, Part) else Inline(write_service(element))
        to = Recipient(Endpoint.service(service, domain))
        await self.until_attached()
        return await self._exchange(Data(Originator(self._endpoint), (to,), content, tuple(options)))

    # --- send -------------------------------------------------------------------------------------------------

    def send(
        self,
        obj: MimeObject,
        to: Address,
        *,
        from_: Address | None = None,
        key: str = "",
        requirements: Collection[Requirement] = (),
        asks: bool = False,
    ) -> asyncio.Future[Response]:
        """See ``Client.send``; many may be under way, they leave in the order of the calls."""
        return asyncio.ensure_future(self._send(obj, to, from_, key or os.urandom(12).hex(), frozenset(requirements)))

    async def _send(
        self, obj: MimeObject, to: Address, from_: Address | None, key: str, requirements: frozenset[Requirement]
    ) -> Response:
        trans_id, sent = self.new_trans_id(), Sent(key, to)
        async with self._room:
            async with self._turn:  # whoever waits for the connection leaves before who comes when it stands
                await self.until_attached()
                refusal = check_requirements(obj, requirements, key, is_protected=self._is_protected)
                if refusal is not None:
                    return refusal
                try:
                    part = Part(obj.header_block, obj.octets, f"{key}@{self._endpoint.domain}")
                    options = self._asking(trans_id, requirements)
                    recipient = Recipient(Endpoint.of(to))
                    answer = self._exchange(Data(self._originator(from_), (recipient,), part, options))
                except (AddressError, LocalProtocolError) as error:
                    return failure(key, Reason.CONTENT, str(error))
                self._reports.expect(trans_id, sent)
            answered = await answer
        if isinstance(answered, Error):
            self._reports.forget(trans_id)
            return error_to_response(key, answered.code, answered.text)
        done, _ = await asyncio.wait((sent.report,), timeout=REPORT_SECONDS)
        sent.is_waited_for = False
        return sent.report.result() if done else indeterminant(key)

    def _originator(self, from_: Address | None) -> Originator:
        """We, or whom we claim to be. Raises AddressError."""
        is_claim = from_ is not None and from_ != self._options.address
        return Originator(Endpoint.of(from_) if is_claim and from_ is not None else self._endpoint)

    def _asking(self, trans_id: int, requirements: frozenset[Requirement]) -> tuple[Option, ...]:
        """The options of a message."""
        status = Option(STATUS_REQUEST, must_understand=True, trans_id=trans_id)
        return (status, protection_option(requirements, self.new_trans_id())) if requirements else (status,)

    def _exchange(self, data: Data) -> asyncio.Future[Ok | Error]:
        """Send data; the future gives its answer, on this connection or one of the next."""
        sending = _Sending(write_message(data), asyncio.get_running_loop().create_future())
        self._unanswered[sending] = None
        sending.answer.add_done_callback(lambda _: self._unanswered.pop(sending, None))
        self._write(sending)
        return sending.answer

    def _write(self, sending: _Sending) -> None:
        """Now, or as soon as we are attached again."""
        if self._session is not None and self._link is not None and self._is_attached:
            sending.refusal = None
            self._handles[self._session.send(self._channel, sending.payload)] = sending
            self._link.flush()

    def has_room(self, obj: MimeObject, to: Address, requirements: Collection[Requirement] = ()) -> bool:
        """See ``Client.has_room``: a stream has room; what a message may hold is the server's to say."""
        return True

    @property
    def _is_attached(self) -> bool:
        return self._attached.done() and self._session is not None and not self._session.is_ended

    @property
    def _is_protected(self) -> bool:
        return self._session is not None and self._session.is_tls

    # --- receive ----------------------------------------------------------------------------------------------

    def messages(self) -> AsyncIterator[Received]:
        """See ``Client.messages``."""
        return self._mailbox.messages()

    def _received(self, event: events.ElementReceived) -> None:
        session, element = self._session, event.element
        assert session is not None
        if isinstance(element, Terminate):
            session.answer(event.channel, event.msgno, Ok())
            self._terminated(element)
        elif not isinstance(element, Data):
            session.answer(event.channel, event.msgno, Error(504, "only a relay takes that"))
        elif element.originator.identity.is_service:
            session.answer(event.channel, event.msgno, Ok())
            self._service_said(element)
        else:
            assert self._link is not None
            refused = self._inbox.put(element, Place(session, self._link, event.channel, event.msgno))
            if refused is not None:
                session.answer(event.channel, event.msgno, refused)

    # --- what services say --------------------------------------------------------------------------------------

    def _service_said(self, data: Data) -> None:
        """The report service's words about messages of ours, the presence service's about others."""
        service, content = data.originator.identity, data.content
        said: ServiceElement | Part
        try:
            if isinstance(content, Part) and MimeObject(content.header_block, b"").media_type != CONTROL:
                said = content
            else:
                said = read_service(content)
        except WireError:
            return  # what our server's services say wrongly is nothing we could answer
        if service.service_name == REPORT and isinstance(said, StatusResponse):
            self._reports.take(said)
        elif service.service_name == PRESENCE:
            self._presence.take(said, service.domain, data.options)

    # --- Binding -----------------------------------------------------------------------------------------------

    def new_session(self, link: Link, role: str) -> ApexSession:
        """The session of a connection."""
        assert isinstance(link, StreamLink)
        self._link = link
        end_point, now = partial(_end_point, link), self._clock.now()
        self._session = ApexSession("initiator", SessionOptions(), end_point, os.urandom, now)
        self._gone = asyncio.Event()
        return self._session

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of the session."""
        session = self._session
        if session is None or link is not self._link:
            return
        match event:
            case events.Greeted():
                self._greeted(session, event)
            case events.TlsWanted():
                assert isinstance(link, StreamLink)
                link.start_tls_client(self._options.address.domain)
                session.tls_started(self._clock.now())  # what it writes now waits for the handshake
            case events.TlsRefused(code, text) if not self._may_be_open:
                self._fail(f"{code} {text}: the server does not start TLS", is_final=True)
            case events.TlsRefused():
                self._sign_in(session)
            case events.SignInSucceeded():
                options = (Option(ATTACH_OVERRIDE, trans_id=self.new_trans_id()),) if self._may_return else ()
                attach = Attach(self._endpoint, self.new_trans_id(), options)
                session.open(attach, self._options.address.domain)
            case events.SignInFailed(_, code, text):
                self._fail(f"{code} {text}", is_final=code in _FINAL_CODES or not code)
            case events.ChannelOpened(channel, answer):
                self._opened(channel, answer)
            case events.ChannelRefused(_, code, text) | events.GreetingRefused(code, text):
                self._fail(f"{code} {text}", is_final=code in _FINAL_CODES)
            case events.ElementReceived():
                self._received(event)
            case events.Answered(handle, answer):
                sending = self._handles.pop(handle, None)
                if sending is not None:
                    self._answered(sending, answer)
            case events.SessionEnded(reason):
                self._error = self._error or reason
                self._interrupt()
                link.close()
            case _:
                pass

    def _answered(self, sending: _Sending, answer: Ok | Error) -> None:
        if isinstance(answer, Error) and answer.code == UNAVAILABLE and self._may_return:
            sending.refusal = answer
            asyncio.get_running_loop().call_later(STOPPING_SECONDS, self._put_off, sending)
        elif not sending.answer.done():
            sending.answer.set_result(answer)

    def _put_off(self, sending: _Sending) -> None:
        """The server did not stop after all."""
        if sending.refusal is not None and self._is_attached and not sending.answer.done():
            sending.answer.set_result(sending.refusal)

    @property
    def _may_be_open(self) -> bool:
        """Whether a password may be proved, and data go, without TLS."""
        return self._options.allow_plaintext and not self._is_private

    def _greeted(self, session: ApexSession, event: events.Greeted) -> None:
        if not session.is_tls and event.has_tls:
            session.start_tls(self._options.address.domain)
        elif not session.is_tls and not self._may_be_open:
            self._fail("the server offers no TLS", is_final=True)
        elif not event.has_apex:
            self._fail("the server does not speak APEX", is_final=True)
        else:
            self._sign_in(session)

    def _sign_in(self, session: ApexSession) -> None:
        session.sign_in(str(self._endpoint.bare), self._options.password, self._options.address.domain)

    def _opened(self, channel: int, answer: Ok | Error | None) -> None:
        if not isinstance(answer, Ok):
            said = f"{answer.code} {answer.text}" if answer is not None else "an attach was not answered"
            self._fail(said, is_final=answer is None or answer.code in _FINAL_CODES)
            return
        self._channel = channel
        self._handles.clear()
        self._is_private = self._is_private or self._is_protected
        self._error = ""
        if not self._attached.done():
            self._attached.set_result(None)
        for sending in list(self._unanswered):
            self._write(sending)

    def _terminated(self, element: Terminate) -> None:
        """Our relay ended what we are attached as (RFC 3340 section 4.4.3)."""
        self._fail(f"{element.code} {element.text}", is_final=element.code in _FINAL_CODES)

    def _fail(self, error: str, *, is_final: bool) -> None:
        self._error = error
        self._may_return = self._may_return and not is_final
        self._interrupt()
        if self._link is not None:
            self._link.close()

    def _interrupt(self) -> None:
        """Data does not flow any more; whoever wants to send waits if it may again."""
        if self._may_return and self._attached.done():
            self._attached = asyncio.get_running_loop().create_future()

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone: come back, or tell whoever waits."""
        if link is not self._link:
            return
        self._gone.set()
        self._interrupt()
        if not self._may_return:
            self._lost(error)
        elif self._returning is None or self._returning.done():
            self._error = ""
            self._returning = asyncio.ensure_future(self._return())

    def _lost(self, error: Exception | None) -> None:
        why = self._error or (str(error) if error else "")
        lost = ClientError(f"the server ended the session: {why}" if why else "the connection to the server is gone")
        waiting: list[asyncio.Future[Ok | Error] | asyncio.Future[None]] = [one.answer for one in self._unanswered]
        for awaited in (*waiting, self._attached):
            if not awaited.done():
                awaited.set_exception(lost)
                awaited.exception()  # somebody may wait for it, nobody has to
        self._presence.lost(None if self._is_closing else lost)
        if not self._is_closing:
            self._mailbox.end(lost)


def _end_point(link: Link) -> bytes | None:
    return None if link.peer.tls is None else link.peer.tls.server_end_point

"""A SIP client: registers, sends MESSAGE requests, answers those it gets; its presence is in ``sip_presence.py``.

Place on the path: the far ends of it; runs ``bindings.sip.session`` as a binding of its own network. One MESSAGE is
under way at a time (RFC 3428 section 8). The REGISTER says by ``Accept`` that whole objects are welcome.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Collection, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial

from comity.bindings.base import HostPort, Link, Listener, Target
from comity.bindings.sip.digest import DigestClient
from comity.bindings.sip.events import RequestFailed, RequestReceived, RequestTimedOut, ResponseReceived
from comity.bindings.sip.forms import Form
from comity.bindings.sip.mapping import (
    Refusal,
    operation_to_request,
    request_to_operation,
    response_to_status,
    status_to_response,
)
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.protection import OPTION as PROTECTION
from comity.bindings.sip.reports import REPORTER, parse_report
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.client.base import ClientError, Mailbox, Options, Received, SignedIn, asserter, check_requirements
from comity.client.presence import HasPresence
from comity.client.sip_presence import SipPresence
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.composing import composing_in
from comity.cpim.message import new_message_id
from comity.cpim.operations import MessageOperation, MimeObject, Reason, Requirement, Response, failure, indeterminant
from comity.errors import DeliveryError, LocalProtocolError
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.tls import TlsContexts
from comity.net.udp import local_address

ACCEPT = (
    "message/cpim, text/plain, multipart/signed, multipart/encrypted, application/pkcs7-mime, "
    "application/pkcs7-signature, */*"
)
"""RFC 8591 section 6: pkcs7-signature says that clear signatures are not only shown but verified."""
COMPACT = {"From": "f", "To": "t", "Call-ID": "i", "Content-Type": "c", "Subject": "s"}
CREDENTIALS = 230
"""Octets of an Authorization by SHA-256 with a nonce of 32, without user, realm and URI."""
METHODS = frozenset({"MESSAGE", "NOTIFY", "OPTIONS"})
REFUSED = (401, 403, 407)
"""After any other answer our credentials were let through: the next challenge is a new one and no refusal."""
EXPIRES = 3600
DELAYED = timedelta(seconds=10)
"""A message that our server took longer ago than this waited for us."""
PAUSES = (0.05, 0.2, 0.5, 1.0)
"""Seconds before each attempt to connect again; the last one repeats."""
REFRESH_AT = 0.8
"""Part of the granted time after which a registration is refreshed."""


class SipClient(HasPresence, SignedIn):
    """One account signed in by SIP; make it with ``comity.client.connect``."""

    name = "sip"

    def __init__(self, options: Options) -> None:
        self._options = options
        self._clock = LoopClock()
        self._network = AsyncNetwork(self._clock, tls=TlsContexts(trust=options.ca_file))
        self._mailbox = Mailbox()
        self._link: Link | None = None
        self._session: SipSession | None = None
        self._remote: HostPort = ("", 0)
        self._local: HostPort = ("0.0.0.0", 0)  # noqa: S104  replaced in open() before anything is bound
        self._waiting: dict[str, asyncio.Future[SipResponse]] = {}
        self._register_call = _token(12)
        self._register_cseq = 0
        self._tag = _token(8)
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._refresh: asyncio.TimerHandle | None = None
        self._is_closing = False
        self._is_open = False
        """True once signed in."""
        self._returning: asyncio.Task[None] | None = None
        self._presence: SipPresence = SipPresence(self)
        address = options.address
        self._digest = DigestClient(
            address.local, options.password, realm=address.domain, peer=address.domain, random=os.urandom
        )

    # --- life ------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect and, to receive, register. Raises ClientError."""
        await self._connect()
        self._is_open = True

    async def _connect(self) -> None:
        options = self._options
        transport = options.transport or "tls"
        host, port = options.server or (options.address.domain, None)
        try:
            targets = await self._network.resolve("sip", host, port, transport, is_trusted=True)
            target = next((each for each in targets if each.transport == transport), targets[0])
            self._remote = (target.host, target.port)
            if transport == "udp":
                self._local = (local_address(target.host, target.port), 0)
                await self._network.open(self)
                self._link = self._network.datagram_link(self)
            else:
                server_name = options.address.domain if transport == "tls" else ""
                called = Target(transport, target.host, target.port, server_name)
                self._link = await self._network.connect(self, called, role="client")
        except DeliveryError as error:
            raise ClientError(str(error)) from error
        if options.receive:
            await self._register(EXPIRES)

    async def _return(self, lost: ClientError) -> None:
        """Make the connection anew for what is watched and published; what waits for an answer was told already."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.patience
        for attempt in itertools.count():
            await asyncio.sleep(PAUSES[min(attempt, len(PAUSES) - 1)])
            if loop.time() > deadline:
                break
            try:
                await self._connect()
            except ClientError:
                continue
            if self._session is None or self._session.is_closed:  # lost again before anything was done with it
                continue
            self._presence.reconnected()
            return
        self._lost(lost)

    async def close(self) -> None:
        """Unregister and close."""
        if not self._is_closing:
            self._is_closing = True
            if self._returning is not None:
                self._returning.cancel()
                await asyncio.wait((self._returning,))
            await self._presence.close()
            if self._refresh is not None:
                self._refresh.cancel()
                try:
                    async with asyncio.timeout(2):
                        await self._register(0)
                except (ClientError, TimeoutError):
                    pass  # the lease ends by itself
            self._mailbox.end(None)
        await self._network.close()

    async def _register(self, expires: int) -> None:
        address = self._options.address
        aor = to_sip_uri(address)
        self._register_cseq += 2  # one more is used up when the server asks for credentials
        headers = [
            ("Max-Forwards", "70"),
            ("From", f"<{aor}>;tag={self._tag}"),
            ("To", f"<{aor}>"),
            ("Call-ID", self._register_call),
            ("CSeq", f"{self._register_cseq} REGISTER"),
            ("Contact", f"<{self._contact()}>{self._instance()}"),
            ("Expires", str(expires)),
            ("Accept", ACCEPT),
        ]
        answer = await self._ask(SipRequest("REGISTER", f"sip:{address.domain}", headers, b""))
        if answer.status_code != 200:
            raise ClientError(f"the server refuses the registration: {answer.status_code} {answer.reason}")
        if expires:
            loop = asyncio.get_running_loop()
            self._refresh = loop.call_later(expires * REFRESH_AT, self._refresh_later)

    def _contact(self) -> str:
        assert self._session is not None
        transport = self._options.transport or "tls"
        user = to_sip_uri(self._options.address).partition(":")[2].rpartition("@")[0]
        return f"sip:{user}@{self._session.sent_by}" + ("" if transport == "udp" else f";transport={transport}")

    def _instance(self) -> str:
        return f';+sip.instance="<{self._options.instance}>"' if self._options.instance else ""

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
        """See ``Client.send``."""
        key = key or _token(12)
        operation = MessageOperation(from_ or self._options.address, to, key, obj, requirements=frozenset(requirements))
        return asyncio.ensure_future(self._send(operation, key))

    async def _send(self, operation: MessageOperation, key: str) -> Response:
        is_protected = (self._options.transport or "tls") == "tls"
        refusal = check_requirements(operation.object, operation.requirements, key, is_protected=is_protected)
        if refusal is not None:
            return refusal
        request = self._request(operation, key)
        async with self._turn:
            try:
                answer = await self._ask(request)
            except LocalProtocolError as error:
                return failure(key, Reason.SIZE, f"{error}; sign in by TLS or TCP")
        if answer.status_code == 202:  # taken, the end is not known (RFC 3428 section 7)
            return indeterminant(key)
        if answer.status_code == 420 and operation.requirements:
            return failure(key, Reason.PROTECTION, "The server does not know what the message requires.")
        return status_to_response(key, answer, Form.OBJECT, is_server=True)

    def _request(self, operation: MessageOperation, key: str) -> SipRequest:
        request = operation_to_request(
            operation,
            Form.OBJECT,
            target=to_sip_uri(operation.destination),
            tag=key[:8],
            call_id=key,
            accepted=datetime.now(UTC),
        )
        assert request is not None
        if self._options.transport != "udp":
            return request
        # Where 1300 octets are all there is, names are written short (RFC 3261 section 7.3.3).
        headers = [(COMPACT.get(name, name), value) for name, value in request.headers]
        return SipRequest(request.method, request.uri_text, headers, request.body)

    def has_room(self, obj: MimeObject, to: Address, requirements: Collection[Requirement] = ()) -> bool:
        """See ``Client.has_room``; the credentials a server will ask for take their part."""
        own, key = self._options.address, _token(12)
        request = self._request(MessageOperation(own, to, key, obj, requirements=frozenset(requirements)), key)
        space = len(own.local) + len(own.domain) + len(request.uri_text) + CREDENTIALS
        headers = [*request.headers, ("Authorization", " " * space)]
        whole = SipRequest(request.method, request.uri_text, headers, request.body)
        return self._session is None or not self._session.is_too_large(whole)

    # --- what presence needs ----------------------------------------------------------------------------------

    @property
    def address(self) -> Address:
        """Who signed in."""
        return self._options.address

    @property
    def contact(self) -> str:
        """Our contact address, with angle brackets."""
        return f"<{self._contact()}>"

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.now()

    async def exchange(self, request: SipRequest) -> SipResponse:
        """Send a request with the credentials we have; its final answer. Raises ClientError without one."""
        try:
            answer = await self._once(request, cseq_step=0)
        except LocalProtocolError as error:
            raise ClientError(f"{error}; sign in by TLS or TCP") from error
        if answer.status_code not in REFUSED:
            self._digest.accepted()
        return answer

    def has_credentials(self, answer: SipResponse) -> bool:
        """Take the challenge of an answer; True if the request may be sent again."""
        return self._digest.take_challenge(answer, self._options.address.domain)

    async def _ask(self, request: SipRequest) -> SipResponse:
        """Send a request, with our credentials when they are asked for. Raises ClientError without an answer."""
        is_again = False
        while True:
            answer = await self._once(request, cseq_step=1 if is_again else 0)
            if answer.status_code not in (401, 407):
                if answer.status_code not in REFUSED:
                    self._digest.accepted()
                return answer
            if not self._digest.take_challenge(answer, self._options.address.domain):
                return answer
            is_again = True

    async def _once(self, request: SipRequest, cseq_step: int) -> SipResponse:
        if self._session is None or self._link is None or self._session.is_closed:
            raise ClientError("the connection to the server is gone")
        authorization = self._digest.authorize(request.method, request.uri_text, request.body)
        headers = [
            (name, f"{int(value.split()[0]) + cseq_step} {request.method}") if name == "CSeq" else (name, value)
            for name, value in request.headers
        ]
        sent = SipRequest(
            request.method, request.uri_text, headers + ([authorization] if authorization else []), request.body
        )
        branch = self._session.send_request(sent, self._clock.now(), self._remote)
        future: asyncio.Future[SipResponse] = asyncio.get_running_loop().create_future()
        self._waiting[branch] = future
        self._link.flush()
        try:
            return await future
        finally:
            self._waiting.pop(branch, None)

    # --- receive ----------------------------------------------------------------------------------------------

    def messages(self) -> AsyncIterator[Received]:
        """See ``Client.messages``."""
        return self._mailbox.messages()

    def _received(self, event: RequestReceived) -> None:
        if event.request.method == "OPTIONS":
            self._respond(event.id, 200)
            return
        if event.request.method == "NOTIFY":
            status_code, headers = self._presence.take_notify(event.request)
            self._respond(event.id, status_code, headers=headers)
            return
        made = request_to_operation(event.request, when=datetime.now(UTC), message_id=new_message_id(os.urandom(15)))
        if isinstance(made, Refusal):
            self._respond(event.id, made.status_code, made.text, made.headers)
            return
        if b"im-iscomposing" in event.request.body and composing_in(made.object) is not None:
            self._respond(event.id, 200)  # somebody types: no message
            return
        first = asserter(made.source, self._options.address, made.history)
        # The Request-URI is our contact address; who we are is what we signed in as.
        arrived = _date(event.request)
        is_delayed = arrived is not None and datetime.now(UTC) - arrived > DELAYED
        own = self._options.address
        id = f"{event.request.call_id};{event.request.from_.tag}"
        # Only our server speaks for itself; whoever else writes such a header is not believed.
        is_servers = made.source == Address.im(REPORTER, own.domain)
        report = parse_report(event.request) if is_servers else None
        refuser = None if report is not None else partial(self._refuse, event.id)
        received = Received(
            made.object,
            made.source,
            own,
            first,
            is_delayed,
            arrived,
            made.history,
            report,
            requirements=made.requirements,
            id=id,
            refuser=refuser,
        )
        self._mailbox.put(received, partial(self._respond, event.id, 200))

    def _refuse(self, id: int, reason: Reason, text: str) -> None:
        """Answer a MESSAGE with the code of its reason (T1, T8); the 200 that would follow is then none."""
        self._respond(id, *response_to_status(failure("", reason, text)))

    def _respond(self, id: int, status_code: int, phrase: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        if self._session is not None and self._link is not None and not self._session.is_closed:
            self._session.respond(id, status_code, self._clock.now(), reason=phrase, headers=headers)
            self._link.flush()

    # --- Binding -----------------------------------------------------------------------------------------------

    def listeners(self) -> Sequence[Listener]:
        """A datagram socket of our own over UDP; a stream client only calls."""
        if self._options.transport != "udp":
            return ()
        return (Listener("udp", *self._local, role="client"),)

    def new_session(self, link: Link, role: str) -> SipSession:
        """The one session of this client."""
        self._session = SipSession(
            SessionSettings(METHODS, unproved_requests=1_000_000, extensions=frozenset({PROTECTION})),
            "udp" if link.peer.remote == ("", 0) else self._options.transport or "tls",
            link.peer.local,
            None if link.peer.remote == ("", 0) else link.peer.remote,
        )
        self._session.prove(self._remote, self._clock.now())
        return self._session

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of the session."""
        match event:
            case RequestReceived():
                self._received(event)
            case ResponseReceived(id=id, response=response) if response.status_code >= 200:
                self._settle(id, response)
            case RequestTimedOut(id=id):
                self._fail(id, ClientError("the server did not answer in time"))
            case RequestFailed(id=id, text=text):
                self._fail(id, ClientError(f"the request could not be sent: {text}"))
            case _:
                pass

    def _settle(self, id: str, response: SipResponse) -> None:
        future = self._waiting.get(id)
        if future is not None and not future.done():
            future.set_result(response)

    def _fail(self, id: str, error: ClientError) -> None:
        future = self._waiting.get(id)
        if future is not None and not future.done():
            future.set_exception(error)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone: whoever waits is told."""
        lost = ClientError(f"the connection to the server is gone{f': {error}' if error else ''}")
        if self._session is not None:
            self._session.connection_lost(str(lost))
        for id in list(self._waiting):
            self._fail(id, lost)
        if self._is_open and not self._is_closing and self._options.patience > 0 and self._presence.is_in_use:
            if self._returning is None or self._returning.done():
                self._returning = asyncio.ensure_future(self._return(lost))
        elif self._returning is None or self._returning.done():
            self._lost(lost)

    def _lost(self, lost: ClientError) -> None:
        self._presence.lost(None if self._is_closing else lost)
        if not self._is_closing:
            self._mailbox.end(lost)

    def _refresh_later(self) -> None:
        task = asyncio.ensure_future(self._register(EXPIRES))
        self._tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), ClientError):
            self._mailbox.end(error)


def _date(request: SipRequest) -> datetime | None:
    """When our server took the message (RFC 3261 section 20.17); None if it does not say."""
    try:
        return parsedate_to_datetime(request.value("date") or "").replace(tzinfo=UTC)
    except ValueError:
        return None


def _token(octets: int) -> str:
    return os.urandom(octets).hex()

"""SIP glue: listeners, authentication, registrar and MESSAGE up to the service, deliveries down to devices.

Place on the path: steps 3 to 5 and 7 to 9. A request goes: limits and bans, digest, sender binding (S-06), then
``service.submit`` or the registrar. Requests of one flow are taken one after the other up to ``submit``, so what came
first is stored first; nothing waits longer than that for another.

Headers a stranger could set to be believed (P-Asserted-Identity, P-Preferred-Identity, Remote-Party-ID, Identity) are
never read (S-07, S-55).
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from functools import lru_cache, partial
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from comity.bindings.base import HostPort, Link, Listener, Network, Transport
from comity.bindings.sip.config import SipConfig
from comity.bindings.sip.delivery import DeviceDelivery
from comity.bindings.sip.digest import DigestServer, Verdict
from comity.bindings.sip.events import MalformedReceived, PacketDropped, RequestReceived
from comity.bindings.sip.headers import AuthParams
from comity.bindings.sip.mapping import ACCEPT, Refusal, is_sender, request_to_operation, response_to_status
from comity.bindings.sip.registration import (
    Device,
    Flow,
    Plan,
    Rules,
    check_contacts,
    plan_registration,
    registered_user,
)
from comity.bindings.sip.session import SessionSettings, SipSession
from comity.bindings.sip.uri import SipUri
from comity.bindings.sip.wire import Limits, SipRequest
from comity.cpim.address import Address
from comity.cpim.message import new_message_id
from comity.cpim.operations import Response
from comity.errors import AddressError, ConfigError, RemoteProtocolError, StoreError
from comity.service.interfaces import Accepted, Contact, Credentials, Delivery, Origin, Service, Timer

log = logging.getLogger(__name__)


_OLD_BARESIP = re.compile(r"baresip v?[01]\.")

METHODS = frozenset({"MESSAGE", "OPTIONS", "REGISTER"})
#: Requests of one flow waiting for their turn; more are answered 503.
MOST_WAITING = 256
#: How long credentials read from the store may be used without asking again, seconds.
CREDENTIALS_AGE = 2.0


@dataclass(slots=True)
class LinkState:
    """What the binding knows of one link."""

    link: Link
    session: SipSession
    transport: str
    failures: int = 0
    """Wrong passwords on this connection."""


@dataclass(frozen=True, slots=True)
class Request:
    """One received request with where it came from."""

    state: LinkState
    id: int
    request: SipRequest
    source: HostPort

    @property
    def flow(self) -> str:
        """Source flow: what nonces are bound to and requests are kept in order by."""
        return f"{self.state.transport}/{self.source[0]}:{self.source[1]}"


@dataclass(slots=True)
class Answering:
    """A MESSAGE accepted and not yet answered."""

    received: Request
    outcome: asyncio.Future[Response]
    timer: Timer | None = field(default=None)


class SipBinding:
    """The SIP binding of a server (see ``bindings.base.Binding``)."""

    name = "sip"

    def __init__(self, config: SipConfig, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.config = config
        self._random = random
        self._listeners = [parse_listener(url) for url in config.listen]
        self._settings = SessionSettings(
            methods=METHODS,
            t1=config.t1,
            t2=config.t2,
            t4=config.t4,
            limits=Limits(
                head=config.head_octets,
                body=config.body_octets,
                datagram=config.datagram_octets,
                header=config.header_octets,
                long_header=config.long_header_octets,
                count=config.header_count,
            ),
            unproved_requests=config.unproved_requests,
            unproved_window=config.unproved_window,
        )
        self._digest = DigestServer(random(32), is_md5_offered=config.sip_md5, lifetime=config.nonce_lifetime)
        self._rules = Rules(config.min_expires, config.max_expires, config.max_contacts)
        self._plaintext = [ip_network(text) for text in config.plaintext_from]
        self._states: dict[Link, LinkState] = {}
        self._flows: dict[tuple[str, HostPort, HostPort], LinkState] = {}
        """Connections by transport, remote and local address."""
        self._waiting: dict[str, deque[Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._credentials: OrderedDict[str, tuple[float, Credentials]] = OrderedDict()
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._answering: set[tuple[Link, int]] = set()  # each session counts its requests from 1
        self._is_draining = False
        self._service: Service | None = None
        self._out = DeviceDelivery(self)
        self._may_speak_plainly = lru_cache(maxsize=4096)(self._is_plaintext_network)

    # --- Binding -----------------------------------------------------------------------------------------

    def listeners(self) -> Sequence[Listener]:
        return self._listeners

    async def start(self, service: Service, network: Network) -> None:
        self._service = service
        self._out.start(service, network)

    def new_session(self, link: Link, role: str) -> SipSession:
        """Make the session of a link; ``role`` is its transport ("udp", "tcp", "tls")."""
        peer = link.peer
        transport = role or ("tls" if peer.tls else peer.transport)
        host, port = peer.local
        if host in ("0.0.0.0", "::", "") and self.config.domains:  # noqa: S104 - compared, not bound
            host = self.config.domains[0]
        remote = None if transport == "udp" else peer.remote
        session = SipSession(self._settings, transport, (host, port), remote, random=self._random)
        state = self._states[link] = LinkState(link, session, transport)
        if remote is not None:
            self._flows[transport, remote, peer.local] = state
        return session

    def link_closed(self, link: Link, error: Exception | None) -> None:
        state = self._states.pop(link, None)
        if state is None:
            return
        flow = (state.transport, link.peer.remote, link.peer.local)
        if self._flows.get(flow) is state:
            del self._flows[flow]
        state.session.connection_lost("the connection was lost")
        while (event := state.session.next_event()) is not None:
            self._out.take(link, event)
        self._out.link_closed(link)

    def handle_event(self, link: Link, event: object) -> None:
        state = self._states.get(link)
        if state is None:
            return
        if isinstance(event, RequestReceived):
            self._take(Request(state, event.id, event.request, event.source))
        elif isinstance(event, MalformedReceived | PacketDropped):
            log.debug("SIP from %s: %s", event.source[0], event.reason)
        else:
            self._out.take(link, event)

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        return self._out.deliver(delivery)

    async def drain(self) -> None:
        """Refuse new requests and wait until every MESSAGE has its answer and every delivery its end."""
        self._is_draining = True
        while self._tasks or self._answering or self._out.is_busy:  # noqa: ASYNC110 - three ends, once in a lifetime
            await asyncio.sleep(0.02)

    # --- for delivery.py ---------------------------------------------------------------------------------

    def state_of(self, link: Link) -> LinkState | None:
        """What is known of a link, None once it is gone."""
        return self._states.get(link)

    def find_flow(self, device: Device) -> LinkState | None:
        """The connection a device registered on, if it still stands."""
        state = self._flows.get((device.transport, device.remote, device.local))
        return None if state is None or state.session.is_closed else state

    # --- requests, in order per flow ---------------------------------------------------------------------

    @property
    def service(self) -> Service:
        assert self._service is not None, "start() comes first"
        return self._service

    def _take(self, received: Request) -> None:
        refusal = self._refuse_early(received)
        if refusal is not None:
            if refusal:
                self._respond(received, refusal, headers=[("Retry-After", "5")] if refusal == 503 else (), forget=True)
            else:
                received.state.session.drop(received.id)
            return
        if received.request.method == "OPTIONS":
            self._take_options(received)
            return
        waiting = self._waiting.get(received.flow)
        if waiting is not None:
            if len(waiting) < MOST_WAITING:
                waiting.append(received)
            else:
                self._respond(received, 503, headers=[("Retry-After", "5")], forget=True)
            return
        if received.request.method == "MESSAGE" and self._take_at_once(received):
            return
        self._waiting[received.flow] = deque([received])
        task = asyncio.get_running_loop().create_task(self._work(received.flow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _refuse_early(self, received: Request) -> int | None:
        """Status code to refuse with, 0 for silence, None to go on."""
        host, transport = received.source[0], received.state.transport
        if self._is_draining:
            return 503
        if self.service.accounts.guard().is_banned(host):
            return 0 if transport == "udp" else 403
        if transport != "tls" and not self._may_speak_plainly(host):
            return 0 if transport == "udp" else 403
        return None

    def _is_plaintext_network(self, host: str) -> bool:
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return address.is_loopback or any(address in network for network in self._plaintext)

    async def _work(self, flow: str) -> None:
        waiting = self._waiting[flow]
        try:
            while waiting:
                received = waiting.popleft()
                try:
                    await self._handle(received)
                except StoreError as error:
                    log.error("a SIP %s could not be carried out: %s", received.request.method, error)
                    self._respond(received, 503, headers=[("Retry-After", "30")])
                received.state.link.flush()
        finally:
            del self._waiting[flow]

    async def _handle(self, received: Request) -> None:
        try:
            if received.request.method == "REGISTER":
                await self._take_register(received)
                return
            realm = self._realm(received)
            if realm is None:
                return
            given = self._digest.select(self._given(received), realm)
            principal = None
            if given is not None:
                credentials = await self._look_up(given.get("username"), realm)
                principal = self._verify(received, realm, given, credentials)
            else:
                self._challenge(received, realm)
            if principal is not None:
                self._take_message(received, principal)
        except RemoteProtocolError as error:
            self._respond(received, int(error.hint or "400"), reason=error.reason, forget=True)

    def _take_at_once(self, received: Request) -> bool:
        """Handle a MESSAGE whose sender's credentials are at hand, without a task; False if they are not."""
        try:
            realm = self._realm(received)
            if realm is None:
                return True
            given = self._digest.select(self._given(received), realm)
            if given is None:
                self._challenge(received, realm)
                return True
            address = _user(given.get("username"), realm)
            cached = self._credentials.get(address.key) if address else None
            if cached is None or cached[0] + CREDENTIALS_AGE < self.service.clock.now():
                return False
            principal = self._verify(received, realm, given, cached[1])
            if principal is not None:
                self._take_message(received, principal)
        except RemoteProtocolError as error:
            self._respond(received, int(error.hint or "400"), reason=error.reason, forget=True)
        return True

    # --- who is it ---------------------------------------------------------------------------------------

    def _realm(self, received: Request) -> str | None:
        """The domain whose user sends a MESSAGE; answers 403 itself where that is none of ours (S-02, S-13)."""
        uri = received.request.from_.uri
        domain = uri.host if isinstance(uri, SipUri) else uri.rest.rpartition("@")[2].partition("?")[0].lower()
        if uri.scheme not in ("sip", "sips", "im", "pres") or not self.service.accounts.serves(domain):
            self._respond(received, 403, forget=True)
            return None
        return domain

    def _given(self, received: Request) -> list[AuthParams]:
        request = received.request
        return [*request.credentials("authorization"), *request.credentials("proxy-authorization")]

    async def _look_up(self, username: str, realm: str) -> Credentials | None:
        address = _user(username, realm)
        if address is None:
            return None
        credentials = await self.service.accounts.credentials(address)
        self._credentials.pop(address.key, None)
        if credentials is not None:
            self._credentials[address.key] = (self.service.clock.now(), credentials)
            if len(self._credentials) > 10_000:
                self._credentials.popitem(last=False)
        return credentials

    def _verify(
        self, received: Request, realm: str, given: AuthParams, credentials: Credentials | None
    ) -> Address | None:
        """The user if the request proves the password; else the request is answered 401."""
        state, request = received.state, received.request
        now = self.service.clock.now()
        ha1_values: Mapping[str, str] | None = None if credentials is None else credentials.ha1
        verdict = self._digest.check(
            given,
            method=request.method,
            request_uri=request.uri_text,
            body=request.body,
            ha1_values=ha1_values,
            flow=received.flow,
            now=now,
        )
        host = received.source[0]
        if verdict is Verdict.ACCEPTED and credentials is not None:
            self.service.accounts.guard().succeeded(host)
            state.session.prove(received.source, now)
            if state.transport != "udp":
                state.link.authenticated()
            return credentials.address
        if verdict is Verdict.REFUSED:
            state.failures += 1
            self.service.accounts.guard().failed(host, _user(given.get("username"), realm))
        self._challenge(received, realm, is_stale=verdict is not Verdict.REFUSED)
        if state.transport != "udp" and state.failures >= self.config.failures_per_connection:
            state.link.close()
        return None

    def _challenge(self, received: Request, realm: str, *, is_stale: bool = False) -> None:
        now = self.service.clock.now()
        values = self._digest.challenges(realm, received.flow, now, is_stale=is_stale)
        if len(values) > 1 and _OLD_BARESIP.match(received.request.value("user-agent") or ""):
            # COMPAT baresip < 2: gives up at the first challenge whose algorithm is not MD5.
            values = values[-1:]
        self._respond(received, 401, headers=[("WWW-Authenticate", value) for value in values], forget=True)

    # --- MESSAGE -----------------------------------------------------------------------------------------

    def _take_message(self, received: Request, principal: Address) -> None:
        request, service = received.request, self.service
        if not is_sender(str(request.from_.uri), principal):
            self._respond(received, 403)
            return
        if not self._is_for_us(received):
            self._respond(received, 403, reason="No Relaying")
            return
        when = service.clock.when()
        result = request_to_operation(request, when=when, message_id=new_message_id(self._random(12)))
        if isinstance(result, Refusal):
            self._respond(received, result.status_code, reason=result.text, headers=result.headers)
            return
        fingerprint = hashlib.sha256(request.content_type.encode("utf-8", "surrogateescape") + b"\0" + request.body)
        origin = Origin(
            principal,
            self.name,
            received.source[0],
            received.state.transport == "tls",
            ("sip", request.call_id, request.from_.tag, str(request.cseq.number), fingerprint.hexdigest()),
        )
        self._answering.add((received.state.link, received.id))
        service.submit(result, origin).add_done_callback(partial(self._submitted, received, service.clock.now()))

    def _is_for_us(self, received: Request) -> bool:
        """True unless a Route leads elsewhere (S-46); a client may name us as its outbound proxy in its own way."""
        local = received.state.link.peer.local
        hosts = {listener.host for listener in self._listeners} | {local[0]}
        if ip_address(local[0]).is_loopback:
            hosts.add("localhost")
        # A socket bound to every address does not know which of them a phone calls its proxy; nothing is ever sent
        # by a Route, so any address literal with our port will do.
        is_any = ip_address(local[0]).is_unspecified
        default = 5061 if received.state.transport == "tls" else 5060
        for route in received.request.routes:
            uri = route.uri
            assert isinstance(uri, SipUri), "the session refused others"
            host, port = uri.bare_host.lower(), uri.port or default
            is_named = host in hosts or any(host.endswith(f".{domain}") for domain in self.config.domains)
            is_named = is_named or (is_any and _is_literal(host))
            is_here = (is_named and port == local[1]) or (host, port) in {(o.host, o.port) for o in self._listeners}
            if not is_here and not self.service.accounts.serves(uri.host):
                return False
        return True

    def _submitted(self, received: Request, began: float, done: asyncio.Future[Accepted | Response]) -> None:
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
        answering = Answering(received, result.outcome)
        left = max(0.0, began + self.config.answer_wait - self.service.clock.now())
        answering.timer = self.service.clock.call_later(left, partial(self._waited, answering))
        result.outcome.add_done_callback(partial(self._ended, answering))

    def _waited(self, answering: Answering) -> None:
        """The end is not known in time: 202, and the outcome is given up so that a report follows a failure."""
        answering.timer = None
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
        key = received.state.link, received.id
        if key not in self._answering:
            return
        self._answering.discard(key)
        self._respond(received, status_code, reason=reason, headers=headers)
        if self.state_of(received.state.link) is not None:
            received.state.link.flush()

    # --- REGISTER ----------------------------------------------------------------------------------------

    async def _take_register(self, received: Request) -> None:
        request, accounts = received.request, self.service.accounts
        check_contacts(request)
        user = registered_user(request)
        if not accounts.serves(user.host):
            self._respond(received, 404, forget=True)
            return
        given = self._digest.select(self._given(received), user.host)
        if given is None:
            self._challenge(received, user.host)
            return
        credentials = await self._look_up(given.get("username"), user.host)
        principal = self._verify(received, user.host, given, credentials)
        if principal is None:
            return
        if not is_sender(str(user), principal) or not is_sender(str(request.from_.uri), principal):
            self._respond(received, 403)
            return
        if self.state_of(received.state.link) is None:
            return
        lock = self._registering.setdefault(principal.key, asyncio.Lock())
        async with lock:
            await self._register(received, principal)

    async def _register(self, received: Request, aor: Address) -> None:
        service, request = self.service, received.request
        state, now = received.state, service.clock.when().timestamp()
        contacts = service.registrar.contacts(aor)
        devices = [Device.decode(contact.data) for contact in contacts if contact.binding == self.name]
        flow = Flow(state.transport, received.source, state.link.peer.local)
        others = len(contacts) - len(devices)
        gone = {device.id for device in devices if device.transport != "udp" and self.find_flow(device) is None}
        plan = plan_registration(request, devices, flow, self._rules, now=now, others=others, gone=gone)
        if plan.status_code == 200:
            await self._carry_out(plan, aor)
        if plan.status_code != 200:
            self._respond(received, plan.status_code, headers=plan.headers)
            return
        headers = [("Date", format_datetime(service.clock.when(), usegmt=True))]
        for contact in service.registrar.contacts(aor):
            if contact.binding == self.name:
                headers.append(("Contact", Device.decode(contact.data).contact_value(now)))
        self._respond(received, 200, headers=headers)

    async def _carry_out(self, plan: Plan, aor: Address) -> None:
        registrar = self.service.registrar
        for device in plan.remove:
            await registrar.unregister(aor, self.name, device.id)
        for device, lease in plan.keep:
            contact = Contact(
                device.id,
                aor,
                self.name,
                priority=device.priority,
                is_durable=True,
                data=device.encode(),
            )
            await registrar.register(contact, float(lease))

    # --- OPTIONS and answers -----------------------------------------------------------------------------

    def _take_options(self, received: Request) -> None:
        """Say what we can (RFC 3261 section 11.2); whether a user exists is not said to strangers."""
        uri = received.request.uri
        is_ours = isinstance(uri, SipUri) and (
            self.service.accounts.serves(uri.host) or any(uri.bare_host == one.host for one in self._listeners)
        )
        if not is_ours:
            self._respond(received, 404, forget=True)
            return
        headers = [
            ("Allow", ", ".join(sorted(METHODS))),
            ("Accept", ACCEPT),
            ("Accept-Encoding", "identity"),
            ("Supported", ""),
        ]
        self._respond(received, 200, headers=headers, forget=True)

    def _respond(
        self,
        received: Request,
        status_code: int,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        forget: bool = False,
    ) -> None:
        received.state.session.respond(
            received.id, status_code, self.service.clock.now(), reason=reason, headers=headers, is_stateless=forget
        )


@lru_cache(maxsize=4096)
def _user(username: str, realm: str) -> Address | None:
    """The account a digest username names: ``alice`` or ``alice@realm``."""
    try:
        return Address.im(username.removesuffix(f"@{realm}"), realm)
    except AddressError:
        return None


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def parse_listener(url: str) -> Listener:
    """Read ``udp://HOST:PORT`` and the like; raises ConfigError."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    transports: dict[str, Transport] = {"udp": "udp", "tcp": "tcp", "tls": "tls"}
    transport = transports.get(url.partition(":")[0])
    if transport is None or not host or port is None:
        raise ConfigError("sip.listen", f"{url!r} is not an address to listen at.", 'Write "udp://127.0.0.1:5060".')
    return Listener(transport, host, port, role=transport)

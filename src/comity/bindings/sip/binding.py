"""SIP glue: listeners, links, and every request's way to who answers it.

Place on the path: steps 3 to 5. A request goes: limits and bans here, the sender by ``authentication.py``, then
``submission.py`` (MESSAGE; of a peer server by ``trunk.py``), ``registrar.py`` (REGISTER), ``publishing.py`` (PUBLISH) or ``notifier.py`` (SUBSCRIBE);
deliveries leave by ``delivery.py``. Requests of one flow are taken one after the other up to ``submit``, so what came first
is stored first; nothing waits longer than that for another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from comity.bindings.base import HostPort, Link, Listener, Network, Transport
from comity.bindings.sip.abroad import SipAbroad
from comity.bindings.sip.authentication import Authentication
from comity.bindings.sip.coding import ACCEPT_ENCODING
from comity.bindings.sip.config import SipConfig
from comity.bindings.sip.connections import Connections
from comity.bindings.sip.delivery import DeviceDelivery
from comity.bindings.sip.digest import DigestServer
from comity.bindings.sip.events import MalformedReceived, PacketDropped, RequestReceived
from comity.bindings.sip.exchange import Exchanges
from comity.bindings.sip.keeping import Keeper
from comity.bindings.sip.lists import EXTENSIONS as LIST_EXTENSIONS
from comity.bindings.sip.mapping import (
    ACCEPT,
    Refusal,
    can_be_user,
    response_to_status,
)
from comity.bindings.sip.notifier import Notifier
from comity.bindings.sip.outbound import OPTION
from comity.bindings.sip.packages import ALLOW_EVENTS
from comity.bindings.sip.protection import OPTION as PROTECTION
from comity.bindings.sip.publishing import Publishing
from comity.bindings.sip.registrar import Registrar
from comity.bindings.sip.registration import Device, Rules
from comity.bindings.sip.requests import LinkState, Request
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.submission import Submission
from comity.bindings.sip.subscriptions import request_to_subscription
from comity.bindings.sip.trunk import Trunk
from comity.bindings.sip.uri import SipUri
from comity.bindings.sip.ways import Ways
from comity.bindings.sip.wire import Limits
from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.errors import ConfigError, RemoteProtocolError, StoreError
from comity.service.interfaces import Delivery, Origin, Service

log = logging.getLogger(__name__)

METHODS = frozenset({"MESSAGE", "OPTIONS", "REGISTER"})
PATH = "path"
"""RFC 3327: a phone may register through proxies that want to be passed on the way back."""
PRESENCE_METHODS = frozenset({"PUBLISH", "SUBSCRIBE"})
#: With presence switched off: asked for in another's name it is refused as forged all the same (SEC-31, SEC-33).
ASKED = PRESENCE_METHODS
#: What waits for nothing once its sender is known.
AT_ONCE = frozenset({"MESSAGE", "PUBLISH"})
#: Requests of one flow waiting for their turn; more are answered 503.
MOST_WAITING = 256


class SipBinding:
    """The SIP binding of a server (see ``bindings.base.Binding``)."""

    name = "sip"

    def __init__(self, config: SipConfig, *, random: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self.config = config
        self.random = random
        self._listeners = [parse_listener(url) for url in config.listen]
        self._settings = SessionSettings(
            methods=METHODS,
            asked=ASKED,
            extensions=frozenset({OPTION, PATH, PROTECTION}),
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
                uri=config.uri_octets,
                method=config.method_octets,
            ),
            unproved_requests=config.unproved_requests,
            unproved_window=config.unproved_window,
        )
        self._plaintext = [ip_network(text) for text in config.plaintext_from]
        self._states: dict[Link, LinkState] = {}
        self._flows: dict[tuple[str, HostPort, HostPort], LinkState] = {}
        """Connections by transport, remote and local address."""
        self._waiting: dict[str, deque[Request]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._service: Service | None = None
        self._network: Network | None = None
        digest = DigestServer(random(32), is_md5_offered=config.sip_md5, lifetime=config.nonce_lifetime)
        self._authentication = Authentication(self, digest)
        self._submission = Submission(self)
        rules = Rules(config.min_expires, config.max_expires, config.max_contacts)
        self._registrar = Registrar(self, self._authentication, rules)
        self.connections = Connections(self)
        self._out = DeviceDelivery(self)
        self.exchanges = Exchanges(self)
        self.keeper = Keeper(self)
        self.trunk = Trunk(self)
        self.ways = Ways(self)
        self.abroad = SipAbroad(self)
        self._publishing = Publishing(self)
        self._notifier = Notifier(self)
        self._may_speak_plainly = lru_cache(maxsize=4096)(self._is_plaintext_network)

    # --- Binding -----------------------------------------------------------------------------------------

    def listeners(self) -> Sequence[Listener]:
        return self._listeners

    async def start(self, service: Service, network: Network) -> None:
        self._service, self._network = service, network
        if service.presence is not None:
            extensions = self._settings.extensions | LIST_EXTENSIONS
            methods = METHODS | PRESENCE_METHODS | {"NOTIFY"}
            self._settings = replace(self._settings, methods=methods, extensions=extensions)
            self._notifier.start(service.presence)
            self.abroad.start(service.presence)
        self._out.start(service, network)
        await self._authentication.start()
        self.keeper.start()

    def new_session(self, link: Link, role: str) -> SipSession:
        """Make the session of a link; ``role`` is its transport ("udp", "tcp", "tls")."""
        peer = link.peer
        transport = role or ("tls" if peer.tls else peer.transport)
        host, port = peer.local
        if host in ("0.0.0.0", "::", "") and self.config.domains:  # noqa: S104 - compared, not bound
            host = self.config.domains[0]
        remote = None if transport == "udp" else peer.remote
        before = None if self._service is None or self._service.is_first_life else self._service.clock.now()
        session = SipSession(self._settings, transport, (host, port), remote, random=self.random, restarted=before)
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
            self._take_own(link, event)
        self.connections.link_closed(link)

    def handle_event(self, link: Link, event: object) -> None:
        state = self._states.get(link)
        if state is None:
            return
        if isinstance(event, RequestReceived):
            self._take(Request(state, event.id, event.request, event.source))
        elif isinstance(event, MalformedReceived | PacketDropped):
            log.info("SIP from %s was not understood: %s", event.source[0], event.reason, extra={"is_peers": True})
        else:
            self._take_own(link, event)

    def _take_own(self, link: Link, event: object) -> None:
        """Take an event about a request of ours."""
        if not (self.exchanges.take_event(link, event) or self._notifier.take_event(link, event)):
            self._out.take(link, event)

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        return (self.trunk if delivery.contact.is_hop else self._out).deliver(delivery)

    async def drain(self) -> None:
        """Refuse new requests and wait until every MESSAGE has its answer and every delivery its end."""
        self._is_draining = True
        self.keeper.stop()
        while self._tasks or self._submission.is_busy or self._out.is_busy or self.exchanges.is_busy:  # noqa: ASYNC110 - four ends, once in a lifetime
            await asyncio.sleep(0.02)

    # --- for the parts -----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        assert self._service is not None, "start() comes first"
        return self._service

    @property
    def is_started(self) -> bool:
        """False while the server comes up: what is stored is taken up before ``start``."""
        return self._network is not None

    @property
    def network(self) -> Network:
        assert self._network is not None, "start() comes first"
        return self._network

    def state_of(self, link: Link) -> LinkState | None:
        """What is known of a link, None once it is gone."""
        return self._states.get(link)

    def find_flow(self, aor: Address, device: Device) -> LinkState | None:
        """The connection a device registered on, if it still stands."""
        state = self.flow(device.transport, device.remote, device.local)
        return state if state is not None and (aor.key, device.id) in state.registered else None

    def flow(self, transport: str, remote: HostPort, local: HostPort) -> LinkState | None:
        """The open connection between two addresses; whose it is now is not said."""
        state = self._flows.get((transport, remote, local))
        return None if state is None or state.session.is_closed else state

    def datagram_state(self, local: HostPort) -> LinkState | None:
        """The socket bound to ``local``."""
        link = None if self._network is None else self._network.datagram_link(self, local)
        return None if link is None else self._states.get(link)

    def is_for_us(self, received: Request) -> bool:
        """True unless a Route leads elsewhere (S-46)."""
        return self._submission.is_for_us(received)

    def is_here(self, uri: SipUri, state: LinkState) -> bool:
        """True if a URI names the very place at which a request came in, or another listener of ours."""
        local = state.link.peer.local
        hosts = {listener.host for listener in self._listeners} | {local[0]}
        if ip_address(local[0]).is_loopback:
            hosts.add("localhost")
        # A socket bound to every address does not know which of them a phone calls its proxy; nothing is ever sent
        # by a Route, so any address literal with our port will do.
        is_any = ip_address(local[0]).is_unspecified
        host, port = uri.bare_host.lower(), uri.port or (5061 if state.transport == "tls" else 5060)
        is_named = host in hosts or any(host.endswith(f".{domain}") for domain in self.config.domains)
        is_named = is_named or (is_any and _is_literal(host))
        return (is_named and port == local[1]) or (host, port) in {(one.host, one.port) for one in self._listeners}

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Do something that waits, beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def refuse(self, received: Request, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self.respond(received, refusal.status_code, reason=refusal.text, headers=refusal.headers)

    def respond(
        self,
        received: Request,
        status_code: int,
        *,
        reason: str = "",
        headers: Sequence[tuple[str, str]] = (),
        forget: bool = False,
    ) -> None:
        """Answer a request; ``forget`` keeps no transaction: for challenges and refusals of strangers (S-01)."""
        received.state.session.respond(
            received.id, status_code, self.service.clock.now(), reason=reason, headers=headers, is_stateless=forget
        )

    # --- requests, in order per flow ---------------------------------------------------------------------

    def _take(self, received: Request) -> None:
        refusal = self._refuse_early(received)
        if refusal is not None:
            if refusal:
                self.respond(received, refusal, headers=[("Retry-After", "5")] if refusal == 503 else (), forget=True)
            else:
                received.state.session.drop(received.id)
            return
        if received.request.method == "OPTIONS":
            self._take_options(received)
            return
        if received.request.method == "NOTIFY":
            self._take_notify(received)
            return
        waiting = self._waiting.get(received.flow)
        if waiting is not None:
            if len(waiting) < MOST_WAITING:
                waiting.append(received)
            else:
                self.respond(received, 503, headers=[("Retry-After", "5")], forget=True)
            return
        if received.request.method in AT_ONCE and self._take_at_once(received):
            return
        self._waiting[received.flow] = deque([received])
        task = asyncio.get_running_loop().create_task(self._work(received.flow))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _take_notify(self, received: Request) -> None:
        """What a peer server tells about its people; nobody else has anything to tell (SEC-36)."""
        try:
            self.abroad.take_notify(received)
        except RemoteProtocolError as error:
            self.respond(received, int(error.hint or "400"), reason=error.reason, forget=True)

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
                    self.respond(received, 503, headers=[("Retry-After", "30")])
                received.state.link.flush()
        finally:
            del self._waiting[flow]

    async def _handle(self, received: Request) -> None:
        who = self._authentication
        try:
            if received.request.method == "REGISTER":
                await self._registrar.take(received)
                return
            if self._take_from_peer(received) or await self._watch_from_peer(received):
                return
            realm = who.realm(received)
            if realm is None:
                return
            given = who.select(received, realm)
            if given is None:
                who.challenge(received, realm)
                return
            found = who.at_hand(given, realm)
            credentials = found[0] if found is not None else await who.look_up(given, realm)
            principal = who.verify(received, realm, given, credentials)
            if principal is not None:
                await self._take_from(received, principal)
        except RemoteProtocolError as error:
            self.respond(received, int(error.hint or "400"), reason=error.reason, forget=True)

    def _take_at_once(self, received: Request) -> bool:
        """Handle a request whose sender's credentials are at hand, without a task; False if that is not possible."""
        who, presence = self._authentication, self.service.presence
        is_publish = received.request.method == "PUBLISH"
        if is_publish and presence is None:
            return False
        try:
            if self._take_from_peer(received):
                return True
            realm = who.realm(received)
            if realm is None:
                return True
            given = who.select(received, realm)
            if given is None:
                who.challenge(received, realm)
                return True
            found = who.at_hand(given, realm)
            if found is None:
                return False
            principal = who.verify(received, realm, given, found[0])
            if principal is not None and is_publish and presence is not None:
                self._publishing.take(received, principal, presence)
            elif principal is not None:
                self._submission.take(received, principal)
        except RemoteProtocolError as error:
            self.respond(received, int(error.hint or "400"), reason=error.reason, forget=True)
        return True

    def _take_from_peer(self, received: Request) -> bool:
        """Take a MESSAGE that a peer server hands in for a user of its own; False if the sender is to prove who it is."""
        domains = self.trunk.takes(received) if received.request.method == "MESSAGE" else None
        if not domains:
            return False
        self._submission.take_from_peer(received, domains)
        return True

    async def _watch_from_peer(self, received: Request) -> bool:
        """Take a SUBSCRIBE that a peer server hands in for a user of its own; False if the watcher is to prove who it is."""
        is_asked = received.request.method == "SUBSCRIBE" and self.service.presence is not None
        watcher = self.trunk.sender(received) if is_asked else None
        if watcher is None:
            return False
        await self._notifier.take_from_peer(received, watcher)
        return True

    async def _take_from(self, received: Request, principal: Address) -> None:
        """Hand an authenticated request to who answers it."""
        method, presence = received.request.method, self.service.presence
        if method == "MESSAGE":
            self._submission.take(received, principal)
        elif presence is None:
            await self._refuse_presence(received, principal)
        elif method == "PUBLISH":
            self._publishing.take(received, principal, presence)
        else:
            await self._notifier.take(received, principal)

    async def _refuse_presence(self, received: Request, principal: Address) -> None:
        """Presence is switched off. A subscription is refused as forged if it is in another's name (SEC-31, SEC-33), for a proof
        that does not hold or is missing where one is demanded (SEC-34), else as not done here. No state."""
        if received.request.method == "PUBLISH":
            self.respond(received, 405, headers=[("Allow", ", ".join(sorted(METHODS)))])
            return
        made = request_to_subscription(received.request)
        if isinstance(made, Refusal):
            self.refuse(received, made)
            return
        origin = Origin(principal, self.name, received.source[0], received.state.transport == "tls")
        refusal = await self.service.admit_subscription(made, origin)
        if refusal is not None:
            status_code, reason, headers = response_to_status(refusal)
            self.respond(received, status_code, reason=reason, headers=headers)
        elif received.request.to.tag:
            self.respond(received, 481)  # in a dialog that nobody has (N-08)
        else:
            self.respond(received, 405, headers=[("Allow", ", ".join(sorted(METHODS)))])

    # --- OPTIONS -----------------------------------------------------------------------------------------

    def _take_options(self, received: Request) -> None:
        """Say what we can (RFC 3261 section 11.2); whether a user exists is not said to strangers.

        A user part that no account can have is answered 404: that tells nothing (semiuri of RFC 4475).
        """
        uri = received.request.uri
        is_ours = isinstance(uri, SipUri) and (
            (self.service.accounts.serves(uri.host) and can_be_user(uri))
            or any(uri.bare_host == one.host for one in self._listeners)
            or self.is_here(uri, received.state)
        )
        if not is_ours:
            self.respond(received, 404, forget=True)
            return
        has_presence = self.service.presence is not None
        methods = METHODS | PRESENCE_METHODS | {"NOTIFY"} if has_presence else METHODS
        headers = [
            ("Allow", ", ".join(sorted(methods))),
            *([ALLOW_EVENTS] if has_presence else []),
            ("Accept", ACCEPT),
            ("Accept-Encoding", ACCEPT_ENCODING),
            ("Supported", f"{OPTION}, {PATH}, {PROTECTION}"),
        ]
        self.respond(received, 200, headers=headers, forget=True)


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

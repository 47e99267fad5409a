"""APEX's glue, the relay of RFC 3340: listeners wanted, sessions made, their events handed to the part that knows what to do.

Place on the path: between steps 3 and 4, and 7 and 8. One ``Connection`` a client. The parts: ``attachments.py`` (who is here),
``submission.py`` (the way up), ``delivery.py`` (the way down), ``service_data.py`` (what services say and are told), ``mesh.py`` and
``relaying.py`` (other relays). What is promised stands there.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from comity import sasl
from comity.beep.options import BeepOptions
from comity.beep.sasl_server import SaslOptions
from comity.bindings.apex import events
from comity.bindings.apex.access_service import AccessService
from comity.bindings.apex.attachments import Attachments
from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.delivery import EndpointDelivery
from comity.bindings.apex.elements import (
    Attach,
    Bind,
    CoreElement,
    Data,
    Error,
    Ok,
    Option,
    Part,
    ServiceElement,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.ground import Connection, Ground
from comity.bindings.apex.interfaces import WellKnown
from comity.bindings.apex.mapping import PROTOCOL
from comity.bindings.apex.mesh import OURS, Mesh
from comity.bindings.apex.presence_service import PresenceWellKnown
from comity.bindings.apex.rates import Rates
from comity.bindings.apex.relaying import Relaying
from comity.bindings.apex.report import NAME as REPORT
from comity.bindings.apex.report import ReportService
from comity.bindings.apex.service_data import ServiceData
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.signing_in import Role, SessionOptions
from comity.bindings.apex.submission import Submissions
from comity.bindings.base import Link, Listener, Network
from comity.cpim.address import Address
from comity.cpim.operations import Response
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Delivery, ScramKeys, Service

log = logging.getLogger(__name__)

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_STOPPING = "the server is stopping"
GOODBYE_SECONDS = 2.0
"""How long a peer may take to agree to the release of its session when the server stops."""


class ApexBinding:
    """The binding of APEX.

    Args:
        config: its options.
        random: gives that many random octets.
    """

    name = PROTOCOL

    def __init__(self, config: ApexConfig, random: Callable[[int], bytes] = os.urandom) -> None:
        self._ground = ground = Ground(config, random)
        self._attachments = Attachments(ground)
        self._delivery = EndpointDelivery(ground, self._attachments)
        # What stands behind the well-known endpoints of our domains.
        services: list[WellKnown] = [AccessService(), PresenceWellKnown(), ReportService()]
        self._services = {service.name: service for service in services}
        self._mesh = Mesh(self, ground)
        self._data = ServiceData(self, self._services, self._mesh, self._delivery.send, ground.new_trans_id)
        self._submissions = Submissions(ground, self._attachments, self._data.take, self._report)
        self._relaying = Relaying(ground, self._mesh, self._submissions, self._data)
        self._mesh.on_call = self._relaying.called
        self._exempt = [ipaddress.ip_network(network) for network in (*_LOOPBACK, *config.plaintext_from)]
        self._dummy_key = random(32)
        self._is_empty = asyncio.Event()
        """Set by the last link to close while draining."""
        self._handlers: dict[type, Callable[[Connection, Any], None]] = {
            events.TlsWanted: self._tls_wanted,
            events.CredentialsWanted: self._credentials_wanted,
            events.PasswordCheckWanted: self._password_check_wanted,
            events.ExternalCheckWanted: self._external_check_wanted,
            events.SignInSucceeded: self._sign_in_succeeded,
            events.SignInFailed: self._sign_in_failed,
            events.ElementReceived: self._element_received,
            events.Answered: self._answered,
            events.ChannelClosed: self._channel_closed,
            events.ReleaseRefused: self._release_refused,
            events.SessionEnded: self._session_ended,
        }

    # --- the binding contract ----------------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        return self._ground.service

    def listeners(self) -> Sequence[Listener]:
        """The configured addresses; endpoints and relays come by the same ones."""
        return [Listener(a.transport, a.host, a.port) for a in self._ground.config.listen]

    async def start(self, service: Service, network: Network) -> None:
        """Remember both, and start our services."""
        self._ground.start(service, network)
        for known in self._services.values():
            known.start(self)

    def new_session(self, link: Link, role: str) -> ApexSession:
        """A session for a peer that just connected, or that we call."""
        config, now = self._ground.config, self.service.clock.now()
        is_ours = role.startswith(OURS)
        kind: Role = "initiator" if is_ours else "listener"
        session = ApexSession(kind, self._options(link), partial(_end_point, link), self._ground.random, now)
        rates = Rates(config.user_messages, config.user_message_burst, config.user_octets, config.message, now)
        connection = Connection(link, session, rates, is_exempt=self._is_exempt(link))
        self._ground.connections[link] = connection
        if is_ours:
            self._mesh.begin(link, role, session)
        elif self._ground.is_draining:
            session.close(_STOPPING)
        elif self.service.accounts.guard().is_banned(connection.host):
            session.close("too many failed attempts from this address")
        return session

    def _options(self, link: Link) -> SessionOptions:
        config = self._ground.config
        return SessionOptions(
            BeepOptions(
                window=config.window,
                window_max=config.window_max,
                frame=config.frame,
                channels=config.channels,
                message=config.message,
                greeting_deadline=config.pre_auth_time,
                frame_deadline=config.idle_time,
            ),
            has_tls=config.has_tls,
            sign_in=SaslOptions(
                self._dummy_key,
                hashes=("sha-512", "sha-256", "sha-1") if config.scram_sha1 else ("sha-512", "sha-256"),
                iterations=config.scram_iterations,
                allow_clear=self._is_exempt(link),
                has_external=True,
                max_failures=config.failures_per_connection,
            ),
            pre_auth_seconds=config.pre_auth_time,
        )

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of a link's session."""
        if (calling := self._mesh.calling(link)) is not None:
            calling.handle_event(event)
            return
        connection = self._ground.connections.get(link)
        if connection is not None and (handler := self._handlers.get(type(event))) is not None:
            handler(connection, event)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone, and with it everything that was attached by it."""
        connections = self._ground.connections
        connection = connections.pop(link, None)
        if connection is not None:
            connection.is_live = False
            if connection.throttle_timer is not None:
                connection.throttle_timer.cancel()
            self._attachments.lost(connection)
        self._relaying.link_closed(link, error)
        if not connections:
            self._is_empty.set()

    async def drain(self) -> None:
        """Say goodbye to every client; returns when what they sent is durable and the links are gone."""
        ground = self._ground
        ground.is_draining = True
        if self._submissions.pending:
            await asyncio.wait(self._submissions.pending)
        await self._data.drain()
        await self._mesh.drain()
        for connection in list(ground.connections.values()):
            if connection.attachments:
                channel = next(iter(connection.attachments))[0]
                connection.session.send(channel, Terminate(0, 421, _STOPPING))
            connection.session.release()
            connection.link.flush()
        if ground.connections:
            patience = self.service.clock.call_later(GOODBYE_SECONDS, self._hang_up)
            self._is_empty.clear()
            await self._is_empty.wait()
            patience.cancel()
        if self._submissions.pending:
            await asyncio.wait(self._submissions.pending)
        if ground.tasks:
            await asyncio.wait(ground.tasks)

    def _hang_up(self) -> None:
        """Those who did not say goodbye too do not hold up the end."""
        for connection in list(self._ground.connections.values()):
            connection.link.close()

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Write a message to an application, or to the relay of another domain."""
        if delivery.contact.is_hop:
            return self._relaying.deliver(delivery)
        return self._delivery.deliver(delivery)

    # --- sign-in -------------------------------------------------------------------------------------------------------

    def _tls_wanted(self, connection: Connection, event: events.TlsWanted) -> None:
        connection.link.start_tls()
        connection.session.tls_started(self.service.clock.now())

    def _credentials_wanted(self, connection: Connection, event: events.CredentialsWanted) -> None:
        self._ground.run(self._look_up(connection, event))

    async def _look_up(self, connection: Connection, event: events.CredentialsWanted) -> None:
        try:
            secrets = await self._secrets(event.username, event.authzid)
        except StoreError as error:
            log.error("an account cannot be looked up: %s", error)
            connection.session.fail_sign_in(454, "Accounts cannot be asked now.")
        else:
            connection.session.credentials(secrets)
        connection.link.flush()

    async def _secrets(self, username: str, authzid: str) -> dict[str, sasl.ScramSecret] | None:
        """What proves the account; None if there is none that may sign in as that, and the exchange fails like any other (X-33)."""
        try:
            account = self._account(username)
            if authzid and self._account(authzid) != account:
                return None
        except AddressError:
            return None
        found = await self.service.accounts.credentials(account)
        return None if found is None else {name: _secret(keys) for name, keys in found.scram.items()}

    def _account(self, name: str) -> Address:
        """Whom a peer means by ``alice`` or ``alice@a.test``. Raises AddressError."""
        local, at, domain = name.rpartition("@")
        return Address.im(local if at else name, domain if at else self._ground.config.domains[0]).folded()

    def _password_check_wanted(self, connection: Connection, event: events.PasswordCheckWanted) -> None:
        self._ground.run(self._check_password(connection, event))

    async def _check_password(self, connection: Connection, event: events.PasswordCheckWanted) -> None:
        is_right = False
        try:
            is_right = await asyncio.to_thread(sasl.check_password, event.password, event.hash_name, event.secret)
        finally:
            connection.session.password_checked(is_right)
            connection.link.flush()

    def _external_check_wanted(self, connection: Connection, event: events.ExternalCheckWanted) -> None:
        """A relay is known by its certificate: it is whichever of the domains it proved it says it is."""
        tls = connection.link.peer.tls
        domains = self.service.peers.proved(connection.host, () if tls is None else tls.names)
        wanted = event.authzid or min(domains, default="")
        is_proved = wanted in domains or (bool(wanted) and "*" in domains)
        connection.session.external_checked(wanted if is_proved else None)

    def _sign_in_succeeded(self, connection: Connection, event: events.SignInSucceeded) -> None:
        if event.mechanism != "EXTERNAL":
            connection.account = self._account(event.identity)
        connection.link.authenticated()
        self.service.accounts.guard().succeeded(connection.host)

    def _sign_in_failed(self, connection: Connection, event: events.SignInFailed) -> None:
        try:
            account = self._account(event.identity) if event.identity else None
        except AddressError:
            account = None
        guard = self.service.accounts.guard()
        guard.failed(connection.host, account)
        if guard.is_banned(connection.host):
            connection.session.close("too many failed attempts from this address")

    # --- elements ------------------------------------------------------------------------------------------------------

    def _element_received(self, connection: Connection, event: events.ElementReceived) -> None:
        element = event.element
        copies = len(element.recipients) if isinstance(element, Data) else 1
        connection.rates.take(copies, len(event.raw), self.service.clock.now())
        answer = self._taken(connection, event.channel, event.element)
        if isinstance(answer, asyncio.Future):
            if not answer.done():
                connection.submitting.add(answer)
                answer.add_done_callback(partial(self._submitted, connection, event))
                self._submissions.throttle(connection)
                return
            answer = answer.result()
        connection.session.answer(event.channel, event.msgno, answer)
        self._submissions.throttle(connection)

    def _taken(
        self, connection: Connection, channel: int, element: CoreElement
    ) -> Ok | Error | asyncio.Future[Ok | Error]:
        if self._ground.is_draining and isinstance(element, Attach | Bind):
            return Error(421, _STOPPING)  # data that crosses our goodbye is taken and answered like any other
        match element:
            case Data() if self._relaying.is_relay(connection.link):
                return self._relaying.data(connection, element)
            case Data():
                return self._submissions.data(connection, element)
            case Attach():
                return self._attachments.attach(connection, channel, element)
            case Terminate():
                unbound = self._relaying.terminate(connection, channel, element)
                return unbound or self._attachments.terminate(connection, channel, element)
            case Bind():
                return self._relaying.bind(connection, channel, element)
            case _:
                return Error(501, "a reply where a request belongs")

    def _submitted(
        self, connection: Connection, event: events.ElementReceived, done: asyncio.Future[Ok | Error]
    ) -> None:
        connection.submitting.discard(done)
        if connection.is_live:
            connection.session.answer(event.channel, event.msgno, done.result())
            connection.link.flush()
        self._submissions.throttle(connection)

    def _answered(self, connection: Connection, event: events.Answered) -> None:
        if not self._relaying.answered(connection.link, event.handle, event.element):
            self._delivery.answered(connection, event.handle, event.element)

    def _channel_closed(self, connection: Connection, event: events.ChannelClosed) -> None:
        self._attachments.channel_closed(connection, event.channel)
        self._relaying.channel_closed(connection, event.channel)

    def _release_refused(self, connection: Connection, event: events.ReleaseRefused) -> None:
        connection.link.close()

    def _session_ended(self, connection: Connection, event: events.SessionEnded) -> None:
        if event.is_error:
            log.info("an APEX session with %s ended: %s", connection.host, event.reason)
            connection.link.abort()
        else:
            connection.link.close()

    # --- what services ask of the relay (``interfaces.Relay``) ----------------------------------------------------------

    def is_attached(self, endpoint: Endpoint) -> bool:
        """See ``Relay.is_attached``."""
        return self._attachments.find(endpoint) is not None

    def on_attached(self, told: Callable[[Endpoint], None]) -> None:
        """See ``Relay.on_attached``."""
        self._attachments.on_attached(told)

    def say(
        self, name: str, domain: str, to: Endpoint, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> asyncio.Future[bool]:
        """See ``Relay.say``."""
        return self._data.say(name, domain, to, element, options)

    def _report(self, originator: Endpoint, about: Endpoint, element: StatusResponse) -> None:
        domain = about.domain if self._ground.is_ours(about.domain) else self.service.node
        self.say(REPORT, domain, originator, element)

    # --- small parts ---------------------------------------------------------------------------------------------------

    def _is_exempt(self, link: Link) -> bool:
        try:
            address = ipaddress.ip_address(link.peer.remote[0].partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._exempt)


def _end_point(link: Link) -> bytes | None:
    tls = link.peer.tls
    return None if tls is None else tls.server_end_point


def _secret(keys: ScramKeys) -> sasl.ScramSecret:
    return sasl.ScramSecret(keys.salt, keys.iterations, keys.stored_key, keys.server_key)

"""XMPP's glue: listeners wanted, sessions made, their events handed to the part that knows what to do.

Place on the path: between steps 3 and 4, and 7 and 8. One ``Connection`` a client. The parts: ``submission.py`` (the way
up), ``delivery.py`` (the way down), ``streams.py`` (resource, resumption, end), ``availability.py`` (presence). What is
promised stands in the first two.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from comity import sasl
from comity.bindings.base import Link, Listener, Network
from comity.bindings.xmpp import events, queries, wire
from comity.bindings.xmpp.asking import Asking
from comity.bindings.xmpp.availability import Availability
from comity.bindings.xmpp.blocking import Blocklists
from comity.bindings.xmpp.carbons import Carbons
from comity.bindings.xmpp.components import Components
from comity.bindings.xmpp.config import XmppConfig
from comity.bindings.xmpp.delivery import DeviceDelivery
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.directed import Directed
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.neighbours import Neighbours
from comity.bindings.xmpp.personal import Personal
from comity.bindings.xmpp.presence_abroad import PresenceAbroad
from comity.bindings.xmpp.rates import Rates
from comity.bindings.xmpp.roster import ContactLists
from comity.bindings.xmpp.servers import Servers
from comity.bindings.xmpp.session import ServerOptions, XmppServerSession
from comity.bindings.xmpp.stream import XmppStream
from comity.bindings.xmpp.streams import Streams
from comity.bindings.xmpp.submission import Submissions
from comity.bindings.xmpp.vcard import Cards
from comity.bindings.xmpp.watching import Watching
from comity.bindings.xmpp.ways import Ways
from comity.bindings.xmpp.wire import IQ, MESSAGE, Element
from comity.cpim.address import Address, from_jid
from comity.cpim.operations import EndReason, NotifyOperation, Response
from comity.errors import AddressError
from comity.service.interfaces import Delivery, ScramKeys, Service
from comity.service.presence.interfaces import ContactItem, Content, Subscription
from comity.xml import XmlLimits


class _Queries(Protocol):
    """A part that answers iqs to an account."""

    def takes(self, stanza: Element) -> bool: ...

    def query(self, connection: Connection, stanza: Element) -> Coroutine[None, None, None]: ...


class XmppBinding:
    """The binding of client-to-server XMPP.

    Args:
        config: its options.
        random: gives that many random octets.
    """

    name = "xmpp"

    def __init__(self, config: XmppConfig, random: Callable[[int], bytes] = os.urandom) -> None:
        self._ground = ground = Ground(config, random)
        self._lists = ContactLists(ground)
        self._blocklists = Blocklists(ground)
        self._asking = Asking(ground, self._blocklists)
        self._watching = Watching(ground)
        self._directed = Directed(ground, self._blocklists)
        self._personal = Personal(ground)
        self._cards = Cards(ground)
        self._availability = Availability(ground, self._asking, self._watching, self._directed, self._personal)
        self._delivery = DeviceDelivery(ground)
        self._submissions = Submissions(ground, self._blocklists)
        self._carbons = Carbons(ground)
        self._streams = streams = Streams(ground, self._availability, self._delivery, self._carbons)
        self._neighbours = Neighbours(ground, self._ways(), self)
        self._neighbours.inquiries.parts = (self._personal, self._cards)
        self._presence_abroad = PresenceAbroad(ground, self._neighbours)
        self._exempt = [ipaddress.ip_network(network) for network in config.plaintext_from]
        self._dummy_key = random(32)
        self._is_empty = asyncio.Event()
        """Set by the last link to close while draining."""
        self._handlers: dict[type, Callable[[Connection, Any], None]] = {
            events.TlsWanted: self._tls_wanted,
            events.CredentialsWanted: self._credentials_wanted,
            events.PasswordCheckWanted: self._password_check_wanted,
            events.SignInSucceeded: self._sign_in_succeeded,
            events.SignInFailed: self._sign_in_failed,
            events.ResourceBound: streams.resource_bound,
            events.ResumeWanted: streams.resume_wanted,
            events.Resumed: streams.resumed,
            events.SmEnabled: streams.sm_enabled,
            events.StanzaReceived: self._stanza_received,
            events.CountWanted: streams.count_wanted,
            events.StanzasAcknowledged: self._acknowledged,
            events.StreamEnded: streams.stream_ended,
        }

    # --- the binding contract ----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        return self._ground.service

    def _ways(self) -> Sequence[Ways]:
        """The kinds of ways to other servers; a domain goes by the first that carries it."""
        return Components(self._ground), Servers(self._ground)

    def listeners(self) -> Sequence[Listener]:
        """The configured addresses of clients, other servers and components."""
        clients = [Listener(a.transport, a.host, a.port, "client") for a in self._ground.config.client]
        return clients + self._neighbours.listeners()

    async def start(self, service: Service, network: Network) -> None:
        """Remember the service."""
        self._ground.start(service)
        service.follow(self._carbons.taken)
        service.follow(self._ground.typing.taken)
        if service.presence is not None:
            service.presence.attach(self.name, self)
            self._presence_abroad.start(service.presence)
        await self._neighbours.start(network)

    def new_session(self, link: Link, role: str) -> XmppStream:
        """A session for a client that just connected, or for a link of another kind."""
        if self._neighbours.takes(role):
            return self._neighbours.new_session(link, role)
        return self._client_session(link)

    def _client_session(self, link: Link) -> XmppServerSession:
        config = self._ground.config
        options = ServerOptions(
            self._ground.domains,
            self._dummy_key,
            has_tls=config.has_tls,
            allow_plaintext=self._is_exempt(link),
            hashes=("sha-512", "sha-256", "sha-1") if config.scram_sha1 else ("sha-512", "sha-256"),
            iterations=config.scram_iterations,
            resume_seconds=config.sm_resume,
            pre_auth_seconds=config.pre_auth_time,
            pre_auth_octets=config.pre_auth_octets,
            max_failures=config.failures_per_connection,
            keeps_counts=True,
            has_presence=self.service.presence is not None,
            sm_queue=config.sm_queue,
            pre_auth_limits=self._limits(config.pre_auth_stanza, config.pre_auth_elements),
            stanza_limits=self._limits(config.stanza, config.elements),
        )
        now = self.service.clock.now()
        session = XmppServerSession(options, partial(_end_point, link), self._ground.random, now)
        messages = (config.user_messages, float(config.user_message_burst))
        presence = config.presence_changes, float(config.presence_burst)
        rates = Rates(
            messages, config.user_stanzas, config.user_octets, presence=presence, stanza_octets=config.stanza, now=now
        )
        connection = Connection(link, session, rates)
        self._ground.devices.by_link[link] = connection
        if self._ground.is_draining:
            session.close("system-shutdown")
        elif self.service.accounts.guard().is_banned(connection.host):
            session.close("policy-violation", "too many failed attempts from this address")
        return session

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of a session."""
        if self._neighbours.owns(link):
            self._neighbours.handle_event(link, event)
            return
        connection = self._ground.devices.by_link.get(link)
        if connection is not None:
            self._handlers[type(event)](connection, event)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone: its stream may be resumed, or ends with it."""
        if self._neighbours.owns(link):
            self._neighbours.link_closed(link, error)
            return
        devices = self._ground.devices
        connection = devices.by_link.pop(link, None)
        if connection is None:
            return
        connection.session.connection_lost()
        self._streams.lost(connection)
        if not devices.by_link:
            self._is_empty.set()

    async def drain(self) -> None:
        """Say goodbye to every client; returns when what they sent is durable and the links are gone."""
        ground, devices = self._ground, self._ground.devices
        ground.is_draining = True
        for parked in [c for c in devices.by_stream.values() if not c.is_live]:
            self._streams.forget(parked)
        for connection in list(devices.by_link.values()):
            connection.session.close("system-shutdown", "the server is stopping")
            connection.link.flush()
        if self._submissions.pending:
            await asyncio.wait(self._submissions.pending)
        await self._neighbours.drain()
        if devices.by_link:
            self._is_empty.clear()
            await self._is_empty.wait()
        if ground.tasks:
            await asyncio.wait(ground.tasks)

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Write a message to a device, or on a stream to another server."""
        if delivery.contact.is_hop:
            return self._neighbours.deliver(delivery)
        return self._delivery.deliver(delivery)

    # --- sign-in -----------------------------------------------------------------------------------------------

    def _tls_wanted(self, connection: Connection, event: events.TlsWanted) -> None:
        connection.link.start_tls()

    def _credentials_wanted(self, connection: Connection, event: events.CredentialsWanted) -> None:
        self._ground.run(self._look_up(connection, event.account))

    async def _look_up(self, connection: Connection, account: Jid) -> None:
        secrets = None
        try:
            found = await self.service.accounts.credentials(from_jid(str(account))[0])
            if found is not None:
                secrets = {name: _secret(keys) for name, keys in found.scram.items()}
        except AddressError:
            pass  # no account can have that name; the exchange goes on and fails like any other
        finally:
            connection.session.credentials(secrets)
            connection.link.flush()

    def _password_check_wanted(self, connection: Connection, event: events.PasswordCheckWanted) -> None:
        self._ground.run(self._check_password(connection, event))

    async def _check_password(self, connection: Connection, event: events.PasswordCheckWanted) -> None:
        is_right = False
        try:
            is_right = await asyncio.to_thread(sasl.check_password, event.password, event.hash_name, event.secret)
        finally:
            connection.session.password_checked(is_right)
            connection.link.flush()

    def _sign_in_succeeded(self, connection: Connection, event: events.SignInSucceeded) -> None:
        connection.account = from_jid(str(event.account))[0]
        connection.link.authenticated()
        self.service.accounts.guard().succeeded(connection.host)

    def _sign_in_failed(self, connection: Connection, event: events.SignInFailed) -> None:
        try:
            account = from_jid(str(event.account))[0] if event.account is not None else None
        except AddressError:
            account = None
        guard = self.service.accounts.guard()
        guard.failed(connection.host, account)
        if guard.is_banned(connection.host):
            connection.session.close("policy-violation", "too many failed attempts from this address")

    # --- stanzas -----------------------------------------------------------------------------------------------

    def _stanza_received(self, connection: Connection, event: events.StanzaReceived) -> None:
        stanza = event.stanza
        self._submissions.arrived(connection)
        if stanza.name == MESSAGE and stanza.get("type") != "error":
            self._submissions.message(connection, stanza, event.index)
        elif stanza.name == MESSAGE:
            self._submissions.refusal(connection, stanza)
            connection.session.stanza_handled(event.index)
        else:
            take = self._iq if stanza.name == IQ else self._availability.presence
            self._ground.in_order(connection, partial(take, connection, stanza), stanza, event.index)

    def _acknowledged(self, connection: Connection, event: events.StanzasAcknowledged) -> None:
        self._delivery.acknowledged(connection, event)
        self._watching.acknowledged()

    def _iq(self, connection: Connection, stanza: Element) -> Coroutine[None, None, None] | None:
        assert connection.jid is not None
        to = Jid.parse(stanza.get("to")) if stanza.get("to") else connection.jid.bare
        is_account = to == connection.jid.bare
        is_ours = to.domain in self._ground.domains
        refused = None
        if not is_account and (to.local or not is_ours):
            refused = self._refusal(connection, stanza, to)
        if refused is None and to.local and to.is_bare and is_ours and stanza.get("type") in ("get", "set"):
            own: tuple[_Queries, ...] = (self._lists, self._blocklists) if is_account else ()
            parts: tuple[_Queries, ...] = (*own, self._personal, self._cards)
            for part in parts:
                if part.takes(stanza):
                    return part.query(connection, stanza)
        if refused is None and not is_ours:
            if not self._neighbours.send(stanza):
                self._ground.reply(connection.current, wire.error_reply(stanza, "remote-server-not-found"))
        elif is_account or (not to.local and is_ours):
            self._own_iq(connection, stanza, is_account=is_account)
        elif refused is None:
            return self._carry(connection, stanza, to)
        else:
            self._ground.reply(connection.current, refused)
        return None

    def _own_iq(self, connection: Connection, stanza: Element, *, is_account: bool) -> None:
        """A query to the server itself or the sender's own account, that is answered at once."""
        connection = connection.current
        if connection.caps_asked and stanza.get("id") == connection.caps_asked[0]:
            self._availability.capabilities.answered(connection, stanza)
            return
        answer = self._carbons.answer(connection, stanza) if is_account else None
        if answer is None:
            when, version = self.service.clock.when(), self._ground.config.software_version
            has_presence = self.service.presence is not None
            answer = queries.answer_iq(
                stanza,
                is_account=is_account,
                when=when,
                version=version,
                has_presence=has_presence,
                items=self._ground.components,
            )
        self._ground.reply(connection, answer)

    def _refusal(self, connection: Connection, stanza: Element, to: Jid) -> Element | None:
        """The error for an iq that goes to nobody because of who asks whom, or for what."""
        payload = next(stanza.elements(), None)
        is_roster_set = stanza.get("type") == "set" and payload is not None and payload.namespace == queries.ROSTER
        if is_roster_set and to.is_bare and to.local and to.domain in self._ground.domains:
            return wire.error_reply(stanza, "forbidden")  # RFC 6121 section 2.3.3
        if is_roster_set:
            return wire.error_reply(stanza, "service-unavailable")
        if self.service.presence is None or not to.local or stanza.get("type") not in ("get", "set"):
            return None
        assert connection.account is not None
        try:
            other = from_jid(str(to))[0].folded()
        except AddressError as error:
            return wire.error_reply(stanza, "jid-malformed", error.reason)
        # As if nobody were there (XEP-0191 section 3.3). Of a device ``_may_ask`` says so, in the time it takes for everybody.
        if to.is_bare and self.service.presence.contacts.is_blocked(other, connection.account):
            return wire.error_reply(stanza, "service-unavailable")
        return self._blocklists.refusal(connection, stanza, other)

    async def _carry(self, connection: Connection, stanza: Element, to: Jid) -> None:
        """Hand an iq to the device it is for; the error if that is not there, or not there for who asks."""
        if await self._may_ask(connection, stanza, to):
            target = self._ground.devices.find(to)
            if target is not None and target.presence is not None and target.is_live:
                self._ground.reply(target, stanza)
                target.link.flush()
                return
        self._ground.answer(connection, wire.error_reply(stanza, "service-unavailable"))

    async def _may_ask(self, connection: Connection, stanza: Element, to: Jid) -> bool:
        """True if an answer of that device tells the asker nothing new: that it is there (RFC 6121 section 8.5.3.1)."""
        presence, asker = self.service.presence, connection.jid
        assert asker is not None
        assert connection.account is not None
        if presence is None or stanza.get("type") not in ("get", "set") or to.bare == asker.bare:
            return True
        if not to.resource or to.domain not in self._ground.domains:
            return False
        may_see = await presence.may_see(from_jid(str(to))[0], connection.account)  # first: a device costs no time
        target = self._ground.devices.find(to)
        return may_see or (target is not None and not {asker, asker.bare}.isdisjoint(target.directed))

    # --- the edge of the presence service ------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        self._watching.notify(subscriptions, content, told)

    def pending(self, subscription: Subscription) -> None:
        """See ``Edge.pending``."""
        self._watching.pending(subscription)

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``."""
        self._watching.ended(subscription)

    def asked(self, item: ContactItem) -> None:
        """See ``Edge.asked``."""
        self._asking.asked(item)

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """See ``Edge.answered``."""
        self._asking.answered(item, is_granted)
        if is_granted:
            self._personal.granted(item.account, item.contact)

    def withdrew(self, item: ContactItem) -> None:
        """See ``Edge.withdrew``."""
        self._asking.withdrew(item)

    def contact_changed(self, item: ContactItem) -> None:
        """See ``Edge.contact_changed``."""
        self._lists.changed(item)
        self._watching.contact_changed(item)

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """See ``Edge.blocklist_changed``."""
        self._directed.blocked(account, blocked)
        self._blocklists.changed(account, blocked, unblocked)

    def directed(self, operation: NotifyOperation) -> None:
        """See ``Edge.directed``."""
        self._directed.arrived(operation)

    # --- small parts -------------------------------------------------------------------------------------------

    def _is_exempt(self, link: Link) -> bool:
        try:
            address = ipaddress.ip_address(link.peer.remote[0].partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._exempt)

    def _limits(self, octets: int, elements: int) -> XmlLimits:
        config = self._ground.config
        counts = (config.depth, elements, config.attributes, config.namespaces, config.name_length)
        return XmlLimits(octets, *counts, slice=config.slice)


def _end_point(link: Link) -> bytes | None:
    tls = link.peer.tls
    return None if tls is None else tls.server_end_point


def _secret(keys: ScramKeys) -> sasl.ScramSecret:
    return sasl.ScramSecret(keys.salt, keys.iterations, keys.stored_key, keys.server_key)

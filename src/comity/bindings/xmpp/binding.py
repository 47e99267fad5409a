"""XMPP's glue: listeners wanted, sessions made, messages submitted upwards and delivered downwards.

Place on the path: between steps 3 and 4, and 7 and 8. One ``Connection`` a client. What it promises: a stanza is
counted in ``h`` only when its message is durable (reliability.md section 5.2); a delivery succeeds when the client
acknowledged it, or, without stream management, when the kernel took its octets.

Presence goes no further than the user's own devices: who is available is known, subscriptions come later and
stay unanswered until then.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import os
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial

from comity.bindings.base import Link, Listener, Network
from comity.bindings.xmpp import events, mapping, queries, sasl, wire
from comity.bindings.xmpp.config import XmppConfig
from comity.bindings.xmpp.devices import Bucket, Connection, Devices, Flight
from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.jid import Jid, prepare_domain
from comity.bindings.xmpp.session import ServerOptions, XmppServerSession
from comity.bindings.xmpp.sm import SmState
from comity.bindings.xmpp.wire import IQ, MESSAGE, Element
from comity.cpim.address import from_jid
from comity.cpim.entity import is_secured
from comity.cpim.message import new_message_id
from comity.cpim.operations import Reason, Response, Status, failure, success
from comity.errors import AddressError, LocalProtocolError
from comity.service.interfaces import Accepted, Contact, Delivery, Origin, ScramKeys, Service
from comity.xml import XmlLimits, serialize

log = logging.getLogger(__name__)

#: Submissions of one client not yet durable; above it reading pauses.
MAX_SUBMITTING = 128
#: Seconds between two looks whether the kernel has taken everything.
UNSENT_POLL = 0.02
#: Verified capability hashes kept.
MAX_CAPS = 1024


class XmppBinding:
    """The binding of client-to-server XMPP.

    Args:
        config: its options.
        random: gives that many random octets.
    """

    name = "xmpp"

    def __init__(self, config: XmppConfig, random: Callable[[int], bytes] = os.urandom) -> None:
        self._config = config
        self._random = random
        self._domains = tuple(prepare_domain(domain) for domain in config.domains)
        self._exempt = [ipaddress.ip_network(network) for network in config.plaintext_from]
        self._dummy_key = random(32)
        self._service: Service | None = None
        self._devices = Devices()
        self._caps: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._submissions: set[asyncio.Future[Accepted | Response]] = set()
        self._is_empty = asyncio.Event()
        """Set by the last link to close while draining."""
        self._serial = 0
        self._is_draining = False

    # --- the binding contract ----------------------------------------------------------------------------------

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        assert self._service is not None, "start() comes first"
        return self._service

    def listeners(self) -> Sequence[Listener]:
        """The configured client addresses."""
        return [Listener(a.transport, a.host, a.port, "client") for a in self._config.client]

    async def start(self, service: Service, network: Network) -> None:
        """Remember the service."""
        self._service = service

    def new_session(self, link: Link, role: str) -> XmppServerSession:
        """A session for a client that just connected."""
        config = self._config
        options = ServerOptions(
            self._domains,
            self._dummy_key,
            has_tls=config.has_tls,
            allow_plaintext=self._is_exempt(link),
            hashes=("sha-512", "sha-256", "sha-1") if config.scram_sha1 else ("sha-512", "sha-256"),
            iterations=config.scram_iterations,
            resume_seconds=config.sm_resume,
            pre_auth_seconds=config.pre_auth_time,
            pre_auth_octets=config.pre_auth_octets,
            max_failures=config.failures_per_connection,
            sm_queue=config.sm_queue,
            pre_auth_limits=self._limits(config.pre_auth_stanza, config.pre_auth_elements),
            stanza_limits=self._limits(config.stanza, config.elements),
        )
        now = self.service.clock.now()
        session = XmppServerSession(options, partial(_end_point, link), self._random, now)
        burst = float(config.user_message_burst)
        connection = Connection(link, session, Bucket(config.user_messages, burst, burst, now))
        self._devices.by_link[link] = connection
        if self._is_draining:
            session.close("system-shutdown")
        elif self.service.accounts.guard().is_banned(connection.host):
            session.close("policy-violation", "too many failed attempts from this address")
        return session

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of a client's session."""
        connection = self._devices.by_link.get(link)
        if connection is not None:
            _HANDLERS[type(event)](self, connection, event)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """The connection is gone: park a stream that may be resumed, end the others."""
        connection = self._devices.by_link.pop(link, None)
        if connection is None:
            return
        connection.is_live = False
        connection.session.connection_lost()
        self._cancel_outcomes(connection)
        if connection.sm_id and not self._is_draining:
            self._go_offline(connection)
            connection.timer = self.service.clock.call_later(self._config.sm_resume, partial(self._forget, connection))
        else:
            self._forget(connection)
        if not self._devices.by_link:
            self._is_empty.set()

    async def drain(self) -> None:
        """Say goodbye to every client; returns when what they sent is durable and the links are gone."""
        self._is_draining = True
        for parked in [c for c in self._devices.by_stream.values() if not c.is_live]:
            self._forget(parked)
        for connection in list(self._devices.by_link.values()):
            connection.session.close("system-shutdown", "the server is stopping")
            connection.link.flush()
        if self._submissions:
            await asyncio.wait(self._submissions)
        if self._devices.by_link:
            self._is_empty.clear()
            await self._is_empty.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Write a message to a device; see the module's promise."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        trans_id = delivery.operation.trans_id
        connection = self._devices.by_contact.get((delivery.contact.aor.key, delivery.contact.id))
        if connection is None or connection.session.is_ended:
            future.set_result(failure(trans_id, Reason.AWAY, "The device is not connected."))
            return future
        if connection.join_flight(delivery.id, future):
            return future  # a resumed stream sends it again by itself (XEP-0198 section 5)
        made = mapping.operation_to_stanza(
            delivery.operation,
            delivery_id=delivery.id,
            domain=self.service.node,
            accepted=delivery.accepted,
            is_delayed=delivery.is_delayed,
            features=connection.features,
        )
        if isinstance(made, Response):
            future.set_result(made)
            return future
        self._serial += 1
        flight = Flight(delivery, [future], made.form)
        try:
            connection.session.send_stanza(made.stanza, key=self._serial)
        except LocalProtocolError:
            text = "The message holds something that XML cannot carry."
            future.set_result(failure(trans_id, Reason.CONTENT, text))
            return future
        connection.flights[self._serial] = flight
        connection.remember(made.stanza.get("id"), delivery)
        connection.link.flush()
        if not connection.session.is_sm_on:
            self._watch_unsent(connection)
        return future

    # --- sign-in -----------------------------------------------------------------------------------------------

    def _tls_wanted(self, connection: Connection, event: events.TlsWanted) -> None:
        connection.link.start_tls()

    def _credentials_wanted(self, connection: Connection, event: events.CredentialsWanted) -> None:
        self._run(self._look_up(connection, event.account))

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
        self._run(self._check_password(connection, event))

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

    # --- resource and stream management ----------------------------------------------------------------------------

    def _resource_bound(self, connection: Connection, event: events.ResourceBound) -> None:
        connection.jid = event.jid
        former = self._devices.find(event.jid)
        if former is not None:
            self._replace(former)
        elif len(self._devices.resources(event.jid)) >= self._config.contacts:
            connection.session.close("resource-constraint", "too many resources of this account")
            return
        self._devices.bind(connection)

    def _replace(self, former: Connection) -> None:
        """The new one wins (RFC 6120 section 7.7.2.2): the former stream of this resource ends for good."""
        former.session.close("conflict", "this resource signed in elsewhere")
        if former.is_live:
            former.link.flush()
        self._forget(former)

    def _sm_enabled(self, connection: Connection, event: events.SmEnabled) -> None:
        if event.id:
            connection.sm_id = event.id
            self._devices.by_stream[event.id] = connection
        if connection.is_registered:
            self._run(self._register(connection))  # the window is larger now

    def _resume_wanted(self, connection: Connection, event: events.ResumeWanted) -> None:
        """Give the stream to its owner; it can be taken once (X-69, X-70, X-73)."""
        former = self._devices.by_stream.get(event.previous_id)
        if former is None or former.account != connection.account:
            connection.session.refuse_resume()
            return
        connection.session.resume(self._take_over(connection, former))

    def _take_over(self, connection: Connection, former: Connection) -> SmState:
        if former.timer is not None:
            former.timer.cancel()
        if former.is_live:  # the old connection is dead, only TCP has not noticed
            former.is_live = False
            del self._devices.by_link[former.link]
            self._cancel_outcomes(former)
            former.link.abort()
        former.successor = connection
        connection.jid, connection.sm_id = former.jid, former.sm_id
        connection.features, connection.presence = former.features, former.presence
        connection.priority, connection.caps_asked = former.priority, former.caps_asked
        connection.flights, former.flights = former.flights, {}
        connection.delivered = former.delivered
        connection.submitting = former.submitting
        self._devices.by_stream[former.sm_id] = connection
        self._devices.bind(connection)
        former.sm_id = ""
        return former.session.sm_state

    def _resumed(self, connection: Connection, event: events.Resumed) -> None:
        if connection.presence is not None:
            self._run(self._register(connection))
            self._broadcast(connection, connection.presence)

    def _acknowledged(self, connection: Connection, event: events.StanzasAcknowledged) -> None:
        for key in event.keys:
            flight = connection.flights.pop(key, None) if isinstance(key, int) else None
            if flight is not None:
                flight.end(success(flight.delivery.operation.trans_id, flight.form))

    def _stream_ended(self, connection: Connection, event: events.StreamEnded) -> None:
        if event.is_orderly or event.condition in ("policy-violation", "system-shutdown"):
            self._drop_stream(connection)  # nothing to resume after a goodbye (XEP-0198 section 5)
        connection.link.close()

    # --- stanzas -----------------------------------------------------------------------------------------------

    def _stanza_received(self, connection: Connection, event: events.StanzaReceived) -> None:
        stanza = event.stanza
        if stanza.name == MESSAGE and stanza.get("type") != "error":
            self._message(connection, stanza, event.index)
            return
        if stanza.name == MESSAGE:
            self._error(connection, stanza)
        elif stanza.name == IQ:
            self._iq(connection, stanza)
        else:
            self._presence(connection, stanza)
        connection.session.stanza_handled(event.index)

    def _message(self, connection: Connection, stanza: Element, index: int) -> None:
        clock = self.service.clock
        connection.bucket.take(clock.now())
        made = mapping.stanza_to_operation(
            stanza, when=clock.when(), trans_id=self._random(12).hex(), message_id=new_message_id(self._random(15))
        )
        if isinstance(made, mapping.Refusal):
            self._reply(connection, wire.error_reply(stanza, made.condition, made.text))
            connection.session.stanza_handled(index)
            return
        assert connection.account is not None
        origin = Origin(connection.account, self.name, connection.host, connection.session.is_tls, _dedup(stanza))
        connection.submitting += 1
        done = self.service.submit(made, origin)
        self._submissions.add(done)
        is_silent = made.context.transient
        done.add_done_callback(partial(self._submitted, connection, stanza, index, is_silent))
        self._throttle(connection)

    def _submitted(
        self,
        connection: Connection,
        stanza: Element,
        index: int,
        is_silent: bool,
        done: asyncio.Future[Accepted | Response],
    ) -> None:
        """Count the stanza as handled; ``is_silent``: a typing state, of which no failure is ever told."""
        self._submissions.discard(done)
        connection = connection.current
        connection.submitting -= 1
        if done.cancelled() or done.exception() is not None:
            log.error("a message could not be submitted: %r", None if done.cancelled() else done.exception())
            answer: Accepted | Response = failure("", Reason.INTERNAL, "The message could not be taken.")
        else:
            answer = done.result()
        if isinstance(answer, Response):
            if not is_silent:
                self._answer_failure(connection, stanza, answer)
        elif not is_silent:
            connection.outcomes.add(answer.outcome)
            answer.outcome.add_done_callback(partial(self._ended, connection, stanza))
            if not connection.is_live:
                answer.outcome.cancel()
        connection.session.stanza_handled(index)
        connection.link.flush()
        self._throttle(connection)

    def _ended(self, connection: Connection, stanza: Element, outcome: asyncio.Future[Response]) -> None:
        """The end of an accepted message is known: a failure is told at once, natively."""
        connection.outcomes.discard(outcome)
        connection = connection.current
        if not outcome.cancelled() and outcome.result().status is Status.FAILURE:
            self._answer_failure(connection, stanza, outcome.result())
            connection.link.flush()

    def _answer_failure(self, connection: Connection, stanza: Element, response: Response) -> None:
        to = stanza.get("to") or stanza.get("from")
        is_local = self.service.accounts.serves(to.partition("/")[0].rpartition("@")[2])
        self._reply(connection, mapping.response_to_error(stanza, response, is_local=is_local))

    def _error(self, connection: Connection, stanza: Element) -> None:
        """A device refuses what it took (T3, T8)."""
        delivery = connection.delivered.pop(stanza.get("id"), None)
        if delivery is not None:
            operation = delivery.operation
            response = mapping.error_to_response(
                stanza, operation.trans_id, is_secured_object=is_secured(operation.object)
            )
            self.service.reject(delivery.id, delivery.contact, response)

    # --- iq ------------------------------------------------------------------------------------------------------

    def _iq(self, connection: Connection, stanza: Element) -> None:
        assert connection.jid is not None
        to = Jid.parse(stanza.get("to")) if stanza.get("to") else connection.jid.bare
        if to == connection.jid.bare or (not to.local and to.domain in self._domains):
            if connection.caps_asked and stanza.get("id") == connection.caps_asked[0]:
                self._take_features(connection, stanza)
            else:
                when = self.service.clock.when()
                is_account = bool(to.local)
                answer = queries.answer_iq(
                    stanza, is_account=is_account, when=when, version=self._config.software_version
                )
                self._reply(connection, answer)
            return
        target = self._devices.find(to)
        payload = next(stanza.elements(), None)
        is_push = stanza.get("type") == "set" and payload is not None and payload.namespace == queries.ROSTER
        if target is not None and target.presence is not None and not is_push and target.is_live:
            self._reply(target, stanza)
            target.link.flush()
        elif to.domain in self._domains:
            self._reply(connection, wire.error_reply(stanza, "service-unavailable"))
        else:
            self._reply(connection, wire.error_reply(stanza, "remote-server-not-found"))

    def _take_features(self, connection: Connection, stanza: Element) -> None:
        assert connection.caps_asked is not None
        _, hash_name, ver = connection.caps_asked
        connection.caps_asked = None
        query = stanza.find(f"{{{queries.DISCO_INFO}}}query")
        if stanza.get("type") != "result" or query is None:
            return
        connection.features = queries.features_of(query)
        if queries.is_hash_right(query, hash_name, ver):
            self._caps[hash_name, ver] = connection.features
            if len(self._caps) > MAX_CAPS:
                self._caps.popitem(last=False)
        self._run(self._register(connection))

    # --- presence ----------------------------------------------------------------------------------------------

    def _presence(self, connection: Connection, stanza: Element) -> None:
        kind = stanza.get("type")
        if kind not in ("", "unavailable") or stanza.get("to"):
            return  # subscriptions and directed presence: not yet (docs/bindings/xmpp.md)
        if kind == "unavailable":
            self._go_offline(connection, stanza)
            connection.presence = None
            return
        priority = stanza.find("{jabber:client}priority")
        text = priority.text.strip() if priority is not None else "0"
        if not text.lstrip("+-").isdigit() or len(text) > 4 or not -128 <= int(text) <= 127:
            self._reply(connection, wire.error_reply(stanza, "bad-request", "priority is -128 to 127", sender=""))
            return
        is_first = connection.presence is None
        connection.priority, connection.presence = int(text), stanza
        self._learn_caps(connection, stanza)
        if connection.caps_asked is None:
            self._run(self._register(connection))
        self._broadcast(connection, stanza)
        if is_first:
            for other in self._devices.resources(connection.jid):
                if other is not connection and other.presence is not None:
                    self._reply(connection, _addressed(other.presence, connection))

    def _learn_caps(self, connection: Connection, stanza: Element) -> None:
        caps = stanza.find(f"{{{queries.CAPS}}}c")
        if caps is None or not caps.get("ver") or connection.features is not None:
            return
        key = (caps.get("hash"), caps.get("ver"))
        if key in self._caps:
            connection.features = self._caps[key]
        elif connection.caps_asked is None:
            id = "caps-" + self._random(8).hex()
            connection.caps_asked = (id, *key)
            node = f"{caps.get('node')}#{caps.get('ver')}"
            self._reply(connection, queries.ask_features(self._domains[0], str(connection.jid), id, node))
            # Messages wait for the answer, so that the first stored one goes out whole; not for ever.
            self.service.clock.call_later(2.0, partial(self._give_up_caps, connection, id))

    def _give_up_caps(self, connection: Connection, id: str) -> None:
        if connection.caps_asked is not None and connection.caps_asked[0] == id and not connection.is_registered:
            self._run(self._register(connection))

    async def _register(self, connection: Connection) -> None:
        if connection.presence is None or not connection.is_live or connection.session.is_ended:
            return
        assert connection.account is not None
        assert connection.jid is not None
        connection.is_registered = True
        self._devices.by_contact[connection.account.folded().key, connection.jid.resource] = connection
        is_sm = connection.session.is_sm_on
        contact = Contact(
            connection.jid.resource,
            connection.account,
            self.name,
            resource=connection.jid.resource,
            priority=connection.priority,
            window=self._config.in_flight if is_sm else self._config.in_flight_plain,
            data=b" ".join(f.encode() for f in sorted((connection.features or frozenset()) & {E2E, OCTETS})),
        )
        await self.service.registrar.register(contact, None)

    def _go_offline(self, connection: Connection, stanza: Element | None = None) -> None:
        """The device takes no more messages; its user's other devices are told."""
        if connection.is_registered:
            connection.is_registered = False
            assert connection.account is not None
            assert connection.jid is not None
            key = (connection.account.folded().key, connection.jid.resource)
            if self._devices.by_contact.get(key) is connection:
                del self._devices.by_contact[key]
            gone = self.service.registrar.unregister(connection.account, self.name, connection.jid.resource)
            self._run(gone)
        if connection.presence is not None:
            if stanza is None:
                stanza = Element(wire.PRESENCE, {"type": "unavailable", "from": str(connection.jid)})
            self._broadcast(connection, stanza)

    def _broadcast(self, connection: Connection, stanza: Element) -> None:
        for other in self._devices.resources(connection.jid):
            if other.presence is not None and other.is_live:
                self._reply(other, _addressed(stanza, other))
                other.link.flush()

    # --- small parts -------------------------------------------------------------------------------------------

    def _reply(self, connection: Connection, stanza: Element | None) -> None:
        if stanza is None or connection.session.is_ended or connection.session.jid is None:
            return
        try:
            connection.session.send_stanza(stanza)
        except LocalProtocolError as error:
            log.warning("a stanza could not be written: %s", error)

    def _forget(self, connection: Connection) -> None:
        """End a device for good: nothing of it can be resumed any more."""
        if connection.timer is not None:
            connection.timer.cancel()
        self._drop_stream(connection)
        self._go_offline(connection)
        connection.presence = None
        self._devices.unbind(connection)
        self._cancel_outcomes(connection)
        self._fail_flights(connection)

    def _drop_stream(self, connection: Connection) -> None:
        if self._devices.by_stream.get(connection.sm_id) is connection:
            del self._devices.by_stream[connection.sm_id]
        connection.sm_id = ""

    def _fail_flights(self, connection: Connection) -> None:
        flights, connection.flights = connection.flights, {}
        for flight in flights.values():
            text = "The device went away before it confirmed the message."
            flight.end(failure(flight.delivery.operation.trans_id, Reason.AWAY, text))

    def _cancel_outcomes(self, connection: Connection) -> None:
        """Nobody is there to be told natively: the service reports instead."""
        for outcome in list(connection.outcomes):
            outcome.cancel()

    def _watch_unsent(self, connection: Connection) -> None:
        if connection.unsent_timer is None:
            check = partial(self._check_unsent, connection, deque(connection.flights))
            connection.unsent_timer = self.service.clock.call_later(0.0, check)

    def _check_unsent(self, connection: Connection, keys: deque[int]) -> None:
        """Without stream management a message is handed over when the kernel has taken it."""
        connection.unsent_timer = None
        if not connection.is_live:
            return
        if connection.link.unsent:
            check = partial(self._check_unsent, connection, deque(connection.flights))
            connection.unsent_timer = self.service.clock.call_later(UNSENT_POLL, check)
            return
        for key in keys:
            flight = connection.flights.pop(key, None)
            if flight is not None:
                flight.end(success(flight.delivery.operation.trans_id, flight.form))
        if connection.flights and not connection.session.is_sm_on:
            self._watch_unsent(connection)

    def _throttle(self, connection: Connection) -> None:
        """Above the rate of messages reading pauses; nothing is refused for it (reliability.md section 6.2)."""
        wait = connection.bucket.debt_seconds
        if wait > 0 and connection.throttle_timer is None:
            release = partial(self._release, connection)
            connection.throttle_timer = self.service.clock.call_later(wait, release)
        is_over = connection.throttle_timer is not None or connection.submitting >= MAX_SUBMITTING
        if is_over == connection.is_paused or not connection.is_live:
            return
        connection.is_paused = is_over
        if is_over:
            connection.link.pause_reading()
        else:
            connection.link.resume_reading()

    def _release(self, connection: Connection) -> None:
        connection.throttle_timer = None
        connection.bucket.forgive(self.service.clock.now())
        self._throttle(connection)

    def _is_exempt(self, link: Link) -> bool:
        try:
            address = ipaddress.ip_address(link.peer.remote[0].partition("%")[0])
        except ValueError:
            return False
        return any(address in network for network in self._exempt)

    def _limits(self, octets: int, elements: int) -> XmlLimits:
        config = self._config
        return XmlLimits(octets, config.depth, elements, config.attributes, config.namespaces, config.name_length)

    def _run(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the XMPP binding failed", exc_info=error)


def _end_point(link: Link) -> bytes | None:
    tls = link.peer.tls
    return None if tls is None else tls.server_end_point


def _secret(keys: ScramKeys) -> events.ScramSecret:
    return events.ScramSecret(keys.salt, keys.iterations, keys.stored_key, keys.server_key)


def _dedup(stanza: Element) -> tuple[str, ...]:
    """The edge's key (reliability.md section 5.3): the client's own identifier and what the stanza holds.

    The content is hashed as it came: an object made of it holds the time of receipt, so no two are equal.
    """
    origin_id = stanza.find(f"{{{mapping.STANZA_ID}}}origin-id")
    id = (origin_id.get("id") if origin_id is not None else "") or stanza.get("id")
    if not id:
        return ()
    digest = hashlib.sha256()
    for child in stanza.elements():
        if child.namespace != mapping.DELAY:  # XEP-0198 lets a client stamp what it sends again
            digest.update(serialize(child, wire.CLIENT))
    return ("xmpp", id, digest.hexdigest())


def _addressed(stanza: Element, connection: Connection) -> Element:
    return Element(stanza.name, {**stanza.attributes, "to": str(connection.jid)}, stanza.children)


_HANDLERS: dict[type, Callable[..., None]] = {
    events.TlsWanted: XmppBinding._tls_wanted,
    events.CredentialsWanted: XmppBinding._credentials_wanted,
    events.PasswordCheckWanted: XmppBinding._password_check_wanted,
    events.SignInSucceeded: XmppBinding._sign_in_succeeded,
    events.SignInFailed: XmppBinding._sign_in_failed,
    events.ResourceBound: XmppBinding._resource_bound,
    events.ResumeWanted: XmppBinding._resume_wanted,
    events.Resumed: XmppBinding._resumed,
    events.SmEnabled: XmppBinding._sm_enabled,
    events.StanzaReceived: XmppBinding._stanza_received,
    events.StanzasAcknowledged: XmppBinding._acknowledged,
    events.StreamEnded: XmppBinding._stream_ended,
}

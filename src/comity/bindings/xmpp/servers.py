"""Streams between XMPP servers (RFC 6120): the kind of ways that leads everywhere else.

Place on the path: beside ``neighbours.py``. Streams that others opened bring stanzas; ``calls.py`` opens those by which stanzas leave.
Who is at the other end is proved by a certificate (SASL EXTERNAL); by dialback only for domains that the operator listed. What a peer
was trusted with by name (``[[peer]] speaks_for``) counts once it proved that name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from comity.bindings.base import Link, Listener, Network, TlsCheck
from comity.bindings.xmpp import events
from comity.bindings.xmpp.calls import Call, Dialer, Line
from comity.bindings.xmpp.dialback import Keys
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import prepare_domain
from comity.bindings.xmpp.neighbours import Neighbours
from comity.bindings.xmpp.rates import Bucket
from comity.bindings.xmpp.server_stream import IncomingStream, PeerOptions, ServerStream
from comity.bindings.xmpp.ways import Flight, Hop, Way, a_domain
from comity.bindings.xmpp.wire import Element
from comity.errors import DeliveryError
from comity.xml import XmlLimits

log = logging.getLogger(__name__)

ROLE: Final = "server"
DNS: Final = "dns"
"""The binding of a hop whose protocol DNS says."""
MOST_CALLS: Final = 4096
"""Pairs of domains called or connected at once."""
MOST_VERIFYING: Final = 64
"""Dialback keys being asked about at once."""
VERIFY_SECONDS: Final = 15.0
SECRET: Final = "dialback"  # noqa: S105  the name of one


class Servers:
    """Streams with other servers; implements ``Ways``.

    Args:
        ground: what the parts of the binding stand on.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._secret = b""
        self._made: PeerOptions | None = None
        self._dialer = Dialer(ground, self._options)
        self._calls: dict[Hop, Call] = {}
        self._incoming: dict[Link, Way] = {}
        self._verifying = 0
        self._is_draining = False
        self._is_empty = asyncio.Event()
        """Set by the last link to close while draining."""

    def listeners(self) -> Sequence[Listener]:
        """Where other servers connect to."""
        return [Listener(a.transport, a.host, a.port, ROLE, "chain") for a in self._ground.config.server]

    def takes(self, role: str) -> bool:
        """See ``Ways.takes``."""
        return role == ROLE or self._dialer.takes(role)

    async def start(self, neighbours: Neighbours, network: Network) -> None:
        """See ``Ways.start``."""
        self._neighbours = neighbours
        self._dialer.neighbours, self._dialer.network = neighbours, network
        self._secret = await self._ground.service.secret(SECRET)

    def carries(self, theirs: str, ours: str) -> bool:
        """Whether a route, or DNS, may lead there by XMPP."""
        hop = self._ground.service.routes.hop(theirs)
        return hop is not None and hop.binding in (PROTOCOL, DNS)

    def _options(self) -> PeerOptions:
        if self._made is None:
            config = self._ground.config
            counts = (config.depth, config.elements, config.attributes, config.namespaces, config.name_length)
            early = (config.depth, config.pre_auth_elements, *counts[2:])
            self._made = PeerOptions(
                self._ground.domains,
                Keys(lambda: self._secret),
                frozenset(prepare_domain(domain) for domain in config.dialback),
                has_tls=config.has_tls,
                max_failures=config.failures_per_connection,
                sm_queue=config.sm_queue,
                pre_auth_seconds=config.pre_auth_time,
                pre_auth_octets=config.pre_auth_octets,
                pre_auth_limits=XmlLimits(config.pre_auth_stanza, *early, slice=config.slice),
                stanza_limits=XmlLimits(config.server_stanza, *counts, slice=config.slice),
            )
        return self._made

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, stanza: Element, hop: Hop, flight: Flight | None = None) -> None:
        """See ``Ways.send``."""
        call = self._calls.get(hop)
        if call is None:
            if len(self._calls) >= MOST_CALLS:
                self._calls = {key: call for key, call in self._calls.items() if not call.is_idle}
            call = self._calls[hop] = Call(hop, self._ground, self._dialer, self._forget)
            call.is_draining = self._is_draining
        call.send(stanza, flight)

    def _forget(self, call: Call) -> None:
        if call.is_idle and self._calls.get(call.hop) is call:
            del self._calls[call.hop]

    # --- links -------------------------------------------------------------------------------------------------------

    def new_session(self, link: Link, role: str) -> ServerStream:
        """See ``Ways.new_session``."""
        if role != ROLE:
            return self._dialer.new_session(link, role)
        now, rate = self._ground.service.clock.now(), self._ground.config.peer_messages
        session = IncomingStream(self._options(), lambda: link.peer.tls, self._ground.random, now)
        self._incoming[link] = Way(link, session, Bucket(rate, rate, rate, now))
        if self._is_draining:
            session.close("system-shutdown")
        return session

    def handle_event(self, link: Link, event: object) -> None:
        """See ``Ways.handle_event``."""
        way = self._incoming.get(link)
        if way is None:
            self._dialer.handle_event(link, event)
        elif isinstance(event, events.StanzaReceived):
            self._neighbours.received(way, event.stanza, event.index)
        elif isinstance(event, events.TlsWanted):
            link.start_tls(self._check(way))
        elif isinstance(event, events.DomainProved):
            self._proved(way, event)
        elif isinstance(event, events.DialbackWanted):
            self._ground.run(self._verify(way, event))
        elif isinstance(event, events.SignInFailed):
            log.info("%s could not prove to be %s: %s %s", way.host, event.account, event.condition, event.text)
        elif isinstance(event, events.StreamEnded):
            if not event.is_orderly:
                self._neighbours.broken(way.proved)
            link.close()

    def _check(self, way: Way) -> TlsCheck:
        """Who is believed by dialback may have any certificate: OpenSSL would refuse it if it were asked for one."""
        session = way.session
        assert isinstance(session, IncomingStream)
        return "nothing" if session.claimed in self._options().dialback else "chain"

    def _proved(self, way: Way, event: events.DomainProved) -> None:
        service = self._ground.service
        domain = a_domain(event.domain)
        way.proved |= service.peers.proved("", (domain,))
        way.link.authenticated()
        tls = way.link.peer.tls
        if event.mechanism != "dialback" and way.end_timer is None and tls is not None and tls.ends is not None:
            seconds = (tls.ends - service.clock.when()).total_seconds()
            way.end_timer = service.clock.call_later(max(seconds, 0.0), lambda: self._certificate_ended(way))
        for call in self._calls.values():
            if call.hop.theirs == domain:
                call.returned()
        service.hop_returned(PROTOCOL, {domain})

    def _certificate_ended(self, way: Way) -> None:
        """What it proved is proved no longer (RFC 6120 section 13.7.2.3, D-15)."""
        way.end("reset", "the certificate has expired")

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """See ``Ways.link_closed``."""
        way = self._incoming.pop(link, None)
        if way is None:
            self._dialer.link_closed(link, error)
        else:
            if not way.session.is_ended:
                self._neighbours.broken(way.proved)
            way.session.connection_lost()
            for timer in (way.timer, way.end_timer):
                if timer is not None:
                    timer.cancel()
        if not self._incoming and not self._dialer.links:
            self._is_empty.set()

    # --- dialback ----------------------------------------------------------------------------------------------------

    async def _verify(self, way: Way, wanted: events.DialbackWanted) -> None:
        """Ask the server of a domain whether it made a key (XEP-0220 section 2.3)."""
        session = way.session
        assert isinstance(session, IncomingStream)
        is_valid: bool | None = None
        if self._verifying < MOST_VERIFYING:
            self._verifying += 1
            try:
                async with asyncio.timeout(VERIFY_SECONDS):
                    is_valid = await self._ask(wanted)
            except (DeliveryError, TimeoutError) as error:
                log.info("the server of %s could not be asked about a key: %s", wanted.domain, error)
            finally:
                self._verifying -= 1
        session.dialback_checked(wanted.domain, wanted.to, is_valid)
        way.link.flush()

    async def _ask(self, wanted: events.DialbackWanted) -> bool:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def take(line: Line, event: object) -> None:
            if isinstance(event, events.DialbackAnswered) and event.stream_id == wanted.stream_id and not answer.done():
                answer.set_result(event.is_valid)

        def lost(line: Line) -> None:
            if not answer.done():
                answer.set_exception(DeliveryError("the stream was closed"))

        route = self._ground.service.routes.hop(a_domain(wanted.domain))
        next_hop = route.data.decode() if route is not None and route.binding == PROTOCOL else ""
        hop = Hop(a_domain(wanted.to), a_domain(wanted.domain), next_hop)
        line = await self._dialer.open(hop, take, lost, asks=True)
        assert line.session is not None
        assert line.link is not None
        try:
            line.session.verify(wanted.to, wanted.stream_id, wanted.key)
            line.link.flush()
            return await answer
        finally:
            line.session.close()
            line.link.flush()

    # --- the end -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """See ``Ways.drain``."""
        self._is_draining = True
        for call in list(self._calls.values()):
            call.is_draining = True
            call.cancel()
            call.close()
        for way in list(self._incoming.values()):
            way.end("system-shutdown", "the server is stopping")
        if self._incoming or self._dialer.links:
            self._is_empty.clear()
            await self._is_empty.wait()

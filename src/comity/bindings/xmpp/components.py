"""External components (XEP-0114), both ways round: those of others that attach to us, and our own places at other people's servers.

Place on the path: beside ``neighbours.py``, as one kind of ways. The operator wrote who they are (``[[xmpp.accept]]``,
``[[xmpp.component]]``); a place of ours is kept connected for as long as this server runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Final

from comity.bindings.base import Link, Listener, Network, Target
from comity.bindings.xmpp import events
from comity.bindings.xmpp.component_stream import AttachedSession, AttachingSession, ComponentOptions, ComponentStream
from comity.bindings.xmpp.component_way import ComponentWay
from comity.bindings.xmpp.config import HostConfig
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import prepare_domain
from comity.bindings.xmpp.neighbours import Neighbours
from comity.bindings.xmpp.ways import Flight, Hop, a_domain
from comity.bindings.xmpp.wire import Element
from comity.cpim.operations import Reason
from comity.errors import DeliveryError
from comity.xml import XmlLimits

log = logging.getLogger(__name__)

ROLE: Final = "component"
OURS: Final = "component of "
"""How the role of a link begins that we open."""
PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds until a server that could not be joined is tried again."""


class Components:
    """Components; implements ``Ways``.

    Args:
        ground: what the parts of the binding stand on.
    """

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        config = ground.config
        self._hosts = {f"{OURS}{host.domain}": host for host in config.hosts}
        self._urls = {host.url for host in config.hosts}
        self._secrets = {prepare_domain(domain): secret for domain, secret in config.accept.items()}
        self._exempt = [ip_network(network) for network in config.plaintext_from]
        self._ours: dict[str, ComponentWay] = {}
        """Our places elsewhere, by our domain there."""
        self._attached: dict[str, ComponentWay] = {}
        """Others' places here, by their domain."""
        self._links: dict[Link, ComponentStream] = {}
        self._places: dict[Link, ComponentWay] = {}
        """The place of each link whose handshake was done."""
        self._ends: dict[Link, asyncio.Future[str]] = {}
        """Of each link that we opened: done when it is closed, with what kept it from being of use, or ""."""
        self._problems: dict[Link, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._is_empty = asyncio.Event()

    def listeners(self) -> Sequence[Listener]:
        """See ``Ways.listeners``."""
        return [Listener(a.transport, a.host, a.port, ROLE) for a in self._ground.config.component]

    def takes(self, role: str) -> bool:
        """See ``Ways.takes``."""
        return role == ROLE or role.startswith(OURS)

    async def start(self, neighbours: Neighbours, network: Network) -> None:
        """See ``Ways.start``."""
        self._neighbours, self._network = neighbours, network
        place = partial(ComponentWay, self._ground, neighbours)
        self._ours = {host.domain: place(host.domain, host.serves, is_ours=True) for host in self._hosts.values()}
        names = [a_domain(domain) for domain in self._secrets]
        self._attached = {name: place(name, frozenset({name}), is_ours=False) for name in names}
        for role, host in self._hosts.items():
            task = asyncio.get_running_loop().create_task(self._keep(role, host))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # --- stanzas out ---------------------------------------------------------------------------------------------

    def carries(self, theirs: str, ours: str) -> bool:
        """See ``Ways.carries``: what is attached here, and where the route is one that a place of ours implies."""
        if theirs in self._attached:
            return True
        hop = self._ground.service.routes.hop(theirs) if self._hosts else None
        return hop is not None and hop.binding == PROTOCOL and hop.data.decode() in self._urls

    def _place(self, theirs: str, ours: str) -> ComponentWay | None:
        if theirs in self._attached:
            return self._attached[theirs]
        places = [place for place in self._ours.values() if place.carries(theirs, ours)]
        named = [place for place in places if theirs in place.theirs]
        return next(iter(named or places), None)

    def send(self, stanza: Element, hop: Hop, flight: Flight | None = None) -> None:
        """See ``Ways.send``."""
        place = self._place(hop.theirs, a_domain(stanza.get("from")))
        if place is not None:
            place.send(stanza, flight)
        elif flight is not None:
            flight.lost(Reason.NO_ROUTE, "People of this domain cannot write to that domain.", is_unsent=True)

    # --- our places elsewhere ------------------------------------------------------------------------------------

    async def _keep(self, role: str, host: HostConfig) -> None:
        """Join a server, and join it again whenever the stream is lost."""
        failures = 0
        while not self._is_draining:
            try:
                await self._join(role, host)
                failures = 0
            except DeliveryError as error:
                log.log(
                    logging.WARNING if not failures else logging.INFO,
                    "%s is not joined as a component at %s port %d: %s",
                    *(host.domain, host.host, host.port, error),
                )
            except Exception:  # whatever it was, the next attempt may succeed
                log.exception("joining %s port %d as a component failed", host.host, host.port)
            await self._pause(PAUSES[min(failures, len(PAUSES) - 1)])
            failures += 1

    async def _join(self, role: str, host: HostConfig) -> None:
        """Be a component until the stream ends. Raises DeliveryError if it never began."""
        targets = await self._network.hop_targets(PROTOCOL, host.domain, host.url)
        target = replace(targets[0], server_name=host.host)
        self._check(target)
        link = await self._network.connect(self._neighbours.binding, target, role=role)
        try:
            problem = await self._ends[link]
        finally:
            del self._ends[link]
        if problem:
            raise DeliveryError(problem)

    def _check(self, target: Target) -> None:
        """Without TLS only to this machine and to exempt networks, whatever a name turned out to be."""
        address = ip_address(target.host)
        if target.transport == "tls" or address.is_loopback or any(address in network for network in self._exempt):
            return
        raise DeliveryError(f"{target.host} is not this machine, and the stream would be without TLS")

    async def _pause(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._ground.service.clock.call_later(seconds, partial(over.set_result, None))
        try:
            await over
        finally:
            timer.cancel()

    # --- links ---------------------------------------------------------------------------------------------------

    def new_session(self, link: Link, role: str) -> ComponentStream:
        """See ``Ways.new_session``."""
        host, now = self._hosts.get(role), self._ground.service.clock.now()
        session: ComponentStream
        if host is None:
            options = self._options(self._ground.domains[0], self._secrets)
            session = AttachedSession(options, lambda: _end_point(link), self._ground.random, now)
        else:
            domain = prepare_domain(host.domain)
            options = self._options(domain, {domain: host.secret})
            session = AttachingSession(options, lambda: _end_point(link), self._ground.random, now)
            self._ends[link] = asyncio.get_running_loop().create_future()
        self._links[link] = session
        if self._is_draining:
            session.close("system-shutdown")
        elif host is None and self._ground.service.accounts.guard().is_banned(link.peer.remote[0]):
            session.close("policy-violation", "too many failed attempts from this address")
        return session

    def _options(self, domain: str, secrets: Mapping[str, str]) -> ComponentOptions:
        config = self._ground.config
        counts = (config.attributes, config.namespaces, config.name_length)
        early = XmlLimits(config.pre_auth_stanza, config.depth, config.pre_auth_elements, *counts, slice=config.slice)
        limits = XmlLimits(config.server_stanza, config.depth, config.elements, *counts, slice=config.slice)
        return ComponentOptions(domain, secrets, config.pre_auth_time, config.pre_auth_octets, early, limits)

    def handle_event(self, link: Link, event: object) -> None:
        """See ``Ways.handle_event``."""
        place = self._places.get(link)
        if isinstance(event, events.HandshakeSucceeded):
            self._shaken(link, event.domain)
        elif isinstance(event, events.HandshakeFailed):
            self._not_shaken(link, event.domain)
        elif isinstance(event, events.StreamEnded):
            self._problems[link] = event.text or event.condition or "the stream was closed"
            if place is not None:
                place.end(link)
            link.close()
        elif place is not None and place.is_on(link):
            if isinstance(event, events.StanzaReceived):
                place.received(event.stanza, event.index)
            elif isinstance(event, events.StanzasAcknowledged):
                place.acknowledged(event)

    def _shaken(self, link: Link, domain: str) -> None:
        session, name = self._links[link], a_domain(domain)
        if session.is_ended:
            return
        link.authenticated()
        place = self._places[link] = self._ours[name] if link in self._ends else self._attached[name]
        log.info("the component %s is connected (%s)", domain, link.peer.remote[0])
        place.begin(link, session)

    def _not_shaken(self, link: Link, domain: str) -> None:
        host = link.peer.remote[0]
        log.warning("%s showed a wrong secret for the component %s", host, domain)
        if not ip_address(host.partition("%")[0]).is_loopback:
            # A mistake in a component's configuration must not lock out all that is on this machine.
            self._ground.service.accounts.guard().failed(host, None)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """See ``Ways.link_closed``."""
        self._links.pop(link).connection_lost()
        place, problem = self._places.pop(link, None), self._problems.pop(link, "")
        if place is not None:
            place.end(link)
        over = self._ends.get(link)
        if over is not None and not over.done():
            over.set_result("" if place is not None else problem or str(error or "the connection was closed"))
        if not self._links:
            self._is_empty.set()

    async def drain(self) -> None:
        """See ``Ways.drain``."""
        self._is_draining = True
        for task in self._tasks:
            task.cancel()
        for link, session in list(self._links.items()):
            session.close("" if link in self._ends else "system-shutdown")
            link.flush()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._links:
            self._is_empty.clear()
            await self._is_empty.wait()


def _end_point(link: Link) -> bytes | None:
    tls = link.peer.tls
    return None if tls is None else tls.server_end_point

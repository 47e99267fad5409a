"""Other XMPP servers and components: which way a stanza goes between domains.

Place on the path: beside ``binding.py``, which hands over every link that is no client's and every delivery to a hop. ``ways.py`` has
the seam of the kinds of ways, ``passing.py`` what comes in, ``passing_iq.py`` queries, ``passing_out.py`` messages on their way out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from comity.bindings.base import Binding, Link, Listener, Network
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.passing import Arrivals
from comity.bindings.xmpp.passing_iq import Inquiries
from comity.bindings.xmpp.passing_out import Departures, PlainFlight
from comity.bindings.xmpp.stream import XmppStream
from comity.bindings.xmpp.ways import Flight, Hop, Way, Ways, a_domain
from comity.bindings.xmpp.wire import Element
from comity.cpim.operations import Reason, Response
from comity.errors import AddressError
from comity.service.interfaces import Contact, Delivery, Origin

PresenceTaker = Callable[[Element, Origin, Callable[[], None]], None]
"""Takes a presence stanza of another server: the domain of ``from`` is proved, that of ``to`` is ours, both are prepared JIDs. It calls
the third when what the stanza says is durable; then it counts as handled."""


class Neighbours:
    """All other servers.

    Args:
        ground: what the parts of the binding stand on.
        kinds: ways to them; the first that carries a domain has it.
        binding: owns the links.
    """

    def __init__(self, ground: Ground, kinds: Sequence[Ways], binding: Binding) -> None:
        self._ground = ground
        self.binding = binding
        """For ``Network.connect``."""
        self._kinds = tuple(kinds)
        self._links: dict[Link, Ways] = {}
        self._departures = Departures(ground)
        self.inquiries = Inquiries(ground, self)
        """Queries between domains."""
        self._arrivals = Arrivals(ground, self, self._departures)
        self.on_presence: PresenceTaker = lambda stanza, origin, done: done()
        """Set by the presence part, which answers by ``send_presence``."""

    # --- links -------------------------------------------------------------------------------------------------------

    def listeners(self) -> list[Listener]:
        """Where other servers and components connect to."""
        return [listener for kind in self._kinds for listener in kind.listeners()]

    async def start(self, network: Network) -> None:
        """Called once before any listener opens."""
        for kind in self._kinds:
            await kind.start(self, network)

    def takes(self, role: str) -> bool:
        """True for a link that is no client's."""
        return any(kind.takes(role) for kind in self._kinds)

    def new_session(self, link: Link, role: str) -> XmppStream:
        """A session for such a link."""
        kind = self._links[link] = next(kind for kind in self._kinds if kind.takes(role))
        return kind.new_session(link, role)

    def owns(self, link: Link) -> bool:
        """True for a link whose session ``new_session`` made."""
        return link in self._links

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of such a session."""
        self._links[link].handle_event(link, event)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """Such a link is gone."""
        self._links.pop(link).link_closed(link, error)

    async def drain(self) -> None:
        """Say goodbye to everybody, when what they sent is durable."""
        if self._arrivals.pending:
            await asyncio.wait(self._arrivals.pending)
        await asyncio.gather(*(kind.drain() for kind in self._kinds))

    # --- up ----------------------------------------------------------------------------------------------------------

    def received(self, way: Way, stanza: Element, index: int) -> None:
        """Take a stanza that came by ``way``, as it was read; it is checked here, and counted by ``way.handled``."""
        self._arrivals.received(way, stanza, index)

    def broken(self, domains: Iterable[str]) -> None:
        """Streams of these domains ended, and not because nobody had anything to say."""
        presence = self._ground.presence
        if presence is not None:
            for domain in domains:
                presence.doubted(domain)

    # --- down --------------------------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Hand a message to another server (see ``Binding.deliver``)."""
        contact = delivery.contact
        return self._departures.deliver(
            delivery,
            lambda stanza, flight: self.send(stanza, flight, contact),
            lambda: self.inquiries.features(delivery.operation.destination.domain, contact),
        )

    def send(self, stanza: Element, flight: Flight | None = None, hop: Contact | None = None) -> bool:
        """Send a stanza to another domain; False if XMPP does not lead there: then ``flight`` is the caller's to end.

        ``hop``: the way as the service gave it, for a message or by ``find_hops``; None: the static route, or DNS."""
        found = self._find(stanza, hop)
        if found is None:
            return False
        kind, place = found
        kind.send(stanza, place, flight)
        return True

    def send_presence(self, stanza: Element, hop: Contact | None = None) -> asyncio.Future[Response]:
        """The same for presence. Success: the other server has it; else to be tried again, or there is no way (NO_ROUTE)."""
        flight = PlainFlight(asyncio.get_running_loop().create_future())
        if not self.send(stanza, flight, hop):
            flight.lost(Reason.NO_ROUTE, "There is no way to that domain by XMPP.")
        return flight.future

    def _find(self, stanza: Element, hop: Contact | None) -> tuple[Ways, Hop] | None:
        try:
            theirs, ours = a_domain(stanza.get("to")), a_domain(stanza.get("from"))
        except AddressError:
            return None
        if self._ground.service.accounts.serves(theirs):
            return None  # GW-11: what is for us never leaves
        kind = next((kind for kind in self._kinds if kind.carries(theirs, ours)), None)
        if kind is None:
            return None
        service = self._ground.service
        if not service.accounts.serves(ours):
            ours = a_domain(self._ground.domains[0])  # what passes through goes by a stream of our own
        hop = hop or service.routes.hop(theirs)
        next_hop = hop.data.decode() if hop is not None and hop.binding == PROTOCOL else ""
        return kind, Hop(ours, theirs, next_hop)

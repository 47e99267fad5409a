"""What the two kinds of ways to other XMPP servers have in common: the seam between a stream and the stanza layer.

Place on the path: under ``neighbours.py``. A kind (streams between servers in ``servers.py``, components) speaks its protocol and proves
who is at the other end; what stanzas mean is the same for all: ``passing.py`` upwards, ``passing_out.py`` downwards.

Rules for a kind: it hands up nothing before the other side has proved a domain; then every stanza once, by ``Neighbours.received``, and
counts it (``h``) when ``Way.handled`` says so; a ``Flight`` given to ``send`` ends exactly once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from comity.bindings.base import Link, Listener, Network
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.rates import Bucket
from comity.bindings.xmpp.stream import XmppStream
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import Address
from comity.cpim.operations import Reason
from comity.service.interfaces import Timer

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours


@dataclass(frozen=True, slots=True)
class Hop:
    """Whom a stanza goes to, both as A-labels."""

    ours: str
    """The domain of ours in whose name the stream is opened."""
    theirs: str
    next_hop: str = ""
    """``[[route]] next_hop``; "" to find it by DNS."""


class Flight(Protocol):
    """A stanza on its way to another server, for whoever waits for its end. One of the two is called, once."""

    def taken(self) -> None:
        """The other side has it: by XEP-0198, or by an answer to a question written after it."""

    def lost(self, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
        """It may not have it. TIMEOUT: to be tried again; NO_ROUTE: there is no way and will be none. ``is_unsent``: not one octet
        of it left (``Response.is_unsent``)."""


@dataclass(slots=True, eq=False)
class Way:
    """One stream with another server or a component, as the stanza layer sees it."""

    link: Link
    session: XmppStream
    messages: Bucket
    """How fast messages are taken from it (``[limits] peer_messages``)."""
    proved: set[str] = field(default_factory=set)
    """Domains the other side may speak for now, as A-labels and never ours; ``*``: every one but ours."""
    pending: int = 0
    """Stanzas handed up and not yet handled."""
    is_paused: bool = False
    timer: Timer | None = None
    """Ends a pause for too many messages."""
    end_timer: Timer | None = None
    """Goes off when the certificate that proved the other side ends."""

    @property
    def host(self) -> str:
        """The IP address at the other end."""
        return self.link.peer.remote[0]

    def speaks_for(self, domain: str) -> bool:
        """Whether a stanza may come from that domain (A-labels; ask only about domains that are not ours)."""
        return domain in self.proved or "*" in self.proved

    def handled(self, index: int) -> None:
        """Finished with a received stanza: it may be counted and confirmed."""
        self.session.stanza_handled(index)
        self.link.flush()

    def end(self, condition: str, text: str) -> None:
        """Refuse the other side: stream error, then close."""
        self.session.close(condition, text)
        self.link.flush()


class Ways(Protocol):
    """One kind of ways."""

    def listeners(self) -> Sequence[Listener]:
        """Where others connect to; each with a role this kind takes."""

    def takes(self, role: str) -> bool:
        """True for the roles of its listeners, and for those it gives to ``Network.connect``."""

    async def start(self, neighbours: Neighbours, network: Network) -> None:
        """Called once before any listener opens."""

    def carries(self, theirs: str, ours: str) -> bool:
        """Whether stanzas to ``theirs`` in the name of ``ours`` (A-labels) go by this kind, whether or not there is a stream now."""

    def send(self, stanza: Element, hop: Hop, flight: Flight | None = None) -> None:
        """Write ``stanza`` (names in jabber:client, as everywhere) on the stream to ``hop``, or keep it until there is one.

        The order of calls is the order on the wire. Without ``flight`` it is dropped where that takes too long."""

    def new_session(self, link: Link, role: str) -> XmppStream:
        """See ``Binding.new_session``; ``handle_event`` and ``link_closed`` get every event of that link."""

    def handle_event(self, link: Link, event: object) -> None: ...

    def link_closed(self, link: Link, error: Exception | None) -> None: ...

    async def drain(self) -> None:
        """Take nothing new, say goodbye on every stream, return when all links are gone."""


def a_domain(jid: str) -> str:
    """The domain of a JID as A-labels. Raises AddressError."""
    return Address.im("-", Jid.parse(jid).domain).domain

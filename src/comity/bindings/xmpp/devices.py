"""Who is connected: one record a client, and the ways to find it.

Place on the path: beside step 8. Holds no protocol and no decision; ``binding.py`` alone changes what is here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.jid import Jid

if TYPE_CHECKING:
    import asyncio

    from comity.bindings.base import Link
    from comity.bindings.xmpp.counts import Step, StreamCount
    from comity.bindings.xmpp.rates import Rates
    from comity.bindings.xmpp.session import XmppServerSession
    from comity.bindings.xmpp.sm import SmState
    from comity.cpim.address import Address
    from comity.cpim.operations import Response
    from comity.service.interfaces import Delivery, Timer
    from comity.service.presence.interfaces import ContactItem, Content, Statement
    from comity.xml import Element

#: Deliveries remembered so that a later error stanza finds its message.
MAX_DELIVERED = 256


@dataclass(slots=True)
class Flight:
    """A delivery on its way to a device."""

    delivery: Delivery
    futures: list[asyncio.Future[Response]]
    """More than one if the service asked again while the first answer was still awaited."""
    form: str

    def end(self, response: Response) -> None:
        """Answer the service, unless it gave up."""
        for future in self.futures:
            if not future.done():
                future.set_result(response)


@dataclass(slots=True, eq=False)
class Connection:
    """One client: its link and session while there is one, and what outlives a break (XEP-0198)."""

    link: Link
    session: XmppServerSession
    rates: Rates
    account: Address | None = None
    jid: Jid | None = None
    sm_id: str = ""
    sm: SmState | None = None
    """The stream's state, also while it waits for its next connection; None without stream management."""
    count: StreamCount | None = None
    """How far a resumable stream is counted in the store."""
    is_live: bool = True
    """False once the link is gone."""
    is_registered: bool = False
    has_carbons: bool = False
    """True once it asked for copies (XEP-0280)."""
    presence: Element | None = None
    """The last one broadcast; None while unavailable."""
    unpublished: Statement | None = None
    """What it said last, if it says so much that this has still to be told (L-08)."""
    publish_timer: Timer | None = None
    priority: int = 0
    features: frozenset[str] | None = None
    """What the device said it supports, None if it did not."""
    refuses_objects: bool = False
    """It never said what it supports, and refused an object: what needs one is not tried in vain again."""
    caps: tuple[str, str] = ("", "")
    """(hash, ver) by which it said that."""
    events: frozenset[str] = frozenset()
    """Nodes of which it was shown the last items (``personal.py``)."""
    caps_asked: tuple[str, str, str] | None = None
    """(id of our query, hash, ver)."""
    flights: dict[int, Flight] = field(default_factory=dict)
    """By the serial number given to the session as key, in the order written."""
    delivered: OrderedDict[tuple[str, str], Delivery] = field(default_factory=OrderedDict)
    """By sender and id of the stanza: senders choose ids, and may choose the same."""
    outcomes: set[asyncio.Future[Response]] = field(default_factory=set)
    """Ends of accepted messages that are still to be told natively."""
    submitting: set[asyncio.Future[Any]] = field(default_factory=set)
    """What was handed in and is not yet answered: messages, and the work on ``lane``."""
    lane: deque[tuple[Coroutine[None, None, None], Element, int]] = field(default_factory=deque)
    """What the client asked for and has to be done one after the other (``Ground.in_order``): each with its stanza and its index."""
    is_working: bool = False
    """True while somebody works on ``lane``."""
    wants_roster: bool = False
    """It asked for the contact list and is told of changes: an interested resource (RFC 6121 section 2.2)."""
    waiting_pushes: list[ContactItem] | None = None
    """Changes that came while its list was being read; None at all other times."""
    wants_blocklist: bool = False
    waiting_requests: set[str] | None = None
    """Keys of those whose requests it was shown while the stored ones were being read; None at all other times."""
    directed: dict[Jid, None] = field(default_factory=dict)
    """To whom it sent presence of its own (RFC 6121 section 4.6), oldest first."""
    shown: dict[str, Content] | None = None
    """From the moment its stream carries nothing more until it is resumed: what it had been shown of each contact, by the
    contact's key. None at all other times."""
    is_paused: bool = False
    timer: Timer | None = None
    """Ends the time for resumption."""
    throttle_timer: Timer | None = None
    octets_seen: int = 0
    """Octets of the session already counted against its rate."""
    successor: Connection | None = None
    """The connection that resumed this one's stream."""

    @property
    def host(self) -> str:
        """The peer's IP address."""
        return self.link.peer.remote[0]

    @property
    def current(self) -> Connection:
        """The connection on which this one's stream goes on now."""
        return self if self.successor is None else self.successor.current

    def step(self, index: int) -> Step | None:
        """See ``StreamCount.step``; None where no count is kept."""
        return None if self.count is None or self.sm is None else self.count.step(self.sm.incoming.count_of(index))

    def send(self, stanza: Element, key: object = None) -> bool:
        """Write a stanza on this stream, or keep it for the stream's next connection; False if neither can be.

        Raises LocalProtocolError for what XML cannot hold."""
        session, sm = self.session, self.sm
        if self.is_live and session.jid is not None and not session.is_ended:
            session.send_stanza(stanza, key)
            return not session.is_ended  # the queue of what is not acknowledged may have been full
        if not self.sm_id or sm is None or sm.outgoing.is_full:
            return False
        sm.outgoing.add(wire.encode(stanza), key)
        return True

    def send_raw(self, octets: bytes) -> None:
        """Keep a passing stanza that is written already for the stream's next connection, if there is room."""
        if self.sm is not None and not self.sm.outgoing.is_full:
            self.sm.outgoing.add(octets, None)

    def handled(self, index: int) -> None:
        """Finished with a stanza of this stream, wherever the stream is now."""
        if self.sm is None or self.session.sm_state is self.sm:
            self.session.stanza_handled(index)
        else:
            self.sm.incoming.finish(index)  # between two connections

    def join_flight(self, id: str, future: asyncio.Future[Response]) -> bool:
        """Let ``future`` end with the flight of the same message; False if none is on its way.

        The service asks again for what was under way when the stream broke: the device is not to see it twice."""
        flight = next((f for f in self.flights.values() if f.delivery.id == id), None)
        if flight is None:
            return False
        flight.futures.append(future)
        return True

    def refuse_flight(self, id: str, response: Response) -> bool:
        """End the flight of a message that the device refuses before it confirmed it; False if none is on its way."""
        key = next((key for key, flight in self.flights.items() if flight.delivery.id == id), None)
        if key is None:
            return False
        self.flights.pop(key).end(response)
        return True

    def remember(self, stanza: Element, delivery: Delivery) -> None:
        """Keep a delivery for an error that may come about its stanza."""
        self.delivered[bare(stanza.get("from")), stanza.get("id")] = delivery
        if len(self.delivered) > MAX_DELIVERED:
            self.delivered.popitem(last=False)

    def recall(self, error: Element) -> Delivery | None:
        """What an error stanza of the device is about, once; None for what it was not handed."""
        return self.delivered.pop((bare(error.get("to")), error.get("id")), None)


def bare(jid: str) -> str:
    """A JID without its resource: whichever of the sender's devices is answered, it is the sender."""
    return jid.partition("/")[0]


class Devices:
    """All connections, by link, by resource, by stream and by contact address."""

    def __init__(self) -> None:
        self.by_link: dict[Link, Connection] = {}
        self.by_stream: dict[str, Connection] = {}
        """By stream management id: live ones and those that may be resumed."""
        self.by_contact: dict[tuple[str, str], Connection] = {}
        """By address key and resource: registered ones."""
        self._by_account: dict[Jid, dict[str, Connection]] = {}
        self._by_key: dict[str, dict[str, Connection]] = {}
        """The same by the account's address key."""

    def find(self, jid: Jid) -> Connection | None:
        """The connection (or resumable stream) of a full JID."""
        return self._by_account.get(jid.bare, {}).get(jid.resource)

    def resources(self, jid: Jid | None) -> list[Connection]:
        """All resources of an account, resumable streams included."""
        return list(self._by_account.get(jid.bare, {}).values()) if jid is not None else []

    def of(self, account: Address) -> Collection[Connection]:
        """All resources of an account, resumable streams included, by its folded im: address."""
        return self._by_key.get(account.key, {}).values()

    def available(self, account: Address) -> list[Connection]:
        """Those that are available (RFC 6121 section 4.1), resumable streams included."""
        return [connection for connection in self.of(account) if connection.presence is not None]

    def bind(self, connection: Connection) -> None:
        """``connection.jid`` is this connection's from now on."""
        assert connection.jid is not None
        assert connection.account is not None
        resources = self._by_account.setdefault(connection.jid.bare, {})
        resources[connection.jid.resource] = connection
        self._by_key[connection.account.key] = resources

    def unbind(self, connection: Connection) -> None:
        """``connection.jid`` is free again, unless another connection has it."""
        jid = connection.jid
        if jid is None or self.find(jid) is not connection:
            return
        resources = self._by_account[jid.bare]
        del resources[jid.resource]
        if not resources:
            assert connection.account is not None
            del self._by_account[jid.bare], self._by_key[connection.account.key]

"""Streams that we open to other servers: found, connected, proved, and what is sent by them until they have it.

Place on the path: steps 9 and 10, under ``servers.py``. One ``Call`` for each pair of a domain of ours and one of theirs, made when the
first stanza needs it. What is sent counts as taken when the other server acknowledged it (XEP-0198), or else answered a ping written
after it, by a stream of its own. What was not taken when a stream is lost is for the caller to send again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from comity.bindings.base import ClientLink, Link, Network, Target, TlsCheck
from comity.bindings.xmpp import events
from comity.bindings.xmpp.ground import MOST_UNREAD, Ground
from comity.bindings.xmpp.server_stream import PeerOptions
from comity.bindings.xmpp.server_stream_out import OutgoingStream
from comity.bindings.xmpp.ways import Flight, Hop
from comity.bindings.xmpp.wire import IQ, Element
from comity.cpim.address import Address
from comity.cpim.operations import Reason
from comity.errors import DeliveryError, LocalProtocolError, NoRouteError
from comity.service.interfaces import Timer

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

log = logging.getLogger(__name__)

ANSWER_SECONDS: Final = 32.0
"""How long an answer to our ping may take (reliability.md section 5.5)."""
PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds in which a server that could not be called is not called again."""
MOST_WAITING: Final = 1024
"""Stanzas that wait for one call to succeed."""
PING: Final = "{urn:xmpp:ping}ping"


@dataclass(slots=True, eq=False)
class Line:
    """One connection of ours, from before it is made until it is closed."""

    hop: Hop
    check: TlsCheck
    asks: bool
    """Only to ask about dialback keys."""
    ready: asyncio.Future[bool]
    """Whether the other server acknowledges, once stanzas flow; DeliveryError if they never will."""
    take: Callable[[Line, object], None]
    """Takes its events once it is ready."""
    lost: Callable[[Line], None]
    """Called once when a line that was ready is over."""
    link: Link | None = None
    session: OutgoingStream | None = None
    is_over: bool = False
    end_timer: Timer | None = None
    """Goes off when their certificate ends."""
    is_orderly: bool = False
    """It ended because nobody had anything to say."""

    def handle(self, event: object) -> None:
        """Take one event of its session."""
        assert self.session is not None
        assert self.link is not None
        if isinstance(event, events.TlsWanted):
            link: ClientLink = self.link  # type: ignore[assignment]  # it was made by Network.connect
            link.start_tls_client(self.hop.theirs, self.check)
            self.session.tls_started()
            self.link.flush()
        elif isinstance(event, events.StreamReady):
            if not self.ready.done():
                self.ready.set_result(event.has_acknowledgements)
        elif isinstance(event, events.StreamRefused):
            self.fail(f"{event.condition}: {event.text}")
        elif isinstance(event, events.StreamEnded):
            self.is_orderly = event.is_orderly
            self.over(event.text or event.condition or "the stream was closed")
            self.link.close()
        else:
            self.take(self, event)

    def fail(self, problem: str) -> None:
        """It will carry nothing."""
        if not self.ready.done():
            self.ready.set_exception(DeliveryError(problem))

    def over(self, problem: str) -> None:
        """Nothing goes by it any more."""
        if self.is_over:
            return
        self.is_over = True
        if self.end_timer is not None:
            self.end_timer.cancel()
        if self.ready.done() and not self.ready.cancelled() and self.ready.exception() is None:
            self.lost(self)
        else:
            self.fail(problem)


class Dialer:
    """Opens lines.

    Args:
        ground: what the parts of the binding stand on.
        options: of every stream between servers.
    """

    def __init__(self, ground: Ground, options: Callable[[], PeerOptions]) -> None:
        self._ground = ground
        self._options = options
        self._by_role: dict[str, Line] = {}
        self._by_link: dict[Link, Line] = {}
        self._count = 0
        self.neighbours: Neighbours
        self.network: Network

    def takes(self, role: str) -> bool:
        """True for a link being opened here."""
        return role in self._by_role

    def new_session(self, link: Link, role: str) -> OutgoingStream:
        """The session of such a link."""
        line = self._by_link[link] = self._by_role[role]
        line.link = link
        ours, theirs = (Address("im", "", name).domain_u for name in (line.hop.ours, line.hop.theirs))
        line.session = OutgoingStream(
            ours,
            theirs,
            self._options(),
            lambda: link.peer.tls,
            random=self._ground.random,
            now=self._ground.service.clock.now(),
            asks=line.asks,
        )
        return line.session

    def owns(self, link: Link) -> bool:
        """True for a link that was opened here."""
        return link in self._by_link

    def handle_event(self, link: Link, event: object) -> None:
        """Take one event of such a link."""
        self._by_link[link].handle(event)

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """Such a link is gone."""
        line = self._by_link.pop(link)
        if line.session is not None:
            line.session.connection_lost()
        line.over(str(error) if error is not None else "the connection was closed")

    @property
    def links(self) -> list[Link]:
        """Every link opened here."""
        return list(self._by_link)

    async def open(
        self, hop: Hop, take: Callable[[Line, object], None], lost: Callable[[Line], None], *, asks: bool = False
    ) -> Line:
        """The first target that answers, proves itself and believes us (RFC 2782: in order). Raises DeliveryError."""
        problems: list[str] = []
        theirs = Address("im", "", hop.theirs).domain_u
        check: TlsCheck = "nothing" if theirs in self._options().dialback else "chain"
        for target in await self.network.hop_targets("xmpp", hop.theirs, hop.next_hop):
            loop = asyncio.get_running_loop()
            line = Line(hop, check, asks, loop.create_future(), take, lost)
            try:
                await self._try(line, replace(target, server_name=hop.theirs, check=check))
            except DeliveryError as error:
                problems.append(f"{target.host} port {target.port}: {error}")
                continue
            return line
        raise DeliveryError("; ".join(problems))

    async def _try(self, line: Line, target: Target) -> None:
        self._count += 1
        role = f"to {self._count}"
        self._by_role[role] = line
        try:
            await self.network.connect(self.neighbours.binding, target, role=role)
            await line.ready
        except BaseException:
            if line.link is not None:
                line.link.close()
            if not line.ready.done():
                line.ready.cancel()
            raise
        finally:
            del self._by_role[role]


class Call:
    """The stream from one of our domains to one of theirs, while there is one and while there is none.

    Args:
        hop: whom.
        ground, dialer: what it stands on.
        forget: called when it holds nothing any more.
    """

    def __init__(self, hop: Hop, ground: Ground, dialer: Dialer, forget: Callable[[Call], None]) -> None:
        self.hop = hop
        self._ground = ground
        self._dialer = dialer
        self._forget = forget
        self._waiting: deque[tuple[Element, Flight | None]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._line: Line | None = None
        self._has_acknowledgements = False
        self._flights: dict[int, Flight] = {}
        """By serial number, in the order written."""
        self._serial = 0
        self._asked = ("", 0)
        """Our ping under way and up to which serial number it proves; "" none."""
        self._is_asking_soon = False
        self._timer: Timer | None = None
        self._failures = 0
        self._closed_until = 0.0
        self._unanswered = 0
        """Pings without an answer since the last answered one."""
        self.is_draining = False

    @property
    def is_idle(self) -> bool:
        """True if it knows nothing worth keeping."""
        is_resting = self._ground.service.clock.now() >= self._closed_until
        return self._line is None and self._task is None and is_resting

    # --- out ---------------------------------------------------------------------------------------------------------

    def send(self, stanza: Element, flight: Flight | None) -> None:
        """See ``Ways.send``."""
        if self._line is not None and not self._waiting:
            self._write(stanza, flight)
        elif self.is_draining or self._ground.service.clock.now() < self._closed_until or self._is_full:
            _lost(flight, Reason.TIMEOUT, "The next server cannot be reached now.", is_unsent=True)
        else:
            self._waiting.append((stanza, flight))
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._open())

    @property
    def _is_full(self) -> bool:
        return len(self._waiting) >= MOST_WAITING

    def _write(self, stanza: Element, flight: Flight | None) -> None:
        assert self._line is not None
        link, session = self._line.link, self._line.session
        assert link is not None
        assert session is not None
        if link.unsent >= MOST_UNREAD or (self._has_acknowledgements and session.sm_state.outgoing.is_full):
            _lost(flight, Reason.OVERLOAD, "The next server does not keep up.")
            return
        self._serial += 1
        try:
            session.send_stanza(stanza, self._serial)
        except LocalProtocolError:
            _lost(flight, Reason.CONTENT, "This holds something that XML cannot carry.")
            return
        if flight is not None:
            self._flights[self._serial] = flight
            if not self._has_acknowledgements:
                self._ask_soon()
        link.flush()

    # --- what was taken ----------------------------------------------------------------------------------------------

    def _ask_soon(self) -> None:
        """One ping for all that is written in this turn of the loop."""
        if not self._is_asking_soon and not self._asked[0]:
            self._is_asking_soon = True
            asyncio.get_running_loop().call_soon(self._ask)

    def _ask(self) -> None:
        self._is_asking_soon = False
        line = self._line
        if line is None or line.session is None or line.link is None or not self._flights:
            return
        id = self._ground.random(12).hex()
        self._asked = id, self._serial
        names = {"from": self.hop.ours, "to": self.hop.theirs}
        jids = {key: Address("im", "", name).domain_u for key, name in names.items()}
        line.session.send_stanza(Element(IQ, {"type": "get", "id": id, **jids}, [Element(PING)]))
        self._dialer.neighbours.inquiries.expect(self.hop.theirs, id, lambda answer: self._answered(id))
        self._timer = self._ground.service.clock.call_later(ANSWER_SECONDS, self._not_answered)
        line.link.flush()

    def _answered(self, id: str) -> None:
        """The ping was answered, whatever the answer says: what was written before it was worked through."""
        if id != self._asked[0]:
            return
        self._unanswered = 0
        self._prove()

    def _prove(self) -> None:
        up_to = self._asked[1]
        self._end_question()
        for serial in [serial for serial in self._flights if serial <= up_to]:
            self._flights.pop(serial).taken()
        if self._flights:
            self._ask_soon()

    def _not_answered(self) -> None:
        """No answer: the stream may be dead. One that is not answered on the next stream either is a server that takes and never
        answers, or cannot call us back: holding its messages would only send them again and again."""
        self._unanswered += 1
        assert self._line is not None
        assert self._line.link is not None
        if self._unanswered >= 2 and not self._line.link.unsent:
            log.warning("%s does not answer pings; what it took is believed to have arrived", self.hop.theirs)
            self._prove()
            return
        log.info("%s does not answer a ping; calling it again", self.hop.theirs)
        self._line.link.abort()

    def _end_question(self) -> None:
        id, self._asked = self._asked[0], ("", 0)
        if id:
            self._dialer.neighbours.inquiries.forget(self.hop.theirs, id)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self, line: Line, event: object) -> None:
        if isinstance(event, events.StanzasAcknowledged):
            for key in event.keys:
                flight = self._flights.pop(key, None) if isinstance(key, int) else None
                if flight is not None:
                    flight.taken()

    # --- the stream --------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        reason, line = Reason.TIMEOUT, None
        try:
            line = await self._dialer.open(self.hop, self._take, self._lost)
        except NoRouteError as error:
            reason = Reason.NO_ROUTE
            log.info("no way to %s: %s", self.hop.theirs, error)
        except DeliveryError as error:
            log.info("no stream to %s: %s", self.hop.theirs, error)
        except Exception:  # whatever it was, who waits must not wait for ever
            log.exception("no stream to %s", self.hop.theirs)
        finally:
            self._task = None
            self._opened(line, reason)

    def _opened(self, line: Line | None, reason: Reason) -> None:
        if line is None or line.is_over:
            self._closed_until = self._ground.service.clock.now() + PAUSES[min(self._failures, len(PAUSES) - 1)]
            self._failures += 1
            waiting, self._waiting = self._waiting, deque()
            text = "The next server cannot be reached now."
            if reason is Reason.NO_ROUTE:
                text = "There is no server for that domain."
            for _, flight in waiting:
                _lost(flight, reason, text, is_unsent=True)
            self._forget(self)
            return
        self._line, self._failures = line, 0
        self._mind_certificate(line)
        self._has_acknowledgements = line.ready.result()
        waiting, self._waiting = self._waiting, deque()
        for stanza, flight in waiting:
            if self._line is None:  # it ended while it was written to
                _lost(flight, Reason.TIMEOUT, "The stream to the next server was lost.")
            else:
                self._write(stanza, flight)
        if self.is_draining:
            self.close()

    def _lost(self, line: Line) -> None:
        """What was not taken goes back to who sent it."""
        if self._line is not line:
            return
        self._line = None
        if not line.is_orderly:
            self._dialer.neighbours.broken((self.hop.theirs,))
        self._end_question()
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            flight.lost(Reason.TIMEOUT, "The stream to the next server was lost.")
        if not self._waiting and self._task is None:
            self._forget(self)

    def _mind_certificate(self, line: Line) -> None:
        """What it proved is proved no longer when it ends (D-15); the next stanza opens another stream."""
        tls = None if line.link is None else line.link.peer.tls
        if tls is not None and tls.ends is not None:
            clock = self._ground.service.clock
            seconds = max((tls.ends - clock.when()).total_seconds(), 0.0)
            line.end_timer = clock.call_later(seconds, self.close)

    def returned(self) -> None:
        """The other server called us: it is there again, whatever the last call came to."""
        self._closed_until, self._failures = 0.0, 0

    def close(self, condition: str = "", text: str = "") -> None:
        """End the stream in order."""
        if self._line is not None and self._line.session is not None and self._line.link is not None:
            self._line.session.close(condition, text)
            self._line.link.flush()

    def cancel(self) -> None:
        """Give up a call under way."""
        if self._task is not None:
            self._task.cancel()


def _lost(flight: Flight | None, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
    if flight is not None:
        flight.lost(reason, text, is_unsent=is_unsent)

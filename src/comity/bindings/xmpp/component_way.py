"""One component's place: the stream that stands there now, what was written on it and is not yet taken, and who may say what by it.

Place on the path: steps 3 to 4 and 8 to 9, under ``components.py``. Both directions have it: a component of others that attaches to us,
and we where we attach to another's server. Nothing waits here while there is no stream: the service keeps what cannot be sent and is
told when it can (``Service.hop_returned``). What the other side had not taken when a stream broke goes back to the service too.

Promise kept here: who is at the other end speaks for its own domains, checked for each stanza (K-04). A server that relays strangers'
stanzas is told of each that it may not send; the stream, by which its own people's come, stays.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from comity.bindings.base import Link
from comity.bindings.xmpp import component_queries, wire
from comity.bindings.xmpp.component_stream import ComponentStream
from comity.bindings.xmpp.events import StanzasAcknowledged
from comity.bindings.xmpp.extensions import PROTOCOL
from comity.bindings.xmpp.ground import MOST_UNREAD, Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.rates import Bucket
from comity.bindings.xmpp.ways import Flight, Way, a_domain
from comity.bindings.xmpp.wire import IQ, MESSAGE, PRESENCE, Element
from comity.cpim.address import from_jid, to_jid
from comity.cpim.names import Names
from comity.cpim.operations import Reason
from comity.errors import AddressError, LocalProtocolError

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

log = logging.getLogger(__name__)


class ComponentWay:
    """The place of one component.

    Args:
        ground: what the parts of the binding stand on.
        neighbours: takes what comes in.
        domain: the component's, A-labels.
        theirs: domains the other side may speak for and that are reached by it, A-labels and none of ours; ``*``: every one but ours.
        is_ours: we are the component.
    """

    def __init__(
        self, ground: Ground, neighbours: Neighbours, domain: str, theirs: frozenset[str], *, is_ours: bool
    ) -> None:
        self.domain = domain
        self.theirs = theirs
        self.way: Way | None = None
        """The stream; None while there is none."""
        self._ground = ground
        self._neighbours = neighbours
        self._is_ours = is_ours
        self._flights: dict[int, Flight] = {}
        """By serial number, in the order written."""
        self._serial = 0

    def carries(self, theirs: str, ours: str) -> bool:
        """Whether stanzas in the name of ``ours`` to ``theirs`` (A-labels) go by this component."""
        if self._is_ours and self._named(ours) != self.domain:
            return False  # a component that speaks for another domain loses its stream
        return theirs in self.theirs or ("*" in self.theirs and not self._ground.service.accounts.serves(theirs))

    def _named(self, domain: str) -> str | None:
        return self._names.domain_to_wire(domain)

    @property
    def _names(self) -> Names:
        """What people are called on this link (``[[map]]``)."""
        return self._ground.service.maps.towards(PROTOCOL, self.domain)

    # --- the stream ----------------------------------------------------------------------------------------------

    def begin(self, link: Link, session: ComponentStream) -> None:
        """A stream is open; a former one ends."""
        former = self.way
        now, rate = self._ground.service.clock.now(), self._ground.config.peer_messages
        self.way = Way(link, session, Bucket(rate, rate, rate, now), set(self.theirs))
        if former is not None:
            self._lose(former)
            former.end("conflict", "another connection of this component came")
        # Not before the service has heard what was lost: it would wait for a second with just that.
        asyncio.get_running_loop().call_soon(self._ground.service.hop_returned, PROTOCOL, self.theirs)

    def is_on(self, link: Link) -> bool:
        """True if that link's stream is the one that stands."""
        return self.way is not None and self.way.link is link

    def end(self, link: Link) -> None:
        """A stream is over, or its link is gone."""
        if self.way is not None and self.way.link is link:
            way, self.way = self.way, None
            self._lose(way)

    def _lose(self, way: Way) -> None:
        if way.timer is not None:
            way.timer.cancel()
        flights, self._flights = self._flights, {}
        for flight in flights.values():
            flight.lost(Reason.TIMEOUT, "The stream of the component was lost.")
        presence = self._ground.presence
        if presence is not None:
            for domain in self.theirs - {"*"}:
                presence.doubted(domain)

    # --- down ----------------------------------------------------------------------------------------------------

    def send(self, stanza: Element, flight: Flight | None) -> None:
        """Write a stanza, or say at once that it cannot be."""
        way = self.way
        if way is None or way.session.is_ended:
            _lost(flight, Reason.TIMEOUT, "The component is not connected now.", is_unsent=True)
        elif way.link.unsent >= MOST_UNREAD:
            _lost(flight, Reason.OVERLOAD, "The component does not keep up.", is_unsent=True)
        elif not self._rename(stanza, self._names, to_wire=True):
            _lost(flight, Reason.NO_ROUTE, "Somebody in this message has no name there.")
        else:
            self._write(way, stanza, flight)

    def _write(self, way: Way, stanza: Element, flight: Flight | None) -> None:
        self._serial += 1
        if flight is not None:
            self._flights[self._serial] = flight
        try:
            way.session.send_stanza(stanza, None if flight is None else self._serial)
        except LocalProtocolError:
            self._flights.pop(self._serial, None)
            _lost(flight, Reason.CONTENT, "This holds something that XML cannot carry.")
            return
        way.link.flush()

    def acknowledged(self, event: StanzasAcknowledged) -> None:
        """The other side has these."""
        for key in event.keys:
            flight = self._flights.pop(key, None) if isinstance(key, int) else None
            if flight is not None:
                flight.taken()

    # --- up ------------------------------------------------------------------------------------------------------

    def received(self, stanza: Element, index: int) -> None:
        """Take a stanza whose addresses are JIDs: hand it up, or answer it here."""
        way = self.way
        assert way is not None
        answer = self._answer(way, stanza)
        if answer is None:
            self._neighbours.received(way, stanza, index)
            return
        if answer.name in wire.STANZA_NAMES:
            self.send(answer, None)
        way.handled(index)

    def _answer(self, way: Way, stanza: Element) -> Element | None:
        """What is answered here instead of above; an element of another name for silence; None to hand it up."""
        silence = Element("silence")
        try:
            source, to = a_domain(stanza.get("from")), Jid.parse(stanza.get("to"))
            destination = a_domain(stanza.get("to"))
        except AddressError as error:
            return wire.error_reply(stanza, "jid-malformed", error.reason) or silence
        service = self._ground.service
        if not way.speaks_for(source) or service.accounts.serves(source):
            log.info("a stanza in the name of %s was refused: %s does not speak for it here", source, self.domain)
            return (
                wire.error_reply(stanza, "forbidden", "messages of your domain are not taken from this server")
                or silence
            )
        if self._is_ours and destination != self.domain:
            return wire.error_reply(stanza, "item-not-found", "this is another component's domain") or silence
        if not self._rename(stanza, self._names, to_wire=False):
            return wire.error_reply(stanza, "item-not-found", "nobody here has that name") or silence
        if self._is_ours and stanza.name == IQ and not to.local and stanza.get("type") in ("get", "set"):
            return (
                component_queries.answer(stanza, self._ground.config.software_version, service.clock.when()) or silence
            )
        destination = a_domain(stanza.get("to"))
        if service.accounts.serves(destination):
            return None
        if stanza.name == MESSAGE and (service.routes.may_pass(source, destination) or stanza.get("type") == "error"):
            return None
        if stanza.name == PRESENCE and stanza.get("type") not in ("subscribe", "probe"):
            return silence  # it asks for no answer
        condition = "service-unavailable" if destination == self.domain else "remote-server-not-found"
        return wire.error_reply(stanza, condition) or silence

    def _rename(self, stanza: Element, names: Names, *, to_wire: bool) -> bool:
        """Turn both addresses into what they are on the link, or here; False if one has no name there."""
        if names.is_plain:
            return True
        turned = {}
        for key in ("from", "to"):
            name = _turned(stanza.get(key), names, to_wire=to_wire)
            if name is None:
                return False
            turned[key] = name
        stanza.attributes.update(turned)
        return True


def _turned(jid: str, names: Names, *, to_wire: bool) -> str | None:
    parsed = Jid.parse(jid)
    if not parsed.local:
        turn = names.domain_to_wire if to_wire else names.domain_to_core
        domain = turn(a_domain(jid))
        return None if domain is None else str(Jid("", Jid.parse(domain).domain, parsed.resource))
    address, resource = from_jid(jid)
    turned = names.to_wire(address) if to_wire else names.to_core(address)
    if turned is None:
        return None
    return f"{to_jid(turned)}/{resource}" if resource else to_jid(turned)


def _lost(flight: Flight | None, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
    if flight is not None:
        flight.lost(reason, text, is_unsent=is_unsent)

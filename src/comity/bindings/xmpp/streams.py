"""A stream's life around its stanzas: the resource it is bound to, resumption on another connection, its end.

Place on the path: beside step 3. A stream with stream management outlives its connection for a while; it can be taken
over once, by its owner (XEP-0198 section 5; X-69, X-70, X-73). What was handed in on the old connection gets its end
before the new one goes on, so that ``h`` tells the client exactly what not to send again.

Resumption lives in memory: after a restart, or when its time is over, a stream is answered ``<failed h='N'/>`` with the
durable count of what the server took; what the client did not take stands in the store and comes anew.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial

from comity.bindings.xmpp import events
from comity.bindings.xmpp.availability import Availability
from comity.bindings.xmpp.carbons import Carbons
from comity.bindings.xmpp.counts import StreamCount, mark_name, unpack
from comity.bindings.xmpp.delivery import DeviceDelivery
from comity.bindings.xmpp.devices import Connection
from comity.bindings.xmpp.ground import Ground
from comity.failpoints import failpoint

log = logging.getLogger(__name__)

#: Seconds a resumption waits for the store to take its count; then the client is told what is known to be kept.
SETTLE_TIME = 10.0


class Streams:
    """Resources and resumable streams."""

    def __init__(self, ground: Ground, availability: Availability, delivery: DeviceDelivery, carbons: Carbons) -> None:
        self._ground = ground
        self._carbons = carbons
        self._availability = availability
        self._delivery = delivery

    def resource_bound(self, connection: Connection, event: events.ResourceBound) -> None:
        """The client has a resource now; a former holder of it ends."""
        connection.jid = event.jid
        former = self._ground.devices.find(event.jid)
        if former is not None:
            self._replace(former)
        elif len(self._ground.devices.resources(event.jid)) >= self._ground.config.contacts:
            connection.session.close("resource-constraint", "too many resources of this account")
            return
        self._ground.devices.bind(connection)

    def _replace(self, former: Connection) -> None:
        """The new one wins (RFC 6120 section 7.7.2.2): the former stream of this resource ends for good."""
        former.session.close("conflict", "this resource signed in elsewhere")
        if former.is_live:
            former.link.flush()
        self.forget(former)

    def sm_enabled(self, connection: Connection, event: events.SmEnabled) -> None:
        """Stream management is on: the stream may outlive its connection."""
        if event.id:
            assert connection.account is not None
            connection.sm_id, connection.sm = event.id, connection.session.sm_state
            connection.count = StreamCount(event.id, connection.account.folded().key, self._ground.service.mark)
            self._ground.devices.by_stream[event.id] = connection

    def count_wanted(self, connection: Connection, event: events.CountWanted) -> None:
        """The client asks for ``h``: nothing is said that the store does not hold."""
        assert connection.count is not None
        assert connection.sm is not None
        number = connection.sm.incoming.count_of(event.index)
        connection.count.say(number, partial(self._count_kept, connection, event.index))

    def _count_kept(self, connection: Connection, index: int) -> None:
        connection = connection.current
        assert connection.sm is not None
        if connection.session.sm_state is connection.sm:
            connection.session.count_kept(index)
            connection.link.flush()
        else:
            connection.sm.incoming.keep(index)  # between two connections

    def resume_wanted(self, connection: Connection, event: events.ResumeWanted) -> None:
        """Give the stream to its owner; it can be taken once (X-69, X-70, X-73)."""
        former = self._ground.devices.by_stream.get(event.previous_id)
        if former is None:
            self._ground.run(self._refuse(connection, event.previous_id))
        elif former.account != connection.account:
            connection.session.refuse_resume()
        elif former.session.is_tls and not connection.session.is_tls:
            connection.session.refuse_resume()  # what waits on it may have to stay under TLS (T11)
        elif not former.is_live and former.sm is not None and former.sm.outgoing.is_full:
            self.forget(former)  # what came after that, a change of the contact list say, was not kept
            connection.session.refuse_resume()
        else:
            self._take_over(connection, former)
            self._ground.run(self._resume(connection))

    async def _refuse(self, connection: Connection, id: str) -> None:
        """Tell the owner of a stream that is gone how much of it was handled."""
        assert connection.account is not None
        h = None
        try:
            kept = await self._ground.service.read_mark(mark_name(id))
            count, owner = unpack(kept) if kept is not None else (0, "")
            h = count if owner == connection.account.folded().key else None
        finally:
            connection.session.refuse_resume(h=h)
            connection.link.flush()

    async def _resume(self, connection: Connection) -> None:
        """Go on when all that was handed in has its end and is counted in the store."""
        sm, count = connection.sm, connection.count
        if sm is None or count is None:
            return  # a third connection took the stream on before its second came to it
        if connection.submitting:
            await asyncio.wait(connection.submitting)
        settled = asyncio.Event()
        index = sm.incoming.handled
        count.say(sm.incoming.count_of(index), settled.set)
        try:
            await asyncio.wait_for(settled.wait(), SETTLE_TIME)
            sm.incoming.keep(index)
        except TimeoutError:
            log.warning("the count of a stream that is resumed could not be kept in time")
        if connection.is_live and connection.sm is sm and not connection.session.is_ended:
            connection.session.resume(sm)
            connection.link.flush()

    def _take_over(self, connection: Connection, former: Connection) -> None:
        if former.timer is not None:
            former.timer.cancel()
        if former.is_live:  # the old connection is dead, only TCP has not noticed
            former.is_live = False
            self._availability.remember(former)
            del self._ground.devices.by_link[former.link]
            _cancel_outcomes(former)
            former.link.abort()
        former.successor = connection
        connection.jid, connection.sm_id = former.jid, former.sm_id
        connection.features, connection.presence = former.features, former.presence
        connection.caps, connection.events = former.caps, former.events
        connection.priority, connection.caps_asked = former.priority, former.caps_asked
        connection.flights, former.flights = former.flights, {}
        connection.delivered = former.delivered
        connection.wants_roster, connection.waiting_pushes = former.wants_roster, former.waiting_pushes
        connection.wants_blocklist, connection.waiting_requests = former.wants_blocklist, former.waiting_requests
        connection.directed, connection.shown = former.directed, former.shown
        connection.unpublished, connection.publish_timer = former.unpublished, former.publish_timer
        connection.submitting = former.submitting
        connection.sm, connection.count = former.sm, former.count
        former.sm = former.count = None
        self._carbons.forget(former)
        connection.has_carbons = former.has_carbons
        self._carbons.place(connection)
        if former.is_registered:
            connection.is_registered, former.is_registered = True, False
            assert connection.account is not None
            assert connection.jid is not None
            self._ground.devices.by_contact[connection.account.folded().key, connection.jid.resource] = connection
        for slot, held in former.session.take_held().items():
            if self._availability.may_go_on(connection, slot, held):
                connection.send_raw(held)  # kept until the stream goes on
        self._ground.devices.by_stream[former.sm_id] = connection
        self._ground.devices.bind(connection)
        former.sm_id = ""
        failpoint("xmpp.resume")

    def resumed(self, connection: Connection, event: events.Resumed) -> None:
        """The stream goes on here."""
        self._availability.resumed(connection)

    def stream_ended(self, connection: Connection, event: events.StreamEnded) -> None:
        """The stream is over; close what carried it."""
        if event.is_orderly or event.condition in ("policy-violation", "system-shutdown"):
            self._drop_stream(connection)  # nothing to resume after a goodbye (XEP-0198 section 5)
        elif connection.sm_id:
            self._availability.remember(connection)
        if event.is_local and event.condition not in ("", "conflict", "system-shutdown"):
            what = (connection.host, event.condition, event.text)
            log.info("XMPP stream of %s was ended: %s (%s)", *what, extra={"is_peers": True})
        connection.link.close()

    def lost(self, connection: Connection) -> None:
        """The connection is gone: park a stream that may be resumed, end the others."""
        connection.is_live = False
        _cancel_outcomes(connection)
        if connection.sm_id and not self._ground.is_draining:
            self._availability.park(connection)
            connection.timer = self._ground.service.clock.call_later(
                self._ground.config.sm_resume, partial(self.forget, connection)
            )
        else:
            self.forget(connection)

    def forget(self, connection: Connection) -> None:
        """End a device for good: nothing of it can be resumed any more."""
        if connection.timer is not None:
            connection.timer.cancel()
        self._drop_stream(connection)
        self._availability.go_offline(connection)
        connection.wants_roster = connection.wants_blocklist = False
        self._carbons.forget(connection)
        self._ground.devices.unbind(connection)
        self._ground.typing.left(str(connection.jid))
        _cancel_outcomes(connection)
        self._delivery.fail_flights(connection)

    def _drop_stream(self, connection: Connection) -> None:
        if self._ground.devices.by_stream.get(connection.sm_id) is connection:
            del self._ground.devices.by_stream[connection.sm_id]
        connection.sm_id = ""


def _cancel_outcomes(connection: Connection) -> None:
    """Nobody is there to be told natively: the service reports instead."""
    for outcome in list(connection.outcomes):
        outcome.cancel()

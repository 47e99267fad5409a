"""The way down: a delivery becomes a stanza on a device's stream, and ends with the device's word.

Place on the path: steps 7 to 9. A delivery succeeds when the client acknowledged it (XEP-0198), or, without stream
management, when it answered a question written after it (``life.py``).
"""

from __future__ import annotations

import asyncio
from functools import partial

from comity.bindings.xmpp import events, mapping, wire
from comity.bindings.xmpp.devices import Connection, Flight
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.typing import state_of
from comity.cpim.address import Address, to_jid
from comity.cpim.composing import Composing
from comity.cpim.operations import Reason, Requirement, Response, failure, success
from comity.errors import LocalProtocolError
from comity.service.interfaces import Delivery


class DeviceDelivery:
    """Deliveries to connected devices."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._serial = 0

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """See ``Binding.deliver``."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        trans_id = delivery.operation.trans_id
        connection = self._ground.devices.by_contact.get((delivery.contact.aor.key, delivery.contact.id))
        if connection is None or connection.session.is_ended:
            future.set_result(failure(trans_id, Reason.AWAY, "The device is not connected."))
            return future
        if Requirement.TLS in delivery.operation.requirements and not connection.session.is_tls:
            # The service asked the contact; this is the link itself, the last look before the octets leave.
            text = "The recipient's device cannot be reached under TLS."
            future.set_result(failure(trans_id, Reason.PROTECTION, text))
            return future
        if connection.join_flight(delivery.id, future):
            return future  # a resumed stream sends it again by itself (XEP-0198 section 5)
        made = mapping.operation_to_stanza(
            delivery.operation,
            delivery_id=delivery.id,
            domain=self._ground.service.node,
            accepted=delivery.accepted,
            is_delayed=delivery.is_delayed,
            features=frozenset() if connection.refuses_objects else connection.features,
        )
        if isinstance(made, Response):
            future.set_result(made)
            return future
        end = partial(self._idle, connection, delivery.operation.source)
        self._ground.typing.shown(str(connection.jid), delivery.operation, end)
        if delivery.operation.context.transient:
            self._ground.pass_on(connection, made.stanza, f"message {made.stanza.get('from')}")
            connection.link.flush()
            future.set_result(success(trans_id, made.form))
            return future
        self._serial += 1
        flight = Flight(delivery, [future], made.form)
        try:
            is_sent = connection.send(made.stanza, self._serial)
        except LocalProtocolError:
            text = "The message holds something that XML cannot carry."
            future.set_result(failure(trans_id, Reason.CONTENT, text))
            return future
        if not is_sent:
            future.set_result(failure(trans_id, Reason.AWAY, "The device does not keep up."))
            connection.link.flush()
            return future
        connection.flights[self._serial] = flight
        connection.remember(made.stanza, delivery)
        connection.link.flush()
        return future

    def _idle(self, connection: Connection, source: Address) -> None:
        """Somebody shown typing by another protocol has not said so again in time."""
        connection = connection.current
        if not connection.is_live:
            return
        sender = to_jid(source)
        attributes = {"from": sender, "to": str(connection.jid), "type": "chat"}
        stanza = wire.Element(wire.MESSAGE, attributes, [state_of(Composing(False))])
        self._ground.pass_on(connection, stanza, f"message {sender}")
        connection.link.flush()

    def acknowledged(self, connection: Connection, event: events.StanzasAcknowledged) -> None:
        """The client has taken these: they are delivered."""
        for key in event.keys:
            flight = connection.flights.pop(key, None) if isinstance(key, int) else None
            if flight is not None:
                flight.end(success(flight.delivery.operation.trans_id, flight.form))

    def fail_flights(self, connection: Connection) -> None:
        """The device is gone for good: what it did not confirm goes back to the service."""
        flights, connection.flights = connection.flights, {}
        for flight in flights.values():
            text = "The device went away before it confirmed the message."
            flight.end(failure(flight.delivery.operation.trans_id, Reason.AWAY, text))

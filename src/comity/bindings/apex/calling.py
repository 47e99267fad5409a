"""Making a session with another relay usable: greeting, TLS, SASL EXTERNAL, channel, a bind for each of our domains.

Place on the path: step 10's beginning, for ``mesh.py``. Promise kept here: nothing is sent to a relay that has not shown a certificate
for the name we called, unless the operator wrote ``tcp://`` with an address on this machine or in a network of ``plaintext_from``.
TLS is never begun to please the peer and never left out because it does not offer it (RFC 3340 sections 3.4 and 3.5).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from typing import cast

from comity.bindings.apex import events
from comity.bindings.apex.elements import Bind, Error, Ok
from comity.bindings.apex.ground import Ground
from comity.bindings.apex.neighbour import Neighbour
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.targets import Way
from comity.bindings.base import ClientLink, Link, Target
from comity.errors import DeliveryError
from comity.service.interfaces import Timer

log = logging.getLogger(__name__)

CALL_SECONDS = 30.0
"""From the connection to the last bind's ``ok``."""
EXTERNAL = "EXTERNAL"


class Calling:
    """One call of another relay.

    Args:
        way: whom we call.
        target: the address tried.
        ground: what all parts of the binding stand on.
        on_ready: called with the neighbour as soon as data may go both ways.
    """

    def __init__(self, way: Way, target: Target, ground: Ground, on_ready: Callable[[Neighbour], None]) -> None:
        self.way = way
        self._target = target
        self._ground = ground
        self._on_ready = on_ready
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when data may be sent; DeliveryError if that will not come."""
        self.neighbour: Neighbour | None = None
        """Set when ready."""
        self._link: ClientLink | None = None
        self._session: ApexSession | None = None
        self._timer: Timer | None = None
        self._channel = 0
        self._binding: dict[int, str] = {}
        """Domains whose bind is not answered, by handle."""
        self._bound = 0
        self._has_asked_for_tls = False

    def begin(self, link: Link, session: ApexSession) -> None:
        """The connection is there; the peer's greeting comes by itself."""
        self._link, self._session = cast("ClientLink", link), session  # that is what ``connect`` makes
        self._timer = self._ground.service.clock.call_later(CALL_SECONDS, self._late)

    def handle_event(self, event: object) -> None:
        """Take an event of the session that comes before it is ready."""
        assert self._link is not None
        assert self._session is not None
        match event:
            case events.Greeted():
                self._greeted(self._link, self._session, event)
            case events.TlsWanted():
                self._link.start_tls_client(self.way.server_name)
                self._session.tls_started(self._ground.service.clock.now())
            case events.SignInSucceeded() | events.SignInFailed():
                # Whether we are believed is seen at the bind.
                self._open(self._session)
            case events.ChannelOpened(channel, answer):
                self._opened(self._session, channel, answer)
            case events.Answered(handle, answer) if handle in self._binding:
                self._answered(self._binding.pop(handle), answer)
            case events.ElementReceived(channel, msgno):
                self._session.answer(channel, msgno, Error(530, "bind first"))
            case events.TlsRefused(code, text) | events.ChannelRefused(_, code, text):
                self._fail(f"refused with {code} {text[:200]}")
            case events.GreetingRefused(code, text):
                self._fail(f"not available: {code} {text[:200]}")
            case events.SessionEnded(reason):
                self._fail(f"the session ended: {reason}")

    # --- the steps ---------------------------------------------------------------------------------------------------

    def _greeted(self, link: Link, session: ApexSession, event: events.Greeted) -> None:
        if link.peer.tls is None and not self._may_be_plain:
            if not event.has_tls or self._has_asked_for_tls:
                self._fail("it offers no TLS")
                return
            self._has_asked_for_tls = True
            session.start_tls()
        elif not event.has_apex:
            self._fail("it does not speak APEX")
        elif link.peer.tls is not None and EXTERNAL in event.mechanisms and self._ground.config.has_tls:
            session.sign_in_external()
        else:
            self._open(session)

    @property
    def _may_be_plain(self) -> bool:
        """The operator named this address himself, in a network that he trusts."""
        if not self.way.host or self.way.transport == "tls":
            return False
        address = ipaddress.ip_address(self._target.host.partition("%")[0])
        networks = map(ipaddress.ip_network, self._ground.config.plaintext_from)
        return address.is_loopback or any(address in network for network in networks)

    def _open(self, session: ApexSession) -> None:
        session.open(self._bind(0), self.way.server_name)

    def _bind(self, index: int) -> Bind:
        return Bind(self._ground.config.domains[index], self._ground.new_trans_id())

    def _opened(self, session: ApexSession, channel: int, answer: Ok | Error | None) -> None:
        self._channel = channel
        domains = self._ground.config.domains
        first = 0 if answer is None else 1
        for index in range(first, len(domains)):
            self._binding[session.send(channel, self._bind(index))] = domains[index]
        if answer is not None:
            self._answered(domains[0], answer)

    def _answered(self, domain: str, answer: Ok | Error) -> None:
        if isinstance(answer, Ok):
            self._bound += 1
        else:
            log.warning("the relay %s refuses us as %s: %d %s", self.way.name, domain, answer.code, answer.text[:200])
        if self._binding:
            return
        if self._bound:
            self._succeed()
        else:
            self._fail("it refuses us")

    # --- the end -----------------------------------------------------------------------------------------------------

    def _succeed(self) -> None:
        assert self._link is not None
        assert self._session is not None
        if self.ready.done():
            return
        peer, ground = self._link.peer, self._ground
        names = () if peer.tls is None else peer.tls.names
        self.neighbour = Neighbour(
            self._link,
            self._session,
            self._channel,
            ground.config.in_flight,
            ground.service.peers.proved(peer.remote[0], names),
            used=ground.service.clock.now(),
        )
        self._stop_timer()
        self.ready.set_result(None)
        self._on_ready(self.neighbour)

    def _fail(self, problem: str) -> None:
        self._stop_timer()
        if not self.ready.done():
            self.ready.set_exception(DeliveryError(f"{self._target.host} port {self._target.port}: {problem}"))
            self.ready.exception()  # whoever waits is told; nobody has to
        if self._link is not None and self.neighbour is None:
            self._link.close()

    def _late(self) -> None:
        self._fail(f"it did not take us within {CALL_SECONDS:g} s")
        if self._link is not None:
            self._link.abort()

    def lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if self.neighbour is None:
            self._fail(str(error) if error is not None else "it closed the connection")

    def give_up(self) -> None:
        """Nobody waits for it any more."""
        self._fail("given up")

    def release(self) -> None:
        """End the session in order."""
        if self._session is not None and self._link is not None:
            self._session.release()
            self._link.flush()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

"""One request to a next hop, until it is answered: over its addresses in order, and with credentials where it asks for them.

Place on the path: steps 8 and 9, for ``trunk.py``, ``keeping.py`` and what else goes to other servers. A next hop has one or more
targets (RFC 3263); one that cannot be reached, does not answer or says 503 is gone by for a while, and the next one gets the same
request (section 4.3). A challenge is answered only here, on a request of our own, to the target that was asked, in the realm the
operator named (S-24, T14).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from comity.bindings.base import HostPort, Link, Target, Transport
from comity.bindings.sip.events import RequestFailed, RequestTimedOut, ResponseReceived
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.requests import LinkState
from comity.bindings.sip.signing import Signing
from comity.errors import DeliveryError, LocalProtocolError, NoRouteError

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

PORTS = {"tls": 5061, "tcp": 5060, "udp": 5060}
BAD_SECONDS = 30.0
"""How long a target that failed is gone by; it is tried all the same where no other is left."""
MOST_BAD_SECONDS = 300.0
"""Of what a target may ask for by Retry-After."""
MOST_BAD = 4096


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a request."""

    response: SipResponse | None = None
    """The final answer; None: there is none."""
    target: Target | None = None
    """Who answered, or was tried last."""
    state: LinkState | None = None
    """The link the answer came by."""
    text: str = ""
    """Without an answer: why, for a person."""
    is_unsent: bool = False
    """Nothing of the request can have reached anybody."""
    is_no_route: bool = False
    """There is no such server, and that is final."""
    is_unfit: bool = False
    """No target can take it as it is, whenever it is tried: too large, or TLS is required and none has it."""
    cseq: int = 0
    """By how much CSeq was raised to answer challenges (RFC 3261 section 22.2)."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request under way."""

    domain: str
    """The hop's domain, as the core calls it."""
    request: SipRequest
    ended: Callable[[Ended], None]
    needs_tls: bool = False
    targets: list[Target] = field(default_factory=list)
    """Those not tried yet."""
    target: Target | None = None
    challenges: int = 0
    """Answered of this target."""
    nonce: str = ""
    """Of the credentials that were sent."""
    cseq: int = 0
    was_sent: bool = False
    text: str = "The next server cannot be reached."
    is_over: bool = False

    def end(self, ended: Ended) -> None:
        if not self.is_over:
            self.is_over = True
            self.ended(replace(ended, cseq=self.cseq))


class Exchanges:
    """Requests of ours to next hops."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._pending: dict[tuple[Link, str], Exchange] = {}
        """By link and client transaction."""
        self._waiting = 0
        """Those that wait for a look-up or a connection."""
        self._bad: dict[Target, float] = {}
        """Until when each target is gone by."""
        self._dead: set[Target] = set()
        """Targets that answer no OPTIONS: known before anything is sent there."""
        self._held: dict[str, list[Exchange]] = {}
        """By domain: what waits for a look whether its next hop is back."""
        self.signing = Signing(binding.config.trunks, binding.random)
        self.routes: dict[Target, tuple[str, ...]] = {}
        """Service-Route of targets where we are registered (RFC 3608)."""

    @property
    def is_busy(self) -> bool:
        """True while a request has no end yet."""
        return bool(self._pending or self._waiting or self._held)

    # --- out ---------------------------------------------------------------------------------------------

    def send(
        self,
        domain: str,
        next_hop: str,
        request: SipRequest,
        ended: Callable[[Ended], None],
        *,
        needs_tls: bool = False,
    ) -> None:
        """Send a request, without Via, to the next hop towards ``domain``; ``ended`` is called once, perhaps at once.

        Args:
            next_hop: ``Contact.data`` of the hop as text.
            needs_tls: nothing of it may leave in the clear.
        """
        exchange = Exchange(domain, request, ended, needs_tls)
        wire = self._binding.service.maps.towards("sip", domain).domain_to_wire(domain) or domain
        found = literal_targets(next_hop, wire)
        if found is not None:
            self._begin(exchange, found)
        else:
            self._waiting += 1
            self._binding.run(self._look_up(exchange, wire, next_hop))

    def send_to(self, domain: str, target: Target, request: SipRequest, ended: Callable[[Ended], None]) -> None:
        """The same to one target of a hop alone, good or bad: to see whether it is there, or to register."""
        exchange = Exchange(domain, request, ended, targets=[target])
        self._next(exchange)

    async def targets(self, domain: str, next_hop: str) -> Sequence[Target]:
        """The targets of a hop, in order. Raises DeliveryError."""
        wire = self._binding.service.maps.towards("sip", domain).domain_to_wire(domain) or domain
        found = literal_targets(next_hop, wire)
        return found if found is not None else await self._find(wire, next_hop)

    async def _look_up(self, exchange: Exchange, wire: str, next_hop: str) -> None:
        try:
            self._begin(exchange, await self._find(wire, next_hop))
        except NoRouteError as error:
            log.info("no way to %s: %s", exchange.domain, error)
            exchange.end(Ended(text="There is no such server.", is_unsent=True, is_no_route=True))
        except DeliveryError as error:
            log.info("no address of a next hop: %s", error)
            exchange.end(Ended(text="The next server cannot be found now.", is_unsent=True))
        except Exception:  # whatever it was, who waits must not wait for ever
            log.exception("a request could not be sent to a next hop")
            exchange.end(Ended(text="The request could not be sent to the next server."))
        finally:
            self._waiting -= 1

    async def _find(self, wire: str, next_hop: str) -> Sequence[Target]:
        found: list[Target] = []
        trouble: DeliveryError | None = None
        for url in next_hop.split() or [""]:
            try:
                found += await self._binding.network.hop_targets("sip", wire, url)
            except DeliveryError as error:
                trouble = trouble or error
        # Whom the certificate names is looked at by ``connections.py``: for a SIP domain a wildcard is no name.
        found = [replace(target, check="chain") if target.transport == "tls" else target for target in found]
        if not found:
            raise trouble or DeliveryError("there is nobody to ask")
        return found

    def _begin(self, exchange: Exchange, found: Sequence[Target]) -> None:
        usable = [target for target in found if target.transport == "tls" or not exchange.needs_tls]
        if not usable:
            exchange.end(Ended(text="The next server cannot be reached under TLS.", is_unsent=True, is_unfit=True))
            return
        # A connection says at once whether somebody is there again; a datagram would be repeated for 32 s.
        living = [target for target in usable if target not in self._dead]
        living = living or [target for target in usable if target.transport != "udp"]
        if not living:
            exchange.targets = usable
            self._held.setdefault(exchange.domain, []).append(exchange)
            if not self._binding.keeper.look(exchange.domain):
                self.resume(exchange.domain)
            return
        now = self._binding.service.clock.now()
        exchange.targets = sorted(living, key=lambda target: self._bad.get(target, now) > now)
        self._next(exchange)

    def _next(self, exchange: Exchange) -> None:
        """Try the first target that is left."""
        if not exchange.targets:
            exchange.end(Ended(target=exchange.target, text=exchange.text, is_unsent=not exchange.was_sent))
            return
        exchange.target = exchange.targets.pop(0)
        exchange.challenges, exchange.nonce = 0, ""
        self._go(exchange)

    def _go(self, exchange: Exchange) -> None:
        target = exchange.target
        assert target is not None
        request = self._dressed(exchange, target)
        if target.transport == "udp":
            link = self._binding.network.datagram_link(self._binding)
            state = None if link is None else self._binding.state_of(link)
            if state is None:
                exchange.text = "There is no UDP socket to send from."
                self._next(exchange)
                return
            if not state.session.is_too_large(request):
                self._write(exchange, request, (target.host, target.port), state)
                return
            target = replace(target, transport="tcp")  # RFC 3428 section 8: never over UDP
        self._waiting += 1
        self._binding.connections.reach(target, partial(self._reached, exchange, request))

    def _dressed(self, exchange: Exchange, target: Target) -> SipRequest:
        """The request with what this target wants: its route and our credentials."""
        request = exchange.request
        headers = [*request.headers]
        if request.method != "REGISTER":
            headers[:0] = [("Route", route) for route in self.routes.get(target, ())]
        if exchange.cseq:
            number, _, method = (request.value("cseq") or "").partition(" ")
            headers = [item for item in headers if item[0].lower() != "cseq"]
            headers.append(("CSeq", f"{int(number) + exchange.cseq} {method}"))
        given = self.signing.authorize(exchange.domain, target, request)
        if given is not None:
            name, value, exchange.nonce = given
            headers.append((name, value))
        return SipRequest(request.method, request.uri_text, headers, request.body)

    def _reached(self, exchange: Exchange, request: SipRequest, state: LinkState | None) -> None:
        self._waiting -= 1
        if state is None:
            self._failed(exchange, "The next server cannot be reached.")
        else:
            self._write(exchange, request, None, state)

    def _write(self, exchange: Exchange, request: SipRequest, address: HostPort | None, state: LinkState) -> None:
        if exchange.needs_tls and state.transport != "tls":
            exchange.end(Ended(text="The next server cannot be reached under TLS.", is_unfit=True))
            return
        try:
            id = state.session.send_request(request, self._binding.service.clock.now(), address)
        except LocalProtocolError as error:
            log.warning("a %s could not be sent to a next hop: %s", request.method, error)
            if state.session.is_closed:
                self._failed(exchange, "The connection to the next server was lost.")
            else:
                text = "The message could not be sent to the next server."
                exchange.end(Ended(target=exchange.target, text=text, is_unfit=True))
            return
        exchange.was_sent = True
        self._pending[state.link, id] = exchange
        state.link.flush()

    # --- answers -----------------------------------------------------------------------------------------

    def take_event(self, link: Link, event: object) -> bool:
        """Take an event about a request of ours; False if it is not about one of these."""
        if not isinstance(event, ResponseReceived | RequestTimedOut | RequestFailed):
            return False
        key = link, event.id
        if key not in self._pending:
            return False
        if isinstance(event, ResponseReceived):
            if event.response.status_code >= 200:
                self._answered(link, self._pending.pop(key), event.response)
            return True
        exchange = self._pending.pop(key)
        if isinstance(event, RequestTimedOut):
            if link.peer.transport != "udp":
                link.abort()  # half open, or as good as: the next attempt opens another
            self._failed(exchange, "The next server did not answer.")
        else:
            self._failed(exchange, "The connection to the next server was lost.")
        return True

    def _answered(self, link: Link, exchange: Exchange, response: SipResponse) -> None:
        self._binding.connections.rest(link)
        target = exchange.target
        assert target is not None
        if response.status_code in (401, 407):
            if self.signing.can_answer(exchange.domain, target, response, exchange.nonce, exchange.challenges):
                exchange.challenges += 1
                exchange.cseq += 1
                self._go(exchange)
                return
        elif exchange.nonce:
            self.signing.accepted(exchange.domain, target, exchange.nonce)
        if response.status_code == 503:
            self.mark(target, _retry_after(response))
            if exchange.targets:
                self._next(exchange)
                return
        else:
            self._bad.pop(target, None)
        exchange.end(Ended(response, target, self._binding.state_of(link)))

    def _failed(self, exchange: Exchange, text: str) -> None:
        """A target failed: the next one gets the same request (RFC 3263 section 4.3)."""
        assert exchange.target is not None
        exchange.text = text
        self.mark(exchange.target)
        self._next(exchange)

    def resume(self, domain: str) -> None:
        """It was looked whether the next hop to ``domain`` is there: what waited for that goes, or is told."""
        for exchange in self._held.pop(domain, ()):
            if all(target in self._dead for target in exchange.targets):
                exchange.end(Ended(text="The next server does not answer.", is_unsent=True))
            else:
                self._begin(exchange, exchange.targets)

    # --- who is there --------------------------------------------------------------------------------------

    def mark(self, target: Target, seconds: float = 0.0) -> None:
        """Go by a target for a while."""
        if len(self._bad) >= MOST_BAD:
            self._bad.clear()
        self._bad[target] = self._binding.service.clock.now() + min(seconds or BAD_SECONDS, MOST_BAD_SECONDS)

    def is_dead(self, target: Target) -> bool:
        """True if its keeper got no answer of it."""
        return target in self._dead

    def set_dead(self, target: Target, *, is_dead: bool) -> bool:
        """Note what its keeper knows of a target; True if that is news."""
        is_news = is_dead != (target in self._dead)
        if is_dead:
            self._dead.add(target)
        else:
            self._dead.discard(target)
            self._bad.pop(target, None)
        return is_news


def _retry_after(response: SipResponse) -> float:
    text = (response.value("retry-after") or "").partition(";")[0].partition("(")[0].strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) <= 6 else 0.0


@lru_cache(maxsize=256)
def next_hop(url: str) -> tuple[Transport, str, int]:
    """Transport, host and port of a ``[[route]] next_hop``, which the configuration checked."""
    parts = urlsplit(url)
    transports: dict[str, Transport] = {"udp": "udp", "tcp": "tcp", "tls": "tls"}
    return transports[parts.scheme], parts.hostname or "", parts.port or PORTS[parts.scheme]


@lru_cache(maxsize=4096)
def literal_target(transport: Transport, host: str, port: int, domain: str) -> Target | None:
    """Where a next hop given as an address is; None if its name has to be looked up. Its certificate must name the domain
    then (RFC 5922 section 7.1); else the name the operator wrote."""
    try:
        ip_address(host)
    except ValueError:
        return None
    return Target(transport, host, port, domain, "chain") if transport == "tls" else Target(transport, host, port)


@lru_cache(maxsize=4096)
def literal_targets(next_hops: str, domain: str) -> Sequence[Target] | None:
    """Where a next hop is whose addresses the operator wrote; None if something has to be looked up."""
    urls = next_hops.split()
    if not urls or "://" not in next_hops:
        return None
    found = [literal_target(*next_hop(url), domain) for url in urls]
    return None if None in found else [target for target in found if target is not None]

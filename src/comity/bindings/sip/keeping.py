"""Next hops looked after: whether each is there (OPTIONS), and that we are registered where that is wanted (REGISTER).

Place on the path: beside steps 8 and 9, by the clock. A next hop that does not answer is known before a message waits for it, and
what waits goes out when it is back. Registrations are renewed in time, asked for longer where that is demanded (423), and tried
again ever more slowly where they fail; the Service-Route they are given is used for what goes there (RFC 3608).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from comity.bindings.base import Target
from comity.bindings.sip.config import TrunkConfig
from comity.bindings.sip.exchange import Ended
from comity.bindings.sip.headers import NameAddr, parse_number
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.reports import REPORTER
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address, to_sip_uri
from comity.errors import ComityError, DeliveryError
from comity.service.interfaces import Timer

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

LEASE = 3600
"""Seconds asked for."""
MOST_LEASE = 86_400
RENEW = 0.8
"""Of the time granted, after which it is asked for again."""
RETRY_DELAYS = (5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Seconds between attempts at a registration that fails (RFC 5626 section 4.5 has 30 to 1800)."""
DNS_RETRY = 30.0
SOCKET_SECONDS = 0.2
LEAST_LOOK = 1.0
"""Between two looks, whoever wants them."""
ANSWER_SECONDS = 5.0
"""Without an answer for so long a next hop is gone, though the transaction goes on for 32 s: who comes late is back then."""
MOST_ROUTES = 8


@dataclass(slots=True, eq=False)
class Registration:
    """One address registered as ours at one target."""

    trunk: TrunkConfig
    address: Address
    """As the next hop calls it."""
    target: Target
    call_id: str
    cseq: int = 0
    asked: int = LEASE
    failures: int = 0
    is_held: bool = False
    timer: Timer | None = None


@dataclass(slots=True, eq=False)
class Watched:
    """One next hop and its targets."""

    trunk: TrunkConfig
    targets: Sequence[Target] = ()
    registrations: list[Registration] = field(default_factory=list)
    timer: Timer | None = None
    count: int = 0
    asked: dict[Target, Timer] = field(default_factory=dict)
    """Targets whose answer is awaited, and until when."""
    looked: float = 0.0
    failures: int = 0
    """Looks at which none of them was there."""


class Keeper:
    """Looks after every next hop that has something to look after."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._watched = [Watched(trunk) for trunk in binding.config.trunks if trunk.keep_alive or trunk.register]
        self._tag = binding.random(6).hex()
        self._is_stopped = False

    def start(self) -> None:
        """Begin."""
        for watched in self._watched:
            self._later(watched, 0.0)

    def stop(self) -> None:
        """Ask nobody any more, and take our registrations back."""
        self._is_stopped = True
        for watched in self._watched:
            if watched.timer is not None:
                watched.timer.cancel()
            for one in watched.registrations:
                if one.timer is not None:
                    one.timer.cancel()
                if one.is_held:
                    one.asked = 0
                    self._register(one)

    def look(self, domain: str) -> bool:
        """Look now whether a next hop that is gone is back, since something is to be sent; False: it was looked just now.

        ``Exchanges.resume`` follows."""
        for watched in self._watched:
            if watched.trunk.domain == domain and not self._is_stopped:
                if watched.asked:
                    return True
                if self._binding.service.clock.now() < watched.looked + LEAST_LOOK:
                    return False
                for target in watched.targets:
                    self._ask(watched, target)
                return bool(watched.asked)
        return False

    def registered(self, domains: frozenset[str], user: str) -> Address | None:
        """The address, as its server calls it, that is registered as ours under a user part of our own; None if none is.

        Args:
            domains: what the server proved to speak for that sends to it.
        """
        for watched in self._watched:
            for one in watched.registrations:
                if one.address.local == user and not domains.isdisjoint((watched.trunk.domain, "*")):
                    return one.address
        return None

    def _later(self, watched: Watched, seconds: float) -> None:
        watched.timer = self._binding.service.clock.call_later(seconds, partial(self._look, watched))

    def _look(self, watched: Watched) -> None:
        self._binding.run(self._find(watched))

    async def _find(self, watched: Watched) -> None:
        """Find its targets, ask each of them, and register where we are not."""
        trunk = watched.trunk
        try:
            watched.targets = await self._binding.exchanges.targets(trunk.domain, trunk.next_hop)
        except DeliveryError as error:
            log.info("the next hop to %s cannot be found: %s", trunk.domain, error)
        if self._is_stopped:
            return
        if any(target.transport == "udp" for target in watched.targets) and not self._has_socket:
            self._later(watched, SOCKET_SECONDS)
            return
        if trunk.keep_alive:
            watched.count += 1
            for target in watched.targets:
                if target not in watched.asked:
                    self._ask(watched, target)
        known = {(one.target, one.address) for one in watched.registrations}
        for text in trunk.register:
            address = Address.im(*text.rsplit("@", 1))
            for target in watched.targets:
                if (target, address) not in known:
                    one = Registration(trunk, address, target, f"{self._binding.random(12).hex()}@{self._ours}")
                    watched.registrations.append(one)
                    self._register(one)
        wait = trunk.keep_alive or (DNS_RETRY if not watched.targets else 0.0)
        if wait:
            self._later(watched, wait)

    @property
    def _has_socket(self) -> bool:
        """False until the listeners are open, which is after the start."""
        return self._binding.network.datagram_link(self._binding) is not None

    @property
    def _ours(self) -> str:
        return self._binding.config.domains[0]

    # --- is it there ---------------------------------------------------------------------------------------

    def _options(self, watched: Watched) -> SipRequest:
        """RFC 3261 section 11.1."""
        uri = f"sip:{watched.trunk.wire}"
        headers = [
            ("Max-Forwards", "70"),
            ("From", f"<sip:{REPORTER}@{self._ours}>;tag={self._tag}"),
            ("To", f"<{uri}>"),
            ("Call-ID", f"{self._tag}-{watched.trunk.domain}@{self._ours}"),
            ("CSeq", f"{watched.count} OPTIONS"),
            ("Accept", "message/cpim, text/plain"),
        ]
        return SipRequest("OPTIONS", uri, headers)

    def _ask(self, watched: Watched, target: Target) -> None:
        clock, exchanges = self._binding.service.clock, self._binding.exchanges
        watched.asked[target] = clock.call_later(ANSWER_SECONDS, partial(self._silent, watched, target))
        watched.looked = clock.now()
        ended = partial(self._seen, watched, target)
        exchanges.send_to(watched.trunk.domain, target, self._options(watched), ended)

    def _silent(self, watched: Watched, target: Target) -> None:
        del watched.asked[target]
        self._know(watched, target, is_dead=True)

    def _seen(self, watched: Watched, target: Target, ended: Ended) -> None:
        """Any answer is one, even that it does not know the question; but for 503."""
        timer = watched.asked.pop(target, None)
        if timer is not None:
            timer.cancel()
        self._know(watched, target, is_dead=ended.response is None or ended.response.status_code == 503)

    def _know(self, watched: Watched, target: Target, *, is_dead: bool) -> None:
        exchanges, domain = self._binding.exchanges, watched.trunk.domain
        was_reachable = any(not exchanges.is_dead(one) for one in watched.targets)
        is_news = exchanges.set_dead(target, is_dead=is_dead)
        if not all(exchanges.is_dead(one) for one in watched.targets):
            watched.failures = 0
            exchanges.resume(domain)
        elif not watched.asked:
            self._look_sooner(watched)
            exchanges.resume(domain)
        if not is_news:
            return
        if is_dead:
            log.warning("the next hop to %s at %s port %d does not answer", domain, target.host, target.port)
        else:
            # What waits goes out, and what it may have forgotten is registered anew.
            log.info("the next hop to %s at %s port %d answers again", domain, target.host, target.port)
            if not was_reachable:
                self._binding.service.hop_returned("sip", (domain,))
                self._binding.abroad.back(domain)
            for one in watched.registrations:
                if one.target == target:
                    self._register(one)

    def _look_sooner(self, watched: Watched) -> None:
        """None is there: look again soon, and then ever more seldom. It may be one that starts after us."""
        if self._is_stopped or watched.timer is None:
            return
        watched.timer.cancel()
        self._later(watched, min(watched.trunk.keep_alive, 2.0 ** min(watched.failures, 10)))
        watched.failures += 1

    # --- registrations ---------------------------------------------------------------------------------------

    def _register(self, one: Registration) -> None:
        if one.timer is not None:
            one.timer.cancel()
            one.timer = None
        one.cseq += 1
        uri = to_sip_uri(one.address)
        headers = [
            ("Max-Forwards", "70"),
            ("From", f"<{uri}>;tag={self._tag}"),
            ("To", f"<{uri}>"),
            ("Call-ID", one.call_id),
            ("CSeq", f"{one.cseq} REGISTER"),
            ("Contact", f"<{self._contact(one)}>"),
            ("Expires", str(one.asked)),
            ("Supported", "path"),
            ("Accept", "message/cpim, text/plain"),
        ]
        request = SipRequest("REGISTER", f"sip:{one.address.domain}", headers)
        self._binding.exchanges.send_to(one.trunk.domain, one.target, request, partial(self._answered, one))

    def _contact(self, one: Registration) -> SipUri:
        """Where we listen, by the transport that leads there."""
        target = one.target
        listeners = [listener for listener in self._binding.listeners() if listener.transport == target.transport]
        host, port = (listeners[0].host, listeners[0].port) if listeners else (self._ours, None)
        if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
            host = self._ours
        params = () if target.transport == "udp" else (("transport", target.transport),)
        user = to_sip_uri(one.address)[len("sip:") :].rpartition("@")[0]
        return SipUri(f"[{host}]" if ":" in host else host, user, port, params)

    def _answered(self, one: Registration, ended: Ended) -> None:
        one.cseq += ended.cseq
        response = ended.response
        if self._is_stopped:
            return
        if response is not None and response.status_code == 423:
            least = _number(response, "min-expires")
            if one.asked < least <= MOST_LEASE:
                one.asked = least
                self._register(one)
                return
        if response is None or response.status_code >= 300:
            self._failed(one, "no answer" if response is None else f"{response.status_code} {response.reason}")
            return
        one.failures, one.is_held = 0, True
        routes = _service_route(response)
        if routes:
            self._binding.exchanges.routes[one.target] = routes
        else:
            self._binding.exchanges.routes.pop(one.target, None)
        granted = self._granted(one, response)
        one.timer = self._binding.service.clock.call_later(max(5.0, RENEW * granted), partial(self._register, one))

    def _granted(self, one: Registration, response: SipResponse) -> int:
        """Seconds that our Contact was granted (RFC 3261 section 10.2.4)."""
        user = self._contact(one)
        try:
            for contact in response.contacts:
                expires = contact.param("expires")
                if isinstance(contact.uri, SipUri) and contact.uri.matches(user) and expires is not None:
                    return min(parse_number(expires, "expires", 2**32 - 1), one.asked)
        except ComityError as error:
            log.info("what a next hop granted cannot be read: %s", error)
        return min(_number(response, "expires") or one.asked, one.asked)

    def _failed(self, one: Registration, said: str) -> None:
        delay = RETRY_DELAYS[min(one.failures, len(RETRY_DELAYS) - 1)]
        one.failures += 1
        one.is_held = False
        if self._binding.exchanges.is_dead(one.target):
            return  # when it answers again
        log.warning("%s was not registered at %s: %s; again in %d s", one.address, one.target.host, said, delay)
        one.timer = self._binding.service.clock.call_later(delay, partial(self._register, one))


def _service_route(response: SipResponse) -> tuple[str, ...]:
    """The route for what goes to that server (RFC 3608 section 5); what cannot be read is none."""
    try:
        routes = [NameAddr.parse(part, "Service-Route") for part in response.listed("service-route")]
    except ComityError as error:
        log.info("a Service-Route cannot be read: %s", error)
        return ()
    usable = routes and len(routes) <= MOST_ROUTES and all(isinstance(route.uri, SipUri) for route in routes)
    return tuple(f"<{route.uri}>" for route in routes) if usable else ()


def _number(response: SipResponse, name: str) -> int:
    text = (response.value(name) or "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else 0

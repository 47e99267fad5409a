"""Step 6 for other domains: which next hop a domain is reached by, and who may pass through here (``[[route]]``).

A route is the operator's word: nothing here asks the DNS; a domain without one is for ``finding.py`` where the operator allows that.
A message from one foreign domain to another passes only where a route
says so by name (``transit``); everything else would make this server an open relay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comity.cpim.address import Address
from comity.service.interfaces import Contact
from comity.service.routing import DNS

ANY = "*"
MOST_KEPT = 4096
HOP_WINDOW = 32
"""Messages on their way to one next hop at once."""


@dataclass(frozen=True, slots=True)
class Route:
    """One ``[[route]]``."""

    domain: str
    """A-labels, or ``*`` for every domain without a route of its own."""
    via: str
    """Binding that speaks with the next hop."""
    next_hop: str = ""
    """URL, or several in order, apart by spaces; "": found by DNS."""
    transit: frozenset[str] = frozenset()
    """Foreign domains whose messages may pass through here by this route; ``*``: all."""
    is_always_tls: bool = False
    """True where TLS comes on a ``tcp`` next hop too, before anything else (STARTTLS between XMPP servers)."""


class StaticRoutes:
    """Implements ``Routes``.

    Args:
        routes: the first of one domain counts.
        finds: whether domains without a route are found by DNS (``[federation] dns``).
    """

    def __init__(self, routes: Sequence[Route] = (), *, finds: bool = False) -> None:
        self._finds = finds
        self._hops: dict[str, Contact] = {}
        """Made before, by domain; a route of ``*`` makes no more than ``MOST_KEPT``."""
        self._routes: dict[str, Route] = {}
        for route in routes:
            self._routes.setdefault(route.domain, route)

    def hop(self, domain: str) -> Contact | None:
        """See ``Routes.hop``."""
        hop = self._hops.get(domain)
        if hop is None and (route := self._route(domain) or self._found(domain)) is not None:
            if len(self._hops) >= MOST_KEPT:
                self._hops.clear()
            hop = self._hops[domain] = self._made(domain, route)
        return hop

    def _made(self, domain: str, route: Route) -> Contact:
        return Contact(
            f"hop/{domain}",
            Address("im", "", domain),
            route.via,
            resource=domain,
            window=HOP_WINDOW,
            data=route.next_hop.encode(),
            is_protected=route.is_always_tls
            or not any(url.startswith(("udp:", "tcp:")) for url in route.next_hop.split()),
            is_hop=True,
        )

    def _found(self, domain: str) -> Route | None:
        """The way to a domain that no route names. Only full names are looked up (ADDR-7)."""
        return Route(domain, DNS) if self._finds and "." in domain else None

    def may_pass(self, source: str, domain: str) -> bool:
        """See ``Routes.may_pass``."""
        route = self._route(domain)
        return route is not None and not route.transit.isdisjoint((source, ANY))

    def _route(self, domain: str) -> Route | None:
        return self._routes.get(domain) or self._routes.get(ANY)

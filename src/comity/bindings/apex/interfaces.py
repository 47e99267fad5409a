"""The seams inside the APEX binding: the relay as its services see it, the services as the relay sees them.

Place on the path: step 4. ``binding.py`` is the relay of RFC 3340: endpoints attach to it (``attachments.py``), other relays bind
(``mesh.py``), data comes up (``submission.py``) and goes down (``delivery.py``). Data between people is a message operation of
the service, durable before ``ok``. Data from or to a well-known endpoint (``apex=presence@DOMAIN``) is the business of two
programs and of nobody else's protocol: it never becomes a message operation (ADDR-28), and is passed on at once or not at all,
as RFC 3340 section 1.1 has it ("best-effort").
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from comity.bindings.apex.elements import Option, Part, ServiceElement
from comity.bindings.apex.endpoint import Endpoint
from comity.service.interfaces import Origin, Service


class Relay(Protocol):
    """What services ask of the relay."""

    @property
    def service(self) -> Service:
        """The service given to ``start``."""

    def say(
        self, name: str, domain: str, to: Endpoint, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> asyncio.Future[bool]:
        """Send data from ``apex=NAME@DOMAIN`` to an endpoint: to the application attached as exactly that one, or to its domain's
        relay. True once that answered ``ok``; False if nobody was there to take it, or refused it. Never raises; order kept
        for one recipient. A ``Part`` goes as it is (X39: presence signed by its owner). Who asked may cancel the future: what
        waits to be written is then not sent (G9)."""

    def is_attached(self, endpoint: Endpoint) -> bool:
        """True if an application is attached here as exactly this endpoint."""

    def on_attached(self, told: Callable[[Endpoint], None]) -> None:
        """Call ``told`` with every endpoint somebody attaches as, after its ``ok`` was queued."""


class WellKnown(Protocol):
    """A service behind a well-known endpoint of our domains; ``binding.py`` holds one of each."""

    name: str
    """"presence", "access", "report"."""

    def start(self, relay: Relay) -> None:
        """Called once."""

    async def handle(
        self,
        originator: Endpoint,
        domain: str,
        element: ServiceElement | Part,
        origin: Origin,
        options: Sequence[Option] = (),
    ) -> None:
        """Take what ``originator`` (authorized to be that) sent to this service of ``domain``; answers go by ``Relay.say``.

        ``options``: those of the data that are for the last hop or for all (RFC 3340 section 5).

        Requests of one originator are handed in one after the other. Never raises for what a peer sent. Elements that the service
        does not know were refused by the relay with 501 or 504 before."""

    def knows(self, element: ServiceElement | Part) -> bool:
        """Whether the service takes such an element at all, or content that is no element of a service (``Part``)."""

    def understands(self, option: Option) -> bool:
        """Whether the service knows this option of the data it is sent; one that must be understood and is not fails the data."""

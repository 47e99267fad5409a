"""What the parts of the APEX binding stand on: options, the service, who is connected, background tasks.

Place on the path: under ``binding.py`` and its parts (``attachments.py``, ``submission.py``, ``delivery.py``, ``dispatch.py`` and
the mesh), which know each other only as far as their constructors say.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.mapping import PROTOCOL
from comity.bindings.apex.rates import Rates
from comity.bindings.apex.session import ApexSession
from comity.bindings.base import Link, Network
from comity.cpim.address import Address
from comity.service.interfaces import Contact, Delivery, Origin, Service

if TYPE_CHECKING:
    from comity.service.interfaces import Timer

log = logging.getLogger(__name__)

_MOST_ID = 2**31 - 1


@dataclass(slots=True, eq=False)
class Attachment:
    """One application attached as one endpoint."""

    connection: Connection
    channel: int
    trans_id: int
    endpoint: Endpoint
    contact: Contact


@dataclass(slots=True, eq=False)
class Connection:
    """One client: its link, its session, and what it has attached as."""

    link: Link
    session: ApexSession
    rates: Rates
    account: Address | None = None
    """Folded; set by sign-in and never changed."""
    is_exempt: bool = False
    """True if its network may sign in without TLS."""
    domains: frozenset[str] = frozenset()
    """What a relay proved to speak for; empty for a person's own."""
    is_live: bool = True
    attachments: dict[tuple[int, int], Attachment] = field(default_factory=dict)
    """By channel and transID."""
    in_flight: int = 0
    """Data sent to it and not answered."""
    submitting: set[asyncio.Future[Any]] = field(default_factory=set)
    """Data taken and not answered."""
    is_paused: bool = False
    throttle_timer: Timer | None = None

    @property
    def host(self) -> str:
        """The peer's IP address."""
        return self.link.peer.remote[0]

    @property
    def is_tls(self) -> bool:
        """True if the link is under TLS."""
        return self.link.peer.tls is not None

    def find(self, endpoint: Endpoint) -> Attachment | None:
        """Its own attachment as exactly this endpoint."""
        return next((one for one in self.attachments.values() if one.endpoint == endpoint), None)


class Ground:
    """Shared by all parts of one binding.

    Args:
        config: its options.
        random: gives that many random octets.
    """

    def __init__(self, config: ApexConfig, random: Callable[[int], bytes]) -> None:
        self.config = config
        self.random = random
        self.connections: dict[Link, Connection] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.is_draining = False
        self._service: Service | None = None
        self._network: Network | None = None

    @property
    def service(self) -> Service:
        """The service given to ``start``."""
        assert self._service is not None, "start() comes first"
        return self._service

    @property
    def is_started(self) -> bool:
        """False while the server comes up: what is stored is taken up before ``start``."""
        return self._network is not None

    @property
    def network(self) -> Network:
        """The network given to ``start``."""
        assert self._network is not None, "start() comes first"
        return self._network

    def start(self, service: Service, network: Network) -> None:
        """Remember both."""
        self._service, self._network = service, network

    def new_trans_id(self) -> int:
        """A transaction-identifier that nobody can predict (RFC 3340 section 6.1.1)."""
        return int.from_bytes(self.random(4), "big") % _MOST_ID + 1

    def is_ours(self, domain: str) -> bool:
        """Whether a domain (A-labels) is one of ours."""
        return self.service.accounts.serves(domain)

    def origin(self, connection: Connection) -> Origin:
        """Who hands something in by this connection."""
        assert connection.account is not None, "a relay's data has an origin of its own"
        return Origin(connection.account, PROTOCOL, connection.host, connection.is_tls)

    def run(self, work: Coroutine[None, None, None]) -> None:
        """Run in the background; a failure is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ran)

    def _ran(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the APEX binding failed", exc_info=error)


Answer = TypeVar("Answer")


def answered(value: Answer) -> asyncio.Future[Answer]:
    """A future that is done."""
    future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    future.set_result(value)
    return future


__all__ = ["Attachment", "Connection", "Delivery", "Ground", "answered"]

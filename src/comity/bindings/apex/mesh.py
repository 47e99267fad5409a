"""Which session with another relay data goes by: one to each next hop, made when the first data needs it (RFC 3340 section 4.4.4.1).

Place on the path: steps 9 and 10 of the relay-relay mode, between ``relaying.py`` and ``service_data.py``, which say what is sent
where, and ``calling.py``, which makes a session usable. A relay that bound itself to us is reached by its own session when nothing
in the configuration says how to call it. What cannot be sent now is answered None, and is tried again by whoever keeps it: the
lane of a message does, service data is dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from comity.bindings.apex.calling import Calling
from comity.bindings.apex.ground import Ground
from comity.bindings.apex.neighbour import Neighbour, Sending
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.targets import Way
from comity.bindings.base import Binding, Link, Target
from comity.errors import DeliveryError
from comity.service.interfaces import Timer

log = logging.getLogger(__name__)

OURS = "relay "
"""How the role of a link begins that we open."""
ANSWER_SECONDS = 32.0
"""How long one attempt waits for its ``ok`` (reliability.md section 5.5); then the session is given up with all it holds."""
IDLE_SECONDS = 300.0
"""A session of ours that nothing was sent by for so long is released."""
LOOK_SECONDS = 4.0
"""Between two looks for the above."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds in which a next hop that could not be called is not called again."""
MOST_WAITING = 1024
"""Data that waits for one call to succeed; the lanes wait with 32 a domain."""


MOST_ROADS = 256
"""Next hops called or connected at once: a route of everybody leads to as many as people write to."""


@dataclass(slots=True, eq=False)
class _Road:
    """One next hop: nothing, a call under way, or a session that stands."""

    way: Way
    neighbour: Neighbour | None = None
    waiting: deque[Sending] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    failures: int = 0
    closed_until: float = 0.0


class Mesh:
    """Sessions with other relays.

    Args:
        binding: makes the sessions (``network.connect`` asks it).
        ground: what all parts of it stand on.
    """

    def __init__(self, binding: Binding, ground: Ground) -> None:
        self._binding = binding
        self._ground = ground
        self._roads: dict[Way, _Road] = {}
        self._bound: dict[str, list[Neighbour]] = {}
        """Relays that bound themselves to us, by domain; the latest last."""
        self._neighbours: set[Neighbour] = set()
        """Every relay that a session stands with."""
        self._calls: dict[str, Calling] = {}
        """Calls under way, by the role of their link."""
        self._by_link: dict[Link, Calling] = {}
        self._number = itertools.count(1)
        self._timer: Timer | None = None
        self._is_draining = False
        self.on_call: Callable[[Neighbour], None] = lambda neighbour: None
        """Called with every session of ours that became usable."""

    # --- data out --------------------------------------------------------------------------------------------------

    def send(self, sending: Sending, domain: str, next_hop: str = "") -> None:
        """Send data towards ``domain``; its future tells how that went."""
        if self._is_draining:
            sending.settle(None)
            return
        try:
            road = self._road(Way.of(domain, next_hop))
        except DeliveryError as error:
            log.warning("no way to %s: %s", domain, error)
            sending.settle(None)
            return
        neighbour = road.neighbour
        if neighbour is None and not next_hop:
            neighbour = self.bound(domain)
        now = self._now
        if neighbour is not None:
            neighbour.send(sending, now)
            self._look_later()
        elif now < road.closed_until or len(road.waiting) >= MOST_WAITING or not self._may_call(road):
            sending.settle(None)
        else:
            road.waiting.append(sending)
            if road.task is None:
                road.task = asyncio.get_running_loop().create_task(self._call(road))

    def _may_call(self, road: _Road) -> bool:
        """Whether there is room for its call; the session of another that was not used for longest makes it."""
        if road.task is not None:
            return True
        open_roads = [one for one in self._roads.values() if one.task is not None or one.neighbour is not None]
        if len(open_roads) < MOST_ROADS:
            return True
        idle = [one for one in open_roads if one.neighbour is not None and not one.neighbour.is_busy]
        if not idle:
            return False
        self._release(min(idle, key=lambda one: 0.0 if one.neighbour is None else one.neighbour.used))
        return True

    def _release(self, road: _Road) -> None:
        """End its session in order."""
        assert road.neighbour is not None
        link, road.neighbour = road.neighbour.link, None
        self._by_link[link].release()

    def backlog(self, domain: str, next_hop: str = "") -> int:
        """How much data waits before what would be sent now."""
        try:
            road = self._roads.get(Way.of(domain, next_hop))
        except DeliveryError:  # ``send`` says so
            return 0
        if road is None:
            return 0
        return len(road.waiting) + (0 if road.neighbour is None else road.neighbour.backlog)

    def _road(self, way: Way) -> _Road:
        road = self._roads.get(way)
        if road is None:
            road = self._roads[way] = _Road(way)
        return road

    # --- relays that called us -------------------------------------------------------------------------------------

    def bound(self, domain: str) -> Neighbour | None:
        """The relay that bound itself last as serving ``domain``."""
        neighbours = self._bound.get(domain)
        return neighbours[-1] if neighbours else None

    def bind(self, neighbour: Neighbour, binding: tuple[int, int], domain: str) -> None:
        """A relay is accepted as serving a domain; ``binding`` is the channel and the transID."""
        self._neighbours.add(neighbour)
        neighbour.bound[binding] = domain
        self._bound.setdefault(domain, []).append(neighbour)

    def unbind(self, neighbour: Neighbour, binding: tuple[int, int]) -> None:
        """It does not serve it any more, as far as this session goes."""
        domain = neighbour.bound.pop(binding)
        neighbours = self._bound.get(domain, [])
        if neighbour in neighbours:
            neighbours.remove(neighbour)
        if not neighbours:
            self._bound.pop(domain, None)

    # --- calling ---------------------------------------------------------------------------------------------------

    async def _call(self, road: _Road) -> None:
        neighbour = None
        try:
            neighbour = await self._first_of(road)
        except DeliveryError as error:
            log.info("no session with the relay %s: %s", road.way.name, error)
        except Exception:  # whatever it was, who waits must not wait for ever
            log.exception("no session with the relay %s", road.way.name)
        finally:
            road.task = None
            waiting, road.waiting = road.waiting, deque()
            if neighbour is None:
                road.closed_until = self._now + PAUSES[min(road.failures, len(PAUSES) - 1)]
                road.failures += 1
                for sending in waiting:
                    sending.settle(None)
                self._forget_roads()
        if neighbour is not None:
            road.neighbour, road.failures, road.closed_until = neighbour, 0, 0.0
            for sending in waiting:
                neighbour.send(sending, self._now)
            self._look_later()

    async def _first_of(self, road: _Road) -> Neighbour:
        """The first target that answers and takes us (RFC 2782: in order)."""
        problems: list[str] = []
        for target in await road.way.targets(self._ground.network, self._ground.config.mesh_port):
            try:
                return await self._try(road.way, target)
            except DeliveryError as error:
                problems.append(str(error))
        raise DeliveryError("; ".join(problems))

    async def _try(self, way: Way, target: Target) -> Neighbour:
        role = f"{OURS}{next(self._number)}"
        calling = self._calls[role] = Calling(way, target, self._ground, self._met)
        try:
            await self._ground.network.connect(self._binding, target, role=role)
            await calling.ready
        except BaseException:
            calling.give_up()
            raise
        finally:
            del self._calls[role]
        assert calling.neighbour is not None
        if calling.neighbour.is_lost:  # while this task waited for its turn
            raise DeliveryError("the session ended as soon as it was usable")
        return calling.neighbour

    def _met(self, neighbour: Neighbour) -> None:
        """A call succeeded: at once, since the other side may send with its next octet."""
        self._neighbours.add(neighbour)
        self.on_call(neighbour)

    def begin(self, link: Link, role: str, session: ApexSession) -> None:
        """``link`` is one that we are opening, and that is its session."""
        calling = self._by_link[link] = self._calls[role]
        calling.begin(link, session)

    # --- events ----------------------------------------------------------------------------------------------------

    def calling(self, link: Link) -> Calling | None:
        """The call under way on ``link``; None for a session that is usable, or that somebody else opened."""
        calling = self._by_link.get(link)
        return None if calling is None or calling.ready.done() else calling

    def link_closed(self, link: Link, error: Exception | None) -> None:
        """A link that we opened is gone."""
        calling = self._by_link.pop(link, None)
        if calling is not None:
            calling.lost(error)

    def lost(self, neighbour: Neighbour) -> None:
        """A session with a relay is over, whoever called."""
        for binding in list(neighbour.bound):
            self.unbind(neighbour, binding)
        for road in self._roads.values():
            if road.neighbour is neighbour:
                road.neighbour = None
        self._neighbours.discard(neighbour)
        neighbour.lost()
        if (calling := self._by_link.get(neighbour.link)) is not None:
            calling.release()  # a relay that closes our channel and stays would gather sessions of ours
        self._forget_roads()

    async def drain(self) -> None:
        """Call nobody any more; return when what was sent is answered. The links are closed by whoever owns them."""
        self._is_draining = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = [road.task for road in self._roads.values() if road.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        waiting = [answer for neighbour in self._neighbours for answer in neighbour.answers]
        if waiting:
            await asyncio.wait(waiting)

    # --- old ones --------------------------------------------------------------------------------------------------

    def _look_later(self) -> None:
        if self._timer is None and not self._is_draining:
            self._timer = self._ground.service.clock.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Give up who does not answer, release what is not used."""
        self._timer = None
        now = self._now
        for neighbour in list(self._neighbours):
            since = neighbour.waiting_since
            if since is not None and now - since >= ANSWER_SECONDS:
                log.info("the relay at %s does not answer", neighbour.host)
                neighbour.link.abort()
        for road in self._roads.values():
            ours = road.neighbour
            if ours is not None and not ours.is_busy and now - ours.used >= IDLE_SECONDS:
                self._release(road)
        self._forget_roads()
        if self._neighbours:
            self._look_later()

    def _forget_roads(self) -> None:
        """Keep only what says something."""
        now = self._now
        for way, road in list(self._roads.items()):
            if road.neighbour is None and road.task is None and now >= road.closed_until + PAUSES[-1]:
                del self._roads[way]

    @property
    def _now(self) -> float:
        return self._ground.service.clock.now()

"""The presence service of APEX over a real service with a memory store: a relay that hands over at once, applications in memory.

What goes to and from the service passes ``service_wire.py`` both ways, so nothing is tested that could not be written."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime, timedelta
from typing import Any

from comity.bindings.apex.elements import Inline, Option, Part, Presence, Publish, ServiceElement, Tuple
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.presence_service import PresenceWellKnown
from comity.bindings.apex.service_wire import read_service, write_service
from comity.cpim.address import Address
from comity.cpim.compose import timestamp
from comity.service.interfaces import Origin, Service
from comity.testing.presence import PresenceBench
from comity.testing.service import settle
from tests.loop import in_loop


class MemoryRelay:
    """A ``Relay`` that hands over what is said to an application that is attached."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.applications: dict[Endpoint, Application] = {}
        self.told: list[Callable[[Endpoint], None]] = []

    def say(
        self, name: str, domain: str, to: Endpoint, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> asyncio.Future[bool]:
        """See ``Relay.say``."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        application = self.applications.get(to)
        if application is None or application.is_deaf:
            future.set_result(False)
            return future
        if isinstance(element, Part):
            application.parts.append((element, tuple(options)))
        else:
            element = read_service(Inline(write_service(element)))
            application.heard.append((f"apex={name}@{domain}", element))
        if application.is_slow:
            application.unanswered.append(future)
        else:
            future.set_result(True)
        return future

    def is_attached(self, endpoint: Endpoint) -> bool:
        """See ``Relay.is_attached``."""
        application = self.applications.get(endpoint)
        return application is not None and not application.is_foreign

    def on_attached(self, told: Callable[[Endpoint], None]) -> None:
        """See ``Relay.on_attached``."""
        self.told.append(told)


class Application:
    """An application attached as one endpoint."""

    def __init__(self, world: World, identity: str, *, is_foreign: bool = False) -> None:
        self.world = world
        self.endpoint = Endpoint.parse(identity)
        self.heard: list[tuple[str, ServiceElement]] = []
        self.parts: list[tuple[Part, tuple[Option, ...]]] = []
        self.is_slow = False
        self.is_foreign = is_foreign
        self.is_deaf = False
        """It is there, and takes nothing."""
        self.unanswered: list[asyncio.Future[bool]] = []

    async def attach(self) -> None:
        """Attach (again)."""
        self.world.relay.applications[self.endpoint] = self
        if not self.is_foreign:
            for told in self.world.relay.told:
                told(self.endpoint)
        await settle()

    def detach(self) -> None:
        """Go without a word."""
        del self.world.relay.applications[self.endpoint]

    async def send(
        self,
        element: ServiceElement | Part | str,
        domain: str = "",
        *,
        options: Sequence[Option] = (),
        is_taken: bool = True,
    ) -> list[ServiceElement]:
        """Send an element (or the XML of one) to apex=presence; what is heard until all is quiet."""
        if isinstance(element, str):
            element = read_service(Inline(element.encode()))
        elif not isinstance(element, Part):
            element = read_service(Inline(write_service(element)))
        assert self.world.service.knows(element)
        origin = Origin(Address.im(self.endpoint.address, self.endpoint.domain), "apex", "127.0.0.1", True)
        await self.world.service.handle(self.endpoint, domain or self.world.domain, element, origin, options)
        await settle()
        return self.take() if is_taken else []

    def take(self) -> list[ServiceElement]:
        """What was heard since the last call."""
        heard, self.heard = self.heard, []
        return [element for _, element in heard]

    async def answer(self, *, is_ok: bool = True) -> list[ServiceElement]:
        """Answer everything that waits for it; what is heard then."""
        await self.settle(is_ok=is_ok)
        return self.take()

    async def settle(self, *, is_ok: bool) -> None:
        """Answer everything that waits for it."""
        waiting, self.unanswered = self.unanswered, []
        for future in waiting:
            if not future.done():
                future.set_result(is_ok)
        await settle()


class World:
    """A bench with the service of APEX on it."""

    def __init__(self, bench: PresenceBench | None = None, domain: str = "a.test") -> None:
        self.bench = bench or PresenceBench()
        self.domain = domain

    async def start(self) -> World:
        """Start everything."""
        await self.bench.start()
        self._begin({})
        await settle()
        return self

    def _begin(self, applications: dict[Endpoint, Application]) -> None:
        self.relay = MemoryRelay(self.bench.pipeline)
        self.relay.applications = applications
        self.service = PresenceWellKnown()
        self.service.start(self.relay)

    async def restart(self) -> None:
        """The process ends at once; another begins over the same store. Nobody is attached then."""
        await self.bench.crash()
        self._begin({})
        await settle()

    async def attach(self, identity: str, *, is_foreign: bool = False) -> Application:
        """An application attaches."""
        application = Application(self, identity, is_foreign=is_foreign)
        await application.attach()
        return application

    def after(self, seconds: float) -> datetime:
        """A time from now on the bench's clock."""
        return self.bench.clock.when() + timedelta(seconds=seconds)

    def entry(self, identity: str, last_update: str, *tuples: Tuple, info: str = "", trans_id: int = 1) -> Publish:
        """A publish."""
        who = Endpoint.parse(identity)
        return Publish(who, trans_id, timestamp(self.bench.clock.when()), Presence(who, last_update, info, tuples))


def in_world(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that is handed a world."""

    async def run(**named: object) -> None:
        world = await World().start()
        try:
            await test(world, **named)
        finally:
            world.bench.presence.stop()

    signature = inspect.signature(test)
    functools.update_wrapper(run, test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]  # what pytest reads
    return in_loop(run)

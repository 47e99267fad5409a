"""A relay for tests of the services behind it: it writes down what they say, and nobody is attached but who the test says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from comity.bindings.apex.elements import Option, Part, ServiceElement
from comity.bindings.apex.endpoint import Endpoint
from comity.service.interfaces import Service


@dataclass(frozen=True, slots=True)
class Said:
    """What a service said."""

    source: str
    to: str
    element: ServiceElement | Part


@dataclass
class QuietRelay:
    """See ``Relay``; what is said to who is not attached is written down too, and not taken."""

    service: Service
    attached: set[Endpoint] = field(default_factory=set)
    said: list[Said] = field(default_factory=list)
    told: list[Callable[[Endpoint], None]] = field(default_factory=list)

    def say(
        self, name: str, domain: str, to: Endpoint, element: ServiceElement | Part, options: Sequence[Option] = ()
    ) -> asyncio.Future[bool]:
        """Write it down."""
        self.said.append(Said(str(Endpoint.service(name, domain)), str(to), element))
        done = asyncio.get_running_loop().create_future()
        done.set_result(to in self.attached)
        return done

    def is_attached(self, endpoint: Endpoint) -> bool:
        """As the test says."""
        return endpoint in self.attached

    def on_attached(self, told: Callable[[Endpoint], None]) -> None:
        """Keep it."""
        self.told.append(told)

    def take(self) -> list[Said]:
        """What was said since the last look."""
        said, self.said = self.said, []
        return said

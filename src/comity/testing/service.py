"""A whole service without protocols: devices that record, accounts in memory, a clock moved by hand.

Place on the path: around steps 5 to 7, for tests of the service and for trials of a new binding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from comity.cpim.address import Address
from comity.cpim.message import new_message_id
from comity.cpim.native import wrap
from comity.cpim.operations import (
    Context,
    MessageOperation,
    MimeObject,
    Reason,
    Response,
    Status,
    failure,
    success,
)
from comity.service.finding import Directory, HopFinder
from comity.service.interfaces import Accepted, Contact, Credentials, Delivery, Guard, Maps, Origin, Store
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits
from comity.service.routes import Route, StaticRoutes
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock


class OpenGuard:
    """A ``Guard`` that bans nobody."""

    def is_banned(self, host: str) -> bool:
        """Never."""
        return False

    def failed(self, host: str, address: Address | None) -> None:
        """Forget it."""

    def succeeded(self, host: str) -> None:
        """Forget it."""


class MemoryAccounts:
    """Accounts that exist because the test says so."""

    def __init__(self, addresses: Iterable[str], credentials: dict[str, Credentials] | None = None) -> None:
        self._addresses = {Address.parse(uri).key for uri in addresses}
        self._domains = {Address.parse(uri).domain for uri in addresses}
        self._credentials = credentials or {}

    async def credentials(self, address: Address) -> Credentials | None:
        """What the test gave for the address."""
        return self._credentials.get(address.key)

    def serves(self, domain: str) -> bool:
        """Domains of the addresses are served."""
        return domain.lower() in self._domains

    async def exists(self, address: Address) -> bool:
        """True for the addresses given."""
        return address.key in self._addresses

    def known(self, address: Address) -> bool | None:
        """Everything is known."""
        return address.key in self._addresses

    def guard(self) -> Guard:
        """Nobody is banned."""
        return OpenGuard()


@dataclass
class Device:
    """A recording device: answers at once with ``answer``, or holds deliveries until ``take``."""

    contact: Contact
    answer: Callable[[Delivery], Response] | None = None
    deliveries: list[Delivery] = field(default_factory=list)
    held: list[tuple[Delivery, asyncio.Future[Response]]] = field(default_factory=list)

    @property
    def texts(self) -> list[bytes]:
        """The last line of each object received, in order."""
        return [delivery.operation.object.octets.rpartition(b"\r\n")[2] for delivery in self.deliveries]

    def take(self, response: Response | None = None) -> Delivery:
        """Answer the oldest held delivery (success unless said otherwise)."""
        delivery, future = self.held.pop(0)
        future.set_result(response or success(delivery.operation.trans_id, "object"))
        return delivery


class DeviceBinding:
    """A ``Deliverer`` for all devices of a test."""

    def __init__(self) -> None:
        self.devices: dict[tuple[str, str], Device] = {}

    def deliver(self, delivery: Delivery) -> asyncio.Future[Response]:
        """Record the delivery with its device and answer as that device was told to."""
        device = self.devices[delivery.contact.aor.key, delivery.contact.id]
        device.deliveries.append(delivery)
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        if device.answer is None:
            device.held.append((delivery, future))
        else:
            future.set_result(device.answer(delivery))
        return future


def takes(delivery: Delivery) -> Response:
    """A device that takes everything."""
    return success(delivery.operation.trans_id, "object")


def refuses(reason: Reason) -> Callable[[Delivery], Response]:
    """A device that refuses everything for ``reason``."""
    return lambda delivery: failure(delivery.operation.trans_id, reason, "refused by the device")


class Bench:
    """A pipeline over a memory store, with alice, bob and carol at a.test."""

    def __init__(
        self,
        store: Store | None = None,
        limits: Limits | None = None,
        clock: FakeClock | None = None,
        *,
        routes: Sequence[Route] = (),
        directory: Directory | None = None,
        order: Sequence[str] = ("xmpp", "sip", "apex"),
        people: Sequence[str] = ("im:alice@a.test", "im:bob@a.test", "im:carol@a.test"),
        maps: Maps | None = None,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store = store or MemoryStore()
        self.accounts = MemoryAccounts(people)
        self.binding = DeviceBinding()
        ways = StaticRoutes(routes, finds=directory is not None)
        self.pipeline = Pipeline(self.store, self.accounts, self.clock, "a.test", limits, routes=ways, maps=maps)
        if directory is not None:
            self.pipeline.delivery.finder = HopFinder(directory, order)
        self._count = 0

    async def start(self) -> Bench:
        """Start the pipeline."""
        await self.pipeline.start({"sip": self.binding, "xmpp": self.binding, "apex": self.binding})
        return self

    def hop(self, domain: str, *, answer: Callable[[Delivery], Response] | None = takes) -> Device:
        """The next hop towards ``domain``, to which one of the routes leads."""
        contact = self.pipeline.routes.hop(domain)
        assert contact is not None, domain
        device = self.binding.devices[contact.aor.key, contact.id] = Device(contact, answer)
        return device

    async def device(
        self,
        uri: str,
        id: str = "phone",
        *,
        answer: Callable[[Delivery], Response] | None = takes,
        binding: str = "sip",
        window: int = 1,
        priority: int = 0,
        lease: float | None = None,
        is_durable: bool = False,
        is_protected: bool = True,
    ) -> Device:
        """Register a device of ``uri``."""
        address = Address.parse(uri)
        contact = Contact(id, address, binding, id, priority, window, None, is_durable, b"", is_protected)
        device = Device(contact, answer)
        self.binding.devices[address.key, id] = device
        await self.pipeline.registrar.register(contact, lease)
        await settle()
        return device

    def operation(
        self, text: str, source: str = "im:alice@a.test", destination: str = "im:bob@a.test", **context: object
    ) -> MessageOperation:
        """A message operation with a wrapped text."""
        self._count += 1
        origin, target = Address.parse(source), Address.parse(destination)
        thing = wrap(
            origin,
            target,
            text.encode(),
            "text/plain; charset=utf-8",
            when=self.clock.when(),
            message_id=new_message_id(self._count.to_bytes(12, "big")),
        )
        return self.carrying(thing, source, destination, is_wrapped=True, **context)

    def carrying(
        self,
        thing: MimeObject,
        source: str = "im:alice@a.test",
        destination: str = "im:bob@a.test",
        *,
        is_wrapped: bool = False,
        **context: object,
    ) -> MessageOperation:
        """A message operation with the object given."""
        hints = Context(**context)  # type: ignore[arg-type]  # the test names fields of Context
        return MessageOperation(
            Address.parse(source),
            Address.parse(destination),
            f"t{self._count}",
            thing,
            context=hints,
            is_wrapped=is_wrapped,
        )

    async def submit(
        self, operation: MessageOperation, *dedup: str, principal: str = "", binding: str = "sip"
    ) -> Accepted | Response:
        """Submit and give the first answer."""
        who = Address.parse(principal) if principal else operation.source
        answer = await self.pipeline.submit(operation, Origin(who, binding, "127.0.0.1", True, dedup))
        await settle()
        return answer

    async def pass_in(self, operation: MessageOperation, *domains: str, binding: str = "sip") -> Accepted | Response:
        """Submit as a peer server that proved ``domains``; give the first answer."""
        origin = Origin(operation.source, binding, "192.0.2.1", True, domains=frozenset(domains))
        answer = await self.pipeline.submit(operation, origin)
        await settle()
        return answer

    async def send(self, text: str, **named: object) -> Accepted:
        """Submit a text that has to be accepted."""
        answer = await self.submit(self.operation(text, **named))  # type: ignore[arg-type]  # passed through
        assert isinstance(answer, Accepted), answer
        return answer


async def settle(turns: int = 40) -> None:
    """Let everything that is ready run."""
    for _ in range(turns):
        await asyncio.sleep(0)


def ended(accepted: Accepted) -> Status | None:
    """The final status as far as it is known."""
    return accepted.outcome.result().status if accepted.outcome.done() else None

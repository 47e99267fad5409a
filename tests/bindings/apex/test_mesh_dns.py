"""A relay finds another by DNS and believes it by its certificate, over real sockets (ADDR-17; RFC 3340 section 3.1, 3.5)."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from comity.bindings.apex.binding import ApexBinding
from comity.bindings.apex.config import ApexConfig, ListenAddress
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MessageOperation, Reason, Response, Status
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.outbound import OutboundPolicy
from comity.net.resolver import Resolver
from comity.net.tls import TlsContexts
from comity.service.interfaces import Accepted, Contact, Delivery, Origin
from comity.service.peers import KnownPeers
from comity.service.pipeline import Pipeline
from comity.service.routes import Route, StaticRoutes
from comity.store.memory import MemoryStore
from comity.testing.dns import DnsServer
from comity.testing.service import Device, DeviceBinding, MemoryAccounts, takes
from tests.loop import in_loop
from tests.net.kit import Ca

ZONE = """
_apex-mesh._tcp.b.test. 300 IN SRV 0 0 1 dead.b.test.
_apex-mesh._tcp.b.test. 300 IN SRV 5 0 {port} relay.b.test.
dead.b.test. 300 IN A 127.0.0.1
relay.b.test. 300 IN A 127.0.0.1
"""


class Relay:
    """A service on the loopback network whose relay is reached by the TLS profile."""

    def __init__(self, domain: str, certificate: tuple[Path, Path], ca: Ca, dns: DnsServer, *routes: Route) -> None:
        clock = LoopClock()
        self.domain = domain
        self.pipeline = Pipeline(
            MemoryStore(),
            MemoryAccounts([f"im:alice@{domain}", f"im:bob@{domain}"]),
            clock,
            domain,
            peers=KnownPeers((domain,)),
            routes=StaticRoutes(routes),
        )
        self.binding = ApexBinding(ApexConfig((domain,), (ListenAddress("tcp", "127.0.0.1", 0),)))
        self.phones = DeviceBinding()
        self.network = AsyncNetwork(
            clock,
            tls=TlsContexts(*certificate, trust=ca.file),
            resolver=Resolver(clock, [dns.address], hosts=None),
            outbound=OutboundPolicy((ipaddress.ip_network("127.0.0.0/8"),)),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Gives the port it listens on."""
        await self.pipeline.start({"apex": self.binding, "sip": self.phones})
        await self.binding.start(self.pipeline, self.network)
        [bound] = await self.network.open(self.binding)
        try:
            yield bound.address[1]
        finally:
            self.network.stop_listening()
            await self.binding.drain()
            await self.pipeline.stop()
            await self.network.close()

    async def phone(self) -> tuple[Device, asyncio.Future[Delivery]]:
        """bob's, and what it gets first."""
        first: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()

        def answer(delivery: Delivery) -> Response:
            first.set_result(delivery)
            return takes(delivery)

        address = Address.parse(f"im:bob@{self.domain}")
        contact = Contact("phone", address, "sip", "phone", 0, 1, None, False, b"", True)
        device = self.phones.devices[address.key, "phone"] = Device(contact, answer)
        await self.pipeline.registrar.register(contact, None)
        return device, first

    def operation(self, to: str) -> MessageOperation:
        """A message that came by SIP."""
        sender, recipient = Address.parse(f"im:alice@{self.domain}"), Address.parse(to)
        when = self.pipeline.clock.when()
        thing = wrap(sender, recipient, b"hello", "text/plain", when=when, message_id="first")
        return MessageOperation(sender, recipient, "1", thing)


@in_loop
async def test_relay_found_by_srv_takes_messages_under_tls_after_external_and_bind(tmp_path: Path) -> None:
    """ADDR-17: the record with the best priority first, the next when nobody answers there; RFC 3080 sections 3.1 and 4."""
    ca = Ca(tmp_path)
    async with DnsServer("") as dns:
        b = Relay("b.test", ca.issue("b.test"), ca, dns, Route("a.test", "apex"))
        a = Relay("a.test", ca.issue("a.test"), ca, dns, Route("b.test", "apex"))
        async with b.running() as port, a.running():
            dns.load(ZONE.format(port=port))
            _, first = await b.phone()
            operation = a.operation("im:bob@b.test")
            accepted = await a.pipeline.submit(operation, Origin(operation.source, "sip", "127.0.0.1", True))
            assert isinstance(accepted, Accepted)
            delivery = await asyncio.wait_for(first, 20)
            assert delivery.operation.object.octets.endswith(b"hello")
            assert [entry.node for entry in delivery.operation.history] == ["a.test", "b.test"]
            assert dns.asked[0] == "_apex-mesh._tcp.b.test SRV"


@in_loop
async def test_relay_whose_certificate_names_only_the_srv_target_is_not_believed(tmp_path: Path) -> None:
    """RFC 3340 section 3.5: what DNS says is not proved; the certificate has to name the destination's domain."""
    ca = Ca(tmp_path)
    async with DnsServer("") as dns:
        b = Relay("b.test", ca.issue("relay.b.test"), ca, dns)
        a = Relay("a.test", ca.issue("a.test"), ca, dns, Route("b.test", "apex"))
        async with b.running() as port, a.running():
            dns.load(ZONE.format(port=port))
            phone, _ = await b.phone()
            hop = a.pipeline.routes.hop("b.test")
            assert hop is not None
            delivery = Delivery("1", a.operation("im:bob@b.test"), hop, a.pipeline.clock.when(), 1)
            response = await asyncio.wait_for(a.binding.deliver(delivery), 20)
            assert (response.status, response.reason) == (Status.FAILURE, Reason.TIMEOUT)
            assert phone.deliveries == []

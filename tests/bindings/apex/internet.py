"""Several relays on one clock, joined by links in memory: each a real service over a memory store with our binding on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import ip_network

from comity.bindings.apex import events
from comity.bindings.apex.binding import ApexBinding
from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.elements import Ok, Option
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.base import HostPort, Link, Peer, Target, TlsCheck, TlsInfo, Transport
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import Context, MessageOperation, MimeObject, Response
from comity.errors import DeliveryError
from comity.service import peers
from comity.service.interfaces import Accepted, Contact, Credentials, Origin
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits
from comity.service.presence.service import AccountPresence
from comity.service.routes import Route, StaticRoutes
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import Device, DeviceBinding, settle, takes
from tests.bindings.apex.world import KEYS, TLS, Application, GuardedAccounts, MemoryLink, counting_random

HISTORY, MASK = b"urn:comity:history:0", b"urn:nobody:history:0"


def tls_of(names: Sequence[str]) -> TlsInfo:
    return TlsInfo("TLSv1.3", "x", b"\x07" * 32, b"certificate" if names else None, tuple(names))


class RelayLink(MemoryLink):
    """One end of a connection between two relays."""

    def __init__(self, node: Node, peer: Peer) -> None:
        super().__init__(node, peer)  # type: ignore[arg-type]  # of the world it needs the binding and the clock
        self.node = node
        self.other: RelayLink | None = None

    def start_tls_client(self, server_name: str, check: TlsCheck = "name") -> None:
        assert self.other is not None
        if server_name not in self.other.node.names:
            self.node.internet.refused.append(server_name)
            self.abort()
            return
        self.peer = Peer("tls", self.peer.local, self.peer.remote, tls_of(self.other.node.names))
        self.other.peer = Peer("tls", self.other.peer.local, self.other.peer.remote, tls_of(self.node.names))
        for link in (self, self.other):
            link.flush()

    def start_tls(self, check: TlsCheck = "name") -> None:
        """What was queued goes out in the clear; the client's part does the rest for both."""
        assert self.session is not None
        self.written += b"".join(self.session.data_to_send(self.node.clock.now()))

    def lose(self) -> None:
        super().lose()
        if self.other is not None and not self.other.is_closed:
            asyncio.get_running_loop().call_soon(self.other.lose)


class Node:
    """One relay.

    Args:
        internet: the others.
        domain: its only one.
        host: where it listens; port 912.
        routes: where it finds others, (domain, host) or (domain, host, who may pass).
        known: relays it knows by address, (domain, host, what they speak for besides).
        names: what its certificate says; its domain.
        former: itself before it was killed.
    """

    def __init__(
        self,
        internet: Internet,
        domain: str,
        host: str,
        routes: Sequence[Route] = (),
        known: Sequence[peers.Peer] = (),
        names: Sequence[str] | None = None,
        former: Node | None = None,
        limits: Limits | None = None,
        *,
        has_presence: bool = False,
    ) -> None:
        self.internet, self.domain, self.host, self.clock = internet, domain, host, internet.clock
        self.names = (domain,) if names is None else tuple(names)
        self.arguments = (domain, host, routes, known, names)
        users = [f"im:{name}@{domain}" for name in ("alice", "bob", "carol")]
        self.accounts = GuardedAccounts(users)
        self.accounts._credentials = {uri: Credentials(Address.parse(uri), KEYS) for uri in users}
        clock = self.clock
        store_clock = StoreClock(lambda: clock.when().timestamp(), clock.now)
        self.store: MemoryStore = MemoryStore(store_clock) if former is None else former.store
        self.pipeline = Pipeline(
            self.store,
            self.accounts,
            clock,
            domain,
            limits or Limits(),
            peers=peers.KnownPeers((domain,), known),
            routes=StaticRoutes(routes),
        )
        self.presence = AccountPresence(self.store, self.accounts, clock, self.pipeline.admit_subscription)
        self.pipeline.presence = self.presence if has_presence else None
        self.pipeline.inbox = self.presence.keeping.inbox if has_presence else None
        config = ApexConfig((domain,), scram_iterations=4096)
        self.binding = ApexBinding(config, counting_random(f"{domain}{len(internet.nodes)}".encode()))
        self.phones = DeviceBinding()
        self.is_dead = False
        internet.nodes[host] = self

    async def start(self) -> Node:
        await self.pipeline.start({"apex": self.binding, "sip": self.phones})
        if self.pipeline.presence is not None:
            await self.presence.start()
        await self.binding.start(self.pipeline, self)
        return self

    # --- Network ---

    async def connect(self, binding: object, target: Target, *, role: str = "", client: bool = True) -> Link:
        self.internet.calls.append((self.domain, target.host, target.port))
        other = self.internet.nodes.get(target.host)
        if other is None or other.is_dead:
            raise DeliveryError(f"no connection to {target.host}")
        ours = RelayLink(self, Peer("tcp", (self.host, 1), (target.host, target.port)))
        theirs = RelayLink(other, Peer("tcp", (target.host, target.port), (self.host, 1)))
        ours.other, theirs.other = theirs, ours
        if target.transport == "tls":
            ours.start_tls_client(target.server_name)
            if ours.is_aborted:
                raise DeliveryError("the certificate does not verify")
        self.internet.links += [ours, theirs]
        theirs.session = other.binding.new_session(theirs, "")
        ours.session = self.binding.new_session(ours, role)
        for link in (ours, theirs):
            link.flush()
        return ours

    async def resolve(
        self, service: str, host: str, port: int | None, transport: Transport | None, *, is_trusted: bool = False
    ) -> Sequence[Target]:
        raise NotImplementedError

    async def resolve_service(
        self, prefix: str, domain: str, port: int, transport: Transport, *, is_trusted: bool = False
    ) -> Sequence[Target]:
        found = self.internet.records.get(domain)
        if not found:
            raise DeliveryError(f"{domain} has no relay")
        return [Target(transport, host, port) for host in found]

    async def hop_targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        assert protocol == "apex"
        return await self.resolve_service("_apex-mesh._tcp", domain, 912, "tcp")

    def datagram_link(self, binding: object, near: HostPort | None = None) -> Link | None:
        return None

    # --- people ---

    async def settle(self) -> None:
        await self.internet.settle()

    async def online(self, *endpoints: str) -> Application:
        """An application of one of its users, attached."""
        link = MemoryLink(self, Peer("tls", ("", 913), ("198.51.100.9", 1), TLS))  # type: ignore[arg-type]
        link.session = self.binding.new_session(link, "")
        application = Application(self, link, len(self.internet.applications))  # type: ignore[arg-type]
        self.internet.applications.append(application)
        await self.settle()
        first = Endpoint.parse(endpoints[0])
        signed = await application.sign_in(f"{first.address}@{first.domain}")
        assert isinstance(signed, events.SignInSucceeded), signed
        await application.open()
        for endpoint in endpoints:
            assert await application.attach(endpoint) == Ok()
        return application

    async def stranger(self, *names: str, host: str = "203.0.113.7") -> Application:
        """A program with a certificate for these names that opened a channel and said no more."""
        tls = TlsInfo("TLSv1.3", "x", TLS.server_end_point, b"certificate" if names else None, names)
        link = MemoryLink(self, Peer("tls", ("", 912), (host, 1), tls))  # type: ignore[arg-type]
        link.session = self.binding.new_session(link, "")
        application = Application(self, link, len(self.internet.applications))  # type: ignore[arg-type]
        self.internet.applications.append(application)
        await self.settle()
        await application.open()
        return application

    async def phone(self, name: str) -> Device:
        """A SIP phone of one of its users."""
        address = Address.parse(f"im:{name}@{self.domain}")
        contact = Contact("phone", address, "sip", "phone", 0, 8, None, False, b"", True)
        device = self.phones.devices[address.key, "phone"] = Device(contact, takes)
        await self.pipeline.registrar.register(contact, None)
        await settle()
        return device

    def operation(self, text: str, source: str, to: str, **context: object) -> MessageOperation:
        sender, recipient = Address.parse(source), Address.parse(to)
        thing: MimeObject = wrap(
            sender, recipient, text.encode(), "text/plain", when=self.clock.when(), message_id=f"m-{text}"
        )
        return MessageOperation(sender, recipient, f"t-{text}", thing, context=Context(**context))  # type: ignore[arg-type]

    async def submit(self, operation: MessageOperation) -> Accepted | Response:
        """Hand in a message that came by SIP."""
        answer = await self.pipeline.submit(operation, Origin(operation.source, "sip", "198.51.100.8", True))
        await self.settle()
        return answer

    def kill(self) -> None:
        """The process is gone without a word; what its store holds is left."""
        self.is_dead = True
        for link in self.internet.links:
            if link.node is self and not link.is_closed:
                link.is_closed = True
                assert link.other is not None
                link.other.lose()

    async def restart(self) -> Node:
        """What comes up in its place."""
        domain, host, routes, known, names = self.arguments
        return await Node(self.internet, domain, host, routes, known, names, self).start()


class Internet:
    """Where the relays are."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.nodes: dict[str, Node] = {}
        """By address."""
        self.records: dict[str, list[str]] = {}
        """SRV records: addresses by domain."""
        self.links: list[RelayLink] = []
        self.applications: list[Application] = []
        self.calls: list[tuple[str, str, int]] = []
        """Who called which address and port."""
        self.refused: list[str] = []
        """Names that a certificate did not have."""
        self.is_masked = False
        """Our history option looks like somebody else's on every link between relays."""
        self.wire: list[tuple[str, str, bytes]] = []
        """(from, to, octets) of everything between relays."""

    def data_count(self, source: str = "", to: str = "") -> int:
        """How many data elements went between relays."""
        return sum(
            octets.count(b"<data ") for near, far, octets in self.wire if source in ("", near) and to in ("", far)
        )

    async def settle(self) -> None:
        """Let everything run that needs no time to pass."""
        for _ in range(2000):
            await settle(12)
            self.clock.advance(0.0)
            moved = [application.exchange() for application in self.applications]
            moved += [self._carry(link) for link in list(self.links)]
            if not any(moved):
                return
        raise AssertionError("they never stop talking")

    def _carry(self, link: RelayLink) -> bool:
        data, link.written = link.written, b""
        if not data or link.other is None or link.other.is_closed or link.node.is_dead:
            return False
        if self.is_masked:
            data = data.replace(HISTORY, MASK)
        self.wire.append((link.node.domain, link.other.node.domain, data))
        link.other.receive(data)
        return True

    async def pass_time(self, seconds: float) -> None:
        """Let time pass in steps, so that what it brings can run."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            await self.settle()


def by_address(domain: str, host: str, *speaks_for: str) -> peers.Peer:
    """A relay that is known by its address."""
    return peers.Peer(domain, (ip_network(host),), frozenset(speaks_for))


def by_certificate(domain: str, *speaks_for: str) -> peers.Peer:
    """An intermediary that is known by its certificate."""
    return peers.Peer(domain, (), frozenset(speaks_for))


def route(domain: str, next_hop: str = "", *transit: str) -> Route:
    """``next_hop`` "" is by DNS."""
    return Route(domain, "apex", next_hop, frozenset(transit))


def status_request(trans_id: int, **more: object) -> Option:
    return Option("statusRequest", trans_id=trans_id, **more)  # type: ignore[arg-type]

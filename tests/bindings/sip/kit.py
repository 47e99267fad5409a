"""A SIP binding over the real pipeline, phones that are real sessions, and wires in memory; the clock is moved by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from functools import wraps
from typing import Literal, ParamSpec, Self

from comity.bindings.base import Binding, HostPort, Link, Peer, Target, TlsCheck, TlsInfo, Transport
from comity.bindings.sip.binding import SipBinding
from comity.bindings.sip.config import SipConfig
from comity.bindings.sip.digest import DigestClient, ha1
from comity.bindings.sip.events import Event, RequestFailed, RequestReceived, RequestTimedOut, ResponseReceived
from comity.bindings.sip.exchange import literal_target
from comity.bindings.sip.exchange import next_hop as split_next_hop
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.session import SipSession
from comity.bindings.sip.settings import SessionSettings
from comity.cpim.address import Address
from comity.errors import DeliveryError
from comity.service.interfaces import Credentials, Guard
from comity.service.maps import LinkMaps, Rule
from comity.service.peers import KnownPeers
from comity.service.peers import Peer as PeerServer
from comity.service.pipeline import Pipeline
from comity.service.routes import Route, StaticRoutes
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import DeviceBinding, MemoryAccounts, settle

NEAR_UDP: HostPort = ("192.0.2.1", 5060)
NEAR_TCP: HostPort = ("192.0.2.1", 5061)
PASSWORD = "secret"
P = ParamSpec("P")


def story(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 20))

    return wrapper


def counting() -> Callable[[int], bytes]:
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


class CountingGuard:
    """Bans an address after three failures."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, Address | None]] = []

    def is_banned(self, host: str) -> bool:
        return sum(failed == host for failed, _ in self.failures) >= 3

    def failed(self, host: str, address: Address | None) -> None:
        self.failures.append((host, address))

    def succeeded(self, host: str) -> None:
        self.failures = [one for one in self.failures if one[0] != host]


class GuardedAccounts(MemoryAccounts):
    def __init__(self, addresses: Sequence[str], credentials: dict[str, Credentials], guard: CountingGuard) -> None:
        super().__init__(addresses, credentials)
        self.the_guard = guard

    def guard(self) -> Guard:
        return self.the_guard


class FakeLink:
    """The server's end of a wire in memory."""

    def __init__(self, world: World, peer: Peer, role: str) -> None:
        self.world = world
        self.peer = peer
        self.is_open = True
        self.is_authenticated = False
        self.session: SipSession = world.binding.new_session(self, role)

    @property
    def unsent(self) -> int:
        return 0

    def flush(self) -> None:
        if not self.is_open:
            return
        while (event := self.session.next_event()) is not None:
            self.world.binding.handle_event(self, event)
        now = self.world.clock.now()
        if self.peer.transport == "udp":
            for data, address in self.session.datagrams_to_send(now):
                self.world.to_phone(address, data)
        else:
            for data in self.session.data_to_send(now):
                self.world.to_phone(self.peer.remote, data)

    def start_tls(self, check: TlsCheck = "name") -> None:
        raise AssertionError("SIP has no STARTTLS")

    def authenticated(self) -> None:
        self.is_authenticated = True

    def close(self) -> None:
        self.flush()
        self.abort()

    def abort(self) -> None:
        if self.is_open:
            self.is_open = False
            self.world.binding.link_closed(self, None)

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class FakeNetwork:
    """Connections only to phones that listen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dialled: list[Target] = []
        self.names: dict[str, str] = {}
        """Hosts an operator may name."""

    async def connect(self, binding: Binding, target: Target, *, role: str = "", client: bool = True) -> Link:
        self.dialled.append(target)
        phone = self.world.listening.get((target.host, target.port))
        if phone is None:
            raise DeliveryError("nobody listens there")
        peer = Peer("tcp", ("192.0.2.1", 40000 + len(self.dialled)), (target.host, target.port))
        link = FakeLink(self.world, peer, role)
        phone.second = SipSession(phone.settings, "tcp", phone.address, peer.local, random=counting())
        self.world.phones[target.host, target.port] = phone
        self.world.dialled_links[target.host, target.port] = link
        return link

    async def resolve(
        self,
        service: Literal["sip", "sips"],
        host: str,
        port: int | None,
        transport: Transport | None,
        *,
        is_trusted: bool = False,
    ) -> Sequence[Target]:
        assert is_trusted, "contacts are never resolved"
        if host not in self.names:
            raise DeliveryError("there is no such host")
        return [Target(transport or "udp", self.names[host], port or 5060, host)]

    async def resolve_service(
        self, prefix: str, domain: str, port: int, transport: Transport, *, is_trusted: bool = False
    ) -> Sequence[Target]:
        raise AssertionError("SIP has rules of its own")

    async def hop_targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        transport, host, port = split_next_hop(next_hop)
        if (literal := literal_target(transport, host, port, domain)) is not None:
            return [literal]
        return await self.resolve("sip", host, port, transport, is_trusted=True)

    def datagram_link(self, binding: Binding, near: HostPort | None = None) -> Link | None:
        return self.world.udp if near in (None, NEAR_UDP) else None


class World:
    """One server and its phones."""

    domain = "a.test"
    people: tuple[str, ...] = ("alice", "bob", "carol")
    routes: Sequence[Route] = ()
    peers: Sequence[PeerServer] = ()
    maps: Sequence[Rule] = ()

    def __init__(self, **options: object) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore()
        users = [f"im:{name}@{self.domain}" for name in self.people]
        credentials = {}
        for uri in users:
            address = Address.parse(uri)
            values = {name: ha1(name, address.local, address.domain, PASSWORD) for name in ("SHA-256", "MD5")}
            credentials[address.key] = Credentials(address, ha1=values)
        self.guard = CountingGuard()
        self.accounts = GuardedAccounts(users, credentials, self.guard)
        fields: dict[str, object] = {
            "domains": (self.domain,),
            "listen": ("udp://192.0.2.1:5060", "tcp://192.0.2.1:5061"),
            "plaintext_from": ("192.0.2.0/24", "198.51.100.0/24"),
        }
        self.config = SipConfig(**(fields | options))  # type: ignore[arg-type]  # the test names fields of SipConfig
        self.binding = SipBinding(self.config, random=counting())
        self.others = DeviceBinding()
        self.pipeline = Pipeline(
            *(self.store, self.accounts, self.clock, self.domain),
            peers=KnownPeers((self.domain,), self.peers),
            routes=StaticRoutes(self.routes),
            maps=LinkMaps(self.maps),
        )
        self.network = FakeNetwork(self)
        self.phones: dict[HostPort, Phone] = {}
        self.listening: dict[HostPort, Phone] = {}
        self.dialled_links: dict[HostPort, FakeLink] = {}
        self.udp: FakeLink | None = None
        self._moving = False

    async def start(self) -> Self:
        await self.pipeline.start({"sip": self.binding, "xmpp": self.others})
        await self.binding.start(self.pipeline, self.network)
        self.udp = FakeLink(self, Peer("udp", NEAR_UDP, ("", 0)), "udp")
        return self

    def to_phone(self, address: HostPort, data: bytes) -> None:
        phone = self.phones.get(address)
        if phone is not None:
            phone.inbox.append(data)

    async def settle(self) -> None:
        """Move octets and run callbacks until nothing happens any more."""
        for _ in range(12):
            moved = False
            for phone in list(self.phones.values()):
                moved = phone.move() or moved
            await settle(10)
            for link in self.links():
                link.flush()
            if not moved and not any(phone.inbox for phone in self.phones.values()):
                return

    def links(self) -> list[FakeLink]:
        assert self.udp is not None
        links = [self.udp, *self.dialled_links.values()]
        return links + [phone.link for phone in self.phones.values() if phone.link is not None]

    async def advance(self, seconds: float) -> None:
        """Let time pass in small steps, timers of every session included."""
        steps = max(1, round(seconds / 0.25))
        for _ in range(steps):
            self.clock.advance(seconds / steps)
            now = self.clock.now()
            for session in [link.session for link in self.links()] + [p.session for p in self.phones.values()]:
                timer = session.next_timer()
                if timer is not None and timer <= now:
                    session.handle_timer(now)
            for link in self.links():
                link.flush()
            await self.settle()


class Phone:
    """A user agent: a client session, a password, and answers to what it receives."""

    def __init__(
        self,
        world: World,
        user: str,
        address: HostPort,
        transport: Transport = "udp",
        *,
        password: str = PASSWORD,
        names: tuple[str, ...] = (),
    ) -> None:
        """``names``: of the certificate it shows."""
        self.world = world
        self.user = user
        self.address = address
        self.transport = transport
        self.settings = SessionSettings()
        self.inbox: list[bytes] = []
        self.received: list[SipRequest] = []
        self.responses: dict[str, SipResponse] = {}
        self.lost: list[str] = []
        self.answers: list[int] = []
        """Status codes for the next requests; 200 when empty, 0 to stay silent."""
        self.answer_headers: dict[int, list[tuple[str, str]]] = {}
        """What answers of a code bear."""
        self.digest = DigestClient(user, password, realm=world.domain, peer="server", random=counting())
        self.second: SipSession | None = None
        self.link: FakeLink | None = None
        server = NEAR_UDP if transport == "udp" else NEAR_TCP
        self.session = SipSession(
            self.settings, transport, address, None if transport == "udp" else server, random=counting()
        )
        if transport != "udp":
            tls = TlsInfo("TLSv1.3", "x", b"", names=names) if transport == "tls" else None
            self.link = FakeLink(world, Peer("tcp", NEAR_TCP, address, tls), transport)
        world.phones[address] = self
        self.cseq = 0

    @property
    def uri(self) -> str:
        return f"sip:{self.user}@{self.address[0]}:{self.address[1]}"

    def move(self) -> bool:
        """Exchange octets with the server once; True if anything moved."""
        now, moved = self.world.clock.now(), False
        inbox, self.inbox = self.inbox, []
        for data in inbox:
            moved = True
            if self.transport == "udp" and self.second is None:
                self.session.receive_datagram(data, NEAR_UDP, now)
            elif data:
                (self.second or self.session).receive_data(data, now)
        for session in filter(None, (self.session, self.second)):
            while (event := session.next_event()) is not None:
                moved = True
                self._take(session, event)
        for data, _ in self.session.datagrams_to_send(now):
            moved = True
            assert self.world.udp is not None
            self.world.udp.session.receive_datagram(data, self.address, now)
            self.world.udp.flush()
        ends = ((self.session, self.link), (self.second, self.world.dialled_links.get(self.address)))
        for one, link in ends:
            for data in one.data_to_send(now) if one is not None else []:
                moved = True
                if link is not None and link.is_open and data:
                    link.session.receive_data(data, now)
                    link.flush()
        return moved

    def _take(self, session: SipSession, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self.received.append(event.request)
            status_code = self.answers.pop(0) if self.answers else 200
            if status_code:
                headers = self.answer_headers.get(status_code, ())
                session.respond(event.id, status_code, self.world.clock.now(), headers=headers)
        elif isinstance(event, ResponseReceived):
            self.responses[event.id] = event.response
        elif isinstance(event, RequestTimedOut | RequestFailed):
            self.lost.append(event.id)

    def request(self, method: str, uri: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"") -> SipRequest:
        """A request from this phone's user; ``headers`` replace those of the same name."""
        self.cseq += 1
        own = {
            "Max-Forwards": "70",
            "From": f"<sip:{self.user}@a.test>;tag=f{self.user}",
            "To": f"<{uri}>",
            "Call-ID": f"call-{self.user}-{self.cseq}",
            "CSeq": f"{self.cseq} {method}",
            "User-Agent": "a phone with a name long enough for a challenge to fit",
        }
        for name, value in headers:
            own[name] = value
        return SipRequest(method, uri, [(name, value) for name, value in own.items() if value], body)

    async def send(self, request: SipRequest, *, settle: bool = True) -> str:
        """Send without credentials of our own adding."""
        id = self.session.send_request(request, self.world.clock.now(), NEAR_UDP)
        if settle:
            await self.world.settle()
        return id

    async def ask(self, request: SipRequest) -> SipResponse | None:
        """Send, answering one challenge; the final response, None if none came."""
        for _ in range(2):
            header = self.digest.authorize(request.method, request.uri_text, request.body)
            headers = list(request.headers) if header is None else [*request.headers, header]
            id = await self.send(SipRequest(request.method, request.uri_text, headers, request.body))
            response = self.responses.get(id)
            if response is None or not self.digest.take_challenge(response, "server"):
                if response is not None and response.status_code != 401:
                    self.digest.accepted()
                return response
        return response

    async def register(self, *extra: tuple[str, str], contact: str = "") -> SipResponse:
        headers = [("Contact", contact or f"<{self.uri}>"), ("To", f"<sip:{self.user}@a.test>"), *extra]
        headers.append(("Call-ID", f"register-{self.user}"))
        response = await self.ask(self.request("REGISTER", "sip:a.test", headers))
        assert response is not None
        return response

    async def message(
        self, to: str, body: bytes = b"hello", content_type: str = "text/plain", *extra: tuple[str, str]
    ) -> SipResponse | None:
        return await self.ask(self.request("MESSAGE", to, [("Content-Type", content_type), *extra], body))

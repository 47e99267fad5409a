"""A real service over a memory store with our binding on it, applications in memory, and a clock moved by hand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from comity import sasl
from comity.bindings.apex import events
from comity.bindings.apex.binding import ApexBinding
from comity.bindings.apex.config import ApexConfig
from comity.bindings.apex.elements import (
    Attach,
    Content,
    CoreElement,
    Data,
    Error,
    Inline,
    Ok,
    Option,
    Originator,
    Part,
    Recipient,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.service_wire import read_service
from comity.bindings.apex.session import ApexSession
from comity.bindings.apex.signing_in import SessionOptions
from comity.bindings.base import HostPort, Link, Peer, Session, Target, TlsCheck, TlsInfo
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MessageOperation, MimeObject, Response
from comity.service.interfaces import Accepted, Credentials, Guard, Origin, ScramKeys
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits
from comity.service.presence.service import AccountPresence
from comity.service.routes import Route, StaticRoutes
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import DeviceBinding, MemoryAccounts, settle

PASSWORD = "pencil ☂"
_SECRETS = {name: sasl.derive_secret(PASSWORD, name, b"salt", 4096) for name in ("sha-1", "sha-256", "sha-512")}
KEYS = {name: ScramKeys(s.salt, s.iterations, s.stored_key, s.server_key) for name, s in _SECRETS.items()}
END_POINT = b"\x05" * 32
TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", END_POINT)
USERS = ("im:alice@a.test", "im:bob@a.test", "im:carol@a.test")


def counting_random(seed: bytes = b"") -> Callable[[int], bytes]:
    """Octets that differ from call to call and are the same in every run."""
    count = 0

    def random(size: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(seed + count.to_bytes(8, "big")).digest(size)

    return random


class CountingGuard:
    """A guard that bans a host after three failures."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, Address | None]] = []

    def is_banned(self, host: str) -> bool:
        return len([failure for failure in self.failures if failure[0] == host]) >= 3

    def failed(self, host: str, address: Address | None) -> None:
        self.failures.append((host, address))

    def succeeded(self, host: str) -> None:
        pass


class GuardedAccounts(MemoryAccounts):
    def __init__(self, users: Sequence[str] = USERS) -> None:
        super().__init__(users, {uri: Credentials(Address.parse(uri), KEYS) for uri in users})
        self.counting = CountingGuard()

    def guard(self) -> Guard:
        return self.counting


class MemoryLink:
    """A link whose other end is a function; ``unsent`` stays what the test says."""

    def __init__(self, world: World, peer: Peer) -> None:
        self.world = world
        self.peer = peer
        self.unsent = 0
        self.is_authenticated = False
        self.is_paused = False
        self.is_closed = False
        self.is_aborted = False
        self.written = b""
        self.in_clear = b""
        """What was written before TLS began."""
        self._scheduled: asyncio.Handle | None = None
        self._is_running = False
        self.session: Session | None = None

    def flush(self) -> None:
        if not self._is_running and self._scheduled is None:
            self._scheduled = asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        self._scheduled = None
        if self.session is None or self._is_running:
            return
        self._is_running = True
        wrote = True
        while wrote and not self.is_closed:
            while (event := self.session.next_event()) is not None:
                self.world.binding.handle_event(self, event)
            pieces = self.session.data_to_send(self.world.clock.now())
            wrote = bool(pieces)
            self.written += b"".join(pieces)
        self._is_running = False

    def receive(self, data: bytes) -> None:
        assert self.session is not None
        self.session.receive_data(data, self.world.clock.now())
        self.pump()

    def timer(self) -> None:
        """What the driver does when the session's timer may be due."""
        assert self.session is not None
        now, due = self.world.clock.now(), self.session.next_timer()
        if due is not None and due <= now and not self.is_closed:
            self.session.handle_timer(now)
            self.pump()

    def start_tls(self, check: TlsCheck = "name") -> None:
        assert self.session is not None
        # What is queued goes in the clear.
        self.in_clear = self.written + b"".join(self.session.data_to_send(self.world.clock.now()))
        self.written = b""
        self.peer = Peer(self.peer.transport, self.peer.local, self.peer.remote, TLS)

    def authenticated(self) -> None:
        self.is_authenticated = True

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.is_aborted = True
        asyncio.get_running_loop().call_soon(self.lose)

    def lose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.world.binding.link_closed(self, None)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Application:
    """An application's session on a memory link; it answers ``ok`` to what it gets, or what ``answer`` says."""

    def __init__(self, world: World, link: MemoryLink, number: int) -> None:
        self.world = world
        self.link = link
        self.session = ApexSession(
            "initiator",
            SessionOptions(),
            lambda: END_POINT if link.peer.tls else None,
            counting_random(b"c%d" % number),
            world.clock.now(),
        )
        self.events: list[object] = []
        self.answer: Callable[[CoreElement], Ok | Error | None] = lambda element: Ok()
        """None: no answer at all."""
        self.unanswered: list[events.ElementReceived] = []
        self._ids = 100

    def exchange(self) -> bool:
        """Pass octets both ways once; True if any moved."""
        # While the relay does not read, octets wait on our side as in a kernel's buffer; they are not lost.
        out = b"" if self.link.is_paused else b"".join(self.session.data_to_send(self.world.clock.now()))
        if out and not self.link.is_closed:
            self.link.receive(out)
        clear, self.link.in_clear = self.link.in_clear, b""
        data, self.link.written = (clear, self.link.written) if clear else (self.link.written, b"")
        if data:
            self.session.receive_data(data, self.world.clock.now())
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, events.TlsWanted):
                self.session.tls_started(self.world.clock.now())
            elif isinstance(event, events.ElementReceived):
                self._take(event)
        return bool(out or data)

    def _take(self, event: events.ElementReceived) -> None:
        answer = self.answer(event.element)
        if answer is None:
            self.unanswered.append(event)
        else:
            self.session.answer(event.channel, event.msgno, answer)

    async def take_back(self) -> None:
        """Answer ``ok`` to everything that waits."""
        waiting, self.unanswered = self.unanswered, []
        for event in waiting:
            self.session.answer(event.channel, event.msgno, Ok())
        await self.world.settle()

    @property
    def channel(self) -> int:
        """Its first APEX channel."""
        return min(self.session.channels)

    # --- what came ---

    @property
    def elements(self) -> list[CoreElement]:
        return [event.element for event in self.events if isinstance(event, events.ElementReceived)]

    @property
    def data(self) -> list[Data]:
        return [element for element in self.elements if isinstance(element, Data)]

    @property
    def contents(self) -> list[Content]:
        return [data.content for data in self.data]

    @property
    def reports(self) -> list[tuple[int, str, int]]:
        """(transID, recipient, code) of every statusResponse."""
        found = []
        for data in self.data:
            if isinstance(data.content, Inline) and data.originator.identity.service_name == "report":
                element = read_service(data.content)
                assert isinstance(element, StatusResponse)
                found += [(element.trans_id, str(one.identity), one.reply.code) for one in element.destinations]
        return found

    # --- verbs ---

    async def sign_in(self, username: str, password: str = PASSWORD) -> object:
        self.session.sign_in(username, password)
        await self.world.settle()
        return next(
            event for event in reversed(self.events) if isinstance(event, events.SignInSucceeded | events.SignInFailed)
        )

    async def open(self, ride: Attach | None = None) -> int:
        """An APEX channel."""
        number = self.session.open(ride)
        await self.world.settle()
        return number

    def opened(self, channel: int) -> Ok | Error | None:
        """The answer to what rode on its start."""
        return next(
            event.answer
            for event in self.events
            if isinstance(event, events.ChannelOpened) and event.channel == channel
        )

    async def say(self, channel: int, element: CoreElement) -> Ok | Error | None:
        """Send an element and give the answer, None if there is none yet."""
        handle = self.session.send(channel, element)
        await self.world.settle()
        return self.answered(handle)

    def answered(self, handle: int) -> Ok | Error | None:
        return next(
            (event.element for event in self.events if isinstance(event, events.Answered) and event.handle == handle),
            None,
        )

    async def attach(self, endpoint: str, channel: int = 0, *options: Option, trans_id: int = 0) -> Ok | Error | None:
        self._ids += 1
        channel = channel or self.channel
        return await self.say(channel, Attach(Endpoint.parse(endpoint), trans_id or self._ids, options))

    async def terminate(self, trans_id: int, channel: int = 0) -> Ok | Error | None:
        return await self.say(channel or self.channel, Terminate(trans_id))

    async def send(
        self, sender: str, *recipients: str, content: Content | None = None, options: Sequence[Option] = ()
    ) -> Ok | Error | None:
        """Send data; by default a bare text."""
        self._ids += 1
        content = content or Part(b"Content-Type: text/plain; charset=utf-8\r\n", b"hello", f"{self._ids}@{sender}")
        to = tuple(Recipient(Endpoint.parse(recipient)) for recipient in recipients)
        data = Data(Originator(Endpoint.parse(sender)), to, content, tuple(options))
        return await self.say(self.channel, data)

    async def lose(self) -> None:
        """The connection breaks without a word."""
        self.link.lose()
        await self.world.settle()


class World:
    def __init__(
        self,
        *,
        former: World | None = None,
        limits: Limits | None = None,
        presence: bool = False,
        users: Sequence[str] = USERS,
        routes: Sequence[Route] = (),
        **config: object,
    ) -> None:
        """``former``: a world whose process died; its clock and its store are what is left of it."""
        self.clock: FakeClock = former.clock if former is not None else FakeClock()
        self.accounts = GuardedAccounts(users)
        store_clock = StoreClock(lambda: self.clock.when().timestamp(), self.clock.now)
        self.store: MemoryStore = former.store if former is not None else MemoryStore(store_clock)
        self.pipeline = Pipeline(
            self.store, self.accounts, self.clock, "a.test", limits or Limits(), routes=StaticRoutes(routes)
        )
        self.presence = AccountPresence(self.store, self.accounts, self.clock, self.pipeline.admit_subscription)
        self.pipeline.presence = self.presence if presence else None
        self.pipeline.inbox = self.presence.keeping.inbox if presence else None
        values = {"domains": ("a.test",), "scram_iterations": 4096, **config}
        seed = b"" if former is None else b"next"
        self.binding = ApexBinding(ApexConfig(**values), counting_random(seed))  # type: ignore[arg-type]  # checked there
        self.phones = DeviceBinding()
        """Everybody who is not on APEX."""
        self.applications: list[Application] = []

    async def start(self) -> World:
        await self.pipeline.start({"apex": self.binding, "sip": self.phones})
        if self.pipeline.presence is not None:
            await self.presence.start()
        await self.binding.start(self.pipeline, NoNetwork())
        return self

    def link(self, *, tls: bool = True, host: str = "192.0.2.1") -> MemoryLink:
        link = MemoryLink(self, Peer("tls" if tls else "tcp", ("", 913), (host, 1), TLS if tls else None))
        link.session = self.binding.new_session(link, "")
        return link

    async def connect(self, *, tls: bool = True, host: str = "192.0.2.1") -> Application:
        """A connection on which both sides have greeted."""
        application = Application(self, self.link(tls=tls, host=host), len(self.applications))
        self.applications.append(application)
        await self.settle()
        return application

    async def online(self, *endpoints: str) -> Application:
        """An application signed in and attached as these, of one account."""
        application = await self.connect()
        first = Endpoint.parse(endpoints[0])
        signed = await application.sign_in(f"{first.address}@{first.domain}")
        assert isinstance(signed, events.SignInSucceeded), signed
        await application.open()
        for endpoint in endpoints:
            assert await application.attach(endpoint) == Ok()
        return application

    async def settle(self) -> None:
        """Let everything run that needs no time to pass."""
        for _ in range(40):
            await settle(12)
            self.clock.advance(0.0)
            moved = [application.exchange() for application in self.applications]
            if not any(moved):
                break

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and everything that it brings."""
        self.clock.advance(seconds)
        await self.settle()

    async def submit(self, operation: MessageOperation) -> Accepted | Response:
        """Hand in a message from elsewhere."""
        answer = await self.pipeline.submit(operation, Origin(operation.source, "sip", "192.0.2.9", True))
        await self.settle()
        return answer

    def operation(self, text: str, source: str = "im:bob@a.test", to: str = "im:alice@a.test") -> MessageOperation:
        """A message from elsewhere."""
        sender, recipient = Address.parse(source), Address.parse(to)
        thing = wrap(sender, recipient, text.encode(), "text/plain", when=self.clock.when(), message_id=f"m-{text}")
        return MessageOperation(sender, recipient, f"t-{text}", thing)


def cpim_part(world: World, source: str, to: str, text: str) -> Part:
    """A message/cpim as a part."""
    sender, recipient = (Endpoint.parse(identity).to_address() for identity in (source, to))
    thing: MimeObject = wrap(
        sender, recipient, text.encode(), "text/plain", when=world.clock.when(), message_id=f"m-{text}"
    )
    return Part(thing.header_block, thing.octets, f"{text}@{source}")


class NoNetwork:
    """A ``Network`` for a binding that opens no connections."""

    async def connect(self, *args: object, **named: object) -> Link:
        raise NotImplementedError

    async def resolve(self, *args: object, **named: object) -> Sequence[Target]:
        raise NotImplementedError

    async def resolve_service(self, *args: object, **named: object) -> Sequence[Target]:
        raise NotImplementedError

    async def hop_targets(self, *args: object, **named: object) -> Sequence[Target]:
        raise NotImplementedError

    def datagram_link(self, binding: object, near: HostPort | None = None) -> Link | None:
        return None

"""A real service over a memory store with our binding on it, clients in memory, and a clock moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

from comity import sasl
from comity.bindings.base import HostPort, Link, Peer, Session, Target, TlsCheck, TlsInfo
from comity.bindings.xmpp import events
from comity.bindings.xmpp.binding import XmppBinding
from comity.bindings.xmpp.config import XmppConfig
from comity.bindings.xmpp.events import Event
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.session import ClientOptions, XmppClientSession
from comity.bindings.xmpp.sm import SmState
from comity.bindings.xmpp.wire import ERROR, error_of
from comity.cpim.address import Address
from comity.cpim.operations import MessageOperation, Response
from comity.service.interfaces import Accepted, Credentials, Guard, Origin, ScramKeys
from comity.service.pipeline import Pipeline
from comity.service.policy import Limits
from comity.service.presence.service import AccountPresence
from comity.service.routes import Route, StaticRoutes
from comity.store.clock import StoreClock
from comity.store.memory import MemoryStore
from comity.testing.clock import FakeClock
from comity.testing.service import MemoryAccounts, settle
from comity.xml import Element, parse_document
from tests.bindings.xmpp.pair import END_POINT, PASSWORD, SECRETS, counting_random

KEYS = {name: ScramKeys(s.salt, s.iterations, s.stored_key, s.server_key) for name, s in SECRETS.items()}
TLS = TlsInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", END_POINT)
USERS = ("im:alice@a.test", "im:bob@a.test", "im:carol@a.test")


class CountingGuard:
    """A guard that bans a host after three failures."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, Address | None]] = []

    def is_banned(self, host: str) -> bool:
        return len([f for f in self.failures if f[0] == host]) >= 3

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
        self.is_cut = False
        """True: octets written go nowhere, as on a dead connection."""
        self.written = b""
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
            if not self.is_cut:
                self.written += b"".join(pieces)
        self._is_running = False

    def receive(self, data: bytes) -> None:
        assert self.session is not None
        self.session.receive_data(data, self.world.clock.now())
        self.pump()

    def timer(self, now: float) -> None:
        """What the driver does when the session's timer may be due."""
        assert self.session is not None
        due = self.session.next_timer()
        if due is not None and due <= now and not self.is_closed:
            self.session.handle_timer(now)
            self.pump()

    def start_tls(self, check: TlsCheck = "name") -> None:
        self.peer = Peer(self.peer.transport, self.peer.local, self.peer.remote, TLS)

    def authenticated(self) -> None:
        self.is_authenticated = True

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.lose)

    def abort(self) -> None:
        self.lose()

    def lose(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.world.binding.link_closed(self, None)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Client:
    """A client session on a memory link."""

    def __init__(self, world: World, link: MemoryLink, session: XmppClientSession) -> None:
        self.world = world
        self.link = link
        self.session = session
        self.events: list[Event] = []
        self.acknowledges = True
        self._taken = 0

    def exchange(self) -> bool:
        """Pass octets both ways once; True if any moved."""
        # While the server does not read, octets wait on our side as in a kernel's buffer; they are not lost.
        out = b"" if self.link.is_paused else b"".join(self.session.data_to_send(self.world.clock.now()))
        if out and not self.link.is_closed:
            self.link.receive(out)
        data, self.link.written = self.link.written, b""
        if data:
            self.session.receive_data(data, self.world.clock.now())
        while (event := self.session.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, events.TlsWanted):
                self.session.tls_started()
            elif isinstance(event, events.StanzaReceived) and self.acknowledges:
                self.session.stanza_handled(event.index)
                if event.stanza.find("{urn:xmpp:ping}ping") is not None:
                    pong = {"type": "result", "id": event.stanza.get("id")}
                    self.session.send_stanza(Element("{jabber:client}iq", pong))
        return bool(out or data)

    @property
    def stanzas(self) -> list[Element]:
        return [event.stanza for event in self.events if isinstance(event, events.StanzaReceived)]

    def messages(self) -> list[Element]:
        return [s for s in self.stanzas if s.local == "message" and s.get("type") != "error"]

    def errors(self) -> list[Element]:
        return [s for s in self.stanzas if s.get("type") == "error"]

    def presences(self) -> list[Element]:
        return [s for s in self.stanzas if s.local == "presence"]

    def texts(self) -> list[str]:
        return [body.text for m in self.messages() if (body := m.find("{jabber:client}body")) is not None]

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    async def send(self, *stanzas: Element, key: object = None) -> None:
        for stanza in stanzas:
            self.session.send_stanza(stanza, key)
        await self.world.settle()

    async def say(self, to: str, text: str, **attributes: str) -> None:
        body = Element("{jabber:client}body", {}, [text])
        await self.send(Element("{jabber:client}message", {"to": to, "id": text, **attributes}, [body]), key=text)

    async def present(self, priority: int = 0, *children: Element) -> None:
        number = Element("{jabber:client}priority", {}, [str(priority)])
        await self.send(Element("{jabber:client}presence", {}, [number, *children]))

    async def ask(self, payload: Element, to: str = "", kind: str = "get", id: str = "q") -> Element:
        attributes = {"type": kind, "id": id, **({"to": to} if to else {})}
        await self.send(Element("{jabber:client}iq", attributes, [payload]))
        return next(s for s in reversed(self.stanzas) if s.local == "iq" and s.get("id") == id)

    async def tell(self, *texts: str) -> None:
        """Send stanzas as they are written in a specification."""
        await self.send(*(read(text) for text in texts))

    def take(self) -> list[Element]:
        """What came since the last call; the questions and answers of the wire itself are left out."""
        found = [s for s in self.stanzas[self._taken :] if s.find("{urn:xmpp:ping}ping") is None]
        self._taken = len(self.stanzas)
        return found

    def heard(self) -> list[str]:
        """What came since the last call, each in a few words (``words``)."""
        return [words(stanza) for stanza in self.take()]

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
        """``former``: a world whose process died; its clock and its store are what is left of it. ``presence``: switched on."""
        self.clock: FakeClock = former.clock if former is not None else FakeClock()
        self.accounts = GuardedAccounts(users)
        store_clock = StoreClock(lambda: self.clock.when().timestamp(), self.clock.now)
        self.store: MemoryStore = former.store if former is not None else MemoryStore(store_clock)
        static = StaticRoutes(routes)
        self.pipeline = Pipeline(self.store, self.accounts, self.clock, "a.test", limits or Limits(), routes=static)
        admit = self.pipeline.admit_subscription
        self.presence = AccountPresence(self.store, self.accounts, self.clock, admit, hop=static.hop)
        self.keeping = self.presence.keeping
        self.pipeline.presence = self.presence if presence else None
        self.pipeline.inbox = self.keeping.inbox if presence else None
        domains = tuple(sorted({Address.parse(uri).domain for uri in users}))
        values = {"domains": domains, "scram_iterations": 4096, **config}
        seed = b"" if former is None else b"next"
        self.binding = XmppBinding(XmppConfig(**values), counting_random(seed))  # type: ignore[arg-type]  # checked there
        self.clients: list[Client] = []
        self._count = 0

    async def start(self) -> World:
        await self.pipeline.start({"xmpp": self.binding})
        if self.pipeline.presence is not None:
            await self.presence.start()
        await self.binding.start(self.pipeline, NoNetwork())
        return self

    def link(self, *, tls: bool = True, host: str = "192.0.2.1") -> MemoryLink:
        link = MemoryLink(self, Peer("tls" if tls else "tcp", ("", 5223), (host, 1), TLS if tls else None))
        link.session = self.binding.new_session(link, "client")
        return link

    async def connect(
        self, jid: str, *, password: str = PASSWORD, sm: bool = True, resume: SmState | None = None, tls: bool = True
    ) -> Client:
        self._count += 1
        link = self.link(tls=tls)
        options = ClientOptions(Jid.parse(jid), password, use_stream_management=sm)
        session = XmppClientSession(
            options,
            lambda: END_POINT if link.peer.tls else None,
            counting_random(b"c%d" % self._count),
            self.clock.now(),
            resume,
        )
        client = Client(self, link, session)
        self.clients.append(client)
        await self.settle()
        return client

    async def online(self, jid: str, *, sm: bool = True, priority: int = 0) -> Client:
        client = await self.connect(jid, sm=sm)
        await client.present(priority)
        return client

    async def settle(self) -> None:
        """Let everything run that needs no time to pass.

        The end is a round in which the server had its turn first and then no client had or got an octet.
        """
        for _ in range(30):
            await settle(12)
            self.clock.advance(0.0)
            moved = [client.exchange() for client in self.clients]
            if not any(moved):
                break

    async def submit(self, operation: MessageOperation) -> Accepted | Response:
        answer = await self.pipeline.submit(operation, Origin(operation.source, "sip", "192.0.2.9", True))
        await self.settle()
        return answer


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


def read(text: str) -> Element:
    """A stanza as it stands on a client's stream."""
    return next(parse_document(f"<x xmlns='jabber:client'>{text}</x>".encode()).elements())


async def login(world: World, jid: str) -> Client:
    """A device as most are, interested and available (RFC 6121 section 2.2); what it heard so far is taken."""
    client = await world.connect(jid)
    await client.tell("<iq id='r' type='get'><query xmlns='jabber:iq:roster'/></iq>", "<presence/>")
    client.take()
    return client


async def befriend(one: Client, other: Client) -> None:
    """Both, who are available, see each other; what they heard of it is taken."""
    first, second = str(one.session.jid).partition("/")[0], str(other.session.jid).partition("/")[0]
    await one.tell(f"<presence type='subscribe' to='{second}'/>")
    await other.tell(f"<presence type='subscribed' to='{first}'/>", f"<presence type='subscribe' to='{first}'/>")
    await one.tell(f"<presence type='subscribed' to='{second}'/>")
    one.take()
    other.take()


def words(stanza: Element) -> str:
    """A stanza in a few words: of a presence who, of what type, its show and status; of a roster push or result its items."""
    query = stanza.find("{jabber:iq:roster}query")
    if query is not None:
        items = [_item_words(item) for item in query.elements()]
        return f"{'push' if stanza.get('type') == 'set' else 'roster'}: {', '.join(items)}".strip()
    if stanza.get("type") == "error":
        return f"{stanza.local} error {condition(stanza)} from {stanza.get('from')}"
    if stanza.local == "presence":
        said = [e.text for name in ("show", "status") if (e := stanza.find(f"{{jabber:client}}{name}")) is not None]
        return " ".join([stanza.get("type") or "available", stanza.get("from"), *said])
    payload = next(stanza.elements(), None)
    inside = [] if payload is None else [payload.local, *(e.get("jid") for e in payload.elements() if e.get("jid"))]
    return " ".join([stanza.local, stanza.get("type"), *inside])


def _item_words(item: Element) -> str:
    said = [item.get("jid"), item.get("subscription")]
    said += [f"ask={item.get('ask')}"] if item.get("ask") else []
    said += ["approved"] if item.get("approved") else []
    said += [f"name={item.get('name')}"] if item.get("name") else []
    said += [f"[{group.text}]" for group in item.elements()]
    return " ".join(said)


def condition(stanza: Element) -> str:
    """The condition of an error stanza."""
    error = stanza.find(ERROR)
    assert error is not None, stanza
    return error_of(error)[0]


def run(story: Coroutine[None, None, None]) -> None:
    asyncio.run(story)


__all__ = ["Client", "MemoryLink", "World", "befriend", "condition", "login", "read", "run", "sasl", "words"]

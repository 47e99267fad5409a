"""Places of components over the real service in memory: joining, losing, joining again; what was not taken; names; who may say what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from comity.bindings.base import Link, Peer, Target
from comity.bindings.xmpp import events, wire
from comity.bindings.xmpp.component_stream import AttachedSession, AttachingSession, ComponentOptions
from comity.bindings.xmpp.components import PAUSES
from comity.bindings.xmpp.config import HostConfig
from comity.bindings.xmpp.wire import Element
from comity.cpim.address import Address
from comity.cpim.native import wrap
from comity.cpim.operations import MessageOperation, Reason
from comity.errors import DeliveryError
from comity.service.interfaces import Accepted
from comity.service.maps import LinkMaps, Rule
from comity.service.routes import Route, StaticRoutes
from tests.bindings.xmpp.pair import counting_random
from tests.bindings.xmpp.world import TLS, USERS, MemoryLink, NoNetwork, World

JULIET, ALICE, NICK = (Address.parse(f"im:{name}") for name in ("juliet@x.test", "alice@a.test", "nick@irc.a.test"))
SECRET = "what both know"
HOUR = 3600.0


class HostNetwork(NoNetwork):
    """A network at whose other end is an XMPP server that gives components a place, or nobody."""

    def __init__(self, world: World, address: str = "127.0.0.1") -> None:
        self.world = world
        self.address = address
        self.is_up = True
        self.calls = 0
        self.hosts: list[Host] = []

    async def hop_targets(self, *args: object, **named: object) -> Sequence[Target]:
        return [Target("tcp", self.address, 5347)]

    async def connect(self, *args: object, **named: object) -> Link:
        target, role = args[1], named["role"]
        assert isinstance(target, Target)
        assert isinstance(role, str)
        self.calls += 1
        if not self.is_up:
            raise DeliveryError("nobody answers")
        link = MemoryLink(self.world, Peer("tcp", ("127.0.0.1", 1), (target.host, target.port)))
        link.session = self.world.binding.new_session(link, role)
        self.hosts.append(Host(self.world, link))
        link.flush()
        return link


class Host:
    """The XMPP server, or with ``AttachingSession`` the component, at the other end of a link."""

    def __init__(
        self, world: World, link: MemoryLink, session: AttachedSession | AttachingSession | None = None
    ) -> None:
        self.world, self.link = world, link
        options = ComponentOptions("x.test", {"a.test": SECRET})
        self.session = session or AttachedSession(options, lambda: None, counting_random(b"h"), world.clock.now())
        self.stanzas: list[Element] = []
        self.ended: events.StreamEnded | None = None
        self.answers = True

    def exchange(self) -> bool:
        """Pass octets both ways once; True if any moved."""
        out = b"".join(self.session.data_to_send(self.world.clock.now()))
        if out and not self.link.is_closed:
            self.link.receive(out)
        data, self.link.written = self.link.written, b""
        if data and self.answers:
            self.session.receive_data(data, self.world.clock.now())
        while (event := self.session.next_event()) is not None:
            if isinstance(event, events.StanzaReceived):
                self._took(event)
            elif isinstance(event, events.StreamEnded):
                self.ended = event
        return bool(out or data)

    def _took(self, event: events.StanzaReceived) -> None:
        self.session.stanza_handled(event.index)
        if event.stanza.find("{urn:xmpp:ping}ping") is None:
            self.stanzas.append(event.stanza)
        else:
            self.session.send_stanza(wire.iq_result(event.stanza))

    @property
    def texts(self) -> list[str]:
        return [body.text for stanza in self.stanzas if (body := stanza.find("{jabber:client}body")) is not None]


async def settle(world: World, network: HostNetwork | None, *others: Host) -> None:
    for _ in range(30):
        await world.settle()
        hosts = [*(network.hosts[-1:] if network is not None else ()), *others]
        moved = [host.exchange() for host in hosts]
        if not any(moved):
            return


async def beside(
    address: str = "127.0.0.1", users: Sequence[str] = USERS, plaintext_from: tuple[str, ...] = ()
) -> HostNetwork:
    """A world whose binding joins a server as the component a.test."""
    host = HostConfig("a.test", "localhost", 5347, SECRET, serves=frozenset({"x.test"}))
    world = World(users=users, hosts=(host,), plaintext_from=plaintext_from)
    network = HostNetwork(world, address)
    world.pipeline.routes = StaticRoutes([Route("x.test", "xmpp", "tcp://localhost:5347", frozenset({"a.test"}))])
    await world.pipeline.start({"xmpp": world.binding})
    await world.binding.start(world.pipeline, network)
    await settle(world, network)
    return network


def message(world: World, text: str, to: Address = JULIET, source: Address = ALICE) -> MessageOperation:
    obj = wrap(source, to, text.encode(), "text/plain", when=world.clock.when(), message_id=text)
    return MessageOperation(source, to, text, obj)


async def advance(network: HostNetwork, seconds: float) -> None:
    network.world.clock.advance(seconds)
    await settle(network.world, network)


def test_a_day_of_lost_streams_loses_nothing_and_calls_seldom() -> None:
    """24 h by the fake clock: every ten minutes the stream breaks with a message half way; each arrives, in order."""

    async def story() -> None:
        network = await beside()
        world, heard, sent = network.world, [], []
        for number in range(144):
            network.hosts[-1].answers = False  # it reads no more: what is written is not taken
            sent.append(f"{number}")
            assert isinstance(await world.submit(message(world, sent[-1])), Accepted)
            network.hosts[-1].link.lose()
            await settle(world, network)
            await advance(network, PAUSES[0])
            heard += network.hosts[-1].texts
            await advance(network, 10 * 60.0)
        assert list(dict.fromkeys(heard)) == sent
        assert await world.store.lanes("hop/") == []
        assert network.calls == 145

    asyncio.run(story())


def test_a_server_that_is_away_is_called_ever_less_and_gets_all_at_once_when_it_is_back() -> None:
    async def story() -> None:
        network = await beside()
        world = network.world
        network.is_up = False
        network.hosts[-1].link.lose()
        for number in range(5):
            await world.submit(message(world, f"{number}"))
        calls = network.calls
        for _ in range(int(6 * HOUR / 10)):
            await advance(network, 10.0)
        assert 6 * HOUR / 31 - 10 <= network.calls - calls <= 6 * HOUR / 30 + 10
        network.is_up = True
        for _ in range(3):
            await advance(network, 10.0)
        assert network.hosts[-1].texts == [f"{number}" for number in range(5)]

    asyncio.run(story())


def test_without_tls_only_this_machine_and_named_networks_are_joined() -> None:
    """Whatever the host's name turned out to be."""

    async def story() -> None:
        network = await beside(address="192.0.2.7")
        assert network.calls == 0
        network = await beside(address="192.0.2.7", plaintext_from=("192.0.2.0/24",))
        assert network.calls == 1

    asyncio.run(story())


def test_a_message_in_another_name_of_ours_does_not_go_by_the_component() -> None:
    """The host would end the stream over it; the sender is told that there is no way."""

    async def story() -> None:
        network = await beside(users=("im:alice@a.test", "im:alice@b.test"))
        sender = Address.parse("im:alice@b.test")
        answer = await network.world.submit(message(network.world, "hi", source=sender))
        await settle(network.world, network)
        assert isinstance(answer, Accepted)
        assert answer.outcome.result().reason is Reason.NO_ROUTE
        assert network.hosts[-1].stanzas == []

    asyncio.run(story())


def test_people_are_called_by_their_names_on_the_link_both_ways() -> None:
    """``[[map]]``: the envelope's names are turned at the edge and nowhere else (GW-4)."""

    async def story() -> None:
        network = await beside()
        world, number = network.world, Address.parse("im:1001@a.test")
        world.pipeline.maps = LinkMaps([Rule("xmpp", "a.test", ALICE, number)])
        await world.submit(message(world, "hi"))
        await settle(world, network)
        [stanza] = network.hosts[-1].stanzas
        assert (stanza.get("from"), stanza.get("to")) == ("1001@a.test", "juliet@x.test")
        bodies = [Element("{jabber:client}body", {}, [text]) for text in ("to the number", "to the name")]
        for to, body in zip(("1001@a.test", "alice@a.test"), bodies, strict=True):
            network.hosts[-1].session.send_stanza(
                Element(wire.MESSAGE, {"from": "juliet@x.test", "to": to, "id": to}, [body])
            )
        await settle(world, network)
        [info] = await world.store.lanes("inbox/")
        assert (info.lane, info.pending) == ("inbox/im:alice@a.test", 1)
        [refusal] = network.hosts[-1].stanzas[1:]
        assert (refusal.get("type"), refusal.get("id")) == ("error", "alice@a.test"), "that name means nobody there"

    asyncio.run(story())


def component(world: World) -> Host:
    """A component attached to a.test."""
    link = MemoryLink(world, Peer("tcp", ("127.0.0.1", 5347), ("127.0.0.1", 1)))
    link.session = world.binding.new_session(link, "component")
    options = ComponentOptions("irc.a.test", {"irc.a.test": SECRET})
    return Host(world, link, AttachingSession(options, lambda: None, counting_random(b"c"), world.clock.now()))


async def house() -> World:
    world = World(accept={"irc.a.test": SECRET})
    world.pipeline.routes = StaticRoutes([Route("irc.a.test", "xmpp", "tcp://attached", frozenset({"*"}))])
    return await world.start()


def test_what_a_lost_component_had_not_answered_for_goes_to_the_next_connection() -> None:
    async def story() -> None:
        world = await house()
        first = component(world)
        await settle(world, None, first)
        first.answers = False
        await world.submit(message(world, "hi", NICK))
        await settle(world, None, first)
        second = component(world)
        await settle(world, None, second)
        assert second.texts == ["hi"]
        first.answers = True
        first.exchange()
        assert first.link.is_closed
        assert await world.store.lanes("hop/") == []

    asyncio.run(story())


def test_a_component_that_reads_nothing_is_given_no_more_than_fits() -> None:
    """K-08, L-04: what it does not read waits in the store."""

    async def story() -> None:
        world = await house()
        irc = component(world)
        await settle(world, None, irc)
        irc.link.unsent = 1 << 30
        await world.submit(message(world, "hi", NICK))
        await settle(world, None, irc)
        assert irc.texts == []
        [info] = await world.store.lanes("hop/")
        assert info.pending == 1
        irc.link.unsent = 0
        world.clock.advance(2.0)
        await settle(world, None, irc)
        assert irc.texts == ["hi"]

    asyncio.run(story())


def test_guesses_at_a_secret_are_counted_except_from_this_machine() -> None:
    async def story() -> None:
        world = await house()
        for host, counted in (("127.0.0.1", 0), ("192.0.2.1", 1)):
            link = MemoryLink(world, Peer("tls", ("192.0.2.2", 5348), (host, 1), TLS))
            link.session = world.binding.new_session(link, "component")
            options = ComponentOptions("irc.a.test", {"irc.a.test": "guess"})
            guess = Host(world, link, AttachingSession(options, lambda: None, counting_random(b"g"), world.clock.now()))
            await settle(world, None, guess)
            assert guess.ended is not None
            assert guess.ended.condition == "not-authorized"
            assert len(world.accounts.counting.failures) == counted

    asyncio.run(story())


def test_an_orderly_stop_says_goodbye_and_joins_nobody_again() -> None:
    async def story() -> None:
        network = await beside()
        drained = asyncio.ensure_future(network.world.binding.drain())
        await settle(network.world, network)
        await asyncio.wait_for(drained, 5)
        assert network.hosts[-1].ended is not None
        await advance(network, HOUR)
        assert network.calls == 1

    asyncio.run(story())

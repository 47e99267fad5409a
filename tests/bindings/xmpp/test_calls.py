"""A stream to another server over time: what counts as taken, what goes back, when it is called again. Memory links, a clock by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from comity.bindings.base import Peer, Target, TlsCheck, TlsInfo
from comity.bindings.xmpp import events
from comity.bindings.xmpp.calls import ANSWER_SECONDS, PAUSES, Call, Dialer, Line
from comity.bindings.xmpp.dialback import Keys
from comity.bindings.xmpp.server_stream import IncomingStream, PeerOptions
from comity.bindings.xmpp.server_stream_out import OutgoingStream
from comity.bindings.xmpp.ways import Hop
from comity.bindings.xmpp.wire import Element
from comity.cpim.operations import Reason
from comity.errors import DeliveryError
from comity.testing.service import settle
from tests.bindings.xmpp.world import World, run

SHOWN = TlsInfo("TLSv1.3", "any", b"end point", b"DER", ("a.test", "b.test"))
OPTIONS = PeerOptions(("a.test",), Keys(lambda: b"k" * 32))
TARGETS = (Target("tcp", "192.0.2.1", 5269), Target("tcp", "192.0.2.2", 5269))


class PlainServer(IncomingStream):
    """A server that offers no stream management."""

    def _features(self) -> Element:
        features = super()._features()
        features.children = [c for c in features.elements() if c.namespace != "urn:xmpp:sm:3"]
        return features


class Wire:
    """A link of ours, and the other server at its end."""

    def __init__(self, net: Net, role: str) -> None:
        self.net = net
        self.peer = Peer("tcp", ("", 0), ("192.0.2.1", 5269))
        self.unsent = 0
        self.is_closed = False
        kind = IncomingStream if net.acknowledges else PlainServer
        options = replace(OPTIONS, domains=("b.test",))
        self.other = kind(options, lambda: self.peer.tls, lambda size: b"r" * size, 0.0)
        self.session: OutgoingStream = net.dialer.new_session(self, role)
        self.flush()

    def flush(self) -> None:
        asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        now = self.net.world.clock.now()
        while not self.is_closed:
            while (event := self.session.next_event()) is not None:
                self.net.dialer.handle_event(self, event)
            said = b"".join(self.session.data_to_send(now))
            if said:
                self.other.receive_data(said, now)
            while (heard := self.other.next_event()) is not None:
                if isinstance(heard, events.StanzaReceived):
                    self.net.arrived.append(heard.stanza)
                    if self.net.is_alive:
                        self.other.stanza_handled(heard.index)
            back = b"".join(self.other.data_to_send(now))
            if back:
                self.session.receive_data(back, now)
            if not said and not back:
                return

    def start_tls_client(self, server_name: str, check: TlsCheck = "name") -> None:
        assert (server_name, check) == ("b.test", "chain")
        self.peer = Peer("tls", *(("", 0), ("192.0.2.1", 5269)), SHOWN)

    def start_tls(self, check: TlsCheck = "name") -> None:
        raise NotImplementedError

    def authenticated(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self.abort)

    def abort(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.net.dialer.link_closed(self, None)


@dataclass
class Net:
    """The network and the other server as the test says; implements what ``Dialer`` asks of both."""

    world: World
    acknowledges: bool = True
    is_alive: bool = True
    """False: what arrives is never confirmed."""
    dead: set[str] = field(default_factory=set)
    arrived: list[Element] = field(default_factory=list)
    called: list[str] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    def __post_init__(self) -> None:
        binding = self.world.binding
        self.dialer = Dialer(binding._ground, lambda: OPTIONS)
        self.dialer.neighbours = binding._neighbours
        self.dialer.network = self  # type: ignore[assignment]  # the two methods that are asked for
        self.call = Call(Hop("a.test", "b.test"), binding._ground, self.dialer, lambda call: None)

    async def hop_targets(self, protocol: str, domain: str, next_hop: str) -> Sequence[Target]:
        return TARGETS

    async def connect(self, binding: object, target: Target, *, role: str = "", client: bool = True) -> Wire:
        self.called.append(target.host)
        if target.host in self.dead:
            raise DeliveryError("no connection")
        self.wires.append(Wire(self, role))
        return self.wires[-1]

    async def send(self, *texts: str) -> list[Flight]:
        flights = [Flight() for _ in texts]
        for text, flight in zip(texts, flights, strict=True):
            names = {"from": "alice@a.test", "to": "bob@b.test", "id": text}
            self.call.send(Element("{jabber:client}message", names), flight)
        await settle()
        return flights

    def messages(self) -> list[str]:
        return [stanza.get("id") for stanza in self.arrived if stanza.local == "message"]

    def pings(self) -> list[str]:
        return [stanza.get("id") for stanza in self.arrived if stanza.local == "iq"]

    def answer(self, id: str) -> None:
        """The other server's answer, which comes by a stream of its own."""
        names = {"from": "b.test", "to": "a.test", "id": id, "type": "error"}
        assert self.world.binding._neighbours.inquiries._is_answer(Element("{jabber:client}iq", names))


@dataclass
class Flight:
    """What became of a stanza."""

    ends: list[str | Reason] = field(default_factory=list)
    is_unsent: bool = False

    def taken(self) -> None:
        self.ends.append("taken")

    def lost(self, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
        self.ends.append(reason)
        self.is_unsent = is_unsent


def ends(flights: list[Flight]) -> list[list[str | Reason]]:
    return [flight.ends for flight in flights]


def test_what_is_acknowledged_is_taken() -> None:
    """XEP-0198 between servers."""

    async def story() -> None:
        net = Net(await World().start())
        assert ends(await net.send("1", "2", "3")) == [["taken"]] * 3
        assert (net.messages(), net.pings(), len(net.wires)) == (["1", "2", "3"], [], 1)

    run(story())


def test_without_it_one_ping_stands_for_many_messages() -> None:
    """Its answer, whatever it says, proves what was written before it and no more."""

    async def story() -> None:
        net = Net(await World().start(), acknowledges=False)
        early = await net.send("1", "2", "3")
        assert ends(early) == [[]] * 3
        [ping] = net.pings()
        late = await net.send("4")
        assert net.pings() == [ping], "one question at a time"
        net.answer(ping)
        await settle()
        assert (ends(early), ends(late)) == ([["taken"]] * 3, [[]])
        net.answer(net.pings()[1])
        assert ends(late) == [["taken"]]

    run(story())


def test_what_was_not_confirmed_goes_back_when_the_stream_is_lost() -> None:
    """To be tried again: some of it may have arrived, so nothing says that it was not sent."""

    async def story() -> None:
        net = Net(await World().start(), is_alive=False)
        flights = await net.send("1", "2")
        assert ends(flights) == [[], []]
        net.wires[0].abort()
        assert ends(flights) == [[Reason.TIMEOUT]] * 2
        assert not any(flight.is_unsent for flight in flights)
        net.is_alive = True
        assert ends(await net.send("1")) == [["taken"]]
        assert len(net.wires) == 2

    run(story())


def test_a_server_that_never_answers_gets_everything_twice_at_most() -> None:
    """It cannot call us, perhaps: on the second stream what it took is believed to have arrived."""

    async def story() -> None:
        net = Net(await World().start(), acknowledges=False)
        first = await net.send("1")
        net.world.clock.advance(ANSWER_SECONDS)
        assert ends(first) == [[Reason.TIMEOUT]]
        again = await net.send("1")
        net.world.clock.advance(ANSWER_SECONDS)
        assert (ends(again), net.messages(), len(net.wires)) == ([["taken"]], ["1", "1"], 2)

    run(story())


def test_every_target_is_tried_then_there_is_a_pause() -> None:
    """ADDR-10: in order; what waited is known not to have left, and nobody calls again at once."""

    async def story() -> None:
        net = Net(await World().start(), dead={"192.0.2.1"})
        assert ends(await net.send("1")) == [["taken"]]
        assert net.called == ["192.0.2.1", "192.0.2.2"]
        net.wires[0].abort()
        net.dead.add("192.0.2.2")
        [lost] = await net.send("2")
        assert (lost.ends, lost.is_unsent) == ([Reason.TIMEOUT], True)
        [soon] = await net.send("3")
        assert (soon.ends, len(net.called)) == ([Reason.TIMEOUT], 4)
        net.dead.clear()
        net.world.clock.advance(PAUSES[0])
        assert ends(await net.send("4")) == [["taken"]]

    run(story())


def test_a_line_that_ends_before_it_is_ready_fails_the_call() -> None:
    """A server that closes in the middle of the negotiation is one more target that did not do."""

    async def story() -> None:
        line = Line(
            Hop("a.test", "b.test"),
            "chain",
            False,
            asyncio.get_running_loop().create_future(),
            lambda *_: None,
            lambda *_: None,
        )
        line.over("gone")
        line.over("twice")
        assert isinstance(line.ready.exception(), DeliveryError)

    run(story())

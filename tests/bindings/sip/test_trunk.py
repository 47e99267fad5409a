"""Peer servers by SIP, both ways: trunk.py over the real pipeline (T1, T2, T3, GW-8, GW-12, SEC-33)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.base import Peer as Peer_
from comity.bindings.base import Transport
from comity.bindings.sip.history import parse_history
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.reports import REPORT, parse_about, parse_report
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import Context, Fate, MessageOperation, MimeObject, Reason, Requirement
from comity.service.interfaces import Contact, Origin
from comity.service.peers import Peer
from comity.service.pipeline import Pipeline
from comity.service.routes import Route, StaticRoutes
from comity.testing.service import Device, settle, takes
from tests.bindings.sip.kit import NEAR_UDP, FakeLink, Phone, World, story

ALICE, EVE = ("192.0.2.10", 5060), ("198.51.100.66", 5060)
SERVER, LISTED = ("198.51.100.7", 5060), ("198.51.100.8", 5060)
OBJECT = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nhello"
)
HOME = "sip:alice@a.test"


class Joined(World):
    """a.test with a neighbour b.test at ``SERVER``, a peer known by its address, and c.test behind b.test's user."""

    routes = (
        Route("b.test", "sip", f"tcp://{SERVER[0]}:{SERVER[1]}"),
        Route("c.test", "xmpp", "tls://c.test", frozenset({"b.test"})),
        Route("named.test", "sip", "tcp://sip.named.test:5070"),
        Route("udp.test", "sip", f"udp://{SERVER[0]}:{SERVER[1]}"),
    )
    peers = (Peer("listed.test", (ip_network("198.51.100.8/32"),)),)


async def at_home(world: World, binding: str = "xmpp") -> Device:
    """Alice's other device, which takes everything."""
    address = Address.parse("im:alice@a.test")
    device = Device(Contact("desk", address, binding, "desk"), takes)
    world.others.devices[address.key, "desk"] = device
    await world.pipeline.registrar.register(device.contact, None)
    return device


def neighbour(world: World, names: tuple[str, ...] = ("b.test",)) -> Phone:
    """A connection of b.test's server under TLS."""
    return Phone(world, "bob", SERVER, "tls", names=names)


async def passes(
    peer: Phone, source: str = "sip:bob@b.test", to: str = HOME, body: bytes = b"hi", *more: tuple[str, str]
) -> SipResponse | None:
    """What the server says to a MESSAGE that a peer hands in."""
    headers = [("From", f"<{source}>;tag=t1"), ("Content-Type", "text/plain"), *more]
    id = await peer.send(peer.request("MESSAGE", to, headers, body))
    return peer.responses.get(id)


def code(response: SipResponse | None) -> int:
    return 0 if response is None else response.status_code


class TestIn:
    @story
    async def test_a_server_with_a_certificate_hands_in_for_its_domain(self) -> None:
        world = await Joined().start()
        device = await at_home(world)
        assert code(await passes(neighbour(world))) == 200
        [delivery] = device.deliveries
        assert delivery.operation.source.uri == "im:bob@b.test"
        assert delivery.asserted_by == "b.test"
        assert delivery.operation.context.native_id == "call-bob-1;tag=t1"

    @story
    async def test_one_known_by_its_address_needs_none(self) -> None:
        world = await Joined().start()
        device = await at_home(world)
        peer = Phone(world, "dave", LISTED)
        assert code(await passes(peer, "sip:dave@listed.test")) == 200
        assert code(await passes(peer, "sip:bob@b.test")) == 403
        assert len(device.deliveries) == 1

    @pytest.mark.parametrize(
        ("source", "expected"),
        [
            ("sip:carol@c.test", 403),
            ("sip:bob@sub.b.test", 403),
            # In the name of a user of ours: she has to prove herself, through whatever she comes.
            ("sip:carol@a.test", 401),
            ("im:bob@b.test", 403),
        ],
    )
    @story
    async def test_in_another_name_it_is_refused(self, source: str, expected: int) -> None:
        """T1, SEC-33: per message, and nothing is shown to anybody."""
        world = await Joined().start()
        device = await at_home(world)
        assert code(await passes(neighbour(world), source)) == expected
        assert not device.deliveries

    @pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
    @story
    async def test_who_proves_nothing_speaks_for_no_domain(self, transport: Transport) -> None:
        world = await Joined().start()
        stranger = Phone(world, "bob", EVE, transport, names=("a.test",) if transport == "tls" else ())
        assert code(await passes(stranger)) == 403

    @story
    async def test_a_message_that_comes_back_is_a_loop(self) -> None:
        """GW-9: 482, before anybody is asked for a password."""
        world = await Joined().start()
        came = ("Comity-History", "a.test;in=sip;out=sip;time=2026-01-01T00:00:00Z")
        peer = neighbour(world)
        assert code(await passes(peer, "sip:alice@a.test", "sip:bob@b.test", b"x", came)) == 482
        # With a history like that nobody gets in what is not hers either.
        assert code(await passes(peer, "sip:alice@a.test", "sip:carol@a.test", b"x", came)) == 403

    @story
    async def test_what_is_for_others_passes_only_by_a_route_that_says_so(self) -> None:
        world = await Joined().start()
        hop = world.pipeline.routes.hop("c.test")
        assert hop is not None
        carols = world.others.devices[hop.aor.key, hop.id] = Device(hop, takes)
        peer = neighbour(world)
        assert code(await passes(peer, to="sip:carol@c.test")) == 200
        assert code(await passes(peer, to="sip:dave@named.test")) == 403
        assert code(await passes(peer, to="sip:dave@nowhere.test")) == 404
        assert [delivery.operation.max_forwards for delivery in carols.deliveries] == [69]

    @story
    async def test_typing_that_came_over_a_trunk_is_not_stored(self) -> None:
        world = await Joined().start()
        response = await passes(neighbour(world), HOME.replace("alice@a", "bob@b"), HOME, b"x", ("Expires", "0"))
        assert code(response) == 480
        assert not await world.store.lanes()

    @story
    async def test_a_peer_has_a_rate(self) -> None:
        world = await Joined(peer_messages=1.0).start()
        await at_home(world)
        peer = neighbour(world)
        codes = [code(await passes(peer)) for _ in range(6)]
        assert codes == [200] * 4 + [503] * 2

    @story
    async def test_a_recipient_who_is_slow_holds_up_a_peer_once(self) -> None:
        """The messages of one conversation come one after the other: two seconds each would hold up all others."""
        world = await Joined().start()
        device = await at_home(world)
        device.answer = None
        peer = neighbour(world)
        assert await passes(peer) is None
        await world.advance(2.5)
        assert [code(response) for response in peer.responses.values()] == [202]
        for _ in range(3):
            assert code(await passes(peer)) == 202
        await world.advance(31.0)
        assert await passes(peer) is None

    @story
    async def test_what_it_may_say_is_looked_up_once_a_connection(self) -> None:
        world = await Joined().start()
        await at_home(world)
        peer = neighbour(world)
        await passes(peer)
        assert peer.link is not None
        state = world.binding.state_of(peer.link)
        assert state is not None
        assert state.domains == frozenset({"b.test"})
        assert peer.link.is_authenticated


class Outside:
    """A server that takes connections at ``SERVER``."""

    def __init__(self, world: World) -> None:
        self.phone = Phone(world, "server", SERVER)
        world.listening[SERVER] = self.phone

    @property
    def requests(self) -> list[SipRequest]:
        return self.phone.received


async def sends(world: World, to: str = "sip:bob@b.test", *more: tuple[str, str], body: bytes = OBJECT) -> int:
    """Alice sends an object; the answer's code."""
    alice = world.phones.get(ALICE) or Phone(world, "alice", ALICE, "tcp")
    response = await alice.message(to, body, "message/cpim" if body is OBJECT else "text/plain", *more)
    return code(response)


class TestOut:
    @story
    async def test_the_object_leaves_whole_with_one_hop_less(self) -> None:
        world = await Joined().start()
        outside = Outside(world)
        assert await sends(world) == 200
        [request] = outside.requests
        assert request.body == OBJECT
        assert request.content_type == "message/cpim"
        assert request.uri_text == "sip:bob@b.test"
        assert str(request.from_.uri) == "sip:alice@a.test"
        assert request.max_forwards == 69
        [entry] = parse_history(request)
        assert (entry.node, entry.in_protocol, entry.out_protocol) == ("a.test", "sip", "sip")

    @story
    async def test_what_the_next_server_refused_for_a_recipient_it_is_not_offered_again(self) -> None:
        """Issue 7, part 7: the text goes at once, and the sender is told where the object ended; one that needs it whole fails at once."""
        world = await Joined().start()
        outside = Outside(world)
        outside.phone.answers = [415]
        for kinds in (["message/cpim", "text/plain"], ["text/plain"]):
            outside.requests.clear()
            assert await sends(world) == 200
            assert [request.content_type.partition(";")[0] for request in outside.requests] == kinds

    @story
    async def test_what_was_wrapped_here_goes_as_an_object_too(self) -> None:
        """GW-1, GW-3: an object once made stays one."""
        world = await Joined().start()
        outside = Outside(world)
        assert await sends(world, body=b"plain") == 200
        assert CpimMessage.parse(outside.requests[0].body).content == b"plain"

    @story
    async def test_a_server_that_takes_no_objects_gets_the_text(self) -> None:
        world = await Joined().start()
        outside = Outside(world)
        outside.phone.answers = [415, 200]
        assert await sends(world) == 200
        assert [request.content_type for request in outside.requests] == ["message/cpim", "text/plain;charset=utf-8"]
        assert outside.requests[1].body == b"hello"
        outside.phone.answers = [415, 415]
        assert await sends(world, body=b"second") == 415

    @story
    async def test_one_connection_serves_all_messages(self) -> None:
        world = await Joined().start()
        Outside(world)
        for n in range(3):
            assert await sends(world, body=b"%d" % n) == 200
        assert len(world.network.dialled) == 1

    @pytest.mark.parametrize(
        ("answer", "told"), [(404, 404), (480, 480), (403, 403), (408, 480), (413, 413), (482, 482)]
    )
    @story
    async def test_its_word_about_a_message_is_final(self, answer: int, told: int) -> None:
        """T3: the sender gets it natively; nothing is tried again."""
        world = await Joined().start()
        outside = Outside(world)
        outside.phone.answers = [answer]
        assert await sends(world) == told
        await world.advance(10.0)
        assert len(outside.requests) == 1
        assert not await world.store.lanes()

    @pytest.mark.parametrize("answer", [500, 503, 504, 0])
    @story
    async def test_trouble_with_it_is_tried_again_as_the_same_request(self, answer: int) -> None:
        """reliability.md 5.3: identifiers stay, so that a repeat is known as one."""
        world = await Joined().start()
        outside = Outside(world)
        outside.phone.answers = [answer]
        alice = Phone(world, "alice", ALICE)
        await alice.message("sip:bob@b.test", OBJECT, "message/cpim")
        assert len(await world.store.lanes()) == 1
        if not answer:
            assert world.dialled_links[SERVER].is_open
        await world.advance(40.0)
        first, second = outside.requests
        assert (first.call_id, first.from_.tag, str(first.cseq)) == (second.call_id, second.from_.tag, str(second.cseq))
        assert first.body == second.body
        assert not await world.store.lanes()

    @story
    async def test_a_server_that_is_down_gets_it_when_it_is_back(self) -> None:
        world = await Joined().start()
        assert await sends(world) == 202
        outside = Outside(world)
        await world.advance(5.0)
        assert [request.body for request in outside.requests] == [OBJECT]

    @story
    async def test_a_host_by_its_name_is_looked_up(self) -> None:
        world = await Joined().start()
        world.network.names["sip.named.test"] = "198.51.100.9"
        there = Phone(world, "there", ("198.51.100.9", 5070))
        world.listening["198.51.100.9", 5070] = there
        assert await sends(world, "sip:dave@named.test", body=b"x") == 200
        assert len(there.received) == 1
        assert world.network.dialled[0].server_name == "sip.named.test"

    @story
    async def test_what_is_too_large_for_udp_goes_by_tcp(self) -> None:
        """RFC 3428 section 8."""
        world = await Joined().start()
        small = Phone(world, "server", SERVER)
        assert await sends(world, "sip:bob@udp.test", body=b"short") == 200
        assert len(small.received) == 1
        assert not world.network.dialled
        world.listening[SERVER] = small
        assert await sends(world, "sip:bob@udp.test", body=b"long" * 300) == 200
        assert [target.transport for target in world.network.dialled] == ["tcp"]

    @story
    async def test_typing_goes_as_it_is_and_says_that_it_is_worth_nothing_later(self) -> None:
        world = await Joined().start()
        outside = Outside(world)
        thing = MimeObject.of("application/im-iscomposing+xml", b"<isComposing/>")
        source, to = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
        await _submit(world, source, to, thing, Context(transient=True))
        [request] = outside.requests
        assert request.content_type == "application/im-iscomposing+xml"
        assert request.expires == 0

    @story
    async def test_what_requires_tls_does_not_leave_without(self) -> None:
        """T11: the route is in the clear."""
        world = await Joined().start()
        outside = Outside(world)
        source, to = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
        thing = MimeObject.of("message/cpim", OBJECT)
        await _submit(world, source, to, thing, Context(), frozenset({Requirement.TLS}))
        assert not outside.requests


class TestReports:
    async def _passed_on(self, world: World, *more: tuple[str, str]) -> SipRequest:
        """A message of Alice's that b.test accepted and has not delivered."""
        outside = Outside(world)
        outside.phone.answers = [202]
        assert await sends(world, "sip:bob@b.test", *more) == 202
        return outside.requests[0]

    def _about(self, tag: str, reason: str = "signature", more: str = "") -> tuple[str, str]:
        return REPORT, f'{reason};to="im:bob@b.test";text="No.";about="{tag}"{more}'

    @story
    async def test_a_peers_later_word_is_told_to_the_sender_as_ours(self) -> None:
        """GW-12: with the identifier her own protocol gave the message."""
        world = await Joined().start()
        request = await self._passed_on(world)
        device = await at_home(world)
        peer = neighbour(world)
        said = self._about(request.from_.tag)
        for _ in range(2):  # a repeat is told once
            assert code(await passes(peer, "sip:comity@b.test", HOME, b"x", said)) == 200
        [delivery] = device.deliveries
        report = delivery.operation.context.report
        assert report is not None
        assert (report.reason, report.text, report.recipient.uri) == (Reason.SIGNATURE, "No.", "im:bob@b.test")
        assert report.native_id.startswith("call-alice-")
        assert delivery.operation.source.uri == "im:comity@a.test"

    @story
    async def test_nobody_reports_on_messages_that_went_elsewhere(self) -> None:
        world = await Joined().start()
        request = await self._passed_on(world)
        device = await at_home(world)
        listed = Phone(world, "dave", LISTED)
        said = self._about(request.from_.tag)
        assert code(await passes(listed, "sip:comity@listed.test", HOME, b"x", said)) == 481
        assert not device.deliveries

    @story
    async def test_a_report_about_a_message_of_a_server_between_is_told_all_the_same(self) -> None:
        """GW-12: routes back may be shorter than routes there; only a server of the recipient's own domain may say so."""
        world = await Joined().start()
        device = await at_home(world)
        unknown = self._about("a name of another server's")
        assert code(await passes(neighbour(world), "sip:comity@b.test", HOME, b"x", unknown)) == 200
        [delivery] = device.deliveries
        report = delivery.operation.context.report
        assert report is not None
        assert (report.recipient.uri, report.native_id) == ("im:bob@b.test", "")

    @story
    async def test_a_report_that_names_no_message_is_in_nobody_elses_name(self) -> None:
        """A program shows a failure as its recipient's word: of ours, or of a third server's user, no peer can have one."""
        world = await Joined().start()
        device = await at_home(world)
        peer = neighbour(world)
        for about in ("im:carol@a.test", "im:dave@listed.test", "im:bob@b.test"):
            said = REPORT, f'denied;to="{about}";text="Go away."'
            assert code(await passes(peer, "sip:comity@b.test", HOME, about.encode(), said)) == 200
        reports = [delivery.operation.context.report for delivery in device.deliveries]
        assert [report and (report.recipient.uri, report.native_id) for report in reports] == [
            None,
            None,
            ("im:bob@b.test", ""),
        ]

    @story
    async def test_what_is_no_failure_stands_before_no_message(self) -> None:
        """A receipt is only for devices of the protocol that asked: as a message of hers it would wait for ever."""
        world = await Joined().start()
        device = await at_home(world)
        peer = neighbour(world)
        for n in range(70):
            said = REPORT, f'internal;to="im:bob@b.test";text="It was.";fate={"delivered" if n % 2 else "delayed"}'
            assert code(await passes(peer, "sip:comity@b.test", HOME, b"%d" % n, said)) == 200
        assert code(await passes(peer, "sip:bob@b.test", HOME, b"last")) == 200
        assert device.texts[-1] == b"last"
        assert not await world.pipeline._store.lanes()

    @story
    async def test_a_receipt_is_asked_for_and_told(self) -> None:
        """Over a protocol that has no receipts of its own; 202 alone is none."""
        world = await Joined().start()
        outside = Outside(world)
        outside.phone.answers = [202]
        device = await at_home(world, "xmpp")
        source, to = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
        context = Context(wants_receipt="xmpp", native_id="7")
        await _submit(world, source, to, MimeObject.of("message/cpim", OBJECT), context)
        [request] = outside.requests
        assert request.value("comity-wants") == "receipt"
        assert not device.deliveries
        said = self._about(request.from_.tag, "internal", ";fate=delivered")
        assert code(await passes(neighbour(world), "sip:comity@b.test", HOME, b"x", said)) == 200
        report = device.deliveries[0].operation.context.report
        assert report is not None
        assert (report.fate, report.native_id) == (Fate.DELIVERED, "7")

    @story
    async def test_we_tell_a_peer_which_of_its_messages_we_mean(self) -> None:
        world = await Joined().start()
        outside = Outside(world)
        wants = ("Comity-Wants", "receipt")
        assert code(await passes(neighbour(world), "sip:bob@b.test", HOME, b"hi", wants)) == 202
        await at_home(world)
        await world.settle()
        [request] = outside.requests
        assert str(request.from_.uri) == "sip:comity@a.test"
        assert request.value("comity-report") == (
            'internal;to="im:alice@a.test";text="It was delivered.";fate=delivered;form=object;about="t1"'
        )


async def _submit(
    world: World,
    source: Address,
    to: Address,
    thing: MimeObject,
    context: Context,
    requirements: frozenset[Requirement] = frozenset(),
) -> None:
    operation = MessageOperation(source, to, "t", thing, context=context, requirements=requirements)
    await world.pipeline.submit(operation, Origin(source, "xmpp", "", True))
    await world.settle()


@given(st.text(max_size=60))
def test_no_header_of_a_peer_does_harm(text: str) -> None:
    """Whatever stands in it, a report is read or is none."""
    value = text.encode("utf-8", "replace").decode("utf-8")
    for said in (value, f'signature;to="im:bob@b.test";text="No.";about={value}', f"signature;{value}"):
        headers = [("From", "<sip:comity@b.test>;tag=t"), ("Call-ID", "c"), (REPORT, said)]
        request = SipRequest("MESSAGE", "sip:alice@a.test", headers)
        assert isinstance(parse_about(request), str)
        report = parse_report(request)
        assert report is None or report.recipient.domain


@story
async def test_what_is_stored_waits_for_the_start_of_the_binding() -> None:
    """The lanes are taken up before the bindings have a network; nobody is told of a failure."""
    before = await Joined().start()
    assert await sends(before) == 202
    await before.pipeline.stop()
    after = Joined()
    after.store, after.clock = before.store, before.clock
    after.pipeline = Pipeline(
        *(before.store, after.accounts, before.clock, "a.test"), routes=StaticRoutes(Joined.routes)
    )
    outside = Outside(after)
    await after.pipeline.start({"sip": after.binding, "xmpp": after.others})
    await settle()
    await after.binding.start(after.pipeline, after.network)
    after.udp = FakeLink(after, Peer_("udp", NEAR_UDP, ("", 0)), "udp")
    await after.advance(3.0)
    assert [request.body for request in outside.requests] == [OBJECT]

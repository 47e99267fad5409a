"""One request to a next hop: several targets, credentials, who is there, registrations (RFC 3263, 3261, 3608; ADDR-10, S-24, T14)."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from comity.bindings.base import HostPort, Target
from comity.bindings.sip.config import TrunkConfig
from comity.bindings.sip.digest import DigestServer, Verdict, ha1
from comity.bindings.sip.headers import AuthParams
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.settings import SessionSettings
from comity.bindings.sip.signing import MOST_CHALLENGES, Signing
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.service.interfaces import Contact
from comity.service.maps import Rule
from comity.service.peers import KnownPeers, Peer
from comity.service.routes import Route
from comity.testing.service import Device, settle, takes
from tests.bindings.sip.kit import NEAR_TCP, Phone, World, counting, story

ONE, TWO = ("198.51.100.7", 5060), ("198.51.100.8", 5060)
ALICE = ("192.0.2.10", 5060)
HOPS = f"tcp://{ONE[0]}:{ONE[1]} tcp://{TWO[0]}:{TWO[1]}"
WORD = "of all trunks"


class Trunked(World):
    """a.test with pbx.test behind two servers; 1001 there is Alice, and a.test's people are known as x.test's."""

    routes = (Route("pbx.test", "sip", HOPS),)
    peers = (Peer("pbx.test", (ip_network("198.51.100.0/24"),), asserts=True),)

    def __init__(self, **trunk: object) -> None:
        fields: dict[str, object] = {"domain": "pbx.test", "wire": "pbx.test", "next_hop": HOPS}
        super().__init__(trunks=(TrunkConfig(**(fields | trunk)),))  # type: ignore[arg-type]  # the test names fields


class UdpTrunked(Trunked):
    """The same by datagrams."""

    routes = (Route("pbx.test", "sip", f"udp://{ONE[0]}:{ONE[1]}"),)


class Server:
    """A server that takes connections."""

    def __init__(self, world: World, address: HostPort, *answers: int) -> None:
        self.phone = Phone(world, "server", address)
        self.phone.settings = SessionSettings(methods=frozenset({"MESSAGE", "OPTIONS", "REGISTER"}))
        self.phone.answers = list(answers)
        self.world = world
        world.listening[address] = self.phone

    def got(self, method: str) -> list[SipRequest]:
        return [request for request in self.phone.received if request.method == method]


async def sends(world: World, text: bytes = b"x", to: str = "sip:bob@pbx.test") -> int:
    alice = world.phones.get(ALICE) or Phone(world, "alice", ALICE, "tcp")
    response = await alice.message(to, text)
    return 0 if response is None else response.status_code


class TestTargets:
    @story
    async def test_the_next_one_is_tried_when_the_first_cannot_be_reached(self) -> None:
        """ADDR-10, RFC 3263 section 4.3."""
        world = await Trunked().start()
        two = Server(world, TWO)
        assert await sends(world) == 200
        assert len(two.got("MESSAGE")) == 1
        assert [target.host for target in world.network.dialled] == [ONE[0], TWO[0]]
        # It is remembered: the next message does not begin with the dead one.
        assert await sends(world, b"again") == 200
        assert len(world.network.dialled) == 2
        Server(world, ONE)
        await world.advance(31.0)
        assert await sends(world, b"later") == 200
        assert len(two.got("MESSAGE")) == 2

    @story
    async def test_one_that_says_503_or_nothing_is_gone_by(self) -> None:
        world = await Trunked().start()
        one, two = Server(world, ONE, 503, 0), Server(world, TWO)
        one.phone.answer_headers[503] = [("Retry-After", "60")]
        assert await sends(world) == 200
        assert (len(one.got("MESSAGE")), len(two.got("MESSAGE"))) == (1, 1)
        first, second = one.got("MESSAGE")[0], two.got("MESSAGE")[0]
        # The same request (RFC 3263 section 4.3): only Via differs, so that a repeat is known as one.
        assert [item for item in first.headers if item[0] != "Via"] == [i for i in second.headers if i[0] != "Via"]
        await world.advance(40.0)
        assert await sends(world, b"2") == 200
        assert len(one.got("MESSAGE")) == 1
        await world.advance(21.0)
        await sends(world, b"3")
        await world.advance(33.0)
        assert len(one.got("MESSAGE")) == 2
        assert CpimMessage.parse(two.got("MESSAGE")[-1].body).content == b"3"

    @pytest.mark.parametrize("answer", [404, 480, 403, 500])
    @story
    async def test_any_other_answer_is_the_answer(self, answer: int) -> None:
        world = await Trunked().start()
        _, two = Server(world, ONE, answer), Server(world, TWO)
        await sends(world)
        assert not two.got("MESSAGE")

    @story
    async def test_it_waits_when_none_is_there_and_goes_by_the_first_that_is(self) -> None:
        world = await Trunked().start()
        assert await sends(world) == 202
        two = Server(world, TWO)
        await world.advance(5.0)
        assert len(two.got("MESSAGE")) == 1


class TestKeepAlive:
    @story
    async def test_a_dead_trunk_is_known_before_a_message_is_tried(self) -> None:
        """No datagram of it is sent, nor repeated for 32 s; when the trunk is back it goes out, not when its pause is over."""
        hops = f"udp://{ONE[0]}:{ONE[1]}"
        world = await UdpTrunked(keep_alive=10.0, next_hop=hops).start()
        one = Phone(world, "server", ONE)
        one.answers = [0] * 1000
        await world.advance(8.0)
        assert world.binding.exchanges.is_dead(Target("udp", *ONE))
        await sends(world)
        await world.advance(60.0)
        assert [response.status_code for response in world.phones[ALICE].responses.values()][-1] == 202
        assert {request.method for request in one.received} == {"OPTIONS"}
        one.answers.clear()
        await world.advance(12.0)
        [message] = [request for request in one.received if request.method == "MESSAGE"]
        options = one.received[0]
        assert CpimMessage.parse(message.body).content == b"x"
        assert (options.uri_text, str(options.from_.uri)) == ("sip:pbx.test", "sip:comity@a.test")

    @story
    async def test_a_connection_is_tried_all_the_same_since_that_costs_nothing(self) -> None:
        """Two servers of which one starts after the other do not wait for the next look."""
        world = await Trunked(keep_alive=60.0).start()
        await world.advance(1.0)
        assert world.binding.exchanges.is_dead(Target("tcp", *ONE))
        one = Server(world, ONE)
        assert await sends(world) == 200
        assert len(one.got("MESSAGE")) == 1

    @pytest.mark.parametrize(("answer", "is_there"), [(200, True), (404, True), (405, True), (401, True), (503, False)])
    @story
    async def test_any_answer_says_that_it_is_there_but_503(self, answer: int, is_there: bool) -> None:
        world = await Trunked(keep_alive=10.0).start()
        Server(world, ONE, answer)
        await world.advance(1.0)
        assert world.binding.exchanges.is_dead(Target("tcp", *ONE)) is not is_there
        assert world.binding.exchanges.is_dead(Target("tcp", *TWO))

    @story
    async def test_a_peer_that_asks_us_is_answered(self) -> None:
        world = await Trunked().start()
        peer = Phone(world, "server", TWO)
        for uri in ("sip:a.test", "sip:192.0.2.1:5060", "sip:192.0.2.1"):
            id = await peer.send(peer.request("OPTIONS", uri, [("From", "<sip:ping@pbx.test>;tag=1")]))
            assert peer.responses[id].status_code == 200


def challenge(realm: str = "pbx.test", algorithm: str = "MD5", stale: str = "") -> list[tuple[str, str]]:
    value = f'Digest realm="{realm}",nonce="n1",qop="auth",algorithm={algorithm}{stale}'
    return [("WWW-Authenticate", value), ("Proxy-Authenticate", value)]


class TestSigningIn:
    @pytest.mark.parametrize(
        ("code", "algorithm", "header"), [(401, "MD5", "authorization"), (407, "SHA-256", "proxy-authorization")]
    )
    @story
    async def test_its_own_challenge_is_answered_with_the_password(
        self, code: int, algorithm: str, header: str
    ) -> None:
        world = await Trunked(user="trunk", password=WORD).start()
        one = Server(world, ONE, code)
        one.phone.answer_headers[code] = challenge(algorithm=algorithm)
        assert await sends(world) == 200
        first, second = one.got("MESSAGE")
        assert not first.values(header)
        assert (first.cseq.number, second.cseq.number) == (1, 2)
        [given] = [AuthParams.parse(value) for value in second.values(header)]
        check = DigestServer(b"k" * 32)
        verdict = check.check(
            given,
            method="MESSAGE",
            request_uri=second.uri_text,
            body=second.body,
            ha1_values={algorithm: ha1(algorithm, "trunk", "pbx.test", WORD)},
            flow="f",
            now=0.0,
        )
        assert verdict is Verdict.STALE  # the password is right, the nonce none of that server's
        # The next one needs no challenge: the count goes up.
        assert await sends(world, b"2") == 200
        third = one.got("MESSAGE")[-1]
        assert AuthParams.parse(third.value(header) or "").get("nc") == "00000002"

    @pytest.mark.parametrize(
        "headers",
        [
            challenge("elsewhere.test"),
            [("WWW-Authenticate", 'Basic realm="pbx.test"')],
            [("WWW-Authenticate", "Digest realm=")],
            [],
        ],
    )
    @story
    async def test_no_other_challenge_is_answered(self, headers: list[tuple[str, str]]) -> None:
        """S-24, T14: credentials are of one realm; whoever passes on another's challenge gets nothing."""
        world = await Trunked(user="trunk", password=WORD).start()
        one = Server(world, ONE, 401)
        one.phone.answer_headers[401] = headers
        assert await sends(world) == 403
        [request] = one.got("MESSAGE")
        assert not request.values("authorization")

    @story
    async def test_a_password_that_is_refused_is_not_sent_for_ever(self) -> None:
        world = await Trunked(user="trunk", password="wrong").start()
        one = Server(world, ONE, *[401] * 9)
        one.phone.answer_headers[401] = challenge()
        assert await sends(world) == 403
        assert len(one.got("MESSAGE")) == 2

    @story
    async def test_where_no_password_was_given_none_is_asked_for(self) -> None:
        """S-25: and one of another next hop is never tried."""
        world = await Trunked(domain="other.test", user="trunk", password=WORD).start()
        one = Server(world, ONE, 407)
        one.phone.answer_headers[407] = challenge("other.test")
        assert await sends(world) == 403
        assert len(one.got("MESSAGE")) == 1

    @story
    async def test_what_comes_in_is_never_answered_with_credentials(self) -> None:
        """CVE-2021-41158: a challenge that answers no request of ours is dropped."""
        world = await Trunked(user="trunk", password=WORD).start()
        one = Server(world, ONE)
        assert await sends(world) == 200
        unasked = (
            b"SIP/2.0 407 Proxy Authentication Required\r\nVia: SIP/2.0/TCP 192.0.2.1:40001;branch=z9hG4bKforged\r\n"
            b"From: <sip:alice@a.test>;tag=1\r\nTo: <sip:bob@pbx.test>\r\nCall-ID: x\r\nCSeq: 1 MESSAGE\r\n"
            b'Proxy-Authenticate: Digest realm="pbx.test",nonce="n",qop="auth"\r\nContent-Length: 0\r\n\r\n'
        )
        link = world.dialled_links[ONE]
        link.session.receive_data(unasked, world.clock.now())
        link.flush()
        await world.settle()
        assert len(one.got("MESSAGE")) == 1

    def test_what_another_request_overtook_is_no_refusal(self) -> None:
        """32 messages at once: each is challenged, and each goes again."""
        signing = Signing((TrunkConfig("pbx.test", "pbx.test", user="trunk", password=WORD),), counting())
        target = Target("tcp", *ONE)
        request = SipRequest("MESSAGE", "sip:bob@pbx.test", [])
        nonces = []
        for number in range(8):
            header = ("WWW-Authenticate", f'Digest realm="pbx.test",nonce="n{number}",qop="auth"')
            assert signing.can_answer("pbx.test", target, SipResponse(401, "", [header]), "", 0)
            given = signing.authorize("pbx.test", target, request)
            assert given is not None
            nonces.append(given[2])
        assert nonces == [f"n{number}" for number in range(8)]
        # Refused with the present one: it is the password.
        refused = SipResponse(401, "", [("WWW-Authenticate", 'Digest realm="pbx.test",nonce="n9",qop="auth"')])
        assert not signing.can_answer("pbx.test", target, refused, "n7", 1)
        assert not signing.can_answer("pbx.test", target, refused, "", MOST_CHALLENGES)
        stale = SipResponse(401, "", [("WWW-Authenticate", 'Digest realm="pbx.test",nonce="n9",qop="auth",stale=true')])
        assert signing.can_answer("pbx.test", target, stale, "n7", 1)


class TestRegistering:
    @story
    async def test_it_is_renewed_in_time_and_its_route_is_used(self) -> None:
        """RFC 3261 section 10.2, RFC 3608, RFC 3327."""
        world = await Trunked(register=("1001@pbx.test",)).start()
        one = Server(world, ONE)
        one.phone.answer_headers[200] = [
            ("Expires", "600"),
            ("Service-Route", "<sip:edge.pbx.test;lr>, <sip:b.pbx.test;lr>"),
        ]
        await world.advance(1.0)
        [request] = one.got("REGISTER")
        assert request.uri_text == "sip:pbx.test"
        assert (str(request.to.uri), request.value("supported")) == ("sip:1001@pbx.test", "path")
        assert str(request.contacts[0].uri) == f"sip:1001@{NEAR_TCP[0]}:{NEAR_TCP[1]};transport=tcp"
        await world.advance(485.0)
        first, second = one.got("REGISTER")
        assert (first.call_id, first.cseq.number + 1) == (second.call_id, second.cseq.number)
        assert await sends(world) == 200
        assert one.got("MESSAGE")[0].values("route") == ["<sip:edge.pbx.test;lr>", "<sip:b.pbx.test;lr>"]
        world.binding.keeper.stop()
        await world.settle()
        assert one.got("REGISTER")[-1].expires == 0

    @story
    async def test_too_short_is_asked_for_longer_and_failures_ever_more_slowly(self) -> None:
        world = await Trunked(register=("1001@pbx.test",)).start()
        one = Server(world, ONE, 423, 403, 403, 403, 403)
        one.phone.answer_headers[423] = [("Min-Expires", "7200")]
        await world.advance(1.0)
        assert [request.expires for request in one.got("REGISTER")] == [3600, 7200]
        counts = []
        for seconds in (5.0, 10.0, 6.0, 31.0):
            await world.advance(seconds)
            counts.append(len(one.got("REGISTER")))
        assert counts == [3, 3, 4, 5]

    @story
    async def test_a_service_route_that_is_none_is_left_out(self) -> None:
        world = await Trunked(register=("1001@pbx.test",)).start()
        one = Server(world, ONE)
        for value in ("im:a@b.test", "<sip:x", ", ".join(["<sip:a.test;lr>"] * 9)):
            one.phone.answer_headers[200] = [("Expires", "600"), ("Service-Route", value)]
            await world.advance(481.0)
            assert await sends(world, value.encode()) == 200
            assert not one.got("MESSAGE")[-1].values("route")


class Mapped(Trunked):
    """pbx.test is called a.test by its server, our own domain x.test, and Alice 1001."""

    maps = (
        Rule("sip", "pbx.test", "pbx.test", "a.test"),
        Rule("sip", "pbx.test", "a.test", "x.test"),
        Rule("sip", "pbx.test", Address.parse("im:alice@a.test"), Address.parse("im:1001@a.test")),
    )


async def desk(world: World) -> Device:
    address = Address.parse("im:alice@a.test")
    device = Device(Contact("desk", address, "xmpp", "desk"), takes)
    world.others.devices[address.key, "desk"] = device
    await world.pipeline.registrar.register(device.contact, None)
    return device


async def passes(world: World, source: str, to: str, *more: tuple[str, str], body: bytes = b"hi") -> int:
    peer = world.phones.get(TWO) or Phone(world, "server", TWO)
    kind = "message/cpim" if body.startswith(b"From:") else "text/plain"
    headers = [("From", f"<{source}>;tag=t1"), ("Content-Type", kind), *more]
    id = await peer.send(peer.request("MESSAGE", to, headers, body))
    await settle()
    response = peer.responses.get(id)
    return 0 if response is None else response.status_code


class TestNames:
    @story
    async def test_out_everybody_is_called_as_the_link_has_it_and_the_object_is_left_alone(self) -> None:
        """GW-4: the envelope changes; From and To of the object are the sender's."""
        world = await Mapped().start()
        one = Server(world, ONE)
        assert await sends(world, b"hello") == 200
        [request] = one.got("MESSAGE")
        assert (request.uri_text, str(request.to.uri)) == ("sip:bob@a.test", "sip:bob@a.test")
        assert str(request.from_.uri) == "sip:1001@a.test"
        view = CpimMessage.parse(request.body)
        assert view.from_ is not None
        assert (view.from_.uri, view.to[0].uri) == ("im:alice@a.test", "im:bob@pbx.test")

    @story
    async def test_in_its_names_mean_whom_the_link_means(self) -> None:
        world = await Mapped(register=("1001@a.test",)).start()
        Server(world, ONE)
        await world.advance(1.0)
        device = await desk(world)
        assert await passes(world, "sip:bob@a.test", "sip:1001@a.test") == 200
        # The Contact that is registered there means the same person.
        assert await passes(world, "sip:bob@a.test", "sip:1001@192.0.2.1:5061;transport=tcp", body=b"2") == 200
        for delivery in device.deliveries:
            assert delivery.operation.source.uri == "im:bob@pbx.test"
            assert delivery.operation.destination.uri == "im:alice@a.test"
        thing = b"From: <im:bob@a.test>\r\nTo: <im:1001@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\nwhole"
        assert await passes(world, "sip:bob@a.test", "sip:1001@a.test", body=thing) == 200
        assert device.deliveries[-1].operation.object.octets == thing
        forged = thing.replace(b"im:bob@a.test", b"im:eve@a.test")
        assert await passes(world, "sip:bob@a.test", "sip:1001@a.test", body=forged) == 403

    @pytest.mark.parametrize(
        ("source", "to", "code"),
        [
            ("sip:bob@a.test", "sip:alice@x.test", 404),  # she has another name there
            ("sip:bob@a.test", "sip:carol@pbx.test", 404),  # no name of that link's
            ("sip:bob@a.test", "sip:user%25x.test@x.test", 404),  # no source routing
            ("sip:carol@x.test", "sip:1001@a.test", 403),  # ours: nobody speaks for her
            ("sip:eve@elsewhere.test", "sip:1001@a.test", 403),
        ],
    )
    @story
    async def test_who_has_no_name_there_is_nobody(self, source: str, to: str, code: int) -> None:
        """G-13, G8."""
        world = await Mapped().start()
        device = await desk(world)
        assert await passes(world, source, to) == code
        assert not device.deliveries


class TestAssertedIdentity:
    @pytest.mark.parametrize(
        ("identity", "code", "who"),
        [
            ("<sip:dave@pbx.test>", 200, "im:dave@pbx.test"),
            ('"D" <sip:dave@pbx.test>, <tel:+1>', 200, "im:dave@pbx.test"),
            ("<sip:carol@a.test>", 403, ""),  # a user of ours, whoever asserts it
            ("<sip:eve@elsewhere.test>", 403, ""),  # no domain of that server's
            ("<sip:", 403, ""),
        ],
    )
    @story
    async def test_a_server_that_is_believed_says_who_an_anonymous_sender_is(
        self, identity: str, code: int, who: str
    ) -> None:
        """RFC 3325; of its own people alone (G8)."""
        world = await Trunked().start()
        device = await desk(world)
        said = ("P-Asserted-Identity", identity)
        assert await passes(world, "sip:anonymous@anonymous.invalid", "sip:alice@a.test", said) == code
        assert [delivery.operation.source.uri for delivery in device.deliveries] == ([who] if who else [])

    @story
    async def test_of_nobody_else_is_it_read(self) -> None:
        """S-55."""
        world = Trunked()
        world.pipeline.peers = KnownPeers(("a.test",), (Peer("pbx.test", Trunked.peers[0].address),))
        await world.start()
        device = await desk(world)
        said = ("P-Asserted-Identity", "<sip:boss@pbx.test>")
        assert await passes(world, "sip:dave@pbx.test", "sip:alice@a.test", said) == 200
        assert [delivery.operation.source.uri for delivery in device.deliveries] == ["im:dave@pbx.test"]

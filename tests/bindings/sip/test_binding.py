"""binding.py and delivery.py over the real pipeline: registrar, sender binding, answers, devices (RFC 3261, 3428)."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from comity.bindings.sip.binding import SipBinding, parse_listener
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.session import MAX_DATAGRAM_REQUEST
from comity.bindings.sip.wire import parse_datagram
from comity.cpim.address import Address
from comity.cpim.composing import COMPOSING_TYPE, Composing
from comity.cpim.learned import LIFE
from comity.cpim.message import CpimMessage
from comity.cpim.operations import Reason
from comity.errors import ConfigError
from comity.service.interfaces import Contact
from comity.service.pipeline import Pipeline
from comity.testing.service import Device, refuses, takes
from tests.bindings.sip.kit import Phone, World, story

ALICE, BOB, EVE = ("192.0.2.10", 5060), ("192.0.2.20", 5060), ("198.51.100.66", 5060)
CPIM = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n\r\nsigned? no"
)
SIGNED = (
    b"From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
    b'Content-Type: multipart/signed; boundary="b"; micalg=sha-256; protocol="application/pkcs7-signature"\r\n\r\n'
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nthe text\r\n--b\r\n"
    b"Content-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n"
)


async def xmpp_device(world: World, uri: str = "im:bob@a.test", **named: object) -> Device:
    address = Address.parse(uri)
    device = Device(Contact("desk", address, "xmpp", "desk"), **named)  # type: ignore[arg-type]  # passed through
    world.others.devices[address.key, "desk"] = device
    await world.pipeline.registrar.register(device.contact, None)
    return device


def status(response: SipResponse | None) -> int:
    assert response is not None
    return response.status_code


class TestSender:
    @story
    async def test_message_without_credentials_is_challenged_without_state(self) -> None:
        """S-01, S-04."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE)
        request = alice.request("MESSAGE", "sip:bob@a.test", [("Content-Type", "text/plain")], b"hi" * 50)
        response = alice.responses[await alice.send(request)]
        assert response.status_code == 401
        assert [value.get("algorithm") for value in response.credentials("www-authenticate")] == ["SHA-256", "MD5"]
        assert world.udp is not None
        assert not world.udp.session._servers

    @story
    async def test_senders_of_foreign_domains_are_refused(self) -> None:
        """S-02, S-13."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        for sender in ("<sip:x@elsewhere.test>;tag=1", "<tel:911>;tag=1", "<sip:a.test>;tag=1"):
            response = await alice.message("sip:bob@a.test", b"hi", "text/plain", ("From", sender))
            assert status(response) == 403

    @pytest.mark.parametrize("sender", ["bob", "911", "alice%40b.test", "alic"])
    @story
    async def test_authenticated_alice_is_nobody_else(self, sender: str) -> None:
        """S-06, S-12."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "tcp")
        response = await alice.message("sip:bob@a.test", b"hi", "text/plain", ("From", f"<sip:{sender}@a.test>;tag=1"))
        assert status(response) == 403
        assert not device.deliveries

    @story
    async def test_headers_that_claim_an_identity_are_not_believed(self) -> None:
        """S-07, S-55."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "tcp")
        claims = [(f"P-{kind}-Identity", "<sip:bob@a.test>") for kind in ("Asserted", "Preferred")]
        claims += [("Remote-Party-ID", "<sip:bob@a.test>"), ("Identity", "x" * 3000), ("History-Info", "<sip:x@y>")]
        assert status(await alice.message("sip:bob@a.test", b"hi", "text/plain", *claims)) == 200
        (delivery,) = device.deliveries
        assert delivery.operation.source == Address.parse("im:alice@a.test")

    @story
    async def test_wrong_passwords_are_counted_and_the_address_banned(self) -> None:
        world = await World().start()
        eve = Phone(world, "alice", EVE, "tcp", password="guess")
        for _ in range(3):
            eve.digest._challenge = None
            response = await eve.message("sip:bob@a.test")
            assert response is None or response.status_code in (401, 403)
        assert world.guard.is_banned(EVE[0])
        assert world.guard.failures[0] == (EVE[0], Address.parse("im:alice@a.test"))
        other = Phone(world, "alice", (EVE[0], 999), "tcp")
        assert status(await other.message("sip:bob@a.test")) == 403
        silent = Phone(world, "alice", (EVE[0], 998))
        assert await silent.message("sip:bob@a.test") is None

    @story
    async def test_a_connection_with_too_many_wrong_passwords_is_closed(self) -> None:
        world = await World(failures_per_connection=2).start()
        eve = Phone(world, "alice", EVE, "tcp", password="guess")
        for _ in range(2):
            eve.digest._challenge = None
            await eve.message("sip:bob@a.test")
        assert eve.link is not None
        assert not eve.link.is_open

    @story
    async def test_plain_transports_are_for_named_networks_only(self) -> None:
        """reliability.md section 6.1 item 4."""
        world = await World().start()
        assert await Phone(world, "alice", ("203.0.113.5", 5060)).message("sip:bob@a.test") is None
        assert status(await Phone(world, "alice", ("203.0.113.6", 5060), "tcp").message("sip:bob@a.test")) == 403
        await xmpp_device(world, answer=takes)
        assert status(await Phone(world, "alice", ("203.0.113.7", 5060), "tls").message("sip:bob@a.test")) == 200


OUTBOUND_PROXIES = [
    ("127.0.0.1", "<sip:localhost;lr>", 200),
    ("198.51.100.7", "<sip:198.51.100.7;lr>", 200),
    ("198.51.100.7", "<sip:sip.a.test;lr>", 200),
    ("198.51.100.7", "<sip:localhost;lr>", 403),
    ("198.51.100.7", "<sip:198.51.100.8;lr>", 403),
    ("0.0.0.0", "<sip:198.51.100.8;lr>", 200),
    ("0.0.0.0", "<sip:198.51.100.8:9999;lr>", 403),
    ("0.0.0.0", "<sip:evil.test;lr>", 403),
]


class TestMessage:
    @pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
    @story
    async def test_text_is_wrapped_once_and_delivered(self, transport: str) -> None:
        """SIP-1, SIP-2, SIP-3, GW-1."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, transport)  # type: ignore[arg-type]  # one of the three
        response = await alice.message("sip:bob@a.test", "grüß".encode())
        assert response is not None
        assert response.status_code == 200
        assert response.body == b""
        assert response.value("contact") is None
        (delivery,) = device.deliveries
        view = CpimMessage.parse(delivery.operation.object.octets)
        assert view.content == "grüß".encode()
        assert view.content_type == "text/plain; charset=utf-8"
        assert delivery.operation.source.uri == "im:alice@a.test"

    @story
    async def test_an_object_crosses_unchanged(self) -> None:
        """SIP-1, GW-5."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "tcp")
        assert status(await alice.message("sip:bob@a.test", SIGNED, "message/cpim")) == 200
        (delivery,) = device.deliveries
        assert delivery.operation.object.octets == SIGNED
        assert delivery.operation.object.fingerprint == hashlib.sha256(SIGNED).hexdigest()

    @story
    async def test_slow_delivery_is_answered_202_after_two_seconds(self) -> None:
        """SIP-3, OPS-7."""
        world = await World().start()
        device = await xmpp_device(world)
        alice = Phone(world, "alice", ALICE, "tcp")
        await xmpp_device(world, "im:carol@a.test", answer=takes)
        assert status(await alice.message("sip:carol@a.test")) == 200
        header = alice.digest.authorize("MESSAGE", "sip:bob@a.test", b"x")
        assert header is not None
        id = await alice.send(
            alice.request("MESSAGE", "sip:bob@a.test", [("Content-Type", "text/plain"), header], b"x")
        )
        assert id not in alice.responses
        await world.advance(1.75)
        assert id not in alice.responses
        await world.advance(0.5)
        assert alice.responses[id].status_code == 202
        device.take()
        await world.settle()
        assert alice.responses[id].status_code == 202

    @story
    async def test_two_connections_that_count_alike_get_their_answers_each(self) -> None:
        """SIP-3: sessions count their transactions apart, so the same number may be under way on several."""
        world = await World().start()
        device = await xmpp_device(world)
        phones = [Phone(world, "alice", ALICE, "tcp"), Phone(world, "bob", BOB, "tcp")]
        ids = []
        for phone in phones:
            assert status(await phone.message("sip:nobody@a.test")) == 404
            header = phone.digest.authorize("MESSAGE", "sip:bob@a.test", b"x")
            assert header is not None
            headers = [("Content-Type", "text/plain"), header]
            ids.append(await phone.send(phone.request("MESSAGE", "sip:bob@a.test", headers, b"x")))
        for _ in phones:
            device.take()
            await world.settle()
        assert [phone.responses[id].status_code for phone, id in zip(phones, ids, strict=True)] == [200, 200]

    @story
    async def test_answer_in_time_is_200(self) -> None:
        world = await World().start()
        device = await xmpp_device(world)
        alice = Phone(world, "alice", ALICE, "tcp")
        assert await alice.message("sip:bob@a.test") is None
        await world.advance(1.0)
        device.take()
        await world.settle()
        assert [r.status_code for r in alice.responses.values()] == [401, 200]

    @story
    async def test_offline_recipients_message_is_stored_and_202(self) -> None:
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        await alice.message("sip:bob@a.test")
        await world.advance(2.5)
        assert [r.status_code for r in alice.responses.values()] == [401, 202]
        assert [lane.pending for lane in await world.store.lanes()] == [1]

    @pytest.mark.parametrize(
        ("reason", "code"), [(Reason.CONTENT, 415), (Reason.DENIED, 403), (Reason.SIZE, 413), (Reason.HOPS, 483)]
    )
    @story
    async def test_refusals_come_back_by_the_table(self, reason: Reason, code: int) -> None:
        """T1."""
        world = await World().start()
        await xmpp_device(world, answer=refuses(reason))
        assert status(await Phone(world, "alice", ALICE, "tcp").message("sip:bob@a.test")) == code

    @story
    async def test_unknown_users_and_domains_are_404(self) -> None:
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        for uri in ("sip:nobody@a.test", "sip:bob@elsewhere.test", "im:bob@elsewhere.test", "sip:a.test"):
            assert status(await alice.message(uri)) == 404

    @story
    async def test_a_route_that_leads_elsewhere_is_no_relay(self) -> None:
        """S-46."""
        world = await World().start()
        await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "tcp")
        for route, code in (("<sip:evil.test;lr>", 403), ("<sip:a.test;lr>", 200), ("<sip:192.0.2.1:5060;lr>", 200)):
            assert status(await alice.message("sip:bob@a.test", b"hi", "text/plain", ("Route", route))) == code

    @story
    @pytest.mark.parametrize(("near", "route", "code"), OUTBOUND_PROXIES)
    async def test_a_phone_may_call_us_its_outbound_proxy(self, near: str, route: str, code: int) -> None:
        """COMPAT Linphone, baresip: a Route with whatever name or address of ours they were given."""
        world = await World().start()
        await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE)
        assert world.udp is not None
        world.udp.peer = replace(world.udp.peer, local=(near, 5060))
        assert status(await alice.message("sip:bob@a.test", b"hi", "text/plain", ("Route", route))) == code

    @story
    async def test_the_same_message_sent_again_after_a_crash_is_delivered_once(self) -> None:
        """S-35, S-36, OPS-9: new branch, same identifiers; another body is another message."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        same = [("Call-ID", "c"), ("CSeq", "7 MESSAGE")]
        for number in range(3):
            alice = Phone(world, "alice", ("192.0.2.10", 6000 + number), "tcp")
            assert status(await alice.message("sip:bob@a.test", b"once", "text/plain", *same)) == 200
            await world.advance(61.0)
        assert len(device.deliveries) == 1
        assert status(await alice.message("sip:bob@a.test", b"other", "text/plain", *same)) == 200
        assert len(device.deliveries) == 2

    @story
    async def test_a_datagram_sent_again_over_a_restart_is_the_same_message(self) -> None:
        """F-K4 for a stock phone: its retransmission is let through as it is, not challenged into a new CSeq."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "udp")
        assert status(await alice.message("sip:bob@a.test", b"first")) == 200
        header = alice.digest.authorize("MESSAGE", "sip:bob@a.test", b"once")
        assert header is not None
        request = alice.request("MESSAGE", "sip:bob@a.test", [("Content-Type", "text/plain"), header], b"once")
        assert status(alice.responses[await alice.send(request)]) == 200
        world.pipeline = Pipeline(world.store, world.accounts, world.clock, "a.test")
        world.binding = SipBinding(world.config)
        await world.start()
        again = Phone(world, "alice", ALICE, "udp")
        assert status(again.responses[await again.send(request)]) == 200
        assert device.texts == [b"first", b"once"]

    @story
    async def test_pipelined_messages_keep_their_order_whatever_the_look_up_takes(self) -> None:
        """SIP-7, order of acceptance."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        alice = Phone(world, "alice", ALICE, "tcp")
        await alice.message("sip:bob@a.test", b"first")
        world.binding._authentication._credentials.clear()
        for n in range(20):
            body = b"%d" % n
            header = alice.digest.authorize("MESSAGE", "sip:bob@a.test", body)
            assert header is not None
            request = alice.request("MESSAGE", "sip:bob@a.test", [("Content-Type", "text/plain"), header], body)
            await alice.send(request, settle=False)
        await world.settle()
        assert device.texts == [b"first", *[b"%d" % n for n in range(20)]]

    @story
    async def test_draining_refuses_new_requests(self) -> None:
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        await world.binding.drain()
        response = await alice.message("sip:bob@a.test")
        assert status(response) == 503
        assert response is not None
        assert response.value("retry-after") == "5"

    @story
    async def test_options_says_what_we_can(self) -> None:
        """SIP-34, zeromf."""
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        request = alice.request("OPTIONS", "sip:anybody@a.test", [("Max-Forwards", "0")])
        response = alice.responses[await alice.send(request)]
        assert response.status_code == 200
        assert response.value("allow") == "MESSAGE, OPTIONS, REGISTER"
        assert "message/cpim" in response.listed("accept")
        away = alice.responses[await alice.send(alice.request("OPTIONS", "sip:x@elsewhere.test"))]
        assert away.status_code == 404


class TestRegistrar:
    @story
    async def test_registration_lists_every_contact_with_its_time(self) -> None:
        """RFC 3261 section 10.3 step 8; cparam01, cparam02."""
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        response = await bob.register(
            ("Expires", "300"), contact="<sip:bob@192.0.2.20;unknownparam>;unknown;q=0.5, <sip:bob@192.0.2.20:5070>"
        )
        assert response.status_code == 200
        first, second = response.contacts
        assert str(first.uri) == "sip:bob@192.0.2.20;unknownparam"
        assert (first.param("unknown"), first.param("q"), first.param("expires")) == ("", "0.5", "300")
        assert second.param("expires") == "300"
        priorities = [contact.priority for contact in world.pipeline.registrar.contacts(Address.parse("im:bob@a.test"))]
        assert priorities == [50, 0]
        await world.advance(100.0)
        (again, _) = (await bob.register(contact="")).contacts[:2]
        assert again.param("expires") in ("200", "3600")

    @pytest.mark.parametrize(
        ("extra", "code", "expires"),
        [
            ([("Expires", "4294967295")], 200, "3600"),
            ([("Expires", "59")], 423, ""),
            ([("Expires", "-1")], 400, ""),
            ([("Expires", "soon")], 400, ""),
            ([], 200, "3600"),
            ([("Contact", "*")], 400, ""),
            ([("Contact", "*"), ("Expires", "10")], 400, ""),
            ([("Contact", "<sip:bob@192.0.2.20?Route=%3Csip:x%3E>")], 400, ""),
            ([("Contact", "sip:bob@192.0.2.20?Route=%3Csip:x%3E")], 400, ""),
            ([("Contact", "<tel:911>")], 400, ""),
            ([("To", "isbn:2983792873")], 400, ""),
            ([("To", "<sip:alice@a.test>")], 403, ""),
            ([("From", "<sip:alice@a.test>;tag=1")], 403, ""),
            ([("To", "<sip:bob@elsewhere.test>")], 404, ""),
            ([("Contact", ", ".join(f"<sip:bob@192.0.2.20:{port}>" for port in range(5000, 5011)))], 403, ""),
        ],
        ids=str,
    )
    @story
    async def test_requests_are_granted_or_refused(self, extra: list[tuple[str, str]], code: int, expires: str) -> None:
        """S-42, S-43, regbadct, regescrt, unksm2."""
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        response = await bob.register(*extra)
        assert response.status_code == code
        contacts = world.pipeline.registrar.contacts(Address.parse("im:bob@a.test"))
        assert len(contacts) == (1 if code == 200 else 0)
        if code == 423:
            assert response.value("min-expires") == "60"
        if expires:
            assert response.contacts[0].param("expires") == expires

    @story
    async def test_contacts_are_removed_one_by_one_or_all_at_once(self) -> None:
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        await bob.register(contact="<sip:bob@192.0.2.20:1>, <sip:bob@192.0.2.20:2>, <sip:bob@192.0.2.20:3>")
        assert len((await bob.register(contact="<sip:bob@192.0.2.20:2>;expires=0")).contacts) == 2
        assert (await bob.register(("Expires", "0"), contact="*")).contacts == []

    @story
    async def test_old_requests_do_not_undo_newer_ones(self) -> None:
        """RFC 3261 section 10.3 item 7."""
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        assert (await bob.register()).status_code == 200
        assert (await bob.register(("CSeq", "1 REGISTER"), ("Expires", "0"))).status_code == 500
        assert len(world.pipeline.registrar.contacts(Address.parse("im:bob@a.test"))) == 1

    @story
    async def test_registrations_survive_a_restart_of_the_registrar(self) -> None:
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        await bob.register(("Accept", "message/cpim, text/plain"))
        (contact,) = world.pipeline.registrar.contacts(Address.parse("im:bob@a.test"))
        assert contact.is_durable
        assert (await world.store.scan("contact")) != []


class TestPath:
    """RFC 3327: proxies between a phone and us that want to be passed on the way back."""

    @story
    async def test_what_is_for_the_phone_goes_back_through_them(self) -> None:
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        edge = "<sip:token@edge.a.test;lr>", "<sip:inner.a.test;lr>"
        response = await bob.register(("Path", f"{edge[0]}, {edge[1]}"), ("Supported", "path"), ("Require", "path"))
        assert response.status_code == 200
        assert response.values("path") == [*edge]
        alice = Phone(world, "alice", ALICE)
        await alice.message("sip:bob@a.test", b"hi")
        [request] = bob.received
        assert request.values("route") == [*edge]
        assert request.uri_text == bob.uri
        # It goes where the phone's REGISTER came from, whatever the Path names (SSRF).
        assert world.phones[BOB].received

    @pytest.mark.parametrize(
        "path", ["<im:a@b.test>", "<sip:a.test?Route=x>", "<sip:", ", ".join(["<sip:a.test;lr>"] * 9)]
    )
    @story
    async def test_one_that_is_none_is_refused(self, path: str) -> None:
        world = await World().start()
        bob = Phone(world, "bob", BOB)
        assert (await bob.register(("Path", path))).status_code == 400
        assert not world.pipeline.registrar.contacts(Address.parse("im:bob@a.test"))


class TestDevices:
    @story
    async def test_a_connection_on_which_nobody_answers_is_closed(self) -> None:
        """RFC 5626 section 5.3: half open or as good as; the phone that notices opens another, and nothing is lost."""
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tcp"), Phone(world, "bob", BOB, "tcp")
        await bob.register()
        bob.answers = [0]
        assert status(await alice.message("sip:carol@a.test")) in (200, 202)
        header = alice.digest.authorize("MESSAGE", "sip:bob@a.test", b"x")
        assert header is not None
        await alice.send(alice.request("MESSAGE", "sip:bob@a.test", [("Content-Type", "text/plain"), header], b"x"))
        assert bob.link is not None
        await world.advance(31)
        assert bob.link.is_open
        await world.advance(2)
        assert not bob.link.is_open
        again = Phone(world, "bob", ("192.0.2.21", 5060), "tcp")
        await again.register()
        await world.advance(1)
        assert [request.body for request in again.received] == [b"x"]

    @story
    async def test_text_goes_as_text_to_a_stock_phone(self) -> None:
        """GW-2."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        response = await alice.message("sip:bob@a.test", "grüß".encode(), "text/plain", ("Subject", "Hi"))
        assert status(response) == 200
        (request,) = bob.received
        assert request.uri_text == bob.uri
        assert request.body == "grüß".encode()
        assert request.content_type == "text/plain;charset=utf-8"
        assert str(request.from_.uri) == "sip:alice@a.test"
        assert str(request.to.uri) == "sip:bob@a.test"
        assert request.value("subject") == "Hi"
        assert request.value("contact") is None
        assert request.max_forwards == 70

    @story
    async def test_an_object_goes_whole_to_a_phone_that_takes_it(self) -> None:
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register(("Accept", "message/cpim"))
        assert status(await alice.message("sip:bob@a.test", CPIM, "message/cpim")) == 200
        (request,) = bob.received
        assert (request.body, request.content_type) == (CPIM, "message/cpim")
        assert (request.value("comity-history") or "").startswith("a.test;in=sip;out=sip;time=2026-01-01T00:00:00")

    @story
    async def test_nobody_but_the_server_reports(self) -> None:
        """T21, GW-12: a header of the sender's that says a message failed goes no further."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register(("Accept", "message/cpim"))
        forged = ("Comity-Report", 'denied;to="im:carol@a.test";text="never"')
        assert status(await alice.message("sip:bob@a.test", CPIM, "message/cpim", forged)) == 200
        (request,) = bob.received
        assert request.value("comity-report") is None

    @story
    async def test_what_stands_outside_an_object_is_a_copy_and_changes_nothing_inside(self) -> None:
        """SEED-27, T4: Subject, Date and From beside the object come from the envelope; its octets are the sender's."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register(("Accept", "message/cpim"))
        outside = (("Subject", "other than inside"), ("Date", "Thu, 01 Jan 2026 00:00:00 GMT"))
        inside = CPIM.replace(b"\r\n\r\n", b"\r\nSubject: inside\r\n\r\n", 1)
        assert status(await alice.message("sip:bob@a.test", inside, "message/cpim", *outside)) == 200
        (request,) = bob.received
        assert request.body == inside
        assert request.value("subject") == "other than inside"
        assert str(request.from_.uri) == "sip:alice@a.test"
        date = request.value("date") or ""  # when we took it: nobody else's word, and not the object's DateTime
        assert date.endswith(" GMT")
        assert date != outside[1][1]

    @story
    async def test_a_signed_object_is_offered_whole_first_and_then_as_text_with_a_plain_statement(self) -> None:
        """design.md section 2."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        bob.answers = [415]
        assert status(await alice.message("sip:bob@a.test", SIGNED, "message/cpim")) == 200
        whole, text = bob.received
        assert whole.body == SIGNED
        assert text.body.startswith(b"the text\r\n\r\n[This message was signed")
        assert whole.from_.tag != text.from_.tag

    @story
    async def test_what_a_device_refused_it_is_not_offered_again(self) -> None:
        """Issue 7, part 7: by its 415 and its Accept; until it registers from elsewhere, or the refusal is an hour old."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        for number, passed in enumerate((0.0, 1.0, LIFE)):
            world.clock.advance(passed)
            bob.received.clear()
            bob.answers = [] if number == 1 else [415]
            body = SIGNED.replace(b"the text", b"text %d" % number)
            answer = await alice.message("sip:bob@a.test", body, "message/cpim")
            assert status(answer) == 200
            assert answer is not None
            assert answer.value("comity-form") == 'text-of-signed;at="a.test"'
            kinds = [got.content_type.partition(";")[0] for got in bob.received]
            assert kinds == (["text/plain"] if number == 1 else ["message/cpim", "text/plain"])

    @story
    async def test_its_accept_speaks_of_the_types_it_was_not_offered(self) -> None:
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        bob.answers, bob.answer_headers = [415], {415: [("Accept", "text/plain, text/html")]}
        assert status(await alice.message("sip:bob@a.test", b"\x89PNG", "image/png")) == 415
        bob.received.clear()
        assert status(await alice.message("sip:bob@a.test", SIGNED, "message/cpim")) == 200
        assert [got.content_type.partition(";")[0] for got in bob.received] == ["text/plain"]

    @story
    async def test_of_an_object_too_large_for_udp_a_phone_without_tcp_gets_the_text(self) -> None:
        """RFC 3428 section 8; one that takes objects is not content with their text."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        large = SIGNED.replace(b"AAAA", b"A" * 3000)
        await bob.register()
        assert status(await alice.message("sip:bob@a.test", large, "message/cpim")) == 200
        (text,) = bob.received
        assert text.body.startswith(b"the text\r\n\r\n[This message was signed")
        await bob.register(("Accept", "message/cpim"))
        assert status(await alice.message("sip:bob@a.test", large, "message/cpim")) == 413
        assert len(bob.received) == 1

    @story
    async def test_an_encrypted_object_the_phone_refuses_fails(self) -> None:
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        bob.answers = [415]
        kind = "application/pkcs7-mime; smime-type=enveloped-data"
        assert status(await alice.message("sip:bob@a.test", b"\x30\x80", kind)) == 415
        assert len(bob.received) == 1

    @story
    async def test_a_phone_that_refuses_a_typing_state_is_told_no_other(self) -> None:
        """IMDN-14, RFC 3994 section 4: "stop on 415"; texts go on."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        status_body = Composing(True).document()
        assert status(await alice.message("sip:bob@a.test", status_body, COMPOSING_TYPE)) == 200
        bob.answers = [415]
        assert status(await alice.message("sip:bob@a.test", status_body, COMPOSING_TYPE)) == 415
        for _ in range(3):
            assert status(await alice.message("sip:bob@a.test", status_body, COMPOSING_TYPE)) == 415
        assert len(bob.received) == 2
        assert status(await alice.message("sip:bob@a.test", b"hello")) == 200
        assert bob.received[-1].body == b"hello"

    @story
    async def test_silence_is_tried_again_with_the_same_identifiers_and_a_new_branch(self) -> None:
        """reliability.md section 5.3; SIP-7: one at a time."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register(("Expires", "600"))
        bob.answers = [0]
        await alice.message("sip:bob@a.test", b"one")
        await alice.message("sip:bob@a.test", b"two")
        assert [request.body for request in bob.received] == [b"one"]
        await world.advance(36.0)
        first, second, third = bob.received
        assert [request.body for request in bob.received] == [b"one", b"one", b"two"]
        for name in ("call-id", "cseq", "from"):
            assert first.value(name) == second.value(name)
        assert first.via.branch != second.via.branch
        assert third.from_.tag != first.from_.tag

    @story
    async def test_large_requests_never_go_over_udp(self) -> None:
        """SIP-6, S-38: a TCP connection to the device's own address, else failure SIZE."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        assert status(await alice.message("sip:bob@a.test", b"x" * MAX_DATAGRAM_REQUEST)) == 413
        assert world.network.dialled[0].host == BOB[0]
        world.listening[BOB] = bob
        assert status(await alice.message("sip:bob@a.test", b"y" * MAX_DATAGRAM_REQUEST)) == 200
        assert [request.body[:1] for request in bob.received] == [b"y"]

    @story
    async def test_devices_behind_nat_are_reached_where_they_registered_from_and_nowhere_else(self) -> None:
        """The Contact's own host is never dialled (U-*, T-SSRF)."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register(contact="<sip:bob@10.0.0.7:5060>")
        assert status(await alice.message("sip:bob@a.test")) == 200
        assert bob.received[0].uri_text == "sip:bob@10.0.0.7:5060"
        assert status(await alice.message("sip:bob@a.test", b"x" * MAX_DATAGRAM_REQUEST)) == 413
        assert world.network.dialled == []

    @story
    async def test_tcp_devices_are_reached_down_their_connection_and_after_it_only_at_their_own_address(self) -> None:
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB, "tcp"), Phone(world, "alice", ALICE, "tcp")
        await bob.register(contact="<sip:bob@10.0.0.7:5060;transport=tcp>")
        assert status(await alice.message("sip:bob@a.test", b"x" * 5000)) == 200
        assert bob.link is not None
        bob.link.abort()
        await alice.message("sip:bob@a.test", b"later")
        await world.advance(3.0)
        assert world.network.dialled == []
        assert [r.status_code for r in alice.responses.values()][-1] == 202
        again = Phone(world, "bob", ("192.0.2.20", 7000), "tcp")
        await again.register(contact="<sip:bob@10.0.0.7:5060;transport=tcp>")
        again.cseq = 10
        await again.register(contact="<sip:bob@10.0.0.7:5060;transport=tcp>")
        await world.advance(70.0)
        assert [request.body for request in again.received] == [b"later"]

    @story
    async def test_the_next_connection_from_a_devices_port_is_not_the_device(self) -> None:
        """I2: whoever is given the port next, by a NAT or after a restart, gets nothing meant for the former one."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB, "tcp"), Phone(world, "alice", ALICE, "tcp")
        await bob.register(contact="<sip:bob@10.0.0.7:5060;transport=tcp>")
        assert bob.link is not None
        bob.link.abort()
        carol = Phone(world, "carol", BOB, "tcp")
        await carol.register(contact="<sip:carol@10.0.0.7:5060;transport=tcp>")
        await alice.message("sip:bob@a.test", b"for bob alone")
        await world.advance(3.0)
        assert carol.received == []
        assert status(await alice.message("sip:carol@a.test", b"for carol")) == 200
        assert [request.body for request in carol.received] == [b"for carol"]

    @story
    async def test_a_redirect_is_not_followed_and_a_challenge_not_answered(self) -> None:
        """S-24; reliability.md section 6.1 item 8."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        await bob.register()
        bob.answers = [302, 407]
        assert status(await alice.message("sip:bob@a.test")) == 404
        assert status(await alice.message("sip:bob@a.test")) == 403
        assert len(bob.received) == 2
        assert all(request.value("authorization") is None for request in bob.received)

    @story
    async def test_a_lost_message_is_reported_to_a_stock_phone_in_words(self) -> None:
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE)
        await bob.register()
        await alice.register()
        bob.answers = [0]
        await alice.message("sip:bob@a.test", b"one")
        await world.advance(3.0)
        bob.answers = [0] * 10 + [603]
        assert world.udp is not None
        for received in bob.received[:1]:
            via, *_ = received.vias
            headers = [("Via", via), *[(n, received.value(n.lower()) or "") for n in ("From", "To", "Call-ID", "CSeq")]]
            world.udp.session.receive_datagram(SipResponse(603, "No", headers).to_bytes(), BOB, world.clock.now())
            world.udp.flush()
        await world.settle()
        (report,) = alice.received
        assert str(report.from_.uri) == "sip:comity@a.test"
        assert report.body.startswith(b"Your message to bob@a.test was not delivered.")

    @story
    async def test_composing_states_cross_natively_and_are_never_stored(self) -> None:
        """RFC 3994."""
        world = await World().start()
        bob, alice = Phone(world, "bob", BOB), Phone(world, "alice", ALICE, "tcp")
        body, kind = b"<isComposing/>", "application/im-iscomposing+xml"
        await alice.message("sip:bob@a.test", body, kind)
        assert await world.store.lanes() == []
        await bob.register()
        assert status(await alice.message("sip:bob@a.test", body, kind)) == 200
        (request,) = bob.received
        assert (request.content_type, request.body) == (kind, body)


class TestHelpers:
    @pytest.mark.parametrize("url", ["", "http://x:1", "udp://:5060", "udp://h", "udp://h:x", "tcp://h:70000"])
    def test_broken_listeners_are_configuration_errors(self, url: str) -> None:
        with pytest.raises(ConfigError):
            parse_listener(url)

    def test_listeners_are_read(self) -> None:
        listener = parse_listener("tls://[::1]:5061")
        assert (listener.transport, listener.host, listener.port, listener.role) == ("tls", "::1", 5061, "tls")
        assert listener.url == "tls://[::1]:5061"

    @story
    async def test_mpart01_is_carried_byte_for_byte(self) -> None:
        """RFC 4475 section 3.1.1.11, S-47."""
        world = await World().start()
        device = await xmpp_device(world, answer=takes)
        from tests.conformance.test_rfc4475_wire import FOLDER

        unit = parse_datagram((FOLDER / "mpart01.dat").read_bytes())
        assert unit is not None
        assert not isinstance(unit, SipResponse)
        body = getattr(unit, "body", b"")
        alice = Phone(world, "alice", ALICE, "tcp")
        kind = "multipart/mixed;boundary=7a9cbec02ceef655"
        assert status(await alice.message("sip:bob@a.test", body, kind)) == 200
        assert CpimMessage.parse(device.deliveries[0].operation.object.octets).content == body

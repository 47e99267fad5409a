"""What every hop must keep, in SIP: protection.py, forms.py, delivery.py (T11, SEC-30)."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from comity.bindings.sip.forms import Form, choose_form
from comity.bindings.sip.mapping import Refusal, operation_to_request, request_to_operation
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.protection import HEADER, OPTION, protection_headers
from comity.bindings.sip.registration import Device, Flow, Rules, plan_registration
from comity.bindings.sip.settings import SessionSettings
from comity.cpim.address import Address
from comity.cpim.operations import MessageOperation, Reason, Requirement
from comity.testing.service import refuses
from tests.bindings.sip.kit import Phone, World, story
from tests.bindings.sip.test_binding import ALICE, BOB, CPIM, status, xmpp_device
from tests.bindings.sip.test_mapping import WHEN, request

TLS, SIGNED, ENCRYPTED = Requirement.TLS, Requirement.SIGNED, Requirement.ENCRYPTED
SIGNED_OBJECT = (
    b"--b\r\nContent-Type: message/cpim\r\n\r\nFrom: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\n"
    b"DateTime: 2026-01-01T00:00:00Z\r\n\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nthe text\r\n--b\r\n"
    b"Content-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n"
)
SIGNED_TYPE = 'multipart/signed; boundary="b"; micalg=sha-256; protocol="application/pkcs7-signature"'


def required(*extra: tuple[str, str], uri: str = "") -> MessageOperation | Refusal:
    return request_to_operation(request(b"hi", "text/plain", *extra, uri=uri), when=WHEN, message_id="m")


class TestHeaders:
    def test_requirements_are_read_and_written(self) -> None:
        made = required(("Require", OPTION), ("Proxy-Require", OPTION), (HEADER, "tls, SIGNED"))
        assert isinstance(made, MessageOperation)
        assert made.requirements == {TLS, SIGNED}
        out = operation_to_request(made, Form.TEXT, target="sip:x@h", tag="t", call_id="c", accepted=WHEN)
        assert out is not None
        assert (out.value("require"), out.value("proxy-require")) == (OPTION, OPTION)
        assert out.value(HEADER.lower()) == "signed, tls"
        again = request_to_operation(
            SipRequest("MESSAGE", "sip:bob@b.test", [("Via", "SIP/2.0/TCP h;branch=z9hG4bKx"), *out.headers], out.body),
            when=WHEN,
            message_id="m",
        )
        assert isinstance(again, MessageOperation)
        assert again.requirements == made.requirements

    def test_a_message_that_requires_nothing_says_nothing(self) -> None:
        made = required()
        assert isinstance(made, MessageOperation)
        assert made.requirements == set()
        assert protection_headers((), is_last_hop=False) == []

    def test_the_header_counts_without_the_option_tag(self) -> None:
        made = required((HEADER, "tls"))
        assert isinstance(made, MessageOperation)
        assert made.requirements == {TLS}

    @pytest.mark.parametrize(
        ("extra", "code"),
        [
            ([("Require", OPTION), (HEADER, "tls, quantum")], 403),
            ([(HEADER, "tls;really=1")], 403),
            ([("Require", OPTION)], 400),
            ([("Proxy-Require", OPTION), (HEADER, " ,")], 400),
        ],
    )
    def test_what_cannot_be_kept_is_refused(self, extra: list[tuple[str, str]], code: int) -> None:
        made = required(*extra)
        assert isinstance(made, Refusal)
        assert made.status_code == code

    @pytest.mark.parametrize(
        ("uri", "to"), [("sips:bob@b.test", "<sip:bob@b.test>"), ("sip:bob@b.test", "<sips:bob@b.test>")]
    )
    def test_a_sips_uri_means_tls_to_the_end(self, uri: str, to: str) -> None:
        """RFC 7247 section 8, SEC-30: in the Request-URI or in To."""
        base = request(uri=uri)
        headers = [(name, to if name == "To" else value) for name, value in base.headers]
        made = request_to_operation(SipRequest("MESSAGE", uri, headers, b"hi"), when=WHEN, message_id="m")
        assert isinstance(made, MessageOperation)
        assert made.requirements == {TLS}


@pytest.mark.parametrize("vias", [1, 2])
def test_a_register_through_another_hop_is_not_direct(vias: int) -> None:
    via = [("Via", f"SIP/2.0/TLS h{n};branch=z9hG4bK{n}") for n in range(vias)]
    headers = [("From", "<sip:bob@a.test>;tag=1"), ("To", "<sip:bob@a.test>"), ("Call-ID", "r"), ("CSeq", "1 REGISTER")]
    asked = SipRequest("REGISTER", "sip:a.test", [*via, *headers, ("Contact", "<sip:bob@192.0.2.20>")], b"")
    plan = plan_registration(asked, [], Flow("tls", BOB, ALICE), Rules(), now=0.0)
    ((device, _),) = plan.keep
    assert device.is_direct is (vias == 1)
    assert Device.decode(device.encode()) == device


def test_a_device_registered_before_this_was_asked_is_not_called_direct() -> None:
    old = Device("sip:bob@192.0.2.20", (), "", "tls", BOB, ALICE, "r", 1, 1.0, False)
    fields = json.loads(old.encode())
    del fields["is_direct"]
    assert not Device.decode(json.dumps(fields).encode()).is_direct


def test_nothing_but_the_object_is_chosen_for_what_must_stay_signed() -> None:
    """GW-2's readable part is a downgrade here."""
    made = request_to_operation(request(SIGNED_OBJECT, SIGNED_TYPE), when=WHEN, message_id="m")
    assert isinstance(made, MessageOperation)
    assert choose_form(made, takes_cpim=False, only_text=True) is Form.READABLE
    must = replace(made, requirements=frozenset({SIGNED}))
    assert choose_form(must, takes_cpim=False, only_text=True) is None
    assert choose_form(must, takes_cpim=False) is Form.OBJECT
    assert choose_form(must, takes_cpim=True) is Form.OBJECT


def needing(*words: str) -> list[tuple[str, str]]:
    return [("Require", OPTION), (HEADER, ", ".join(words))]


class TestServer:
    @story
    async def test_an_unknown_requirement_stores_nothing(self) -> None:
        world = await World().start()
        device = await xmpp_device(world)
        alice = Phone(world, "alice", ALICE, "tls")
        response = await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("quantum"))
        assert status(response) == 403
        assert not device.deliveries
        assert not await world.store.lanes()

    @pytest.mark.parametrize("uri", ["sip:bob@a.test", "sips:bob@a.test"])
    @story
    async def test_tls_required_over_an_open_link_is_refused_with_a_sentence(self, uri: str) -> None:
        """SEC-30: 403, nothing sent."""
        world = await World().start()
        device = await xmpp_device(world)
        alice = Phone(world, "alice", ALICE, "tcp")
        extra = needing("tls") if uri.startswith("sip:") else []
        response = await alice.message(uri, CPIM, "message/cpim", *extra)
        assert status(response) == 403
        assert response is not None
        assert response.reason == "Protection Not Available"
        assert "did not come under TLS" in (response.value("warning") or "")
        assert not device.deliveries

    @pytest.mark.parametrize(
        ("hop", "is_kept"), [("TLS", True), ("tls", True), ("WSS", True), ("UDP", False), ("TCP", False), ("?", False)]
    )
    @story
    async def test_a_hop_before_us_that_was_not_under_tls_counts(self, hop: str, is_kept: bool) -> None:
        """SEC-30: the sender's phone spoke to a proxy, and the proxy to us under TLS; its Via says how it was reached."""
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tls"), Phone(world, "bob", BOB, "tls")
        await bob.register()
        via = ("Via", f"SIP/2.0/{hop} 192.0.2.99;branch=z9hG4bKphone")
        assert status(await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))) == 200
        await alice.message("sip:bob@a.test", CPIM, "message/cpim", via, *needing("tls"))
        assert len(bob.received) == 1 + is_kept

    @story
    async def test_a_stock_phone_under_tls_gets_it_and_is_asked_for_nothing(self) -> None:
        """SEC-38: whoever knows no such option tag is not made to answer 420."""
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tls"), Phone(world, "bob", BOB, "tls")
        await bob.register()
        assert status(await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))) == 200
        (got,) = bob.received
        assert got.body == b"signed? no"
        assert (got.value("require"), got.value("proxy-require"), got.value(HEADER.lower())) == (None, None, "tls")

    @story
    async def test_behind_another_hop_it_is_demanded_of_that_hop(self) -> None:
        """A device that did not register directly: what stands between must know what it carries."""
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tls"), Phone(world, "bob", BOB, "tls")
        await bob.register()
        registrar = world.pipeline.registrar
        (contact,) = registrar.contacts(Address.parse("im:bob@a.test"))
        device = Device.decode(contact.data)
        assert device.is_direct
        await registrar.register(replace(contact, data=replace(device, is_direct=False).encode()), 600.0)
        response = await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))
        assert status(response) == 403  # the phone's own stack said 420
        assert "does not know what the message requires" in ((response and response.value("warning")) or "")
        assert not bob.received
        bob.session.settings = SessionSettings(extensions=frozenset({OPTION}))
        assert status(await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))) == 200
        (got,) = bob.received
        assert (got.value("require"), got.value("proxy-require")) == (OPTION, OPTION)

    @pytest.mark.parametrize("transport", ["udp", "tcp"])
    @story
    async def test_a_device_over_an_open_link_gets_nothing(self, transport: str) -> None:
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tls"), Phone(world, "bob", BOB, transport)  # type: ignore[arg-type]  # a Transport by name
        await bob.register()
        response = await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))
        assert status(response) == 403
        assert "not connected under TLS" in ((response and response.value("warning")) or "")
        assert not bob.received

    @story
    async def test_a_tls_contact_is_never_dialled_without_tls(self) -> None:
        """Its connection is gone; what the server opens instead is TLS or nothing."""
        world = await World().start()
        bob = Phone(world, "bob", BOB, "tls")
        await bob.register()
        assert bob.link is not None
        bob.link.abort()
        alice = Phone(world, "alice", ALICE, "tls")
        await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing("tls"))
        assert {target.transport for target in world.network.dialled} == {"tls"}

    @pytest.mark.parametrize("answer", [406, 415, 420, 488])
    @story
    async def test_a_device_that_takes_no_object_does_not_get_its_text(self, answer: int) -> None:
        """Without the requirement it does (GW-2); with it the message fails."""
        world = await World().start()
        alice, bob = Phone(world, "alice", ALICE, "tcp"), Phone(world, "bob", BOB, "tcp")
        await bob.register()
        bob.answers = [answer]
        assert status(await alice.message("sip:bob@a.test", SIGNED_OBJECT, SIGNED_TYPE)) == 200
        assert [got.content_type.partition(";")[0] for got in bob.received] == ["multipart/signed", "text/plain"]
        bob.received.clear()
        bob.answers = [answer]
        response = await alice.message("sip:bob@a.test", SIGNED_OBJECT + b" ", SIGNED_TYPE, *needing("signed"))
        assert status(response) == 403
        # What it said of the type it is not asked again; 420 spoke of what the message before required.
        tried = [got.content_type.partition(";")[0] for got in bob.received]
        assert tried == (["multipart/signed"] if answer == 420 else [])

    @story
    async def test_unsigned_with_signed_required_is_refused(self) -> None:
        world = await World().start()
        device = await xmpp_device(world)
        alice = Phone(world, "alice", ALICE, "tcp")
        for word in ("signed", "encrypted"):
            response = await alice.message("sip:bob@a.test", CPIM, "message/cpim", *needing(word))
            assert status(response) == 403
            assert f"must be {word}" in ((response and response.value("warning")) or "")
        assert not device.deliveries

    @story
    async def test_what_the_other_side_cannot_keep_is_said_natively(self) -> None:
        world = await World().start()
        await xmpp_device(world, answer=refuses(Reason.PROTECTION))
        alice = Phone(world, "alice", ALICE, "tcp")
        response = await alice.message("sip:bob@a.test", SIGNED_OBJECT, SIGNED_TYPE, *needing("signed"))
        assert status(response) == 403
        assert response is not None
        assert response.reason == "Protection Not Available"

    @story
    async def test_options_say_that_it_is_known(self) -> None:
        world = await World().start()
        alice = Phone(world, "alice", ALICE, "tcp")
        response = await alice.ask(alice.request("OPTIONS", "sip:a.test"))
        assert response is not None
        assert OPTION in response.listed("supported")

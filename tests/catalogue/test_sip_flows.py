"""SIP connections that live long: flows, keepalives, NAT, several devices (RFC 3581, 5626, 5627), on a running server."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import sip_status
from tests.catalogue.sip_agent import CRLF, WIRES, Agent, Wire, header

RATES = "user_messages = 100000\nuser_message_burst = 100000\nudp_requests = 100000\nconnections_per_address = 1000"
INSTANCE = '+sip.instance="<urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6>"'
BINDING_REQUEST = bytes.fromhex("000100002112a442b7e7a701bc34d686fa87dfae")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server and people with phones, one for each test, so that no registration is left over."""
    people = ("carol", "dora", "erin", "fred", "gina", "hugo", "iris")
    target = Target(tmp_path_factory.mktemp("flows"), RATES, people)
    yield target
    target.check_canary()
    target.close()


@pytest.mark.parametrize(("wire", "user"), [("udp", "carol"), ("tcp", "dora")])
def test_a_phone_behind_a_nat_is_reached_by_its_flow(wire: Wire, user: str, target: Target) -> None:
    """RFC 3581, RFC 5626: whatever private address Contact and Via name."""
    via = f"Via: SIP/2.0/{wire.upper()} 10.0.0.5:5060;branch=z9hG4bKnat;rport"
    with target.row(f"NAT {wire}", stores=True), Agent(target, wire, user) as phone, Agent(target, "tcp") as agent:
        line = "Contact: <sip:phone@10.0.0.5:5060>"
        request = phone.build("REGISTER", "sip:a.test", line, to=f"To: <{phone.aor}>", via=via)
        answer = phone.ask(phone.sign(request))
        assert sip_status(answer) == 200
        assert f"rport={phone.port}" in header(answer, "Via", "v")
        assert f"received={phone.address}" in header(answer, "Via", "v")
        for text in ("one", "two"):
            agent.send(agent.sign(agent.message(text, to=phone.aor)))
            delivered = phone.hear()
            assert delivered.startswith(b"MESSAGE sip:phone@10.0.0.5:5060 SIP/2.0\r\n")
            assert delivered.endswith(CRLF * 2 + text.encode())
            phone.reply(delivered)
            assert sip_status(agent.hear()) == 200
        phone.register("Expires: 0", contact="<sip:phone@10.0.0.5:5060>")


@pytest.mark.parametrize("wire", WIRES)
def test_a_flow_is_granted_in_the_words_of_rfc_5626(wire: Wire, target: Target) -> None:
    """Section 6: Require: outbound in the 200; asked for by Supported, an instance and a reg-id."""
    with target.row(f"outbound {wire}"), Agent(target, wire) as agent:
        contact = f"{agent.contact};{INSTANCE};reg-id=1"
        answer = agent.register("Supported: path, outbound", contact=contact)
        assert header(answer, "Require") == "outbound"
        assert INSTANCE in header(answer, "Contact")
        assert ";reg-id=1" in header(answer, "Contact")
        for supported, other in (
            ("path", contact),
            ("outbound", agent.contact),
            ("outbound", f"{agent.contact};reg-id=1"),
        ):
            assert header(agent.register(f"Supported: {supported}", contact=other), "Require") == ""
        agent.register("Expires: 0", contact="*")


@pytest.mark.parametrize(
    ("id", "contact", "status"),
    [
        ("reg-id 0", f"<sip:a@127.0.0.1>;{INSTANCE};reg-id=0", 400),
        ("reg-id in words", f"<sip:a@127.0.0.1>;{INSTANCE};reg-id=one", 400),
        ("reg-id 2**31", f"<sip:a@127.0.0.1>;{INSTANCE};reg-id=2147483648", 400),
        ("two contacts", f"<sip:a@127.0.0.1>;{INSTANCE};reg-id=1, <sip:b@127.0.0.1>", 400),
    ],
)
def test_flows_that_are_none(id: str, contact: str, status: int, target: Target) -> None:
    with target.row(id), Agent(target, "tcp") as agent:
        request = agent.build(
            "REGISTER", "sip:a.test", f"Contact: {contact}", "Supported: outbound", to=f"To: <{agent.aor}>"
        )
        assert sip_status(agent.ask(agent.sign(request))) == status


def test_a_flow_through_another_hop_is_not_the_phones(target: Target) -> None:
    """RFC 5626 section 6: 439."""
    with target.row("439"), Agent(target, "tcp") as agent:
        request = agent.build(
            "REGISTER",
            "sip:a.test",
            "Via: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bKfirst",
            f"Contact: {agent.contact};{INSTANCE};reg-id=1",
            "Supported: outbound",
            to=f"To: <{agent.aor}>",
        )
        assert sip_status(agent.ask(agent.sign(request))) == 439


def test_the_last_flow_of_an_instance_is_used(target: Target) -> None:
    """A new connection of the same device takes the place of the old one, which may be dead without anybody knowing."""
    with (
        target.row("new flow", stores=True),
        Agent(target, "tcp", "erin") as old,
        Agent(target, "tcp", "erin") as new,
        Agent(target, "tcp") as agent,
    ):
        for reg_id, phone in enumerate((old, new), 1):
            contact = f"{phone.contact};{INSTANCE};reg-id={reg_id}"
            answer = phone.register("Supported: outbound", contact=contact)
        assert answer.count(b"\r\nContact:") == 1
        agent.send(agent.sign(agent.message("to the new one", to="sip:erin@a.test")))
        delivered = new.hear()
        new.reply(delivered)
        assert sip_status(agent.hear()) == 200
        assert old.rest() == []
        new.register("Expires: 0", contact="*")


def test_a_lost_flow_keeps_the_message_for_the_next(target: Target) -> None:
    """RFC 5626: no connection is opened to a private address; the phone's next registration gets it."""
    contact = f"<sip:fred@10.0.0.6;transport=tcp>;{INSTANCE};reg-id=1"
    with target.row("lost flow", stores=True), Agent(target, "tcp") as agent:
        with Agent(target, "tcp", "fred") as phone:
            phone.register("Supported: outbound", contact=contact)
        answer = agent.ask(agent.sign(agent.message("while away", to="sip:fred@a.test")))
        assert sip_status(answer) == 202
        with Agent(target, "tcp", "fred") as phone:
            request = phone.build(
                "REGISTER", "sip:a.test", f"Contact: {contact}", "Supported: outbound", to=f"To: <{phone.aor}>"
            )
            phone.send(phone.sign(request))
            heard = [phone.hear() for _ in range(2)]
            delivered = next(one for one in heard if one.startswith(b"MESSAGE"))
            assert delivered.endswith(b"while away")
            phone.reply(delivered)
            phone.register("Expires: 0", contact="*")


def test_keepalives_are_answered_on_a_registered_flow(target: Target) -> None:
    """RFC 5626 section 4.4: CRLF on a stream, STUN over UDP with the address it came from; a stranger's is dropped."""
    with target.row("keepalives"), Agent(target, "tcp") as stream, Agent(target, "udp") as phone:
        stream.register()
        stream.send(CRLF * 2)
        assert stream.stream.until(rb"\r\n") == CRLF
        stream.register("Expires: 0", contact="*")
        phone.send(BINDING_REQUEST)
        phone.send(CRLF * 2)
        phone.send(b"\x00")
        assert phone.rest() == []
        phone.register()
        answer = phone.ask(BINDING_REQUEST)
        assert answer[:2] == b"\x01\x01"
        assert answer[8:20] == BINDING_REQUEST[8:]
        assert int.from_bytes(answer[26:28], "big") ^ 0x2112 == phone.port
        phone.register("Expires: 0", contact="*")


def test_several_devices_give_one_answer(target: Target) -> None:
    """SIP-4, OPS-1: the sender hears one final response however many phones there are, and what q says is kept."""
    with (
        target.row("devices", stores=True),
        Agent(target, "tcp", "gina") as desk,
        Agent(target, "udp", "gina") as pocket,
        Agent(target, "tcp") as agent,
    ):
        desk.register(contact=f"{desk.contact};q=0.3")
        answer = pocket.register(contact=f"{pocket.contact};q=0.9")
        assert re.findall(rb"q=(0\.\d)", answer) == [b"0.9", b"0.3"]
        agent.send(agent.sign(agent.message("for all of you", to="sip:gina@a.test")))
        for phone in (pocket, desk):
            delivered = phone.hear()
            assert delivered.endswith(b"for all of you")
            phone.reply(delivered)
        assert sip_status(agent.hear()) == 200
        assert agent.rest() == []
        desk.register("Expires: 0", contact="*")


def test_an_address_of_one_device_without_such_a_device(target: Target, bob: Inbox) -> None:
    """GRUU is not granted (no gruu in Supported); a gr that names no device of ours reaches the user (ADDR-24)."""
    with target.row("gruu", stores=True), Agent(target, "tcp") as agent:
        answer = agent.register("Supported: gruu", contact=f"{agent.contact};{INSTANCE}")
        assert b"gruu" not in answer
        assert sip_status(agent.ask(agent.sign(agent.message("by gr", to="sip:bob@a.test;gr=urn:uuid:none")))) == 200
        bob.expect("by gr")
        agent.register("Expires: 0", contact="*")


def test_what_the_server_supports_is_said(target: Target) -> None:
    with target.row("OPTIONS"), Agent(target, "tcp") as agent:
        answer = agent.ask(agent.build("OPTIONS", "sip:a.test"))
        assert (sip_status(answer), header(answer, "Supported")) == (200, "outbound, path, comity-protection")
        assert sip_status(agent.ask(agent.build("OPTIONS", "sip:a.test", "Require: outbound"))) == 200
        assert sip_status(agent.ask(agent.build("OPTIONS", "sip:a.test", "Require: gruu"))) == 420

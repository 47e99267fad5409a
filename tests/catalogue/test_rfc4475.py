"""The 49 messages of RFC 4475, over UDP and TCP, to a running server (reliability.md section 2.4).

The octets are ``tests/conformance/rfc4475/NAME.dat``. Right before each, in the same segment or just ahead of it, a
legitimate message goes by the same socket and has to arrive. The server serves the domains the messages are for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import RawSipTcp, sip_status
from tests.catalogue.sip_agent import CRLF, WIRES, Agent, Wire, header

FOLDER = Path(__file__).parent.parent / "conformance" / "rfc4475"
DOMAINS = ("a.test", "example.com", "example.org", "example.net", "chair-dnrc.example.com", "company.com")
PEOPLE = ("user@example.com", "kumiko@example.org", "watson@example.com", "fluffy@example.com")
RATES = "user_messages = 100000\nuser_message_burst = 100000\nudp_requests = 100000\nfailures_per_address = 100000"

WATSON = "From: <sip:watson@example.com>;tag=w", "To: <sip:watson@example.com>"

#: Status code to messages, as reliability.md section 2.4 states it.
EXPECTED: dict[int, str] = {
    405: "wsinv esc01 longreq baddate invut sdp01 inv2543",
    501: "intmeth esc02",
    # regescrt: with credentials 400, see below.
    401: "escnull dblreq regaut01 cparam01 cparam02 regescrt mpart01",
    404: "semiuri",
    200: "lwsdisp transports zeromf",
    400: "badinv01 clerr ncl scalar02 quotbal ltgtruri lwsruri lwsstart trws escruri regbadct badaspec baddn mismatch01 mismatch02"
    " badbranch insuf unksm2 multi01 mcl01",
    505: "badvers",
    416: "unkscm novelsc",
    420: "bext01",
    0: "unreason noreason scalarlg bigcode bcast",
}
STATUS = {name: code for code, names in EXPECTED.items() for name in names.split()}
#: Over TCP the end of these is not known, so the connection is closed after the answer.
UNFRAMED = {"ncl", "mcl01", "inv2543"}
#: Over TCP: the rest of it is waited for, at most 32 s, then the connection is closed without a word.
PARTIAL = "clerr"


def octets(name: str, wire: Wire) -> bytes:
    """The message; over TCP without what is no part of it."""
    data = (FOLDER / f"{name}.dat").read_bytes()
    if name == "baddn" and wire == "tcp":
        return data + CRLF  # the file ends before the empty line
    if name == "dblreq" and wire == "tcp":
        return data[: data.rindex(CRLF * 2, 0, -4) + 4 + 150]  # its Content-Length ends here
    return data


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server of the domains in the messages, with rates for a catalogue sent in a minute."""
    target = Target(tmp_path_factory.mktemp("rfc4475"), RATES, PEOPLE, DOMAINS)
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module", autouse=True)
def partial_message(target: Target) -> Iterator[None]:
    """clerr over TCP: a connection waits for the rest while the other tests run."""
    waiting = RawSipTcp(target)
    waiting.send(octets(PARTIAL, "tcp"))
    yield
    waiting.sock.settimeout(40)
    assert waiting.until_closed() == b""
    waiting.close()


def test_every_message_has_an_expectation() -> None:
    assert len(STATUS) == 49
    assert {path.stem for path in FOLDER.glob("*.dat")} - {"test"} == set(STATUS)


def wanted(name: str, wire: Wire) -> list[int]:
    """Status codes of the answers, sorted; the second request of dblreq is one over TCP only."""
    codes = [STATUS[name], 405 if name == "dblreq" and wire == "tcp" else 0]
    return sorted(code for code in codes if code)


def statuses(answers: list[bytes]) -> list[int]:
    return sorted(sip_status(answer) for answer in answers)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", sorted(STATUS))
def test_message_is_answered_as_stated(name: str, wire: Wire, target: Target, bob: Inbox) -> None:
    """SIP-10, reliability.md section 2.4."""
    if (name, wire) == (PARTIAL, "tcp"):
        return  # see partial_message
    with target.row(f"{name} {wire}", stores=True), Agent(target, wire) as agent:
        before = agent.sign(agent.message(f"right before {name} {wire}"))
        agent.send(before)
        agent.send(octets(name, wire))
        if name in UNFRAMED and wire == "tcp":
            # What came before is carried; its answer may find the connection closed.
            assert b"SIP/2.0 400 " in agent.stream.until_closed()
        else:
            expected = wanted(name, wire)
            assert statuses([agent.hear() for _ in range(1 + len(expected))]) == sorted([200, *expected])
            assert agent.rest() == []
        bob.expect(f"right before {name} {wire}")


FRAMED = sorted(set(STATUS) - UNFRAMED - {PARTIAL})


@pytest.mark.parametrize("name", FRAMED)
def test_message_in_single_octets_is_answered_the_same(name: str, target: Target) -> None:
    with target.row(f"{name} octets"), Agent(target, "tcp") as agent:
        agent.stream.send_pieces(octets(name, "tcp"))
        assert statuses(agent.rest()) == wanted(name, "tcp")


@pytest.mark.parametrize("name", FRAMED)
def test_message_split_anywhere_is_answered_the_same(name: str, target: Target) -> None:
    """At most 512 places each, on one connection: what is left of one message would spoil the next."""
    data, expected = octets(name, "tcp"), wanted(name, "tcp")
    with target.row(f"{name} split"), Agent(target, "tcp") as agent:
        for place in range(1, min(len(data), 513)):
            agent.send(data[:place])
            agent.send(data[place:])
            assert statuses([agent.hear() for _ in expected]) == expected, place
        assert agent.rest() == []


def test_the_unusual_method_is_echoed_exactly(target: Target) -> None:
    """intmeth: 501 with the CSeq and the display name as they stood."""
    with target.row("intmeth"), Agent(target, "tcp") as agent:
        agent.send(octets("intmeth", "tcp"))
        answer = agent.hear()
        assert header(answer, "CSeq") == "139122385 !interesting-Method0123456789_*+`.%indeed'~"
        assert b'To: "BEL:\\\x07 NUL:\\\x00 DEL:\\\x7f" <sip:1_unusual.URI~' in answer


def test_unknown_extensions_are_named(target: Target) -> None:
    """bext01."""
    with target.row("bext01"), Agent(target, "tcp") as agent:
        answer = agent.ask(octets("bext01", "tcp"))
        unsupported = header(answer, "Unsupported").split(", ")
        assert unsupported[:2] == ["nothingSupportsThis", "nothingSupportsThisEither"]


def test_refused_methods_say_what_is_allowed(target: Target) -> None:
    """405 and 501 carry Allow (RFC 3261 section 8.2.1), over UDP too."""
    for wire in WIRES:
        with target.row(f"Allow {wire}"), Agent(target, wire) as agent:
            for name in ("wsinv", "esc02"):
                assert "MESSAGE" in header(agent.ask(octets(name, wire)), "Allow")


def test_an_escaped_route_in_a_contact_is_refused(target: Target) -> None:
    """regescrt with credentials: 400, since a stored "?Route=" would be an injection; nothing is registered."""
    with target.row("regescrt"), Agent(target, "tcp", "watson") as agent:
        data = octets("regescrt", "tcp").replace(b"user@example.com;tag", b"watson@example.com;tag")
        data = data.replace(b"To: sip:user@example.com\r\n", b"To: sip:watson@example.com\r\n")
        answer = agent.ask(_signed(agent, data))
        assert sip_status(answer) == 400
        query = agent.build("REGISTER", "sip:example.com", from_=WATSON[0], to=WATSON[1])
        assert b"Contact" not in agent.ask(_signed(agent, query))


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cparam01", b"<sip:+19725552222@gw1.example.net>;unknownparam"),
        ("cparam02", b"<sip:+19725552222@gw1.example.net;unknownparam>"),
    ],
)
def test_unknown_parameters_of_a_contact_stay_where_they_stood(name: str, kept: bytes, target: Target) -> None:
    with target.row(name), Agent(target, "tcp") as agent:
        answer = agent.ask(_signed(agent, octets(name, "tcp")))
        assert sip_status(answer) == 200
        assert kept in answer
        remove = agent.build("REGISTER", "sip:example.com", "Contact: *", "Expires: 0", from_=WATSON[0], to=WATSON[1])
        assert sip_status(agent.ask(_signed(agent, remove))) == 200


def test_binary_multipart_arrives_byte_for_byte(target: Target) -> None:
    """mpart01, class A: the recipient's phone gets the body of the sender's."""
    data = octets("mpart01", "udp")
    # Its Route names the server it was once sent to; a Route elsewhere is refused (S-46).
    data = data.replace(b"<sip:127.0.0.1:5080>", b"<sip:127.0.0.1:%d>" % target.server.port("sip", "udp")[1])
    body = data.partition(CRLF * 2)[2]
    with target.row("mpart01", stores=True), Agent(target, "tcp") as phone, Agent(target, "udp") as sender:
        contact = f"Contact: <sip:kumiko@{phone.address}:{phone.port};transport=tcp>"
        request = phone.build(
            "REGISTER", "sip:example.org", contact, from_="From: <sip:kumiko@example.org>;tag=1", to=_to("kumiko")
        )
        assert sip_status(phone.ask(_signed(phone, request, "kumiko"))) == 200
        sender.send(_signed(sender, data, "fluffy"))
        delivered = phone.hear()
        assert delivered.endswith(CRLF + body)
        phone.reply(delivered)
        assert sip_status(sender.hear()) == 200


def _to(user: str) -> str:
    return f"To: <sip:{user}@example.org>"


def _signed(agent: Agent, request: bytes, user: str = "watson") -> bytes:
    """The request with credentials for its own challenge."""
    challenge = agent.ask(request)
    assert sip_status(challenge) == 401, challenge
    return agent.sign_for(request, challenge, user)

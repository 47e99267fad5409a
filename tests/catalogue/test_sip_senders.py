"""S-01 … S-27, S-46: who may send what, and every way to pretend (reliability.md section 2.5)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.catalogue.harness import PASSWORD, Inbox, Target
from tests.catalogue.raw import authorization, sip_status
from tests.catalogue.sip_agent import CRLF, WIRES, Agent, Wire, header

RATES = "user_messages = 100000\nuser_message_burst = 100000\nudp_requests = 100000\nfailures_per_address = 100000"


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server with rates for a catalogue sent in a minute, and two people with phones."""
    target = Target(tmp_path_factory.mktemp("sip"), RATES, ("carol", "dora"))
    yield target
    target.check_canary()
    target.close()


STRANGERS = [
    ("S-01", "MESSAGE", "<sip:alice@a.test>;tag=1", 401),
    ("S-02", "MESSAGE", "<sip:mallory@b.test>;tag=1", 403),
    ("S-04 REGISTER", "REGISTER", "<sip:alice@a.test>;tag=1", 401),
    ("S-04 PUBLISH", "PUBLISH", "<sip:alice@a.test>;tag=1", 401),
    ("S-13", "MESSAGE", "<tel:911>;tag=1", 403),
    ("S-04 SEC-33", "SUBSCRIBE", "<sip:alice@a.test>;tag=1", 401),
    ("S-02 SEC-31", "SUBSCRIBE", "<sip:mallory@b.test>;tag=1", 403),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("id", "method", "sender", "status"), STRANGERS)
def test_strangers_are_asked_who_they_are(
    id: str, method: str, sender: str, status: int, wire: Wire, target: Target
) -> None:
    with target.row(f"{id} {wire}"), Agent(target, wire) as agent:
        to = f"To: <{agent.aor}>" if method == "REGISTER" else None
        request = agent.build(method, "sip:bob@a.test", from_=f"From: {sender}", to=to, body=b"x")
        for _ in range(3):  # the same each time: nothing was kept
            answer = agent.ask(request)
            assert sip_status(answer) == status
        assert ("WWW-Authenticate" in answer.decode()) is (status == 401)


NOT_ALICE = [
    ("S-06", "<sip:bob@a.test>;tag=1", 403),
    ("S-06 nobody", "<sip:nobody@a.test>;tag=1", 403),
    ("S-12 escaped at sign", "<sip:alice%40b.test@a.test>;tag=1", 403),
    ("S-12 other host", "<sip:alice@a.test.b.test>;tag=1", 403),
    ("S-13", "<tel:911>;tag=1", 403),
    ("S-13 number", "<sip:911@a.test>;tag=1", 403),
    ("display name", '"sip:bob@a.test" <sip:alice@a.test>;tag=1', 200),
    ("S-12 escaped letter", "<sip:%61lice@a.test>;tag=1", 200),
    ("ADDR-4 case", "<sip:Alice@A.TEST>;tag=1", 200),
]


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(("id", "sender", "status"), NOT_ALICE)
def test_alice_is_nobody_else(id: str, sender: str, status: int, wire: Wire, target: Target, bob: Inbox) -> None:
    """S-06, S-12, S-13: the sender is who signed in, however it is written."""
    with target.row(f"{id} {wire}", stores=True), Agent(target, wire) as agent:
        agent.send(agent.sign(agent.message(f"before {id} {wire}")))
        assert sip_status(agent.hear()) == 200
        body = f"as somebody {id} {wire}"
        answer = agent.ask(agent.sign(agent.message(body, from_=f"From: {sender}")))
        assert sip_status(answer) == status
        bob.expect(f"before {id} {wire}")
        if status == 200:
            bob.expect(body)
    assert set(bob.senders) == {"im:alice@a.test"}
    assert (body in bob.texts) is (status == 200)


CLAIMS = [
    "P-Asserted-Identity: <sip:bob@a.test>",
    "P-Preferred-Identity: <sip:bob@a.test>",
    "Remote-Party-ID: <sip:bob@a.test>;party=calling;privacy=off",
    "Identity: abcdef",
    "Referred-By: <sip:bob@a.test>",
    "History-Info: <sip:bob@a.test>;index=1",
    "Replaces: 1@2;to-tag=3;from-tag=4",
    "Join: 1@2;to-tag=3;from-tag=4",
]


def test_headers_that_claim_an_identity_are_not_believed_nor_forwarded(target: Target) -> None:
    """S-07, S-55: carol's phone sees alice as the sender and none of the headers."""
    with target.row("S-07", stores=True), Agent(target, "tcp", "carol") as phone, Agent(target, "udp") as agent:
        phone.register()
        agent.send(agent.sign(agent.message("who am I", *CLAIMS, to="sip:carol@a.test")))
        delivered = phone.hear()
        assert "<sip:alice@a.test>" in header(delivered, "From", "f")
        assert b"bob" not in delivered
        for claim in CLAIMS:
            assert claim.partition(":")[0].encode() not in delivered
        phone.reply(delivered)
        assert sip_status(agent.hear()) == 200
        phone.register("Expires: 0")


def test_folded_from_and_authorization_are_one_value(target: Target, bob: Inbox) -> None:
    """S-15."""
    for wire in WIRES:
        with target.row(f"S-15 {wire}", stores=True), Agent(target, wire) as agent:
            signed = agent.sign(agent.message(f"folded {wire}"))
            folded = signed.replace(b"From: <", b"From:\r\n\t <").replace(b', nonce="', b',\r\n  nonce="')
            assert folded.count(b"\r\n ") + folded.count(b"\r\n\t") == 2
            assert sip_status(agent.ask(folded)) == 200
            bob.expect(f"folded {wire}")


def forged(answer: bytes, agent: Agent, request: bytes, **change: str) -> bytes:
    """The request with credentials in which some parameters are replaced after they were computed."""
    signed = agent.sign_for(request, answer, agent.user)
    for name, value in change.items():
        signed, count = re.subn(rb'(Digest|,) %s="?[^",]*"?' % name.encode(), rb"\1 " + value.encode(), signed)
        assert count == 1, signed
    return signed


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize(
    ("id", "change"),
    [
        ("S-21 realm", {"realm": 'realm="b.test"'}),
        ("S-21 algorithm", {"algorithm": "algorithm=SHA-1"}),
        ("S-22 never issued", {"nonce": 'nonce="AAAAAAAAAAAAAAAAAAAA"'}),
        ("S-22 no nonce", {"nonce": 'nonce=""'}),
        ("other response", {"response": f'response="{"0" * 32}"'}),
        ("no qop", {"qop": "qop=none"}),
        ("bad nc", {"nc": "nc=1"}),
        ("nc is not hex", {"nc": "nc=zzzzzzzz"}),
    ],
)
def test_credentials_that_prove_nothing_are_challenged_anew(
    id: str, change: dict[str, str], wire: Wire, target: Target, bob: Inbox
) -> None:
    """S-21, S-22: 401 with a fresh nonce."""
    with target.row(f"{id} {wire}", stores=True), Agent(target, wire) as agent:
        agent.send(agent.sign(agent.message(f"before {id} {wire}")))
        assert sip_status(agent.hear()) == 200
        request = agent.message(f"pretended {id} {wire}")
        challenge = agent.ask(request)
        answer = agent.ask(forged(challenge, agent, request, **change))
        assert sip_status(answer) == 401
        assert nonce(answer) != nonce(challenge)
        bob.expect(f"before {id} {wire}")
    assert f"pretended {id} {wire}" not in bob.texts


def nonce(answer: bytes) -> bytes:
    found = re.search(rb'nonce="([^"]+)"', answer)
    assert found
    return found[1]


def test_a_nonce_of_another_address_is_stale(target: Target, bob: Inbox) -> None:
    """S-22: bound to the flow it was given to."""
    with target.row("S-22 elsewhere"), Agent(target, "udp") as one, Agent(target, "udp") as other:
        request = other.message("with a stolen nonce")
        challenge = one.ask(one.message("x"))
        answer = other.ask(other.sign_for(request, challenge, "alice"))
        assert sip_status(answer) == 401
        assert b"stale=true" in answer
    assert "with a stolen nonce" not in bob.texts


@pytest.mark.parametrize("wire", WIRES)
def test_credentials_do_not_serve_twice(wire: Wire, target: Target, bob: Inbox) -> None:
    """S-23: the same nonce and nc with another body."""
    with target.row(f"S-23 {wire}", stores=True), Agent(target, wire) as agent:
        signed = agent.sign(agent.message(f"first {wire}", call_id=f"Call-ID: first-{wire}"))
        assert sip_status(agent.ask(signed)) == 200
        again = signed.replace(b"z9hG4bK", b"z9hG4bKa").replace(b"first", b"other")
        assert sip_status(agent.ask(again)) == 401
        bob.expect(f"first {wire}")
    assert f"other {wire}" not in bob.texts


def test_a_challenge_of_a_device_is_not_answered(target: Target) -> None:
    """S-24: no credentials leave; the sender hears that it failed."""
    with target.row("S-24", stores=True), Agent(target, "tcp", "carol") as phone, Agent(target, "tcp") as agent:
        phone.register()
        agent.send(agent.sign(agent.message("answer me", to="sip:carol@a.test")))
        delivered = phone.hear()
        phone.reply(
            delivered, "407 Proxy Authentication Required", 'Proxy-Authenticate: Digest realm="a.test", nonce="n"'
        )
        assert sip_status(agent.hear()) == 403
        assert phone.rest() == []
        phone.register("Expires: 0")


def test_md5_is_refused_where_only_sha256_is_offered(tmp_path_factory: pytest.TempPathFactory) -> None:
    """S-27: a server that does not offer MD5."""
    strict = Target(tmp_path_factory.mktemp("strict"), RATES + "\n[policy]\nsip_md5 = false")
    try:
        with strict.row("S-27"), Agent(strict, "tcp") as agent:
            request = agent.message("weak")
            challenge = agent.ask(request)
            assert b"MD5" not in challenge
            weak = challenge.replace(b"SHA-256", b"MD5")
            assert sip_status(agent.ask(agent.sign_for(request, weak, "alice"))) == 401
            fresh = agent.ask(request)
            assert sip_status(agent.ask(agent.sign_for(agent.build("OPTIONS", "sip:a.test"), fresh, "alice"))) == 200
    finally:
        strict.close()


@pytest.mark.parametrize("wire", WIRES)
def test_a_route_elsewhere_is_no_relay(wire: Wire, target: Target) -> None:
    """S-46."""
    with target.row(f"S-46 {wire}"), Agent(target, wire) as agent:
        for route in ("<sip:192.0.2.66;lr>", "<sip:relay.b.test;lr>", "<sip:127.0.0.1:6379;lr>"):
            answer = agent.ask(agent.sign(agent.message("pass it on", f"Route: {route}")))
            assert sip_status(answer) == 403
        answer = agent.ask(agent.sign(agent.message("pass it on", to="sip:victim@b.test")))
        assert sip_status(answer) == 404


@pytest.mark.parametrize("name", ["alice", "Alice", "alice@a.test"])
def test_a_phone_may_write_the_user_name_its_own_way(name: str, target: Target) -> None:
    """ADDR-4: digest hashes the name as the phone writes it."""
    with target.row(f"user name {name}"), Agent(target, "tcp") as agent:
        aor = f"<sip:{name.removesuffix('@a.test')}@a.test>"
        request = agent.build("REGISTER", "sip:a.test", from_=f"From: {aor};tag=1", to=f"To: {aor}")
        assert sip_status(agent.ask(agent.sign_for(request, agent.ask(request), name))) == 200


def test_guessing_ends_with_a_closed_connection(target: Target) -> None:
    """Five wrong passwords on one connection (reliability.md section 6.2)."""
    with target.row("guessing"), Agent(target, "tcp") as agent:
        for _ in range(5):
            request = agent.message("guess")
            challenge = agent.ask(request)
            line = authorization(challenge, "MESSAGE", "sip:bob@a.test", password="wrong " + PASSWORD)
            head, gap, body = request.partition(CRLF * 2)
            assert sip_status(agent.ask(head + CRLF + line.removesuffix(CRLF) + gap + body)) == 401
        assert agent.stream.until_closed() == b""


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("expires", ["600", "0"])
@pytest.mark.parametrize(
    ("sender", "status"),
    [("<sip:bob@a.test>;tag=1", 403), ("<sip:carol@a.test>;tag=1", 403), ("<sip:alice@a.test>;tag=1", 400)],
)
def test_nobody_subscribes_or_unsubscribes_another(
    sender: str, status: int, expires: str, wire: Wire, target: Target
) -> None:
    """SEC-32, SEC-33, T19: signed in as Alice; her own is heard, and refused for want of a Contact."""
    with target.row(f"SEC-33 {sender} {expires} {wire}"), Agent(target, wire) as agent:
        lines = ("Event: presence", f"Expires: {expires}")
        request = agent.build("SUBSCRIBE", "sip:bob@a.test", *lines, from_=f"From: {sender}")
        for _ in range(2):  # the same each time: nothing was kept
            assert sip_status(agent.ask(agent.sign(request))) == status

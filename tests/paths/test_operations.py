"""Signed subscribe and unsubscribe over real sockets: who demands a proof gets no other operation (SEC-31 to SEC-34, R-08, T17).

What passes every check is answered 200 in SIP, and in XMPP by nothing that is an error.
"""

from __future__ import annotations

import itertools
import json
import secrets
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from comity.bindings.sip.digest import DigestClient
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriptions import subscript_id, subscription_to_request
from comity.bindings.sip.wire import StreamReader
from comity.bindings.xmpp import wire as names
from comity.bindings.xmpp.subscriptions import subscription_to_stanza
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, SubscribeOperation
from comity.secure import Identity, LocalCa, SigningClock, new_identity
from comity.secure.operation import sign_operation
from comity.xml import Element
from tests.paths.conftest import FAST
from tests.paths.kit import ALICE, PASSWORD, ServerProcess
from tests.paths.xmpp_wire import Wire, run

WATCHER = ALICE.with_scheme("pres")
BOB, NOBODY, FREE, CAROL = (
    Address.parse(f"pres:{name}") for name in ("bob@b.test", "nobody@b.test", "bob@a.test", "carol@b.test")
)
EVE = Address.parse("im:eve@a.test")
_COUNT = itertools.count(1)
_CLOCK = SigningClock()


class People:
    """Those who sign, and their authority."""

    def __init__(self) -> None:
        when = datetime.now(UTC)
        self.authority = LocalCa.create("People", when=when)
        self.alice = new_identity(ALICE, ca=self.authority, when=when)
        self.eve = new_identity(EVE, ca=self.authority, when=when)
        self.stranger = new_identity(ALICE, ca=LocalCa.create("Others", when=when), when=when)


@dataclass(frozen=True)
class House:
    server: ServerProcess
    people: People


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server that trusts the people's authority; b.test demands signed operations, a.test does not."""
    directory, people = tmp_path_factory.mktemp("operations"), People()
    server = ServerProcess(directory, FAST, ("a.test", "b.test"))
    (directory / "people.pem").write_bytes(people.authority.certificate.public_bytes(Encoding.PEM))
    text = server.config.read_text("utf-8") + (
        f"\n[security]\ntrust = {json.dumps(str(directory / 'people.pem'))}\n"
        '[[policy.protection]]\nof = "b.test"\noperations = "signed"\n'
    )
    server.config.write_text(text, "utf-8")
    server.run("account", "add", "bob@b.test", "--password-stdin", "-c", str(server.config), text=PASSWORD)
    server.start()
    yield House(server, people)
    assert server.stop() == 0


def asked(target: Address = BOB, duration: int = 600) -> SubscribeOperation:
    """What Alice asks for; its SubscriptID is that of a SIP dialog, and as good in XMPP."""
    dialog = subscript_id(f"c{secrets.token_hex(6)}@host.invalid", secrets.token_hex(4))
    return SubscribeOperation(WATCHER, target, dialog, "", duration)


def proof_of(operation: SubscribeOperation, who: Identity, back: timedelta = timedelta()) -> MimeObject:
    when = _CLOCK.next(datetime.now(UTC)) - back
    return sign_operation(operation, who, when=when, message_id=f"op{next(_COUNT)}{secrets.token_hex(4)}")


class Phone:
    """Alice's SIP program on one TCP connection."""

    def __init__(self, server: ServerProcess) -> None:
        self._socket = socket.create_connection(server.port("sip", "tcp"), timeout=30)
        self._digest = DigestClient("alice", PASSWORD, realm="a.test", peer="a.test", random=secrets.token_bytes)
        self._cseq = 0
        self._reader = StreamReader()

    def ask(self, operation: SubscribeOperation) -> SipResponse:
        """Send SUBSCRIBE, with credentials when they are asked for; the final answer."""
        call_id, _, tag = operation.subscript_id.partition(";")
        while True:
            self._cseq += 1
            target = f"sip:{operation.target.local}@{operation.target.domain}"
            contact = "<sip:alice@127.0.0.1:5070;transport=tcp>"
            request = subscription_to_request(
                operation, target=target, call_id=call_id, tag=tag, cseq=self._cseq, contact=contact
            )
            via = ("Via", f"SIP/2.0/TCP 127.0.0.1:5070;branch=z9hG4bK{secrets.token_hex(8)};rport")
            authorization = self._digest.authorize("SUBSCRIBE", target, request.body)
            headers = [via, *request.headers, *([authorization] if authorization else [])]
            self._socket.sendall(SipRequest("SUBSCRIBE", target, headers, request.body).to_bytes())
            answer = self._hear()
            if answer.status_code != 401 or not self._digest.take_challenge(answer, "a.test"):
                return answer

    def _hear(self) -> SipResponse:
        while True:
            found = self._reader.next_unit()
            if isinstance(found, SipResponse):
                return found
            data = self._socket.recv(65536)
            assert data, "the server hung up"
            self._reader.feed(data)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def phone(house: House) -> Iterator[Phone]:
    phone = Phone(house.server)
    yield phone
    phone.close()


Altering = Callable[[SubscribeOperation, People], SubscribeOperation]
BAD: dict[str, tuple[Altering, int, str, str]] = {
    # name: (operation as it is sent, SIP code, SIP phrase, condition and detail in XMPP)
    "missing": (lambda op, p: op, 403, "Protection Not Available", "policy-violation protection-unavailable"),
    "altered-duration": (
        lambda op, p: replace(op, duration=1200, proof=proof_of(op, p.alice)),
        *(403, "Forbidden", "forbidden"),
    ),
    "another-subscription": (
        lambda op, p: replace(op, proof=proof_of(asked(), p.alice)),
        *(403, "Forbidden", "forbidden"),
    ),
    "other-watcher": (
        lambda op, p: replace(op, proof=proof_of(replace(op, watcher=EVE.with_scheme("pres")), p.eve)),
        *(403, "Forbidden", "forbidden"),
    ),
    "other-presentity": (
        lambda op, p: replace(op, proof=proof_of(replace(op, target=CAROL), p.alice)),
        *(403, "Forbidden", "forbidden"),
    ),
    "signed-by-other": (
        lambda op, p: replace(op, proof=proof_of(op, p.eve)),
        *(403, "Signature Not Verified", "not-acceptable unverified-signature"),
    ),
    "untrusted": (
        lambda op, p: replace(op, proof=proof_of(op, p.stranger)),
        *(403, "Signature Not Verified", "not-acceptable unverified-signature"),
    ),
    "stale": (
        lambda op, p: replace(op, proof=proof_of(op, p.alice, timedelta(minutes=6))),
        *(400, "Incorrect Date or Time", "not-acceptable bad-timestamp"),
    ),
}
bad = pytest.mark.parametrize("name", BAD)
presentities = pytest.mark.parametrize("target", [BOB, NOBODY], ids=["somebody", "nobody"])


class TestSip:
    @bad
    @presentities
    def test_what_is_not_proved_is_refused(self, house: House, phone: Phone, name: str, target: Address) -> None:
        """The same whether there is such a presentity or not (T17)."""
        altered, code, phrase, _ = BAD[name]
        answer = phone.ask(altered(asked(target), house.people))
        assert (answer.status_code, answer.reason) == (code, phrase)

    @presentities
    @pytest.mark.parametrize("duration", [600, 0])
    def test_what_is_proved_passes_once(self, house: House, phone: Phone, target: Address, duration: int) -> None:
        """R-08: and sent again, as her own program would, it is refused."""
        operation = asked(target, duration)
        operation = replace(operation, proof=proof_of(operation, house.people.alice))
        assert phone.ask(operation).status_code == 200
        again = phone.ask(operation)
        assert again.status_code == 403
        assert "accepted before" in (again.value("warning") or "")

    def test_where_none_is_demanded_it_is_as_before(self, house: House, phone: Phone) -> None:
        operation = asked(FREE)
        assert phone.ask(operation).status_code == 200
        assert phone.ask(replace(operation, proof=proof_of(operation, house.people.stranger))).status_code == 200
        altered = replace(operation, duration=601, proof=proof_of(operation, house.people.alice))
        assert phone.ask(altered).status_code == 403

    def test_a_proof_cannot_be_large(self, house: House, phone: Phone) -> None:
        operation = asked()
        proof = proof_of(operation, house.people.alice)
        large = MimeObject(proof.header_block, proof.octets + b" " * 65536)
        assert phone.ask(replace(operation, proof=large)).status_code == 413


async def refusal_of(wire: Wire, operation: SubscribeOperation) -> tuple[str, str]:
    """Ask, and wait for the error: condition and detail, and its sentence."""
    wire.send(subscription_to_stanza(operation))
    await wire.until(lambda: bool(errors(wire)))
    (error,) = errors(wire)
    found = error.find(names.ERROR)
    assert found is not None
    assert error.get("from") == f"{operation.target.local}@{operation.target.domain}"
    condition, text = names.error_of(found)
    details = [child.local for child in found.elements() if child.namespace != names.STANZAS]
    return " ".join([condition, *details]), text


def errors(wire: Wire) -> list[Element]:
    return [one for one in wire.stanzas if one.name == names.PRESENCE and one.get("type") == "error"]


async def pinged(wire: Wire) -> None:
    """Twice: what the server began before the first answer is said before the second."""
    for count in (1, 2):
        ping = Element(names.IQ, {"type": "get", "id": f"ping{count}", "to": "a.test"})
        wire.send(ping.append(Element("{urn:xmpp:ping}ping")))
        await wire.until(lambda: sum(one.get("id").startswith("ping") for one in wire.stanzas) == count)  # noqa: B023 - awaited here


class TestXmpp:
    @bad
    @presentities
    def test_what_is_not_proved_is_refused(self, house: House, name: str, target: Address) -> None:
        altered, _, _, condition = BAD[name]

        async def story() -> None:
            alice = await Wire(house.server, "alice@a.test/desk").open()
            told, _ = await refusal_of(alice, altered(asked(target), house.people))
            assert told == condition

        run(story())

    @presentities
    @pytest.mark.parametrize("duration", [600, 0])
    def test_what_is_proved_passes_once(self, house: House, target: Address, duration: int) -> None:
        """Of two that are the same one is refused, and the other is not (R-08)."""
        operation = asked(target, duration)
        operation = replace(operation, proof=proof_of(operation, house.people.alice))

        async def story() -> None:
            alice = await Wire(house.server, "alice@a.test/desk").open()
            alice.send(subscription_to_stanza(operation))
            told, text = await refusal_of(alice, operation)
            assert told == "forbidden"
            assert "accepted before" in text
            await pinged(alice)
            assert len(errors(alice)) == 1

        run(story())

    def test_what_was_used_in_one_protocol_is_used_up_in_the_other(self, house: House, phone: Phone) -> None:
        operation = asked()
        operation = replace(operation, proof=proof_of(operation, house.people.alice))
        assert phone.ask(operation).status_code == 200

        async def story() -> None:
            alice = await Wire(house.server, "alice@a.test/desk").open()
            assert "accepted before" in (await refusal_of(alice, operation))[1]

        run(story())

    def test_where_none_is_demanded_it_is_as_before(self, house: House) -> None:
        async def story() -> None:
            alice = await Wire(house.server, "alice@a.test/desk").open()
            alice.send(subscription_to_stanza(asked(FREE)))
            alice.send(subscription_to_stanza(asked(FREE, 0)))
            await pinged(alice)
            assert not errors(alice)

        run(story())

    def test_an_operation_that_cannot_be_read_is_a_bad_request(self, house: House) -> None:
        async def story() -> None:
            alice = await Wire(house.server, "alice@a.test/desk").open()
            operation = asked(FREE)
            operation = replace(operation, proof=proof_of(operation, house.people.alice))
            stanza = subscription_to_stanza(operation)
            stanza = Element(stanza.name, {**stanza.attributes, "type": "unsubscribe"}, stanza.children)
            alice.send(stanza)
            await alice.until(lambda: bool(errors(alice)))
            found = errors(alice)[0].find(names.ERROR)
            assert found is not None
            assert names.error_of(found)[0] == "bad-request"

        run(story())


def test_an_account_demands_it_for_itself_while_the_server_runs(house: House, phone: Phone) -> None:
    address, config = "bob@a.test", str(house.server.config)
    house.server.run("account", "policy", address, "--operations", "signed", "-c", config)
    try:
        shown = json.loads(house.server.run("account", "policy", address, "--json", "-c", config))
        assert shown["operations"] == "signed"
        operation = asked(FREE)
        assert phone.ask(operation).reason == "Protection Not Available"
        assert phone.ask(replace(operation, proof=proof_of(operation, house.people.alice))).status_code == 200
    finally:
        house.server.run("account", "policy", address, "--clear", "-c", config)
    assert phone.ask(asked(FREE)).status_code == 200


def test_a_restart_forgets_no_operation(tmp_path: Path) -> None:
    """R-03: within the five minutes in which its time alone would let it pass."""
    people = People()
    server = ServerProcess(tmp_path, FAST)
    (tmp_path / "people.pem").write_bytes(people.authority.certificate.public_bytes(Encoding.PEM))
    text = f"\n[security]\ntrust = {json.dumps(str(tmp_path / 'people.pem'))}\n"
    server.config.write_text(server.config.read_text("utf-8") + text, "utf-8")
    operation = asked(FREE)
    operation = replace(operation, proof=proof_of(operation, people.alice))
    with server:
        for expected in (200, 403):
            server.start()
            phone = Phone(server)
            try:
                assert phone.ask(operation).status_code == expected
            finally:
                phone.close()
            server.kill()

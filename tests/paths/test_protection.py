"""Protection by policy over real sockets: a domain's, an account's while the server runs, a look at signatures (SEED-37)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from comity.client import Client, Received, text_object
from comity.cpim.operations import MimeObject, Reason, Requirement, Status
from comity.secure import LocalCa, new_identity, sign
from tests.paths.kit import ALICE, BOB, ServerProcess, Via
from tests.paths.secured import told
from tests.paths.test_requirements import run

VIAS: list[Via] = ["sip", "xmpp", "apex"]
pairs = pytest.mark.parametrize(("source", "sink"), [(a, b) for a in VIAS for b in VIAS])


@pytest.fixture(scope="module")
def people() -> LocalCa:
    return LocalCa.create("People of a.test", when=datetime.now(UTC))


@pytest.fixture
def server(tmp_path: Path, people: LocalCa) -> Iterator[ServerProcess]:
    """A server with the authority of its people and no rules yet."""
    with ServerProcess(tmp_path) as server:
        (server.directory / "people.pem").write_bytes(people.certificate.public_bytes(Encoding.PEM))
        add(server, '[security]\ntrust = "people.pem"\n')
        yield server


def add(server: ServerProcess, text: str) -> None:
    server.config.write_text(server.config.read_text("utf-8") + "\n" + text, "utf-8")


def policy(server: ServerProcess, *options: str) -> dict[str, object]:
    made = server.run("account", "policy", "bob@a.test", *options, "--json", "-c", str(server.config))
    found: dict[str, object] = json.loads(made)
    return found


def signed(people: LocalCa, text: str = "hello") -> MimeObject:
    when = datetime.now(UTC)
    return sign(text_object(ALICE, BOB, text), new_identity(ALICE, ca=people, when=when), when=when)


def broken(thing: MimeObject) -> MimeObject:
    return MimeObject(thing.header_block, thing.octets.replace(b"hello", b"HELLO"))


async def failure_of(alice: Client, thing: MimeObject) -> tuple[Reason | None, str]:
    """Why it was refused: natively, at once or by the error stanza that follows."""
    answer = await alice.send(thing, BOB)
    if answer.status is Status.FAILURE:
        return answer.reason, answer.text
    received = await anext(alice.messages())
    assert received.report is not None, "accepted"
    return received.report.reason, received.report.text


async def delivered(alice: Client, bob: Client, thing: MimeObject) -> Received:
    answer, messages = alice.send(thing, BOB), bob.messages()
    async for received in messages:
        if received.object.octets == thing.octets:
            break
    taking = asyncio.ensure_future(anext(messages))  # else the answer waits, and the server when it stops
    assert (await answer).status is not Status.FAILURE
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return received


@pairs
def test_an_account_that_takes_signed_messages_only(
    server: ServerProcess, people: LocalCa, source: Via, sink: Via
) -> None:
    """Set while the server runs, by its control socket; it counts from the next message on, and after a kill too."""

    async def story(is_again: bool) -> None:
        async with server.client(source, ALICE, "tls") as alice, server.client(sink, BOB, "tls") as bob:
            if not is_again:
                assert policy(server, "--require", "signed", "--require", "tls")["require"] == ["signed", "tls"]
            reason, text = await failure_of(alice, text_object(ALICE, BOB, "plain"))
            assert reason is told(Reason.PROTECTION, source)
            assert "must be signed" in text
            received = await delivered(alice, bob, signed(people))
            assert received.requirements == {Requirement.SIGNED, Requirement.TLS}

    server.start()
    run(story(is_again=False))
    server.kill()
    assert policy(server)["require"] == ["signed", "tls"], "shown without a server too"
    server.start()
    run(story(is_again=True))
    assert policy(server, "--clear")["require"] == []
    assert server.stop() == 0


@pairs
def test_a_broken_signature_is_refused_in_the_words_of_each_protocol(
    server: ServerProcess, people: LocalCa, source: Via, sink: Via
) -> None:
    """T8: 403 Signature Not Verified; not-acceptable with unverified-signature; 554."""
    add(server, '[[policy.protection]]\nof = "a.test"\nverify = "refuse"\n')

    async def story() -> None:
        async with server.client(source, ALICE, "tls") as alice, server.client(sink, BOB, "tls") as bob:
            good = signed(people)
            reason, text = await failure_of(alice, broken(good))
            assert reason is told(Reason.SIGNATURE, source)
            assert "signature" in text.lower()
            assert (await delivered(alice, bob, good)).history[-1].note == ""

    server.start()
    run(story())
    assert server.stop() == 0


@pairs
def test_a_broken_signature_is_marked_outside_the_octets(
    server: ServerProcess, people: LocalCa, source: Via, sink: Via
) -> None:
    add(server, '[[policy.protection]]\nof = "bob@a.test"\nverify = "mark"\n')

    async def story() -> None:
        async with server.client(source, ALICE, "tls") as alice, server.client(sink, BOB, "tls") as bob:
            received = await delivered(alice, bob, broken(signed(people)))
            assert received.history[-1].node == "a.test"
            assert received.history[-1].note.startswith("bad-signature: ")

    server.start()
    run(story())
    assert server.stop() == 0

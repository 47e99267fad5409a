"""Stock XMPP servers and a real Comity, stream to stream: Prosody and ejabberd, both ways (XMPP-3, GW-11).

Each finds the other by DNS, proves itself by a certificate and believes nobody without one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Status
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from tests.interop.authority import Authority
from tests.interop.xmpp_servers import EjabberdServer, Names, ProsodyServer, StockServer
from tests.paths.kit import ALICE, BOB, ServerProcess
from tests.paths.test_neighbours import listening, run, texts

JULIET, ROMEO = Address.parse("im:juliet@peer.test"), Address.parse("im:romeo@peer.test")


@dataclass(frozen=True, slots=True)
class Pair:
    """Comity for a.test and a stock server for peer.test."""

    comity: ServerProcess
    stock: StockServer


def federated(server: ServerProcess, names: Names, authority: Authority, more: str = "") -> None:
    """Let a server find others by DNS and believe the test's authority and its own."""
    trust = server.directory / "trust.pem"
    trust.write_bytes(server.authority.read_bytes() + authority.file.read_bytes())
    text = server.config.read_text(encoding="utf-8")
    text += f'[tls]\ntrust = "{trust}"\n[federation]\ndns = true\nnameservers = ["127.0.0.1:{names.port}"]\n'
    server.config.write_text(text + 'networks = ["127.0.0.0/8"]\n' + more, encoding="utf-8")
    names.serve("a.test", server.port("server", "tcp")[1])


@pytest.fixture(scope="module", params=[ProsodyServer, EjabberdServer], ids=["prosody", "ejabberd"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("s2s")
    kind: type[StockServer] = request.param
    with ExitStack() as stack:
        names = stack.enter_context(Names())
        authority = Authority(folder / "authority")
        server = stack.enter_context(ServerProcess(folder))
        federated(server, names, authority)
        stock = kind(
            folder / "stock", "peer.test", names, authority, trust=(server.authority,), accounts=("juliet", "romeo")
        )
        stack.enter_context(stock)
        server.start()
        yield Pair(server, stock)


def test_a_text_goes_there_and_back(pair: Pair) -> None:
    """From SIP to a stock XMPP client's server and back; nothing waits afterwards: it was acknowledged, or a ping was answered."""

    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice, pair.stock.client("juliet") as juliet:
            answer = await alice.send(text_object(ALICE, JULIET, "there"), JULIET)
            assert answer.status is Status.INDETERMINANT
            assert texts(await listening(juliet, 1)) == ["there"]
            await juliet.send(text_object(JULIET, ALICE, "and back"), ALICE)
            [received] = await listening(alice, 1)
            assert (received.text, received.from_) == ("and back", JULIET)

    run(story())
    wait_until_empty(pair.comity)


def test_a_signed_object_passes_a_stock_server_untouched(pair: Pair) -> None:
    """G3, GW-2: octet for octet, both ways; each far end verifies it."""

    async def story() -> None:
        when = datetime.now(UTC)
        authority = LocalCa.create("Test authority", when=when)
        trust = TrustStore(anchors=(authority.certificate,))
        async with pair.comity.client("sip", ALICE) as alice, pair.stock.client("juliet") as juliet:
            for one, other, me, you in ((alice, juliet, ALICE, JULIET), (juliet, alice, JULIET, ALICE)):
                identity = new_identity(me, ca=authority, when=when)
                signed = sign(text_object(me, you, "signed 🎉\r\n\r\nline"), identity, when=when)
                assert (await one.send(signed, you)).status is not Status.FAILURE
                [received] = await listening(other, 1)
                assert received.object.octets == signed.octets
                verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=me, expected_to=you)
                assert (verdict.verdict, verdict.signer) == ("valid", me.uri), verdict.reason

    run(story())


def test_objects_of_every_kind_keep_their_octets(pair: Pair) -> None:
    """GW-10: a slice of bodies through the stock server and back; what XML cannot carry is refused with the reason, never changed."""
    bodies = [
        b"Content-Type: text/plain; charset=utf-8\r\n\r\n" + "ä€😀 <&>]]>\r\n\r\n  trailing ".encode(),
        b"Content-Type: text/html\r\n\r\n<p>hello</p>\r\n",
        b"Content-Type: text/plain\r\n\r\n" + b"x" * 20_000,
        b'Content-Type: application/x-any; a="b; c"\r\n\r\n{}',
        b"Content-Type: application/octet-stream\r\n\r\n\x00\x01\xff",
    ]

    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice, pair.stock.client("juliet") as juliet:
            for body in bodies:
                head = f"From: <{ALICE.uri}>\r\nTo: <{JULIET.uri}>\r\n\r\n".encode()
                thing = MimeObject.of("message/cpim", head + body)
                answer = await alice.send(thing, JULIET)
                if b"\xff" in body:
                    assert (answer.status, answer.reason) == (Status.FAILURE, Reason.CONTENT)
                    continue
                assert answer.status is not Status.FAILURE, (body[:80], answer)
                [received] = await listening(juliet, 1)
                assert received.object.octets == thing.octets

    run(story())


def test_nobody_there_is_told_both_ways(pair: Pair) -> None:
    """GW-12, XMPP-8: an error stanza becomes a report to the sender; ours reaches theirs as an error stanza."""
    nobody_there, nobody_here = Address.parse("im:nobody@peer.test"), Address.parse("im:nobody@a.test")

    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice, pair.stock.client("juliet") as juliet:
            await alice.send(text_object(ALICE, nobody_there, "hi"), nobody_there)
            [told] = await listening(alice, 1)
            assert told.report is not None
            assert told.report.recipient == nobody_there
            await juliet.send(text_object(JULIET, nobody_here, "hi"), nobody_here)
            [told] = await listening(juliet, 1)
            assert told.report is not None
            assert told.report.recipient == nobody_here

    run(story())


def test_who_is_away_gets_it_later(pair: Pair) -> None:
    """The stock server keeps it for juliet, ours for Bob."""

    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice:
            await alice.send(text_object(ALICE, JULIET, "when you are back"), JULIET)
        async with pair.stock.client("juliet") as juliet:
            assert texts(await listening(juliet, 1)) == ["when you are back"]
            await juliet.send(text_object(JULIET, BOB, "for later"), BOB)
        async with pair.comity.client("xmpp", BOB) as bob:
            assert texts(await listening(bob, 1)) == ["for later"]

    run(story())


def test_either_is_killed_and_nothing_is_lost(pair: Pair) -> None:
    """What was accepted for a server that is gone goes there when it is back, whoever was killed.

    For somebody who got nothing before: ejabberd 23.01 hands out again what it had handed out, if it is killed soon after."""

    async def send(count: int, word: str) -> None:
        async with pair.comity.client("sip", ALICE, receive=False) as alice:
            for n in range(count):
                answer = await alice.send(text_object(ALICE, ROMEO, f"{word} {n}"), ROMEO)
                assert answer.status is Status.INDETERMINANT

    async def hear(count: int, word: str) -> None:
        wait_until_empty(pair.comity)
        async with pair.stock.client("romeo") as romeo:
            assert texts(await listening(romeo, count)) == [f"{word} {n}" for n in range(count)]

    pair.stock.stop(is_crash=True)
    run(send(10, "while you were down"))
    pair.stock.start()
    run(hear(10, "while you were down"))
    pair.stock.stop()
    run(send(5, "while both were"))
    pair.comity.kill()
    pair.stock.start()
    pair.comity.start()
    run(hear(5, "while both were"))


def wait_until_empty(server: ServerProcess) -> None:
    """What is acknowledged leaves the queue."""
    deadline = time.monotonic() + 40
    while server.waiting():
        assert time.monotonic() < deadline, server.run("queue", "list", "-c", str(server.config))

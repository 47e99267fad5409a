"""Two real servers: what the sender is told of the form a message was delivered in, and what is not relayed as the message
(issue 7, part 7; G-02, G-03, G-15, GW-2, T11)."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E_ELEMENT
from comity.client import text_object
from comity.cpim.delivered import in_words
from comity.cpim.operations import MimeObject, Reason, Status
from comity.secure import LocalCa, new_identity, sign
from comity.xml import Element, parse_document, serialize
from tests.paths.kit import PASSWORD, ROOT, Via, take
from tests.paths.neighbours import ALICE, BOB, CAROL, Neighbours
from tests.paths.xmpp_wire import Wire, run

VIAS: list[Via] = ["sip", "xmpp", "apex"]
HEADERS = b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n"
ENCRYPTED = MimeObject(HEADERS, b"MIAGCSqGSIb3DQEHA6CA")
CLIENT = "xmlns='jabber:client'"
NOTICE = "This message is encrypted and your program does not support that."
SEALED = {
    "OMEMO": f"<encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1'/></encrypted><body {CLIENT}>{NOTICE}</body>",
    "OMEMO 2": "<encrypted xmlns='urn:xmpp:omemo:2'/>" + f"<body {CLIENT}>{NOTICE}</body>",
    "OpenPGP": f"<openpgp xmlns='urn:xmpp:openpgp:0'>AAAA</openpgp><body {CLIENT}>{NOTICE}</body>",
    "old OpenPGP": f"<x xmlns='jabber:x:encrypted'>AAAA</x><body {CLIENT}>{NOTICE}</body>",
    "OTR": f"<body {CLIENT}>?OTR:AAIDAAAAAAE=.</body>",
    "by its name": f"<encryption xmlns='urn:xmpp:eme:0' namespace='urn:x' name='Signal'/><body {CLIENT}>{NOTICE}</body>",
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with Neighbours(tmp_path_factory.mktemp("forms")) as neighbours:
        yield neighbours


def written(stanza: Element) -> str:
    return serialize(stanza, "jabber:client").decode()


async def stock(both: Neighbours) -> Wire:
    """Bob's program, which knows nothing but RFC 6121."""
    bob = await Wire(both.b, "bob@b.test/stock").open()
    bob.send(parse_document(f"<presence {CLIENT}/>".encode()))
    return bob


@pytest.mark.parametrize("via", VIAS)
def test_the_sender_is_told_where_the_protection_ended(both: Neighbours, via: Via) -> None:
    """G-02: two servers on, a stock program got the text of a signed message and a statement that nothing is proved."""

    async def story() -> None:
        when = datetime.now(UTC)
        identity = new_identity(ALICE, ca=LocalCa.create("Test authority", when=when), when=when)
        bob = await stock(both)
        async with both.a.client(via, ALICE, receive=False) as alice:
            answer = await alice.send(sign(text_object(ALICE, BOB, "signed"), identity, when=when), BOB, asks=True)
        assert (answer.status, answer.form, answer.at) == (Status.SUCCESS, "text-of-signed", "b.test")
        await bob.until(lambda: bool(bob.texts))
        assert bob.texts[0].startswith("signed\n\n[This message is signed, but this program did not check")
        assert not [stanza for stanza in bob.stanzas if "urn:comity:form" in written(stanza)], (
            "noise to a stock program"
        )

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_the_sender_is_told_that_the_object_arrived_whole(both: Neighbours, via: Via) -> None:
    async def story() -> None:
        async with both.b.client("xmpp", BOB) as bob, both.a.client(via, ALICE, receive=False) as alice:
            receiving = asyncio.ensure_future(take(bob))
            answer = await alice.send(text_object(ALICE, BOB, "whole"), BOB, asks=True)
            await receiving
        assert (answer.status, answer.form, answer.at) == (Status.SUCCESS, "object", "")

    run(story())


def send(both: Neighbours, via: Via, *words: str) -> subprocess.CompletedProcess[str]:
    """``comity send`` of Alice's to Bob."""
    host, port = both.a.port(via, "tls")
    command = [sys.executable, "-m", "comity", "send", "--from", ALICE.uri, "--to", BOB.uri, "--via", via]
    command += ["--server", f"{host}:{port}", "--transport", "tls", "--ca", str(both.a.authority), *words]
    environment = {**os.environ, "COMITY_PASSWORD": PASSWORD, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


@pytest.mark.parametrize("via", VIAS)
def test_comity_send_says_it(both: Neighbours, via: Via) -> None:
    async def story() -> None:
        bob = await stock(both)
        done = await asyncio.to_thread(send, both, via, "--json", "a text")
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["form"], said["at"], said["delivered"]) == ("text", "b.test", in_words("text", "b.test"))
        done = await asyncio.to_thread(send, both, via, "another")
        assert "form     text only: the object ends at b.test" in done.stdout
        await bob.until(lambda: len(bob.texts) == 2)

    run(story())


@pytest.mark.parametrize("scheme", list(SEALED))
@pytest.mark.parametrize("via", ["sip", "apex"])
def test_a_notice_beside_an_encryption_is_not_relayed_as_the_message(both: Neighbours, via: Via, scheme: str) -> None:
    """XEP-0380, 0384, 0373, 0027: the sender's program hears that it cannot be read there; the recipient sees nothing."""

    async def story() -> None:
        text = f"<message {CLIENT} to='carol@a.test' type='chat' id='s1'>{SEALED[scheme]}</message>"
        async with both.a.client(via, CAROL) as carol:
            alice = await Wire(both.a, "alice@a.test/stock").open()
            alice.send(parse_document(text.encode()))
            await alice.until(lambda: bool(alice.stanzas))
            [error] = alice.stanzas
            assert (error.get("type"), error.get("id")) == ("error", "s1")
            said = written(error)
            assert "<not-acceptable" in said
            assert "The message is encrypted with" in said
            alice.say("carol@a.test", "in the clear")
            [received] = await take(carol)
            assert received.text == "in the clear"

    run(story())


def test_an_xmpp_program_that_refused_an_object_is_not_handed_the_next_in_vain(both: Neighbours) -> None:
    """G-03: it never said what it supports; its error stanza does. The second is refused where the first was only tried."""

    async def story() -> None:
        bob = await stock(both)
        bob.takes = False
        async with both.a.client("sip", ALICE, receive=False) as alice:
            first = asyncio.ensure_future(alice.send(ENCRYPTED, BOB))
            await bob.until(lambda: any(stanza.find(E2E_ELEMENT) is not None for stanza in bob.stanzas))
            [stanza] = [each for each in bob.stanzas if each.find(E2E_ELEMENT) is not None]
            refused = wire.error_reply(stanza, "not-acceptable")
            assert refused is not None
            bob.send(refused)
            bob.takes = True
            assert (await first).reason is Reason.CONTENT
            before = len(bob.stanzas)
            assert (await alice.send(MimeObject(HEADERS, b"MIAGCSqGSIb3DQEHA6CB"), BOB)).reason is Reason.CONTENT
            bob.say("bob@b.test/stock", "to myself")
            await bob.until(lambda: bob.texts[-1:] == ["to myself"])
            assert not [each for each in bob.stanzas[before:] if each.find(E2E_ELEMENT) is not None]

    run(story())

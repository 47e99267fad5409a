"""Stories for every ordered pair of bindings, over real sockets against a real server process (T1, GW-1, SEED-1…5, 9)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from comity.bindings.base import Transport
from comity.client import ClientError, Received, connect, text_object
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Reason, Status
from comity.secure import Identity, LocalCa, TrustStore, new_identity, sign, verify
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

TEXT = "Grüße 👋🏽 <&>\" ' ]]> &amp;\nsecond line\n\n" + "x" * 5000
VIAS: list[Via] = ["sip", "xmpp", "apex"]
pairs = pytest.mark.parametrize(("source", "sink"), [(a, b) for a in VIAS for b in VIAS])


def run(work: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await work

    asyncio.run(bounded())


async def exchange(server: ServerProcess, source: Via, sink: Via, things: list[MimeObject]) -> list[Received]:
    """Alice sends each object to Bob, who is there; what he gets."""
    async with server.client(source, ALICE, receive=False) as alice, server.client(sink, BOB) as bob:
        got: list[Received] = []
        messages = bob.messages()
        for thing in things:
            answer = alice.send(thing, BOB)
            got.append(await anext(messages))
            following = asyncio.ensure_future(anext(messages))  # takes it
            await asyncio.sleep(0)  # even if the answer is there already
            assert (await answer).status is not Status.FAILURE
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            messages = bob.messages()
        while await asyncio.to_thread(server.waiting):
            pass
        return got


@pytest.fixture(scope="module")
def authority() -> LocalCa:
    return LocalCa.create("Test authority", when=datetime.now(UTC))


@pytest.fixture(scope="module")
def alice(authority: LocalCa) -> Identity:
    return new_identity(ALICE, ca=authority, when=datetime.now(UTC))


@pairs
def test_a_text_arrives_as_it_was_written(server: ServerProcess, source: Via, sink: Via) -> None:
    """Emoji, markup, several lines, 5,000 characters; the object is the sender's own (SEED-9, SEED-32)."""

    async def story() -> None:
        thing = text_object(ALICE, BOB, TEXT)
        [received] = await exchange(server, source, sink, [thing])
        assert received.object.octets == thing.octets
        assert received.text is not None
        assert received.text.replace("\r\n", "\n") == TEXT
        assert received.from_ == ALICE
        assert received.asserted_by == "a.test"
        [hop] = received.history
        assert (hop.node, hop.in_protocol, hop.out_protocol) == ("a.test", source, sink)

    run(story())


@pairs
@pytest.mark.parametrize("form", ["multipart", "signed-data"])
def test_a_signature_verifies_on_the_far_side(
    server: ServerProcess, source: Via, sink: Via, form: str, alice: Identity, authority: LocalCa
) -> None:
    """SEED-4: no hop changed an octet, whatever protocols lie between."""

    async def story() -> None:
        thing = text_object(ALICE, BOB, "signed 🎉")
        kind: Literal["multipart", "signed-data"] = "multipart" if form == "multipart" else "signed-data"
        signed = sign(thing, alice, form=kind, when=datetime.now(UTC))
        [received] = await exchange(server, source, sink, [signed])
        assert received.object.octets == signed.octets
        trust = TrustStore(anchors=(authority.certificate,))
        verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=ALICE, expected_to=BOB)
        assert (verdict.verdict, verdict.signer) == ("valid", ALICE.uri), verdict.reason

    run(story())


@pytest.mark.parametrize("transport", ["udp", "tls"])
@pytest.mark.parametrize(
    ("source", "sink"), [("sip", "apex"), ("apex", "sip"), ("sip", "xmpp"), ("xmpp", "sip"), ("sip", "sip")]
)
def test_a_signed_text_goes_by_udp_and_by_tls(
    server: ServerProcess, source: Via, sink: Via, transport: Transport, alice: Identity
) -> None:
    """The pairs with SIP once more by its other transports; the ones above go by TCP, XMPP and APEX under TLS."""

    async def story() -> None:
        things = [text_object(ALICE, BOB, "plain")]
        if transport == "tls":  # a signed one is more than a datagram may hold (RFC 3261 section 18.1.1)
            things.append(sign(text_object(ALICE, BOB, "signed"), alice, when=datetime.now(UTC)))
        from_, to = (transport if via == "sip" else "tls" for via in (source, sink))
        async with (
            server.client(source, ALICE, from_, receive=False) as sender,
            server.client(sink, BOB, to) as bob,
        ):
            messages = bob.messages()
            sent = [sender.send(thing, BOB) for thing in things]
            got = [await anext(messages) for _ in things]
            taking = asyncio.ensure_future(anext(messages))
            assert all(answer.status is not Status.FAILURE for answer in await asyncio.gather(*sent))
            while await asyncio.to_thread(server.waiting):
                pass
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        assert sorted(one.object.octets for one in got) == sorted(thing.octets for thing in things)

    run(story())


@pairs
def test_messages_for_somebody_away_wait_and_come_in_order(server: ServerProcess, source: Via, sink: Via) -> None:
    """Stored in order, delivered in order at sign-in; a device is told that they are late (XEP-0203)."""

    async def story() -> None:
        things = [text_object(ALICE, BOB, f"{n}", when=datetime.now(UTC) - timedelta(hours=1)) for n in range(20)]
        async with server.client(source, ALICE, receive=False) as sender:
            answers = await asyncio.gather(*[sender.send(thing, BOB) for thing in things])
        assert {answer.status for answer in answers} == {Status.INDETERMINANT}
        got: list[str] = []
        async with server.client(sink, BOB) as bob:
            async for received in bob.messages():
                got.append(received.object.fingerprint)
                if len(got) == len(things):
                    break
        assert got == [thing.fingerprint for thing in things]

    run(story())
    clear(server)


def test_phones_that_send_at_the_same_moment_each_get_their_answer(server: ServerProcess) -> None:
    """Requests of different connections have the same number within their connection; none answers for another."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            phones = [
                await stack.enter_async_context(server.client("sip", ALICE, "tcp", receive=False)) for _ in range(4)
            ]
            for turn in range(3):
                sent = [phone.send(text_object(ALICE, BOB, f"{turn} " + "x" * 9_000), BOB) for phone in phones]
                assert {answer.status for answer in await asyncio.gather(*sent)} == {Status.INDETERMINANT}

    run(story())
    clear(server)


@pytest.mark.parametrize("source", VIAS)
def test_nobody_can_write_as_somebody_else(server: ServerProcess, source: Via) -> None:
    """T1, S-06, X-46, C-20: neither on the wire nor inside the object."""

    async def story() -> None:
        async with server.client(source, ALICE, receive=False) as sender:
            inside = await sender.send(text_object(BOB, ALICE, "as bob"), ALICE)
            assert (inside.status, inside.reason) == (Status.FAILURE, Reason.DENIED)
            outside = await sender.send(text_object(BOB, ALICE, "as bob"), ALICE, from_=BOB)
            assert (outside.status, outside.reason) == (Status.FAILURE, Reason.DENIED)

    run(story())
    assert not server.waiting()


@pytest.mark.parametrize("source", VIAS)
def test_what_cannot_be_delivered_is_said_at_once(server: ServerProcess, source: Via) -> None:
    """OPS-5, OPS-13: unknown user, foreign domain, malformed object; each in the protocol's own words."""

    async def story() -> None:
        async with server.client(source, ALICE, receive=False) as sender:
            for uri in ("im:nobody@a.test", "im:x@elsewhere.test"):
                to = Address.parse(uri)
                answer = await sender.send(text_object(ALICE, to, "x"), to)
                assert answer.status is Status.FAILURE
            broken = MimeObject.of("message/cpim", b"From: <im:alice@a.test>\n\nnot CPIM")
            answer = await sender.send(broken, BOB)
            assert (answer.status, answer.reason) == (Status.FAILURE, Reason.SYNTAX)
            assert "malformed" in answer.text

    run(story())
    assert not server.waiting()


@pytest.mark.parametrize("via", VIAS)
def test_a_wrong_password_and_a_wrong_authority_are_refused(server: ServerProcess, via: Via) -> None:
    """SEC-29: TLS with a certificate that is checked; credentials that are checked."""

    async def story() -> None:
        transport = "tls"
        port = server.port(via, "tls")
        authority = server.directory / "data" / "tls" / "ca.pem"
        with pytest.raises(ClientError, match=r"not-authorized|401|535"):
            async with connect(via, ALICE, "wrong", server=port, transport="tls", ca_file=authority):
                pass
        with pytest.raises(ClientError, match="certificate"):
            async with connect(via, ALICE, "any", server=port, transport="tls"):
                pass
        assert transport == "tls"

    run(story())


def clear(server: ServerProcess) -> None:
    """Take what the last device did not: the break above leaves one message untaken, and receipts for who has left."""

    async def take() -> None:
        async with server.client("xmpp", BOB) as bob, server.client("apex", ALICE) as alice:
            reading = [asyncio.ensure_future(_drain(person.messages())) for person in (bob, alice)]
            while await asyncio.to_thread(server.waiting):
                pass
            for each in reading:
                each.cancel()

    async def _drain(messages: object) -> None:
        async for _ in messages:  # type: ignore[attr-defined]  # an async iterator
            pass

    run(take())


@pairs
def test_odd_boundaries_inside_a_signed_message_arrive_as_they_are(
    server: ServerProcess, source: Via, sink: Via, alice: Identity, authority: LocalCa
) -> None:
    """SEC-2: what stands inside is nobody's to tidy up: white space after boundaries, folded headers, a preamble."""

    async def story() -> None:
        when = datetime.now(UTC)
        inside = (
            b"This is a preamble.\r\n\r\n--=_ odd :boundary \t\r\ncontent-TYPE:\r\n\ttext/plain;\r\n charset = utf-8\r\n\r\n"
            b"first \t\r\n--=_ odd :boundary\r\n\r\nsecond\r\n--=_ odd :boundary--  \r\nan epilogue"
        )
        message = CpimMessage.build(
            from_=ALICE,
            to=BOB,
            date_time=when,
            content=inside,
            content_type='multipart/mixed ; boundary="=_ odd :boundary"',
        )
        signed = sign(MimeObject.of("message/cpim", message.raw), alice, when=when)
        [received] = await exchange(server, source, sink, [signed])
        assert received.object.octets == signed.octets
        trust = TrustStore(anchors=(authority.certificate,))
        verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=ALICE, expected_to=BOB)
        assert verdict.is_valid, verdict.reason
        assert verdict.content is not None
        assert verdict.content.octets == message.raw

    run(story())

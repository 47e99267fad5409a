"""Two real servers and SIP over TLS between them: both ways, whole objects, failures, an outage (SEED-1, GW-8, T2, SEC-33)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from datetime import UTC, datetime

import pytest

from comity.client import Client, ClientError, Received, text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Status
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from tests.interop.apex_peer import Application, option
from tests.paths.kit import PASSWORD, ServerProcess, Via
from tests.paths.neighbours import ALICE, BOB, CAROL, Neighbours

NOBODY = Address.parse("im:nobody@b.test")


def run(work: Coroutine[None, None, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await work

    asyncio.run(bounded())


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with Neighbours(tmp_path_factory.mktemp("neighbours")) as neighbours:
        yield neighbours


async def carry(
    source: tuple[ServerProcess, Via, Address], sink: tuple[ServerProcess, Via, Address], thing: MimeObject
) -> Received:
    """Send from one server's user to the other's, who is there."""
    sender = source[0].client(source[1], source[2], receive=False)
    async with sender as one, sink[0].client(sink[1], sink[2]) as other:
        sending = asyncio.ensure_future(one.send(thing, sink[2]))
        [received] = await listening(other, 1)
        answer = await sending
        # An XMPP stream acknowledges what its server took; the others say that it was delivered.
        assert answer.status is (Status.INDETERMINANT if source[1] == "xmpp" else Status.SUCCESS)
        return received


VIAS: list[Via] = ["sip", "xmpp", "apex"]


@pytest.mark.parametrize(("source", "sink"), [(source, sink) for source in VIAS for sink in VIAS])
def test_a_signed_object_crosses_two_servers_untouched(both: Neighbours, source: Via, sink: Via) -> None:
    """The seed's drawing, and its kin: APEX client, server, SIP, server, XMPP client. The far end verifies what the near end
    signed, and sees by which way it came (SEED-1)."""

    async def story() -> None:
        authority = LocalCa.create("Test authority", when=datetime.now(UTC))
        alice = new_identity(ALICE, ca=authority, when=datetime.now(UTC))
        signed = sign(text_object(ALICE, BOB, "signed 🎉"), alice, when=datetime.now(UTC))
        received = await carry((both.a, source, ALICE), (both.b, sink, BOB), signed)
        assert received.object.octets == signed.octets
        assert received.from_ == ALICE
        trust = TrustStore(anchors=(authority.certificate,))
        verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=ALICE, expected_to=BOB)
        assert (verdict.verdict, verdict.signer) == ("valid", ALICE.uri), verdict.reason
        assert [(hop.node, hop.in_protocol, hop.out_protocol) for hop in received.history] == [
            ("a.test", source, "sip"),
            ("b.test", "sip", sink),
        ]

    run(story())


def test_and_back(both: Neighbours) -> None:
    async def story() -> None:
        thing = text_object(BOB, ALICE, "hello Alice")
        received = await carry((both.b, "xmpp", BOB), (both.a, "sip", ALICE), thing)
        assert received.object.octets == thing.octets
        assert received.asserted_by == "b.test"

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_somebody_unknown_there_is_said_to_be_unknown(both: Neighbours, via: Via) -> None:
    """The other server's own word comes back to the sender natively, and nothing waits."""

    async def story() -> None:
        async with both.a.client(via, ALICE) as alice:
            answer = await alice.send(text_object(ALICE, NOBODY, "hi"), NOBODY)
            reason = answer.reason
            if via == "xmpp":  # the acknowledgement of the stream comes first
                [received] = await listening(alice, 1)
                report = received.report
                assert report is not None
                reason = report.reason
            assert reason is Reason.NO_SUCH_USER
        assert both.a.waiting() == 0

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_a_refusal_afterwards_comes_back_over_both_servers(both: Neighbours, via: Via) -> None:
    """GW-12: Bob was away; what his program says of the message when it gets it is told to Alice, by her own server."""

    async def story() -> None:
        async with both.a.client(via, ALICE) as alice:
            answer = await alice.send(text_object(ALICE, BOB, "forged?"), BOB)
            assert answer.status is not Status.FAILURE
            reported = asyncio.ensure_future(listening(alice, 1))
            async with both.b.client("xmpp", BOB) as bob:
                received = await anext(bob.messages())
                received.refuse(Reason.SIGNATURE, "It does not verify.")
                [told] = await reported
        assert told.report is not None
        # 537 is all that T7 has for it.
        assert told.report.reason is (Reason.DENIED if via == "apex" else Reason.SIGNATURE)
        assert told.report.recipient == BOB

    run(story())


def test_a_receipt_crosses_a_protocol_that_has_none(both: Neighbours) -> None:
    """An application written from RFC 3340 alone asks to be told; Bob is away, and gets it later.

    b.test took it over by SIP with 202, which is no receipt; what it says when Bob's XMPP client has it is one."""

    async def bob_comes() -> None:
        async with both.b.client("xmpp", BOB) as bob:
            assert texts(await listening(bob, 1)) == ["told?"]

    thing = text_object(ALICE, BOB, "told?")
    with Application(*both.a.port("apex", "tcp")) as alice:
        alice.sign_in("alice@a.test", PASSWORD)
        alice.attach("alice@a.test")
        part = (b"Content-Type: message/cpim\r\n", thing.octets)
        alice.data("alice@a.test", "bob@b.test", part=part, options=option("statusRequest", 4711, must=True))
        run(bob_comes())
        said = alice.receive(10.0)
        assert said.originator == "apex=report@a.test"
        assert said.inline is not None
        [response] = said.inline.iter("statusResponse")
        [destination] = response.iter("destination")
        [reply] = response.iter("reply")
        assert (response.get("transID"), destination.get("identity")) == ("4711", "bob@b.test")
        assert reply.get("code") == "250"
        alice.release()


def test_an_outage_loses_nothing_and_keeps_the_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The other server is killed, then our own; the queue is shown, drains in order, and nobody else waits for it.

    Two servers made and four started take their seconds."""
    count = 60

    async def outage(both: Neighbours) -> None:
        async with (
            both.a.client("sip", ALICE, receive=False) as alice,
            both.a.client("xmpp", CAROL) as carol,
            both.b.client("xmpp", BOB) as bob,
        ):
            heard = asyncio.ensure_future(listening(carol, 5))
            before = asyncio.ensure_future(listening(bob, 1))
            assert (await alice.send(text_object(ALICE, BOB, "before"), BOB)).status is Status.SUCCESS
            assert texts(await before) == ["before"]
            both.b.kill()
            for n in range(count):
                answer = await alice.send(text_object(ALICE, BOB, f"{n}"), BOB)
                assert answer.status is Status.INDETERMINANT
                if n % 12 == 0:
                    answer = await alice.send(text_object(ALICE, CAROL, f"{n}"), CAROL)
                    assert answer.status is Status.SUCCESS
            assert texts(await heard) == [f"{n}" for n in range(0, count, 12)]

    async def after(both: Neighbours) -> list[str | None]:
        async with both.b.client("xmpp", BOB) as bob:
            both.a.run("queue", "retry", "-c", str(both.a.config))  # all: it may be empty by now
            return texts(await listening(bob, count))

    with Neighbours(tmp_path_factory.mktemp("outage")) as both:
        run(outage(both))
        lanes = json.loads(both.a.run("queue", "list", "--json", "-c", str(both.a.config)))
        assert [(lane["lane"], lane["pending"]) for lane in lanes] == [("hop/sip:b.test", count)]
        both.a.kill()
        both.a.start()
        both.b.start()
        got: list[str | None] = []

        async def drained() -> None:
            got.extend(await after(both))

        run(drained())
        assert got == [f"{n}" for n in range(count)]
        run(killed_between_answer_and_note(both))
        assert both.a.stop() == 0


async def killed_between_answer_and_note(both: Neighbours) -> None:
    """The other server took the message, ours dies before that is durable: it sends again, and the other knows the repeat."""
    both.a.kill()
    both.a.start("delivery.before-ack")
    async with both.b.client("xmpp", BOB) as bob:
        with pytest.raises(ClientError):
            async with both.a.client("sip", ALICE, receive=False) as alice:
                sending = asyncio.ensure_future(alice.send(text_object(ALICE, BOB, "once"), BOB))
                assert texts(await listening(bob, 1)) == ["once"]
                await sending
        both.a.reap()
        both.a.start()
        async with both.a.client("sip", ALICE, receive=False) as alice:
            sending = asyncio.ensure_future(alice.send(text_object(ALICE, BOB, "after"), BOB))
            assert texts(await listening(bob, 1)) == ["after"]
            assert (await sending).status is Status.SUCCESS
    assert both.a.waiting() == both.b.waiting() == 0


async def listening(client: Client, count: int) -> list[Received]:
    """The first messages of a client, each taken."""
    messages = client.messages()
    got = [await anext(messages) for _ in range(count)]
    following = asyncio.ensure_future(anext(messages))  # takes the last
    await asyncio.sleep(0)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    return got


def texts(received: list[Received]) -> list[str | None]:
    return [one.text for one in received]

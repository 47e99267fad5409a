"""Two real servers and XMPP streams between them: both ways, whole objects, failures, outages (XMPP-3, GW-8, GW-12, T3, T8, SEC-33)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from comity.bindings.xmpp import events
from comity.bindings.xmpp.wire import error_of
from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Requirement, Status
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from comity.xml import Element
from tests.paths.kit import Via
from tests.paths.neighbours import ALICE, BOB, CAROL, Neighbours
from tests.paths.test_neighbours import VIAS, listening, run, texts
from tests.paths.xmpp_wire import Wire
from tests.paths.xmpp_wire import run as run_wires

NOBODY = Address.parse("im:nobody@b.test")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neighbours]:
    with Neighbours(tmp_path_factory.mktemp("servers"), "xmpp", "tcp") as neighbours:
        yield neighbours


@pytest.mark.parametrize(("source", "sink"), [(source, sink) for source in VIAS for sink in VIAS])
def test_a_signed_object_crosses_two_servers_untouched(both: Neighbours, source: Via, sink: Via) -> None:
    """G3, GW-2: whatever the people speak, the far end verifies what the near end signed."""

    async def story() -> None:
        authority = LocalCa.create("Test authority", when=datetime.now(UTC))
        alice = new_identity(ALICE, ca=authority, when=datetime.now(UTC))
        signed = sign(text_object(ALICE, BOB, "signed 🎉"), alice, when=datetime.now(UTC))
        async with both.a.client(source, ALICE, receive=False) as one, both.b.client(sink, BOB) as other:
            sending = asyncio.ensure_future(one.send(signed, BOB))
            [received] = await listening(other, 1)
            assert (await sending).status is Status.INDETERMINANT  # the other server reports what goes wrong later
        assert received.object.octets == signed.octets
        assert received.from_ == ALICE
        trust = TrustStore(anchors=(authority.certificate,))
        verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=ALICE, expected_to=BOB)
        assert (verdict.verdict, verdict.signer) == ("valid", ALICE.uri), verdict.reason
        assert [(hop.node, hop.in_protocol, hop.out_protocol) for hop in received.history] == [
            ("a.test", source, "xmpp"),
            ("b.test", "xmpp", sink),
        ]

    run(story())


def test_and_back(both: Neighbours) -> None:
    """A plain text too: who vouches for its sender is said (GW-1)."""

    async def story() -> None:
        thing = text_object(BOB, ALICE, "hello Alice")
        async with both.b.client("xmpp", BOB, receive=False) as bob, both.a.client("sip", ALICE) as alice:
            await bob.send(thing, ALICE)
            [received] = await listening(alice, 1)
        assert received.object.octets == thing.octets
        assert received.asserted_by == "b.test"

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_somebody_unknown_there_is_said_to_be_unknown(both: Neighbours, via: Via) -> None:
    """GW-12: the other server took the message and says afterwards that there is nobody; that is told, once, and nothing waits."""

    async def story() -> None:
        async with both.a.client(via, ALICE) as alice:
            answer = await alice.send(text_object(ALICE, NOBODY, "hi"), NOBODY)
            reason = answer.reason
            if via != "apex":  # which waits a moment for a report
                assert answer.status is Status.INDETERMINANT
                [received] = await listening(alice, 1)
                assert received.report is not None
                assert received.report.recipient == NOBODY
                reason = received.report.reason
            assert reason is Reason.DENIED  # XMPP-8: an unknown user looks like one who takes no messages
        assert both.a.waiting() == 0

    run(story())


@pytest.mark.parametrize("via", VIAS)
def test_a_refusal_afterwards_comes_back_over_both_servers(both: Neighbours, via: Via) -> None:
    """GW-12, T8: Bob was away; what his program says of the message when it gets it is told to Alice, by her own server."""

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
        assert told.report.reason is (Reason.DENIED if via == "apex" else Reason.SIGNATURE)
        assert told.report.recipient == BOB

    run(story())


def test_an_outage_loses_nothing_and_keeps_the_order(tmp_path_factory: pytest.TempPathFactory) -> None:
    """D-14's kin: the other server is killed, then our own; the queue is shown, drains in order, nobody else waits for it. Direct TLS."""
    count = 60

    async def outage(both: Neighbours) -> None:
        async with (
            both.a.client("sip", ALICE, receive=False) as alice,
            both.a.client("xmpp", CAROL) as carol,
            both.b.client("xmpp", BOB) as bob,
        ):
            heard = asyncio.ensure_future(listening(carol, 5))
            before = asyncio.ensure_future(listening(bob, 1))
            assert (await alice.send(text_object(ALICE, BOB, "before"), BOB)).status is Status.INDETERMINANT
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
            got = texts(await listening(bob, count))
            if got[0] == "before":  # killed before it had the word that Bob has it: then it comes again, and first
                got = [*got[1:], *texts(await listening(bob, 1))]
            return got

    with Neighbours(tmp_path_factory.mktemp("outage"), "xmpp") as both:
        run(outage(both))
        lanes = json.loads(both.a.run("queue", "list", "--json", "-c", str(both.a.config)))
        assert [(lane["lane"], lane["pending"]) for lane in lanes] == [("hop/xmpp:b.test", count)]
        both.a.kill()
        both.a.start()
        both.b.start()
        got: list[str | None] = []

        async def drained() -> None:
            got.extend(await after(both))

        run(drained())
        assert got == [f"{n}" for n in range(count)]
        assert both.a.stop() == 0


def test_what_xml_cannot_hold_crosses_between_two_that_know_how(both: Neighbours) -> None:
    """GW-2, T11: the other server is asked once what it can do; then any octets cross, and so does what must stay whole."""

    async def story() -> None:
        head = f"From: <{ALICE.uri}>\r\nTo: <{BOB.uri}>\r\n\r\nContent-Type: application/octet-stream\r\n\r\n".encode()
        thing = MimeObject.of("message/cpim", head + bytes(range(256)))
        async with both.a.client("sip", ALICE, "tls", receive=False) as alice, both.b.client("sip", BOB, "tls") as bob:
            assert (await alice.send(thing, BOB)).status is Status.INDETERMINANT
            [received] = await listening(bob, 1)
            assert received.object.octets == thing.octets
            when = datetime.now(UTC)
            identity = new_identity(ALICE, ca=LocalCa.create("Test authority", when=when), when=when)
            signed = sign(text_object(ALICE, BOB, "whole"), identity, when=when)
            answer = await alice.send(signed, BOB, requirements={Requirement.SIGNED, Requirement.TLS})
            assert answer.status is Status.INDETERMINANT, answer
            [received] = await listening(bob, 1)
            assert received.object.octets == signed.octets

    run(story())


def test_queries_cross_and_tell_nobody_too_much(both: Neighbours) -> None:
    """RFC 6121 section 8.5, XMPP-8: of the other server and of what people show; who does not exist looks like who shows nothing."""
    card = Element("{vcard-temp}vCard", {}, [Element("{vcard-temp}FN", {}, ["Bob of b"])])

    async def ask(wire: Wire, to: str, payload: Element, kind: str = "get") -> str:
        id = f"{kind} {to} {payload.name} {len(wire.events)}"
        wire.session.send_stanza(Element("{jabber:client}iq", {"type": kind, "to": to, "id": id}, [payload]))
        wire.flush()

        def answers() -> list[Element]:
            got = [event.stanza for event in wire.of(events.StanzaReceived) if isinstance(event, events.StanzaReceived)]
            return [stanza for stanza in got if stanza.local == "iq" and stanza.get("id") == id]

        await wire.until(lambda: bool(answers()))
        [answer] = answers()
        assert answer.get("from") == to
        error = answer.find("{jabber:client}error")
        return answer.get("type") if error is None else error_of(error)[0]

    async def story() -> None:
        alice, bob = await Wire(both.a, "alice@a.test").open(), await Wire(both.b, "bob@b.test").open()
        empty = Element("{vcard-temp}vCard")
        for name in ("{http://jabber.org/protocol/disco#info}query", "{jabber:iq:version}query", "{urn:xmpp:ping}ping"):
            assert await ask(alice, "b.test", Element(name)) == "result"
        assert await ask(alice, "b.test", Element("{jabber:iq:register}query")) == "forbidden"
        hidden = {await ask(alice, f"{name}@b.test", empty) for name in ("bob", "nobody")}
        assert hidden == {"service-unavailable"}
        assert await ask(bob, "bob@b.test", card, "set") == "result"
        assert await ask(alice, "bob@b.test", empty) == "result"
        assert await ask(alice, "bob@b.test", card, "set") == "forbidden"
        for name in ("bob", "nobody"):
            pinged = await ask(alice, f"{name}@b.test/some", Element("{urn:xmpp:ping}ping"))
            assert pinged == "service-unavailable"

    run_wires(story())

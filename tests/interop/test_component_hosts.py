"""Comity as a component of stock XMPP servers (mode 2, XEP-0114): Prosody and ejabberd, both ways.

Their people use their server and nothing else; ours use SIP. Nothing is installed there but two lines with a shared secret.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Status
from comity.cpim.presence_state import Availability
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from comity.testing.objects import objects
from tests.interop.authority import Authority
from tests.interop.guest import Guest
from tests.interop.xmpp_servers import PASSWORD, EjabberdServer, Names, ProsodyServer, StockServer
from tests.paths.kit import ServerProcess
from tests.paths.test_neighbours import listening, run, texts
from tests.paths.test_presence_abroad import asked, until, watching

ALICE, NOBODY = Address.parse("im:alice@sip.x.test"), Address.parse("im:nobody@sip.x.test")
JULIET, ROMEO = Address.parse("im:juliet@x.test"), Address.parse("im:romeo@x.test")
NONE = Address.parse("im:none@x.test")
SECRET = "what both know"


@dataclass(frozen=True, slots=True)
class Pair:
    """Comity for sip.x.test and a stock server for x.test."""

    comity: ServerProcess
    host: StockServer


@pytest.fixture(scope="module", params=[ProsodyServer, EjabberdServer], ids=["prosody", "ejabberd"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("component")
    kind: type[StockServer] = request.param
    with ExitStack() as stack:
        names = stack.enter_context(Names())
        authority = Authority(folder / "authority")
        server = stack.enter_context(ServerProcess(folder, "presence_interval = 0.1", ("sip.x.test",), (ALICE,)))
        host = kind(
            *(folder / "host", "x.test", names, authority),
            accounts=("juliet", "romeo"),
            components={"sip.x.test": SECRET, "other.x.test": SECRET},
        )
        with server.config.open("a", encoding="utf-8") as config:
            config.write(
                f'[[xmpp.component]]\ndomain = "sip.x.test"\nport = {host.component_ports["sip.x.test"]}\nsecret = "{SECRET}"\n'
            )
        stack.enter_context(host)
        server.start()
        yield Pair(server, host)


def _has_more(person: Guest, errors: int) -> bool:
    return len(person.errors) > errors


def guest(pair: Pair, name: str = "juliet") -> Guest:
    return Guest.person(f"{name}@x.test/slix", PASSWORD, ("127.0.0.1", pair.host.c2s), str(pair.host.trust))


def test_a_text_goes_there_and_back(pair: Pair) -> None:
    """GW-2: what the host took is said to be passed on, once it answered for it; nothing waits."""

    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice, pair.host.client("juliet") as juliet:
            answer = await alice.send(text_object(ALICE, JULIET, "there"), JULIET)
            assert answer.status is Status.INDETERMINANT
            assert texts(await listening(juliet, 1)) == ["there"]
            await juliet.send(text_object(JULIET, ALICE, "and back"), ALICE)
            [received] = await listening(alice, 1)
            assert (received.text, received.from_) == ("and back", JULIET)
            assert received.asserted_by == "x.test"
        assert pair.comity.waiting() == 0

    run(story())


def test_objects_cross_the_host_octet_for_octet(pair: Pair) -> None:
    """G3: signed ones and ones of every kind of content, from SIP through the host to its clients and back."""

    async def story() -> None:
        authority = LocalCa.create("Test authority", when=datetime.now(UTC))
        trust = TrustStore(anchors=(authority.certificate,))
        async with pair.comity.client("sip", ALICE) as alice, pair.host.client("juliet") as juliet:
            for one, other, me, you in ((alice, juliet, ALICE, JULIET), (juliet, alice, JULIET, ALICE)):
                identity = new_identity(me, ca=authority, when=datetime.now(UTC))
                signed = sign(text_object(me, you, "signed 🎉"), identity, when=datetime.now(UTC))
                await one.send(signed, you)
                [received] = await listening(other, 1)
                assert received.object.octets == signed.octets
                verdict = verify(received.object, trust, now=datetime.now(UTC), expected_from=me, expected_to=you)
                assert (verdict.verdict, verdict.signer) == ("valid", me.uri), verdict.reason
                crossed = 0
                made = [thing for thing in objects(114, 24, me, you) if thing.is_valid and len(thing.octets) < 20_000]
                for thing in made[:10]:
                    answer = await one.send(MimeObject.of("message/cpim", thing.octets), you)
                    if answer.status is Status.FAILURE:  # XML text cannot hold it: whole or not at all, and said so
                        assert answer.reason is Reason.CONTENT
                        continue
                    [received] = await listening(other, 1)
                    assert received.object.octets == thing.octets, thing.kind
                    crossed += 1
                assert crossed >= 4

    run(story())


def test_bodies_of_every_kind_reach_the_phone(pair: Pair) -> None:
    """T5: languages, subject and thread, line breaks, markup that means nothing, formatting with its plain text beside it."""

    async def story() -> None:
        async with guest(pair) as juliet, pair.comity.client("sip", ALICE) as alice:
            for text in ("zwei\nZeilen & <b>kein</b> Markup", "🎉 " * 200, "x" * 9_000):
                juliet.client.send_message(mto="alice@sip.x.test", mbody=text, mtype="chat")
                [received] = await listening(alice, 1)
                assert (received.text or "").replace("\r\n", "\n") == text
            message = juliet.client.make_message(
                mto="alice@sip.x.test", mbody="plain", msubject="a subject", mtype="normal"
            )
            html = "<html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'>"
            message.append(
                importlib.import_module("xml.etree.ElementTree").fromstring(f"{html}<p>rich</p></body></html>")
            )
            message.send()
            [received] = await listening(alice, 1)
            assert received.text == "plain"
            await alice.send(text_object(ALICE, JULIET, "two\r\nlines"), JULIET)
            await juliet.until(lambda: "two\nlines" in juliet.texts)

    run(story())


def test_who_is_not_there_is_told_of_natively_both_ways(pair: Pair) -> None:
    """GW-12: the host's own error becomes the SIP user's answer or report, ours becomes an error stanza."""

    async def story() -> None:
        async with guest(pair) as juliet, pair.comity.client("sip", ALICE) as alice:
            juliet.client.send_message(mto="nobody@sip.x.test", mbody="hello?", mtype="chat")
            await juliet.until(lambda: juliet.errors == [("nobody@sip.x.test", "service-unavailable")])
            answer = await alice.send(text_object(ALICE, NONE, "hello?"), NONE)
            assert answer.status is Status.INDETERMINANT
            [told] = await listening(alice, 1)
            assert told.report is not None
            assert told.report.reason in (Reason.NO_SUCH_USER, Reason.DENIED)  # "service-unavailable" says no more
            assert told.report.recipient == NONE

    run(story())


def test_what_comes_while_somebody_is_away_waits_on_the_persons_own_side(pair: Pair) -> None:
    async def story() -> None:
        async with pair.host.client("juliet", receive=False) as juliet:
            await juliet.send(text_object(JULIET, ALICE, "when you are back"), ALICE)
        async with pair.comity.client("sip", ALICE) as alice:
            assert texts(await listening(alice, 1)) == ["when you are back"]
            await alice.send(text_object(ALICE, ROMEO, "and you"), ROMEO)
        async with pair.host.client("romeo") as romeo:
            assert texts(await listening(romeo, 1)) == ["and you"]

    run(story())


def test_clients_of_the_host_are_shown_a_gateway(pair: Pair) -> None:
    """XEP-0030, 0054, 0092, 0100, 0199: it is among the host's items, and nobody has to register."""

    async def story() -> None:
        async with guest(pair) as juliet:
            client, plugin = juliet.client, juliet.client.plugin
            items = await plugin["xep_0030"].get_items("x.test")
            assert "sip.x.test" in {str(item[0]) for item in items["disco_items"]["items"]}
            info = (await plugin["xep_0030"].get_info("sip.x.test"))["disco_info"]
            assert [identity[:2] for identity in info["identities"]] == [("gateway", "sip")]
            assert {"jid\\20escaping", "jabber:iq:gateway", "urn:xmpp:ping"} <= set(info["features"])
            assert "jabber:iq:register" not in info["features"]
            version = (await plugin["xep_0092"].get_version("sip.x.test"))["software_version"]
            assert version["name"] == "Comity"
            assert await plugin["xep_0199"].ping("sip.x.test") < 30
            card = await plugin["xep_0054"].get_vcard("sip.x.test")
            assert card["vcard_temp"]["FN"] == "SIP"
            asked = client.make_iq_set(ito="sip.x.test")
            query = "<query xmlns='jabber:iq:gateway'><prompt>sip:bob@sip.x.test</prompt></query>"
            asked.append(importlib.import_module("xml.etree.ElementTree").fromstring(query))
            assert "bob@sip.x.test" in str(await asked.send())

    run(story())


def test_a_stranger_that_the_host_lets_through_is_refused_and_the_stream_stays(pair: Pair) -> None:
    """K-04, G8: the host may speak for the domains it serves, not for whoever else it relays; told to each, per message."""

    stranger_port = pair.host.component_ports["other.x.test"]

    async def story() -> None:
        async with (
            Guest.component("other.x.test", SECRET, ("127.0.0.1", stranger_port)) as stranger,
            pair.comity.client("sip", ALICE) as alice,
            pair.host.client("juliet", receive=False) as juliet,
        ):
            stranger.client.send_message(mto="alice@sip.x.test", mbody="believe me", mfrom="juliet@other.x.test")
            await stranger.until(lambda: stranger.errors == [("alice@sip.x.test", "forbidden")])
            await juliet.send(text_object(JULIET, ALICE, "really me"), ALICE)
            assert texts(await listening(alice, 1)) == ["really me"]

    run(story())


def test_presence_is_asked_for_granted_and_seen_both_ways(pair: Pair) -> None:
    """GW-13 to GW-15 through a component: the host knows its own people's lists, we ours."""

    async def story() -> None:
        async with (
            guest(pair) as juliet,
            pair.comity.client("sip", ALICE) as alice,
            pair.comity.client("xmpp", ALICE, receive=False) as desk,
        ):
            juliet.client.auto_authorize, juliet.client.auto_subscribe = True, False
            await alice.publish(Availability.AWAY, "in a meeting")
            juliet.client.send_presence_subscription(pto="alice@sip.x.test")
            await asked(desk, JULIET)
            assert (await desk.allow(JULIET)).status is Status.SUCCESS
            await juliet.until(lambda: ("alice@sip.x.test", "subscribed") in juliet.presences)
            await juliet.until(lambda: ("alice@sip.x.test", "away") in juliet.presences)
            async with watching(alice, JULIET) as changes:
                await until(changes, Availability.AVAILABLE)
                juliet.client.send_presence(pshow="dnd", pstatus="busy")
                assert (await until(changes, Availability.DND)).note == "busy"

    run(story())


def test_nothing_is_lost_when_either_side_is_killed(pair: Pair) -> None:
    """What the host had not answered for is handed over again as soon as it is back (GW-11, issue 7 part 3)."""

    async def story() -> None:
        await asyncio.to_thread(pair.host.stop, is_crash=True)
        async with pair.comity.client("sip", ALICE, receive=False) as alice:
            for number in range(3):
                answer = await alice.send(text_object(ALICE, JULIET, f"while away {number}"), JULIET)
                assert answer.status is Status.INDETERMINANT
        assert await asyncio.to_thread(pair.comity.waiting) == 3
        await asyncio.to_thread(pair.comity.kill)
        await asyncio.to_thread(pair.comity.start)
        await asyncio.to_thread(pair.host.start)
        async with guest(pair) as juliet:
            await juliet.until(lambda: len(juliet.texts) == 3)
            assert juliet.texts == [f"while away {number}" for number in range(3)]
            await asyncio.to_thread(pair.comity.kill)
            juliet.client.send_message(mto="alice@sip.x.test", mbody="are you there?", mtype="chat")
            await juliet.until(lambda: bool(juliet.errors))
            await asyncio.to_thread(pair.comity.start)
            async with pair.comity.client("sip", ALICE) as alice:
                hears = asyncio.ensure_future(listening(alice, 1))
                while not hears.done():  # until it has joined again, the host says that nobody is there
                    before = len(juliet.errors)
                    juliet.client.send_message(mto="alice@sip.x.test", mbody="now?", mtype="chat")
                    told = asyncio.ensure_future(juliet.until(partial(_has_more, juliet, before)))
                    await asyncio.wait([hears, told], return_when=asyncio.FIRST_COMPLETED)
                    told.cancel()
                assert texts(await hears) == ["now?"]

    run(story())

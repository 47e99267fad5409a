"""A stock external component (slixmpp's ComponentXMPP) attached to Comity: people of every protocol reach what is behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.interop.guest import Guest
from tests.paths.kit import ALICE, BOB, ServerProcess, Via
from tests.paths.test_neighbours import listening, run

SECRET = "what both know"
NICK = Address.parse("im:nick@irc.a.test")
VIAS: list[Via] = ["sip", "xmpp", "apex"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("attached")) as server:
        with server.config.open("a", encoding="utf-8") as config:
            config.write(f'[[xmpp.accept]]\ndomain = "irc.a.test"\nsecret = "{SECRET}"\n')
        server.start()
        yield server


def bridge(server: ServerProcess) -> Guest:
    return Guest.component("irc.a.test", SECRET, server.port("component", "tcp"))


@pytest.mark.parametrize("via", VIAS)
def test_people_of_every_protocol_reach_it_and_are_reached(server: ServerProcess, via: Via) -> None:
    async def story() -> None:
        async with bridge(server) as irc, server.client(via, ALICE) as alice:
            answer = await alice.send(text_object(ALICE, NICK, f"to the channel by {via}"), NICK)
            assert answer.status is Status.INDETERMINANT
            await irc.until(lambda: irc.texts == [f"to the channel by {via}"])
            assert irc.messages[0]["from"].bare == "alice@a.test"
            irc.client.send_message(mto="alice@a.test", mbody="and back", mfrom="nick@irc.a.test/bot", mtype="chat")
            [received] = await listening(alice, 1)
            assert (received.text, received.from_, received.asserted_by) == ("and back", NICK, "irc.a.test")
        assert server.waiting() == 0, "it answered for what it took"

    run(story())


def test_who_is_not_there_is_told_of_both_ways(server: ServerProcess) -> None:
    """GW-12: an error stanza to the component; the component's own error to the person."""

    async def story() -> None:
        async with bridge(server) as irc, server.client("xmpp", ALICE) as alice:
            irc.client.send_message(mto="nobody@a.test", mbody="hello?", mfrom="nick@irc.a.test")
            await irc.until(lambda: irc.errors == [("nobody@a.test", "service-unavailable")])
            await alice.send(text_object(ALICE, NICK, "hello?"), NICK)
            await irc.until(lambda: irc.texts == ["hello?"])
            refusal = irc.messages[-1].reply(clear=True)
            refusal["type"] = "error"
            refusal["from"], refusal["id"] = "nick@irc.a.test", irc.messages[-1]["id"]
            refusal["error"]["condition"] = "item-not-found"
            refusal.send()
            [told] = await listening(alice, 1)
            assert told.report is not None
            assert told.report.recipient == NICK

    run(story())


def test_what_comes_while_it_is_away_is_handed_over_when_it_is_back(server: ServerProcess) -> None:
    """At once, not after the pause that a hop which cannot be reached has (F-11); a kill of Comity in between loses nothing."""

    async def story() -> None:
        async with server.client("sip", BOB, receive=False) as bob:
            for number in range(3):
                await bob.send(text_object(BOB, NICK, f"while away {number}"), NICK)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert await asyncio.to_thread(server.waiting) == 3
        async with bridge(server) as irc:
            await irc.until(lambda: len(irc.texts) == 3)
            assert irc.texts == [f"while away {number}" for number in range(3)]

    run(story())


def test_a_second_connection_takes_the_place_of_the_first(server: ServerProcess) -> None:
    """One that came back before its former connection was missed is not locked out."""

    async def story() -> None:
        async with (
            bridge(server) as first,
            bridge(server) as second,
            server.client("sip", ALICE, receive=False) as alice,
        ):
            await first.until(lambda: "disconnected" in first.events)
            await alice.send(text_object(ALICE, NICK, "to the second"), NICK)
            await second.until(lambda: second.texts == ["to the second"])
            assert first.texts == []

    run(story())


def test_clients_look_around_behind_it(server: ServerProcess) -> None:
    """XEP-0030 through us: the component is among our items, and answers for itself."""

    async def story() -> None:
        address = server.port("xmpp", "tcp")
        async with (
            bridge(server) as irc,
            Guest.person("alice@a.test/slix", "correct horse", address, str(server.authority)) as alice,
        ):
            irc.client.plugin["xep_0030"].add_identity("gateway", "irc", name="IRC")
            plugin = alice.client.plugin["xep_0030"]
            items = await plugin.get_items("a.test")
            assert "irc.a.test" in {str(item[0]) for item in items["disco_items"]["items"]}
            info = (await plugin.get_info("irc.a.test"))["disco_info"]
            assert ("gateway", "irc") in {identity[:2] for identity in info["identities"]}

    run(story())

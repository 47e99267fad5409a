"""Contact lists and presence between clients nobody here wrote (RFC 6121 section 7; XMPP-10; XEP-0191, XEP-0237)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.paths.kit import PASSWORD, ServerProcess
from tests.peers import need_module

PATIENCE = 30.0
HEARD = ("presence_subscribe", "presence_subscribed", "presence_unsubscribe", "presence_unsubscribed")


class Person:
    """One slixmpp client; it decides nothing by itself."""

    def __init__(self, server: ServerProcess, jid: str, *, resumes: bool = False) -> None:
        need_module("slixmpp")
        slixmpp = importlib.import_module("slixmpp")
        self.client: Any = slixmpp.ClientXMPP(jid, PASSWORD)
        self.client.ca_certs = str(server.authority)
        self.client.auto_authorize = None
        self.client.auto_subscribe = False
        for plugin in ("xep_0030", "xep_0191", "xep_0199", *(("xep_0198",) if resumes else ())):
            self.client.register_plugin(plugin)
        self.heard: list[tuple[str, str]] = []
        """(event, bare JID of whom it is about)."""
        self._address = server.port("xmpp", "tcp")
        self._changed = asyncio.Event()
        for name in (*HEARD, "got_online", "got_offline", "changed_status"):
            self.client.add_event_handler(name, lambda p, name=name: self._note(name, p["from"].bare))
        for name in ("session_start", "session_resumed", "disconnected", "roster_update", "blocked", "unblocked"):
            self.client.add_event_handler(name, lambda _, name=name: self._note(name, ""))

    def _note(self, name: str, who: str) -> None:
        self.heard.append((name, who))
        self._changed.set()

    async def online(self) -> Person:
        """Section 7.1: the list, then initial presence."""
        self.heard.clear()
        self.client.connect(*self._address)
        await self.until(lambda: ("session_start", "") in self.heard)
        await self.client.get_roster()
        self.client.send_presence()
        return self

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    async def hears(self, name: str, who: str) -> None:
        """Wait for it, and forget what was heard up to then."""
        await self.until(lambda: (name, who) in self.heard)
        del self.heard[: self.heard.index((name, who)) + 1]

    async def settled(self) -> None:
        """All that the server said before it answers now has been heard."""
        await self.client.plugin["xep_0199"].send_ping("a.test")

    def subscription(self, who: str) -> tuple[str, bool]:
        """State and whether an answer is awaited, as the client's own list says."""
        item = self.client.client_roster[who]
        return item["subscription"], bool(item["pending_out"])

    def shown(self, who: str) -> dict[str, tuple[str, str]]:
        """(show, status) by resource."""
        return {name: (r["show"], r["status"]) for name, r in self.client.client_roster.presence(who).items()}

    def say(self, kind: str, to: str) -> None:
        self.client.send_presence(pto=to, ptype=kind)


def story(server: ServerProcess, told: Callable[..., Coroutine[None, None, None]], *people: tuple[str, bool]) -> None:
    """Run a story with clients that are not connected yet; they all leave in the end."""

    async def run() -> None:
        persons = [Person(server, jid, resumes=resumes) for jid, resumes in people]
        try:
            await told(*persons)
        finally:
            for person in persons:
                await person.client.disconnect(wait=1.0)

    asyncio.run(run())


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server of this test alone, with lists of nobody else."""
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.kill()


ALICE, BOB = "alice@a.test", "bob@a.test"


async def befriend(alice: Person, bob: Person) -> None:
    """Section 3: request, approval, and the same the other way."""
    alice.say("subscribe", BOB)
    await bob.hears("presence_subscribe", ALICE)
    await alice.until(lambda: alice.subscription(BOB) == ("none", True))
    bob.say("subscribed", ALICE)
    await alice.hears("presence_subscribed", BOB)
    await alice.hears("got_online", BOB)
    assert alice.subscription(BOB) == ("to", False)
    bob.say("subscribe", ALICE)
    await alice.hears("presence_subscribe", BOB)
    alice.say("subscribed", BOB)
    await bob.hears("got_online", ALICE)
    await bob.settled()
    assert bob.subscription(ALICE) == ("both", False)


def test_two_people_find_each_other_and_part(own: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        await alice.online()
        await bob.online()
        await befriend(alice, bob)
        bob.client.send_presence(pshow="away", pstatus="gone fishing")
        await alice.hears("changed_status", BOB)
        assert alice.shown(BOB) == {"slix": ("away", "gone fishing")}
        bob.client.send_presence(ptype="unavailable", pstatus="good night")
        await alice.hears("got_offline", BOB)
        bob.client.send_presence()
        await alice.hears("got_online", BOB)
        bob.client.transport.abort()
        await alice.hears("got_offline", BOB)
        await bob.online()
        await alice.hears("got_online", BOB)
        await alice.client.del_roster_item(BOB)
        await bob.hears("got_offline", ALICE)
        await bob.until(lambda: bob.subscription(ALICE) == ("none", False))
        await alice.settled()
        assert alice.shown(BOB) == {}

    story(own, told, (f"{ALICE}/slix", False), (f"{BOB}/slix", False))


def test_a_blocked_one_sees_someone_who_left(own: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        await alice.online()
        await bob.online()
        await befriend(alice, bob)
        await bob.client.plugin["xep_0191"].block(ALICE)
        await alice.hears("got_offline", BOB)
        await bob.hears("got_offline", ALICE)
        bob.client.send_presence(pshow="chat")
        await bob.settled()
        await alice.settled()
        assert alice.shown(BOB) == {}
        answer = await bob.client.plugin["xep_0191"].get_blocked()
        assert f'jid="{ALICE}"' in str(answer)
        await bob.client.plugin["xep_0191"].unblock(ALICE)
        await alice.hears("got_online", BOB)
        assert alice.shown(BOB) == {"slix": ("chat", "")}

    story(own, told, (f"{ALICE}/slix", False), (f"{BOB}/slix", False))


def test_a_request_waits_and_what_was_decided_outlives_the_server(own: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        await alice.online()
        alice.say("subscribe", BOB)
        await alice.until(lambda: alice.subscription(BOB) == ("none", True))
        await alice.settled()
        await asyncio.to_thread(own.kill)
        await alice.hears("disconnected", "")
        await asyncio.to_thread(own.start)
        await alice.online()
        await bob.online()
        await bob.hears("presence_subscribe", ALICE)
        bob.say("subscribed", ALICE)
        await alice.hears("got_online", BOB)
        version = alice.client.client_roster.version
        await asyncio.to_thread(own.kill)
        for person in (alice, bob):
            await person.hears("disconnected", "")
        await asyncio.to_thread(own.start)
        await bob.online()
        await alice.online()
        await alice.hears("got_online", BOB)
        assert alice.client.client_roster.version == version, "nothing changed: an empty answer (XEP-0237)"
        assert alice.subscription(BOB) == ("to", False)

    story(own, told, (f"{ALICE}/slix", False), (f"{BOB}/slix", False))


def test_a_stream_that_is_resumed_was_never_away(own: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        await alice.online()
        await bob.online()
        await befriend(alice, bob)
        bob.client.transport.abort()
        await bob.hears("disconnected", "")
        alice.client.send_presence(pshow="dnd")
        bob.client.connect(*bob._address)
        await bob.hears("session_resumed", "")
        await bob.until(lambda: bob.shown(ALICE) == {"slix": ("dnd", "")})
        await alice.settled()
        assert ("got_offline", BOB) not in alice.heard

    story(own, told, (f"{ALICE}/slix", True), (f"{BOB}/slix", True))

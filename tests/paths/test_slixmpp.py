"""A client nobody here wrote, where it knows the extension: resumption, carbons, client state (XEP-0198, 0280, 0352)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.paths.kit import PASSWORD, ServerProcess
from tests.peers import need_module

PATIENCE = 30.0


class Person:
    """One slixmpp client."""

    def __init__(self, server: ServerProcess, jid: str) -> None:
        need_module("slixmpp")
        slixmpp = importlib.import_module("slixmpp")
        self.client: Any = slixmpp.ClientXMPP(jid, PASSWORD)
        self.client.ca_certs = str(server.authority)
        for plugin in ("xep_0085", "xep_0198", "xep_0199", "xep_0280", "xep_0352"):
            self.client.register_plugin(plugin)
        self.events: list[str] = []
        self.texts: list[str] = []
        self.states: list[str] = []
        self.sent: list[str] = []
        """Copies of what other devices of the same account sent."""
        self.received: list[str] = []
        self.acked: list[str] = []
        self._address = server.port("xmpp", "tcp")
        self._changed = asyncio.Event()
        for name in ("session_start", "session_resumed", "sm_enabled", "sm_failed", "disconnected"):
            self.client.add_event_handler(name, lambda _, name=name: self._note(self.events, name))
        self.client.add_event_handler("message", self._message)
        self.client.add_event_handler("carbon_sent", lambda m: self._note(self.sent, m["carbon_sent"]["body"]))
        self.client.add_event_handler(
            "carbon_received", lambda m: self._note(self.received, m["carbon_received"]["body"])
        )
        self.client.add_event_handler("stanza_acked", self._acked)
        for name in ("composing", "paused"):
            self.client.add_event_handler(f"chatstate_{name}", lambda _, name=name: self._note(self.states, name))

    def _note(self, where: list[str], what: str) -> None:
        where.append(what)
        self._changed.set()

    def _message(self, message: Any) -> None:
        if message["body"]:
            self._note(self.texts, message["body"])

    def _acked(self, stanza: Any) -> None:
        if stanza.name == "message" and stanza["body"]:
            self._note(self.acked, stanza["body"])

    def connect(self) -> None:
        self.client.connect(*self._address)

    async def online(self) -> Person:
        self.connect()
        await self.happened("sm_enabled")
        self.client.send_presence()
        await asyncio.sleep(0)
        await self.client.plugin["xep_0280"].enable()
        return self

    async def happened(self, name: str) -> None:
        await self.until(lambda: name in self.events)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def say(self, to: str, text: str) -> None:
        self.client.send_message(mto=to, mbody=text, mtype="chat")


def story(server: ServerProcess, told: Callable[..., Coroutine[None, None, None]], *jids: str) -> None:
    """Run a story with people signed in; they all leave in the end."""

    async def run() -> None:
        people = [Person(server, jid) for jid in jids]
        try:
            await told(*[await person.online() for person in people])
        finally:
            for person in people:
                await person.client.disconnect(wait=1.0)

    asyncio.run(run())


@pytest.fixture
def own(tmp_path: Any) -> Any:
    """A server of this test alone, to be killed."""
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.kill()


def test_a_broken_connection_is_resumed(server: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        alice.say("bob@a.test", "before")
        await bob.until(lambda: bob.texts == ["before"])
        bob.client.transport.abort()
        await bob.happened("disconnected")
        alice.say("bob@a.test", "meanwhile")
        bob.connect()
        await bob.happened("session_resumed")
        alice.say("bob@a.test", "after")
        await bob.until(lambda: len(bob.texts) >= 3)
        assert bob.texts == ["before", "meanwhile", "after"]
        assert "sm_failed" not in bob.events

    story(server, told, "alice@a.test/slix", "bob@a.test/slix")


def test_after_a_kill_of_the_server_it_begins_anew_and_nothing_is_missing(own: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        alice.say("bob@a.test", "before")
        await bob.until(lambda: bob.texts == ["before"])
        await asyncio.to_thread(own.kill)
        for person in (alice, bob):
            await person.happened("disconnected")
        await asyncio.to_thread(own.start)
        for person in (alice, bob):
            person.events.clear()
            person.connect()
            await person.happened("sm_enabled")
            assert "sm_failed" in person.events
            person.client.send_presence()
        alice.say("bob@a.test", "after")
        await bob.until(lambda: "after" in bob.texts)
        # Bob's acknowledgement of the first may have died with the server; then it comes again (I2).
        assert list(dict.fromkeys(bob.texts)) == ["before", "after"]

    story(own, told, "alice@a.test/slix", "bob@a.test/slix")


def test_copies_reach_the_other_devices(server: ServerProcess) -> None:
    async def told(phone: Person, pad: Person, bob: Person, other: Person) -> None:
        phone.say("bob@a.test/one", "hello")
        await pad.until(lambda: pad.sent == ["hello"])
        await other.until(lambda: other.received == ["hello"])
        await bob.until(lambda: bob.texts == ["hello"])
        assert (phone.sent, pad.received, bob.received, other.texts) == ([], [], [], [])
        bob.say("alice@a.test", "hi")
        await phone.until(lambda: phone.texts == ["hi"])
        await pad.until(lambda: pad.texts == ["hi"])
        await other.until(lambda: other.sent == ["hi"])

    story(server, told, "alice@a.test/phone", "alice@a.test/pad", "bob@a.test/one", "bob@a.test/two")


def test_a_client_nobody_looks_at_hears_of_typing_later(server: ServerProcess) -> None:
    async def told(alice: Person, bob: Person) -> None:
        bob.client.plugin["xep_0352"].send_inactive()
        await bob.client.plugin["xep_0199"].send_ping("a.test")
        for state in ("composing", "paused"):
            message = alice.client.make_message(mto="bob@a.test", mtype="chat")
            message["chat_state"] = state
            message.send()
        alice.say("bob@a.test", "hello")
        await bob.until(lambda: bob.texts == ["hello"])
        assert bob.states == ["paused"]

    story(server, told, "alice@a.test/slix", "bob@a.test/slix")

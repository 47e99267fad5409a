"""What a stock XMPP library keeps on its account, over real sockets and a kill (XEP-0049, 0054, 0084, 0163, 0319, 0402)."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.paths.kit import PASSWORD, ServerProcess
from tests.peers import need_module

PATIENCE = 30.0
PLUGINS = (
    *("xep_0030", "xep_0049", "xep_0054", "xep_0060", "xep_0084", "xep_0115", "xep_0163", "xep_0172", "xep_0198"),
    *("xep_0319", "xep_0402"),
)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40


class Keeper:
    """One slixmpp client that keeps things on its account."""

    def __init__(self, server: ServerProcess, jid: str) -> None:
        need_module("slixmpp")
        slixmpp = importlib.import_module("slixmpp")
        self.client: Any = slixmpp.ClientXMPP(jid, PASSWORD)
        self.client.ca_certs = str(server.authority)
        for plugin in PLUGINS:
            self.client.register_plugin(plugin)
        self.heard: list[tuple[str, Any]] = []
        self._address = server.port("xmpp", "tcp")
        self._changed = asyncio.Event()
        for name in (
            *("session_start", "disconnected", "avatar_metadata_publish", "user_nick_publish", "changed_status"),
            *("presence_subscribe", "presence_idle"),
        ):
            self.client.add_event_handler(name, lambda what, name=name: self._note(name, what))

    def _note(self, name: str, what: Any) -> None:
        self.heard.append((name, what))
        self._changed.set()

    async def online(self) -> Keeper:
        self.heard.clear()
        self.client.connect(*self._address)
        await self.hears("session_start")
        await self.client.get_roster()
        self.client.send_presence()
        return self

    async def hears(self, name: str, matches: Callable[[Any], bool] = lambda what: True) -> Any:
        """The first event of that name since going online for which ``matches`` holds."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for found, what in self.heard:
                    if found == name and matches(what):
                        return what
                self._changed.clear()
                await self._changed.wait()

    async def leave(self) -> None:
        await self.client.disconnect(wait=1.0)


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """A server of this test alone, to be killed."""
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.kill()


async def befriend(alice: Keeper, bob: Keeper) -> None:
    """Bob sees Alice."""
    bob.client.send_presence_subscription("alice@a.test")
    await alice.hears("presence_subscribe")
    alice.client.send_presence_subscription("bob@a.test", ptype="subscribed")
    await bob.hears("changed_status", lambda presence: presence["from"].bare == "alice@a.test")


def test_what_is_kept_is_found_by_others_and_after_a_kill(own: ServerProcess) -> None:
    async def told() -> None:
        alice, bob = Keeper(own, "alice@a.test/slix"), Keeper(own, "bob@a.test/slix")
        for one in (alice, bob):
            one.client.roster.auto_authorize, one.client.roster.auto_subscribe = None, False
        try:
            await alice.online()
            await bob.online()
            await befriend(alice, bob)
            await keeps(alice)
            metadata = await bob.hears("avatar_metadata_publish")
            assert metadata["from"].bare == "alice@a.test"
            await finds(alice, bob)
            await asyncio.to_thread(own.kill)
            for one in (alice, bob):
                await one.hears("disconnected")
            await asyncio.to_thread(own.start)
            await alice.online()
            await bob.online()
            await bob.hears("avatar_metadata_publish", lambda message: message["from"].bare == "alice@a.test")
            await finds(alice, bob)
        finally:
            await alice.leave()
            await bob.leave()

    asyncio.run(told())


async def keeps(alice: Keeper) -> None:
    client = alice.client
    card = client.plugin["xep_0054"].make_vcard()
    card["FN"] = "Alice Liddell"
    await client.plugin["xep_0054"].publish_vcard(card)
    await client.plugin["xep_0084"].publish_avatar(PNG)
    avatar = client.plugin["xep_0084"].generate_id(PNG)
    await client.plugin["xep_0084"].publish_avatar_metadata({"id": avatar, "type": "image/png", "bytes": str(len(PNG))})
    await client.plugin["xep_0172"].publish_nick("Ally")
    stanza = importlib.import_module("slixmpp.plugins.xep_0402.stanza")
    room = stanza.Conference()
    room["name"], room["autojoin"] = "Tea party", True
    form = client.plugin["xep_0060"]
    options = importlib.import_module("slixmpp.plugins.xep_0004").Form()
    options["type"] = "submit"
    options.add_field(var="FORM_TYPE", ftype="hidden", value="http://jabber.org/protocol/pubsub#publish-options")
    for name, value in (("persist_items", "true"), ("max_items", "max"), ("access_model", "whitelist")):
        options.add_field(var=f"pubsub#{name}", value=value)
    await form.publish(None, "urn:xmpp:bookmarks:1", id="tea@rooms.test", payload=room, options=options)


async def finds(alice: Keeper, bob: Keeper) -> None:
    """Both see what they may, and no more."""
    exceptions = importlib.import_module("slixmpp.exceptions")
    card = await bob.client.plugin["xep_0054"].get_vcard("alice@a.test", cached=False)
    assert card["vcard_temp"]["FN"] == "Alice Liddell"
    avatar = bob.client.plugin["xep_0084"].generate_id(PNG)
    found = await bob.client.plugin["xep_0084"].retrieve_avatar("alice@a.test", avatar)
    (item,) = found["pubsub"]["items"]["substanzas"]
    assert item["avatar_data"]["value"] == PNG
    rooms = await alice.client.plugin["xep_0060"].get_items(None, "urn:xmpp:bookmarks:1")
    assert [item["id"] for item in rooms["pubsub"]["items"]["substanzas"]] == ["tea@rooms.test"]
    with pytest.raises(exceptions.IqError) as refused:
        await bob.client.plugin["xep_0060"].get_items("alice@a.test", "urn:xmpp:bookmarks:1")
    assert refused.value.condition == "not-allowed"
    info = await bob.client.plugin["xep_0030"].get_info("alice@a.test")
    assert ("pubsub", "pep", None, None) in info["disco_info"]["identities"]
    device = await bob.client.plugin["xep_0030"].get_info(str(alice.client.boundjid))
    assert "urn:xmpp:avatar:metadata+notify" in device["disco_info"]["features"]


def test_private_settings_are_found_by_the_next_device(server: ServerProcess) -> None:
    """XEP-0049, and XEP-0319 on the way to a contact."""

    async def told() -> None:
        alice = Keeper(server, "alice@a.test/slix")
        phone = Keeper(server, "alice@a.test/phone")
        try:
            await alice.online()
            await phone.online()
            client = alice.client
            register = importlib.import_module("slixmpp.xmlstream").register_stanza_plugin
            bookmarks = importlib.import_module("slixmpp.plugins.xep_0048.stanza").Bookmarks
            private = importlib.import_module("slixmpp.plugins.xep_0049.stanza").PrivateXML
            register(private, bookmarks)
            marks = bookmarks()
            marks.add_conference("tea@rooms.test", "ally", autojoin=True)
            await client.plugin["xep_0049"].store(marks)
            got = await phone.client.plugin["xep_0049"].retrieve("bookmarks")
            assert [str(room["jid"]) for room in got["private"]["bookmarks"]["conferences"]] == ["tea@rooms.test"]
            await client.plugin["xep_0319"].idle(jid=client.boundjid)
            client.send_presence(pfrom=client.boundjid)
            idle = await phone.hears("presence_idle")
            assert idle["from"] == "alice@a.test/slix"
            assert idle["idle"]["since"].tzinfo is not None
        finally:
            await alice.leave()
            await phone.leave()

    asyncio.run(told())

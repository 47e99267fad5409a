"""Our own clients are told of typing by stock programs, and take it for no message (RFC 3994, XEP-0085)."""

from __future__ import annotations

import asyncio

import pytest

from comity.client import text_object
from tests.paths.kit import ALICE, BOB, ServerProcess, Via
from tests.paths.test_slixmpp import Person


@pytest.mark.parametrize("via", ["sip", "xmpp", "apex"])
def test_only_texts_are_messages(server: ServerProcess, via: Via) -> None:
    async def story() -> None:
        alice = Person(server, "alice@a.test/slix")
        try:
            await alice.online()
            async with asyncio.timeout(30), server.client(via, BOB) as bob:
                await bob.send(text_object(BOB, ALICE, "hello"), ALICE)  # now they talk
                for state in ("composing", "paused", "composing"):
                    message = alice.client.make_message(mto="bob@a.test", mtype="chat")
                    message["chat_state"] = state
                    message.send()
                alice.say("bob@a.test", "typed")
                got = await anext(bob.messages())
                assert got.text == "typed"
        finally:
            await alice.client.disconnect(wait=1.0)

    asyncio.run(story())

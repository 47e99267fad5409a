"""Receipts over two servers: a stock XMPP program at one, our SIP client at the other, each protocol between (IMDN-8, IMDN-13)."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from comity.cli.listening import receipt_for
from comity.client import Received, text_object
from comity.cpim.imdn import DISPLAY, POSITIVE
from comity.cpim.operations import Fate, Status
from tests.paths.kit import ServerProcess, Via
from tests.paths.neighbours import ALICE, BOB, Neighbours
from tests.paths.test_slixmpp import Person

BETWEEN: list[Via] = ["sip", "xmpp", "apex"]


class Juliet(Person):
    """Alice by slixmpp, which asks for a receipt with every text and gives one (XEP-0184)."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(server, "alice@a.test/slix")
        self.receipts: list[str] = []
        self.client.register_plugin("xep_0184")
        plugin = self.client.plugin["xep_0184"]
        plugin.auto_ack = plugin.auto_request = True
        self.client.add_event_handler("receipt_received", self._receipt)

    def _receipt(self, message: Any) -> None:
        assert message["from"].bare == "bob@b.test"
        self._note(self.receipts, message["receipt"])

    def ask(self, text: str) -> str:
        message = self.client.make_message(mto="bob@b.test", mbody=text, mtype="chat")
        message.send()
        return str(message["id"])


@pytest.mark.parametrize("via", BETWEEN)
def test_both_ways(tmp_path: Path, via: Via) -> None:
    async def story(servers: Neighbours) -> None:
        juliet = Juliet(servers.a)
        try:
            await juliet.online()
            async with asyncio.timeout(40), servers.b.client("sip", BOB) as bob:
                messages = bob.messages()
                id = juliet.ask("Did you get it?")
                got = await anext(messages)
                assert got.text == "Did you get it?"
                coming = asyncio.ensure_future(anext(messages))
                answer = receipt_for(got, datetime.now(UTC))
                assert answer is not None, "her wish stands in the object"
                assert (await bob.send(answer, ALICE)).status is not Status.FAILURE
                await juliet.until(lambda: juliet.receipts == [id])

                thing = text_object(BOB, ALICE, "And you?", asks=(POSITIVE, DISPLAY))
                assert (await bob.send(thing, ALICE)).status is not Status.FAILURE
                told: Received = await coming
                assert told.report is not None
                assert (told.report.fate, told.report.recipient) == (Fate.DELIVERED, ALICE)
                await juliet.until(lambda: juliet.texts == ["And you?"])
                assert juliet.receipts == [id]
                last = asyncio.ensure_future(anext(messages))
                await asyncio.sleep(0)
                last.cancel()
                await asyncio.gather(last, return_exceptions=True)
        finally:
            await juliet.client.disconnect(wait=1.0)

    with Neighbours(tmp_path, via) as servers:
        asyncio.run(story(servers))

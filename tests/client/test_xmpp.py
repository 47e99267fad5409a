"""The XMPP client by itself; tests/paths has its days with a real server."""

from __future__ import annotations

import asyncio

import pytest

from comity.bindings.xmpp.wire import Element
from comity.client import connect, text_object
from comity.client.xmpp import XmppClient
from comity.cpim.address import Address

ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test")


async def turns() -> None:
    """Let the loop do everything that needs nobody else."""
    for _ in range(50):
        await asyncio.sleep(0)


def test_what_waited_for_the_connection_leaves_before_what_is_sent_when_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """reliability.md section 5.5: calls leave in their order, also those made while the connection is away (I5)."""
    written: list[object] = []

    def write(self: XmppClient, stanza: Element, key: object = None) -> None:
        written.append(key)

    monkeypatch.setattr(XmppClient, "_write", write)

    async def story() -> None:
        client = connect("xmpp", ALICE, "secret", server=("127.0.0.1", 9))
        assert isinstance(client, XmppClient)
        calls = [client.send(text_object(ALICE, BOB, "x"), BOB, key=str(n)) for n in range(5)]
        await turns()
        client._bound.set_result(None)
        calls.append(client.send(text_object(ALICE, BOB, "x"), BOB, key="5"))
        await turns()
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await client.close()

    asyncio.run(story())
    assert written == [str(n) for n in range(6)]

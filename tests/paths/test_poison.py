"""F-POISON: rows spoilt by hand in the database of a real server: the lane goes on, the sender is told, no restart loops."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from comity.client import Client, Received, text_object
from comity.cpim.operations import Status
from tests.paths.kit import ALICE, BOB, ServerProcess, Via


def _other_destination(envelope: bytes) -> bytes:
    fields = msgspec.msgpack.decode(envelope)
    fields[1] = "no address"
    return msgspec.msgpack.encode(fields)


#: What is done to the row, and whether its envelope still names the sender.
SPOILT = {
    "other octets": ("UPDATE records SET entity = CAST(replace(entity, 'poison', 'POISON') AS BLOB)", True),
    "no octets": ("UPDATE records SET entity = NULL", True),
    "no envelope": ("UPDATE records SET envelope = x'c1'", False),
    "no address": ("UPDATE records SET envelope = spoil(envelope)", False),
    "no list of keys": ("UPDATE records SET dedup = '{', entity = x''", True),
    "no time": ("UPDATE records SET accepted = 'never'", True),
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server that runs when the test needs it."""
    with ServerProcess(tmp_path) as server:
        yield server


def spoil(server: ServerProcess, statement: str) -> None:
    """Change the first record of Bob's lane while no server runs."""
    with closing(sqlite3.connect(server.directory / "data" / "comity.db")) as connection:
        connection.create_function("spoil", 1, _other_destination)
        first = "number = (SELECT min(number) FROM records WHERE ended IS NULL)"
        assert connection.execute(f"{statement} WHERE {first}").rowcount == 1
        connection.commit()


async def send(server: ServerProcess, *texts: str) -> None:
    async with server.client("sip", ALICE, receive=False) as alice:
        for text in texts:
            assert (await alice.send(text_object(ALICE, BOB, text), BOB)).status is Status.INDETERMINANT


async def next_of(client: Client, seconds: float) -> Received:
    """The next message, which is then taken."""
    messages = client.messages()
    async with asyncio.timeout(seconds):
        received = await anext(messages)
    taking = asyncio.ensure_future(anext(messages))
    await asyncio.sleep(0)
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)
    return received


@pytest.mark.parametrize("sink", ["xmpp", "sip"])
@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_message_is_reported_and_the_next_goes_out(server: ServerProcess, what: str, sink: Via) -> None:
    statement, is_sender_known = SPOILT[what]
    server.start()
    asyncio.run(send(server, "poison", "sound"))
    assert server.stop() == 0
    spoil(server, statement)
    server.start()

    async def story() -> None:
        began = time.monotonic()
        async with server.client(sink, BOB) as bob, server.client("xmpp", ALICE) as alice:
            received = await next_of(bob, 5.0)
            assert received.text == "sound"
            assert time.monotonic() - began < 5.0
            if is_sender_known:
                report = await next_of(alice, 10.0)
                assert report.report is not None
                assert report.report.recipient == BOB
            while await asyncio.to_thread(server.waiting):
                pass

    asyncio.run(story())
    assert server.stop() == 0
    server.start()
    assert server.waiting() == 0
    asyncio.run(send(server, "after the restart"))
    assert server.waiting() == 1
    assert server.stop() == 0


def test_a_spoilt_row_in_any_other_table_harms_only_itself(server: ServerProcess) -> None:
    """One of each: contact, account, its keys, setting, mark, a dedup key without its record."""
    carol = "carol@a.test"
    server.run("account", "add", carol, "--password-stdin", "-c", str(server.config), text="x")
    with closing(sqlite3.connect(server.directory / "data" / "comity.db")) as connection:
        for table in ("account", "scram", "ha1"):
            spoilt = connection.execute(f"UPDATE kv_{table} SET value = x'ff' WHERE key = ?", (f"im:{carol}",))
            assert spoilt.rowcount == 1
        for table in ("contact", "setting"):
            connection.execute(f"INSERT INTO kv_{table} VALUES ('im:bob@a.test/sip/x', x'c1', 1, NULL)")
        connection.execute("INSERT INTO marks VALUES ('xmpp/x', 'no octets', 'no time')")
        connection.execute("INSERT INTO dedup VALUES ('key', 4711, 9e9)")
        connection.commit()
    for _ in range(2):
        server.start()
        asyncio.run(send(server, "sound"))
        asyncio.run(take(server))
        assert server.stop() == 0


async def take(server: ServerProcess) -> None:
    async with server.client("sip", BOB) as bob:
        assert (await next_of(bob, 5.0)).text == "sound"

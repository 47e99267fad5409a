"""Our clients' presence over a server that dies: watchers and publishers go on by themselves (reliability.md section 5.7)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import pytest

from comity.client import Client, Seen, Standing
from comity.cpim.operations import Status
from comity.cpim.presence_state import Availability
from tests.paths.kit import ALICE, BOB, ServerProcess, Via

P = ParamSpec("P")
PATIENCE = 60.0
PAIRS: list[tuple[Via, Via]] = [("sip", "xmpp"), ("xmpp", "sip"), ("sip", "sip"), ("xmpp", "xmpp")]


def story(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 2 * PATIENCE))

    return wrapper


async def until(changes: AsyncIterator[Seen], *wanted: Availability) -> Seen:
    """What is seen next of one of these states."""
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.standing is Standing.ACTIVE and seen.availability in wanted:
                return seen
    raise AssertionError(f"it ended without {wanted}")


async def allow(server: ServerProcess) -> None:
    """Bob lets Alice see him, before she asks."""
    async with server.client("xmpp", BOB, receive=False) as bob:
        assert (await bob.allow(ALICE)).status is Status.SUCCESS


@contextlib.asynccontextmanager
async def watching(client: Client) -> AsyncIterator[AsyncIterator[Seen]]:
    async with contextlib.aclosing(client.watch(BOB)) as changes:
        yield changes


@pytest.mark.parametrize(("watchers", "owns"), PAIRS)
@story
async def test_after_a_crash_both_come_back_and_what_is_said_then_is_seen(
    tmp_path: Path, watchers: Via, owns: Via
) -> None:
    """The server is killed under both: the publication is made again, the watcher sees it, and then its changes."""
    with ServerProcess(tmp_path, "presence_interval = 0.1") as server:
        server.start()
        await allow(server)
        async with server.client(watchers, ALICE) as alice, server.client(owns, BOB) as bob, watching(alice) as changes:
            await bob.publish(Availability.AWAY, "before")
            await until(changes, Availability.AWAY)
            server.kill()
            await asyncio.to_thread(server.start)
            began = datetime.now(UTC)
            again = await until(changes, Availability.AWAY)
            assert (again.note, again.when >= began) == ("before", True)
            async with asyncio.timeout(PATIENCE):
                while (await bob.publish(Availability.DND, "after")).status is not Status.SUCCESS:
                    pass
            assert (await until(changes, Availability.DND)).note == "after"
            await bob.unpublish()
            await until(changes, Availability.OFFLINE)


@pytest.mark.parametrize("watchers", ["sip", "xmpp"])
@story
async def test_who_did_not_come_back_is_seen_closed(tmp_path: Path, watchers: Via) -> None:
    """ "Nothing "open" older than 60 s after a crash": the publisher is gone with the server."""
    with ServerProcess(tmp_path, "presence_interval = 0.1") as server:
        server.start()
        await allow(server)
        async with server.client(watchers, ALICE) as alice, watching(alice) as changes:
            bob = server.client("xmpp", BOB, patience=0)
            async with bob:
                await bob.publish(Availability.AWAY, "before")
                await until(changes, Availability.AWAY)
                server.kill()
            await asyncio.to_thread(server.start)
            await until(changes, Availability.OFFLINE)

"""Kamailio as presence server of another domain, by a trunk: who may see whom is asked, granted, refused, and outlives restarts.

Ours watch people whose rules lie behind Kamailio's XCAP; Kamailio's watch ours, through their proxy (GW-13 to GW-15).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from comity.client import Client, Contact, Seen, Standing, connect
from comity.cpim.address import Address
from comity.cpim.operations import Status
from comity.cpim.presence_state import Availability
from tests.interop.presence_trunk import DOMAIN, HOST, PASSWORD, PresenceServer, person
from tests.loop import in_loop
from tests.paths.kit import ALICE, ServerProcess

PATIENCE = 30.0
AWAY, DND = Availability.AWAY, Availability.DND


class Joined:
    """a.test at Comity and pbx.test at Kamailio."""

    def __init__(self, folder: Path) -> None:
        self.comity = ServerProcess(folder / "comity")
        port = self.comity.port("sip", "tcp")[1]
        self.kamailio = PresenceServer(folder / "kamailio", f"sip:127.0.0.1:{port};transport=tcp")
        text = f"""
[[route]]
domain = "{DOMAIN}"
via = "sip"
next_hop = "tcp://{HOST}:{self.kamailio.port}"
keep_alive = "1 s"
[[peer]]
name = "{DOMAIN}"
address = ["{HOST}"]
"""
        self.comity.config.write_text(self.comity.config.read_text() + text)

    def start(self) -> None:
        self.kamailio.start()
        self.comity.start()

    def close(self) -> None:
        self.comity.kill()
        self.kamailio.stop()

    def phone(self, who: Address) -> Client:
        """Somebody of pbx.test."""
        door = HOST, self.kamailio.port
        return connect("sip", who, PASSWORD, server=door, transport="tcp", receive=False)


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    both = Joined(tmp_path_factory.mktemp("presence-trunk"))
    try:
        both.start()
        yield both
    finally:
        both.close()


@contextlib.asynccontextmanager
async def watching(client: Client, whom: Address) -> AsyncIterator[AsyncIterator[Seen]]:
    async with contextlib.aclosing(client.watch(whom)) as changes:
        yield changes


async def until(changes: AsyncIterator[Seen], availability: Availability) -> Seen:
    """What is seen next of that state; a server may tell a state twice on the way to it."""
    seen = None
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.availability is availability:
                return seen
    raise AssertionError(f"it ended without {availability}: {seen}")


async def until_standing(changes: AsyncIterator[Seen], standing: Standing) -> Seen:
    async with asyncio.timeout(PATIENCE):
        async for seen in changes:
            if seen.standing is standing:
                return seen
    raise AssertionError(f"it ended without {standing}")


async def asking(client: Client) -> Contact:
    """Who asks, once somebody does; each look is an exchange with the server."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await client.requests()):
            pass
    return found[0]


async def published(phone: Client, availability: Availability, note: str) -> None:
    """Said, though the connection broke a moment ago."""
    async with asyncio.timeout(PATIENCE):
        while (await phone.publish(availability, note)).status is not Status.SUCCESS:
            pass


@in_loop
async def test_ours_see_theirs_once_they_are_allowed_to(joined: Joined) -> None:
    """Pending, allowed by a rule of his, seen, changed, blocked: told as such at each step, with nothing before the yes."""
    dave = person("dave")
    async with (
        joined.phone(dave) as phone,
        joined.comity.client("xmpp", ALICE) as alice,
        watching(alice, dave) as changes,
    ):
        assert (await phone.publish(AWAY, "lunch")).status is Status.SUCCESS
        assert (await anext(changes)).standing is Standing.PENDING
        joined.kamailio.decide("dave", "alice@a.test", "allow")
        seen = await until(changes, AWAY)
        assert (seen.who, seen.note) == (dave.with_scheme("pres"), "lunch")
        assert (await phone.publish(DND, "busy")).status is Status.SUCCESS
        await until(changes, DND)
        joined.kamailio.decide("dave", "alice@a.test", "block")
        await until_standing(changes, Standing.REFUSED)


@in_loop
async def test_theirs_see_ours_once_they_are_allowed_to(joined: Joined) -> None:
    """A SUBSCRIBE through their proxy: pending, put to her XMPP program, granted, told by the route set, taken back."""
    erin = person("erin")
    async with (
        joined.phone(erin) as phone,
        joined.comity.client("xmpp", ALICE) as alice,
        watching(phone, ALICE) as changes,
    ):
        await alice.publish(AWAY, "tea")
        assert (await anext(changes)).standing is Standing.PENDING
        assert (await asking(alice)).address == erin
        assert (await alice.allow(erin)).status is Status.SUCCESS
        seen = await until(changes, AWAY)
        assert (seen.who, seen.note) == (ALICE.with_scheme("pres"), "tea")
        await alice.publish(DND)
        await until(changes, DND)
        assert (await alice.refuse(erin)).status is Status.SUCCESS
        await until_standing(changes, Standing.REFUSED)


@in_loop
async def test_both_ways_outlive_a_restart_of_either(joined: Joined) -> None:
    """kill -9 of Kamailio, then of Comity: what was allowed holds, nobody is asked again, and changes are seen anew."""
    frank = person("frank")
    joined.kamailio.decide("frank", "alice@a.test", "allow")
    async with joined.phone(frank) as phone, joined.comity.client("xmpp", ALICE) as alice:
        await alice.publish(AWAY)
        await phone.publish(AWAY)
        async with watching(alice, frank) as theirs, watching(phone, ALICE) as ours:
            await until(theirs, AWAY)
            assert (await anext(ours)).standing is Standing.PENDING
            assert (await asking(alice)).address == frank
            assert (await alice.allow(frank)).status is Status.SUCCESS
            await until(ours, AWAY)
            joined.kamailio.stop(is_crash=True)
            joined.kamailio.start()
            await published(phone, DND, "after Kamailio")
            assert (await until(theirs, DND)).note == "after Kamailio"
            await alice.publish(DND, "after Kamailio")
            assert (await until(ours, DND)).note == "after Kamailio"
            joined.comity.kill()
            joined.comity.start()
            await alice.publish(AWAY, "after Comity")
            assert (await until(ours, AWAY)).note == "after Comity"
            await published(phone, AWAY, "after Comity")
            assert (await until(theirs, AWAY)).note == "after Comity"
            assert await alice.requests() == []

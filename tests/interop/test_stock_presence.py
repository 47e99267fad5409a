"""Stock clients see each other come and go: asked, approved, online, away, back, offline, crashed, blocked.

Evidence for OPS-20, OPS-25, GW-13, T9 and issue 5's first line with peers nobody here wrote, SIP watching XMPP, the
reverse, and each its own. A person who uses SIP answers requests by ``comity contacts``, as no SIP client here can.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

from tests.interop.catalogue import WATCHES, WATCHING, Seat
from tests.interop.clients import StockClient
from tests.interop.conftest import client_for
from tests.interop.server import ComityServer

pytestmark = pytest.mark.peer

NOTE = "Zu Tisch <bis 2> & zurück 🍜"
PLAIN_NOTE = "Zu Tisch, bis 2"
CRASH_S = 30.0
"""A stream is kept for its resumption and a publication for its lease, 5 and 15 s here; then everybody knows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComityServer]:
    """A server that notices lost clients sooner than by default, and tells SIP watchers each change at once."""
    limits = {"sm_resume": 5, "publication_lease": 15, "presence_interval": 0.001}
    with contextlib.closing(Served(tmp_path_factory.mktemp("presence"), limits)) as made:
        yield made


class Served(ComityServer):
    """Started when made."""

    def __init__(self, folder: Path, limits: dict[str, float]) -> None:
        super().__init__(folder, limits)
        self.start()

    def close(self) -> None:
        """Stopped when it is closed."""
        self.stop()


@pytest.fixture
def pair(
    request: pytest.FixtureRequest, server: ComityServer, tmp_path: Path
) -> Iterator[tuple[StockClient, StockClient]]:
    """A watcher and whom it watches, signed in, each in the other's contact list."""
    with contextlib.ExitStack() as stack:
        addresses = [server.new_account("watcher"), server.new_account("seen")]
        clients: list[StockClient] = []
        for (name, transport), own, other in zip(request.param, addresses, reversed(addresses), strict=True):
            home = tmp_path / own.partition("@")[0]
            client = client_for(server, home, name, transport, own, other, presence=True)
            stack.callback(client.stop)
            clients.append(client)
        for client in reversed(clients):
            client.start()
        yield clients[0], clients[1]


def approve(server: ComityServer, watcher: StockClient, seen: StockClient) -> None:
    """As the person who is asked does it: in the client, or by the command line."""
    who, own = watcher.sign_in.address, seen.sign_in.address
    if seen.presence.answers:
        seen.wait_asked(who)
        seen.answer(who, granted=True)
    else:
        server.wait_request(own, who)
        server.contacts(own, "allow", who)


def block(server: ComityServer, watcher: StockClient, seen: StockClient) -> None:
    """Likewise."""
    who, own = watcher.sign_in.address, seen.sign_in.address
    if seen.presence.blocks:
        seen.block(who)
    else:
        server.contacts(own, "block", who)


def named(watch: tuple[Seat, Seat]) -> str:
    """For people who read results."""
    return " sees ".join("/".join(seat) for seat in watch)


@pytest.mark.parametrize("pair", WATCHES, indirect=True, ids=[named(watch) for watch in WATCHES])
def test_a_client_sees_another_come_go_crash_and_block_it(
    server: ComityServer, pair: tuple[StockClient, StockClient]
) -> None:
    """OPS-20, OPS-23, ACL-3, ACL-11, GW-13, RFC 8048 sections 5 and 6: nothing before the approval, all of it after."""
    watcher, seen = pair
    who = seen.sign_in.address
    can = seen.presence
    seen.tell("online")
    watcher.watch(who)
    assert watcher.seen(who).state in ("unknown", "offline"), "seen before it was allowed"
    approve(server, watcher, seen)
    watcher.wait_seen(who, "online")
    for state in ("away", "busy"):
        if state in can.tells:
            note = f"{NOTE if can.knows_escapes else PLAIN_NOTE} ({state})" if can.tells_notes else ""
            seen.tell(state, note)
            watcher.wait_seen(who, state, note)
    seen.tell("online")
    watcher.wait_seen(who, "online")
    if "offline" in can.tells:
        seen.tell("offline")
        watcher.wait_seen(who, "offline")
        seen.tell("online")
        watcher.wait_seen(who, "online")
    seen.kill()
    watcher.wait_seen(who, "offline", seconds=CRASH_S)
    seen.start()
    seen.tell("online")
    watcher.wait_seen(who, "online")
    block(server, watcher, seen)
    watcher.wait_seen(who, "offline")
    seen.tell("online")
    watcher.wait_seen(who, "offline")
    seen.stop()


def test_every_client_watches_and_is_watched_in_every_pair_of_protocols() -> None:
    """So that nothing is left out silently when a client is added."""
    assert {seat[0] for seat, _ in WATCHES} == {name for name, kind in WATCHING.items() if kind.presence.shows}
    assert {seat[0] for _, seat in WATCHES} == {name for name, kind in WATCHING.items() if kind.presence.tells}
    protocols = {(WATCHING[one].protocol, WATCHING[other].protocol) for (one, _), (other, _) in WATCHES}
    assert protocols == set(product(("sip", "xmpp"), repeat=2))

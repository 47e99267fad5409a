"""Fixtures: the real server once a session, stock clients signed in pair by pair."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.catalogue import CLIENTS, WATCHING, Pair
from tests.interop.clients import StockClient
from tests.interop.server import ComityServer
from tests.peers import need_module, need_program


@pytest.fixture(scope="session")
def comity_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComityServer]:
    """``comity serve`` for a.test with the accounts alice and bob, on free loopback ports."""
    server = ComityServer(tmp_path_factory.mktemp("comity"))
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        server.add_account("alice@a.test")
        server.add_account("bob@a.test")
        yield server


class SignedIn:
    """Two people of the server, each with one stock client; keeps what was sent, to find what nobody sent."""

    def __init__(self, alice: StockClient, bob: StockClient) -> None:
        self.clients = (alice, bob)
        self._sent: dict[str, list[str]] = {alice.sign_in.address: [], bob.sign_in.address: []}

    def exchange(self, sender: StockClient, receiver: StockClient, text: str) -> None:
        """Send ``text``, wait for it, and hold the receiver to showing each text once and nothing else."""
        sent = self._sent[sender.sign_in.address]
        sent.append(text)
        sender.send(receiver.sign_in.address, text)
        receiver.wait_received(sender.sign_in.address, text)
        shown = [entry.text for entry in receiver.received() if entry.sender == sender.sign_in.address]
        assert shown == sent
        assert len(shown) == len(receiver.received()), "a text from somebody else"


def client_for(
    server: ComityServer,
    home: Path,
    name: str,
    transport: str,
    address: str,
    *contacts: str,
    presence: bool = False,
) -> StockClient:
    """A client of the catalogue, not started; fails or skips the test if its program is not installed."""
    kind = WATCHING[name] if presence else CLIENTS[name]
    if kind.program is not None:
        need_program(kind.program)
    if kind.module is not None:
        need_module(kind.module)
    chosen = next(known for known in kind.transports if known == transport)
    return kind(home, server.sign_in(address, kind.protocol, chosen, *contacts, presence=presence))


class Seating:
    """Lets one pair after the other sign in: the last one stays until another is wanted, as tests come pair by pair."""

    def __init__(self, server: ComityServer, folder: Path) -> None:
        self._server = server
        self._folder = folder
        self._clients = contextlib.ExitStack()
        self._seated: tuple[Pair, SignedIn | AssertionError] | None = None

    def seat(self, pair: Pair) -> SignedIn:
        """Both clients of ``pair``, signed in with accounts of their own; a sign-in that failed is not tried again."""
        if self._seated is None or self._seated[0] != pair:
            self.close()
            try:
                self._seated = (pair, self._start(pair))
            except AssertionError as error:
                self._seated = (pair, error)
        outcome = self._seated[1]
        if isinstance(outcome, AssertionError):
            raise outcome
        return outcome

    def _start(self, pair: Pair) -> SignedIn:
        alice, bob = self._server.new_account("alice"), self._server.new_account("bob")
        clients = []
        for address, other, (name, transport) in ((alice, bob, pair.alice), (bob, alice, pair.bob)):
            home = self._folder / address.partition("@")[0]
            client = client_for(self._server, home, name, transport, address, other)
            self._clients.callback(client.stop)
            client.start()
            clients.append(client)
        return SignedIn(*clients)

    def close(self) -> None:
        """Stop the clients."""
        self._seated = None
        self._clients.close()


@pytest.fixture(scope="module")
def seating(comity_server: ComityServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seating]:
    """Where pairs of stock clients sign in."""
    with contextlib.closing(Seating(comity_server, tmp_path_factory.mktemp("clients"))) as seats:
        yield seats

"""Stock XMPP servers and a real Comity, stream to stream: Prosody and ejabberd, both ways (XMPP-3, GW-11).

Each finds the other by DNS, proves itself by a certificate and believes nobody without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.interop.authority import Authority
from tests.interop.xmpp_servers import EjabberdServer, Names, ProsodyServer, StockServer
from tests.paths.kit import ALICE, ServerProcess
from tests.paths.test_neighbours import listening, run, texts

JULIET = Address.parse("im:juliet@peer.test")


@dataclass(frozen=True, slots=True)
class Pair:
    """Comity for a.test and a stock server for peer.test."""

    comity: ServerProcess
    stock: StockServer


def federated(server: ServerProcess, names: Names, authority: Authority, more: str = "") -> None:
    """Let a server find others by DNS and believe the test's authority and its own."""
    trust = server.directory / "trust.pem"
    trust.write_bytes(server.authority.read_bytes() + authority.file.read_bytes())
    text = server.config.read_text(encoding="utf-8")
    text += f'[tls]\ntrust = "{trust}"\n[federation]\ndns = true\nnameservers = ["127.0.0.1:{names.port}"]\n'
    server.config.write_text(text + 'networks = ["127.0.0.0/8"]\n' + more, encoding="utf-8")
    names.serve("a.test", server.port("server", "tcp")[1])


@pytest.fixture(scope="module", params=[ProsodyServer, EjabberdServer], ids=["prosody", "ejabberd"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder: Path = tmp_path_factory.mktemp("s2s")
    kind: type[StockServer] = request.param
    with ExitStack() as stack:
        names = stack.enter_context(Names())
        authority = Authority(folder / "authority")
        server = stack.enter_context(ServerProcess(folder))
        federated(server, names, authority)
        stock = kind(
            folder / "stock", "peer.test", names, authority, trust=(server.authority,), accounts=("juliet", "romeo")
        )
        stack.enter_context(stock)
        server.start()
        yield Pair(server, stock)


def test_a_text_goes_there_and_back(pair: Pair) -> None:
    async def story() -> None:
        async with pair.comity.client("sip", ALICE) as alice, pair.stock.client("juliet") as juliet:
            answer = await alice.send(text_object(ALICE, JULIET, "there"), JULIET)
            assert answer.status is Status.INDETERMINANT
            assert texts(await listening(juliet, 1)) == ["there"]
            await juliet.send(text_object(JULIET, ALICE, "and back"), ALICE)
            [received] = await listening(alice, 1)
            assert (received.text, received.from_) == ("and back", JULIET)
        assert pair.comity.waiting() == 0

    run(story())

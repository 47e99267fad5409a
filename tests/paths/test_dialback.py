"""Two servers that do not believe each other's certificates, and operators who allow dialback between them (XEP-0220, D-03)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.operations import Status
from tests.paths.kit import ServerProcess
from tests.paths.neighbours import ALICE, BOB
from tests.paths.test_neighbours import listening, run, texts


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    folder: Path = tmp_path_factory.mktemp("dialback")
    with (
        ServerProcess(folder / "a", domains=("a.test",), people=(ALICE,)) as a,
        ServerProcess(folder / "b", domains=("b.test",), people=(BOB,)) as b,
    ):
        for one, other, domain in ((a, b, "b.test"), (b, a, "a.test")):
            port = other.port("server", "tcp")[1]
            route = f'[[route]]\ndomain = "{domain}"\nvia = "xmpp"\nnext_hop = "tcp://127.0.0.1:{port}"\n'
            text = one.config.read_text(encoding="utf-8") + f'[policy]\ndialback = ["{domain}"]\n{route}'
            one.config.write_text(text, encoding="utf-8")
        a.start()
        b.start()
        yield a, b


def test_listed_domains_prove_themselves_by_dialback(both: tuple[ServerProcess, ServerProcess]) -> None:
    """Each asks the other's own server about the key it was shown; then texts go both ways, under TLS."""
    a, b = both

    async def story() -> None:
        async with a.client("sip", ALICE) as alice, b.client("xmpp", BOB) as bob:
            assert (await alice.send(text_object(ALICE, BOB, "there"), BOB)).status is Status.INDETERMINANT
            assert texts(await listening(bob, 1)) == ["there"]
            await bob.send(text_object(BOB, ALICE, "and back"), ALICE)
            assert texts(await listening(alice, 1)) == ["and back"]

    run(story())


def test_a_wrong_key_is_found_out(both: tuple[ServerProcess, ServerProcess]) -> None:
    """D-03: who is not b.test does not have its key, and b.test's own server says so; no stanza is taken."""
    a, _ = both
    opening = (
        b"<stream:stream from='b.test' to='a.test' version='1.0' xmlns='jabber:server' "
        b"xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>"
    )

    async def story() -> None:
        reader, writer = await asyncio.open_connection(*a.port("server", "tcp"))
        writer.write(opening)
        await reader.readuntil(b"</stream:features>")
        writer.write(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await reader.readuntil(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
        await writer.start_tls(ssl.create_default_context(cafile=str(a.authority)), server_hostname="a.test")
        writer.write(opening)
        assert b"urn:xmpp:features:dialback" in await reader.readuntil(b"</stream:features>")
        writer.write(b"<db:result from='b.test' to='a.test'>" + b"0" * 64 + b"</db:result>")
        assert b"type='invalid'" in await reader.readuntil(b"/>")
        writer.write(b"<message from='eve@b.test' to='alice@a.test'><body>spoofed</body></message>")
        assert b"not-authorized" in await reader.read()
        writer.close()
        await writer.wait_closed()

    run(story())
    assert a.waiting() == 0

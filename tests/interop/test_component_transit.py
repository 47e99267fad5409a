"""A stock Prosody, Comity as its component, and the SIP server behind (mode 2's other shape): Comity only passes messages on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Status
from tests.interop.authority import Authority
from tests.interop.guest import Guest
from tests.interop.xmpp_servers import PASSWORD, Names, ProsodyServer
from tests.paths.kit import ServerProcess
from tests.paths.test_neighbours import listening, run, texts

DAVE, JULIET = Address.parse("im:dave@pbx.x.test"), Address.parse("im:juliet@x.test")
SECRET = "what both know"


@dataclass(frozen=True, slots=True)
class Row:
    """Prosody for x.test, Comity between, a SIP server for pbx.x.test."""

    host: ProsodyServer
    between: ServerProcess
    pbx: ServerProcess


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    folder = tmp_path_factory.mktemp("transit")
    with ExitStack() as stack:
        names = stack.enter_context(Names())
        between = stack.enter_context(ServerProcess(folder / "between", domains=("gw.test",), people=()))
        pbx = stack.enter_context(ServerProcess(folder / "pbx", domains=("pbx.x.test",), people=(DAVE,)))
        authority = Authority(folder / "authority")
        host = ProsodyServer(
            *(folder / "host", "x.test", names, authority), accounts=("juliet",), components={"pbx.x.test": SECRET}
        )
        trust = folder / "trust.pem"
        trust.write_bytes(between.authority.read_bytes() + pbx.authority.read_bytes())
        with between.config.open("a", encoding="utf-8") as config:
            config.write(f"""[tls]
trust = "{trust}"
[[xmpp.component]]
domain = "pbx.x.test"
port = {host.component_port}
secret = "{SECRET}"
[[route]]
domain = "pbx.x.test"
via = "sip"
next_hop = "tls://localhost:{pbx.port("sip", "tls")[1]}"
transit = ["x.test"]
""")
        with pbx.config.open("a", encoding="utf-8") as config:
            config.write(f"""[tls]
trust = "{trust}"
[[route]]
domain = "x.test"
via = "sip"
next_hop = "tls://localhost:{between.port("sip", "tls")[1]}"
[[peer]]
name = "gw.test"
speaks_for = ["x.test"]
""")
        stack.enter_context(host)
        pbx.start()
        between.start()
        yield Row(host, between, pbx)


def test_a_text_passes_both_ways(row: Row) -> None:
    async def story() -> None:
        async with row.host.client("juliet") as juliet, row.pbx.client("sip", DAVE) as dave:
            await juliet.send(text_object(JULIET, DAVE, "through the gateway"), DAVE)
            [received] = await listening(dave, 1)
            assert (received.text, received.from_) == ("through the gateway", JULIET)
            assert [(hop.node, hop.in_protocol, hop.out_protocol) for hop in received.history] == [
                ("gw.test", "xmpp", "sip"),
                ("pbx.x.test", "sip", "sip"),
            ]
            answer = await dave.send(text_object(DAVE, JULIET, "and back"), JULIET)
            assert answer.status is Status.INDETERMINANT
            assert texts(await listening(juliet, 1)) == ["and back"]

    run(story())


def test_nothing_else_passes_and_says_so(row: Row) -> None:
    """D-09's kin: a query or a request for presence to the domain behind is answered here, and the stream stays."""

    async def story() -> None:
        address = "127.0.0.1", row.host.c2s
        async with Guest.person("juliet@x.test/slix", PASSWORD, address, str(row.host.trust)) as juliet:
            juliet.client.send_message(mto="dave@pbx.x.test", mbody="still here", mtype="chat")
            with pytest.raises(Exception, match="service-unavailable"):
                await juliet.client.plugin["xep_0054"].get_vcard("dave@pbx.x.test")
            info = (await juliet.client.plugin["xep_0030"].get_info("pbx.x.test"))["disco_info"]
            assert [identity[:2] for identity in info["identities"]] == [("gateway", "sip")]
        async with row.pbx.client("sip", DAVE) as dave:
            assert texts(await listening(dave, 1)) == ["still here"]

    run(story())

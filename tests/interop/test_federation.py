"""Two servers that know nothing of each other but what a stock DNS server says: found by each protocol, fail-over, trouble, loops.

Every domain of the far server has records of its own kind; the records are what ``comity dns`` prints.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Iterator
from pathlib import Path

import pytest

from comity.client import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Status
from tests.interop.nameserver import NameServer
from tests.paths.kit import ServerProcess, Via, free_ports, take

ALICE = Address.parse("im:alice@a.test")
BY = {"xmpp": "bx.test", "sip": "bs.test", "apex": "bp.test"}
"""Domains of the far server that are found by one protocol alone."""
LABELLED, SPARE, OTHER, BARE = "label.test", "spare.test", "other.test", "bare.test"
FAR = (*BY.values(), LABELLED, SPARE, OTHER)
VIAS: tuple[Via, ...] = ("sip", "xmpp", "apex")


def run(work: Coroutine[None, None, None]) -> None:
    asyncio.run(work)


def bob(domain: str) -> Address:
    return Address.im("bob", domain)


class World:
    """A name server, alice's server and bob's."""

    def __init__(self, names: NameServer, a: ServerProcess, b: ServerProcess, trust: Path) -> None:
        self.names = names
        self.a = a
        self.b = b
        self.trust = trust
        self.dead = free_ports(1)[0]

    def write(self, server: ServerProcess, trust: Path) -> None:
        """Let a server find others by the name server, and believe them."""
        with server.config.open("a", encoding="utf-8") as file:
            file.write(
                f'[tls]\ntrust = "{trust}"\n[federation]\ndns = true\nnetworks = ["127.0.0.0/8"]\n'
                f'nameservers = ["{self.names.address}"]\n'
            )

    def records(self, server: ServerProcess, domain: str) -> list[dict[str, str]]:
        """What ``comity dns`` says of a domain."""
        found = json.loads(server.run("dns", domain, "--json", "-c", str(server.config)))
        assert isinstance(found, list)
        return found

    def zone(self) -> str:
        """a.test by everything, each domain of the far server by what it is for."""
        lines = [_line(record) for record in self.records(self.a, "a.test")]
        for protocol, domain in BY.items():
            own = [r for r in self.records(self.b, domain) if r["protocol"] in (protocol, "")]
            lines += [_line(r) for r in own if not r["name"].startswith(("_im.", "_pres."))]
        lines += [
            _line(r) for r in self.records(self.b, LABELLED) if r["name"].startswith("_im._xmpp") or not r["protocol"]
        ]
        [secure] = [r for r in self.records(self.b, SPARE) if r["name"].startswith("_sips.")]
        lines += [
            _line(secure | {"data": f"1 0 {self.dead} spare.test."}),
            _line(secure | {"data": f"2{secure['data'][1:]}"}),
        ]
        lines += ["spare.test. 3600 IN A 127.0.0.1", "other.test. 3600 IN A 127.0.0.1"]
        lines += [_line(r) for r in self.records(self.b, OTHER) if r["name"].startswith("_sips.")]
        lines.append(f"_xmpp-server._tcp.other.test. 3600 IN SRV 0 0 {self.dead} other.test.")
        own_port = self.a.port("server", "tcp")[1]
        lines += [f"_xmpp-server._tcp.ourselves.test. 3600 IN SRV 0 0 {own_port} a.test."]
        return "\n".join(lines) + "\n"


def _line(record: dict[str, str]) -> str:
    return f"{record['name']} 3600 IN {record['kind']} {record['data']}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("federation")
    names = NameServer(folder / "names")
    people = tuple(bob(domain) for domain in FAR)
    with ServerProcess(folder / "a", "", ("a.test",), (ALICE,)) as a, ServerProcess(folder / "b", "", FAR, people) as b:
        trust = folder / "trust.pem"
        trust.write_bytes(a.authority.read_bytes() + b.authority.read_bytes())
        found = World(names, a, b, trust)
        for server in (a, b):
            found.write(server, trust)
        names.publish(found.zone())
        names.start()
        try:
            a.start()
            b.start()
            yield found
        finally:
            names.stop()


@pytest.mark.parametrize(
    ("source", "by"), [("sip", "xmpp"), ("xmpp", "sip"), ("apex", "sip"), ("sip", "apex"), ("apex", "apex")]
)
def test_a_domain_is_found_by_the_protocol_it_has_records_for(world: World, by: str, source: Via) -> None:
    """ADDR-5, ADDR-13, ADDR-15, ADDR-17: whatever the sender speaks; and the answer finds its way back (SEED-43)."""

    async def story() -> None:
        recipient = bob(BY[by])
        async with world.a.client(source, ALICE) as alice, world.b.client("xmpp", recipient) as other:
            await alice.send(text_object(ALICE, recipient, "there?"), recipient)
            [received] = await take(other)
            assert received.from_ == ALICE
            assert next((hop.node, hop.out_protocol) for hop in received.history) == ("a.test", by)
            await other.send(text_object(recipient, ALICE, "here"), ALICE)
            [answer] = await take(alice)
            assert answer.from_ == recipient

    run(story())


def test_the_label_of_rfc_3861_says_the_protocol_and_the_host(world: World) -> None:
    """ADDR-6: _im._xmpp and nothing else."""

    async def story() -> None:
        async with world.a.client("sip", ALICE) as alice, world.b.client("sip", bob(LABELLED)) as other:
            await alice.send(text_object(ALICE, bob(LABELLED), "by label"), bob(LABELLED))
            [received] = await take(other)
            assert received.history[0].out_protocol == "xmpp"

    run(story())


def test_the_second_target_is_used_where_the_first_does_not_answer(world: World) -> None:
    """ADDR-10: over targets of one protocol."""

    async def story() -> None:
        async with world.a.client("xmpp", ALICE) as alice, world.b.client("sip", bob(SPARE)) as other:
            await alice.send(text_object(ALICE, bob(SPARE), "second"), bob(SPARE))
            [received] = await take(other)
            assert received.history[0].out_protocol == "sip"

    run(story())


def test_the_next_protocol_is_used_where_no_server_of_the_first_answers(world: World) -> None:
    """Its XMPP server is down, its SIP server is not: one message, by SIP."""

    async def story() -> None:
        async with world.a.client("xmpp", ALICE) as alice, world.b.client("xmpp", bob(OTHER)) as other:
            await alice.send(text_object(ALICE, bob(OTHER), "any way"), bob(OTHER))
            [received] = await take(other)
            assert received.history[0].out_protocol == "sip"

    run(story())


@pytest.mark.parametrize("source", VIAS)
def test_a_domain_that_does_not_exist_is_said_at_once(world: World, source: Via) -> None:
    """ADDR-18, XMPP-7: remote-server-not-found, 404, 553."""

    run(_refused(world, source, "missing.test", "does not exist"))


async def _refused(world: World, source: Via, domain: str, words: str) -> None:
    """A message to a domain fails, and the sender hears why: as the answer, or by XMPP as an error after the acknowledgement."""
    async with world.a.client(source, ALICE) as alice:
        response = await alice.send(text_object(ALICE, bob(domain), "x"), bob(domain))
        reason, text = response.reason, response.text
        if response.status is Status.INDETERMINANT:
            [received] = await take(alice)
            assert received.report is not None
            reason, text = received.report.reason, received.report.text
    assert reason in (Reason.NO_ROUTE, Reason.NO_SUCH_USER)  # SIP's 404 is both
    assert words in text or source == "sip", text


def test_a_domain_that_leads_to_ourselves_does_not_loop(world: World) -> None:
    """U-03: its records name our own listener."""
    run(_refused(world, "xmpp", "ourselves.test", "own listener"))


def test_without_dns_messages_wait_and_leave_when_it_is_back(world: World) -> None:
    """U-06: a domain whose records are not known here yet; nothing is refused, nothing lost."""
    folder = world.names.folder
    with ServerProcess(folder / "late", "", ("late.test",), (bob("late.test"),)) as late:
        trust = folder / "trust-all.pem"
        trust.write_bytes(world.trust.read_bytes() + late.authority.read_bytes())
        world.write(late, trust)
        late.start()
        world.a.stop()
        world.a.config.write_text(world.a.config.read_text().replace(str(world.trust), str(trust)))
        world.a.start()
        world.names.stop()

        async def story() -> None:
            async with world.a.client("xmpp", ALICE) as alice, late.client("xmpp", bob("late.test")) as other:
                recipient = bob("late.test")
                sent = [await alice.send(text_object(ALICE, recipient, text), recipient) for text in ("1", "2")]
                assert [response.status for response in sent] == [Status.INDETERMINANT] * 2
                records = [_line(record) for record in world.records(late, "late.test")]
                world.names.publish(world.zone() + "\n".join(records) + "\n")
                await asyncio.to_thread(world.names.start)
                texts = [received.object.octets.rpartition(b"\n")[2] for received in await take(other, 2)]
                assert texts == [b"1", b"2"]

        run(story())

"""The access service of a running server, asked by the independent APEX peer (RFC 3341; APEX-12, APEX-21, APEX-23, APEX-25)."""

from __future__ import annotations

import asyncio
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from comity.client.compose import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Status
from tests.conformance.exchanges import exchanges
from tests.interop.apex_peer import Application, Data, read_data
from tests.interop.apex_peer_beep import Message, Refused
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path) as server:
        server.start()
        yield server


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class Person:
    """Somebody's application, attached as the bare endpoint."""

    def __init__(self, server: ServerProcess, stack: ExitStack, name: str, domain: str = "a.test") -> None:
        host, port = server.port("apex", "tcp")
        self.name = f"{name}@{domain}"
        self.access = f"apex=access@{domain}"
        self.application = stack.enter_context(Application(host, port))
        self.application.sign_in(self.name, PASSWORD)
        self.application.attach(self.name)

    def tell(self, element: str) -> None:
        """Data for the access service."""
        self.application.data(self.name, self.access, inline=element)

    def hear(self) -> ET.Element:
        """What the service says."""
        data = self.application.receive()
        assert (data.originator, data.recipients) == (self.access, [self.name])
        assert data.inline is not None
        (element,) = data.inline
        return element

    def ask(self, element: str) -> ET.Element:
        self.tell(element)
        return self.hear()

    def query(self, actor: str, actions: str, owner: str = "alice@a.test") -> str:
        answer = self.ask(f"<query owner='{owner}' actor='{actor}' actions='{actions}' transID='7' />")
        assert answer.get("transID") == "7"
        return f"reply {answer.get('code')}" if answer.tag == "reply" else answer.tag

    def set(self, actor: str, actions: str, last_update: str = "") -> ET.Element:
        """Set an entry of one's own; the entry that the owner is told of."""
        moment = f" lastUpdate='{last_update}'" if last_update else ""
        entry = f"<access owner='{self.name}' actor='{actor}' actions='{actions}'{moment} />"
        reply = self.ask(f"<set transID='8'>{entry}</set>")
        assert (reply.tag, reply.get("code"), reply.get("transID")) == ("reply", "250", "8")
        told = self.hear()
        assert (told.tag, told.get("transID")) == ("set", "8")
        (access,) = told
        assert access.get("actor") == actor
        return access


def sent(server: ServerProcess, via: Via, sender: Address, recipient: Address) -> Reason | None:
    """Send a text by one of our clients; why it was refused, None if it was taken."""

    async def main() -> Reason | None:
        async with server.client(via, sender, receive=False) as client:
            response = await client.send(text_object(sender, recipient, "hello"), recipient)
            return response.reason if response.status is Status.FAILURE else None

    return asyncio.run(main())


def test_entries_bind_everybody_and_outlive_the_server(server: ServerProcess, stack: ExitStack) -> None:
    """By SIP and XMPP too, beside what the command line decides; killed, it comes back with them, moment and all."""
    alice, bob = Person(server, stack, "alice"), Person(server, stack, "bob")
    assert bob.query("bob@a.test", "core:data") == "reply 537"
    assert bob.query("bob@a.test", "core:data", "pebbles@a.test") == "reply 550"
    assert bob.query("bob@a.test", "core:data", "fred@elsewhere.example") == "reply 553"
    assert alice.query("bob@a.test", "core:data") == "allow"
    assert alice.query("bob@a.test", "core:data presence:subscribe") == "deny"
    bob.application.data("bob@a.test", "alice@a.test", part=(b"Content-Type: text/plain\r\n", b"hello"))
    assert alice.application.receive().body == b"hello"

    entry = alice.set("bob@a.test", "presence:subscribe")
    assert alice.query("bob@a.test", "presence:subscribe") == "allow"
    assert alice.query("bob@a.test", "core:data") == "deny"
    with pytest.raises(Refused):
        bob.application.data("bob@a.test", "alice@a.test", part=(b"Content-Type: text/plain\r\n", b"again"))
    for via in ("sip", "xmpp"):
        refused = sent(server, via, BOB, ALICE)
        assert refused is not None
        assert refused is sent(server, via, BOB, Address.parse("im:pebbles@a.test"))

    server.run("account", "refuse", "alice@a.test", "bob@a.test", "-c", str(server.config))
    assert alice.query("bob@a.test", "presence:subscribe") == "deny"
    server.run("account", "allow", "alice@a.test", "bob@a.test", "-c", str(server.config))
    assert alice.query("bob@a.test", "presence:subscribe") == "allow"

    server.kill()
    server.start()
    alice = Person(server, stack, "alice")
    got = alice.ask("<get owner='alice@a.test' actor='bob@a.test' transID='9' />")
    (access,) = got
    assert (got.tag, access.attrib) == ("set", entry.attrib)
    assert sent(server, "sip", BOB, ALICE) is Reason.NO_SUCH_USER
    alice.set("bob@a.test", "core:data", access.get("lastUpdate", ""))
    assert sent(server, "sip", BOB, ALICE) is None
    data = alice.application.receive()
    assert data.originator.startswith("bob")
    assert b"hello" in data.body


def test_the_exchanges_of_rfc_3341_go_as_they_are_printed(tmp_path: Path, stack: ExitStack) -> None:
    """Section 2, octet for octet what the applications send, but for the moment: that is what the service said last (APEX-23)."""
    people = tuple(Address.parse(f"im:{name}@example.com") for name in ("fred", "wilma", "barney"))
    server = stack.enter_context(ServerProcess(tmp_path, "", ("example.com",), people))
    server.start()
    present = {f"{name}@example.com": Person(server, stack, name, "example.com") for name in ("fred", "wilma")}
    fred = present["fred@example.com"]
    fred.set("wilma@example.com", "access:all")
    fred.set("barney@example.com", "core:data presence:subscribe")
    last = fred.set("*@example.com", "core:data presence:subscribe").get("lastUpdate", "")
    allowed = True
    for request in (steps[0] for steps in exchanges() if steps[0].name.startswith("3341 2.")):
        printed = read_data(Message("MSG", 1, 1, request.payload))
        assert isinstance(printed, Data)
        if not printed.originator.startswith("apex="):
            moment = re.compile(rb"lastUpdate='[^']*'")
            sender = present[printed.originator].application
            sender.send(moment.sub(f"lastUpdate='{last}'".encode(), request.payload))
            continue
        assert printed.inline is not None
        expected = printed.inline[0]
        if expected.tag == "deny":  # "or": what it would have said, had Fred not permitted it
            allowed = False
            continue
        got = present[printed.recipients[0]].hear()
        said, told = list(got.iter()), list(expected.iter())
        assert [(one.tag, _but_moment(one)) for one in said] == [(one.tag, _but_moment(one)) for one in told]
        assert (got.text or "").strip() == ""
        last = next((one.attrib["lastUpdate"] for one in said if "lastUpdate" in one.attrib), last)
    assert not allowed


def _but_moment(element: ET.Element) -> dict[str, str]:
    return {name: value for name, value in element.attrib.items() if name != "lastUpdate"}

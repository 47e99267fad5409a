"""SEC-37: nobody learns another's network address from a message, whatever protocols it passes (RFC 2779 section 5.1.17)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.catalogue.harness import Target
from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import WIRES, Agent, Wire


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server and two people beside Alice and Bob."""
    target = Target(tmp_path_factory.mktemp("privacy"), "", ("dora",))
    yield target
    target.check_canary()
    target.close()


def telling(agent: Agent, to: str, text: str) -> bytes:
    """A signed-in request that says the sender's address wherever a phone may say it."""
    call_id = f"Call-ID: {text.replace(' ', '-')}@{agent.address}"
    lines = (f"Contact: {agent.contact}", f"Reply-To: {agent.contact}", f"Record-Route: <sip:{agent.address};lr>")
    return agent.sign(agent.message(text, *lines, to=to, call_id=call_id))


@pytest.mark.parametrize("wire", WIRES)
def test_a_phones_address_is_not_seen_behind_the_server(wire: Wire, target: Target) -> None:
    """Neither by an XMPP program nor by another phone: Via, Contact, Call-ID and what else says it stay here."""
    with RawXmpp(target, "bound", "bob") as program, Agent(target, "tcp", "dora") as phone:
        program.send(b"<presence/>")
        phone.register()
        with Agent(target, wire) as agent:
            agent.register()
            request = telling(agent, "sip:bob@a.test", f"to bob {wire}")
            assert request.count(agent.address.encode()) >= 5
            assert sip_status(agent.ask(request)) in (200, 202)
            seen = program.until(rb"</message>")
            assert f"to bob {wire}".encode() in seen
            agent.send(telling(agent, "sip:dora@a.test", f"to dora {wire}"))
            delivered = phone.hear()
            phone.reply(delivered)
            assert sip_status(agent.hear()) in (200, 202)
            agent.register("Expires: 0")
        assert f"to dora {wire}".encode() in delivered
        assert agent.address.encode() not in seen
        assert agent.address.encode() not in delivered
        phone.register("Expires: 0")


def test_an_xmpp_programs_address_is_not_seen_behind_the_server(target: Target) -> None:
    with Agent(target, "tcp", "dora") as phone, RawXmpp(target, "bound") as program:
        phone.register()
        program.send(b"<message to='dora@a.test' type='chat' id='m1'><body>to dora</body></message>")
        delivered = phone.hear()
        phone.reply(delivered)
        assert b"to dora" in delivered
        assert program.address.encode() not in delivered
        phone.register("Expires: 0")

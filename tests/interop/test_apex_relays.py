"""Our server and a relay that shares nothing with it, either of them calling (RFC 3340 sections 2.1, 4.4.2, 4.4.4.1; APEX-12, APEX-14)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.client.compose import text_object
from comity.cpim.address import Address
from comity.cpim.operations import Reason
from tests.interop.apex_peer import Application, Data, Relay, data_payload, option
from tests.interop.apex_peer_beep import Refused
from tests.paths.kit import ALICE, PASSWORD, ServerProcess

BOB = Address.parse("im:bob@b.test")
PICTURE = (b"Content-Type: image/gif\r\n", b"GIF89a\x00\xff\r\nEND\r\n")


@pytest.fixture
def relay() -> Iterator[Relay]:
    """The relay of b.test that is nobody's but its own."""
    relay = Relay("b.test")
    yield relay
    relay.close()
    assert relay.broken == []


@pytest.fixture
def server(tmp_path: Path, relay: Relay) -> Iterator[ServerProcess]:
    """Ours, of a.test, that knows the other by its address."""
    with ServerProcess(tmp_path) as server:
        text = server.config.read_text("utf-8") + (
            f'\n[[route]]\ndomain = "b.test"\nvia = "apex"\nnext_hop = "tcp://127.0.0.1:{relay.port}"\n'
            f'[[peer]]\nname = "b.test"\naddress = {json.dumps(["127.0.0.0/8"])}\n'
        )
        server.config.write_text(text, encoding="utf-8")
        server.start()
        yield server
        assert server.stop() == 0


@pytest.fixture
def alice(server: ServerProcess) -> Iterator[Application]:
    """Her application, attached."""
    with Application(*server.port("apex", "tcp")) as alice:
        alice.sign_in("alice@a.test", PASSWORD)
        alice.attach("alice@a.test")
        yield alice


def report(trans_id: str, code: str) -> str:
    destination = f"<destination identity='bob@b.test'><reply code='{code}'>so it is</reply></destination>"
    return f"<statusResponse transID='{trans_id}'>{destination}</statusResponse>"


def arrived(relay: Relay) -> Data:
    return relay.arrived.get(timeout=20)


def test_our_server_calls_binds_and_hands_on_what_it_was_given(alice: Application, relay: Relay) -> None:
    """Bind before data; content as it came; options as RFC 3340 section 5 and RFC 3342 section 4 have them."""
    asked = option("statusRequest", 86, must=True) + option("urn:x:y", 4, "<z xmlns='urn:x'/>", "all")
    alice.data("alice@a.test", "bob@b.test", part=PICTURE, options=asked, content_id="2@a.test")
    data = arrived(relay)
    assert relay.bound.get(timeout=20) == "a.test"
    assert (data.originator, data.recipients, data.body) == ("alice@a.test", ["bob@b.test"], PICTURE[1])
    assert data.header("Content-Type") == "image/gif"
    assert data.element.get("content") == "cid:2@a.test"
    request, hopping, other = (data.option(name) for name in ("statusRequest", "dataHopping", "urn:x:y"))
    assert request is not None
    assert (request.get("transID"), request.get("mustUnderstand")) == ("86", "true")
    assert hopping is not None
    assert (hopping.get("targetHop"), hopping.get("mustUnderstand"), len(hopping)) == ("all", "true", 1)
    assert other is not None
    assert [child.tag for child in other] == ["{urn:x}z"]
    # The status comes back by the same session: a relay that was called may send as well.
    relay.send("a.test", data_payload("apex=report@b.test", ["alice@a.test"], inline=report("86", "250")))
    back = alice.receive(20)
    assert (back.originator, back.inline is not None and back.inline[0].get("transID")) == ("apex=report@b.test", "86")


def test_data_comes_by_the_session_that_we_opened_and_by_one_that_the_other_opens(
    server: ServerProcess, alice: Application, relay: Relay
) -> None:
    """RFC 3340 section 2.1: either relay may send, whoever called; section 4.5.2: for its own domain only."""
    alice.data("alice@a.test", "bob@b.test", part=PICTURE)
    arrived(relay)
    relay.send("a.test", data_payload("bob@b.test", ["alice@a.test"], part=PICTURE))
    assert alice.receive(20).body == PICTURE[1]
    with pytest.raises(Refused, match="537"):
        relay.send("a.test", data_payload("bob@c.test", ["alice@a.test"], part=PICTURE))
    with Application(*server.port("apex", "tcp")) as caller:
        caller.bind("b.test")
        caller.data("bob@b.test", "alice@a.test", part=PICTURE, options=option("statusRequest", 7))
        assert alice.receive(20).body == PICTURE[1]
        # Its own session is there to be used, but our route says how to call: the report goes that way.
        back = arrived(relay)
        assert (back.originator, back.recipients) == ("apex=report@a.test", ["bob@b.test"])
        assert back.inline is not None
        assert back.inline[0].get("transID") == "7"


def test_refusal_for_now_is_tried_again_and_one_for_ever_is_told(alice: Application, relay: Relay) -> None:
    """Reliability.md section 5.2: 450 is about this attempt, 5xx about this data."""
    answers = [Refused("450", "not now"), None, Refused("554", "never")]
    relay.refuse = lambda data: answers.pop(0)
    alice.data("alice@a.test", "bob@b.test", part=PICTURE, options=option("statusRequest", 1))
    assert arrived(relay).body == PICTURE[1]
    assert len(answers) == 1
    alice.data("alice@a.test", "bob@b.test", part=PICTURE, options=option("statusRequest", 2))
    told = alice.receive(20)
    assert told.inline is not None
    [response] = told.inline
    assert response.get("transID") == "2"
    assert [reply.get("code", "")[0] for reply in response.iter("reply")] == ["5"]


@pytest.mark.parametrize("via", ["sip", "xmpp"])
def test_sender_by_another_protocol_is_told_what_the_relay_reports_later(
    server: ServerProcess, relay: Relay, via: str
) -> None:
    """GW-12: our statusRequest in her name; a statusResponse with its transID is a failure report to her, once."""

    async def story() -> None:
        async with server.client("sip" if via == "sip" else "xmpp", ALICE) as client:
            await client.send(text_object(ALICE, BOB, "hello"), BOB)
            data = await asyncio.to_thread(arrived, relay)
            assert data.header("Content-Type") == "message/cpim"
            asked = data.option("statusRequest")
            assert asked is not None
            inline = report(asked.get("transID", ""), "550")
            payload = data_payload("apex=report@b.test", ["alice@a.test"], inline=inline)
            await asyncio.to_thread(relay.send, "a.test", payload)
            async with asyncio.timeout(20):
                received = await anext(client.messages())
            assert received.report is not None
            assert received.report.reason is Reason.NO_SUCH_USER

    asyncio.run(story())

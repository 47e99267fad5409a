"""The APEX client and the real server: messages, refusals, what happens when the server is killed, presence."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.bindings.base import Transport
from comity.client import (
    Client,
    ClientError,
    Judge,
    NotPossible,
    Seen,
    Standing,
    apex,
    connect,
    text_object,
)
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Requirement, Status
from comity.cpim.presence_state import Availability
from comity.net.driver import LoopClock
from comity.net.network import AsyncNetwork
from comity.net.resolver import Resolver
from comity.net.tls import TlsContexts
from comity.secure import TrustStore, new_identity, sign
from comity.testing.dns import DnsServer
from tests.loop import in_loop as story
from tests.paths.kit import ALICE, BOB, PASSWORD, ServerProcess, Via, free_ports, take


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("server"), "presence_interval = 0.1")
    server.start()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize("transport", ["tcp", "tls"])
@story
async def test_an_object_crosses_octet_for_octet_and_its_delivery_is_told(
    server: ServerProcess, transport: Transport
) -> None:
    """APEX-10, APEX-14: the statusResponse 250 comes when the application said ok."""
    obj = text_object(ALICE, BOB, "hello\r\n--apex--\r\nEND\r\n")
    desk = server.client("apex", ALICE, transport, receive=False)
    async with server.client("apex", BOB, transport) as bob, desk as alice:
        sending = alice.send(obj, BOB)
        [received] = await take(bob)
        assert received.object == obj
        assert received.from_ == ALICE
        assert received.history[0].in_protocol == "apex"
        assert (await sending).status is Status.SUCCESS


@story
async def test_the_relay_of_a_domain_is_found_by_its_srv_records_in_their_order(server: ServerProcess) -> None:
    """ADDR-17: RFC 3340 section 3.1; the first target is not there."""
    [closed] = free_ports(1)
    zone = f"""
        _apex-edge._tcp.a.test. 60 IN SRV 10 0 {closed} relay.a.test.
        _apex-edge._tcp.a.test. 60 IN SRV 20 0 {server.port("apex", "tcp")[1]} relay.a.test.
        relay.a.test. 60 IN A 127.0.0.1
    """
    async with DnsServer(zone) as dns:
        client, clock = connect("apex", ALICE, PASSWORD, ca_file=server.authority), LoopClock()
        assert isinstance(client, apex.ApexClient)
        client._network = AsyncNetwork(
            clock, tls=TlsContexts(trust=server.authority), resolver=Resolver(clock, [dns.address], hosts=None)
        )
        async with client:
            assert client.endpoint.bare == client.endpoint
        assert "_apex-edge._tcp.a.test SRV" in dns.asked


@pytest.mark.parametrize("others", ["sip", "xmpp"])
@story
async def test_it_crosses_to_and_from_another_protocol(server: ServerProcess, others: Via) -> None:
    """SEED-1."""
    there, back = text_object(ALICE, BOB, "there"), text_object(BOB, ALICE, "back")
    async with server.client("apex", ALICE) as alice, server.client(others, BOB) as bob:
        sending = alice.send(there, BOB)
        [received] = await take(bob)
        assert received.object.octets == there.octets
        assert (await sending).status is Status.SUCCESS
        answering = bob.send(back, ALICE)
        [received] = await take(alice)
        assert received.object.octets == back.octets
        assert (await answering).status is not Status.FAILURE


@story
async def test_a_message_that_was_not_taken_comes_again(server: ServerProcess) -> None:
    """A program that dies while it handles a message gets it again."""
    obj = text_object(ALICE, BOB, "once more")
    async with server.client("apex", ALICE, receive=False) as alice:
        async with server.client("apex", BOB) as bob:
            sending = alice.send(obj, BOB)
            assert (await anext(aiter(bob.messages()))).object == obj
        async with server.client("apex", BOB) as bob:
            [received] = await take(bob)
            assert received.object == obj
        await sending


@story
async def test_a_refusal_is_told_to_the_sender(server: ServerProcess) -> None:
    """T8: in the words of APEX."""
    async with server.client("apex", ALICE, receive=False) as alice, server.client("apex", BOB) as bob:
        sending = alice.send(text_object(ALICE, BOB, "x"), BOB)
        messages = aiter(bob.messages())
        (await anext(messages)).refuse(Reason.CONTENT, "not this")
        response = await sending
        assert (response.status, response.reason) == (Status.FAILURE, Reason.CONTENT)


@story
async def test_a_refusal_that_comes_late_is_a_report(server: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """``send`` waits for a moment; what comes later comes as a message."""
    monkeypatch.setattr(apex, "REPORT_SECONDS", 0.0)
    async with server.client("apex", ALICE) as alice, server.client("apex", BOB) as bob:
        response = await alice.send(text_object(ALICE, BOB, "x"), BOB, key="abc")
        assert response.status is Status.INDETERMINANT
        (await anext(aiter(bob.messages()))).refuse(Reason.CONTENT, "not this")
        [received] = await take(alice)
        assert received.report is not None
        assert (received.report.recipient, received.report.native_id) == (BOB, "abc")
        assert received.report.reason is Reason.CONTENT


@story
async def test_what_is_sent_while_the_server_is_down_arrives_once(tmp_path: Path) -> None:
    """I5: data that was not answered goes again with its Content-ID, by which the server knows it."""
    with ServerProcess(tmp_path / "server") as server:
        server.start()
        async with server.client("apex", ALICE, receive=False) as alice, server.client("apex", BOB) as bob:
            first = alice.send(text_object(ALICE, BOB, "before"), BOB)
            assert (await take(bob))[0].text == "before"
            await first
            server.kill()
            sending = [alice.send(text_object(ALICE, BOB, f"while {n}"), BOB) for n in range(3)]
            server.start()
            assert [one.text for one in await take(bob, 3)] == ["while 0", "while 1", "while 2"]
            assert {response.status for response in await asyncio.gather(*sending)} == {Status.SUCCESS}


@story
async def test_a_server_that_is_stopped_amid_messages_loses_and_refuses_none(tmp_path: Path) -> None:
    """SIGTERM: what is not delivered by then is delivered by the next one, in order."""
    with ServerProcess(
        tmp_path / "server", "presence_interval = 0.1\nuser_messages = 1000\nuser_message_burst = 1000"
    ) as server:
        server.start()
        async with server.client("apex", ALICE, receive=False) as alice, server.client("apex", BOB) as bob:
            sending = [alice.send(text_object(ALICE, BOB, str(n)), BOB) for n in range(150)]
            messages = aiter(bob.messages())
            found = [await anext(messages) for _ in range(10)]
            assert await asyncio.to_thread(server.stop) == 0
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(30):
                found += [await anext(messages) for _ in range(140)]
            assert [one.text for one in found] == [str(n) for n in range(150)]
            assert all(response.status is not Status.FAILURE for response in await asyncio.gather(*sending))


@pytest.mark.parametrize("is_taken_meanwhile", [False, True])
@story
async def test_what_was_received_before_the_server_died_is_not_received_twice(
    tmp_path: Path, is_taken_meanwhile: bool
) -> None:
    """The server sends again what it has no answer to; the client knows it by its Content-ID, taken or not."""
    with ServerProcess(tmp_path / "server") as server:
        server.start()
        async with server.client("apex", BOB) as bob:
            async with server.client("apex", ALICE, receive=False) as alice:
                sending = alice.send(text_object(ALICE, BOB, "first"), BOB)
                messages = aiter(bob.messages())
                assert (await anext(messages)).text == "first"
                await sending
            server.kill()
            asking = asyncio.ensure_future(anext(messages)) if is_taken_meanwhile else None
            server.start()
            async with server.client("apex", ALICE, receive=False) as alice:
                sending = alice.send(text_object(ALICE, BOB, "second"), BOB)
                asking = asking or asyncio.ensure_future(anext(messages))
                async with asyncio.timeout(20):
                    assert (await asking).text == "second"
                    following = asyncio.ensure_future(anext(messages))
                    assert (await sending).status is Status.SUCCESS
            assert not following.done()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        assert server.waiting() == 0


@story
async def test_one_program_at_a_time_receives_as_an_endpoint(server: ServerProcess) -> None:
    """RFC 3340 section 4.4.1 step 5: 554; who only sends takes nothing away."""
    async with server.client("apex", BOB), server.client("apex", BOB, receive=False):
        with pytest.raises(ClientError, match="554 another application"):
            async with server.client("apex", BOB):
                pass


@story
async def test_a_wrong_password_and_a_server_without_tls_are_said(server: ServerProcess) -> None:
    """P-18: nothing is proved in the clear unless it was allowed."""
    where = server.port("apex", "tcp")
    with pytest.raises(ClientError, match="535"):
        async with connect("apex", ALICE, "wrong", server=where, ca_file=server.authority):
            pass
    with pytest.raises(ClientError, match="certificate"):
        async with connect("apex", ALICE, PASSWORD, server=where):
            pass


@story
async def test_a_claimed_sender_is_refused(server: ServerProcess) -> None:
    """P-24."""
    async with server.client("apex", ALICE, receive=False) as alice:
        response = await alice.send(text_object(BOB, ALICE, "x"), ALICE, from_=BOB)
        assert (response.status, response.reason) == (Status.FAILURE, Reason.DENIED)


@story
async def test_a_requirement_crosses_and_is_kept(server: ServerProcess) -> None:
    """T11: what every hop must keep, the first one to begin with."""
    async with server.client("apex", ALICE, "tls", receive=False) as alice, server.client("apex", BOB, "tls") as bob:
        sending = alice.send(text_object(ALICE, BOB, "x"), BOB, requirements=[Requirement.TLS])
        [received] = await take(bob)
        assert received.requirements == {Requirement.TLS}
        assert (await sending).status is Status.SUCCESS
        unsigned = await alice.send(text_object(ALICE, BOB, "x"), BOB, requirements=[Requirement.SIGNED])
        assert unsigned.reason is Reason.PROTECTION


# --- presence ---------------------------------------------------------------------------------------------------------


async def see(client: Client, who: Address, count: int, judge: Judge | None = None, **options: bool) -> list[Seen]:
    """What is seen of somebody, but for what waits."""
    found: list[Seen] = []
    async with asyncio.timeout(20), aclosing(client.watch(who, judge=judge, **options)) as changes:
        async for seen in changes:
            if seen.standing is not Standing.PENDING:
                found.append(seen)
            if len(found) == count:
                break
    return found


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Everybody sees everybody."""
    server = ServerProcess(
        tmp_path_factory.mktemp("server"), "presence_interval = 0.1\n[policy]\npresence_default = 'everyone'"
    )
    server.start()
    yield server
    assert server.stop() == 0


@pytest.mark.parametrize("others", ["sip", "xmpp", "apex"])
@story
async def test_presence_is_seen_to_and_from_another_protocol(open_server: ServerProcess, others: Via) -> None:
    """T9, APEX-17, APEX-19: state and note cross; a poll is a subscribe of no duration."""
    server = open_server
    async with server.client("apex", ALICE, receive=False) as alice, server.client(others, BOB) as bob:
        for one, other, whom in ((alice, bob, ALICE), (bob, alice, BOB)):
            assert (await one.publish(Availability.AWAY, "at lunch")).status is not Status.FAILURE
            [seen] = await see(other, whom, 1)
            assert (seen.availability, seen.note) == (Availability.AWAY, "at lunch")
        if others != "xmpp":  # there a poll is of the contact list
            [seen] = await see(bob, ALICE, 1, is_once=True)
            assert seen.availability is Availability.AWAY
        [seen] = await see(alice, BOB, 1, is_once=True)
        assert seen.availability is Availability.AWAY
        async with asyncio.timeout(20), aclosing(alice.watch(BOB)) as changes:
            assert (await anext(changes)).availability is Availability.AWAY
            assert (await bob.unpublish()).status is not Status.FAILURE
            assert (await anext(changes)).availability is Availability.OFFLINE


@story
async def test_two_applications_of_one_account_do_not_end_each_other(open_server: ServerProcess) -> None:
    """APEX-19: one entry for the account; each sends back the other's tuples."""
    server = open_server
    async with server.client("apex", ALICE, receive=False) as one, server.client("apex", BOB, receive=False) as bob:
        await one.publish(Availability.DND, "deep in it")
        async with server.client("apex", ALICE, receive=False) as other:
            await other.publish(Availability.AVAILABLE)
        [seen] = await see(bob, ALICE, 1, is_once=True)
        assert (seen.availability, seen.note) == (Availability.DND, "deep in it")


@story
async def test_signed_presence_reaches_who_judges_it(open_server: ServerProcess) -> None:
    """X39: the octets that the presentity signed."""
    server, key = open_server, new_identity(ALICE, when=datetime.now(UTC))
    trust = TrustStore(pinned=(key.certificate,))

    def sealer(obj: MimeObject) -> MimeObject:
        return sign(obj, key, when=datetime.now(UTC))

    async with server.client("apex", ALICE, receive=False) as alice, server.client("apex", BOB, receive=False) as bob:
        assert (await alice.publish(Availability.AWAY, "signed", sealer=sealer)).status is Status.SUCCESS
        [seen] = await see(bob, ALICE, 1, Judge(trust))
        assert seen.verdict is not None
        assert seen.verdict.is_valid
        assert (seen.availability, seen.note) == (Availability.AWAY, "signed")


@story
async def test_what_apex_does_not_have_is_said(open_server: ServerProcess) -> None:
    async with open_server.client("apex", ALICE, receive=False) as alice:
        for asking in (alice.contacts(), alice.requests(), alice.allow(BOB), alice.blocked()):
            with pytest.raises(NotPossible):
                await asking

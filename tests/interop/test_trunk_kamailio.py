"""Kamailio as registrar and trunk beside Comity: its people by SIP, ours by XMPP and APEX, both ways."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from comity.client import Client, Received, connect
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Reason, Response, Status
from comity.testing.objects import objects
from tests.interop.trunk_servers import DOMAIN, HOST, PASSWORD, Trunk, person
from tests.loop import in_loop
from tests.paths.kit import ALICE, BOB, ServerProcess, Via, take

DAVE, ERIN, NUMBER = person("dave"), person("erin"), person("1001")
Kind = Literal["udp", "tls"]
PATIENCE = 20.0


class Joined:
    """a.test at Comity and pbx.test at Kamailio."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self.kind: Kind = kind
        fast = "user_messages = 1000\nuser_message_burst = 10000\nuser_octets = 100000000"
        self.comity = ServerProcess(folder / "comity", fast)
        self.kamailio = Trunk(folder / "kamailio", authority=self.comity.authority)
        self.kamailio.prepare()
        udp, tls = self.comity.port("sip", "udp")[1], self.comity.port("sip", "tls")[1]
        words = ("WITH_TLS",) if kind == "tls" else ("WITH_SERVICE_ROUTE", "WITH_FORK")
        self.kamailio.words = words
        self.kamailio.trunk = f"sip:127.0.0.1:{tls};transport=tls" if kind == "tls" else f"sip:127.0.0.1:{udp}"
        text = self.comity.config.read_text() + (self._by_tls() if kind == "tls" else self._by_udp(folder))
        self.comity.config.write_text(text)

    def _by_tls(self) -> str:
        return f"""
[tls]
trust = "{self.kamailio.its_authority}"
[[route]]
domain = "{DOMAIN}"
via = "sip"
next_hop = "tls://{HOST}:{self.kamailio.tls_port}"
keep_alive = "1 s"
"""

    def _by_udp(self, folder: Path) -> str:
        """The first next hop is always dead; Bob is a number of the PBX, and it wants a password."""
        (folder / "trunk.password").write_text(PASSWORD + "\n")
        return f"""
[[route]]
domain = "{DOMAIN}"
via = "sip"
next_hop = ["tcp://{HOST}:9", "udp://{HOST}:{self.kamailio.port}"]
user = "trunk"
password_file = "{folder / "trunk.password"}"
register = ["1001@{DOMAIN}"]
keep_alive = "1 s"
[[route]]
domain = "x.test"
via = "sip"
next_hop = "udp://{HOST}:{self.kamailio.port}"
user = "trunk"
realm = "{DOMAIN}"
password_file = "{folder / "trunk.password"}"
transit = ["{DOMAIN}"]
[[map]]
address = "bob@a.test"
on = "{DOMAIN}"
is = "1001@{DOMAIN}"
[[peer]]
name = "{DOMAIN}"
address = ["{HOST}"]
"""

    def start(self) -> None:
        self.kamailio.start()
        self.comity.start()

    def close(self) -> None:
        self.comity.kill()
        self.kamailio.stop()

    def phone(self, who: Address, *, receive: bool = True) -> Client:
        """Somebody of pbx.test, by a connection of one's own."""
        door = HOST, self.kamailio.port
        return connect("sip", who, PASSWORD, server=door, transport="tcp", receive=receive)

    def ours(self, via: Via, who: Address = ALICE, *, receive: bool = True) -> Client:
        return self.comity.client(via, who, receive=receive)

    def until(self, look: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not look():
            assert time.monotonic() < deadline, f"no {what}\n{self.kamailio.output[-2000:]}\n{self.log[-3000:]}"
            time.sleep(0.05)  # a poll of other processes, with a deadline

    def waits(self, domain: str = DOMAIN) -> bool:
        """Whether something waits for the trunk."""
        return f"hop/sip:{domain}" in self.comity.run("queue", "list", "-c", str(self.comity.config))

    @property
    def port(self) -> int:
        """Where Comity knows Kamailio to be."""
        return self.kamailio.tls_port if self.kind == "tls" else self.kamailio.port

    @property
    def log(self) -> str:
        return self.comity.log.read_text(encoding="utf-8")


@pytest.fixture(scope="module", params=["udp", "tls"])
def joined(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joined]:
    both = Joined(tmp_path_factory.mktemp(f"trunk-{request.param}"), request.param)
    try:
        both.start()
        yield both
    finally:
        both.close()


def letter(sender: Address, to: Address, text: str) -> MimeObject:
    return MimeObject.of(
        "message/cpim",
        f"From: <{sender.uri}>\r\nTo: <{to.uri}>\r\nDateTime: 2026-01-01T00:00:00Z\r\n\r\n"
        f"Content-Type: text/plain; charset=utf-8\r\n\r\n{text}".encode(),
    )


def text_of(received: Received) -> str:
    return CpimMessage.parse(received.object.octets).content.decode()


async def passes(one: Client, other: Client, thing: MimeObject, to: Address) -> Received:
    """Send it, and take it where it arrives: the answer waits for that."""
    response, [received] = await asyncio.gather(one.send(thing, to), take(other))
    assert response.status is not Status.FAILURE, response
    return received


async def says(client: Client, sender: Address, to: Address, text: str) -> Response:
    return await client.send(letter(sender, to, text), to)


@pytest.mark.parametrize("via", ["xmpp", "apex"])
@in_loop
async def test_each_writes_to_the_other(joined: Joined, via: Via) -> None:
    async with joined.ours(via) as alice, joined.phone(DAVE) as dave:
        received = await passes(alice, dave, letter(ALICE, DAVE, "to the phone — ✓"), DAVE)
        assert (received.from_, text_of(received)) == (ALICE, "to the phone — ✓")
        received = await passes(dave, alice, letter(DAVE, ALICE, "back — ✓"), ALICE)
        assert (received.from_, text_of(received)) == (DAVE, "back — ✓")


@in_loop
async def test_objects_arrive_octet_for_octet(joined: Joined) -> None:
    """Of every kind, some larger than a datagram; Kamailio keeps what it passes on."""
    async with joined.ours("xmpp") as alice, joined.phone(DAVE) as dave:
        for sender, to, one, other in ((ALICE, DAVE, alice, dave), (DAVE, ALICE, dave, alice)):
            sent = [thing for thing in objects(7, 24, sender, to) if thing.is_valid and len(thing.octets) < 12_000]
            assert max(len(thing.octets) for thing in sent) > 1300
            for thing in sent:
                received = await passes(one, other, thing, to)
                assert received.object.octets == thing.octets, thing.kind


@in_loop
async def test_errors_come_back_as_what_they_are(joined: Joined) -> None:
    async with joined.ours("xmpp") as alice, joined.phone(DAVE, receive=False) as dave:
        for whom, why in ((person("nobody"), Reason.NO_SUCH_USER), (ERIN, Reason.AWAY)):
            await says(alice, ALICE, whom, "x")
            [received] = await take(alice)
            assert received.report is not None
            assert (received.report.reason, received.report.recipient) == (why, whom)
        assert (await says(dave, DAVE, Address.parse("im:nobody@a.test"), "x")).reason is Reason.NO_SUCH_USER


@in_loop
async def test_what_is_for_somebody_offline_here_waits_here(joined: Joined) -> None:
    async with joined.phone(DAVE, receive=False) as dave:
        assert (await says(dave, DAVE, ALICE, "for later")).status is not Status.FAILURE
    async with joined.ours("xmpp") as alice:
        assert [text_of(one) for one in await take(alice)] == ["for later"]


@in_loop
async def test_after_either_server_was_killed_they_find_each_other(joined: Joined) -> None:
    """A dead trunk is known before a message is tried; what waits goes out when it is back."""
    async with joined.ours("apex", receive=False) as alice:
        joined.kamailio.stop(is_crash=True)
        await asyncio.to_thread(joined.until, lambda: f"port {joined.port} does not answer" in joined.log, "death")
        assert (await says(alice, ALICE, DAVE, "while it was down")).status is Status.INDETERMINANT
        await asyncio.to_thread(joined.kamailio.start)
        async with joined.phone(DAVE) as dave:
            assert [text_of(one) for one in await take(dave)] == ["while it was down"]
    # Killed before it knows that the message arrived, it would send it once more.
    await asyncio.to_thread(joined.until, lambda: not joined.waits(), "end of the message")
    joined.comity.kill()
    async with joined.phone(DAVE, receive=False) as dave:
        assert (await says(dave, DAVE, ALICE, "nobody there")).status is Status.FAILURE
        joined.comity.start()
        assert (await says(dave, DAVE, ALICE, "there again")).status is not Status.FAILURE
    async with joined.ours("xmpp") as again:
        assert [text_of(one) for one in await take(again)] == ["there again"]


@pytest.mark.parametrize("joined", ["udp"], indirect=True)
@in_loop
async def test_somebody_of_ours_is_a_number_of_theirs(joined: Joined) -> None:
    """The map both ways: Bob writes as 1001 of the PBX, is registered there, and gets what is for that number."""
    async with joined.ours("xmpp", BOB) as bob, joined.phone(DAVE) as dave:
        received = await passes(bob, dave, letter(BOB, DAVE, "as a number"), DAVE)
        assert received.from_ == NUMBER
        received = await passes(dave, bob, letter(DAVE, NUMBER, "to the number"), NUMBER)
        assert (received.from_, received.to) == (DAVE, BOB)
        assert f"route <sip:{HOST}:{joined.kamailio.port};lr>" in joined.kamailio.output  # the Service-Route it gave
        # By his own name he is nobody there: that name is not his on this link (G-13).
        assert (await says(dave, DAVE, BOB, "x")).reason is Reason.NO_SUCH_USER


@pytest.mark.parametrize("joined", ["udp"], indirect=True)
@in_loop
async def test_what_goes_in_circles_without_a_history_ends(joined: Joined) -> None:
    """G-17, G-18: Kamailio sends what is for x.test back, takes our history out, and writes one more word each time."""
    async with joined.phone(DAVE) as dave:
        to = Address.parse("im:bob@x.test")
        before = joined.kamailio.output.count("goes round")
        assert (await says(dave, DAVE, to, "round")).status is not Status.SUCCESS
        [told] = await take(dave)
        assert told.from_ == Address.parse("im:comity@a.test")
        # Each of the two takes one of 70 hops; some datagrams are sent twice.
        assert 35 <= joined.kamailio.output.count("goes round") - before <= 70


@pytest.mark.parametrize("joined", ["udp"], indirect=True)
def test_a_call_that_forks_to_us_is_not_broken(joined: Joined) -> None:
    """An INVITE is none of ours: refused at once, and the other branch rings on (RFC 3261 section 16.7)."""
    with socket.socket(type=socket.SOCK_DGRAM) as caller, socket.socket(type=socket.SOCK_DGRAM) as phone:
        for end in (caller, phone):
            end.bind(("127.0.0.1", 0))
            end.settimeout(PATIENCE)
        here, there = (f"127.0.0.1:{end.getsockname()[1]}" for end in (caller, phone))
        head = (
            f"Via: SIP/2.0/UDP {here};branch=z9hG4bKcall;rport\r\nMax-Forwards: 70\r\nCall-ID: call-1\r\n"
            f"From: <sip:dave@{DOMAIN}>;tag=1\r\nTo: <sip:ring@{DOMAIN}>\r\nContact: <sip:dave@{here}>\r\n"
        )
        invite = f"INVITE sip:ring@{there} SIP/2.0\r\n{head}X-Fork: yes\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n"
        caller.sendto(invite.encode(), (HOST, joined.kamailio.port))
        asked, proxy = phone.recvfrom(65536)
        joined.until(lambda: "said 405 to INVITE" in joined.kamailio.output, "answer of ours")
        lines = [
            line for line in asked.decode().split("\r\n") if line.split(":")[0] in ("Via", "From", "Call-ID", "CSeq")
        ]
        answer = "\r\n".join(
            ["SIP/2.0 200 OK", *lines, f"To: <sip:ring@{DOMAIN}>;tag=2", f"Contact: <sip:ring@{there}>"]
        )
        phone.sendto(f"{answer}\r\nContent-Length: 0\r\n\r\n".encode(), proxy)
        said = ""
        while not said or said.startswith("SIP/2.0 1"):
            said = caller.recv(65536).decode()
        assert said.startswith("SIP/2.0 200 "), said

"""The SIP client's presence against a notifier and state agent that follow a script, over real datagrams on loopback.

What the peer sends comes from the RFCs; tests/interop has Kamailio, tests/paths our own server.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import ParamSpec, cast

import pytest

from comity.client import Client, ClientError, NotPossible, Seen, Standing, connect
from comity.cpim.address import Address
from comity.cpim.operations import Reason, Status
from comity.cpim.presence_state import Availability

P = ParamSpec("P")
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
PATIENCE = 8.0
PIDF = (
    b"<?xml version='1.0' encoding='UTF-8'?><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:bob@b.test'>"
    b"<tuple id='ID-x'><status><basic>open</basic><show xmlns='jabber:client'>%s</show></status></tuple></presence>"
)
WINFO = (
    b"<?xml version='1.0'?><watcherinfo xmlns='urn:ietf:params:xml:ns:watcherinfo' version='0' state='full'>"
    b"<watcher-list resource='sip:alice@a.test' package='presence'>"
    b"<watcher id='a' status='pending' event='subscribe' display-name='Carol'>sip:carol@b.test</watcher>"
    b"<watcher id='b' status='active' event='approved'>sip:dora@b.test</watcher>"
    b"<watcher id='c' status='waiting' event='timeout'>sip:emil@b.test</watcher></watcher-list></watcherinfo>"
)


def story(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), PATIENCE))

    return wrapper


class Heard:
    """One datagram, its headers found by name."""

    def __init__(self, octets: bytes) -> None:
        self.head, _, self.body = octets.partition(b"\r\n\r\n")
        self.first = self.head.split(b"\r\n", 1)[0].decode()

    @property
    def method(self) -> str:
        return self.first.split(" ")[0]

    def header(self, name: str) -> str:
        found = re.search(rf"\r\n{name}[ \t]*:[ \t]*([^\r]*)".encode(), self.head, re.IGNORECASE)
        return found[1].decode() if found else ""

    def tag(self, name: str) -> str:
        return self.header(name).partition(";tag=")[2]


class Agent(asyncio.DatagramProtocol):
    """The other side, played by the test."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Heard] = asyncio.Queue()
        self._client: tuple[str, int] = ("", 0)
        self._cseq = 10
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)  # Python 3.11's own is no subclass of it
        self.port = transport.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._client = addr
        self._heard.put_nowait(Heard(data))

    async def hear(self) -> Heard:
        """The next datagram."""
        return await self._heard.get()

    async def expect(self, first: str) -> Heard:
        """The next request of that method, or answer of that code."""
        heard = await self.hear()
        assert heard.first.startswith((f"{first} ", f"SIP/2.0 {first}")), f"{first} was awaited, {heard.first} came"
        return heard

    def answer(self, request: Heard, status: str, *lines: str, tag: str = "n1") -> None:
        echoed = [f"{name}: {request.header(name)}" for name in ("Via", "From", "Call-ID", "CSeq")]
        to = request.header("To")
        to = to if ";tag=" in to else f"{to};tag={tag}"
        self._send([f"SIP/2.0 {status}", *echoed, f"To: {to}", *lines], b"")

    def notify(self, subscribe: Heard, state: str, body: bytes = b"", *lines: str, tag: str = "n1") -> None:
        self._cseq += 1
        contact = re.search(r"<([^>]*)>", subscribe.header("Contact"))
        assert contact is not None
        head = [
            f"NOTIFY {contact[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP 127.0.0.1:{self.port};branch=z9hG4bK{secrets.token_hex(8)}",
            "Max-Forwards: 70",
            f"From: {subscribe.header('To').partition(';')[0]};tag={tag}",
            f"To: {subscribe.header('From')}",
            f"Call-ID: {subscribe.header('Call-ID')}",
            f"CSeq: {self._cseq} NOTIFY",
            f"Contact: <sip:pa@127.0.0.1:{self.port}>",
            f"Event: {subscribe.header('Event')}",
            f"Subscription-State: {state}",
        ]
        kind = [] if not body or any(line.startswith("Content-Type") for line in lines) else [TYPE]
        self._send([*head, *kind, *lines], body)

    def _send(self, head: list[str], body: bytes) -> None:
        octets = "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body
        self.transport.sendto(octets, self._client)

    async def goodbye(self) -> None:
        """Answer the end of a subscription."""
        request = await self.expect("SUBSCRIBE")
        assert request.header("Expires") == "0"
        self.answer(request, "200 OK", "Expires: 0")
        self.notify(request, "terminated;reason=timeout")
        await self.expect("200")


TYPE = "Content-Type: application/pidf+xml"


@contextlib.asynccontextmanager
async def signed_in() -> AsyncIterator[tuple[Client, Agent]]:
    transport, agent = await asyncio.get_running_loop().create_datagram_endpoint(Agent, ("127.0.0.1", 0))
    client = connect("sip", ALICE, "secret", server=("127.0.0.1", agent.port), transport="udp", receive=False)
    try:
        async with client:
            yield client, agent
    finally:
        transport.close()


async def ended(changes: AsyncIterator[Seen], agent: Agent) -> None:
    """End the watch, with the other side's part in it."""
    assert hasattr(changes, "aclose")
    await asyncio.gather(changes.aclose(), agent.goodbye())


async def begun(client: Client, agent: Agent) -> tuple[AsyncIterator[Seen], Heard, asyncio.Task[Seen]]:
    """A watch whose first SUBSCRIBE was heard, and the first thing it will see."""
    changes = client.watch(BOB)
    first = asyncio.ensure_future(anext(changes))
    return changes, await agent.expect("SUBSCRIBE"), first


@story
async def test_pending_then_active_then_the_end() -> None:
    """RFC 8048 section 5.2.1 (F2 to F15), as a SIP watcher sees it; GW-14."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        assert (asked.header("Event"), asked.header("Expires")) == ("presence", "3600")
        assert "application/pidf+xml" in asked.header("Accept")
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "pending;expires=3600")
        await agent.expect("200")
        assert (await first).standing is Standing.PENDING
        agent.notify(asked, "active;expires=499", PIDF % b"away")
        await agent.expect("200")
        seen = await anext(changes)
        assert (seen.standing, seen.availability) == (Standing.ACTIVE, Availability.AWAY)
        assert seen.object is not None
        assert seen.object.octets == PIDF % b"away"
        await ended(changes, agent)


@story
async def test_an_empty_active_notification_means_closed() -> None:
    """GW-14."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.notify(asked, "active;expires=600")  # before the 200 (SIP-20)
        await agent.expect("200")
        agent.answer(asked, "200 OK", "Expires: 3600")
        assert (await first).availability is Availability.OFFLINE
        await ended(changes, agent)


@story
async def test_what_belongs_to_nobody_and_other_forks_get_481() -> None:
    """SIP-20, SIP-24."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "active", PIDF % b"dnd")
        await agent.expect("200")
        agent.notify(asked, "active", PIDF % b"away", tag="n2")
        await agent.expect("481")
        agent.notify(asked, "active", PIDF % b"away", "Event: dialog")
        await agent.expect("400")  # two Event headers
        assert (await first).availability is Availability.DND
        await ended(changes, agent)


@pytest.mark.parametrize(("status", "standing"), [("403 Forbidden", Standing.REFUSED), ("404 Nobody", Standing.ENDED)])
@story
async def test_a_final_refusal_ends_the_watch(status: str, standing: Standing) -> None:
    """GW-13."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, status)
        assert ((await first).standing, (await first).reason) == (standing, status)
        assert [seen async for seen in changes] == []


@story
async def test_rejected_is_told_and_not_tried_again() -> None:
    """SIP-21."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "active", PIDF % b"away")
        await agent.expect("200")
        await first
        agent.notify(asked, "terminated;reason=rejected")
        await agent.expect("200")
        assert [(seen.standing, seen.reason) async for seen in changes] == [(Standing.REFUSED, "rejected")]


@story
async def test_deactivated_is_subscribed_to_anew_at_once() -> None:
    """SIP-21, with a Call-ID and tag nobody had before."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "active", PIDF % b"away")
        await agent.expect("200")
        await first
        agent.notify(asked, "terminated;reason=deactivated")
        await agent.expect("200")
        again = await agent.expect("SUBSCRIBE")
        assert not again.tag("To")
        assert again.header("Call-ID") != asked.header("Call-ID")
        agent.answer(again, "200 OK", "Expires: 3600")
        agent.notify(again, "active", PIDF % b"dnd")
        await agent.expect("200")
        assert (await anext(changes)).standing is Standing.ENDED
        assert (await anext(changes)).availability is Availability.DND
        await ended(changes, agent)


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b"<presence", TYPE),
        (PIDF.replace(b"bob@", b"eve@") % b"away", TYPE),
        (b"hello", "Content-Type: text/plain"),
    ],
)
@story
async def test_what_cannot_be_read_says_nothing_about_the_state(body: bytes, line: str) -> None:
    """A malformed document, or one about somebody else (N-19), is shown as what it is."""
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "active", body, line)
        await agent.expect("200")
        seen = await first
        assert (seen.availability, seen.document) == (Availability.UNKNOWN, None)
        assert seen.reason
        await ended(changes, agent)


@story
async def test_publish_modify_and_remove_with_the_tag_of_each_answer() -> None:
    """SIP-30."""
    async with signed_in() as (client, agent):
        for tag, wanted, state in (("t1", "", Availability.AWAY), ("t2", "t1", Availability.DND)):
            doing = asyncio.ensure_future(client.publish(state, "note"))
            request = await agent.expect("PUBLISH")
            assert request.header("SIP-If-Match") == wanted
            assert b"note" in request.body
            agent.answer(request, "200 OK", f"SIP-ETag: {tag}", "Expires: 1800")
            assert (await doing).status is Status.SUCCESS
        removing = asyncio.ensure_future(client.unpublish())
        request = await agent.expect("PUBLISH")
        assert (request.header("SIP-If-Match"), request.header("Expires"), request.body) == ("t2", "0", b"")
        agent.answer(request, "200 OK", "SIP-ETag: t3", "Expires: 0")
        assert (await removing).status is Status.SUCCESS


@story
async def test_after_412_the_same_is_published_afresh() -> None:
    """SIP-33."""
    async with signed_in() as (client, agent):
        doing = asyncio.ensure_future(client.publish(Availability.AWAY))
        agent.answer(await agent.expect("PUBLISH"), "200 OK", "SIP-ETag: t1", "Expires: 1800")
        await doing
        doing = asyncio.ensure_future(client.publish(Availability.DND))
        agent.answer(await agent.expect("PUBLISH"), "412 Conditional Request Failed")
        request = await agent.expect("PUBLISH")
        assert request.header("SIP-If-Match") == ""
        assert b"dnd" in request.body
        agent.answer(request, "200 OK", "SIP-ETag: t9", "Expires: 1800")
        assert (await doing).status is Status.SUCCESS
        removing = asyncio.ensure_future(client.unpublish())
        agent.answer(await agent.expect("PUBLISH"), "200 OK", "SIP-ETag: t10", "Expires: 0")
        await removing


@story
async def test_a_publication_that_is_refused_says_so() -> None:
    async with signed_in() as (client, agent):
        doing = asyncio.ensure_future(client.publish(Availability.AWAY))
        agent.answer(await agent.expect("PUBLISH"), "403 Forbidden")
        refused = await doing
        assert (refused.reason, refused.text) == (Reason.DENIED, "The answer was 403 Forbidden.")


@story
async def test_what_does_not_fit_a_datagram_is_refused_with_the_cure() -> None:
    """RFC 3428 section 8's bound, for every request."""
    async with signed_in() as (client, _):
        refused = await client.publish(Availability.AWAY, "x" * 1300)
        assert "sign in by TLS or TCP" in refused.text


@story
async def test_who_asks_is_read_from_the_watcher_information() -> None:
    """RFC 3857: pending and waiting ones, fetched."""
    async with signed_in() as (client, agent):
        asking = asyncio.ensure_future(client.requests())
        asked = await agent.expect("SUBSCRIBE")
        assert (asked.header("Event"), asked.header("Expires")) == ("presence.winfo", "0")
        agent.answer(asked, "200 OK", "Expires: 0")
        agent.notify(asked, "terminated;reason=timeout", WINFO, "Content-Type: application/watcherinfo+xml")
        await agent.expect("200")
        assert [(str(one.address), one.name) for one in await asking] == [
            ("im:carol@b.test", "Carol"),
            ("im:emil@b.test", ""),
        ]


@story
async def test_a_server_without_watcher_information_is_an_error_in_words() -> None:
    async with signed_in() as (client, agent):
        asking = asyncio.ensure_future(client.requests())
        agent.answer(await agent.expect("SUBSCRIBE"), "489 Bad Event")
        with pytest.raises(ClientError, match="489 Bad Event"):
            await asking


@story
async def test_closing_the_client_ends_what_it_has() -> None:
    async with signed_in() as (client, agent):
        changes, asked, first = await begun(client, agent)
        agent.answer(asked, "200 OK", "Expires: 3600")
        agent.notify(asked, "active", PIDF % b"away")
        await agent.expect("200")
        await first
        doing = asyncio.ensure_future(client.publish(Availability.AWAY))
        agent.answer(await agent.expect("PUBLISH"), "200 OK", "SIP-ETag: t1", "Expires: 1800")
        await doing
        closing = asyncio.ensure_future(client.close())
        heard: dict[str, str] = {}
        while len(heard) < 2:
            request = await agent.hear()
            if request.method == "SIP/2.0":
                continue
            heard[request.method] = request.header("Expires")
            agent.answer(request, "200 OK", "SIP-ETag: t2", "Expires: 0")
            if request.method == "SUBSCRIBE":
                agent.notify(request, "terminated;reason=timeout")
        await closing
        assert heard == {"SUBSCRIBE": "0", "PUBLISH": "0"}
        assert [seen async for seen in changes] == []


@story
async def test_what_sip_cannot_do_is_said() -> None:
    async with signed_in() as (client, _):
        with pytest.raises(NotPossible, match="pres-rules"):
            await client.refuse(BOB)

"""The XMPP client's presence, with the server's side of the line played by the test (RFC 6121).

tests/interop has Prosody, tests/paths and tests/test_cli_presence_clients.py our own server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

import pytest

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import wrap_entity
from comity.client import ClientError, Judge, NotPossible, Seen, Standing, xmpp_presence
from comity.client.xmpp_presence import MOST_DEVICES, XmppPresence
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, Reason, Status
from comity.cpim.presence_state import Availability
from comity.secure import TrustStore, VerdictKind
from comity.xml import Element, parse_document

P = ParamSpec("P")
Result = TypeVar("Result")
ALICE, BOB = Address.parse("im:alice@a.test"), Address.parse("im:bob@b.test")
ROSTER = "<query xmlns='jabber:iq:roster'>%s</query>"
TO = "<item jid='bob@b.test' name='Bob' subscription='to'><group>Friends</group></item>"


def story(test: Callable[P, Coroutine[object, object, None]]) -> Callable[P, None]:
    """Run a coroutine test in a loop of its own."""

    @wraps(test)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 10))

    return wrapper


def xml(text: str) -> Element:
    """A stanza as it comes out of a client's stream."""
    root = parse_document(f"<x xmlns='jabber:client'>{text}</x>".encode())
    return next(root.elements())


class Server:
    """What the client wrote, and what the server says to it."""

    address = ALICE
    resource = "r"

    def __init__(self, roster: str = "") -> None:
        self.presence = XmppPresence(self)
        self.wrote: list[Element] = []
        self.is_announced = False
        self.roster = roster
        self.refusals: dict[str, str] = {}
        """Error condition by the type of presence or the name of the payload it answers."""

    async def until_bound(self) -> None:
        """It is."""

    def announce(self) -> None:
        self.is_announced = True

    def write(self, stanza: Element, key: object = None) -> None:
        """Take a stanza and answer it in its turn, as a server does."""
        self.wrote.append(stanza)
        asyncio.get_running_loop().call_soon(self._answer, stanza)

    def _answer(self, stanza: Element) -> None:
        payload = next(stanza.elements(), None)
        what = payload.local if stanza.name == wire.IQ and payload is not None else stanza.get("type")
        if condition := self.refusals.get(what):
            error = f"<error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
            reply = xml(f"<{stanza.local} type='error' id='{stanza.get('id')}'>{error}</{stanza.local}>")
            (self.presence.take_answer if stanza.name == wire.IQ else self.presence.take_presence)(reply)
        elif stanza.name == wire.IQ:
            is_roster = what == "query" and stanza.get("type") == "get"
            result = ROSTER % self.roster if is_roster else ""
            self.presence.take_answer(xml(f"<iq type='result' id='{stanza.get('id')}'>{result}</iq>"))

    def tell(self, text: str, *, from_: str = "bob@b.test/phone", type: str = "") -> None:
        kind = f" type='{type}'" if type else ""
        self.presence.take_presence(xml(f"<presence from='{from_}'{kind}>{text}</presence>"))

    def told(self, kind: str) -> list[Element]:
        """The presence stanzas of a type that the client wrote."""
        return [stanza for stanza in self.wrote if stanza.name == wire.PRESENCE and stanza.get("type") == kind]


async def ready(changes: AsyncGenerator[Seen]) -> asyncio.Task[Seen]:
    """A look at the next change, after the watch has asked what it asks."""
    task = asyncio.ensure_future(anext(changes))
    for _ in range(20):
        await asyncio.sleep(0)
    return task


async def soon(awaitable: Awaitable[Result]) -> Result:
    async with asyncio.timeout(5):
        return await awaitable


@story
async def test_what_was_told_before_somebody_watched_is_seen() -> None:
    server = Server(TO)
    server.tell("<show>dnd</show><status>in a meeting</status>")
    changes = server.presence.watch(BOB)
    seen = await soon(anext(changes))
    assert (seen.availability, seen.note, seen.who) == (Availability.DND, "in a meeting", BOB.with_scheme("pres"))
    assert server.is_announced
    await changes.aclose()


@story
async def test_the_most_available_device_speaks_and_the_last_one_gone_is_closed() -> None:
    """T9, RFC 8048 section 6.2."""
    server = Server(TO)
    changes = server.presence.watch(BOB)
    for text, resource, kind, expected in (
        ("<show>away</show>", "phone", "", Availability.AWAY),
        ("", "laptop", "", Availability.AVAILABLE),
        ("", "laptop", "unavailable", Availability.AWAY),
        ("<status>bye</status>", "phone", "unavailable", Availability.OFFLINE),
    ):
        looking = await ready(changes)
        server.tell(text, from_=f"bob@b.test/{resource}", type=kind)
        seen = await soon(looking)
        assert seen.availability is expected
    assert seen.note == "bye"
    await changes.aclose()


@story
async def test_who_is_not_seen_yet_is_asked_and_nothing_is_shown_until_they_say_yes() -> None:
    """GW-14: an "unavailable" of a server that was asked too early is no "closed"."""
    server = Server()
    changes = server.presence.watch(BOB)
    assert (await soon(anext(changes))).standing is Standing.PENDING
    looking = await ready(changes)
    assert [stanza.get("to") for stanza in server.told("subscribe")] == ["bob@b.test"]
    server.tell("", from_="bob@b.test", type="unavailable")
    await asyncio.sleep(0)
    assert not looking.done()
    server.tell("", from_="bob@b.test", type="subscribed")
    server.tell("<show>xa</show>")
    assert (await soon(looking)).availability is Availability.XA
    await changes.aclose()


@story
async def test_a_no_ends_the_watch() -> None:
    server = Server()
    changes = server.presence.watch(BOB)
    await soon(anext(changes))
    looking = await ready(changes)
    server.tell("", from_="bob@b.test", type="unsubscribed")
    assert (await soon(looking)).standing is Standing.REFUSED
    assert [seen async for seen in changes] == []


@story
async def test_a_server_that_refuses_the_question_ends_the_watch() -> None:
    server = Server()
    server.refusals["subscribe"] = "forbidden"
    changes = server.presence.watch(BOB)
    seen = [seen async for seen in changes]
    assert [one.standing for one in seen] == [Standing.PENDING, Standing.REFUSED]
    assert seen[-1].reason == Reason.DENIED.value


@story
async def test_a_domain_that_cannot_be_reached_is_said() -> None:
    server = Server(TO)
    changes = server.presence.watch(BOB)
    looking = await ready(changes)
    server.tell(
        "<error type='cancel'><remote-server-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>",
        from_="bob@b.test",
        type="error",
    )
    assert (await soon(looking)).standing is Standing.ENDED
    await changes.aclose()


@story
async def test_one_look_asks_nobody() -> None:
    server = Server()
    seen = [seen async for seen in server.presence.watch(BOB, is_once=True)]
    assert [one.standing for one in seen] == [Standing.REFUSED]
    assert server.told("subscribe") == []


@story
async def test_a_document_in_the_stanza_is_kept_and_judged() -> None:
    """RFC 3923 section 4: what is in e2e counts, not what stands beside it."""
    document = (
        b"<?xml version='1.0' encoding='UTF-8'?>\r\n<presence xmlns='urn:ietf:params:xml:ns:pidf' "
        b"entity='pres:bob@b.test'><tuple id='a'><status><basic>closed</basic></status></tuple></presence>\r\n"
    )
    boundary = b"--b\r\nContent-Type: application/pidf+xml\r\n\r\n" + document + b"\r\n"
    signed = MimeObject(
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b\r\n',
        boundary + b"--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nAAAA\r\n--b--\r\n",
    )
    server = Server(TO)
    changes = server.presence.watch(BOB, judge=Judge(TrustStore()))
    looking = await ready(changes)
    stanza = xml("<presence from='bob@b.test/phone'><show>chat</show></presence>")
    carried = wrap_entity(signed.entity)
    assert carried is not None
    server.presence.take_presence(stanza.append(carried))
    seen = await soon(looking)
    assert seen.availability is Availability.OFFLINE
    assert seen.object is not None
    assert seen.object.octets == signed.octets
    assert seen.verdict is not None
    assert seen.verdict.verdict is not VerdictKind.VALID
    await changes.aclose()


@pytest.mark.parametrize(
    "text", ["<show>gone fishing</show>", "<priority>high</priority>", "<show>away</show><show>dnd</show>"]
)
@story
async def test_a_malformed_presence_leaves_the_last_good_one(text: str) -> None:
    server = Server(TO)
    server.tell("<show>away</show>")
    server.tell(text)
    changes = server.presence.watch(BOB)
    assert (await soon(anext(changes))).availability is Availability.AWAY
    await changes.aclose()


@story
async def test_devices_without_end_do_not_fill_the_memory() -> None:
    server = Server(TO)
    for number in range(MOST_DEVICES + 20):
        server.tell("", from_=f"bob@b.test/{number}")
    changes = server.presence.watch(BOB)
    seen = await soon(anext(changes))
    assert seen.document is not None
    assert len(seen.document.tuples) == MOST_DEVICES
    await changes.aclose()


@story
async def test_strangers_who_came_and_went_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xmpp_presence, "MOST_KEPT", 10)
    server = Server(TO)
    for number in range(30):
        server.tell("", from_=f"u{number}@b.test/x")
        server.tell("", from_=f"u{number}@b.test/x", type="unavailable")
    server.tell("<show>away</show>")
    changes = server.presence.watch(BOB)
    assert (await soon(anext(changes))).availability is Availability.AWAY
    await changes.aclose()


@story
async def test_the_contact_list_is_fetched_once_and_kept_true_by_pushes() -> None:
    server = Server(TO)
    (item,) = await server.presence.contacts()
    assert (item.address, item.name, item.groups, item.sees, item.is_seen) == (BOB, "Bob", ("Friends",), True, False)
    push = "<iq type='set' id='1'%s>" + ROSTER % "<item jid='bob@b.test' subscription='both'/>" + "</iq>"
    assert not server.presence.take_push(xml(push % " from='eve@b.test'")), "only the server pushes (RFC 6121, 2.1.6)"
    assert not (await server.presence.contacts())[0].is_seen
    assert server.presence.take_push(xml(push % " from='alice@a.test'"))
    assert (await server.presence.contacts())[0].is_seen
    gone = "<iq type='set' id='2'>" + ROSTER % "<item jid='bob@b.test' subscription='remove'/>" + "</iq>"
    assert server.presence.take_push(xml(gone))
    assert await server.presence.contacts() == []
    assert len([stanza for stanza in server.wrote if stanza.name == wire.IQ]) == 1


@story
async def test_the_answer_of_somebody_else_is_none() -> None:
    """RFC 6120 section 8.1.2.1: everybody may send an answer."""
    server = Server()
    server.refusals["query"] = "forbidden"
    asking = asyncio.ensure_future(server.presence.contacts())
    await asyncio.sleep(0)
    id = server.wrote[0].get("id")
    assert not server.presence.take_answer(xml(f"<iq type='result' id='{id}' from='eve@b.test'>{ROSTER % TO}</iq>"))
    with pytest.raises(ClientError, match="no contact list"):
        await asking


@story
async def test_requests_are_kept_with_their_words_until_answered_or_withdrawn() -> None:
    server = Server()
    for who in ("carol", "dora"):
        server.tell(f"<status>I am {who}</status>", from_=f"{who}@b.test", type="subscribe")
    assert [one.text for one in await server.presence.requests()] == ["I am carol", "I am dora"]
    assert (await server.presence.allow(Address.parse("im:carol@b.test"))).status is Status.SUCCESS
    assert [stanza.get("to") for stanza in server.told("subscribed")] == ["carol@b.test"]
    server.tell("", from_="dora@b.test", type="unsubscribe")
    assert await server.presence.requests() == []


@story
async def test_an_answer_that_the_server_refuses_says_so() -> None:
    server = Server()
    server.refusals["subscribed"] = "resource-constraint"
    assert (await server.presence.allow(BOB)).status is Status.FAILURE


@story
async def test_a_new_stream_forgets_and_shows_closed_who_is_told_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("comity.client.xmpp_presence.SETTLE", 0.0)
    server = Server(TO)
    server.tell("")
    changes = server.presence.watch(BOB)
    assert (await soon(anext(changes))).availability is Availability.AVAILABLE
    server.presence.bound_again()
    assert (await soon(anext(changes))).availability is Availability.OFFLINE
    await changes.aclose()


@story
async def test_a_lost_connection_ends_everything_that_waits() -> None:
    server = Server(TO)
    changes = server.presence.watch(BOB)
    looking = await ready(changes)
    server.presence.lost(ClientError("it is gone"))
    with pytest.raises(ClientError, match="it is gone"):
        await soon(looking)


@story
async def test_publish_says_state_and_note_and_takes_no_lease() -> None:
    server = Server()
    assert (await server.presence.publish(Availability.DND, "Ruhe")).status is Status.SUCCESS
    assert [child.text for child in server.presence.own if isinstance(child, Element)] == ["dnd", "Ruhe"]
    assert (await server.presence.unpublish()).status is Status.SUCCESS
    assert server.presence.own_type == "unavailable"
    with pytest.raises(NotPossible):
        await server.presence.publish(Availability.DND, lease=60)

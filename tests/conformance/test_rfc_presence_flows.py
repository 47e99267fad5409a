"""The message flows of RFC 3856 section 8, RFC 3857 section 5 and RFC 3903 section 15, played against the server.

The messages stand in the folders as published, folded lines included. Two things in them are no octets and are filled in:
``Content-Length: ...`` and the documents in square brackets. Our answers have tags, entity-tags, CSeq numbers and a Contact of
our own, the ones of the RFC are matched by name; all else has to be the same. M13 repeats the CSeq of M7, which is a slip.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comity.bindings.base import Transport
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.packages import event_of
from comity.bindings.sip.subscriber_rules import SubscriptionStateValue
from comity.bindings.sip.wire import parse_datagram
from comity.cpim.watchers import WatcherInfo
from tests.bindings.sip.kit import Phone, story
from tests.bindings.sip.presence_kit import PresenceWorld, Watcher, pidf

FOLDER = Path(__file__).parent
ENTITY = "pres:presentity@example.com"
DOCUMENTS = {
    b"[PIDF document]": pidf("closed", entity=ENTITY),
    b"[PIDF Document]": pidf("closed", entity=ENTITY),
    b"[New PIDF document]": pidf("open", "new", entity=ENTITY),
    b"[New PIDF Document]": pidf("open", "new", entity=ENTITY),
    b"[Published PIDF document]": pidf("open", entity=ENTITY),
    b"[Published PIDF Document]": pidf("open", "changed", entity=ENTITY),
}
PATHS = sorted(path for rfc in ("rfc3856", "rfc3857", "rfc3903") for path in (FOLDER / rfc).glob("*.dat"))
ADDRESS = ("192.0.2.1", 7000)


def read(rfc: str, name: str) -> SipRequest | SipResponse:
    """A published message."""
    head, _, body = (FOLDER / rfc / f"{name}.dat").read_bytes().partition(b"\r\n\r\n")
    body = DOCUMENTS.get(body, body)
    message = parse_datagram(
        head.replace(b"Content-Length: ...", b"Content-Length: %d" % len(body)) + b"\r\n\r\n" + body
    )
    assert isinstance(message, SipRequest | SipResponse), (rfc, name, message)
    return message


class ExampleWorld(PresenceWorld):
    """The server of the examples, with everybody in them."""

    domain = "example.com"
    people = ("user", "resource", "joe", "a", "watcher", "presentity")


class Example(Watcher):
    """A user agent that sends what the RFC prints."""

    def __init__(self, world: ExampleWorld, user: str, transport: Transport, port: int) -> None:
        Phone.__init__(self, world, user, (ADDRESS[0], port), transport)
        self.settings = self.session.settings = type(self.settings)(methods=frozenset({"NOTIFY"}))
        self.hold = None

    async def play(self, rfc: str, name: str, *changes: tuple[str, str]) -> SipResponse:
        """Send one, signed, without the RFC's Via and with ``changes``; the answer."""
        given = read(rfc, name)
        assert isinstance(given, SipRequest)
        dropped = {"Via", "Content-Length", *(name for name, _ in changes)}
        headers = [(name, value) for name, value in given.headers if name not in dropped]
        answer = await self.ask(SipRequest(given.method, given.uri_text, [*headers, *changes], given.body))
        assert answer is not None
        return answer


def check(ours: SipRequest | SipResponse, rfc: str, name: str, *, but: str = "") -> None:
    """Everything the RFC's message says, ours says too; ``but`` names headers that differ on purpose."""
    theirs = read(rfc, name)
    own = {"via", "contact", "content-length", "content-type", "cseq", "sip-etag", "subscription-state"}
    for written, _ in theirs.headers:
        header = written.lower()
        if header in but.split():
            continue
        assert ours.values(header), (name, header)
        if header in ("from", "to"):
            mine = ours.from_ if header == "from" else ours.to
            assert str(mine.uri) == str((theirs.from_ if header == "from" else theirs.to).uri)
            assert mine.tag
        elif header not in own:
            assert ours.value(header) == theirs.value(header), (name, header)
    assert ours.cseq.method == theirs.cseq.method
    if isinstance(theirs, SipResponse):
        assert isinstance(ours, SipResponse)
        assert ours.status_code == theirs.status_code
        if "contact" in {name.lower() for name, _ in theirs.headers}:
            assert len(ours.contacts) == 1
    else:
        assert isinstance(ours, SipRequest)
        assert (ours.method, str(ours.uri)) == (theirs.method, str(theirs.uri))
        said, printed = (SubscriptionStateValue.parse(m.value("subscription-state") or "") for m in (ours, theirs))
        assert (said.name, said.reason) == (printed.name, printed.reason)
        assert said.expires is not None
        assert ours.content_type.partition(";")[0] == theirs.content_type


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_published_message_is_read(path: Path) -> None:
    message = read(path.parent.name, path.stem)
    event = event_of(message)
    if isinstance(message, SipRequest):
        assert event is not None
        assert event.package is not None


@story
async def test_rfc_3856_section_8() -> None:
    """A subscription over TCP, the first notification, and the next one when the presence changes."""
    world = await ExampleWorld().start()
    await world.grant("im:resource@example.com", "im:user@example.com")
    user, resource = Example(world, "user", "tcp", 7000), Example(world, "resource", "tcp", 7001)
    check(await user.play("rfc3856", "F1"), "rfc3856", "F2")
    (first,) = user.notified()
    check(first, "rfc3856", "F3")
    assert b"closed" in first.body
    await world.advance(6)
    await resource.ask(
        resource.request(
            "PUBLISH",
            "sip:resource@example.com",
            [
                ("From", "<sip:resource@example.com>;tag=1"),
                ("Event", "presence"),
                ("Content-Type", "application/pidf+xml"),
            ],
            pidf("open", entity="pres:resource@example.com"),
        )
    )
    (second,) = user.notified()
    check(second, "rfc3856", "F5")
    assert second.cseq.number == first.cseq.number + 1
    assert b"open" in second.body


@story
async def test_rfc_3857_section_5() -> None:
    """Joe watches who watches him: A is pending, then active; ids and events as printed."""
    world = await ExampleWorld().start()
    joe, a = Example(world, "joe", "udp", 7000), Example(world, "a", "udp", 7001)
    headers = [("From", "<sip:a@example.com>;tag=1"), ("Event", "presence"), ("Contact", f"<{a.uri}>")]
    assert (await a.ask(a.request("SUBSCRIBE", "sip:joe@example.com", headers))) is not None
    answer = await joe.play("rfc3857", "SUBSCRIBE")
    check(answer, "rfc3857", "200", but="event")  # RFC 6665 section 8.1 has Event in requests only
    (first,) = joe.notified()
    check(first, "rfc3857", "NOTIFY-0")
    await world.advance(6)
    await world.grant("im:joe@example.com", "im:a@example.com")
    await world.advance(6)
    (second,) = joe.notified()
    check(second, "rfc3857", "NOTIFY-1")
    for ours, name in ((first, "NOTIFY-0"), (second, "NOTIFY-1")):
        mine, theirs = WatcherInfo.parse(ours.body), WatcherInfo.parse(read("rfc3857", name).body)
        (my_list,), (their_list,) = mine.lists, theirs.lists
        (my_entry,), (their_entry,) = my_list.watchers, their_list.watchers
        assert (mine.version, mine.is_full, my_list.package) == (theirs.version, theirs.is_full, their_list.package)
        assert (my_entry.state, my_entry.event) == (their_entry.state, their_entry.event)
        assert re.sub(r"^\w+:", "", my_entry.uri).lower() == re.sub(r"^\w+:", "", their_entry.uri).lower()


@story
async def test_rfc_3903_section_15() -> None:
    """Published, refreshed (of which watchers hear nothing), modified."""
    world = await ExampleWorld().start()
    await world.grant("im:presentity@example.com", "im:watcher@example.com")
    watcher, pua = Example(world, "watcher", "udp", 7000), Example(world, "presentity", "udp", 7001)
    check(await watcher.play("rfc3903", "M1"), "rfc3903", "M2")
    (first,) = watcher.notified()
    check(first, "rfc3903", "M3")
    await world.advance(6)
    published = await pua.play("rfc3903", "M5")
    check(published, "rfc3903", "M6", but="expires")
    (second,) = watcher.notified()
    check(second, "rfc3903", "M7")
    assert b"open" in second.body
    await world.advance(6)
    refreshed = await pua.play("rfc3903", "M9", ("SIP-If-Match", published.value("sip-etag") or ""))
    check(refreshed, "rfc3903", "M10", but="expires")
    await world.advance(6)
    assert not watcher.notified()
    changed = await pua.play("rfc3903", "M11", ("SIP-If-Match", refreshed.value("sip-etag") or ""))
    check(changed, "rfc3903", "M12")
    (third,) = watcher.notified()
    check(third, "rfc3903", "M13")
    assert b"changed" in third.body
    assert all(int(answer.value("expires") or 0) <= 3600 for answer in (published, refreshed, changed))
    assert len({answer.value("sip-etag") for answer in (published, refreshed, changed)}) == 3

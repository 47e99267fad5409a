"""The message flows of RFC 8048 sections 5 to 7 between an XMPP client of ours and a SIP server of another domain (GW-3, GW-13 to GW-15).

The server is a real process, Juliet a real XMPP stream, Romeo's server raw octets on TCP. What the RFC prints is sent and expected as
printed, but for names somebody made up (tags, Call-ID, CSeq, Contact); three of its messages are mended as ``test_rfc8048_dialogs.py`` says.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.presence import PresenceDocument
from comity.xml import Element
from tests.conformance.sip_peer import Heard, SipPeer
from tests.paths.kit import ServerProcess, free_ports
from tests.paths.xmpp_wire import Wire, run

FOLDER = Path(__file__).parent / "rfc8048"
ROMEO = "romeo@example.net"
PRESENCE, SHOW = "{jabber:client}presence", "{jabber:client}show"
NAMES = ("juliet", "susan", "nurse", "helena", "paris")
SAID = ("Event", "Max-Forwards", "Accept", "Expires")
"""Headers of the SUBSCRIBE requests that are not names somebody made up."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """example.com, which reaches example.net by SIP; each test has an account of its own."""
    people = tuple(Address.parse(f"im:{name}@example.com") for name in NAMES)
    made = ServerProcess(tmp_path_factory.mktemp("gateway"), "", ("example.com",), people)
    [made.peer_port] = free_ports(1)  # type: ignore[attr-defined]  # kept with it for the tests
    with made.config.open("a", encoding="utf-8") as config:
        config.write(
            f'[[route]]\ndomain = "example.net"\nvia = "sip"\nnext_hop = "tcp://127.0.0.1:{peer_port(made)}"\n'
        )
        config.write('keep_alive = "off"\n')  # each test has a server of its own there, and none stands between them
        config.write('[[peer]]\nname = "example.net"\naddress = ["127.0.0.1"]\n')
    with made:
        made.start()
        yield made


def peer_port(server: ServerProcess) -> int:
    port = server.peer_port  # type: ignore[attr-defined]  # see ``server``
    assert isinstance(port, int)
    return port


def printed(name: str, who: str = "juliet") -> str:
    """An example as printed, with another of our people for Juliet."""
    path = next(FOLDER.glob(f"{name}.*"))
    return path.read_bytes().decode().replace("juliet@", f"{who}@")


def stanza(name: str, who: str) -> ElementTree.Element:
    return ElementTree.fromstring(printed(name, who))


def spoken(name: str, who: str) -> Element:
    """A stanza of the RFC as a client sends it: its server adds who it is from."""
    given = stanza(name, who).attrib
    return Element(PRESENCE, {key: value for key, value in given.items() if key != "from"})


async def told(wire: Wire, kind: str, *, since: int = 0) -> Element:
    """The next presence of Romeo's of that type."""
    found: list[Element] = []

    def look() -> bool:
        about = [one for one in wire.stanzas[since:] if one.get("from").startswith(ROMEO)]
        found[:] = [one for one in about if one.name == PRESENCE and one.get("type") == kind]
        return bool(found)

    await wire.until(look)
    return found[0]


def is_as(ours: Element, name: str, who: str, *, full: str = "") -> None:
    """Addresses and type as the RFC prints them; to a device where it has the bare address (``full``)."""
    theirs = stanza(name, who)
    assert ours.get("from") == theirs.get("from", "")
    assert ours.get("to") in (theirs.get("to", ""), full)
    assert ours.get("type") == theirs.get("type", "")


async def signed_in(server: ServerProcess, who: str, resource: str = "yn0cl4bnw0yr3vym") -> Wire:
    """Her client, which asked for its contact list and is present."""
    wire = await Wire(server, f"{who}@example.com/{resource}").open()
    wire.send(Element("{jabber:client}iq", {"type": "get", "id": "list"}).append(Element("{jabber:iq:roster}query")))
    wire.send(Element(PRESENCE))
    return wire


async def silent(wire: Wire) -> None:
    """Ask the server something, and by its answer nothing of Romeo has come."""
    query = Element("{jabber:client}iq", {"type": "get", "id": "silent"}).append(Element("{urn:xmpp:ping}ping"))
    wire.send(query)
    await wire.until(lambda: any(one.get("id") == "silent" for one in wire.stanzas))
    about = [one for one in wire.stanzas if one.get("from").startswith(ROMEO)]
    assert about == [], about


def notify(peer: SipPeer, asked: Heard, name: str, who: str, **changed: str) -> None:
    """A NOTIFY of the RFC in the dialog of a SUBSCRIBE, mended: From is the presentity, and there is a Contact."""
    own = {
        "From": f"<sip:{ROMEO}>;tag=ffd2",
        "To": asked.value("From"),
        "Call_ID": asked.value("Call-ID"),
        "Contact": f"<sip:romeo@127.0.0.1:{peer.port};transport=tcp;gr>",
    }
    peer.send(asked.writer, printed(name, who), uri=asked.target, **(own | changed))


def contact(peer: SipPeer) -> tuple[str, str]:
    return "Contact", f"<sip:romeo@127.0.0.1:{peer.port};transport=tcp;gr>"


async def authorized(server: ServerProcess, peer: SipPeer, who: str) -> tuple[Wire, Heard]:
    """F1 to F15: her client, and the SUBSCRIBE that made the dialog."""
    wire = await signed_in(server, who)
    wire.send(spoken("example-01", who))
    asked = await peer.next("SUBSCRIBE")
    peer.answer(asked, 200, ("Expires", "3600"), contact(peer))
    notify(peer, asked, "5.2.1-f10", who)
    await peer.next("NOTIFY", status=200)
    await told(wire, "")
    return wire, asked


def test_5_2_1_and_5_2_3_requesting_and_cancelling_from_xmpp(server: ServerProcess) -> None:
    """F1 to F25: SUBSCRIBE as printed, silence while it is pending, subscribed and presence with the first active NOTIFY."""

    async def story() -> None:
        peer = SipPeer()
        peer.port = peer_port(server)
        async with peer:
            wire = await signed_in(server, "juliet")
            wire.send(spoken("example-01", "juliet"))
            asked = await peer.next("SUBSCRIBE")
            first, *lines = printed("5.2.1-f2").split("\r\n")
            theirs = dict(line.split(": ", 1) for line in lines if line)
            assert asked.first == first
            assert [asked.value(name) for name in SAID] == [theirs[name] for name in SAID]
            assert asked.value("From").startswith("<sip:juliet@example.com>;tag=")
            assert asked.value("CSeq") == theirs["CSeq"]
            peer.answer(asked, 200, ("Expires", "3600"), contact(peer))  # F5
            notify(peer, asked, "5.2.1-f10", "juliet", Subscription_State="pending;expires=3600")  # F7
            assert (await peer.next("NOTIFY", status=200)).method == "NOTIFY"
            await silent(wire)
            notify(peer, asked, "5.2.1-f10", "juliet")  # F11
            await peer.next("NOTIFY", status=200)
            is_as(await told(wire, "subscribed"), "example-05", "juliet")
            presence = await told(wire, "")
            is_as(presence, "example-06", "juliet", full="juliet@example.com/yn0cl4bnw0yr3vym")
            shown = presence.find(SHOW)
            assert shown is not None
            assert shown.text == "away"
            order = [one.get("type") for one in wire.stanzas if one.get("from").startswith(ROMEO)]
            assert order.index("subscribed") < order.index("")

            wire.send(spoken("example-07", "juliet"))  # F16
            goodbye = await peer.next("SUBSCRIBE")
            theirs = dict(line.split(": ", 1) for line in printed("5.2.3-f17").split("\r\n")[1:] if line)
            assert [goodbye.value(name) for name in SAID] == [theirs[name] for name in SAID]
            assert goodbye.value("Call-ID") == asked.value("Call-ID")
            assert goodbye.value("To").endswith(";tag=ffd2")
            assert goodbye.first.split(" ")[1] == f"sip:romeo@127.0.0.1:{peer.port};transport=tcp;gr"
            peer.answer(goodbye, 200, ("Expires", "0"), contact(peer))
            notify(peer, asked, "5.2.3-f25", "juliet")  # F22
            await peer.next("NOTIFY", status=200)
            # F21 is between gateway and XMPP server, which are one here; what a client sees of it is RFC 6121 section 3.3.2.
            await wire.until(lambda: _listed(wire) == "none")

    run(story())


@pytest.mark.parametrize(("code", "who"), [(403, "susan"), (603, "susan")])
def test_5_2_2_a_refusal_is_told(server: ServerProcess, code: int, who: str) -> None:
    """403 and 603: the authorization is permanently cancelled, and the user informed."""

    async def story() -> None:
        peer = SipPeer()
        peer.port = peer_port(server)
        async with peer:
            wire = await signed_in(server, who, f"r{code}")
            wire.send(spoken("example-01", who))
            peer.answer(await peer.next("SUBSCRIBE"), code)
            is_as(await told(wire, "unsubscribed"), "example-09", who)

    run(story())


def test_5_3_requesting_refreshing_and_ending_from_sip(server: ServerProcess) -> None:
    """F26 to F33 and examples 15 to 17: pending, subscribe, subscribed, active; refreshed; ended; the authorization stays."""

    async def story() -> None:
        peer = SipPeer()
        peer.port = peer_port(server)
        async with peer:
            wire = await signed_in(server, "nurse")
            out = await peer.connect(server.port("sip", "tcp")[1])
            own = {"Contact": contact(peer)[1], "To": "<sip:nurse@example.com>"}
            peer.send(out, printed("example-11", "nurse"), **own)
            yes = await peer.next("SUBSCRIBE", status=200)
            assert yes.value("Expires") == "3600", "the default, since none was asked for"
            pending = await peer.next("NOTIFY")
            assert pending.value("Subscription-State").startswith("pending")
            assert pending.body == b""
            peer.answer(pending, 200)
            is_as(await told(wire, "subscribe"), "example-12", "nurse")
            wire.send(spoken("example-13", "nurse"))
            active = await peer.next("NOTIFY")
            peer.answer(active, 200)
            assert active.first == f"NOTIFY {contact(peer)[1][1:-1]} SIP/2.0"
            assert active.value("Subscription-State").startswith("active;expires=")
            theirs = dict(line.split(": ", 1) for line in printed("example-14", "nurse").split("\r\n")[1:] if line)
            assert active.value("Event") == theirs["Event"]
            assert active.value("To") == "<sip:romeo@example.net>;tag=xfg9"
            document = PresenceDocument.parse(active.body)
            expected = PresenceDocument.parse((FOLDER / "6.2.xml").read_bytes().replace(b"juliet@", b"nurse@"))
            assert document.entity == expected.entity
            assert [one.id for one in document.tuples] == [one.id for one in expected.tuples]
            assert [one.basic_status for one in document.tuples] == [one.basic_status for one in expected.tuples]

            dialog = {"To": yes.value("To"), "Contact": contact(peer)[1], "uri": yes.target}
            peer.send(out, printed("example-11", "nurse"), **dialog)  # 5.3.2
            await peer.next("SUBSCRIBE", status=200)
            again = await peer.next("NOTIFY")
            peer.answer(again, 200)
            assert PresenceDocument.parse(again.body).entity == expected.entity

            same = {"Call_ID": yes.value("Call-ID"), "From": yes.value("From")}
            peer.send(out, printed("example-17", "nurse"), **(dialog | same))
            assert (await peer.next("SUBSCRIBE", status=200)).value("Expires") == "0"
            last = await peer.next("NOTIFY")
            peer.answer(last, 200)
            assert last.value("Subscription-State") == "terminated;reason=timeout"

            fetch = {"Contact": contact(peer)[1], "To": "<sip:nurse@example.com>"}
            peer.send(out, printed("example-24", "nurse"), **fetch)  # 7.2
            await peer.next("SUBSCRIBE", status=200)
            shown = await peer.next("NOTIFY")
            peer.answer(shown, 200)
            assert shown.value("Subscription-State").startswith("terminated")
            assert PresenceDocument.parse(shown.body).entity == "pres:nurse@example.com", "the authorization stands"

            peer.send(out, printed("example-11", "nurse"), **own, Call_ID="another")
            await peer.next("SUBSCRIBE", status=200)
            peer.answer(await peer.next("NOTIFY"), 200)
            wire.send(spoken("example-15", "nurse"))
            rejected = await peer.next("NOTIFY")
            peer.answer(rejected, 200)
            assert rejected.value("Subscription-State") == "terminated;reason=rejected"
            assert rejected.body == b""

    run(story())


def test_6_notifications_both_ways(server: ServerProcess) -> None:
    """Sections 6.2 and 6.3: a change of hers goes to Romeo's server, one of his to her device, each by the table."""

    async def story() -> None:
        peer = SipPeer()
        peer.port = peer_port(server)
        async with peer:
            wire, asked = await authorized(server, peer, "helena")
            since = len(wire.stanzas)
            notify(peer, asked, "example-20", "helena")
            await peer.next("NOTIFY", status=200)
            gone = await told(wire, "unavailable", since=since)
            assert gone.get("from").partition("/")[0] == ROMEO
            assert gone.get("to") in ("helena@example.com", "helena@example.com/yn0cl4bnw0yr3vym")

            out = await peer.connect(server.port("sip", "tcp")[1])
            peer.send(out, printed("example-11", "helena"), Contact=contact(peer)[1], To="<sip:helena@example.com>")
            await peer.next("SUBSCRIBE", status=200)
            peer.answer(await peer.next("NOTIFY"), 200)
            wire.send(Element(PRESENCE).append(Element(SHOW, {}, ["away"])))
            wire.send(spoken("example-13", "helena"))
            active = await peer.next("NOTIFY")
            peer.answer(active, 200)
            document = PresenceDocument.parse(active.body)
            expected = PresenceDocument.parse(printed("example-19", "helena").partition("\r\n\r\n")[2].encode())
            assert (document.entity, [one.id for one in document.tuples]) == (
                expected.entity,
                [one.id for one in expected.tuples],
            )
            assert b"<show xmlns='jabber:client'>away</show>" in active.body.replace(b'"', b"'")
            wire.send(Element(PRESENCE, {"type": "unavailable"}))
            closed = await peer.next("NOTIFY")
            peer.answer(closed, 200)
            assert b"closed" in closed.body

    run(story())


def test_7_1_a_probe_is_a_subscribe(server: ServerProcess) -> None:
    """Initial presence asks Romeo's server how he is (section 5.2.2); and where nobody looks any more the dialog ends."""

    async def story() -> None:
        peer = SipPeer()
        peer.port = peer_port(server)
        async with peer:
            wire, first = await authorized(server, peer, "paris")
            wire.send(Element(PRESENCE, {"type": "unavailable"}))
            await silence(wire)
            server.kill()
            server.start()
            again = await signed_in(server, "paris", "chamber")
            asked = await peer.next("SUBSCRIBE")
            assert asked.value("Call-ID") != first.value("Call-ID"), "dialogs do not outlive the process"
            peer.answer(asked, 200, ("Expires", "3600"), contact(peer))
            notify(peer, asked, "5.2.1-f10", "paris")
            await peer.next("NOTIFY", status=200)
            presence = await told(again, "")
            assert presence.get("from") == "romeo@example.net/dr4hcr0st3lup4c"
            out = await peer.connect(server.port("sip", "tcp")[1])
            own = {"From": f"<sip:{ROMEO}>;tag=ffd2", "To": first.value("From"), "Call_ID": first.value("Call-ID")}
            peer.send(out, printed("5.2.1-f10", "paris"), **own, Contact=contact(peer)[1])
            await peer.next("NOTIFY", status=481)

    run(story())


def _listed(wire: Wire) -> str:
    """Romeo's subscription in the last roster push."""
    lists = [query for one in wire.stanzas if (query := one.find("{jabber:iq:roster}query")) is not None]
    found = [item for query in lists for item in query.elements() if item.get("jid") == ROMEO]
    return found[-1].get("subscription") if found else ""


async def silence(wire: Wire) -> None:
    """What was sent before was read by the server."""
    wire.send(Element("{jabber:client}iq", {"type": "get", "id": "read"}).append(Element("{urn:xmpp:ping}ping")))
    await wire.until(lambda: any(one.get("id") == "read" for one in wire.stanzas))

"""Spoofing at every edge over raw sockets: a peer that claims a domain, a person, a report or a word that is not its own
(issue 7, "Spoofing at every edge"; G8, T1, T3, T6, T21, S-06, S-46, D-08, K-01, P-30, X-60).

``evil.test`` is a server that a.test knows by its certificate (SIP, APEX, XMPP) or its secret (component). Whatever it tries is refused
there, and Alice, who looks at every stanza she gets, sees nothing of it: the next thing is always what Bob wrote."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import pytest

from comity.client import text_object
from comity.cpim.operations import Status
from comity.xml import parse_document
from tests.interop.apex_peer_beep import Refused
from tests.paths.kit import ALICE, BOB, PASSWORD
from tests.paths.relays import peer, servers
from tests.paths.xmpp_wire import Wire, run

OURS, THEIRS, OTHERS = "bob@a.test", "eve@evil.test", "ceo@bank.test"
NUMBERS = count(1)
Edge = Literal["sip", "apex", "xmpp", "component"]


def cpim(sender: str) -> bytes:
    """An object that says it is of somebody's."""
    head = (
        f"From: <im:{sender}>\r\nTo: <im:alice@a.test>\r\nDateTime: 2026-01-01T00:00:{next(NUMBERS) % 60:02}Z\r\n\r\n"
    )
    return f"{head}Content-Type: text/plain\r\n\r\nspoof".encode()


@dataclass(frozen=True, slots=True)
class Try:
    """One thing that is tried, and what has to come back."""

    edge: Edge
    name: str
    text: str
    answer: str
    """Regular expression; "" for silence: then the next thing on the same connection, which is genuine, arrives."""
    body: bytes = b""
    kind: str = "message/cpim"


def message(name: str, sender: str, answer: str, *, obj: str = "", headers: str = "", method: str = "MESSAGE") -> Try:
    """A SIP request in somebody's name."""
    return Try("sip", name, f"{method}|{sender}|{headers}", answer, cpim(obj or sender))


def stanza(edge: Edge, name: str, text: str, answer: str) -> Try:
    return Try(edge, name, text, answer)


def told(sender: str, about: str) -> str:
    """Headers of a failure report by SIP."""
    return f'Comity-Report: denied;to="im:{sender}";text="Spoofed.";about="{about}"\r\n'


BODY = "<body>spoof</body>"
E2E = "<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nContent-Type: message/cpim\n\n{}\n]]></e2e>"
INSIDE = E2E.format(cpim(OTHERS).decode().replace("\r\n", "\n"))
STANZAS = [
    ("a person of another domain", f"<message from='{OTHERS}' to='alice@a.test' id='1'>{BODY}</message>"),
    ("a person of ours", f"<message from='{OURS}' to='alice@a.test' id='2'>{BODY}</message>"),
    ("our own server", f"<message from='a.test' to='alice@a.test' id='3'>{BODY}</message>"),
    ("presence of another domain", f"<presence from='{OTHERS}' to='alice@a.test'/>"),
    ("presence of ours", f"<presence from='{OURS}' to='alice@a.test' type='subscribe'/>"),
    (
        "a roster push",
        "<iq type='set' id='4' from='alice@a.test' to='alice@a.test/x'><query xmlns='jabber:iq:roster'/></iq>",
    ),
]
OBJECT_OF_OTHERS = f"<message from='{THEIRS}' to='alice@a.test' id='5'>{INSIDE}</message>"
NEVER_SENT = (
    f"<message from='{THEIRS}' to='alice@a.test' type='error' id='018f0000-0000-7000-8000-000000000000'>"
    "<error type='cancel'><forbidden xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"
)
FORM = f"<message from='{THEIRS}' to='alice@a.test' id='6'><form xmlns='urn:comity:form:0' id='k' form='object'/></message>"
CARBON = (
    f"<message from='{THEIRS}' to='alice@a.test' id='7'><received xmlns='urn:xmpp:carbons:2'><forwarded xmlns='urn:xmpp:forward:0'>"
    f"<message xmlns='jabber:client' from='{OURS}' to='alice@a.test'>{BODY}</message></forwarded></received></message>"
)

#: Answers between servers go by a stream of the other direction (RFC 6120 section 4.5): here it is looked at what Alice sees.
UNSHOWN = [
    ("an object of another's", OBJECT_OF_OTHERS),
    ("an error about what was never sent", NEVER_SENT),
    ("our server's word on a form", FORM),
    ("a copy of what ours wrote", CARBON),
]

TRIES = [
    message("a person of another domain", OTHERS, "SIP/2.0 4(01|03)"),
    message("a person of ours", OURS, "SIP/2.0 4(01|03)"),
    message("our own server", "comity@a.test", "SIP/2.0 4(01|03)"),
    message("an object of another's", THEIRS, "SIP/2.0 403", obj=OTHERS),
    message("an object of ours", THEIRS, "SIP/2.0 403", obj=OURS),
    message("a report about people of another's", "comity@evil.test", "SIP/2.0 481", headers=told(OTHERS, "x")),
    message("a report about people of ours", "comity@evil.test", "SIP/2.0 481", headers=told(OURS, "x")),
    message(
        "a history that names us",
        OURS,
        "SIP/2.0 (482|403)",
        headers="Comity-History: a.test;in=sip;out=sip;time=2026-01-01T00:00:00Z\r\n",
    ),
    message("an asserted identity", OTHERS, "SIP/2.0 4(01|03)", headers="P-Asserted-Identity: <sip:bob@a.test>\r\n"),
    message(
        "a notification nobody asked for",
        OTHERS,
        "SIP/2.0 4(81|01|03|89)",
        method="NOTIFY",
        headers="Event: presence\r\n",
    ),
    message(
        "a publication of ours",
        "alice@a.test",
        "SIP/2.0 4(01|03)",
        method="PUBLISH",
        headers="Event: presence\r\nExpires: 60\r\n",
    ),
    message(
        "a subscription of another's",
        OTHERS,
        "SIP/2.0 4(01|03|07)",
        method="SUBSCRIBE",
        headers="Event: presence\r\nExpires: 60\r\nContact: <sip:x@127.0.0.1>\r\n",
    ),
    *(stanza("xmpp", name, text, "invalid-from|improper-addressing") for name, text in STANZAS),
    *(stanza("xmpp", name, text, "") for name, text in UNSHOWN),
    *(
        stanza("component", name, text, "<forbidden|<not-allowed|invalid-from|improper-addressing")
        for name, text in STANZAS
    ),
    stanza(
        "component",
        "an object of another's",
        OBJECT_OF_OTHERS,
        "<forbidden|<not-authorized|<not-acceptable|<policy-violation",
    ),
    stanza("component", "an error about what was never sent", NEVER_SENT, ""),
    stanza("component", "our server's word on a form", FORM, "<bad-request"),
    stanza("component", "a copy of what ours wrote", CARBON, "<bad-request"),
]
"""What peers of text protocols try; ``test_apex`` has its own."""


class House:
    """a.test, and the certificate of evil.test."""

    def __init__(self, directory: Path) -> None:
        (self.server, self.evil), trust = servers(directory, "a.test", "evil.test")
        _, self.component_port = self.server.port("component", "tcp")
        accept = f'[[xmpp.accept]]\ndomain = "box.evil.test"\nsecret = "{PASSWORD}"\n'
        self.server.join(trust, peer("evil.test", "evil.test"), accept)

    @property
    def tls(self) -> ssl.SSLContext:
        """As evil.test."""
        context = ssl.create_default_context(cafile=str(self.server.authority))
        folder = self.evil.directory / "data" / "tls"
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        return context

    def secure(self, address: tuple[str, int]) -> ssl.SSLSocket:
        sock = socket.create_connection(address, timeout=5)
        return self.tls.wrap_socket(sock, server_hostname="a.test")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("spoof"))
    with house.server:
        house.server.start()
        yield house


def until(sock: socket.socket, pattern: str, heard: bytes = b"") -> bytes:
    """Read until the pattern is there, or the other side is gone."""
    while not re.search(pattern, heard.decode("utf-8", "replace")):
        try:
            data = sock.recv(65536)
        except (TimeoutError, ConnectionError):
            data = b""
        if not data:
            break
        heard += data
    return heard


def by_sip(house: House, one: Try) -> str:
    method, sender, headers = one.text.split("|", 2)
    number = next(NUMBERS)
    with house.secure(house.server.port("sip", "tls")) as sock:
        head = (
            f"{method} sip:alice@a.test SIP/2.0\r\nVia: SIP/2.0/TLS evil.test;branch=z9hG4bK{number}\r\nMax-Forwards: 70\r\n"
            f"From: <sip:{sender}>;tag=t{number}\r\nTo: <sip:alice@a.test>\r\nCall-ID: spoof{number}@evil.test\r\n"
            f"CSeq: 1 {method}\r\n{headers}Content-Type: {one.kind}\r\nContent-Length: {len(one.body)}\r\n\r\n"
        )
        sock.sendall(head.encode() + one.body)
        return until(sock, r"SIP/2.0 [2-6]\d\d").decode()


def by_xmpp(house: House, one: Try) -> str:
    header = (
        "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' "
        "to='a.test' from='evil.test' version='1.0'>"
    )
    with house.secure(house.server.port("server", "tls")) as sock:
        sock.sendall(header.encode())
        until(sock, "</stream:features>")
        name = base64.b64encode(b"evil.test").decode()
        sock.sendall(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{name}</auth>".encode())
        assert b"<success" in until(sock, "<success[^>]*>|<failure")
        sock.sendall(header.encode())
        until(sock, "</stream:features>|<stream:features[^>]*/>")
        if one.answer:
            return said_to(sock, one)
        genuine = f"<message from='{THEIRS}' to='alice@a.test' id='g{next(NUMBERS)}'><body>genuine</body></message>"
        sock.sendall(f"{one.text}{genuine}</stream:stream>".encode())
        return until(sock, "</stream:stream>").decode()


def by_component(house: House, one: Try) -> str:
    with socket.create_connection(("127.0.0.1", house.component_port), timeout=5) as sock:
        header = "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='box.evil.test'>"
        sock.sendall(header.encode())
        opened = until(sock, r"<stream:stream[^>]* id=['\"][^'\"]+['\"][^>]*>").decode()
        found = re.search(r" id=['\"]([^'\"]+)['\"]", opened)
        assert found is not None, opened
        proof = hashlib.sha1(f"{found[1]}{PASSWORD}".encode()).hexdigest()
        sock.sendall(f"<handshake>{proof}</handshake>".encode())
        until(sock, "<handshake")
        return said_to(sock, one)


def said_to(sock: socket.socket, one: Try) -> str:
    """What comes back of a stanza; a ping behind it shows that nothing more does."""
    text = (
        one.text.replace(THEIRS, "eve@box.evil.test").replace("<im:eve@evil", "<im:eve@box.evil")
        if one.edge == "component"
        else one.text
    )
    sender = "box.evil.test" if one.edge == "component" else "evil.test"
    sock.sendall(text.encode())
    with suppress(OSError):
        sock.sendall(
            f"<iq type='get' id='ping' from='{sender}' to='a.test'><ping xmlns='urn:xmpp:ping'/></iq>".encode()
        )
    return until(sock, "id=['\"]ping['\"]|</stream:stream>").decode()


BY = {"sip": by_sip, "xmpp": by_xmpp, "component": by_component}


async def sees_nothing(house: House, alice: Wire, trial: str, *, before: Sequence[str] = ()) -> None:
    """The next thing that Alice gets, but for what is genuine, is what Bob writes now."""
    await alice.until(lambda: len(alice.texts) == len(before))
    async with house.server.client("sip", BOB, receive=False) as bob:
        assert (await bob.send(text_object(BOB, ALICE, trial), ALICE)).status is Status.SUCCESS
    await alice.until(lambda: trial in alice.texts)
    seen = [
        each for each in alice.stanzas if each.local in ("message", "presence") and each.get("from") != "alice@a.test/w"
    ]
    assert [each.get("from") for each in seen] == [*before, BOB.uri.removeprefix("im:")], trial
    alice.events.clear()


async def watching(house: House) -> Wire:
    alice = await Wire(house.server, "alice@a.test/w").open()
    alice.send(parse_document(b"<presence xmlns='jabber:client'/>"))
    return alice


def test_every_edge_refuses_what_is_not_the_peers_own(house: House) -> None:
    """Every row of the table, and Alice sees none of them."""

    async def story() -> None:
        alice = await watching(house)
        failed: list[str] = []
        for one in TRIES:
            said = await asyncio.to_thread(BY[one.edge], house, one)
            if one.answer and not re.search(one.answer, said):
                failed.append(f"{one.edge}, {one.name}: {said[-300:]!r}")
            if not one.answer and "<error" in said.partition("ping")[0]:
                failed.append(f"{one.edge}, {one.name} was answered: {said[-300:]!r}")
            before = [THEIRS] if one.edge == "xmpp" and not one.answer else []
            await sees_nothing(house, alice, f"{one.edge}, {one.name}", before=before)
        assert not failed, "\n".join(failed)

    run(story())


def test_apex_relays_speak_for_nobody_else(house: House) -> None:
    """P-30, RFC 3340 sections 4.4.2, 4.5.2: 537 for every originator that is not the relay's own, service or person."""

    async def story() -> None:
        alice = await watching(house)
        await asyncio.to_thread(tries)
        await sees_nothing(house, alice, "apex")

    def tries() -> None:
        refused = 0
        with house.evil.as_relay(house.server) as relay:
            for domain in ("bank.test", "a.test"):
                with pytest.raises(Refused, match=r"53[47]"):
                    relay.bind(domain)
            relay.bind("evil.test")
            response = "<statusResponse transID='{}'><destination identity='{}'><reply code='550' /></destination></statusResponse>"
            publish = f"<publish publisher='{OTHERS}' transID='4' timeStamp='2026-01-01T00:00:00Z' />"
            rows: list[tuple[str, dict[str, object]]] = [
                (OTHERS, {"part": (b"Content-Type: message/cpim\r\n", cpim(OTHERS))}),
                (OURS, {"part": (b"Content-Type: message/cpim\r\n", cpim(OURS))}),
                (THEIRS, {"part": (b"Content-Type: message/cpim\r\n", cpim(OTHERS))}),
                ("apex=report@bank.test", {"inline": response.format(7, OTHERS)}),
                ("apex=report@a.test", {"inline": response.format(7, OURS)}),
                ("apex=presence@bank.test", {"inline": publish}),
                ("apex=presence@a.test", {"inline": publish}),
            ]
            for originator, content in rows:
                with pytest.raises(Refused):
                    relay.data(originator, "alice@a.test", **content)
                refused += 1
            # Its own report service may speak, but not about whom it does not serve: nobody is told.
            relay.data("apex=report@evil.test", "alice@a.test", inline=response.format(7, OTHERS))
        assert refused == len(rows)

    run(story())

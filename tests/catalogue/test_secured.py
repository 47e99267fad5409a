"""Secured entities that are not what they say, by every way into a running server (T5, T7, C-32, M-06, X-58, S-43).

What the server can see to be wrong is refused with the protocol's own word; what only a key could show to be wrong is
opaque and crosses as it is (FMT-39, SEC-2, SEC-6): the recipient's verdict says so.
"""

from __future__ import annotations

import gzip
import re
import secrets
from collections.abc import Iterator

import pytest

from tests.catalogue.carriers import NO_RATES, Carrier, Verdict, carriers
from tests.catalogue.fleet import pieces, play
from tests.catalogue.harness import Target
from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import Agent
from tests.catalogue.test_xmpp import PING, listening

E2E = "urn:ietf:params:xml:ns:xmpp-e2e"
INNER = b"From: <im:alice@a.test>\r\nTo: <im:bob@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\npay 100"
PART = b"Content-Type: message/cpim\r\n\r\n" + INNER
SIGNATURE = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\nMIIB\r\n"
SIGNED = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=next'
PKCS7 = b"Content-Type: application/pkcs7-mime; smime-type="
CONTROL = b"Content-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
SEALED = b'Content-Type: multipart/encrypted; protocol="application/pgp-encrypted"; boundary=next'


def parts(*each: bytes, end: bytes = b"--next--\r\n") -> bytes:
    return b"".join(b"--next\r\n" + part + b"\r\n" for part in each) + end


def around(entity: bytes) -> bytes:
    """A message/cpim of alice's with an entity as its content."""
    return INNER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + entity


BOSS = PART.replace(b"alice", b"boss")
ROWS: list[tuple[str, bytes, bytes, Verdict]] = [
    ("C-32 one part", SIGNED, parts(PART), "syntax"),
    ("C-32 three parts", SIGNED, parts(PART, SIGNATURE, SIGNATURE), "syntax"),
    ("C-32 no end", SIGNED, parts(PART, SIGNATURE, end=b""), "syntax"),
    ("C-32 no boundary", SIGNED.replace(b"; boundary=next", b""), parts(PART, SIGNATURE), "syntax"),
    ("C-32 boundary twice", SIGNED + b"; boundary=other", parts(PART, SIGNATURE), "syntax"),
    ("C-32 other boundary", SIGNED.replace(b"=next", b"=none"), parts(PART, SIGNATURE), "syntax"),
    ("C-32 no parts", SIGNED, b"", "syntax"),
    ("C-32 LF", SIGNED, parts(PART.replace(b"\r\n", b"\n"), SIGNATURE), "syntax"),
    ("C-20 under a signature", SIGNED, parts(BOSS, SIGNATURE), "denied"),
    (
        "C-07 under a signature",
        SIGNED,
        parts(PART.replace(b"To:", b"From: <im:boss@a.test>\r\nTo:"), SIGNATURE),
        "syntax",
    ),
    ("C-23 under a signature", SIGNED, parts(PART.replace(b"bob", b"eve"), SIGNATURE), "denied"),
    ("C-05 under a signature", SIGNED, parts(PART.replace(b"From", b"from"), SIGNATURE), "syntax"),
    (
        "M-06",
        b"Content-Type: message/cpim",
        around(SIGNED + b"\r\n\r\n" + parts(BOSS, SIGNATURE)),
        "denied",
    ),
    ("M-03 crosses", b"Content-Type: multipart/mixed; boundary=next", parts(PART, SIGNATURE), "accepted"),
    ("M-06 own", b"Content-Type: message/cpim", around(SIGNED + b"\r\n\r\n" + parts(PART, SIGNATURE)), "accepted"),
    ("SEC-5", SIGNED.replace(b"application/pkcs7-signature", b"x/y"), parts(PART, SIGNATURE), "accepted"),
    ("SEC-6 swapped", SEALED, parts(b"Content-Type: text/plain\r\n\r\nx", CONTROL), "accepted"),
    ("SEC-6 no parts", SEALED, b"nothing\r\n", "accepted"),
    ("not BER", PKCS7 + b"authEnveloped-data", b"not BER\r\n", "accepted"),
    ("unknown smime-type", PKCS7 + b"surprise", b"MIIB\r\n", "accepted"),
    ("says base64", PKCS7 + b"enveloped-data\r\nContent-Transfer-Encoding: base64", b"***\r\n", "accepted"),
    ("T5 type twice", PKCS7 + b"enveloped-data\r\nContent-Type: text/plain", b"MIIB\r\n", "syntax"),
    (
        "T5 encoding twice",
        PKCS7 + b"x\r\nContent-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: base64",
        b"x",
        "syntax",
    ),
]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("secured"), NO_RATES, people=("carol",))
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module")
def ways(target: Target) -> Iterator[list[Carrier]]:
    with carriers(target) as found:
        yield found


@pytest.mark.parametrize(("id", "kind", "octets", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_a_secured_entity_is_refused_or_carried(
    target: Target, ways: list[Carrier], id: str, kind: bytes, octets: bytes, expected: Verdict
) -> None:
    """By ``octets``, ``e2e``, SIP over TCP and UDP alike."""
    with target.row(id.partition(" ")[0], stores=expected == "accepted"):
        heard = {way.name: way.submit(octets, kind=kind) for way in ways if way.can_hold(octets)}
        assert heard == dict.fromkeys(heard, expected)
        assert {"tcp", "octets"} <= set(heard)


# --- XMPP: the element itself -------------------------------------------------------------------------------------

ENTITY = (PART + b"!").replace(b"\r\n", b"\n").decode()
GOOD = f"<e2e xmlns='{E2E}'><![CDATA[\n{ENTITY}\n]]></e2e>"


def stanza(*children: str) -> bytes:
    return f"<message to='bob@a.test' id='row'>{''.join(children)}</message>".encode()


@pytest.mark.parametrize(
    "octets",
    [
        stanza(GOOD, GOOD),
        stanza(GOOD, "<octets xmlns='urn:comity:octets:0'>QTogYg0KDQp4</octets>"),
        stanza(GOOD, f"<e2e xmlns='{E2E}'/>"),
        stanza(f"<e2e xmlns='{E2E}'><e2e>x</e2e></e2e>"),
        stanza(f"<e2e xmlns='{E2E}'>{ENTITY}<x xmlns='u'/></e2e>".replace("<im", "&lt;im")),
        stanza(f"<e2e xmlns='{E2E}'><![CDATA[]]></e2e>"),
        stanza(f"<e2e xmlns='{E2E}'><![CDATA[\nContent-Type: message/cpim\n]]></e2e>"),
        stanza(
            f"<e2e xmlns='{E2E}'><![CDATA[{ENTITY.replace('message/cpim', 'message/cpim' + chr(10) + ' x')}]]></e2e>"
        ),
        stanza(f"<e2e xmlns='{E2E}'>&#13;{ENTITY}</e2e>".replace("<im", "&lt;im")),
    ],
    ids=["two", "two kinds", "one empty", "nested", "mixed", "empty", "no content", "type", "carriage return"],
)
def test_an_e2e_element_that_holds_no_single_entity_is_refused(target: Target, octets: bytes) -> None:
    """XMPP-18, XMPP-19, T5: bad-request, the connection lives, nothing is stored."""
    with target.row("e2e"), RawXmpp(target, "bound") as peer:
        for cut in (0, len(octets) // 2):
            play([peer], [pieces(octets, cut)])
            answer = peer.until(rb"<message[^>]* type='error'[^>]*>.*?</message>")
            assert re.search(rb"<error type='modify'><bad-request", answer), answer


LETTER = (SIGNED + b"\r\n\r\n" + parts(PART, SIGNATURE)).replace(b"bob", b"carol").replace(b"\r\n", b"\n").decode()


@pytest.mark.parametrize(
    "sections",
    [["\n" + LETTER + "\n"], ["\n" + LETTER[:30], LETTER[30:] + "\n"], list("\n" + LETTER + "\n")],
    ids=["one", "two", "an octet each"],
)
def test_however_the_sections_are_cut_the_entity_is_the_same(target: Target, sections: list[str]) -> None:
    """XMPP-20, SEC-2: a device gets it in exactly these octets, wherever sections and segments end."""
    body = "".join(f"<![CDATA[{section}]]>" for section in sections)
    octets = stanza(f"<e2e xmlns='{E2E}'>{body}</e2e>").replace(b"bob", b"carol")
    expected = f"<e2e xmlns='{E2E}'><![CDATA[\n{LETTER}\n]]></e2e>".encode()
    with target.row("e2e", stores=True), RawXmpp(target, "bound") as peer, listening(target, "carol") as carol:
        for cut in (0, len(octets) // 3):
            # The same again under the same identifier would be a repeat.
            play([peer], [pieces(octets.replace(b"'row'", f"'{secrets.token_hex(4)}'".encode()), cut)])
            assert expected in carol.until(rb"<message[^>]* from='alice@a\.test/[^>]*>.*?</message>")


@pytest.mark.parametrize("attributes", ["", " to='carol@a.test'"], ids=["broadcast", "directed"])
def test_what_is_no_presence_goes_nowhere_in_a_presence(target: Target, attributes: str) -> None:
    """RFC 3923 section 4, XMPP-15: bad-request, and neither who watches nor who is addressed gets anything of it."""
    with target.row("e2e"), RawXmpp(target, "bound") as peer, listening(target, "carol") as carol:
        peer.send(f"<presence{attributes}>{GOOD}</presence>".encode() + PING)
        answer = peer.until(rb"<iq[^>]* id='alive'[^>]*/>")
        assert re.search(rb"<presence[^>]* type='error'[^>]*>.*<error type='modify'><bad-request", answer), answer
        carol.send(PING)
        assert b"<presence" not in carol.until(rb"<iq[^>]* id='alive'[^>]*/>")


@pytest.mark.parametrize(
    ("about", "is_handed_on"), [("alice@a.test", True), ("boss@a.test", False)], ids=["the sender", "somebody else"]
)
def test_signed_presence_for_one_is_about_its_sender(target: Target, about: str, is_handed_on: bool) -> None:
    """RFC 3923 section 4.2, PRES-1: whole and untouched to whom it is addressed, and to nobody under another's name."""
    pidf = f"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:{about}'/>"
    part = f"Content-Type: application/pidf+xml\r\n\r\n{pidf}".encode()
    entity = (SIGNED + b"\r\n\r\n" + parts(part, SIGNATURE)).replace(b"\r\n", b"\n").decode()
    sent = f"<e2e xmlns='{E2E}'><![CDATA[\n{entity}\n]]></e2e>"
    with target.row("e2e"), RawXmpp(target, "bound") as peer, listening(target, "carol") as carol:
        peer.send(f"<presence to='carol@a.test'>{sent}</presence>".encode() + PING)
        assert (b"<forbidden" in peer.until(rb"<iq[^>]* id='alive'[^>]*/>")) is not is_handed_on
        carol.send(PING)
        assert (sent.encode() in carol.until(rb"<iq[^>]* id='alive'[^>]*/>")) is is_handed_on


def test_in_an_iq_it_is_no_request_we_know(target: Target) -> None:
    """RFC 6120 section 8.4."""
    with target.row("e2e"), RawXmpp(target, "bound") as peer:
        peer.send(f"<iq type='set' id='q'>{GOOD}</iq>".encode())
        assert b"<service-unavailable" in peer.until(rb"<iq[^>]* id='q'.*?</iq>")


def test_one_that_is_too_large_closes_as_any_stanza(target: Target) -> None:
    """XMPP-5, X-15: nothing of it is kept."""
    with target.row("e2e"), RawXmpp(target, "bound") as peer:
        peer.send(stanza(f"<e2e xmlns='{E2E}'><![CDATA[\n{ENTITY}" + "x" * 300_000))
        assert b"policy-violation" in peer.until_closed()


# --- SIP: the headers around it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "body", "status", "said"),
    [
        ([SIGNED, b"Content-Encoding: gzip, deflate"], b"x", 415, b"Accept-Encoding: gzip, deflate, identity"),
        ([SIGNED, b"e: br"], b"x", 415, b"Accept-Encoding: gzip, deflate, identity"),
        ([SIGNED, b"e: deflate"], b"x", 400, b""),
        ([SIGNED, b"Content-Encoding: gzip"], gzip.compress(bytes(10_000_000)), 413, b""),
        ([SIGNED, PKCS7 + b"enveloped-data"], b"x", 400, b""),
        ([SIGNED, b"c: message/cpim"], b"x", 400, b""),
        ([b"Content-Disposition: render;handling=required"], b"x", 400, b""),
        ([SIGNED, b"Content-Transfer-Encoding: 8bit", b"Content-Transfer-Encoding: base64"], b"x", 400, b""),
        ([SIGNED, b"Content-Disposition: a", b"Content-Disposition: b"], parts(PART, SIGNATURE), 400, b""),
    ],
    ids=[
        "two codings",
        "unknown coding",
        "not deflate",
        "a bomb",
        "two types",
        "two forms",
        "no type",
        "two encodings",
        "two dispositions",
    ],
)
def test_headers_around_a_secured_body(
    target: Target, headers: list[bytes], body: bytes, status: int, said: bytes
) -> None:
    """RFC 3261 section 8.2.3: what cannot be read is refused before anything is stored."""
    with target.row("S-43"), Agent(target, "tcp") as agent:
        agent.sign(agent.build("MESSAGE", "sip:bob@a.test"))
        agent.send(agent.sign(agent.build("MESSAGE", "sip:bob@a.test", *headers, body=body)))
        answer = agent.hear()
        assert (sip_status(answer), said in answer) == (status, True), answer

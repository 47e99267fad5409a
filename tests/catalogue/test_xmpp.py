"""X-30 … X-76 (reliability.md section 2.1): sign-in, addresses, stanzas and wrappers on a running server."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import secrets
import ssl
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from lxml import etree

from tests.catalogue.fleet import Answer, answers, octet_by_octet, pieces, play, read_answer, streams
from tests.catalogue.harness import PASSWORD, Inbox, Target
from tests.catalogue.raw import HEADER, RawXmpp, Stage

SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
STANZAS = "{urn:ietf:params:xml:ns:xmpp-stanzas}"
PING = b"<iq type='get' id='alive'><ping xmlns='urn:xmpp:ping'/></iq>"
GUESSES = int(os.environ.get("COMITY_CATALOGUE_REPEATS", "40"))
"""Wrong passwords of each kind by PLAIN (X-33; the text asks for 1,000, each costs the server a key derivation)."""


def ask(peer: RawXmpp, stanza: bytes, id: str = "x") -> etree._Element:
    """Send a stanza, and give the stanza that answers ``id``; the connection must then still be alive."""
    peer.send(stanza)
    answer = peer.until(rb"<(message|iq|presence)(?=[^>]* id='" + id.encode() + rb"')([^>]*/>|.*?</\1>)")
    peer.send(PING)
    peer.until(rb"<iq[^>]* id='alive'[^>]*/>")
    return read_answer(answer + b"</stream:stream>").elements[-1]


def condition(stanza: etree._Element) -> str:
    """The condition of an error stanza."""
    assert stanza.get("type") == "error", etree.tostring(stanza)
    (error,) = [child for child in stanza if etree.QName(child).localname == "error"]
    (name,) = [c.tag for c in error if c.tag.startswith(STANZAS) and c.tag != STANZAS + "text"]
    return str(name).removeprefix(STANZAS)


class Device(RawXmpp):
    """A device that answers what the server asks it: without that a message counts as not taken."""

    def until(self, pattern: bytes) -> bytes:
        """As always, and every question in what was read is answered."""
        heard = super().until(pattern)
        for id in re.findall(rb"<iq type='get' id='([^']*)' from='a\.test'[^>]*><ping", heard):
            self.send(b"<iq type='result' id='" + id + b"' to='a.test'/>")
        return heard


@contextmanager
def listening(target: Target, user: str = "bob") -> Iterator[RawXmpp]:
    """A device that takes messages; what it hears is looked at octet for octet."""
    with Device(target, "bound", user) as peer:
        peer.send(b"<presence/>")
        peer.until(rb"<presence[^>]*>")
        yield peer
        for _ in range(2):  # to the last question, and until the server has heard the answer
            peer.send(PING)
            peer.until(rb" id='alive'[^>]*>")


def refused(target: Target, stage: Stage, octets: bytes, *, is_open: bool = True, cut: bool = True) -> Answer:
    """What a stream at ``stage`` is told before it is closed: the same whole, octet by octet and in two at every 16th.

    ``cut`` False: whole only, where it matters what comes in one segment.
    """
    scripts = [[octets]]
    if cut:
        scripts += [octet_by_octet(octets), *(pieces(octets, at) for at in range(1, min(len(octets), 512), 16))]
    heard: list[Answer] = []
    for start in range(0, len(scripts), 4):  # an account may have ten devices, and those just closed may still count
        some = scripts[start : start + 4]
        with streams(target, len(some), stage, is_open=is_open) as peers:
            play(peers, some)
            heard += answers(peers)
    assert len({answer.condition for answer in heard}) == 1, {answer.condition for answer in heard}
    return heard[0]


# --- sign-in: X-30 to X-45 ----------------------------------------------------------------------------------------


def plain(authzid: str, user: str, password: str) -> bytes:
    data = base64.b64encode(f"{authzid}\0{user}\0{password}".encode())
    return f"<auth xmlns='{SASL}' mechanism='PLAIN'>".encode() + data + b"</auth>"


@pytest.mark.parametrize("authzid", ["bob@b.test", "bob@a.test", "alice@b.test", "a.test", "@@", "alice@a.test\u200d"])
def test_a_foreign_authzid_is_refused(target: Target, authzid: str) -> None:
    """X-30; afterwards the same connection may still sign in."""
    with target.row("X-30"), RawXmpp(target, "tls") as peer:
        peer.open()
        peer.send(plain(authzid, "alice", PASSWORD))
        assert peer.until(rb"</failure>") == f"<failure xmlns='{SASL}'><invalid-authzid/></failure>".encode()
        assert b"invalid-authzid" in peer.scram(PASSWORD, gs2=f"n,a={authzid},")
        peer.sign_in_by_scram()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (HEADER.replace(b"a.test", b"b.test"), "not-authorized"),
        (HEADER.replace(b"to=", b"from='bob@a.test' to="), "invalid-from"),
        (HEADER.replace(b"to=", b"from='@@' to="), "invalid-from"),
    ],
)
def test_the_new_header_must_be_of_the_same_account(target: Target, header: bytes, expected: str) -> None:
    """X-31, X-32."""
    with target.row("X-31"):
        assert refused(target, "authenticated", header, is_open=False).condition == expected


def test_a_second_bind_is_not_allowed_and_a_second_sign_in_closes(target: Target) -> None:
    """X-32."""
    bind = b"<iq type='set' id='x'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>"
    with target.row("X-32"), RawXmpp(target, "bound") as peer:
        assert condition(ask(peer, bind)) == "not-allowed"
        peer.send(plain("", "alice", PASSWORD))
        assert read_answer(peer.until_closed()).condition == "unsupported-stanza-type"


class TestWrongPasswordAndUnknownUser:
    """X-33: "same text; mean times differ < 5 % and < 1 ms"."""

    @pytest.mark.parametrize("kind", ["scram", "plain"])
    def test_answers_and_times_are_alike(self, target: Target, kind: str) -> None:
        """A busy machine can only add a difference: one of three measurements has to be without."""
        count = 1000 if kind == "scram" else GUESSES
        heard: list[str] = []
        for _ in range(3):
            with target.row("X-33"):
                wrong, unknown = self.medians(target, kind, count)
            heard.append(f"wrong password {wrong * 1000:.3f} ms, unknown user {unknown * 1000:.3f} ms, {count} each")
            print(f"{kind}: {heard[-1]}")
            if abs(wrong - unknown) < min(0.001, 0.05 * max(wrong, unknown)):
                return
        pytest.fail("; ".join(heard))

    def medians(self, target: Target, kind: str, count: int) -> tuple[float, float]:
        # A key derivation takes long enough to be interrupted by whatever else runs here: the server's own time tells.
        clock = target.cpu if kind == "plain" else time.perf_counter
        times: dict[str, list[float]] = {"alice": [], "nobody": []}
        words: set[bytes] = set()
        order = ["alice", "nobody"] * count
        random.Random(33).shuffle(order)
        while order:
            with RawXmpp(target, "tls") as peer:
                peer.open()
                for _ in range(min(4, len(order))):
                    peer.user = order.pop()
                    began = clock()
                    words.add(peer.scram("wrong") if kind == "scram" else self.guess(peer))
                    times[peer.user].append(clock() - began)
        assert words == {f"<failure xmlns='{SASL}'><not-authorized/></failure>".encode()}
        return statistics.median(times["alice"]), statistics.median(times["nobody"])

    def guess(self, peer: RawXmpp) -> bytes:
        peer.sasl("auth", b"\0" + peer.user.encode() + b"\0wrong", "PLAIN")
        return peer.until(rb"</failure>")


def test_the_fifth_failure_is_the_last(target: Target) -> None:
    """X-34: what follows in the same segment is not looked at any more."""
    wrong = plain("", "alice", "wrong")
    with target.row("X-34"), RawXmpp(target, "tls") as peer:
        peer.open()
        peer.send(wrong * 6)
        answer = read_answer(peer.until_closed())
        assert answer.condition == "policy-violation"
        assert answer.octets.count(b"<not-authorized/>") == 5


STARTTLS = f"<starttls xmlns='{TLS}'/>".encode()


@pytest.mark.parametrize("rest", [b"<message to='bob@a.test'><body>x</body></message>", b"<", b"\x16\x03\x01", HEADER])
def test_octets_behind_starttls_are_not_read(target: Target, rest: bytes) -> None:
    """X-36: in the same segment no TLS comes at all; in a later one they are taken for TLS, and are none."""
    with target.row("X-36", log_lines=2):
        answer = refused(target, "fresh", STARTTLS + rest, cut=False)
        assert answer.octets == f"<failure xmlns='{TLS}'/></stream:stream>".encode()
        with RawXmpp(target) as peer:
            peer.open()
            play([peer], [[STARTTLS, rest + b"." * 12_000]])
            heard = peer.until_closed()
            proceed = f"<proceed xmlns='{TLS}'/>".encode()
            assert heard.startswith(proceed)
            assert heard[len(proceed) : len(proceed) + 1] in (b"", b"\x15"), heard  # a TLS alert at most


def test_nobody_signs_in_or_binds_in_the_clear(target: Target) -> None:
    """X-37, X-38."""
    with target.row("X-37"), RawXmpp(target) as peer:
        assert b"<mechanism" not in peer.open()
        peer.send(plain("", "alice", PASSWORD))
        assert peer.until(rb"</failure>") == f"<failure xmlns='{SASL}'><encryption-required/></failure>".encode()
        peer.send(b"<iq type='set' id='x'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
        assert read_answer(peer.until_closed()).condition == "policy-violation"


class TestChannelBinding:
    """X-42."""

    def end_point(self, peer: RawXmpp) -> bytes:
        assert isinstance(peer.sock, ssl.SSLSocket)
        certificate = peer.sock.getpeercert(binary_form=True)
        assert certificate
        return hashlib.sha256(certificate).digest()

    def test_the_right_value_signs_in(self, target: Target) -> None:
        with target.row("X-42"), RawXmpp(target, "tls") as peer:
            peer.open()
            gs2, binding = "p=tls-server-end-point,,", self.end_point(peer)
            assert b"<success" in peer.scram(PASSWORD, mechanism="SCRAM-SHA-256-PLUS", gs2=gs2, binding=binding)

    @pytest.mark.parametrize(
        ("mechanism", "gs2", "has_binding"),
        [
            ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", False),
            ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", True),
            ("SCRAM-SHA-256-PLUS", "p=tls-unique,,", True),
            ("SCRAM-SHA-256-PLUS", "n,,", False),
            ("SCRAM-SHA-256-PLUS", "y,,", False),
            ("SCRAM-SHA-256", "p=tls-server-end-point,,", True),
            ("SCRAM-SHA-256", "y,,", False),
        ],
    )
    def test_any_other_does_not(self, target: Target, mechanism: str, gs2: str, has_binding: bool) -> None:
        with target.row("X-42"), RawXmpp(target, "tls") as peer:
            peer.open()
            binding = self.end_point(peer) if has_binding else bytes(32)
            answer = peer.scram(PASSWORD, mechanism=mechanism, gs2=gs2, binding=binding)
            assert b"<not-authorized/>" in answer
            peer.sign_in_by_scram()


BAD_SASL = [
    ("X-44 not base64", "PLAIN", "***", "incorrect-encoding"),
    ("X-44 padding inside", "PLAIN", "AG=E", "incorrect-encoding"),
    ("X-44 only padding", "PLAIN", "====", "incorrect-encoding"),
    ("X-44 line break", "PLAIN", "AGFs\nAAAA", "incorrect-encoding"),
    # RFC 6120 section 6.4.2: "=" is the empty octet string, which no PLAIN response is.
    ("X-44 empty", "PLAIN", "=", "malformed-request"),
    ("X-44 not a SCRAM message", "SCRAM-SHA-256", "AAAA", "malformed-request"),
    ("X-45 unknown", "DIGEST-MD5", "", "invalid-mechanism"),
    ("X-45 empty", "", "AAAA", "invalid-mechanism"),
    ("X-45 EXTERNAL", "EXTERNAL", "=", "invalid-mechanism"),
]


@pytest.mark.parametrize(("row", "mechanism", "data", "expected"), BAD_SASL, ids=[row[0] for row in BAD_SASL])
def test_bad_sasl_fails_and_the_stream_goes_on(
    target: Target, row: str, mechanism: str, data: str, expected: str
) -> None:
    """X-44, X-45; RFC 6120 section 6.4.5: the client may try again."""
    octets = f"<auth xmlns='{SASL}' mechanism='{mechanism}'>{data}</auth>".encode()
    with target.row(row), RawXmpp(target, "tls") as peer:
        peer.open()
        for script in ([octets], octet_by_octet(octets)):
            play([peer], [script])
            assert peer.until(rb"</failure>") == f"<failure xmlns='{SASL}'><{expected}/></failure>".encode()
        peer.sign_in_by_scram()


@pytest.mark.parametrize(
    "octets",
    [
        f"<auth xmlns='{SASL}' mechanism='PLAIN'>{'A' * 65536}</auth>".encode(),
        f"<auth xmlns='{SASL}' mechanism='{'A' * 1024}'>AAAA</auth>".encode(),
    ],
    ids=["X-44", "X-45"],
)
def test_huge_sasl_closes(target: Target, octets: bytes) -> None:
    """X-44, X-45."""
    with target.row("X-44"):
        assert refused(target, "tls", octets).condition == "policy-violation"


# --- stanzas: X-46 to X-58 ----------------------------------------------------------------------------------------

MESSAGE = b"<message to='bob@a.test' id='x'><body>never</body></message>"
QUERY = b"<iq type='get' id='x' to='a.test'><ping xmlns='urn:xmpp:ping'/></iq>"


@pytest.mark.parametrize("name", ["message", "iq", "presence"])
@pytest.mark.parametrize(
    "sender", ["bob@b.test", "bob@a.test", "alice@a.test/other", "a.test", "@@", "im:alice@a.test"]
)
def test_a_forged_sender_closes(target: Target, bob: Inbox, name: str, sender: str) -> None:
    """X-46, X-47; what was sent before it arrives, from whom it came."""
    text = f"{name} before {sender}"
    with target.row("X-46", stores=True), RawXmpp(target, "bound") as peer:
        peer.send(f"<message to='bob@a.test'><body>{text}</body></message>".encode())
        peer.send(f"<{name} from='{sender}' to='bob@a.test' id='f' type='get'><body>forged</body></{name}>".encode())
        assert read_answer(peer.until_closed()).condition == "invalid-from"
        bob.expect(text)
    assert "forged" not in bob.texts
    assert set(bob.senders) == {"im:alice@a.test"}


@pytest.mark.parametrize("kind", ["subscribe", "unsubscribe", "subscribed", "unsubscribed"])
@pytest.mark.parametrize("sender", ["bob@a.test", "carol@b.test", "alice@a.test/other"])
def test_a_forged_subscription_closes_and_nobody_hears_of_it(
    target: Target, bob: Inbox, kind: str, sender: str
) -> None:
    """SEC-31 to SEC-33, T19."""
    text = f"{kind} before {sender}"
    with target.row("SEC-33", stores=True), RawXmpp(target, "bound") as peer:
        peer.send(f"<message to='bob@a.test'><body>{text}</body></message>".encode())
        peer.send(f"<presence type='{kind}' from='{sender}' to='bob@a.test'/>".encode())
        assert read_answer(peer.until_closed()).condition == "invalid-from"
        bob.expect(text)


@pytest.mark.parametrize(
    ("stage", "octets", "expected"),
    [
        ("fresh", MESSAGE, "not-authorized"),
        ("fresh", b"<presence/>", "not-authorized"),
        ("fresh", QUERY, "policy-violation"),
        ("tls", MESSAGE, "not-authorized"),
        ("tls", QUERY, "not-authorized"),
        ("tls", b"<presence/>", "not-authorized"),
        ("authenticated", MESSAGE, "not-authorized"),
        ("authenticated", b"<presence/>", "not-authorized"),
    ],
)
def test_stanzas_before_their_time_close(target: Target, stage: Stage, octets: bytes, expected: str) -> None:
    """X-49, X-50 (in the clear an iq is X-38)."""
    with target.row("X-49"):
        assert refused(target, stage, octets).condition == expected


def test_a_query_before_bind_is_not_allowed(target: Target) -> None:
    """X-50, RFC 6120 section 7.1; binding is still possible."""
    with target.row("X-50"), RawXmpp(target, "authenticated") as peer:
        peer.open()
        peer.send(QUERY)
        answer = read_answer(peer.until(rb"</iq>") + b"</stream:stream>")
        assert condition(answer.elements[-1]) == "not-allowed"
        peer.bind()


BAD_ADDRESSES = [
    "@@@///",
    "",
    "@a.test",
    "bob@",
    "bob@a.test/",
    "x" * 1024 + "@a.test",
    "bob@" + "x" * 1024,
    "bob@a.test/" + "x" * 1024,
    "é" * 100_000 + "@a.test",
    "bob@a.test/" + "é" * 100_000,
    "a\u00a0b@a.test",
    "a&quot;b@a.test",
    "a b@a.test",
    "bob@a\u2044.test",
    "bob@-a.test",
    "im:bob@a.test",
    "bob\u200d@a.test",
    "\u0131\u0307&#9;@a.test",
]


@pytest.mark.parametrize("name", ["message", "iq", "presence"])
def test_a_bad_address_is_malformed(target: Target, name: str) -> None:
    """X-51: "text does not echo > 128 bytes"."""
    with target.row("X-51"), RawXmpp(target, "bound") as peer:
        for to in BAD_ADDRESSES:
            answer = ask(peer, f"<{name} to='{to}' id='x' type='get'><body>{to[:9]}</body></{name}>".encode())
            assert condition(answer) == "jid-malformed", ascii(to[:40])
            assert len(etree.tostring(answer)) < 700


BAD_IQ = [
    b"<iq type='get'><q xmlns='u'/></iq>",
    b"<iq id='x' type='zzz'><q xmlns='u'/></iq>",
    b"<iq id='x'><q xmlns='u'/></iq>",
    b"<iq id='x' type='get'/>",
    b"<iq id='x' type='set'><q xmlns='u'/><q xmlns='u'/></iq>",
]


def test_a_bad_query_is_a_bad_request(target: Target) -> None:
    """X-52."""
    with target.row("X-52"), RawXmpp(target, "bound") as peer:
        peer.send(BAD_IQ[0])
        assert condition(read_answer(peer.until(rb"</iq>") + b"</stream:stream>").elements[-1]) == "bad-request"
        for query in BAD_IQ[1:]:
            assert condition(ask(peer, query)) == "bad-request", query
            assert condition(ask(peer, query.replace(b"<iq", b"<iq to='bob@a.test/x'"))) == "bad-request", query


@pytest.mark.parametrize("to", ["", "a.test", "alice@a.test", "bob@a.test", "bob@a.test/none", "nobody@a.test"])
@pytest.mark.parametrize("kind", ["get", "set"])
def test_an_unknown_query_is_unavailable(target: Target, to: str, kind: str) -> None:
    """X-53."""
    address = f" to='{to}'" if to else ""
    with target.row("X-53"), RawXmpp(target, "bound") as peer:
        query = f"<iq type='{kind}' id='x'{address}><query xmlns='urn:evil'/></iq>"
        assert condition(ask(peer, query.encode())) == "service-unavailable"


@pytest.mark.parametrize("octets", [b"<foo xmlns='jabber:client'/>", b"<foo xmlns='urn:evil'/>"], ids=["X-54", "X-55"])
@pytest.mark.parametrize("stage", ["fresh", "tls", "authenticated", "bound"])
def test_an_unknown_element_closes(target: Target, stage: Stage, octets: bytes) -> None:
    """X-54, X-55."""
    with target.row("X-54"):
        assert refused(target, stage, octets).condition == "unsupported-stanza-type"


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("nobody@a.test", "service-unavailable"),
        ("nobody@a.test/x", "service-unavailable"),
        ("a.test", "service-unavailable"),
        ("carol@unreachable.test", "remote-server-not-found"),
    ],
)
def test_who_is_not_there_gets_no_message(target: Target, to: str, expected: str) -> None:
    """X-57, X-58: the sender is told, and nothing is stored."""
    with target.row("X-57"), RawXmpp(target, "bound") as peer:
        assert condition(ask(peer, f"<message to='{to}' id='x'><body>hello</body></message>".encode())) == expected


# --- written anew: X-21, X-22 --------------------------------------------------------------------------------------


def test_a_prefixed_stanza_is_delivered_with_canonical_prefixes(target: Target) -> None:
    """X-21."""
    prefixed = (
        b"<c:message xmlns:c='jabber:client' xmlns='urn:other' xmlns:s='http://etherx.jabber.org/streams' c:x='1' "
        b"to='bob@a.test' id='p'><c:body>prefixed</c:body><own><s:x/></own></c:message>"
    )
    with target.row("X-21", stores=True), listening(target) as bob, RawXmpp(target, "bound") as peer:
        peer.send(prefixed)
        bob.until(b"(?=<message)")
        heard = bob.until(rb"</message>")
        assert b"<body>prefixed</body>" in heard
        assert b"<own xmlns='urn:other'><stream:x/></own>" in heard
        assert b"c:body" not in heard
        assert b"c:message" not in heard


SMUGGLED = [
    "&lt;/body&gt;&lt;message from='boss@a.test'&gt;",
    "<![CDATA[</body></message><message from='boss@a.test'>]]>",
    "]]&gt;<![CDATA[]]]]><![CDATA[>]]>",
    "&#13;&#10;&#9;\r\n\u2028\u0085\ufeff",
    "\U0001f600\u202e\ufffd\U0010ffff",
]


@pytest.mark.parametrize("text", SMUGGLED)
def test_what_is_written_is_read_alike_by_two_parsers(target: Target, text: str) -> None:
    """X-22: as text, in an attribute, beside and inside other namespaces; nobody sees a second stanza."""
    attribute = re.sub(r"<!\[CDATA\[(.*?)\]\]>", lambda m: m[1].replace("<", "&lt;"), text).replace("'", "&apos;")
    extra = f"<x xmlns='urn:x' xmlns:y='urn:y' a='{attribute}' y:a='{attribute}'><y:z>{text}</y:z></x>"
    with target.row("X-22", stores=True), listening(target) as bob, RawXmpp(target, "bound") as peer:
        last = secrets.token_hex(8)  # the same text under the same id would be taken for a repeat
        peer.send(f"<message to='{bob.jid}' id='s{last}'><body>{text}</body>{extra}</message>".encode())
        peer.send(f"<message to='{bob.jid}' id='{last}'><body>last</body></message>".encode())
        bob.until(b"(?=<message)")
        pattern = f" id='{last}'.*?</message>".encode()
        heard = read_answer(bob.until(pattern) + b"</stream:stream>")  # reads it twice
        # What the server itself asks a device is an iq of its own.
        messages = [stanza for stanza in heard.elements if stanza.tag != "{jabber:client}iq"]
        assert [stanza.get("from") for stanza in messages] == [peer.jid] * 2
        (x,) = messages[0].iterfind("{urn:x}x")
        assert x.get("a") == x.get("{urn:y}a")


# --- what only servers may say: X-60 to X-66 ----------------------------------------------------------------------

FORWARDED = (
    "<forwarded xmlns='urn:xmpp:forward:0'><delay xmlns='urn:xmpp:delay' from='a.test' stamp='2026-01-01T00:00:00Z'/>"
    "<message xmlns='jabber:client' from='boss@a.test' to='bob@a.test'><body>pay him</body></message></forwarded>"
)
WRAPPERS = [
    ("X-60 received", f"<received xmlns='urn:xmpp:carbons:2'>{FORWARDED}</received>"),
    ("X-60 sent", f"<sent xmlns='urn:xmpp:carbons:2'>{FORWARDED}</sent>"),
    ("X-60 version 1", f"<received xmlns='urn:xmpp:carbons:1'>{FORWARDED}</received>"),
    ("X-60 prefixed", f"<c:received xmlns:c='urn:xmpp:carbons:2'>{FORWARDED}</c:received>"),
    ("X-61 forwarded", FORWARDED),
    ("X-61 archive", f"<result xmlns='urn:xmpp:mam:2' id='1'>{FORWARDED}</result>"),
    ("X-63 stanza-id", "<stanza-id xmlns='urn:xmpp:sid:0' by='a.test' id='pay him'/>"),
    ("X-63 origin-id by", "<origin-id xmlns='urn:xmpp:sid:0' by='a.test' id='pay him'/>"),
    ("X-64 delay", "<delay xmlns='urn:xmpp:delay' from='a.test' stamp='2001-01-01T00:00:00Z'>pay him</delay>"),
    ("X-64 old delay", "<x xmlns='jabber:x:delay' from='a.test' stamp='20010101T00:00:00'>pay him</x>"),
    ("history", "<history xmlns='urn:comity:history:0'><hop node='pay him'/></history>"),
]
FORGED = re.compile(rb"pay him|boss|carbons|urn:xmpp:mam|urn:xmpp:forward|20010101|2001-01-01")


def is_ours(child: etree._Element) -> bool:
    """True for an object carried whole, which nobody takes for the server's word, and for the server's own marks."""
    name = etree.QName(child)
    return name.localname in ("e2e", "octets") or (name.localname == "delay" and child.get("from") == "a.test")


@pytest.mark.parametrize(("row", "wrapper"), WRAPPERS, ids=[row[0] for row in WRAPPERS])
def test_forged_wrappers_never_arrive(target: Target, row: str, wrapper: str) -> None:
    """X-60, X-61, X-63, X-64: beside a text they are taken away, alone they are refused, hidden in an object too."""
    inner = f"<xmpp xmlns='jabber:client'><message>{wrapper}<x xmlns='urn:x:{len(wrapper)}'/></message></xmpp>"
    entity = base64.b64encode(f"Content-Type: application/xmpp+xml\r\n\r\n{inner}".encode()).decode()
    octets = f"<octets xmlns='urn:comity:octets:0'>{entity}</octets>"
    with target.row(row, stores=True), listening(target) as bob, RawXmpp(target, "bound") as peer:
        text = f"honest {row}"
        peer.send(f"<message to='{bob.jid}' id='w'>{wrapper}<body>{text}</body></message>".encode())
        bob.until(b"<message")
        heard = bob.until(rb"</message>")
        assert text.encode() in heard
        assert not FORGED.search(heard), heard
        alone = ask(peer, f"<message to='{bob.jid}' id='x'>{wrapper}</message>".encode())
        assert condition(alone) == "bad-request"
        peer.send(f"<message to='{bob.jid}' id='o'>{octets}</message>".encode())
        peer.send(f"<message to='{bob.jid}' id='l'><body>last {row}</body></message>".encode())
        for stanza in read_answer(bob.until(f"last {row}</body>.*?</message>".encode()) + b"</stream:stream>").elements:
            assert not any(FORGED.search(etree.tostring(child)) for child in stanza if not is_ours(child)), heard


def test_nobody_pushes_into_another_users_roster(target: Target) -> None:
    """X-62."""
    with target.row("X-62"), listening(target) as bob, RawXmpp(target, "bound") as peer:
        push = (
            f"<iq type='set' id='x' to='{bob.jid}'><query xmlns='jabber:iq:roster'><item jid='m@x.test'/></query></iq>"
        )
        assert condition(ask(peer, push.encode())) == "service-unavailable"
        bob.send(PING)
        assert b"roster" not in bob.until(rb" id='alive'")


@pytest.mark.parametrize(
    "payload",
    [
        "<query xmlns='jabber:iq:auth'><username>bob</username><password>x</password></query>",
        "<query xmlns='jabber:iq:register'><username>bob</username><password>x</password></query>",
        "<command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#add-user'/>",
    ],
)
@pytest.mark.parametrize("to", ["a.test", "alice@a.test"])
def test_administration_is_forbidden(target: Target, payload: str, to: str) -> None:
    """X-65; the password stays what it was."""
    with target.row("X-65"), RawXmpp(target, "bound") as peer:
        assert condition(ask(peer, f"<iq type='set' id='x' to='{to}'>{payload}</iq>".encode())) == "forbidden"
        RawXmpp(target, "authenticated", "bob").close()


def test_a_wrong_capability_hash_is_kept_by_nobody(target: Target) -> None:
    """X-66: the liar is answered as it asked; the next device with the same hash is asked itself."""
    features = ["http://jabber.org/protocol/disco#info", "urn:comity:octets:0"]
    text = "client/pc//honest<" + "".join(f"{feature}<" for feature in sorted(features))
    ver = base64.b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode()
    caps = f"<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:n' ver='{ver}'/></presence>"

    def introduce(peer: RawXmpp, told: list[str]) -> bool:
        """Whether the device was asked; it says ``told`` then."""
        peer.send(caps.encode() + PING)
        heard = peer.until(rb" id='alive'[^>]*>")
        found = re.search(rb"id='(caps-[0-9a-f]+)'", heard)
        if found:
            listed = "".join(f"<feature var='{feature}'/>" for feature in told)
            identity = "<identity category='client' type='pc' name='honest'/>"
            query = f"<query xmlns='http://jabber.org/protocol/disco#info'>{identity}{listed}</query>"
            peer.send(f"<iq type='result' id='{found[1].decode()}' to='a.test'>{query}</iq>".encode() + PING)
            peer.until(rb" id='alive'[^>]*>")
        return found is not None

    with target.row("X-66"), RawXmpp(target, "bound") as liar, RawXmpp(target, "bound", "bob") as honest:
        assert introduce(liar, ["urn:lie"])
        assert introduce(honest, features)
        with RawXmpp(target, "bound", "bob") as third:
            assert not introduce(third, features)


# --- stream management and the stream's end: X-68 to X-76 ---------------------------------------------------------

ENABLE = b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>"


@pytest.mark.parametrize("h", ["", " h='-1'", " h='4294967296'", " h='x'", " h='1e1'", " h='٣'"])
def test_a_bad_count_closes(target: Target, h: str) -> None:
    """X-68."""
    with target.row("X-68"), RawXmpp(target, "bound") as peer:
        peer.send(ENABLE)
        peer.until(rb"<enabled[^>]*>")
        peer.send(f"<a xmlns='urn:xmpp:sm:3'{h}/>".encode())
        assert read_answer(peer.until_closed()).condition == "bad-format"


def resume(peer: RawXmpp, id: str) -> bytes:
    peer.open()
    peer.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>".encode())
    return peer.until(rb"<resumed[^>]*>|</failed>")


def test_nobody_resumes_what_is_not_theirs(target: Target) -> None:
    """X-69, X-70, X-73: unknown, another user's, one that two want at once; bind goes on, the owner is untouched."""
    refusal = b"<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    with target.row("X-69", stores=True), RawXmpp(target, "bound", "bob") as owner:
        owner.send(ENABLE)
        found = re.search(rb" id='([^']+)'", owner.until(rb"<enabled[^>]*>"))
        assert found
        id = found[1].decode()
        for previd in ("none", id, id.upper(), ""):
            with RawXmpp(target, "authenticated", "alice") as thief:
                assert resume(thief, previd) == refusal
                thief.bind()
        owner.send(PING)
        owner.until(rb" id='alive'")
        with RawXmpp(target, "authenticated", "bob") as one, RawXmpp(target, "authenticated", "bob") as two:
            for peer in (one, two):
                peer.open()
            for peer in (one, two):
                peer.send(f"<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>".encode())
            # Whoever comes second takes the stream from the first as from a dead connection, which is cut.
            assert sorted(is_alive(peer) for peer in (one, two)) == [False, True]


def is_alive(peer: RawXmpp) -> bool:
    """Whether a ping is answered; False if the connection is closed instead."""
    peer.send(PING.replace(b"alive", b"still"))  # what was not confirmed is sent again: no id may be used twice
    while not re.search(rb" id='still'", peer.heard):
        if not peer.hear():
            return False
    return True


@pytest.mark.parametrize("stage", ["fresh", "tls", "authenticated", "bound"])
def test_after_goodbye_nothing_is_read(target: Target, stage: Stage) -> None:
    """X-75."""
    with target.row("X-75"):
        answer = refused(target, stage, b"</stream:stream>" + MESSAGE + QUERY + b"<broken")
        assert answer.octets == b"</stream:stream>"


def test_half_close_is_followed_and_what_came_before_arrives(target: Target, bob: Inbox) -> None:
    """X-75."""
    with target.row("X-75", stores=True), RawXmpp(target, "bound") as peer:
        peer.send(b"<message to='bob@a.test'><body>before the end</body></message><mess")
        peer.half_close()
        assert peer.until_closed() == b""
        bob.expect("before the end")


def flood(peer: RawXmpp, count: int) -> None:
    play([peer], [[b" "] * count])


@pytest.mark.parametrize("stage", ["fresh", "tls", "bound"])
def test_keepalives_are_taken_but_not_a_flood(target: Target, stage: Stage) -> None:
    """X-76: each in a segment of its own; ``tests/bindings/xmpp/test_session.py`` has the exact rate."""
    with target.row("X-76"), RawXmpp(target, stage) as peer:
        if stage != "bound":
            peer.open()
        flood(peer, 15)
        assert peer.hear()
        assert not peer.heard
        flood(peer, 1000)
        assert read_answer(peer.until_closed()).condition == "policy-violation"

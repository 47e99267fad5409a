"""C-01 … C-32 (reliability.md section 2.6): malformed and odd message/cpim by every way into a running server.

"Comity reads strictly, carries exactly, repairs never": what is refused is refused with the protocol's own word and
leaves nothing in the store; what is accepted arrives byte for byte by XMPP and by SIP.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from comity.cpim.address import Address
from tests.catalogue.carriers import CPIM, NO_RATES, BySip, Carrier, Verdict, carriers
from tests.catalogue.fleet import MAX_PIECES, cpu_of
from tests.catalogue.harness import Inbox, Target
from tests.catalogue.raw import RawXmpp, sip_status
from tests.catalogue.sip_agent import Agent

CAROL = Address.parse("im:carol@a.test")
FROM, TO = b"From: <im:alice@a.test>", b"To: <im:bob@a.test>"
CONTENT = b"Content-Type: text/plain; charset=utf-8\r\n\r\nhello"
TOMORROW = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ").encode()


def made(*headers: bytes, content: bytes = CONTENT) -> bytes:
    """An object of these header lines, in order."""
    return b"".join(header + b"\r\n" for header in headers) + b"\r\n" + content


GOOD = made(FROM, TO, b"Subject: weather")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """A server on which alice may send as much as these rows need."""
    target = Target(tmp_path_factory.mktemp("target"), NO_RATES, people=("carol",))
    yield target
    target.check_canary()
    target.close()


@pytest.fixture(scope="module")
def ways(target: Target) -> Iterator[list[Carrier]]:
    """Signed-in connections used by all rows: a refused object costs none of them."""
    with carriers(target) as found:
        yield found


@pytest.fixture(scope="module")
def carol(target: Target) -> Iterator[Inbox]:
    """The victim by SIP."""
    inbox = target.inbox("sip", CAROL)
    yield inbox
    inbox.close()


def answers(ways: list[Carrier], obj: bytes) -> dict[str, Verdict]:
    """How each way that can hold the object was answered; an object more in the same breath is accepted."""
    return {way.name: way.submit(obj) for way in ways if way.can_hold(obj)}


REFUSED: list[tuple[str, bytes, Verdict]] = [
    ("C-01 LF", GOOD.replace(b"\r\n", b"\n"), "syntax"),
    ("C-01 CR", GOOD.replace(b"\r\n", b"\r"), "syntax"),
    ("C-01 one LF", GOOD.replace(b"\r\nTo", b"\nTo"), "syntax"),
    ("C-01 LF before the content", GOOD.replace(b"weather\r\n\r\n", b"weather\r\n\n"), "syntax"),
    ("C-01 LF in the content headers", GOOD.replace(b"utf-8\r\n", b"utf-8\n"), "syntax"),
    ("C-02", made(FROM, TO, b"Subject: one\r\n two"), "syntax"),
    ("C-02 tab", made(FROM, TO, b"Subject: one\r\n\ttwo"), "syntax"),
    ("C-03 no space", made(FROM.replace(b": ", b":"), TO), "syntax"),
    ("C-03 two spaces", made(FROM.replace(b": ", b":  "), TO), "syntax"),
    ("C-03 tab", made(FROM.replace(b": ", b":\t"), TO), "syntax"),
    ("C-03 space before", made(FROM.replace(b": ", b" : "), TO), "syntax"),
    ("C-04", made(FROM + b" ", TO), "syntax"),
    ("C-04 Subject", made(FROM, TO, b"Subject: x "), "syntax"),
    ("C-05", made(b"from" + FROM[4:], TO), "syntax"),
    ("C-05 FROM", made(b"FROM" + FROM[4:], TO), "syntax"),
    ("C-06 no From", made(TO), "syntax"),
    ("C-06 no To", made(FROM), "syntax"),
    ("C-06 nothing", made(), "syntax"),
    ("C-07", made(FROM, b"From: <im:boss@a.test>", TO), "syntax"),
    ("C-07 the same twice", made(FROM, TO, FROM), "syntax"),
    ("C-09 300 headers", made(FROM, TO, *(b"Subject: %d" % i for i in range(300))), "syntax"),
    ("C-09 65 headers", made(FROM, TO, *(b"Subject: %d" % i for i in range(63))), "syntax"),
    ("C-09 64 KiB header", made(FROM, TO, b"Subject: " + b"x" * 65_000), "syntax"),
    ("C-09 8 KiB header and one", made(FROM, TO, b"Subject: " + b"x" * (8192 - 8)), "syntax"),
    ("C-10", made(b"From: <im:alice@a.test>\r\nFrom: <im:boss@a.test>", TO), "syntax"),
    ("C-10 To", made(b"From: <im:alice@a.test>\r\nTo: <im:boss@a.test>"), "denied"),
    *(
        (f"C-12 {octet:02x}", made(FROM, TO, b"Subject: a%cb" % octet), "syntax")
        for octet in (*range(0x20), 0x7F)
        if octet not in (0x0A, 0x0D)
    ),
    ("C-12 in the content headers", made(FROM, TO, content=b"Content-Type: text/plain\x01\r\n\r\nx"), "syntax"),
    ("C-14", made(FROM, TO, b"Subject: \xff"), "syntax"),
    ("C-14 overlong", made(FROM, TO, b"Subject: \xc0\x80"), "syntax"),
    ("C-14 surrogate", made(FROM, TO, b"Subject: \xed\xa0\x80"), "syntax"),
    ("C-14 BOM", b"\xef\xbb\xbf" + GOOD, "syntax"),
    ("C-15", made(FROM, TO, "Předmět: x".encode()), "syntax"),
    ("C-16", made(b"NS: <urn:x>", FROM, TO), "syntax"),
    ("C-17", made(b"NS: x <urn:ietf:params:cpim-headers:>", FROM, TO, b"x.From: <im:boss@a.test>"), "syntax"),
    ("C-17 before", made(b"NS: x <urn:ietf:params:cpim-headers:>", b"x.From: <im:boss@a.test>", FROM, TO), "syntax"),
    ("C-17 alone", made(b"NS: x <urn:ietf:params:cpim-headers:>", b"x.From: <im:boss@a.test>", TO), "denied"),
    ("C-18", made(FROM, TO, b"x.Thing: 1", b"NS: x <urn:x>"), "syntax"),
    ("C-18 twice", made(FROM, TO, b"NS: x <urn:x>", b"NS: x <urn:y>"), "syntax"),
    ("C-20", made(b"From: <im:boss@a.test>", TO), "denied"),
    ("C-20 name", made(b"From: alice <im:boss@a.test>", TO), "denied"),
    ("C-20 almost", made(b"From: <im:alice@a.test.>", b"To: <im:boss@a.test>"), "denied"),
    ("C-21", made(b"From: <im:alice@b.test>", TO), "denied"),
    ("C-22 mailto", made(b"From: <mailto:alice@a.test>", TO), "denied"),
    ("C-22 percent", made(b"From: <im:alice%40a.test@b.test>", TO), "denied"),
    ("C-22 two at signs", made(b"From: <im:alice@a.test@b.test>", TO), "denied"),
    ("C-23", made(FROM, b"To: <im:boss@a.test>"), "denied"),
    ("C-28 no day", made(FROM, TO, b"DateTime: 2000-02-30T00:00:00Z"), "syntax"),
    ("C-28 zone", made(FROM, TO, b"DateTime: 2000-02-28T00:00:00+25:00"), "syntax"),
    ("C-28 no zone", made(FROM, TO, b"DateTime: 2000-02-28T00:00:00"), "syntax"),
    ("C-28 second 61", made(FROM, TO, b"DateTime: 2016-12-31T23:59:61Z"), "syntax"),
    ("C-28 twice", made(FROM, TO, b"DateTime: 2000-02-28T00:00:00Z", b"DateTime: 2000-02-29T00:00:00Z"), "syntax"),
    ("C-28 tomorrow", made(FROM, TO, b"DateTime: " + TOMORROW), "timestamp"),
    ("C-28 year 9999", made(FROM, TO, b"DateTime: 9999-12-31T23:59:59Z"), "timestamp"),
    ("C-32", b"hello", "syntax"),
    ("C-32 empty", b"\r\n", "syntax"),
    ("C-32 MIME", CONTENT, "syntax"),
    ("C-32 JSON", b'{"from": "im:alice@a.test"}', "syntax"),
    ("C-32 XML", b"<message from='im:alice@a.test'/>", "syntax"),
    ("C-32 no content", FROM + b"\r\n" + TO + b"\r\n", "syntax"),
]


@pytest.mark.parametrize(("row", "obj", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_malformed_object_is_refused(
    target: Target, ways: list[Carrier], row: str, obj: bytes, expected: Verdict
) -> None:
    """Nothing is stored, the connection lives."""
    with target.row(row):
        heard = answers(ways, obj)
    if expected == "timestamp":  # SIP has no code of its own for it (T8)
        assert heard.pop("tcp") == heard.pop("udp") == "syntax"
    assert heard, "no way in"
    assert set(heard.values()) == {expected}, heard


def plain(*headers: bytes) -> bytes:
    return made(FROM, TO, *headers)


EVERY_OCTET = bytes(range(256))
FRAMES = {
    "MIME": b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
    "MSRP": b"MSRP a786hjs2 SEND\r\n\r\nx\r\n-------a786hjs2$\r\n",
    "BEEP": b"END\r\nMSG 0 1 . 52 120\r\nEND\r\n",
    "XMPP": b"]]></e2e></octets></body></message></stream:stream><message to='boss@a.test'/>",
    "SIP": b"\r\n\r\nMESSAGE sip:boss@a.test SIP/2.0\r\nContent-Length: 0\r\n\r\n",
    "CPIM": b"From: <im:boss@a.test>\r\n\r\n",
}


def binary(body: bytes, kind: bytes = b"application/octet-stream") -> bytes:
    return made(FROM, TO, content=b"Content-Type: " + kind + b"\r\n\r\n" + body)


def nested(depth: int) -> bytes:
    obj = GOOD
    for _ in range(depth):
        obj = made(FROM, TO, content=b"Content-Type: message/cpim\r\n\r\n" + obj)
    return obj


ACCEPTED: list[tuple[str, bytes]] = [
    ("C-08", made(FROM, b"To: <im:boss@a.test>", TO, b"cc: <im:eve@b.test>", b"cc: Eve <im:eve@c.test>")),
    ("C-08 only in cc", made(FROM, b"To: <im:boss@a.test>", b"cc: <im:bob@a.test>")),
    ("C-09 64 headers", plain(*(b"Subject: %d" % i for i in range(62)))),
    ("C-09 8 KiB header", plain(b"Subject: " + b"x" * (8192 - 11))),
    ("C-11", plain(rb"Subject: x\u000d\u000aTo: <im:boss@a.test>")),
    ("C-11 name", made(rb'From: "a\u000d\u000aFrom: <im:boss@a.test>" <im:alice@a.test>', TO)),
    ("C-19", plain(b"NS: Unknown <urn:unknown>", b"Require: Unknown.Thing")),
    ("C-22 sip", made(b"From: <sip:alice@a.test>", TO)),
    ("C-22 xmpp", made(b"From: <xmpp:alice@a.test>", TO)),
    ("C-22 pres", made(b"From: <pres:alice@a.test>", TO)),
    ("C-22 percent", made(b"From: <im:%61lice@A.test>", TO)),
    ("C-24 every octet", binary(EVERY_OCTET)),
    ("C-24 every octet backwards, as text", binary(EVERY_OCTET[::-1], b"text/plain; charset=utf-8")),
    ("C-24 empty", binary(b"")),
    ("C-24 trailing lines", binary(b"x\r\n\r\n\r\n")),
    ("C-24 only lines", binary(b"\r\n\n\r\r\n")),
    ("C-24 no final line end", binary(b"x", b"text/plain")),
    *((f"C-25 {name}", binary(frame, b"text/plain")) for name, frame in FRAMES.items()),
    ("C-26", binary("žluťoučký kůň ".encode() + b"\xff\x00\x01")),
    ("C-28 absent", plain()),
    ("C-28 leap second", plain(b"DateTime: 2016-12-31T23:59:60Z")),
    ("C-28 long ago", plain(b"DateTime: 0001-01-01T00:00:00Z")),
    ("C-30", made(FROM, TO, content=b"Content-Type: text/plain\r\nContent-Length: 3\r\n\r\nmore than three")),
    ("C-30 larger", made(FROM, TO, content=b"Content-Type: text/plain\r\nContent-Length: 99999\r\n\r\nx")),
    ("C-31", nested(1)),
    ("C-31 a hundred", nested(100)),
]


@pytest.mark.parametrize(("row", "obj"), ACCEPTED, ids=[row[0] for row in ACCEPTED])
def test_an_odd_object_arrives_byte_for_byte(
    target: Target, ways: list[Carrier], bob: Inbox, carol: Inbox, row: str, obj: bytes
) -> None:
    """From XMPP and SIP to XMPP and SIP (G3), from nobody but alice (I10)."""
    with target.row(row, stores=True):
        for inbox, name in ((bob, b"bob"), (carol, b"carol")):
            for way in ways:
                mine = obj.replace(b"im:bob@", b"im:%s@" % name)
                if not way.can_hold(mine):
                    continue
                before = inbox.count(mine)
                assert way.submit(mine, f"{name.decode()}@a.test") == "accepted", way.name
                inbox.expect_octets(mine, before + 1)
    assert set(bob.senders) | set(carol.senders) == {"im:alice@a.test"}


@pytest.mark.parametrize("way", ["octets", "e2e", "tcp"])
def test_a_cut_object_is_answered_as_a_whole_one(target: Target, ways: list[Carrier], bob: Inbox, way: str) -> None:
    """A good object and a bad one, cut at every offset of what carries them (up to 512)."""
    carrier = next(carrier for carrier in ways if carrier.name == way)
    bad = made(FROM, b"From: <im:boss@a.test>", TO)
    with target.row("cut", stores=True):
        for cut in range(1, MAX_PIECES, 8):
            carrier.cut = cut
            assert carrier.submit(bad) == "syntax", cut
        for cut in range(5, MAX_PIECES, 64):
            good = GOOD.replace(b"weather", f"weather by {way}, {cut}".encode())
            carrier.cut = cut
            assert carrier.submit(good) == "accepted", cut
            bob.expect_octets(good)
        carrier.cut = 0


def test_the_good_message_right_before_a_bad_object_arrives(target: Target, bob: Inbox) -> None:
    """In one segment, by XMPP and by SIP; both connections live on."""
    bad = made(FROM, b"From: <im:boss@a.test>", TO)
    with target.row("before", stores=True):
        with RawXmpp(target, "bound") as peer:
            entity = base64.b64encode(CPIM + b"\r\n\r\n" + bad)
            peer.send(
                b"<message to='bob@a.test' id='g'><body>good by XMPP</body></message>"
                b"<message to='bob@a.test' id='b'><octets xmlns='urn:comity:octets:0'>"
                + entity
                + b"</octets></message>"
            )
            assert b"id='b'" in peer.until(rb"<bad-request")
            bob.expect("good by XMPP")
        with Agent(target, "tcp") as agent:
            good = agent.sign(agent.message("good by SIP"))
            agent.send(good + agent.sign(agent.build("MESSAGE", "sip:bob@a.test", CPIM, body=bad)))
            assert sorted(sip_status(agent.hear()) // 100 for _ in range(2)) == [2, 4]
            bob.expect("good by SIP")


def of_size(octets: int) -> bytes:
    """An object of exactly that many octets."""
    empty = binary(b"")
    return empty + b"x" * (octets - len(empty))


class TestSize:
    """C-27: the limit and one octet more, at both edges (reliability.md section 6.2)."""

    LINE = len(CPIM) + 2
    """The header block counts as part of the object."""

    @pytest.mark.parametrize("form", ["octets", "e2e"])
    def test_xmpp(self, target: Target, ways: list[Carrier], bob: Inbox, form: str) -> None:
        way = next(way for way in ways if way.name == form)
        largest = of_size(128 * 1024 - self.LINE)
        with target.row("C-27", stores=True):
            before = bob.count(largest)
            assert way.submit(largest) == "accepted"
            bob.expect_octets(largest, before + 1)
        with target.row("C-27 and one"):
            assert way.submit(largest + b"x") == "size"

    def test_sip_tcp(self, target: Target, bob: Inbox) -> None:
        largest = of_size(48 * 1024)
        with target.row("C-27", stores=True), Agent(target, "tcp") as agent:
            assert BySip(agent).submit(largest) == "accepted"
            bob.expect_octets(largest)
        with target.row("C-27 and one"), Agent(target, "tcp") as agent:
            assert BySip(agent).submit(largest + b"x") == "size"

    def test_sip_udp(self, target: Target, bob: Inbox) -> None:
        """The datagram as a whole may have 16 KiB."""
        with Agent(target, "udp") as agent:
            carrier = BySip(agent)
            request = agent.build("MESSAGE", "sip:bob@a.test", CPIM, body=of_size(12_000))
            room = 16 * 1024 - len(agent.sign(request)) + 12_000 - 8  # the nonce count's and lengths' digits may grow
            with target.row("C-27", stores=True):
                assert carrier.submit(of_size(room)) == "accepted"
                bob.expect_octets(of_size(room))
            with target.row("C-27 and more"):
                assert carrier.submit(of_size(room + 64)) == "size"

    def test_what_a_sip_device_cannot_take_is_told_to_the_sender(self, target: Target, carol: Inbox) -> None:
        """128 KiB fit a stanza, but no SIP edge: a failure with the size as its reason, no silence."""
        largest = of_size(128 * 1024 - self.LINE).replace(b"im:bob@", b"im:carol@")[:-2]
        with target.row("C-27", stores=True), RawXmpp(target, "bound") as peer:
            entity = base64.b64encode(CPIM + b"\r\n\r\n" + largest)
            peer.send(b"<message to='carol@a.test' id='big'><octets xmlns='urn:comity:octets:0'>" + entity)
            peer.send(b"</octets></message>")
            answer = peer.until(rb"</message>")
            assert b"id='big'" in answer
            assert b"<policy-violation" in answer
            assert not carol.count(largest)


DEEP = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (i, i) for i in range(2000))
COSTLY = [
    ("words in a name", made(b"From: " + b"a " * 4000 + b"<im:alice@a.test", TO)),
    ("escapes in a name", made(b'From: "' + b'\\"' * 4000 + b"<im:alice@a.test>", TO)),
    ("parameters", made(FROM, TO, b"Subject" + b";a=b" * 2000 + b" x")),
    ("strings", made(FROM, TO, b"Subject" + b';a="\\""' * 1100 + b"x")),
    ("escapes", made(FROM, TO, b"Subject: " + rb"\ud83d" * 1300)),
    ("many To", made(FROM, *(b"To: " + b"a " * 100 + b"<im:%d@a.test>" % i for i in range(60)), TO)),
    ("many To of one domain", made(FROM, *(b"To: <im:a@" + b"x" * 60 + b".%d>" % i for i in range(60)), TO)),
    ("content headers", made(FROM, TO, content=b"".join(b"X-%d: \r\n y\r\n" % i for i in range(60)) + b"\r\nx")),
    ("a type of many parameters", made(FROM, TO, content=b"Content-Type: a/b" + b";a=b" * 2000 + b"\r\n\r\nx")),
    ("open quotes", made(FROM, TO, content=b"Content-Type: a/b" + b';a="\\"' * 1300 + b"\r\n\r\nx")),
    ("nested", nested(1000)[:120_000]),
    ("nested multiparts", made(FROM, TO, content=DEEP[:120_000])),
    (
        "boundaries",
        made(FROM, TO, content=b"Content-Type: multipart/signed; boundary=b\r\n\r\n" + b"--b\r\n\r\n" * 17_000),
    ),
    ("half boundaries", made(FROM, TO, content=b"Content-Type: multipart/mixed; boundary=-\r\n\r\n" + b"-" * 120_000)),
]


@pytest.mark.parametrize(("what", "obj"), COSTLY, ids=[row[0] for row in COSTLY])
def test_any_one_object_costs_at_most_50_ms(target: Target, ways: list[Carrier], what: str, obj: bytes) -> None:
    """G7; whether it is taken or not does not matter here."""
    assert len(obj) < 128 * 1024
    with target.row(f"G7 {what}", stores=True):
        cost = cpu_of(target, lambda: ways[0].submit(obj), 5)
    assert cost <= 0.050, f"{cost * 1000:.1f} ms"

"""The door to XML: catalogue rows X-01 … X-29 of reliability.md section 2.1, splits, limits, round trips."""

from __future__ import annotations

import contextlib
import gc
import itertools
import time
import weakref
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from comity.errors import LocalProtocolError, RemoteProtocolError
from comity.xml import (
    XML_LANG,
    CData,
    Element,
    RootClosed,
    RootOpened,
    StreamReader,
    Unit,
    XmlLimits,
    parse_document,
    serialize,
    start_tag,
)

CLIENT = "jabber:client"
STREAMS = "http://etherx.jabber.org/streams"
H = (
    b"<?xml version='1.0'?><stream:stream to='a.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)


def read(*pieces: bytes, limits: XmlLimits | None = None) -> tuple[list[Unit], str]:
    """Everything read from ``pieces`` and the hint of the error that ended it ("" none)."""
    reader = StreamReader(limits or XmlLimits())
    units: list[Unit] = []
    for piece in pieces:
        reader.receive_data(piece)
    try:
        while (unit := reader.next_unit()) is not None:
            units.append(unit)
    except RemoteProtocolError as error:
        assert reader.next_unit() is None, "an error is raised once"
        return units, error.hint
    return units, ""


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


CLOSING: list[tuple[str, bytes, str]] = [
    ("X-07", b"<!DOCTYPE x>", "restricted-xml"),
    ("X-08", b"<?evil data?>", "restricted-xml"),
    ("X-08 in a stanza", b"<message><?evil data?>", "restricted-xml"),
    ("X-09", b"<!-- c --><iq/>", "restricted-xml"),
    ("X-09 with a quote", b"<!-- it's", "restricted-xml"),
    ("X-10", b"<a>&foo;</a>", "restricted-xml"),
    ("X-11", b"<a></b>", "not-well-formed"),
    ("X-12 overlong", b"<a>\xc0\x80</a>", "not-well-formed"),
    ("X-12 FF", b"<a>\xff</a>", "not-well-formed"),
    ("X-13", b"<a>\xed\xa0\x80</a>", "not-well-formed"),
    ("X-14 NUL", b"<a>\x00</a>", "not-well-formed"),
    ("X-14 &#0;", b"<a>&#0;</a>", "not-well-formed"),
    ("X-14 &#1;", b"<a>&#1;</a>", "not-well-formed"),
    ("X-17", b"<m a='1' a='2'/>", "not-well-formed"),
    ("X-18", b"<m xmlns:p='urn:x' xmlns:q='urn:x' p:a='1' q:a='2'/>", "not-well-formed"),
    ("X-19", b"<zz:m/>", "not-well-formed"),
    ("X-22 namespace", b"<m xmlns='\rrn:x'/>", "not-well-formed"),
    ("X-22 namespace of a prefix", "<m xmlns:p='urn:ä'/>".encode(), "not-well-formed"),
    ("X-22", b"<a>\xf0\x28\x8c\x28</body><message/></a>", "not-well-formed"),
    ("text between stanzas", b"hello<a/>", "bad-format"),
    ("second declaration", b"<?xml version='1.0'?>", "restricted-xml"),
]
BEFORE_HEADER: list[tuple[str, bytes, str]] = [
    ("X-01", b"<!DOCTYPE s [<!ENTITY a 'b'>]>" + H, "restricted-xml"),
    ("X-06", b"<!DOCTYPE s [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + H, "restricted-xml"),
    ("X-15", H.decode().encode("utf-16"), "unsupported-encoding"),
    ("X-15 no BOM", H.decode().encode("utf-16-le"), "unsupported-encoding"),
    ("X-15 declared", H.replace(b"?>", b" encoding='iso-8859-1'?>"), "unsupported-encoding"),
    ("BOM", b"\xef\xbb\xbf" + H, "not-well-formed"),
    ("X-74 HTTP", b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", "not-well-formed"),
    ("X-74 SIP", b"OPTIONS sip:a.test SIP/2.0\r\nContent-Length: 0\r\n\r\n", "not-well-formed"),
    ("X-74 TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(120), "not-well-formed"),
]


@pytest.mark.parametrize(("row", "data", "hint"), CLOSING, ids=[row[0] for row in CLOSING])
class TestForbiddenInStream:
    def test_is_refused_whole_and_the_stanza_before_is_kept(self, row: str, data: bytes, hint: str) -> None:
        units, got = read(H, b"<message id='1'/>" + data + b" " * 2000)
        assert got == hint
        assert [u.name for u in units[1:] if isinstance(u, Element)][:1] == ["{jabber:client}message"]

    def test_is_refused_at_every_split(self, row: str, data: bytes, hint: str) -> None:
        data = H + data
        for cut in range(1, len(data)):
            units, got = read(data[:cut], data[cut:] + b" " * 2000)
            assert got == hint, cut
            assert len(units) <= 2

    def test_is_refused_byte_by_byte(self, row: str, data: bytes, hint: str) -> None:
        assert read(*bytewise(H + data + b"<a b='c'>" * 200))[1] == hint


@pytest.mark.parametrize(("row", "data", "hint"), BEFORE_HEADER, ids=[row[0] for row in BEFORE_HEADER])
def test_forbidden_before_the_header_is_refused(row: str, data: bytes, hint: str) -> None:
    assert read(data)[1] == hint
    assert read(*bytewise(data + b" " * 1100))[1] == hint
    for cut in range(1, len(data)):
        assert read(data[:cut], data[cut:] + b" " * 1100)[1] == hint


def test_billion_laughs_cost_nothing() -> None:
    """X-02, X-03, X-04: refused before any expansion, within 5 ms each."""
    laughs = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 10))
    attributes = "<!ATTLIST e " + " ".join(f"a{i} CDATA ''" for i in range(100_000)) + ">"
    big = f"<!ENTITY a '{'x' * 80_000}'>"
    for body in ("<!ENTITY l0 'lol'>" + laughs, big, attributes):
        began = time.process_time()
        assert read(f"<!DOCTYPE s [{body}]><s>&a;</s>".encode())[1] == "restricted-xml"
        assert time.process_time() - began < 0.005


LIMITS: list[tuple[str, bytes, bytes]] = [
    ("X-23", b"<m a='" + b"x" * 300_000 + b"'/>", b"<m a='" + b"x" * 250_000 + b"'/>"),
    (
        "X-25 attributes",
        b"<m " + b" ".join(b"a%d=''" % i for i in range(5000)) + b"/>",
        b"<m " + b" ".join(b"a%d=''" % i for i in range(64)) + b"/>",
    ),
    (
        "X-25 namespaces",
        b"<m " + b" ".join(b"xmlns:a%d='u:%d'" % (i, i) for i in range(5000)) + b"/>",
        b"<m " + b" ".join(b"xmlns:a%d='u:%d'" % (i, i) for i in range(60)) + b"/>",
    ),
    ("X-26", b"<a>" * 20_000, b"<a>" * 64 + b"</a>" * 64),
    ("X-27", b"<m>" + b"<a/>" * 50_000 + b"</m>", b"<m>" + b"<a/>" * 4095 + b"</m>"),
    ("name", b"<" + b"n" * 257 + b"/>", b"<" + b"n" * 256 + b"/>"),
    ("attribute name", b"<m " + b"n" * 257 + b"=''/>", b"<m " + b"n" * 256 + b"=''/>"),
    ("namespace", b"<m xmlns='" + b"n" * 257 + b"'/>", b"<m xmlns='" + b"n" * 256 + b"'/>"),
    ("text", b"<m>" + b"x" * 262_200 + b"</m>", b"<m>" + b"x" * 262_100 + b"</m>"),
]


@pytest.mark.parametrize(("row", "over", "under"), LIMITS, ids=[row[0] for row in LIMITS])
@pytest.mark.parametrize("size", [1 << 20, 64])
def test_limits_hold_on_both_sides(row: str, over: bytes, under: bytes, size: int) -> None:
    def cut(data: bytes) -> list[bytes]:
        return [data[i : i + size] for i in range(0, len(data), size)]

    assert read(H, *cut(over), b" " * 1024)[1] == "policy-violation"
    units, hint = read(H, *cut(under), b"<end/>")
    assert hint == ""
    assert isinstance(units[-1], Element)
    assert units[-1].local == "end"


def test_limit_is_counted_per_stanza() -> None:
    limits = XmlLimits(octets=10_000)
    stanza = b"<m>" + b"x" * 9_980 + b"</m>"
    assert read(H, stanza * 5, limits=limits)[1] == ""
    assert read(H, b"<m/>" + b"<m>" + b"x" * 10_000 + b"</m>", limits=limits)[1] == "policy-violation"


def test_header_without_end_is_refused_at_its_limit() -> None:
    """X-28: at 8 KiB before authentication."""
    reader = StreamReader(XmlLimits(octets=8192))
    sent = 0
    while not reader._is_failed:
        reader.receive_data(b"<stream:stream to='" + b"a" * 100 if not sent else b"a" * 119)
        sent += 119
    assert sent <= 8192 + 4096 + 119


@pytest.mark.parametrize("filler", [b"x", b">", b'"', b"\xc3\xa9"])
def test_long_attribute_in_small_reads_is_cheap(filler: bytes) -> None:
    """Reliability finding 3: 1 MiB attribute in 64-octet pieces blocked 5.2 s; ours is <= 50 ms per 256 KiB."""
    data = H + b"<m a='" + filler * (250_000 // len(filler)) + b"'/>"
    reader = StreamReader(XmlLimits())
    began = time.process_time()
    for start in range(0, len(data), 64):
        reader.receive_data(data[start : start + 64])
    spent = time.process_time() - began
    assert isinstance(reader.next_unit(), RootOpened)
    assert isinstance(reader.next_unit(), Element)
    assert spent < 0.25, spent  # the release gate measures 50 ms; this guards against the quadratic case only


@given(
    st.lists(
        st.sampled_from([b"a=''", b'b="x\'>y"', b"c='\">'", b"dd='" + b"q" * 400 + b"'"]), unique=True, max_size=4
    ),
    st.integers(0, 300),
    st.lists(st.integers(1, 1500), min_size=1, max_size=40),
)
def test_a_whole_stanza_is_read_without_waiting_for_more(special: list[bytes], plain: int, sizes: list[int]) -> None:
    """However it is cut, the last octet of a stanza gives the stanza: nobody sends more before the answer."""
    tag = b" ".join([b"<m", *special, *(b"a%d=''" % i for i in range(plain))]) + b"/>"
    reader = StreamReader(XmlLimits(attributes=400))
    reader.receive_data(H)
    assert isinstance(reader.next_unit(), RootOpened)
    position = 0
    for size in itertools.cycle(sizes):
        if position >= len(tag):
            break
        reader.receive_data(tag[position : position + size])
        position += size
    unit = reader.next_unit()
    assert isinstance(unit, Element)
    assert len(unit.attributes) == len(special) + plain


def test_parser_is_renewed_when_its_names_grow() -> None:
    """Design.md section 3, XML: expat keeps all names; ours are bounded and namespaces survive."""
    reader = StreamReader(XmlLimits())
    reader.receive_data(H)
    assert isinstance(reader.next_unit(), RootOpened)
    parsers = {id(reader._parser)}
    most = 0
    for n in range(4000):
        separator = (b"", b" ", b"\n\t")[n % 3]
        reader.receive_data(b"<n%d a%d='1'><stream:x/></n%d>" % (n, n, n) + separator)
        unit = reader.next_unit()
        assert unit == Element(f"{{{CLIENT}}}n{n}", {f"a{n}": "1"}, [Element(f"{{{STREAMS}}}x")])
        parsers.add(id(reader._parser))
        most = max(most, len(reader._names))
    assert most < 1100
    joined = b"".join(b"<n%d x%d='>'/> " % (n, n) for n in range(4000))
    reader.receive_data(joined)
    count = 0
    while reader.next_unit() is not None:
        count += 1
    assert count == 4000
    assert len(reader._names) < 4000
    reader.receive_data(b"</stream:stream>")
    assert reader.next_unit() == RootClosed()


def test_close_is_read_and_restart_is_possible() -> None:
    reader = StreamReader(XmlLimits())
    reader.receive_data(H + b"</stream:stream>")
    assert isinstance(reader.next_unit(), RootOpened)
    assert isinstance(reader.next_unit(), RootClosed)
    reader.reset()
    reader.receive_data(H)
    opened = reader.next_unit()
    assert isinstance(opened, RootOpened)
    assert opened.element.name == f"{{{STREAMS}}}stream"
    assert opened.namespaces == {"": CLIENT, "stream": STREAMS}


def test_octets_after_a_unit_are_noticed() -> None:
    """X-36 rests on this."""
    for rest, expected in [(b"", True), (b"<message/>", False), (b"<mess", False), (b" ", True), (b"x", False)]:
        reader = StreamReader(XmlLimits())
        reader.receive_data(H + b"<starttls/>" + rest)
        assert isinstance(reader.next_unit(), RootOpened)
        assert isinstance(reader.next_unit(), Element)
        assert reader.is_between is expected, rest


def test_stream_may_rest_at_any_cut() -> None:
    """G7: an idle stream has no parser; what is half read is kept."""
    whole = read(STANZAS)
    for cut in range(len(STANZAS)):
        reader = StreamReader(XmlLimits())
        units: list[Unit] = []
        for piece in (STANZAS[:cut], STANZAS[cut:]):
            reader.receive_data(piece)
            while (unit := reader.next_unit()) is not None:
                units.append(unit)
            reader.rest()
        assert (units, "") == whole, cut


@pytest.mark.parametrize(
    ("tail", "hint"), [(b"&am", "not-well-formed"), (b"x", "bad-format"), (b"\xc3", "not-well-formed")]
)
def test_rest_loses_no_mistake(tail: bytes, hint: str) -> None:
    reader = StreamReader(XmlLimits())
    reader.receive_data(H + b"<iq/>" + tail)
    assert isinstance(reader.next_unit(), RootOpened)
    reader.rest()
    assert isinstance(reader.next_unit(), Element)
    reader.rest()
    reader.receive_data(b"<iq/>" * 3)
    with pytest.raises(RemoteProtocolError) as raised:
        while reader.next_unit() is not None:
            reader.rest()
    assert raised.value.hint == hint


def test_closed_reader_leaves_nothing_to_the_garbage_collector() -> None:
    reader = StreamReader(XmlLimits())
    reader.receive_data(H + b"<iq>")
    reader.close()
    reader.receive_data(b"</iq>")
    assert isinstance(reader.next_unit(), RootOpened)
    assert reader.next_unit() is None
    gone = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert gone() is None
    finally:
        gc.enable()


STANZAS = (
    H + b"<message to='b@b.test' id='1'><body>a &amp; b &lt;tag/&gt; \xf0\x9f\x98\x80</body>"
    b"<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nContent-Type: a/b\n\n]] > ']]></e2e></message>"
    b"\n<c:message xmlns:c='jabber:client' xml:lang='de' c:x=\"y>'\"/> <iq/></stream:stream>"
)


def test_every_split_gives_the_same_units() -> None:
    whole = read(STANZAS)
    assert whole[1] == ""
    assert len(whole[0]) == 5
    for cut in range(len(STANZAS)):
        assert read(STANZAS[:cut], STANZAS[cut:]) == whole
    assert read(*bytewise(STANZAS)) == whole


@given(st.lists(st.integers(1, len(STANZAS)), max_size=12))
def test_any_cuts_give_the_same_units(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STANZAS)]
    assert read(*(STANZAS[a:b] for a, b in itertools.pairwise(places))) == read(STANZAS)


@given(st.lists(st.binary(max_size=60), max_size=6), st.booleans())
def test_arbitrary_octets_give_units_or_protocol_errors(pieces: list[bytes], with_header: bool) -> None:
    read(*([H] if with_header else []), *pieces)


def test_prefixed_stanza_is_written_with_canonical_prefixes() -> None:
    """X-21."""
    units, _ = read(H + b"<c:message xmlns:c='jabber:client'><c:body>x</c:body><x xmlns='u'/></c:message>")
    assert isinstance(units[1], Element)
    assert serialize(units[1], CLIENT) == b"<message><body>x</body><x xmlns='u'/></message>"


text = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"), max_size=20)
names = st.sampled_from(["a", "b", "{u:1}c", "{u:1}d", "{u:2}e", "{http://etherx.jabber.org/streams}f", "é"])
attributes = st.dictionaries(st.sampled_from(["x", "y", "{u:1}z", XML_LANG, "{u:2}z"]), text | st.just("\r\n\t<'\">&"))
leaves = st.builds(Element, names, attributes)
trees = st.recursive(
    leaves,
    lambda inner: st.builds(
        Element, names, attributes, st.lists(inner | text | text.map(CData) | st.just("\r]]>\n"), max_size=4)
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(trees)
def test_written_trees_read_back_equal_by_us_and_by_lxml(tree: Element) -> None:
    """X-22: egress octets give equal trees to two readers."""
    raw = serialize(tree, "", {STREAMS: "stream"}).replace(
        b"<stream:f", b"<stream:f xmlns:stream='%b'" % STREAMS.encode()
    )
    assert parse_document(raw) == tree
    assert _from_lxml(etree.fromstring(raw, etree.XMLParser(resolve_entities=False))) == tree


def _from_lxml(node: etree._Element) -> Element:
    element = Element(str(node.tag), {str(k): str(v) for k, v in node.attrib.items()})
    if node.text:
        element.append(str(node.text))
    for child in node:
        element.append(_from_lxml(child))
        if child.tail:
            element.append(str(child.tail))
    return element


@pytest.mark.parametrize("bad", ["\x00", "\x0b", "\ud800", "\ufffe", "\x1f"])
def test_characters_outside_xml_are_never_written(bad: str) -> None:
    for element in (Element("a", {}, [bad]), Element("a", {"x": bad}), Element("a", {}, [CData(bad)])):
        with pytest.raises(LocalProtocolError):
            serialize(element)


@pytest.mark.parametrize("name", ["", "a b", "a><b", "1a", "a:b", "{u}"])
def test_names_outside_xml_are_never_written(name: str) -> None:
    with pytest.raises(LocalProtocolError):
        serialize(Element(name))
    with pytest.raises(LocalProtocolError):
        serialize(Element("a", {name: "x"}))


@pytest.mark.parametrize("size", [1, 5, 8, 1000])
def test_a_document_type_is_refused_before_it_ends_however_it_is_cut(size: int) -> None:
    """X-01, X-28: found by fuzzing."""
    data = b"<!DOCTYPE xE" + b" " * 1100
    reader = StreamReader(XmlLimits())
    with pytest.raises(RemoteProtocolError) as refused:
        for start in range(0, len(data), size):
            reader.receive_data(data[start : start + size])
            assert reader.next_unit() is None
    assert refused.value.hint == "restricted-xml"


@pytest.mark.parametrize("odd", [b"\x0b", b"\x0c", "\u00a0".encode(), "\u2028".encode()])
def test_only_the_white_space_of_xml_may_stand_between_stanzas(odd: bytes) -> None:
    """X-14, X-76: found by fuzzing; Python's idea of white space is wider."""
    reader = StreamReader(XmlLimits())
    reader.receive_data(b"<s>")
    assert reader.next_unit() is not None
    reader.receive_data(b" \t\r\n")
    assert reader.next_unit() is None
    reader.receive_data(odd + b"<a/>")
    with pytest.raises(RemoteProtocolError):
        reader.next_unit()


def test_the_reserved_prefix_is_never_declared() -> None:
    """X-22: an element of the xml namespace, passed on as a default namespace, would close the recipient's stream."""
    element = parse_document(b"<a><xml:b xml:c='d'>e</xml:b></a>")
    assert parse_document(serialize(element)) == element
    assert b"xmlns" not in serialize(element)


def test_cdata_end_is_split_over_sections() -> None:
    """XMPP-20."""
    raw = serialize(Element("a", {}, [CData("x]]>y")]))
    assert raw == b"<a><![CDATA[x]]]]><![CDATA[>y]]></a>"
    assert parse_document(raw).text == "x]]>y"


def test_start_tag_declares_everything() -> None:
    raw = start_tag(Element(f"{{{STREAMS}}}stream", {"to": "a'b", XML_LANG: "en"}), CLIENT, {STREAMS: "stream"})
    units, hint = read(raw)
    assert hint == ""
    assert isinstance(units[0], RootOpened)
    assert units[0].element.attributes == {"to": "a'b", XML_LANG: "en"}


def test_documents_are_read_whole() -> None:
    assert parse_document(b"\xef\xbb\xbf<?xml version='1.0'?><!-- c --><a>x<!-- d --></a>") == Element("a", {}, ["x"])
    for raw, hint in [
        (b"<a>", "not-well-formed"),
        (b"", "not-well-formed"),
        (b"<a/><b/>", "not-well-formed"),
        (b"<!DOCTYPE a><a/>", "restricted-xml"),
        (b"<?x y?><a/>", "restricted-xml"),
        (b"<a>" * 70 + b"</a>" * 70, "policy-violation"),
        (b"<a>" + b"x" * 300_000 + b"</a>", "policy-violation"),
    ]:
        with pytest.raises(RemoteProtocolError) as caught:
            parse_document(raw)
        assert caught.value.hint == hint


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        (b"<a>", b"&lol;</a>"),
        (b"<a>" + b"x" * 10_000, b"&lol;</a>"),
        (b"<!DOCTYPE a", b"><a/>"),  # where expat is sure of it
        (b"<a>", b"<?x y?></a>"),
        (b"<a>" * 64, b"<a>"),
    ],
)
def test_the_error_in_a_document_names_the_octet(mark: bytes, before: bytes, wrong: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_document(mark + before + wrong)
    assert caught.value.offset == len(mark + before)


def test_reading_a_document_leaves_nothing_to_the_garbage_collector() -> None:
    """A parser is 14 KiB; thousands of documents a second may not wait for a collection."""
    gc.collect()
    for raw in (b"<?xml version='1.0'?><a b='c'>d</a>", b"<a>&x;</a>", b"<!DOCTYPE a><a/>"):
        gc.disable()
        try:
            with contextlib.suppress(RemoteProtocolError):
                parse_document(raw)
            assert not gc.collect()
        finally:
            gc.enable()


def test_a_document_may_declare_another_encoding_if_the_caller_knows_better() -> None:
    """RFC 3863 section 4.1: the charset of the MIME type beats the declaration (PRES-1)."""
    raw = "<?xml version='1.0' encoding='ISO-8859-2'?><a>ž</a>".encode()
    with pytest.raises(RemoteProtocolError) as caught:
        parse_document(raw)
    assert caught.value.hint == "unsupported-encoding"
    assert parse_document(raw, ignore_encoding=True).text == "ž"
    with pytest.raises(RemoteProtocolError):
        parse_document(raw.replace("ž".encode(), b"\xbe"), ignore_encoding=True)


def test_typical_stanza_is_read_quickly() -> None:
    """9.9 us a stanza when measured on the 2-core machine; fails only when something is an order slower than the target of 60 us."""
    stanza = (
        b"<message to='bob@b.test' type='chat' id='a1b2c3' xml:lang='en'><body>Wherefore art thou, Romeo?</body>"
        b"<thread>e0ffe42b28561960c6b12b944a092794b9683a38</thread><active xmlns='http://jabber.org/protocol/chatstates'/>"
        b"<origin-id xmlns='urn:xmpp:sid:0' id='a1b2c3'/></message>"
    )
    reader = StreamReader(XmlLimits())
    reader.receive_data(H)
    reader.next_unit()
    began = time.process_time()
    for _ in range(1000):
        reader.receive_data(stanza)
        assert isinstance(reader.next_unit(), Element)
    assert (time.process_time() - began) / 1000 < 0.0006


_PIECES = [*"ab1:/?#[]@!%F-. \u00e4{|\\^`<'", "urn:", "http://", "//", "[::1]", ":80", "%41"]


@settings(max_examples=500)
@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=8).map("".join))
def test_a_namespace_we_accept_is_one_that_libxml2_accepts(name: str) -> None:
    """X-22: expat takes anything; libxml2 ends at what is no URI reference."""
    document = f"<m xmlns:p={quoteattr(name)}/>".encode()
    reader = StreamReader(XmlLimits())
    reader.receive_data(b"<r>" + document)
    hint = ""
    try:
        assert reader.next_unit() is not None
        assert reader.next_unit() is not None
    except RemoteProtocolError as error:
        hint = error.hint
    assert hint in ("", "not-well-formed")
    if not hint:
        etree.fromstring(document)

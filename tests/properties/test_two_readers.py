"""Our strict readers beside independent ones: whatever ours accepts, theirs reads alike (T5, X-22, C-01 … C-18).

"Strict reader and an independent reader (email.parser, lxml) agree on sender and recipient or ours refuses."
"""

from __future__ import annotations

import email.parser
import os
import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from comity.bindings.xmpp import events, wire
from comity.cpim.message import CpimMessage, check_profile
from comity.errors import MalformedMessage, RemoteProtocolError
from comity.xml import CData, Element, StreamReader, XmlLimits
from tests.bindings.xmpp.pair import HEADER, ServerSide
from tests.catalogue.fleet import Tree, tree
from tests.catalogue.mutations import bound_streams, cuts, in_pieces, negotiating_streams, objects

EXAMPLES = int(os.environ.get("COMITY_CATALOGUE_EXAMPLES", "1000"))


def our_tree(element: Element) -> Tree:
    """The same of ours."""
    children: list[Any] = []
    for child in element.children:
        if isinstance(child, Element):
            children.append(our_tree(child))
        elif children and isinstance(children[-1], str):
            children[-1] += str(child)
        elif child:
            children.append(str(child) if isinstance(child, CData) else child)
    return element.name, element.attributes, tuple(children)


def read(octets: bytes, sizes: list[int]) -> tuple[list[Element], str]:
    """Stanzas our reader gives before it refuses, and why it refuses ("" not)."""
    reader = StreamReader(XmlLimits())
    found: list[Element] = []
    for piece in in_pieces(octets, sizes):
        reader.receive_data(piece)
    try:
        while (unit := reader.next_unit()) is not None:
            if isinstance(unit, Element):
                found.append(unit)
    except RemoteProtocolError as error:
        return found, error.hint
    return found, ""


def read_by_lxml(octets: bytes) -> Iterator[Tree]:
    """Stanzas libxml2 gives."""
    parser = etree.XMLPullParser(("start", "end"), resolve_entities=False, no_network=True, strip_cdata=True)
    depth = 0
    for piece in in_pieces(octets, [64]):
        try:
            parser.feed(piece)
        except etree.XMLSyntaxError:
            piece = b""
        for event, element in parser.read_events():
            depth += 1 if event == "start" else -1
            if event == "end" and depth == 1:
                yield tree(element)
        if not piece:
            return


@settings(max_examples=EXAMPLES)
@given(octets=bound_streams | negotiating_streams, sizes=cuts())
def test_stanzas_we_accept_are_read_alike_by_libxml2(octets: bytes, sizes: list[int]) -> None:
    """And what we write of them is read alike by libxml2 and by expat (X-22)."""
    ours, _ = read(HEADER + octets, sizes)
    theirs = read_by_lxml(HEADER + octets)
    for stanza in ours:
        expected = our_tree(stanza)
        assert next(theirs) == expected
        written = HEADER + wire.encode(stanza) + wire.STREAM_CLOSE
        assert tree(etree.fromstring(written)[0]) == expected
        assert tree(ElementTree.fromstring(written)[0]) == expected


STAGES = ("fresh", "tls", "authenticated", "bound")


def side_at(stage: str) -> ServerSide:
    """A session at a stage, ready for stanzas or negotiation."""
    side = ServerSide(tls=stage != "fresh")
    if stage == "bound":
        side.sign_in()
        return side
    side.feed(HEADER)
    if stage == "authenticated":
        side.feed(
            b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGFsaWNlAHBlbmNpbCDimIM=</auth>", HEADER
        )
    return side


@settings(max_examples=EXAMPLES)
@given(octets=bound_streams | negotiating_streams, sizes=cuts(), stage=st.sampled_from(STAGES))
def test_a_changed_stream_gets_a_defined_answer_and_no_other_sender(
    octets: bytes, sizes: list[int], stage: str
) -> None:
    """I10; whatever comes, the answer is well-formed, and a stream that ends says why."""
    side = side_at(stage)
    pieces = in_pieces(octets, sizes)
    heard = side.feed(*pieces)
    for event in side.events:
        if isinstance(event, events.StanzaReceived):
            assert side.session.account is not None
            assert event.stanza.get("from") == str(side.session.jid)
            assert event.stanza.get("from").startswith("alice@a.test/")
    answers = heard.split(b"<?xml version='1.0'?>")
    assert len(answers) <= 1 + octets.count(b"<") + (stage != "bound")
    for part in answers:
        whole = part if part.startswith(b"<stream:stream") else HEADER + part
        whole = whole if whole.endswith(wire.STREAM_CLOSE) else whole + wire.STREAM_CLOSE
        for element in etree.fromstring(whole):
            if element.tag == f"{{{wire.STREAMS}}}error":
                assert side.session.is_ended
                assert etree.QName(element[0]).localname in wire.STREAM_CONDITIONS
            for error in element.iterfind(wire.ERROR):
                assert etree.QName(error[0]).localname in wire.CONDITION_TYPES
    assert side.session.is_ended or not heard.endswith(wire.STREAM_CLOSE)


URI = re.compile(r"<([^>]*)>")


def uris(found: list[tuple[str, str]], name: str) -> list[str]:
    """What a reader that knows no case or namespaces takes from the headers called ``name``."""
    return [uri[1] if (uri := URI.search(value)) else value for key, value in found if key.lower() == name]


@settings(max_examples=2 * EXAMPLES)
@given(octets=objects)
def test_an_object_we_accept_has_the_same_sender_and_recipients_for_email_parser(octets: bytes) -> None:
    """T5: "from:" beside "From:", another default namespace, folding, odd line ends: alike or refused."""
    try:
        view = CpimMessage.parse(octets)
        check_profile(view)
    except MalformedMessage:
        return
    assert view.from_ is not None
    theirs = [(key, str(value)) for key, value in email.parser.BytesHeaderParser().parsebytes(octets).items()]
    plain = [header for header in view.headers if b"." not in header.raw.partition(b":")[0]]
    assert set(uris(theirs, "from")) <= {view.from_.uri}
    assert len(uris(theirs, "from")) == sum(header.name == "From" for header in plain)
    assert set(uris(theirs, "to")) <= {address.uri for address in view.to}

"""Entities in stanzas: XMPP-18 to XMPP-21, XMPP-23, SEED-21."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.e2e import E2E_ELEMENT, OCTETS_ELEMENT, unwrap_entity, unwrap_octets, wrap_entity, wrap_octets
from comity.errors import RemoteProtocolError
from comity.xml import CData, Element, parse_document, serialize

ENTITY = (
    b"Content-Type: message/cpim\r\n\r\nFrom: <im:a@a.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhi ]]> there\r\n"
)


def over_the_wire(element: Element) -> Element:
    return parse_document(serialize(element))


def test_entity_stands_in_a_cdata_section_between_line_breaks() -> None:
    """XMPP-18, RFC 3923 section 3.2."""
    element = wrap_entity(b"Content-Type: text/plain\r\n\r\nhi")
    assert element is not None
    raw = serialize(element)
    assert raw.startswith(b"<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nContent-Type")
    assert raw.endswith(b"hi\n]]></e2e>")


@pytest.mark.parametrize(
    "entity", [ENTITY, ENTITY + b"\r\n\r\n", b"\r\nbare octets", "Content-Type: x/y\r\n\r\nž☃😀".encode()]
)
def test_octets_come_back_equal(entity: bytes) -> None:
    element = wrap_entity(entity)
    assert element is not None
    assert unwrap_entity(over_the_wire(element)) == entity


@pytest.mark.parametrize(
    "entity",
    [
        b"A: b\r\n\r\nlone\nLF",
        b"A: b\r\n\r\nlone\rCR",
        b"A: b\r\n\r\n\x00",
        b"A: b\r\n\r\n\xff",
        b"A: b\r\n\r\n\x0b",
        b"A: b\r\n\r\n\xef\xbf\xbe",
    ],
)
def test_what_xml_would_change_is_not_wrapped(entity: bytes) -> None:
    """XMPP-19: refused, never mangled; the octets element takes it."""
    assert wrap_entity(entity) is None
    assert unwrap_octets(over_the_wire(wrap_octets(entity))) == entity


@given(
    st.binary(max_size=200) | st.text(max_size=80).map(lambda t: b"A: b\r\n\r\n" + t.encode("utf-8", "surrogatepass"))
)
def test_any_entity_is_refused_or_comes_back_equal(entity: bytes) -> None:
    element = wrap_entity(entity)
    if element is not None:
        assert unwrap_entity(over_the_wire(element)) == entity
    if entity:
        assert unwrap_octets(over_the_wire(wrap_octets(entity))) == entity


def test_text_without_cdata_means_the_same() -> None:
    """XMPP-20: a server may rewrite CDATA to escapes."""
    element = wrap_entity(ENTITY)
    assert element is not None
    rewritten = Element(E2E_ELEMENT, {}, [str(element.text)])
    assert not isinstance(rewritten.children[0], CData)
    assert unwrap_entity(over_the_wire(rewritten)) == ENTITY


def test_indentation_around_the_section_is_not_content() -> None:
    """The layout of RFC 3923 section 3.2, example 3."""
    raw = b"<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'>\n<![CDATA[\nA: b\n\nx\n]]>\n  </e2e>"
    assert unwrap_entity(parse_document(raw)) == b"A: b\r\n\r\nx"


def test_bare_base64_is_an_encrypted_entity() -> None:
    """XMPP-21, RFC 3923 section 3.3."""
    raw = b"<e2e xmlns='urn:ietf:params:xml:ns:xmpp-e2e'><![CDATA[\nU2FsdGVk\nX19o\n]]></e2e>"
    entity = unwrap_entity(parse_document(raw))
    assert entity.startswith(b"Content-Type: application/pkcs7-mime\r\n")
    assert entity.endswith(b"\r\n\r\nU2FsdGVk\r\nX19o")


@pytest.mark.parametrize(
    "element",
    [
        Element(E2E_ELEMENT),
        Element(E2E_ELEMENT, {}, ["  \n "]),
        Element(E2E_ELEMENT, {}, [Element("x")]),
        Element(OCTETS_ELEMENT),
        Element(OCTETS_ELEMENT, {}, ["*"]),
        Element(OCTETS_ELEMENT, {}, ["ü"]),
        Element(OCTETS_ELEMENT, {}, ["QQ==", Element("x")]),
    ],
)
def test_nonsense_is_a_protocol_error(element: Element) -> None:
    with pytest.raises(RemoteProtocolError):
        (unwrap_entity if element.name == E2E_ELEMENT else unwrap_octets)(element)

"""Places in XML documents: ``comity.xml.located``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import RemoteProtocolError
from comity.xml import LocatedElement, XmlLimits, locate, parse_document

DOCUMENT = (
    b"\xef\xbb\xbf<?xml version='1.0'?>\n<a xmlns='u:d' xmlns:p=\"u:p\"><!-- <c/> --><b x='1>2' p:y = \"a'&lt;b\" />"
    b"<p:b><![CDATA[<z/>]]></p:b ><e></e><b xmlns=''>\xc3\xa9</b></a>\n<!-- end -->"
)


def everything(one: LocatedElement) -> list[LocatedElement]:
    return [one, *(below for child in one.children for below in everything(child))]


def test_every_element_is_where_it_is_said_to_be() -> None:
    pieces = [DOCUMENT[one.start : one.end] for one in everything(locate(DOCUMENT))]
    assert pieces == [
        DOCUMENT[DOCUMENT.index(b"<a") : DOCUMENT.index(b"\n<!-- end")],
        b"<b x='1>2' p:y = \"a'&lt;b\" />",
        b"<p:b><![CDATA[<z/>]]></p:b >",
        b"<e></e>",
        b"<b xmlns=''>\xc3\xa9</b>",
    ]


def test_content_stands_between_the_tags() -> None:
    contents = [DOCUMENT[one.content : one.content_end] for one in everything(locate(DOCUMENT))[1:]]
    assert contents == [b"", b"<![CDATA[<z/>]]>", b"", b"\xc3\xa9"]
    assert [one.is_empty_tag for one in everything(locate(DOCUMENT))] == [False, True, False, False, False]


def test_attributes_are_located_and_declarations_are_none() -> None:
    root = locate(DOCUMENT)
    assert root.attributes == ()
    found = [
        (one.name, one.value, DOCUMENT[one.start : one.value_end + 1], DOCUMENT[one.value_start : one.value_end])
        for one in root.children[0].attributes
    ]
    assert found == [("x", "1>2", b"x='1>2'", b"1>2"), ("{u:p}y", "a'<b", b'p:y = "a\'&lt;b"', b"a'&lt;b")]


def test_namespaces_are_those_in_scope() -> None:
    root = locate(DOCUMENT)
    assert root.namespaces == {"": "u:d", "p": "u:p"}
    assert root.children[3].namespaces == {"p": "u:p"}
    assert root.children[3].name == "b"


@pytest.mark.parametrize("data", [b"<!DOCTYPE a><a/>", b"<a/><a/>", b"<?pi x?><a/>", b"<a>&x;</a>", b"", b"<p:a/>"])
def test_what_is_no_document_for_the_one_door_is_none_here(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        locate(data)


def test_limits_hold() -> None:
    with pytest.raises(RemoteProtocolError, match="too many elements"):
        locate(b"<a>" + b"<b/>" * 5 + b"</a>", XmlLimits(elements=5))


NAMES = st.sampled_from(["a", "b", "p:c", "\u00e9l"])
TEXTS = st.sampled_from(["", "x", "\n ", "&amp;", "<!-- <b> -->", "<![CDATA[</a>]]>", "\u00e9\U0001f600", "'\"", "/>"])
ATTRIBUTES = st.lists(
    st.sampled_from([" k='1>'", ' p:l = "\'/>"', "\n m='&lt;'", " xml:lang='de'", " xmlns='u:e'", " xmlns:q='u:q'"]),
    unique=True,
    max_size=3,
).map("".join)
TREES: st.SearchStrategy[str] = st.recursive(
    st.builds("<{0}{1}{2}/>".format, NAMES, ATTRIBUTES, st.sampled_from(["", " ", "\n"])),
    lambda inner: st.builds(
        lambda name, attributes, parts: f"<{name}{attributes}>{''.join(parts)}</{name} >",
        NAMES,
        ATTRIBUTES,
        st.lists(inner | TEXTS, max_size=4),
    ),
    max_leaves=12,
)


@given(TREES, st.sampled_from([b"", b"\xef\xbb\xbf", b"<?xml version='1.0' encoding='UTF-8'?>\n"]))
def test_each_piece_read_alone_is_the_element_it_was(tree: str, head: bytes) -> None:
    data = head + f"<r xmlns:p='u:p'>{tree}</r>".encode()
    for one in everything(locate(data)):
        scope = "".join(f" xmlns{':' + prefix if prefix else ''}='{uri}'" for prefix, uri in one.namespaces.items())
        alone = parse_document(f"<w{scope}>".encode() + data[one.start : one.end] + b"</w>")
        assert next(alone.elements()) == one.element
        for attribute in one.attributes:
            assert one.element.attributes[attribute.name] == attribute.value
            piece = data[attribute.start : attribute.value_end + 1]
            assert piece[-1:] in (b"'", b'"')
            assert data[attribute.value_start - 1 : attribute.value_start] == piece[-1:]
        assert len(one.attributes) == len(one.element.attributes)

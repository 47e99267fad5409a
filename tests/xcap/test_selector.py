"""Parts of documents: ``comity.xcap.selector``; RFC 4825 sections 6.3 and 8.2 to 8.4."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.xcap.errors import Conflict, Refused
from comity.xcap.selector import (
    ATTRIBUTE_TYPE,
    ELEMENT_TYPE,
    NAMESPACES_TYPE,
    Document,
    delete_part,
    put_attribute,
    put_element,
    read_part,
)
from comity.xcap.uri import NodeSelector, parse_target, read_node_selector
from comity.xml import XmlLimits

LIMITS = XmlLimits()
HOME = "/test/users/sip:joe@example.com/index"

#: RFC 4825 section 8.2.3.
ROOT = b"""<?xml version="1.0"?>
<root>
 <el1 att="first"/>
 <el1 att="second"/>
 <!-- comment -->
 <el2 att="first"/>
</root>
"""

#: RFC 4825 section 6.4.
NAMESPACED = b"""<?xml version="1.0"?>
<foo xmlns="urn:test:default-namespace">
  <ns1:bar xmlns:ns1="urn:test:namespace1-uri"
           xmlns="urn:test:namespace1-uri">
    <baz/>
    <ns2:baz xmlns:ns2="urn:test:namespace2-uri"/>
  </ns1:bar>
  <ns3:hi xmlns:ns3="urn:test:namespace3-uri">
    <there/>
  </ns3:hi>
</foo>
"""


def selector(node: str, query: str = "", default: str = "") -> NodeSelector:
    return read_node_selector(parse_target(f"{HOME}/~~/{quote(node)}{query and '?' + query}"), default)


def document(octets: bytes) -> Document:
    return Document.read(octets, LIMITS)


def put(octets: bytes, node: str, body: bytes, query: str = "", default: str = "") -> bytes:
    return put_element(document(octets), selector(node, query, default), body, HOME, LIMITS).document.octets


def put_value(octets: bytes, node: str, body: bytes) -> bytes:
    return put_attribute(document(octets), selector(node), body, HOME, LIMITS).document.octets


def delete(octets: bytes, node: str) -> bytes | None:
    change = delete_part(document(octets), selector(node), LIMITS)
    return change.document.octets if change else None


def get(octets: bytes, node: str, query: str = "", default: str = "") -> tuple[str, bytes] | None:
    return read_part(document(octets), selector(node, query, default))


def condition(act: object, *arguments: object) -> str:
    assert callable(act)
    with pytest.raises(Conflict) as caught:
        act(*arguments)
    return caught.value.condition


class TestReading:
    def test_an_element_by_its_attribute(self) -> None:
        """RFC 4825 section 6.3, figure 3."""
        octets = b"""<watcherinfo xmlns="urn:ietf:params:xml:ns:watcherinfo" version="0" state="full">
  <watcher-list resource="sip:professor@example.net" package="presence">
    <watcher status="active"
             id="8ajksjda7s">sip:userA@example.net</watcher>
    <watcher status="pending" id="hh8juja87s997-ass7">sip:userB@example.org</watcher>
  </watcher-list>
</watcherinfo>"""
        found = get(
            octets,
            'watcherinfo/watcher-list/watcher[@id="8ajksjda7s"]',
            default="urn:ietf:params:xml:ns:watcherinfo",
        )
        expected = b'<watcher status="active"\n             id="8ajksjda7s">sip:userA@example.net</watcher>'
        assert found == (ELEMENT_TYPE, expected)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("xmlns(a=urn:test:namespace1-uri)xmlns(b=urn:test:namespace1-uri)", b"<baz/>"),
            (
                "xmlns(a=urn:test:namespace1-uri)xmlns(b=urn:test:namespace2-uri)",
                b'<ns2:baz xmlns:ns2="urn:test:namespace2-uri"/>',
            ),
        ],
    )
    def test_the_namespaces_of_section_6_4_decide(self, query: str, expected: bytes) -> None:
        assert get(NAMESPACED, "foo/a:bar/b:baz", query, "urn:test:default-namespace") == (ELEMENT_TYPE, expected)
        query += "xmlns(d=urn:test:default-namespace)"
        assert get(NAMESPACED, "d:foo/a:bar/b:baz", query, "urn:other") == (ELEMENT_TYPE, expected)

    def test_the_namespaces_in_scope(self) -> None:
        """RFC 4825 section 10, whose example has a misprint in the second name."""
        found = get(
            NAMESPACED,
            "df:foo/df2:bar/df2:baz/namespace::*",
            "xmlns(df=urn:test:default-namespace)xmlns(df2=urn:test:namespace1-uri)",
        )
        expected = b'<baz xmlns="urn:test:namespace1-uri" xmlns:ns1="urn:test:namespace1-uri"/>'
        assert found == (NAMESPACES_TYPE, expected)

    def test_an_attribute_comes_with_its_quotation_marks(self) -> None:
        """RFC 4825 section 7.9: "formatted according to the grammar of AttValue", as in figure 32."""
        assert get(ROOT, "root/el1[2]/@att") == (ATTRIBUTE_TYPE, b'"second"')

    @pytest.mark.parametrize(
        ("node", "is_there"),
        [
            *(("root", True), ("*", True), ("*[1]", True), ("root[2]", False), ("other", False)),
            *(("root/el1", False), ("root/el1[1]", True), ("root/el1[3]", False), ("root/el1[0]", False)),
            *(("root/*", False), ("root/*[3]", True), ("root/*[@att='first']", False), ("root/el2/@att", True)),
            *(("root/el1[2][@att='first']", False), ("root/el1[2][@att='second']", True), ("root/el2/@other", False)),
            *(("root/el2/el3", False), ("root/el1[@att='third']", False), ("root/el2/namespace::*", True)),
        ],
    )
    def test_only_exactly_one_is_found(self, node: str, is_there: bool) -> None:
        assert (get(ROOT, node) is not None) is is_there

    def test_a_declaration_is_no_attribute(self) -> None:
        """RFC 4825 section 6.3: "a namespace node is NOT an attribute"."""
        assert get(b"<a xmlns:b='u:b' c='d'/>", "a/@xmlns") is None
        assert get(b"<r><a xmlns='u:b'/></r>", "r/*[@xmlns='u:b']") is None


class TestCreating:
    """The examples of RFC 4825 section 8.2.3."""

    @pytest.mark.parametrize("node", ['root/el1[@att="third"]', 'root/el1[3][@att="third"]', 'root/*[3][@att="third"]'])
    def test_a_third_one_goes_behind_the_second(self, node: str) -> None:
        added = put(ROOT, node, b'<el1 att="third"/>')
        assert added == ROOT.replace(b'"second"/>', b'"second"/><el1 att="third"/>')

    def test_the_first_of_its_name_goes_last_of_all(self) -> None:
        for node in ("root/el3", "root/el3[1]", "root/el3[@att='first']", "root/*[@att='only']"):
            body = b'<el3 att="only"/>' if "only" in node else b'<el3 att="first"/>'
            assert put(ROOT, node, body) == ROOT.replace(b"\n</root>", b"\n" + body + b"</root>")

    @pytest.mark.parametrize("node", ['root/el2[@att="2"]', 'root/el2[2][@att="2"]'])
    def test_a_second_one_goes_behind_the_first(self, node: str) -> None:
        added = put(ROOT, node, b'<el2 att="2"/>')
        assert added == ROOT.replace(b'<el2 att="first"/>', b'<el2 att="first"/><el2 att="2"/>')

    def test_a_position_among_all_elements(self) -> None:
        added = put(ROOT, 'root/*[2][@att="2"]', b'<el2 att="2"/>')
        assert added == ROOT.replace(b'<el1 att="first"/>', b'<el1 att="first"/><el2 att="2"/>')

    def test_the_first_position_among_those_of_its_name(self) -> None:
        added = put(ROOT, 'root/el2[1][@att="2"]', b'<el2 att="2"/>')
        assert added == ROOT.replace(b'<el2 att="first"/>', b'<el2 att="2"/><el2 att="first"/>')

    def test_the_first_position_of_all(self) -> None:
        added = put(ROOT, 'root/*[1][@att="0"]', b'<el0 att="0"/>')
        assert added == ROOT.replace(b'<el1 att="first"/>', b'<el0 att="0"/><el1 att="first"/>')

    def test_an_empty_element_is_opened(self) -> None:
        assert put(b"<r a='1' />", "r/x", b"<x/>") == b"<r a='1' ><x/></r>"
        assert put(b"<p:r xmlns:p='u'/>", "p:r/x", b"<x/>", "xmlns(p=u)") == b"<p:r xmlns:p='u'><x/></p:r>"

    def test_a_prefix_of_the_parent_may_be_used(self) -> None:
        assert put(b"<r xmlns:p='u:p'/>", "r/p:x", b"<p:x/>", "xmlns(p=u:p)") == b"<r xmlns:p='u:p'><p:x/></r>"
        assert condition(put, b"<r/>", "r/x", b"<p:x/>") == "not-xml-frag"

    @pytest.mark.parametrize(
        ("node", "body"),
        [
            ('root/el1[@att="third"]', b'<el1 att="fourth"/>'),  # section 7.4
            ("root/el1", b"<el1/>"),
            ("root/el9[2]", b"<el9/>"),
            ("root/*[9]", b"<x/>"),
            ("root/x[0]", b"<x/>"),
            ("root/x", b"<y/>"),
            ("root/el2", b"<el3/>"),
            ("other", b"<other/>"),
            ("root", b"<other/>"),
        ],
    )
    def test_what_its_own_uri_would_not_find_is_not_put(self, node: str, body: bytes) -> None:
        assert condition(put, ROOT, node, body) == "cannot-insert"

    @pytest.mark.parametrize(
        "body",
        [
            *(
                b"",
                b"text",
                b"<x/><y/>",
                b"<x>",
                b"</x><x>",
                b"<x/>text",
                b"<!-- c --><x/>",
                b"<x/></x><x>",
                b"<?xml version='1.0'?><x/>",
            ),
            *(
                b"<!DOCTYPE x><x/>",
                b"<x>&e;</x>",
                b"<x/></root><root>",
                b"<x/><!--",
                b"<x a='1' a='2'/>",
                b"<x",
                b"]]>",
            ),
        ],
    )
    def test_a_body_that_is_not_one_element_is_refused(self, body: bytes) -> None:
        assert condition(put, ROOT, "root/x", body) == "not-xml-frag"

    def test_a_body_in_another_encoding_is_refused(self) -> None:
        assert condition(put, ROOT, "root/x", b"<x>\xe9</x>") == "not-utf-8"

    def test_white_space_around_the_body_is_not_taken(self) -> None:
        assert put(b"<r></r>", "r/x", b"\n <x/>\r\n") == b"<r><x/></r>"

    def test_without_a_parent_there_is_a_hint(self) -> None:
        with pytest.raises(Conflict) as caught:
            put(ROOT, "root/el2/a b"[:-2] + "/x/y", b"<y/>")
        assert caught.value.condition == "no-parent"
        assert caught.value.ancestor == f"{HOME}/~~/root/el2"
        assert b"<ancestor>" in caught.value.document

    def test_a_document_that_would_grow_too_long_is_refused(self) -> None:
        with pytest.raises(Refused) as caught:
            put_element(document(ROOT), selector("root/x"), b"<x>" + b"y" * 500 + b"</x>", HOME, XmlLimits(octets=600))
        assert caught.value.status == 413


class TestReplacing:
    def test_an_element_takes_the_place_of_another(self) -> None:
        replaced = put(ROOT, "root/el1[2]", b"<el1>\n<new/></el1>")
        assert replaced == ROOT.replace(b'<el1 att="second"/>', b"<el1>\n<new/></el1>")

    def test_the_root_may_be_replaced(self) -> None:
        assert put(ROOT, "root", b"<root/>") == b'<?xml version="1.0"?>\n<root/>\n'

    def test_an_element_that_would_not_be_found_again_is_refused(self) -> None:
        assert condition(put, ROOT, 'root/el1[@att="first"]', b'<el1 att="x"/>') == "cannot-insert"


class TestAttributes:
    def test_a_value_is_replaced_between_its_marks(self) -> None:
        assert put_value(ROOT, "root/el2/@att", b'"new"') == ROOT.replace(b'<el2 att="first"/>', b'<el2 att="new"/>')

    def test_a_new_one_goes_last(self) -> None:
        assert put_value(b"<r a='1'/>", "r/@b", b"'2'") == b"<r a='1' b='2'/>"
        assert put_value(b"<r a='1' >x</r>", "r/@xml:lang", b"de") == b"<r a='1' xml:lang=\"de\" >x</r>"

    def test_marks_may_be_left_out(self) -> None:
        """COMPAT xcaplib."""
        assert put_value(b"<r/>", "r/@b", b"x'y") == b'<r b="x\'y"/>'
        assert put_value(b"<r/>", "r/@b", b'x"y') == b"<r b='x\"y'/>"
        assert put_value(b"<r/>", "r/@b", b"x'\"y") == b'<r b="x\'&quot;y"/>'

    @pytest.mark.parametrize("body", [b"a<b", b'"a"b"', b"a&b", b'"a&nbsp;"', b"a\0", b"&#0;"])
    def test_what_is_no_value_is_refused(self, body: bytes) -> None:
        assert condition(put_value, b"<r/>", "r/@b", body) == "not-xml-att-value"

    def test_a_value_by_which_it_was_found_cannot_change(self) -> None:
        """RFC 4825 section 7.7."""
        assert condition(put_value, ROOT, "root/el2[@att='first']/@att", b'"x"') == "cannot-insert"

    def test_without_its_element_there_is_no_attribute(self) -> None:
        assert condition(put_value, ROOT, "root/el9/@a", b'"x"') == "no-parent"

    def test_an_attribute_is_taken_away(self) -> None:
        assert delete(b"<r a='1'  b='2' c='3'/>", "r/@b") == b"<r a='1' c='3'/>"
        assert condition(delete, ROOT, "root") == "schema-validation-error"


class TestDeleting:
    def test_white_space_around_stays(self) -> None:
        """RFC 4825 section 8.4."""
        assert delete(ROOT, "root/el1[@att='first']") == ROOT.replace(b'<el1 att="first"/>', b"")

    def test_what_is_not_there_is_not_deleted(self) -> None:
        assert delete(ROOT, "root/el9") is delete(ROOT, "root/el1") is delete(ROOT, "root/el2/@x") is None

    def test_another_one_must_not_take_its_place(self) -> None:
        """RFC 4825 section 8.4."""
        assert condition(delete, ROOT, "root/el1[1]") == "cannot-delete"
        assert delete(ROOT, "root/el1[2]") is not None


# --- properties -------------------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    ["<a/>", "<a k='1'>t</a>", "<b k='1'/>", "<b><a k='2'/></b>", "text", "<!-- c -->", "\n  ", "<c k='2'/>"]
)
DOCUMENTS = st.lists(PIECES, max_size=6).map(lambda parts: f"<r>{''.join(parts)}</r>".encode())
STEPS = st.builds(
    lambda name, position, attribute: name + position + attribute,
    st.sampled_from(["a", "b", "c", "d", "*"]),
    st.sampled_from(["", "", "[1]", "[2]", "[3]"]),
    st.sampled_from(["", "", "[@k='1']", "[@k='2']", "[@k='3']"]),
)
BODIES = st.sampled_from([b"<a/>", b"<a k='1'/>", b"<b k='2'><a/></b>", b"<c k='3'>x</c>", b"<d/>", b"<d k='3' />"])


@given(DOCUMENTS, STEPS, BODIES)
def test_what_was_put_is_what_is_got_and_the_rest_keeps_its_octets(octets: bytes, step: str, body: bytes) -> None:
    """RFC 4825 section 8.2: GET(PUT(x)) = x."""
    before = get(octets, f"r/{step}")
    try:
        after = put(octets, f"r/{step}", body)
    except Conflict as conflict:
        after, refused = b"", conflict.condition
    if not after:
        assert refused == "cannot-insert"
        return
    assert get(after, f"r/{step}") == (ELEMENT_TYPE, body)
    assert put(after, f"r/{step}", body) == after
    old = before[1] if before else b""
    start = next(i for i in range(len(octets) + 1) if octets[:i] + body + octets[i + len(old) :] == after)
    assert octets[start : start + len(old)] == old


@given(DOCUMENTS, STEPS)
def test_what_was_deleted_is_gone_and_the_rest_keeps_its_octets(octets: bytes, step: str) -> None:
    before = get(octets, f"r/{step}")
    refused = ""
    try:
        after = delete(octets, f"r/{step}")
    except Conflict as conflict:
        after, refused = None, conflict.condition
    assert refused in ("", "cannot-delete")
    assert refused or (after is None) == (before is None)
    if after is None or before is None:
        return  # nothing was found, or nothing may be taken away
    assert get(after, f"r/{step}") is None
    assert any(octets[:i] + octets[i + len(before[1]) :] == after for i in range(len(octets)))

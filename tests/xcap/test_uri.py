"""XCAP URIs: ``comity.xcap.uri``; RFC 4825 section 6."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.xcap.errors import Refused
from comity.xcap.uri import LONGEST, NodeSelector, Step, parse_target, read_node_selector

HOME = "/resource-lists/users/sip:joe@example.com/index"


def selector(node: str, query: str = "", default: str = "urn:test:default-namespace") -> NodeSelector:
    return read_node_selector(parse_target(f"{HOME}/~~/{node}{query and '?' + query}"), default)


def status(raw: str) -> int:
    with pytest.raises(Refused) as caught:
        target = parse_target(raw)
        read_node_selector(target, "u:d")
    return caught.value.status


class TestDocumentSelector:
    """RFC 4825 section 6.2."""

    def test_a_document_has_a_usage_a_user_and_a_name(self) -> None:
        target = parse_target(HOME)
        assert (target.auid, target.user, target.path) == ("resource-lists", "sip:joe@example.com", ("index",))
        assert (target.node, target.document_uri, target.name) == (None, HOME, "resource-lists/index")

    def test_the_global_tree_has_no_user(self) -> None:
        assert parse_target("/xcap-caps/global/index").user is None

    def test_a_user_may_be_written_with_percent_signs(self) -> None:
        assert parse_target("/pres-rules/users/sip%3Ajoe%40example.com/index").user == "sip:joe@example.com"
        assert parse_target("/pres-rules/users/sip:a%2fb%3F@example.com/index").user == "sip:a/b?@example.com"

    @pytest.mark.parametrize(
        "raw",
        [
            *("/", "/resource-lists", "/resource-lists/users", "/resource-lists/users/sip:joe@example.com"),
            *("/resource-lists/other/sip:joe@example.com/index", "/resource-lists/users//index", f"{HOME}/"),
            *("/resource-lists/users/x/..", "/resource-lists/users/x/%2e%2e/index", "/resource-lists/users/x/."),
            *("/resource-lists/users/x/a%2Fb", "/resource-lists/users/x/..%2f..%2fetc", "//users/x/index"),
            *("/resource-lists/users/x/a%5c..", "/resource-lists/users/x/in%00dex", "/../users/x/index"),
        ],
    )
    def test_what_can_name_nothing_is_not_found(self, raw: str) -> None:
        """``..``, slashes and NUL in disguise included: nothing is normalized."""
        assert status(raw) == 404

    @pytest.mark.parametrize(
        "raw", ["", "x", "/a/users/%/index", "/a/users/%zz/i", "/a/users/x/%ff", "/a/users/x/\u00e9"]
    )
    def test_what_is_no_uri_is_a_bad_request(self, raw: str) -> None:
        assert status(raw) == 400

    def test_a_uri_without_end_is_too_long(self) -> None:
        assert status(HOME + "/" * LONGEST) == 414


class TestNodeSelector:
    """RFC 4825 sections 6.3 and 6.4."""

    def test_the_separator_may_be_percent_encoded(self) -> None:
        for separator in ("~~", "%7E%7E", "~%7e"):
            assert parse_target(f"{HOME}/{separator}/resource-lists/~~").node == "resource-lists/~~"

    def test_a_name_without_prefix_is_of_the_default_namespace(self) -> None:
        assert selector("foo").steps == (Step("{urn:test:default-namespace}foo", None, None, "foo"),)
        assert selector("foo", default="").steps[0].name == "foo"

    def test_prefixes_are_bound_by_the_query(self) -> None:
        """The URI of RFC 4825 section 6.4."""
        one = selector("foo/a:bar/b:baz", "xmlns(a=urn:test:namespace1-uri)%20xmlns(b=urn:test:namespace2-uri)")
        assert [step.name for step in one.steps] == [
            *("{urn:test:default-namespace}foo", "{urn:test:namespace1-uri}bar", "{urn:test:namespace2-uri}baz"),
        ]

    def test_pointers_of_other_schemes_are_ignored(self) -> None:
        assert selector("x:a", "xpath(//a[contains(.,'^)')])xmlns(x=u:x)").steps[0].name == "{u:x}a"
        assert selector("x:a", "xmlns(x=u:^(x^))").steps[0].name == "{u:(x)}a"

    @pytest.mark.parametrize("query", ["xmlns(a=u:a", "foo", "xmlns()", "xmlns(=u)", "%", "()", "xmlns(a=u))", "&x=1"])
    def test_a_query_that_is_no_pointer_is_a_bad_request(self, query: str) -> None:
        assert status(f"{HOME}/~~/a?{query}") == 400

    def test_predicates_are_a_position_and_then_an_attribute(self) -> None:
        one = selector("resource-lists/list%5b2%5d%5b@name=%22l1%22%5d/*%5B@x='a%20b/c&amp;%22'%5D", default="u:d")
        assert one.steps[1:] == (
            Step("{u:d}list", 2, ("name", "l1"), 'list[2][@name="l1"]'),
            Step(None, None, ("x", 'a b/c&"'), "*[@x='a b/c&amp;\"']"),
        )

    def test_an_attribute_without_prefix_is_in_no_namespace(self) -> None:
        assert selector("a/@b").attribute == "b"
        assert selector("a/@xml:lang").attribute == "{http://www.w3.org/XML/1998/namespace}lang"
        assert selector("a/@q:b", "xmlns(q=u:q)").attribute == "{u:q}b"

    def test_namespaces_can_be_asked_for(self) -> None:
        assert selector("a/b/namespace::*").is_namespaces

    def test_characters_beyond_ascii_are_utf8(self) -> None:
        assert selector("%E3%82%A2%5b@n=%22%C3%80%22%5d", default="").steps[0] == Step(
            "ア", None, ("n", "À"), 'ア[@n="À"]'
        )

    @pytest.mark.parametrize(
        "node",
        [
            *(
                "",
                "/",
                "a//b",
                "a/",
                "@b",
                "namespace::*",
                "a/@b/c",
                "a%5b",
                "a%5b1",
                "a%5b-1%5d",
                "a%5b@b%5d",
                "a%5b1%5d%5b2%5d",
            ),
            *(
                "a%5b@b=%22c%5d",
                "a%5b@b=%22c%22%5d%5b1%5d",
                "a%5b@b=c%5d",
                "..",
                ".",
                "a/..",
                "count(a)",
                "a%5blast()%5d",
                "a|b",
            ),
            *(
                "//a",
                "a%5b@b=%22%3c%22%5d",
                "1a",
                "a:b:c",
                "a%5b99999999999999999999%5d",
                "id(%22x%22)",
                "/a",
                "a/@",
                "a/@*",
            ),
        ],
    )
    def test_what_we_do_not_understand_is_not_found(self, node: str) -> None:
        """RFC 4825 section 8: "If the URI includes extension-selectors that the server doesn't understand, … 404"; N-24."""
        assert status(f"{HOME}/~~/{node}") == 404

    def test_a_prefix_nobody_bound_is_a_bad_request(self) -> None:
        assert status(f"{HOME}/~~/x:a") == status(f"{HOME}/~~/a/@x:b") == status(f"{HOME}/~~/a%5b@x:b='1'%5d") == 400

    def test_too_many_steps_are_not_understood(self) -> None:
        assert status(f"{HOME}/~~/" + "/".join("a" * 65)) == 404

    @given(st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")))
    def test_any_node_selector_is_read_or_refused(self, text: str) -> None:
        one: NodeSelector | None
        try:
            one = selector(quote(text))
        except Refused as refused:
            one, status = None, refused.status
        if one is None:
            assert status in (400, 404, 414)
        else:
            assert selector(one.written(len(one.steps))).steps == one.steps

"""What XCAP takes and gives: ``comity.xcap.application`` and ``errors``; RFC 4825 sections 5, 11 and 12, RFC 4826, 4827, 5025."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from comity.cpim.address import Address
from comity.xcap.application import USAGES, Usage, capabilities, owner_of
from comity.xcap.errors import Conflict, Refused
from comity.xcap.selector import Document

CONFORMANCE = Path(__file__).parent.parent / "conformance"
JOE = Address.parse("im:joe@example.com")
LISTS, SERVICES, RULES, PRESENCE = (
    USAGES[auid] for auid in ("resource-lists", "rls-services", "pres-rules", "pidf-manipulation")
)


def schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(CONFORMANCE / "schemas" / f"{name}.xsd"))


def check(usage: Usage, octets: bytes, owner: Address = JOE) -> str:
    """The condition of the conflict, "" if the document may be stored."""
    try:
        usage.validate(Document.read(octets, usage.limits), owner)
    except Conflict as conflict:
        schema("xcap-error").assertValid(etree.fromstring(conflict.document))
        return conflict.condition
    return ""


def lists(inside: str, attributes: str = "") -> bytes:
    return (
        f"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'{attributes}>{inside}</resource-lists>".encode()
    )


def services(inside: str) -> bytes:
    return (
        "<rls-services xmlns='urn:ietf:params:xml:ns:rls-services' "
        f"xmlns:rl='urn:ietf:params:xml:ns:resource-lists'>{inside}</rls-services>"
    ).encode()


@pytest.mark.parametrize(
    ("usage", "path", "owner"),
    [
        (LISTS, "rfc4826/3.3.xml", "im:bill@example.com"),
        (LISTS, "rfc4825/13-new.xml", "im:bill@example.com"),
        (LISTS, "rfc4825/13-fetched.xml", "im:bill@example.com"),
        (SERVICES, "rfc4826/4.3.xml", "im:joe@example.com"),
        (PRESENCE, "rfc4827/11.xml", "im:someone@example.com"),
        (RULES, "rfc5025/6.xml", "im:joe@example.com"),
        *((RULES, f"rfc4745/{name}.xml", "im:joe@example.com") for name in ("12", "7.1.2", "7.3")),
    ],
    ids=str,
)
def test_the_documents_printed_in_the_rfcs_may_be_stored(usage: Usage, path: str, owner: str) -> None:
    assert check(usage, (CONFORMANCE / path).read_bytes(), Address.parse(owner)) == ""


def test_the_capabilities_follow_their_schema() -> None:
    """RFC 4825 section 12."""
    root = etree.fromstring(capabilities())
    schema("xcap-caps").assertValid(root)
    auids = root.findall(".//{urn:ietf:params:xml:ns:xcap-caps}auid")
    assert {one.text for one in auids} == {"xcap-caps", *USAGES}


def test_the_conflict_report_of_the_rfc_follows_the_schema_ours_do() -> None:
    """RFC 4825 section 11.1."""
    schema("xcap-error").assertValid(etree.parse(CONFORMANCE / "rfc4825/11.xml"))


class TestResourceLists:
    """RFC 4826 sections 3.2 and 3.4.5."""

    @pytest.mark.parametrize(
        ("inside", "expected"),
        [
            ("<list name='a'/><list name='a'/>", "uniqueness-failure"),
            ("<list name='a'/><list name='A'/><list/><list/>", ""),
            ("<list><list name='a'/><list name='a'/></list>", "uniqueness-failure"),
            ("<list name='a'><list name='a'/></list>", ""),
            ("<list><entry uri='sip:a@b'/><entry uri='sip:a@b'/></list>", "uniqueness-failure"),
            ("<list><entry uri='sip:a@b'/><entry uri='sip:A@b'/><list><entry uri='sip:a@b'/></list></list>", ""),
            ("<list><entry-ref ref='a/b'/><entry-ref ref='a/b'/></list>", "uniqueness-failure"),
            ("<list><external anchor='http://a/b'/><external anchor='http://a/b'/></list>", "uniqueness-failure"),
            ("<list><entry-ref ref='/a'/></list>", "constraint-failure"),
            ("<list><entry-ref ref='http://a/b'/></list>", "constraint-failure"),
            ("<list><external anchor='sip:a@b'/></list>", "constraint-failure"),
            ("<list><external anchor='/a'/></list>", "constraint-failure"),
            ("<list><external anchor='http://a[1]b/'/></list>", "constraint-failure"),
            ("<list><entry-ref ref='//[1]/b'/></list>", "constraint-failure"),
            ("<list><entry/></list>", "schema-validation-error"),
            ("<list><bogus/></list>", "schema-validation-error"),
            ("<list><x:y xmlns:x='u:x'/><entry uri='a'/></list>", "schema-validation-error"),
            ("<list><entry uri='a'/><x:y xmlns:x='u:x'/></list>", ""),
            ("<list><entry uri='a'/><display-name/></list>", "schema-validation-error"),
            ("text<list/>", "schema-validation-error"),
            ("<entry uri='a'/>", "schema-validation-error"),
        ],
    )
    def test_what_a_document_may_hold(self, inside: str, expected: str) -> None:
        assert check(LISTS, lists(inside)) == expected

    def test_a_failure_of_uniqueness_says_where(self) -> None:
        with pytest.raises(Conflict) as caught:
            document = lists("<list/><list><entry uri='a'/><entry uri='b'/><entry uri='a'/></list>")
            LISTS.validate(Document.read(document, LISTS.limits), JOE)
        assert caught.value.fields == ("resource-lists/list%5B2%5D/entry%5B3%5D/@uri",)

    def test_another_root_is_refused(self) -> None:
        assert check(LISTS, b"<resource-lists/>") == "schema-validation-error"
        assert check(LISTS, services("")) == "schema-validation-error"


NAMES = st.sampled_from(["list", "entry", "entry-ref", "external", "display-name", "bogus", "x:y", "n"])
ATTRIBUTES = st.lists(
    st.sampled_from(
        [" name='a'", " uri='sip:a@b'", " ref='a/b'", " anchor='http://a/'", " x:z='1'", " xml:lang='de'", " bad='1'"]
    ),
    unique=True,
    max_size=2,
).map("".join)


def _element(name: str, attributes: str, inside: list[str]) -> str:
    scope = " xmlns=''" if name == "n" else ""
    return f"<{name}{scope}{attributes}>{''.join(inside)}</{name}>"


#: Mostly well, sometimes not.
GOOD = st.sampled_from(
    [
        *(
            "<entry uri='sip:a@b'/>",
            "<entry uri='sip:a@b'><display-name xml:lang='de'>A</display-name><x:y/></entry>",
            "<x:y/>",
        ),
        *(
            "<display-name>D</display-name>",
            "<list name='l'/>",
            "<entry-ref ref='a/b'/>",
            "<external anchor='http://a/'/>",
            " ",
        ),
    ]
)
TREES: st.SearchStrategy[str] = st.recursive(
    GOOD | st.sampled_from(["text"]),
    lambda inner: st.builds(_element, NAMES, ATTRIBUTES, st.lists(inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=400)
@given(st.lists(TREES, max_size=3), st.sampled_from(["", " name='x'", " x:a='b'", " xsi:schemaLocation='a b'"]))
def test_lists_follow_the_schema_exactly(inside: list[str], attributes: str) -> None:
    """RFC 4826 section 3.2, libxml2 being the judge."""
    scope = " xmlns:x='u:x' xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'"
    wrapped = "".join(part if part.startswith("<list") else f"<list>{part}</list>" for part in inside)
    octets = lists(wrapped, scope + attributes)
    is_valid = schema("resource-lists").validate(etree.fromstring(octets))
    condition = check(LISTS, octets)
    if condition == "schema-validation-error":
        # The schema lets ``anchor`` be left out, the text of section 3.1 does not.
        assert not is_valid or b"<external" in octets
    else:
        assert is_valid


class TestServices:
    """RFC 4826 sections 4.2 and 4.4.5."""

    OWN = "https://xcap.example.com/resource-lists/users/sip:joe@example.com/index/~~/resource-lists/list%5b1%5d"

    @pytest.mark.parametrize(
        ("inside", "expected"),
        [
            (f"<service uri='sip:a@b'><resource-list>{OWN}</resource-list></service>", ""),
            (f"<service uri='sip:a@b'><resource-list>{OWN}</resource-list><packages/></service>", ""),
            ("<service uri='sip:a@b'><list><rl:entry uri='sip:c@d'/></list></service>", ""),
            ("<service uri='sip:a@b'><list/></service>" * 2, "uniqueness-failure"),
            (
                "<service uri='sip:a@b'><list><rl:entry uri='a'/><rl:entry uri='a'/></list></service>",
                "uniqueness-failure",
            ),
            (
                f"<service uri='sip:a@b'><resource-list>{OWN.replace('joe', 'bob')}</resource-list></service>",
                "constraint-failure",
            ),
            (
                f"<service uri='sip:a@b'><resource-list>{OWN.replace('resource-lists/u', 'pres-rules/u')}</resource-list></service>",
                "constraint-failure",
            ),
            ("<service uri='sip:a@b'><resource-list>/x</resource-list></service>", "constraint-failure"),
            ("<service uri='sip:a@b'/>", "schema-validation-error"),
            ("<service><list/></service>", "schema-validation-error"),
            ("<service uri='sip:a@b'><packages/><list/></service>", "schema-validation-error"),
            ("<service uri='sip:a@b'><list/><packages><package>presence</package></packages></service>", ""),
            ("<service uri='sip:a@b'><list/><packages><bogus/></packages></service>", "schema-validation-error"),
            ("<service uri='sip:a@b'><list/><list/></service>", "schema-validation-error"),
            ("<list/>", "schema-validation-error"),
        ],
    )
    def test_what_a_document_may_hold(self, inside: str, expected: str) -> None:
        octets = services(inside)
        assert check(SERVICES, octets) == expected
        is_valid = schema("rls-services").validate(etree.fromstring(octets))
        assert is_valid is (expected != "schema-validation-error")


class TestPresence:
    """RFC 4827."""

    def test_a_document_about_somebody_else_is_refused(self) -> None:
        """N-19."""
        octets = (CONFORMANCE / "rfc4827/11.xml").read_bytes()
        assert check(PRESENCE, octets, JOE) == "constraint-failure"
        assert check(PRESENCE, octets.replace(b'sip:someone@example.com"', b'pres:joe@example.com"'), JOE) == ""

    def test_what_is_no_presence_document_is_refused(self) -> None:
        assert check(PRESENCE, b"<presence/>") == "schema-validation-error"


class TestRules:
    """RFC 5025 section 9."""

    def test_rules_that_cannot_be_read_are_refused(self) -> None:
        bad = b"<ruleset xmlns='urn:ietf:params:xml:ns:common-policy'><rule/></ruleset>"
        assert check(RULES, bad) == "schema-validation-error"

    def test_a_million_identities_are_too_many(self) -> None:
        """N-24."""
        one = b"<one id='sip:a@example.com'/>"
        octets = b"<ruleset xmlns='urn:ietf:params:xml:ns:common-policy'>" + one * 1_000_000
        with pytest.raises(Refused) as caught:
            Document.read(octets, RULES.limits)
        assert caught.value.status == 413


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        *(
            ("sip:joe@example.com", JOE),
            ("sips:Joe@EXAMPLE.com", JOE),
            ("joe@example.com", JOE),
            ("im:joe@example.com", JOE),
        ),
        *(("joe", None), ("", None), ("sip:joe", None), ("http://joe@example.com", None), ("sip:@example.com", None)),
        *(("xmpp:joe@example.com", JOE), ("sip:joe@example.com;transport=tls", JOE), ("sip:a@b@c", None)),
    ],
)
def test_whose_tree_it_is(user: str, expected: Address | None) -> None:
    assert owner_of(user) == expected

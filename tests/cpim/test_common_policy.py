"""Common policy: whom a rule is about, when it holds, and what is refused (RFC 4745, ACL-1 to ACL-8)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.common_policy import COMMON_POLICY, Question, Requestor, RuleSet, canonical
from comity.errors import MalformedMessage

EXAMPLES = Path(__file__).parents[1] / "conformance/rfc4745"
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOBODY = Requestor()


def rule_set(*rules: str) -> RuleSet:
    return RuleSet.parse(document(*rules))


def document(*rules: str) -> bytes:
    inner = "".join(f"<rule id='r{n}'>{rule}</rule>" for n, rule in enumerate(rules))
    return f"<ruleset xmlns='{COMMON_POLICY}' xmlns:x='urn:x'>{inner}</ruleset>".encode()


def conditions(inner: str) -> str:
    return f"<conditions>{inner}</conditions>"


def identity(inner: str) -> str:
    return conditions(f"<identity>{inner}</identity>")


def applies(rules: RuleSet, *uris: str, now: datetime = NOON, sphere: str = "") -> list[str]:
    return [rule.id for rule in rules.applying(Question(Requestor.of(*uris), now, sphere))]


def example(name: str) -> RuleSet:
    return RuleSet.parse((EXAMPLES / f"{name}.xml").read_bytes())


class TestExamples:
    def test_one_of_three(self) -> None:
        """ACL-3, ACL-4: RFC 4745 section 7.1.2."""
        rules = example("7.1.2")
        for uri in ("sip:alice@example.com", "sip:alice@EXAMPLE.com", "tel:+12125551234", "mailto:bob@example.net"):
            assert applies(rules, uri) == ["f3g44r1"], uri
        for uri in (
            "sip:bob@example.net",
            "sips:alice@example.com",
            "sip:+12125551234@example.com",
            "sip:alicia@example.com",
        ):
            assert applies(rules, uri) == [], uri
        assert applies(rules) == []

    def test_anybody_who_is_somebody(self) -> None:
        """ACL-4: section 7.1.3.1."""
        assert applies(example("7.1.3.1"), "sip:x@y.example") == ["f3g44r5"]
        assert applies(example("7.1.3.1")) == []

    def test_anybody_but_some(self) -> None:
        """ACL-2, ACL-4: section 7.1.3.2, three conditions at once."""
        rules = example("7.1.3.2")
        during = datetime(2003, 12, 24, 17, tzinfo=UTC)
        assert applies(rules, "sip:carol@example.net", now=during, sphere="work") == ["f3g44r1"]
        for uri in (
            *(
                "sip:carol@example.com",
                "sip:carol@example.org",
                "sip:alice@bad.example.net",
                "sip:bob@good.example.net",
            ),
            "tel:+12125551234",
        ):
            assert applies(rules, uri, now=during, sphere="work") == [], uri
        assert applies(rules, "sip:carol@example.net", now=during) == []
        assert applies(rules, "sip:carol@example.net", now=during, sphere="home") == []
        assert applies(rules, "sip:carol@example.net", now=during + timedelta(hours=1), sphere="work") == []

    def test_a_domain_but_some(self) -> None:
        """ACL-4: section 7.1.3.3."""
        rules = example("7.1.3.3")
        assert applies(rules, "sip:carol@example.com") == ["f3g44r1"]
        for uri in (
            "sip:alice@example.com",
            "sip:bob@example.com",
            "sip:carol@example.net",
            "sip:carol@sub.example.com",
        ):
            assert applies(rules, uri) == [], uri

    def test_spheres(self) -> None:
        """ACL-6: section 7.3; the third rule is for home or work."""
        rules = example("7.3")
        assert applies(rules, "sip:andrew@example.com", sphere="WORK") == ["f3g44r2"]
        assert applies(rules, "sip:andrew@example.com", sphere="home") == []
        for sphere in ("home", "Work"):
            assert applies(rules, "sip:john@doe.example.com", sphere=sphere) == ["z6y55r2"]
        assert applies(rules, "sip:john@doe.example.com") == []

    def test_validity(self) -> None:
        """ACL-7: section 7.4, and nobody has to be authenticated."""
        rules = example("7.4")
        begin, end = datetime(2003, 8, 15, 15, 20, tzinfo=UTC), datetime(2003, 9, 15, 15, 20, tzinfo=UTC)
        second = timedelta(seconds=1)
        times = [begin - second, begin, end - second, end]
        assert [bool(applies(rules, now=at)) for at in times] == [False, True, True, False]
        assert [rules.next_change(at) for at in times] == [begin, end, end, None]

    def test_all_three_together(self) -> None:
        """ACL-2: section 12."""
        rules = example("12")
        during = datetime(2003, 12, 24, 16, tzinfo=UTC)
        assert applies(rules, "sip:bob@example.com", now=during, sphere="work") == ["f3g44r1"]
        assert applies(rules, "sip:bob@example.com", now=during) == []


class TestIdentity:
    def test_no_identity_is_for_everybody_and_no_rule_for_nobody(self) -> None:
        """ACL-1, ACL-3."""
        assert applies(rule_set("", conditions(""))) == ["r0", "r1"]
        assert applies(rule_set()) == []

    def test_what_is_unknown_is_false(self) -> None:
        """ACL-3: an unknown condition, an unknown kind of identity, something unknown inside one."""
        one = "<one id='sip:a@b.example'/>"
        rules = rule_set(
            conditions("<x:weather/>"),
            identity("<x:all/>"),
            identity(f"<x:all/>{one}"),
            identity("<one id='sip:a@b.example'><x:only-on-sundays/></one>"),
            identity("<many><x:except-on-sundays/></many>"),
            conditions(f"<identity>{one}</identity><new/>"),
        )
        assert applies(rules, "sip:a@b.example") == ["r2"]

    def test_two_conditions_of_a_kind_must_both_hold(self) -> None:
        """ACL-2."""
        both = conditions("<identity><many/></identity><identity><one id='sip:a@b.example'/></identity>")
        assert applies(rule_set(both), "sip:a@b.example") == ["r0"]
        assert applies(rule_set(both), "sip:c@b.example") == []

    def test_an_asserted_identity_may_have_several_uris(self) -> None:
        """RFC 5025 section 3.1.1.2: any of them matches, an exception too."""
        one = rule_set(identity("<one id='tel:+12125551234'/>"))
        assert applies(one, "sip:a@b.example", "tel:+1(212)555.1234") == ["r0"]
        but = rule_set(identity("<many><except id='tel:+12125551234'/></many>"))
        assert applies(but, "sip:a@b.example", "tel:+1-212-555-1234") == []

    @pytest.mark.parametrize("written", ["bücher.de", "xn--bcher-kva.de", "B%C3%BCcher.de", "b%c3%bccher.de."])
    def test_domains_are_compared_as_a_labels(self, written: str) -> None:
        """ACL-5."""
        rules = rule_set(
            identity(f"<many domain='{written}'/>"), identity(f"<many><except domain='{written}'/></many>")
        )
        assert applies(rules, "sip:a@xn--bcher-kva.de") == ["r0"]
        assert applies(rules, "im:a@bücher.de") == ["r0"]
        assert applies(rules, "sip:a@bucher.de") == ["r1"]

    def test_a_domain_that_is_none_equals_nothing(self) -> None:
        """ACL-5: failed conversion = unequal."""
        assert applies(rule_set(identity("<many domain='a..b'/>")), "sip:a@a..b", "sip:a@b.example") == []
        assert applies(rule_set(identity("<many domain=''/>")), "sip:a@b.example") == []

    def test_an_account_is_one_user_under_every_scheme(self) -> None:
        """ACL-19: its aliases are others."""
        requestor = Requestor.account(Address.im("jos é", "example.com"))
        rules = rule_set(
            identity("<one id='sip:jos%20%C3%A9@example.com'/>"),
            identity("<one id='xmpp:jos%5C20%C3%A9@example.com'/>"),
            identity("<one id='pres:jos%20%C3%A9@EXAMPLE.com'/>"),
            identity("<one id='sip:jose@example.com'/>"),
        )
        assert [rule.id for rule in rules.applying(Question(requestor, NOON))] == ["r0", "r1", "r2"]

    @pytest.mark.parametrize(
        ("left", "right", "equal"),
        [
            ("SIP:a@B.example", "sip:a@b.example", True),
            ("sip:a@b.example", "sip:A@b.example", False),
            ("sip:a@b.example", "sips:a@b.example", False),
            ("sip:a@b.example", "sip:a@b.example:5060", False),
            ("sip:a@b.example", "sip:a@b.example;user=phone", False),
            ("sip:a@B.example;x=Y", "sip:a@b.example;x=Y", True),
            ("sip:%61@b.example", "sip:a@b.example", True),
            ("urn:UUID:F81D4FAE-7dec", "urn:uuid:f81d4fae-7dec", True),
            ("urn:x-mac:AB", "urn:x-mac:ab", False),
            ("tel:+1-212", "tel:+1212", True),
            ("http://a.example/A", "HTTP://a.example/A", True),
            ("nonsense", "Nonsense", False),
            ("sip:", "sip:", True),
        ],
    )
    def test_uris_are_equal_or_not(self, left: str, right: str, equal: bool) -> None:
        assert (canonical(left) == canonical(right)) is equal

    @pytest.mark.parametrize(
        "uri", ["sip:a@b.example", "sip:%zz@b;x?y", "tel:1;Phone-Context=X", "urn:", ":", "@", "xmpp:a@@b"]
    )
    def test_canonical_twice_is_canonical_once(self, uri: str) -> None:
        assert canonical(canonical(uri)) == canonical(uri)


class TestValidity:
    def test_pairs_are_alternatives(self) -> None:
        """ACL-7."""
        spans = "".join(
            f"<from>{(NOON + timedelta(hours=h)).isoformat()}</from><until>{(NOON + timedelta(hours=h + 1)).isoformat()}</until>"
            for h in (0, 5)
        )
        rules = rule_set(conditions(f"<validity>{spans}</validity>"))
        hours = [0, 0.99, 1, 3, 5, 6]
        assert [bool(applies(rules, now=NOON + timedelta(hours=h))) for h in hours] == [
            True,
            True,
            False,
            False,
            True,
            False,
        ]


class TestRefused:
    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"<ruleset/>",
            b"<rules xmlns='urn:ietf:params:xml:ns:common-policy'/>",
            document().replace(b"<ruleset", b"<!DOCTYPE ruleset><ruleset"),
            document("<x:y xmlns:x='http://www.w3.org/2001/XInclude'/>"),
            document("").replace(b"id=", b"ID="),
            document("", "").replace(b"r1", b"r0"),
            document("<conditions/><conditions/>"),
            document("<actions/><actions/>"),
            document(identity("")),
            document(identity("<one/>")),
            document(identity("<one domain='b.example'/>")),
            document(identity("<one id='sip:a@b.example' domain='b.example'/>")),
            document(identity("<many><except/></many>")),
            document(identity("<many><except id='sip:a@b.example' domain='b.example'/></many>")),
            document(conditions("<sphere/>")),
            document(conditions("<sphere value=' '/>")),
            document(conditions("<validity/>")),
            document(conditions("<validity><from>2026-11-23T12:00:00Z</from></validity>")),
            document(
                conditions("<validity><until>2026-11-23T12:00:00Z</until><from>2026-11-23T13:00:00Z</from></validity>")
            ),
            document(conditions("<validity><from>now</from><until>2026-11-23T12:00:00Z</until></validity>")),
            document(
                conditions("<validity><from>2026-11-23T12:00:00</from><until>2026-11-24T12:00:00</until></validity>")
            ),
        ],
    )
    def test_what_the_schema_forbids(self, raw: bytes) -> None:
        """N-24: the owner is told, and the last good rules stand."""
        with pytest.raises(MalformedMessage):
            RuleSet.parse(raw)

    @pytest.mark.parametrize("count", [5_000, 1_000_000])
    def test_a_million_people(self, count: int) -> None:
        """N-24, CONSTR-1: refused by size before it costs anything."""
        raw = document(identity("<one id='sip:a@b.example'/>" * count))
        begun = time.thread_time()
        with pytest.raises(MalformedMessage) as caught:
            RuleSet.parse(raw)
        assert caught.value.hint == "size"
        assert time.thread_time() - begun < 0.5

    def test_two_thousand_people_are_asked_quickly(self) -> None:
        """3 ms to read and 2 us to ask when measured here."""
        rules = rule_set(identity("".join(f"<one id='sip:user{n}@b.example'/>" for n in range(2000))))
        question = Question(Requestor.of("sip:user1999@b.example"), NOON)
        begun = time.thread_time()
        for _ in range(100):
            assert rules.applying(question)
        assert time.thread_time() - begun < 0.5

"""Presence rules: what is granted, and that nothing else is there (RFC 5025, ACL-1, 8, 9, 11, 13 to 18, N-23)."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.cpim.common_policy import COMMON_POLICY, Question, Requestor
from comity.cpim.presence import DATA_MODEL, PIDF, PresenceDocument
from comity.cpim.presence_rules import (
    EVERYTHING,
    PRES_RULES,
    Permissions,
    PresenceRules,
    SubHandling,
    UserInputGrant,
    current_sphere,
    filter_document,
)
from comity.cpim.rpid import RPID
from comity.errors import MalformedMessage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[1] / "conformance"
RFC_5025 = PresenceRules.parse((EXAMPLES / "rfc5025/6.xml").read_bytes())
ALL = frozenset({("all", "")})


def rules(*bodies: str, who: str = "<identity><many/></identity>") -> PresenceRules:
    inner = "".join(
        f"<rule id='r{n}'><conditions>{who}</conditions><actions/><transformations>{body}</transformations></rule>"
        for n, body in enumerate(bodies)
    )
    head = f"<ruleset xmlns='{COMMON_POLICY}' xmlns:pr='{PRES_RULES}' xmlns:x='urn:x'>"
    return PresenceRules.parse(f"{head}{inner}</ruleset>".encode())


def granted(*bodies: str) -> Permissions:
    return rules(*bodies).permissions(Question(Requestor.of("sip:a@b.example"), NOON))


def parse(inner: str) -> PresenceDocument:
    head = f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" xmlns:r="{RPID}" xmlns:x="urn:x" entity="pres:bob@example.com">'
    return PresenceDocument.parse(f"{head}{inner}</presence>".encode())


#: Everything that a permission is about, once.
FULL = parse(
    "<tuple id='sip'><status><basic>open</basic><show xmlns='jabber:client'>away</show></status>"
    "<dm:deviceID>urn:x:1</dm:deviceID><r:class>biz</r:class><r:privacy><r:text/></r:privacy>"
    "<r:relationship><r:self/></r:relationship><r:service-class><r:electronic/></r:service-class>"
    "<r:status-icon>http://x.example/a</r:status-icon>"
    "<r:user-input idle-threshold='600' last-input='2026-11-23T11:00:00Z' since='2026-11-23T11:00:00Z'>idle</r:user-input>"
    "<x:foo/><x:bar/><contact priority='0.5'>sip:bob@example.com</contact><note>tuple note</note>"
    "<timestamp>2026-11-23T11:00:00Z</timestamp></tuple>"
    "<tuple id='mail'><status><basic>closed</basic></status><contact>mailto:bob@example.com</contact></tuple>"
    "<tuple id='quiet'><status><x:foo/></status></tuple>"
    "<note>root note</note>"
    "<dm:person id='p'><r:activities><r:note>inner note</r:note><r:busy/></r:activities><r:class>home</r:class>"
    "<r:mood><r:happy/></r:mood><r:place-is><r:audio><r:ok/></r:audio></r:place-is>"
    "<r:place-type><r:other>x</r:other></r:place-type><r:sphere><r:work/></r:sphere><r:time-offset>60</r:time-offset>"
    "<gp:geopriv xmlns:gp='urn:ietf:params:xml:ns:pidf:geopriv10'><gp:location-info>61.0 7.1</gp:location-info></gp:geopriv>"
    "<dm:note>person note</dm:note><dm:timestamp>2026-11-23T11:00:00Z</dm:timestamp></dm:person>"
    "<dm:device id='d'><r:class>biz</r:class><r:user-input>active</r:user-input><dm:deviceID>urn:uuid:AB</dm:deviceID>"
    "<dm:note>device note</dm:note></dm:device><x:root/>"
)
ALL_SETS = Permissions(SubHandling.ALLOW, ALL, ALL, ALL)


def names(document: PresenceDocument) -> set[str]:
    """Local names of every attribute left."""
    found = {e.local for one in document.tuples for e in (*one.status_extensions, *one.extensions)}
    return found | {e.local for part in (*document.persons, *document.devices) for e in part.extensions}


class TestExample:
    """RFC 5025 section 6 (ACL-13, ACL-14)."""

    granted_there = RFC_5025.permissions(Question(Requestor.of("sip:user@example.com"), NOON))

    def test_it_grants_what_the_text_says(self) -> None:
        assert self.granted_there == Permissions(
            SubHandling.ALLOW,
            persons=ALL,
            services=frozenset({("service-uri-scheme", "sip"), ("service-uri-scheme", "mailto")}),
            attributes=frozenset({"provide-activities"}),
            user_input=UserInputGrant.BARE,
            unknown=frozenset({"{urn:vendor-specific:foo-namespace}foo"}),
        )

    def test_nobody_else_gets_anything(self) -> None:
        """ACL-1: no match is block."""
        for requestor in (Requestor.of("sip:other@example.com"), Requestor()):
            assert RFC_5025.permissions(Question(requestor, NOON)) == Permissions()
        assert Permissions().sub_handling is SubHandling.BLOCK

    def test_the_document_shows_what_the_text_says(self) -> None:
        foo = "<f:foo xmlns:f='urn:vendor-specific:foo-namespace'/>"
        view = filter_document(
            parse(FULL.raw.decode().split(">", 1)[1].replace("<x:foo/>", foo, 1)[: -len("</presence>")]),
            self.granted_there,
        )
        assert [one.id for one in view.tuples] == ["sip", "mail"]
        assert names(view) == {"service-class", "user-input", "activities", "foo"}
        (user_input,) = [e for e in view.tuples[0].extensions if e.local == "user-input"]
        assert (user_input.attributes, user_input.text) == ({}, "idle")
        assert view.devices == ()
        assert b"note>inner note" in view.raw
        assert not any(note in view.raw for note in (b"tuple note", b"person note", b"root note"))


class TestCombining:
    def test_maximum_union_and_or(self) -> None:
        """ACL-8: RFC 4745 section 10.3 gives TRUE, 12 and o; ours are of the same types."""
        both = granted(
            "<pr:sub-handling>confirm</pr:sub-handling><pr:provide-mood>true</pr:provide-mood>"
            "<pr:provide-devices><pr:deviceID>urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6</pr:deviceID><pr:class>biz</pr:class>"
            "</pr:provide-devices><pr:provide-user-input>thresholds</pr:provide-user-input>",
            "<pr:sub-handling>polite-block</pr:sub-handling><pr:provide-mood>false</pr:provide-mood>"
            "<pr:provide-devices><pr:class>home</pr:class><pr:class>biz</pr:class></pr:provide-devices>"
            "<pr:provide-user-input>bare</pr:provide-user-input>",
        )
        assert (both.sub_handling, both.user_input) == (SubHandling.POLITE_BLOCK, UserInputGrant.THRESHOLDS)
        assert both.attributes == {"provide-mood"}
        assert both.devices == {  # RFC 5025 section 3.3.1.1
            ("class", "home"),
            ("class", "biz"),
            ("deviceID", "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
        }

    def test_block_does_not_veto(self) -> None:
        """ACL-9: the maximum wins, in either order."""
        allow, block = "<pr:sub-handling>allow</pr:sub-handling>", "<pr:sub-handling>block</pr:sub-handling>"
        assert granted(allow, block) == granted(block, allow) == Permissions(SubHandling.ALLOW)

    @pytest.mark.parametrize(("text", "value"), [("block", 0), ("confirm", 10), ("polite-block", 20), ("allow", 30)])
    def test_values_of_sub_handling(self, text: str, value: int) -> None:
        """ACL-9."""
        assert granted(f"<pr:sub-handling> {text}\n</pr:sub-handling>").sub_handling == value

    def test_other_namespaces_grant_nothing_here(self) -> None:
        assert granted("<x:provide-all-attributes/><pr:provide-tea>true</pr:provide-tea>") == Permissions()


class TestOccurrences:
    """ACL-13."""

    @pytest.mark.parametrize(
        ("members", "ids"),
        [
            ("<pr:all-services/>", ["sip", "mail"]),
            ("<pr:class>biz</pr:class>", ["sip"]),
            ("<pr:class>Biz</pr:class>", []),
            ("<pr:occurrence-id>mail</pr:occurrence-id>", ["mail"]),
            ("<pr:occurrence-id>MAIL</pr:occurrence-id>", []),
            ("<pr:service-uri>SIP:bob@EXAMPLE.com</pr:service-uri>", ["sip"]),
            ("<pr:service-uri>sip:bob@example.com:5060</pr:service-uri>", []),
            ("<pr:service-uri-scheme>mailto</pr:service-uri-scheme>", ["mail"]),
            ("<pr:service-uri-scheme>MAILTO</pr:service-uri-scheme>", []),
            ("<x:mine/>", []),
            ("", []),
        ],
    )
    def test_services(self, members: str, ids: list[str]) -> None:
        view = filter_document(FULL, granted(f"<pr:provide-services>{members}</pr:provide-services>"))
        assert [one.id for one in view.tuples] == ids
        assert (view.persons, view.devices) == ((), ())

    @pytest.mark.parametrize(
        ("members", "count"),
        [
            ("<pr:all-devices/>", 1),
            ("<pr:class>biz</pr:class>", 1),
            ("<pr:deviceID>URN:UUID:ab</pr:deviceID>", 1),
            ("<pr:deviceID>urn:uuid:ac</pr:deviceID>", 0),
            ("<pr:occurrence-id>d</pr:occurrence-id>", 1),
            ("<pr:occurrence-id>p</pr:occurrence-id>", 0),
        ],
    )
    def test_devices(self, members: str, count: int) -> None:
        view = filter_document(FULL, granted(f"<pr:provide-devices>{members}</pr:provide-devices>"))
        assert (len(view.devices), view.tuples, view.persons) == (count, (), ())
        assert [device.device_id for device in view.devices] == ["urn:uuid:AB"] * count

    @pytest.mark.parametrize(
        ("members", "count"),
        [
            ("<pr:all-persons/>", 1),
            ("<pr:class>home</pr:class>", 1),
            ("<pr:class>work</pr:class>", 0),
            ("<pr:occurrence-id>p</pr:occurrence-id>", 1),
        ],
    )
    def test_persons(self, members: str, count: int) -> None:
        view = filter_document(FULL, granted(f"<pr:provide-persons>{members}</pr:provide-persons>"))
        assert (len(view.persons), view.tuples, view.devices) == (count, (), ())


class TestAttributes:
    def test_some_pass_always(self) -> None:
        """ACL-14: contact, service-class, basic, timestamps, the deviceID of a device."""
        view = filter_document(FULL, ALL_SETS)
        first = view.tuples[0]
        assert names(view) == {"service-class"}
        assert (first.contact, str(first.priority), first.timestamp) == (
            "sip:bob@example.com",
            "0.5",
            FULL.tuples[0].timestamp,
        )
        assert view.persons[0].timestamp == FULL.persons[0].timestamp
        assert [one.basic_status for one in view.tuples] == [one.basic_status for one in FULL.tuples[:2]]
        assert b"note" not in view.raw

    @pytest.mark.parametrize(
        "name",
        [
            *(
                "activities",
                "class",
                "mood",
                "place-is",
                "place-type",
                "privacy",
                "relationship",
                "sphere",
                "status-icon",
            ),
            *("time-offset", "deviceID"),
        ],
    )
    def test_each_needs_its_own_permission(self, name: str) -> None:
        """ACL-14, ACL-18."""
        services = "<pr:provide-services><pr:all-services/></pr:provide-services><pr:provide-persons><pr:all-persons/></pr:provide-persons>"
        view = filter_document(FULL, granted(f"{services}<pr:provide-{name}>true</pr:provide-{name}>"))
        assert names(view) == {"service-class", name}
        assert names(filter_document(FULL, granted(f"{services}<pr:provide-{name}>0</pr:provide-{name}>"))) == {
            "service-class"
        }

    @pytest.mark.parametrize(
        ("value", "attributes"),
        [
            ("false", None),
            ("bare", set()),
            ("thresholds", {"idle-threshold"}),
            ("full", {"idle-threshold", "last-input", "since"}),
        ],
    )
    def test_user_input_in_four_steps(self, value: str, attributes: set[str] | None) -> None:
        """ACL-15, X13: both names of the last input are stripped."""
        body = f"<pr:provide-services><pr:all-services/></pr:provide-services><pr:provide-user-input>{value}</pr:provide-user-input>"
        found = [e for e in filter_document(FULL, granted(body)).tuples[0].extensions if e.local == "user-input"]
        assert [set(e.attributes) for e in found] == ([] if attributes is None else [attributes])

    def test_notes_of_parts_but_not_inside_attributes(self) -> None:
        """ACL-16."""
        noted = Permissions(SubHandling.ALLOW, ALL, ALL, ALL, frozenset({"provide-note"}))
        view = filter_document(FULL, noted)
        for text in (b"tuple note", b"person note", b"device note", b"root note"):
            assert text in view.raw
        assert b"inner note" not in view.raw
        doing = Permissions(SubHandling.ALLOW, ALL, ALL, ALL, frozenset({"provide-activities"}))
        assert b"inner note" in filter_document(FULL, doing).raw

    def test_a_note_of_the_root_is_the_persons(self) -> None:
        """PRES-15, ACL-16: who may not see every person does not see it."""
        noted = Permissions(SubHandling.ALLOW, services=ALL, attributes=frozenset({"provide-note"}))
        view = filter_document(FULL, noted)
        assert b"tuple note" in view.raw
        assert b"root note" not in view.raw

    def test_unknown_attributes_by_namespace_and_name(self) -> None:
        """ACL-16."""
        body = (
            "<pr:provide-services><pr:all-services/></pr:provide-services>"
            "<pr:provide-unknown-attribute ns='urn:x' name='foo'>true</pr:provide-unknown-attribute>"
            "<pr:provide-unknown-attribute ns='urn:x' name='bar'>false</pr:provide-unknown-attribute>"
            "<pr:provide-unknown-attribute ns='urn:ietf:params:xml:ns:pidf:rpid' name='privacy'>true</pr:provide-unknown-attribute>"
        )
        view = filter_document(FULL, granted(body))
        assert names(view) == {"service-class", "foo"}
        assert [one.id for one in view.tuples] == ["sip", "mail", "quiet"]

    def test_a_location_needs_a_grant(self) -> None:
        """N-23: removed by default, shown to whom geopriv or everything is granted."""
        assert b"61.0" not in filter_document(FULL, Permissions(SubHandling.ALLOW, ALL, ALL, ALL)).raw
        geopriv = frozenset({"{urn:ietf:params:xml:ns:pidf:geopriv10}geopriv"})
        assert b"61.0" in filter_document(FULL, Permissions(SubHandling.ALLOW, ALL, ALL, ALL, unknown=geopriv)).raw

    def test_all_attributes_of_what_is_shown(self) -> None:
        """ACL-16: a macro for every attribute, not for every occurrence."""
        body = "<pr:provide-persons><pr:all-persons/></pr:provide-persons><pr:provide-all-attributes/>"
        view = filter_document(FULL, granted(body))
        assert view.persons == FULL.persons
        assert (view.tuples, view.devices, view.extensions) == ((), (), FULL.extensions)

    def test_all_of_everything_is_the_document_itself(self) -> None:
        """SEED-46, PRES-22: granted whole, it stays what it is; else nothing of the presentity's octets is claimed."""
        assert filter_document(FULL, EVERYTHING) is FULL
        everything = granted(
            "<pr:provide-persons><pr:all-persons/></pr:provide-persons><pr:provide-services><pr:all-services/></pr:provide-services>"
            "<pr:provide-devices><pr:all-devices/></pr:provide-devices><pr:provide-all-attributes/>"
        )
        assert everything.grants_everything
        assert not ALL_SETS.grants_everything


class TestIdempotence:
    def test_a_hidden_class_chooses_only_once(self) -> None:
        """ACL-17's exception: RFC 5025 sections 3.3.1.1 and 3.3.2.2 against section 4; what was not granted stays hidden."""
        by_class = "<pr:provide-devices><pr:class>biz</pr:class></pr:provide-devices>"
        once = filter_document(FULL, granted(by_class))
        assert [device.id for device in once.devices] == ["d"]
        assert b"biz" not in once.raw
        assert filter_document(once, granted(by_class)).devices == ()
        shown = granted(by_class + "<pr:provide-class>true</pr:provide-class>")
        assert filter_document(filter_document(FULL, shown), shown) == filter_document(FULL, shown)

    def test_a_filter_needs_no_valid_document(self) -> None:
        """PRES-18: what has no id or device id, or names we cannot write, is left out of it."""
        odd = parse(
            "<tuple><status><basic>open</basic></status></tuple><tuple id='a'><status><basic>open</basic></status>"
            "<x:a\u0301\u0300/></tuple><dm:device id='d'/><dm:person/>"
        )
        view = filter_document(odd, Permissions(SubHandling.ALLOW, ALL, frozenset(), ALL, all_attributes=True))
        assert ([one.id for one in view.tuples], view.devices, view.tuples[0].extensions) == (["a"], (), ())


class TestSphere:
    """ACL-6: RFC 5025 section 3.1.2."""

    @pytest.mark.parametrize(
        ("spheres", "current"),
        [([], ""), (["work"], "work"), (["work", "Work"], "work"), (["work", "home"], ""), (["work", ""], "work")],
    )
    def test_it_is_what_all_who_say_one_say(self, spheres: list[str], current: str) -> None:
        documents = [
            parse(f"<dm:person id='p'>{f'<r:sphere>{sphere}</r:sphere>' if sphere else ''}</dm:person>")
            for sphere in spheres
        ]
        assert current_sphere(documents, NOON) == current


class TestRefused:
    @pytest.mark.parametrize(
        "body",
        [
            "<pr:sub-handling/>",
            "<pr:sub-handling>Allow</pr:sub-handling>",
            "<pr:sub-handling>allow</pr:sub-handling><pr:sub-handling>block</pr:sub-handling>",
            "<pr:provide-mood>yes</pr:provide-mood>",
            "<pr:provide-mood/>",
            "<pr:provide-user-input>true</pr:provide-user-input>",
            "<pr:provide-all-attributes>maybe</pr:provide-all-attributes>",
            "<pr:provide-unknown-attribute ns='urn:x'>true</pr:provide-unknown-attribute>",
            "<pr:provide-unknown-attribute ns='urn:x' name='x:foo'>true</pr:provide-unknown-attribute>",
            "<pr:provide-persons><pr:deviceID>urn:x:1</pr:deviceID></pr:provide-persons>",
            "<pr:provide-persons><pr:class/></pr:provide-persons>",
            "<pr:provide-devices><pr:all-persons/></pr:provide-devices>",
        ],
    )
    def test_what_the_schema_forbids(self, body: str) -> None:
        """N-24: a rule set is refused whole."""
        with pytest.raises(MalformedMessage):
            rules("", body)

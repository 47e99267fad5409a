"""One contact list: ``comity.xcap.lists``."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.xcap.application import USAGES
from comity.xcap.lists import NEW, Person, people_of, person, reconcile
from comity.xcap.selector import Document

LISTS = USAGES["resource-lists"]
ALICE = Address.parse("im:alice@example.org")
CONFORMANCE = Path(__file__).parent.parent / "conformance"


def document(octets: bytes) -> Document:
    one = Document.read(octets, LISTS.limits)
    LISTS.validate(one, ALICE)
    return one


def lists(inside: str) -> Document:
    return document(f"<resource-lists xmlns='urn:ietf:params:xml:ns:resource-lists'>{inside}</resource-lists>".encode())


def people(*of: tuple[str, str, str]) -> dict[str, Person]:
    """Address, name and groups separated by commas."""
    made = [person(Address.parse(f"im:{who}"), name, groups.split(",")) for who, name, groups in of]
    return {one.address.key: one for one in made}


def said(one: Document) -> dict[str, Person]:
    return people_of(one, ALICE)


class TestReading:
    def test_the_list_of_rfc_4826_has_three_contacts(self) -> None:
        one = document((CONFORMANCE / "rfc4826/3.3.xml").read_bytes())
        assert said(one) == people(
            ("bill@example.com", "Bill Doe", "friends"),
            ("joe@example.com", "Joe Smith", "Close Friends"),
            ("nancy@example.com", "Nancy Gross", "Close Friends"),
        )

    def test_only_addresses_of_people_are_contacts(self) -> None:
        one = lists(
            "<list name='l'><entry uri='tel:+1'/><entry uri='sip:a@b.org'/><entry uri='pres:C@b.org'/><entry uri='x'/>"
            "<entry uri='xmpp:d@b.org'/><entry uri='IM:e@b.org'/><entry uri='sip:alice@example.org'/></list>"
        )
        assert sorted(said(one)) == ["im:a@b.org", "im:c@b.org", "im:d@b.org", "im:e@b.org"]

    def test_one_contact_may_stand_in_several_lists(self) -> None:
        one = lists(
            "<list name='a'><entry uri='sip:b@c.org'/></list><list name='x'><display-name>B</display-name>"
            "<entry uri='im:b@c.org'><display-name> Bob </display-name></entry></list>"
        )
        assert said(one) == people(("b@c.org", "Bob", "a,B"))

    @pytest.mark.parametrize(
        "label", ["", " name=''", " name='contacts'", " name='oma_allcontacts'", " name='oma_buddylist'"]
    )
    def test_lists_that_are_no_group(self, label: str) -> None:
        assert said(lists(f"<list{label}><entry uri='sip:b@c.org'/></list>")) == people(("b@c.org", "", ""))

    def test_blocked_people_are_no_contacts(self) -> None:
        """COMPAT OMA XDM, Blink."""
        assert said(lists("<list name='oma_blockedcontacts'><entry uri='sip:b@c.org'/></list>")) == {}


class TestReconciling:
    def test_who_never_put_a_document_gets_one(self) -> None:
        wanted = people(("bob@example.org", "Bob & <Co>", "Friends,Work"), ("carol@example.org", "", ""))
        octets = reconcile(document(NEW), ALICE, wanted)
        assert said(document(octets)) == wanted
        assert octets.count(b"<list ") == 3

    def test_nothing_changes_if_nothing_changed(self) -> None:
        one = document((CONFORMANCE / "rfc4826/3.3.xml").read_bytes())
        assert reconcile(one, ALICE, said(one)) == one.octets

    def test_an_entry_that_went_is_cut_out_and_nothing_else(self) -> None:
        one = lists("<!-- a --><list name='l'>\n <entry uri='sip:a@b.org' /> <entry uri='tel:+1'/>\n</list >")
        assert reconcile(one, ALICE, {}) == one.octets.replace(b"<entry uri='sip:a@b.org' />", b"")

    def test_a_new_one_comes_behind_ours_and_before_others(self) -> None:
        one = lists("<list name='l'><entry uri='tel:+1'/><x:y xmlns:x='u:x'/></list>")
        octets = reconcile(one, ALICE, people(("a@b.org", "A", "l")))
        added = b"<entry uri='tel:+1'/><entry uri=\"sip:a@b.org\"><display-name>A</display-name></entry><x:y"
        assert octets == one.octets.replace(b"<entry uri='tel:+1'/><x:y", added)

    def test_prefixes_are_those_of_the_document(self) -> None:
        one = document(
            b"<rl:resource-lists xmlns:rl='urn:ietf:params:xml:ns:resource-lists'>"
            b"<rl:list name='l'><rl:entry uri='sip:c@d.org'/></rl:list></rl:resource-lists>"
        )
        wanted = people(("a@b.org", "A", "l"), ("c@d.org", "C", "l,m"))
        octets = reconcile(one, ALICE, wanted)
        assert said(document(octets)) == wanted
        assert b"<entry" not in octets

    def test_a_new_name_replaces_the_old_one(self) -> None:
        one = lists(
            "<list name='l'><entry uri='sip:a@b.org'><display-name xml:lang='de'>A</display-name><!-- --></entry></list>"
        )
        octets = reconcile(one, ALICE, people(("a@b.org", "Anna", "l")))
        assert octets == one.octets.replace(b"<display-name xml:lang='de'>A<", b"<display-name>Anna<")

    def test_who_leaves_a_group_leaves_its_list(self) -> None:
        one = lists("<list name='l'><entry uri='sip:a@b.org'/></list><list name='m'><entry uri='sip:a@b.org'/></list>")
        wanted = people(("a@b.org", "", "m"))
        assert reconcile(one, ALICE, wanted) == one.octets.replace(b"<entry uri='sip:a@b.org'/>", b"", 1)

    def test_a_name_that_stood_in_an_entry_that_went_stands_in_the_other(self) -> None:
        """Found by the property below."""
        one = lists(
            "<list><entry uri='sip:a@b.org'/></list>"
            "<list name='l'><entry uri='sip:a@b.org'><display-name>A</display-name></entry></list>"
        )
        wanted = people(("a@b.org", "A", ""))
        assert said(document(reconcile(one, ALICE, wanted))) == wanted

    def test_a_list_whose_name_is_taken_gets_another(self) -> None:
        one = lists("<list name='l'><display-name>M</display-name></list>")
        wanted = people(("a@b.org", "", "l"))
        octets = reconcile(one, ALICE, wanted)
        assert said(document(octets)) == wanted
        assert b'<list name="l-2"><display-name>l</display-name>' in octets

    def test_groups_that_mean_none_here_do_not_count(self) -> None:
        wanted = people(("a@b.org", "", "contacts,oma_x"))
        assert wanted["im:a@b.org"].groups == frozenset()


# --- properties -----------------------------------------------------------------------------------------------------

GROUPS = st.sampled_from(["Friends", "l", "M", "Büro & <Co>", "a'b\"c"])
PEOPLE = st.lists(
    st.builds(
        lambda local, name, groups: person(Address.parse(f"im:{local}@b.org"), name, groups),
        st.sampled_from("abcde"),
        st.sampled_from(["", "A", "É & <x>", "]]>"]),
        st.sets(GROUPS, max_size=3),
    ),
    max_size=5,
).map(lambda found: {one.address.key: one for one in found})
ENTRIES = st.builds(
    "<{0}entry uri='{1}:{2}@b.org'{3}".format,
    st.just(""),
    st.sampled_from(["sip", "im", "tel"]),
    st.sampled_from("abcd"),
    st.sampled_from(["/>", " ></entry>", "><display-name>A</display-name></entry>", "><x:y xmlns:x='u:x'/></entry>"]),
)


def _list(name: str, display: str, entries: list[str], inside: str) -> str:
    unique = {entry.split("'")[1]: entry for entry in entries}
    return f"<list{name}>{display}{' '.join(unique.values())}{inside}</list>"


NESTED = st.just("") | st.builds(
    _list,
    st.sampled_from([" name='l'", ""]),
    st.just(""),
    st.lists(ENTRIES, max_size=2),
    st.just("<x:y xmlns:x='u:x'/>"),
)
DOCUMENTS = st.lists(
    st.builds(
        _list,
        st.sampled_from(["", " name='l'", " name='M'", " name='contacts'", " name='oma_x'"]),
        st.sampled_from(["", "<display-name>l</display-name>"]),
        st.lists(ENTRIES, max_size=3),
        NESTED,
    ),
    max_size=3,
    unique_by=lambda text: text.partition(">")[0] if "name=" in text.partition(">")[0] else text + str(id(text)),
).map(lambda parts: lists("<!-- c -->" + "\n".join(parts)))


@given(DOCUMENTS, PEOPLE)
def test_a_reconciled_document_says_what_is_wanted_and_then_stays(one: Document, wanted: dict[str, Person]) -> None:
    octets = reconcile(one, ALICE, wanted)
    again = document(octets)
    assert said(again) == wanted
    assert reconcile(again, ALICE, wanted) == octets
    assert octets.count(b"tel:") == one.octets.count(b"tel:")
    assert octets.count(b"<x:y") >= one.octets.count(b"<x:y") - one.octets.count(b"<entry")


@given(DOCUMENTS)
def test_what_a_document_says_leaves_it_alone(one: Document) -> None:
    assert reconcile(one, ALICE, said(one)) == one.octets

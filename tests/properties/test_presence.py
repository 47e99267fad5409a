"""Properties of presence documents: what is built reads as it was given, and no octets get anything but a view or MalformedMessage."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.composition import Publication, compose_presence
from comity.cpim.presence import BasicStatus, Component, Note, PresenceDocument, PresenceTuple
from comity.cpim.presence_rules import Permissions, SubHandling, UserInputGrant, filter_document
from comity.cpim.presence_state import Availability, PresenceState, document_state, state_document
from comity.cpim.presence_writer import build
from comity.cpim.rpid import RPID, Choice, UserInput
from comity.errors import MalformedMessage
from comity.xml import Element, is_xml_text

BOB = Address("pres", "bob", "example.com")
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(is_xml_text)
TRIMMED = TEXT.map(lambda text: text.strip(" \t\r\n"))
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9._-]{0,8}", fullmatch=True)
TIMES = st.datetimes(min_value=datetime(1000, 1, 1), timezones=st.just(UTC)).map(
    lambda when: when.replace(microsecond=when.microsecond // 1000 * 1000)
)
NOTES = st.lists(st.builds(Note, TEXT, st.sampled_from(["", "en", "de-AT"])), max_size=3).map(tuple)
PRIORITIES = st.none() | st.integers(0, 1000).map(lambda thousandths: Decimal(thousandths).scaleb(-3))
NAMESPACES = st.sampled_from(["urn:x", "urn:y", RPID, "http://example.com/?a=1&b='2'"])
ELEMENTS = st.recursive(
    st.builds(
        lambda space, name, text: Element(f"{{{space}}}{name}", {}, [text] if text else []), NAMESPACES, NAMES, TEXT
    ),
    lambda inner: st.builds(
        lambda space, name, attributes, children: Element(f"{{{space}}}{name}", attributes, children),
        NAMESPACES,
        NAMES,
        st.dictionaries(NAMES | NAMES.map(lambda name: f"{{urn:a}}{name}"), TEXT, max_size=3),
        st.lists(inner, max_size=3),
    ),
    max_leaves=6,
)
EXTENSIONS = st.lists(ELEMENTS, max_size=2).map(tuple)
TUPLES = st.builds(
    PresenceTuple,
    st.just(""),
    st.sampled_from(BasicStatus),
    TRIMMED,
    PRIORITIES,
    NOTES,
    st.none() | TIMES,
    EXTENSIONS,
    EXTENSIONS,
).map(lambda one: one if one.contact else replace(one, priority=None))
PERSONS = st.builds(Component, st.just(""), st.just(""), NOTES, st.none() | TIMES, EXTENSIONS)
DEVICES = st.builds(Component, st.just(""), NAMES.map("urn:x:{}".format), NOTES, st.none() | TIMES, EXTENSIONS)
PARTS = st.tuples(
    st.lists(TUPLES, max_size=3).map(lambda parts: [replace(one, id=f"t{index}") for index, one in enumerate(parts)]),
    st.lists(PERSONS, max_size=2).map(lambda parts: [replace(one, id=f"p{index}") for index, one in enumerate(parts)]),
    st.lists(DEVICES, max_size=2).map(lambda parts: [replace(one, id=f"d{index}") for index, one in enumerate(parts)]),
)


@given(parts=PARTS, notes=NOTES, extensions=EXTENSIONS)
def test_what_is_built_reads_as_it_was_given(
    parts: tuple[list[PresenceTuple], list[Component], list[Component]],
    notes: tuple[Note, ...],
    extensions: tuple[Element, ...],
) -> None:
    tuples, persons, devices = parts
    view = build(BOB.uri, tuples, notes=notes, persons=persons, devices=devices, extensions=extensions)
    assert view.presentity == BOB
    assert list(view.tuples) == tuples
    assert (list(view.persons), list(view.devices)) == (persons, devices)
    assert (view.notes, view.extensions) == (notes, extensions)
    assert view.flags == ()
    read = PresenceDocument.parse(view.raw)
    assert [getattr(read, field.name) for field in fields(read)] == [
        getattr(view, field.name) for field in fields(view)
    ]
    again = build(
        view.entity, view.tuples, notes=notes, persons=view.persons, devices=view.devices, extensions=view.extensions
    )
    assert again.raw == view.raw


STATES = st.builds(
    PresenceState,
    st.sampled_from([state for state in Availability if state is not Availability.UNKNOWN]),
    NOTES,
    PRIORITIES,
    st.none()
    | st.builds(
        UserInput,
        st.booleans(),
        st.none() | TIMES.map(lambda at: at.replace(microsecond=0)),
        st.none() | st.integers(1, 99),
    ),
    st.sampled_from([Choice(), Choice(("vacation",)), Choice(("meeting", "on-the-phone"))]),
)


@given(STATES)
def test_a_state_survives_its_document(state: PresenceState) -> None:
    """T9: what is told comes back; offline says nothing of what is done."""
    view = state_document(BOB, "ID-x", state, NOON)
    assert view is not None
    back = document_state(view, NOON)
    assert (back.availability, back.notes, back.priority) == (state.availability, state.notes, state.priority)
    if state.availability is Availability.OFFLINE:
        assert (back.user_input, back.activities) == (None, Choice())
    else:
        assert back.user_input == state.user_input
        # Where there is no ``show``, what contradicts the state is not told.
        told = () if state.availability is Availability.AVAILABLE else state.activities.names
        assert back.activities.names == told or not state.activities.names


@given(st.lists(st.tuples(PARTS, st.integers(0, 90), st.booleans()), max_size=4), st.none() | st.integers(-60, 60))
def test_whatever_is_published_can_be_composed(
    published: list[tuple[tuple[list[PresenceTuple], list[Component], list[Component]], int, bool]], last: int | None
) -> None:
    """PRES-8, PRES-12, PRES-21: distinct ids, nothing from the future, always newer than the last."""
    publications = []
    for index, ((tuples, persons, devices), age, with_note) in enumerate(published):
        notes = [Note("hi")] if with_note else []
        view = build(BOB.uri, tuples, notes=notes, persons=persons, devices=devices)
        at = NOON - timedelta(minutes=age)
        publications.append(Publication(f"k{index}", view, at, at + timedelta(hours=1)))
    before = None if last is None else NOON + timedelta(seconds=last)
    composed = compose_presence(BOB, publications, NOON, last=before)
    document = composed.document
    assert composed == compose_presence(BOB, reversed(publications), NOON, last=before)
    ids = [part.id for part in document.tuples] + [part.id for part in (*document.persons, *document.devices)]
    assert len(set(ids)) == len(ids)
    assert document.flags == ()
    assert document.tuples
    assert document.date_time is not None
    newest = max(NOON, before + timedelta(milliseconds=1)) if before else NOON
    assert document.date_time <= newest
    assert before is None or document.date_time > before
    live = [p for p in publications if p.expires > NOON]
    assert len([p for p in live for _ in p.document.tuples]) in (len(document.tuples), 0)


MEMBERS = st.sampled_from(
    [
        frozenset(),
        frozenset({("all", "")}),
        frozenset({("occurrence-id", "t0"), ("occurrence-id", "p0"), ("occurrence-id", "d0")}),
    ]
)
PERMISSIONS = st.builds(
    Permissions,
    st.just(SubHandling.ALLOW),
    MEMBERS,
    MEMBERS,
    MEMBERS,
    st.frozensets(st.sampled_from(["provide-note", "provide-class", "provide-activities"])),
    st.sampled_from(UserInputGrant),
    st.frozensets(st.builds("{{{}}}{}".format, NAMESPACES, NAMES)),
    st.booleans(),
)


@given(PARTS, NOTES, EXTENSIONS, PERMISSIONS)
def test_filtering_twice_is_filtering_once(
    parts: tuple[list[PresenceTuple], list[Component], list[Component]],
    notes: tuple[Note, ...],
    extensions: tuple[Element, ...],
    granted: Permissions,
) -> None:
    """ACL-17: F(F(D)) = F(D); and F adds nothing."""
    tuples, persons, devices = parts
    view = build(BOB.uri, tuples, notes=notes, persons=persons, devices=devices, extensions=extensions)
    once = filter_document(view, granted)
    assert filter_document(once, granted) == once
    assert {one.id for one in once.tuples} <= {one.id for one in tuples}
    assert once.namespaces <= view.namespaces
    assert len(once.raw) <= len(view.raw)


PIECES = st.sampled_from(
    (
        *(
            b"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:a@b.example'>",
            b"</presence>",
            b"<tuple id='a'>",
        ),
        *(
            b"</tuple>",
            b"<status>",
            b"</status>",
            b"<basic>open</basic>",
            b"<basic>",
            b"</basic>",
            b"<note xml:lang='en'>",
        ),
        *(
            b"</note>",
            b"<contact priority='0.5'>im:a@b.example</contact>",
            b"<timestamp>2026-11-23T12:00:00Z</timestamp>",
        ),
        *(
            b"<person xmlns='urn:ietf:params:xml:ns:pidf:data-model' id='p'>",
            b"</person>",
            b"<!-- c -->",
            b"<![CDATA[x]]>",
        ),
        *(
            b"<activities xmlns='urn:ietf:params:xml:ns:pidf:rpid' until='2027-01-01T00:00:00Z'><busy/></activities>",
            b"<x/>",
        ),
        *(
            b"<?xml version='1.0' encoding='UTF-8'?>",
            b"<!DOCTYPE x>",
            b"&amp;",
            b"&x;",
            b"\xff",
            b"\xc3\xbc",
            b" ",
            b"\r\n",
        ),
    )
)
OCTETS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=25).map(b"".join))


@given(OCTETS)
def test_any_octets_give_a_view_or_malformed_message(octets: bytes) -> None:
    """PRES-14."""
    try:
        view = PresenceDocument.parse(octets)
    except MalformedMessage:
        return
    assert view.raw == octets
    document_state(view, NOON)

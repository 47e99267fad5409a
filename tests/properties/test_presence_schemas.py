"""What we write is valid by the RFCs' own schemas, and a second reader (lxml) reads in it, and in anything, what we read.

RFC 4479 section 5: "Presence documents created according to this model MUST be valid".
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from lxml import etree

from comity.cpim.composition import Publication, compose_presence
from comity.cpim.documents import walk
from comity.cpim.presence import PIDF, Component, PresenceDocument, PresenceTuple
from comity.cpim.presence_rules import Permissions, filter_document
from comity.cpim.presence_state import PresenceState, offline_document, state_document, tuple_id_of
from comity.cpim.presence_writer import build
from comity.cpim.rpid import RPID
from comity.cpim.watchers import SubscriptionEvent, SubscriptionState, WatcherEntry, WatcherList, build_watcherinfo
from comity.errors import MalformedMessage
from tests.properties.test_presence import BOB, NOON, OCTETS, PARTS, PERMISSIONS, STATES

FOLDER = Path(__file__).parents[1] / "conformance"
Parts = tuple[list[PresenceTuple], list[Component], list[Component]]


@cache
def schema(name: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(FOLDER / f"schemas/{name}.xsd"), etree.XMLParser(no_network=True)))


def is_valid(octets: bytes, name: str = "presence") -> bool:
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    found: bool = schema(name).validate(etree.fromstring(octets, parser))
    return found


def why(name: str = "presence") -> str:
    return str(schema(name).error_log)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("rfc3863/*.xml", "presence"),
        ("rfc8048/[56].*.xml", "presence"),
        ("rfc4745/*.xml", "rules"),
        ("rfc5025/*.xml", "rules"),
        ("rfc3858/*.xml", "watcherinfo"),
    ],
)
def test_the_examples_are_valid(pattern: str, name: str) -> None:
    paths = sorted(FOLDER.glob(pattern))
    assert paths
    for path in paths:
        assert is_valid(path.read_bytes(), name), why(name)


def test_the_schema_too_finds_that_rfc_4479_forgot_the_entity() -> None:
    """PRES-2."""
    assert not is_valid((FOLDER / "rfc4479/7.1.xml").read_bytes())
    assert "'entity' is required" in why()


def test_the_schema_does_not_know_the_sphere_of_the_example_of_rfc_4480() -> None:
    """Section 4 has text where section 5.1 wants an element; we read both (``rpid.py``)."""
    raw = (FOLDER / "rfc4480/4.xml").read_bytes()
    assert not is_valid(raw)
    assert "rpid}sphere" in why()
    assert is_valid(raw.replace(b"bowling league", b"<x xmlns='urn:x'/>")), why()


@given(STATES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_the_document_of_a_state_is_valid(state: PresenceState, resource: str) -> None:
    """PRES-5, PRES-8, X18: ids are xs:ID whatever the resource."""
    view = state_document(BOB, tuple_id_of(resource), state, NOON)
    assert view is not None
    assert is_valid(view.raw), why()
    assert is_valid(offline_document(BOB, NOON).raw), why()


@given(st.lists(PARTS, max_size=3), PERMISSIONS)
def test_what_is_composed_and_filtered_is_valid(published: list[Parts], granted: Permissions) -> None:
    """PRES-21: ids are xs:ID and unique, whatever was published."""
    publications = []
    for index, (tuples, persons, devices) in enumerate(published):
        named = [replace(one, contact="im:bob@example.com" if one.contact else "") for one in tuples]
        view = build(BOB.uri, named, persons=persons, devices=devices)
        # What is said in RPID's namespace is the publisher's to keep valid; all else has no schema here.
        extensions = [e for one in view.tuples for e in (*one.extensions, *one.status_extensions)]
        extensions += [e for part in (*view.persons, *view.devices) for e in part.extensions]
        assume(not any(inner.namespace == RPID for e in extensions for inner in walk(e)))
        publications.append(Publication(str(index), view, NOON, NOON + timedelta(hours=1)))
    composed = compose_presence(BOB, publications, NOON).document
    assert is_valid(composed.raw), why()
    assert is_valid(filter_document(composed, granted).raw), why()


@given(st.integers(0, 2**32 - 1), st.booleans(), st.sampled_from(SubscriptionState), st.sampled_from(SubscriptionEvent))
def test_watcher_information_is_valid(
    version: int, full: bool, state: SubscriptionState, event: SubscriptionEvent
) -> None:
    """PRES-24."""
    entry = WatcherEntry("pres:a@b.example", "i1", state, event, "A & <B>", "en", 3600, 0)
    made = build_watcherinfo(version, [WatcherList(BOB.uri, "presence", (entry,))], is_full=full)
    assert is_valid(made.raw, "watcherinfo"), why("watcherinfo")


def _seen_by_lxml(octets: bytes) -> tuple[str | None, list[tuple[str, list[str]]]]:
    root = etree.fromstring(octets, etree.XMLParser(resolve_entities=False, no_network=True, strip_cdata=True))
    tuples = root.findall(f"{{{PIDF}}}tuple")
    said = [
        (
            one.get("id", "").strip(" \t\r\n"),
            ["".join(b.xpath("text()")) for b in one.findall(f"{{{PIDF}}}status/{{{PIDF}}}basic")],
        )
        for one in tuples
    ]
    return root.get("entity"), said


@given(OCTETS)
def test_two_readers_see_one_state(octets: bytes) -> None:
    """T5 of the threat model: what we read another reader reads too, or we refuse it."""
    try:
        view = PresenceDocument.parse(octets)
    except MalformedMessage:
        return
    entity, said = _seen_by_lxml(octets)
    assert entity is not None
    assert entity.strip(" \t\r\n") == view.entity
    assert [id for id, _ in said] == [one.id for one in view.tuples]
    for (_, basics), one in zip(said, view.tuples, strict=True):
        expected = basics[0] if basics and basics[0] in ("open", "closed") else None
        assert (one.basic_status.value if one.basic_status else None) == expected

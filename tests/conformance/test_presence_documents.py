"""The presence documents printed in RFC 3863, 4479, 4480 and 8048, each a file beside its expectation."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.presence import BasicStatus, Note, PresenceDocument, is_understood
from comity.errors import MalformedMessage

FOLDER = Path(__file__).parent
SOMEONE = Address("pres", "someone", "example.com")


def example(rfc: str, name: str) -> PresenceDocument:
    return PresenceDocument.parse((FOLDER / rfc / f"{name}.xml").read_bytes())


@pytest.mark.parametrize("name", ["4.2.2-prefix", "4.2.2-default", "4.2.4", "4.3.1", "4.3.2", "4.3.3"])
def test_examples_of_rfc_3863_are_about_someone_who_is_open(name: str) -> None:
    """PRES-2, PRES-9."""
    view = example("rfc3863", name)
    assert (view.presentity, view.flags) == (SOMEONE, ())
    assert {t.basic_status for t in view.tuples} == {BasicStatus.OPEN}


def test_prefix_and_default_namespace_say_the_same() -> None:
    """RFC 3863 section 4.2.2."""
    prefix, default = example("rfc3863", "4.2.2-prefix"), example("rfc3863", "4.2.2-default")
    assert prefix.tuples == default.tuples
    assert (prefix.tuples[0].contact, prefix.tuples[0].priority) == ("tel:+09012345678", Decimal("0.8"))


def test_status_extensions_notes_and_timestamp() -> None:
    """RFC 3863 section 4.3.1; PRES-7, PRES-8."""
    view = example("rfc3863", "4.3.1")
    first, second = view.tuples
    assert [(e.name, e.text) for e in first.status_extensions] == [
        ("{urn:ietf:params:xml:ns:pidf:im}im", "busy"),
        ("{http://id.example.com/presence/}location", "home"),
    ]
    assert first.notes == (Note("Don't Disturb Please!", "en"), Note("Ne derangez pas, s'il vous plait", "fr"))
    assert view.date_time == datetime(2001, 10, 27, 16, 49, 29, tzinfo=UTC)
    assert (second.id, second.contact, second.priority) == ("eg92n8", "mailto:someone@example.com", Decimal(1))
    assert view.notes == (Note("I'll be in Tokyo next week"),)


def test_other_extensions_stand_in_tuple_and_root() -> None:
    """RFC 3863 section 4.3.2; a contact is a URI, so the line end around it does not count."""
    view = example("rfc3863", "4.3.2")
    assert [e.name for e in view.tuples[0].extensions] == ["{http://id.example.com/presence/}mytupletag"]
    assert [e.name for e in view.extensions] == ["{http://id.example.com/presence/}mytag"]
    assert view.tuples[1].contact == "im:someone@mobilecarrier.net"


def test_an_unknown_mandatory_element_voids_its_extension_only() -> None:
    """PRES-10, X15: RFC 3863 section 4.3.3."""
    view = example("rfc3863", "4.3.3")
    (only,) = view.tuples
    (extension,) = only.extensions
    names = [f"{{http://id.mycompany.com/presence/}}{name}" for name in ("complexExtension", "ex1", "ex2")]
    assert is_understood(extension, names)
    assert is_understood(extension, names[:2])
    assert not is_understood(extension, [names[0], names[2]])
    assert only.basic_status is BasicStatus.OPEN


def test_the_example_of_rfc_4479_lacks_an_entity() -> None:
    """PRES-2: section 7.1 forgets it; with one, its three components are read."""
    raw = (FOLDER / "rfc4479/7.1.xml").read_bytes()
    with pytest.raises(MalformedMessage, match="no entity"):
        PresenceDocument.parse(raw)
    view = PresenceDocument.parse(raw.replace(b"<presence ", b"<presence entity='pres:someone@example.com' "))
    assert [t.id for t in view.tuples] == ["sg89ae"]
    assert [p.id for p in view.persons] == ["p1"]
    assert [(d.id, d.device_id) for d in view.devices] == [("pc122", "mac:8asd7d7d70")]


def test_the_example_of_rfc_4480_has_every_component() -> None:
    """RFC 4480 section 4."""
    view = example("rfc4480", "4")
    assert (view.presentity, view.flags) == (SOMEONE, ())
    assert [(t.id, t.priority) for t in view.tuples] == [
        ("bs35r9", Decimal("0.8")),
        ("ty4658", Decimal(1)),
        ("eg92n8", Decimal(1)),
    ]
    assert [(d.id, d.device_id, d.notes) for d in view.devices] == [
        ("pc147", "urn:device:0003ba4811e3", (Note("PC"),)),
    ]
    (person,) = view.persons
    assert person.timestamp == datetime(2005, 5, 30, 11, 9, 44, tzinfo=UTC)
    assert view.person_notes(person) == (Note("Scoring 120"),)
    assert view.date_time == datetime(2005, 10, 27, 16, 49, 29, tzinfo=UTC)


@pytest.mark.parametrize(
    ("name", "who", "id", "basic"),
    [
        ("5.2.1", "romeo@example.net", "ID-dr4hcr0st3lup4c", BasicStatus.OPEN),
        ("6.2", "juliet@example.com", "ID-yn0cl4bnw0yr3vym", BasicStatus.OPEN),
        ("6.3", "romeo@example.net", "ID-dr4hcr0st3lup4c", BasicStatus.CLOSED),
    ],
)
def test_examples_of_rfc_8048_are_read(name: str, who: str, id: str, basic: BasicStatus) -> None:
    view = example("rfc8048", name)
    assert view.presentity == Address("pres", *who.split("@"))
    assert [(t.id, t.basic_status) for t in view.tuples] == [(id, basic)]

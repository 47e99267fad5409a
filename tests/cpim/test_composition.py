"""Composition: several publications to one document (PRES-21, PRES-22, SEED-46)."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comity.cpim.address import Address
from comity.cpim.composition import COMPOSED_TYPE, Composed, Publication, compose_presence
from comity.cpim.operations import MimeObject
from comity.cpim.presence import (
    DATA_MODEL,
    PIDF,
    BasicStatus,
    Note,
    PresenceDocument,
    PresenceLimits,
    PresenceTuple,
)
from comity.cpim.presence_state import Availability, PresenceState, document_state, offline_document, state_document
from comity.cpim.presence_writer import build
from comity.cpim.rpid import RPID
from comity.errors import LocalProtocolError, MalformedMessage
from comity.xml import Element

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
PRINTED = Path(__file__).parents[1] / "conformance"
BOB = Address("pres", "bob", "example.com")


def document(inner: str, entity: str = "pres:bob@example.com") -> PresenceDocument:
    head = f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" xmlns:r="{RPID}" entity="{entity}">'
    return PresenceDocument.parse(f"{head}{inner}</presence>".encode())


def tuple_of(basic: str = "open", id: str = "a", more: str = "") -> str:
    return f"<tuple id='{id}'><status><basic>{basic}</basic></status>{more}</tuple>"


def published(key: str, inner: str = tuple_of(), age: int = 1, lease: int = 60, signed: bool = False) -> Publication:
    """A publication made ``age`` minutes before noon for ``lease`` minutes."""
    view = document(inner)
    at = NOON - age * MINUTE
    entity = MimeObject.of('multipart/signed; boundary="x"', b"not looked into here") if signed else None
    return Publication(key, view, at, at + lease * MINUTE, entity)


def compose(*publications: Publication, now: datetime = NOON, last: datetime | None = None) -> Composed:
    return compose_presence(BOB, publications, now, last=last)


def printed_documents() -> list[PresenceDocument]:
    """What the RFCs print that is a presence document about somebody; they print rules and lists too."""
    views = []
    for path in sorted(PRINTED.glob("rfc*/*.xml")):
        with contextlib.suppress(MalformedMessage):  # a document of another kind
            views.append(PresenceDocument.parse(path.read_bytes()))
    return [view for view in views if view.presentity is not None]


class TestJoining:
    def test_equal_ids_of_two_user_agents_become_two(self) -> None:
        """PRES-21."""
        composed = compose(published("phone"), published("desk", tuple_of("closed")))
        ids = [one.id for one in composed.document.tuples]
        assert len(set(ids)) == 2
        assert composed.document.flags == ()

    def test_ids_stay_over_updates_and_whoever_else_comes_or_goes(self) -> None:
        """PRES-21: stable over updates."""
        alone = compose(published("phone")).document.tuples[0].id
        together = compose(published("phone", tuple_of("closed")), published("desk", age=0)).document.tuples
        assert [one.id for one in together if one.basic_status and one.basic_status.value == "closed"] == [alone]

    def test_the_same_publications_give_the_same_octets_in_any_order(self) -> None:
        a, b, c = published("a"), published("b", age=2), published("c", tuple_of("closed"), age=2)
        assert compose(a, b, c).document == compose(c, a, b).document

    @pytest.mark.parametrize("view", printed_documents(), ids=lambda view: view.entity)
    def test_what_is_written_is_viewed_as_who_reads_it_views_it(self, view: PresenceDocument) -> None:
        """The writer's view is made without reading; every document that the RFCs print, composed."""
        assert view.presentity is not None
        at = Publication("k", view, NOON - MINUTE, NOON + MINUTE)
        made = compose_presence(view.presentity, [at], NOON).document
        read = PresenceDocument.parse(made.raw)
        for field in dataclasses.fields(made):
            assert getattr(made, field.name) == getattr(read, field.name), field.name

    @pytest.mark.parametrize(
        "limits",
        [
            PresenceLimits(document=400),
            PresenceLimits(depth=3),
            PresenceLimits(elements=8),
            PresenceLimits(attributes=0),
        ],
    )
    def test_what_is_written_keeps_to_the_limits(self, limits: PresenceLimits) -> None:
        """CONSTR-1: as if it had been read."""
        one = PresenceTuple("a", BasicStatus.OPEN, status_extensions=(Element("{urn:x}y", {"z": "1"}),))
        assert PresenceDocument.parse(build("pres:bob@example.com", [one]).raw)
        with pytest.raises(MalformedMessage) as refused:
            build("pres:bob@example.com", [replace(one, id=f"a{n}") for n in range(4)], limits=limits)
        assert refused.value.hint == "size"

    def test_everything_is_kept_but_what_is_over(self) -> None:
        """PRES-3: conflicting tuples coexist; extensions are carried whole; a lease that ended counts no more."""
        odd = "<e:odd xmlns:e='urn:e' a='1'><e:deep b='2'>&lt;text&gt;</e:deep></e:odd>"
        view = compose(
            published("a", tuple_of(more=odd) + odd),
            published("b", tuple_of("closed")),
            published("gone", age=60, lease=60),
        ).document
        assert {one.basic_status for one in view.tuples} == {BasicStatus.OPEN, BasicStatus.CLOSED}
        assert len(view.tuples) == 2
        extension = document(odd).extensions[0]
        assert [e for one in view.tuples for e in one.extensions] == [extension]
        assert list(view.extensions) == [extension]

    def test_higher_priorities_come_first(self) -> None:
        def contact(priority: str) -> str:
            return tuple_of(more=f"<contact priority='{priority}'>im:bob@example.com</contact>")

        view = compose(
            published("a", contact("0.2"), age=0), published("b"), published("c", contact("0.9"), age=5)
        ).document
        assert [str(one.priority) for one in view.tuples] == ["0.9", "0.2", "None"]

    def test_root_notes_stay_with_the_persons_of_their_publication(self) -> None:
        """PRES-15: another publication's person does not inherit them."""
        phone = published("phone", tuple_of() + "<note>in Tokyo</note><dm:person id='p'/>")
        desk = published(
            "desk", tuple_of() + "<dm:person id='p'><dm:note>at work</dm:note></dm:person><dm:person id='q'/>"
        )
        bare = published("bare", tuple_of() + "<note>hello</note>")
        view = compose(phone, desk, bare).document
        assert view.notes == ()
        assert sorted((view.person_notes(person) for person in view.persons), key=str) == [
            (),
            (Note("at work"),),
            (Note("hello"),),
            (Note("in Tokyo"),),
        ]
        assert compose(bare).document.notes == (Note("hello"),)

    def test_a_tuple_that_says_no_status_is_left_out(self) -> None:
        """PRES-5, PRES-17."""
        view = compose(
            published("a", "<tuple id='x'><status/></tuple>" + tuple_of("Open", "y") + tuple_of("open", "z"))
        ).document
        assert len(view.tuples) == 1

    def test_with_nothing_live_the_presentity_is_offline(self) -> None:
        """OPS-32: the document of whoever is nowhere, as polite blocking shows it."""
        assert compose().document == offline_document(BOB, NOON)
        assert compose(published("a", age=90)).document == offline_document(BOB, NOON)
        assert compose(published("a", "<note>hi</note>")).document.tuples == offline_document(BOB, NOON).tuples

    def test_documents_made_here_keep_their_ids(self) -> None:
        """RFC 8048 section 6.2: the id tells the resource."""
        made = state_document(BOB, "ID-phone", PresenceState(Availability.AWAY), NOON)
        assert made is not None
        composed = compose(
            Publication("x", made, NOON, NOON + MINUTE, keeps_ids=True), published("b", tuple_of("closed"))
        )
        assert "ID-phone" in [one.id for one in composed.document.tuples]
        assert document_state(composed.document, NOON).availability is Availability.AWAY

    def test_a_document_about_somebody_else_is_an_error(self) -> None:
        """N-19."""
        foreign = Publication("a", document(tuple_of(), "pres:carol@example.com"), NOON, NOON + MINUTE)
        with pytest.raises(LocalProtocolError, match="somebody else"):
            compose(foreign)
        with pytest.raises(LocalProtocolError, match="one key"):
            compose(published("a"), published("a"))
        same = Publication("a", document(tuple_of(), "sip:BOB@example.com"), NOON, NOON + MINUTE)
        assert compose(same).document.entity == "pres:bob@example.com"


class TestTime:
    def test_every_tuple_has_a_timestamp_and_none_lies_in_the_future(self) -> None:
        """PRES-8, N-22."""
        future = "<timestamp>2099-01-01T00:00:00Z</timestamp>"
        view = compose(published("a", tuple_of(more=future)), published("b", age=3)).document
        assert sorted(one.timestamp for one in view.tuples if one.timestamp) == [NOON - 3 * MINUTE, NOON]

    def test_a_device_that_goes_makes_a_newer_document(self) -> None:
        """PRES-12: the watcher would ignore a document whose newest timestamp is older than the last one's."""
        both = compose(published("old", age=10), published("new", age=1)).document
        without = compose(published("old", age=10), now=NOON + MINUTE, last=both.date_time).document
        assert both.date_time is not None
        assert not without.is_outdated(both.date_time)
        assert without.date_time == NOON + MINUTE

    def test_two_changes_in_one_millisecond_have_two_timestamps(self) -> None:
        """PRES-8."""
        first = compose(published("a", age=0)).document
        second = compose(published("a", tuple_of("closed"), age=0), last=first.date_time).document
        assert first.date_time is not None
        assert second.date_time == first.date_time + timedelta(milliseconds=1)

    def test_what_is_over_is_not_shown_and_what_ends_next_is_told(self) -> None:
        """PRES-19."""
        person = (
            "<dm:person id='p'><r:activities until='2026-11-23T12:00:00Z'><r:meeting/></r:activities>"
            "<r:mood until='2026-11-23T12:05:00Z'><r:happy/></r:mood>"
            "<r:sphere from='2026-11-23T12:03:00Z'><r:home/></r:sphere></dm:person>"
        )
        composed = compose(published("a", tuple_of() + person))
        assert b"meeting" not in composed.document.raw
        assert b"happy" in composed.document.raw
        assert composed.next_change == NOON + 3 * MINUTE
        assert compose(published("a", lease=2)).next_change == NOON + MINUTE
        assert compose().next_change is None


class TestSignature:
    """SEED-46, PRES-22."""

    def test_a_signed_document_that_is_all_there_is_goes_whole(self) -> None:
        publication = published("a", signed=True)
        composed = compose(publication)
        assert composed.object is publication.signed
        assert composed.document is publication.document
        assert composed.dropped_signatures == ()

    def test_composing_drops_the_signature_and_says_so(self) -> None:
        composed = compose(published("a", signed=True), published("b", tuple_of("closed")))
        assert composed.object == MimeObject.of(COMPOSED_TYPE, composed.document.raw)
        assert b"signed" not in composed.object.entity
        assert composed.dropped_signatures == ("a",)
        assert len(composed.document.tuples) == 2

    def test_an_outdated_signed_document_is_composed_rather_than_ignored(self) -> None:
        """PRES-12: otherwise the watcher would go on showing the device that has gone."""
        signed = published("a", tuple_of(more="<timestamp>2026-11-23T11:00:00Z</timestamp>"), signed=True)
        composed = compose(signed, last=NOON - MINUTE)
        assert composed.dropped_signatures == ("a",)
        assert composed.document.date_time == NOON

    def test_a_signed_document_from_the_future_is_composed(self) -> None:
        """N-22: whole it would make watchers ignore every later document until then."""
        for minutes, is_whole in ((5, True), (6, False)):
            stamp = (NOON + minutes * MINUTE).strftime("%Y-%m-%dT%H:%M:%SZ")
            signed = published("a", tuple_of(more=f"<timestamp>{stamp}</timestamp>"), signed=True)
            composed = compose(signed)
            assert (composed.object is signed.signed) is is_whole
            assert composed.dropped_signatures == (() if is_whole else ("a",))

    def test_an_unsigned_one_is_always_composed(self) -> None:
        """PRES-21: else its ids would change when a second device comes."""
        publication = published("a")
        composed = compose(publication)
        assert composed.document.tuples[0].id != publication.document.tuples[0].id
        assert PresenceDocument.of(composed.object) == composed.document


class TestRoom:
    def test_what_has_no_room_is_left_out_the_oldest_first(self) -> None:
        """CONSTR-1."""
        publications = [
            published(key, f"{tuple_of()}<note>{key * 1500}</note>", age=age)
            for key, age in (("a", 3), ("b", 1), ("c", 2))
        ]
        composed = compose_presence(BOB, publications, NOON, limits=PresenceLimits(document=2500))
        assert (composed.left_out, len(composed.document.tuples)) == (("a", "c"), 1)
        assert compose_presence(
            BOB, publications, NOON, limits=PresenceLimits(document=600)
        ).document == offline_document(BOB, NOON)

    def test_a_name_that_cannot_be_written_takes_only_its_extension_along(self) -> None:
        """Names with combining marks are XML, but our writer does not know them; nobody's presence may suffer."""
        strange = "<e:a\u0301\u0300 xmlns:e='u:e'/>"
        composed = compose(published("strange", tuple_of(more=strange) + strange), published("good"))
        assert (composed.left_out, len(composed.document.tuples)) == ((), 2)
        assert "u:e" not in composed.document.namespaces


def test_examples_of_rfc_3863_survive_composition() -> None:
    """PRES-13's opposite: at the presence server they are joined, extensions and all (PRES-21)."""
    folder = Path(__file__).parents[1] / "conformance/rfc3863"
    someone = Address("pres", "someone", "example.com")
    for path in sorted(folder.glob("*.xml")):
        view = PresenceDocument.parse(path.read_bytes())
        composed = compose_presence(someone, [Publication("k", view, NOON, NOON + MINUTE)], NOON).document
        assert composed.namespaces == view.namespaces
        assert [one.status_extensions for one in composed.tuples] == [
            one.status_extensions for one in sorted(view.tuples, key=lambda one: -(one.priority or 0))
        ]
        assert composed.extensions == view.extensions

"""Table T9 both ways, and the values of T5 that stand in documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.presence import DATA_MODEL, PIDF, BasicStatus, Note, PresenceDocument
from comity.cpim.presence_state import (
    Availability,
    PresenceState,
    document_state,
    note_in,
    offline_document,
    priority_from_number,
    priority_to_number,
    resource_of,
    state_document,
    tuple_id_of,
    tuple_state,
)
from comity.cpim.presence_writer import build, distinct
from comity.cpim.rpid import RPID, Choice, UserInput
from comity.errors import LocalProtocolError

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOB = Address("pres", "bob", "example.com")
RFC_8048 = Path(__file__).parents[1] / "conformance/rfc8048"


def parse(inner: str) -> PresenceDocument:
    head = f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" xmlns:r="{RPID}" entity="pres:bob@example.com">'
    return PresenceDocument.parse(f"{head}{inner}</presence>".encode())


def one_tuple(basic: str = "open", more: str = "", id: str = "a", status: str = "") -> str:
    said = f"<basic>{basic}</basic>" if basic else ""
    return f"<tuple id='{id}'><status>{said}{status}</status>{more}</tuple>"


def show(value: str) -> str:
    return f"<show xmlns='jabber:client'>{value}</show>"


def doing(*names: str, at: str = "", id: str = "p") -> str:
    stamp = f"<dm:timestamp>{at}</dm:timestamp>" if at else ""
    names_in = "".join(f"<r:{name}/>" for name in names)
    return f"<dm:person id='{id}'><r:activities>{names_in}</r:activities>{stamp}</dm:person>"


class TestDocumentToState:
    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            (one_tuple(), "available"),
            (one_tuple(status=show("chat")), "chat"),
            (one_tuple(status=show("away")), "away"),
            (one_tuple(status=show("xa")), "xa"),
            (one_tuple(status=show("dnd")), "dnd"),
            (one_tuple(more=show("dnd")), "dnd"),  # PRES-16: under tuple as well
            (one_tuple(status=show("party")), "available"),
            (one_tuple(status="<show>away</show>"), "available"),  # not XMPP's
            (one_tuple("closed"), "offline"),
            (one_tuple("closed", status=show("chat")), "offline"),  # closed beats everything
            (one_tuple("closed") + doing("busy"), "offline"),
            (one_tuple(""), "unknown"),
            (one_tuple("Open"), "unknown"),
            (one_tuple("", status=show("away")) + doing("busy"), "unknown"),
            ("", "unknown"),
            (doing("busy"), "unknown"),
            (one_tuple(more="<note>offline</note>"), "available"),  # PRES-7
            *[(one_tuple() + doing(name), "dnd") for name in ("busy", "meeting", "on-the-phone", "presentation")],
            *[(one_tuple() + doing(name), "xa") for name in ("vacation", "travel", "sleeping", "permanent-absence")],
            (one_tuple() + doing("away"), "away"),
            (one_tuple() + doing("away", "meeting"), "dnd"),
            (one_tuple() + doing("dinner", "working"), "available"),
            (one_tuple(status=show("chat")) + doing("busy"), "chat"),  # show comes first
            (one_tuple(more="<r:activities><r:busy/></r:activities>"), "available"),  # PRES-19: not there
            (one_tuple() + "<dm:device id='d'><r:activities><r:busy/></r:activities></dm:device>", "available"),
        ],
    )
    def test_every_row_of_t9(self, document: str, expected: str) -> None:
        """PRES-5, PRES-11, PRES-16, PRES-19; T9."""
        view = parse(document)
        assert document_state(view, NOON).availability is Availability(expected)

    def test_the_most_available_service_speaks_for_all(self) -> None:
        """RFC 8048 section 6.2: of away, dnd and available the last is shown."""
        tuples = one_tuple(status=show("away"), id="1") + one_tuple(status=show("dnd"), id="2") + one_tuple(id="3")
        view = parse(tuples + one_tuple("closed", id="4"))
        assert document_state(view, NOON).availability is Availability.AVAILABLE
        states = [tuple_state(view, one, NOON).availability.value for one in view.tuples]
        assert states == ["away", "dnd", "available", "offline"]

    def test_among_equals_the_highest_priority_and_then_the_latest_speaks(self) -> None:
        def contact(priority: str, note: str, at: str) -> str:
            return (
                f"<contact priority='{priority}'>im:bob@example.com</contact><note>{note}</note>"
                f"<timestamp>2026-11-23T{at}:00Z</timestamp>"
            )

        low, high = contact("0.2", "low", "11:00"), contact("0.9", "high", "10:00")
        assert document_state(parse(one_tuple(more=low) + one_tuple(more=high, id="b")), NOON).notes == (Note("high"),)
        early, late = contact("0.9", "early", "09:00"), contact("0.9", "late", "10:00")
        assert document_state(parse(one_tuple(more=early) + one_tuple(more=late, id="b")), NOON).notes == (
            Note("late"),
        )

    def test_an_assistant_is_somebody_else(self) -> None:
        """RFC 4480 section 3.9."""
        other = one_tuple(more="<r:relationship><r:assistant/></r:relationship>", id="b")
        assert document_state(parse(one_tuple("closed") + other), NOON).availability is Availability.OFFLINE
        assert document_state(parse(other), NOON).availability is Availability.UNKNOWN
        self_ = one_tuple(more="<r:relationship><r:self/></r:relationship>")
        assert document_state(parse(self_), NOON).availability is Availability.AVAILABLE

    def test_of_two_persons_the_one_who_changed_last_says_what_is_done(self) -> None:
        """RFC 4479 section 3.5."""
        old, new = doing("busy", at="2026-11-23T09:00:00Z"), doing("away", at="2026-11-23T10:00:00Z", id="q")
        silent = "<dm:person id='s'><dm:note>hm</dm:note><dm:timestamp>2026-11-23T11:00:00Z</dm:timestamp></dm:person>"
        for order in (old + new + silent, silent + new + old):
            assert document_state(parse(one_tuple() + order), NOON).availability is Availability.AWAY

    def test_a_note_of_the_service_comes_before_one_of_the_person_and_of_the_document(self) -> None:
        person = "<dm:person id='p'><dm:note>person</dm:note></dm:person>"
        assert document_state(parse(one_tuple(more="<note>tuple</note>") + person), NOON).notes == (Note("tuple"),)
        assert document_state(parse(one_tuple() + "<note>root</note>" + person), NOON).notes == (Note("person"),)
        assert document_state(parse(one_tuple() + "<note>root</note>"), NOON).notes == (Note("root"),)

    def test_input_is_that_of_the_service_then_its_device_then_the_person(self) -> None:
        idle, active = "<r:user-input>idle</r:user-input>", "<r:user-input>active</r:user-input>"
        device = f"<dm:device id='d'>{idle}<dm:deviceID>urn:x:1</dm:deviceID></dm:device>"
        on_device = one_tuple(more="<dm:deviceID>urn:x:1</dm:deviceID>")
        assert document_state(parse(on_device + device), NOON).user_input == UserInput(True)
        assert document_state(parse(one_tuple() + device), NOON).user_input is None
        assert document_state(parse(one_tuple(more=active) + device), NOON).user_input == UserInput(False)
        person = f"<dm:person id='p'>{idle}</dm:person>"
        assert document_state(parse(one_tuple() + person), NOON).user_input == UserInput(True)

    @pytest.mark.parametrize(("name", "state"), [("5.2.1", "away"), ("6.2", "away"), ("6.3", "offline")])
    def test_the_documents_of_rfc_8048(self, name: str, state: str) -> None:
        view = PresenceDocument.parse((RFC_8048 / f"{name}.xml").read_bytes())
        assert document_state(view, NOON).availability.value == state
        assert [resource_of(one.id) for one in view.tuples] in (["dr4hcr0st3lup4c"], ["yn0cl4bnw0yr3vym"])


class TestStateToDocument:
    @pytest.mark.parametrize(
        ("state", "basic", "shown", "activity"),
        [
            ("available", "open", "", ""),
            ("chat", "open", "chat", ""),
            ("away", "open", "away", "away"),
            ("xa", "open", "xa", "away"),
            ("dnd", "open", "dnd", "busy"),
            ("offline", "closed", "", ""),
        ],
    )
    def test_every_row_of_t9(self, state: str, basic: str, shown: str, activity: str) -> None:
        """T9, PRES-4, PRES-8, PRES-16."""
        view = state_document(BOB, "ID-phone", PresenceState(Availability(state)), NOON)
        assert view is not None
        (one,) = view.tuples
        assert (view.presentity, one.id, one.contact) == (BOB, "ID-phone", "im:bob@example.com")
        assert one.basic_status is BasicStatus(basic)
        assert [e.text for e in one.status_extensions] == ([shown] if shown else [])
        assert [child.local for p in view.persons for e in p.extensions for child in e.elements()] == (
            [activity] if activity else []
        )
        assert one.timestamp == NOON
        assert view.flags == ()
        assert document_state(view, NOON).availability.value == state

    def test_nothing_is_told_of_what_is_not_known(self) -> None:
        assert state_document(BOB, "a", PresenceState(Availability.UNKNOWN), NOON) is None

    def test_a_vacation_stays_one(self) -> None:
        """T9: vacation if that was the source."""
        state = PresenceState(Availability.XA, activities=Choice(("vacation",)))
        view = state_document(BOB, "a", state, NOON)
        assert view is not None
        assert document_state(view, NOON) == state

    def test_the_last_input_can_be_withheld(self) -> None:
        """PRES-20: RFC 4480 section 3.14."""
        state = PresenceState(Availability.AWAY, user_input=UserInput(True, NOON, 600))
        for with_last_input, expected in ((True, UserInput(True, NOON, 600)), (False, UserInput(True, None, 600))):
            view = state_document(BOB, "a", state, NOON, with_last_input=with_last_input)
            assert view is not None
            assert document_state(view, NOON).user_input == expected
            assert (b"last-input" in view.raw) is with_last_input

    def test_a_note_xml_cannot_hold_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError):
            state_document(BOB, "a", PresenceState(Availability.AWAY, (Note("\x00"),)), NOON)

    def test_always_utf_8_with_a_declaration(self) -> None:
        """PRES-1."""
        view = state_document(BOB, "a", PresenceState(Availability.AWAY, (Note("žluť", "cs"),)), NOON)
        assert view is not None
        assert view.raw.startswith(b'<?xml version="1.0" encoding="UTF-8"?>')
        assert "žluť".encode() in view.raw

    def test_no_two_documents_share_a_timestamp(self) -> None:
        """PRES-8: two updates in one millisecond."""
        first = distinct(NOON + timedelta(microseconds=300), None)
        second = distinct(NOON + timedelta(microseconds=700), first)
        third = distinct(NOON - timedelta(hours=1), second)
        assert [first, second, third] == [NOON, NOON + timedelta(milliseconds=1), NOON + timedelta(milliseconds=2)]

    def test_offline_shows_nothing_but_whose_and_when(self) -> None:
        """T9, ACL-11: one closed tuple, no person, no device."""
        view = offline_document(BOB, NOON)
        (one,) = view.tuples
        assert (one.basic_status, one.notes, one.extensions, one.status_extensions) == (BasicStatus.CLOSED, (), (), ())
        assert (view.persons, view.devices, view.notes, view.extensions) == ((), (), (), ())

    @pytest.mark.parametrize(
        "bad",
        [
            parse("<tuple><status><basic>open</basic></status></tuple>"),
            parse("<tuple id='a'><status/></tuple>"),
            parse("<dm:device id='d'/>"),
        ],
        ids=["no id", "no status", "no device id"],
    )
    def test_what_would_not_be_valid_is_not_written(self, bad: PresenceDocument) -> None:
        """PRES-5: a status has at least one child."""
        with pytest.raises(LocalProtocolError):
            build(bad.entity, bad.tuples, devices=bad.devices)


class TestValues:
    def test_priorities_go_there_and_back(self) -> None:
        """T5: 0 is 0, 127 is 1, all between are unique; a negative one is never mapped."""
        decimals = [priority_from_number(number) for number in range(128)]
        assert len(set(decimals)) == 128
        assert [priority_to_number(decimal) for decimal in decimals] == list(range(128))
        assert [decimals[1], decimals[2], decimals[126], decimals[127]] == [
            Decimal(text) for text in ("0.007", "0.015", "0.992", "1")
        ]
        assert priority_from_number(-1) is None
        assert priority_to_number(None) == 0
        assert priority_to_number(Decimal("0.999")) == 126

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
    def test_a_resource_becomes_an_id_and_comes_back(self, resource: str) -> None:
        """X18: ids are xs:ID, whatever the resource."""
        id = tuple_id_of(resource)
        assert resource_of(id) == resource
        view = state_document(BOB, id, PresenceState(Availability.CHAT), NOON)
        assert view is not None
        assert view.tuples[0].id == id

    def test_an_id_of_foreign_making_is_a_resource_as_it_stands(self) -> None:
        for id in ("sg89ae", "ID-", "IDX-", "IDX-zz", "IDX-ff"):
            assert resource_of(id) == id
        assert (tuple_id_of("dr4hcr0st3lup4c"), tuple_id_of("a b")) == ("ID-dr4hcr0st3lup4c", "IDX-612062")

    def test_a_note_in_the_wanted_language(self) -> None:
        notes = (Note("hi"), Note("ahoj", "cs"))
        assert [note_in(notes, tag) for tag in ("cs", "CS", "de", "")] == ["ahoj", "ahoj", "hi", "hi"]
        assert note_in(()) == ""

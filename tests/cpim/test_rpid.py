"""RPID: what may stand where, when and how often, and what it then says (RFC 4480)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comity.cpim.presence import DATA_MODEL, PIDF, Note, PresenceDocument
from comity.cpim.rpid import LOCATION_TYPE, RPID, TABLE_1, Choice, Place, Rpid, UserInput, read_rpid

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[1] / "conformance/rfc4480/4.xml"
HEAD = (
    f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" xmlns:r="{RPID}" xmlns:lt="{LOCATION_TYPE}"'
    ' entity="pres:bob@example.com">'
)


def said(inner: str, place: Place = Place.PERSON, when: datetime = NOON) -> Rpid:
    parts = {
        Place.PERSON: f"<dm:person id='x'>{inner}</dm:person>",
        Place.DEVICE: f"<dm:device id='x'>{inner}<dm:deviceID>urn:x:1</dm:deviceID></dm:device>",
        Place.TUPLE: f"<tuple id='x'><status><basic>open</basic></status>{inner}</tuple>",
    }
    view = PresenceDocument.parse(f"{HEAD}{parts[place]}</presence>".encode())
    part = (view.tuples or view.persons or view.devices)[0]
    return read_rpid(part.extensions, place, when)


#: One way to say each element, and a field that then has a value.
SAYINGS = {
    "activities": ("<r:activities><r:busy/></r:activities>", "activities"),
    "class": ("<r:class>work</r:class>", "class_"),
    "mood": ("<r:mood><r:happy/></r:mood>", "mood"),
    "place-is": ("<r:place-is><r:audio><r:noisy/></r:audio></r:place-is>", "place_is"),
    "place-type": ("<r:place-type><lt:street/></r:place-type>", "place_type"),
    "privacy": ("<r:privacy><r:text/><r:audio/></r:privacy>", "privacy"),
    "relationship": ("<r:relationship><r:friend/></r:relationship>", "relationship"),
    "service-class": ("<r:service-class><r:postal/></r:service-class>", "service_class"),
    "sphere": ("<r:sphere><r:home/></r:sphere>", "sphere"),
    "status-icon": ("<r:status-icon>http://example.com/a.png</r:status-icon>", "status_icon"),
    "time-offset": ("<r:time-offset description='x'>-300\n</r:time-offset>", "time_offset"),
    "user-input": ("<r:user-input>idle</r:user-input>", "user_input"),
}


class TestTable1:
    def test_every_row_is_tried(self) -> None:
        assert SAYINGS.keys() == TABLE_1.keys()

    @pytest.mark.parametrize("place", list(Place))
    @pytest.mark.parametrize("name", list(SAYINGS))
    def test_an_element_counts_only_where_it_may_stand(self, name: str, place: Place) -> None:
        """PRES-19: activities under a tuple are ignored."""
        saying, attribute = SAYINGS[name]
        value = getattr(said(saying, place), attribute)
        assert (value != getattr(Rpid(), attribute)) is (place in TABLE_1[name][0])

    @pytest.mark.parametrize("name", [name for name, (_, is_timed) in TABLE_1.items() if not is_timed])
    def test_what_may_stand_once_says_nothing_twice(self, name: str) -> None:
        """PRES-19: RFC 4480 section 5; nobody can tell which of them holds."""
        saying, attribute = SAYINGS[name]
        place = next(iter(TABLE_1[name][0]))
        assert getattr(said(saying + saying, place), attribute) == getattr(Rpid(), attribute)

    def test_absence_says_nothing(self) -> None:
        """PRES-17."""
        assert said("") == Rpid()


class TestTime:
    @pytest.mark.parametrize(
        ("begin", "end", "holds"),
        [
            (None, None, True),
            (timedelta(0), None, True),
            (timedelta(seconds=1), None, False),
            (None, timedelta(0), False),
            (None, timedelta(seconds=1), True),
            (timedelta(hours=-1), timedelta(hours=1), True),
            (timedelta(hours=-2), timedelta(hours=-1), False),
        ],
    )
    def test_an_element_holds_from_and_until(self, begin: timedelta | None, end: timedelta | None, holds: bool) -> None:
        """PRES-19: expired ``until`` is not shown."""
        limits = "".join(
            f" {name}='{(NOON + at).isoformat()}'" for name, at in (("from", begin), ("until", end)) if at is not None
        )
        assert bool(said(f"<r:activities{limits}><r:away/></r:activities>").activities.names) is holds

    @pytest.mark.parametrize("limit", ["from=''", "until='tomorrow'", "from='2026-11-23'"])
    def test_a_time_that_cannot_be_read_is_not_now(self, limit: str) -> None:
        assert said(f"<r:mood {limit}><r:happy/></r:mood>").mood == Choice()

    def test_of_several_times_the_present_one_counts(self) -> None:
        inner = (
            "<r:sphere until='2026-11-23T12:00:00Z'><r:work/></r:sphere>"
            "<r:sphere from='2026-11-23T12:00:00Z'><r:home/></r:sphere>"
        )
        assert said(inner).sphere == "home"
        assert said(inner, when=NOON - timedelta(seconds=1)).sphere == "work"


class TestValues:
    def test_activities_of_section_3_2(self) -> None:
        rpid = said(
            "<r:activities><r:note>Enjoying the morning paper</r:note><r:vacation/><r:breakfast/><r:other>reading</r:other>"
            "<x xmlns='u:x'/><r:daydreaming/></r:activities>"
        )
        assert rpid.activities == Choice(
            ("vacation", "breakfast"), (Note("reading"),), (Note("Enjoying the morning paper"),)
        )

    def test_user_input_of_section_3_14(self) -> None:
        saying = "<r:user-input idle-threshold='600' last-input='2004-10-21T13:20:00.000-05:00'>idle</r:user-input>"
        at = datetime(2004, 10, 21, 18, 20, tzinfo=UTC)
        assert said(saying, Place.DEVICE).user_input == UserInput(True, at, 600)
        assert said("<r:user-input>active</r:user-input>", Place.TUPLE).user_input == UserInput(False)
        for wrong in ("<r:user-input>asleep</r:user-input>", "<r:user-input/>"):
            assert said(wrong, Place.DEVICE).user_input is None
        odd = "<r:user-input idle-threshold='-1' last-input='then'>idle</r:user-input>"
        assert said(odd, Place.DEVICE).user_input == UserInput(True)

    @pytest.mark.parametrize(
        ("inner", "sphere"),
        [("<r:work/>", "work"), ("bowling league", "bowling league"), ("<r:other> band </r:other>", "band"), ("", "")],
    )
    def test_a_sphere_is_a_name_or_text(self, inner: str, sphere: str) -> None:
        assert said(f"<r:sphere>{inner}</r:sphere>").sphere == sphere

    @pytest.mark.parametrize("text", ["1e3", "٣", "", "--1", "-+40", "9" * 5000])
    def test_an_offset_that_is_no_number_says_nothing(self, text: str) -> None:
        assert said(f"<r:time-offset>{text}</r:time-offset>").time_offset is None

    def test_what_must_be_understood_and_is_not_voids_its_element_only(self) -> None:
        """PRES-10."""
        inner = f"<x xmlns='u:x' xmlns:p='{PIDF}' p:mustUnderstand='true'/>"
        rpid = said(f"<r:activities><r:busy/>{inner}</r:activities><r:mood><r:happy/></r:mood>")
        assert (rpid.activities, rpid.mood) == (Choice(), Choice(("happy",)))

    def test_the_example_of_section_4(self) -> None:
        """RFC 4480 section 4, while the person is away and after that."""
        view = PresenceDocument.parse(EXAMPLE.read_bytes())
        during = datetime(2005, 5, 30, 9, tzinfo=UTC)
        person = read_rpid(view.persons[0].extensions, Place.PERSON, during)
        assert person == Rpid(
            activities=Choice(("away",), (), (Note("Far away"),)),
            mood=Choice(("angry",), (Note("brooding"),)),
            place_type=Choice(("residence",)),
            place_is=(("audio", "noisy"),),
            privacy=("unknown",),
            sphere="bowling league",
            class_="calendar",
            status_icon="http://example.com/play.gif",
            time_offset=-240,
        )
        assert read_rpid(view.persons[0].extensions, Place.PERSON, NOON).activities == Choice()
        assert read_rpid(view.tuples[1].extensions, Place.TUPLE, during).relationship == "assistant"
        device = read_rpid(view.devices[0].extensions, Place.DEVICE, during)
        assert device.user_input == UserInput(True, datetime(2004, 10, 21, 18, 20, tzinfo=UTC), 600)

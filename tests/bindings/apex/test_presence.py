"""``bindings/apex/presence.py``: entries to documents and documents to entries (T6, T9, APEX-22)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.elements import Capability, Inline, Presence, Publish, Tuple
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.presence import (
    Entry,
    document_to_entry,
    entry_to_document,
    own_tuples,
    show,
    show_nothing,
)
from comity.bindings.apex.service_wire import read_service, write_service
from comity.cpim.address import Address
from comity.cpim.composition import Publication, compose_presence
from comity.cpim.presence import Note, PresenceDocument
from comity.cpim.presence_state import (
    Availability,
    PresenceState,
    document_state,
    offline_document,
    sealed_document,
    state_document,
)

ALICE, WHO = Address.parse("im:alice@a.test"), Endpoint.parse("alice@a.test")
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def device(word: str, note: str = "", language: str = "") -> PresenceDocument:
    notes = (Note(note, language),) if note else ()
    document = state_document(ALICE, "ID-phone", PresenceState(Availability(word), notes), NOW)
    assert document is not None
    return document


def read_back(presence: Presence) -> Presence:
    """Over the wire."""
    publish = read_service(Inline(write_service(Publish(WHO, 1, "2026-01-01T12:00:00Z", presence))))
    assert isinstance(publish, Publish)
    return publish.presence


@pytest.mark.parametrize(
    ("word", "is_open", "info"),
    [
        ("available", True, ""),
        ("chat", True, "?=show=chat"),
        ("away", True, "?=show=away"),
        ("xa", True, "?=show=xa"),
        ("dnd", True, "?=show=dnd"),
        ("offline", False, ""),
    ],
)
def test_each_state_of_a_device_is_a_tuple_with_a_time(word: str, is_open: bool, info: str) -> None:
    """T9: future or past, the sub-state as tupleInfo."""
    presence = read_back(show(device(word), ALICE, NOW).presence(WHO, NOW + HOUR))
    (one,) = presence.tuples
    assert one.available_until == (NOW + HOUR if is_open else NOW)
    assert one.tuple_info == f"urn:comity:tuple:0:ID-phone{info}"
    assert one.destination == "im:alice@a.test"
    assert presence.last_update == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize("word", ["available", "chat", "away", "xa", "dnd", "offline"])
def test_each_state_that_an_application_writes_is_that_state_for_everybody(word: str) -> None:
    """T9 the other way: what it reads of devices it may write of itself."""
    info = f"urn:comity:tuple:0?=show={word}" if word not in ("available", "offline") else ""
    until = NOW - HOUR if word == "offline" else NOW + HOUR
    document = entry_to_document(ALICE, Entry(NOW, "", (Tuple("mailto:a@a.test", until, info),)), NOW)
    assert document_state(PresenceDocument.parse(document.raw), NOW).availability.value == word


def test_an_unknown_state_is_left_out_and_alone_it_is_past() -> None:
    """T9: unknown; pending and polite block look like it, and like offline."""
    shapes = []
    for shown in (
        show(sealed_document(ALICE, NOW), ALICE, NOW),
        show(offline_document(ALICE, NOW), ALICE, NOW),
        show_nothing(ALICE, NOW),
    ):
        shapes.append(shown.presence(WHO, NOW + HOUR))
    assert shapes[0] == shapes[1] == shapes[2]
    assert [one.available_until for one in shapes[0].tuples] == [NOW]


def test_notes_travel_in_the_tuple_info_with_their_languages_unless_they_are_long() -> None:
    """T9: may be lost."""
    (one,) = show(device("away", "Oběd & káva", "cs"), ALICE, NOW).presence(WHO, NOW).tuples
    assert one.tuple_info == "urn:comity:tuple:0:ID-phone?=show=away&note%40cs=Ob%C4%9Bd%20%26%20k%C3%A1va"
    own = Tuple("mailto:a@a.test", NOW + HOUR, one.tuple_info.replace(":0:ID-phone", ":0"))
    document = entry_to_document(ALICE, Entry(NOW, "", (own,)), NOW)
    assert document.tuples[0].notes == (Note("Oběd & káva", "cs"),)
    (long,) = show(device("away", "x" * 3000), ALICE, NOW).presence(WHO, NOW).tuples
    assert long.tuple_info == "urn:comity:tuple:0:ID-phone?=show=away"


@pytest.mark.parametrize(
    "info",
    [
        "urn:comity:tuple:0?=show=gone&note=%00",
        "urn:comity:tuple:0?=",
        "urn:comity:tuple:0",
        "urn:comity:tuple:0?=note@=x&show=%ff",
        "urn:comity:tuple:0?=show=away" + "x" * 3000,
        "http://a.test/?=show=away",
    ],
)
def test_a_tuple_info_of_no_meaning_says_nothing_and_comes_back(info: str) -> None:
    """It is the application's own URI."""
    entry = Entry(NOW, "", (Tuple("mailto:a@a.test", NOW + HOUR, info),))
    document = entry_to_document(ALICE, entry, NOW)
    assert document_state(document, NOW).availability is Availability.AVAILABLE
    assert document_to_entry(PresenceDocument.parse(document.raw)) == entry


def test_a_contact_that_is_no_uri_is_the_account() -> None:
    """destination is a URI (RFC 3343 section 6)."""
    raw = device("available").raw.replace(b"<contact>im:alice@a.test", b"<contact>my phone")
    (one,) = show(PresenceDocument.parse(raw), ALICE, NOW).presence(WHO, NOW + HOUR).tuples
    assert one.destination == "im:alice@a.test"
    read_back(Presence(WHO, "2026-01-01T12:00:00Z", "", (one,)))


URIS = st.from_regex(r"[a-z]{1,8}:[a-z0-9/@.:?=&%;<>'\"-]{1,40}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="￾￿"), max_size=40)
TIMES = st.integers(-(10**6), 10**6).map(lambda minutes: NOW + timedelta(minutes=minutes))
TUPLES = st.builds(
    Tuple,
    URIS,
    TIMES,
    st.one_of(st.just(""), URIS),
    st.lists(st.builds(Capability, URIS, TEXTS), max_size=3).map(tuple),
)
ENTRIES = st.builds(Entry, TIMES, st.one_of(st.just(""), URIS), st.lists(TUPLES, max_size=6).map(tuple))


@given(ENTRIES, TIMES)
def test_an_entry_comes_back_from_its_document_and_from_what_watchers_are_shown(entry: Entry, now: datetime) -> None:
    """APEX-19: what an application reads is what applications wrote, also composed with other devices' documents."""
    document = entry_to_document(ALICE, entry, now)
    assert document_to_entry(PresenceDocument.parse(document.raw)) == entry
    if not entry.tuples:
        return
    phone = Publication("phone", device("away"), now, now + HOUR)
    composed = compose_presence(ALICE, [Publication("entry", document, now, now + DAY), phone], now)
    shown = show(composed.document, ALICE, now)
    presence = read_back(shown.presence(WHO, now + HOUR))
    assert sorted(own_tuples(presence), key=repr) == sorted(entry.tuples, key=repr)
    assert len(presence.tuples) == len(entry.tuples) + 1
    assert presence.publisher_info == entry.publisher_info
    assert shown.last_update >= entry.last_update


@given(ENTRIES, TIMES)
def test_a_tuple_is_open_exactly_until_its_time(entry: Entry, now: datetime) -> None:
    """T9, G9: and the next end is the first of those still to come."""
    document = entry_to_document(ALICE, entry, now)
    opened = [one.basic_status is not None and one.basic_status.value == "open" for one in document.tuples]
    assert opened == [one.available_until > now for one in entry.tuples]
    end = entry.next_end(now)
    assert (end is None) == (not any(opened))
    assert end is None or (
        end > now
        and all(one.timestamp <= now or one.timestamp == entry.last_update for one in document.tuples if one.timestamp)
    )

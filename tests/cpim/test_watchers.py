"""Watcher information: written, read, kept up to date (RFC 3857, 3858; PRES-24, PRES-25, PRES-26)."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.watchers import (
    MAX_VERSION,
    TRANSITIONS,
    WATCHERINFO,
    Applied,
    SubscriptionEvent,
    SubscriptionState,
    WatcherEntry,
    WatcherInfo,
    WatcherList,
    WatcherTable,
    build_watcherinfo,
)
from comity.errors import LocalProtocolError, MalformedMessage
from comity.xml import is_xml_text

EXAMPLE = Path(__file__).parents[1] / "conformance/rfc3858/5.xml"
PENDING, ACTIVE, WAITING, TERMINATED = SubscriptionState


def entry(id: str, state: SubscriptionState = ACTIVE, uri: str = "sip:a@b.example") -> WatcherEntry:
    return WatcherEntry(uri, id, state, SubscriptionEvent.SUBSCRIBE)


def info(
    version: int, *entries: WatcherEntry, full: bool = False, resource: str = "pres:bob@example.com"
) -> WatcherInfo:
    return build_watcherinfo(version, [WatcherList(resource, "presence", entries)], is_full=full)


def document(inner: str = "", version: str = "0", state: str = "full") -> bytes:
    return f"<watcherinfo xmlns='{WATCHERINFO}' xmlns:x='urn:x' version='{version}' state='{state}'>{inner}</watcherinfo>".encode()


def one_list(watcher: str) -> bytes:
    return document(f"<watcher-list resource='sip:bob@example.com' package='presence'>{watcher}</watcher-list>")


class TestDocument:
    def test_the_example_of_section_5(self) -> None:
        """PRES-24."""
        view = WatcherInfo.parse(EXAMPLE.read_bytes())
        assert (view.version, view.is_full) == (0, True)
        assert view.lists == (
            WatcherList(
                "sip:professor@example.net",
                "presence",
                (
                    WatcherEntry(
                        "sip:userA@example.net",
                        "8ajksjda7s",
                        SubscriptionState.ACTIVE,
                        SubscriptionEvent.APPROVED,
                        duration_subscribed=509,
                    ),
                    WatcherEntry(
                        "sip:userB@example.org",
                        "hh8juja87s997-ass7",
                        SubscriptionState.PENDING,
                        SubscriptionEvent.SUBSCRIBE,
                        "Mr. Subscriber",
                    ),
                ),
            ),
        )

    def test_what_is_foreign_is_ignored(self) -> None:
        """PRES-24: unknown namespaces."""
        watcher = "<watcher id='a' status='active' event='approved' x:y='z'>sip:a@b.example</watcher>"
        view = WatcherInfo.parse(
            document(f"<x:y/><watcher-list resource='r' package='p'><x:y/>{watcher}</watcher-list><x:watcher-list/>")
        )
        assert [e.id for one in view.lists for e in one.watchers] == ["a"]

    @given(
        version=st.integers(0, MAX_VERSION),
        full=st.booleans(),
        names=st.lists(st.text(max_size=9).filter(is_xml_text), max_size=4),
        numbers=st.none() | st.integers(0, 2**40),
    )
    def test_what_is_written_reads_as_it_was_given(
        self, version: int, full: bool, names: list[str], numbers: int | None
    ) -> None:
        entries = [
            WatcherEntry("pres:a@b.example", f"i{n}", state, event, name, "de" if name else "", numbers, numbers)
            for n, (name, state, event) in enumerate(zip(names, SubscriptionState, SubscriptionEvent, strict=False))
        ]
        made = info(version, *entries, full=full)
        assert WatcherInfo.parse(made.raw) == made
        assert (WatcherInfo.parse(made.raw).lists, made.version, made.is_full) == (made.lists, version, full)

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b"<watcherinfo version='0' state='full'/>",
            document().replace(b"<watcherinfo", b"<!DOCTYPE x><watcherinfo"),
            document(version=""),
            document(version="-1"),
            document(version="4294967296"),
            document(version="٣"),
            document(state="some"),
            document(state=""),
            document("<watcher-list package='presence'/>"),
            document("<watcher-list resource='sip:a@b.example'/>"),
            one_list("<watcher id='a' status='active' event='approved'/>"),
            one_list("<watcher status='active' event='approved'>sip:a@b.example</watcher>"),
            one_list("<watcher id='a b' status='active' event='approved'>sip:a@b.example</watcher>"),
            one_list("<watcher id='a' status='init' event='approved'>sip:a@b.example</watcher>"),
            one_list("<watcher id='a' status='active' event='happened'>sip:a@b.example</watcher>"),
            one_list("<watcher id='a' status='active' event='approved' expiration='soon'>sip:a@b.example</watcher>"),
            one_list("<watcher id='a' status='active' event='approved'>sip:a@b.example</watcher>" * 2),
        ],
    )
    def test_what_the_schema_forbids(self, raw: bytes) -> None:
        """N-11's document: the last good state stands."""
        with pytest.raises(MalformedMessage):
            WatcherInfo.parse(raw)

    @pytest.mark.parametrize("bad", [-1, MAX_VERSION + 1])
    def test_versions_do_not_wrap(self, bad: int) -> None:
        with pytest.raises(LocalProtocolError):
            info(bad)

    def test_ids_are_tokens_of_their_own(self) -> None:
        """PRES-24."""
        for entries in ([entry("a b")], [entry("")], [entry("a"), entry("a")]):
            with pytest.raises(LocalProtocolError):
                info(0, *entries)


class TestTable:
    """PRES-25: RFC 3858 section 4."""

    def test_a_gap_is_applied_and_a_refresh_asked_for(self) -> None:
        """Versions 0, 1, 3."""
        table = WatcherTable()
        assert table.apply(info(0, entry("a"), full=True)) is Applied.APPLIED
        assert table.apply(info(1, entry("b", PENDING))) is Applied.APPLIED
        assert table.apply(info(3, entry("c"))) is Applied.REFRESH
        (rows,) = table.lists.values()
        assert sorted(rows) == ["a", "b", "c"]
        assert table.version == 3

    def test_an_older_or_repeated_document_is_dropped(self) -> None:
        table = WatcherTable()
        table.apply(info(5, entry("a"), full=True))
        for version in (0, 4, 5):
            assert table.apply(info(version, entry("b"), full=True)) is Applied.DROPPED
        assert list(table.lists[("pres:bob@example.com", "presence")]) == ["a"]

    def test_a_full_one_replaces_everything(self) -> None:
        table = WatcherTable()
        table.apply(info(0, entry("a"), full=True))
        table.apply(info(1, entry("b"), resource="pres:carol@example.com"))
        assert table.apply(info(7, entry("c"), full=True)) is Applied.APPLIED
        assert {key: list(rows) for key, rows in table.lists.items()} == {("pres:bob@example.com", "presence"): ["c"]}

    def test_a_partial_one_updates_adds_and_removes(self) -> None:
        table = WatcherTable()
        table.apply(info(0, entry("a", PENDING), entry("b"), full=True))
        table.apply(info(1, entry("a", ACTIVE), entry("b", TERMINATED), entry("c", WAITING)))
        (rows,) = table.lists.values()
        assert {id: row.state for id, row in rows.items()} == {"a": ACTIVE, "c": WAITING}

    def test_a_first_document_that_is_not_the_first_asks_for_a_refresh(self) -> None:
        assert WatcherTable().apply(info(3, entry("a"))) is Applied.REFRESH
        assert WatcherTable().apply(info(3, entry("a"), full=True)) is Applied.APPLIED


class TestTransitions:
    """PRES-26: figure 1 of RFC 3857."""

    ENDS = ("noresource", "rejected", "deactivated", "probation", "giveup")
    EXPECTED = {
        (PENDING, "approved"): ACTIVE,
        (PENDING, "timeout"): WAITING,  # kept, so that the presentity learns of it
        **{(PENDING, event): TERMINATED for event in ENDS},
        **{(ACTIVE, event): TERMINATED for event in ("noresource", "rejected", "deactivated", "probation", "timeout")},
        **{(WAITING, event): TERMINATED for event in ("noresource", "rejected", "giveup", "approved")},
    }

    @pytest.mark.parametrize(("state", "event"), list(product(SubscriptionState, SubscriptionEvent)))
    def test_each_pair(self, state: SubscriptionState, event: SubscriptionEvent) -> None:
        assert TRANSITIONS.get((state, event)) == self.EXPECTED.get((state, event.value))

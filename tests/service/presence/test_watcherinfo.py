"""service/presence/watcherinfo.py: who watches, told by number and by difference (PRES-24 to PRES-26, ACL-25, ACL-26)."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import to_sip_uri
from comity.cpim.watchers import (
    Applied,
    SubscriptionEvent,
    SubscriptionState,
    WatcherEntry,
    WatcherInfo,
    WatcherTable,
)
from comity.service.presence.interfaces import Ask, ContactItem, Subscription
from comity.service.presence.watcherinfo import (
    WatcherFeed,
    later_version,
    request_entry,
    subscription_entry,
    visible,
)
from tests.service.presence.desk import ALICE, BOB, CAROL, DAVE

S, E = SubscriptionState, SubscriptionEvent
SUBSCRIPTION = Subscription("a84b4c76e66710@pc33.a.test", "sip", ALICE, BOB, created=1000.0, expires=4600.0)


def entry(id: str, state: SubscriptionState = S.ACTIVE, event: SubscriptionEvent = E.APPROVED) -> WatcherEntry:
    return WatcherEntry(f"sip:{id}@a.test", id, state, event)


def read(info: WatcherInfo | None) -> WatcherInfo:
    assert info is not None
    return WatcherInfo.parse(info.raw)


class TestEntries:
    def test_a_subscription_shows_its_authenticated_watcher_and_its_times(self) -> None:
        """PRES-24: the id is a token and not the dialog's."""
        seen = subscription_entry(SUBSCRIPTION, 1600.0, "Alice")
        assert (seen.uri, seen.state, seen.event) == ("sip:alice@a.test", S.PENDING, E.SUBSCRIBE)
        assert (seen.expiration, seen.duration_subscribed, seen.display_name) == (3000, 600, "Alice")
        assert seen.id.isalnum()
        assert seen.id != subscription_entry(replace(SUBSCRIPTION, id="other"), 1600.0).id
        assert subscription_entry(replace(SUBSCRIPTION, expires=None), 1600.0).expiration is None

    def test_who_asked_by_another_protocol_is_seen_too(self) -> None:
        """ACL-25: a request of XMPP."""
        asked = ContactItem(BOB, CAROL, name="Carol", ask=Ask(1500.0, "hello"))
        seen = request_entry(asked, 1600.0)
        assert seen is not None
        assert (seen.uri, seen.state, seen.display_name) == ("sip:carol@a.test", S.PENDING, "Carol")
        assert request_entry(ContactItem(BOB, DAVE), 1600.0) is None

    def test_each_sees_what_concerns_himself(self) -> None:
        """ACL-26."""
        of_carol = replace(SUBSCRIPTION, id="2", watcher=CAROL)
        everybody = [subscription_entry(SUBSCRIPTION, 1600.0), subscription_entry(of_carol, 1600.0, "that Carol")]
        assert visible(everybody, BOB, BOB) == everybody
        assert [(one.uri, one.display_name) for one in visible(everybody, BOB, CAROL)] == [(to_sip_uri(CAROL), "")]
        assert visible(everybody, BOB, DAVE) == []


class TestFeed:
    """RFC 3858 section 3: numbers, whole and partial states."""

    def test_the_first_document_is_whole_and_its_number_is_0(self) -> None:
        feed = WatcherFeed(BOB)
        info = read(feed.changes([entry("a"), entry("b", S.PENDING, E.SUBSCRIBE)]))
        assert (info.version, info.is_full) == (0, True)
        (one,) = info.lists
        assert (one.resource, one.package) == ("sip:bob@a.test", "presence")
        assert [watcher.id for watcher in one.watchers] == ["a", "b"]

    def test_then_only_what_changed_each_with_the_next_number(self) -> None:
        feed = WatcherFeed(BOB)
        feed.changes([entry("a"), entry("b", S.PENDING, E.SUBSCRIBE)])
        info = read(feed.changes([entry("a"), entry("b"), entry("c")]))
        assert (info.version, info.is_full) == (1, False)
        assert [(one.id, one.state) for one in info.lists[0].watchers] == [("b", S.ACTIVE), ("c", S.ACTIVE)]
        info = read(feed.changes([entry("b")]))
        assert info.version == 2
        assert {(one.id, one.state) for one in info.lists[0].watchers} == {("a", S.TERMINATED), ("c", S.TERMINATED)}

    def test_time_alone_is_no_news(self) -> None:
        feed = WatcherFeed(BOB)
        feed.changes([replace(entry("a"), expiration=100, duration_subscribed=1)])
        assert feed.changes([replace(entry("a"), expiration=50, duration_subscribed=51)]) is None
        assert feed.version == 1

    def test_what_ended_it_is_told_once(self) -> None:
        feed = WatcherFeed(BOB)
        feed.changes([entry("a"), entry("b")])
        ended = entry("a", S.TERMINATED, E.REJECTED)
        info = read(feed.changes([ended, entry("b")]))
        assert [(one.id, one.event) for one in info.lists[0].watchers] == [("a", E.REJECTED)]
        assert feed.changes([ended, entry("b")]) is None
        assert feed.changes([entry("b")]) is None

    def test_a_refresh_is_answered_with_everything(self) -> None:
        feed = WatcherFeed(BOB)
        feed.changes([entry("a")])
        info = read(feed.whole([entry("a"), entry("b")]))
        assert (info.version, info.is_full, len(info.lists[0].watchers)) == (1, True, 2)
        assert feed.changes([entry("a"), entry("b")]) is None

    def test_after_a_restart_no_number_comes_again(self) -> None:
        """A subscriber drops a lower one; a whole document with a higher one replaces all (PRES-25)."""
        table = WatcherTable()
        before = WatcherFeed(BOB)
        for state in (S.PENDING, S.ACTIVE) * 20:
            table.apply(read(before.changes([entry("a", state)])))
        after = WatcherFeed(BOB, later_version(1000.0, 1004.0))
        assert table.apply(read(after.changes([entry("b")]))) is Applied.APPLIED
        assert [*table.lists["sip:bob@a.test", "presence"]] == ["b"]


_entries = st.dictionaries(
    st.sampled_from("abcde"),
    st.sampled_from(
        [(S.PENDING, E.SUBSCRIBE), (S.ACTIVE, E.APPROVED), (S.WAITING, E.TIMEOUT), (S.TERMINATED, E.REJECTED)]
    ),
)


@given(st.lists(st.tuples(_entries, st.booleans()), max_size=12))
def test_who_applies_every_document_knows_what_is(
    steps: list[tuple[dict[str, tuple[SubscriptionState, SubscriptionEvent]], bool]],
) -> None:
    """PRES-24 with PRES-25: whole or partial, none is missed and none is out of order."""
    feed, table = WatcherFeed(BOB), WatcherTable()
    for present, is_refresh in steps:
        entries = [entry(id, *how) for id, how in present.items()]
        info = feed.whole(entries) if is_refresh else feed.changes(entries)
        if info is not None:
            assert table.apply(read(info)) is Applied.APPLIED
        known = {id: (one.state, one.event) for rows in table.lists.values() for id, one in rows.items()}
        assert known == {id: how for id, how in present.items() if how[0] is not S.TERMINATED}

"""Time and replay (RFC 3923 section 6.9; SEC-22 to SEC-25; reliability.md section 2.8)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.message import CpimMessage
from comity.secure import ReplayCache, SigningClock, StoredReplayCache, VerdictKind
from comity.secure.freshness import DECREASING_WINDOW, REPLAY_WINDOW, ReplayMemory, check_timestamp
from tests.secure.kit import NOW

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("ahead", "expected", "words"),
    [
        (-5 * MINUTE, None, ""),
        (-5 * MINUTE - timedelta(seconds=1), VerdictKind.STALE, "5 minutes before it arrived"),
        (5 * MINUTE, None, ""),
        (10 * MINUTE, VerdictKind.FUTURE, "clock differs"),
        (60 * MINUTE, VerdictKind.FUTURE, "60 minutes ahead"),
        (-timedelta(days=5), VerdictKind.STALE, "5 days"),
    ],
)
def test_the_window(ahead: timedelta, expected: VerdictKind | None, words: str) -> None:
    """SEC-22, R-06."""
    result = check_timestamp(NOW + ahead, NOW)
    assert result.verdict is expected
    assert words in result.text


def test_an_hour_ahead_is_not_put_down_to_the_clock() -> None:
    """R-06."""
    assert "clock differs" not in check_timestamp(NOW + 60 * MINUTE, NOW).text


def test_time_in_a_known_queue_does_not_count() -> None:
    """SEC-24, R-07: five days old through a store-and-forward peer."""
    made = NOW - timedelta(days=5)
    assert check_timestamp(made, NOW, arrived=made + MINUTE).mark == "delayed"
    assert check_timestamp(made, NOW, arrived=made + 6 * MINUTE).verdict is VerdictKind.STALE
    assert check_timestamp(NOW + 6 * MINUTE, NOW, arrived=NOW + 10 * MINUTE).verdict is VerdictKind.FUTURE


@pytest.fixture(params=["memory", "disk", "deferred"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReplayMemory]:
    """All forms keep one contract."""
    if request.param == "memory":
        yield ReplayCache(limit=10)
        return
    stored = StoredReplayCache("im:bob@b.test", tmp_path, limit=10, is_deferred=request.param == "deferred")
    yield stored
    stored.close()


class TestReplayCache:
    def test_the_same_object_within_the_window(self, cache: ReplayMemory) -> None:
        """SEC-25, R-01, R-03."""
        assert cache.check("a", "1", NOW, NOW) is None
        cache.accept("a", "1", NOW, NOW)
        assert cache.check("a", "1", NOW, NOW + timedelta(hours=1)) is VerdictKind.REPLAYED
        assert cache.check("b", "1", NOW, NOW) is None
        assert cache.check("a", "1", NOW, NOW + REPLAY_WINDOW + MINUTE) is None

    def test_times_must_increase_for_ten_minutes(self, cache: ReplayMemory) -> None:
        """SEC-22."""
        cache.accept("a", "1", NOW, NOW)
        assert cache.check("a", "2", NOW, NOW) is VerdictKind.STALE
        assert cache.check("a", "2", NOW - MINUTE, NOW) is VerdictKind.STALE
        assert cache.check("a", "2", NOW + timedelta(milliseconds=1), NOW) is None
        assert cache.check("a", "2", None, NOW) is None
        assert cache.check("a", "2", NOW - MINUTE, NOW + DECREASING_WINDOW + MINUTE) is None

    def test_an_older_time_does_not_lower_the_greatest(self, cache: ReplayMemory) -> None:
        """SEC-22."""
        cache.accept("a", "1", NOW, NOW)
        cache.accept("a", "2", NOW - MINUTE, NOW)
        assert cache.check("a", "3", NOW, NOW) is VerdictKind.STALE
        later = NOW + DECREASING_WINDOW + MINUTE
        cache.accept("a", "4", NOW - MINUTE, later)
        assert cache.check("a", "5", NOW, later) is None

    def test_memory_is_bounded(self, cache: ReplayMemory) -> None:
        for number in range(95):
            cache.accept(f"signer{number}", str(number), NOW, NOW + timedelta(seconds=number))
        later = NOW + timedelta(seconds=100)
        known = [number for number in range(95) if cache.check(f"signer{number}", str(number), None, later)]
        assert len(known) <= 20
        assert known[-1] == 94

    def test_of_two_that_ask_at_once_one_is_told_yes(self, cache: ReplayMemory) -> None:
        """M-46."""
        assert cache.check("a", "1", NOW, NOW) is None
        assert cache.check("a", "1", NOW, NOW) is None
        with ThreadPoolExecutor(8) as threads:
            said = list(threads.map(lambda _: cache.accept("a", "1", NOW, NOW), range(16)))
        assert said.count(True) == 1

    def test_a_clock_set_back_forgets_nothing(self, cache: ReplayMemory) -> None:
        """F-27."""
        cache.accept("a", "1", NOW, NOW)
        assert cache.check("a", "1", None, NOW - timedelta(days=400)) is VerdictKind.REPLAYED


class TestSigningClock:
    def test_a_thousand_objects_in_one_instant_increase_as_written(self) -> None:
        """SEC-23."""
        clock = SigningClock()
        stamps = []
        for _ in range(1000):
            raw = CpimMessage.build(from_="im:a@a.test", to="im:b@b.test", date_time=clock.next(NOW)).raw
            stamp = CpimMessage.parse(raw).date_time
            assert stamp is not None
            stamps.append(stamp)
        assert stamps == sorted(set(stamps))
        assert stamps[-1] - stamps[0] < timedelta(minutes=1)

    @given(st.lists(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)), max_size=30))
    def test_it_increases_whatever_the_clock_does(self, times: list[datetime]) -> None:
        clock = SigningClock()
        stamps = [clock.next(time.replace(tzinfo=UTC)) for time in times]
        assert all(a < b for a, b in itertools.pairwise(stamps))

    def test_it_is_in_utc(self) -> None:
        """SEC-23."""
        stamp = SigningClock().next(NOW.astimezone(timezone(timedelta(hours=2))))
        assert (stamp, stamp.utcoffset()) == (NOW, timedelta(0))

"""The signing clock across processes (SEC-23)."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from comity.errors import SecurityError
from comity.secure.clock import next_time
from comity.secure.home import Home
from tests.secure.kit import ALICE, BOB, NOW


def many(path: Path, count: int) -> list[datetime]:
    """In a process of its own: so many times, all asked for in the same instant."""
    return [next_time(Home(path), ALICE, NOW) for _ in range(count)]


def test_processes_in_one_millisecond_never_get_one_time_twice(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        found = pool.starmap(many, [(tmp_path, 25)] * 4)
    assert all(times == sorted(set(times)) for times in found), "each process sees them increase"
    everything = sorted(time for times in found for time in times)
    assert everything == [NOW + timedelta(milliseconds=n) for n in range(100)]


def test_signers_do_not_wait_for_one_another(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert next_time(home, ALICE, NOW) == next_time(home, BOB, NOW) == NOW


def test_a_clock_set_back_a_little_goes_on_from_the_last_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    next_time(home, ALICE, NOW)
    assert next_time(home, ALICE, NOW - timedelta(minutes=9)) == NOW + timedelta(milliseconds=1)


def test_a_clock_that_was_years_ahead_once_is_forgotten(tmp_path: Path) -> None:
    """Else everything signed from now on would be "future" for everybody."""
    home = Home(tmp_path)
    next_time(home, ALICE, NOW + timedelta(days=4000))
    assert next_time(home, ALICE, NOW) == NOW
    assert next_time(home, ALICE, NOW) == NOW + timedelta(milliseconds=1)


def test_times_are_in_utc_whatever_the_zone(tmp_path: Path) -> None:
    assert next_time(Home(tmp_path), ALICE, NOW.astimezone()).tzinfo is UTC


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    home = Home(tmp_path)
    next_time(home, ALICE, NOW)
    next((tmp_path / "clock").iterdir()).write_bytes(b"\xff soon")
    with pytest.raises(SecurityError, match="is damaged"):
        next_time(home, ALICE, NOW)

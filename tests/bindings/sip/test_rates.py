"""rates.py: how much one user may send (reliability.md section 6.2, L-05)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.sip.rates import OCTET_BURST, UserRates


def test_a_burst_passes_then_the_lasting_rate() -> None:
    rates = UserRates(10.0, 100, 10**9)
    assert [rates.take("alice", 1, 0.0) for _ in range(100)] == [0.0] * 100
    assert rates.take("alice", 1, 0.0) == pytest.approx(0.1)
    assert rates.take("bob", 1, 0.0) == 0.0
    passed = sum(rates.take("alice", 1, tick / 100) == 0.0 for tick in range(1, 1001))
    assert 99 <= passed <= 100


def test_octets_count_too() -> None:
    rates = UserRates(1000.0, 1000, 65536)
    assert rates.take("alice", int(OCTET_BURST * 65536), 0.0) == 0.0
    assert rates.take("alice", 65536, 0.0) == 1.0
    assert rates.take("alice", 65536, 1.0) == 0.0


def test_what_is_refused_costs_nothing() -> None:
    rates = UserRates(1.0, 1, 10**9)
    rates.take("alice", 1, 0.0)
    assert all(rates.take("alice", 1, 0.5) == 0.5 for _ in range(100))
    assert rates.take("alice", 1, 1.0) == 0.0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10_000)), max_size=200))
def test_no_pattern_gets_more_than_burst_and_rate(steps: list[tuple[float, int]]) -> None:
    rates = UserRates(5.0, 10, 20_000)
    now = 0.0
    messages = octets = 0
    for pause, size in steps:
        now += pause
        if rates.take("alice", size, now) == 0.0:
            messages += 1
            octets += size
    assert messages <= 10 + 5 * now + 1e-6
    assert octets <= 80_000 + 20_000 * now + 1e-3


def test_users_heard_of_long_ago_are_forgotten() -> None:
    rates = UserRates(1.0, 1, 10**9, most=10)
    for number in range(100):
        rates.take(f"user{number}", 1, 0.0)
    assert rates.take("user0", 1, 0.0) == 0.0
    assert rates.take("user99", 1, 0.0) == 1.0

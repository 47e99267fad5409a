"""Caps and counted log lines without a socket (L-01, L-03, L-12)."""

from __future__ import annotations

import logging
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.net.limits import Gate, NetLimits, Tally, address_key
from comity.testing.clock import FakeClock


def test_one_line_at_once_then_one_a_minute_with_a_count(caplog: pytest.LogCaptureFixture) -> None:
    """L-12."""
    clock = FakeClock()
    tally = Tally(clock, logging.getLogger("test"))
    assert tally.note("Refused", "192.0.2.1")
    for number in range(1_000):
        assert not tally.note("Refused", f"192.0.2.{number % 256}")
    clock.advance(60)
    assert [record.getMessage() for record in caplog.records] == [
        "Refused (192.0.2.1)",
        "Refused: 1000 more times, last 192.0.2.231",
    ]
    clock.advance(60)
    assert (len(caplog.records), clock.pending) == (2, 0)
    assert tally.note("Refused", "again")
    tally.note("Refused", "last")
    tally.close()
    assert caplog.records[-1].getMessage() == "Refused: 1 more times, last last"
    assert clock.pending == 0


def test_ipv6_is_counted_by_its_64() -> None:
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff:1") != address_key("2001:db8:0:1::1")
    assert address_key("fe80::1%eth0") == address_key("fe80::2%eth1")
    assert address_key("::ffff:192.0.2.1") == "192.0.2.1"


def test_twenty_thousand_silent_strangers_are_bounded() -> None:
    """L-01, from one address and from many."""
    gate = Gate(NetLimits(accepts_per_second=100_000), FakeClock())
    assert Counter(gate.admit("127.0.0.1") == "" for _ in range(20_000))[True] == 50
    many = [f"127.0.{number // 250}.{number % 250 + 2}" for number in range(20_000)]
    assert Counter(gate.admit(host) == "" for host in many)[True] == 4096 - 50
    assert (gate.total, gate.unauthenticated) == (4096, 4096)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["in", "known", "out"])), max_size=60))
def test_counts_always_match_who_is_inside(steps: list[tuple[str, str]]) -> None:
    limits = NetLimits(per_address=3, unauthenticated=4, total=6, accepts_per_second=1000)
    gate = Gate(limits, FakeClock())
    inside: list[list[str | bool]] = []
    for host, step in steps:
        if step == "in":
            if not gate.admit(host):
                inside.append([host, False])
        else:
            for place in inside:
                if place[0] == host and (step == "out" or not place[1]):
                    if step == "out":
                        inside.remove(place)
                        gate.release(host, is_authenticated=bool(place[1]))
                    else:
                        place[1] = True
                        gate.authenticated()
                    break
        strangers = sum(not place[1] for place in inside)
        assert (gate.total, gate.unauthenticated) == (len(inside), strangers)
        assert strangers <= limits.unauthenticated
        assert len(inside) <= limits.total
        assert all(count <= limits.per_address for count in Counter(str(place[0]) for place in inside).values())

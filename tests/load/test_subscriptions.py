"""Live subscriptions stay within their budget (issue 5): ``python -m tests.load.subscriptions`` prints the figures."""

from __future__ import annotations

import asyncio

import pytest

from tests.load.subscriptions import across, measure


@pytest.mark.slow
def test_ten_thousand_subscriptions_and_a_thousand_watchers_cost_little() -> None:
    """At most 6 kB for each live subscription, and 3 us of CPU inside the service for each watcher told."""
    found = asyncio.run(measure(changes=10))
    assert found.told == 10 * found.watchers
    assert found.octets_each <= 6_000, found
    assert found.microseconds_each <= 3.0, found


@pytest.mark.slow
def test_hundreds_of_contacts_across_hundreds_of_domains_are_all_told() -> None:
    """OPS-36 at a tenth of its size; ``across()`` by itself has 500 x 500 across 200 domains."""
    assert asyncio.run(across(160, 64)) == 160 * 160

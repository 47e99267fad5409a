"""Live SIP subscriptions of a running server stay within their budget; 10,000 by hand: ``python -m tests.load.dialogs``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.load.dialogs import measure


@pytest.mark.slow
def test_a_live_sip_subscription_takes_at_most_six_kilobytes(tmp_path: Path) -> None:
    """Issue 5: resident memory of ``comity serve``, dialogs and transactions included, when the transactions are over."""
    found = measure(tmp_path, watchers=6, each=500, quiet=36.0)
    assert found["octets_each"] <= 6_000, found

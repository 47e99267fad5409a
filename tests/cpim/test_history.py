"""The transport history of an operation: ``cpim/operations.py`` (GW-8, SEED-54)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from comity.cpim.operations import MOST_HISTORY, HistoryEntry, extended

START = datetime(2026, 1, 1, tzinfo=UTC)


def grown(count: int) -> tuple[HistoryEntry, ...]:
    history: tuple[HistoryEntry, ...] = ()
    for n in range(count):
        history = extended(history, HistoryEntry(f"n{n}", f"in{n}", f"out{n}", START + timedelta(seconds=n)))
    return history


def test_entries_stand_in_the_order_of_the_nodes() -> None:
    assert [entry.node for entry in grown(MOST_HISTORY)] == [f"n{n}" for n in range(MOST_HISTORY)]


def test_above_the_cap_the_oldest_middle_ones_become_one() -> None:
    """The sender's own node and the last ones are what somebody looks for."""
    for count in (MOST_HISTORY + 1, MOST_HISTORY + 2, 3 * MOST_HISTORY):
        history = grown(count)
        assert len(history) == MOST_HISTORY
        assert history[0].node == "n0"
        assert history[-1].node == f"n{count - 1}"
        left = count - MOST_HISTORY + 1
        assert history[1] == HistoryEntry(
            "n1", "in1", f"out{left}", START + timedelta(seconds=1), f"{left} nodes in one"
        )
        assert history[2].node == f"n{left + 1}"

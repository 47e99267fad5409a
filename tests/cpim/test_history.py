"""The transport history of an operation: ``cpim/history.py`` (GW-8, SEED-54)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from comity.cpim.history import MOST_HISTORY, HistoryEntry, extended, in_words, left_by, read_entry, tls_word

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


@pytest.mark.parametrize("links", list(product((True, False), repeat=2)))
def test_protection_of_both_links_is_one_word_in_every_protocol(links: tuple[bool, bool]) -> None:
    entry = HistoryEntry("n", "sip", "xmpp", START, "", *links)
    assert read_entry("n", ("sip", "xmpp"), START, "", tls_word(entry)) == entry


def test_what_is_not_known_of_a_link_is_not_said() -> None:
    assert tls_word(HistoryEntry("n", "sip", "xmpp", START, in_tls=True)) == ""
    read = read_entry("n", ("sip", "xmpp"), START, "", "perhaps")
    assert read == HistoryEntry("n", "sip", "xmpp", START)


@pytest.mark.parametrize(
    ("node", "protocol", "when"),
    [("", "sip", START), ("n" * 256, "sip", START), ("n", "p" * 17, START), ("n", "sip", START.replace(tzinfo=None))],
)
def test_an_entry_that_nobody_writes_in_good_faith_is_none(node: str, protocol: str, when: datetime) -> None:
    assert read_entry(node, (protocol, "xmpp"), when, "", "") is None


def test_nodes_that_became_one_are_as_protected_as_the_worst_of_them() -> None:
    history: tuple[HistoryEntry, ...] = ()
    for n in range(MOST_HISTORY + 5):
        links = (True, n != 3)
        history = extended(history, HistoryEntry(f"n{n}", "sip", "sip", START, "", *links))
    assert (history[1].in_tls, history[1].out_tls) == (False, False)
    assert history[-1].out_tls is True


def test_our_own_entry_is_corrected_when_the_link_is_known() -> None:
    first, last = (
        HistoryEntry("a", "sip", "sip", START, "", True, True),
        HistoryEntry("b", "sip", "apex", START, "", True),
    )
    assert [entry.out_tls for entry in left_by((first, last), is_protected=False)] == [True, False]
    assert left_by((), is_protected=True) == ()


def test_the_way_reads_as_a_sentence() -> None:
    way = (HistoryEntry("a.test", "sip", "apex", START, "", False, True), HistoryEntry("b.test", "apex", "xmpp", START))
    assert in_words(way) == "a.test (sip to apex, in without TLS), b.test (apex to xmpp)"

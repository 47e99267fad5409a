"""Options by themselves: whatever stands in one, it is read or refused (``bindings/apex/options.py``, ``rates.py``)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.elements import Error, Option
from comity.bindings.apex.options import (
    DATA_HOPPING,
    DATA_TIMING,
    HISTORY,
    PROTECTION,
    Asked,
    Place,
    history_option,
    not_understood,
    read_history,
    read_options,
)
from comity.bindings.apex.rates import Rates
from comity.cpim.history import MOST_HISTORY
from comity.cpim.operations import HistoryEntry

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NAMES = st.sampled_from([DATA_TIMING, DATA_HOPPING, "hold4Endpoint", "statusRequest", "attachOverride", "x"])
WORDS = st.sampled_from(
    [
        b"<dataTiming",
        b"<dataHopping",
        b"<protection xmlns='urn:comity:protection:0'",
        b" noMoreThan='",
        b" noLaterThan='",
        b"-1",
        b"0",
        b"255",
        b"256",
        b"99999999999",
        b"true",
        b"'",
        b" reportErrors='",
        b"/>",
        b">",
        b"<tls/>",
        b"&",
        b"\xc3\xa4",
    ]
)
CONTENTS = st.one_of(st.lists(WORDS, max_size=8).map(b"".join), st.text(max_size=20).map(str.encode))


@given(NAMES, st.sampled_from([HISTORY, PROTECTION, ""]), CONTENTS, st.integers(0, 2**31 - 1))
def test_any_content_is_read_or_refused(name: str, external: str, content: bytes, trans_id: int) -> None:
    """P-30 for what stands inside an option."""
    option = Option("" if external else name, external, "all", trans_id=trans_id, content=content)
    found = read_options([option])
    assert isinstance(found, Asked) or found.code in (501, 554)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("statusRequest", "attach"),
        ("attachOverride", "data"),
        ("dataTiming", "recipient"),
        ("statusRequest", "originator"),
    ],
)
def test_an_option_out_of_its_place_is_not_known(name: str, place: Place) -> None:
    """RFC 3340 section 7.1, "Present in"."""
    option = Option(name, must_understand=True, target_hop="all", trans_id=1)
    assert isinstance(not_understood([option], place), Error)
    assert not_understood([Option(name, trans_id=1)], place) is None


def test_history_is_bounded_and_what_cannot_be_read_is_left_out() -> None:
    """GW-8."""
    entries = [HistoryEntry(f"n{k}.test", "sip", "apex", WHEN + timedelta(seconds=k)) for k in range(70)]
    read = read_history(history_option(entries, 1))
    assert read == tuple(entries[-MOST_HISTORY:])
    hops = "<hop node='a' in='sip' out='apex' time='yesterday'/><hop node='b' in='sip' out='apex' time='2026-01-02T03:04:05Z'/>"
    option = Option(external=HISTORY, content=f"<history xmlns='{HISTORY}'>{hops}</history>".encode())
    assert [entry.node for entry in read_history(option)] == ["b"]
    assert read_history(Option(external=HISTORY, content=b"<history")) == ()


def test_rates_count_messages_and_octets() -> None:
    rates = Rates(10.0, 5, 1000.0, 1_000, now=0.0)
    rates.take(5, 100, 0.0)
    assert rates.debt(0.0) == 0.0
    rates.take(10, 100, 0.0)
    assert rates.debt(0.0) == pytest.approx(1.0)
    assert rates.debt(1.1) == 0.0
    rates.take(1, 20_000, 1.1)
    assert rates.debt(1.1) > 5.0

"""Words of another side, cleaned (G-14, T27)."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.said import MOST_OCTETS, said


def test_controls_become_spaces_and_the_rest_is_cut() -> None:
    assert said("no\r\nX-Header: 1\x1b[31m\u202eevil\u0000\u2028 end") == "no X-Header: 1 [31m evil end"
    assert said("<b>&lt;") == "<b>&lt;"  # each protocol's writer escapes it
    assert said("ü" * 400) == "ü" * 128
    assert said("x" * 10_000_000) == "x" * 256


@given(st.text())
def test_one_line_in_bounds_whatever_was_said(text: str) -> None:
    line = said(text)
    assert len(line.encode()) <= MOST_OCTETS
    assert not any(
        unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        for character in line[:20]
        if ord(character) < 0x10000 and ord(character) not in range(0x6DD, 0x8E3)
    )
    assert said(line) == line

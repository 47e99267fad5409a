"""Typing states as documents (RFC 3994 sections 3 and 6)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.composing import COMPOSING_TYPE, Composing, composing_in, parse_composing
from comity.cpim.native import wrap
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage

#: RFC 3994 section 5, with all children.
EXAMPLE = b"""<?xml version="1.0" encoding="UTF-8"?>
<isComposing xmlns="urn:ietf:params:xml:ns:im-iscomposing"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="urn:ietf:params:xml:ns:im-iscomposing iscomposing.xsd">
    <state>active</state>
    <contenttype>text/plain</contenttype>
    <refresh>90</refresh>
</isComposing>
"""


def test_the_example_of_the_rfc() -> None:
    assert parse_composing(EXAMPLE) == Composing(True, 90)
    idle = EXAMPLE.replace(b"active", b"idle").replace(b"<refresh>90</refresh>", b"<lastactive>2003</lastactive>")
    assert parse_composing(idle) == Composing(False)


@pytest.mark.parametrize(
    ("refresh", "seconds"), [(b"", 120), (b"<refresh>1</refresh>", 60), (b"<refresh>99999999999</refresh>", 3600)]
)
def test_refresh_has_bounds(refresh: bytes, seconds: int) -> None:
    """IMDN-14: 120 s unless said, never under 60."""
    assert parse_composing(EXAMPLE.replace(b"<refresh>90</refresh>", refresh)).refresh == seconds


@pytest.mark.parametrize("state", [b"thinking", b"Active", b"idle"])
def test_states_that_are_not_known_are_idle(state: bytes) -> None:
    """IMDN-14, RFC 3994 section 3.5."""
    assert parse_composing(EXAMPLE.replace(b"active", state)) == Composing(False, 90)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"<isComposing", b"<!DOCTYPE isComposing><isComposing"),
        (b"im-iscomposing", b"im-other"),
        (b"<state>active</state>", b""),
        (b"<state>", b"<state>idle</state><state>"),
        (b"<state>", b"<mood>x</mood><state>"),
        (b"active", b"<b/>active"),
        (b"90", b"-1"),
        (b"90", b"\xd9\xa3"),
        (b"</isComposing>", b"</isComposing>" + b" " * 9000),
    ],
)
def test_anything_else_is_none(old: bytes, new: bytes) -> None:
    assert old in EXAMPLE
    data = EXAMPLE.replace(old, new)
    with pytest.raises(MalformedMessage):
        parse_composing(data)
    assert composing_in(MimeObject.of(COMPOSING_TYPE, data)) is None


def test_bare_and_wrapped() -> None:
    people = Address.parse("im:a@a.test"), Address.parse("im:b@a.test")
    when = datetime(2026, 1, 2, tzinfo=UTC)
    assert composing_in(MimeObject.of(COMPOSING_TYPE, EXAMPLE)) == Composing(True, 90)
    assert composing_in(wrap(*people, EXAMPLE, COMPOSING_TYPE, when=when, message_id="m" * 12)) == Composing(True, 90)
    assert composing_in(wrap(*people, EXAMPLE, "text/plain", when=when, message_id="m" * 12)) is None
    assert composing_in(MimeObject.of("message/cpim", b"x")) is None


@given(st.booleans(), st.integers(60, 3600))
def test_what_is_written_is_read(is_active: bool, refresh: int) -> None:
    read = parse_composing(Composing(is_active, refresh).document())
    assert (read.is_active, read.refresh if is_active else 0) == (is_active, refresh if is_active else 0)


@given(st.binary(max_size=300))
def test_any_octets_are_a_status_or_refused(octets: bytes) -> None:
    try:
        parse_composing(octets)
        parse_composing(EXAMPLE.replace(b"active", octets))
    except MalformedMessage:
        pass

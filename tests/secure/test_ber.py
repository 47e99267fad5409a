"""The BER reader and DER writer (X.690)."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.secure import ber


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x30",
        b"\x30\x05\x02\x01\x01",
        b"\x30\x03\x02\x05\x01",
        b"\x02\x01\x01\x00",
        b"\x04\x80\x00\x00",
        b"\x30\x80\x02\x01\x01",
        b"\x30\x80\x02\x01\x01\x00",
        b"\x30\x89\x01\x01\x01\x01\x01\x01\x01\x01\x01",
        b"\x30\x88\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x1f\x81\x01\x00",
        b"\x30\x82\x01",
    ],
    ids=bytes.hex,
)
def test_what_is_not_ber_is_refused(octets: bytes) -> None:
    with pytest.raises(ber.BerError):
        ber.read(octets).der()


def test_depth_is_bounded() -> None:
    deep = b"\x30\x80" * 5000 + b"\x00\x00" * 5000
    started = time.thread_time()
    with pytest.raises(ber.BerError, match="too deep"):
        ber.read(deep)
    definite = b""
    for _ in range(ber.MAX_DEPTH + 2):
        definite = ber.sequence(definite)
    with pytest.raises(ber.BerError, match="too deep"):
        ber.read(definite).der()
    assert time.thread_time() - started < 1


def test_the_number_of_elements_is_bounded() -> None:
    with pytest.raises(ber.BerError, match="too many"):
        ber.read(ber.sequence(ber.NULL_DER * (ber.MAX_ELEMENTS + 1))).der()


def test_indefinite_lengths_and_split_strings_become_der() -> None:
    split = b"\x24\x80\x04\x02hi\x24\x04\x04\x02 yo\x00\x00"[:-1]
    split = b"\x24\x80" + b"\x04\x02hi" + b"\x24\x80\x04\x03 yo\x00\x00" + b"\x00\x00"
    element = ber.read(b"\x30\x80" + split + b"\x00\x00")
    assert element.children[0].octets() == b"hi yo"
    assert element.der() == ber.sequence(ber.octet_string(b"hi yo"))
    assert ber.read(b"\x31\x80\x02\x01\x02\x02\x01\x01\x00\x00").der() == b"\x31\x06\x02\x01\x01\x02\x01\x02"


def test_long_lengths_are_minimal_when_written() -> None:
    assert ber.octet_string(b"x" * 127)[:2] == b"\x04\x7f"
    assert ber.octet_string(b"x" * 128)[:3] == b"\x04\x81\x80"
    assert ber.octet_string(b"x" * 65536)[:5] == b"\x04\x83\x01\x00\x00"
    assert ber.read(b"\x04\x82\x00\x01x").der() == b"\x04\x01x"


@given(st.integers(-(2**400), 2**400))
def test_integers_round_trip(value: int) -> None:
    assert ber.read(ber.integer(value)).integer() == value


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**60), max_size=6))
def test_object_identifiers_round_trip(first: int, second: int, rest: list[int]) -> None:
    dotted = ".".join(map(str, (first, second, *rest)))
    assert ber.read(ber.oid(dotted)).oid() == dotted


@pytest.mark.parametrize(
    "octets", [b"\x06\x00", b"\x06\x01\x80", b"\x06\x02\x80\x01", b"\x06\x02\x2a\x86"], ids=bytes.hex
)
def test_bad_object_identifiers_are_refused(octets: bytes) -> None:
    with pytest.raises(ber.BerError):
        ber.read(octets).oid()


@given(st.datetimes(datetime(1950, 1, 1), datetime(9999, 12, 31)))
def test_times_round_trip_to_the_second(when: datetime) -> None:
    when = when.replace(tzinfo=UTC, microsecond=0)
    assert ber.read(ber.time(when)).time() == when


@pytest.mark.parametrize("text", [b"", b"260301", b"260301120000+0100", b"261301120000Z", b"\xff" * 13])
def test_other_forms_of_time_are_refused(text: bytes) -> None:
    with pytest.raises(ber.BerError):
        ber.read(ber.tlv(ber.UTC_TIME, text)).time()


@given(st.binary(max_size=300))
def test_arbitrary_octets_are_an_element_or_a_ber_error(octets: bytes) -> None:
    try:
        element = ber.read(octets)
    except ber.BerError:
        return
    assert bytes(element.raw) == octets


trees = st.recursive(
    st.binary(max_size=20).map(ber.octet_string),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: ber.sequence(*parts)),
    max_leaves=20,
)


@given(trees)
def test_der_written_again_is_the_same(octets: bytes) -> None:
    assert ber.read(octets).der() == octets


def test_a_cursor_says_what_is_missing_or_too_many() -> None:
    cursor = ber.Cursor(ber.read(ber.sequence(ber.integer(1), ber.integer(2))))
    assert cursor.next(ber.INTEGER).integer() == 1
    assert cursor.optional(ber.OID) is None
    with pytest.raises(ber.BerError, match="too many"):
        cursor.end()
    with pytest.raises(ber.BerError, match="expected tag"):
        cursor.next(ber.OID)
    cursor.next()
    with pytest.raises(ber.BerError, match="missing"):
        cursor.next()

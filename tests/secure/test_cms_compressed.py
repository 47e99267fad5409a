"""CMS CompressedData (RFC 3274); SEC-40, M-32."""

from __future__ import annotations

import random
import time
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import SecurityError
from comity.secure import VerdictKind, ber, cms, cms_compressed, cms_keys, sealing, sign, verify
from comity.secure.evidence import TooLarge, UnknownAlgorithm
from tests.secure import kit
from tests.secure.kit import NOW

ENTITY = b"Content-Type: text/plain\r\n\r\nWatson, come here - I want to see you."


def compressed(octets: bytes, *, algorithm: str = cms_compressed.ZLIB) -> bytes:
    encapsulated = ber.sequence(ber.oid(cms.ID_DATA), ber.tlv(0xA0, ber.octet_string(octets)))
    body = ber.sequence(ber.integer(0), ber.sequence(ber.oid(algorithm)), encapsulated)
    return ber.sequence(ber.oid(cms_keys.ID_COMPRESSED_DATA), ber.tlv(0xA0, body))


def test_what_was_compressed_comes_back() -> None:
    """SEC-40."""
    assert cms_compressed.decompress(compressed(zlib.compress(ENTITY * 3))) == ENTITY * 3


@pytest.mark.parametrize("size", [100_000, 50_000_000])
def test_a_bomb_is_refused_in_bounded_time(size: int) -> None:
    """M-32: 16 times and 4 MiB."""
    raw = compressed(zlib.compress(bytes(size), 9))
    started = time.process_time()
    with pytest.raises(TooLarge):
        cms_compressed.decompress(raw)
    assert time.process_time() - started < 0.5


def test_four_mebibytes_are_the_end_whatever_the_ratio() -> None:
    noise = random.Random(3274).randbytes(cms_compressed.MAX_INFLATED)
    assert cms_compressed.decompress(compressed(zlib.compress(noise))) == noise
    with pytest.raises(TooLarge):
        cms_compressed.decompress(compressed(zlib.compress(noise + b"x")))


@pytest.mark.parametrize("octets", [b"", b"nonsense", zlib.compress(ENTITY)[:-1], zlib.compress(ENTITY) + b"x"])
def test_damaged_content_is_not_ber(octets: bytes) -> None:
    with pytest.raises(ber.BerError):
        cms_compressed.decompress(compressed(octets))


def test_another_algorithm_is_unknown() -> None:
    with pytest.raises(UnknownAlgorithm):
        cms_compressed.decompress(compressed(zlib.compress(ENTITY), algorithm="1.2.3"))


@given(st.binary(max_size=300))
def test_any_octets_come_back(octets: bytes) -> None:
    assert cms_compressed.decompress(cms_compressed.compress(octets)) == octets


def test_what_would_be_taken_for_a_bomb_is_not_written() -> None:
    with pytest.raises(SecurityError, match="for a bomb"):
        cms_compressed.compress(bytes(10_000))


def test_compressed_then_signed_is_valid_and_the_octets_are_the_same() -> None:
    """RFC 8551 section 3.7; the verdict looks through."""
    verdict = verify(sign(sealing.compress(kit.cpim()), kit.identity(), when=NOW), kit.trust(), now=NOW)
    assert verdict.verdict is VerdictKind.VALID, verdict.reason
    assert verdict.content is not None
    assert verdict.content.entity == kit.cpim().entity

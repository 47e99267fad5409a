"""Content-Encoding taken off (RFC 3261 section 20.12, SEED-29)."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.sip.coding import MOST_DECODED, MOST_RATIO, decoded
from comity.bindings.sip.mapping import Refusal, request_to_operation
from comity.bindings.sip.message import SipRequest
from comity.cpim.operations import MessageOperation
from comity.errors import RemoteProtocolError

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def raw_deflate(octets: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(octets) + packer.flush()


CODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": raw_deflate,
}


def request(body: bytes, *coding: str, content_type: str = "text/plain") -> SipRequest:
    headers = [
        ("Via", "SIP/2.0/TCP h;branch=z9hG4bKx"),
        ("From", "<sip:alice@a.test>;tag=1"),
        ("To", "<sip:bob@a.test>"),
        ("Call-ID", "c"),
        ("CSeq", "1 MESSAGE"),
        ("Max-Forwards", "70"),
        ("Content-Type", content_type),
        *(("Content-Encoding", value) for value in coding),
    ]
    return SipRequest("MESSAGE", "sip:bob@a.test", headers, body)


def operation(given: SipRequest) -> MessageOperation:
    made = request_to_operation(given, when=WHEN, message_id="m" * 16)
    assert isinstance(made, MessageOperation), made
    return made


@given(st.binary(max_size=3000), st.sampled_from(sorted(CODERS)))
def test_the_octets_are_those_of_the_plain_body(body: bytes, coding: str) -> None:
    """SEED-29: the codec's transform is undone; its domain is every body within the bounds."""
    assert decoded(request(CODERS[coding](body), coding)).body == body


@pytest.mark.parametrize("coding", CODERS)
@pytest.mark.parametrize("content_type", ["text/plain", "message/cpim", "multipart/signed; boundary=b"])
def test_the_object_is_the_one_that_was_put_in(coding: str, content_type: str) -> None:
    """SEED-29: equal to the object of the same body sent plain, headers too; a signature covers what was decoded."""
    body = b"--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b--\r\n"
    plain = operation(request(body, content_type=content_type))
    packed = operation(request(CODERS[coding](body), coding, content_type=content_type))
    assert packed.object == plain.object
    assert b"ncoding" not in packed.object.header_block


@pytest.mark.parametrize(
    ("body", "codings", "code"),
    [
        (zlib.compress(gzip.compress(b"hi")), ["gzip, deflate"], 415),
        (zlib.compress(gzip.compress(b"hi")), ["gzip", "deflate"], 415),
        (b"hi", ["br"], 415),
        (b"hi", ["gzip"], 400),
        (b"hi", ["deflate"], 400),
        (b"", ["gzip"], 400),
        (gzip.compress(b"hi")[:-1], ["gzip"], 400),
        (gzip.compress(b"hi") + b"x", ["gzip"], 400),
        (gzip.compress(b"hi") + gzip.compress(b"ho"), ["gzip"], 400),
        (zlib.compress(b"hi") + b"x", ["deflate"], 400),
        (gzip.compress(bytes(100_000_000)), ["gzip"], 413),
        (zlib.compress(bytes(100_000)), ["deflate"], 413),
    ],
)
def test_what_cannot_be_decoded_is_refused(body: bytes, codings: list[str], code: int) -> None:
    """T26, SEED-29: a bomb is stopped by its ratio, whatever it would have become."""
    made = request_to_operation(request(body, *codings), when=WHEN, message_id="m" * 16)
    assert isinstance(made, Refusal)
    assert made.status_code == code
    if code == 415:
        assert made.headers == (("Accept-Encoding", "gzip, deflate, identity"),)


def test_both_bounds() -> None:
    """A body that is hard to compress meets the absolute bound, any other that of its ratio."""
    noise = b"".join(zlib.crc32(n.to_bytes(4, "big")).to_bytes(4, "big") for n in range(MOST_DECODED // 4))
    assert decoded(request(zlib.compress(noise), "deflate")).body == noise
    with pytest.raises(RemoteProtocolError) as refused:
        decoded(request(zlib.compress(noise + b"x"), "deflate"))
    assert refused.value.hint == "413"
    packed = zlib.compress(bytes(60_000))
    assert MOST_RATIO * len(packed) < 60_000
    with pytest.raises(RemoteProtocolError) as refused:
        decoded(request(packed, "deflate"))
    assert refused.value.hint == "413"


def test_identity_is_no_coding() -> None:
    plain = request(b"hi")
    assert decoded(plain) is plain
    assert operation(request(b"hi", "identity")).object == operation(plain).object

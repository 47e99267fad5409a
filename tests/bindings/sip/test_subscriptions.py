"""SUBSCRIBE and the subscribe operation, both ways: bindings/sip/subscriptions.py (SEC-34)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.subscriptions import request_to_subscription, subscript_id, subscription_to_request
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, SubscribeOperation
from comity.errors import LocalProtocolError

ALICE, BOB = Address.parse("pres:alice@a.test"), Address.parse("pres:bob@b.test")
BLOCK = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b\r\n'
PROOF = MimeObject(BLOCK, b"--b\r\n\x00\xff\r\n--b--\r\n")
ASKED = SubscribeOperation(ALICE, BOB, subscript_id("c1@host.test", "t1"), "z9hG4bKb1", 600, proof=PROOF)


def sent(operation: SubscribeOperation, *more: tuple[str, str]) -> SipRequest:
    request = subscription_to_request(
        operation, target="sip:bob@b.test", call_id="c1@host.test", tag="t1", contact="<sip:alice@192.0.2.1>"
    )
    via = ("Via", "SIP/2.0/TLS h;branch=z9hG4bKb1")
    return SipRequest(request.method, request.uri_text, [via, *request.headers, *more], request.body)


@given(duration=st.integers(0, 2**32 - 1), octets=st.binary(min_size=1))
def test_what_is_signed_comes_back(duration: int, octets: bytes) -> None:
    """Header and octets of the proof are those that went in."""
    operation = replace(ASKED, duration=duration, proof=MimeObject(BLOCK, octets))
    assert request_to_subscription(sent(operation)) == operation


def test_signed_data_with_its_transfer_encoding_comes_back() -> None:
    block = b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: base64\r\n"
    operation = replace(ASKED, proof=MimeObject(block, b"AAAA\r\n"))
    assert request_to_subscription(sent(operation)) == operation


def test_without_a_proof_there_is_no_body() -> None:
    operation = replace(ASKED, proof=None)
    assert not sent(operation).body
    assert request_to_subscription(sent(operation)) == operation


def test_a_body_that_is_not_signed_is_no_proof() -> None:
    """RFC 4660: a filter says nothing about who asks."""
    request = sent(replace(ASKED, proof=None), ("Content-Type", "application/simple-filter+xml"))
    made = request_to_subscription(SipRequest(request.method, request.uri_text, request.headers, b"<filter-set/>"))
    assert isinstance(made, SubscribeOperation)
    assert made.proof is None


def test_a_proof_in_a_content_coding_is_not_taken() -> None:
    made = request_to_subscription(sent(ASKED, ("Content-Encoding", "gzip")))
    assert isinstance(made, Refusal)
    assert (made.status_code, made.headers) == (415, (("Accept-Encoding", "identity"),))


def test_another_subscript_id_than_the_dialogs_is_not_sent() -> None:
    """The proof would not fit what is asked."""
    with pytest.raises(LocalProtocolError):
        sent(replace(ASKED, subscript_id="other"))

"""The examples of RFC 8591 section 10, octet by octet (SEC-41).

Alice's certificate ended on 2018-12-19, before the RFC's own signing time in 2019, and only holds a sip: URI; the content is
text/plain, not message/cpim. So the best verdict is "headers-unprotected", at a clock inside the certificate's year.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.secure import TrustStore, VerdictKind, cms, cms_check, verify

FOLDER = Path(__file__).parent / "rfc8591"
DURING = datetime(2018, 6, 1, tzinfo=UTC)
AFTER = datetime(2019, 1, 26, 6, 13, 54, tzinfo=UTC)
TEXT = b"Content-Type: text/plain\r\n\r\nWatson, come here - I want to see you.\r\n"
CONTENT_TYPE = 'application/pkcs7-mime; smime-type=signed-data;\r\n              name="smime.p7m"'


def example(name: str) -> MimeObject:
    raw = bytes.fromhex((FOLDER / f"{name}.hex").read_text())
    return MimeObject(f"Content-Transfer-Encoding: binary\r\nContent-Type: {CONTENT_TYPE}\r\n".encode(), raw)


WITH, WITHOUT = example("10.1-signed-with-certificate"), example("10.2-signed-without-certificate")
ALICE = cms.parse_signed_data(WITH.octets).certificates[0]
PINNED, KNOWN = TrustStore(pinned=(ALICE,)), TrustStore(known=(ALICE,))


def test_the_sizes_are_those_of_the_figures() -> None:
    assert (len(WITH.octets), len(WITHOUT.octets)) == (762, 395)


@pytest.mark.parametrize("obj", [WITH, WITHOUT], ids=["10.1", "10.2"])
def test_signed_examples_verify_with_the_clock_fixed(obj: MimeObject) -> None:
    verdict = verify(obj, PINNED, now=DURING)
    assert (verdict.verdict, verdict.signer) == (VerdictKind.HEADERS_UNPROTECTED, "sip:alice@example.com")
    assert verdict.content is not None
    assert verdict.content.entity == TEXT
    signer = cms_check.check(cms.parse_signed_data(obj.octets), TEXT, [ALICE])[0]
    assert (signer.digest, signer.is_weak, signer.signing_time) == ("sha256", False, AFTER)


@pytest.mark.parametrize("obj", [WITH, WITHOUT], ids=["10.1", "10.2"])
def test_at_the_time_of_signing_the_certificate_had_expired(obj: MimeObject) -> None:
    verdict = verify(obj, PINNED, now=AFTER)
    assert verdict.verdict is VerdictKind.UNTRUSTED
    assert "expired on 2018-12-19" in verdict.reason


def test_without_the_certificate_nothing_is_checked() -> None:
    assert verify(WITHOUT, TrustStore(), now=DURING).verdict is VerdictKind.NOT_CHECKED
    assert verify(WITH, TrustStore(), now=DURING).verdict is VerdictKind.UNTRUSTED
    assert verify(WITHOUT, KNOWN, now=DURING).verdict is VerdictKind.UNTRUSTED


@pytest.mark.parametrize("obj", [WITH, WITHOUT], ids=["10.1", "10.2"])
def test_one_changed_letter_is_found(obj: MimeObject) -> None:
    changed = MimeObject(obj.header_block, obj.octets.replace(b"Watson", b"Wotson"))
    assert verify(changed, PINNED, now=DURING).verdict is VerdictKind.BAD_SIGNATURE


def test_the_payload_of_a_message_may_be_the_example() -> None:
    """RFC 8591 section 9.1: protection of the payload only; alice@example.com by policy for sip: (SEC-19, SEC-28)."""
    raw = CpimMessage.build(
        from_="im:alice@example.com",
        to="im:bob@example.org",
        content=WITH.octets,
        content_type="application/pkcs7-mime; smime-type=signed-data; name=smime.p7m",
    ).raw
    obj = MimeObject.of("message/cpim", raw)
    assert verify(obj, PINNED, now=DURING).verdict is VerdictKind.SIGNED_BY_OTHER
    allowed = TrustStore(pinned=(ALICE,), sip_vouches_for=frozenset({"example.com"}))
    assert verify(obj, allowed, now=DURING).verdict is VerdictKind.HEADERS_UNPROTECTED


def test_the_encrypted_example_is_named_encrypted() -> None:
    obj = example("10.3-signed-and-encrypted")
    assert verify(obj, PINNED, now=DURING).verdict is VerdictKind.ENCRYPTED

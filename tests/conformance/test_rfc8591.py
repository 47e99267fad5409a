"""The examples of RFC 8591 section 10, octet by octet (SEC-41).

Alice's certificate ended on 2018-12-19, before the RFC's own signing time in 2019, and only holds a sip: URI; the content is
text/plain, not message/cpim. So the best verdict is "headers-unprotected", at a clock inside the certificate's year.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import Identity, TrustStore, VerdictKind, cms, cms_check, cms_enveloped, cms_keys, decrypt, verify
from comity.secure.evidence import DecryptionFailed, NoKey
from tests.secure import kit

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
ENCRYPTED = example("10.3-signed-and-encrypted")
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
    assert verify(ENCRYPTED, PINNED, now=DURING).verdict is VerdictKind.ENCRYPTED


# --- 10.3 and 10.4: the RFC gives no private key, so they are read as far as appendix A.3.2 tells --------------------


def test_the_two_chunks_are_the_one_object() -> None:
    """10.4: "The S/MIME operations were performed prior to breaking the message into chunks."; Byte-Range 1-960/1940."""
    chunks = [bytes.fromhex((FOLDER / f"10.4-{which}-chunk.hex").read_text()) for which in ("first", "second")]
    assert [len(chunk) for chunk in chunks] == [960, 980]
    assert b"".join(chunks) == ENCRYPTED.octets
    for chunk in chunks:
        with pytest.raises(MalformedMessage):
            decrypt(MimeObject(ENCRYPTED.header_block, chunk), [kit.identity()])


def test_the_encrypted_example_decodes_to_the_structure_of_the_appendix() -> None:
    """Appendix A.3.2: AuthEnvelopedData for Alice, key by RSA PKCS #1 1.5, content in AES-128-GCM with a tag of 16 octets."""
    sealed = cms_enveloped.parse(ENCRYPTED.octets)
    (recipient,) = sealed.recipients
    issuer = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example.com"), x509.NameAttribute(NameOID.COMMON_NAME, "Alice")]
    )
    assert (recipient.name.issuer, recipient.name.serial) == (issuer.public_bytes(), 9508519069068149774)
    assert (recipient.algorithm, len(recipient.encrypted_key)) == (cms_keys.RSA_ENCRYPTION, 512)
    nonce, size = sealed.parameters.children
    assert (sealed.cipher.name, nonce.octets().hex(), size.integer()) == ("aes-128-gcm", "4d8757222eac5294117f0c12", 16)
    assert (len(sealed.tag), sum(map(len, sealed.content.pieces(0x80)))) == (16, 1248)


def test_others_have_no_key_for_it_and_a_wrong_key_of_alices_name_fails() -> None:
    with pytest.raises(NoKey):
        decrypt(ENCRYPTED, [kit.identity()])
    key = rsa.generate_private_key(65537, 4096)
    issuer = x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "example.com"), x509.NameAttribute(NameOID.COMMON_NAME, "Alice")]
    )
    builder = x509.CertificateBuilder().subject_name(issuer).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(9508519069068149774).not_valid_before(DURING).not_valid_after(AFTER)
    pretender = Identity(kit.ALICE, key, (builder.sign(key, hashes.SHA256()),))
    with pytest.raises(DecryptionFailed):
        decrypt(ENCRYPTED, [pretender])

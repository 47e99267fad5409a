"""Encrypted CMS that no peer at hand writes, made here field by field from the RFC's text; SEC-9, SEC-10, M-27."""

from __future__ import annotations

import hashlib
import os

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from comity.cpim.operations import MimeObject
from comity.secure import ber, cms, cms_keys, cms_open, cms_seal, verify
from comity.secure.evidence import DecryptionFailed, UnknownAlgorithm
from tests.secure import kit
from tests.secure.damage import inner

ENTITY = b"Content-Type: text/plain\r\n\r\nWatson, come here - I want to see you."
ME = kit.identity()
KEK_SIZE = 16


def for_me(
    content_key: bytes, *, ukm: bytes = b"", agreement: str = cms_keys.ECDH_SHA256, kind: str = cms_keys.EC_PUBLIC_KEY
) -> bytes:
    """KeyAgreeRecipientInfo (RFC 5652 section 6.2.2, RFC 5753 section 3.1.1), the key derived with hashlib (ANSI X9.63)."""
    own = ec.generate_private_key(ec.SECP256R1())
    public = ME.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    secret = own.exchange(ec.ECDH(), public)
    wrap = bytes.fromhex("300b0609608648016503040105")  # id-aes128-wrap
    ukm_field = bytes((0xA0, len(ukm) + 2, 0x04, len(ukm))) + ukm if ukm else b""
    shared_info = wrap + ukm_field + bytes.fromhex("a206040400000080")
    shared_info = bytes((0x30, len(shared_info))) + shared_info
    kek = hashlib.sha256(secret + b"\0\0\0\1" + shared_info).digest()[:KEK_SIZE]
    point = own.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    name = ber.sequence(ME.certificate.issuer.public_bytes(), ber.integer(ME.certificate.serial_number))
    originator = ber.tlv(0xA1, ber.sequence(ber.oid(kind)), ber.tlv(ber.BIT_STRING, b"\0", point))
    return ber.tlv(
        0xA1,
        ber.integer(3),
        ber.tlv(0xA0, originator),
        ber.tlv(0xA1, ber.octet_string(ukm)) if ukm else b"",
        ber.sequence(ber.oid(agreement), wrap),
        ber.sequence(ber.sequence(name, ber.octet_string(aes_key_wrap(kek, content_key)))),
    )


def authenticated(info: bytes, algorithm: bytes, sealed: bytes, attributes: bytes = b"") -> bytes:
    """AuthEnvelopedData (RFC 5083 section 2.1); the last 16 octets of ``sealed`` are the tag."""
    content = ber.sequence(ber.oid(cms.ID_DATA), algorithm, ber.tlv(0x80, sealed[:-16]))
    body = ber.sequence(ber.integer(0), ber.set_of([info]), content, attributes, ber.octet_string(sealed[-16:]))
    return ber.sequence(ber.oid(cms_keys.ID_AUTH_ENVELOPED_DATA), ber.tlv(0xA0, body))


def gcm(nonce: bytes) -> bytes:
    parameters = ber.sequence(ber.octet_string(nonce), ber.integer(16))
    return ber.sequence(ber.oid(cms_keys.CIPHERS["aes-128-gcm"].oid), parameters)


@pytest.mark.parametrize("ukm", [b"", b"from the sender"])
def test_the_key_derivation_is_that_of_the_standard(ukm: bytes) -> None:
    """RFC 5753 section 7.2, with and without user keying material, and with a compressed point."""
    key, nonce = os.urandom(16), os.urandom(12)
    raw = authenticated(for_me(key, ukm=ukm), gcm(nonce), AESGCM(key).encrypt(nonce, ENTITY, b""))
    assert cms_open.open_enveloped(raw, [ME]).entity == ENTITY


class TestAuthenticatedAttributes:
    """RFC 5083 section 2.2: their DER, as a SET OF, is what the tag covers beside the content."""

    ATTRIBUTES = (
        kit.attribute(cms.CONTENT_TYPE, ber.oid(cms.ID_DATA)),
        kit.attribute("1.2.3.4", ber.octet_string(b"ours")),
    )

    def made(self, *written: bytes) -> bytes:
        key, nonce = os.urandom(16), os.urandom(12)
        sealed = AESGCM(key).encrypt(nonce, ENTITY, ber.set_of(self.ATTRIBUTES))
        return authenticated(for_me(key), gcm(nonce), sealed, ber.tlv(0xA1, *written))

    def test_they_are_covered_in_whatever_order_they_stand(self) -> None:
        one, two = self.ATTRIBUTES
        for order in ((one, two), (two, one)):
            assert cms_open.open_enveloped(self.made(*order), [ME]).entity == ENTITY

    def test_one_that_is_changed_or_missing_is_noticed(self) -> None:
        one, _ = self.ATTRIBUTES
        other = kit.attribute("1.2.3.4", ber.octet_string(b"evil"))
        for order in ((one,), (one, other)):
            with pytest.raises(DecryptionFailed):
                cms_open.open_enveloped(self.made(*order), [ME])


def test_chacha20_poly1305_is_read() -> None:
    """RFC 8103; RFC 8551 section 2.7 has it as SHOULD+."""
    key, nonce = os.urandom(32), os.urandom(12)
    algorithm = ber.sequence(ber.oid("1.2.840.113549.1.9.16.3.18"), ber.octet_string(nonce))
    raw = authenticated(for_me(key), algorithm, ChaCha20Poly1305(key).encrypt(nonce, ENTITY, b""))
    opened = cms_open.open_enveloped(raw, [ME])
    assert (opened.entity, opened.algorithm, opened.is_authenticated) == (ENTITY, "chacha20-poly1305", True)
    with pytest.raises(DecryptionFailed):
        cms_open.open_enveloped(raw[:-1] + bytes((raw[-1] ^ 1,)), [ME])


def test_what_was_authenticated_passed_off_as_cbc_shows_nothing() -> None:
    """M-27: the blocks of AES-GCM, and the wrapped key, in an EnvelopedData with AES-CBC (the attack RFC 9709 describes)."""
    raw = cms_seal.seal(ENTITY * 40, [ME.certificate], cipher="aes-128-gcm")
    version, recipients, content, _ = inner(raw).children
    blocks = bytes(content.children[2].body)[: len(ENTITY) * 40 // 16 * 16]
    algorithm = ber.sequence(ber.oid(cms_keys.CIPHERS["aes-128-cbc"].oid), ber.octet_string(bytes(16)))
    for cut in range(0, len(blocks) - 16, 16):  # one place in 256 looks like padding
        as_cbc = ber.sequence(ber.oid(cms.ID_DATA), algorithm, ber.tlv(0x80, blocks[cut:]))
        body = ber.sequence(bytes(version.raw), bytes(recipients.raw), as_cbc)
        forged = ber.sequence(ber.oid(cms_keys.ID_ENVELOPED_DATA), ber.tlv(0xA0, body))
        verdict = verify(MimeObject.of("application/pkcs7-mime", forged), kit.trust(), now=kit.NOW, keys=[ME])
        assert verdict.content is None
        assert verdict.reason.endswith("nothing of it is shown.")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"agreement": "1.2.3"}, UnknownAlgorithm),
        ({"kind": cms_keys.X25519}, DecryptionFailed),
        ({"agreement": cms_keys.HKDF_SHA256}, DecryptionFailed),
    ],
    ids=str,
)
def test_an_agreement_that_does_not_go_with_the_key(how: dict[str, str], error: type[Exception]) -> None:
    key, nonce = os.urandom(16), os.urandom(12)
    info = for_me(key, **how)  # type: ignore[arg-type]  # keyword table
    raw = authenticated(info, gcm(nonce), AESGCM(key).encrypt(nonce, ENTITY, b""))
    with pytest.raises(error):
        cms_open.open_enveloped(raw, [ME])


def test_other_kinds_of_recipients_are_passed_over() -> None:
    """RFC 5652 section 6.2.3 to 6.2.5: shared keys, passwords and what may come stand beside ours."""
    key, nonce = os.urandom(16), os.urandom(12)
    others = [ber.tlv(tag, ber.integer(4), ber.NULL_DER) for tag in (0xA2, 0xA3, 0xA4)]
    content = ber.sequence(
        ber.oid(cms.ID_DATA), gcm(nonce), ber.tlv(0x80, (sealed := AESGCM(key).encrypt(nonce, ENTITY, b""))[:-16])
    )
    body = ber.sequence(ber.integer(0), ber.set_of([*others, for_me(key)]), content, ber.octet_string(sealed[-16:]))
    raw = ber.sequence(ber.oid(cms_keys.ID_AUTH_ENVELOPED_DATA), ber.tlv(0xA0, body))
    assert cms_open.open_enveloped(raw, [ME]).entity == ENTITY

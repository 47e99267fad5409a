"""What a signature says of how to answer encrypted: capabilities and the key to use (RFC 8551 section 2.5.2, 2.5.3); SEC-20."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from comity.cpim.entity import decode_transfer, multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import (
    Identity,
    TrustStore,
    ber,
    chain,
    cms,
    cms_check,
    cms_keys,
    decrypt,
    encrypt,
    new_identity,
    sign,
    smime,
)
from comity.secure.evidence import SignatureFailed, Signer
from comity.secure.identity import DecryptionKey, KeyKind
from tests.secure import kit
from tests.secure.kit import NOW, attribute, signed_data, signer_info, usual_attributes

ENTITY = kit.cpim().entity
OURS = ("aes-256-gcm", "aes-128-gcm", "aes-256-cbc", "aes-128-cbc")


def signer_of(obj: MimeObject, trust: TrustStore) -> Signer:
    content, second = multipart_parts(obj)
    signed = cms.parse_signed_data(decode_transfer(split_entity(second)))
    return smime.signers_of(signed, content, frozenset(), trust, NOW)[0]


@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_one_key_for_both_is_answered_to_directly(kind: KeyKind) -> None:
    me = kit.identity(kit.ALICE, kind)
    found = signer_of(sign(ENTITY, me, when=NOW), kit.trust())
    assert found.capabilities == OURS
    assert found.encryption_certificate == found.certificate


@pytest.mark.parametrize("has_authority", [True, False])
def test_an_ed25519_signature_brings_the_x25519_certificate_and_the_answer_opens(has_authority: bool) -> None:
    """First contact by Ed25519: signed message there, encrypted message back; nothing else was exchanged."""
    me = new_identity(kit.ALICE, when=NOW, ca=kit.ca() if has_authority else None, kind="ed25519")
    trust = kit.trust() if has_authority else TrustStore(pinned=(me.certificate,))
    found = signer_of(sign(ENTITY, me, when=NOW), trust)
    assert found.distrust == ""
    reader = x509.load_der_x509_certificate(found.encryption_certificate)
    assert me.encryption is not None
    assert reader == me.encryption.certificate
    answer = encrypt(kit.cpim(), [reader], signer=kit.identity(kit.BOB), when=NOW, capabilities=[found.capabilities])
    assert decrypt(answer, [me]).algorithm == "aes-256-gcm"
    # Later, from what was kept: the certificate for encryption is vouched for as the one for signing is.
    assert chain.check_chain(reader, trust, NOW, purpose="encryption").distrust is None
    assert chain.check_chain(reader, trust, NOW).distrust is chain.Distrust.USAGE
    assert chain.check_chain(reader, TrustStore(), NOW, purpose="encryption").distrust is chain.Distrust.UNKNOWN_CA


def test_signed_data_is_small_unless_asked() -> None:
    """A SIP MESSAGE has 1300 octets: neither capabilities nor the second certificate go along."""
    me = kit.identity(kit.EVE, "ed25519")
    short, long = (
        cms.parse_signed_data(sign(ENTITY, me, when=NOW, form="signed-data", with_capabilities=asked).octets)
        for asked in (None, True)
    )
    assert (len(short.certificates), len(long.certificates)) == (1, 2)
    assert cms_check.check(short, ENTITY)[0].capabilities == ()
    assert cms_keys.CIPHERS["aes-128-gcm"].oid in cms_check.check(long, ENTITY)[0].capabilities


class TestSubstitution:
    """The certificates that come along are outside the signature: another's key must not slip in (T33)."""

    def signed_with(self, me: Identity, *bag: x509.Certificate) -> MimeObject:
        name = None if me.encryption is None else me.encryption.certificate
        preference = (
            []
            if name is None
            else [
                attribute(
                    cms.KEY_PREFERENCE, ber.tlv(0xA0, name.issuer.public_bytes(), ber.integer(name.serial_number))
                )
            ]
        )
        attributes = [*usual_attributes(ENTITY, "sha512"), *preference]
        info = signer_info(
            me, ENTITY, attributes=attributes, digest="sha512", algorithm=ber.sequence(ber.oid(cms.ED25519))
        )
        return kit.multipart(ENTITY, signed_data([info], [me.certificate, *bag], digests=["sha512"]), micalg="sha-512")

    def forged(self, like: x509.Certificate) -> x509.Certificate:
        """Of the same names and number as ``like``, with a key of the attacker, signed by himself."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            x509.CertificateBuilder()
            .subject_name(like.subject)
            .issuer_name(like.issuer)
            .public_key(key.public_key())
            .serial_number(like.serial_number)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .add_extension(like.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, critical=False)
        )
        return builder.sign(key, hashes.SHA256())

    @pytest.mark.parametrize("has_authority", [True, False])
    def test_a_forged_certificate_of_the_preferred_name_is_not_taken(self, has_authority: bool) -> None:
        me = new_identity(kit.ALICE, when=NOW, ca=kit.ca() if has_authority else None, kind="ed25519")
        trust = kit.trust() if has_authority else TrustStore(pinned=(me.certificate,))
        assert me.encryption is not None
        right, wrong = me.encryption.certificate, self.forged(me.encryption.certificate)
        assert signer_of(self.signed_with(me, wrong), trust).encryption_certificate == b""
        found = signer_of(self.signed_with(me, wrong, right), trust)
        assert x509.load_der_x509_certificate(found.encryption_certificate) == right

    def test_another_persons_certificate_of_the_same_authority_is_not_taken(self) -> None:
        me, other = kit.identity(kit.ALICE, "ed25519"), kit.identity(kit.EVE, "p256")
        without = Identity(me.address, me.key, me.certificates)
        assert signer_of(self.signed_with(without, other.certificate), kit.trust()).encryption_certificate == b""

    def test_without_a_preference_a_second_certificate_of_hers_is_found(self) -> None:
        """RFC 8551 section 2.5.3.1, the last step."""
        me = kit.identity(kit.ALICE, "ed25519")
        assert me.encryption is not None
        without = Identity(me.address, me.key, me.certificates)
        found = signer_of(self.signed_with(without, me.encryption.certificate), kit.trust())
        assert x509.load_der_x509_certificate(found.encryption_certificate) == me.encryption.certificate


@pytest.mark.parametrize("name", [cms.CAPABILITIES, cms.KEY_PREFERENCE])
def test_these_attributes_stand_once_with_one_value(name: str) -> None:
    """RFC 8551 section 2.5.2, 2.5.3: "the signature SHOULD be treated as failing"."""
    me = kit.identity()
    one = attribute(name, ber.sequence())
    for more in ([one, one], [attribute(name, ber.sequence(), ber.sequence(ber.NULL_DER))]):
        info = signer_info(me, ENTITY, attributes=[*usual_attributes(ENTITY), *more])
        with pytest.raises(SignatureFailed):
            cms_check.check(cms.parse_signed_data(signed_data([info], [me.certificate])), ENTITY)


def test_unknown_capabilities_are_passed_over() -> None:
    """RFC 8551 section 2.5.2: "MUST handle … values that it does not recognize in a graceful manner"."""
    known = ber.sequence(ber.oid(cms_keys.CIPHERS["aes-128-cbc"].oid))
    rc2 = ber.sequence(ber.oid("1.2.840.113549.3.2"), ber.integer(128))
    me = kit.identity()
    listed = attribute(cms.CAPABILITIES, ber.sequence(ber.sequence(ber.oid("1.2.3")), rc2, known))
    info = signer_info(me, ENTITY, attributes=[*usual_attributes(ENTITY), listed])
    found = signer_of(kit.multipart(ENTITY, signed_data([info], [me.certificate])), kit.trust())
    assert found.capabilities == ("aes-128-cbc",)


def test_a_key_that_is_not_the_certificates_is_no_key_to_read_with() -> None:
    me = kit.identity(kit.ALICE, "ed25519")
    assert me.encryption is not None
    with pytest.raises(SecurityError):
        DecryptionKey(kit.identity().key, me.encryption.certificate)  # type: ignore[arg-type]  # a P-256 key

"""Writing CMS SignedData (RFC 5652 section 5, RFC 8419, RFC 5035): the other half of ``cms.py``.

Place on the path: below ``signing.sign``. Content octets and an ``Identity`` go in, a DER ContentInfo comes out.
``cryptography``'s PKCS#7 builder is not used: it has no Ed25519 and no signingCertificateV2, and its SMIMECapabilities
cost octets that a SIP MESSAGE lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from comity.errors import SecurityError
from comity.secure import ber, chain, cms, cms_keys
from comity.secure.identity import Identity


def digest_of(identity: Identity) -> str:
    """OID of the digest that signatures of ``identity`` use: one as strong as the key, but at least SHA-256.

    Ed25519 has SHA-512 (RFC 8419 section 3.1); P-384 has SHA-384, a shorter one is refused by gpgsm."""
    if isinstance(identity.key, ed25519.Ed25519PrivateKey):
        return cms.SHA512_OID
    is_p384 = isinstance(identity.key, ec.EllipticCurvePrivateKey) and identity.key.key_size > 256
    return cms.SHA384_OID if is_p384 else cms.SHA256_OID


def sign_data(
    content: bytes,
    identity: Identity,
    when: datetime,
    *,
    is_detached: bool,
    certificates: Iterable[x509.Certificate],
    is_announcing: bool = False,
    is_pss: bool = False,
) -> bytes:
    """Write a ContentInfo with one signature over ``content`` (DER).

    Args:
        content: exactly the octets to sign; they are never changed.
        identity: whose key signs.
        when: aware UTC; becomes the signingTime attribute.
        is_detached: True leaves eContent out.
        certificates: what to send along.
        is_announcing: say what we can decrypt, and with which key (RFC 8551 section 2.5.2 and 2.5.3).
        is_pss: an RSA key signs by RSASSA-PSS (RFC 4056), which not every reader has; other keys take no notice.
    """
    digest_name = digest_of(identity)
    digest = cms.DIGESTS[digest_name]
    certificate = identity.certificate
    own_hash = hashlib.sha256(certificate.public_bytes(Encoding.DER)).digest()
    attributes = [
        _attribute(cms.CONTENT_TYPE, ber.oid(cms.ID_DATA)),
        _attribute(cms.MESSAGE_DIGEST, ber.octet_string(hashlib.new(digest, content).digest())),
        _attribute(cms.SIGNING_TIME, ber.time(when)),
        # ESSCertIDv2 with SHA-256 as the default, and without the optional issuer: the sid has it (RFC 5035 section 4).
        _attribute(cms.SIGNING_CERTIFICATE_V2, ber.sequence(ber.sequence(ber.sequence(ber.octet_string(own_hash))))),
    ]
    if is_announcing:
        attributes.append(_attribute(cms.CAPABILITIES, _CAPABILITIES))
        if identity.encryption is not None:
            reader = identity.encryption.certificate
            name = ber.tlv(0xA0, reader.issuer.public_bytes(), ber.integer(reader.serial_number))
            attributes.append(_attribute(cms.KEY_PREFERENCE, name))
    algorithm, signature = _make_signature(identity, ber.set_of(attributes), is_pss)
    digest_identifier = ber.sequence(ber.oid(digest_name))
    signer_info = ber.sequence(
        ber.integer(1),
        ber.sequence(certificate.issuer.public_bytes(), ber.integer(certificate.serial_number)),
        digest_identifier,
        ber.set_of(attributes, 0xA0),
        algorithm,
        ber.octet_string(signature),
    )
    encapsulated = b"" if is_detached else ber.tlv(0xA0, ber.octet_string(content))
    bag = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    signed_data = ber.sequence(
        ber.integer(1),
        ber.set_of([digest_identifier]),
        ber.sequence(ber.oid(cms.ID_DATA), encapsulated),
        ber.set_of(bag, 0xA0) if bag else b"",
        ber.set_of([signer_info]),
    )
    return ber.sequence(ber.oid(cms.ID_SIGNED_DATA), ber.tlv(0xA0, signed_data))


_PREFER_BINARY_INSIDE = "1.2.840.113549.1.9.16.11.1"
#: What we read, preferred first; each written exactly as everybody writes it, "to facilitate … binary comparisons".
_CAPABILITIES = ber.sequence(
    *(
        ber.sequence(ber.oid(cms_keys.CIPHERS[name].oid))
        for name in ("aes-256-gcm", "aes-128-gcm", "aes-256-cbc", "aes-128-cbc")
    ),
    ber.sequence(ber.oid(_PREFER_BINARY_INSIDE)),
)


def _attribute(name: str, value: bytes) -> bytes:
    return ber.sequence(ber.oid(name), ber.set_of([value]))


def _make_signature(identity: Identity, octets: bytes, is_pss: bool) -> tuple[bytes, bytes]:
    """Sign; give the AlgorithmIdentifier and the signature."""
    key = identity.key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return ber.sequence(ber.oid(cms.ED25519)), key.sign(octets)
    if isinstance(key, rsa.RSAPrivateKey):
        if not chain.STRONG_RSA_BITS <= key.key_size <= chain.MAX_RSA_BITS:
            raise SecurityError(f"An RSA key of {key.key_size} bits is not used for signing: take 2048 to 8192 bits.")
        if is_pss:
            size = hashes.SHA256.digest_size
            sha256 = ber.sequence(ber.oid(cms.SHA256_OID))
            mask = ber.sequence(ber.oid(cms.MGF1), sha256)
            fields = ber.tlv(0xA0, sha256), ber.tlv(0xA1, mask), ber.tlv(0xA2, ber.integer(size))
            signature = key.sign(octets, padding.PSS(padding.MGF1(hashes.SHA256()), size), hashes.SHA256())
            return ber.sequence(ber.oid(cms.RSA_PSS), ber.sequence(*fields)), signature
        signature = key.sign(octets, padding.PKCS1v15(), hashes.SHA256())
        return ber.sequence(ber.oid(cms.RSA_SHA256), ber.NULL_DER), signature
    if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        raise SecurityError(f"The curve {key.curve.name} is not used for signing: take P-256.")
    algorithm, digest = (
        (cms.ECDSA_SHA256, hashes.SHA256()) if key.key_size <= 256 else (cms.ECDSA_SHA384, hashes.SHA384())
    )
    return ber.sequence(ber.oid(algorithm)), key.sign(octets, ec.ECDSA(digest, deterministic_signing=True))

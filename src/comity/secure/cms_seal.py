"""Writing CMS AuthEnvelopedData and EnvelopedData (RFC 5083, RFC 5652 section 6): the other half of ``cms_open.py``.

Place on the path: below ``sealing.encrypt``, before step 1. The octets of a MIME entity and the recipients' certificates go
in; a DER ContentInfo comes out. Each recipient gets the content key in the way of the public key in its certificate: RSA
by OAEP (RFC 3560), P-256 and its sisters by ephemeral-static ECDH (RFC 5753), X25519 by the same with HKDF (RFC 8418).
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import padding as block_padding
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.keywrap import aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from comity.errors import SecurityError
from comity.secure import ber, chain, cms, cms_keys

DEFAULT_CIPHER = "aes-256-gcm"
"""RFC 8551 section 2.7.1.2: for recipients of whom nothing is known."""
MAX_RECIPIENTS = 1_000


def seal(
    entity: bytes,
    recipients: Sequence[x509.Certificate],
    *,
    cipher: str = DEFAULT_CIPHER,
    has_old_rsa: bool = False,
) -> bytes:
    """Encrypt ``entity`` for everybody in ``recipients``.

    Args:
        entity: a MIME entity, octet for octet what the recipients get.
        recipients: their certificates; one that stands twice gets one key.
        cipher: "aes-128-gcm" or "aes-256-gcm" (AuthEnvelopedData), "aes-128-cbc" or "aes-256-cbc" (EnvelopedData,
            which protects nothing against change).
        has_old_rsa: RSA recipients get their key by PKCS #1 1.5 instead of OAEP, for peers that have no other (gpgsm).

    Raises:
        SecurityError: a certificate is not for encryption, or the cipher is not one that is written.
    """
    if cipher not in cms_keys.WRITTEN:
        raise SecurityError(f"{cipher} is not used for encryption: take one of {', '.join(sorted(cms_keys.WRITTEN))}.")
    kind = cms_keys.CIPHERS[cipher]
    unique = list({chain.fingerprint(certificate): certificate for certificate in recipients}.values())
    if not 1 <= len(unique) <= MAX_RECIPIENTS:
        raise SecurityError(f"An object is encrypted for 1 to {MAX_RECIPIENTS} recipients, not for {len(unique)}.")
    content_key = os.urandom(kind.key_size)
    infos = [_recipient_info(certificate, content_key, has_old_rsa) for certificate in unique]
    recipient_infos = ber.set_of(infos)
    if kind.is_authenticated:
        nonce = os.urandom(cms_keys.GCM_NONCE)
        encryptor = Cipher(algorithms.AES(content_key), modes.GCM(nonce)).encryptor()
        octets = [encryptor.update(entity), encryptor.finalize()]
        parameters = ber.sequence(ber.octet_string(nonce), ber.integer(len(encryptor.tag)))
        info = _encrypted_content(kind.oid, parameters, octets)
        fields = (ber.integer(0), recipient_infos, info, ber.octet_string(encryptor.tag))
        return _content_info(cms_keys.ID_AUTH_ENVELOPED_DATA, *fields)
    vector = os.urandom(cms_keys.AES_BLOCK)
    octets = _encrypt_cbc(entity, content_key, vector)
    info = _encrypted_content(kind.oid, ber.octet_string(vector), octets)
    # RFC 5652 section 6.1: 0 if all recipients are key transport by issuer and serial number, else 2.
    version = 2 if any(item[0] != ber.SEQUENCE for item in infos) else 0
    return _content_info(cms_keys.ID_ENVELOPED_DATA, ber.integer(version), recipient_infos, info)


def encryption_problem(certificate: x509.Certificate) -> str:
    """Why nothing can be encrypted to ``certificate``, as the rest of a sentence; "" if it can."""
    name = chain.display_name(certificate)
    key = certificate.public_key()
    usage = chain.extension_of(certificate, x509.KeyUsage)
    if isinstance(key, rsa.RSAPublicKey):
        if not chain.STRONG_RSA_BITS <= key.key_size <= chain.MAX_RSA_BITS:
            return f"the RSA key of {name} has {key.key_size} bits, outside {chain.STRONG_RSA_BITS} to {chain.MAX_RSA_BITS}"
        is_allowed = usage is None or usage.key_encipherment
    elif isinstance(key, x25519.X25519PublicKey) or (
        isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, cms_keys.CURVES)
    ):
        is_allowed = usage is None or usage.key_agreement
    else:
        return f"the key of {name} can only sign"
    return "" if is_allowed else f"the certificate of {name} is not for encryption (key usage)"


# --- recipients --------------------------------------------------------------------------------------------------


def _recipient_info(certificate: x509.Certificate, content_key: bytes, has_old_rsa: bool) -> bytes:
    problem = encryption_problem(certificate)
    if problem:
        raise SecurityError(f"The object cannot be encrypted: {problem}.")
    name = ber.sequence(certificate.issuer.public_bytes(), ber.integer(certificate.serial_number))
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        algorithm, encrypted_key = _transport(key, content_key, has_old_rsa)
        return ber.sequence(ber.integer(0), name, algorithm, ber.octet_string(encrypted_key))
    originator, algorithm, encrypted_key = _agree(key, content_key)
    return ber.tlv(
        0xA1,
        ber.integer(3),
        ber.tlv(0xA0, originator),
        algorithm,
        ber.sequence(ber.sequence(name, ber.octet_string(encrypted_key))),
    )


def _transport(key: rsa.RSAPublicKey, content_key: bytes, has_old_rsa: bool) -> tuple[bytes, bytes]:
    """AlgorithmIdentifier and encrypted key."""
    if has_old_rsa:
        algorithm = ber.sequence(ber.oid(cms_keys.RSA_ENCRYPTION), ber.NULL_DER)
        return algorithm, key.encrypt(content_key, padding.PKCS1v15())
    sha256 = ber.sequence(ber.oid(cms.SHA256_OID), ber.NULL_DER)
    mask = ber.sequence(ber.oid(cms_keys.MGF1), sha256)
    parameters = ber.sequence(ber.tlv(0xA0, sha256), ber.tlv(0xA1, mask))
    encrypted_key = key.encrypt(content_key, cms_keys.oaep(hashes.SHA256, hashes.SHA256))
    return ber.sequence(ber.oid(cms_keys.RSA_OAEP), parameters), encrypted_key


def _agree(key: object, content_key: bytes) -> tuple[bytes, bytes, bytes]:
    """OriginatorPublicKey with a fresh key, AlgorithmIdentifier, encrypted key."""
    if isinstance(key, x25519.X25519PublicKey):
        ephemeral = x25519.X25519PrivateKey.generate()
        secret = ephemeral.exchange(key)
        kind, agreement = cms_keys.X25519, cms_keys.HKDF_SHA256
        public = ephemeral.public_key().public_bytes_raw()
    else:
        assert isinstance(key, ec.EllipticCurvePublicKey), "encryption_problem lets nothing else through"
        own = ec.generate_private_key(key.curve)
        secret = own.exchange(ec.ECDH(), key)
        kind = cms_keys.EC_PUBLIC_KEY
        # RFC 5753 section 7.1.1 pairs the derivation with the strength of the curve.
        agreement = cms_keys.ECDH_SHA256 if key.key_size <= 256 else cms_keys.ECDH_SHA384
        public = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    size = len(content_key)
    wrap = ber.sequence(ber.oid(cms_keys.WRAP_FOR[size]))  # RFC 3565 section 2.3.2: parameters absent
    encrypted_key = aes_key_wrap(cms_keys.wrapping_key(secret, agreement, wrap, size), content_key)
    originator = ber.tlv(0xA1, ber.sequence(ber.oid(kind)), ber.tlv(ber.BIT_STRING, b"\0", public))
    return originator, ber.sequence(ber.oid(agreement), wrap), encrypted_key


# --- structure ---------------------------------------------------------------------------------------------------


def _encrypt_cbc(entity: bytes, content_key: bytes, vector: bytes) -> list[bytes]:
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(vector)).encryptor()
    padder = block_padding.PKCS7(cms_keys.AES_BLOCK * 8).padder()
    whole = len(entity) // cms_keys.AES_BLOCK * cms_keys.AES_BLOCK
    last = padder.update(entity[whole:]) + padder.finalize()
    return [encryptor.update(memoryview(entity)[:whole]), encryptor.update(last), encryptor.finalize()]


def _encrypted_content(cipher: str, parameters: bytes, octets: Sequence[bytes]) -> list[bytes]:
    algorithm = ber.sequence(ber.oid(cipher), parameters)
    return ber.unjoined(ber.SEQUENCE, ber.oid(cms.ID_DATA), algorithm, ber.unjoined(0x80, octets))


def _content_info(kind: str, *fields: bytes | Sequence[bytes]) -> bytes:
    body = ber.unjoined(0xA0, ber.unjoined(ber.SEQUENCE, *fields))
    return b"".join(ber.unjoined(ber.SEQUENCE, ber.oid(kind), body))

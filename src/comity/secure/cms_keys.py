"""How a content key reaches a recipient: algorithms of CMS encryption, named, sized and derived (RFC 8551 section 2.3, 2.7).

Place on the path: below ``cms_open.py`` (reads) and ``cms_seal.py`` (writes), which share these tables so that what one
writes the other reads. Here is what both sides compute alike: the key that wraps the content key, from a Diffie-Hellman
secret (RFC 5753 section 7.2, RFC 8418 section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF

from comity.secure import ber

ID_ENVELOPED_DATA = "1.2.840.113549.1.7.3"
ID_AUTH_ENVELOPED_DATA = "1.2.840.113549.1.9.16.1.23"
ID_COMPRESSED_DATA = "1.2.840.113549.1.9.16.1.9"

AES_BLOCK = 16
GCM_NONCE = 12
"""Octets; the size RFC 5084 section 3.2 recommends, and NIST SP 800-38D wants for random nonces."""


@dataclass(frozen=True, slots=True)
class ContentCipher:
    """A content-encryption algorithm."""

    name: str
    oid: str
    key_size: int
    """Octets."""
    mode: Literal["gcm", "cbc", "chacha", "3des"]

    @property
    def is_authenticated(self) -> bool:
        return self.mode in ("gcm", "chacha")


CIPHERS = {
    cipher.name: cipher
    for cipher in (
        ContentCipher("aes-128-gcm", "2.16.840.1.101.3.4.1.6", 16, "gcm"),
        ContentCipher("aes-192-gcm", "2.16.840.1.101.3.4.1.26", 24, "gcm"),
        ContentCipher("aes-256-gcm", "2.16.840.1.101.3.4.1.46", 32, "gcm"),
        ContentCipher("chacha20-poly1305", "1.2.840.113549.1.9.16.3.18", 32, "chacha"),  # RFC 8103
        ContentCipher("aes-128-cbc", "2.16.840.1.101.3.4.1.2", 16, "cbc"),
        ContentCipher("aes-192-cbc", "2.16.840.1.101.3.4.1.22", 24, "cbc"),
        ContentCipher("aes-256-cbc", "2.16.840.1.101.3.4.1.42", 32, "cbc"),
        ContentCipher("des-ede3-cbc", "1.2.840.113549.3.7", 24, "3des"),  # read only, never written (SEC-11)
    )
}
CIPHERS_BY_OID = {cipher.oid: cipher for cipher in CIPHERS.values()}
#: What ``cms_seal`` writes. ChaCha20 is left to readers: no peer we know of reads it.
WRITTEN = frozenset({"aes-128-gcm", "aes-256-gcm", "aes-128-cbc", "aes-256-cbc"})

# --- key transport -----------------------------------------------------------------------------------------------

RSA_ENCRYPTION, RSA_OAEP = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.7"
MGF1, P_SPECIFIED = "1.2.840.113549.1.1.8", "1.2.840.113549.1.1.9"
#: Digest OID → hash, for OAEP.
OAEP_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "1.3.14.3.2.26": hashes.SHA1,
    "2.16.840.1.101.3.4.2.4": hashes.SHA224,
    "2.16.840.1.101.3.4.2.1": hashes.SHA256,
    "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512,
}


def oaep(digest: type[hashes.HashAlgorithm], mask: type[hashes.HashAlgorithm]) -> padding.OAEP:
    """OAEP padding without a label."""
    return padding.OAEP(padding.MGF1(mask()), digest(), None)


# --- key agreement -----------------------------------------------------------------------------------------------

EC_PUBLIC_KEY, X25519 = "1.2.840.10045.2.1", "1.3.101.110"
CURVES: tuple[type[ec.EllipticCurve], ...] = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
ECDH_SHA256, ECDH_SHA384 = "1.3.132.1.11.1", "1.3.132.1.11.2"
HKDF_SHA256 = "1.2.840.113549.1.9.16.3.19"
#: Agreement OID → (key derivation, hash). The curves have cofactor 1: "cofactor" and "standard" are the same there.
AGREEMENTS: dict[str, tuple[Literal["x963", "hkdf"], type[hashes.HashAlgorithm]]] = {
    "1.3.133.16.840.63.0.2": ("x963", hashes.SHA1),
    "1.3.132.1.11.0": ("x963", hashes.SHA224),
    ECDH_SHA256: ("x963", hashes.SHA256),
    ECDH_SHA384: ("x963", hashes.SHA384),
    "1.3.132.1.11.3": ("x963", hashes.SHA512),
    "1.3.133.16.840.63.0.3": ("x963", hashes.SHA1),
    "1.3.132.1.14.0": ("x963", hashes.SHA224),
    "1.3.132.1.14.1": ("x963", hashes.SHA256),
    "1.3.132.1.14.2": ("x963", hashes.SHA384),
    "1.3.132.1.14.3": ("x963", hashes.SHA512),
    HKDF_SHA256: ("hkdf", hashes.SHA256),
    "1.2.840.113549.1.9.16.3.20": ("hkdf", hashes.SHA384),
    "1.2.840.113549.1.9.16.3.21": ("hkdf", hashes.SHA512),
}
#: AES key wrap OID → octets of its key (RFC 3565 section 2.3.2).
WRAPS = {"2.16.840.1.101.3.4.1.5": 16, "2.16.840.1.101.3.4.1.25": 24, "2.16.840.1.101.3.4.1.45": 32}
WRAP_FOR = {size: oid for oid, size in WRAPS.items()}


def wrapping_key(secret: bytes, agreement: str, wrap_identifier: bytes, size: int, ukm: bytes = b"") -> bytes:
    """Derive the key that wraps the content key.

    Args:
        secret: what Diffie-Hellman gave.
        agreement: a key of ``AGREEMENTS``.
        wrap_identifier: the AlgorithmIdentifier of the key wrap, DER.
        size: octets of the key.
        ukm: user keying material that the sender may have added.
    """
    derivation, digest = AGREEMENTS[agreement]
    shared_info = ber.sequence(  # ECC-CMS-SharedInfo
        wrap_identifier,
        ber.tlv(0xA0, ber.octet_string(ukm)) if ukm else b"",
        ber.tlv(0xA2, ber.octet_string((size * 8).to_bytes(4, "big"))),
    )
    if derivation == "hkdf":
        return HKDF(digest(), size, None, shared_info).derive(secret)
    return X963KDF(digest(), size, shared_info).derive(secret)

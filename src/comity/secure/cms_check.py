"""Check the signatures of a CMS SignedData (RFC 5652 section 5.4 to 5.6, RFC 8419, RFC 5035, RFC 6211).

Place on the path: between ``cms.py``, which reads, and ``smime.py``, which asks for certification paths. A ``SignedData``
and the octets said to be signed go in; a ``Signature`` per signer comes out. Nothing here knows of addresses or trust. Two
rules its readers must keep: the digest is taken over exactly the octets given, and ``check`` fails unless *every* SignerInfo
verifies: one good signature never covers for another (reliability.md M-12, M-43).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from comity.secure import ber, chain
from comity.secure.cms import (
    ALGORITHM_PROTECTION,
    CAPABILITIES,
    CONTENT_TYPE,
    DIGESTS,
    ECDSA_SHA256,
    ECDSA_SHA384,
    ED448,
    ED25519,
    ID_DATA,
    KEY_PREFERENCE,
    MESSAGE_DIGEST,
    MGF1,
    RSA_ENCRYPTION,
    RSA_PSS,
    RSA_SHA256,
    SIGNING_CERTIFICATE,
    SIGNING_CERTIFICATE_V2,
    SIGNING_TIME,
    Name,
    SignedData,
    SignerInfo,
    algorithm_of,
    issuer_and_serial,
)
from comity.secure.evidence import SignatureFailed, TooLarge, UnknownAlgorithm, UnknownSigner

MAX_CAPABILITIES = 64
MAX_CANDIDATES = 4
"""Certificates tried for one SignerInfo: a bag may hold several with one issuer and serial number."""

WEAK_DIGESTS = frozenset({"md5", "sha1"})
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha224": hashes.SHA224,
    "sha256": hashes.SHA256,
    "sha384": hashes.SHA384,
    "sha512": hashes.SHA512,
}

#: Signature OID → (kind, digest it names or "" where the digest algorithm decides).
SIGNATURES = {
    RSA_ENCRYPTION: ("rsa", ""),
    "1.2.840.113549.1.1.4": ("rsa", "md5"),
    "1.2.840.113549.1.1.5": ("rsa", "sha1"),
    "1.2.840.113549.1.1.14": ("rsa", "sha224"),
    RSA_SHA256: ("rsa", "sha256"),
    "1.2.840.113549.1.1.12": ("rsa", "sha384"),
    "1.2.840.113549.1.1.13": ("rsa", "sha512"),
    RSA_PSS: ("pss", ""),
    "1.2.840.10045.2.1": ("ecdsa", ""),
    "1.2.840.10045.4.1": ("ecdsa", "sha1"),
    "1.2.840.10045.4.3.1": ("ecdsa", "sha224"),
    ECDSA_SHA256: ("ecdsa", "sha256"),
    ECDSA_SHA384: ("ecdsa", "sha384"),
    "1.2.840.10045.4.3.4": ("ecdsa", "sha512"),
    ED25519: ("ed25519", ""),
    ED448: ("ed448", ""),
}


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature that holds."""

    certificate: x509.Certificate
    digest: str
    """Such as "sha256"."""
    is_weak: bool
    """SHA-1, MD5 or a small key: never generated, and never enough for plain "valid" (SEC-11)."""
    signing_time: datetime | None
    """The signer's claim."""
    capabilities: tuple[str, ...] = ()
    """OIDs of what the signer says to be able to do, preferred first (RFC 8551 section 2.5.2)."""
    preferred_key: Name | None = None
    """Which certificate to encrypt to (RFC 8551 section 2.5.3)."""


def check(signed: SignedData, content: bytes, known: Sequence[x509.Certificate] = ()) -> tuple[Signature, ...]:
    """Check every signature of ``signed`` over exactly ``content``.

    Args:
        signed: the parsed structure.
        content: the octets said to be signed: ``signed.content``, or the first part of a multipart/signed.
        known: certificates to look for the signer in, beside those that came along.

    Returns:
        One entry per SignerInfo, all of them good; at least one.

    Raises:
        SignatureFailed: one signature does not hold, or there is none.
        UnknownSigner: a signer's certificate is not at hand.
        UnknownAlgorithm: one signature cannot be checked.
        TooLarge: a key is beyond our limits.
    """
    if signed.content_type != ID_DATA:
        raise SignatureFailed("the signed content is not declared as plain data")
    if not signed.signers:
        raise SignatureFailed("it holds no signature at all")
    return tuple(_check_signer(signed, info, content, known) for info in signed.signers)


def _check_signer(signed: SignedData, info: SignerInfo, content: bytes, known: Sequence[x509.Certificate]) -> Signature:
    digest = DIGESTS.get(info.digest)
    kind, named_digest = SIGNATURES.get(info.algorithm, ("", ""))
    if digest is None or not kind:
        raise UnknownAlgorithm(f"it uses the algorithm {info.digest if digest is None else info.algorithm}")
    if info.digest not in signed.digests:
        raise SignatureFailed("its digest algorithm is not among those announced")
    if named_digest and named_digest != digest:
        raise SignatureFailed(f"its signature names {named_digest}, its digest {digest}")
    attributes = _attributes(info)
    signing_time = _check_attributes(info, attributes, digest, content)
    if info.attributes is None and content[:1] == bytes((ber.SET,)):
        raise SignatureFailed("its content is a set of signed attributes passed off as content")
    candidates = [c for c in (*signed.certificates, *known) if info.signer.fits(c)][:MAX_CANDIDATES]
    if not candidates:
        raise UnknownSigner("the signer's certificate did not come along and is not known here")
    for certificate in candidates:
        key = certificate.public_key()
        if _is_bound(attributes, certificate) and _holds_somehow(info, kind, digest, key, content):
            weak = digest in WEAK_DIGESTS or chain.is_weak_key(key)
            return Signature(
                certificate, digest, weak, signing_time, _capabilities(attributes), _preferred_key(attributes)
            )
    raise SignatureFailed("the signature was not made over these octets by this key")


def _holds_somehow(info: SignerInfo, kind: str, digest: str, key: object, content: bytes) -> bool:
    """Over the content, or over its signed attributes in one of the encodings that a signature may stand over.

    RFC 5652 section 5.4 wants DER, which nearly all send: then what came is tried as it came, and not written again.
    COMPAT: some signers send BER and sign DER, others sign their attributes in an order that is not DER's."""
    if info.attributes is None:
        return _holds(info, kind, digest, key, content)
    received = bytes((ber.SET,)) + bytes(info.attributes.raw[1:])
    if info.attributes.is_definite and _holds(info, kind, digest, key, received):
        return True
    canonical = ber.set_of(child.der() for child in info.attributes.children)
    return canonical != received and _holds(info, kind, digest, key, canonical)


def _attributes(info: SignerInfo) -> dict[str, ber.Element]:
    """Signed attributes by OID; each at most once with exactly one value (RFC 5652 section 11)."""
    found: dict[str, ber.Element] = {}
    for attribute in info.attributes.children if info.attributes is not None else ():
        fields = ber.Cursor(attribute.expect(ber.SEQUENCE))
        name = fields.next().oid()
        values = fields.next(ber.SET).children
        fields.end()
        if name in found:
            raise SignatureFailed("a signed attribute stands twice")
        if name in _SINGLE and len(values) != 1:
            raise SignatureFailed("a signed attribute has not exactly one value")
        if values:
            found[name] = values[0]
    return found


_SINGLE = {CONTENT_TYPE, MESSAGE_DIGEST, SIGNING_TIME, SIGNING_CERTIFICATE, SIGNING_CERTIFICATE_V2} | {
    ALGORITHM_PROTECTION,
    CAPABILITIES,
    KEY_PREFERENCE,
}


def _capabilities(attributes: dict[str, ber.Element]) -> tuple[str, ...]:
    """The signer's SMIMECapabilities; () if there are none."""
    attribute = attributes.get(CAPABILITIES)
    if attribute is None:
        return ()
    return tuple(algorithm_of(item)[0] for item in attribute.expect(ber.SEQUENCE).children[:MAX_CAPABILITIES])


def _preferred_key(attributes: dict[str, ber.Element]) -> Name | None:
    """SMIMEEncryptionKeyPreference, in the forms that name a certificate."""
    attribute = attributes.get(KEY_PREFERENCE)
    if attribute is None:
        return None
    if attribute.tag == 0xA0:
        return issuer_and_serial(attribute)
    if attribute.tag == 0xA1:  # RecipientKeyIdentifier
        return Name(b"", 0, ber.Cursor(attribute).next().octets())
    return Name(b"", 0, attribute.octets(0x82))


def _check_attributes(
    info: SignerInfo, attributes: dict[str, ber.Element], digest: str, content: bytes
) -> datetime | None:
    """Check the signed attributes against the content; give the signing time."""
    if info.attributes is None:
        return None
    if CONTENT_TYPE not in attributes or MESSAGE_DIGEST not in attributes:
        raise SignatureFailed("its signed attributes lack the content type or the digest")
    if attributes[CONTENT_TYPE].oid() != ID_DATA:
        raise SignatureFailed("its signed attributes name another content type")
    actual = _digest(digest, content)
    if not hmac.compare_digest(attributes[MESSAGE_DIGEST].octets(), actual):
        raise SignatureFailed("the signed octets were changed after signing")
    protection = attributes.get(ALGORITHM_PROTECTION)
    if protection is not None:  # RFC 6211
        fields = ber.Cursor(protection.expect(ber.SEQUENCE))
        signature = _algorithm_name(fields.next(), fields.optional(0xA1))
        if signature != (info.digest, info.algorithm):
            raise SignatureFailed("its algorithms were exchanged after signing")
    when = attributes.get(SIGNING_TIME)
    return None if when is None else when.time()


def _algorithm_name(digest: ber.Element, signature: ber.Element | None) -> tuple[str, str]:
    if signature is None:
        raise SignatureFailed("its algorithm protection names no signature algorithm")
    return algorithm_of(digest)[0], ber.Cursor(signature).next().oid()


def _is_bound(attributes: dict[str, ber.Element], certificate: x509.Certificate) -> bool:
    """Check signingCertificate and signingCertificateV2, if there, against the certificate (RFC 5035)."""
    for name, default in ((SIGNING_CERTIFICATE, "sha1"), (SIGNING_CERTIFICATE_V2, "sha256")):
        attribute = attributes.get(name)
        if attribute is None:
            continue
        ids = ber.Cursor(attribute.expect(ber.SEQUENCE)).next(ber.SEQUENCE)
        fields = ber.Cursor(ber.Cursor(ids).next(ber.SEQUENCE))
        algorithm = fields.optional(ber.SEQUENCE) if name == SIGNING_CERTIFICATE_V2 else None
        digest = default if algorithm is None else DIGESTS.get(algorithm_of(algorithm)[0], "")
        der = certificate.public_bytes(Encoding.DER)
        if not digest or fields.next().octets() != _digest(digest, der):
            return False
    return True


def _digest(name: str, octets: bytes) -> bytes:
    if name == "shake256":
        return hashlib.shake_256(octets).digest(64)
    return hashlib.new(name, octets, usedforsecurity=False).digest()


def _holds(info: SignerInfo, kind: str, digest: str, key: object, octets: bytes) -> bool:
    """True if the signature verifies over ``octets`` with ``key``."""
    try:
        if (kind == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey)) or (
            kind == "ed448" and isinstance(key, ed448.Ed448PublicKey)
        ):
            key.verify(info.signature, octets)
        elif digest not in _HASHES:
            return False
        elif kind == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(info.signature, octets, ec.ECDSA(_HASHES[digest]()))
        elif kind in ("rsa", "pss") and isinstance(key, rsa.RSAPublicKey):
            problem = chain.key_problem(key)
            if problem:
                raise TooLarge(f"it was made with {problem}")
            pad = padding.PKCS1v15() if kind == "rsa" else _pss(info.parameters, digest)
            key.verify(info.signature, octets, pad, _HASHES[digest]())
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    except UnsupportedAlgorithm as error:
        raise UnknownAlgorithm(f"it uses an algorithm that is not supported here ({digest})") from error
    return True


def _pss(parameters: ber.Element | None, digest: str) -> padding.PSS:
    """Read RSASSA-PSS-params: the hash must be the digest's, MGF1 any hash we know (RFC 4056 section 3)."""
    if parameters is None:
        raise SignatureFailed("its RSASSA-PSS parameters are missing")
    fields = ber.Cursor(parameters.expect(ber.SEQUENCE))
    hash_field, mask_field, salt_field = fields.optional(0xA0), fields.optional(0xA1), fields.optional(0xA2)
    fields.optional(0xA3)
    fields.end()
    named = "sha1" if hash_field is None else DIGESTS.get(algorithm_of(ber.Cursor(hash_field).next())[0], "")
    if named != digest:
        raise SignatureFailed("its RSASSA-PSS parameters name another digest")
    mask = "sha1"
    if mask_field is not None:
        name, mask_hash = algorithm_of(ber.Cursor(mask_field).next())
        if name != MGF1 or mask_hash is None:
            raise UnknownAlgorithm("it uses a mask function other than MGF1")
        mask = DIGESTS.get(algorithm_of(mask_hash)[0], "")
    salt = 20 if salt_field is None else ber.Cursor(salt_field).next().integer()
    if mask not in _HASHES or not 0 <= salt <= chain.MAX_RSA_BITS // 8:
        raise UnknownAlgorithm("its RSASSA-PSS parameters are not supported")
    return padding.PSS(padding.MGF1(_HASHES[mask]()), salt)

"""X.509 certificates one by one: read, named, compared; nothing here knows of trust.

Place on the path: below ``chain.py`` and ``revocation.py``, which decide what a certificate is worth, and ``cms.py``, which
takes them out of objects. The rule its readers must keep: what ``load_certificate`` gives was parsed as a whole, so that
nothing in a hostile certificate raises later.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from comity.secure import ber

ExtensionT = TypeVar("ExtensionT", bound=x509.ExtensionType)

MAX_RSA_BITS = 8192
MAX_EXPONENT_BITS = 64
"""Of a public RSA key: checking with a longer one costs as much as signing, and nobody makes them (M-26)."""
STRONG_RSA_BITS = 2048
"""RFC 8550 section 4.3: below it receivers SHOULD NOT verify; we verify and say weak (SEC-11)."""

KEPT = 128
"""Certificates, and answers about them that nothing but their octets decides, kept from message to message."""
MAX_KEPT = 16 * 1024
"""Octets of a certificate that is kept: so all together stay below some MiB, whoever sends them."""

#: What the certificate parser may raise over hostile octets; ``Warning`` because a caller may run with -W error.
CERTIFICATE_ERRORS = (
    ValueError,
    TypeError,
    Warning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.InvalidVersion,
)


def load_certificate(der: bytes) -> x509.Certificate | None:
    """Read a certificate, None if it cannot be read.

    One without a positive serial number is not read (RFC 5280 section 4.1.2.2): the parser would only warn, on stderr.
    A correspondent sends the same few with each message, so those read last are kept."""
    return _load_known(der) if len(der) <= MAX_KEPT else _load(der)


def _load(der: bytes) -> x509.Certificate | None:
    try:
        fields = ber.Cursor(ber.Cursor(ber.read(der).expect(ber.SEQUENCE)).next(ber.SEQUENCE))
        fields.optional(0xA0)
        if fields.next().integer() <= 0:
            return None
        certificate = x509.load_der_x509_certificate(der)
        # These are parsed on first use; what is broken in them must fail here, not later.
        parsed = (certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key())
    except (ber.BerError, *CERTIFICATE_ERRORS):
        return None
    return certificate if parsed else None


_load_known = lru_cache(KEPT)(_load)


@lru_cache(KEPT)
def is_issued_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """True if the key of ``parent`` signed ``child`` and the names agree; says nothing about trust or time."""
    if key_problem(parent.public_key()):
        return False
    try:
        child.verify_directly_issued_by(parent)
    except (InvalidSignature, *CERTIFICATE_ERRORS):
        return False
    return True


@lru_cache(KEPT)
def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 over the certificate, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


@lru_cache(KEPT)
def display_name(certificate: x509.Certificate) -> str:
    """How a certificate is called in a sentence: escaped subject, or its fingerprint if it has none."""
    text = certificate.subject.rfc4514_string() or f"certificate {fingerprint(certificate)[:16]}"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:120])


def key_problem(key: object) -> str:
    """Why nothing is checked with ``key``, as the rest of a sentence; "" for a key whose checks are cheap."""
    if isinstance(key, dsa.DSAPublicKey):
        return "a DSA key, which is not taken"
    if not isinstance(key, rsa.RSAPublicKey):
        return ""
    if key.key_size > MAX_RSA_BITS:
        return f"an RSA key of {key.key_size} bits, over the limit of {MAX_RSA_BITS}"
    if key.public_numbers().e.bit_length() > MAX_EXPONENT_BITS:
        return f"an RSA key with an exponent of more than {MAX_EXPONENT_BITS} bits"
    return ""


def is_weak_key(key: object) -> bool:
    """True for RSA under 2048 bits and curves below P-256."""
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size < STRONG_RSA_BITS
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.key_size < 256
    return False


def is_made_by(certificate: x509.Certificate, maker: x509.Certificate) -> bool:
    """True if a person's key for signing made this certificate for a second key of the same person.

    That is how an Ed25519 identity without an authority says which key to encrypt to. It counts for encryption only."""
    alike = certificate.subject == maker.subject and certificate.issuer == maker.subject
    names = extension_of(certificate, x509.SubjectAlternativeName)
    if not alike or names is None or names != extension_of(maker, x509.SubjectAlternativeName):
        return False
    return is_issued_by(certificate, maker)


def display_issuer(certificate: x509.Certificate) -> str:
    """The issuer's name in a sentence."""
    text = certificate.issuer.rfc4514_string() or "without a name"
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:120])


def extension_of(certificate: x509.Certificate, kind: type[ExtensionT]) -> ExtensionT | None:
    """The extension of this kind, None if the certificate has none."""
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def has_weak_hash(certificate: x509.Certificate) -> bool:
    """True if SHA-1 or MD5 stands under the certificate."""
    try:
        return isinstance(certificate.signature_hash_algorithm, hashes.SHA1 | hashes.MD5)
    except UnsupportedAlgorithm:
        return False

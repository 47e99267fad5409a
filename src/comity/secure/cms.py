"""CMS SignedData (RFC 5652 section 5), read: ``cms_check.py`` checks what is read here, ``cms_write.py`` makes it.

Place on the path: below ``smime.py``, which takes the MIME layer off. Octets of a ContentInfo go in; ``SignedData`` comes
out, with everything bounded. Nothing here believes or checks a signature.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from comity.secure import ber, chain
from comity.secure.evidence import TooLarge

ID_DATA = "1.2.840.113549.1.7.1"
ID_SIGNED_DATA = "1.2.840.113549.1.7.2"
CONTENT_TYPE = "1.2.840.113549.1.9.3"
MESSAGE_DIGEST = "1.2.840.113549.1.9.4"
SIGNING_TIME = "1.2.840.113549.1.9.5"
SIGNING_CERTIFICATE = "1.2.840.113549.1.9.16.2.12"
SIGNING_CERTIFICATE_V2 = "1.2.840.113549.1.9.16.2.47"
ALGORITHM_PROTECTION = "1.2.840.113549.1.9.52"
CAPABILITIES = "1.2.840.113549.1.9.15"
KEY_PREFERENCE = "1.2.840.113549.1.9.16.2.11"

MAX_SIGNERS = 8
MAX_CERTIFICATES = 16
MAX_BAG = 64 * 1024
"""Octets of certificates and revocation lists in one object (reliability.md M-26)."""
MAX_CRLS = 4

#: Digest OID → hashlib name, which is also the micalg value without its hyphen.
DIGESTS = {
    "1.2.840.113549.2.5": "md5",
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
    "2.16.840.1.101.3.4.2.18": "shake256",  # with its 512 bits, for Ed448 (RFC 8419 section 3.1)
}
SHA256_OID, SHA384_OID, SHA512_OID = (f"2.16.840.1.101.3.4.2.{number}" for number in (1, 2, 3))
RSA_ENCRYPTION, RSA_SHA256, RSA_PSS = "1.2.840.113549.1.1.1", "1.2.840.113549.1.1.11", "1.2.840.113549.1.1.10"
ECDSA_SHA256, ECDSA_SHA384, ED25519, ED448 = "1.2.840.10045.4.3.2", "1.2.840.10045.4.3.3", "1.3.101.112", "1.3.101.113"
MGF1 = "1.2.840.113549.1.1.8"


@dataclass(frozen=True, slots=True)
class Name:
    """How CMS names a certificate: by issuer and serial number, or by key identifier."""

    issuer: bytes
    """DER of the issuer's name; b"" if named by key identifier."""
    serial: int = 0
    key_id: bytes = b""

    def fits(self, certificate: x509.Certificate) -> bool:
        """True if ``certificate`` is one so named."""
        if self.key_id:
            extension = chain.extension_of(certificate, x509.SubjectKeyIdentifier)
            return extension is not None and extension.digest == self.key_id
        return certificate.serial_number == self.serial and certificate.issuer.public_bytes() == self.issuer


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One SignerInfo as it stands in the object."""

    signer: Name
    digest: str
    """OID."""
    attributes: ber.Element | None
    """The set of signed attributes; None if there are none."""
    algorithm: str
    parameters: ber.Element | None
    signature: bytes


@dataclass(frozen=True, slots=True)
class SignedData:
    """A parsed SignedData."""

    content_type: str
    content: bytes | None
    """eContent; None when detached."""
    digests: frozenset[str]
    certificates: tuple[x509.Certificate, ...]
    crls: tuple[x509.CertificateRevocationList, ...]
    signers: tuple[SignerInfo, ...]


def issuer_and_serial(element: ber.Element) -> Name:
    """Read an IssuerAndSerialNumber, whatever its tag."""
    fields = ber.Cursor(element)
    name = Name(bytes(fields.next(ber.SEQUENCE).raw), fields.next().integer())
    fields.end()
    return name


def content_type_of(info: ber.Element) -> str:
    """The OID in a ContentInfo.

    Raises:
        BerError: it is not one.
    """
    return ber.Cursor(info.expect(ber.SEQUENCE)).next().oid()


def parse_signed_data(info: bytes | ber.Element) -> SignedData:
    """Read a ContentInfo that holds a SignedData; octets, or what ``ber.read`` made of them.

    Raises:
        BerError: the octets are not one, or break a limit of the reader.
        TooLarge: more certificates came along than we look at.
    """
    element = ber.read(info) if isinstance(info, bytes) else info
    outer = ber.Cursor(element.expect(ber.SEQUENCE))
    if outer.next().oid() != ID_SIGNED_DATA:
        raise ber.BerError("this is not SignedData", 0)
    wrapped = ber.Cursor(outer.next(0xA0))
    fields = ber.Cursor(wrapped.next(ber.SEQUENCE))
    wrapped.end()
    outer.end()
    version = fields.next().integer()
    if version not in (1, 3, 4, 5):
        raise ber.BerError(f"SignedData of version {version} does not exist", 0)
    digests = frozenset(algorithm_of(item)[0] for item in fields.next(ber.SET).children)
    encapsulated = ber.Cursor(fields.next(ber.SEQUENCE))
    content_type = encapsulated.next().oid()
    explicit = encapsulated.optional(0xA0)
    encapsulated.end()
    content = None if explicit is None else ber.only(explicit).octets()
    certificates = _certificates(fields.optional(0xA0))
    crls = _crls(fields.optional(0xA1))
    signers = fields.next(ber.SET).children
    fields.end()
    if len(signers) > MAX_SIGNERS:
        raise ber.BerError(f"more than {MAX_SIGNERS} signers", 0)
    return SignedData(
        content_type, content, digests, certificates, crls, tuple(_signer_info(signer) for signer in signers)
    )


def algorithm_of(element: ber.Element) -> tuple[str, ber.Element | None]:
    """Read an AlgorithmIdentifier."""
    fields = ber.Cursor(element.expect(ber.SEQUENCE))
    name = fields.next().oid()
    parameters = fields.next() if len(element.children) > 1 else None
    fields.end()
    return name, parameters


def _certificates(bag: ber.Element | None) -> tuple[x509.Certificate, ...]:
    if bag is None:
        return ()
    if len(bag.raw) > MAX_BAG or len(bag.children) > MAX_CERTIFICATES:
        raise TooLarge(f"it brings more than {MAX_CERTIFICATES} certificates or {MAX_BAG // 1024} KiB of them")
    loaded = (chain.load_certificate(bytes(c.raw)) for c in bag.children if c.tag == ber.SEQUENCE)
    return tuple(certificate for certificate in loaded if certificate is not None)


def _crls(bag: ber.Element | None) -> tuple[x509.CertificateRevocationList, ...]:
    if bag is None:
        return ()
    if len(bag.raw) > MAX_BAG or len(bag.children) > MAX_CRLS:
        raise TooLarge(f"it brings more than {MAX_CRLS} revocation lists or {MAX_BAG // 1024} KiB of them")
    found: list[x509.CertificateRevocationList] = []
    for item in bag.children:
        try:
            found.append(x509.load_der_x509_crl(bytes(item.raw)))
        except chain.CERTIFICATE_ERRORS:
            continue  # a list we cannot read revokes nothing; it was never required to come along
    return tuple(found)


def _signer_info(element: ber.Element) -> SignerInfo:
    fields = ber.Cursor(element.expect(ber.SEQUENCE))
    version = fields.next().integer()
    sid = fields.next()
    if sid.tag == ber.SEQUENCE and version == 1:
        signer = issuer_and_serial(sid)
    elif sid.tag in (0x80, 0xA0) and version == 3:
        signer = Name(b"", 0, sid.octets(0x80))
    else:
        raise ber.BerError("a signer is named in a way that its version does not allow", sid.offset)
    digest, _ = algorithm_of(fields.next())
    attributes = fields.optional(0xA0)
    algorithm, parameters = algorithm_of(fields.next())
    signature = fields.next().octets()
    fields.optional(0xA1)
    fields.end()
    return SignerInfo(signer, digest, attributes, algorithm, parameters, signature)

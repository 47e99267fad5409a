"""Files of keys and certificates, ours and other programs': PEM, DER, PKCS#8, PKCS#12.

Place on the path: beside it, below ``own_keys.py`` and ``keystore.py``. Octets in, typed keys out, and back; nothing here
touches a disk. Every function raises SecurityError with a sentence for what cannot be read.
"""

from __future__ import annotations

import itertools
import re

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import pkcs12

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import ber, chain
from comity.secure.identity import DecryptionKey, Identity, LocalCa, PrivateKey, ReaderKey, addresses_of
from comity.secure.passphrase import protect_key

Pkcs12 = tuple[object, x509.Certificate | None, list[x509.Certificate]]
MAX_ROUNDS = 10_000_000
"""Of a key derivation that a file may ask for: some seconds. OpenSSL writes 2,048, Windows 2,000, NSS 600,000."""

_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_PEM_KEY = re.compile(rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?-----END \1-----\n?", re.DOTALL)


def needs_passphrase(data: bytes) -> bool | None:
    """True if the file holds a private key under a passphrase, False if one that lies open; None if there is none."""
    if key_blocks(data):
        return is_encrypted(data)
    try:
        loaded, _, _ = _load_pkcs12(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        return True if "password" in str(error).lower() else None
    return None if loaded is None else False


def _is_too_dear(data: bytes) -> bool:
    """True for a PKCS#12 file whose integrity check alone would cost minutes: RFC 7292 section 4 lets it name any count."""
    try:
        whole = ber.read(data)
        parts = whole.children[2:3] if whole.tag == ber.SEQUENCE else ()
        return any(_largest(part) > MAX_ROUNDS for part in parts)
    except ber.BerError:
        return False


def _largest(element: ber.Element) -> int:
    """The largest INTEGER inside an element."""
    if element.tag == ber.INTEGER:
        return element.integer()
    return max(map(_largest, element.children), default=0)


def _load_pkcs12(data: bytes, passphrase: bytes | None) -> Pkcs12:
    """Raises ValueError for what is no PKCS#12, SecurityError for what is better not tried."""
    if _is_too_dear(data):
        raise SecurityError("This PKCS#12 file asks for more work than any program would: it is not opened.")
    return pkcs12.load_key_and_certificates(data, passphrase)


def certificate_pem(*certificates: x509.Certificate) -> bytes:
    """Certificates as PEM, one after the other."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def key_pem(key: PrivateKey | ReaderKey, passphrase: bytes | None) -> bytes:
    """A private key as PKCS#8, under ``passphrase`` if there is one."""
    encoding = serialization.Encoding.DER if passphrase else serialization.Encoding.PEM
    octets = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return protect_key(octets, passphrase) if passphrase else octets


def key_blocks(data: bytes) -> list[bytes]:
    """The PEM blocks of private keys in a file."""
    return [found[0] for found in _PEM_KEY.finditer(data)]


def is_encrypted(data: bytes) -> bool:
    """True if a private key in the file is under a passphrase."""
    return any(b"ENCRYPTED" in block[:512] for block in key_blocks(data))


def identity_pem(identity: Identity, passphrase: bytes | None) -> bytes:
    """An identity as one file: key and certificates, then the key that only reads with its certificate, if there is one."""
    data = key_pem(identity.key, passphrase) + certificate_pem(*identity.certificates)
    second = identity.encryption
    return data if second is None else data + key_pem(second.key, passphrase) + certificate_pem(second.certificate)


def read_identity_pem(data: bytes, passphrase: bytes | None, what: str, address: Address | None = None) -> Identity:
    """Read what ``identity_pem`` wrote, or a key with its certificate from elsewhere.

    Args:
        data: the file.
        passphrase: opens its keys.
        what: its name in the sentence of an error.
        address: whose it is; None takes whom the certificate names.
    """
    parts = _parts(data)
    key = load_key(parts[0], passphrase, what)
    certificates = tuple(read_certificates(parts[0]))
    reader = None
    if len(parts) > 1:
        second = _load(parts[1], passphrase, what)
        if not isinstance(second, x25519.X25519PrivateKey):
            raise SecurityError("The file holds several private keys: give them one by one.")
        reader = DecryptionKey(second, read_certificates(parts[1])[0])
    return Identity(address or address_in(certificates[0]), key, certificates, reader)


def own_certificates(data: bytes) -> list[x509.Certificate]:
    """The certificates that an identity's file is about, without intermediates: of its key, then of the key that only reads."""
    return [read_certificates(part)[0] for part in _parts(data)]


def _parts(data: bytes) -> list[bytes]:
    """A file cut before each private key but the first; what stands before the first goes with it."""
    starts = [found.start() for found in _PEM_KEY.finditer(data)][1:]
    edges = [0, *starts, len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def load_key(data: bytes, passphrase: bytes | None, what: str) -> PrivateKey:
    """The (first) private key of a PEM file; ``what`` is its name in the sentence of an error."""
    return _usable(_load(data, passphrase, what))


def _load(data: bytes, passphrase: bytes | None, what: str) -> object:
    block = next(iter(key_blocks(data)), data)
    needs_passphrase = is_encrypted(block)
    if needs_passphrase and not passphrase:
        raise SecurityError(f"The private key of {what} is under a passphrase: give it.")
    try:
        return serialization.load_pem_private_key(block, passphrase if needs_passphrase else None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        cause = "the passphrase is wrong, or the file is damaged" if needs_passphrase else "the file is damaged"
        raise SecurityError(f"The private key of {what} cannot be read: {cause}.") from error


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """Read certificates, PEM or DER; at least one."""
    try:
        blocks = _PEM_CERTIFICATE.findall(data)
        ders = [x509.load_pem_x509_certificate(block).public_bytes(serialization.Encoding.DER) for block in blocks]
    except chain.CERTIFICATE_ERRORS as error:
        raise SecurityError("A certificate in this file cannot be read.") from error
    found = [certificate for der in ders or [data] if (certificate := chain.load_certificate(der)) is not None]
    if len(found) != len(ders or [data]):
        raise SecurityError("This file holds no certificate that can be read (PEM or DER is expected).")
    return found


def read_crl(data: bytes) -> x509.CertificateRevocationList | None:
    """Read a revocation list, PEM or DER; None if the octets are something else."""
    is_pem = b"-----BEGIN X509 CRL-----" in data
    try:
        return x509.load_pem_x509_crl(data) if is_pem else x509.load_der_x509_crl(data)
    except chain.CERTIFICATE_ERRORS as error:
        if is_pem:
            raise SecurityError("This revocation list cannot be read.") from error
        return None


def read_identity(data: bytes, passphrase: bytes | None) -> Identity | None:
    """Read a private key with its certificate (PEM or PKCS#12), None if there is no key in the file."""
    if key_blocks(data):
        return read_identity_pem(data, passphrase, "this file")
    try:
        loaded, certificate, others = _load_pkcs12(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if "password" in str(error).lower():
            raise SecurityError("The file is under another passphrase than the one given.") from error
        return None  # no PKCS#12: then it is read as something else
    if loaded is None or certificate is None:
        return None
    return Identity(address_in(certificate), _usable(loaded), (certificate, *others))


def write_pkcs12(identity: Identity, passphrase: bytes) -> bytes:
    """Key and certificates as PKCS#12, always under a passphrase."""
    if not passphrase:
        raise SecurityError("A private key leaves only under a passphrase: give one.")
    if identity.encryption is not None:
        raise SecurityError("PKCS#12 takes one key, and this identity has two: export it as PEM.")
    encryption = (
        serialization.PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(200_000)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .build(passphrase)
    )
    name = str(identity.address).encode()
    return pkcs12.serialize_key_and_certificates(
        name, identity.key, identity.certificate, identity.certificates[1:], encryption
    )


def read_authority(certificate: bytes, key: bytes, passphrase: bytes | None = None) -> LocalCa:
    """A local authority from its two files, as ``comity init`` makes them."""
    found = read_certificates(certificate)[0]
    check_anchor(found)
    return LocalCa(load_key(key, passphrase, chain.display_name(found)), found)


def check_anchor(certificate: x509.Certificate) -> None:
    """Make sure that a certificate is one of an authority."""
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        name = chain.display_name(certificate)
        raise SecurityError(
            f"{name} is not a certification authority. To trust this one certificate: comity keys trust"
        )


def address_in(certificate: x509.Certificate) -> Address:
    """The im: address of the principal that a certificate names."""
    names = addresses_of(certificate)
    chosen = next((name for name in names if name.scheme == "im"), names[0] if names else None)
    if chosen is None:
        raise SecurityError("The certificate names no address (no im:, pres:, sip: or XMPP name in it).")
    return Address("im", chosen.local, chosen.domain)


def only(certificates: list[x509.Certificate]) -> x509.Certificate:
    """The one certificate of a file that must hold one."""
    if len(certificates) != 1:
        raise SecurityError("The file holds several certificates: give the one that is meant.")
    return certificates[0]


def _usable(key: object) -> PrivateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise SecurityError("This kind of private key is not usable: take P-256, P-384, Ed25519 or RSA.")

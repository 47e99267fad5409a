"""Who signs: identities, the addresses a certificate proves, and a small local certification authority.

Place on the path: ``signing.sign`` takes an ``Identity``; ``verifying.verify`` asks ``addresses_of`` and ``proves`` whether
a signer is who the object's From says. Only subjectAltName counts: URIs of the schemes im:, pres: and sip:, and
id-on-xmppAddr (RFC 3860 section 4, RFC 3923 section 6.3, RFC 8591 section 4.4.1, RFC 6120 section 13.7.1.4). The
subject's common name and rfc822Name are never read as an identity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from comity.cpim.address import Address, from_jid, to_jid, to_sip_uri
from comity.errors import AddressError, SecurityError
from comity.secure import ber, chain

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey | x25519.X25519PublicKey
ReaderKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | x25519.X25519PrivateKey
"""A private key that opens what was encrypted."""
KeyKind = Literal["p256", "ed25519", "rsa"]

XMPP_ADDR = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5")
"""id-on-xmppAddr (RFC 6120 section 13.7.1.4)."""
BACKDATE = timedelta(hours=1)
"""Certificates begin a little in the past: the clocks of correspondents differ."""
END_ENTITY_DAYS = 730
CA_DAYS = 3650
MAX_ALT_NAMES = 64


@dataclass(frozen=True, slots=True)
class Name:
    """One address that a certificate proves, decoded for comparison (ADDR-4)."""

    scheme: str
    """"im", "pres", "sip" or "xmpp"."""
    local: str
    """Percent-decoded, compared exactly."""
    domain: str
    """A-label in lower case."""

    def __str__(self) -> str:
        return Address("im", self.local, self.domain).uri.replace("im:", f"{self.scheme}:", 1)


def name_of(uri: str) -> Name | None:
    """Decode an address URI for comparison; None if it is not a usable im:, pres:, sip:, sips: or xmpp: address.

    Percent-encoding, case of scheme and domain, and U-labels make no difference; the resource of an xmpp: address
    and the parameters of a sip: one are ignored (RFC 3923 section 6.3). Control characters, the NUL above all, make
    it unusable: a name that some other reader would cut short proves nothing.
    """
    scheme = uri.partition(":")[0].lower()
    kind = _SCHEMES.get(scheme)
    if kind is None:
        return None
    try:
        address = Address.from_any(uri)
    except AddressError:
        return None
    return Name(kind, address.local, address.domain) if address.local.isprintable() else None


_SCHEMES = {"im": "im", "pres": "pres", "sip": "sip", "sips": "sip", "xmpp": "xmpp"}


def contact_key(uri: str) -> str:
    """The key of ``TrustStore.contacts`` for an address URI of any scheme; "" if it is no usable address."""
    name = name_of(uri)
    return "" if name is None else Address("im", name.local, name.domain).uri


def addresses_of(certificate: x509.Certificate) -> tuple[Name, ...]:
    """The addresses that ``certificate`` proves, in its own order; () if it has none we understand."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *chain.CERTIFICATE_ERRORS):
        return ()
    found: list[Name] = []
    for general_name in list(names)[:MAX_ALT_NAMES]:
        name: Name | None = None
        if isinstance(general_name, x509.UniformResourceIdentifier):
            name = name_of(general_name.value)
        elif isinstance(general_name, x509.OtherName) and general_name.type_id == XMPP_ADDR:
            name = _xmpp_name(general_name.value)
        if name is not None:
            found.append(name)
    return tuple(found)


def _xmpp_name(der: bytes) -> Name | None:
    """Read the UTF8String of an id-on-xmppAddr entry."""
    try:
        jid = bytes(ber.read(der).expect(ber.UTF8_STRING).body).decode("utf-8")
    except (ber.BerError, UnicodeDecodeError):
        return None
    if not jid.isprintable():
        return None
    try:
        address = from_jid(jid)[0]
    except AddressError:
        return None
    return Name("xmpp", address.local, address.domain)


def proves(names: Iterable[Name], claimed: str, sip_vouches_for: frozenset[str] = frozenset()) -> bool:
    """True if one of a certificate's ``names`` proves the address URI ``claimed`` (SEC-18).

    Schemes are kept apart (RFC 5025 section 3.1.1.2), with two exceptions: an XMPP address in the certificate is
    the same JID that stands behind im: and pres: (RFC 3923 section 6.3), and sip: proves im: and pres: in the
    domains of ``sip_vouches_for`` (SEC-19).
    """
    wanted = name_of(claimed)
    if wanted is None:
        return False
    for name in names:
        if (name.local, name.domain) != (wanted.local, wanted.domain):
            continue
        if name.scheme == wanted.scheme:
            return True
        if wanted.scheme in ("im", "pres") and (
            name.scheme == "xmpp" or (name.scheme == "sip" and name.domain in sip_vouches_for)
        ):
            return True
    return False


@dataclass(frozen=True, slots=True)
class DecryptionKey:
    """A private key that opens objects, with the certificate that senders encrypt to."""

    key: ReaderKey
    certificate: x509.Certificate

    def __post_init__(self) -> None:
        if public_octets(self.certificate.public_key()) != public_octets(self.key.public_key()):
            raise SecurityError("The certificate for encryption does not belong to its private key.")


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key with its certificate: what signs and what is signed for."""

    address: Address
    key: PrivateKey
    certificates: tuple[x509.Certificate, ...]
    """The own certificate first, then intermediates to send along."""
    encryption: DecryptionKey | None = None
    """A second key, for reading, where the first can only sign: Ed25519 goes with X25519. P-256 and RSA do both."""

    def __post_init__(self) -> None:
        if not self.certificates:
            raise SecurityError(f"The identity of {self.address} has no certificate.")
        if public_octets(self.certificate.public_key()) != public_octets(self.key.public_key()):
            raise SecurityError(f"The certificate of {self.address} does not belong to its private key.")

    @property
    def decryption_keys(self) -> tuple[DecryptionKey, ...]:
        """What opens objects that were encrypted for this identity; the one that senders should use stands first."""
        found = () if self.encryption is None else (self.encryption,)
        return (
            found
            if isinstance(self.key, ed25519.Ed25519PrivateKey)
            else (*found, DecryptionKey(self.key, self.certificate))
        )

    @property
    def sent_certificates(self) -> tuple[x509.Certificate, ...]:
        """What goes along with a signature: the own certificate, the one for encryption, intermediates."""
        own, *others = self.certificates
        return (own, *others) if self.encryption is None else (own, self.encryption.certificate, *others)

    @property
    def certificate(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, lower-case hex."""
        return chain.fingerprint(self.certificate)


def public_octets(key: object) -> bytes:
    """A public key's SubjectPublicKeyInfo.

    Raises:
        SecurityError: it is of a kind that Comity does not use.
    """
    if not isinstance(key, PublicKey):
        raise SecurityError("This kind of key is not usable: take P-256, P-384, Ed25519 or RSA.")
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def new_key(kind: KeyKind = "p256") -> PrivateKey:
    """Make a private key; RSA keys have 3072 bits."""
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=3072)
    return ec.generate_private_key(ec.SECP256R1())


def hash_for(key: PrivateKey) -> hashes.SHA256 | None:
    """The hash a certificate is signed with; None for Ed25519, which has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def alternative_names(address: Address) -> x509.SubjectAlternativeName:
    """All four names of one principal, each in an entry of its own (SEC-17)."""
    uris = (address.with_scheme("im").uri, address.with_scheme("pres").uri, to_sip_uri(address))
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
    try:
        names.append(x509.OtherName(XMPP_ADDR, ber.tlv(ber.UTF8_STRING, to_jid(address).encode())))
    except AddressError:
        pass  # RFC 7622 has no localpart for this name: it has no XMPP address to prove
    return x509.SubjectAlternativeName(names)


def new_identity(
    address: Address, *, when: datetime, ca: LocalCa | None = None, kind: KeyKind = "p256", days: int = END_ENTITY_DAYS
) -> Identity:
    """Make a key and a certificate for ``address``.

    Args:
        address: whom it names; im:, pres:, sip: and the XMPP address of it go in.
        when: aware UTC, the start of validity.
        ca: who issues it; None makes a self-signed one, which correspondents must pin.
        kind: "p256", "ed25519" (with an X25519 key and certificate beside it, to read with) or "rsa".
        days: how long it is valid.
    """
    key = new_key(kind)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(address)[:64])])

    def certify(public: PublicKey) -> x509.Certificate:
        if ca is not None:
            return ca.issue(address, public, when=when, days=days)
        builder = end_entity(address, public, subject=name, issuer=name, when=when, days=days)
        return builder.sign(key, hash_for(key))

    certificate = certify(key.public_key())
    if kind != "ed25519":
        return Identity(address, key, (certificate,))
    # Ed25519 can only sign. The key to read with is certified by whoever certified the first, itself if it is its own issuer.
    reader = x25519.X25519PrivateKey.generate()
    return Identity(address, key, (certificate,), DecryptionKey(reader, certify(reader.public_key())))


def end_entity(
    address: Address, key: PublicKey, *, subject: x509.Name, issuer: x509.Name, when: datetime, days: int
) -> x509.CertificateBuilder:
    """Everything in an end-entity certificate but the issuer's signature (RFC 8550 section 4.4)."""
    is_rsa, is_reader = isinstance(key, rsa.RSAPublicKey), isinstance(key, x25519.X25519PublicKey)
    usage = x509.KeyUsage(
        digital_signature=not is_reader,
        content_commitment=False,
        key_encipherment=is_rsa,
        data_encipherment=False,
        key_agreement=is_reader or isinstance(key, ec.EllipticCurvePublicKey),
        key_cert_sign=False,
        crl_sign=subject == issuer and not is_reader,  # so that a self-signed key can be revoked: by itself
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(when - BACKDATE)
        .not_valid_after(when + timedelta(days=days))
        .add_extension(alternative_names(address), critical=False)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
    )


@dataclass(frozen=True, slots=True)
class LocalCa:
    """A certification authority for one's own users; ``comity init`` makes one."""

    key: PrivateKey
    certificate: x509.Certificate

    @classmethod
    def create(cls, name: str, *, when: datetime, kind: KeyKind = "p256", days: int = CA_DAYS) -> LocalCa:
        """Make a root; ``name`` is its common name, such as "Comity CA of example.org"."""
        key = new_key(kind)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(when - BACKDATE)
            .not_valid_after(when + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hash_for(key))
        )
        return cls(key, certificate)

    def issue(
        self, address: Address, key: PublicKey, *, when: datetime, days: int = END_ENTITY_DAYS
    ) -> x509.Certificate:
        """Issue an end-entity certificate with all four names of ``address``."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, str(address)[:64])])
        builder = end_entity(address, key, subject=subject, issuer=self.certificate.subject, when=when, days=days)
        return builder.sign(self.key, hash_for(self.key))

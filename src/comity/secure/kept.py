"""Certificates as the key store keeps them: X.509 and OpenPGP in the same words.

Place on the path: beside it, below ``keystore.py``, ``recipients.py`` and the commands. Octets of a file go in, ``Kept`` values
come out. Without the ``pgp`` extra an OpenPGP certificate is kept too; it then says little of itself.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import x25519

from comity.errors import SecurityError
from comity.secure import chain, openpgp
from comity.secure.contacts import Contact, key_of
from comity.secure.identity import Name, addresses_of, contact_key
from comity.secure.keyfile import certificate_pem, needs_passphrase, read_certificates
from comity.secure.openpgp_packets import SECRET_KEY, SKESK
from comity.secure.passphrase import pem

_FINGERPRINT = re.compile(r"[0-9a-f]{16,64}")
_EPOCH = datetime.fromtimestamp(0, UTC)
ARMOR = b"-----BEGIN PGP "


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of ``comity keys list``."""

    fingerprint: str
    """SHA-256 of an X.509 certificate, or an OpenPGP fingerprint; lower-case hex."""
    shelf: str
    """"own", "old", "anchors", "pinned", "known" or "distrusted"."""
    subject: str
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime | None
    """None: no end."""
    is_encrypted: bool = False
    """For "own": True if the private key needs a passphrase."""
    technology: str = "smime"
    """"smime" or "openpgp"."""
    use: str = "sign, encrypt"
    """What the key is for."""
    is_revoked: bool = False
    """True for an OpenPGP certificate that says so itself; X.509 ones have lists."""
    history: tuple[Contact, ...] = ()
    """Which keys signed as its first address, oldest first; filled in by ``show``."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One certificate with what can be read of it."""

    entry: KeyEntry
    octets: bytes = field(repr=False)
    """DER, or OpenPGP packets."""
    key: str
    """See ``contacts.key_of``."""
    names: tuple[Name, ...] = ()
    """The addresses it proves."""
    x509: x509.Certificate | None = field(default=None, repr=False)
    """None for OpenPGP."""

    @property
    def fingerprint(self) -> str:
        return self.entry.fingerprint

    @property
    def technology(self) -> str:
        return self.entry.technology

    @property
    def file_name(self) -> str:
        """Under which it lies on a shelf."""
        return self.fingerprint + (".pem" if self.x509 is not None else ".pgp")

    @property
    def file_octets(self) -> bytes:
        """What lies there."""
        return certificate_pem(self.x509) if self.x509 is not None else self.octets

    @property
    def contact_keys(self) -> list[str]:
        """The im: URIs that it proves, each once."""
        return list(dict.fromkeys(contact_key(str(name)) for name in self.names))

    @property
    def only_encrypts(self) -> bool:
        """True for the second certificate of somebody whose first can only sign."""
        return self.x509 is not None and isinstance(self.x509.public_key(), x25519.X25519PublicKey)

    def is_current(self, when: datetime) -> bool:
        """True if ``when`` lies in its validity."""
        end = self.entry.not_after
        return self.entry.not_before <= when and (end is None or when <= end)

    def is_meant_by(self, reference: str) -> bool:
        """True if ``reference`` is (the first 16 digits or more of) its fingerprint, or one of its addresses."""
        wanted = re.sub(r"[\s:]", "", reference).lower()
        if _FINGERPRINT.fullmatch(wanted):
            return self.fingerprint.startswith(wanted)
        address = contact_key(reference if ":" in reference.partition("@")[0] else f"im:{reference}")
        return bool(address) and address in self.contact_keys


def of_x509(certificate: x509.Certificate, shelf: str = "", *, is_encrypted: bool = False) -> Kept:
    """An X.509 certificate."""
    names = addresses_of(certificate)
    only_encrypts = isinstance(certificate.public_key(), x25519.X25519PublicKey)
    entry = KeyEntry(
        chain.fingerprint(certificate),
        shelf,
        chain.display_name(certificate),
        tuple(map(str, names)),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        is_encrypted,
        use="encrypt" if only_encrypts else _use(certificate),
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    return Kept(entry, der, key_of(certificate), names, certificate)


def _use(certificate: x509.Certificate) -> str:
    usage = chain.extension_of(certificate, x509.KeyUsage)
    if usage is not None and usage.key_cert_sign:
        return "certify"
    if usage is not None and not (usage.key_agreement or usage.key_encipherment):
        return "sign"
    return "sign, encrypt"


def of_openpgp(octets: bytes, shelf: str = "", *, is_encrypted: bool = False, fingerprint: str = "") -> Kept:
    """An OpenPGP certificate (binary packets); ``fingerprint`` is what the file is called, for installs without the extra."""
    if not openpgp.is_available:
        subject = "an OpenPGP certificate; to read it: pip install 'comity[pgp]'"
        entry = KeyEntry(fingerprint, shelf, subject, (), _EPOCH, None, is_encrypted, "openpgp")
        return Kept(entry, octets, fingerprint)
    found = openpgp.read_certificates(octets)[0]
    entry = KeyEntry(
        found.fingerprint,
        shelf,
        found.title,
        found.addresses,
        found.created,
        found.expires,
        is_encrypted,
        "openpgp",
        is_revoked=found.is_revoked,
    )
    return Kept(entry, found.octets, found.fingerprint, found.names)


def joined(before: bytes, now: Kept) -> Kept:
    """``now`` with everything that the version kept ``before`` says too; X.509 certificates have no versions."""
    if now.x509 is not None or not openpgp.is_available or before == now.octets:
        return now
    old, new = (openpgp.read_certificates(each)[0] for each in (before, now.octets))
    return of_openpgp(openpgp.merged(old, new).octets, now.entry.shelf)


def is_openpgp(data: bytes) -> bool:
    """True for an armored or binary OpenPGP file: packets begin with the high bit, DER never does."""
    return data.lstrip()[: len(ARMOR)] == ARMOR or data[:1] >= b"\x80"


def is_openpgp_message(data: bytes) -> bool:
    """True for an OpenPGP message under a passphrase, such as ``PgpIdentity.to_bytes`` makes of a private key."""
    return data.lstrip()[: len(ARMOR) + 7] == ARMOR + b"MESSAGE" or (data[:1] >= b"\x80" and _first_tag(data) == SKESK)


def is_private_openpgp(data: bytes) -> bool:
    """True for a private OpenPGP key, armored, binary or in a message."""
    if is_openpgp_message(data) or data.lstrip()[: len(ARMOR) + 7] == ARMOR + b"PRIVATE":
        return True
    return data[:1] >= b"\x80" and _first_tag(data) == SECRET_KEY


def holds_key(data: bytes) -> bool | None:
    """True if the file holds a private key under a passphrase, False if one that lies open; None if there is none."""
    if is_openpgp(data):
        return is_openpgp_message(data) if is_private_openpgp(data) else None
    return needs_passphrase(data)


def _first_tag(data: bytes) -> int:
    """The type of the first packet (RFC 9580 section 4.2)."""
    return data[0] & 0x3F if data[0] & 0x40 else data[0] >> 2 & 0x0F


def read(data: bytes) -> list[Kept]:
    """All certificates in a file: X.509 (PEM or DER) or OpenPGP (armored or binary); at least one.

    Raises:
        SecurityError: there is none, or one cannot be read.
    """
    if is_openpgp(data):
        return [of_openpgp(each.octets) for each in openpgp.read_certificates(data)]
    return [of_x509(certificate) for certificate in read_certificates(data)]


def principal(found: list[Kept]) -> Kept:
    """The one certificate that a file is about; one for encryption may go along with the one that signs.

    Raises:
        SecurityError: there are several.
    """
    signing = [each for each in found if not each.only_encrypts] or found
    if len(signing) != 1:
        raise SecurityError("The file holds several certificates: give the one that is meant.")
    return signing[0]


def armored(octets: bytes, label: str = "PGP PUBLIC KEY BLOCK") -> bytes:
    """OpenPGP packets in ASCII armor (RFC 9580 section 6.2), with the checksum.

    GnuPG 2.2 needs it: without one it cannot see where base64 ends that has no padding, and takes the last line for some of it.
    """
    head, end = pem(label, octets).replace(b"-----\n", b"-----\n\n", 1).split(b"-----END ")
    checksum = base64.b64encode(_crc24(octets).to_bytes(3, "big"))
    return head + b"=" + checksum + b"\n-----END " + end


def _crc24(octets: bytes) -> int:
    """RFC 9580 section 6.1.1."""
    crc = 0xB704CE
    for octet in octets:
        crc ^= octet << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864CFB
    return crc

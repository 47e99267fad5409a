"""Keys and trust on disk: the user's own identities, anchors, pins and lists under ``COMITY_HOME``.

Place on the path: beside it; ``comity keys``, ``sign`` and ``verify`` open one. Directories are 0700, files 0600,
each written whole under another name, synced and renamed, so that a crash leaves the old one. Layout:

    keys/NAME.key.pem       PKCS#8, encrypted if a passphrase was given
    keys/NAME.crt.pem       the certificate, then intermediates to send along
    anchors/ pinned/ known/ FINGERPRINT.pem, one certificate each
    distrusted/             FINGERPRINT.pem, never trusted again until ``trust``
    crls/                   SHA-256 of the list .pem

NAME is the im: address without its scheme, percent-encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from comity.cpim.address import Address
from comity.errors import AddressError, SecurityError
from comity.secure import chain
from comity.secure.identity import Identity, LocalCa, PrivateKey, addresses_of

Shelf = Literal["anchors", "pinned", "known", "distrusted"]
SHELVES: tuple[Shelf, ...] = ("anchors", "pinned", "known", "distrusted")
MAX_FILE = 1024 * 1024
"""Octets of a file read from outside."""
MAX_NAME = 240
"""File systems take names of 255 octets."""
SUFFIX = ".pem"
_FINGERPRINT = re.compile(r"[0-9a-f]{16,64}")
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def default_home() -> Path:
    """``COMITY_HOME``, or ~/.local/share/comity."""
    return Path(os.environ.get("COMITY_HOME") or Path.home() / ".local" / "share" / "comity")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of ``comity keys list``."""

    fingerprint: str
    """SHA-256 of the certificate, lower-case hex."""
    shelf: str
    """"own", "anchors", "pinned", "known" or "distrusted"."""
    subject: str
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_encrypted: bool = False
    """For "own": True if the private key needs a passphrase."""


class KeyStore:
    """A directory of keys and certificates.

    Args:
        path: the directory; made (0700) on the first write. None: ``default_home()``.

    Every method raises SecurityError with a sentence for what cannot be done.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.path = default_home() if path is None else Path(path)

    # --- own identities ---

    def save(self, identity: Identity, passphrase: bytes | None = None) -> None:
        """Keep an identity, in place of an older one of the same address."""
        name = _file_name(identity.address)
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase:
            encryption = serialization.BestAvailableEncryption(passphrase)
        key = identity.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
        # The key goes first: a crash between the two leaves a certificate that no longer fits, which load() says.
        self._write("keys", f"{name}.key.pem", key)
        self._write("keys", f"{name}.crt.pem", b"".join(_pem(certificate) for certificate in identity.certificates))

    def load(self, address: Address, passphrase: bytes | None = None) -> Identity:
        """Read the identity of ``address``."""
        name = _file_name(address)
        folder = self.path / "keys"
        if not (folder / f"{name}.key.pem").exists():
            raise SecurityError(f"There is no key for {address}. Make one with: comity keys new {address}")
        key = _load_key(self._read(folder / f"{name}.key.pem"), passphrase, str(address))
        certificates = tuple(read_certificates(self._read(folder / f"{name}.crt.pem")))
        return Identity(address.with_scheme("im"), key, certificates)

    def identities(self) -> list[Address]:
        """Addresses that have a key here."""
        found: list[Address] = []
        for file in self._files("keys", ".key.pem"):
            try:
                found.append(Address.parse("im:" + unquote(file.name.removesuffix(".key.pem"), errors="strict")))
            except (AddressError, UnicodeError):
                continue  # not a file of ours
        return found

    # --- the list ---

    def entries(self) -> list[KeyEntry]:
        """Everything kept here: own identities first, then anchors, pins, known and distrusted certificates."""
        found: list[KeyEntry] = []
        for address in self.identities():
            name = _file_name(address)
            certificates = read_certificates(self._read(self.path / "keys" / f"{name}.crt.pem"))
            is_encrypted = b"ENCRYPTED" in self._read(self.path / "keys" / f"{name}.key.pem")[:80]
            found.append(_entry(certificates[0], "own", is_encrypted))
        for shelf in SHELVES:
            found += [_entry(certificate, shelf) for certificate in self.certificates(shelf)]
        return found

    def certificates(self, shelf: Shelf) -> list[x509.Certificate]:
        """The certificates of one shelf, in the order of their fingerprints."""
        return [c for file in self._files(shelf, SUFFIX) for c in read_certificates(self._read(file))]

    def find(self, reference: str) -> x509.Certificate:
        """The certificate with this fingerprint (or at least 16 of its first digits), or of this address."""
        wanted = reference.replace(":", "").lower()
        own = [self.load_certificate(address) for address in self.identities()]
        everything = own + [c for shelf in SHELVES for c in self.certificates(shelf)]
        if _FINGERPRINT.fullmatch(wanted):
            matches = {chain.fingerprint(c): c for c in everything if chain.fingerprint(c).startswith(wanted)}
        else:
            matches = {chain.fingerprint(c): c for c in everything if reference in map(str, addresses_of(c))}
        if len(matches) != 1:
            how = "No certificate" if not matches else "More than one certificate"
            raise SecurityError(f"{how} here matches {reference[:128]!r}. List them with: comity keys list")
        return next(iter(matches.values()))

    def load_certificate(self, address: Address) -> x509.Certificate:
        """The own certificate of ``address``, without its key."""
        return read_certificates(self._read(self.path / "keys" / f"{_file_name(address)}.crt.pem"))[0]

    def show(self, reference: str) -> KeyEntry:
        """What is known of one certificate."""
        wanted = chain.fingerprint(self.find(reference))
        return next(entry for entry in self.entries() if entry.fingerprint == wanted)

    # --- in and out ---

    def import_file(
        self,
        data: bytes,
        *,
        is_anchor: bool = False,
        passphrase: bytes | None = None,
        new_passphrase: bytes | None = None,
    ) -> list[KeyEntry]:
        """Take in certificates (PEM or DER), a key with its certificate (PEM or PKCS#12), or a revocation list.

        Args:
            data: the file's octets.
            is_anchor: True trusts the certificates as authorities; False only keeps them.
            passphrase: opens an encrypted key or PKCS#12 file.
            new_passphrase: encrypts the private key here.
        """
        if len(data) > MAX_FILE:
            raise SecurityError(f"The file is larger than {MAX_FILE // 1024} KiB: it is no key or certificate.")
        if b"X509 CRL-----" in data:
            return self._import_crl(data)
        identity = _read_identity(data, passphrase)
        if identity is not None:
            self.save(identity, new_passphrase)
            return [_entry(identity.certificate, "own", bool(new_passphrase))]
        shelf: Shelf = "anchors" if is_anchor else "known"
        found = read_certificates(data)
        if is_anchor:
            for certificate in found:
                _check_anchor(certificate)
        for certificate in found:
            self._put(shelf, certificate)
        return [_entry(certificate, shelf) for certificate in found]

    def export(self, reference: str) -> bytes:
        """A certificate as PEM, to give to others."""
        return _pem(self.find(reference))

    def export_private(self, address: Address, passphrase: bytes, *, old_passphrase: bytes | None = None) -> bytes:
        """Key and certificates as PKCS#12, always under a passphrase."""
        if not passphrase:
            raise SecurityError("A private key leaves only under a passphrase: give one.")
        identity = self.load(address, old_passphrase)
        return pkcs12.serialize_key_and_certificates(
            str(address).encode(),
            identity.key,
            identity.certificate,
            identity.certificates[1:],
            serialization.BestAvailableEncryption(passphrase),
        )

    # --- trust ---

    def trust(self, what: bytes | str) -> KeyEntry:
        """Pin a certificate: a file's octets, or a fingerprint or address of one kept here."""
        certificate = self.find(what) if isinstance(what, str) else _only(read_certificates(what))
        self._remove("distrusted", certificate)
        self._put("pinned", certificate)
        return _entry(certificate, "pinned")

    def distrust(self, what: bytes | str) -> KeyEntry:
        """Never trust a certificate again, nor anything it issued; taken off the other shelves."""
        certificate = self.find(what) if isinstance(what, str) else _only(read_certificates(what))
        self._put("distrusted", certificate)
        for shelf in SHELVES[:3]:
            self._remove(shelf, certificate)
        return _entry(certificate, "distrusted")

    def remember(self, certificate_der: bytes) -> None:
        """Keep a correspondent's certificate without trusting it (RFC 3923 section 6.2: "store and protect")."""
        certificate = chain.load_certificate(certificate_der)
        if certificate is None:
            raise SecurityError("This is not a certificate that can be read.")
        self._put("known", certificate)

    def trust_store(self, sip_vouches_for: frozenset[str] = frozenset()) -> chain.TrustStore:
        """What ``verify`` takes: everything kept here. Own certificates are pinned."""
        own = [self.load_certificate(address) for address in self.identities()]
        return chain.TrustStore(
            anchors=tuple(self.certificates("anchors")),
            pinned=(*own, *self.certificates("pinned")),
            known=tuple(self.certificates("known")),
            crls=tuple(self._crls()),
            distrusted=frozenset(map(chain.fingerprint, self.certificates("distrusted"))),
            sip_vouches_for=sip_vouches_for,
        )

    # --- files ---

    def _import_crl(self, data: bytes) -> list[KeyEntry]:
        try:
            crl = x509.load_pem_x509_crl(data)
        except chain.CERTIFICATE_ERRORS as error:
            raise SecurityError("This revocation list cannot be read.") from error
        self._write("crls", hashlib.sha256(crl.public_bytes(serialization.Encoding.DER)).hexdigest() + SUFFIX, data)
        return []

    def _crls(self) -> Iterator[x509.CertificateRevocationList]:
        for file in self._files("crls", SUFFIX):
            try:
                yield x509.load_pem_x509_crl(self._read(file))
            except chain.CERTIFICATE_ERRORS as error:
                raise SecurityError(f"{file} is damaged: it is no revocation list. Import it again.") from error

    def _put(self, shelf: Shelf, certificate: x509.Certificate) -> None:
        self._write(shelf, chain.fingerprint(certificate) + SUFFIX, _pem(certificate))

    def _remove(self, shelf: Shelf, certificate: x509.Certificate) -> None:
        (self.path / shelf / (chain.fingerprint(certificate) + SUFFIX)).unlink(missing_ok=True)

    def _files(self, folder: str, suffix: str) -> list[Path]:
        try:
            return sorted(file for file in (self.path / folder).iterdir() if file.name.endswith(suffix))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise SecurityError(f"{self.path / folder} cannot be read: {error.strerror}.") from error

    def _read(self, file: Path) -> bytes:
        try:
            if file.stat().st_size > MAX_FILE:
                raise SecurityError(f"{file} is larger than {MAX_FILE // 1024} KiB: it is no key or certificate.")
            return file.read_bytes()
        except OSError as error:
            raise SecurityError(f"{file} cannot be read: {error.strerror}.") from error

    def _write(self, folder: str, name: str, data: bytes) -> None:
        """Write a file of mode 0600 whole or not at all."""
        directory = self.path / folder
        temporary = directory / f".{name[:100]}.{os.getpid()}"
        try:
            for made in (self.path, directory):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)
                made.chmod(0o700)
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(directory / name)
        except OSError as error:
            raise SecurityError(f"{directory / name} cannot be written: {error.strerror}.") from error


def read_certificates(data: bytes) -> list[x509.Certificate]:
    """Read certificates, PEM or DER; at least one.

    Raises:
        SecurityError: there is none, or one cannot be read.
    """
    try:
        blocks = _PEM_CERTIFICATE.findall(data)
        ders = [x509.load_pem_x509_certificate(block).public_bytes(serialization.Encoding.DER) for block in blocks]
    except chain.CERTIFICATE_ERRORS as error:
        raise SecurityError("A certificate in this file cannot be read.") from error
    found = [certificate for der in ders or [data] if (certificate := chain.load_certificate(der)) is not None]
    if len(found) != len(ders or [data]):
        raise SecurityError("This file holds no certificate that can be read (PEM or DER is expected).")
    return found


def read_authority(certificate: bytes, key: bytes, passphrase: bytes | None = None) -> LocalCa:
    """A local authority from its two files, as ``comity init`` makes them. Raises SecurityError."""
    found = read_certificates(certificate)[0]
    _check_anchor(found)
    return LocalCa(_load_key(key, passphrase, chain.display_name(found)), found)


def _check_anchor(certificate: x509.Certificate) -> None:
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    if not is_ca:
        name = chain.display_name(certificate)
        raise SecurityError(
            f"{name} is not a certification authority. To trust this one certificate: comity keys trust"
        )


def _read_identity(data: bytes, passphrase: bytes | None) -> Identity | None:
    """Read a private key with its certificate, None if there is no key in the file."""
    if b"PRIVATE KEY-----" in data:
        key = _load_key(data, passphrase, "this file")
        certificates = read_certificates(data)
    else:
        try:
            loaded, certificate, others = pkcs12.load_key_and_certificates(data, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            if "password" in str(error).lower():
                raise SecurityError("The file is under another passphrase than the one given.") from error
            return None  # no PKCS#12: then it is read as certificates
        if loaded is None or certificate is None:
            return None
        key, certificates = _usable(loaded), [certificate, *others]
    names = addresses_of(certificates[0])
    chosen = next((name for name in names if name.scheme == "im"), names[0] if names else None)
    if chosen is None:
        raise SecurityError("The certificate names no address (no im:, pres:, sip: or XMPP name in it).")
    return Identity(Address("im", chosen.local, chosen.domain), key, tuple(certificates))


def _load_key(data: bytes, passphrase: bytes | None, what: str) -> PrivateKey:
    is_encrypted = b"ENCRYPTED" in data
    if is_encrypted and not passphrase:
        raise SecurityError(f"The private key of {what} is under a passphrase: give it.")
    try:
        return _usable(serialization.load_pem_private_key(data, passphrase if is_encrypted else None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        cause = "the passphrase is wrong, or the file is damaged" if is_encrypted else "the file is damaged"
        raise SecurityError(f"The private key of {what} cannot be read: {cause}.") from error


def _usable(key: object) -> PrivateKey:
    if isinstance(key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey):
        return key
    raise SecurityError("This kind of private key is not usable: take P-256, P-384, Ed25519 or RSA.")


def _only(certificates: list[x509.Certificate]) -> x509.Certificate:
    if len(certificates) != 1:
        raise SecurityError("The file holds several certificates: give the one that is meant.")
    return certificates[0]


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _file_name(address: Address) -> str:
    name = quote(address.with_scheme("im").uri.removeprefix("im:"), safe="@")
    if len(name) > MAX_NAME:
        raise SecurityError(f"{str(address)[:64]}… is too long an address to keep a key for.")
    return name


def _entry(certificate: x509.Certificate, shelf: str, is_encrypted: bool = False) -> KeyEntry:
    return KeyEntry(
        chain.fingerprint(certificate),
        shelf,
        chain.display_name(certificate),
        tuple(map(str, addresses_of(certificate))),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        is_encrypted,
    )

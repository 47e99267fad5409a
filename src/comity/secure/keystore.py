"""Keys and trust on disk: the user's own identities, anchors, pins, lists and memory under ``COMITY_HOME``.

Place on the path: beside it; ``comity keys``, ``sign``, ``verify``, ``send`` and ``listen`` open one. How files are
written stands in ``home.py``, the own keys in ``own_keys.py``. Layout of the rest:

    anchors/ pinned/ known/ FINGERPRINT.pem, one certificate each
    distrusted/             FINGERPRINT.pem, never trusted again until ``trust``
    crls/                   SHA-256 of the list .pem
    contacts/NAME.json      which keys signed as whom, and since when (``contacts.py``)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import chain, contacts
from comity.secure.contacts import Contact, Contacts, key_of
from comity.secure.home import MAX_FILE, Home, default_home, file_name
from comity.secure.identity import Identity, addresses_of, contact_key, proves
from comity.secure.keyfile import (
    certificate_pem,
    check_anchor,
    only,
    read_authority,
    read_certificates,
    read_crl,
    read_identity,
    write_pkcs12,
)
from comity.secure.own_keys import OwnKeys
from comity.secure.verdict import Verdict, VerdictKind

__all__ = ["KeyEntry", "KeyStore", "default_home", "read_authority", "read_certificates"]

Shelf = Literal["anchors", "pinned", "known", "distrusted"]
SHELVES: tuple[Shelf, ...] = ("anchors", "pinned", "known", "distrusted")
SUFFIX = ".pem"
_FINGERPRINT = re.compile(r"[0-9a-f]{16,64}")

#: After these a signature holds and its certificate proves From: they are remembered. Trust is another question.
_NOTED = frozenset({"valid", "valid-weak", "untrusted", "changed"})


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One line of ``comity keys list``."""

    fingerprint: str
    """SHA-256 of the certificate, lower-case hex."""
    shelf: str
    """"own", "old", "anchors", "pinned", "known" or "distrusted"."""
    subject: str
    addresses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_encrypted: bool = False
    """For "own": True if the private key needs a passphrase."""
    technology: str = "smime"
    """"smime" or "openpgp"."""
    history: tuple[Contact, ...] = ()
    """Which keys signed as its first address, oldest first; filled in by ``show``."""


class KeyStore:
    """A directory of keys and certificates.

    Args:
        path: the directory; made (0700) on the first write. None: ``default_home()``.

    Every method raises SecurityError with a sentence for what cannot be done.
    """

    def __init__(self, path: Path | str | None = None) -> None:
        self.home = Home(path)
        self.path = self.home.path
        self.own = OwnKeys(self.home)

    # --- own identities ---

    def save(self, identity: Identity, passphrase: bytes | None = None) -> None:
        """Keep an identity, in place of an older one of the same address."""
        self.own.save(identity, passphrase)

    def load(self, address: Address, passphrase: bytes | None = None) -> Identity:
        """Read the identity of ``address``."""
        return self.own.load(address, passphrase)

    def identities(self) -> list[Address]:
        """Addresses that have a key here."""
        return self.own.addresses()

    # --- the list ---

    def entries(self) -> list[KeyEntry]:
        """Everything kept here: own identities first, then anchors, pins, known and distrusted certificates."""
        own = self.own
        found = [_entry(own.certificate(each), "own", own.is_encrypted(each)) for each in own.addresses()]
        found += [_entry(certificate, "old") for certificate in own.old_certificates()]
        for shelf in SHELVES:
            found += [_entry(certificate, shelf) for certificate in self.certificates(shelf)]
        return found

    def certificates(self, shelf: Shelf) -> list[x509.Certificate]:
        """The certificates of one shelf, in the order of their fingerprints."""
        return [c for file in self.home.files(shelf, SUFFIX) for c in read_certificates(self.home.read(file))]

    def find(self, reference: str) -> x509.Certificate:
        """The certificate with this fingerprint (or at least 16 of its first digits), or of this address.

        An address means the own certificate first, then a pinned one, then any other."""
        own = [self.own.certificate(address) for address in self.identities()]
        groups = [own, self.certificates("pinned")]
        groups.append([*self.own.old_certificates(), *(c for shelf in SHELVES for c in self.certificates(shelf))])
        wanted = _plain_fingerprint(reference)
        if _FINGERPRINT.fullmatch(wanted):
            every = [certificate for group in groups for certificate in group]
            matches = {chain.fingerprint(c): c for c in every if chain.fingerprint(c).startswith(wanted)}
        else:
            matches = {}
            for group in groups:
                matches = matches or {chain.fingerprint(c): c for c in group if _is_of(c, reference)}
        if len(matches) != 1:
            how = "No certificate" if not matches else "More than one certificate"
            raise SecurityError(f"{how} here matches {reference[:128]!r}. List them with: comity keys list")
        return next(iter(matches.values()))

    def load_certificate(self, address: Address) -> x509.Certificate:
        """The own certificate of ``address``, without its key."""
        return self.own.certificate(address)

    def show(self, reference: str) -> KeyEntry:
        """What is known of one certificate."""
        wanted = chain.fingerprint(self.find(reference))
        entry = next(entry for entry in self.entries() if entry.fingerprint == wanted)
        history = self.contacts().of(entry.addresses[0]) if entry.addresses else ()
        return replace(entry, history=history)

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

        A certificate that a key was waiting for makes an identity of the two.

        Args:
            data: the file's octets.
            is_anchor: True trusts the certificates as authorities; False only keeps them.
            passphrase: opens an encrypted key or PKCS#12 file.
            new_passphrase: encrypts the private key here.

        Returns:
            What was taken in; nothing for a revocation list.
        """
        if len(data) > MAX_FILE:
            raise SecurityError(f"The file is larger than {MAX_FILE // 1024} KiB: it is no key or certificate.")
        crl = read_crl(data)
        if crl is not None:
            self.keep_crl(crl)
            return []
        identity = read_identity(data, passphrase)
        if identity is not None:
            self.save(identity, new_passphrase)
            return [_entry(identity.certificate, "own", bool(new_passphrase))]
        found = read_certificates(data)
        if not is_anchor:
            own = self.own.join(found)
            if own is not None:
                return [next(entry for entry in self.entries() if entry.fingerprint == chain.fingerprint(own))]
        shelf: Shelf = "anchors" if is_anchor else "known"
        if is_anchor:
            for certificate in found:
                check_anchor(certificate)
        for certificate in found:
            self.put(shelf, certificate)
        return [_entry(certificate, shelf) for certificate in found]

    def export(self, reference: str) -> bytes:
        """A certificate as PEM, to give to others."""
        return certificate_pem(self.find(reference))

    def export_private(self, address: Address, passphrase: bytes, *, old_passphrase: bytes | None = None) -> bytes:
        """Key and certificates as PKCS#12, always under a passphrase."""
        if not passphrase:
            raise SecurityError("A private key leaves only under a passphrase: give one.")
        return write_pkcs12(self.load(address, old_passphrase), passphrase)

    # --- trust ---

    def trust(self, what: bytes | str, *, when: datetime | None = None) -> KeyEntry:
        """Pin a certificate: a file's octets, or a fingerprint or address of one kept here.

        Args:
            what: which.
            when: aware UTC; from then on its key is the one its addresses are known by. None notes nothing.
        """
        certificate = self.find(what) if isinstance(what, str) else only(read_certificates(what))
        with self.home.locked():
            self.put("pinned", certificate)
            self._remove("distrusted", certificate)
            self._remove("known", certificate)
            if when is not None:
                for address in _contact_keys(certificate):
                    new = _contact(address, certificate, when, "", is_vouched=True)
                    self._note(address, contacts.accepted(self._contacts_of(address), new))
        return _entry(certificate, "pinned")

    def distrust(self, what: bytes | str) -> KeyEntry:
        """Never trust a certificate again, nor anything it issued; taken off the other shelves."""
        certificate = self.find(what) if isinstance(what, str) else only(read_certificates(what))
        with self.home.locked():
            self.put("distrusted", certificate)
            for shelf in SHELVES[:3]:
                self._remove(shelf, certificate)
            for address in _contact_keys(certificate):
                before = self._contacts_of(address)
                after = contacts.dropped(before, key_of(certificate))
                if after != before:
                    self._note(address, after)
        return _entry(certificate, "distrusted")

    def trust_store(self, sip_vouches_for: frozenset[str] = frozenset()) -> chain.TrustStore:
        """What ``verify`` takes: everything kept here. Own certificates are pinned."""
        own = [self.own.certificate(address) for address in self.identities()]
        return chain.TrustStore(
            anchors=tuple(self.certificates("anchors")),
            pinned=(*own, *self.certificates("pinned")),
            known=tuple(self.certificates("known")),
            crls=tuple(self.crls()),
            distrusted=frozenset(map(chain.fingerprint, self.certificates("distrusted"))),
            sip_vouches_for=sip_vouches_for,
            contacts=self.contacts().kept(),
        )

    def version(self) -> tuple[int, ...]:
        """Differs once anything that ``trust_store`` reads was changed, by whatever process."""
        return self.home.version("keys", *SHELVES, "crls", "contacts")

    # --- memory ---

    def contacts(self) -> Contacts:
        """Which keys signed as whom."""
        found: dict[str, tuple[Contact, ...]] = {}
        for file in self.home.files("contacts", ".json"):
            rows = contacts.from_json(self.home.read(file), str(file))
            if rows:
                found[rows[0].address] = rows
        return Contacts(found)

    def note(self, verdict: Verdict, when: datetime, protocol: str = "") -> bool:
        """Remember who signed, with which key, from the verdict on one object (SEC-20); True if there was news.

        Only a signature that holds and whose certificate proves From leaves a trace. The certificate is kept beside
        ("known") without any trust: RFC 3923 section 6.2, "store and protect".
        """
        certificate = chain.load_certificate(verdict.certificate) if verdict.verdict in _NOTED else None
        if certificate is None or not proves(addresses_of(certificate), verdict.from_):
            return False
        address = contact_key(verdict.from_)
        is_vouched = verdict.verdict in (VerdictKind.VALID, VerdictKind.VALID_WEAK)
        new = _contact(address, certificate, when, protocol, is_vouched=is_vouched)
        if contacts.noted(self._contacts_of(address), new) == self._contacts_of(address):
            return False
        with self.home.locked():
            before = self._contacts_of(address)
            after = contacts.noted(before, new)
            if after == before:
                return False
            kept = [shelf for shelf in SHELVES if self.home.exists(shelf, chain.fingerprint(certificate) + SUFFIX)]
            if not kept:
                self.put("known", certificate)
            self._note(address, after)
        return True

    def remember(self, certificate_der: bytes) -> None:
        """Keep a correspondent's certificate without trusting it (RFC 3923 section 6.2: "store and protect")."""
        certificate = chain.load_certificate(certificate_der)
        if certificate is None:
            raise SecurityError("This is not a certificate that can be read.")
        self.put("known", certificate)

    def _contacts_of(self, address: str) -> tuple[Contact, ...]:
        file = self.path / "contacts" / _contact_file(address)
        return contacts.from_json(self.home.read(file), str(file)) if file.exists() else ()

    def _note(self, address: str, rows: tuple[Contact, ...]) -> None:
        self.home.write("contacts", _contact_file(address), contacts.to_json(rows))

    # --- lists ---

    def keep_crl(self, crl: x509.CertificateRevocationList) -> None:
        """Keep a revocation list; ``verify`` asks whether its issuer signed it."""
        name = hashlib.sha256(crl.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.home.write("crls", name + SUFFIX, crl.public_bytes(serialization.Encoding.PEM))

    def crls(self) -> Iterator[x509.CertificateRevocationList]:
        """The revocation lists kept here."""
        for file in self.home.files("crls", SUFFIX):
            try:
                yield x509.load_pem_x509_crl(self.home.read(file))
            except chain.CERTIFICATE_ERRORS as error:
                raise SecurityError(f"{file} is damaged: it is no revocation list. Import it again.") from error

    def put(self, shelf: Shelf, certificate: x509.Certificate) -> None:
        """Lay a certificate on a shelf."""
        self.home.write(shelf, chain.fingerprint(certificate) + SUFFIX, certificate_pem(certificate))

    def _remove(self, shelf: Shelf, certificate: x509.Certificate) -> None:
        self.home.remove(shelf, chain.fingerprint(certificate) + SUFFIX)


def _plain_fingerprint(reference: str) -> str:
    """A fingerprint as people write it: groups, colons and capitals make no difference."""
    return re.sub(r"[\s:]", "", reference).lower()


def _is_of(certificate: x509.Certificate, reference: str) -> bool:
    return reference in map(str, addresses_of(certificate))


def _contact_keys(certificate: x509.Certificate) -> list[str]:
    """The im: URIs that a certificate proves, each once."""
    return list(dict.fromkeys(contact_key(str(name)) for name in addresses_of(certificate)))


def _contact(
    address: str, certificate: x509.Certificate, when: datetime, protocol: str, *, is_vouched: bool
) -> Contact:
    return Contact(address, key_of(certificate), chain.fingerprint(certificate), when, protocol, is_vouched=is_vouched)


def _contact_file(address: str) -> str:
    return file_name(Address.parse(address)) + ".json"


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

"""Keys and trust on disk: the user's own identities, anchors, pins, lists and memory under ``COMITY_HOME``.

Place on the path: beside it; ``comity keys``, ``sign``, ``verify``, ``send`` and ``listen`` open one. How files are
written stands in ``home.py``, the own keys in ``own_keys.py`` and ``own_pgp.py``. Layout of the rest:

    anchors/ pinned/ known/ FINGERPRINT.pem, one certificate each; .pgp for OpenPGP, binary
    distrusted/             the same, never trusted again until ``trust``
    crls/                   SHA-256 of the list .pem
    contacts/NAME.json      which keys signed as whom, and since when (``contacts.py``)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import chain, contacts, kept, openpgp
from comity.secure.contacts import Contact, Contacts
from comity.secure.home import MAX_FILE, Home, default_home, file_name
from comity.secure.identity import Identity
from comity.secure.kept import Kept, KeyEntry
from comity.secure.keyfile import (
    certificate_pem,
    check_anchor,
    identity_pem,
    read_authority,
    read_certificates,
    read_crl,
    read_identity,
    write_pkcs12,
)
from comity.secure.own_keys import OwnKeys
from comity.secure.own_pgp import OwnPgp

__all__ = ["KeyEntry", "KeyStore", "default_home", "read_authority", "read_certificates"]

Shelf = Literal["anchors", "pinned", "known", "distrusted"]
SHELVES: tuple[Shelf, ...] = ("anchors", "pinned", "known", "distrusted")
PEM, PGP = ".pem", ".pgp"


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
        self.pgp = OwnPgp(self.home)

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

    def everything(self) -> list[Kept]:
        """All certificates here: own ones first, then old own ones, anchors, pins, known and distrusted ones."""
        own, pgp = self.own, self.pgp
        found = [
            kept.of_x509(certificate, "own", is_encrypted=own.is_encrypted(each))
            for each in own.addresses()
            for certificate in own.certificates(each)
        ]
        found += [
            kept.of_openpgp(pgp.certificate(each), "own", is_encrypted=pgp.is_encrypted(each))
            for each in pgp.addresses()
        ]
        found += [kept.of_x509(certificate, "old") for certificate in own.old_certificates()]
        found += [kept.of_openpgp(certificate, "old") for certificate in pgp.old_certificates()]
        for shelf in SHELVES:
            found += self.shelf(shelf)
        return found

    def entries(self) -> list[KeyEntry]:
        """Everything kept here, for a list."""
        return [each.entry for each in self.everything()]

    def shelf(self, shelf: Shelf) -> list[Kept]:
        """The certificates of one shelf, in the order of their fingerprints."""
        return [kept.of_x509(each, shelf) for each in self.certificates(shelf)] + [
            self.home.parsed(file, partial(kept.of_openpgp, shelf=shelf, fingerprint=file.name.removesuffix(PGP)))
            for file in self.home.files(shelf, PGP)
        ]

    def certificates(self, shelf: Shelf) -> list[x509.Certificate]:
        """The X.509 certificates of one shelf, in the order of their fingerprints."""
        return [c for file in self.home.files(shelf, PEM) for c in self.home.parsed(file, read_certificates)]

    def find(self, reference: str, technology: str = "") -> Kept:
        """The certificate with this fingerprint (or at least 16 of its first digits), or of this address.

        An address means the own certificate first, then a pinned one, then any other; of two that belong together, the one
        that signs; of an S/MIME and an OpenPGP one, the first.

        Args:
            reference: fingerprint (grouped or not) or address.
            technology: "smime" or "openpgp" to look among these only.
        """
        everything = [each for each in self.everything() if technology in ("", each.technology)]
        for shelves in (("own",), ("pinned",), ("anchors", "known"), ("old", "distrusted")):
            matches = {
                each.fingerprint: each
                for each in everything
                if each.entry.shelf in shelves and each.is_meant_by(reference)
            }
            meant = [each for each in matches.values() if not each.only_encrypts] or list(matches.values())
            if len(meant) > 1:
                meant = [each for each in meant if each.technology == "smime"]  # of one person's two, the usual one
            if len(meant) != 1 and matches:
                raise SecurityError(
                    f"More than one certificate here matches {reference[:128]!r}. Name one by its fingerprint; list them "
                    "with: comity keys list"
                )
            if meant:
                return meant[0]
        raise SecurityError(f"No certificate here matches {reference[:128]!r}. List them with: comity keys list")

    def show(self, reference: str) -> KeyEntry:
        """What is known of one certificate."""
        found = self.find(reference)
        history = self.contacts().of(found.entry.addresses[0]) if found.names else ()
        return replace(found.entry, history=history)

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
        if kept.is_openpgp(data):
            if is_anchor:
                raise SecurityError("OpenPGP knows no authorities. To trust this one certificate: comity keys trust")
            return self._import_openpgp(data, passphrase, new_passphrase)
        crl = read_crl(data)
        if crl is not None:
            self.keep_crl(crl)
            return []
        identity = None if is_anchor else read_identity(data, passphrase)
        if identity is not None:
            self.save(identity, new_passphrase)
            return [kept.of_x509(identity.certificate, "own", is_encrypted=bool(new_passphrase)).entry]
        found = read_certificates(data)
        own = None if is_anchor else self.own.join(found)
        if own is not None:
            return [self.find(chain.fingerprint(own)).entry]
        if is_anchor:
            for certificate in found:
                check_anchor(certificate)
        entries = [self.keep(kept.of_x509(each), "anchors" if is_anchor else None) for each in found]
        for entry in entries if is_anchor else ():
            self.home.remove("distrusted", entry.fingerprint + PEM)  # the user's last word counts
        return entries

    def keep(self, found: Kept, shelf: Shelf | None = None) -> KeyEntry:
        """Lay a certificate on ``shelf``; None: where it lies already, else with those that are only known."""
        lies: Shelf = next((each for each in SHELVES if self.home.exists(each, found.file_name)), "known")
        if shelf is None and lies == "pinned" and found.x509 is None:
            self._check_names(found)
        return self.put(shelf or lies, found)

    def _check_names(self, found: Kept) -> None:
        """Trust in somebody's key is trust in it for their addresses: its owner may not add others' unnoticed (M-36)."""
        before = kept.of_openpgp(self.home.read(self.path / "pinned" / found.file_name))
        after = kept.joined(before.octets, found)
        added = [address for address in after.contact_keys if address not in before.contact_keys]
        if added and not after.entry.is_revoked:
            raise SecurityError(
                f"You trust this key for {', '.join(before.contact_keys) or 'nobody'}; this version of it is for "
                f"{', '.join(added)} too. If that is right, take it in with: comity keys trust FILE"
            )

    def _import_openpgp(self, data: bytes, passphrase: bytes | None, new_passphrase: bytes | None) -> list[KeyEntry]:
        """Certificates are kept, and a newer version of a pinned one stays pinned; a private key becomes an own one."""
        if kept.is_private_openpgp(data):
            secret = (passphrase or b"").decode("utf-8", "surrogateescape")
            identity = openpgp.PgpIdentity.from_bytes(data, passphrase=secret)
            self.pgp.save(identity, new_passphrase)
            return [kept.of_openpgp(identity.certificate, "own", is_encrypted=bool(new_passphrase)).entry]
        return [self.keep(each) for each in kept.read(data)]

    def export(self, reference: str, technology: str = "") -> bytes:
        """A certificate as PEM, or as armored OpenPGP, to give to others; with that for encryption if it takes two."""
        found = self.find(reference, technology)
        if found.x509 is None:
            return kept.armored(found.octets)
        pairs = [self.own.certificates(each) for each in self.identities()]
        pair = next((pair for pair in pairs if pair[0] == found.x509), [found.x509])
        return certificate_pem(*pair)

    def export_private(
        self,
        address: Address,
        passphrase: bytes,
        *,
        old_passphrase: bytes | None = None,
        form: Literal["pkcs12", "pem", "openpgp"] = "pkcs12",
    ) -> bytes:
        """Key and certificates as PKCS#12 or PEM, always under a passphrase; OpenPGP as one of its own messages."""
        if not passphrase:
            raise SecurityError("A private key leaves only under a passphrase: give one.")
        if form == "openpgp":
            return self.pgp.load(address, old_passphrase).to_bytes(passphrase.decode("utf-8", "surrogateescape"))
        identity = self.load(address, old_passphrase)
        return write_pkcs12(identity, passphrase) if form == "pkcs12" else identity_pem(identity, passphrase)

    # --- trust ---

    def trust(self, what: bytes | str, *, when: datetime | None = None) -> KeyEntry:
        """Pin a certificate: a file's octets, or a fingerprint or address of one kept here.

        Args:
            what: which.
            when: aware UTC; from then on its key is the one its addresses are known by. None notes nothing.
        """
        others: list[Kept] = []
        if isinstance(what, str):
            found = self._candidate(what)
        else:
            others = kept.read(what)
            found = kept.principal(others)
        with self.home.locked():
            entry = self.put("pinned", found)
            for other in others:
                if other is not found:
                    self.put("known", other)  # for encryption; the pinned one vouches for it
            for shelf in ("distrusted", "known"):
                self.home.remove(shelf, found.file_name)
            if when is not None:
                for address in found.contact_keys:
                    new = Contact(address, found.key, found.fingerprint, when, "", found.technology, is_vouched=True)
                    self.write_contacts(address, contacts.accepted(self.contacts_of(address), new))
        return entry

    def _candidate(self, reference: str) -> Kept:
        """Which of others' certificates shall be trusted. Of who has a trusted one the new one is named by its fingerprint."""
        theirs = [each for each in self.everything() if each.entry.shelf not in ("own", "old")]
        meant = [each for each in theirs if each.is_meant_by(reference) and not each.only_encrypts]
        found = {each.fingerprint: each for each in meant}
        trusted = any(each.entry.shelf == "pinned" for each in meant)
        if len(found) == 1:
            return meant[0]
        if found and trusted:
            raise SecurityError(
                f"You trust a key of {reference[:128]} already. Name the new one by its fingerprint, once you have compared "
                "it: comity keys trust FINGERPRINT"
            )
        return self.find(reference)

    def distrust(self, what: bytes | str) -> KeyEntry:
        """Never trust a certificate again, nor anything it issued; taken off the other shelves."""
        found = self.find(what) if isinstance(what, str) else kept.principal(kept.read(what))
        with self.home.locked():
            entry = self.put("distrusted", found)
            for shelf in SHELVES[:3]:
                self.home.remove(shelf, found.file_name)
            for address in found.contact_keys:
                before = self.contacts_of(address)
                after = contacts.dropped(before, found.key)
                if after != before:
                    self.write_contacts(address, after)
        return entry

    def trust_store(self, sip_vouches_for: frozenset[str] = frozenset()) -> chain.TrustStore:
        """What ``verify`` takes: everything kept here. Own certificates are pinned."""
        memory = self.contacts()
        own = [self.own.certificate(address) for address in self.identities()]
        own_pgp = [self.pgp.certificate(address) for address in self.pgp.addresses()]
        distrusted = [*map(chain.fingerprint, self.certificates("distrusted"))]
        distrusted += [file.name.removesuffix(PGP) for file in self.home.files("distrusted", PGP)]
        return chain.TrustStore(
            anchors=tuple(self.certificates("anchors")),
            pinned=(*own, *self.certificates("pinned")),
            known=(*self.certificates("known"), *self.own.old_certificates()),
            crls=tuple(self.crls()),
            distrusted=frozenset(distrusted),
            sip_vouches_for=sip_vouches_for,
            openpgp_pinned=(*own_pgp, *map(self.home.read, self.home.files("pinned", PGP))),
            openpgp_known=(*self.pgp.old_certificates(), *map(self.home.read, self.home.files("known", PGP))),
            contacts=memory.kept(),
            unproved=memory.unproved(),
        )

    def version(self) -> tuple[int, ...]:
        """Differs once anything that ``trust_store`` reads was changed, by whatever process."""
        return self.home.version("keys", "keys/openpgp", *SHELVES, "crls", "contacts")

    # --- memory; who writes it after a verdict is remembering.py ---

    def contacts(self) -> Contacts:
        """Which keys signed as whom."""
        found: dict[str, tuple[Contact, ...]] = {}
        for file in self.home.files("contacts", ".json"):
            rows = contacts.from_json(self.home.read(file), str(file))
            if rows:
                found[rows[0].address] = rows
        return Contacts(found)

    def remember(self, certificate: bytes) -> None:
        """Keep a correspondent's certificate without trusting it (RFC 3923 section 6.2: "store and protect")."""
        self.put("known", kept.principal(kept.read(certificate)))

    def contacts_of(self, address: str) -> tuple[Contact, ...]:
        """Which keys signed as one address (``identity.contact_key``)."""
        file = self.path / "contacts" / _contact_file(address)
        return contacts.from_json(self.home.read(file), str(file)) if file.exists() else ()

    def write_contacts(self, address: str, rows: tuple[Contact, ...]) -> None:
        """Keep what is remembered of one address; the caller holds the lock in which it read it."""
        self.home.write("contacts", _contact_file(address), contacts.to_json(rows))

    # --- lists ---

    def keep_crl(self, crl: x509.CertificateRevocationList) -> None:
        """Keep a revocation list; ``verify`` asks whether its issuer signed it."""
        name = hashlib.sha256(crl.public_bytes(serialization.Encoding.DER)).hexdigest()
        self.home.write("crls", name + PEM, crl.public_bytes(serialization.Encoding.PEM))

    def crls(self) -> Iterator[x509.CertificateRevocationList]:
        """The revocation lists kept here."""
        for file in self.home.files("crls", PEM):
            try:
                yield x509.load_pem_x509_crl(self.home.read(file))
            except chain.CERTIFICATE_ERRORS as error:
                raise SecurityError(f"{file} is damaged: it is no revocation list. Import it again.") from error

    def put(self, shelf: Shelf, certificate: Kept | x509.Certificate) -> KeyEntry:
        """Lay a certificate on a shelf."""
        found = kept.of_x509(certificate) if isinstance(certificate, x509.Certificate) else certificate
        for each in SHELVES:
            if found.x509 is None and self.home.exists(each, found.file_name):
                found = kept.joined(self.home.read(self.path / each / found.file_name), found)
        self.home.write(shelf, found.file_name, found.file_octets)
        return replace(found.entry, shelf=shelf, is_encrypted=False)


def _contact_file(address: str) -> str:
    return file_name(Address.parse(address)) + ".json"

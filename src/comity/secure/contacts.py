"""Which keys signed as whom before: the memory that makes a changed key show (reliability.md T33; RFC 3923 section 6.2).

Place on the path: ``verifying.verify`` has it as ``TrustStore.contacts``; ``KeyStore.note`` writes it after a verdict, once a
signature held. It is a memory, not a trust: the first key seen for an address is remembered, and still
nobody vouches for it. The rule its readers must keep: a key that differs is announced and waits for the user's word
(``comity keys trust``); it never takes the place of the one before by itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from comity.errors import SecurityError
from comity.secure.identity import contact_key

MAX_KEYS = 32
"""Keys remembered for one address; a stranger who makes a new one each minute fills no disk."""


class Standing(StrEnum):
    """How a signer's key stands to what was seen before."""

    FIRST = "first"
    """Nobody signed as this address before, as far as we remember."""
    SAME = "same"
    CHANGED = "changed"
    """Another key signed as this address before: announce it (T33)."""


@dataclass(frozen=True, slots=True)
class Contact:
    """One key that signed as one address."""

    address: str
    """The im: URI, in canonical form."""
    key: str
    """What a renewed certificate keeps: SHA-256 of the public key (X.509), or the OpenPGP fingerprint; lower-case hex."""
    fingerprint: str
    """Of the certificate it came with first; lower-case hex."""
    since: datetime
    """When it was first seen, aware UTC."""
    protocol: str = ""
    """By which it came first: "sip", "xmpp", "" if from a file."""
    technology: str = "smime"
    """"smime" or "openpgp"."""
    is_accepted: bool = True
    """False for a changed key until the user trusts it."""
    is_vouched: bool = False
    """True if an authority or a pin stood behind it when it was noted."""
    capabilities: tuple[str, ...] = ()
    """Ciphers it announced last, preferred first (RFC 8551 section 2.7.1); () if none are known."""
    reader: str = ""
    """Fingerprint of the certificate for encryption that it came with first, if its own can only sign."""


@dataclass(frozen=True, slots=True)
class Contacts:
    """Everything remembered, by address; a value, so that a verdict does not depend on when it is asked."""

    by_address: Mapping[str, tuple[Contact, ...]] = field(default_factory=dict)

    def of(self, address: str) -> tuple[Contact, ...]:
        """The keys that signed as an address (any of its URIs), oldest first."""
        return self.by_address.get(contact_key(address), ())

    def kept(self) -> dict[str, frozenset[str]]:
        """For ``TrustStore.contacts``: of each address the accepted keys, and the fingerprints they came with."""
        return {
            address: frozenset(name for c in contacts if c.is_accepted for name in (c.fingerprint, c.key))
            for address, contacts in self.by_address.items()
        }

    def unproved(self) -> frozenset[str]:
        """For ``TrustStore.unproved``: those of ``kept`` that nobody ever vouched for."""
        rows = (c for contacts in self.by_address.values() for c in contacts if c.is_accepted and not c.is_vouched)
        return frozenset(name for contact in rows for name in (contact.fingerprint, contact.key))

    def find(self, address: str, key: str) -> Contact | None:
        """What is remembered of one key of one address."""
        return next((contact for contact in self.of(address) if contact.key == key), None)

    def standing(self, address: str, key: str, *, is_vouched: bool = False) -> Standing:
        """Compare a key that signs as ``address`` now with those that did before.

        Args:
            address: whom it signs as: the From that its certificate proves.
            key: ``key_of`` its certificate.
            is_vouched: True if the signer is trusted now. Somebody's first vouched key is not called changed because
                an unproved one came before it: else a stranger's message would spoil the real one's.
        """
        contacts = self.of(address)
        if any(contact.key == key and contact.is_accepted for contact in contacts):
            return Standing.SAME
        rivals = [contact for contact in contacts if contact.key != key or not contact.is_accepted]
        if is_vouched:
            rivals = [contact for contact in rivals if contact.is_vouched]
        return Standing.CHANGED if rivals else Standing.FIRST

    def text(self, address: str, key: str, *, is_vouched: bool = False) -> str:
        """The standing in a few words for a person, such as "same key as since 2026-11-01"."""
        match self.standing(address, key, is_vouched=is_vouched):
            case Standing.FIRST:
                return "first contact" if not self.of(address) else "first key that somebody you trust vouches for"
            case Standing.SAME:
                found = self.find(address, key)
                assert found is not None
                return f"same key as since {found.since:%Y-%m-%d}"
            case Standing.CHANGED:
                before = next((c for c in reversed(self.of(address)) if c.is_accepted and c.key != key), None)
                if before is None:
                    return "changed key, not confirmed by you"
                return f"changed key: since {before.since:%Y-%m-%d} it was {before.fingerprint[:16]}"


def key_of(certificate: bytes | x509.Certificate, technology: str = "smime", fingerprint: str = "") -> str:
    """What identifies the key of a signer, whatever certificate it comes in; see ``Contact.key``.

    Args:
        certificate: X.509 (DER is enough), or OpenPGP packets.
        technology: "smime" or "openpgp".
        fingerprint: of an OpenPGP certificate: the answer, for its fingerprint is that of the primary key.
    """
    if technology == "openpgp":
        return fingerprint
    try:
        loaded = x509.load_der_x509_certificate(certificate) if isinstance(certificate, bytes) else certificate
        octets = loaded.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SecurityError("This is not a certificate that can be read.") from error
    return hashlib.sha256(octets).hexdigest()


def noted(contacts: tuple[Contact, ...], new: Contact) -> tuple[Contact, ...]:
    """The keys of one address with ``new`` noted: the first is accepted, a changed one waits for the user.

    A key somebody trusted vouches for takes the place of those nobody ever vouched for; see ``Contacts.standing``.
    """
    known = next((contact for contact in contacts if contact.key == new.key), None)
    if known is not None and known.is_accepted and (known.is_vouched or not new.is_vouched):
        if not new.capabilities or new.capabilities == known.capabilities:
            return contacts
        updated = replace(known, capabilities=new.capabilities)
        return tuple(updated if contact.key == new.key else contact for contact in contacts)
    standing = Contacts({new.address: contacts}).standing(new.address, new.key, is_vouched=new.is_vouched)
    if known is not None and standing is Standing.CHANGED:
        return contacts
    if standing is Standing.CHANGED:
        return _bounded((*contacts, replace(new, is_accepted=False, is_vouched=False)))
    entry = replace(known or new, is_accepted=True, is_vouched=new.is_vouched, capabilities=new.capabilities)
    others = [replace(c, is_accepted=c.is_accepted and c.is_vouched) for c in contacts if c.key != new.key]
    return _bounded((*others, entry))


def accepted(contacts: tuple[Contact, ...], new: Contact) -> tuple[Contact, ...]:
    """The keys of one address after the user trusted ``new``; the others stay as they were (a person has two devices)."""
    known = next((contact for contact in contacts if contact.key == new.key), new)
    entry = replace(known, is_accepted=True, is_vouched=True)
    return _bounded((*(contact for contact in contacts if contact.key != new.key), entry))


def dropped(contacts: tuple[Contact, ...], key: str) -> tuple[Contact, ...]:
    """The keys of one address after the user distrusted ``key``: remembered, so that the next one still shows as changed."""
    return tuple(replace(c, is_accepted=False) if c.key == key else c for c in contacts)


def _bounded(contacts: tuple[Contact, ...]) -> tuple[Contact, ...]:
    """Keep what was accepted, and of the rest the oldest: the latest stranger is the one to forget."""
    if len(contacts) <= MAX_KEYS:
        return contacts
    waiting = [contact for contact in contacts if not contact.is_accepted]
    kept = waiting[: max(0, MAX_KEYS - (len(contacts) - len(waiting)))]
    return tuple(contact for contact in contacts if contact.is_accepted or contact in kept)


def to_json(contacts: tuple[Contact, ...]) -> bytes:
    """The file of one address."""
    rows = [{**asdict(contact), "since": contact.since.isoformat()} for contact in contacts]
    return json.dumps({"contacts": rows}, indent=1, ensure_ascii=False).encode() + b"\n"


def from_json(data: bytes, what: str) -> tuple[Contact, ...]:
    """Read the file of one address; ``what`` is its name in the sentence of an error.

    Raises:
        SecurityError: it is damaged; forgetting it silently would let a changed key pass for a first one.
    """
    try:
        rows = json.loads(data)["contacts"]
        return tuple(
            Contact(
                **{**row, "since": datetime.fromisoformat(row["since"]), "capabilities": tuple(row["capabilities"])}
            )
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise SecurityError(
            f"{what} is damaged: which keys were seen before is not known. Restore or remove it."
        ) from error

"""OpenPGP: make keys, sign, encrypt and open (RFC 9580 and RFC 4880 through pysequoia; the MIME around it is RFC 3156).

Place on the path: beside ``smime.py``, below ``signing.py``, ``sealing.py``, ``opening.py`` and ``verifying.py``, which come here
only; ``openpgp_verify.py``, ``openpgp_certs.py`` and ``openpgp_packets.py`` do the reading. The base install has no pysequoia:
this module imports without it, ``is_available`` is False, and what needs it raises ``NotInstalled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from comity.cpim.address import Address, to_jid, to_sip_uri
from comity.errors import AddressError, MalformedMessage, SecurityError
from comity.secure import openpgp_packets as wire
from comity.secure.chain import TrustStore
from comity.secure.evidence import Opened, Signer, TooLarge
from comity.secure.identity import END_ENTITY_DAYS
from comity.secure.openpgp_certs import (
    MAX_CERTIFICATE,
    PgpCertificate,
    encrypts_until,
    load,
    merged,
    read_certificates,
    split_keys,
)
from comity.secure.openpgp_crypto import secret_keys
from comity.secure.openpgp_facts import NotInstalled, Refused, ask, is_available
from comity.secure.openpgp_open import open_octets
from comity.secure.openpgp_unlock import WrongPassphrase, is_locked, unlock
from comity.secure.openpgp_verify import digests_of, signers_of

if is_available:
    import pysequoia

__all__ = [
    "PgpCertificate",
    "PgpIdentity",
    "WrongPassphrase",
    "digests_of",
    "is_available",
    "merged",
    "new_identity",
    "open_message",
    "open_octets",
    "read_certificates",
    "read_identity",
    "revoke",
    "seal",
    "sign_detached",
    "signers_of",
]


@dataclass(frozen=True, slots=True)
class PgpIdentity:
    """A private OpenPGP key with its certificate: what signs and opens."""

    address: Address
    fingerprint: str
    """Lower-case hex, of the primary key."""
    secret: bytes = field(repr=False)
    """Binary packets with the private keys in the clear: whoever stores them encrypts them (``to_bytes``)."""
    certificate: bytes = field(repr=False)
    """Binary packets, for others."""

    def to_bytes(self, passphrase: str = "") -> bytes:
        """The private key for a file: an OpenPGP message under ``passphrase`` (gpg -d opens it); in the clear without."""
        if not passphrase:
            return self.secret
        return bytes(ask(lambda: pysequoia.encrypt(self.secret, passwords=[passphrase])))

    @classmethod
    def from_bytes(cls, data: bytes, address: Address | None = None, passphrase: str = "") -> PgpIdentity:
        """Read what ``to_bytes`` wrote, or a private key that another program exported, under a passphrase or not.

        Raises:
            WrongPassphrase: the passphrase is wrong, or one is needed.
            SecurityError: it is no private key that can be used.
        """
        if not is_available:
            raise NotInstalled
        if len(data) > MAX_KEY_FILE:
            raise TooLarge("the file is too large to be an OpenPGP key")
        if not _is_message(data):
            return read_identity(data, address, passphrase)
        try:
            opened = ask(lambda: pysequoia.decrypt(data, passwords=[passphrase])).bytes or b""
        except Refused:
            raise WrongPassphrase(
                "The OpenPGP key cannot be opened: the passphrase is wrong, or the file is damaged."
            ) from None
        return read_identity(opened, address)


MAX_KEY_FILE = 4 * MAX_CERTIFICATE


def _is_message(data: bytes) -> bool:
    """True for an encrypted message, as ``to_bytes`` writes; anything else is read as a key."""
    try:
        packets = wire.read_packets(wire.dearmor(data, (b"MESSAGE",)))
    except MalformedMessage:
        return False
    return bool(packets) and packets[0].tag == wire.SKESK


def new_identity(address: Address, *, when: datetime, days: int = END_ENTITY_DAYS) -> PgpIdentity:
    """Make an OpenPGP key for ``address``: Ed25519 signs, X25519 decrypts, in the packets of RFC 4880 that gpg 2.2 reads.

    Args:
        address: whom it names; its im:, pres:, sip: and xmpp: URIs become User IDs.
        when: aware UTC; the end of validity counts from here (its beginning is the machine's clock).
        days: how long it is valid.
    """
    if not is_available:
        raise NotInstalled
    uris = [address.with_scheme("im").uri, address.with_scheme("pres").uri, to_sip_uri(address)]
    try:
        uris.append(f"xmpp:{to_jid(address)}")
    except AddressError:
        pass  # RFC 7622 has no localpart for this name: it has no XMPP address to prove
    seconds = int((when + timedelta(days=days) - datetime.now(UTC)).total_seconds()) + 60  # keys begin a minute early
    if seconds <= 60:
        raise SecurityError("A key that has expired already is not made.")
    tsk = ask(
        lambda: pysequoia.Tsk.generate(user_ids=uris, profile=pysequoia.Profile.RFC4880, validity_seconds=seconds)
    )
    return _identity(bytes(tsk), address)


def read_identity(data: bytes, address: Address | None = None, passphrase: str = "") -> PgpIdentity:
    """Read a private key, binary or armored.

    Args:
        data: one key, with all its packets.
        address: whose it is; None takes the first it names.
        passphrase: of the key itself, as gpg exports it; the result has it in the clear.

    Raises:
        WrongPassphrase: it needs a passphrase, or another one.
        SecurityError: it is no usable private key, or names no address.
    """
    if not is_available:
        raise NotInstalled
    if len(data) > MAX_KEY_FILE:
        raise TooLarge("the file is too large to be an OpenPGP key")
    try:
        pieces = list(split_keys(wire.dearmor(data, (b"PRIVATE KEY BLOCK",))))
        if len(pieces) != 1 or wire.read_packets(pieces[0])[0].tag != wire.SECRET_KEY:
            raise SecurityError("The file does not hold exactly one private OpenPGP key.")
        if is_locked(pieces[0]):
            if not passphrase:
                raise WrongPassphrase("The OpenPGP key is under a passphrase: give it.")
            pieces[0] = unlock(pieces[0], passphrase.encode("utf-8", "surrogateescape"))
        return _identity(pieces[0], address)
    except (MalformedMessage, Refused) as error:
        raise SecurityError(f"This is no private OpenPGP key that can be used: {error}.") from error


def _identity(secret: bytes, address: Address | None) -> PgpIdentity:
    public = ask(lambda: bytes(pysequoia.Tsk.from_bytes(secret).extract_certificate()))
    certificate = load(public)
    if not secret_keys(secret):
        _signer(secret)  # neither reads nor signs: fails now, not at the first message. An expired key still reads.
    if address is None:
        name = min(certificate.names, key=lambda name: name.scheme != "im", default=None)
        if name is None:
            raise SecurityError("The OpenPGP key names no address (no User ID such as im:alice@example.org).")
        address = Address("im", name.local, name.domain)
    return PgpIdentity(address.with_scheme("im"), certificate.fingerprint, secret, certificate.octets)


@lru_cache(maxsize=16)
def _signer(secret: bytes) -> pysequoia.PySigner:
    return ask(lambda: pysequoia.Tsk.from_bytes(secret).signer())


def revoke(identity: PgpIdentity) -> bytes:
    """The certificate with its revocation, to give to everybody (binary packets)."""
    tsk = ask(lambda: pysequoia.Tsk.from_bytes(identity.secret))
    cert = ask(tsk.extract_certificate)
    revocation = ask(lambda: bytes(cert.revoke(tsk.certifier())))
    packets = wire.read_packets(identity.certificate)
    return packets[0].raw + revocation + b"".join(packet.raw for packet in packets[1:])


def sign_detached(content: bytes, identity: PgpIdentity) -> bytes:
    """Sign exactly ``content``, as a binary document; gives an ASCII-armored signature with SHA-512.

    Raises:
        SecurityError: the key is expired or revoked, or OpenPGP is not installed.
    """
    try:
        signer = _signer(identity.secret)
        return bytes(ask(lambda: pysequoia.sign(signer, content, mode=pysequoia.SignatureMode.DETACHED)))
    except Refused as error:
        raise SecurityError(f"The OpenPGP key of {identity.address} cannot sign: it is expired or revoked.") from error


def seal(entity: bytes, recipients: Sequence[bytes], signer: PgpIdentity | None = None, *, when: datetime) -> bytes:
    """Encrypt for ``recipients``, and sign inside if there is a ``signer`` (RFC 3156 section 6.2); gives ASCII armor.

    The data is integrity-protected in any case: version 2 (AES-256-OCB) if all recipients' certificates say they take it,
    else version 1 with its MDC, which gpg 2.2 reads.

    Args:
        entity: the octets to encrypt; with a signer 7 bits wide (``openpgp_mime.seven_bit``).
        recipients: their certificates, binary packets.
        signer: who signs, None leaves it unsigned.
        when: aware UTC: no recipient's certificate may have ended then.

    Raises:
        SecurityError: a recipient's certificate is expired, revoked or has no key to encrypt to.
    """
    if not is_available:
        raise NotInstalled
    if not recipients:
        raise SecurityError("There is nobody to encrypt for.")
    for octets in recipients:
        _check_recipient(octets, when)
    certs = ask(lambda: [pysequoia.Cert.from_bytes(octets) for octets in recipients])
    own = None if signer is None else _signer(signer.secret)
    try:
        return bytes(ask(lambda: pysequoia.encrypt(entity, recipients=certs, signer=own)))
    except Refused as error:
        raise SecurityError("An OpenPGP certificate of a recipient has no key to encrypt to.") from error


def _check_recipient(octets: bytes, when: datetime) -> None:
    """pysequoia takes an expired key where there is no other; a message for one that somebody may have found is none."""
    try:
        certificate = load(octets)
    except (MalformedMessage, Refused) as error:
        raise SecurityError("The OpenPGP certificate of a recipient cannot be read.") from error
    if certificate.is_revoked:
        raise SecurityError(f"The OpenPGP key of {certificate.title} was revoked: nothing is encrypted for it.")
    ends = [end for end in (certificate.expires, encrypts_until(certificate)) if end is not None]
    if ends and min(ends) <= when:
        text = f"The OpenPGP key of {certificate.title} expired on {min(ends):%Y-%m-%d}"
        raise SecurityError(f"{text}: nothing is encrypted for it.")


def open_message(
    octets: bytes, identities: Sequence[PgpIdentity], trust: TrustStore, now: datetime
) -> tuple[Opened, tuple[Signer, ...]]:
    """Open a message and check the signatures inside it, if any.

    Raises:
        MalformedMessage, NoKey, DecryptionFailed: as ``open_octets``.
        SignatureFailed, UnknownAlgorithm, UnknownSigner, TooLarge: as ``signers_of``.
    """
    opened = open_octets(octets, identities)
    if not opened.signatures:
        return opened, ()
    return opened, signers_of(opened.entity, opened.signatures, trust, now)

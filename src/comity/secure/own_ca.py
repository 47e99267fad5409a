"""One's own certification authority under ``COMITY_HOME``, and revoking what it or a key itself issued (RFC 5280 section 5).

Place on the path: beside it; ``comity keys new --own-ca`` and ``comity keys revoke`` use it. One file, ``ca/own.pem``: the key,
then the certificate. A list names everything its issuer revoked before, for readers keep the newest one only.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.errors import SecurityError
from comity.secure import chain
from comity.secure.home import Home
from comity.secure.identity import LocalCa, PrivateKey, hash_for
from comity.secure.keyfile import certificate_pem, is_encrypted, key_pem, load_key, read_certificates

FOLDER, FILE = "ca", "own.pem"
LIST_DAYS = 365
"""How long a list says it holds; a reader that wants a newer one afterwards asks for it."""

Reason = Literal["unspecified", "key-compromise", "superseded", "ceased", "affiliation"]
REASONS: tuple[Reason, ...] = get_args(Reason)
_FLAGS = {
    "key-compromise": x509.ReasonFlags.key_compromise,
    "superseded": x509.ReasonFlags.superseded,
    "ceased": x509.ReasonFlags.cessation_of_operation,
    "affiliation": x509.ReasonFlags.affiliation_changed,
}


class OwnCa:
    """The authority in a home; every method raises SecurityError with a sentence."""

    def __init__(self, home: Home) -> None:
        self._home = home

    @property
    def exists(self) -> bool:
        return self._home.exists(FOLDER, FILE)

    @property
    def is_encrypted(self) -> bool:
        """True if its key is under a passphrase."""
        return is_encrypted(self._data())

    @property
    def certificate(self) -> x509.Certificate:
        return read_certificates(self._data())[0]

    def create(self, name: str, *, when: datetime, passphrase: bytes | None) -> LocalCa:
        """Make one; ``name`` is its common name, such as "Comity CA of alice@example.org"."""
        authority = LocalCa.create(name[:64], when=when)
        data = key_pem(authority.key, passphrase) + certificate_pem(authority.certificate)
        with self._home.locked():
            if self.exists:
                raise SecurityError("There is an own authority already.")
            self._home.write(FOLDER, FILE, data)
        return authority

    def open(self, passphrase: bytes | None) -> LocalCa:
        """Read it, to issue or to revoke."""
        data = self._data()
        return LocalCa(load_key(data, passphrase, "your authority"), read_certificates(data)[0])

    def change_passphrase(self, old: bytes | None, new: bytes | None) -> None:
        """Put its key under another passphrase; None takes it off."""
        with self._home.locked():
            authority = self.open(old)
            self._home.write(FOLDER, FILE, key_pem(authority.key, new) + certificate_pem(authority.certificate))

    def _data(self) -> bytes:
        if not self.exists:
            raise SecurityError("There is no own authority. Make one with: comity keys new ADDRESS --own-ca")
        return self._home.read(self._home.path / FOLDER / FILE)


def revocation_list(
    issuer: x509.Certificate,
    key: PrivateKey,
    revoked: x509.Certificate,
    *,
    when: datetime,
    reason: Reason = "unspecified",
    earlier: Iterable[x509.CertificateRevocationList] = (),
) -> x509.CertificateRevocationList:
    """A list of ``issuer`` that names ``revoked`` and everything its ``earlier`` lists named.

    Args:
        issuer: who issued ``revoked``; itself, if it is self-signed.
        key: the issuer's.
        revoked: what is trusted no more.
        when: aware UTC, from when on.
        reason: why.
        earlier: lists kept so far, of whatever issuer.
    """
    if revoked.issuer != issuer.subject:
        name, other = chain.display_name(revoked), chain.display_name(issuer)
        raise SecurityError(f"{name} was not issued by {other}: only its issuer can revoke it.")
    usage = chain.extension_of(issuer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        raise SecurityError(
            f"The certificate of {chain.display_name(issuer)} may not sign revocation lists. Make a new key with "
            "--replace, and tell your correspondents: comity keys distrust."
        )
    entries: dict[int, x509.RevokedCertificate] = {}
    number = 0
    for crl in earlier:
        if crl.issuer == issuer.subject and crl.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]  # ours: EC, RSA or Ed25519
            entries.update({entry.serial_number: entry for entry in crl})
            number = max(number, _number(crl))
    builder = x509.RevokedCertificateBuilder().serial_number(revoked.serial_number).revocation_date(when)
    if reason in _FLAGS:
        builder = builder.add_extension(x509.CRLReason(_FLAGS[reason]), critical=False)
    entries.setdefault(revoked.serial_number, builder.build())
    written = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(when)
        .next_update(when + timedelta(days=LIST_DAYS))
        .add_extension(x509.CRLNumber(number + 1), critical=False)
    )
    for entry in entries.values():
        written = written.add_revoked_certificate(entry)
    return written.sign(key, hash_for(key))


def crl_pem(crl: x509.CertificateRevocationList) -> bytes:
    """A list as PEM, to give to others."""
    return crl.public_bytes(serialization.Encoding.PEM)


def _number(crl: x509.CertificateRevocationList) -> int:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return 0

"""Revocation lists: what those at hand say of one certificate (RFC 5280 section 5 and 6.3, RFC 8550 section 4.2).

Place on the path: asked by ``chain.py`` for each certificate of a path. Lists come along with messages or are imported;
nothing is fetched. The rules its readers must keep: only a list signed by who may sign it counts; what is revoked for
good stays so however old the list; and a list that is out of date says so, instead of looking like "not revoked".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509 import ReasonFlags
from cryptography.x509.oid import CRLEntryExtensionOID, ExtensionOID

from comity.secure.certificates import CERTIFICATE_ERRORS, display_issuer, extension_of, is_issued_by, key_problem

_EVALUATED = frozenset(
    {
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_NUMBER,
        ExtensionOID.DELTA_CRL_INDICATOR,
        ExtensionOID.ISSUING_DISTRIBUTION_POINT,
        ExtensionOID.FRESHEST_CRL,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
    }
)
_EVALUATED_IN_ENTRIES = frozenset(
    {CRLEntryExtensionOID.CRL_REASON, CRLEntryExtensionOID.INVALIDITY_DATE, CRLEntryExtensionOID.CERTIFICATE_ISSUER}
)
_REASONS = {
    ReasonFlags.key_compromise: "its key was compromised",
    ReasonFlags.ca_compromise: "its authority was compromised",
    ReasonFlags.affiliation_changed: "its owner has left",
    ReasonFlags.superseded: "it was replaced",
    ReasonFlags.cessation_of_operation: "it is no longer used",
    ReasonFlags.certificate_hold: "it is on hold",
    ReasonFlags.privilege_withdrawn: "its rights were withdrawn",
    ReasonFlags.aa_compromise: "its authority was compromised",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """What the lists say of one certificate."""

    revoked: str = ""
    """The rest of a sentence that begins with the certificate; "" if it is not revoked as far as the lists say."""
    remark: str = ""
    """A sentence about the lists themselves; "" if nothing is wrong with them, or there are none."""


NOTHING_SAID = Standing()


def standing(
    certificate: x509.Certificate,
    lists: Iterable[x509.CertificateRevocationList],
    now: datetime,
    *,
    issuers: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    others: Sequence[x509.Certificate],
) -> Standing:
    """Look a certificate up.

    Args:
        certificate: which one.
        lists: whatever is at hand, of anybody.
        now: aware UTC.
        issuers: certificates of its issuer; their key signs its lists.
        authorities: those above it, trusted or on the way there; they may name another to sign indirect lists.
        others: where that other one's certificate may be found.
    """
    found = [read for crl in lists if (read := _read(crl, certificate, issuers, authorities, others)) is not None]
    found.sort(key=lambda read: read.since, reverse=True)
    is_released = False
    """True once a newer list shows that an older "on hold" was lifted."""
    for read in found:
        entry = read.entry
        if entry is None:
            is_released |= read.is_complete
            continue
        reason = _reason(entry)
        if reason is ReasonFlags.remove_from_crl:
            is_released = True
        elif not (reason is ReasonFlags.certificate_hold and is_released):
            why = f": {_REASONS[reason]}" if reason in _REASONS else ""
            return Standing(f"has been revoked by its issuer on {entry.revocation_date_utc:%Y-%m-%d}{why}")
    return Standing(remark=_remark(certificate, [read.crl for read in found if read.is_complete], now))


def _remark(certificate: x509.Certificate, complete: Sequence[x509.CertificateRevocationList], now: datetime) -> str:
    """Say that the newest list is out of date; lists are not demanded, so none at all is no remark."""
    if not complete:
        return ""
    ends = [crl.next_update_utc for crl in complete]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends) or max(known) >= now:
        return ""
    issuer = display_issuer(certificate)
    return f"The revocation list of {issuer} is out of date since {max(known):%Y-%m-%d}: what was revoked later is not known"


@dataclass(frozen=True, slots=True)
class _Read:
    """One list that speaks about a certificate."""

    crl: x509.CertificateRevocationList
    since: datetime
    entry: x509.RevokedCertificate | None
    is_complete: bool
    """True if the certificate would stand in it, were it revoked."""


def _read(
    crl: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuers: Sequence[x509.Certificate],
    authorities: Sequence[x509.Certificate],
    others: Sequence[x509.Certificate],
) -> _Read | None:
    """Read one list; None if it is not about this certificate, not to be believed, or not to be understood."""
    try:
        if crl.issuer == certificate.issuer:
            # Anybody can make a certificate with the issuer's name: it speaks for it only if it issued this one.
            signers: Iterable[x509.Certificate] = (
                c for c in issuers if c.subject == crl.issuer and (c in authorities or is_issued_by(certificate, c))
            )
        elif crl.issuer in _named_signers(certificate):
            signers = _appointed(crl.issuer, authorities, others)
        else:
            return None
        if any(extension.critical and extension.oid not in _EVALUATED for extension in crl.extensions):
            return None  # RFC 5280 section 5.2: "MUST NOT use that CRL to determine the status of certificates"
        scope = _list_extension(crl)
        is_indirect = scope is not None and scope.indirect_crl
        if crl.issuer != certificate.issuer and not is_indirect:
            return None
        entry = (
            _entry_of_another(crl, certificate)
            if is_indirect
            else crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        )
        if entry is not None and any(e.critical and e.oid not in _EVALUATED_IN_ENTRIES for e in entry.extensions):
            return None
        if not any(_is_signed(crl, signer) for signer in signers):
            return None
        return _Read(crl, crl.last_update_utc, entry, _is_complete(crl, scope, certificate))
    except CERTIFICATE_ERRORS:
        return None  # a list we cannot read revokes nothing


def _list_extension(crl: x509.CertificateRevocationList) -> x509.IssuingDistributionPoint | None:
    try:
        return crl.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return None


def _is_complete(
    crl: x509.CertificateRevocationList, scope: x509.IssuingDistributionPoint | None, certificate: x509.Certificate
) -> bool:
    """True if silence of the list means "not revoked": no delta, and the certificate in its scope."""
    if any(extension.oid == ExtensionOID.DELTA_CRL_INDICATOR for extension in crl.extensions):
        return False
    if scope is None:
        return True
    constraints = extension_of(certificate, x509.BasicConstraints)
    is_ca = constraints is not None and constraints.ca
    is_in_scope = not (scope.only_contains_user_certs and is_ca) and not (scope.only_contains_ca_certs and not is_ca)
    is_whole = scope.full_name is None and scope.relative_name is None and not scope.only_some_reasons
    return is_in_scope and is_whole and not scope.only_contains_attribute_certs


def _entry_of_another(
    crl: x509.CertificateRevocationList, certificate: x509.Certificate
) -> x509.RevokedCertificate | None:
    """Find the certificate in an indirect list: an entry is of the issuer last named, at first of the list's own
    (RFC 5280 section 5.3.3). A number alone would be somebody else's."""
    if crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None:
        return None  # nearly always, and quick however long the list
    issuer = crl.issuer
    for entry in crl:
        try:
            named = entry.extensions.get_extension_for_class(x509.CertificateIssuer).value
            issuer = next((n.value for n in named if isinstance(n, x509.DirectoryName)), issuer)
        except x509.ExtensionNotFound:
            pass
        if entry.serial_number == certificate.serial_number and issuer == certificate.issuer:
            return entry
    return None


def _named_signers(certificate: x509.Certificate) -> list[x509.Name]:
    """Who else may sign its lists, by its cRLDistributionPoints (RFC 5280 section 4.2.1.13)."""
    points = extension_of(certificate, x509.CRLDistributionPoints)
    return [
        name.value for point in points or () for name in point.crl_issuer or () if isinstance(name, x509.DirectoryName)
    ]


def _appointed(
    name: x509.Name, authorities: Sequence[x509.Certificate], others: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """Certificates of ``name`` that are trusted, or issued by an authority of the path."""
    return [
        found
        for found in (*authorities, *others)
        if found.subject == name and (found in authorities or any(is_issued_by(found, a) for a in authorities))
    ]


def _is_signed(crl: x509.CertificateRevocationList, signer: x509.Certificate) -> bool:
    usage = extension_of(signer, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        return False
    key = signer.public_key()
    usual = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
    if not isinstance(key, usual) or key_problem(key):
        return False
    try:
        return crl.is_signature_valid(key)
    except (InvalidSignature, *CERTIFICATE_ERRORS):
        return False


def _reason(entry: x509.RevokedCertificate) -> ReasonFlags | None:
    try:
        return entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        return None

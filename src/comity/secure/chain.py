"""Certification paths: from a signer's certificate to a trust anchor (RFC 8550 section 4, RFC 5280 section 6).

Place on the path: called by ``smime.py`` once a signature is known to be good; gives ``ChainResult``, a value with
a sentence. Distrust is never an exception and never ``bad-signature`` (SEC-21). ``cryptography.x509.verification``
is not used: it takes DNS names and IP addresses as subjects only, demands extensions that published S/MIME
certificates lack (those of RFC 8591 have none but a subjectAltName), and gives no separate reasons.

What is not evaluated is refused: name constraints and unknown critical extensions make a path untrusted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from comity.secure.certificates import (
    CERTIFICATE_ERRORS,
    MAX_RSA_BITS,
    STRONG_RSA_BITS,
    display_issuer,
    display_name,
    extension_of,
    fingerprint,
    has_weak_hash,
    is_issued_by,
    is_made_by,
    is_weak_key,
    key_problem,
    load_certificate,
)
from comity.secure.revocation import NOTHING_SAID, Standing, standing

__all__ = [
    "CERTIFICATE_ERRORS",
    "MAX_RSA_BITS",
    "STRONG_RSA_BITS",
    "ChainResult",
    "Distrust",
    "TrustStore",
    "check_chain",
    "display_issuer",
    "display_name",
    "extension_of",
    "fingerprint",
    "is_issued_by",
    "is_made_by",
    "is_weak_key",
    "key_problem",
    "load_certificate",
]

MAX_DEPTH = 6
"""Certificates between signer and anchor, both counted (reliability.md M-26)."""
MAX_SIGNATURE_CHECKS = 24
"""Signature checks while a path is searched; a bag of look-alike issuers cannot cost more."""
_EVALUATED = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,  # any policy is acceptable to us
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
    }
)


Purpose = Literal["signing", "encryption"]


class Distrust(Enum):
    """Why a certificate is not trusted."""

    UNKNOWN_CA = "unknown-ca"
    EXPIRED = "expired"
    NOT_YET_VALID = "not-yet-valid"
    REVOKED = "revoked"
    DISTRUSTED = "distrusted"
    USAGE = "usage"
    """Key usage, extended key usage, CA flag or path length forbid this use."""
    WEAK = "weak"
    """SHA-1 or MD5 under a certificate: whoever can collide it can make another."""
    UNSUPPORTED = "unsupported"
    """A critical extension, constraint or size that we do not evaluate."""


@dataclass(frozen=True, slots=True)
class ChainResult:
    """Whether a certificate is trusted, and if not, why."""

    distrust: Distrust | None
    text: str
    """One sentence for a person; names the certificate it is about."""
    path: tuple[x509.Certificate, ...] = ()
    """Signer first."""
    is_weak: bool = False
    """True if a key of the path is too small."""
    remark: str = ""
    """What a person should know though it is trusted, as a sentence without its full stop; "" if nothing."""


@dataclass(frozen=True, slots=True)
class TrustStore:
    """What a user trusts; made by ``KeyStore.trust_store`` or by hand."""

    anchors: tuple[x509.Certificate, ...] = ()
    """Certification authorities."""
    pinned: tuple[x509.Certificate, ...] = ()
    """Correspondents' certificates trusted as they stand, whoever issued them."""
    known: tuple[x509.Certificate, ...] = ()
    """Certificates kept without trust: intermediates, and signers whose messages leave theirs out."""
    crls: tuple[x509.CertificateRevocationList, ...] = ()
    distrusted: frozenset[str] = frozenset()
    """Fingerprints (lower-case hex; SHA-256 of X.509, or OpenPGP's own) never trusted, anywhere in a path."""
    sip_vouches_for: frozenset[str] = frozenset()
    """Domains (lower-case A-labels) where a certificate's sip: URI also proves im: and pres: of the same name (SEC-19)."""
    openpgp_pinned: tuple[bytes, ...] = ()
    """OpenPGP certificates trusted as they stand, binary packets (own ones among them)."""
    openpgp_known: tuple[bytes, ...] = ()
    """OpenPGP certificates kept without trust."""
    contacts: Mapping[str, frozenset[str]] = field(default_factory=dict, hash=False)
    """Keys kept for a correspondent, by im: URI in its canonical form (``identity.contact_key``): the fingerprints of their
    certificates and ``contacts.key_of`` them. A signer who proves that address with another key gets the verdict
    "changed" (reliability.md T33)."""
    unproved: frozenset[str] = frozenset()
    """Those of them that nobody ever vouched for: whom somebody vouches for now is not compared with them. Else a stranger's
    self-made certificate would spoil the real one that comes later."""
    _pins: frozenset[str] = field(init=False, default=frozenset(), repr=False, compare=False)
    _by_subject: dict[bytes, list[x509.Certificate]] = field(
        init=False, default_factory=dict, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "_pins", frozenset(fingerprint(pin) for pin in self.pinned))
        for anchor in self.anchors:
            self._by_subject.setdefault(anchor.subject.public_bytes(), []).append(anchor)

    def is_pinned(self, certificate: x509.Certificate) -> bool:
        return fingerprint(certificate) in self._pins

    def anchors_named(self, name: bytes) -> Sequence[x509.Certificate]:
        """Anchors whose subject is ``name`` (DER)."""
        return self._by_subject.get(name, ())


def check_chain(
    signer: x509.Certificate,
    trust: TrustStore,
    now: datetime,
    *,
    others: Iterable[x509.Certificate] = (),
    crls: Iterable[x509.CertificateRevocationList] = (),
    purpose: Purpose = "signing",
    maker: x509.Certificate | None = None,
) -> ChainResult:
    """Find a path from ``signer`` to a pin or an anchor and check it at ``now``.

    Args:
        signer: the end-entity certificate.
        trust: anchors, pins, lists.
        now: aware UTC; every certificate of the path must be valid then.
        others: certificates that came with the message; never trusted by themselves.
        crls: revocation lists that came with the message.
        purpose: what the certificate is to be used for.
        maker: for "encryption", a person's certificate for signing that is believed; pins are without being named.
    """
    if fingerprint(signer) in trust.distrusted:
        return ChainResult(Distrust.DISTRUSTED, f"{display_name(signer)} is on your list of distrusted certificates")
    search = _Search(trust, now, (*others, *trust.known), (*crls, *trust.crls))
    usage = search.leaf_problem(signer, purpose)
    if usage is not None:
        return usage
    if trust.is_pinned(signer):
        return search.judge((signer,))
    if purpose == "encryption":
        makers = (*trust.pinned, maker) if maker is not None else trust.pinned
        made_by = next((pin for pin in makers if is_made_by(signer, pin)), None)
        if made_by is not None:
            judged = search.judge((made_by,))
            return judged if judged.distrust else search.judge((signer,))
    return search.extend((signer,)) or search.best_failure(signer)


class _Search:
    """One search for a path; counts what it spends."""

    def __init__(
        self,
        trust: TrustStore,
        now: datetime,
        others: tuple[x509.Certificate, ...],
        crls: tuple[x509.CertificateRevocationList, ...],
    ) -> None:
        self.trust = trust
        self.now = now
        self.others = others
        self.crls = crls
        self.left = MAX_SIGNATURE_CHECKS
        self.failure: ChainResult | None = None
        """The first complete path that failed: its reason says more than "unknown CA"."""

    def extend(self, path: tuple[x509.Certificate, ...]) -> ChainResult | None:
        """Depth-first: anchors before certificates that merely came along; None if nothing trusted is found."""
        last = path[-1]
        issuer = last.issuer.public_bytes()
        anchors = self.trust.anchors_named(issuer)
        if any(fingerprint(last) == fingerprint(anchor) for anchor in anchors):
            return self._complete(path)
        for parent in anchors:
            if self._is_issued_by(last, parent):
                result = self._complete((*path, parent))
                if result is not None:
                    return result
        if len(path) >= MAX_DEPTH:
            self._remember(ChainResult(Distrust.UNSUPPORTED, f"its certification path is longer than {MAX_DEPTH}"))
            return None
        for parent in self.others:
            if parent.subject.public_bytes() == issuer and parent not in path and self._is_issued_by(last, parent):
                result = self.extend((*path, parent))
                if result is not None:
                    return result
        return None

    def best_failure(self, signer: x509.Certificate) -> ChainResult:
        if self.failure is not None:
            return self.failure
        revoked = self.standing(
            signer, (signer,), 0
        ).revoked  # by itself, or by an issuer that is known and not trusted
        if revoked:
            text = f"the certificate of {display_name(signer)} {revoked}"
            return ChainResult(Distrust.REVOKED, text, (signer,))
        text = f"nobody you trust vouches for {display_name(signer)} (issuer {display_issuer(signer)})"
        return ChainResult(Distrust.UNKNOWN_CA, text, (signer,))

    def _complete(self, path: tuple[x509.Certificate, ...]) -> ChainResult | None:
        result = self.judge(path)
        if result.distrust is None:
            return result
        self._remember(result)
        return None

    def _remember(self, result: ChainResult) -> None:
        self.failure = self.failure or result

    def _is_issued_by(self, child: x509.Certificate, parent: x509.Certificate) -> bool:
        if has_weak_hash(child):
            text = f"the certificate of {display_name(child)} is signed with SHA-1 or MD5, which proves nothing"
            self._remember(ChainResult(Distrust.WEAK, text))
            return False
        problem = key_problem(parent.public_key())
        if problem:
            self._remember(ChainResult(Distrust.UNSUPPORTED, f"{display_name(parent)} has {problem}"))
            return False
        self.left -= 1
        if self.left < 0:
            self._remember(ChainResult(Distrust.UNSUPPORTED, "its certification path branches too often"))
            return False
        return is_issued_by(child, parent)

    def leaf_problem(self, signer: x509.Certificate, purpose: Purpose) -> ChainResult | None:
        """What in the signer's own certificate forbids its use, whoever issued it."""
        name = display_name(signer)
        usage = extension_of(signer, x509.KeyUsage)
        if usage is not None:
            signs = usage.digital_signature or usage.content_commitment
            if not (signs if purpose == "signing" else usage.key_agreement or usage.key_encipherment):
                text = f"the certificate of {name} is not for {purpose} (key usage)"
                return ChainResult(Distrust.USAGE, text, (signer,))
        extended = extension_of(signer, x509.ExtendedKeyUsage)
        if extended is not None and not (
            {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(extended)
        ):
            text = f"the certificate of {name} is not for messages (extended key usage lacks emailProtection)"
            return ChainResult(Distrust.USAGE, text, (signer,))
        return None

    def judge(self, path: tuple[x509.Certificate, ...]) -> ChainResult:
        """Check a path whose signatures hold: lists, revocation, dates, CA flags, lengths, constraints."""
        below = 0
        """Intermediates between this certificate and the signer that are not self-issued (RFC 5280 section 6.1.4)."""
        for depth, certificate in enumerate(path):
            problem = self._problem(certificate, path, depth, below)
            if problem is not None:
                return ChainResult(*problem, path)
            if depth and certificate.subject != certificate.issuer:
                below += 1
        weak = any(is_weak_key(certificate.public_key()) for certificate in path)
        # An anchor is trusted because the user says so: what its own list says of it is no news.
        remarks = (self.standing(one, path, depth).remark for depth, one in enumerate(path[:-1] or path))
        remark = next(filter(None, remarks), "")
        return ChainResult(None, f"{display_name(path[-1])} vouches for it", path, weak, remark)

    def standing(self, certificate: x509.Certificate, path: tuple[x509.Certificate, ...], depth: int) -> Standing:
        """What the revocation lists say of one certificate of the path.

        The last of a path has no issuer in it (a pin, an anchor): issuers are then looked for among what the user
        keeps, never among what came with the message. These checks are not counted against ``left``: a bag that
        spends the budget must not hide a revocation."""
        if not self.crls:
            return NOTHING_SAID
        kept = (*self.trust.anchors, *self.trust.pinned, *self.trust.known)
        return standing(
            certificate,
            self.crls,
            self.now,
            issuers=path[depth + 1 : depth + 2] or (*kept, certificate),
            authorities=(*path[depth + 1 :], *self.trust.anchors),
            others=(*self.others, *kept),
        )

    def _problem(
        self, certificate: x509.Certificate, path: tuple[x509.Certificate, ...], depth: int, below: int
    ) -> tuple[Distrust, str] | None:
        name = display_name(certificate)
        if fingerprint(certificate) in self.trust.distrusted:
            return Distrust.DISTRUSTED, f"{name} is on your list of distrusted certificates"
        revoked = self.standing(certificate, path, depth).revoked
        if revoked:
            return Distrust.REVOKED, f"the certificate of {name} {revoked}"
        if self.now > certificate.not_valid_after_utc:
            return Distrust.EXPIRED, f"the certificate of {name} expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
        if self.now < certificate.not_valid_before_utc:
            day = f"{certificate.not_valid_before_utc:%Y-%m-%d}"
            return Distrust.NOT_YET_VALID, f"the certificate of {name} is not valid before {day}"
        for extension in certificate.extensions:
            if extension.oid == ExtensionOID.NAME_CONSTRAINTS:
                return Distrust.UNSUPPORTED, f"{name} sets name constraints, which Comity does not evaluate"
            if extension.critical and extension.oid not in _EVALUATED:
                oid = extension.oid.dotted_string
                return Distrust.UNSUPPORTED, f"the certificate of {name} has the unknown critical extension {oid}"
        if depth == 0:
            return None
        constraints = extension_of(certificate, x509.BasicConstraints)
        usage = extension_of(certificate, x509.KeyUsage)
        if constraints is None or not constraints.ca or (usage is not None and not usage.key_cert_sign):
            return Distrust.USAGE, f"{name} is not a certification authority"
        if constraints.path_length is not None and below > constraints.path_length:
            return Distrust.USAGE, f"{name} may not have {below} authorities below it (path length)"
        extended = extension_of(certificate, x509.ExtendedKeyUsage)
        if extended is not None and not (
            {ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(extended)
        ):
            return Distrust.USAGE, f"{name} may not issue certificates for messages (extended key usage)"
        return None

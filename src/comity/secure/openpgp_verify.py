"""OpenPGP signatures as evidence: every one must hold, then who made it (RFC 9580 section 5.2, RFC 3156 section 5).

Place on the path: between ``openpgp_certs.py`` below and ``verifying.py`` above. A detached signature, or the signatures found
inside an encrypted message, go in with the content; ``Signer`` values come out. A signer is trusted only if the user pinned
that very certificate: a User ID is a claim of whoever made the key (M-36).

What pysequoia 0.1.35 checks, found by experiment: the signature itself; that its hash is no MD5, SHA-1 or RIPEMD-160; that the
key is bound to the certificate, may sign, and was neither expired nor revoked when the signature says it was made; that this is
not in the future, and the signature has not expired. Its clock is the machine's. What it leaves open is checked here:
*every* signature must hold (one good one is enough for it), nothing but signatures stands in a detached one, the text form
covers canonical text only, and the key is good now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from comity.errors import MalformedMessage, SecurityError
from comity.secure import openpgp_packets as wire
from comity.secure.chain import Distrust, TrustStore
from comity.secure.evidence import SignatureFailed, Signer, TooLarge, UnknownAlgorithm, UnknownSigner
from comity.secure.openpgp_certs import Known, PgpCertificate, PgpKey, View, known_of, views_of
from comity.secure.openpgp_facts import NotInstalled, Refused, SignatureFacts, ask, is_available, signature_facts

if is_available:
    import pysequoia

MAX_SIGNATURES = 10
"""Signatures beside one another over one content."""
MAX_SIGNATURE_DATA = 64 * 1024
_LABELS = (b"SIGNATURE", b"MESSAGE")
"""RFC 3156 section 5 itself shows a detached signature in the armor of a message."""
_BROKEN_HASHES = frozenset({"md5", "sha1", "ripemd160"})
_UNCHECKED_KEYS = frozenset({"dsa", "elgamalencrypt", "elgamalencryptsign"})
MIN_RSA_BITS = 2048
"""What pysequoia takes; RFC 9580 section 12.4 wants 3072 of new keys."""


def digests_of(micalg: str) -> frozenset[str]:
    """The hash name of a micalg value such as pgp-sha256; a name that is no such stays whole and matches nothing."""
    name = micalg.strip().lower()
    return frozenset((name.removeprefix("pgp-") if name.startswith("pgp-") else f"?{name}",)) if name else frozenset()


def signers_of(
    content: bytes, signature: bytes, trust: TrustStore, now: datetime, announced: frozenset[str] = frozenset()
) -> tuple[Signer, ...]:
    """Check every signature of a detached one over ``content``, then who made it.

    Args:
        content: exactly the octets said to be signed; in multipart/signed their line ends are canonical first.
        signature: armored or binary.
        trust: its OpenPGP certificates and fingerprints.
        now: aware UTC.
        announced: ``digests_of`` the micalg parameter; empty: nothing was announced.

    Raises:
        SignatureFailed: one of them does not hold, or something else stands where a signature is expected.
        UnknownAlgorithm, UnknownSigner, TooLarge: nothing can be said; ``NotInstalled`` is one of them.
    """
    if not is_available:
        raise NotInstalled
    check = _Check(content, announced, known_of(trust.openpgp_pinned, trust.openpgp_known), trust.distrusted, now)
    found: list[Signer] = []
    unknown: SecurityError | None = None
    for packet in _signature_packets(signature):
        try:
            found.append(check.signer(packet))
        except (UnknownSigner, UnknownAlgorithm) as error:
            unknown = error  # go on: another one that fails says more
    if unknown is not None:
        raise unknown
    return tuple(found)


def _signature_packets(signature: bytes) -> list[wire.Packet]:
    if len(signature) > MAX_SIGNATURE_DATA:
        raise TooLarge(f"the OpenPGP signature is larger than {MAX_SIGNATURE_DATA // 1024} KiB")
    try:
        packets = [p for p in wire.read_packets(wire.dearmor(signature, _LABELS)) if p.tag not in wire.IGNORED]
    except MalformedMessage as error:
        raise SignatureFailed(f"the OpenPGP signature cannot be read: {error}") from error
    if not packets or any(packet.tag != wire.SIGNATURE for packet in packets):
        raise SignatureFailed("something else stands where a detached OpenPGP signature is expected")
    if len(packets) > MAX_SIGNATURES:
        raise TooLarge(f"there are more than {MAX_SIGNATURES} OpenPGP signatures")
    return packets


@dataclass(frozen=True, slots=True)
class _Check:
    """What each signature is held against."""

    content: bytes
    announced: frozenset[str]
    known: Known
    distrusted: frozenset[str]
    now: datetime

    def signer(self, packet: wire.Packet) -> Signer:
        """Who made one signature; raises as ``signers_of``."""
        try:
            facts = signature_facts(packet)
        except Refused as error:
            raise SignatureFailed("the OpenPGP signature cannot be read") from error
        self._look_at(facts)
        issuer = facts.issuer
        candidates = self.known.by_key.get(issuer, ())
        for certificate, key in candidates:
            for view in views_of(certificate.octets, key.fingerprint):
                if _holds(self.content, packet, view, key):
                    ends = [end for end in (certificate.expires, view.expires) if end is not None]
                    return self._value(certificate, key, min(ends, default=None), facts)
        if not candidates:
            raise UnknownSigner(f"the OpenPGP key {issuer or 'it was made with'} is not known here")
        raise _why_not(*candidates[0], facts)

    def _look_at(self, facts: SignatureFacts) -> None:
        """Version, type and hash, before any arithmetic."""
        if facts.version not in (4, 6):
            raise UnknownAlgorithm(f"it is an OpenPGP signature of version {facts.version}")
        if facts.kind not in ("Binary", "Text"):
            raise SignatureFailed("it is an OpenPGP signature over something else than a document")
        if facts.kind == "Text" and not _is_canonical(self.content):
            raise SignatureFailed("it signs text, and these line ends are not those of text")
        if self.announced and self.announced != {facts.digest}:
            raise SignatureFailed("it uses another digest than its micalg announces")
        if not facts.digest:
            raise UnknownAlgorithm("it uses a digest that is not known")
        if facts.digest in _BROKEN_HASHES:
            raise UnknownAlgorithm(f"it uses {facts.digest.upper()}, which proves nothing any more")

    def _value(
        self, certificate: PgpCertificate, key: PgpKey, expires: datetime | None, facts: SignatureFacts
    ) -> Signer:
        distrust = self._distrust(certificate, key, expires)
        return Signer(
            names=certificate.names,
            title=certificate.title,
            fingerprint=certificate.fingerprint,
            certificate=certificate.octets,
            technology="openpgp",
            distrust=distrust[1],
            distrust_code=distrust[0],
            is_pinned=certificate.fingerprint in self.known.pinned,
            signing_time=facts.created,
            not_before=certificate.created,
            not_after=expires,
        )

    def _distrust(self, certificate: PgpCertificate, key: PgpKey, expires: datetime | None) -> tuple[str, str]:
        title = certificate.title
        if certificate.fingerprint in self.distrusted:
            return Distrust.DISTRUSTED.value, f"{title} was marked as never to be trusted"
        if certificate.fingerprint in self.known.revoked or key.has_revocation:
            return Distrust.REVOKED.value, f"the OpenPGP key of {title} was revoked"
        if expires is not None and expires <= self.now:
            return Distrust.EXPIRED.value, f"the OpenPGP key of {title} expired on {expires:%Y-%m-%d}"
        if certificate.created > self.now:
            return Distrust.NOT_YET_VALID.value, f"the OpenPGP key of {title} was not made yet"
        if certificate.fingerprint not in self.known.pinned:
            return Distrust.UNKNOWN_CA.value, f"nobody you trust says that this OpenPGP key is that of {title}"
        return "", ""


def _holds(content: bytes, packet: wire.Packet, view: View, key: PgpKey) -> bool:
    """True if the one signature is by that key over exactly ``content``."""

    def verify() -> pysequoia.Decrypted:
        cert = pysequoia.Cert.from_bytes(view.octets)
        signature = pysequoia.Sig.from_bytes(packet.raw)
        return pysequoia.verify(content, lambda _ids: [cert], signature=signature)

    try:
        return [valid.signing_key for valid in ask(verify).valid_sigs] == [key.fingerprint]
    except Refused:
        return False


def _is_canonical(content: bytes) -> bool:
    return content.count(b"\r") == content.count(b"\n") == content.count(b"\r\n")


def _why_not(certificate: PgpCertificate, key: PgpKey, facts: SignatureFacts) -> SecurityError:
    """Put the likeliest reason into words; pysequoia has one for all."""
    if key.algorithm in _UNCHECKED_KEYS:
        return UnknownAlgorithm(f"its key is of a kind that is not taken ({key.algorithm.upper()})")
    if key.rsa_bits and key.rsa_bits < MIN_RSA_BITS:
        return UnknownAlgorithm(f"its RSA key has {key.rsa_bits} bits, which prove nothing any more")
    if not certificate.user_ids:
        return UnknownAlgorithm("nothing in its OpenPGP certificate holds that can be checked here")
    if key.has_revocation:
        return SignatureFailed("its key was revoked")
    ends = facts.expires
    if ends is not None and ends <= datetime.now(UTC):
        return SignatureFailed(f"it has expired on {ends:%Y-%m-%d}")
    return SignatureFailed("it is not over this content, or was not made while its key was good for it")

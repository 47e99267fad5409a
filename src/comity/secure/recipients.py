"""For whom may be encrypted: from an address to a certificate that somebody trusts (RFC 3923 section 6.2, RFC 8550).

Place on the path: before step 1, at the sender; ``comity encrypt`` and ``comity send --encrypt`` ask here, then ``sealing.encrypt``.
The rule its readers must keep: a certificate that merely came along is a candidate, not trusted (reliability.md T33).
Who encrypts to it tells a secret to whoever made it; so that takes a word of the user for each occasion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from cryptography import x509

from comity.cpim.address import Address
from comity.errors import SecurityError
from comity.secure import chain, cms_seal, openpgp
from comity.secure.chain import Distrust
from comity.secure.contacts import Contacts, Standing
from comity.secure.identity import contact_key, proves
from comity.secure.kept import Kept
from comity.secure.keystore import KeyStore

Technology = Literal["smime", "openpgp"]


@dataclass(frozen=True, slots=True)
class Recipient:
    """One certificate to encrypt for."""

    address: Address
    certificate: x509.Certificate | openpgp.PgpCertificate
    fingerprint: str
    capabilities: tuple[str, ...] = ()
    """Ciphers that it announced; see ``sealing.encrypt``."""
    is_trusted: bool = True
    """False only where the user asked for it."""


def find_recipient(
    store: KeyStore,
    address: Address,
    *,
    now: datetime,
    technology: Technology = "smime",
    to_unverified: bool = False,
) -> Recipient:
    """The certificate to encrypt for ``address``: own, pinned, or vouched for by an authority; of several the newest.

    Args:
        store: keys and trust.
        address: whom it shall be readable for.
        now: aware UTC; it has to be valid then.
        technology: S/MIME or OpenPGP.
        to_unverified: True takes, if there is none that is trusted, the only one that ever signed as this address.

    Raises:
        SecurityError: there is none; the sentence says what to do.
    """
    wanted = contact_key(str(address))
    theirs = [each for each in store.everything() if wanted in each.contact_keys]
    everything = [each for each in theirs if each.technology == technology]
    trust = store.trust_store()
    usable = [
        each
        for each in everything
        # What an authority vouches for is that name only: sip: may be another person's (SEC-19). A user's word is for both.
        if each.entry.shelf in ("own", "pinned")
        or (each.entry.shelf == "known" and proves(each.names, wanted, trust.sip_vouches_for))
    ]
    memory = store.contacts()
    judged = [_unless_changed(_judge(each, usable, trust, now), memory, wanted) for each in usable if _can_read(each)]
    trusted = [each.kept for each in judged if not each.problem]
    if trusted:
        return _recipient(store, address, max(trusted, key=_newest), is_trusted=True)
    if to_unverified and any(each.is_only_unknown for each in judged):
        candidates = [each.kept for each in judged if each.is_only_unknown]
        return _recipient(store, address, _only_seen(store, address, candidates), is_trusted=False)
    text = _refusal(address, judged, technology)
    if any(each.technology != technology and each.entry.shelf in ("own", "pinned") for each in theirs):
        text += " You trust one of the other kind: " + (
            "--openpgp." if technology == "smime" else "leave out --openpgp."
        )
    raise SecurityError(text)


@dataclass(frozen=True, slots=True)
class _Judged:
    """A candidate and what speaks against it."""

    kept: Kept
    problem: str = ""
    """The rest of a sentence; "" if it is trusted."""
    is_only_unknown: bool = False
    """True if nothing but that nobody vouches for it."""
    maker: Kept | None = None
    """For one that only reads: the certificate that signs for it."""


def _can_read(each: Kept) -> bool:
    """True if something can be encrypted for it; OpenPGP says so itself, when it is tried."""
    return each.x509 is None or not cms_seal.encryption_problem(each.x509)


def _newest(each: Kept) -> tuple[bool, datetime]:
    """What the user pinned goes before what is vouched for, then the later one."""
    return each.entry.shelf != "known", each.entry.not_before


def _judge(each: Kept, others: Sequence[Kept], trust: chain.TrustStore, now: datetime) -> _Judged:
    """Is a certificate trusted?"""
    if not each.is_current(now):
        until = f"{each.entry.not_after:%Y-%m-%d}" if each.entry.not_after else "ever"
        return _Judged(each, f"it is valid from {each.entry.not_before:%Y-%m-%d} to {until} only")
    if each.x509 is None:
        return _judge_openpgp(each)
    certificates = [other.x509 for other in others if other.x509 is not None]
    if not each.only_encrypts:
        result = chain.check_chain(each.x509, trust, now, others=certificates, purpose="encryption")
        return _Judged(each, "" if result.distrust is None else result.text, result.distrust is Distrust.UNKNOWN_CA)
    found = _Judged(each, "the certificate that would sign for it is not here, or not trusted")
    for maker in others:  # the one that signs vouches for the one that only reads, if it is trusted itself
        if maker.x509 is None or maker.only_encrypts or maker.contact_keys != each.contact_keys:
            continue
        signing = chain.check_chain(maker.x509, trust, now, others=certificates)
        if signing.distrust not in (None, Distrust.UNKNOWN_CA):
            found = _Judged(each, signing.text, maker=maker)
            continue
        result = chain.check_chain(each.x509, trust, now, others=certificates, purpose="encryption", maker=maker.x509)
        if result.distrust is None and signing.distrust is None:
            return _Judged(each, maker=maker)
        if result.distrust is None:  # the maker made it, and nothing but its own voucher is missing
            found = _Judged(each, signing.text, is_only_unknown=True, maker=maker)
    return found


def _unless_changed(judged: _Judged, memory: Contacts, address: str) -> _Judged:
    """An authority's word is not enough for a key that differs from the one known so far: a verdict says *changed* (T33)."""
    signs = judged.maker or judged.kept
    if judged.problem or signs.entry.shelf != "known":
        return judged
    # Of a certificate that only reads an authority does not say whose key it goes with; who brought it does.
    brought = [contact for contact in memory.of(address) if contact.reader == judged.kept.fingerprint]
    keys = [contact.key for contact in brought] or [signs.key]
    if any(memory.standing(address, key, is_vouched=True) is not Standing.CHANGED for key in keys):
        return judged
    return replace(judged, problem=memory.text(address, keys[0], is_vouched=True), is_only_unknown=True)


def _judge_openpgp(each: Kept) -> _Judged:
    certificate = openpgp.read_certificates(each.octets)[0]
    if certificate.is_revoked:
        return _Judged(each, f"{certificate.title} has been revoked by its owner")
    if each.entry.shelf in ("own", "pinned"):
        return _Judged(each)
    return _Judged(each, f"you have not said that you trust {certificate.title}", is_only_unknown=True)


def _only_seen(store: KeyStore, address: Address, candidates: list[Kept]) -> Kept:
    """The one certificate that an unverified address can mean: of the only key that ever signed, or the only one known."""
    history = store.contacts().of(str(address))
    if len(history) == 1:
        signed = [each for each in candidates if each.key == history[0].key]
        candidates = signed or [each for each in candidates if each.only_encrypts]
    if len(history) > 1 or len(candidates) != 1:
        raise SecurityError(
            f"Which key is that of {address} is not clear: {max(len(history), len(candidates))} are known. Compare the "
            "fingerprints with its owner (comity keys list), then: comity keys trust FINGERPRINT"
        )
    return candidates[0]


def _recipient(store: KeyStore, address: Address, found: Kept, *, is_trusted: bool) -> Recipient:
    history = [contact for contact in reversed(store.contacts().of(str(address))) if contact.is_accepted]
    capabilities = next((c.capabilities for c in history if found.only_encrypts or c.key == found.key), ())
    certificate = found.x509 or openpgp.read_certificates(found.octets)[0]
    return Recipient(address, certificate, found.fingerprint, capabilities, is_trusted)


def _refusal(address: Address, judged: Sequence[_Judged], technology: Technology) -> str:
    what = "OpenPGP certificate" if technology == "openpgp" else "certificate"
    if not judged:
        return (
            f"There is no {what} of {address} to encrypt for. Ask for a signed message or for the file, then: comity keys "
            "import FILE, compare the fingerprint, comity keys trust FINGERPRINT"
        )
    found = max(judged, key=lambda each: (each.is_only_unknown, *_newest(each.kept)))
    text = f"The {what} of {address} is not trusted, so nothing is encrypted for it: {found.problem}."
    if not found.is_only_unknown:
        return f"{text} Ask {address} for a new one."
    return f"{text} Compare its fingerprint with its owner, then: comity keys trust {(found.maker or found.kept).fingerprint[:16]}"

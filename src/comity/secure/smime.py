"""S/MIME signatures as evidence: from checked CMS signatures and certification paths to ``Signer`` values.

Place on the path: between ``cms.py`` and ``chain.py`` below and ``verifying.py`` above, which asks here for whatever is
``application/pkcs7-signature`` or ``application/pkcs7-mime`` (RFC 8551, RFC 8550).
"""

from __future__ import annotations

from datetime import datetime

from cryptography.hazmat.primitives.serialization import Encoding

from comity.secure import chain, cms, cms_check, cms_keys, cms_seal
from comity.secure.chain import TrustStore
from comity.secure.evidence import SignatureFailed, Signer
from comity.secure.identity import addresses_of

PKCS7_MIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
PKCS7_SIGNATURE = frozenset({"application/pkcs7-signature", "application/x-pkcs7-signature"})
#: ContentInfo types that are encrypted: EnvelopedData, AuthEnvelopedData, and the older EncryptedData.
ENCRYPTED_OIDS = frozenset({"1.2.840.113549.1.7.3", "1.2.840.113549.1.9.16.1.23", "1.2.840.113549.1.7.6"})


def digests_of(micalg: str) -> frozenset[str]:
    """Digest names of a micalg value; unknown names are left out (RFC 8551 section 3.5.3.2)."""
    names = (name.strip().lower().removeprefix("rsa-").replace("-", "") for name in micalg.split(","))
    return frozenset(name for name in names if name in cms.DIGESTS.values())


def signers_of(
    signed: cms.SignedData, content: bytes, announced: frozenset[str], trust: TrustStore, now: datetime
) -> tuple[Signer, ...]:
    """Check every signature of ``signed`` over ``content``, then each signer's certification path.

    Args:
        signed: the parsed structure.
        content: exactly the octets said to be signed.
        announced: digests of the micalg parameter; empty: nothing was announced.
        trust: anchors, pins and lists of whoever asks.
        now: aware UTC.

    Raises:
        SignatureFailed, UnknownSigner, UnknownAlgorithm, TooLarge, ber.BerError: see ``cms_check.check``.
    """
    found = cms_check.check(signed, content, (*trust.pinned, *trust.known))
    if announced and announced != {signature.digest for signature in found}:
        raise SignatureFailed("it uses another digest than its micalg announces")
    return tuple(_signer(signature, signed, trust, now) for signature in found)


def _signer(signature: cms_check.Signature, signed: cms.SignedData, trust: TrustStore, now: datetime) -> Signer:
    certificate = signature.certificate
    path = chain.check_chain(certificate, trust, now, others=signed.certificates, crls=signed.crls)
    return Signer(
        names=addresses_of(certificate),
        title=chain.display_name(certificate),
        fingerprint=chain.fingerprint(certificate),
        certificate=certificate.public_bytes(Encoding.DER),
        technology="smime",
        distrust="" if path.distrust is None else path.text,
        distrust_code="" if path.distrust is None else path.distrust.value,
        remark=path.remark,
        is_weak=signature.is_weak or path.is_weak,
        is_pinned=trust.is_pinned(certificate),
        signing_time=signature.signing_time,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        encryption_certificate=_encryption_certificate(signature, signed, trust, now),
        capabilities=tuple(
            cms_keys.CIPHERS_BY_OID[oid].name for oid in signature.capabilities if oid in cms_keys.CIPHERS_BY_OID
        ),
    )


def _encryption_certificate(
    signature: cms_check.Signature, signed: cms.SignedData, trust: TrustStore, now: datetime
) -> bytes:
    """The certificate to encrypt answers to (RFC 8551 section 2.5.3.1): the one preferred, the signer's, another of hers.

    The certificates that come along are not under the signature, and its name for one is easily had by another. So a
    second one counts only if the signer's own key made it or a trusted authority did, for the same addresses.
    """
    signer, preferred = signature.certificate, signature.preferred_key
    if (preferred is None or preferred.fits(signer)) and not cms_seal.encryption_problem(signer):
        return signer.public_bytes(Encoding.DER)
    candidates = [
        certificate
        for certificate in signed.certificates
        if certificate != signer
        and (preferred is None or preferred.fits(certificate))
        and not cms_seal.encryption_problem(certificate)
        and addresses_of(certificate) == addresses_of(signer)
    ]
    for certificate in candidates[: cms_check.MAX_CANDIDATES]:
        path = chain.check_chain(
            certificate, trust, now, others=signed.certificates, crls=signed.crls, purpose="encryption", maker=signer
        )
        if path.distrust is None:
            return certificate.public_bytes(Encoding.DER)
    return b""

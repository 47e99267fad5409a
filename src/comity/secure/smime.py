"""S/MIME around message/cpim: sign, and say what a received object proves (RFC 8551, RFC 3923 section 6, RFC 8591).

Place on the path: outside it. A client signs before the message enters, and verifies after it has left; relays carry
the octets and import none of this (SEED-41). ``verify`` asks, in this order: is there one signature over one whole
entity (RFC 1847)? does it hold (``cms.py``)? is the signer trusted (``chain.py``)? is the entity a message/cpim or
PIDF, and does the certificate prove its From (``identity.py``)? do envelope, recipient and time agree
(``freshness.py``)? The first "no" is the verdict. Only octets under the signature are ever read for From, To and
DateTime once something is signed (reliability.md T8).
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import datetime
from typing import Literal

from cryptography.hazmat.primitives.serialization import Encoding

from comity.cpim.address import Address
from comity.cpim.entity import content_type_params, decode_transfer, multipart_parts, split_entity
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import ber, chain, cms, cms_write
from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayCache
from comity.secure.identity import Identity, addresses_of, proves
from comity.secure.judge import (
    CPIM,
    Question,
    envelope_problem,
    escaped,
    is_same_user,
    judge,
    unsigned,
    view_of,
    view_or_none,
)
from comity.secure.verdict import Verdict, VerdictKind

MULTIPART_SIGNED = "multipart/signed"
PKCS7_MIME = frozenset({"application/pkcs7-mime", "application/x-pkcs7-mime"})
PKCS7_SIGNATURE = frozenset({"application/pkcs7-signature", "application/x-pkcs7-signature"})
#: ContentInfo types that are encrypted: EnvelopedData, AuthEnvelopedData, and the older EncryptedData.
ENCRYPTED_OIDS = frozenset({"1.2.840.113549.1.7.3", "1.2.840.113549.1.9.16.1.23", "1.2.840.113549.1.7.6"})

_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")


# --- signing -----------------------------------------------------------------------------------------------------


def canonical_text(text: bytes) -> bytes:
    """Put text in canonical form, every line end CR LF (RFC 8551 section 3.1.1). For originators only (SEC-14)."""
    return _BARE_LINE_END.sub(b"\r\n", text)


def sign(
    entity: bytes | MimeObject,
    identity: Identity,
    *,
    when: datetime,
    form: Literal["multipart", "signed-data"] = "multipart",
    with_certificate: bool = True,
) -> MimeObject:
    """Sign a whole MIME entity; its octets stand unchanged inside the result.

    Args:
        entity: the message/cpim (or PIDF) entity with its MIME headers.
        identity: who signs.
        when: aware UTC, becomes signingTime.
        form: "multipart" stays readable everywhere; "signed-data" is smaller and safer from rewriting paths (X32).
        with_certificate: False leaves the certificates out, for readers that have them (RFC 8591 section 10.2).

    Raises:
        SecurityError: the entity is not one that may be signed, or the key is unusable.
    """
    raw = entity.entity if isinstance(entity, MimeObject) else entity
    _check_signable(raw)
    certificates = identity.certificates if with_certificate else ()
    if form == "signed-data":
        signature = cms_write.sign_data(raw, identity, when, is_detached=False, certificates=certificates)
        headers = (
            b"Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
            b"Content-Transfer-Encoding: binary\r\n"
            b"Content-Disposition: attachment; filename=smime.p7m\r\n"
        )
        return MimeObject(headers, signature)
    signature = cms_write.sign_data(raw, identity, when, is_detached=True, certificates=certificates)
    boundary = _boundary(raw)
    # handling=required: RFC 3923 section 6.7 wants a Content-Disposition that says how to treat the signature.
    octets = (
        b"--" + boundary + b"\r\n" + raw + b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; handling=required; filename=smime.p7s\r\n"
        b"\r\n" + _base64(signature) + b"--" + boundary + b"--\r\n"
    )
    micalg = _MICALG[cms.DIGESTS[cms_write.digest_of(identity)]]
    content_type = (
        f'multipart/signed; protocol="application/pkcs7-signature"; micalg={micalg}; boundary="{boundary.decode()}"'
    )
    return MimeObject.of(content_type, octets)


_MICALG = {"sha256": "sha-256", "sha512": "sha-512"}


def _check_signable(raw: bytes) -> None:
    """Refuse what would not verify elsewhere, or would be signed in a form nobody can keep (SEC-14, SEC-15)."""
    try:
        obj = split_entity(raw)
        if obj.media_type == CPIM:
            message = CpimMessage.parse(obj.octets)
            text, kind = message.content, message.content_type
        else:
            text, kind = obj.octets, obj.content_type
    except MalformedMessage as error:
        raise SecurityError(f"This entity cannot be signed: {error}.") from error
    if not obj.media_type:
        raise SecurityError("This entity cannot be signed: it has no Content-Type.")
    if _BARE_LINE_END.search(obj.header_block):
        raise SecurityError("This entity cannot be signed: its MIME headers have line ends other than CR LF.")
    if kind.lower().startswith("text/") and _BARE_LINE_END.search(text):
        raise SecurityError(
            "This entity cannot be signed: its text has line ends other than CR LF; make them canonical."
        )
    if obj.media_type == CPIM and obj.header("content-transfer-encoding").lower() in ("base64", "quoted-printable"):
        raise SecurityError("This entity cannot be signed: message/cpim is signed as it stands, without encoding.")


def _boundary(raw: bytes) -> bytes:
    """A boundary that does not occur in ``raw``; the same entity gives the same one."""
    seed = hashlib.sha256(raw).hexdigest()
    for length in range(24, 65):
        boundary = f"comity-{seed[:length]}".encode()
        if boundary not in raw:
            return boundary
    raise SecurityError("This entity cannot be signed: it holds its own digest.")


def _base64(octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    return b"".join(text[at : at + 76] + b"\r\n" for at in range(0, len(text), 76))


# --- verifying ---------------------------------------------------------------------------------------------------


def verify(
    obj: MimeObject | bytes,
    trust: TrustStore,
    *,
    now: datetime,
    expected_from: str | Address | None = None,
    expected_to: str | Address | None = None,
    replay: ReplayCache | None = None,
    asserted_by: str = "",
    arrived: datetime | None = None,
) -> Verdict:
    """Say what ``obj`` proves.

    Args:
        obj: the object as it arrived, or a whole MIME entity.
        trust: anchors, pins and lists of whoever asks.
        now: aware UTC.
        expected_from: the sender according to the protocol around the object (SEED-28).
        expected_to: the recipient who got it: must stand in To or cc (SEED-34).
        replay: remembers what was accepted; None does not look for repeats.
        asserted_by: domain that vouches for From where no signature does (SEED-5).
        arrived: when it entered a known store-and-forward queue (SEC-24).

    Returns:
        A verdict, whatever the octets; nothing is raised for bad input.
    """
    whole = MimeObject(b"", obj) if isinstance(obj, bytes) else obj
    question = Question(
        trust,
        now,
        str(expected_from or ""),
        str(expected_to or ""),
        replay,
        asserted_by,
        arrived,
        whole.fingerprint,
    )
    try:
        if isinstance(obj, bytes):
            obj = split_entity(obj)
            question = replace(question, sha256=obj.fingerprint)
        return _look(obj, question, depth=0)
    except MalformedMessage as error:
        return question.answer(VerdictKind.MALFORMED, f"The object cannot be read: {error}.")


def _look(obj: MimeObject, question: Question, depth: int) -> Verdict:
    """Answer by media type."""
    _check_headers(obj)
    kind = obj.media_type
    if kind == MULTIPART_SIGNED:
        return _multipart_signed(obj, question)
    if kind in PKCS7_MIME:
        return _pkcs7_mime(obj, question)
    if kind == "multipart/encrypted":
        if len(multipart_parts(obj)) != 2:
            raise MalformedMessage("multipart/encrypted has not exactly two parts")  # RFC 1847 section 2.2
        return question.answer(VerdictKind.ENCRYPTED, "The object is encrypted and was not opened.")
    if kind == CPIM and depth == 0:
        return _bare_cpim(obj, question)
    view = view_of(obj)
    if kind.startswith("multipart/") and _holds_signed_part(obj):
        text = "Only a part of the object is signed, so nothing about its sender is proved"
        return unsigned(obj, view, question, text)
    return unsigned(obj, view, question, "The object is not signed")


def _check_headers(obj: MimeObject) -> None:
    """One Content-Type, one encoding: two readers must not see two objects in one set of octets."""
    names = [
        line.partition(b":")[0].strip().lower() for line in obj.header_block.split(b"\n") if line[:1] not in b" \t"
    ]
    for name in (b"content-type", b"content-transfer-encoding"):
        if names.count(name) > 1:
            raise MalformedMessage(f"there is more than one {name.decode()} header")


def _holds_signed_part(obj: MimeObject) -> bool:
    try:
        kinds = [split_entity(part).media_type for part in multipart_parts(obj)]
    except MalformedMessage:
        return False
    return any(kind == MULTIPART_SIGNED or kind in PKCS7_MIME for kind in kinds)


def _multipart_signed(obj: MimeObject, question: Question) -> Verdict:
    """RFC 1847 section 2.1, RFC 8551 section 3.5.3."""
    _, parameters = content_type_params(obj.content_type)
    protocol = parameters.get("protocol", "").lower()
    parts = multipart_parts(obj)
    if len(parts) != 2:
        raise MalformedMessage("multipart/signed has not exactly two parts")
    if not protocol or not parameters.get("micalg"):
        raise MalformedMessage("multipart/signed lacks protocol or micalg")
    content, second = parts[0], split_entity(parts[1])
    _check_headers(second)
    if second.media_type != protocol and {second.media_type, protocol} - PKCS7_SIGNATURE:
        raise MalformedMessage("the second part of multipart/signed is not of the type its protocol names")
    if protocol not in PKCS7_SIGNATURE:
        inner = split_entity(content)
        from_ = view_or_none(inner)
        text = f"It is signed by {escaped(protocol)}, which was not checked: the sender is not proved."
        return question.answer(VerdictKind.NOT_CHECKED, text, from_="" if from_ is None else from_.from_, content=inner)
    try:
        signed = cms.parse_signed_data(decode_transfer(second))
    except cms.TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if signed.content is not None:
        return question.answer(
            VerdictKind.BAD_SIGNATURE, "The signature brings a content of its own beside the signed part."
        )
    return _signed(content, signed, _digests(parameters["micalg"]), question)


def _digests(micalg: str) -> frozenset[str]:
    """Digest names of a micalg value; unknown names are left out (RFC 8551 section 3.5.3.2)."""
    names = (name.strip().lower().removeprefix("rsa-").replace("-", "") for name in micalg.split(","))
    return frozenset(name for name in names if name in cms.DIGESTS.values())


def _pkcs7_mime(obj: MimeObject, question: Question) -> Verdict:
    """RFC 8551 section 3.5.2; what is encrypted is left to ``encrypt.py``."""
    smime_type = content_type_params(obj.content_type)[1].get("smime-type", "").lower()
    try:
        info = ber.read(decode_transfer(obj))
        kind = cms.content_type_of(info)
        if kind in ENCRYPTED_OIDS:
            return question.answer(VerdictKind.ENCRYPTED, "The object is encrypted and was not opened.")
        if kind != cms.ID_SIGNED_DATA:
            text = f"It is protected in a way that was not checked (CMS content {kind})."
            return question.answer(VerdictKind.NOT_CHECKED, text)
        signed = cms.parse_signed_data(info)
    except cms.TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        if smime_type in ("enveloped-data", "auth-enveloped-data", "compressed-data"):
            raise MalformedMessage("the CMS structure cannot be read") from error
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if not signed.signers and signed.content is None:
        return question.answer(VerdictKind.UNSIGNED, "It brings certificates only; nothing is signed.")
    if signed.content is None:
        return question.answer(VerdictKind.BAD_SIGNATURE, "The signature came without what it signs.")
    return _signed(signed.content, signed, frozenset(), question)


def _signed(content: bytes, signed: cms.SignedData, announced: frozenset[str], question: Question) -> Verdict:
    """Check the signatures over ``content``, then trust, then what is signed."""
    try:
        signers = cms.check(signed, content, (*question.trust.pinned, *question.trust.known))
    except (cms.UnknownSigner, cms.UnknownAlgorithm) as error:
        return question.answer(VerdictKind.NOT_CHECKED, f"The signature was not checked: {error}.")
    except cms.TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (cms.SignatureFailed, ber.BerError) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature does not hold: {error}.")
    if announced and announced != {signer.digest for signer in signers}:
        return question.answer(
            VerdictKind.BAD_SIGNATURE, "The signature uses another digest than its micalg announces."
        )
    inner = split_entity(content)
    _check_headers(inner)
    view = view_of(inner)
    results = [
        chain.check_chain(
            signer.certificate, question.trust, question.now, others=signed.certificates, crls=signed.crls
        )
        for signer in signers
    ]
    certificate = signers[0].certificate.public_bytes(Encoding.DER)
    for signer, result in zip(signers, results, strict=True):
        problem = result.text if result.distrust is not None else _date_problem(signer, view.date_time)
        if problem:
            text = f"The signature holds, but its signer is not trusted: {problem}."
            return question.answer(
                VerdictKind.UNTRUSTED, text, from_=view.from_, content=inner, certificate=certificate
            )
    is_weak = any(s.is_weak or r.is_weak for s, r in zip(signers, results, strict=True))
    names = [addresses_of(signer.certificate) for signer in signers]
    verdict = judge(view, names, is_weak, question)
    return replace(verdict, content=inner, certificate=certificate)


def _date_problem(signer: cms.Signer, stamp: datetime | None) -> str:
    """The signed DateTime must lie in the certificate's validity too (M-21); signingTime is a claim we do not need."""
    certificate = signer.certificate
    if stamp is None or certificate.not_valid_before_utc <= stamp <= certificate.not_valid_after_utc:
        return ""
    return f"its DateTime lies outside the validity of the certificate of {chain.display_name(certificate)}"


# --- no signature around the whole -------------------------------------------------------------------------------


def _bare_cpim(obj: MimeObject, question: Question) -> Verdict:
    """A message/cpim that nobody signed as a whole; its content may be signed (RFC 8591 section 9.1)."""
    view = view_of(obj)
    message = CpimMessage.parse(decode_transfer(obj))
    content = MimeObject(message.content_header_block, message.content)
    if content.media_type != MULTIPART_SIGNED and content.media_type not in PKCS7_MIME:
        return unsigned(obj, view, question, "The message is not signed")
    bare = replace(question, expected_from="", expected_to="", replay=None)
    inner = _look(content, bare, depth=1)
    inner = replace(inner, from_=inner.from_ or view.from_, asserted_by=question.asserted_by)
    if inner.verdict not in (VerdictKind.VALID, VerdictKind.HEADERS_UNPROTECTED):
        return inner
    if inner.verdict is VerdictKind.VALID and not is_same_user(inner.from_, view.from_):
        text = f"{inner.signer} signed a message that came inside another one from {escaped(view.from_)}."
        return replace(inner, verdict=VerdictKind.ENVELOPE_MISMATCH, reason=text)
    signer = chain.load_certificate(inner.certificate)
    if signer is None or not proves(addresses_of(signer), view.from_, question.trust.sip_vouches_for):
        text = f"The message says it is from {escaped(view.from_)}, but {inner.signer or 'another'} signed its content."
        return replace(inner, verdict=VerdictKind.SIGNED_BY_OTHER, reason=text)
    problem = envelope_problem(view, question)
    if problem is not None:
        return replace(inner, verdict=problem[0], reason=problem[1])
    text = f"{inner.signer} signed the content; sender, recipient and time of the message are not protected."
    return replace(inner, verdict=VerdictKind.HEADERS_UNPROTECTED, reason=text)

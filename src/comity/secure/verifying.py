"""Say what a received object proves (RFC 8551, RFC 3156, RFC 3923 section 6, RFC 8591).

Place on the path: after its end, at the recipient; relays import none of this (SEED-41). ``verify`` asks, in this
order: is there one signature over one whole entity (RFC 1847)? does it hold, and is the signer trusted (``smime.py``,
``openpgp.py``)? is the entity a message/cpim or PIDF, and does the certificate prove its From (``identity.py``)? do
envelope, recipient and time agree (``freshness.py``)? The first "no" is the verdict. Only octets under the signature are
ever read for From, To and DateTime once something is signed (reliability.md T8).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial

from comity.cpim.address import Address
from comity.cpim.entity import content_type_params, decode_transfer, multipart_parts, split_entity
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import ber, chain, cms, openpgp
from comity.secure.chain import TrustStore
from comity.secure.evidence import SignatureFailed, Signer, TooLarge, UnknownAlgorithm, UnknownSigner
from comity.secure.freshness import ReplayCache
from comity.secure.identity import addresses_of, proves
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
from comity.secure.openpgp_mime import PGP_SIGNATURE
from comity.secure.signing import canonical_text
from comity.secure.smime import ENCRYPTED_OIDS, PKCS7_MIME, PKCS7_SIGNATURE, digests_of, signers_of
from comity.secure.verdict import Verdict, VerdictKind

MULTIPART_SIGNED = "multipart/signed"


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
    if protocol == PGP_SIGNATURE:
        canonical, armored = canonical_text(content), decode_transfer(second)  # RFC 3156 section 5: CR LF first
        micalg = openpgp.digests_of(parameters["micalg"])
        ask = partial(openpgp.signers_of, canonical, armored, question.trust, question.now, micalg)
        return _signed(canonical, ask, question)
    if protocol not in PKCS7_SIGNATURE:
        inner = split_entity(content)
        from_ = view_or_none(inner)
        text = f"It is signed by {escaped(protocol)}, which was not checked: the sender is not proved."
        return question.answer(VerdictKind.NOT_CHECKED, text, from_="" if from_ is None else from_.from_, content=inner)
    try:
        signed = cms.parse_signed_data(decode_transfer(second))
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if signed.content is not None:
        return question.answer(
            VerdictKind.BAD_SIGNATURE, "The signature brings a content of its own beside the signed part."
        )
    announced = digests_of(parameters["micalg"])
    return _signed(content, lambda: signers_of(signed, content, announced, question.trust, question.now), question)


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
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (ber.BerError, MalformedMessage) as error:
        if smime_type in ("enveloped-data", "auth-enveloped-data", "compressed-data"):
            raise MalformedMessage("the CMS structure cannot be read") from error
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature cannot be read: {error}.")
    if not signed.signers and signed.content is None:
        return question.answer(VerdictKind.UNSIGNED, "It brings certificates only; nothing is signed.")
    if signed.content is None:
        return question.answer(VerdictKind.BAD_SIGNATURE, "The signature came without what it signs.")
    content = signed.content
    return _signed(content, lambda: signers_of(signed, content, frozenset(), question.trust, question.now), question)


def _signed(content: bytes, check: Callable[[], tuple[Signer, ...]], question: Question) -> Verdict:
    """Check the signatures over ``content``, then trust, then what is signed."""
    try:
        signers = check()
    except (UnknownSigner, UnknownAlgorithm) as error:
        return question.answer(VerdictKind.NOT_CHECKED, f"The signature was not checked: {error}.")
    except TooLarge as error:
        return question.answer(VerdictKind.UNTRUSTED, f"The signature was not checked: {error}.")
    except (SignatureFailed, ber.BerError) as error:
        return question.answer(VerdictKind.BAD_SIGNATURE, f"The signature does not hold: {error}.")
    inner = split_entity(content)
    _check_headers(inner)
    view = view_of(inner)
    certificate = signers[0].certificate
    for signer in signers:
        problem = signer.distrust or _date_problem(signer, view.date_time)
        if problem:
            text = f"The signature holds, but its signer is not trusted: {problem}."
            return question.answer(
                VerdictKind.UNTRUSTED, text, from_=view.from_, content=inner, certificate=certificate
            )
    is_weak = any(signer.is_weak for signer in signers)
    verdict = judge(view, [signer.names for signer in signers], is_weak, question)
    return replace(verdict, content=inner, certificate=certificate)


def _date_problem(signer: Signer, stamp: datetime | None) -> str:
    """The signed DateTime must lie in the certificate's validity too (M-21); signingTime is a claim we do not need."""
    if stamp is None:
        return ""
    if (signer.not_before is None or signer.not_before <= stamp) and (
        signer.not_after is None or stamp <= signer.not_after
    ):
        return ""
    return f"its DateTime lies outside the validity of the certificate of {signer.title}"


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

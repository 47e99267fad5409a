"""From checked octets to a verdict: who says what, is it the signer, for us, in time?

Place on the path: the second half of ``verifying.verify``. ``verifying.py`` hands in the innermost entity and, in
``Question.around``, what it took off on the way there; ``Verdict`` comes out. The rule its readers must keep: From, To
and DateTime come from one set of octets, those under the signature, and never from what stands around them (T8).
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.errors import AddressError
from comity.secure.chain import Distrust, TrustStore
from comity.secure.contacts import key_of
from comity.secure.evidence import Signer
from comity.secure.freshness import check_timestamp
from comity.secure.identity import contact_key, proves
from comity.secure.question import CPIM, Question, View, escaped, first_name
from comity.secure.verdict import IdentityMatch, Layer, LayerKind, Verdict, VerdictKind


def judge(view: View, content: MimeObject, question: Question) -> Verdict:
    """Answer for the innermost entity: trust first, then sender, then recipient, then time.

    Args:
        view: what ``content`` says about itself.
        content: the innermost entity.
        question: with at least one signer around.
    """
    problem = _trust_problem(view, content, question)
    if problem is not None:
        return problem
    verdict = _judge_inside(view, question)
    if question.around.outer is not None:
        verdict = _judge_outside(question.around.outer, verdict, question)
    return replace(verdict, content=content)


def _trust_problem(view: View, content: MimeObject, question: Question) -> Verdict | None:
    """Every signer must be trusted, valid at the signed time (M-21), and sign with the key we know (T33)."""
    claimed = view.from_ or (question.around.outer.from_ if question.around.outer else "")
    for signer in question.around.signers:
        if _is_changed(signer, claimed, question.trust):
            text = (
                f"It is signed for {escaped(claimed)} with another key (fingerprint {signer.fingerprint[:16]}) than the one "
                "you know: a new key, or somebody else. Compare fingerprints with them before you trust it."
            )
            return question.answer(VerdictKind.CHANGED, text, from_=view.from_, content=content, about=signer)
        problem = signer.distrust or _date_problem(signer, view.date_time)
        if problem:
            text = f"The signature holds, but its signer is not trusted: {problem}."
            return question.answer(VerdictKind.UNTRUSTED, text, from_=view.from_, content=content, about=signer)
    return None


def _is_changed(signer: Signer, claimed: str, trust: TrustStore) -> bool:
    """True for a key that nothing but its freshness speaks against, where another one is kept for that address."""
    if signer.is_pinned or (signer.distrust and signer.distrust_code != Distrust.UNKNOWN_CA.value):
        return False
    kept = trust.contacts.get(contact_key(claimed), frozenset()) if claimed else frozenset()
    if signer.fingerprint in kept or not proves(signer.names, claimed, trust.sip_vouches_for):
        return False
    if key_of(signer.certificate, signer.technology, signer.fingerprint) in kept:
        return False  # a renewed certificate of the same key
    return bool(kept if signer.distrust else kept - trust.unproved)


def _date_problem(signer: Signer, stamp: datetime | None) -> str:
    """The signed DateTime must lie in the certificate's validity too (M-21); signingTime is a claim we do not need."""
    if stamp is None:
        return ""
    if (signer.not_before is None or signer.not_before <= stamp) and (
        signer.not_after is None or stamp <= signer.not_after
    ):
        return ""
    return f"its DateTime lies outside the validity of the certificate of {signer.title}"


def _judge_inside(view: View, question: Question) -> Verdict:
    """Every signer is trusted: is each of them the sender, and is it for us, and in time?"""
    signer = question.signer_text(view.from_)
    if view.is_ambiguous:
        return question.answer(
            VerdictKind.AMBIGUOUS_SENDER,
            f"{signer or 'Somebody'} signed an object with several From headers.",
            signer=signer,
            identity=IdentityMatch.NOT_COVERED,
        )
    if not view.has_headers:
        text = (
            f"{signer or 'Somebody'} signed the content only; sender, recipient and time of the message are not proved."
        )
        return question.answer(VerdictKind.HEADERS_UNPROTECTED, text, signer=signer, identity=IdentityMatch.NOT_COVERED)
    other = _other_than(view.from_, question)
    if other is not None:
        who = first_name(other.names)
        text = f"The {view.noun} says it is from {escaped(view.from_)}, but {who or 'a certificate without address'} signed it."
        return question.answer(
            VerdictKind.SIGNED_BY_OTHER,
            text,
            from_=view.from_,
            signer=who,
            identity=IdentityMatch.OTHER,
            about=other,
        )
    problem = None if question.around.outer else envelope_problem(view, question)
    if problem is not None:
        return question.answer(*problem, from_=view.from_, signer=signer, identity=IdentityMatch.MATCH)
    return _judge_time(view, signer, question)


def _other_than(from_: str, question: Question) -> Signer | None:
    """The first signer who does not prove ``from_``: all have to."""
    signers = question.around.signers
    return next((one for one in signers if not proves(one.names, from_, question.trust.sip_vouches_for)), None)


def _judge_outside(outer: View, inner: Verdict, question: Question) -> Verdict:
    """The signature stands inside a message/cpim that it does not cover (SEC-28, RFC 8591 section 9.1, M-06)."""
    inner = replace(inner, from_=inner.from_ or outer.from_)
    if inner.verdict not in (VerdictKind.VALID, VerdictKind.HEADERS_UNPROTECTED):
        return inner
    unproved = replace(inner, asserted_by=question.asserted_by)
    if outer.is_ambiguous:
        text = f"{inner.signer or 'Somebody'} signed the content of a message with several From headers."
        return replace(unproved, verdict=VerdictKind.AMBIGUOUS_SENDER, reason=text, identity=IdentityMatch.NOT_COVERED)
    if inner.verdict is VerdictKind.VALID and not is_same_user(inner.from_, outer.from_):
        text = f"{inner.signer} signed a message that came inside another one from {escaped(outer.from_)}."
        return replace(unproved, verdict=VerdictKind.ENVELOPE_MISMATCH, reason=text)
    other = _other_than(outer.from_, question)
    if other is not None:
        text = (
            f"The message says it is from {escaped(outer.from_)}, but {inner.signer or 'another'} signed its content."
        )
        return replace(
            unproved, verdict=VerdictKind.SIGNED_BY_OTHER, reason=text, identity=IdentityMatch.OTHER, asserted_by=""
        )
    problem = envelope_problem(outer, question)
    if problem is not None:
        return replace(unproved, verdict=problem[0], reason=problem[1])
    text = f"{inner.signer} signed the content; sender, recipient and time of the message are not protected."
    return replace(unproved, verdict=VerdictKind.HEADERS_UNPROTECTED, reason=text, identity=IdentityMatch.NOT_COVERED)


def _judge_time(view: View, signer: str, question: Question) -> Verdict:
    def answer(verdict: VerdictKind, text: str, freshness: str = "") -> Verdict:
        return question.answer(
            verdict, text, from_=view.from_, signer=signer, identity=IdentityMatch.MATCH, freshness=freshness
        )

    timeliness = check_timestamp(view.date_time, question.now, arrived=question.arrived)
    if timeliness.verdict is not None:
        return answer(timeliness.verdict, f"{signer} signed it, but {timeliness.text}.", timeliness.mark)
    # What is inside an unsigned message is never "valid", so it is not remembered either.
    replay = question.replay if question.around.outer is None else None
    again = f"{signer} signed it, but the same {view.noun} was accepted before."
    # What waited in a queue comes later than what went directly: its time need not increase (SEC-24).
    stamp = None if timeliness.mark == "delayed" else view.date_time
    if replay is not None:
        repeated = replay.check(signer, view.identifier, stamp, question.now)
        if repeated is VerdictKind.REPLAYED:
            return answer(repeated, again)
        if repeated is not None:
            text = f"{signer} signed it, but its time is not later than that of the last message accepted."
            return answer(repeated, text, "decreasing timestamp")
    if any(one.is_weak for one in question.around.signers):
        text = f"A signature of {signer} holds, but its algorithm or key is too weak to prove anything."
        return answer(VerdictKind.VALID_WEAK, text)
    if replay is not None and not replay.accept(signer, view.identifier, stamp, question.now):
        return answer(VerdictKind.REPLAYED, again)
    is_encrypted = any(layer.kind is LayerKind.ENCRYPTED for layer in question.around.layers)
    what = f"the whole {view.noun}" + (", which came encrypted" if is_encrypted else "")
    remarks = "".join(f" {one.remark}." for one in question.around.signers if one.remark)
    text = f"{signer} signed {what}" + (f"; {timeliness.text}." if timeliness.text else ".") + remarks
    return answer(VerdictKind.VALID, text, timeliness.mark)


def envelope_problem(view: View, question: Question) -> tuple[VerdictKind, str] | None:
    """Compare with what the protocol around the object says; the object wins (SEED-28, SEED-34).

    Without a recipient to expect, whoever opened it must be addressed or its sender: else somebody has encrypted again
    what was signed for others (surreptitious forwarding, RFC 8551 section 3.7)."""
    if question.expected_from and not is_same_user(question.expected_from, view.from_):
        outside, inside = escaped(question.expected_from), escaped(view.from_)
        return VerdictKind.ENVELOPE_MISMATCH, f"The {view.noun} says it is from {inside}, but {outside} sent it."
    if view.kind != CPIM:
        return None
    expected = [question.expected_to] if question.expected_to else question.around.recipients
    own = () if question.expected_to else (view.from_,)
    for one in expected:
        if not any(is_same_user(one, named) for named in (*view.to, *own)):
            text = f"The message from {escaped(view.from_)} is not addressed to {escaped(one)}."
            return VerdictKind.NOT_ADDRESSED, text
    return None


def is_same_user(one: str, other: str) -> bool:
    """True if both URIs name the same user (C-22)."""
    try:
        first, second = Address.from_any(one), Address.from_any(other)
    except AddressError:
        return False
    return (first.local, first.domain) == (second.local, second.domain)


def unsigned(obj: MimeObject, view: View, question: Question, text: str) -> Verdict:
    """Answer for an object without a signature over the whole; ``text`` begins the sentence."""
    outer = question.around.outer
    if outer is not None and view.has_headers and not is_same_user(outer.from_, view.from_):
        text = f"A message from {escaped(view.from_) or 'nobody'} came inside another one from {escaped(outer.from_)}."
        return question.answer(VerdictKind.ENVELOPE_MISMATCH, text, from_=outer.from_, content=obj)
    view = view if view.has_headers else outer or view
    if view.is_ambiguous:
        return question.answer(
            VerdictKind.AMBIGUOUS_SENDER, "The message has several From headers and no signature.", content=obj
        )
    problem = envelope_problem(view, question) if view.has_headers else None
    if problem is not None:
        return question.answer(*problem, from_=view.from_, content=obj)
    who = f"; {escaped(question.asserted_by)} says it is from {escaped(view.from_)}" if question.asserted_by else ""
    return question.answer(VerdictKind.UNSIGNED, f"{text}{who}.", from_=view.from_, content=obj)


def closed(obj: MimeObject, question: Question, verdict: VerdictKind, text: str) -> Verdict:
    """Answer for an encrypted object that was not opened; who signed it outside, if anybody did, is proved."""
    around = question.around.ending(Layer(LayerKind.ENCRYPTED, "encrypted, not opened"))
    question = replace(question, around=around)
    if not around.signers:
        return question.answer(verdict, text, from_=around.outer.from_ if around.outer else "")
    problem = _trust_problem(View(obj.media_type), obj, question)
    if problem is not None:
        return problem
    signer = question.signer_text("")
    text = f"{text} {signer or 'Somebody'} signed it as it is, encrypted."
    content = None if verdict is VerdictKind.CANNOT_DECRYPT else obj
    return question.answer(verdict, text, signer=signer, identity=IdentityMatch.NOT_COVERED, content=content)

"""From checked octets to a verdict: who says what, is it the signer, for us, in time?

Place on the path: the second half of ``verifying.verify``. ``verifying.py`` hands in the innermost entity and, in
``Question.around``, what it took off on the way there; ``Verdict`` comes out. The rule its readers must keep: From, To
and DateTime come from one set of octets, those under the signature, and never from what stands around them (T8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

from comity.cpim.address import Address
from comity.cpim.entity import decode_transfer
from comity.cpim.message import CpimLimits, CpimMessage, check_profile
from comity.cpim.operations import MimeObject
from comity.errors import AddressError, MalformedMessage
from comity.secure.chain import Distrust, TrustStore
from comity.secure.evidence import Signer
from comity.secure.freshness import ReplayCache, check_timestamp
from comity.secure.identity import Name, contact_key, proves
from comity.secure.verdict import IdentityMatch, Layer, LayerKind, Verdict, VerdictKind

CPIM = "message/cpim"
MAX_OCTETS = 16 * 1024 * 1024
"""Of a whole object, and of what is found inside all its layers together. What arrived by a protocol is far smaller
(reliability.md 6.2); a file may hold more, and it is read in memory."""
LIMITS = CpimLimits(message=MAX_OCTETS)


@dataclass(frozen=True, slots=True)
class View:
    """What the entity says about itself; read from one set of octets only."""

    kind: str
    """Media type."""
    from_: str = ""
    to: tuple[str, ...] = ()
    date_time: datetime | None = None
    identifier: str = ""
    """imdn.Message-ID, or the object's hash (SEC-25)."""
    is_ambiguous: bool = False
    has_headers: bool = False
    """True for message/cpim and PIDF: the kinds that say from whom they are."""


@dataclass(frozen=True, slots=True)
class Around:
    """What was taken off on the way to an entity."""

    layers: tuple[Layer, ...] = ()
    """Outermost first."""
    signers: tuple[Signer, ...] = ()
    """Of every signature that holds, outermost first; whether they are trusted is asked at the end."""
    covered: bytes | None = None
    """Exactly the octets under the innermost of these signatures."""
    outer: View | None = None
    """The message/cpim whose headers stand outside of every signature."""
    recipients: tuple[str, ...] = ()
    """Addresses of the own identities that opened an encrypted layer."""
    octets: int = 0
    """What was found inside so far."""

    def under(self, signers: tuple[Signer, ...], content: bytes) -> Around:
        """Inside a signature that holds."""
        who = " and ".join(_signed_by(signer) for signer in signers)
        layer = Layer(LayerKind.SIGNED, f"signed by {who}")
        return replace(self._in(layer, len(content)), signers=(*self.signers, *signers), covered=content)

    def opened(self, text: str, octets: int, recipient: str) -> Around:
        """Inside an encrypted layer."""
        recipients = (*self.recipients, recipient) if recipient else self.recipients
        return replace(self._in(Layer(LayerKind.ENCRYPTED, text), octets), recipients=recipients)

    def unpacked(self, octets: int) -> Around:
        """Inside a compressed layer."""
        return self._in(Layer(LayerKind.COMPRESSED, "compressed"), octets)

    def within(self, view: View) -> Around:
        """Inside a message/cpim that no signature covers."""
        text = f"message/cpim from {escaped(view.from_) or 'nobody'}, its headers not signed"
        return replace(self._in(Layer(LayerKind.UNPROTECTED, text), 0), outer=view)

    def ending(self, layer: Layer) -> Around:
        """As it is, with a last layer that was not opened."""
        return replace(self, layers=(*self.layers, layer))

    def _in(self, layer: Layer, octets: int) -> Around:
        return replace(self, layers=(*self.layers, layer), octets=self.octets + octets)


def _signed_by(signer: Signer) -> str:
    """How a layer names its signer: an address only if the certificate is trusted."""
    if signer.distrust:
        return f"{signer.title}, not trusted"
    return _first_name(signer.names) or signer.title


@dataclass(frozen=True)
class Question:
    """What the caller wants to know, the arguments of ``verify``; and what was taken off so far."""

    trust: TrustStore
    now: datetime
    expected_from: str
    expected_to: str
    replay: ReplayCache | None
    asserted_by: str
    arrived: datetime | None
    sha256: str
    around: Around = Around()

    def answer(
        self,
        verdict: VerdictKind,
        reason: str,
        *,
        from_: str = "",
        signer: str = "",
        identity: IdentityMatch = IdentityMatch.NONE,
        content: MimeObject | None = None,
        about: Signer | None = None,
        freshness: str = "",
    ) -> Verdict:
        """The verdict, with everything that ``around`` says for itself.

        Args:
            verdict, reason, from_, signer, identity, content, freshness: fields of ``Verdict``.
            about: whose certificate the verdict is about; the innermost signature's if not given.
        """
        around = self.around
        about = about or next(iter(around.signers), None)
        return Verdict(
            verdict,
            signer,
            from_,
            self.sha256,
            reason,
            asserted_by="" if identity is IdentityMatch.MATCH or verdict not in _ASSERTED else self.asserted_by,
            content=content,
            freshness=freshness,
            certificate=about.certificate if about else b"",
            fingerprint=about.fingerprint if about else "",
            technology=about.technology if about else "",
            identity=identity,
            covered_sha256="" if around.covered is None else hashlib.sha256(around.covered).hexdigest(),
            covered_octets=len(around.covered or b""),
            covers_whole=around.covered is not None and around.outer is None,
            layers=around.layers,
        )

    @cached_property
    def signer_names(self) -> tuple[tuple[Name, ...], ...]:
        return tuple(signer.names for signer in self.around.signers)

    def signer_text(self, from_: str) -> str:
        """The address to call the signers by: From in canonical form if all prove it, else the first one proved."""
        if from_ and all(proves(names, from_, self.trust.sip_vouches_for) for names in self.signer_names):
            return _canonical(from_)
        return _first_name(tuple(name for names in self.signer_names for name in names))


#: Verdicts under which nobody has proved the sender, so that whoever asserts him is named (SEED-5).
_ASSERTED = frozenset(
    {
        VerdictKind.UNSIGNED,
        VerdictKind.ENVELOPE_MISMATCH,
        VerdictKind.NOT_ADDRESSED,
        VerdictKind.NOT_CHECKED,
        VerdictKind.HEADERS_UNPROTECTED,
        VerdictKind.UNTRUSTED,
        VerdictKind.CHANGED,
        VerdictKind.ENCRYPTED,
        VerdictKind.NO_KEY,
        VerdictKind.CANNOT_DECRYPT,
        VerdictKind.DECRYPTED_UNAUTHENTICATED,
    }
)


def view_of(obj: MimeObject) -> View:
    """Read a message/cpim or PIDF; anything else says nothing about its sender.

    Raises:
        MalformedMessage: it is one of the two and cannot be read without doubt.
    """
    if obj.media_type == CPIM:
        message = CpimMessage.parse(decode_transfer(obj), limits=LIMITS)
        if len(message.senders) > 1:
            return View(CPIM, is_ambiguous=True, has_headers=True)
        check_profile(message)
        sender = message.from_
        to = tuple(address.uri for address in (*message.to, *message.cc))
        identifier = message.message_id or obj.fingerprint
        return View(CPIM, sender.uri if sender else "", to, message.date_time, identifier, has_headers=True)
    return View(obj.media_type)


def view_or_none(obj: MimeObject) -> View | None:
    """As ``view_of``, None for what cannot be read."""
    try:
        return view_of(obj)
    except MalformedMessage:
        return None


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
    kept = trust.contacts.get(contact_key(claimed)) if claimed else None
    return (
        bool(kept) and signer.fingerprint not in (kept or ()) and proves(signer.names, claimed, trust.sip_vouches_for)
    )


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
        who = _first_name(other.names)
        text = f"The message says it is from {escaped(view.from_)}, but {who or 'a certificate without address'} signed it."
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
    # What waited in a queue comes later than what went directly: its time need not increase (SEC-24).
    stamp = None if timeliness.mark == "delayed" else view.date_time
    if replay is not None:
        repeated = replay.check(signer, view.identifier, stamp, question.now)
        if repeated is VerdictKind.REPLAYED:
            return answer(repeated, f"{signer} signed it, but the same message was accepted before.")
        if repeated is not None:
            text = f"{signer} signed it, but its time is not later than that of the last message accepted."
            return answer(repeated, text, "decreasing timestamp")
    if any(one.is_weak for one in question.around.signers):
        text = f"A signature of {signer} holds, but its algorithm or key is too weak to prove anything."
        return answer(VerdictKind.VALID_WEAK, text)
    if replay is not None:
        replay.accept(signer, view.identifier, stamp, question.now)
    is_encrypted = any(layer.kind is LayerKind.ENCRYPTED for layer in question.around.layers)
    what = "the whole message, which came encrypted" if is_encrypted else "the whole message"
    text = f"{signer} signed {what}" + (f"; {timeliness.text}." if timeliness.text else ".")
    return answer(VerdictKind.VALID, text, timeliness.mark)


def envelope_problem(view: View, question: Question) -> tuple[VerdictKind, str] | None:
    """Compare with what the protocol around the object says; the object wins (SEED-28, SEED-34).

    Without a recipient to expect, whoever opened it must be addressed or its sender: else somebody has encrypted again
    what was signed for others (surreptitious forwarding, RFC 8551 section 3.7)."""
    if question.expected_from and not is_same_user(question.expected_from, view.from_):
        outside, inside = escaped(question.expected_from), escaped(view.from_)
        return VerdictKind.ENVELOPE_MISMATCH, f"The message says it is from {inside}, but {outside} sent it."
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


def _first_name(names: Sequence[Name]) -> str:
    """The address to show of several: im: if there is one."""
    return str(min(names, key=lambda name: name.scheme != "im")) if names else ""


def _canonical(uri: str) -> str:
    scheme = uri.partition(":")[0].lower()
    address = Address.from_any(uri)
    return address.with_scheme("pres").uri if scheme == "pres" else address.uri


def escaped(text: str) -> str:
    """Text from outside, fit for a sentence on a terminal: nothing unprintable, not too long."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:200])


def unsigned(obj: MimeObject, view: View, question: Question, text: str) -> Verdict:
    """Answer for an object without a signature over the whole; ``text`` begins the sentence."""
    view = view if view.has_headers else question.around.outer or view
    if view.is_ambiguous:
        return question.answer(
            VerdictKind.AMBIGUOUS_SENDER, "The message has several From headers and no signature.", content=obj
        )
    problem = envelope_problem(view, question) if view.has_headers else None
    if problem is not None:
        return question.answer(*problem, from_=view.from_, content=obj)
    who = f"; {escaped(question.asserted_by)} says it is from {escaped(view.from_)}" if question.asserted_by else ""
    return question.answer(VerdictKind.UNSIGNED, f"{text}{who}.", from_=view.from_, content=obj)

"""From checked octets to a verdict: who says what, is it the signer, for us, in time?

Place on the path: the second half of ``verifying.verify``. ``verifying.py`` hands in the entity that a signature covers (or that
none does) and the names of trusted signers; ``Verdict`` comes out. The rule its readers must keep: From, To and
DateTime come from one set of octets, those under the signature, and never from what stands around them (T8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.entity import decode_transfer
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.operations import MimeObject
from comity.errors import AddressError, MalformedMessage
from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayCache, check_timestamp
from comity.secure.identity import Name, proves
from comity.secure.verdict import Verdict, VerdictKind

CPIM = "message/cpim"


@dataclass(frozen=True, slots=True)
class Question:
    """What the caller wants to know; the arguments of ``verify``."""

    trust: TrustStore
    now: datetime
    expected_from: str
    expected_to: str
    replay: ReplayCache | None
    asserted_by: str
    arrived: datetime | None
    sha256: str

    def answer(
        self,
        verdict: VerdictKind,
        reason: str,
        *,
        from_: str = "",
        signer: str = "",
        content: MimeObject | None = None,
        certificate: bytes = b"",
        freshness: str = "",
    ) -> Verdict:
        asserted_by = self.asserted_by if verdict in _ASSERTED and not signer else ""
        return Verdict(verdict, signer, from_, self.sha256, reason, asserted_by, content, freshness, certificate)


_ASSERTED = frozenset(
    {
        VerdictKind.UNSIGNED,
        VerdictKind.ENVELOPE_MISMATCH,
        VerdictKind.NOT_ADDRESSED,
        VerdictKind.NOT_CHECKED,
        VerdictKind.HEADERS_UNPROTECTED,
    }
)


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


def view_of(obj: MimeObject) -> View:
    """Read a message/cpim or PIDF; anything else says nothing about its sender.

    Raises:
        MalformedMessage: it is one of the two and cannot be read without doubt.
    """
    if obj.media_type == CPIM:
        message = CpimMessage.parse(decode_transfer(obj))
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


def judge(view: View, names: Sequence[tuple[Name, ...]], is_weak: bool, question: Question) -> Verdict:
    """Every signer is trusted: is it the sender, and is it for us, and in time?"""
    signer = _signer_text(names, view.from_, question.trust)
    if view.is_ambiguous:
        return question.answer(
            VerdictKind.AMBIGUOUS_SENDER,
            f"{signer or 'Somebody'} signed an object with several From headers.",
            signer=signer,
        )
    if not view.has_headers:
        text = (
            f"{signer or 'Somebody'} signed the content only; sender, recipient and time of the message are not proved."
        )
        return question.answer(VerdictKind.HEADERS_UNPROTECTED, text, signer=signer)
    other = next((n for n in names if not proves(n, view.from_, question.trust.sip_vouches_for)), None)
    if other is not None:
        who = _signer_text([other], "", question.trust)
        text = f"The message says it is from {escaped(view.from_)}, but {who or 'a certificate without address'} signed it."
        return question.answer(VerdictKind.SIGNED_BY_OTHER, text, from_=view.from_, signer=who)
    problem = envelope_problem(view, question)
    if problem is not None:
        return question.answer(problem[0], problem[1], from_=view.from_, signer=signer)
    return _judge_time(view, signer, is_weak, question)


def _judge_time(view: View, signer: str, is_weak: bool, question: Question) -> Verdict:
    timeliness = check_timestamp(view.date_time, question.now, arrived=question.arrived)
    if timeliness.verdict is not None:
        text = f"{signer} signed it, but {timeliness.text}."
        return question.answer(timeliness.verdict, text, from_=view.from_, signer=signer, freshness=timeliness.mark)
    # What waited in a queue comes later than what went directly: its time need not increase (SEC-24).
    stamp = None if timeliness.mark == "delayed" else view.date_time
    if question.replay is not None:
        repeated = question.replay.check(signer, view.identifier, stamp, question.now)
        if repeated is VerdictKind.REPLAYED:
            text = f"{signer} signed it, but the same message was accepted before."
            return question.answer(repeated, text, from_=view.from_, signer=signer)
        if repeated is not None:
            text = f"{signer} signed it, but its time is not later than that of the last message accepted."
            mark = "decreasing timestamp"
            return question.answer(repeated, text, from_=view.from_, signer=signer, freshness=mark)
    if is_weak:
        text = f"A signature of {signer} holds, but its algorithm or key is too weak to prove anything."
        return question.answer(VerdictKind.VALID_WEAK, text, from_=view.from_, signer=signer)
    if question.replay is not None:
        question.replay.accept(signer, view.identifier, stamp, question.now)
    text = f"{signer} signed the whole message" + (f"; {timeliness.text}." if timeliness.text else ".")
    return question.answer(VerdictKind.VALID, text, from_=view.from_, signer=signer, freshness=timeliness.mark)


def envelope_problem(view: View, question: Question) -> tuple[VerdictKind, str] | None:
    """Compare with what the protocol around the object says; the object wins (SEED-28, SEED-34)."""
    if question.expected_from and not is_same_user(question.expected_from, view.from_):
        outside, inside = escaped(question.expected_from), escaped(view.from_)
        return VerdictKind.ENVELOPE_MISMATCH, f"The message says it is from {inside}, but {outside} sent it."
    if question.expected_to and view.kind == CPIM and not any(is_same_user(question.expected_to, to) for to in view.to):
        text = f"The message from {escaped(view.from_)} is not addressed to {escaped(question.expected_to)}."
        return VerdictKind.NOT_ADDRESSED, text
    return None


def is_same_user(one: str, other: str) -> bool:
    """True if both URIs name the same user (C-22)."""
    try:
        first, second = Address.from_any(one), Address.from_any(other)
    except AddressError:
        return False
    return (first.local, first.domain) == (second.local, second.domain)


def _signer_text(names: Sequence[tuple[Name, ...]], from_: str, trust: TrustStore) -> str:
    """The address to call the signer by: From in canonical form if proved, else the certificate's first."""
    flat = [name for group in names for name in group]
    if from_ and all(proves(group, from_, trust.sip_vouches_for) for group in names):
        return _canonical(from_)
    return str(min(flat, key=lambda name: name.scheme != "im")) if flat else ""


def _canonical(uri: str) -> str:
    scheme = uri.partition(":")[0].lower()
    address = Address.from_any(uri)
    return address.with_scheme("pres").uri if scheme == "pres" else address.uri


def escaped(text: str) -> str:
    """Text from outside, fit for a sentence on a terminal: nothing unprintable, not too long."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:200])


def unsigned(obj: MimeObject, view: View, question: Question, text: str) -> Verdict:
    """Answer for an object without a signature over the whole; ``text`` begins the sentence."""
    if view.is_ambiguous:
        return question.answer(
            VerdictKind.AMBIGUOUS_SENDER, "The message has several From headers and no signature.", content=obj
        )
    problem = envelope_problem(view, question) if view.has_headers else None
    if problem is not None:
        return question.answer(problem[0], problem[1], from_=view.from_, content=obj)
    who = f"; {escaped(question.asserted_by)} says it is from {escaped(view.from_)}" if question.asserted_by else ""
    return question.answer(VerdictKind.UNSIGNED, f"{text}{who}.", from_=view.from_, content=obj)

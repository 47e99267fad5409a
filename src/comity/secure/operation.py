"""A subscribe or unsubscribe, signed by the watcher end to end (SEC-34; docs/reference/operation-object.md).

Place on the path: before step 1 at the watcher, and after the path at the presentity's side or at whoever's policy asks for
it. The shape is ours: a message/cpim with From = watcher, To = presentity, DateTime, Message-ID and the operation in headers of
a namespace of its own, signed whole by ``signing.sign``. It crosses gateways untouched beside the native operation
(``SubscribeOperation.proof``), and proves that she asked for exactly this, whatever her server or a gateway says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.entity import cpim_view
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Reason, SubscribeOperation
from comity.errors import AddressError, MalformedMessage, SecurityError
from comity.secure.chain import TrustStore
from comity.secure.freshness import ReplayMemory
from comity.secure.identity import Identity
from comity.secure.signing import sign
from comity.secure.verdict import Verdict, VerdictKind
from comity.secure.verifying import verify

NAMESPACE = "urn:comity:operation:0"
MOST_DURATION = 2**32 - 1
"""Of SIP's Expires (RFC 3261 section 20.19)."""
MOST_ID = 256
"""Octets of a SubscriptID; RFC 3859 section 3.1 wants at least 40."""
_NAMES = ("Operation", "SubscriptID", "Duration")


@dataclass(frozen=True, slots=True)
class SignedOperation:
    """What an operation object says."""

    name: str
    """"subscribe" or "unsubscribe"."""
    watcher: Address
    target: Address
    subscript_id: str
    duration: int
    message_id: str


def name_of(operation: SubscribeOperation) -> str:
    """What the watcher does: RFC 3859 section 3.4.3 has one operation for both, a signature should not."""
    return "subscribe" if operation.duration else "unsubscribe"


def sign_operation(operation: SubscribeOperation, identity: Identity, *, when: datetime, message_id: str) -> MimeObject:
    """Make the proof of an operation.

    Args:
        operation: what is asked for; its own ``proof`` is not looked at.
        identity: the watcher's.
        when: aware UTC, later with each operation: take it from a ``SigningClock`` (SEC-23).
        message_id: new for each operation.

    Raises:
        SecurityError: the operation cannot be expressed, or the key is unusable.
    """
    if not 0 <= operation.duration <= MOST_DURATION or not 0 < len(operation.subscript_id.encode()) <= MOST_ID:
        raise SecurityError("This operation cannot be signed: its duration or SubscriptID is out of range.")
    watcher, target = operation.watcher.with_scheme("pres"), operation.target.with_scheme("pres")
    text = f"{watcher.uri} asks to see the presence of {target.uri} for {operation.duration} seconds."
    if not operation.duration:
        text = f"{watcher.uri} asks to see the presence of {target.uri} no longer."
    message = CpimMessage.build(
        from_=watcher,
        to=target,
        date_time=when,
        message_id=message_id,
        headers=[
            ("NS", f"op <{NAMESPACE}>"),
            # A program that knows nothing of operations must not take it for a message (RFC 3862 section 4.7).
            ("Require", ",".join(f"op.{name}" for name in _NAMES)),
            ("op.Operation", name_of(operation)),
            ("op.SubscriptID", operation.subscript_id),
            ("op.Duration", str(operation.duration)),
        ],
        content=text.encode("utf-8"),
    )
    return sign(MimeObject.of("message/cpim", message.raw), identity, when=when)


def verify_operation(
    operation: SubscribeOperation, trust: TrustStore, *, now: datetime, replay: ReplayMemory
) -> Verdict:
    """Say whether the operation's proof proves this very operation.

    Args:
        operation: as it arrived, with its proof.
        trust: of whoever asks.
        now: aware UTC.
        replay: remembers the operations accepted, each once by (watcher, Message-ID); one that is older than the last
            of the same watcher about the same presentity is stale (R-08).

    Returns:
        VALID, or what is wrong; UNSIGNED without a proof. Nothing is remembered unless it is valid.
    """
    watcher, target = operation.watcher.with_scheme("pres"), operation.target.with_scheme("pres")
    if operation.proof is None:
        text = f"The operation came without a proof that {watcher.uri} asked for it."
        return Verdict(VerdictKind.UNSIGNED, "", watcher.uri, "", text)
    verdict = verify(operation.proof, trust, now=now, expected_from=watcher, expected_to=target)
    if verdict.verdict is VerdictKind.UNSIGNED:  # nothing is proved by it, and it is not the same as none
        return replace(verdict, verdict=VerdictKind.MALFORMED, reason="The proof of the operation is not signed.")
    if verdict.verdict is not VerdictKind.VALID or verdict.content is None:
        return verdict
    try:
        view = cpim_view(verdict.content)
        if view is None:
            raise MalformedMessage("it is no message/cpim")
        signed = read_operation(view)
    except MalformedMessage as error:
        return replace(verdict, verdict=VerdictKind.MALFORMED, reason=f"{verdict.signer} signed no operation: {error}.")
    difference = _difference(signed, operation)
    if difference:
        text = f"{verdict.signer} signed another operation: {difference}."
        return replace(verdict, verdict=VerdictKind.ENVELOPE_MISMATCH, reason=text)
    return _judge_repeat(verdict, signed, view, now, replay)


def _judge_repeat(
    verdict: Verdict, signed: SignedOperation, view: CpimMessage, now: datetime, replay: ReplayMemory
) -> Verdict:
    lane = f"{signed.watcher.key} {signed.target.key}"
    repeated = replay.check(lane, signed.message_id, view.date_time, now)
    if repeated is None and not replay.accept(lane, signed.message_id, view.date_time, now):
        repeated = VerdictKind.REPLAYED  # another thread or process accepted it since
    if repeated is VerdictKind.REPLAYED:
        return replace(verdict, verdict=repeated, reason="The same operation was accepted before.")
    if repeated is not None:
        text = "It is older than the last operation of this watcher about this presentity."
        return replace(verdict, verdict=repeated, reason=text, freshness="decreasing timestamp")
    return replace(verdict, reason=f"{verdict.signer} asked for this operation.")


def read_operation(view: CpimMessage) -> SignedOperation:
    """Read an operation out of a message/cpim. Raises MalformedMessage."""
    fields: dict[str, str] = {}
    for header in view.headers:
        if header.namespace == NAMESPACE:
            if header.name not in _NAMES or header.name in fields:
                raise MalformedMessage("an operation header is unknown or repeated", offset=header.offset)
            fields[header.name] = header.value
    if len(fields) < len(_NAMES):
        raise MalformedMessage("an operation header is missing")
    name, duration = fields["Operation"], fields["Duration"]
    if not duration.isascii() or not duration.isdigit() or len(duration) > 10 or int(duration) > MOST_DURATION:
        raise MalformedMessage("Duration is not a number of seconds")
    if name != ("subscribe" if int(duration) else "unsubscribe"):
        raise MalformedMessage("Operation and Duration do not fit together")
    if len(fields["SubscriptID"].encode()) > MOST_ID or not view.message_id:
        raise MalformedMessage("SubscriptID is too long, or there is no Message-ID")
    sender = view.sender
    if sender is None or len(view.to) != 1 or view.cc:
        raise MalformedMessage("an operation has one watcher and one presentity")
    try:
        target = Address.from_any(view.to[0].uri)
    except AddressError as error:
        raise MalformedMessage(f"To names no presentity: {error.reason}") from error
    return SignedOperation(
        name,
        sender.with_scheme("pres"),
        target.with_scheme("pres"),
        fields["SubscriptID"],
        int(duration),
        view.message_id,
    )


def _difference(signed: SignedOperation, operation: SubscribeOperation) -> str:
    """What the operation says otherwise than its proof, as the rest of a sentence; "" for nothing."""
    if signed.duration != operation.duration:
        return f"for {signed.duration} seconds, not {operation.duration}"
    if signed.subscript_id != operation.subscript_id:
        return "with another SubscriptID"
    if signed.watcher.key != operation.watcher.with_scheme("pres").key:
        return "for another watcher"
    if signed.target.key != operation.target.with_scheme("pres").key:
        return "about another presentity"
    return ""


def refusal_of(verdict: Verdict, *, is_required: bool) -> tuple[Reason, str] | None:
    """What to refuse an operation with, None to go on.

    A proof that is there and does not hold is refused always; one that is missing only where the policy of the presentity asks
    for one, else the rules of the hops are all there is (SEC-34).
    """
    if verdict.verdict is VerdictKind.VALID:
        return None
    if verdict.verdict is VerdictKind.UNSIGNED and not is_required:
        return None
    if verdict.verdict is VerdictKind.UNSIGNED:
        return Reason.PROTECTION, verdict.reason
    return verdict.refusal or Reason.DENIED, verdict.reason

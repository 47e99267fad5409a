"""The message operation's own rules: identity of a repeat, the record, the report of a failure.

Place on the path: between admission (step 5) and the store (step 7). The rule its readers must keep: a report is
never made for a report, and is stored before the message it reports on becomes terminal (OPS-13, F-K11).
"""

from __future__ import annotations

import os
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.message import CpimMessage, new_message_id
from comity.cpim.native import Disposition, disposition_report, is_report
from comity.cpim.operations import Context, Fate, MessageOperation, Reason, Report, Response, Status
from comity.service.envelope import Envelope, pack, unpack
from comity.service.ids import dedup_key, new_spine_id
from comity.service.interfaces import Origin, Record
from comity.service.routing import inbox_lane

FATES = {Status.SUCCESS: Fate.DELIVERED, Status.FAILURE: Fate.FAILED, Status.INDETERMINANT: Fate.DELAYED}
_STATUS: dict[Fate, Disposition] = {Fate.DELIVERED: "delivered", Fate.FAILED: "failed", Fate.DELAYED: "stored"}
WORDS = {
    Fate.DELIVERED: "It was delivered.",
    Fate.FAILED: "It could not be delivered.",
    Fate.DELAYED: "It is still on its way.",
}
REPORTER = "comity"
"""Local part of the address that speaks for the server; no account may have it."""

SENTENCES = {
    Reason.EXPIRED: "It could not be delivered in time.",
    Reason.TIMEOUT: "The recipient's device did not answer.",
    Reason.CONTENT: "The recipient's device cannot take this kind of message.",
    Reason.SIZE: "It is too large for the recipient's device.",
    Reason.DENIED: "The recipient's device refused it.",
    Reason.NO_SUCH_USER: "The recipient's device no longer knows this address.",
    Reason.PROTECTION: "The protection it requires cannot be kept on the way to the recipient's device.",
}


def dedup_keys(
    secret: bytes, operation: MessageOperation, origin: Origin, view: CpimMessage | None, *, is_transit: bool = False
) -> tuple[str, ...]:
    """The keys under which a repeat of this operation is recognised (reliability.md section 5.3).

    The edge's key holds the fields the binding gave (its fingerprint of the native octets among them); the
    CPIM-level key the object's own From and Message-ID, unless the object was made here a moment ago.

    In transit from one foreign domain to another what comes back with fewer hops left is no repeat but a loop: "yes" to it
    would end the message here with nobody told. It goes on until its hops are used up, and that is reported (APEX-15).
    """
    recipient = operation.destination.key
    # The same object sent again with a requirement is no repeat: "yes" to it would say that the requirement was kept.
    required = tuple(sorted(requirement.value for requirement in operation.requirements))
    if is_transit:
        required += (f"hops {operation.max_forwards}",)
    keys: list[str] = []
    if origin.dedup:
        keys.append(dedup_key(secret, ("edge", origin.principal.key, recipient, *origin.dedup, *required)))
    if view is not None and view.message_id and view.from_ is not None and not operation.is_wrapped:
        fields = ("cpim", view.from_.uri, view.message_id, recipient, operation.object.fingerprint)
        keys.append(dedup_key(secret, (*fields, *required)))
    return tuple(keys)


def envelope_of(
    operation: MessageOperation, origin: Origin, view: CpimMessage | None, asserted_by: str, note: str = ""
) -> bytes:
    """The packed envelope of an operation just admitted; ``note`` goes into our history entry."""
    return pack(
        operation,
        principal=origin.principal,
        in_protocol=origin.binding,
        is_protected=origin.is_protected,
        asserted_by=asserted_by,
        message_id="" if view is None else view.message_id or "",
        note=note,
    )


def record_of(
    operation: MessageOperation, envelope: bytes, expires: float, dedup: tuple[str, ...], lane: str = ""
) -> Record:
    """The one record that accepting the operation appends to ``lane``, "" for its recipient's inbox."""
    return Record(
        new_spine_id(),
        lane or inbox_lane(operation.destination.key),
        operation.object.entity,
        envelope,
        operation.object.fingerprint,
        expires,
        dedup,
    )


def report_operation(
    operation: MessageOperation, failed_id: str, response: Response, when: datetime, domain: str = ""
) -> MessageOperation | None:
    """The report to the sender, as an operation from the server; None where none may be made.

    Args:
        operation: the one it is about; its object may be empty if its octets are gone already.
        failed_id: that object's Message-ID as the envelope kept it.
        response: how it ended; indeterminant: it has not yet.
        when: now, UTC.
        domain: ours, in whose name it is made; "": the sender's own.
    """
    if operation.context.transient or operation.context.report is not None or is_report(operation.object):
        return None
    fate = FATES[response.status]
    if fate is not Fate.FAILED and not operation.context.wants_receipt:
        return None
    reason = response.reason or Reason.INTERNAL
    text = response.text or (SENTENCES.get(reason, WORDS[fate]) if fate is Fate.FAILED else WORDS[fate])
    reporter = Address.im(REPORTER, domain or operation.source.domain)
    thing = disposition_report(
        operation.object,
        sender=operation.source,
        recipient=operation.destination,
        when=when,
        message_id=new_message_id(os.urandom(12)),
        failed_id=failed_id,
        reporter=reporter,
        status=_STATUS[fate],
    )
    context = Context(
        thread=operation.context.thread,
        resource=operation.context.source_resource,
        kind=operation.context.kind,
        report=Report(
            reason, text, operation.destination, operation.context.native_id, fate, response.form, response.at
        ),
        wants_receipt="" if fate is Fate.FAILED else operation.context.wants_receipt,
    )
    return MessageOperation(reporter, operation.source, new_spine_id(), thing, context=context, is_wrapped=True)


def report_record(
    report: MessageOperation, secret: bytes, about: str, expires: float, lane: str
) -> tuple[Record, Envelope]:
    """The record that stores a report about spine ID ``about`` in ``lane``, once however often it is made."""
    origin = Origin(report.source, "comity", "", True)
    packed = envelope_of(report, origin, None, report.source.domain)
    fate = Fate.FAILED if report.context.report is None else report.context.report.fate
    key = dedup_key(secret, ("report", about) if fate is Fate.FAILED else ("report", about, fate.value))
    return record_of(report, packed, expires, (key,), lane), unpack(packed)

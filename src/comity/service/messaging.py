"""The message operation's own rules: identity of a repeat, the record, the report of a failure.

Place on the path: between admission (step 5) and the store (step 7). The rule its readers must keep: a report is
never made for a report, and is stored before the message it reports on becomes terminal (OPS-13, F-K11).
"""

from __future__ import annotations

import os
from datetime import datetime

from comity.cpim.address import Address
from comity.cpim.imdn import DISPLAY, POSITIVE, PROCESSING, disposition_report, is_report
from comity.cpim.message import CpimMessage, new_message_id
from comity.cpim.operations import Context, Fate, MessageOperation, Reason, Report, Response, Status
from comity.service.envelope import Envelope, pack, unpack
from comity.service.ids import dedup_key, new_spine_id
from comity.service.interfaces import Origin, Record
from comity.service.routing import inbox_lane

FATES = {Status.SUCCESS: Fate.DELIVERED, Status.FAILURE: Fate.FAILED, Status.INDETERMINANT: Fate.DELAYED}
_STATUS = {Fate.DELIVERED: "delivered", Fate.FAILED: "failed", Fate.DELAYED: "stored", Fate.DISPLAYED: "displayed"}
FATE_OF = {"delivered": Fate.DELIVERED, "displayed": Fate.DISPLAYED, "failed": Fate.FAILED}
"""What a recipient's notification says; "processed" and "stored" are no recipient's to say (RFC 5438 section 7.2.1)."""
_WISH = {Fate.DELIVERED: POSITIVE, Fate.DISPLAYED: DISPLAY, Fate.DELAYED: PROCESSING}
WORDS = {
    Fate.DELIVERED: "It was delivered.",
    Fate.FAILED: "It could not be delivered.",
    Fate.DELAYED: "It is still on its way.",
    Fate.DISPLAYED: "It was displayed.",
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
    if view is not None and operation.is_wrapped and operation.context.asks:
        keys.append(about_key(secret, view.message_id, operation.destination))
    return tuple(keys)


def about_key(secret: bytes, message_id: str, recipient: Address) -> str:
    """Under which a notification finds the message it is about, of those whose object was made here: such a Message-ID was never
    used before, and its recipient alone may speak of it (T21)."""
    return dedup_key(secret, ("about", message_id, recipient.key))


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
        date_time=view.date_time_text if view is not None and operation.context.asks else "",
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


def _is_asked(context: Context, fate: Fate) -> bool:
    """Whether the sender wants to be told that; of a receipt her protocol has, or of a notification (RFC 5438 section 7.1.1.3)."""
    return (bool(context.wants_receipt) and fate is not Fate.DISPLAYED) or _WISH[fate] in context.asks.split()


def report_operation(
    operation: MessageOperation,
    envelope: Envelope,
    response: Response,
    when: datetime,
    *,
    domain: str = "",
    fate: Fate | None = None,
) -> MessageOperation | None:
    """The report to the sender, as an operation from the server; None where none may be made.

    Args:
        operation: the one it is about; its object may be empty if its octets are gone already.
        envelope: which kept the object's Message-ID and time.
        response: how it ended; indeterminant: it has not yet.
        when: now, UTC.
        domain: ours, in whose name it is made; "": the sender's own.
        fate: what a device said of it; None: what the response says.
    """
    if operation.context.transient or operation.context.report is not None or is_report(operation.object):
        return None
    fate = fate or FATES[response.status]
    if fate is not Fate.FAILED and not _is_asked(operation.context, fate):
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
        about_id=envelope.message_id,
        about_time=envelope.date_time,
        reporter=reporter,
        status=_STATUS[fate],
    )
    context = Context(
        thread=operation.context.thread,
        resource=operation.context.source_resource,
        kind=operation.context.kind,
        report=Report(
            reason,
            text,
            operation.destination,
            operation.context.native_id,
            fate,
            response.form,
            response.at,
            response.condition,
        ),
        wants_receipt="" if fate is Fate.FAILED else operation.context.wants_receipt or envelope.in_protocol,
        asks=operation.context.asks,
    )
    return MessageOperation(reporter, operation.source, new_spine_id(), thing, context=context, is_wrapped=True)


def report_record(
    report: MessageOperation, secret: bytes, about: str, expires: float, lane: str
) -> tuple[Record, Envelope]:
    """The record that stores a report about spine ID ``about`` in ``lane``, once however often it is made."""
    origin = Origin(report.source, "comity", "", True)
    packed = envelope_of(report, origin, None, report.source.domain)
    fate = Fate.FAILED if report.context.report is None else report.context.report.fate
    keys = [dedup_key(secret, ("report", about) if fate is Fate.FAILED else ("report", about, fate.value))]
    if fate is Fate.DELIVERED and POSITIVE in report.context.asks.split():
        keys.append(dedup_key(secret, ("report", about)))  # one notification of a kind: not "failed" after it (IMDN-6)
    return record_of(report, packed, expires, tuple(keys), lane), unpack(packed)

"""A record's envelope: everything beside the object, as octets the store does not look into.

Place on the path: step 7. ``pack`` makes a ``Record`` of an operation just admitted, ``unpack`` gives the
operation back, after a restart too. The object's octets are only joined to and cut from their MIME headers.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import msgspec

from comity.cpim.address import Address
from comity.cpim.operations import (
    Context,
    Fate,
    HistoryEntry,
    MessageOperation,
    MimeObject,
    Reason,
    Report,
    Requirement,
)
from comity.errors import AddressError, StoreError
from comity.service.interfaces import Item, Record


class _Report(msgspec.Struct, array_like=True):
    reason: str
    text: str
    recipient: str
    native_id: str
    fate: str = Fate.FAILED.value
    form: str = ""
    at: str = ""
    condition: str = ""


class _Hop(msgspec.Struct, array_like=True):
    node: str
    in_protocol: str
    out_protocol: str
    when: datetime
    note: str
    in_tls: bool | None = None
    out_tls: bool | None = None


class Envelope(msgspec.Struct, array_like=True):
    """The stored form; fields are only ever appended (an older row lacks the last ones)."""

    source: str
    destination: str
    trans_id: str
    max_forwards: int
    header_octets: int
    """Length of the entity's header block; the object's octets begin two after it."""
    principal: str
    in_protocol: str
    is_protected: bool
    asserted_by: str = ""
    message_id: str = ""
    history: list[_Hop] = []
    context: dict[str, Any] = {}
    report: _Report | None = None
    requirements: list[str] = []
    note: str = ""
    """What this node says of the message in its history entry."""
    date_time: str = ""
    """The object's own, where its sender asks to be told what becomes of it."""
    is_made_here: bool = False
    """The object was made here of a native message: what its sender wants to be told is for us to say, not for who gets it whole."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Envelope)

_DEFAULT = Context()
_HINTS = tuple(name for name in Context.__slots__ if name != "report")


def pack(
    operation: MessageOperation,
    *,
    principal: Address,
    in_protocol: str,
    is_protected: bool,
    asserted_by: str,
    message_id: str,
    note: str = "",
    date_time: str = "",
) -> bytes:
    """Encode what a record keeps beside the entity."""
    context, report = operation.context, operation.context.report
    hints = {name: value for name in _HINTS if (value := getattr(context, name)) != getattr(_DEFAULT, name)}
    return _encoder.encode(
        Envelope(
            operation.source.uri,
            operation.destination.uri,
            operation.trans_id,
            operation.max_forwards,
            len(operation.object.header_block),
            principal.uri,
            in_protocol,
            is_protected,
            asserted_by,
            message_id,
            [
                _Hop(h.node, h.in_protocol, h.out_protocol, h.when, h.note, h.in_tls, h.out_tls)
                for h in operation.history
            ],
            hints,
            None
            if report is None
            else _Report(
                report.reason.value,
                report.text,
                report.recipient.uri,
                report.native_id,
                report.fate.value,
                report.form,
                report.at,
                report.condition,
            ),
            sorted(requirement.value for requirement in operation.requirements),
            note,
            date_time,
            operation.is_wrapped,
        )
    )


def unpack(octets: bytes) -> Envelope:
    """Decode an envelope. Raises StoreError for octets that are none (a poison row)."""
    try:
        return _decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"a stored envelope cannot be read: {error}") from error


def operation_of(record: Record, envelope: Envelope) -> MessageOperation:
    """The operation a record holds. Raises StoreError if entity and envelope do not fit together."""
    entity, cut = record.entity, envelope.header_octets
    if entity[cut : cut + 2] != b"\r\n":
        raise StoreError(f"the entity of {record.id} does not fit its envelope")
    thing = MimeObject(entity[:cut], entity[cut + 2 :])
    if thing.fingerprint != record.fingerprint:
        raise StoreError(f"the octets of {record.id} do not match their fingerprint")
    return operation_with(envelope, thing)


def operation_alone(envelope: Envelope) -> MessageOperation:
    """The operation of an envelope without its object, which may be gone: a report needs no more, nor is it held to what
    the message required, were it in words of a later version."""
    return operation_with(msgspec.structs.replace(envelope, requirements=[]), MimeObject(b"", b""))


def operation_with(envelope: Envelope, thing: MimeObject) -> MessageOperation:
    """The operation of an envelope and an object. Raises StoreError for values that are none (a poison row)."""
    kept = envelope.report
    report = None
    try:
        if kept is not None:
            recipient = Address.parse(kept.recipient)
            reason, fate = Reason(kept.reason), Fate(kept.fate)
            report = Report(reason, kept.text, recipient, kept.native_id, fate, kept.form, kept.at, kept.condition)
        return MessageOperation(
            Address.parse(envelope.source),
            Address.parse(envelope.destination),
            envelope.trans_id,
            thing,
            envelope.max_forwards,
            Context(**envelope.context, report=report),
            history_of(envelope),
            # A word this version does not know raises: such a row is parked and reported, never sent on without it.
            requirements=frozenset(map(Requirement, envelope.requirements)),
        )
    except (AddressError, TypeError, ValueError) as error:
        raise StoreError(f"a stored envelope holds what cannot be: {error}") from error


def history_of(envelope: Envelope) -> tuple[HistoryEntry, ...]:
    """The nodes a message had passed when it came here."""
    return tuple(
        HistoryEntry(h.node, h.in_protocol, h.out_protocol, h.when, h.note, h.in_tls, h.out_tls)
        for h in envelope.history
    )


DROPPED: Final = "Dropped by the operator."


class Outcome(msgspec.Struct, omit_defaults=True):
    """How a record ended; kept with it for ``comity trace``."""

    outcome: str
    """delivered, failed, expired, dropped or parked."""
    when: datetime
    out: str = ""
    """Binding that took it."""
    form: str = ""
    reason: str = ""
    text: str = ""
    out_tls: bool | None = None
    """Whether the link it left by was under TLS."""
    at: str = ""
    """The node at which its object ended, where only the text went on."""


_outcome_encoder = msgspec.json.Encoder()
_outcome_decoder = msgspec.json.Decoder(Outcome)


def pack_outcome(outcome: Outcome) -> bytes:
    """Encode an outcome for ``Ack``."""
    return _outcome_encoder.encode(outcome)


def unpack_outcome(octets: bytes) -> Outcome:
    """Decode an outcome. Raises StoreError for octets that are none."""
    try:
        return _outcome_decoder.decode(octets)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(f"a stored outcome cannot be read: {error}") from error


def operation_of_item(item: Item) -> tuple[MessageOperation, Envelope]:
    """Both halves of a pending record. Raises StoreError for a poison row."""
    envelope = unpack(item.record.envelope)
    return operation_of(item.record, envelope), envelope

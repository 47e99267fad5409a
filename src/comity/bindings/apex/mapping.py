"""Between ``data`` and message operations (tables T1, T2, T6 and T7 of conformance.md), both ways. Pure.

Place on the path: steps 4 and 8. One data with n recipients is n operations. A part that is message/cpim, or signed or encrypted, is
the object as it is; anything else is wrapped once (GW-1) and unwrapped again for other APEX endpoints, octet for octet with the
headers it came with (APEX-11). Rule its readers must keep: ``Part.octets`` and ``Inline.octets`` are only carried, or cut from
the object they were put in.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256
from typing import Any, Final

from comity.bindings.apex.elements import Content, Data, DataHopping, Error, Inline, Option, Originator, Part, Recipient
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.options import (
    DATA_HOPPING,
    DATA_TIMING,
    MAX_HOPS,
    RELAYS_OWN,
    Asked,
    history_option,
    not_understood,
    protection_option,
    read_options,
    status_of,
)
from comity.bindings.apex.report import Wanted
from comity.bindings.apex.wire import read_option_content, write_option_content
from comity.cpim.address import Address
from comity.cpim.composing import composing_in
from comity.cpim.delivered import sealed_words
from comity.cpim.entity import CPIM_TYPE, SECURED, content_object, decode_transfer
from comity.cpim.message import CpimMessage
from comity.cpim.native import wrap
from comity.cpim.operations import (
    INITIAL_MAX_FORWARDS,
    Context,
    MessageOperation,
    MimeObject,
    Reason,
    Response,
    failure,
    unfold,
)
from comity.errors import AddressError, LocalProtocolError

PROTOCOL: Final = "apex"
#: What a whole XML element inside the data is, once it stands by itself.
_XML_BLOCK: Final = b"Content-Type: application/xml; charset=utf-8\r\n"
XMPP_XML: Final = "application/xmpp+xml"
#: A header line with its folded rest.
_HEADER = re.compile(rb"[^\r\n]+\r\n(?:[ \t][^\r\n]*\r\n)*")
_to_json: Final = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_NOT_HEADERS: Final = ("content-type", "content-id")


@dataclass(frozen=True, slots=True)
class Incoming:
    """What one data is for one recipient."""

    recipient: Endpoint
    wanted: Wanted
    operation: MessageOperation | Error
    """Or why it becomes none."""
    dedup: tuple[str, ...] = ()
    """The edge's key (reliability.md section 5.3)."""


@dataclass(frozen=True, slots=True)
class _Native:
    """What only APEX endpoints and relays get of a data: see ``Context.native``."""

    form: str
    """``whole``: the part is the object; ``bare``: it stands wrapped in the object; ``inline``: the same for an element."""
    label: str
    """Content-ID, or the Name of an inline element."""
    header_block: bytes = b""
    """Of a bare part, as it stood."""
    data: tuple[Option, ...] = ()
    originator: tuple[Option, ...] = ()
    recipient: tuple[Option, ...] = ()


def data_to_operations(
    data: Data,
    *,
    when: datetime,
    new_id: Callable[[], str],
    new_message_id: Callable[[], str],
    serves: Callable[[str], bool],
    is_relay: bool = False,
) -> list[Incoming] | Error:
    """Read a data of people; its originator was checked, none of its recipients is a service.

    Args:
        when: time of receipt, aware.
        new_id: makes a TransID.
        new_message_id: makes the Message-ID of an object that has to be made.
        serves: whether a domain (A-labels) is one of ours.
        is_relay: a relay hands it in: it may say by what way it came.

    Returns:
        One for each recipient, in order; or the error for the whole.
    """
    if (refused := not_understood(data.options, "data", is_final=False)) is not None:
        return refused
    asked = read_options(data.options)
    if isinstance(asked, Error):
        return asked
    if (refused := not_understood(data.originator.options, "originator", is_final=False)) is not None:
        return refused
    try:
        source = data.originator.identity.to_address()
    except AddressError as error:
        return Error(501, error.reason)
    reader = _Reader(data, asked, source, (when, new_id, new_message_id), is_relay=is_relay)
    return [reader.read(recipient, is_final=serves(recipient.identity.domain)) for recipient in data.recipients]


class _Reader:
    """One data being read; what is the same for all recipients is made once."""

    def __init__(
        self,
        data: Data,
        asked: Asked,
        source: Address,
        made: tuple[datetime, Callable[[], str], Callable[[], str]],
        *,
        is_relay: bool,
    ) -> None:
        self._data = data
        self._asked = asked
        self._source = source
        self._when, self._new_id, self._new_message_id = made
        self._object = _whole_object(data.content)
        """None if each recipient gets one made for him."""
        self._fingerprint = (
            sha256(data.content.octets).hexdigest() if self._object is None else self._object.fingerprint
        )
        self._is_report = data.content.octets.lstrip().startswith(b"<statusResponse")
        """Nothing is ever reported about a report (RFC 3340 section 5.1, P-31)."""
        self._history = asked.history if is_relay else ()
        hops = asked.hopping.no_more_than
        self._max_forwards = hops - 1 if hops else INITIAL_MAX_FORWARDS
        self._native = _native_of(data, is_whole=self._object is not None)

    def read(self, recipient: Recipient, *, is_final: bool) -> Incoming:
        identity, asked = recipient.identity, self._asked
        try:
            status = 0 if self._is_report else status_of(recipient.options) or asked.status
        except WireError as error:
            return Incoming(identity, Wanted(identity), Error(error.code, error.reason))
        wanted = Wanted.of(identity, asked, status)
        refused = not_understood(recipient.options, "recipient", is_final=is_final)
        if refused is None and is_final:
            data = self._data
            refused = not_understood(data.options, "data") or not_understood(data.originator.options, "originator")
        if refused is not None:
            return Incoming(identity, wanted, refused)
        try:
            destination = identity.to_address()
            thing = self._object or self._wrapped(destination)
        except AddressError as error:
            return Incoming(identity, wanted, Error(550, error.reason))
        except LocalProtocolError as error:
            return Incoming(identity, wanted, Error(504, f"the content cannot be carried: {error}"))
        operation = MessageOperation(
            self._source,
            destination,
            self._new_id(),
            thing,
            self._max_forwards,
            self._context(identity, wanted, recipient.options),
            self._history,
            is_wrapped=self._object is None,
            requirements=asked.requirements,
        )
        return Incoming(identity, wanted, operation, self._dedup(identity, status))

    def _context(self, recipient: Endpoint, wanted: Wanted, options: tuple[Option, ...]) -> Context:
        timing = self._asked.timing
        native = self._native
        if options:
            native = replace(native, recipient=_kept(options))
        return Context(
            source_resource=self._data.originator.identity.subaddress,
            resource=recipient.subaddress,
            native_id=wanted.write(),
            lifetime=timing.no_later_than / 1000 or None,
            native_protocol=PROTOCOL,
            native=_pack(native),
            wants_receipt=PROTOCOL if wanted.wants_receipt else "",
            report_after=timing.report_after / 1000 or None,
        )

    def _wrapped(self, destination: Address) -> MimeObject:
        content = self._data.content
        thing = MimeObject(content.header_block if isinstance(content, Part) else _XML_BLOCK, content.octets)
        return wrap(
            self._source,
            destination,
            thing.octets,
            thing.content_type,
            when=self._when,
            message_id=self._new_message_id(),
            content_headers=_content_headers(thing) if isinstance(content, Part) else (),
        )

    def _dedup(self, recipient: Endpoint, status: int) -> tuple[str, ...]:
        """An inline element has no Content-ID; a statusRequest's transID serves as well, and without it nothing does."""
        content = self._data.content
        label = content.content_id if isinstance(content, Part) else str(status or "")
        if not label:
            return ()
        return (PROTOCOL, str(self._data.originator.identity), str(recipient), label, self._fingerprint)


def _whole_object(content: Content) -> MimeObject | None:
    """The object a data carries as it is; None for content that has to be wrapped."""
    if not isinstance(content, Part):
        return None
    thing = MimeObject(content.header_block, content.octets)
    return thing if thing.media_type == CPIM_TYPE or thing.media_type in SECURED else None


def _content_headers(thing: MimeObject) -> list[tuple[str, str]]:
    """MIME headers of a bare part that its object repeats; all of them stay in ``Context.native`` as they stood."""
    found: list[tuple[str, str]] = []
    for line in unfold(thing.header_block):
        name, colon, value = line.partition(":")
        name = name.strip()
        if colon and name.lower().startswith("content-") and name.lower() not in _NOT_HEADERS:
            found.append((name, value.strip()))
    return found


# --- what only APEX understands -----------------------------------------------------------------------------------------


def _native_of(data: Data, *, is_whole: bool) -> _Native:
    content = data.content
    if isinstance(content, Inline):
        form, label, block = "inline", content.name, b""
    else:
        form, label, block = (
            ("whole", content.content_id, b"") if is_whole else ("bare", content.content_id, content.header_block)
        )
    return _Native(form, label, block, _kept(data.options), _kept(data.originator.options))


def _kept(options: Sequence[Option]) -> tuple[Option, ...]:
    """The options to be passed on: not what was for this relay alone, nor what every relay says anew."""
    if not options:
        return ()
    return tuple(option for option in options if option.target_hop != "this" and option.external not in RELAYS_OWN)


def _pack(native: _Native) -> bytes:
    rows = [[_packed(option) for option in options] for options in (native.data, native.originator, native.recipient)]
    block = native.header_block.decode("utf-8", "surrogateescape")
    return _to_json([native.form, native.label, block, *rows]).encode("ascii")


def _packed(option: Option) -> list[Any]:
    content = option.content.decode("utf-8")
    name = (option.internal, option.external)
    return [*name, option.target_hop, option.must_understand, option.trans_id, option.localize, content]


def _unpacked(row: list[Any]) -> Option:
    internal, external, target_hop, must_understand, trans_id, localize, content = row
    return Option(internal, external, target_hop, must_understand, trans_id, localize, content.encode("utf-8"))


def _unpack(context: Context) -> _Native | None:
    """What ``_pack`` wrote; None where the sender's protocol was another, or another version's words stand there."""
    if context.native_protocol != PROTOCOL or not context.native:
        return None
    try:
        form, label, block, *rows = json.loads(context.native)
        data, originator, recipient = (tuple(map(_unpacked, options)) for options in rows)
        return _Native(form, label, block.encode("utf-8", "surrogateescape"), data, originator, recipient)
    except (ValueError, TypeError, IndexError, AttributeError):
        return None


# --- down ---------------------------------------------------------------------------------------------------------------


def operation_to_data(
    operation: MessageOperation,
    *,
    recipient: Endpoint,
    delivery_id: str,
    domain: str,
    age: float,
    new_trans_id: Callable[[], int],
    is_final: bool = True,
) -> Data | Response:
    """Make the data for one endpoint or, with ``is_final`` False, for the next relay; or say why it cannot be.

    Args:
        recipient: whom it is written to: the endpoint as it is attached.
        delivery_id: constant over attempts; makes the Content-ID where the sender gave none.
        domain: our own.
        age: seconds since it was accepted here: so much less is left of dataTiming's noLaterThan.
        new_trans_id: makes the transID of an option of ours.
    """
    if operation.context.transient and composing_in(operation.object) is not None:
        return failure(operation.trans_id, Reason.CONTENT, "The recipient's application knows nothing of typing.")
    if operation.object.media_type == XMPP_XML:
        sealed = operation.context.sealed
        text = sealed_words(sealed) if sealed else "The recipient's application cannot take an XMPP stanza."
        return failure(operation.trans_id, Reason.CONTENT, text)
    native = _unpack(operation.context)
    try:
        originator = _originator(operation)
    except AddressError as error:
        return failure(operation.trans_id, Reason.CONTENT, f"The sender has no name in APEX: {error.reason}.")
    options = _options(operation, native, age, new_trans_id, is_final=is_final)
    if isinstance(options, Response):
        return options
    return Data(
        Originator(originator, native.originator if native else ()),
        (Recipient(recipient, native.recipient if native else ()),),
        _content(operation.object, native, f"{delivery_id}@{domain}"),
        options,
    )


def _originator(operation: MessageOperation) -> Endpoint:
    """The sender's endpoint; a device name that APEX cannot write is left out, the address may not be."""
    resource = operation.context.source_resource
    if resource:
        try:
            return Endpoint.of(operation.source, resource)
        except AddressError:
            pass  # the bare address is a return address too (OPS-10)
    return Endpoint.of(operation.source)


def _content(thing: MimeObject, native: _Native | None, content_id: str) -> Content:
    if native is None or native.form == "whole":
        return object_part(thing, native.label if native else content_id)
    inner = content_object(CpimMessage.parse(decode_transfer(thing)))
    if native.form == "inline":
        return Inline(inner.octets, native.label)
    return Part(native.header_block, inner.octets, native.label)


def object_part(thing: MimeObject, content_id: str) -> Part:
    """An object as the part of a data element, whole."""
    block = thing.header_block
    if b"content-id" in block.lower():  # a SIP request may have one; here it is the part's own
        block = b"".join(line for line in _HEADER.findall(block) if not line.lower().startswith(b"content-id"))
    return Part(block, thing.octets, content_id)


def _options(
    operation: MessageOperation, native: _Native | None, age: float, new_trans_id: Callable[[], int], *, is_final: bool
) -> tuple[Option, ...] | Response:
    options: list[Option] = []
    has_hopping = False
    for option in native.data if native else ():
        if option.internal == DATA_TIMING:
            aged = _aged(option, age)
            if aged is None:
                return failure(operation.trans_id, Reason.EXPIRED, "It could not be delivered in time.")
            options.append(aged)
        elif option.internal == DATA_HOPPING and not is_final:
            has_hopping = True
            options.append(replace(option, content=_hopping(operation, option)))
        else:
            options.append(option)
    if not is_final and not has_hopping:
        content = write_option_content(DataHopping(_hops(operation)))
        options.append(Option(DATA_HOPPING, "", "all", must_understand=True, trans_id=new_trans_id(), content=content))
    if operation.history:
        options.append(history_option(operation.history, new_trans_id()))
    if operation.requirements:
        options.append(protection_option(operation.requirements, new_trans_id()))
    return tuple(options)


def _hops(operation: MessageOperation) -> int:
    """T2: one more than the core's count, and never 0, which would mean no limit."""
    return min(operation.max_forwards + 1, MAX_HOPS)


def _hopping(operation: MessageOperation, option: Option) -> bytes:
    reports = b"reportErrors='true'" in option.content or b'reportErrors="true"' in option.content
    return write_option_content(DataHopping(_hops(operation), report_errors=reports))


def _aged(option: Option, age: float) -> Option | None:
    """A dataTiming with the time it took here taken off (RFC 3342 sections 2.1 and 2.2); None if none is left."""
    try:
        timing = read_option_content(option, DATA_TIMING)
    except WireError:
        return option  # a second one of its name: nobody read it
    spent = max(0, round(age * 1000))
    later = timing.no_later_than - spent
    if timing.no_later_than and later <= 0:
        return None
    after = max(0, timing.report_after - spent) if timing.report_after else 0
    changed = replace(timing, no_later_than=later if timing.no_later_than else 0, report_after=after)
    return option if changed == timing else replace(option, content=write_option_content(changed))

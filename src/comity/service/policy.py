"""Step 5, admission: may this sender send this object to this recipient? Reasons for every refusal.

The order is RFC 3860 section 3.4.1's: syntax of source and destination, resolution, access, delivery; the first
check that fails gives the reason (OPS-4). Sender binding (C-20, S-06, X-46) cannot be switched off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from comity.cpim.address import Address
from comity.cpim.entity import content_object, content_type_params, cpim_view
from comity.cpim.message import DEFAULT as DEFAULT_CPIM
from comity.cpim.message import CpimLimits, CpimMessage, check_profile
from comity.cpim.operations import (
    MessageOperation,
    MimeObject,
    Reason,
    Requirement,
    Response,
    SubscribeOperation,
    failure,
    unfold,
)
from comity.cpim.protection import unmet
from comity.errors import AddressError, MalformedMessage
from comity.service.interfaces import Contact, Origin

_ONE_HEADER = re.compile(rb"Content-Type: [^\x00-\x1f\x7f]+\r\n")
"""What nearly every object has, told at one look."""
_HEADER = re.compile(r"([!#$%&'*+\-.^_`|~0-9A-Za-z]+)[ \t]*:")
_STRAY = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n")


@dataclass(frozen=True)
class Limits:
    """Limits of the message operation (reliability.md section 6.2)."""

    object_octets: int = 128 * 1024
    """Largest object accepted."""
    lifetime: float = 72 * 3600.0
    """Seconds an accepted message may wait for its recipient."""
    dedup_window: float = 72 * 3600.0
    """Seconds a repeat is recognised; never less than the lifetime."""
    inbox_records: int = 1_000
    """Most messages stored for one recipient."""
    inbox_octets: int = 64 * 1024 * 1024
    hop_records: int = 200_000
    """Most messages stored for one other domain."""
    hop_octets: int = 4 * 1024 * 1024 * 1024
    cpim: CpimLimits = DEFAULT_CPIM
    """What is put up with inside an object."""
    future: timedelta = field(default=timedelta(minutes=15))
    """How far ahead an object's DateTime may be (reliability.md section 5.4)."""
    has_messages: bool = True
    """False: the operator switched messages off; presence goes on without them (SEED-45)."""


def check_served(operation: MessageOperation, limits: Limits) -> Response | None:
    """Messages are carried here at all; presence does without them and they without it (SEED-45)."""
    if not limits.has_messages:
        return failure(operation.trans_id, Reason.UNSERVED, "This server carries no messages, presence only.")
    return None


def check_addresses(operation: MessageOperation) -> Response | None:
    """Source and destination are im: addresses; the hop count is not used up below zero."""
    for name, address in (("source", operation.source), ("destination", operation.destination)):
        if address.scheme != "im":
            return failure(operation.trans_id, Reason.SYNTAX, f"The {name} of a message is an im: address.")
    if operation.max_forwards < 0:
        return failure(operation.trans_id, Reason.HOPS, "The message made too many hops.")
    return None


def no_such_user(operation: MessageOperation) -> Response:
    """The refusal for somebody unknown, and for whom the sender shall take for that."""
    return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such user here.")


def check_sender(operation: MessageOperation, origin: Origin, *, is_ours: bool) -> Response | None:
    """The envelope's source is the authenticated principal, a user of ours; or one of a domain that a peer server proved to
    speak for, which is never one of ours (T1, SEC-33)."""
    if origin.domains:
        if is_ours or not origin.speaks_for(operation.source.domain):
            return failure(operation.trans_id, Reason.DENIED, "That server does not speak for the sender's domain.")
    elif not is_ours or operation.source.key != origin.principal.key:
        return failure(operation.trans_id, Reason.DENIED, "The sender is not the one who signed in.")
    return None


def check_size(operation: MessageOperation, limits: Limits) -> Response | None:
    """The object is within the limit (C-27)."""
    if len(operation.object.octets) + len(operation.object.header_block) > limits.object_octets:
        return failure(operation.trans_id, Reason.SIZE, f"The message is larger than {limits.object_octets} octets.")
    return None


def check_object(
    operation: MessageOperation, when: datetime, limits: Limits, wire: Sequence[Address] = ()
) -> tuple[CpimMessage | None, Response | None]:
    """The message/cpim inside, where it can be seen, is well-formed, the sender's, and for the recipient.

    Args:
        wire: what sender and recipient are called on the link it came by (``Origin.wire``).

    Returns:
        The view (None for an object whose CPIM is hidden or absent) and the refusal, if any.
    """
    trans_id = operation.trans_id
    if fault := _header_fault(operation.object):
        return None, failure(trans_id, Reason.SYNTAX, f"The object is malformed: {fault}.")
    try:
        content_type_params(operation.object.content_type)  # a type that readers may see differently is none
        view = cpim_view(operation.object, limits=limits.cpim)
        if view is None:
            return None, None
        check_profile(view)
    except MalformedMessage as error:
        return None, failure(trans_id, Reason.SYNTAX, f"The message/cpim object is malformed: {error}.")
    assert view.from_ is not None
    senders, recipients = (operation.source, *wire[:1]), (operation.destination, *wire[1:])
    if not any(_names(view.from_.uri, sender) for sender in senders):
        return view, failure(trans_id, Reason.DENIED, "The object's From is not the one who signed in.")
    if _signed_by_other(view, senders, limits):
        return view, failure(trans_id, Reason.DENIED, "The message signed inside this one is not the sender's.")
    if not any(_names(to.uri, recipient) for recipient in recipients for to in (*view.to, *view.cc)):
        return view, failure(trans_id, Reason.DENIED, "The recipient is not in the object's To or cc.")
    if view.date_time is not None and view.date_time > when + limits.future:
        return view, failure(trans_id, Reason.TIMESTAMP, "The object's DateTime lies in the future.")
    return view, None


def _signed_by_other(view: CpimMessage, senders: Sequence[Address], limits: Limits) -> bool:
    """True for a message signed by somebody else in an envelope of the sender's: programs would mix the two up (M-06).

    Whoever wants to show it to others attaches it, as one part of a multipart.
    """
    if b"multipart/signed" not in view.content_header_block.lower():
        return False  # told at one look for nearly every message
    content = content_object(view)
    if content.media_type != "multipart/signed":
        return False
    try:
        inner = cpim_view(content, limits=limits.cpim)
    except MalformedMessage:
        return False  # what lies deeper and cannot be read is opaque (C-31)
    if inner is None:
        return False
    return inner.from_ is None or not any(_names(inner.from_.uri, sender) for sender in senders)


def _header_fault(thing: MimeObject) -> str:
    """What is wrong with the object's MIME header ("" for nothing): two readers would see two objects (T5)."""
    if _ONE_HEADER.fullmatch(thing.header_block):
        return ""
    names = [_HEADER.match(line) for line in unfold(thing.header_block)]
    if not all(names) or _STRAY.search(thing.header_block):
        return "a MIME header line is not name: value"
    found = [match[1].lower() for match in names if match]
    if "content-type" not in found:
        return "it has no Content-Type"
    repeated = next((name for name in found if name.startswith("content-") and found.count(name) > 1), "")
    return f"{repeated} stands more than once" if repeated else ""


def check_requirements(operation: MessageOperation, origin: Origin) -> Response | None:
    """What the sender requires holds up to here: the way it came by, and the object itself (T11)."""
    if Requirement.TLS in operation.requirements and not origin.is_protected:
        text = "The message requires TLS on every hop and did not come under TLS."
        return failure(operation.trans_id, Reason.PROTECTION, text)
    if missing := unmet(operation.object, operation.requirements):
        return failure(operation.trans_id, Reason.PROTECTION, missing)
    return None


def check_link(operation: MessageOperation, contact: Contact) -> Response | None:
    """The link to this device keeps what the sender requires; asked anew for each attempt (T11)."""
    if Requirement.TLS in operation.requirements and not contact.is_protected:
        where = "the next server is not reached" if contact.is_hop else "the recipient's device is not connected"
        text = f"The message requires TLS on every hop and {where} under TLS."
        return failure(operation.trans_id, Reason.PROTECTION, text)
    return None


def check_watcher(operation: SubscribeOperation, origin: Origin, *, is_ours: bool) -> Response | None:
    """Subscribe and unsubscribe come from the watcher's own session or her authenticated domain (SEC-31, SEC-33, T19).

    Args:
        operation: names who wants it.
        origin: says who handed it in.
        is_ours: the watcher is of one of our domains, for which no other server ever speaks.
    """
    for name, address in (("watcher", operation.watcher), ("target", operation.target)):
        if address.scheme != "pres":
            return failure(operation.trans_id, Reason.SYNTAX, f"The {name} of a subscription is a pres: address.")
    if operation.duration < 0:
        return failure(operation.trans_id, Reason.SYNTAX, "The duration of a subscription is not negative.")
    watcher = operation.watcher.with_scheme("im")
    if origin.domains:
        is_hers = not is_ours and origin.speaks_for(watcher.domain)
    else:
        is_hers = watcher.key == origin.principal.with_scheme("im").key
    if not is_hers:
        return failure(operation.trans_id, Reason.DENIED, "The watcher is not the one who signed in.")
    return None


def check_holder(operation: SubscribeOperation, holder: Address) -> Response | None:
    """A SubscriptID is its watcher's: who names another's changes nothing and learns nothing (SEC-32, N-08).

    Args:
        operation: checked by ``check_watcher``.
        holder: watcher of the subscription that has the operation's SubscriptID.
    """
    if operation.watcher.key != holder.key:
        return failure(operation.trans_id, Reason.NO_SUCH_USER, "There is no such subscription.")
    return None


def check_hops(operation: MessageOperation) -> Response | None:
    """There is a hop left to another node (T2)."""
    if operation.max_forwards < 1:
        return failure(operation.trans_id, Reason.HOPS, "The message made too many hops.")
    return None


def check_loop(operation: MessageOperation, node: str) -> Response | None:
    """Only a message that came back to be sent on again is a loop; local delivery ends it anyway (GW-9)."""
    return loop(operation) if any(entry.node == node for entry in operation.history) else None


def loop(operation: MessageOperation) -> Response:
    """The refusal for what goes in circles."""
    return failure(operation.trans_id, Reason.LOOP, "The message came back to a node it had passed.")


def _names(uri: str, address: Address) -> bool:
    """True if an address in an object names ``address``; our users, who are folded already, without regard to case (C-22,
    ADDR-4)."""
    try:
        named = Address.from_any(uri)
        return named.key == address.key or named.folded().key == address.key
    except AddressError:
        return False

"""From message operation to message stanza (RFC 3922, 3923; tables T1, T5 and T8 of conformance.md).

Place on the path: step 8. Pure. Rules its readers must keep: a secured object leaves whole or not at all, and no
clear text ever stands beside an encrypted one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E, OCTETS, wrap_entity, wrap_octets
from comity.bindings.xmpp.extensions import (
    ASKED,
    BODY,
    DELAY,
    EME,
    FORM_ELEMENT,
    HINTS,
    HISTORY,
    HOPS,
    KINDS,
    MARKABLE,
    MARKERS,
    PROTOCOL,
    RECEIPTS,
    REQUEST,
    STANZA_ID,
    SUBJECT,
    THREAD,
    XMPP_XML,
    detail_element,
    is_server_only,
    language_tag,
    shown,
)
from comity.bindings.xmpp.protection import protection_element
from comity.bindings.xmpp.reasons import condition_for
from comity.bindings.xmpp.typing import state_of
from comity.bindings.xmpp.wire import CLIENT, MESSAGE
from comity.bindings.xmpp.xhtml import page_of
from comity.cpim.address import to_jid
from comity.cpim.composing import composing_in
from comity.cpim.entity import is_secured
from comity.cpim.history import HistoryEntry, tls_word
from comity.cpim.imdn import DISPLAY, POSITIVE, is_report
from comity.cpim.native import plain_texts, readable_part
from comity.cpim.operations import (
    Context,
    Fate,
    MessageOperation,
    MimeObject,
    Reason,
    Report,
    Response,
    failure,
)
from comity.cpim.protection import needs_whole
from comity.errors import AddressError, RemoteProtocolError
from comity.xml import XML_LANG, Element, is_xml_text, parse_document

UNCHECKED: Final = "[This message is signed, but this program did not check the signature.]"
UNREAD: Final = "[This message is encrypted, and this program cannot read it.]"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stanza for a device and what it carries (``Response.form``)."""

    stanza: Element
    form: str


def operation_to_stanza(
    operation: MessageOperation,
    *,
    delivery_id: str,
    domain: str,
    accepted: datetime,
    is_delayed: bool,
    features: frozenset[str] | None,
) -> Outgoing | Response:
    """Make the message stanza for one device, or the failure that says why it cannot be.

    Args:
        operation: what to deliver.
        delivery_id: constant over attempts; makes ``stanza-id`` and, where the sender's is not XMPP's, ``id``.
        domain: our own, for ``delay``.
        accepted: when the message was accepted here, aware.
        is_delayed: whether to say so (XEP-0203).
        features: what the device says it supports, None if it never said.
    """
    try:
        bare_to = to_jid(operation.destination)
        stanza = Element(MESSAGE, _addresses(operation, bare_to, delivery_id))
    except AddressError as error:
        return failure(operation.trans_id, Reason.SYNTAX, f"an address cannot be written as a JID: {error.reason}")
    report = operation.context.report
    if report is not None and report.fate is not Fate.FAILED:
        return _receipt(operation, report, bare_to, delivery_id)
    if report is not None:
        return Outgoing(_report(operation, report, stanza), "text")
    if needs_whole(operation.requirements):
        form = _add_whole(operation, stanza, features)
    else:
        form = _add_content(operation, stanza, features)
    if not form and needs_whole(operation.requirements):
        text = "The recipient's program does not say that it takes a message with the protection this one requires."
        return failure(operation.trans_id, Reason.PROTECTION, text)
    if not form:
        text = "The recipient's program cannot take this kind of content."
        return failure(operation.trans_id, Reason.CONTENT, text)
    if form.startswith("text"):
        stanza.children += _requests(operation.context)
    stanza.append(Element(f"{{{STANZA_ID}}}stanza-id", {"by": bare_to, "id": delivery_id}))
    if is_delayed:
        stanza.append(Element(f"{{{DELAY}}}delay", {"from": domain, "stamp": _stamp(accepted)}))
    if operation.history:
        stanza.append(history_element(operation.history))
    if operation.requirements:
        stanza.append(protection_element(operation.requirements))
    return Outgoing(stanza, form)


def _addresses(operation: MessageOperation, bare_to: str, delivery_id: str) -> dict[str, str]:
    context = operation.context
    sender = to_jid(operation.source)
    is_ours = context.native_protocol == PROTOCOL
    attributes = {
        "from": f"{sender}/{context.source_resource}" if context.source_resource else sender,
        "to": f"{bare_to}/{context.resource}" if context.resource else bare_to,
        "id": context.native_id if is_ours and context.native_id else f"{ASKED if context.asks else ''}{delivery_id}",
    }
    if context.kind in KINDS and context.kind != "normal":
        attributes["type"] = context.kind
    return {key: value for key, value in attributes.items() if is_xml_text(value)}


def _requests(context: Context) -> list[Element]:
    """What asks an XMPP program for a receipt or marker, as the sender of another protocol asked for notifications (IMDN-13)."""
    if context.native_protocol == PROTOCOL:
        return []  # hers stands among the extensions
    wishes = context.asks.split()
    return [Element(name) for wish, name in ((POSITIVE, REQUEST), (DISPLAY, MARKABLE)) if wish in wishes]


def _add_content(operation: MessageOperation, stanza: Element, features: frozenset[str] | None) -> str:
    """Fill the stanza; returns the form, "" if nothing this device could take would carry the object."""
    obj, context = operation.object, operation.context
    if is_report(obj) and not (features or frozenset()) & {E2E, OCTETS}:
        return ""  # for programs that speak of objects: an old one would show an empty message
    native = native_children(context) if context.native_protocol == PROTOCOL else []
    if context.transient and (status := composing_in(obj)) is not None:
        stanza.attributes.setdefault("type", "chat")  # XEP-0085 section 5.1 knows no other
        stanza.children += native or [state_of(status)]
        return "object"
    if obj.media_type == XMPP_XML and context.native_protocol == PROTOCOL and not native:
        children = xmpp_xml_children(obj)
        stanza.children += children
        return "object" if children else ""
    if context.thread and is_xml_text(context.thread):
        stanza.append(Element(THREAD, {}, [context.thread]))
    secured = is_secured(obj)
    is_said = context.native_protocol == PROTOCOL and context.native_is_whole and bool(native)
    form = "" if secured else "text" if is_said else _add_text(operation, stanza)
    if secured or features or not form:
        carrier = _carrier(obj, features, even_unasked=secured)
        if carrier is not None:
            stanza.append(carrier)
            # A device that says what it knows, and not this, will drop it in silence: that is not a delivery.
            form = "object" if features is None or features & {E2E, OCTETS} else form
    if secured and (readable := readable_part(obj)) is not None and is_xml_text(readable):
        # design.md section 2: who cannot show the object gets the readable part and is told what was not proved.
        stanza.append(Element(BODY, {}, [f"{_lines(readable)}\n\n{UNCHECKED}"]))
        if not form or not (features or frozenset()) & {E2E, OCTETS}:
            form = "text-of-signed"
    elif secured and form and features is None:
        # It may know e2e or not. A person whose program drops it in silence (RFC 3923 section 7) at least sees that
        # something came; who says that it cannot read it is not handed it at all (XMPP-25).
        stanza.append(Element(f"{{{EME}}}encryption", {"namespace": E2E, "name": "RFC 3923"}))
        stanza.append(Element(BODY, {}, [UNREAD]))
    if not form:
        return ""
    # Bodies in other languages stand beside a plain text only: never beside something encrypted.
    stanza.children += [child for child in native if not secured or child.namespace != CLIENT]
    return form


def _add_whole(operation: MessageOperation, stanza: Element, features: frozenset[str] | None) -> str:
    """The object and nothing beside it, for a program that said it takes such objects: no text in its place (T11)."""
    if not (features or frozenset()) & {E2E, OCTETS}:
        return ""
    carrier = _carrier(operation.object, features, even_unasked=False)
    if carrier is None:
        return ""
    if operation.context.thread and is_xml_text(operation.context.thread):
        stanza.append(Element(THREAD, {}, [operation.context.thread]))
    stanza.append(carrier)
    return "object"


def _add_text(operation: MessageOperation, stanza: Element) -> str:
    plains = plain_texts(operation.object)
    if not plains and (page := page_of(operation.object)) is not None:
        if operation.context.subject and is_xml_text(operation.context.subject):
            stanza.append(Element(SUBJECT, {}, [operation.context.subject]))
        stanza.children += [Element(BODY, {}, [page[0]]), page[1]]
        return "text"
    if not plains or not all(is_xml_text(plain.text) for plain in plains):
        return ""
    plain = plains[-1]
    for language, subject in plain.subjects:
        if is_xml_text(subject):
            tag = {} if language in ("", "i-default") else {XML_LANG: language}
            stanza.append(Element(SUBJECT, tag, [subject]))
    if not plain.subjects and operation.context.subject and is_xml_text(operation.context.subject):
        stanza.append(Element(SUBJECT, {}, [operation.context.subject]))
    language = plain.language or operation.context.language
    attributes = {XML_LANG: language} if language_tag(language) else {}
    if plain.text or not plain.subjects:
        stanza.append(Element(BODY, attributes, [_lines(plain.text)]))
    seen = {language.lower(), ""}
    for other in plains[:-1]:
        if (known := language_tag(other.language).lower()) not in seen:
            seen.add(known)
            stanza.append(Element(BODY, {XML_LANG: other.language}, [_lines(other.text)]))
    return "text"


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _carrier(obj: MimeObject, features: frozenset[str] | None, *, even_unasked: bool) -> Element | None:
    """The element that carries the object whole, if this device can take one (GW-2, XMPP-19).

    ``even_unasked``: put ``e2e`` in also for a device that never asked for it; it ignores what it does not know
    (RFC 3923 section 7), and what reads its archive later may.
    """
    known = features or frozenset()
    if (features is None or even_unasked or E2E in known) and (element := wrap_entity(obj.entity)) is not None:
        return element
    return wrap_octets(obj.entity) if OCTETS in known else None


def native_children(context: Context) -> list[Element]:
    """The extensions the sender's XMPP program put beside the text; what only servers may say is left out."""
    if not context.native:
        return []
    try:
        root = parse_document(b"<x xmlns='jabber:client'>" + context.native + b"</x>")
    except RemoteProtocolError:
        return []  # written by another version or another node: worth less than the message itself
    return [child for child in root.elements() if not is_server_only(child)]


def xmpp_xml_children(obj: MimeObject) -> list[Element]:
    """The children of the one message stanza in an application/xmpp+xml object; none if it holds anything else."""
    try:
        root = parse_document(obj.octets)
    except RemoteProtocolError:
        return []
    stanzas = list(root.elements())
    if root.name != f"{{{CLIENT}}}xmpp" or len(stanzas) != 1 or stanzas[0].name != MESSAGE:
        return []  # XMPP-24: exactly one, and what is not a message is never routed from here
    return [child for child in stanzas[0].elements() if not is_server_only(child)]


def history_element(history: Iterable[HistoryEntry]) -> Element:
    """The transport history as a child of the stanza (GW-8)."""
    hops: list[Element | str] = []
    for entry in history:
        attributes = {"node": entry.node, "in": entry.in_protocol, "out": entry.out_protocol}
        attributes["time"] = _stamp(entry.when)
        if word := tls_word(entry):
            attributes["tls"] = word
        if entry.note and is_xml_text(entry.note):
            attributes["note"] = entry.note
        hops.append(Element(f"{{{HISTORY}}}hop", attributes))
    return Element(f"{{{HISTORY}}}history", {}, hops)


def hops_element(max_forwards: int) -> Element:
    """How many nodes the message may still pass, for another server of ours (T2)."""
    return Element(HOPS, {"left": str(max_forwards)})


def _stamp(when: datetime) -> str:
    """XEP-0082's profile, always UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def form_told(account: str, recipient: str, key: str, response: Response) -> Element:
    """Our own server's word to the device that asked (``extensions.FORM``): in which form its message was delivered."""
    said = {"id": key, "to": recipient, "form": response.form}
    if response.at:
        said["at"] = response.at
    domain = account.partition("/")[0].rpartition("@")[2]
    return Element(MESSAGE, {"from": domain, "to": account, "type": "headline"}, [Element(FORM_ELEMENT, said)])


_RECEIPTS: Final = {Fate.DELIVERED: f"{{{RECEIPTS}}}received", Fate.DISPLAYED: f"{{{MARKERS}}}displayed"}


def _receipt(operation: MessageOperation, report: Report, bare_to: str, delivery_id: str) -> Outgoing | Response:
    """What became of a message whose sender asked, as an XMPP program knows it (XEP-0184, XEP-0333; IMDN-13)."""
    name = _RECEIPTS.get(report.fate)
    if name is None or not report.native_id or not is_xml_text(report.native_id):
        return failure(operation.trans_id, Reason.CONTENT, "There is no word for this in the sender's protocol.")
    attributes = {"from": to_jid(report.recipient), "to": bare_to, "id": delivery_id}
    if operation.context.kind == "chat":
        attributes["type"] = "chat"
    stanza = Element(MESSAGE, attributes, [Element(name, {"id": report.native_id})])
    return Outgoing(stanza.append(Element(f"{{{HINTS}}}store")), "text")


def _report(operation: MessageOperation, report: Report, stanza: Element) -> Element:
    """A failure report as the error stanza an XMPP program knows (GW-12)."""
    condition, kind, detail = condition_for(report.reason.value, exact=report.condition)
    stanza.attributes["type"] = "error"
    stanza.attributes["from"] = to_jid(report.recipient)
    if report.native_id and is_xml_text(report.native_id):
        stanza.attributes["id"] = report.native_id
    return stanza.append(
        wire.error_element(condition, shown(report.text), kind=kind, application=detail_element(detail))
    )

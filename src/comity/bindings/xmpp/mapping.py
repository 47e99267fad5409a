"""Between message stanzas and message operations (RFC 3922, 3923; tables T1, T3, T5 and T8 of conformance.md).

Place on the path: steps 4 and 8. Pure. Rules its readers must keep: an object found in a stanza is carried as it
is; one is made only from a native body, once; a secured object leaves whole or not at all, and no clear text ever
stands beside an encrypted one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import (
    E2E,
    E2E_ELEMENT,
    E2E_OLD_ERRORS,
    OCTETS,
    OCTETS_ELEMENT,
    unwrap_entity,
    unwrap_octets,
    wrap_entity,
    wrap_octets,
)
from comity.bindings.xmpp.reasons import condition_for, reason_for_condition
from comity.bindings.xmpp.wire import CLIENT, MESSAGE
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.entity import is_secured, split_entity
from comity.cpim.native import plain_text, readable_part, wrap
from comity.cpim.operations import (
    Context,
    HistoryEntry,
    MessageOperation,
    MimeObject,
    Reason,
    Response,
    failure,
)
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError
from comity.xml import XML_LANG, Element, is_xml_text, parse_document, serialize

PROTOCOL: Final = "xmpp"
XMPP_XML: Final = "application/xmpp+xml"
HISTORY: Final = "urn:comity:history:0"
DELAY: Final = "urn:xmpp:delay"
STANZA_ID: Final = "urn:xmpp:sid:0"
CHAT_STATES: Final = "http://jabber.org/protocol/chatstates"
HINTS: Final = "urn:xmpp:hints"
UNCHECKED: Final = "[This message is signed, but this program did not check the signature.]"

BODY: Final = f"{{{CLIENT}}}body"
SUBJECT: Final = f"{{{CLIENT}}}subject"
THREAD: Final = f"{{{CLIENT}}}thread"
KINDS: Final = frozenset({"normal", "chat", "headline"})

#: Elements only a server may put into a message (X-60 to X-64): taken away from whatever a client sends.
_SERVER_NAMESPACES: Final = frozenset({"urn:xmpp:forward:0", DELAY, "jabber:x:delay", HISTORY})
_SERVER_PREFIXES: Final = ("urn:xmpp:carbons:", "urn:xmpp:mam:")
#: Children that say nothing once the moment has passed.
_PASSING: Final = frozenset({CHAT_STATES, HINTS})
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stanza that becomes no operation: the stanza error to answer with."""

    condition: str
    text: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A stanza for a device and what it carries (``Response.form``)."""

    stanza: Element
    form: str


# --- step 4: stanza to operation ---------------------------------------------------------------------------------


def stanza_to_operation(
    stanza: Element, *, when: datetime, trans_id: str, message_id: str
) -> MessageOperation | Refusal:
    """Read a checked, stamped message stanza.

    Args:
        stanza: ``from`` is the full JID proved, ``to`` a prepared JID or absent (then the own account is meant).
        when: time of receipt, aware.
        trans_id: identifies the operation.
        message_id: for the object if one has to be made.
    """
    kind = stanza.get("type") or "normal"
    if kind == "groupchat":
        return Refusal("feature-not-implemented", "group chat is not available here")
    try:
        source, source_resource = from_jid(stanza.get("from"))
        to = stanza.get("to") or stanza.get("from").partition("/")[0]
        if "@" not in to.partition("/")[0]:
            return Refusal("service-unavailable", "this address takes no messages")
        destination, resource = from_jid(to)
    except AddressError as error:
        return Refusal("jid-malformed", error.reason)
    context = Context(
        thread=_text_of(stanza, THREAD),
        source_resource=source_resource,
        resource=resource,
        kind=kind if kind in KINDS else "normal",
        native_id=stanza.get("id"),
    )
    try:
        made = _object_of(stanza, source, destination, when, message_id)
    except RemoteProtocolError as error:
        return Refusal("bad-request", error.reason)
    except LocalProtocolError:
        return Refusal("not-acceptable", "this message holds a character that cannot be carried")
    if made is None:
        return Refusal("bad-request", "nothing in this message can be carried")
    return MessageOperation(
        source,
        destination,
        trans_id,
        made.object,
        context=_with(context, stanza, made),
        is_wrapped=made.is_wrapped,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """The object of a stanza and what stays beside it."""

    object: MimeObject
    native: bytes = b""
    is_native: bool = False
    is_wrapped: bool = False
    is_passing: bool = False
    subject: str = ""
    language: str = ""


def _with(context: Context, stanza: Element, made: _Made) -> Context:
    return Context(
        thread=context.thread,
        subject=made.subject,
        language=made.language,
        source_resource=context.source_resource,
        resource=context.resource,
        kind=context.kind,
        native_id=context.native_id,
        # RFC 6121 section 8.5.2.1.3: a headline is not kept for later either.
        transient=made.is_passing or context.kind == "headline",
        native_protocol=PROTOCOL if made.native or made.is_native else "",
        native=made.native,
    )


def _object_of(stanza: Element, source: Address, destination: Address, when: datetime, message_id: str) -> _Made | None:
    extensions = [child for child in stanza.elements() if not _is_server_only(child)]
    for child in extensions:
        if child.name in (E2E_ELEMENT, OCTETS_ELEMENT):
            entity = unwrap_entity(child) if child.name == E2E_ELEMENT else unwrap_octets(child)
            beside = [
                other
                for other in extensions
                if other.namespace != CLIENT and other.name not in (E2E_ELEMENT, OCTETS_ELEMENT)
            ]
            return _Made(split_entity(entity), _native(beside))
    bodies = [child for child in extensions if child.name == BODY]
    subjects = [child for child in extensions if child.name == SUBJECT]
    if not bodies and not subjects:
        return _native_only([child for child in extensions if child.name != THREAD])
    body = _default_body(bodies, stanza.language)
    language = _language((body.language if body is not None else "") or stanza.language)
    text = body.text if body is not None else ""
    pairs = _subject_pairs(subjects, stanza.language)
    obj = wrap(
        source,
        destination,
        text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8"),
        "text/plain; charset=utf-8",
        when=when,
        message_id=message_id,
        subjects=pairs,
        language=language,
    )
    beside = [c for c in extensions if c.name not in (SUBJECT, THREAD) and c is not body]
    return _Made(
        obj, _native(beside), is_native=True, is_wrapped=True, subject=pairs[0][1] if pairs else "", language=language
    )


def _is_server_only(child: Element) -> bool:
    namespace = child.namespace
    if namespace in _SERVER_NAMESPACES or namespace.startswith(_SERVER_PREFIXES) or child.name == wire.ERROR:
        return True
    return namespace == STANZA_ID and (child.local == "stanza-id" or "by" in child.attributes)


def _default_body(bodies: list[Element], stream_language: str) -> Element | None:
    """The body for a program that shows one: that of the stanza's own language, else the first (RFC 6121 5.2.3)."""
    for body in bodies:
        if body.language in ("", stream_language):
            return body
    return bodies[0] if bodies else None


def _subject_pairs(subjects: Iterable[Element], stanza_language: str) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for subject in subjects:
        text = " ".join(subject.text.split())
        if text:
            pairs.setdefault(_language(subject.language or stanza_language), text)
    return list(pairs.items())


def _language(tag: str) -> str:
    return tag if _LANGUAGE.fullmatch(tag) else ""


def _text_of(stanza: Element, name: str) -> str:
    child = stanza.find(name)
    return child.text if child is not None else ""


def _native(children: Iterable[Element]) -> bytes:
    return b"".join(serialize(child, CLIENT) for child in children)


def _native_only(children: list[Element]) -> _Made | None:
    """A message without text, such as a typing state or a receipt (RFC 3923 section 10 has the media type)."""
    if not children:
        return None
    octets = b"<xmpp xmlns='jabber:client'><message>" + _native(children) + b"</message></xmpp>"
    wants_storing = any(child.namespace == HINTS and child.local == "store" for child in children)
    is_passing = all(child.namespace in _PASSING for child in children) and not wants_storing
    return _Made(MimeObject.of(f"{XMPP_XML}; charset=utf-8", octets), is_native=True, is_passing=is_passing)


# --- step 8: operation to stanza ---------------------------------------------------------------------------------


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
    if operation.context.report is not None:
        return Outgoing(_report(operation, stanza), "text")
    form = _add_content(operation, stanza, features)
    if not form:
        text = "The recipient's program cannot take this kind of content."
        return failure(operation.trans_id, Reason.CONTENT, text)
    stanza.append(Element(f"{{{STANZA_ID}}}stanza-id", {"by": bare_to, "id": delivery_id}))
    if is_delayed:
        stanza.append(Element(f"{{{DELAY}}}delay", {"from": domain, "stamp": _stamp(accepted)}))
    if operation.history:
        stanza.append(history_element(operation.history))
    return Outgoing(stanza, form)


def _addresses(operation: MessageOperation, bare_to: str, delivery_id: str) -> dict[str, str]:
    context = operation.context
    sender = to_jid(operation.source)
    is_ours = context.native_protocol == PROTOCOL
    attributes = {
        "from": f"{sender}/{context.source_resource}" if context.source_resource else sender,
        "to": f"{bare_to}/{context.resource}" if context.resource else bare_to,
        "id": context.native_id if is_ours and context.native_id else delivery_id,
    }
    if context.kind in KINDS and context.kind != "normal":
        attributes["type"] = context.kind
    return {key: value for key, value in attributes.items() if is_xml_text(value)}


def _add_content(operation: MessageOperation, stanza: Element, features: frozenset[str] | None) -> str:
    """Fill the stanza; returns the form, "" if nothing this device could take would carry the object."""
    obj, context = operation.object, operation.context
    native = native_children(context) if context.native_protocol == PROTOCOL else []
    if obj.media_type == XMPP_XML and context.native_protocol == PROTOCOL and not native:
        children = xmpp_xml_children(obj)
        stanza.children += children
        return "object" if children else ""
    if context.thread and is_xml_text(context.thread):
        stanza.append(Element(THREAD, {}, [context.thread]))
    secured = is_secured(obj)
    form = "" if secured else _add_text(operation, stanza)
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
    if not form:
        return ""
    # Bodies in other languages stand beside a plain text only: never beside something encrypted.
    stanza.children += [child for child in native if not secured or child.namespace != CLIENT]
    return form


def _add_text(operation: MessageOperation, stanza: Element) -> str:
    plain = plain_text(operation.object)
    if plain is None or not is_xml_text(plain.text):
        return ""
    for language, subject in plain.subjects:
        if is_xml_text(subject):
            tag = {} if language in ("", "i-default") else {XML_LANG: language}
            stanza.append(Element(SUBJECT, tag, [subject]))
    if not plain.subjects and operation.context.subject and is_xml_text(operation.context.subject):
        stanza.append(Element(SUBJECT, {}, [operation.context.subject]))
    language = plain.language or operation.context.language
    attributes = {XML_LANG: language} if _language(language) else {}
    if plain.text or not plain.subjects:
        stanza.append(Element(BODY, attributes, [_lines(plain.text)]))
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
    return [child for child in root.elements() if not _is_server_only(child)]


def xmpp_xml_children(obj: MimeObject) -> list[Element]:
    """The children of the one message stanza in an application/xmpp+xml object; none if it holds anything else."""
    try:
        root = parse_document(obj.octets)
    except RemoteProtocolError:
        return []
    stanzas = list(root.elements())
    if root.name != f"{{{CLIENT}}}xmpp" or len(stanzas) != 1 or stanzas[0].name != MESSAGE:
        return []  # XMPP-24: exactly one, and what is not a message is never routed from here
    return [child for child in stanzas[0].elements() if not _is_server_only(child)]


def history_element(history: Iterable[HistoryEntry]) -> Element:
    """The transport history as a child of the stanza (GW-8)."""
    hops: list[Element | str] = []
    for entry in history:
        attributes = {"node": entry.node, "in": entry.in_protocol, "out": entry.out_protocol}
        attributes["time"] = _stamp(entry.when)
        if entry.note and is_xml_text(entry.note):
            attributes["note"] = entry.note
        hops.append(Element(f"{{{HISTORY}}}hop", attributes))
    return Element(f"{{{HISTORY}}}history", {}, hops)


def read_history(stanza: Element) -> tuple[HistoryEntry, ...]:
    """The transport history a server put into a stanza; entries that cannot be read are left out."""
    found = stanza.find(f"{{{HISTORY}}}history")
    entries: list[HistoryEntry] = []
    for hop in found.elements() if found is not None else ():
        try:
            when = datetime.fromisoformat(hop.get("time"))
        except ValueError:
            continue
        if when.tzinfo is not None:
            entries.append(HistoryEntry(hop.get("node"), hop.get("in"), hop.get("out"), when, hop.get("note")))
    return tuple(entries)


def _stamp(when: datetime) -> str:
    """XEP-0082's profile, always UTC."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


# --- failures, both ways -----------------------------------------------------------------------------------------


def _report(operation: MessageOperation, stanza: Element) -> Element:
    """A failure report as the error stanza an XMPP program knows (GW-12)."""
    report = operation.context.report
    assert report is not None
    condition, kind, detail = condition_for(report.reason.value)
    stanza.attributes["type"] = "error"
    stanza.attributes["from"] = to_jid(report.recipient)
    if report.native_id and is_xml_text(report.native_id):
        stanza.attributes["id"] = report.native_id
    return stanza.append(wire.error_element(condition, _shown(report.text), kind=kind, application=_detail(detail)))


def response_to_error(stanza: Element, response: Response, *, is_local: bool) -> Element | None:
    """The error stanza that answers a refused message; None where none may be sent (XMPP-6)."""
    assert response.reason is not None
    condition, kind, detail = condition_for(response.reason.value, is_local=is_local)
    return wire.error_reply(stanza, condition, _shown(response.text), kind=kind, application=_detail(detail))


def error_to_response(stanza: Element, trans_id: str, *, is_secured_object: bool = False) -> Response:
    """What a device's error stanza about a delivery means (T3, T8)."""
    error = stanza.find(wire.ERROR)
    if error is None:
        return failure(trans_id, Reason.CONTENT, "the recipient's program refused the message")
    condition, text = wire.error_of(error)
    details = {child.local for child in error.elements() if child.namespace in (E2E, E2E_OLD_ERRORS)}
    reason = Reason(reason_for_condition(condition, details))
    if condition == "service-unavailable" and is_secured_object:
        reason = Reason.CONTENT  # RFC 3923 section 7: the format is not understood
    return failure(trans_id, reason, text[:500])


def _detail(name: str) -> Element | None:
    return Element(f"{{{E2E}}}{name}") if name else None


def _shown(text: str) -> str:
    return text if is_xml_text(text) else ""


__all__ = [
    "Outgoing",
    "Refusal",
    "error_to_response",
    "history_element",
    "native_children",
    "operation_to_stanza",
    "read_history",
    "response_to_error",
    "stanza_to_operation",
    "xmpp_xml_children",
]

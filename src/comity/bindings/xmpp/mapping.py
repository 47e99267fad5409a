"""From message stanza to message operation, and failures both ways (RFC 3922, 3923; T1, T3, T5, T8 of conformance.md).

Place on the path: step 4; step 8 is ``egress.py``, whose names stand here too. Pure. Rules its readers must keep: an
object found in a stanza is carried as it is; one is made only from a native body, once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E, E2E_ELEMENT, E2E_OLD_ERRORS, OCTETS_ELEMENT, unwrap_entity, unwrap_octets
from comity.bindings.xmpp.egress import (
    UNCHECKED,
    Outgoing,
    history_element,
    hops_element,
    native_children,
    operation_to_stanza,
    xmpp_xml_children,
)
from comity.bindings.xmpp.extensions import (
    ASKED,
    BODY,
    CHAT_STATES,
    DELAY,
    EME,
    HINTS,
    HISTORY,
    HOPS,
    KINDS,
    MARKABLE,
    NO_COPY,
    PASSING,
    PRIVATE,
    PROTECTION,
    PROTOCOL,
    REQUEST,
    STANZA_ID,
    SUBJECT,
    THREAD,
    TOLD,
    XMPP_XML,
    detail_element,
    is_server_only,
    language_tag,
    sealed_by,
    shown,
)
from comity.bindings.xmpp.fallback import words_for
from comity.bindings.xmpp.protection import read_protection
from comity.bindings.xmpp.reasons import REASONS, condition_for, reason_for_condition
from comity.bindings.xmpp.typing import status_of
from comity.bindings.xmpp.wire import CLIENT
from comity.cpim.address import Address, from_jid
from comity.cpim.compose import timestamp
from comity.cpim.composing import COMPOSING_TYPE
from comity.cpim.entity import split_entity
from comity.cpim.history import MOST_HISTORY, HistoryEntry, read_entry
from comity.cpim.imdn import DISPLAY, POSITIVE, Imdn, is_report, notification
from comity.cpim.native import alternatives, wrap
from comity.cpim.operations import (
    INITIAL_MAX_FORWARDS,
    Context,
    MessageOperation,
    MimeObject,
    Reason,
    Response,
    failure,
)
from comity.cpim.said import said
from comity.errors import AddressError, LocalProtocolError, RemoteProtocolError
from comity.xml import XML_LANG, Element, serialize


@dataclass(frozen=True, slots=True)
class Refusal:
    """A stanza that becomes no operation: the stanza error to answer with."""

    condition: str
    text: str


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
        no_copies=stanza.find(PRIVATE) is not None or stanza.find(NO_COPY) is not None,
    )
    try:
        requirements = read_protection(stanza)
    except ValueError:
        return Refusal("policy-violation", "this message requires a protection that is not known here")
    try:
        made = _object_of(stanza, source, destination, when, message_id)
    except RemoteProtocolError as error:
        return Refusal("bad-request", error.reason)
    except LocalProtocolError:
        return Refusal("not-acceptable", "this message holds a character that cannot be carried")
    if made is None:
        return Refusal("bad-request", "nothing in this message can be carried")
    if is_report(made.object) and made.is_wrapped:
        context = replace(context, resource="")  # it is for the sender of a message, whichever device she has
    return MessageOperation(
        source,
        destination,
        trans_id,
        made.object,
        context=_with(context, stanza, made),
        is_wrapped=made.is_wrapped,
        requirements=requirements,
    )


@dataclass(frozen=True, slots=True)
class _Made:
    """The object of a stanza and what stays beside it."""

    object: MimeObject
    native: bytes = b""
    is_native: bool = False
    is_wrapped: bool = False
    is_passing: bool = False
    is_whole: bool = False
    sealed: str = ""
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
        no_copies=context.no_copies,
        # RFC 6121 section 8.5.2.1.3: a headline is not kept for later either.
        transient=made.is_passing or context.kind == "headline",
        sealed=made.sealed,
        native_protocol=PROTOCOL if made.native or made.is_native else "",
        native=made.native,
        native_is_whole=made.is_whole,
    )


def _object_of(stanza: Element, source: Address, destination: Address, when: datetime, message_id: str) -> _Made | None:
    extensions = [child for child in stanza.elements() if not is_server_only(child) and child.namespace != PROTECTION]
    carriers = [child for child in extensions if child.name in (E2E_ELEMENT, OCTETS_ELEMENT)]
    if len(carriers) > 1:
        # Two programs would show two messages (T5); RFC 3923 section 3.1 has one.
        raise RemoteProtocolError("a message holds one object")
    if carriers:
        entity = unwrap_entity(carriers[0]) if carriers[0].name == E2E_ELEMENT else unwrap_octets(carriers[0])
        # A body beside an object is a copy for old programs, or says that they cannot read it: never the message.
        beside = [other for other in extensions if other.namespace not in (CLIENT, EME) and other is not carriers[0]]
        return _Made(split_entity(entity), _native(beside))
    if sealed := sealed_by(extensions):
        # Whatever is in the body is said to who cannot decrypt it: it is not the message (issue 7, part 7).
        whole = _native_only(extensions)
        return None if whole is None else replace(whole, sealed=sealed)
    bodies = [child for child in extensions if child.name == BODY]
    subjects = [child for child in extensions if child.name == SUBJECT]
    if not bodies and not subjects:
        told = _told(extensions)
        if told is not None:
            imdn = Imdn(told[0], timestamp(when), told[1], recipient=source.uri, original_recipient=source.uri)
            made = notification(imdn, from_=source, to=destination, when=when, message_id=message_id)
            return _Made(made, is_wrapped=True)
        status = status_of(extensions)
        if status is not None and _is_passing(extensions):
            made = wrap(source, destination, status.document(), COMPOSING_TYPE, when=when, message_id=message_id)
            beside = [child for child in extensions if child.name != THREAD]
            return _Made(made, _native(beside), is_native=True, is_wrapped=True, is_passing=True)
        if words_for(extensions, "") is None:
            return _native_only([child for child in extensions if child.name != THREAD])
    body = _default_body(bodies, stanza.language)
    language = language_tag((body.language if body is not None else "") or stanza.language)
    text = body.text if body is not None else ""
    words = words_for(extensions, text)
    pairs = _subject_pairs(subjects, stanza.language)
    content_type, content = "text/plain; charset=utf-8", _octets(text if words is None else words)
    others = _other_bodies(bodies, body, language) if words is None else []
    if others:
        content_type, content = alternatives([*others, (language, content)], f"={message_id}")
    obj = wrap(
        source,
        destination,
        content,
        content_type,
        when=when,
        message_id=message_id,
        subjects=pairs,
        language="" if others else language,
        asks=_asks(extensions) if stanza.get("id") else (),
    )
    is_whole = words is not None or bool(others)
    left_out = (THREAD,) if is_whole else (SUBJECT, THREAD)
    beside = [c for c in extensions if c.name not in left_out and (is_whole or c is not body)]
    if is_whole:
        beside = [_with_language(child, stanza.language) for child in beside]
    subject = pairs[0][1] if pairs else ""
    return _Made(
        obj, _native(beside), is_native=True, is_wrapped=True, is_whole=is_whole, subject=subject, language=language
    )


def _with_language(child: Element, language: str) -> Element:
    """A text of the stanza with the language it has from the stanza, which another one will not have."""
    if child.namespace != CLIENT or child.language or not language_tag(language):
        return child
    return Element(child.name, {**child.attributes, XML_LANG: language}, child.children)


def _octets(text: str) -> bytes:
    return text.replace("\r\n", "\n").replace("\n", "\r\n").encode("utf-8")


def _other_bodies(bodies: list[Element], chosen: Element | None, language: str) -> list[tuple[str, bytes]]:
    """The bodies in other languages than the one that is for everybody, each language once (RFC 6121 section 5.2.3)."""
    found: dict[str, bytes] = {}
    for body in bodies:
        tag = language_tag(body.language)
        if body is not chosen and tag and tag != language:
            found.setdefault(tag, _octets(body.text))
    return list(found.items())


def _told(extensions: list[Element]) -> tuple[str, str] | None:
    """(message, status) of a receipt or marker for a message that came by another protocol; None for those among XMPP programs."""
    for child in extensions:
        status, id = TOLD.get(child.name), child.get("id")
        if status is not None and id.startswith(ASKED):
            return id.removeprefix(ASKED) or "?", status
    return None


def _asks(extensions: list[Element]) -> list[str]:
    """What the sender's program wants to be told, in the words of RFC 5438 (IMDN-13)."""
    names = {child.name for child in extensions}
    return [wish for name, wish in ((REQUEST, POSITIVE), (MARKABLE, DISPLAY)) if name in names]


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
            pairs.setdefault(language_tag(subject.language or stanza_language), text)
    return list(pairs.items())


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
    is_passing = _is_passing(children)
    return _Made(MimeObject.of(f"{XMPP_XML}; charset=utf-8", octets), is_native=True, is_passing=is_passing)


def _is_passing(children: list[Element]) -> bool:
    """True for what says nothing once the moment has passed."""
    wants_storing = any(child.namespace == HINTS and child.local == "store" for child in children)
    return all(child.namespace in PASSING or child.name == THREAD for child in children) and not wants_storing


def read_history(stanza: Element) -> tuple[HistoryEntry, ...]:
    """The transport history a server put into a stanza; entries that cannot be read are left out."""
    found = stanza.find(f"{{{HISTORY}}}history")
    entries: list[HistoryEntry] = []
    for hop in found.elements() if found is not None else ():
        try:
            when = datetime.fromisoformat(hop.get("time"))
        except ValueError:
            continue
        protocols = hop.get("in"), hop.get("out")
        entry = read_entry(hop.get("node"), protocols, when, hop.get("note"), hop.get("tls"))
        if entry is not None:
            entries.append(entry)
    return tuple(entries[:MOST_HISTORY])


def read_hops(stanza: Element) -> int:
    """How many nodes the message may still pass, as another server of ours says (T2)."""
    child = stanza.find(HOPS)
    left = child.get("left") if child is not None else ""
    return min(int(left), INITIAL_MAX_FORWARDS) if left.isdecimal() and len(left) <= 3 else INITIAL_MAX_FORWARDS


# --- failures, both ways -----------------------------------------------------------------------------------------


def response_to_error(stanza: Element, response: Response, *, is_local: bool) -> Element | None:
    """The error stanza that answers a refused message; None where none may be sent (XMPP-6)."""
    assert response.reason is not None
    condition, kind, detail = condition_for(response.reason.value, is_local=is_local, exact=response.condition)
    return wire.error_reply(stanza, condition, shown(response.text), kind=kind, application=detail_element(detail))


def error_to_response(stanza: Element, trans_id: str, *, is_secured_object: bool = False) -> Response:
    """What a device's error stanza about a delivery means (T3, T8)."""
    error = stanza.find(wire.ERROR)
    if error is None:
        return failure(trans_id, Reason.CONTENT, "the recipient's program refused the message")
    condition, text = wire.error_of(error)
    details = {child.local for child in error.elements() if child.namespace in (E2E, E2E_OLD_ERRORS, PROTECTION)}
    reason = Reason(reason_for_condition(condition, details))
    exact = ""
    if condition == "service-unavailable" and is_secured_object:
        reason = Reason.CONTENT  # RFC 3923 section 7: the format is not understood
    elif not details and condition in REASONS:
        exact = condition if "/" in stanza.get("from") else f"{condition} bare"
    return failure(trans_id, reason, said(text), condition=exact)


__all__ = [
    "BODY",
    "CHAT_STATES",
    "DELAY",
    "HINTS",
    "HISTORY",
    "STANZA_ID",
    "SUBJECT",
    "THREAD",
    "UNCHECKED",
    "Outgoing",
    "Refusal",
    "error_to_response",
    "history_element",
    "hops_element",
    "native_children",
    "operation_to_stanza",
    "read_history",
    "read_hops",
    "response_to_error",
    "stanza_to_operation",
    "xmpp_xml_children",
]

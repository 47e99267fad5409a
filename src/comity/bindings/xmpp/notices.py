"""From presence document to presence stanzas: only what changed, written once for all who watch (RFC 3922, 8048; T5, T9).

Place on the path: step 8 of a notify. Pure. A ``Content`` is seen as XMPP sees people, one resource for each tuple; what a
watcher is told is the difference to what it was told last (GW-16). The stanzas of a difference are octets that lack
nothing but their ``to``, and stay in ``Content.cache``: a thousand watchers cost one encoding.

Nothing is told where the document says nothing (PRES-5), where it is older than the last one (PRES-12), and where a
presentity that nobody saw is offline.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.e2e import E2E, OCTETS, wrap_entity, wrap_octets
from comity.bindings.xmpp.extensions import PROTOCOL, language_tag
from comity.bindings.xmpp.jid import prepare_resource
from comity.bindings.xmpp.wire import CLIENT, PRESENCE
from comity.cpim.address import Address, to_jid
from comity.cpim.operations import NotifyOperation
from comity.cpim.presence import PIDF_TYPE, Note, PresenceDocument
from comity.cpim.presence_state import Availability, PresenceState, priority_to_number, resource_of, tuple_states
from comity.errors import AddressError, MalformedMessage
from comity.service.presence.interfaces import Content
from comity.xml import XML_LANG, Element, is_xml_text, parse_document

_HEAD: Final = b"<presence to='"
_SHOW: Final = {
    one: Element(f"{{{CLIENT}}}show", {}, [one.value])
    for one in (Availability.CHAT, Availability.AWAY, Availability.XA, Availability.DND)
}


@dataclass(frozen=True, slots=True)
class Notice:
    """A presence stanza for any number of people: all of it but ``to``."""

    sender: str
    """The JID it comes from."""
    tail: bytes
    """Its octets from the end of the value of ``to`` on."""
    is_available: bool

    @property
    def slot(self) -> str:
        """A newer one of the same slot makes this one needless (``XmppServerSession.send_raw``)."""
        return f"presence {self.sender}"

    def octets(self, to: bytes) -> bytes:
        """The stanza for ``to``, which ``to_octets`` made."""
        return _HEAD + to + self.tail

    def element(self, to: str) -> Element:
        """The same as a tree."""
        root = parse_document(b"<x xmlns='jabber:client'>" + self.octets(to_octets(to)) + b"</x>")
        return next(root.elements())


@lru_cache(maxsize=8192)
def to_octets(jid: str) -> bytes:
    """A JID as it stands in ``to``."""
    return wire.encode(Element(PRESENCE, {"to": jid}))[len(_HEAD) : -3]


@dataclass(frozen=True, slots=True)
class _Said:
    """What one tuple says, as XMPP says it."""

    tuple_id: str
    sender: str
    notice: Notice | None
    """None while nothing is known."""

    @property
    def is_offline(self) -> bool:
        return self.notice is not None and not self.notice.is_available


@dataclass(frozen=True, slots=True)
class _View:
    """A document as XMPP sees it."""

    bare: str
    """JID of the presentity."""
    said: Mapping[str, _Said]
    """By sender, in document order."""
    is_empty: bool
    """No tuple at all, and no note in its stead."""


def content_to_stanzas(
    content: Content, told: Content | None, when: datetime, *, takes: Set[str] = frozenset()
) -> tuple[Notice, ...]:
    """What is to be written to a device that was last told ``told``.

    Args:
        content: what its user may know now; not watcher information.
        told: None if it was told nothing yet: then who is offline is not mentioned.
        when: now, aware.
        takes: the features of the device; with ``E2E`` or ``OCTETS`` it gets ``content.whole`` as well.
    """
    carrier = _carrier_for(content, takes)
    key = (PROTOCOL, id(told), carrier)
    found = content.cache.get(key)
    if found is not None and found[0]() is told:
        notices: tuple[Notice, ...] = found[1]
        return notices
    notices = _difference(content, told, when)
    if carrier:
        notices = _with_whole(content, told, notices, carrier, when)
    # By a weak reference: a content must not keep alive all that was told before it.
    content.cache[key] = (_nothing if told is None else weakref.ref(told), notices)
    return notices


def _nothing() -> None:
    return None


def current_stanzas(content: Content, when: datetime) -> tuple[Notice, ...]:
    """The answer to a probe (RFC 6121 section 4.3.2; XMPP-13): every available resource, else one ``unavailable``."""
    view = _view_of(content, when)
    if view is None:
        return ()
    available = tuple(one.notice for one in view.said.values() if one.notice is not None and one.notice.is_available)
    return available or _one_offline(view)


def _one_offline(view: _View) -> tuple[Notice, ...]:
    offline = next((one.notice for one in view.said.values() if one.notice is not None), None)
    if offline is not None:  # with its parting words, from the account itself: no resource is there any more
        root = offline.element("")
        del root.attributes["to"]
        root.attributes["from"] = view.bare
        return (_written(view.bare, root),)
    return (_gone(view.bare, b""),) if view.is_empty else ()


def notify_to_stanzas(operation: NotifyOperation, when: datetime) -> tuple[Notice, ...]:
    """Presence for one person, outside any subscription (``Edge.directed``); also what a device may not read goes whole."""
    obj, context = operation.object, operation.context
    if obj is None:
        return ()
    try:
        bare = to_jid(operation.target)
        sender = f"{bare}/{prepare_resource(context.source_resource)}" if context.source_resource else bare
    except AddressError:
        return ()
    if obj.media_type != PIDF_TYPE:
        element = wrap_entity(obj.entity) or wrap_octets(obj.entity)
        kind = {"type": "unavailable"} if context.kind == "unavailable" else {}
        return (_written(sender, Element(PRESENCE, {"from": sender, **kind}, [element])),)
    try:
        document = PresenceDocument.of(obj)
    except MalformedMessage:
        return ()
    native = (context.native_protocol, context.native)
    natives = {one.id: native for one in document.tuples[:1]}
    view = _view(operation.target, document, natives, when)
    said = view.said.values() if view is not None else ()
    return tuple(one.notice for one in said if one.notice is not None)


def state_to_children(state: PresenceState) -> list[Element | str]:
    """The children of a presence stanza that says what ``state`` says (T5, T9)."""
    children: list[Element | str] = []
    if state.availability in _SHOW:
        children.append(_SHOW[state.availability])
    languages = set()
    for note in state.notes:
        language = language_tag(note.language)
        if note.text and language.lower() not in languages and is_xml_text(note.text):
            languages.add(language.lower())  # XMPP-15: the first of each language
            children.append(_status(note, language))
    if state.availability is Availability.OFFLINE:
        return children
    if state.priority is not None:
        children.append(Element(f"{{{CLIENT}}}priority", {}, [str(priority_to_number(state.priority))]))
    given = state.user_input
    if given is not None and given.is_idle and given.last_input is not None:
        since = given.last_input.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        children.append(Element("{urn:xmpp:idle:1}idle", {"since": since}))
    return children


def _status(note: Note, language: str) -> Element:
    return Element(f"{{{CLIENT}}}status", {XML_LANG: language} if language else {}, [note.text])


# --- the difference -------------------------------------------------------------------------------------------------


def _difference(content: Content, told: Content | None, when: datetime) -> tuple[Notice, ...]:
    new, old = _view_of(content, when), _view_of(told, when) if told is not None else None
    if new is None or _is_outdated(content, told):
        return ()
    before: Mapping[str, _Said] = old.said if old is not None else {}
    gone = [one for sender, one in before.items() if sender not in new.said and not one.is_offline]
    notices = [_gone(one.sender, _native(content.natives, one.tuple_id)) for one in gone]
    for sender, one in new.said.items():
        last = before.get(sender)
        if one.notice is None or (last is not None and last.notice == one.notice):
            continue  # PRES-5: nothing is known; GW-16: nothing changed
        if one.notice.is_available or last is not None:
            notices.append(one.notice)
    if new.is_empty and not notices and (old is None or not old.is_empty):
        notices.append(_gone(new.bare, b""))  # RFC 3922 section 6.3.2, GW-14
    return tuple(notices)


def _is_outdated(content: Content, told: Content | None) -> bool:
    """PRES-12."""
    if told is None or told.document is None or content.document is None:
        return False
    return content.document.is_outdated(told.document.date_time)


def _with_whole(
    content: Content, told: Content | None, notices: tuple[Notice, ...], carrier: str, when: datetime
) -> tuple[Notice, ...]:
    """The first of ``notices`` carries the presentity's own object too; if only that changed, a stanza for it alone."""
    view = _view_of(content, when)
    assert content.whole is not None
    element = wrap_entity(content.whole.entity) if carrier == E2E else wrap_octets(content.whole.entity)
    if view is None or element is None or (told is not None and told.whole == content.whole):
        return notices
    first = notices[0] if notices else None
    if first is None:
        said = [one.notice for one in view.said.values() if one.notice is not None]
        first = said[0] if said else _gone(view.bare, b"")
    return (_extended(first, wire.encode(element)), *notices[1:])


def _carrier_for(content: Content, takes: Set[str]) -> str:
    if content.whole is None:
        return ""
    if E2E in takes and (OCTETS not in takes or wrap_entity(content.whole.entity) is not None):
        return E2E
    return OCTETS if OCTETS in takes else ""


# --- a document as XMPP sees it -----------------------------------------------------------------------------------------


def _view_of(content: Content, when: datetime) -> _View | None:
    if PROTOCOL not in content.cache:
        document = content.document
        content.cache[PROTOCOL] = document and _view(content.target, document, content.natives, when)
    view: _View | None = content.cache[PROTOCOL]
    return view


def _view(
    target: Address, document: PresenceDocument, natives: Mapping[str, tuple[str, bytes]], when: datetime
) -> _View | None:
    """None for an address that cannot be a JID: nobody of XMPP can have heard of it."""
    try:
        bare = to_jid(target)
    except AddressError:
        return None
    said: dict[str, _Said] = {}
    for one, state in tuple_states(document, when):
        sender = _sender(bare, one.id, said)
        if sender:
            said[sender] = _Said(one.id, sender, _notice(sender, state, _native(natives, one.id)))
    return _View(bare, said, not document.tuples and not document.notes)


def _sender(bare: str, tuple_id: str, taken: Mapping[str, _Said]) -> str:
    """The JID of a tuple: its id is the resource (RFC 3922 section 5.2.1); "" if another tuple says the same."""
    if not tuple_id:
        return "" if bare in taken else bare
    strange = hashlib.sha256(tuple_id.encode("utf-8")).hexdigest()[:16]
    for resource in (resource_of(tuple_id), tuple_id, strange):
        try:
            sender = f"{bare}/{prepare_resource(resource)}"
        except AddressError:
            continue
        if sender not in taken:
            return sender
    return ""


def _notice(sender: str, state: PresenceState, native: bytes) -> Notice | None:
    if state.availability is Availability.UNKNOWN:
        return None
    kind = {"type": "unavailable"} if state.availability is Availability.OFFLINE else {}
    written = _written(sender, Element(PRESENCE, {"from": sender, **kind}, state_to_children(state)))
    return _extended(written, native)


def _gone(sender: str, native: bytes) -> Notice:
    """A resource is there no more."""
    return _extended(_written(sender, Element(PRESENCE, {"from": sender, "type": "unavailable"})), native)


def _native(natives: Mapping[str, tuple[str, bytes]], tuple_id: str) -> bytes:
    protocol, octets = natives.get(tuple_id, ("", b""))
    return octets if protocol == PROTOCOL else b""


def _written(sender: str, stanza: Element) -> Notice:
    tail = b"'" + wire.encode(stanza)[len("<presence") :]
    return Notice(sender, tail, stanza.get("type") != "unavailable")


def _extended(notice: Notice, native: bytes) -> Notice:
    """``notice`` with further children, which our own writer serialised."""
    if not native:
        return notice
    tail = notice.tail
    opened = tail[:-2] + b">" if tail.endswith(b"/>") else tail.removesuffix(b"</presence>")
    return replace(notice, tail=opened + native + b"</presence>")

"""From presence stanza to presence document (RFC 3922, 3923, 8048; tables T5 and T9 of conformance.md).

Place on the path: step 4 of a publication and of directed presence; step 8 is ``notices.py``, whose names stand here too.
Pure. What a document can say goes into it, whatever the watcher's protocol; the other children travel beside it for
devices of XMPP, serialised, without what only servers may say. A signed or sealed object stays as it is.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from comity.bindings.xmpp.e2e import E2E_ELEMENT, OCTETS_ELEMENT, unwrap_entity, unwrap_octets
from comity.bindings.xmpp.extensions import PROTOCOL, is_server_only, language_tag
from comity.bindings.xmpp.mapping import Refusal
from comity.bindings.xmpp.notices import Notice, content_to_stanzas, current_stanzas, notify_to_stanzas
from comity.bindings.xmpp.subscriptions import OPERATION
from comity.bindings.xmpp.wire import CLIENT
from comity.cpim.address import Address, from_jid
from comity.cpim.composition import COMPOSED_TYPE
from comity.cpim.entity import CPIM_TYPE, content_object, decode_transfer, signed_part, split_entity
from comity.cpim.header import read_timestamp
from comity.cpim.message import CpimMessage
from comity.cpim.operations import Context, MimeObject, NotifyOperation, Requirement
from comity.cpim.presence import DEFAULT, PIDF_TYPE, Note, PresenceDocument, PresenceLimits
from comity.cpim.presence_state import Availability, PresenceState, priority_from_number, state_document, tuple_id_of
from comity.cpim.protection import PKCS7, protections
from comity.cpim.rpid import UserInput
from comity.errors import AddressError, LocalProtocolError, MalformedMessage, RemoteProtocolError
from comity.service.presence.interfaces import Statement
from comity.xml import Element, serialize

SHOW: Final = f"{{{CLIENT}}}show"
STATUS: Final = f"{{{CLIENT}}}status"
PRIORITY: Final = f"{{{CLIENT}}}priority"
IDLE: Final = "{urn:xmpp:idle:1}idle"
TYPES: Final = frozenset(
    {"", "error", "probe", "subscribe", "subscribed", "unavailable", "unsubscribe", "unsubscribed"}
)
#: What is between a device and one other: never for everybody who watches.
_NOT_TOLD: Final = frozenset({"http://jabber.org/protocol/muc", OPERATION})
_SHOWN: Final = {"": Availability.AVAILABLE} | {
    one.value: one for one in (Availability.CHAT, Availability.AWAY, Availability.XA, Availability.DND)
}
_PRIORITY: Final = re.compile(r"[+-]?[0-9]{1,3}")
_DEPTH: Final = 8
_SPACE: Final = " \t\r\n"


def check_presence(stanza: Element) -> Refusal | None:
    """What is wrong with the syntax of a presence stanza (RFC 6121 section 4.7; XMPP-15); None if nothing is."""
    if stanza.get("type") not in TYPES:
        return Refusal("bad-request", "a presence stanza has no such type")
    if stanza.get("type") not in ("", "unavailable"):
        return None
    shows, priorities = stanza.find_all(SHOW), stanza.find_all(PRIORITY)
    if len(shows) > 1 or any(show.text.strip(_SPACE) not in _SHOWN for show in shows):
        return Refusal("bad-request", "show stands once and is away, chat, dnd or xa")
    texts = [one.text.strip(_SPACE) for one in priorities]
    if len(texts) > 1 or not all(_PRIORITY.fullmatch(text) and -128 <= int(text) <= 127 for text in texts):
        return Refusal("bad-request", "priority stands once and is -128 to 127")
    statuses = stanza.find_all(STATUS)
    languages = [_language(status, stanza).lower() for status in statuses]
    if len(set(languages)) != len(languages):
        return Refusal("bad-request", "several status elements each have an xml:lang of their own")
    if any(True for one in (*shows, *priorities, *statuses) for _ in one.elements()):
        return Refusal("bad-request", "show, status and priority hold text only")
    return None


def priority_of(stanza: Element) -> int:
    """The priority of a checked presence stanza; 0 if it names none (RFC 6121 section 4.7.2.3)."""
    found = stanza.find(PRIORITY)
    return int(found.text.strip(_SPACE)) if found is not None else 0


def stanza_to_statement(
    stanza: Element, resource: str, when: datetime, *, with_last_input: bool = True, limits: PresenceLimits = DEFAULT
) -> Statement | Refusal:
    """Read a stamped presence stanza of no type, or of type unavailable, as what a device says of itself.

    Args:
        stanza: ``from`` is proved.
        resource: of the device.
        when: of the change, aware; see ``presence_writer.distinct``.
        with_last_input: False withholds since when nobody uses the device (PRES-20).
        limits: for the document, and in octets for what travels beside it.
    """
    refusal = check_presence(stanza)
    if refusal is not None:
        return refusal
    try:
        entity = _entity(stanza)
        secured = _carried(stanza)
        if secured is not None:
            return Statement(_secured_view(secured, limits), secured)
        state = presence_state(stanza, when)
        document = state_document(entity, tuple_id_of(resource), state, when, with_last_input=with_last_input)
        natives = _native_children(stanza, resource)
        if sum(len(octets) for _, octets in natives.values()) > limits.document:
            return Refusal("policy-violation", "this presence is too long")
    except AddressError as error:
        return Refusal("jid-malformed", error.reason)
    except RemoteProtocolError as error:
        return Refusal("policy-violation" if error.hint == "size" else "bad-request", error.reason)
    except LocalProtocolError:
        return Refusal("not-acceptable", "this presence holds a name or a character that cannot be carried")
    return Statement(document, keeps_ids=True, natives=natives)


def parting_words(stanza: Element, resource: str) -> dict[str, tuple[str, bytes]]:
    """What an unavailable stanza says, by the tuple id of ``resource``: there is no document any more that could say its status.

    Raises LocalProtocolError for names that cannot be written.
    """
    return _natives(resource, [c for c in stanza.elements() if c.name == STATUS or _is_native(c, stanza)])


def _native_children(stanza: Element, resource: str) -> dict[str, tuple[str, bytes]]:
    """What only devices of XMPP understand of a presence stanza (``Content.natives``).

    A negative priority stands there too: a document must not hold it (RFC 8048 section 6.2 note 6).
    Raises LocalProtocolError for names that cannot be written.
    """
    return _natives(resource, [child for child in stanza.elements() if _is_native(child, stanza)])


def _natives(resource: str, children: list[Element]) -> dict[str, tuple[str, bytes]]:
    native = b"".join(serialize(child, CLIENT) for child in children)
    return {tuple_id_of(resource): (PROTOCOL, native)} if native else {}


def stanza_to_notify(stanza: Element, when: datetime, *, trans_id: str) -> NotifyOperation | Refusal:
    """Read a stamped presence stanza of no type, or of type unavailable, that is for one person: directed presence.

    A secured object in it is handed on whole, whatever the stanza says beside it (RFC 3923 section 4.1); see ``_fault``.
    """
    refusal = check_presence(stanza)
    if refusal is not None:
        return refusal
    try:
        (watcher, resource), (target, source) = from_jid(stanza.get("to")), from_jid(stanza.get("from"))
        obj, native = _carried(stanza), b""
    except AddressError as error:
        return Refusal("jid-malformed", error.reason)
    except RemoteProtocolError as error:
        return Refusal("bad-request", error.reason)
    refusal = _fault(obj, target) if obj is not None else None
    if refusal is not None:
        return refusal
    if obj is None:
        said = stanza_to_statement(stanza, source, when)
        if isinstance(said, Refusal):
            return said
        assert said.document is not None
        obj = MimeObject.of(COMPOSED_TYPE, said.document.raw)
        native = b"".join(octets for _, octets in said.natives.values())
    context = Context(
        source_resource=source,
        resource=resource,
        kind=stanza.get("type"),
        native_id=stanza.get("id"),
        native_protocol=PROTOCOL if native else "",
        native=native,
    )
    return NotifyOperation(watcher.with_scheme("pres"), target.with_scheme("pres"), trans_id, obj, context=context)


def presence_state(stanza: Element, when: datetime) -> PresenceState:
    """What a checked presence stanza says (T5, T9)."""
    availability = Availability.OFFLINE
    if stanza.get("type") != "unavailable":
        show = stanza.find(SHOW)
        availability = _SHOWN[show.text.strip(_SPACE) if show is not None else ""]
    notes = tuple(Note(one.text, _language(one, stanza)) for one in stanza.find_all(STATUS) if one.text)
    priority = priority_from_number(priority_of(stanza)) if stanza.find(PRIORITY) is not None else None
    return PresenceState(availability, notes, priority, _idle(stanza, when))


def _idle(stanza: Element, when: datetime) -> UserInput | None:
    """XEP-0319; a time that is none or still to come says nothing."""
    idle = stanza.find(IDLE)
    since = read_timestamp(idle.get("since").strip(_SPACE)) if idle is not None else None
    if since is None or since > when:
        return None
    return UserInput(True, since.astimezone(UTC))


def _language(element: Element, stanza: Element) -> str:
    return language_tag(element.language or stanza.language)


def _is_native(child: Element, stanza: Element) -> bool:
    if child.name in (SHOW, STATUS, IDLE, E2E_ELEMENT, OCTETS_ELEMENT) or child.namespace in _NOT_TOLD:
        return False
    if child.name == PRIORITY:
        return priority_of(stanza) < 0
    return not is_server_only(child)


def _entity(stanza: Element) -> Address:
    return from_jid(stanza.get("from"))[0].with_scheme("pres")


def _carried(stanza: Element) -> MimeObject | None:
    """The whole entity in the stanza, if there is one. Raises RemoteProtocolError, MalformedMessage."""
    found = [child for child in stanza.elements() if child.name in (E2E_ELEMENT, OCTETS_ELEMENT)]
    if not found:
        return None
    if len(found) > 1:
        raise RemoteProtocolError("a stanza carries one object")
    octets = unwrap_entity(found[0]) if found[0].name == E2E_ELEMENT else unwrap_octets(found[0])
    return split_entity(octets)


def _fault(obj: MimeObject, target: Address) -> Refusal | None:
    """What can be seen to be wrong with presence of ``target`` for one person; None if nothing is.

    In the clear it has to be presence that can be read. What is signed or sealed is its reader's to judge and crosses as it is:
    only under another's name it does not (PRES-1).
    """
    try:
        view = _secured_view(obj, DEFAULT)
    except MalformedMessage as error:
        crosses = protections(obj) or obj.media_type in PKCS7
        return None if crosses else Refusal("bad-request", error.reason)
    if view is not None and not view.is_about(target):
        return Refusal("forbidden", "the document is about somebody else")
    return None


def _secured_view(obj: MimeObject, limits: PresenceLimits) -> PresenceDocument | None:
    """The presence document in an entity, through message/cpim and clear signatures; None if it is encrypted.

    Raises MalformedMessage: there is no document, or none that can be read here.
    """
    if Requirement.ENCRYPTED in protections(obj):
        return None
    for _ in range(_DEPTH):
        if obj.media_type == PIDF_TYPE:
            return PresenceDocument.of(obj, limits=limits)
        if obj.media_type == CPIM_TYPE:
            obj = content_object(CpimMessage.parse(decode_transfer(obj)))
        elif obj.media_type == "multipart/signed":
            obj = signed_part(obj)
        else:
            break
    raise MalformedMessage("this holds no presence document that can be read here")


__all__ = [
    "Notice",
    "check_presence",
    "content_to_stanzas",
    "current_stanzas",
    "notify_to_stanzas",
    "parting_words",
    "presence_state",
    "priority_of",
    "stanza_to_notify",
    "stanza_to_statement",
]

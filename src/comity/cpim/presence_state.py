"""Presence as people and simple clients know it (table T9): available, away, busy, offline, with a note.

Place on the path: steps 4 and 8 of a notify. A binding whose protocol has no documents (XMPP, APEX) makes a document of a
``PresenceState`` and reads states out of documents; its own half of the mapping stands in its ``mapping.py``. What T9 and T5
say is one table each below; nothing here knows a protocol, only the names RFC 8048 gives to values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from math import ceil
from typing import Final, NamedTuple

from comity.cpim.address import Address
from comity.cpim.presence import BasicStatus, Component, Note, PresenceDocument, PresenceTuple
from comity.cpim.presence_writer import build
from comity.cpim.rpid import DEVICE_ID, RPID, Choice, Place, UserInput, read_rpid
from comity.xml import Element

#: RFC 8048 section 6.2 note 7: the element of XMPP stands in the status as it is.
SHOW: Final = "{jabber:client}show"
#: RFC 3922 section 5.1.5 prints this one, in a namespace nobody registered; read, never written (X19).
_OLD_SHOW: Final = "{urn:ietf:params:xml:ns:pidf:im}im"
#: Ours: this presentity's status can be seen by those alone who can open it.
SEALED: Final = "{urn:comity:presence:0}sealed"
_SPACE: Final = " \t\r\n"
_NOTHING: Final = Choice()
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


class Availability(Enum):
    """The rows of T9 that a document can express; from the most to the least available."""

    CHAT = "chat"
    AVAILABLE = "available"
    AWAY = "away"
    XA = "xa"
    DND = "dnd"
    OFFLINE = "offline"
    UNKNOWN = "unknown"
    """Nothing was said: nothing is told."""


#: T9: the value of ``show`` for each state that has one.
_SHOWN: Final = {
    state: state.value for state in (Availability.CHAT, Availability.AWAY, Availability.XA, Availability.DND)
}
_BY_SHOW: Final = {show: state for state, show in _SHOWN.items()} | {"busy": Availability.DND}
#: T9: the activity of the person that we add for those who do not know ``show``.
_ACTIVITY: Final = {Availability.AWAY: "away", Availability.XA: "away", Availability.DND: "busy"}
#: T9: what an activity means where there is no ``show``; the first row that holds counts.
_BY_ACTIVITY: Final = (
    (Availability.DND, frozenset({"busy", "meeting", "on-the-phone", "presentation"})),
    (Availability.XA, frozenset({"vacation", "travel", "sleeping", "permanent-absence"})),
    (Availability.AWAY, frozenset({"away"})),
)
_ORDER: Final = list(Availability)


@dataclass(frozen=True, slots=True)
class PresenceState:
    """What one device or service says, or what can be said of a presentity as a whole."""

    availability: Availability
    notes: tuple[Note, ...] = ()
    """At most one per language is shown."""
    priority: Decimal | None = None
    """0 to 1 (RFC 3863 section 4.1.5); None is the lowest."""
    user_input: UserInput | None = None
    """Whether somebody uses the device; None if that is not said."""
    activities: Choice = _NOTHING
    """Of the person, as far as they say more than ``availability`` (RFC 4480 section 3.2)."""


# --- a document to states ------------------------------------------------------------------------------------------


def tuple_state(document: PresenceDocument, one: PresenceTuple, when: datetime) -> PresenceState:
    """What one tuple of ``document`` says at ``when`` (aware), the person and the device behind it included."""
    return _state(one, _around(document, when), when)


def tuple_states(document: PresenceDocument, when: datetime) -> list[tuple[PresenceTuple, PresenceState]]:
    """The presentity's own services and what each says; services of somebody else, an assistant say, do not count
    (RFC 4480 section 3.9)."""
    around = _around(document, when)
    return [(one, _state(one, around, when)) for one in document.tuples if is_own(one, when)]


def document_state(document: PresenceDocument, when: datetime) -> PresenceState:
    """What the document says of the presentity as a whole: its most available service (RFC 8048 section 6.2).

    Among equals the highest priority speaks, then the latest timestamp.
    """
    states = tuple_states(document, when)
    if not states:
        return PresenceState(
            Availability.UNKNOWN, _person_notes(document), None, None, _said_by_persons(document.persons, when)
        )
    _, best = min(
        states,
        key=lambda pair: (
            _ORDER.index(pair[1].availability),
            -(pair[1].priority or 0),
            -((pair[0].timestamp or _EARLIEST) - _EARLIEST).total_seconds(),
        ),
    )
    return best


class _Around(NamedTuple):
    """What a document says beside its tuples: read once, however many of them there are."""

    activities: Choice
    """Of the persons that are of no tuple in particular."""
    by_tuple: dict[str, Choice]
    """By the id of a tuple, of the person that was written for it (``state_document``): in a document composed of several
    devices, what one of them says of itself would else be said of all."""
    notes: tuple[Note, ...]
    input: UserInput | None
    inputs: dict[str, UserInput]
    """By device id."""


def _around(document: PresenceDocument, when: datetime) -> _Around:
    inputs: dict[str, UserInput] = {}
    for device in document.devices:
        given = read_rpid(device.extensions, Place.DEVICE, when).user_input
        if given:
            inputs.setdefault(device.device_id, given)
    by_persons = (read_rpid(person.extensions, Place.PERSON, when).user_input for person in document.persons)
    person = next((given for given in by_persons if given), None)
    of_tuples = {_person_id(one.id): one.id for one in document.tuples}
    by_tuple = {
        of_tuples[person.id]: _said_by_persons([person], when) for person in document.persons if person.id in of_tuples
    }
    others = [person for person in document.persons if person.id not in of_tuples]
    return _Around(_said_by_persons(others, when), by_tuple, _person_notes(document), person, inputs)


def _state(one: PresenceTuple, around: _Around, when: datetime) -> PresenceState:
    activities, notes = around.by_tuple.get(one.id, around.activities), one.notes or around.notes
    return PresenceState(
        _availability(one, activities), notes, one.priority, _user_input(one, around, when), activities
    )


def is_own(one: PresenceTuple, when: datetime) -> bool:
    """True if the tuple is a service of the presentity itself, which is the default."""
    return read_rpid(one.extensions, Place.TUPLE, when).relationship in ("", "self")


def _availability(one: PresenceTuple, person: Choice) -> Availability:
    if one.basic_status is BasicStatus.CLOSED:
        return Availability.OFFLINE  # T9: closed beats everything
    if one.basic_status is None:
        return Availability.UNKNOWN
    # PRES-16: an attribute may stand under status (old) or under tuple (new).
    for element in (*one.status_extensions, *one.extensions):
        if element.name in (SHOW, _OLD_SHOW):
            return _BY_SHOW.get(element.text.strip(_SPACE), Availability.AVAILABLE)
    for state, names in _BY_ACTIVITY:
        if names.intersection(person.names):
            return state
    return Availability.AVAILABLE


def _said_by_persons(persons: Sequence[Component], when: datetime) -> Choice:
    """The activities of the person who changed last among those that name any (RFC 4479 section 3.5)."""
    said = [(person.timestamp or _EARLIEST, read_rpid(person.extensions, Place.PERSON, when)) for person in persons]
    named = [(at, rpid.activities) for at, rpid in said if rpid.activities.names or rpid.activities.texts]
    return max(named, key=lambda pair: pair[0])[1] if named else _NOTHING


def _person_notes(document: PresenceDocument) -> tuple[Note, ...]:
    noted = [(person.timestamp or _EARLIEST, person) for person in document.persons if person.notes]
    return max(noted, key=lambda pair: pair[0])[1].notes if noted else document.notes


def _user_input(one: PresenceTuple, around: _Around, when: datetime) -> UserInput | None:
    """Of the service itself, else of the devices it runs on, else of the person."""
    found = read_rpid(one.extensions, Place.TUPLE, when).user_input
    if found:
        return found
    ids = {e.text.strip(_SPACE) for e in one.extensions if e.name == DEVICE_ID}
    by_devices = (given for id, given in around.inputs.items() if id in ids) if ids else iter(())
    return next(by_devices, around.input)


# --- a state to a document -----------------------------------------------------------------------------------------


def state_document(
    entity: Address,
    tuple_id: str,
    state: PresenceState,
    when: datetime,
    *,
    contact: str = "",
    with_last_input: bool = True,
) -> PresenceDocument | None:
    """The document of one device; None for a state that is not known, about which nothing is sent (T9).

    Args:
        entity: the presentity.
        tuple_id: of the device, see ``tuple_id_of``.
        state: what it says.
        when: of the change, aware; see ``presence_writer.distinct``.
        contact: where it can be reached; default the presentity's im: address (PRES-4).
        with_last_input: False withholds when the device was used last (PRES-20).

    Raises:
        LocalProtocolError: a note holds what XML cannot.
    """
    if state.availability is Availability.UNKNOWN:
        return None
    is_open = state.availability is not Availability.OFFLINE
    show = _SHOWN.get(state.availability)
    extensions = [_user_input_element(state.user_input, with_last_input)] if state.user_input and is_open else []
    one = PresenceTuple(
        tuple_id,
        BasicStatus.OPEN if is_open else BasicStatus.CLOSED,
        contact or entity.with_scheme("im").uri,
        state.priority,
        state.notes,
        when,
        (Element(SHOW, {}, [show]),) if show else (),
        tuple(extensions),
    )
    return build(entity.with_scheme("pres").uri, [one], persons=persons_of(tuple_id, state, when))


def offline_document(entity: Address, when: datetime) -> PresenceDocument:
    """The document of a presentity that is nowhere, which is also that of polite blocking (T9, ACL-11).

    One closed tuple, no person, no device: nothing but ``entity`` and ``when`` goes into it.
    """
    one = PresenceTuple("offline", BasicStatus.CLOSED, entity.with_scheme("im").uri, None, (), when)
    return build(entity.with_scheme("pres").uri, [one])


def _person_id(tuple_id: str) -> str:
    return f"person-{tuple_id}"


def sealed_document(entity: Address, when: datetime) -> PresenceDocument:
    """The document of a presentity that says how it is to those alone who can open what it sealed.

    One tuple without ``basic``: not known, which is not closed (PRES-5); none at all is not for others to see (GW-16).
    """
    one = PresenceTuple("sealed", None, entity.with_scheme("im").uri, None, (), when, (Element(SEALED),))
    return build(entity.with_scheme("pres").uri, [one])


def persons_of(tuple_id: str, state: PresenceState, when: datetime) -> list[Component]:
    """The person as the service ``tuple_id`` knows it: what readers understand that know no ``show`` (T9); none if it says nothing."""
    names = state.activities.names
    if state.availability is Availability.AVAILABLE:
        # Without ``show`` an activity speaks; one that says "busy" would contradict the state.
        names = tuple(name for name in names if not any(name in row for _, row in _BY_ACTIVITY))
    activity = _ACTIVITY.get(state.availability)
    if activity and not names:
        names = (activity,)
    if not names or state.availability is Availability.OFFLINE:
        return []
    activities = Element(f"{{{RPID}}}activities", {}, [Element(f"{{{RPID}}}{name}") for name in names])
    return [Component(_person_id(tuple_id), "", (), when, (activities,))]


def _user_input_element(given: UserInput, with_last_input: bool) -> Element:
    attributes = {}
    if given.threshold is not None:
        attributes["idle-threshold"] = str(given.threshold)
    if given.last_input is not None and with_last_input:
        attributes["last-input"] = given.last_input.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Element(f"{{{RPID}}}user-input", attributes, ["idle" if given.is_idle else "active"])


# --- values of other protocols (T5) ----------------------------------------------------------------------------------

# Names beyond ASCII are not the same in every edition of XML 1.0, and xs:ID goes by the fourth.
_NCNAME = re.compile(r"[A-Za-z0-9._-]+")


def tuple_id_of(resource: str) -> str:
    """The tuple id of a device that its protocol calls ``resource``: an xs:ID (RFC 8048 section 6.2 note 2, X18)."""
    if _NCNAME.fullmatch(resource):
        return "ID-" + resource
    return "IDX-" + resource.encode("utf-8").hex()


def resource_of(tuple_id: str) -> str:
    """The other way round; an id of foreign making is a resource as it stands."""
    if tuple_id.startswith("IDX-"):
        try:
            return bytes.fromhex(tuple_id[4:]).decode("utf-8") or tuple_id
        except ValueError:
            return tuple_id
    return tuple_id.removeprefix("ID-") or tuple_id


def priority_from_number(number: int) -> Decimal | None:
    """A contact priority of a number from -128 to 127; a negative one is never mapped (RFC 8048 section 6.2 note 6)."""
    return Decimal(1000 * min(number, 127) // 127).scaleb(-3) if number >= 0 else None


def priority_to_number(priority: Decimal | None) -> int:
    """The number from 0 to 127 of a contact priority; every number comes back as itself."""
    if priority is None or priority <= 0:
        return 0
    return 127 if priority >= 1 else min(126, ceil(127 * priority))


def note_in(notes: Sequence[Note], language: str = "") -> str:
    """The note in ``language``, else the first one; "" if there is none."""
    wanted = language.lower()
    return next((note.text for note in notes if note.language.lower() == wanted), notes[0].text if notes else "")

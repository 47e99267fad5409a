"""What RPID says about a person, a service or a device (RFC 4480), read from a presence document.

Place on the path: beside ``presence.py``; ``presence_state.py`` and the rules read documents through it. Table 1 of
section 3.1 decides what counts where; an element outside its place, outside its time (``from``, ``until``) or
repeated where it may stand once says nothing, as does one that is absent (RFC 4479 section 3.6).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from comity.cpim.header import read_timestamp
from comity.cpim.presence import DATA_MODEL, Note, is_understood
from comity.xml import Element

RPID: Final = "urn:ietf:params:xml:ns:pidf:rpid"
LOCATION_TYPE: Final = "urn:ietf:params:xml:ns:location-type"
DEVICE_ID: Final = f"{{{DATA_MODEL}}}deviceID"
_SPACE: Final = " \t\r\n"
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


class Place(Enum):
    """Whom an element speaks about."""

    PERSON = "person"
    TUPLE = "tuple"
    DEVICE = "device"


_P, _T, _D = Place.PERSON, Place.TUPLE, Place.DEVICE

#: Table 1 of RFC 4480: element, where it may stand, whether it takes from and until.
TABLE_1: Final[dict[str, tuple[frozenset[Place], bool]]] = {
    "activities": (frozenset({_P}), True),
    "class": (frozenset({_P, _T, _D}), False),
    "mood": (frozenset({_P}), True),
    "place-is": (frozenset({_P}), True),
    "place-type": (frozenset({_P}), True),
    "privacy": (frozenset({_P, _T}), True),
    "relationship": (frozenset({_T}), False),
    "service-class": (frozenset({_T}), False),
    "sphere": (frozenset({_P}), True),
    "status-icon": (frozenset({_P, _T}), True),
    "time-offset": (frozenset({_P}), True),
    "user-input": (frozenset({_P, _T, _D}), False),
}


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ACTIVITIES: Final = _words(
    "appointment away breakfast busy dinner holiday in-transit looking-for-work lunch meal meeting on-the-phone other"
    " performance permanent-absence playing presentation shopping sleeping spectator steering travel tv unknown vacation"
    " working worship"
)
MOODS: Final = _words(
    "afraid amazed angry annoyed anxious ashamed bored brave calm cold confused contented cranky curious depressed"
    " disappointed disgusted distracted embarrassed excited flirtatious frustrated grumpy guilty happy hot humbled"
    " humiliated hungry hurt impressed in_awe in_love indignant interested invincible jealous lonely mean moody nervous"
    " neutral offended other playful proud relieved remorseful restless sad sarcastic serious shocked shy sick sleepy"
    " stressed surprised thirsty unknown worried"
)
_MORE = _words(
    "note audio video text noisy ok quiet toobright dark uncomfortable inappropriate assistant associate family friend"
    " self supervisor courier electronic freight in-person postal home work"
)


class _Vocabulary:
    """Every element name RFC 4480 defines, and place types, whose list is IANA's (RFC 4589)."""

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        namespace, _, local = name[1:].rpartition("}")
        if namespace == RPID:
            return local in TABLE_1 or local in ACTIVITIES or local in MOODS or local in _MORE
        return namespace == LOCATION_TYPE


_VOCABULARY: Final = _Vocabulary()


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen from an enumeration: activities, moods, place types."""

    names: tuple[str, ...] = ()
    """Local names, in document order; those of other namespaces are left out."""
    texts: tuple[Note, ...] = ()
    """What was said in own words (``other``)."""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class UserInput:
    """Whether somebody uses the device (RFC 4480 section 3.14)."""

    is_idle: bool
    last_input: datetime | None = None
    threshold: int | None = None
    """Seconds without input after which it is called idle."""


@dataclass(frozen=True, slots=True)
class Rpid:
    """What is said about one person, tuple or device; a default value means that nothing is said."""

    activities: Choice = Choice()
    mood: Choice = Choice()
    place_type: Choice = Choice()
    place_is: tuple[tuple[str, str], ...] = ()
    """(medium, property) pairs."""
    privacy: tuple[str, ...] = ()
    sphere: str = ""
    class_: str = ""
    relationship: str = ""
    service_class: str = ""
    status_icon: str = ""
    """A URI. It is never fetched here."""
    time_offset: int | None = None
    """Minutes east of UTC."""
    user_input: UserInput | None = None


def read_rpid(extensions: Iterable[Element], place: Place, when: datetime) -> Rpid:
    """Read what the extensions of one component say at ``when`` (aware)."""
    found = _usable(extensions, place, when)

    def first(name: str) -> Element | None:
        return found[name][0] if name in found else None

    return Rpid(
        _choice(found.get("activities", ()), RPID, ACTIVITIES),
        _choice(found.get("mood", ()), RPID, MOODS),
        _choice(found.get("place-type", ()), LOCATION_TYPE, None),
        tuple(
            (medium.local, chosen.local)
            for element in found.get("place-is", ())
            for medium in element.elements()
            if medium.namespace == RPID and medium.local in ("audio", "video", "text")
            for chosen in medium.elements()
        ),
        _names(first("privacy")),
        _name_or_text(first("sphere")),
        _text(first("class")),
        _name_or_text(first("relationship")),
        _name_or_text(first("service-class")),
        _text(first("status-icon")),
        _integer(_text(first("time-offset"))),
        _user_input(first("user-input")),
    )


def is_current(element: Element, when: datetime) -> bool:
    """True if ``when`` lies in the element's time, from ``from`` up to but without ``until`` (RFC 4480 section 3.1).

    A limit that is no timestamp leaves the time unknown: False.
    """
    begin, end = limits_of(element)
    if (begin is None and "from" in element.attributes) or (end is None and "until" in element.attributes):
        return False
    return (begin is None or begin <= when) and (end is None or when < end)


def limits_of(element: Element) -> tuple[datetime | None, datetime | None]:
    """``from`` and ``until`` in UTC, None where there is none or it cannot be read."""
    return _time(element, "from"), _time(element, "until")


def _time(element: Element, attribute: str) -> datetime | None:
    when = read_timestamp(element.get(attribute).strip(_SPACE))
    return when.astimezone(UTC) if when else None


def _usable(extensions: Iterable[Element], place: Place, when: datetime) -> dict[str, tuple[Element, ...]]:
    found: dict[str, list[Element]] = {}
    for element in extensions:
        if element.namespace == RPID and place in TABLE_1.get(element.local, (frozenset(), False))[0]:
            found.setdefault(element.local, []).append(element)
    usable: dict[str, tuple[Element, ...]] = {}
    for name, elements in found.items():
        is_timed = TABLE_1[name][1]
        if len(elements) > 1 and not is_timed:
            continue  # section 5: MUST NOT appear more than once; which of them holds nobody can tell
        kept = tuple(e for e in elements if is_understood(e, _VOCABULARY) and (not is_timed or is_current(e, when)))
        if kept:
            usable[name] = kept
    return usable


def _choice(elements: Iterable[Element], namespace: str, names: frozenset[str] | None) -> Choice:
    chosen: list[str] = []
    texts: list[Note] = []
    notes: list[Note] = []
    for element in elements:
        for child in element.elements():
            if child.name == f"{{{RPID}}}note":
                notes.append(Note(child.text, child.language))
            elif child.name == f"{{{RPID}}}other":
                texts.append(Note(child.text, child.language))
            elif child.namespace == namespace and (names is None or child.local in names):
                chosen.append(child.local)
    return Choice(tuple(dict.fromkeys(chosen)), tuple(texts), tuple(notes))


def _names(element: Element | None) -> tuple[str, ...]:
    if element is None:
        return ()
    return tuple(child.local for child in element.elements() if child.namespace == RPID and child.local != "note")


def _text(element: Element | None) -> str:
    return element.text.strip(_SPACE) if element else ""


def _name_or_text(element: Element | None) -> str:
    """The one value of an element that holds a name (``<home/>``), words of its own (``other``) or plain text."""
    if element is None:
        return ""
    for child in element.elements():
        if child.namespace == RPID and child.local != "note":
            return child.text.strip(_SPACE) if child.local == "other" else child.local
    return _text(element)


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _user_input(element: Element | None) -> UserInput | None:
    state = _text(element)
    if element is None or state not in ("active", "idle"):
        return None
    threshold = _integer(element.get("idle-threshold").strip(_SPACE))
    return UserInput(state == "idle", _time(element, "last-input"), threshold if threshold and threshold > 0 else None)

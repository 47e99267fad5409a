"""Presence entries and presence documents, both ways (RFC 3343 section 3; tables T6 and T9 of conformance.md). Pure.

Place on the path: step 4 of a publish, step 8 of a notify. An account has one presence entry for all its applications
(``Entry``); as a publication it is a document like any other device's, in which what PIDF has no words for (availableUntil,
tupleInfo, publisherInfo, capabilities, lastUpdate) stands in elements of our own namespace, so that an APEX watcher reads back
what was written and everybody else reads "open" and "closed".

What other devices say of themselves stands in the entry too, for whoever reads it: their tuples carry a tupleInfo that begins
``urn:comity:tuple:0:ID``, and a sub-state and notes in it (T9). They are those devices' own: an application that sends the entry back
neither repeats nor ends them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, urlencode

from comity.bindings.apex.elements import Capability, Presence, Tuple
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError, absolute_uri
from comity.cpim.address import Address
from comity.cpim.compose import timestamp
from comity.cpim.header import read_timestamp
from comity.cpim.presence import BasicStatus, Component, Note, PresenceDocument, PresenceTuple
from comity.cpim.presence_state import SHOW, Availability, PresenceState, persons_of, tuple_states
from comity.cpim.presence_writer import build
from comity.xml import Element

NAMESPACE: Final = "urn:comity:apex-presence:0"
_ENTRY, _TUPLE, _CAPABILITY = (f"{{{NAMESPACE}}}{name}" for name in ("entry", "tuple", "capability"))
#: Begins a tupleInfo of ours; a colon and the id of a tuple follow where another device said it.
STATE_INFO: Final = "urn:comity:tuple:0"
_OFFLINE: Final = f"{STATE_INFO}:offline"
_MOST_INFO: Final = 2048
"""Characters of a tupleInfo of ours; notes are left out of a longer one."""
_SHOWN: Final = (Availability.CHAT, Availability.AWAY, Availability.XA, Availability.DND)
_SHOWS: Final = frozenset(one.value for one in _SHOWN)


@dataclass(frozen=True, slots=True)
class Entry:
    """What the applications of an account published, the last one's word."""

    last_update: datetime
    """Ours, aware, to the millisecond."""
    publisher_info: str = ""
    tuples: tuple[Tuple, ...] = ()
    """Their own only; none once somebody published nothing of his own."""

    def is_over(self, now: datetime) -> bool:
        """True if nothing of it is available any more."""
        return all(one.available_until <= now for one in self.tuples)

    def next_end(self, now: datetime) -> datetime | None:
        """When one of its tuples ceases to be available."""
        return min((one.available_until for one in self.tuples if one.available_until > now), default=None)


# --- an entry to a document ------------------------------------------------------------------------------------------


def own_tuples(presence: Presence) -> tuple[Tuple, ...]:
    """What an application says of its own in an entry it publishes."""
    return tuple(one for one in presence.tuples if not one.tuple_info.startswith(f"{STATE_INFO}:"))


def entry_to_document(account: Address, entry: Entry, now: datetime) -> PresenceDocument:
    """The publication of an entry at ``now``: what is past its time is closed.

    Raises:
        MalformedMessage: it passes a limit (hint "size").
        LocalProtocolError: it holds what XML cannot.
    """
    known: set[str] = set()
    tuples: list[PresenceTuple] = []
    persons: list[Component] = []
    for one in entry.tuples:
        made, state = _tuple(one, entry.last_update, now, known)
        tuples.append(made)
        persons += persons_of(made.id, state, made.timestamp or now)
    attributes = {"last-update": timestamp(entry.last_update)}
    if entry.publisher_info:
        attributes["publisher-info"] = entry.publisher_info
    return build(account.with_scheme("pres").uri, tuples, persons=persons, extensions=[Element(_ENTRY, attributes)])


def document_to_entry(document: PresenceDocument) -> Entry | None:
    """The entry a document was made of; None if it was made of none."""
    found = next((element for element in document.extensions if element.name == _ENTRY), None)
    when = read_timestamp(found.get("last-update")) if found is not None else None
    if found is None or when is None:
        return None
    tuples = tuple(own for one in document.tuples if (own := _own(one)) is not None)
    info = found.get("publisher-info")
    return Entry(when.astimezone(UTC), info if _is_uri(info) else "", tuples)


def _tuple(given: Tuple, last_update: datetime, now: datetime, known: set[str]) -> tuple[PresenceTuple, PresenceState]:
    until = given.available_until.astimezone(UTC)
    shown, notes = _said(given.tuple_info)
    is_open = until > now
    state = PresenceState(Availability(shown or "available") if is_open else Availability.OFFLINE, notes)
    extra = Element(_TUPLE, {"available-until": timestamp(until)})
    if given.tuple_info:
        extra.attributes["info"] = given.tuple_info
    extra.children += [Element(_CAPABILITY, {"baseline": one.baseline}, [one.text]) for one in given.capabilities]
    made = PresenceTuple(
        _id(given, known),
        BasicStatus.OPEN if is_open else BasicStatus.CLOSED,
        given.destination,
        None,
        notes,
        until if last_update < until <= now else last_update,
        (Element(SHOW, {}, [shown]),) if shown and is_open else (),
        (extra,),
    )
    return made, state


def _id(given: Tuple, known: set[str]) -> str:
    """The same for the same destination, whatever else changes; not like an id that is made for any other device."""
    digest = hashlib.blake2b(given.destination.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()
    id, count = f"A{digest}", 1
    while id in known:
        count += 1
        id = f"A{digest}-{count}"
    known.add(id)
    return id


def _own(given: PresenceTuple) -> Tuple | None:
    """The tuple of an entry as it was published; None for what another device said, in our own elements or not."""
    extra = next((element for element in given.extensions if element.name == _TUPLE), None)
    until = read_timestamp(extra.get("available-until")) if extra is not None else None
    if extra is None or until is None:
        return None
    capabilities = [(one.get("baseline"), one.text) for one in extra.find_all(_CAPABILITY)]
    info = extra.get("info")
    if not (_is_uri(given.contact) and (not info or _is_uri(info)) and all(_is_uri(name) for name, _ in capabilities)):
        return None
    return Tuple(given.contact, until.astimezone(UTC), info, tuple(Capability(*one) for one in capabilities))


def _is_uri(text: str) -> bool:
    try:
        return bool(absolute_uri(text))
    except WireError:
        return False


# --- a document to an entry ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shown:
    """A presence entry as watchers are shown it, but for the end of what is open, which is each watcher's own."""

    publisher_info: str
    last_update: datetime
    tuples: tuple[tuple[Tuple, bool], ...]
    """Whether it is another device's and open: nobody said how long."""

    def with_past(self, entry: Entry) -> Shown:
        """The same for the account itself, whose own entry is over and not shown to others."""
        past = tuple((one, False) for one in entry.tuples)
        others = tuple((one, is_open) for one, is_open in self.tuples if is_open or one.tuple_info != _OFFLINE)
        return Shown(entry.publisher_info, max(self.last_update, entry.last_update), past + others)

    def presence(self, publisher: Endpoint, until: datetime) -> Presence:
        """The entry for one watcher.

        Args:
            publisher: whose it is.
            until: what is open without an end of its own is available until then (T9).
        """
        tuples = tuple(replace(one, available_until=until) if is_open else one for one, is_open in self.tuples)
        return Presence(publisher, timestamp(self.last_update), self.publisher_info, tuples)


def show(document: PresenceDocument, account: Address, now: datetime) -> Shown:
    """Read a document as a presence entry (T9): tuples that say no status are left out, and never all of them."""
    entry = document_to_entry(document)
    tuples: list[tuple[Tuple, bool]] = []
    for one, state in tuple_states(document, now):
        own = _own(one)
        if own is not None:
            tuples.append((own, False))
        elif state.availability is not Availability.UNKNOWN:
            is_open = state.availability is not Availability.OFFLINE
            past = min(one.timestamp or now, now)
            tuples.append((Tuple(_destination(one.contact, account), past, _info(one, state)), is_open))
    said = document.date_time or now
    when = said if entry is None else max(said, entry.last_update)
    return Shown(entry.publisher_info if entry else "", when, tuple(tuples) or ((_past(account, when), False),))


def _destination(contact: str, account: Address) -> str:
    """Where a device can be reached; the account, if it does not say that in a URI."""
    return contact if _is_uri(contact) else account.with_scheme("im").uri


def show_nothing(account: Address, when: datetime) -> Shown:
    """What somebody is shown who has to wait, or sees nobody: one tuple, past (T1, T9)."""
    return Shown("", when, ((_past(account, when), False),))


def _past(account: Address, when: datetime) -> Tuple:
    return Tuple(account.with_scheme("im").uri, when, _OFFLINE)


def read_last_update(presence: Presence) -> datetime | None:
    """The lastUpdate an application read and sends back; None if that is no time."""
    when = read_timestamp(presence.last_update)
    return None if when is None else when.astimezone(UTC)


# --- sub-states: a URI that may be lost (T9) -----------------------------------------------------------------------------


def _info(one: PresenceTuple, state: PresenceState) -> str:
    """What a device says beyond open and closed, and that it is a device's word."""
    name = f"{STATE_INFO}:{quote(one.id, safe='')}"
    show = [("show", state.availability.value)] if state.availability in _SHOWN else []
    notes = [(f"note@{note.language}" if note.language else "note", note.text) for note in state.notes]
    for said in (show + notes, show):
        info = f"{name}?={urlencode(said, quote_via=quote)}" if said else name
        if len(info) <= _MOST_INFO:
            return info
    return name


def _said(info: str) -> tuple[str, tuple[Note, ...]]:
    """The show and the notes of a tupleInfo of an application that uses our URI; nothing for any other."""
    head, mark, query = info.partition("?=")
    if head != STATE_INFO or not mark or len(info) > _MOST_INFO:
        return "", ()
    show, notes = "", {}
    for name, value in parse_qsl(query):
        if name == "show" and value in _SHOWS:
            show = value
        elif name.partition("@")[0] == "note" and value.isprintable():
            notes[name.partition("@")[2]] = value
    return show, tuple(Note(text, language) for language, text in notes.items())

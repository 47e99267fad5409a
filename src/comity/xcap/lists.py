"""One contact list: what a resource-lists document says of an account's contacts, and the document when they changed elsewhere.

Place on the path: beside it. ``people_of`` reads contacts out of a document, ``reconcile`` brings a document up to date with
them; every octet that has nothing to do with a change stays. An entry is a contact if its URI is of a scheme we know (sip, sips,
im, pres, xmpp); others (tel) are the document's own. The label of a list, its display-name or else its name, is a group;
``contacts`` and an empty label are none.

COMPAT OMA XDM and Blink keep who is blocked or granted in lists beside the contacts (``oma_blockedcontacts`` …); such lists are
left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from comity.cpim.address import Address, to_sip_uri
from comity.xcap.application import LISTS, owner_of
from comity.xcap.selector import Document
from comity.xml import Element, LocatedElement, escape_attribute, is_xml_text, serialize

NEW: Final = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<resource-lists xmlns="urn:ietf:params:xml:ns:resource-lists"/>\n'
)
"""The document of somebody who never put one."""
NO_GROUP: Final = "contacts"
"""Name of the list of those who are in no group."""

_LIST, _ENTRY, _DISPLAY_NAME = (f"{{{LISTS}}}{local}" for local in ("list", "entry", "display-name"))
_SCHEMES: Final = ("sip", "sips", "im", "pres", "xmpp")
_OMA: Final = "oma_"
_OMA_PEOPLE: Final = frozenset({"oma_allcontacts", "oma_buddylist"})


@dataclass(frozen=True, slots=True)
class Person:
    """One contact as both sides know it."""

    address: Address
    """``im:``, folded."""
    name: str
    groups: frozenset[str]
    """Without those that mean no group."""


def person(address: Address, name: str, groups: Iterable[str]) -> Person:
    """A contact in the form both sides are compared in."""
    return Person(address, name.strip(), frozenset(filter(_is_group, (group.strip() for group in groups))))


def is_plain_group(group: str) -> bool:
    """False for a group that a resource-lists document cannot tell from none."""
    return _is_group(group.strip())


def _is_group(label: str) -> bool:
    return bool(label) and label != NO_GROUP and not label.startswith(_OMA) and is_xml_text(label)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry that is a contact."""

    key: str
    address: Address
    label: str
    """Of the list it stands in; "" for no group."""
    place: LocatedElement
    display_name: LocatedElement | None

    @property
    def name(self) -> str:
        return self.display_name.element.text.strip() if self.display_name else ""


# --- reading -------------------------------------------------------------------------------------------------------


def people_of(document: Document, owner: Address) -> dict[str, Person]:
    """Contacts by key; one that stands there several times has the first of its names."""
    people: dict[str, Person] = {}
    for entry in _entries(document.root, owner):
        known = people.get(entry.key)
        groups = frozenset({entry.label} - {""}) | (known.groups if known else frozenset())
        people[entry.key] = Person(entry.address, (known.name if known else "") or entry.name, groups)
    return people


def _entries(root: LocatedElement, owner: Address) -> Iterator[_Entry]:
    for one in _lists(root):
        label = _label(one)
        for child in one.children:
            address = _address(child) if child.name == _ENTRY else None
            if address is not None and address.key != owner.key:
                display = next((part for part in child.children if part.name == _DISPLAY_NAME), None)
                yield _Entry(address.key, address, label if _is_group(label) else "", child, display)


def _lists(parent: LocatedElement) -> Iterator[LocatedElement]:
    """Lists of people, the lists inside them too."""
    for one in parent.children:
        if one.name == _LIST:
            name = one.element.get("name")
            if not name.startswith(_OMA) or name in _OMA_PEOPLE:
                yield one
                yield from _lists(one)


def _label(one: LocatedElement) -> str:
    display = one.element.find(_DISPLAY_NAME)
    return (display.text.strip() if display else "") or one.element.get("name").strip()


def _address(entry: LocatedElement) -> Address | None:
    uri = entry.element.get("uri").strip()
    return owner_of(uri) if uri.partition(":")[0].lower() in _SCHEMES else None


# --- bringing up to date ----------------------------------------------------------------------------------------


def reconcile(document: Document, owner: Address, people: dict[str, Person]) -> bytes:
    """The document as ``people`` are; itself if it says so already."""
    edits = _Edits(document)
    missing = {key: _homes(one) for key, one in people.items()}
    staying: dict[str, list[_Entry]] = {}
    for entry in _entries(document.root, owner):
        wanted = people.get(entry.key)
        if wanted is None or (entry.label and entry.label not in wanted.groups):
            edits.remove(entry.place)
            continue
        staying.setdefault(entry.key, []).append(entry)
        if entry.label or not wanted.groups:
            missing[entry.key].discard(entry.label)
    for key, entries in staying.items():
        if next((entry.name for entry in entries if entry.name), "") != people[key].name:
            for entry in entries:
                edits.rename(entry, people[key].name)
    for key in sorted(missing):
        for label in sorted(missing[key]):
            edits.add(label, people[key])
    return edits.applied()


def _homes(one: Person) -> set[str]:
    """Labels of the lists a contact has to stand in."""
    return set(one.groups) or {""}


class _Edits:
    """Changes to one document, made together at the end."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._cuts: list[tuple[int, int, bytes]] = []
        self._added: dict[str, list[bytes]] = {}
        """Entries to be added, by label."""

    def remove(self, place: LocatedElement) -> None:
        self._cuts.append((place.start, place.end, b""))

    def rename(self, entry: _Entry, name: str) -> None:
        """Another display-name, or none."""
        old = entry.display_name
        prefix = _prefix(entry.place)
        written = _display_name(prefix, name)
        if old is not None:
            self._cuts.append((old.start, old.end, written))
        elif written and entry.place.is_empty_tag:
            self._open(entry.place, written)
        elif written:
            self._cuts.append((entry.place.content, entry.place.content, written))

    def add(self, label: str, one: Person) -> None:
        self._added.setdefault(label, []).append(_written_entry(one))

    def applied(self) -> bytes:
        """The octets with all of it."""
        new_lists = []
        for label, entries in self._added.items():
            present = self._list_called(label)
            if present is None:
                new_lists.append((label, entries))
            else:
                self._append(present, b"".join(entries), _prefix(present))
        if new_lists:
            root = self._document.root
            names = {one.element.get("name") for one in root.children if one.name == _LIST}
            written = b"".join(_written_list(label, entries, names) for label, entries in new_lists)
            self._append(root, written, _prefix(root))
        octets, end = [], len(self._document.octets)
        for start, stop, new in sorted(self._cuts, reverse=True):
            octets += [self._document.octets[stop:end], new]
            end = start
        return self._document.octets[:end] + b"".join(reversed(octets))

    def _list_called(self, label: str) -> LocatedElement | None:
        for one in _lists(self._document.root):
            own = _label(one)
            if own == label or (not label and not _is_group(own)):
                return one
        return None

    def _append(self, parent: LocatedElement, written: bytes, prefix: bytes) -> None:
        """After the last element of ours: others' come behind those (RFC 4826 section 3.2)."""
        written = written.replace(b"\0", prefix)
        own = [child for child in parent.children if child.element.namespace == LISTS]
        if parent.is_empty_tag:
            self._open(parent, written)
        else:
            place = own[-1].end if own else parent.content
            self._cuts.append((place, place, written))

    def _open(self, parent: LocatedElement, written: bytes) -> None:
        """An empty-element tag gets content."""
        self._cuts.append((parent.end - 2, parent.end, b">" + written + b"</" + parent.raw_name + b">"))


def _prefix(one: LocatedElement) -> bytes:
    """With which elements of our namespace may be written inside ``one``, which is of it."""
    prefix, colon, _ = one.raw_name.rpartition(b":")
    return prefix + colon


# A NUL, which XML cannot hold, stands for the prefix until the place is known.


def _display_name(prefix: bytes, name: str) -> bytes:
    if not name or not is_xml_text(name):
        return b""
    text = serialize(Element("a", children=[name]))[len("<a>") : -len("</a>")]
    return b"<" + prefix + b"display-name>" + text + b"</" + prefix + b"display-name>"


def _written_entry(one: Person) -> bytes:
    start = f'<\0entry uri="{escape_attribute(to_sip_uri(one.address))}"'.encode()
    name = _display_name(b"\0", one.name)
    return start + (b">" + name + b"</\0entry>" if name else b"/>")


def _written_list(label: str, entries: list[bytes], names: set[str]) -> bytes:
    """A new list; ``names`` are taken, and one more is then."""
    name = wanted = label or NO_GROUP
    number = 1
    while name in names:
        number += 1
        name = f"{wanted}-{number}"
    names.add(name)
    head = f'<\0list name="{escape_attribute(name)}">'.encode()
    if name != wanted:
        head += _display_name(b"\0", wanted)
    return head + b"".join(entries) + b"</\0list>"

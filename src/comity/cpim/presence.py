"""A presence document: its octets and a view of them (PIDF, RFC 3863; components of RFC 4479).

Place on the path: steps 4, 5 and 8 of a notify, and ``secure``, read documents through ``PresenceDocument``; what travels
is always ``raw``. The rules its readers must keep: nothing here is ever written back, and only what this module reads
counts. An element it does not know is carried with all its content and means nothing (section 4.2.3).

What would let two readers see two states (two elements with one id, two statuses in one tuple) is malformed; what is
merely missing or out of order is read as far as it goes and flagged (RFC 4479 section 5). What RPID says is read by
``rpid.py``; to make a document, see ``presence_writer.py``.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Final

from comity.cpim.address import Address
from comity.cpim.documents import read_document, walk
from comity.cpim.entity import content_type_params, decode_transfer
from comity.cpim.header import read_timestamp
from comity.cpim.operations import MimeObject
from comity.errors import AddressError, MalformedMessage
from comity.xml import XML_LANG, Element, XmlLimits

PIDF_TYPE: Final = "application/pidf+xml"
PIDF: Final = "urn:ietf:params:xml:ns:pidf"
DATA_MODEL: Final = "urn:ietf:params:xml:ns:pidf:data-model"

_SPACE: Final = " \t\r\n"
_DECLARATION = re.compile(rb"(?:\xef\xbb\xbf)?<\?xml[ \t\r\n]([^>]*)\?>")
_PRIORITY = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


class BasicStatus(Enum):
    """What ``basic`` can say (RFC 3863 section 4.1.4); None stands for everything else: not known."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class PresenceLimits:
    """What a reader of presence documents puts up with; above it MalformedMessage with the hint "size" (CONSTR-1)."""

    document: int = 64 * 1024
    """Octets of one document."""
    depth: int = 32
    elements: int = 2048
    attributes: int = 32
    """Per element."""

    @property
    def xml(self) -> XmlLimits:
        """The same for the door to XML."""
        return XmlLimits(
            octets=self.document, depth=self.depth, elements=self.elements, attributes=self.attributes, namespaces=64
        )


DEFAULT = PresenceLimits()


@dataclass(frozen=True, slots=True)
class Note:
    """A comment for people; never a status (RFC 3863 section 4.1.6)."""

    text: str
    language: str = ""
    """The xml:lang in force, an enclosing element's included; "" if none is said."""


@dataclass(frozen=True, slots=True)
class PresenceTuple:
    """One tuple, a service by which the presentity can be reached (RFC 3863 section 4.1.2, RFC 4479 section 3.3)."""

    id: str
    """"" if the document gives none (flagged)."""
    basic_status: BasicStatus | None = None
    """None: unknown, which is not closed (PRES-5)."""
    contact: str = ""
    """A URI; "" if none is given."""
    priority: Decimal | None = None
    """0 to 1 with at most three decimals; None, the lowest, if absent or not such a number."""
    notes: tuple[Note, ...] = ()
    timestamp: datetime | None = None
    """When the status changed, in UTC."""
    status_extensions: tuple[Element, ...] = ()
    """Children of status other than basic, whole; see ``is_understood``."""
    extensions: tuple[Element, ...] = ()
    """Children of the tuple from other namespaces, whole; see ``is_understood``."""


@dataclass(frozen=True, slots=True)
class Component:
    """One occurrence of the person or of a device (RFC 4479 sections 3.2 and 3.4)."""

    id: str
    device_id: str = ""
    """The URN of a device; "" for a person."""
    notes: tuple[Note, ...] = ()
    """Its own; see ``PresenceDocument.person_notes``."""
    timestamp: datetime | None = None
    extensions: tuple[Element, ...] = ()
    """Children from other namespaces, whole; see ``is_understood``."""


@dataclass(frozen=True)
class PresenceDocument:
    """An immutable view of a presence document; made by ``parse``, equal if the octets are equal."""

    raw: bytes
    """The document as it stands; the only thing ever forwarded, stored or signed."""
    entity: str = field(compare=False)
    """The presentity's URI as written."""
    presentity: Address | None = field(compare=False, repr=False)
    """The pres: address of ``entity``, whatever scheme it is written in (PRES-2); None if it is no usable address."""
    tuples: tuple[PresenceTuple, ...] = field(compare=False, repr=False)
    notes: tuple[Note, ...] = field(compare=False, repr=False)
    """Children of the root: about the presentity."""
    persons: tuple[Component, ...] = field(compare=False, repr=False)
    devices: tuple[Component, ...] = field(compare=False, repr=False)
    extensions: tuple[Element, ...] = field(compare=False, repr=False)
    """Other children of the root, whole."""
    namespaces: frozenset[str] = field(compare=False, repr=False)
    """Of all elements in the document, understood or not."""
    flags: tuple[str, ...] = field(compare=False, repr=False)
    """What a reader should know: "no-declaration", "no-encoding", "entity-not-an-address", "out-of-order",
    "missing-id", "missing-status", "bad-basic", "bad-priority", "bad-timestamp"."""

    @classmethod
    def parse(cls, raw: bytes, *, charset: str = "", limits: PresenceLimits = DEFAULT) -> PresenceDocument:
        """View ``raw`` as a presence document.

        Args:
            raw: the octets of an application/pidf+xml entity.
            charset: parameter of its Content-Type, which beats the document's own declaration.
            limits: what to put up with.

        Raises:
            MalformedMessage: it is not such a document, could be read in two ways, or passes a limit (hint "size").
        """
        return _parse(raw, charset, limits)

    @classmethod
    def of(cls, obj: MimeObject, *, limits: PresenceLimits = DEFAULT) -> PresenceDocument:
        """View a MIME entity of the type application/pidf+xml; ``raw`` is what stands behind its transfer encoding.

        Raises:
            MalformedMessage: as ``parse``, or it is of another type.
        """
        media_type, params = content_type_params(obj.content_type)
        if media_type != PIDF_TYPE:
            raise MalformedMessage(f"the entity is not {PIDF_TYPE}")
        return _parse(decode_transfer(obj), params.get("charset", ""), limits)

    @cached_property
    def date_time(self) -> datetime | None:
        """The greatest timestamp of its tuples, persons and devices, by which age is judged (RFC 3863 section 6)."""
        times = [part.timestamp for part in self.tuples] + [part.timestamp for part in (*self.persons, *self.devices)]
        return max((when for when in times if when is not None), default=None)

    def is_about(self, address: Address) -> bool:
        """True if the entity is ``address`` under any scheme, as a domain sees it that folds case (N-19, ADDR-4)."""
        try:
            return self.presentity is not None and self.presentity.folded() == address.with_scheme("pres").folded()
        except AddressError:
            return False

    def person_notes(self, person: Component) -> tuple[Note, ...]:
        """The notes of a person: its own or, if it has none, those of the root (PRES-15)."""
        return person.notes or self.notes

    def is_outdated(self, last: datetime | None) -> bool:
        """True if its newest timestamp is older than ``last``, the newest of the document before it (PRES-12)."""
        return last is not None and self.date_time is not None and self.date_time < last


def is_understood(extension: Element, known: Container[str]) -> bool:
    """True if a reader who knows the element names ``known`` (Clark notation) may use ``extension``.

    An unknown element inside it that is marked mustUnderstand voids the extension whole; any other unknown element is
    passed over with its content, where such a mark counts for nothing (RFC 3863 section 4.2.3, X15).
    """
    if extension.name not in known:
        return False
    return all(
        is_understood(child, known) if child.name in known else not _must_be_understood(child)
        for child in extension.elements()
    )


def _must_be_understood(element: Element) -> bool:
    return element.get(f"{{{PIDF}}}mustUnderstand").strip(_SPACE) in ("1", "true")


def _parse(raw: bytes, charset: str, limits: PresenceLimits) -> PresenceDocument:
    return _View(raw, read_document(raw, limits.xml, charset)).document()


def view_of_tree(raw: bytes, root: Element, limits: PresenceLimits = DEFAULT) -> PresenceDocument:
    """View a document that was written here of ``root`` a moment ago: what ``parse`` would see, at half of its cost.

    Raises:
        MalformedMessage: two ids are equal, or it passes a limit (hint "size").
    """
    if len(raw) > limits.document:
        raise MalformedMessage("the document is too long", hint="size")
    level, count = [root], 0
    for _ in range(limits.depth):
        count += len(level)
        if count > limits.elements or any(len(one.attributes) > limits.attributes for one in level):
            break
        level = [child for one in level for child in one.children if isinstance(child, Element)]
        if not level:
            return _View(raw, root).document()
    raise MalformedMessage("the document has too many elements or attributes, or too deep ones", hint="size")


class _View:
    """Reads one tree; collects flags on the way."""

    def __init__(self, raw: bytes, root: Element) -> None:
        self.raw = raw
        self.root = root
        self.flags: dict[str, None] = {}
        self.ids: set[str] = set()

    def document(self) -> PresenceDocument:
        root = self.root
        if root.name != f"{{{PIDF}}}presence":
            raise MalformedMessage("the root is not presence in the namespace of RFC 3863")
        entity = root.get("entity").strip(_SPACE)
        if not entity:
            raise MalformedMessage("the presence document does not say whose it is: there is no entity")
        names = {element.name for element in walk(root)}
        namespaces = frozenset(name[1:].rpartition("}")[0] if name[0] == "{" else "" for name in names)
        self._check_declaration()
        self._check_order(root, ("tuple", "note"), other=2)
        presentity = _address(entity)
        if presentity is None:
            self.flags["entity-not-an-address"] = None
        language = root.language
        tuples = tuple(self._tuple(element, language) for element in root.find_all(_TUPLE))
        persons = tuple(self._component(element, language) for element in root.find_all(_PERSON))
        devices = tuple(self._component(element, language) for element in root.find_all(_DEVICE))
        others = tuple(e for e in root.elements() if e.namespace != PIDF and e.name not in (_PERSON, _DEVICE))
        notes = self._notes(root, PIDF, language)
        return PresenceDocument(
            self.raw, entity, presentity, tuples, notes, persons, devices, others, namespaces, tuple(self.flags)
        )

    def _check_declaration(self) -> None:
        declared = _DECLARATION.match(self.raw)
        if declared is None:
            self.flags["no-declaration"] = None
        elif b"encoding" not in declared[1]:
            self.flags["no-encoding"] = None

    def _tuple(self, element: Element, language: str) -> PresenceTuple:
        language = element.attributes.get(XML_LANG, language)
        status = self._only(element, _STATUS)
        basic = self._only(status, _BASIC) if status else None
        contact = self._only(element, _CONTACT)
        self._check_order(element, ("status", "", "contact", "note", "timestamp"), other=1)
        if status is None:
            self.flags["missing-status"] = None
        return PresenceTuple(
            self._id(element),
            self._basic(basic),
            contact.text.strip(_SPACE) if contact else "",
            self._priority(contact),
            self._notes(element, PIDF, language),
            self._timestamp(element, PIDF),
            tuple(child for child in status.elements() if child.namespace != PIDF) if status else (),
            tuple(child for child in element.elements() if child.namespace != PIDF),
        )

    def _component(self, element: Element, language: str) -> Component:
        language = element.attributes.get(XML_LANG, language)
        device_id = self._only(element, _DEVICE_ID) if element.name == _DEVICE else None
        return Component(
            self._id(element),
            device_id.text.strip(_SPACE) if device_id else "",
            self._notes(element, DATA_MODEL, language),
            self._timestamp(element, DATA_MODEL),
            tuple(child for child in element.elements() if child.namespace != DATA_MODEL),
        )

    def _id(self, element: Element) -> str:
        id = element.get("id").strip(_SPACE)
        if not id:
            self.flags["missing-id"] = None
        elif id in self.ids:
            raise MalformedMessage("two tuples, persons or devices have one id")
        self.ids.add(id)
        return id

    def _only(self, element: Element, name: str) -> Element | None:
        """The child called ``name``; two of them would let two readers see two states."""
        found = element.find_all(name)
        if len(found) > 1:
            raise MalformedMessage(f"{found[0].local} stands twice in one {element.local}")
        return found[0] if found else None

    def _basic(self, basic: Element | None) -> BasicStatus | None:
        if basic is None:
            return None
        try:
            return BasicStatus(basic.text)
        except ValueError:
            self.flags["bad-basic"] = None
            return None

    def _priority(self, contact: Element | None) -> Decimal | None:
        text = contact.get("priority").strip(_SPACE) if contact else ""
        if _PRIORITY.fullmatch(text):
            return Decimal(text)
        if text:
            self.flags["bad-priority"] = None
        return None

    def _notes(self, element: Element, namespace: str, language: str) -> tuple[Note, ...]:
        notes = element.find_all(f"{{{namespace}}}note")
        return tuple(Note(note.text, note.attributes.get(XML_LANG, language)) for note in notes)

    def _timestamp(self, element: Element, namespace: str) -> datetime | None:
        found = self._only(element, f"{{{namespace}}}timestamp")
        if found is None:
            return None
        text = found.text.strip(_SPACE)
        when = read_timestamp(text)
        if when is None or "t" in text or "z" in text:
            self.flags["bad-timestamp"] = None
            return None
        return when.astimezone(UTC)

    def _check_order(self, element: Element, order: tuple[str, ...], other: int) -> None:
        """Flag children that stand before one they should follow; ``other`` is the place of foreign elements."""
        last = 0
        for child in element.elements():
            namespace, local = child.namespace, child.local
            if namespace == PIDF and local not in order:
                continue
            place = order.index(local) if namespace == PIDF else other
            if place < last:
                self.flags["out-of-order"] = None
            last = place


_TUPLE, _STATUS, _BASIC, _CONTACT = (f"{{{PIDF}}}{name}" for name in ("tuple", "status", "basic", "contact"))
_PERSON, _DEVICE, _DEVICE_ID = (f"{{{DATA_MODEL}}}{name}" for name in ("person", "device", "deviceID"))


def _address(entity: str) -> Address | None:
    try:
        return Address.from_any(entity).with_scheme("pres")
    except AddressError:
        return None

"""Writing a presence document: what Comity itself composes, and nothing else (RFC 3863 section 4).

Place on the path: steps 4 to 6 of a notify. A document somebody signed is never written here: it goes whole or not at
all (SEED-46). The form is fixed: declaration, UTF-8, tuples, notes, devices, persons, other elements, each with its
children in the order of the schemas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Final

from comity.cpim.compose import timestamp
from comity.cpim.presence import (
    DATA_MODEL,
    DEFAULT,
    PIDF,
    Component,
    Note,
    PresenceDocument,
    PresenceLimits,
    PresenceTuple,
    view_of_tree,
)
from comity.cpim.rpid import RPID
from comity.errors import LocalProtocolError
from comity.xml import XML_LANG, Element, serialize, start_tag

PREFIXES: Final = {DATA_MODEL: "dm", RPID: "rpid"}
DECLARATION: Final = b'<?xml version="1.0" encoding="UTF-8"?>\r\n'
_MILLISECOND = timedelta(milliseconds=1)


def build(
    entity: str,
    tuples: Sequence[PresenceTuple] = (),
    *,
    notes: Sequence[Note] = (),
    persons: Sequence[Component] = (),
    devices: Sequence[Component] = (),
    extensions: Sequence[Element] = (),
    limits: PresenceLimits = DEFAULT,
) -> PresenceDocument:
    """Write a document and view it; the same arguments give the same octets.

    Args:
        entity: the presentity's pres: URI.
        tuples: each with an id of its own and a status that says something (PRES-5).
        notes: about the presentity.
        persons: with ids of their own.
        devices: with ids of their own and a device id.
        extensions: further children of the root, whole.
        limits: for the result.

    Raises:
        LocalProtocolError: something cannot be expressed.
        MalformedMessage: two ids are equal, or the result passes a limit (hint "size").
    """
    root = Element(f"{{{PIDF}}}presence", {"entity": entity})
    root.children += [_tuple(one) for one in tuples]
    root.children += _notes(notes, PIDF)
    root.children += [_component(one, "device") for one in devices]
    root.children += [_component(one, "person") for one in persons]
    root.children += extensions
    return view_of_tree(DECLARATION + _written(root, bool(persons or devices)) + b"\r\n", root, limits)


def _written(root: Element, has_components: bool) -> bytes:
    """The root with its children; the data model's and RPID's names with the prefixes of their RFCs.

    COMPAT baresip 1.0: looks for ``<rpid:away`` and the like by these very octets.
    """
    prefixes = PREFIXES if has_components else {}
    inner = b"".join(serialize(child, PIDF, prefixes) for child in root.children if isinstance(child, Element))
    opening = start_tag(Element(root.name, root.attributes), PIDF, prefixes)
    return opening + inner + b"</presence>"


def distinct(when: datetime, last: datetime | None) -> datetime:
    """A time for the next document: ``when`` to the millisecond, later than ``last`` in any case (PRES-8)."""
    when = when.replace(microsecond=when.microsecond // 1000 * 1000)
    return when if last is None or when > last else last + _MILLISECOND


def is_writable(element: Element) -> bool:
    """False for an element with names that XML allows and our writer does not."""
    try:
        serialize(element)
    except LocalProtocolError:
        return False
    return True


def _id(id: str) -> dict[str, str]:
    if not id:
        raise LocalProtocolError("a tuple, person or device needs an id")
    return {"id": id}


def _tuple(given: PresenceTuple) -> Element:
    status = Element(f"{{{PIDF}}}status")
    if given.basic_status is not None:
        status.append(Element(f"{{{PIDF}}}basic", {}, [given.basic_status.value]))
    status.children += given.status_extensions
    if not status.children:
        raise LocalProtocolError("a tuple needs a status")
    element = Element(f"{{{PIDF}}}tuple", _id(given.id), [status, *given.extensions])
    if given.contact:
        priority = {} if given.priority is None else {"priority": _priority(given.priority)}
        element.append(Element(f"{{{PIDF}}}contact", priority, [given.contact]))
    element.children += _notes(given.notes, PIDF)
    return _stamped(element, given.timestamp, PIDF)


def _priority(priority: Decimal) -> str:
    if not 0 <= priority <= 1 or priority != priority.quantize(Decimal("0.001")):
        raise LocalProtocolError("a priority is a number from 0 to 1 with at most three decimals")
    return f"{priority:f}"


def _component(given: Component, local: str) -> Element:
    element = Element(f"{{{DATA_MODEL}}}{local}", _id(given.id), list(given.extensions))
    if local == "device":
        if not given.device_id:
            raise LocalProtocolError("a device needs a device id")
        element.append(Element(f"{{{DATA_MODEL}}}deviceID", {}, [given.device_id]))
    element.children += _notes(given.notes, DATA_MODEL)
    return _stamped(element, given.timestamp, DATA_MODEL)


def _notes(notes: Iterable[Note], namespace: str) -> list[Element]:
    return [
        Element(
            f"{{{namespace}}}note", {XML_LANG: note.language} if note.language else {}, [note.text] if note.text else []
        )
        for note in notes
    ]


def _stamped(element: Element, when: datetime | None, namespace: str) -> Element:
    return element.append(Element(f"{{{namespace}}}timestamp", {}, [timestamp(when)])) if when else element

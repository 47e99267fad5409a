"""One presence document of what several devices published (RFC 3903 section 10.4, RFC 4479 section 3.5).

Place on the path: step 6 of a notify, and only at the presence server of the presentity (RFC 3856 section 6.9). A pure
function: the same publications at the same time give the same octets.

* Everything that is live is joined: tuples, persons and devices that contradict each other stand side by side, for the
  watcher to choose from (RFC 3863 section 4.1.2). Inside one tuple closed beats everything (T9).
* Ids are made unique by the publication they came in, never by who else is there, so they stay over updates (PRES-21).
* What is over is left out: a publication past its lease, an RPID element past its ``until``.
* No time lies in the future, and the document is newer than the one before it (PRES-8, PRES-12): a watcher that
  ignores outdated documents must not ignore that a device has gone. For that the newest tuple is dated anew where
  nothing else in the document is newer.
* A signed document that is all there is, neither outdated nor from the future, goes whole. Otherwise the signature is
  gone, and the result says whose (PRES-22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.cpim.presence import DEFAULT, PIDF_TYPE, Component, Note, PresenceDocument, PresenceLimits, PresenceTuple
from comity.cpim.presence_state import offline_document
from comity.cpim.presence_writer import build, distinct, is_writable
from comity.cpim.rpid import RPID, TABLE_1, limits_of
from comity.errors import LocalProtocolError, MalformedMessage
from comity.xml import Element

#: What a composed document is carried as; always UTF-8, as its declaration says (PRES-1).
#: COMPAT baresip 1.0: refuses the type with 415 if any parameter stands there, "charset" too.
COMPOSED_TYPE: Final = PIDF_TYPE
#: How far a presentity's clock may be ahead of ours: the window of RFC 3923 section 6.9.
SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Publication:
    """What one device or user agent last published."""

    key: str
    """Names the publication for as long as it is refreshed and modified (RFC 3903): never the entity-tag of one state."""
    document: PresenceDocument
    published: datetime
    """When this state came; aware."""
    expires: datetime
    """End of its lease."""
    signed: MimeObject | None = None
    """The entity that holds ``document`` signed by the presentity, as it was published."""
    keeps_ids: bool = False
    """True for documents made here of XMPP resources (``tuple_id_of``), whose ids are unique already and mean something."""


@dataclass(frozen=True, slots=True)
class Composed:
    """What a watcher may be told, before any rule is applied."""

    document: PresenceDocument
    object: MimeObject
    """The entity to send: the presentity's own signed one, or the composed document, unsigned."""
    dropped_signatures: tuple[str, ...] = ()
    """Keys of the signed publications whose signature does not cover the result (SEED-46)."""
    left_out: tuple[str, ...] = ()
    """Keys of live publications for which there was no room, the longest unchanged first to go."""
    next_change: datetime | None = None
    """When to compose again though nobody publishes: something ends or begins."""


def compose_presence(
    entity: Address,
    publications: Iterable[Publication],
    now: datetime,
    *,
    last: datetime | None = None,
    limits: PresenceLimits = DEFAULT,
) -> Composed:
    """Compose what is live at ``now``.

    Args:
        entity: the presentity, whom every document has to be about.
        publications: in any order.
        now: aware.
        last: ``date_time`` of the document composed before this one.
        limits: for the result.

    Raises:
        LocalProtocolError: a document is about somebody else (N-19), or two publications have one key.
    """
    live = sorted((p for p in publications if now < p.expires), key=lambda p: (p.published, p.key), reverse=True)
    _check(entity, live)
    times = _Times(now, distinct(now, last), last)
    first = live[0] if live else None
    if len(live) == 1 and first and first.signed is not None and _is_timely(first.document, times):
        return Composed(first.document, first.signed, next_change=first.expires)
    document, kept = _fitted(entity, live, times, limits)
    return Composed(
        document,
        MimeObject.of(COMPOSED_TYPE, document.raw),
        tuple(p.key for p in live if p.signed is not None),
        tuple(p.key for p in reversed(live) if p not in kept),
        _next_change(live, now),
    )


class _Times(NamedTuple):
    now: datetime
    stamp: datetime
    """Of the document: now, but later than ``last``."""
    last: datetime | None


def _is_timely(document: PresenceDocument, times: _Times) -> bool:
    """False for a document that watchers would ignore, or that would make them ignore all that come after it."""
    when = document.date_time
    return when is None or (not document.is_outdated(times.last) and when <= times.now + SKEW)


def _check(entity: Address, live: Sequence[Publication]) -> None:
    if len({p.key for p in live}) != len(live):
        raise LocalProtocolError("two publications have one key")
    if not all(p.document.is_about(entity) for p in live):
        raise LocalProtocolError("a published document is about somebody else")


def _fitted(
    entity: Address, live: Sequence[Publication], times: _Times, limits: PresenceLimits
) -> tuple[PresenceDocument, Sequence[Publication]]:
    """The document of as many publications as there is room for, the latest first, and which they are."""
    while live:
        try:
            return _join(entity, live, times, limits), live
        except MalformedMessage:
            live = live[:-1]
    return _join(entity, live, times, DEFAULT), live


def _join(entity: Address, live: Sequence[Publication], times: _Times, limits: PresenceLimits) -> PresenceDocument:
    now, stamp, last = times
    tuples = [one for p in live for one in _tuples(p, now, stamp)]
    persons = [one for p in live for one in _persons(p, now, stamp)]
    devices = [one for p in live for one in _devices(p, now, stamp)]
    notes = [note for p in live for note in p.document.notes]
    if persons:
        # PRES-15: a root note speaks for every person without one, so those of one publication go to its own persons.
        persons += [_note_person(p, stamp) for p in live if p.document.notes and not p.document.persons]
        notes = []
    if not tuples:
        tuples = list(offline_document(entity, stamp).tuples)
    tuples.sort(key=lambda one: -(one.priority or 0))
    changes = [one.timestamp for one in tuples] + [one.timestamp for one in (*persons, *devices)]
    if last is not None and max(when for when in changes if when is not None) <= last:
        newest = max(range(len(tuples)), key=lambda index: tuples[index].timestamp or stamp)
        tuples[newest] = replace(tuples[newest], timestamp=stamp)
    return build(
        entity.with_scheme("pres").uri,
        tuples,
        notes=list(dict.fromkeys(notes)),
        persons=persons,
        devices=devices,
        extensions=[element for p in live for element in p.document.extensions if is_writable(element)],
        limits=limits,
    )


def _tuples(one: Publication, now: datetime, stamp: datetime) -> list[PresenceTuple]:
    """Its tuples, without those that say no status: absence says nothing either (PRES-5, PRES-17)."""
    return [
        replace(
            given,
            id=_unique(one, given.id, "t", index),
            timestamp=_when(given.timestamp, one, stamp),
            status_extensions=_valid(given.status_extensions, now),
            extensions=_valid(given.extensions, now),
        )
        for index, given in enumerate(one.document.tuples)
        if given.basic_status is not None or _valid(given.status_extensions, now)
    ]


def _persons(one: Publication, now: datetime, stamp: datetime) -> list[Component]:
    return [
        replace(
            given,
            id=_unique(one, given.id, "p", index),
            notes=one.document.person_notes(given),
            timestamp=_when(given.timestamp, one, stamp),
            extensions=_valid(given.extensions, now),
        )
        for index, given in enumerate(one.document.persons)
    ]


def _devices(one: Publication, now: datetime, stamp: datetime) -> list[Component]:
    return [
        replace(
            given,
            id=_unique(one, given.id, "d", index),
            timestamp=_when(given.timestamp, one, stamp),
            extensions=_valid(given.extensions, now),
        )
        for index, given in enumerate(one.document.devices)
        if given.device_id
    ]


def _note_person(one: Publication, stamp: datetime) -> Component:
    notes: tuple[Note, ...] = one.document.notes
    return Component(_unique(one, "", "n", 0), "", notes, _when(None, one, stamp))


def _unique(one: Publication, id: str, kind: str, index: int) -> str:
    """An id that depends on nothing but the publication's key and the id in it; an xs:ID."""
    if one.keeps_ids and id:
        return id
    source = hashlib.sha256(one.key.encode("utf-8")).hexdigest()[:12]
    name = hashlib.sha256(id.encode("utf-8")).hexdigest()[:12] if id else f"{kind}{index}"
    return f"P{source}-{name}"


def _when(given: datetime | None, one: Publication, stamp: datetime) -> datetime:
    """The time of change: as said, else of the publication; never after now (N-22)."""
    when = min(given or one.published.astimezone(UTC), stamp)
    return when.replace(microsecond=when.microsecond // 1000 * 1000)


def _valid(extensions: Iterable[Element], now: datetime) -> tuple[Element, ...]:
    """Without the timed RPID elements that are over (PRES-19), and without what has names that cannot be written."""
    return tuple(element for element in extensions if not _is_over(element, now) and is_writable(element))


def _is_timed(element: Element) -> bool:
    return element.namespace == RPID and element.local in TABLE_1 and TABLE_1[element.local][1]


def _is_over(element: Element, now: datetime) -> bool:
    end = limits_of(element)[1] if _is_timed(element) else None
    return end is not None and end <= now


def _next_change(live: Iterable[Publication], now: datetime) -> datetime | None:
    times = [p.expires for p in live]
    for p in live:
        elements = [e for one in p.document.tuples for e in (*one.status_extensions, *one.extensions)]
        elements += [e for part in (*p.document.persons, *p.document.devices) for e in part.extensions]
        times += [when for e in elements if _is_timed(e) for when in limits_of(e) if when and when > now]
    return min(times, default=None)

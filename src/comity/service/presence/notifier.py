"""Telling watchers: one composition per change, one filter per distinct permission, one call per edge.

Place on the path: step 6 and 7 of a notify. Takes a ``Presentity`` in which something changed, makes what each group of its
watchers is to see, and hands it to their edges. The rules (OPS-25, SIP-27, ACL-11):

* the first change is told at once, then at most one in each ``interval``; the last state is never lost;
* who would see the same as before is not told again, so a polite block or a narrow filter gives nothing away;
* what a watcher sees is never dated before what it saw, or it would take the new for the old (PRES-12);
* nobody is told before the answer to its subscribe was written, nor after its end (G9).
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

from comity.cpim.composition import COMPOSED_TYPE, Composed, compose_presence
from comity.cpim.composition import Publication as Published
from comity.cpim.operations import EndReason, MimeObject
from comity.cpim.presence import Component, PresenceDocument, PresenceLimits, PresenceTuple
from comity.cpim.presence_rules import Permissions, SubHandling, filter_document
from comity.cpim.presence_state import offline_document, sealed_document
from comity.cpim.presence_writer import build, distinct
from comity.cpim.watchers import SubscriptionState
from comity.service.interfaces import Clock
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.edges import Edges
from comity.service.presence.interfaces import Content
from comity.service.presence.presentity import Presentity
from comity.service.presence.subscriptions import Live

log = logging.getLogger(__name__)

Part = TypeVar("Part", PresenceTuple, Component)
_ACTIVE = SubscriptionState.ACTIVE
_TIMESTAMP = re.compile(rb"<timestamp>[^<]*</timestamp>")
_EARLIEST = datetime.min.replace(tzinfo=UTC)
_WRITTEN = PresenceLimits(document=1024 * 1024)
_ESSENCE = "service.essence"
"""Key in ``Content.cache`` of what it says, times apart."""


class Notifier:
    """Makes contents and hands them out.

    Args:
        clock: time of documents and of intervals.
        edges: who is handed them.
        presentity: finds what a subscription is about.
    """

    def __init__(self, clock: Clock, edges: Edges, presentity: Callable[[Live], Presentity | None]) -> None:
        self._clock = clock
        self._edges = edges
        self._presentity = presentity
        self._due: Deadlines[Live] = Deadlines(clock, self._fall_due, lambda live, _: live.is_due)

    def stop(self) -> None:
        """Tell nobody any more."""
        self._due.stop()

    def tell(self, presentity: Presentity, lives: Iterable[Live] | None = None, *, is_urgent: bool = False) -> None:
        """Tell those who would see something new now.

        Args:
            presentity: of whom.
            lives: whom; default all who watch.
            is_urgent: whatever their interval says (they may see more, or less, from now on).
        """
        if presentity.is_held:
            return
        now = self._clock.now()
        groups: dict[tuple[int, int, str], list[Live]] = {}
        for live in presentity.subscriptions if lives is None else lives:
            if live.state is not _ACTIVE or not live.is_begun or live.package != "presence":
                continue
            if live.next_at > now and not is_urgent:
                if not live.is_due:
                    live.is_due = True
                    self._due.push(live.next_at, live)
                continue
            key = id(live.granted), id(live.told), live.edge
            group = groups.get(key)
            if group is None:
                groups[key] = [live]
            else:
                group.append(live)
        for group in groups.values():
            told = group[0].told
            content = self.content(presentity, group[0].granted, told)
            if content is not told:
                self._hand(group, content, told)

    def tell_one(self, presentity: Presentity, live: Live) -> None:
        """Tell this one whatever it knows already: it just subscribed, refreshed, or ends."""
        self._hand([live], self.content(presentity, live.granted, live.told), live.told)

    def ended(self, live: Live, reason: EndReason) -> None:
        """Say that it is over."""
        edge = self._edges.get(live.edge)
        if edge is not None:
            _tried(live, partial(edge.ended, live, reason))

    def pending(self, live: Live) -> None:
        """Say that it waits."""
        edge = self._edges.get(live.edge)
        if edge is not None:
            _tried(live, partial(edge.pending, live))

    def hand(self, live: Live, content: Content) -> None:
        """Tell one subscription something made elsewhere (watcher information)."""
        self._hand([live], content, live.told)

    def _hand(self, lives: Sequence[Live], content: Content, told: Content | None) -> None:
        edge = self._edges.get(lives[0].edge)
        if edge is None:
            return
        now = self._clock.now()
        if not _tried(lives[0], partial(edge.notify, lives, content, told)):
            # One of them has something that its edge cannot read: the others are told, by themselves.
            lives = [one for one in lives if len(lives) > 1 and _tried(one, partial(edge.notify, [one], content, told))]
        for live in lives:
            live.told = content
            if live.interval:
                live.next_at = now + live.interval

    def _fall_due(self, lives: list[Live]) -> None:
        by_presentity: dict[Presentity, list[Live]] = {}
        for live in lives:
            live.is_due = False
            presentity = self._presentity(live)
            if presentity is not None:
                by_presentity.setdefault(presentity, []).append(live)
        for presentity, waiting in by_presentity.items():
            self.tell(presentity, waiting)

    # --- what is told --------------------------------------------------------------------------------------------

    def content(self, presentity: Presentity, granted: Permissions, told: Content | None) -> Content:
        """What a watcher with these permissions sees now; ``told`` itself if that is what it saw last."""
        if granted.sub_handling is not SubHandling.ALLOW:
            return self._offline(presentity, told)
        composed = self._composed(presentity)
        made = presentity.contents.get(granted)
        if made is None or made[0] is not composed:
            content = self._made(presentity, composed, granted)
            if made is not None:
                content = self._after(presentity, content, made[1])
            presentity.contents[granted] = composed, content
        else:
            content = made[1]
        if told is None or told is content:
            return content
        after = self._after(presentity, content, told)
        if after is not content and after is not told:
            presentity.contents[granted] = composed, after
        return after

    def _composed(self, presentity: Presentity) -> Composed:
        now = self._clock.when()
        composed = presentity.composed
        if composed is not None and (composed.next_change is None or now < composed.next_change):
            return composed
        live = list(presentity.live(now))
        seen = [
            Published(one.key, one.document, one.published, one.expires, None, one.keeps_ids)
            for one in live
            if one.document is not None
        ]
        composed = compose_presence(presentity.address, seen, now, last=presentity.last)
        if live and not seen:  # all sealed: nothing can be said in its place, which is not "closed"
            document = sealed_document(presentity.address, distinct(now, presentity.last))
            composed = replace(composed, document=document, object=MimeObject.of(COMPOSED_TYPE, document.raw))
        presentity.whole = self._whole(presentity, now) if len(live) == 1 and live[0].secured is not None else None
        presentity.natives = {id: native for one in live if one.keeps_ids for id, native in one.natives.items()}
        presentity.natives = {**presentity.parting, **presentity.natives}
        presentity.parting = {}
        presentity.composed = composed
        self._dated(presentity, composed.document)
        return composed

    def _whole(self, presentity: Presentity, now: datetime) -> MimeObject | None:
        """The one secured publication, if it may be handed on as it is."""
        (one,) = presentity.live(now)
        if one.document is None:
            return one.secured
        signed = Published(one.key, one.document, one.published, one.expires, one.secured, one.keeps_ids)
        composed = compose_presence(presentity.address, [signed], now)
        return one.secured if composed.object is one.secured else None

    def _made(self, presentity: Presentity, composed: Composed, granted: Permissions) -> Content:
        target = presentity.address.with_scheme("pres")
        if not granted.grants_everything:
            document = filter_document(composed.document, granted)
            return Content(target, document, MimeObject.of(COMPOSED_TYPE, document.raw))
        return Content(target, composed.document, composed.object, presentity.whole, presentity.natives)

    def _offline(self, presentity: Presentity, told: Content | None) -> Content:
        """What somebody sees who is politely blocked: one closed tuple, the same for ever."""
        content = presentity.offline
        if content is None:
            document = offline_document(presentity.address, distinct(self._clock.when(), presentity.last))
            target = presentity.address.with_scheme("pres")
            content = presentity.offline = Content(target, document, MimeObject.of(COMPOSED_TYPE, document.raw))
            self._dated(presentity, document)
        return content if told is None or told is content else self._after(presentity, content, told)

    def _after(self, presentity: Presentity, content: Content, told: Content) -> Content:
        """The content for those who were told ``told``: that itself if it says the same, else dated after it."""
        if essence(content) == essence(told):
            return told
        if _is_newer(content, told) or content.document is None:
            return content
        document = _redated(content.document, distinct(self._clock.when(), presentity.last))
        self._dated(presentity, document)
        return replace(content, document=document, object=MimeObject.of(COMPOSED_TYPE, document.raw), cache={})

    def _dated(self, presentity: Presentity, document: PresenceDocument) -> None:
        when = document.date_time
        if when is not None and (presentity.last is None or when > presentity.last):
            presentity.last = when


def _tried(live: Live, act: Callable[[], None]) -> bool:
    """Have an edge say something; False if it failed, which no other watcher may suffer from (F-POISON)."""
    try:
        act()
    except Exception:  # whatever a bad row makes an edge raise, the others are told
        log.exception("a watcher cannot be told by %s", live.edge)
        return False
    return True


def essence(content: Content) -> object:
    """What it says, times apart: equal for two contents that say the same."""
    known = content.cache.get(_ESSENCE)
    if known is None:
        digest = hashlib.blake2b(_TIMESTAMP.sub(b"", content.object.octets), digest_size=16)
        digest.update(content.whole.octets if content.whole else b"")
        shown = {one.id for one in content.document.tuples} if content.document and content.natives else ()
        natives = {id: native for id, native in content.natives.items() if id in shown}
        known = content.cache[_ESSENCE] = digest.digest(), natives
    return known


def _is_newer(content: Content, told: Content | None) -> bool:
    """False if a watcher that was told ``told`` would take it for outdated."""
    if told is None or told.document is None or content.document is None:
        return True
    when, before = content.document.date_time, told.document.date_time
    return when is None or before is None or when > before


def _redated(document: PresenceDocument, when: datetime) -> PresenceDocument:
    """The same with its newest part dated ``when``."""
    tuples, persons, devices = list(document.tuples), list(document.persons), list(document.devices)
    if tuples:
        _redate(tuples, when)
    else:
        _redate(persons or devices, when)
    return build(
        document.entity,
        tuples,
        notes=document.notes,
        persons=persons,
        devices=devices,
        extensions=document.extensions,
        limits=_WRITTEN,
    )


def _redate(parts: list[Part], when: datetime) -> None:
    newest = max(range(len(parts)), key=lambda index: parts[index].timestamp or _EARLIEST)
    parts[newest] = replace(parts[newest], timestamp=when)

"""Telling accounts who watches them: subscriptions of package "presence.winfo" (RFC 3857, ACL-25, ACL-26).

Place on the path: beside ``notifier.py``, which tells watchers; documents are made by ``watcherinfo.py``. A new subscription and a
refresh get the whole state, each change what changed, at most one in each ``interval``; what happened meanwhile is told then.
Whoever has no feed costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from comity.cpim.access_entries import WATCH
from comity.cpim.operations import EndReason, MimeObject
from comity.cpim.watchers import WATCHERINFO_TYPE, WatcherEntry, WatcherInfo
from comity.service.interfaces import Clock, Store
from comity.service.presence.access import Access
from comity.service.presence.deadlines import Deadlines
from comity.service.presence.interfaces import Content
from comity.service.presence.notifier import Notifier
from comity.service.presence.presentities import Presentities
from comity.service.presence.presentity import Feed, Presentity
from comity.service.presence.relations import Book, Relations
from comity.service.presence.subscriptions import Live
from comity.service.presence.watcherinfo import WatcherFeed, later_version, request_entry, subscription_entry, visible


class Informing:
    """Keeps the feeds.

    Args:
        store: its time is that of entries.
        clock: intervals.
        relations: who asks without a subscription, and what the account calls people.
        presentities: who watches.
        notifier: hands out what is made.
        access: who may know of others.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        relations: Relations,
        *,
        presentities: Presentities,
        notifier: Notifier,
        access: Access,
    ) -> None:
        self._store = store
        self._clock = clock
        self._relations = relations
        self._presentities = presentities
        self._notifier = notifier
        self._access = access
        self._due: Deadlines[Live] = Deadlines(clock, self._fall_due, lambda live, _: live.is_due)
        self.hold: Callable[[Presentity], None] = lambda presentity: None
        """Looks an account up that is not in memory, then calls ``changed``."""

    def stop(self) -> None:
        """Tell nobody any more."""
        self._due.stop()

    def begin(self, presentity: Presentity, live: Live) -> None:
        """Tell the whole state: it just subscribed, refreshed, or came back after a restart."""
        book = self._relations.loaded(presentity.address)
        if book is None and not live.is_kept:
            self._notifier.ended(
                live, EndReason.TIMEOUT
            )  # its last word must not wait for a look-up: it is forgotten by then
            return
        if book is None:
            self.hold(presentity)
            return
        feed = presentity.feeds.get(live)
        if feed is None:
            version = later_version(live.created, self._store.time()) if live.is_restored else 0
            feed = Feed(WatcherFeed(presentity.address, version))
            if live.is_kept:
                presentity.feeds[live] = feed
        feed.ended.clear()
        self._hand(live, feed.documents.whole(self._entries(live, presentity, book, feed)))

    def changed(self, presentity: Presentity, ended: Live | None = None) -> None:
        """Somebody began or ceased to watch, or may do so now; ``ended``: it is not there any more."""
        for live, feed in list(presentity.feeds.items()):
            if live not in presentity.subscriptions:
                del presentity.feeds[live]
                continue
            if ended is not None and ended.package == "presence":
                feed.ended[ended.id] = ended
            if live.next_at <= self._clock.now():
                self._tell(presentity, live, feed)
            elif not live.is_due:
                live.is_due = True
                self._due.push(live.next_at, live)

    def resume(self, presentity: Presentity) -> None:
        """Its rows are in memory: begin what could not be begun, tell what could not be told."""
        for live in [one for one in presentity.subscriptions if one.package == "presence.winfo" and one.is_begun]:
            if live not in presentity.feeds:
                self.begin(presentity, live)
        self.changed(presentity)

    def _tell(self, presentity: Presentity, live: Live, feed: Feed) -> None:
        book = self._relations.loaded(presentity.address)
        if book is None:
            self.hold(presentity)
            return
        info = feed.documents.changes(self._entries(live, presentity, book, feed))
        feed.ended.clear()
        if info is not None:
            self._hand(live, info)

    def _hand(self, live: Live, info: WatcherInfo) -> None:
        target = live.target.with_scheme("pres")
        self._notifier.hand(live, Content(target, None, MimeObject.of(WATCHERINFO_TYPE, info.raw)))

    def _entries(self, live: Live, presentity: Presentity, book: Book, feed: Feed) -> list[WatcherEntry]:
        """Everybody who watches, did until now, or asks to; of whom the subscriber may know."""
        now = self._store.time()
        watching = [one for one in presentity.subscriptions if one.package == "presence" and one.is_begun]
        entries = [
            subscription_entry(one, now, item.name if (item := book.items.get(one.watcher.key)) else "")
            for one in (*watching, *feed.ended.values())
        ]
        known = {one.watcher.key for one in watching} | presentity.asking
        asking = (request_entry(item, now) for key, item in book.items.items() if item.ask and key not in known)
        found = entries + [entry for entry in asking if entry is not None]
        may_watch = self._access.permits(presentity.address, live.watcher, WATCH)
        return visible(found, presentity.address, live.watcher, is_permitted=may_watch)

    def _fall_due(self, lives: list[Live]) -> None:
        for live in lives:
            live.is_due = False
            presentity = self._presentities.of(live)
            feed = presentity.feeds.get(live) if presentity is not None else None
            if presentity is not None and feed is not None:
                self._tell(presentity, live, feed)

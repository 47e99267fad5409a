"""Who watches an account, as documents to those who may know it (RFC 3857, RFC 3858; PRES-24, PRES-26, ACL-25, ACL-26).

Place on the path: step 6 of a notify of package "presence.winfo", called by ``notifier.py``; no clock, no store. Entries come from
two places: subscriptions that live (``subscription_entry``), and requests that wait though nothing of them lives
(``request_entry``: somebody asked by XMPP). A ``WatcherFeed`` is one winfo subscription: what its subscriber was told last, and
the number of the next document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from comity.cpim.address import Address, to_sip_uri
from comity.cpim.watchers import (
    SubscriptionEvent,
    SubscriptionState,
    WatcherEntry,
    WatcherInfo,
    WatcherList,
    build_watcherinfo,
)
from comity.service.presence.interfaces import ContactItem, Subscription

_STATE, _EVENT = SubscriptionState, SubscriptionEvent
_SLACK: Final = 1000
"""Documents more than one a second that a subscription may have had before a restart."""


def subscription_entry(subscription: Subscription, now: float, display_name: str = "") -> WatcherEntry:
    """A subscription as its presentity sees it.

    Args:
        subscription: of package "presence".
        now: store time.
        display_name: what the presentity's contact list calls the watcher.
    """
    expires = subscription.expires
    return WatcherEntry(
        to_sip_uri(subscription.watcher),
        _token(subscription.id),
        subscription.state,
        subscription.event,
        display_name,
        expiration=None if expires is None else max(0, round(expires - now)),
        duration_subscribed=max(0, round(now - subscription.created)),
    )


def request_entry(item: ContactItem, now: float) -> WatcherEntry | None:
    """A request that waits for the account's answer (``item.ask``); None if there is none."""
    if item.ask is None:
        return None
    return WatcherEntry(
        to_sip_uri(item.contact),
        _token(f"ask {item.contact.key}"),
        _STATE.PENDING,
        _EVENT.SUBSCRIBE,
        item.name,
        duration_subscribed=max(0, round(now - item.ask.when)),
    )


def visible(
    entries: Sequence[WatcherEntry], account: Address, viewer: Address, *, is_permitted: bool = False
) -> list[WatcherEntry]:
    """What ``viewer`` may know: the account all, anybody else what concerns himself (RFC 3857 section 4.6, ACL-26).

    ``is_permitted``: the account permits him ``presence:watch`` (RFC 3343 section 4.3): who else watches, too. Nobody else learns what the account calls him, nor whether he is blocked politely: a subscription that looks active is active.
    """
    if viewer.key == account.key:
        return list(entries)
    own = to_sip_uri(viewer)
    return [replace(entry, display_name="") for entry in entries if is_permitted or entry.uri == own]


class WatcherFeed:
    """One winfo subscription.

    Args:
        resource: the account watched.
        version: of the first document: 0 for a new subscription, ``later_version`` for one that lived over a restart.
    """

    def __init__(self, resource: Address, version: int = 0) -> None:
        self._resource = to_sip_uri(resource)
        self.version = version
        """Of the next document."""
        self._told: dict[str, WatcherEntry] | None = None

    def whole(self, entries: Sequence[WatcherEntry]) -> WatcherInfo:
        """Everything: the first document, and the answer to each refresh (RFC 3858 section 3.2)."""
        self._told = {entry.id: entry for entry in entries if entry.state is not _STATE.TERMINATED}
        return self._document(entries, is_full=True)

    def changes(self, entries: Sequence[WatcherEntry]) -> WatcherInfo | None:
        """What changed since the last document, with those that are gone as terminated; None if nothing did.

        Entries may hold terminated ones, to say what ended them; they are told once.
        """
        if self._told is None:
            return self.whole(entries)
        told, present = self._told, {entry.id: entry for entry in entries}
        changed = [entry for id, entry in present.items() if _is_news(told.get(id), entry)]
        changed += [_ended(entry) for id, entry in told.items() if id not in present]
        self._told = {id: entry for id, entry in present.items() if entry.state is not _STATE.TERMINATED}
        return self._document(changed, is_full=False) if changed else None

    def _document(self, entries: Sequence[WatcherEntry], *, is_full: bool) -> WatcherInfo:
        info = build_watcherinfo(
            self.version, [WatcherList(self._resource, "presence", tuple(entries))], is_full=is_full
        )
        self.version += 1
        return info


def later_version(created: float, now: float) -> int:
    """A version that no document of this subscription had yet: they are at most one a second, and a few.

    It has to be greater, since a subscriber drops what is not; that it leaves a gap does no harm to a whole document.
    """
    return max(0, round(now - created)) + _SLACK


def _is_news(told: WatcherEntry | None, entry: WatcherEntry) -> bool:
    """Time alone is no news, nor is the end of what nobody heard of."""
    if told is None:
        return entry.state is not _STATE.TERMINATED
    return (told.state, told.event, told.uri, told.display_name) != (
        entry.state,
        entry.event,
        entry.uri,
        entry.display_name,
    )


def _ended(entry: WatcherEntry) -> WatcherEntry:
    """An entry that is simply gone, by the event of the figure that fits its state."""
    event = _EVENT.TIMEOUT if entry.state is _STATE.ACTIVE else _EVENT.GIVEUP
    return replace(entry, state=_STATE.TERMINATED, event=event, expiration=None)


def _token(text: str) -> str:
    """An id that is a token, and says nothing of the watcher's dialog."""
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

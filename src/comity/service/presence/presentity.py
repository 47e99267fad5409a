"""One presentity as this node knows it now: what its devices said, and who is to be told.

Place on the path: step 6 of a notify, shared by ``publications.py`` (which fills one half), ``service.py`` (the other) and
``notifier.py`` (which makes documents of it). Never durable: after a crash everybody is closed until they speak again. One
that nobody watches and that says nothing is dropped, with everything remembered about it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from comity.cpim.address import Address
from comity.cpim.composition import Composed
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PresenceDocument
from comity.cpim.presence_rules import Permissions, current_sphere
from comity.service.presence.interfaces import Content
from comity.service.presence.subscriptions import Live
from comity.service.presence.watcherinfo import WatcherFeed

NEVER = datetime.max.replace(tzinfo=UTC)
"""End of the lease of a publication that stands until it is taken away."""
Natives = Mapping[str, tuple[str, bytes]]


@dataclass(slots=True, eq=False)
class Publication:
    """What one device last said."""

    key: str
    etag: str
    document: PresenceDocument | None
    """None: sealed for others."""
    secured: MimeObject | None
    keeps_ids: bool
    natives: Natives
    published: datetime
    expires: datetime


@dataclass(slots=True, eq=False)
class Feed:
    """What one subscription to watcher information was told."""

    documents: WatcherFeed
    ended: dict[str, Live] = field(default_factory=dict)
    """By id: subscriptions that are no more, and whose end was not told yet."""


@dataclass(slots=True, eq=False)
class Presentity:
    """One of our accounts, or an address that somebody asked about."""

    address: Address
    """``im:``, folded."""
    publications: dict[str, Publication] = field(default_factory=dict)
    subscriptions: dict[Live, None] = field(default_factory=dict)
    """In order of arrival; also those that wait for an answer after their time (RFC 3857 section 4.7.1)."""
    feeds: dict[Live, Feed] = field(default_factory=dict)
    """Of those who watch the watchers."""
    asking: set[str] = field(default_factory=set)
    """Keys of watchers whose subscription is being made: their request is seen by that."""
    parting: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """``Content.natives`` of tuples that went since the last composition."""
    composed: Composed | None = None
    """None: something changed since."""
    whole: MimeObject | None = None
    """The secured entity, if it is all there is."""
    natives: Natives = field(default_factory=dict)
    contents: dict[Permissions, tuple[Composed, Content]] = field(default_factory=dict)
    """What was last made for these permissions, and of which composition."""
    grants: dict[Permissions, Permissions] = field(default_factory=dict)
    """One object for equal permissions, so that who sees the same is told together."""
    offline: Content | None = None
    """What those see who shall see nothing (polite block)."""
    last: datetime | None = None
    """The newest time in any document about it: the next one is newer."""
    sphere: str = ""
    """By its documents (RFC 5025 section 3.1.2); see ``look_at_sphere``."""
    is_sphere_known: bool = True
    rules_change: datetime | None = None
    """When rules say something else by themselves."""
    is_held: bool = False
    """What watchers may see has to be looked up: nobody is told until that is known."""
    is_loading: bool = False
    """It is being looked up."""
    is_restored: bool = False
    """Its watchers come from the store and have heard nothing since."""
    timer_at: float = 0.0
    """Monotonic: its first place among the deadlines; 0 for none."""

    @property
    def key(self) -> str:
        """What it is found by."""
        return self.address.key

    @property
    def judged(self) -> Address:
        """The account whose decisions say what its watchers see."""
        return self.address

    def live(self, now: datetime) -> Iterator[Publication]:
        """Publications whose lease is not over."""
        return (one for one in self.publications.values() if now < one.expires)

    def next_end(self) -> datetime:
        """When the first lease ends."""
        return min((one.expires for one in self.publications.values()), default=NEVER)

    def changed(self) -> None:
        """What its devices say is not what it was."""
        self.composed = None
        self.is_sphere_known = False

    def look_at_sphere(self, now: datetime) -> bool:
        """See what its documents say; True if that is something else than before."""
        if self.is_sphere_known:
            return False
        before, self.is_sphere_known = self.sphere, True
        self.sphere = current_sphere([one.document for one in self.live(now) if one.document is not None], now)
        return self.sphere != before

    def shared(self, granted: Permissions) -> Permissions:
        """The one object for these permissions."""
        return self.grants.setdefault(granted, granted)

    def next_moment(self) -> datetime | None:
        """When something about it changes by itself: a lease, a validity, a rule."""
        moments = [self.next_end()]
        if self.subscriptions:
            if self.composed is not None and self.composed.next_change is not None:
                moments.append(self.composed.next_change)
            if self.rules_change is not None:
                moments.append(self.rules_change)
        first = min(moments)
        return None if first >= NEVER else first

    def unwatched(self) -> None:
        """Nobody watches: forget what was made for watchers."""
        self.contents.clear()
        self.feeds.clear()
        self.grants.clear()
        self.offline = None
        self.parting = {}


@dataclass(slots=True, eq=False)
class Sight(Presentity):
    """Somebody of another domain as one account of ours sees it, and nobody else (T18): its publications are what that domain told
    this account, its subscriptions are this account's."""

    viewer: Address = field(kw_only=True)
    """``im:``, folded."""
    is_watched: bool = False
    """The other domain was asked to tell."""
    is_asked: bool = False
    """The other one was asked, or asked again."""
    doubt_at: float = 0.0
    """Monotonic: when what it said has to be asked about anew; 0 for never."""
    asked_when: datetime | None = None
    """When it was last to be asked how things are."""
    confirm_at: float = 0.0
    """Monotonic: until then the answer has come, or what was said before ``asked_when`` holds no more."""

    @property
    def key(self) -> str:
        """Of both: each viewer is told something else."""
        return sight_key(self.address, self.viewer)

    @property
    def judged(self) -> Address:
        """The other domain says by its answer what is seen, and the account that got it keeps that."""
        return self.viewer


def sight_key(address: Address, viewer: Address) -> str:
    """See ``Sight.key``."""
    return f"{address.key} {viewer.key}"

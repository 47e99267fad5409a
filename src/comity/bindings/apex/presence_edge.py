"""The edge "apex" of the presence service: what watchers are told, as publish, notify and terminate (RFC 3343 sections 4.4 to 4.6).

Place on the path: step 8 of a notify. One subscription for each in-progress subscribe and watch operation; the service keeps it,
durably, with its operation (``Kept``), and nothing of it is kept here but what is on its way. Of each operation one data element
at most waits for its ``ok``; what happens meanwhile is said in one when that came, so a slow application costs nothing and misses no
state. An application that is not attached is told nothing, and when it attaches as the originator, how things are then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Final

from comity.bindings.apex.elements import Option, Part, Publish, ServiceElement, Terminate
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import Relay
from comity.bindings.apex.mapping import object_part
from comity.bindings.apex.presence import Entry, Shown, show, show_nothing
from comity.bindings.apex.presence_operations import DENIED, EDGE, MOST_TRIES, SECURED, SERVICE, Kept, pause_after
from comity.bindings.apex.presence_watchers import Watchers
from comity.cpim.address import Address
from comity.cpim.compose import timestamp
from comity.cpim.operations import EndReason, NotifyOperation
from comity.cpim.watchers import SubscriptionState, WatcherInfo
from comity.service.interfaces import Clock
from comity.service.presence.interfaces import ContactItem, Content, PresenceService, Subscription

POLLED: Final = 3600
"""Seconds for which a poll's answer may hold at most: no device's word is kept longer without being said again (N-22)."""
_ACTIVE, _PENDING = SubscriptionState.ACTIVE, SubscriptionState.PENDING


@dataclass(slots=True)
class _Way:
    """What is on its way to one watcher."""

    futures: list[asyncio.Future[bool]]
    tries: int = 0
    """How often this was refused, or could not be written."""
    waiting: list[ServiceElement | Part] = field(default_factory=list)
    """The last state, to be said when the one before was taken."""

    @property
    def is_answered(self) -> bool:
        """Nothing is on its way; it waits to be tried again."""
        return all(future.done() for future in self.futures)


class PresenceEdge:
    """See ``Edge``.

    Args:
        relay: takes what is said.
        presence: says what.
        clock: the service's notion of the current date and time.
    """

    def __init__(self, relay: Relay, presence: PresenceService, clock: Clock) -> None:
        self._relay = relay
        self._presence = presence
        self._clock = clock
        self._ways: dict[str, _Way] = {}
        """By the id of the subscription; those only that have something on its way."""
        self.watchers = Watchers(self._say, self._is_there, presence, clock)
        self._looks: dict[str, datetime | None] = {}
        """By the id of a fetch of our own: the lastUpdate found."""
        self._reminders: dict[str, Entry] = {}
        """By the id of a subscription that begins; see ``remind``."""

    # --- what an operation is --------------------------------------------------------------------------------------

    def operations(self, originator: Endpoint) -> list[tuple[Subscription, Kept]]:
        """Operations of this originator that are in progress."""
        lives = self._presence.subscriptions_of(EDGE, originator.to_address())
        return [
            (one, kept)
            for one in lives
            if one.state in (_ACTIVE, _PENDING) and (kept := Kept.decode(one.data)).originator == originator
        ]

    def forget(self, subscription: Subscription) -> None:
        """It is over and its watcher knows: nothing is said any more."""
        self._take_back(subscription)
        self.watchers.forget(subscription)

    def remind(self, id: str, entry: Entry | None) -> None:
        """What the account itself is told first by this subscription holds its own entry, which is over (RFC 3343 section 2.2:
        it reads that before it writes); None: it was told."""
        if entry is None:
            self._reminders.pop(id, None)
        else:
            self._reminders[id] = entry

    def look(self, id: str) -> None:
        """What the subscription with this id is told is for us (see ``seen``)."""
        self._looks[id] = None

    def seen(self, id: str) -> datetime | None:
        """The lastUpdate of the entry that was looked at; None if there was nothing to see."""
        return self._looks.pop(id, None)

    # --- the edge --------------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        for subscription in subscriptions:
            if subscription.id in self._looks:
                self._looks[subscription.id] = self._shown(content).last_update
            elif content.document is None:
                self.watchers.inform(subscription, WatcherInfo.parse(content.object.octets))
            else:
                self._tell(subscription, content)

    def pending(self, subscription: Subscription) -> None:
        """It waits for the presentity: nothing more is to be seen than of somebody who is nowhere (T1)."""
        self._take_back(subscription)
        self._tell(subscription, None)

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``; a poll that brings nothing is answered like one of somebody who is nowhere.

        Who is refused from now on is told 537 (the DTD of RFC 3340 section 9.1 has a code), so that it does not ask again at once."""
        if subscription.id in self._looks:
            return
        kept = Kept.decode(subscription.data)
        is_watch = subscription.package == "presence.winfo"
        self.forget(subscription)
        if kept.duration:
            code = DENIED if reason is EndReason.REJECTED else 250
            self._say(kept, Terminate(kept.trans_id, code))
        elif not is_watch:
            self._tell(subscription, None)

    def asked(self, item: ContactItem) -> None:
        """APEX asks no person; who watches the watchers is told of one more of them, and the owner answers by an access entry, the
        command line, XMPP or XCAP."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """The watcher hears it in its subscriptions."""

    def withdrew(self, item: ContactItem) -> None:
        """As ``asked``."""

    def contact_changed(self, item: ContactItem) -> None:
        """APEX has no contact lists."""

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """APEX has no such list; what follows from it for watchers is told to them."""

    def directed(self, operation: NotifyOperation) -> None:
        """APEX publishes to nobody who did not subscribe (RFC 3343 section 4.4)."""

    def attached(self, endpoint: Endpoint) -> None:
        """An application attached: it hears how things are, whatever an earlier one of that name had heard."""
        if endpoint.is_service:
            return
        for subscription, _ in self.operations(endpoint):
            if subscription.package == "presence.winfo":
                self.watchers.attached(subscription)
            elif subscription.state is _PENDING:
                self._tell(subscription, None)
            elif subscription.told is not None:
                self._tell(subscription, subscription.told)

    # --- publish ---------------------------------------------------------------------------------------------------

    def _tell(self, subscription: Subscription, content: Content | None) -> None:
        """Say how things are; None: nothing can be seen."""
        kept = Kept.decode(subscription.data)
        way = self._ways.get(subscription.id)
        if not self._is_there(kept.originator):
            if way is not None:
                way.waiting = []
            return
        elements = self._written(subscription, kept, content)
        if way is None or way.is_answered:
            self._send(subscription, kept, elements)
        else:
            way.waiting = elements

    def _send(
        self, subscription: Subscription, kept: Kept, elements: Sequence[ServiceElement | Part], tries: int = 0
    ) -> None:
        domain, to, named = kept.publisher.domain, kept.originator, (Option(external=SECURED, trans_id=kept.trans_id),)
        futures = [
            self._relay.say(SERVICE, domain, to, element, named if isinstance(element, Part) else ())
            for element in elements
        ]
        way = self._ways[subscription.id] = _Way(futures, tries)
        futures[-1].add_done_callback(partial(self._said, subscription, kept, way))

    def _said(self, subscription: Subscription, kept: Kept, way: _Way, future: asyncio.Future[bool]) -> None:
        if self._ways.get(subscription.id) is not way:
            return
        is_there = self._is_there(kept.originator)
        if is_there and not future.result() and kept.duration and way.tries < MOST_TRIES:
            self._clock.call_later(pause_after(way.tries), partial(self._try_again, subscription, kept, way))
            return
        del self._ways[subscription.id]
        if way.waiting and is_there:
            self._send(subscription, kept, way.waiting)

    def _try_again(self, subscription: Subscription, kept: Kept, way: _Way) -> None:
        """The last state is never lost to who is there: say how things are by now."""
        if self._ways.get(subscription.id) is not way:
            return
        del self._ways[subscription.id]
        if self._presence.find(EDGE, subscription.id) is subscription and self._is_there(kept.originator):
            content = None if subscription.state is _PENDING else subscription.told
            self._send(subscription, kept, self._written(subscription, kept, content), way.tries + 1)

    def _written(self, subscription: Subscription, kept: Kept, content: Content | None) -> list[ServiceElement | Part]:
        now = self._clock.when()
        account = subscription.target
        shown = show_nothing(account, now) if content is None else self._shown(content)
        entry = self._reminders.get(subscription.id)
        if entry is not None:
            shown = shown.with_past(entry)
        lasts = POLLED if not kept.duration or subscription.expires is None else subscription.expires - now.timestamp()
        until = datetime.fromtimestamp(now.timestamp() + max(lasts, 1.0), UTC)
        presence = shown.presence(kept.publisher, until)
        elements: list[ServiceElement | Part] = [Publish(kept.publisher, kept.trans_id, timestamp(now), presence)]
        if content is not None and content.whole is not None and subscription.takes_secured:
            elements.append(object_part(content.whole, f"{content.whole.fingerprint[:32]}@{kept.publisher.domain}"))
        return elements

    def _shown(self, content: Content) -> Shown:
        """What all who see this content are shown: read once."""
        shown = content.cache.get(EDGE)
        if shown is None:
            assert content.document is not None, "watcher information is no presence"
            account = content.target.with_scheme("im")
            shown = content.cache[EDGE] = show(content.document, account, self._clock.when())
        assert isinstance(shown, Shown)
        return shown

    def _take_back(self, subscription: Subscription) -> None:
        """What is not written yet is not said any more (G9)."""
        way = self._ways.pop(subscription.id, None)
        for future in way.futures if way is not None else ():
            future.cancel()

    def _say(self, kept: Kept, element: ServiceElement) -> asyncio.Future[bool]:
        return self._relay.say(SERVICE, kept.publisher.domain, kept.originator, element)

    def _is_there(self, originator: Endpoint) -> bool:
        """Applications of other domains are their relays' to know."""
        return self._relay.is_attached(originator) or not self._relay.service.accounts.serves(originator.domain)

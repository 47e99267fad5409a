"""What people of other XMPP servers are told of our accounts, while they may see them (RFC 6121 section 4).

Place on the path: step 8 of a notify, the edge of the presence service for watchers of other domains, as ``watching.py`` for our own
clients. One stanza goes to one watcher's bare JID (T18); what cannot be sent is told again, as it stands then, when it can be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.notices import Notice, content_to_stanzas, current_stanzas
from comity.bindings.xmpp.wire import PRESENCE, Element
from comity.cpim.address import Address, to_jid
from comity.cpim.operations import EndReason, NotifyOperation, Response
from comity.errors import AddressError
from comity.service.presence.interfaces import ContactItem, Content, Subscription

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

log = logging.getLogger(__name__)

#: Name of this edge; the one of our own clients is called like the protocol.
EDGE: Final = "xmpp-server"
#: Seconds until a domain is told again what could not be sent.
RETRIES: Final = (30.0, 60.0, 120.0, 300.0, 600.0)


class Outward:
    """Implements ``Edge`` for watchers of other XMPP servers."""

    def __init__(self, ground: Ground, neighbours: Neighbours) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self._missed: dict[str, dict[str, Subscription]] = {}
        """By domain, by id: who was not told the last state."""
        self._attempts: dict[str, int] = {}

    # --- Edge --------------------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        when = self._ground.service.clock.when()
        # Who was told nothing yet, perhaps since a restart, may still take somebody for present (N-17).
        notices = current_stanzas(content, when) if told is None else content_to_stanzas(content, told, when)
        stanzas = self._stanzas(notices)
        for subscription in subscriptions:
            self._tell(subscription, stanzas)

    def pending(self, subscription: Subscription) -> None:
        """See ``Edge.pending``: what it was shown is true no more, or it waits for the first word."""
        self.hide(subscription)

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``; that it was refused is said by ``Abroad.answer``."""
        self.hide(subscription)

    def asked(self, item: ContactItem) -> None:
        """See ``Edge.asked``: nobody of ours has a device here."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """See ``Edge.answered``: nobody of ours has a device here."""

    def withdrew(self, item: ContactItem) -> None:
        """See ``Edge.withdrew``: nobody of ours has a device here."""

    def contact_changed(self, item: ContactItem) -> None:
        """See ``Edge.contact_changed``: nobody of ours has a device here."""

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """See ``Edge.blocklist_changed``: nobody of ours has a device here."""

    def directed(self, operation: NotifyOperation) -> None:
        """See ``Edge.directed``: nobody of ours has a device here."""

    # --- what is written -----------------------------------------------------------------------------------------------

    def tell_all(self, subscription: Subscription, id: str = "") -> None:
        """Tell how things are, whatever was told before: the answer to a probe. Of who is away the probe's ``id`` comes back (RFC 6121
        section 4.3.2.1)."""
        content = subscription.told
        if content is None:
            return
        notices = current_stanzas(content, self._ground.service.clock.when())
        stanzas = self._stanzas(notices)
        if id and not any(notice.is_available for notice in notices):
            for stanza in stanzas:
                stanza.attributes["id"] = id
        self._tell(subscription, stanzas)

    def hide(self, subscription: Subscription) -> None:
        """Say of everything that was shown that it is there no more (RFC 6121 section 3.2.2)."""
        self._missed.get(subscription.watcher.domain, {}).pop(subscription.id, None)
        if subscription.told is None:
            return
        shown = current_stanzas(subscription.told, self._ground.service.clock.when())
        gone = [Element(PRESENCE, {"type": "unavailable", "from": one.sender}) for one in shown if one.is_available]
        self._tell(subscription, gone, is_last=True)

    def _stanzas(self, notices: Sequence[Notice]) -> list[Element]:
        return [notice.element("") for notice in notices]

    def _tell(self, subscription: Subscription, stanzas: Sequence[Element], *, is_last: bool = False) -> None:
        try:
            to = to_jid(subscription.watcher)
        except AddressError:
            return  # no JID: it did not come from here
        for stanza in stanzas:
            addressed = Element(stanza.name, {**stanza.attributes, "to": to}, stanza.children)
            sent = self._neighbours.send_presence(addressed)
            if not is_last:
                sent.add_done_callback(partial(self._sent, subscription))

    # --- what could not be sent ------------------------------------------------------------------------------------------

    def _sent(self, subscription: Subscription, done: asyncio.Future[Response]) -> None:
        if done.cancelled():
            return
        response, domain = done.result(), subscription.watcher.domain
        if not response.is_temporary:
            self._attempts.pop(domain, None)
            return
        missed = self._missed.setdefault(domain, {})
        if not missed:
            attempt = self._attempts.get(domain, 0)
            self._attempts[domain] = attempt + 1
            delay = RETRIES[min(attempt, len(RETRIES) - 1)]
            self._ground.service.clock.call_later(delay, partial(self._again, domain))
        missed[subscription.id] = subscription

    def _again(self, domain: str) -> None:
        presence = self._ground.presence
        for id, subscription in self._missed.pop(domain, {}).items():
            if presence is not None and presence.find(EDGE, id) is subscription:
                self.tell_all(subscription)

"""SUBSCRIBE answered and watchers notified: SIP's edge of the presence service (RFC 6665 section 4.2, RFC 3856, RFC 3857).

Place on the path: step 4 of a subscribe for ``binding.py`` (then ``subscribing.py`` or ``lists.py``), steps 7 to 9 of a notify for
the service. Who asks was authenticated before anything here runs, so no NOTIFY goes to an address that proved nothing (N-10).
Rules its readers must keep:

* In each dialog one NOTIFY at a time. What comes meanwhile waits, and only the last of it; a NOTIFY that is no longer true is
  not sent again. What takes something away (pending, terminated) waits for nothing (G9).
* A NOTIFY goes the way its SUBSCRIBE came: to that source over UDP, down that connection over TCP and TLS. Where that is gone, or
  a datagram too small, a connection is opened to that same address if Contact names it. One over 1,300 octets then still goes
  in a datagram (RFC 3261 section 18.1.1 allows it where TCP is refused); where a connection is gone for good nobody is told, and
  the watcher's refresh is answered with the state as it is by then.
* A watcher that answers that it knows no such subscription, or does not answer at all, has none any more (SIP-22).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from comity.bindings.base import HostPort, Link
from comity.bindings.sip.connections import target_for
from comity.bindings.sip.dialog import Dialog
from comity.bindings.sip.events import RequestFailed, RequestTimedOut, ResponseReceived
from comity.bindings.sip.headers import malformed
from comity.bindings.sip.lists import EDGE, Lists
from comity.bindings.sip.mapping import Refusal, is_sender
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.notifications import (
    ENDING_CODES,
    LEAST_RETRY,
    MOST_RETRY,
    NO_CONTENT,
    Head,
    Kept,
    head_of,
    notify_rest,
    tail_of,
)
from comity.bindings.sip.packages import Event, state_value
from comity.bindings.sip.partial import Partial
from comity.bindings.sip.rates import UserRates
from comity.bindings.sip.requests import LinkState, Request
from comity.bindings.sip.subscribing import Subscribing
from comity.bindings.sip.subscriptions import subscript_id
from comity.bindings.sip.uri import SipUri, parse_uri
from comity.cpim.address import Address
from comity.cpim.operations import EndReason, NotifyOperation, Substate
from comity.cpim.watchers import SubscriptionState
from comity.errors import LocalProtocolError
from comity.service.presence.interfaces import ContactItem, Content, PresenceService, Subscription

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

#: Seconds until a peer server that could not be reached is tried again.
PEER_RETRY = 15.0
#: As long as the lines of a NOTIFY that change can be.
CHANGING = b"CSeq: 2147483647 NOTIFY\r\nSubscription-State: terminated;reason=deactivated;retry-after=999999\r\n"


class Notice(NamedTuple):
    """What a NOTIFY says besides the dialog's own."""

    substate: Substate
    tail: bytes = NO_CONTENT
    reason: EndReason | None = None
    retry_after: int | None = None
    content: Content | None = None
    """What ``tail`` is made of, where it may be told as a difference."""


@dataclass(slots=True, eq=False)
class Watch:
    """One dialog that is notified."""

    subscription: Subscription
    head: Head
    transport: str
    remote: HostPort
    local: HostPort
    peer: str
    """See ``Kept``."""
    cseq: int
    """Of the last NOTIFY. It begins at the time, so that after a restart it is higher without having been stored."""
    in_flight: tuple[LinkState, str] | None = None
    """The link and transaction of the NOTIFY that has no answer yet."""
    sent: Notice | None = None
    """What that says."""
    waiting: Notice | None = None
    """What is to be said next."""
    is_dialling: bool = False
    """A connection is being opened for what is ``waiting``."""
    is_datagram_only: bool = False
    """It takes no connections."""
    partial: Partial | None = None
    """Of a watcher that takes differences."""
    silent_since: float = 0.0
    """When the first NOTIFY was sent that got no answer, superseded ones included; 0 if the last one got one."""


class Notifier:
    """The notifier of our users' presence; an ``Edge``."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        config = binding.config
        self._rates = UserRates(config.user_subscriptions, config.user_subscription_burst, config.user_octets)
        self._watches: dict[str, Watch] = {}
        """By SubscriptID."""
        self._pending: dict[tuple[Link, str], Watch] = {}
        """By link and client transaction."""
        self._presence: PresenceService | None = None
        self._peer_rates = UserRates(config.peer_messages, round(4 * config.peer_messages), config.user_octets)
        self._subscribe = Subscribing(binding, self).subscribe
        self._lists = Lists(binding, self)

    @property
    def presence(self) -> PresenceService:
        """What this is the edge of."""
        assert self._presence is not None, "start() comes first"
        return self._presence

    def start(self, presence: PresenceService) -> None:
        """Called once, before any listener opens."""
        self._presence = presence
        presence.attach(self._binding.name, self)
        self._lists.start(presence)

    # --- SUBSCRIBE -----------------------------------------------------------------------------------------

    async def take(self, received: Request, principal: Address) -> None:
        """Take an authenticated SUBSCRIBE; it is answered here. Raises RemoteProtocolError for what cannot be read."""
        refusal = self._refuse(received, principal)
        if refusal is None:
            is_list = await self._lists.is_list(received, principal)
            take = self._lists.take if is_list else self._subscribe
            refusal = await take(received, principal)
        if refusal is not None:
            self._binding.refuse(received, refusal)

    async def take_from_peer(self, received: Request, watcher: Address) -> None:
        """Take a SUBSCRIBE that a peer server hands in for a user of its own. Raises RemoteProtocolError for what cannot be read."""
        refusal = self._refuse(received, watcher, watcher.domain)
        if refusal is None:
            refusal = await self._subscribe(received, watcher, watcher.domain)
        if refusal is not None:
            self._binding.refuse(received, refusal)

    def _refuse(self, received: Request, principal: Address, peer: str = "") -> Refusal | None:
        if not peer and not is_sender(str(received.request.from_.uri), principal):
            return Refusal(403)
        if not self._binding.is_for_us(received):
            return Refusal(403, "No Relaying")
        size, now = len(received.request.body), self._binding.service.clock.now()
        wait = self._peer_rates.take(peer, size, now) if peer else 0.0
        wait = wait or self._rates.take(principal.key, size, now)
        if wait > 0.0:
            return Refusal(503, "Too Many Subscriptions", (("Retry-After", str(ceil(wait))),))
        return None

    def kept(self, received: Request, event: Event, known: Kept | None) -> Kept:
        """What to keep of the dialog of a request; ``known`` is that before it, None for a new one. Raises RemoteProtocolError for
        one that no NOTIFY could go to."""
        request, state = received.request, received.state
        now = int(self._binding.service.clock.when().timestamp())
        dialog = Dialog.of_request(request, state.session.local_tag(request), now) if known is None else known.dialog
        watch = self._watches.get(subscript_id(request.call_id, request.from_.tag))
        dialog.local_cseq = max(now, dialog.local_cseq, watch.cseq if watch else 0)
        user = request.uri.user if isinstance(request.uri, SipUri) else ""
        # "gr": the URI leads to this very notifier (RFC 6665 section 4.5.1).
        contact = f"sip:{f'{user}@' if user else ''}{state.session.sent_by};transport={state.transport};gr"
        kept = Kept(dialog, str(event), contact, state.transport, received.source, state.link.peer.local)
        try:
            head_of(kept, self._binding.config.max_forwards)
        except LocalProtocolError as error:
            raise malformed("a header holds what no NOTIFY could") from error
        return kept

    def _watch(self, subscription: Subscription, kept: Kept, state: LinkState | None) -> Watch:
        """Note the way to a watcher; what it waits for an answer to, and CSeq, go on in its dialog."""
        head = head_of(kept, self._binding.config.max_forwards)
        watch = self._watches.get(subscription.id)
        if watch is None or watch.subscription is not subscription:
            watch = Watch(subscription, head, *way_of(kept), kept.dialog.local_cseq)
            self._watches[subscription.id] = watch
        else:
            self._leave(watch)
            watch.head, watch.transport, watch.remote, watch.local, watch.peer = head, *way_of(kept)
            watch.cseq = max(watch.cseq, kept.dialog.local_cseq)
            watch.is_datagram_only = False
        self._look_at_partial(watch, kept, is_known=state is None)
        if state is not None and state.transport != "udp":
            state.watching.add(subscription.id)
        return watch

    def _look_at_partial(self, watch: Watch, kept: Kept, *, is_known: bool) -> None:
        """Whether differences are told from now on; a SUBSCRIBE is answered with all of it (RFC 5263 section 4.4)."""
        if watch.partial is not None:
            watch.partial.unsure()
            watch.partial.is_wanted = kept.partial
        elif kept.partial:
            # Kept from before a restart: the time is higher than any version there can have been.
            now = int(self._binding.service.clock.when().timestamp())
            watch.partial = Partial(now & 0x7FFFFFFF if is_known else 0)

    # --- dialogs (``subscribing.py``, ``lists.py``) -----------------------------------------------------------------------

    def kept_for(self, received: Request, event: Event, data: bytes) -> Kept:
        """The dialog of a request about a list; ``data`` is what was kept of it, empty for a new one."""
        return self.kept(received, event, Kept.decode(data) if data else None)

    def open_dialog(self, subscription: Subscription, kept: Kept, state: LinkState) -> None:
        """Note the way to a watcher."""
        self._watch(subscription, kept, state)

    def say(self, subscription: Subscription, substate: Substate, tail: bytes, reason: EndReason | None) -> None:
        """Send this now, in the place of whatever is on its way."""
        self._tell_at_once(subscription, Notice(substate, tail, reason))

    def is_idle(self, subscription: Subscription) -> bool:
        """True if nothing is on its way in a dialog that stands."""
        watch = self._watches.get(subscription.id)
        return watch is not None and watch.in_flight is None and watch.waiting is None

    def supersede(self, subscription: Subscription) -> None:
        """What is on its way in this dialog is no longer true: it is not sent again."""
        watch = self._watches.get(subscription.id)
        if watch is not None and watch.in_flight is not None:
            state, id = watch.in_flight
            state.session.supersede(id)

    def transport_of(self, subscription: Subscription) -> str:
        """By what a list's watcher is reached."""
        watch = self._watches.get(subscription.id)
        return "" if watch is None else watch.transport

    # --- the edge --------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        notices: dict[tuple[bool, bool], Notice] = {}
        links: set[Link] = set()
        for subscription in subscriptions:
            is_over = subscription.state is SubscriptionState.TERMINATED
            key = subscription.takes_secured, is_over
            notice = notices.get(key)
            if notice is None:
                tail = tail_of(content, subscription.takes_secured)
                substate = Substate.TERMINATED if is_over else Substate.ACTIVE
                whole = subscription.takes_secured and content.whole is not None
                differing = content if content.document is not None and not whole else None
                reason = EndReason.TIMEOUT if is_over else None
                notice = notices[key] = Notice(substate, tail, reason, content=differing)
            self._tell(subscription, notice, links)
        flush(links)

    def pending(self, subscription: Subscription) -> None:
        """See ``Edge.pending``."""
        self._tell_at_once(subscription, Notice(Substate.PENDING))

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``."""
        self._tell_at_once(subscription, Notice(Substate.TERMINATED, reason=reason, retry_after=retry_after))

    def asked(self, item: ContactItem) -> None:
        """Nothing in SIP asks a person; whoever watches its watchers (presence.winfo) is told by the service."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """The watcher hears it in its dialogs."""

    def withdrew(self, item: ContactItem) -> None:
        """As ``asked``."""

    def contact_changed(self, item: ContactItem) -> None:
        """Contact lists are fetched, by XCAP."""

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """As ``contact_changed``."""

    def directed(self, operation: NotifyOperation) -> None:
        """SIP has no notification outside a subscription (RFC 6665 section 4.2.2)."""

    # --- NOTIFY ------------------------------------------------------------------------------------------------

    def _tell_at_once(self, subscription: Subscription, notice: Notice) -> None:
        """Say what takes something away: what is on its way may not be said again."""
        links: set[Link] = set()
        watch = self._watches.get(subscription.id)
        if watch is not None and watch.in_flight is not None:
            state, id = watch.in_flight
            state.session.abandon(id)
            self._pending.pop((state.link, id), None)
            watch.in_flight = watch.waiting = None
            if watch.partial is not None:
                watch.partial.unsure()
        self._tell(subscription, notice, links)
        flush(links)

    def _tell(self, subscription: Subscription, notice: Notice, links: set[Link]) -> None:
        watch = self._watches.get(subscription.id)
        if watch is None or watch.subscription is not subscription:
            # Kept from before a restart.
            kept = Kept.decode(subscription.data)
            now = int(self._binding.service.clock.when().timestamp())
            kept.dialog.local_cseq = max(now, kept.dialog.local_cseq)
            watch = self._watch(subscription, kept, None)
        if watch.is_dialling:
            watch.waiting = notice
        elif watch.in_flight is None:
            self._send(watch, notice, links)
        else:
            watch.waiting = notice
            state, id = watch.in_flight
            state.session.supersede(id)

    def _send(self, watch: Watch, notice: Notice, links: set[Link]) -> None:
        """Send it the way the SUBSCRIBE came, or open another."""
        state = self._way(watch)
        pieces = watch.head.start, watch.head.fixed, CHANGING, notice.tail
        if state is not None and (watch.is_datagram_only or not state.session.is_too_large_written(*pieces)):
            self._send_by(state, watch, notice, links)
        elif not self._dial(watch, notice):
            self._no_way(watch, notice, links)

    def _dial(self, watch: Watch, notice: Notice) -> bool:
        """Open a connection to where the SUBSCRIBE came from; False if that is not the watcher's own address."""
        hop = self._binding.ways.hop(watch.peer) if watch.peer else None
        if hop is not None:
            watch.is_dialling, watch.waiting = True, notice
            # Over TCP its connection is gone; over UDP this is only for what no datagram holds.
            self._binding.ways.reach(hop, partial(self._peer_reached, watch), is_large=watch.transport == "udp")
            return True
        uri = None if b"\r\nRoute: " in b"\r\n" + watch.head.fixed else parse_uri(watch.head.target)
        if not isinstance(uri, SipUri):
            return False
        target = target_for(uri, watch.remote, "tls" if watch.transport == "tls" else "tcp")
        if target is None:
            return False
        watch.is_dialling, watch.waiting = True, notice
        self._binding.connections.reach(target, partial(self._reached, watch))
        return True

    def _peer_reached(self, watch: Watch, state: LinkState | None, address: HostPort | None) -> None:
        if address is not None:
            watch.transport, watch.remote = "udp", address
        elif state is not None:
            watch.transport, watch.remote, watch.local = state.transport, state.link.peer.remote, state.link.peer.local
            state.watching.add(watch.subscription.id)  # until it closes this is the way
        self._reached(watch, state)

    def _reached(self, watch: Watch, state: LinkState | None) -> None:
        watch.is_dialling = False
        notice, watch.waiting = watch.waiting, None
        if notice is None or self._watches.get(watch.subscription.id) is not watch:
            return
        links: set[Link] = set()
        if state is not None:
            self._send_by(state, watch, notice, links)
            self._binding.connections.rest(state.link)
        else:
            self._no_way(watch, notice, links)
        flush(links)

    def _no_way(self, watch: Watch, notice: Notice, links: set[Link]) -> None:
        """No connection can be had."""
        state = self._way(watch) if watch.transport == "udp" else None
        if state is None:
            self._say_later(watch, notice)
            self._settle(watch, notice)
            return
        watch.is_datagram_only = True
        self._send_by(state, watch, notice, links)

    def _send_by(self, state: LinkState, watch: Watch, notice: Notice, links: set[Link]) -> None:
        subscription, clock = watch.subscription, self._binding.service.clock
        left = None if subscription.expires is None else ceil(subscription.expires - clock.when().timestamp())
        watch.cseq += 1
        watch.silent_since = watch.silent_since or clock.now()
        value = state_value(notice.substate.value, left, notice.reason, notice.retry_after)
        tail = notice.tail
        if watch.partial is not None and tail is not NO_CONTENT:
            if notice.content is not None and watch.partial.is_wanted:
                tail = watch.partial.tail(notice.content)
            else:
                watch.partial.unsure()
        rest = notify_rest(watch.head, watch.cseq, value, tail)
        now = clock.now()
        try:
            id = state.session.send_written("NOTIFY", watch.head.start, rest, now, watch.remote)
        except LocalProtocolError:  # it closed a moment ago
            self._settle(watch, notice)
            return
        watch.in_flight, watch.sent = (state, id), notice
        self._pending[state.link, id] = watch
        links.add(state.link)

    def _way(self, watch: Watch) -> LinkState | None:
        """The link its SUBSCRIBE came by, if it still stands."""
        if watch.transport == "udp":
            return self._binding.datagram_state(watch.local)
        state = self._binding.flow(watch.transport, watch.remote, watch.local)
        return state if state is not None and watch.subscription.id in state.watching else None

    def take_event(self, link: Link, event: object) -> bool:
        """Take an event about a NOTIFY of ours; False if it is about something else."""
        if not isinstance(event, ResponseReceived | RequestTimedOut | RequestFailed):
            return False
        watch = self._pending.get((link, event.id))
        if watch is None:
            return False
        if isinstance(event, ResponseReceived) and event.response.status_code < 200:
            return True
        del self._pending[link, event.id]
        notice, watch.in_flight, watch.sent = watch.sent, None, None
        assert notice is not None
        is_taken = isinstance(event, ResponseReceived) and event.response.status_code < 300
        if watch.partial is not None:
            watch.partial.answered(is_taken)
        if self._is_lost(watch, event):
            self._lose(watch)
            if isinstance(event, RequestTimedOut) and link.peer.transport != "udp":
                link.abort()  # half open, or as good as (see ``delivery.py``)
            return True
        if isinstance(event, ResponseReceived):
            watch.silent_since = 0.0
            if event.response.status_code >= 500:
                self._try_again_later(watch, notice, event.response)
        else:
            self._say_later(watch, notice)
        waiting, watch.waiting = watch.waiting, None
        if waiting is None:
            self._settle(watch, notice, is_taken=is_taken)
        else:
            links: set[Link] = set()
            self._send(watch, waiting, links)
            flush(links)
        return True

    def _is_lost(self, watch: Watch, event: ResponseReceived | RequestTimedOut | RequestFailed) -> bool:
        if isinstance(event, ResponseReceived):
            return event.response.status_code in ENDING_CODES
        # Superseded ones have no Timer F of their own to wait for.
        is_silent = self._binding.service.clock.now() - watch.silent_since >= 64 * self._binding.config.t1
        return isinstance(event, RequestTimedOut) or (is_silent and watch.transport == "udp")

    def _try_again_later(self, watch: Watch, notice: Notice, answer: SipResponse) -> None:
        """The last state is never lost (SIP-27): what a temporary failure refused is sent once more, unless newer goes out."""
        text = (answer.value("retry-after") or "").partition(";")[0].partition("(")[0].strip()
        wanted = int(text) if text.isascii() and text.isdigit() and len(text) <= 6 else LEAST_RETRY
        if watch.waiting is None and notice.substate is not Substate.TERMINATED:
            self._later(watch, notice, float(min(max(wanted, LEAST_RETRY), MOST_RETRY)))

    def _say_later(self, watch: Watch, notice: Notice) -> None:
        """A peer server is there again after a while, and its users wait: a phone that is gone asks anew by itself."""
        if watch.peer and watch.waiting is None and notice.substate is not Substate.TERMINATED:
            self._later(watch, notice, PEER_RETRY)

    def _later(self, watch: Watch, notice: Notice, delay: float) -> None:
        self._binding.service.clock.call_later(delay, partial(self._try_again, watch, watch.cseq, notice))

    def _try_again(self, watch: Watch, cseq: int, notice: Notice) -> None:
        """Unless something newer was said, or waits for a connection: that it must not overtake (G9)."""
        is_latest = watch.cseq == cseq and watch.in_flight is None and not watch.is_dialling
        if self._watches.get(watch.subscription.id) is not watch or not is_latest:
            return
        if watch.subscription.edge == EDGE:
            self._lists.again(watch.subscription)
            return
        links: set[Link] = set()
        self._send(watch, notice, links)
        flush(links)

    def _settle(self, watch: Watch, last: Notice, *, is_taken: bool = False) -> None:
        """Nothing is on its way any more: after the last word the dialog is forgotten."""
        if last.substate is Substate.TERMINATED:
            self._forget(watch)
        elif watch.subscription.edge == EDGE:
            self._lists.settled(watch.subscription, is_taken=is_taken)

    def _lose(self, watch: Watch) -> None:
        """The watcher does not want it or is not there (SIP-22)."""
        self._forget(watch)
        if watch.subscription.edge == EDGE:
            self._lists.lost(watch.subscription)
        elif watch.subscription.state is not SubscriptionState.TERMINATED:
            self.presence.lost(watch.subscription)

    def _forget(self, watch: Watch) -> None:
        id = watch.subscription.id
        if self._watches.get(id) is watch:
            del self._watches[id]
        self._leave(watch)

    def _leave(self, watch: Watch) -> None:
        state = self._binding.flow(watch.transport, watch.remote, watch.local)
        if state is not None:
            state.watching.discard(watch.subscription.id)


def flush(links: Iterable[Link]) -> None:
    """Send what was written for each of them."""
    for link in links:
        link.flush()


def way_of(kept: Kept) -> tuple[str, HostPort, HostPort, str]:
    """What of a dialog says how its watcher is reached: transport, the far and the near address, the peer server's domain."""
    return kept.transport, kept.remote, kept.local, kept.peer

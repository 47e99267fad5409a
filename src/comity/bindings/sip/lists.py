"""One subscription for a whole list: the subscriber's contact list, or the one that comes along (RFC 4662, RFC 5367).

Place on the path: beside ``notifier.py``, which owns the dialogs and says what is given to it. ``sip:contacts@DOMAIN`` is everybody's
own contact list. Each entry becomes an ordinary subscription of the presence service, at an edge of its own ("sip-list"),
so that whoever may not see somebody alone does not see them in a list either. What changes is gathered:

* The first NOTIFY, and each that answers a SUBSCRIBE, is full; the others hold what changed. One is out at a time, so that
  ``version`` has no gaps; what changes meanwhile waits, and only the last of it.
* What takes something away (pending, terminated, an entry removed) waits for nothing: what is on its way is abandoned, and a full
  state goes out (G9). Nor is anything sent again in which somebody stands as he no longer is: a polite block looks like any change.
* Not durable: after a restart the next refresh is answered 481 and the client subscribes anew. So little time is granted that
  this comes soon.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from comity.bindings.sip.listing import MOST_MEMBERS, ListWatch, Member, address_of_entry, key_of
from comity.bindings.sip.mapping import Refusal
from comity.bindings.sip.notifications import Kept, head_of, write_tail
from comity.bindings.sip.packages import accepted, bad_event, duration_of, event_of
from comity.bindings.sip.protection import came_under_tls
from comity.bindings.sip.requests import Request
from comity.bindings.sip.rlmi import has_list, read_list
from comity.bindings.sip.subscriptions import request_to_subscription, subscript_id
from comity.bindings.sip.uri import SipUri
from comity.cpim.address import Address, to_sip_uri
from comity.cpim.operations import EndReason, NotifyOperation, Reason, Response, SubscribeOperation, Substate
from comity.cpim.watchers import SubscriptionState
from comity.errors import StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import ContactItem, Content, Granted, PresenceService, Subscription, Terms
from comity.xcap.services import ListServices

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding
    from comity.bindings.sip.notifier import Notifier

log = logging.getLogger(__name__)

NAME: Final = "contacts"
"""Local part of everybody's own list."""
EDGE: Final = "sip-list"
OPTION: Final = "eventlist"
EXTENSIONS: Final = frozenset({OPTION, "recipient-list-subscribe"})
"""What may stand in Require."""
MOST_SECONDS: Final = 600
"""Longest subscription: as long as a watcher may hear nothing after a restart."""
MOST_LISTS: Final = 4
"""Of one watcher."""
_REQUIRE: Final = b"Require: eventlist\r\n"
_REASONS: Final = {Reason.DENIED: EndReason.REJECTED, Reason.NO_ROUTE: EndReason.NORESOURCE}


class Lists:
    """All list subscriptions; an ``Edge``."""

    def __init__(self, binding: SipBinding, notifier: Notifier) -> None:
        self._binding = binding
        self._notifier = notifier
        self._lists: dict[str, ListWatch] = {}
        """By SubscriptID of the dialog."""
        self._virtual: dict[str, tuple[ListWatch, Member]] = {}
        """By SubscriptID of the virtual subscription."""
        self._presence: PresenceService | None = None

    @property
    def presence(self) -> PresenceService:
        assert self._presence is not None, "start() comes first"
        return self._presence

    def start(self, presence: PresenceService) -> None:
        """Called once, before any listener opens."""
        self._presence = presence
        self._services = ListServices(presence, self._binding.service.clock)
        presence.attach(EDGE, self)

    # --- SUBSCRIBE -----------------------------------------------------------------------------------------------

    async def is_list(self, received: Request, principal: Address) -> bool:
        """True if a SUBSCRIBE is about a list: the reserved name, a dialog of one, or a service of the watcher's own."""
        request = received.request
        uri = request.uri
        if not isinstance(uri, SipUri):
            return False
        if uri.user.lower() == NAME or subscript_id(request.call_id, request.from_.tag) in self._lists:
            return True
        is_possible = not request.to.tag and OPTION in (tag.lower() for tag in request.listed("supported"))
        service = address_of_entry(request.uri_text) if is_possible else None
        if service is None or service.domain != principal.domain or self._binding.service.accounts.known(service):
            return False
        return await self._service_entries(principal, service) is not None

    async def _service_entries(self, principal: Address, service: Address) -> list[tuple[str, str]] | None:
        """Who is in a list service of the watcher's own (RFC 4826), None if it has none of that name."""
        try:
            return await self._services.entries(principal, service)
        except StoreError as error:
            log.error("the list services of an account could not be read: %s", error)
            return None

    async def take(self, received: Request, principal: Address) -> Refusal | None:
        """Take an authenticated SUBSCRIBE about a list; the refusal, or None if it was answered."""
        request, config = received.request, self._binding.config
        event = event_of(request)
        if event is None or event.package != "presence":
            return bad_event()
        duration = duration_of(request, config.min_expires)
        if isinstance(duration, Refusal):
            return duration
        if OPTION not in (tag.lower() for tag in request.listed("supported")):
            return Refusal(421, headers=(("Require", OPTION),))
        if accepted(request, "presence") is None:
            return Refusal(406, headers=(("Accept", "application/pidf+xml, application/rlmi+xml, multipart/related"),))
        operation = request_to_subscription(request)
        if isinstance(operation, Refusal):
            return operation
        one = self._known(received, principal) if request.to.tag else self._new(received, principal)
        if isinstance(one, Refusal):
            return one
        wanted = await self._wanted(received, one)
        if isinstance(wanted, Refusal):
            return wanted
        if refusal := self._overtaken(received, one):
            return refusal
        granted = min(duration, MOST_SECONDS)
        kept = self._notifier.kept_for(received, event, one.subscription.data)
        head_of(kept, config.max_forwards)  # before anything is kept: can it be written?
        self._respond(received, one, kept, granted)
        if granted or not request.to.tag:
            await self._follow(one, wanted)
        if self._lists.get(one.subscription.id) is one:  # else the watcher went away meanwhile
            self._say_all(one, is_over=granted == 0)
        return None

    def _known(self, received: Request, principal: Address) -> ListWatch | Refusal:
        request = received.request
        one = self._lists.get(subscript_id(request.call_id, request.from_.tag))
        if one is None or one.subscription.watcher.key != principal.key:
            return Refusal(481)
        kept = Kept.decode(one.subscription.data)
        if kept.dialog.local_tag != request.to.tag:
            return Refusal(481)
        status_code = kept.dialog.take(request)
        if status_code:
            return Refusal(status_code)
        one.subscription.data = kept.encode()
        return one

    def _new(self, received: Request, principal: Address) -> ListWatch | Refusal:
        request = received.request
        uri = request.uri
        assert isinstance(uri, SipUri), "is_list looked"
        if uri.host.lower() != principal.domain:
            return Refusal(404)
        id = subscript_id(request.call_id, request.from_.tag)
        is_service = uri.user.lower() != NAME
        target = address_of_entry(request.uri_text) if is_service else Address("im", NAME, principal.domain)
        assert target is not None, "is_list looked"
        subscription = Subscription(id, EDGE, principal, target, state=SubscriptionState.ACTIVE)
        is_protected = came_under_tls(request, received.state.transport)
        origin = Origin(principal, self._binding.name, received.source[0], is_protected)
        is_own = not has_list(request) and not is_service
        return ListWatch(subscription, to_sip_uri(target), origin, is_own, is_service)

    def _overtaken(self, received: Request, one: ListWatch) -> Refusal | None:
        """Whether there is (no) place for it; asked after all that is waited for, when another may have come or it may be gone."""
        present = self._lists.get(one.subscription.id)
        if received.request.to.tag:
            return None if present is one else Refusal(481)
        if present is not None:
            return Refusal(482, "Merged Request")
        watcher = one.subscription.watcher.key
        if sum(other.subscription.watcher.key == watcher for other in self._lists.values()) >= MOST_LISTS:
            return Refusal(503, "Too Many Subscriptions", (("Retry-After", str(MOST_SECONDS)),))
        return None

    async def _wanted(self, received: Request, one: ListWatch) -> dict[str, Member] | Refusal | None:
        """Who shall be in the list; None: as before (a refresh without a list)."""
        request = received.request
        if one.is_service:
            entries = await self._service_entries(one.subscription.watcher, one.subscription.target)
            members = [Member(uri, name, address_of_entry(uri)) for uri, name in entries or ()]
            if entries is None:
                return Refusal(404)
        elif not one.is_own or has_list(request):
            if not has_list(request):
                return None
            carried = read_list(request)
            if isinstance(carried, Refusal):
                return carried
            members = [Member(uri, name, address_of_entry(uri)) for uri, name in carried]
        else:
            try:
                roster = await self.presence.contacts.roster(one.subscription.watcher)
            except StoreError as error:
                log.error("a contact list could not be read: %s", error)
                return Refusal(503, headers=(("Retry-After", "30"),))
            members = [Member(to_sip_uri(item.contact), item.name, item.contact) for item in roster.items]
        if len(members) > MOST_MEMBERS:
            return Refusal(403, f"More Than {MOST_MEMBERS} Entries")
        return {key_of(member): member for member in members}

    def _respond(self, received: Request, one: ListWatch, kept: Kept, granted: int) -> None:
        subscription, clock = one.subscription, self._binding.service.clock
        subscription.data = kept.encode()
        subscription.expires = clock.when().timestamp() + granted
        self._lists[subscription.id] = one
        one.is_starting = True
        self._notifier.open_dialog(subscription, kept, received.state)
        if one.end is not None:
            one.end.cancel()
        one.end = clock.call_later(granted, lambda: self._expired(one)) if granted else None
        headers = [("Expires", str(granted)), ("Contact", f"<{kept.contact}>"), ("Require", OPTION)]
        self._binding.respond(received, 200, headers=headers)

    # --- the virtual subscriptions ----------------------------------------------------------------------------------

    async def _follow(self, one: ListWatch, wanted: dict[str, Member] | None) -> None:
        """Watch who is in the list now, and no longer who is not."""
        if wanted is None:
            return
        for key in [key for key in one.members if key not in wanted]:
            self._drop(one, key)
        for key, member in wanted.items():
            present = one.members.get(key)
            if present is None:
                one.members[key] = member
                continue
            present.uri, present.name = member.uri, member.name
            if present.state == "terminated" and present.reason != EndReason.REJECTED.value:
                # What came to nothing is tried again; who said no is not asked again and again.
                present.is_asked = False
        for key in list(wanted):
            await self._watch(one, one.members.get(key))

    async def _watch(self, one: ListWatch, member: Member | None) -> None:
        """Subscribe to one of them, unless that stands or came to nothing before."""
        if member is None or member.is_asked:
            return
        member.is_asked = True
        if member.address is None:
            member.state, member.reason = "terminated", EndReason.NORESOURCE.value
            return
        watcher = one.subscription.watcher
        id = secrets.token_hex(16)
        operation = SubscribeOperation(
            watcher.with_scheme("pres"), member.address.with_scheme("pres"), id, id, MOST_SECONDS
        )
        try:
            answer = await self.presence.subscribe(operation, one.origin, Terms(EDGE))
        except StoreError as error:
            log.error("an entry of a list could not be watched: %s", error)
            member.is_asked = False  # the next refresh tries again
            return
        if isinstance(answer, Response):
            reason = _REASONS.get(answer.reason or Reason.INTERNAL, EndReason.GIVEUP)
            member.state, member.reason = "terminated", reason.value
            return
        self._begin(one, member, answer)

    def _begin(self, one: ListWatch, member: Member, answer: Granted) -> None:
        if self._lists.get(one.subscription.id) is not one or one.members.get(key_of(member)) is not member:
            self.presence.lost(answer.subscription)  # it ended while this was asked for
            return
        member.virtual = answer.subscription
        self._virtual[answer.subscription.id] = (one, member)
        self.presence.begin(answer.subscription)

    def _drop(self, one: ListWatch, key: str) -> None:
        member = one.members.pop(key)
        one.dirty.pop(key, None)
        if member.virtual is not None:
            self._virtual.pop(member.virtual.id, None)
            self.presence.lost(member.virtual)

    # --- the edge -----------------------------------------------------------------------------------------------------

    def notify(self, subscriptions: Sequence[Subscription], content: Content, told: Content | None) -> None:
        """See ``Edge.notify``."""
        for subscription in subscriptions:
            found = self._virtual.get(subscription.id)
            if found is not None:
                one, member = found
                if member.content is not None:
                    self._notifier.supersede(one.subscription)
                member.state, member.reason, member.content = "active", "", content
                one.dirty[key_of(member)] = None
                self._plan(one)

    def pending(self, subscription: Subscription) -> None:
        """See ``Edge.pending``."""
        self._took_away(subscription, "pending", "")

    def ended(self, subscription: Subscription, reason: EndReason, retry_after: int | None = None) -> None:
        """See ``Edge.ended``."""
        self._took_away(subscription, "terminated", reason.value)

    def _took_away(self, subscription: Subscription, state: str, reason: str) -> None:
        found = self._virtual.get(subscription.id)
        if found is None:
            return
        one, member = found
        member.state, member.reason, member.content = state, reason, None
        if state == "terminated":
            del self._virtual[subscription.id]
            member.virtual = None
        if not one.is_starting or one.version:  # a refresh: it may be on its way
            self._say_all(one)

    def asked(self, item: ContactItem) -> None:
        """Not about lists."""

    def answered(self, item: ContactItem, is_granted: bool) -> None:
        """Not about lists: the virtual subscription hears it."""

    def withdrew(self, item: ContactItem) -> None:
        """Not about lists."""

    def contact_changed(self, item: ContactItem) -> None:
        """The contact list is what its subscriptions are about."""
        for one in list(self._lists.values()):
            if one.is_own and one.subscription.watcher.key == item.account.key:
                self._binding.run(self._change(one, item))

    async def _change(self, one: ListWatch, item: ContactItem) -> None:
        key = item.contact.key
        present = one.members.get(key)
        if self._lists.get(one.subscription.id) is not one:
            return
        if not item.is_listed:
            if present is not None:
                self._drop(one, key)
                self._say_all(one)
        elif present is not None:
            if present.name != item.name:
                present.name = item.name
                one.dirty[key] = None
                self._plan(one)
        elif len(one.members) < MOST_MEMBERS:
            member = one.members[key] = Member(to_sip_uri(item.contact), item.name, item.contact)
            await self._watch(one, member)
            one.dirty[key] = None
            self._plan(one)

    def blocklist_changed(
        self, account: Address, blocked: Sequence[Address], unblocked: Sequence[Address] | None
    ) -> None:
        """Not about lists."""

    def directed(self, operation: NotifyOperation) -> None:
        """Not about lists."""

    # --- NOTIFY -------------------------------------------------------------------------------------------------------

    def _say_all(self, one: ListWatch, *, is_over: bool = False, reason: EndReason | None = None) -> None:
        """Say everything now; what is on its way is not sent again."""
        one.is_starting = False
        one.is_full = True
        if is_over:
            self._forget(one)
        self._say(one, EndReason.TIMEOUT if is_over and reason is None else reason)

    def _plan(self, one: ListWatch) -> None:
        """Say what changed as soon as the interval allows, if nothing is on its way."""
        if one.is_starting or one.timer is not None or not self._notifier.is_idle(one.subscription):
            return
        clock = self._binding.service.clock
        wait = one.said_at + self._binding.config.presence_interval - clock.now()
        if wait <= 0.0:
            self._say(one)
        else:
            one.timer = clock.call_later(wait, lambda: self._due(one))

    def _due(self, one: ListWatch) -> None:
        one.timer = None
        if one.dirty and self._lists.get(one.subscription.id) is one and self._notifier.is_idle(one.subscription):
            self._say(one)

    def _say(self, one: ListWatch, reason: EndReason | None = None) -> None:
        """One NOTIFY with what fits into it."""
        body = one.next_body(self._notifier.transport_of(one.subscription))
        one.said_at = self._binding.service.clock.now()
        substate = Substate.ACTIVE if reason is None else Substate.TERMINATED
        self._notifier.say(one.subscription, substate, _REQUIRE + write_tail(body), reason)

    def settled(self, subscription: Subscription, *, is_taken: bool) -> None:
        """Nothing is on its way any more: what changed meanwhile is next, or all of it if the watcher did not take the last one."""
        one = self._lists.get(subscription.id)
        if one is not None:
            one.is_full = one.is_full or not is_taken
            if one.dirty:
                self._plan(one)

    def again(self, subscription: Subscription) -> None:
        """The watcher could not take the last NOTIFY: say how things are now."""
        one = self._lists.get(subscription.id)
        if one is not None:
            self._say_all(one)

    # --- ends ---------------------------------------------------------------------------------------------------------

    def lost(self, subscription: Subscription) -> None:
        """The watcher does not want it or is not there (SIP-22)."""
        one = self._lists.get(subscription.id)
        if one is not None:
            self._forget(one)

    def _expired(self, one: ListWatch) -> None:
        one.end = None
        if self._lists.get(one.subscription.id) is one:
            self._say_all(one, is_over=True)

    def _forget(self, one: ListWatch) -> None:
        """End what is underneath; the members stay for a last word."""
        self._lists.pop(one.subscription.id, None)
        for timer in (one.timer, one.end):
            if timer is not None:
                timer.cancel()
        one.timer = one.end = None
        for member in one.members.values():
            if member.virtual is not None:
                self._virtual.pop(member.virtual.id, None)
                self.presence.lost(member.virtual)
                member.virtual = None

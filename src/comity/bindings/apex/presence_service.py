"""The presence service, ``apex=presence@DOMAIN``: subscribe, watch, publish, terminate (RFC 3343 section 4; APEX-17 to 22).

Place on the path: steps 4, 5 and 9 of subscribe and publish. Each operation is checked in the order of its section and answered by
one reply with its transaction-identifier, or by a publish. Whether there is such an account nobody is told who may not see it: a
subscribe to nobody looks like one that waits (N-02), and who may neither watch nor publish hears 537 of everybody alike; 550 is
for what can be no account at all.

An endpoint's subscribe that replaces its earlier one is a refresh of it for the service (X8).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from weakref import WeakValueDictionary

from comity.bindings.apex.elements import (
    Option,
    Part,
    Publish,
    Reply,
    ServiceElement,
    Subscribe,
    Terminate,
    Watch,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.interfaces import Relay
from comity.bindings.apex.multipart import CONTROL
from comity.bindings.apex.presence import Entry, own_tuples, read_last_update
from comity.bindings.apex.presence_edge import PresenceEdge
from comity.bindings.apex.presence_entries import Entries
from comity.bindings.apex.presence_operations import EDGE, SECURED, SERVICE, Kept
from comity.bindings.apex.reasons import CODES
from comity.cpim.address import Address
from comity.cpim.entity import SECURED as SECURED_TYPES
from comity.cpim.entity import signed_part
from comity.cpim.operations import MimeObject, Reason, Response, SubscribeOperation
from comity.cpim.presence import PIDF_TYPE, PresenceDocument
from comity.errors import AddressError, MalformedMessage, StoreError
from comity.service.interfaces import Origin
from comity.service.presence.interfaces import Granted, Package, PresenceService, Subscription, Terms

log = logging.getLogger(__name__)

MOST: Final = 24 * 3600
"""Longest duration granted, seconds: as in the examples of RFC 3343. A longer one ends by a terminate then."""
MOST_TUPLES: Final = 200
"""Of one entry."""
_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who asks, and what for."""

    originator: Endpoint
    domain: str
    origin: Origin
    publisher: Endpoint
    trans_id: int
    wants_secured: bool = False

    @property
    def watcher(self) -> Address:
        return self.originator.to_address()


class PresenceWellKnown:
    """See ``WellKnown``."""

    name = SERVICE

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By account, while somebody publishes for it."""

    def start(self, relay: Relay) -> None:
        """See ``WellKnown.start``; without a presence service (SEED-45) everything is answered 421."""
        self._relay = relay
        self._presence = presence = relay.service.presence
        if presence is None:
            return
        self._edge = PresenceEdge(relay, presence, relay.service.clock)
        self._entries = Entries(presence, relay.service.clock)
        presence.attach(EDGE, self._edge)
        relay.on_attached(self._edge.attached)
        self._restored = asyncio.ensure_future(self._restore())

    def knows(self, element: ServiceElement | Part) -> bool:
        """See ``WellKnown.knows``: what a consumer may send, and presence it signed (X39)."""
        if isinstance(element, Part):
            return MimeObject(element.header_block, b"").media_type != CONTROL
        return isinstance(element, Subscribe | Watch | Publish | Terminate)

    def understands(self, option: Option) -> bool:
        """See ``WellKnown.understands``."""
        return option.external == SECURED

    async def handle(
        self,
        originator: Endpoint,
        domain: str,
        element: ServiceElement | Part,
        origin: Origin,
        options: Sequence[Option] = (),
    ) -> None:
        """See ``WellKnown.handle``."""
        if originator.is_service:
            return  # a service asks nothing, and an answer might be answered
        secured = next((option for option in options if option.external == SECURED), None)
        trans_id = (secured.trans_id if secured else 0) if isinstance(element, Part) else _trans_id(element)
        try:
            code, text = await self._handle(originator, domain, element, origin, secured)
        except AddressError:
            code, text = 550, "No account can have that name."
        except StoreError as error:
            log.error("an operation on presence cannot be carried out: %s", error)
            code, text = 451, "The service cannot keep this now."
        if code and trans_id:  # a reply names a transaction: to who named none nothing can be said
            self._reply(originator, domain, Reply(code, trans_id, text))

    async def _handle(
        self,
        originator: Endpoint,
        domain: str,
        element: ServiceElement | Part,
        origin: Origin,
        secured: Option | None,
    ) -> tuple[int, str]:
        """Carry it out; the code of the reply, 0 if none is to be sent any more."""
        presence = self._presence
        if presence is None:
            return 421, "Presence is not carried here."
        await self._restored
        # Authorized as this endpoint: by its own attachment, or by its domain's relay.
        origin = replace(origin, principal=originator.to_address(), domains=frozenset())
        if isinstance(element, Part):
            return await self._sign(presence, _Asked(originator, domain, origin, originator.bare, 0), element)
        if isinstance(element, Terminate):
            return await self._terminate(presence, originator, origin, element.trans_id)
        if not isinstance(element, Subscribe | Watch | Publish):
            return 504, "The presence service takes no such element."
        asked = _Asked(originator, domain, origin, element.publisher, element.trans_id, secured is not None)
        if isinstance(element, Publish) and element.publisher != element.presence.publisher:
            return 503, "The two publishers differ."
        subject = element.publisher
        if subject.domain != domain:
            return 553, "That is no endpoint of this domain."
        if subject.is_service or subject.subaddress:
            return 550, "Presence is kept for accounts, not for services and subaddresses."
        if isinstance(element, Publish):
            return await self._publish(presence, asked, element)
        return await self._follow(presence, asked, element)

    # --- subscribe and watch -----------------------------------------------------------------------------------------

    async def _follow(self, presence: PresenceService, asked: _Asked, element: Subscribe | Watch) -> tuple[int, str]:
        package: Package = "presence" if isinstance(element, Subscribe) else "presence.winfo"
        if package == "presence.winfo" and not await self._may(presence, asked, "presence:watch"):
            return 537, "You may not know who watches this endpoint."
        running = self._edge.operations(asked.originator)
        earlier = next(
            (one for one, kept in running if one.package == package and _is_same(kept.publisher, asked.publisher)), None
        )
        is_busy = any(kept.trans_id == asked.trans_id and one is not earlier for one, kept in running)
        if element.duration == 0 or is_busy:
            # Whether it may be asked at all comes first; then the earlier one ends, whatever becomes of this one.
            answer = await self._subscribe(presence, asked, package, 0, _new_id())
            if isinstance(answer, Response):
                return _refusal(answer)
            if earlier is not None and (refusal := await self._end(presence, asked, earlier)):
                return refusal
            if is_busy:
                return 555, "That transaction is in progress."
        else:
            id = earlier.id if earlier is not None else _new_id()
            answer = await self._subscribe(presence, asked, package, element.duration, id)
            if isinstance(answer, Response):
                return _refusal(answer)
        if package == "presence.winfo":
            self._reply(asked.originator, asked.domain, Reply(250, asked.trans_id))
            self._edge.watchers.begin(answer.subscription)
        elif _is_same(asked.originator, asked.publisher):
            entry = await self._entries.get(answer.subscription.target)
            if entry is not None and entry.tuples and entry.is_over(self._relay.service.clock.when()):
                self._edge.remind(answer.subscription.id, entry)
        presence.begin(answer.subscription)
        self._edge.remind(answer.subscription.id, None)
        if answer.is_refresh and package == "presence":
            self._edge.watchers.renewed(answer.subscription.target)
        return 0, ""

    async def _may(self, presence: PresenceService, asked: _Asked, token: str) -> bool:
        """Whether the subject's access entry holds a token for the originator (RFC 3341)."""
        owner, subaddress = asked.publisher.to_address(), asked.originator.subaddress
        return await presence.rights.may(owner, asked.watcher, token, actor_resource=subaddress)

    async def _subscribe(
        self, presence: PresenceService, asked: _Asked, package: Package, duration: int, id: str
    ) -> Granted | Response:
        kept = Kept(asked.trans_id, duration, asked.originator, asked.publisher)
        terms = Terms(EDGE, package, is_durable=True, takes_secured=asked.wants_secured, data=kept.encode(), most=MOST)
        pair = asked.watcher.with_scheme("pres"), asked.publisher.to_address().with_scheme("pres")
        operation = SubscribeOperation(*pair, id, str(asked.trans_id), duration)
        return await presence.subscribe(operation, asked.origin, terms)

    async def _end(
        self, presence: PresenceService, asked: _Asked, subscription: Subscription
    ) -> tuple[int, str] | None:
        """End an operation silently and durably; None when that is done."""
        pair = subscription.watcher.with_scheme("pres"), subscription.target.with_scheme("pres")
        operation = SubscribeOperation(*pair, subscription.id, str(asked.trans_id), 0)
        answer = await presence.subscribe(operation, asked.origin, Terms(EDGE, subscription.package, is_durable=True))
        if isinstance(answer, Response) and answer.reason is not Reason.NO_SUCH_USER:  # else it ended by itself
            return _refusal(answer)
        # The last word of a subscription is not said in APEX (T6).
        self._edge.forget(subscription)
        return None

    async def _terminate(
        self, presence: PresenceService, originator: Endpoint, origin: Origin, trans_id: int
    ) -> tuple[int, str]:
        found = next((one for one, kept in self._edge.operations(originator) if kept.trans_id == trans_id), None)
        if found is None:
            return 550, "No such transaction is in progress."
        asked = _Asked(originator, originator.domain, origin, originator, trans_id)
        return await self._end(presence, asked, found) or (250, "")

    # --- publish -------------------------------------------------------------------------------------------------------

    async def _publish(self, presence: PresenceService, asked: _Asked, element: Publish) -> tuple[int, str]:
        """RFC 3343 section 4.4 from step 4 on."""
        if not await self._may(presence, asked, "presence:publish"):
            return 537, "You may not publish for this endpoint."
        given = read_last_update(element.presence)
        if given is None:
            return 501, "lastUpdate is no date and time."
        if len(element.presence.tuples) > MOST_TUPLES:
            return 554, f"An entry has at most {MOST_TUPLES} tuples."
        account = asked.publisher.to_address().folded()
        async with self._lock(account):
            entry = await self._entries.get(account)
            seen = await self._look(presence, account)
            newest = max((one for one in (seen, entry.last_update if entry else None) if one is not None), default=None)
            # What devices said since is no conflict: it is theirs, and nothing of it is written or ended here. Nor is what was
            # signed in the place of an entry (X39), whose own time counts as its lastUpdate.
            is_stale = entry is not None and given < entry.last_update and given != seen
            if is_stale or (newest is not None and given > newest):
                return 555, "The entry was updated meanwhile."
            info = element.presence.publisher_info
            new = Entry(self._entries.next_update(entry, seen), info, own_tuples(element.presence))
            refusal = await self._entries.put(account, new, entry)
        return (250, "") if refusal is None else _refusal(refusal)

    async def _look(self, presence: PresenceService, account: Address) -> datetime | None:
        """The lastUpdate that who sees everything of the account is told now."""
        id, who = _new_id(), account.with_scheme("pres")
        origin = Origin(account, EDGE, "", is_protected=True)
        answer = await presence.subscribe(SubscribeOperation(who, who, id, id, 0), origin, Terms(EDGE))
        if isinstance(answer, Response):
            return None
        self._edge.look(id)
        presence.begin(answer.subscription)
        return self._edge.seen(id)

    async def _sign(self, presence: PresenceService, asked: _Asked, part: Part) -> tuple[int, str]:
        """Presence that the account itself signed or sealed (X39)."""
        if asked.originator.domain != asked.domain:
            return 553, "That is no endpoint of this domain."
        try:
            secured = MimeObject(part.header_block, part.octets)
            document = _view(secured)
        except MalformedMessage as error:
            return 501, f"This is no signed presence: {error}."
        async with self._lock(account := asked.watcher.folded()):
            refusal = await self._entries.sign(account, document, secured)
        return (250, "") if refusal is None else _refusal(refusal)

    # --- underneath ------------------------------------------------------------------------------------------------------

    def _lock(self, account: Address) -> asyncio.Lock:
        lock = self._locks.get(account.key)
        if lock is None:
            lock = self._locks[account.key] = asyncio.Lock()
        return lock

    def _reply(self, originator: Endpoint, domain: str, reply: Reply) -> None:
        self._relay.say(SERVICE, domain, originator, reply)

    async def _restore(self) -> None:
        try:
            await self._entries.restore()
        except StoreError as error:
            log.error("presence entries cannot be published again: %s", error)


def _trans_id(element: ServiceElement) -> int:
    return element.trans_id if isinstance(element, Subscribe | Watch | Publish | Terminate) else 0


def _is_same(one: Endpoint, other: Endpoint) -> bool:
    """The same account, as its domain sees it (ADDR-4)."""
    return one.to_address().folded() == other.to_address().folded()


def _new_id() -> str:
    return f"apex-{secrets.token_hex(16)}"


def _refusal(answer: Response) -> tuple[int, str]:
    assert answer.reason is not None, "only failures are refusals"
    return CODES[answer.reason], answer.text


def _view(secured: MimeObject) -> PresenceDocument | None:
    """The document in a signed entity; None if only others can open it. Raises MalformedMessage."""
    inner = secured
    for _ in range(_DEPTH):
        if inner.media_type != "multipart/signed":
            break
        inner = signed_part(inner)
    if inner is not secured and inner.media_type == PIDF_TYPE:
        return PresenceDocument.of(inner)
    if inner.media_type in SECURED_TYPES and inner.media_type != "multipart/signed":
        return None
    raise MalformedMessage("it is not signed, or holds no presence document that can be read")

"""What our accounts want of people of other domains, on its way there: in order, tried until their server took it.

Place on the path: under ``pairs.py`` and ``sights.py``, above the bindings (``Abroad``). An act is durable before it is pushed here
(space "relation", ``owed/ACCOUNT/OTHER/ACT``) and its row goes when it was taken, refused for good, or overtaken by what was
decided since: nobody has to hear a request that was withdrawn meanwhile. Looks (``Abroad.watch``) are not durable.

One lane for each domain: a dead one keeps no other waiting, and is knocked at by one errand at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from comity.cpim.address import Address
from comity.cpim.entity import split_entity
from comity.cpim.operations import Reason, Response, SubscribeOperation, failure, success
from comity.errors import DeliveryError, NoRouteError, StoreError
from comity.service.ids import new_spine_id
from comity.service.interfaces import Clock, Contact, Delete, Store, Timer
from comity.service.presence.interfaces import Abroad, Ask
from comity.service.presence.relations import SPACE, unpack_ask
from comity.service.presence.states import Act

log = logging.getLogger(__name__)

FOREVER: Final = 2**32 - 1
"""Duration of what is asked once and for good."""
DELAYS: Final = (2.0, 10.0, 30.0, 60.0, 60.0, 60.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds until a domain that could not be reached is tried again."""
PATIENCE: Final = 90.0
"""Seconds a binding has for one errand."""
DARK: Final = 240.0
"""Seconds a domain may be out of reach until what was heard from it holds no more."""
WINDOW: Final = 16
"""Errands to one domain at once, of different people."""
MOST_PLACES: Final = 4096
"""Domains whose way is remembered."""

FindHops = Callable[[str], Awaitable[Sequence[Contact]]]
Place = tuple[Abroad, Contact]


class Look(Enum):
    """What is no act of the contact list."""

    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to be carried to another domain."""

    account: Address
    """Who wants it."""
    other: Address
    """Towards whom, of that domain."""
    what: Act | Look
    row: str = ""
    """Key of what makes it durable; "": it is not."""

    @property
    def pair(self) -> tuple[str, str]:
        """Errands of one pair keep their order."""
        return self.account.key, self.other.key


@dataclass(slots=True)
class _Lane:
    domain: str
    queue: dict[tuple[str, str, Act | Look], Errand] = field(default_factory=dict)
    """In order; the same errand stands there once."""
    busy: set[tuple[str, str]] = field(default_factory=set)
    """Pairs with one on its way."""
    failures: int = 0
    """One after the other, by trouble that says nothing of the errand."""
    failing_since: float | None = None
    """Monotonic."""
    is_dark: bool = False
    pause: Timer | None = None


class Errands:
    """Carries them.

    Args:
        store: where the durable ones stand.
        clock: time.
        hop: ``Routes.hop``: whether any way leads to a domain.
        find: ``Service.find_hops`` for presence: the ways there, where DNS says which; None: ``hop`` is all there is.
    """

    def __init__(
        self, store: Store, clock: Clock, hop: Callable[[str], Contact | None], find: FindHops | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._hop = hop
        self._find_hops = find
        self._places: OrderedDict[str, Place] = OrderedDict()
        """By domain: the way that was taken last."""
        self._abroad: dict[str, Abroad] = {}
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False
        self.is_wanted: Callable[[Errand], Awaitable[bool]] = _always
        """Whether what an act says is still so (``Pairs``); asked before each attempt."""
        self.refused: Callable[[Errand, Response], Awaitable[None]] = _nothing
        """The other domain's server refused it for good (``Pairs``)."""
        self.carried: Callable[[Errand], None] = lambda errand: None
        """The other domain's server took it (``Sights``)."""
        self.went_dark: Callable[[str], None] = lambda domain: None
        """A domain is out of reach for long (``Sights``)."""

    def attach(self, name: str, abroad: Abroad) -> None:
        """Add a binding that reaches other domains."""
        self._abroad[name] = abroad
        for lane in list(self._lanes.values()):
            self._resume(lane)

    def no_way(self, domain: str) -> Response | None:
        """Why nothing can be carried to a domain, ever; None if there is a way, or DNS may know one."""
        if self._hop(domain) is None:
            return failure("", Reason.NO_ROUTE, "That domain is not served here, and no route leads to it.")
        return None

    def place(self, domain: str) -> Place | None:
        """The way to a domain that was taken last."""
        return self._places.get(domain)

    async def carry(self, domain: str, act: Callable[[Abroad, Contact], asyncio.Future[Response]]) -> Response:
        """One attempt: by the first way there whose server can be reached."""
        found = await self._hops(domain)
        if isinstance(found, Response):
            return found
        by = ", ".join(hop.binding for hop in found)
        refusal = failure("", Reason.TIMEOUT, f"Presence does not go to that domain by {by} now.")
        for hop in found:
            abroad = self._abroad.get(hop.binding)
            if abroad is None:
                continue
            response = await self._within(act(abroad, hop))
            if not response.is_unsent:
                self._places[domain] = abroad, hop
                self._places.move_to_end(domain)
                if len(self._places) > MOST_PLACES:
                    self._places.popitem(last=False)
                return response
            refusal = response
        return refusal

    async def _hops(self, domain: str) -> Sequence[Contact] | Response:
        hop = self._hop(domain)
        if hop is None or self._find_hops is None:
            return (hop,) if hop is not None else failure("", Reason.NO_ROUTE, "No route leads to that domain.")
        try:
            return await self._find_hops(domain)
        except NoRouteError as error:
            return failure("", Reason.NO_ROUTE, f"{error}.")
        except DeliveryError as error:
            return failure("", Reason.TIMEOUT, f"{error}.")

    def push(self, errand: Errand) -> None:
        """Carry it, after what its pair has on its way; durable already if it is to be."""
        if self._is_stopped:
            return
        domain = errand.other.domain
        lane = self._lanes.get(domain)
        if lane is None:
            lane = self._lanes[domain] = _Lane(domain)
        lane.queue.setdefault((*errand.pair, errand.what), errand)
        self._pump(lane)

    def knock(self, domain: str) -> None:
        """Something says that the domain can be reached: try what waits."""
        lane = self._lanes.get(domain)
        if lane is not None:
            self._resume(lane)

    def stop(self) -> None:
        """Carry nothing any more; what is durable is in the store."""
        self._is_stopped = True
        for lane in self._lanes.values():
            if lane.pause is not None:
                lane.pause.cancel()
        for task in self._tasks:
            task.cancel()

    # --- one lane --------------------------------------------------------------------------------------------------

    def _resume(self, lane: _Lane) -> None:
        if lane.pause is not None:
            lane.pause.cancel()
            lane.pause = None
        self._pump(lane)

    def _pump(self, lane: _Lane) -> None:
        most = 1 if lane.failures else WINDOW
        while lane.pause is None and len(lane.busy) < most and not self._is_stopped:
            errand = next((one for one in lane.queue.values() if one.pair not in lane.busy), None)
            if errand is None:
                break
            del lane.queue[(*errand.pair, errand.what)]
            lane.busy.add(errand.pair)
            task = asyncio.get_running_loop().create_task(self._carry(lane, errand))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not lane.queue and not lane.busy and not lane.failures:
            self._lanes.pop(lane.domain, None)

    async def _carry(self, lane: _Lane, errand: Errand) -> None:
        try:
            response = await self._tried(errand)
        except StoreError as error:
            log.error("an errand to another domain cannot be read: %s", error)
            response = failure("", Reason.INTERNAL, "The store failed.")
        except Exception:  # whatever a binding raises, the other errands go on (F-POISON)
            log.exception("an errand to %s failed", lane.domain)
            response = failure("", Reason.TIMEOUT, "That could not be carried.")
        lane.busy.discard(errand.pair)
        if response.is_temporary:
            self._failed(lane, errand, response)
        else:
            lane.failures, lane.failing_since, lane.is_dark = 0, None, False
        self._pump(lane)

    def _failed(self, lane: _Lane, errand: Errand, response: Response) -> None:
        now = self._clock.now()
        key = (*errand.pair, errand.what)
        lane.queue = {key: errand} | {other: one for other, one in lane.queue.items() if other != key}
        delay = max(DELAYS[min(lane.failures, len(DELAYS) - 1)], float(min(response.retry_after or 0, 600)))
        lane.failures += 1
        lane.failing_since = now if lane.failing_since is None else lane.failing_since
        if lane.pause is None:
            lane.pause = self._clock.call_later(delay, lambda: self._resume(lane))
        if not lane.is_dark and now - lane.failing_since >= DARK:
            lane.is_dark = True
            log.warning("%s is out of reach: %s", lane.domain, response.text, extra={"is_peers": True})
            self.went_dark(lane.domain)

    # --- one errand ------------------------------------------------------------------------------------------------

    async def _tried(self, errand: Errand) -> Response:
        entry = await self._store.get(SPACE, errand.row) if errand.row else None
        if (errand.row and entry is None) or not await self.is_wanted(errand):
            response = success("")
        else:
            ask = unpack_ask(entry.value) if entry is not None and entry.value else Ask(self._store.time())
            response = await self._given(errand, ask)
        if response.is_temporary:
            return response
        if response.reason is not None:
            await self.refused(errand, response)
        else:
            self.carried(errand)
        if entry is not None:
            # Only as it was read: it may have been written anew meanwhile, for the next time.
            await self._store.commit([Delete(SPACE, errand.row, if_rev=entry.rev)])
        return response

    async def _given(self, errand: Errand, ask: Ask) -> Response:
        account, other, act = errand.account, errand.other, errand.what

        def give(abroad: Abroad, hop: Contact) -> asyncio.Future[Response]:
            match act:
                case Act.SUBSCRIBE:
                    return abroad.ask(self._operation(errand, FOREVER, ask), ask, hop)
                case Act.UNSUBSCRIBE:
                    return abroad.withdraw(self._operation(errand, 0, ask), hop)
                case Act.SUBSCRIBED | Act.UNSUBSCRIBED:
                    return abroad.answer(account, other, act is Act.SUBSCRIBED, hop)
                case Look.WATCH:
                    return abroad.watch(account, other, hop)

        return await self.carry(other.domain, give)

    def _operation(self, errand: Errand, duration: int, ask: Ask) -> SubscribeOperation:
        pair = errand.account.with_scheme("pres"), errand.other.with_scheme("pres")
        if ask.proof and bool(ask.duration) is bool(duration):
            proof = split_entity(ask.proof)  # as it was signed, octet for octet
            return SubscribeOperation(*pair, ask.subscript_id, new_spine_id(), ask.duration, proof=proof)
        return SubscribeOperation(*pair, f"{errand.account.key} {errand.other.key}", new_spine_id(), duration)

    async def _within(self, given: asyncio.Future[Response]) -> Response:
        """What a binding says, or TIMEOUT if it says nothing."""
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def end(_: object = None) -> None:
            if not ended.done():
                ended.set_result(None)

        given.add_done_callback(end)
        timer = self._clock.call_later(PATIENCE, end)
        await ended
        timer.cancel()
        if given.done():
            return given.result()
        given.cancel()
        return failure("", Reason.TIMEOUT, "The other domain's server gave no answer in time.")


async def _always(errand: Errand) -> bool:
    return True


async def _nothing(errand: Errand, response: Response) -> None:
    return None

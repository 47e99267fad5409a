"""People of SIP domains whom our accounts watch: SUBSCRIBE out over trunks, NOTIFY in (RFC 6665 section 4.1, RFC 8048 section 5.2).

Place on the path: steps 8 and 9 of a subscribe to another domain, steps 3 to 5 of a notify from there. An ``Abroad`` of the presence
service, which says who wants to see whom; ``subscriber.py`` decides what that takes, ``lanes.py`` how fast, ``exchange.py`` leads there.
Rules its readers must keep:

* Nothing is said to have been granted before the first active NOTIFY, and nothing is told before that (GW-14). An answer or a NOTIFY
  that takes the authorization itself away (403, 489, 603, rejected) is told as such; everything else ends a dialog at most (GW-13).
* A dialog lives while somebody looks. One that nobody looks at is asked for a few times and then let go (RFC 8048 section 8.1, G-22).
* Dialogs do not outlive the process: after a start the accounts' wishes, which are durable, are subscribed to anew, and a NOTIFY of a
  dialog from before gets the 481 that ends it. So there is no row for each refresh, and none that a crash could leave wrong.
* What a NOTIFY says counts only from who speaks for the presentity's domain, or where the SUBSCRIBE went (T1).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Final

from comity.bindings.base import Target
from comity.bindings.sip.abroad_pairs import Pair, read_notify, wish_of
from comity.bindings.sip.abroad_telling import Telling
from comity.bindings.sip.exchange import Ended as Asked
from comity.bindings.sip.exchange import literal_targets
from comity.bindings.sip.headers import clean_text
from comity.bindings.sip.lanes import Lane
from comity.bindings.sip.mapping import Refusal, reason_of
from comity.bindings.sip.message import SipResponse
from comity.bindings.sip.rates import UserRates
from comity.bindings.sip.requests import Request
from comity.bindings.sip.subscriber import Ended, Notified, Pended, RefreshFailed, Send, State, Subscriber, Wish
from comity.bindings.sip.subscriber_rules import CANCELLING_CODES, HOPELESS_CODES, End, EndCause
from comity.cpim.address import Address
from comity.cpim.operations import NotifyOperation, Reason, Response, SubscribeOperation, failure, success
from comity.errors import DeliveryError
from comity.service.interfaces import Contact, Timer
from comity.service.presence.interfaces import Ask, PresenceService

if TYPE_CHECKING:
    from comity.bindings.sip.binding import SipBinding

log = logging.getLogger(__name__)

SPREAD: Final = 0.25
"""See ``Subscriber``."""
MOST_UNATTENDED: Final = 3
"""SUBSCRIBE requests in a row for an account of which nobody looks (G-22)."""
IDLE: Final = 32.0
"""Seconds a dialog is kept that nobody looks at any more: devices come back."""
NOTIFY_RATE, NOTIFY_BURST = 5.0, 50
"""NOTIFY requests a second of one dialog; RFC 3856 section 6.10 wants no more than one in five seconds."""
FRESH: Final = 10.0
"""Seconds for which what was told last need not be asked for again."""
MOST_LANES: Final = 1000
"""Servers that do not answer of which that is remembered though nobody waits for them."""
_NAMELESS = failure("", Reason.NO_SUCH_USER, "One of the two has no name at the other server.")
_SILENT = frozenset({EndCause.UNANSWERED, EndCause.UNREACHABLE})


class SipAbroad:
    """Presentities of other domains by SIP; an ``Abroad``."""

    def __init__(self, binding: SipBinding) -> None:
        self._binding = binding
        self._telling = Telling(binding, self._let_go_later)
        self._pairs: dict[tuple[str, str], Pair] = {}
        """By watcher and presentity; only those that are wanted."""
        self._dialogs: dict[tuple[str, str], Pair] = {}
        """By Call-ID and our tag."""
        self._lanes: dict[str, Lane[Pair]] = {}
        """By the domain that is asked."""
        self._pres_uris = frozenset(trunk.domain for trunk in binding.config.trunks if trunk.pres_uris)
        self._timers: dict[str, Timer] = {}
        """Of lanes."""
        self._rates = UserRates(NOTIFY_RATE, NOTIFY_BURST, binding.config.user_octets)

    def start(self, presence: PresenceService) -> None:
        """Called once, before any listener opens."""
        self._telling.start(presence)
        presence.attach_abroad(self._binding.name, self)

    # --- what our accounts want (``Abroad``) -----------------------------------------------------------------

    def ask(self, operation: SubscribeOperation, ask: Ask, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.ask``."""
        pair = self._need(operation.watcher, operation.target, hop)
        if pair is None:
            return _done(_NAMELESS)
        pair.is_asked = True
        if pair.is_granted:
            pair.is_granted = False  # the account did not hear of it: a refresh says it again
        return self._look(pair)

    def watch(self, account: Address, target: Address, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.watch``."""
        pair = self._need(account, target, hop)
        if pair is None:
            return _done(_NAMELESS)
        pair.is_watched, pair.unattended = True, 0
        return self._look(pair)

    def unwatch(self, account: Address, target: Address, hop: Contact) -> None:
        """See ``Abroad.unwatch``."""
        pair = self._pairs.get(_key(account, target))
        if pair is not None:
            pair.is_watched = False
            self._let_go_later(pair)

    def withdraw(self, operation: SubscribeOperation, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.withdraw``: success when the last SUBSCRIBE has its answer, whatever that is: the dialog is over."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        pair = self._pairs.get(_key(operation.watcher, operation.target))
        if pair is None:
            future.set_result(success(operation.trans_id))
            return future
        pair.waiting.append(future)
        self._end(pair)
        return future

    def answer(self, account: Address, watcher: Address, is_granted: bool, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.answer``: its watchers hear it in their dialogs (``notifier.py``)."""
        return _done(success(""))

    def direct(self, operation: NotifyOperation, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.direct``: SIP has no notification outside a subscription (RFC 6665 section 4.2.2)."""
        text = "Presence by SIP is told to those only who subscribed."
        return _done(failure(operation.trans_id, Reason.CONTENT, text))

    # --- pairs -----------------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many pairs are wanted."""
        return len(self._pairs)

    def _need(self, account: Address, target: Address, hop: Contact) -> Pair | None:
        """The pair, made if need be; None if one of the two has no name at that server (G-13)."""
        key = _key(account, target)
        pair = self._pairs.get(key)
        if pair is None:
            names = self._binding.service.maps.towards("sip", hop.resource)
            account, presentity = account.with_scheme("im"), target.with_scheme("im")
            watcher, wire = names.to_wire(account), names.to_wire(presentity)
            if watcher is None or wire is None:
                return None
            scheme = "pres" if hop.resource in self._pres_uris else "sip"
            wish = wish_of(watcher, wire, self._binding.ways.contact(hop, watcher), scheme=scheme)
            pair = self._pairs[key] = Pair(account, presentity, wire, hop, self._machine(wish))
        pair.hop = hop
        return pair

    def _machine(self, wish: Wish) -> Subscriber:
        return Subscriber(wish, random=self._binding.random, t1=self._binding.config.t1, spread=SPREAD)

    def _ask_by_sip(self, pair: Pair) -> None:
        """Its server knows no ``pres:`` URIs (ADDR-30): the same once more by ``sip:`` ones."""
        uris = [uri.replace("pres:", "sip:", 1) for uri in (pair.machine.wish.target, pair.machine.wish.watcher)]
        wish = replace(pair.machine.wish, target=uris[0], watcher=uris[1])
        pair.machine = self._machine(wish)
        self._want(pair)

    def _look(self, pair: Pair) -> asyncio.Future[Response]:
        """Subscribe, or ask how things are in a dialog that stands; the end of the errand is the answer to that."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        pair.waiting.append(future)
        machine = pair.machine
        is_coming = pair.is_telling or (machine.state is State.NOTIFY_WAIT and not machine.is_busy)
        is_fresh = pair.is_granted and machine.state is State.ACTIVE and self._now() - pair.told_at < FRESH
        if is_coming or is_fresh:
            pair.settle(success(""))
            if is_fresh:
                self._telling.tell(pair)
            return future
        if machine.state is State.TERMINATED and machine.end is not None:
            if machine.end.cause not in _SILENT:  # its server answered, and is asked again in its time
                pair.settle(success(""))
                return future
            machine.hurry(self._now())
        pair.is_due = True
        self._want(pair)
        return future

    def _let_go_later(self, pair: Pair) -> None:
        if not pair.is_asked:
            self._binding.service.clock.call_later(IDLE, partial(self._let_go, pair))

    def _let_go(self, pair: Pair) -> None:
        """End it if still nobody wants it."""
        if not pair.is_wanted and not pair.is_ending:
            self._end(pair)

    def _end(self, pair: Pair) -> None:
        """Unsubscribe; what still comes is for nobody."""
        key = _key(pair.account, pair.presentity)
        if self._pairs.get(key) is pair:
            del self._pairs[key]
        pair.is_ending = True
        pair.is_asked = pair.is_watched = False
        pair.machine.unsubscribe(self._now())
        self._go_on(pair)

    def _drop(self, pair: Pair) -> None:
        """Nothing of it is left; machine and lane are told nothing more of it."""
        key = _key(pair.account, pair.presentity)
        if self._pairs.get(key) is pair:
            del self._pairs[key]
        if self._dialogs.get(pair.dialog) is pair:
            del self._dialogs[pair.dialog]
        if pair.timer is not None:
            pair.timer.cancel()
            pair.timer = None
        lane = self._lanes.get(pair.presentity.domain)
        if lane is not None:
            lane.forget(pair)
        pair.is_gone = True
        pair.settle(success(""))

    def _now(self) -> float:
        return self._binding.service.clock.now()

    # --- asking, at the pace of each server ------------------------------------------------------------------

    def _lane(self, pair: Pair) -> Lane[Pair]:
        return self._lanes.setdefault(pair.presentity.domain, Lane())

    def _want(self, pair: Pair) -> None:
        """It has something to ask, or a timer of its own fired."""
        self._lane(pair).want(pair)
        self._pump(pair.presentity.domain)

    def _pump(self, domain: str) -> None:
        """Ask about as many as the server may be asked about now."""
        lane, now = self._lanes.get(domain), self._now()
        if lane is None:
            return
        while (pair := lane.take(now)) is not None:
            self._act(pair)
        when = lane.next_timer()
        if when is not None and domain not in self._timers:
            delay = max(0.0, when - now)
            self._timers[domain] = self._binding.service.clock.call_later(delay, partial(self._again, domain))
        if lane.is_idle and (not lane.is_down or len(self._lanes) > MOST_LANES):
            self._lanes.pop(domain, None)

    def _again(self, domain: str) -> None:
        self._timers.pop(domain, None)
        self._pump(domain)

    def _act(self, pair: Pair) -> None:
        """Its turn: begin, ask how things are, or do what its time came for."""
        now, machine = self._now(), pair.machine
        is_due, pair.is_due = pair.is_due, False
        if not pair.is_watched and not pair.is_ending and pair.unattended >= MOST_UNATTENDED:
            self._end(pair)
            return
        if machine.state is State.INIT:
            machine.subscribe(now)
        elif is_due and machine.state in (State.PENDING, State.ACTIVE):
            machine.refresh(now)
        else:
            machine.handle_timer(now)
        self._go_on(pair)

    def _go_on(self, pair: Pair) -> None:
        """Take what the machine decided, and wait for its next timer."""
        while (event := pair.machine.next_event()) is not None:
            match event:
                case Send():
                    self._send(pair, event)
                case Notified():
                    self._telling.notified(pair)
                case Pended():
                    self._telling.unknown(pair)
                case RefreshFailed(status_code=code):
                    if code in CANCELLING_CODES:
                        self._cancelled(pair)
                case Ended(end=end, retry_at=retry_at):
                    self._ended(pair, end, retry_at)
        if pair.is_ending and pair.machine.is_done:
            self._drop(pair)
        if pair.timer is not None:
            pair.timer.cancel()
        when = None if pair.is_gone else pair.machine.next_timer()
        delay = 0.0 if when is None else max(0.0, when - self._now())
        clock = self._binding.service.clock
        pair.timer = None if when is None else clock.call_later(delay, partial(self._fired, pair))

    def _fired(self, pair: Pair) -> None:
        pair.timer = None
        self._want(pair)

    # --- SUBSCRIBE -------------------------------------------------------------------------------------------

    def _send(self, pair: Pair, send: Send) -> None:
        request = send.request
        if self._dialogs.get(pair.dialog) is pair:
            del self._dialogs[pair.dialog]
        pair.dialog = request.call_id, request.from_.tag
        self._dialogs[pair.dialog] = pair
        pair.unattended = 0 if pair.is_watched else pair.unattended + 1
        self._lane(pair).sent()
        found = literal_targets(pair.hop.data.decode(), pair.wire.domain)
        if found is not None:
            self._ask(pair, send, found)
        else:
            self._binding.run(self._look_up(pair, send))

    async def _look_up(self, pair: Pair, send: Send) -> None:
        try:
            found = await self._binding.exchanges.targets(pair.hop.resource, pair.hop.data.decode())
        except DeliveryError as error:
            log.info("the server of %s cannot be found: %s", pair.presentity.domain, error)
            found = ()
        except Exception:  # whatever it was, the pair must not wait for ever
            log.exception("the server of %s cannot be found", pair.presentity.domain)
            found = ()
        self._ask(pair, send, found)

    def _ask(self, pair: Pair, send: Send, targets: Sequence[Target]) -> None:
        """Send it; a NOTIFY of any of these may come before the answer."""
        pair.targets = targets
        hop, ended = pair.hop, partial(self._settled, pair, send.id)
        self._binding.exchanges.send(hop.resource, hop.data.decode(), send.request, ended)

    def _settled(self, pair: Pair, id: int, ended: Asked) -> None:
        """A SUBSCRIBE has its end."""
        pair.machine.raise_cseq(ended.cseq)
        if ended.response is None:
            self._failed(pair, id, is_timeout=not ended.is_unsent)
        else:
            self._answered(pair, id, ended.response)

    def _answered(self, pair: Pair, id: int, response: SipResponse) -> None:
        domain = pair.presentity.domain
        is_back = self._lane(pair).answered()
        pair.machine.take_answer(id, response, self._now())
        if not pair.machine.is_busy:  # else it asked again, as a 423 wants it
            # What may get better is tried again here: the server took the errand, and the others' are not held up by it.
            is_refused = response.status_code in HOPELESS_CODES and not pair.is_ending
            if response.status_code == 416 and pair.machine.wish.target.startswith("pres:"):
                is_refused = False
            pair.settle(_refusal(response) if is_refused else success(""))
        self._go_on(pair)
        if is_back:
            self._hurry(domain)
        self._pump(domain)

    def _failed(self, pair: Pair, id: int, *, is_timeout: bool) -> None:
        now = self._now()
        self._lane(pair).failed(now)
        pair.machine.failed(id, now, is_timeout=is_timeout)
        unreached = failure("", Reason.TIMEOUT, "The other server cannot be reached.")
        pair.settle(success("") if pair.is_ending else unreached)
        self._go_on(pair)
        self._pump(pair.presentity.domain)

    def back(self, domain: str) -> None:
        """The server of a domain answers again (``keeping.py``): what waits for it waits no longer."""
        lane = self._lanes.get(domain)
        if lane is not None:
            lane.back()
        self._hurry(domain)
        self._telling.doubted(domain)
        self._pump(domain)

    def _hurry(self, domain: str) -> None:
        """The server is there again: those whom its silence ended do not wait any longer."""
        now, lane = self._now(), self._lanes.setdefault(domain, Lane())
        for pair in self._pairs.values():
            end = pair.machine.end
            if pair.presentity.domain == domain and end is not None and end.cause in _SILENT:
                pair.machine.hurry(now)
                lane.want(pair)

    # --- NOTIFY ----------------------------------------------------------------------------------------------

    def take_notify(self, received: Request) -> None:
        """Take a NOTIFY; it is answered here. Raises RemoteProtocolError for what cannot be read."""
        request = received.request
        pair = self._dialogs.get((request.call_id, request.to.tag))
        if pair is None or not self._may_tell(pair, received):
            self._binding.respond(received, 481, forget=True)
            return
        self._binding.trunk.believe(received)
        now = self._now()
        wait = self._rates.take(request.call_id, len(request.body), now)
        if wait > 0.0:
            self._binding.respond(received, 503, headers=[("Retry-After", str(ceil(wait)))])
            return
        # What is not active tells nothing of the presentity, whatever it holds (GW-14).
        is_silent = (request.value("subscription-state") or "").strip().lower().startswith(("pending", "terminated"))
        statement = read_notify(request, pair.presentity, pair.wire, is_silent=is_silent)
        if isinstance(statement, Refusal):
            self._binding.refuse(received, statement)
            return
        pair.statement = statement
        status_code, headers = pair.machine.take_notify(request, now)
        self._binding.respond(received, status_code, headers=headers)
        self._binding.connections.rest(received.state.link)
        self._go_on(pair)

    def _may_tell(self, pair: Pair, received: Request) -> bool:
        """It comes from who speaks for the presentity's domain, or from where the SUBSCRIBE went (T1)."""
        domains = self._binding.trunk.domains(received)
        standing = self._binding.connections.standing
        if not domains.isdisjoint((pair.presentity.domain, "*")):
            return True
        if any(standing(target) is received.state for target in pair.targets):
            return True
        # An address is all that a server without TLS is known by.
        hosts = {target.host for target in pair.targets if target.transport != "tls"}
        return received.state.transport != "tls" and received.source[0] in hosts

    # --- ends ------------------------------------------------------------------------------------------------

    def _ended(self, pair: Pair, end: End, retry_at: float | None) -> None:
        if pair.is_ending:
            self._drop(pair)
        elif end.status_code == 416 and pair.machine.wish.target.startswith("pres:"):
            self._ask_by_sip(pair)
        elif end.is_cancelled:
            self._cancelled(pair)
        elif retry_at is None:
            self._telling.unknown(pair)
            self._drop(pair)
        elif end.cause in _SILENT or retry_at > self._now() + 1.0:
            self._telling.unknown(pair)
        else:
            pair.is_granted = False  # it begins anew at once: what was told holds until that fails

    def _cancelled(self, pair: Pair) -> None:
        """The presentity does not want to be seen by the account (GW-13)."""
        self._telling.unknown(pair)
        pair.is_ending = True
        self._drop(pair)
        self._telling.refused(pair)


def _key(account: Address, presentity: Address) -> tuple[str, str]:
    return account.with_scheme("im").key, presentity.with_scheme("im").key


def _refusal(response: SipResponse) -> Response:
    code, phrase = response.status_code, clean_text(response.reason)[:80]
    return failure("", reason_of(code, phrase), f"The other server answered {code} {phrase}.")


def _done(response: Response) -> asyncio.Future[Response]:
    future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    future.set_result(response)
    return future

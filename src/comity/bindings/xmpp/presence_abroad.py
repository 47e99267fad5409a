"""Presence with other XMPP servers: what our accounts want and decide, out; what people there want, decide and are, in.

Place on the path: steps 4 and 5 upwards, 8 downwards, as ``asking.py``, ``watching.py`` and ``directed.py`` for our own clients; under
``neighbours.py``, which proves the domain of every stanza that comes in. The presence service keeps the states of RFC 6121
appendix A and decides; here is only what that means in stanzas between servers (sections 3 and 4).

A stanza counts as handled when what it says is durable, and those of two people are taken one after the other. Whoever watches
from another domain by XMPP has one durable subscription here, made when its request is granted and ended with the grant.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Final

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.asking import MOST_TEXT, request_children, request_octets
from comity.bindings.xmpp.extensions import PROTOCOL, shown
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.mapping import Refusal, response_to_error
from comity.bindings.xmpp.notices import notify_to_stanzas
from comity.bindings.xmpp.presence import (
    STATUS,
    check_presence,
    parting_words,
    stanza_to_notify,
    stanza_to_statement,
)
from comity.bindings.xmpp.presence_outward import EDGE, Outward
from comity.bindings.xmpp.subscriptions import FOREVER, stanza_to_subscription, subscription_to_stanza
from comity.bindings.xmpp.watching import REFUSAL_TIME, subscript_id
from comity.bindings.xmpp.wire import PRESENCE, Element
from comity.cpim.address import Address, from_jid, to_jid
from comity.cpim.operations import (
    NotifyOperation,
    Reason,
    Response,
    Status,
    SubscribeOperation,
    failure,
    success,
)
from comity.errors import AddressError, LocalProtocolError, StoreError
from comity.service.interfaces import Contact, Origin
from comity.service.presence.interfaces import Ask, Decision, PresenceService, Subscription, Terms

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

log = logging.getLogger(__name__)

#: Presence types by which a stanza says how somebody is.
_TELLING: Final = frozenset({"", "unavailable"})
_GRANTS: Final = (Decision.ALLOWED, Decision.POLITE)


class PresenceAbroad:
    """Implements ``Abroad``, and takes presence of other servers."""

    def __init__(self, ground: Ground, neighbours: Neighbours) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self._outward = Outward(ground, neighbours)
        self._lanes: dict[tuple[str, str], deque[tuple[Element, Origin, Callable[[], None]]]] = {}
        """Stanzas of two people that wait for the one before them."""
        self._takers: dict[str, Callable[[Element, Origin], Coroutine[None, None, None]]] = {
            "": self._told,
            "unavailable": self._told,
            "subscribe": self._asked,
            "unsubscribe": self._withdrawn,
            "subscribed": self._answered,
            "unsubscribed": self._answered,
            "probe": self._probed,
            "error": self._refused,
        }

    def start(self, presence: PresenceService) -> None:
        """Take part from now on."""
        presence.attach(EDGE, self._outward)
        presence.attach_abroad(PROTOCOL, self)
        self._neighbours.on_presence = self.received

    @property
    def _presence(self) -> PresenceService:
        presence = self._ground.presence
        assert presence is not None
        return presence

    # --- out -------------------------------------------------------------------------------------------------------

    def ask(self, operation: SubscribeOperation, ask: Ask, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.ask``: what the user's own client said with it goes along, and the proof."""
        stanza = subscription_to_stanza(operation)
        if ask.native_protocol == PROTOCOL:
            stanza.children = [*request_children(ask.native), *stanza.children]
        elif ask.text:
            stanza.children = [Element(STATUS, {}, [shown(ask.text)]), *stanza.children]
        return self._send(stanza, operation.watcher, operation.target, hop)

    def withdraw(self, operation: SubscribeOperation, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.withdraw``."""
        return self._send(subscription_to_stanza(operation), operation.watcher, operation.target, hop)

    def answer(self, account: Address, watcher: Address, is_granted: bool, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.answer``: with the yes begins what the watcher is told (RFC 6121 section 3.1.5)."""
        kind = "subscribed" if is_granted else "unsubscribed"
        sent = self._send(Element(PRESENCE, {"type": kind}), account, watcher, hop)
        return asyncio.ensure_future(self._granted(sent, account, watcher)) if is_granted else sent

    async def _granted(self, sent: asyncio.Future[Response], account: Address, watcher: Address) -> Response:
        response = await sent
        if response.status is not Status.SUCCESS:
            return response
        by = Origin(watcher, PROTOCOL, "", True, domains=frozenset({watcher.domain}))
        begun = await self._begin(account, watcher, by)
        return begun if isinstance(begun, Response) and begun.is_temporary else response

    def watch(self, account: Address, target: Address, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.watch``: a probe (RFC 6121 section 4.3.1)."""
        return self._send(Element(PRESENCE, {"type": "probe"}), account, target, hop)

    def unwatch(self, account: Address, target: Address, hop: Contact) -> None:
        """See ``Abroad.unwatch``: a server goes on telling, whoever looks."""

    def direct(self, operation: NotifyOperation, hop: Contact) -> asyncio.Future[Response]:
        """See ``Abroad.direct`` (RFC 6121 section 4.6)."""
        done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        try:
            to = to_jid(operation.watcher)
        except AddressError as error:
            done.set_result(failure(operation.trans_id, Reason.SYNTAX, error.reason))
            return done
        if operation.context.resource:
            to = f"{to}/{operation.context.resource}"
        for notice in notify_to_stanzas(operation, self._ground.service.clock.when()):
            return self._neighbours.send_presence(notice.element(to), hop)
        done.set_result(success(operation.trans_id))
        return done

    def _send(self, stanza: Element, account: Address, other: Address, hop: Contact) -> asyncio.Future[Response]:
        """From bare JID to bare JID: nobody's resource leaks (RFC 6121 section 3.1.2)."""
        try:
            stanza.attributes |= {"from": to_jid(account), "to": to_jid(other)}
        except AddressError as error:
            done: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            done.set_result(failure("", Reason.NO_SUCH_USER, error.reason))
            return done
        return self._neighbours.send_presence(stanza, hop)

    # --- in --------------------------------------------------------------------------------------------------------

    def received(self, stanza: Element, origin: Origin, done: Callable[[], None]) -> None:
        """Take a presence stanza of another server: its domain is proved, ``to`` is ours; ``done`` when it is handled."""
        fault, kind = check_presence(stanza), stanza.get("type")
        sender, to = Jid.parse(stanza.get("from")), Jid.parse(stanza.get("to"))
        if fault is not None or not sender.local or not to.local:
            # N-14: a server has no presence; what cannot be read is told to who sent it, once.
            if fault is not None and kind != "error":
                self._reply(wire.error_reply(stanza, fault.condition, fault.text))
            done()
            return
        pair = str(sender.bare), str(to.bare)
        lane = self._lanes.get(pair)
        if lane is not None:
            lane.append((stanza, origin, done))
            return
        self._lanes[pair] = deque([(stanza, origin, done)])
        self._ground.run(self._work(pair))

    async def _work(self, pair: tuple[str, str]) -> None:
        lane = self._lanes[pair]
        while lane:
            stanza, origin, done = lane.popleft()
            try:
                await self._takers[stanza.get("type")](stanza, origin)
            except StoreError as error:
                log.error("presence of another server could not be stored: %s", error)
                self._not_now(stanza)
            except Exception:  # whatever one stanza raises, the next ones are taken (F-POISON)
                log.exception("presence of another server could not be taken")
                self._not_now(stanza)
            done()
        del self._lanes[pair]

    def _not_now(self, stanza: Element) -> None:
        if stanza.get("type") not in ("error", "probe"):
            self._reply(wire.error_reply(stanza, "internal-server-error", "This cannot be done now.", kind="wait"))

    def _reply(self, stanza: Element | None) -> None:
        if stanza is not None:
            self._neighbours.send(stanza)

    # --- they ask ---------------------------------------------------------------------------------------------------

    async def _asked(self, stanza: Element, origin: Origin) -> None:
        made = stanza_to_subscription(stanza, trans_id=self._ground.random(12).hex())
        if isinstance(made, Refusal):
            self._reply(wire.error_reply(stanza, made.condition, made.text))
            return
        status = stanza.find(STATUS)
        text = status.text[:MOST_TEXT] if status is not None else ""
        native = request_octets(stanza)
        terms = Terms(EDGE, most=FOREVER, text=text, native_protocol=PROTOCOL if native else "", native=native)
        self._refusal(stanza, await self._presence.ask(made, origin, terms))

    async def _withdrawn(self, stanza: Element, origin: Origin) -> None:
        made = stanza_to_subscription(stanza, trans_id=self._ground.random(12).hex())
        if isinstance(made, Refusal):
            self._reply(wire.error_reply(stanza, made.condition, made.text))
            return
        refused = await self._presence.withdraw(made, origin)
        if refused is None:
            # Section 3.3.3: with the withdrawal ends what the watcher is told.
            live = self._presence.find(EDGE, subscript_id(*_pair(made.watcher, made.target)))
            if live is not None:
                self._outward.hide(live)
                self._presence.lost(live)
        self._refusal(stanza, refused)

    async def _probed(self, stanza: Element, origin: Origin) -> None:
        """Answer a probe (section 4.3.2): nobody learns more by it than who was granted it, nor who exists (N-01, N-12)."""
        watcher, account = _bare(stanza.get("from")), _bare(stanza.get("to"))
        if watcher is None or account is None:
            return
        at = self._ground.service.clock.now()
        live = self._presence.find(EDGE, subscript_id(watcher, account))
        if live is None and await self._presence.is_allowed(account, watcher):
            item = await self._presence.contacts.item(account, watcher)
            is_kept = item.decision in _GRANTS or item.is_preapproved
            begun = await self._begin(account, watcher, origin, FOREVER if is_kept else 0)
            if isinstance(begun, Subscription):
                return
        elif live is not None and await self._presence.is_allowed(account, watcher):
            self._again(live, stanza.get("id"))
            return
        refusal = Element(PRESENCE, {"type": "unsubscribed", "from": to_jid(account), "to": to_jid(watcher)})
        if stanza.get("id"):
            refusal.attributes["id"] = stanza.get("id")  # section 4.3.2.1
        clock = self._ground.service.clock
        clock.call_later(max(0.0, at + REFUSAL_TIME - clock.now()), partial(self._reply, refusal))

    async def _begin(
        self, account: Address, watcher: Address, origin: Origin, duration: int = FOREVER
    ) -> Subscription | Response:
        """Have the watcher told from now on, or once."""
        presence, id = self._presence, subscript_id(watcher, account)
        if duration and (live := presence.find(EDGE, id)) is not None:
            self._again(live)
            return live
        pair = watcher.with_scheme("pres"), account.with_scheme("pres")
        operation = SubscribeOperation(*pair, id, self._ground.random(12).hex(), duration)
        terms = Terms(EDGE, most=FOREVER, is_durable=True, is_standing=True)
        answer = await presence.subscribe(operation, origin, terms)
        if isinstance(answer, Response):
            log.info("%s is not told of %s: %s", watcher, account, answer.text, extra={"is_peers": True})
            return answer
        presence.begin(answer.subscription)
        return answer.subscription

    def _again(self, live: Subscription, id: str = "") -> None:
        if live.told is None:  # nobody was told since the start
            self._presence.begin(live)
        else:
            self._outward.tell_all(live, id)

    # --- they answer ------------------------------------------------------------------------------------------------

    async def _answered(self, stanza: Element, origin: Origin) -> None:
        presentity, account = _bare(stanza.get("from")), _bare(stanza.get("to"))
        if presentity is not None and account is not None:
            is_granted = stanza.get("type") == "subscribed"
            await self._presence.answered(account, presentity, is_granted, origin)  # ignored if it was not asked (N-07)

    async def _refused(self, stanza: Element, origin: Origin) -> None:
        """An error about something we said. For good: nobody is there to be seen. Never answered."""
        presentity, account = _bare(stanza.get("from")), _bare(stanza.get("to"))
        error = stanza.find(wire.ERROR)
        if presentity is None or account is None or error is None or error.get("type") not in ("cancel", "auth"):
            return
        item = await self._presence.contacts.item(account, presentity)
        if item.asks:
            await self._presence.answered(account, presentity, False, origin)
        elif item.sees:
            self._presence.heard(account, presentity, None, origin)

    # --- they tell --------------------------------------------------------------------------------------------------

    async def _told(self, stanza: Element, origin: Origin) -> None:
        """How somebody is: for everybody who may see it (section 4.4), or for this one alone (section 4.6)."""
        presentity, account = _bare(stanza.get("from")), _bare(stanza.get("to"))
        if presentity is None or account is None:
            return
        sees = not Jid.parse(stanza.get("to")).resource and await self._sees(account, presentity)
        if not sees:
            await self._direct(stanza, origin)
            return
        resource = Jid.parse(stanza.get("from")).resource
        if stanza.get("type") == "unavailable":
            try:
                words = parting_words(stanza, resource)
            except LocalProtocolError:  # a name that XML allows and our writer does not
                words = {}
            self._presence.heard(account, presentity, None, origin, key=resource, natives=words)
            return
        made = stanza_to_statement(stanza, resource, self._ground.service.clock.when())
        if isinstance(made, Refusal):
            self._reply(wire.error_reply(stanza, made.condition, made.text))
            return
        refused = self._presence.heard(account, presentity, made, origin, key=resource)
        if refused is not None:
            log.info("what %s says is not shown: %s", presentity, refused.text, extra={"is_peers": True})

    async def _sees(self, account: Address, presentity: Address) -> bool:
        return (await self._presence.contacts.item(account, presentity)).sees

    async def _direct(self, stanza: Element, origin: Origin) -> None:
        made = stanza_to_notify(stanza, self._ground.service.clock.when(), trans_id=self._ground.random(12).hex())
        if isinstance(made, Refusal):
            self._reply(wire.error_reply(stanza, made.condition, made.text))
            return
        await self._presence.direct(made, origin)

    def _refusal(self, stanza: Element, refused: Response | None) -> None:
        if refused is not None:
            self._reply(response_to_error(stanza, refused, is_local=True))


def _bare(jid: str) -> Address | None:
    """Whom a JID names; None for whom nobody can be."""
    try:
        return from_jid(jid)[0].folded()
    except AddressError:
        return None


def _pair(watcher: Address, target: Address) -> tuple[Address, Address]:
    return watcher.with_scheme("im").folded(), target.with_scheme("im").folded()

"""Queries between domains: other servers and their users ask us and ours, ours ask them (RFC 6120 section 10, RFC 6121 section 8.5).

Place on the path: beside it; queries carry no messages. Who may ask whom is as among our own clients: an answer tells nobody what
presence would not (section 8.5.3.1), and an account that is not there looks like one that is not for the asker (XMPP-8).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from comity.bindings.xmpp import queries, wire
from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.extensions import PROTECTION, PROTOCOL
from comity.bindings.xmpp.ground import Ground
from comity.bindings.xmpp.jid import Jid
from comity.bindings.xmpp.ways import Way, a_domain
from comity.bindings.xmpp.wire import IQ, Element
from comity.cpim.address import Address, from_jid
from comity.cpim.operations import Reason
from comity.errors import AddressError
from comity.service.interfaces import Contact, Origin

if TYPE_CHECKING:
    from comity.bindings.xmpp.neighbours import Neighbours

#: Questions of the server itself that wait for their answer.
MOST_ASKED: Final = 8192
ANSWER_SECONDS: Final = 10.0
"""How long another server may take to say what it can do."""
KNOWN_SECONDS: Final = 3600.0
"""How long that is believed."""
_KNOWN: Final = frozenset({E2E, OCTETS, PROTECTION})
_TYPES: Final = frozenset({"get", "set", "result", "error"})

Answered = Callable[[Element], None]
"""Takes the result or the error that answers a question."""


@dataclass(frozen=True, slots=True)
class _Question:
    """A question on its way (``Flight``): one that does not arrive has no answer."""

    answer: asyncio.Future[frozenset[str] | None]

    def taken(self) -> None:
        """The other server has it."""

    def lost(self, reason: Reason, text: str, *, is_unsent: bool = False) -> None:
        """It cannot be asked now."""
        _settle(self.answer, None)


def _settle(answer: asyncio.Future[frozenset[str] | None], found: frozenset[str] | None) -> None:
    if not answer.done():
        answer.set_result(found)


def _features_of(stanza: Element) -> frozenset[str]:
    query = stanza.find(f"{{{queries.DISCO_INFO}}}query")
    return frozenset() if query is None else queries.features_of(query) & _KNOWN


class Answering(Protocol):
    """A part that answers iqs to an account."""

    def takes(self, stanza: Element) -> bool: ...

    async def answer(self, stanza: Element, asker: Address, origin: Origin) -> Element | None: ...


class Inquiries:
    """Queries that cross between domains.

    Args:
        ground: what the parts of the binding stand on.
        neighbours: sends what goes to other domains.
    """

    def __init__(self, ground: Ground, neighbours: Neighbours) -> None:
        self._ground = ground
        self._neighbours = neighbours
        self.parts: Sequence[Answering] = ()
        """What accounts keep here for others to ask about."""
        self._features: dict[str, frozenset[str]] = {}
        """What other servers said they can do, by domain."""
        self._asked: OrderedDict[tuple[str, str], Answered] = OrderedDict()
        """By domain asked (A-labels) and id."""

    # --- the server's own questions ------------------------------------------------------------------------------------

    def expect(self, domain: str, id: str, answered: Answered) -> None:
        """Call ``answered`` with the answer that comes from ``domain`` (A-labels) to our question ``id``."""
        self._asked[domain, id] = answered
        if len(self._asked) > MOST_ASKED:
            self._asked.popitem(last=False)

    def forget(self, domain: str, id: str) -> None:
        """Nobody waits for that answer any more."""
        self._asked.pop((domain, id), None)

    async def features(self, theirs: str, hop: Contact | None) -> frozenset[str] | None:
        """What the server of a domain says it can do; None: it cannot be asked now. Without an answer it can do nothing."""
        if theirs in self._features:
            return self._features[theirs]
        id, clock = self._ground.random(12).hex(), self._ground.service.clock
        answer: asyncio.Future[frozenset[str] | None] = asyncio.get_running_loop().create_future()
        self.expect(theirs, id, lambda stanza: _settle(answer, _features_of(stanza)))
        timer = clock.call_later(ANSWER_SECONDS, lambda: _settle(answer, frozenset()))
        question = queries.ask_features(self._ground.domains[0], Address("im", "", theirs).domain_u, id, "")
        if not self._neighbours.send(question, _Question(answer), hop):
            _settle(answer, None)
        found = await answer
        timer.cancel()
        self.forget(theirs, id)
        if found:
            self._features[theirs] = found
            clock.call_later(KNOWN_SECONDS, partial(self._unlearn, theirs))
        return found

    def _unlearn(self, domain: str) -> None:
        self._features.pop(domain, None)

    # --- from other servers --------------------------------------------------------------------------------------------

    def received(self, way: Way, stanza: Element, done: Callable[[], None]) -> None:
        """Take an iq of another server, whose addresses are checked; ``done`` when it is handled."""
        children = list(stanza.elements())
        kind = stanza.get("type")
        if kind not in _TYPES or not stanza.get("id") or (kind in ("get", "set") and len(children) != 1):
            self._answer(wire.error_reply(stanza, "bad-request", "an iq has an id, a known type and one child"))
        elif kind in ("result", "error") and self._is_answer(stanza):
            pass
        else:
            self._ground.run(self._pass(stanza, way, done))
            return
        done()

    def _is_answer(self, stanza: Element) -> bool:
        answered = self._asked.pop((a_domain(stanza.get("from")), stanza.get("id")), None)
        if answered is None:
            return False
        answered(stanza)
        return True

    async def _pass(self, stanza: Element, way: Way, done: Callable[[], None]) -> None:
        try:
            to = Jid.parse(stanza.get("to"))
            is_question = stanza.get("type") in ("get", "set")
            if to.resource and to.local:
                await self._carry(stanza, to, is_question=is_question)
            elif is_question and not to.local:
                self._answer(self._of_server(stanza))
            elif is_question:
                self._answer(await self._of_account(stanza, way))
        finally:
            done()

    async def _of_account(self, stanza: Element, way: Way) -> Element | None:
        """What an account keeps for others to see, if this one may see it."""
        presence, refusal = self._ground.presence, wire.error_reply(stanza, "service-unavailable")
        if presence is None or not Jid.parse(stanza.get("from")).local:
            return refusal
        try:
            asker, account = from_jid(stanza.get("from"))[0], from_jid(stanza.get("to"))[0].folded()
        except AddressError as error:
            return wire.error_reply(stanza, "jid-malformed", error.reason)
        if presence.contacts.is_blocked(account, asker):
            return refusal  # as if nobody were there (XEP-0191 section 3.3)
        origin = Origin(asker, PROTOCOL, way.host, way.session.is_tls, domains=frozenset(way.proved))
        for part in self.parts:
            if part.takes(stanza):
                return await part.answer(stanza, asker, origin)
        return refusal

    def _of_server(self, stanza: Element) -> Element | None:
        service = self._ground.service
        return queries.answer_iq(
            stanza,
            is_account=False,
            when=service.clock.when(),
            version=self._ground.config.software_version,
            has_presence=service.presence is not None,
            items=self._ground.components,
        )

    async def _carry(self, stanza: Element, to: Jid, *, is_question: bool) -> None:
        """Hand an iq to the device it is for; the error if that is not there, or not there for who asks."""
        if not is_question or await self._may_ask(stanza, to):
            target = self._ground.devices.find(to)
            # An answer goes to whoever asked, available or not; a question only to who is there for others.
            is_there = target is not None and (not is_question or target.presence is not None)
            if target is not None and is_there and target.is_live:
                self._ground.reply(target, stanza)
                target.link.flush()
                return
        self._answer(wire.error_reply(stanza, "service-unavailable"))

    async def _may_ask(self, stanza: Element, to: Jid) -> bool:
        presence = self._ground.presence
        if presence is None:
            return False
        asker = Jid.parse(stanza.get("from"))
        target = self._ground.devices.find(to)
        is_shown = target is not None and not {asker, asker.bare}.isdisjoint(target.directed)
        if not asker.local:
            return is_shown  # a server sees nobody's presence
        try:
            return await presence.may_see(from_jid(str(to))[0].folded(), from_jid(str(asker))[0]) or is_shown
        except AddressError:
            return False

    def _answer(self, stanza: Element | None) -> None:
        if stanza is not None:
            assert stanza.name == IQ
            self._neighbours.send(stanza)

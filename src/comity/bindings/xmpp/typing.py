"""Typing between protocols: XEP-0085 has states without an end, RFC 3994 has statuses that run out. The timers of both.

Place on the path: beside steps 4 and 8. An XMPP program says once that its user types: for a SIP phone that is said again before
the phone gives up (``LEAST_REFRESH``), as long as the program neither says otherwise nor leaves. A phone that vanishes leaves an
XMPP program showing a typing user for ever: after the phone's own time its program is told that it is not so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from comity.bindings.xmpp.extensions import CHAT_STATES, PROTOCOL
from comity.bindings.xmpp.wire import Element
from comity.cpim.composing import LEAST_REFRESH, Composing, composing_in
from comity.cpim.operations import MessageOperation
from comity.service.interfaces import Origin, Service, Timer

MOST_TALKS: Final = 20_000
"""Pairs of people kept in mind who have written to each other; a pair forgotten hears of no typing until it writes again."""
MOST_PEERS: Final = 64
"""People to whom one device types at once, or whom it is shown typing."""
MOST_TIMES: Final = 10
"""Times a status is said again: nobody types for a quarter of an hour."""

_AS_IT_IS: Final = (PROTOCOL, "dns")
"""Servers that get chat states as they are, or whose protocol is not known yet."""

COMPOSING, ACTIVE = f"{{{CHAT_STATES}}}composing", f"{{{CHAT_STATES}}}active"
#: IMDN-15; gone has no word there: the conversation of page mode has no end.
_IS_ACTIVE: Final = {"composing": True, "active": False, "inactive": False, "paused": False}


def status_of(children: list[Element]) -> Composing | None:
    """The status of RFC 3994 that chat states mean; None if they are none, or mean nothing there."""
    states = [child.local for child in children if child.namespace == CHAT_STATES]
    is_active = _IS_ACTIVE.get(states[0]) if len(states) == 1 else None
    return None if is_active is None else Composing(is_active)


def state_of(status: Composing) -> Element:
    """The chat state that a status means."""
    return Element(COMPOSING if status.is_active else ACTIVE)


@dataclass(slots=True)
class _Running:
    timer: Timer
    times: int = 1


class Typing:
    """Who types to whom, as far as somebody has to be told again or told otherwise."""

    def __init__(self, service: Callable[[], Service]) -> None:
        self._service = service
        self._talks: OrderedDict[tuple[str, ...], None] = OrderedDict()
        self._said: dict[str, dict[str, _Running]] = {}
        """By sender's device and recipient: a status of an XMPP program that is said again."""
        self._shown: dict[str, dict[str, Timer]] = {}
        """By device shown it and sender: a status from elsewhere, and its end."""

    def taken(self, operation: MessageOperation, origin: Origin, id: str) -> None:
        """The service took a message: these two talk, and its sender types no more."""
        if operation.context.transient or operation.context.report is not None:
            return
        pair = _pair(operation)
        self._talks[pair] = None
        self._talks.move_to_end(pair)
        if len(self._talks) > MOST_TALKS:
            self._talks.popitem(last=False)

    def is_welcome(self, operation: MessageOperation) -> bool:
        """False for a status that would reach other protocols alone, between people who have not written yet (RFC 3994 section 4)."""
        if composing_in(operation.object) is None:
            return True
        return self._is_here(operation) or _pair(operation) in self._talks

    def _is_here(self, operation: MessageOperation) -> bool:
        return self._hop(operation) in _AS_IT_IS or any(
            contact.binding == PROTOCOL for contact in self._service().reached(operation)
        )

    def _is_beyond(self, operation: MessageOperation) -> bool:
        if any(contact.binding != PROTOCOL for contact in self._service().reached(operation)):
            return True
        return self._hop(operation) not in ("", *_AS_IT_IS)

    def _hop(self, operation: MessageOperation) -> str:
        """The protocol spoken with the recipient's server, "" if that is this one."""
        domain, service = operation.destination.domain, self._service()
        hop = None if service.accounts.serves(domain) else service.routes.hop(domain)
        return "" if hop is None else hop.binding

    # --- up: an XMPP program says it once -----------------------------------------------------------------

    def said(self, device: str, operation: MessageOperation, again: Callable[[MessageOperation], None]) -> None:
        """A device sent a message or a status: what it said before holds no more; an active status is said again in time."""
        key, mine = operation.destination.key, self._said.get(device, {})
        if (running := mine.pop(key, None)) is not None:
            running.timer.cancel()
        status = composing_in(operation.object) if operation.context.transient else None
        if status is None or not status.is_active or len(mine) >= MOST_PEERS or not self._is_beyond(operation):
            return
        timer = self._later(LEAST_REFRESH, partial(self._again, device, operation, again))
        self._said.setdefault(device, mine)[key] = _Running(timer)

    def _again(self, device: str, operation: MessageOperation, again: Callable[[MessageOperation], None]) -> None:
        running = self._said[device].pop(operation.destination.key)
        if running.times < MOST_TIMES:
            running.timer = self._later(LEAST_REFRESH, partial(self._again, device, operation, again))
            running.times += 1
            self._said[device][operation.destination.key] = running
            again(operation)

    def left(self, device: str) -> None:
        """A device is gone: what it said runs out by itself, and nothing is to be told to it."""
        for running in self._said.pop(device, {}).values():
            running.timer.cancel()
        for timer in self._shown.pop(device, {}).values():
            timer.cancel()

    # --- down: a status from elsewhere runs out --------------------------------------------------------------

    def shown(self, device: str, operation: MessageOperation, end: Callable[[], None]) -> None:
        """A device is handed a message or a status: ``end`` is called if an active one is neither renewed nor ended in its time."""
        key, mine = operation.source.key, self._shown.get(device, {})
        if (timer := mine.pop(key, None)) is not None:
            timer.cancel()
        if not operation.context.transient or operation.context.native_protocol == PROTOCOL:
            return
        status = composing_in(operation.object)
        if status is not None and status.is_active and len(mine) < MOST_PEERS:
            self._shown.setdefault(device, mine)[key] = self._later(
                status.refresh, partial(self._ran_out, mine, key, end)
            )

    def _ran_out(self, mine: dict[str, Timer], key: str, end: Callable[[], None]) -> None:
        del mine[key]
        end()

    def _later(self, seconds: float, call: Callable[[], None]) -> Timer:
        return self._service().clock.call_later(seconds, call)


def _pair(operation: MessageOperation) -> tuple[str, ...]:
    return tuple(sorted((operation.source.key, operation.destination.key)))

"""The words of a subscriber: its states and their table, what is wanted, what is reported (RFC 6665 section 4.1.2). Pure.

Place on the path: beside step 3, for ``subscriber.py``, which moves by the table, and for who runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.subscriber_rules import End

HOUR: Final = 3600
MOST_DURATION: Final = 24 * HOUR
"""The longest Min-Expires that is obeyed."""


class State(Enum):
    """States of the figure in RFC 6665 section 4.1.2."""

    INIT = "init"
    NOTIFY_WAIT = "notify_wait"
    PENDING = "pending"
    ACTIVE = "active"
    TERMINATED = "terminated"


class Input(Enum):
    """Arrows of the same figure."""

    SUBSCRIBE_SENT = "subscribe sent"
    NOTIFY_PENDING = "notify pending"
    NOTIFY_ACTIVE = "notify active"
    ENDED = "ended"
    """NOTIFY terminated, an answer that ends it, Timer N, or its time is over."""
    RETRY = "retry"


_S, _I = State, Input
TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (_S.INIT, _I.SUBSCRIBE_SENT): _S.NOTIFY_WAIT,
    (_S.NOTIFY_WAIT, _I.NOTIFY_ACTIVE): _S.ACTIVE,
    (_S.NOTIFY_WAIT, _I.NOTIFY_PENDING): _S.PENDING,
    (_S.NOTIFY_WAIT, _I.ENDED): _S.TERMINATED,
    (_S.PENDING, _I.NOTIFY_ACTIVE): _S.ACTIVE,
    (_S.PENDING, _I.ENDED): _S.TERMINATED,
    (_S.ACTIVE, _I.ENDED): _S.TERMINATED,
    (_S.TERMINATED, _I.RETRY): _S.INIT,
    # Not in the figure: a notifier that was granted something may have to ask again (Kamailio does after a change of rules).
    (_S.ACTIVE, _I.NOTIFY_PENDING): _S.PENDING,
}


@dataclass(frozen=True, slots=True)
class Send:
    """A request to send; hand its outcome to ``take_answer`` or ``failed`` under the same id."""

    id: int
    request: SipRequest
    """Without Via and credentials."""


@dataclass(frozen=True, slots=True)
class Pended:
    """The notifier has to ask somebody first; nothing is known of the presentity."""


@dataclass(frozen=True, slots=True)
class Notified:
    """A NOTIFY brought the state of the resource; ``request.body`` is empty if it says nothing (GW-14: as if closed)."""

    request: SipRequest
    is_last: bool = False
    """True if the subscription ended with it: a fetch, an unsubscribe, or the notifier's own end."""


@dataclass(frozen=True, slots=True)
class RefreshFailed:
    """A refresh was refused in a way that leaves the subscription standing until its time is over (SIP-20)."""

    status_code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The subscription is over. A new one is tried at ``retry_at`` by itself; None: never."""

    end: End
    retry_at: float | None


Event = Send | Pended | Notified | RefreshFailed | Ended


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be subscribed to, and by whom."""

    target: str
    """Request-URI of the resource."""
    watcher: str
    """URI for From."""
    contact: str
    """Where NOTIFY requests are to go, with angle brackets."""
    event: str = "presence"
    """Event header: package and, if need be, its id."""
    accept: str = "application/pidf+xml"
    duration: int = HOUR
    """Seconds asked for; 0 is a fetch."""
    headers: tuple[tuple[str, str], ...] = ()
    """Further headers of every SUBSCRIBE (Supported: eventlist)."""
    is_lasting: bool = True
    """True: it is made anew when it ended in a way that allows that; False: one subscription and no other."""

"""What answers and reasons mean to a subscriber and to a publisher: tables and nothing else. Pure.

Place on the path: beside step 3, for ``subscriber.py`` and ``publisher.py``, and for a gateway, which has to tell what ends an
authorization from what ends only a dialog (RFC 8048 section 5.2.2, GW-13). Durations are seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

from comity.bindings.sip.headers import TOKEN, find, malformed, parse_number, parse_params, unquoted
from comity.bindings.sip.message import SipMessage

MAX_SECONDS: Final = 2**32 - 1
#: Answers to a refresh after which the subscription is gone (RFC 6665 section 4.1.2.2); all others leave it as it was.
ENDING_CODES: Final = frozenset({404, 405, 410, 416, *range(480, 486), 489, 501, 604})
#: Answers after which the presentity's authorization itself is over (RFC 8048 section 5.2.2: "permanently cancelled").
CANCELLING_CODES: Final = frozenset({403, 489, 603})
#: Answers to a first SUBSCRIBE or PUBLISH that another one of the same kind would get again.
HOPELESS_CODES: Final = CANCELLING_CODES | {
    *(400, 401, 402, 404, 405, 406, 407, 410, 413, 414, 415, 416, 420, 421, 484, 485, 488, 493, 494),
    *(501, 505, 513, 604, 606),
}
FIRST_PAUSE: Final = 5.0
LAST_PAUSE: Final = 3600.0
LEAD: Final = 64.0
"""Seconds before its end at which what is granted is refreshed: twice 64*T1, so that one try may fail."""


class Again(Enum):
    """When to subscribe anew after a subscription ended."""

    NOW = "now"
    LATER = "later"
    """After ``Retry-After`` if given, else after a pause that grows."""
    NEVER = "never"


class EndCause(Enum):
    """Why a subscription ended: the reasons of RFC 6665 section 4.1.3, then what a subscriber finds out by itself."""

    DEACTIVATED = "deactivated"
    PROBATION = "probation"
    REJECTED = "rejected"
    TIMEOUT = "timeout"
    GIVEUP = "giveup"
    NORESOURCE = "noresource"
    INVARIANT = "invariant"
    UNKNOWN = "unknown"
    """Terminated for no reason, or for one we do not know."""
    REFUSED = "refused"
    """A final answer that is none of success; its code tells more."""
    UNANSWERED = "unanswered"
    """No answer in 64*T1, or no NOTIFY before Timer N fired."""
    UNREACHABLE = "unreachable"
    """The transport failed."""


#: RFC 6665 section 4.1.3; what is no reason of a notifier's stands below the line.
REASONS: Final[dict[EndCause, tuple[Again, bool]]] = {
    # cause: (when to try again, whether Retry-After has a meaning)
    EndCause.DEACTIVATED: (Again.NOW, False),
    EndCause.PROBATION: (Again.LATER, True),
    EndCause.REJECTED: (Again.NEVER, False),
    EndCause.TIMEOUT: (Again.NOW, False),
    EndCause.GIVEUP: (Again.LATER, True),
    EndCause.NORESOURCE: (Again.NEVER, False),
    EndCause.INVARIANT: (Again.NEVER, False),
    EndCause.UNKNOWN: (Again.LATER, True),
    # ---
    EndCause.UNANSWERED: (Again.LATER, False),
    EndCause.UNREACHABLE: (Again.LATER, False),
}


@dataclass(frozen=True, slots=True)
class End:
    """How a subscription ended and what follows."""

    cause: EndCause
    again: Again
    retry_after: int | None = None
    """Least seconds until the next try, as the other side said."""
    status_code: int = 0
    """The answer that ended it; 0 if none did."""
    reason: str = ""
    """The phrase or word the other side gave."""

    @property
    def is_cancelled(self) -> bool:
        """True if the presentity's authorization is over, not only this dialog (GW-13; rejected: RFC 8048 section 5.3.1)."""
        return self.cause is EndCause.REJECTED or self.status_code in CANCELLING_CODES


def end_of_notify(state: SubscriptionStateValue) -> End:
    """What a NOTIFY that says terminated means (RFC 6665 section 4.1.3)."""
    try:
        cause = EndCause(state.reason)
    except ValueError:
        cause = EndCause.UNKNOWN
    if cause not in NOTIFIED_CAUSES:
        cause = EndCause.UNKNOWN
    again, takes_delay = REASONS[cause]
    return End(cause, again, state.retry_after if takes_delay else None, reason=state.reason)


NOTIFIED_CAUSES: Final = frozenset(EndCause) - {EndCause.REFUSED, EndCause.UNANSWERED, EndCause.UNREACHABLE}


def end_of_answer(
    status_code: int, phrase: str = "", retry_after: int | None = None, *, is_refresh: bool
) -> End | None:
    """What a final answer that is no success means; None: the subscription goes on as it was (SIP-20).

    A dialog that is gone (481) is made anew at once. A gateway asks ``CANCELLING_CODES`` too: a 403 to a refresh does not end
    the dialog (RFC 6665), but does end what it is for (RFC 8048).
    """
    if is_refresh and status_code not in ENDING_CODES:
        return None
    if status_code == 481 and is_refresh:
        again = Again.NOW
    elif status_code in HOPELESS_CODES:
        again = Again.NEVER
    else:
        again = Again.LATER
    return End(EndCause.REFUSED, again, retry_after, status_code, phrase)


def pause(tries: int, retry_after: int | None = None) -> float:
    """Seconds to wait before a try after ``tries`` that failed, doubled with each, never under what was asked."""
    return max(float(retry_after or 0), min(FIRST_PAUSE * 2.0 ** min(tries, 16), LAST_PAUSE))


def refresh_in(granted: float) -> float:
    """Seconds after which what was granted for ``granted`` seconds is refreshed (RFC 8048 section 5.2.2)."""
    return granted - min(LEAD, granted / 2)


def retry_after_of(message: SipMessage) -> int | None:
    """Seconds of Retry-After (RFC 3261 section 20.33); None if there is none that can be read."""
    found = _SECONDS.match(message.value("retry-after") or "")
    return min(int(found[1]), MAX_SECONDS) if found else None


_SECONDS = re.compile(r"[ \t]*([0-9]{1,10})[ \t]*(?:[;(]|$)")


def min_expires_of(message: SipMessage, asked: int, most: int) -> int | None:
    """Duration to ask for after a 423; None if there is none that makes sense (RFC 3261 section 20.23)."""
    text = (message.value("min-expires") or "").strip()
    least = int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else 0
    return least if asked < least <= most else None


@dataclass(frozen=True, slots=True)
class SubscriptionStateValue:
    """A Subscription-State header (RFC 6665 section 8.4)."""

    name: str
    """active, pending, terminated, or a word we do not know (lower case)."""
    expires: int | None = None
    reason: str = ""
    retry_after: int | None = None

    @classmethod
    def parse(cls, text: str) -> SubscriptionStateValue:
        """Parse the header; raises RemoteProtocolError (hint 400)."""
        match = TOKEN.match(text)
        if match is None:
            raise malformed("Subscription-State breaks the grammar")
        params = parse_params(text[match.end() :], "Subscription-State")
        return cls(
            match[0].lower(),
            _number(find(params, "expires"), "expires"),
            unquoted(find(params, "reason") or "").lower(),
            _number(find(params, "retry-after"), "retry-after"),
        )


def _number(text: str | None, what: str) -> int | None:
    return None if text is None else parse_number(text, what, MAX_SECONDS)

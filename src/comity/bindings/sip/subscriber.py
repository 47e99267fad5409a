"""A subscription as its subscriber sees it (RFC 6665 section 4.1), sans-IO: for ``comity.client`` and for a gateway.

Place on the path: beside steps 3 and 9. Requests to send come out as ``Send``; their answers, the NOTIFY requests of the other
side and the time go in; what happened comes out as events. Nothing is read from a clock or a socket here, and no credentials
are known: who has some says so with ``take_answer``. The rules its readers must keep:

* The figure of section 4.1.2 is ``TRANSITIONS`` (``subscriber_events.py``); a pair that is missing changes nothing.
* A subscription that is not over has a timer (``next_timer``), so that none hangs between living and ended whatever is lost.
* A NOTIFY may come before the 200, and makes the dialog (section 4.4.1). One dialog is kept (RFC 3856 section 6.9): NOTIFY
  requests of other forks, of a former dialog and of nobody get a 481.
* The answer to a NOTIFY is given at once; people are never waited for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from comity.bindings.sip.dialog import Dialog, target_of
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriber_events import (
    HOUR,
    MOST_DURATION,
    TRANSITIONS,
    Ended,
    Event,
    Input,
    Notified,
    Pended,
    RefreshFailed,
    Send,
    State,
    Wish,
)
from comity.bindings.sip.subscriber_rules import (
    HOPELESS_CODES,
    REASONS,
    Again,
    End,
    EndCause,
    SubscriptionStateValue,
    end_of_answer,
    end_of_notify,
    min_expires_of,
    pause,
    refresh_in,
    retry_after_of,
)
from comity.errors import RemoteProtocolError

__all__ = [
    "HOUR",
    "MOST_DURATION",
    "TRANSITIONS",
    "Ended",
    "Event",
    "Input",
    "Notified",
    "Pended",
    "RefreshFailed",
    "Send",
    "State",
    "Subscriber",
    "Wish",
]

STEADY: Final = 60.0
"""Seconds after which a subscription that ended counts as one that had stood."""


class Subscriber:
    """One wish to be notified, and the dialog that serves it now.

    Args:
        wish: what is wanted.
        random: gives octets for Call-ID and tag.
        t1: estimate of the round trip (RFC 3261 section 17.1.1.1); Timer N is 64 of it.
        spread: by which part of itself a refresh may come earlier and another try later, so that those that began together part.
    """

    def __init__(self, wish: Wish, *, random: Callable[[int], bytes], t1: float = 0.5, spread: float = 0.0) -> None:
        self.wish = wish
        self.state = State.INIT
        self.end: End | None = None
        """How the last dialog ended; None while one lives."""
        self._random = random
        self._timer_n_length = 64 * t1
        self._spread = spread
        self._events: deque[Event] = deque()
        self._dialog: Dialog | None = None
        self._call_id = ""
        self._tag = ""
        self._cseq = 0
        self._duration = wish.duration
        """Asked for in the next SUBSCRIBE; a 423 raises it."""
        self._asked = wish.duration
        """Asked for in the last one."""
        self._is_over = False
        """True once nobody wants it any more."""
        self._under_way: _UnderWay | None = None
        self._count = 0
        self._tries = 0
        """Subscriptions in a row that did not last."""
        self._began = 0.0
        self._is_told = False
        """True once a NOTIFY after the last SUBSCRIBE said how long it lasts: that counts more than the answer."""
        self._may_refresh = True
        """False once an answer said that no refresh will be taken."""
        self._timer_n: float | None = None
        self._expires_at: float | None = None
        self._refresh_at: float | None = None
        self._retry_at: float | None = None

    @property
    def is_wanted(self) -> bool:
        """False once ``unsubscribe`` was called."""
        return not self._is_over

    @property
    def lasts_until(self) -> float | None:
        """When the subscription ends unless it is refreshed; None if there is none, or how long it lasts is not known yet."""
        return self._expires_at

    @property
    def is_busy(self) -> bool:
        """True while a SUBSCRIBE waits for its answer."""
        return self._under_way is not None

    @property
    def is_done(self) -> bool:
        """True if it is over and nothing will be tried again."""
        return self.state is State.TERMINATED and self._retry_at is None

    # --- what the user of it wants -----------------------------------------------------------------------------

    def subscribe(self, now: float) -> None:
        """Begin; a fetch if the duration is 0."""
        if self.state is State.INIT and not self._is_over:
            self._begin(now)

    def refresh(self, now: float) -> None:
        """Refresh before the time comes, to hear the whole state again (GW-13: at initial presence)."""
        if self._is_live and self._under_way is None and not self._is_over:
            self._send(now, self._duration)

    def hurry(self, now: float) -> None:
        """Do not wait any longer with the next try: what was in its way is gone."""
        if self._retry_at is not None:
            self._retry_at = min(self._retry_at, now)

    def anew(self, now: float, contact: str) -> None:
        """Begin again at once in a new dialog: the way to ``wish.contact`` is gone, a new one leads to ``contact``.

        Nothing is done for what is over for good, or not wanted any more."""
        self.wish = replace(self.wish, contact=contact)
        if self._is_over or self.is_done or self.state is State.INIT:
            return
        self._under_way = None
        self._timer_n = self._expires_at = self._refresh_at = self._retry_at = None
        self.state, self._tries = State.INIT, 0
        self._begin(now)

    def unsubscribe(self, now: float) -> None:
        """End it; what the notifier still says until it answered is reported, nothing after that."""
        if self._is_over:
            return
        self._is_over = True
        self._retry_at = None
        if self._is_live and self._under_way is None:
            self._send(now, 0)
        elif self.state is State.INIT:
            self.state = State.TERMINATED
        # Else the end is asked for once the NOTIFY that makes the dialog, or the answer under way, has come.

    # --- what the other side does ------------------------------------------------------------------------------

    def take_answer(self, id: int, response: SipResponse, now: float, *, has_credentials: bool = False) -> None:
        """Take the final answer to a request.

        Args:
            id: as in ``Send``.
            response: with a code of 200 or more.
            now: monotonic seconds.
            has_credentials: for a 401 or 407, that there are credentials for its challenge: the request is sent again.
        """
        sent = self._under_way
        if sent is None or sent.id != id:
            return
        self._under_way = None
        code = response.status_code
        if code < 300:
            self._accepted(sent, response, now)
        elif code in (401, 407) and has_credentials and sent.challenges < 2:
            self._send(now, sent.duration, challenges=sent.challenges + 1)
        elif code == 423 and not sent.is_longer and self._take_min_expires(sent, response):
            self._send(now, self._duration, is_longer=True)
        else:
            self._refused(sent, response, now)

    def raise_cseq(self, count: int) -> None:
        """The last request went out again, with a CSeq that much higher, to answer challenges (RFC 3261 section 22.2)."""
        self._cseq += count
        if self._dialog is not None:
            self._dialog.local_cseq += count

    def failed(self, id: int, now: float, *, is_timeout: bool = True, reason: str = "") -> None:
        """No final answer came, or the transport failed: RFC 3261 section 12.2.1.2 ends the dialog with it."""
        sent = self._under_way
        if sent is None or sent.id != id:
            return
        self._under_way = None
        self._over(_made(EndCause.UNANSWERED if is_timeout else EndCause.UNREACHABLE, reason=reason), now)

    def is_for_us(self, request: SipRequest) -> bool:
        """True if the NOTIFY belongs to this wish, now or by its dialog: another ``Subscriber`` need not be asked."""
        return bool(self._tag) and request.call_id == self._call_id and request.to.tag == self._tag

    def take_notify(self, request: SipRequest, now: float) -> tuple[int, list[tuple[str, str]]]:
        """Take a NOTIFY; status code and headers of the answer, to be sent at once (RFC 6665 section 4.1.3)."""
        if not self.is_for_us(request) or self.state in (State.INIT, State.TERMINATED):
            return 481, []
        if len(request.values("event")) > 1 or len(request.values("subscription-state")) > 1:
            return 400, []
        package, id = _event_of(request.value("event") or "")
        wanted, wanted_id = _event_of(self.wish.event)
        if package != wanted:
            return 489, [("Allow-Events", wanted)]
        if id != wanted_id:
            return 481, []
        try:
            state = SubscriptionStateValue.parse(request.value("subscription-state") or "")
            status_code = self._take_dialog(request, is_first_and_last=state.name == "terminated")
        except RemoteProtocolError as error:
            return int(error.hint) if error.hint.isdigit() else 400, []
        if status_code:
            return status_code, []
        self._notified(state, request, now)
        return 200, []

    # --- time --------------------------------------------------------------------------------------------------

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called; None if it waits for nothing any more."""
        times = (self._timer_n, self._expires_at, self._refresh_at, self._retry_at)
        return min((when for when in times if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._timer_n is not None and self._timer_n <= now:
            self._over(_made(EndCause.UNANSWERED), now)
        elif self._expires_at is not None and self._expires_at <= now:
            self._over(_made(EndCause.TIMEOUT), now)
        elif self._refresh_at is not None and self._refresh_at <= now:
            self._refresh_at = None
            if self._under_way is None:
                self._send(now, self._duration)
        if self._retry_at is not None and self._retry_at <= now:
            self._retry_at = None
            self._advance(Input.RETRY)
            self._begin(now)

    def next_event(self) -> Event | None:
        """What happened, in order."""
        return self._events.popleft() if self._events else None

    # --- inside ------------------------------------------------------------------------------------------------

    def _take_dialog(self, request: SipRequest, *, is_first_and_last: bool) -> int:
        """Make the dialog, or go on in it: 0, or the status code to refuse the NOTIFY with."""
        dialog = self._dialog
        if dialog is None:
            # One that ends what it begins needs no dialog, so no Contact either.
            self._dialog = None if is_first_and_last else Dialog.of_request(request, self._tag, self._cseq)
            return 0
        if request.from_.tag != dialog.remote_tag:
            return 481  # another fork (SIP-24)
        return dialog.take(request)

    def _part(self) -> float:
        """A part of the spread."""
        return self._spread * int.from_bytes(self._random(2)[-2:], "big") / 65536 if self._spread else 0.0

    @property
    def _is_live(self) -> bool:
        return self.state in (State.PENDING, State.ACTIVE)

    def _advance(self, given: Input) -> None:
        self.state = TRANSITIONS.get((self.state, given), self.state)

    def _begin(self, now: float) -> None:
        """A SUBSCRIBE outside of any dialog, with identifiers nobody had before."""
        self._call_id, self._tag = self._random(16).hex(), self._random(8).hex()
        self._dialog, self._cseq, self.end = None, 0, None
        self._began, self._may_refresh = now, True
        self._send(now, self._duration)
        self._advance(Input.SUBSCRIBE_SENT)

    def _send(self, now: float, duration: int, *, challenges: int = 0, is_longer: bool = False) -> None:
        wish = self.wish
        headers: list[tuple[str, str]] = [
            ("Contact", wish.contact),
            ("Event", wish.event),
            ("Accept", wish.accept),
            ("Expires", str(duration)),
            *wish.headers,
        ]
        if self._dialog is not None:
            uri, own = self._dialog.request_uri, self._dialog.next_headers("SUBSCRIBE")
            request = SipRequest("SUBSCRIBE", uri, [*own, *headers])
        else:
            self._cseq += 1
            request = self._outside(headers)
        self._count += 1
        self._asked, self._is_told = duration, False
        self._under_way = _UnderWay(self._count, duration, challenges, is_longer, self._dialog is not None)
        self._timer_n = now + self._timer_n_length
        self._refresh_at = None
        self._events.append(Send(self._count, request))

    def _outside(self, headers: Sequence[tuple[str, str]]) -> SipRequest:
        common = [
            ("Max-Forwards", "70"),
            ("From", f"<{self.wish.watcher}>;tag={self._tag}"),
            ("To", f"<{self.wish.target}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} SUBSCRIBE"),
        ]
        return SipRequest("SUBSCRIBE", self.wish.target, [*common, *headers])

    def _accepted(self, sent: _UnderWay, response: SipResponse, now: float) -> None:
        """2xx; a 202 is a 200 (SIP-15). What the NOTIFY says of the duration counts more, if it came first."""
        if response.status_code == 204:  # no NOTIFY will come (RFC 6665 section 4.1.2.2)
            self._timer_n = None
            if not sent.duration:
                self._over(_made(EndCause.TIMEOUT), now)
        try:
            if sent.is_refresh and self._dialog is not None and response.contacts:
                self._dialog.target = target_of(response)  # RFC 3261 section 12.2.1.2
        except RemoteProtocolError:
            pass  # it stays as it was
        try:
            granted = min(sent.duration if response.expires is None else response.expires, sent.duration)
        except RemoteProtocolError:
            granted = sent.duration
        if self.state is not State.TERMINATED and not self._is_told:
            self._last(granted, now)
        self._say_goodbye(sent.duration, now)

    def _last(self, granted: int, now: float) -> None:
        """It lasts so long from now; a fetch and an end last until the NOTIFY or Timer N.

        A refresh is never put off by being told of the same end again, else many notifications would put it off for ever.
        """
        if self._asked == 0:
            self._expires_at = self._refresh_at = None
            return
        before, self._expires_at = self._expires_at, now + granted
        refresh_at = now + refresh_in(granted) * (1.0 - self._part())
        if self._refresh_at is not None and before is not None and self._expires_at <= before + 1:
            refresh_at = min(refresh_at, self._refresh_at)
        self._refresh_at = refresh_at if self._may_refresh and not self._is_over else None

    def _say_goodbye(self, sent_duration: int, now: float) -> None:
        """Unsubscribe as soon as it can be done, if that was asked for while something was under way."""
        if self._is_over and self._is_live and sent_duration and self._under_way is None:
            self._send(now, 0)

    def _take_min_expires(self, sent: _UnderWay, response: SipResponse) -> bool:
        longer = min_expires_of(response, sent.duration, MOST_DURATION) if sent.duration else None
        if longer is not None:
            self._duration = longer
        return longer is not None

    def _refused(self, sent: _UnderWay, response: SipResponse, now: float) -> None:
        code = response.status_code
        delay = retry_after_of(response)
        end = end_of_answer(code, response.reason, delay, is_refresh=sent.is_refresh)
        if end is not None or sent.duration == 0:
            self._over(end or _made(EndCause.REFUSED, code, response.reason), now)
            return
        # The subscription stands as it was; the answer says that no NOTIFY will come for this request.
        self._timer_n = None
        self._events.append(RefreshFailed(code, response.reason))
        if self._expires_at is None:
            self._expires_at = now + self._timer_n_length
        left = self._expires_at - now
        self._may_refresh = code not in HOPELESS_CODES
        if self._may_refresh and not self._is_over and left > 2:
            self._refresh_at = now + max(left / 2, float(delay or 0))
        self._say_goodbye(sent.duration, now)

    def _notified(self, state: SubscriptionStateValue, request: SipRequest, now: float) -> None:
        if state.name == "terminated":
            if request.body:
                self._events.append(Notified(request, is_last=True))
            self._over(end_of_notify(state), now)
            return
        if self._asked:
            self._timer_n = None
            self._is_told = state.expires is not None
            if state.expires is not None:
                self._last(min(state.expires, self._asked), now)
            elif self._expires_at is None:
                self._last(self._asked, now)
        # Else Timer N goes on: what crossed our "no longer" is not the end that it waits for.
        if state.name == "pending":
            self._advance(Input.NOTIFY_PENDING)
            self._events.append(Pended())
        else:  # a word that is unknown says no less than that there is a subscription (RFC 6665 section 8.4)
            self._advance(Input.NOTIFY_ACTIVE)
            self._events.append(Notified(request, is_last=self.wish.duration == 0))
        if self.wish.duration == 0:  # COMPAT: notifiers of RFC 3265 answer a fetch with "active;expires=0"
            self._over(_made(EndCause.TIMEOUT), now)
        self._say_goodbye(self._asked, now)

    def _over(self, end: End, now: float) -> None:
        """The dialog is over; say so once, and when the next one begins."""
        if self.state is State.TERMINATED:
            return
        self._advance(Input.ENDED)
        self.end = end
        self._dialog = self._under_way = None
        self._timer_n = self._expires_at = self._refresh_at = None
        is_wanted = self.wish.is_lasting and self.wish.duration > 0 and not self._is_over
        if is_wanted and end.again is not Again.NEVER:
            if now - self._began >= STEADY:
                self._tries = 0
            # At once, but only once in a row: a notifier that says so again and again is given time.
            at_once = end.again is Again.NOW and self._tries == 0
            self._retry_at = now + (0.0 if at_once else pause(self._tries, end.retry_after) * (1.0 + self._part()))
            self._tries += 1
        self._events.append(Ended(end, self._retry_at))


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """The SUBSCRIBE that waits for its answer."""

    id: int
    duration: int
    challenges: int
    is_longer: bool
    is_refresh: bool


def _made(cause: EndCause, status_code: int = 0, reason: str = "") -> End:
    return End(cause, REASONS[cause][0] if cause in REASONS else Again.LATER, None, status_code, reason)


def _event_of(text: str) -> tuple[str, str]:
    """Package and id of an Event header, compared octet by octet (RFC 6665 section 8.2.1)."""
    package, *params = (part.strip(" \t") for part in text.split(";"))
    names = (param.partition("=") for param in params)
    return package, next((value.strip(" \t") for name, _, value in names if name.strip(" \t").lower() == "id"), "")

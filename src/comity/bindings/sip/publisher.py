"""A publication as its user agent sees it (RFC 3903 sections 4 and 5), sans-IO: for ``comity.client`` and for a gateway.

Place on the path: beside steps 3 and 9, as ``subscriber.py``. What is published last counts: while a request is under way
nothing else is sent (section 4), and of what was wanted meanwhile only the last goes out. The entity-tag is replaced by every
success and dropped by a 412, after which the same state is published afresh (SIP-33). A refresh has no body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from comity.bindings.sip.headers import TOKEN
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.subscriber_events import HOUR, MOST_DURATION, Send
from comity.bindings.sip.subscriber_rules import HOPELESS_CODES, min_expires_of, pause, refresh_in, retry_after_of
from comity.errors import RemoteProtocolError

MAX_TAG: Final = 256
#: Seconds between a success and its renewal at least: a server that grants no time at all is not asked without a pause.
SHORTEST: Final = 1.0


@dataclass(frozen=True, slots=True)
class Published:
    """What was wanted stands for ``lease`` seconds; renewed by itself."""

    etag: str
    lease: int


@dataclass(frozen=True, slots=True)
class Removed:
    """Nothing of ours stands any more, as was wanted."""


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A request was refused or not answered. It is tried again at ``retry_at`` by itself; None: never."""

    status_code: int
    """0: no answer."""
    reason: str
    retry_at: float | None


Event = Send | Published | Removed | PublishFailed


class Publisher:
    """One publication of one device.

    Args:
        target: Request-URI, To and From: the address-of-record that publishes about itself.
        random: gives octets for identifiers.
        event: the event package.
        duration: lease to ask for.
        is_lasting: True: renewed and tried again by itself; False: one request for each ``publish``.
    """

    def __init__(
        self,
        target: str,
        *,
        random: Callable[[int], bytes],
        event: str = "presence",
        duration: int = HOUR,
        is_lasting: bool = True,
    ) -> None:
        self.etag = ""
        """Of the publication that stands, as far as we know; "" if none does."""
        self._target = target
        self._random = random
        self._event = event
        self.duration = duration
        """Of the next request; a 423 raises it."""
        self.is_lasting = is_lasting
        self._call_id, self._tag, self._cseq = random(16).hex(), random(8).hex(), 0
        self._events: deque[Event] = deque()
        self._wanted: _Wanted | None = None
        """What shall stand; None: nothing."""
        self._standing: _Wanted | None = None
        """What stands by the last success."""
        self._under_way: _UnderWay | None = None
        self._count = 0
        self._tries = 0
        self._expires_at: float | None = None
        self._due_at: float | None = None
        """When to renew, or to try again."""

    @property
    def is_wanted(self) -> bool:
        """True if something shall stand."""
        return self._wanted is not None

    @property
    def is_busy(self) -> bool:
        """True while a request waits for its answer."""
        return self._under_way is not None

    def publish(self, content_type: str, body: bytes, now: float) -> None:
        """Let this stand from now on."""
        self._wanted, self._tries = _Wanted(content_type, body), 0
        self._go_on(now)

    def check(self, now: float) -> None:
        """Renew now what stands, or try again: the server may have forgotten it, which a 412 will say."""
        if self._wanted is not None and self._under_way is None and self.is_lasting:
            self._due_at, self._tries = now, 0
            self.handle_timer(now)

    def remove(self, now: float) -> None:
        """Let nothing stand any more."""
        self._wanted, self._tries, self._due_at = None, 0, None
        self._go_on(now)

    def take_answer(self, id: int, response: SipResponse, now: float, *, has_credentials: bool = False) -> None:
        """Take the final answer to a request; see ``Subscriber.take_answer``."""
        sent = self._under_way
        if sent is None or sent.id != id:
            return
        self._under_way = None
        code = response.status_code
        if code < 300:
            self._accepted(sent, response, now)
        elif code in (401, 407) and has_credentials and sent.challenges < 2:
            self._send(now, sent.what, sent.duration, challenges=sent.challenges + 1)
        elif code == 423 and not sent.is_longer and self._take_min_expires(sent, response):
            self._send(now, sent.what, self.duration, is_longer=True)
        elif code == 412 and sent.etag:
            self._forget()
            self._go_on(now)
        else:
            self._failed(code, response.reason, now, retry_after_of(response))

    def failed(self, id: int, now: float, *, is_timeout: bool = True, reason: str = "") -> None:
        """No final answer came, or the transport failed. Whether the request acted is not known: its tag is dropped with it
        only when the server says so, by a 412 to the next one."""
        if self._under_way is not None and self._under_way.id == id:
            self._under_way = None
            self._failed(0, reason or ("no answer" if is_timeout else "the connection was lost"), now, None)

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called."""
        return min((when for when in (self._due_at, self._expires_at) if when is not None), default=None)

    def handle_timer(self, now: float) -> None:
        """Renew, or try again; what was not renewed in time is gone."""
        if self._expires_at is not None and self._expires_at <= now:
            self._forget()
            if self._wanted is not None and self.is_lasting and self._due_at is None:
                self._due_at = now
        if self._due_at is not None and self._due_at <= now:
            self._due_at = None
            if self._under_way is None and self._wanted is not None:
                same = self._standing == self._wanted and bool(self.etag)
                self._send(now, None if same else self._wanted, self.duration)

    def next_event(self) -> Event | None:
        """What happened, in order."""
        return self._events.popleft() if self._events else None

    # --- inside ------------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        """Send what is missing between what stands and what shall stand, unless something is under way."""
        if self._under_way is not None:
            return
        if self._wanted is None:
            if self.etag:
                self._send(now, None, 0)
            else:
                self._events.append(Removed())
        elif self._wanted != self._standing or not self.etag:
            self._send(now, self._wanted, self.duration)

    def _send(
        self, now: float, what: _Wanted | None, duration: int, *, challenges: int = 0, is_longer: bool = False
    ) -> None:
        """``what`` None: refresh, or remove with a duration of 0 (table 1)."""
        self._cseq += 1
        self._count += 1
        headers = [
            ("Max-Forwards", "70"),
            ("From", f"<{self._target}>;tag={self._tag}"),
            ("To", f"<{self._target}>"),
            ("Call-ID", self._call_id),
            ("CSeq", f"{self._cseq} PUBLISH"),
            ("Event", self._event),
            ("Expires", str(duration)),
        ]
        if self.etag:
            headers.append(("SIP-If-Match", self.etag))
        if what is not None:
            headers.append(("Content-Type", what.content_type))
        self._due_at = None
        self._under_way = _UnderWay(self._count, what, duration, self.etag, challenges, is_longer)
        self._events.append(Send(self._count, SipRequest("PUBLISH", self._target, headers, what.body if what else b"")))

    def _accepted(self, sent: _UnderWay, response: SipResponse, now: float) -> None:
        self._tries = 0
        if sent.duration == 0:
            self._forget()
            self._go_on(now)
            return
        etag = (response.value("sip-etag") or "").strip()
        # A success without a tag that can be used cannot be renewed: the next request is a first one again.
        self.etag = etag if TOKEN.fullmatch(etag) and len(etag) <= MAX_TAG else ""
        self._standing = sent.what or self._standing
        lease = _lease(sent, response)
        self._expires_at = now + lease
        self._due_at = now + max(refresh_in(lease), SHORTEST) if self.is_lasting else None
        if self._wanted == self._standing:
            self._events.append(Published(self.etag, lease))
        else:
            self._go_on(now)

    def _take_min_expires(self, sent: _UnderWay, response: SipResponse) -> bool:
        longer = min_expires_of(response, sent.duration, MOST_DURATION) if sent.duration else None
        if longer is not None:
            self.duration = longer
        return longer is not None

    def _failed(self, code: int, reason: str, now: float, retry_after: int | None) -> None:
        if self._wanted is None:  # it ends by its lease
            self._forget()
            self._events.append(Removed() if code == 412 else PublishFailed(code, reason, None))
            return
        retry_at = None
        if self.is_lasting and code not in HOPELESS_CODES:
            retry_at = self._due_at = now + pause(self._tries, retry_after)
            self._tries += 1
        self._events.append(PublishFailed(code, reason, retry_at))

    def _forget(self) -> None:
        self.etag, self._standing, self._expires_at = "", None, None


@dataclass(frozen=True, slots=True)
class _Wanted:
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """The PUBLISH that waits for its answer."""

    id: int
    what: _Wanted | None
    duration: int
    etag: str
    challenges: int
    is_longer: bool


def _lease(sent: _UnderWay, response: SipResponse) -> int:
    """Seconds granted, never more than asked (section 4.2)."""
    try:
        expires = response.expires
    except RemoteProtocolError:
        expires = None
    return sent.duration if expires is None else min(expires, sent.duration)

"""The channels of a BEEP session and what all its parts share: who is asked, who is owed, how it ends.

Place on the path: step 3, the lowest layer of ``BeepSession``; ``managing.py`` adds channel 0, ``session.py`` frames and time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal

from comity.beep import management as m
from comity.beep.channel import Asked, Channel, Outgoing
from comity.beep.events import ChannelClosed, Event, SessionEnded
from comity.beep.frames import ANS, ERR, RPY
from comity.beep.options import BeepOptions
from comity.beep.texts import localize
from comity.errors import LocalProtocolError
from comity.xml import serialize

CLOSED_REMEMBERED: Final = 64
"""Closed channels whose last SEQ frames, sent before the peer read our agreement, are passed over."""


class ChannelTable:
    """State of a session by channel; see ``BeepSession`` for the arguments."""

    def __init__(self, role: Literal["initiator", "listener"], options: BeepOptions, now: float) -> None:
        self.role = role
        self.is_ended = False
        self._events: deque[Event] = deque()
        self.reset(now, options)

    def reset(self, now: float, options: BeepOptions | None = None) -> None:
        """Forget all channels; channel 0 is there at once."""
        if options is not None:
            self.options = options
        self.server_name = ""
        self.identity = ""
        self._now = now
        self._management = Channel(0, "", self.options)
        self._management.asked[0] = Asked(None)  # the greeting is a reply to a message that nobody sent
        self._management.asked_msgno = 1
        self._channels: dict[int, Channel] = {0: self._management}
        self._ring: deque[Channel] = deque()  # channels that may have something to send
        self._telling: dict[int, Channel] = {}  # channels whose window the peer should be told
        self._begun: dict[int, Channel] = {}  # channels with a message begun
        self._stalled: dict[int, Channel] = {}
        self._closed: deque[int] = deque(maxlen=CLOSED_REMEMBERED)
        self._greeting: m.Greeting | None = None
        self._greeting_due: float | None = now + self.options.greeting_deadline
        self._next_number = 1 if self.role == "initiator" else 2
        self._asked: dict[int, m.Start | m.Close] = {}  # what our messages on channel 0 ask, by number
        self._wanted: dict[int, tuple[int, m.Start]] = {}  # channel asked for by the peer: message number, what it said
        self._closing: dict[int, int] = {}  # channel the peer asked to close: message number
        self._agreed: set[int] = set()  # those of them to which we agree once everything is answered
        self._leaving: dict[int, m.Close] = {}  # channels we shall ask to close once our messages are answered
        self._is_suspended = False
        self._is_silent = False
        self._is_leaving = False  # the half-close comes behind what is queued

    # --- what can be asked --------------------------------------------------------------------------------------------

    @property
    def owes(self) -> bool:
        """True if a message of the peer, or a part of one, waits for an answer on any channel but 0."""
        return any(c.owed or c.is_unfinished for n, c in self._channels.items() if n)

    @property
    def pending(self) -> int:
        """How many messages of the peer, begun ones included, wait for answers on all channels together."""
        return sum(len(c.owed) + c.is_unfinished for c in self._channels.values())

    def allow(self, options: BeepOptions) -> None:
        """Replace the options, also for channels that are open: who signed in may cost more than somebody unknown."""
        self.options = options
        for channel in self._channels.values():
            channel.allow(options)

    def waiting(self, channel: int) -> int:
        """Octets of ours on ``channel`` that were not handed out yet, for want of window or of their turn."""
        found = self._channels.get(channel)
        return 0 if found is None else found.waiting

    def channel_uri(self, number: int) -> str:
        """The profile of an open channel, "" if it is not open."""
        found = self._channels.get(number)
        return "" if found is None else found.uri

    def error_payload(self, code: int, text: str = "") -> bytes:
        """The payload of an ``error`` as all profiles here have it, its text in the peer's language."""
        return m.write_management(m.BeepError(code, *self._diagnostic(text)))

    def error_xml(self, code: int, text: str = "") -> bytes:
        """The same without entity headers, as it stands inside ``profile``."""
        return serialize(m.error_element(m.BeepError(code, *self._diagnostic(text))))

    def localized(self, text: str) -> tuple[str, str]:
        """``text`` in the language that the peer likes best among those we have, and that language's tag."""
        return localize(text, self._greeting.localize if self._greeting else (), self.options.translations)

    def close(self, reason: str) -> None:
        """End the session without a word; ``reason`` is for the log."""
        self._end(SessionEnded(reason, True))

    # --- for the other layers -----------------------------------------------------------------------------------------

    def _open(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None or self._is_suspended:
            raise LocalProtocolError(f"channel {number} is not open")
        return channel

    def _reply(
        self, channel: Channel, msgno: int, keyword: bytes, payload: bytes, then: Callable[[], None] | None = None
    ) -> None:
        owed = channel.owed.get(msgno)
        if owed is None or owed.is_answered:
            raise LocalProtocolError("there is no such message to answer")
        if keyword == ANS:
            item = Outgoing(ANS, msgno, payload, owed.next_ansno)
            owed.next_ansno += 1
        elif keyword in (RPY, ERR) and owed.next_ansno:
            raise LocalProtocolError("the message was answered with ANS already: end_answers ends it")
        else:
            item = Outgoing(keyword, msgno, payload, then=then)
        channel.arrange(owed, item, keyword != ANS)
        self._ring_for(channel)

    def _refuse(self, msgno: int, code: int, text: str) -> None:
        self._reply(self._management, msgno, ERR, self.error_payload(code, text))

    def _diagnostic(self, text: str) -> tuple[str, str]:
        return self.localized(text) if text else ("", "")

    def _ring_for(self, channel: Channel) -> None:
        if not channel.is_ringing:
            channel.is_ringing = True
            self._ring.append(channel)

    def _announce(self, channel: Channel) -> None:
        channel.is_announced = True
        self._consider_window(channel)
        if channel.queue:
            self._ring_for(channel)

    def _consider_window(self, channel: Channel) -> None:
        if channel.window_to_tell():
            self._telling[channel.number] = channel

    def _remove(self, number: int) -> None:
        channel = self._channels.pop(number)
        for table in (self._telling, self._begun, self._stalled):
            table.pop(number, None)
        self._leaving.pop(number, None)
        self._agreed.discard(number)
        self._closing.pop(number, None)
        channel.queue.clear()
        self._closed.append(number)
        self._events.append(ChannelClosed(number))

    def _end(self, event: SessionEnded, *, is_leaving: bool = False) -> None:
        """``is_leaving``: what channel 0 has still to say goes out, then the half-close."""
        if self.is_ended:
            return
        self.is_ended = True
        self._is_leaving = is_leaving
        self._events.append(event)
        self._ring.clear()
        if is_leaving and self._management.queue:
            self._ring.append(self._management)
        self._telling.clear()
        self._begun.clear()
        self._stalled.clear()
        self._agreed.clear()
        self._leaving.clear()
        self._channels = {}

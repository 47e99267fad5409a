"""A BEEP session without sockets and clocks (RFC 3080, mapped onto one octet stream by RFC 3081).

Place on the path: steps 3 and 9. Octets and verbs come in, octets and events (``events.py``) go out. Channel 0 is managed here;
what is said on other channels is their profile's business, ``tls_profile.py`` and ``sasl_profile.py`` among them.

Rules: a poor frame ends the session "without generating a response" (RFC 3080 section 2.2.1.1): nothing more is handed out, and
``SessionEnded`` says why. Verbs for a session that has ended do nothing, since the caller may not have seen the event yet; a
verb that the state of a live session forbids raises LocalProtocolError.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from comity.beep import management as m
from comity.beep.channel import Asked, Channel, Outgoing, Owed, TooLong, Whole
from comity.beep.events import (
    AnswerReceived,
    AnswersEnded,
    ChannelClosed,
    ChannelRefused,
    ChannelStarted,
    ChannelWanted,
    CloseRefused,
    CloseWanted,
    ErrorReceived,
    Event,
    GreetingReceived,
    GreetingRefused,
    MessageReceived,
    ProfileOffer,
    ReplyReceived,
    SessionEnded,
)
from comity.beep.frames import ANS, ERR, MSG, NUL, RPY, Frame, FrameReader, Seq, write_seq
from comity.beep.options import BeepOptions
from comity.beep.texts import localize
from comity.errors import LocalProtocolError, RemoteProtocolError
from comity.xml import serialize

CLOSED_REMEMBERED = 64
"""Closed channels whose last SEQ frames, sent before the peer read our agreement, are passed over."""


class BeepSession:
    """One BEEP session.

    Args:
        role: "initiator" opened the connection, "listener" awaited it.
        options: what we announce and what the peer may cost; may be replaced later, for channels made from then on.
        now: monotonic seconds.

    Attributes:
        identity: who the peer is once a SASL profile proved it (RFC 3080 section 4), "" before; TLS starts from nobody again.
        server_name: serverName of the first channel that was started (RFC 3080 section 2.3.1.2), "" if none was said.
        is_ended: nothing more happens.
    """

    def __init__(self, role: Literal["initiator", "listener"], options: BeepOptions, now: float) -> None:
        self.role = role
        self.is_ended = False
        self._events: deque[Event] = deque()
        self.reset(now, options)

    def reset(self, now: float, options: BeepOptions | None = None) -> None:
        """Begin anew: all channels are gone, a new greeting goes out (the tuning reset of RFC 3080 section 3)."""
        if self.is_ended:
            return
        if options is not None:
            self.options = options
        self.server_name = ""
        self.identity = ""
        self._now = now
        self._reader = FrameReader(self._admit)
        self._frames_read = 0
        self._frame_since: float | None = None
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
        self._greet()

    # --- the contract of a session ------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets read from the connection."""
        if self.is_ended or not data:
            return
        self._now = now
        if self._is_suspended:
            self.close("octets in the clear where TLS was to begin")
            return
        reader = self._reader
        reader.feed(data)
        try:
            while (frame := reader.next_frame()) is not None:
                if type(frame) is Seq:
                    self._take_seq(frame)
                else:
                    self._take_frame(frame)  # type: ignore[arg-type]  # the only other kind
                if self.is_ended:
                    return
        except RemoteProtocolError as error:
            self.close(str(error))
            return
        self._note_progress(now)

    def receive_eof(self, now: float) -> None:
        """The peer will send no more."""
        if not self.is_ended:
            self._now = now
            self.close("the connection ended without a release of the session")

    def next_event(self) -> Event | None:
        """The next event, or None."""
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> list[bytes]:
        """Octets to write, in order; an empty item: half-close."""
        out: list[bytes] = []
        if self.is_ended and not self._is_leaving:
            return out
        self._tell_windows(out)  # RFC 3081 section 3.1.4: before messages
        ring = self._ring
        while ring:
            channel = ring.popleft()
            if channel.send_frame(out, now):
                if self._agreed or self._leaving:
                    self._settle()
                if channel.window_to_tell():
                    self._telling[channel.number] = channel
                if channel.queue:
                    ring.append(channel)  # behind the others: round-robin
                    continue
            elif channel.stalled_since is not None:
                self._stalled[channel.number] = channel
            channel.is_ringing = False
        self._tell_windows(out)
        if self._is_leaving:
            self._is_leaving = False
            out.append(b"")
        return out

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called, or None."""
        if self.is_ended or self._is_suspended:
            return None
        first = self._greeting_due
        if self._frame_since is not None:
            first = _earlier(first, self._frame_since + self.options.frame_deadline)
        for channel in self._begun.values():
            if (due := self._part_due(channel)) is not None:
                first = _earlier(first, due)
        for channel in self._stalled.values():
            if channel.stalled_since is not None:
                first = _earlier(first, channel.stalled_since + self.options.window_deadline)
        return first

    def handle_timer(self, now: float) -> None:
        """End the session if something that was due has not come."""
        due = self.next_timer()
        if due is None or now < due:
            return
        self._now = now
        if self._greeting_due is not None and now >= self._greeting_due:
            self.close("no greeting in time")
        elif any(
            c.stalled_since is not None and now >= c.stalled_since + self.options.window_deadline
            for c in self._stalled.values()
        ):
            self.close("the peer does not open its window")
        else:
            self.close("a frame or message was not finished in time")

    # --- verbs: channels ----------------------------------------------------------------------------------------------

    def start_channel(self, profiles: Sequence[ProfileOffer], server_name: str = "", *, is_last: bool = False) -> int:
        """Ask for a channel; returns its number. ``ChannelStarted`` or ``ChannelRefused`` answers.

        Args:
            profiles: what it may be, best first, each with its initialization message.
            server_name: who the peer shall be; counts in the first channel of a session.
            is_last: send nothing behind it, not even windows, until it is answered (RFC 3080 section 3.1.3.1).
        """
        if self.is_ended:
            return 0
        if self._management.is_closing:
            raise LocalProtocolError("the session is being released")
        if len(self._channels) + len(self._asked) > self.options.channels:
            raise LocalProtocolError("too many channels")
        number = self._next_number
        start = m.Start(number, tuple(profiles), server_name)
        then = self._fall_silent if is_last else None
        msgno = self._management.ask(m.write_management(start), then)
        self._next_number += 2
        self._asked[msgno] = start
        self._ring_for(self._management)
        return number

    def accept_channel(self, number: int, uri: str, content: bytes = b"") -> None:
        """Answer ``ChannelWanted``: it shall be ``uri``; ``content`` is our initialization message."""
        if self.is_ended:
            return
        msgno, start = self._take_wanted(number)
        if uri not in [offer.uri for offer in start.profiles]:
            raise LocalProtocolError("a profile that was not offered")
        channel = Channel(number, uri, self.options)
        channel.is_announced = False
        self._channels[number] = channel
        if number in self._closed:
            self._closed.remove(number)
        self.server_name = self.server_name or start.server_name
        payload = m.write_management(m.Profile(ProfileOffer(uri, content)))
        self._reply(self._management, msgno, RPY, payload, lambda: self._announce(channel))

    def refuse_channel(self, number: int, code: int, text: str = "") -> None:
        """Answer ``ChannelWanted`` with an error; the text goes out in the peer's language if we have it."""
        if not self.is_ended:
            self._refuse(self._take_wanted(number)[0], code, text)

    def close_channel(self, number: int, code: int = 200, text: str = "") -> None:
        """Ask to close a channel, or to release the session (0).

        The request goes out when our messages there are answered, for 0 also what we owe; no new ones may be sent."""
        if self.is_ended:
            return
        channel = self._open(number)
        if channel.is_closing:
            return
        if number in self._closing:  # both sides want it
            if number not in self._agreed:
                self.accept_close(number)
            return
        channel.is_closing = True
        self._leaving[number] = m.Close(number, code, *self._diagnostic(text))
        self._settle()

    def accept_close(self, number: int) -> None:
        """Answer ``CloseWanted``: agreed, as soon as everything is answered in both directions."""
        if self.is_ended:
            return
        if number not in self._closing or number in self._agreed:
            raise LocalProtocolError("the peer did not ask to close this")
        self._agreed.add(number)
        self._settle()

    def refuse_close(self, number: int, code: int, text: str = "") -> None:
        """Answer ``CloseWanted`` with an error."""
        if self.is_ended:
            return
        if number not in self._closing or number in self._agreed:
            raise LocalProtocolError("the peer did not ask to close this")
        self._refuse(self._closing.pop(number), code, text)

    def hold(self, channel: int) -> None:
        """Do not widen the peer's window on ``channel`` until ``resume``: what it may send already still comes."""
        if not self.is_ended:
            self._open(channel).is_held = True

    def resume(self, channel: int) -> None:
        """Widen the peer's window on ``channel`` again."""
        if not self.is_ended:
            found = self._open(channel)
            found.is_held = False
            if found.part_since is not None:
                found.part_since = self._now
            self._consider_window(found)

    def waiting(self, channel: int) -> int:
        """Octets of ours on ``channel`` that were not handed out yet, for want of window or of their turn."""
        found = self._channels.get(channel)
        return 0 if found is None else found.waiting

    def channel_uri(self, number: int) -> str:
        """The profile of an open channel, "" if it is not open."""
        found = self._channels.get(number)
        return "" if found is None else found.uri

    # --- verbs: messages ----------------------------------------------------------------------------------------------

    def send_message(self, channel: int, payload: bytes) -> int:
        """Send a MSG; returns its number.

        Nothing is sent, and -1 returned, if the session or the channel is only waiting for its end to be written:
        ``ChannelClosed`` or ``SessionEnded`` comes."""
        if self.is_ended or self._management.is_over:
            return -1
        found = self._open(channel)
        if found.is_over:
            return -1
        if found.is_closing or self._management.is_closing or not channel:
            raise LocalProtocolError("no message can be sent on this channel")
        msgno = found.ask(payload)
        self._ring_for(found)
        return msgno

    def reply(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with RPY."""
        self._reply_to_app(channel, msgno, RPY, payload)

    def reply_error(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with ERR."""
        self._reply_to_app(channel, msgno, ERR, payload)

    def answer(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with one ANS of several; ``end_answers`` ends them."""
        self._reply_to_app(channel, msgno, ANS, payload)

    def end_answers(self, channel: int, msgno: int) -> None:
        """Say with NUL that there are no more answers, or were none."""
        self._reply_to_app(channel, msgno, NUL, b"")

    def error_payload(self, code: int, text: str = "") -> bytes:
        """The payload of an ``error`` as all profiles here have it, its text in the peer's language."""
        return m.write_management(m.BeepError(code, *self._diagnostic(text)))

    def error_xml(self, code: int, text: str = "") -> bytes:
        """The same without entity headers, as it stands inside ``profile``."""
        return serialize(m.error_element(m.BeepError(code, *self._diagnostic(text))))

    def localized(self, text: str) -> tuple[str, str]:
        """``text`` in the language that the peer likes best among those we have, and that language's tag."""
        return localize(text, self._greeting.localize if self._greeting else (), self.options.translations)

    # --- verbs: the end, and tuning -----------------------------------------------------------------------------------

    def close(self, reason: str) -> None:
        """End the session without a word; ``reason`` is for the log."""
        self._end(SessionEnded(reason, True))

    @property
    def owes(self) -> bool:
        """True if a message of the peer, or a part of one, waits for an answer on any channel but 0."""
        return any(c.owed or c.is_unfinished for n, c in self._channels.items() if n)

    @property
    def pending(self) -> int:
        """How many messages of the peer, begun ones included, wait for answers on all channels together."""
        return sum(len(c.owed) + c.is_unfinished for c in self._channels.values())

    def suspend(self) -> None:
        """Write what is queued and fall silent until ``reset``: what comes before it ends the session (P-12).

        If something stands behind the request that is answered by this, nobody may read it either."""
        if self.is_ended:
            return
        self._is_suspended = True
        self._greeting_due = None
        if not self._reader.is_between or self._events:
            self.close("octets in the clear where TLS was to begin")

    # --- frames ---------------------------------------------------------------------------------------------------------

    def _admit(self, frame: Frame) -> None:
        channel = self._channels.get(frame.channel)
        if channel is None or not channel.is_announced:
            raise RemoteProtocolError("a frame for a channel that is not open")
        if self._greeting_due is not None and (frame.channel or frame.keyword == MSG):
            raise RemoteProtocolError("something else came where the greeting belongs")
        if frame.channel in self._closing and frame.channel and frame.keyword == MSG:
            raise RemoteProtocolError("a message behind the request to close its channel")
        channel.admit(frame)

    def _take_frame(self, frame: Frame) -> None:
        channel = self._channels[frame.channel]
        try:
            whole = channel.take(frame, self._now)
        except TooLong as error:
            channel.refuse_rest(error.msgno, frame.is_last)
            self._reply(channel, error.msgno, ERR, self.error_payload(554, error.reason))
            whole = None
        if channel.part_since is not None:
            self._begun[channel.number] = channel
            if sum(c.unfinished for c in self._begun.values()) > self.options.unfinished:
                raise RemoteProtocolError("too many octets of messages without an end")
        elif self._begun:
            self._begun.pop(channel.number, None)
        if channel.window_to_tell():
            self._telling[channel.number] = channel
        if whole is None:
            return
        if channel.number:
            self._report(channel, whole)
        else:
            self._manage(whole)
        if self._leaving or self._agreed:
            self._settle()

    def _report(self, channel: Channel, whole: Whole) -> None:
        keyword, msgno, payload = whole
        number = channel.number
        if keyword == MSG:
            self._events.append(MessageReceived(number, msgno, payload))
        elif keyword == RPY:
            self._events.append(ReplyReceived(number, msgno, payload))
        elif keyword == ERR:
            channel.cut_short(msgno)
            self._ring_for(channel)
            self._events.append(ErrorReceived(number, msgno, payload))
        elif keyword == ANS:
            self._events.append(AnswerReceived(number, msgno, payload))
        else:
            self._events.append(AnswersEnded(number, msgno))

    def _take_seq(self, seq: Seq) -> None:
        channel = self._channels.get(seq.channel)
        if channel is None or not channel.is_announced:
            if seq.channel not in self._closed:
                raise RemoteProtocolError("a SEQ frame for a channel that is not open")
            return
        channel.acknowledge(seq.ackno, seq.window)
        if channel.stalled_since is None:
            self._stalled.pop(channel.number, None)
        if channel.queue:
            self._ring_for(channel)

    def _note_progress(self, now: float) -> None:
        """A frame begun must end within its time, however it trickles (P-20)."""
        reader = self._reader
        if reader.is_between:
            self._frame_since = None
        elif self._frame_since is None or reader.frames != self._frames_read:
            self._frame_since = now
        self._frames_read = reader.frames

    def _part_due(self, channel: Channel) -> float | None:
        """When the next frame of a message begun is due; never while it is we who hold the peer back."""
        if channel.part_since is None or channel.edge_in == channel.next_in:
            return None
        return channel.part_since + self.options.frame_deadline

    # --- channel 0 ------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        options = self.options
        if options.unavailable is not None:
            code, text = options.unavailable
            keyword, payload = ERR, m.write_management(m.BeepError(code, text, "en" if text else ""))
        else:
            keyword, payload = RPY, m.write_management(m.Greeting(options.profiles, options.features, options.localize))
        self._management.queue.append(Outgoing(keyword, 0, payload))
        self._ring_for(self._management)

    def _manage(self, whole: Whole) -> None:
        keyword, msgno, payload = whole
        try:
            value = m.read_management(payload)
        except RemoteProtocolError as error:
            if keyword != MSG or error.hint == "restricted-xml":
                raise
            self._refuse(msgno, int(error.hint), error.reason)
            return
        if self._greeting_due is not None:
            self._take_greeting(keyword, value)
        elif keyword == MSG:
            self._take_request(msgno, value)
        else:
            self._take_answer(keyword, msgno, value)

    def _take_greeting(self, keyword: bytes, value: m.Management) -> None:
        if keyword == ERR and isinstance(value, m.BeepError):
            self._events.append(GreetingRefused(value.code, value.text))
            self._end(
                SessionEnded(f"the peer is not available: {value.code} {value.text}".rstrip(), True), is_leaving=True
            )
        elif keyword == RPY and isinstance(value, m.Greeting):
            self._greeting_due = None
            self._greeting = value
            if self.options.unavailable is not None:
                self._end(SessionEnded("we are not available", False), is_leaving=True)
            else:
                self._events.append(GreetingReceived(value.profiles, value.features, value.localize))
        else:
            raise RemoteProtocolError("something else came where the greeting belongs")

    def _take_request(self, msgno: int, value: m.Management) -> None:
        if isinstance(value, m.Start):
            self._take_start(msgno, value)
        elif isinstance(value, m.Close):
            self._take_close(msgno, value)
        else:
            self._refuse(msgno, 501, "the element is not expected here")

    def _take_start(self, msgno: int, start: m.Start) -> None:
        number = start.number
        if self.role == "listener" and number % 2 == 0:
            self._refuse(msgno, 501, "number attribute in <start> element must be odd-valued")
        elif self.role == "initiator" and number % 2:
            self._refuse(msgno, 501, "number attribute in <start> element must be even-valued")
        elif number in self._channels or number in self._wanted:
            self._refuse(msgno, 550, "the channel exists already")
        elif len(self._channels) + len(self._wanted) > self.options.channels:
            self._refuse(msgno, 450, "too many channels")
        else:
            self._wanted[number] = (msgno, start)
            self._events.append(ChannelWanted(number, start.server_name, start.profiles))

    def _take_close(self, msgno: int, close: m.Close) -> None:
        number = close.number
        channel = self._channels.get(number)
        if channel is None or not channel.is_announced:
            self._refuse(msgno, 550, "there is no such channel")
        elif number in self._closing or (not number and self.owes) or (number and channel.is_unfinished):
            self._refuse(msgno, 550, "still working")
        else:
            self._closing[number] = msgno
            if channel.is_closing:
                self._agreed.add(number)  # both sides want it
                self._settle()
            else:
                self._events.append(CloseWanted(number, close.code))

    def _take_answer(self, keyword: bytes, msgno: int, value: m.Management) -> None:
        self._is_silent = False
        asked = self._asked.pop(msgno, None)
        is_error = keyword == ERR and isinstance(value, m.BeepError)
        if isinstance(asked, m.Start) and is_error:
            assert isinstance(value, m.BeepError)
            self._events.append(ChannelRefused(asked.number, value.code, value.text))
        elif isinstance(asked, m.Start) and keyword == RPY and isinstance(value, m.Profile):
            self._take_profile(asked, value.chosen)
        elif isinstance(asked, m.Close) and is_error:
            assert isinstance(value, m.BeepError)
            self._take_close_refusal(asked.number, value)
        elif isinstance(asked, m.Close) and keyword == RPY and isinstance(value, m.Ok):
            self._take_close_agreement(asked.number)
        else:
            raise RemoteProtocolError("a reply on channel 0 that does not belong to its message")

    def _take_profile(self, start: m.Start, chosen: ProfileOffer) -> None:
        if chosen.uri not in [offer.uri for offer in start.profiles]:
            raise RemoteProtocolError("the peer chose a profile that was not offered")
        self._channels[start.number] = Channel(start.number, chosen.uri, self.options)
        self._events.append(ChannelStarted(start.number, chosen.uri, chosen.content))

    def _take_close_refusal(self, number: int, error: m.BeepError) -> None:
        if number in self._channels:
            self._channels[number].is_closing = False
            self._events.append(CloseRefused(number, error.code, error.text))

    def _take_close_agreement(self, number: int) -> None:
        if not number:
            self._end(SessionEnded("", False), is_leaving=True)
        elif number in self._channels:
            if self._channels[number].owed:
                raise RemoteProtocolError("the peer agreed to close a channel where it waits for answers")
            self._remove(number)

    # --- small parts ------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Go on with the closes that waited for answers."""
        for number, close in list(self._leaving.items()):
            waits = self._channels.values() if not number else [self._channels[number]]
            if all(self._may_leave(channel, number) for channel in waits):
                del self._leaving[number]
                self._asked[self._management.ask(m.write_management(close))] = close
                self._ring_for(self._management)
        for number in list(self._agreed):
            if number and not self._channels[number].is_quiet:
                continue
            if not number and not self._is_all_quiet():
                continue
            self._agreed.discard(number)
            self._leaving.pop(number, None)
            self._channels[number].is_over = True
            msgno = self._closing.pop(number)
            self._reply(self._management, msgno, RPY, m.write_management(m.Ok()), lambda n=number: self._agree(n))  # type: ignore[misc]

    def _may_leave(self, channel: Channel, asked_for: int) -> bool:
        """Our messages are answered; to release the session, the peer's too ("orderly end keeps pending replies")."""
        if channel.number == 0:
            return asked_for == 0 and not channel.asked
        return not channel.asked and (asked_for != 0 or channel.is_quiet)

    def _is_all_quiet(self) -> bool:
        for number, channel in self._channels.items():
            if number and not channel.is_quiet:
                return False
        return len(self._management.owed) <= 1 and not [a for a in self._asked.values() if isinstance(a, m.Start)]

    def _agree(self, number: int) -> None:
        if not number:
            self._end(SessionEnded("", False), is_leaving=True)
        elif number in self._channels:  # unless the peer agreed to our own request meanwhile
            self._remove(number)

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

    def _tell_windows(self, out: list[bytes]) -> None:
        """One SEQ frame for all the frames that came together."""
        if self._telling and not (self._is_silent or self._is_suspended):
            for channel in self._telling.values():
                if channel.window_to_tell():
                    out.append(write_seq(channel.number, *channel.tell_window()))
            self._telling.clear()

    def _announce(self, channel: Channel) -> None:
        channel.is_announced = True
        if channel.queue:
            self._ring_for(channel)

    def _fall_silent(self) -> None:
        self._is_silent = True

    def _take_wanted(self, number: int) -> tuple[int, m.Start]:
        if number not in self._wanted:
            raise LocalProtocolError("the peer did not ask for this channel")
        return self._wanted.pop(number)

    def _open(self, number: int) -> Channel:
        channel = self._channels.get(number)
        if channel is None or self._is_suspended:
            raise LocalProtocolError(f"channel {number} is not open")
        return channel

    def _diagnostic(self, text: str) -> tuple[str, str]:
        return self.localized(text) if text else ("", "")

    def _refuse(self, msgno: int, code: int, text: str) -> None:
        self._reply(self._management, msgno, ERR, self.error_payload(code, text))

    def _reply_to_app(self, number: int, msgno: int, keyword: bytes, payload: bytes) -> None:
        if self.is_ended:
            return
        channel = self._open(number)
        if not number:
            raise LocalProtocolError("channel 0 is answered by the session")
        self._reply(channel, msgno, keyword, payload)

    def _reply(
        self, channel: Channel, msgno: int, keyword: bytes, payload: bytes, then: Callable[[], None] | None = None
    ) -> None:
        owed: Owed | None = channel.owed.get(msgno)
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

    def _ring_for(self, channel: Channel) -> None:
        if not channel.is_ringing:
            channel.is_ringing = True
            self._ring.append(channel)

    def _consider_window(self, channel: Channel) -> None:
        if channel.window_to_tell():
            self._telling[channel.number] = channel

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


def _earlier(a: float | None, b: float) -> float:
    return b if a is None or b < a else a

"""A BEEP session without sockets and clocks (RFC 3080, mapped onto one octet stream by RFC 3081).

Place on the path: steps 3 and 9. Octets and verbs come in, octets and events (``events.py``) go out. Channel 0 is managed by
``managing.py``; what is said on other channels is their profile's business, ``tls_profile.py`` and ``sasl_server.py`` among them.

Rules: a poor frame ends the session "without generating a response" (RFC 3080 section 2.2.1.1): nothing more is handed out, and
``SessionEnded`` says why. Verbs for a session that has ended do nothing, since the caller may not have seen the event yet; a
verb that the state of a live session forbids raises LocalProtocolError.
"""

from __future__ import annotations

from comity.beep.channel import Channel, TooLong, Whole
from comity.beep.events import AnswerReceived, AnswersEnded, ErrorReceived, Event, MessageReceived, ReplyReceived
from comity.beep.frames import ANS, ERR, MSG, NUL, RPY, Frame, FrameReader, Seq, write_seq
from comity.beep.managing import ManagedChannels
from comity.beep.options import BeepOptions
from comity.errors import LocalProtocolError, RemoteProtocolError


class BeepSession(ManagedChannels):
    """One BEEP session.

    Args:
        role: "initiator" opened the connection, "listener" awaited it.
        options: what we announce and what the peer may cost; ``allow`` replaces them.
        now: monotonic seconds.

    Attributes:
        identity: who the peer is once a SASL profile proved it (RFC 3080 section 4), "" before; TLS starts from nobody again.
        server_name: serverName of the first channel that was started (RFC 3080 section 2.3.1.2), "" if none was said.
        is_ended: nothing more happens.
    """

    def reset(self, now: float, options: BeepOptions | None = None) -> None:
        """Begin anew: all channels are gone, a new greeting goes out (the tuning reset of RFC 3080 section 3)."""
        if self.is_ended:
            return
        super().reset(now, options)
        self._reader = FrameReader(self._admit)
        self._frames_read = 0
        self._frame_since: float | None = None
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
        self._tell_windows(out, now)  # RFC 3081 section 3.1.4: before messages
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
        self._tell_windows(out, now)
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

    # --- verbs --------------------------------------------------------------------------------------------------------

    def send_message(self, channel: int, payload: bytes) -> int:
        """Send a MSG; returns its number.

        Nothing is sent, and -1 returned, if the session is being released or the channel only waits for its end to be
        written: ``SessionEnded`` or ``ChannelClosed`` comes, or ``CloseRefused``."""
        if self.is_ended or self._management.is_over or self._management.is_closing:
            return -1
        found = self._open(channel)
        if found.is_over:
            return -1
        if found.is_closing or not channel:
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

    def hold(self, channel: int) -> None:
        """Do not widen the peer's window on ``channel`` until ``resume``: what it may send already still comes."""
        if not self.is_ended:
            self._open(channel).is_held = True

    def resume(self, channel: int) -> None:
        """Widen the peer's window on ``channel`` again."""
        if not self.is_ended:
            found = self._open(channel)
            found.is_held = False
            self._consider_window(found)

    def suspend(self) -> None:
        """Write what is queued and fall silent until ``reset``: what comes before it ends the session (P-12).

        If something stands behind the request that is answered by this, nobody may read it either."""
        if self.is_ended:
            return
        self._is_suspended = True
        self._greeting_due = None
        if not self._reader.is_between or self._events:
            self.close("octets in the clear where TLS was to begin")

    # --- frames -------------------------------------------------------------------------------------------------------

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

    # --- small parts --------------------------------------------------------------------------------------------------

    def _reply_to_app(self, number: int, msgno: int, keyword: bytes, payload: bytes) -> None:
        if self.is_ended:
            return
        channel = self._open(number)
        if not number:
            raise LocalProtocolError("channel 0 is answered by the session")
        self._reply(channel, msgno, keyword, payload)

    def _tell_windows(self, out: list[bytes], now: float) -> None:
        """One SEQ frame for all the frames that came together."""
        if self._telling and not (self._is_silent or self._is_suspended):
            for channel in self._telling.values():
                if channel.window_to_tell():
                    out.append(write_seq(channel.number, *channel.tell_window(now)))
            self._telling.clear()


def _earlier(a: float | None, b: float) -> float:
    return b if a is None or b < a else a

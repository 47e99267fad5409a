"""One channel of a BEEP session: what may come next, what goes out next, and the two windows.

Place on the path: step 3, under ``session.py``, which alone knows the other channels. The rules for poorly-formed frames
(RFC 3080 section 2.2.1.1) that need a memory are ``admit``; order within the channel (section 2.6.1) is ``arrange``; the
windows are RFC 3081 section 3.1. Octets are counted without end here and reduced modulo 2**32 on the wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from comity.beep.frames import ANS, ERR, MASK, MSG, NUL, Frame
from comity.beep.options import FIRST_WINDOW, BeepOptions
from comity.errors import RemoteProtocolError

MANAGEMENT_LIMIT: Final = 64 * 1024
"""Longest message of channel 0: 15 initialization messages of 4096 octets."""
EMPTY_FRAMES: Final = 64
"""Frames without payload that a message may be cut into; they use up no window."""
PIPELINED: Final = 2048
"""MSGs on one channel without replies. Nobody meets it who sends messages of 32 octets or more: the window stops growing
long before (``BeepOptions.messages``), and 64 KiB hold no more of them."""


class Outgoing:
    """A message of ours, or what is left of it to be framed."""

    __slots__ = ("ansno", "is_begun", "keyword", "msgno", "offset", "payload", "then")

    def __init__(
        self, keyword: bytes, msgno: int, payload: bytes, ansno: int = -1, then: Callable[[], None] | None = None
    ) -> None:
        self.keyword = keyword
        self.msgno = msgno
        self.payload = payload
        self.ansno = ansno
        self.offset = 0
        self.is_begun = False
        self.then = then
        """Called when its last frame was handed out."""


class Owed:
    """A message of the peer that waits for our reply, or for its last frame to go out."""

    __slots__ = ("is_answered", "items", "msgno", "next_ansno")

    def __init__(self, msgno: int) -> None:
        self.msgno = msgno
        self.items: list[Outgoing] = []
        self.is_answered = False
        self.next_ansno = 0


class Asked:
    """A message of ours that waits for its reply."""

    __slots__ = ("item", "keyword")

    def __init__(self, item: Outgoing | None) -> None:
        self.item = item
        """While it is not wholly sent."""
        self.keyword = b""
        """Of the reply's frames so far."""


class Whole(NamedTuple):
    """A message of the peer, put together."""

    keyword: bytes
    msgno: int
    payload: bytes


class Channel:
    """State of one channel."""

    __slots__ = (
        *("_answered", "_empty_frames", "_ignored", "_keyword", "_limit", "_msgno", "_options", "_parts"),
        *("acknowledged", "asked", "asked_msgno", "edge_in", "edge_out"),
        *("is_announced", "is_closing", "is_held", "is_over", "is_ringing"),
        *(
            "next_in",
            "next_out",
            "number",
            "owed",
            "part_since",
            "queue",
            "stalled_since",
            "unfinished",
            "uri",
            "window",
        ),
    )

    def __init__(self, number: int, uri: str, options: BeepOptions) -> None:
        self.number = number
        self.uri = uri
        self.allow(options)
        # what comes in
        self.next_in = 0
        self.edge_in = FIRST_WINDOW
        """The peer may send octets below this."""
        self.window = (
            max(FIRST_WINDOW, min(options.window, options.window_max, options.frame)) if number else FIRST_WINDOW
        )
        """How far beyond ``next_in`` the edge is put when the peer is told next; grows while the channel is busy."""
        self.is_held = False
        self.owed: dict[int, Owed] = {}
        self._answered: deque[Owed] = deque()  # those of ``owed`` that are not wholly in the queue, in order
        self._keyword = b""
        self._msgno = 0
        self._parts: dict[int, bytearray] = {}  # message begun, by answer number (-1 for all but ANS)
        self._ignored = -1  # octets of a message that we refused early (RFC 3080 section 2.6.3), -1: there is none
        self._empty_frames = 0
        self.unfinished = 0
        """Octets in messages begun."""
        self.part_since: float | None = None
        """When the last frame of a message begun came."""
        # what goes out
        self.next_out = 0
        self.acknowledged = 0
        self.edge_out = FIRST_WINDOW
        self.queue: deque[Outgoing] = deque()
        self.asked: dict[int, Asked] = {}
        self.asked_msgno = 0
        self.is_announced = True
        """False until the reply that makes the channel is sent: nothing may overtake it."""
        self.is_ringing = False
        self.is_closing = False
        """True once we asked for its end: no more MSGs of ours."""
        self.is_over = False
        """True once our agreement to its end is in the queue."""
        self.stalled_since: float | None = None

    def allow(self, options: BeepOptions) -> None:
        """What the peer may cost from now on."""
        self._options = options
        self._limit = options.message if self.number else min(MANAGEMENT_LIMIT, options.message)

    # --- coming in ------------------------------------------------------------------------------------------------

    def admit(self, frame: Frame) -> None:
        """Check a data frame's header against what may come now. Raises RemoteProtocolError."""
        keyword, _, msgno, is_last, seqno, size, _, _ = frame
        if seqno != self.next_in & MASK:
            raise RemoteProtocolError("a frame's sequence number is not the expected one")
        if size > self.edge_in - self.next_in:
            raise RemoteProtocolError("a frame is larger than the window")
        if self._parts:
            if keyword != self._keyword or msgno != self._msgno:
                raise RemoteProtocolError("a message was not finished before another began")
        elif keyword == MSG:
            if msgno in self.owed:
                raise RemoteProtocolError("a message number is used again before its reply was sent")
            if len(self.owed) >= PIPELINED:
                raise RemoteProtocolError(f"more than {PIPELINED} messages wait for replies")
        if keyword != MSG:
            self._admit_reply(keyword, msgno)
        if not size and not is_last:
            self._empty_frames += 1
            if self._empty_frames > EMPTY_FRAMES:
                raise RemoteProtocolError("a message in too many empty frames")

    def _admit_reply(self, keyword: bytes, msgno: int) -> None:
        asked = self.asked.get(msgno)
        if asked is None:
            raise RemoteProtocolError("a reply to a message that was not sent or is answered")
        if next(iter(self.asked)) != msgno:
            raise RemoteProtocolError("a reply out of the order of the messages")
        if asked.keyword and asked.keyword != keyword and (asked.keyword, keyword) != (ANS, NUL):
            raise RemoteProtocolError("the keyword changes within a reply")
        if asked.item is not None and not (keyword == ERR and asked.item.is_begun):
            raise RemoteProtocolError("a reply to a message that was not sent to its end")

    def take(self, frame: Frame, now: float) -> Whole | None:
        """Take an admitted frame; returns the message it completes. Raises RemoteProtocolError."""
        keyword, _, msgno, is_last, _, size, _, payload = frame
        self.next_in += size
        if keyword != MSG:
            self.asked[msgno].keyword = keyword
        if self._parts or not is_last or size > self._limit:
            whole = self._collect(frame, now)
            if whole is None:
                return None
            payload = whole
        if keyword == MSG:
            owed = self.owed[msgno] = Owed(msgno)
            self._answered.append(owed)
        elif keyword != ANS:
            del self.asked[msgno]
        return Whole(keyword, msgno, payload)

    def _collect(self, frame: Frame, now: float) -> bytes | None:
        """Add a frame to its message; returns the payload if that is complete."""
        part = self._parts.get(frame.ansno)
        if part is None:
            part = self._parts[frame.ansno] = bytearray()
            if len(self._parts) > EMPTY_FRAMES:
                raise RemoteProtocolError("too many answers at a time")
            self._keyword, self._msgno = frame.keyword, frame.msgno
        self.part_since = now
        if self._ignored >= 0:
            self._ignore(frame)
            return None
        part += frame.payload
        self.unfinished += frame.size
        if len(part) > self._limit:
            if frame.keyword != MSG:
                raise RemoteProtocolError("a reply is too long")
            raise TooLong(frame.msgno)
        if not frame.is_last:
            return None
        self._forget(frame.ansno)
        return bytes(part)

    def _ignore(self, frame: Frame) -> None:
        self._ignored += frame.size
        if self._ignored > self._limit:
            raise RemoteProtocolError("a message that was refused as too long has no end")
        if frame.is_last:
            self._forget(frame.ansno)

    def _forget(self, ansno: int) -> None:
        self.unfinished -= len(self._parts.pop(ansno))
        if not self._parts:
            self.part_since = None
            self._ignored = -1
            self._empty_frames = 0

    def refuse_rest(self, msgno: int, is_last: bool) -> None:
        """Owe a reply to the message begun and ignore what else comes of it (RFC 3080 section 2.6.3)."""
        self._parts[-1].clear()
        self.unfinished = 0
        self._ignored = 0
        if is_last:
            self._forget(-1)
        owed = self.owed[msgno] = Owed(msgno)
        self._answered.append(owed)

    def window_to_tell(self) -> bool:
        """True if the peer should be told a wider window (RFC 3081 section 3.1.4: at least half of the space)."""
        if self.is_held or len(self.owed) >= self._options.messages:
            return False
        return self.next_in + self.window - self.edge_in >= self.window >> 1

    def tell_window(self, now: float) -> tuple[int, int]:
        """Acknowledgement number and window of the SEQ frame to send now; the window grows as the channel is busy."""
        if self.part_since is not None:
            self.part_since = now  # it may have been we who held the peer back
        if self.number and self.next_in:
            most = min(self._options.window_max, self._options.frame)
            self.window = max(self.window, min(self.window * 2, most))
        self.edge_in = self.next_in + self.window
        return self.next_in, self.window

    # --- going out ------------------------------------------------------------------------------------------------

    def ask(self, payload: bytes, then: Callable[[], None] | None = None) -> int:
        """Queue a MSG; returns its number."""
        msgno = self.asked_msgno
        while msgno in self.asked:
            msgno = (msgno + 1) & 0x7FFFFFFF
        self.asked_msgno = (msgno + 1) & 0x7FFFFFFF
        item = Outgoing(MSG, msgno, payload, then=then)
        self.asked[msgno] = Asked(item)
        self.queue.append(item)
        return msgno

    def arrange(self, owed: Owed, item: Outgoing, is_final: bool) -> None:
        """Queue a reply, or keep it until those to earlier messages are in the queue (RFC 3080 section 2.6.1)."""
        owed.is_answered = is_final
        waiting = self._answered
        if waiting[0] is not owed:
            owed.items.append(item)
            return
        self.queue.append(item)
        while waiting[0].is_answered:
            waiting.popleft()
            if not waiting:
                return
            self.queue += waiting[0].items
            waiting[0].items.clear()

    def acknowledge(self, ackno: int, window: int) -> None:
        """Take a SEQ frame. Raises RemoteProtocolError for octets that were never sent.

        A window may shrink; a sender has to bear with it (RFC 1122 section 4.2.2.16)."""
        unread = (self.next_out - ackno) & MASK
        if unread > self.next_out - self.acknowledged:
            raise RemoteProtocolError("a SEQ frame acknowledges octets that were not sent, or takes its word back")
        self.acknowledged = self.next_out - unread
        edge = self.next_out - unread + window
        if edge > self.edge_out:
            self.stalled_since = None
        self.edge_out = edge

    def send_frame(self, out: list[bytes], now: float) -> bool:
        """Put the next frame of ours that the peer's window allows into ``out``; False if there is none."""
        queue = self.queue
        if not queue or not self.is_announced:
            return False
        item = queue[0]
        payload, offset = item.payload, item.offset
        size = len(payload) - offset
        room = self.edge_out - self.next_out
        is_last = size <= room and size <= self._options.frame_sent
        if not is_last:
            size = min(room, self._options.frame_sent)
            if size <= 0:
                if self.stalled_since is None:
                    self.stalled_since = now
                return False
            item.is_begun = True
            item.offset = offset + size
            payload = payload[offset : offset + size]
        elif offset:
            payload = payload[offset:]
        head = (item.keyword, self.number, item.msgno, b"." if is_last else b"*", self.next_out & MASK, size)
        self.next_out += size
        self.stalled_since = None
        if item.keyword == ANS:
            out.append(b"%b %d %d %b %d %d %d\r\n%bEND\r\n" % (*head, item.ansno, payload))
        else:
            out.append(b"%b %d %d %b %d %d\r\n%bEND\r\n" % (*head, payload))
        if is_last:
            queue.popleft()
            self._sent(item)
        return True

    def _sent(self, item: Outgoing) -> None:
        if item.keyword == MSG:
            asked = self.asked.get(item.msgno)
            if asked is not None:
                asked.item = None
        elif item.keyword != ANS:
            self.owed.pop(item.msgno, None)
        if item.then is not None:
            item.then()

    def cut_short(self, msgno: int) -> None:
        """The peer refused a message of ours before its end: finish it with an empty frame (RFC 3080 section 2.6.3)."""
        for item in self.queue:
            if item.keyword == MSG and item.msgno == msgno:
                item.payload = item.payload[: item.offset]

    @property
    def is_unfinished(self) -> bool:
        """True while a MSG of the peer, not refused yet, is only begun."""
        return self._keyword == MSG and bool(self._parts) and self._ignored < 0

    @property
    def is_quiet(self) -> bool:
        """True if nothing waits for anything: all our messages are answered, all the peer's wholly so."""
        return not (self.queue or self.asked or self.owed or self._parts)

    @property
    def waiting(self) -> int:
        """Octets of ours not handed out yet."""
        return sum(len(item.payload) - item.offset for item in self.queue) + sum(
            len(item.payload) for owed in self._answered for item in owed.items
        )


class TooLong(RemoteProtocolError):
    """A MSG grew beyond the limit; it is refused with 554 before its end."""

    def __init__(self, msgno: int) -> None:
        self.msgno = msgno
        super().__init__("the message is too long", hint="554")

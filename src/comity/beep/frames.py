"""Octets to BEEP frames and back (RFC 3080 section 2.2.1, RFC 3081 section 3.1.3): the only place that knows their grammar.

Place on the path: step 2. A frame is handed out whole; its header is checked against the channel as soon as it stands there,
before room is made for the payload (P-09). Everything is O(n) in the octets, however they are cut. Any poor frame raises
``RemoteProtocolError``, and nothing more can be read: the session then ends "without generating a response".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from comity.errors import RemoteProtocolError

MSG: Final = b"MSG"
RPY: Final = b"RPY"
ERR: Final = b"ERR"
ANS: Final = b"ANS"
NUL: Final = b"NUL"

MODULUS: Final = 1 << 32
"""Sequence numbers are counted modulo this (RFC 3080 section 2.2.1.2)."""
MASK: Final = MODULUS - 1
MAX_NUMBER: Final = (1 << 31) - 1
"""Of channels, messages and sizes."""
TRAILER: Final = b"END\r\n"

# "0..2147483647" names numbers, not digits; like every number on this wire elsewhere they have no leading zeros (P-02).
_N = rb"(0|[1-9][0-9]{0,9})"
_DATA = re.compile(rb"(MSG|RPY|ERR|ANS|NUL) %b %b ([.*]) %b %b(?: %b)?\r\n" % ((_N,) * 5))
_SEQ = re.compile(rb"SEQ %b %b %b\r\n" % ((_N,) * 3))
_LONGEST_HEADER = len(b"ANS 2147483647 2147483647 * 4294967295 2147483647 4294967295\r\n")
_BEGUN = re.compile(rb"(?:M(?:S(?:G)?)?|R(?:P(?:Y)?)?|E(?:R(?:R)?)?|A(?:N(?:S)?)?|N(?:U(?:L)?)?|S(?:E(?:Q)?)?)")
_REST = re.compile(rb" [0-9 .*]*\r?")


class Frame(NamedTuple):
    """A data frame."""

    keyword: bytes
    channel: int
    msgno: int
    is_last: bool
    """"." as opposed to "*": this frame completes its message."""
    seqno: int
    size: int
    ansno: int
    """-1 unless the keyword is ANS."""
    payload: bytes = b""
    """b"" while the header is all there is."""


class Seq(NamedTuple):
    """The window frame of the TCP mapping."""

    channel: int
    ackno: int
    window: int


def write_seq(channel: int, ackno: int, window: int) -> bytes:
    """``ackno`` is taken modulo 2**32."""
    return b"SEQ %d %d %d\r\n" % (channel, ackno & MASK, window)


class FrameReader:
    """Cuts a stream of octets into frames.

    Args:
        admit: called with each data frame's header once it is read; raises RemoteProtocolError to end it all.
    """

    def __init__(self, admit: Callable[[Frame], None]) -> None:
        self._admit = admit
        self._data = b""
        self._position = 0
        self._more: list[bytes] = []
        self._held = 0  # octets not consumed, in _data behind _position and in _more
        self._needed = 1  # octets without which looking again is useless
        self._header: Frame | None = None
        self.frames = 0
        """Frames handed out so far."""

    @property
    def is_between(self) -> bool:
        """True if nothing of a next frame was read."""
        return self._held == 0 and self._header is None

    def feed(self, data: bytes) -> None:
        """Take octets."""
        if self._held:
            self._more.append(data)
        else:
            self._data, self._position = data, 0
        self._held += len(data)

    def next_frame(self) -> Frame | Seq | None:
        """The next whole frame, or None until more octets come. Raises RemoteProtocolError."""
        if self._held < self._needed:
            return None
        if self._more:
            self._data = b"".join([self._data[self._position :], *self._more])
            self._position = 0
            self._more.clear()
        header = self._header
        if header is None:
            read = self._read_header()
            if not isinstance(read, Frame):
                self.frames += read is not None
                return read
            self._admit(read)
            header = read
        begin = self._position
        end = begin + header.size
        trailer = self._data[end : end + 5]
        if trailer == TRAILER:
            self._header = None
            self._position = end + 5
            self._held -= header.size + 5
            self._needed = 1
            self.frames += 1
            return header._replace(payload=self._data[begin:end]) if header.size else header
        if not TRAILER.startswith(trailer):
            raise RemoteProtocolError("a frame's payload is not followed by its trailer")
        self._header = header
        self._needed = max(header.size, self._held) + 1
        return None

    def _read_header(self) -> Frame | Seq | None:
        data, position = self._data, self._position
        if found := _DATA.match(data, position):
            frame = self._data_header(found)
        elif found := _SEQ.match(data, position):
            frame = self._seq(found)
        else:
            self._check_begun(data[position : position + _LONGEST_HEADER])
            self._needed = self._held + 1
            return None
        self._position = found.end()
        self._held -= self._position - position
        self._needed = 1
        return frame

    @staticmethod
    def _data_header(found: re.Match[bytes]) -> Frame | Seq:
        keyword, channel, msgno, more, seqno, size, ansno = found.groups()
        frame = Frame(
            *(keyword, int(channel), int(msgno), more == b".", int(seqno), int(size)),
            -1 if ansno is None else int(ansno),
        )
        if frame.channel > MAX_NUMBER or frame.msgno > MAX_NUMBER or frame.size > MAX_NUMBER or frame.seqno > MASK:
            raise RemoteProtocolError("a number in a frame header is out of its range")
        # The ABNF ends answer numbers at 2147483647, the prose of section 2.2.1.1 at 4294967295: both are taken.
        if (keyword == ANS) != (ansno is not None) or frame.ansno > MASK:
            raise RemoteProtocolError("an answer number is where none belongs, is missing or is out of its range")
        if keyword == NUL and (frame.size or not frame.is_last):
            raise RemoteProtocolError("a NUL frame is neither empty nor the last")
        return frame

    @staticmethod
    def _seq(found: re.Match[bytes]) -> Seq:
        seq = Seq(*map(int, found.groups()))
        if seq.channel > MAX_NUMBER or seq.ackno > MASK or seq.window > MAX_NUMBER:
            raise RemoteProtocolError("a number in a SEQ frame is out of its range")
        return seq

    @staticmethod
    def _check_begun(begun: bytes) -> None:
        """Refuse at the first octet that no header can have there, so that nobody waits for the rest of nonsense."""
        if len(begun) == _LONGEST_HEADER or b"\n" in begun:
            raise RemoteProtocolError("a frame header that the grammar does not allow")
        if not _BEGUN.fullmatch(begun[:3]) or (len(begun) > 3 and not _REST.fullmatch(begun, 3)):
            raise RemoteProtocolError("a frame header that the grammar does not allow")

"""``beep/frames.py``: the grammar of RFC 3080 section 2.2.1 and RFC 3081 section 3.1.3, and nothing else."""

from __future__ import annotations

import pytest

from comity.beep.frames import Frame, FrameReader, Seq
from comity.errors import RemoteProtocolError


def admit(frame: Frame) -> None:
    if frame.size > 100_000:
        raise RemoteProtocolError("too large")


def read(octets: bytes, cut: int = 0) -> list[Frame | Seq]:
    reader = FrameReader(admit)
    found = []
    for chunk in [octets[i : i + cut] for i in range(0, len(octets), cut)] if cut else [octets]:
        reader.feed(chunk)
        while (frame := reader.next_frame()) is not None:
            found.append(frame)
    return found


GOOD = [
    (b"MSG 0 1 . 52 3\r\nabcEND\r\n", Frame(b"MSG", 0, 1, True, 52, 3, -1, b"abc")),
    (b"RPY 0 0 * 0 0\r\nEND\r\n", Frame(b"RPY", 0, 0, False, 0, 0, -1, b"")),
    (
        b"ERR 2147483647 2147483647 . 4294967295 5\r\nEND\r\nEND\r\n",
        Frame(b"ERR", 2147483647, 2147483647, True, 4294967295, 5, -1, b"END\r\n"),
    ),
    (b"ANS 1 0 * 40 2 2147483647\r\n\r\nEND\r\n", Frame(b"ANS", 1, 0, False, 40, 2, 2147483647, b"\r\n")),
    (b"NUL 1 0 . 7 0\r\nEND\r\n", Frame(b"NUL", 1, 0, True, 7, 0, -1, b"")),
    (b"SEQ 0 4294967295 2147483647\r\n", Seq(0, 4294967295, 2147483647)),
]

POOR = [
    *(b"XXX 0 0 . 0 5\r\n", b"msg 0 1 . 0 0\r\nEND\r\n", b"MSG  0 1 . 0 0\r\n", b"MSG 00 1 . 0 0\r\n"),
    *(
        b"MSG +1 1 . 0 0\r\n",
        b"MSG -1 1 . 0 0\r\n",
        b"MSG 0 1 . 0 0\nEND\r\n",
        b"MSG 0 1 . 0 0 \r\n",
        b"MSG 0 1 , 0 0\r\n",
    ),
    *(b"MSG 2147483648 1 . 0 0\r\nEND\r\n", b"MSG 0 2147483648 . 0 0\r\nEND\r\n", b"MSG 0 1 . 4294967296 0\r\nEND\r\n"),
    *(
        b"MSG 0 1 . 0 2147483648\r\n",
        b"MSG 0 1 . 0\r\nEND\r\n",
        b"MSG 0 1 . 0 0 0\r\nEND\r\n",
        b"ANS 0 1 . 0 0\r\nEND\r\n",
    ),
    *(
        b"ANS 0 1 . 0 0 4294967296\r\nEND\r\n",
        b"NUL 0 1 * 0 0\r\nEND\r\n",
        b"NUL 0 1 . 0 1\r\nxEND\r\n",
        b"MSG 0 1 . 0 100001\r\n",
    ),
    *(
        b"MSG 0 1 . 0 3\r\nabcENDX",
        b"MSG 0 1 . 0 3\r\nabcEND\n",
        b"MSG 0 1 . 0 3\r\nabcdEND\r\n",
        b"MSG 0 1 . 0 3\r\nabEND\r\n",
    ),
    *(
        b"SEQ 0 0\r\n",
        b"SEQ 0 0 2147483648\r\n",
        b"SEQ 2147483648 0 0\r\n",
        b"SEQ 0 4294967296 0\r\n",
        b"SEQ 0 01 0\r\n",
    ),
    *(
        b"SEQ 0 0 1 1\r\n",
        b"\r\nMSG 0 1 . 0 0\r\nEND\r\n",
        b" MSG",
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"MSGX",
        b"MSG 0" + b"0" * 80,
    ),
    *(b"MSG 0 1 . 0 99999999999\r\n", b"MSG \xd9\xa1 1 . 0 0\r\n", b"MSG 0 1 .  0 0\r\nEND\r\n", b"MSG\t0 1 . 0 0\r\n"),
]


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 7])
def test_good_frames_are_read_however_they_are_cut(cut: int) -> None:
    """APEX-1: also a payload that holds a trailer."""
    octets = b"".join(octets for octets, _ in GOOD)
    assert read(octets, cut) == [frame for _, frame in GOOD]


@pytest.mark.parametrize("octets", POOR)
def test_a_poor_frame_is_refused(octets: bytes) -> None:
    """P-01, P-02, P-03, P-09, P-10, P-11; without waiting for octets that could not mend it."""
    for cut in (0, 1):
        with pytest.raises(RemoteProtocolError):
            read(GOOD[0][0] + octets, cut)


def test_a_frame_that_can_still_become_good_is_waited_for() -> None:
    """Every beginning of every good frame."""
    for octets, _ in GOOD:
        for end in range(len(octets)):
            assert read(octets[:end]) == []


def test_the_header_is_checked_before_its_payload_is_there() -> None:
    """P-09: no room is made for what may not come."""
    with pytest.raises(RemoteProtocolError):
        read(b"MSG 0 1 . 0 2147483647\r\n0123456789")


def test_trickled_octets_cost_no_more_than_their_number() -> None:
    """P-16, O(n): 64 KiB in single octets are joined a handful of times, not 65,536."""
    reader = FrameReader(admit)
    octets = b"MSG 1 0 . 0 65536\r\n" + b"x" * 65536 + b"END\r\n"
    looked = 0
    for i in range(len(octets)):
        reader.feed(octets[i : i + 1])
        before = reader._data
        assert reader.next_frame() is None or i == len(octets) - 1
        looked += reader._data is not before
    assert reader.frames == 1
    assert looked < 40

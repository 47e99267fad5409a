"""What a BEEP session is made with: what it announces, and what a peer may cost (reliability.md sections 2.11 and 6.2).

Place on the path: beside it. Sizes in octets, times in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: Every channel begins with this window (RFC 3081 section 3.1.1): nobody may ask for less, nobody is promised more.
FIRST_WINDOW: Final = 4096


@dataclass(frozen=True, slots=True)
class BeepOptions:
    """Options of one session."""

    profiles: tuple[str, ...] = ()
    """URIs in our greeting."""
    features: tuple[str, ...] = ()
    localize: tuple[str, ...] = ()
    """Languages we want diagnostics in, best first."""
    unavailable: tuple[int, str] | None = None
    """Listener only: greet with this error (421 and its text) instead, and end (RFC 3080 section 2.4)."""
    translations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Language to English text to its translation, besides our own (I18N-2)."""
    window: int = FIRST_WINDOW
    """What a new channel is widened to at once; less than the first window cannot be had."""
    window_max: int = 64 * 1024
    """Most octets the peer may send ahead on one channel; the window grows to this while a channel is busy."""
    frame: int = 64 * 1024
    """Largest payload of one frame taken: no window is wider."""
    frame_sent: int = 4096
    """Largest payload we put in one frame."""
    channels: int = 32
    """Open at once, of both sides together, without channel 0; the next is refused with 450."""
    message: int = 1024 * 1024
    """Largest message taken; a longer MSG is answered with 554, a longer reply ends the session."""
    unfinished: int = 4 * 1024 * 1024
    """Octets of all messages begun and not complete together; above it the session ends."""
    messages: int = 64
    """MSGs on one channel whose replies are not sent yet: from here on the peer's window is not widened."""
    greeting_deadline: float = 30.0
    """From the start (or the reset) to the peer's greeting."""
    frame_deadline: float = 120.0
    """From the first octet of a frame to its last, and from one frame of a message to its next."""
    window_deadline: float = 300.0
    """How long something of ours may wait for a window that the peer does not open."""

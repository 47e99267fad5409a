"""A BEEP session without sockets and clocks (RFC 3080, mapped onto one octet stream by RFC 3081)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from comity.beep.events import Event, ProfileOffer
from comity.beep.options import BeepOptions


class BeepSession:
    """One BEEP session (signatures; the bodies follow)."""

    def __init__(self, role: Literal["initiator", "listener"], options: BeepOptions, now: float) -> None:
        self.role = role
        self.options = options
        self.server_name = ""
        """serverName of the first channel that was started (RFC 3080 section 2.3.1.2)."""
        self.is_ended = False

    # --- the contract of ``bindings.base.Session`` ---
    def receive_data(self, data: bytes, now: float) -> None: ...
    def receive_eof(self, now: float) -> None: ...
    def next_event(self) -> Event | None:
        raise NotImplementedError

    def data_to_send(self, now: float) -> list[bytes]:
        raise NotImplementedError

    def next_timer(self) -> float | None:
        raise NotImplementedError

    def handle_timer(self, now: float) -> None: ...

    # --- verbs ---
    def start_channel(self, profiles: Sequence[ProfileOffer], server_name: str = "") -> int:
        """Ask for a channel; returns its number. ``ChannelStarted`` or ``ChannelRefused`` answers."""
        raise NotImplementedError

    def accept_channel(self, number: int, uri: str, content: bytes = b"") -> None:
        """Answer ``ChannelWanted`` with the profile chosen and our initialization message."""

    def refuse_channel(self, number: int, code: int, text: str = "") -> None:
        """Answer ``ChannelWanted`` with an error."""

    def send_message(self, channel: int, payload: bytes) -> int:
        """Send a MSG; returns its number."""
        raise NotImplementedError

    def reply(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with RPY."""

    def reply_error(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with ERR."""

    def answer(self, channel: int, msgno: int, payload: bytes) -> None:
        """Answer a message with one ANS of several."""

    def end_answers(self, channel: int, msgno: int) -> None:
        """Say with NUL that there are no more answers."""

    def close_channel(self, number: int, code: int = 200, text: str = "") -> None:
        """Ask to close a channel, or to release the session (0), once our messages on it are answered."""

    def accept_close(self, number: int) -> None:
        """Answer ``CloseWanted``: agreed, as soon as everything on the channel is answered."""

    def refuse_close(self, number: int, code: int, text: str = "") -> None:
        """Answer ``CloseWanted`` with an error."""

    def reset(self, now: float, options: BeepOptions | None = None) -> None:
        """Tuning reset: all channels are gone, a new greeting goes out."""

    def hold(self, channel: int) -> None:
        """Do not widen the peer's window on ``channel`` until ``resume``."""

    def resume(self, channel: int) -> None:
        """Widen the peer's window again."""

    def waiting(self, channel: int) -> int:
        """Octets of ours not sent yet on ``channel``."""
        raise NotImplementedError

    def close(self, reason: str) -> None:
        """End the session without a word (what RFC 3080 section 2.2.1.1 has for poorly formed frames)."""

    def localized(self, text: str) -> tuple[str, str]:
        """``text`` in the language that the peer likes best among those we have, and its tag."""
        raise NotImplementedError

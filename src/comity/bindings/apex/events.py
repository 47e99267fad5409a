"""What an APEX session reports to whoever runs it: frozen dataclasses, past tense.

Place on the path: step 3. Both roles share the vocabulary; each event says which verb of ``ApexSession`` answers it, if any. Those of
TLS and sign-in are ``comity.beep``'s; the first is answered by ``tls_started`` once the link was told to start TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.beep.events import (
    CredentialsWanted,
    ExternalCheckWanted,
    GreetingRefused,
    PasswordCheckWanted,
    SessionEnded,
    SignInFailed,
    SignInSucceeded,
    TlsRefused,
    TlsWanted,
)
from comity.bindings.apex.elements import CoreElement, Error, Ok

RIDE: Final = -1
"""The message number of an element that rode on ``start``: its answer rides on the reply (RFC 3340 section 4.2)."""


@dataclass(frozen=True, slots=True)
class Greeted:
    """The peer's greeting came; again after TLS. Channels may be opened, TLS and sign-in be asked for."""

    profiles: tuple[str, ...]
    """URIs."""
    has_apex: bool
    has_tls: bool
    mechanisms: tuple[str, ...]
    """Of SASL, as the peer names them."""


@dataclass(frozen=True, slots=True)
class ChannelOpened:
    """The APEX channel that we asked for is there."""

    channel: int
    answer: Ok | Error | None
    """To what rode on our ``start``; None if nothing did, or the peer left it unanswered."""


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The peer declined to open the APEX channel that we asked for."""

    channel: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """An APEX channel is gone, and with it what was attached or bound on it (RFC 3340 section 6.1.1)."""

    channel: int


@dataclass(frozen=True, slots=True)
class ElementReceived:
    """Attach, bind, terminate or data: answer with ``answer(channel, msgno, …)``."""

    channel: int
    msgno: int
    """``RIDE`` if it rode on ``start``."""
    element: CoreElement
    raw: bytes
    """The BEEP payload as it came."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The reply to an element of ours."""

    handle: int
    """As ``send`` gave it."""
    element: Ok | Error


@dataclass(frozen=True, slots=True)
class ReleaseRefused:
    """The peer does not agree to end the session now, which goes on."""

    code: int
    text: str


Event = (
    Greeted
    | GreetingRefused
    | TlsWanted
    | TlsRefused
    | CredentialsWanted
    | PasswordCheckWanted
    | ExternalCheckWanted
    | SignInSucceeded
    | SignInFailed
    | ChannelOpened
    | ChannelRefused
    | ChannelClosed
    | ElementReceived
    | Answered
    | ReleaseRefused
    | SessionEnded
)

__all__ = [
    "RIDE",
    "Answered",
    "ChannelClosed",
    "ChannelOpened",
    "ChannelRefused",
    "CredentialsWanted",
    "ElementReceived",
    "Event",
    "ExternalCheckWanted",
    "Greeted",
    "GreetingRefused",
    "PasswordCheckWanted",
    "ReleaseRefused",
    "SessionEnded",
    "SignInFailed",
    "SignInSucceeded",
    "TlsRefused",
    "TlsWanted",
]

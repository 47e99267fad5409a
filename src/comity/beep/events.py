"""What a BEEP session reports to whoever runs it: frozen dataclasses, past tense.

Place on the path: step 3. Each event says which verb of ``BeepSession`` answers it, if any. ``payload`` is always the whole
payload of a BEEP message as it stood: MIME entity headers, an empty line, octets (RFC 3080 section 2.2); a payload that
begins with CR LF has the default headers (application/octet-stream, binary).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.sasl import ScramSecret


@dataclass(frozen=True, slots=True)
class ProfileOffer:
    """One profile proposed for a channel."""

    uri: str
    content: bytes = b""
    """The initialization message, decoded; b"" if there is none. At most 4096 octets (RFC 3080 section 2.3.1.2)."""


@dataclass(frozen=True, slots=True)
class GreetingReceived:
    """The peer is there; channels may be started."""

    profiles: tuple[str, ...]
    """URIs of the profiles it supports as a server."""
    features: tuple[str, ...] = ()
    localize: tuple[str, ...] = ()
    """Language tags it wants diagnostics in, best first."""


@dataclass(frozen=True, slots=True)
class GreetingRefused:
    """The peer is not available (RFC 3080 section 2.4); ``SessionEnded`` follows."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class ChannelWanted:
    """The peer asks for a channel: answer with ``accept_channel`` or ``refuse_channel``."""

    number: int
    server_name: str
    profiles: tuple[ProfileOffer, ...]
    """At least one, in the peer's order."""


@dataclass(frozen=True, slots=True)
class ChannelStarted:
    """The peer made the channel that we asked for."""

    number: int
    uri: str
    """The profile it chose among ours."""
    content: bytes
    """Its answer to our initialization message, decoded; b"" if there is none."""


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The peer declined to make the channel that we asked for."""

    number: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class MessageReceived:
    """A MSG: answer with ``reply``, ``reply_error``, or ``answer`` and ``end_answers``.

    Answers may be given in any order; the session sends them in the order of the messages (RFC 3080 section 2.6.1)."""

    channel: int
    msgno: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReplyReceived:
    """The RPY to a message of ours."""

    channel: int
    msgno: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ErrorReceived:
    """The ERR to a message of ours."""

    channel: int
    msgno: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class AnswerReceived:
    """One ANS to a message of ours; others or ``AnswersEnded`` follow."""

    channel: int
    msgno: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class AnswersEnded:
    """The NUL to a message of ours: there are no more answers."""

    channel: int
    msgno: int


@dataclass(frozen=True, slots=True)
class CloseWanted:
    """The peer asks to close a channel, or to release the session (0): answer ``accept_close`` or ``refuse_close``."""

    channel: int
    code: int


@dataclass(frozen=True, slots=True)
class ChannelClosed:
    """A channel is gone: the peer agreed to our close, or our agreement to its close was sent."""

    channel: int


@dataclass(frozen=True, slots=True)
class CloseRefused:
    """The peer declined to close the channel, or to release the session (0), which goes on as before."""

    channel: int
    code: int
    text: str


@dataclass(frozen=True, slots=True)
class SessionEnded:
    """The session is over and says no more; close the connection once everything is written (abort it if ``is_error``)."""

    reason: str
    """One line for the log."""
    is_error: bool
    """True unless both sides agreed to release the session."""


# --- of the tuning profiles -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TlsWanted:
    """Both sides agreed: start TLS once what is queued is written, then ``BeepSession.reset``."""


@dataclass(frozen=True, slots=True)
class TlsRefused:
    """The peer does not start TLS; the session goes on in the clear."""

    code: int
    text: str


@dataclass(frozen=True, slots=True)
class CredentialsWanted:
    """Answer with ``SaslServer.credentials(secrets)``, with None if there is no such account, or with ``fail``."""

    username: str
    """As the client wrote it."""
    authzid: str
    """Whom it wants to act for, "" for itself; the caller judges."""


@dataclass(frozen=True, slots=True)
class PasswordCheckWanted:
    """Compare (off the event loop: it costs 20 ms) with ``sasl.check_password`` and answer ``password_checked``."""

    password: str = field(repr=False)
    hash_name: str
    secret: ScramSecret = field(repr=False)


@dataclass(frozen=True, slots=True)
class ExternalCheckWanted:
    """EXTERNAL: answer ``external_checked`` with the identity that TLS or the network proved, None if it is not this one."""

    authzid: str
    """Whom the client wants to be, "" for whatever was proved."""


@dataclass(frozen=True, slots=True)
class SignInSucceeded:
    """The identity of the whole session from now on (RFC 3080 section 4)."""

    identity: str
    mechanism: str


@dataclass(frozen=True, slots=True)
class SignInFailed:
    """An attempt failed: of the peer (server), or ours (client; 0: we gave up ourselves)."""

    identity: str
    code: int
    text: str


TuningEvent = (
    TlsWanted
    | TlsRefused
    | CredentialsWanted
    | PasswordCheckWanted
    | ExternalCheckWanted
    | SignInSucceeded
    | SignInFailed
)

Event = (
    GreetingReceived
    | GreetingRefused
    | ChannelWanted
    | ChannelStarted
    | ChannelRefused
    | MessageReceived
    | ReplyReceived
    | ErrorReceived
    | AnswerReceived
    | AnswersEnded
    | CloseWanted
    | ChannelClosed
    | CloseRefused
    | SessionEnded
)

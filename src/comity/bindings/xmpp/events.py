"""What the XMPP sessions report to whoever runs them.

Place on the path: step 3. Both sides share the vocabulary; each event says which verb answers it, if any.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from comity.bindings.xmpp.jid import Jid
from comity.sasl import ScramSecret
from comity.xml import Element


@dataclass(frozen=True, slots=True)
class TlsWanted:
    """Start TLS on the connection once what is queued has been written; nothing may be read in between."""

    host: str = ""
    """On the client: the domain the server's certificate must hold (RFC 6120 section 13.7.2)."""


@dataclass(frozen=True, slots=True)
class CredentialsWanted:
    """Answer with ``credentials(secrets)``, or ``credentials(None)`` if there is no such account."""

    account: Jid
    """Bare."""


@dataclass(frozen=True, slots=True)
class PasswordCheckWanted:
    """Compare (off the event loop: it costs 20 ms) with ``sasl.check_password`` and answer ``password_checked``."""

    password: str = field(repr=False)
    hash_name: str
    secret: ScramSecret = field(repr=False)


@dataclass(frozen=True, slots=True)
class SignInSucceeded:
    """The account is proved; the principal is fixed for the life of the session."""

    account: Jid
    mechanism: str


@dataclass(frozen=True, slots=True)
class SignInFailed:
    """An attempt failed (server), or the server refused us (client)."""

    account: Jid | None
    condition: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class HandshakeSucceeded:
    """A component and its host know the same secret (XEP-0114): stanzas may flow."""

    domain: str
    """The component's, U-labels."""


@dataclass(frozen=True, slots=True)
class HandshakeFailed:
    """Somebody showed a wrong secret for a component."""

    domain: str
    condition: str


@dataclass(frozen=True, slots=True)
class ResourceBound:
    """The stream may carry stanzas now."""

    jid: Jid
    """Full."""
    is_sm_offered: bool = False
    """Client: the server offers stream management."""


@dataclass(frozen=True, slots=True)
class StanzaReceived:
    """A checked stanza. Server: ``from`` is stamped. Call ``stanza_handled(index)`` when done with it."""

    stanza: Element
    index: int


@dataclass(frozen=True, slots=True)
class SmEnabled:
    """Stream management is on (XEP-0198)."""

    id: str
    """What the client shows to resume; "" if it may not."""
    resume_seconds: float


@dataclass(frozen=True, slots=True)
class ResumeWanted:
    """The client wants to go on with a lost stream: answer ``resume(state)`` or ``refuse_resume()``."""

    previous_id: str
    handled: int
    """The ``h`` it shows."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """The former stream goes on here."""

    jid: Jid
    """What was written and not confirmed has been written again."""


@dataclass(frozen=True, slots=True)
class CountWanted:
    """The peer asks for ``h``: keep that all stanzas up to ``index`` are handled, then call ``count_kept(index)``."""

    index: int


@dataclass(frozen=True, slots=True)
class StanzasAcknowledged:
    """The peer has taken these stanzas, in the order they were sent."""

    keys: tuple[object, ...]
    """As given to ``send_stanza``."""


@dataclass(frozen=True, slots=True)
class DomainProved:
    """The other server may speak for this domain from now on."""

    domain: str
    """U-labels."""
    mechanism: str
    """EXTERNAL, certificate (named by it beside the one that EXTERNAL was about) or dialback."""


@dataclass(frozen=True, slots=True)
class DialbackWanted:
    """Ask the server of ``domain`` whether the key is its own, and answer ``dialback_checked``."""

    domain: str
    to: str
    """Which of our domains it was shown to."""
    key: str = field(repr=False)
    stream_id: str


@dataclass(frozen=True, slots=True)
class DialbackAnswered:
    """The other server says whether a key is its own."""

    stream_id: str
    """As asked."""
    is_valid: bool


@dataclass(frozen=True, slots=True)
class StreamReady:
    """A stream that we opened carries stanzas from now on."""

    has_acknowledgements: bool
    """The other server offers stream management, which is on."""


@dataclass(frozen=True, slots=True)
class StreamRefused:
    """A stream that we opened will carry nothing."""

    condition: str
    text: str


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream is over; close the connection once everything is written."""

    condition: str = ""
    """Stream error sent or received; "" after an orderly close."""
    text: str = ""
    is_local: bool = True
    """True if this side ended it."""
    is_orderly: bool = False
    """True if both sides said goodbye: nothing to resume."""


Event = (
    TlsWanted
    | CredentialsWanted
    | PasswordCheckWanted
    | SignInSucceeded
    | SignInFailed
    | HandshakeSucceeded
    | HandshakeFailed
    | ResourceBound
    | StanzaReceived
    | CountWanted
    | SmEnabled
    | ResumeWanted
    | Resumed
    | StanzasAcknowledged
    | DomainProved
    | DialbackWanted
    | DialbackAnswered
    | StreamReady
    | StreamRefused
    | StreamEnded
)

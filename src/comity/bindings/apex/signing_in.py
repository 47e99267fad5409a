"""What comes before APEX on a session: the greeting, TLS and SASL (RFC 3080 sections 2.3, 3.1 and 4).

Place on the path: step 3, the first part of it; ``session.py`` goes on from here. The profiles themselves are ``comity.beep``'s; here
is which of them are offered when. Who is proved never changes afterwards (RFC 3080 section 4), and TLS begins everything anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from comity.beep import events as beep
from comity.beep.options import BeepOptions
from comity.beep.sasl_client import SaslClient
from comity.beep.sasl_profile import SASL, EndPoint
from comity.beep.sasl_server import SaslOptions, SaslServer
from comity.beep.session import BeepSession
from comity.beep.tls_profile import TLS, TlsClient, TlsServer
from comity.bindings.apex.events import Event, Greeted
from comity.bindings.apex.wire import PROFILE
from comity.errors import LocalProtocolError
from comity.sasl import ScramSecret

Role = Literal["initiator", "listener"]
_NO_SIGN_IN: Final = SaslOptions(b"", hashes=())


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What one session offers, and what a peer may cost."""

    limits: BeepOptions = field(default_factory=BeepOptions)
    """Its profiles are filled in here."""
    has_tls: bool = False
    """Listener: the TLS profile is offered."""
    sign_in: SaslOptions = _NO_SIGN_IN
    """Listener: how a peer may sign in; the initiator needs none."""
    pre_auth_seconds: float | None = 30.0
    """Listener: from the first moment to the end of sign-in (P-20)."""
    pre_auth_octets: int = 64 * 1024
    """Listener: of one message before; twice as much of all those that are not complete together."""
    pre_auth_channels: int = 8


class SigningIn(ABC):
    """A session up to its sign-in; see ``ApexSession`` for the arguments."""

    def __init__(
        self, role: Role, options: SessionOptions, end_point: EndPoint, random: Callable[[int], bytes], now: float
    ) -> None:
        self._role: Role = role
        self._options = options
        self._end_point = end_point
        self._random = random
        self._events: deque[Event] = deque()
        self._due = None if role == "initiator" or options.pre_auth_seconds is None else now + options.pre_auth_seconds
        self._profiles: tuple[str, ...] = ()
        """Of the peer's greeting."""
        self._is_starting_tls = False
        self._is_stranger = role == "listener"
        """Nobody yet: may cost little."""
        self._beep = BeepSession(role, options.limits, now)
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Both sides greet: at first, and anew under TLS."""
        session, emit = self._beep, self._emit
        if self._role == "initiator":
            self._asking_tls = TlsClient(session, emit)
            self._asking_in = SaslClient(session, emit, self._end_point, self._random)
            self._machines = (self._asking_tls.handle, self._asking_in.handle)
            session.reset(now, self._limits(()))
            return
        has_tls = self._options.has_tls and not self.is_tls
        tls = TlsServer(session, emit, has_tls)
        self._asked = SaslServer(session, emit, self._options.sign_in, self._end_point, self._random)
        self._machines = (tls.handle, self._asked.handle)
        profiles = (PROFILE, *((TLS,) if has_tls else ()), *self._asked.profiles)
        session.reset(now, self._limits(profiles))

    def _limits(self, profiles: tuple[str, ...]) -> BeepOptions:
        """What the peer is offered, and may cost at this stage."""
        limits = replace(self._options.limits, profiles=profiles)
        if not self._is_stranger:
            return limits
        most = self._options.pre_auth_octets
        return replace(
            limits,
            message=min(limits.message, most),
            unfinished=min(limits.unfinished, 2 * most),
            channels=min(limits.channels, self._options.pre_auth_channels),
        )

    def _known(self) -> None:
        """The peer is somebody: it may cost what they may."""
        self._due = None
        if self._is_stranger:
            self._is_stranger = False
            self._beep.allow(self._limits(self._beep.options.profiles))

    # --- the contract of a session -------------------------------------------------------------------------------------

    def receive_data(self, data: bytes, now: float) -> None:
        """Take octets read from the connection."""
        self._begin_anew(now)
        self._beep.receive_data(data, now)
        self._take_events()

    def receive_eof(self, now: float) -> None:
        """The peer will send no more."""
        self._beep.receive_eof(now)
        self._take_events()

    def next_event(self) -> Event | None:
        """The next event, or None."""
        if not self._events:
            self._take_events()  # what a verb did
        return self._events.popleft() if self._events else None

    def data_to_send(self, now: float) -> list[bytes]:
        """Octets to write."""
        self._begin_anew(now)
        return self._beep.data_to_send(now)

    def next_timer(self) -> float | None:
        """When ``handle_timer`` wants to be called."""
        due = self._beep.next_timer()
        if self.is_ended or self._due is None:
            return due
        return self._due if due is None else min(due, self._due)

    def handle_timer(self, now: float) -> None:
        """End the session if nobody signed in in time, or a frame was not finished."""
        if self._due is not None and now >= self._due:
            self._due = None
            self._beep.close("nobody signed in in time")
        self._beep.handle_timer(now)
        self._take_events()

    # --- who is there --------------------------------------------------------------------------------------------------

    @property
    def is_ended(self) -> bool:
        """True when nothing more happens."""
        return self._beep.is_ended

    @property
    def is_tls(self) -> bool:
        """True under TLS."""
        return self._end_point() is not None

    @property
    def identity(self) -> str:
        """Who signed in: the peer at a listener, we at an initiator; "" before."""
        return self._beep.identity

    def admit(self) -> None:
        """The peer may stay without signing in: it is known by its address."""
        self._known()

    # --- verbs of the listener -----------------------------------------------------------------------------------------

    def credentials(self, secrets: Mapping[str, ScramSecret] | None) -> None:
        """Answer ``CredentialsWanted``: secrets by hash name, None if there is no such account."""
        self._asked.credentials(secrets)

    def password_checked(self, is_right: bool) -> None:
        """Answer ``PasswordCheckWanted``."""
        self._asked.password_checked(is_right)

    def external_checked(self, identity: str | None) -> None:
        """Answer ``ExternalCheckWanted``: who the certificate proves the peer to be, None for nobody that it may be."""
        self._asked.external_checked(identity)

    def fail_sign_in(self, code: int, text: str = "") -> None:
        """Answer any of them with an error: 454 if the accounts cannot be asked now, 537 for an identity not allowed."""
        self._asked.fail(code, text)

    # --- verbs of both -------------------------------------------------------------------------------------------------

    def tls_started(self, now: float) -> None:
        """Answer ``TlsWanted``, after the link was told to start TLS: everything begins anew under it.

        Not before the handshake is over: what is offered depends on what it proved."""
        self._is_starting_tls = True
        self._begin_anew(now)

    def _begin_anew(self, now: float) -> None:
        if self._is_starting_tls and self.is_tls:
            self._is_starting_tls = False
            if not self.is_ended:
                self._begin(now)

    # --- verbs of the initiator ----------------------------------------------------------------------------------------

    def start_tls(self, server_name: str = "") -> None:
        """Ask for TLS; ``TlsWanted`` or ``TlsRefused`` answers."""
        self._need_initiator()
        self._asking_tls.start(server_name)

    def sign_in(self, username: str, password: str, server_name: str = "") -> None:
        """Prove by a password who we are, with the best mechanism both sides have; ``SignInSucceeded`` or ``SignInFailed``
        answers. PLAIN only under TLS."""
        self._need_initiator()
        self._asking_in.sign_in(username, password, self._profiles, server_name=server_name)

    def sign_in_external(self, identity: str = "", server_name: str = "") -> None:
        """Prove by our certificate who we are."""
        self._need_initiator()
        self._asking_in.sign_in_external(identity, server_name=server_name)

    def _need_initiator(self) -> None:
        if self._role != "initiator":
            raise LocalProtocolError("only the initiator asks for TLS and signs in")

    # --- events --------------------------------------------------------------------------------------------------------

    def _emit(self, event: beep.TuningEvent) -> None:
        if isinstance(event, beep.SignInSucceeded):
            self._known()
        self._events.append(event)

    def _take_events(self) -> None:
        while (event := self._beep.next_event()) is not None:
            if any(handle(event) for handle in self._machines):
                continue
            if isinstance(event, beep.GreetingReceived):
                self._greeted(event.profiles)
            elif isinstance(event, beep.GreetingRefused | beep.SessionEnded):
                self._events.append(event)
            else:
                self._take(event)

    def _greeted(self, profiles: tuple[str, ...]) -> None:
        self._profiles = profiles
        names = tuple(uri.removeprefix(SASL) for uri in profiles if uri.startswith(SASL))
        self._events.append(Greeted(profiles, PROFILE in profiles, TLS in profiles, names))

    @abstractmethod
    def _take(self, event: beep.Event) -> None:
        """An event that is not about signing in."""

"""What every driven stock client offers, and the list of them.

A driver module per client (``baresip.py``, ``linphone.py``, ``pjsua.py``, ``twinkle.py``, ``mcabber.py``, ``profanity.py``,
``purple.py``, ``slixmpp_client.py``) turns these few verbs into that client's own interface. ``docs/howto/connect-your-client.md`` tells users the same
settings and limits; keep the two together.
"""

from __future__ import annotations

import html
import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from tests.interop.program import Program

Protocol = Literal["sip", "xmpp"]
Transport = Literal["udp", "tcp", "tls", "starttls"]
Notice = Literal["typing", "receipt", "refused"]
State = Literal["online", "away", "busy", "offline", "unknown"]
"""What a client shows of somebody; unknown: nothing was said."""

UNLIMITED = 1 << 20
"""Octets no test comes near."""


@dataclass(frozen=True, slots=True)
class SignIn:
    """Everything a user types into a client's account dialogue."""

    address: str
    """``alice@a.test``, without a scheme."""
    password: str
    host: str
    port: int
    transport: Transport
    ca_file: Path
    """PEM certificates the client is to trust."""
    contacts: tuple[str, ...] = ()
    """Bare addresses in its contact list; some clients send to nobody else."""
    presence: bool = False
    """Whether its user turned presence on, where that is a choice: some SIP clients ask for all contacts then."""

    @property
    def user(self) -> str:
        return self.address.partition("@")[0]

    @property
    def domain(self) -> str:
        return self.address.partition("@")[2]


@dataclass(frozen=True, slots=True)
class Received:
    """One text as the client showed it."""

    sender: str
    """Bare address, without scheme, resource or parameters."""
    text: str
    """Line ends as LF."""

    def __str__(self) -> str:
        """Short enough for a failure's message; the middle of a long text is left out."""
        text = self.text if len(self.text) <= 200 else f"{self.text[:80]} … {self.text[-80:]}"
        return f"{text!r} ({len(self.text)} characters) from {self.sender}"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client shows of somebody's presence."""

    state: State
    note: str = ""


@dataclass(frozen=True, slots=True)
class Presence:
    """What the client can do about presence, found by trying."""

    tells: frozenset[State] = frozenset()
    """States its user can choose; "offline" only where that is possible without signing out."""
    shows: frozenset[State] = frozenset()
    """States it tells apart."""
    away_as: State = "online"
    """What it shows of people who are away, if it does not show that."""
    tells_notes: bool = False
    shows_notes: bool = False
    knows_escapes: bool = True
    """False: ``&lt;`` is shown as it stands in the XML, and ``<`` written as it was typed, which is no XML."""
    answers: bool = False
    """Whether its user can approve or refuse who asks."""
    blocks: bool = False

    def as_shown(self, seen: Seen) -> Seen:
        """What is left of ``seen`` in this client.

        Of those who are offline only that: some servers and clients put words of their own there.
        """
        instead = self.away_as if seen.state == "away" else "online"
        state = seen.state if seen.state in self.shows or seen.state in ("offline", "unknown") else instead
        note = seen.note if self.shows_notes and state not in ("unknown", "offline") else ""
        return Seen(state, note if self.knows_escapes else html.unescape(note))


@dataclass(frozen=True, slots=True)
class Limits:
    """What the client itself cannot do, found by trying; each is explained in docs/howto/connect-your-client.md."""

    send_octets: int = UNLIMITED
    """Longest text it sends, in octets of UTF-8."""
    show_octets: int = UNLIMITED
    """Longest text it shows whole."""
    sends_lines: bool = True
    """Whether its interface can send a text of several lines."""

    def can_send(self, text: str) -> bool:
        return len(text.encode()) <= self.send_octets and (self.sends_lines or "\n" not in text)

    def can_show(self, text: str) -> bool:
        return len(text.encode()) <= self.show_octets


class StockClient(ABC):
    """A signed-in client somebody else wrote, in its own HOME and process group."""

    name: ClassVar[str]
    program: ClassVar[str | None]
    """Debian's program or shared library it needs; None for a package of Python."""
    module: ClassVar[str | None] = None
    """The package of Python it needs."""
    protocol: ClassVar[Protocol]
    transports: ClassVar[tuple[Transport, ...]]
    limits: ClassVar[Limits] = Limits()
    tells_typing: ClassVar[bool] = False
    """Whether its driver can make it tell that its user is typing."""
    shows: ClassVar[frozenset[Notice]] = frozenset()
    """Which notices its driver sees it show."""
    presence: ClassVar[Presence] = Presence()
    shows_copies: ClassVar[bool] = False
    """Whether it shows what other devices of its account send (XEP-0280), and its driver sees that."""

    def __init__(self, home: Path, sign_in: SignIn) -> None:
        if sign_in.transport not in self.transports:
            raise ValueError(f"{self.name} has no transport {sign_in.transport}: {self.transports}")
        self.home = home
        self.sign_in = sign_in
        self._program: Program | None = None

    @abstractmethod
    def start(self) -> None:
        """Start it and return once the server has accepted its sign-in; AssertionError if it does not in time."""

    def sign_in_again(self) -> None:
        """What its user does when the server was away and the client does not come back by itself."""
        raise NotImplementedError(f"{self.name} comes back by itself")

    @abstractmethod
    def send(self, to: str, text: str) -> None:
        """Send ``text`` to the bare address ``to`` the way a user would; returns once the client has taken it."""

    @abstractmethod
    def received(self) -> list[Received]:
        """Every text shown so far, oldest first."""

    @abstractmethod
    def wait_received(self, sender: str, text: str, seconds: float = 20.0) -> None:
        """Wait until ``text`` from ``sender`` was shown; AssertionError after ``seconds``."""

    def tell_typing(self, to: str) -> None:
        """Let ``to`` see that the user is typing; returns once the client was told to."""
        raise NotImplementedError(f"{self.name} was not taught to tell of typing")

    def wait_copy(self, text: str) -> None:
        """Wait until ``text``, which another device of the account sent, is shown as the user's own."""
        raise NotImplementedError(f"{self.name} was not taught to show copies")

    def notices(self, kind: Notice) -> list[str]:
        """Bare addresses of those whose notice of this kind was shown, one each time."""
        raise NotImplementedError(f"{self.name} was not taught to show notices")

    def wait_notice(self, kind: Notice, who: str) -> None:
        """Wait until a notice of this kind about ``who`` was shown."""
        raise NotImplementedError(f"{self.name} was not taught to show notices")

    # --- presence ----------------------------------------------------------------------------------------------------

    def tell(self, state: State, note: str = "") -> None:
        """Choose one's own presence."""
        raise NotImplementedError(f"{self.name} was not taught to tell its presence")

    def watch(self, who: str) -> None:
        """Ask to see ``who``."""
        raise NotImplementedError(f"{self.name} was not taught to watch")

    def wait_asked(self, who: str) -> None:
        """Wait until ``who`` was shown to ask for one's presence."""
        raise NotImplementedError(f"{self.name} shows no requests")

    def answer(self, who: str, granted: bool) -> None:
        """Let ``who`` see one's presence, or not."""
        raise NotImplementedError(f"{self.name} cannot answer requests")

    def block(self, who: str) -> None:
        """Have nothing more to do with ``who``."""
        raise NotImplementedError(f"{self.name} cannot block")

    def seen(self, who: str) -> Seen:
        """What is shown of ``who`` now."""
        raise NotImplementedError(f"{self.name} was not taught to show presence")

    def wait_seen(self, who: str, state: State, note: str | None = None, seconds: float = 20.0) -> None:
        """Wait until ``who`` is shown so, as far as this client shows it; without ``note`` any will do."""

        def is_so() -> bool:
            shown = self.presence.as_shown(self.seen(who))
            return shown == self.presence.as_shown(Seen(state, shown.note if note is None else note))

        self._running.wait_until(is_so, lambda: f"{who} {state} with {note!r}, but {self.seen(who)}", seconds)

    def kill(self) -> None:
        """kill -9: it says goodbye to nobody."""
        program, self._program = self._program, None
        assert program is not None, "not started"
        program.stop(signal.SIGKILL)

    @property
    def _running(self) -> Program:
        assert self._program is not None, "not started"
        return self._program

    @abstractmethod
    def stop(self) -> None:
        """End the client and everything it started. May be called again, and after a failed ``start``."""


def bare_address(shown: str) -> str:
    """``alice@a.test`` from however a client writes it: ``"A" <sip:alice@a.test;gr=x>``, ``alice@a.test/desk``."""
    inner = shown[shown.index("<") + 1 :] if "<" in shown else shown
    inner = inner.partition(">")[0].removeprefix("sips:").removeprefix("sip:").removeprefix("im:")
    return inner.partition(";")[0].partition("/")[0].strip()


def lines_as_lf(text: str) -> str:
    """Line ends as LF: SIP's text/plain has CR LF, XMPP's body LF."""
    return text.replace("\r\n", "\n")


def listed(received: list[Received]) -> str:
    """The last few of ``received`` for a failure's message."""
    return f"{len(received)} shown, last: {'; '.join(map(str, received[-3:])) or 'nothing'}"

"""Run a sans-IO session: feed it, hand its events to its binding, write what it has to send, arm its timer.

Place on the path: steps 1 and 10. ``tcp.py`` and ``udp.py`` bring octets to ``SessionDriver`` and take octets from it.

Rules: after every call into a session everything it has is taken (events, octets, timer) before the loop
turns; a binding is never called from within one of its own calls to ``flush``, ``close`` or ``abort``;
``link_closed`` comes last, once. ``_guard`` holds the one last-resort ``except`` of the whole program.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Concatenate, ParamSpec

from comity.bindings.base import Binding, DatagramSession, Peer, Session, TlsCheck
from comity.errors import LocalProtocolError
from comity.net.limits import Tally
from comity.service.interfaces import Clock, Timer

logger = logging.getLogger(__name__)

Args = ParamSpec("Args")


class LoopClock:
    """The real clock: the event loop's monotonic time and the system's UTC."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop or asyncio.get_running_loop()

    def now(self) -> float:
        """Monotonic seconds."""
        return self._loop.time()

    def when(self) -> datetime:
        """Aware UTC datetime."""
        return datetime.now(UTC)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``delay`` seconds from now."""
        return self._loop.call_later(delay, callback)


class SessionDriver(ABC):
    """The part of a link that does not depend on the transport; implements ``Link``.

    ``flush`` costs one callback per turn of the loop however often it is called. The session's timer is re-armed
    only when it moves to an earlier time; a later one is noticed when the armed one fires, so that a session
    that pushes its idle timer with every octet costs nothing.
    """

    __slots__ = (
        "_armed_for",
        "_binding",
        "_clock",
        "_flush_handle",
        "_is_running",
        "_loop",
        "_tally",
        "_timer",
        "peer",
        "role",
    )

    def __init__(self, binding: Binding, clock: Clock, tally: Tally, peer: Peer, role: str) -> None:
        self.peer = peer
        self.role = role
        self._binding = binding
        self._clock = clock
        self._tally = tally
        self._loop = asyncio.get_running_loop()
        self._flush_handle: asyncio.Handle | None = None
        self._is_running = False
        self._timer: Timer | None = None
        self._armed_for = 0.0

    # --- Link, common part -------------------------------------------------------------------------------

    def flush(self) -> None:
        """Take events, octets and timer from the session, at the end of this turn of the loop at the latest."""
        if not self._is_running and self._flush_handle is None and self._current() is not None:
            self._flush_handle = self._loop.call_soon(self._flush_now)

    def start_tls(self, check: TlsCheck = "name") -> None:
        """Refuse: only a stream can start TLS."""
        raise LocalProtocolError(f"a {self.peer.transport} link cannot start TLS")

    @abstractmethod
    def authenticated(self) -> None: ...

    @property
    @abstractmethod
    def unsent(self) -> int: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def abort(self) -> None: ...

    @abstractmethod
    def pause_reading(self) -> None: ...

    @abstractmethod
    def resume_reading(self) -> None: ...

    # --- what a transport fills in ------------------------------------------------------------------------

    @abstractmethod
    def _current(self) -> Session | DatagramSession | None:
        """The session, or None before it is made and after the link was aborted or is gone."""

    @abstractmethod
    def _write(self, now: float) -> bool:
        """Take what the session has to send and write it; False if it had nothing."""

    @abstractmethod
    def _failed(self, error: Exception) -> None:
        """Session or binding raised: contain the damage, telling the peer nothing."""

    # --- running the session -------------------------------------------------------------------------------

    def _guard(self, step: Callable[Concatenate[float, Args], object], *args: Args.args, **kwargs: Args.kwargs) -> None:
        """Do one step (called with ``now`` first) and all that follows from it, whatever goes wrong inside.

        This is the last-resort ``except``: an exception here is a mistake of ours, in a session or a binding.
        It costs the peer this link (or this datagram) and is logged, in full once a minute; nothing of it is sent."""
        assert not self._is_running, "a link was driven from within its own callback"
        self._is_running = True
        try:
            now = self._clock.now()
            step(now, *args, **kwargs)
            self._pump(now)
        except Exception as error:
            if self._tally.note(f"Internal error in binding {self._binding.name}", repr(error)):
                logger.exception(
                    "Internal error: binding %s, role %r, %s from %s to %s, %d octets unsent",
                    self._binding.name,
                    self.role,
                    self.peer.transport,
                    self.peer.remote,
                    self.peer.local,
                    self.unsent,
                )
            self._failed(error)
        finally:
            self._is_running = False

    def _pump(self, now: float) -> None:
        """Take everything the session has: events, then octets, until there is nothing; then its timer."""
        while True:
            while (session := self._current()) is not None and (event := session.next_event()) is not None:
                self._binding.handle_event(self, event)
            if session is None or not self._write(now):
                break
        self._arm(now)

    def _flush_now(self) -> None:
        self._flush_handle = None
        self._guard(self._flushing)

    def _flushing(self, now: float) -> None:
        """Do what was waiting for this flush besides the session's own output."""
        return

    def _arm(self, now: float) -> None:
        session = self._current()
        due = None if session is None else session.next_timer()
        if due is None:
            self._disarm()
        elif self._timer is None or due < self._armed_for:
            self._disarm()
            self._armed_for = due
            self._timer = self._clock.call_later(max(due - now, 0.0), self._timer_fired)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timer_fired(self) -> None:
        self._timer = None
        self._guard(self._handle_timer)

    def _handle_timer(self, now: float) -> None:
        session = self._current()
        if session is not None:
            due = session.next_timer()
            if due is not None and due <= now:
                session.handle_timer(now)

    def _stop(self) -> None:
        """Forget what would call back; the link is gone."""
        self._disarm()
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None

"""A history sorted by message: the checker's view of it. Nothing is judged here."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.proof.history import PRESENCE, Event

BREAKS = frozenset({"died", "stopped", "ready", "paused", "cut"})
"""What lets a server or a device not know what the other one did. "ready" of the next life counts too: what a server
wrote before it died may be read after it."""


@dataclass(slots=True)
class Attempt:
    """One time a message was handed to a server."""

    at: int
    """Place of the event in the history; later is greater."""
    invoke: Event
    end: Event | None = None
    ended_at: int = -1

    @property
    def session(self) -> tuple[str, str]:
        """Device and number of its connection."""
        return self.invoke.proc, self.invoke.notes.get("session", "")

    @property
    def op(self) -> str:
        """How it ended; "info" also for one that never did."""
        return self.end.op if self.end is not None else "info"


@dataclass(slots=True)
class Message:
    """All that is known of one message."""

    id: str
    attempts: list[Attempt] = field(default_factory=list)
    deliveries: list[tuple[int, Event]] = field(default_factory=list)
    reports: list[tuple[int, Event]] = field(default_factory=list)

    @property
    def first(self) -> Event:
        """The first invoke; only for messages that have one."""
        return self.attempts[0].invoke

    @property
    def is_acked(self) -> bool:
        """A server said yes to it."""
        return any(attempt.op == "ok" for attempt in self.attempts)

    @property
    def is_refused(self) -> bool:
        """Every attempt got a definite no."""
        return bool(self.attempts) and all(attempt.op == "fail" for attempt in self.attempts)

    @property
    def is_reported_failed(self) -> bool:
        """Its sender was told that it did not arrive, or that nobody knows."""
        return any(event.level in ("failed", "unknown") for _, event in self.reports)


class Ledger:
    """The events of one history by message, lane and device."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = list(events)
        self.messages: dict[str, Message] = {}
        self.breaks: list[int] = []
        """Places of everything the nemesis did."""
        self.deaths: list[int] = []
        self.starts: list[int] = []
        self.session_ends: dict[str, list[int]] = defaultdict(list)
        """By device."""
        self.marks: dict[str, list[tuple[int, Event]]] = defaultdict(list)
        """Events of the run itself, by level."""
        self.presence: list[tuple[int, Event]] = []
        for at, event in enumerate(self.events):
            self._take(at, event)

    def _take(self, at: int, event: Event) -> None:
        if event.op in PRESENCE:
            self.presence.append((at, event))
            return
        if not event.id:
            if event.op == "deliver":
                self._message("").deliveries.append((at, event))
            else:
                self._mark(at, event)
            return
        message = self._message(event.id)
        match event.op:
            case "invoke":
                message.attempts.append(Attempt(at, event))
            case "ok" | "fail" | "info":
                for attempt in reversed(message.attempts):
                    if attempt.end is None and attempt.invoke.proc == event.proc:
                        attempt.end, attempt.ended_at = event, at
                        break
            case "deliver":
                message.deliveries.append((at, event))
            case "report":
                message.reports.append((at, event))

    def _message(self, id: str) -> Message:
        return self.messages.setdefault(id, Message(id))

    def _mark(self, at: int, event: Event) -> None:
        self.marks[event.level].append((at, event))
        if event.level in BREAKS:
            self.breaks.append(at)
        if event.level == "died":
            self.deaths.append(at)
        if event.level == "ready":
            self.starts.append(at)
        if event.level == "disconnected":
            self.session_ends[event.proc].append(at)

    @property
    def sent(self) -> list[Message]:
        """Messages that somebody sent, in the order of their first attempt."""
        return [message for message in self.messages.values() if message.attempts]

    def lanes(self) -> dict[str, list[Message]]:
        """Sent messages by conversation, by number."""
        lanes: dict[str, list[Message]] = defaultdict(list)
        for message in self.sent:
            lanes[message.first.conv].append(message)
        for lane in lanes.values():
            lane.sort(key=lambda message: message.first.k)
        return dict(lanes)

    def cause(self, device: str, first: int, again: int) -> str:
        """Why a device could get a message at two places of the history: "kill", "reconnect" or "" for no reason."""
        if _between(self.breaks, first, again):
            return "kill"
        return "reconnect" if _between(self.session_ends.get(device, []), first, again) else ""

    def starts_before(self, at: int) -> int:
        """How often the server had started before a place of the history: which life that was in."""
        return bisect_right(self.starts, at)


def _between(places: list[int], first: int, last: int) -> bool:
    index = bisect_right(places, first)
    return index < len(places) and places[index] < last

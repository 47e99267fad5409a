"""What the server writes to its log: one line an event, nothing of a peer's that could write to a terminal, no floods.

Place on the path: beside it. Every part logs by Python's ``logging``; here alone is decided how it looks (section 6.1
item 13, W-12, L-12). A record that a peer can cause at will carries ``extra={"is_peers": True}``; one that answers the
operator (``is_asked``) is always written.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

from comity.cli.output import printable

WINDOW_SECONDS = 60.0
OWN_LINES = 5
"""Lines of one kind a minute before the rest are counted; of what peers cause it is one."""
MOST_KINDS = 1000


class LineFormatter(logging.Formatter):
    """One line an event; the lines of a traceback begin so that none can pass for an event."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, with control characters escaped, line ends included."""
        return printable(super().formatMessage(record))

    def formatException(
        self, ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
    ) -> str:
        """A traceback."""
        return "\n".join("  | " + printable(line) for line in super().formatException(ei).splitlines())


@dataclass(slots=True)
class _Kind:
    since: float
    count: int
    dropped: int = 0
    last: str = ""


class Collapser(logging.Filter):
    """Lets the first line of a kind through and counts the rest, to be said once a minute.

    A kind is a logger, a level and a template: arguments (addresses, reasons) do not make another.
    """

    def __init__(self, handler: logging.Handler, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._handler = handler
        self._now = now
        self._kinds: dict[tuple[str, int, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the line is to be written now."""
        if getattr(record, "is_asked", False):
            return True
        key = (record.name, record.levelno, str(record.msg))
        kind = self._kinds.get(key)
        if kind is None or (self._now() - kind.since >= WINDOW_SECONDS and not kind.dropped):
            self._make_room()
            self._kinds[key] = _Kind(self._now(), 1)
            return True
        kind.count += 1
        if kind.count <= (1 if getattr(record, "is_peers", False) else OWN_LINES):
            return True
        kind.dropped += 1
        kind.last = record.getMessage()
        return False

    def report(self, *, is_last: bool = False) -> None:
        """Say what was counted and is a minute old; call it every few seconds, and with ``is_last`` at the end."""
        now = self._now()
        for key, kind in list(self._kinds.items()):
            if now - kind.since < WINDOW_SECONDS and not is_last:
                continue
            if not kind.dropped:
                del self._kinds[key]
                continue
            name, level, _ = key
            text = f"{kind.dropped} more times within {now - kind.since:.0f} s: {kind.last}"
            self._handler.acquire()
            try:
                self._handler.emit(logging.LogRecord(name, level, "", 0, text, (), None))
            finally:
                self._handler.release()
            kind.since, kind.dropped = now, 0

    def _make_room(self) -> None:
        while len(self._kinds) >= MOST_KINDS:
            del self._kinds[next(iter(self._kinds))]


def set_up(level: str) -> Collapser:
    """Write log lines to stderr from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    collapser = Collapser(handler)
    handler.addFilter(collapser)
    logging.basicConfig(level=level.upper(), handlers=[handler])
    return collapser

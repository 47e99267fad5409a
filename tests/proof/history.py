"""What happened in a run, as JSON lines written while it happens; the only thing the checker ever reads.

One clock (``t``, monotonic seconds), one writer. ``op`` says what:

* ``invoke`` a program hands a message to its server; then exactly one of ``ok`` (the server said yes: level
  "delivered" or "accepted"), ``fail`` (a definite no) or ``info`` (no answer seen: it may or may not exist, as in Jepsen);
* ``deliver`` a device got a message; ``report`` a sender was told about one of its messages (level "delivered",
  "failed", or "unknown");
* ``info`` without an ``id`` is about the run itself: level "begin" (the parameters), "ready", "died" (kill -9 or a
  failpoint), "stopped", "paused", "cut", "connected", "disconnected", "sample", "quiet".

Of presence, ``conv`` is "presentity>watcher" (not of ``say``) and ``k`` the number of what was said of oneself:

* ``say`` somebody says how it is (level "open" or "closed"), before it goes out; ``notice`` a watcher's device was told;
* ``allow``, ``revoke`` (by the presentity) and ``leave`` (by the watcher), each twice: level "asked", then "done" when the
  server has acknowledged it.

``note`` holds ``name=value`` pairs: of an invoke ``session`` and ``to``; of a deliver ``from`` (the visible sender),
``inner`` (the object's own From), ``wire`` (the server's identifier) and ``session``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import msgspec

Op = Literal["invoke", "ok", "fail", "info", "deliver", "report", "say", "notice", "allow", "revoke", "leave"]
PRESENCE = frozenset({"say", "notice", "allow", "revoke", "leave"})


class Event(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line."""

    t: float
    proc: str
    """Who saw it: "nemesis", "server", or a device as ``user/protocol-transport``."""
    op: Op
    edge: str = ""
    """How the device is connected: "sip/udp", "sip/tcp", "xmpp/tcp"."""
    conv: str = ""
    """The conversation: one sender, one recipient, one direction."""
    k: int = -1
    """Number of the message in its conversation."""
    id: str = ""
    """Message-ID of the message."""
    sha256: str = ""
    level: str = ""
    note: str = ""

    @property
    def user(self) -> str:
        """Whose device it is."""
        return self.proc.partition("/")[0]

    @property
    def notes(self) -> dict[str, str]:
        """``note`` taken apart."""
        return dict(pair.split("=", 1) for pair in self.note.split() if "=" in pair)


class History:
    """Writes a history; every method costs one line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab")
        self._encoder = msgspec.json.Encoder()
        self.count = 0

    def add(
        self,
        op: Op,
        proc: str,
        *,
        edge: str = "",
        conv: str = "",
        k: int = -1,
        id: str = "",
        sha256: str = "",
        level: str = "",
        note: str = "",
    ) -> None:
        """Write what just happened."""
        event = Event(time.monotonic(), proc, op, edge, conv, k, id, sha256, level, note)
        self._file.write(self._encoder.encode(event) + b"\n")
        self.count += 1

    def mark(self, level: str, note: str = "", proc: str = "nemesis") -> None:
        """Write an event of the run itself, and everything before it to the disk."""
        self.add("info", proc, level=level, note=note)
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def read(path: Path) -> Iterator[Event]:
    """The events of a history, in the order written; lines beginning with ``#`` are for people."""
    decoder = msgspec.json.Decoder(Event)
    with path.open("rb") as file:
        for line in file:
            if line.strip() and not line.startswith(b"#"):
                yield decoder.decode(line)

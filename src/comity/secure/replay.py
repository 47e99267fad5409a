"""What was accepted, on disk: a replay is told after a restart too (SEC-25, reliability.md T10, R-03).

Place on the path: given to ``verify`` as ``replay`` by whatever runs longer than once, such as ``comity listen``. One SQLite file
in ``COMITY_HOME`` (0600) holds the memories of all its users, each named by whose and which device's it is: the same
object may reach two people, and two devices of one, without being a replay. Bounded in age and in number like ``ReplayCache``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from comity.errors import SecurityError
from comity.secure.freshness import DECREASING_WINDOW, REPLAY_ENTRIES, REPLAY_WINDOW, ReplayCache, is_decreasing
from comity.secure.home import default_home
from comity.secure.verdict import VerdictKind

FILE = "replay.sqlite"
TRIM_EVERY = 256
"""Objects accepted between two looks at the limit, which have to count them all."""
BUSY_SECONDS = 10.0
"""How long to wait for another process that writes; each write takes a millisecond or so."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS seen (
    owner TEXT NOT NULL, signer TEXT NOT NULL, identifier TEXT NOT NULL, accepted INTEGER NOT NULL,
    PRIMARY KEY (owner, signer, identifier)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS seen_by_age ON seen (owner, accepted);
CREATE TABLE IF NOT EXISTS latest (
    owner TEXT NOT NULL, signer TEXT NOT NULL, stamp INTEGER NOT NULL, accepted INTEGER NOT NULL,
    PRIMARY KEY (owner, signer)) WITHOUT ROWID;
"""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class StoredReplayCache:
    """As ``ReplayCache``, in a file that several processes may share.

    Args:
        owner: whose and which device's memory, such as "im:bob@b.test xmpp".
        path: directory of the file; None: ``COMITY_HOME``.
        window: how long an object is remembered.
        limit: most objects remembered for one owner.
        is_deferred: what is accepted is written with ``keep``, which belongs after the message was shown and before its
            server is told so. A crash between the two then shows it again; written at once, it would be lost: the server
            sends it again, and it looks like a replay.

    Every method raises SecurityError with a sentence if the file cannot be used.
    """

    def __init__(
        self,
        owner: str,
        path: Path | str | None = None,
        *,
        window: timedelta = REPLAY_WINDOW,
        limit: int = REPLAY_ENTRIES,
        is_deferred: bool = False,
    ) -> None:
        self.file = (default_home() if path is None else Path(path)) / FILE
        self._owner = owner
        self._window = window
        self._limit = limit
        self._untrimmed = 0
        self._deferred: list[tuple[str, str, datetime | None, datetime]] | None = [] if is_deferred else None
        self._unwritten = ReplayCache(window, limit)
        """What was accepted and not yet kept."""
        self._lock = threading.Lock()
        """Threads take turns at one connection."""
        with self._said():
            self.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # SQLite gives its own files (-wal, -shm) the mode of this one.
            os.close(os.open(self.file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self.file.chmod(0o600)
            self._connection = sqlite3.connect(
                self.file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute("PRAGMA synchronous = FULL")  # what was called accepted outlives a power cut
                self._connection.executescript(_SCHEMA)
            except sqlite3.Error:
                self._connection.close()
                raise

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()

    def __len__(self) -> int:
        with self._said():
            [[count]] = self._connection.execute("SELECT count(*) FROM seen WHERE owner = ?", (self._owner,))
        return int(count)

    def check(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> VerdictKind | None:
        """Say REPLAYED for an object seen before, STALE for a DateTime that does not increase, else None."""
        found = self._unwritten.check(signer, identifier, stamp, now)
        if found is not None:
            return found
        oldest = _number(now - self._window)
        with self._said():
            seen = self._connection.execute(
                "SELECT 1 FROM seen WHERE owner = ? AND signer = ? AND identifier = ? AND accepted >= ?",
                (self._owner, signer, identifier, oldest),
            ).fetchone()
            row = self._connection.execute(
                "SELECT stamp, accepted FROM latest WHERE owner = ? AND signer = ?", (self._owner, signer)
            ).fetchone()
        if seen is not None:
            return VerdictKind.REPLAYED
        latest = None if row is None else (_time(row[0]), _time(row[1]))
        return VerdictKind.STALE if is_decreasing(stamp, latest, now) else None

    def accept(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> bool:
        """Remember an accepted object; False if another process, or thread, has accepted it since ``check``."""
        if self._deferred is None:
            return self._write(signer, identifier, stamp, now)
        if not self._unwritten.accept(signer, identifier, stamp, now):
            return False
        self._deferred.append((signer, identifier, stamp, now))
        return True

    def keep(self) -> None:
        """Write what was accepted since the last time, durably."""
        while self._deferred:
            self._write(*self._deferred[0])
            del self._deferred[0]
        self._unwritten = ReplayCache(self._window, self._limit)

    def drop(self) -> None:
        """Forget what was accepted since the last time: the message was refused for another reason."""
        if self._deferred is not None:
            self._deferred.clear()
            self._unwritten = ReplayCache(self._window, self._limit)

    def _write(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> bool:
        at = _number(now)
        with self._said(), self._atomic():
            execute = self._connection.execute
            execute("DELETE FROM seen WHERE owner = ? AND accepted < ?", (self._owner, _number(now - self._window)))
            added = execute("INSERT OR IGNORE INTO seen VALUES (?, ?, ?, ?)", (self._owner, signer, identifier, at))
            if not added.rowcount:
                return False
            if stamp is not None:
                execute(
                    # RFC 3923 section 6.9: the greatest of the last ten minutes; an older one counts no more.
                    "INSERT INTO latest VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET"
                    " stamp = CASE WHEN accepted < ?5 THEN ?3 ELSE max(stamp, ?3) END, accepted = ?4",
                    (self._owner, signer, _number(stamp), at, _number(now - DECREASING_WINDOW)),
                )
            self._untrimmed += 1
            if self._untrimmed >= min(TRIM_EVERY, self._limit):
                self._trim(at)
        return True

    def _trim(self, at: int) -> None:
        """Keep to the limit, and forget the times of signers that no longer matter."""
        self._untrimmed = 0
        window = DECREASING_WINDOW // _MICROSECOND
        self._connection.execute("DELETE FROM latest WHERE owner = ? AND accepted < ?", (self._owner, at - window))
        self._connection.execute(
            "DELETE FROM seen WHERE (owner, signer, identifier) IN (SELECT owner, signer, identifier FROM seen"
            " WHERE owner = ?1 ORDER BY accepted LIMIT max(0, (SELECT count(*) FROM seen WHERE owner = ?1) - ?2))",
            (self._owner, self._limit),
        )

    @contextlib.contextmanager
    def _atomic(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    @contextlib.contextmanager
    def _said(self) -> Iterator[None]:
        """Take a turn; say what the system refuses in a sentence."""
        try:
            with self._lock:
                yield
        except (sqlite3.Error, OSError) as error:
            raise SecurityError(
                f"The memory of accepted messages, {self.file}, cannot be used: {error}. Without it a replay cannot be told; "
                "if the file is damaged, move it away."
            ) from error


def _number(when: datetime) -> int:
    return (when - _EPOCH) // _MICROSECOND


def _time(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND

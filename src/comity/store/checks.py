"""Is this file our database, and whole? Asked before it is opened for writing.

Everything here opens read-only and changes no octet of the database or its log, so a refusal leaves the evidence
as it was found. What can be found: a foreign, truncated or zeroed file, damaged pages (integrity_check), a log that
was deleted (the main file says it is in use, see ``schema.start``), and damage inside the log, which SQLite
itself takes for the end of the log in silence. What cannot be told from a write torn by a power
loss: damage in the log's very last transaction.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from pathlib import Path

from comity.errors import StoreDamaged, StoreError

APPLICATION = 0x436D7479
"""SQLite application_id: "Cmty"."""
QUICK_ABOVE = 1 << 30
"""Octets above which quick_check stands in for integrity_check (reliability.md section 6.1 item 10)."""

CLEAN_BELOW = 1 << 26
"""Octets up to which the pages are checked after an orderly stop too: it takes less than a second."""

_NOT_DAMAGE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL})
CURE = "Save what it still holds by: comity recover --to DIRECTORY; or put the newest backup back."
_HEADER = b"SQLite format 3\0"


def check_header(path: Path) -> None:
    """Raise StoreDamaged if the first 100 octets are not those of our database."""
    with path.open("rb") as file:
        header = file.read(100)
    size = path.stat().st_size
    if not header.startswith(_HEADER):
        what = "the SQLite header is overwritten with zeros" if not any(header) else "it is not an SQLite database"
        raise StoreDamaged(str(path), what, CURE)
    if len(header) < 100:
        raise StoreDamaged(str(path), f"it is cut off after {size} octets", CURE)
    (application,) = struct.unpack(">I", header[68:72])
    if application != APPLICATION:
        raise StoreDamaged(str(path), f"it is the database of another program (application_id {application:#x})", CURE)
    page = struct.unpack(">H", header[16:18])[0]
    page = 65536 if page == 1 else page
    (pages,) = struct.unpack(">I", header[28:32])
    log = path.with_name(path.name + "-wal")
    # While a checkpoint is under way the header may be ahead of the file; the log then holds the rest.
    if size < page * pages and not (log.exists() and log.stat().st_size):
        raise StoreDamaged(str(path), f"it is cut off: {size} of {page * pages} octets are there", CURE)


def read_only(path: Path) -> sqlite3.Connection:
    """Open for looking: closing it neither checkpoints nor deletes the log, nor is an absent log made."""
    quoted = str(path.resolve()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"file:{quoted}?{how}", uri=True, isolation_level=None, check_same_thread=False)


def inspect(path: Path) -> dict[str, int | str]:
    """Check the whole database and give back its ``meta``.

    Raises:
        StoreDamaged: with the exact words of the check that failed.
    """
    check_header(path)
    log = path.with_name(path.name + "-wal")
    try:
        with closing(read_only(path)) as connection:
            connection.execute("PRAGMA cell_size_check = ON")
            meta: dict[str, int | str] = dict(connection.execute("SELECT key, value FROM meta"))
            check_log(connection, log)
            if not meta.get("clean") and not log.exists():
                finding = f"it was not closed, and its log {log.name} is gone with the last messages in it"
                raise StoreDamaged(str(path), finding, CURE)
            if not meta.get("clean") or path.stat().st_size <= CLEAN_BELOW:
                check_pages(connection, path)
            return meta
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in _NOT_DAMAGE:
            raise StoreError(f"{path} cannot be opened: {error}.") from error
        raise StoreDamaged(str(path), f"SQLite says: {error}", CURE) from error
    except UnicodeDecodeError as error:  # SQLite's own sentence quotes a spoilt schema
        raise StoreDamaged(str(path), "SQLite says: malformed database schema", CURE) from error


def check_pages(connection: sqlite3.Connection, path: Path) -> None:
    """Run integrity_check (quick_check on a large file) and raise StoreDamaged unless it says ok."""
    pragma = "quick_check" if path.stat().st_size > QUICK_ABOVE else "integrity_check"
    findings = [str(row[0]) for row in connection.execute(f"PRAGMA {pragma}(5)")]
    if findings != ["ok"]:
        raise StoreDamaged(str(path), f"{pragma} says: {'; '.join(findings)}", CURE)


def check_log(connection: sqlite3.Connection, log: Path) -> None:
    """Raise StoreDamaged if the log holds whole transactions behind the place where SQLite stops reading it.

    Each transaction is synced before the next begins. So two commits behind a broken frame mean that at least one
    durable transaction is no longer readable. (File format: sqlite.org/fileformat2.html section 4.)
    """
    if not log.exists() or log.stat().st_size < 32:
        return
    valid = _valid_frames(connection, log)
    with log.open("rb") as file:
        header = file.read(32)
        if not _is_log_header(header):
            # Synced before any frame is written: with frames behind it, it was once whole.
            if any(header) or any(file.read(1 << 16)):
                raise StoreDamaged(str(log), "the log's header is overwritten", CURE)
            return
        _, _, page, _, *salts = struct.unpack(">6I", header[:24])
        lost = 0
        frame = valid
        while True:
            file.seek(32 + frame * (page + 24))
            header = file.read(24)
            if len(header) < 24:
                break
            _, pages, *frame_salts = struct.unpack(">4I", header[:16])
            if frame_salts == salts and pages:
                lost += 1
            frame += 1
    if lost > 1:
        finding = f"the log can be read to frame {valid} only, although {lost} transactions follow"
        raise StoreDamaged(str(log), finding, CURE)


def _is_log_header(header: bytes) -> bool:
    magic, *words = struct.unpack(">8I", header)
    if magic not in (0x377F0682, 0x377F0683):
        return False
    first = second = 0
    numbers = struct.unpack(">6I" if magic & 1 else "<6I", header[:24])
    for even, odd in zip(numbers[::2], numbers[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return [first, second] == words[5:]


def _valid_frames(connection: sqlite3.Connection, log: Path) -> int:
    """Count the frames SQLite accepts: mxFrame of the log's index (walformat, octets 16 to 20)."""
    index = log.with_name(log.name.removesuffix("-wal") + "-shm")
    connection.execute("BEGIN")
    try:
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with index.open("rb") as file:
            return int(struct.unpack("=I", file.read(20)[16:])[0])
    finally:
        connection.execute("ROLLBACK")

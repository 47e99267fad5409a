"""Opening the database: create it whole or not at all, bring its schema forward, set what durability needs.

Takes a directory that ``files.py`` prepared and locked, gives the writer's connection. A new database is made under
another name and renamed when complete, so a file named ``comity.db`` is never half made. Migrations go
forward only, each in one transaction with its version number.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from importlib.resources import files as resources
from pathlib import Path

from comity.errors import StoreError
from comity.failpoints import failpoint
from comity.store import checks
from comity.store import files as store_files

BUSY = 5.0
"""Seconds to wait for a lock another program holds on the database (F-31), then refuse."""

Migrations = Sequence[tuple[int, str]]


def migrations() -> Migrations:
    """Every schema version this program knows with the SQL that leads to it, in order."""
    found = []
    for entry in resources("comity.store").joinpath("migrations").iterdir():
        number, _, rest = entry.name.partition("_")
        if rest.endswith(".sql"):
            found.append((int(number), entry.read_text(encoding="utf-8")))
    return sorted(found)


def connect(path: Path) -> sqlite3.Connection:
    """Open for writing, with durability switched on and proved."""
    connection = sqlite3.connect(
        path, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        for pragma in ("synchronous = FULL", "fullfsync = ON", "checkpoint_fullfsync = ON", "cell_size_check = ON"):
            connection.execute(f"PRAGMA {pragma}")
        for pragma in ("trusted_schema = OFF", "wal_autocheckpoint = 0", "cache_size = -32768"):
            connection.execute(f"PRAGMA {pragma}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        (sync,) = connection.execute("PRAGMA synchronous").fetchone()
        if (mode, sync) != ("wal", 2):
            raise StoreError(f"{path}: SQLite would not be durable (journal_mode {mode}, synchronous {sync}).")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open for reading beside the writer."""
    connection = sqlite3.connect(
        path, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=64
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def migrate(connection: sqlite3.Connection, known: Migrations) -> None:
    """Run the migrations the database does not have yet, each in one transaction."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, script in known:
        if number <= version:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(script):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            failpoint("store.migration")
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):  # the first error is the one to tell
                connection.execute("ROLLBACK")
            raise StoreError(f"The schema could not be brought from {version} to {number}: {error}.") from error


def _statements(script: str) -> list[str]:
    """Cut a script at its statements' ends (executescript would commit before it begins)."""
    found, part = [], ""
    for line in script.splitlines(keepends=True):
        part += line
        if sqlite3.complete_statement(part):
            found.append(part)
            part = ""
    return found


def create(directory: Path, known: Migrations) -> None:
    """Make an empty database under another name, then rename it into place."""
    path = directory / store_files.DATABASE
    new = directory / (store_files.DATABASE + ".new")
    for leftover in (new, *(new.with_name(new.name + end) for end in ("-wal", "-shm", "-journal"))):
        leftover.unlink(missing_ok=True)  # from a start that was killed; nothing was ever accepted into it
    os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    connection = connect(new)
    try:
        connection.execute(f"PRAGMA application_id = {checks.APPLICATION}")
        migrate(connection, known)
    finally:
        connection.close()
    new.rename(path)
    store_files.sync_directory(directory)


def check_version(path: Path, meta: dict[str, int | str], known: Migrations) -> None:
    """Refuse a schema newer than this program (F-33)."""
    with contextlib.closing(checks.read_only(path)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    newest = known[-1][0]
    if version > newest:
        raise StoreError(
            f"{path} was brought to schema {version} by a newer Comity; this one knows schema {newest}. "
            f"Use Comity {meta.get('needs', 'of a newer version')} or later; there is no way back."
        )


def start(directory: Path, known: Migrations) -> sqlite3.Connection:
    """Open the database of ``directory`` for writing, checked, migrated and marked as in use.

    Raises:
        StoreDamaged: it fails a check; nothing was changed.
        StoreError: it cannot be opened, or is newer than this program.
    """
    path = directory / store_files.DATABASE
    try:
        if store_files.check_present(directory):
            meta = checks.inspect(path)
            check_version(path, meta, known)
            store_files.check_epoch(directory, int(meta.get("epoch", 0)))
        else:
            create(directory, known)
        path.chmod(0o600)
        connection = connect(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path} cannot be opened: {error}.") from error
    try:
        migrate(connection, known)
        epoch = mark_open(connection)
        failpoint("store.recovery")
        store_files.bear_witness(directory, epoch)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError | sqlite3.Error):
            raise StoreError(f"{path} cannot be used: {error}.") from error
        raise
    return connection


def mark_open(connection: sqlite3.Connection) -> int:
    """Begin a new epoch, and get "in use" into the main file itself: then a missing log is noticed."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'epoch'")
    connection.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
    (epoch,) = connection.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone()
    connection.execute("COMMIT")
    flush_log(connection)
    return int(epoch)


def flush_log(connection: sqlite3.Connection) -> None:
    """Bring the whole log into the main file and begin it anew."""
    failpoint("store.checkpoint")
    (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise StoreError("Another program keeps the database busy; close it and start again.")


def verify(connection: sqlite3.Connection, path: Path) -> None:
    """After an I/O error: prove every page and rewrite the log's content before anything is promised again.

    The system may have dropped pages of the log whose sync failed while it still shows them; copied into
    the main file and synced there, they no longer matter.
    """
    checks.check_pages(connection, path)
    flush_log(connection)

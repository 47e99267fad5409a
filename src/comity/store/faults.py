"""What SQLite's result codes mean for the writer, and what its callers are told.

Takes the exception that ended a transaction, gives its kind (full, busy, broken, or a caller's fault) and a StoreError
in the operator's words.
"""

from __future__ import annotations

import sqlite3

from comity.errors import StoreError

FULL = frozenset({sqlite3.SQLITE_FULL})
"""No room: the connection stays good, the next group may find some."""
BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
"""Another program holds a lock: the connection stays good."""
BROKEN = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_PERM,
    }
)
"""What the disk holds is in doubt: the connection may promise nothing any more."""

_TOLD = {
    **dict.fromkeys(FULL, "The disk is full: nothing new can be accepted until there is room."),
    **dict.fromkeys(BUSY, "Another program has kept the database locked for 5 s ({error})."),
    **dict.fromkeys(BROKEN, "The disk failed ({error}): nothing is promised until the store is verified."),
}


def code_of(error: Exception) -> int:
    """Give the primary SQLite result code, 0 for anything that is not SQLite's."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF if isinstance(error, sqlite3.Error) else 0


def told(error: Exception) -> StoreError:
    """Say it in the operator's words, with ``error`` as the cause."""
    text = _TOLD.get(code_of(error), "The store could not keep this: {error}.").format(error=error)
    result = StoreError(text)
    result.__cause__ = error
    return result

"""What time takes away: keys, marks and terminal records whose time is over; and which pending records are late.

Runs in the writer's thread as one transaction. Late records are only reported: the caller tells their senders
and Acks each.
"""

from __future__ import annotations

import logging
import sqlite3

import msgspec

from comity.failpoints import failpoint
from comity.service.interfaces import SPACES, Item, Record
from comity.store.clock import RETENTION
from comity.store.group import State, save_floors

log = logging.getLogger(__name__)

MOST = 1_000
"""Terminal records removed in one transaction; readers do not show the others either."""

ITEM = "number, accepted, id, lane, entity, envelope, fingerprint, expires, dedup"
"""Columns from which ``item`` makes an Item."""

_decoder = msgspec.json.Decoder(tuple[str, ...])


def _keys(dedup: str) -> tuple[str, ...]:
    """The dedup keys of a row; none if they cannot be read: a bad row must not stop its lane, nor the sweep (F-POISON)."""
    try:
        return _decoder.decode(dedup)
    except (msgspec.MsgspecError, TypeError) as error:
        log.error("dedup keys of a row cannot be read: %s", error)
        return ()


def item(row: tuple[int, float, str, str, bytes, bytes, str, float, str]) -> Item:
    """Make an Item of the columns ``ITEM``."""
    number, accepted, id_, lane, entity, envelope, fingerprint, expires, dedup = row
    return Item(number, accepted, Record(id_, lane, entity, envelope, fingerprint, expires, _keys(dedup)))


def sweep(connection: sqlite3.Connection, state: State, now: float, limit: int) -> list[Item]:
    """Remove what is over at ``now``; give back at most ``limit`` pending records past their lifetime."""
    cursor = connection.cursor()
    _sweep_keys(cursor, state, now)
    _sweep_records(cursor, state, now)
    if cursor.execute("DELETE FROM marks WHERE at <= ?", (now - RETENTION,)).rowcount:
        state.marks.clear()
    failpoint("store.expire.before-commit")
    sql = f"SELECT {ITEM} FROM records WHERE expires <= ? AND ended IS NULL ORDER BY expires, number LIMIT ?"  # noqa: S608
    return [item(row) for row in cursor.execute(sql, (now, limit)).fetchall()]


def _sweep_keys(cursor: sqlite3.Cursor, state: State, now: float) -> None:
    for space in SPACES:
        table = f"kv_{space}"
        (rev,) = cursor.execute(f"SELECT max(rev) FROM {table} WHERE until <= ?", (now,)).fetchone()  # noqa: S608
        if rev is not None:
            state.floors[space] = max(state.floors.get(space, 0), rev)
            save_floors(cursor, state, (space,))
            cursor.execute(f"DELETE FROM {table} WHERE until <= ?", (now,))  # noqa: S608 - a Space


def _sweep_records(cursor: sqlite3.Cursor, state: State, now: float) -> None:
    rows = cursor.execute(
        "SELECT number, dedup FROM records WHERE ended IS NOT NULL AND gone <= ? ORDER BY gone LIMIT ?", (now, MOST)
    ).fetchall()
    if not rows:
        return
    held = [(key, number) for number, keys in rows for key in _keys(keys)]
    cursor.executemany("DELETE FROM dedup WHERE key = ? AND number = ?", held)
    cursor.executemany("DELETE FROM records WHERE number = ?", [(number,) for number, _ in rows])
    failpoint("store.retention.deleted")
    # The highest number may just have gone: keep the count, it is never used again.
    cursor.execute("UPDATE meta SET value = ? WHERE key = 'next'", (state.next,))

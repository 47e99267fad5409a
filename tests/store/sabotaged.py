"""The server with its store changed by hand, for tests that have to notice: ``python -m tests.store.sabotaged serve …``.

``COMITY_SABOTAGE`` names what is changed, joined by commas: ``normal`` (synchronous=NORMAL: "yes" comes before the
disk has it; the replay must catch it), ``busy-log`` (no sabotage: a checkpoint after every few rows, so that a short run has many).
A test double, never a product option: nothing in ``src/`` knows of it.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from comity.cli import main
from comity.store import schema, writer

connect = schema.connect


def connect_normal(path: Path) -> sqlite3.Connection:
    """Connect as always, then take the durability away."""
    connection = connect(path)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


if __name__ == "__main__":
    wanted = os.environ["COMITY_SABOTAGE"].split(",")
    if "normal" in wanted:
        schema.connect = connect_normal
    if "busy-log" in wanted:
        writer.CHECKPOINT_CHANGES = 40
    main()

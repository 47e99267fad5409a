"""A process that commits records and says which of them were acknowledged, made to be killed.

``python -m tests.store.child DIR FIRST COUNT [option …]``: adds records FIRST … FIRST+COUNT-1, eight callers at once (one with
``single``), prints ``acked N`` when the store said yes, ``refused N`` on StoreError, ``ended N`` for every third
one that was also acked terminal. Options: ``single``; ``normal`` (sabotage: synchronous=NORMAL); ``busy-log``
(checkpoint after every few rows); ``retry`` (a refused record is tried again every 0.3 s until it is accepted).
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

from comity.errors import StoreError
from comity.service.interfaces import Ack, Add, Done, Mark, Record, Repeat
from comity.store import SqliteStore, writer

#: As many as there are callers, so that each lane has one: with fewer (4, at first) two callers shared a lane, the one that
#: waited for an Ack fell behind the other, and "out of order" was this file's own doing, whenever a group split just there.
LANES = 8
EXPIRES = 4_000_000_000.0


def make(number: int) -> Record:
    entity = b"Content-Type: message/cpim\r\n\r\n" + (f"{number} ".encode() * 400)[: 100 + number % 7 * 211]
    return Record(
        id=f"id-{number:09}",
        lane=f"inbox/{number % LANES}",
        entity=entity,
        envelope=f"envelope {number}".encode(),
        fingerprint=hashlib.sha256(entity).hexdigest(),
        expires=EXPIRES,
        dedup=(f"key-{number}",),
    )


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


async def work(store: SqliteStore, numbers: list[int], is_retrying: bool) -> None:
    for number in numbers:
        record = make(number)
        while True:
            try:
                (result,) = await store.commit([Add(record, marks=(Mark("last", str(number).encode()),))])
            except StoreError as error:
                say(f"refused {number} {error}")
                if not is_retrying:
                    break
                await asyncio.sleep(0.3)
                continue
            say(f"acked {number}" if isinstance(result, Done | Repeat) else f"odd {number} {result}")
            if number % 3 == 0 and isinstance(result, Done):
                try:
                    await store.commit([Ack(record.lane, result.rev, b"delivered")])
                    say(f"ended {number}")
                except StoreError as error:
                    say(f"refused {number} (its Ack) {error}")
            break


async def main(directory: Path, first: int, count: int, options: list[str]) -> None:
    if "busy-log" in options:
        writer.CHECKPOINT_CHANGES = 20
    store = await SqliteStore.open(directory, min_free=0)
    if "normal" in options:
        assert store._writer is not None
        assert store._writer._connection is not None
        store._writer._connection.execute("PRAGMA synchronous = NORMAL")
    say("open")
    callers = 1 if "single" in options else 8
    numbers = list(range(first, first + count))
    await asyncio.gather(*(work(store, numbers[n::callers], "retry" in options) for n in range(callers)))
    say("done")
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]))

"""Durable messages per second, each added and acked: ``PYTHONPATH=src python -m tests.store.measure [GROUP] [TOTAL]``.

Not a test: figures depend on the disk. GROUP callers are in flight at once, each adds a small record and, once that
is durable, acks it; both are durable before the next. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from comity.service.interfaces import Ack, Add, Done, Op, Record
from comity.store import SqliteStore

BODY = b"Content-Type: message/cpim\r\n\r\n" + b"x" * 300


def make(number: int) -> Record:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return Record(
        id=f"0192f{number:027x}",
        lane=f"inbox/im:user{number % 64}@example.com",
        entity=BODY,
        envelope=b"e" * 120,
        fingerprint=digest,
        expires=time.time() + 72 * 3600,
        dedup=(digest[::-1],),
    )


async def measure(directory: Path, group: int, total: int) -> dict[str, float]:
    store = await SqliteStore.open(directory, min_free=0)
    records = [make(number) for number in range(total)]
    began, burned = time.perf_counter(), time.process_time()
    acks: list[Op] = []
    for start in range(0, total, group):
        # One wave: this group's Adds and the Acks of the group before, each its own commit, as sessions would.
        part = records[start : start + group]
        futures = [store.commit([Add(record, quota=(10_000, 1 << 30))]) for record in part]
        ended = [store.commit([ack]) for ack in acks]
        results = await asyncio.gather(*futures)
        await asyncio.gather(*ended)
        acks = [Ack(r.lane, d.rev, b"ok") for r, (d,) in zip(part, results, strict=True) if isinstance(d, Done)]
    await asyncio.gather(*(store.commit([ack]) for ack in acks))
    took = time.perf_counter() - began
    cpu = time.process_time() - burned
    await store.close()
    return {"group": group, "total": total, "per_s": round(total / took), "cpu_us": round(cpu / total * 1e6, 1)}


def main() -> None:
    group = int(sys.argv[1]) if len(sys.argv) > 1 else 64
    total = int(sys.argv[2]) if len(sys.argv) > 2 else 64 * 500
    with tempfile.TemporaryDirectory(dir=os.environ.get("COMITY_MEASURE_DIR")) as name:
        print(json.dumps(asyncio.run(measure(Path(name) / "data", group, total))))


if __name__ == "__main__":
    main()

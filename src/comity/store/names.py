"""What names every store engine takes, and how a fingerprint is told from other names.

Checked before an operation is queued, so that one caller's mistake cannot fail the group it would stand in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from comity.errors import StoreError
from comity.service.interfaces import SPACES, Ack, Add, Delete, Mark, Op, Put

_FINGERPRINT = re.compile(r"[0-9a-fA-F]{8,64}")


def is_fingerprint(name: str) -> bool:
    """True if ``name`` may be the beginning of a fingerprint: 8 to 64 hex digits."""
    return _FINGERPRINT.fullmatch(name) is not None


def check(ops: Sequence[Op]) -> None:
    """Raise StoreError if a name or number of ``ops`` is not one that every engine can keep."""
    for op in ops:
        match op:
            case Add():
                record = op.record
                _check_names(
                    (record.id, record.lane, record.fingerprint, *record.dedup, *(mark.name for mark in op.marks))
                )
                if not (math.isfinite(record.expires) and math.isfinite(op.dedup_ttl)):
                    raise StoreError(f"Record {record.id}: a time is not a number.")
            case Put() | Delete():
                if op.space not in SPACES:
                    raise StoreError(f"There is no space {op.space!r}.")
                _check_names((op.key,))
                if isinstance(op, Put) and op.ttl is not None and not math.isfinite(op.ttl):
                    raise StoreError(f"Key {op.key!r}: its time to live is not a number.")
            case Mark():
                _check_names((op.name,))
            case Ack():
                if not -(2**63) <= op.seq < 2**63:
                    raise StoreError(f"{op.seq} is not a sequence number.")


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if name.isascii() and "\0" not in name:
            continue
        if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
            raise StoreError(f"{name[:128]!r} is not a name: it holds NUL or half a character.")

"""The transIDs by which we ask other relays about messages of senders who do not speak APEX.

Place on the path: beside ``relaying.py``, which asks, and ``service_data.py``, which is answered. Such a transID is the beginning of
the object's fingerprint, by which the store finds the message: no table that a kill would empty is needed.
"""

from __future__ import annotations

_MOST = 2**31 - 1


def own_trans_id(fingerprint: str) -> int:
    """The transID for an object with that fingerprint: its first 32 bits without the highest, never 0."""
    return int(fingerprint[:8], 16) & _MOST or _MOST


def fingerprints_of(trans_id: int) -> list[str]:
    """How the fingerprints begin that lead to that transID."""
    found = [trans_id, trans_id | _MOST + 1]
    if trans_id == _MOST:
        found += [0, _MOST + 1]
    return [f"{number:08x}" for number in found]

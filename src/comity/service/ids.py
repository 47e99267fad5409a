"""Identifiers made here: spine IDs and dedup keys (reliability.md sections 5.1 and 5.3)."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterable

_SPINE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_spine_id() -> str:
    """A UUIDv7 as text: 48 bits of Unix milliseconds, 74 random bits (RFC 9562 section 5.7)."""
    value = bytearray((time.time_ns() // 1_000_000).to_bytes(6, "big") + os.urandom(10))
    value[6] = 0x70 | value[6] & 0x0F
    value[8] = 0x80 | value[8] & 0x3F
    text = value.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_spine_id(text: str) -> bool:
    """True for what ``new_spine_id`` may have made."""
    return _SPINE.fullmatch(text) is not None


def dedup_key(secret: bytes, fields: Iterable[str]) -> str:
    """A keyed hash over ``fields``, each with its length, so that neither lengths nor peers can be confused."""
    digest = hashlib.blake2b(key=secret, digest_size=16)
    for field in fields:
        octets = field.encode("utf-8", "surrogatepass")
        digest.update(len(octets).to_bytes(4, "big"))
        digest.update(octets)
    return digest.hexdigest()

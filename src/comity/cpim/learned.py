"""What a destination was found not to take, so that the next message does not try in vain (issue 7, part 7). Pure.

Place on the path: beside step 8. A binding learns from a refusal (SIP 415 with its Accept, 488, 406; an XMPP error stanza) and asks
before it offers an object again. It is a hint with a life: forgotten, it costs one attempt; believed for ever, it would keep an
object from a device that got a better program meanwhile. A device that announces itself anew is another destination.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Final

LIFE: Final = 3600.0
"""Seconds for which a refusal is believed."""
MOST: Final = 4096
"""Destinations remembered; the one learned of longest ago goes first."""
MOST_TYPES: Final = 16
"""Media types remembered of one destination."""


class Learned:
    """Refusals by destination: a contact, or a recipient behind a next hop."""

    def __init__(self, life: float = LIFE, most: int = MOST) -> None:
        self._life = life
        self._most = most
        self._known: OrderedDict[Hashable, tuple[float, frozenset[str], tuple[str, ...]]] = OrderedDict()
        """Until when, what was refused, and what it says it takes."""

    def __len__(self) -> int:
        return len(self._known)

    def refused(self, key: Hashable, media_type: str, now: float, accepts: Sequence[str] = ()) -> None:
        """It refused an object of this type; ``accepts`` is its Accept header, if it sent one."""
        _, types, said = self._known.pop(key, (0.0, frozenset[str](), ()))
        if len(types) >= MOST_TYPES:
            types = frozenset()
        ranges = tuple(value.partition(";")[0].strip().lower() for value in accepts[:64])
        self._known[key] = now + self._life, types | {media_type}, ranges or said
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def refuses(self, key: Hashable, media_type: str, now: float) -> bool:
        """Whether it is known to refuse objects of this type."""
        found = self._known.get(key)
        if found is None:
            return False
        until, types, ranges = found
        if now >= until:
            del self._known[key]
            return False
        return media_type in types or (bool(ranges) and not any(_covers(each, media_type) for each in ranges))


def _covers(media_range: str, media_type: str) -> bool:
    """RFC 3261 section 20.1: ``*/*``, ``text/*`` or a type."""
    if media_range in ("*/*", media_type):
        return True
    return media_range.endswith("/*") and media_type.startswith(media_range[:-1])

"""What passed here to another domain lately, by what no honest hop changes: a loop is seen although its history was lost (G-16 to G-18).

Place on the path: step 5, for messages that leave again. The history finds a loop where every hop keeps it (GW-9). A hop of somebody
else's may drop it, name the message anew, even count its hops from the top again. What stays is the object's octets, or at least
its Message-ID, with its sender and its recipient. A message that comes again with fewer hops left has been around; one that comes
again with as many may be a repeat by its sender or his server, and is let through a few times: then it is a loop whose hop count
somebody resets. Memory only: after a restart a loop goes round once more.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MessageOperation

log = logging.getLogger(__name__)

MOST_KEPT: Final = 16_384
LIFE: Final = 3600.0
"""Seconds after which a message that comes again is a new one."""
WINDOW: Final = 60.0
ALARM: Final = 5
"""Times that one message came to be sent on within ``WINDOW``, which is said in the log (G-18)."""
MOST_PASSES: Final = 20
"""And after which it goes no further, whatever its hop count says."""


@dataclass(slots=True)
class _Seen:
    hops: int
    """Left when it came the first time."""
    since: float
    edge: tuple[str, ...]
    """What its last hop called it."""
    passes: int = 0
    """Since ``counted``."""
    counted: float = 0.0


class Passes:
    """Messages that left here, each by its octets and by its Message-ID."""

    def __init__(self, most: int = MOST_KEPT) -> None:
        self._most = most
        self._seen: OrderedDict[tuple[str, str, str], _Seen] = OrderedDict()
        self._own: OrderedDict[str, float] = OrderedDict()
        """Fingerprints of objects that left for users of ours, and when."""

    def __len__(self) -> int:
        return len(self._seen)

    def leaves(self, operation: MessageOperation, now: float) -> None:
        """A message of a user of ours leaves; she may send the same as often as she likes."""
        self._own[operation.object.fingerprint] = now
        self._own.move_to_end(operation.object.fingerprint)
        if len(self._own) > self._most:
            self._own.popitem(last=False)

    def has_left(self, fingerprint: str, now: float) -> bool:
        """True if an object of these octets left here lately for a user of ours."""
        return now - self._own.get(fingerprint, -LIFE) < LIFE

    def is_loop(self, operation: MessageOperation, view: CpimMessage | None, edge: tuple[str, ...], now: float) -> bool:
        """Note a message between other domains; True if it has been around, and must not leave again.

        Args:
            view: the message/cpim that can be seen in the object. One made here a moment ago is like no other.
            edge: what identifies it at its last hop (``Origin.dedup``): that hop's own repeats are none.
        """
        again = [self._is_again(name, operation, edge, now) for name in _names(operation, view)]
        return any(again)

    def _is_again(self, name: str, operation: MessageOperation, edge: tuple[str, ...], now: float) -> bool:
        key, hops = (name, operation.source.key, operation.destination.key), operation.max_forwards
        seen = self._seen.get(key)
        if seen is None or now - seen.since >= LIFE:
            self._seen[key] = _Seen(hops, now, edge, 1, now)
            if len(self._seen) > self._most:
                self._seen.popitem(last=False)
            return False
        self._seen.move_to_end(key)
        if edge and seen.edge == edge and hops == seen.hops:
            return False  # its hop has no answer yet
        if now - seen.counted >= WINDOW:
            seen.passes, seen.counted = 0, now
        seen.edge = edge
        seen.passes += 1
        if seen.passes == ALARM:
            log.warning("a message of %s to %s came %d times to be sent on", *key[1:], seen.passes)
        return hops < seen.hops or seen.passes > MOST_PASSES


def _names(operation: MessageOperation, view: CpimMessage | None) -> list[str]:
    if operation.is_wrapped:
        return []
    names = [operation.object.fingerprint]
    if view is not None and view.message_id:
        names.append(f"id {view.message_id}")
    return names

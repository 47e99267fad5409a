"""What a subscription at the edge "apex" keeps: the operation of RFC 3343 that it is. Pure.

Place on the path: under ``presence_edge.py``, ``presence_watchers.py`` and ``presence_service.py``. The service keeps the octets,
durably, with the subscription, so an operation is found by its originator and transaction also after a restart (APEX-21).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from comity.bindings.apex.endpoint import Endpoint

EDGE: Final = "apex"
"""Name of the edge."""
SERVICE: Final = "presence"
"""Name of the well-known endpoint."""
#: External option of the data that carries a subscribe: send what the presentity itself signed or sealed, too; of the data that
#: carries it: to which operation it belongs (X39, a Comity extension).
SECURED: Final = "urn:comity:secured-presence:0"
DENIED: Final = 537
"""Code of the terminate to who may not have what he had (the DTD of RFC 3340 section 9.1), so that he does not ask again at once."""


MOST_TRIES: Final = 8
"""So often is something said again to an application that is there and did not take it (it may be slow, or its relay away)."""


def pause_after(tries: int) -> float:
    """Seconds until it is said again: two, then twice as long each time."""
    return 2.0 * 2.0 ** min(tries, 5)


@dataclass(frozen=True, slots=True)
class Kept:
    """The operation of a subscription (``Subscription.data``)."""

    trans_id: int
    duration: int
    """Seconds, as asked for; 0: a poll."""
    originator: Endpoint
    publisher: Endpoint
    """The subject as the originator named it."""

    def encode(self) -> bytes:
        """To be kept; identities hold no control characters."""
        return f"{self.trans_id}\n{self.duration}\n{self.originator}\n{self.publisher}".encode()

    @classmethod
    def decode(cls, data: bytes) -> Kept:
        """Read what ``encode`` wrote."""
        trans_id, duration, originator, publisher = data.decode().split("\n")
        return cls(int(trans_id), int(duration), Endpoint.parse(originator), Endpoint.parse(publisher))

"""How much one user may send (reliability.md section 6.2): messages and octets a second, with a burst of each.

Place on the path: step 5, for ``submission.py``: what is over is answered 503 with Retry-After and nothing of it kept,
so a user's own flood slows that user alone (L-05). Counted by account, over all the user's devices.
"""

from __future__ import annotations

from collections import OrderedDict

#: Seconds of ``user_octets`` that may come at once: a message of the largest size after a pause.
OCTET_BURST = 4.0


class UserRates:
    """Two token buckets a user; full ones are forgotten.

    Args:
        messages: a second, lasting.
        burst: messages at once.
        octets: a second, lasting.
        most: users remembered; the one heard of longest ago leaves first.
    """

    def __init__(self, messages: float, burst: int, octets: int, most: int = 20_000) -> None:
        self._rates = messages, float(octets)
        self._bursts = float(burst), OCTET_BURST * octets
        self._most = most
        self._users: OrderedDict[str, tuple[float, float, float]] = OrderedDict()
        """(messages left, octets left, when) by account; in the order of their last message."""

    def take(self, user: str, octets: int, now: float) -> float:
        """Count one message; 0.0 if it may pass, else the seconds until one may."""
        messages_left, octets_left, when = self._users.pop(user, (*self._bursts, now))
        messages_left = min(self._bursts[0], messages_left + (now - when) * self._rates[0])
        octets_left = min(self._bursts[1], octets_left + (now - when) * self._rates[1])
        wait = max((1.0 - messages_left) / self._rates[0], (octets - octets_left) / self._rates[1])
        if wait <= 0.0:
            messages_left, octets_left = messages_left - 1.0, octets_left - octets
        self._users[user] = messages_left, octets_left, now
        if len(self._users) > self._most:
            self._users.popitem(last=False)
        return max(wait, 0.0)

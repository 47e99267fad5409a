"""Which UDP addresses proved that they receive what is sent to them, and how much the others may ask for.

Place on the path: inside step 3, for ``session.py``. A packet's source address can be forged, so a stranger gets one
packet per request, no larger than the request (S-28), and strangers of one network together get few requests (S-31;
anchor: Kamailio's pike). Whoever answered a challenge bound to its address has proved it.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import ip_address

HostPort = tuple[str, int]


class Sources:
    """Proofs and token buckets of one datagram socket."""

    def __init__(self, requests: int, window: float, lifetime: float, most: int) -> None:
        """``requests`` per ``window`` seconds and network; a proof holds ``lifetime`` seconds; ``most`` are kept."""
        self._requests = requests
        self._window = window
        self._lifetime = lifetime
        self._most = most
        self._proved: OrderedDict[HostPort, float] = OrderedDict()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def prove(self, address: HostPort, now: float) -> None:
        """Note that ``address`` answered what only it can have received."""
        self._proved[address] = now + self._lifetime
        self._proved.move_to_end(address)
        while len(self._proved) > self._most:
            self._proved.popitem(last=False)

    def is_proved(self, address: HostPort, now: float) -> bool:
        """True if ``address`` proved itself within the lifetime."""
        return self._proved.get(address, 0.0) > now

    def take_token(self, address: HostPort, now: float) -> bool:
        """True if the network of ``address`` may have one more request read."""
        network = network_of(address[0])
        tokens, last = self._buckets.pop(network, (float(self._requests), now))
        tokens = min(float(self._requests), tokens + (now - last) * self._requests / self._window)
        self._buckets[network] = (max(tokens - 1.0, 0.0) if tokens >= 1.0 else tokens, now)
        if len(self._buckets) > 10_000:
            self._buckets.popitem(last=False)
        return tokens >= 1.0


def network_of(host: str) -> str:
    """The /24 or /64 an address stands in."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return host.rpartition(".")[0] if address.version == 4 else address.exploded[:19]

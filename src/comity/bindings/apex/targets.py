"""Where the relay of a domain is: the operator's route, the SRV record ``_apex-mesh._tcp``, or the literal (RFC 3340 section 3.1).

Place on the path: before step 10, for ``mesh.py``. Whose certificate is expected: that of the host written in the route, where
there is one, since the operator chose it; else that of the destination's domain, never that of a name the DNS gave (ADDR-17).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from comity.bindings.base import Network, Target, Transport
from comity.errors import DeliveryError

PREFIX = "_apex-mesh._tcp"


@dataclass(frozen=True, slots=True)
class Way:
    """How to call the relay for a domain; equal ways share a session.

    Attributes:
        server_name: what its certificate has to name.
        transport: "tls" from the first octet, or "tcp" with the TLS profile.
        host, port: the route's; "" and None to go by the domain alone.
        label: where the records of the domain stand, if not at ``_apex-mesh._tcp`` (``srv:_im._apex``).
    """

    server_name: str
    transport: Literal["tcp", "tls"] = "tcp"
    host: str = ""
    port: int | None = None
    label: str = ""

    @classmethod
    def of(cls, domain: str, next_hop: str = "") -> Way:
        """The way to a domain by ``[[route]] next_hop``, or by DNS. Raises DeliveryError."""
        if not next_hop or next_hop.startswith("srv:"):
            return cls(domain.removeprefix("[").removesuffix("]"), label=next_hop)
        try:
            url = urlsplit(next_hop)
            host, port = url.hostname or "", url.port
        except ValueError as error:
            raise DeliveryError(f"{next_hop} is no address: {error}") from error
        if url.scheme not in ("tcp", "tls") or not host:
            raise DeliveryError(f"{next_hop} is no address of an APEX relay")
        return cls(host, "tls" if url.scheme == "tls" else "tcp", host, port)

    @property
    def name(self) -> str:
        """For the log."""
        return (
            f"{self.transport}://{self.host}" + (f":{self.port}" if self.port else "")
            if self.host
            else self.server_name
        )

    async def targets(self, network: Network, port: int) -> Sequence[Target]:
        """Addresses to try in order; ``port`` is the one of apex-mesh. Raises DeliveryError."""
        if not self.host:
            return await network.hop_targets("apex", self.server_name, self.label)
        transport: Transport = self.transport
        if _is_literal(self.host):
            return [Target(transport, self.host, self.port or port, self.server_name)]
        if self.port is None:
            return await network.resolve_service(PREFIX, self.host, port, transport, is_trusted=True)
        # With a port the rules of RFC 3263 are: the host's addresses, at that port.
        found = await network.resolve("sip", self.host, self.port, transport, is_trusted=True)
        return [Target(transport, target.host, target.port, self.server_name) for target in found]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

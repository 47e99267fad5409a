"""The DNS records by which others find this server: worked out from the configuration, one of each kind a domain and protocol (ADDR-13).

Place on the path: beside it, for ``comity dns``. Nothing is asked here; ``lookup.py`` holds the records against what DNS says.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from comity.bindings.base import Listener
from comity.config import Config
from comity.config.values import is_loopback

TTL = 3600
STARTTLS_PRIORITY = 10
"""After direct TLS, which keeps the names in the clear for one round trip less (XEP-0368)."""


@dataclass(frozen=True, slots=True)
class Published:
    """One record."""

    name: str
    """Without the final dot."""
    kind: str
    """SRV, NAPTR, A or AAAA."""
    data: str
    """As in a zone file; names end with a dot."""
    purpose: str
    """Who looks for it, in a few words."""
    protocol: str = ""
    """sip, xmpp or apex; "" for addresses."""
    transport: str = ""
    """"tls" where TLS begins with the first octet, else "tcp" or "udp"."""
    is_needed: bool = True
    """False: useful, and others find the server without it."""

    @property
    def text(self) -> str:
        """A line of a zone file."""
        return f"{self.name}. {TTL} IN {self.kind} {self.data}"

    @property
    def port(self) -> int:
        """Of an SRV record."""
        return int(self.data.split()[2])


def records(config: Config, domain: str, host: str = "", addresses: Sequence[str] = ()) -> list[Published]:
    """The records to publish for one of our domains.

    Args:
        config: what is listened on.
        domain: A-labels; one of ``[server] domains``.
        host: the name of this machine in DNS; "": the domain itself.
        addresses: its addresses; none: those that listeners name.
    """
    host = host or domain
    found = [*_sip(config, domain, host), *_xmpp(config, domain, host), *_apex(config, domain, host)]
    return found + list(_addresses(config, host, addresses))


def reachable(config: Config, listeners: Sequence[Listener]) -> list[Listener]:
    """Those listeners that others can reach; all of them where everything listens on this machine only (a trial)."""
    is_trial = all(is_loopback(listener.host) for _, listener in config.listeners())
    return [listener for listener in listeners if is_trial or not is_loopback(listener.host)]


def _sip(config: Config, domain: str, host: str) -> Iterator[Published]:
    listeners = reachable(config, config.sip.listen)
    if secure := _port(listeners, "tls"):
        purpose = "SIP under TLS: other servers and phones"
        yield _srv(f"_sips._tcp.{domain}", 0, secure, host, purpose, protocol="sip", transport="tls")
        naptr = f'10 10 "s" "SIPS+D2T" "" _sips._tcp.{domain}.'
        yield Published(domain, "NAPTR", naptr, "SIP's first question (RFC 3263)", "sip", is_needed=False)
        yield from _labels(domain, "sip", secure, host, "tls")
    for transport, label in (("tcp", "_sip._tcp"), ("udp", "_sip._udp")):
        if plain := _port(listeners, transport):
            purpose = f"SIP by {transport.upper()}, for phones without TLS"
            yield _srv(
                f"{label}.{domain}", 0, plain, host, purpose, protocol="sip", transport=transport, is_needed=False
            )


def _xmpp(config: Config, domain: str, host: str) -> Iterator[Published]:
    servers, clients = reachable(config, config.xmpp.server), reachable(config, config.xmpp.client)
    if secure := _port(servers, "tls"):
        yield _srv(
            f"_xmpps-server._tcp.{domain}",
            0,
            secure,
            host,
            "other XMPP servers, direct TLS",
            protocol="xmpp",
            transport="tls",
        )
    if plain := _port(servers, "tcp"):
        purpose = "other XMPP servers"
        yield _srv(
            f"_xmpp-server._tcp.{domain}", STARTTLS_PRIORITY, plain, host, purpose, protocol="xmpp", transport="tcp"
        )
        yield from _labels(domain, "xmpp", plain, host, "tcp")
    if secure := _port(clients, "tls"):
        purpose = "people's XMPP programs, direct TLS"
        yield _srv(
            f"_xmpps-client._tcp.{domain}", 0, secure, host, purpose, protocol="xmpp", transport="tls", is_needed=False
        )
    if plain := _port(clients, "tcp"):
        purpose = "people's XMPP programs"
        yield _srv(
            f"_xmpp-client._tcp.{domain}", STARTTLS_PRIORITY, plain, host, purpose, protocol="xmpp", transport="tcp"
        )


def _apex(config: Config, domain: str, host: str) -> Iterator[Published]:
    if plain := _port(reachable(config, config.apex.listen), "tcp"):
        yield _srv(f"_apex-mesh._tcp.{domain}", 0, plain, host, "other APEX relays", protocol="apex", transport="tcp")
        yield from _labels(domain, "apex", plain, host, "tcp")
        yield _srv(
            f"_apex-edge._tcp.{domain}",
            0,
            plain,
            host,
            "applications by APEX",
            protocol="apex",
            transport="tcp",
            is_needed=False,
        )


def _labels(domain: str, protocol: str, port: int, host: str, transport: str) -> Iterator[Published]:
    """RFC 3861: one record for each protocol and service, so that gateways need not guess."""
    for service, what in (("_im", "messages"), ("_pres", "presence")):
        purpose = f"{what} by {protocol.upper()} (RFC 3861)"
        yield _srv(f"{service}._{protocol}.{domain}", 0, port, host, purpose, protocol=protocol, transport=transport)


def _addresses(config: Config, host: str, written: Sequence[str]) -> Iterator[Published]:
    listeners = reachable(config, [listener for _, listener in config.listeners()])
    hosts = written or [one.host for one in listeners if not ipaddress.ip_address(one.host).is_unspecified]
    for address in dict.fromkeys(str(ipaddress.ip_address(text)) for text in hosts):
        yield Published(host, "AAAA" if ":" in address else "A", address, "this machine")


def _srv(
    name: str,
    priority: int,
    port: int,
    host: str,
    purpose: str,
    *,
    protocol: str,
    transport: str,
    is_needed: bool = True,
) -> Published:
    return Published(name, "SRV", f"{priority} 0 {port} {host}.", purpose, protocol, transport, is_needed)


def _port(listeners: Sequence[Listener], transport: str) -> int:
    """Where the first listener of that transport is, 0 if there is none."""
    return next((listener.port for listener in listeners if listener.transport == transport), 0)

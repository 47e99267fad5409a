"""Small readers of single values: sizes, durations, networks, addresses of listeners; and how a value is shown.

Place on the path: before it; ``reader`` and ``conflicts`` use them. Each gives None for what it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

import idna

from comity.config.sections import Network
from comity.cpim.address import Address
from comity.errors import AddressError

SIZES = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
TIMES = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


def is_loopback(host: str) -> bool:
    """True if ``host`` (an IP literal) is this machine's loopback."""
    address = ip_address(host)
    return any(address in network for network in _LOOPBACK if network.version == address.version)


def shown(value: object) -> str:
    """Write a value as it may stand in a sentence: short, on one line."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= 80 else text[:77] + "…"


def canonical_domain(text: str) -> str:
    """A domain as ``Address`` writes it. Raises AddressError."""
    return Address.parse(f"im:a@{text.lower().removesuffix('.')}").domain


def domain_problem(text: str) -> str:
    """What keeps ``text`` from being a domain with accounts, as the end of a sentence; "" if nothing does."""
    name = text.lower().removesuffix(".")
    try:
        label = idna.encode(name, uts46=True).decode("ascii")
        canonical_domain(text)
    except (idna.IDNAError, AddressError, UnicodeError):
        return "is not a domain."
    return "is an IP address, and accounts live in a domain." if re.fullmatch(r"[\d.]+", label) else ""


def with_unit(value: object, units: Mapping[str, int]) -> int | float | None:
    """Read a number, or text of a number and one of ``units``; None if it is neither."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value if abs(value) < 1e18 else None
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(\d{1,15})\s*([A-Za-z]+)\s*", value)):
        return int(match[1]) * units[match[2]] if match[2] in units else None
    return None


def network(value: object) -> Network | None:
    """Read text as an IP network without host bits, or None."""
    try:
        return ip_network(value) if isinstance(value, str) else None
    except ValueError:
        return None


def split_url(value: object) -> tuple[str, str, int | None] | None:
    """``scheme://host[:port]`` with nothing else, or None."""
    if not isinstance(value, str) or not value.isprintable() or "://" not in value:
        return None
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return None
    if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port


def host_port(value: object, default: int) -> tuple[str, int] | None:
    """Read ``ADDRESS`` or ``ADDRESS:PORT``, the address of IPv6 with a port in brackets; None if it is neither."""
    try:
        return (str(ip_address(value)), default) if isinstance(value, str) else None
    except ValueError:
        parts = split_url(f"dns://{value}")
    try:
        return None if parts is None else (str(ip_address(parts[1])), parts[2] or default)
    except ValueError:
        return None

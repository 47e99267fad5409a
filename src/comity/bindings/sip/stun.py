"""STUN binding requests on the SIP port: how phones behind a NAT keep it open over UDP (RFC 5626 section 3.5.2, 4.4.2).

Place on the path: inside step 3, for ``session.py``. A usage of STUN (RFC 8489) without credentials and attributes:
the answer tells the phone the address it comes from, so that it notices when the NAT gave it another one. Pure.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

HostPort = tuple[str, int]

_COOKIE = 0x2112A442
_HEADER = struct.Struct("!HHI12s")
_BINDING_REQUEST, _BINDING_SUCCESS = 0x0001, 0x0101
_XOR_MAPPED_ADDRESS = 0x0020


def is_stun(data: bytes) -> bool:
    """True for a STUN message: no SIP message begins with two zero bits (RFC 8489 section 5)."""
    return len(data) >= 20 and data[0] < 0x40 and data[4:8] == _COOKIE.to_bytes(4, "big")


def binding_response(data: bytes, address: HostPort) -> bytes:
    """The success response to a binding request from ``address``; b"" for any other STUN message or a broken one."""
    kind, length, _, transaction = _HEADER.unpack_from(data)
    if kind != _BINDING_REQUEST or length != len(data) - 20 or length % 4:
        return b""
    host = ip_address(address[0].partition("%")[0])
    mask = _COOKIE.to_bytes(4, "big") + transaction
    octets = bytes(one ^ other for one, other in zip(host.packed, mask, strict=False))
    family = 1 if host.version == 4 else 2
    value = struct.pack("!BBH", 0, family, address[1] ^ (_COOKIE >> 16)) + octets
    attribute = struct.pack("!HH", _XOR_MAPPED_ADDRESS, len(value)) + value
    return _HEADER.pack(_BINDING_SUCCESS, len(attribute), _COOKIE, transaction) + attribute

"""Fuzz the SIP readers: arbitrary octets give units only, and what was read can be written or refused.

Run: python fuzz/fuzz_sip.py tests/conformance/rfc4475
"""

from __future__ import annotations

import sys

from comity.bindings.sip.message import SipRequest
from comity.bindings.sip.wire import Malformed, Ping, StreamReader, Unit, parse_datagram
from comity.errors import LocalProtocolError, RemoteProtocolError


def one_input(data: bytes) -> None:
    units: list[Unit | None] = [parse_datagram(data)]
    reader = StreamReader()
    half = len(data) // 2
    for chunk in (data[:half], data[half:]):
        reader.feed(chunk)
        while (unit := reader.next_unit()) is not None:
            units.append(unit)
    for unit in units:
        if unit is None or isinstance(unit, Ping | Malformed):
            continue
        try:
            unit.contacts, unit.routes, unit.expires, unit.credentials()
        except RemoteProtocolError:
            pass
        try:
            again = parse_datagram(unit.to_bytes())
        except LocalProtocolError:
            continue
        if isinstance(unit, SipRequest) and isinstance(again, SipRequest):
            assert again.body == unit.body


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

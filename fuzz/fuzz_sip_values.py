#!/usr/bin/env python3
"""SIP header values (URI, name-addr, Via, CSeq, digest): a value or a refusal; what is written is read again as the same."""

from __future__ import annotations

from collections.abc import Callable

from run import run

from comity.bindings.sip.headers import AuthParams, CSeq, NameAddr, Via
from comity.bindings.sip.uri import SipUri, parse_uri
from comity.errors import RemoteProtocolError

READERS: tuple[Callable[[str], object], ...] = (
    parse_uri,
    Via.parse,
    CSeq.parse,
    lambda text: NameAddr.parse(text, "From"),
)


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    for read in READERS:
        try:
            value = read(text)
        except RemoteProtocolError:
            continue
        written = str(value)
        assert "\r" not in written
        assert "\n" not in written
        assert read(written) == value, written
        if isinstance(value, SipUri):
            assert value.matches(value)
            assert "@" not in value.host
    try:
        AuthParams.parse(text).get("nonce")
    except RemoteProtocolError:
        pass


if __name__ == "__main__":
    run(one_input)

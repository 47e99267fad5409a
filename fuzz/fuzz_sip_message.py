#!/usr/bin/env python3
"""One datagram: a SIP message or a refusal; what was read is written so that it is read again as the same.

Oracle beside it: an independent reader (email.parser) finds the same From and To, or ours refuses (T5, SIPConfusion).
"""

from __future__ import annotations

import email.parser
import email.policy

from run import run

from comity.bindings.sip.headers import NameAddr
from comity.bindings.sip.wire import SipMessage, SipRequest, SipResponse, parse_datagram
from comity.errors import LocalProtocolError, RemoteProtocolError

COMPACT = {"from": "f", "to": "t"}


def one_input(data: bytes) -> None:
    message = parse_datagram(data)
    if not isinstance(message, SipRequest | SipResponse):
        return
    try:
        message.contacts, message.routes, message.expires, message.credentials(), message.vias
    except RemoteProtocolError:
        pass
    agree(data, "from", message.from_)
    agree(data, "to", message.to)
    try:
        octets = message.to_bytes()
    except LocalProtocolError:
        return
    again = parse_datagram(octets)
    assert isinstance(again, SipRequest | SipResponse), again
    assert again.body == message.body
    assert other_headers(again) == other_headers(message)
    assert again.to_bytes() == octets


def other_headers(message: SipMessage) -> list[tuple[str, str]]:
    """All but Content-Length, which is always written anew."""
    return [(name, value) for name, value in message.headers if name.lower() not in ("l", "content-length")]


def agree(data: bytes, name: str, ours: NameAddr) -> None:
    """The other reader sees exactly one such header, with our URI in it."""
    _, _, block = data.lstrip(b"\r\n").partition(b"\r\n")
    theirs = email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(block)
    found = [*(theirs.get_all(name) or ()), *(theirs.get_all(COMPACT[name]) or ())]
    if any("=" in text or "\ufffd" in text for text in map(str, found)) and not str(ours.uri).isascii():
        return
    assert len(found) <= 1, f"two readers, two senders: {found}"
    if found:
        written = str(ours.uri).split(":", 1)[1][:8].lower()
        assert written in str(found[0]).lower() or "%" in written, (str(ours.uri), found)


if __name__ == "__main__":
    run(one_input)

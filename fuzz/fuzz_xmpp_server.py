#!/usr/bin/env python3
"""A stream between servers, both sides, at each stage: the same events and the same end however the octets are cut."""

from __future__ import annotations

import re
from collections.abc import Callable

from run import run

from comity.bindings.base import TlsInfo
from comity.bindings.xmpp import events
from comity.bindings.xmpp.dialback import Keys
from comity.bindings.xmpp.server_stream import IncomingStream, PeerOptions, ServerStream
from comity.bindings.xmpp.server_stream_out import OutgoingStream

HEADER = (
    b"<stream:stream from='%s' to='%s' id='i' version='1.0' xmlns='jabber:server' "
    b"xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>"
)
CALLED, CALLING = HEADER % (b"b.test", b"a.test"), HEADER % (b"b.test", b"a.test")
AUTH = b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>=</auth>"
SASL = b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>"
SM = b"<sm xmlns='urn:xmpp:sm:3'/>"
SUCCESS = b"<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
FEATURES = b"<stream:features>%s</stream:features>"
#: As in fuzz_xmpp_stream.
ERROR = re.compile(rb"<stream:error>.*</stream:error>|<a xmlns='urn:xmpp:sm:3'[^>]*/>", re.DOTALL)
MORE = b" " * 1100
KEEPALIVES = re.compile(rb"\s{8}")
#: What follows in the same breath as one of these is refused, and a moment later it is not (X-36), which is as it should be.
SWITCHES = re.compile(rb"(auth|success|proceed|starttls)\b[^<]*(</[^>]*>)?[^<]*<", re.DOTALL)
TLS = TlsInfo("TLSv1.3", "any", b"end point", b"DER", ("b.test", "c.test"))
OPTIONS = PeerOptions(("a.test",), Keys(lambda: b"k" * 32), frozenset({"b.test", "d.test"}), most_domains=3)


def receiving() -> ServerStream:
    return IncomingStream(OPTIONS, lambda: TLS, lambda size: b"r" * size, 0.0)


def initiating() -> ServerStream:
    return OutgoingStream("a.test", "b.test", OPTIONS, lambda: TLS, random=lambda size: b"r" * size, now=0.0)


def asking() -> ServerStream:
    return OutgoingStream("a.test", "b.test", OPTIONS, lambda: TLS, random=lambda size: b"r" * size, now=0.0, asks=True)


STAGES: tuple[tuple[Callable[[], ServerStream], list[bytes]], ...] = (
    (receiving, []),
    (receiving, [CALLED]),
    (receiving, [CALLED, AUTH, CALLED, b"<enable xmlns='urn:xmpp:sm:3'/>"]),
    (initiating, []),
    (initiating, [CALLING]),
    (initiating, [CALLING, FEATURES % SASL, SUCCESS, CALLING, FEATURES % SM]),
    (asking, [CALLING, FEATURES % b""]),
)


def story(make: Callable[[], ServerStream], chunks: list[bytes]) -> tuple[list[str], bytes]:
    session = make()
    seen: list[str] = []
    wanted: list[events.DialbackWanted] = []
    for chunk in chunks:
        session.receive_data(chunk, 0.0)
        while (event := session.next_event()) is not None:
            seen.append("ended" if isinstance(event, events.StreamEnded) else repr(event))
            if isinstance(event, events.StanzaReceived):
                session.stanza_handled(event.index)
            elif isinstance(event, events.DialbackWanted):
                wanted.append(event)
    for asked in wanted:  # other servers take their time
        assert isinstance(session, IncomingStream)
        session.dialback_checked(asked.domain, asked.to, len(asked.key) % 2 == 0)
    return seen, ERROR.sub(b"", b"".join(session.data_to_send(0.0)))


def one_input(data: bytes) -> None:
    """The first octet says at which stage, the second how the others are cut."""
    stage, size, octets = (data[0], data[1] % 64 + 1, data[2:]) if len(data) > 1 else (0, 1, b"")
    if KEEPALIVES.search(octets) or SWITCHES.search(octets):
        return  # in pieces they are too many a second, which is as it should be
    make, prefix = STAGES[stage % len(STAGES)]
    whole = story(make, [*prefix, octets, MORE])
    pieces = story(make, [*prefix, *(octets[start : start + size] for start in range(0, len(octets), size)), MORE])
    assert pieces == whole, (size, pieces, whole)


if __name__ == "__main__":
    run(one_input)

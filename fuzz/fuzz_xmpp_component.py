#!/usr/bin/env python3
"""A component's stream, both sides, before and after the handshake: the same events and the same end however the octets are cut."""

from __future__ import annotations

import re

from run import run

from comity.bindings.xmpp import events
from comity.bindings.xmpp.component_stream import (
    AttachedSession,
    AttachingSession,
    ComponentOptions,
    ComponentStream,
    digest,
)

OPTIONS = ComponentOptions("a.test", {"gw.a.test": "secret"})
OWN = ComponentOptions("gw.a.test", {"gw.a.test": "secret"})
HEADER = b"<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='gw.a.test' id='1'>"
ID = (b"r" * 16).hex()
HANDSHAKE = f"<handshake>{digest(ID, 'secret')}</handshake>".encode()
#: Which of several faults is named may depend on how much was there when it was seen.
ERROR = re.compile(rb"<stream:error>.*</stream:error>")
#: So many that the reader does not wait for the end of what it has (it joins small reads).
MORE = b" " * 1100
KEEPALIVES = re.compile(rb"\s{8}")


def story(session: ComponentStream, chunks: list[bytes]) -> tuple[list[str], bytes]:
    seen: list[str] = []
    for chunk in chunks:
        session.receive_data(chunk, 0.0)
        while (event := session.next_event()) is not None:
            seen.append("ended" if isinstance(event, events.StreamEnded) else repr(event))
            if isinstance(event, events.StanzaReceived):
                assert event.stanza.get("to")
                assert (
                    event.stanza.get("from").rpartition("@")[2].startswith("gw.a.test") or session.domain == OWN.domain
                )
                session.stanza_handled(event.index)
    return seen, ERROR.sub(b"", b"".join(session.data_to_send(0.0)))


def one_input(data: bytes) -> None:
    """The first octet says how the others are cut."""
    size, octets = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    if KEEPALIVES.search(octets):
        return  # in pieces they are too many a second, which is as it should be
    in_pieces = [octets[start : start + size] for start in range(0, len(octets), size)]
    for prefix in ([], [HEADER], [HEADER, HANDSHAKE]):
        for kind, options in ((AttachedSession, OPTIONS), (AttachingSession, OWN)):
            whole, pieces = (
                story(kind(options, lambda: None, lambda count: b"r" * count, 0.0), [*prefix, *cut, MORE])
                for cut in ([octets], in_pieces)
            )
            assert pieces == whole, (size, pieces, whole)


if __name__ == "__main__":
    run(one_input)

#!/usr/bin/env python3
"""A client's stream at three stages: the same events and the same end however the octets are cut."""

from __future__ import annotations

import re

from run import run

from comity.bindings.xmpp import events, wire
from comity.bindings.xmpp.session import ServerOptions, XmppServerSession
from comity.sasl import ScramSecret

SECRET = ScramSecret(b"s", 1, b"k", b"k")
HEADER = wire.stream_header({"to": "a.test", "version": "1.0"})
SIGN_IN = (HEADER, b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYQ==</auth>", HEADER)
BIND = b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><enable xmlns='urn:xmpp:sm:3'/>"
#: Which of several faults is named, and what is acknowledged before it, may depend on how much was there when it was seen.
ERROR = re.compile(rb"<stream:error>.*</stream:error>|<a xmlns='urn:xmpp:sm:3'[^>]*/>")
#: So many that the reader does not wait for the end of what it has (it joins small reads).
MORE = b" " * 1100
KEEPALIVES = re.compile(rb"\s{8}")
OPTIONS = ServerOptions(("a.test",), b"k")


def story(chunks: list[bytes]) -> tuple[list[str], bytes]:
    session = XmppServerSession(OPTIONS, lambda: b"tls", lambda size: b"r" * size, 0.0)
    seen: list[str] = []
    for chunk in chunks:
        session.receive_data(chunk, 0.0)
        while (event := session.next_event()) is not None:
            seen.append("ended" if isinstance(event, events.StreamEnded) else repr(event))
            if isinstance(event, events.CredentialsWanted):
                session.credentials({"sha-512": SECRET})
            elif isinstance(event, events.PasswordCheckWanted):
                session.password_checked(True)
            elif isinstance(event, events.ResumeWanted):
                session.refuse_resume()
            elif isinstance(event, events.StanzaReceived):
                session.stanza_handled(event.index)
    return seen, ERROR.sub(b"", b"".join(session.data_to_send(0.0)))


def one_input(data: bytes) -> None:
    """The first octet says how the others are cut."""
    size, octets = (data[0] % 64 + 1, data[1:]) if data else (1, b"")
    if KEEPALIVES.search(octets):
        return  # in pieces they are too many a second, which is as it should be
    for prefix in ([], [HEADER], [*SIGN_IN, BIND]):
        whole = story([*prefix, octets, MORE])
        pieces = story([*prefix, *(octets[start : start + size] for start in range(0, len(octets), size)), MORE])
        assert pieces == whole, (size, pieces, whole)


if __name__ == "__main__":
    run(one_input)

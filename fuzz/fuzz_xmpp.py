"""Fuzz the XML door, the server's stream and the mapping: arbitrary octets give stanzas, refusals or stream errors.

Run: python fuzz/fuzz_xmpp.py
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from comity.bindings.xmpp import events, mapping, wire
from comity.bindings.xmpp.session import ServerOptions, XmppServerSession
from comity.cpim.operations import MessageOperation
from comity.xml import Element, parse_document

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = events.ScramSecret(b"s", 1, b"k", b"k")
HEADER = wire.stream_header({"to": "a.test", "version": "1.0"})
SIGN_IN = (HEADER, b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYQ==</auth>", HEADER)
BIND = b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><enable xmlns='urn:xmpp:sm:3'/>"


def feed(session: XmppServerSession, data: bytes) -> None:
    session.receive_data(data, 0.0)
    while (event := session.next_event()) is not None:
        if isinstance(event, events.CredentialsWanted):
            session.credentials({"sha-512": SECRET})
        elif isinstance(event, events.PasswordCheckWanted):
            session.password_checked(True)
        elif isinstance(event, events.ResumeWanted):
            session.refuse_resume()
        elif isinstance(event, events.StanzaReceived):
            session.stanza_handled(event.index)
            carry(event.stanza)
    session.data_to_send(0.0)


def carry(stanza: Element) -> None:
    assert parse_document(wire.encode(Element("{}x", {}, [stanza]))).children == [stanza]
    made = (
        mapping.stanza_to_operation(stanza, when=WHEN, trans_id="t", message_id="m")
        if stanza.local == "message"
        else None
    )
    if isinstance(made, MessageOperation):
        out = mapping.operation_to_stanza(
            made, delivery_id="d", domain="a.test", accepted=WHEN, is_delayed=True, features=None
        )
        assert not isinstance(out, mapping.Outgoing) or wire.encode(out.stanza)


def one_input(data: bytes) -> None:
    for prefix in ((), (HEADER,), (*SIGN_IN, BIND)):
        session = XmppServerSession(ServerOptions(("a.test",), b"k"), lambda: b"tls", lambda size: b"r" * size, 0.0)
        for piece in (*prefix, data[: len(data) // 2], data[len(data) // 2 :]):
            feed(session, piece)


if __name__ == "__main__":
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

#!/usr/bin/env python3
"""A MESSAGE request to the operation and on to SIP and XMPP: the object's octets stay, no line is put into a header."""

from __future__ import annotations

from datetime import UTC, datetime

from run import run

from comity.bindings.sip.forms import Form
from comity.bindings.sip.mapping import Refusal, operation_to_request, request_to_operation
from comity.bindings.sip.wire import SipRequest, parse_datagram
from comity.bindings.xmpp import egress, wire
from comity.client.base import OCTETS_FEATURES
from comity.errors import LocalProtocolError
from comity.service.policy import Limits, check_object
from comity.xml import Element, parse_document

VIA = ("Via", "SIP/2.0/TCP h;branch=z9hG4bK1")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)
HEAD = (
    b"MESSAGE im:bob@a.test SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nFrom: <sip:alice@a.test>;tag=1\r\n"
    b"To: <sip:bob@a.test>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\nMax-Forwards: 70\r\n"
)


def one_input(data: bytes) -> None:
    headers, cut, body = data.partition(b"\r\n\r\n")
    framed = HEAD + headers + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for octets in (data, framed) if cut else (data,):
        request = parse_datagram(octets)
        if isinstance(request, SipRequest):
            carry(request)


def carry(request: SipRequest) -> None:
    operation = request_to_operation(request, when=WHEN, message_id="m")
    if isinstance(operation, Refusal):
        assert 400 <= operation.status_code < 500
        return
    if check_object(operation, WHEN, Limits())[1] is not None:
        return
    stanza = egress.operation_to_stanza(
        operation, delivery_id="d", domain="a.test", accepted=WHEN, is_delayed=True, features=frozenset(OCTETS_FEATURES)
    )
    if isinstance(stanza, egress.Outgoing):
        assert parse_document(wire.encode(Element("{}x", {}, [stanza.stanza]))).children == [stanza.stanza]
    try:
        out = operation_to_request(operation, Form.OBJECT, target="sip:b@h", tag="t", call_id="c", accepted=WHEN)
        octets = b"" if out is None else with_via(out).to_bytes()
    except LocalProtocolError:
        return
    # A longer header is refused by the device, as any peer may; the sender hears of it.
    if out is not None and all(len(value) <= 2048 for _, value in out.headers):
        again = parse_datagram(octets)
        assert isinstance(again, SipRequest), again
        assert again.body == operation.object.octets
        assert again.headers[1:-1] == out.headers


def with_via(request: SipRequest) -> SipRequest:
    """As the session sends it."""
    return SipRequest(request.method, request.uri_text, [VIA, *request.headers], request.body)


if __name__ == "__main__":
    run(one_input)

#!/usr/bin/env python3
"""A message stanza to the operation and on to XMPP and SIP: well-formed, the object's octets unchanged, nothing injected."""

from __future__ import annotations

from datetime import UTC, datetime

from run import run

from comity.bindings.sip.forms import choose_form
from comity.bindings.sip.mapping import operation_to_request
from comity.bindings.sip.wire import SipRequest, parse_datagram
from comity.bindings.xmpp import egress, mapping, wire
from comity.client.base import OCTETS_FEATURES
from comity.cpim.operations import MessageOperation
from comity.errors import ComityError, LocalProtocolError
from comity.service.policy import Limits, check_object
from comity.xml import Element, parse_document

VIA = ("Via", "SIP/2.0/TCP h;branch=z9hG4bK1")
WHEN = datetime(2026, 1, 1, tzinfo=UTC)


def one_input(data: bytes) -> None:
    stanza = b"<message xmlns='jabber:client' from='alice@a.test/r' to='bob@a.test' id='1'>" + data + b"</message>"
    for octets in (stanza, data):
        try:
            element = parse_document(octets)
        except ComityError:
            continue
        assert parse_document(wire.encode(Element("{}x", {}, [element]))).children == [element]
        if element.name == "{jabber:client}message":
            carry(element)


def carry(element: Element) -> None:
    made = mapping.stanza_to_operation(element, when=WHEN, trans_id="t", message_id="m")
    if not isinstance(made, MessageOperation) or check_object(made, WHEN, Limits())[1] is not None:
        return
    for features in (None, frozenset(OCTETS_FEATURES)):
        out = egress.operation_to_stanza(
            made, delivery_id="d", domain="a.test", accepted=WHEN, is_delayed=True, features=features
        )
        if isinstance(out, egress.Outgoing):
            assert parse_document(wire.encode(Element("{}x", {}, [out.stanza]))).children == [out.stanza]
    form = choose_form(made, takes_cpim=True)
    try:
        request = operation_to_request(made, form, target="sip:b@h", tag="t", call_id="c", accepted=WHEN)
        octets = b"" if request is None else with_via(request).to_bytes()
    except LocalProtocolError:
        return
    # A longer header is refused by the device, as any peer may; the sender hears of it.
    if request is not None and all(len(value) <= 2048 for _, value in request.headers):
        again = parse_datagram(octets)
        assert isinstance(again, SipRequest), again
        assert again.body == made.object.octets
        assert again.headers[1:-1] == request.headers


def with_via(request: SipRequest) -> SipRequest:
    """As the session sends it."""
    return SipRequest(request.method, request.uri_text, [VIA, *request.headers], request.body)


if __name__ == "__main__":
    run(one_input)

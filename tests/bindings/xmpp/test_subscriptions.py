"""Presence subscriptions and the subscribe operation, both ways: bindings/xmpp/subscriptions.py (SEC-34)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp import wire
from comity.bindings.xmpp.mapping import Refusal
from comity.bindings.xmpp.subscriptions import (
    ELEMENT,
    FOREVER,
    OPERATION,
    stanza_to_subscription,
    subscription_to_stanza,
)
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject, SubscribeOperation
from comity.xml import Element

ALICE, BOB = Address.parse("pres:alice@a.test"), Address.parse("pres:bob@b.test")
PROOF = MimeObject.of("application/pkcs7-mime", b"\x00\xff\r\n]]> any octets")
ASKED = SubscribeOperation(ALICE, BOB, "sub-4711", "t1", 600, proof=PROOF)


def read(stanza: Element, **more: str) -> SubscribeOperation | Refusal:
    stamped = Element(stanza.name, {**stanza.attributes, "from": "alice@a.test/desk", **more}, stanza.children)
    return stanza_to_subscription(stamped, trans_id="t1")


def with_child(child: Element, kind: str = "subscribe", count: int = 1) -> SubscribeOperation | Refusal:
    return read(Element(wire.PRESENCE, {"type": kind, "to": "bob@b.test"}, [child] * count))


@given(duration=st.integers(0, FOREVER), id=st.text("abcXYZ09;@.-é", min_size=1, max_size=128), octets=st.binary())
def test_what_is_signed_comes_back(duration: int, id: str, octets: bytes) -> None:
    operation = replace(ASKED, duration=duration, subscript_id=id, proof=MimeObject(PROOF.header_block, octets))
    assert read(subscription_to_stanza(operation)) == operation


@pytest.mark.parametrize(("kind", "duration"), [("subscribe", FOREVER), ("unsubscribe", 0)])
def test_without_a_proof_it_is_of_the_two_and_lasts(kind: str, duration: int) -> None:
    stanza = subscription_to_stanza(replace(ASKED, duration=duration, proof=None))
    assert (stanza.get("type"), stanza.children) == (kind, [])
    made = read(stanza, to="bob@b.test/pad")
    assert made == SubscribeOperation(ALICE, BOB, f"{ALICE.key} {BOB.key}", "t1", duration)


GOOD = {"id": "s", "duration": "600"}


@pytest.mark.parametrize(
    ("child", "kind", "count"),
    [
        (Element(ELEMENT, GOOD, ["AAAA"]), "subscribe", 2),
        (Element(f"{{{OPERATION}}}other", GOOD, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, GOOD, ["AAAA"]), "unsubscribe", 1),
        (Element(ELEMENT, {**GOOD, "duration": "0"}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {**GOOD, "duration": "4294967296"}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {**GOOD, "duration": "-1"}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {**GOOD, "duration": "1" * 5000}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {"id": "s"}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {"duration": "600"}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, {**GOOD, "id": "é" * 129}, ["AAAA"]), "subscribe", 1),
        (Element(ELEMENT, GOOD, ["not base64"]), "subscribe", 1),
        (Element(ELEMENT, GOOD), "subscribe", 1),
        (Element(ELEMENT, GOOD, ["AAAA", Element("{x}y")]), "subscribe", 1),
    ],
)
def test_what_cannot_be_read_is_a_bad_request(child: Element, kind: str, count: int) -> None:
    made = with_child(child, kind, count)
    assert isinstance(made, Refusal)
    assert made.condition == "bad-request"


def test_octets_that_are_no_entity_are_a_bad_request_or_an_object_without_header() -> None:
    """Whatever base64 holds: it never raises."""
    for text in ("AAAA", "DQo=", "DQoNCg=="):
        made = with_child(Element(ELEMENT, GOOD, [text]))
        assert isinstance(made, Refusal | SubscribeOperation)

#!/usr/bin/env python3
"""Fuzz signed operations: as SUBSCRIBE, as presence stanza, as proof, and as what Eve signs (SEC-34, G6).

Whatever the octets: an operation or a refusal, the proof's octets unchanged both ways, and nobody passes but who signed.
Run: ``python fuzz/fuzz_operation.py FOLDER``. Seeds are made by ``python fuzz/fuzz_operation.py --seeds FOLDER``.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from fuzz_verify import NOW, TRUST, A, E
from run import run

from comity.bindings.sip import subscriptions as sip
from comity.bindings.sip.wire import SipRequest, parse_datagram
from comity.bindings.xmpp import subscriptions as xmpp
from comity.bindings.xmpp import wire
from comity.cpim.address import Address
from comity.cpim.entity import split_entity
from comity.cpim.operations import MimeObject, SubscribeOperation
from comity.errors import ComityError, LocalProtocolError, MalformedMessage
from comity.secure import ReplayCache, VerdictKind, cms_write
from comity.secure.operation import refusal_of, sign_operation, verify_operation
from comity.xml import Element, parse_document

ALICE, BOB, EVE = (Address.parse(f"pres:{name}@{name[0]}.test") for name in ("alice", "bob", "eve"))
ASKED = SubscribeOperation(ALICE, BOB, "c1;t1", "t", 600)


def one_input(data: bytes) -> None:
    as_request(data)
    as_stanza(data)
    try:
        proof = split_entity(data)
    except MalformedMessage:
        return
    if judge(replace(ASKED, proof=proof)) is VerdictKind.VALID:
        assert b"op.SubscriptID: c1;t1\r\n" in data, "Alice never signed that"
    octets = cms_write.sign_data(data, E, NOW, is_detached=False, certificates=E.certificates)
    by_eve = MimeObject.of("application/pkcs7-mime; smime-type=signed-data", octets)
    for watcher in (ALICE, EVE):
        verdict = judge(replace(ASKED, watcher=watcher, proof=by_eve))
        if verdict is VerdictKind.VALID:
            assert watcher is EVE, "Eve passed as somebody else"


def judge(operation: SubscribeOperation) -> VerdictKind:
    """Twice: what passes does so once."""
    replay = ReplayCache()
    verdict = verify_operation(operation, TRUST, now=NOW, replay=replay)
    again = verify_operation(operation, TRUST, now=NOW, replay=replay)
    assert verdict.reason
    assert again.verdict is (VerdictKind.REPLAYED if verdict.is_valid else verdict.verdict)
    assert (refusal_of(verdict, is_required=True) is None) is verdict.is_valid
    return verdict.verdict


def as_request(data: bytes) -> None:
    request = parse_datagram(data)
    if not isinstance(request, SipRequest):
        return
    made = sip.request_to_subscription(request)
    if not isinstance(made, SubscribeOperation):
        return
    if made.proof is not None:
        assert made.proof.octets == request.body
    there_and_back(made)


def as_stanza(data: bytes) -> None:
    try:
        stanza = parse_document(data)
    except ComityError:
        return
    if stanza.name != wire.PRESENCE or stanza.get("type") not in xmpp.ASKING or not stanza.get("to"):
        return
    made = xmpp.stanza_to_subscription(stanza, trans_id="t")
    if isinstance(made, SubscribeOperation):
        there_and_back(made)


def there_and_back(made: SubscribeOperation) -> None:
    """As stanza: what the proof is about and its octets are those that went in."""
    try:
        stanza = xmpp.subscription_to_stanza(made)
        octets = wire.encode(Element("{}x", {}, [stanza]))
    except (ComityError, LocalProtocolError):
        return  # an address or identifier that XMPP does not have
    (again,) = parse_document(octets).elements()
    assert again == stanza
    stamped = Element(again.name, {**again.attributes, "from": "alice@a.test/r"}, again.children)
    back = xmpp.stanza_to_subscription(stamped, trans_id="t")
    if made.proof is not None and isinstance(back, SubscribeOperation):
        assert back.proof is not None
        assert (back.subscript_id, back.duration) == (made.subscript_id, made.duration)
        assert back.proof.entity == made.proof.entity


def seeds() -> dict[str, bytes]:
    """Each form of each operation."""
    found: dict[str, bytes] = {}
    for name, operation in {"subscribe": ASKED, "unsubscribe": replace(ASKED, duration=0)}.items():
        proof = sign_operation(operation, A, when=NOW, message_id="op1")
        for kind, asked in {"plain": operation, "proved": replace(operation, proof=proof)}.items():
            request = sip.subscription_to_request(
                asked, target="sip:bob@b.test", call_id="c1", tag="t1", contact="<sip:alice@192.0.2.1>"
            )
            headers = [("Via", "SIP/2.0/UDP h;branch=z9hG4bK1"), *request.headers]
            found[f"sip-{name}-{kind}"] = SipRequest("SUBSCRIBE", "sip:bob@b.test", headers, request.body).to_bytes()
            stanza = xmpp.subscription_to_stanza(asked)
            attributes = {**stanza.attributes, "from": "alice@a.test/r"}
            text = wire.encode(Element(stanza.name, attributes, stanza.children))
            found[f"xmpp-{name}-{kind}"] = text.replace(b"<presence", b"<presence xmlns='jabber:client'", 1)
        found[f"proof-{name}"] = proof.entity
    operation = replace(ASKED, watcher=EVE)
    unsigned = verify_operation(
        replace(operation, proof=sign_operation(operation, E, when=NOW, message_id="op1")),
        TRUST,
        now=NOW,
        replay=ReplayCache(),
    ).content
    assert unsigned is not None
    found["unsigned"] = unsigned.entity
    return found


if __name__ == "__main__":
    if "--seeds" in sys.argv:
        folder = Path(sys.argv[sys.argv.index("--seeds") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        for name, octets in seeds().items():
            (folder / name).write_bytes(octets)
    else:
        run(one_input)

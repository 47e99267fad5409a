"""Every kind of verdict there is, each reached by a real object: one sentence for a person, one row of JSON (T8, SEC-27)."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta

import pytest

from comity.cpim.operations import MimeObject
from comity.secure import ReplayCache, TrustStore, Verdict, VerdictKind, new_identity, sign, verify
from tests.secure import kit
from tests.secure.kit import ALICE, BOB, EVE, NOW, cpim, forged, identity, judged
from tests.secure.test_layers import opened, sealed, sealed_cbc, signed

Kind = VerdictKind


def changed_octet(obj: MimeObject, at: int) -> MimeObject:
    octets = bytearray(obj.octets)
    octets[at] ^= 1
    return MimeObject(obj.header_block, bytes(octets))


def twice() -> Verdict:
    cache = ReplayCache()
    judged(signed(cpim()), replay=cache)
    return judged(signed(cpim()), replay=cache)


KEPT = {"im:alice@a.test": frozenset({"00" * 32})}
TWO_FROM = MimeObject.of("message/cpim", cpim().octets.replace(b"To:", b"From: <im:eve@e.test>\r\nTo:", 1))
EVERY: dict[VerdictKind, Callable[[], Verdict]] = {
    Kind.VALID: lambda: judged(signed(cpim())),
    Kind.VALID_WEAK: lambda: judged(forged(cpim().entity, identity(kind="rsa"), digest="sha1")),
    Kind.BAD_SIGNATURE: lambda: judged(changed_octet(signed(cpim()), 100)),
    Kind.SIGNED_BY_OTHER: lambda: judged(signed(cpim(), identity(EVE))),
    Kind.UNTRUSTED: lambda: verify(signed(cpim()), TrustStore(), now=NOW),
    Kind.UNSIGNED: lambda: judged(cpim(), asserted_by="gw\x1b[1m.example"),
    Kind.REPLAYED: twice,
    Kind.STALE: lambda: verify(signed(cpim()), kit.trust(), now=NOW + timedelta(hours=1)),
    Kind.FUTURE: lambda: judged(signed(cpim(when=NOW + timedelta(minutes=10)))),
    Kind.NO_FRESHNESS: lambda: judged(signed(cpim(when=None))),
    Kind.ENVELOPE_MISMATCH: lambda: judged(signed(cpim()), expected_from="sip:e\u202eve@e.test"),
    Kind.HEADERS_UNPROTECTED: lambda: judged(sign(b"Content-Type: text/plain\r\n\r\nhi", identity(), when=NOW)),
    Kind.NOT_CHECKED: lambda: judged(sign(cpim(), new_identity(ALICE, when=NOW), when=NOW, with_certificate=False)),
    Kind.MALFORMED: lambda: judged(MimeObject.of("multipart/signed; boundary=b", b"")),
    Kind.NOT_ADDRESSED: lambda: judged(signed(cpim()), expected_to="im:carol@c.test"),
    Kind.AMBIGUOUS_SENDER: lambda: judged(signed(TWO_FROM)),
    Kind.ENCRYPTED: lambda: judged(sealed(cpim())),
    Kind.NO_KEY: lambda: judged(sealed(cpim()), keys=(identity(EVE),)),
    Kind.CANNOT_DECRYPT: lambda: opened(changed_octet(sealed(cpim()), -1)),
    Kind.DECRYPTED_UNAUTHENTICATED: lambda: opened(sealed_cbc(cpim())),
    Kind.CHANGED: lambda: verify(signed(cpim()), kit.trust(contacts=KEPT), now=NOW),
}


@pytest.mark.parametrize("kind", EVERY)
def test_it_says_one_sentence_and_one_row(kind: VerdictKind) -> None:
    verdict = EVERY[kind]()
    assert verdict.verdict is kind
    assert verdict.reason.endswith(".")
    assert verdict.reason.isprintable()
    assert len(verdict.reason) < 400
    assert json.loads(json.dumps(verdict.to_json()))["verdict"] == kind.value
    assert all(layer.text.isprintable() for layer in verdict.layers)


@pytest.mark.parametrize("kind", EVERY)
def test_only_valid_is_valid_and_proves_what_it_says(kind: VerdictKind) -> None:
    verdict = EVERY[kind]()
    assert verdict.is_valid is (kind is Kind.VALID)
    if verdict.is_valid:
        assert (verdict.signer, verdict.from_, verdict.covers_whole) == (ALICE.uri, ALICE.uri, True)
    assert (verdict.covered_octets > 0) is bool(verdict.fingerprint)
    if kind in (Kind.BAD_SIGNATURE, Kind.CANNOT_DECRYPT, Kind.DECRYPTED_UNAUTHENTICATED, Kind.MALFORMED):
        assert (verdict.content, verdict.signer, verdict.covered_sha256) == (None, "", "")


def test_no_kind_is_missing() -> None:
    """``translated`` is for what a gateway made; ``verify`` never says it."""
    assert set(EVERY) | {Kind.TRANSLATED} == set(Kind)


def test_a_replayed_receipt_is_a_replay() -> None:
    """R-08: a signed IMDN is a message/cpim like any."""
    cache = ReplayCache()
    receipt = cpim(
        str(BOB),
        str(ALICE),
        content=b'<?xml version="1.0"?><imdn xmlns="urn:ietf:params:xml:ns:imdn"/>',
        content_type="message/imdn+xml",
        message_id="receipt1",
    )
    obj = signed(receipt, identity(BOB))
    assert judged(obj, replay=cache).is_valid
    assert judged(signed(receipt, identity(BOB), "signed-data"), replay=cache).verdict is Kind.REPLAYED

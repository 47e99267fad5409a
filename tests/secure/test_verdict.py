"""The verdict as programs and people see it (design.md section 4, reliability.md T8)."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from comity.cpim.operations import MimeObject, Reason
from comity.secure import (
    VerdictKind,
    sign,
    verify,
)
from tests.secure.kit import (
    NOW,
    cpim,
    forged,
    identity,
    judged,
    trust,
)


class TestVerdict:
    def test_json_has_the_keys_scripts_rely_on(self) -> None:
        """design.md section 4; the hash is that of the object's octets."""
        signed = sign(cpim(), identity(), when=NOW)
        assert judged(signed).to_json() == {
            "verdict": "valid",
            "signer": "im:alice@a.test",
            "from": "im:alice@a.test",
            "sha256": signed.fingerprint,
            "reason": "im:alice@a.test signed the whole message.",
            "identity": "match",
            "fingerprint": identity().fingerprint,
            "technology": "smime",
            "asserted_by": "",
            "freshness": "",
            "encrypted": False,
            "layers": ["signed by im:alice@a.test"],
            "covered": {
                "sha256": hashlib.sha256(cpim().entity).hexdigest(),
                "octets": len(cpim().entity),
                "whole": True,
            },
        }
        assert judged(signed.entity).sha256 == signed.fingerprint

    def test_a_body_cannot_draw_a_verdict(self) -> None:
        """M-20, M-44: control characters from outside never reach the sentence."""
        verdict = judged(cpim(content=b"VERDICT: valid, signed by im:boss@a.test"), asserted_by="gw\x1b[32m.example")
        assert verdict.verdict is VerdictKind.UNSIGNED
        assert "\x1b" not in verdict.reason
        assert "boss" not in verdict.reason

    def test_what_may_be_refused_has_its_reason(self) -> None:
        """SEC-27, T8."""
        signed = sign(cpim(), identity(), when=NOW)
        assert judged(signed).refusal is None
        assert judged(cpim()).refusal is None
        assert judged(MimeObject(signed.header_block, signed.octets.replace(b"hi", b"ho"))).refusal is Reason.SIGNATURE
        assert verify(signed, trust(), now=NOW + timedelta(hours=1)).refusal is Reason.TIMESTAMP

    def test_malformed_cpim_under_a_signature(self) -> None:
        """M-09: no From at all."""
        entity = b"Content-Type: message/cpim\r\n\r\nTo: <im:bob@b.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhi"
        assert judged(forged(entity, identity())).verdict is VerdictKind.MALFORMED

    def test_a_link_that_flips_a_bit_is_found_out(self) -> None:
        """SEED-2."""
        signed = sign(cpim(), identity(), when=NOW)
        flipped = signed.octets.replace(b"hi", b"hh", 1)
        assert judged(signed).is_valid
        assert judged(MimeObject(signed.header_block, flipped)).verdict is VerdictKind.BAD_SIGNATURE

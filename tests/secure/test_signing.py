"""Signing whole entities: RFC 8551 sections 3.1 and 3.5, RFC 3923 section 6."""

from __future__ import annotations

import pytest

from comity.cpim.entity import multipart_parts
from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import (
    VerdictKind,
    canonical_text,
    sign,
    verify,
)
from comity.secure.identity import KeyKind
from tests.secure.kit import (
    FORMS,
    NOW,
    Form,
    cpim,
    identity,
    judged,
    trust,
)

KINDS: list[KeyKind] = ["p256", "ed25519", "rsa"]


class TestSigning:
    """RFC 8551 sections 3.1 and 3.5."""

    @pytest.mark.parametrize("form", FORMS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_every_key_in_both_forms_is_valid_for_its_sender(self, kind: KeyKind, form: Form) -> None:
        """M-01, M-18, SEC-8, SEC-12."""
        entity = cpim()
        verdict = judged(sign(entity, identity(kind=kind), when=NOW, form=form))
        assert verdict.verdict is VerdictKind.VALID, verdict.reason
        assert verdict.is_valid
        assert (verdict.signer, verdict.from_) == ("im:alice@a.test", "im:alice@a.test")
        assert verdict.content == entity
        assert verdict.reason == "im:alice@a.test signed the whole message."

    def test_the_signed_octets_stand_unchanged_in_the_first_part(self) -> None:
        """SEC-2, SEC-3, G3."""
        entity = cpim(content=b"ends with\r\n\r\n")
        assert multipart_parts(sign(entity, identity(), when=NOW))[0] == entity.entity

    @pytest.mark.parametrize(
        "content", [b"", b"\r\n", b"no line end", b"line\r\n", b"--comity-x\r\n", bytes(range(256))]
    )
    @pytest.mark.parametrize("form", FORMS)
    def test_any_content_verifies_with_and_without_a_final_line_end(self, content: bytes, form: Form) -> None:
        """SEC-3, C-24, C-25."""
        signed = sign(cpim(content=content, content_type="application/octet-stream"), identity(), when=NOW, form=form)
        assert judged(signed).is_valid

    def test_parameters_with_a_slash_are_quoted_and_read_unquoted(self) -> None:
        """SEC-13."""
        signed = sign(cpim(), identity(), when=NOW)
        assert 'protocol="application/pkcs7-signature"; micalg=sha-256;' in signed.content_type
        bare = MimeObject.of(
            signed.content_type.replace('"application/pkcs7-signature"', "application/pkcs7-signature"), signed.octets
        )
        assert judged(bare).is_valid

    def test_only_the_signature_part_is_base64(self) -> None:
        """SEC-15."""
        first, second = multipart_parts(sign(cpim(), identity(), when=NOW))
        assert b"Transfer-Encoding" not in first
        assert b"Content-Transfer-Encoding: base64" in second
        assert b"Content-Disposition: attachment; handling=required; filename=smime.p7s" in second
        encoded = MimeObject(b"Content-Type: message/cpim\r\nContent-Transfer-Encoding: base64\r\n", b"")
        with pytest.raises(SecurityError, match="cannot be signed"):
            sign(encoded, identity(), when=NOW)

    def test_text_that_is_not_canonical_is_refused_and_can_be_made_so(self) -> None:
        """SEC-14."""
        with pytest.raises(SecurityError, match="CR LF"):
            sign(cpim(content=b"one\ntwo"), identity(), when=NOW)
        assert canonical_text(b"a\nb\rc\r\nd") == b"a\r\nb\r\nc\r\nd"
        assert judged(sign(cpim(content=canonical_text(b"one\ntwo")), identity(), when=NOW)).is_valid

    @pytest.mark.parametrize(
        "entity", [b"", b"no header", b"\r\nno type", b"Content-Type: message/cpim\r\n\r\nFrom\r\n"]
    )
    def test_what_is_no_entity_is_refused(self, entity: bytes) -> None:
        with pytest.raises(SecurityError, match="cannot be signed"):
            sign(entity, identity(), when=NOW)

    def test_a_signed_hi_leaves_room_in_a_sip_message(self) -> None:
        """CONSTR-7: 1300 octets, of which a MESSAGE's own headers take about 350."""
        full = sign(cpim(), identity(), when=NOW, form="signed-data")
        short = sign(cpim(), identity(), when=NOW, form="signed-data", with_certificate=False)
        assert len(full.entity) < 1300
        assert len(short.entity) < 800

    def test_a_known_certificate_may_be_left_out(self) -> None:
        """RFC 8591 section 10.2."""
        short = sign(cpim(), identity(), when=NOW, with_certificate=False)
        assert judged(short).verdict is VerdictKind.NOT_CHECKED
        known = trust(known=(identity().certificate,))
        assert verify(short, known, now=NOW).is_valid

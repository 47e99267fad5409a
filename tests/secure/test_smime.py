"""What an object proves: RFC 8551, RFC 1847, RFC 3923 section 6, and the attacks of reliability.md section 2.7."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.cpim.entity import multipart_parts
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Reason
from comity.errors import SecurityError
from comity.secure import (
    ReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    ber,
    canonical_text,
    cms,
    new_identity,
    sign,
    verify,
)
from comity.secure.identity import KeyKind, LocalCa
from tests.secure import kit
from tests.secure.kit import (
    ALICE,
    BOB,
    EVE,
    NOW,
    cpim,
    forged,
    identity,
    multipart,
    opaque,
    signed_data,
    signer_info,
    trust,
)

Form = Literal["multipart", "signed-data"]
FORMS: list[Form] = ["multipart", "signed-data"]
KINDS: list[KeyKind] = ["p256", "ed25519", "rsa"]


def judged(obj: MimeObject | bytes, **more: object) -> Verdict:
    return verify(obj, trust(), now=NOW, **more)  # type: ignore[arg-type]  # keyword table of a test helper


def cpu_seconds(obj: MimeObject, expected: VerdictKind) -> float:
    """The least of three runs: what the machine does besides is not ours."""
    times = []
    for _ in range(3):
        started = time.process_time()
        assert judged(obj).verdict is expected
        times.append(time.process_time() - started)
    return min(times)


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


class TestTampering:
    """M-02, SEED-22."""

    def test_every_octet_of_the_signed_part_counts(self) -> None:
        signed = sign(cpim(), identity(), when=NOW)
        start = signed.octets.index(b"\r\n") + 2
        length = len(multipart_parts(signed)[0])
        for at in range(start, start + length):
            changed = bytearray(signed.octets)
            changed[at] ^= 0x01
            verdict = judged(MimeObject(signed.header_block, bytes(changed)))
            assert verdict.verdict is VerdictKind.BAD_SIGNATURE, at
            assert (verdict.signer, verdict.from_, verdict.content) == ("", "", None)

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_no_change_anywhere_makes_other_content_valid(self, data: st.DataObject) -> None:
        form = data.draw(st.sampled_from(FORMS))
        entity = cpim()
        signed = sign(entity, identity(), when=NOW, form=form)
        at = data.draw(st.integers(0, len(signed.octets) - 1))
        changed = bytearray(signed.octets)
        changed[at] ^= data.draw(st.integers(1, 255))
        verdict = judged(MimeObject(signed.header_block, bytes(changed)))
        if verdict.verdict in (VerdictKind.VALID, VerdictKind.VALID_WEAK):
            assert verdict.content == entity

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b"Content-Type: message/cpim", b"Content-type: message/cpim"),
            (b"hi\r\n--", b"hi\n--"),
            (b"hi\r\n--", b"hi \r\n--"),
            (b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>", b"To: <im:bob@b.test>\r\nFrom: <im:alice@a.test>"),
        ],
    )
    def test_case_line_ends_spaces_and_order_count(self, old: bytes, new: bytes) -> None:
        """SEC-1, SEED-22."""
        signed = sign(cpim(), identity(), when=NOW)
        assert old in signed.octets
        verdict = judged(MimeObject(signed.header_block, signed.octets.replace(old, new, 1)))
        assert verdict.verdict in (VerdictKind.BAD_SIGNATURE, VerdictKind.MALFORMED)
        assert verdict.verdict is VerdictKind.BAD_SIGNATURE or b"\n--" in new

    def test_a_swapped_header_in_an_unsigned_object_goes_unnoticed_and_says_so(self) -> None:
        """SEED-22."""
        raw = cpim().octets.replace(
            b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>", b"To: <im:bob@b.test>\r\nFrom: <im:alice@a.test>"
        )
        assert judged(MimeObject.of("message/cpim", raw)).verdict is VerdictKind.UNSIGNED


class TestMimeLayer:
    """RFC 1847 section 2.1; reliability.md T8."""

    def test_three_parts_are_malformed(self) -> None:
        """SEC-1."""
        entity = cpim().entity
        raw = signed_data([signer_info(identity(), entity)], [identity().certificate])
        more = b"--b\r\nContent-Type: text/plain\r\n\r\nand this\r\n"
        assert judged(multipart(entity, raw)).is_valid
        assert judged(multipart(entity, raw, more=more)).verdict is VerdictKind.MALFORMED

    @pytest.mark.parametrize("drop", ["; micalg=sha-256", 'protocol="application/pkcs7-signature"; '])
    def test_protocol_and_micalg_are_required(self, drop: str) -> None:
        """SEC-1."""
        signed = sign(cpim(), identity(), when=NOW)
        obj = MimeObject.of(signed.content_type.replace(drop, ""), signed.octets)
        assert judged(obj).verdict is VerdictKind.MALFORMED

    @pytest.mark.parametrize(
        ("micalg", "expected"),
        [
            ("sha-512", VerdictKind.BAD_SIGNATURE),
            ("sha1", VerdictKind.BAD_SIGNATURE),
            ("SHA-256", VerdictKind.VALID),
            ("sha256", VerdictKind.VALID),
            ("unknown", VerdictKind.VALID),
            ("x-new-hash", VerdictKind.VALID),
        ],
    )
    def test_micalg_must_agree_with_the_signature_if_it_is_known(self, micalg: str, expected: VerdictKind) -> None:
        """SEC-4."""
        entity = cpim().entity
        raw = signed_data([signer_info(identity(), entity)], [identity().certificate])
        assert judged(multipart(entity, raw, micalg=micalg)).verdict is expected

    @pytest.mark.parametrize("protocol", ["x/y", "application/x-pgp-signature"])
    def test_an_unknown_protocol_is_shown_unverified(self, protocol: str) -> None:
        """SEC-5, SEED-42."""
        octets = (
            b"--b\r\n" + cpim().entity + b"\r\n--b\r\nContent-Type: " + protocol.encode() + b"\r\n\r\nsig\r\n--b--\r\n"
        )
        verdict = judged(MimeObject.of(f'multipart/signed; protocol="{protocol}"; micalg=x; boundary=b', octets))
        assert verdict.verdict is VerdictKind.NOT_CHECKED
        assert verdict.content == cpim()
        assert (verdict.from_, verdict.signer) == ("im:alice@a.test", "")

    def test_the_second_part_must_be_what_the_protocol_names(self) -> None:
        signed = sign(cpim(), identity(), when=NOW)
        octets = signed.octets.replace(
            b"Content-Type: application/pkcs7-signature", b"Content-Type: application/octet-stream"
        )
        assert judged(MimeObject(signed.header_block, octets)).verdict is VerdictKind.MALFORMED

    @pytest.mark.parametrize("subtype", ["mixed", "alternative", "related"])
    @pytest.mark.parametrize("first", [True, False])
    def test_a_signed_part_among_others_proves_nothing(self, subtype: str, first: bool) -> None:
        """M-03, M-04."""
        signed = sign(cpim(), identity(), when=NOW).entity
        text = b"Content-Type: text/plain\r\n\r\nsend money to eve"
        parts = [signed, text] if first else [text, signed]
        octets = b"".join(b"--o\r\n" + part + b"\r\n" for part in parts) + b"--o--\r\n"
        verdict = judged(MimeObject.of(f"multipart/{subtype}; boundary=o", octets))
        assert verdict.verdict is VerdictKind.UNSIGNED
        assert "Only a part" in verdict.reason
        assert verdict.signer == ""

    def test_text_before_the_first_boundary_is_never_content(self) -> None:
        """T8: a prefix; what the verdict shows is the signed part alone."""
        signed = sign(cpim(), identity(), when=NOW)
        verdict = judged(MimeObject(signed.header_block, b"send money to eve\r\n" + signed.octets + b"and more"))
        assert verdict.content == cpim()

    def test_two_content_types_in_the_signed_entity_are_malformed(self) -> None:
        entity = b"Content-Type: message/cpim\r\ncontent-type: text/plain\r\n\r\n" + cpim().octets
        assert judged(forged(entity, identity())).verdict is VerdictKind.MALFORMED

    def test_encrypted_objects_are_named_so(self) -> None:
        """SEC-6."""
        two = b"--b\r\nContent-Type: application/x\r\n\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n"
        kind = 'multipart/encrypted; protocol="application/x"; boundary=b'
        assert judged(MimeObject.of(kind, two)).verdict is VerdictKind.ENCRYPTED
        three = two.replace(b"--b--", b"--b\r\n\r\n\r\n--b--")
        assert judged(MimeObject.of(kind, three)).verdict is VerdictKind.MALFORMED

    @pytest.mark.parametrize(
        "raw", [b"", b"Content-Type", b"\r\n", b"Content-Type: multipart/signed\r\n\r\n", b"\xff" * 40]
    )
    def test_garbage_gets_a_verdict_not_an_exception(self, raw: bytes) -> None:
        assert judged(raw).verdict in (VerdictKind.MALFORMED, VerdictKind.UNSIGNED)


class TestCmsAttacks:
    """The S/MIME shapes of "Johnny, you are fired", made with our own keys."""

    def test_no_signer_infos(self) -> None:
        """M-11."""
        entity = cpim().entity
        verdict = judged(opaque(signed_data([], [identity().certificate], content=entity)))
        assert verdict.verdict is VerdictKind.BAD_SIGNATURE
        assert judged(multipart(entity, signed_data([], []))).verdict is VerdictKind.BAD_SIGNATURE

    def test_one_good_signature_does_not_cover_for_a_broken_one(self) -> None:
        """M-12, M-43."""
        entity = cpim().entity
        good = signer_info(identity(EVE), entity)
        broken = signer_info(identity(), entity)
        broken = broken[:-4] + bytes(4)
        certificates = [identity().certificate, identity(EVE).certificate]
        for infos in ([good, broken], [signer_info(identity(), b"other"), good]):
            obj = opaque(signed_data(infos, certificates, content=entity))
            assert judged(obj).verdict is VerdictKind.BAD_SIGNATURE

    def test_a_second_good_signer_who_is_not_the_sender_is_named(self) -> None:
        verdict = judged(forged(cpim().entity, identity(), identity(EVE)))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.SIGNED_BY_OTHER, "im:eve@e.test")

    def test_two_good_signatures_of_the_sender_are_valid(self) -> None:
        assert judged(forged(cpim().entity, identity(), identity())).is_valid

    def test_content_inside_beside_content_outside(self) -> None:
        """M-13, M-42."""
        entity, other = cpim().entity, cpim(content=b"pay eve").entity
        raw = signed_data([signer_info(identity(), entity)], [identity().certificate], content=entity)
        for shown in (entity, other):
            verdict = judged(multipart(shown, raw))
            assert (verdict.verdict, verdict.content) == (VerdictKind.BAD_SIGNATURE, None)

    def test_detached_signature_without_content(self) -> None:
        raw = signed_data([signer_info(identity(), cpim().entity)], [identity().certificate])
        assert judged(opaque(raw)).verdict is VerdictKind.BAD_SIGNATURE

    def test_certificates_only_is_no_signature(self) -> None:
        assert judged(opaque(signed_data([], [identity().certificate]))).verdict is VerdictKind.UNSIGNED

    def test_content_that_is_not_plain_data(self) -> None:
        """M-14."""
        entity = cpim().entity
        raw = signed_data(
            [signer_info(identity(), entity)],
            [identity().certificate],
            content=entity,
            content_type="1.2.840.113549.1.9.16.1.4",
        )
        assert judged(opaque(raw)).verdict is VerdictKind.BAD_SIGNATURE

    @pytest.mark.parametrize("missing", [0, 1])
    def test_signed_attributes_without_content_type_or_digest(self, missing: int) -> None:
        """M-14."""
        entity = cpim().entity
        attributes = kit.usual_attributes(entity)
        del attributes[missing]
        assert judged(forged(entity, identity(), attributes=attributes)).verdict is VerdictKind.BAD_SIGNATURE

    def test_signed_attributes_passed_off_as_content(self) -> None:
        """A signature over attributes is also one over content that looks like them (RFC 5652 section 11)."""
        attributes = ber.set_of(kit.usual_attributes(cpim().entity))
        verdict = judged(forged(attributes, identity(), has_attributes=False))
        assert verdict.verdict is VerdictKind.BAD_SIGNATURE
        assert "passed off" in verdict.reason

    def test_without_signed_attributes_plain_data_is_valid(self) -> None:
        assert judged(forged(cpim().entity, identity(), has_attributes=False)).is_valid

    def test_nested_signatures_of_different_signers(self) -> None:
        """M-17: the outer verdict only, nothing is promoted from inside."""
        inner = sign(cpim(), identity(), when=NOW)
        for outer in (identity(EVE), identity()):
            verdict = judged(sign(inner, outer, when=NOW))
            assert verdict.verdict is VerdictKind.HEADERS_UNPROTECTED
            assert verdict.signer == outer.address.uri

    @pytest.mark.parametrize("digest", ["md5", "sha1"])
    def test_old_digests_are_weak(self, digest: str) -> None:
        """M-15, SEC-11."""
        verdict = judged(forged(cpim().entity, identity(kind="rsa"), digest=digest))
        assert verdict.verdict is VerdictKind.VALID_WEAK
        assert not verdict.is_valid

    def test_a_small_rsa_key_is_weak_and_never_signs(self) -> None:
        """M-15, SEC-11."""
        small = kit.rsa_identity(1024)
        assert judged(forged(cpim().entity, small)).verdict is VerdictKind.VALID_WEAK
        with pytest.raises(SecurityError, match="1024 bits"):
            sign(cpim(), small, when=NOW)

    @pytest.mark.parametrize("digest", ["sha256", "sha512"])
    def test_rsa_pss_is_read(self, digest: str) -> None:
        """SEC-8."""
        assert judged(forged(cpim().entity, identity(kind="rsa"), digest=digest, pss=True)).is_valid

    def test_unknown_algorithms_are_not_checked(self) -> None:
        entity = cpim().entity
        odd = ber.sequence(ber.oid("1.2.3.4"))
        assert judged(forged(entity, identity(), algorithm=odd)).verdict is VerdictKind.NOT_CHECKED

    def test_too_many_certificates_are_untrusted_at_once(self) -> None:
        """M-26."""
        entity = cpim().entity
        raw = signed_data([signer_info(identity(), entity)], [identity().certificate] * 50, content=entity)
        assert judged(opaque(raw)).verdict is VerdictKind.UNTRUSTED

    def test_a_five_megabyte_certificate_is_untrusted_at_once(self) -> None:
        """M-26: 50 ms of CPU, whatever comes along."""
        entity = cpim().entity
        huge = ber.sequence(ber.octet_string(bytes(5_000_000)))
        info = signer_info(identity(), entity)
        inner = ber.sequence(
            ber.integer(1),
            ber.set_of([ber.sequence(ber.oid(cms.SHA256_OID))]),
            ber.sequence(ber.oid(cms.ID_DATA), ber.tlv(0xA0, ber.octet_string(entity))),
            ber.tlv(0xA0, huge),
            ber.set_of([info]),
        )
        obj = opaque(ber.sequence(ber.oid(cms.ID_SIGNED_DATA), ber.tlv(0xA0, inner)))
        assert cpu_seconds(obj, VerdictKind.UNTRUSTED) < 0.05

    def test_a_signer_with_a_huge_rsa_key_is_untrusted_at_once(self) -> None:
        """M-26: 16,384 bits."""
        key = rsa.RSAPublicNumbers(65537, (1 << 16383) + 1).public_key()
        certificate = kit.ca().issue(ALICE, key, when=NOW)
        entity = cpim().entity
        info = ber.sequence(
            ber.integer(1),
            ber.sequence(certificate.issuer.public_bytes(), ber.integer(certificate.serial_number)),
            ber.sequence(ber.oid(cms.SHA256_OID)),
            ber.set_of(kit.usual_attributes(entity), 0xA0),
            ber.sequence(ber.oid(cms.RSA_SHA256), ber.NULL_DER),
            ber.octet_string(bytes(2048)),
        )
        obj = opaque(signed_data([info], [certificate], content=entity))
        assert cpu_seconds(obj, VerdictKind.UNTRUSTED) < 0.05

    def test_as_many_elements_as_are_read_cost_little(self) -> None:
        """M-26."""
        many = ber.sequence(ber.oid(cms.ID_SIGNED_DATA), ber.tlv(0xA0, *[ber.NULL_DER] * (ber.MAX_ELEMENTS - 10)))
        assert cpu_seconds(opaque(many), VerdictKind.BAD_SIGNATURE) < 0.05


class TestIdentity:
    """RFC 3923 section 6.3; SEC-17 to SEC-19."""

    def test_another_signer_is_named_with_the_sender(self) -> None:
        """SEED-52, SEC-18, M-07."""
        verdict = judged(sign(cpim(), identity(EVE), when=NOW))
        assert (verdict.verdict, verdict.signer, verdict.from_) == (
            VerdictKind.SIGNED_BY_OTHER,
            "im:eve@e.test",
            "im:alice@a.test",
        )
        assert verdict.reason == "The message says it is from im:alice@a.test, but im:eve@e.test signed it."

    def test_a_formal_name_proves_nothing(self) -> None:
        """M-08."""
        raw = cpim("im:eve@e.test").octets.replace(b"From: <im:eve", b'From: "im:alice@a.test" <im:eve')
        entity = MimeObject.of("message/cpim", raw)
        assert judged(sign(entity, identity(), when=NOW)).verdict is VerdictKind.SIGNED_BY_OTHER

    def test_two_from_headers_under_a_signature(self) -> None:
        """M-10, FMT-38, C-17."""
        for second in (
            b"From: <im:boss@a.test>\r\n",
            b"NS: x <urn:ietf:params:cpim-headers:>\r\nx.From: <im:boss@a.test>\r\n",
        ):
            raw = cpim().octets.replace(b"To:", second + b"To:", 1)
            verdict = judged(sign(MimeObject.of("message/cpim", raw), identity(), when=NOW))
            assert verdict.verdict is VerdictKind.AMBIGUOUS_SENDER
            assert judged(MimeObject.of("message/cpim", raw)).verdict is VerdictKind.AMBIGUOUS_SENDER

    @pytest.mark.parametrize(
        "san",
        [
            [],
            [x509.RFC822Name("alice@a.test")],
            [x509.DNSName("a.test")],
            [x509.UniformResourceIdentifier("im:alice@a.test\0.e.test")],
            [x509.UniformResourceIdentifier("im:alice%00@a.test")],
            [x509.UniformResourceIdentifier("im:Alice@a.test")],
            [x509.UniformResourceIdentifier("im:alice@a.test@e.test")],
            [x509.UniformResourceIdentifier("pres:alice@a.test")],
            [x509.UniformResourceIdentifier("sip:alice@a.test")],
            [x509.UniformResourceIdentifier("mailto:alice@a.test")],
            [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), ber.tlv(0x0C, b"alice@a.test"))],
            [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), ber.tlv(0x0C, b"alice@a.test\0.e.test"))],
            [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), ber.tlv(0x13, b"alice@a.test"))],
        ],
        ids=str,
    )
    def test_names_that_do_not_prove_the_sender(self, san: list[x509.GeneralName]) -> None:
        """M-07, M-25: the common name is the sender's address in each of them."""
        signer = kit.certificate_with(san, common_name="im:alice@a.test")
        assert judged(sign(cpim(), signer, when=NOW)).verdict is VerdictKind.SIGNED_BY_OTHER

    @pytest.mark.parametrize(
        ("san", "from_"),
        [
            ("IM:alice@A.TEST", "im:alice@a.test"),
            ("im:al%69ce@a.test", "im:alice@a.test"),
            ("im:alice@xn--bcher-kva.test", "im:alice@xn--bcher-kva.test"),
            ("im:alice@a.test", "im:al%69ce@A.test"),
            ("sip:alice@a.test", "sip:alice@a.test"),
            ("sip:alice@a.test:5061;transport=tls", "sip:alice@a.test"),
        ],
    )
    def test_forms_of_one_address_are_equal(self, san: str, from_: str) -> None:
        """M-24, ADDR-4."""
        signer = kit.certificate_with([x509.UniformResourceIdentifier(san)])
        assert judged(sign(cpim(from_), signer, when=NOW)).is_valid

    @pytest.mark.parametrize("from_", ["im:alice@a.test", "pres:alice@a.test", "sip:alice@a.test", "xmpp:alice@a.test"])
    def test_one_certificate_with_all_four_names(self, from_: str) -> None:
        """SEC-17."""
        assert judged(sign(cpim(from_), identity(), when=NOW)).is_valid

    def test_an_xmpp_address_proves_the_jid_behind_im(self) -> None:
        """RFC 3923 section 6.3."""
        signer = kit.certificate_with(
            [x509.OtherName(x509.ObjectIdentifier("1.3.6.1.5.5.7.8.5"), ber.tlv(0x0C, b"alice@a.test/desk"))]
        )
        assert judged(sign(cpim(), signer, when=NOW)).is_valid

    def test_sip_vouches_for_im_only_where_policy_says_so(self) -> None:
        """SEC-19."""
        signer = kit.certificate_with([x509.UniformResourceIdentifier("sip:alice@a.test")])
        signed = sign(cpim(), signer, when=NOW)
        assert judged(signed).verdict is VerdictKind.SIGNED_BY_OTHER
        other = trust(sip_vouches_for=frozenset({"b.test"}))
        assert verify(signed, other, now=NOW).verdict is VerdictKind.SIGNED_BY_OTHER
        allowed = trust(sip_vouches_for=frozenset({"a.test"}))
        assert verify(signed, allowed, now=NOW).is_valid


class TestTrust:
    """SEC-21: distrust is not a bad signature."""

    @pytest.mark.parametrize(
        ("days", "words"), [(800, "expired on"), (-1, "not valid before")], ids=["expired", "not yet valid"]
    )
    def test_dates(self, days: int, words: str) -> None:
        """M-21."""
        when = NOW + timedelta(days=days)
        verdict = verify(sign(cpim(when=when), identity(), when=when), trust(), now=when)
        assert (verdict.verdict, verdict.signer) == (VerdictKind.UNTRUSTED, "")
        assert words in verdict.reason
        assert verdict.certificate

    def test_a_date_time_outside_the_validity(self) -> None:
        """M-21."""
        old = sign(cpim(when=NOW - timedelta(days=3)), identity(), when=NOW)
        verdict = judged(old, arrived=NOW - timedelta(days=3))
        assert verdict.verdict is VerdictKind.UNTRUSTED
        assert "DateTime" in verdict.reason

    def test_an_unknown_authority_and_a_pin(self) -> None:
        """M-19."""
        signed = sign(cpim(), identity(), when=NOW)
        verdict = verify(signed, TrustStore(), now=NOW)
        assert verdict.verdict is VerdictKind.UNTRUSTED
        assert "nobody you trust vouches for" in verdict.reason
        assert verify(signed, TrustStore(pinned=(identity().certificate,)), now=NOW).is_valid

    def test_an_authority_of_the_same_name_is_not_the_one(self) -> None:
        twin = LocalCa.create("Comity CA of a.test", when=NOW)
        signer = new_identity(ALICE, when=NOW, ca=twin)
        assert judged(sign(cpim(), signer, when=NOW)).verdict is VerdictKind.UNTRUSTED

    def test_a_self_signed_signer_is_untrusted_until_pinned(self) -> None:
        signer = new_identity(ALICE, when=NOW)
        signed = sign(cpim(), signer, when=NOW)
        assert judged(signed).verdict is VerdictKind.UNTRUSTED
        assert verify(signed, trust(pinned=(signer.certificate,)), now=NOW).is_valid

    def test_untrusted_goes_before_signed_by_other_and_names_no_signer(self) -> None:
        signer = new_identity(EVE, when=NOW)
        verdict = judged(sign(cpim(), signer, when=NOW))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.UNTRUSTED, "")


class TestEnvelope:
    """SEED-5, SEED-28, SEED-34."""

    def test_an_unsigned_object_names_who_asserts_its_sender(self) -> None:
        verdict = judged(cpim(), asserted_by="gw.example")
        assert (verdict.verdict, verdict.asserted_by, verdict.signer) == (VerdictKind.UNSIGNED, "gw.example", "")
        assert verdict.reason == "The message is not signed; gw.example says it is from im:alice@a.test."

    def test_a_signed_object_names_no_asserter(self) -> None:
        assert judged(sign(cpim(), identity(), when=NOW), asserted_by="gw.example").asserted_by == ""

    @pytest.mark.parametrize("is_signed", [True, False])
    def test_another_sender_outside(self, is_signed: bool) -> None:
        """SEED-28: the displayed sender is the object's."""
        obj = sign(cpim(), identity(), when=NOW) if is_signed else cpim()
        verdict = judged(obj, expected_from="sip:eve@e.test")
        assert (verdict.verdict, verdict.from_) == (VerdictKind.ENVELOPE_MISMATCH, "im:alice@a.test")
        assert "sip:eve@e.test sent it" in verdict.reason
        assert judged(obj, expected_from="sip:alice@A.TEST").verdict is not VerdictKind.ENVELOPE_MISMATCH
        assert judged(obj, expected_from=ALICE, expected_to=BOB).verdict is not VerdictKind.ENVELOPE_MISMATCH

    @pytest.mark.parametrize("is_signed", [True, False])
    def test_a_recipient_who_is_not_addressed(self, is_signed: bool) -> None:
        """SEED-34, R-05, C-23."""
        obj = sign(cpim(), identity(), when=NOW) if is_signed else cpim()
        assert judged(obj, expected_to="im:carol@c.test").verdict is VerdictKind.NOT_ADDRESSED
        assert judged(obj, expected_to="im:bob@b.test").verdict in (VerdictKind.VALID, VerdictKind.UNSIGNED)

    def test_only_the_content_is_signed(self) -> None:
        """M-05, SEC-28, RFC 8591 section 9.1."""
        text = MimeObject.of("text/plain; charset=utf-8", b"hi")
        for form in FORMS:
            inner = sign(text, identity(), when=NOW, form=form)
            message = CpimMessage.build(
                from_="im:alice@a.test",
                to="im:bob@b.test",
                date_time=NOW,
                content=inner.octets,
                content_type=inner.content_type,
            )
            verdict = judged(MimeObject.of("message/cpim", message.raw))
            assert (verdict.verdict, verdict.signer) == (VerdictKind.HEADERS_UNPROTECTED, "im:alice@a.test")
            assert verdict.content == text
            forged_from = MimeObject.of("message/cpim", message.raw.replace(b"im:alice", b"im:mallory", 1))
            assert judged(forged_from).verdict is VerdictKind.SIGNED_BY_OTHER

    def test_a_secured_text_without_message_cpim(self) -> None:
        """SEC-7."""
        verdict = judged(sign(b"Content-Type: text/plain\r\n\r\nhi", identity(), when=NOW))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.HEADERS_UNPROTECTED, "im:alice@a.test")

    @pytest.mark.parametrize(
        ("outer", "expected"),
        [("im:eve@e.test", VerdictKind.ENVELOPE_MISMATCH), ("im:alice@a.test", VerdictKind.HEADERS_UNPROTECTED)],
    )
    def test_a_signed_message_inside_an_unsigned_one(self, outer: str, expected: VerdictKind) -> None:
        """M-06."""
        inner = sign(cpim(), identity(), when=NOW)
        message = CpimMessage.build(
            from_=outer, to="im:bob@b.test", content=inner.octets, content_type=inner.content_type
        )
        verdict = judged(MimeObject.of("message/cpim", message.raw))
        assert (verdict.verdict, verdict.from_, verdict.signer) == (expected, "im:alice@a.test", "im:alice@a.test")

    def test_a_bad_signature_inside_an_unsigned_message_is_said(self) -> None:
        """SEC-27."""
        inner = sign(cpim(), identity(), when=NOW)
        octets = inner.octets.replace(b"hi", b"ho", 1)
        message = CpimMessage.build(
            from_="im:alice@a.test", to="im:bob@b.test", content=octets, content_type=inner.content_type
        )
        assert judged(MimeObject.of("message/cpim", message.raw)).verdict is VerdictKind.BAD_SIGNATURE


class TestTime:
    """RFC 3923 section 6.9; SEED-35; reliability.md section 2.8."""

    def test_without_date_time(self) -> None:
        """SEED-35."""
        assert judged(cpim(when=None)).verdict is VerdictKind.UNSIGNED
        verdict = judged(sign(cpim(when=None), identity(), when=NOW))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.NO_FRESHNESS, "im:alice@a.test")

    @pytest.mark.parametrize(
        ("minutes", "expected", "mark"),
        [
            (-4, VerdictKind.VALID, ""),
            (-6, VerdictKind.STALE, "old timestamp"),
            (4, VerdictKind.VALID, ""),
            (6, VerdictKind.FUTURE, "future timestamp"),
        ],
    )
    def test_the_window_is_five_minutes(self, minutes: int, expected: VerdictKind, mark: str) -> None:
        """SEC-22."""
        when = NOW + timedelta(minutes=minutes)
        verdict = judged(sign(cpim(when=when), identity(), when=NOW))
        assert (verdict.verdict, verdict.freshness) == (expected, mark)

    def test_the_same_object_twice(self) -> None:
        """SEC-25, R-01, R-03."""
        cache = ReplayCache()
        signed = sign(cpim(message_id="abc123def456"), identity(), when=NOW)
        assert judged(signed, replay=cache).is_valid
        assert judged(signed, replay=cache).verdict is VerdictKind.REPLAYED
        again = sign(cpim(message_id="abc123def456"), identity(), when=NOW, form="signed-data")
        assert judged(again, replay=cache).verdict is VerdictKind.REPLAYED

    def test_a_time_that_does_not_increase(self) -> None:
        """SEC-22."""
        cache = ReplayCache()
        assert judged(sign(cpim(content=b"2"), identity(), when=NOW), replay=cache).is_valid
        earlier = sign(cpim(content=b"1", when=NOW - timedelta(seconds=1)), identity(), when=NOW)
        verdict = judged(earlier, replay=cache)
        assert (verdict.verdict, verdict.freshness) == (VerdictKind.STALE, "decreasing timestamp")

    def test_what_waited_may_come_after_what_went_directly(self) -> None:
        """SEC-24: the order of arrival says nothing about a queued object."""
        cache = ReplayCache()
        later = NOW + timedelta(minutes=30)
        queued = sign(cpim(content=b"1"), identity(), when=NOW)
        assert verify(
            sign(cpim(content=b"2", when=later), identity(), when=later), trust(), now=later, replay=cache
        ).is_valid
        verdict = verify(queued, trust(), now=later, replay=cache, arrived=NOW)
        assert (verdict.verdict, verdict.freshness) == (VerdictKind.VALID, "delayed")
        assert verify(queued, trust(), now=later, replay=cache, arrived=NOW).verdict is VerdictKind.REPLAYED

    def test_what_is_not_valid_is_not_remembered(self) -> None:
        cache = ReplayCache()
        signed = sign(cpim(), identity(), when=NOW)
        broken = MimeObject(signed.header_block, signed.octets.replace(b"hi", b"ho"))
        judged(broken, replay=cache)
        judged(sign(cpim(), identity(EVE), when=NOW), replay=cache)
        assert len(cache) == 0

    def test_a_known_queue_does_not_make_it_stale(self) -> None:
        """SEC-24, R-07."""
        signed = sign(cpim(), identity(), when=NOW)
        later = NOW + timedelta(days=2)
        assert verify(signed, trust(), now=later).verdict is VerdictKind.STALE
        verdict = verify(signed, trust(), now=later, arrived=NOW + timedelta(seconds=2))
        assert (verdict.verdict, verdict.freshness) == (VerdictKind.VALID, "delayed")
        assert "waited 47 hours in a queue" in verdict.reason


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


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_octets_get_a_verdict(raw: bytes) -> None:
    for obj in (raw, opaque(raw), multipart(cpim().entity, raw), MimeObject.of("message/cpim", raw)):
        assert not verify(obj, TrustStore(), now=NOW).is_valid

"""SignedData that is wrong in one respect, as in "Johnny, you are fired" (reliability.md section 2.7)."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import (
    VerdictKind,
    ber,
    cms,
    sign,
)
from tests.secure import kit
from tests.secure.kit import (
    ALICE,
    EVE,
    NOW,
    cpim,
    forged,
    identity,
    judged,
    multipart,
    opaque,
    signed_data,
    signer_info,
)


def cpu_seconds(obj: MimeObject, expected: VerdictKind) -> float:
    """The least of three runs: what the machine does besides is not ours."""
    times = []
    for _ in range(3):
        started = time.process_time()
        assert judged(obj).verdict is expected
        times.append(time.process_time() - started)
    return min(times)


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

    @pytest.mark.parametrize(("outer", "inner"), [(EVE, ALICE), (ALICE, EVE), (EVE, EVE)])
    def test_nested_signatures_of_another_signer(self, outer: Address, inner: Address) -> None:
        """M-17: the inner one is listed, and not promoted; all have to be the sender's."""
        verdict = judged(sign(sign(cpim(), identity(inner), when=NOW), identity(outer), when=NOW))
        assert (verdict.verdict, verdict.signer) == (VerdictKind.SIGNED_BY_OTHER, "im:eve@e.test")
        assert [str(layer) for layer in verdict.layers] == [f"signed by {outer}", f"signed by {inner}"]

    def test_nested_signatures_of_the_sender(self) -> None:
        """SEC-16."""
        verdict = judged(sign(sign(cpim(), identity(), when=NOW), identity(), when=NOW))
        assert (verdict.verdict, verdict.content) == (VerdictKind.VALID, cpim())

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

    def test_a_signer_with_a_long_rsa_exponent_is_untrusted_at_once(self) -> None:
        """M-26: each check with one of 3,072 bits costs 5 ms, and an object may ask for hundreds."""
        key = rsa.RSAPublicNumbers((1 << 3070) + 1, (1 << 3071) + 1).public_key()
        certificate = kit.ca().issue(ALICE, key, when=NOW)
        entity = cpim().entity
        info = ber.sequence(
            ber.integer(1),
            ber.sequence(certificate.issuer.public_bytes(), ber.integer(certificate.serial_number)),
            ber.sequence(ber.oid(cms.SHA256_OID)),
            ber.set_of(kit.usual_attributes(entity), 0xA0),
            ber.sequence(ber.oid(cms.RSA_SHA256), ber.NULL_DER),
            ber.octet_string(bytes(384)),
        )
        verdict = judged(opaque(signed_data([info] * cms.MAX_SIGNERS, [certificate], content=entity)))
        assert verdict.verdict is VerdictKind.UNTRUSTED
        assert "exponent" in verdict.reason

    def test_as_many_elements_as_are_read_cost_little(self) -> None:
        """M-26."""
        many = ber.sequence(ber.oid(cms.ID_SIGNED_DATA), ber.tlv(0xA0, *[ber.NULL_DER] * (ber.MAX_ELEMENTS - 10)))
        assert cpu_seconds(opaque(many), VerdictKind.BAD_SIGNATURE) < 0.05

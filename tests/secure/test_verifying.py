"""Taking off layers: RFC 1847, RFC 8551 section 3, and that no octet can be changed unnoticed (reliability.md T7, T8)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.cpim.entity import multipart_parts
from comity.cpim.operations import MimeObject
from comity.secure import (
    TrustStore,
    VerdictKind,
    sign,
    verify,
)
from tests.secure import kit
from tests.secure.kit import (
    FORMS,
    NOW,
    Form,
    cpim,
    forged,
    identity,
    judged,
    multipart,
    opaque,
    signed_data,
    signer_info,
)


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
    @given(st.sampled_from(FORMS), st.integers(0, 65535), st.integers(1, 255))
    def test_no_change_anywhere_makes_other_content_valid(self, form: Form, place: int, mask: int) -> None:
        entity = cpim()
        signed = sign(entity, identity(), when=NOW, form=form)
        changed = bytearray(signed.octets)
        changed[place % len(changed)] ^= mask  # what is drawn does not depend on the length, which differs each time
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

    @pytest.mark.parametrize(
        "before",
        [
            "content-type: text/html\r\n",
            "Content-Type : text/html\r\n",
            "Content-Type\u00a0: text/html\r\n",
            " Content-Type: text/html\r\n",
            "X: y\nContent-Type: text/html\r\n",
            "X: y\rContent-Type: text/html\r\n",
            "Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n",
        ],
        ids=["plain", "space", "no-break space", "folded first", "bare LF", "bare CR", "encoding"],
    )
    def test_a_header_that_two_readers_part_differently_is_malformed(self, before: str) -> None:
        """One may find text/html, the other message/cpim, under one good signature (T8)."""
        assert judged(forged(before.encode() + cpim().entity, identity())).verdict is VerdictKind.MALFORMED
        only = cpim().entity.replace(b"Content-Type:", "Content-Type\u2003:".encode(), 1)
        assert judged(forged(only, identity())).verdict is VerdictKind.MALFORMED

    def test_encrypted_objects_are_named_so(self) -> None:
        """SEC-6."""
        two = b"--b\r\nContent-Type: application/x\r\n\r\n\r\n--b\r\nContent-Type: application/octet-stream\r\n\r\n\r\n--b--\r\n"
        kind = 'multipart/encrypted; protocol="application/x"; boundary=b'
        assert judged(MimeObject.of(kind, two)).verdict is VerdictKind.ENCRYPTED
        three = two.replace(b"--b--", b"--b\r\n\r\n\r\n--b--")
        assert judged(MimeObject.of(kind, three)).verdict is VerdictKind.MALFORMED

    @pytest.mark.parametrize(
        ("first", "second", "expected"),
        [
            ("application/x", "application/octet-stream", VerdictKind.ENCRYPTED),
            ("application/octet-stream", "application/x", VerdictKind.MALFORMED),
            ("application/y", "application/octet-stream", VerdictKind.MALFORMED),
            ("application/x", "text/plain", VerdictKind.MALFORMED),
        ],
    )
    def test_the_parts_of_an_encrypted_multipart_are_in_order(
        self, first: str, second: str, expected: VerdictKind
    ) -> None:
        """SEC-6, RFC 1847 section 2.2."""
        octets = f"--b\r\nContent-Type: {first}\r\n\r\n\r\n--b\r\nContent-Type: {second}\r\n\r\n\r\n--b--\r\n".encode()
        for kind, answer in (
            ('multipart/encrypted; protocol="application/x"; boundary=b', expected),
            ("multipart/encrypted; boundary=b", VerdictKind.MALFORMED),
        ):
            assert judged(MimeObject.of(kind, octets)).verdict is answer

    @pytest.mark.parametrize(
        "raw", [b"", b"Content-Type", b"\r\n", b"Content-Type: multipart/signed\r\n\r\n", b"\xff" * 40]
    )
    def test_garbage_gets_a_verdict_not_an_exception(self, raw: bytes) -> None:
        assert judged(raw).verdict in (VerdictKind.MALFORMED, VerdictKind.UNSIGNED)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_arbitrary_octets_get_a_verdict(raw: bytes) -> None:
    for obj in (raw, opaque(raw), multipart(cpim().entity, raw), MimeObject.of("message/cpim", raw)):
        assert not verify(obj, TrustStore(), now=NOW).is_valid


def test_threads_with_different_trust_do_not_mix() -> None:
    """M-46: nothing is kept between two calls but what the caller hands in."""
    obj = sign(cpim(), identity(), when=NOW)
    stores = [kit.trust(), TrustStore(), kit.trust(distrusted=frozenset({identity().fingerprint}))]
    expected = [VerdictKind.VALID, VerdictKind.UNTRUSTED, VerdictKind.UNTRUSTED]
    with ThreadPoolExecutor(6) as threads:
        found = list(threads.map(lambda number: verify(obj, stores[number % 3], now=NOW).verdict, range(300)))
    assert found == expected * 100

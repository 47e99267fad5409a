"""Whose signature, for whom, when: RFC 3923 section 6, RFC 8550 section 3, RFC 8591 section 9.1."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cryptography import x509

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.secure import (
    ReplayCache,
    TrustStore,
    Verdict,
    VerdictKind,
    ber,
    encrypt,
    new_identity,
    sign,
    verify,
)
from comity.secure.identity import LocalCa
from tests.secure import kit
from tests.secure.kit import (
    ALICE,
    BOB,
    EVE,
    FORMS,
    NOW,
    cpim,
    identity,
    judged,
    trust,
)


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

    def test_who_proves_a_sip_address_only_is_not_called_im(self) -> None:
        """SEC-18, SEC-19: sip:alice@a.test and im:alice@a.test may be two people."""
        signer = kit.certificate_with([x509.UniformResourceIdentifier("sip:alice@a.test")])
        signed = sign(cpim("sip:alice@a.test;transport=tls"), signer, when=NOW)
        verdict = judged(signed)
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "sip:alice@a.test")
        assert "im:alice" not in verdict.reason
        allowed = verify(signed, trust(sip_vouches_for=frozenset({"a.test"})), now=NOW)
        assert (allowed.verdict, allowed.signer) == (VerdictKind.VALID, "im:alice@a.test")


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

    def test_a_recipient_in_cc_is_addressed(self) -> None:
        """C-23."""
        message = CpimMessage.build(
            from_="im:alice@a.test", to="im:carol@c.test", cc=["im:bob@b.test"], date_time=NOW, content=b"hi"
        )
        obj = sign(MimeObject.of("message/cpim", message.raw), identity(), when=NOW)
        assert judged(obj, expected_to=BOB).is_valid

    def test_a_proved_sender_needs_nobody_to_assert_him(self) -> None:
        """SEED-5: also where the envelope disagrees; where only the content is signed, From is still the server's word."""
        signed = sign(cpim(), identity(), when=NOW)
        mismatch = judged(signed, expected_from="im:eve@e.test", asserted_by="gw.example")
        assert (mismatch.verdict, mismatch.asserted_by) == (VerdictKind.ENVELOPE_MISMATCH, "")
        text = sign(b"Content-Type: text/plain\r\n\r\nhi", identity(), when=NOW)
        assert judged(text, asserted_by="gw.example").asserted_by == "gw.example"

    def test_a_layer_names_no_address_that_nobody_vouches_for(self) -> None:
        """Anybody can write it into a certificate."""
        signer = new_identity(ALICE, when=NOW)
        [layer] = judged(sign(cpim(), signer, when=NOW)).layers
        assert str(layer) == f"signed by an untrusted key, {signer.fingerprint[:16]}"

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

    def test_another_message_under_a_message_id_that_was_used(self) -> None:
        """SEC-25: (signer, imdn.Message-ID) names a message; the same one of another signer is another message."""
        cache = ReplayCache()
        later = NOW + timedelta(seconds=1)
        assert judged(sign(cpim(message_id="abc123def456"), identity(), when=NOW), replay=cache).is_valid
        other = sign(cpim(content=b"other", message_id="abc123def456", when=later), identity(), when=NOW)
        assert judged(other, replay=cache).verdict is VerdictKind.REPLAYED
        of_eve = sign(cpim("im:eve@e.test", message_id="abc123def456"), identity(EVE), when=NOW)
        assert judged(of_eve, replay=cache).is_valid

    def test_what_another_thread_accepted_in_between(self) -> None:
        """M-46: the answer is that of ``accept``, whatever ``check`` said a moment ago."""

        class Between(ReplayCache):
            def check(self, signer: str, identifier: str, stamp: datetime | None, now: datetime) -> VerdictKind | None:
                answer = super().check(signer, identifier, stamp, now)
                self.accept(signer, identifier, stamp, now)  # the other thread comes first
                return answer

        assert judged(sign(cpim(), identity(), when=NOW), replay=Between()).verdict is VerdictKind.REPLAYED

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


class TestPresence:
    """A presence document under a signature (SEC-7, SEC-18, SEC-22; RFC 3923 section 4, RFC 3859 section 4)."""

    @staticmethod
    def document(entity: str = "pres:alice@a.test", stamp: str = "2026-03-01T12:00:00Z") -> MimeObject:
        timestamp = f"<timestamp>{stamp}</timestamp>" if stamp else ""
        return MimeObject.of(
            "application/pidf+xml",
            f'<?xml version="1.0" encoding="UTF-8"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="{entity}">'
            f'<tuple id="x"><status><basic>open</basic></status>{timestamp}</tuple></presence>'.encode(),
        )

    def judged(self, document: MimeObject, **more: object) -> Verdict:
        return judged(sign(document, identity(), when=NOW), **more)

    def test_the_entity_is_who_must_have_signed(self) -> None:
        verdict = self.judged(self.document())
        assert (verdict.verdict, verdict.signer) == (VerdictKind.VALID, "pres:alice@a.test")
        assert verdict.reason == "pres:alice@a.test signed the whole presence document."
        assert verdict.content == self.document()
        other = self.judged(self.document("pres:eve@e.test"))
        assert (other.verdict, other.from_) == (VerdictKind.SIGNED_BY_OTHER, "pres:eve@e.test")

    def test_a_certificate_for_messages_only_does_not_prove_it(self) -> None:
        """SEC-19: schemes are kept apart."""
        signer = kit.certificate_with([x509.UniformResourceIdentifier("im:alice@a.test")])
        verdict = judged(sign(self.document(), signer, when=NOW))
        assert verdict.verdict is VerdictKind.SIGNED_BY_OTHER

    @pytest.mark.parametrize(
        ("stamp", "expected"),
        [
            ("", VerdictKind.NO_FRESHNESS),
            ("2026-03-01T11:54:00Z", VerdictKind.STALE),
            ("2026-03-01T12:06:00Z", VerdictKind.FUTURE),
            ("2026-03-01T12:04:00Z", VerdictKind.VALID),
        ],
    )
    def test_its_newest_timestamp_counts(self, stamp: str, expected: VerdictKind) -> None:
        """SEC-22."""
        assert self.judged(self.document(stamp=stamp)).verdict is expected

    def test_an_older_one_after_a_newer_one(self) -> None:
        """SEC-22, N-16."""
        cache = ReplayCache()
        assert self.judged(self.document(), replay=cache).is_valid
        verdict = self.judged(self.document(stamp="2026-03-01T11:59:59Z"), replay=cache)
        assert (verdict.verdict, verdict.freshness) == (VerdictKind.STALE, "decreasing timestamp")
        assert self.judged(self.document(), replay=cache).verdict is VerdictKind.REPLAYED

    def test_whoever_notifies_for_somebody_else(self) -> None:
        """SEED-28, N-19."""
        verdict = self.judged(self.document(), expected_from="pres:eve@e.test", expected_to="pres:bob@b.test")
        assert verdict.verdict is VerdictKind.ENVELOPE_MISMATCH
        assert self.judged(self.document(), expected_from="pres:alice@a.test", expected_to=BOB).is_valid

    def test_unsigned_it_names_who_asserts_it(self) -> None:
        verdict = judged(self.document(), asserted_by="gw.example")
        assert (verdict.verdict, verdict.from_, verdict.asserted_by) == (
            VerdictKind.UNSIGNED,
            "pres:alice@a.test",
            "gw.example",
        )

    @pytest.mark.parametrize(
        "raw", [b"", b"<presence/>", b'<!DOCTYPE p><presence xmlns="urn:ietf:params:xml:ns:pidf"/>']
    )
    def test_what_is_no_document_is_malformed(self, raw: bytes) -> None:
        """N-18."""
        obj = MimeObject.of("application/pidf+xml", raw)
        assert judged(kit.forged(obj.entity, identity())).verdict is VerdictKind.MALFORMED
        assert judged(obj).verdict is VerdictKind.MALFORMED

    def test_it_is_read_encrypted_too(self) -> None:
        sealed = encrypt(sign(self.document(), identity(), when=NOW), [identity(BOB).certificate])
        assert judged(sealed, keys=(identity(BOB),)).is_valid

"""Revocation lists (RFC 5280 section 5 and 6.3, RFC 8550 section 4.2); SEC-21, M-22."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ReasonFlags

from comity.secure import LocalCa, TrustStore, VerdictKind, cms, new_identity, sign, smime, verify
from comity.secure.chain import ChainResult, Distrust, check_chain
from tests.secure import kit
from tests.secure.kit import NOW, authority

DAY = timedelta(days=1)
ALICE = kit.identity().certificate


def scope(**how: object) -> x509.IssuingDistributionPoint:
    usual: dict[str, object] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**usual | how)  # type: ignore[arg-type]  # keyword table


def entry(
    certificate: x509.Certificate,
    reason: ReasonFlags | None = None,
    issuer: x509.Name | None = None,
    extra: Iterable[x509.ExtensionType] = (),
) -> x509.RevokedCertificate:
    builder = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(NOW - DAY)
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    if issuer is not None:
        builder = builder.add_extension(x509.CertificateIssuer([x509.DirectoryName(issuer)]), critical=True)
    for extension in extra:
        builder = builder.add_extension(extension, critical=True)
    return builder.build()


def crl(
    *entries: x509.RevokedCertificate,
    by: LocalCa | None = None,
    since: datetime = NOW - timedelta(hours=1),
    until: datetime = NOW + DAY,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> x509.CertificateRevocationList:
    by = by or kit.ca()
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject).last_update(since)
    builder = builder.next_update(until)
    for one in entries:
        builder = builder.add_revoked_certificate(one)
    for extension, is_critical in extra:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(by.key, hashes.SHA256())


def judged(*lists: x509.CertificateRevocationList, certificate: x509.Certificate = ALICE) -> ChainResult:
    return check_chain(certificate, kit.trust(crls=lists), NOW)


def test_expired_revoked_and_unknown_are_three_reasons() -> None:
    """SEC-21: the signature holds in each case, and each has its own sentence."""
    obj = sign(kit.cpim(), kit.identity(), when=NOW)
    later = NOW + timedelta(days=4000)
    expired = verify(obj, kit.trust(), now=later)
    revoked = verify(obj, kit.trust(crls=(crl(entry(ALICE)),)), now=NOW)
    unknown = verify(obj, TrustStore(), now=NOW)
    assert {v.verdict for v in (expired, revoked, unknown)} == {VerdictKind.UNTRUSTED}
    assert "expired on" in expired.reason
    assert "has been revoked by its issuer on 2026-02-28" in revoked.reason
    assert "nobody you trust vouches for" in unknown.reason


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (None, "on 2026-02-28"),
        (ReasonFlags.unspecified, "on 2026-02-28"),
        (ReasonFlags.key_compromise, "its key was compromised"),
        (ReasonFlags.superseded, "it was replaced"),
        (ReasonFlags.certificate_hold, "it is on hold"),
    ],
)
def test_the_reason_is_said(reason: ReasonFlags | None, words: str) -> None:
    """RFC 5280 section 5.3.1."""
    result = judged(crl(entry(ALICE, reason)))
    assert result.distrust is Distrust.REVOKED
    assert words in result.text


class TestAge:
    def test_an_old_list_still_revokes(self) -> None:
        old = crl(entry(ALICE), since=NOW - 30 * DAY, until=NOW - 10 * DAY)
        assert judged(old).distrust is Distrust.REVOKED

    def test_an_old_list_that_is_silent_says_so(self) -> None:
        """Not "not revoked": nothing is known since."""
        result = judged(crl(since=NOW - 30 * DAY, until=NOW - 10 * DAY))
        assert result.distrust is None
        assert "out of date since 2026-02-19" in result.remark

    def test_a_current_one_beside_it_is_enough(self) -> None:
        assert judged(crl(since=NOW - 30 * DAY, until=NOW - 10 * DAY), crl()).remark == ""

    def test_the_remark_reaches_the_signer(self) -> None:
        entity = kit.cpim().entity
        signed = cms.parse_signed_data(sign(entity, kit.identity(), when=NOW, form="signed-data").octets)
        trust = kit.trust(crls=(crl(since=NOW - 30 * DAY, until=NOW - 10 * DAY),))
        (signer,) = smime.signers_of(signed, entity, frozenset(), trust, NOW)
        assert (signer.distrust, "out of date" in signer.remark) == ("", True)
        verdict = verify(sign(entity, kit.identity(), when=NOW), trust, now=NOW)
        assert verdict.is_valid
        assert verdict.reason.endswith("what was revoked later is not known.")

    def test_no_list_at_all_is_no_remark(self) -> None:
        assert judged().remark == ""

    def test_a_forged_current_list_does_not_hide_that_ours_is_old(self) -> None:
        twin = LocalCa.create("Comity CA of a.test", when=NOW)
        assert "out of date" in judged(crl(since=NOW - 30 * DAY, until=NOW - 10 * DAY), crl(by=twin)).remark


class TestHoldAndDelta:
    """RFC 5280 section 5.2.4, 5.3.1."""

    DELTA = ((x509.DeltaCRLIndicator(1), True),)
    OLD = NOW - 3 * DAY

    def test_a_delta_revokes(self) -> None:
        assert judged(crl(), crl(entry(ALICE), extra=self.DELTA)).distrust is Distrust.REVOKED

    def test_a_delta_alone_does_not_make_things_current(self) -> None:
        old = crl(since=NOW - 30 * DAY, until=NOW - 10 * DAY)
        assert "out of date" in judged(old, crl(extra=self.DELTA)).remark

    def test_a_hold_is_lifted_by_a_newer_complete_list(self) -> None:
        held = crl(entry(ALICE, ReasonFlags.certificate_hold), since=self.OLD)
        assert judged(held).distrust is Distrust.REVOKED
        assert judged(held, crl()).distrust is None

    def test_a_hold_is_lifted_by_a_delta_that_removes_it(self) -> None:
        held = crl(entry(ALICE, ReasonFlags.certificate_hold), since=self.OLD)
        removed = crl(entry(ALICE, ReasonFlags.remove_from_crl), extra=self.DELTA)
        assert judged(held, removed).distrust is None

    def test_a_hold_is_not_lifted_by_an_older_list_nor_by_a_delta_that_is_silent(self) -> None:
        held = crl(entry(ALICE, ReasonFlags.certificate_hold))
        assert judged(held, crl(since=self.OLD)).distrust is Distrust.REVOKED
        assert judged(crl(entry(ALICE, ReasonFlags.certificate_hold), since=self.OLD), crl(extra=self.DELTA)).distrust

    def test_nothing_lifts_what_was_revoked_for_good(self) -> None:
        lost = crl(entry(ALICE, ReasonFlags.key_compromise), since=self.OLD)
        removed = crl(entry(ALICE, ReasonFlags.remove_from_crl), extra=self.DELTA)
        assert judged(lost, crl(), removed).distrust is Distrust.REVOKED


class TestIndirect:
    """RFC 5280 section 5.2.5, 5.3.3: an indirect list names issuers beside numbers."""

    INDIRECT = ((scope(indirect_crl=True), True),)

    def test_a_number_of_another_issuer_is_not_ours(self) -> None:
        other = crl(entry(ALICE, issuer=kit.name("another authority")), extra=self.INDIRECT)
        assert judged(other).distrust is None
        own = crl(entry(ALICE, issuer=kit.ca().certificate.subject), extra=self.INDIRECT)
        assert judged(own).distrust is Distrust.REVOKED

    def test_an_issuer_stays_until_another_is_named(self) -> None:
        somebody = new_identity(kit.BOB, when=NOW).certificate
        named = kit.ca().certificate.subject
        assert judged(crl(entry(somebody, issuer=named), entry(ALICE), extra=self.INDIRECT)).distrust is not None
        assert judged(crl(entry(somebody, issuer=kit.name("x")), entry(ALICE), extra=self.INDIRECT)).distrust is None

    def with_point(self, issuer: x509.Name) -> x509.Certificate:
        point = x509.DistributionPoint(
            [x509.UniformResourceIdentifier("http://x.test/crl")], None, None, [x509.DirectoryName(issuer)]
        )
        names = [x509.UniformResourceIdentifier("im:alice@a.test")]
        return kit.certificate_with(names, extra=[(x509.CRLDistributionPoints([point]), False)]).certificate

    @pytest.mark.parametrize(("is_named", "is_appointed"), [(True, True), (True, False), (False, True)])
    def test_another_may_sign_it_if_the_certificate_and_an_authority_say_so(
        self, is_named: bool, is_appointed: bool
    ) -> None:
        signer = authority("list signer", kit.ca() if is_appointed else None, is_ca=False)
        certificate = self.with_point(signer.certificate.subject if is_named else kit.name("somebody else"))
        listed = crl(entry(certificate, issuer=kit.ca().certificate.subject), by=signer, extra=self.INDIRECT)
        trust = kit.trust(crls=(listed,), known=(signer.certificate,))
        result = check_chain(certificate, trust, NOW)
        assert (result.distrust is Distrust.REVOKED) is (is_named and is_appointed)

    def test_a_direct_list_of_another_says_nothing(self) -> None:
        signer = authority("list signer", kit.ca(), is_ca=False)
        certificate = self.with_point(signer.certificate.subject)
        trust = kit.trust(crls=(crl(entry(certificate), by=signer),), known=(signer.certificate,))
        assert check_chain(certificate, trust, NOW).distrust is None


class TestScope:
    OLD = NOW - 30 * DAY

    @pytest.mark.parametrize(
        "how",
        [
            {"only_contains_ca_certs": True},
            {"only_contains_attribute_certs": True},
            {"only_some_reasons": frozenset({ReasonFlags.superseded})},
            {"full_name": [x509.UniformResourceIdentifier("http://x.test/part")]},
        ],
        ids=str,
    )
    def test_a_list_for_others_or_for_some_reasons_does_not_make_things_current(self, how: dict[str, object]) -> None:
        old = crl(since=self.OLD, until=NOW - 10 * DAY)
        assert "out of date" in judged(old, crl(extra=[(scope(**how), True)])).remark

    def test_a_list_of_users_is_about_users(self) -> None:
        old = crl(since=self.OLD, until=NOW - 10 * DAY)
        assert judged(old, crl(extra=[(scope(only_contains_user_certs=True), True)])).remark == ""

    def test_a_list_or_entry_that_cannot_be_understood_is_not_used(self) -> None:
        """RFC 5280 section 5.2, 5.3: "MUST NOT use that CRL to determine the status of certificates"."""
        strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
        assert judged(crl(entry(ALICE), extra=[(strange, True)])).distrust is None
        assert judged(crl(entry(ALICE), extra=[(strange, False)])).distrust is Distrust.REVOKED
        assert judged(crl(entry(ALICE, extra=[strange]))).distrust is None

    def test_an_authority_that_may_not_sign_lists_revokes_nothing(self) -> None:
        usage = kit.usage("key_cert_sign")
        root = authority("root", None, extra=[(usage, True)])
        certificate = kit.issued(root).certificate
        trust = TrustStore(anchors=(root.certificate,), crls=(crl(entry(certificate), by=root),))
        assert check_chain(certificate, trust, NOW).distrust is None

    def test_an_intermediate_can_be_revoked(self) -> None:
        root = authority("root", None)
        middle = authority("middle", root)
        certificate = kit.issued(middle).certificate
        trust = TrustStore(anchors=(root.certificate,), crls=(crl(entry(middle.certificate), by=root),))
        result = check_chain(certificate, trust, NOW, others=[middle.certificate])
        assert (result.distrust, "CN=middle" in result.text) == (Distrust.REVOKED, True)

    def test_who_made_a_certificate_for_encryption_can_revoke_it(self) -> None:
        """An Ed25519 identity without an authority: its own key signs the list, and pinning it is enough to believe that."""
        me = new_identity(kit.BOB, when=NOW, kind="ed25519")
        assert me.encryption is not None
        reader = me.encryption.certificate
        builder = x509.CertificateRevocationListBuilder().issuer_name(me.certificate.subject)
        builder = builder.last_update(NOW - DAY).next_update(NOW + DAY).add_revoked_certificate(entry(reader))
        own = builder.sign(me.key, None)
        pinned = TrustStore(pinned=(me.certificate,))
        assert check_chain(reader, pinned, NOW, purpose="encryption").distrust is None
        revoked = TrustStore(pinned=(me.certificate,), crls=(own,))
        assert check_chain(reader, revoked, NOW, purpose="encryption").distrust is Distrust.REVOKED
        assert check_chain(me.certificate, revoked, NOW).distrust is None

    def test_a_revoked_or_expired_key_vouches_for_no_other(self) -> None:
        """The certificate for encryption falls with the one that made it."""
        me = new_identity(kit.BOB, when=NOW, kind="ed25519")
        assert me.encryption is not None
        reader = me.encryption.certificate
        builder = x509.CertificateRevocationListBuilder().issuer_name(me.certificate.subject)
        builder = builder.last_update(NOW - DAY).next_update(NOW + DAY).add_revoked_certificate(entry(me.certificate))
        lost = TrustStore(pinned=(me.certificate,), crls=(builder.sign(me.key, None),))
        assert check_chain(reader, lost, NOW, purpose="encryption").distrust is Distrust.REVOKED

"""Certification paths (RFC 8550 section 4, RFC 5280 section 6); SEC-21, M-19, M-21, M-22, M-26."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from comity.secure import LocalCa, TrustStore, VerdictKind, sign, verify
from comity.secure.chain import (
    MAX_DEPTH,
    ChainResult,
    Distrust,
    check_chain,
    display_name,
    fingerprint,
    load_certificate,
)
from comity.secure.own_ca import revocation_list
from tests.secure import kit
from tests.secure.kit import ALICE, EVE, NOW, authority, issued


def check(signer: x509.Certificate, root: LocalCa, *others: x509.Certificate) -> ChainResult:
    return check_chain(signer, TrustStore(anchors=(root.certificate,)), NOW, others=others)


def test_a_path_over_intermediates_that_came_along_in_any_order() -> None:
    root = authority("root", None)
    middle = authority("middle", root)
    low = authority("low", middle)
    signer = issued(low).certificate
    result = check(signer, root, low.certificate, middle.certificate)
    assert result.distrust is None
    assert [display_name(c) for c in result.path] == ["CN=leaf", "CN=low", "CN=middle", "CN=root"]
    assert check(signer, root, middle.certificate, low.certificate).distrust is None
    assert check(signer, root, middle.certificate).distrust is Distrust.UNKNOWN_CA


def test_intermediates_travel_with_the_signature() -> None:
    root = authority("root", None)
    middle = authority("middle", root)
    signer = issued(middle, ALICE, middle.certificate)
    trust = TrustStore(anchors=(root.certificate,))
    for form in ("multipart", "signed-data"):
        signed = sign(kit.cpim(), signer, when=NOW, form="multipart" if form == "multipart" else "signed-data")
        assert verify(signed, trust, now=NOW).is_valid


def test_an_end_entity_cannot_issue() -> None:
    root = authority("root", None)
    for false_ca in (authority("mallory", root, is_ca=False), issued_ca(root)):
        signer = issued(false_ca).certificate
        result = check(signer, root, false_ca.certificate)
        assert result.distrust is Distrust.USAGE
        assert "not a certification authority" in result.text


def issued_ca(root: LocalCa) -> LocalCa:
    """Eve's own end-entity certificate, misused as an authority."""
    identity = issued(root, EVE)
    return LocalCa(identity.key, identity.certificate)


def test_path_length_is_counted() -> None:
    root = authority("root", None, path_length=0)
    assert check(issued(root).certificate, root).distrust is None
    middle = authority("middle", root)
    result = check(issued(middle).certificate, root, middle.certificate)
    assert (result.distrust, "path length" in result.text) == (Distrust.USAGE, True)


def test_a_path_that_is_too_deep_ends_quickly() -> None:
    """M-26."""
    authorities = [authority("a0", None)]
    for number in range(1, 50):
        authorities.append(authority(f"a{number}", authorities[-1]))
    signer = issued(authorities[-1]).certificate
    started = time.process_time()
    result = check(signer, authorities[0], *(a.certificate for a in authorities))
    assert result.distrust is Distrust.UNSUPPORTED
    assert str(MAX_DEPTH) in result.text
    assert time.process_time() - started < 0.5


def test_a_bag_of_look_alikes_costs_a_bounded_number_of_checks() -> None:
    """M-26: sixteen authorities of one name and one key, each issued by each of the others."""
    first = authority("twin", None)
    twins = [LocalCa(first.key, twin_of(first)) for _ in range(16)]
    signer = issued(twins[0]).certificate
    started = time.process_time()
    result = check(signer, authority("root", None), *(twin.certificate for twin in twins))
    assert result.distrust is Distrust.UNSUPPORTED
    assert time.process_time() - started < 0.2


def twin_of(first: LocalCa) -> x509.Certificate:
    """The same name and key once more, under another serial number."""
    return (
        x509.CertificateBuilder()
        .subject_name(first.certificate.subject)
        .issuer_name(first.certificate.subject)
        .public_key(first.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(first.key, hashes.SHA256())
    )


@pytest.mark.parametrize(
    ("bits", "exponent", "word"), [(16384, 65537, "8192"), (3072, (1 << 3070) + 1, "exponent")], ids=["key", "exponent"]
)
def test_a_huge_rsa_key_is_not_even_tried(bits: int, exponent: int, word: str) -> None:
    """M-26: the issuer's key is 16,384 bits long, or its exponent 3,071."""
    numbers = rsa.RSAPublicNumbers(exponent, (1 << bits - 1) + 1)
    root = authority("root", None)
    huge = (
        x509.CertificateBuilder()
        .subject_name(kit.name("huge"))
        .issuer_name(root.certificate.subject)
        .public_key(numbers.public_key())
        .serial_number(7)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root.key, hashes.SHA256())
    )
    signer = issued(authority("huge", None)).certificate
    started = time.thread_time()
    result = check(signer, root, huge)
    assert result.distrust is Distrust.UNSUPPORTED
    assert word in result.text
    assert time.thread_time() - started < 0.2


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ([(kit.usage("key_cert_sign"), True)], Distrust.USAGE),
        ([(kit.usage("digital_signature"), True)], None),
        ([(kit.usage("content_commitment"), True)], None),
        ([(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)], Distrust.USAGE),
        ([(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), True)], None),
        ([(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)], None),
        ([(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)], Distrust.UNSUPPORTED),
        ([(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), False)], None),
    ],
)
def test_usage_and_critical_extensions_of_the_signer(
    extra: list[tuple[x509.ExtensionType, bool]], expected: Distrust | None
) -> None:
    """RFC 8550 sections 4.4, 4.4.2, 4.4.4."""
    signer = kit.certificate_with([x509.UniformResourceIdentifier("im:alice@a.test")], extra=extra)
    assert check(signer.certificate, kit.ca()).distrust is expected
    pinned = TrustStore(pinned=(signer.certificate,))
    assert check_chain(signer.certificate, pinned, NOW).distrust is expected


@pytest.mark.parametrize("is_critical", [True, False])
def test_name_constraints_are_refused_rather_than_ignored(is_critical: bool) -> None:
    constraint = x509.NameConstraints(permitted_subtrees=[x509.DNSName("e.test")], excluded_subtrees=None)
    root = authority("root", None)
    middle = authority("middle", root, extra=[(constraint, is_critical)])
    assert check(issued(middle).certificate, root, middle.certificate).distrust is Distrust.UNSUPPORTED


@pytest.mark.parametrize(
    ("days", "expected"),
    [(-2, Distrust.NOT_YET_VALID), (0, None), (2, Distrust.EXPIRED)],
    ids=["before", "in", "after"],
)
def test_every_certificate_of_the_path_must_be_valid_now(days: int, expected: Distrust | None) -> None:
    root = authority("root", None)
    signer = root_issued_for_years(root)
    trust = TrustStore(anchors=(root.certificate,))
    assert check_chain(signer, trust, NOW + timedelta(days=days)).distrust is expected


def root_issued_for_years(root: LocalCa) -> x509.Certificate:
    return root.issue(ALICE, kit.identity().key.public_key(), when=NOW - timedelta(days=30))


def revoked_by(ca: LocalCa, certificate: x509.Certificate) -> x509.CertificateRevocationList:
    return revocation_list(ca.certificate, ca.key, certificate, when=NOW)


class TestRevocation:
    """M-22, SEC-21."""

    def test_a_list_of_the_issuer_revokes(self) -> None:
        crl = revoked_by(kit.ca(), kit.identity().certificate)
        trust = kit.trust(crls=(crl,))
        verdict = verify(sign(kit.cpim(), kit.identity(), when=NOW), trust, now=NOW)
        assert verdict.verdict is VerdictKind.UNTRUSTED
        assert "revoked" in verdict.reason
        assert check_chain(kit.identity(EVE).certificate, trust, NOW).distrust is None

    def test_a_list_inside_the_signature_revokes_too(self) -> None:
        """RFC 8550 section 2.1."""
        crl = revoked_by(kit.ca(), kit.identity().certificate)
        entity = kit.cpim().entity
        raw = kit.signed_data(
            [kit.signer_info(kit.identity(), entity)],
            [kit.identity().certificate],
            content=entity,
            crls=[crl.public_bytes(Encoding.DER)],
        )
        verdict = verify(kit.opaque(raw), kit.trust(), now=NOW)
        assert (verdict.verdict, "revoked" in verdict.reason) == (VerdictKind.UNTRUSTED, True)

    def test_a_list_signed_by_somebody_else_does_not(self) -> None:
        twin = LocalCa.create("Comity CA of a.test", when=NOW)
        crl = revoked_by(twin, kit.identity().certificate)
        assert check_chain(kit.identity().certificate, kit.trust(crls=(crl,)), NOW).distrust is None

    def test_a_pin_does_not_help_a_revoked_certificate(self) -> None:
        crl = revoked_by(kit.ca(), kit.identity().certificate)
        trust = kit.trust(crls=(crl,), pinned=(kit.identity().certificate,))
        assert check_chain(kit.identity().certificate, trust, NOW).distrust is Distrust.REVOKED

    def test_a_full_bag_does_not_hide_a_revocation(self) -> None:
        """The budget of signature checks is not shared with revocation."""
        crl = revoked_by(kit.ca(), kit.identity().certificate)
        bag = [authority("Comity CA of a.test", None).certificate for _ in range(16)]
        result = check_chain(kit.identity().certificate, kit.trust(crls=(crl,)), NOW, others=bag)
        assert result.distrust is Distrust.REVOKED


def test_what_is_kept_of_certificates_is_only_what_their_octets_decide() -> None:
    """The same certificate again: trust, time and lists are asked anew; another one with its names is another one."""
    signer = kit.identity().certificate
    der = signer.public_bytes(Encoding.DER)
    assert load_certificate(der) is load_certificate(der)
    again = load_certificate(der)
    assert again is not None
    assert check_chain(again, kit.trust(), NOW).distrust is None
    assert check_chain(again, TrustStore(), NOW).distrust is Distrust.UNKNOWN_CA
    assert check_chain(again, kit.trust(), NOW + timedelta(days=3000)).distrust is Distrust.EXPIRED
    assert check_chain(again, kit.trust(distrusted=frozenset({fingerprint(again)})), NOW).distrust is (
        Distrust.DISTRUSTED
    )
    double = LocalCa.create("Comity CA of a.test", when=NOW)
    assert check_chain(again, TrustStore(anchors=(double.certificate,)), NOW).distrust is Distrust.UNKNOWN_CA
    assert check_chain(again, kit.trust(), NOW).distrust is None


def test_distrusted_certificates_are_never_trusted_anywhere_in_the_path() -> None:
    for certificate in (kit.identity().certificate, kit.ca().certificate):
        trust = kit.trust(distrusted=frozenset({fingerprint(certificate)}), pinned=(kit.ca().certificate,))
        assert check_chain(kit.identity().certificate, trust, NOW).distrust is Distrust.DISTRUSTED


def test_a_name_with_control_characters_is_escaped_in_sentences() -> None:
    """M-44."""
    signer = kit.certificate_with([], common_name="evil\x1b[2J\nname")
    assert display_name(signer.certificate).isprintable()

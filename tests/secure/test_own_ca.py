"""One's own authority, and lists that revoke (RFC 5280 section 5; T30, M-22)."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from comity.errors import SecurityError
from comity.secure import LocalCa, TrustStore, new_identity, sign, verify
from comity.secure.home import Home
from comity.secure.own_ca import REASONS, OwnCa, revocation_list
from tests.secure import kit
from tests.secure.kit import ALICE, BOB, NOW
from tests.secure.test_keystore import dying_at, ended, started


def test_it_is_made_once_whoever_comes_at_once(tmp_path: Path) -> None:
    make = [partial(OwnCa(Home(tmp_path)).create, f"CA {n}", when=NOW, passphrase=None) for n in range(4)]
    assert sorted(ended(started(each)) for each in make) == [0, 1, 1, 1]
    children = [started(each) for each in make]
    assert [ended(child) for child in children] == [1] * 4
    assert OwnCa(Home(tmp_path)).open(None).certificate == OwnCa(Home(tmp_path)).certificate


def test_killed_anywhere_it_is_whole_or_not_there(tmp_path: Path) -> None:
    for step in range(1, 50):
        own = OwnCa(Home(tmp_path / str(step)))
        if dying_at(step, partial(own.create, "CA", when=NOW, passphrase=None)) == 0:
            assert own.exists
            return
        assert not own.exists or own.open(None)
    raise AssertionError("it never came through")


def test_its_key_is_under_the_passphrase(tmp_path: Path) -> None:
    own = OwnCa(Home(tmp_path))
    made = own.create("CA", when=NOW, passphrase=b"open sesame")
    assert own.is_encrypted
    assert own.open(b"open sesame").certificate == made.certificate
    for wrong in (None, b"sesame"):
        with pytest.raises(SecurityError, match="your authority"):
            own.open(wrong)


@pytest.mark.parametrize("reason", REASONS)
def test_a_list_says_why_and_convinces_the_verdict(reason: str) -> None:
    alice = kit.issued(kit.ca())
    crl = revocation_list(kit.ca().certificate, kit.ca().key, alice.certificate, when=NOW, reason=reason)  # type: ignore[arg-type]  # one of REASONS
    entry = crl.get_revoked_certificate_by_serial_number(alice.certificate.serial_number)
    assert entry is not None
    assert len(entry.extensions) == (reason != "unspecified"), "RFC 5280 section 5.3.1: unspecified is left out"
    verdict = verify(sign(kit.cpim(), alice, when=NOW), kit.trust(crls=(crl,)), now=NOW + timedelta(minutes=1))
    assert "revoked" in verdict.reason


def test_a_list_names_what_earlier_ones_of_its_issuer_named_and_no_others() -> None:
    ca, other = LocalCa.create("One", when=NOW), LocalCa.create("Two", when=NOW)
    found: list[x509.CertificateRevocationList] = []
    for issuer in (ca, other, ca, ca):
        revoked = new_identity(BOB, when=NOW, ca=issuer).certificate
        found.append(revocation_list(issuer.certificate, issuer.key, revoked, when=NOW, earlier=found))
    assert [len(crl) for crl in found] == [1, 1, 2, 3]
    numbers = [crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for crl in found]
    assert numbers == [1, 1, 2, 3]


def test_only_the_issuer_revokes() -> None:
    ca, other = LocalCa.create("One", when=NOW), LocalCa.create("Two", when=NOW)
    with pytest.raises(SecurityError, match="not issued by"):
        revocation_list(other.certificate, other.key, new_identity(BOB, when=NOW, ca=ca).certificate, when=NOW)


def test_a_key_of_another_program_without_key_usage_revokes_itself() -> None:
    """RFC 5280 section 4.2.1.3: without the extension every use is allowed; revocation.py reads such a list."""
    made = new_identity(ALICE, when=NOW)
    name = made.certificate.subject
    builder = x509.CertificateBuilder(name, name, made.key.public_key(), 7, NOW, NOW + timedelta(days=9))
    bare = builder.sign(made.key, hashes.SHA256())
    crl = revocation_list(bare, made.key, bare, when=NOW)
    assert crl.get_revoked_certificate_by_serial_number(7) is not None


def test_a_list_that_an_end_entity_makes_revokes_nobody_but_itself() -> None:
    """Self-signed certificates may sign lists: of themselves, and never of another of the same name."""
    alice, eve = (new_identity(ALICE, when=NOW) for _ in range(2))
    forged = revocation_list(eve.certificate, eve.key, eve.certificate, when=NOW)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(eve.certificate.subject)
        .last_update(NOW)
        .next_update(NOW + timedelta(days=9))
        .add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(alice.certificate.serial_number).revocation_date(NOW).build()
        )
    )
    also_forged = builder.sign(eve.key, eve.certificate.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256
    trust = TrustStore(pinned=(alice.certificate,), known=(eve.certificate,), crls=(forged, also_forged))
    assert verify(sign(kit.cpim(), alice, when=NOW), trust, now=NOW).is_valid

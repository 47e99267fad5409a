"""For whom may be encrypted (T33; RFC 3923 section 6.2): trusted, current, and of several the right one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from comity.errors import SecurityError
from comity.secure import (
    Identity,
    KeyStore,
    LocalCa,
    TrustStore,
    VerdictKind,
    new_identity,
    openpgp,
    sign,
    verify,
)
from comity.secure.chain import fingerprint
from comity.secure.identity import KeyKind
from comity.secure.recipients import find_recipient
from comity.secure.remembering import note
from tests.secure import kit
from tests.secure.kit import ALICE, BOB, NOW

PEM = serialization.Encoding.PEM
LATER = NOW + timedelta(days=400)


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home")


def pem(identity: Identity) -> bytes:
    return identity.certificate.public_bytes(PEM)


def found(store: KeyStore, *, now: datetime = NOW, to_unverified: bool = False) -> str:
    return find_recipient(store, ALICE, now=now, to_unverified=to_unverified).fingerprint


def test_pinned_goes_before_vouched_and_newer_before_older(store: KeyStore) -> None:
    vouched = kit.identity()
    older, newer = new_identity(ALICE, when=NOW - timedelta(days=9)), new_identity(ALICE, when=NOW - timedelta(days=8))
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    store.import_file(pem(vouched))
    assert found(store) == vouched.fingerprint
    store.trust(pem(older))
    assert found(store) == older.fingerprint
    store.trust(pem(newer))
    assert found(store) == newer.fingerprint


@pytest.mark.parametrize("kind", ["p256", "ed25519"])
def test_a_changed_key_is_not_encrypted_for_though_an_authority_vouches(store: KeyStore, kind: KeyKind) -> None:
    """T33: authorities err; while the verdict on what it signs is *changed*, nobody's secret goes to it."""
    ca = LocalCa.create("CA", when=NOW - timedelta(days=9))
    store.import_file(ca.certificate.public_bytes(PEM), is_anchor=True)
    first, second = (new_identity(ALICE, when=NOW - timedelta(days=d), ca=ca, kind=kind, days=300) for d in (8, 7))
    for identity, kind_of_verdict in ((first, VerdictKind.VALID), (second, VerdictKind.CHANGED)):
        verdict = verify(sign(kit.cpim(), identity, when=NOW), store.trust_store(), now=NOW)
        assert verdict.verdict is kind_of_verdict
        note(store, verdict, NOW)
        assert found(store) == fingerprint(first.sent_certificates[-1])
    store.distrust(first.fingerprint)
    for to_unverified in (False, True):
        with pytest.raises(SecurityError):
            found(store, to_unverified=to_unverified)
    store.trust(second.fingerprint, when=NOW)
    assert found(store) == fingerprint(second.sent_certificates[-1])


@pytest.mark.parametrize("to_unverified", [False, True])
def test_what_ended_is_not_taken_whoever_vouches(store: KeyStore, to_unverified: bool) -> None:
    short = new_identity(ALICE, when=NOW, days=30)
    store.trust(pem(short))
    assert found(store) == short.fingerprint
    with pytest.raises(SecurityError, match="2026-03-31 only"):
        found(store, now=LATER, to_unverified=to_unverified)
    store.distrust(short.fingerprint)
    store.import_file(pem(new_identity(ALICE, when=NOW, days=30)))
    with pytest.raises(SecurityError):
        found(store, now=LATER, to_unverified=to_unverified)


def test_a_vouched_for_sip_address_is_not_taken_for_the_im_address(store: KeyStore) -> None:
    """SEC-19: it may be another person's; nor does it become the first contact of the im: address (T33)."""
    other = kit.certificate_with([x509.UniformResourceIdentifier("sip:alice@a.test")])
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    verdict = verify(sign(kit.cpim("sip:alice@a.test"), other, when=NOW), store.trust_store(), now=NOW)
    assert verdict.is_valid
    assert not note(store, verdict, NOW)
    assert not store.contacts().of("im:alice@a.test")
    store.import_file(pem(other))
    for to_unverified in (False, True):
        with pytest.raises(SecurityError, match="to encrypt for"):
            found(store, to_unverified=to_unverified)
    store.trust(pem(other))
    assert found(store) == other.fingerprint, "the user's own word is for the person"


def test_a_key_that_can_only_sign_is_none(store: KeyStore) -> None:
    """An Ed25519 certificate alone: there is nothing to encrypt to."""
    store.trust(pem(new_identity(ALICE, when=NOW, kind="ed25519")))
    with pytest.raises(SecurityError, match="to encrypt for"):
        found(store, to_unverified=True)


def test_somebody_elses_second_certificate_is_not_taken(store: KeyStore) -> None:
    """Alice signs with Ed25519; Eve makes an X25519 certificate with Alice's names beside it."""
    alice, eve = (new_identity(ALICE, when=NOW, kind="ed25519") for _ in range(2))
    assert alice.encryption is not None
    assert eve.encryption is not None
    store.trust(pem(alice))
    store.import_file(eve.encryption.certificate.public_bytes(PEM))
    for to_unverified in (False, True):
        with pytest.raises(SecurityError):
            found(store, to_unverified=to_unverified)
    store.import_file(alice.encryption.certificate.public_bytes(PEM))
    assert find_recipient(store, ALICE, now=NOW).certificate == alice.encryption.certificate


def test_unverified_means_the_one_key_that_signed(store: KeyStore) -> None:
    alice, eve = (new_identity(ALICE, when=NOW) for _ in range(2))
    store.import_file(pem(eve))
    note(store, verify(sign(kit.cpim(), alice, when=NOW), TrustStore(), now=NOW), NOW)
    with pytest.raises(SecurityError, match="comity keys trust"):
        found(store)
    assert found(store, to_unverified=True) == alice.fingerprint
    note(store, verify(sign(kit.cpim(), eve, when=NOW), TrustStore(), now=NOW), NOW)
    with pytest.raises(SecurityError, match="not clear"):
        found(store, to_unverified=True)


def test_oneself_needs_no_trust(store: KeyStore) -> None:
    alice = new_identity(ALICE, when=NOW)
    store.save(alice)
    assert found(store) == alice.fingerprint
    with pytest.raises(SecurityError, match=r"im:bob@b\.test"):
        find_recipient(store, BOB, now=NOW)


def test_capabilities_of_the_last_signature_come_along(store: KeyStore) -> None:
    kinds: tuple[KeyKind, ...] = ("p256", "ed25519")
    for kind in kinds:
        alice = new_identity(ALICE, when=NOW, kind=kind)
        store.trust(pem(alice), when=NOW)
        note(store, verify(sign(kit.cpim(), alice, when=NOW), store.trust_store(), now=NOW), NOW)
        assert "aes-256-gcm" in find_recipient(store, ALICE, now=NOW).capabilities
        store.distrust(alice.fingerprint)


def test_who_has_only_the_other_kind_is_said(store: KeyStore) -> None:
    pgp = openpgp.new_identity(ALICE, when=datetime.now(UTC))
    store.trust(pgp.certificate)
    with pytest.raises(SecurityError, match="--openpgp"):
        found(store)
    assert find_recipient(store, ALICE, now=datetime.now(UTC), technology="openpgp").fingerprint == pgp.fingerprint

"""Who signed with which key is remembered after a verdict, and only what may be (T33, M-36, SEC-20)."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.secure import Identity, KeyStore, TrustStore, VerdictKind, new_identity, sign, verify
from comity.secure.own_ca import crl_pem, revocation_list
from comity.secure.remembering import note, standing
from tests.secure import kit
from tests.secure.kit import ALICE, NOW
from tests.secure.test_keystore import ended, started

PEM = serialization.Encoding.PEM


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "home")


def seen(store: KeyStore, obj: MimeObject, now: datetime = NOW) -> tuple[str, str, bool]:
    """Verdict, standing, and whether there was news."""
    verdict = verify(obj, store.trust_store(), now=now)
    return verdict.verdict.value, standing(store, verdict), note(store, verdict, now, "sip")


def signed(by: Identity, when: datetime = NOW) -> MimeObject:
    return sign(kit.cpim(when=when), by, when=when)


def test_first_contact_is_noted_once_with_day_and_protocol(store: KeyStore) -> None:
    alice = new_identity(ALICE, when=NOW)
    assert seen(store, signed(alice)) == ("untrusted", "first contact", True)
    assert seen(store, signed(alice)) == ("untrusted", "same key as since 2026-03-01", False)
    [contact] = store.contacts().of("pres:alice@a.test")
    assert (contact.since, contact.protocol, contact.is_vouched) == (NOW, "sip", False)
    assert store.find(alice.fingerprint).entry.shelf == "known"


def test_a_changed_key_is_noted_and_never_takes_over(store: KeyStore) -> None:
    first, second = (new_identity(ALICE, when=NOW) for _ in range(2))
    seen(store, signed(first))
    assert [seen(store, signed(second))[0] for _ in range(3)] == ["changed"] * 3
    assert seen(store, signed(first))[0] == "untrusted"
    store.trust(second.fingerprint, when=NOW)
    assert seen(store, signed(second))[:2] == ("valid", "same key as since 2026-03-01")


def test_a_revoked_expired_or_distrusted_key_is_nobodys_first(store: KeyStore) -> None:
    """Else the real key would then be called changed."""
    expired = new_identity(ALICE, when=NOW, days=1)
    assert seen(store, signed(expired, NOW + timedelta(days=2)), NOW + timedelta(days=2))[2] is False
    distrusted = new_identity(ALICE, when=NOW)
    store.distrust(distrusted.certificate.public_bytes(PEM))
    assert seen(store, signed(distrusted))[2] is False
    store.import_file(
        crl_pem(revocation_list(kit.ca().certificate, kit.ca().key, kit.identity().certificate, when=NOW))
    )
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    assert seen(store, signed(kit.identity()))[2] is False
    assert store.contacts().by_address == {}
    assert seen(store, signed(new_identity(ALICE, when=NOW)))[1] == "first contact"


def test_who_is_not_from_and_what_does_not_hold_leaves_no_trace(store: KeyStore) -> None:
    """T33."""
    eve = new_identity(kit.EVE, when=NOW)
    other = sign(kit.cpim(), eve, when=NOW)
    broken = MimeObject(other.header_block, other.octets.replace(b"hi", b"ho"))
    store.trust(eve.certificate.public_bytes(PEM))
    for obj, kind in (
        (other, VerdictKind.SIGNED_BY_OTHER),
        (broken, VerdictKind.BAD_SIGNATURE),
        (kit.cpim(), VerdictKind.UNSIGNED),
    ):
        assert seen(store, obj) == (kind.value, "", False)
    assert store.contacts().by_address == {}


def test_ones_own_key_is_no_contact(store: KeyStore) -> None:
    alice = new_identity(ALICE, when=NOW)
    store.save(alice)
    assert seen(store, signed(alice)) == ("valid", "your own key", False)


def test_a_renewed_certificate_of_the_same_key_is_the_same(store: KeyStore) -> None:
    alice = new_identity(ALICE, when=NOW)
    store.trust(alice.certificate.public_bytes(PEM), when=NOW)
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    renewed = Identity(ALICE, alice.key, (kit.ca().issue(ALICE, alice.key.public_key(), when=NOW),))
    assert seen(store, signed(renewed))[:2] == ("valid", "same key as since 2026-03-01")


def test_announced_capabilities_are_kept_and_brought_up_to_date(store: KeyStore) -> None:
    """SEC-20, RFC 8551 section 2.7.1.1."""
    alice = new_identity(ALICE, when=NOW)
    store.trust(alice.certificate.public_bytes(PEM), when=NOW)
    assert store.contacts().of("im:alice@a.test")[0].capabilities == ()
    assert seen(store, signed(alice))[2] is True
    assert "aes-256-gcm" in store.contacts().of("im:alice@a.test")[0].capabilities
    assert seen(store, signed(alice))[2] is False


def test_strangers_cannot_fill_the_memory(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """T33: whoever makes up names is forgotten before those that somebody vouches for, and before those who were there."""
    monkeypatch.setattr("comity.secure.remembering.MAX_CONTACTS", 3)
    for number in range(6):
        address = Address.im(f"stranger{number}", "e.test")
        signed = sign(kit.cpim(address.uri), new_identity(address, when=NOW), when=NOW)
        assert note(store, verify(signed, store.trust_store(), now=NOW), NOW) is (number < 3)
    for _ in range(100):
        assert note(store, verify(signed, store.trust_store(), now=NOW), NOW) is False
    store.import_file(kit.ca().certificate.public_bytes(PEM), is_anchor=True)
    vouched = sign(kit.cpim(), kit.identity(), when=NOW)
    assert note(store, verify(vouched, store.trust_store(), now=NOW), NOW) is True
    assert len(store.contacts().by_address) == 4
    assert len(store.certificates("known")) == 4


def test_what_several_processes_note_at_once_is_all_remembered(store: KeyStore) -> None:
    identities = [new_identity(ALICE, when=NOW) for _ in range(6)]
    verdicts = [verify(sign(kit.cpim(), each, when=NOW), TrustStore(), now=NOW) for each in identities]
    children = [started(partial(note, store, each, NOW)) for each in verdicts]

    assert set(map(ended, children)) == {0}
    noted = store.contacts().of("im:alice@a.test")
    assert {contact.fingerprint for contact in noted} == {each.fingerprint for each in identities}
    assert [contact.is_accepted for contact in noted] == [True] + [False] * 5

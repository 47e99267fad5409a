"""The memory of who signed with which key (T33, SEC-20)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import SecurityError
from comity.secure import new_identity
from comity.secure.contacts import (
    MAX_KEYS,
    Contact,
    Contacts,
    Standing,
    accepted,
    dropped,
    from_json,
    key_of,
    noted,
    to_json,
)
from comity.secure.identity import end_entity
from tests.secure import kit

ALICE = "im:alice@a.test"
WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def seen(key: str, *, is_vouched: bool = False) -> Contact:
    return Contact(ALICE, key, key * 2, WHEN, "sip", is_vouched=is_vouched)


def memory(*contacts: Contact) -> Contacts:
    found: tuple[Contact, ...] = ()
    for contact in contacts:
        found = noted(found, contact)
    return Contacts({ALICE: found})


def test_first_then_same_then_changed() -> None:
    assert Contacts().standing(ALICE, "a1") is Standing.FIRST
    contacts = memory(seen("a1"))
    assert contacts.text(ALICE, "a1") == "same key as since 2026-11-01"
    assert contacts.standing(ALICE, "b2") is Standing.CHANGED
    assert contacts.text(ALICE, "b2") == "changed key: since 2026-11-01 it was a1a1"


def test_every_uri_of_a_person_is_one_contact() -> None:
    """ADDR-4, SEC-18."""
    contacts = memory(seen("a1"))
    for uri in (
        "im:alice@a.test",
        "pres:alice@A.TEST",
        "sip:alice@a.test",
        "xmpp:alice@a.test/phone",
        "im:%61lice@a.test",
    ):
        assert contacts.standing(uri, "a1") is Standing.SAME, uri
    assert contacts.standing("im:Alice@a.test", "a1") is Standing.FIRST
    assert contacts.of("nonsense") == ()


def test_a_changed_key_stays_changed_however_often_it_comes() -> None:
    """T33: never silently accepted."""
    contacts = memory(seen("a1"), *[seen("b2")] * 5)
    assert contacts.standing(ALICE, "b2") is Standing.CHANGED
    assert contacts.standing(ALICE, "a1") is Standing.SAME
    assert len(contacts.of(ALICE)) == 2


def test_the_users_word_accepts_a_changed_key_and_keeps_the_other() -> None:
    contacts = Contacts({ALICE: accepted(memory(seen("a1"), seen("b2")).of(ALICE), seen("b2"))})
    assert [contacts.standing(ALICE, key) for key in ("a1", "b2", "c3")] == [
        Standing.SAME,
        Standing.SAME,
        Standing.CHANGED,
    ]


def test_after_a_key_is_dropped_the_next_is_still_announced() -> None:
    contacts = Contacts({ALICE: dropped(memory(seen("a1")).of(ALICE), "a1")})
    assert contacts.standing(ALICE, "a1") is Standing.CHANGED
    assert contacts.standing(ALICE, "b2") is Standing.CHANGED
    assert contacts.text(ALICE, "b2") == "changed key, not confirmed by you"


def test_a_strangers_unproved_key_does_not_spoil_the_real_one() -> None:
    """M-36: a self-made certificate with her name came first; then comes the one that an authority vouches for."""
    contacts = memory(seen("e9"))
    assert contacts.standing(ALICE, "a1", is_vouched=True) is Standing.FIRST
    assert "vouches" in contacts.text(ALICE, "a1", is_vouched=True)
    contacts = memory(seen("e9"), seen("a1", is_vouched=True))
    assert contacts.standing(ALICE, "a1") is Standing.SAME
    assert contacts.standing(ALICE, "e9") is Standing.CHANGED
    assert contacts.standing(ALICE, "c3", is_vouched=True) is Standing.CHANGED, "an authority may be wrong too"


def test_a_key_that_waits_is_taken_once_somebody_vouches_for_it() -> None:
    contacts = memory(seen("e9"), seen("a1"), seen("a1", is_vouched=True))
    assert contacts.standing(ALICE, "a1") is Standing.SAME
    assert contacts.standing(ALICE, "e9") is Standing.CHANGED


def test_the_date_is_that_of_the_first_time() -> None:
    later = replace(seen("a1", is_vouched=True), since=WHEN + timedelta(days=9))
    assert memory(seen("a1"), later).text(ALICE, "a1") == "same key as since 2026-11-01"


def test_a_thousand_new_keys_do_not_push_out_the_accepted_one() -> None:
    contacts = memory(seen("a1"), *(seen(f"e{n}") for n in range(1000)))
    assert len(contacts.of(ALICE)) == MAX_KEYS
    assert contacts.standing(ALICE, "a1") is Standing.SAME


def test_a_renewed_certificate_of_the_same_key_is_no_change() -> None:
    first = new_identity(kit.ALICE, when=kit.NOW)
    builder = end_entity(
        kit.ALICE,
        first.key.public_key(),
        subject=first.certificate.subject,
        issuer=kit.ca().certificate.subject,
        when=kit.NOW + timedelta(days=700),
        days=30,
    )
    renewed = builder.sign(kit.ca().key, first.certificate.signature_hash_algorithm)  # type: ignore[arg-type]  # SHA-256
    assert key_of(first.certificate) == key_of(renewed) == key_of(renewed.public_bytes(Encoding.DER))
    assert key_of(first.certificate) != key_of(new_identity(kit.ALICE, when=kit.NOW).certificate)
    assert key_of(b"packets", "openpgp", "ab12") == "ab12"
    with pytest.raises(SecurityError):
        key_of(b"nothing")


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=12))
def test_whatever_comes_only_the_vouched_replace_the_accepted(events: list[tuple[str, bool]]) -> None:
    """An unvouched key is never SAME unless it was the very first, and the file gives back what was written."""
    contacts: tuple[Contact, ...] = ()
    for key, is_vouched in events:
        contacts = noted(contacts, seen(key, is_vouched=is_vouched))
        assert from_json(to_json(contacts), "the file") == contacts
    by_hand = [contact for contact in contacts if contact.is_accepted and not contact.is_vouched]
    assert all(contact.key == events[0][0] for contact in by_hand)
    vouched = [key for key, is_vouched in events if is_vouched]
    assert {contact.key for contact in contacts if contact.is_vouched} == set(vouched[:1])


@pytest.mark.parametrize("data", [b"", b"{}", b'{"contacts": [{}]}', b'{"contacts": [{"since": 1}]}', b"\xff", b"[]"])
def test_a_damaged_memory_is_said_not_forgotten(data: bytes) -> None:
    with pytest.raises(SecurityError, match="is damaged"):
        from_json(data, "alice.json")

"""One's own keys on disk, both technologies: under a passphrase, never lost, never half (T30)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from comity.errors import SecurityError
from comity.secure import KeyStore, new_identity, openpgp
from comity.secure.openpgp import PgpIdentity
from comity.secure.openpgp_packets import SECRET_SUBKEY, read_packets
from comity.secure.own_keys import OwnKeys
from comity.secure.own_pgp import OwnPgp
from tests.secure.kit import ALICE, BOB
from tests.secure.test_keystore import dying_at, ended, started

Make = Callable[[], Any]


def smime() -> object:
    return new_identity(ALICE, when=datetime.now(UTC), kind="ed25519")


def pgp() -> object:
    return openpgp.new_identity(ALICE, when=datetime.now(UTC))


@pytest.fixture(params=["smime", "openpgp"])
def own(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Make]:
    monkeypatch.setattr("comity.secure.passphrase.COST", 16)  # what it costs is the matter of test_passphrase.py
    store = KeyStore(tmp_path / "home")
    return (store.own, smime) if request.param == "smime" else (store.pgp, pgp)


Own = tuple[OwnKeys | OwnPgp, Make]


def test_it_comes_back_as_it_was_and_under_no_other_passphrase(own: Own) -> None:
    keys, make = own
    identity = make()
    keys.save(identity, b"open sesame")
    assert keys.load(ALICE, b"open sesame").fingerprint == identity.fingerprint
    assert (keys.addresses(), keys.is_encrypted(ALICE)) == ([ALICE], True)
    for wrong in (None, b"", b"open sesam"):
        with pytest.raises(SecurityError, match="passphrase"):
            keys.load(ALICE, wrong)
    with pytest.raises(SecurityError, match="comity keys new"):
        keys.load(BOB)


def test_a_second_one_does_not_take_its_place_unasked(own: Own) -> None:
    keys, make = own
    first = make()
    keys.save(first, is_new=True)
    with pytest.raises(SecurityError, match="--replace"):
        keys.save(make(), is_new=True)
    assert keys.load(ALICE).fingerprint == first.fingerprint


def test_what_was_replaced_or_retired_still_opens(own: Own) -> None:
    keys, make = own
    made = [make() for _ in range(3)]
    for identity in made:
        keys.save(identity)
    keys.retire(ALICE)
    assert keys.addresses() == []
    assert keys.reading_addresses() == [ALICE]
    found = {identity.fingerprint for identity in keys.decrypting(ALICE)}
    assert found == {identity.fingerprint for identity in made}


def test_an_older_copy_of_a_key_does_not_take_what_the_newer_one_reads_with(own: Own) -> None:
    """Somebody imports a backup from before there was a second key, or a key without it."""
    keys, make = own
    whole = make()
    keys.save(whole)
    less: Any
    if isinstance(keys, OwnPgp):
        packets = read_packets(whole.secret)
        end = max(index for index, packet in enumerate(packets) if packet.tag == SECRET_SUBKEY)
        less = openpgp.read_identity(b"".join(packet.raw for packet in packets[:end]))
    else:
        less = replace(whole, encryption=None)
    keys.save(less)
    assert [_parts(each) for each in keys.decrypting(ALICE)] == [_parts(less), _parts(whole)]


def _parts(identity: Any) -> object:
    return identity.secret if isinstance(identity, PgpIdentity) else identity.sent_certificates


def test_an_old_key_under_another_passphrase_does_not_stop_the_others(own: Own) -> None:
    keys, make = own
    keys.save(make(), b"forgotten")
    current = make()
    keys.save(current, b"known")
    assert keys.needs_passphrase(ALICE)
    assert [identity.fingerprint for identity in keys.decrypting(ALICE, b"known")] == [current.fingerprint]
    with pytest.raises(SecurityError):
        keys.decrypting(ALICE, b"neither")
    keys.change_passphrase(ALICE, b"known", b"new")
    assert [identity.fingerprint for identity in keys.decrypting(ALICE, b"new")] == [current.fingerprint]
    assert len(keys.decrypting(ALICE, b"forgotten")) == 1


def test_killed_anywhere_a_replaced_key_is_old_or_new_and_never_lost(own: Own) -> None:
    keys, make = own
    keys.save(make())
    for step in range(1, 100):
        before, new = keys.load(ALICE), make()
        code = dying_at(step, partial(keys.save, new))
        assert keys.load(ALICE).fingerprint in (before.fingerprint, new.fingerprint)
        assert before.fingerprint in {identity.fingerprint for identity in keys.decrypting(ALICE)}
        if code == 0:
            return
    raise AssertionError("it never came through")


def test_killed_anywhere_a_retired_key_is_still_there(own: Own) -> None:
    keys, make = own
    for step in range(1, 100):
        identity = make()
        keys.save(identity)
        code = dying_at(step, partial(keys.retire, ALICE))
        assert identity.fingerprint in {each.fingerprint for each in keys.decrypting(ALICE)}
        if code == 0:
            assert keys.addresses() == []
            return
    raise AssertionError("it never came through")


def test_killed_anywhere_a_key_is_under_the_old_passphrase_or_the_new_one(own: Own) -> None:
    keys, make = own
    identity = make()
    keys.save(identity, b"one")
    for step in range(1, 100):
        code = dying_at(step, partial(keys.change_passphrase, ALICE, b"one", b"two"))
        opened = [given for given in (b"one", b"two") if _opens(keys, given)]
        assert len(opened) == 1
        if code == 0:
            assert opened == [b"two"]
            return
        if opened == [b"two"]:
            keys.change_passphrase(ALICE, b"two", b"one")
    raise AssertionError("it never came through")


def _opens(keys: OwnKeys | OwnPgp, given: bytes) -> bool:
    try:
        keys.load(ALICE, given)
    except SecurityError:
        return False
    return True


def test_of_several_processes_one_makes_the_key(own: Own) -> None:
    keys, make = own
    made = [make() for _ in range(4)]
    children = [started(partial(keys.save, identity, is_new=True)) for identity in made]
    assert sorted(map(ended, children)) == [0, 1, 1, 1]
    assert keys.load(ALICE).fingerprint in {identity.fingerprint for identity in made}


@pytest.mark.parametrize("damage", [slice(0, 60), slice(-60, None), slice(0, None)])
def test_a_damaged_file_is_said(own: Own, damage: slice) -> None:
    keys, make = own
    keys.save(make(), b"x")
    file = next(file for file in keys._home.path.rglob("*.pem"))
    octets = bytearray(file.read_bytes())
    octets[damage] = b"#" * len(octets[damage])
    file.write_bytes(octets)
    with pytest.raises(SecurityError):
        keys.certificate(ALICE), keys.load(ALICE, b"x")

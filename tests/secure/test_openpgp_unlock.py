"""Private OpenPGP keys of other programs: under a passphrase, or past their time (issue 4, part 4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpgp import _openpgp, composed

from comity.errors import MalformedMessage, SecurityError
from comity.secure import TrustStore, openpgp
from comity.secure import openpgp_packets as wire
from comity.secure.openpgp import PgpIdentity, WrongPassphrase
from comity.secure.openpgp_unlock import is_locked, unlock
from tests.secure.pgpkit import Gpg, gpg_home, now, person

pytestmark = pytest.mark.peer

rpgp: Any = composed
types: Any = _openpgp
"""Its own types want the very strings of its tables."""
UID = "im:alice@a.test"
PASSPHRASE = "geheim: ü"


@pytest.fixture(scope="module")
def gpg() -> Iterator[Gpg]:
    with gpg_home() as found:
        yield found


def locked(gpg: Gpg, kind: str, subkey: str, *options: str) -> tuple[str, bytes]:
    """A key that gpg made and exported under the passphrase; its fingerprint goes with it."""
    user_id = f"{kind} {' '.join(options)} <{UID}>"
    secret = ["--passphrase", PASSPHRASE, *options]
    gpg(*secret, "--quick-generate-key", user_id, kind, "sign,cert", "1y")
    fingerprint = gpg.fingerprint(user_id)
    gpg(*secret, "--quick-add-key", fingerprint, subkey, "encr", "1y")
    return fingerprint, gpg(*secret, "--armor", "--export-secret-keys", fingerprint)


@pytest.mark.parametrize(
    ("kind", "subkey"),
    [("ed25519", "cv25519"), ("nistp256", "nistp256"), ("nistp521", "nistp521"), ("rsa2048", "rsa2048")],
)
def test_a_key_that_gpg_exports_under_a_passphrase_is_read(gpg: Gpg, kind: str, subkey: str) -> None:
    fingerprint, exported = locked(gpg, kind, subkey)
    with pytest.raises(WrongPassphrase, match="give it"):
        openpgp.read_identity(exported)
    with pytest.raises(WrongPassphrase, match="passphrase is wrong"):
        openpgp.read_identity(exported, passphrase="another")
    for identity in (
        openpgp.read_identity(exported, passphrase=PASSPHRASE),
        PgpIdentity.from_bytes(exported, passphrase=PASSPHRASE),
    ):
        assert identity.fingerprint == fingerprint.lower()
        assert not is_locked(identity.secret)
        trust = TrustStore(openpgp_pinned=(gpg("--export", fingerprint),))
        (signer,) = openpgp.signers_of(b"x", openpgp.sign_detached(b"x", identity), trust, now())
        assert signer.distrust == ""
        assert openpgp.open_octets(gpg("--recipient", fingerprint, "--encrypt", stdin=b"x"), [identity]).entity == b"x"


def test_what_we_write_under_a_passphrase_another_program_opens(gpg: Gpg) -> None:
    """``to_bytes`` is an OpenPGP message: a key is never locked in."""
    opened = gpg("--passphrase", PASSPHRASE, "--decrypt", stdin=person().to_bytes(PASSPHRASE))
    assert opened == person().secret


def test_an_expired_key_still_reads_and_signs_no_more(gpg: Gpg) -> None:
    """Who waits too long can read what was encrypted before."""
    then = ["--faked-system-time", "20250101T000000!"]
    user_id = f"old <{UID}>"
    gpg(*then, "--quick-generate-key", user_id, "ed25519", "sign,cert", "5d")
    fingerprint = gpg.fingerprint(user_id)
    gpg(*then, "--quick-add-key", fingerprint, "cv25519", "encr", "5d")
    sealed = gpg(*then, "--recipient", fingerprint, "--encrypt", stdin=b"x")
    identity = openpgp.read_identity(gpg("--export-secret-keys", fingerprint))
    assert openpgp.open_octets(sealed, [identity]).entity == b"x"
    with pytest.raises(SecurityError, match="expired or revoked"):
        openpgp.sign_detached(b"x", identity)


def of_rpgp(s2k: Any) -> bytes:
    builder = rpgp.SecretKeyParamsBuilder().version(4).key_type(rpgp.KeyType.ed25519_legacy()).can_sign(True)
    key = builder.can_certify(True).primary_user_id(UID).passphrase(PASSPHRASE).s2k(s2k).generate()
    octets: bytes = key.to_bytes()
    return octets


@pytest.mark.parametrize(("cipher", "digest"), [("aes128", "sha256"), ("aes256", "sha512"), ("aes192", "sha384")])
def test_other_hashes_and_lengths_are_read(cipher: str, digest: str) -> None:
    """A key longer than the hash takes several rounds of it."""
    derivation = types.StringToKey.iterated(digest, 96, b"saltsalt")
    key = of_rpgp(types.S2kParams.cfb(cipher, derivation))
    assert openpgp.sign_detached(b"x", openpgp.read_identity(key, passphrase=PASSPHRASE))


@pytest.mark.parametrize("kind", ["argon2", "aead", "cast5"])
def test_what_is_not_taken_is_refused_with_a_sentence(kind: str) -> None:
    iterated = types.StringToKey.iterated("sha256", 96, b"saltsalt")
    how = {
        "argon2": lambda: types.S2kParams.aead("aes256", "ocb", types.StringToKey.argon2(1, 1, 10)),
        "aead": lambda: types.S2kParams.aead("aes256", "ocb", iterated),
        "cast5": lambda: types.S2kParams.cfb("cast5", iterated),
    }
    with pytest.raises(SecurityError, match="This is no private OpenPGP key that can be used"):
        openpgp.read_identity(of_rpgp(how[kind]()), passphrase=PASSPHRASE)


def test_keys_without_end_are_not_hashed() -> None:
    packet = wire.read_packets(person().secret)[0].raw
    with pytest.raises(MalformedMessage, match="more than 10"):
        unlock(packet * 11, b"x")


@given(st.integers(0, 200), st.integers(0, 255), st.binary(max_size=8))
def test_a_damaged_key_is_refused(at: int, octet: int, passphrase: bytes) -> None:
    packets = wire.read_packets(person().secret)
    body = bytearray(packets[0].body)
    body[at % len(body)] = octet
    octets = wire.packet(wire.SECRET_KEY, bytes(body)) + b"".join(packet.raw for packet in packets[1:])
    try:
        unlock(octets, passphrase)
    except (MalformedMessage, SecurityError):
        pass

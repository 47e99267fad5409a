"""Certificates of both technologies in the same words."""

from __future__ import annotations

import contextlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pysequoia
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import ComityError, SecurityError
from comity.secure import KeyStore, new_identity, openpgp, openpgp_packets
from comity.secure.kept import armored, is_openpgp, is_private_openpgp, principal, read
from comity.secure.keyfile import certificate_pem
from tests.peers import need_program
from tests.secure import kit
from tests.secure.kit import ALICE, NOW

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def pgp() -> openpgp.PgpIdentity:
    return openpgp.new_identity(ALICE, when=datetime.now(UTC))


def test_both_say_whose_they_are(pgp: openpgp.PgpIdentity) -> None:
    """SEC-17."""
    certificate = kit.identity().certificate
    for found in (
        *read(certificate.public_bytes(Encoding.PEM)),
        *read(certificate.public_bytes(Encoding.DER)),
        *read(pgp.certificate),
        *read(armored(pgp.certificate)),
    ):
        assert found.contact_keys == ["im:alice@a.test"]
        assert "xmpp:alice@a.test" in found.entry.addresses
        for reference in ("alice@a.test", "sip:alice@a.test", found.fingerprint, found.fingerprint[:16].upper()):
            assert found.is_meant_by(reference), reference
        for reference in ("bob@a.test", found.fingerprint[:15], found.fingerprint[1:], "", "im:"):
            assert not found.is_meant_by(reference), reference
        assert read(found.file_octets)[0].fingerprint == found.fingerprint


@pytest.mark.parametrize("length", [*range(1, 9), 47, 48, 49, 95, 96, 300])
def test_armor_of_any_length_is_read_by_others(length: int) -> None:
    """GnuPG 2.2 fails at every third without a checksum, so that each third certificate could not be imported."""
    octets = bytes([0xC2, *range(1, length)]) if length < 256 else b"\xc2" * length
    text = armored(octets)
    assert openpgp_packets.dearmor(text, (b"PUBLIC KEY BLOCK",)) == octets
    assert text.decode().splitlines()[-2] == pysequoia.armor(octets, pysequoia.ArmorKind.PublicKey).splitlines()[-2]
    done = subprocess.run([need_program("gpg"), "--batch", "--dearmor"], input=text, capture_output=True, check=True)
    assert (done.stdout, b"invalid" in done.stderr) == (octets, False)


def test_of_a_pair_the_one_that_signs_is_meant() -> None:
    identity = new_identity(ALICE, when=NOW, kind="ed25519")
    assert identity.encryption is not None
    pair = read(certificate_pem(identity.certificate, identity.encryption.certificate))
    assert [each.only_encrypts for each in pair] == [False, True]
    assert [each.entry.use for each in pair] == ["sign", "encrypt"]
    assert principal(pair).fingerprint == identity.fingerprint


def test_a_private_key_is_told_from_a_certificate(pgp: openpgp.PgpIdentity) -> None:
    assert is_openpgp(pgp.secret)
    assert is_private_openpgp(pgp.secret)
    assert is_private_openpgp(armored(pgp.secret, "PGP PRIVATE KEY BLOCK"))
    assert is_private_openpgp(pgp.to_bytes("open sesame"))
    assert not is_private_openpgp(pgp.certificate)
    assert not is_openpgp(kit.identity().certificate.public_bytes(Encoding.DER))


def test_an_older_version_takes_no_revocation_away(
    tmp_path_factory: pytest.TempPathFactory, pgp: openpgp.PgpIdentity
) -> None:
    """Bob has the revoked certificate; somebody gives him the one from before."""
    for shelf in ("known", "pinned", "distrusted"):
        store = KeyStore(tmp_path_factory.mktemp("home"))
        store.import_file(openpgp.revoke(pgp))
        if shelf == "pinned":
            store.trust(pgp.fingerprint)
        if shelf == "distrusted":
            store.distrust(pgp.fingerprint)
        assert store.import_file(armored(pgp.certificate))[0].shelf == shelf, "it stays where it lies"
        if shelf != "distrusted":
            store.trust(pgp.certificate)
        assert all(entry.is_revoked for entry in store.entries())
        assert len(store.entries()) == 1


def test_the_owner_of_a_trusted_key_does_not_become_somebody_else_by_an_update(
    tmp_path: Path, pgp: openpgp.PgpIdentity
) -> None:
    """M-36: who trusts Alice's key has not said that it is Bob's as well."""
    store = KeyStore(tmp_path)
    store.trust(pgp.certificate)
    tsk = pysequoia.Tsk.from_bytes(pgp.secret)
    both = bytes(tsk.extract_certificate().add_user_id("im:bob@b.test", tsk.certifier()))
    with pytest.raises(SecurityError, match=r"is for im:bob@b\.test too"):
        store.import_file(both)
    assert "im:bob@b.test" not in store.show(pgp.fingerprint).addresses
    store.trust(both)
    assert "im:bob@b.test" in store.show(pgp.fingerprint).addresses


@given(
    st.binary(max_size=300) | st.binary(max_size=200).map(armored) | st.binary(max_size=100).map(lambda b: b"\x99" + b)
)
def test_any_file_is_a_sentence_or_certificates(data: bytes) -> None:
    with contextlib.suppress(ComityError):  # anything else fails the test
        assert read(data)
    with contextlib.suppress(ComityError):
        KeyStore("/nonexistent/comity").import_file(data)

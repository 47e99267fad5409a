"""Files of keys from other programs (T30): read, or a sentence; never dear."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from comity.errors import SecurityError
from comity.secure import ber, new_identity
from comity.secure.identity import KeyKind
from comity.secure.keyfile import (
    certificate_pem,
    identity_pem,
    key_pem,
    needs_passphrase,
    own_certificates,
    read_identity,
    read_identity_pem,
    write_pkcs12,
)
from tests.secure import kit
from tests.secure.kit import ALICE, NOW


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
@pytest.mark.parametrize("passphrase", [None, b"open sesame"])
def test_an_identity_is_one_file(kind: KeyKind, passphrase: bytes | None) -> None:
    identity = new_identity(ALICE, when=NOW, kind=kind, ca=kit.ca())
    data = identity_pem(identity, passphrase)
    back = read_identity_pem(data, passphrase, "it")
    assert (back.address, back.certificates) == (ALICE, identity.certificates)
    assert [key.certificate for key in back.decryption_keys] == [key.certificate for key in identity.decryption_keys]
    assert len(own_certificates(data)) == (2 if kind == "ed25519" else 1)
    assert needs_passphrase(data) is (passphrase is not None)


def test_intermediates_stay_with_the_key_they_came_with() -> None:
    identity = new_identity(ALICE, when=NOW, kind="ed25519", ca=kit.ca())
    assert identity.encryption is not None
    data = key_pem(identity.key, None) + certificate_pem(identity.certificate, kit.ca().certificate)
    data += key_pem(identity.encryption.key, None) + certificate_pem(identity.encryption.certificate)
    back = read_identity_pem(data, None, "it")
    assert back.certificates == (identity.certificate, kit.ca().certificate)
    assert back.encryption is not None
    assert own_certificates(data) == [identity.certificate, identity.encryption.certificate]


def test_a_key_and_somebody_elses_certificate_are_refused() -> None:
    one, other = (new_identity(ALICE, when=NOW) for _ in range(2))
    with pytest.raises(SecurityError, match="does not belong"):
        read_identity_pem(key_pem(one.key, None) + certificate_pem(other.certificate), None, "it")
    with pytest.raises(SecurityError, match="one by one"):
        read_identity_pem(identity_pem(one, None) + identity_pem(other, None), None, "it")


def test_pkcs12_of_openssl_and_for_openssl(tmp_path: Path) -> None:
    identity = new_identity(ALICE, when=NOW)
    (tmp_path / "key.pem").write_bytes(identity_pem(identity, None))
    made = [
        "openssl",
        "pkcs12",
        "-export",
        "-in",
        tmp_path / "key.pem",
        "-passout",
        "pass:x",
        "-out",
        tmp_path / "a.p12",
    ]
    subprocess.run(list(map(str, made)), check=True, capture_output=True)
    theirs = (tmp_path / "a.p12").read_bytes()
    assert needs_passphrase(theirs) is True
    back = read_identity(theirs, b"x")
    assert back is not None
    assert back.certificate == identity.certificate
    ours = subprocess.run(
        ["openssl", "pkcs12", "-passin", "pass:y", "-nodes"],
        input=write_pkcs12(identity, b"y"),
        capture_output=True,
        check=True,
    )
    assert b"BEGIN PRIVATE KEY" in ours.stdout


def test_a_file_that_asks_for_hours_of_work_is_not_opened() -> None:
    """RFC 7292 section 4: the count of rounds stands in the file, before anything is known of who made it."""
    whole = ber.read(write_pkcs12(new_identity(ALICE, when=NOW), b"x"))
    version, content, mac = whole.children
    dear = ber.sequence(*(bytes(each.raw) for each in mac.children[:2]), ber.integer(2**31 - 1))
    data = ber.sequence(bytes(version.raw), bytes(content.raw), dear)
    begun = time.process_time()
    for attempt in (lambda: read_identity(data, b"x"), lambda: needs_passphrase(data)):
        with pytest.raises(SecurityError, match="more work"):
            attempt()
    assert time.process_time() - begun < 1


def test_what_is_no_key_is_none() -> None:
    for data in (
        b"",
        b"hello",
        kit.identity().certificate.public_bytes(Encoding.DER),
        certificate_pem(kit.identity().certificate),
    ):
        assert needs_passphrase(data) is None
        assert read_identity(data, None) is None

"""Secrets under a passphrase (T30): strong enough to try, readable by others, damage told."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from comity.errors import SecurityError
from comity.secure.identity import KeyKind, new_key
from comity.secure.keyfile import key_pem, load_key
from comity.secure.passphrase import COST, open_octets, pem, pem_octets, protect_octets

SECRET = protect_octets(b"the secret", b"open sesame")


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
def test_openssl_opens_a_key_of_ours(tmp_path: Path, kind: KeyKind) -> None:
    key = new_key(kind)
    (tmp_path / "key.pem").write_bytes(key_pem(key, b"open sesame"))
    command = ["openssl", "pkey", "-in", str(tmp_path / "key.pem"), "-passin", "pass:open sesame", "-pubout"]
    done = subprocess.run(command, capture_output=True, check=True)
    expected = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert done.stdout == expected
    command[5] = "pass:wrong"
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_a_key_that_openssl_protected_is_read(tmp_path: Path) -> None:
    (tmp_path / "open.pem").write_bytes(key_pem(new_key(), None))
    command = ["openssl", "pkcs8", "-topk8", "-in", tmp_path / "open.pem", "-scrypt", "-passout", "pass:x"]
    done = subprocess.run([*map(str, command)], capture_output=True, check=True)
    assert key_pem(load_key(done.stdout, b"x", "it"), None) == (tmp_path / "open.pem").read_bytes()


def test_a_try_costs_memory_and_time() -> None:
    """T30: scrypt with 16 MiB and five lanes (OWASP's figures), not a few thousand rounds of a hash."""
    text = subprocess.run(
        ["openssl", "asn1parse", "-inform", "DER"],
        input=pem_octets(key_pem(new_key(), b"x")),
        capture_output=True,
        check=True,
    ).stdout.decode()
    assert "PBES2" in text
    assert "1.3.6.1.4.1.11591.4.11" in text or "scrypt" in text
    assert f":{COST:X}" in text


def test_octets_come_back_and_only_under_their_passphrase() -> None:
    assert open_octets(SECRET, b"open sesame", "alice") == b"the secret"
    assert protect_octets(b"the secret", b"open sesame") != SECRET
    for wrong in (b"", b"open sesam", b"open sesame "):
        with pytest.raises(SecurityError, match="passphrase is wrong"):
            open_octets(SECRET, wrong, "alice")


@pytest.mark.parametrize("at", range(0, len(SECRET), 3))
def test_one_changed_octet_is_noticed(at: int) -> None:
    damaged = SECRET[:at] + bytes([SECRET[at] ^ 1]) + SECRET[at + 1 :]
    with pytest.raises(SecurityError):
        open_octets(damaged, b"open sesame", "alice")


@given(st.binary(max_size=200))
def test_any_octets_are_a_sentence_not_a_crash(data: bytes) -> None:
    with pytest.raises(SecurityError):
        open_octets(data, b"x", "alice")


def test_pem_is_what_others_write() -> None:
    block = pem("X", bytes(range(100)))
    assert pem_octets(block) == bytes(range(100))
    with pytest.raises(SecurityError):
        pem_octets(b"-----BEGIN X-----\n!!\n-----END X-----\n")

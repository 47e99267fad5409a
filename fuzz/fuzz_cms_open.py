#!/usr/bin/env python3
"""Fuzz S/MIME decryption and decompression: opened, or one of the errors there are; never a change that goes unnoticed.

Run: ``python fuzz/fuzz_cms_open.py fuzz/corpus/cms_open``. The objects of the corpus are for the keys of
``cms_open_keys.pem``, which protect nothing. The test suite calls ``one_input`` over a small corpus.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from run import run

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import Identity, TrustStore, cms_compressed, cms_open, decrypt, verify
from comity.secure.identity import DecryptionKey

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRUST = TrustStore()
ENTITY = b"Content-Type: text/plain\r\n\r\nWatson, come here"
"""What is inside every object of the corpus."""
SECONDS = 2.0
"""Far above what any input needs; a slow one is a finding."""


def _identities() -> list[Identity]:
    """P-256, RSA, and Ed25519 with X25519: key and certificate of each."""
    pem = (Path(__file__).parent / "cms_open_keys.pem").read_bytes()
    keys = [
        load_pem_private_key(block, None)
        for block in re.findall(rb"-----BEGIN PRIV.*?-----END PRIV[^\n]*\n", pem, re.DOTALL)
    ]
    p256, rsa, ed25519, x25519 = keys
    certificates = x509.load_pem_x509_certificates(pem)
    alice = Address.parse("im:alice@a.test")
    return [
        Identity(alice, p256, (certificates[0],)),  # type: ignore[arg-type]  # the file has them in this order
        Identity(alice, rsa, (certificates[1],)),  # type: ignore[arg-type]  # as above
        Identity(alice, ed25519, (certificates[2],), DecryptionKey(x25519, certificates[3])),  # type: ignore[arg-type]  # as above
    ]


IDENTITIES = _identities()


def one_input(data: bytes) -> None:
    """Open ``data`` as CMS, as an entity with that content and as a whole entity; decompress it; ask for a verdict."""
    obj = MimeObject.of("application/pkcs7-mime", data)
    started = time.monotonic()
    for read in (
        lambda: cms_open.open_enveloped(data, IDENTITIES),
        lambda: decrypt(obj, IDENTITIES),
        lambda: decrypt(data, IDENTITIES),
    ):
        try:
            opened = read()
        except (SecurityError, MalformedMessage):
            continue
        assert opened.entity == ENTITY or not opened.is_authenticated, "a change went unnoticed"
    try:
        assert len(cms_compressed.decompress(data)) <= cms_compressed.MAX_INFLATION * len(data)
    except SecurityError:
        pass
    assert not verify(obj, TRUST, now=NOW, keys=IDENTITIES).is_valid, "nothing can be valid without an anchor"
    assert time.monotonic() - started < SECONDS, "too slow"


if __name__ == "__main__":
    run(one_input)

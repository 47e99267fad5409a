#!/usr/bin/env python3
"""Fuzz S/MIME verification: whatever the octets, a verdict and never an exception, in bounded time.

Run: ``python fuzz/fuzz_cms.py fuzz/corpus/cms``. The test suite calls ``one_input`` over a small corpus.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from run import run

from comity.cpim.operations import MimeObject
from comity.errors import SecurityError
from comity.secure import TrustStore, cms, cms_check, verify

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRUST = TrustStore()
ENTITY = b"Content-Type: message/cpim\r\n\r\nFrom: <im:a@a.test>\r\nTo: <im:b@b.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhi"
SIGNED = 'multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=b'
SECONDS = 2.0
"""Far above what any input needs; a slow one is a finding."""


def one_input(data: bytes) -> None:
    """Verify ``data`` as a whole entity, as signed-data and as a detached signature, and read it as CMS."""
    second = b"Content-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: binary\r\n\r\n" + data
    detached = b"--b\r\n" + ENTITY + b"\r\n--b\r\n" + second + b"\r\n--b--\r\n"
    objects = (
        data,
        MimeObject.of("application/pkcs7-mime; smime-type=signed-data", data),
        MimeObject.of(SIGNED, detached),
        MimeObject.of("message/cpim", data),
    )
    started = time.monotonic()
    for obj in objects:
        assert not verify(obj, TRUST, now=NOW).is_valid, "nothing can be valid without an anchor"
    try:
        cms_check.check(cms.parse_signed_data(data), ENTITY)
    except SecurityError:
        pass
    assert time.monotonic() - started < SECONDS, "too slow"


if __name__ == "__main__":
    run(one_input)

#!/usr/bin/env python3
"""Fuzz OpenPGP: signatures, certificates, private keys, encrypted messages and what lies inside them.

Whatever the octets: our own exceptions, no panic of Rust, bounded time. Run: ``python fuzz/fuzz_openpgp.py fuzz/corpus/openpgp``.
"""

from __future__ import annotations

import base64
import time
from datetime import UTC, datetime

from run import run

from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import TrustStore, openpgp, verify
from comity.secure.openpgp_crypto import FAILURES, SessionKey, open_data
from comity.secure.openpgp_open import inside

#: A key of nobody, made for this: the corpus holds signatures by it and messages for it. It does not expire.
KEY = """
xVgEawRkWRYJKwYBBAHaRw8BAQdACcG5r15ZtKaNjtM8pU/5+GhbzjgZdeFFj2dMFJZ+sKYAAQCEaMs2ufnokjF7+Hn54ofQedmRkJdkEUpR+Z8J
Kz7FHRFvwsALBB8WCgB9BYJrBGRZAwsJBwkQEqd8vGz1iURHFAAAAAAAHgAgc2FsdEBub3RhdGlvbnMuc2VxdW9pYS1wZ3Aub3JnKx3qn7MoWBz3
6YmgpM2KqxpU++dOnZlncY978HEJxo8DFQoIApsBAh4JFiEEppGwKYwhNB00jyAZEqd8vGz1iUQAAIe2AQCH7e+Mz/nDa5q47gQw0HgIW49QS7Z6
N7AnxBzGYpDs/AEApgyIWakcD5qbL3xCF8GgnkDq1T6u+u7i9shoeDzCtQTNC2ltOmFAYS50ZXN0wsAOBBMWCgCABYJrBGRZAwsJBwkQEqd8vGz1
iURHFAAAAAAAHgAgc2FsdEBub3RhdGlvbnMuc2VxdW9pYS1wZ3Aub3JnvbP8MBSLzoud8r0bjbs7JC95GOtGuLMnbJeCW2cfitEDFQoIApkBApsB
Ah4JFiEEppGwKYwhNB00jyAZEqd8vGz1iUQAACAyAQCfFR+ZLQggIeTLCTNQeIXF0C7odVabY3iQUESTiG+6MwD9GjXSnmJM6tuoN7CSL7hMomsA
vS2b5TlOCai/LxJOjQXHWARrBGRZFgkrBgEEAdpHDwEBB0AiNqJLfJfuMFOp6CyPJ9pt5gYnhU6q13hMX3YupUP0JwABAPAg6dG26e8x26kZ27ov
Z4UhQ3+rB4wyQZod52DOvJd2EQDCwL8EGBYKATEFgmsEZFkJEBKnfLxs9YlERxQAAAAAAB4AIHNhbHRAbm90YXRpb25zLnNlcXVvaWEtcGdwLm9y
Z3977NQlpj+nAUNeOSmeecGngS2Z58x/fFP4KGI3c7tlApsCvqAEGRYKAG8FgmsEZFkJELn9LD6XKeb1RxQAAAAAAB4AIHNhbHRAbm90YXRpb25z
LnNlcXVvaWEtcGdwLm9yZ+7lgbrCqpU2tL0ulduaC2vzDKUh8jLXe4dx+0H0ooulFiEE4RiUb8+jGPyNiXO/uf0sPpcp5vUAAG3wAP4qTOQ2pCTv
pSCMUKWO2iffTgwIYJH81Yn+TomVg9HEdgEA5FVxjOPju+vtnQ/uYvO7Fuv2ow2KF4Pjr0HTu653XggWIQSmkbApjCE0HTSPIBkSp3y8bPWJRAAA
sHEBAI23mqT8t4FRabsBBtZX5MmjYSUrixtxlIyYFdkmEscIAP95AKbCtY30wIRL5906CxN9ay6RGqy6MzYliqvKQeCtCcddBGsEZFkSCisGAQQB
l1UBBQEBB0BIt/+iKB+e+GXS8JosDgn/+sC4ixPB7ZL/1AbjFtlxCwMBCAcAAP9tDEVbUNjFaLjMh6kTJwf3v/WXaMPwIojw4YyDHpgZMBFIwsAA
BBgWCgByBYJrBGRZCRASp3y8bPWJREcUAAAAAAAeACBzYWx0QG5vdGF0aW9ucy5zZXF1b2lhLXBncC5vcmcYiT875RnzOur98Y1KeyfK2iAQX7jS
ej4GslD26brUmAKbDBYhBKaRsCmMITQdNI8gGRKnfLxs9YlEAADMhgEA5B5alkeFTfqn4fHR+owTIdTO5dXGcdpdFSTjgFFxXO4A/RxNy+Abk8o7
keXch4KeqmP5u3iUmBJE5RaS+NKr9kkP
"""
IDENTITY = openpgp.read_identity(base64.b64decode(KEY))
TRUST = TrustStore(openpgp_pinned=(IDENTITY.certificate,))
ENTITY = b"Content-Type: message/cpim\r\n\r\nFrom: <im:a@a.test>\r\nTo: <im:b@b.test>\r\n\r\nContent-Type: text/plain\r\n\r\nhi"
SIGNED = 'multipart/signed; protocol="application/pgp-signature"; micalg=pgp-sha512; boundary=b'
ENCRYPTED = 'multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b'
SECONDS = 2.0
"""Far above what any input needs; a slow one is a finding."""


def one_input(data: bytes) -> None:
    """Read ``data`` as everything that OpenPGP octets can be."""
    now = datetime.now(UTC)
    started = time.process_time()
    try:
        for signer in openpgp.signers_of(ENTITY, data, TRUST, now):
            assert signer.fingerprint == IDENTITY.fingerprint, "a signer whom nobody knows"
    except SecurityError:
        pass
    for read in (openpgp.read_certificates, openpgp.read_identity):
        try:
            read(data)
        except SecurityError:
            pass
    try:
        openpgp.open_message(data, [IDENTITY], TRUST, now)
    except (SecurityError, MalformedMessage):
        pass
    for attempt in (
        lambda: inside(data),
        lambda: open_data(data, SessionKey(9, bytes(32))),
        lambda: open_data(data, SessionKey(0, bytes(32))),
    ):
        try:
            attempt()
        except FAILURES:
            pass
    head = b"--b\r\n" + ENTITY + b"\r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n"
    verify(MimeObject.of(SIGNED, head + data + b"\r\n--b--\r\n"), TRUST, now=now)
    head = b"--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--b\r\n"
    octets = head + b"Content-Type: application/octet-stream\r\n\r\n" + data + b"\r\n--b--\r\n"
    verify(MimeObject.of(ENCRYPTED, octets), TRUST, now=now, keys=[IDENTITY])
    assert time.process_time() - started < SECONDS, "too slow"


if __name__ == "__main__":
    run(one_input)

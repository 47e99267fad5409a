#!/usr/bin/env python3
"""Fuzz the files that ``comity keys import`` takes and those under COMITY_HOME: certificates, keys, lists, the memory of keys.

Whatever the octets: a sentence or what was read, in bounded time. Run: ``python fuzz/fuzz_keys.py fuzz/corpus/keys``.
"""

from __future__ import annotations

import contextlib

from run import run

from comity.errors import ComityError
from comity.secure import kept, keyfile
from comity.secure.contacts import from_json, to_json
from comity.secure.own_pgp import CERTIFICATE
from comity.secure.passphrase import pem_blocks, pem_octets


def one_input(data: bytes) -> None:
    """Read ``data`` as every file of keys there is; no passphrase is known, so nothing dear is derived."""
    with contextlib.suppress(ComityError):
        for found in kept.read(data):
            assert kept.read(found.file_octets)[0].fingerprint == found.fingerprint, "what is kept is what came"
            assert found.is_meant_by(found.fingerprint)
    with contextlib.suppress(ComityError):
        keyfile.read_crl(data)
    with contextlib.suppress(ComityError):
        if kept.holds_key(data) is False and not kept.is_openpgp(data):
            keyfile.read_identity(data, None)
    with contextlib.suppress(ComityError):
        keyfile.own_certificates(data)
    with contextlib.suppress(ComityError):
        contacts = from_json(data, "it")
        assert from_json(to_json(contacts), "it") == contacts
    for label, block in pem_blocks(data):
        with contextlib.suppress(ComityError):
            pem_octets(block)
        assert label != CERTIFICATE or block.startswith(b"-----BEGIN")


if __name__ == "__main__":
    run(one_input)

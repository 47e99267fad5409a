#!/usr/bin/env python3
"""Atheris target: any octets give a signed operation's fields or MalformedMessage, a person's policy or SecurityError, and what
an object is told to be without a key is one of the kinds there are.

python fuzz/fuzz_protection.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from run import run

from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject, Requirement
from comity.cpim.protection import protections, unmet
from comity.errors import MalformedMessage, SecurityError, StoreError
from comity.secure.operation import MOST_DURATION, MOST_ID, read_operation
from comity.secure.policy import FILE, load_policy
from comity.service.protection import BROKEN, pack_rule, unpack_rule

TYPES = ("message/cpim", "multipart/signed; boundary=b", "multipart/encrypted; boundary=b", "application/pkcs7-mime")
HOME = Path(tempfile.mkdtemp(prefix="comity-fuzz-"))


def one_input(data: bytes) -> None:
    for content_type in TYPES:
        obj = MimeObject.of(content_type, data)
        found = protections(obj)
        assert found <= {Requirement.SIGNED, Requirement.ENCRYPTED}
        assert (unmet(obj, {Requirement.ENCRYPTED}) == "") is (Requirement.ENCRYPTED in found)
        assert (unmet(obj, {Requirement.SIGNED}) == "") is bool(found)
    try:
        signed = read_operation(CpimMessage.parse(data))
        assert (signed.name == "subscribe") is bool(signed.duration)
        assert signed.duration <= MOST_DURATION
        assert len(signed.subscript_id.encode()) <= MOST_ID
    except MalformedMessage:
        pass
    try:
        rule = unpack_rule(data, "im:a@a.test")
        assert unpack_rule(pack_rule(rule), "im:a@a.test") == replace(rule, verdicts=BROKEN)
    except StoreError:
        pass
    (HOME / FILE).write_bytes(data)
    try:
        load_policy(HOME)
    except SecurityError:
        pass


if __name__ == "__main__":
    run(one_input)

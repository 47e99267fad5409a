#!/usr/bin/env python3
"""What the store hands back: a stored envelope, an outcome, a credential or a request of the control socket, or a StoreError."""

from __future__ import annotations

import hashlib

import msgspec
from run import run

from comity.admin.requests import AnyRequest
from comity.errors import ComityError
from comity.service.envelope import operation_of, unpack, unpack_outcome
from comity.service.interfaces import Record


def one_input(data: bytes) -> None:
    envelope_octets, _, entity = data.partition(b"\0\0")
    try:
        envelope = unpack(envelope_octets)
        fingerprint = hashlib.sha256(entity[envelope.header_octets + 2 :]).hexdigest()
        record = Record("i", "l", entity, envelope_octets, fingerprint, 1.0)
        operation_of(record, envelope)
    except ComityError:
        pass
    try:
        unpack_outcome(data)
    except ComityError:
        pass
    try:
        msgspec.json.decode(data, type=AnyRequest)
    except (msgspec.MsgspecError, UnicodeDecodeError):  # as the control socket does
        pass


if __name__ == "__main__":
    run(one_input)

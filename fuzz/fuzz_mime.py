#!/usr/bin/env python3
"""Any MIME entity and its verdict: one answer, never valid without an anchor; parts are slices of what came (SEC-3)."""

from __future__ import annotations

from datetime import UTC, datetime

from run import run

from comity.cpim.entity import (
    content_type_params,
    cpim_view,
    decode_transfer,
    is_secured,
    multipart_parts,
    split_entity,
)
from comity.cpim.imdn import is_report
from comity.cpim.native import plain_text, readable_part
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import TrustStore, verify

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
TRUST = TrustStore()


def one_input(data: bytes) -> None:
    assert not verify(data, TRUST, now=NOW).is_valid
    objects = [MimeObject.of(kind, data) for kind in ("multipart/signed; boundary=b", "multipart/mixed; boundary=b")]
    try:
        entity = split_entity(data)
        assert entity.entity == data
        objects.append(entity)
    except MalformedMessage:
        pass
    for obj in objects:
        for question in (is_secured, is_report, plain_text, readable_part):
            question(obj)
        for read in (multipart_parts, decode_transfer, cpim_view):
            try:
                found = read(obj)
            except MalformedMessage:
                continue
            if read is multipart_parts:
                assert all(part in data for part in found)
    try:
        content_type_params(data.decode("utf-8", "replace"))
    except MalformedMessage:
        pass


if __name__ == "__main__":
    run(one_input)

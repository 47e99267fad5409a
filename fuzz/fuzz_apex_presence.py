#!/usr/bin/env python3
"""Atheris target: any entry an application publishes comes back from its document, any document is an entry that can be written.

Octets that are a publish of RFC 3343 are read as one; all others as a presence document of whatever device.

python fuzz/fuzz_apex_presence.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from run import run

from comity.bindings.apex.elements import Inline, Publish
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import WireError
from comity.bindings.apex.presence import (
    STATE_INFO,
    Entry,
    document_to_entry,
    entry_to_document,
    own_tuples,
    read_last_update,
    show,
)
from comity.bindings.apex.service_wire import read_service, write_service
from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PIDF_TYPE, PresenceDocument
from comity.errors import LocalProtocolError, MalformedMessage

ALICE, WHO = Address.parse("im:alice@a.test"), Endpoint.parse("alice@a.test")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def one_input(data: bytes) -> None:
    try:
        element = read_service(Inline(data))
    except WireError:
        one_document(data)
        return
    if isinstance(element, Publish):
        one_publish(element)


def one_document(data: bytes) -> None:
    try:
        document = PresenceDocument.of(MimeObject.of(f"{PIDF_TYPE}; charset=utf-8", data))
    except MalformedMessage:
        return
    document_to_entry(document)
    shown = show(document, ALICE, NOW)
    again = read_service(
        Inline(write_service(Publish(WHO, 1, "2026-11-23T12:00:00Z", shown.presence(WHO, NOW + HOUR))))
    )
    assert isinstance(again, Publish)
    assert len(again.presence.tuples) == len(shown.tuples)
    assert read_last_update(again.presence) is not None


def one_publish(publish: Publish) -> None:
    tuples = own_tuples(publish.presence)
    assert all(f"{STATE_INFO}:" not in one.tuple_info[: len(STATE_INFO) + 1] for one in tuples)
    try:
        document = entry_to_document(ALICE, Entry(NOW, publish.presence.publisher_info, tuples), NOW)
    except (MalformedMessage, LocalProtocolError):
        return
    again = PresenceDocument.parse(document.raw)
    entry = document_to_entry(again)
    assert entry is not None
    assert [one.destination for one in entry.tuples] == [one.destination for one in tuples]
    assert [one.capabilities for one in entry.tuples] == [one.capabilities for one in tuples]
    assert len(show(again, ALICE, NOW).tuples) == max(len(tuples), 1)


if __name__ == "__main__":
    run(one_input)

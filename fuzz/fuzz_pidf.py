#!/usr/bin/env python3
"""Atheris target: any octets give a presence document or MalformedMessage; what is read can be composed and read again.

python fuzz/fuzz_pidf.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

from run import run

from comity.cpim.composition import Publication, compose_presence
from comity.cpim.operations import MimeObject
from comity.cpim.presence import PIDF_TYPE, PresenceDocument
from comity.cpim.presence_state import document_state, resource_of, tuple_id_of, tuple_state
from comity.errors import MalformedMessage

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def one_input(data: bytes) -> None:
    try:
        view = PresenceDocument.of(MimeObject.of(f"{PIDF_TYPE}; charset=utf-8", data))
    except MalformedMessage:
        return
    assert view.raw == data
    document_state(view, NOW)
    for one in view.tuples:
        tuple_state(view, one, NOW)
        assert not one.id or resource_of(tuple_id_of(one.id)) == one.id
    if view.presentity is None or not view.is_about(view.presentity):
        return
    publications = [Publication(key, view, NOW, NOW + HOUR) for key in ("a", "b")]
    composed = compose_presence(view.presentity, publications, NOW, last=NOW)
    again = PresenceDocument.parse(composed.document.raw)
    assert fields_of(again) == fields_of(composed.document), "what was written is read as something else"
    assert not composed.document.is_outdated(NOW + HOUR / 3600_000)
    if "a" not in composed.left_out:
        whole = Publication("a", composed.document, NOW, NOW + HOUR, keeps_ids=True)
        twice = compose_presence(view.presentity, [whole], NOW + HOUR / 2).document
        assert len(twice.tuples) == len(composed.document.tuples)
        assert twice.namespaces == composed.document.namespaces


def fields_of(view: PresenceDocument) -> list[object]:
    return [getattr(view, field.name) for field in dataclasses.fields(view)]


if __name__ == "__main__":
    run(one_input)

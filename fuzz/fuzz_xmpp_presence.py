#!/usr/bin/env python3
"""A presence stanza to a document and back to stanzas: well-formed, nothing injected, the same said; and any document."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from run import run

from comity.bindings.xmpp.e2e import E2E, OCTETS
from comity.bindings.xmpp.notices import content_to_stanzas, current_stanzas, notify_to_stanzas
from comity.bindings.xmpp.presence import STATUS, stanza_to_notify, stanza_to_statement
from comity.bindings.xmpp.wire import encode
from comity.cpim.address import Address
from comity.cpim.composition import COMPOSED_TYPE, Publication, compose_presence
from comity.cpim.operations import MimeObject, NotifyOperation
from comity.cpim.presence import PresenceDocument
from comity.errors import ComityError, MalformedMessage
from comity.service.presence.interfaces import Content, Statement
from comity.xml import Element, parse_document

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALICE = Address.parse("pres:alice@a.test")
TO = "bob@b.test/r&d"


def one_input(data: bytes) -> None:
    head = b"<presence xmlns='jabber:client' from='alice@a.test/desk' to='bob@b.test'>"
    for octets in (head + data + b"</presence>", data):
        try:
            element = parse_document(octets)
        except ComityError:
            continue
        if element.name == "{jabber:client}presence":
            carry(element)
    try:
        view = PresenceDocument.parse(data)
    except MalformedMessage:
        return
    show(Content(ALICE, view, MimeObject.of(COMPOSED_TYPE, data), natives={"": ("xmpp", b"<x/>")}))


def carry(element: Element) -> None:
    if isinstance(operation := stanza_to_notify(element, WHEN, trans_id="t"), NotifyOperation):
        for notice in notify_to_stanzas(operation, WHEN):
            written(notice.element(TO))
    said = stanza_to_statement(element, "desk", WHEN)
    if not isinstance(said, Statement) or said.document is None or not said.document.is_about(ALICE):
        return
    last = Publication("k", said.document, WHEN, WHEN + HOUR, keeps_ids=said.keeps_ids)
    composed = compose_presence(ALICE, [last], WHEN)
    first = show(Content(ALICE, composed.document, composed.object, said.secured, said.natives))
    if said.secured is None and first:
        again = stanza_to_statement(first[0], "desk", WHEN)
        assert isinstance(again, Statement), again
        assert [s.text for s in first[0].find_all(STATUS)] == [s.text for s in element.find_all(STATUS) if s.text]


def show(content: Content) -> list[Element]:
    plain = [written(notice.element(TO)) for notice in content_to_stanzas(content, None, WHEN)]
    for notice in (
        *content_to_stanzas(content, None, WHEN, takes=frozenset({E2E, OCTETS})),
        *current_stanzas(content, WHEN),
    ):
        written(notice.element(TO))
    assert content_to_stanzas(content, content, WHEN) == ()
    return plain


def written(stanza: Element) -> Element:
    assert stanza.name == "{jabber:client}presence"
    assert stanza.get("to") == TO
    assert parse_document(encode(Element("{}x", {}, [stanza]))).children == [stanza]
    return stanza


if __name__ == "__main__":
    run(one_input)

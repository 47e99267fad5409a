#!/usr/bin/env python3
"""A published item to a node, its document and back to a stanza: kept as it came, within its options; and any document."""

from __future__ import annotations

from run import run

from comity.bindings.xmpp.pubsub import (
    EVENT,
    MAX_ITEMS,
    PUBSUB,
    Item,
    Node,
    decode_node,
    items_element,
    options_form,
    read_options,
)
from comity.bindings.xmpp.wire import encode
from comity.errors import ComityError, LocalProtocolError
from comity.xml import Element, parse_document, serialize


def one_input(data: bytes) -> None:
    try:
        decode_node("n", data)
    except ValueError:
        pass  # not a document of ours
    for octets in (b"<pubsub xmlns='%s'>" % PUBSUB.encode() + data + b"</pubsub>", data):
        try:
            around = parse_document(octets)
        except ComityError:
            continue
        keep(around)


def keep(around: Element) -> None:
    try:
        options = read_options(around.find(f"{{{PUBSUB}}}publish-options"))
    except ValueError:
        return
    node = Node("n").configured(options)
    assert read_options(Element("x", {}, [options_form(node, "submit")])) == {
        name: value for name, value in node.options.items() if name != "title"
    } | {"title": node.options["title"].strip()}
    for number, payload in enumerate(around.elements()):
        try:
            item = Item(str(number % 3), serialize(payload).decode())
        except LocalProtocolError:
            continue
        node = node.with_item(item)
        assert decode_node("n", node.encode()) == node
        assert len(node.items) <= min(3, MAX_ITEMS)
        if node.is_on("persist_items"):
            (again,) = items_element(EVENT, "n", node.items[-1:]).elements()
            assert list(again.elements()) == [payload]
            encode(again)


if __name__ == "__main__":
    run(one_input)

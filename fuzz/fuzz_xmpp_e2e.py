#!/usr/bin/env python3
"""An e2e or octets element both ways: what is wrapped comes back octet for octet, what is unwrapped is an entity or refused."""

from __future__ import annotations

from run import run

from comity.bindings.xmpp.e2e import E2E, OCTETS, unwrap_entity, unwrap_octets, wrap_entity, wrap_octets
from comity.cpim.entity import split_entity
from comity.errors import ComityError, MalformedMessage, RemoteProtocolError
from comity.xml import Element, parse_document, serialize

READERS = {E2E: unwrap_entity, OCTETS: unwrap_octets}


def one_input(data: bytes) -> None:
    wrap(data)
    for namespace, name in ((E2E, "e2e"), (OCTETS, "octets")):
        for content in (data, b"<![CDATA[\n" + data + b"\n]]>"):
            try:
                element = parse_document(f"<{name} xmlns='{namespace}'>".encode() + content + f"</{name}>".encode())
            except ComityError:
                continue
            unwrap(element, namespace)


def wrap(entity: bytes) -> None:
    """XMPP-19, SEED-21: proved before it is sent."""
    element = wrap_entity(entity)
    if element is not None:
        assert unwrap_entity(parse_document(serialize(element))) == entity
    if entity:
        assert unwrap_octets(parse_document(serialize(wrap_octets(entity)))) == entity


def unwrap(element: Element, namespace: str) -> None:
    refusal = ""
    entity = b""
    try:
        entity = READERS[namespace](element)
    except RemoteProtocolError as error:
        refusal = error.hint
    assert bool(entity) != (refusal == "bad-request")
    wrap(entity)
    if namespace == E2E:
        assert b"\n" not in entity.replace(b"\r\n", b""), "a line end that is not CR LF"
    try:
        assert split_entity(entity).entity == entity
    except MalformedMessage:
        pass  # no empty line: the mapping refuses it


if __name__ == "__main__":
    run(one_input)

#!/usr/bin/env python3
"""Atheris target: any octets are a document of some XCAP usage or refused; lists say their contacts and come to say others.

python fuzz/fuzz_xcap_document.py -max_len=4096 CORPUS_DIR
"""

from __future__ import annotations

from run import run

from comity.cpim.address import Address
from comity.xcap.application import USAGES, service_addresses
from comity.xcap.errors import Refused
from comity.xcap.lists import people_of, person, reconcile
from comity.xcap.selector import Document
from comity.xml import LocatedElement

ALICE = Address.parse("im:alice@example.com")
OTHERS = {
    one.address.key: one
    for one in (
        person(Address.parse("im:bob@example.com"), "Bob", ["friends", "B"]),
        person(Address.parse("im:zoe@example.com"), "", []),
    )
}
USAGE = USAGES["resource-lists"]


def one_input(data: bytes) -> None:
    try:
        document = Document.read(data, USAGE.limits)
    except Refused as refused:
        if refused.status not in (409, 413):
            raise
        return
    check_places(document.root, data)
    kinds = []
    for usage in USAGES.values():
        try:
            usage.validate(document, ALICE)
            kinds.append(usage.auid)
        except Refused as refused:
            if refused.status not in (409, 413):
                raise
    if "rls-services" in kinds:
        service_addresses(document)
    if "resource-lists" not in kinds:
        return
    said = people_of(document, ALICE)
    assert reconcile(document, ALICE, said) == data
    octets = reconcile(document, ALICE, OTHERS)
    again = Document.read(octets, USAGE.limits)
    USAGE.validate(again, ALICE)
    assert people_of(again, ALICE) == OTHERS
    assert reconcile(again, ALICE, OTHERS) == octets


def check_places(one: LocatedElement, data: bytes) -> None:
    assert data[one.start : one.start + 1 + len(one.raw_name)] == b"<" + one.raw_name
    assert data[one.end - 1 : one.end] == b">"
    assert one.start < one.content <= one.content_end <= one.end
    for attribute in one.attributes:
        assert one.start < attribute.start < attribute.value_start <= attribute.value_end < one.content
    for child in one.children:
        assert one.content <= child.start < child.end <= one.content_end
        check_places(child, data)


if __name__ == "__main__":
    run(one_input)

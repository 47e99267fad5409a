#!/usr/bin/env python3
"""Atheris target: a URI, a newline and a body: whatever they are, a part is read, put or taken away by the rules, or refused.

python fuzz/fuzz_xcap_uri.py -max_len=2048 CORPUS_DIR
"""

from __future__ import annotations

from run import run

from comity.xcap.errors import Refused
from comity.xcap.selector import Document, delete_part, put_attribute, put_element, read_part
from comity.xcap.uri import parse_target, read_node_selector
from comity.xml import XmlLimits

LIMITS = XmlLimits(octets=8192)
NAMESPACE = "urn:ietf:params:xml:ns:resource-lists"
DOCUMENT = Document.read(
    f"<resource-lists xmlns='{NAMESPACE}' xmlns:x='u:x'><!-- c --><list name='l'>\n <entry uri='sip:a@b'/><x:y/>"
    "<entry uri='sip:c@d'><display-name>C</display-name></entry></list><list x:a='1'/></resource-lists>".encode(),
    LIMITS,
)


def one_input(data: bytes) -> None:
    raw, _, body = data.partition(b"\n")
    try:
        target = parse_target(raw.decode("latin-1"))
        assert ".." not in target.path
        assert all(name and "/" not in name for name in target.path)
        if target.node is None:
            return
        selector = read_node_selector(target, NAMESPACE)
        part = read_part(DOCUMENT, selector)
        if part is not None:
            assert part[1] in DOCUMENT.octets or selector.is_namespaces
    except Refused as refused:
        if not 400 <= refused.status < 500:
            raise
        return
    if selector.is_namespaces:
        return
    try:
        put = put_element if selector.attribute is None else put_attribute
        change = put(DOCUMENT, selector, body, target.document_uri, LIMITS)
    except Refused as refused:
        if refused.status not in (409, 413):
            raise
    else:
        new = change.document
        again = read_part(new, selector)
        assert again is not None
        assert again[1].strip(b"\"'") in (body.strip().strip(b"\"'"), again[1].strip(b"\"'"))
        assert (selector.attribute is not None) or again[1] == body.strip(b" \t\r\n")
        assert change.is_new == (part is None)
        assert put(new, selector, body, "", LIMITS).document.octets == change.document.octets
    try:
        gone = delete_part(DOCUMENT, selector, LIMITS)
    except Refused as refused:
        if refused.status != 409:
            raise
    else:
        assert (gone is None) == (part is None)
        assert gone is None or read_part(gone.document, selector) is None


if __name__ == "__main__":
    run(one_input)

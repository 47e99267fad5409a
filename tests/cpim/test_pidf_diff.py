"""What changed since the last time: ``comity.cpim.pidf_diff``; RFC 5262."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from comity.cpim.pidf_diff import diff, difference, full
from comity.cpim.presence import PresenceDocument
from tests.patching import Patched, canonical

TUPLES = st.builds(
    lambda id, word, note: f"<tuple id='{id}'><status><basic>{word}</basic></status>{note}</tuple>",
    st.sampled_from("abcde"),
    st.sampled_from(["open", "closed"]),
    st.sampled_from(["", "<note>n &amp; &lt;</note>", "<note xml:lang='de'>é</note>"]),
)
OTHERS = st.sampled_from(
    [
        *("<note>one</note>", "<note>two</note>", "<x:y xmlns:x='urn:x' x:z='1'><q xmlns=''/></x:y>"),
        *(
            f"<d:person xmlns:d='urn:ietf:params:xml:ns:pidf:data-model' id='p'>{inside}</d:person>"
            for inside in ("", "<r:activities xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'><r:busy/></r:activities>")
        ),
    ]
)


def document(tuples: list[str], others: list[str], entity: str = "pres:a@b.test") -> PresenceDocument:
    head = f"<presence xmlns='urn:ietf:params:xml:ns:pidf' entity='{entity}'>"
    return PresenceDocument.parse(f"{head}{''.join(tuples)}{''.join(others)}</presence>".encode())


DOCUMENTS = st.builds(
    document,
    st.lists(TUPLES, max_size=5, unique_by=lambda one: one[11]),
    st.lists(OTHERS, max_size=3, unique_by=lambda one: one[:10]),
)


@given(st.lists(DOCUMENTS, min_size=2, max_size=5))
def test_whoever_applies_the_differences_has_the_document(documents: list[PresenceDocument]) -> None:
    """RFC 5263 sections 4.4 and 4.5, lxml being the watcher."""
    watcher = Patched()
    assert watcher.take(full(documents[0], 1))
    for version, (old, new) in enumerate(pairwise(documents), 2):
        operations = difference(old, new)
        octets = full(new, version) if operations is None else diff(new.entity, version, operations)
        assert watcher.take(octets)
        assert watcher.document == canonical(etree.fromstring(new.raw))


TUPLE = "<tuple id='{}'><status><basic>{}</basic></status></tuple>"


def test_a_small_change_is_a_small_document() -> None:
    many = [TUPLE.format(number, "open") for number in range(20)]
    old, new = document(many, []), document([*many[:7], TUPLE.format(7, "closed"), *many[8:]], ["<note>n</note>"])
    operations = difference(old, new)
    assert operations == [
        b"<p:replace sel='*/*[8]'><tuple id='7'><status><basic>closed</basic></status></tuple></p:replace>",
        b"<p:add sel='*'><note>n</note></p:add>",
    ]
    octets = diff(new.entity, 9, operations)
    assert len(octets) < len(new.raw) / 2
    assert b"version='9'" in octets


def test_what_cannot_be_said_shortly_is_said_whole() -> None:
    one, other = TUPLE.format("a", "open"), TUPLE.format("b", "open")
    assert difference(document([one, other], []), document([other, one], [])) is None
    assert difference(document([one], []), document([one], [], "pres:x@b.test")) is None
    assert difference(document([one], ["<note>n</note>"] * 2), document([one], ["<note>n</note>"])) is None
    assert difference(document([one], []), document([one], [])) == []


def test_what_is_old_is_ignored_and_a_gap_is_noticed() -> None:
    """N-16, from the watcher's side as the RFC has it: shows that our versions make that possible."""
    watcher = Patched()
    one = document([TUPLE.format("a", "open")], [])
    assert watcher.take(full(one, 5))
    assert not watcher.take(full(one, 5))
    assert not watcher.take(diff(one.entity, 4, []))
    assert not watcher.take(diff(one.entity, 7, []))
    assert watcher.take(diff(one.entity, 6, []))
    assert watcher.take(full(one, 9))

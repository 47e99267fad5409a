"""Section 2.9 as far as documents go (N-18, N-19, N-22, N-23, N-24): each hostile document to every reader of presence.

The rows that need a running presence service (N-01 … N-17, N-25) come with it.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from comity.cpim.address import Address
from comity.cpim.common_policy import COMMON_POLICY, RULE_LIMITS
from comity.cpim.composition import Publication, compose_presence
from comity.cpim.presence import DEFAULT, PIDF, PresenceDocument
from comity.cpim.presence_rules import Permissions, PresenceRules, SubHandling, filter_document
from comity.cpim.watchers import WATCHER_LIMITS, WATCHERINFO, WatcherInfo
from comity.errors import LocalProtocolError, MalformedMessage

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
BOB = Address("pres", "bob", "example.com")
#: Reader, start tag of a document it reads, end tag, most octets.
READERS: dict[str, tuple[Callable[[bytes], object], bytes, bytes, int]] = {
    "pidf": (
        PresenceDocument.parse,
        f"<presence xmlns='{PIDF}' entity='pres:bob@example.com'>".encode(),
        b"</presence>",
        DEFAULT.document,
    ),
    "rules": (PresenceRules.parse, f"<ruleset xmlns='{COMMON_POLICY}'>".encode(), b"</ruleset>", RULE_LIMITS.octets),
    "winfo": (
        WatcherInfo.parse,
        f"<watcherinfo xmlns='{WATCHERINFO}' version='0' state='full'>".encode(),
        b"</watcherinfo>",
        WATCHER_LIMITS.octets,
    ),
}
LAUGHS = b"<!DOCTYPE x [<!ENTITY a 'ha'>" + b"".join(
    b"<!ENTITY %c '%s'>" % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9)
)
#: Name: (what stands before the root, what stands inside it, the hint of the error).
HOSTILE: dict[str, tuple[bytes, bytes, str]] = {
    "doctype": (b"<!DOCTYPE x>", b"", ""),
    "external subset": (b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'>", b"", ""),
    "external entity": (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>", b"<a>&e;</a>", ""),
    "parameter entity": (b"<!DOCTYPE x [<!ENTITY % p SYSTEM 'http://127.0.0.1/'> %p;]>", b"", ""),
    "billion laughs": (LAUGHS + b"]>", b"<a>&j;</a>", ""),
    "quadratic blowup": (b"<!DOCTYPE x [<!ENTITY a '" + b"a" * 20_000 + b"'>]>", b"<a>" + b"&a;" * 5_000 + b"</a>", ""),
    "undefined entity": (b"", b"<a>&nbsp;</a>", ""),
    "XInclude": (b"", b"<i:include xmlns:i='http://www.w3.org/2001/XInclude' href='file:///etc/passwd'/>", ""),
    "instruction": (b"", b"<?xml-stylesheet href='x'?>", ""),
    "instruction in front": (b"<?php x ?>", b"", ""),
    "undeclared prefix": (b"", b"<x:a/>", ""),
    "NUL": (b"", b"<a>\0</a>", ""),
    "overlong UTF-8": (b"", b"<a>\xc0\xbc</a>", ""),
    "surrogate in UTF-8": (b"", b"<a>\xed\xa0\x80</a>", ""),
    "unclosed": (b"", b"<a>", ""),
    "twice the attribute": (b"", b"<a b='' b=''/>", ""),
    "deep": (b"", b"<a>" * 100 + b"</a>" * 100, "size"),
    "100,000 elements": (b"", b"<a/>" * 100_000, "size"),
    "attributes": (b"", b"<a " + b" ".join(b"a%d=''" % n for n in range(100)) + b"/>", "size"),
    "namespaces": (b"", b"<a " + b" ".join(b"xmlns:a%d='u:%d'" % (n, n) for n in range(100)) + b"/>", "size"),
    "long name": (b"", b"<" + b"a" * 1000 + b"/>", "size"),
    "one long text": (b"", b"<a>" + b"x" * 2**21 + b"</a>", "size"),
    "one long attribute": (b"", b"<a b='" + b"x" * 2**21 + b"'/>", "size"),
    "one long comment": (b"", b"<!--" + b"x" * 2**21 + b"-->", "size"),
}


@pytest.mark.parametrize("row", list(HOSTILE))
@pytest.mark.parametrize("reader", list(READERS))
def test_it_is_refused_and_costs_nothing(reader: str, row: str) -> None:
    """N-18, N-24, PRES-14: refused with a reason, in constant memory and time."""
    read, start, end, most = READERS[reader]
    before, inside, hint = HOSTILE[row]
    raw = b"<?xml version='1.0' encoding='UTF-8'?>" + before + start + inside + end
    if row == "unclosed":
        raw = raw.removesuffix(end)
    begun = time.thread_time()
    with pytest.raises(MalformedMessage) as caught:
        read(raw)
    assert time.thread_time() - begun < 0.2 + len(raw) / 2**22
    assert caught.value.hint == hint
    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage):
            read(raw)
        assert tracemalloc.get_traced_memory()[1] < 16 * most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32", "utf-7", "iso-8859-1", "cp037"])
@pytest.mark.parametrize("reader", list(READERS))
def test_no_other_encoding_is_read(reader: str, encoding: str) -> None:
    """N-18, PRES-1: whoever reads another one could read another document."""
    read, start, end, _ = READERS[reader]
    text = f"<?xml version='1.0' encoding='{encoding}'?>{start.decode()}{end.decode()}"
    with pytest.raises(MalformedMessage):
        read(text.encode(encoding))


def document(inner: str, entity: str = "pres:bob@example.com") -> PresenceDocument:
    return PresenceDocument.parse(f"<presence xmlns='{PIDF}' entity='{entity}'>{inner}</presence>".encode())


@pytest.mark.parametrize(
    "entity",
    ["pres:carol@example.com", "pres:bob@example.org", "sip:carol@example.com", "tel:+1212", "pres:bob@example.com@x"],
)
def test_a_document_about_somebody_else_is_never_composed(entity: str) -> None:
    """N-19: the service answers 403; what slips through is an error of ours, not presence."""
    view = document("<tuple id='a'><status><basic>open</basic></status></tuple>", entity)
    assert not view.is_about(BOB)
    with pytest.raises(LocalProtocolError):
        compose_presence(BOB, [Publication("k", view, NOON, NOON + timedelta(hours=1))], NOON)


@pytest.mark.parametrize(
    "when", ["9999-12-31T23:59:60Z", "9999-12-31T23:59:59-12:00", "2099-01-01T00:00:00+14:00", "0001-01-01T00:00:00Z"]
)
def test_no_timestamp_reaches_watchers_from_the_future(when: str) -> None:
    """N-22: and one that no clock can hold is none."""
    stamped = f"<tuple id='a'><status><basic>open</basic></status><timestamp>{when}</timestamp></tuple>"
    publication = Publication("k", document(stamped), NOON, NOON + timedelta(hours=1))
    composed = compose_presence(BOB, [publication], NOON).document
    assert composed.date_time is not None
    assert composed.date_time <= NOON


def test_a_location_is_not_shown_by_default() -> None:
    """N-23: with every part granted but no attribute."""
    location = (
        "<geopriv xmlns='urn:ietf:params:xml:ns:pidf:geopriv10'><location-info>61.0 7.1</location-info></geopriv>"
    )
    view = document(f"<tuple id='a'><status><basic>open</basic>{location}</status>{location}</tuple>{location}")
    everything = frozenset({("all", "")})
    shown = filter_document(view, Permissions(SubHandling.ALLOW, everything, everything, everything))
    assert b"61.0" not in shown.raw
    assert len(shown.tuples) == 1

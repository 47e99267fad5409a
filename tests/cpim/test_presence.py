"""Presence documents: strict where two readers could differ, patient where something is merely missing (PRES-*, N-18)."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from comity.cpim.address import Address
from comity.cpim.operations import MimeObject
from comity.cpim.presence import (
    DATA_MODEL,
    PIDF,
    PIDF_TYPE,
    BasicStatus,
    Note,
    PresenceDocument,
    PresenceLimits,
    is_understood,
)
from comity.errors import MalformedMessage

DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def document(inner: str = "", attributes: str = 'entity="pres:bob@example.com"', head: bytes = DECLARATION) -> bytes:
    return head + f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" {attributes}>{inner}</presence>'.encode()


def parse(inner: str = "", attributes: str = 'entity="pres:bob@example.com"') -> PresenceDocument:
    return PresenceDocument.parse(document(inner, attributes))


def one_tuple(inner: str, id: str = "a") -> str:
    return f'<tuple id="{id}">{inner}</tuple>'


OPEN = one_tuple("<status><basic>open</basic></status>")


class TestRoot:
    def test_raw_is_what_was_given(self) -> None:
        """PRES-13: the octets are kept, whatever the view says."""
        raw = document(OPEN)
        view = PresenceDocument.parse(raw)
        assert view.raw is raw
        assert view == PresenceDocument.parse(bytes(raw))
        assert view != PresenceDocument.parse(raw + b"\n")

    def test_no_tuple_is_valid_and_no_entity_is_not(self) -> None:
        """PRES-2."""
        view = parse()
        assert (view.tuples, view.date_time, view.flags) == ((), None, ())
        assert view.presentity == Address("pres", "bob", "example.com")
        for attributes in ("", 'entity=""', 'entity=" "', 'dm:entity="pres:bob@example.com"'):
            with pytest.raises(MalformedMessage, match="no entity"):
                parse(attributes=attributes)

    @pytest.mark.parametrize("entity", ["pres:bob@EXAMPLE.com", "sip:bob@example.com", "sips:bob@example.com;x=y"])
    def test_the_entity_is_read_under_any_scheme_and_kept_as_written(self, entity: str) -> None:
        """PRES-2: sip: is read too."""
        view = parse(attributes=f'entity="{entity}"')
        assert view.entity == entity
        assert view.presentity == Address("pres", "bob", "example.com")

    @pytest.mark.parametrize("entity", ["tel:+4712345678", "bob", "pres:bob", "mailto:bob@example.com"])
    def test_an_entity_that_is_no_address_names_nobody(self, entity: str) -> None:
        view = parse(attributes=f'entity="{entity}"')
        assert (view.entity, view.presentity) == (entity, None)
        assert "entity-not-an-address" in view.flags

    @pytest.mark.parametrize(
        "raw",
        [
            b"<presence entity='pres:a@b.example'/>",
            b"<presence xmlns='urn:ietf:params:xml:ns:pidf:' entity='pres:a@b.example'/>",
            b"<presence xmlns='jabber:client' entity='pres:a@b.example'/>",
            b"<tuple xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:a@b.example'/>",
        ],
    )
    def test_another_root_is_refused(self, raw: bytes) -> None:
        """PRES-2, X14: the namespace has no colon at its end."""
        with pytest.raises(MalformedMessage, match="root"):
            PresenceDocument.parse(raw)

    def test_namespaces_of_everything_in_it_are_named(self) -> None:
        view = parse(one_tuple("<status><x:a xmlns:x='urn:x'><y:b xmlns:y='urn:y'/></x:a></status>"))
        assert view.namespaces == {PIDF, "urn:x", "urn:y"}

    def test_a_document_without_timestamps_has_no_age(self) -> None:
        assert parse(OPEN).is_outdated(NOON) is False


class TestEncoding:
    """PRES-1: UTF-8 it is; the charset parameter beats the declaration."""

    def test_a_missing_declaration_is_read_and_flagged(self) -> None:
        assert PresenceDocument.parse(document(head=b"")).flags == ("no-declaration",)
        assert PresenceDocument.parse(document(head=b"<?xml version='1.0'?>")).flags == ("no-encoding",)
        assert PresenceDocument.parse(b"\xef\xbb\xbf" + document()).flags == ()

    def test_a_charset_parameter_beats_the_declaration(self) -> None:
        latin = document("<note>ž</note>", head=b"<?xml version='1.0' encoding='ISO-8859-1'?>")
        with pytest.raises(MalformedMessage, match="UTF-8"):
            PresenceDocument.parse(latin)
        obj = MimeObject.of(f'{PIDF_TYPE}; charset="UTF-8"', latin)
        assert PresenceDocument.of(obj).notes == (Note("ž"),)

    @pytest.mark.parametrize("charset", ["iso-8859-1", "utf-16", "us-ascii"])
    def test_another_charset_is_refused(self, charset: str) -> None:
        with pytest.raises(MalformedMessage, match="UTF-8"):
            PresenceDocument.parse(document("<note>ž</note>"), charset=charset)

    def test_a_transfer_encoding_is_taken_off(self) -> None:
        header = f"Content-Type: {PIDF_TYPE}\r\nContent-Transfer-Encoding: quoted-printable\r\n".encode()
        assert PresenceDocument.of(MimeObject(header, document().replace(b"=", b"=3D"))).raw == document()

    def test_another_type_is_refused(self) -> None:
        with pytest.raises(MalformedMessage, match="not application/pidf"):
            PresenceDocument.of(MimeObject.of("application/pidf-diff+xml", document()))


class TestTuple:
    def test_every_part_is_read(self) -> None:
        view = parse(
            one_tuple(
                "<status><basic>open</basic><x xmlns='urn:x'/></status><y xmlns='urn:y'/>"
                "<contact priority='0.021'> im:bob@example.com\n</contact><note xml:lang='cs'>žluť</note><note>hi</note>"
                "<timestamp>2026-11-23T13:00:00.5+01:00</timestamp>",
                "sg89ae",
            )
        )
        (only,) = view.tuples
        assert (only.id, only.basic_status, only.contact) == ("sg89ae", BasicStatus.OPEN, "im:bob@example.com")
        assert only.priority == Decimal("0.021")
        assert only.notes == (Note("žluť", "cs"), Note("hi"))
        assert only.timestamp == NOON.replace(microsecond=500_000)
        assert [e.name for e in only.status_extensions + only.extensions] == ["{urn:x}x", "{urn:y}y"]
        assert view.flags == ()

    def test_conflicting_tuples_stand_side_by_side(self) -> None:
        """PRES-3: two states with one contact are both kept."""
        inner = "<status><basic>{}</basic></status><contact>im:bob@example.com</contact>"
        view = parse(one_tuple(inner.format("open"), "a") + one_tuple(inner.format("closed"), "b"))
        assert [t.basic_status for t in view.tuples] == [BasicStatus.OPEN, BasicStatus.CLOSED]

    @pytest.mark.parametrize(
        "status",
        [
            "",
            "<basic/>",
            "<basic>Open</basic>",
            "<basic> open</basic>",
            "<basic>away</basic>",
            "<basic xmlns='u:x'>open</basic>",
        ],
    )
    def test_anything_but_open_and_closed_is_unknown(self, status: str) -> None:
        """PRES-5: unknown, not closed."""
        view = parse(one_tuple(f"<status>{status}</status>"))
        assert view.tuples[0].basic_status is None

    def test_a_basic_in_a_wrapper_is_not_read(self) -> None:
        """PRES-9: unknown elements are ignored with all their content."""
        wrapped = "<w:w xmlns:w='urn:w'><status><basic>open</basic></status><basic>open</basic></w:w>"
        view = parse(one_tuple(f"<status>{wrapped}</status>{wrapped}") + f"<w:w xmlns:w='urn:w'>{OPEN}</w:w>")
        assert [t.basic_status for t in view.tuples] == [None]

    def test_a_status_of_another_time_is_kept_and_not_read(self) -> None:
        """RFC 4481: what will be is no status; PRES-9."""
        timed = (
            "<t:timed-status xmlns:t='urn:ietf:params:xml:ns:pidf:timed-status' from='2026-11-24T12:00:00Z'>"
            "<basic>closed</basic></t:timed-status>"
        )
        (only,) = parse(one_tuple(f"<status><basic>open</basic></status>{timed}")).tuples
        assert only.basic_status is BasicStatus.OPEN
        assert [e.local for e in only.extensions] == ["timed-status"]

    def test_an_unknown_element_of_the_own_namespace_is_ignored(self) -> None:
        """PRES-9: an unrecognized local name too."""
        view = parse(
            one_tuple("<status><basic>open</basic><show>x</show></status><basic>closed</basic><new/>") + "<new/>"
        )
        assert (view.tuples[0].basic_status, view.tuples[0].extensions, view.extensions) == (BasicStatus.OPEN, (), ())

    def test_extensions_do_not_change_basic(self) -> None:
        """PRES-11, PRES-7: neither an activity nor a note says closed."""
        busy = "<dm:person id='p'><r:activities xmlns:r='urn:ietf:params:xml:ns:pidf:rpid'><r:busy/></r:activities></dm:person>"
        view = parse(one_tuple("<status><basic>open</basic></status><note>offline</note>") + busy)
        assert view.tuples[0].basic_status is BasicStatus.OPEN

    @pytest.mark.parametrize("text", ["0", "0.", "0.021", "0.5", "1", "1.00", "1.000", " 0.5 "])
    def test_priorities_are_kept_exactly(self, text: str) -> None:
        """PRES-6."""
        view = parse(one_tuple(f"<contact priority='{text}'>im:a@b.example</contact>"))
        assert view.tuples[0].priority == Decimal(text.strip().rstrip("."))
        assert "bad-priority" not in view.flags

    @pytest.mark.parametrize("text", ["1.5", "-0.1", "0.0001", "1.001", "x", "NaN", "1e0", "+0.5", "٠", "00.5", ".5"])
    def test_other_priorities_are_as_absent(self, text: str) -> None:
        """PRES-6."""
        view = parse(one_tuple(f"<contact priority='{text}'>im:a@b.example</contact>"))
        assert (view.tuples[0].priority, view.tuples[0].contact) == (None, "im:a@b.example")
        assert "bad-priority" in view.flags

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "2026-11-23t12:00:00Z",
            "2026-11-23T12:00:00z",
            "2026-11-23T12:00:00",
            "0000-01-01T00:00:00Z",
            "yesterday",
        ],
    )
    def test_a_bad_timestamp_is_as_absent(self, text: str) -> None:
        """PRES-8: RFC 3339 with capital T and Z."""
        view = parse(one_tuple(f"<timestamp>{text}</timestamp>"))
        assert view.date_time is None
        assert "bad-timestamp" in view.flags

    def test_what_is_missing_or_out_of_order_is_flagged_and_the_rest_used(self) -> None:
        """PRES-18: invalid but readable documents yield what can be read."""
        view = parse(
            "<note>away</note><tuple><note>n</note><contact>im:a@b.example</contact>"
            "<status><x xmlns='u:x'/><basic>closed</basic></status></tuple><tuple id='b'/>"
        )
        assert set(view.flags) == {"out-of-order", "missing-id", "missing-status"}
        first, second = view.tuples
        assert (first.basic_status, first.contact, first.notes) == (BasicStatus.CLOSED, "im:a@b.example", (Note("n"),))
        assert (second.id, second.basic_status) == ("b", None)

    @pytest.mark.parametrize(
        ("inner", "reason"),
        [
            (OPEN + OPEN, "one id"),
            (OPEN + "<dm:person id='a'/>", "one id"),
            ("<dm:device id='a'/><dm:person id='a'/>", "one id"),
            (
                one_tuple("<status><basic>open</basic></status><status><basic>closed</basic></status>"),
                "status stands twice",
            ),
            (one_tuple("<status><basic>open</basic><basic>closed</basic></status>"), "basic stands twice"),
            (one_tuple("<contact>im:a@b.example</contact><contact>im:c@d.example</contact>"), "contact stands twice"),
            (one_tuple("<timestamp>2026-11-23T12:00:00Z</timestamp><timestamp/>"), "timestamp stands twice"),
            (
                "<dm:device id='d'><dm:deviceID>u:1</dm:deviceID><dm:deviceID>u:2</dm:deviceID></dm:device>",
                "deviceID stands",
            ),
        ],
    )
    def test_what_two_readers_could_read_differently_is_malformed(self, inner: str, reason: str) -> None:
        """T5 of the threat model; duplicate ids are forbidden by RFC 3863 section 4.1.2."""
        with pytest.raises(MalformedMessage, match=reason):
            parse(inner)


class TestLanguages:
    def test_a_note_is_in_the_nearest_language(self) -> None:
        """PRES-7, I18N-1: xml:lang of an enclosing element counts, and "" undoes it."""
        view = parse(
            "<tuple id='a' xml:lang='fr'><note>un</note><note xml:lang='de'>zwei</note></tuple><note>three</note>"
            "<note xml:lang=''>?</note><dm:person id='p'><dm:note>four</dm:note><note>not one</note></dm:person>",
            attributes='entity="pres:a@b.example" xml:lang="en"',
        )
        assert view.tuples[0].notes == (Note("un", "fr"), Note("zwei", "de"))
        assert view.notes == (Note("three", "en"), Note("?"))
        assert view.persons[0].notes == (Note("four", "en"),)


class TestDataModel:
    def test_root_notes_belong_to_persons_without_their_own(self) -> None:
        """PRES-15."""
        view = parse("<note>root</note><dm:person id='p1'><dm:note>own</dm:note></dm:person><dm:person id='p2'/>")
        assert [view.person_notes(person) for person in view.persons] == [(Note("own"),), (Note("root"),)]

    def test_the_newest_timestamp_is_the_documents(self) -> None:
        """PRES-12: of tuples, persons and devices alike."""
        view = parse(
            one_tuple("<timestamp>2026-11-23T11:00:00Z</timestamp>")
            + "<dm:device id='d'><dm:timestamp>2026-11-23T13:00:00+01:00</dm:timestamp></dm:device>"
            + "<dm:person id='p'><dm:timestamp>2026-11-23T10:00:00Z</dm:timestamp></dm:person>"
            + "<x xmlns='u:x'><timestamp xmlns='urn:ietf:params:xml:ns:pidf'>2030-01-01T00:00:00Z</timestamp></x>"
        )
        assert view.date_time == NOON

    def test_an_older_document_than_the_last_is_outdated(self) -> None:
        """PRES-12."""
        view = parse(one_tuple("<timestamp>2026-11-23T12:00:00Z</timestamp>"))
        assert view.is_outdated(NOON.replace(microsecond=1))
        assert not view.is_outdated(NOON)
        assert not view.is_outdated(None)


class TestMustUnderstand:
    """PRES-10."""

    KNOWN = frozenset(["{u:x}a", "{u:x}b", f"{{{PIDF}}}mustUnderstand"])

    @pytest.mark.parametrize(
        ("inner", "usable"),
        [
            ("<x:b/>", True),
            ("<x:b p:mustUnderstand='1'/>", True),
            ("<x:c/>", True),
            ("<x:c p:mustUnderstand='0'/>", True),
            ("<x:c mustUnderstand='1'/>", True),  # an attribute of x's own
            ("<x:c p:mustUnderstand='1'/>", False),
            ("<x:c p:mustUnderstand='true'/>", False),
            ("<x:b><x:c p:mustUnderstand='1'/></x:b>", False),
            ("<x:c><x:d p:mustUnderstand='1'/></x:c>", True),  # inside an ignored element it counts for nothing
        ],
    )
    def test_an_unknown_element_marked_so_voids_its_extension(self, inner: str, usable: bool) -> None:
        view = parse(
            one_tuple(f"<status><basic>open</basic><x:a xmlns:x='u:x' xmlns:p='{PIDF}'>{inner}</x:a></status>")
        )
        (extension,) = view.tuples[0].status_extensions
        assert is_understood(extension, self.KNOWN) is usable
        assert view.tuples[0].basic_status is BasicStatus.OPEN

    def test_an_unknown_extension_is_not_understood(self) -> None:
        (extension,) = parse("<x xmlns='u:y'/>").extensions
        assert not is_understood(extension, self.KNOWN)


class TestHostile:
    """PRES-14, N-18: one door to XML, and what it refuses."""

    @pytest.mark.parametrize(
        "raw",
        [
            b"",
            b" ",
            b"presence",
            b"\xff\xfe<\0?\0",
            document()[:-1],
            document() + b"<x/>",
            document("<note>\x00</note>"),
            document("<note>&#0;</note>"),
            document(head=b"<!DOCTYPE presence [<!ENTITY a 'b'>]>"),
            document(head=b"<!DOCTYPE presence SYSTEM 'http://example.com/pidf.dtd'>"),
            document("<?php phpinfo(); ?>"),
            document(head=b"<?xml-stylesheet href='x'?>"),
            document("<note>&lol;</note>"),
            document("<note>").replace(b"<note>", b"<note>\xc3\x28</note>"),
            document("<x:y/>"),
            document('<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/>'),
            document(head=b"<?xml version='1.1'?>"),
            document(head=b"<?xml version='1.0' encoding='UTF-7'?>"),
        ],
    )
    def test_it_is_refused(self, raw: bytes) -> None:
        with pytest.raises(MalformedMessage) as caught:
            PresenceDocument.parse(raw)
        assert caught.value.hint == ""

    def test_the_error_says_where(self) -> None:
        raw = document("<note>&lol;</note>")
        with pytest.raises(MalformedMessage) as caught:
            PresenceDocument.parse(raw)
        assert caught.value.offset == raw.index(b"&lol;")

    def test_billion_laughs_cost_nothing(self) -> None:
        entities = "".join(f"<!ENTITY l{n} '{f'&l{n - 1};' * 10}'>" for n in range(1, 10))
        bomb = document("<note>&l9;</note>", head=f"<!DOCTYPE x [<!ENTITY l0 'lol'>{entities}]>".encode())
        begun = time.thread_time()
        with pytest.raises(MalformedMessage):
            PresenceDocument.parse(bomb)
        assert time.thread_time() - begun < 0.1

    @pytest.mark.parametrize(
        "raw",
        [
            document("<note>" + "x" * 64 * 1024 + "</note>"),
            document("<a>" * 40 + "</a>" * 40),
            document("<a/>" * 2100),
            document("<a " + " ".join(f"b{n}=''" for n in range(40)) + "/>"),
            document("<a " + " ".join(f"xmlns:b{n}='u:{n}'" for n in range(70)) + "/>"),
        ],
    )
    def test_too_much_is_too_much(self, raw: bytes) -> None:
        """CONSTR-1."""
        with pytest.raises(MalformedMessage) as caught:
            PresenceDocument.parse(raw)
        assert (caught.value.hint, caught.value.offset is None) == ("size", False)

    @pytest.mark.parametrize(
        ("limits", "inner", "more"),
        [
            (PresenceLimits(document=len(document("<a/>"))), "<a/>", "<a />"),
            (PresenceLimits(depth=2), "<a/>", "<a><b/></a>"),
            (PresenceLimits(elements=2), "<a/>", "<a/><a/>"),
            (PresenceLimits(attributes=1), "<a b=''/>", "<a b='' c=''/>"),
        ],
    )
    def test_each_limit_holds_exactly(self, limits: PresenceLimits, inner: str, more: str) -> None:
        """CONSTR-1: at the limit it is read, one more is refused."""
        assert PresenceDocument.parse(document(inner), limits=limits).tuples == ()
        with pytest.raises(MalformedMessage) as caught:
            PresenceDocument.parse(document(more), limits=limits)
        assert caught.value.hint == "size"

    def test_the_largest_document_is_read_quickly(self) -> None:
        """G7: 5 ms when measured here, whatever fills the 64 KiB."""
        for filler in (OPEN.replace('id="a"', ""), "<a b='c' d='e'/>", "<note>x</note>", "&amp;", "<!-- -->"):
            raw = document(filler * min(60_000 // len(filler), 600))
            begun = time.thread_time()
            PresenceDocument.parse(raw)
            assert time.thread_time() - begun < 0.2

"""Presence documents as stanzas, only what changed: bindings/xmpp/notices.py (T5, T9, GW-16, PRES-5, PRES-12)."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.e2e import E2E, OCTETS, unwrap_entity, unwrap_octets
from comity.bindings.xmpp.notices import Notice, content_to_stanzas, current_stanzas
from comity.bindings.xmpp.presence import stanza_to_statement
from comity.cpim.address import Address
from comity.cpim.composition import COMPOSED_TYPE
from comity.cpim.operations import MimeObject
from comity.cpim.presence import DATA_MODEL, PIDF, PresenceDocument
from comity.cpim.presence_state import offline_document, priority_to_number
from comity.cpim.rpid import RPID
from comity.service.presence.interfaces import Content, Statement
from comity.xml import XML_LANG, Element, parse_document

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ROMEO = Address.parse("pres:romeo@example.net")
TO = "juliet@example.com/balcony"


def told(
    inner: str, *, natives: Mapping[str, tuple[str, bytes]] | None = None, whole: MimeObject | None = None
) -> Content:
    head = f'<presence xmlns="{PIDF}" xmlns:dm="{DATA_MODEL}" xmlns:r="{RPID}" entity="pres:romeo@example.net">'
    return content(PresenceDocument.parse(f"{head}{inner}</presence>".encode()), natives=natives, whole=whole)


def content(
    view: PresenceDocument | None,
    *,
    natives: Mapping[str, tuple[str, bytes]] | None = None,
    whole: MimeObject | None = None,
) -> Content:
    raw = view.raw if view is not None else b""
    return Content(ROMEO, view, MimeObject.of(COMPOSED_TYPE, raw), whole, natives or {})


def one(basic: str = "open", id: str = "ID-orchard", status: str = "", more: str = "") -> str:
    said = f"<basic>{basic}</basic>" if basic else ""
    return f"<tuple id='{id}'><status>{said}{status}</status>{more}</tuple>"


def show(value: str) -> str:
    return f"<show xmlns='jabber:client'>{value}</show>"


def doing(name: str) -> str:
    return f"<dm:person id='p'><r:activities><r:{name}/></r:activities></dm:person>"


def stanza(inner: str = "", kind: str = "", sender: str = "romeo@example.net/orchard") -> Element:
    type = f" type='{kind}'" if kind else ""
    octets = f"<presence xmlns='jabber:client' from='{sender}' to='{TO}'{type}>{inner}</presence>"
    return parse_document(octets.encode())


def written(new: Content, old: Content | None = None) -> list[Element]:
    return [notice.element(TO) for notice in content_to_stanzas(new, old, NOON)]


class TestTableT9:
    @pytest.mark.parametrize(
        ("document", "expected"),
        [
            (one(), stanza()),
            (one(status=show("chat")), stanza("<show>chat</show>")),
            (one(status=show("away")), stanza("<show>away</show>")),
            (one(status=show("xa")), stanza("<show>xa</show>")),
            (one(status=show("dnd")), stanza("<show>dnd</show>")),
            (one(status=show("lurking")), stanza()),
            (one() + doing("away"), stanza("<show>away</show>")),
            (one() + doing("vacation"), stanza("<show>xa</show>")),
            (one() + doing("meeting"), stanza("<show>dnd</show>")),
            (one() + doing("playing"), stanza()),
            (one(status=show("chat")) + doing("busy"), stanza("<show>chat</show>")),
        ],
    )
    def test_every_row_for_who_is_there(self, document: str, expected: Element) -> None:
        assert written(told(document)) == [expected]

    def test_offline_is_unavailable_to_who_saw_somebody(self) -> None:
        assert written(told(one("closed")), told(one())) == [stanza("", "unavailable")]
        assert written(told(one("closed", status=show("chat")) + doing("away")), told(one())) == [
            stanza("", "unavailable")
        ]

    def test_offline_is_nothing_to_who_saw_nobody(self) -> None:
        assert written(told(one("closed"))) == []

    def test_unknown_is_nothing(self) -> None:
        """PRES-5."""
        assert written(told(one("", status=show("away")))) == []
        assert written(told(one("Open", status=show("away")))) == []
        assert written(told(one("", status=show("away"))), told(one())) == []

    def test_what_became_unknown_can_still_go(self) -> None:
        unknown = told(one("", status=show("away")))
        assert written(told(one("closed")), unknown) == [stanza("", "unavailable")]
        assert written(told(one("closed", "ID-x")), unknown) == [stanza("", "unavailable")]

    def test_polite_block_looks_like_going_offline(self) -> None:
        """ACL-11."""
        blocked = content(offline_document(ROMEO, NOON))
        assert written(blocked) == []
        assert written(blocked, told(one())) == [stanza("", "unavailable")]
        assert written(content(offline_document(ROMEO, NOON + timedelta(hours=1))), blocked) == []

    def test_watcher_information_is_nothing(self) -> None:
        assert written(content(None)) == []


class TestExamplesOfRfc3922:
    """Section 5.2: PIDF to XMPP."""

    OLD = "<im xmlns='urn:ietf:params:xml:ns:pidf:im'>{}</im>"

    def test_5_2_1_the_tuple_id_is_the_resource(self) -> None:
        assert [s.get("from") for s in written(told(one(id="balcony")))] == ["romeo@example.net/balcony"]

    def test_5_2_9_open_and_closed(self) -> None:
        assert written(told(one(id="orchard"))) == [stanza()]
        assert written(told(one("closed", "orchard")), told(one(id="orchard"))) == [stanza("", "unavailable")]

    def test_5_2_10_extended_status_and_5_2_11_note(self) -> None:
        status = self.OLD.format("busy")
        assert written(told(one(id="orchard", status=status))) == [stanza("<show>dnd</show>")]
        assert written(told(one(id="orchard", status=status, more="<note>Wooing Juliet</note>"))) == [
            stanza("<show>dnd</show><status>Wooing Juliet</status>")
        ]

    def test_5_2_11_notes_without_tuples_are_not_mapped(self) -> None:
        assert written(told("<note>Wooing Juliet</note>"), told(one())) == [stanza("", "unavailable")]
        assert written(told("<note>Wooing Juliet</note>")) == []

    def test_5_2_12_and_5_2_14_contact_and_timestamp_are_not_passed(self) -> None:
        more = "<contact>im:romeo@example.net</contact><timestamp>2003-12-09T23:53:11Z</timestamp>"
        assert written(told(one(id="orchard", more=more))) == [stanza()]

    @pytest.mark.parametrize(("given", "number"), [("0", 0), ("0.001", 1), ("0.007", 1), ("0.008", 2), ("0.999", 126)])
    def test_5_2_13_priority(self, given: str, number: int) -> None:
        more = f"<contact priority='{given}'>im:romeo@example.net</contact>"
        assert written(told(one(more=more))) == [stanza(f"<priority>{number}</priority>")]

    def test_6_3_2_zero_tuples_are_of_the_bare_jid(self) -> None:
        """GW-16, GW-14: nothing is known of any device."""
        assert written(told("")) == [stanza("", "unavailable", "romeo@example.net")]
        assert written(told(""), told("")) == []
        assert written(told(""), told(one())) == [stanza("", "unavailable")]


class TestExamplesOfRfc8048:
    def test_6_3_sip_to_xmpp(self) -> None:
        """Examples 20 and 21; ours comes from the resource that was told before."""
        last = told(one(id="ID-dr4hcr0st3lup4c"))
        assert written(told(one("closed", "ID-dr4hcr0st3lup4c")), last) == [
            stanza("", "unavailable", "romeo@example.net/dr4hcr0st3lup4c")
        ]


class TestDifference:
    """GW-16."""

    def test_one_of_three_changed_is_one_stanza(self) -> None:
        before = told(one(id="ID-a") + one(id="ID-b") + one(id="ID-c"))
        after = told(one(id="ID-a") + one(id="ID-b", status=show("away")) + one(id="ID-c"))
        assert written(after, before) == [stanza("<show>away</show>", sender="romeo@example.net/b")]

    def test_a_new_time_alone_is_nothing(self) -> None:
        before = told(one(more="<timestamp>2026-11-23T11:00:00Z</timestamp>"))
        assert written(told(one(more="<timestamp>2026-11-23T11:59:00Z</timestamp>")), before) == []

    def test_a_tuple_that_is_gone_is_unavailable_with_its_parting_words(self) -> None:
        before = told(one(id="ID-a") + one(id="ID-b"))
        parting = {"ID-a": ("xmpp", b"<status>bye</status>")}
        after = told(one(id="ID-b"), natives=parting)
        assert written(after, before) == [stanza("<status>bye</status>", "unavailable", "romeo@example.net/a")]

    def test_who_is_gone_and_was_not_there_is_not_mentioned(self) -> None:
        assert written(told(one(id="ID-b")), told(one("closed", "ID-a") + one(id="ID-b"))) == []

    def test_parting_words_of_another_protocol_are_not_written(self) -> None:
        after = told(one(id="ID-b"), natives={"ID-a": ("sip", b"Reason: bye")})
        assert written(after, told(one(id="ID-a") + one(id="ID-b"))) == [
            stanza("", "unavailable", "romeo@example.net/a")
        ]

    def test_what_changed_in_native_children_alone_is_told(self) -> None:
        caps = "<c xmlns='http://jabber.org/protocol/caps' ver='2'/>"
        after = told(one(), natives={"ID-orchard": ("xmpp", caps.encode())})
        assert written(after, told(one())) == [stanza(caps)]

    def test_an_older_document_than_the_last_tells_nothing(self) -> None:
        """PRES-12."""
        last = told(one(more="<timestamp>2026-11-23T11:00:00Z</timestamp>"))
        older = told(one("closed", more="<timestamp>2026-11-23T10:59:59Z</timestamp>"))
        assert written(older, last) == []

    def test_services_of_others_are_not_the_presentitys(self) -> None:
        """RFC 4480 section 3.9."""
        assistant = one(id="ID-b", more="<r:relationship><r:assistant/></r:relationship>")
        assert [s.get("from") for s in written(told(one() + assistant))] == ["romeo@example.net/orchard"]


class TestResources:
    def test_an_id_that_is_no_resource_gets_one(self) -> None:
        (made,) = written(told(one(id="x" * 1100)))
        assert len(made.get("from")) == len("romeo@example.net/") + 16
        assert written(told(one(id="x" * 1100))) == [made]

    def test_two_ids_of_one_resource_stay_two(self) -> None:
        for ids in (("ID-a", "a"), ("a", "ID-a")):
            senders = [s.get("from") for s in written(told("".join(one(id=id) for id in ids)))]
            assert senders[0] == "romeo@example.net/a"
            assert len(set(senders)) == 2

    def test_hex_coded_ids_come_back(self) -> None:
        """X18."""
        assert [s.get("from") for s in written(told(one(id="IDX-6d792070686f6e65")))] == ["romeo@example.net/my phone"]

    def test_an_address_that_is_no_jid_is_not_written(self) -> None:
        view = PresenceDocument.parse(f'<presence xmlns="{PIDF}" entity="pres:a b@x.test">{one()}</presence>'.encode())
        strange = Content(Address("pres", "a\u2028b", "x.test"), view, MimeObject.of(COMPOSED_TYPE, view.raw))
        assert content_to_stanzas(strange, None, NOON) == ()
        assert current_stanzas(strange, NOON) == ()


class TestNotes:
    def test_each_language_stands_once(self) -> None:
        notes = "<note xml:lang='en'>a</note><note xml:lang='EN'>b</note><note xml:lang='de'>c</note><note/>"
        assert written(told(one(more=notes))) == [
            stanza("<status xml:lang='en'>a</status><status xml:lang='de'>c</status>")
        ]

    def test_who_is_away_since_when_is_told(self) -> None:
        """XEP-0319 and RFC 4480 section 3.14."""
        more = "<r:user-input last-input='2026-11-23T11:30:00Z'>idle</r:user-input>"
        idle = "<idle xmlns='urn:xmpp:idle:1' since='2026-11-23T11:30:00Z'/>"
        assert written(told(one(more=more))) == [stanza(idle)]
        assert written(told(one(more="<r:user-input>idle</r:user-input>"))) == [stanza()]


class TestProbes:
    """XMPP-13."""

    def test_every_available_resource_is_told(self) -> None:
        found = current_stanzas(told(one(id="ID-a") + one("closed", "ID-b") + one(id="ID-c")), NOON)
        assert [n.sender for n in found] == ["romeo@example.net/a", "romeo@example.net/c"]

    def test_else_one_unavailable_of_the_account(self) -> None:
        (only,) = current_stanzas(told(one("closed", more="<note>gone</note>")), NOON)
        assert only.element(TO) == stanza("<status>gone</status>", "unavailable", "romeo@example.net")
        (empty,) = current_stanzas(told(""), NOON)
        assert empty.element(TO) == stanza("", "unavailable", "romeo@example.net")

    def test_what_is_unknown_stays_so(self) -> None:
        assert current_stanzas(told(one("", status=show("away"))), NOON) == ()


WHOLE = MimeObject.of("multipart/signed; boundary=b", b"--b\r\n\r\nx\r\n--b--\r\n")
BINARY = MimeObject.of("application/pkcs7-mime", b"\x00\xff")


class TestWhole:
    """SEED-46: the presentity's own signed object, for those who take it."""

    def test_it_stands_in_the_first_stanza(self) -> None:
        (notice,) = content_to_stanzas(told(one(), whole=WHOLE), None, NOON, takes=frozenset({E2E, "urn:x"}))
        (child,) = notice.element(TO).elements()
        assert unwrap_entity(child) == WHOLE.entity

    def test_who_does_not_take_it_gets_the_rest(self) -> None:
        assert written(told(one(), whole=WHOLE)) == [stanza()]

    def test_what_xml_cannot_hold_goes_as_base64_or_not_at_all(self) -> None:
        both = content_to_stanzas(told(one(), whole=BINARY), None, NOON, takes=frozenset({E2E, OCTETS}))
        (child,) = both[0].element(TO).elements()
        assert unwrap_octets(child) == BINARY.entity
        (plain,) = content_to_stanzas(told(one(), whole=BINARY), None, NOON, takes=frozenset({E2E}))
        assert plain.element(TO) == stanza()

    def test_a_new_object_about_the_same_is_told(self) -> None:
        takes = frozenset({E2E})
        before, after = told(one()), told(one(), whole=WHOLE)
        (notice,) = content_to_stanzas(after, before, NOON, takes=takes)
        assert notice.sender == "romeo@example.net/orchard"
        assert content_to_stanzas(told(one(), whole=WHOLE), after, NOON, takes=takes) == ()
        (closed,) = content_to_stanzas(told(one("closed"), whole=WHOLE), None, NOON, takes=takes)
        assert closed.element(TO).get("type") == "unavailable"


class TestWrittenOnce:
    def test_a_thousand_watchers_share_one_encoding(self) -> None:
        before, after = told(one()), told(one(status=show("away")))
        first = content_to_stanzas(after, before, NOON)
        assert all(content_to_stanzas(after, before, NOON) is first for _ in range(1000))
        assert first[0].octets(b"a@b.test/c") == (
            b"<presence to='a@b.test/c' from='romeo@example.net/orchard'><show>away</show></presence>"
        )

    def test_what_was_told_before_is_not_kept_for_it(self) -> None:
        first = told(one())
        gone = weakref.ref(first)
        second = told(one(status=show("away")))
        assert len(content_to_stanzas(second, first, NOON)) == 1
        del first
        gc.collect()
        assert gone() is None
        other = told(one(status=show("xa")))
        assert len(content_to_stanzas(second, other, NOON)) == 1
        assert content_to_stanzas(second, told(one(status=show("away"))), NOON) == ()

    def test_an_address_is_escaped(self) -> None:
        (notice,) = content_to_stanzas(told(one()), None, NOON)
        assert notice.element("o'brien&co@x.test/<a>").get("to") == "o'brien&co@x.test/<a>"

    def test_the_slot_is_the_sender(self) -> None:
        assert Notice("a@b/c", b"", True).slot == "presence a@b/c"


# --- both ways --------------------------------------------------------------------------------------------------------

TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"), min_size=1
)
LANGUAGES = st.sampled_from(["", "en", "de-AT", "x-klingon"])


@given(
    value=st.sampled_from(["", "chat", "away", "xa", "dnd"]),
    texts=st.dictionaries(LANGUAGES, TEXT, max_size=3),
    priority=st.none() | st.integers(-128, 127),
    idle=st.none() | st.datetimes(max_value=datetime(2026, 11, 23), timezones=st.just(UTC)),
    resource=st.text("abcXYZ019 ._-é/@", min_size=1, max_size=20).filter(lambda text: text.strip() == text),
)
def test_what_one_says_in_xmpp_is_what_another_hears_there(
    value: str, texts: dict[str, str], priority: int | None, idle: datetime | None, resource: str
) -> None:
    """T5, T9: stanza, statement, document, stanza."""
    children: list[Element | str] = [Element("{jabber:client}show", {}, [value])] if value else []
    for language, text in texts.items():
        children.append(Element("{jabber:client}status", {XML_LANG: language} if language else {}, [text]))
    if priority is not None and priority >= 0:
        children.append(Element("{jabber:client}priority", {}, [str(priority)]))
    if idle is not None and idle.year >= 1000:
        since = idle.strftime("%Y-%m-%dT%H:%M:%SZ")
        children.append(Element("{urn:xmpp:idle:1}idle", {"since": since}))
    if priority is not None and priority < 0:
        children.append(Element("{jabber:client}priority", {}, [str(priority)]))
    sent = Element("{jabber:client}presence", {"from": f"romeo@example.net/{resource}"}, children)
    said = stanza_to_statement(sent, resource, NOON)
    assert isinstance(said, Statement)
    (notice,) = content_to_stanzas(content(said.document, natives=said.natives), None, NOON)
    assert notice.element(TO) == Element(sent.name, {**sent.attributes, "to": TO}, sent.children)


@given(st.decimals(0, 1, places=3))
def test_every_priority_of_a_document_makes_a_number(given_priority: Decimal) -> None:
    more = f"<contact priority='{given_priority}'>im:romeo@example.net</contact>"
    (made,) = written(told(one(more=more)))
    number = int(made.children[0].text) if isinstance(made.children[0], Element) else -1
    assert number == priority_to_number(given_priority)
    assert 0 <= number <= 127

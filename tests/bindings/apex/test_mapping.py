"""Data to operations and back: T1, T2, T6, GW-1, GW-8 (``bindings/apex/mapping.py``)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.elements import (
    Content,
    Data,
    DataHopping,
    DataTiming,
    Error,
    Inline,
    Option,
    Originator,
    Part,
    Recipient,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.mapping import Incoming, data_to_operations, operation_to_data
from comity.bindings.apex.options import DATA_HOPPING, DATA_TIMING, HISTORY, PROTECTION, STATUS_REQUEST, history_option
from comity.bindings.apex.report import Wanted
from comity.bindings.apex.wire import read_message, read_option_content, write_message, write_option_content
from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.native import wrap
from comity.cpim.operations import HistoryEntry, MessageOperation, MimeObject, Reason, Requirement, Response

WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICE, BOB = Endpoint.parse("alice@a.test"), Endpoint.parse("bob@a.test")
GIF = Part(b"Content-Type: image/gif\r\nContent-Description: a  dot\r\n", b"GIF89a\x00\r\n\xff", "2@example.com")


def cpim(text: bytes = b"hello\xff") -> MimeObject:
    return wrap(ALICE.to_address(), BOB.to_address(), text, "text/plain", when=WHEN, message_id="m1")


def whole(thing: MimeObject | None = None) -> Part:
    thing = thing or cpim()
    return Part(thing.header_block, thing.octets, "1@example.com")


def timing(**values: int | bool) -> Option:
    content = write_option_content(DataTiming(**values))  # type: ignore[arg-type]  # the test names its fields
    return Option(DATA_TIMING, target_hop="all", must_understand=True, trans_id=86, content=content)


def hopping(most: int, *, report_errors: bool = False, raw: bytes = b"") -> Option:
    content = raw or write_option_content(DataHopping(most, report_errors))
    return Option(DATA_HOPPING, target_hop="all", must_understand=True, trans_id=87, content=content)


def data(content: Content, *options: Option, to: tuple[Recipient, ...] = (Recipient(BOB),)) -> Data:
    return Data(Originator(ALICE), to, content, options)


def read(element: Data, *, is_relay: bool = False) -> list[Incoming] | Error:
    counter = itertools.count()
    return data_to_operations(
        element,
        when=WHEN,
        new_id=lambda: f"t{next(counter)}",
        new_message_id=lambda: f"m{next(counter)}",
        serves=lambda domain: domain == "a.test",
        is_relay=is_relay,
    )


def operation(element: Data, *, is_relay: bool = False) -> MessageOperation:
    found = read(element, is_relay=is_relay)
    assert isinstance(found, list), found
    assert isinstance(found[0].operation, MessageOperation), found
    return found[0].operation


def out(
    op: MessageOperation, *, age: float = 0.0, is_final: bool = True, ids: Callable[[], int] = lambda: 5
) -> Data | Response:
    return operation_to_data(
        op, recipient=BOB, delivery_id="d1", domain="a.test", age=age, new_trans_id=ids, is_final=is_final
    )


def sent(op: MessageOperation, **named: object) -> Data:
    made = out(op, **named)  # type: ignore[arg-type]  # passed through
    assert isinstance(made, Data), made
    again = read_message(write_message(made))
    assert again == made
    return made


class TestContent:
    """T6 row "content", GW-1, APEX-10, APEX-11."""

    def test_an_object_is_carried_as_it_is(self) -> None:
        thing = cpim()
        op = operation(data(whole(thing)))
        assert (op.object.header_block, op.object.octets) == (thing.header_block, thing.octets)
        assert not op.is_wrapped
        assert sent(op).content == whole(thing)

    @pytest.mark.parametrize(
        "media", ["application/pkcs7-mime; smime-type=signed-data", "multipart/encrypted; boundary=x"]
    )
    def test_a_secured_entity_is_never_wrapped(self, media: str) -> None:
        part = Part(f"Content-Type: {media}\r\n".encode(), b"\x30\x80", "s@x")
        op = operation(data(part))
        assert op.object == MimeObject(part.header_block, part.octets)
        assert sent(op).content == part

    def test_anything_else_is_wrapped_once_and_unwrapped_for_apex(self) -> None:
        op = operation(data(GIF))
        view = CpimMessage.parse(op.object.octets)
        assert op.is_wrapped
        assert (op.object.media_type, view.content, view.message_id) == ("message/cpim", GIF.octets, "m0")
        assert b"Content-Type: image/gif" in view.content_header_block
        assert sent(op).content == GIF

    @given(st.binary(max_size=300))
    def test_bare_octets_and_headers_come_back_equal(self, octets: bytes) -> None:
        part = Part(b"X-Odd: \xc3\xa4  b\r\nContent-Type: a/b;\r\n c=d\r\n", octets, "3@x")
        assert sent(operation(data(part))).content == part

    def test_an_inline_element_is_wrapped_as_xml_and_comes_back_inline(self) -> None:
        inline = Inline("<note a='1'>\n ä</note>".encode(), "Stuff")
        op = operation(data(inline))
        assert CpimMessage.parse(op.object.octets).content == inline.octets
        assert sent(op).content == inline

    def test_what_came_from_elsewhere_goes_as_an_object_with_a_constant_content_id(self) -> None:
        op = MessageOperation(Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test"), "t", cpim())
        assert sent(op).content == Part(op.object.header_block, op.object.octets, "d1@a.test")

    def test_a_content_id_the_object_came_with_does_not_stand_twice(self) -> None:
        thing = MimeObject(b"Content-Type: message/cpim\r\nContent-ID:\r\n <x@y>\r\n", cpim().octets)
        op = MessageOperation(Address.parse("im:alice@a.test"), Address.parse("im:bob@a.test"), "t", thing)
        content = sent(op).content
        assert isinstance(content, Part)
        assert content.header_block == b"Content-Type: message/cpim\r\n"

    def test_a_stanza_is_nothing_for_an_application(self) -> None:
        thing = MimeObject.of("application/xmpp+xml", b"<xmpp/>")
        made = out(MessageOperation(ALICE.to_address(), BOB.to_address(), "t", thing))
        assert isinstance(made, Response)
        assert made.reason is Reason.CONTENT


class TestAddresses:
    """T6 row "source / destination", ADDR-27, ADDR-28, OPS-10."""

    def test_recipients_are_one_operation_each_with_the_same_octets(self) -> None:
        to = (Recipient(BOB), Recipient(Endpoint.parse("carol/appl=wb@b.test")))
        found = read(data(whole(), to=to))
        assert isinstance(found, list)
        ops = [each.operation for each in found]
        assert [op.destination.uri for op in ops if isinstance(op, MessageOperation)] == [
            "im:bob@a.test",
            "im:carol@b.test",
        ]
        assert [op.context.resource for op in ops if isinstance(op, MessageOperation)] == ["", "appl=wb"]
        first, second = ops
        assert isinstance(first, MessageOperation)
        assert isinstance(second, MessageOperation)
        assert first.object is second.object

    def test_a_device_name_that_apex_cannot_write_is_left_out(self) -> None:
        op = operation(data(whole()))
        named = replace(op, context=replace(op.context, source_resource="Home/ä@x"))
        assert sent(named).originator.identity == ALICE
        assert sent(
            replace(op, context=replace(op.context, source_resource="pc"))
        ).originator.identity == Endpoint.parse("alice/pc@a.test")

    @pytest.mark.parametrize("local", ["a/b", "apex=presence", "apex="])
    def test_no_foreign_sender_maps_onto_a_service_or_another_endpoint(self, local: str) -> None:
        made = out(replace(operation(data(whole())), source=Address("im", local, "a.test")))
        assert isinstance(made, Response)
        assert made.reason is Reason.CONTENT


class TestHops:
    """T2, APEX-15, P-29."""

    @pytest.mark.parametrize(("value", "count"), [(1, 0), (2, 1), (255, 254), (0, 128)])
    def test_data_hopping_is_one_more_than_the_cores_count(self, value: int, count: int) -> None:
        op = operation(data(whole(), hopping(value)))
        assert op.max_forwards == count

    def test_no_option_means_no_limit(self) -> None:
        assert operation(data(whole())).max_forwards == 128

    @pytest.mark.parametrize(
        "raw", [b"<dataHopping noMoreThan='-1' />", b"<dataHopping noMoreThan='256' />", b"x", b"", b"<a/>"]
    )
    def test_a_poor_option_is_501(self, raw: bytes) -> None:
        option = replace(hopping(1), content=raw)
        assert isinstance(found := read(data(whole(), option)), Error)
        assert found.code == 501

    @pytest.mark.parametrize(("count", "value"), [(0, 1), (69, 70), (254, 255), (300, 255)])
    def test_the_next_relay_gets_one_more_and_never_0(self, count: int, value: int) -> None:
        op = replace(operation(data(whole())), max_forwards=count)
        (option,) = [one for one in sent(op, is_final=False).options if one.internal == DATA_HOPPING]
        assert (option.target_hop, option.must_understand) == ("all", True)
        assert read_option_content(option, "dataHopping") == DataHopping(value)

    def test_the_senders_wish_for_a_report_stays(self) -> None:
        op = operation(data(whole(), hopping(5, report_errors=True)))
        (option,) = [one for one in sent(op, is_final=False).options if one.internal == DATA_HOPPING]
        assert option.trans_id == 87
        assert read_option_content(option, "dataHopping") == DataHopping(5, report_errors=True)
        assert sent(op).options == (hopping(5, report_errors=True),)

    def test_reports_without_a_transid_are_501(self) -> None:
        option = replace(hopping(5, report_errors=True), trans_id=0)
        assert read(data(whole(), option)) == Error(501, "an option that asks for a report needs a transID")


class TestTiming:
    """T6 row "validity; store", APEX-16."""

    def test_no_later_than_is_the_lifetime(self) -> None:
        op = operation(data(whole(), timing(no_later_than=60_000, report_after=1_500)))
        assert (op.context.lifetime, op.context.report_after) == (60.0, 1.5)
        assert operation(data(whole())).context.lifetime is None

    def test_time_spent_here_is_taken_off(self) -> None:
        """The example of RFC 3342 section 3: 60000 becomes 18000 after 42 seconds."""
        op = operation(data(whole(), timing(no_later_than=60_000, report_after=50_000)))
        (option,) = sent(op, age=42.0).options
        assert read_option_content(option, "dataTiming") == DataTiming(no_later_than=18_000, report_after=8_000)

    def test_what_comes_too_late_is_not_handed_over(self) -> None:
        op = operation(data(whole(), timing(no_later_than=6_000)))
        made = out(op, age=6.0)
        assert isinstance(made, Response)
        assert made.reason is Reason.EXPIRED

    def test_return_trip_asks_for_a_receipt(self) -> None:
        op = operation(data(whole(), timing(no_later_than=10_000, return_trip=20_000)))
        assert op.context.wants_receipt == "apex"
        assert Wanted.read(op.context.native_id) == Wanted(BOB, timing=86, return_trip=20_000)


class TestOptions:
    """RFC 3340 section 5, APEX-13, P-28; GW-8; T11."""

    def unknown(self, hop: str, *, must: bool = True) -> Option:
        return Option(external="urn:x:1", target_hop=hop, must_understand=must, trans_id=3, content=b"<a>\n</a>")  # type: ignore[arg-type]  # one of the three

    @pytest.mark.parametrize("hop", ["this", "all"])
    def test_an_unknown_one_for_this_relay_is_504_for_the_whole(self, hop: str) -> None:
        assert isinstance(found := read(data(whole(), self.unknown(hop))), Error)
        assert found.code == 504

    def test_an_unknown_one_for_the_final_relay_is_504_only_where_we_are_that(self) -> None:
        to = (Recipient(BOB), Recipient(Endpoint.parse("carol@b.test")))
        found = read(data(whole(), self.unknown("final"), to=to))
        assert isinstance(found, list)
        assert isinstance(found[0].operation, Error)
        assert found[0].operation.code == 504
        assert isinstance(found[1].operation, MessageOperation)

    def test_one_recipients_option_is_nobody_elses(self) -> None:
        to = (Recipient(BOB, (self.unknown("final"),)), Recipient(BOB))
        found = read(data(whole(), to=to))
        assert isinstance(found, list)
        assert [type(each.operation) for each in found] == [Error, MessageOperation]

    def test_what_need_not_be_understood_is_passed_on_as_it_came(self) -> None:
        kept = [self.unknown("final", must=False), self.unknown("all", must=False), Option("hold4Endpoint")]
        op = operation(data(whole(), *kept, self.unknown("this", must=False)))
        assert list(sent(op).options) == kept

    def test_options_of_originator_and_recipient_go_along(self) -> None:
        mine, his = self.unknown("final", must=False), Option(STATUS_REQUEST, trans_id=8)
        element = Data(Originator(ALICE, (mine,)), (Recipient(BOB, (his,)),), whole())
        made = sent(operation(element))
        assert (made.originator.options, made.recipients[0].options) == ((mine,), (his,))

    def test_a_status_request_of_the_recipient_counts_first(self) -> None:
        to = (Recipient(BOB, (Option(STATUS_REQUEST, trans_id=8),)), Recipient(ALICE))
        found = read(data(whole(), Option(STATUS_REQUEST, trans_id=9), to=to))
        assert isinstance(found, list)
        assert [each.wanted.status for each in found] == [8, 9]

    def test_a_status_request_without_transid_is_501(self) -> None:
        assert read(data(whole(), Option(STATUS_REQUEST))) == Error(501, "a statusRequest needs a transID")

    def test_history_is_a_relays_word_and_written_anew(self) -> None:
        entry = HistoryEntry("b.test", "apex", "apex", WHEN, 'a "note" & <more>', True, False)
        said = history_option([entry], 4)
        assert operation(data(whole(), said)).history == ()
        op = operation(data(whole(), said), is_relay=True)
        assert op.history == (entry,)
        (option,) = sent(op).options
        assert (option.external, option.target_hop, option.must_understand) == (HISTORY, "all", False)

    def test_protection_is_read_and_demanded_of_the_next(self) -> None:
        op = operation(data(whole()))
        op = replace(op, requirements=frozenset({Requirement.TLS, Requirement.SIGNED}))
        (option,) = sent(op).options
        assert (option.external, option.target_hop, option.must_understand) == (PROTECTION, "all", True)
        assert operation(data(whole(), option)).requirements == op.requirements

    def test_a_protection_nobody_knows_is_refused(self) -> None:
        content = f"<protection xmlns='{PROTECTION}'><tin-hat/></protection>".encode()
        option = Option(external=PROTECTION, target_hop="all", must_understand=True, trans_id=1, content=content)
        assert isinstance(found := read(data(whole(), option)), Error)
        assert found.code == 554


class TestDedup:
    """reliability.md section 5.3: peer, originator, recipient, Content-ID, fingerprint."""

    def keys(self, content: Content, *options: Option) -> tuple[str, ...]:
        found = read(data(content, *options))
        assert isinstance(found, list)
        return found[0].dedup

    def test_the_same_content_has_the_same_key(self) -> None:
        assert self.keys(GIF) == self.keys(replace(GIF)) != self.keys(replace(GIF, octets=b"GIF"))
        assert self.keys(GIF)[:4] == ("apex", "alice@a.test", "bob@a.test", "2@example.com")

    def test_an_inline_element_is_known_by_its_status_request_or_not_at_all(self) -> None:
        assert self.keys(Inline(b"<a/>")) == ()
        assert self.keys(Inline(b"<a/>"), Option(STATUS_REQUEST, trans_id=77))[3] == "77"

"""``bindings/apex/wire.py``, ``multipart.py`` and ``service_wire.py``: every example of RFC 3340 to 3343, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.apex.elements import (
    Attach,
    Bind,
    Data,
    DataHopping,
    DataTiming,
    Destination,
    Error,
    Inline,
    Notify,
    Ok,
    Option,
    Originator,
    Part,
    Publish,
    Recipient,
    Reply,
    Set,
    StatusResponse,
    Terminate,
)
from comity.bindings.apex.endpoint import Endpoint
from comity.bindings.apex.grammar import SILENTLY, WireError
from comity.bindings.apex.multipart import new_content_id, split_payload
from comity.bindings.apex.service_wire import read_service, write_service
from comity.bindings.apex.wire import (
    read_message,
    read_option_content,
    read_ride,
    write_message,
    write_option_content,
    write_ride,
)
from comity.errors import LocalProtocolError

HEAD = b"Content-Type: application/beep+xml\r\n\r\n"
PART = b"Content-Type: image/gif\r\nContent-Transfer-Encoding: binary\r\nContent-ID: <%b>\r\n\r\n\x00GIF\r\n--boundary not\r\n"
FRED, BARNEY = Endpoint.parse("fred@example.com"), Endpoint.parse("barney@example.com")
GIF = Part(b"Content-Type: image/gif\r\n", b"GIF89a\r\n\r\n\x00\xff", "2@example.com")
CORE = ("attach", "bind", "terminate", "data", "ok", "error")


def examples() -> list[tuple[str, bytes]]:
    """Every element that RFC 3340 to 3343 show, (RFC, octets), as they stand there."""
    text = (Path(__file__).parent / "rfc_examples.txt").read_text()
    blocks = re.split(r"=== (RFC \d+)\n", text)[1:]
    return [(rfc, block.strip().encode()) for rfc, block in zip(blocks[::2], blocks[1::2], strict=True)]


def related(control: bytes, part: bytes, head: bytes = b'boundary="boundary"; type="application/beep+xml"') -> bytes:
    return b"".join(
        (
            b"Content-Type: multipart/related; " + head + b"\r\n\r\n--boundary\r\n",
            b"Content-Type: application/beep+xml\r\nContent-ID: <0@example.com>\r\n\r\n" + control,
            b"\r\n--boundary\r\n" + part + b"\r\n--boundary--\r\n",
        )
    )


def data(inside: str = "", content: str = "cid:2@example.com", part: bytes = PART % b"2@example.com") -> bytes:
    control = (
        f"<data content='{content}'><originator identity='a@a.test'/><recipient identity='b@b.test'/>{inside}</data>"
    )
    return related(control.encode(), part) if part else HEAD + control.encode()


def refused(payload: bytes) -> int:
    with pytest.raises(WireError) as caught:
        read_message(payload)
    return caught.value.code


def reread_option(option: Option) -> None:
    if option.name == "dataTiming":
        timing = read_option_content(option, "dataTiming")
        again = Option(option.name, content=write_option_content(timing))
        assert read_option_content(again, "dataTiming") == timing != DataTiming()
    elif option.name == "dataHopping":
        hopping = read_option_content(option, "dataHopping")
        again = Option(option.name, content=write_option_content(hopping))
        assert read_option_content(again, "dataHopping") == hopping != DataHopping()
    else:
        assert not option.content


def test_every_example_of_the_rfcs_is_read_and_written_back_to_the_same_value() -> None:
    """RFC 3340 to 3343; the spots where examples and DTDs differ are taken as the examples show (X37)."""
    counted = 0
    for rfc, octets in examples():
        name = re.match(rb"<(\w+)", octets)
        assert name
        if name[1].decode() in CORE:
            if b"content='...'" in octets:
                continue  # a placeholder of the RFC
            if b"Name='Content'\n" in octets:  # RFC 3343 section 4.3 forgot a ">": no XML at all
                assert refused(HEAD + octets) == 500
                octets = octets.replace(b"Name='Content'", b"Name='Content'>")
            cid = re.search(rb"cid:([^']*)", octets)
            element = read_message(related(octets, PART % cid[1]) if cid else HEAD + octets)
            assert read_message(write_message(element)) == element, rfc
            assert write_message(read_message(write_message(element))) == write_message(element)
            if isinstance(element, Data):
                for option in element.options:
                    reread_option(option)
            content = element.content if isinstance(element, Data) else None
            if not isinstance(content, Inline):
                counted += 1
                continue
            octets = content.octets
        elif name[1] == b"access":
            octets = b"<set transID='1'>" + octets + b"</set>"
        service = read_service(Inline(octets))
        assert read_service(Inline(write_service(service))) == service, rfc
        counted += 1
    assert counted == 72


def test_the_examples_mean_what_the_rfc_says() -> None:
    """RFC 3340 sections 4.1, 4.2 and 5.1, RFC 3342, RFC 3343."""
    assert read_message(HEAD + b"<terminate transID='1' />") == Terminate(1)
    assert read_ride(b"<attach endpoint='fred@example.com'\n   transID='1' />") == Attach(FRED, 1)
    assert read_ride(b"<bind relay='Example.com' transID='2' />") == Bind("example.com", 2)
    assert read_ride(b"<bind relay='[10.0.0.1]' transID='2' />") == Bind("10.0.0.1", 2)
    assert read_message(HEAD + b"<error code='537'>access denied</error>") == Error(537, "access denied")
    report = b"<statusResponse transID='86'><destination identity='barney@example.com'><reply code='250' /></destination></statusResponse>"
    assert read_service(Inline(report)) == StatusResponse(86, (Destination(BARNEY, Reply(250)),))
    [first, *_] = [octets for rfc, octets in examples() if b"dataTiming" in octets]
    read = read_message(related(first, PART % b"1@example.com"))
    assert isinstance(read, Data)
    assert read.options[0].trans_id == 86
    assert read_option_content(read.options[0], "dataTiming") == DataTiming(10000, 20000)
    assert read_option_content(Option("dataHopping", content=b"<dataHopping/>"), "dataHopping") == DataHopping()


def test_the_octets_of_content_are_those_that_came() -> None:
    """APEX-10, APEX-11: a part and an element inside are cut out, not made anew."""
    read = read_message(data())
    assert isinstance(read, Data)
    assert read.content == Part(b"Content-Type: image/gif\r\n", b"\x00GIF\r\n--boundary not\r\n", "2@example.com")
    inline = "<x:y  xmlns:x = \"u:x\" a='1'  ><![CDATA[<&]]><!-- c -->&#233;\n</x:y >"
    read = read_message(data(f"<data-content Name='C'>\n {inline}\n</data-content>", "#C", b""))
    assert isinstance(read, Data)
    assert read.content == Inline(inline.encode(), "C")
    again = read_message(write_message(read))
    assert again == read


def test_an_option_keeps_its_children_as_they_came() -> None:
    """RFC 3340 section 5: options not for this relay are passed on."""
    inside = " <h:entry xmlns:h='urn:comity:history:0'\n node='x' />é "
    read = read_message(
        data(f"<option external='urn:comity:history:0' targetHop='all' localize='cs de'>{inside}</option>")
    )
    assert isinstance(read, Data)
    assert read.options == (Option("", "urn:comity:history:0", "all", localize="cs de", content=inside.encode()),)
    assert read_message(write_message(read)) == read


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (HEAD + b"<attach", 500),
        (HEAD + b"", 500),
        (HEAD + b"<ok>\xff</ok>", 500),
        (b"no header at all", 501),
        (HEAD + b"<!DOCTYPE ok [<!ENTITY a 'b'>]><ok/>", SILENTLY),
        (HEAD + b"<?xml version='1.0'?><ok/>", 500),
        (HEAD + b"<ok>&undefined;</ok>", 500),
        (HEAD + b"<attach endpoint='a@a.test'/>", 501),
        (HEAD + b"<attach endpoint='a' transID='1'/>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='0'/>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='2147483648'/>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='-1'/>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='1' more=''/>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='1'>text</attach>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='1'><ok/></attach>", 501),
        (HEAD + b"<attach endpoint='a@a.test' transID='1' xmlns='urn:x'/>", 501),
        (HEAD + b"<terminate code='25'/>", 501),
        (HEAD + b"<unheard/>", 501),
        (HEAD + b"<ok><ok/></ok>", 501),
        (HEAD + b"<ok>" + b"<a>" * 70 + b"</a>" * 70 + b"</ok>", 554),
        (b"Content-Type: text/plain\r\n\r\n<ok/>", 501),
        (b"Content-Type: application/beep+xml\r\nContent-Transfer-Encoding: base64\r\n\r\nPG9rLz4=", 504),
        (data(part=b""), 501),
        (data(content="http://a.test/x"), 501),
        (data(content="cid:3@example.com"), 501),
        (data(content="#C"), 501),
        (data(content=""), 501),
        (data(part=b"Content-Type: a/b\r\n\r\nx"), 501),
        (data(part=b" folded: x\r\nContent-ID: <2@example.com>\r\n\r\nx"), 501),
        (data(part=b"Content-Type: a/b\r\nContent-ID: <2@example.com>\r\nX: \x00\r\n\r\nx"), 501),
        (data(part=b"Content-Type: a/b\r\nContent-ID: <0@example.com>\r\n\r\nx"), 501),
        (data("<option internal='a' external='b:c'/>"), 501),
        (data("<option/>"), 501),
        (data("<option external='relative'/>"), 501),
        (data("<option internal='a' targetHop='some'/>"), 501),
        (data("<option internal='a' mustUnderstand='1'/>"), 501),
        (data("<option internal='a' transID='x'/>"), 501),
        (data("<recipient identity='c@c.test'/><option internal='a'/><recipient identity='c@c.test'/>"), 501),
        (data("<originator identity='c@c.test'/>"), 501),
        (data("<data-content Name='C'><a/></data-content>"), 501),
        (data("<data-content Name='C'><a/><b/></data-content>", "#C", b""), 501),
        (data("<data-content Name='C'>text</data-content>", "#C", b""), 501),
        (data("<data-content Name='D'><a/></data-content>", "#C", b""), 501),
        (data("<data-content Name='C' xmlns:p='u:p'><p:a/></data-content>", "#C", b""), 501),
        (data("<option internal='a' xmlns:p='u:p'><p:a/></option>"), 501),
        (related(b"<ok/>", PART % b"2@example.com"), 501),
        (data().replace(b"boundary--", b"boundary"), 501),
        (data().replace(b'type="application/beep+xml"', b'type="text/xml"'), 501),
        (data().replace(b'boundary="boundary"', b'boundary="boundary"; start="<9@x>"'), 501),
    ],
)
def test_what_is_not_valid_is_refused_with_the_code_of_its_kind(payload: bytes, code: int) -> None:
    """P-27, P-30; RFC 3340 section 10."""
    assert refused(payload) == code


def test_the_start_parameter_says_where_the_control_document_is() -> None:
    """RFC 2387 section 3.2; without it, the first part."""
    normal = data()
    control, rest = normal.split(b"--boundary\r\n")[1:]
    turned = (
        normal.split(b"--boundary\r\n")[0] + b"--boundary\r\n" + rest.replace(b"\r\n--boundary--", b"\r\n--boundary")
    )
    turned += control.removesuffix(b"\r\n") + b"\r\n--boundary--\r\n"
    with_start = turned.replace(b"; type=", b'; start="<0@example.com>"; type=')
    assert read_message(with_start) == read_message(normal)
    assert refused(turned) == 501


def test_a_cid_is_compared_decoded() -> None:
    """RFC 2392 section 2."""
    part = PART % b"2%a+b@example.com"
    read = read_message(data(content="CID:2%25a%2Bb@example.com", part=part))
    assert isinstance(read, Data)
    assert isinstance(read.content, Part)
    assert read.content.content_id == "2%a+b@example.com"
    assert read_message(write_message(read)) == read


def test_a_transfer_encoding_that_changes_octets_stays_with_them() -> None:
    """RFC 3340 section 4.1: it should not be used; section 4.4.4.1: a relay never modifies the content."""
    head = b"Content-Type: text/plain;\r\n charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n"
    read = read_message(data(part=head + b"Content-ID:\r\n <2@example.com>\r\n\r\nw6k="))
    assert isinstance(read, Data)
    assert read.content == Part(head, b"w6k=", "2@example.com")
    assert write_message(read).count(b"Content-Transfer-Encoding") == 1
    assert read_message(write_message(read)) == read


def test_a_part_without_a_type_is_given_the_one_it_means() -> None:
    """RFC 2045 section 5.2."""
    read = read_message(data(part=b"Content-ID: <2@example.com>\r\n\r\nhello"))
    assert isinstance(read, Data)
    assert read.content == Part(b"Content-Type: text/plain\r\n", b"hello", "2@example.com")


def test_comments_instructions_and_cdata_sections_say_nothing() -> None:
    """RFC 3080 section 6.4: everything of XML but declarations and entities is allowed."""
    octets = b"<?pi x?><!-- <!DOC --><terminate transID='5'><?pi y?><![CDATA[<gone>]]></terminate>"
    assert read_message(HEAD + octets) == Terminate(5, 250, "<gone>")


def test_what_cannot_be_written_is_refused() -> None:
    plain = Data(Originator(FRED), (Recipient(BARNEY),), GIF)
    for part in (
        Part(GIF.header_block, b"", ""),
        Part(GIF.header_block, b"", "a\r\nb"),
        Part(b"Content-Type: a/b", b"", "x@y"),
        Part(b"Content-Type: a/b\r\n\r\n", b"", "x@y"),
    ):
        with pytest.raises(LocalProtocolError):
            write_message(Data(plain.originator, plain.recipients, part))
    with pytest.raises(LocalProtocolError):
        write_message(Error(550, "\x00"))


@pytest.mark.parametrize(
    "octets",
    [
        b"<reply code='250'/>",
        b"<statusResponse transID='1'/>",
        b"<presence/>",
        b"<publish publisher='a@a.test' transID='1' timeStamp='now'><presence publisher='a@a.test'/></publish>",
        b"<publish publisher='a@a.test' transID='1' timeStamp='2000-05-14T13:02:00Z'><presence publisher='a@a.test'/></publish>",
        b"<subscribe publisher='a@a.test' transID='1' duration='-1'/>",
        b"<notify subscriber='a@a.test' transID='1' action='go'/>",
        b"<query owner='a@a.test' actor='b@b.test' actions='' transID='1'/>",
        b"<set transID='1'/>",
        b"<allow/>",
    ],
)
def test_what_a_service_is_told_is_checked_too(octets: bytes) -> None:
    """APEX-22; RFC 3341 section 6, RFC 3343 section 6."""
    with pytest.raises(WireError) as caught:
        read_service(Inline(octets))
    assert caught.value.code == (504 if octets == b"<presence/>" else 501)


def test_a_service_is_also_read_from_a_part() -> None:
    """RFC 3341 section 4.1, RFC 3343 section 4.1."""
    part = Part(b"Content-Type: application/beep+xml\r\n", b"<reply code='250' transID='1' />", "2@example.com")
    assert read_service(part) == Reply(250, 1)
    with pytest.raises(WireError):
        read_service(GIF)


def test_what_the_dtd_leaves_out_has_its_default() -> None:
    assert read_service(Inline(b"<notify subscriber='fred@example.com' transID='1'/>")) == Notify(FRED, 1, "subscribe")
    deleted = read_service(Inline(b"<set transID='1'><access owner='fred@example.com' actor='*@*'/></set>"))
    assert isinstance(deleted, Set)
    assert deleted.access.actions is None
    first = b"<publish publisher='fred@example.com' transID='1' timeStamp='2000-05-14T13:02:00Z'><presence publisher='fred@example.com'><tuple destination='mailto:f@x' availableUntil='2525-12-31T23:59:59-08:00'/></presence></publish>"
    published = read_service(Inline(first))
    assert isinstance(published, Publish)
    assert published.presence.last_update == ""


TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="/@", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20
)
XML_TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters="\ufffe\uffff"), max_size=20
)
ENDPOINTS = st.builds(
    Endpoint, TEXT, st.just("") | TEXT, st.sampled_from(["a.test", "example.com", "10.0.0.1"])
).filter(lambda one: "\ufffe" not in str(one) and "\uffff" not in str(one))
OPTIONS = st.builds(
    Option,
    st.sampled_from(["statusRequest", "hold4Endpoint"]),
    target_hop=st.sampled_from(["this", "final", "all"]),
    must_understand=st.booleans(),
    trans_id=st.integers(0, 2**31 - 1),
    content=st.sampled_from([b"", b"<a/>", b" <a x='1'>\r\n</a> t"]),
)
CONTENTS = st.builds(
    Part,
    st.sampled_from([b"Content-Type: a/b\r\n", b"Content-Type: a/b;\r\n c=d\r\nX-y: \xc3\xa9\r\n"]),
    st.binary(max_size=200) | st.sampled_from([b"\r\n--apex--\r\n", b"--apex\r\n", b"\r\n"]),
    st.sampled_from(["1@x", "a%b!c@y"]),
) | st.builds(Inline, st.sampled_from([b"<a/>", b"<b:c xmlns:b='u:b'>\n</b:c>"]), st.sampled_from(["Content", "x"]))
PARTIES = st.tuples(ENDPOINTS, st.lists(OPTIONS, max_size=2).map(tuple))


@given(
    st.builds(Attach, ENDPOINTS, st.integers(1, 2**31 - 1), st.lists(OPTIONS, max_size=2).map(tuple))
    | st.builds(Error, st.integers(100, 599), XML_TEXT, st.sampled_from(["", "cs"]))
    | st.builds(Terminate, st.integers(0, 2**31 - 1), st.integers(100, 599), XML_TEXT)
    | st.builds(
        Data,
        PARTIES.map(lambda party: Originator(*party)),
        st.lists(PARTIES.map(lambda party: Recipient(*party)), min_size=1, max_size=3).map(tuple),
        CONTENTS,
        st.lists(OPTIONS, max_size=2).map(tuple),
    )
    | st.just(Ok())
)
def test_what_is_written_is_read_as_the_same_value(element: Attach | Error | Terminate | Data | Ok) -> None:
    """APEX-10: whatever the octets, boundaries included."""
    assert read_message(write_message(element)) == element
    if not isinstance(element, Data):
        assert read_ride(write_ride(element)) == element


@given(st.binary(max_size=300) | st.binary(max_size=100).map(lambda octets: HEAD + b"<data content='" + octets))
def test_whatever_comes_is_read_or_refused(payload: bytes) -> None:
    try:
        element = read_message(payload)
    except WireError:
        return
    assert read_message(write_message(element)) == element


def test_content_ids_are_new_each_time() -> None:
    """RFC 3340 section 4.1: globally unique."""
    assert new_content_id("a.test") != new_content_id("a.test")
    assert split_payload(HEAD + b"<ok/>") == (b"<ok/>", None)

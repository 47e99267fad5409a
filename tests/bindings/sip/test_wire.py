"""wire.py: readers, limits, serializer (RFC 3261 section 7, 18.3; SIP-9, SIP-10)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.wire import Limits, Malformed, Ping, StreamReader, Unit, parse_datagram
from comity.errors import LocalProtocolError

HEAD = (
    b"MESSAGE sip:bob@b.test SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa;rport\r\nMax-Forwards: 70\r\n"
    b"From: <sip:alice@a.test>;tag=1\r\nTo: <sip:bob@b.test>\r\nCall-ID: c1\r\nCSeq: 1 MESSAGE\r\n"
)
MESSAGE = HEAD + b"Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nh\xc3\xa9\r\n\r\n\x00llo!"
RESPONSE = (
    b"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bKa\r\nf: <sip:a@a.test>;tag=1\r\n"
    b"t: <sip:b@b.test>;tag=2\r\ni: c1\r\nCSeq: 1 MESSAGE\r\nl: 0\r\n\r\n"
)


def read_all(chunks: list[bytes]) -> list[Unit]:
    reader = StreamReader()
    units: list[Unit] = []
    for chunk in chunks:
        reader.feed(chunk)
        while (unit := reader.next_unit()) is not None:
            units.append(unit)
    return units


def described(units: list[Unit]) -> list[object]:
    found: list[object] = []
    for unit in units:
        if isinstance(unit, Malformed):
            partial = unit.partial
            found.append((unit.error.reason, unit.error.hint, unit.is_framed, partial and list(partial.headers)))
        elif isinstance(unit, Ping):
            found.append("ping")
        else:
            found.append((unit.start_line, list(unit.headers), unit.body))
    return found


def malformed(data: bytes, *, stream: bool = False) -> Malformed:
    unit = read_all([data])[0] if stream else parse_datagram(data)
    assert isinstance(unit, Malformed), unit
    return unit


def test_body_octets_come_from_content_length_whatever_they_are() -> None:
    (unit,) = read_all([MESSAGE])
    assert isinstance(unit, SipRequest)
    assert unit.body == b"h\xc3\xa9\r\n\r\n\x00llo!"


def test_two_pipelined_messages_cut_inside_a_character_are_both_read() -> None:
    """S-20."""
    data = MESSAGE + MESSAGE
    cut = len(MESSAGE) - 10
    units = read_all([data[:cut], data[cut:]])
    assert [type(unit) for unit in units] == [SipRequest, SipRequest]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([MESSAGE, RESPONSE, b"\r\n\r\n", b"\r\n"]), min_size=1, max_size=4), st.data())
def test_any_split_gives_the_same_units(parts: list[bytes], data: st.DataObject) -> None:
    octets = b"".join(parts)
    if data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(octets) - 1))
        octets = octets[:index] + data.draw(st.binary(max_size=3)) + octets[index + 1 :]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=12)))
    chunks = [octets[a:b] for a, b in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    whole = described(read_all([octets]))
    assert described(read_all(chunks)) == whole
    assert described(read_all([octets[i : i + 1] for i in range(len(octets))])) == whole


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_octets_give_units_only(data: bytes) -> None:
    parse_datagram(data)
    read_all([data])
    parse_datagram(HEAD + data)
    read_all([HEAD + data])


_NAME = st.from_regex(r"X-[A-Za-z0-9\-]{1,12}", fullmatch=True)
_VALUE = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=40).map(str.strip)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(_NAME, _VALUE), max_size=6), st.binary(max_size=200))
def test_serialized_messages_read_back_equal(extra: list[tuple[str, str]], body: bytes) -> None:
    base = parse_datagram(MESSAGE)
    assert isinstance(base, SipRequest)
    headers = [*[pair for pair in base.headers if pair[0] != "Content-Length"], *extra]
    sent = SipRequest("MESSAGE", "sip:bob@b.test", headers, body)
    (back,) = read_all([sent.to_bytes()])
    assert isinstance(back, SipRequest)
    assert list(back.headers[:-1]) == [(name, value.strip(" \t")) for name, value in headers]
    assert back.body == body
    assert back.to_bytes() == sent.to_bytes()


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b", "a\x7f", "\x0b"])
def test_serializer_refuses_control_characters(value: str) -> None:
    with pytest.raises(LocalProtocolError):
        SipResponse(200, "OK", [("Subject", value)]).to_bytes()
    with pytest.raises(LocalProtocolError):
        SipResponse(200, value, []).to_bytes()


def test_compact_forms_folding_and_space_before_the_colon_are_read() -> None:
    """SIP-10, S-09, S-15."""
    data = HEAD.replace(b"From: <", b"f \t:\r\n \t<").replace(b"Call-ID", b"i") + b"l:0\r\n\r\n"
    unit = parse_datagram(data)
    assert isinstance(unit, SipRequest)
    assert unit.from_.tag == "1"
    assert unit.call_id == "c1"
    assert b"\r\n " not in unit.to_bytes()


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (b"From\x0b:", b"From:"),
        (b"From\x00:", b"From:"),
        (b"From: <sip:alice@a.test>;tag=1, <sip:bob@b.test>;tag=2", b"From: <sip:alice@a.test>;tag=1"),
        (b"From: <sip:alice@a.test@b.test>", b"From: <sip:alice@a.test>"),
        (b"From: <sip:b.test:5060;@a.test>", b"From: <sip:alice@a.test>"),
        (b"Call-ID: c1\r\nf: <sip:x@a.test>", b"Call-ID: c1"),
        (b"Call-ID: c1\r\nTo: <sip:x@a.test>", b"Call-ID: c1"),
        (b"Call-ID: c1\nX: y", b"Call-ID: c1"),
        (b"Call-ID: c1\rX: y", b"Call-ID: c1"),
        (b"CSeq: 2147483648 MESSAGE", b"CSeq: 1 MESSAGE"),
        (b"CSeq: 4294967296 MESSAGE", b"CSeq: 1 MESSAGE"),
        (b"CSeq: 0 " + b"A" * 1900, b"CSeq: 1 MESSAGE"),
        (b"CSeq: 1 INVITE", b"CSeq: 1 MESSAGE"),
        (b"Max-Forwards: 256", b"Max-Forwards: 70"),
        (b"Max-Forwards: ten", b"Max-Forwards: 70"),
        (b";tag=" + b"t" * 257, b";tag=1"),
        (b"Call-ID: " + b"c" * 257, b"Call-ID: c1"),
        (b"branch=z9hG4bK" + b"b" * 250, b"branch=z9hG4bKa"),
        (b"Call-ID: c1\r\n" + b"Accept: a/b\r\n" * 64 + b"X: y", b"Call-ID: c1"),
        (b"Call-ID: c1\r\nRoute: " + b",".join([b"<sip:r.test;lr>"] * 11), b"Call-ID: c1"),
        (b"Call-ID: c1\r\nVia: " + b",".join([b"SIP/2.0/UDP v"] * 100), b"Call-ID: c1"),
        (b"Call-ID: c1\r\nX: " + b"x" * 2049, b"Call-ID: c1"),
        (b"Call-ID: c1\r\nno colon here", b"Call-ID: c1"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
def test_broken_headers_are_answerable_with_400(bad: bytes, good: bytes) -> None:
    """S-08, S-09, S-11, S-12, S-16, S-39, S-40, S-41, S-44."""
    assert good in HEAD
    data = HEAD.replace(good, bad, 1) + b"Content-Length: 0\r\n\r\n"
    unit = malformed(data)
    assert unit.error.hint == "400"
    assert unit.partial is not None
    assert unit.partial.via.host == "192.0.2.1"
    assert malformed(data, stream=True).error.hint == "400"


@pytest.mark.parametrize("value", [b"+5", b"5 5", b"0x5", b"1" + b"0" * 20, b"", b"-5"])
def test_broken_content_length_loses_the_framing(value: bytes) -> None:
    """S-19."""
    data = HEAD + b"Content-Length: " + value + b"\r\n\r\nhello"
    unit = malformed(data, stream=True)
    assert unit.error.hint == "400"
    assert not unit.is_framed
    assert malformed(data).error.hint == "400"


def test_missing_content_length_loses_the_framing_of_a_stream_only() -> None:
    data = HEAD + b"\r\nhello"
    assert not malformed(data, stream=True).is_framed
    unit = parse_datagram(data)
    assert isinstance(unit, SipRequest)
    assert unit.body == b"hello"


def test_datagram_body_is_cut_to_its_length_and_a_short_one_refused() -> None:
    """S-17, SIP-9."""
    unit = parse_datagram(HEAD + b"Content-Length: 3\r\n\r\nhello")
    assert isinstance(unit, SipRequest)
    assert unit.body == b"hel"
    assert malformed(HEAD + b"Content-Length: 6\r\n\r\nhello").error.hint == "400"


def test_sizes_over_the_limits_have_their_own_codes() -> None:
    """S-38, S-40, reliability.md section 6.2."""
    assert malformed(HEAD + b"Content-Length: 17000\r\n\r\n" + b"x" * 17000).error.hint == "513"
    assert malformed(HEAD + b"X: y\r\n" * 2000).error.hint == "513"
    assert malformed(HEAD + b"X: y\r\n" * 2000, stream=True).error.hint == "513"
    unit = malformed(HEAD + b"Content-Length: 49153\r\n\r\n", stream=True)
    assert (unit.error.hint, unit.is_framed) == ("413", False)
    long_uri = HEAD.replace(b"sip:bob@b.test SIP", b"sip:" + b"b" * 260 + b"@b.test SIP")
    assert malformed(long_uri + b"Content-Length: 0\r\n\r\n").error.hint == "414"


def test_only_authorization_and_identity_may_be_long() -> None:
    def request(name: bytes) -> Unit | None:
        return parse_datagram(HEAD + name + b": " + b"x" * 3000 + b"\r\nContent-Length: 0\r\n\r\n")

    assert isinstance(request(b"Identity"), SipRequest)
    assert isinstance(request(b"Authorization"), SipRequest)
    assert isinstance(request(b"X-Other"), Malformed)


def test_a_framed_fault_leaves_the_stream_readable() -> None:
    bad = HEAD.replace(b"CSeq: 1 MESSAGE", b"CSeq: x MESSAGE") + b"Content-Length: 2\r\n\r\nhi"
    first, second = read_all([bad + MESSAGE])
    assert isinstance(first, Malformed)
    assert first.is_framed
    assert isinstance(second, SipRequest)


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_bare_cr_before_the_last_crlf_of_the_head_ends_the_stream_however_it_is_cut(size: int) -> None:
    """S-16: where lines are in doubt, so is the end of the message."""
    bad = HEAD + b"Content-Length: 0\r\r\n\r\n" + MESSAGE
    (unit,) = read_all([bad[start : start + size] for start in range(0, len(bad), size)])
    assert isinstance(unit, Malformed)
    assert not unit.is_framed


def test_memory_of_a_stream_without_end_is_bounded() -> None:
    reader = StreamReader(Limits())
    for _ in range(100):
        reader.feed(b"X" * 1000)
        reader.next_unit()
    assert reader.has_failed
    assert not reader.is_partial


def test_keepalives_are_told_from_requests() -> None:
    """S-50."""
    assert read_all([b"\r\n" * 5000]) == [Ping()] * 2500
    ping, request = read_all([b"\r\n\r\n" + MESSAGE])
    assert isinstance(ping, Ping)
    assert isinstance(request, SipRequest)
    assert parse_datagram(b"\r\n\r\n") == Ping()
    assert parse_datagram(b"\0\0\0\0") is None
    assert parse_datagram(b"") is None


def test_multipart_bodies_are_never_looked_into() -> None:
    """S-47."""
    for body in (b"--x\r\n" * 1000, b"--" + b"b" * 300, b""):
        data = HEAD + b"Content-Type: multipart/mixed\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        unit = parse_datagram(data)
        assert isinstance(unit, SipRequest)
        assert unit.body == body

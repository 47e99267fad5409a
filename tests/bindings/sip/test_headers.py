"""uri.py and headers.py: the typed values (RFC 3261 section 19.1, 20, 25.1)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.sip.headers import AuthParams, CSeq, NameAddr, Via, parse_q, split_commas
from comity.bindings.sip.uri import OtherUri, SipUri, escape_user, parse_uri
from comity.errors import RemoteProtocolError


def sip(text: str) -> SipUri:
    uri = parse_uri(text)
    assert isinstance(uri, SipUri)
    return uri


@pytest.mark.parametrize(
    "text",
    [
        "sip:alice@atlanta.com",
        "sip:alice:secretword@atlanta.com;transport=tcp",
        "sips:alice@atlanta.com?subject=project%20x&priority=urgent",
        "sip:+1-212-555-1212:1234@gateway.com;user=phone",
        "sip:alice@[2001:db8::1]:5070;lr",
        "sip:atlanta.com;method=REGISTER?to=alice%40atlanta.com",
        "sip:alice;day=tuesday@atlanta.com",
        "im:fu%C3%9F@b.test",
        "tel:911",
    ],
)
def test_uris_of_the_rfc_read_back_as_written(text: str) -> None:
    assert str(parse_uri(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "sip:",
        "sip:@a.test",
        "sip:a b@a.test",
        "sip:a@b@c",
        "sip:a%4@b.test",
        "sip:a@b.test:0",
        "sip:a@b.test:70000",
        "sip:a@[::g]",
        "sip:a@b.test;x=1;x=2",
        "sip:a@b.test;",
        "sip:a@-b",
        "<sip:a@b>",
        "nothing",
        "sip:a@b.test\0",
    ],
)
def test_broken_uris_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_uri(text)
    assert caught.value.hint == "400"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", True),
        ("sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", True),
        ("sip:alice@atlanta.com", "sip:ALICE@atlanta.com", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", False),
        ("sip:carol@chicago.com;newparam=5", "sip:carol@chicago.com;newparam=6", False),
        ("sip:bob@biloxi.com", "sip:bob@biloxi.com;user=phone", False),
    ],
)
def test_uris_compare_by_section_19_1_4(one: str, other: str, same: bool) -> None:
    assert sip(one).matches(sip(other)) is same
    assert sip(other).matches(sip(one)) is same


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30))
def test_escaped_user_parts_decode_to_what_they_were(text: str) -> None:
    assert sip(f"sip:{escape_user(text)}@b.test").user_text == text


def test_via_tells_what_the_receiver_saw() -> None:
    via = Via.parse("SIP/2.0/UDP 10.1.1.1:4540;received=203.0.113.9;rport;branch=z9hG4bKkj")
    seen = via.received_from("192.0.2.1", 9988)
    assert str(seen) == "SIP/2.0/UDP 10.1.1.1:4540;rport=9988;branch=z9hG4bKkj;received=192.0.2.1"
    plain = Via.parse("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkj")
    assert plain.received_from("192.0.2.1", 5060) is plain
    forged = Via.parse("SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkj;received=198.51.100.1")
    assert str(forged.received_from("192.0.2.1", 5060)) == "SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKkj"


@pytest.mark.parametrize(
    "text", ["", "SIP/2.0/UDP", "SIP/2.0 h", "HTTP/1.1/TCP h", "SIP/2.0/UDP h;a;a", "SIP/2.0/UDP h x"]
)
def test_broken_vias_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Via.parse(text)


def test_name_addr_is_written_from_its_values() -> None:
    value = NameAddr.parse('"A. G. \\"Bell\\"" <sip:agb@bell.test>;tag=a48s;q=0.5;x="y;z"', "From")
    assert value.display == 'A. G. "Bell"'
    assert value.param("x") == "y;z"
    assert NameAddr.parse(str(value), "From") == value
    assert NameAddr.parse("sip:a@b.test;tag=1", "From").uri == SipUri("b.test", "a")
    assert NameAddr.parse("<im:a@b.test>", "To").uri == OtherUri("im", "a@b.test")


@pytest.mark.parametrize(
    "text", ["", "Bell, A <sip:a@b>", '"x <sip:a@b>', "sip:a@b?x=y", "<sip:a@b", "< sip:a@b >", "<sip:a@b>;tag=1;tag=2"]
)
def test_broken_name_addrs_are_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        NameAddr.parse(text, "From")


def test_commas_in_quotes_and_angle_brackets_do_not_split() -> None:
    assert split_commas('"a,\\",b" <sip:x,y@h>, <sip:z@h>') == ['"a,\\",b" <sip:x,y@h>', "<sip:z@h>"]
    with pytest.raises(RemoteProtocolError):
        split_commas('a, "b')


def test_digest_credentials_are_read_and_unknown_schemes_have_no_parameters() -> None:
    value = AuthParams.parse('Digest username="a\\"b", realm="r", nc=00000001,qop=auth , response="00ff"')
    assert value.params == {"username": 'a"b', "realm": "r", "nc": "00000001", "qop": "auth", "response": "00ff"}
    assert AuthParams.parse("NoOneKnows opaque-data=here").params == {}
    for broken in ("Digest realm", 'Digest realm="a', 'Digest realm="a",realm="b"', 'Digest realm="a" nonce="b"'):
        with pytest.raises(RemoteProtocolError):
            AuthParams.parse(broken)


@pytest.mark.parametrize("text", ["1", "x MESSAGE", "-1 A", "1 A B", "2147483648 A"])
def test_broken_cseq_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        CSeq.parse(text)


def test_q_values() -> None:
    assert (parse_q("0.33"), parse_q("1.0"), parse_q("0")) == (0.33, 1.0, 0.0)
    for broken in ("1.1", "-1", "2", "x", "0.3333"):
        with pytest.raises(RemoteProtocolError):
            parse_q(broken)


@given(st.text(max_size=60))
def test_arbitrary_text_raises_protocol_errors_only(text: str) -> None:
    for parse in (parse_uri, Via.parse, CSeq.parse, AuthParams.parse, lambda t: NameAddr.parse(t, "To"), split_commas):
        try:
            parse(text)
        except RemoteProtocolError:
            pass

"""RFC 4475: every torture message through the readers (SIP-10, reliability.md section 2.4)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from comity.bindings.sip.headers import NameAddr, Via
from comity.bindings.sip.message import SipRequest, SipResponse
from comity.bindings.sip.uri import OtherUri, SipUri
from comity.bindings.sip.wire import Malformed, StreamReader, parse_datagram

FOLDER = Path(__file__).parent / "rfc4475"
EXPECTED: dict[str, dict[str, str]] = json.loads((FOLDER / "expected.json").read_text(encoding="utf-8"))


def octets(name: str) -> bytes:
    return (FOLDER / f"{name}.dat").read_bytes()


def request(name: str) -> SipRequest:
    unit = parse_datagram(octets(name))
    assert isinstance(unit, SipRequest)
    return unit


def test_every_message_has_an_expectation() -> None:
    assert {path.stem for path in FOLDER.glob("*.dat")} == set(EXPECTED)
    assert len(EXPECTED) == 50


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_datagram_reads_as_described(name: str) -> None:
    unit = parse_datagram(octets(name))
    if isinstance(unit, Malformed):
        assert unit.error.hint == EXPECTED[name]["wire"]
    else:
        assert EXPECTED[name]["wire"] == ("request" if isinstance(unit, SipRequest) else "response")
        assert isinstance(unit, SipRequest | SipResponse)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_stream_reads_like_the_datagram_where_the_length_is_known(name: str) -> None:
    reader = StreamReader()
    reader.feed(octets(name))
    unit = reader.next_unit()
    datagram = parse_datagram(octets(name))
    if name in ("clerr", "baddn"):  # the octets end before the message does
        assert unit is None
        assert reader.is_partial
    elif name in ("ncl", "mcl01", "inv2543", "test"):
        assert isinstance(unit, Malformed)
        assert unit.error.hint == "400"
    else:
        assert type(unit) is type(datagram)


def test_wsinv_has_every_folded_field() -> None:
    unit = request("wsinv")
    assert unit.to == NameAddr(SipUri("chair-dnrc.example.com", "vivekg"), (("tag", "1918181833n"),))
    assert unit.from_.display == 'J Rosenberg \\"'
    assert unit.from_.tag == "98asjd8"
    assert unit.max_forwards == 68
    assert unit.call_id == "wsinv.ndaksdj@192.0.2.1"
    assert (unit.cseq.number, unit.cseq.method) == (9, "INVITE")
    assert [Via.parse(text) for text in unit.vias] == [
        Via("UDP", "192.0.2.2", None, (("branch", "390skdjuw"),)),
        Via("TCP", "spindle.example.com", None, (("branch", "z9hG4bK9ikj8"),)),
        Via("UDP", "192.168.255.111", None, (("branch", "z9hG4bK30239"),)),
    ]
    assert unit.value("subject") == ""
    assert unit.value("newfangledheader") == "newfangled value continued newfangled value"
    assert unit.value("unknownheaderwithunusualvalue") == ";;,,;;,;"
    assert unit.routes[0].uri == SipUri(
        "services.example.com", params=(("lr", None), ("unknownwith", "value"), ("unknown-no-value", None))
    )
    (contact,) = unit.contacts
    assert contact.display == 'Quoted string ""'
    assert contact.params == (("newparam", "newvalue"), ("secondparam", None), ("q", "0.33"))
    assert len(unit.body) == 150


def test_intmeth_keeps_every_unusual_octet() -> None:
    unit = request("intmeth")
    assert unit.method == "!interesting-Method0123456789_*+`.%indeed'~"
    assert isinstance(unit.uri, SipUri)
    assert unit.uri.host == "example.com"
    assert unit.uri.password == "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)"
    assert unit.to.display == "BEL:\x07 NUL:\x00 DEL:\x7f"
    assert unit.max_forwards == 255
    assert unit.value("extensionheader-!.%*+_`'~") == "\ufeff大停電"
    assert parse_datagram(unit.to_bytes()) is not None
    again = parse_datagram(unit.to_bytes())
    assert isinstance(again, SipRequest)
    assert again.headers == unit.headers


def test_escapes_are_decoded_for_comparison_only() -> None:
    unit = request("esc01")
    assert isinstance(unit.uri, SipUri)
    assert (unit.uri.user, unit.uri.user_text) == ("sips%3Auser%40example.com", "sips:user@example.com")
    assert isinstance(unit.to.uri, SipUri)
    assert unit.to.uri.user_text == "user"
    null = request("escnull")
    assert isinstance(null.to.uri, SipUri)
    assert null.to.uri.user_text == "null-\0-null"
    assert [contact.uri.user_text for contact in null.contacts if isinstance(contact.uri, SipUri)] == ["\0", "\0\0"]
    assert request("esc02").method == "RE%47IST%45R"
    assert len(request("esc02").contacts) == 2  # C%6Fntact is another header


def test_semicolons_may_stand_in_the_user_part() -> None:
    uri = request("semiuri").uri
    assert isinstance(uri, SipUri)
    assert (uri.user, uri.host, uri.params) == ("user;par=u%40example.net", "example.com", ())


def test_contact_parameters_belong_where_they_stand() -> None:
    (outside,) = request("cparam01").contacts
    assert outside.params == (("unknownparam", None),)
    (inside,) = request("cparam02").contacts
    assert inside.params == ()
    assert isinstance(inside.uri, SipUri)
    assert inside.uri.params == (("unknownparam", None),)


def test_unknown_schemes_and_transports_are_read() -> None:
    assert request("unkscm").uri == OtherUri("nobodyknowsthisscheme", "totallyopaquecontent")
    assert request("unksm2").from_.uri == OtherUri("http", "//www.example.com")
    assert [Via.parse(text).transport for text in request("transports").vias] == [
        "UDP",
        "SCTP",
        "TLS",
        "UNKNOWN",
        "TCP",
    ]


def test_the_second_request_of_a_stream_is_handled_and_that_of_a_datagram_dropped() -> None:
    reader = StreamReader()
    reader.feed(octets("dblreq"))
    first = reader.next_unit()
    assert isinstance(first, SipRequest)
    units = [unit for unit in iter(reader.next_unit, None) if isinstance(unit, SipRequest)]
    assert [unit.method for unit in units] == ["INVITE"]
    assert request("dblreq").body == b""


def test_binary_multipart_body_is_kept_byte_for_byte() -> None:
    raw = octets("mpart01")
    assert request("mpart01").body == raw[raw.index(b"\r\n\r\n") + 4 :]


def test_reason_phrases_in_any_script_are_read() -> None:
    unit = parse_datagram(octets("unreason"))
    assert isinstance(unit, SipResponse)
    assert unit.reason.endswith("простое")
    assert len(unit.vias) == 1

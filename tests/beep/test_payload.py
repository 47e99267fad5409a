"""``beep/payload.py``: MIME entities and application/beep+xml (RFC 3080 sections 2.2 and 6.4)."""

from __future__ import annotations

import pytest

from comity.beep.payload import BEEP_XML, parse_beep_xml, read_beep_xml, split_payload, write_beep_xml
from comity.errors import RemoteProtocolError
from comity.xml import Element


def test_without_headers_the_defaults_hold() -> None:
    """APEX-3: a payload that begins with CR LF is application/octet-stream, binary, octet for octet."""
    assert split_payload(b"\r\nEND\r\n\0\xff") == ({}, b"END\r\n\0\xff")
    assert split_payload(b"\r\n") == ({}, b"")
    with pytest.raises(RemoteProtocolError):
        read_beep_xml(b"\r\n<ok />")


def test_headers_are_read_whatever_their_case_and_folds() -> None:
    headers, body = split_payload(b"content-TYPE:  text/plain;\r\n charset=utf-8 \r\nX: y:z\r\n\r\n\r\nbody")
    assert headers == {"content-type": "text/plain; charset=utf-8", "x": "y:z"}
    assert body == b"\r\nbody"


@pytest.mark.parametrize(
    "payload", [b"", b"A: b\r\n", b"A: b", b"no header\r\n\r\n", b": x\r\n\r\n", b"A: 1\r\na: 2\r\n\r\n"]
)
def test_what_is_no_entity_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        split_payload(payload)
    assert caught.value.hint == "500"


@pytest.mark.parametrize(
    ("header", "is_read"),
    [
        (b"Content-Type: application/beep+xml", True),
        (b"Content-type:application/BEEP+XML; charset=UTF-8", True),
        (b'Content-Type: application/beep+xml; charset="us-ascii"', True),
        (b"Content-Type: application/beep+xml\r\nContent-Transfer-Encoding: binary", True),
        (b"Content-Type: application/beep+xml; charset=utf-16", False),
        (b"Content-Type: application/beep+xml\r\nContent-Transfer-Encoding: base64", False),
        (b"Content-Type: text/xml", False),
        (b"X: y", False),
    ],
)
def test_only_beep_xml_in_utf8_is_read(header: bytes, is_read: bool) -> None:
    payload = header + b"\r\n\r\n<ok />"
    if is_read:
        assert read_beep_xml(payload) == Element("ok")
        return
    with pytest.raises(RemoteProtocolError) as caught:
        read_beep_xml(payload)
    assert caught.value.hint == "500"


@pytest.mark.parametrize(
    ("xml", "hint"),
    [
        (b"<?xml version='1.0'?><ok/>", "500"),
        (b"<ok>", "500"),
        (b"", "500"),
        (b"<ok/><ok/>", "500"),
        (b"<!DOCTYPE ok><ok/>", "restricted-xml"),
        (b"<ok>&x;</ok>", "500"),
        (b"<?pi x?><ok/>", "500"),
        (b"<a>" * 9 + b"</a>" * 9, "500"),
    ],
)
def test_other_xml_is_refused(xml: bytes, hint: str) -> None:
    """P-14, P-30: 500, or the end of the session for what nobody sends by mistake."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_beep_xml(xml)
    assert caught.value.hint == hint


def test_white_space_around_is_nothing() -> None:
    """As the examples of RFC 3080 have it inside ``profile``."""
    assert parse_beep_xml(b"\n    <ready />\n") == Element("ready")


def test_what_is_written_is_read() -> None:
    element = Element("error", {"code": "550"}, ["still <working>"])
    assert read_beep_xml(write_beep_xml(element)) == element
    assert BEEP_XML.encode() in write_beep_xml(element)

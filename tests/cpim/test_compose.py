"""comity.cpim.compose: what Comity writes (RFC 3862 section 2.3.1)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from comity.cpim.address import Address
from comity.cpim.header import CORE, NamedAddress
from comity.cpim.message import CpimMessage, check_profile, new_message_id
from comity.errors import LocalProtocolError

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)


def build(**changed: Any) -> CpimMessage:
    return CpimMessage.build(**{"from_": "im:a@x.example", "to": "im:b@y.example", "content": b"hi", **changed})


def test_object_has_a_fixed_form() -> None:
    """FMT-44, SEED-25."""
    arguments: dict[str, Any] = {
        "from_": NamedAddress("Al", "im:a@x.example"),
        "to": ["im:b@y.example", NamedAddress("C, D", "im:c@y.example")],
        "cc": ["im:d@y.example"],
        "date_time": WHEN,
        "subject": {"": "Hello", "fr": "Bonjour"},
        "message_id": "abc",
        "headers": [("NS", "p <urn:x>"), ("p.Foo", "1")],
        "content_headers": [("Content-Language", "en")],
    }
    message = build(**arguments)
    assert message.raw == (
        b"From: Al <im:a@x.example>\r\n"
        b"To: <im:b@y.example>\r\n"
        b'To: "C, D" <im:c@y.example>\r\n'
        b"cc: <im:d@y.example>\r\n"
        b"DateTime: 2026-01-02T03:04:05.678Z\r\n"
        b"Subject: Hello\r\n"
        b"Subject:;lang=fr Bonjour\r\n"
        b"NS: imdn <urn:ietf:params:imdn>\r\n"
        b"imdn.Message-ID: abc\r\n"
        b"NS: p <urn:x>\r\n"
        b"p.Foo: 1\r\n"
        b"\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n"
        b"Content-Language: en\r\n"
        b"\r\n"
        b"hi"
    )
    assert build(**arguments).raw == message.raw
    check_profile(message)
    assert message.headers[-1].namespace == "urn:x"
    assert message.headers[0].namespace == CORE


def test_overhead_of_a_small_text_is_at_most_250_octets() -> None:
    """CONSTR-3."""
    message = build(
        from_="im:alice@example.org",
        to="im:bob@example.net",
        date_time=WHEN,
        message_id=new_message_id(bytes(16)),
        content=b"x" * 100,
    )
    assert len(message.raw) - 100 <= 250


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a\\\tb", rb"a\\\tb"),
        ("\b\n\r", rb"\b\n\r"),
        ('say "x"', b'say "x"'),
        ("it's", b"it's"),
        ("\x07\x7f\x00\x1f", rb"\u0007\u007f\u0000\u001f"),
        ("é/\u0085\u2028😀", "é/\u0085\u2028😀".encode()),
        ("x\r\nTo: <im:boss@x>", rb"x\r\nTo: <im:boss@x>"),
    ],
)
def test_subject_is_escaped_exactly_as_demanded(text: str, written: bytes) -> None:
    """FMT-6, FMT-16, FMT-17, FMT-18, C-10."""
    message = build(subject=text)
    assert b"\r\nSubject: " + written + b"\r\n" in message.raw
    assert message.subject() == text


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ('Al "x"', rb'"Al \"x\""'),
        ("O'Hara", b"O'Hara"),
        ("J. R.", b"J. R."),
        ("a  b", b'"a  b"'),
        (" a ", b'" a "'),
        ("a\\b", rb'"a\\b"'),
        ("x\r\n", rb'"x\r\n"'),
    ],
)
def test_formal_name_is_quoted_where_needed(name: str, written: bytes) -> None:
    """FMT-17, X2."""
    message = build(from_=NamedAddress(name, "im:a@x.example"))
    assert message.raw.startswith(b"From: " + written + b" <im:a@x.example>\r\n")
    assert message.from_ == (name, "im:a@x.example")


def test_spaces_around_a_subject_and_empty_subjects_are_not_written() -> None:
    """X3, FMT-5."""
    assert build(subject="  a b  ").subject() == "a b"
    assert build(subject=[("fr", "   ")]).subjects == {}


def test_time_is_written_in_utc() -> None:
    assert (
        build(date_time=datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=2)))).date_time_text
        == "1999-12-31T22:00:00Z"
    )
    assert build(date_time=WHEN + timedelta(microseconds=9)).date_time == WHEN


def test_addresses_may_be_given_as_such() -> None:
    message = build(from_=Address.im("a b", "x.example"), to=Address.im("c", "y.example"))
    assert message.raw.startswith(b"From: <im:a%20b@x.example>\r\nTo: <im:c@y.example>\r\n")


@pytest.mark.parametrize(
    "changed",
    [
        {"to": []},
        {"from_": "a@x.example"},
        {"from_": "im:a@x\r\nTo: <im:c@z>"},
        {"from_": "im:\u017e@x"},
        {"to": "im:a@x>"},
        {"date_time": datetime(2026, 1, 1)},
        {"subject": [("not a tag", "x")]},
        {"subject": "\ud800"},
        {"message_id": "a@b"},
        {"message_id": "a\r\nb"},
        {"headers": [("a/b", "x")]},
        {"headers": [("X", "")]},
        {"headers": [("X", " x")]},
        {"content_type": "text/plain\r\nX: y"},
        {"content_type": ""},
        {"content_headers": [("X Y", "z")]},
        {"content_headers": [("Content-Description", "a\nb")]},
        {"content_headers": [("content-transfer-encoding", "base64")]},
        {"content_headers": [("content-type", "text/html")]},
    ],
)
def test_what_cannot_be_expressed_is_refused(changed: dict[str, Any]) -> None:
    """C-10, SEED-25: no argument makes another header."""
    with pytest.raises(LocalProtocolError):
        build(**changed)

"""JIDs: ADDR-25, ADDR-26, XMPP-17 and RFC 7622 section 3.5's tables."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.jid import Jid
from comity.errors import AddressError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("juliet@example.com", Jid("juliet", "example.com")),
        ("Juliet@EXÄMPLE.com.", Jid("juliet", "exämple.com")),
        ("juliet@xn--exmple-cua.com", Jid("juliet", "exämple.com")),
        ("juliet@example.com/foo bar", Jid("juliet", "example.com", "foo bar")),
        ("juliet@example.com/foo@bar", Jid("juliet", "example.com", "foo@bar")),
        ("a@b/c@d/e", Jid("a", "b", "c@d/e")),
        ("foo\\20bar@example.com", Jid("foo\\20bar", "example.com")),
        ("fußball@example.com", Jid("fußball", "example.com")),
        ("π@example.com", Jid("π", "example.com")),
        ("Σ@example.com/foo", Jid("σ", "example.com", "foo")),
        ("king@example.com/♚", Jid("king", "example.com", "♚")),
        ("example.com", Jid("", "example.com")),
        ("example.com/foobar", Jid("", "example.com", "foobar")),
        ("a@127.0.0.1", Jid("a", "127.0.0.1")),
    ],
)
def test_valid(text: str, expected: Jid) -> None:
    assert Jid.parse(text) == expected
    assert Jid.parse(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"juliet"@example.com',
        "foo bar@example.com",
        "juliet@example.com/",
        "@example.com/",
        "henryⅣ@example.com",
        "♚@example.com",
        "juliet@",
        "/foobar",
        "",
        "im:a@b.test",
        "a@b@c",
        "x" * 1024 + "@b",
        "a@b/" + "x" * 1024,
        "a@-b.test",
        "a@b..c",
        "a@b c",
        "a\u0000@b",
        "a@b/\u0007",
    ],
)
def test_invalid(text: str) -> None:
    with pytest.raises(AddressError):
        Jid.parse(text)


def test_parts_of_1023_octets_are_allowed() -> None:
    assert len(Jid.parse("x" * 1023 + "@b.test/" + "y" * 1023).resource) == 1023


@given(st.text(max_size=40))
def test_any_text_is_a_jid_or_an_address_error(text: str) -> None:
    try:
        jid = Jid.parse(text)
    except AddressError:
        return
    assert Jid.parse(str(jid)) == jid


@pytest.mark.parametrize(
    "text",
    ["é" * 100_000 + "@a.test", "a\u0300" * 100_000 + "@a.test", "a@a.test/" + "é" * 200_000, "a@" + "é" * 200_000],
)
def test_long_text_is_refused_before_it_is_prepared(text: str) -> None:
    """X-51, G7: preparing 200,000 characters took 0.25 s."""
    began = time.process_time()
    with pytest.raises(AddressError):
        Jid.parse(text)
    assert time.process_time() - began < 0.02

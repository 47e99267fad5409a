"""A page of HTML as a text and as XHTML-IM (RFC 7572 section 7, XEP-0071, T26)."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.bindings.xmpp.mapping import BODY
from comity.bindings.xmpp.xhtml import XHTML, XHTML_IM, page_of
from comity.cpim.native import wrap
from comity.cpim.operations import MimeObject
from comity.xml import Element, serialize
from tests.bindings.xmpp.test_mapping import ALICE, BOB, WHEN, operation, sent


def page(html: str) -> tuple[str, str]:
    """Text, and the inside of XHTML-IM's body as it is written."""
    found = page_of(MimeObject.of("text/html", html.encode()))
    assert found is not None
    text, element = found
    assert element.name == f"{{{XHTML_IM}}}html"
    (body,) = element.elements()
    return text, serialize(body, XHTML).decode().removeprefix("<body>").removesuffix("</body>")


@pytest.mark.parametrize(
    ("html", "text", "inside"),
    [
        ("<p>Hello <b>you</b> &amp; me</p>", "Hello you & me", "<p>Hello <strong>you</strong> &amp; me</p>"),
        ("a<br>b<BR/>c", "a\nb\nc", "a<br/>b<br/>c"),
        ("<ul><li>1<li>2</ul>", "- 1\n- 2", "<ul><li>1<li>2</li></li></ul>"),
        (
            "<a href='https://a.test/x'>here</a>",
            "here <https://a.test/x>",
            "<a href='https://a.test/x'>here</a>",
        ),
        ("<a href='javascript:alert(1)' onclick='x()'>here</a>", "here", "<a>here</a>"),
        ("<p style='position:fixed' class='x'>styled</p>", "styled", "<p>styled</p>"),
        ("<script>evil()</script><style>p{}</style>ok<img src='http://a.test/spy.png'>", "ok", "ok"),
        (
            "<html><head><title>T</title></head><body><table><tr><td>cell</td></tr></table></body></html>",
            "cell",
            "<p>cell</p>",
        ),
        ("</p></div>left <i>open", "left open", "left <em>open</em>"),
        ("&lt;script&gt;", "<script>", "&lt;script&gt;"),
    ],
)
def test_what_comes_through(html: str, text: str, inside: str) -> None:
    assert page(html) == (text, inside)


def test_to_an_xmpp_program() -> None:
    """The body is the text; the object is carried beside it only to who takes it."""
    thing = wrap(ALICE, BOB, b"<p>Hello <b>you</b></p>", "text/html", when=WHEN, message_id="m")
    out = sent(operation(thing))
    assert [body.text for body in out.find_all(BODY)] == ["Hello you"]
    assert out.find(f"{{{XHTML_IM}}}html") is not None


@pytest.mark.parametrize(
    "obj",
    [
        MimeObject.of("text/plain", b"<p>x</p>"),
        MimeObject.of("text/html; charset=iso-8859-2", b"<p>\xb1</p>"),
        MimeObject.of("text/html", b"<p>\xb1</p>"),
        MimeObject.of("text/html", b"<p>\x00</p>"),
        MimeObject.of("text/html", b"<p>" + b"x" * 40_000),
        MimeObject.of("text/html", b"<em>" * 100 + b"x"),
        MimeObject.of("text/html", b"<br>" * 2000 + b"x"),
        MimeObject.of("text/html", b"<img src='x'>"),
        MimeObject.of("message/cpim", b"x"),
    ],
)
def test_what_is_no_page_or_too_much_goes_whole(obj: MimeObject) -> None:
    """GW-2, I18N-5."""
    assert page_of(obj) is None


@pytest.mark.parametrize("piece", ["<!", "<a ", "<!--", "</", "&#", "<![", "<a href='", "<script>", "&amp", "<x y=z "])
def test_bad_pages_are_not_dear(piece: str) -> None:
    """G7: whatever the parser makes of it, within the bound on its size."""
    data = (piece * 32_768)[: 32 * 1024].encode()
    began = time.process_time()
    page_of(MimeObject.of("text/html", data))
    assert time.process_time() - began < 0.2


@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<a href='x:y'>", "</a>", "<b", ">", "x", "&#1;", "&#xd800;", "<!--", "]]>", "\u2028"]
        )
    )
)
def test_any_page_can_be_written(pieces: list[str]) -> None:
    found = page_of(MimeObject.of("text/html", "".join(pieces).encode()))
    if found is not None:
        assert serialize(Element("{jabber:client}body", {}, [found[0]]))
        assert serialize(found[1])

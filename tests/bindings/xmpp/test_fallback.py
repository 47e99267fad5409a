"""What XMPP programs say without words, as programs of other protocols show it, and as XMPP programs get it back (T5)."""

from __future__ import annotations

import pytest

from comity.bindings.xmpp.mapping import BODY, SUBJECT
from comity.cpim.native import alternatives, plain_text, plain_texts, wrap
from comity.cpim.operations import MimeObject
from comity.xml import Element
from tests.bindings.xmpp.test_mapping import ALICE, BOB, WHEN, ingress, operation, sent, stanza

REPLACE = "<replace xmlns='urn:xmpp:message-correct:0' id='m1'/>"
OOB = "<x xmlns='jabber:x:oob'><url>https://files.a.test/cat.png</url>{}</x>"
REACTIONS = "<reactions xmlns='urn:xmpp:reactions:0' id='m1'>{}</reactions>"


@pytest.mark.parametrize(
    ("children", "shown"),
    [
        (f"<body>new text</body>{REPLACE}", "[Correction of an earlier message] new text"),
        (
            "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/>",
            "[The sender asks you to disregard an earlier message.]",
        ),
        (
            "<apply-to xmlns='urn:xmpp:fasten:0' id='m1'><retract xmlns='urn:xmpp:message-retract:0'/></apply-to>",
            "[The sender asks you to disregard an earlier message.]",
        ),
        (
            "<retract xmlns='urn:xmpp:message-retract:1' id='m1'/><fallback xmlns='urn:xmpp:fallback:0'/>"
            "<body>I retracted a message.</body>",
            "I retracted a message.",
        ),
        (REACTIONS.format("<reaction>👋</reaction><reaction>🐢</reaction>"), "[Reaction to a message: 👋 🐢]"),
        (REACTIONS.format(""), "[Reaction to a message withdrawn]"),
        (
            "<reply xmlns='urn:xmpp:reply:0' id='m1'/><fallback xmlns='urn:xmpp:fallback:0' for='urn:xmpp:reply:0'/>"
            "<body>&gt; Hello\nHi</body>",
            "> Hello\r\nHi",
        ),
        ("<attention xmlns='urn:xmpp:attention:0'/>", "[The sender asks for your attention.]"),
        (OOB.format("<desc>My  cat</desc>"), "My cat: https://files.a.test/cat.png"),
        ("<body>https://files.a.test/cat.png</body>" + OOB.format(""), "https://files.a.test/cat.png"),
        ("<body>Look:</body>" + OOB.format(""), "Look:\r\nhttps://files.a.test/cat.png"),
        (f"<body>Look:</body>{REPLACE}{OOB.format('')}", None),
        ("<body>plain</body>", "plain"),
        ("<body/>", ""),
    ],
)
def test_in_words_for_others_and_as_it_was_for_xmpp(children: str, shown: str | None) -> None:
    """T5: readable text outside; between XMPP programs the same elements as were sent."""
    source = stanza(children, "to='bob@b.test' type='chat' id='m2'")
    made = ingress(source)
    text = plain_text(made.object)
    assert text is not None
    if shown is not None:
        assert text.text == shown
    out = sent(made)
    ours = "{urn:xmpp:sid:0}stanza-id"
    key = lambda child: child.name  # noqa: E731 - order among different children says nothing
    children_out = sorted((child for child in out.elements() if child.name != ours), key=key)
    assert children_out == sorted(source.elements(), key=key)


def test_correction_and_link_together() -> None:
    made = ingress(stanza(f"<body>Look:</body>{REPLACE}{OOB.format('')}"))
    text = plain_text(made.object)
    assert text is not None
    assert text.text == "[Correction of an earlier message] Look:\r\nhttps://files.a.test/cat.png"


@pytest.mark.parametrize(
    "children",
    ["<encrypted xmlns='urn:k'/>", "<received xmlns='urn:xmpp:receipts' id='9'/>", "<x xmlns='jabber:x:oob'/>"],
)
def test_what_has_no_words_is_not_made_into_a_text(children: str) -> None:
    made = ingress(stanza(children))
    assert made.object.media_type == "application/xmpp+xml"
    assert not made.context.native_is_whole


def test_a_subject_stays_beside_a_correction() -> None:
    made = ingress(stanza(f"<subject>S</subject><body>new</body>{REPLACE}"))
    out = sent(made)
    assert [child.text for child in out.find_all(SUBJECT)] == ["S"]
    assert [child.text for child in out.find_all(BODY)] == ["new"]
    text = plain_text(made.object)
    assert text is not None
    assert text.subjects == (("i-default", "S"),)


class TestLanguages:
    """Several bodies are a multipart/alternative with Content-Language, and back (T5, I18N-1)."""

    def test_one_object_for_all_of_them(self) -> None:
        made = ingress(
            stanza(
                "<body>hi</body><body xml:lang='de'>hallo</body><body xml:lang='cs'>ahoj</body>"
                "<body xml:lang='de'>nochmal</body>",
                "to='bob@b.test' xml:lang='en'",
            )
        )
        assert [(one.language, one.text) for one in plain_texts(made.object)] == [
            ("de", "hallo"),
            ("cs", "ahoj"),
            ("en", "hi"),
        ]
        text = plain_text(made.object)
        assert text is not None
        assert (text.language, text.text) == ("en", "hi")  # the last: for who prefers none

    def test_bodies_again(self) -> None:
        content_type, octets = alternatives([("de", b"hallo"), ("cs", b"ahoj"), ("en", b"hi\r\nyou")], "b")
        out = sent(operation(wrap(ALICE, BOB, octets, content_type, when=WHEN, message_id="m")))
        assert {body.language: body.text for body in out.find_all(BODY)} == {
            "de": "hallo",
            "cs": "ahoj",
            "en": "hi\nyou",
        }
        assert out.find_all(BODY)[0].language == "en"

    def test_a_boundary_that_stands_in_a_text_is_not_used(self) -> None:
        content_type, octets = alternatives([("de", b"\r\n--b\r\n"), ("en", b"--bx")], "b")
        obj = wrap(ALICE, BOB, octets, content_type, when=WHEN, message_id="m")
        assert [one.text for one in plain_texts(obj)] == ["\r\n--b\r\n", "--bx"]

    def test_a_page_beside_its_text(self) -> None:
        """RFC 7572 section 7: the text of the two is shown."""
        octets = b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>hello</p>\r\n--b--"
        out = sent(operation(MimeObject.of("multipart/alternative; boundary=b", octets)))
        assert [body.text for body in out.find_all(BODY)] == ["hello"]

    @pytest.mark.parametrize("other", [b"Content-Type: image/png", b"Content-Type: text/plain; charset=iso-8859-2"])
    def test_what_is_more_than_a_text_goes_whole(self, other: bytes) -> None:
        """GW-2, I18N-5."""
        octets = b"--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n--b\r\n" + other + b"\r\n\r\n\xb1\r\n--b--"
        assert plain_text(MimeObject.of("multipart/alternative; boundary=b", octets)) is None


def test_bodies_and_reactions_are_bounded() -> None:
    """No more of them than fit a line."""
    many = "".join(f"<reaction>{n}</reaction>" for n in range(100))
    made = ingress(stanza(REACTIONS.format(many)))
    text = plain_text(made.object)
    assert text is not None
    assert text.text.endswith(" 15]")
    assert len(list(next(e for e in sent(made).elements() if e.local == "reactions").elements())) == 100
    assert isinstance(sent(made), Element)

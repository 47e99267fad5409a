"""comity.cpim.native: native content into objects and back to text; failure reports."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

import pytest

from comity.cpim.address import Address
from comity.cpim.imdn import disposition_report, is_report
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.native import PlainText, plain_text, readable_part, wrap
from comity.cpim.operations import MimeObject
from comity.errors import LocalProtocolError

ALICE = Address.parse("im:alice@x.example")
BOB = Address.parse("im:bob@y.example")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
UTF8 = "text/plain; charset=utf-8"


def wrapped(content: bytes, content_type: str = UTF8, **more: object) -> MimeObject:
    return wrap(ALICE, BOB, content, content_type, when=WHEN, message_id="abc", **more)  # type: ignore[arg-type]  # tests pass what wrap takes


class TestWrapping:
    """GW-1, SEED-9."""

    def test_native_text_becomes_one_valid_object(self) -> None:
        obj = wrapped("žluť".encode(), subjects=[("", "Hi"), ("cs", "Ahoj")], language="cs")
        assert obj.header_block == b"Content-Type: message/cpim\r\n"
        message = CpimMessage.parse(obj.octets)
        check_profile(message)
        assert message.from_ == ("", ALICE.uri)
        assert message.to == (("", BOB.uri),)
        assert (message.date_time, message.message_id) == (WHEN, "abc")
        assert plain_text(obj) == PlainText("žluť", "žluť".encode(), "cs", (("i-default", "Hi"), ("cs", "Ahoj")))

    @pytest.mark.parametrize("content", [bytes(range(256)), b"", b"\n\r\n\x00"])
    def test_content_octets_are_untouched(self, content: bytes) -> None:
        """C-24, SEED-33."""
        obj = wrapped(content, "image/png", content_headers=[("Content-Disposition", "inline")])
        message = CpimMessage.parse(obj.octets)
        assert (message.content, message.content_type) == (content, "image/png")
        assert message.content_header("content-disposition") == "inline"
        assert plain_text(obj) is None

    def test_encoded_native_content_keeps_its_encoding(self) -> None:
        """SEED-11, SEED-25: received encodings stay, none is added."""
        obj = wrapped(b"aGk=", UTF8, content_headers=[("Content-Transfer-Encoding", "base64")])
        assert CpimMessage.parse(obj.octets).content == b"aGk="
        text = plain_text(obj)
        assert text is not None
        assert text.text == "hi"
        assert b"transfer-encoding" not in wrapped(b"hi").octets.lower()

    def test_what_cannot_be_written_is_refused(self) -> None:
        with pytest.raises(LocalProtocolError):
            wrapped(b"", "text/plain\r\nX: y")


class TestPlainText:
    """GW-2, I18N-5."""

    def test_bare_text(self) -> None:
        obj = MimeObject(b"Content-Type: text/plain\r\nContent-Language: en\r\n", b"a\r\nb")
        assert plain_text(obj) == PlainText("a\r\nb", b"a\r\nb", "en", ())

    def test_encoded_text_is_decoded(self) -> None:
        block = b"Content-Type: Text/Plain; Charset=UTF-8\r\nContent-Transfer-Encoding: base64\r\n"
        text = plain_text(MimeObject(block, base64.b64encode("é".encode())))
        assert text is not None
        assert (text.text, text.content) == ("é", "é".encode())

    @pytest.mark.parametrize(
        ("content_type", "content"),
        [
            ("text/plain", b"\xc3\xa9"),
            (UTF8, b"\xe9"),
            ("text/plain; charset=iso-8859-2", b"x"),
            ("text/html", b"x"),
            ("multipart/signed; boundary=x", b"x"),
            ("message/cpim", b"x"),
            ("text/plain; charset", b"x"),
        ],
    )
    def test_everything_else_goes_whole_or_not_at_all(self, content_type: str, content: bytes) -> None:
        assert plain_text(MimeObject.of(content_type, content)) is None
        assert plain_text(wrapped(content, content_type)) is None


class TestReadablePart:
    def signed(self, part: bytes) -> MimeObject:
        octets = b"--n\r\n" + part + b"\r\n--n\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--n--"
        return MimeObject.of("multipart/signed; boundary=n", octets)

    def test_text_inside_a_clear_signed_object(self) -> None:
        """SEED-42: both orders of wrapping and signing."""
        inside = self.signed(wrapped(b"hello").entity)
        assert readable_part(inside) == "hello"
        outside = self.signed(MimeObject.of(UTF8, b"hello").entity)
        assert readable_part(wrapped(outside.octets, outside.content_type)) == "hello"

    def test_first_readable_alternative(self) -> None:
        octets = b"--m\r\nContent-Type: text/html\r\n\r\n<p>\r\n--m\r\nContent-Type: text/plain\r\n\r\nhello\r\n--m--"
        entity = MimeObject.of("multipart/alternative; boundary=m", octets).entity
        assert readable_part(self.signed(entity)) == "hello"

    @pytest.mark.parametrize("media_type", ["multipart/encrypted; boundary=n", "application/pkcs7-mime", "image/png"])
    def test_nothing_without_a_key(self, media_type: str) -> None:
        assert readable_part(MimeObject.of(media_type, b"--n\r\n\r\nhello\r\n--n--")) is None

    def test_broken_or_deep_objects_give_nothing(self) -> None:
        assert readable_part(self.signed(b"no header")) is None
        obj = wrapped(b"hello")
        for _ in range(20):
            obj = wrapped(obj.octets, "message/cpim")
        assert readable_part(obj) is None


class TestFailureReport:
    """RFC 5438 sections 7.2.1.1, 8.2 and 11."""

    def report(self, failed: MimeObject, **more: str) -> tuple[CpimMessage, ET.Element]:
        obj = disposition_report(failed, sender=ALICE, recipient=BOB, when=WHEN, message_id="report-1", **more)  # type: ignore[arg-type]  # only about_id is passed
        assert is_report(obj)
        message = CpimMessage.parse(obj.octets)
        check_profile(message)
        return message, ET.fromstring(message.content)

    def test_elements_come_from_the_failed_object(self) -> None:
        """IMDN-5."""
        message, document = self.report(wrapped(b"secret text", subjects=[("", "<a> & \x07")]))
        assert message.from_ == ("", BOB.uri)
        assert message.to == (("", ALICE.uri),)
        assert message.message_id == "report-1"
        assert message.content_type == "message/imdn+xml"
        assert message.content_header("Content-Disposition") == "notification"
        space = "{urn:ietf:params:xml:ns:imdn}"
        found = {child.tag.removeprefix(space): child.text for child in document}
        assert found == {
            "message-id": "abc",
            "datetime": "2026-01-02T03:04:05Z",
            "recipient-uri": BOB.uri,
            "original-recipient-uri": BOB.uri,
            "subject": "<a> & \ufffd",
            "delivery-notification": None,
        }
        assert document.find(f"{space}delivery-notification/{space}status/{space}failed") is not None
        assert b"secret" not in message.raw

    @pytest.mark.parametrize(
        "failed", [MimeObject.of("application/pkcs7-mime", b"x"), MimeObject.of("message/cpim", b"x")]
    )
    def test_object_that_shows_nothing(self, failed: MimeObject) -> None:
        _, document = self.report(failed, about_id="native-7")
        assert document[0].text == "native-7"

    def test_only_notifications_are_reports(self) -> None:
        """No report is ever made about a report."""
        assert is_report(MimeObject.of("Message/IMDN+xml", b"<imdn/>"))
        assert not is_report(wrapped(b"message/imdn+xml"))
        assert not is_report(MimeObject.of("message/cpim", b"imdn+xml"))
        assert not is_report(MimeObject.of("text/plain", b""))

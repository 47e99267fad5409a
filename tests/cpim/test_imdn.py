"""Disposition notifications as objects (RFC 5438 sections 6, 7 and 11)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.address import Address
from comity.cpim.imdn import STATUSES, WISHES, Imdn, asking, notification, notification_in, parse_imdn, wishes_of
from comity.cpim.message import CpimMessage
from comity.errors import MalformedMessage

ALICE, BOB = Address.parse("im:alice@example.com"), Address.parse("im:bob@example.com")
#: RFC 5438 section 7.2.1.1, with the empty line that RFC 3862 wants before the content's headers (X4).
EXAMPLE = b"""From: Bob <im:bob@example.com>\r
To: Alice <im:alice@example.com>\r
NS: imdn <urn:ietf:params:imdn>\r
imdn.Message-ID: d834jied93rf\r
\r
Content-type: message/imdn+xml\r
Content-Disposition: notification\r
Content-length: ...\r
\r
<?xml version="1.0" encoding="UTF-8"?>
<imdn xmlns="urn:ietf:params:xml:ns:imdn">
      <message-id>34jk324j</message-id>
      <datetime>2008-04-04T12:16:49-05:00</datetime>
     <recipient-uri>im:bob@example.com</recipient-uri>
      <original-recipient-uri
        >im:bob@example.com</original-recipient-uri>
      <delivery-notification>
         <status>
            <delivered/>
         </status>
      </delivery-notification>
    </imdn>
"""
SAYS = Imdn(
    "34jk324j", "2008-04-04T12:16:49-05:00", "delivered", "delivery", "im:bob@example.com", "im:bob@example.com"
)
ASKING = """From: <im:alice@example.com>\r
To: <im:bob@example.com>\r
DateTime: 2008-04-04T12:16:49-05:00\r
NS: {prefix} <urn:ietf:params:imdn>\r
{prefix}.Message-ID: 34jk324j\r
{prefix}.Disposition-Notification: {wishes}\r
\r
Content-Type: {content}\r
\r
Hello World"""


def asked(wishes: str, prefix: str = "imdn", content: str = "text/plain") -> set[str]:
    return set(wishes_of(CpimMessage.parse(ASKING.format(wishes=wishes, prefix=prefix, content=content).encode())))


class TestReading:
    def test_the_example_of_the_rfc(self) -> None:
        """IMDN-5."""
        assert notification_in(CpimMessage.parse(EXAMPLE)) == SAYS
        displayed = EXAMPLE.replace(b"delivery-n", b"display-n").replace(b"<delivered/>", b"<displayed/>")
        said = notification_in(CpimMessage.parse(displayed))
        assert said is not None
        assert (said.kind, said.status) == ("display", "displayed")
        assert notification_in(CpimMessage.parse(EXAMPLE.replace(b"message/imdn+xml", b"text/plain"))) is None

    @pytest.mark.parametrize(("kind", "status"), [(kind, word) for kind, words in STATUSES.items() for word in words])
    def test_every_status_is_written_and_read(self, kind: str, status: str) -> None:
        imdn = Imdn("m", "2008-04-04T12:16:49Z", status, kind, BOB.uri, BOB.uri, "<&>")
        assert parse_imdn(imdn.document()) == imdn

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("<imdn ", "<!DOCTYPE imdn>\n<imdn "),
            ("ns:imdn", "ns:imdn2"),
            ("<delivered/>", "<delivered/><failed/>"),
            ("<delivered/>", "<displayed/>"),
            ("<delivered/>", "<delivered xmlns='urn:x'/>"),
            ("<delivered/>", ""),
            ("<status>", "<status/><status>"),
            ("<message-id>34jk324j</message-id>", ""),
            ("34jk324j", "34 jk"),
            ("34jk324j", "x" * 300),
            ("34jk324j", "<b/>x"),
            ("<datetime>2008-04-04T12:16:49-05:00</datetime>", ""),
            ("<message-id>", "<message-id>x</message-id><message-id>"),
            ("<delivery-notification>", "<note/><delivery-notification>"),
            ("</delivery-notification>", "</delivery-notification><display-notification/>"),
            ("</imdn>", "</imdn>" + " " * 20_000),
            ("</imdn>", ""),
        ],
    )
    def test_anything_else_is_refused(self, old: str, new: str) -> None:
        """I-07."""
        content = EXAMPLE.partition(b"...\r\n\r\n")[2].decode()
        assert old in content
        with pytest.raises(MalformedMessage):
            parse_imdn(content.replace(old, new, 1).encode())

    def test_extensions_of_others_are_passed_over(self) -> None:
        """RFC 5438 section 11.1.9, anyIMDN."""
        content = EXAMPLE.partition(b"...\r\n\r\n")[2].decode()
        more = "<x:y xmlns:x='urn:x'><x:z>1</x:z></x:y>"
        for place in ("<message-id>", "<delivery-notification>", "<status>", "<delivered/>"):
            assert parse_imdn(content.replace(place, more + place, 1).encode()) == SAYS

    @given(st.binary(max_size=400))
    def test_any_octets_are_a_notification_or_refused(self, octets: bytes) -> None:
        for data in (octets, EXAMPLE.partition(b"...\r\n\r\n")[2].replace(b"34jk324j", octets)):
            try:
                said = parse_imdn(data)
            except MalformedMessage:
                continue
            assert parse_imdn(said.document()) == said

    @given(
        st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=256),
        st.text(max_size=60),
        st.sampled_from(sorted({word for words in STATUSES.values() for word in words} - {"error", "forbidden"})),
    )
    def test_what_is_written_is_read(self, about: str, subject: str, status: str) -> None:
        said = parse_imdn(Imdn(about, "2008-04-04T12:16:49Z", status, subject=subject).document())
        assert (said.message_id, said.status) == (about, status)


class TestAsking:
    @pytest.mark.parametrize(
        ("wishes", "expected"),
        [
            ("positive-delivery", {"positive-delivery"}),
            ("positive-delivery, negative-delivery", {"positive-delivery", "negative-delivery"}),
            ("processing,display , shine", {"processing", "display"}),
            ("shine", set()),
            (",", set()),
        ],
    )
    def test_values(self, wishes: str, expected: set[str]) -> None:
        """IMDN-3: unknown ones are ignored."""
        assert asked(wishes) == expected

    def test_any_prefix(self) -> None:
        """IMDN-1."""
        assert asked("display", prefix="q") == {"display"}

    @pytest.mark.parametrize("line", ["DateTime", "imdn.Message-ID", "NS"])
    def test_without_what_correlates_nothing_is_asked(self, line: str) -> None:
        """IMDN-1."""
        text = ASKING.format(wishes="display", prefix="imdn", content="text/plain")
        lines = [one for one in text.split("\r\n") if not one.startswith(f"{line}:")]
        assert wishes_of(CpimMessage.parse("\r\n".join(lines).encode())) == frozenset()

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ("message/imdn+xml", set()),  # IMDN-4
            ("application/pkcs7-mime; smime-type=enveloped-data", set()),  # IMDN-11
            ('multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b', set()),
            ('multipart/signed; protocol="application/pkcs7-signature"; boundary=b', {"display"}),
        ],
    )
    def test_notifications_and_what_is_encrypted_ask_for_nothing(self, content: str, expected: set[str]) -> None:
        assert asked("display", content=content) == expected

    def test_what_is_made_is_a_notification_and_asks_nothing(self) -> None:
        """IMDN-4."""
        made = notification(SAYS, from_=BOB, to=ALICE, when=datetime(2026, 1, 2, tzinfo=UTC), message_id="r" * 16)
        view = CpimMessage.parse(made.octets)
        assert notification_in(view) == SAYS
        assert view.content_header("content-disposition") == "notification"
        assert view.message_id == "r" * 16
        assert wishes_of(view) == frozenset()
        assert asking([]) == []
        assert asking(WISHES)[0][1] == "positive-delivery, negative-delivery, processing, display"

"""comity.cpim.message: what RFC 3862 allows, what it does not, and the application profile."""

from __future__ import annotations

import dataclasses
import os
import timeit
from datetime import UTC, datetime

import pytest

from comity.cpim.address import Address
from comity.cpim.header import CORE, IMDN
from comity.cpim.message import DEFAULT, CpimLimits, CpimMessage, check_profile, new_message_id
from comity.errors import MalformedMessage

FROM = "From: <im:a@x.example>\r\n"
TO = "To: <im:b@y.example>\r\n"
CONTENT = "Content-Type: text/plain\r\n\r\nhello"


def raw(*headers: str, base: str = FROM + TO, content: str = CONTENT) -> bytes:
    return (base + "".join(header + "\r\n" for header in headers) + "\r\n" + content).encode()


def parse(*headers: str, base: str = FROM + TO) -> CpimMessage:
    message = CpimMessage.parse(raw(*headers, base=base))
    assert message.raw == raw(*headers, base=base)
    return message


def values(message: CpimMessage, name: str) -> list[str]:
    return [header.value for header in message.headers if header.name == name]


class TestLines:
    """RFC 3862 section 2.2."""

    @pytest.mark.parametrize(
        "line",
        [
            "To:<im:a@b.example>",
            "To:  <im:a@b.example>",
            "To:\t<im:a@b.example>",
            "To : <im:a@b.example>",
            "Subject: trailing ",
            "Subject:",
            " Subject: continued",
            "\tSubject: continued",
            "Subject: one\r\n two",
            "Subject: a\tb",
            "Subject: a\x7fb",
            "Subject: a\x00b",
            "Subject: a\x0bb",
            "Subject: a\rb",
            "Subject: a\nTo: <im:c@d.example>",
            "a/b: 1",
            "a.b.c: 1",
            ".a: 1",
            "a.: 1",
            "Předmět: 1",
            "no colon",
            "\ufeffSubject: mark",
            "Subject:;lang Bon",
            "Subject:;lang=fr  Bon",
            'Subject:;x="open Bon',
            "Subject: ;lang=fr ",
        ],
    )
    def test_line_outside_the_grammar_is_malformed(self, line: str) -> None:
        """FMT-3, FMT-5, FMT-7, FMT-9, FMT-10, FMT-23, SEED-13, SEED-15, SEED-16, C-01, C-02, C-03, C-04, C-12, C-15."""
        octets = raw(line)
        with pytest.raises(MalformedMessage) as error:
            CpimMessage.parse(octets)
        assert error.value.offset is not None
        assert len(FROM + TO) <= error.value.offset <= len(octets)

    @pytest.mark.parametrize("ends", ["\n", "\r"])
    def test_line_ends_other_than_cr_lf_are_not_repaired(self, ends: str) -> None:
        """FMT-7, SEED-20, C-01."""
        with pytest.raises(MalformedMessage, match="CR LF"):
            CpimMessage.parse(raw().replace(b"\r\n", ends.encode()))

    @pytest.mark.parametrize("octets", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\xe2\x82"])
    def test_octets_that_are_not_utf_8_are_malformed(self, octets: bytes) -> None:
        """FMT-6, SEED-14, C-14: lone, overlong, surrogate, five octets, cut short."""
        with pytest.raises(MalformedMessage, match="UTF-8"):
            CpimMessage.parse(raw("Subject: @@").replace(b"@@", octets))

    @pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\u0080", "\u009f"])
    def test_only_cr_lf_ends_a_line(self, character: str) -> None:
        """FMT-8, FMT-9."""
        message = parse(f"Subject: a{character}b")
        assert len(message.headers) == 3
        assert message.subject() == f"a{character}b"

    def test_empty_value_is_kept(self) -> None:
        """X3."""
        assert parse("Subject: ").subjects == {"i-default": ""}

    def test_names_are_exact(self) -> None:
        """FMT-11, FMT-35, C-05."""
        message = parse("from: <im:c@z.example>", "CC: <im:c@z.example>", base=TO)
        assert message.from_ is None
        assert message.cc == ()

    def test_unknown_and_repeated_headers_are_kept_in_order(self) -> None:
        """FMT-12, FMT-13, FMT-14, FMT-23."""
        message = parse("X-Foo: 2", "Top&Tail: fine", "X-Foo: 1")
        assert values(message, "X-Foo") == ["2", "1"]
        assert message.headers[3].uri == CORE + "Top%26Tail"

    def test_offset_points_at_the_line_after_multibyte_text(self) -> None:
        octets = raw("Subject: žluťoučký", "Bad")
        with pytest.raises(MalformedMessage) as error:
            CpimMessage.parse(octets)
        assert error.value.offset is not None
        assert octets[error.value.offset :].startswith(b"Bad\r\n")


class TestEscapes:
    """RFC 3862 section 2.3."""

    @pytest.mark.parametrize(
        ("written", "text"),
        [
            (r"a\\b\tc", "a\\b\tc"),
            (r"\b\n\r", "\b\n\r"),
            (r"\u0041", "A"),
            (r"\"\'", "\"'"),
            ("a\\qb\\", "aqb"),
            (r"\u00", "u00"),
            (r"\ud83d\ude00", "😀"),
            (r"\ud83d", "�"),
            (r"\ude00\ud83d", "��"),
            (r"\ud83dx\ude00", "�x�"),
            ("=?utf-8?Q?taken_literally?=", "=?utf-8?Q?taken_literally?="),
        ],
    )
    def test_escapes_are_resolved_in_the_view_only(self, written: str, text: str) -> None:
        """FMT-16, FMT-19, FMT-20, C-11."""
        assert parse(f"Subject: {written}").subject() == text

    def test_text_is_not_normalized(self) -> None:
        """I18N-3."""
        assert parse("Subject: z\u030c").subject() == "z\u030c"

    def test_header_parameters(self) -> None:
        """FMT-10, FMT-24, FMT-25."""
        header = parse(r'Subject:;lang=en;x="a; \"b\"" Hi').headers[2]
        assert (header.value, header.language, header.params) == ("Hi", "en", (("lang", "en"), ("x", 'a; "b"')))


class TestNamespaces:
    """RFC 3862 section 3.4."""

    def test_prefix_carries_no_meaning(self) -> None:
        """FMT-27, FMT-28, SEED-19."""
        uri = "http://id.acme.widgets/wily-headers/"
        for lines in (
            (f"NS: acme <{uri}>", "acme.runner-trap: set"),
            (f"NS: widget<{uri}>", "widget.runner-trap: set"),
            (f"NS: <{uri}>", "runner-trap: set"),
        ):
            header = parse(*lines).headers[-1]
            assert (header.namespace, header.name, header.value) == (uri, "runner-trap", "set")

    def test_default_namespace_hides_core_names(self) -> None:
        """FMT-29, FMT-30, C-16."""
        message = parse("NS: <urn:o>", "To: <im:c@z.example>", base=FROM)
        assert message.to == ()
        with pytest.raises(MalformedMessage, match="looks like From and is none"):
            check_profile(CpimMessage.parse(raw("NS: <urn:o>", FROM.strip(), base="")))

    @pytest.mark.parametrize(
        "lines",
        [
            ("from: <im:boss@x.example>",),
            ("FROM: boss",),
            ("tO: <im:boss@x.example>",),
            ("NS: <urn:o>", "From: <im:boss@x.example>"),
        ],
    )
    def test_what_others_may_take_for_the_sender_is_refused_at_submission(self, lines: tuple[str, ...]) -> None:
        """C-05, C-16, T5: two readers, one sender. A prefixed name of another namespace is nobody's From."""
        with pytest.raises(MalformedMessage, match="looks like"):
            check_profile(parse(*lines))
        check_profile(parse("NS: o <urn:o>", "o.From: <im:boss@x.example>", "Cc: boss"))

    def test_core_headers_through_an_alias(self) -> None:
        """FMT-31, C-17."""
        message = parse("NS: c <urn:ietf:params:cpim-headers:>", "c.From: <im:a@x.example>", base=TO)
        assert message.from_ == ("", "im:a@x.example")
        check_profile(message)

    @pytest.mark.parametrize("uri", ["../x", "urn:a#b", "", "no-scheme", "urn:a b", "urn:\u017e"])
    def test_namespace_must_be_an_absolute_uri(self, uri: str) -> None:
        """FMT-26."""
        message = parse(f"NS: p <{uri}>")
        assert message.flags == ("ns-ignored",)

    def test_misprinted_namespace_is_another_one(self) -> None:
        """X1."""
        assert parse("NS: c <urn:ietf:params-cpim-headers:>", "c.From: <im:z@z.example>").from_ == (
            "",
            "im:a@x.example",
        )

    @pytest.mark.parametrize("lines", [("p.A: 1", "NS: p <urn:p>"), ("NS: p <urn:p>", "NS: p <urn:q>")])
    def test_prefix_used_early_or_declared_twice_is_refused_at_submission(self, lines: tuple[str, ...]) -> None:
        """FMT-27, C-18."""
        with pytest.raises(MalformedMessage, match="prefix"):
            check_profile(parse(*lines))

    def test_declaration_after_a_change_of_default_is_refused_at_submission(self) -> None:
        message = parse("NS: <urn:o>", "NS: <urn:ietf:params:cpim-headers:>", "From: <im:boss@z.example>")
        assert message.from_ == ("", "im:a@x.example")
        with pytest.raises(MalformedMessage, match="NS"):
            check_profile(message)

    def test_require_resolves_at_its_place(self) -> None:
        """FMT-33, FMT-34, C-19."""
        message = parse("NS: a <urn:a>", "Require: a.X,Locale.MustRenderKanji,Subject", "NS: Locale <urn:l>")
        assert message.require == (("urn:a", "X"), ("", "Locale.MustRenderKanji"), (CORE, "Subject"))
        assert message.unknown_requirements == [("urn:a", "X"), ("", "Locale.MustRenderKanji")]

    def test_requirement_outside_the_grammar_stays_unknown(self) -> None:
        assert parse("Require: From, b/c,").unknown_requirements == [("", "b/c"), ("", "")]

    @pytest.mark.parametrize("prefix", ["imdn", "other"])
    def test_message_id_under_any_prefix(self, prefix: str) -> None:
        assert parse(f"NS: {prefix} <{IMDN}>", f"{prefix}.Message-ID: 34jk324j").message_id == "34jk324j"


class TestAddresses:
    """RFC 3862 sections 4.1 to 4.3."""

    @pytest.mark.parametrize(
        ("value", "name", "uri"),
        [
            ("Winnie the Pooh <im:pooh@100akerwood.com>", "Winnie the Pooh", "im:pooh@100akerwood.com"),
            ("<im:tigger@100akerwood.com>", "", "im:tigger@100akerwood.com"),
            (r'"Al \"x\"" <im:a@b>', 'Al "x"', "im:a@b"),
            ('"Al, (x) <im:evil@b>"<im:a@b>', "Al, (x) <im:evil@b>", "im:a@b"),
            ("Žluťoučký kůň <sip:a@b;x=y>", "Žluťoučký kůň", "sip:a@b;x=y"),
        ],
    )
    def test_formal_name_and_uri(self, value: str, name: str, uri: str) -> None:
        """FMT-35, X2."""
        message = parse(f"To: {value}", f"cc: {value}", base=FROM + TO)
        assert message.to[1] == message.cc[0] == (name, uri)

    @pytest.mark.parametrize(
        "value",
        [
            "a (x) <im:a@b>",
            "im:a@b",
            "<im:a@b> x",
            "<a@b>",
            "<im:a@b",
            "A  B <im:a@b>",
            "A<im:a@b>",
            "<im:a@b><im:c@d>",
            "<im:a b@c>",
            "<im:a@b#c>",
            "<im:\u017e@b>",
            "<>",
            '"A" "B" <im:a@b>',
            "A, B <im:a@b>",
            "",
        ],
    )
    def test_other_values_are_malformed(self, value: str) -> None:
        """FMT-35, SEED-13."""
        with pytest.raises(MalformedMessage, match="formal name"):
            CpimMessage.parse(raw(f"To: {value}"))

    @pytest.mark.parametrize(
        "uri", ["im:al@z.example", "sip:al@Z.example;x=y", "xmpp:al@z.example/r", "pres:%61l@z.example"]
    )
    def test_people_are_compared_whatever_the_scheme(self, uri: str) -> None:
        """ADDR-4, C-20, C-22, C-23."""
        al = Address.parse("im:al@z.example")
        message = parse(f"From: <{uri}>", f"cc: <{uri}>", base=TO)
        assert message.sender == al
        assert message.names(al)
        assert message.names(al.with_scheme("pres"))
        assert not message.names(Address.parse("im:Al@z.example"))

    def test_address_of_another_kind_is_nobody(self) -> None:
        message = parse("From: <tel:+1555>", "cc: <tel:+1555>", base=TO)
        assert message.sender is None
        assert not message.names(Address.parse("im:a@x.example"))
        assert parse("From: <im:a@x.example>").sender is None


class TestDateTime:
    """RFC 3862 section 4.4."""

    @pytest.mark.parametrize(
        ("text", "utc"),
        [
            ("2000-12-13T13:40:00-08:00", datetime(2000, 12, 13, 21, 40, tzinfo=UTC)),
            ("2001-02-01t12:16:49.123456789z", datetime(2001, 2, 1, 12, 16, 49, 123456, tzinfo=UTC)),
            ("1990-12-31T15:59:60-08:00", datetime(1991, 1, 1, tzinfo=UTC)),
            ("9999-12-31T23:59:59Z", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ],
    )
    def test_rfc_3339_timestamps(self, text: str, utc: datetime) -> None:
        """FMT-36, SEED-24, C-28."""
        message = parse(f"DateTime: {text}")
        check_profile(message)
        assert message.date_time is not None
        assert message.date_time.utcoffset() is not None
        assert message.date_time.astimezone(UTC) == utc

    @pytest.mark.parametrize(
        "text",
        [
            "2000-12-13 13:40",
            "2000-12-13T13:40:00",
            "Fri, 15 Dec 2000 10:00:00 +0000",
            "976838400",
            "2000-02-30T00:00:00Z",
            "2000-01-01T00:00:00+25:00",
            "2000-01-01T24:00:00Z",
            "2000-01-01T12:30:60Z",
            "0001-01-01T00:00:00+23:00",
            "9999-12-31T23:59:60Z",
            "9999-12-31T23:59:59-01:00",
            "２０00-12-13T13:40:00Z",
            "2000-W01-1T00:00:00Z",
            "",
        ],
    )
    def test_other_forms_are_not_usable(self, text: str) -> None:
        """FMT-36, SEED-24, C-28."""
        message = parse(f"DateTime: {text}")
        assert message.date_time is None
        assert message.date_time_text == text
        with pytest.raises(MalformedMessage, match="RFC 3339"):
            check_profile(message)

    def test_absence_is_allowed(self) -> None:
        """SEED-18, SEED-35, C-28."""
        check_profile(parse())
        assert parse().date_time is None


class TestContent:
    """RFC 3862 section 2.4."""

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "\r\n",
            "hello",
            "Content-ID: <1@x>\r\n\r\nhello",
            "Content-Type: text/plain\r\n",
            "Content-Type: text/plain\n\nhello",
            "Content-Type: text/plain\r\ncontent-type: text/html\r\n\r\n",
            "Content-Type : text/plain\r\n\r\n",
            " Content-Type: text/plain\r\n\r\n",
        ],
    )
    def test_content_without_one_content_type_is_malformed(self, content: str) -> None:
        """FMT-2, FMT-21."""
        with pytest.raises(MalformedMessage):
            CpimMessage.parse(raw(content=content))

    def test_content_headers_follow_mime(self) -> None:
        """FMT-22, FMT-43, C-30."""
        message = CpimMessage.parse(
            raw(content="CONTENT-type: text/plain;\r\n\tcharset=utf-8\r\nContent-Length: 1\r\n\r\nhello")
        )
        assert message.content_type == "text/plain; charset=utf-8"
        assert message.content == b"hello"
        assert message.content_header_block == b"CONTENT-type: text/plain;\r\n\tcharset=utf-8\r\nContent-Length: 1\r\n"

    @pytest.mark.parametrize("body", [bytes(range(256)), b"", b"\r\n\r\n", b"a\nb\rc\x00"])
    def test_any_octets_may_be_content(self, body: bytes) -> None:
        """C-24, SEED-11, SEED-32."""
        octets = raw(content="Content-Type: application/x-unknown\r\n\r\n") + body
        message = CpimMessage.parse(octets)
        assert (message.content, message.raw) == (body, octets)

    def test_missing_empty_line_is_read_leniently_only_if_asked(self) -> None:
        """X4, with the example of RFC 5438 section 7.1.1.3."""
        octets = raw(
            "Content-type: message/imdn+xml", "Content-Disposition: notification", content="<?xml?>\r\n\r\n<imdn/>"
        )
        with pytest.raises(MalformedMessage):
            CpimMessage.parse(octets)
        message = CpimMessage.parse(octets, lenient=True)
        assert message.raw == octets
        assert message.content_type == "message/imdn+xml"
        assert message.content == b"<?xml?>\r\n\r\n<imdn/>"
        assert message.flags == ("content-type-in-message-headers",)
        assert CpimMessage.parse(raw("Content-type: x/y"), lenient=True).content_type == "text/plain"


class TestProfile:
    """FMT-38: what an application demands (RFC 3862 section 6)."""

    def test_from_and_to_are_enough(self) -> None:
        """SEED-18."""
        check_profile(parse())

    @pytest.mark.parametrize("base", [FROM, TO, ""])
    def test_from_and_to_are_required(self, base: str) -> None:
        """SEED-17, C-06."""
        with pytest.raises(MalformedMessage, match="there is no"):
            check_profile(parse(base=base))

    @pytest.mark.parametrize("second", ["From: <im:boss@x.example>", "From: <im:a@x.example>"])
    def test_two_senders_are_refused_at_submission_and_nobody_at_relay(self, second: str) -> None:
        """C-07, C-10, FMT-38."""
        message = parse(second)
        assert message.flags == ("ambiguous-sender",)
        assert message.from_ is None
        assert len(message.senders) == 2
        with pytest.raises(MalformedMessage, match="more than one From"):
            check_profile(message)

    @pytest.mark.parametrize("line", ["DateTime: 2000-12-13T13:40:00Z", "i.Message-ID: abc"])
    def test_single_headers_may_not_repeat(self, line: str) -> None:
        message = parse(f"NS: i <{IMDN}>", line, line)
        assert message.date_time is None
        assert message.message_id == ""
        with pytest.raises(MalformedMessage, match="more than one"):
            check_profile(message)

    def test_recipients_and_subjects_may_repeat(self) -> None:
        """FMT-12, C-08."""
        message = parse(
            "To: <im:c@z.example>", "cc: <im:d@z.example>", "Subject: a", "Subject:;lang=fr b", "Subject: c"
        )
        check_profile(message)
        assert [to.uri for to in message.to] == ["im:b@y.example", "im:c@z.example"]
        assert message.subjects == {"i-default": "a", "fr": "b"}


class TestLimits:
    """CONSTR-1, C-09, C-27: each limit and one more."""

    def size_error(self, octets: bytes, limits: CpimLimits = DEFAULT) -> None:
        with pytest.raises(MalformedMessage) as error:
            CpimMessage.parse(octets, limits=limits)
        assert error.value.hint == "size"

    def test_object(self) -> None:
        octets = raw()
        CpimMessage.parse(octets + b"x" * (DEFAULT.message - len(octets)))
        self.size_error(octets + b"x" * (DEFAULT.message - len(octets) + 1))

    def test_header(self) -> None:
        line = "Subject: " + "x" * (DEFAULT.header - 9)
        parse(line)
        self.size_error(raw(line + "x"))

    def test_header_count(self) -> None:
        parse(*["X: y"] * (DEFAULT.headers - 2))
        self.size_error(raw(*["X: y"] * (DEFAULT.headers - 1)))

    def test_header_block(self) -> None:
        octets = raw("Subject: " + "x" * 5000)
        limits = CpimLimits(header_block=octets.index(b"\r\n\r\n") + 2)
        CpimMessage.parse(octets, limits=limits)
        self.size_error(raw("Subject: " + "x" * 5001), limits)

    def test_content_header_block(self) -> None:
        block = "Content-Type: a/b\r\nX: " + "y" * 5000 + "\r\n"
        limits = CpimLimits(header_block=len(block))
        CpimMessage.parse(raw(content=block + "\r\n"), limits=limits)
        self.size_error(raw(content=block.replace("y\r", "yy\r") + "\r\n"), limits)

    def test_content_headers(self) -> None:
        self.size_error(raw(content="Content-Type: a/b\r\n" + "X: y\r\n" * 64 + "\r\n"))
        self.size_error(raw(content="Content-Type: a/b\r\nX: " + "y" * 9000 + "\r\n\r\n"))

    def test_no_line_length_limit_of_our_own_while_the_limits_allow_it(self) -> None:
        """FMT-4."""
        limits = CpimLimits(message=2**20, header_block=2**20, header=2**20)
        assert len(CpimMessage.parse(raw("Subject: " + "x" * 2**19), limits=limits).subject()) == 2**19


def test_view_cannot_be_changed() -> None:
    """FMT-15."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse().raw = b""  # type: ignore[misc]  # the point of the test


def test_small_object_is_read_in_well_under_60_microseconds() -> None:
    """A loose bound, so that a slow machine passes; bench/ has the figure."""
    octets = raw("DateTime: 2000-12-13T13:40:00Z", f"NS: imdn <{IMDN}>", "imdn.Message-ID: abc")
    limits = CpimLimits()  # not the default object: keeps the small cache out of the measurement
    best = min(timeit.repeat(lambda: CpimMessage.parse(octets, limits=limits), number=200, repeat=5)) / 200
    assert best < 300e-6


def test_message_ids_are_tokens_of_at_least_64_random_bits() -> None:
    """SEED-36, IMDN-2."""
    assert new_message_id(b"\xff" * 16) == "_" * 21 + "w"
    assert len({new_message_id(number.to_bytes(8, "big")) for number in range(1000)}) == 1000
    with pytest.raises(ValueError, match="64"):
        new_message_id(b"1234567")


def test_a_million_message_ids_are_all_different() -> None:
    """SEED-36: of 96 random bits, the fewest that any message made here gets."""
    assert len({new_message_id(os.urandom(12)) for _ in range(1_000_000)}) == 1_000_000

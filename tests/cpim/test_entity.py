"""comity.cpim.entity: MIME entities around and inside message/cpim."""

from __future__ import annotations

import base64
import quopri
import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.entity import (
    MAX_HEADER,
    content_object,
    content_type_params,
    cpim_view,
    decode_transfer,
    from_chain,
    is_secured,
    multipart_parts,
    signed_part,
    split_entity,
)
from comity.cpim.message import CpimLimits, CpimMessage
from comity.cpim.operations import MimeObject, unfold
from comity.errors import MalformedMessage

INNER = b"From: <im:a@x.example>\r\nTo: <im:b@y.example>\r\n\r\nContent-Type: text/plain\r\n\r\nhello"


def nest(content: bytes, sender: str, content_type: str = "message/cpim") -> bytes:
    return CpimMessage.build(from_=sender, to="im:b@y.example", content=content, content_type=content_type).raw


def cpim(octets: bytes) -> MimeObject:
    return MimeObject.of("message/cpim", octets)


def signed(part: bytes, count: int = 2) -> MimeObject:
    parts = [part] + [b"Content-Type: application/pkcs7-signature\r\n\r\nsignature"] * (count - 1)
    octets = b"".join(b"--next\r\n" + one + b"\r\n" for one in parts) + b"--next--\r\n"
    return MimeObject.of(
        "multipart/signed; boundary=next; micalg=sha-256; protocol=application/pkcs7-signature", octets
    )


class TestSplitting:
    def test_header_block_and_octets_join_to_the_input(self) -> None:
        raw = b"content-TYPE: a/b;\r\n x=y\r\nX: z\r\n\r\n\r\nbody\n"
        obj = split_entity(raw)
        assert obj.entity == raw
        assert (obj.content_type, obj.octets) == ("a/b; x=y", b"\r\nbody\n")
        assert split_entity(b"\r\nbody") == MimeObject(b"", b"body")

    def test_lf_header_only_where_told(self) -> None:
        raw = b"Content-Type: a/b\nX: y\n\nline\n\r\n\r\n"
        with pytest.raises(MalformedMessage):
            split_entity(b"Content-Type: a/b\nX: y\n\nline\n")
        obj = split_entity(raw, allow_lf=True)
        assert obj == MimeObject(b"Content-Type: a/b\r\nX: y\r\n", b"line\n\r\n\r\n")
        assert split_entity(b"\nbody", allow_lf=True).octets == b"body"
        assert split_entity(b"A: b\r\n\r\nx\n\n", allow_lf=True).octets == b"x\n\n"

    def test_a_header_is_bounded_and_unfolded(self) -> None:
        """CONSTR-1: the header of a file of 16 MiB cost minutes, and 300 MB."""
        with pytest.raises(MalformedMessage) as found:
            split_entity(b"X: y\r\n" + b" y\r\n" * (MAX_HEADER // 4) + b"\r\n")
        assert found.value.hint == "size"
        whole = split_entity(b"X: y\r\n" + b" y\r\n" * 10_000 + b"\r\n")
        assert unfold(whole.header_block) == ["X: y" + " y" * 10_000]

    @pytest.mark.parametrize("raw", [b"", b"Content-Type: a/b\r\n", b"hello"])
    def test_header_without_end_is_malformed(self, raw: bytes) -> None:
        with pytest.raises(MalformedMessage):
            split_entity(raw)


class TestContentType:
    """RFC 2045 section 5.1."""

    @pytest.mark.parametrize(
        ("value", "media_type", "params"),
        [
            ("Text/Plain", "text/plain", {}),
            ("text/plain; Charset=UTF-8;", "text/plain", {"charset": "UTF-8"}),
            (' a/b ;x="q\\"; y=1" ; z = 2 ', "a/b", {"x": 'q"; y=1', "z": "2"}),
            (
                "multipart/signed; protocol=application/pkcs7-signature",
                "multipart/signed",
                {"protocol": "application/pkcs7-signature"},
            ),
        ],
    )
    def test_type_and_parameters(self, value: str, media_type: str, params: dict[str, str]) -> None:
        """SEC-13."""
        assert content_type_params(value) == (media_type, params)
        content_type_params(value)[1]["x"] = "changed"
        assert content_type_params(value) == (media_type, params)

    @pytest.mark.parametrize(
        "value", ["", "text", "text/", "a/b; x", "a/b; x=", 'a/b; x="open', "a/b x=y", "a/b; x=1; X=2", "a/b/c"]
    )
    def test_other_values_are_malformed(self, value: str) -> None:
        with pytest.raises(MalformedMessage):
            content_type_params(value)


class TestMultipart:
    """RFC 2046 section 5.1.1."""

    def parts(self, octets: bytes, boundary: str = "next", limits: CpimLimits | None = None) -> list[bytes]:
        return multipart_parts(
            MimeObject.of(f'multipart/mixed; boundary="{boundary}"', octets), limits=limits or CpimLimits()
        )

    def test_exact_octets_of_each_part(self) -> None:
        """SEC-2, SEC-3: the CR LF before a boundary belongs to it, and only that one."""
        octets = b"preamble\r\n--next \t\r\na\r\n\r\n--next\r\nb\n\r\n--next2\r\n x--next\r\n--next-\r\n\r\n--next--\r\nepilogue\r\n--next\r\n"
        assert self.parts(octets) == [b"a\r\n", b"b\n\r\n--next2\r\n x--next\r\n--next-\r\n"]
        assert self.parts(b"--next\r\n\r\n--next--") == [b""]

    def test_boundary_is_taken_literally(self) -> None:
        assert self.parts(b"--a.b? (c)\r\nx\r\n--aXb? (c)\r\ny\r\n--a.b? (c)--", "a.b? (c)") == [
            b"x\r\n--aXb? (c)\r\ny"
        ]

    @pytest.mark.parametrize(
        "octets", [b"", b"--next--\r\n", b"--next\r\nx", b"--next\nx\n--next--\n", b"--next\r\n--next--\r\n"]
    )
    def test_incomplete_multipart_is_malformed(self, octets: bytes) -> None:
        with pytest.raises(MalformedMessage):
            self.parts(octets)

    @pytest.mark.parametrize("boundary", ["", "x" * 71, "ends ", "\u017e", "a;b"])
    def test_unusable_boundary_is_malformed(self, boundary: str) -> None:
        with pytest.raises(MalformedMessage):
            self.parts(b"--x--\r\n", boundary)

    def test_number_of_parts_is_limited(self) -> None:
        """CONSTR-1."""
        limits = CpimLimits(parts=2)
        assert len(self.parts(b"--next\r\nx\r\n--next\r\ny\r\n--next--", limits=limits)) == 2
        with pytest.raises(MalformedMessage) as error:
            self.parts(b"--next\r\nx\r\n--next\r\ny\r\n--next\r\nz\r\n--next--", limits=limits)
        assert error.value.hint == "size"

    @given(
        st.lists(
            st.sampled_from([b"--b", b"--b--", b"\r\n", b"\r", b"\n", b" ", b"\t", b"-", b"text"]), max_size=14
        ).map(b"".join)
    )
    def test_boundary_lines_are_those_of_the_grammar(self, octets: bytes) -> None:
        """RFC 2046 section 5.1.1, as one regular expression."""
        line = re.compile(rb"(?:\A|\r\n)--b(--)?[ \t]*(?:\r\n|\Z)")
        lines = list(line.finditer(octets))
        last = next((number for number, found in enumerate(lines) if found[1]), 0)
        if not last:
            with pytest.raises(MalformedMessage):
                self.parts(octets)
        else:
            between = pairwise(lines[: last + 1])
            assert self.parts(octets) == [octets[one.end() : other.start()] for one, other in between]


class TestTransferEncoding:
    """RFC 2045 section 6."""

    def decode(self, encoding: str, octets: bytes) -> bytes:
        return decode_transfer(
            MimeObject(f"Content-Type: a/b\r\nContent-Transfer-Encoding: {encoding}\r\n".encode(), octets)
        )

    @pytest.mark.parametrize("encoding", ["7bit", "8BIT", "binary"])
    def test_identity(self, encoding: str) -> None:
        assert self.decode(encoding, bytes(range(256))) == bytes(range(256))
        assert decode_transfer(MimeObject.of("a/b", b"x=20")) == b"x=20"

    def test_base64_and_quoted_printable(self) -> None:
        octets = bytes(range(256)) * 2
        assert self.decode("Base64", base64.encodebytes(octets)) == octets
        assert (
            self.decode("quoted-printable", quopri.encodestring(b"a=b \xc3\xa9\r\nend  \r\n"))
            == b"a=b \xc3\xa9\r\nend  \r\n"
        )
        assert self.decode("quoted-printable", b"soft=  \r\n line  \r\n=41=") == b"soft line\r\nA"

    @pytest.mark.parametrize(
        ("encoding", "octets"),
        [
            ("base64", b"a"),
            ("base64", b"ab*d"),
            ("base64", b"YQ==YQ=="),
            ("quoted-printable", b"=4"),
            ("quoted-printable", b"=zz"),
            ("x-uuencode", b""),
        ],
    )
    def test_broken_or_unknown_encoding_is_malformed(self, encoding: str, octets: bytes) -> None:
        with pytest.raises(MalformedMessage):
            self.decode(encoding, octets)


class TestLayers:
    def test_secured_types(self) -> None:
        for media_type in ("multipart/encrypted; boundary=x", "Application/PKCS7-MIME; smime-type=enveloped-data"):
            obj = MimeObject.of(media_type, b"opaque")
            assert is_secured(obj)
            assert is_secured(cpim(nest(b"opaque", "im:a@x.example", media_type)))
            assert is_secured(cpim(nest(nest(b"opaque", "im:a@x.example", media_type), "im:c@z.example")))
            assert cpim_view(obj) is None
        assert is_secured(signed(b"Content-Type: a/b\r\n\r\nx"))

    @pytest.mark.parametrize(
        "obj", [cpim(INNER), cpim(b"junk"), MimeObject.of("text/plain", b"x"), MimeObject(b"", b"")]
    )
    def test_unsecured_or_unreadable_is_not_known_to_be_secured(self, obj: MimeObject) -> None:
        assert not is_secured(obj)

    def test_view_behind_a_transfer_encoding(self) -> None:
        """FMT-40: the whole entity was encoded for a 7-bit path."""
        block = b"Content-Type: Message/CPIM\r\nContent-Transfer-Encoding: base64\r\n"
        message = cpim_view(MimeObject(block, base64.encodebytes(INNER)))
        assert message is not None
        assert message.raw == INNER

    def test_view_of_the_signed_part(self) -> None:
        """SEC-1, SEED-42: readable without checking the signature."""
        obj = signed(b"Content-Type: message/cpim\r\n\r\n" + INNER)
        message = cpim_view(obj)
        assert message is not None
        assert message.raw == INNER
        assert signed_part(obj).octets == INNER
        assert cpim_view(signed(b"Content-Type: text/plain\r\n\r\nx")) is None

    @pytest.mark.parametrize("count", [1, 3])
    def test_signed_has_exactly_two_parts(self, count: int) -> None:
        """SEC-1."""
        with pytest.raises(MalformedMessage):
            cpim_view(signed(b"Content-Type: message/cpim\r\n\r\n" + INNER, count))

    def test_body_that_is_not_what_the_type_says_is_malformed(self) -> None:
        """C-32."""
        with pytest.raises(MalformedMessage):
            cpim_view(cpim(b"hello"))

    def test_wrapping_three_times_and_back(self) -> None:
        """SEED-12, FMT-41, FMT-42."""
        raw = INNER
        for sender in ("im:c@z.example", "im:d@z.example"):
            raw = nest(raw, sender)
        message = CpimMessage.parse(raw)
        chain = [layer.uri for layer in from_chain(message) if layer]
        assert chain == ["im:d@z.example", "im:c@z.example", "im:a@x.example"]
        inner = CpimMessage.parse(content_object(message).octets)
        assert content_object(inner).octets == INNER

    def test_nesting_is_followed_to_the_limit_only(self) -> None:
        """C-31, SEED-31."""
        raw = INNER
        for _ in range(100):
            raw = nest(raw, "im:c@z.example")
        assert len(from_chain(CpimMessage.parse(raw))) == CpimLimits().depth
        assert len(from_chain(CpimMessage.parse(raw), limits=CpimLimits(depth=1))) == 1
        assert not is_secured(cpim(raw))

    def test_chain_ends_at_what_cannot_be_read(self) -> None:
        assert len(from_chain(CpimMessage.parse(nest(b"junk", "im:c@z.example")))) == 1
        ambiguous = nest(b"From: <im:e@x>\r\n" + INNER, "im:c@z.example")
        assert from_chain(CpimMessage.parse(ambiguous))[1] is None

"""The published examples of RFC 3862 section 5, read as whole MIME entities (FMT-45)."""

from __future__ import annotations

import email
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from comity.cpim.entity import cpim_view, is_secured, multipart_parts, split_entity
from comity.cpim.header import CORE
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.operations import MimeObject

SAMPLES = Path(__file__).parent / "rfc3862"
FEATURES = "mid:MessageFeatures@id.foo.com"


def sample(name: str) -> MimeObject:
    return split_entity((SAMPLES / name).read_bytes())


def view(obj: MimeObject) -> CpimMessage:
    message = cpim_view(obj)
    assert message is not None
    return message


def test_example_5_1_has_the_documented_values() -> None:
    """FMT-2, FMT-24, FMT-37, FMT-45, SEED-33."""
    obj = sample("example-5.1.eml")
    message = view(obj)
    check_profile(message)
    assert message.raw == obj.octets
    assert len(message.headers) == 9
    assert message.from_ == ("MR SANDERS", "im:piglet@100akerwood.com")
    assert message.to == (("Depressed Donkey", "im:eeyore@100akerwood.com"),)
    assert message.date_time == datetime(2000, 12, 13, 13, 40, tzinfo=timezone(timedelta(hours=-8)))
    assert message.subjects == {
        "i-default": "the weather will be fine today",
        "fr": "beau temps prevu pour aujourd'hui",
    }
    assert message.subject("fr-CA") == "beau temps prevu pour aujourd'hui"
    assert message.subject() == message.subject("de") == "the weather will be fine today"
    assert message.require == ((FEATURES, "VitalMessageOption"),)
    assert message.unknown_requirements == [(FEATURES, "VitalMessageOption")]
    extensions = [(header.namespace, header.name, header.value) for header in message.headers[-2:]]
    assert extensions == [
        (FEATURES, "VitalMessageOption", "Confirmation-requested"),
        (FEATURES, "WackyMessageOption", "Use-silly-font"),
    ]
    assert message.content_headers == (
        ("Content-type", "text/xml; charset=utf-8"),
        ("Content-ID", "<1234567890@foo.com>"),
    )
    assert message.content == b"<body>\r\nHere is the text of my message.\r\n</body>\r\n"
    assert message.flags == ()


def test_layers_of_example_5_1_join_to_the_input() -> None:
    """SEED-6: message metadata, content metadata and content are three separate layers."""
    message = view(sample("example-5.1.eml"))
    metadata = b"".join(header.raw + b"\r\n" for header in message.headers)
    assert metadata + b"\r\n" + message.content_header_block + b"\r\n" + message.content == message.raw
    for header in message.headers:
        assert message.raw[header.offset :].startswith(header.raw + b"\r\n")


def test_example_5_2_is_a_signed_object_with_5_1_inside() -> None:
    """SEED-7, SEC-3, SEC-13: unquoted slash in a parameter, exact octets of the first part."""
    obj = sample("example-5.2.eml")
    assert is_secured(obj)
    first, signature = multipart_parts(obj)
    assert first.startswith(b"Content-Type: Message/CPIM\r\n\r\nFrom: MR SANDERS")
    assert first.endswith(b"</body>")
    assert split_entity(signature).media_type == "application/pkcs7-signature"
    message = view(obj)
    assert message.raw == split_entity(first).octets
    assert message.to == (("Dopey Donkey", "im:eeyore@100akerwood.com"),)
    assert message.headers[0].uri == CORE + "From"


@pytest.mark.parametrize("name", ["example-5.1.eml", "example-5.2.eml"])
def test_splitting_and_joining_gives_the_file(name: str) -> None:
    assert sample(name).entity == (SAMPLES / name).read_bytes()


def test_generated_headers_are_read_alike_by_an_internet_message_parser() -> None:
    """SEED-26: without header parameters, RFC 822 readers see the same names and values."""
    message = CpimMessage.build(
        from_="im:a@x.example",
        to=["im:b@y.example", "im:c@y.example"],
        subject="hi there",
        message_id="abc",
        content=b"",
    )
    parsed = email.message_from_bytes(message.raw)
    assert parsed.items() == [(header.raw.split(b":")[0].decode(), header.value) for header in message.headers]

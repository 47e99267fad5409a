"""Properties of message/cpim: building and parsing agree, and no octets get anything but a view or MalformedMessage."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.entity import multipart_parts, split_entity
from comity.cpim.header import NamedAddress, escape, quoted, unescape
from comity.cpim.message import CpimMessage, check_profile
from comity.cpim.operations import MimeObject
from comity.cpim.scan import ContentHeader, scan_headers
from comity.errors import MalformedMessage

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
URIS = st.from_regex(r"(im|sip|x-a):[A-Za-z0-9%;=?@.\[\]^-]{1,30}", fullmatch=True)
ADDRESSES = st.builds(NamedAddress, TEXT, URIS)
TIMES = st.datetimes(min_value=datetime(1, 1, 1), timezones=st.just(UTC))

#: Octets that look enough like an object to reach every branch.
PIECES = st.sampled_from(
    (
        *(
            b"From: ",
            b"To: ",
            b"NS: ",
            b"p.X: ",
            b"DateTime: ",
            b"Require: ",
            b"Subject:;lang=fr ",
            b"<im:a@b>",
            b"p <urn:x>",
        ),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"Content-Type: text/plain",
            b"Content-Type: message/cpim",
            b"2000-12-13T13:40:00Z",
            b",",
        ),
        *(b" ", b"\\", b"\\ud83d", b'"', b"\xff", b"\xc3\xbc", b"\x00", b"\n", b"\r"),
    )
)
OCTETS = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=30).map(b"".join))


@given(
    sender=ADDRESSES,
    to=st.lists(ADDRESSES, min_size=1, max_size=4),
    cc=st.lists(ADDRESSES, max_size=2),
    when=st.none() | TIMES,
    subject=TEXT,
    content=st.binary(),
)
def test_what_is_built_parses_to_what_was_given(
    sender: NamedAddress,
    to: list[NamedAddress],
    cc: list[NamedAddress],
    when: datetime | None,
    subject: str,
    content: bytes,
) -> None:
    """FMT-14, FMT-16 to 18, FMT-44."""
    message = CpimMessage.build(
        from_=sender, to=to, cc=cc, date_time=when, subject=subject, message_id="x", content=content
    )
    again = CpimMessage.parse(message.raw)
    assert again.raw == message.raw
    check_profile(again)
    assert (again.from_, again.to, again.cc) == (sender, tuple(to), tuple(cc))
    assert again.date_time == (when and when.replace(microsecond=when.microsecond // 1000 * 1000))
    assert again.subject() == subject.strip(" ")
    assert again.content == content


@given(OCTETS)
def test_any_octets_give_a_view_or_malformed_message(octets: bytes) -> None:
    for lenient in (False, True):
        message = offset = None
        try:
            message = CpimMessage.parse(octets, lenient=lenient)
        except MalformedMessage as error:
            offset = error.offset
        assert offset is None or 0 <= offset <= len(octets)
        if message is None:
            continue
        assert message.raw == octets
        assert all(octets[header.offset :].startswith(header.raw) for header in message.headers)
        assert octets.endswith(message.content)


@given(OCTETS, st.integers(min_value=1, max_value=40))
def test_scanning_in_chunks_sees_what_parsing_sees(octets: bytes, size: int) -> None:
    """CONSTR-2: whatever parses, scans alike."""
    try:
        message = CpimMessage.parse(octets)
    except MalformedMessage:
        return
    found = list(scan_headers(octets[start : start + size] for start in range(0, len(octets), size)))
    assert tuple(header for header in found if not isinstance(header, ContentHeader)) == message.headers
    assert [(header.name, header.value) for header in found if isinstance(header, ContentHeader)] == list(
        message.content_headers
    )


@given(TEXT)
def test_escaping_is_undone_by_unescaping(text: str) -> None:
    assert unescape(escape(text)) == text
    assert unescape(quoted(text)[1:-1]) == text


@given(st.lists(st.binary(), min_size=1, max_size=5), st.sampled_from(["next", "a b", "x'()+_,-./:=?"]))
def test_parts_come_back_exactly(parts: list[bytes], boundary: str) -> None:
    """SEC-3."""
    line = b"--" + boundary.encode()
    octets = b"".join(line + b"\r\n" + part + b"\r\n" for part in parts) + line + b"--"
    if any(line in part for part in parts):
        return
    assert multipart_parts(MimeObject.of(f'multipart/mixed; boundary="{boundary}"', octets)) == parts


@given(OCTETS)
def test_an_entity_that_splits_joins_to_itself(octets: bytes) -> None:
    try:
        obj = split_entity(octets)
    except MalformedMessage:
        return
    assert obj.entity == octets

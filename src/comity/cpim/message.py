"""A message/cpim object: its octets and a view of them (RFC 3862).

Place on the path: steps 4, 5 and 8 read objects through ``CpimMessage``; what travels is always ``raw``. The rule its
readers must keep: nothing here is ever written back. ``parse`` judges structure only; ``check_profile`` adds what
an application demands of the messages its own users submit (RFC 3862 section 6). To make one, see ``compose.py``.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, lru_cache

from comity.cpim.address import Address
from comity.cpim.compose import PLAIN, Named, Subjects, compose
from comity.cpim.header import (
    BAD_CONTENT_OCTET,
    BAD_OCTET,
    CORE,
    IMDN,
    CpimHeader,
    NamedAddress,
    Namespaces,
    header_text,
    read_address,
    read_header,
    read_timestamp,
)
from comity.errors import AddressError, MalformedMessage

_MIME_NAME = re.compile(r"[!-9;-~]+")
_FOLD = re.compile(r"\r\n[ \t]+")


@dataclass(frozen=True, slots=True)
class CpimLimits:
    """What a reader of objects puts up with; above it MalformedMessage with the hint "size" (CONSTR-1)."""

    message: int = 128 * 1024
    """Octets of one object. Base64 of it fits a stanza of 256 KiB."""
    header_block: int = 16 * 1024
    """Octets of the message headers together; the same again for the content's MIME headers."""
    header: int = 8 * 1024
    """Octets of one header line."""
    headers: int = 64
    """Message headers; the same again for the content's MIME headers."""
    depth: int = 8
    """Entities looked into, one inside the other; what lies deeper is opaque."""
    parts: int = 32
    """Body parts of one multipart entity."""


DEFAULT = CpimLimits()

#: What Comity understands, so that a Require naming it can be met (FMT-33, FMT-38).
KNOWN_HEADERS = frozenset(
    [(CORE, name) for name in ("From", "To", "cc", "DateTime", "Subject", "NS", "Require")]
    + [(IMDN, "Message-ID"), (IMDN, "Disposition-Notification")]
)


#: Headers that say from whom to whom, by what a careless reader may take for them.
_PEOPLE = {"from": "From", "to": "To"}


@dataclass(frozen=True)
class CpimMessage:
    """An immutable view of a message/cpim object; made by ``parse`` or ``build``, equal if the octets are equal."""

    raw: bytes
    """The object as it stands; the only thing ever forwarded, stored or signed."""
    headers: tuple[CpimHeader, ...] = field(compare=False, repr=False)
    senders: tuple[NamedAddress, ...] = field(compare=False, repr=False)
    """Every From in the core namespace; more than one makes the sender ambiguous."""
    to: tuple[NamedAddress, ...] = field(compare=False, repr=False)
    cc: tuple[NamedAddress, ...] = field(compare=False, repr=False)
    require: tuple[tuple[str, str], ...] = field(compare=False, repr=False)
    """(namespace, name) of everything the recipient must understand; the namespace "" cannot be known."""
    content_headers: tuple[tuple[str, str], ...] = field(compare=False, repr=False)
    """The content's MIME headers, unfolded, in order."""
    content_header_block: bytes = field(compare=False, repr=False)
    """The same as they stand, each line ended by CR LF, without the empty line."""
    content_offset: int = field(compare=False, repr=False)
    """Of the content's first octet in ``raw``."""
    flags: tuple[str, ...] = field(compare=False, repr=False)
    """What a reader should know: "ambiguous-sender", "ambiguous-date-time", "ns-ignored", "undeclared-prefix",
    "prefix-redeclared", "default-namespace-changed", "content-type-in-message-headers"."""

    @classmethod
    def parse(cls, raw: bytes, *, limits: CpimLimits = DEFAULT, lenient: bool = False) -> CpimMessage:
        """View ``raw`` as a message/cpim object.

        Args:
            raw: the octets after the entity's own MIME headers.
            limits: what to put up with.
            lenient: also read objects that lack the empty line before the content's headers, as the examples of
                RFC 4975 and RFC 5438 do (X4); flagged "content-type-in-message-headers".

        Raises:
            MalformedMessage: RFC 3862 does not allow it, or a limit is passed (hint "size").
        """
        if len(raw) <= MAX_CACHED and limits is DEFAULT and not lenient:
            return _parse_small(raw)
        return _parse(raw, limits, lenient)

    @classmethod
    def build(
        cls,
        *,
        from_: Named,
        to: Named | Sequence[Named],
        cc: Sequence[Named] = (),
        date_time: datetime | None = None,
        subject: Subjects = "",
        message_id: str = "",
        headers: Sequence[tuple[str, str]] = (),
        content_type: str = PLAIN,
        content: bytes = b"",
        content_headers: Sequence[tuple[str, str]] = (),
        limits: CpimLimits = DEFAULT,
    ) -> CpimMessage:
        """Make an object; the same arguments give the same octets (FMT-44). See ``compose`` for the arguments.

        Raises:
            LocalProtocolError: an argument cannot be expressed in message/cpim.
            MalformedMessage: the object would pass ``limits``.
        """
        raw = compose(
            from_=from_,
            to=to,
            cc=cc,
            date_time=date_time,
            subject=subject,
            message_id=message_id,
            headers=headers,
            content_type=content_type,
            content=content,
            content_headers=content_headers,
        )
        return _parse(raw, limits, False)

    @property
    def from_(self) -> NamedAddress | None:
        """The sender; None if no From names one, or several do (``senders``, flag "ambiguous-sender")."""
        return self.senders[0] if len(self.senders) == 1 else None

    @property
    def content(self) -> bytes:
        """The content's octets, to the end of the frame: a Content-Length here means nothing (FMT-43)."""
        return self.raw[self.content_offset :]

    def core(self, name: str, namespace: str = CORE) -> list[CpimHeader]:
        """All headers of one name in a namespace, in order, under whatever prefix (FMT-28)."""
        return [header for header in self.headers if header.name == name and header.namespace == namespace]

    def content_header(self, name: str) -> str:
        """Value of the content's first MIME header ``name`` (any case); "" if absent."""
        wanted = name.lower()
        for key, value in self.content_headers:
            if key.lower() == wanted:
                return value
        return ""

    @cached_property
    def content_type(self) -> str:
        """The content's Content-Type value, parameters included."""
        return self.content_header("content-type")

    @cached_property
    def date_time_text(self) -> str:
        """Value of the only DateTime header; "" if there is none or several."""
        found = self.core("DateTime")
        return found[0].value if len(found) == 1 else ""

    @cached_property
    def date_time(self) -> datetime | None:
        """When it was sent, aware; None without one DateTime that is an RFC 3339 timestamp."""
        return read_timestamp(self.date_time_text)

    @cached_property
    def subjects(self) -> Mapping[str, str]:
        """Language tag to subject, in order; no tag is "i-default", the first of a language counts (FMT-37)."""
        found: dict[str, str] = {}
        for header in self.core("Subject"):
            found.setdefault(header.language, header.value)
        return found

    def subject(self, lang: str | None = None) -> str:
        """The subject in ``lang`` or the nearest there is (RFC 4647 section 3.4); "" if there is none."""
        by_tag = {tag.lower(): text for tag, text in self.subjects.items()}
        wanted = (lang or "i-default").lower()
        while wanted:
            if wanted in by_tag:
                return by_tag[wanted]
            wanted = wanted.rpartition("-")[0]
        return by_tag.get("i-default") or next(iter(by_tag.values()), "")

    @cached_property
    def message_id(self) -> str:
        """The imdn.Message-ID under any prefix (RFC 5438 section 6.3); "" if there is none or several."""
        found = self.core("Message-ID", IMDN)
        return found[0].value if len(found) == 1 else ""

    @cached_property
    def sender(self) -> Address | None:
        """The im: address of ``from_``, whatever scheme it is written in; None if there is no usable one (C-20, C-22)."""
        return _im_address(self.from_)

    def names(self, address: Address) -> bool:
        """True if ``address`` is among To and cc, schemes disregarded (C-23)."""
        wanted = address.with_scheme("im")
        return any(_im_address(named) == wanted for named in (*self.to, *self.cc))

    @property
    def unknown_requirements(self) -> list[tuple[str, str]]:
        """What Require asks for and Comity does not know: a recipient refuses such an object, a relay does not."""
        return [pair for pair in self.require if pair not in KNOWN_HEADERS]


def _im_address(named: NamedAddress | None) -> Address | None:
    try:
        return Address.from_any(named.uri) if named else None
    except AddressError:
        return None


def _parse(raw: bytes, limits: CpimLimits, lenient: bool) -> CpimMessage:
    if len(raw) > limits.message:
        raise MalformedMessage("the object is larger than allowed", offset=limits.message, hint="size")
    end = 0 if raw.startswith(b"\r\n") else raw.find(b"\r\n\r\n", 0, limits.header_block + 2)
    if end < 0:
        raise _unended(raw, 0, limits, "message headers")
    head = raw[:end]
    scope = Namespaces()
    headers: list[CpimHeader] = []
    addresses: dict[str, list[NamedAddress]] = {"From": [], "To": [], "cc": []}
    require: list[tuple[str, str]] = []
    dates = 0
    offset = 0
    text = header_text(head, 0, BAD_OCTET)
    is_ascii = len(text) == end
    lines = text.split("\r\n") if end else []
    if len(lines) > limits.headers:
        raise MalformedMessage("there are more message headers than allowed", hint="size")
    for line in lines:
        length = len(line) if is_ascii else len(line.encode())
        if length > limits.header:
            raise MalformedMessage("a header is longer than allowed", offset=offset, hint="size")
        header, raw_value = read_header(line, head[offset : offset + length], offset, scope)
        headers.append(header)
        if header.namespace == CORE:
            name = header.name
            if name in addresses:
                addresses[name].append(read_address(raw_value, offset))
            elif name == "DateTime":
                dates += 1
            elif name == "Require":
                require += scope.required(raw_value)
        offset += length + 2
    start = end if end == 0 else end + 2
    block, content_headers, content_offset = _read_content(
        raw, start + 2, headers, scope, limits=limits, lenient=lenient
    )
    if len(addresses["From"]) > 1:
        scope.flags.append("ambiguous-sender")
    if dates > 1:
        scope.flags.append("ambiguous-date-time")
    return CpimMessage(
        raw,
        tuple(headers),
        tuple(addresses["From"]),
        tuple(addresses["To"]),
        tuple(addresses["cc"]),
        tuple(require),
        content_headers,
        block,
        content_offset,
        tuple(dict.fromkeys(scope.flags)),
    )


def _unended(raw: bytes, start: int, limits: CpimLimits, what: str) -> MalformedMessage:
    """Say why no empty line was found within the limit."""
    found = BAD_OCTET.search(raw, start)
    if found and found.start() < start + limits.header_block and raw[found.start()] in b"\r\n":
        return MalformedMessage("a header holds a line end other than CR LF", offset=found.start())
    if len(raw) - start > limits.header_block:
        return MalformedMessage(f"the {what} are longer than allowed", offset=start, hint="size")
    return MalformedMessage(f"no empty line ends the {what}", offset=len(raw))


# Several steps of the path look into the same object within a few milliseconds; views are immutable, so they can share.
MAX_CACHED = 8192


@lru_cache(maxsize=128)
def _parse_small(raw: bytes) -> CpimMessage:
    return _parse(raw, DEFAULT, False)


Pairs = tuple[tuple[str, str], ...]


def _read_content(
    raw: bytes, start: int, headers: list[CpimHeader], scope: Namespaces, *, limits: CpimLimits, lenient: bool
) -> tuple[bytes, Pairs, int]:
    """Read the content's MIME headers from ``start``; gives the block, its headers and where the content begins."""
    try:
        if raw.startswith(b"\r\n", start):
            raise MalformedMessage("the content has no Content-Type", offset=start)
        end = raw.find(b"\r\n\r\n", start, start + limits.header_block + 2)
        if end < 0:
            raise _unended(raw, start, limits, "content headers")
        block = raw[start : end + 2]
        pairs = read_mime_headers(block, start, limits)
        types = sum(name.lower() == "content-type" for name, _ in pairs)
        if types != 1:
            how = "several Content-Types" if types else "no Content-Type"
            raise MalformedMessage(f"the content has {how}", offset=start)
    except MalformedMessage:
        moved = [header for header in headers if header.name.lower().startswith("content-")]
        if not lenient or sum(header.name.lower() == "content-type" for header in moved) != 1:
            raise
        # X4: the writer left out the empty line, so the first one ends the content's headers too.
        scope.flags.append("content-type-in-message-headers")
        block = b"".join(header.raw + b"\r\n" for header in moved)
        return block, tuple((header.name, header.value) for header in moved), start
    return block, pairs, end + 4


def read_mime_headers(block: bytes, offset: int, limits: CpimLimits = DEFAULT) -> Pairs:
    """Read MIME header lines (each ended by CR LF, folding allowed) as (name, unfolded value). Raises MalformedMessage."""
    text = header_text(block, offset, BAD_CONTENT_OCTET)
    if "\r\n " in text or "\r\n\t" in text:
        text = _FOLD.sub(" ", text)
    lines = text.split("\r\n")
    if len(lines) - 1 > limits.headers:
        raise MalformedMessage("there are more content headers than allowed", offset=offset, hint="size")
    pairs = []
    for line in lines[:-1]:
        name, colon, value = line.partition(":")
        if not colon or not _MIME_NAME.fullmatch(name):
            raise MalformedMessage("a content header is not name: value", offset=offset)
        if len(line) > limits.header:
            raise MalformedMessage("a content header is longer than allowed", offset=offset, hint="size")
        pairs.append((name, value.strip(" \t")))
    return tuple(pairs)


def check_profile(message: CpimMessage) -> None:
    """Apply Comity's application profile (RFC 3862 section 6, FMT-38) to a message about to be submitted.

    Raises:
        MalformedMessage: From or To is missing, From, DateTime or Message-ID is repeated, DateTime is no timestamp, or a
            namespace or the case of a name is used in a way that two readers could take differently.
    """
    _check_namespaces(message)
    if not message.senders:
        raise MalformedMessage("there is no From header")
    if len(message.senders) > 1:
        raise MalformedMessage("there is more than one From header", offset=message.core("From")[1].offset)
    if not message.to:
        raise MalformedMessage("there is no To header")
    dates = message.core("DateTime")
    if len(dates) > 1:
        raise MalformedMessage("there is more than one DateTime header", offset=dates[1].offset)
    if dates and message.date_time is None:
        raise MalformedMessage("DateTime is not an RFC 3339 timestamp", offset=dates[0].offset)
    ids = message.core("Message-ID", IMDN)
    if len(ids) > 1:
        raise MalformedMessage("there is more than one Message-ID header", offset=ids[1].offset)


def _check_namespaces(message: CpimMessage) -> None:
    if "undeclared-prefix" in message.flags:
        unknown = next(header for header in message.headers if not header.namespace)
        raise MalformedMessage("a namespace prefix is used before it is declared", offset=unknown.offset)
    if "prefix-redeclared" in message.flags:
        raise MalformedMessage("a namespace prefix is declared twice")
    for header in message.headers:
        # After a change of the default namespace a bare NS is, strictly, not a declaration; others may take it for one.
        if header.name == "NS" and header.namespace != CORE and header.raw.startswith(b"NS:"):
            raise MalformedMessage("NS stands outside its namespace", offset=header.offset)
        people = _PEOPLE.get(header.name.lower())
        if people and (header.name != people or header.namespace != CORE) and b"." not in header.raw.partition(b":")[0]:
            # Whoever reads without regard to case or namespace would see other people than we do (T5, C-05, C-16).
            raise MalformedMessage(f"a header looks like {people} and is none", offset=header.offset)


def new_message_id(random: bytes) -> str:
    """Make a Message-ID of random octets: a token without padding (RFC 5438 section 6.3).

    Args:
        random: at least 8 octets (64 bits) from a cryptographic source.
    """
    if len(random) < 8:
        raise ValueError("a Message-ID needs at least 64 random bits")
    return base64.urlsafe_b64encode(random).rstrip(b"=").decode("ascii")

"""Encrypted CMS taken apart to be changed: where the secret parts stand, and other recipients around the same content."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from comity.secure import ber


def inner(raw: bytes) -> ber.Element:
    return ber.read(raw).children[1].children[0]


def secret_places(raw: bytes) -> dict[str, range]:
    """Where the encrypted key, the content and the tag stand in ``raw``."""
    fields = inner(raw).children
    recipient = fields[1].children[0]
    place = recipient.children[3] if recipient.tag == ber.SEQUENCE else recipient.children[3].children[0].children[1]
    found = {"key": extent(place), "content": extent(fields[2].children[2])}
    if len(fields) > 3:
        found["tag"] = extent(fields[3])
    return found


def extent(element: ber.Element) -> range:
    end = element.offset + len(element.raw)
    return range(end - len(element.body), end)


def flipped(raw: bytes, at: int, mask: int = 1) -> bytes:
    return raw[:at] + bytes((raw[at] ^ mask,)) + raw[at + 1 :]


def wrapped_anew(raw: bytes, change: Callable[[list[bytes]], Sequence[bytes]]) -> bytes:
    """``raw`` with the list of RecipientInfos changed."""
    content_type, _ = ber.read(raw).children
    fields = inner(raw).children
    infos = change([bytes(info.raw) for info in fields[1].children])
    body = (*(bytes(f.raw) for f in fields[:1]), ber.tlv(ber.SET, *infos), *(bytes(f.raw) for f in fields[2:]))
    return ber.sequence(bytes(content_type.raw), ber.tlv(0xA0, ber.sequence(*body)))

"""Open an OpenPGP message: for whom it is, what is inside, within limits (RFC 9580 sections 5.1, 5.6, 5.13 and 10.3).

Place on the path: below ``openpgp.open_message``; the octets of a multipart/encrypted go in, ``Opened`` comes out. Only
integrity-protected data opens (SEIPD, version 1 with its MDC or version 2), only as a whole, and every failure after the
choice of a key has one text (M-27, M-33). Inside stands one literal, at most once compressed, with the signatures over
it, all of which go into ``Opened.signatures``: nothing here says whether they hold.
"""

from __future__ import annotations

import bz2
import zlib
from collections.abc import Sequence
from typing import Protocol

from comity.errors import MalformedMessage
from comity.secure import openpgp_packets as wire
from comity.secure.evidence import DecryptionFailed, NoKey, Opened
from comity.secure.openpgp_crypto import (
    FAILURES,
    Recipient,
    SecretKey,
    open_data,
    read_recipient,
    secret_keys,
    session_key,
)

MAX_TRIES = 10
"""Session keys that are tried (M-31): each is an operation of the private key, and a run over the data."""
MAX_INSIDE = 32
"""Packets inside: a literal and its signatures."""
MAX_DECOMPRESSED = 4 * 1024 * 1024
"""Octets (M-32)."""
MAX_RATIO = 16
"""Times the compressed size (M-32); does not count up to ``SMALL``."""
SMALL = 64 * 1024
OLD_AEAD = 20
"""The AEAD packet of a draft that gpg 2.3 writes (LibrePGP)."""


class Keys(Protocol):
    """What is needed of a ``PgpIdentity``."""

    @property
    def fingerprint(self) -> str:
        """Of the certificate."""

    @property
    def secret(self) -> bytes:
        """The private keys, binary packets."""


def open_octets(octets: bytes, identities: Sequence[Keys]) -> Opened:
    """Open a message that is encrypted for one of ``identities``.

    Raises:
        MalformedMessage: it is no encrypted OpenPGP message.
        NoKey: it is for others, as anybody can see.
        DecryptionFailed: it does not open.
    """
    packets = [p for p in wire.read_packets(wire.dearmor(octets, (b"MESSAGE",))) if p.tag not in wire.IGNORED]
    del octets  # it may be the last to hold an armor that is as large as all the rest
    if not packets or any(packet.tag not in (wire.PKESK, wire.SKESK) for packet in packets[:-1]):
        raise MalformedMessage("the OpenPGP data is no encrypted message")
    data = packets.pop()
    if data.tag in (wire.SED, OLD_AEAD):
        raise DecryptionFailed  # without integrity protection, or in a way we do not take (SEC-12, M-27)
    if data.tag != wire.SEIPD:
        raise MalformedMessage("the OpenPGP data is no encrypted message")
    tries = _tries([packet for packet in packets if packet.tag == wire.PKESK], identities)
    if not tries:
        raise NoKey("None of the OpenPGP keys it is encrypted for is here.")
    content = data.content
    del packets, data  # of what came in pieces only the joined content stays
    for recipient, key, fingerprint in tries:
        try:
            plain, algorithm = open_data(content, session_key(recipient, key))
            entity, signatures = inside(plain)
        except FAILURES:
            continue
        return Opened(entity, algorithm, is_authenticated=True, recipient=fingerprint, signatures=signatures)
    raise DecryptionFailed


def _tries(packets: Sequence[wire.Packet], identities: Sequence[Keys]) -> list[tuple[Recipient, SecretKey, str]]:
    """Which key may open which session key: those that are named first, the anonymous ones after them."""
    recipients = [recipient for packet in packets if (recipient := read_recipient(packet)) is not None]
    recipients.sort(key=lambda recipient: recipient.is_anonymous)
    found = [
        (recipient, key, identity.fingerprint)
        for recipient in recipients
        for identity in identities
        for key in secret_keys(identity.secret)
        if recipient.is_for(key)
    ]
    return found[:MAX_TRIES]


def inside(plain: bytes | memoryview) -> tuple[bytes, bytes]:
    """The content of the one literal, and the signatures beside it (RFC 9580 section 10.3)."""
    packets = _packets(plain)
    if len(packets) == 1 and packets[0].tag == wire.COMPRESSED:
        packets = _packets(_decompressed(packets[0].content))
    literals = [index for index, packet in enumerate(packets) if packet.tag == wire.LITERAL]
    if len(literals) != 1:
        raise MalformedMessage("the OpenPGP message has not exactly one content")
    at = literals[0]
    before, after = packets[:at], packets[at + 1 :]
    if before and before[0].tag == wire.ONE_PASS:
        # All but the last say that the next is over the same content (RFC 9580 section 5.4).
        flags = [packet.body[-1:] for packet in before]
        is_usual = {packet.tag for packet in before} == {wire.ONE_PASS} and len(after) == len(before)
        if not is_usual or flags != [b"\0"] * (len(before) - 1) + [b"\1"]:
            raise MalformedMessage("the signatures inside the OpenPGP message are not in order")
        signatures = after
    elif after:
        raise MalformedMessage("there is something after the content of the OpenPGP message")
    else:
        signatures = before  # the older form
    if any(packet.tag != wire.SIGNATURE for packet in signatures):
        raise MalformedMessage("there is something else than signatures beside the content")
    literal = wire.Fields(packets[at].content)
    literal.take(1)
    literal.take(literal.number(1))  # a file name, which means nothing here (M-39)
    literal.take(4)
    return literal.rest(), b"".join(packet.raw for packet in signatures)


def _packets(plain: bytes | memoryview) -> list[wire.Packet]:
    return [packet for packet in wire.read_packets(plain, MAX_INSIDE) if packet.tag not in wire.IGNORED]


def _decompressed(body: memoryview) -> bytes:
    """Undo a compressed packet, bounded (M-32)."""
    limit = min(max(MAX_RATIO * len(body), SMALL), MAX_DECOMPRESSED)
    method, data = bytes(body[:1]), body[1:]
    try:
        if method in (b"\x01", b"\x02"):
            inflater = zlib.decompressobj(-15 if method == b"\x01" else 15)
            plain, is_whole, rest = inflater.decompress(data, limit + 1), inflater.eof, inflater.unused_data
        elif method == b"\x03":
            unpacker = bz2.BZ2Decompressor()
            plain = unpacker.decompress(data, limit + 1)
            is_whole, rest = unpacker.eof, unpacker.unused_data
        else:
            raise MalformedMessage("the compression is not known")
    except (zlib.error, OSError, EOFError) as error:
        raise MalformedMessage("the compressed data is damaged") from error
    if not is_whole or rest or len(plain) > limit:
        raise MalformedMessage("the compressed data is too large or not whole")
    return plain

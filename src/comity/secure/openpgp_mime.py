"""The MIME around OpenPGP: multipart/signed and multipart/encrypted (RFC 3156, RFC 1847).

Place on the path: between ``signing.py``, ``sealing.py``, ``opening.py`` above and ``openpgp.py`` below. The rule its readers must
keep: what is signed is 7 bits wide, so that a mail gateway has no reason to re-code it (RFC 3156 section 3). A message/cpim
is 8 bits and immutable (RFC 3862 section 9); so the transfer encoding goes around the whole object, outside it (X34).
"""

from __future__ import annotations

import base64
import binascii
import re

from comity.cpim.entity import content_type_params, decode_transfer, multipart_parts, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError

PGP_SIGNATURE = "application/pgp-signature"
PGP_ENCRYPTED = "application/pgp-encrypted"
MULTIPART_ENCRYPTED = "multipart/encrypted"
MICALG = "pgp-sha512"
"""What pysequoia signs with, whatever the key."""

MAX_LINE = 998
"""Octets of a line without its CR LF (RFC 2045 section 2.7)."""
_ENCODING = re.compile(rb"content-transfer-encoding[ \t]*:[^\n]*\n(?:[ \t][^\n]*\n)*", re.IGNORECASE)


def seven_bit(raw: bytes) -> bytes:
    """The entity as it may be signed: itself if it is 7 bits wide, else under quoted-printable or base64.

    Raises:
        SecurityError: its MIME headers are not 7 bits wide, or it is a multipart, whose parts would need it.
    """
    obj = split_entity(raw)
    if not _is_safe(obj.header_block):
        raise SecurityError("This entity cannot be signed with OpenPGP: its MIME headers are not plain ASCII lines.")
    if _is_safe(obj.octets):
        return raw
    if obj.media_type.startswith("multipart/") or obj.header("content-transfer-encoding").lower() in _DONE:
        raise SecurityError("This entity cannot be signed with OpenPGP: its parts are not 7 bits wide.")
    encoding, octets = _encoded(obj.octets)
    header = b"".join(line for line in _header_lines(obj.header_block) if not _ENCODING.fullmatch(line))
    result = MimeObject(header + b"Content-Transfer-Encoding: " + encoding + b"\r\n", octets)
    assert decode_transfer(result) == obj.octets, "a transfer encoding that does not give the same octets back"
    return result.entity


def _is_safe(octets: bytes) -> bool:
    """True if no gateway for mail has a reason to change it (RFC 3156 section 3)."""
    return (
        octets.isascii()
        and b"\0" not in octets
        and octets.count(b"\n") == octets.count(b"\r") == octets.count(b"\r\n")
        and b" \r\n" not in octets
        and b"\t\r\n" not in octets
        and not octets.endswith((b" ", b"\t"))
        and not octets.startswith(b"From ")
        and b"\nFrom " not in octets
        and all(len(line) <= MAX_LINE for line in octets.split(b"\r\n"))
    )


_DONE = frozenset({"base64", "quoted-printable"})


def _header_lines(block: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*\n(?:[ \t][^\n]*\n)*", block)


def _encoded(octets: bytes) -> tuple[bytes, bytes]:
    """The shorter of the two, quoted-printable if in doubt: one can still read it."""
    quoted = b"\r\n".join(_quoted(line) for line in octets.split(b"\r\n"))
    if len(quoted) <= len(octets) * 4 // 3 + 76 and _is_safe(quoted):
        return b"quoted-printable", quoted
    coded = base64.b64encode(octets)
    return b"base64", b"".join(coded[at : at + 76] + b"\r\n" for at in range(0, len(coded), 76))


def _quoted(line: bytes) -> bytes:
    text = binascii.b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n")
    return b"=46" + text[1:] if text.startswith(b"From ") else text


def signed(raw: bytes, signature: bytes, boundary: bytes) -> MimeObject:
    """Put an entity and its armored signature together (RFC 3156 section 5)."""
    octets = (
        b"--" + boundary + b"\r\n" + raw + b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: application/pgp-signature; name=signature.asc\r\n"
        b"Content-Disposition: attachment; handling=required; filename=signature.asc\r\n"
        b"\r\n" + _lines(signature) + b"--" + boundary + b"--\r\n"
    )
    content_type = f'multipart/signed; protocol="{PGP_SIGNATURE}"; micalg={MICALG}; boundary="{boundary.decode()}"'
    return MimeObject.of(content_type, octets)


def encrypted(message: bytes, boundary: bytes) -> MimeObject:
    """Put an armored OpenPGP message into multipart/encrypted (RFC 3156 section 4)."""
    octets = (
        b"--" + boundary + b"\r\n"
        b"Content-Type: application/pgp-encrypted\r\n"
        b"\r\n"
        b"Version: 1\r\n"
        b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: application/octet-stream\r\n"
        b"\r\n" + _lines(message) + b"--" + boundary + b"--\r\n"
    )
    content_type = f'{MULTIPART_ENCRYPTED}; protocol="{PGP_ENCRYPTED}"; boundary="{boundary.decode()}"'
    return MimeObject.of(content_type, octets)


def is_encrypted(obj: MimeObject) -> bool:
    """True if it is multipart/encrypted by OpenPGP."""
    media_type, parameters = content_type_params(obj.content_type)
    return media_type == MULTIPART_ENCRYPTED and parameters.get("protocol", "").lower() == PGP_ENCRYPTED


def encrypted_octets(obj: MimeObject) -> bytes:
    """The OpenPGP message in a multipart/encrypted; armored or not.

    Raises:
        MalformedMessage: it is not control information of version 1, then octets (SEC-6).
    """
    parts = multipart_parts(obj)
    if len(parts) != 2:
        raise MalformedMessage("multipart/encrypted has not exactly two parts")  # RFC 1847 section 2.2
    control, data = map(split_entity, parts)
    if control.media_type != PGP_ENCRYPTED or data.media_type != "application/octet-stream":
        raise MalformedMessage("the parts of multipart/encrypted are not those of RFC 3156 section 4")
    fields = [line.partition(b":") for line in decode_transfer(control).splitlines() if line.strip()]
    versions = [value.strip() for name, _, value in fields if name.strip().lower() == b"version"]
    if versions != [b"1"]:
        raise MalformedMessage("the control part of multipart/encrypted does not say Version: 1")
    return decode_transfer(data)


def _lines(armored: bytes) -> bytes:
    """Armor with the line ends of MIME."""
    return armored.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")

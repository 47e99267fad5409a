"""Encrypt a whole MIME entity, signed before if wanted (RFC 8551 section 3.3 and 3.5, RFC 3923 section 6.5; RFC 3156).

Place on the path: before step 1, at the sender; relays carry the octets and import none of this (SEED-41). The entity's
octets stand unchanged inside the result. The rule its readers must keep: what a recipient cannot tell from a changed
object is never sent; CBC goes only around a signature (RFC 8551 section 2.7.1, decided in docs/project/decisions.md).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import Literal

from cryptography import x509

from comity.cpim.entity import split_entity
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import cms_compressed, cms_keys, cms_seal, openpgp, openpgp_mime
from comity.secure.identity import Identity
from comity.secure.openpgp import PgpCertificate, PgpIdentity
from comity.secure.signing import boundary_for, sign

Capabilities = tuple[str, ...]
"""The ciphers that a recipient announced, preferred first; () if it announced none or nothing is known."""
V4 = ("aes-256-gcm", "aes-128-gcm")
"""What a recipient of whom nothing is known is taken to read (RFC 8551 section 2.7)."""


def encrypt(
    entity: bytes | MimeObject,
    recipients: Sequence[x509.Certificate] | Sequence[PgpCertificate],
    *,
    signer: Identity | PgpIdentity | None = None,
    when: datetime | None = None,
    capabilities: Sequence[Capabilities] = (),
    cipher: str = "",
    encoding: Literal["binary", "base64"] = "binary",
    has_old_rsa: bool = False,
    is_combined: bool = True,
) -> MimeObject:
    """Encrypt a whole MIME entity for ``recipients``: S/MIME, or OpenPGP if that is what their certificates are.

    Args:
        entity: the message/cpim (or PIDF) entity with its MIME headers.
        recipients: their certificates for encryption, all of one kind; add one's own to read it again later.
        signer: signs the entity first (SEC-16).
        when: aware UTC, becomes signingTime; needed with ``signer``.
        capabilities: what the recipients announced, in the order of ``recipients``; empty: nothing is known.
        cipher: overrules the choice by capabilities.
        encoding: Content-Transfer-Encoding of the result.
        has_old_rsa: see ``cms_seal.seal``.
        is_combined: for OpenPGP recipients and an OpenPGP signer: signature and content in one OpenPGP message (RFC 3156
            section 6.2); False puts a multipart/signed inside (section 6.1).

    Raises:
        SecurityError: the entity cannot be signed or encrypted, or the recipients have no safe cipher in common.
    """
    if signer is not None and when is None:
        raise SecurityError("A signature needs a time.")
    pgp = [recipient for recipient in recipients if isinstance(recipient, PgpCertificate)]
    if pgp:
        if len(pgp) != len(recipients):
            raise SecurityError(
                "S/MIME and OpenPGP recipients are not served by one object: encrypt for each kind apart."
            )
        if when is None:
            raise SecurityError("Encrypting with OpenPGP needs a time.")  # nobody encrypts for a key that has ended
        return _encrypt_openpgp(entity, pgp, signer, when, is_combined)
    x509_recipients = [recipient for recipient in recipients if isinstance(recipient, x509.Certificate)]
    cipher = cipher or choose_cipher(capabilities)
    if signer is not None and when is not None:
        entity = sign(entity, signer, when=when).entity
    raw = entity.entity if isinstance(entity, MimeObject) else entity
    _check_entity(raw)
    if signer is None and cipher in cms_keys.CIPHERS and not cms_keys.CIPHERS[cipher].is_authenticated:
        raise SecurityError(
            f"The object cannot be encrypted with {cipher} unless it is signed: anybody could change it."
        )
    octets = cms_seal.seal(raw, x509_recipients, cipher=cipher, has_old_rsa=has_old_rsa)
    del raw, entity  # of a large object not one copy more than needed
    kind = "authEnveloped-data" if cms_keys.CIPHERS[cipher].is_authenticated else "enveloped-data"
    headers = (
        f"Content-Type: application/pkcs7-mime; smime-type={kind}; name=smime.p7m\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n"
        "Content-Disposition: attachment; filename=smime.p7m\r\n"
    )
    return MimeObject(headers.encode(), octets if encoding == "binary" else _base64(octets))


def _base64(octets: bytes) -> bytes:
    """Base64 in lines, a little at a time: the objects that are encrypted may be large."""
    text = BytesIO()
    for at in range(0, len(octets), _WHOLE_LINES):
        text.write(base64.encodebytes(octets[at : at + _WHOLE_LINES]).replace(b"\n", b"\r\n"))
    return text.getvalue()


_WHOLE_LINES = 57 * 1024
"""Octets that make a number of whole lines of 76 characters."""


def _encrypt_openpgp(
    entity: bytes | MimeObject,
    recipients: Sequence[PgpCertificate],
    signer: Identity | PgpIdentity | None,
    when: datetime,
    is_combined: bool,
) -> MimeObject:
    inside: PgpIdentity | None = None
    if isinstance(signer, PgpIdentity) and is_combined:
        inside = signer
    elif signer is not None:
        entity = sign(entity, signer, when=when)
    raw = entity.entity if isinstance(entity, MimeObject) else entity
    _check_entity(raw)
    if inside is not None:
        raw = openpgp_mime.seven_bit(raw)  # RFC 3156 section 6.2: as in multipart/signed
    message = openpgp.seal(raw, [recipient.octets for recipient in recipients], inside, when=when)
    return openpgp_mime.encrypted(message, boundary_for(message))


def compress(entity: bytes | MimeObject) -> MimeObject:
    """Compress a whole MIME entity (RFC 8551 section 3.6), to be signed or encrypted afterwards; lossless (SEC-40)."""
    raw = entity.entity if isinstance(entity, MimeObject) else entity
    _check_entity(raw)
    headers = (
        b"Content-Type: application/pkcs7-mime; smime-type=compressed-data; name=smime.p7z\r\n"
        b"Content-Transfer-Encoding: binary\r\n"
        b"Content-Disposition: attachment; filename=smime.p7z\r\n"
    )
    return MimeObject(headers, cms_compressed.compress(raw))


def choose_cipher(capabilities: Sequence[Capabilities]) -> str:
    """The cipher that the first recipient prefers of those that all read and we write (RFC 8551 section 2.7.1, 2.7.3).

    Raises:
        SecurityError: there is none; weak ones are not written, and two messages of different strength are not sent.
    """
    lists = [announced or V4 for announced in capabilities] or [V4]
    for cipher in lists[0]:
        if cipher in cms_keys.WRITTEN and all(cipher in others for others in lists):
            return cipher
    raise SecurityError("The recipients have no cipher in common that is safe to use: encrypt for each of them apart.")


def _check_entity(raw: bytes) -> None:
    try:
        has_type = bool(split_entity(raw).media_type)
    except MalformedMessage as error:
        raise SecurityError(f"This entity cannot be encrypted: {error}.") from error
    if not has_type:
        raise SecurityError("This entity cannot be encrypted: it has no Content-Type.")

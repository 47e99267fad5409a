"""Decrypt one layer of a MIME entity (RFC 8551 section 3.3, RFC 5083; RFC 3156 sections 4 and 6.2).

Place on the path: at the recipient, before or inside ``verifying.verify``; relays import none of this (SEED-41). A whole
encrypted entity and our keys go in; the entity that was inside comes out, octet for octet. What it proves is another
question: decrypted is not signed, and without ``Opened.is_authenticated`` not even unchanged (M-28).
"""

from __future__ import annotations

from collections.abc import Sequence

from comity.cpim.entity import decode_transfer, split_entity
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import ber, cms_open, openpgp, openpgp_mime
from comity.secure.evidence import DecryptionFailed, Opened
from comity.secure.identity import Identity
from comity.secure.openpgp import PgpIdentity
from comity.secure.smime import PKCS7_MIME


def decrypt(
    obj: MimeObject | bytes, keys: Sequence[Identity | PgpIdentity], *, is_damage_judged: bool = True
) -> Opened:
    """Open ``obj``, which is encrypted, with the first of ``keys`` that it is for.

    ``is_damage_judged``: False is for ``verify``, which shows nothing of an unauthenticated object but what a signature
    inside covers: then bad padding and what is no entity are given out like anything else (M-33).

    Raises:
        NoKey: it is for none of them.
        DecryptionFailed: it is for one of them and does not open; the text is the same whatever the cause (M-33).
        UnknownAlgorithm, TooLarge: it is encrypted in a way, or of a size, that is not taken.
        MalformedMessage: it is not an encrypted entity, or one that cannot be read.
    """
    if isinstance(obj, bytes):
        obj = split_entity(obj)
    if openpgp_mime.is_encrypted(obj):
        opened = openpgp.open_octets(
            openpgp_mime.encrypted_octets(obj), [key for key in keys if isinstance(key, PgpIdentity)]
        )
        return _checked(opened)
    if obj.media_type not in PKCS7_MIME:
        raise MalformedMessage("the entity is not encrypted")
    try:
        own = [key for key in keys if isinstance(key, Identity)]
        opened = cms_open.open_enveloped(decode_transfer(obj), own, is_padding_judged=is_damage_judged)
    except ber.BerError as error:
        raise MalformedMessage(f"the CMS structure cannot be read: {error}") from error
    return _checked(opened) if is_damage_judged or opened.is_authenticated else opened


def _checked(opened: Opened) -> Opened:
    """A MIME entity must come out. Octets that a change on the way made must not be told from a wrong key."""
    try:
        is_entity = bool(split_entity(opened.entity).media_type)
    except MalformedMessage:
        is_entity = False
    if not is_entity:
        raise DecryptionFailed
    return opened

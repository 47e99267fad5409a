"""Sign a whole MIME entity (RFC 8551 section 3.5, RFC 3923 section 6, RFC 8591; RFC 3156 with an OpenPGP key).

Place on the path: before step 1, at the sender. A client signs before the message enters; relays carry the octets and
import none of this (SEED-41). The rule its readers must keep: the entity's octets stand unchanged inside the result.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from functools import partial
from typing import Literal

from comity.cpim.entity import split_entity
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage, SecurityError
from comity.secure import cms, cms_write, openpgp, openpgp_mime
from comity.secure.identity import Identity
from comity.secure.question import CPIM

_BARE_LINE_END = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_MICALG = {"sha256": "sha-256", "sha384": "sha-384", "sha512": "sha-512"}
_SIGNED_DATA = (
    b"Content-Type: application/pkcs7-mime; smime-type=signed-data; name=smime.p7m\r\n"
    b"Content-Transfer-Encoding: binary\r\n"
    b"Content-Disposition: attachment; filename=smime.p7m\r\n"
)


def canonical_text(text: bytes) -> bytes:
    """Put text in canonical form, every line end CR LF (RFC 8551 section 3.1.1). For originators only (SEC-14)."""
    return _BARE_LINE_END.sub(b"\r\n", text)


def sign(
    entity: bytes | MimeObject,
    identity: Identity | openpgp.PgpIdentity,
    *,
    when: datetime,
    form: Literal["multipart", "signed-data"] = "multipart",
    with_certificate: bool = True,
    with_capabilities: bool | None = None,
    is_pss: bool = False,
) -> MimeObject:
    """Sign a whole MIME entity; its octets stand unchanged inside the result.

    With an OpenPGP key the form is always "multipart", and an entity that is not 7 bits wide is put under a transfer
    encoding first, as a whole (RFC 3156 section 3, X34).

    Args:
        entity: the message/cpim (or PIDF) entity with its MIME headers.
        identity: who signs, by S/MIME or OpenPGP.
        when: aware UTC, becomes signingTime (OpenPGP takes the machine's clock).
        form: "multipart" stays readable everywhere; "signed-data" is smaller and safer from rewriting paths (X32).
        with_certificate: False leaves the certificates out, for readers that have them (RFC 8591 section 10.2).
        with_capabilities: say how to encrypt to us, and send that certificate along if it is another one (SEC-20).
            None: in the multipart form only, since signed-data is for where every octet counts.
        is_pss: an RSA key signs by RSASSA-PSS.

    Raises:
        SecurityError: the entity is not one that may be signed, or the key is unusable.
    """
    raw = entity.entity if isinstance(entity, MimeObject) else entity
    _check_signable(raw)
    if isinstance(identity, openpgp.PgpIdentity):
        raw = openpgp_mime.seven_bit(raw)
        return openpgp_mime.signed(raw, openpgp.sign_detached(raw, identity), boundary_for(raw))
    is_announcing = form == "multipart" if with_capabilities is None else with_capabilities
    certificates = identity.sent_certificates if is_announcing else identity.certificates
    write = partial(
        cms_write.sign_data,
        raw,
        identity,
        when,
        certificates=certificates if with_certificate else (),
        is_announcing=is_announcing,
        is_pss=is_pss,
    )
    if form == "signed-data":
        return MimeObject(_SIGNED_DATA, write(is_detached=False))
    return _multipart(raw, write(is_detached=True), _MICALG[cms.DIGESTS[cms_write.digest_of(identity)]])


def _multipart(raw: bytes, signature: bytes, micalg: str) -> MimeObject:
    """The entity as it stands, and its signature beside it (RFC 8551 section 3.5.3)."""
    boundary = boundary_for(raw)
    # handling=required: RFC 3923 section 6.7 wants a Content-Disposition that says how to treat the signature.
    parts = (
        b"--" + boundary + b"\r\n",
        raw,
        b"\r\n--" + boundary + b"\r\n"
        b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n"
        b"Content-Transfer-Encoding: base64\r\n"
        b"Content-Disposition: attachment; handling=required; filename=smime.p7s\r\n"
        b"\r\n" + _base64(signature) + b"--" + boundary + b"--\r\n",
    )
    content_type = (
        f'multipart/signed; protocol="application/pkcs7-signature"; micalg={micalg}; boundary="{boundary.decode()}"'
    )
    return MimeObject.of(content_type, b"".join(parts))


def _check_signable(raw: bytes) -> None:
    """Refuse what would not verify elsewhere, or would be signed in a form nobody can keep (SEC-14, SEC-15)."""
    try:
        obj = split_entity(raw)
        if obj.media_type == CPIM:
            message = CpimMessage.parse(obj.octets)
            text, kind = message.content, message.content_type
        else:
            text, kind = obj.octets, obj.content_type
    except MalformedMessage as error:
        raise SecurityError(f"This entity cannot be signed: {error}.") from error
    if not obj.media_type:
        raise SecurityError("This entity cannot be signed: it has no Content-Type.")
    if _BARE_LINE_END.search(obj.header_block):
        raise SecurityError("This entity cannot be signed: its MIME headers have line ends other than CR LF.")
    if kind.lower().startswith("text/") and _BARE_LINE_END.search(text):
        raise SecurityError(
            "This entity cannot be signed: its text has line ends other than CR LF; make them canonical."
        )
    if obj.media_type == CPIM and obj.header("content-transfer-encoding").lower() in ("base64", "quoted-printable"):
        raise SecurityError("This entity cannot be signed: message/cpim is signed as it stands, without encoding.")


def boundary_for(raw: bytes) -> bytes:
    """A boundary that does not occur in ``raw``; the same entity gives the same one."""
    seed = hashlib.sha256(raw).hexdigest()
    for length in range(24, 65):
        boundary = f"comity-{seed[:length]}".encode()
        if boundary not in raw:
            return boundary
    raise SecurityError("This entity cannot be signed: it holds its own digest.")


def _base64(octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    return b"".join(text[at : at + 76] + b"\r\n" for at in range(0, len(text), 76))

"""What an object is, told without a key: cpim/protection.py (T11)."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers import algorithms
from cryptography.hazmat.primitives.serialization import pkcs7
from hypothesis import given
from hypothesis import strategies as st

from comity.cpim.operations import MimeObject, Requirement
from comity.cpim.protection import needs_whole, protections, read_requirements, unmet
from comity.secure import sign
from tests.secure.kit import NOW, cpim, identity, rsa_identity

SIGNED, ENCRYPTED, TLS = Requirement.SIGNED, Requirement.ENCRYPTED, Requirement.TLS
PGP_ENCRYPTED = MimeObject.of(
    'multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b',
    b"--b\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n"
    b"--b\r\nContent-Type: application/octet-stream\r\n\r\nx\r\n--b--\r\n",
)


def enveloped(entity: bytes) -> bytes:
    """EnvelopedData made by the cryptography package."""
    builder = pkcs7.PKCS7EnvelopeBuilder().set_data(entity).set_content_encryption_algorithm(algorithms.AES128)
    builder = builder.add_recipient(rsa_identity(2048).certificate)
    return builder.encrypt(serialization.Encoding.DER, [pkcs7.PKCS7Options.Binary])


def wrapped(thing: MimeObject) -> MimeObject:
    """A message/cpim whose content is ``thing``: payload-only protection (SEC-28)."""
    octets = b"From: <im:alice@a.test>\r\nTo: <im:bob@b.test>\r\n\r\n" + thing.entity
    return MimeObject.of("message/cpim", octets)


def multipart_signed(inner: MimeObject) -> MimeObject:
    octets = b"--b\r\n" + inner.entity + b"\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nx\r\n--b--\r\n"
    return MimeObject.of('multipart/signed; protocol="application/pkcs7-signature"; boundary=b', octets)


def test_forms_are_told_apart() -> None:
    plain = cpim()
    detached = sign(plain, identity(), when=NOW)
    opaque = sign(plain, identity(), when=NOW, form="signed-data")
    sealed = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", enveloped(plain.entity))
    assert protections(plain) == set()
    assert protections(detached) == protections(opaque) == {SIGNED}
    assert protections(sealed) == protections(PGP_ENCRYPTED) == {ENCRYPTED}
    assert protections(multipart_signed(sealed)) == {SIGNED, ENCRYPTED}
    for thing in (plain, detached, opaque, sealed, PGP_ENCRYPTED):
        assert protections(wrapped(thing)) == protections(thing)


def test_the_label_on_a_cms_object_is_not_believed() -> None:
    """RFC 8551 section 3.2.2: smime-type is a hint; RFC 3923 section 3.3 leaves the header out (X28)."""
    opaque = sign(cpim(), identity(), when=NOW, form="signed-data")
    lie = MimeObject.of("application/pkcs7-mime; smime-type=enveloped-data", opaque.octets)
    assert protections(lie) == {SIGNED}
    bare = MimeObject(
        b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n",
        base64.encodebytes(enveloped(b"x")).replace(b"\n", b"\r\n"),
    )
    assert protections(bare) == {ENCRYPTED}
    assert protections(MimeObject.of("application/pkcs7-mime; smime-type=signed-data", b"nothing")) == set()


def test_what_is_required_and_missing_is_said() -> None:
    plain, signed = cpim(), sign(cpim(), identity(), when=NOW)
    assert unmet(plain, ()) == unmet(plain, {TLS}) == ""
    assert unmet(plain, {SIGNED}) == "The message must be signed and is not."
    assert unmet(plain, {SIGNED, ENCRYPTED}) == unmet(signed, {SIGNED, ENCRYPTED})
    assert unmet(signed, {SIGNED}) == ""
    assert unmet(signed, {ENCRYPTED}) == "The message must be encrypted and is not."
    assert unmet(PGP_ENCRYPTED, {SIGNED, ENCRYPTED}) == ""


def test_words() -> None:
    assert read_requirements(["TLS", "signed"]) == {TLS, SIGNED}
    with pytest.raises(ValueError, match="sealed"):
        read_requirements(["tls", "sealed"])
    assert needs_whole({TLS, SIGNED})
    assert not needs_whole({TLS})


@given(
    st.sampled_from(["multipart/signed; boundary=b", "multipart/encrypted", "application/pkcs7-mime", "message/cpim"]),
    st.binary(max_size=200),
)
def test_whatever_the_octets_nothing_is_raised(content_type: str, octets: bytes) -> None:
    assert protections(MimeObject.of(content_type, octets)) <= {SIGNED, ENCRYPTED}

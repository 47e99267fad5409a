#!/usr/bin/env python3
"""Fuzz ``verify`` with keys: whole entities, what a signature covers, and what was encrypted (reliability.md T8, T9, G6).

Whatever the octets: a verdict, never an exception, and never "valid" for anything but what Alice signed. The people are those
of ``people.pem``, so that the seeds stay valid; both are made by ``python fuzz/fuzz_verify.py --seeds FOLDER``.
Run: ``python fuzz/fuzz_verify.py fuzz/corpus/verify``. The test suite calls ``one_input`` over a small corpus.
"""

from __future__ import annotations

import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from run import run

from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.errors import MalformedMessage
from comity.secure import (
    Identity,
    IdentityMatch,
    LocalCa,
    TrustStore,
    Verdict,
    VerdictKind,
    ber,
    cms,
    cms_keys,
    cms_open,
    cms_seal,
    cms_write,
    encrypt,
    new_identity,
    sign,
    verify,
)
from comity.secure.question import view_of

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE, BOB, EVE = (Address.parse(f"im:{name}@{name[0]}.test") for name in ("alice", "bob", "eve"))
PEOPLE = Path(__file__).parent / "people.pem"
PIDF = MimeObject.of(
    "application/pidf+xml",
    b'<?xml version="1.0" encoding="UTF-8"?><presence xmlns="urn:ietf:params:xml:ns:pidf" entity="pres:alice@a.test">'
    b'<tuple id="x"><status><basic>open</basic></status><timestamp>2026-03-01T12:00:00Z</timestamp></tuple></presence>',
)


def message(from_: Address = ALICE, content: bytes = b"hi", content_type: str = "text/plain") -> MimeObject:
    raw = CpimMessage.build(from_=from_, to=BOB, date_time=NOW, content=content, content_type=content_type).raw
    return MimeObject.of("message/cpim", raw)


SIGNED = frozenset((message().entity, PIDF.entity))
"""All that Alice ever signed."""


def people() -> tuple[x509.Certificate, Identity, Identity, Identity]:
    """The authority, Alice, Bob and Eve."""
    pem = PEOPLE.read_bytes()
    authority, *certificates = x509.load_pem_x509_certificates(pem)
    blocks = pem.split(b"-----BEGIN PRIVATE KEY-----")[1:]
    found = []
    for address, certificate, block in zip((ALICE, BOB, EVE), certificates, blocks, strict=True):
        key = serialization.load_pem_private_key(b"-----BEGIN PRIVATE KEY-----" + block, None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        found.append(Identity(address, key, (certificate,)))
    return authority, *found


def make_people() -> None:
    """Write other people to ``PEOPLE``: all seeds have to be made again then."""
    ca = LocalCa.create("Fuzzing CA", when=NOW)
    made = [new_identity(address, when=NOW, ca=ca) for address in (ALICE, BOB, EVE)]
    pem = [ca.certificate.public_bytes(serialization.Encoding.PEM)]
    pem += [one.certificate.public_bytes(serialization.Encoding.PEM) for one in made]
    kind = serialization.PrivateFormat.PKCS8
    pem += [one.key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()) for one in made]
    PEOPLE.write_bytes(b"".join(pem))


if "--people" in sys.argv:
    make_people()
AUTHORITY, A, B, E = people()
TRUST = TrustStore(anchors=(AUTHORITY,))


def ask(obj: MimeObject | bytes) -> Verdict:
    verdict = verify(obj, TRUST, now=NOW, keys=(B,))
    assert verdict.reason
    if verdict.is_valid:
        assert verdict.identity is IdentityMatch.MATCH
        assert verdict.covers_whole
        assert verdict.content is not None
        assert view_of(verdict.content).from_
    if verdict.verdict in (VerdictKind.DECRYPTED_UNAUTHENTICATED, VerdictKind.CANNOT_DECRYPT, VerdictKind.MALFORMED):
        assert verdict.content is None
    return verdict


def wrapped(kind: str, octets: bytes) -> MimeObject:
    return MimeObject.of(f"application/pkcs7-mime; smime-type={kind}", octets)


def one_input(data: bytes) -> None:
    """Judge ``data`` as an object, as what Eve signed, and as what was encrypted without authentication."""
    verdict = ask(data)
    if verdict.is_valid and verdict.content is not None:
        assert verdict.content.entity in SIGNED, "Alice never signed that"
    by_eve = ask(
        wrapped("signed-data", cms_write.sign_data(data, E, NOW, is_detached=False, certificates=E.certificates))
    )
    if by_eve.is_valid:
        assert by_eve.fingerprint == E.fingerprint
        assert by_eve.signer.partition(":")[2] == "eve@e.test", "Eve passed as somebody else"
    in_cbc = ask(wrapped("enveloped-data", cms_seal.seal(data, [B.certificate], cipher="aes-128-cbc")))
    if in_cbc.content is not None:
        assert in_cbc.covered_sha256, "something is shown that no signature covers"
    try:
        view_of(MimeObject.of("application/pidf+xml", data))
    except MalformedMessage:
        return


def compressed(entity: bytes) -> MimeObject:
    content = ber.sequence(ber.oid(cms.ID_DATA), ber.tlv(0xA0, ber.octet_string(zlib.compress(entity))))
    inner = ber.sequence(ber.integer(0), ber.sequence(ber.oid(cms_open.ZLIB)), content)
    return wrapped("compressed-data", ber.sequence(ber.oid(cms_keys.ID_COMPRESSED_DATA), ber.tlv(0xA0, inner)))


def seeds() -> dict[str, bytes]:
    """One entity of each shape."""
    plain, text = message(), MimeObject.of("text/plain", b"hi")
    by_alice, data = sign(plain, A, when=NOW), sign(plain, A, when=NOW, form="signed-data")
    to_bob = [B.certificate]
    cbc = cms_seal.seal(by_alice.entity, to_bob, cipher="aes-128-cbc")
    text_by_alice = sign(text, A, when=NOW)
    mixed = b"--m\r\n" + text.entity + b"\r\n--m\r\n" + by_alice.entity + b"\r\n--m--\r\n"
    sealed = encrypt(plain, to_bob)
    header = sealed.content_type
    objects = {
        "plain": plain,
        "presence": PIDF,
        "signed": by_alice,
        "signed-data": data,
        "signed-base64": encrypt(by_alice, to_bob, encoding="base64"),
        "signed-presence": sign(PIDF, A, when=NOW),
        "signed-encrypted": encrypt(data, to_bob),
        "signed-encrypted-cbc": wrapped("enveloped-data", cbc),
        "encrypted": sealed,
        "encrypted-signed": sign(sealed, A, when=NOW),
        "triple": sign(encrypt(data, to_bob), A, when=NOW, form="signed-data"),
        "compressed-signed": compressed(data.entity),
        "signed-compressed": sign(compressed(plain.entity), A, when=NOW, form="signed-data"),
        "signed-by-eve": sign(plain, E, when=NOW),
        "signed-twice": sign(by_alice, A, when=NOW),
        "content-signed": message(content=text_by_alice.octets, content_type=text_by_alice.content_type),
        "content-encrypted": message(content=sealed.octets, content_type=header),
        "part-signed": MimeObject.of("multipart/mixed; boundary=m", mixed),
        "openpgp": MimeObject.of(
            'multipart/encrypted; protocol="application/pgp-encrypted"; boundary=p',
            b"--p\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n--p\r\n"
            b"Content-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhF4D\r\n=aaaa\r\n"
            b"-----END PGP MESSAGE-----\r\n--p--\r\n",
        ),
    }
    return {name: obj.entity for name, obj in objects.items()}


if __name__ == "__main__":
    if "--seeds" in sys.argv:
        folder = Path(sys.argv[sys.argv.index("--seeds") + 1])
        folder.mkdir(parents=True, exist_ok=True)
        for name, octets in seeds().items():
            (folder / name).write_bytes(octets)
    else:
        run(one_input)

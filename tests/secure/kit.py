"""What the tests of ``comity.secure`` build on: people, objects, and a CMS forger that can do everything wrong."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from comity.cpim.address import Address
from comity.cpim.message import CpimMessage
from comity.cpim.operations import MimeObject
from comity.secure import Identity, LocalCa, TrustStore, Verdict, ber, cms, new_identity, verify
from comity.secure.identity import KeyKind, PrivateKey, PublicKey, end_entity

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
ALICE = Address.parse("im:alice@a.test")
BOB = Address.parse("im:bob@b.test")
EVE = Address.parse("im:eve@e.test")


Form = Literal["multipart", "signed-data"]
FORMS: list[Form] = ["multipart", "signed-data"]


@cache
def ca() -> LocalCa:
    return LocalCa.create("Comity CA of a.test", when=NOW)


@cache
def identity(address: Address = ALICE, kind: KeyKind = "p256") -> Identity:
    return new_identity(address, when=NOW, ca=ca(), kind=kind)


def rsa_identity(bits: int) -> Identity:
    key = rsa.generate_private_key(65537, bits)
    return Identity(ALICE, key, (ca().issue(ALICE, key.public_key(), when=NOW),))


def trust(**more: object) -> TrustStore:
    return TrustStore(anchors=(ca().certificate,), **more)  # type: ignore[arg-type]  # keyword table of a test helper


def judged(obj: MimeObject | bytes, **more: object) -> Verdict:
    """What somebody who trusts our authority says of ``obj`` at NOW."""
    return verify(obj, trust(), now=NOW, **more)  # type: ignore[arg-type]  # keyword table of a test helper


def cpim(
    from_: str = "im:alice@a.test",
    to: str = "im:bob@b.test",
    *,
    when: datetime | None = NOW,
    content: bytes = b"hi",
    content_type: str = "text/plain; charset=utf-8",
    message_id: str = "",
) -> MimeObject:
    message = CpimMessage.build(
        from_=from_, to=to, date_time=when, content=content, content_type=content_type, message_id=message_id
    )
    return MimeObject.of("message/cpim", message.raw)


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate_with(
    alternative_names: Sequence[x509.GeneralName],
    *,
    common_name: str = "somebody",
    issuer: LocalCa | None = None,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> Identity:
    """An end entity with exactly these names and further extensions, issued by our CA."""
    authority = issuer or ca()
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(common_name))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
    )
    if alternative_names:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
    for extension, is_critical in extra:
        builder = builder.add_extension(extension, critical=is_critical)
    return Identity(ALICE, key, (builder.sign(authority.key, hashes.SHA256()),))


def authority(
    subject: str,
    issuer: LocalCa | None,
    *,
    path_length: int | None = None,
    is_ca: bool = True,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> LocalCa:
    """A root or an intermediate authority with what a test wants to be wrong about it."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(issuer.certificate.subject if issuer else name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    for extension, is_critical in extra:
        builder = builder.add_extension(extension, critical=is_critical)
    return LocalCa(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def issued(by: LocalCa, address: Address = ALICE, *chain: x509.Certificate) -> Identity:
    key: PrivateKey = ec.generate_private_key(ec.SECP256R1())
    return Identity(address, key, (leaf(by, address, key.public_key()), *chain))


def leaf(by: LocalCa, address: Address, key: PublicKey) -> x509.Certificate:
    builder = end_entity(address, key, subject=name("leaf"), issuer=by.certificate.subject, when=NOW, days=1)
    return builder.sign(by.key, hashes.SHA256())


def usage(*names: str) -> x509.KeyUsage:
    fields = [
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ]
    return x509.KeyUsage(**{field: field in names for field in fields})


# --- forging -----------------------------------------------------------------------------------------------------


def attribute(oid: str, *values: bytes) -> bytes:
    return ber.sequence(ber.oid(oid), ber.set_of(values))


def usual_attributes(content: bytes, digest: str = "sha256") -> list[bytes]:
    return [
        attribute(cms.CONTENT_TYPE, ber.oid(cms.ID_DATA)),
        attribute(cms.MESSAGE_DIGEST, ber.octet_string(hashlib.new(digest, content).digest())),
        attribute(cms.SIGNING_TIME, ber.time(NOW)),
    ]


DIGEST_OIDS = {digest: oid for oid, digest in cms.DIGESTS.items()}
HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "md5": hashes.MD5,
    "sha1": hashes.SHA1,
    "sha256": hashes.SHA256,
    "sha512": hashes.SHA512,
}


def signer_info(
    signer: Identity,
    content: bytes,
    *,
    attributes: list[bytes] | None = None,
    has_attributes: bool = True,
    digest: str = "sha256",
    algorithm: bytes = b"",
    pss: bool = False,
    by_key_id: bytes = b"",
    named_digest: str = "",
) -> bytes:
    """One SignerInfo, right unless told otherwise."""
    attributes = usual_attributes(content, digest) if attributes is None else attributes
    octets = ber.set_of(attributes) if has_attributes else content
    key, hash_ = signer.key, HASHES[digest]()
    if isinstance(key, rsa.RSAPrivateKey):
        pad: padding.AsymmetricPadding = (
            padding.PSS(padding.MGF1(hash_), hash_.digest_size) if pss else padding.PKCS1v15()
        )
        signature = key.sign(octets, pad, hash_)
        usual = ber.sequence(ber.oid(cms.RSA_ENCRYPTION), ber.NULL_DER)
        if pss:
            identifier = ber.sequence(ber.oid(DIGEST_OIDS[digest]))
            fields = (
                ber.tlv(0xA0, identifier),
                ber.tlv(0xA1, ber.sequence(ber.oid(cms.MGF1), identifier)),
                ber.tlv(0xA2, ber.integer(hash_.digest_size)),
            )
            usual = ber.sequence(ber.oid(cms.RSA_PSS), ber.sequence(*fields))
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        signature, usual = key.sign(octets), ber.sequence(ber.oid(cms.ED25519))
    else:
        signature = key.sign(octets, ec.ECDSA(hash_))
        usual = ber.sequence(ber.oid("1.2.840.10045.2.1"))
    certificate = signer.certificate
    sid = ber.sequence(certificate.issuer.public_bytes(), ber.integer(certificate.serial_number))
    return ber.sequence(
        ber.integer(3 if by_key_id else 1),
        ber.tlv(0x80, by_key_id) if by_key_id else sid,
        ber.sequence(ber.oid(DIGEST_OIDS[named_digest or digest])),
        ber.set_of(attributes, 0xA0) if has_attributes else b"",
        algorithm or usual,
        ber.octet_string(signature),
    )


def signed_data(
    infos: Sequence[bytes],
    certificates: Iterable[x509.Certificate],
    *,
    content: bytes | None = None,
    content_type: str = cms.ID_DATA,
    digests: Sequence[str] = ("sha256",),
    crls: Iterable[bytes] = (),
) -> bytes:
    bag = [certificate.public_bytes(Encoding.DER) for certificate in certificates]
    lists = list(crls)
    explicit = b"" if content is None else ber.tlv(0xA0, ber.octet_string(content))
    inner = ber.sequence(
        ber.integer(1),
        ber.set_of(ber.sequence(ber.oid(DIGEST_OIDS[digest])) for digest in digests),
        ber.sequence(ber.oid(content_type), explicit),
        ber.set_of(bag, 0xA0) if bag else b"",
        ber.set_of(lists, 0xA1) if lists else b"",
        ber.set_of(infos),
    )
    return ber.sequence(ber.oid(cms.ID_SIGNED_DATA), ber.tlv(0xA0, inner))


def opaque(raw: bytes) -> MimeObject:
    return MimeObject.of("application/pkcs7-mime; smime-type=signed-data; name=smime.p7m", raw)


def multipart(content: bytes, signature: bytes, *, micalg: str = "sha-256", more: bytes = b"") -> MimeObject:
    octets = (
        b"--b\r\n" + content + b"\r\n--b\r\n"
        b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + base64.encodebytes(signature).replace(b"\n", b"\r\n")
        + more
        + b"--b--\r\n"
    )
    return MimeObject.of(
        f'multipart/signed; protocol="application/pkcs7-signature"; micalg={micalg}; boundary=b', octets
    )


def forged(entity: bytes, *signers: Identity, **how: object) -> MimeObject:
    """An opaque SignedData over ``entity`` by each of ``signers``."""
    infos = [signer_info(signer, entity, **how) for signer in signers]  # type: ignore[arg-type]  # keyword table of a test helper
    digest = str(how.get("digest", "sha256"))
    return opaque(signed_data(infos, [s.certificate for s in signers], content=entity, digests=[digest]))
